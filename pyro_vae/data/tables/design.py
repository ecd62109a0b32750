"""The design of a condition: from a formula over columns to the numbers that a model reads."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from ...language.spec import nearest
from .columns import Column
from .frames import Frame
from .table import Schema, Table

__all__ = ["Design"]

LONGEST = 1000  # letters of a formula
LARGEST = 1e6  # numbers in a formula; and of what makes columns of a spline, as many
MOST_COLUMNS = 200
# What a formula may call. Nothing else in it is evaluated.
FUNCTIONS = ("C", "I", "bs", "cc", "center", "cr", "cs", "exp", "log", "log10", "log2", "scale")
OTHERS = {"abs": np.abs, "log1p": np.log1p, "sqrt": np.sqrt}
NODES = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp),
    *(ast.UnaryOp, ast.USub, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.List, ast.Tuple),
)
SETTINGS = ("bs", "cc", "center", "cr", "cs", "scale")  # that take more than what they are of
QUOTED = re.compile("`([^`]*)`")
# Names and words of which formulaic reads what is read here: it evaluates what it takes for code.
PLAIN = re.compile(r"`[^`'\"\\]*`|'\w*'|\"\w*\"")


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
        factors = _factors(formula)
        categorical = {name for factor in factors for name in _within_c(factor)}
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
        state = json.loads(json.dumps(matrix.model_spec.transform_state, default=_plain))
        return cls(formula, table.schema, levels, state, names)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The columns of the table that it reads, in the order of the table."""
        named = _sources(self.formula)
        return tuple(c.name for c in self.schema.modelled if c.name in named)

    def read(self, data: Table | object) -> np.ndarray:
        """The numbers of a table or a frame, ``(N, len(names))``.

        A frame needs the columns that the formula names, and may have others.

        Raises:
            ValueError: a column that is absent, a level that was not seen, or a missing cell.
        """
        own = self._only_sources()
        if not isinstance(data, Table) or any(c not in data.schema.columns for c in own.columns):
            given = Frame(data.to_frame() if isinstance(data, Table) else data)
            data = own.read(given.only(self.sources))
        matrix = self._matrix(data)
        return matrix[list(self.names)].to_numpy(dtype=np.float64)

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
        return Schema(columns, self.schema.library)

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
                raise ValueError(
                    f"column {name!r}, row {int(np.argmax(missing))}: a condition is known in "
                    "every row\nfill it, leave the row out, or model the column: take it out of "
                    "the condition"
                )
            if column.has_codes:
                series[name] = pd.Categorical.from_codes(values.astype(int), column.levels)  # pyright: ignore
            elif name in self.levels:
                self._check_levels(name, values)
                series[name] = pd.Categorical(values, categories=list(self.levels[name]))
            else:
                series[name] = values
        spec = ModelSpec(
            formula=_parsed(self.formula),
            materializer="pandas",
            na_action=NAAction.IGNORE,
            transform_state=json.loads(json.dumps(self.state)),
        )
        try:
            with np.errstate(all="ignore"):  # what is not finite is told below
                matrix: Any = spec.get_model_matrix(pd.DataFrame(series), context=OTHERS)
        except FormulaicError as problem:
            said = _words(problem)
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

    def _check_levels(self, name: str, values: np.ndarray) -> None:
        unseen = ~np.isin(values, list(self.levels[name]))
        if unseen.any():
            row = int(np.argmax(unseen))
            raise ValueError(
                f"column {name!r}, row {row}: {values[row]:g} is not among the levels of the "
                f"condition, {', '.join(f'{v:g}' for v in self.levels[name][:12])}"
            )


def _sum_of(columns: Sequence[str]) -> str:
    """Columns by name as a formula."""
    names = list(columns)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"a condition is a formula, '~ age + sex', or columns, got {columns!r}")
    return "~ " + " + ".join(f"`{name}`" for name in names)


def _factors(formula: str) -> list[str]:
    """The parts of a formula's terms, after a check that all of them are harmless.

    Raises:
        ValueError: a formula that cannot be read, or one that asks for more than a formula may.
    """
    from formulaic.errors import FormulaicError

    if len(formula) > LONGEST:
        raise ValueError(f"a formula has at most {LONGEST} letters, got {len(formula)}")
    if big := [n for n in re.findall(r"(?:\*\*|\^)\s*(\d+)", formula) if int(n) > 5]:
        raise ValueError(f"a power in a formula is at most 5, got {big[0]}")
    if formula.count("*") - 2 * formula.count("**") + formula.count("^") > 8:
        raise ValueError("a formula has at most 8 products: write out the terms that you mean")
    try:
        factors = [factor for term in _parsed(formula) for factor in term.factors]
        kinds = [(str(factor.expr), factor.eval_method.value) for factor in factors]
    except (FormulaicError, AttributeError, SyntaxError, RecursionError) as problem:
        said = f": {_words(problem)}" if isinstance(problem, FormulaicError) else ""
        raise ValueError(
            f"the condition {formula!r} is no formula such as '~ age + C(batch)'{said}"
        ) from problem
    for expression, kind in kinds:
        if kind == "python":
            _check_harmless(expression, formula)
    return [f"`{text}`" if kind == "lookup" else text for text, kind in kinds if kind != "literal"]


def _parsed(formula: str) -> Any:  # noqa: ANN401
    """The terms of a formula."""
    from formulaic import Formula

    return Formula(formula)  # pyright: ignore[reportAbstractUsage]


def _check_harmless(expression: str, formula: str) -> None:
    """Raise for anything but arithmetic and the functions that a formula may call."""
    if re.search(r"[`'\"\\]", PLAIN.sub("", expression)):
        raise ValueError(
            f"names in backticks hold no quotes, and words letters and digits alone, within a "
            f"function of a formula: rename the column, got {expression!r}"
        )
    try:
        tree = ast.parse(_placed(expression), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise ValueError(f"{expression!r} in the condition {formula!r} cannot be read") from problem
    settings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            settings |= _check_call(node)
        elif not isinstance(node, NODES):
            what = type(node).__name__.lower()
            raise ValueError(f"a formula holds no {what}, got {expression!r}")
        value: Any = node.value if isinstance(node, ast.Constant) else 0
        number = type(value) in (int, float)
        if (not number or isinstance(node, ast.List | ast.Tuple)) and id(node) not in settings:
            raise ValueError(f"a formula computes with columns and numbers, got {expression!r}")
        inside = "(" in expression and isinstance(value, int)
        if number and abs(value) > (MOST_COLUMNS if inside else LARGEST):
            raise ValueError(f"the number {value:g} in {expression!r} is too large for a formula")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not _names_in(node):
            raise ValueError(f"a power in a formula is of a column, got {expression!r}")


def _check_call(node: ast.Call) -> set[int]:
    """Raise for a function that a formula may not call; the nodes of its settings, by id."""
    name, known = node.func.id if isinstance(node.func, ast.Name) else "", {*FUNCTIONS, *OTHERS}
    if name not in known:
        got = name or ast.unparse(node.func)
        raise ValueError(
            f"a formula may not call {got!r}; it may call {', '.join(sorted(known))}"
            f"{nearest(got, sorted(known))}"
        )
    settings = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
    if name == "C" and (settings or not all(isinstance(arg, ast.Name) for arg in node.args)):
        raise ValueError("C() takes the name of one column: C(batch)")
    if not node.args or (settings and name not in SETTINGS):
        raise ValueError(f"{name}() takes one thing: {name}(age)")
    try:
        _ = [ast.literal_eval(setting) for setting in settings]
    except ValueError as problem:
        said = ast.unparse(node)
        raise ValueError(f"what follows the first thing in {said} is a number or word") from problem
    return {id(inner) for setting in settings for inner in ast.walk(setting)}


def _names_in(tree: ast.AST) -> set[str]:
    """The names in an expression, without those of functions."""
    nodes = list(ast.walk(tree))
    functions = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return {n.id for n in nodes if isinstance(n, ast.Name) and id(n) not in functions}


def _within_c(factor: str) -> set[str]:
    """The column that a factor takes as categories."""
    found = re.fullmatch(r"C\((?:`([^`]*)`|(\w+))\)", factor.strip())
    return {found[1] or found[2]} if found else set()


def _sources(formula: str) -> set[str]:
    """The columns that a formula names."""
    names: set[str] = set()
    for factor in _factors(formula):
        quoted = QUOTED.findall(factor)
        names |= set(quoted)
        own = _names_in(ast.parse(_placed(factor), mode="eval"))
        names |= {name for name in own if not name.startswith("quoted_column_")}
    return names


def _known(formula: str, schema: Schema) -> dict[str, Column]:
    """The columns that a formula may name, after a check that it names no others."""
    known = {c.name: c for c in schema.modelled}
    for name in _sources(formula):
        if name not in known:
            raise ValueError(
                f"the condition {formula!r} names {name!r}, and the table models no such column"
                f"{nearest(name, known)}"
            )
        if known[name].kind == "survival":
            raise ValueError(f"the condition names {name!r}, a censored time: take another")
    return known


def _placed(expression: str) -> str:
    """An expression with a plain name in the place of each quoted column."""
    return QUOTED.sub(lambda found: f"quoted_column_{len(found[1])}", expression)


def _words(problem: BaseException) -> str:
    """An error's first line, without marks for a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m|[\u29db\u29da]", "", str(problem)).strip()
    return text.split("\n")[0]


def _plain(value: Any) -> object:  # noqa: ANN401
    return value.tolist() if hasattr(value, "tolist") else str(value)
