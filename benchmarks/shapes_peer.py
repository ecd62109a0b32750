"""Coloured shapes by our `fit` and by pythae's trainer: equal networks, likelihood and epochs.

    pip install pythae
    python benchmarks/shapes_peer.py [--network "MLP([256, 256])"] [--epochs 20] [--size 5000]

Pictures are centred, and count in tens of levels. Both models have a normal likelihood of scale 1
in that unit, 16 latent dimensions, Adam at 1e-3 and batches of 100; pythae's encoder and decoder
are our networks. Both are measured by one function. Seconds are those of the whole call.
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import pyro.distributions as dist
import torch
from common import publish, table
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
MIRROR = {"ResNet([8, 16, 32])": "ResNet([32, 16, 8])"}  # of an encoder, its decoder


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


@torch.no_grad()
def likelihood(
    x: Tensor, encode: Callable[[Tensor], dist.Normal], decode: Callable[[Tensor], Tensor]
) -> list[str]:
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
    return [f"{v.mean():.1f} ± {v.std() / len(v) ** 0.5:.1f}" for v in figures]


def ours(line: str, train: Tensor, test: Tensor, epochs: int, seed: int) -> list[str]:
    """Train by `fit`."""
    networks = {"encoder": line, "decoder": MIRROR.get(line, line)}
    vae = pv.VAE(SHAPE, LATENT, likelihood="Normal(scale=1.0)", **networks, seed=seed)
    told = {"batch_size": BATCH, "lr": RATE, "seed": seed, "progress": False}
    start = time.perf_counter()
    pv.fit(vae, train, estimator="TraceMeanField_ELBO", epochs=epochs, **told)
    seconds = time.perf_counter() - start

    def encode(x: Tensor) -> dist.Normal:
        q = vae.encode(x)
        return dist.Normal(q.mean, q.stddev)

    return [*likelihood(test, encode, lambda z: vae.decode(z).mean), f"{seconds:.0f}"]


def theirs(line: str, train: Tensor, test: Tensor, epochs: int, seed: int) -> list[str]:
    """Train by pythae's trainer."""
    torch.manual_seed(seed)
    about = VAEConfig(input_dim=SHAPE, latent_dim=LATENT, reconstruction_loss="mse")
    model = VAE(about, Encoder(line), Decoder(MIRROR.get(line, line)))
    with tempfile.TemporaryDirectory() as folder:
        told = BaseTrainerConfig(
            output_dir=folder, learning_rate=RATE, num_epochs=epochs, seed=seed, no_cuda=True,
            per_device_train_batch_size=BATCH, optimizer_cls="Adam",
        )  # fmt: skip
        data = BaseDataset(train, torch.zeros(len(train)))
        start = time.perf_counter()
        BaseTrainer(model, data, training_config=told).train()
        seconds = time.perf_counter() - start
    model.eval()

    def encode(x: Tensor) -> dist.Normal:
        q = model.encoder(x)
        return dist.Normal(q.embedding, (0.5 * q.log_covariance).exp())

    return [*likelihood(test, encode, lambda z: model.decoder(z).reconstruction), f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="MLP([256, 256])")
    for name, default in (("epochs", 20), ("size", 5000), ("seeds", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    told = parser.parse_args()
    torch.set_num_threads(1)
    x, test = (pv.coloured_shapes(n, seed=n)[0].float() for n in (told.size, 500))
    centre = x.mean(0)
    x, test = (x - centre) / UNIT, (test - centre) / UNIT
    rows = []
    for seed in range(told.seeds):
        for name, train in (("ours", ours), ("pythae", theirs)):
            rows.append([name, seed, *train(told.network, x, test, told.epochs, seed)])
            print(*rows[-1], flush=True)
    about = (
        f"Networks {told.network}, {told.epochs} epochs of {told.size} pictures, batches of "
        f"{BATCH}, Adam at {RATE}, Normal(scale=1) in tens of levels, 500 held out; one thread.\n\n"
    )
    head = ["trainer", "seed", "ELBO, nats", f"bound of {DRAWS} draws", "seconds"]
    publish("shapes_peer", "Coloured shapes, ours and pythae", about + table(head, rows))


if __name__ == "__main__":
    main()
