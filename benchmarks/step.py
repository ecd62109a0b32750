"""What a training step costs: plain Pyro, this package and hand-written PyTorch, in one run.

    python benchmarks/step.py

MLP 784-200-200-50 (tanh), Bernoulli, batches of 100 and 1,000, bits as data. The three take turns,
so that a drift of the machine's speed meets all; a figure is a median over rounds of 100 steps.
"""

import statistics
import time
from collections.abc import Callable

import pyro
import torch
from common import publish, table
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import pyro_vae as pv

ROUNDS, STEPS = 11, 100


def model() -> pv.VAE:
    """The networks, the same for all."""
    networks = [pv.MLP([200, 200], activation="Tanh") for _ in range(2)]
    return pv.VAE(784, 50, encoder=networks[0], decoder=networks[1], seed=0)


def stock(x: torch.Tensor, batch: int) -> Callable[[], float]:
    """Pyro as its tutorial has it: SVI, pyro.optim.Adam and Trace_ELBO."""
    vae = model()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())

    def seconds() -> float:
        start = time.perf_counter()
        with pyro.get_param_store().scope():
            for rows in torch.randperm(len(x)).split(batch):
                svi.step(x[rows])
        return time.perf_counter() - start

    return seconds


def ours(x: torch.Tensor, batch: int) -> Callable[[], float]:
    """fit, as a user calls it; its evaluation at the end of an epoch is not counted."""
    vae = model()

    def seconds() -> float:
        told = dict(batch_size=batch, progress=False)
        history = pv.fit(vae, x, epochs=2, **told).history  # the first warms up
        return history.seconds.diff().iloc[-1]

    return seconds


def by_hand(x: torch.Tensor, batch: int) -> Callable[[], float]:
    """The same computation in PyTorch alone, with its fused Adam."""
    vae = model()
    optim = torch.optim.Adam(vae.parameters(), 1e-3, fused=True)
    q, p = vae.posterior.sources, vae.likelihood.sources

    def seconds() -> float:
        start = time.perf_counter()
        for rows in torch.randperm(len(x)).split(batch):
            h = vae.encoder(x[rows])
            loc, scale = q["loc"].head(h), nn.functional.softplus(q["scale"].head(h))
            logits = p["logits"].head(vae.decoder(loc + scale * torch.randn_like(loc)))
            fit = nn.functional.binary_cross_entropy_with_logits(logits, x[rows], reduction="sum")
            loss = fit + (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()
            optim.zero_grad()
            loss.backward()
            optim.step()
            loss.item()
        return time.perf_counter() - start

    return seconds


def main() -> None:
    """Measure and publish."""
    peers = {"stock Pyro": stock, "pyro_vae.fit": ours, "PyTorch by hand": by_hand}
    rows = []
    for batch in (100, 1000):
        torch.manual_seed(0)
        x = torch.rand(STEPS * batch, 784).lt(0.13).float()
        runs = {name: make(x, batch) for name, make in peers.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(ROUNDS + 1):
            for name, run in runs.items():
                seconds = run()
                if turn:  # the first round warms up
                    times[name].append(1000 * seconds / STEPS)
        base = statistics.median(times["stock Pyro"])
        for name, found in times.items():
            middle = statistics.median(found)
            rows.append([batch, name, f"{middle:.2f}", f"{min(found):.2f}", f"{middle / base:.2f}"])
    head = ["batch", "", "ms per step, median", "minimum", "ratio to stock Pyro"]
    publish("step", "What a training step costs", table(head, rows))


if __name__ == "__main__":
    main()
