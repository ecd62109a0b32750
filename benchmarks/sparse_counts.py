"""Training on a sparse matrix of counts: rows a second, and the memory that it takes.

``python benchmarks/sparse_counts.py`` simulates 100,000 rows of 2,000 columns, 5 % of them not
zero, trains an MLP 128 and a linear decoder at batch 512, and writes
``benchmarks/results/sparse_counts.md``.
"""

import argparse
import resource
import time

import numpy as np
from common import publish, table
from scipy import sparse

import pyro_vae as pv

LIKELIHOOD = "NegativeBinomial(total_count=learned(shared=False))"


class Processor(pv.callbacks.Callback):
    """Seconds of the processor, beside those of the clock: others may use the machine too."""

    def after_epoch(self, row: dict[str, float]) -> bool:
        """Add them to the history."""
        row["processor"] = time.process_time()
        return False


def matrix(rows: int, columns: int, density: float) -> sparse.csr_matrix:
    """Counts whose columns differ in how often they are not zero."""
    rng = np.random.default_rng(0)
    each = rng.poisson(rows * density * rng.gamma(2, 0.5, columns)).clip(1, rows)
    places = np.concatenate([rng.integers(0, rows, n) for n in each])
    at = np.repeat(np.arange(columns), each)
    counts = 1 + rng.poisson(1.0, len(at))
    rest = np.arange(rows)  # no row is empty
    places, at = np.concatenate([places, rest]), np.concatenate([at, rest % columns])
    counts = np.concatenate([counts, np.ones(rows, int)])
    return sparse.csr_matrix((counts.astype(np.float32), (places, at)), (rows, columns))


def peak() -> float:
    """GB that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Simulate, train, and publish the table."""
    say = argparse.ArgumentParser()
    say.add_argument("--rows", type=int, default=100_000)
    say.add_argument("--columns", type=int, default=2_000)
    say.add_argument("--epochs", type=int, default=3)
    told = say.parse_args()
    x = matrix(told.rows, told.columns, 0.05)
    before = peak()
    vae = pv.VAE(
        x,
        latent_dim=10,
        likelihood=LIKELIHOOD,
        offset="library",
        encoder="MLP([128])",
        decoder="MLP([])",
        seed=0,
    )
    start = time.perf_counter()
    options = {"batch_size": 512, "compile": True, "progress": False, "seed": 0}
    fitted = pv.fit(vae, x, epochs=told.epochs, callbacks=[Processor()], **options)
    whole = time.perf_counter() - start
    seconds = np.diff([0.0, *fitted.history.seconds])
    busy = np.diff(fitted.history.processor)  # of the epochs after the first, which compiles
    dense = told.rows * told.columns * 4 / 2**30
    rows = [
        ["numbers that are not zero", f"{x.nnz:,} ({x.nnz / x.shape[0] / x.shape[1]:.1%})"],
        ["rows a second, the fastest epoch", f"{told.rows / seconds.min():,.0f}"],
        ["rows a second of one processor", f"{told.rows / busy.min():,.0f}"],
        ["seconds of an epoch", ", ".join(f"{s:.1f}" for s in seconds)],
        ["seconds of fit, with checks and compilation", f"{whole:.1f}"],
        ["peak memory, GB (before the model, with the simulation)", f"{peak():.2f} ({before:.2f})"],
        ["the same matrix dense, GB", f"{dense:.2f}"],
    ]
    text = f"{told.rows:,} x {told.columns:,}, compiled.\n\n{table(['figure', 'value'], rows)}"
    publish("sparse_counts", "Training on sparse counts", text)


if __name__ == "__main__":
    main()
