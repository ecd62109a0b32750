"""Training on mixed tables: rows a second, memory, and what a wide table costs.

``python benchmarks/tables/speed.py`` simulates 100,000 rows of 50 and of 300 columns (half normal,
a fifth log-normal, a fifth categories, a tenth counts), trains an MLP 128-128 at batch 1,000, and
writes ``benchmarks/results/tables_speed.md``.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import processor

import pyro_vae as pv

RESULTS = Path(__file__).parents[1] / "results" / "tables_speed.md"
ROWS, EPOCHS = 100_000, 6
NETS = {"encoder": "MLP([128, 128])", "decoder": "MLP([128, 128])", "seed": 0}


def table(columns: int) -> pv.Table:
    """Columns that share ten factors."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(ROWS, 10))
    mean = z @ rng.normal(size=(10, columns)) / 3
    noise = rng.normal(size=mean.shape)
    made, lines = {}, {}
    for i in range(columns):
        name, u = f"c{i}", mean[:, i] + noise[:, i]
        kind = ("n", "n", "n", "n", "n", "l", "l", "k", "k", "p")[i % 10]
        made[name] = {
            "n": lambda u=u, i=i: 10 * i + u * (1 + i),
            "l": lambda u=u: np.exp(u + 5),
            "k": lambda u=u: np.array(list("abcde"))[np.digitize(u, [-1, -0.3, 0.3, 1])],
            "p": lambda u=u: rng.poisson(np.exp(u / 2 + 1)),
        }[kind]()
        lines[name] = {"n": "Normal", "l": "LogNormal", "p": "Poisson"}.get(kind)
    lines = {name: line for name, line in lines.items() if line}
    return pv.Table.from_frame(pd.DataFrame(made), likelihood=lines)


def measure(columns: int, compiled: bool) -> dict[str, float]:
    """Seconds of an epoch, the least of those after the first."""
    start = time.perf_counter()
    data = table(columns)
    read = time.perf_counter() - start
    vae = pv.VAE(data, 10, **NETS)
    fitted = pv.fit(
        vae, data, epochs=EPOCHS, batch_size=1000, seed=0, compile=compiled, progress=False
    )
    seconds = np.diff(fitted.history.seconds)
    return {
        "columns": columns,
        "compiled": compiled,
        "blocks": len(vae.record.blocks),
        "seconds an epoch": float(seconds.min()),
        "rows a second": ROWS / float(seconds.min()),
        "seconds to read": read,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "ELBO": float(fitted.history.elbo_train.iloc[-1]),
    }


def main() -> None:
    found = pd.DataFrame([measure(c, k) for c, k in ((50, True), (300, True), (50, False))])
    text = found.round(2).to_string(index=False)
    RESULTS.write_text(f"# Training on tables\n\n{processor()}\n\n```\n{text}\n```\n")
    print(text)


if __name__ == "__main__":
    main()
