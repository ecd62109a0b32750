"""Coloured shapes: adding glasses by arithmetic in z, and pictures of asked attributes.

    python benchmarks/shapes.py [--epochs 40] [--seeds 3] [--size 5000] [--networks residual|plain]

Judges are classifiers of each attribute, trained on pictures that no model sees. "Moved" are the
held-out pictures without glasses (the judge gives them less than .1) that the judge gives more than
.9 after the step; "kept" are those whose other attribute the judge names as before.
"""

import argparse

import numpy as np
import pandas as pd
import torch
from common import publish, table
from torch import Tensor, nn

import pyro_vae as pv

LIKELIHOOD, LATENT = "DiscretizedLogistic", 16
NETWORKS = {
    "residual": {"encoder": "ResNet([16, 32, 64])", "decoder": "ResNet([64, 32, 16])"},
    "plain": {"encoder": "ConvEncoder([32, 64, 64])", "decoder": "ConvDecoder([64, 64, 32])"},
}
TRAINING = {"batch_size": 50, "lr": "cosine(3e-3)", "progress": False}
ATTRIBUTES = ("shape", "colour", "glasses")
SURE = 0.9


def codes(about: pd.DataFrame) -> dict[str, Tensor]:
    """Attributes as whole numbers."""
    return {k: torch.tensor(np.unique(about[k], return_inverse=True)[1]) for k in ATTRIBUTES}


def judge(x: Tensor, y: Tensor, seed: int, epochs: int = 15) -> nn.Module:
    """A classifier of an attribute."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, int(y.max()) + 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows].float() / 255), y[rows]).backward()
            optimizer.step()
    return net.eval()


@torch.no_grad()
def judged(net: nn.Module, x: Tensor) -> Tensor:
    """Probabilities of an attribute's values."""
    return torch.cat([net(part.float() / 255) for part in x.split(500)]).softmax(-1)


def share(hits: Tensor) -> tuple[float, float]:
    """A share, and its standard error."""
    p = hits.double().mean().item()
    return p, (p * (1 - p) / len(hits)) ** 0.5


def arithmetic(told: argparse.Namespace, seed: int, nets: dict[str, nn.Module]) -> dict:
    """Train, add glasses to held-out pictures, and judge them."""
    x, about = pv.coloured_shapes(told.size, seed=100 + seed)
    test, held = pv.coloured_shapes(1000, seed=200 + seed)
    vae = pv.VAE((3, 32, 32), LATENT, likelihood=LIKELIHOOD, **NETWORKS[told.networks], seed=seed)
    fit = pv.fit(vae, x, epochs=told.epochs, **TRAINING, seed=seed)
    step = pv.attribute_step(vae, x, about["glasses"].to_numpy())
    bare = test[~torch.tensor(held["glasses"].to_numpy())]
    before, moved = {k: judged(net, bare) for k, net in nets.items()}, pv.move(vae, bare, step)
    after = {k: judged(net, moved) for k, net in nets.items()}
    sure = before["glasses"][:, 1] < 1 - SURE
    row = {"moved": share(after["glasses"][sure, 1] > SURE)}
    for k in ("shape", "colour"):
        row[f"{k} kept"] = share(before[k].argmax(1) == after[k].argmax(1))
    bits = pv.bits_per_dimension(vae, pv.elbo(vae, test, seed=0))
    row["bits per dimension"] = (bits.mean().item(), bits.std().item() / len(bits) ** 0.5)
    row |= {"seconds": (fit.history.seconds.iloc[-1], 0.0)}
    print(seed, row, flush=True)
    return row


def one_hot(values: dict[str, Tensor]) -> Tensor:
    """All attributes side by side."""
    return torch.cat([nn.functional.one_hot(y) for y in values.values()], 1).float()


def asked(told: argparse.Namespace, seed: int, nets: dict[str, nn.Module]) -> dict:
    """Train on pictures given their attributes, draw pictures of asked ones, and judge them."""
    x, about = pv.coloured_shapes(told.size, seed=100 + seed)
    c = one_hot(codes(about))
    blocks = [pv.Block("x", (3, 32, 32)), pv.Block("c", c.shape[1], role="context")]
    record = pv.Record(blocks)
    vae = pv.VAE(record, LATENT, likelihood=LIKELIHOOD, **NETWORKS[told.networks], seed=seed)
    data = {"x": x, "c": c}
    pv.fit(vae, data, epochs=told.epochs, **TRAINING, seed=seed)
    _, wanted = pv.coloured_shapes(1000, seed=300 + seed)
    values = codes(wanted)
    given = {"x": torch.zeros(1000, 3, 32, 32, dtype=torch.uint8), "c": one_hot(values)}
    drawn = vae.sample(given=given, mean=True, seed=seed)[0]
    right = {k: judged(nets[k], drawn).argmax(1) == values[k] for k in ATTRIBUTES}
    every = torch.stack([*right.values()]).all(0)
    row = {k: share(v) for k, v in right.items()} | {"all three": share(every)}
    print(seed, row, flush=True)
    return row


def lines(rows: list[dict]) -> list[list[str]]:
    """Each figure of all seeds, with its error."""
    out = []
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        mean, error = values[:, 0].mean(), np.sqrt((values[:, 1] ** 2).sum()) / len(values)
        each = ", ".join(f"{v:.3f}" for v in values[:, 0])
        out.append([name, f"{mean:.3f} ± {error:.3f}", each])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("epochs", 40), ("seeds", 3), ("size", 5000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--networks", choices=NETWORKS, default="residual")
    told = parser.parse_args()
    x, about = pv.coloured_shapes(6000, seed=999)
    y = codes(about)
    nets = {k: judge(x[:5000], y[k][:5000], 0) for k in ATTRIBUTES}
    right = {k: share(judged(nets[k], x[5000:]).argmax(1) == y[k][5000:]) for k in ATTRIBUTES}
    print({k: f"{p:.4f}" for k, (p, _) in right.items()})
    seeds = range(told.seeds)
    head = ["figure", "mean", "by seed"]
    about = f"{told.networks} networks, {told.epochs} epochs of {told.size} pictures"
    text = f"{about}, {told.seeds} seeds.\n\n"
    text += "Judges, on pictures that they have not seen:\n\n" + table(head, lines([right]))
    rows = [arithmetic(told, seed, nets) for seed in seeds]
    text += "\n\nGlasses added by arithmetic in z:\n\n" + table(head, lines(rows))
    rows = [asked(told, seed, nets) for seed in seeds]
    text += "\n\nPictures drawn given their attributes, those that have them:\n\n"
    publish("shapes", "Coloured shapes", text + table(head, lines(rows)))


if __name__ == "__main__":
    main()
