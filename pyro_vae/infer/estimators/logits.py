"""The ELBO of discrete sites that are scored at chosen values, for a gradient in their logits."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import pyro
import torch
from pyro.distributions.util import sum_rightmost
from pyro.infer.util import MultiFrameTensor, is_validation_enabled
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..sites import latent, samples, unwrapped
from .learner import Learner
from .multisample import MultiSampleELBO, Plates, Run, add, log_weight, own
from .profile import of_scores
from .relaxed import Bits, Kind, OneHots, StraightThrough, kind_of
from .rules import (
    Rule,
    Trial,
    UnsoundError,
    no_factor_has_a_slope_of_its_own,
    sites_are_independent,
)
from .weights import widen

__all__ = ["LogitELBO", "Scored", "linear_part", "pull", "spread"]

KINDS: tuple[Kind, ...] = (Bits, OneHots)


class Scored(NamedTuple):
    """A site of the guide with the values that it is scored at.

    Attributes:
        site: the node of the guide's trace; its value is all of them.
        kind: bits or one-hot vectors.
        logits: those that the gradient is in.
        about: what the estimator keeps of its draw: noise, or a mean.
    """

    site: Any
    kind: Kind
    logits: Tensor
    about: Any

    @property
    def mean(self) -> Tensor:
        """The mean of a draw, without gradient."""
        return self.kind.soft(self.logits.detach())


class LogitELBO(MultiSampleELBO):
    """The ELBO of guides of discrete sites that do not depend on each other.

    A subclass says at which values the sites are scored, all in one vectorized pass, and makes of
    the scores a gradient in each site's logits. One backward pass takes it from there to the
    guide's parameters. The model's gradient is the mean over those values that are draws. What it
    learns itself is a :class:`Learner`'s.
    """

    kinds: tuple[Kind, ...] = KINDS
    where = ""  # what else is asked of the guide, in words, and by rules
    needs: tuple[Rule, ...] = ()
    note = ""
    weighted = True
    sequential = False
    values = 2  # of every particle, in a plate outside all others; 0: the particles are the values
    flat = False  # whether all bits of an event come as one vector
    draws: int | None = 1  # of the values, so many are draws, in front; ``None``: all
    learner: Learner | None = None

    def __init_subclass__(cls) -> None:
        """Make the profile of its kinds of sites, where a class has none of its own."""
        if "profile" not in cls.__dict__:
            of_all = sites_have_logits(*cls.kinds), sites_are_independent
            needs = (*of_all, no_factor_has_a_slope_of_its_own, *cls.needs)
            guides = ", ".join(kind.family for kind in cls.kinds) + cls.where
            cls.profile = of_scores(guides, cls.note, needs, weighted=cls.weighted)
        super().__init_subclass__()

    def __init__(self, num_particles: int = 1, **plates: Unpack[Plates]) -> None:
        super().__init__(num_particles, **plates)

    @property
    def elsewhere(self) -> bool:  # pyrefly: ignore[bad-override]
        """Whether it scores values that are no draws too."""
        return self.draws is not None and self.values > self.draws

    @property
    def control(self) -> Any:  # noqa: ANN401
        """What it learns, a module; ``None`` before the first step, and where it learns nothing."""
        return self.learner and self.learner.control

    @abstractmethod
    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, Tensor | None]:
        """The values of a site, ``(values, ...)``, and what is kept beside them."""

    def _gradients(self, cost: MultiFrameTensor, sites: list[Scored]) -> list[Tensor]:
        """The gradient in the logits of each site, from log p - log q at all values."""
        raise NotImplementedError  # but not asked for where a subclass has an estimate of its own

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Run:
        nesting = self.max_plate_nesting
        if self.values:
            nesting = nesting + 1
            plate = {"name": "values", "size": self.values, "dim": -int(nesting)}
            model, guide = (pyro.plate(**plate)(f) for f in (model, guide))
        if self.learner is not None:
            self.learner.register(guide, args, kwargs)
        points = Points(self._values, self.kinds, self.values > 0, self.flat)
        real = StraightThrough()  # nothing is drawn under it, but real values are scored
        return self._run(real(model), real(points(guide)), args, kwargs, nesting, points.kept)

    def _estimate(self, run: Run) -> tuple[Tensor, Tensor]:
        cost = log_weight(run.model, run.guide, detach=False)
        n = self.num_particles * (self.draws or 1)
        bound = add(value[: self.draws].sum() for value in cost.values()).detach() / n
        if not torch.is_grad_enabled():
            return bound, bound
        sites = self._scored(run)
        gradients = self._gradients(cost, sites) if sites else []
        if self.values:
            gradients = [gradient / self.num_particles for gradient in gradients]
        surrogate = self._surrogate(gradients, sites)
        explained = add(site["log_prob"][: self.draws].sum() for site in samples(run.model))
        return bound, surrogate + explained / n

    def _scored(self, run: Run) -> list[Scored]:
        """The sites of the guide with what was kept of each."""
        sites = [site for site in samples(run.guide) if latent(site)]
        return [Scored(site, *run.kept[site["name"]]) for site in sites]

    def _surrogate(self, gradients: list[Tensor], sites: list[Scored]) -> Tensor:
        """A number with these gradients in the logits, and the learner's in its parameters."""
        pairs = zip(gradients, sites, strict=True)
        pulled = add((gradient.detach() * one.logits).sum() for gradient, one in pairs)
        return pulled if self.learner is None else pulled + self.learner.surrogate(gradients)


class Points(Messenger):
    """Give the discrete sites of a guide the values that an estimator wants them scored at.

    It stands outside all plates, so that a site has its full shape.

    Args:
        values: from logits ``(P, ...)``, P times the same, and a kind, to values ``(P, ...)``, and
            to what is kept beside them; from one of the logits where it makes several of each.
        kinds: those that it can serve.
        several: whether it does.
        flat: whether the numbers of an event are to be one dimension of the logits.

    Attributes:
        kept: by site, its kind, its logits and what is kept.
    """

    def __init__(
        self,
        values: Callable[[Tensor, Kind], tuple[Tensor, Tensor | None]],
        kinds: tuple[Kind, ...],
        several: bool,
        flat: bool,
    ) -> None:
        super().__init__()
        self.values, self.kinds, self.several, self.flat = values, kinds, several, flat
        self.kept: dict[str, tuple[Kind, Tensor, Tensor | None]] = {}

    def _pyro_sample(self, msg: dict) -> None:
        if not latent(msg) or msg["value"] is not None:
            return
        fn, kind = msg["fn"], kind_of(msg["fn"])
        if kind is None or kind not in self.kinds:
            raise ValueError(
                f"gradients in logits need {_names(self.kinds)} sites, which {msg['name']!r} is "
                "not: use RLOO"
            )
        logits = unwrapped(fn).logits.expand(fn.batch_shape + fn.event_shape)
        if is_validation_enabled() and not all(torch.equal(logits[0], other) for other in logits):
            raise ValueError(
                f"the logits of site {msg['name']!r} depend on an earlier site's draw, and they "
                "must be the same for all values that it is scored at: use RLOO"
            )
        fixed = logits.detach()
        if self.flat:
            fixed = fixed.reshape(*fn.batch_shape, fn.event_shape.numel())
        value, about = self.values(fixed[0] if self.several else fixed, kind)
        msg["value"] = value.reshape(*value.shape[:-1], *fn.event_shape) if self.flat else value
        self.kept[msg["name"]] = kind, logits[0], about


def sites_have_logits(*kinds: Kind) -> Rule:
    """The rule that all sites are of these kinds, where the gradient is one in logits."""

    def rule(trial: Trial) -> None:
        if strange := trial.where(lambda d: kind_of(d) not in kinds):
            raise UnsoundError(
                f"its gradients in logits need {_names(kinds)} sites, which "
                f"{trial.named(strange)} is not: use RLOO(num_particles=2), "
                "TraceGraph_ELBO(gradient=score, baseline=neural)"
                + ("" if trial.rigid else " or Trace_ELBO(gradient=pathwise)")
            )

    return rule


def spread(cost: MultiFrameTensor, site: Any) -> Tensor:  # noqa: ANN401
    """The part of a cost that scores a site's draws, to be broadcast against them."""
    return widen(own(cost, site), site)


def pull(slope: Tensor, mean: Tensor, kind: Kind) -> Tensor:
    """What a slope in the mean is in the logits."""
    if kind is Bits:
        return slope * mean * (1 - mean)
    return mean * (slope - (slope * mean).sum(-1, keepdim=True))


def linear_part(slopes: Any, steps: list[Tensor], sites: list[Scored], site: Any) -> Tensor:  # noqa: ANN401
    """Slopes times steps, of the sites that lie in all plates of one, summed to its plates.

    A slope of a site outside (a global one) is of the whole cost, of which this site's is a part.
    """
    cost, plates = MultiFrameTensor(), set(site["cond_indep_stack"])
    for slope, step, other in zip(slopes, steps, sites, strict=True):
        stack = other.site["cond_indep_stack"]
        if plates <= set(stack):
            term: Any = sum_rightmost(slope * step, other.site["fn"].event_dim)
            depth = max((-frame.dim for frame in stack if frame.vectorized), default=0)
            cost.add((stack, term.reshape((1,) * (depth - term.ndim) + term.shape)))
    return spread(cost, site)


def _names(kinds: tuple[Kind, ...]) -> str:
    return " or ".join(kind.family for kind in kinds)
