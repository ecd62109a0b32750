"""Tables in files: separated values and Parquet, as frames of pandas."""

import csv
import re
import warnings
import zlib
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

from ...core.files import COMPRESSED
from ...core.system import check_file
from .coding import EXACT

__all__ = ["SUFFIXES", "naming", "read_file"]

SEPARATORS = {".csv": ",", ".tsv": "\t"}
NUMBER = re.compile(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", re.IGNORECASE)
COMMA = r"[-+]?\d+,\d+"
POINT = r"[-+]?\d{1,3}(,?\d{3})*\.\d+|[-+]?\d+\.\d+|[-+]?\d{1,3}(,\d{3}){2,}"  # no decimal comma
THREE = r"[-+]?[1-9]\d{0,2},\d{3}"  # a decimal comma, or thousands
LONGEST = 2**31 - 1  # letters of a cell
FEW = 2  # numbers with three decimals, which are no sign of thousands
THOUSANDS = r"[-+]?(0|[1-9]\d{0,2}(\.\d{3})?)"
SUFFIXES = (*SEPARATORS, ".parquet")


def _with_whole_numbers(frame: Any, path: Path) -> Any:  # noqa: ANN401
    """The frame, its whole numbers with holes, which pandas makes floats, in nullable types."""
    import pandas as pd

    floats = [name for name, x in frame.items() if x.dtype.kind == "f" and x.hasnans]
    own = pd.read_parquet(path.absolute(), columns=floats, dtype_backend="numpy_nullable")
    return frame.assign(**{name: own[name] for name in floats if own[name].dtype.kind in "iu"})


def _as_written(frame: Any, path: Path, options: dict[str, Any], of_run: bool) -> Any:  # noqa: ANN401
    """The frame, in which what pandas took for something else is as the file has it."""
    import pandas as pd

    doubtful = [name for name, x in frame.items() if _is_doubtful(x)]
    if not doubtful:
        return frame
    words = pd.read_csv(
        path.absolute(), usecols=doubtful, dtype=str, keep_default_na=False, **options
    ).loc[frame.index]
    _warn_of_points(frame, words, path, options["sep"])
    for name in doubtful:
        x, written = frame[name], words[name].where(frame[name].notna())
        known = written.dropna()
        if x.dtype.kind in "iuf":  # codes: 01234, and numbers that no float holds
            large = x.dtype.kind == "f" and (x >= EXACT).any()
            as_words = known.str.match(r"0\d+$").any()
            as_words |= large and known.str.fullmatch(r"\d+").all()
        else:
            as_words = not of_run and not known.isin(["True", "False"]).all()
        if _holds(x) == "string":
            frame[name] = x.mask(words[name] == "None", "None")
        elif as_words:
            frame[name] = written
    return frame


def _holds(x: Any) -> str:  # noqa: ANN401
    """What the known cells of a column are, as pandas says it."""
    import pandas as pd

    return pd.api.types.infer_dtype(x, skipna=True)


def _is_doubtful(x: Any) -> bool:  # noqa: ANN401
    """Whether pandas may have read a column as what it is not.

    Codes such as 01234 are whole numbers, points between thousands decimal ones, TRUE is True, and
    None, among words, a missing cell.
    """
    if x.dtype.kind in "iuf":
        return bool((x.isna() | ((x >= 0) & (x % 1 == 0))).all()) or _has_three_places(x)
    return x.dtype == bool or (x.hasnans and _holds(x) in ("string", "boolean"))


def _has_three_places(x: Any) -> bool:  # noqa: ANN401
    """Whether cells are numbers of up to three decimals, and some have one."""
    x = x.dropna()
    return x.dtype.kind == "f" and bool((x % 1 != 0).any() and ((x * 1000).round(6) % 1 == 0).all())


def _warn_of_points(frame: Any, words: Any, path: Path, separator: str) -> None:  # noqa: ANN401
    """Say where points are read as decimal ones that look as if they stood between thousands."""
    for name in words:
        if not _has_three_places(frame[name]):
            continue
        x = words[name][frame[name].notna()].str.strip()
        with_point = x[x.str.contains(".", regex=False)]
        fixed = len(with_point) == len(x) and separator != ";"  # as many decimals in each
        if not fixed and with_point.nunique() > FEW and x.str.fullmatch(THOUSANDS).all():
            said = f"sep={separator!r}, " + "decimal=',', " * (separator != ",")
            warnings.warn(
                f"{path}: column {name!r}: {with_point.iloc[0]!r} is read with a decimal point\n"
                "if points stand between thousands: Table.from_frame(pandas.read_csv(path, "
                f"{said}thousands='.'))",
                stacklevel=2,
            )


def _without_last_lines(frame: Any, path: Path) -> Any:  # noqa: ANN401
    """The frame of one column without the empty lines at the end of a file that has no others."""
    from pandas.io.common import get_handle

    with get_handle(path.absolute(), "r", encoding="utf-8", compression="infer") as file:
        text = file.handle.read().replace("\r\n", "\n")
    full = text.rstrip("\n")
    return frame if "\n\n" in full else frame.iloc[: full.count("\n")]


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file, each with the line where it begins, the first one and empty ones too.

    Of a line of spaces alone, which pandas takes for empty, there are no cells.
    """
    from pandas.io.common import get_handle

    with get_handle(path.absolute(), "r", encoding="utf-8", compression="infer") as file:
        rows, line = csv.reader(file.handle, delimiter=separator), 1
        csv.field_size_limit(LONGEST)
        for cells in rows:
            yield line, cells if cells[1:] or "".join(cells).strip() else []
            line = rows.line_num + 1


@contextmanager
def naming(path: str | Path) -> Generator[None]:
    """Say of which file an error about a frame is, and in which line the row begins."""
    try:
        yield
    except ValueError as problem:
        text, path = str(problem), Path(path)
        row, kind = re.search(r", row (\d+)", text), _kind(path)
        if row is not None and kind != ".parquet":
            separator, names = _head(path, kind)
            rows = (n for n, cells in _records(path, separator) if cells or len(names) == 1)
            line = next(islice(rows, int(row[1]) + 1, None))
            text = f"{text[: row.end()]} (line {line}){text[row.end() :]}"
        raise ValueError(f"{path}: {text}") from problem


def _check_widths(path: Path, separator: str, width: int) -> None:
    """Raise where a row has fewer cells than there are columns, which pandas fills with holes."""
    for line, cells in _records(path, separator):
        if 0 < len(cells) < width:
            raise ValueError(
                f"line {line} has {len(cells)} cells, and there are {width} columns: leave a "
                "missing cell empty between its separators, or take the line out if the file ends "
                "too soon"
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


def _kind(path: Path) -> str:
    """The suffix that says what a file is, without that of a compression."""
    return next((s.lower() for s in reversed(path.suffixes) if s not in COMPRESSED), "")


def _head(path: Path, kind: str) -> tuple[str, Any]:
    """The separator of a file, as its first line shows, and the names there."""
    import pandas as pd

    def names(separator: str) -> Any:  # noqa: ANN401
        first = pd.read_csv(path.absolute(), sep=separator, header=None, nrows=1, dtype=str)
        return first.iloc[0]

    one = names(SEPARATORS[kind])
    if len(one) == 1:  # as spreadsheets write it where the comma is the decimal point
        other = next((s for s in ";\t|," if s in str(one.iloc[0])), None)
        return (other, names(other)) if other else (SEPARATORS[kind], one)
    return SEPARATORS[kind], one


def read_file(path: str | Path, words: Collection[str] | None = None) -> Any:  # noqa: ANN401
    """A frame of pandas.

    Empty cells, ``NA``, ``NaN`` and the like are missing; of one column, empty lines too, unless
    they end the file and there are no others. Among words ``None`` is one. Where a file of ``.csv``
    has another separator it is seen in its first line, and beside semicolons commas may be decimal
    ones. Booleans that are not written True and False are words.

    Args:
        path: of the file.
        words: columns that hold words, whatever they look like, where a model knows them; booleans
            of other columns are booleans then.

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
    kind = _kind(path)
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: a table is a file {', '.join(SUFFIXES)}, got {kind or 'none'}")
    check_file(path)
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path.absolute())
            return _with_whole_numbers(frame, path)
        separator, names = _head(path, kind)
        if str(names.iloc[0]).startswith("sep="):
            raise ValueError("its first line is Excel's, which names the separator: take it out")
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
        own: Any = dict.fromkeys({*(words or ())} & {*names}, str)
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
        return _as_written(frame, path, options, of_run=words is not None)
    except ImportError:
        raise ValueError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from None
    except (ValueError, OSError, EOFError, zlib.error) as problem:
        said = _in_words(problem, path, kind)
        raise ValueError(f"{path} cannot be read as {kind[1:]}: {said}") from problem


def _line(path: Path, kind: str, row: int) -> int:
    """Where a row begins that pandas counts from 1, the first line and empty ones too."""
    records = _records(path, _head(path, kind)[0])
    return next(islice(records, row - 1, None))[0]


def _in_words(problem: Exception, path: Path, kind: str) -> str:
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
        expected, row, got = found.groups()
        return (
            f"line {_line(path, kind, int(row))} has {got} cells, and there are {expected} "
            "columns: put cells that hold the separator between quotation marks"
        )
    if found := re.search(r"EOF inside string starting at row (\d+)", words):
        line = _line(path, kind, int(found[1]) + 1)
        return f"the quotation mark in line {line} is not closed: close it"
    if "No columns to parse" in words:
        return "it is empty: its first line names the columns"
    return words
