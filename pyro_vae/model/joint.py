"""The joint density log p(x, z) at given observations, and the guide beside it."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property

import pyro
import pyro.distributions as dist
from torch import Tensor, nn
from torch.distributions import StickBreakingTransform, biject_to
from torch.distributions.transforms import Transform

from ..core.acting import evaluating
from ..distributions import Shares
from ..families.missingness import Missingness
from .face import Densities, Face
from .latents import Latents
from .record import Record

__all__ = ["Joint", "Model", "NotRealError", "reading"]


class NotRealError(ValueError):
    """No real line maps to z, so that nothing can move along a gradient there."""


class Model(Face):
    """The face of a model that has a record, latents, a prior and networks of its own.

    Attributes:
        record: what an observation is.
        latents: what z is.
        missingness: from x to p(mask | x), where it is declared.
        prior_reads: whether the prior reads a condition.
    """

    missingness: Missingness | None
    record: Record
    latents: Latents
    prior_reads: bool

    @property
    def example(self) -> Tensor:
        """Some tensor of the model's type, on its device."""
        raise NotImplementedError

    def prior_at(self, x: Tensor | None = None) -> dist.TorchDistribution:
        """p(z), of batch shape ``()``; p(z | c) of ``(B,)``, where the prior reads a condition."""
        raise NotImplementedError

    def approximate_posterior(self, x: Tensor) -> dist.TorchDistribution:
        """q(z|x) with its graph, for training: batch shape ``(B,)``, event shape of z."""
        raise NotImplementedError

    def ruled_out(self, z: Tensor, x: Tensor) -> Tensor | None:
        """Nats by which z that denies what is known of x is less probable; ``None`` if none can."""
        return None

    def decode(self, z: Tensor, x: Tensor | None = None) -> dist.TorchDistribution:
        """p(x|z): batch shape ``(...)``, event shape of x."""
        raise NotImplementedError


@contextmanager
def reading(model: nn.Module, seed: int | None) -> Generator[None]:
    """Within it the model is in evaluation mode, draws start from ``seed``, nothing is validated.

    Data were checked at the boundary; a loop of thousands of chunks does not pay for it again.
    """
    with evaluating(model, seed), pyro.validation_enabled(False):
        yield


class Joint(Densities):
    """p(z), p(x, z) and q(z|x) at B data; z is ``(..., B, *z_shape)``, densities are ``(..., B)``.

    Prior and guide are made once, when they are first asked for: a prior that runs a network would
    do so for every chunk.

    Args:
        model: in evaluation mode.
        x: observations as the model's record packs them.
        prior: the model's, where it has been made.
    """

    def __init__(
        self, model: Model, x: Tensor, prior: dist.TorchDistribution | None = None
    ) -> None:
        self.model, self.x = model, x
        if prior is not None:
            self.prior = prior

    @cached_property
    def prior(self) -> dist.TorchDistribution:
        """p(z), or p(z | c) of batch shape ``(B,)`` where it reads a condition."""
        return self.model.prior_at(self.x)

    @cached_property
    def guide(self) -> dist.TorchDistribution:
        """q(z|x)."""
        return self.model.approximate_posterior(self.x)

    @property
    def count(self) -> int:
        """B."""
        return len(self.x)

    @property
    def example(self) -> Tensor:
        """A tensor of the type of z."""
        return self.x

    @property
    def weighs_any_z(self) -> bool:
        """Whether log q(z|x) is known at any z, not at the guide's own draws alone."""
        return not (self.model.points or getattr(self.guide, "own_draws_alone", False))

    def from_prior(self, num_samples: int) -> Tensor:
        """z of p(z), ``(S, B, *z_shape)``."""
        return self.prior.expand([num_samples, self.count]).sample()

    def at(self, z: Tensor) -> Tensor:
        """One draw at given z, ``(B, *z_shape)``."""
        return z[None]

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """p(x|z)."""
        return self.model.decode(z, self.x)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z); of a known label none where z has another."""
        log_p, wrong = self.prior.log_prob(z), self.model.ruled_out(z, self.x)
        return log_p if wrong is None else log_p - wrong

    def log_likelihood(self, z: Tensor) -> Tensor:
        """log p(x|z), of the observed cells, and where it is modelled of which cells are missing.

        The latter is at missing cells that are drawn anew in each call.
        """
        p, record = self.likelihood(z), self.model.record
        score = record.score(p, self.x)
        if (missingness := self.model.missingness) is None:
            return score
        cells = record.cells(self.x)
        return score + missingness.log_prob(missingness.marginal(p, cells), cells)

    def to_support(self, who: str) -> Transform:
        """From the real line onto the support of z.

        Raises:
            NotRealError: z is discrete, or its support is no image of a real space.
        """
        support = self.prior.support
        advice = f"{who} moves z along gradients: use log_evidence, which only draws z"
        if self.model.missingness is not None:
            raise NotRealError(f"missing cells are drawn anew for each density here, and {advice}")
        if support is None or support.is_discrete:
            raise NotRealError(f"z is discrete here, and {advice}")
        try:
            transform = biject_to(support)
        except NotImplementedError:
            raise NotRealError(
                f"the support {support} of z is not an image of a real space, and {advice}"
            ) from None
        return Shares() if isinstance(transform, StickBreakingTransform) else transform
