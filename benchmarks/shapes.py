"""Coloured shapes: adding glasses by arithmetic in z, and pictures of asked attributes.

    python benchmarks/shapes.py [--seeds 1] [--size 8000]

It goes on after the runs that are measured. Judges are classifiers of each attribute, trained on
pictures that no model sees. First they judge reconstructions: an attribute that is not in those
cannot be moved. "Moved" are the held-out pictures without glasses (the judge gives them less than
.1) that the judge gives more than .9 after the step, taken so many times; "kept" are those whose
other attribute the judge names as before. How many times is chosen on other pictures than those
that are measured.
"""

import argparse
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from common import RUNS, finished, keep, place, publish, table
from torch import Tensor, nn

import pyro_vae as pv

LATENT = 16
NETWORKS = "OptimalNormal", "ConvEncoder([16, 32, 32])", "ResNet([32, 16, 8])"
WAYS = {  # likelihood, encoder, decoder, epochs, batch size, weight of the KL term
    "z": (*NETWORKS, 16, 50, 1.0),
    "given": (*NETWORKS, 16, 50, "linear(100, 1, epochs=10)"),  # the decoder reads c before z
}
AMOUNTS = (1.0, 1.5, 2.0)
ATTRIBUTES = ("shape", "colour", "glasses")
SURE = 0.9
Part: TypeAlias = Callable[[int, int, dict[str, nn.Module]], dict]


def codes(about: pd.DataFrame) -> dict[str, Tensor]:
    """Attributes as whole numbers."""
    return {k: torch.tensor(np.unique(about[k], return_inverse=True)[1]) for k in ATTRIBUTES}


def judge(x: Tensor, y: Tensor, seed: int, epochs: int = 8) -> nn.Module:
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


def trained(
    what: str, shape: tuple[int, ...] | pv.Record, data: Tensor | dict[str, Tensor], seed: int
) -> pv.VAE:
    """A model of pictures in their own units; a run that was stopped goes on."""
    line, encoder, decoder, epochs, batch, beta = WAYS[what]
    networks = {"encoder": encoder, "decoder": decoder}
    vae = pv.VAE(shape, LATENT, likelihood=line, units="data", **networks, seed=seed)
    size = len(data["x"] if isinstance(data, dict) else data)
    at = place(RUNS / "shapes" / f"{what}_{epochs}_{size}_{seed}")
    told = {"epochs": epochs, "batch_size": batch, "lr": "cosine(3e-3)", "beta": beta}
    pv.fit(vae, data, **told, seed=seed, progress=False, **at)
    return vae


def moved(
    vae: pv.VAE, step: Tensor, amount: float, seed: int, nets: dict[str, nn.Module]
) -> dict[str, tuple[float, float]]:
    """What the judges say of pictures without glasses after so many steps in z."""
    x, about = pv.coloured_shapes(1000, seed=seed)
    bare = x[~torch.tensor(about["glasses"].to_numpy())]
    before, after = (
        {k: judged(net, some) for k, net in nets.items()}
        for some in (bare, pv.move(vae, bare, step, amount))
    )
    sure = before["glasses"][:, 1] < 1 - SURE
    figures = {"moved": share(after["glasses"][sure, 1] > SURE)}
    for k in ("shape", "colour"):
        figures[f"{k} kept"] = share(before[k].argmax(1) == after[k].argmax(1))
    return figures


def arithmetic(size: int, seed: int, nets: dict[str, nn.Module]) -> dict:
    """Train, add glasses to held-out pictures, and judge them."""
    x, about = pv.coloured_shapes(size, seed=100 + seed)
    vae = trained("z", (3, 32, 32), x, seed)
    step = pv.attribute_step(vae, x, about["glasses"].to_numpy())
    chosen = max(AMOUNTS, key=lambda a: moved(vae, step, a, 200 + seed, nets)["moved"][0])
    test, held = pv.coloured_shapes(1000, seed=400 + seed)
    named, again = codes(held), vae.reconstruct(test)
    row = {
        f"{k} in reconstructions": share(judged(net, again).argmax(1) == named[k])
        for k, net in nets.items()
    }
    row["steps, chosen on other pictures"] = chosen, 0.0
    for amount in AMOUNTS:
        figures = moved(vae, step, amount, 400 + seed, nets)
        row |= {f"{name}, {amount} steps": figure for name, figure in figures.items()}
    return row


def one_hot(values: dict[str, Tensor]) -> Tensor:
    """All attributes side by side."""
    return torch.cat([nn.functional.one_hot(y) for y in values.values()], 1).float()


def asked(size: int, seed: int, nets: dict[str, nn.Module]) -> dict:
    """Train on pictures given their attributes, draw pictures of asked ones, and judge them."""
    x, about = pv.coloured_shapes(size, seed=100 + seed)
    c = one_hot(codes(about))
    blocks = [pv.Block("x", (3, 32, 32)), pv.Block("c", c.shape[1], role="context")]
    vae = trained("given", pv.Record(blocks), {"x": x, "c": c}, seed)
    _, wanted = pv.coloured_shapes(1000, seed=300 + seed)
    values = codes(wanted)
    given = {"x": torch.zeros(1000, 3, 32, 32, dtype=torch.uint8), "c": one_hot(values)}
    drawn = vae.sample(given=given, mean=True, seed=seed)[0]
    right = {k: judged(nets[k], drawn).argmax(1) == values[k] for k in ATTRIBUTES}
    every = torch.stack([*right.values()]).all(0)
    return {k: share(v) for k, v in right.items()} | {"all three": share(every)}


def lines(rows: list[dict]) -> list[list[str]]:
    """Each figure of all seeds, with its error."""
    out = []
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        mean, error = values[:, 0].mean(), np.sqrt((values[:, 1] ** 2).sum()) / len(values)
        each = ", ".join(f"{v:.3f}" for v in values[:, 0])
        out.append([name, f"{mean:.3f} ± {error:.3f}", each])
    return out


def measured(part: Part, what: str, told: argparse.Namespace, nets: dict) -> list[dict]:
    """The figures of all seeds; those that are there are not measured again."""
    rows = []
    for seed in range(told.seeds):
        about = {"part": part.__name__, "way": [*WAYS[what]], "size": told.size, "seed": seed}
        done = [row for row in finished("shapes") if about.items() <= row.items()]
        if not done:
            done = [about | {"figures": part(told.size, seed, nets)}]
            keep("shapes", done[0])
        print(done[0], flush=True)
        rows.append(done[0]["figures"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("seeds", 1), ("size", 8000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    told = parser.parse_args()
    torch.set_num_threads(1)
    x, about = pv.coloured_shapes(6000, seed=999)
    y = codes(about)
    nets = {k: judge(x[:5000], y[k][:5000], 0) for k in ATTRIBUTES}
    right = {k: share(judged(nets[k], x[5000:]).argmax(1) == y[k][5000:]) for k in ATTRIBUTES}
    head = ["figure", "mean", "by seed"]
    text = (
        f"{told.size} pictures, {LATENT} latent dimensions, seeds {[*range(told.seeds)]}; standard "
        "errors over the judged pictures, at most 1,000 for each seed.\n\n"
        f"Judges, on pictures that they have not seen:\n\n{table(head, lines([right]))}"
    )
    for title, part, what in (
        ("Glasses added by arithmetic in z", arithmetic, "z"),
        ("Pictures drawn given their attributes, those that have them", asked, "given"),
    ):
        line, encoder, decoder, epochs, batch, beta = WAYS[what]
        text += f"\n\n{title}. {line}, {encoder}, {decoder}, {epochs} epochs, batches of {batch},"
        text += f" beta {beta}:"
        text += f"\n\n{table(head, lines(measured(part, what, told, nets)))}"
    publish("shapes", "Coloured shapes", text)


if __name__ == "__main__":
    main()
