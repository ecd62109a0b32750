"""The design of a condition: from a formula over columns to the numbers that a model reads."""

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from ...language.spec import nearest
from .columns import Column
from .formulas import OTHERS, factors_of, names_of, parsed, sources_of, within_c, words_of
from .frames import Frame
from .table import Schema, Table

__all__ = ["Design"]

NUMBERS = ("whole", "number")  # sorts of levels that could be quantities
CONSTANT = ("Intercept", "1")  # names that a formula has for it


@dataclass(frozen=True)
class Design:
    """The columns that stand for a condition, with what they learned from a table's rows.

    Levels, knots and centres are those of the table that the design was made from, whatever rows
    are read later; a column of words, and any in ``C()``, has one column for each level but the
    first. There is no constant column: the networks have their own.

    Args:
        formula: as users of R and of patsy write it, ``"~ age + C(batch) + bs(time, 4)"``.
        schema: of the table.
        levels: of columns of numbers within ``C()``, by name.
        state: what transformations learned, by their words.
        names: of the columns.

    References:
        Wilkinson & Rogers (1973), Applied Statistics 22, for the formulas.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"age": [31.0, 45.0, 60.0] * 4, "site": ["a", "b", "c"] * 4})
    >>> design = Design.of("~ age + site", frame)
    >>> design.names
    ('age', 'site[T.b]', 'site[T.c]')
    >>> design.read({"age": [50.0], "site": ["c"]})
    array([[50.,  0.,  1.]])
    """

    formula: str
    schema: Schema
    levels: Mapping[str, Sequence[float]]
    state: Mapping[str, Any]
    names: tuple[str, ...]

    @classmethod
    def of(cls, condition: str | Sequence[str], data: Table | object) -> "Design":
        """The design of a formula, or of columns by name, that a table or a frame has.

        Args:
            condition: a formula, or the columns.
            data: from whose rows levels, knots and centres are learned.

        Raises:
            ValueError: a formula that cannot be read, an unknown column, or one with a hole.
        """
        if isinstance(data, str):
            raise ValueError("Design.of takes the formula first, Design.of('~ age', frame)")
        formula = condition if isinstance(condition, str) else _sum_of(condition)
        table = data if isinstance(data, Table) else Table.from_frame(data)
        factors = factors_of(formula)
        categorical = {name for factor in factors for name in within_c(factor)}
        known = _known(formula, table.schema)
        levels = {}
        for name in sorted(categorical):
            if not known[name].has_codes:
                column = table.values[:, table.schema.places[name]]
                levels[name] = sorted(set(column[~np.isnan(column)].tolist()))
        design = cls(formula, table.schema, levels, {}, ())
        matrix = design._matrix(table)
        names = tuple(str(name) for name in matrix.columns if name != "Intercept")
        if not names:
            raise ValueError(f"the condition {formula!r} has no column: name one, '~ age'")
        if len(set(names)) < len(names):
            raise ValueError(f"the condition {formula!r} has a column twice: leave one out")
        design._warn_of_codes()
        state = json.loads(json.dumps(matrix.model_spec.transform_state, default=_plain))
        return cls(formula, table.schema, levels, state, names)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The columns of the table that it reads, in the order of the table."""
        named = sources_of(self.formula)
        return tuple(c.name for c in self.schema.modelled if c.name in named)

    def __repr__(self) -> str:
        return f"Design({self.formula!r}: {', '.join(self.names)})"

    @cached_property
    def computed(self) -> frozenset[str]:
        """The columns that a function of the formula computes with, so that they are numbers."""
        factors = [f for f in factors_of(self.formula) if not f.startswith("`")]
        return frozenset(name for f in factors if not within_c(f) for name in names_of(f))

    def read(self, data: Table | object) -> np.ndarray:
        """The numbers of a table or a frame, ``(N, len(names))``.

        A frame needs the columns that the formula names, and may have others.

        Raises:
            ValueError: a column that is absent, a level that was not seen, or a missing cell.
        """
        own = self._only_sources().columns
        if not isinstance(data, Table) or any(c not in data.schema.columns for c in own):
            data = self.rows(data)
        matrix = self._matrix(data)
        return matrix[list(self.names)].to_numpy(dtype=np.float64)

    def rows(self, data: Table | object) -> Table:
        """The columns that it reads of a table or a frame, as a table of them alone."""
        given = Frame(data.to_frame() if isinstance(data, Table) else data)
        if absent := [name for name in self.sources if name not in given.names]:
            raise ValueError(
                f"the condition {self.formula!r} reads column {absent[0]!r}, which the frame does "
                f"not have{nearest(absent[0], given.names)}: rename it, or add it"
            )
        return self._only_sources().read(given.only(self.sources))

    def as_dict(self, beside: Schema | None = None) -> dict[str, object]:
        """Plain values, which :meth:`from_dict` reads.

        Args:
            beside: a schema that is kept anyway; the design's own is left out where it is this.
        """
        learned = {"levels": self.levels, "state": self.state, "names": self.names}
        own = {} if self.schema == beside else {"table": self.schema.as_dict()}
        return {"formula": self.formula, "learned": json.dumps(learned), **own}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], schema: Schema | None = None) -> "Design":
        """The design that :meth:`as_dict` described, beside a schema where it was given one."""
        schema = Schema.from_dict(values["table"]) if "table" in values else cast("Schema", schema)
        learned = json.loads(values["learned"])
        formula, names = values["formula"], tuple(learned["names"])
        _known(formula, schema)  # raises for what no formula may say
        return cls(formula, schema, learned["levels"], learned["state"], names)

    def _only_sources(self) -> Schema:
        """The schema of the columns that it reads alone."""
        columns = tuple(c for c in self.schema.columns if c.name in self.sources)
        return replace(self.schema, columns=columns)

    def _matrix(self, table: Table) -> Any:  # noqa: ANN401
        """The columns of the design, and the constant one, as a frame."""
        import pandas as pd
        from formulaic import ModelSpec
        from formulaic.errors import FormulaicError
        from formulaic.materializers import NAAction

        series: dict[str, object] = {}
        places = table.schema.places
        for name in self.sources:
            column, values = self.schema[name], table.values[:, places[name]]
            if (missing := np.isnan(values)).any():
                raise table.error(
                    name,
                    missing,
                    "a condition is known in every row",
                    "fill it, leave the row out, or model the column: take it out of the condition",
                )
            if column.has_codes and name in self.computed:
                series[name] = _level_numbers(column)[values.astype(int)]
            elif column.has_codes:
                series[name] = pd.Categorical.from_codes(values.astype(int), column.levels)  # pyrefly: ignore[bad-argument-type]
            elif name in self.levels:
                self._check_levels(name, table)
                series[name] = pd.Categorical(values, categories=list(self.levels[name]))
            else:
                series[name] = values
        spec = ModelSpec(
            formula=parsed(self.formula),
            materializer="pandas",
            na_action=NAAction.IGNORE,
            transform_state=json.loads(json.dumps(self.state)),
        )
        try:
            with np.errstate(all="ignore"):  # what is not finite is told below
                matrix: Any = spec.get_model_matrix(pd.DataFrame(series), context=OTHERS)
        except FormulaicError as problem:
            said = words_of(problem)
            if "extrapolation" in said:
                raise ValueError(
                    f"the condition {self.formula!r} has a spline, and the rows lie outside of its "
                    "range: say what it does there, bs(time, 4, extrapolation='clip')"
                ) from problem
            raise ValueError(f"the condition {self.formula!r} cannot be read: {said}") from problem
        finite = np.isfinite(matrix.to_numpy(dtype=np.float64))
        if not finite.all():
            row, place = np.argwhere(~finite)[0]
            raise ValueError(
                f"the condition's column {matrix.columns[place]!r} is not finite in row {row}: "
                "take a transformation that is, such as log1p"
            )
        return matrix

    def _warn_of_codes(self) -> None:
        """Say which numbers are read as codes, a column for each level, without being told so."""
        for name in set(self.sources) - set(self.levels) - self.computed:
            column = self.schema[name]
            said = re.search(rf"\bC\(\s*`?{re.escape(name)}`?\s*\)", self.formula)
            if column.has_codes and column.sort in NUMBERS and len(column.levels) > 2 and not said:
                warnings.warn(
                    f"the condition reads the {len(column.levels)} numbers of {name!r} as codes, a "
                    f"column for each: C({name}) says so, and "
                    f"Table.from_frame(df, kinds={{{name!r}: 'integer'}}) makes them a number",
                    stacklevel=5,
                )

    def _check_levels(self, name: str, table: Table) -> None:
        values = table.values[:, table.schema.places[name]]
        unseen = ~np.isin(values, list(self.levels[name]))
        if unseen.any():
            known = ", ".join(f"{v:g}" for v in self.levels[name][:12])
            problem = f"{values[unseen][0]:g} is not among the levels of the condition"
            raise table.error(name, unseen, problem, f"put one of them there: {known}")


def _sum_of(columns: Sequence[str]) -> str:
    """Columns by name as a formula."""
    names = list(columns) if isinstance(columns, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"a condition is a formula, '~ age + sex', or columns, got {columns!r}")
    return "~ " + " + ".join(f"`{name}`" for name in names)


def _level_numbers(column: Column) -> np.ndarray:
    """The numbers that codes stand for.

    Raises:
        ValueError: they stand for words.
    """
    if column.sort in ("whole", "number", "boolean"):
        return np.array([float(level) for level in column.levels])
    raise ValueError(
        f"column {column.name!r} holds words, and a function of the condition computes with "
        f"numbers: say {column.name} alone, or C({column.name})"
    )


def _known(formula: str, schema: Schema) -> dict[str, Column]:
    """The columns that a formula may name, after a check that it names no others."""
    known = {c.name: c for c in schema.modelled}
    for name in sources_of(formula):
        if name in schema.names and name not in known:
            groups = f", or say kinds={{{name!r}: 'categorical'}}, if they are groups"
            if schema[name].sort in NUMBERS:
                groups += ", 'integer', if they are a quantity"
            raise ValueError(
                f"the condition {formula!r} names {name!r}, which the table does not model "
                f"({schema[name].why}): leave it out of the condition"
                f"{groups if schema[name].kind == 'identifier' else ''}"
            )
        if name not in known:
            raise ValueError(
                f"the condition {formula!r} names {name!r}, and the table models no such column"
                f"{nearest(name, known)}"
            )
        if name in CONSTANT:
            raise ValueError(
                f"the condition names {name!r}, and a formula calls its constant column so: rename "
                "the column"
            )
        if known[name].kind == "survival":
            raise ValueError(f"the condition names {name!r}, a censored time: take another")
    return known


def _plain(value: Any) -> object:  # noqa: ANN401
    return value.tolist() if hasattr(value, "tolist") else str(value)
