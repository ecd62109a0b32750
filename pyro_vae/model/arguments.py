"""The record of a model, from the first argument of its class and what is said beside it."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from ..data import Vocabulary
from ..data.counts import Counts, is_annotated
from ..data.sparse import is_sparse
from ..data.tables import Table
from ..data.tables.design import Design
from ..families.part import Line
from ..language.spec import Spec, as_spec
from .blocks import Block, shape_of
from .counts import LIBRARY, CountsRecord, counts_of, has_own_totals
from .designed import DesignedRecord
from .record import Record
from .sequences import Sequences, as_sequences, is_sequences
from .tables import TableRecord

__all__ = ["Condition", "Observations", "as_record", "record_arguments"]

Condition: TypeAlias = str | Sequence[str] | int | Design
Observations: TypeAlias = int | tuple[int | None, ...] | Record | Table | Counts | Vocabulary


def as_record(
    x: Observations,
    missing: bool | str | Spec,
    likelihood: Line | Mapping[str, str] | None,
    condition: Condition | None = None,
    numbers: Mapping[str, str | None] = MappingProxyType({}),
) -> tuple[Record, Line, str | Spec | None]:
    """The record of a model's first argument, and the likelihood of what says none itself.

    Args:
        x: a shape, a record, a table, or counts.
        missing: whether cells of a plain array may be missing, or a line that says how they come to
            be; ``"Bernoulli"`` puts bits into the record of a table.
        likelihood: a line or module; of a table, the lines of some columns by name.
        condition: of a table a formula or columns by name; of an array a design, or a width.
        numbers: of a table and of counts, the columns of an offset and of weights.

    Returns:
        The record, the likelihood, and the line of p(mask | x), if there is one.

    Raises:
        ValueError: lines by column for what has no columns, or one line for a table.
    """
    line = missing if isinstance(missing, str | Spec) else None
    bits = line is not None and as_spec(line) == Spec("Bernoulli")
    if isinstance(x, Table):
        record = _of_table(x, bits, likelihood, condition, numbers)
        return record, "Bernoulli", None if bits else line
    if isinstance(x, Record):
        numbers = dict(numbers)
    elif numbers.get("offset") is None and has_own_totals(likelihood):
        numbers = {**numbers, "offset": LIBRARY}
    if _has_counts(x, numbers):
        record = counts_of(x, condition, numbers, missing=missing is True)  # pyright: ignore
        return record, "Bernoulli" if likelihood is None else likelihood, line  # pyright: ignore
    if hasattr(x, "columns") and not isinstance(x, Record):
        raise ValueError("a frame is made a table first: VAE(Table.from_frame(df), latent_dim=8)")
    if isinstance(likelihood, Mapping) or likelihood == "auto":
        raise ValueError(
            "lines by column, and 'auto', are of a table: VAE(Table.from_frame(df), 8)"
        )
    if said := [role for role, name in numbers.items() if name is not None]:
        raise ValueError(
            f"{said[0]}= names a column of a table, or of what is beside counts ('library' is "
            f"their total): of arrays, Record([Block('x', 784), "
            f"Block({said[0]!r}, role={said[0]!r})])"
        )
    if bits:
        raise ValueError(
            "missing='Bernoulli' is of a table: VAE(Table.from_frame(df), 8, missing='Bernoulli')"
        )
    if is_sequences(x):
        record = as_sequences(x, missing, condition)
        return record, likelihood or record.line, None
    holes = not isinstance(x, Record) if isinstance(missing, str | Spec) else missing
    plain: Any = x
    record = Record.of(plain, holes) if condition is None else _beside(plain, holes, condition)
    return record, "Bernoulli" if likelihood is None else likelihood, line


def _of_table(
    x: Table,
    bits: bool,
    likelihood: Line | Mapping[str, str] | None,
    condition: Condition | None,
    numbers: Mapping[str, str | None],
) -> TableRecord:
    """The record of a table; with ``bits`` for the holes of its columns."""
    by_column = likelihood is None or likelihood == "auto" or isinstance(likelihood, Mapping)
    if not by_column:
        raise ValueError(
            f"the likelihood of a table is 'auto' or a line for each column, got {likelihood!r}"
            "\nsay the column: likelihood={'Income': 'LogNormal'}"
        )
    lines = dict(likelihood) if isinstance(likelihood, Mapping) else {}
    for name in filter(None, numbers.values()):  # few values are no codes here
        if x.schema[name].has_codes and x.schema[name].sort in ("whole", "number"):
            lines[name] = "Normal"
    table = x.with_likelihood(lines)
    schema = table.schema
    if isinstance(condition, int):
        raise ValueError(f"the condition of a table is '~ age' or ['age'], got {condition!r}")
    if condition is not None and not isinstance(condition, Design):
        condition = Design.of(condition, table)
    gone = table.missing.sum(0).tolist() if bits else [0] * len(schema.cells)
    holes = [name for name, n in zip(schema.cells, gone, strict=True) if n]
    return TableRecord(schema, condition, numbers, holes)


def _has_counts(x: object, numbers: Mapping[str, str | None]) -> bool:
    """Whether observations are counts, as a sparse matrix, or by their total."""
    if isinstance(x, Record):
        return False
    if isinstance(x, Counts) or is_sparse(x) or is_annotated(x):
        return True
    matrix = getattr(x, "ndim", 0) == 2 and not hasattr(x, "columns")
    return matrix or numbers.get("offset") == LIBRARY


def _beside(x: int | tuple[int, ...] | Record, missing: bool, condition: Condition) -> Record:
    """The record of a plain array and its condition, blocks ``x`` and ``condition``."""
    if isinstance(x, Record):
        raise ValueError("of a record the blocks say it: Block('age', role='context')")
    if not isinstance(condition, int | Design):
        raise ValueError(
            "a formula needs the frame that its levels and knots are learned from: "
            f"condition=pv.Design.of({condition!r}, frame), and data {{'x': x, 'condition': frame}}"
        )
    design = condition if isinstance(condition, Design) else None
    width = len(design.names) if design else condition
    x = shape_of(x, "x_shape", least=1)
    blocks = [Block("x", x, missing=missing), Block("condition", width, "context")]  # pyright: ignore
    return DesignedRecord(blocks, design) if design else Record(blocks)


def record_arguments(about: Mapping[str, Any]) -> dict[str, object]:
    """The arguments that make a record again, from a model's description."""
    kinds = {"table": TableRecord, "counts": CountsRecord, "condition": DesignedRecord}
    kinds["sequences"] = Sequences
    kind = next((kind for name, kind in kinds.items() if name in about), Record)
    return kind.arguments(about)
