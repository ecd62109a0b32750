"""Programs run at given values or without their data, and guides that run the model."""

from collections.abc import Callable, Mapping
from typing import Any

import pyro.poutine as poutine
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .sites import computed

__all__ = ["At", "Unobserved", "without_the_data"]


class At(Messenger):
    """Give sites their values, and leave what else they know: a guide of effects keeps its prior.

    Args:
        values: by the names of sites.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"], msg["done"] = self.values[msg["name"]], True


class Unobserved(UnconditionMessenger):
    """Draw what is observed, and leave what is computed: a plate would draw its event again."""

    def _pyro_sample(self, msg: Any) -> None:  # noqa: ANN401
        if not computed(msg):
            super()._pyro_sample(msg)


def without_the_data(guide: Callable) -> Callable:
    """A guide that hides the model's observed sites, where it runs the model (AutoMessenger)."""

    def of_the_data(site: Any) -> bool:  # noqa: ANN401
        return site["type"] == "sample" and site["is_observed"] and not site_is_subsample(site)

    if not isinstance(poutine.unwrap(guide), GuideMessenger):
        return guide
    return poutine.block(guide, hide_fn=of_the_data)
