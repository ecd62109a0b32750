"""Multiple imputation by a VAE: how often pooled coefficients cover their truth.

python benchmarks/tables/coverage.py [TABLES [MECHANISM ...]]

Tables of 200 rows, y = 1 + .5 x1 + .3 x2 + e, in units of their own, with a third of the cells
hidden. A linear VAE is trained on each table with its holes, draws 20 imputations, and the least
squares fits of the 20 tables are pooled. Beside it: the table before anything was hidden, its
complete rows alone, columns filled with their means, and imputations by a normal distribution at
the maximum of the likelihood. The figures of a mechanism are kept in
``results/tables_coverage.jsonl``.
"""

import math
import sys
import time
from typing import Literal

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
EXACT = f"{IMPUTATIONS} imputations at the maximum of the likelihood"
LR = "cosine(0.1)"
LINES = {name: "Normal(scale=learned(shared=False))" for name in UNITS}  # one a column


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


def imputations(holed: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """Draws of a VAE that was trained on the table with its holes."""
    often = pd.concat([holed] * TIMES, ignore_index=True)
    data = pv.Table.from_frame(often, likelihood=LINES)
    vae = pv.VAE(data, 1, encoder="MLP([16])", decoder="MLP([])", seed=seed)
    pv.fit(
        vae, data, estimator=ESTIMATOR, epochs=EPOCHS, batch_size=ROWS, lr=LR, seed=seed,
        progress=False,
    )  # fmt: skip
    return vae.impute(holed, draws=IMPUTATIONS, num_samples=300, seed=seed)


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


def study(mechanism: Literal["MCAR", "MAR"], tables: int) -> list[list[str]]:
    """A row a way: the share of intervals that cover, bias and width, by coefficient."""
    found: dict[str, list[pv.Pooled]] = {}
    start = time.perf_counter()
    for seed in range(tables):
        whole = simulate(seed)
        holed = pv.ampute(whole, mechanism, SHARE, seed=seed)
        ways = {
            "nothing hidden": [whole],
            "complete rows": [holed.dropna()],
            "filled with means": [holed.fillna(holed.mean())],
            EXACT: exact(holed, seed),
            f"{IMPUTATIONS} imputations of a VAE": imputations(holed, seed),
        }
        for name, frames in ways.items():
            found.setdefault(name, []).append(interval(frames))
        if seed % 20 == 19:
            print(mechanism, seed + 1, f"{time.perf_counter() - start:.0f} s", flush=True)
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
    """The mechanisms one after the other; what is done is published, the last of each."""
    tables = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    for mechanism in sys.argv[2:] or ["MCAR", "MAR"]:
        start = time.process_time()
        rows = study(mechanism, tables)  # pyright: ignore[reportArgumentType]
        seconds = time.process_time() - start
        about = {"mechanism": mechanism, "tables": tables, "seconds": round(seconds)}
        keep(NAME, about | {"rows": rows})
        publish(NAME, "Pooled regression coefficients", page())


def page() -> str:
    """The last study of each mechanism."""
    studies = {run["mechanism"]: run for run in finished(NAME)}
    head = ["holes", "table", "coverage"]
    head += [f"{what}: {', '.join(NAMES)}" for what in ("coverage", "bias, z", "width")]
    sizes = ", ".join(
        f"{run['tables']} tables with holes {name} ({run['seconds']} s of the processor)"
        for name, run in studies.items()
    )
    text = (
        f"{sizes}, of {ROWS} rows each, {SHARE:.0%} of the cells hidden; intervals of {LEVEL:.0%}. "
        "A linear VAE with one factor and a scale of the noise for each column (one scale for all, "
        "in units of their spreads, is probabilistic PCA, which cannot hold these covariances), "
        f"`{ESTIMATOR}`, {EPOCHS * TIMES} steps of {ROWS} rows, trained anew on each table. Its "
        "imputations are drawn at the parameters that it was trained to, as are those at the "
        "maximum of the likelihood (by EM, of a normal distribution of the three columns): what "
        "is not known of the parameters is not in them, so that intervals are too narrow.\n\n"
    )
    return text + table(head, [row for run in studies.values() for row in run["rows"]])


if __name__ == "__main__":
    main()
