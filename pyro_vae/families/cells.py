"""Likelihoods of independent cells that are made of a family: what they share."""

from typing import Any

import pyro.distributions as dist

from ..language.spec import Spec
from .family import is_amortized
from .part import Ends, Part
from .support import innermost

__all__ = ["CellLikelihood"]


class CellLikelihood(Part):
    """Independent cells, each of a distribution that is made of a family's."""

    roles = frozenset({"likelihood"})
    in_units = True
    line: Spec
    family: Any  # of a cell, once it is built

    def make_family(self, ends: Ends) -> dist.TorchDistribution:
        """Make the family of ``line``; the distribution of one cell, where all features are 0."""
        self.cells = len(ends.shape)
        self.family = ends.make(self.line, depends=False)
        return innermost(self.family(ends.example))

    def event_dim(self, ends: Ends) -> int:
        """None: cells are independent."""
        return 0

    def depends(self) -> bool:
        """Whether a parameter is amortized."""
        return is_amortized(self)
