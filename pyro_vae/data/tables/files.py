"""Tables in files: separated values and Parquet, as frames of pandas."""

import csv
import re
import warnings
import zlib
from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any

from ...core.files import COMPRESSED
from ...core.system import check_file
from .coding import EXACT

__all__ = ["SUFFIXES", "read_file"]

SEPARATORS = {".csv": ",", ".tsv": "\t"}
NUMBER = re.compile(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", re.IGNORECASE)
COMMA = r"[-+]?\d+,\d+"
POINT = r"[-+]?\d{1,3}(,?\d{3})*\.\d+|[-+]?\d+\.\d+|[-+]?\d{1,3}(,\d{3}){2,}"  # no decimal comma
THREE = r"[-+]?[1-9]\d{0,2},\d{3}"  # a decimal comma, or thousands
FEW = 2  # numbers with three decimals, which are no sign of thousands
THOUSANDS = r"[-+]?(0|[1-9]\d{0,2}(\.\d{3})?)"
SUFFIXES = (*SEPARATORS, ".parquet")


def _with_leading_zeros(frame: Any, path: Path, options: dict[str, Any]) -> Any:  # noqa: ANN401
    """The frame, its columns of whole numbers that are written as 01234 as words: codes.

    So are those that have holes and numbers that no float holds: they come back as they were.
    """
    import pandas as pd

    whole = [
        name
        for name, x in frame.items()
        if x.dtype.kind in "iuf" and (x.isna() | ((x >= 0) & (x % 1 == 0))).all()
    ]
    if whole:
        words = pd.read_csv(path.absolute(), usecols=whole, dtype=str, **options)
        for name in whole:
            large = frame[name].dtype.kind == "f" and (frame[name] >= EXACT).any()
            as_codes = large and words[name].dropna().str.fullmatch(r"\d+").all()
            if as_codes or words[name].str.match(r"0\d+$").any():
                frame[name] = words[name]
    return frame


def _warn_of_points(frame: Any, path: Path, options: dict[str, Any]) -> None:  # noqa: ANN401
    """Say where points are read as decimal ones that look as if they stood between thousands."""
    import pandas as pd

    parts = [(name, x.dropna()) for name, x in frame.items() if x.dtype.kind == "f"]
    some = [n for n, x in parts if (x % 1 != 0).any() and ((x * 1000).round(6) % 1 == 0).all()]
    if not some:
        return
    words = pd.read_csv(path.absolute(), usecols=some, dtype=str, **options)
    for name in some:
        x = words[name].dropna().str.strip()
        with_point = x[x.str.contains(".", regex=False)]
        fixed = len(with_point) == len(x) and options["sep"] != ";"  # as many decimals in each
        if not fixed and with_point.nunique() > FEW and x.str.fullmatch(THOUSANDS).all():
            said = f"sep={options['sep']!r}, " + "decimal=',', " * (options["sep"] != ",")
            warnings.warn(
                f"{path}: column {name!r}: {with_point.iloc[0]!r} is read with a decimal point\n"
                "if points stand between thousands: Table.from_frame(pandas.read_csv(path, "
                f"{said}thousands='.'))",
                stacklevel=2,
            )


def _with_none(frame: Any, path: Path, options: dict[str, Any]) -> Any:  # noqa: ANN401
    """The frame, in whose columns of words "None" is one, which pandas takes for a missing cell."""
    import pandas as pd

    infer = pd.api.types.infer_dtype
    words = [name for name, x in frame.items() if x.hasnans and infer(x, skipna=True) == "string"]
    if words:
        given = pd.read_csv(
            path.absolute(), usecols=words, dtype=str, keep_default_na=False, **options
        )
        for name in words:
            frame[name] = frame[name].mask(given[name] == "None", "None")
    return frame


def _without_last_lines(frame: Any, path: Path) -> Any:  # noqa: ANN401
    """The frame of one column without the empty lines at the end of a file that has no others."""
    from pandas.io.common import get_handle

    with get_handle(path.absolute(), "r", encoding="utf-8", compression="infer") as file:
        text = file.handle.read().replace("\r\n", "\n")
    full = text.rstrip("\n")
    return frame if "\n\n" in full else frame.iloc[: full.count("\n")]


def _check_widths(path: Path, separator: str, width: int) -> None:
    """Raise where a row has fewer cells than there are columns, which pandas fills with holes."""
    from pandas.io.common import get_handle

    with get_handle(path.absolute(), "r", encoding="utf-8", compression="infer") as file:
        rows = csv.reader(file.handle, delimiter=separator)
        for cells in rows:
            if 0 < len(cells) < width:
                raise ValueError(
                    f"line {rows.line_num} has {len(cells)} cells, and there are {width} columns: "
                    "leave a missing cell empty between its separators, or take the line out if "
                    "the file ends too soon"
                )


def _has_decimal_commas(frame: Any, path: Path) -> bool:  # noqa: ANN401
    """Whether some column is of numbers with a decimal comma, and none of numbers with a point.

    Where all such numbers have three digits after it a warning says how they are read.
    """
    points = any((x.dropna() % 1 != 0).any() for _, x in frame.items() if x.dtype.kind == "f")
    words = [x.dropna() for _, x in frame.items() if x.dtype.kind == "O" and x.notna().any()]
    points = points or any(x.astype(str).str.fullmatch(POINT).any() for x in words)
    commas = [x.astype(str) for x in words if x.astype(str).str.fullmatch(COMMA).all()]
    if points or not commas:
        return False
    if all(x.str.fullmatch(THREE).all() for x in commas):
        one = commas[0]
        warnings.warn(
            f"{path}: column {one.name!r}: {one.iloc[0]!r} is read as "
            f"{one.iloc[0].replace(',', '.')}, as beside semicolons commas are decimal ones\n"
            "if they stand between thousands: Table.from_frame(pandas.read_csv(path, sep=';', "
            "thousands=','))",
            stacklevel=2,
        )
    return True


def read_file(path: str | Path, words: Collection[str] = ()) -> Any:  # noqa: ANN401
    """A frame of pandas.

    Empty cells, ``NA``, ``NaN`` and the like are missing; of one column, empty lines too, unless
    they end the file and there are no others. Among words ``None`` is one. Where a file of ``.csv``
    has another separator it is seen in its first line, and beside semicolons commas may be decimal
    ones.

    Args:
        path: of the file.
        words: columns that hold words, whatever they look like.

    Raises:
        ValueError: no such file, or one that cannot be read, with the line where it fails.
    """
    import pandas as pd

    if not isinstance(path, str | PathLike):
        raise ValueError(
            f"expected the name of a file, got {type(path).__name__}: a frame is "
            "Table.from_frame(df)"
        )
    path = Path(path)  # absolute where pandas reads it, which takes "~" for the user's home
    suffixes = [s for s in path.suffixes if s not in COMPRESSED]
    kind = suffixes[-1].lower() if suffixes else ""
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: a table is a file {', '.join(SUFFIXES)}, got {kind or 'none'}")
    check_file(path)
    try:
        if kind == ".parquet":
            return pd.read_parquet(path.absolute())
        separator = SEPARATORS[kind]
        names = pd.read_csv(path.absolute(), sep=separator, header=None, nrows=1, dtype=str).iloc[0]
        if str(names.iloc[0]).startswith("sep="):
            raise ValueError("its first line is Excel's, which names the separator: take it out")
        other = next((s for s in ";\t|," if len(names) == 1 and s in str(names.iloc[0])), None)
        if other is not None:  # as spreadsheets write it where the comma is the decimal point
            separator = other
            names = pd.read_csv(path.absolute(), sep=other, header=None, nrows=1, dtype=str).iloc[0]
        twice = names[names.duplicated() & names.notna()]
        if len(twice):
            raise ValueError(f"column {twice.iloc[0]!r} occurs twice in the first line: rename one")
        numbers = [name for name in names if NUMBER.fullmatch(str(name))]
        if len(numbers) == len(names) or any(not name.isdigit() for name in numbers):
            raise ValueError(
                f"its first line holds numbers, {', '.join(numbers[:3])}, where the names of "
                "columns belong: name them, or read it yourself, pandas.read_csv(path, names=[...])"
            )
        # Of one column an empty line is a missing cell, of several it is no row.
        options: dict[str, Any] = {"sep": separator, "skip_blank_lines": len(names) > 1}
        own: Any = dict.fromkeys({*words} & {*names}, str)
        frame = pd.read_csv(path.absolute(), low_memory=False, dtype=own, **options)
        if not isinstance(frame.index, pd.RangeIndex):
            raise ValueError(
                f"its rows have {frame.index.nlevels} more cells than its first line has names, "
                f"{', '.join(map(repr, names[:3]))}: name the first column too, 'id' if it "
                "numbers the rows, or take the separator off the ends of the lines"
            )
        if frame.iloc[:, -1].hasnans:
            _check_widths(path, separator, len(names))
        if separator == ";" and _has_decimal_commas(frame, path):
            frame = pd.read_csv(
                path.absolute(), decimal=",", low_memory=False, dtype=own, **options
            )
        if len(names) == 1:
            frame = _without_last_lines(frame, path)
        _warn_of_points(frame, path, options)
        return _with_leading_zeros(_with_none(frame, path, options), path, options)
    except ImportError:
        raise ValueError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from None
    except (ValueError, OSError, EOFError, zlib.error) as problem:
        words = _in_words(problem)
        raise ValueError(f"{path} cannot be read as {kind[1:]}: {words}") from problem


def _in_words(problem: Exception) -> str:
    """What is wrong with a file, and what to do."""
    words = str(problem).strip()
    if isinstance(problem, UnicodeDecodeError):
        code = (
            "utf-16"
            if problem.start == 0 and problem.object[:1] in (b"\xff", b"\xfe")
            else "cp1252"
        )
        return (
            "its text is not UTF-8: save it as UTF-8, or read it yourself, "
            f"Table.from_frame(pandas.read_csv(path, encoding={code!r}))"
        )
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", words):
        expected, line, got = found.groups()
        return (
            f"line {line} has {got} cells, and there are {expected} columns: put cells that hold "
            "the separator between quotation marks"
        )
    if found := re.search(r"EOF inside string starting at row (\d+)", words):
        return f"the quotation mark in line {int(found[1]) + 1} is not closed: close it"
    if "No columns to parse" in words:
        return "it is empty: its first line names the columns"
    return words
