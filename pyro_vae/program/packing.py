"""The arguments of a program as rows of one tensor, and back."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.arrays import numbers

__all__ = ["Packing"]


class Packing:
    """Tensors among the arguments, side by side: a row for each observation, or one for all.

    Args:
        args: of the program; NumPy's arrays become tensors.
        kwargs: likewise.
        size: N: tensors of N rows are cut into observations, the others are as they were given;
            ``None`` puts all tensors into one row.

    Raises:
        ValueError: whole numbers that no floating point type holds.
    """

    def __init__(self, args: tuple, kwargs: Mapping[str, object], size: int | None = None) -> None:
        self.args, self.size = tuple(_tensor(value) for value in args), size
        self.kwargs = {name: _tensor(value) for name, value in kwargs.items()}
        named: dict[Any, Any] = dict(enumerate(self.args)) | self.kwargs
        self.tensors: dict[Any, Tensor] = {k: v for k, v in named.items() if self._is_packed(v)}
        self.shapes = {k: v.shape if size is None else v.shape[1:] for k, v in self.tensors.items()}
        self.dtype = _floating(self.tensors)

    @property
    def rows(self) -> int:
        """How many rows the packed arguments have."""
        return 1 if self.size is None else self.size

    def pack(self, given: Mapping[Any, Tensor] | None = None) -> Tensor:
        """Rows ``(N, F)`` of the arguments, or of others in their place."""
        tensors = self.tensors | dict(given or {})
        parts = [value.detach().reshape(self.rows, -1).to(self.dtype) for value in tensors.values()]
        return torch.cat(parts, 1) if parts else torch.zeros(self.rows, 0)

    def unpack(self, x: Tensor) -> tuple[list[object], dict[str, object]]:
        """Arguments of the rows x."""
        lead = () if self.size is None else (len(x),)
        packed: dict[Any, object] = {
            key: part.reshape([*lead, *self.shapes[key]]).to(self.tensors[key].dtype)
            for key, part in self._columns(x).items()
        }
        args = [packed.get(i, value) for i, value in enumerate(self.args)]
        return args, {name: packed.get(name, value) for name, value in self.kwargs.items()}

    def replace(self, x: Tensor, given: Mapping[Any, Tensor]) -> Tensor:
        """The rows x with other values of some arguments."""
        new = {key: value.detach().reshape(len(x), -1).to(x) for key, value in given.items()}
        return torch.cat(list((self._columns(x) | new).values()), 1)

    def _columns(self, x: Tensor) -> dict[Any, Tensor]:
        """The rows x by argument."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        return dict(zip(self.shapes, x.split(sizes, 1), strict=True)) if sizes else {}

    def _is_packed(self, value: object) -> bool:
        if not isinstance(value, Tensor):
            return False
        return self.size is None or (value.ndim > 0 and len(value) == self.size)


def _tensor(value: object) -> object:
    """An array of NumPy's as a tensor, of PyTorch's default type where it holds fractions."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    tensor, _ = numbers(value)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _floating(tensors: Mapping[Any, Tensor]) -> torch.dtype:
    """The smallest floating point type that holds all these tensors."""
    widest = torch.get_default_dtype()
    for value in tensors.values():
        if value.is_floating_point():
            widest = torch.promote_types(widest, value.dtype)
    for dtype in (widest, torch.float64):
        if all(_survives(value, dtype) for value in tensors.values()):
            return dtype
    raise ValueError("an argument holds whole numbers above 2**53, or complex ones: code them anew")


def _survives(value: Tensor, dtype: torch.dtype) -> bool:
    if value.is_floating_point():
        return True
    return not value.is_complex() and torch.equal(value.to(dtype).to(value.dtype), value)
