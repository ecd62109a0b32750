"""What the prior buys: static MNIST, one layer, 784-300-300-40 gated, by held-out log p(x).

    python benchmarks/priors.py [--epochs 100] [--seeds 0 1] [--priors Normal ...]

Each run is a folder that a later call resumes, and each finished run is a line of the results:
interrupt it as you like, and call it again.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from common import RUNS, each, finished, keep, place, publish, static_mnist, table

import pyro_vae as pv

PRIORS = ("Normal", "VampPrior(components=500)", "Flow(RealNVP, transforms=6)")
ESTIMATOR, LR, BETA = "Trace_ELBO", "cosine(1e-3)", "linear(0, 1, epochs={warm})"
WARM, BATCH, DRAWS = 0.1, 100, 5000
PUBLISHED = {"Normal": 88.56, "VampPrior(components=500)": 85.57}


def run(prior: str, seed: int, epochs: int, folder: Path, data: dict[str, torch.Tensor]) -> dict:
    """Train one model to the end of its budget, and measure it."""
    networks = [pv.MLP([300, 300], activation="GLU") for _ in range(2)]
    vae = pv.VAE(784, 40, prior=prior, encoder=networks[0], decoder=networks[1], seed=seed)
    history = pv.fit(
        vae, data["train"], estimator=ESTIMATOR, epochs=epochs, batch_size=BATCH, lr=LR,
        beta=BETA.format(warm=max(1, round(WARM * epochs))), validation=data["valid"], seed=seed,
        progress=True, **place(folder),
    )  # fmt: skip
    if history.interrupted:
        raise SystemExit("interrupted: call it again to go on")
    found = pv.log_evidence(vae, data["test"], num_samples=DRAWS, seed=0)
    np.save(folder / "log_evidence.npy", found.log_evidence.numpy())
    with torch.no_grad():
        units = vae.encode(data["test"]).mean.var(0).gt(0.01).sum().item()
    last = history.history.iloc[-1]
    vae.save(folder)
    return {
        "prior": prior, "seed": seed, "epochs": epochs, "nll": -found.mean,
        "elbo": pv.elbo(vae, data["test"], num_samples=10, seed=0).mean().item(),
        "monte_carlo_error": found.monte_carlo_error, "kl": last.kl, "active_units": units,
        "seconds": last.seconds, "khat_above": (found.khat > 0.7).double().mean().item(),
        "folder": folder.name,
    }  # fmt: skip


def report(rows: list[dict], epochs: int) -> None:
    """The table: means over the seeds, differences paired by observation and seed."""
    base = {r["seed"]: each(r) for r in rows if r["prior"] == "Normal"}
    lines = []
    for prior in dict.fromkeys(r["prior"] for r in rows):
        mine = [r for r in rows if r["prior"] == prior]
        gain = [each(r) - base[r["seed"]] for r in mine if r["seed"] in base]
        ahead = ""
        if prior != "Normal" and gain:
            d = np.mean(gain, 0)
            ahead = f"{d.mean():.2f} ± {d.std(ddof=1) / len(d) ** 0.5:.2f}"
        mean = {k: np.mean([r[k] for r in mine]) for k in ("nll", "elbo", "kl", "active_units",
                                                           "seconds", "khat_above")}  # fmt: skip
        lines.append([
            f"`{prior}`", ", ".join(f"{r['nll']:.2f}" for r in mine), ahead, f"{-mean['elbo']:.2f}",
            f"{mean['kl']:.1f}", f"{mean['active_units']:.0f}", f"{mean['khat_above']:.1%}",
            f"{mean['seconds']:.0f}", PUBLISHED.get(prior, ""),
        ])  # fmt: skip
    head = ["prior", f"-log p(x), {DRAWS} draws, by seed", "ahead of Normal, paired", "-ELBO", "KL",
            "active units", "k-hat > 0.7", "seconds", "published"]  # fmt: skip
    text = (
        f"Static MNIST, 50,000 training and 10,000 test data, 784-300-300-40 with gated layers, "
        f'{epochs} epochs at batch {BATCH}, `{ESTIMATOR}`, `lr="{LR}"`, beta from 0 to 1 over the '
        f"first {WARM:.0%}. Nats per observation. Published: Tomczak & Welling (2018), "
        "arXiv:1705.07120, with early stopping.\n\n"
    )
    publish("priors", "Priors", text + table(head, lines))


def main() -> None:
    """Run what is not there yet, and publish what is."""
    say = argparse.ArgumentParser()
    say.add_argument("--epochs", type=int, default=100)
    say.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    say.add_argument("--priors", nargs="+", default=list(PRIORS))
    said = say.parse_args()
    data = static_mnist()
    for seed in said.seeds:
        for prior in said.priors:
            about = prior, seed, said.epochs
            if about not in [(r["prior"], r["seed"], r["epochs"]) for r in finished("priors")]:
                word = "".join(c if c.isalnum() else "-" for c in prior)
                folder = RUNS / f"priors-{word}-{said.epochs}-{seed}"
                keep("priors", run(*about, folder, data))
    report([r for r in finished("priors") if r["epochs"] == said.epochs], said.epochs)


if __name__ == "__main__":
    main()
