"""Melodies from a known chain in a latent key: whether the density is right, and z is used.

A decoder that reads the notes before each can do without z, and training then lets z collapse. The
melodies' own density is known, so that what a model lacks is a paired difference with an error.

python benchmarks/melodies.py [--epochs 40]
"""

import argparse

import torch
from common import publish, table

import pyro_vae as pv
from pyro_vae.data.melodies import Melodies

LENGTHS = (8, 16)
WAYS = {
    "decoder without memory": (None, {}),
    "autoregressive": (0.0, {}),
    "autoregressive, word dropout 0.3": (0.3, {}),
    "autoregressive, free bits 0.5": (0.0, {"free_bits": 0.5}),
    "autoregressive, word dropout 0.3, free bits 0.5": (0.3, {"free_bits": 0.5}),
    "autoregressive, aggressive": (0.0, {"aggressive": 5}),
}


def model(hidden: float | None) -> pv.VAE:
    """A VAE of melodies, four latent dimensions."""
    likelihood = "Categorical(categories=12)"
    decoder = pv.GRU(64, autoregressive=hidden)
    return pv.VAE((None,), 4, likelihood=likelihood, encoder=pv.GRU(64), decoder=decoder, seed=0)


def measure(
    way: str, train: list[torch.Tensor], test: list[torch.Tensor], exact: torch.Tensor, epochs: int
) -> list[str]:
    """A row of the table."""
    hidden, treatment = WAYS[way]
    vae = model(hidden)
    told = {"epochs": epochs, "batch_size": 100, "lr": "cosine(5e-3)", "seed": 0}
    pv.fit(vae, train, compile=False, progress=False, **told, **treatment)
    notes = torch.tensor([len(row) for row in test])
    density = pv.log_evidence(vae, test, num_samples=500, seed=0).log_evidence.double()
    lost = (exact - density) / notes
    totals = pv.latent_summary(vae, test, seed=0).totals.value
    per_note = -(density.sum() / notes.sum()).item()
    error = lost.std().item() / len(lost) ** 0.5
    return [
        way,
        f"{per_note:.3f}",
        f"{lost.mean().item():.3f} +- {error:.3f}",
        f"{totals['kl']:.2f}",
        f"{totals['mutual_information']:.2f}",
    ]


def main() -> None:
    """Train each way, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=40)
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)
    melodies = Melodies(2.0)
    (train, _), (test, _) = (melodies.sample(n, LENGTHS, seed=n) for n in (4000, 400))
    exact = melodies.log_prob(test)
    notes = sum(map(len, test))
    rows = []
    for way in WAYS:
        rows.append(measure(way, train, test, exact, epochs))
        print(rows[-1], flush=True)
    head = ["decoder", "-log p(x), nats a note", "above the exact one", "KL", "I(x; z), nats"]
    text = (
        f"Melodies of {LENGTHS[0]} to {LENGTHS[1]} notes; the chain's entropy rate is "
        f"{melodies.entropy_rate:.3f} nats a note, and the 400 test melodies cost "
        f"{-exact.sum().item() / notes:.3f} under their own density, with the first note and the "
        f"key, which is worth at most 2.48 nats. 4,000 to train on, {epochs} epochs, log p(x) by "
        "500 draws of z.\n\n" + table(head, rows)
    )
    publish("melodies", "Melodies in a latent key", text)


if __name__ == "__main__":
    main()
