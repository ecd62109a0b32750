"""What a step and an epoch cost: this package beside its peers, in one run on one machine.

    PEERS=FOLDER python benchmarks/speed.py [--rounds 60] [--only NAME] [--threads 2]
        [--peers] [--device cuda]

VAE 784-200-200-50 (tanh), Bernoulli, batches of 100 and 1,000; `peers.py` says who they are. The
peers take turns in short rounds, so that a drift of the machine's speed meets all. A step is
measured on ready bits, an epoch on MNIST with its order, fresh bits and batches. Then what an epoch
costs by the number of data and of processes, and a step by ``num_particles``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import RESULTS, mnist, publish, table
from matplotlib import pyplot
from peers import (
    ELBO,
    PEERS,
    Peer,
    Trace_ELBO,
    by_svi,
    compiled,
    fit_epoch,
    fused_adam,
    timed,
    versions,
)
from torch import Tensor

BATCHES, STEPS = (100, 1000), 25
LARGEST = 10_000  # a further batch, on a GPU
STOCK, FLOOR = "Pyro SVI, as its tutorial", "matrix products alone"
PARTICLES, DATA = (1, 2, 4, 8, 16), (7500, 15_000, 30_000, 60_000)


def turns(runs: Mapping[Any, Callable[[], float]], rounds: int, warm: int = 1) -> pd.DataFrame:
    """Seconds, a column each: each in turn, round by round, after rounds that are not counted."""
    found = [{name: run() for name, run in runs.items()} for _ in range(warm + rounds)]
    return pd.DataFrame(found[warm:])


def fewer(rounds: int) -> int:
    """Rounds of epochs, each of which takes seconds."""
    return -(-rounds // 12)


def unstacked(found: pd.DataFrame) -> pd.DataFrame:
    """Medians of columns of two names, a row for each first one and a column for each second."""
    found.columns = pd.MultiIndex.from_tuples(found.columns, names=["", None])
    return found.median().unstack()


def crossing() -> float:
    """How much longer a core takes to read what the other wrote than what it wrote itself.

    A virtual machine's two cores share a cache at one time (1.5) and at another do not (5), which
    makes steps of small batches take up to twice their time; nothing in the machine says which.
    """
    halves, into = torch.zeros(2, 2, 2**18)

    def seconds(read: Callable[[], object]) -> float:
        times, reading = [], timed(read)
        for _ in range(40):
            halves.add_(1)
            times.append(reading())
        return float(np.median(times))

    def others() -> None:
        for i in range(2):
            torch.add(halves[1 - i], 1, out=into[i])

    return seconds(others) / seconds(lambda: torch.add(halves, 1, out=into))


def make_peers(bits: Tensor, grey: Tensor, only: list[str]) -> dict[str, Peer]:
    """Those that are asked for and installed."""
    found = {}
    for name, make in PEERS.items():
        served = bits.is_cuda or "CUDA" not in name
        if served and (not only or any(word in name for word in only)):
            try:
                found[name] = make(bits, grey)
            except ImportError as problem:
                print(f"{name} is left out: {problem}")
    return found


def ready(grey: Tensor, batch: int) -> Tensor:
    """Bits ``(STEPS, batch, 784)``."""
    rows = torch.arange(STEPS * batch) % len(grey)
    return torch.bernoulli(grey[rows.to(grey.device)]).reshape(STEPS, batch, -1)


def beside_peers(grey: Tensor, rounds: int, only: list[str]) -> pd.DataFrame:
    """A row for each batch size and peer: milliseconds a step, seconds an epoch, ratios.

    ``close`` is the median of the rounds, ``in`` so many, in which the cores shared a cache.
    """
    parts = []
    for batch in (*BATCHES, LARGEST) if grey.is_cuda else BATCHES:
        peers = make_peers(ready(grey, batch), grey, only)
        found = turns({"apart": crossing, **{k: p.steps for k, p in peers.items()}}, rounds)
        close, steps = found.pop("apart") < 2.5, 1000 / STEPS * found
        epochs = turns({k: p.epoch for k, p in peers.items()}, fewer(rounds))
        part = pd.DataFrame({
            "batch": batch, "step, ms": steps.median(), "minimum": steps.min(),
            "close": steps[close].median(), "in": close.sum(),
            "epoch, s": epochs.median(), "its minimum": epochs.min(),
        })  # fmt: skip
        for base, short in ((STOCK, "stock Pyro"), (FLOOR, "products")):
            if base in part.index:
                for what in ("step, ms", "close", "epoch, s"):
                    part[f"{what.split(',')[0]} / {short}"] = part[what] / part[what][base]
        parts.append(part)
    return pd.concat(parts).rename_axis("").reset_index()


def by_particles(grey: Tensor, rounds: int) -> pd.DataFrame:
    """Milliseconds per step at batch 100, a row a number of particles."""
    bits = ready(grey, 100)

    def elbo(k: int, wrap: Callable[[ELBO], ELBO]) -> ELBO:
        return wrap(Trace_ELBO(num_particles=k, vectorize_particles=True, max_plate_nesting=1))

    runs = {
        (k, kind): by_svi(fused_adam, partial(elbo, k, wrap), False)(bits, grey).steps
        for kind, wrap in (("eager", lambda e: e), ("compiled", compiled))
        for k in PARTICLES
    }
    return unstacked(turns(runs, rounds) * 1000 / STEPS).rename_axis("particles")


def by_data(grey: Tensor, rounds: int) -> pd.Series:
    """Seconds of an epoch of ``fit`` at batch 100 by the number of data."""
    runs = {str(n): partial(fit_epoch, grey[:n], 100, compile=True) for n in DATA}
    return turns(runs, rounds, 0).median()


def by_processes(grey: Tensor, rounds: int) -> pd.DataFrame:
    """Seconds of an epoch on the command line at a global batch of 1,000, by way of running it."""
    both = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    names = {"1 process, 2 threads": ([], 2), "2 processes, 1 thread each": (both, 1)}
    told = "--epochs 5 --batch-size 1000 --latent-dim 50 --binarize dynamic --validation 0.01"

    def seconds(launcher: list[str], threads: int, how: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            np.savez(f"{folder}/x.npz", train=grey.numpy(), test=grey[:1000].numpy())
            command = [sys.executable, *launcher, "-m", "pyro_vae", "fit", f"{folder}/x.npz"]
            subprocess.run(
                [*command, *told.split(), how, "--out", f"{folder}/run"], check=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            return pd.read_csv(Path(folder, "run", "history.csv")).seconds.diff().median()

    ways = {
        (how, name): partial(seconds, *way, how)
        for how in ("--compile=false", "--compile=true") for name, way in names.items()
    }  # fmt: skip
    return unstacked(turns(ways, rounds, 0))


def draw(peers: pd.DataFrame, particles: pd.DataFrame, data: pd.Series) -> None:
    """The picture of the three."""
    figure, axes = pyplot.subplots(1, 4, figsize=(15, 4), layout="constrained")
    for ax, (batch, part) in zip(axes, peers.groupby("batch"), strict=False):
        ours = part[""].str.startswith("pyro_vae")
        ax.barh(part[""], part["step, ms"], color=ours.map({True: "C0", False: "0.7"}))
        ax.set(xlabel=f"ms per step, batch {batch:,}")
        ax.invert_yaxis()
    axes[1].set_yticks([])
    particles.plot(ax=axes[2], marker="o", ylabel="ms per step, batch 100", ylim=(0, None))
    axes[3].plot(data.index.astype(int), data.to_numpy(), marker="o")
    axes[3].set(xlabel="data", ylabel="s per epoch, batch 100", xlim=(0, None), ylim=(0, None))
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "speed.png", dpi=130)
    pyplot.close(figure)


def page(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table with figures of two decimals."""
    cells = frame.map(lambda v: f"{v:.2f}" if isinstance(v, float) else str(v))
    return table(list(map(str, cells.columns)), cells.to_numpy().tolist())


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60, help="of steps; a twelfth of epochs")
    parser.add_argument("--only", nargs="*", default=[], help="peers whose name holds a word")
    parser.add_argument("--data", type=int, default=60_000, help="of MNIST's training data")
    parser.add_argument("--threads", type=int, help="of PyTorch; its own choice without")
    parser.add_argument("--peers", action="store_true", help="they alone, to speed_peers.md")
    parser.add_argument("--device", default="cpu", help="cuda: the peers alone, to speed_cuda.md")
    told = parser.parse_args()
    torch.manual_seed(0)
    if told.threads:
        torch.set_num_threads(told.threads)
    grey, few = mnist().train.flatten(1)[: told.data].to(told.device), fewer(told.rounds)
    peers = beside_peers(grey, told.rounds, told.only)
    print(page(peers))
    how = (
        f"784-200-200-50 (tanh), Bernoulli, Adam; medians of {told.rounds} rounds of {STEPS} "
        f"steps, and of {few} epochs of {len(grey):,} images with their order, fresh bits and "
        "batches. ``close``: the rounds, ``in`` so many, in which the two cores shared a cache. "
        f"{torch.get_num_threads()} threads; {versions() or 'no further peers'}."
    )
    if told.peers or told.device != "cpu":
        name = "peers" if told.device == "cpu" else told.device
        publish(f"speed_{name}", "What a step and an epoch cost", f"{how}\n\n{page(peers)}")
        return
    particles, data = by_particles(grey, 4 * few), by_data(grey, few)
    processes = by_processes(grey, 2 * few)
    draw(peers, particles, data)
    parts = {
        "## Beside its peers": peers,
        "## A step at batch 100 by `num_particles`, ms": particles.reset_index(),
        "## An epoch of `fit` at batch 100 by the number of data, s": data.to_frame().T,
        "## An epoch at a global batch of 1,000 by processes, s": processes.reset_index(),
    }
    text = "\n\n".join(f"{head}\n\n{page(part)}" for head, part in parts.items())
    how = f"{how} By processes: medians of {2 * few} runs."
    publish("speed", "What a step and an epoch cost", f"{how}\n\n![speed](speed.png)\n\n{text}")


if __name__ == "__main__":
    main()
