"""Draws of an estimator's gradient at fixed weights; the model is left as it was."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ...infer.engine.capture import CaptureError, Graph, capture, capture_function
from ...infer.engine.compiled import compile_module
from ...infer.engine.gradient_draws import factor, repeat
from ...infer.estimators.estimator import Estimator
from ...model.vae import VAE
from .moments import Moments

__all__ = ["Sample", "sample_gradients", "trainable"]

TIMED = 32  # draws
CHUNK = 2**22  # numbers in the gradients of one chunk of draws
LEARNING_RATE = 1e-2  # of a baseline's network at the start of its burn-in; it falls to zero
MEASURED, REFERENCE, BURN_IN, PILOT = range(4)  # streams of seeds


@dataclass
class Sample:
    """Draws of one estimator, per datum.

    Attributes:
        values: of its bound, ``(n,)``, in nats per datum.
        seconds: an eager draw took, ``(m,)``.
        elapsed: seconds that all draws took, without what was made before the first.
        evaluations: of log p(x|z) per datum and draw, as counted; NaN where none was seen.
        moments: of the gradients, of the bound per datum (ascent), in the order of the parameters.
    """

    values: np.ndarray
    seconds: np.ndarray
    elapsed: float
    evaluations: float
    moments: Moments


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that have a gradient, by name."""
    return {k: p for k, p in module.named_parameters() if p.requires_grad}


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
    coordinates: bool = False,
    compile: bool = False,
) -> Sample:
    """Draws of the gradient at the model's weights, from the graph of one.

    A few draws by the estimator itself come first: they are what is timed, and their mean is the
    centre of the others. Estimators of which no graph can be made draw one by one.

    Args:
        vae: the model, :func:`untouched` by the caller.
        estimator: checked before.
        x: the batch, ``(B, *x_shape)``.
        num_draws: how many.
        seed: with ``stream`` and the number of a chunk it gives the chunk's seed.
        stream: draws of one stream have common random numbers.
        burn_in: steps in which a baseline learns, before it is frozen.
        towards: see :class:`Moments`, ``(P,)``.
        coordinates: see :class:`Moments`.
        compile: compile the graph.
    """
    parameters = list(trainable(vae).values())
    elbo: Any = estimator.elbo
    with pyro.get_param_store().scope():
        first, *later = _seeds(seed, BURN_IN, burn_in + 1)
        _reseed(first, x)
        guide = estimator.wrap(vae.guide, x)  # the weights of a network are drawn
        _learn_baseline(estimator, vae.model, guide, x, later)
        with _Count() as count:  # it is also what warms up: memory, and the parameter store
            elbo.loss_and_grads(vae.model, guide, x)

        seconds, pilot = [], [torch.zeros_like(p) for p in parameters]
        for k, one in enumerate(_seeds(seed, PILOT, min(num_draws, TIMED))):
            _reseed(one, x)
            start = _now(x)
            gradients = _eager(elbo, vae, guide, x, parameters)[1:]
            seconds.append(_now(x) - start)
            for mean, gradient in zip(pilot, gradients, strict=True):
                mean += (gradient - mean) / (k + 1)
        center = [mean / -len(x) for mean in pilot]
        parts = None if towards is None else towards.split([p.numel() for p in parameters])
        graph, inputs = _graph(elbo, vae, guide, x, compile), {}
        if graph is not None and not coordinates:
            graph, inputs = factor(graph)
        moments = Moments(
            center, len(seconds), parts, coordinates=coordinates,
            inputs=[inputs.get(p) for p in parameters],
        )  # fmt: skip
        numbers = sum(c.numel() for c in moments.center)
        size = 2 * max(1, min(128, num_draws // 2, CHUNK // (2 * numbers)))
        if graph is None:
            draws = partial(_one_by_one, size, elbo, vae, guide, x, parameters)
        else:
            draws = _from_graph(graph, size, parameters)
        chunk = _chunks(draws, x, moments, size, compile)
        starts = range(0, num_draws, size)
        values, began = [], _now(x)
        for start, one in zip(starts, _seeds(seed, stream, len(starts)), strict=True):
            n = min(size, num_draws - start)
            _reseed(one, x)
            keep = torch.arange(size, device=x.device).lt(n).to(pilot[0])
            losses, rows, pairs = chunk(keep)
            moments.add(rows, pairs, n)
            values.append(losses[:n].double().cpu().numpy() / -len(x))
        moments.close()
        elapsed = _now(x) - began
    evaluations = max(count.seen.values(), default=float("nan")) / len(x)
    return Sample(np.concatenate(values), np.array(seconds), elapsed, evaluations, moments)


def _graph(
    elbo: Any,  # noqa: ANN401
    vae: VAE,
    guide: Callable,
    x: Tensor,
    compile: bool,
) -> Graph | None:
    """The graph of a draw, where one can be made."""
    if isinstance(elbo, TraceEnum_ELBO) and not compile:
        return None  # exact sums: a graph's rounding would be seen as variance
    try:
        return capture(elbo, vae.model, guide, x)
    except CaptureError:
        if compile:
            raise
        return None


def _chunks(
    draws: Callable[[], Sequence[Tensor]], x: Tensor, moments: Moments, size: int, compile: bool
) -> Callable[[Tensor], Sequence[Tensor]]:
    """A function that makes and measures so many draws, as fast as can be."""

    def chunk(keep: Tensor) -> tuple[Tensor, ...]:
        losses, *gradients = draws()
        return losses, *moments.measure([g / -len(x) for g in gradients], keep)

    if not compile:
        return torch.no_grad()(chunk)
    keep = torch.ones(size).to(moments.center[0])
    with torch.no_grad(), torch.random.fork_rng():
        module, live = capture_function(chunk, keep)
        compiled = compile_module(module, [keep, *live])
        moments.restart()
    return torch.no_grad()(lambda keep: compiled(keep, *live))


def _from_graph(
    graph: Graph, size: int, parameters: list[nn.Parameter]
) -> Callable[[], list[Tensor]]:
    """So many losses and gradients; zeros for a parameter that has none."""
    place = {p: 1 + i for i, p in enumerate(graph.parameters.values())}
    made = repeat(graph, size)

    def draws() -> list[Tensor]:
        found = made()
        zero = found[0].new_zeros(())
        return [found[0]] + [
            found[place[p]] if p in place else zero.expand(size, *p.shape) for p in parameters
        ]

    return draws


def _one_by_one(size: int, *how: Any) -> list[Tensor]:  # noqa: ANN401
    with torch.enable_grad():
        return [torch.stack(d) for d in zip(*(_eager(*how) for _ in range(size)), strict=True)]


def _eager(
    elbo: Any,  # noqa: ANN401
    vae: VAE,
    guide: Callable,
    x: Tensor,
    parameters: list[nn.Parameter],
) -> list[Tensor]:
    """The loss and the gradients of one draw."""
    for p in parameters:
        p.grad = None
    loss = elbo.loss_and_grads(vae.model, guide, x)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return [gradients[0].new_tensor(loss), *gradients]


def _learn_baseline(
    estimator: Estimator, model: Callable, guide: Callable, x: Tensor, seeds: list[int]
) -> None:
    """Train the estimator's network at fixed weights, and freeze it."""
    network: Any = estimator.network
    if network is None or not network.state_dict():
        return
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
    network.eval()


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
