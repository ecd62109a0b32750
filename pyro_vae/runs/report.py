"""A run in one HTML file: figures with their errors, and pictures, each with how to read it.

The file needs no network and no other file. Pictures are drawn in the colour of the text, so that
they are legible on a light and on a dark page.
"""

import io
import math
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import plots
from ..core.toml import read_config
from ..evaluate.assessment import Assessment, assess
from ..evaluate.evidence.importance import log_evidence
from ..model.latents import point
from ..model.saving import load
from ..model.vae import VAE
from ..plots.pictures import has_images
from .folder import HISTORY, held_out, read_results
from .settings import CONFIG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["write_report"]

SHOWN = 1000  # data that the report is about, at most
WIDTH = 4.6  # inches, of all pictures: one size of type for all of them
INK = "#abcdef"  # stands for the colour of the text, which the page gives
STYLE = {
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
    "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
    "image.interpolation": "none", "svg.hashsalt": "pyro_vae",
}  # fmt: skip
Draw: TypeAlias = Callable[["Axes"], object]


def write_report(
    run: str | Path,
    path: str | Path | None = None,
    *,
    num_samples: int = 1000,
    steps: int = 200,
    seed: int = 0,
) -> Path:
    """Assess a run on its test data, and write what is found into one HTML file.

    Args:
        run: a run folder of ``pyro-vae fit``.
        path: the file; ``RUN/report.html`` where it is not given.
        num_samples: draws of z per datum, for log p(x).
        steps: of the ascent to each datum's own guide, and temperatures of annealing.
        seed: of all draws.

    Returns:
        The path of the file.

    Raises:
        ValueError: no run folder, or data that cannot be read.
    """
    run = Path(run)
    vae, told = load(run), read_config(run / CONFIG)
    x, labels = held_out(told)
    x, labels = x[:SHOWN], None if labels is None else labels[:SHOWN]
    found = assess(vae, x, labels, num_samples=num_samples, steps=steps, seed=seed)
    history = pd.read_csv(run / HISTORY, index_col="epoch") if (run / HISTORY).exists() else None
    sections = {
        "In short": _summary(found, read_results(run), len(x)),
        "Training": "" if history is None else _training(history),
        "Evidence": _evidence(vae, found, seed),
        "Latent space": _latent_space(vae, x, labels, found),
        "The guide": _guide(found),
        "What the model draws": _drawings(vae, x, labels, found, seed),
        "How this was made": _made(told, found, len(x), seed),
    }
    body = "".join(
        f"<section><h2>{name}</h2>{content}</section>\n"
        for name, content in sections.items() if content
    )  # fmt: skip
    name = Path(str(told["data"])).stem
    told_of = vae.describe()
    model = ", ".join(f"{k} {told_of[k]}" for k in ("prior", "likelihood", "guide"))
    model += f", {math.prod(vae.z_shape)} latent dimensions"
    page = Template(PAGE).substitute(
        title=escape(f"{name} \N{MIDDLE DOT} {run.name}"), name=escape(name), model=escape(model),
        style=CSS, body=body,
    )  # fmt: skip
    path = run / "report.html" if path is None else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


# The sections.


def _summary(found: Assessment, results: Mapping[str, float], n: int) -> str:
    table = found.table
    trained = ""
    if results:
        trained = (
            f" Training took {results['epochs']:.0f} epochs and {results['training_seconds']:.0f} "
            f"seconds, of {results['parameters']:,.0f} parameters."
        )
    said = found.verdicts.items()
    verdicts = "".join(f"<dt>{k}</dt><dd>{_signed(escape(v))}</dd>" for k, v in said)
    return (
        f'<div class="summary"><dl>{verdicts}</dl><div>'
        + _table(table, "Nats per datum", "{:.2f}")
        + f'<p class="note">On {n} held-out data, in nats per datum; standard errors are over the '
        f"data. The ELBO is a lower bound of log p(x), so both are better where they are higher."
        f"{trained}</p></div></div>"
    )


def _training(history: pd.DataFrame) -> str:
    return _grid(
        _picture(
            lambda ax: plots.learning_curves(history, ax),
            "Higher is better. Where the validation curve falls while the other rises, the model "
            "overfits; where both still rise at the end, train longer.",
        ),
        _picture(
            lambda ax: plots.kl_curve(history, ax),
            "How much z says of x. A curve that stays at 0 is a collapsed posterior.",
        ),
    )


def _evidence(vae: VAE, found: Assessment, seed: int) -> str:
    parts = [
        _picture(
            lambda ax: plots.khat(found.evidence, ax),
            "A dot for each datum. Above the dashed line the importance weights have so heavy a "
            "tail that log p(x) is underestimated there; below it the estimate may be trusted.",
        )
    ]
    if (sandwich := found.sandwich) is not None:
        n = found.evidence.num_samples
        drawn = log_evidence(vae, sandwich.x, num_samples=n, seed=seed)
        rows = {
            "annealing, from below": sandwich.lower, "importance sampling": drawn,
            "annealing, from above": sandwich.upper,
        }  # fmt: skip
        values = pd.DataFrame({
            name: [part.mean, part.monte_carlo_error] for name, part in rows.items()
        }, index=["log p(x)", "error of drawing z"]).T  # fmt: skip
        text = (
            f"On {len(sandwich.x)} data drawn from the model, log p(x) lies between the two of "
            "annealing, in expectation; where importance sampling lies below both, the guide "
            "misses a part of the posterior."
        )
        parts.append(f"<div>{_table(values, 'Simulated data', '{:.2f}')}{_note(text)}</div>")
    return _grid(*parts)


def _latent_space(vae: VAE, x: Tensor, labels: Tensor | None, found: Assessment) -> str:
    latents = found.latents
    parts = []
    if latents is not None:
        parts.append(_picture(
            lambda ax: plots.latent_kl(latents, ax),
            "Nats that each dimension says of x, with standard errors. A grey dimension does not "
            "move with x: it has collapsed to the prior.",
        ))  # fmt: skip
    coloured = " Colours are labels, which the model has not seen." if labels is not None else ""
    parts.append(_picture(
        lambda ax: plots.latent_space(vae, x, labels, ax),
        f"The guide's means, beyond two dimensions their first two principal components.{coloured}",
    ))  # fmt: skip
    if latents is not None:
        parts.append(_details("By dimension", _table(latents.dimensions, "z", "{:.3f}")))
        parts.append(_details("KL, taken apart", _table(latents.totals, "Nats", "{:.3f}")))
    if found.labels is not None:
        parts.append(_details("By labels", _table(found.labels, "Score", "{:.3f}")))
    return _grid(*parts)


def _guide(found: Assessment) -> str:
    parts, gaps, ranks = [], found.gaps, found.calibration
    if gaps is not None:
        parts.append(_picture(
            lambda ax: plots.gaps(gaps, ax),
            "What the ELBO loses of log p(x), as dots for the data and their mean: by the encoder, "
            "whose answer is not the best of the family, and by the family, whose best is not the "
            "posterior.",
        ))  # fmt: skip
    if ranks is not None:
        parts.append(_picture(
            lambda ax: plots.calibration(ranks, ax),
            "On data drawn from the model. Where the guide is the posterior, all lines stay in the "
            "band with a probability of 0.99; those that leave it are coloured. First up and then "
            "down: too narrow; first down and then up: too wide; to one side: biased.",
        ))  # fmt: skip
    if gaps is not None:
        names = [k for k in ("elbo", "elbo_local", "elbo_full", "log_evidence") if k in gaps]
        rows = pd.DataFrame({
            ROWS[k]: [gaps[k].mean(), gaps[k].sem()] for k in names
        }, index=["value", "standard_error"]).T  # fmt: skip
        parts.append(_details("Guides of a datum's own", _table(rows, "Nats per datum", "{:.2f}")))
    if ranks is not None:
        parts.append(_details("Ranks", _table(ranks.table, "Column", "{:.3g}")))
    return _grid(*parts)


ROWS = {
    "elbo": "ELBO, the encoder's guide",
    "elbo_local": "ELBO, best of the family",
    "elbo_full": "ELBO, best with full covariance",
    "log_evidence": "log p(x)",
}


def _drawings(vae: VAE, x: Tensor, labels: Tensor | None, found: Assessment, seed: int) -> str:
    check = _picture(
        lambda ax: plots.predictive_check(vae, x, seed=seed, ax=ax),
        "The held-out data, and data sets of the same size drawn from the model. Where the thick "
        "line leaves the thin ones, the model has not learned this of the data.",
    )
    if not has_images(vae):
        return _grid(check)
    few = max(1, min(7, len(x) // 2))
    parts = [
        _picture(lambda ax: plots.reconstructions(vae, x[:48], ax),
                 "Held-out data, and beneath each the mean of p(x|z) at the guide's mean."),
        _picture(lambda ax: plots.samples(vae, 84, seed=seed, ax=ax),
                 "Means of p(x|z), z drawn from the prior. What looks like no datum comes from "
                 "z that no datum is encoded to."),
        _picture(lambda ax: plots.traversals(vae, x[0], _dims(found), ax=ax),
                 "One coordinate of one datum's z moves through the prior's quantiles, 0.01 to "
                 "0.99; dimensions that say most come first. A row that does not change is a "
                 "dimension that the decoder ignores."),
        _picture(lambda ax: plots.interpolations(vae, x[:few], x[-few:], ax=ax),
                 "Two data, left and right, and between them the straight line between their z. "
                 "Steps should be smooth, and each should look like data."),
    ]  # fmt: skip
    if labels is not None and (pair := _farthest_labels(vae, x, labels)):
        source, target = pair
        parts.append(_picture(
            lambda ax: plots.attribute_arithmetic(
                vae, x, labels, source=source, target=target, ax=ax
            ),
            f"Data with the label {source}, moved along the difference of the mean z of the labels "
            f"{target} and {source}, the two that lie farthest apart.",
        ))  # fmt: skip
    return _grid(*parts, check)


def _made(told: Mapping[str, object], found: Assessment, n: int, seed: int) -> str:
    import pyro

    from .. import __version__

    draws = f"{found.evidence.num_samples} draws of z for each of {n} held-out data, seed {seed}"
    versions = (
        f"pyro_vae {__version__}, Pyro {pyro.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )
    settings = pd.DataFrame({"value": {k: str(v) for k, v in told.items()}})
    return (
        f"{_note(f'{draws}. {versions}.')}{_details('Settings', _table(settings, 'Setting', ''))}"
    )


# The parts of a section.


def _picture(draw: Draw, caption: str) -> str:
    """A figure with its caption; where it cannot be drawn of this model, why."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = STYLE
    with rc_context(style):
        figure = Figure(figsize=(WIDTH, 0.65 * WIDTH), layout="constrained")
        ax = figure.add_subplot()
        try:
            draw(ax)
        except ValueError as problem:
            return f"<figure>{_note(f'Not drawn: {problem}')}</figure>"
        if ax.images:
            height, width = np.asarray(ax.images[0].get_array()).shape[:2]
            figure.set_figheight(WIDTH * height / width + 0.3)
        file = io.StringIO()
        about = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=about)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(ax.get_title())}"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(table: pd.DataFrame, corner: str, number: str) -> str:
    head = "".join(f"<th>{escape(str(k).replace('_', ' '))}</th>" for k in table.columns)
    rows = "".join(
        f"<tr><th>{escape(str(name).replace('_', ' '))}</th>"
        + "".join(f"<td>{_cell(v, number)}</td>" for v in values) + "</tr>"
        for name, values in zip(table.index, table.to_numpy(dtype=object), strict=True)
    )  # fmt: skip
    corner = f"<th>{escape(corner)}</th>"
    return (
        f'<div class="scroll"><table><thead><tr>{corner}{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


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


def _dims(found: Assessment) -> Sequence[int] | None:
    """The dimensions that say most of x, at most 8."""
    if found.latents is None or found.latents.dimensions["kl"].isna().to_numpy().any():
        return None
    return found.latents.dimensions["kl"].to_numpy().argsort()[::-1][:8].tolist()


@torch.no_grad()
def _farthest_labels(vae: VAE, x: Tensor, labels: Tensor) -> tuple[int, int] | None:
    """Of the labels with 5 data or more, the two whose mean z are farthest apart."""
    values, counts = labels.unique(return_counts=True)
    values = values[counts >= 5]
    if vae.latents.categorical or not 2 <= len(values) <= 50:
        return None
    z = point(vae.encode(vae.as_data(x))).flatten(1)
    means = torch.stack([z[(labels == v).to(z.device)].mean(0) for v in values])
    first, second = divmod(int(torch.cdist(means, means).argmax()), len(values))
    return int(values[first]), int(values[second])


CSS = """
:root { color-scheme: light dark; --page: #fcfcfb; --text: #1c1e21; --soft: #62676d;
        --line: #dedfe1; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181a; --text: #e4e5e7; --soft: #9aa0a6; --line: #34373b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 3rem 0 1rem; padding-top: 1rem;
     border-top: 1px solid var(--line); }
header p, .note, figcaption { color: var(--soft); }
header p { margin: 0; }
.note, figcaption { font-size: .875rem; max-width: 60ch; }
.grid { display: grid; gap: 2rem 2.5rem; align-items: start;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: .5rem; }
svg { display: block; width: 100%; height: auto; }
svg image { image-rendering: pixelated; }
.summary { display: grid; gap: 1rem 3rem; align-items: start;
           grid-template-columns: minmax(0, 1fr) max-content; }
.summary .note { max-width: 27rem; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .6rem 1.25rem; margin: 0; }
dt { font-weight: 600; }
dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 0 .3rem 1.5rem; text-align: right; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
th:first-child { padding-left: 0; text-align: left; font-weight: normal; }
thead th { color: var(--soft); font-weight: normal; }
summary { cursor: pointer; padding: .2rem 0; }
details { min-width: 0; }
@media (max-width: 54rem) { .summary { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 36rem) {
  main { padding: 1.5rem 1rem 3rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .9rem; }
  th, td { padding-left: .9rem; white-space: normal; } }
@media print { details:not([open]) > * { display: block; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header>
<h1>A variational autoencoder of $name</h1>
<p>$model</p>
</header>
$body</main>
</body>
</html>
"""
