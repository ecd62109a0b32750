"""Loaders: a ``Dataset``, a ``DataLoader``, or any iterable of batches, endless ones too."""

from collections.abc import Iterable, Iterator, Mapping, Set
from functools import partial
from itertools import islice
from types import FunctionType
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ..core.checks import whole
from .pictures import as_pixels
from .rows import Rows

__all__ = ["Entries", "Form", "Stream", "is_loader", "length", "read", "stream"]

ROWS = 1000  # of a Dataset that are read together where all are


class Entries(tuple[Any, ...]):
    """Arrays that a loader gives side by side, of the same observations: x, and what belongs to it.

    It is no array of rows, as another tuple would be.
    """

    __slots__ = ()


class Stream:
    """An endless source of batches, in epochs of so many; one that ends is read from its start.

    Args:
        source: an iterable of batches.
        steps: batches of an epoch.
    """

    def __init__(self, source: Iterable[object], steps: int) -> None:
        self.source, self.steps, self.count = source, steps, 0
        self._batches = iter(source)
        self._read: list[object] | None = []
        self._again: list[object] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[object]:
        """The batches of the next epoch."""
        return (self._next() for _ in range(self.steps))

    def rewind(self) -> None:
        """Give what was read so far once more; it is kept no longer."""
        self._again, self._read = [*reversed(self._read or ())], None
        self.count = 0

    def _next(self) -> object:
        self.count += 1
        if self._again:
            return self._again.pop()
        for _ in range(2):
            for batch in islice(self._batches, 1):
                if self._read is not None:
                    self._read.append(batch)
                return batch
            self._batches = iter(self.source)
        raise ValueError(
            f"the stream ended after {self.count - 1} batches and cannot be read again: give a "
            "DataLoader, an IterableDataset or another object whose __iter__ starts anew"
        )


def is_loader(x: object) -> bool:
    """Whether x gives rows or batches when it is read, and is no array or frame."""
    if isinstance(x, Dataset | DataLoader | Iterator):
        return not isinstance(x, Rows)
    array = any(hasattr(x, name) for name in ("__array__", "__getitem__", "__dlpack__", "toarray"))
    return isinstance(x, Iterable) and not array and not isinstance(x, Set | Mapping)


def length(x: object) -> int | None:
    """How many rows or batches a loader has; ``None`` where it does not say."""
    try:
        return len(x)  # pyrefly: ignore[bad-argument-type]
    except (TypeError, NotImplementedError):
        return None


def stream(x: Any, batch_size: int, steps: int | None) -> Any:  # noqa: ANN401
    """The data of a training run, with the length of an epoch.

    Args:
        x: a tensor, rows on disk, or a loader.
        batch_size: of the rows of an ``IterableDataset``.
        steps: batches of an epoch, of a loader; needed where it has no length.

    Raises:
        ValueError: a loader without a length, or ``steps`` of data that have rows.
    """
    if isinstance(x, IterableDataset):
        x = DataLoader(x, batch_size=batch_size)
    steps = None if steps is None else whole("steps_per_epoch", steps)
    if isinstance(x, Dataset) and length(x) is None:
        raise ValueError("the Dataset has no length: give its class a __len__")
    if steps is None:
        if is_loader(x) and length(x) is None:
            raise ValueError(
                "a stream of data has no length: fit(..., steps_per_epoch=100) takes 100 batches "
                "of it as an epoch"
            )
        return x
    if isinstance(x, FunctionType | partial):
        raise ValueError(
            "x is a function: give an IterableDataset, or another object whose __iter__ calls it"
        )
    if not is_loader(x) or (isinstance(x, Dataset) and not isinstance(x, DataLoader)):
        raise ValueError(
            f"steps_per_epoch is of streams and loaders, and these are {length(x)} rows: an epoch "
            "takes each once, batch_size= at a time"
        )
    return Stream(x, steps)


class Form:
    """How rows of a ``Dataset`` make a batch, and what a loader gives is understood."""

    def collate(self, rows: list[Any]) -> object:
        """Rows of a ``Dataset`` as a batch.

        Raises:
            ValueError: rows that cannot be put side by side.
        """
        try:
            return self.entries(default_collate([_tensors(row) for row in rows]))
        except (TypeError, RuntimeError) as problem:
            raise ValueError(
                f"the rows of the Dataset make no batch ({str(problem).splitlines()[0]}): give "
                "each as a tensor of one shape, pictures by "
                "transform=torchvision.transforms.Resize((64, 64))"
            ) from None

    def entries(self, batch: Any, stacked: bool = True) -> object:  # noqa: ANN401
        """A batch: an array, arrays by name, or several as :class:`Entries`.

        Args:
            batch: what a loader gave.
            stacked: whether rows were put side by side in it, as PyTorch does by default.
        """
        if isinstance(batch, tuple) and hasattr(batch, "_asdict"):
            return batch._asdict()
        if isinstance(batch, tuple | list) and not isinstance(batch, Entries):
            several = [part for part in batch if isinstance(part, Tensor) or hasattr(part, "shape")]
            if len(several) == len(batch):
                return batch[0] if len(batch) == 1 else Entries(batch)
        return batch

    def even(self, batch: Tensor) -> Tensor:
        """A batch as training has it: of the shape of all others, but for its rows."""
        return batch

    def batches(self, x: Any) -> Iterator[object]:  # noqa: ANN401
        """What a loader gives, understood."""
        loader = x.source if isinstance(x, Stream) else x
        stacked = getattr(loader, "collate_fn", None) is default_collate
        return (self.entries(batch, stacked) for batch in x)


def read(x: Any, form: Form | None = None) -> Iterator[object]:  # noqa: ANN401
    """All batches of a loader, as a form has them, by default :class:`Form`.

    Raises:
        ValueError: it has no length, so it may have no end.
    """
    form = form or Form()
    if isinstance(x, IterableDataset):
        x = DataLoader(x, batch_size=ROWS)
    if (n := length(x)) == 0:
        raise ValueError("x is empty: the loader gives no batch, give one at least")
    if n is None:
        raise ValueError(
            "a stream of data has no length, so it may have no end: read some of it first, "
            "[*itertools.islice(loader, 10)]"
        )
    if isinstance(x, Dataset):
        rows = range(n)
        parts = (rows[start : start + ROWS] for start in rows[::ROWS])
        return (form.collate([x[i] for i in part]) for part in parts)
    return form.batches(x)


def _tensors(row: Any) -> Any:  # noqa: ANN401
    """A row of a ``Dataset`` with PIL's pictures as 8-bit tensors, ``(C, H, W)``."""
    if isinstance(row, tuple | list) and not hasattr(row, "_asdict"):
        return tuple(map(_tensors, row))
    return as_pixels([row])[0] if hasattr(row, "getbands") else row
