"""Which estimator may serve which guide: rules, each with its reason and those that can."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyro.poutine as poutine
import torch
from pyro.infer import TraceMeanField_ELBO
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import kl_divergence

from ..sites import is_product, latent, same_order, unwrapped
from .arm import bernoulli_logits
from .gdreg import GDReG
from .importance import Weighted
from .measure_valued import measurable
from .relaxed import relaxable
from .table import DISCRETE

if TYPE_CHECKING:
    from .estimator import Estimator

__all__ = ["RULES", "Program", "UnsoundError", "family_name", "has_moving_support"]


class UnsoundError(ValueError):
    """Why an estimator cannot serve a guide; the estimator's name is put before it."""


@dataclass
class Program:
    """A model and a guide, run once.

    Attributes:
        model: a Pyro model.
        guide: its guide, not wrapped.
        args: of both.
        guide_trace: the guide's run.
        model_trace: the model's, at the guide's draws.
    """

    model: Callable
    guide: Callable
    args: tuple
    guide_trace: Trace
    model_trace: Trace

    @classmethod
    def run(cls, model: Callable, guide: Callable, *args: object) -> "Program":
        """Run both."""
        with poutine.block():
            q = poutine.trace(guide).get_trace(*args)
            return cls(model, guide, args, q, replayed(model, q, *args))

    @cached_property
    def sites(self) -> dict[str, Any]:
        """The guide's latent sites."""
        return {n: s for n, s in self.guide_trace.nodes.items() if latent(s)}

    @cached_property
    def priors(self) -> dict[str, Any]:
        """The model's sites."""
        return dict(self.model_trace.nodes)

    @cached_property
    def rigid(self) -> list[str]:
        """Sites without a reparameterized sampler."""
        return self.where(lambda d: not d.has_rsample)

    @cached_property
    def finite(self) -> list[str]:
        """Sites whose values can be enumerated."""
        return self.where(lambda d: d.has_enumerate_support or is_product(d))

    def where(self, holds: Callable[[Any], object]) -> list[str]:
        """The sites whose distribution is of a kind."""
        return [n for n, s in self.sites.items() if holds(s["fn"])]

    def named(self, names: Iterable[str]) -> str:
        """Sites in words."""
        return ", ".join(f"{family_name(self.sites[n]['fn'])} at site {n!r}" for n in names)


def replayed(model: Callable, guide_trace: Trace, *args: object) -> Trace:
    """The model's run at the guide's draws."""
    return poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)


def no_factor_counts_the_wrong_way(estimator: "Estimator", program: Program) -> None:
    """A factor of the guide's, where it follows an objective of its own."""
    nodes: dict[str, Any] = dict(program.guide_trace.nodes)
    factors = [
        n for n, s in nodes.items()
        if s["type"] == "sample" and not latent(s) and not site_is_subsample(s)
    ]  # fmt: skip
    if factors and estimator.ascends != "both":
        raise UnsoundError(
            f"its guide follows an objective of its own, in which the factor {factors[0]!r} of "
            "this guide would count the wrong way: use Trace_ELBO or TraceEnum_ELBO"
        )


def states_can_be_summed(estimator: "Estimator", program: Program) -> None:
    """A finite support, where the sum is over all states."""
    if estimator.needs == "finite" and not program.finite:
        families = ", ".join(family_name(s["fn"]) for s in program.sites.values())
        raise UnsoundError(
            f"it sums over all states, and {families} has no finite support: use Trace_ELBO"
        )


def sites_have_logits(estimator: "Estimator", program: Program) -> None:
    """Bits or categories, where the gradient is one in logits."""
    kinds = {"bernoulli": "Bernoulli", "discrete": "Bernoulli or OneHotCategorical"}
    if estimator.needs not in kinds:
        return
    bits = estimator.needs == "bernoulli"
    strange = program.where(lambda d: bernoulli_logits(d) is None and (bits or not relaxable(d)))
    if strange:
        raise UnsoundError(
            f"its gradients in logits need {kinds[estimator.needs]} sites, which "
            f"{program.named(strange)} is not: use RLOO(num_particles=2), "
            "TraceGraph_ELBO(gradient=score, baseline=neural)"
            + ("" if program.rigid else " or Trace_ELBO(gradient=pathwise)")
        )


def sites_are_measurable(estimator: "Estimator", program: Program) -> None:
    """Families whose derivative is known as a difference of two measures."""
    rough = program.where(lambda d: not measurable(d))
    if estimator.needs == "measurable" and rough:
        raise UnsoundError(
            "measure-valued derivatives are for Normal and Poisson sites, which "
            f"{program.named(rough)} is not: use RLOO(num_particles=2) or Trace_ELBO(gradient="
            + ("score)" if program.rigid else "pathwise)")
        )


def sites_are_independent(estimator: "Estimator", program: Program) -> None:
    """Parameters that stay as they are at another site's other value: run the guide there."""
    if estimator.needs not in ("bernoulli", "discrete", "measurable") or len(program.sites) < 2:
        return

    def parameters(values: dict[str, Tensor]) -> list[list[Tensor]]:
        with poutine.block(), torch.random.fork_rng():
            torch.manual_seed(0)  # of what else is random, such as dropout
            at = poutine.condition(program.guide, values)
            trace: Any = poutine.trace(at).get_trace(*program.args)
        families = [unwrapped(trace.nodes[name]["fn"]) for name in program.sites]
        return [[getattr(d, k) for k in d.arg_constraints] for d in families]

    drawn = {name: site["value"] for name, site in program.sites.items()}
    others = parameters({name: 1 - value for name, value in drawn.items()})
    for name, one, other in zip(program.sites, parameters(drawn), others, strict=True):
        if not all(map(torch.equal, one, other)):
            raise UnsoundError(
                f"the parameters of site {name!r} depend on another site's draw, and they must "
                "be the same for all values that it is scored at: use RLOO(num_particles=2)"
            )


def sites_can_be_relaxed(estimator: "Estimator", program: Program) -> None:
    """Discrete sites in guide and prior, for a relaxed gradient."""
    if estimator.rule is None:
        return
    if not program.rigid:
        raise UnsoundError(
            "it relaxes discrete sites, and this guide's gradients are pathwise already: use "
            "gradient=pathwise or gradient=stl"
        )
    sides = program.sites, program.priors
    other = [n for n in program.rigid if not all(relaxable(side[n]["fn"]) for side in sides)]
    if other:
        names = [family_name(program.sites[n]["fn"]) for n in other]
        raise UnsoundError(
            f"it relaxes sites whose prior and guide are {DISCRETE.replace(', ', ' or ')}, "
            f"which {program.named(other)} is not: use RLOO(num_particles=2) or "
            "Trace_ELBO(gradient=score)"
            + (", or OneHotCategorical" if "Categorical" in names else "")
        )


def the_score_has_mean_zero(estimator: "Estimator", program: Program) -> None:
    """A support that stays where it is, where the score is left out or weighted."""
    moving = program.where(has_moving_support)
    if moving and (estimator.gradient in ("score", "stl") or isinstance(estimator.elbo, Weighted)):
        raise UnsoundError(
            f"it needs a score of mean zero, and the support of {program.named(moving)} moves with "
            "its parameters, so it is biased: use Trace_ELBO(gradient=pathwise)"
        )


def copies_have_a_density(estimator: "Estimator", program: Program) -> None:
    """log q away from its own draw: a flow may know it by a cache alone."""
    elbo = estimator.elbo
    copies = isinstance(elbo, Weighted) and elbo.copies and estimator.gradient != "score"
    for name, site in program.sites.items() if copies or estimator.gradient == "stl" else ():
        try:
            site["fn"].log_prob(site["value"].clone())
        except (KeyError, NotImplementedError):
            raise UnsoundError(
                f"it asks for log q at a copy of the draw, and {program.named([name])} has a "
                "transform without inverse: use Trace_ELBO(gradient=pathwise)"
            ) from None


def paths_exist(estimator: "Estimator", program: Program) -> None:
    """A reparameterized sampler, where the gradient follows paths."""
    summed = program.finite if estimator.needs == "finite" else []
    unserved = [n for n in estimator.scored(program.rigid) if n not in summed]
    if unserved and (estimator.gradient in ("pathwise", "stl") or estimator.needs == "rsample"):
        bits = not program.where(lambda d: bernoulli_logits(d) is None)
        raise UnsoundError(
            "its pathwise gradient needs a reparameterized sampler, which "
            f"{program.named(unserved)} has not: "
            "use Trace_ELBO(gradient=score), TraceGraph_ELBO(gradient=score, baseline=neural), "
            "RLOO(num_particles=2), VIMCO(num_particles=2)"
            + (", DisARM" if bits else "")
            + (" or TraceEnum_ELBO" if set(unserved) <= set(program.finite) else "")
        )


def sites_are_alike(estimator: "Estimator", program: Program) -> None:
    """One rule for all sites, where the bound has no word for two."""
    mixed = 0 < len(estimator.scored(program.rigid)) < len(program.sites)
    if estimator.needs == "alike" and estimator.gradient is None and mixed:
        raise UnsoundError(
            "it takes all sites by the same rule, and only some of this guide's are "
            "reparameterized: say gradient=score"
        )


def a_baseline_has_a_score(estimator: "Estimator", program: Program) -> None:
    """A score function, for a baseline to multiply."""
    pathwise = estimator.gradient != "score" and not estimator.scored(program.rigid)
    if estimator.baseline != "none" and pathwise:
        raise UnsoundError(
            "a baseline lowers the variance of score-function gradients, and this guide's "
            "are pathwise: say gradient=score, or leave the baseline out"
        )


def the_prior_can_be_inverted(estimator: "Estimator", program: Program) -> None:
    """What GDReG asks of the model; what is learned is seen by its gradient."""
    if isinstance(estimator.elbo, GDReG):
        with torch.enable_grad(), poutine.block():
            model_trace = replayed(program.model, program.guide_trace, *program.args)
            try:
                estimator.elbo.check(model_trace)
            except ValueError as problem:
                raise UnsoundError(str(problem)) from None


def the_kl_is_known(estimator: "Estimator", program: Program) -> None:
    """A closed form, finite, of sites drawn in the model's order."""
    if not isinstance(estimator.elbo, TraceMeanField_ELBO):
        return
    if not same_order(program.model_trace, program.guide_trace):
        raise UnsoundError(
            f"it draws {', '.join(program.sites)} in another order than the model, where a KL in "
            "closed form is biased: use Trace_ELBO, or a guide that goes down (TopDown)"
        )
    for name, site in program.sites.items():
        q, p = site["fn"], program.priors[name]["fn"]
        pair = f"of {family_name(q)} and {family_name(p)}"
        try:
            finite = kl_divergence(q, p).isfinite().all()
        except NotImplementedError:
            raise UnsoundError(
                f"no analytic KL {pair} is registered (Pyro would sample): use Trace_ELBO"
            ) from None
        if not finite:
            raise UnsoundError(
                f"the KL {pair} is infinite: choose a guide with the prior's support"
            )


RULES: tuple[Callable[["Estimator", Program], None], ...] = (
    no_factor_counts_the_wrong_way, states_can_be_summed, sites_have_logits, sites_are_measurable,
    sites_are_independent, sites_can_be_relaxed, the_score_has_mean_zero, copies_have_a_density,
    paths_exist, sites_are_alike, a_baseline_has_a_score, the_prior_can_be_inverted,
    the_kl_is_known,
)  # fmt: skip


def family_name(distribution: object) -> str:
    """The name of the family under wrappers such as ``Independent``."""
    return type(unwrapped(distribution)).__name__


def has_moving_support(distribution: torch.distributions.Distribution) -> bool:
    """Whether the support's ends are parameters (Uniform, Pareto): then the score has a mean."""
    try:
        support: Any = unwrapped(distribution).support
    except (NotImplementedError, AttributeError):
        return False
    ends = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return not support.is_discrete and any(isinstance(end, Tensor) for end in ends)
