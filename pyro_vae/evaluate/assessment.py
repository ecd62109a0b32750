"""All evaluations of a trained model at once, in figures and in words."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.checks import whole
from ..core.pareto import RELIABLE
from ..core.seeding import seeded
from ..model.entry import of_model
from ..model.vae import VAE
from .bits import bits_per_dimension, has_levels
from .evidence.annealed import bdmc
from .evidence.importance import Evidence, Sandwich, log_evidence
from .guide.calibration import Calibration, calibration
from .guide.gaps import gaps
from .imputation import ImputationCheck, imputation_check
from .latent.labelled import label_scores
from .latent.summary import LatentSummary, latent_summary
from .lower_bound import elbo
from .predictive import PredictiveCheck, predictive_check
from .simple_models import baselines
from .statistics import (
    best_column,
    by_observation,
    chosen_rows,
    deviations,
    mean,
    mean_and_error,
    standard_error,
)

__all__ = ["Assessment", "assess"]

HIDDEN = 100_000  # cells of observations, a fifth of which are hidden and imputed
EACH = 20_000  # cells, of fewer of which all are, a fifth at a time
LATENT_DATA = 2000  # the time of the mutual information grows with their square
REFINED = 100  # observations whose proposals are fitted: each costs thousands of evaluations
FEW = 20  # observations that each have a guide, or chains, of their own
DOUBTFUL = 0.05  # share of data with a k-hat above 0.7, from which on proposals are fitted
ERRORS = 2  # standard errors of a difference that a verdict speaks of
TOTALS = {
    "kl": "KL(q(z|x) || p(z))",
    "mutual_information": "mutual information of x and z",
    "aggregate_kl": "KL(q(z) || p(z))",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Assessment:
    """The figures of :func:`assess`; parts that this model does not have are ``None``.

    Attributes:
        elbo: ``(N,)``.
        evidence: log p(x) by the proposals that are trusted most.
        by_guide: log p(x) by the guide's draws, of all observations.
        refined: the observations ``(n,)`` that ``evidence`` is of; ``None`` of all.
        refused: the reason, by the name of a part.
        bits_per_nat: what a nat of an observation makes in bits per dimension, where x are levels,
            as those of 8-bit images.
        weights: of the observations, ``(N,)``, by which ``table`` and the verdict on baselines
            count them; ``None`` where the model was told of none.
    """

    elbo: Tensor
    evidence: Evidence
    by_guide: Evidence
    refined: Tensor | None
    latents: LatentSummary | None
    gaps: pd.DataFrame | None
    calibration: Calibration | None
    sandwich: Sandwich | None
    labels: pd.DataFrame | None
    baselines: pd.DataFrame | None
    predictive: PredictiveCheck | None
    imputation: ImputationCheck | None
    refused: dict[str, str]
    bits_per_nat: float | None = None
    weights: Tensor | None = None

    @property
    def by_observation(self) -> pd.DataFrame:
        """Nats: ``elbo``, ``log_evidence``, ``standard_error``, ``khat``, by observation.

        Where some are by fitted proposals and the others by the guide's, ``proposal`` says which.
        """
        evidence = self.evidence if self.refined is None else self.by_guide
        columns = {
            "elbo": self.elbo,
            "log_evidence": evidence.log_evidence,
            "standard_error": evidence.standard_error,
            "khat": evidence.khat,
        }
        table = by_observation({name: values.double() for name, values in columns.items()})
        if self.refined is not None:
            rows, found = self.refined.cpu().numpy(), self.evidence
            for name in ("log_evidence", "standard_error", "khat"):
                table.loc[rows, name] = getattr(found, name).double().cpu().numpy()
            table["proposal"] = "guide"
            table.loc[rows, "proposal"] = list(found.proposals)
        return table

    @property
    def table(self) -> pd.DataFrame:
        """Figures, nats per observation: ``value``, and ``standard_error`` over the data.

        Of levels, such as 8-bit images, bounds on log p(x) are in ``bits_per_dimension`` too.
        """
        elbo = self.elbo.double()
        rows: dict[str, tuple[Any, Any]] = {
            "ELBO": mean_and_error(elbo, self.weights),
            "log p(x)": self._less(torch.zeros_like(elbo)),
            "log p(x) - ELBO": self._less(elbo),
        }
        if self.baselines is not None:
            for name, scores in self.baselines.items():
                values = torch.tensor(scores.to_numpy())
                rows[f"log p(x), {name}"] = mean_and_error(values, self.weights)
        bits = {k: rows[k][0] * (self.bits_per_nat or 0.0) for k in rows if " - " not in k}
        if self.latents is not None:
            totals = self.latents.totals
            for name, label in TOTALS.items():
                rows[label] = (totals["value"][name], totals["standard_error"][name])
        table = pd.DataFrame(rows, index=["value", "standard_error"]).T
        return (
            table if self.bits_per_nat is None else table.assign(bits_per_dimension=pd.Series(bits))
        )

    @property
    def verdicts(self) -> dict[str, str]:
        """A sentence or two about each part."""
        evidence = self.evidence.summary()
        if self.refined is not None:
            evidence = f"{self._of_refined()} Of these: {evidence}"
        texts: dict[str, Any] = {
            "Evidence": evidence,
            "Baselines": None if self.baselines is None else self._against_baseline(self.baselines),
            "Data and draws": self.predictive and self.predictive.verdict,
            "Imputation": self.imputation and self.imputation.verdict,
            "Annealing": self.sandwich and self.sandwich.summary(),
            "Latent space": self.latents and self.latents.verdict,
            "Guide": None if self.gaps is None else _largest_gap(self.gaps),
            "Calibration": self.calibration and self.calibration.verdict,
            "Labels": None if self.labels is None else _accuracy(self.labels),
        }
        refused = {name: f"Not for this model: {why}." for name, why in self.refused.items()}
        return {name: text for name, text in texts.items() if text} | refused

    def _less(self, other: Tensor) -> tuple[float, float]:
        """The mean of log p(x) minus other figures ``(N,)``, and its standard error.

        Of what is known of a part of the observations the mean over all is the guide's figure of
        all, moved by the mean difference on that part (double sampling).
        """
        rows, by_guide = self.refined, self.by_guide.log_evidence.double()
        found = self.evidence.log_evidence.double()
        if rows is None:
            return mean_and_error(found - other, self.weights)
        n, gain = len(by_guide), found - by_guide[rows]
        some = None if self.weights is None else self.weights[rows]
        value = mean(by_guide - other, self.weights) + mean(gain, some)
        spread = deviations(found - other[rows], some).var() / n
        spread = spread + deviations(gain, some).var() * (1 / len(rows) - 1 / n)
        return value.item(), spread.sqrt().item()

    def _against_baseline(self, scores: pd.DataFrame) -> str:
        best = best_column(scores, self.weights)
        value, error = self._less(torch.tensor(scores[best].to_numpy()).to(self.elbo.device))
        text = (
            f"log p(x) is {abs(value):.2f} nats {'above' if value > 0 else 'below'} the best "
            f"baseline, {best} (standard error {error:.2g}), which is fitted to halves of these "
            "data."
        )
        if value > ERRORS * error:
            return text
        return f"{text} Nothing shows that the model describes x better than it."

    def _of_refined(self) -> str:
        value, error = self._less(torch.zeros_like(self.elbo))
        n, doubtful = len(self.elbo), (self.by_guide.khat > RELIABLE).double().mean().item()
        gain = self.evidence.log_evidence - self.by_guide.log_evidence[self.refined]
        some = None if self.weights is None else self.weights[self.refined]
        more, spread = mean_and_error(gain, some)
        return (
            f"log p(x) = {value:.2f} nats per observation (standard error over {n} observations "
            f"{error:.2g}). Under the guide {doubtful:.0%} of them have k-hat > {RELIABLE}; fitted "
            f"proposals, on {len(gain)} of them chosen at random, give {more:+.2g} nats more "
            f"(standard error {spread:.2g}), and the guide's figure of all is moved by that."
        )


@of_model
def assess(
    vae: VAE,
    x: Tensor | ArrayLike,
    labels: ArrayLike | None = None,
    *,
    num_samples: int = 1000,
    steps: int = 200,
    seed: int = 0,
) -> Assessment:
    """Evaluate a trained model on held-out data, with checks of the figures.

    Where more than a twentieth of the data have a k-hat above 0.7 under the guide, log p(x) is by
    the proposals of ``log_evidence(..., proposal="auto")``; of more than 100 observations these
    are fitted to 100 of them at random, and the guide's figure of all is moved by the difference.

    The ELBO, log p(x), baselines and the comparison with the model's draws are of all of x; gaps
    are of 20 of its observations at random, the latent summary of 2,000, and where cells may be
    missing the check of imputations of 100,000 cells; 1,000 observations are simulated for the
    calibration and 20 for annealing.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``, data that it was not trained on.
        labels: ``(N,)``, where there are any.
        num_samples: draws of z per observation, for log p(x).
        steps: of the ascent to each observation's own guide, and temperatures of annealing.
        seed: of all draws.

    Returns:
        :class:`Assessment`: ``table`` of figures, ``verdicts`` in words, ``by_observation``, and
        the parts. A part that does not exist for this model (gaps of a discrete z) is left out, and
        ``refused`` gives the reason.

    Raises:
        ValueError: data that the model refuses.

    References:
        Cochran (1977), Sampling Techniques, chapter 12, for double sampling.

    >>> vae = VAE(2, latent_dim=3, prior="Bernoulli", guide="Bernoulli", likelihood="Normal")
    >>> assessment = assess(vae, [[0.0, 1.0]] * 20, num_samples=30)
    >>> list(assessment.verdicts)
    ['Evidence', 'Baselines', 'Data and draws', 'Latent space', 'Calibration', 'Guide', 'Annealing']
    >>> assessment.refused["Guide"][:18]
    'z is discrete here'
    """
    num_samples, steps = whole("num_samples", num_samples, 2), whole("steps", steps, 2)
    seed = whole("seed", seed, 0)
    x = vae.check(x)
    refused: dict[str, str] = {}

    def attempt(name: str, part: Callable[[], T]) -> T | None:
        try:
            return part()
        except ValueError as problem:
            refused[name] = str(problem)
            return None

    with seeded(seed):
        few, many = (x[chosen_rows(x, n)] for n in (FEW, LATENT_DATA))
    by_guide, evidence, rows = _evidence(vae, x, num_samples, seed)
    return Assessment(
        elbo=elbo(vae, x, seed=seed),
        evidence=evidence,
        by_guide=by_guide,
        refined=rows,
        latents=attempt("Latent space", lambda: latent_summary(vae, many, seed=seed)),
        gaps=attempt("Guide", lambda: gaps(vae, few, steps=steps, seed=seed)),
        calibration=attempt("Calibration", lambda: calibration(vae, given=x, seed=seed)),
        sandwich=attempt(
            "Annealing",
            lambda: bdmc(vae, FEW, given=few, temperatures=steps, chains=8, seed=seed),
        ),
        labels=None if labels is None else attempt("Labels", lambda: label_scores(vae, x, labels)),
        baselines=attempt("Baselines", lambda: baselines(vae, x)),
        predictive=attempt("Data and draws", lambda: predictive_check(vae, x, seed=seed)),
        imputation=attempt("Imputation", lambda: _imputation(vae, x, seed))
        if vae.record.missing
        else None,
        refused=refused,
        bits_per_nat=float(bits_per_dimension(vae, 1.0)) if has_levels(vae) else None,
        weights=vae.weights_of(x),
    )


def _evidence(
    vae: VAE, x: Tensor, num_samples: int, seed: int
) -> tuple[Evidence, Evidence, Tensor | None]:
    """log p(x) by the guide's draws, by those to be trusted most, and the rows these are of."""
    if vae.points:
        found = log_evidence(vae, x, num_samples=num_samples, proposal="auto", seed=seed)
        return found, found, None
    found = log_evidence(vae, x, num_samples=num_samples, seed=seed)
    if (found.khat > RELIABLE).double().mean() <= DOUBTFUL:
        return found, found, None
    rows = None
    if len(x) > REFINED:
        with seeded(seed):
            rows = chosen_rows(x, REFINED)
    some = x if rows is None else x[rows]
    fitted = log_evidence(vae, some, num_samples=num_samples, proposal="auto", seed=seed)
    if set(fitted.proposals) == {"guide"}:
        return found, found, None
    return found, fitted, rows


def _imputation(vae: VAE, x: Tensor, seed: int) -> ImputationCheck:
    width = math.prod(vae.x_shape)
    repeats = 5 if len(x) * width <= EACH else 1
    with seeded(seed):
        some = x[chosen_rows(x, max(FEW, HIDDEN // width))]
    return imputation_check(vae, some, repeats=repeats, seed=seed)


def _largest_gap(table: pd.DataFrame) -> str:
    n, values = len(table), torch.tensor(table[["approximation", "amortization"]].to_numpy())
    lost = float((table["log_evidence"] - table["elbo"]).to_numpy().mean())
    family, encoder = values.mean(0).tolist()
    errors = standard_error(values).tolist()
    text = (
        f"On {n} observations the ELBO is {lost:.2f} nats below log p(x): the guide's family costs "
        f"{family:.2f} (standard error {errors[0]:.2g}), the encoder {encoder:.2f} "
        f"({errors[1]:.2g})."
    )
    if not abs(family - encoder) > ERRORS * math.hypot(*errors):
        return text
    advice = "A richer guide" if family > encoder else "A better encoder, or vae.refine(x),"
    return f"{text} {advice} would gain most."


def _accuracy(scores: pd.DataFrame) -> str:
    row = scores.loc["linear_accuracy"]
    return (
        f"A linear classifier of the guide's means names the label of {row['value']:.1%} of the "
        f"data (standard error {row['standard_error']:.1%}; the largest class {row['chance']:.1%})."
    )
