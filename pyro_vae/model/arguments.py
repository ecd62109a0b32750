"""The record of a model, from the first argument of its class and what is said beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..data import Vocabulary
from ..data.counts import Counts, is_annotated
from ..data.sparse import is_sparse
from ..data.tables import Table
from ..data.tables.declared import declared_lines
from ..data.tables.design import Design
from ..data.tables.formulas import numbers_in, sources_of, without
from ..families.part import Line
from ..families.visits import VisitPart
from ..language.spec import Spec, as_spec
from .blocks import Block, shape_of
from .counts import LIBRARY, CountsRecord, counts_of, has_own_totals
from .designed import DesignedRecord, beside_block
from .making import asks_for_features
from .record import Record
from .sequences import Sequences, as_sequences, is_sequences
from .tables import TableRecord
from .visits import VisitsRecord, read_by_visit, visits_of, without_subject

__all__ = ["Condition", "Given", "Observations", "as_record", "record_arguments"]

Condition: TypeAlias = str | Sequence[str] | int | Design
Observations: TypeAlias = int | tuple[int | None, ...] | Record | Table | Counts | Vocabulary


@dataclass(frozen=True)
class Given:
    """What a model is conditional on.

    Args:
        condition: of a table a formula or columns by name; of an array a design, or a width.
        numbers: of a table, the columns of an offset and of weights.
        covariates: columns of the condition that have holes, with their families.
        prior: the model's, which may read a table's rows as visits of subjects.
    """

    condition: Condition | None = None
    numbers: Mapping[str, str | None] = field(default_factory=dict)
    covariates: Mapping[str, str] = field(default_factory=dict)
    prior: Line = "Normal"


def as_record(
    x: Observations,
    missing: bool | str | Spec,
    likelihood: Line | Mapping[str, str] | None,
    given: Given | None = None,
) -> tuple[Record, Line, str | Spec | None]:
    """The record of a model's first argument, and the likelihood of what says none itself.

    Args:
        x: a shape, a record, a table, or counts.
        missing: whether cells of a plain array may be missing, or a line that says how they come to
            be; ``"Bernoulli"`` puts bits into the record of a table.
        likelihood: a line or module; of a table, the lines of some columns by name.
        given: what the model is conditional on.

    Returns:
        The record, the likelihood, and the line of p(mask | x), if there is one.

    Raises:
        ValueError: lines by column for what has no columns, or one line for a table.
    """
    line = missing if isinstance(missing, str | Spec) else None
    bits = line is not None and as_spec(line) == Spec("Bernoulli")
    given = given or Given()
    condition, numbers, visits = given.condition, given.numbers, visits_of(given.prior)
    if isinstance(x, Table):
        if visits is not None and isinstance(missing, str | Spec):
            raise ValueError(f"missing={str(missing)!r} is of rows, not of visits: missing=True")
        lines = declared_lines("auto" if likelihood is None else likelihood)
        record = _of_table(x, visits, lines, given, bits)
        return record, "Bernoulli", None if bits else line
    if visits is not None and not isinstance(x, VisitsRecord):
        raise ValueError(
            f"{visits.spec} reads the columns of a table: VAE(Table.from_frame(df), 2, prior=...)"
        )
    if given.covariates:
        raise ValueError("covariates= are columns of a table: VAE(Table.from_frame(df), 2, ...)")
    if isinstance(x, Record):
        numbers = dict(numbers)
    elif numbers.get("offset") is None and has_own_totals(likelihood):
        numbers = {**numbers, "offset": LIBRARY}
    if _has_counts(x, numbers):
        record = counts_of(x, condition, numbers, missing=missing is True)  # pyrefly: ignore[bad-argument-type]
        return record, "Bernoulli" if likelihood is None else likelihood, line  # pyrefly: ignore[bad-return]
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
        line_of_tokens = not isinstance(likelihood, str | Spec) or "Categorical" in str(likelihood)
        if record.vocabulary and not line_of_tokens:
            raise ValueError(
                f"the steps of texts are tokens, so their likelihood is Categorical, got "
                f"{likelihood}: leave likelihood out"
            )
        return record, likelihood or record.line, None
    holes = not isinstance(x, Record) if isinstance(missing, str | Spec) else missing
    plain: Any = x
    record = Record.of(plain, holes) if condition is None else _beside(plain, holes, condition)
    return record, "Bernoulli" if likelihood is None else likelihood, line


def _of_table(
    x: Table,
    visits: VisitPart | None,
    lines: dict[str, Any],
    given: "Given",
    bits: bool,
) -> Record:
    """The record of a table's rows, or of its subjects."""
    condition, numbers, covariates = given.condition, given.numbers, given.covariates
    if isinstance(condition, int):
        raise ValueError(f"the condition of a table is '~ age' or ['age'], got {condition!r}")
    if LIBRARY in numbers.values() and LIBRARY not in x.schema.names:
        raise ValueError(
            f"{LIBRARY!r} is the total of rows of counts alone, VAE(Counts(frame[genes], frame), "
            "...): of a table name a column of totals"
        )
    x = x if visits is None else without_subject(x, visits)
    formulas = [f for f in visits.formulas.values() if f] if visits else []
    quantities = {name for f in formulas for name in numbers_in(f)} & {*x.schema.names}
    codes = {  # few values are no codes where they are read as numbers
        name: "Normal"
        for name in [*filter(None, numbers.values()), *quantities]
        if x.schema[name].has_codes and x.schema[name].sort in ("whole", "number")
    }
    if covariates:
        condition = _complete_condition(x, given, {*lines}, visits is not None or bits)
    table = x.with_likelihood(lines | codes | dict(covariates))
    if condition is not None and not isinstance(condition, Design):
        condition = Design.of(condition, table)
    aside = {*(condition.sources if condition else ()), *filter(None, numbers.values())}
    aside |= {name for f in formulas for name in sources_of(f)}
    if scored := sorted({*lines} & (aside | ({visits.by} if visits else set()))):
        raise ValueError(
            f"likelihood= has a line of {scored[0]!r}, which is a condition, an offset, a weight, "
            "or what a prior reads, and not scored: leave its line out"
        )
    if visits is not None:
        return read_by_visit(table, visits, condition, numbers)
    gone = table.missing.sum(0).tolist() if bits else [0] * len(table.schema.cells)
    holes = [name for name, n in zip(table.schema.cells, gone, strict=True) if n]
    return TableRecord(table.schema, condition, numbers, holes, (), covariates)


def _complete_condition(x: Table, given: "Given", lines: set[str], other: bool) -> str | None:
    """The condition without the covariates that have holes, after a check of these."""
    condition, names = given.condition, list(given.covariates)
    if other or asks_for_features(given.prior):
        raise ValueError(
            "covariates with holes go with a prior of z alone, not with visits, a prior that reads "
            "the condition, or missing='Bernoulli'"
        )
    if condition is None or isinstance(condition, int | Design):
        raise ValueError(
            f"covariates= are columns of a condition in words: condition='~ {' + '.join(names)}'"
        )
    for name, line in given.covariates.items():
        column = x.schema[name]
        if str(line) not in ("Normal", "Bernoulli"):
            raise ValueError(
                f"a covariate with holes is drawn from 'Normal' or 'Bernoulli', got {line!r} of "
                f"{name!r}: fill the column, or leave it out of the condition"
            )
        if name in lines:
            raise ValueError(f"the line of {name!r} is said twice: by covariates= alone")
        if str(line) == "Normal" and column.has_codes and column.sort not in ("whole", "number"):
            raise ValueError(f"column {name!r} holds words: 'Bernoulli' if they are two")
    formula = condition if isinstance(condition, str) else "~ " + " + ".join(condition)
    return without(formula, names)


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
    beside, design = beside_block(condition)
    x = shape_of(x, "x_shape", least=1)
    blocks = [Block("x", x, missing=missing), *beside]
    return DesignedRecord(blocks, design) if design else Record(blocks)


def record_arguments(about: Mapping[str, Any]) -> dict[str, object]:
    """The arguments that make a record again, from a model's description."""
    kinds = {
        "visits": VisitsRecord,
        "table": TableRecord,
        "counts": CountsRecord,
        "condition": DesignedRecord,
        "sequences": Sequences,
    }
    kind = next((kind for name, kind in kinds.items() if name in about), Record)
    return kind.arguments(about)
