"""The ELBO from several draws at once: what estimators share that compare their particles."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypedDict, Unpack

import torch
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import MultiFrameTensor, is_validation_enabled
from pyro.poutine.trace_struct import Trace
from pyro.util import check_if_enumerated, warn_if_nan
from torch import Tensor

from ...core.checks import boolean, whole
from ..sites import samples
from .bounds import Bound
from .particles import check_broadcast, check_plates
from .profile import Profile
from .sequential import SameMembers, depth, stack_traces

__all__ = ["MultiSampleELBO", "Plates", "Run", "add", "log_weight", "own", "total"]


class Plates(TypedDict, total=False):
    """What every bound takes by keyword, as every Pyro ``ELBO`` does.

    ``max_plate_nesting`` is found by one more run where it is not given. By
    ``vectorize_particles=False`` particles are drawn one by one, for a model that does not
    broadcast over them.
    """

    max_plate_nesting: float
    vectorize_particles: bool


class Run(NamedTuple):
    """One run of model and guide.

    Attributes:
        model: the model's trace.
        guide: the guide's.
        kept: by the names of the guide's sites, what a handler of the estimator's keeps of each.
        alone: where particles are drawn one by one, the run of each; the traces are these stacked.
    """

    model: Trace
    guide: Trace
    kept: Mapping[str, Any]
    alone: "Sequence[Run]" = ()


class MultiSampleELBO(ELBO):
    """A bound that compares its particles; a subclass says its estimate.

    Args:
        num_particles: K, the draws of every latent site.
        plates: see :class:`Plates`.

    Raises:
        ValueError: too few particles, or particles one by one where a subclass scores each draw
            beside others.
    """

    least = 1  # particles that the estimate needs
    sequential = True  # whether it can draw them one by one
    elsewhere = False  # whether it scores values that are no draws too
    profile: ClassVar[Profile]

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "profile"):
            cls.profile = replace(cls.profile, build=cls)

    def __init__(self, num_particles: int = 2, **plates: Unpack[Plates]) -> None:
        whole("num_particles", num_particles, self.least)
        together = boolean("vectorize_particles", plates.get("vectorize_particles", True))
        if num_particles > 1 and not together and not self.sequential:
            raise ValueError(
                f"{type(self).__name__} scores further values beside each draw, all in one pass: "
                "leave vectorize_particles=False out, or use RLOO, which can go one by one"
            )
        nesting = plates.get("max_plate_nesting", math.inf)
        together = together or num_particles == 1
        super().__init__(num_particles, nesting, vectorize_particles=together)

    @property
    def bound(self) -> Bound:
        """The function of the log weights that is the value."""
        return Bound()

    def _guess_max_plate_nesting(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> None:
        super()._guess_max_plate_nesting(model, guide, args, kwargs)
        if self.num_particles > 1:
            check_broadcast(type(self).__name__, model, guide, args, kwargs, self.max_plate_nesting)

    @abstractmethod
    def _estimate(self, run: Run) -> tuple[Tensor, Tensor]:
        """The bound (no gradient), and a surrogate whose gradient estimates the bound's."""

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Run:
        return self._run(model, guide, args, kwargs, self.max_plate_nesting, {})

    def _run(
        self,
        model: Callable,
        guide: Callable,
        args: tuple,
        kwargs: dict,
        nesting: float,
        kept: Mapping[str, Any],
    ) -> Run:
        traces = get_importance_trace("flat", nesting, model, guide, args, kwargs)
        for trace in traces if self.num_particles > 1 and self.vectorize_particles else ():
            check_plates(trace)
        if is_validation_enabled():
            check_if_enumerated(traces[1])
        return Run(traces[0], traces[1], kept)

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
        """The bound and the surrogate, of one run of model and guide, or of one a particle."""
        with nullcontext() if self.vectorize_particles else SameMembers():
            run, *more = runs = list(self._get_traces(model, guide, args, kwargs))
        if more:
            models, guides = ([one[i] for one in runs] for i in (0, 1))
            nesting = depth(*models, *guides)
            run = Run(stack_traces(models, nesting), stack_traces(guides, nesting), {}, runs)
        if not samples(run.model) and not samples(run.guide):
            return torch.zeros(()), torch.zeros(())
        return self._estimate(run)

    def _loss(self, bound: Tensor) -> float:
        loss = -bound.item()
        warn_if_nan(loss, "loss")  # pyrefly: ignore[no-matching-overload]
        return loss


def add(terms: Iterable[Tensor]) -> Tensor:
    """The sum of terms; 0 where there is none."""
    every = list(terms)
    return sum(every[1:], every[0]) if every else torch.zeros(())


def log_weight(model_trace: Trace, guide_trace: Trace, *, detach: bool = True) -> MultiFrameTensor:
    """log p(x, z) - log q(z) by plates, which Pyro sums to a site's own plates."""
    cost = MultiFrameTensor()
    for trace, sign in ((model_trace, 1), (guide_trace, -1)):
        for site in samples(trace):
            log_prob = site["log_prob"].detach() if detach else site["log_prob"]
            cost.add((site["cond_indep_stack"], sign * log_prob))
    return cost


def own(cost: MultiFrameTensor, site: Any) -> Tensor:  # noqa: ANN401
    """The part of a cost that a site's draws are scored by: summed to the site's plates."""
    part: Any = cost.sum_to(site["cond_indep_stack"])
    return part


def total(cost: MultiFrameTensor) -> Tensor:
    """The sum over all plates."""
    return add(value.sum() for value in cost.values())
