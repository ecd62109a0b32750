"""Pictures of a table, column by column and pair by pair."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..evaluate.tables.associations import associations as measure
from ..evaluate.tables.coding import alike, is_quantity, quantities
from .axes import finish, ink, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluate.imputation import ImputationCheck

__all__ = ["associations", "imputation_check", "margin"]

LEVEL = 0.99  # probability that all bars of a calibrated table stay within the band
BINS, MOST_BINS = 10, 30
EACH = 15  # cells that a bin is to hold, at least
FEW = 25  # whole numbers that have a bar each
THIN = 60  # of an axis, the share of a bar from which it is seen
LEVELS = 10  # of a category; the rarer ones are one bar
LETTERS = 18  # of a name
WRITTEN = 10  # columns, up to which associations are written as numbers
SKEW = 20  # the ratio of a high quantile to the median, from which an axis is logarithmic


def margin(samples: Mapping[str, pd.Series], ax: "Axes | None" = None) -> "Axes":
    """The distribution of one column in several samples: bars of the first, lines of the others.

    Categories and few whole numbers have a bar for each value, other numbers, dates and durations a
    histogram, whose end bars hold what is beyond the outermost hundredth of the first sample; its
    axis is logarithmic where all are positive and some are very large. Missing cells are left out.
    Numbers may be written as in :func:`associations`: as words such as "$1,200", too.

    Args:
        samples: the column by the name of the sample, such as ``"observed"`` and ``"simulated"``.
        ax: to draw on.

    Raises:
        ValueError: no sample, none with a cell, or one of words beside quantities.
    """
    known = _seen({name: pd.Series(some) for name, some in samples.items()})
    if not known:
        raise ValueError("expected samples of a column with some cells, got none")
    known = _seen(alike(known, next(iter(known))))
    first = next(iter(known.values()))
    ax = ax or new_axes(5, 3.2)
    title, kind = _short(first.name), pd.api.types
    if is_quantity(first):
        dates, values = kind.is_datetime64_any_dtype(first), _numbers(known)
        pooled = np.unique(np.concatenate(list(values.values())))
        if len(pooled) <= FEW and not dates and (pooled == pooled.round()).all():
            _bars(ax, {k: pd.Series(v) for k, v in values.items()}, pooled.tolist(), upright=True)
        else:
            _histogram(ax, values, dates=dates)
        across = f"{title} (days)" if kind.is_timedelta64_dtype(first) else title
        return _explained(finish(ax, title, across, "share of rows", grid="y"))
    levels = list(first.cat.categories) if hasattr(first, "cat") else []
    counts = pd.concat([some.astype(object) for some in known.values()]).value_counts()
    levels = levels or sorted(counts.index, key=str)
    if len(levels) > LEVELS:
        levels = [level for level in counts.index[: LEVELS - 1]]
    _bars(ax, {k: v.astype(object) for k, v in known.items()}, levels, upright=False)
    return _explained(finish(ax, title, "share of rows", grid="x"))


def associations(
    table: object, other: object | None = None, ax: "Axes | None" = None, *, title: str = ""
) -> "Axes":
    """The association of each pair of columns as a matrix; or that of another table minus it.

    Spearman's correlation of quantities, Cramér's V of categories, the correlation ratio of one of
    each.

    Args:
        table: a frame.
        other: a frame of the same columns, such as simulated rows.
        ax: to draw on.
        title: above it.
    """
    found = measure(table)
    if other is not None:
        others = measure(other)
        if absent := [name for name in found if name not in others]:
            raise ValueError(
                f"the other table has no column {absent[0]!r}, or nothing varies in it: give rows "
                "with the columns of the first"
            )
        found = others.loc[found.index, found.columns] - found
    n, names = len(found), [_short(name) for name in found]
    ax = ax or new_axes(max(4.0, 0.45 * n + 1.5), max(4.0, 0.45 * n + 1.5))
    image = ax.imshow(found.to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    size = min(8.0, 160 / n)
    ax.set_xticks(range(n), names, rotation=90, fontsize=size)
    ax.set_yticks(range(n), names, fontsize=size)
    if n <= WRITTEN:
        for (i, j), value in np.ndenumerate(found.to_numpy()):
            text = f"{value:.2f}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")
            colour = "white" if abs(value) > 0.6 else "black"
            ax.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    else:
        ax.figure.colorbar(image, ax=ax, shrink=0.7)
    name = "Associations" if other is None else "Associations, other minus this"
    ax.set_title(title or name)
    return ax


def imputation_check(check: "ImputationCheck", ax: "Axes | None" = None) -> "Axes":
    """A histogram for each column: the places of hidden cells among their draws.

    All are flat where the draws are calibrated; then all bars end within the bands with a
    probability of 99 %. Those of columns that leave them are coloured. Hills say that intervals are
    too wide, valleys that they are too narrow, slopes that they lie too low or too high. Levels
    without an order (marked ``*``) are ranked from the most probable one, so that a slope up says
    that the model is too sure.

    Args:
        check: of :func:`~pyro_vae.imputation_check`.
        ax: to draw on.
    """
    names = [str(name) for name in check.table.index]
    ax = ax or new_axes(6, 1 + 0.45 * len(names))
    density, widths = {}, {}
    for name, some in check.cells.groupby("column"):
        bins = int(np.clip(len(some) // EACH, 3, BINS))
        counts = np.bincount((some["pit"] * bins).astype(int).clip(upper=bins - 1), minlength=bins)
        density[name] = counts * bins / len(some)
        draws = np.random.default_rng(0).multinomial(len(some), np.full(bins, 1 / bins), 4000)
        apart = np.abs(draws * bins / len(some) - 1).max(1)
        widths[name] = np.quantile(apart, LEVEL ** (1 / len(names)))
    unit = 0.84 / max(2.0, *(bars.max() for bars in density.values()))
    for i, name in enumerate(names):
        bars, width = density[name], widths[name]
        edges = np.linspace(0, 1, len(bars) + 1)
        outside = (np.abs(bars - 1) > width).any()
        colour, floor = "C3" if outside else "C0", i + 0.45
        style: dict[str, Any] = {"align": "edge", "lw": 0, "alpha": 0.5, "color": colour}
        ax.bar(edges[:-1], -unit * bars, edges[1], floor, **style)
        ax.stairs(floor - unit * bars, edges, baseline=None, color=colour, lw=1.4)
        band = [i + 0.45 - np.clip(unit * (1 + side * width), 0, 0.84) for side in (-1, 1)]
        ax.fill_between([0, 1], *band, color="0.5", alpha=0.3, lw=0)
        ax.plot([0, 1], [i + 0.45 - unit] * 2, color=ink(), lw=0.6)
    levels = check.table["score"].to_numpy() == "Brier"
    marked = [f"{_short(k)}{' *' if level else ''}" for k, level in zip(names, levels, strict=True)]
    ax.set_yticks(range(len(names)), marked)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.set_xlim(0, 1)
    return finish(ax, "Hidden cells among their draws", "place among the draws", grid="x")


def _explained(ax: "Axes") -> "Axes":
    """With the legend in a line above, where it hides no bar."""
    ax.set_title(ax.get_title(), pad=20)
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8,
        columnspacing=1.2, handlelength=1.4, borderaxespad=0.2,
    )  # fmt: skip
    return ax


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _seen(samples: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    """The cells that there are, of the samples that have some."""
    return {name: known for name, some in samples.items() if len(known := some.dropna())}


def _numbers(samples: Mapping[str, pd.Series]) -> dict[str, np.ndarray]:
    """As float64; of dates the days that Matplotlib counts in, on the clock of their zone."""
    from matplotlib.dates import date2num

    start = date2num(np.datetime64("1970-01-01"))
    return {
        name: quantities(some.dt.tz_localize(None), name) + start
        if pd.api.types.is_datetime64_any_dtype(some)
        else quantities(some, name)
        for name, some in samples.items()
    }


def _bars(
    ax: "Axes", samples: Mapping[str, pd.Series], levels: list[Any], *, upright: bool
) -> None:
    """A group of bars for each level; what is no level is together in a last one."""
    rest = any(~some.isin(levels).all() for some in samples.values())
    places = np.arange(len(levels) + rest)
    step = 1.0
    if upright and len(levels) > 1:
        nearest, spread = np.diff(levels).min(), levels[-1] - levels[0]
        if nearest * THIN > spread:
            places, step = np.array(levels), nearest
        else:
            ax.set_xticks(places, [f"{level:.12g}" for level in levels], rotation=90)
    thick = 0.8 * step / len(samples)
    for k, (name, some) in enumerate(samples.items()):
        shares = [(some == level).mean() for level in levels]
        shares += [1 - sum(shares)] * rest
        at = places + (k - (len(samples) - 1) / 2) * thick
        draw = ax.bar if upright else ax.barh
        draw(at, shares, thick, color=f"C{k - 1}" if k else "0.6", label=name)
    if not upright:
        names = [_short(level) for level in levels] + ["others"] * rest
        ax.set_yticks(places, names)
        ax.set_ylim(len(names) - 0.5, -0.5)


def _histogram(ax: "Axes", samples: Mapping[str, np.ndarray], *, dates: bool) -> None:
    """Bins in common, over all but the outermost hundredth of the first sample."""
    first = next(iter(samples.values()))
    low, middle, high = np.quantile(first, [0.005, 0.5, 0.995])
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    every = np.concatenate(list(samples.values()))
    bins = int(np.clip(np.sqrt(len(first)), BINS, MOST_BINS))
    if not dates and every.min() > 0 and high > SKEW * middle:
        ax.set_xscale("log")
        edges = np.geomspace(low, high, bins + 1)
    else:
        edges = np.linspace(low, high, bins + 1)
    for k, (name, some) in enumerate(samples.items()):
        share = np.histogram(some.clip(low, high), edges)[0] / len(some)
        style: dict[str, Any] = {"color": f"C{k - 1}"}
        if k == 0:
            style = {"fill": True, "color": "0.6", "alpha": 0.6}
        ax.stairs(share, edges, label=name, lw=1.4, **style)
    if dates:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator()
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
