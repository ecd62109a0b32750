"""Supports of single cells."""

from pyro.distributions import constraints

__all__ = ["support_of_cell"]


def support_of_cell(constraint: constraints.Constraint) -> constraints.Constraint:
    """The constraint on one cell, under ``independent`` and mixtures."""
    while (inner := getattr(constraint, "base_constraint", None)) is not None:
        constraint = inner
    return constraint
