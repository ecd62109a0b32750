"""New axes where none are given, what all axes have in common, and a file at the end."""

from collections.abc import Iterator
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["clip_start", "finish", "ink", "line_looks", "new_axes", "save"]


def new_axes(width: float, height: float) -> "Axes":
    """Axes of a new figure, in inches.

    Where there is a window or a notebook to show it, the figure is pyplot's. Elsewhere nobody would
    close it, so that it belongs to its axes alone.
    """
    from matplotlib import pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if pyplot.get_backend().lower() in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        return figure.subplots()
    return pyplot.subplots(figsize=(width, height))[1]


def finish(
    ax: "Axes", title: str, x: str, y: str = "", *, grid: Literal["both", "x", "y"] = "both"
) -> "Axes":
    """Labels, a pale grid, and a legend where something has a label."""
    ax.set(title=title, xlabel=x, ylabel=y)
    ax.grid(axis=grid, alpha=0.3)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=8)
    return ax


def clip_start(ax: "Axes", low: float, high: float) -> None:
    """Limits that leave out the first epochs, which would flatten the rest."""
    margin = 0.05 * (high - low) + 1e-6
    ax.set_ylim(low - margin, high + margin)


def line_looks() -> Iterator[dict[str, Any]]:
    """Colour and style of one line after another, no two alike; none grey, as what is beside is."""
    colours = [f"C{i}" for i in range(10) if i != 7]
    for style, colour in cycle(product(("-", "--", ":", "-."), colours)):
        yield {"ls": style, "color": colour}


def ink() -> str:
    """The colour of text, which is legible on the page in any style."""
    from matplotlib import rcParams

    return str(rcParams["text.color"])


def save(ax: "Axes", path: str | Path) -> Path:
    """Write the figure of some axes to a file, whole, and close it."""
    from matplotlib import pyplot

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure: Any = ax.get_figure()
    try:
        with replacing(path) as new:
            figure.savefig(new, dpi=150, bbox_inches="tight")
    finally:
        pyplot.close(figure)
    return Path(path)
