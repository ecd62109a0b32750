"""The table of estimators: for each bound the gradient rules, the guides, the bias and the cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyro.infer import (
    ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)

from .arm import ARM, DisARM, DisARMIWAE
from .bounds import Bound, renyi
from .control_variates import DoubleCV, MuProp
from .cubo import CUBO
from .gdreg import GDReG
from .importance import VIMCO, DReG, ImportanceWeighted
from .measure_valued import MeasureValued
from .multisample import RLOO
from .rebar import REBAR, RELAX
from .relaxed import RELAXED
from .rws import RWS
from .tvo import TVO

__all__ = ["DISCRETE", "ESTIMATORS", "Row"]


@dataclass(frozen=True)
class Row:
    """What the table says of one bound.

    Attributes:
        elbo: the class of the bound.
        gradients: the gradient rules that are sound with it.
        guides: for which guides.
        note: unbiased or not, and the cost of a gradient.
        options: further arguments, by name.
        refused: gradient rules that exist but do not serve this bound, and why.
        gradient: the rule where none is said; ``None`` leaves it to each site.
        needs: what every site of the guide must be.
        num_particles: where it is not said, and ``least``, how many it needs.
        weighted: whether a KL weight (beta) leaves it a bound.
        bound: what the value of an ``ELBO`` object of this class estimates.
        ascends: whose gradient is that bound's; elsewhere it is of another objective.
        biased: those of its gradient rules that are biased for it.
    """

    elbo: type[ELBO]
    gradients: tuple[str, ...]
    guides: str
    note: str
    options: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    gradient: str | None = None
    needs: Literal[
        "any", "rsample", "alike", "finite", "bernoulli", "discrete", "measurable"
    ] = "any"  # fmt: skip
    num_particles: int = 1
    least: int = 1
    weighted: bool = True
    bound: Callable[[ELBO], Bound] = lambda elbo: Bound()
    ascends: Literal["both", "model", "none"] = "both"
    biased: tuple[str, ...] = ()


def importance_weighted(elbo: ELBO) -> Bound:
    """The bound that an object of ours says it estimates."""
    assert isinstance(elbo, ImportanceWeighted)
    return elbo.bound


DISCRETE = "Bernoulli, OneHotCategorical"
STL_ELSEWHERE = "use Trace_ELBO(gradient=stl)"
NO_PATH = (
    ("pathwise", "it is for sites without a path: use Trace_ELBO"),
    ("stl", f"it is for sites without a path: {STL_ELSEWHERE}"),
)

ESTIMATORS: dict[str, Row] = {
    "Trace_ELBO": Row(
        Trace_ELBO, ("pathwise", "score", "stl", *RELAXED),
        f"any (stl: reparameterized; relaxed: {DISCRETE})",
        "unbiased (relaxed: biased); one evaluation a particle", ("temperature",),
        biased=tuple(RELAXED),
    ),
    "TraceGraph_ELBO": Row(
        TraceGraph_ELBO, ("pathwise", "score"), "any",
        "unbiased; Rao-Blackwellized score function, with baselines", ("baseline", "decay"),
        (("stl", f"without score-function sites it is Trace_ELBO: {STL_ELSEWHERE}"),),
    ),
    "TraceMeanField_ELBO": Row(
        TraceMeanField_ELBO, ("pathwise", *RELAXED),
        f"reparameterized, with an analytic KL to the prior (relaxed: {DISCRETE})",
        "unbiased (relaxed: biased); KL in closed form", ("temperature",),
        (
            ("score", "the analytic KL has no score-function form in Pyro"),
            ("stl", f"the analytic KL would silently be sampled: {STL_ELSEWHERE}"),
        ), needs="rsample", biased=tuple(RELAXED),
    ),
    "TraceEnum_ELBO": Row(
        TraceEnum_ELBO, ("pathwise", "score"), "with a finite support (products too)",
        "exact in the enumerated sites; one evaluation a joint state", (),
        (("stl", f"enumerated sites have no path: {STL_ELSEWHERE}"),), needs="finite",
    ),
    "RenyiELBO": Row(
        RenyiELBO, ("pathwise",), "reparameterized",
        "a bound of its own (alpha=0: importance-weighted), unbiased for it; one evaluation "
        "a particle", ("alpha",),
        (
            ("score", "at alpha=0 its guide gradient is exactly zero, at other alpha it is biased"),
            ("stl", "it is biased with more than one particle: use DReG"),
        ), needs="rsample", num_particles=2, weighted=False,
        bound=lambda elbo: renyi(elbo.alpha, elbo.num_particles),  # pyright: ignore
    ),
    "DReG": Row(
        DReG, ("pathwise",), "reparameterized",
        "importance-weighted bound, unbiased for it; doubly reparameterized; one evaluation "
        "a particle", (),
        (
            ("score", "it reparameterizes twice: use VIMCO"),
            ("stl", "it has that and the weights' part already: leave gradient out"),
        ), needs="rsample", num_particles=2, weighted=False, bound=importance_weighted,
    ),
    "GDReG": Row(
        GDReG, ("pathwise",), "reparameterized, with a prior of location and scale, or transformed",
        "importance-weighted bound, unbiased for it; doubly reparameterized in the prior's "
        "parameters too; one evaluation a particle and a further backward pass", (),
        (
            ("score", "it reparameterizes twice: use VIMCO"),
            ("stl", "it has that and the weights' part already: leave gradient out"),
        ), needs="rsample", num_particles=2, weighted=False, bound=importance_weighted,
    ),
    "TVO": Row(
        TVO, ("pathwise", "score"), "any, its sites alike",
        "thermodynamic bound; unbiased for it where reparameterized (doubly so); else the "
        "covariance gradient, whose bias falls as 1/K; one evaluation a particle",
        ("partitions", "beta_min"),
        (("stl", "its pathwise gradient has that already: leave gradient out"),),
        needs="alike", num_particles=10, least=2, weighted=False, bound=importance_weighted,
        biased=("score",),
    ),
    "RWS": Row(
        RWS, ("score",), "any",
        "importance-weighted bound, unbiased for it in the model; the guide descends the inclusive "
        "KL, with a bias that falls as 1/K; one evaluation a particle", ("sleep",),
        (
            ("pathwise", "its guide ascends log q at draws that are fixed: leave gradient out"),
            ("stl", "its guide ascends log q at draws that are fixed: leave gradient out"),
        ), num_particles=10, least=2, weighted=False, bound=importance_weighted,
        ascends="model",
    ),
    "CUBO": Row(
        CUBO, ("pathwise", "score"), "any, its sites alike",
        "an upper bound (as K grows), which the guide descends; the model ascends the "
        "importance-weighted one; one evaluation a particle", ("n",),
        (("stl", "its pathwise gradient has that already: leave gradient out"),),
        needs="alike", num_particles=10, least=2, weighted=False, bound=importance_weighted,
        ascends="none",
    ),
    "RLOO": Row(
        RLOO, ("score",), "any", "unbiased; leave-one-out baseline; one evaluation a particle",
        (), NO_PATH, "score", num_particles=2, least=2,
    ),
    "VIMCO": Row(
        VIMCO, ("score",), "any",
        "importance-weighted bound, unbiased for it; leave-one-out control variate; one "
        "evaluation a particle", (), NO_PATH, "score", num_particles=2, least=2, weighted=False,
        bound=importance_weighted,
    ),
    "ARM": Row(
        ARM, ("score",), "Bernoulli", "unbiased; two evaluations a particle, an antithetic pair",
        (), NO_PATH, needs="bernoulli",
    ),
    "DisARM": Row(
        DisARM, ("score",), "Bernoulli",
        "unbiased; two evaluations a particle, an antithetic pair; never worse than ARM",
        (), NO_PATH, needs="bernoulli",
    ),
    "DisARMIWAE": Row(
        DisARMIWAE, ("score",), "Bernoulli",
        "importance-weighted bound, unbiased for it; two evaluations a particle, an antithetic "
        "pair", (), NO_PATH, needs="bernoulli", num_particles=2, weighted=False,
        bound=importance_weighted,
    ),
    "MuProp": Row(
        MuProp, ("score",), DISCRETE,
        "unbiased; first-order expansion at the mean; two evaluations a particle",
        ("baseline",), NO_PATH, needs="discrete",
    ),
    "DoubleCV": Row(
        DoubleCV, ("score",), DISCRETE,
        "unbiased; leave-one-out baseline and slopes at the other draws; one evaluation a particle",
        ("alpha",), NO_PATH, needs="discrete", num_particles=2, least=2,
    ),
    "REBAR": Row(
        REBAR, ("score",), DISCRETE,
        "unbiased; learned control variate, the cost at a relaxed draw; two evaluations a particle",
        ("temperature", "eta"), NO_PATH, needs="discrete",
    ),
    "RELAX": Row(
        RELAX, ("score",), DISCRETE,
        "unbiased; learned control variate, REBAR's and a network; two evaluations a particle",
        ("temperature", "eta", "hidden"), NO_PATH, needs="discrete",
    ),
    "MeasureValued": Row(
        MeasureValued, ("measure_valued",), "Normal, Poisson",
        "unbiased; for each coordinate three evaluations a particle (Poisson: one), and one more",
        needs="measurable",
    ),
}  # fmt: skip
