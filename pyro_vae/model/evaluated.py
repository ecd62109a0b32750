"""What evaluation asks of a VAE, beside the two functions of Pyro's, by the fast path."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import pyro.poutine as poutine
import torch
from torch import Tensor

from ..distributions import Delta
from ..families.dequantized import Dequantized
from .joint import Joint, Model
from .simulation import in_turn, simulate
from .tables import TableRecord

__all__ = ["Evaluated"]


class Evaluated(Model):
    """What evaluation asks, by the two networks; where they are is a subclass's to say."""

    ROLES: ClassVar[dict[str, str]] = {}

    @property
    def cells(self) -> int:
        """Numbers of the likelihood's parameters at one z."""
        return self.missingness.cells if self.missingness else math.prod(self.record.x_shape)

    @property
    def coordinates(self) -> list[str]:
        """Names of the latent coordinates of an observation."""
        return list(self.latents.coordinates)

    @property
    def points(self) -> Sequence[str]:  # pyrefly: ignore[bad-override]
        """Sites that the guide sets to a point: all or none."""
        parts = self.get_submodule("approximation").modules()
        found = any(getattr(part, "distribution", None) is Delta for part in parts)
        return self.latents.sites if found else ()

    def densities(self) -> Callable[[Tensor], Joint]:
        """From checked observations to log p(x, z) and log q(z|x) at them; one prior for all."""
        prior = None if self.prior_reads else self.prior_at()
        return lambda x: Joint(self, x, prior)

    def simulate(
        self, num_data: int, given: Tensor | None, size: int, *, holes: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """Observations drawn from the model with the z of each, in parts of ``size`` rows."""
        z, x = simulate(self, num_data, given)
        draws_holes = isinstance(self.record, TableRecord) and self.record.holes
        if holes and given is not None and not draws_holes:
            gone, cells = self.record.cells(in_turn(given, num_data)).isnan(), self.record.cells(x)
            x = self.record.with_cells(x, torch.where(gone, math.nan, cells))
        return list(zip(z.split(size), x.split(size), strict=True))

    @property
    def why_not_bounded(self) -> str:
        """Why what was drawn is no exact draw of a posterior; empty where it is."""
        if any(isinstance(part, Dequantized) for part in self.modules()):
            return "its probabilities of levels are estimates with noise of their own"
        return ""

    @property
    def why_not_simulated(self) -> str:
        """Why log p(x) of simulated observations cannot be bounded; empty where it can."""
        if self.missingness is not None:
            return "it models which cells are missing"
        if self.why_not_bounded:
            return self.why_not_bounded
        if getattr(self.approximation, "own_draws_alone", False):
            return "the guide's density is known at its own draws alone"
        return ""

    def weights_of(self, x: Tensor) -> Tensor | None:
        """The weight that each observation was given, ``(N,)``; ``None`` where there are none."""
        weight = self.record.part(x, "weight")
        return None if weight is None else weight[:, 0]

    def counts_as(self, x: Tensor) -> Tensor:
        """How many observations each stands for by its weight, ``(N,)``, 1 in the mean."""
        weights = self.weights_of(x)
        return x.new_ones(len(x)) if weights is None else weights / weights.mean()

    def representative(self, x: Tensor) -> Tensor:
        """Which observations are kept, ``(N,)``, to be a sample of what a weighted model is of.

        Each is kept with the probability of its weight over the largest: of equal weights all are.
        """
        weights = self.counts_as(x)
        share = weights / weights.max()
        return torch.rand_like(share) < share if (share < 1).any() else share == 1

    def posterior_model(self, x: Tensor) -> Callable:
        """The model of these observations, without weights, which Markov chains run on.

        Raises:
            ValueError: z is discrete.
        """
        Joint(self, x).to_support("a Markov chain")
        weight = self.record.part(x, "weight")  # it is of the objective, not of the posterior
        return self.model if weight is None else poutine.scale(self.model, scale=1 / weight.item())

    def join(self, samples: Mapping[str, Tensor]) -> Tensor:
        """Draws of all latent sites as z, ``(S, B, *z_shape)``."""
        return self.latents.join(samples)

    @property
    def latent_axes(self) -> tuple[str, ...]:
        """Names of the dimensions of one z."""
        return ("latent_dim", *(f"latent_dim_{i}" for i in range(1, len(self.latents.shape))))

    def parameter_groups(self) -> dict[str, list[str]]:
        """Names of the trainable parameters by the parts of the model."""
        return {
            role: [name for name in self.trainable if name.split(".")[0] == path]
            for role, path in self.ROLES.items()
        }

    def guide_parameters(self) -> set[str]:
        """Names of the trainable parameters of guide and encoder."""
        groups = self.parameter_groups()
        return {*groups["guide"], *groups["encoder"]}
