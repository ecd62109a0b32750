"""Data sets by name, arrays, tables and pictures from files; grey values lie in [0, 1]."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.checks import number, whole
from ..core.files import uncompressed
from ..language.spec import nearest
from .count_files import COUNT_FILES, is_sparse_file, read_counts
from .dataset import Data, split
from .image_sources import IMAGES, folder_of_pictures
from .melodies import Melodies
from .numpy_files import read_array, read_arrays
from .pictures import ImageLayout, channels_first
from .ragged import TEXTS, padded, read_lists, read_texts, with_lengths
from .rows import Rows
from .tables import SUFFIXES, NaValues, Table
from .tables.columns import Level
from .vocabulary import Unit

__all__ = ["SOURCES", "load_data"]


def load_data(
    name: str,
    root: str | Path | None = None,
    *,
    seed: int = 0,
    held_out: float = 0.1,
    censored: Mapping[str, str] | None = None,
    na_values: NaValues | None = None,
    kinds: Mapping[str, str | Sequence[Level]] | None = None,
    dates: Mapping[str, str] | None = None,
    size: int | None = None,
    layout: ImageLayout = "CHW",
    beside: Collection[str] | None = None,
    tokens: Unit = "characters",
) -> Data:
    """A data set by name, arrays or a table from a file, or the pictures of a folder.

    Args:
        name: ``digits`` (within scikit-learn, 1,797 images of 8x8), ``digit-counts`` (the same
            as counts of 0 to 16), ``shapes`` (coloured, made by a rule: :func:`coloured_shapes`),
            ``penguins`` (a table of 344 birds), ``mnist``, ``fashion-mnist``, ``kmnist``,
            ``emnist``, ``omniglot`` (28x28, grey), ``cifar10``, ``svhn``, ``celeba`` (8-bit
            colour; these through torchvision), ``dsprites`` (its file), a folder or a file. The
            pictures in a folder, and in folders in it, are 8-bit numbers. An ``.npz`` may hold
            ``train``, ``test``, ``train_labels``, ``test_labels``; of other files the first array
            is taken, and a part of it held out. Files ``.csv``, ``.tsv`` and ``.parquet`` are
            tables, as :meth:`Table.read` reads them. An ``.npy`` file of more than 1 GiB stays on
            disk, with at most 10,000 observations held out. Files ``.h5ad``, ``.mtx`` and ``.npz``
            of ``scipy.sparse`` are :class:`Counts`. Sequences are the lines of a ``.txt`` file, the
            lists of a ``.parquet`` file of one column, and, with ``lengths`` beside it, the padded
            array of an ``.npz``; ``melodies`` are 2,000 of
            :class:`~pyro_vae.data.melodies.Melodies`.
        root: where torchvision's files are; they are downloaded to ``~/.cache/pyro_vae`` where
            it is not given (those of CelebA and dSprites are not).
        seed: of the split where the source has none.
        held_out: the share of a file's observations that makes its test part where it has none; 1
            takes all, in their order.
        censored: of a table, as :meth:`Table.read` has it.
        na_values: of a table, too.
        kinds: likewise.
        dates: likewise.
        size: of a folder, pixels of a side to which the middle square of each picture is brought.
        layout: of an ``.npy`` or ``.npz`` file, ``"HWC"`` where it holds images, channels last.
        beside: of a table, which is then read as counts: columns that are none.
        tokens: what the steps of a text are, ``characters`` or ``words``.

    Returns:
        A :class:`Data`.

    Raises:
        ValueError: an unknown name, a missing or damaged file, or no network to download from.
    """
    seed, held_out = whole("seed", seed, 0), number("held_out", held_out, 0)
    size = None if size is None else whole("size", size)
    if size is not None and not Path(name).is_dir():
        raise ValueError(f"size is of a folder of pictures, and {name!r} is none: leave it out")
    of_arrays = Path(name).suffix in (".npy", ".npz") and not is_sparse_file(name)
    if layout != "CHW" and not of_arrays:
        raise ValueError(f"layout is of an .npy or .npz file, and {name!r} is none: leave it out")
    of_table = {"censored": censored, "na_values": na_values, "kinds": kinds, "dates": dates}
    if (said := [k for k, v in of_table.items() if v is not None]) and not _is_table(name):
        raise ValueError(f"{said[0]} is of a table, and {name!r} is none: leave it out")
    if name in SOURCES:
        return SOURCES[name](Path(root) if root else None, seed)
    if is_sparse_file(name) or (beside is not None and _is_table(name)):
        counts = read_counts(name, beside=beside or ())
        test, train = (counts, counts[:1]) if held_out >= 1 else counts.split(held_out, seed=seed)
        return Data(Path(name).stem, f"the counts of {Path(name).name}", train, test)
    if of_arrays:
        return _file(Path(name), seed, held_out, layout)
    if Path(name).is_dir():
        return folder_of_pictures(Path(name), size, seed, held_out)
    if (sequences := _sequences(Path(name), tokens, seed, held_out)) is not None:
        return sequences
    if _is_table(name):
        what = f"the table of {Path(name).name}"
        table = Table.read(name, **of_table)
        return _table(uncompressed(name).stem, what, table, seed, held_out)
    unknown = f"unknown data {name!r}{nearest(name, SOURCES)}"
    if Path(name).is_file():
        unknown = f"{name} is a file of a kind that is not read: save a spreadsheet as .csv"
    raise ValueError(
        f"{unknown}\n"
        f"give one of {', '.join(SOURCES)}, a folder of pictures, or a .npy or .npz file, lines of "
        f"a .txt file, counts: {', '.join(COUNT_FILES)}, or a table: {', '.join(SUFFIXES)}"
    )


def _is_table(name: str) -> bool:
    return any(suffix in SUFFIXES for suffix in Path(name).suffixes)


def _penguins(root: Path | None, seed: int) -> Data:
    table = Table.read(Path(__file__).parent / "tables" / "penguins.csv")
    what = "344 penguins of three species on three islands, with holes (Gorman and others, 2014)"
    return _table("penguins", what, table, seed, held_out=0.2)


def _table(name: str, description: str, table: Table, seed: int, held_out: float) -> Data:
    test, train = (table, table[:1]) if held_out >= 1 else table.split(held_out, seed=seed)
    return Data(name, description, train, test)


def _digits(root: Path | None, seed: int) -> Data:
    counts: Any = _digit_counts(root, seed)
    return replace(
        counts,
        name="digits",
        description="handwritten digits, 8x8 grey",
        train=counts.train / 16,
        test=counts.test / 16,
        grey=True,
    )


@cache
def _scikit_digits() -> Any:  # noqa: ANN401
    """scikit-learn's digits, whose text is parsed once in a process."""
    from sklearn.datasets import load_digits

    return load_digits()


def _digit_counts(root: Path | None, seed: int) -> Data:
    bunch = _scikit_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32).reshape(-1, 1, 8, 8)
    description = "handwritten digits, 8x8 counts of 0 to 16"
    return split("digit-counts", description, x, torch.tensor(bunch.target), seed)


def _melodies(root: Path | None, seed: int) -> Data:
    rows, keys = Melodies().sample(2000, seed=seed)
    what = "melodies of 12 to 24 notes, from a Markov chain in a latent key"
    return replace(split("melodies", what, padded(rows), keys, seed), ragged=True)


def _sequences(path: Path, unit: Unit, seed: int, held_out: float) -> Data | None:
    """Texts, and lists of a column; ``None`` of another file."""
    if path.suffix in TEXTS:
        x, vocabulary = read_texts(path, unit)
        found = split(path.stem, f"the lines of {path.name}", x, None, seed, held_out)
        return replace(found, ragged=True, vocabulary=vocabulary)
    if path.suffix == ".parquet" and (lists := read_lists(path)) is not None:
        found = split(path.stem, f"the lists of {path.name}", lists, None, seed, held_out)
        return replace(found, ragged=True)
    return None


def _file(path: Path, seed: int, held_out: float, layout: ImageLayout) -> Data:
    if path.suffix == ".npy":
        loaded = channels_first(read_array(path), layout)
        x = Rows(loaded) if isinstance(loaded, np.memmap) else _tensor(loaded, path)
        return split(path.stem, f"the array of {path.name}", x, None, seed, held_out)
    if not (arrays := read_arrays(path)):
        raise ValueError(f"{path} holds no arrays")
    if "train" in arrays and "test" in arrays:
        labels = [_labels(arrays.get(k), path) for k in ("train_labels", "test_labels")]
        each = (channels_first(arrays[name], layout) for name in ("train", "test"))
        train, test = (_tensor(array, path) for array in each)
        what = f"train and test of {path.name}"
        return Data(path.stem, what, train, test, labels[0], labels[1])
    labels = _labels(arrays.pop("labels", None), path)
    if not arrays:
        raise ValueError(f"{path} holds labels only: numpy.savez(path, x=x, labels=y)")
    lengths = arrays.pop("lengths", None) if len(arrays) > 1 else None
    first, *_ = arrays
    what, x = (
        f"the array {first!r} of {path.name}",
        _tensor(channels_first(arrays[first], layout), path),
    )
    if lengths is not None:
        x = with_lengths(x, torch.from_numpy(lengths.astype(float)), f"{path}: lengths")
    found = split(path.stem, what, x, labels, seed, held_out)
    return replace(found, ragged=lengths is not None)


def _labels(array: np.ndarray | None, path: Path) -> Tensor | None:
    if array is not None and (array.dtype.kind not in "biu" or array.ndim != 1):
        raise ValueError(
            f"{path} holds labels of {array.dtype} and shape {array.shape}: "
            "expected whole numbers of shape (N,)"
        )
    return None if array is None else torch.from_numpy(array.astype(np.int64))


def _tensor(array: np.ndarray, path: Path) -> Tensor:
    if array.dtype.kind not in "biuf" or array.ndim < 2:
        raise ValueError(
            f"{path} holds an array of {array.dtype} and shape {array.shape}: expected numbers of "
            "shape (N, ...); those of one column are x[:, None], and words belong in a .csv file"
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


SOURCES: dict[str, Callable[[Path | None, int], Data]] = {
    "digits": _digits,
    "digit-counts": _digit_counts,
    "penguins": _penguins,
    "melodies": _melodies,
    **IMAGES,
}
