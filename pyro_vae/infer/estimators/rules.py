"""What estimators and gradient rules ask of a guide: rules, each with its reason."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import pyro.poutine as poutine
import torch
from pyro.distributions.util import is_identically_zero
from pyro.infer import ELBO, TraceEnum_ELBO
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ...core.layout import MANY
from ..sites import (
    computed,
    family_name,
    is_learned_point,
    is_product,
    latent,
    replayed,
    samples,
    unwrapped,
)
from .handlers import EnumerableProduct

__all__ = [
    "Rule",
    "Trial",
    "UnsoundError",
    "copies_have_a_density",
    "first_that_meet",
    "joint_states_are_few",
    "many_draws_stand_together",
    "no_factor_counts_the_wrong_way",
    "no_factor_has_a_slope_of_its_own",
    "no_point_is_weighted",
    "paths_are_whole",
    "paths_exist",
    "sites_are_alike",
    "sites_are_independent",
    "the_cost_has_all_sites",
    "the_guide_draws_all",
    "the_guide_has_parameters_of_its_own",
    "the_score_has_mean_zero",
    "what_learns_is_scored_at_draws",
]


class UnsoundError(ValueError):
    """Why an estimator cannot serve a guide; the estimator's name is put before it."""


@dataclass
class Trial:
    """A model and a guide, run once, and what is to serve them.

    Attributes:
        elbo: the bound.
        gradient: its gradient rule; ``None`` leaves it to each site.
        relaxed: whether the rule relaxes the sites without a reparameterized sampler.
        baseline: of the score function.
        model: a Pyro model.
        guide: its guide, not wrapped.
        args: of both.
    """

    elbo: ELBO
    gradient: str | None
    relaxed: bool
    baseline: str
    model: Callable
    guide: Callable
    args: tuple

    def __post_init__(self) -> None:
        with poutine.block():
            self.guide_trace = poutine.trace(self.guide).get_trace(*self.args)
            self.model_trace = replayed(self.model, self.guide_trace, *self.args)

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
    def scored(self) -> list[str]:
        """Those of them that are neither relaxed nor enumerated."""
        summed = self.finite if isinstance(self.elbo, TraceEnum_ELBO) else []
        return [] if self.relaxed else [name for name in self.rigid if name not in summed]

    @cached_property
    def finite(self) -> list[str]:
        """Sites whose values can be enumerated."""
        return self.where(lambda d: d.has_enumerate_support or is_product(d))

    @cached_property
    def factors(self) -> list[str]:
        """Sites of the guide that have a density and draw nothing."""
        return [
            site["name"]
            for site in samples(self.guide_trace)
            if not (latent(site) or site_is_subsample(site) or computed(site))
        ]

    @cached_property
    def points(self) -> list[str]:
        """Sites that the guide sets to a parameter; not those that it computes from other draws."""
        if not set(self.sites) <= set(self.priors):
            return []
        with torch.enable_grad(), poutine.block(), torch.random.fork_rng():
            trace: Any = poutine.trace(self.guide).get_trace(*self.args)
        return [n for n in self.sites if is_learned_point(trace.nodes[n]["fn"])]

    @cached_property
    def summed(self) -> list[str]:
        """Sites of the model that are marked to be enumerated, and that the guide does not draw."""
        return [
            name
            for name, site in self.priors.items()
            if latent(site) and name not in self.sites and site["infer"].get("enumerate")
        ]

    def where(self, holds: Callable[[Any], object]) -> list[str]:
        """The sites whose distribution is of a kind."""
        return [n for n, s in self.sites.items() if holds(s["fn"])]

    def named(self, names: Iterable[str]) -> str:
        """Sites in words."""
        return ", ".join(f"{family_name(self.sites[n]['fn'])} at site {n!r}" for n in names)


Rule: TypeAlias = Callable[[Trial], None]


def the_guide_draws_all(trial: Trial) -> None:
    """No site of the model is to be summed out, where the bound has no sum."""
    if trial.summed and not isinstance(trial.elbo, TraceEnum_ELBO):
        raise UnsoundError(
            f"the model enumerates {', '.join(map(repr, trial.summed))}, which it would draw from "
            "the prior and not sum out: use TraceEnum_ELBO"
        )


def many_draws_stand_together(trial: Trial) -> None:
    """A program that makes its draws one by one serves a bound of one particle."""
    layout: Any = getattr(getattr(trial.model, "__self__", None), "layout", None)
    k = trial.elbo.num_particles
    if trial.elbo.vectorize_particles and k > 1 and layout is not None and layout.why_loop:
        raise UnsoundError(
            f"it makes {k} draws at once, which this program does not allow ({layout.why_loop}): "
            f"use Trace_ELBO, of one particle, or mend the program: {MANY}"
        )


def what_learns_is_scored_at_draws(trial: Trial) -> None:
    """A likelihood that learns from what it scores is not asked elsewhere than at draws."""
    summed = isinstance(trial.elbo, TraceEnum_ELBO)
    if not (summed or getattr(trial.elbo, "elsewhere", False)):
        return
    if learns := [s["name"] for s in samples(trial.model_trace) if _learns_from_batches(s["fn"])]:
        raise UnsoundError(
            f"it scores {learns[0]!r} at values that are no draws, and the scale there is the best "
            "one for all that is scored: use RLOO(num_particles=2), or Normal(scale=learned)"
        )


def _learns_from_batches(distribution: Any) -> bool:  # noqa: ANN401
    """Whether a distribution, or one of its parts, is fitted to each batch that it scores."""
    inner = unwrapped(distribution)
    own = getattr(inner, "fits_batches", False)
    return own or any(map(_learns_from_batches, getattr(inner, "parts", ())))


def no_factor_counts_the_wrong_way(trial: Trial) -> None:
    """A guide that follows an objective of its own has no factor."""
    if trial.factors:
        raise UnsoundError(
            f"its guide follows an objective of its own, in which the factor {trial.factors[0]!r} "
            "of this guide would count the wrong way: use Trace_ELBO or TraceEnum_ELBO"
        )


def no_factor_has_a_slope_of_its_own(trial: Trial) -> None:
    """All that a guide's density is of is drawn: a factor depends on parameters in other ways."""
    if trial.factors:
        raise UnsoundError(
            "its gradient is that of draws alone, which leaves out the parameters that the factor "
            f"{trial.factors[0]!r} of this guide reads: use RLOO(num_particles=2) or "
            "TraceGraph_ELBO"
        )


def no_point_is_weighted(trial: Trial) -> None:
    """Each particle's gradient is weighted as that of a draw, whose score has mean zero."""
    if trial.points:
        raise UnsoundError(
            f"it weighs the gradients of draws, and {trial.points[0]!r} is a point, which has no "
            "score: use VIMCO(num_particles=2) or Trace_ELBO"
        )


def the_cost_has_all_sites(trial: Trial) -> None:
    """Pyro's ``Trace_ELBO`` scores draws by log q of the sites alone that the model has."""
    own = [*trial.factors, *(name for name in trial.sites if name not in trial.priors)]
    if own and (trial.scored or trial.gradient == "score"):
        raise UnsoundError(
            f"Pyro scores its draws by a cost without the site {own[0]!r}, which the model has "
            "not, so it is biased: use RLOO(num_particles=2) or TraceGraph_ELBO(gradient=score)"
        )


def the_guide_has_parameters_of_its_own(trial: Trial) -> None:
    """A guide that follows an objective of its own shares no parameter with the model."""
    steps: Any = getattr(getattr(trial.guide, "__self__", None), "approximation", None)
    if getattr(steps, "through", False):
        raise UnsoundError(
            "its guide follows an objective of its own, which the model would follow too, as the "
            "steps of this guide are differentiated through it: say through=False"
        )
    names = (
        {name for name, site in trace.nodes.items() if site["type"] == "param"}
        for trace in (trial.guide_trace, trial.model_trace)
    )
    if shared := sorted(set.intersection(*names)):
        raise UnsoundError(
            f"its guide follows an objective of its own, and {shared[0]!r} is a parameter of guide "
            "and model: use Trace_ELBO, or a prior and a guide that do not read each other"
        )


def sites_are_independent(trial: Trial) -> None:
    """Parameters stay as they are at another site's other value: run the guide there."""
    if len(trial.sites) < 2:
        return

    def parameters(values: dict[str, Tensor]) -> list[list[Tensor]]:
        with poutine.block(), torch.random.fork_rng():
            torch.manual_seed(0)  # of what else is random, such as dropout
            at = poutine.condition(trial.guide, values)
            trace: Any = poutine.trace(at).get_trace(*trial.args)
        families = [unwrapped(trace.nodes[name]["fn"]) for name in trial.sites]
        return [[getattr(d, k) for k in d.arg_constraints] for d in families]

    drawn = {name: site["value"] for name, site in trial.sites.items()}
    others = parameters({name: 1 - value for name, value in drawn.items()})
    for name, one, other in zip(trial.sites, parameters(drawn), others, strict=True):
        if not all(map(torch.equal, one, other)):
            raise UnsoundError(
                f"the parameters of site {name!r} depend on another site's draw, and they must "
                "be the same for all values that it is scored at: use RLOO(num_particles=2)"
            )


def first_that_meet(trial: Trial, names: Iterable[str]) -> tuple[str, str, str] | None:
    """The first site, plate and reader of a model that reads members of a plate from outside it.

    What takes each member for itself, such as a sum over its states, is wrong there.
    """

    def densities(values: dict[str, Tensor]) -> dict[str, Tensor]:
        with poutine.block(), torch.random.fork_rng():
            torch.manual_seed(0)  # of what else is random, such as dropout
            at = poutine.condition(trial.model, values)
            trace: Any = poutine.trace(at).get_trace(*trial.args)
        trace.compute_log_prob()
        return {site["name"]: site["log_prob"] for site in samples(trace)}

    drawn = {name: site["value"] for name, site in trial.sites.items()}
    before = densities(drawn)
    for name in names:
        site = trial.sites[name]
        plates = {f.name for f in site["cond_indep_stack"] if f.vectorized and f.size > 1}
        outside = [
            (min(apart), other["name"])
            for other in samples(trial.model_trace)
            if (apart := plates - {f.name for f in other["cond_indep_stack"]})
        ]
        if not outside:
            continue
        after = densities({**drawn, name: unlike(site)})
        for plate, reader in outside:
            if not torch.equal(before[reader], after[reader]):
                return name, plate, reader
    return None


def unlike(site: Any) -> Tensor:  # noqa: ANN401
    """Another draw of a site than its own."""
    value, tries = site["value"], 100
    for _ in range(tries):
        other = site["fn"].sample()
        if not torch.equal(other, value):
            return other
    return value


def joint_states_are_few(trial: Trial) -> None:
    """All joint states of a site of independent variables can be held at once."""
    for name in trial.where(is_product):
        try:
            EnumerableProduct(trial.sites[name]["fn"], name).few_states()
        except ValueError as why:
            raise UnsoundError(str(why)) from None


def the_score_has_mean_zero(trial: Trial) -> None:
    """The support stays where it is, where the score is left out or weighted."""
    if moving := trial.where(_has_moving_support):
        raise UnsoundError(
            f"it needs a score of mean zero, and the support of {trial.named(moving)} moves with "
            "its parameters, so it is biased: use Trace_ELBO(gradient=pathwise)"
        )


def copies_have_a_density(trial: Trial) -> None:
    """Log q is known away from its own draw: a flow may know it by a cache alone."""
    for name, site in trial.sites.items():
        try:
            site["fn"].log_prob(site["value"].clone())
        except (KeyError, NotImplementedError):
            raise UnsoundError(
                f"it asks for log q at a copy of the draw, and {trial.named([name])} has a "
                "transform without inverse: use Trace_ELBO(gradient=pathwise)"
            ) from None


def paths_exist(trial: Trial) -> None:
    """Every site has a reparameterized sampler, where the gradient follows paths."""
    if trial.scored:
        bits = all(family_name(site["fn"]) == "Bernoulli" for site in trial.sites.values())
        raise UnsoundError(
            "its pathwise gradient needs a reparameterized sampler, which "
            f"{trial.named(trial.scored)} has not: "
            "use Trace_ELBO(gradient=score), TraceGraph_ELBO(gradient=score, baseline=neural), "
            "RLOO(num_particles=2), VIMCO(num_particles=2)"
            + (", DisARM" if bits else "")
            + (" or TraceEnum_ELBO" if set(trial.scored) <= set(trial.finite) else "")
        )


def paths_are_whole(trial: Trial) -> None:
    """All of a site's gradient is along its path: none is left to a score."""
    if trial.gradient == "score" or trial.relaxed:
        return
    halves = [
        name
        for name, site in trial.sites.items()
        if site["fn"].has_rsample
        and not is_identically_zero(site["fn"].score_parts(site["value"]).score_function)
    ]
    if halves:
        raise UnsoundError(
            f"it takes a gradient along paths alone, and {trial.named(halves)} draws by rejection, "
            "whose gradient has a score too: use Trace_ELBO or TraceGraph_ELBO"
        )


def sites_are_alike(trial: Trial) -> None:
    """One rule serves all sites, where the bound has no word for two."""
    if trial.gradient is None and 0 < len(trial.scored) < len(trial.sites):
        raise UnsoundError(
            "it takes all sites by the same rule, and only some of this guide's are "
            "reparameterized: say gradient=score"
        )


def _has_moving_support(distribution: torch.distributions.Distribution) -> bool:
    """Whether the support's ends are parameters (Uniform, Pareto): then the score has a mean."""
    try:
        support: Any = unwrapped(distribution).support
    except (NotImplementedError, AttributeError):
        return False
    ends = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return not support.is_discrete and any(isinstance(end, Tensor) for end in ends)
