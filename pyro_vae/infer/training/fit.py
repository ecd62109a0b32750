"""``fit``: arguments and data are checked here, once; :mod:`.loop` trains."""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ...core.seeding import seeded
from ...data.rows import Rows
from ...language.schedules import schedule
from ...language.spec import Spec
from ..engine.compiled import CompileMode
from ..engine.distributed import Processes, processes
from ..engine.optim import make_optimizer
from ..engine.precision import Precision, check_precision
from ..estimators.estimator import Estimator, make_estimator
from . import binarize as bits
from .batches import Batches, Binarize
from .checkpoint import CHECKPOINT, State
from .loop import Loop, Trainable, summary

__all__ = ["Fit", "fit"]

COMPILED = {True: 0, "auto": 5000, False: math.inf}  # from so many planned steps of one size
EVALUATED = 1000  # at least so many training data are evaluated for the history
HELD_OUT = 10_000  # at most so many data of an array on disk are held out, in memory


@dataclass
class Fit:
    """What training gave.

    Attributes:
        vae: the model that was given, trained.
        history: a row an epoch: ``elbo_train``, ``elbo_validation``, ``log_likelihood``, ``kl``
            (nats per datum, at the epoch's end, one draw of z; the two terms are those of the
            validation data where there are any), ``loss`` (what was minimized, mean over the
            epoch, with beta), ``lr``, ``beta`` and ``seconds`` of training so far.
        estimator: the line that says it.
        best_epoch: the epoch whose weights the model has, under early stopping.
        interrupted: whether Ctrl-C ended it.
        out: the run folder, if any.
    """

    vae: Trainable
    history: pd.DataFrame
    estimator: str
    best_epoch: int | None = None
    interrupted: bool = False
    out: Path | None = None

    def __repr__(self) -> str:
        last = summary(self.history.iloc[-1].to_dict()).strip() if len(self.history) else ""
        return f"Fit({self.estimator}, {len(self.history)} epochs: {last})"


def fit(
    vae: Trainable,
    x: "Tensor | Dataset | DataLoader",
    *,
    estimator: str | Spec | ELBO | Estimator = "Trace_ELBO",
    epochs: int = 100,
    batch_size: int = 100,
    lr: float | str | Spec = 1e-3,
    optimizer: str | Spec = "Adam",
    beta: float | str | Spec = 1.0,
    free_bits: float | None = None,
    aggressive: int | None = None,
    binarize: Binarize = None,
    validation: Tensor | float | None = None,
    patience: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    checkpoint_every: int = 1,
    resume: str | Path | None = None,
    compile: bool | Literal["auto"] | CompileMode = "auto",
    precision: Precision = "float32",
    progress: bool | None = None,
) -> Fit:
    """Train a VAE by ``pyro.infer.SVI``.

    Args:
        vae: a :class:`pyro_vae.VAE`, trained in place, on the device where it is.
        x: data ``(N, *x_shape)``; where memory cannot hold them, an array on disk
            (``numpy.load(..., mmap_mode="r")``), a ``Dataset``, or a ``DataLoader`` of batches,
            whose ``num_workers`` read ahead.
        estimator: the bound and its gradient: a line, or any Pyro ``ELBO``.
        epochs: passes over the data.
        batch_size: data per step, of all processes together.
        lr: a number, or a schedule over the epochs such as ``"cosine(1e-3)"``.
        optimizer: a class of ``torch.optim``, with its arguments and ``clip_norm``.
        beta: the weight of the KL term, a number or a schedule: ``"linear(0, 1, epochs=10)"``,
            ``"cyclical(0, 1, cycles=4)"``.
        free_bits: so many nats of each latent dimension cost nothing
            (:func:`~pyro_vae.infer.with_free_bits`); against posterior collapse.
        aggressive: for at most so many epochs, and while the mutual information of x and z rises,
            the guide is trained ahead of the model (:class:`~pyro_vae.infer.AggressiveGuide`).
        binarize: draw bits with the grey values in [0, 1] as probabilities, anew at every visit
            (``"dynamic"``) or once (``"static"``).
        validation: held-out data, or the fraction of x to hold out (of an array on disk at most
            10,000 data).
        patience: stop after so many epochs without a better validation ELBO, with the best weights.
        seed: of the order, the bits and the draws of z; the global generator is left as it was.
        out: a run folder, where a checkpoint is written every ``checkpoint_every`` epochs.
        checkpoint_every: see ``out``.
        resume: a run folder whose run goes on, bit for bit, with the same arguments.
        compile: trace the step once and compile it (:class:`pyro_vae.infer.CompiledELBO`), which
            takes 5 to 20 s and then saves a third of a step's time, or more; ``"auto"`` does so
            where at least 5,000 steps are planned, and goes on without, with a warning that says
            why, where the model or the machine does not allow it. ``"reduce-overhead"`` compiles
            with CUDA graphs.
        precision: of the networks, in training steps: ``"float32"`` is that of the weights as they
            are; ``"tf32"`` has a GPU's faster products, ``"bf16"`` bfloat16 layers, densities and
            weights as before.
        progress: show a progress bar; by default only at a terminal.

    Within processes that ``torchrun`` started, or in a process group of ``torch.distributed``, each
    trains on its part of every batch, with draws of z of its own; the first one draws the order and
    the bits for all, and writes.

    Returns:
        A :class:`Fit`. Ctrl-C finishes the step, writes the checkpoint and returns what there is.

    Raises:
        ValueError: data or arguments that cannot be served, with what to do.
        NonFiniteLossError: with the site that caused it.
    """
    if not (hasattr(vae, "model") and hasattr(vae, "guide") and hasattr(vae, "check")):
        raise ValueError(f"fit trains a pyro_vae.VAE, got {type(vae).__name__}")
    for name, value in {"epochs": epochs, "batch_size": batch_size, "patience": patience,
                        "checkpoint_every": checkpoint_every, "aggressive": aggressive,
                        }.items():  # fmt: skip
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value}")
    if binarize not in (None, "dynamic", "static"):
        raise ValueError(f"binarize is 'dynamic', 'static' or None, got {binarize!r}")
    modes: dict[object, CompileMode] = {mode: mode for mode in get_args(CompileMode)}
    if compile not in (*COMPILED, *modes):
        words = ", ".join(map(repr, ("auto", *modes)))
        raise ValueError(f"compile is True, False or one of {words}, got {compile!r}")
    check_precision(precision)
    if free_bits is not None and not (free_bits > 0 and math.isfinite(free_bits)):
        raise ValueError(f"free_bits is a number of nats greater than 0, got {free_bits}")
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data: validation=0.1 holds out a tenth of x")
    rate, weight = schedule(lr, epochs, "lr"), schedule(beta, epochs, "beta")
    line = make_estimator(estimator)
    if line.row and not line.row.weighted and str(beta) not in ("1", "1.0"):
        name = type(line.elbo).__name__
        raise ValueError(
            f"beta scales inside {name}'s logsumexp, which is no bound: use beta=1, after a fit by "
            "Trace_ELBO if you want the KL warmed up"
        )
    folder = _run_folder(out, resume)
    x = Rows(x) if isinstance(x, np.memmap) else x
    scope = pyro.get_param_store().scope()
    with processes() as team, seeded(seed), scope, _interrupt(team) as stop:
        data, sample, held_out = _split(vae, x, validation, binarize, batch_size, team)
        if resume is None:
            vae.start_from(data.x if isinstance(data.x, Tensor) else sample)
        settings = {
            "estimator": str(line), "batch_size": batch_size, "lr": str(lr),
            "optimizer": str(optimizer), "beta": str(beta), "binarize": binarize,
            "free_bits": free_bits, "aggressive": aggressive,
            "validation": _summary(validation), "patience": patience, "seed": seed,
            "data": _summary(x), "compile": compile, "precision": precision,
            "processes": team.count,
        }  # fmt: skip
        optim = make_optimizer(optimizer, rate(0))
        optim.processes = team
        loop = Loop(
            vae, line, optim, lr=rate, beta=weight,
            batches=data, prepare=_preparation(vae, data, binarize),
            evaluate_on=(sample, held_out), state=State(settings),
            compile_from=COMPILED.get(compile, 0), compile_mode=modes.get(compile),
            precision=precision, free_bits=free_bits or 0.0, aggressive=aggressive or 0,
        )  # fmt: skip
        if resume is not None:
            loop.resume(Path(resume), epochs)
        for module in filter(None, (vae, line.network)):
            team.share(module.state_dict())
        team.diverge(seed)
        loop.run(
            epochs, out=folder, checkpoint_every=checkpoint_every, stop=stop,
            progress=progress if team.rank == 0 else False,
        )  # fmt: skip
    state = loop.state
    interrupted = stop.is_set() and state.epoch < epochs
    if interrupted and team.rank == 0:
        kept = (
            f"it can be resumed from {folder}" if folder else "no run folder was given to keep it"
        )
        tqdm.write(f"interrupted in epoch {state.epoch + 1}, step {state.step}: {kept}")
    history = pd.DataFrame(state.history)
    history = history.set_index("epoch") if len(history) else history
    return Fit(vae, history, str(line), state.best_epoch, interrupted, folder)


def _split(
    vae: Trainable,
    x: "Tensor | Dataset | DataLoader",
    validation: "Tensor | float | None",
    binarize: Binarize,
    batch_size: int,
    team: Processes,
) -> tuple[Batches, Tensor, Tensor | None]:
    """The batches, training data to evaluate on, and validation data; all checked."""
    fraction = validation if isinstance(validation, float) else None
    if fraction is not None and not 0 < fraction < 1:
        raise ValueError(f"validation is data or a fraction between 0 and 1, got {fraction}")
    held_out = None
    if fraction is None and validation is not None:
        held_out = _bits(vae.as_data(validation), binarize)  # pyright: ignore[reportArgumentType]
        vae.check(held_out)
    if isinstance(x, Dataset | DataLoader) and not isinstance(x, Rows):
        if fraction is not None:
            raise ValueError("validation=fraction needs x in memory: give validation data")
        data = Batches(x, batch_size, team)
        with torch.random.fork_rng():
            return data, vae.check(_bits(vae.as_data(next(iter(data))), binarize)), held_out
    x = x if isinstance(x, Rows) else vae.as_data(x)
    if fraction is not None:
        order, n = torch.randperm(len(x), device=x.device), round(fraction * len(x))
        if not 0 < n < len(x):
            raise ValueError(f"validation={fraction} of {len(x)} data leaves a part empty")
        n = min(n, HELD_OUT) if isinstance(x, Rows) else n
        held_out = _bits(vae.as_data(x[order[:n]]), binarize)
        x = x.subset(order[n:]) if isinstance(x, Rows) else x[order[n:]]
    if isinstance(x, Tensor):  # on disk, batches are checked as they are read
        x = _bits(x, binarize) if binarize == "static" else _grey(x) if binarize else vae.check(x)
    size = max(EVALUATED, 0 if held_out is None else len(held_out))
    sample = x[torch.randperm(len(x), device=x.device)[:size]]
    sample = vae.check(_bits(vae.as_data(sample), binarize))
    return Batches(x, batch_size, team, fresh=binarize == "dynamic"), sample, held_out


def _preparation(vae: Trainable, data: Batches, binarize: Binarize) -> Callable[[Tensor], Tensor]:
    """What a batch goes through: checks and bits where it comes from a loader."""
    if isinstance(data.x, Tensor):
        return lambda batch: batch
    if binarize == "static":
        raise ValueError("binarize='static' needs x in memory; a DataLoader's data: 'dynamic'")
    return lambda batch: _bits(vae.as_data(batch), binarize)


def _bits(x: Tensor, binarize: Binarize) -> Tensor:
    return bits.binarize(_grey(x)) if binarize else x


def _grey(x: Tensor) -> Tensor:
    low, high = x.min().item(), x.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"binarize takes grey values in [0, 1], x lies in [{low:g}, {high:g}]: "
            "divide it by its largest value"
        )
    return x


def _summary(x: object) -> object:
    """What a resumed run compares: enough to tell other data."""
    if x is None or isinstance(x, float):
        return x
    if isinstance(x, Dataset | DataLoader) and not isinstance(x, Rows):
        return [type(x).__name__, len(x)]  # pyright: ignore[reportArgumentType]
    values = x if isinstance(x, Rows | Tensor) else torch.tensor(np.asarray(x, dtype=float))
    some = values[:: max(1, len(values) // EVALUATED)] if isinstance(values, Rows) else values
    return [list(values.shape), some.nansum(dtype=torch.float64).item()]


def _run_folder(out: str | Path | None, resume: str | Path | None) -> Path | None:
    if resume is not None:
        if out is not None and Path(out).resolve() != Path(resume).resolve():
            raise ValueError(f"a resumed run goes on in its own folder {resume}: leave out= out")
        return Path(resume)
    if out is None:
        return None
    if (Path(out) / CHECKPOINT).exists():
        raise ValueError(
            f"{out} holds a run already: resume={str(out)!r}, or choose another folder"
        )
    return Path(out)


@contextmanager
def _interrupt(team: Processes) -> Iterator[threading.Event]:
    """Within it the first Ctrl-C asks to stop and the second raises, as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield team.stop
        return

    def handler(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        team.asked.set()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield team.stop
    finally:
        signal.signal(signal.SIGINT, before)
