"""Draws of a program's guide and the densities at them, as evaluation asks for them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..core.layout import Layout
from ..infer.draws import Draws, draws, read, run_once
from ..model.face import Densities

__all__ = ["ProgramDensities"]


class ProgramDensities(Densities):
    """p(x, z) and q(z) of a program at given rows; a draw is :class:`Draws`, with its densities.

    Args:
        model: a Pyro model of rows.
        guide: its guide.
        x: rows.
        layout: of their plates.
    """

    def __init__(self, model: Callable, guide: Callable, x: Tensor, layout: Layout) -> None:
        self.model, self.guide, self.x, self.layout = model, guide, x, layout

    def draw(self, num_samples: int) -> Draws:
        """So many draws from the guide."""
        return draws(self.model, self.guide, self.x, num_samples, self.layout)

    def at(self, z: Mapping[str, Tensor]) -> Draws:
        """One draw, at given values of all sites of the guide."""
        run = run_once(self.model, self.guide, self.x, at=z, **self.layout.how)
        return read(run, self.layout)

    def log_prior(self, z: Draws) -> Tensor:
        """log p(z)."""
        return z.log_prior

    def log_likelihood(self, z: Draws) -> Tensor:
        """log p(x|z)."""
        return z.log_likelihood

    def log_guide(self, z: Draws) -> Tensor:
        """log q(z|x)."""
        return z.log_guide

    def flat(self, z: Draws) -> Tensor:
        """The coordinates of z, of its sites side by side, ``(S, N, D)``."""
        shape, dtype = z.log_prior.shape, torch.get_default_dtype()
        parts = [value.reshape(*shape, -1).to(dtype) for value in z.values.values()]
        return torch.cat(parts, 2) if parts else torch.zeros(*shape, 0)

    join = flat
