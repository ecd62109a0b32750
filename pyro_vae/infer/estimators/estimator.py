"""An estimator: a bound (a Pyro ``ELBO``) times a gradient rule (handlers).

Not every pair is sound. Those that are not are refused with the reason; nothing falls back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pyro.infer import ELBO, TraceEnum_ELBO
from torch import Tensor, nn

from ...core.checks import number, share, whole
from ...language.schedules import schedule
from ...language.spec import Spec, SpecError, Value, as_spec, nearest
from ...language.words import OPTIMIZERS
from .bounds import Bound
from .handlers import Baseline, Enumerate, RunningMean, ScoreFunction, StickingTheLanding
from .profile import Profile
from .relaxations import NO_TEMPERATURE, RELAXED, relaxation
from .relaxed import Concrete, Relaxation
from .table import ALIASES, ESTIMATORS, profile_of

__all__ = ["Estimator", "make_estimator"]


@dataclass
class Estimator:
    """A bound with its gradient rule, ready for ``SVI(model, estimator.wrap(guide), ...)``.

    Attributes:
        elbo: any Pyro ``ELBO``.
        gradient: ``"pathwise"``, ``"score"``, ``"stl"`` (sticking the landing), one of the biased
            relaxations such as ``"concrete"``, the bound's own ``"measure_valued"``, or ``None``:
            Pyro's rule, pathwise for the sites that have a reparameterized sampler and score
            function for the others.
        baseline: of the score function.
        decay: of the decaying baseline, in [0, 1); .9 without it.
        temperature: of a relaxed gradient, a number or a schedule over the epochs.
        spec: the line that says it; ``None`` for an ``ELBO`` object of the user's.
        network: the baseline's network, or what the bound itself learns, once a guide was wrapped.
    """

    elbo: ELBO
    gradient: str | None = None
    baseline: Literal["none", "decaying", "neural"] = "none"
    decay: float | None = None
    temperature: float | str | Spec | None = None
    spec: Spec | None = None
    network: nn.Module | None = None

    def __post_init__(self) -> None:
        if self.baseline != "none" and self.gradient == "pathwise":
            raise ValueError("baseline serves score-function gradients: say gradient=score")
        if self.decay is None:
            return
        if self.baseline != "decaying":
            raise ValueError("decay is of baseline=decaying: say that, or leave decay out")
        share("decay", self.decay)

    def __str__(self) -> str:
        return str(self.spec) if self.spec else type(self.elbo).__name__

    @cached_property
    def profile(self) -> Profile | None:
        """What the table says of this bound; ``None`` for a class that it does not know."""
        return profile_of(self.elbo)

    @property
    def rule(self) -> Relaxation | None:
        """The rule of a relaxed gradient, which the ``elbo`` applies to model and guide."""
        return getattr(self.elbo, "rule", None)

    @property
    def bound(self) -> Bound | None:
        """What its value estimates; ``None`` for a class that the table does not know."""
        return self.profile.bound(self.elbo) if self.profile else None

    @property
    def ascends(self) -> Literal["both", "model", "none"]:
        """Whose gradient is that bound's: of both, or another objective's in guide or in both."""
        return self.profile.ascends if self.profile else "both"

    @property
    def biased(self) -> bool:
        """Whether the table says that its gradient is biased for its bound."""
        return self.profile is not None and self.gradient in self.profile.biased

    @property
    def weighted(self) -> bool:
        """Whether a KL weight (beta) leaves it a bound."""
        return self.profile is None or self.profile.weighted

    def annealing(self, epochs: int) -> Callable[[float], object]:
        """What sets the temperature at a time in epochs; it does nothing where there is none."""
        if self.temperature is None or not isinstance(self.rule, Concrete):
            return lambda t: None
        tensor, at = self.rule.temperature, schedule(self.temperature, epochs, "temperature")
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
        if (learner := getattr(self.elbo, "learner", None)) is not None:
            self.network = learner.renew(guide, x)
            return guide
        if self.baseline == "decaying":
            self.network = RunningMean(0.9 if self.decay is None else self.decay).to(x)
        elif self.baseline == "neural":
            width = x[0].numel()
            layers = nn.Linear(width, 100), nn.ReLU(), nn.Linear(100, 1)
            self.network = nn.Sequential(*layers).to(x)
        return guide if self.network is None else Baseline(self.network)(guide)


def make_estimator(value: "str | Spec | ELBO | Estimator") -> Estimator:
    """An estimator from a line such as ``"TraceGraph_ELBO(gradient=score, baseline=neural)"``.

    Args:
        value: a line, or any Pyro ``ELBO`` object, with the gradient rule of its line by default.

    A name of :data:`ALIASES` makes the estimator that it is another name for.

    Raises:
        SpecError: unknown names, or a pair of bound and gradient rule that is unsound.

    >>> make_estimator("RenyiELBO(alpha=0, num_particles=5)").elbo.num_particles
    5
    """
    if isinstance(value, Estimator):
        return value
    if isinstance(value, ELBO):
        rule = getattr(value, "rule", None)
        word = next((w for w, cls in RELAXED.items() if type(rule) is cls), None)
        profile = profile_of(value)
        return Estimator(value, word or (profile.gradient if profile else None))
    if isinstance(value, type) and issubclass(value, ELBO):
        return make_estimator(value.__name__ if value.__name__ in ESTIMATORS else value())
    spec = as_spec(value, "estimator", "TraceGraph_ELBO(gradient=score)")
    if spec.name in ALIASES:
        return make_estimator(Spec(ALIASES[spec.name], *spec.args, **spec.kwargs))
    if spec.name not in ESTIMATORS:
        if spec.name in OPTIMIZERS:
            raise spec.error(f"{spec.name} is an optimizer: optimizer={spec.name!r}")
        meant = nearest(spec.name, ESTIMATORS) or "; pyro_vae.estimators() lists them"
        raise spec.error(f"unknown estimator {spec.name!r}{meant}")
    profile = ESTIMATORS[spec.name]
    if spec.args:
        raise spec.error(f"name the arguments: {spec.name}(num_particles=5)", at=0)
    if "baseline" in spec.kwargs and "baseline" not in profile.options:
        raise spec.error(
            f"{spec.name} has no baselines: use TraceGraph_ELBO(gradient=score, baseline=neural)",
            at="baseline",
        )
    given = spec.bind("gradient", "num_particles", *profile.options)
    gradient = _gradient(spec, profile, given.pop("gradient", None))
    try:
        return _build(spec, profile, gradient, given)
    except SpecError:
        raise
    except ValueError as problem:
        raise spec.error(str(problem), at=str(problem).split()[0]) from None


def _gradient(spec: Spec, profile: Profile, value: Value) -> str | None:
    """The gradient rule, one that the bound has."""
    if value is None:
        return profile.gradient
    words = dict.fromkeys(rule for one in ESTIMATORS.values() for rule in one.gradients)
    gradient = str(value)
    if gradient not in words:
        raise spec.error(f"gradient is one of {', '.join(words)}, got {gradient}", at="gradient")
    if why := dict(profile.refused).get(gradient):
        raise spec.error(f"{spec.name} with gradient={gradient} is unsound: {why}", at="gradient")
    if gradient not in profile.gradients:
        homes = [
            f"{n}(gradient={gradient})" for n, p in ESTIMATORS.items() if gradient in p.gradients
        ]
        raise spec.error(
            f"{spec.name} has no gradient={gradient}: use {' or '.join(homes[:2])}", at="gradient"
        )
    return gradient


def _build(
    spec: Spec, profile: Profile, gradient: str | None, given: Mapping[str, Value]
) -> Estimator:
    """The estimator of checked names; the options' values are checked here."""
    build: Any = profile.build
    k = whole("num_particles", given.get("num_particles", profile.num_particles), profile.least)
    of_guide = {name: given[name] for name in profile.of_guide if name in given}
    options = {n: v for n, v in given.items() if n not in of_guide and n != "num_particles"}
    options = _check(options, build.__init__ if isinstance(build, type) else build)
    if gradient in RELAXED:
        options["rule"] = relaxation(gradient, of_guide.get("temperature"))
    elif "temperature" in of_guide:
        raise ValueError(NO_TEMPERATURE)
    elbo = build(num_particles=k, vectorize_particles=k != 1, **options)
    return Estimator(elbo, gradient, **_check(of_guide, Estimator), spec=spec)


def _check(given: Mapping[str, Value], signature: Callable) -> dict[str, Any]:
    """Options' values, as the annotations of a signature have them."""
    hints = get_type_hints(signature)
    return {name: _check_one(name, value, hints[name]) for name, value in given.items()}


def _check_one(name: str, value: Value, hint: Any) -> object:  # noqa: ANN401
    kinds = get_args(hint) or (hint,)
    if get_origin(hint) is Literal:
        if str(value) not in kinds:
            raise ValueError(f"{name} is one of {', '.join(kinds)}, got {value}")
        return str(value)
    if value is None and NoneType in kinds:
        return None
    if set(kinds) <= {float, NoneType}:
        return number(name, value)
    return whole(name, value) if kinds == (int,) else value  # the rest the class checks itself
