"""Whether an estimator may serve a guide: its own needs, then those of its gradient rule."""

from collections.abc import Callable

import torch

from ..sites import samples
from .estimator import Estimator
from .relaxations import RELAXED
from .relaxed import sites_can_be_relaxed
from .rules import (
    Rule,
    Trial,
    UnsoundError,
    copies_have_a_density,
    many_draws_stand_together,
    paths_exist,
    the_guide_draws_all,
    the_score_has_mean_zero,
    what_learns_is_scored_at_draws,
)

__all__ = ["check", "check_and_nest"]

OF_GRADIENTS: dict[str | None, tuple[Rule, ...]] = {
    "pathwise": (paths_exist,),
    "score": (the_score_has_mean_zero, copies_have_a_density),
    "stl": (the_score_has_mean_zero, copies_have_a_density, paths_exist),
    **dict.fromkeys(RELAXED, (sites_can_be_relaxed,)),
}


@torch.no_grad()
def check(estimator: Estimator, model: Callable, guide: Callable, *args: object) -> int:
    """Raise if an estimator cannot serve a guide.

    Returns:
        How many plates stand within one another, the particles' included: what a Pyro ``ELBO``
        calls ``max_plate_nesting``, and would find by one more run.

    Raises:
        ValueError: with the reason, and estimators that can.
    """
    elbo, profile = estimator.elbo, estimator.profile
    how = elbo, estimator.gradient, estimator.rule is not None, estimator.baseline
    trial = Trial(*how, model, guide, args)
    needs = profile.needs if profile else ()
    for rule in (
        many_draws_stand_together,
        the_guide_draws_all,
        what_learns_is_scored_at_draws,
        *needs,
        *OF_GRADIENTS.get(estimator.gradient, ()),
    ):
        try:
            rule(trial)
        except UnsoundError as why:
            raise ValueError(f"{estimator} cannot serve this guide: {why}") from None
    sites = [*samples(trial.model_trace), *samples(trial.guide_trace)]
    dims = [f.dim for s in sites for f in s["cond_indep_stack"] if f.vectorized]
    return -min(dims, default=0) + (elbo.vectorize_particles and elbo.num_particles > 1)


def check_and_nest(estimator: Estimator, model: Callable, guide: Callable, *args: object) -> None:
    """:func:`check`, and tell the bound how its plates are nested, where it does not know it."""
    nesting = check(estimator, model, guide, *args)
    if estimator.elbo.max_plate_nesting == float("inf"):
        estimator.elbo.max_plate_nesting = nesting
