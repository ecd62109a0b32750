"""Files that are written whole or not at all, and folders that one process at a time holds."""

import errno
import os
import secrets
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO
from warnings import warn

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

__all__ = [
    "CHECKPOINTS",
    "COMPRESSED",
    "folder_path",
    "locked",
    "replacing",
    "uncompressed",
    "write_whole",
]

CUT = "requested and"  # NumPy's words for what a full disk has cut
LOCK, PARTIAL = ".lock", ".partial-"
COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
CHECKPOINTS = "checkpoint*.safetensors"  # of a run, from which it goes on


def folder_path(name: str, value: object) -> Path:
    """The path of a folder: a text, or an object that has one."""
    try:
        path = os.fspath(value)  # pyrefly: ignore[no-matching-overload]
    except TypeError:
        path = b""
    if not isinstance(path, str):
        raise ValueError(f"{name} is the path of a folder, got {value!r}")
    return Path(path)


def uncompressed(path: str | Path) -> Path:
    """The path of a file or folder under a name of its own, without the suffix of a compression.

    >>> uncompressed("credit.csv.gz").stem
    'credit'
    """
    path = Path(path) if Path(path).name else Path(path).resolve()
    return path.with_suffix("") if path.suffix in COMPRESSED else path


@contextmanager
def replacing(path: str | Path) -> Generator[Path]:
    """Give the path of a new file, with the same suffix, that takes the place of ``path`` at last.

    A process that is killed, a full disk or an exception leaves the file that was there before.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "x.txt")) as new:
    ...         size = new.write_text("all of it")
    ...     print([file.name for file in Path(folder).iterdir()])
    ['x.txt']
    """
    path = Path(path)
    new = path.absolute().with_name(f"{PARTIAL}{secrets.token_hex(4)}{path.suffix}")
    try:
        yield new
        _flush(new)
        new.replace(path)
    except OSError as problem:
        if CUT in str(problem):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from problem
        if problem.errno is None and not new.parent.exists():  # in a library's own words
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from problem
        if problem.errno is not None and problem.filename in (None, new, str(new)):
            problem.filename = str(path)  # nobody knows the other name
        raise
    finally:
        with suppress(OSError):  # what is below a file has no name to remove
            new.unlink(missing_ok=True)
    _flush(path.parent)


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file of text (UTF-8) or bytes by :func:`replacing`."""
    with replacing(path) as new:
        new.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def locked(folder: str | Path) -> Generator[None]:
    """Hold a folder, which must exist, against other processes and threads.

    The system releases the lock when the process ends, however it ends; what a killed process left
    half written is removed. On Windows nothing is locked.

    Raises:
        ValueError: another one holds the folder; the message names it.
    """
    folder = Path(folder)
    with _lock_file(folder / LOCK) as file:
        for left in (*folder.glob(f"{PARTIAL}*"), *folder.glob(f"*/{PARTIAL}*")):
            if left.parent == folder or not (left.parent / LOCK).exists():  # another's
                left.unlink(missing_ok=True)
        file.truncate(0)
        since = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        print(f"process {os.getpid()} on {socket.gethostname()} since {since}", file=file)
        file.flush()
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def _lock_file(path: Path) -> IO[str]:
    """Open a file and lock it; it may have been removed in between by the one that held it."""
    while True:
        file = path.open("a+")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise ValueError(f"{path.parent} is in use by {holder}") from None
        except OSError as problem:  # some network file systems have no locks
            warn(f"{path.parent} is not locked against another run: {problem}", stacklevel=4)
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


def _flush(path: Path) -> None:
    """Ask the system to have a file, or a folder's list of names, on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
