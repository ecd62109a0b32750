"""``fit``: arguments and data are checked here, once; :mod:`.loop` trains."""

import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd
import pyro
from pyro.infer import ELBO
from torch.optim import Optimizer
from tqdm.auto import tqdm

from ...core.acting import differentiates
from ...core.seeding import seeded
from ...core.system import in_a_sentence
from ...data.pictures import ImageLayout, channels_first
from ...language.arguments import suggests
from ...language.schedules import schedule
from ...language.spec import Spec
from ..engine.distributed import Processes, processes
from ..engine.optim import FusedOptim, make_optimizer, optimizer_line
from ..estimators.estimator import Estimator, make_estimator
from .callbacks.collapse import AggressiveGuide, FreeBits
from .callbacks.settings import (
    Beta,
    Checkpoint,
    LearningRate,
    Patience,
    Progress,
    Temperature,
    summarize,
)
from .checkpoint import read
from .folder import RunFolder
from .loop import Loop
from .preparation import Data, prepare
from .run import Callback, Run, Trainable, by_name
from .settings import Binarize, Compile, FitSettings, Precision

__all__ = ["Fit", "Terminated", "fit"]

COLLAPSED = 0.15  # nats a data point: a smaller KL says that z carries nothing about x
SIGNALS = ("SIGTERM", "SIGHUP", "SIGUSR1")  # that stop a run as Ctrl-C does, then the process
ENOUGH = 200  # steps after which that is no matter of the start


@dataclass
class Fit:
    """What training gave.

    Attributes:
        vae: the model that was given, trained.
        history: a row an epoch: ``elbo_train``, ``elbo_validation``, ``log_likelihood``, ``kl``
            (nats per observation, at the epoch's end, one draw of z, means by weight where there
            are weights; the two terms are those of the validation data where there are any),
            ``loss`` (what was minimized, mean over the epoch, with beta), ``lr``, ``beta`` and
            ``seconds`` of training so far.
        estimator: the line that says it.
        best_epoch: the epoch whose weights the model has, under early stopping.
        interrupted: whether Ctrl-C or another signal ended it before its last epoch.
        signal: the number of that signal, or of one that came after the last step.
        out: the run folder, if any.
    """

    vae: Trainable
    history: pd.DataFrame
    estimator: str
    best_epoch: int | None = None
    interrupted: bool = False
    signal: int | None = None
    out: Path | None = None

    def __repr__(self) -> str:
        last = summarize(self.history.iloc[-1].to_dict()).strip() if len(self.history) else ""
        return f"Fit({self.estimator}, {len(self.history)} epochs: {last})"


class Terminated(SystemExit):
    """A signal stopped training; unless this is caught, the process ends with 128 + its number.

    Attributes:
        fitted: what :func:`fit` would have returned.
    """

    def __init__(self, fitted: Fit) -> None:
        super().__init__(128 + (fitted.signal or 0))
        self.fitted = fitted


@suggests
@differentiates
def fit(
    vae: Trainable,
    x: Data | None = None,
    *,
    estimator: str | Spec | ELBO | Estimator = "Trace_ELBO",
    epochs: int = 100,
    batch_size: int = 100,
    lr: float | str | Spec = 1e-3,
    optimizer: str | Spec | type[Optimizer] = "Adam",
    beta: float | str | Spec = 1.0,
    free_bits: float | None = None,
    aggressive: int | None = None,
    binarize: Binarize = None,
    validation: Data | float | None = None,
    patience: int | None = None,
    seed: int = 0,
    out: str | Path | RunFolder | None = None,
    checkpoint_every: int = 1,
    checkpoint_minutes: float | None = None,
    resume: str | Path | RunFolder | None = None,
    compile: Compile = "auto",
    precision: Precision = "float32",
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    steps_per_epoch: int | None = None,
    layout: ImageLayout = "CHW",
) -> Fit:
    """Train a VAE by ``pyro.infer.SVI``.

    Args:
        vae: a :class:`pyro_vae.VAE`, trained in place, on the device where it is; or a
            :class:`pyro_vae.Program`, which carries its x. Where its arguments are not cut into
            observations, a step takes all of them, and an epoch is one step.
        x: data ``(N, *x_shape)``; where memory cannot hold them, an array on disk
            (``numpy.load(..., mmap_mode="r")``), a ``Dataset``, or a ``DataLoader`` or another
            iterable of batches, whose ``num_workers`` read ahead. A batch is an array, a dict of
            the record's blocks by name, or a tuple of them, observed ones first. Of batches the
            first ones are what training starts from and what the history evaluates: shuffle them.
        estimator: the bound and its gradient: a line, or any Pyro ``ELBO``.
        epochs: passes over the data.
        batch_size: data per step, of all processes together.
        lr: a number, or a schedule over the epochs such as ``"cosine(1e-3)"``.
        optimizer: a class of ``torch.optim``, or its line with arguments and ``clip_norm``.
        beta: the weight of the KL term, a number or a schedule: ``"linear(0, 1, epochs=10)"``,
            ``"cyclical(0, 1, cycles=4)"``.
        free_bits: so many nats of each latent dimension cost nothing
            (:class:`~pyro_vae.callbacks.FreeBits`); against posterior collapse.
        aggressive: for at most so many epochs, and while the mutual information of x and z rises,
            the guide is trained ahead of the model (:class:`~pyro_vae.callbacks.AggressiveGuide`).
        binarize: draw bits with the grey values in [0, 1] as probabilities, anew at every visit
            (``"dynamic"``) or once (``"static"``).
        validation: held-out data, or the fraction of x to hold out (of an array on disk at most
            10,000 data).
        patience: stop after so many epochs without a better validation ELBO, with the best weights.
        seed: of the order, the bits and the draws of z; the global generator is left as it was.
        out: a run folder, for this run alone: a checkpoint is written there every
            ``checkpoint_every`` epochs, and the model, the history and the settings at its end.
        checkpoint_every: see ``out``.
        checkpoint_minutes: minutes between further checkpoints, within epochs.
        resume: a run folder whose run goes on, bit for bit, with the same arguments.
        compile: trace the step once and compile it (:class:`pyro_vae.infer.CompiledELBO`), which
            takes 5 to 20 s and then saves a third of a step's time, or more. ``"capture"`` takes a
            tenth of a second, compiles nothing and has the bits of ``False``: the step without
            Pyro's messages. ``"auto"`` compiles where at least 5,000 steps are planned, captures
            from 300 on, and goes on without, with a warning that says why, where the model or the
            machine does not allow it. ``"reduce-overhead"`` compiles with CUDA graphs.
        precision: of the networks, in training steps: ``"float32"`` is that of the weights as they
            are; ``"tf32"`` has a GPU's faster products, ``"bf16"`` bfloat16 layers, densities and
            weights as before.
        progress: show a progress bar; by default only at a terminal.
        callbacks: objects of :class:`pyro_vae.callbacks.Callback`, yours or those of
            :mod:`pyro_vae.callbacks`, called around each step and epoch in this order.
        steps_per_epoch: so many batches of a loader are an epoch, and the next one goes on where it
            stopped; needed where a stream has no length. Such a run is not resumed.
        layout: ``"HWC"`` where x and validation data are arrays of images whose channels come last.

    Within processes that ``torchrun`` started, or in a process group of ``torch.distributed``, each
    trains on its part of every batch, with draws of z of its own; the first one draws the order and
    the bits for all, and writes.

    Returns:
        A :class:`Fit`. Ctrl-C finishes the step, writes the checkpoint and returns what there is;
        a second one ends at once.

    Raises:
        Terminated: SIGTERM, SIGHUP or SIGUSR1 came: as Ctrl-C, but the process ends too, with exit
            status 128 + the signal's number, where the script does not catch it.
        ValueError: data or arguments that cannot be served, with what to do.
        NonFiniteLossError: with the site that caused it.
    """
    given = locals()
    x = _data(vae, channels_first(x, layout))
    line = make_estimator(estimator)
    settings = _settings(given, line)
    folder, user = _run_folder(out, resume, steps_per_epoch), by_name(callbacks)
    with _alone(settings, folder, resume is not None) as (team, heard):
        held_out, named = channels_first(validation, layout), folder is not None
        data = prepare(vae, x, held_out, settings, team, steps=steps_per_epoch, identify=named)
        if resume is None:
            vae.start_from(data.whole)
        run = Run(
            vae=vae,
            estimator=line,
            optim=_optimizer(settings, team),
            settings=settings,
            batches=data.batches,
            sample=data.sample,
            held_out=data.held_out,
            callbacks=by_name([*_callbacks(settings, folder, callbacks, team)]),
            identity=_identify(vae, settings, user, team) | data.identity,
            data=data.described,
        )
        loop = Loop(run)
        _begin(run, None if resume is None else folder)
        loop.train()
        fitted = _result(run, folder)
        if folder is not None and team.rank == 0:
            _keep(folder, fitted)
        fitted.signal = _signal(team, heard)
    if fitted.signal not in (None, signal.SIGINT):
        raise Terminated(fitted)
    return fitted


def _data(vae: Trainable, x: Data | None) -> Data:
    """The data that are given, or those that a program carries."""
    if not (hasattr(vae, "model") and hasattr(vae, "guide") and hasattr(vae, "check")):
        raise ValueError(
            f"fit trains a pyro_vae.VAE or a pyro_vae.Program, got {type(vae).__name__}"
        )
    x = getattr(vae, "observations", None) if x is None else x
    if x is None:
        raise ValueError("fit trains on data: fit(vae, x)")
    return x


def _begin(run: Run, resumed: RunFolder | None) -> None:
    """Go on from a checkpoint, if any; all processes have its weights, and draws of their own."""
    if resumed is not None:
        run.load_state_dict(read(resumed.path), resumed.path)
    for module in filter(None, (run.vae, run.estimator.network)):
        run.processes.share(module.state_dict())
    run.processes.diverge(run.settings.seed)


def _optimizer(settings: FitSettings, team: Processes) -> FusedOptim:
    """The optimizer of the settings, at the first learning rate, of all processes together."""
    optim = make_optimizer(settings.optimizer, schedule(settings.lr, settings.epochs)(0))
    optim.processes = team
    return optim


def _settings(given: Mapping[str, Any], line: Estimator) -> FitSettings:
    """The plain values among the arguments of ``fit``, checked, alone and together."""
    plain: dict[str, Any] = {f.name: given[f.name] for f in fields(FitSettings)}
    plain |= {"estimator": str(line), "optimizer": optimizer_line(plain["optimizer"])}
    plain = {name: str(v) if isinstance(v, Spec) else v for name, v in plain.items()}
    if not isinstance(plain["validation"], Real | str):  # data
        plain["validation"] = None
    settings = FitSettings(**plain)
    if not line.weighted and settings.beta != 1:
        name = type(line.elbo).__name__
        raise ValueError(
            f"beta scales inside {name}'s logsumexp, which is no bound: use beta=1, after a fit by "
            "Trace_ELBO if you want the KL warmed up"
        )
    return settings


def _callbacks(
    settings: FitSettings, folder: RunFolder | None, user: Sequence[Callback], team: Processes
) -> Iterator[Callback]:
    """What the settings ask for, and what the user gave, in the order of their calls."""
    yield LearningRate(settings.lr)
    yield Temperature()
    if settings.free_bits is not None:
        yield FreeBits(settings.free_bits)
    yield Beta(settings.beta)
    if settings.aggressive is not None:
        yield AggressiveGuide(settings.aggressive)
    if settings.patience is not None:
        yield Patience(settings.patience)
    yield from user
    if folder is not None:
        yield Checkpoint(folder, settings.checkpoint_every, settings.checkpoint_minutes)
    yield Progress(settings.progress if team.rank == 0 else False)


def _identify(
    vae: Trainable, settings: FitSettings, user: Mapping[str, Callback], team: Processes
) -> dict[str, object]:
    """What a resumed run must share, apart from the data."""
    describe = getattr(vae, "describe", dict)
    model: dict[str, object] = {f"model.{key}": value for key, value in describe().items()}
    if frozen := [name for name, p in vae.named_parameters() if not p.requires_grad]:
        model["model.frozen"] = frozen
    wrapping = [name for name, c in user.items() if type(c).wrap is not Callback.wrap]
    return settings.lasting() | model | {"callbacks": wrapping, "processes": team.count}


def _signal(team: Processes, heard: Sequence[int]) -> int | None:
    """The signal that came to one of the processes, one that ends them before Ctrl-C."""
    known = [n for n in signal.Signals if n.name in (*SIGNALS, "SIGINT")]
    known.sort(key=lambda number: number == signal.SIGINT)
    counts = team.total(*(number in heard for number in known))
    return next((int(number) for number, n in zip(known, counts, strict=True) if n), None)


def _result(run: Run, folder: RunFolder | None) -> Fit:
    """What training gave, and a line where it did not go as it should."""
    interrupted = run.processes.stop.is_set() and run.epoch < run.settings.epochs
    last = run.history[-1] if run.history else {"kl": float("inf"), "beta": 0.0}
    if run.processes.rank == 0 and interrupted:
        kept = (
            f"it can be resumed from {folder}" if folder else "no run folder was given to keep it"
        )
        tqdm.write(f"interrupted in epoch {run.epoch + 1}, step {run.step}: {kept}")
    layout = getattr(run.vae, "layout", None)  # what observations share says nothing of one by one
    own = layout is None or layout.separate
    collapsed = own and not interrupted and last["beta"] > 0 and abs(last["kl"]) < COLLAPSED
    if run.processes.rank == 0 and collapsed and run.epoch * len(run.batches) >= ENOUGH:
        tqdm.write(
            f"the KL is {last['kl']:.2f} nats a data point, so z says next to nothing of x: try "
            "beta='linear(0, 1)', free_bits=0.1, or a likelihood with less noise",
            file=sys.stderr,
        )
    history = pd.DataFrame(run.history)
    history = history.set_index("epoch") if len(history) else history
    best = next((c.best_epoch for c in run.callbacks.values() if isinstance(c, Patience)), None)
    out = None if folder is None else folder.path
    return Fit(run.vae, history, str(run.estimator), best or None, interrupted, out=out)


def _run_folder(
    out: str | Path | RunFolder | None,
    resume: str | Path | RunFolder | None,
    steps_per_epoch: int | None,
) -> RunFolder | None:
    if resume is not None and steps_per_epoch is not None:
        raise ValueError("a stream is not read twice, so a run by steps_per_epoch= is not resumed")
    new = None if out is None else RunFolder.of(out, "out")
    if resume is None:
        return new
    folder = RunFolder.of(resume, "resume")
    if new is not None and new.path.resolve() != folder.path.resolve():
        raise ValueError(f"a resumed run goes on in its own folder {folder}: leave out= out")
    return folder


@contextmanager
def _alone(
    settings: FitSettings, folder: RunFolder | None, resume: bool
) -> Generator[tuple[Processes, list[int]]]:
    """Within it the folder is held, by the first process, and generator and store are a run's own.

    Gives the processes, and the signals that came.
    """
    store = pyro.get_param_store().scope()
    with processes() as team:
        held = folder.held(resume=resume) if folder and team.rank == 0 else nullcontext()
        with held, seeded(settings.seed), store, _listen(team) as heard:
            yield team, heard


def _keep(folder: RunFolder, fitted: Fit) -> None:
    """Write what training gave; a full disk takes nothing from who trained in this process."""
    try:
        folder.keep(fitted.vae, fitted.history)
    except OSError as problem:
        warnings.warn(
            f"the model was not saved to {folder}: {in_a_sentence(problem)}", stacklevel=3
        )


@contextmanager
def _listen(team: Processes) -> Generator[list[int]]:
    """Within it a signal asks to stop; the second Ctrl-C raises, as ever.

    Gives the signals that came. Those other than Ctrl-C that are ignored, or handled by somebody,
    stay so.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def handle(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])
        heard.append(number)
        team.asked.set()

    known = [number for number in signal.Signals if number.name in SIGNALS]
    before = {n: signal.getsignal(n) for n in known if signal.getsignal(n) is signal.SIG_DFL}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    for number in before:
        signal.signal(number, handle)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
