"""The ELBO from several draws at once: what such estimators share, and RLOO."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.util import is_identically_zero
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import MultiFrameTensor, is_validation_enabled
from pyro.poutine.trace_struct import Trace
from pyro.util import check_if_enumerated, warn_if_nan
from torch import Tensor

__all__ = ["RLOO", "MultiSampleELBO", "log_weight", "own", "samples", "total"]


class MultiSampleELBO(ELBO):
    """A bound whose particles are drawn in one vectorized pass; a subclass says its estimate.

    Args:
        num_particles: K, the draws of every latent site.
        max_plate_nesting: as in every Pyro ``ELBO``; found by one more run where it is not given.
        vectorize_particles: must stay true.

    Raises:
        ValueError: too few particles, or particles one by one.
    """

    least = 1  # particles that the estimate needs

    def __init__(
        self,
        num_particles: int = 2,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
    ) -> None:
        name = type(self).__name__
        if num_particles < self.least:
            raise ValueError(
                f"{name} needs at least {self.least} particles, got num_particles={num_particles}"
            )
        if num_particles > 1 and not vectorize_particles:
            raise ValueError(
                f"{name} compares particles, so it draws them in one pass: vectorize_particles=True"
            )
        super().__init__(num_particles, max_plate_nesting, vectorize_particles=True)

    @abstractmethod
    def _estimate(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        """The bound (no gradient), and a surrogate whose gradient estimates the bound's."""

    def _traced(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict, nesting: float
    ) -> tuple[Trace, Trace]:
        traces = get_importance_trace("flat", nesting, model, guide, args, kwargs)
        if is_validation_enabled():
            check_if_enumerated(traces[1])
        return traces

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        return self._traced(model, guide, args, kwargs, self.max_plate_nesting)

    @torch.no_grad()
    def loss(self, model: Callable, guide: Callable, *args: object, **kwargs: object) -> float:
        """Minus an estimate of the bound."""
        return self._loss(self._estimates(model, guide, args, kwargs)[0])

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: object, **kwargs: object
    ) -> Tensor:
        """Minus an estimate of the bound, as a tensor whose gradient is the estimator's."""
        bound, surrogate = self._estimates(model, guide, args, kwargs)
        return surrogate.detach() - surrogate - bound

    def loss_and_grads(
        self, model: Callable, guide: Callable, *args: object, **kwargs: object
    ) -> float:
        """Minus an estimate of the bound; adds its gradient to the parameters'."""
        bound, surrogate = self._estimates(model, guide, args, kwargs)
        if surrogate.requires_grad:
            (-surrogate).backward(retain_graph=self.retain_graph)
        return self._loss(bound)

    def _estimates(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Tensor, Tensor]:
        """The bound and the surrogate, of one run of model and guide."""
        (traces,) = self._get_traces(model, guide, args, kwargs)
        return self._estimate(*traces)

    def _loss(self, bound: Tensor) -> float:
        loss = -bound.item()
        warn_if_nan(loss, "loss")  # pyright: ignore[reportCallIssue, reportArgumentType]
        return loss


class RLOO(MultiSampleELBO):
    r"""The ELBO by the score function, each particle's baseline the mean of the others (RLOO).

    .. math:: \nabla_\phi L \approx \frac{1}{K - 1} \sum_{k=1}^K
        \left(f(z_k) - \frac{1}{K} \sum_{j=1}^K f(z_j)\right) \nabla_\phi \log q_\phi(z_k),
        \quad f = \log p(x, z) - \log q(z)

    REINFORCE with a leave-one-out baseline: one for every datum, with no network and no decay. The
    cost f of a site is summed to the site's own plates, as in ``Trace_ELBO``. Reparameterized
    sites keep their pathwise gradient; wrap the guide in :class:`ScoreFunction` to switch them.
    Unbiased, for any guide; one evaluation a particle.

    Args:
        num_particles: K, at least 2.
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: fewer than 2 particles.

    References:
        Kool, van Hoof & Welling (2019), "Buy 4 REINFORCE samples, get a baseline for free!";
        Salimans & Knowles (2014), arXiv:1401.1022; Mnih & Rezende (2016), arXiv:1602.06725.

    >>> RLOO(num_particles=4).num_particles
    4
    """

    least = 2

    def _estimate(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        cost, k = log_weight(model_trace, guide_trace), self.num_particles
        surrogate: Any = sum(site["log_prob"].sum() for site in samples(model_trace))
        for site in samples(guide_trace):
            _, score, entropy = site["score_parts"]
            if not is_identically_zero(entropy):
                surrogate = surrogate - entropy.sum()
            if not is_identically_zero(score):
                f = own(cost, site)
                surrogate = surrogate + ((f - f.mean(0)) * (k / (k - 1)) * score).sum()
        return total(cost) / k, surrogate / k


def samples(trace: Trace) -> list[Any]:
    """The sample sites of a trace."""
    return [site for site in trace.nodes.values() if site["type"] == "sample"]


def log_weight(model_trace: Trace, guide_trace: Trace, *, detach: bool = True) -> MultiFrameTensor:
    """log p(x, z) - log q(z) by plates, which Pyro sums to a site's own plates."""
    found = MultiFrameTensor()
    for trace, sign in ((model_trace, 1), (guide_trace, -1)):
        for site in samples(trace):
            log_prob = site["log_prob"].detach() if detach else site["log_prob"]
            found.add((site["cond_indep_stack"], sign * log_prob))
    return found


def own(cost: MultiFrameTensor, site: Any) -> Tensor:  # noqa: ANN401
    """The part of a cost that a site's draws are scored by: summed to the site's plates."""
    found: Any = cost.sum_to(site["cond_indep_stack"])
    return found


def total(cost: MultiFrameTensor) -> Tensor:
    """The sum over all plates."""
    terms: Any = sum(value.sum() for value in cost.values())
    return terms
