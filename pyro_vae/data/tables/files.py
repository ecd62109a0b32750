"""Tables in files: separated values and Parquet, as frames of pandas."""

import re
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["SUFFIXES", "read_file"]

SEPARATORS = {".csv": ",", ".tsv": "\t"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
NUMBER = re.compile(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", re.IGNORECASE)
SUFFIXES = (*SEPARATORS, ".parquet")


def _with_leading_zeros(frame: Any, path: Path, separator: str) -> Any:  # noqa: ANN401
    """The frame, its columns of whole numbers that are written as 01234 as words: codes."""
    import pandas as pd

    whole = [
        name
        for name, x in frame.items()
        if x.dtype.kind in "iuf" and (x.isna() | ((x >= 0) & (x % 1 == 0))).all()
    ]
    if whole:
        words = pd.read_csv(path, sep=separator, usecols=whole, dtype=str)
        for name in whole:
            if words[name].str.match(r"0\d+$").any():
                frame[name] = words[name]
    return frame


def read_file(path: str | Path) -> Any:  # noqa: ANN401
    """A frame of pandas.

    Empty cells, ``NA``, ``NaN`` and the like are missing.

    Raises:
        ValueError: no such file, or one that cannot be read, with the line where it fails.
    """
    import pandas as pd

    if not isinstance(path, str | PathLike):
        raise ValueError(
            f"expected the name of a file, got {type(path).__name__}: a frame is "
            "Table.from_frame(df)"
        )
    path = Path(path)
    suffixes = [s for s in path.suffixes if s not in COMPRESSED]
    kind = suffixes[-1].lower() if suffixes else ""
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: a table is a file {', '.join(SUFFIXES)}, got {kind or 'none'}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        if kind == ".parquet":
            return pd.read_parquet(path)
        separator = SEPARATORS[kind]
        names = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0]
        other = next((s for s in ";\t|," if len(names) == 1 and s in str(names.iloc[0])), None)
        if other is not None:
            raise ValueError(
                f"its first line is one name, {names.iloc[0]!r}: the separator seems to be "
                f"{other!r}, so read it yourself, Table.from_frame(pandas.read_csv(path, "
                f"sep={other!r}))"
            )
        twice = names[names.duplicated() & names.notna()]
        if len(twice):
            raise ValueError(f"column {twice.iloc[0]!r} occurs twice in the first line")
        if all(NUMBER.fullmatch(str(name)) for name in names):
            raise ValueError(
                f"its first line holds numbers, {', '.join(names[:3])}, where the names of columns "
                "belong: name them, or read it yourself, pandas.read_csv(path, names=[...])"
            )
        frame = pd.read_csv(path, sep=separator, low_memory=False)
        return _with_leading_zeros(frame, path, separator)
    except ImportError:
        raise ValueError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from None
    except (ValueError, OSError, EOFError, zlib.error) as problem:
        words = str(problem).strip()
        raise ValueError(f"{path} cannot be read as {kind[1:]}: {words}") from problem
