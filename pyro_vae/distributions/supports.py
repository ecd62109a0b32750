"""Supports of single cells."""

import math
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor

__all__ = ["bound", "number_within", "support_of_cell"]


def support_of_cell(constraint: constraints.Constraint) -> constraints.Constraint:
    """The constraint on one cell, under ``independent`` and mixtures."""
    while (inner := getattr(constraint, "base_constraint", None)) is not None:
        constraint = inner
    return constraint


def bound(support: Any, side: str) -> Any:  # noqa: ANN401
    """The ``"lower"`` or ``"upper"`` bound of a support, infinite where it has none."""
    none = -math.inf if side == "lower" else math.inf
    return getattr(support_of_cell(support), f"{side}_bound", none)


def number_within(support: Any) -> Tensor:  # noqa: ANN401
    """Some number of a support, at which formulas have a meaning, and slopes are finite."""
    low, high = (torch.as_tensor(bound(support, side)) for side in ("lower", "upper"))
    middle = torch.where(high.isfinite(), (low + high) / 2, low + 1)
    return torch.where(low.isfinite(), middle, torch.zeros(()))
