"""The table of estimators: for each bound the gradient rules, the guides, the bias and the cost."""

from collections.abc import Callable

import torch
from pyro import infer
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

from ..sites import family_name, same_order, samples
from .arm import ARM, DisARM, DisARMIWAE
from .arms import ARMS, CARMS
from .bitflip import UGC, BitFlip
from .bounds import renyi
from .cubo import CUBO
from .doublecv import DoubleCV
from .dreg import DReG
from .gdreg import GDReG
from .groups import CIWAE, MIWAE, PIWAE
from .measure_valued import MeasureValued
from .multisample import MultiSampleELBO
from .muprop import MuProp
from .ovis import OVIS
from .profile import DISCRETE, STL_ELSEWHERE, Profile
from .rebar import REBAR, RELAX
from .relaxations import RELAXED
from .relaxed import Relaxation, RelaxedTrace_ELBO, RelaxedTraceMeanField_ELBO
from .renyi import RenyiELBO
from .rloo import RLOO
from .rodeo import RODEO
from .rules import (
    Trial,
    UnsoundError,
    first_that_meet,
    joint_states_are_few,
    paths_are_whole,
    paths_exist,
    the_cost_has_all_sites,
)
from .rws import RWS
from .tvo import TVO
from .vimco import VIMCO

__all__ = ["ALIASES", "ESTIMATORS", "profile_of"]

NEAR = 1e-3  # of alpha and 1, where the Rényi bound is the ELBO: rounding costs 1e-7 / (1 - alpha)


def the_kl_is_known(trial: Trial) -> None:
    """The KL has a finite closed form, of sites drawn in the model's order."""
    if not same_order(trial.model_trace, trial.guide_trace):
        raise UnsoundError(
            f"it draws {', '.join(trial.sites)} in another order than the model, where a KL in "
            "closed form is biased: use Trace_ELBO, or a guide that goes down (TopDown)"
        )
    if extra := [name for name in trial.sites if name not in trial.priors]:
        raise UnsoundError(
            f"the guide draws its sites through {extra[0]!r}, which no site of the model has a KL "
            "to: use Trace_ELBO"
        )
    for name, site in trial.sites.items():
        q, p = site["fn"], trial.priors[name]["fn"]
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


def states_can_be_summed(trial: Trial) -> None:
    """Some site has a finite support, where the sum is over all states."""
    if not trial.finite and not trial.summed:
        families = ", ".join(family_name(site["fn"]) for site in trial.sites.values())
        what = f"{families} has no finite support" if families else "there is no latent site"
        raise UnsoundError(f"it sums over all states, and {what}: use Trace_ELBO")


def members_are_summed_apart(trial: Trial) -> None:
    """The states of each member of a plate are summed out for themselves."""
    if meeting := first_that_meet(trial, trial.finite):
        name, plate, reader = meeting
        raise UnsoundError(
            f"it sums over the states of site {name!r} for each member of the plate {plate!r} by "
            f"itself, and {reader!r}, outside it, reads several: use Trace_ELBO(gradient=score) or "
            "RLOO(num_particles=2)"
        )


def a_baseline_has_a_score(trial: Trial) -> None:
    """There is a score function, for a baseline to multiply."""
    if trial.baseline != "none" and trial.gradient != "score" and not trial.rigid:
        raise UnsoundError(
            "a baseline lowers the variance of score-function gradients, and this guide's "
            "are pathwise: say gradient=score, or leave the baseline out"
        )


def of_pyro(plain: type[ELBO], relaxed: type[RelaxedTrace_ELBO] | None = None) -> Callable:
    """What makes a bound of Pyro's, and that under a relaxation where it has one."""

    def build(
        num_particles: int = 1, vectorize_particles: bool = True, rule: Relaxation | None = None
    ) -> ELBO:
        how = {"num_particles": num_particles, "vectorize_particles": vectorize_particles}
        return plain(**how) if rule is None or relaxed is None else relaxed(rule, **how)

    return build


def build_renyi(
    num_particles: int = 2, vectorize_particles: bool = True, *, alpha: float = 0.0
) -> ELBO:
    """Pyro's Rényi bound; the ELBO, at alpha = 1, is refused.

    So is what is nearly it: rounding, divided by 1 - alpha, is then more than the difference.
    """
    if abs(alpha - 1) < NEAR:
        one = alpha == 1
        near = "" if one else ", but for rounding, which 1 / (1 - alpha) magnifies"
        said = 1 if one else alpha
        raise ValueError(f"alpha={said} makes the Rényi bound the ELBO{near}: use Trace_ELBO")
    return RenyiELBO(alpha, num_particles, vectorize_particles=vectorize_particles)


def nothing_is_weighted(trial: Trial) -> None:
    """Pyro's Rényi bound keeps ``poutine.scale`` within its logarithm."""
    scales = [site["scale"] for site in samples(trial.model_trace)]
    if trial.elbo.num_particles > 1 and any((torch.as_tensor(s) != 1).any() for s in scales):
        raise UnsoundError("it weighs within its logarithm, which is no bound: use DReG or VIMCO")


OF_PYRO: dict[type[ELBO], Profile] = {
    Trace_ELBO: Profile(
        gradients=("pathwise", "score", "stl", *RELAXED),
        guides=f"any (stl: reparameterized; relaxed: {DISCRETE})",
        note="unbiased (relaxed: biased); one evaluation a particle",
        build=of_pyro(Trace_ELBO, RelaxedTrace_ELBO),
        needs=(the_cost_has_all_sites,),
        of_guide=("temperature",),
        biased=tuple(RELAXED),
    ),
    TraceGraph_ELBO: Profile(
        gradients=("pathwise", "score"),
        guides="any",
        note="unbiased; Rao-Blackwellized score function, with baselines",
        build=of_pyro(TraceGraph_ELBO),
        needs=(a_baseline_has_a_score,),
        refused=(("stl", f"without score-function sites it is Trace_ELBO: {STL_ELSEWHERE}"),),
        of_guide=("baseline", "decay"),
    ),
    TraceMeanField_ELBO: Profile(
        gradients=("pathwise", *RELAXED),
        guides=f"reparameterized, with an analytic KL to the prior (relaxed: {DISCRETE})",
        note="unbiased (relaxed: biased); KL in closed form",
        build=of_pyro(TraceMeanField_ELBO, RelaxedTraceMeanField_ELBO),
        needs=(paths_exist, paths_are_whole, the_kl_is_known),
        refused=(
            ("score", "the analytic KL has no score-function form in Pyro: use Trace_ELBO"),
            ("stl", f"the analytic KL would silently be sampled: {STL_ELSEWHERE}"),
        ),
        of_guide=("temperature",),
        biased=tuple(RELAXED),
    ),
    TraceEnum_ELBO: Profile(
        gradients=("pathwise", "score"),
        guides="with a finite support (products too)",
        note="exact in the enumerated sites; one evaluation a joint state",
        build=of_pyro(TraceEnum_ELBO),
        needs=(states_can_be_summed, joint_states_are_few, members_are_summed_apart),
        refused=(("stl", f"enumerated sites have no path: {STL_ELSEWHERE}"),),
    ),
    infer.RenyiELBO: Profile(
        gradients=("pathwise",),
        guides="reparameterized",
        note="a bound of its own (alpha=0: importance-weighted), unbiased for it; one evaluation "
        "a particle",
        build=build_renyi,
        needs=(paths_exist, paths_are_whole, nothing_is_weighted),
        refused=(
            ("score", "its guide gradient is exactly zero at alpha=0, else biased: use VIMCO"),
            ("stl", "it is biased with more than one particle: use DReG"),
        ),
        weighted=False,
        bound=lambda elbo: renyi(elbo.alpha, elbo.num_particles),  # pyrefly: ignore[missing-attribute]
    ),
}

OURS: tuple[type[MultiSampleELBO], ...] = (
    DReG,
    GDReG,
    MIWAE,
    PIWAE,
    CIWAE,
    TVO,
    RWS,
    CUBO,
    RLOO,
    VIMCO,
    OVIS,
    ARM,
    DisARM,
    BitFlip,
    UGC,
    ARMS,
    CARMS,
    DisARMIWAE,
    MuProp,
    DoubleCV,
    RODEO,
    REBAR,
    RELAX,
    MeasureValued,
)

ESTIMATORS: dict[str, Profile] = {
    **{elbo.__name__: profile for elbo, profile in OF_PYRO.items()},
    **{elbo.__name__: elbo.profile for elbo in OURS},
}

ALIASES = {"VarGrad": "RLOO", "LOORF": "RLOO", "U2G": "DisARM"}  # the same under another name


def profile_of(elbo: ELBO) -> Profile | None:
    """What is known of a bound by its class; ``None`` for one that is neither ours nor Pyro's."""
    if isinstance(elbo, MultiSampleELBO):
        return elbo.profile
    return next((OF_PYRO[c] for c in type(elbo).__mro__ if c in OF_PYRO), None)
