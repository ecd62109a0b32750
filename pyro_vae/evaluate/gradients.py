"""Draws of an estimator's gradient at fixed weights; the model is left as it was."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ..infer import Estimator
from ..vae import VAE
from .moments import Moments

__all__ = ["Sample", "sample_gradients", "trainable", "untouched"]

LEARNING_RATE = 1e-2  # of a baseline's network at the start of its burn-in; it falls to zero
MEASURED, REFERENCE, BURN_IN = range(3)  # streams of seeds


@dataclass
class Sample:
    """Draws of one estimator, per datum.

    Attributes:
        values: of its bound, ``(n,)``, in nats per datum.
        seconds: a draw took, ``(n,)``.
        evaluations: of log p(x|z) per datum and draw, as counted; NaN where none was seen.
        moments: of the gradients, of the bound per datum (ascent), in the order of the parameters.
    """

    values: np.ndarray
    seconds: np.ndarray
    evaluations: float
    moments: Moments


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that have a gradient, by name."""
    return {k: p for k, p in module.named_parameters() if p.requires_grad}


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Within it a module is in evaluation mode; afterwards its mode, ``.grad`` and buffers return.

    Dropout and batch statistics would add noise that is not the estimator's.
    """
    modes = {m: m.training for m in module.modules()}
    grads = {p: p.grad for p in module.parameters()}
    buffers = {b: b.clone() for b in module.buffers()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
        for p, grad in grads.items():
            p.grad = grad
        for b, was in buffers.items():
            b.data.copy_(was)


def sample_gradients(
    vae: VAE,
    estimator: Estimator,
    x: Tensor,
    *,
    num_draws: int,
    seed: int,
    stream: int,
    burn_in: int,
    towards: Tensor | None = None,
) -> Sample:
    """Draws of the gradient at the model's weights; draw i starts from its own seed.

    Args:
        vae: the model, :func:`untouched` by the caller.
        estimator: checked before.
        x: the batch, ``(B, *x_shape)``.
        num_draws: how many.
        seed: with ``stream`` and i it gives the seed of draw i.
        stream: draws of one stream have common random numbers.
        burn_in: steps in which a baseline learns, before it is frozen.
        towards: see :class:`Moments`.
    """
    parameters = list(trainable(vae).values())
    elbo: Any = estimator.elbo
    with pyro.get_param_store().scope():
        first, *later = _seeds(seed, BURN_IN, burn_in + 1)
        _reseed(first, x)
        guide = estimator.wrap(vae.guide, x)  # the weights of a network are drawn
        frozen = _learn_baseline(estimator, vae.model, guide, x, later)
        moments = Moments([p.numel() for p in parameters], towards, x.device)
        values, seconds = np.empty(num_draws), np.empty(num_draws)
        seeds = _seeds(seed, stream, num_draws)
        _reseed(seeds[0], x)
        with _Count() as count:  # it is also what warms up: memory, and the parameter store
            elbo.loss_and_grads(vae.model, guide, x)
        for i, one in enumerate(seeds):
            for p in parameters:
                p.grad = None
            for buffer, was in frozen:
                buffer.copy_(was)
            _reseed(one, x)
            start = _now(x)
            loss = elbo.loss_and_grads(vae.model, guide, x)
            seconds[i] = _now(x) - start
            values[i] = -float(loss) / len(x)
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            moments.add(torch.cat([g.flatten() for g in parts]) / -len(x))
        moments.close()
    evaluations = max(count.seen.values(), default=float("nan")) / len(x)
    return Sample(values, seconds, evaluations, moments)


def _learn_baseline(
    estimator: Estimator, model: Callable, guide: Callable, x: Tensor, seeds: list[int]
) -> list[tuple[Tensor, Tensor]]:
    """Train the estimator's network at fixed weights; its buffers, and what they are frozen at."""
    network: Any = estimator.network
    if network is None:
        return []
    elbo: Any = estimator.elbo
    learned = list(network.parameters())
    optim = torch.optim.Adam(learned, LEARNING_RATE) if learned else None
    for i, one in enumerate(seeds):
        _reseed(one, x)
        network.zero_grad()
        elbo.loss_and_grads(model, guide, x)
        if optim is not None:
            optim.param_groups[0]["lr"] = LEARNING_RATE * (1 - i / len(seeds))
            optim.step()
    return [(b, b.clone()) for b in network.buffers()]


def _seeds(seed: int, stream: int, n: int) -> list[int]:
    return np.random.SeedSequence([seed, stream]).generate_state(n).tolist()


def _reseed(seed: int, x: Tensor) -> None:
    """``torch.manual_seed`` for one device; that costs as much as a small gradient."""
    torch.default_generator.manual_seed(seed)
    if x.is_cuda:
        with torch.cuda.device(x.device):
            torch.cuda.manual_seed(seed)


def _now(x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


class _Count(Messenger):
    """How many values of log p(x|z) the observed sites evaluate."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}

    def _pyro_post_sample(self, msg: dict) -> None:
        if msg["is_observed"] and hasattr(msg["fn"], "batch_shape"):
            n = msg["fn"].batch_shape.numel()
            self.seen[msg["name"]] = self.seen.get(msg["name"], 0) + n
