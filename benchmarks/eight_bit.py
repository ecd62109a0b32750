"""MNIST as 8-bit images: bits per dimension by likelihood, one network and one budget for all.

    python benchmarks/eight_bit.py [--epochs 10] [--train 10000] [--test 2000] [--seeds 3]

Log p(x) is by importance sampling. Dequantized densities give bounds on it, which more draws of the
noise make tighter. ContinuousBernoulli is a density of x / 255, so that its nats have another unit:
it is in the table as dequantized, and `pv.compare` refuses the plain one beside the others.
"""

import argparse

import numpy as np
import torch
from common import mnist, publish, table

import pyro_vae as pv

LINES = [
    "DiscretizedLogistic", "DiscretizedLogistic(components=5)", "Categorical(categories=256)",
    "Dequantized(Normal)", "Dequantized(Normal, samples=16)", "Dequantized(ContinuousBernoulli)",
    "Dequantized(Mixture(Normal, components=5))",
]  # fmt: skip
NETWORKS = {"encoder": "MLP([200, 200])", "decoder": "MLP([200, 200])"}


def bits(line: str, train: torch.Tensor, test: torch.Tensor, epochs: int, seed: int) -> dict:
    """Bits per dimension of the test images, by the ELBO and by log p(x), and seconds."""
    vae = pv.VAE((1, 28, 28), 20, likelihood=line, **NETWORKS, seed=seed)
    fit = pv.fit(vae, train, epochs=epochs, lr="cosine(1e-3)", seed=seed, progress=True)
    bound = pv.elbo(vae, test, seed=0)
    evidence = pv.log_evidence(vae, test, num_samples=100, num_simulated=0, seed=0).log_evidence
    found = {k: pv.bits_per_dimension(vae, v) for k, v in (("elbo", bound), ("log p", evidence))}
    figures = {k: (v.mean().item(), v.std().item() / len(v) ** 0.5) for k, v in found.items()}
    return figures | {"seconds": (fit.history.seconds.iloc[-1], 0.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("epochs", 10), ("train", 10_000), ("test", 2000), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    told = parser.parse_args()
    data = mnist()
    train, test = ((part * 255).round() for part in (data.train, data.test))
    train, test = train[: told.train], test[: told.test]
    rows = []
    for line in LINES:
        runs = [bits(line, train, test, told.epochs, seed) for seed in range(told.seeds)]
        cells = [f"`{line}`"]
        for name in ("elbo", "log p"):
            values = np.array([run[name] for run in runs])
            spread = f", {values[:, 0].std(ddof=1):.3f} over seeds" if len(runs) > 1 else ""
            cells.append(f"{values[:, 0].mean():.3f} ± {values[:, 1].mean():.3f}{spread}")
        cells.append(f"{np.mean([run['seconds'][0] for run in runs]):.0f}")
        rows.append(cells)
        print(" ".join(cells), flush=True)
    about = f"{told.epochs} epochs of {told.train} images, {told.test} held out, {told.seeds} seeds"
    head = ["likelihood", "ELBO", "log p(x)", "seconds"]
    text = f"{about}; bits per dimension.\n\n{table(head, rows)}"
    publish("eight_bit", "MNIST as 8-bit images", text)


if __name__ == "__main__":
    main()
