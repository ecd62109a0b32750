"""All evaluations of a trained model at once, in figures and in words."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.checks import whole
from ..core.pareto import RELIABLE
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
from .statistics import by_observation, standard_error

__all__ = ["Assessment", "assess"]

HIDDEN = 100_000  # cells of observations, a fifth of which are hidden and imputed
EACH = 20_000  # cells, of fewer of which all are, a fifth at a time
LATENT_DATA = 2000  # the time of the mutual information grows with their square
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

    ``refused`` gives the reason, by the name of the part. ``bits_per_nat`` is what a nat of an
    observation makes in bits per dimension, where x are levels, as those of 8-bit images.
    """

    elbo: Tensor
    evidence: Evidence
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

    @property
    def by_observation(self) -> pd.DataFrame:
        """Nats: ``elbo``, ``log_evidence``, ``standard_error``, ``khat``, by observation."""
        evidence = self.evidence
        columns = {
            "elbo": self.elbo,
            "log_evidence": evidence.log_evidence,
            "standard_error": evidence.standard_error,
            "khat": evidence.khat,
        }
        return by_observation({name: values.double() for name, values in columns.items()})

    @property
    def table(self) -> pd.DataFrame:
        """Figures, nats per observation: ``value``, and ``standard_error`` over the data.

        Of levels, such as 8-bit images, bounds on log p(x) are in ``bits_per_dimension`` too.
        """
        table = self.by_observation
        columns = {
            "ELBO": table["elbo"],
            "log p(x)": table["log_evidence"],
            "log p(x) - ELBO": table["log_evidence"] - table["elbo"],
        }
        if self.baselines is not None:
            columns |= {f"log p(x), {name}": v for name, v in self.baselines.items()}
        rows = {k: (v.mean(), v.sem()) for k, v in columns.items()}
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
        texts = {"Evidence": self.evidence.summary()}
        if self.baselines is not None:
            log_p = self.evidence.log_evidence.cpu().double()
            texts["Baselines"] = _against_baselines(log_p, self.baselines)
        if self.predictive is not None:
            texts["Data and draws"] = self.predictive.verdict
        if self.imputation is not None:
            texts["Imputation"] = self.imputation.verdict
        if self.sandwich is not None:
            texts["Annealing"] = self.sandwich.summary()
        if self.latents is not None:
            texts["Latent space"] = self.latents.verdict
        if self.gaps is not None:
            texts["Guide"] = _largest_gap(self.gaps)
        if self.calibration is not None:
            texts["Calibration"] = self.calibration.verdict
        if self.labels is not None:
            texts["Labels"] = _accuracy(self.labels)
        return texts | {name: f"Not for this model: {why}." for name, why in self.refused.items()}


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
    the proposals of ``log_evidence(..., proposal="auto")``.

    The ELBO, log p(x), baselines and the comparison with the model's draws are of all of x; gaps
    are of its first 20 observations, the latent summary of its first 2,000, and where cells may be
    missing the check of imputations of its first 100,000 cells; 1,000 observations are simulated
    for the calibration and 20 for annealing.

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

    return Assessment(
        elbo=elbo(vae, x, seed=seed),
        evidence=_trusted_evidence(vae, x, num_samples, seed),
        latents=attempt("Latent space", lambda: latent_summary(vae, x[:LATENT_DATA], seed=seed)),
        gaps=attempt("Guide", lambda: gaps(vae, x[:FEW], steps=steps, seed=seed)),
        calibration=attempt("Calibration", lambda: calibration(vae, given=x, seed=seed)),
        sandwich=attempt(
            "Annealing",
            lambda: bdmc(vae, FEW, given=x, temperatures=steps, chains=8, seed=seed),
        ),
        labels=None if labels is None else attempt("Labels", lambda: label_scores(vae, x, labels)),
        baselines=attempt("Baselines", lambda: baselines(vae, x)),
        predictive=attempt("Data and draws", lambda: predictive_check(vae, x, seed=seed)),
        imputation=attempt("Imputation", lambda: _imputation(vae, x, seed))
        if vae.record.missing
        else None,
        refused=refused,
        bits_per_nat=float(bits_per_dimension(vae, 1.0)) if has_levels(vae) else None,
    )


def _trusted_evidence(vae: VAE, x: Tensor, num_samples: int, seed: int) -> Evidence:
    """log p(x) by the guide's draws; by fitted ones too, where these are to be trusted more."""
    found = log_evidence(vae, x, num_samples=num_samples, seed=seed)
    if (found.khat > RELIABLE).double().mean() <= DOUBTFUL:
        return found
    fitted = log_evidence(vae, x, num_samples=num_samples, proposal="auto", seed=seed)
    return found if set(fitted.proposals) == {"guide"} else fitted


def _imputation(vae: VAE, x: Tensor, seed: int) -> ImputationCheck:
    width = math.prod(vae.x_shape)
    repeats = 5 if len(x) * width <= EACH else 1
    return imputation_check(vae, x[: max(FEW, HIDDEN // width)], repeats=repeats, seed=seed)


def _largest_gap(table: pd.DataFrame) -> str:
    n, values = len(table), torch.tensor(table[["approximation", "amortization"]].to_numpy())
    lost = float((table["log_evidence"] - table["elbo"]).to_numpy().mean())
    family, encoder = values.mean(0).tolist()
    errors = standard_error(values).tolist() if n > 1 else [math.nan] * 2
    text = (
        f"On {n} observations the ELBO is {lost:.2f} nats below log p(x): the guide's family costs "
        f"{family:.2f} (standard error {errors[0]:.2g}), the encoder {encoder:.2f} "
        f"({errors[1]:.2g})."
    )
    if not abs(family - encoder) > ERRORS * math.hypot(*errors):
        return text
    advice = "A richer guide" if family > encoder else "A better encoder, or vae.refine(x),"
    return f"{text} {advice} would gain most."


def _against_baselines(log_p: Tensor, scores: pd.DataFrame) -> str:
    best = str(scores.mean().idxmax())
    difference = log_p - torch.tensor(scores[best].to_numpy())
    mean, error = difference.mean().item(), standard_error(difference).item()
    text = (
        f"log p(x) is {abs(mean):.2f} nats {'above' if mean > 0 else 'below'} the best baseline, "
        f"{best} (standard error {error:.2g}), which is fitted to halves of these data."
    )
    if mean > ERRORS * error:
        return text
    return f"{text} Nothing shows that the model describes x better than it."


def _accuracy(scores: pd.DataFrame) -> str:
    row = scores.loc["linear_accuracy"]
    return (
        f"A linear classifier of the guide's means names the label of {row['value']:.1%} of the "
        f"data (standard error {row['standard_error']:.1%}; the largest class {row['chance']:.1%})."
    )
