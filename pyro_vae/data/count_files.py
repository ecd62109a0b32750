"""Counts in files: AnnData's, sparse arrays of SciPy, Matrix Market, and tables."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ..core.system import check_file
from .counts import Counts
from .numpy_files import read_arrays
from .tables import SUFFIXES, read_file

__all__ = ["COUNT_FILES", "is_sparse_file", "read_counts"]

COUNT_FILES = (".h5ad", ".mtx")
PARTS = {"csr": ("data", "indices", "indptr"), "csc": ("data", "indices", "indptr")}
PARTS |= {"coo": ("data", "row", "col")}


def read_counts(
    path: str | Path, *, layer: str | None = None, beside: Collection[str] = ()
) -> Counts:
    """Counts from a file, with what it says beside them.

    Args:
        path: ``.h5ad``, ``.npz`` as ``scipy.sparse.save_npz`` writes it, ``.mtx`` (``.mtx.gz``), or
            a table (``.csv``, ``.tsv``, ``.parquet``), whose whole numbers are counts.
        layer: of an ``.h5ad``, in place of ``X``.
        beside: columns of a table that are no counts.

    Raises:
        ValueError: no such file, one that cannot be read, or that holds no counts.

    >>> read_counts("cells.h5ad")
    Traceback (most recent call last):
    ValueError: there is no file cells.h5ad
    """
    path = Path(path)
    check_file(path)
    kinds = [suffix for suffix in path.suffixes if suffix not in (".gz", ".bz2")]
    kind = kinds[-1].lower() if kinds else ""
    if layer is not None and kind != ".h5ad":
        raise ValueError(f"layer={layer!r} is of .h5ad files, got {path.name}")
    if kind in SUFFIXES:
        return _of_table(read_file(path, ()), path, beside)
    readers = {".h5ad": lambda: _annotated(path, layer), ".npz": lambda: Counts(_npz(path))}
    readers[".mtx"] = lambda: Counts(_matrix_market(path))
    if kind not in readers:
        known = ", ".join((*readers, *SUFFIXES))
        raise ValueError(f"{path}: counts are in files {known}, got {kind or 'none'}")
    try:
        return readers[kind]()
    except (OSError, KeyError, TypeError, IndexError) as problem:
        raise ValueError(f"{path} cannot be read as {kind[1:]}: {problem}") from problem


def is_sparse_file(path: str | Path) -> bool:
    """Whether a file holds :class:`Counts`, by its name or, of ``.npz``, by what is in it."""
    path = Path(path)
    if any(suffix in COUNT_FILES for suffix in path.suffixes):
        return True
    if path.suffix != ".npz" or not path.is_file():
        return False
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return {"data.npy", "shape.npy", "format.npy"} <= {*archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False


def _of_table(frame: Any, path: Path, beside: Collection[str]) -> Counts:  # noqa: ANN401
    """Columns of whole numbers of at least 0 as counts, the others beside them."""

    def counts(name: str) -> bool:
        x = frame[name]
        return name not in beside and x.dtype.kind in "biuf" and ((x >= 0) & (x % 1 == 0)).all()

    names = [name for name in frame.columns if counts(name)]
    if not names:
        raise ValueError(f"{path} has no column of counts, whole numbers of at least 0")
    return Counts(frame[names], frame[[name for name in frame.columns if name not in names]])


def _npz(path: Path) -> Any:  # noqa: ANN401
    """A sparse array as ``scipy.sparse.save_npz`` writes it."""
    from scipy import sparse

    arrays = read_arrays(path)
    form = arrays["format"].item() if "format" in arrays else b""
    form = form.decode() if isinstance(form, bytes) else str(form)
    if form not in PARTS:
        raise ValueError(f"{path} holds no sparse array of {', '.join(PARTS)}")
    data, first, second = (arrays[name] for name in PARTS[form])
    shape = tuple(arrays["shape"].tolist())
    if form == "coo":
        return sparse.coo_matrix((data, (first, second)), shape=shape)
    kind = sparse.csr_matrix if form == "csr" else sparse.csc_matrix
    matrix = kind((data, first, second), shape=shape)
    matrix.check_format(full_check=True)  # indices of a file are not believed
    return matrix


def _matrix_market(path: Path) -> Any:  # noqa: ANN401
    from scipy.io import mmread

    try:
        return mmread(path)
    except ValueError as problem:
        raise ValueError(f"{path} cannot be read as mtx: {problem}") from problem


def _annotated(path: Path, layer: str | None) -> Counts:
    """An ``.h5ad`` file, by anndata where it is installed, else by h5py."""
    try:
        from anndata import read_h5ad
    except ImportError:
        return _hdf(path, layer)
    return Counts.of(read_h5ad(path), layer)


def _hdf(path: Path, layer: str | None) -> Counts:
    try:
        import h5py
    except ImportError:
        raise ValueError(f"{path}: .h5ad files need anndata or h5py: pip install anndata") from None
    import pandas as pd

    with h5py.File(path, "r") as file:
        if layer is not None and layer not in file.get("layers", {}):
            have = ", ".join(file.get("layers", {})) or "none"
            raise ValueError(f"there is no layer {layer!r} in {path}; there is {have}")
        x = _matrix(file["X" if layer is None else f"layers/{layer}"])
        obs, var = ({k: _column(v) for k, v in _columns(file[n]).items()} for n in ("obs", "var"))
        group = hasattr(file["var"], "keys")
        names = var.get(str(file["var"].attrs.get("_index", "_index")) if group else "index")
        own = {name: column for name, column in obs.items() if not name.startswith("_")}
    return Counts(x, pd.DataFrame(own) if own else None, None if names is None else list(names))


def _matrix(node: Any) -> Any:  # noqa: ANN401
    """``X``, dense or sparse."""
    from scipy import sparse

    if hasattr(node, "shape"):
        return node[()]
    about = node.attrs
    form = about.get("encoding-type", about.get("h5sparse_format", "csr"))
    form = form.decode() if isinstance(form, bytes) else str(form)
    shape = about.get("shape", about.get("h5sparse_shape"))
    kind = sparse.csc_matrix if form.startswith("csc") else sparse.csr_matrix
    parts = node["data"][()], node["indices"][()], node["indptr"][()]
    matrix = kind(parts, shape=tuple(int(n) for n in shape))
    matrix.check_format(full_check=True)
    return matrix


def _columns(node: Any) -> dict[str, Any]:  # noqa: ANN401
    """The columns of a frame: of a group, or of a dataset of records, as once was written."""
    if hasattr(node, "keys"):
        return {name: node[name] for name in node if name != "__categories"}
    return {name: node[name] for name in node.dtype.names}


def _column(node: Any) -> Any:  # noqa: ANN401
    """A column of a frame as an array; categories as a categorical of pandas."""
    import pandas as pd

    if hasattr(node, "keys") and "codes" in node:
        levels: Any = _words(node["categories"][()])
        return pd.Categorical.from_codes(node["codes"][()], levels)
    if hasattr(node, "keys"):  # a nullable column: its values, and which are missing
        values = node["values"][()].astype(float)
        return np.where(node["mask"][()], np.nan, values)
    return _words(node[()] if hasattr(node, "id") else node)


def _words(values: np.ndarray) -> np.ndarray:
    """Bytes as texts; others as they are."""
    if values.dtype.kind not in "OS":
        return values
    return np.array([v.decode() if isinstance(v, bytes) else v for v in values], object)
