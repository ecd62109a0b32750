"""Counts: many columns of them, mostly zeros, and a frame of what else is known of the rows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .sparse import SparseRows, is_sparse
from .tables.frames import Frame

__all__ = ["Counts", "is_annotated"]


class Counts:
    """A matrix of counts that stays sparse, its columns' names, and a frame beside it.

    Args:
        x: ``(N, D)``: a sparse matrix, an array, or a frame of counts.
        obs: a frame of N rows, or a dictionary of columns: batches, covariates, whatever a
            condition names.
        names: of the columns: genes, words.

    Attributes:
        x: the matrix as it came; ``None`` where it was a frame's.

    Raises:
        ValueError: other than two dimensions, words, numbers of rows or names that differ, or a
            name that occurs twice.

    >>> import scipy.sparse
    >>> counts = Counts(scipy.sparse.eye_array(3, format="csr"), names=["a", "b", "c"])
    >>> counts.shape, counts[1:].rows()[:].tolist()
    ((3, 3), [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """

    def __init__(
        self,
        x: Any,  # noqa: ANN401
        obs: Any = None,  # noqa: ANN401
        names: Sequence[str] | None = None,
    ) -> None:
        if hasattr(x, "columns") and hasattr(x, "to_numpy"):
            names = list(map(str, x.columns)) if names is None else names
            x = x.to_numpy()
        elif not is_sparse(x) and not isinstance(x, Tensor):
            x = np.asarray(x)
        if len(x.shape) != 2:
            raise ValueError(f"counts are a matrix, (N, D), got shape {tuple(x.shape)}")
        if isinstance(x, np.ndarray) and x.dtype.kind not in "biuf":
            raise ValueError(f"counts are whole numbers, got an array of {x.dtype}")
        if obs is not None and not hasattr(obs, "iloc"):
            obs = Frame(obs).frame.to_pandas()
        self.x, self.obs = x, obs
        self.names = None if names is None else tuple(map(str, names))
        if obs is not None and len(obs) != len(self):
            raise ValueError(f"counts of {len(self)} rows, and obs of {len(obs)}: give each one")
        if self.names is not None and len(self.names) != self.shape[1]:
            got = f"counts of {self.shape[1]} columns, and {len(self.names)} names"
            raise ValueError(f"{got}: give each one")
        if len(set(self.names or ())) < len(self.names or ()):
            first = next(name for name, n in Counter(self.names).items() if n > 1)
            raise ValueError(
                f"two columns of counts are named {first!r}: give each a name of its own "
                "(adata.var_names_make_unique())"
            )

    @classmethod
    def of(cls, data: Any, layer: str | None = None) -> "Counts":  # noqa: ANN401
        """Counts of an ``AnnData``, or of a matrix.

        Args:
            data: with ``X``, ``obs`` and ``var_names``.
            layer: the layer that holds counts, where ``X`` does not.

        Raises:
            ValueError: a layer that is not there.
        """
        if isinstance(data, Counts):
            return data
        if not is_annotated(data):
            return cls(data)
        if layer is not None and layer not in data.layers:
            have = ", ".join(data.layers.keys()) or "none"
            raise ValueError(f"there is no layer {layer!r}; there is {have}")
        x = data.X if layer is None else data.layers[layer]
        return cls(x, data.obs.reset_index(drop=True), list(data.var_names))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        n, d = self.x.shape
        return int(n), int(d)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> "Counts":  # noqa: ANN401
        """Some rows: a slice, or their numbers."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):  # which ends a loop over the rows
                raise IndexError(f"there is no row {rows} among {len(self)}")
            rows = slice(rows, rows + 1 or None)
        at = rows if isinstance(rows, slice) else np.asarray(rows)
        x: Any = SparseRows(self.x).matrix if is_sparse(self.x) else self.x
        return Counts(x[at], None if self.obs is None else self.obs.iloc[at], self.names)

    def __repr__(self) -> str:
        return f"Counts({self.shape[0]} rows, {self.shape[1]} columns)"

    def split(self, held_out: float = 0.1, *, seed: int = 0) -> "tuple[Counts, Counts]":
        """Two parts of the rows, drawn: those that are held out, and the others."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).numpy()
        n = int(len(self) * held_out)
        return self[order[:n]], self[order[n:]]

    def rows(self, beside: Tensor | None = None) -> SparseRows:
        """The matrix, a few rows of which are made dense at a time.

        Args:
            beside: dense numbers that stand beside each row, ``(N, E)``.
        """
        x = self.x
        if not is_sparse(x):
            from scipy import sparse

            x = sparse.csr_matrix(np.asarray(x))
        return SparseRows(x, beside=beside)

    def totals(self) -> Tensor:
        """The sum of each row, ``(N,)``, in double precision."""
        if is_sparse(self.x):
            sums = np.asarray(SparseRows(self.x).matrix.sum(1), float)
        else:
            sums = np.asarray(self.x, float).sum(1)
        return torch.tensor(sums.reshape(-1))


def is_annotated(x: object) -> bool:
    """Whether x is an ``AnnData``, or like one."""
    return all(hasattr(x, name) for name in ("X", "obs", "var_names"))
