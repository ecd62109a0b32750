"""Values that stand for missing cells, and numbers and booleans among words."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from .cells import Cells, is_placeholder
from .columns import Column, Level
from .written import boolean_form, number_form, read_booleans, read_numbers, write_numbers

__all__ = ["NaValues", "as_booleans", "as_numbers", "by_name", "counted", "known_cells", "notes"]

NaValues: TypeAlias = Sequence[Level] | Mapping[str, Sequence[Level]]


class OfAll(dict[str, tuple[Level, ...]]):
    """One list for all columns, whatever their types."""


def by_name(na_values: NaValues | None, names: Sequence[str]) -> dict[str, tuple[Level, ...]]:
    """The values of each column, by its name, that stand for missing cells.

    Raises:
        ValueError: a word in place of a list, or a list of what is no word or number.
    """
    if na_values is None:
        return {}
    of_all = not isinstance(na_values, Mapping)
    each = dict.fromkeys(names, na_values) if of_all else na_values
    for name, values in each.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ValueError(
                f"na_values are a list, or lists by column: na_values={{{name!r}: [{values!r}]}}"
            )
        if odd := [value for value in values if not isinstance(value, Hashable)]:
            raise ValueError(f"na_values of {name!r} are words and numbers, got {odd[0]!r}")
    found = {name: tuple(values) for name, values in each.items()}
    return OfAll(found) if of_all else found


def known_cells(cells: Cells, na_values: Mapping[str, tuple[Level, ...]]) -> Cells:
    """The cells, those that a user takes as missing apart.

    Raises:
        ValueError: what is said of this column alone is of another type than its cells.
    """
    said = na_values.get(cells.name, ())
    alone = not isinstance(na_values, OfAll)
    if said and alone and cells.sort and not {*cells.alike(said), *cells.gone} & {*said}:
        first = cells.seen[0]
        raise cells.error(
            None,
            f"na_values are {', '.join(map(repr, said))}, and its cells are of another type, "
            f"{cells.dtype}, first {first.item() if hasattr(first, 'item') else first!r}",
            "write them as its cells are; times, durations and booleans that stand for missing "
            "cells are None in the frame",
        )
    return cells.without(said)


def as_numbers(cells: Cells, base: Column, guess: bool, declared: bool) -> tuple[Cells, Column]:
    """Words as the numbers that they are, beside ``?`` and the like; others as they are.

    Args:
        cells: words.
        base: what is known of the column.
        guess: whether words such as ``?`` may be taken as missing.
        declared: whether a user said that the column is of numbers.
    """
    words = dict.fromkeys(cells.seen.tolist())
    gone = tuple(word for word in words if guess and is_placeholder(word))
    rest = [word for word in words if word not in gone]
    form = number_form(rest, glued=declared) if len(rest) > 1 else None
    plain = form == "{:.0f}" and not gone and not declared  # codes, it may be
    if form is None or plain:
        return cells, base
    base = replace(base, sort="number", format=form, na_values=(*base.na_values, *gone))
    return read_numbers(cells.without(gone), form), base


def as_booleans(cells: Cells, base: Column, event: bool) -> tuple[Cells, Column]:
    """Words as the booleans that they are; one alone is a word, but of an event."""
    form = None if cells.sort != "word" or cells.levels else boolean_form(cells.seen)
    if form is None or not (event or len(set(cells.seen.tolist())) > 1):
        return cells, base
    return read_booleans(cells), replace(base, sort="boolean", format=form)


def notes(column: Column, cells: Cells) -> list[str]:
    """What is to be said of how numbers are written, and of values that are missing cells.

    Args:
        column: as it was decided.
        cells: all of it, those that are taken as missing too.
    """
    said = []
    if column.format is not None and column.sort == "number":
        below = -1200.0 if column.format.startswith("(") else 1200.0
        said.append(f"written as {write_numbers(np.array([below]), column.format)[0]!r}")
    gone = [v for v in column.na_values if v in set(cells.seen.tolist())]
    if gone := [*gone, *dict.fromkeys(cells.gone)]:
        said.append(f"missing where it is {counted(gone, cells)}")
    return said


def counted(values: Sequence[Level], cells: Cells) -> str:
    """Values, and how often each occurs."""
    seen = [*cells.seen.tolist(), *cells.gone]
    each = [(v, seen.count(v)) for v in values]
    return ", ".join(f"{v!r} ({n} time{'s' * (n > 1)})" for v, n in each)
