"""Simulated cells by our `fit` and by scvi-tools' SCVI: equal networks, batches and epochs.

    python -m venv /some/where; /some/where/bin/pip install scvi-tools
    python benchmarks/cells_peer.py --peer /some/where/bin/python

The cells are those of ``benchmarks/cells.py``, by seed. Both have an encoder and a decoder of one
layer of 128, 10 latent dimensions, negative binomial counts with a dispersion for each gene, the
batch as a condition, and the total of a cell as its exposure. Held-out figures are of log p(x |
total, batch) with all constants, nats a cell. They take turns, seed by seed; seconds are those of
an epoch, on the clock and of the process on the processor, which other work does not change.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cells import Truth
from common import finished, keep, publish, table
from scipy import sparse

import pyro_vae as pv

LATENT, HIDDEN, BATCH, WARM = 10, 128, 128, 20
OURS = {"ours": "cosine(1e-2)"}
THEIRS = {"SCVI, its own lr": 1e-3, "SCVI": 4e-3}


class Clock(pv.callbacks.Callback):
    """Seconds at the end of each epoch."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def after_epoch(self, row: dict) -> bool:
        self.ends.append((time.perf_counter(), time.process_time()))
        return False


Rate = str | float


def ours(train: pv.Counts, test: pv.Counts, lr: Rate, told: argparse.Namespace, seed: int) -> dict:
    """Train by `fit`, compiled."""
    vae = pv.VAE(
        train,
        latent_dim=LATENT,
        condition="~ C(batch)",
        offset="library",
        likelihood="NegativeBinomial(total_count=learned(shared=False))",
        encoder=f"MLP([{HIDDEN}])",
        decoder=f"MLP([{HIDDEN}])",
        seed=seed,
    )
    clock = Clock()
    pv.fit(
        vae,
        train,
        epochs=told.epochs,
        batch_size=BATCH,
        lr=lr,
        beta=f"linear(3, 1, epochs={WARM})",
        seed=seed,
        compile=True,
        callbacks=[clock],
        progress=False,
    )
    bound = pv.log_evidence(vae, test, num_samples=500, seed=0).log_evidence
    return {
        "seconds": np.diff(clock.ends, axis=0).tolist(),
        "elbo": pv.elbo(vae, test, num_samples=16, seed=0).tolist(),
        "bound": bound.tolist(),
    }


def theirs(train: pv.Counts, test: pv.Counts, lr: Rate, told: argparse.Namespace, s: int) -> dict:
    """Train by SCVI, in another interpreter."""
    script = Path(__file__).with_name("scvi_peer.py")
    with tempfile.TemporaryDirectory() as folder:
        for name, part in (("train", train), ("test", test)):
            sparse.save_npz(Path(folder, f"{name}.npz"), part.x)
            part.obs.to_csv(Path(folder, f"{name}.csv"), index=False)
        options = {"epochs": told.epochs, "batch": BATCH, "hidden": HIDDEN, "latent": LATENT}
        options |= {"warmup": WARM, "lr": lr, "threads": told.threads, "seed": s}
        words = [w for name, value in options.items() for w in (f"--{name}", str(value))]
        subprocess.run([told.peer, script, folder, *words], check=True)
        return json.loads(Path(folder, "figures.json").read_text())


def line(name: str, runs: list[dict], best: list[dict]) -> list[str]:
    """Of a model: means over cells and seeds, and differences to ours, paired by cell."""
    elbo, bound = (np.array([run[k] for run in runs]) for k in ("elbo", "bound"))
    less = np.array([run["bound"] for run in best]) - bound
    own, other = (np.array([np.median(r["seconds"], 0) for r in some]) for some in (runs, best))
    ratio = other / own
    cells = [name, f"{elbo.mean():.1f}", f"{bound.mean():.1f}"]
    by_seed = ", ".join(f"{v:.1f}" for v in less.mean(1))
    cells += [f"{less.mean():.1f} ± {less.std() / less.size**0.5:.1f} ({by_seed})"]
    cells += [f"{s:.2f}" for s in own.mean(0)]
    return cells + [f"{r.mean():.2f} ({', '.join(f'{v:.2f}' for v in r)})" for r in ratio.T]


def main() -> None:
    """Simulate, train both in turns, measure."""
    say = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    say.add_argument("--peer", required=True, help="a Python that has scvi-tools")
    say.add_argument("--seeds", type=int, default=3)
    say.add_argument("--epochs", type=int, default=60)
    say.add_argument("--cells", type=int, default=5000)
    say.add_argument("--genes", type=int, default=2000)
    say.add_argument("--threads", type=int, default=2)
    say.add_argument("--busy", action="store_true", help="other work was on the machine")
    told = say.parse_args()
    torch.set_num_threads(told.threads)
    names: dict[str, Rate] = {**OURS, **THEIRS}
    runs: dict[str, list[dict]] = {name: [] for name in names}
    size = {"cells": told.cells, "genes": told.genes, "epochs": told.epochs}
    for seed in range(told.seeds):
        drawn = Truth.draw(told.genes, seed).sample(told.cells, seed + 1)
        obs = pd.DataFrame({"batch": np.where(drawn["batch"].numpy() > 0, "one", "two")})
        data = pv.Counts(sparse.csr_matrix(drawn["x"].numpy()), obs)
        n = told.cells * 9 // 10
        for name, lr in names.items():
            about = {"model": name, "lr": lr, "threads": told.threads, "seed": seed, **size}
            done = [row for row in finished("cells_peer") if about.items() <= row.items()]
            if not done:
                train = ours if name in OURS else theirs
                done = [about | train(data[:n], data[n:], lr, told, seed)]
                keep("cells_peer", done[0])
            runs[name].append(done[0])
            print(name, seed, np.median(done[0]["seconds"], 0), np.mean(done[0]["bound"]))
    version = runs["SCVI"][0]["version"]
    rows = [line(name, part, runs["ours"]) for name, part in runs.items()]
    head = ["model", "ELBO", "bound of 500 draws", "below ours", "seconds", "of the processor"]
    head += ["ours / its, on the clock", "of the processor"]
    settings = ", ".join(f"{name} {lr}" for name, lr in names.items())
    clock = "; the clock's hold other work, and those of the processor alone compare"
    clock = clock if told.busy else ""
    text = (
        f"{told.cells:,} cells of {told.genes:,} genes, a tenth held out; {told.epochs} epochs of "
        f"batches of {BATCH}, one hidden layer of {HIDDEN} in encoder and decoder, {LATENT} latent "
        f"dimensions, threads: {told.threads}, seeds: {told.seeds}; scvi-tools {version}. Learning "
        f"rates: {settings}; the KL term warms up over {WARM} epochs, and ours is compiled. "
        f"Seconds are the median epoch's{clock}.\n\n{table(head, rows)}"
    )
    publish("cells_peer", "Simulated cells, ours and SCVI", text)


if __name__ == "__main__":
    main()
