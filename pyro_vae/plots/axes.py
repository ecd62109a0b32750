"""What the pictures share: new axes where none are given, and a file at the end."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ink", "new_axes", "save"]


def new_axes(width: float, height: float) -> "Axes":
    """Of a figure of their own, in inches."""
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height))[1]


def ink() -> str:
    """The colour of text: it is legible on the page, whatever the style."""
    from matplotlib import rcParams

    return str(rcParams["text.color"])


def save(ax: "Axes", path: str | Path) -> Path:
    """Write the figure of some axes and close it."""
    from matplotlib import pyplot

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure = ax.get_figure()
    figure.savefig(path, dpi=150, bbox_inches="tight")  # pyright: ignore
    pyplot.close(figure)  # pyright: ignore
    return Path(path)
