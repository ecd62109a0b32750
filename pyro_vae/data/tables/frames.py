"""A frame of any library: checked where it comes in, and made where it goes out."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import narwhals as nw
import numpy as np

from .cells import Cells, cells_of
from .columns import Level
from .native import BYTES, LIBRARIES, dtype_text, make_series

__all__ = ["Frame"]

OF_ARRAY = "of an array: pandas.DataFrame(x, columns=[...])"
EMPTY = {"pandas": "object", "polars": "Null", "pyarrow": "null"}  # types of missing cells alone


class Frame:
    """A frame that a user gave, as it is.

    Args:
        frame: of pandas, polars or pyarrow, or a dictionary of columns (pandas makes a frame of it;
            masked arrays are read there).

    Raises:
        ValueError: no such frame, no rows, no columns, or names that are no words or occur twice.
    """

    def __init__(self, frame: object) -> None:
        if isinstance(frame, Mapping):
            import pandas as pd

            try:
                frame = pd.DataFrame(frame)
            except ValueError as problem:
                if not any(map(np.ndim, frame.values())):
                    raise ValueError("a column is a list, also of one row, {'age': [40]}") from None
                raise ValueError(f"the columns make no frame: {problem}") from problem
        if isinstance(frame, nw.DataFrame):
            frame = frame.to_native()
        _check_names(frame)
        try:
            native: Any = frame
            self.frame = nw.from_native(native, eager_only=True)
        except TypeError:
            lazy = "; .collect() it" if hasattr(frame, "collect") else ""
            path = isinstance(frame, str | PathLike)
            how = f"of a file: Table.read({str(frame)!r})" if path else OF_ARRAY
            raise ValueError(
                f"expected a frame of pandas, polars or pyarrow, got {type(frame).__name__}{lazy}\n"
                f"{how}"
            ) from None
        self.native: Any = frame
        self.library = self.frame.implementation.value
        if self.library not in LIBRARIES:
            raise ValueError(f"expected a frame of {', '.join(LIBRARIES)}, got {self.library}")
        if not self.frame.columns:
            raise ValueError("the frame has no columns")
        if not len(self.frame):
            raise ValueError("the frame has no rows: there is nothing to read")

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def names(self) -> list[str]:
        """Of the columns, in the frame's order."""
        return self.frame.columns

    @property
    def label(self) -> str | None:
        """The name that the row of columns' names has in pandas, or a table's metadata in Arrow."""
        if self.library == "pyarrow" and self.native.schema.metadata:
            pairs = self.native.schema.metadata.items()
            return json.dumps({k.decode(BYTES): v.decode(BYTES) for k, v in pairs})
        label = self.native.columns.name if self.library == "pandas" else None
        return label if isinstance(label, str) else None

    def with_others(self, names: Sequence[str], values: Mapping[str, float]) -> Any:  # noqa: ANN401
        """The frame with the columns that it lacks: a value in all rows, or nothing."""
        absent = [name for name in names if name not in self.names]
        added = [nw.lit(values.get(name)).alias(name) for name in absent]
        order = [*names, *(name for name in self.names if name not in names)]
        return self.frame.with_columns(*added).select(order).to_native()

    def only(self, names: Sequence[str]) -> Any:  # noqa: ANN401
        """Those of some columns that it has, as a frame of its library."""
        return self.frame.select([name for name in names if name in self.names]).to_native()

    def cells(
        self,
        name: str,
        *,
        any_type: bool = False,
        na_values: Sequence[Level] = (),
        words: Sequence[Level] = (),
    ) -> Cells:
        """The cells of a column, some values of which are missing cells.

        Of a type that cannot be read all are missing, if any type will do; ``words`` are missing
        cells among objects that are numbers.
        """
        series = self.frame.get_column(name)
        labels = self.native.index if self.library == "pandas" else None
        try:
            cells = cells_of(series, labels, words or na_values).without(na_values)
            if self.library == "pyarrow" or cells.dtype.endswith("[pyarrow]"):  # made again?
                none = np.zeros(0, bool)
                make_series(self.library, name, cells.values[:0], none, cells.dtype, cells.levels)
            return cells
        except Exception as problem:  # whatever a library raises for its own types
            if any_type:
                return Cells(
                    name,
                    None,
                    np.empty(len(self), object),
                    np.zeros(len(self), bool),
                    EMPTY[self.library],
                )
            if str(problem).startswith("column "):
                raise
            raise ValueError(
                f"column {name!r} of type {dtype_text(series)} cannot be read: {problem}\n"
                "give numbers, words, booleans or dates"
            ) from problem

    def take(self, rows: np.ndarray) -> "Frame":
        """Some rows, in this order."""
        if self.library == "pandas":
            return Frame(self.native.iloc[rows])
        if self.library == "polars":
            return Frame(self.native[rows])
        return Frame(self.native.take(rows))

    def with_own(self, name: str, new: Any, same: np.ndarray) -> Any:  # noqa: ANN401
        """A new column that has the very objects of the frame's where a cell is the same."""
        if self.library != "pandas" or not new.dtype == self.native[name].dtype == object:
            return new
        return new.mask(same, self.native[name].set_axis(new.index))

    def replaced(self, columns: Mapping[str, Any]) -> object:
        """The user's frame with some columns in place of its own."""
        if not columns:
            return self.native
        if self.library == "pandas":
            new = self.native.copy(deep=False)
            for name, series in columns.items():
                new[name] = series.set_axis(new.index)
            return new
        if self.library == "polars":
            return self.native.with_columns(list(columns.values()))
        new = self.native
        for name, column in columns.items():
            new = new.set_column(new.column_names.index(name), name, column)
        return new


def _check_names(frame: Any) -> None:  # noqa: ANN401
    if not (hasattr(frame, "iloc") and hasattr(frame, "columns")) and not hasattr(
        frame, "column_names"
    ):
        return  # polars keeps its names apart itself
    names = list(frame.column_names if hasattr(frame, "column_names") else frame.columns)
    for name in names:
        if not isinstance(name, str):
            joined = "frame.columns = ['_'.join(map(str, name)) for name in frame]"
            how = joined if isinstance(name, tuple) else "frame.rename(columns=str)"
            raise ValueError(
                f"the columns of a table have names that are words, got {name!r}\n"
                f"name them: {how}, or frame.columns = [...]"
            )
        if names.count(name) > 1:
            places = [i for i, other in enumerate(names) if other == name]
            raise ValueError(
                f"column {name!r} occurs {len(places)} times, in places {places}: give each column "
                "a name of its own"
            )
