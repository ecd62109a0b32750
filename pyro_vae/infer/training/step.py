"""One step: the estimator's gradient, eager or compiled, and a stop where it is not finite."""

import math
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import SVI
from pyro.params.param_store import normalize_param_name
from torch import Tensor, nn

from ...core.errors import in_words
from ...core.sizes import bounded, memory
from ..engine.capture import CaptureError
from ..engine.compiled import CompiledELBO, CompileMode
from ..sites import family_name, replayed
from .beside import Beside
from .run import Run, Trainable, rng_state, set_rng_state

__all__ = ["NonFiniteLossError", "Step", "checked", "explain", "tensor_float"]

LARGE = 1e3  # of data or parameters: a size that may be the cause


class NonFiniteLossError(FloatingPointError):
    """Loss or gradient became infinite or NaN; the message says where, why, and what remains."""


class Step:
    """A step of SVI, compiled where so many are planned that it pays.

    Args:
        run: the training run.
        model: a Pyro model, as the steps see it.
        guide: its guide, likewise.
    """

    def __init__(self, run: Run, model: Callable, guide: Callable) -> None:
        self.run = run
        self.elbo: Any = run.estimator.elbo
        precision = run.settings.precision
        self.beside = Beside(run.vae)
        self.graphs: dict[bool | CompileMode, Any] = {False: self.elbo}  # by mode
        self.svi = SVI(
            lowered(model, precision, run.sample.device),
            lowered(guide, precision, run.sample.device),
            run.optim,
            loss=self.elbo.loss,  # pyrefly: ignore[missing-attribute]
            loss_and_grads=self._loss_and_grads,
        )

    def __call__(self, batch: Tensor) -> float:
        """The loss of a batch, in nats; Pyro's validation checks the run's first step."""
        if not len(batch):  # of several processes one may have no part of a ragged last batch
            self.run.optim(())
            return 0.0
        with in_words(), checked() if self._first else nullcontext():
            return float(self.svi.step(batch))

    @property
    def _first(self) -> bool:
        return self.run.epoch == self.run.step == 0

    def _loss_and_grads(self, model: Callable, guide: Callable, x: Tensor) -> float:
        """The estimator's, with a stop before the optimizer sees what is not finite."""
        beside, rng = self.beside, rng_state()
        beside.remember()
        mode = False if self._first else self.run.mode(x)
        mode = mode if self.graphs.get(mode) is not self.elbo else False
        try:
            if mode and (why := beside.why_not()):
                raise CaptureError(f"{why}, or use compile=False")
            loss = self._elbo(mode).loss_and_grads(model, guide, x)
            beside.look()
            if mode and beside.fault:
                raise CaptureError(f"{beside.fault}, or use compile=False")
        except CaptureError as problem:
            if self.run.settings.compile != "auto":
                raise
            warnings.warn(f"the steps are not compiled: {problem}", stacklevel=2)
            self.graphs[mode] = self.elbo
            set_rng_state(rng)
            self.run.vae.zero_grad()
            beside.put_back()
            loss = self.elbo.loss_and_grads(model, guide, x)
        if fault := self._fault(loss):
            set_rng_state(rng)
            self.run.vae.zero_grad()
            cause = explain(self.run.vae, x)
            beside.put_back()
            raise NonFiniteLossError(
                f"the {fault} in epoch {self.run.epoch + 1}, step {self.run.step + 1}: {cause} "
                "The weights are those before this step, and the last checkpoint stays"
            )
        return loss

    def _elbo(self, mode: bool | CompileMode) -> Any:  # noqa: ANN401
        """The estimator's ELBO, eager or as a graph."""
        if mode not in self.graphs:
            self.graphs[mode] = CompiledELBO(
                self.elbo,
                mode if isinstance(mode, str) else None,
                announce=False,
                choices=self.run.products,
            )
        return self.graphs[mode]

    def _fault(self, loss: float) -> str:
        """What of a loss and its gradient is not finite, if anything."""
        if not math.isfinite(loss):
            return f"loss is {loss}"
        parameters = pyro.get_param_store().named_parameters()
        frozen = self.run.optim.frozen
        gradients = {n: p.grad for n, p in parameters if p.grad is not None and n not in frozen}
        # What is not finite stays in a norm, though a norm may overflow alone.
        if math.isfinite(nn.utils.get_total_norm(list(gradients.values())).item()):
            return ""
        for name, gradient in gradients.items():
            if not gradient.isfinite().all():
                worst = gradient[~gradient.isfinite()][0].item()
                return f"gradient of {normalize_param_name(name)!r} is {worst}"
        return ""


def lowered(fn: Callable, precision: str, device: torch.device) -> Callable:
    """A model or guide whose networks compute in bfloat16, if ``precision`` is ``"bf16"``.

    Parameters and their gradients, the outputs of the heads and densities keep their precision.
    """
    if precision != "bf16":
        return fn
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)(fn)


@contextmanager
def tensor_float(precision: str) -> Generator[None]:
    """Within it matrix products on a GPU use TensorFloat-32, if ``precision`` is ``"tf32"``."""
    before = torch.get_float32_matmul_precision()
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if precision == "tf32":
            torch.set_float32_matmul_precision(before)


@contextmanager
def checked() -> Generator[None]:
    """Within it Pyro validates, and no tensor takes more than an eighth of the memory."""
    most = bounded(memory() // 32, 10**6, "a step asks for")
    with pyro.validation_enabled(True), most:
        yield


def explain(vae: Trainable, x: Tensor) -> str:
    """What makes a loss of x infinite or NaN, and what to do, in two sentences."""
    sizes = [(p.abs().max().item(), n) for n, p in vae.named_parameters() if p.numel()]
    largest, name = max(sizes, key=lambda size: (not math.isfinite(size[0]), size[0]))
    advice = (
        "Try a smaller lr, optimizer='Adam(clip_norm=10)', or a likelihood that cannot degenerate."
    )
    if not math.isfinite(largest):
        return (
            f"parameter {name!r} is not finite, by the step before if not from the start. Start "
            f"anew or from a checkpoint. {advice}"
        )
    size = x.abs().nan_to_num(0.0).max().item()
    if size > LARGE and getattr(vae, "units", "none") == "none":
        advice = f"x holds {size:g}: standardize it, or divide it by its scale. {advice}"
    elif largest > LARGE:
        advice = f"Parameter {name!r} has grown to {largest:g}. {advice}"
    return f"{next(_non_finite_sites(vae, x), 'no single site shows it')}. {advice}"


@torch.no_grad()
def _non_finite_sites(vae: Trainable, x: Tensor) -> Iterator[str]:
    with poutine.block(), pyro.validation_enabled(False):
        guide = poutine.trace(vae.guide).get_trace(x)
        model = replayed(vae.model, guide, x)
    for trace, side in ((guide, "guide"), (model, "model")):
        with pyro.validation_enabled(False):
            trace.compute_log_prob()
        for name, site in trace.nodes.items():
            if site["type"] == "sample" and not site["log_prob"].isfinite().all():
                worst = site["log_prob"][~site["log_prob"].isfinite()][0].item()
                family = family_name(site["fn"])
                where = _columns(vae, site["fn"], site["value"])
                yield f"site {name!r} ({family}) of the {side} has log density {worst}{where}"


def _columns(vae: Trainable, p: Any, value: Any) -> str:  # noqa: ANN401
    """Which columns have a density that is not finite, in words; nothing where x has none."""
    names = getattr(getattr(vae, "record", None), "columns", None)
    if not (names and hasattr(p, "layout")):
        return ""
    blocks = zip(p.parts, p.layout.split(value), p.layout.places, strict=True)
    bad = [names[i] for q, v, at in blocks if not q.log_prob(v).isfinite().all() for i in at]
    return f", by column {', '.join(map(repr, bad[:3]))}"
