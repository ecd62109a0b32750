"""Draws of an estimator's gradient at fixed weights; the model is left as it was."""

import linecache
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ...core.checks import boolean, whole
from ...infer.engine.capture import CaptureError, Graph, capture, capture_function
from ...infer.engine.compiled import compile_module
from ...infer.estimators.estimator import Estimator
from ...model.face import Face
from .moments import Moments, View
from .repeated import factor, repeat

__all__ = [
    "MEASURED",
    "REFERENCE",
    "Plan",
    "Sample",
    "forget_sources",
    "sample_gradients",
]

TIMED = 32  # draws; as few more take less time one by one than a graph takes to be made
CHUNK = 2**22  # numbers in the gradients of one chunk of draws
LEARNING_RATE = 1e-2  # of a baseline's network at the start of its burn-in; it falls to zero
MEASURED, REFERENCE, BURN_IN, PILOT = range(4)  # streams of seeds


@dataclass
class Plan:
    """A model, a batch ``(B, *x_shape)``, and the numbers of :func:`compare_estimators`.

    ``count`` is how many observations the batch has.
    """

    vae: Face
    x: Tensor
    num_draws: int
    burn_in: int
    seed: int
    compile: bool

    def __post_init__(self) -> None:
        self.num_draws = whole("num_draws", self.num_draws, 4)
        self.burn_in, self.seed = whole("burn_in", self.burn_in), whole("seed", self.seed, 0)
        self.compile = boolean("compile", self.compile)
        self.count = self.vae.count(self.x)

    def seeds(self, stream: int, n: int) -> list[int]:
        """The first seeds of a stream."""
        return np.random.SeedSequence([self.seed, stream]).generate_state(n).tolist()


@dataclass
class Sample:
    """Draws of one estimator, per observation.

    Attributes:
        values: of its bound, ``(n,)``, in nats per observation.
        seconds: of an eager draw, ``(m,)``.
        elapsed: seconds of all draws, without what is built before the first.
        evaluations: of log p(x|z) per observation and draw, as counted; NaN where none was seen.
        moments: of the gradients of the bound (ascent), in the order of the parameters.
    """

    values: np.ndarray
    seconds: np.ndarray
    elapsed: float
    evaluations: float
    moments: Moments


@contextmanager
def forget_sources() -> Generator[None]:
    """Within it graphs may be made; their source text, which PyTorch keeps for ever, is dropped."""
    from torch.fx.graph_module import _loader

    before = set(_loader.eval_cache)
    try:
        yield
    finally:
        for key in set(_loader.eval_cache) - before:
            del _loader.eval_cache[key]
            linecache.cache.pop(key, None)


def sample_gradients(
    plan: Plan, estimator: Estimator, stream: int, towards: Tensor | None = None
) -> Sample:
    """Draws of a checked estimator's gradient at the model's weights, from the graph of one.

    A few draws by the estimator itself come first: they are timed, and their mean is the centre of
    the others. These are made one by one where they are few, or no graph can be made. Draws of one
    stream have common random numbers; ``towards`` is as in :class:`Moments`, ``(P,)``.
    """
    x, n = plan.x, plan.num_draws
    with pyro.get_param_store().scope():
        eager = Eager(plan, estimator)
        evaluations = eager.count_evaluations()
        center, seconds = eager.pilot(plan.seeds(PILOT, min(n, TIMED)))
        graph, inputs = eager.graph(plan.compile), {}
        if graph is not None:
            graph, inputs = factor(graph)
        views = [View(inputs.get(p)) for p in eager.parameters]
        parts = None if towards is None else towards.split([c.numel() for c in center])
        moments = Moments(center, len(seconds), parts, views=views)
        numbers = sum(c.numel() for c in moments.center)
        size = 2 * max(1, min(128, n // 2, CHUNK // (2 * numbers)))
        draw = eager.several(size) if graph is None else _from_graph(graph, size, eager.parameters)
        chunk = _measure(draw, plan.count, moments, size, plan.compile)
        starts = range(0, n, size)
        values, began = [], _now(x)
        for start, seed in zip(starts, plan.seeds(stream, len(starts)), strict=True):
            valid = min(size, n - start)
            _reseed(seed, x)
            keep = torch.arange(size, device=x.device).lt(valid).to(center[0])
            losses, rows, pairs = chunk(keep)
            moments.add(rows, pairs, valid)
            values.append(losses[:valid].double().cpu().numpy() / -plan.count)
        moments.close()
        elapsed = _now(x) - began
    return Sample(np.concatenate(values), np.array(seconds), elapsed, evaluations, moments)


class Eager:
    """Draws by an estimator's own ``loss_and_grads``; its network learns first and is frozen."""

    def __init__(self, plan: Plan, estimator: Estimator) -> None:
        self.elbo: Any = estimator.elbo
        self.model, self.x, self.count = plan.vae.model, plan.x, plan.count
        self.few = plan.num_draws <= TIMED
        self.parameters = list(plan.vae.trainable.values())
        first, *later = plan.seeds(BURN_IN, plan.burn_in + 1)
        _reseed(first, self.x)
        self.guide = estimator.wrap(plan.vae.guide, self.x)  # draws a network's weights
        self._learn_baseline(estimator.network, later)

    def __call__(self) -> list[Tensor]:
        """The loss and the gradients of one draw."""
        for p in self.parameters:
            p.grad = None
        loss = self.elbo.loss_and_grads(self.model, self.guide, self.x)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        return [gradients[0].new_tensor(loss), *gradients]

    def count_evaluations(self) -> float:
        """Evaluations of log p(x|z) per observation; a warm-up of memory and parameter store."""
        with _Count() as count:
            self.elbo.loss_and_grads(self.model, self.guide, self.x)
        return max(count.seen.values(), default=float("nan")) / self.count

    def pilot(self, seeds: Sequence[int]) -> tuple[list[Tensor], list[float]]:
        """The mean gradient of a few draws, and the seconds of each."""
        seconds, means = [], [torch.zeros_like(p) for p in self.parameters]
        for k, seed in enumerate(seeds):
            _reseed(seed, self.x)
            start = _now(self.x)
            gradients = self()[1:]
            seconds.append(_now(self.x) - start)
            for mean, gradient in zip(means, gradients, strict=True):
                mean += (gradient - mean) / (k + 1)
        return [mean / -self.count for mean in means], seconds

    def graph(self, required: bool) -> Graph | None:
        """The graph of a draw, where one can be made and pays."""
        exact = isinstance(self.elbo, TraceEnum_ELBO)  # a graph's rounding would be its variance
        if not required and (exact or self.few):
            return None
        try:
            return capture(self.elbo, self.model, self.guide, self.x)
        except CaptureError:
            if required:
                raise
            return None

    def several(self, size: int) -> Callable[[], list[Tensor]]:
        """A function that gives so many losses and gradients."""

        def draw() -> list[Tensor]:
            with torch.enable_grad():
                draws = [self() for _ in range(size)]
            return [torch.stack(parts) for parts in zip(*draws, strict=True)]

        return draw

    def _learn_baseline(self, network: Any, seeds: Sequence[int]) -> None:  # noqa: ANN401
        """Train the estimator's network at fixed weights, and freeze it."""
        if network is None or not network.state_dict():
            return
        weights = list(network.parameters())
        optim = torch.optim.Adam(weights, LEARNING_RATE) if weights else None
        for i, seed in enumerate(seeds):
            _reseed(seed, self.x)
            network.zero_grad()
            self.elbo.loss_and_grads(self.model, self.guide, self.x)
            if optim is not None:
                optim.param_groups[0]["lr"] = LEARNING_RATE * (1 - i / len(seeds))
                optim.step()
        network.eval()


def _measure(
    draw: Callable[[], Sequence[Tensor]], count: int, moments: Moments, size: int, compile: bool
) -> Callable[[Tensor], Sequence[Tensor]]:
    """A function that makes and measures so many draws, compiled if asked for."""

    def chunk(keep: Tensor) -> tuple[Tensor, ...]:
        losses, *gradients = draw()
        return losses, *moments.measure([g / -count for g in gradients], keep)

    if not compile:
        return torch.no_grad()(chunk)
    keep = torch.ones(size).to(moments.center[0])
    with torch.no_grad(), torch.random.fork_rng():
        module, live = capture_function(chunk, keep)
        run = compile_module(module, [keep, *live])
        moments.restart()
    return torch.no_grad()(lambda keep: run(keep, *live))


def _from_graph(
    graph: Graph, size: int, parameters: list[nn.Parameter]
) -> Callable[[], list[Tensor]]:
    """So many losses and gradients; zeros for a parameter that has none."""
    place = {p: i for i, p in enumerate(graph.parameters.values())}
    run = repeat(graph, size)

    def draw() -> list[Tensor]:
        losses, *gradients = run()
        zero = losses.new_zeros(())
        return [losses] + [
            gradients[place[p]] if p in place else zero.expand(size, *p.shape) for p in parameters
        ]

    return draw


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
    """The number of values of log p(x|z) that the observed sites evaluate."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}

    def _pyro_post_sample(self, msg: dict) -> None:
        if msg["is_observed"] and hasattr(msg["fn"], "batch_shape"):
            n = msg["fn"].batch_shape.numel()
            self.seen[msg["name"]] = self.seen.get(msg["name"], 0) + n
