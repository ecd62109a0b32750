"""The gradient that estimators are compared with: exact, or of the best unbiased estimator."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, TraceEnum_ELBO
from torch import Tensor

from ...infer.estimators.bounds import Bound, Convex, Renyi, Thermodynamic
from ...infer.estimators.estimator import Estimator, make_estimator
from ...infer.estimators.soundness import check_and_nest
from ...infer.sites import is_product, latent
from ...language.spec import Spec
from ...model.face import Face
from ..statistics import chunks
from .sample import REFERENCE, Plan, Sample, sample_gradients

__all__ = ["EstimatorLike", "Reference", "References", "states"]

EstimatorLike: TypeAlias = str | Spec | ELBO | Estimator
MAX_STATES = 2**12
EVALUATIONS = 2**16  # of p(x|z) at once, under enumeration
COPIES = 4  # of the data in a draw of the reference: so many times fewer calls
UNBIASED = (
    "TraceMeanField_ELBO",
    "Trace_ELBO(gradient=pathwise)",
    "RLOO(num_particles=10)",
    "TraceEnum_ELBO",
)


@dataclass
class Reference:
    """A gradient of a bound per observation, ``(P,)``, and its draws where it is not exact."""

    line: str
    mean: Tensor
    sample: Sample | None = None


class References:
    """The reference of each bound, computed when it is first asked for.

    Args:
        plan: the model and the batch; the draws are not those of the estimators that are compared.
        given: for the ELBO: an estimator, or its exact gradient per observation, by parameter; for
             another bound where that is the bound of the given estimator.
    """

    def __init__(
        self, plan: Plan, given: "EstimatorLike | Mapping[str, Tensor] | None" = None
    ) -> None:
        self.plan, self.vae, self.x = plan, plan.vae, plan.x
        self.known: dict[Bound, Reference | None] = {}
        if isinstance(given, Mapping):
            self.known[Bound()] = _exact(self.vae, given)
        elif given is not None:
            estimator = make_estimator(given)
            bound = estimator.bound
            if bound is None or estimator.ascends != "both":
                raise ValueError(
                    f"the reference {estimator} is of an unknown bound, or not of its bound in all "
                    "parameters: give another"
                )
            check_and_nest(estimator, self.vae.model, self.vae.guide, self.x)
            exact = (
                isinstance(estimator.elbo, TraceEnum_ELBO) and states(self.vae, self.x) < math.inf
            )
            self.known[bound] = self._enumerate() if exact else self._draw(estimator)

    def of(self, estimator: Estimator) -> Reference | None:
        """The reference for an estimator's bound; ``None`` where there is none."""
        bound = estimator.bound
        if bound is None or estimator.ascends == "none":
            return None
        if bound not in self.known:
            self.known[bound] = self._choose(bound)
        return self.known[bound]

    def _choose(self, bound: Bound) -> Reference | None:
        if bound == Bound() and states(self.vae, self.x) <= MAX_STATES:
            return self._enumerate()
        for line in _unbiased(bound):
            estimator = make_estimator(line)
            try:
                check_and_nest(estimator, self.vae.model, self.vae.guide, self.x)
            except ValueError:
                continue
            return self._draw(estimator)
        return None

    def _draw(self, estimator: Estimator) -> Reference:
        more: dict[str, Any] = {"num_draws": self.plan.num_draws * COPIES}
        if self.vae.separate:
            more = {"x": self.x.repeat(COPIES, *[1] * (self.x.ndim - 1))}
        plan = replace(self.plan, **more, compile=False)
        sample = sample_gradients(plan, estimator, REFERENCE)
        n = sample.moments.count * (COPIES if self.vae.separate else 1)
        return Reference(f"{estimator}, {n:,} draws", sample.moments.mean, sample)

    def _enumerate(self) -> Reference:
        """The exact gradient: a sum over states and observations, a few at a time."""
        estimator, parameters = make_estimator("TraceEnum_ELBO"), self.vae.trainable.values()
        check_and_nest(estimator, self.vae.model, self.vae.guide, self.x)
        for p in parameters:
            p.grad = None
        with pyro.get_param_store().scope():
            guide = estimator.wrap(self.vae.guide, self.x)
            for rows in chunks(self.x, states(self.vae, self.x), EVALUATIONS):
                estimator.elbo.loss_and_grads(self.vae.model, guide, rows)  # pyrefly: ignore[missing-attribute]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        mean = torch.cat([g.flatten().double() for g in gradients]) / -self.plan.count
        return Reference(f"{estimator}, exact", mean)


def _unbiased(bound: Bound) -> tuple[str, ...]:
    """Estimators of a bound, the best first."""
    k = f"num_particles={bound.num_particles}"
    if isinstance(bound, Renyi):
        return (f"RenyiELBO(alpha={bound.alpha:g}, {k})", *[f"VIMCO({k})"] * (bound.alpha == 0))
    if isinstance(bound, Convex):
        return (f"CIWAE({k}, beta={bound.beta})",)
    if isinstance(bound, Thermodynamic):
        return (f"TVO({k}, partitions={list(bound.betas[1:])}, gradient=pathwise)",)
    return UNBIASED


def _exact(vae: Face, given: Mapping[str, Tensor]) -> Reference:
    parameters = vae.trainable
    wrong = [k for k, p in parameters.items() if k not in given or given[k].shape != p.shape]
    if wrong or set(given) - set(parameters):
        raise ValueError(
            "a reference gradient is a mapping from the model's parameters to tensors of their "
            f"shapes; missing or of another shape: {', '.join(wrong) or 'none'}; unknown: "
            f"{', '.join(sorted(set(given) - set(parameters))) or 'none'}"
        )
    parts = [given[k].to(p.device).double().flatten() for k, p in parameters.items()]
    return Reference("given", torch.cat(parts))


@torch.no_grad()
def states(vae: Face, x: Tensor) -> float:
    """The number of joint states of the latent sites of one observation.

    It is infinite where enumeration leaves draws: of a site with no finite support, or of members.
    """
    if vae.layout is not None and vae.layout.full:
        return math.inf
    with poutine.block(), torch.random.fork_rng():
        trace: Any = poutine.trace(vae.guide).get_trace(x[:1])
    states = 1.0
    for site in trace.nodes.values():
        if latent(site):
            fn = site["fn"]
            if is_product(fn):
                values = fn.base_dist.enumerate_support(expand=False)
                states *= float(len(values)) ** fn.event_shape.numel()
            elif fn.has_enumerate_support:
                states *= len(fn.enumerate_support(expand=False))
            else:
                return math.inf
    return states
