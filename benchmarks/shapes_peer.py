"""Coloured shapes by our `fit` and by pythae's trainer: equal networks, likelihood and epochs.

    pip install pythae
    python benchmarks/shapes_peer.py [--seeds 2]

Pictures are centred, and count in tens of levels. Both models have a normal likelihood of scale 1
in that unit, 16 latent dimensions, Adam at 1e-3 and batches of 100; pythae's encoder and decoder
are our networks. Both are measured by one function. Seconds are those of the whole call, on the
clock and of this process on the processor, which other work does not change.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import pyro.distributions as dist
import torch
from common import finished, keep, publish, table
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn
from torch.distributions import identity_transform

import pyro_vae as pv
from pyro_vae.families.networks import build_network, make_network
from pyro_vae.families.parameters import Amortized

SHAPE, LATENT, UNIT, BATCH, RATE, DRAWS = (3, 32, 32), 16, 10.0, 100, 1e-3, 16
RUNS = (  # encoder, decoder, epochs, pictures
    ("MLP([256, 256])", "MLP([256, 256])", 20, 5000),
    ("ResNet([8, 16, 32])", "ResNet([32, 16, 8])", 4, 2000),
)


class Encoder(BaseEncoder):
    """Our network, with heads for loc and log variance."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.network = make_network(line)
        shape = build_network(self.network, torch.zeros(1, *SHAPE), SHAPE, "encoder")
        self.loc, self.log_var = (nn.Linear(shape[0], LATENT) for _ in range(2))

    def forward(self, x: Tensor) -> ModelOutput:
        h = self.network(x)
        return ModelOutput(embedding=self.loc(h), log_covariance=self.log_var(h))


class Decoder(BaseDecoder):
    """Our network, with a head for the location of each cell."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.network = make_network(line)
        shape = build_network(self.network, torch.zeros(1, LATENT), SHAPE, "decoder")
        self.loc = Amortized(shape, SHAPE, identity_transform)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.loc(self.network(z)))


def clocks() -> tuple[float, float]:
    """Seconds on the clock, and of this process on the processor."""
    return time.perf_counter(), time.process_time()


@torch.no_grad()
def likelihood(
    x: Tensor, encode: Callable[[Tensor], dist.Normal], decode: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """The ELBO and the bound of many draws, nats an observation."""
    torch.manual_seed(0)
    parts = []
    for rows in x.split(100):
        q = encode(rows)
        z = q.sample((DRAWS,))
        log_p = dist.Normal(decode(z.flatten(0, 1)).reshape(DRAWS, *rows.shape), 1.0).log_prob(rows)
        log_z = (dist.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(-1)
        parts.append(log_p.flatten(2).sum(-1) + log_z)
    log_w = torch.cat(parts, 1)
    figures = log_w.mean(0), log_w.logsumexp(0) - torch.tensor(float(DRAWS)).log()
    return dict(zip(("elbo", "bound"), (v.mean().item() for v in figures), strict=True))


def ours(
    lines: tuple[str, str],
    train: Tensor,
    test: Tensor,
    epochs: int,
    seed: int,
    compile: Literal["auto", False] = "auto",
) -> dict:
    """Train by `fit`."""
    networks = dict(zip(("encoder", "decoder"), lines, strict=True))
    vae = pv.VAE(SHAPE, LATENT, likelihood="Normal(scale=1.0)", **networks, seed=seed)
    told = {"batch_size": BATCH, "lr": RATE, "seed": seed, "compile": compile, "progress": False}
    start = clocks()
    pv.fit(vae, train, estimator="TraceMeanField_ELBO", epochs=epochs, **told)
    seconds = [b - a for a, b in zip(start, clocks(), strict=True)]

    def encode(x: Tensor) -> dist.Normal:
        q = vae.encode(x)
        return dist.Normal(q.mean, q.stddev)

    return likelihood(test, encode, lambda z: vae.decode(z).mean) | {"seconds": seconds}


def theirs(lines: tuple[str, str], train: Tensor, test: Tensor, epochs: int, seed: int) -> dict:
    """Train by pythae's trainer."""
    torch.manual_seed(seed)
    about = VAEConfig(input_dim=SHAPE, latent_dim=LATENT, reconstruction_loss="mse")
    model = VAE(about, Encoder(lines[0]), Decoder(lines[1]))
    with tempfile.TemporaryDirectory() as folder:
        told = BaseTrainerConfig(
            output_dir=folder, learning_rate=RATE, num_epochs=epochs, seed=seed, no_cuda=True,
            per_device_train_batch_size=BATCH, optimizer_cls="Adam",
        )  # fmt: skip
        data = BaseDataset(train, torch.zeros(len(train)))
        start = clocks()
        BaseTrainer(model, data, training_config=told).train()
        seconds = [b - a for a, b in zip(start, clocks(), strict=True)]
    model.eval()

    def encode(x: Tensor) -> dist.Normal:
        q = model.encoder(x)
        return dist.Normal(q.embedding, (0.5 * q.log_covariance).exp())

    figures = likelihood(test, encode, lambda z: model.decoder(z).reconstruction)
    return figures | {"seconds": seconds}


def line(name: str, runs: list[dict], other: list[dict]) -> list[str]:
    """Of a trainer: means over seeds, and the difference of bounds to pythae's, paired."""
    out = [name]
    for figure in ("elbo", "bound"):
        out.append(f"{np.mean([run[figure] for run in runs]):.1f}")
    by_seed = np.subtract(*([run["bound"] for run in part] for part in (runs, other)))
    spread = by_seed.std(ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else float("nan")
    out.append(f"{by_seed.mean():.1f} ± {spread:.1f} ({', '.join(f'{v:.0f}' for v in by_seed)})")
    return out + [f"{np.mean([run['seconds'][k] for run in runs]):.0f}" for k in (0, 1)]


TRAINERS = {"ours": ours, "ours, not compiled": partial(ours, compile=False), "pythae": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    told = parser.parse_args()
    torch.set_num_threads(1)
    text = (
        f"Batches of {BATCH}, Adam at {RATE}, Normal(scale=1) in tens of levels, 500 held out, "
        f"{told.seeds} seeds; one thread. Differences have a standard error "
        "over seeds, and each seed's behind."
    )
    head = ["trainer", "ELBO, nats", f"bound of {DRAWS} draws", "above pythae's"]
    head += ["seconds", "of the processor"]
    for *lines, epochs, size in RUNS:
        x, test = (pv.coloured_shapes(n, seed=n)[0].float() for n in (size, 500))
        centre = x.mean(0)
        x, test = (x - centre) / UNIT, (test - centre) / UNIT
        runs: dict[str, list[dict]] = {name: [] for name in TRAINERS}
        for seed in range(told.seeds):
            for name, train in TRAINERS.items():
                about = {"trainer": name, "lines": lines, "epochs": epochs, "seed": seed}
                done = [row for row in finished("shapes_peer") if about.items() <= row.items()]
                if not done:
                    done = [about | train((lines[0], lines[1]), x, test, epochs, seed)]
                    keep("shapes_peer", done[0])
                runs[name].append(done[0])
                print(about, done[0]["seconds"], done[0]["bound"], flush=True)
        rows = [line(name, part, runs["pythae"]) for name, part in runs.items()]
        text += f"\n\n{lines[0]}, {epochs} epochs of {size} pictures:\n\n{table(head, rows)}"
    publish("shapes_peer", "Coloured shapes, ours and pythae", text)


if __name__ == "__main__":
    main()
