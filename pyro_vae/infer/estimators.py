"""The table of estimators: a bound (a Pyro ``ELBO``) times a gradient rule (handlers).

Not every pair is sound. Those that are not are refused with the reason; nothing falls back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pyro.poutine as poutine
import torch
from pyro.infer import (
    ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from torch import Tensor, nn
from torch.distributions import constraints, kl_divergence

from ..spec import Spec, Value, as_spec, nearest
from .antithetic import ARM, DisARM, bernoulli_logits
from .handlers import (
    Baseline,
    Enumerate,
    RunningMean,
    ScoreFunction,
    StickingTheLanding,
    is_product,
    latent,
)
from .importance import VIMCO, DReG
from .multisample import RLOO

__all__ = ["ESTIMATORS", "Estimator", "Row", "make_estimator"]


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
    """

    elbo: type[ELBO]
    gradients: tuple[str, ...]
    guides: str
    note: str
    options: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    gradient: str | None = None
    needs: Literal["any", "rsample", "finite", "bernoulli"] = "any"
    num_particles: int = 1
    least: int = 1
    weighted: bool = True


STL_ELSEWHERE = "use Trace_ELBO(gradient=stl)"
NO_PATH = (
    ("pathwise", "it is for sites without a path: use Trace_ELBO"),
    ("stl", f"it is for sites without a path: {STL_ELSEWHERE}"),
)

ESTIMATORS: dict[str, Row] = {
    "Trace_ELBO": Row(
        Trace_ELBO, ("pathwise", "score", "stl"), "any (stl: reparameterized)",
        "unbiased; one evaluation a particle",
    ),
    "TraceGraph_ELBO": Row(
        TraceGraph_ELBO, ("pathwise", "score"), "any",
        "unbiased; Rao-Blackwellized score function, with baselines", ("baseline", "decay"),
        (("stl", f"without score-function sites it is Trace_ELBO: {STL_ELSEWHERE}"),),
    ),
    "TraceMeanField_ELBO": Row(
        TraceMeanField_ELBO, ("pathwise",), "reparameterized, with an analytic KL to the prior",
        "unbiased; KL in closed form", (),
        (
            ("score", "the analytic KL has no score-function form in Pyro"),
            ("stl", f"the analytic KL would silently be sampled: {STL_ELSEWHERE}"),
        ), needs="rsample",
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
    ),
    "DReG": Row(
        DReG, ("pathwise",), "reparameterized",
        "importance-weighted bound, unbiased for it; doubly reparameterized; one evaluation "
        "a particle", (),
        (
            ("score", "it reparameterizes twice: use VIMCO"),
            ("stl", "it has that and the weights' part already: leave gradient out"),
        ), needs="rsample", num_particles=2, weighted=False,
    ),
    "RLOO": Row(
        RLOO, ("score",), "any", "unbiased; leave-one-out baseline; one evaluation a particle",
        (), NO_PATH, "score", num_particles=2, least=2,
    ),
    "VIMCO": Row(
        VIMCO, ("score",), "any",
        "importance-weighted bound, unbiased for it; leave-one-out control variate; one "
        "evaluation a particle", (), NO_PATH, "score", num_particles=2, least=2, weighted=False,
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
}  # fmt: skip


@dataclass
class Estimator:
    """A bound with its gradient rule, ready for ``SVI(model, estimator.wrap(guide), ...)``.

    Attributes:
        elbo: any Pyro ``ELBO``.
        gradient: ``"pathwise"``, ``"score"``, ``"stl"`` (sticking the landing), or ``None``: Pyro's
            rule, pathwise for the sites that have a reparameterized sampler and score function for
            the others.
        baseline: ``"none"``, ``"decaying"`` or ``"neural"``.
        decay: of the decaying baseline.
        spec: the line that says it; ``None`` for an ``ELBO`` object of the user's.
        network: the baseline's network, once a guide was wrapped.
    """

    elbo: ELBO
    gradient: str | None = None
    baseline: str = "none"
    decay: float = 0.9
    spec: Spec | None = None
    network: nn.Module | None = None

    def __str__(self) -> str:
        return str(self.spec) if self.spec else type(self.elbo).__name__

    @property
    def row(self) -> Row | None:
        """What the table says of this bound; ``None`` for a class that it does not know."""
        rows = {row.elbo: row for row in ESTIMATORS.values()}
        return next((rows[c] for c in type(self.elbo).__mro__ if c in rows), None)

    def wrap(self, guide: Callable, x: Tensor) -> Callable:
        """The guide with this estimator's gradient rule.

        Args:
            guide: a Pyro guide; it is not changed.
            x: a batch, ``(B, ...)``: its width is what a neural baseline needs to know.
        """
        if isinstance(self.elbo, TraceEnum_ELBO):
            guide = Enumerate()(guide)
        if self.gradient == "score":
            guide = ScoreFunction()(guide)
        if self.gradient == "stl":
            guide = StickingTheLanding()(guide)
        if self.baseline == "decaying":
            self.network = RunningMean(self.decay).to(x)
        elif self.baseline == "neural":
            width = x[0].numel()
            layers = nn.Linear(width, 100), nn.ReLU(), nn.Linear(100, 1)
            self.network = nn.Sequential(*layers).to(x)
        return guide if self.network is None else Baseline(self.network)(guide)

    @torch.no_grad()
    def check(self, model: Callable, guide: Callable, *args: object) -> None:
        """Raise where this estimator cannot serve this guide.

        Args:
            model: a Pyro model.
            guide: its guide, not wrapped.
            args: of both.

        Raises:
            ValueError: with the reason, and estimators that can.
        """
        with poutine.block():
            guide_trace = poutine.trace(guide).get_trace(*args)
            model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)
        self._set_plate_nesting(model_trace, guide_trace)
        sites: dict[str, Any] = {n: s for n, s in guide_trace.nodes.items() if latent(s)}
        priors: dict[str, Any] = dict(model_trace.nodes)
        families = {n: family_name(s["fn"]) for n, s in sites.items()}
        rigid = [n for n, s in sites.items() if not s["fn"].has_rsample]
        finite = [
            n for n, s in sites.items() if s["fn"].has_enumerate_support or is_product(s["fn"])
        ]
        needs = self.row.needs if self.row else "any"
        exact = needs == "finite"
        if exact and not finite:
            self._refuse(
                f"it sums over all states, and {', '.join(families.values())} has no finite "
                "support: use Trace_ELBO"
            )
        other = [n for n, s in sites.items() if bernoulli_logits(s["fn"]) is None]
        if needs == "bernoulli" and other:
            names = ", ".join(f"{families[n]} at site {n!r}" for n in other)
            self._refuse(
                f"its antithetic pairs need Bernoulli sites, which {names} is not: use "
                "RLOO(num_particles=2), TraceGraph_ELBO(gradient=score, baseline=neural)"
                + ("" if rigid else " or Trace_ELBO(gradient=pathwise)")
            )
        moving = [n for n, s in sites.items() if has_moving_support(s["fn"])]
        if moving and (self.gradient in ("score", "stl") or isinstance(self.elbo, DReG)):
            names = ", ".join(f"{families[n]} at site {n!r}" for n in moving)
            self._refuse(
                f"it needs a score of mean zero, and the support of {names} moves with its "
                "parameters, so it is biased: use Trace_ELBO(gradient=pathwise)"
            )
        unserved = [n for n in rigid if not (exact and n in finite)]
        if unserved and (self.gradient in ("pathwise", "stl") or needs == "rsample"):
            names = ", ".join(f"{families[n]} at site {n!r}" for n in unserved)
            self._refuse(
                f"its pathwise gradient needs a reparameterized sampler, which {names} has not: "
                "use Trace_ELBO(gradient=score), TraceGraph_ELBO(gradient=score, baseline=neural), "
                "RLOO(num_particles=2), VIMCO(num_particles=2)"
                + (", DisARM" if not other else "")
                + (" or TraceEnum_ELBO" if set(unserved) <= set(finite) else "")
            )
        if self.baseline != "none" and self.gradient != "score" and not rigid:
            self._refuse(
                "a baseline lowers the variance of score-function gradients, and this guide's "
                "are pathwise: say gradient=score, or leave the baseline out"
            )
        if isinstance(self.elbo, TraceMeanField_ELBO):
            for name, site in sites.items():
                self._check_kl(site["fn"], priors[name]["fn"])

    def _set_plate_nesting(self, *traces: poutine.Trace) -> None:
        """Tell the bound what it would guess, by one more run, and log."""
        if self.elbo.max_plate_nesting != float("inf"):
            return
        sites: list[Any] = [s for t in traces for s in t.nodes.values() if s["type"] == "sample"]
        dims = [f.dim for s in sites for f in s["cond_indep_stack"] if f.vectorized]
        particles = self.elbo.vectorize_particles and self.elbo.num_particles > 1
        self.elbo.max_plate_nesting = -min(dims, default=0) + particles

    def _check_kl(self, q: torch.distributions.Distribution, p: torch.distributions.Distribution):  # noqa: ANN202
        pair = f"of {family_name(q)} and {family_name(p)}"
        try:
            finite = kl_divergence(q, p).isfinite().all()
        except NotImplementedError:
            self._refuse(f"no analytic KL {pair} is registered (Pyro would sample): use Trace_ELBO")
        else:
            if not finite:
                self._refuse(f"the KL {pair} is infinite: choose a guide with the prior's support")

    def _refuse(self, why: str) -> None:
        raise ValueError(f"{self} cannot serve this guide: {why}")


def make_estimator(value: "str | Spec | ELBO | Estimator") -> Estimator:
    """An estimator from a line such as ``"TraceGraph_ELBO(gradient=score, baseline=neural)"``.

    Args:
        value: a line, or any Pyro ``ELBO`` object, taken as it is.

    Raises:
        SpecError: unknown names, or a pair of bound and gradient rule that is unsound.

    >>> make_estimator("RenyiELBO(alpha=0, num_particles=5)").elbo.num_particles
    5
    """
    if isinstance(value, Estimator):
        return value
    if isinstance(value, ELBO):
        return Estimator(value)
    spec = as_spec(value)
    if spec.name not in ESTIMATORS:
        raise spec.error(f"unknown estimator {spec.name!r}{nearest(spec.name, ESTIMATORS)}")
    row = ESTIMATORS[spec.name]
    if "baseline" in spec.kwargs and "baseline" not in row.options:
        raise spec.error(
            f"{spec.name} has no baselines: use TraceGraph_ELBO(gradient=score, "
            f"baseline={spec.kwargs['baseline']})",
            at="baseline",
        )
    given = spec.bind("gradient", "num_particles", *row.options)
    if spec.name == "RenyiELBO" and spec.args:
        raise spec.error("name the arguments: RenyiELBO(alpha=0, num_particles=5)", at=0)
    gradient = _word(spec, given, "gradient", ("pathwise", "score", "stl"))
    for rule, why in row.refused:
        if gradient == rule:
            raise spec.error(f"{spec.name} with gradient={rule} is unsound: {why}", at="gradient")
    num_particles = given.get("num_particles", row.num_particles)
    whole = isinstance(num_particles, int) and not isinstance(num_particles, bool)
    if not whole or num_particles < row.least:  # pyright: ignore[reportOperatorIssue]
        raise spec.error(
            f"num_particles is a whole number of at least {row.least}, got {num_particles}"
            + (": each one's baseline is made of the others" if row.least > 1 else ""),
            at="num_particles",
        )
    options: dict[str, object] = {}
    if row.elbo is RenyiELBO:
        alpha = _number(spec, given, "alpha", 0.0)
        if alpha == 1:
            raise spec.error("at alpha=1 the Rényi bound is the ELBO: use Trace_ELBO", at="alpha")
        options["alpha"] = alpha
    elbo = row.elbo(num_particles=num_particles, vectorize_particles=num_particles > 1, **options)  # pyright: ignore
    baseline = _word(spec, given, "baseline", ("none", "decaying", "neural")) or "none"
    if baseline != "none" and gradient == "pathwise":
        raise spec.error("a baseline serves score-function gradients: gradient=score", "baseline")
    decay = _number(spec, given, "decay", 0.9)
    if not 0 <= decay < 1:
        raise spec.error(f"decay lies in [0, 1), got {decay:g}", at="decay")
    return Estimator(elbo, gradient or row.gradient, baseline, decay, spec)


def family_name(distribution: object) -> str:
    """The name of the family under wrappers such as ``Independent``."""
    while hasattr(distribution, "base_dist") and type(distribution).__name__ in (
        "Independent", "ExpandedDistribution", "MaskedDistribution"
    ):  # fmt: skip
        distribution = distribution.base_dist  # pyright: ignore[reportAttributeAccessIssue]
    return type(distribution).__name__


def has_moving_support(distribution: torch.distributions.Distribution) -> bool:
    """Whether the support's ends are parameters (Uniform, Pareto): then the score has a mean."""
    try:
        support: Any = distribution.support
    except (NotImplementedError, AttributeError):
        return False
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    ends = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return not support.is_discrete and any(isinstance(end, Tensor) for end in ends)


def _word(spec: Spec, given: dict[str, Value], name: str, words: tuple[str, ...]) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if str(value) not in words:
        raise spec.error(f"{name} is one of {', '.join(words)}, got {value}", at=name)
    return str(value)


def _number(spec: Spec, given: dict[str, Value], name: str, default: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise spec.error(f"{name} is a number, got {value}", at=name)
    return float(value)
