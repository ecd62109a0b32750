"""Bernoulli latents trained by four estimators for equal steps, beside the published figures.

    python benchmarks/bernoulli.py            # all four; goes on where it was interrupted
    python benchmarks/bernoulli.py DisARM     # one of them, so that several run side by side
    python benchmarks/bernoulli.py table      # what there is, timed and published

200 units, a linear encoder and decoder, MNIST with fresh bits, batch 50, Adam at 1e-4, as Dong,
Mnih & Tucker (2020, arXiv:2006.10680) have it; they took 1,000,000 steps.
"""

import json
import statistics
import sys
import time

import numpy as np
import pandas as pd
import pyro
import torch
from common import RESULTS, RUNS, mnist, place, publish, table

import pyro_vae as pv
from pyro_vae.infer import CompiledELBO, FusedOptim
from pyro_vae.infer.estimators.soundness import check_and_nest

PUBLISHED = {"RLOO": -116.57, "ARM": -117.66, "DisARM": -116.30, "RELAX": -115.93}
BATCH, LR, EPOCHS = 50, 1e-4, 168  # of 1,200 steps: 201,600
KEPT = RESULTS / "bernoulli.json"
SHOWN = [12_000, 60_000, 120_000, 201_600]  # steps


def model() -> pv.VAE:
    """The same start for all."""
    return pv.VAE(
        784, 200, prior="Bernoulli(logits=learned)", guide="Bernoulli",
        encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0,
    )  # fmt: skip


def train(line: str, x: torch.Tensor) -> None:
    """Train by one estimator, and keep its curve and its ELBO over all training data."""
    vae, out = model(), RUNS / f"bernoulli-{line}"
    fit = pv.fit(
        vae, x, estimator=line, epochs=EPOCHS, batch_size=BATCH, lr=LR, binarize="dynamic",
        compile=True, checkpoint_every=4, **place(out),
    )  # fmt: skip
    torch.manual_seed(1)
    bits = torch.bernoulli(x)
    with torch.no_grad():
        elbo = torch.cat([pv.elbo(vae, some, num_samples=5, seed=1) for some in bits.split(5000)])
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept[line] = {
        "curve": fit.history.elbo_train.round(3).tolist(), "final": elbo.mean().item(),
        "error": elbo.std().item() / len(elbo) ** 0.5,
    }  # fmt: skip
    KEPT.write_text(json.dumps(kept))


def milliseconds(lines: list[str], x: torch.Tensor, rounds: int = 7, steps: int = 200) -> pd.Series:
    """Of a step, in turns: medians."""
    batches, runs = x[: BATCH * steps].bernoulli().split(BATCH), {}
    for line in lines:
        vae, estimator = model(), pv.make_estimator(line)
        store = pyro.get_param_store()
        with store.scope() as state:
            check_and_nest(estimator, vae.model, vae.guide, batches[0])
            svi = pyro.infer.SVI(
                vae.model, estimator.wrap(vae.guide, batches[0]),
                FusedOptim(torch.optim.Adam, {"lr": LR}), CompiledELBO(estimator.elbo),
            )  # fmt: skip
            svi.step(batches[0])
        runs[line] = svi, state
    times: dict[str, list[float]] = {line: [] for line in lines}
    for _ in range(rounds):
        for line, (svi, state) in runs.items():
            with pyro.get_param_store().scope(state), pyro.validation_enabled(False):
                start = time.perf_counter()
                for batch in batches:
                    svi.step(batch)
                times[line].append((time.perf_counter() - start) / steps * 1e3)
    return pd.Series({line: statistics.median(found) for line, found in times.items()})


def picture(kept: dict, cost: pd.Series) -> None:
    """ELBO against steps and against seconds."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for line, found in kept.items():
        steps = 1200 * np.arange(1, len(found["curve"]) + 1)
        for ax, unit in zip(axes, (1e-3, cost[line] / 1e3), strict=True):
            ax.plot(steps * unit, found["curve"], label=line, lw=1.2)
    for ax, name in zip(axes, ("thousand steps", "seconds of steps"), strict=True):
        ax.set(xlabel=name, ylim=(-150, None))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("ELBO of 1,000 training data, nats per observation")
    axes[0].legend()
    figure.savefig(RESULTS / "bernoulli.png", dpi=120)


def main() -> None:
    """Train what is asked for, or publish."""
    x = mnist().train.flatten(1)
    asked = sys.argv[1:] or [*PUBLISHED, "table"]
    for line in asked:
        if line != "table":
            train(line, x)
    if "table" not in asked:
        return
    found = json.loads(KEPT.read_text())
    kept = {line: found[line] for line in PUBLISHED if line in found}
    cost = milliseconds(list(kept), x)
    picture(kept, cost)
    rows = [
        [
            line, f"{cost[line]:.2f}", *(f"{one['curve'][n // 1200 - 1]:.2f}" for n in SHOWN),
            f"{one['final']:.2f} ± {one['error']:.2f}", f"{PUBLISHED[line]:.2f}",
        ]
        for line, one in kept.items()
    ]  # fmt: skip
    head = ["", "ms a step", *(f"{n:,} steps" for n in SHOWN), "all training data", "published, 1M"]
    note = (
        "ELBO in nats per observation. The curve is of the same 1,000 training data with the same "
        "noise; the last figure of ours is of all 60,000, with the standard error over data. "
        "Published: final training ELBO at 1,000,000 steps (Dong et al. 2020, from memory of "
        "the paper).\n\n"
        "![ELBO against steps and seconds](bernoulli.png)"
    )
    publish("bernoulli", "Bernoulli latents, four estimators", f"{table(head, rows)}\n\n{note}")


if __name__ == "__main__":
    main()
