"""Data sets by name, arrays and tables from files; grey values lie in [0, 1]."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.checks import number, whole
from ..language.spec import nearest
from .count_files import COUNT_FILES, is_sparse_file, read_counts
from .counts import Counts
from .numpy_files import read_array, read_arrays
from .rows import HELD_OUT, Rows
from .tables import SUFFIXES, NaValues, Table

__all__ = ["SOURCES", "Data", "load_data"]


@dataclass(frozen=True)
class Data:
    """A data set, split.

    Attributes:
        name: how it is called.
        description: what it is, in a line.
        train: ``(N, *x_shape)``, in memory or on disk; or a table, or counts.
        test: ``(M, *x_shape)``, held out; of a table another of its schema.
        train_labels: ``(N,)`` whole numbers, or ``None``.
        test_labels: ``(M,)``, or ``None``.
        grey: whether x are grey values in [0, 1], which may be binarized.
    """

    name: str
    description: str
    train: Tensor | Rows | Table | Counts
    test: Tensor | Table | Counts
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    grey: bool = False

    @property
    def is_table(self) -> bool:
        """Whether it is a table."""
        return isinstance(self.train, Table)

    @property
    def x_shape(self) -> tuple[int, ...] | Table | Counts:
        """What a model is made of: the shape of an observation, the table, or the counts."""
        whole = isinstance(self.train, Table | Counts)
        return self.train if whole else tuple(self.train.shape[1:])  # pyright: ignore

    @property
    def missing(self) -> bool:
        """Whether some cell of x is missing."""
        if isinstance(self.train, Table) or isinstance(self.test, Table):
            return True  # a model of a table knows of missing cells
        if isinstance(self.train, Counts) or isinstance(self.test, Counts):
            return False
        train = self.train.blocks() if isinstance(self.train, Rows) else (self.train,)
        return any(bool(part.isnan().any()) for part in chain((self.test,), train))


def load_data(
    name: str,
    root: str | Path | None = None,
    *,
    seed: int = 0,
    held_out: float = 0.1,
    censored: Mapping[str, str] | None = None,
    na_values: NaValues | None = None,
    beside: Collection[str] | None = None,
) -> Data:
    """A data set by name, arrays from a ``.npy`` or ``.npz`` file, or a table from another.

    Args:
        name: ``digits`` (within scikit-learn, 1,797 images of 8x8), ``digit-counts`` (the same
            as counts of 0 to 16), ``penguins`` (a table of 344 birds), ``mnist``,
            ``fashion-mnist``, ``kmnist``, ``emnist``, ``omniglot`` (28x28, through torchvision), or
            a file. An ``.npz`` may hold ``train``, ``test``, ``train_labels``, ``test_labels``; of
            other files the first array is taken, and a part of it held out. Files ``.csv``,
            ``.tsv`` and ``.parquet`` are tables, as :meth:`Table.read` reads them. An ``.npy`` file
            of more than 1 GiB stays on disk, with at most 10,000 observations held out. Files
            ``.h5ad``, ``.mtx`` and ``.npz`` of ``scipy.sparse`` are :class:`Counts`.
        root: where torchvision's files are; they are downloaded to ``~/.cache/pyro_vae`` where
            it is not given.
        seed: of the split where the source has none.
        held_out: the share of a file's observations that makes its test part where it has none; 1
            takes all, in their order.
        censored: of a table, as :meth:`Table.read` has it.
        na_values: of a table, too.
        beside: of a table, which is then read as counts: columns that are none.

    Returns:
        A :class:`Data`.

    Raises:
        ValueError: an unknown name, a missing or damaged file, or no network to download from.
    """
    seed, held_out = whole("seed", seed, 0), number("held_out", held_out, 0)
    if name in SOURCES:
        return SOURCES[name](Path(root) if root else None, seed)
    if is_sparse_file(name) or (beside is not None and _is_table(name)):
        counts = read_counts(name, beside=beside or ())
        test, train = (counts, counts[:1]) if held_out >= 1 else counts.split(held_out, seed=seed)
        return Data(Path(name).stem, f"the counts of {Path(name).name}", train, test)
    if Path(name).suffix in (".npy", ".npz"):
        return _file(Path(name), seed, held_out)
    if _is_table(name):
        what = f"the table of {Path(name).name}"
        table = Table.read(name, censored=censored, na_values=na_values)
        return _table(Path(name).stem, what, table, seed, held_out)
    raise ValueError(
        f"unknown data {name!r}{nearest(name, SOURCES)}\n"
        f"give one of {', '.join(SOURCES)}, or a .npy or .npz file, counts: "
        f"{', '.join(COUNT_FILES)}, or a table: {', '.join(SUFFIXES)}"
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
    return _split("digit-counts", description, x, torch.tensor(bunch.target), seed)


def _torchvision(
    attribute: str, name: str, description: str, **options: str
) -> Callable[[Path | None, int], Data]:
    def load(root: Path | None, seed: int) -> Data:
        x, labels = [], []
        for train in (True, False):
            data = _fetch(attribute, root, train, **options)
            if attribute == "Omniglot":
                pairs = [data[i] for i in range(len(data))]
                images = torch.stack([_shrink(image) for image, _ in pairs])
                target = torch.tensor([label for _, label in pairs])
            else:
                images, target = data.data.unsqueeze(1) / 255.0, data.targets
            if attribute == "EMNIST":
                images = images.transpose(2, 3)
            x.append(images)
            labels.append(target)
        return Data(name, description, x[0], x[1], labels[0], labels[1], grey=True)

    return load


def _fetch(attribute: str, root: Path | None, train: bool, **options: str):  # noqa: ANN202
    """A data set of torchvision's, imported late: it may not match the torch that is installed."""
    try:
        from torchvision import datasets
    except RuntimeError as problem:
        raise ValueError(
            f"torchvision does not go with this torch {torch.__version__}: install both from one "
            f"release, pip install --force-reinstall torch torchvision ({problem})"
        ) from problem
    where = root or Path.home() / ".cache" / "pyro_vae"
    flag = {"background": train} if attribute == "Omniglot" else {"train": train}
    try:
        return getattr(datasets, attribute)(str(where), download=root is None, **flag, **options)
    except (RuntimeError, OSError) as problem:
        raise ValueError(
            f"{attribute} is not in {where} and cannot be downloaded: {problem}\n"
            f"give --data-root a folder that holds {attribute}/ as torchvision lays it out"
        ) from problem


def _shrink(image) -> Tensor:  # noqa: ANN001
    """Omniglot's 105x105 black on white as 28x28 white on black, the field's usual form."""
    ink = 1 - torch.from_numpy(np.asarray(image, dtype=np.float32)) / 255
    return torch.nn.functional.interpolate(ink[None, None], (28, 28), mode="area")[0].clamp(0, 1)


def _file(path: Path, seed: int, held_out: float) -> Data:
    if path.suffix == ".npy":
        loaded = read_array(path)
        x = Rows(loaded) if isinstance(loaded, np.memmap) else _tensor(loaded, path)
        return _split(path.stem, f"the array of {path.name}", x, None, seed, held_out)
    if not (arrays := read_arrays(path)):
        raise ValueError(f"{path} holds no arrays")
    if "train" in arrays and "test" in arrays:
        labels = [_labels(arrays.get(k), path) for k in ("train_labels", "test_labels")]
        train, test = _tensor(arrays["train"], path), _tensor(arrays["test"], path)
        what = f"train and test of {path.name}"
        return Data(path.stem, what, train, test, labels[0], labels[1])
    labels = _labels(arrays.pop("labels", None), path)
    if not arrays:
        raise ValueError(f"{path} holds labels only")
    first, *_ = arrays
    what = f"the array {first!r} of {path.name}"
    return _split(path.stem, what, _tensor(arrays[first], path), labels, seed, held_out)


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
            f"{path} holds an array of {array.dtype} and shape {array.shape}: "
            "expected numbers of shape (N, ...)"
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _split(
    name: str,
    description: str,
    x: Tensor | Rows,
    labels: Tensor | None,
    seed: int,
    held_out: float = 0.1,
) -> Data:
    if len(x) < 10 and held_out < 1:
        raise ValueError(
            f"{description} has {len(x)} observations: at least 10 make a train and test part"
        )
    if labels is not None and len(labels) != len(x):
        raise ValueError(f"{description} has {len(x)} observations and {len(labels)} labels")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    order = order if held_out < 1 else torch.arange(len(x))
    n = int(len(x) * held_out)
    if isinstance(x, Rows):
        n = min(n, HELD_OUT)
        test = x[order[:n]].to(torch.float32)
        return Data(name, f"{description}, on disk", x.subset(order[n:]), test)
    parts = order[n:], order[:n]
    train, test = (x[part] for part in parts)
    targets = (None, None) if labels is None else (labels[parts[0]], labels[parts[1]])
    return Data(name, description, train, test, targets[0], targets[1])


SOURCES: dict[str, Callable[[Path | None, int], Data]] = {
    "digits": _digits,
    "digit-counts": _digit_counts,
    "penguins": _penguins,
    "mnist": _torchvision("MNIST", "mnist", "handwritten digits, 28x28 grey"),
    "fashion-mnist": _torchvision("FashionMNIST", "fashion-mnist", "clothes, 28x28 grey"),
    "kmnist": _torchvision("KMNIST", "kmnist", "cursive Japanese characters, 28x28 grey"),
    "emnist": _torchvision(
        "EMNIST", "emnist", "handwritten letters and digits, 28x28 grey", split="balanced"
    ),
    "omniglot": _torchvision("Omniglot", "omniglot", "characters of 50 alphabets, 28x28 grey"),
}
