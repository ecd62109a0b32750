"""The columns of a table in words."""

from collections.abc import Mapping, Sequence

from .columns import Column

__all__ = ["described"]

HEAD = ("column", "kind", "levels or range", "missing", "line", "why")
WIDTH = 40  # of levels or a range


def described(columns: Sequence[Column], missing: Mapping[str, float] | None = None) -> str:
    """A line for each column: its kind, its extent, what is missing, its likelihood, and why."""
    rows: list[tuple[str, ...]] = [HEAD]
    for column in columns:
        share, extent = (missing or {}).get(column.name), column.extent
        extent = extent if len(extent) <= WIDTH else f"{extent[: WIDTH - 3]}..."
        shown = f"{share:.1%}" if share else ""
        rows.append((column.name, column.kind, extent, shown, column.line, column.why))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD) - 1)]
    padded = [[f"{word:<{w}}" for word, w in zip(row, widths, strict=False)] for row in rows]
    return "\n".join(
        "  ".join([*line, row[-1]]).rstrip() for line, row in zip(padded, rows, strict=True)
    )
