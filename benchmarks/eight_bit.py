"""MNIST as 8-bit images: bits per dimension by likelihood, one network and one budget for all.

    python benchmarks/eight_bit.py [--epochs 10] [--train 5000] [--test 500] [--seeds 1]

It goes on after the rows that are measured. Log p(x) is by importance sampling. Dequantized
densities give bounds on it, which learned noise and more draws of it make tighter.
ContinuousBernoulli is a density of x / 255, so that its nats have another unit: it is in the table
as dequantized, and `pv.compare` refuses the plain one beside the others.
"""

import argparse

import numpy as np
from common import RUNS, finished, keep, mnist, place, publish, table

import pyro_vae as pv

LINES = [
    "DiscretizedLogistic", "DiscretizedLogistic(components=5)", "Dequantized(Normal)",
    "Dequantized(Normal, samples=16)", "Dequantized(Normal, noise=MLP([64]))",
    "Dequantized(Mixture(Normal, components=5))", "Dequantized(ContinuousBernoulli)",
    "Categorical(categories=256)",
]  # fmt: skip
NETWORKS = {"encoder": "MLP([200, 200])", "decoder": "MLP([200, 50])"}  # 256 levels are wide
DRAWS = 50


def bits(line: str, told: argparse.Namespace, seed: int, data: pv.Data) -> dict:
    """Bits per dimension of the test images, by the ELBO and by log p(x), and seconds."""
    train, test = ((part * 255).round() for part in (data.train, data.test))
    train, test = train[: told.train], test[: told.test]
    vae = pv.VAE((1, 28, 28), 20, likelihood=line, **NETWORKS, seed=seed)
    folder = RUNS / "eight_bit" / f"{LINES.index(line)}_{seed}_{told.epochs}_{told.train}"
    about = {"epochs": told.epochs, "lr": "cosine(2e-3)", "seed": seed, "progress": False}
    fit = pv.fit(vae, train, **about, **place(folder))
    bound = pv.elbo(vae, test, seed=0)
    draws = {"num_samples": DRAWS, "num_simulated": 0, "seed": 0}
    evidence = pv.log_evidence(vae, test, **draws).log_evidence
    row = {"line": line, "seed": seed, **vars(told), "seconds": fit.history.seconds.iloc[-1]}
    for name, nats in (("elbo", bound), ("log p", evidence)):
        each = pv.bits_per_dimension(vae, nats)
        row[name] = [each.mean().item(), each.std().item() / len(each) ** 0.5]
    return row


def cells(rows: list[dict]) -> list[str]:
    """A line of the table, from the runs of all seeds."""
    out = [f"`{rows[0]['line']}`"]
    for name in ("elbo", "log p"):
        values = np.array([row[name] for row in rows])
        spread = f", {values[:, 0].std(ddof=1):.3f} over seeds" if len(rows) > 1 else ""
        out.append(f"{values[:, 0].mean():.3f} ± {values[:, 1].mean():.3f}{spread}")
    return [*out, f"{np.mean([row['seconds'] for row in rows]):.0f}"]


def refusal(told: argparse.Namespace, data: pv.Data) -> str:
    """What `pv.compare` says of a density beside levels, at images whose numbers both take."""
    test = data.test[: told.test].round()
    lines = ("DiscretizedLogistic", "ContinuousBernoulli")
    models = {line: pv.VAE((1, 28, 28), 2, likelihood=line, seed=0) for line in lines}
    try:
        pv.compare(models, test, num_samples=2, seed=0)
    except ValueError as problem:
        return str(problem)
    raise SystemExit("a density of x / 255 was compared with probabilities of levels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("epochs", 10), ("train", 5000), ("test", 500), ("seeds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lines", nargs="*", choices=LINES, default=LINES)
    told, data, rows = parser.parse_args(), mnist(), []
    seeds, lines = range(told.seeds), told.lines
    del told.seeds, told.lines
    for line in lines:
        runs = []
        for seed in seeds:
            about = {"line": line, "seed": seed, **vars(told)}
            done = [row for row in finished("eight_bit") if about.items() <= row.items()]
            runs.append(done[0] if done else bits(line, told, seed, data))
            if not done:
                keep("eight_bit", runs[-1])
        rows.append(cells(runs))
        print(*rows[-1], flush=True)
    about = (
        f"{told.epochs} epochs of {told.train} images, {told.test} held out, seeds {[*seeds]}, "
        f"{NETWORKS}, 20 latent dimensions; bits per dimension, log p(x) by {DRAWS} draws of z, "
        "standard errors over the images."
    )
    head = ["likelihood", "ELBO", "log p(x)", "seconds"]
    place = f"`ContinuousBernoulli` as it is, beside levels, is refused: {refusal(told, data)}."
    publish("eight_bit", "MNIST as 8-bit images", f"{about}\n\n{table(head, rows)}\n\n{place}")


if __name__ == "__main__":
    main()
