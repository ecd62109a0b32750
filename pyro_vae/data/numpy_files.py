"""Arrays of numbers in ``.npy`` and ``.npz`` files, whose headers are not believed."""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from ..core.sizes import memory
from ..core.system import check_file, in_a_sentence

__all__ = ["read_array", "read_arrays"]

MAPPED = 2**30  # a .npy file of more bytes stays on disk
WRONG = (ValueError, TypeError, SyntaxError, KeyError, OverflowError, EOFError, MemoryError)
DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, RecursionError)
DAMAGED += (tokenize.TokenError,)


def read_array(path: str | Path) -> np.ndarray:
    """The array of a ``.npy`` file; one of more than 1 GiB stays on disk.

    Raises:
        ValueError: no file, or none of numbers, or a header that tells of other sizes.
    """
    path = Path(path)
    with _named(path), path.open("rb") as file:
        size = path.stat().st_size
        _check(file, size)
        if size > MAPPED:
            return np.load(path, "r", allow_pickle=False)
        file.seek(0)
        return npy.read_array(file, allow_pickle=False)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file by name.

    Raises:
        ValueError: no file, or none of numbers, or headers that tell of other sizes.
    """
    path, arrays = Path(path), {}
    with _named(path), zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if one.filename.endswith(".npy")]
        if (size := sum(one.file_size for one in members)) > memory() / 2:
            raise ValueError(f"its arrays are said to take {size:,} bytes, more than the memory")
        for one in members:
            with archive.open(one) as file:
                _check(file, one.file_size)
            with archive.open(one) as file:
                arrays[one.filename.removesuffix(".npy")] = npy.read_array(file, allow_pickle=False)
    return arrays


def _check(file: IO[bytes], size: int) -> None:
    """Raise unless a header tells of as many bytes as there are."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"it holds {dtype}, not numbers")
    asked, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if asked > there or min(shape, default=0) < 0:
        raise ValueError(f"its header tells of {asked:,} bytes, and {there:,} are there")


@contextmanager
def _named(path: Path) -> Generator[None]:
    check_file(path)
    try:
        yield
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {in_a_sentence(problem)}") from problem
    except (*WRONG, *DAMAGED) as problem:
        raise ValueError(f"{path} is not a NumPy file of numbers: {problem}") from problem
