"""Cells that were hidden from a table: how well each method fills them.

python benchmarks/tables/imputation.py [TABLE,TABLE] [METHOD ...]

Adult, Wine and Breast with a fifth and a half of the cells hidden at random, by the masks of the
HI-VAE study; and white wine with what is above the mean hidden in five columns (TABLE ``White``).
What has been measured is kept in ``results/tables_imputation.jsonl``.
"""

import sys
import time

import numpy as np
import pandas as pd
import paths  # noqa: F401
from common import finished, keep, publish, table
from data import read_holes
from imputers import METHODS

NAME = "tables_imputation"
TYPES = {"quantity": ("real", "pos", "count"), "ordinal": ("ordinal",), "category": ("cat",)}
PUBLISHED = {"not-MIWAE, self-masking known": 1.035, "MICE": 1.410, "missForest": 1.623}
CASES = ["Adult", "Wine", "Breast", "White"]


def errors(
    truth: pd.DataFrame, filled: pd.DataFrame, hidden: np.ndarray, kinds: dict[str, str]
) -> dict[str, float]:
    """By type: the root mean square error by the range, the distance by levels, the error rate."""
    found = {}
    for d, (c, column) in enumerate(truth.items()):
        cells = hidden[:, d] & column.notna().to_numpy()
        if not cells.any():
            continue
        x, guess = column.to_numpy(float)[cells], filled[c].to_numpy(float)[cells]
        if kinds[c] == "cat":
            found[c] = (x != guess).mean()
        elif kinds[c] == "ordinal":
            found[c] = np.abs(x - guess).mean() / column.nunique()
        else:
            found[c] = np.sqrt(((x - guess) ** 2).mean()) / (column.max() - column.min())
    by_type = {
        name: float(np.mean([e for c, e in found.items() if kinds[c] in some]))
        for name, some in TYPES.items()
        if any(kinds[c] in some for c in found)
    }
    return by_type | {"all columns": float(np.mean(list(found.values())))}


def at_random(name: str, percent: int, method: str) -> dict:
    """One table with the cells of one mask hidden."""
    data = read_holes(name)
    hidden = data.hidden[percent]
    start = time.perf_counter()
    filled = METHODS[method](data.frame.mask(hidden).astype(float), data.kinds, 0)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, **errors(data.frame, filled, hidden, data.kinds)}


def white_wine() -> tuple[pd.DataFrame, np.ndarray]:
    """The 11 measurements of white wine, standardized; and what is hidden of the first five."""
    frame = read_holes("Wine").frame
    white = frame[frame.colour == 2].iloc[:, :11].reset_index(drop=True)
    white = (white - white.mean()) / white.std(ddof=0)
    hidden = (white > 0).to_numpy()
    hidden[:, 5:] = False
    return white, hidden


def not_at_random(method: str) -> dict:
    """Self-masking: the root mean square error of standardized cells."""
    white, hidden = white_wine()
    start = time.perf_counter()
    filled = METHODS[method](white.mask(hidden), dict.fromkeys(white, "real"), 0)
    seconds = time.perf_counter() - start
    gap = (filled.to_numpy(float) - white.to_numpy())[hidden]
    return {"seconds": seconds, "RMSE": float(np.sqrt((gap**2).mean()))}


def sections(runs: pd.DataFrame) -> str:
    """A table for each case, methods below one another."""
    parts = []
    for (name, percent), some in runs.groupby(["table", "percent"], sort=False):
        figures = [
            c for c in (*TYPES, "all columns", "RMSE") if c in some and some[c].notna().any()
        ]
        lines = [
            [row.method, *(f"{row[f]:.3f}" for f in figures), f"{row.seconds:.0f}"]
            for _, row in some.sort_values(
                "method", key=lambda m: m.map([*METHODS].index)
            ).iterrows()
        ]
        title = f"{name}, {percent} % of the cells hidden"
        if name == "White":
            lines += [[f"published: {k}", f"{v:.3f}", ""] for k, v in PUBLISHED.items()]
            title = "White wine, five columns hidden where above their mean"
        parts.append(f"## {title}\n\n{table(['', *figures, 'seconds'], lines)}")
    return "\n\n".join(parts)


def main() -> None:
    """Measure what has not been measured, and publish all."""
    cases = sys.argv[1].split(",") if len(sys.argv) > 1 else CASES
    done = {(r["table"], r["percent"], r["method"]) for r in finished(NAME)}
    for name in cases:
        for percent in (0,) if name == "White" else (20, 50):
            for method in sys.argv[2:] or [*METHODS]:
                if (name, percent, method) in done:
                    continue
                one = not_at_random(method) if name == "White" else at_random(name, percent, method)
                keep(NAME, {"table": name, "percent": percent, "method": method, **one})
    runs = pd.DataFrame(finished(NAME))
    runs = runs.iloc[np.lexsort([runs.percent, runs.table.map(CASES.index)])]
    text = (
        "Quantities: root mean square error by the column's range; ordinals: distance by the "
        "number of levels; categories: share of wrong ones; the mean over columns, as in Nazabal "
        "et al. (2020), arXiv:1807.03653, whose masks these are. White wine: root mean square "
        "error in standard deviations, as Ipsen et al. (2021), arXiv:2006.12871, who published the "
        "figures below; pyro_vae takes its holes for random here, as the others do: with the mask "
        "declared it is in white_wine.md. KNNImputer looks among 5,000 rows; miceforest is the "
        "mean or mode of five tables; of Adult, whose categories are rare in part, it ends in an "
        "error with its defaults (6.0.5). The seconds of pyro_vae, and all of Adult's, were taken "
        "beside other work; those of Adult and of the other methods on an Intel. A VAE trains for "
        "200 epochs with its defaults, of Adult for 40 in batches of 500 with `cosine(5e-3)`, and "
        "100 draws of z a row in place of 1,000. The KL is weighed from .1 up there: with half of "
        "the cells gone z stayed empty. With 200 epochs and a weight of 1 the errors of Adult with "
        "a fifth hidden had been .106, .107, .322 and .214.\n\n"
    )
    publish(NAME, "Missing cells of tables", text + sections(runs))


if __name__ == "__main__":
    main()
