"""All that is asked of a trained model at once, in figures and in words."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from ..model.vae import VAE
from .evidence.annealed import Sandwich, bdmc
from .evidence.importance import Evidence, log_evidence
from .guide.calibration import Calibration, calibration
from .guide.gaps import gaps
from .latent.labelled import label_scores
from .latent.summary import LatentSummary, latent_summary
from .lower_bound import elbo

__all__ = ["Assessment", "assess"]

LATENT_DATA = 2000  # the time of the mutual information grows with their square
FEW = 20  # data of which each has a guide, or chains, of its own
T = TypeVar("T")


@dataclass(frozen=True)
class Assessment:
    """What :func:`assess` found; parts that this model does not have are ``None``.

    ``refused`` says why: by the name of the part, the reason.
    """

    elbo: Tensor
    evidence: Evidence
    latents: LatentSummary | None
    gaps: pd.DataFrame | None
    calibration: Calibration | None
    sandwich: Sandwich | None
    labels: pd.DataFrame | None
    refused: dict[str, str]

    @property
    def by_datum(self) -> pd.DataFrame:
        """A row for each datum, nats: ``elbo``, ``log_evidence``, ``standard_error``, ``khat``."""
        found = self.evidence
        parts = {"elbo": self.elbo, "log_evidence": found.log_evidence,
                 "standard_error": found.standard_error, "khat": found.khat}  # fmt: skip
        index = pd.RangeIndex(len(self.elbo), name="datum")
        return pd.DataFrame({k: v.cpu().double().numpy() for k, v in parts.items()}, index=index)

    @property
    def table(self) -> pd.DataFrame:
        """Figures, nats per datum: ``value``, and ``standard_error`` over the data."""
        table = self.by_datum
        columns = {
            "ELBO": table["elbo"],
            "log p(x)": table["log_evidence"],
            "log p(x) - ELBO": table["log_evidence"] - table["elbo"],
        }
        rows = {k: (v.mean(), v.sem()) for k, v in columns.items()}
        if self.latents is not None:
            totals = self.latents.totals
            for name, label in (("kl", "KL(q(z|x) || p(z))"),
                                ("mutual_information", "mutual information of x and z"),
                                ("aggregate_kl", "KL(q(z) || p(z))")):  # fmt: skip
                rows[label] = (totals["value"][name], totals["standard_error"][name])
        return pd.DataFrame(rows, index=["value", "standard_error"]).T

    @property
    def verdicts(self) -> dict[str, str]:
        """By what is judged, a sentence or two."""
        told = {"Evidence": self.evidence.summary()}
        if self.sandwich is not None:
            told["Annealing"] = self.sandwich.summary()
        if self.latents is not None:
            told["Latent space"] = self.latents.verdict
        if self.gaps is not None:
            told["Guide"] = _where_it_loses(self.gaps)
        if self.calibration is not None:
            told["Calibration"] = self.calibration.verdict
        if self.labels is not None:
            told["Labels"] = _told_apart(self.labels)
        return told | {name: f"Not for this model: {why}." for name, why in self.refused.items()}


def assess(
    vae: VAE,
    x: Tensor | ArrayLike,
    labels: ArrayLike | None = None,
    *,
    num_samples: int = 1000,
    steps: int = 200,
    seed: int = 0,
) -> Assessment:
    """What a trained model is worth, on held-out data, and whether to believe the figures.

    The ELBO and log p(x) are of all of x; gaps are of its first 20 data, the latent summary of its
    first 2,000; 1,000 data are simulated for the calibration and 20 for annealing.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``, data that it was not trained on.
        labels: ``(N,)``, where there are any.
        num_samples: draws of z per datum, for log p(x).
        steps: of the ascent to each datum's own guide, and temperatures of annealing.
        seed: of all draws.

    Returns:
        :class:`Assessment`: ``table`` of figures, ``verdicts`` in words, ``by_datum``, and the
        parts. A part that asks for what this model does not have (gaps of a discrete z) is left
        out, and ``refused`` says why.

    Raises:
        ValueError: data that are not the model's.

    >>> vae = VAE(2, latent_dim=3, prior="Bernoulli", guide="Bernoulli", likelihood="Normal")
    >>> found = assess(vae, [[0.0, 1.0]] * 20, num_samples=30)
    >>> list(found.verdicts)
    ['Evidence', 'Latent space', 'Calibration', 'Guide', 'Annealing']
    >>> found.refused["Guide"][:18]
    'z is discrete here'
    """
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
        evidence=log_evidence(vae, x, num_samples=num_samples, seed=seed),
        latents=attempt("Latent space", lambda: latent_summary(vae, x[:LATENT_DATA], seed=seed)),
        gaps=attempt("Guide", lambda: gaps(vae, x[:FEW], steps=steps, seed=seed)),
        calibration=attempt("Calibration", lambda: calibration(vae, seed=seed)),
        sandwich=attempt(
            "Annealing", lambda: bdmc(vae, FEW, temperatures=steps, chains=8, seed=seed)
        ),
        labels=None if labels is None else attempt("Labels", lambda: label_scores(vae, x, labels)),
        refused=refused,
    )


def _where_it_loses(table: pd.DataFrame) -> str:
    values: dict[str, np.ndarray] = {str(k): v.to_numpy() for k, v in table.items()}
    n, lost = len(table), values["log_evidence"] - values["elbo"]
    parts = [values["approximation"], values["amortization"]]
    family, encoder = (part.mean() for part in parts)
    errors = [part.std(ddof=1) / math.sqrt(n) for part in parts] if n > 1 else [math.nan] * 2
    text = (
        f"On {n} data the ELBO is {lost.mean():.2f} nats below log p(x): the guide's family costs "
        f"{family:.2f} (standard error {errors[0]:.2g}), the encoder {encoder:.2f} "
        f"({errors[1]:.2g})."
    )
    if not abs(family - encoder) > 2 * math.hypot(*errors):
        return text
    advice = "a richer guide" if family > encoder else "a better encoder, or vae.refine(x),"
    return f"{text} {advice.capitalize()} would win most."


def _told_apart(scores: pd.DataFrame) -> str:
    row = scores.loc["linear_accuracy"]
    return (
        f"A linear probe of the guide's means names the label of {row['value']:.1%} of the data "
        f"(standard error {row['standard_error']:.1%}; the largest class {row['chance']:.1%})."
    )
