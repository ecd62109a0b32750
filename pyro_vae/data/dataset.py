"""A data set: its parts, what they are called, and how one is split."""

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .counts import Counts
from .rows import HELD_OUT, Rows
from .tables import Table

if TYPE_CHECKING:
    import pandas as pd
from .vocabulary import Vocabulary

__all__ = ["Data", "split"]


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
        levels: L, where x are images of whole numbers 0, 1, ..., L - 1: 256, of 8-bit ones.
        train_attributes: a column for each attribute that is known of a picture, or ``None``.
        test_attributes: likewise.
        ragged: whether x are sequences, ``(N, T, ...)``, with NaN after the last step of each.
        vocabulary: of texts, whose tokens' numbers x are.
        order: where the rows of ``test``, and then those of ``train``, were in an array without a
            test part, ``(M + N,)``, or ``None``.
    """

    name: str
    description: str
    train: Tensor | Rows | Table | Counts
    test: Tensor | Table | Counts
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    grey: bool = False
    levels: int | None = None
    train_attributes: "pd.DataFrame | None" = None
    test_attributes: "pd.DataFrame | None" = None
    ragged: bool = False
    vocabulary: Vocabulary | None = None
    order: Tensor | None = None

    @property
    def is_table(self) -> bool:
        """Whether it is a table."""
        return isinstance(self.train, Table)

    @property
    def x_shape(self) -> tuple[int | None, ...] | Table | Counts | Vocabulary:
        """What a model is made of: the shape of an observation, the table, counts or vocabulary."""
        if isinstance(self.train, Table | Counts):
            return self.train
        shape = tuple(self.train.shape[1:])
        return self.vocabulary or ((None, *shape[1:]) if self.ragged else shape)

    @property
    def texts(self) -> list[str]:
        """The test part of texts, as texts."""
        if self.vocabulary is None or not isinstance(self.test, Tensor):
            raise ValueError(f"the data {self.name!r} are no texts")
        return [self.vocabulary.decode(row[~row.isnan()].tolist()) for row in self.test]

    @property
    def missing(self) -> bool:
        """Whether some cell of x is missing."""
        if isinstance(self.train, Table) or isinstance(self.test, Table):
            return True  # a model of a table knows of missing cells
        if self.ragged:  # NaN is padding
            return False
        if isinstance(self.train, Counts) or isinstance(self.test, Counts):
            return False
        train = self.train.blocks() if isinstance(self.train, Rows) else (self.train,)
        return any(bool(part.isnan().any()) for part in chain((self.test,), train))


def split(
    name: str,
    description: str,
    x: Tensor | Rows,
    labels: Tensor | None,
    seed: int,
    held_out: float = 0.1,
    *,
    levels: int | None = None,
    attributes: "pd.DataFrame | None" = None,
) -> Data:
    """A data set without a test part of its own, a part of it held out.

    Args:
        name: how it is called.
        description: what it is.
        x: ``(N, ...)``.
        labels: ``(N,)``.
        seed: of the order.
        held_out: the share that is held out; 1 takes all, in their order.
        levels: of images of whole numbers.
        attributes: of pictures, a row each.
    """
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
    about = [None if attributes is None else attributes.iloc[part.numpy()] for part in parts]
    whole = Data(name, description, train, test, targets[0], targets[1], levels=levels, order=order)
    return replace(whole, train_attributes=about[0], test_attributes=about[1])
