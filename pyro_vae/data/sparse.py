"""Rows of a sparse matrix, a few of which are made dense when they are asked for."""

from copy import copy
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from .rows import Rows

__all__ = ["SparseRows", "is_sparse"]

DENSE = 2**28  # numbers of a sparse matrix that are made dense together, at most
WHOLE = 2**24  # whole numbers up to it are single precision's


def is_sparse(x: object) -> TypeGuard[Any]:
    """Whether x is a sparse matrix of SciPy's, PyTorch's or one on disk."""
    if isinstance(x, Tensor):
        return x.layout in LAYOUTS and x.ndim == 2 and not x.dense_dim()
    return hasattr(x, "tocsr") or (hasattr(x, "to_memory") and hasattr(x, "backend"))


LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


class SparseRows(Rows):
    """Rows of a sparse matrix, compressed by rows, which share its memory.

    One index operation makes those rows dense that are asked for.

    Args:
        matrix: ``(N, D)``, of SciPy or PyTorch in any sparse format.
        rows: which of them, ``(M,)``; all where it is not given.
        beside: numbers that stand beside each row of the matrix, dense, ``(N, E)``.

    Raises:
        ValueError: no matrix, or none of numbers.

    >>> import scipy.sparse
    >>> x = SparseRows(scipy.sparse.csr_matrix([[0, 2], [1, 0], [0, 0]]), torch.tensor([2, 0]))
    >>> x.shape, x[0].tolist(), x[:].tolist()
    ((2, 2), [0.0, 0.0], [[0.0, 0.0], [0.0, 2.0]])
    """

    def __init__(
        self, matrix: object, rows: Tensor | None = None, beside: Tensor | None = None
    ) -> None:
        own = self.matrix = _compressed(matrix)
        self.starts, self.columns = _shared(own.indptr).long(), _shared(own.indices)
        self.values, self.beside = _numbers(own.data), beside
        self.width = own.shape[1] + (0 if beside is None else beside.shape[1])
        self.rows = torch.arange(own.shape[0]) if rows is None else rows
        self.device = torch.device("cpu")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together, dense."""
        return (len(self), self.width)

    def __getitem__(self, index: "int | slice | Tensor") -> Tensor:
        """Dense rows, ``(..., D + E)``."""
        at = self.rows[index]
        flat = at.reshape(-1)
        first = self.starts[flat]
        n = self.starts[flat + 1] - first
        own = torch.repeat_interleave(n)
        among = torch.arange(len(own)) + (first - n.cumsum(0) + n)[own]
        dense = self.values.new_zeros(len(flat), self.width)
        dense[own, self.columns[among].long()] = self.values[among]
        if self.beside is not None:
            dense = dense.to(torch.promote_types(dense.dtype, self.beside.dtype))
            dense[:, -self.beside.shape[1] :] = self.beside[flat].to(dense)
        return dense.reshape(*at.shape, self.width)

    def __repr__(self) -> str:
        return f"SparseRows({self.shape}, {self.values.dtype})"

    def subset(self, rows: Tensor) -> "SparseRows":
        """Some of these rows, of the same matrix."""
        some = copy(self)
        some.rows = self.rows[rows]
        return some

    def dense(self) -> Tensor:
        """All rows together.

        Raises:
            ValueError: they are too many.
        """
        if len(self) * self.width > DENSE:
            size = len(self) * self.width * self.values.element_size() / 2**30
            raise ValueError(
                f"this reads all of x at once, and x is sparse: {len(self):,} dense rows of "
                f"{self.width:,} take {size:.1f} GiB. Give some of its rows, x[:1000]; fit, elbo, "
                "log_evidence and encode read a few at a time"
            )
        return self[:]


def _compressed(matrix: Any) -> Any:  # noqa: ANN401
    """A matrix of SciPy's, compressed by rows, each cell once."""
    if hasattr(matrix, "to_memory") and not hasattr(matrix, "tocsr"):
        matrix = matrix.to_memory()
    if isinstance(matrix, Tensor):
        matrix = _of_torch(matrix.detach().cpu())
    if len(matrix.shape) != 2:
        raise ValueError(f"a sparse x is a matrix, (N, D), got shape {tuple(matrix.shape)}")
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"x must be an array of numbers, got a sparse one of {matrix.dtype}")
    matrix = matrix.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def _of_torch(x: Any) -> Any:  # noqa: ANN401
    """A sparse matrix of PyTorch's as one of SciPy's."""
    from scipy import sparse

    shape = tuple(x.shape)
    if x.layout is torch.sparse_coo:
        x = x.coalesce()
        return sparse.coo_matrix((x.values().numpy(), x.indices().numpy()), shape=shape)
    if x.layout is torch.sparse_csr:
        parts, kind = (x.values(), x.col_indices(), x.crow_indices()), sparse.csr_matrix
    else:
        parts, kind = (x.values(), x.row_indices(), x.ccol_indices()), sparse.csc_matrix
    return kind(tuple(part.numpy() for part in parts), shape=shape)


def _shared(array: np.ndarray) -> Tensor:
    """An array as a tensor of its memory, which nobody writes into."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _numbers(values: np.ndarray) -> Tensor:
    """Values in floating point; whole numbers in double precision where single has not all."""
    if values.dtype.kind == "f" and values.dtype.itemsize in (4, 8):
        return _shared(np.ascontiguousarray(values, values.dtype.newbyteorder("=")))
    wide = len(values) and max(abs(int(values.max())), abs(int(values.min()))) > WHOLE
    return torch.from_numpy(values.astype(np.float64 if wide else np.float32))
