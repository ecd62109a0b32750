"""The parts of a section of the report: pictures, tables, grids and notes, as HTML."""

import io
import re
import tomllib
from collections.abc import Callable
from html import escape
from importlib import resources

import numpy as np
import pandas as pd

__all__ = ["FILES", "caption", "details", "figure", "grid", "note", "signed", "table"]

ROWS = 12  # names beside a picture, from which on it is higher
WIDTH = 4.6  # inches, of all pictures: one size of type for all of them
INK = "#abcdef"  # stands for the colour of the text, which the page gives
FILES = resources.files("pyro_vae.runs")


def figure(
    plot: Callable[..., object], *args: object, explained: bool = True, **options: object
) -> str:
    """A picture with its caption; where it cannot be drawn of this model, why."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with resources.as_file(FILES / "report.mplstyle") as style, rc_context(fname=style):
        figure = Figure(figsize=(WIDTH, 0.65 * WIDTH), layout="constrained")
        ax = figure.add_subplot()
        try:
            plot(*args, ax=ax, **options)
        except ValueError as problem:
            return f"<figure>{note(f'Not drawn: {problem}')}</figure>"
        if ax.images:
            height, width = np.asarray(ax.images[0].get_array()).shape[:2]
            figure.set_figheight(WIDTH * height / width + 0.3)
        elif (rows := len(ax.get_yticks())) > ROWS:
            figure.set_figheight(WIDTH * 0.65 * rows / ROWS)
        file = io.StringIO()
        about = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=about)
    svg = file.getvalue().replace(INK, "currentColor")
    svg = svg[svg.index("<svg") :]
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(ax.get_title())}"', 1)
    words = f"<figcaption>{escape(caption(plot.__name__))}</figcaption>" if explained else ""
    return f"<figure>{svg}{words}</figure>"


def caption(name: str) -> str:
    """How to read a picture or a table."""
    return tomllib.loads((FILES / "report.toml").read_text("utf-8"))[name]


def table(frame: pd.DataFrame, corner: str, number: str) -> str:
    """A frame, its numbers in a form such as ``"{:.2f}"``; ``corner`` is above its index."""
    head = [f"<th>{_words(name)}</th>" for name in (corner, *frame.columns)]
    rows = []
    for name, values in zip(frame.index, frame.to_numpy(dtype=object), strict=True):
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
        return "" if np.isnan(value) else signed(number.format(value))
    return escape(str(value))


def signed(text: str) -> str:
    """With minus signs before numbers."""
    return re.sub(r"(?<![\w.)])-(?=\d)", "\N{MINUS SIGN}", text)


def grid(*parts: str) -> str:
    """Parts side by side, as many as there is room for."""
    return f'<div class="grid">{"".join(parts)}</div>' if parts else ""


def details(title: str, content: str) -> str:
    """What is seen when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def note(text: str) -> str:
    """A paragraph in small type."""
    return f'<p class="note">{escape(text)}</p>'
