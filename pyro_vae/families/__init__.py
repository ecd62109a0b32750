"""Families of distributions: the parts a prior, a likelihood or a guide is made of."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Table(ModuleType):
    """The package's name is that of ``pv.families()``, so it can be called as the function is."""

    def __call__(self) -> Any:  # noqa: ANN401
        return import_module("..describe", __name__).families()


sys.modules[__name__].__class__ = _Table
