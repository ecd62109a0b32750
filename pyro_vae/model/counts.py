"""Records of counts: a sparse matrix, a frame beside it, and the total of each row."""

import re
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.counts import Counts, is_annotated
from ..data.sparse import SparseRows, is_sparse
from ..data.tables.design import Design
from ..families.networks import spec_of
from ..families.part import Line
from ..language.spec import nearest
from .arrays import convert
from .blocks import Block, Role
from .record import Record
from .tables import NUMBERS, needed_columns

__all__ = ["LIBRARY", "CountsRecord", "counts_of", "has_own_totals"]

LIBRARY = "library"
FEW = 12  # whole numbers that may be codes


class CountsRecord(Record):
    """Rows of counts ``x``, beside a ``condition``, an ``offset`` and a ``weight``.

    A sparse matrix stays one: a few rows of it are packed at a time.

    Args:
        width: how many counts a row has.
        names: of the columns, in whose order later rows are put.
        design: of the condition, from the columns of ``obs``.
        numbers: by their roles ``offset`` and ``weight``, columns of ``obs`` greater than 0;
            the offset ``"library"`` is the total of the row.
        missing: whether x may hold NaN.
    """

    in_units = True

    def __init__(
        self,
        width: int,
        names: Sequence[str] | None = None,
        design: Design | None = None,
        numbers: Mapping[str, str | None] = MappingProxyType({}),
        *,
        missing: bool = False,
    ) -> None:
        self.design = design
        self.numbers = {role: name for role, name in numbers.items() if name is not None}
        blocks = [Block("x", width, missing=missing)]
        if design:
            blocks.append(Block("condition", len(design.names), "context"))
        blocks += [Block(name, (), role) for role, name in self.numbers.items()]  # pyrefly: ignore[bad-argument-type]
        super().__init__(blocks)
        self.columns = None if names is None else tuple(names)

    @property
    def beside(self) -> tuple[str, ...]:
        """The columns of ``obs`` that it reads."""
        numbers = [name for name in self.numbers.values() if name != LIBRARY]
        return (*(self.design.sources if self.design else ()), *numbers)

    def describe(self) -> dict[str, object]:
        """What makes this record again, as plain values."""
        about: dict[str, object] = {"counts": self.x_shape[0], "missing": self.missing}
        if self.columns:
            about["columns"] = list(self.columns)
        if self.design:
            about["condition"] = self.design.as_dict()
        return about | self.numbers

    @staticmethod
    def arguments(about: Mapping[str, Any]) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        design = Design.from_dict(about["condition"]) if "condition" in about else None
        numbers = {role: about.get(role) for role in NUMBERS}
        options = {"missing": about["missing"]}
        record = CountsRecord(about["counts"], about.get("columns"), design, numbers, **options)
        return {"x_shape": record}

    def rows(self, x: object) -> SparseRows | None:
        """Counts as packed rows that are made dense when they are asked for; ``None`` of others.

        Raises:
            ValueError: rows without a count, or other columns than the model's.
        """
        if (counts := self._counts(x)) is None:
            return None
        beside = [torch.tensor(part) for part in self._beside(counts)]
        return counts.rows(torch.cat(beside, 1) if beside else None)

    @property
    def needed(self) -> tuple[str, ...]:
        """What a draw is given: columns of ``obs``, and ``library``; not the weight."""
        return needed_columns(self.design, self.numbers)

    def part(self, x: Tensor | None, role: Role) -> Tensor | None:
        """All blocks of a role side by side, ``(N, D)``; ``None`` where the record has none."""
        if x is None and self.has(role) and role != "weight":
            each = ", ".join(f"{name!r}: ..." for name in self.needed)
            raise ValueError(
                f"this model draws counts given {', '.join(self.needed)}: say it, sample(10, "
                f"given={{{each}}}), or given=counts, whose rows are taken in turn"
            )
        return super().part(x, role)

    def take_known(self, rows: Any, like: Tensor) -> Tensor:  # noqa: ANN401
        """Rows packed, of which what stands beside the counts is known, by its names, or more."""
        by_block = {"x", "condition"} - {*self.needed}
        named = isinstance(rows, Mapping) and not by_block & set(rows)
        columns = {*getattr(rows, "columns", ())} if hasattr(rows, "iloc") else set()
        lacks = bool(columns) and not (self.columns and columns >= {*self.columns})
        bare = isinstance(rows, Mapping) and "condition" in rows and "x" not in rows
        if bare and {*self.numbers.values()} - {*rows}:
            each = ", ".join(f"{name!r}: ..." for name in self.needed)
            raise ValueError(f"a condition alone is not enough: say all by name, given={{{each}}}")
        if not named and not (lacks and {*self.needed} & columns):
            return super().take_known(rows, like)
        frame = _frame_of(rows)
        for name in frame.columns if named else ():
            if name not in (*self.needed, *self.numbers.values()):
                known = ", ".join(self.needed) or "nothing"
                raise ValueError(
                    f"given says {name!r}, and this model draws counts given {known}: leave it out"
                )
        if absent := [name for name in self.needed if name not in frame]:
            raise ValueError(f"this model is conditional on {absent[0]!r}: say its value too")
        beside = [self.design.read(frame)] if self.design else []
        for role, name in self.numbers.items():
            one = np.ones(len(frame))
            values = one if role == "weight" else _positive(frame[name].to_list(), role, name)
            beside.append((np.log(values) if role == "offset" else values)[:, None])
        cells = np.zeros((len(frame), self.x_shape[0]))
        return super().take_known(torch.tensor(np.concatenate([cells, *beside], 1)), like)

    def pack(self, arrays: Mapping[str, Any]) -> Tensor:
        """Blocks by name as one tensor; the condition may be a frame, and totals are added."""
        rows = self.rows(arrays)
        return super().pack(arrays) if rows is None else rows.dense()

    def intervene(self, x: Any, do: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Observations under another condition, by column of ``obs``."""
        sources = self.design.sources if self.design else ()
        if wrong := [name for name in do if name not in sources]:
            have = ", ".join(sources) or "none"
            raise ValueError(f"do= sets columns of the condition ({have}), got {wrong[0]!r}")
        counts = self._counts(x)
        obs = None if counts is None else counts.obs
        if obs is None and (absent := [name for name in sources if name not in do]):
            raise ValueError(
                f"do= of packed counts sets the whole condition: say {absent[0]!r} too, or give "
                "counts with their frame, Counts(x, obs=frame)"
            )
        import pandas as pd

        held = {name: obs[name].to_list() for name in sources if name not in do}  # pyrefly: ignore[unsupported-operation]
        whole = pd.DataFrame({name: {**held, **do}[name] for name in sources}, range(x.shape[0]))
        new = torch.tensor(self.design.read(whole))  # pyrefly: ignore[missing-attribute]
        return super().intervene(x, {"condition": new})

    def _complete(self, x: Tensor) -> Tensor:
        """Dense counts beside their totals, where nothing else is read beside them."""
        if x.shape[1:] != self.x_shape or self.design or {*self.numbers.values()} - {LIBRARY}:
            return super()._complete(x)
        rows = Counts(x, names=self.columns)
        return torch.cat([x, *(convert(torch.tensor(p), x) for p in self._beside(rows))], 1)

    def _counts(self, x: object) -> Counts | None:
        """What has counts and their frame; ``None`` of a plain array, and of packed rows."""
        if isinstance(x, Mapping) and "x" in x:
            if set(x) - {"x", "condition"}:
                return None  # packed by blocks
            x = Counts(x["x"], x.get("condition"))
        elif is_annotated(x) or is_sparse(x):
            x = Counts.of(x)
        elif hasattr(x, "iloc") and hasattr(x, "columns"):
            x = self._of_frame(x)
        if not isinstance(x, Counts):
            return None
        return self._in_own_order(x)

    def _of_frame(self, frame: Any) -> Any:  # noqa: ANN401
        """The columns of counts of a frame, and all of it beside them."""
        own = self.columns
        if own is None or len(frame.columns) == len(own) or any(c not in frame for c in own):
            return frame
        return Counts(frame[list(own)], frame)

    def _in_own_order(self, counts: Counts) -> Counts:
        """The columns as the model has them."""
        if counts.shape[1] != self.x_shape[0] and (not self.columns or not counts.names):
            raise ValueError(
                f"this model is of {self.x_shape[0]} columns of counts, got {counts.shape[1]}"
            )
        if not self.columns or not counts.names or counts.names == self.columns:
            return counts
        places = {name: i for i, name in enumerate(counts.names)}
        if absent := [name for name in self.columns if name not in places]:
            raise ValueError(f"x lacks the column {absent[0]!r}{nearest(absent[0], counts.names)}")
        x: Any = SparseRows(counts.x).matrix if is_sparse(counts.x) else counts.x
        return Counts(x[:, [places[name] for name in self.columns]], counts.obs, self.columns)

    def _beside(self, counts: Counts) -> list[Any]:
        """The condition, and the numbers in the order of the blocks, ``(N, E)`` each."""
        parts = []
        if self.design:
            _check_obs(counts, self.design.sources[0])
            parts.append(self.design.read(counts.obs))
        for role, name in self.numbers.items():
            values = self._totals(counts) if name == LIBRARY else self._column(counts, role, name)
            parts.append((np.log(values) if role == "offset" else values)[:, None])
        return parts

    def _totals(self, counts: Counts) -> np.ndarray:
        """The total of each row."""
        totals = counts.totals().numpy()
        if (wrong := ~((totals > 0) & np.isfinite(totals))).any():
            row = int(np.argmax(wrong))
            self._check_counts(counts, row)
            raise ValueError(
                f"row {row} has no counts (a document without words, a cell without molecules), "
                f"one of {int(wrong.sum())} such rows: its total is the offset, so leave it out, "
                f"{_without_empty(counts)}"
            )
        return totals

    def _check_counts(self, counts: Counts, row: int) -> None:
        """Raise for a row that holds something else than counts."""
        cells = counts[[row]].rows()[0]
        if (wrong := ~((cells >= 0) & cells.isfinite())).any():
            cell = int(wrong.nonzero()[0])
            if cells[cell].isnan():
                raise ValueError(
                    f"x holds NaN, and the total of the row is its offset (first in "
                    f"{self.place(row, cell)}): leave the row out, or give another exposure, a "
                    "column of obs, offset='depth'"
                )
            raise ValueError(
                f"x holds {cells[cell].item():.3g}; a count is a whole number of at least 0 "
                f"(first in {self.place(row, cell)})"
            )

    def _column(self, counts: Counts, role: str, name: str) -> np.ndarray:
        """A column of ``obs``, of numbers greater than 0."""
        _check_obs(counts, name)
        return _positive(counts.obs[name].to_list(), role, name)


def _positive(cells: Sequence[object], role: str, name: str) -> np.ndarray:
    """The cells of a column as numbers greater than 0.

    Raises:
        ValueError: there is another.
    """
    values = np.array([cell if isinstance(cell, Real) else np.nan for cell in cells], float)
    if (wrong := ~((values > 0) & np.isfinite(values))).any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"column {name!r}, row {row}: expected a number greater than 0 ({role}), got "
            f"{cells[row]!r}\nleave the row out, or give its number"
        )
    return values


def _frame_of(rows: Any) -> Any:  # noqa: ANN401
    """A frame as it is; a dictionary of columns, or of the cells of one row, as one.

    Raises:
        ValueError: columns of several lengths.
    """
    if not isinstance(rows, Mapping):
        return rows
    import pandas as pd

    lengths = {name: len(value) for name, value in rows.items() if np.ndim(value)}
    if len({*lengths.values()}) > 1:
        raise ValueError(f"given has columns of several lengths, {lengths}: give each the same")
    return pd.DataFrame(dict(rows), index=range(max(lengths.values(), default=1)))


def _check_obs(counts: Counts, name: str) -> None:
    """Raise where a column of ``obs`` is not there."""
    if counts.obs is None:
        raise ValueError(
            f"this model reads {name!r} beside x: give counts with a frame of it, "
            "Counts(x, obs=frame)"
        )
    if name not in counts.obs:
        known = [*map(str, counts.obs.columns), LIBRARY]
        raise ValueError(f"obs has no column {name!r}{nearest(name, known)}")


def _without_empty(counts: Counts) -> str:
    """How rows without a count are left out, of x as it came."""
    if is_sparse(counts.x) or counts.obs is not None:
        return "Counts.of(x)[Counts.of(x).totals() > 0]"
    return "x[x.sum(1) > 0]"


def has_own_totals(likelihood: Line | Mapping[str, str] | None) -> bool:
    """Whether a likelihood is a Multinomial whose line says no total."""
    if likelihood is None or isinstance(likelihood, Mapping):
        return False
    spec = spec_of(likelihood)
    return spec is not None and spec.name == "Multinomial" and "total_count" not in str(spec)


def counts_of(
    x: Any,  # noqa: ANN401
    condition: str | Sequence[str] | Design | None,
    numbers: Mapping[str, str | None],
    *,
    missing: bool,
) -> CountsRecord:
    """The record of counts, or of a row of so many.

    Args:
        x: counts, an ``AnnData``, a matrix, a frame; or how many counts a row has.
        condition: a formula over columns of ``obs``, these by name, or a design.
        numbers: columns of ``obs`` by their roles, or ``"library"``.
        missing: whether x may hold NaN.

    Raises:
        ValueError: a condition without the frame that it is over.
    """
    said = {role: name for role, name in numbers.items() if name is not None}
    if isinstance(x, int | tuple):
        (width,) = x if isinstance(x, tuple) and len(x) == 1 else (x,)
        if not isinstance(width, int):
            raise ValueError(f"a row of counts is a vector, got x_shape {x}")
        if condition is not None and not isinstance(condition, Design):
            raise ValueError(
                "a condition of counts is a formula, of a frame that its levels are learned from: "
                "VAE(Counts(x, obs=frame), ..., condition='~ batch')"
            )
        return CountsRecord(width, None, condition, said, missing=missing)
    if hasattr(x, "iloc") and hasattr(x, "columns"):
        aside = _named_in(x, condition) | set(said.values())
        names = [c for c in x.columns if c not in aside and x[c].dtype.kind in "biuf"]
        x = Counts(x[names], x)
    counts = Counts.of(x)
    design = condition if isinstance(condition, Design) else None
    if condition is not None and not isinstance(condition, Design):
        if counts.obs is None:
            raise ValueError(
                f"the condition {condition!r} needs a frame beside the counts: Counts(x, obs=frame)"
            )
        design = Design.of(condition, counts.obs)
        _warn_of_codes(design, condition, counts.obs)
    for name in set(said.values()) - {LIBRARY}:
        _check_obs(counts, name)
    return CountsRecord(counts.shape[1], counts.names, design, said, missing=missing)


def _warn_of_codes(design: Design, condition: object, obs: Any) -> None:  # noqa: ANN401
    """Warn of few whole numbers that a condition reads as a quantity: they may be codes."""
    for name in sorted(set(design.sources) & set(design.names)):
        values = np.unique(np.asarray(obs[name], float))
        if 2 < len(values) <= FEW and (values == values.round()).all():
            some = ", ".join(f"{v:g}" for v in values[:5])
            warnings.warn(
                f"the condition {condition!r} reads column {name!r} as a quantity, and it holds "
                f"{len(values)} whole numbers ({some} ...): if they are codes, say C({name})",
                stacklevel=5,
            )


def _named_in(frame: Any, condition: Any) -> set[str]:  # noqa: ANN401
    """The columns of a frame that a condition names."""
    if isinstance(condition, Design):
        return set(condition.sources)
    words = re.findall(r"`([^`]*)`|(\w+)", condition) if isinstance(condition, str) else ()
    names = {a or b for a, b in words} if isinstance(condition, str) else set(condition or ())
    return {c for c in frame.columns if c in names}
