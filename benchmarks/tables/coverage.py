"""Multiple imputation by a VAE: how often pooled coefficients cover their truth.

python benchmarks/tables/coverage.py [TABLES [MECHANISM [WAY ...]]]

Tables of 200 rows, y = 1 + .5 x1 + .3 x2 + e, in units of their own, with a third of the cells
hidden. A linear VAE is trained on each table with its holes, draws 20 imputations, and the least
squares fits of the 20 tables are pooled. Beside it: the table before anything was hidden, its
complete rows alone, columns filled with their means, and imputations by a normal distribution at
the maximum of the likelihood. And each imputation by a VAE that goes on from that one on rows of
the table that were drawn anew, with replacement. Figures are kept in
``results/tables_coverage.jsonl``.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import paths  # noqa: F401
from common import finished, keep, publish, table
from gaussian import imputed, maximum

import pyro_vae as pv

NAME = "tables_coverage"
ROWS, SHARE, IMPUTATIONS, LEVEL = 200, 1 / 3, 20, 0.95
UNITS = {"y": 1.0, "x1": 1000.0, "x2": 0.01}
TRUTH = np.array([1.0, 0.5, 0.3])
NAMES = ("intercept", "x1", "x2")
ESTIMATOR, EPOCHS = "RenyiELBO(alpha=0, num_particles=10)", 10
TIMES = 10  # the rows in an epoch, whose end costs as much as a step
LR, AGAIN = "cosine(0.1)", 3  # and the epochs on rows that are drawn anew
LINES = dict.fromkeys(UNITS, "Normal(scale=learned)")


def simulate(seed: int) -> pd.DataFrame:
    """A table whose regression is known."""
    rng = np.random.default_rng(seed)
    x1 = rng.normal(size=ROWS)
    x2 = 0.6 * x1 + 0.8 * rng.normal(size=ROWS)
    y = TRUTH @ [np.ones(ROWS), x1, x2] + 0.7 * rng.normal(size=ROWS)
    return pd.DataFrame({"y": y, "x1": x1, "x2": x2}) * UNITS


def regress(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients in units of 1, and their squared standard errors."""
    values = (frame / UNITS).to_numpy()
    x = np.column_stack([np.ones(len(values)), values[:, 1:]])
    inverse = np.linalg.inv(x.T @ x)
    b = inverse @ x.T @ values[:, 0]
    variance = ((values[:, 0] - x @ b) ** 2).sum() / (len(x) - 3)
    return b, variance * inverse.diagonal()


def train(vae: pv.VAE, rows: pd.DataFrame, epochs: int, seed: int) -> pv.VAE:
    """The VAE, trained on these rows."""
    often = pd.concat([rows] * TIMES, ignore_index=True)
    pv.fit(
        vae, often, estimator=ESTIMATOR, epochs=epochs, batch_size=ROWS, lr=LR, seed=seed,
        progress=False,
    )  # fmt: skip
    return vae


def start(holed: pd.DataFrame, seed: int) -> pv.VAE:
    """A VAE that is trained on the table with its holes."""
    data = pv.Table.from_frame(holed, likelihood=LINES)
    vae = pv.VAE(data, 1, encoder="MLP([16])", decoder="MLP([])", seed=seed)
    return train(vae, holed, EPOCHS, seed)


def imputations(holed: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """Draws of one VAE."""
    return start(holed, seed).impute(holed, draws=IMPUTATIONS, num_samples=300, seed=seed)


def resampled(holed: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """A draw of each of so many VAEs, whose rows are drawn anew with replacement."""
    first, drawn = start(holed, seed), []
    for k in range(seed * IMPUTATIONS, (seed + 1) * IMPUTATIONS):
        rows = holed.sample(frac=1, replace=True, random_state=k)
        vae = train(deepcopy(first), rows, AGAIN, k)
        drawn += vae.impute(holed, draws=1, num_samples=300, seed=k)
    return drawn


def exact(holed: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """Draws of the normal distribution that fits best."""
    x, rng = (holed / UNITS).to_numpy(), np.random.default_rng(seed)
    best = maximum(x)
    drawn = [imputed(x, best, rng) for _ in range(IMPUTATIONS)]
    return [pd.DataFrame(each, columns=[*UNITS]) * UNITS for each in drawn]


def interval(frames: list[pd.DataFrame]) -> pv.Pooled:
    """Pooled coefficients; those of one table as of two that agree."""
    each = [regress(frame) for frame in (frames if len(frames) > 1 else frames * 2)]
    df = len(frames[0]) - len(TRUTH)
    return pv.pool([b for b, _ in each], [v for _, v in each], df_complete=df)


Way = Callable[[pd.DataFrame, pd.DataFrame, int], list[pd.DataFrame]]
WAYS: dict[str, Way] = {  # of the whole table, that with holes, and a seed
    "nothing hidden": lambda whole, holed, seed: [whole],
    "complete rows": lambda whole, holed, seed: [holed.dropna()],
    "filled with means": lambda whole, holed, seed: [holed.fillna(holed.mean())],
    f"{IMPUTATIONS} imputations at the maximum of the likelihood": (
        lambda whole, holed, seed: exact(holed, seed)
    ),
    f"{IMPUTATIONS} imputations of a VAE": lambda whole, holed, seed: imputations(holed, seed),
    f"{IMPUTATIONS} imputations, a VAE of drawn rows for each": (
        lambda whole, holed, seed: resampled(holed, seed)
    ),
}


def study(mechanism: Any, tables: int, names: Sequence[str]) -> list[list[str]]:  # noqa: ANN401
    """A row a way: the share of intervals that cover, bias and width, by coefficient."""
    found: dict[str, list[pv.Pooled]] = {name: [] for name in names}
    begun = time.perf_counter()
    for seed in range(tables):
        whole = simulate(seed)
        holed = pv.ampute(whole, mechanism, SHARE, seed=seed)
        for name in names:
            found[name].append(interval(WAYS[name](whole, holed, seed)))
        if seed % 20 == 19:
            print(mechanism, seed + 1, f"{time.perf_counter() - begun:.0f} s", flush=True)
    return [[mechanism, name, *figures(pooled)] for name, pooled in found.items()]


def figures(pooled: list[pv.Pooled]) -> list[str]:
    """Coverage with its standard error, bias in standard errors of the mean, and mean width."""
    ends = np.array([p.interval(LEVEL) for p in pooled])
    covered = ((ends[:, 0] <= TRUTH) & (ends[:, 1] >= TRUTH)).astype(float)
    estimates, n = np.array([p.estimate for p in pooled]), len(pooled)
    z = (estimates.mean(0) - TRUTH) / (estimates.std(0, ddof=1) / math.sqrt(n))
    width = (ends[:, 1] - ends[:, 0]).mean(0)
    error = covered.mean(1).std(ddof=1) / math.sqrt(n)
    each = " / ".join(f"{c:.1%}" for c in covered.mean(0))
    return [
        f"{covered.mean():.1%} ± {error:.1%}", each, " / ".join(f"{v:+.1f}" for v in z),
        " / ".join(f"{w:.3f}" for w in width),
    ]  # fmt: skip


def main() -> None:
    """One mechanism after the other; what is done is published, the last of each way."""
    tables = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    for mechanism in sys.argv[2:3] or ["MCAR", "MAR"]:
        begun = time.process_time()
        rows = study(mechanism, tables, sys.argv[3:] or [*WAYS])
        seconds = round(time.process_time() - begun)
        keep(NAME, {"mechanism": mechanism, "tables": tables, "seconds": seconds, "rows": rows})
        publish(NAME, "Pooled regression coefficients", page())


def page() -> str:
    """The last study of each mechanism and way."""
    runs = finished(NAME)
    head = ["holes", "table", "tables", "coverage"]
    head += [f"{what}: {', '.join(NAMES)}" for what in ("coverage", "bias, z", "width")]
    rows = {(row[0], row[1]): [*row[:2], run["tables"], *row[2:]]
            for run in runs for row in run["rows"]}  # fmt: skip
    text = (
        f"Tables of {ROWS} rows each, {SHARE:.0%} of the cells hidden; intervals of {LEVEL:.0%}. "
        f"{sum(run['seconds'] for run in runs)} s of the processor in all. "
        "A linear VAE with one factor and a scale of the noise for each column (one scale for all, "
        "in units of their spreads, is probabilistic PCA, which cannot hold these covariances), "
        f"`{ESTIMATOR}`, {EPOCHS * TIMES} steps of {ROWS} rows, trained anew on each table. Its "
        "imputations are drawn at the parameters that it was trained to, as are those at the "
        "maximum of the likelihood (by EM, of a normal distribution of the three columns): what "
        "is not known of the parameters is not in them, so that intervals are too narrow. It is in "
        f"those of VAEs that go on for {AGAIN * TIMES} steps, each on rows of the table that were "
        "drawn anew, with replacement (Rubin 1987; van Buuren 2018, 3.1).\n\n"
    )
    order = sorted(rows, key=lambda key: (key[0] != "MCAR", [*WAYS].index(key[1])))
    return text + table(head, [rows[key] for key in order])


if __name__ == "__main__":
    main()
