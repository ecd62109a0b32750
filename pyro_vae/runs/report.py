"""A run in one HTML file: figures with their errors, and pictures, each with how to read it.

The file needs no network and no other file. Pictures are drawn in the colour of the text, so that
they are legible on a light and on a dark page. Its frame, the style of text and pictures, and the
captions are the files ``report.*`` beside this module.
"""

import io
import math
import platform
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .. import plots
from ..core.files import write_whole
from ..core.toml import read_config
from ..evaluate.assessment import Assessment, assess
from ..evaluate.evidence.importance import log_evidence
from ..infer.training.settings import FROM_PYTHON
from ..model.latents import point
from ..model.saving import load
from ..model.vae import VAE
from ..plots.pictures import has_images
from .folder import read_history, read_results
from .held_out import held_out, name_of
from .settings import CONFIG, read_settings

__all__ = ["write_report"]

SHOWN = 1000  # observations that the report is about, at most
WIDTH = 4.6  # inches, of all pictures: one size of type for all of them
INK = "#abcdef"  # stands for the colour of the text, which the page gives
FILES = resources.files("pyro_vae.runs")
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
    x, labels = x[:SHOWN], None if labels is None else labels[:SHOWN]
    assessment = assess(vae, x, labels, num_samples=num_samples, steps=steps, seed=seed)
    history = read_history(run)
    sections = {
        "In short": _summary(assessment, read_results(run), len(x)),
        "Training": "" if history is None else _training(history),
        "Evidence": _evidence(vae, assessment, seed),
        "Latent space": _latent_space(vae, x, labels, assessment),
        "The guide": _guide(assessment),
        "What the model draws": _drawings(vae, x, labels, assessment, seed),
        "How this was made": _making(_told(run, vae), assessment, len(x), seed),
    }
    filled = [f"<section><h2>{name}</h2>{s}</section>\n" for name, s in sections.items() if s]
    name = name_of(settings, data)
    parts = vae.describe()
    model = ", ".join(f"{k} {parts[k]}" for k in ("prior", "likelihood", "guide"))
    page = Template((FILES / "report.html").read_text("utf-8")).substitute(
        title=escape(f"{name} \N{MIDDLE DOT} {run.name}"),
        name=escape(name),
        model=escape(f"{model}, {math.prod(vae.z_shape)} latent dimensions"),
        style=(FILES / "report.css").read_text("utf-8"),
        body="".join(filled),
    )
    path = run / "report.html" if path is None else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)
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
        f"<dt>{name}</dt><dd>{_signed(escape(text))}</dd>"
        for name, text in assessment.verdicts.items()
    ]
    note = (
        f"On {n} held-out observations, in nats per observation; standard errors are over the "
        "observations. The ELBO is a lower bound of log p(x), so both are better where they are "
        f"higher.{trained}"
    )
    table = _table(assessment.table, "Nats per observation", "{:.2f}")
    return f'<div class="summary"><dl>{"".join(verdicts)}</dl><div>{table}{_note(note)}</div></div>'


def _training(history: pd.DataFrame) -> str:
    return _grid(_figure(plots.learning_curves, history), _figure(plots.kl_curve, history))


def _evidence(vae: VAE, assessment: Assessment, seed: int) -> str:
    parts = [_figure(plots.khat, assessment.evidence)]
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
        parts.append(f"<div>{_table(table, 'Simulated data', '{:.2f}')}{_note(note)}</div>")
    return _grid(*parts)


def _latent_space(vae: VAE, x: Tensor, labels: Tensor | None, assessment: Assessment) -> str:
    latents = assessment.latents
    parts = [_figure(plots.latent_space, vae, x, labels)]
    if latents is not None:
        parts = [
            _figure(plots.latent_kl, latents),
            *parts,
            _details("By dimension", _table(latents.dimensions, "z", "{:.3f}")),
            _details("KL, taken apart", _table(latents.totals, "Nats", "{:.3f}")),
        ]
    if assessment.labels is not None:
        parts.append(_details("By labels", _table(assessment.labels, "Score", "{:.3f}")))
    return _grid(*parts)


def _guide(assessment: Assessment) -> str:
    pictures, tables = [], []
    if (gaps := assessment.gaps) is not None:
        pictures.append(_figure(plots.gaps, gaps))
        rows = {ELBOS[k]: [gaps[k].mean(), gaps[k].sem()] for k in ELBOS if k in gaps}
        table = pd.DataFrame(rows, index=["value", "standard_error"]).T
        title = "Guides of an observation's own"
        tables.append(_details(title, _table(table, "Nats per observation", "{:.2f}")))
    if (ranks := assessment.calibration) is not None:
        pictures.append(_figure(plots.calibration, ranks))
        tables.append(_details("Ranks", _table(ranks.table, "Column", "{:.3g}")))
    return _grid(*pictures, *tables)


def _drawings(vae: VAE, x: Tensor, labels: Tensor | None, assessment: Assessment, seed: int) -> str:
    check = _figure(plots.predictive_check, vae, x, seed=seed)
    if not has_images(vae):
        return _grid(check)
    few = max(1, min(7, len(x) // 2))
    parts = [
        _figure(plots.reconstructions, vae, x[:48]),
        _figure(plots.samples, vae, 84, given=x, seed=seed),
        _figure(plots.traversals, vae, x[0], _dimensions(assessment)),
        _figure(plots.interpolations, vae, x[:few], x[-few:]),
    ]
    if labels is not None and (pair := _farthest_labels(vae, x, labels)):
        source, target = pair
        how = {"source": source, "target": target}
        parts.append(_figure(plots.attribute_arithmetic, vae, x, labels, **how))
    return _grid(*parts, check)


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
    table = _table(pd.DataFrame({"value": given}), "Setting", "")
    return _note(note) + _details("Settings", table)


# The parts of a section.


def _figure(plot: Callable[..., object], *args: object, **options: object) -> str:
    """A picture with its caption; where it cannot be drawn of this model, why."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with resources.as_file(FILES / "report.mplstyle") as style, rc_context(fname=style):
        figure = Figure(figsize=(WIDTH, 0.65 * WIDTH), layout="constrained")
        ax = figure.add_subplot()
        try:
            plot(*args, ax=ax, **options)
        except ValueError as problem:
            return f"<figure>{_note(f'Not drawn: {problem}')}</figure>"
        if ax.images:
            height, width = np.asarray(ax.images[0].get_array()).shape[:2]
            figure.set_figheight(WIDTH * height / width + 0.3)
        file = io.StringIO()
        about = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=about)
    svg = file.getvalue().replace(INK, "currentColor")
    svg = svg[svg.index("<svg") :]
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(ax.get_title())}"', 1)
    caption = tomllib.loads((FILES / "report.toml").read_text("utf-8"))[plot.__name__]
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(table: pd.DataFrame, corner: str, number: str) -> str:
    head = [f"<th>{_words(name)}</th>" for name in (corner, *table.columns)]
    rows = []
    for name, values in zip(table.index, table.to_numpy(dtype=object), strict=True):
        cells = "".join(f"<td>{_cell(value, number)}</td>" for value in values)
        rows.append(f"<tr><th>{_words(name)}</th>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _words(name: object) -> str:
    return escape(str(name).replace("_", " "))


def _cell(value: object, number: str) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else _signed(number.format(value))
    return escape(str(value))


def _signed(text: str) -> str:
    """With minus signs before numbers."""
    return re.sub(r"(?<![\w.)])-(?=\d)", "\N{MINUS SIGN}", text)


def _grid(*parts: str) -> str:
    return f'<div class="grid">{"".join(parts)}</div>' if parts else ""


def _details(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


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
