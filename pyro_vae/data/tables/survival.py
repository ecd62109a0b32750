"""Which columns are a survival time and its event, by their names and values."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from .cells import Cells
from .deciding import Wishes
from .frames import Frame
from .written import boolean_form, read_booleans

__all__ = ["detect_events", "with_events"]

TIMES = ("time", "duration", "futime", "survival", "survival_time", "time_to_event", "os_time")
EVENTS = ("event", "event_observed", "observed", "dead", "death", "died", "deceased", "os_event")
DECLARED = (*EVENTS, "status")  # beside a time that a user calls censored


def detect_events(
    names: Sequence[str],
    lines: Mapping[str, str],
    taken: Collection[str],
    read: Callable[[str], Cells],
) -> dict[str, str]:
    """The event of each survival time that can be told, by the time's name.

    One column of positive numbers with a time's name, and one of 0 and 1 with an event's, are taken
    for such a pair; a time that a user declared ``Censored`` needs its event alone. Where several
    could be meant none is.

    Args:
        names: of all columns.
        lines: likelihoods that a user declared.
        taken: columns of which something else was said.
        read: the cells of a column.
    """
    said = [name for name, line in lines.items() if line.strip().startswith("Censored")]
    free = [name for name in names if name not in lines and name not in taken]
    times = said or [name for name in free if name.lower() in TIMES and _is_time(read(name))]
    known = DECLARED if said else EVENTS
    events = [name for name in free if name.lower() in known and _is_event(read(name))]
    return {times[0]: events[0]} if len(times) == len(events) == 1 else {}


def with_events(wishes: Wishes, given: Frame) -> Wishes:
    """The wishes for a frame's columns, and the event of its survival time, if it can be told."""

    def read(name: str) -> Cells:
        return given.cells(name, any_type=True, na_values=wishes.na_values.get(name, ()))

    taken = [*wishes.kinds, *wishes.dates]
    events = detect_events(given.names, wishes.lines, taken, read)
    return replace(wishes, censored=events, detected=bool(events))


def _is_time(cells: Cells) -> bool:
    """Whether all are positive numbers or durations, most of them different."""
    if cells.sort not in ("whole", "number", "duration") or cells.levels or not len(cells.seen):
        return False
    seen = cells.seen.astype(np.float64)
    return bool((seen > 0).all()) and len(np.unique(seen)) > 2


def _is_event(cells: Cells) -> bool:
    """Whether all are 0 or 1, or booleans, which may be written as words."""
    if cells.sort == "word" and boolean_form(cells.seen):
        cells = read_booleans(cells)
    if cells.sort not in ("boolean", "whole", "number") or cells.levels:
        return False
    return set(np.unique(cells.seen).tolist()) == {0, 1}
