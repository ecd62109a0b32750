"""A run in one HTML file: figures with their errors, and pictures, each with how to read it.

The file needs no network and no other file. Pictures are drawn in the colour of the text, so that
they are legible on a light and on a dark page. Its frame, the style of text and pictures, and the
captions are the files ``report.*`` beside this module.
"""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .. import plots
from ..core.files import write_whole
from ..core.seeding import seeded
from ..core.toml import read_config
from ..evaluate.assessment import Assessment, assess
from ..evaluate.evidence.importance import log_evidence
from ..evaluate.statistics import chosen_rows
from ..infer.training.settings import FROM_PYTHON
from ..model.latents import point
from ..model.saving import load
from ..model.tables import TableRecord
from ..model.vae import VAE
from ..model.visits import VisitsRecord
from ..plots.pictures import has_images
from . import page
from .columns import columns_of
from .folder import read_history, read_results
from .held_out import held_out, name_of
from .settings import CONFIG, read_settings

__all__ = ["write_report"]

SHOWN = 1000  # observations that the report is about, at most: random ones
ELBOS = {
    "elbo": "ELBO, the encoder's guide",
    "elbo_local": "ELBO, best of the family",
    "elbo_full": "ELBO, best with full covariance",
    "log_evidence": "log p(x)",
}


def write_report(
    run: str | Path,
    path: str | Path | None = None,
    *,
    vae: VAE | None = None,
    data: str | Tensor | ArrayLike | None = None,
    num_samples: int = 1000,
    steps: int = 200,
    seed: int = 0,
) -> Path:
    """Assess a run on its test data, and write the result into one HTML file.

    Args:
        run: a run folder.
        path: the file; ``RUN/report.html`` where it is not given.
        vae: its model, where that has modules of your own: ``pv.load(run, encoder=Mine())``.
        data: other data than the run's own test data, which runs of ``pv.fit`` need: a name or a
            file as of :func:`~pyro_vae.load_data`, or ``(N, *x_shape)``.
        num_samples: draws of z per observation, for log p(x).
        steps: of the ascent to each observation's own guide, and temperatures of annealing.
        seed: of all draws.

    Returns:
        The path of the file.

    Raises:
        ValueError: no run folder, or data that cannot be read.
    """
    run = Path(run)
    vae, settings = load(run) if vae is None else vae, read_settings(run)
    x, labels = held_out(run, vae, data)
    with seeded(seed):
        rows = chosen_rows(x, SHOWN)
    x, labels = x[rows], None if labels is None else labels[rows.to(labels.device)]
    assessment = assess(vae, x, labels, num_samples=num_samples, steps=steps, seed=seed)
    history = read_history(run)
    sections = {
        "In short": _summary(assessment, read_results(run), len(x)),
        "Training": "" if history is None else _training(history),
        "Evidence": _evidence(vae, assessment, seed),
        "Latent space": _latent_space(vae, x, labels, assessment),
        "The guide": _guide(assessment),
        "What the model draws": _drawings(vae, x, labels, assessment, seed),
        "Columns": columns_of(vae, x, assessment.imputation, seed),
        "How this was made": _making(_told(run, vae), assessment, len(x), seed),
    }
    filled = [f"<section><h2>{name}</h2>{s}</section>\n" for name, s in sections.items() if s]
    name = name_of(settings, data)
    parts = vae.describe()
    model = ", ".join(f"{k} {parts[k]}" for k in ("prior", "likelihood", "guide"))
    text = Template((page.FILES / "report.html").read_text("utf-8")).substitute(
        title=escape(f"{name} \N{MIDDLE DOT} {run.name}"),
        name=escape(name),
        model=escape(f"{model}, {math.prod(vae.z_shape)} latent dimensions"),
        style=(page.FILES / "report.css").read_text("utf-8"),
        body="".join(filled),
    )
    path = run / "report.html" if path is None else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    return path


# The sections.


def _summary(assessment: Assessment, results: Mapping[str, float], n: int) -> str:
    trained = ""
    if {"epochs", "training_seconds", "parameters"} <= results.keys():
        trained = (
            f" Training took {results['epochs']:.0f} epochs and {results['training_seconds']:.0f} "
            f"seconds, of {results['parameters']:,.0f} parameters."
        )
    verdicts = [
        f"<dt>{name}</dt><dd>{page.signed(escape(text))}</dd>"
        for name, text in assessment.verdicts.items()
    ]
    note = (
        f"On {n} held-out observations, in nats per observation; standard errors are over the "
        "observations. The ELBO is a lower bound of log p(x), so both are better where they are "
        f"higher.{trained}"
    )
    table = page.table(assessment.table, "Nats per observation", "{:.2f}")
    beside = f"<div>{table}{page.note(note)}</div>"
    return f'<div class="summary"><dl>{"".join(verdicts)}</dl>{beside}</div>'


def _training(history: pd.DataFrame) -> str:
    return page.grid(
        page.figure(plots.learning_curves, history), page.figure(plots.kl_curve, history)
    )


def _evidence(vae: VAE, assessment: Assessment, seed: int) -> str:
    parts = [page.figure(plots.khat, assessment.evidence)]
    if (sandwich := assessment.sandwich) is not None:
        n = assessment.evidence.num_samples
        drawn = log_evidence(vae, sandwich.x, num_samples=n, seed=seed)
        rows = {
            "annealing, from below": sandwich.lower,
            "importance sampling": drawn,
            "annealing, from above": sandwich.upper,
        }
        values = {k: [part.mean, part.monte_carlo_error] for k, part in rows.items()}
        table = pd.DataFrame(values, index=["log p(x)", "error of drawing z"]).T
        note = (
            f"On {len(sandwich.x)} observations drawn from the model, log p(x) lies between the "
            "two of annealing, in expectation; where importance sampling lies below both, the "
            "guide misses a part of the posterior."
        )
        parts.append(f"<div>{page.table(table, 'Simulated data', '{:.2f}')}{page.note(note)}</div>")
    return page.grid(*parts)


def _latent_space(vae: VAE, x: Tensor, labels: Tensor | None, assessment: Assessment) -> str:
    latents = assessment.latents
    parts = [page.figure(plots.latent_space, vae, x, labels)]
    if latents is not None:
        parts = [
            page.figure(plots.latent_kl, latents),
            *parts,
            page.details("By dimension", page.table(latents.dimensions, "z", "{:.3f}")),
            page.details("KL, taken apart", page.table(latents.totals, "Nats", "{:.3f}")),
        ]
    if assessment.labels is not None:
        parts.append(page.details("By labels", page.table(assessment.labels, "Score", "{:.3f}")))
    return page.grid(*parts)


def _guide(assessment: Assessment) -> str:
    pictures, tables = [], []
    if (gaps := assessment.gaps) is not None:
        pictures.append(page.figure(plots.gaps, gaps))
        rows = {ELBOS[k]: [gaps[k].mean(), gaps[k].sem()] for k in ELBOS if k in gaps}
        table = pd.DataFrame(rows, index=["value", "standard_error"]).T
        title = "Guides of an observation's own"
        tables.append(page.details(title, page.table(table, "Nats per observation", "{:.2f}")))
    if (ranks := assessment.calibration) is not None:
        pictures.append(page.figure(plots.calibration, ranks))
        tables.append(page.details("Ranks", page.table(ranks.table, "Column", "{:.3g}")))
    return page.grid(*pictures, *tables)


def _drawings(vae: VAE, x: Tensor, labels: Tensor | None, assessment: Assessment, seed: int) -> str:
    if isinstance(vae.record, TableRecord | VisitsRecord):
        return ""
    check = page.figure(plots.predictive_check, vae, x, seed=seed)
    if not has_images(vae):
        return page.grid(check)
    few = max(1, min(7, len(x) // 2))
    parts = [
        page.figure(plots.reconstructions, vae, x[:48]),
        page.figure(plots.samples, vae, 84, given=x, seed=seed),
        page.figure(plots.traversals, vae, x[0], _dimensions(assessment)),
        page.figure(plots.interpolations, vae, x[:few], x[-few:]),
    ]
    if labels is not None and (pair := _farthest_labels(vae, x, labels)):
        source, target = pair
        how: dict[str, Any] = {"source": source, "target": target}
        parts.append(page.figure(plots.attribute_arithmetic, vae, x, labels, **how))
    return page.grid(*parts, check)


def _told(run: Path, vae: VAE) -> dict[str, object]:
    """What a run was told, and what its model says of itself."""
    told = read_config(run / CONFIG) if (run / CONFIG).exists() else {}
    if told.get("data", FROM_PYTHON) != FROM_PYTHON:
        told = asdict(read_settings(run))
    return told | {k: v for k, v in vae.describe().items() if k not in told}


def _making(told: Mapping[str, object], assessment: Assessment, n: int, seed: int) -> str:
    import pyro

    from .. import __version__

    note = (
        f"{assessment.evidence.num_samples} draws of z for each of {n} held-out observations, "
        f"seed {seed}. pyro_vae {__version__}, Pyro {pyro.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}."
    )
    given = {name: str(value) for name, value in told.items() if value is not None}
    table = page.table(pd.DataFrame({"value": given}), "Setting", "")
    return page.note(note) + page.details("Settings", table)


def _dimensions(assessment: Assessment) -> Sequence[int] | None:
    """The dimensions that say most of x, at most 8."""
    latents = assessment.latents
    if latents is None or latents.dimensions["kl"].isna().to_numpy().any():
        return None
    return latents.dimensions["kl"].to_numpy().argsort()[::-1][:8].tolist()


@torch.no_grad()
def _farthest_labels(vae: VAE, x: Tensor, labels: Tensor) -> tuple[int, int] | None:
    """Of the labels with 5 observations or more, the two whose mean z are farthest apart."""
    values, counts = labels.unique(return_counts=True)
    values = values[counts >= 5]
    if vae.latents.categorical or not 2 <= len(values) <= 50:
        return None
    z = point(vae.encode(vae.as_data(x))).flatten(1)
    means = torch.stack([z[(labels == v).to(z.device)].mean(0) for v in values])
    first, second = divmod(int(torch.cdist(means, means).argmax()), len(values))
    return int(values[first]), int(values[second])
