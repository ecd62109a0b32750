"""The settings of a training run, said once: for ``fit``, files, the command line and sweeps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from ...core.checks import boolean, fraction, positive, whole
from ...language.schedules import schedule

__all__ = [
    "CONFIG",
    "FROM_PYTHON",
    "OF_DATA",
    "Binarize",
    "Compile",
    "FitSettings",
    "Precision",
    "setting",
]

Binarize: TypeAlias = Literal["dynamic", "static"] | None
Compile: TypeAlias = bool | Literal["auto", "capture", "reduce-overhead", "max-autotune"]
Precision: TypeAlias = Literal["float32", "tf32", "bf16"]

CONFIG = "config.toml"  # of a run folder: what the run was told
OF_DATA = ("data_file", "data_shape", "data_hash")  # what it says of the data beside settings
FROM_PYTHON = ""  # its name for data that were given as objects
FREE = ("epochs", "checkpoint_every", "checkpoint_minutes", "progress")  # a resume may change them


def setting(default: object, text: str, metavar: str = "LINE") -> Any:  # noqa: ANN401
    """A field of settings, with the help and the metavar of its option."""
    return field(default=default, metadata={"help": text, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What ``fit`` is asked to do, apart from the model, the data and callbacks: plain values.

    :func:`~pyro_vae.fit` describes each. Importing this module imports no heavy library. A number
    of another library becomes Python's own, and a schedule that is the text of a number a number.

    Raises:
        ValueError: a value that cannot be served.

    >>> FitSettings(epochs=3, lr="0.01").lr
    0.01
    """

    off: ClassVar[Mapping[str, float]] = {}  # numbers that say as much as None

    estimator: str = setting("Trace_ELBO", "The bound and its gradient.")
    epochs: int = setting(100, "Passes over the data.", "N")
    batch_size: int = setting(100, "Observations a step.", "N")
    lr: float | str = setting(1e-3, "Learning rate: a number, or a schedule.")
    optimizer: str = setting("Adam", "A class of torch.optim; Adam(clip_norm=10).")
    beta: float | str = setting(1.0, "Weight of the KL: a number, or linear(0, 1, epochs=10).")
    free_bits: float | None = setting(
        None, "Minimum KL of each latent dimension, in nats, below which it costs nothing.", "X"
    )
    aggressive: int | None = setting(
        None, "Epochs at most in which the guide is trained ahead of the model.", "N"
    )
    binarize: Binarize = setting(
        None, "Draw bits from grey values, at each visit or once.", "dynamic|static"
    )
    validation: float | None = setting(None, "Fraction held out.", "X")
    patience: int | None = setting(
        None, "Stop after N epochs without a better validation ELBO.", "N"
    )
    seed: int = setting(0, "Of weights, order, bits and draws.", "N")
    checkpoint_every: int = setting(1, "Epochs between checkpoints.", "N")
    checkpoint_minutes: float | None = setting(
        None, "Minutes between further checkpoints, within epochs.", "X"
    )
    compile: Compile = setting(
        "auto",
        "Compile the step, as auto does from 5,000 steps on, or only capture it.",
        "auto|MODE",
    )
    precision: Precision = setting("float32", "Of the networks, in steps.", "float32|tf32|bf16")
    progress: bool | None = setting(None, "Show a progress bar.", "")

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "checkpoint_every"):
            self._set(name, whole(name, getattr(self, name)))
        self._set("seed", whole("seed", self.seed, 0))
        optional = {
            "aggressive": whole,
            "patience": whole,
            "free_bits": positive,
            "checkpoint_minutes": positive,
            "validation": fraction,
            "progress": boolean,
        }
        for name, check in optional.items():
            value = getattr(self, name)
            if value is not None and (name not in self.off or value != self.off[name]):
                self._set(name, check(name, value))
        for name in ("lr", "beta"):
            self._set(name, _as_number(getattr(self, name)))
            schedule(getattr(self, name), self.epochs, name)
        if isinstance(self.lr, Real):
            positive("lr", self.lr)
        _check_word("binarize", self.binarize, (*get_args(get_args(Binarize)[0]), None))
        _check_word("compile", self.compile, (True, False, *get_args(get_args(Compile)[1])))
        _check_word("precision", self.precision, get_args(Precision))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def lasting(self) -> dict[str, object]:
        """The settings that a resumed run must share, by name."""
        return {k: v for k, v in asdict(self).items() if k not in FREE}


def _as_number(value: float | str) -> float | str:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _check_word(name: str, value: object, words: tuple[object, ...]) -> None:
    if value not in words:
        *first, last = map(repr, words)
        raise ValueError(f"{name} is {', '.join(first)} or {last}, got {value!r}")
