"""A training run: what is trained, how far it is, and what is called around its steps."""

import difflib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyro
import torch
from torch import Tensor, nn

from ... import __version__
from ...core.layout import Layout
from ..engine.compiled import CompileMode
from ..engine.distributed import Processes
from ..engine.optim import FusedOptim
from ..estimators.estimator import Estimator
from .batches import Batches
from .checkpoint import Parts
from .settings import FitSettings

__all__ = ["Callback", "Run", "Trainable", "by_name", "rng_state", "set_rng_state"]

COMPILE_FROM = 5000  # planned steps of one batch size that repay compiling
CAPTURE_FROM = 300  # and those that repay capturing alone, even of long recurrences
FEW = 20  # steps of a loader, which may have batches of many shapes, that say little of their share


# What hooks are called elsewhere.
HOOKS = {
    **dict.fromkeys(("on_epoch_end", "on_train_epoch_end", "epoch_end"), "after_epoch"),
    **dict.fromkeys(("on_batch_end", "on_train_batch_end", "on_step_end"), "after_step"),
    **dict.fromkeys(("on_batch_begin", "on_train_batch_start", "on_step_begin"), "before_step"),
    **dict.fromkeys(("on_train_begin", "on_train_start", "on_fit_start"), "start"),
    **dict.fromkeys(("on_train_end", "on_fit_end"), "end"),
}


class Trainable(Protocol):
    """What training asks of a model: two Pyro functions, and a check of data at the boundary."""

    def model(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def guide(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def check(self, x: Any) -> Tensor: ...  # noqa: ANN401, D102
    def as_data(self, x: Any) -> Tensor: ...  # noqa: ANN401, D102
    def weights_of(self, x: Tensor) -> Tensor | None: ...  # noqa: D102
    def start_from(self, x: Tensor) -> None: ...  # noqa: D102
    def state_dict(self) -> dict[str, Tensor]: ...  # noqa: D102
    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object: ...  # noqa: D102
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...  # noqa: D102
    def buffers(self) -> Iterator[Tensor]: ...  # noqa: D102
    def save(self, folder: str | Path) -> object: ...  # noqa: D102
    def zero_grad(self) -> None: ...  # noqa: D102
    def train(self) -> object: ...  # noqa: D102
    def eval(self) -> object: ...  # noqa: D102


class Callback:
    """What ``fit`` calls around its steps; each method does nothing until it is overridden.

    The callbacks of ``fit(..., callbacks=[...])`` are called in their order, :meth:`end` in the
    reverse one. In several processes each calls its own, at the same time. Training holds the lock
    of seeded acts: a callback must not wait for a thread that asks for a seed.

    Attributes:
        run: the training run, set before any method is called: its ``vae``, ``optim``,
            ``settings``, ``epoch`` (finished ones), ``step``, ``history`` and the rest of
            :class:`Run`.

    >>> class Small(Callback):
    ...     def after_epoch(self, row):
    ...         row["norm"] = sum(p.norm().item() for _, p in self.run.vae.named_parameters())
    ...         return row["norm"] > 100
    """

    run: "Run"

    def wrap(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Model and guide as the steps see them; evaluations see the unwrapped ones.

        A captured or compiled step sees a number that changes only where it is in a tensor; one
        that it does not see is soon found, and what then happens is said in ``fit``.
        """
        return model, guide

    def start(self) -> None:
        """Hear that the steps begin; a resumed run is where it was."""

    def before_step(self, time: float) -> None:
        """Hear of the next step, at a time in epochs."""

    def after_step(self, loss: float, n: int) -> None:
        """Hear of a step: its loss, summed over its n observations, in nats."""

    def after_epoch(self, row: dict[str, float]) -> bool | None:
        """Hear of an epoch's end; ``True`` stops the training.

        Args:
            row: the epoch's figures; what is added is kept in the history. Random numbers that are
                drawn here change nothing in the training.
        """

    def end(self, finished: bool) -> None:
        """Hear that the run is over; ``finished`` is false where an error ended it.

        It is called once :meth:`start` was.
        """

    def state_dict(self) -> dict[str, object]:
        """What a checkpoint must keep: tensors, numbers, texts, and lists and dictionaries of them.

        Every process is asked at the same time; the first one's answer is kept.
        """
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Take up what :meth:`state_dict` gave, in each process; not called where it was empty."""


@dataclass(kw_only=True)
class Run:
    """A training run, as its callbacks see it.

    Attributes:
        vae: the model.
        estimator: the bound and its gradient rule.
        optim: one optimizer over all parameters.
        settings: of ``fit``.
        batches: of an epoch.
        sample: training data that are evaluated for the history.
        held_out: validation data, if any.
        callbacks: by name, in the order in which they are called.
        identity: what a run that is resumed must share, by name.
        data: what tells the data from others, as the configuration of a run folder says it.
        epoch: epochs finished.
        step: steps taken in the unfinished epoch.
        loss: the summed loss of these in nats, and ``count`` their observations; in each process
            those of its own part.
        history: a row per finished epoch.
        seconds: of training, evaluation not counted.
        stopped: set to end the training after this step or epoch.
        products: which library takes a matrix product of a compiled step, by shape.
        seen: how many steps took a batch of a loader of a shape.
    """

    vae: Trainable
    estimator: Estimator
    optim: FusedOptim
    settings: FitSettings
    batches: Batches
    sample: Tensor
    held_out: Tensor | None = None
    callbacks: "dict[str, Callback]" = field(default_factory=dict)
    identity: dict[str, object] = field(default_factory=dict)
    data: dict[str, object] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    count: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False
    products: dict[str, str] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.epoch_rng = rng_state()  # at the start of the unfinished epoch
        self.resumed_rng: dict[str, Tensor] | None = None
        for callback in self.callbacks.values():
            callback.run = self

    @property
    def processes(self) -> Processes:
        """Those that train together."""
        return self.optim.processes

    @property
    def example(self) -> Tensor:
        """A batch."""
        return self.sample[: self.settings.batch_size]

    @property
    def layout(self) -> Layout | None:
        """How the plates of a program stand; ``None`` of a VAE."""
        return getattr(self.vae, "layout", None)

    def size(self, batch: Tensor) -> int:
        """How many observations a batch has."""
        layout = self.layout
        return layout.size if layout is not None and layout.whole else len(batch)

    def mode(self, x: Tensor) -> bool | CompileMode:
        """How a step of this batch runs: compiled or captured, if enough are planned, or eager."""
        if (told := self.settings.compile) != "auto":
            return told
        if not self.batches.loader:
            return self._pays(self._whole if len(x) == self.batches.rows else 1)
        self.seen[shape := str(tuple(x.shape))] += 1
        return self._pays(len(self.batches) * self.seen[shape] / max(FEW, self.seen.total()))

    def _pays(self, steps: float) -> bool | CompileMode:
        """What repays itself in so many steps an epoch."""
        planned = self.settings.epochs * steps
        return planned >= COMPILE_FROM or (planned >= CAPTURE_FROM and "capture")

    @cached_property
    def _whole(self) -> int:
        """Batches of an epoch that surely are whole."""
        return len(self.batches) - (self.batches.smallest < self.batches.rows)

    @property
    def compiles(self) -> bool:
        """Whether steps of whole batches are compiled."""
        told = self.settings.compile
        return (self._pays(self._whole) if told == "auto" else told) not in (False, "capture")

    def begin_epoch(self) -> Iterator[Tensor]:
        """The batches that are left of the unfinished epoch, in the order drawn at its start."""
        resumed, self.resumed_rng = self.resumed_rng, None
        if resumed is not None:
            set_rng_state(self.epoch_rng)
        self.epoch_rng = rng_state()
        batches = self.batches.epoch(skip=self.step)
        if resumed is not None and self.step:
            set_rng_state(resumed)
        return batches

    def end_epoch(self) -> None:
        """Count an epoch as finished."""
        self.epoch, self.step, self.epoch_rng = self.epoch + 1, 0, rng_state()

    def state_dict(self) -> Parts:
        """The parts of a checkpoint; every process must ask at the same time."""
        team, network = self.processes, self.estimator.network
        loss, count = team.total(self.loss, self.count)
        states = {name: callback.state_dict() for name, callback in self.callbacks.items()}
        return {
            "identity": self.identity,
            "machine": describe_machine(self.sample.device),
            "progress": {
                "epoch": self.epoch,
                "step": self.step,
                "history": self.history,
                "seconds": self.seconds,
                "loss": loss,
                "count": int(count),
                "seen": dict(self.seen),
            },
            "model": self.vae.state_dict(),
            "network": network.state_dict() if network else {},
            "optimizer": self.optim.get_state(),
            "rng": team.gather(self.resumed_rng or rng_state()),
            "epoch_rng": team.gather(self.epoch_rng),
            "products": team.gather({"ways": self.products}),
            "callbacks": {name: state for name, state in states.items() if state},
        }

    def load_state_dict(self, parts: Parts, folder: Path) -> None:
        """Go on where the checkpoint of a folder stopped.

        Raises:
            ValueError: it is of another run, or damaged.
        """
        try:
            self._compare(parts, folder)
            self._take(parts)
        except (RuntimeError, KeyError, TypeError, AttributeError, IndexError) as problem:
            raise ValueError(
                f"the checkpoint of {folder} does not fit this model: {problem}"
            ) from None

    def _take(self, parts: Parts) -> None:
        network, team, progress = self.estimator.network, self.processes, parts["progress"]
        epoch, step, history = (progress[name] for name in ("epoch", "step", "history"))
        rows = [row["epoch"] for row in history]
        if rows != list(range(1, epoch + 1)) or not 0 <= step <= len(self.batches):
            raise KeyError(f"it tells of {epoch} epochs, {step} steps and a history of {rows}")
        self.vae.load_state_dict(parts["model"])
        if network is not None:
            network.load_state_dict(parts["network"])
        self.optim.set_state(parts["optimizer"])
        self.epoch, self.step, self.history = epoch, step, history
        self.seconds, self.seen = float(progress["seconds"]), Counter(progress.get("seen", {}))
        if team.rank == 0:
            self.loss, self.count = float(progress["loss"]), int(progress["count"])
        self.epoch_rng, self.resumed_rng = team.own(parts["epoch_rng"]), team.own(parts["rng"])
        for state in (self.epoch_rng, self.resumed_rng):
            torch.Generator().set_state(state["cpu"])  # raises where it is none
        self.products.update(team.own(parts.get("products", {})).get("ways", {}))
        for name in parts["callbacks"].keys() & self.callbacks.keys():
            self.callbacks[name].load_state_dict(parts["callbacks"][name])

    def _compare(self, parts: Parts, folder: Path) -> None:
        """Raise where a checkpoint is of another run, and warn where it is of another machine."""
        was, now = parts["identity"], json.loads(json.dumps(self.identity))
        if differ := [key for key in was | now if was.get(key) != now.get(key)]:
            before, after = (", ".join(f"{k}={d.get(k)!r}" for k in differ) for d in (was, now))
            raise ValueError(
                f"{folder} was run with {before}, not with {after}: resume with the same"
            )
        done, asked = parts["progress"]["epoch"], self.settings.epochs
        if done > asked:
            raise ValueError(f"{folder} has {done} epochs already, more than epochs={asked}")
        was, now = parts["machine"], describe_machine(self.sample.device)
        if differ := [f"{k}={was.get(k)!r}, now {now[k]!r}" for k in now if was.get(k) != now[k]]:
            warnings.warn(
                f"{folder} was run with {'; '.join(differ)}: its numbers may differ in the last "
                "digits from those of a run that was not interrupted",
                stacklevel=5,
            )
        if lost := sorted(parts["callbacks"].keys() - self.callbacks.keys()):
            warnings.warn(f"{folder} has the state of {lost}, which are not given", stacklevel=5)


def by_name(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Callbacks by the name of their class; of several of one class the others are numbered."""
    if not isinstance(callbacks, Sequence):
        raise ValueError(f"callbacks is a list, callbacks=[...], got {type(callbacks).__name__}")
    named: dict[str, Callback] = {}
    counts = Counter[str]()
    for callback in callbacks:
        name = type(callback).__name__
        if not isinstance(callback, Callback):
            raise ValueError(f"callbacks are objects of pv.callbacks.Callback, got {name}")
        if any(callback is other for other in named.values()):
            raise ValueError(f"a callback {name} is given twice: make one for each place")
        _check_hooks(type(callback))
        counts[name] += 1
        named[name if counts[name] == 1 else f"{name} {counts[name]}"] = callback
    return named


def _check_hooks(cls: type[Callback]) -> None:
    """Raise if a method of a callback is nearly one that is called."""
    hooks = [name for name, value in vars(Callback).items() if callable(value) and name[0] != "_"]
    for name in sorted({*dir(cls)} - {*dir(Callback)}):
        if not callable(getattr(cls, name)) or name[0] == "_":
            continue
        if near := difflib.get_close_matches(HOOKS.get(name, name), hooks, n=1, cutoff=0.85):
            raise ValueError(
                f"the callback {cls.__name__} has the method {name!r}, which nothing calls; did "
                f"you mean {near[0]}?"
            )


def describe_machine(device: torch.device) -> dict[str, object]:
    """What the last digits of a run depend on."""
    cuda = device.type == "cuda"
    return {
        "pyro_vae": __version__,
        "pyro": pyro.__version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "threads": torch.get_num_threads(),
    }


def rng_state() -> dict[str, Tensor]:
    """The state of torch's generators, as tensors."""
    states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda{i}": s for i, s in enumerate(states)}}


def set_rng_state(state: Mapping[str, Tensor]) -> None:
    """Put torch's generators into a state of :func:`rng_state`."""
    torch.set_rng_state(state["cpu"])
    for i in range(len(state) - 1):
        torch.cuda.set_rng_state(state[f"cuda{i}"], i)
