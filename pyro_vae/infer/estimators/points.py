"""What estimators share that score discrete sites at chosen values, for a gradient in logits."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer.util import MultiFrameTensor, is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..sites import latent, unwrapped
from .importance import widen
from .multisample import MultiSampleELBO, log_weight, own, samples
from .relaxed import Bits, Kind, StraightThrough, kind_of

__all__ = ["ByLogits", "Paired", "spread"]


class ByLogits(MultiSampleELBO):
    """The ELBO of guides of discrete sites that do not depend on each other.

    A subclass says at which values the sites are scored, all in one vectorized pass, and makes of
    the scores a gradient in each site's logits. One backward pass takes it from there to the
    guide's parameters. The model's gradient is the mean over those values that are draws.
    """

    kinds: tuple[Kind, ...] = (Bits,)
    draws: int | None = None  # of the values, so many are draws, in front; ``None``: all

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles)

    @abstractmethod
    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, dict[str, Any]]:
        """The values for a site, and what is kept with it: see :class:`Points`."""

    @abstractmethod
    def _gradients(self, cost: MultiFrameTensor, sites: list[Any]) -> list[Tensor]:
        """The gradient in the logits of each site, from log p - log q at all values."""

    def _traced(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict, nesting: float
    ) -> tuple[Trace, Trace]:
        real = StraightThrough()  # nothing is drawn under it, but real values are scored
        guide = real(Points(self._values, self.kinds)(guide))
        return super()._traced(real(model), guide, args, kwargs, nesting)

    def _estimate(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, Tensor]:
        cost = log_weight(model_trace, guide_trace, detach=False)
        n = self.num_particles * (self.draws or 1)
        scored: Any = sum(value[: self.draws].sum() for value in cost.values())
        bound = scored.detach() / n
        if not torch.is_grad_enabled():
            return bound, bound
        sites = [site for site in samples(guide_trace) if latent(site)]
        surrogate = self._surrogate(self._gradients(cost, sites), sites)
        explained: Any = sum(site["log_prob"][: self.draws].sum() for site in samples(model_trace))
        return bound, surrogate + explained / n

    def _surrogate(self, gradients: list[Tensor], sites: list[Any]) -> Tensor:
        """A number with these gradients in the logits."""
        pairs = zip(gradients, sites, strict=True)
        pulled: Any = sum((g.detach() * site["infer"]["logits"]).sum() for g, site in pairs)
        return pulled


class Paired(ByLogits):
    """Every particle scored at a pair of values, in a plate of size 2 outside all others."""

    @abstractmethod
    def _pair(self, logits: Tensor, kind: Kind) -> tuple[Tensor, dict[str, Any]]:
        """Both values for a site, ``(2, ...)``, and what is kept with it."""

    @abstractmethod
    def _slopes(self, cost: MultiFrameTensor, sites: list[Any]) -> list[Tensor]:
        """The gradient in the logits of each site, for each particle."""

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, dict[str, Any]]:
        return self._pair(logits[0], kind)

    def _gradients(self, cost: MultiFrameTensor, sites: list[Any]) -> list[Tensor]:
        return [slope / self.num_particles for slope in self._slopes(cost, sites)]

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        nesting = self.max_plate_nesting + 1
        pair = {"name": "pair", "size": 2, "dim": -int(nesting)}
        model, guide = (pyro.plate(**pair)(f) for f in (model, guide))
        return self._traced(model, guide, args, kwargs, nesting)


class Points(Messenger):
    """Give the discrete sites of a guide the values that an estimator wants them scored at.

    It stands outside all plates, so that a site has its full shape.

    Args:
        values: from logits ``(P, ...)``, P times the same, and a kind, to values ``(P, ...)``, and
            to what is to be found in the site's ``infer`` beside ``kind`` and ``logits``.
        kinds: those that it can serve.
    """

    def __init__(
        self,
        values: Callable[[Tensor, Kind], tuple[Tensor, dict[str, Any]]],
        kinds: tuple[Kind, ...],
    ) -> None:
        super().__init__()
        self.values, self.kinds = values, kinds

    def _pyro_sample(self, msg: dict) -> None:
        if not latent(msg) or msg["value"] is not None:
            return
        fn, kind = msg["fn"], kind_of(msg["fn"])
        if kind not in self.kinds:
            names = "Bernoulli" if self.kinds == (Bits,) else "Bernoulli or OneHotCategorical"
            raise ValueError(
                f"gradients in logits need {names} sites, which {msg['name']!r} is not: use RLOO"
            )
        logits = unwrapped(fn).logits.expand(fn.batch_shape + fn.event_shape)
        if is_validation_enabled() and not all(torch.equal(logits[0], other) for other in logits):
            raise ValueError(
                f"the logits of site {msg['name']!r} depend on an earlier site's draw, and they "
                "must be the same for all values that it is scored at: use RLOO"
            )
        msg["value"], about = self.values(logits.detach(), kind)
        msg["infer"] = {**msg["infer"], "kind": kind, "logits": logits[0], **about}


def spread(cost: MultiFrameTensor, site: Any) -> Tensor:  # noqa: ANN401
    """The part of a cost that scores a site's draws, to be broadcast against them."""
    return widen(own(cost, site), site)
