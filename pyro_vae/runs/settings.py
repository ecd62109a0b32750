"""What a run is told, each with its kind, default and help: for flags, TOML and sweeps."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from ..core.toml import read_config
from ..infer.training.settings import CONFIG, FROM_PYTHON, OF_DATA, Binarize, FitSettings, setting
from ..language.spec import nearest

__all__ = ["CONFIG", "SETTINGS", "ModelSettings", "RunSettings", "kinds", "merge", "read_settings"]

Kind: TypeAlias = Any  # of the type system: a class, a Literal, a tuple of whole numbers


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The data of a run, and what makes its model: as in ``load_data`` and ``VAE``."""

    data: str = setting(
        "digits",
        "digits, digit-counts, shapes, penguins, melodies, mnist, fashion-mnist, kmnist, "
        "emnist, omniglot, cifar10, svhn, celeba, dsprites, a folder of pictures, a .npy or "
        ".npz file, the lines of a .txt file, counts (.h5ad, .mtx), or a table: .csv, .tsv, "
        ".parquet.",
        "[DATA]",
    )
    data_root: str | None = setting(
        None, "Folder of torchvision's files; else they are downloaded.", "DIR"
    )
    size: int | None = setting(
        None, "Pixels of a side, to which the pictures of a folder are brought.", "N"
    )
    layout: Literal["CHW", "HWC"] = setting(
        "CHW", "HWC: images of a .npy or .npz file whose channels come last.", "CHW|HWC"
    )
    likelihood: str | tuple[str, ...] = setting(
        "Bernoulli",
        "p(x|z): a family of Pyro; of a table COLUMN=LINE, as often as you like, and the other "
        "columns by their values.",
    )
    censored: tuple[str, ...] | None = setting(
        None,
        "Of a table, a survival time and the column that says whether its event was seen (1) "
        "or not (0), as often as you like.",
        "TIME=EVENT",
    )
    kinds: tuple[str, ...] | None = setting(
        None,
        "What a column of a table is, such as Zip=categorical or Id=identifier, or its levels "
        "from the least to the greatest, Size=S,M,L, as often as you like.",
        "COLUMN=KIND",
    )
    dates: tuple[str, ...] | None = setting(
        None,
        "The form in which a column of a table has its dates, Day=%d/%m/%Y, as often as you like.",
        "COLUMN=FORM",
    )
    na_values: tuple[str, ...] | None = setting(
        None,
        "Of a table, what stands for missing cells, such as -999 or Age=0, as often as you like.",
        "[COLUMN=]VALUE",
    )
    tokens: Literal["characters", "words"] = setting(
        "characters", "What the steps of a text (.txt) are.", "characters|words"
    )
    prior: str = setting("Normal", "p(z).")
    guide: str = setting("Normal", "q(z|x).")
    latent_dim: int = setting(10, "Dimensions of z.", "N")
    layers: tuple[int, ...] | None = setting(
        None, "Widths of stochastic layers, from x upward, in place of latent_dim.", "[N,N]"
    )
    encoder: str = setting("MLP([200, 200])", "From x to features; ConvEncoder([32, 64]).")
    decoder: str = setting("MLP([200, 200])", "From z to features; ConvDecoder([64, 32]).")
    missing: bool | str | None = setting(
        None,
        "Whether x may hold NaN, true or false; or how it depends on x which cells are "
        "missing, SelfMasking or Logistic, or, of a table, on z, Bernoulli "
        "[default: true if x holds NaN].",
        "WORD",
    )
    condition: str | None = setting(
        None, 'Columns of a table that p(x | z, c) is given, "~ age + C(batch)".', "FORMULA"
    )
    covariates: tuple[str, ...] | None = setting(
        None,
        "A column of the condition that has holes, and what it is drawn from, Normal or, of "
        "two values, Bernoulli, as often as you like.",
        "COLUMN=LINE",
    )
    offset: str | None = setting(
        None,
        "Column of exposures, which multiply counts; library is the total of each row.",
        "COLUMN",
    )
    weight: str | None = setting(None, "Column of weights, by which rows count.", "COLUMN")
    inputs: Literal["auto", "raw"] = setting(
        "auto",
        "What the encoder reads: numbers at unit scale, by the training data, or raw.",
        "auto|raw",
    )
    units: Literal["data", "none"] | None = setting(
        None,
        "data: the likelihood starts in the units of numbers that are not standardized "
        "[default: data of tables and counts].",
        "data|none",
    )
    device: str = setting("auto", "auto, cpu, cuda ...", "NAME")


HELP = {f.name: f.metadata for f in fields(FitSettings)}


@dataclass(frozen=True, kw_only=True)
class RunSettings(FitSettings, ModelSettings):
    """All that ``pyro-vae fit`` is told.

    Raises:
        ValueError: a value that cannot be served.
    """

    off = {"validation": 0}
    lr: float | str = field(default="cosine(2e-3)", metadata=HELP["lr"])
    validation: float | None = setting(0.1, "Fraction held out; 0 holds out none.", "X")
    binarize: Binarize = setting(
        None,
        "Draw bits from grey values, at each visit or once; dynamic for images with a "
        "Bernoulli likelihood.",
        "dynamic|static",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.likelihood, tuple) and len(self.likelihood) == 1:
            object.__setattr__(self, "likelihood", self.likelihood[0])

    @property
    def by_column(self) -> dict[str, str]:
        """The likelihoods of a table's columns, as ``COLUMN=LINE`` says them.

        Raises:
            ValueError: a likelihood that names no column.
        """
        if self.likelihood == type(self).likelihood:  # pyrefly: ignore[missing-attribute]
            return {}
        lines = [self.likelihood] if isinstance(self.likelihood, str) else self.likelihood
        pairs = [_pair(line) for line in lines]
        if wrong := [line for line, pair in zip(lines, pairs, strict=True) if pair is None]:
            raise ValueError(
                f"the likelihood of a table is said by column, got {wrong[0]!r}: "
                f"--likelihood COLUMN={wrong[0]}"
            )
        return _once("likelihood", [pair for pair in pairs if pair])

    @property
    def of_table(self) -> dict[str, Any]:
        """What is said of a table's cells, and of a text's steps, as ``load_data`` takes it.

        Raises:
            ValueError: a time without its event, or a column beside values of all columns.
        """
        values = [text.partition("=") for text in self.na_values or ()]
        if len({is_pair for _, is_pair, _ in values}) > 1:
            raise ValueError("na_values are of all columns, or each of a column, COLUMN=VALUE")
        gone: Any = None
        if values and values[0][1]:
            gone = {
                name: [cell for n, _, v in values if n == name and v for cell in _cells(v)]
                for name, _, _ in values
            }
        elif values:
            gone = [cell for value, _, _ in values for cell in _cells(value)]
        return {
            "censored": self._pairs("censored", "TIME=EVENT") or None,
            "kinds": {k: _kind(v) for k, v in self._pairs("kinds", "COLUMN=KIND").items()} or None,
            "dates": self._pairs("dates", "COLUMN=FORM") or None,
            "na_values": gone,
            "tokens": self.tokens,
        }

    @property
    def of_condition(self) -> dict[str, str]:
        """The families of the condition's columns with holes.

        Raises:
            ValueError: a column without its line.
        """
        return self._pairs("covariates", "COLUMN=LINE")

    def _pairs(self, name: str, form: str) -> dict[str, str]:
        """What a setting says by column."""
        pairs = [text.partition("=") for text in getattr(self, name) or ()]
        if wrong := [text for text, is_pair, _ in pairs if not is_pair]:
            raise ValueError(f"{name} is {form}, got {wrong[0]!r}")
        return _once(name, [(text, value) for text, _, value in pairs])

    @property
    def of_counts(self) -> dict[str, Any]:
        """What is said of a table of counts, as ``load_data`` takes it: what is none of them."""
        words = re.findall(r"`([^`]*)`|(\w+)", self.condition or "")
        named = {a or b for a, b in words} | {self.weight or ""}
        return {"beside": sorted(named - {""})} if self.offset == "library" else {}

    def fit_options(self, *but: str) -> dict[str, Any]:
        """The arguments of ``fit``, ``but`` some."""
        told = {f.name: getattr(self, f.name) for f in fields(FitSettings) if f.name not in but}
        return {k: None if v == self.off.get(k) else v for k, v in told.items()}


SETTINGS = tuple(field.name for field in fields(RunSettings))


def kinds() -> dict[str, tuple[Kind, ...]]:
    """The kinds of value that each setting takes, beside ``None``."""
    return {name: _members(hint) for name, hint in get_type_hints(RunSettings).items()}


def merge(flags: Mapping[str, object], config: Mapping[str, object]) -> RunSettings:
    """Defaults, beaten by the file, beaten by the flags that were given (those not ``None``).

    Where a setting takes numbers, the text of one is read as the number.

    Raises:
        ValueError: a key that no setting has, a value of the wrong kind, or one that cannot be
            served.
    """
    known = kinds()
    config = {name: value for name, value in config.items() if name not in OF_DATA}
    for name in config:
        if name not in known:
            raise ValueError(f"the configuration has an unknown key {name!r}{nearest(name, known)}")
    if flags.get("latent_dim") is not None:  # which stands in place of layers
        if flags.get("layers") is not None:
            raise ValueError("latent_dim and layers both say the widths of z: leave one out")
        config.pop("layers", None)
    given = {**config, **{name: value for name, value in flags.items() if value is not None}}
    values: dict[str, Any] = {name: _read(name, v, known[name]) for name, v in given.items()}
    return RunSettings(**values)


def read_settings(run: str | Path) -> RunSettings:
    """The settings in the folder of a run; of a model without any, the defaults."""
    path = Path(run) / CONFIG
    return merge({}, read_config(path)) if path.exists() else RunSettings(data=FROM_PYTHON)


def _kind(text: str) -> str | list[str | float]:
    """A kind of column, or the levels of one in order."""
    levels = [_cell(level.strip()) for level in text.split(",")]
    return levels if len(levels) > 1 else text


def _cells(text: str) -> list[str | float]:
    """What a text may stand for: a word, and the number that it looks like, of other columns."""
    return [*dict.fromkeys((_cell(text), text))]


def _cell(text: str) -> str | float:
    """A number, if the text is one."""
    with suppress(ValueError):
        return float(text)
    return text


def _once(name: str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Pairs by column, each of which is said once."""
    names = [column for column, _ in pairs]
    if twice := [column for column in names if names.count(column) > 1]:
        raise ValueError(f"{name} says column {twice[0]!r} twice: leave one out")
    return dict(pairs)


def _pair(line: str) -> tuple[str, str] | None:
    """Column and line, around the last ``=`` outside of parentheses; ``None`` without one."""
    depth, at = 0, None
    for i, letter in enumerate(line):
        depth += (letter == "(") - (letter == ")")
        if letter == "=" and not depth:
            at = i
    return None if at is None else (line[:at], line[at + 1 :])


def _members(hint: Kind) -> tuple[Kind, ...]:
    """The parts of a union without ``None``."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(part for part in parts if part is not NoneType)


def _read(name: str, value: object, kinds: tuple[Kind, ...]) -> object:
    for reading in _readings(value):
        if any(_is_a(reading, kind) for kind in kinds):
            return tuple(reading) if isinstance(reading, list) else reading
    raise ValueError(f"{name} is {' or '.join(map(_word, kinds))}, got {value!r}")


def _readings(value: object) -> Iterator[object]:
    """What a value may mean: a text may be that of a number, a truth value or a list.

    A number of another library is Python's own.
    """
    if callable(item := getattr(value, "item", None)):
        value = item()
    for text in (value, f"[{value}]") if isinstance(value, str) else ():
        with suppress(ValueError, RecursionError):
            reading = json.loads(text)
            if not isinstance(reading, str):
                yield reading
    yield value


def _is_a(value: object, kind: Kind) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(_is_a(v, get_args(kind)[0]) for v in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _word(kind: Kind) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    texts = kind == tuple[str, ...]
    return words.get(kind, "a list of texts" if texts else "a list of whole numbers")
