"""Which gradient estimator trains a model fastest: short races from the same weights."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
import pyro
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.acting import differentiates
from ...core.checks import fraction, positive, whole
from ...core.seeding import seeded
from ...infer.estimators.estimator import Estimator
from ...infer.estimators.soundness import check
from ...infer.sites import latent
from ...infer.training.callbacks import Callback
from ...infer.training.fit import fit
from ...infer.training.step import NonFiniteLossError
from ...model.entry import of_face
from ...model.face import Face
from ...model.joint import reading
from ..evidence.importance import log_evidence
from ..lower_bound import elbo
from ..statistics import mean, standard_error
from .comparison import make_estimators, unique
from .references import EstimatorLike

__all__ = ["Recommendation", "recommend_estimator"]

T = TypeVar("T")

# By whether z has a path, and whether the bound is that of K > 1 draws.
SHORTLIST = {
    (True, False): ("TraceMeanField_ELBO", "Trace_ELBO", "Trace_ELBO(gradient=stl)"),
    (True, True): ("RenyiELBO(alpha=0, {k})", "DReG({k})", "GDReG({k})"),
    (False, False): (
        "TraceEnum_ELBO",
        "DisARM",
        "RLOO(num_particles=2)",
        "RLOO(num_particles=4)",
        "DoubleCV(num_particles=4)",
        "ARMS(num_particles=4)",
        "CARMS(num_particles=4)",
        "RODEO(num_particles=4)",
        "MuProp",
        "RELAX",
        "MeasureValued",
        "Trace_ELBO(gradient=st_gumbel, temperature=0.5)",
        "Trace_ELBO(gradient=reinmax)",
    ),
    (False, True): ("VIMCO({k})", "OVIS({k})", "DisARMIWAE({k})", "RWS({k})"),
}
TIMED, SKIPPED, ROUNDS = 8, 3, 3  # steps that are timed, those before them, and how often
FIRST, FINALISTS = 0.4, 3  # share of the time of the first heat, and how many race in the second
HELD_OUT, DRAWS = 1000, 20  # observations of which the bound is, and draws of z for each


@dataclass(frozen=True)
class Recommendation:
    """The answer of :func:`recommend_estimator`.

    Attributes:
        estimator: the line that won.
        table: a row an estimator, the best first: ``bound``, held-out nats per observation after
            the last heat that it ran in, ``gain`` over the start, ``difference`` to the winner of
            that heat with ``difference_error`` (paired by observation), ``steps``, ``ms_per_step``,
            ``heat`` (2 is the final), ``biased``.
        refused: by its line, why an estimator of the shortlist does not serve this model.
        seconds: of training, for each finalist.
    """

    estimator: str
    table: pd.DataFrame
    refused: dict[str, str]
    seconds: float

    @property
    def why(self) -> str:
        """The reason in words."""
        first = self.table.iloc[0]
        text = (
            f"{self.estimator}: after {self.seconds:.2g} s of training from the same weights "
            f"({first.steps:.0f} steps of {first.ms_per_step:.2g} ms) it has gained "
            f"{first.gain:.2f} nats per observation"
        )
        if len(self.table) == 1:
            return f"{text}; no other of the shortlist serves this model."
        second = self.table.iloc[1]
        gap, error = -second.difference, second.difference_error
        known = f" (standard error {error:.2g})" if math.isfinite(error) else ""
        text += f", {gap:.2g} more than {self.table.index[1]}{known}"
        if gap < 2 * error:
            text += ": as far as these races tell, either will do"
        if first.biased:
            text += ". Its gradient is biased: watch the ELBO of a long run"
        return text + "."

    def __repr__(self) -> str:
        return f"{self.why}\n{self.table.to_string(float_format='{:.3g}'.format)}"


@of_face
@differentiates
def recommend_estimator(
    vae: Face,
    x: Tensor | ArrayLike,
    estimators: Sequence[EstimatorLike] | None = None,
    *,
    num_particles: int = 1,
    seconds: float = 60.0,
    batch_size: int = 100,
    lr: float = 1e-3,
    validation: float = 0.1,
    seed: int = 0,
) -> Recommendation:
    r"""Recommend a gradient estimator: the one whose bound is highest at equal seconds.

    Copies of the model train from its weights, one by each estimator of a shortlist that suits its
    latent variables, and the bound of held-out data is compared. Every estimator is timed first, in
    turns, so that what else the machine does falls on all of them; then each takes as many steps as
    its seconds pay for. The first heat is of all, the second, from the start again, of the best
    three. It answers for the weights at hand: early in training, where a biased gradient or one of
    high variance costs little, another may win than at the end.

    Args:
        vae: a model, new or trained, or a :class:`Program`, which carries its x; it stays as it is.
        x: ``(N, *x_shape)``. Where latent variables are shared by all observations, or there is one
            evidence, nothing can be held out: the bound is that of the data of the training.
        estimators: lines to race, in place of the shortlist.
        num_particles: K. Above 1 the bound is the importance-weighted one of K draws.
        seconds: of training, of all races together, about.
        batch_size: observations per step.
        lr: of Adam.
        validation: the fraction of x that is held out, at most 1,000 observations of it.
        seed: of the held-out data, and of each training.

    Returns:
        :class:`Recommendation`, which prints as its reason and its ``table``; ``estimator`` is the
        line.

    Raises:
        ValueError: no estimator serves the model, with the reason of each.

    References:
        Jamieson & Talwalkar (2016), arXiv:1502.07943, for successive halving.

    >>> from pyro_vae import VAE
    >>> vae = VAE(4, latent_dim=2, likelihood="Normal", encoder="MLP([3])", seed=0)
    >>> found = recommend_estimator(vae, torch.randn(60, 4), seconds=0.1, batch_size=10)
    >>> found.estimator in found.table.index, len(found.table), found.refused
    (True, 3, {})
    """
    k, seconds = whole("num_particles", num_particles), positive("seconds", seconds)
    batch_size, lr = whole("batch_size", batch_size), positive("lr", lr)
    validation, seed = fraction("validation", validation), whole("seed", seed, 0)
    x = vae.check(x)
    if vae.separate:
        held_out = round(validation * len(x))
        if held_out < 2 or len(x) - held_out < 2:
            raise ValueError(f"{len(x)} observations are too few to hold some out: give more")
        with seeded(seed):
            x = x[torch.randperm(len(x)).to(x.device)]
        test, train = x[:held_out][:HELD_OUT], x[held_out:]
    else:
        test = train = x
    lines, refused = _suitable(vae, train[:batch_size], estimators, k, seed)
    race = Race(vae, train, test, k, batch_size, lr, seed)
    entrants = dict(zip(unique([*lines]), lines, strict=True))
    ms = race.time(entrants)
    each = FIRST * seconds / len(entrants)
    table = race.run(entrants, ms, each).assign(heat=1)
    if len(entrants) > 1:
        best = {name: entrants[name] for name in table.index[:FINALISTS]}
        each = (1 - FIRST) * seconds / len(best)
        final = race.run(best, ms, each).assign(heat=2)
        table = pd.concat([final, table.drop(index=[*best])])
    return Recommendation(str(table.index[0]), table, refused, each)


def _suitable(
    vae: Face,
    batch: Tensor,
    estimators: Sequence[EstimatorLike] | None,
    k: int,
    seed: int,
) -> tuple[list[Estimator], dict[str, str]]:
    """Those that can serve the model, and why the others cannot.

    Raises:
        ValueError: none can.
    """
    if estimators is None:
        with torch.no_grad(), reading(vae, seed), pyro.poutine.block():
            trace: Any = pyro.poutine.trace(vae.guide).get_trace(batch)
        path = all(site["fn"].has_rsample for site in trace.nodes.values() if latent(site))
        lines = [line.format(k=f"num_particles={k}") for line in SHORTLIST[path, k > 1]]
        if path and vae.layout is not None and vae.layout.marginal:
            lines = ["TraceEnum_ELBO"]
    else:
        lines = estimators
    fit_for, refused = [], {}
    with seeded(seed), pyro.get_param_store().scope(), vae.copied() as trial:
        trial.start_from(batch)
        for estimator in make_estimators(lines):
            try:
                check(estimator, trial.model, trial.guide, batch)
                fit_for.append(estimator)
            except ValueError as why:
                refused[str(estimator)] = str(why)
    if not fit_for:
        raise ValueError("no estimator serves this model:\n" + "\n".join(refused.values()))
    return fit_for, refused


class Pace(Callback):
    """Stop after so many steps, and keep what each took, in seconds."""

    def __init__(self, steps: int) -> None:
        self.steps, self.marks = steps, [0.0]

    def after_step(self, loss: float, n: int) -> None:
        """Count the step."""
        self.marks.append(self.run.seconds)
        self.run.stopped |= len(self.marks) > self.steps

    @property
    def each(self) -> float:
        """The least of the later ones: what else the machine does can only add to it."""
        marks = torch.tensor(self.marks[min(SKIPPED, len(self.marks) - 2) :])
        return marks.diff().min().item()


@dataclass(frozen=True)
class Race:
    """Copies of one model that train by different estimators, from the same start."""

    vae: Face
    x: Tensor
    held_out: Tensor
    k: int
    batch_size: int
    lr: float
    seed: int

    def train(self, estimator: Estimator, steps: int, then: Callable[[Face], T]) -> tuple[T, Pace]:
        """What is asked of a copy after so many steps, and their pace.

        Raises:
            KeyboardInterrupt: Ctrl-C, which ends all races.
        """
        pace = Pace(steps)
        options: Any = {"batch_size": self.batch_size, "lr": self.lr, "seed": self.seed}
        options["epochs"] = math.ceil(steps / math.ceil(len(self.x) / self.batch_size))
        options |= {"compile": False, "progress": False, "callbacks": [pace]}
        with self.vae.copied() as copy:
            model: Any = copy
            if fit(model, self.x, estimator=str(estimator), **options).interrupted:
                raise KeyboardInterrupt
            return then(copy), pace

    def time(self, estimators: dict[str, Estimator]) -> dict[str, float]:
        """Milliseconds per step, the least of some rounds in turns; infinite where none is done."""
        found = dict.fromkeys(estimators, math.inf)
        for _ in range(ROUNDS):
            for name, estimator in estimators.items():
                with suppress(NonFiniteLossError):  # which then loses
                    _, pace = self.train(estimator, SKIPPED + TIMED, lambda copy: None)
                    found[name] = min(found[name], 1e3 * pace.each)
        return found

    def bound(self, vae: Face) -> Tensor:
        """Of held-out observations, with the same noise for all."""
        if self.k == 1:
            return elbo(vae, self.held_out, num_samples=DRAWS, seed=self.seed).double()
        found = log_evidence(
            vae, self.held_out, num_samples=self.k, num_simulated=0, seed=self.seed
        )
        return found.log_evidence.double()

    def run(
        self, estimators: dict[str, Estimator], ms: dict[str, float], seconds: float
    ) -> pd.DataFrame:
        """A heat, in which each trains for so many seconds; the best first."""
        bounds, steps = {}, {}
        with self.vae.copied() as copy:  # as training finds it, with inputs that the data have set
            copy.start_from(self.x)
            start = self.bound(copy)
        for name, estimator in estimators.items():
            steps[name] = max(1, round(1e3 * seconds / ms[name]))
            try:
                bounds[name], _ = self.train(estimator, steps[name], self.bound)
            except NonFiniteLossError:
                bounds[name] = torch.full_like(start, -math.inf)
        weights = self.vae.weights_of(self.held_out)
        best = max(bounds, key=lambda name: mean(bounds[name], weights).item())
        rows = {
            name: {
                "bound": mean(bound, weights).item(),
                "gain": mean(bound - start, weights).item(),
                "difference": mean(bound - bounds[best], weights).item(),
                "difference_error": standard_error(bound - bounds[best], weights).item(),
                "steps": steps[name],
                "ms_per_step": ms[name],
                "biased": estimators[name].biased,
            }
            for name, bound in bounds.items()
        }
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("estimator")
        return table.sort_values("bound", ascending=False)
