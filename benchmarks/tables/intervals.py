"""Multiple imputation: how often intervals of 90 % hold the cells that were hidden at random.

python benchmarks/tables/intervals.py [TABLE ...]

Breast, and 3,000 rows of Wine and of Adult, with a fifth of the cells hidden by the masks of the
HI-VAE study. The model is trained on the table with its holes, as it is in ``imputation.py``, and
draws each hidden cell 199 times. What has been measured is kept in
``results/tables_intervals.jsonl``.
"""

import math
import sys
import time

import numpy as np
import pandas as pd
import paths  # noqa: F401
from common import finished, keep, publish, table
from data import read_holes
from imputers import trained

from pyro_vae.evaluate.scores import commonness, interval_width, pit, set_size

NAME = "tables_intervals"
ROWS = {"Wine": 3000, "Breast": None, "Adult": 3000}
TYPES = {"quantity": ("real", "pos", "count"), "ordinal": ("ordinal",), "category": ("cat",)}
PERCENT, LEVEL, DRAWS, SEED = 20, 0.9, 199, 0


def measure(name: str) -> list[dict]:
    """A row a column, and one for all columns of a type."""
    data, rng = read_holes(name), np.random.default_rng(SEED)
    some = np.sort(rng.permutation(len(data.frame))[: ROWS[name]])
    whole, hidden = data.frame.iloc[some].reset_index(drop=True), data.hidden[PERCENT][some]
    start = time.perf_counter()
    model, rows = trained(whole.mask(hidden).astype(float), data.kinds, SEED)
    middle = time.perf_counter()
    drawn = np.stack([f.to_numpy(float) for f in model.impute(rows, draws=DRAWS, seed=SEED)])
    about = {"table": name, "rows": len(whole), "fit": middle - start}
    about["draw"] = time.perf_counter() - middle
    found, parts = [], {}
    for d, (column, values) in enumerate(whole.items()):
        cells = np.flatnonzero(hidden[:, d] & values.notna().to_numpy())
        truth, draws, kind = values.to_numpy(float)[cells], drawn[:, cells, d], data.kinds[column]
        kind = next(word for word, kinds in TYPES.items() if kind in kinds)
        u, width = places(truth, draws, kind, rng)
        margin = places(truth, values.dropna().to_numpy(float)[:, None], kind, rng)[1]
        part = pd.DataFrame({"row": cells, "u": u})
        parts.setdefault(kind, []).append(part)
        line = rows.schema[str(column)].line
        one = {"column": column, "line": line, "width": width.mean(), "margin": margin.mean()}
        found.append(about | one | {"type": kind} | covered(part, kind))
    return found + [about | {"type": k} | covered(pd.concat(p), k) for k, p in parts.items()]


def places(
    truth: np.ndarray, draws: np.ndarray, kind: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where among its draws each cell lies, ties broken by chance, and the width of its interval.

    Levels without an order are ranked by how common they are among the draws.
    """
    draws = np.broadcast_to(draws, (len(draws), len(truth)))
    if kind == "category":
        return pit(*commonness(draws, truth), rng), set_size(draws, LEVEL)
    return pit(draws, truth, rng), interval_width(draws, LEVEL)


def covered(part: pd.DataFrame, kind: str) -> dict[str, float]:
    """The share of cells in their intervals, its standard error over rows, and where others lie."""
    low, high = (0.0, LEVEL) if kind == "category" else ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    hit = part.u.between(low, high)
    hits, sizes = hit.groupby(part.row).sum().to_numpy(), hit.groupby(part.row).size().to_numpy()
    error = math.sqrt(((hits - hit.mean() * sizes) ** 2).sum()) / len(hit)
    outside = {"below": (part.u < low).mean(), "above": (part.u > high).mean()}
    return {"cells": len(hit), "covered": hit.mean(), "error": error, **outside}


def section(runs: pd.DataFrame) -> str:
    """A line a column, by type, and one for all columns of a type."""
    lines = []
    for kind in TYPES:
        for _, row in runs[runs.type == kind].iterrows():
            all_of_them = pd.isna(row.column)
            cells = [f"all of {kind}", ""] if all_of_them else [row.column, f"`{row.line}`"]
            ends = "" if kind == "category" else f"{row.below:.1%} / {row.above:.1%}"
            width = "" if all_of_them else f"{row.width:.3g} of {row.margin:.3g}"
            share = f"{row.covered:.1%} ± {row.error:.1%}"
            lines.append([*cells, row.cells, share, ends, width])
    one = runs.iloc[0]
    title = f"{one.table}, {one.rows:,} rows: {one.fit:.0f} s to train, {one.draw:.0f} s to draw"
    head = ["", "line", "cells", "covered", "below / above", "width"]
    return f"## {title}\n\n{table(head, lines)}"


def main() -> None:
    """Measure what has not been measured, and publish all."""
    done = {row["table"] for row in finished(NAME)}
    for name in sys.argv[1:] or ROWS:
        if name not in done:
            for row in measure(name):
                keep(NAME, row)
    runs = pd.DataFrame(finished(NAME))
    text = (
        f"{PERCENT} % of the cells hidden completely at random; {DRAWS} draws of each by "
        f"`vae.impute(table, draws={DRAWS})`, and between the ends of their middle {LEVEL:.0%} the "
        "hidden cell, or not (of categories: among the most common levels); ties at an end are "
        "broken by chance. Widths are means, beside that of the column's own margin. Standard "
        "errors are over rows.\n\n"
    )
    parts = [section(runs[runs.table == name]) for name in ROWS if name in set(runs.table)]
    publish(NAME, "Intervals of multiple imputation", text + "\n\n".join(parts))


if __name__ == "__main__":
    main()
