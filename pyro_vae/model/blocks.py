"""Blocks: the named parts of an observation, and what each is to a model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from numbers import Integral
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..language.spec import Spec

__all__ = [
    "Block",
    "Role",
    "by_name",
    "check_values",
    "one_hot",
    "places_of",
    "reshaping",
    "shape_of",
]

Role: TypeAlias = Literal["observed", "context", "label", "offset", "index", "weight"]
LARGEST = 2**31  # numbers of one observation
EXPONENT = 88  # whose exponential single precision holds
SHAPES = {"label": (1, "a number of classes"), "weight": (0, "one number, ()")}


def shape_of(value: int | Sequence[int], name: str, least: int = 0) -> tuple[int, ...]:
    """A shape from a number or several, checked; of so many dimensions at least."""
    shape = tuple(value) if isinstance(value, Sequence) else (value,)
    whole = [n for n in shape if isinstance(n, Integral) and not isinstance(n, bool)]
    sizes = tuple(int(n) for n in whole if n > 0)
    if len(shape) < least or len(sizes) < len(shape):
        plain = isinstance(value, int | float | str | tuple | list | dict | None)
        got = repr(value) if plain else type(value).__name__
        raise ValueError(f"{name} must be a positive whole number or a tuple of them, got {got}")
    if math.prod(sizes) > LARGEST:
        raise ValueError(f"{name} of {value} has more numbers than memory can hold")
    return sizes


@dataclass(frozen=True, init=False)
class Block:
    """A named part of an observation.

    Args:
        name: of the block.
        shape: of one observation's part; ``()`` for a number.
        role: what it is to the model:

            - ``observed``: scored by the likelihood, and read by the encoder;
            - ``context``: read by the encoder and, beside z, by the decoder; never scored;
            - ``label``: one of ``shape`` classes, scored where it is known, latent elsewhere;
            - ``offset``: added to the logarithm of the likelihood's mean (a log exposure), of the
              shape of x, or one number; of families of counts, such as ``Poisson``;
            - ``weight``: a number that multiplies the observation's term in the objective;
            - ``index``: a time or place, kept beside the observation and read by no network.
        likelihood: the line of an observed block; the model's ``likelihood`` by default.
        missing: whether NaN in an observed block is a missing cell, and no mistake.

    Raises:
        ValueError: an unknown role, or a shape that the role cannot have.

    >>> Block("age", role="context").shape, Block("x", 784).width
    ((), 784)
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    likelihood: str | None
    missing: bool

    def __init__(
        self,
        name: str,
        shape: int | Sequence[int] = (),
        role: Role = "observed",
        likelihood: str | Spec | None = None,
        missing: bool = False,
    ) -> None:
        shape = shape_of(shape, f"the shape of block {name!r}")
        if role not in get_args(Role):
            known = ", ".join(get_args(Role))
            raise ValueError(f"the role of block {name!r} is one of {known}, got {role}")
        dims, needs = SHAPES.get(role, (len(shape), ""))
        if len(shape) != dims:
            raise ValueError(f"the shape of a {role} is {needs}, got {shape}")
        if role != "observed" and (missing or likelihood):
            raise ValueError(f"missing and likelihood are of observed blocks, not of a {role}")
        line = str(likelihood) if likelihood else None
        values = {"name": name, "shape": shape, "role": role, "likelihood": line}
        self.__dict__.update(values, missing=missing)

    @property
    def width(self) -> int:
        """How many numbers an observation has in the block."""
        return math.prod(self.shape)

    @property
    def row(self) -> list[str | list[int] | bool]:
        """The arguments that make this block again, as plain values."""
        return [self.name, list(self.shape), self.role, self.likelihood or "", self.missing]


def places_of(widths: Mapping[str, int]) -> dict[str, slice]:
    """Where parts of these widths lie, side by side."""
    ends = accumulate(widths.values())
    return {name: slice(end - widths[name], end) for name, end in zip(widths, ends, strict=True)}


def by_name(blocks: Sequence[Block], parts: Sequence[Any]) -> dict[str, Any]:
    """What a loader gives side by side, as the blocks in their order.

    Raises:
        ValueError: other than one part for each block.
    """
    if len(parts) == len(blocks):
        return {b.name: part for b, part in zip(blocks, parts, strict=True)}
    names, first = ", ".join(b.name for b in blocks), blocks[0]
    shape = first.width if len(first.shape) == 1 else first.shape
    raise ValueError(
        f"a batch has {len(parts)} entries, and this model reads {names}: say what all are, "
        f"VAE(Record([Block({first.name!r}, {shape}), Block('y', role='context')]), ...), or M2 of "
        "labels, or leave some out, "
        "DataLoader(..., collate_fn=lambda rows: torch.stack([row[0] for row in rows]))"
    )


def reshaping(shape: tuple[int, ...], got: tuple[int, ...]) -> str:
    """What to do with x of the shape ``got``, for observations of the shape ``shape``."""
    if not got:
        return "give observations, an array"
    if len(got) == 1 and len(shape) == 1:
        return "one observation is numpy.asarray(x)[None], numbers of one column [:, None]"
    if got == shape:
        return "one observation is x[None]"
    last, n = len(got) - 1, len(shape)
    if n >= 3 and got[-1:] + got[last - n + 1 : last] == shape and last in (n, n - 1):
        one = "[None]" if last < n else ""
        order = ", ".join(map(str, (*range(last - n + 1), last, *range(last - n + 1, last))))
        how = "" if one else "; fit(..., layout='HWC') does so"
        return f"channels come first: x.transpose({order}){one}, or permute of a tensor{how}"
    return f"reshape x, or make VAE({got[1:]}, ...)"


def check_values(block: Block, values: Tensor) -> None:
    """Raise if the values of a block, ``(N, D)``, are none that its role can have."""
    wrong, need = ~values.isfinite(), "a finite number"
    if block.role == "label":
        one_hot = ((values == 0) | (values == 1)).all(1) & (values.sum(1) <= 1)
        if not one_hot.all():
            raise ValueError(
                f"the last {block.width} columns are a label as a one-hot vector, or zeros: "
                "make data by vae.labelled(x, labels)"
            )
    elif block.role == "weight":
        wrong, need = wrong | (values <= 0), "a number greater than 0"
    elif block.role == "offset" and not wrong.any():
        wrong, need = values.abs() > EXPONENT, "the logarithm of an exposure, log(depth)"
    if wrong.any():
        row, cell = wrong.nonzero()[0].tolist()
        got = f"{values[row, cell].item():g} in row {row}"
        raise ValueError(f"block {block.name!r} ({block.role}) needs {need}, got {got}")


def one_hot(labels: Tensor, classes: int, n: int) -> Tensor:
    """Labels as one-hot vectors, zeros where they are not known."""
    y = labels.double().nan_to_num(-1)
    if y.shape != (n,):
        raise ValueError(
            f"expected a label for each observation, ({n},), got {tuple(y.shape)}: "
            "give -1 where it is not known"
        )
    wrong = y[(y != y.round()) | (y < -1) | (y >= classes)]
    if len(wrong):
        raise ValueError(
            f"labels are whole numbers from 0 to {classes - 1}, or -1 where they are not known, "
            f"got {wrong[0].item():g}"
        )
    return (y[:, None] == torch.arange(classes, device=y.device)).to(torch.get_default_dtype())
