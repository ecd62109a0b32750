"""What the system says of a file that it refuses, as a sentence with what to do."""

import errno
import os
import stat
from pathlib import Path

__all__ = ["check_file", "in_a_sentence"]

SPECIAL = "a device, a pipe or a socket: give a file"


def check_file(path: str | Path) -> None:
    """Raise unless there is a file to read; a pipe, which would be waited for, is none.

    Raises:
        ValueError: what is wrong, and what to do.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "", path)
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is no file but {SPECIAL}")
        with open(path, "rb"):
            pass
    except OSError as problem:
        raise ValueError(in_a_sentence(problem, reading=True)) from None


def in_a_sentence(problem: OSError, *, reading: bool = False) -> str:
    """What the system refused, by the path that it names.

    Args:
        problem: what it raised.
        reading: whether the file was only to be read; it may have been written otherwise.

    >>> in_a_sentence(FileNotFoundError(2, "No such file", "nowhere.csv"))
    'there is no file nowhere.csv'
    """
    if problem.filename is None or isinstance(problem.filename, int):
        return problem.strerror or str(problem)
    path = Path(os.fsdecode(problem.filename))
    number = problem.errno or 0
    if number == errno.ENOENT:
        return _absent(path, reading)
    if number == errno.EEXIST:
        if path.is_symlink() and not path.exists():
            return f"{path} is a link that leads nowhere: mend it, or give another place"
        return f"{path} is there, and is no folder: give another place"
    if number in (errno.EACCES, errno.EPERM):
        return _forbidden(path)
    if number == errno.ENOTDIR:
        file = next((p for p in (*reversed(path.parents), path) if p.is_file()), path)
        return f"{path}: {file} is a file, and no folder: give another"
    if number == errno.ENAMETOOLONG:
        return f"{path}: the name is longer than the system allows: give a shorter one"
    said = {
        errno.EISDIR: "is a folder: name a file in it",
        errno.ELOOP: "is a link that leads back to itself: mend it, or give another",
        errno.EROFS: "lies where one can only read: give a place that can be written to",
        errno.ENOSPC: "is not written, the disk is full: free some of it, or give another place",
        errno.EDQUOT: "is not written, the quota is used up: free some, or give another place",
        errno.ENXIO: f"is {SPECIAL}",
        errno.ENODEV: f"is {SPECIAL}",
    }
    return f"{path} {said[number]}" if number in said else f"{path}: {problem.strerror or problem}"


def _absent(path: Path, reading: bool) -> str:
    for part in (*reversed(path.parents), path):
        if part.is_symlink() and not part.exists():
            to = os.readlink(part)
            return f"{part} is a link to {to}, which is not there: mend the link, or give another"
    if not reading and not path.parent.exists():
        return f"{path}: there is no folder {path.parent}: make it, or give another place"
    return f"there is no file {path}"


def _forbidden(path: Path) -> str:
    """Which of reading and writing is refused, and of which part of a path."""
    for part in reversed(path.absolute().parents):
        if part.is_dir() and not os.access(part, os.X_OK):
            return f"{path}: you may not enter the folder {part}: chmod u+x it, or give another"
    if not os.path.lexists(path):
        return f"{path}: you may not write to {path.parent}: give a place that can be written to"
    what = "folder" if path.is_dir() else "file"
    if not os.access(path, os.R_OK):
        return f"{path}: you may not read this {what}: chmod u+r it, or give another"
    return f"{path}: you may not write to this {what}: give a place that can be written to"
