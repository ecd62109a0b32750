"""An estimator: a bound (a Pyro ``ELBO``) times a gradient rule (handlers).

Not every pair is sound. Those that are not are refused with the reason; nothing falls back.
"""

import math
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
    TraceMeanField_ELBO,
)
from torch import Tensor, nn

from ...language.schedules import schedule
from ...language.spec import Spec, Value, as_spec, nearest
from .bounds import Bound
from .control_variates import Learned
from .handlers import Baseline, Enumerate, RunningMean, ScoreFunction, StickingTheLanding
from .importance import Weighted
from .relaxed import RELAXED, Concrete, Relaxation, RelaxedTrace_ELBO, RelaxedTraceMeanField_ELBO
from .soundness import RULES, Program, UnsoundError
from .table import ESTIMATORS, Row

__all__ = ["Estimator", "make_estimator"]


RELAXED_ELBO: dict[type[ELBO], type[RelaxedTrace_ELBO]] = {
    Trace_ELBO: RelaxedTrace_ELBO,
    TraceMeanField_ELBO: RelaxedTraceMeanField_ELBO,
}


@dataclass
class Estimator:
    """A bound with its gradient rule, ready for ``SVI(model, estimator.wrap(guide), ...)``.

    Attributes:
        elbo: any Pyro ``ELBO``.
        gradient: ``"pathwise"``, ``"score"``, ``"stl"`` (sticking the landing), the biased
            ``"concrete"``, ``"straight_through"`` and ``"st_gumbel"``, the bound's own
            ``"measure_valued"``, or ``None``: Pyro's rule, pathwise for the sites that have a
            reparameterized sampler and score function for the others.
        baseline: ``"none"``, ``"decaying"`` or ``"neural"``.
        decay: of the decaying baseline.
        spec: the line that says it; ``None`` for an ``ELBO`` object of the user's.
        network: the baseline's network, or what the bound itself learns, once a guide was wrapped.
        rule: of a relaxed gradient; the ``elbo`` applies it to model and guide.
        temperature: of the rule, a number or a schedule over the epochs.
    """

    elbo: ELBO
    gradient: str | None = None
    baseline: str = "none"
    decay: float = 0.9
    spec: Spec | None = None
    network: nn.Module | None = None
    rule: Relaxation | None = None
    temperature: Value = None

    def __str__(self) -> str:
        return str(self.spec) if self.spec else type(self.elbo).__name__

    @property
    def row(self) -> Row | None:
        """What the table says of this bound; ``None`` for a class that it does not know."""
        rows = {row.elbo: row for row in ESTIMATORS.values()}
        return next((rows[c] for c in type(self.elbo).__mro__ if c in rows), None)

    @property
    def bound(self) -> Bound | None:
        """What its value estimates; ``None`` for a class that the table does not know."""
        return self.row.bound(self.elbo) if self.row else None

    @property
    def ascends(self) -> Literal["both", "model", "none"]:
        """Whose gradient is that bound's: of both, or another objective's in guide or in both."""
        return self.row.ascends if self.row else "both"

    @property
    def biased(self) -> bool:
        """Whether the table says that its gradient is biased for its bound."""
        return self.row is not None and self.gradient in self.row.biased

    def annealing(self, epochs: int) -> Callable[[float], object]:
        """What sets the temperature at a time in epochs; it does nothing where there is none."""
        if self.temperature is None or not isinstance(self.rule, Concrete):
            return lambda t: None
        tensor, at = self.rule.temperature, schedule(self.temperature, epochs, "temperature")  # pyright: ignore
        return lambda t: tensor.fill_(at(t))

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
        if isinstance(self.elbo, Learned):
            self.network = self.elbo.renew(guide, x)
            return guide
        return guide if self.network is None else Baseline(self.network)(guide)

    @property
    def needs(self) -> str:
        """What the table says that its guides have to be."""
        return self.row.needs if self.row else "any"

    def scored(self, rigid: list[str]) -> list[str]:
        """Of the sites without a reparameterized sampler, those that it does not relax."""
        return [] if self.rule is not None else rigid

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
        program = Program.run(model, guide, *args)
        self._set_plate_nesting(program.model_trace, program.guide_trace)
        for rule in RULES:
            try:
                rule(self, program)
            except UnsoundError as why:
                raise ValueError(f"{self} cannot serve this guide: {why}") from None

    def _set_plate_nesting(self, *traces: poutine.Trace) -> None:
        """Tell the bound what it would guess, by one more run, and log."""
        if self.elbo.max_plate_nesting != float("inf"):
            return
        sites: list[Any] = [s for t in traces for s in t.nodes.values() if s["type"] == "sample"]
        dims = [f.dim for s in sites for f in s["cond_indep_stack"] if f.vectorized]
        particles = self.elbo.vectorize_particles and self.elbo.num_particles > 1
        self.elbo.max_plate_nesting = -min(dims, default=0) + particles


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
        rule = getattr(value, "rule", None)
        word = next((word for word, made in RELAXED.items() if type(rule) is made), None)
        return Estimator(value, word, rule=rule)
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
    gradient = _word(
        spec, given, "gradient", ("pathwise", "score", "stl", *RELAXED, "measure_valued")
    )
    for rule, why in row.refused:
        if gradient == rule:
            raise spec.error(f"{spec.name} with gradient={rule} is unsound: {why}", at="gradient")
    if gradient is not None and gradient not in row.gradients:
        homes = [
            f"{n}(gradient={gradient})" for n, r in ESTIMATORS.items() if gradient in r.gradients
        ]
        raise spec.error(
            f"{spec.name} has no gradient={gradient}: use {' or '.join(homes[:2])}", at="gradient"
        )
    num_particles = given.get("num_particles", row.num_particles)
    whole = isinstance(num_particles, int) and not isinstance(num_particles, bool)
    if not whole or num_particles < row.least:  # pyright: ignore[reportOperatorIssue]
        raise spec.error(
            f"num_particles is a whole number of at least {row.least}, got {num_particles}"
            + (": each one's baseline is made of the others" if row.gradient == "score" else ""),
            at="num_particles",
        )
    options: dict[str, object] = {}
    if row.elbo is RenyiELBO:
        alpha = _number(spec, given, "alpha", 0.0)
        if alpha == 1:
            raise spec.error("at alpha=1 the Rényi bound is the ELBO: use Trace_ELBO", at="alpha")
        options["alpha"] = alpha
    if issubclass(row.elbo, Weighted | Learned):
        for name in set(row.options) & set(given):
            if name == "baseline":
                options[name] = str(given.pop(name))
            elif name == "partitions":  # a whole number or a list, which TVO checks
                options[name] = given[name]
            else:
                options[name] = _number(spec, given, name, 0.0)
    made, relaxed = row.elbo, None
    if made in RELAXED_ELBO and (relaxed := _relaxation(spec, given, gradient)):
        made, options["rule"] = RELAXED_ELBO[made], relaxed
    particles = {"num_particles": num_particles, "vectorize_particles": num_particles != 1}
    try:
        elbo = made(**particles, **options)  # pyright: ignore
    except (TypeError, ValueError) as problem:
        raise spec.error(str(problem)) from None
    baseline = _word(spec, given, "baseline", ("none", "decaying", "neural")) or "none"
    if baseline != "none" and gradient == "pathwise":
        raise spec.error("a baseline serves score-function gradients: gradient=score", "baseline")
    decay = _number(spec, given, "decay", 0.9)
    if not 0 <= decay < 1:
        raise spec.error(f"decay lies in [0, 1), got {decay:g}", at="decay")
    temperature = given.get("temperature")
    return Estimator(
        elbo, gradient or row.gradient, baseline, decay, spec, None, relaxed, temperature
    )


def _relaxation(spec: Spec, given: dict[str, Value], gradient: str | None) -> Relaxation | None:
    """The rule of a relaxed gradient, at the temperature of the start."""
    made = RELAXED.get(gradient or "")
    if "temperature" not in given:
        return None if made is None else made()
    if made is None or not issubclass(made, Concrete):
        raise spec.error(
            "a temperature serves relaxed draws: gradient=concrete or gradient=st_gumbel",
            at="temperature",
        )
    at = schedule(given["temperature"], 1, "temperature")  # pyright: ignore[reportArgumentType]
    if not min(at(0.0), at(math.inf)) > 0:
        raise spec.error(
            f"the temperature is positive throughout, such as 0.5 or exponential(1, 0.3), got "
            f"{given['temperature']}",
            at="temperature",
        )
    return made(at(0.0))


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
