"""How the cost of a step grows, and that of an epoch of rows on disk, with fitted exponents.

    python benchmarks/growth.py [--rounds 5] [--only WORD ...] [--compile] [--most 1.0] [--cpu]

One size grows at a time, the others stay: 784-200-200-50, batch 100. The exponent is the slope of
log cost over log size by least squares over all sizes, which the part that does not grow draws
down, and that between the two largest sizes alone. ``--most .1`` leaves out sizes above a tenth of
the largest.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import publish, table
from kinds import BATCH, Kind, mlps, peak, stepper
from torch import Tensor

import pyro_vae as pv

Make = Callable[[int], tuple[pv.VAE, Tensor]]


@dataclass(frozen=True)
class Axis:
    """Sizes, and what is measured at one: a model with a batch, by a line of an estimator."""

    sizes: tuple[int, ...]
    make: Make
    estimator: str = "Trace_ELBO"


def model(x_dim: int = 784, latent: int | None = 50, **parts: object) -> tuple[pv.VAE, Tensor]:
    x = torch.rand(BATCH, x_dim).lt(0.3).float()
    return pv.VAE(x_dim, latent, **mlps(200, 200), seed=0, **parts), x


def columns(n: int) -> tuple[pv.VAE, Tensor]:
    rng = np.random.default_rng(0)
    levels = np.array(list("abcd"))
    made = {
        f"c{i}": rng.normal(size=BATCH) if i % 2 else levels[np.arange(BATCH) % 4] for i in range(n)
    }
    data = pv.Table.from_frame(pd.DataFrame(made))
    vae = pv.VAE(data, 10, **mlps(128, 128), seed=0)
    return vae, vae.as_data(data)


AXES = {
    "D, cells of x": Axis((1250, 2500, 5000, 10_000, 20_000), model),
    "z, latent dimensions": Axis((32, 64, 128, 256, 512), lambda n: model(latent=n)),
    "z, full covariance": Axis(
        (32, 64, 128, 256), lambda n: model(latent=n, guide="MultivariateNormal")
    ),
    "K, particles of IWAE": Axis((4, 8, 16, 32, 64), lambda n: model(), "RenyiELBO(alpha=0)"),
    "components of VampPrior": Axis(
        (125, 250, 500, 1000, 2000), lambda n: model(prior=f"VampPrior(components={n})")
    ),
    "columns of a table": Axis((25, 50, 100, 200, 400), columns),
    "layers of z": Axis((1, 2, 4, 8), lambda n: model(latent=None, layers=[20] * n)),
}


def step_cost(axis: Axis, size: int, told: argparse.Namespace) -> tuple[float, float]:
    """The least milliseconds of a step, and MiB of tensors that it holds at once."""
    line = axis.estimator
    if line.startswith("RenyiELBO"):
        line = f"RenyiELBO(alpha=0, num_particles={size})"
    clock = time.process_time if told.cpu else time.perf_counter
    run = stepper(
        Kind(lambda: axis.make(size), line), "compiled" if told.compile else "eager", "cpu"
    )
    run(), run()
    least = np.inf
    for _ in range(told.rounds):
        start = clock()
        run()
        least = min(least, clock() - start)
    return 1000 * least, peak(run, "cpu")


def epoch_cost(n: int) -> float:
    """Milliseconds of an epoch of so many rows of 20 columns in a file, the second one's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, 20))
        for start in range(0, n, 100_000):
            rows[start : start + 100_000] = np.random.default_rng(start).normal(
                size=(min(100_000, n - start), 20)
            )
        rows.flush()
        vae = pv.VAE(20, 2, likelihood="Normal", **mlps(16), seed=0)
        data = np.load(path, mmap_mode="r")
        fitted = pv.fit(vae, data, epochs=2, batch_size=1000, compile=False, progress=False)
        return 1000 * float(fitted.history.seconds.diff().iloc[-1])


def exponents(sizes: Sequence[int], costs: Sequence[float]) -> tuple[float, float]:
    """The slope of log cost over log size: of all, and of the last two."""
    x, y = np.log(sizes), np.log(costs)
    return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="axes whose name holds a word")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--most", type=float, default=1.0, help="of the largest size, at most")
    parser.add_argument("--cpu", action="store_true", help="CPU time of one thread")
    told = parser.parse_args()
    if told.cpu:
        torch.set_num_threads(1)
    rows = []

    def add(name: str, sizes: Sequence[int], found: Sequence[tuple[float, float]]) -> None:
        costs, memory = zip(*found, strict=True)
        whole, last = exponents(sizes, costs)
        rows.append([
            name, ", ".join(f"{n:,}" for n in sizes), ", ".join(f"{c:.1f}" for c in costs),
            ", ".join("-" if m != m else f"{m:.0f}" for m in memory), f"{whole:.2f}", f"{last:.2f}",
        ])  # fmt: skip
        print(rows[-1], flush=True)

    def allowed(sizes: Sequence[int]) -> list[int]:
        return [n for i, n in enumerate(sizes) if i < 2 or n <= told.most * max(sizes)]

    def wanted(name: str) -> bool:
        return not told.only or any(word in name for word in told.only)

    name = "N, rows of a file (an epoch)"
    if wanted(name):
        sizes = allowed((10_000, 30_000, 100_000, 300_000, 1_000_000))
        add(name, sizes, [(epoch_cost(n), np.nan) for n in sizes])
    for name, axis in AXES.items():
        if wanted(name):
            sizes = allowed(axis.sizes)
            add(name, sizes, [step_cost(axis, n, told) for n in sizes])
    head = ["what grows", "sizes", "ms", "MiB held", "exponent", "of the last two"]
    how = (
        f"A step at batch {BATCH}, {'compiled' if told.compile else 'eager'}, the least of "
        f"{told.rounds}; an epoch is timed once. {'CPU time' if told.cpu else 'Time'} of "
        f"{torch.get_num_threads()} threads."
    )
    publish("growth", "How cost grows", f"{how}\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
