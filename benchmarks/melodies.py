"""Melodies from a known chain in a latent key: whether the density is right, and z is used.

A decoder that reads the notes before each can do without z, and training then lets z collapse. The
melodies' own density is known, so that what a model lacks is a paired difference with an error.

    python benchmarks/melodies.py [--epochs 10]   # goes on after the rows that are measured
"""

import argparse

import torch
from common import finished, keep, publish, table

import pyro_vae as pv
from pyro_vae.data.melodies import Melodies

LENGTHS, TRAIN = (8, 16), 16_000
FIGURE = ["value", "standard_error"]
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
) -> dict:
    """Train one way, and measure it."""
    hidden, treatment = WAYS[way]
    vae = model(hidden)
    told = {"epochs": epochs, "batch_size": 100, "lr": "cosine(5e-3)", "seed": 0}
    pv.fit(vae, train, compile=False, progress=False, **told, **treatment)
    notes = torch.tensor([len(row) for row in test])
    density = pv.log_evidence(vae, test, num_samples=500, seed=0).log_evidence.double()
    lost = (exact - density) / notes
    totals = pv.latent_summary(vae, test, seed=0).totals
    return {
        "way": way,
        "epochs": epochs,
        "cost": -(density.sum() / notes.sum()).item(),
        "lost": lost.mean().item(),
        "error": lost.std().item() / len(lost) ** 0.5,
        "kl": [*totals.loc["kl", FIGURE]],
        "information": [*totals.loc["mutual_information", FIGURE]],
    }


def cells(row: dict) -> list[str]:
    """A line of the table."""
    lost = f"{row['lost']:.3f} ± {row['error']:.3f}"
    used = ["{:.2f} ± {:.2f}".format(*row[k]) for k in ("kl", "information")]
    return [row["way"], f"{row['cost']:.3f}", lost, *used]


def main() -> None:
    """Train each way, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)
    melodies = Melodies(2.0)
    (train, _), (test, _) = (melodies.sample(n, LENGTHS, seed=n) for n in (TRAIN, 400))
    exact = melodies.log_prob(test)
    notes = sum(map(len, test))
    done = {row["way"]: row for row in finished("melodies") if row["epochs"] == epochs}
    for way in WAYS:
        if way not in done:
            done[way] = measure(way, train, test, exact, epochs)
            keep("melodies", done[way])
        print(*cells(done[way]), flush=True)
    rows = [cells(done[way]) for way in WAYS]
    head = ["decoder", "-log p(x), nats a note", "above the exact one", "KL", "I(x; z), nats"]
    text = (
        f"Melodies of {LENGTHS[0]} to {LENGTHS[1]} notes; the chain's entropy rate is "
        f"{melodies.entropy_rate:.3f} nats a note, and the 400 test melodies cost "
        f"{-exact.sum().item() / notes:.3f} under their own density, with the first note and the "
        f"key, which is worth at most 2.48 nats. {TRAIN:,} to train on, {epochs} epochs, log p(x) "
        "by 500 draws of z.\n\n" + table(head, rows)
    )
    publish("melodies", "Melodies in a latent key", text)


if __name__ == "__main__":
    main()
