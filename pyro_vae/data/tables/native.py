"""What each library of frames says of a column's type, and columns made in such types."""

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import narwhals as nw
import numpy as np

from .columns import Level

__all__ = [
    "BYTES",
    "DECIMAL",
    "LIBRARIES",
    "categories",
    "dtype_text",
    "in_known_zone",
    "make_frame",
    "make_series",
]

BYTES = "latin-1"  # of any bytes a text
LIBRARIES = ("pandas", "polars", "pyarrow")
CATEGORY = re.compile(r"(category|ordered)\[(.+)\]$")
DECIMAL = re.compile(r"(?:object\[decimal|decimal\d+|Decimal)\b.*?(-?\d+)[\])](?:\[pyarrow\])?$")


def dtype_text(series: nw.Series) -> str:
    """The type of a column as a text from which :func:`make_series` makes it again."""
    native: Any = series.to_native()
    if not series.implementation.is_pandas():
        text = str(native.dtype if series.implementation.is_polars() else native.type)
        return "Enum" if text.startswith("Enum") else text
    if series.dtype in (nw.Categorical, nw.Enum) and hasattr(native.dtype, "categories"):
        name = "ordered" if native.dtype.ordered else "category"
        return f"{name}[{native.dtype.categories.dtype}]"
    return str(native.dtype)


def categories(series: nw.Series) -> tuple[tuple[Level, ...], bool]:
    """The levels that a column's type names, and whether it says that they are in order."""
    native: Any = series.to_native()
    if series.dtype not in (nw.Categorical, nw.Enum):
        return (), False
    if hasattr(native.dtype if hasattr(native, "dtype") else None, "ordered"):  # pandas
        return tuple(native.dtype.categories.tolist()), bool(native.dtype.ordered)
    if series.implementation.is_pandas():  # Arrow's own dictionaries
        native = native.array.__arrow_array__()
    if hasattr(native, "unify_dictionaries"):
        chunks = native.unify_dictionaries().chunks
        levels = chunks[0].dictionary.to_pylist() if chunks else []
        return tuple(levels), native.type.ordered
    if series.dtype == nw.Enum:
        return tuple(native.dtype.categories.to_list()), False
    return tuple(sorted(series.drop_nulls().unique().to_list())), False


def in_known_zone(series: nw.Series) -> nw.Series:
    """Times of a zone whose name narwhals cannot read, such as America/New_York, in UTC."""
    native: Any = series.to_native()
    if series.dtype != nw.Unknown or getattr(getattr(native, "dtype", None), "tz", None) is None:
        return series
    return nw.from_native(native.dt.tz_convert("UTC"), series_only=True)


def make_series(
    library: str,
    name: str,
    values: np.ndarray,
    known: np.ndarray,
    text: str,
    levels: Sequence[Level] = (),
) -> object:
    """A column of a library.

    Args:
        library: ``pandas``, ``polars`` or ``pyarrow``.
        name: of the column.
        values: ``(N,)``.
        known: ``(N,)``, false where the cell is missing.
        text: the type, as :func:`dtype_text` says it; where it cannot hold missing cells and there
            are some, the nullable one of the same numbers. Without a text, what the library makes
            of Python's own values.
        levels: of a type that names them.
    """
    if not text:
        return _inferred(library, name, values, known)
    if found := DECIMAL.match(text):
        places = int(found[1])
        if size := re.search(r"(\d+), (?:scale=)?-?\d+[\])]", text):  # the digits that it has
            most = (10 ** int(size[1]) - 1) / 10**places
            values = np.clip(values, -most, most)
        rounded = (f"{round(value, places):.{max(places, 0)}f}" for value in values.tolist())
        values = np.array([Decimal(value) for value in rounded], dtype=object)
        text = "object" if text.startswith("object") else text
    if re.match("float16|halffloat", text.lower()):
        most = float(np.finfo(np.float16).max)
        values = np.clip(values.astype(float), -most, most)
    if values.dtype.kind == "m" and (unit := re.search(r"\bm?s\b", text)):
        values = _rounded(values, unit[0])
    make = {"pandas": _pandas, "polars": _polars, "pyarrow": _pyarrow}[library]
    return make(name, values, known, text, list(levels))


def make_frame(library: str, columns: Mapping[str, Any], label: str | None = None) -> object:
    """A frame of a library from its columns, in their order; ``label`` is that of their names.

    In Arrow it is the table's metadata, as JSON.
    """
    module = _module(library)
    if library == "pyarrow":
        pairs = json.loads(label or "{}").items()
        metadata = {k.encode(BYTES): v.encode(BYTES) for k, v in pairs}
        return module.table(dict(columns)).replace_schema_metadata(metadata or None)
    frame = module.DataFrame(dict(columns))
    return frame if label is None else frame.rename_axis(columns=label)


def _module(library: str) -> Any:  # noqa: ANN401
    return nw.Implementation.from_string(library).to_native_namespace()


def _listed(values: np.ndarray, known: np.ndarray) -> list[object]:
    """Python's objects, ``None`` where a cell is missing."""
    cells = values.tolist()
    return cells if known.all() else [v if k else None for v, k in zip(cells, known, strict=True)]


def _rounded(values: np.ndarray, unit: str) -> np.ndarray:
    """Durations in a coarser unit, of which a cast would cut the rest off."""
    ticks, size = values.astype("timedelta64[us]").astype(np.int64), {"ms": 1000, "s": 10**6}[unit]
    return ((ticks + size // 2) // size).astype(f"timedelta64[{unit}]")


def _inferred(library: str, name: str, values: np.ndarray, known: np.ndarray) -> object:
    kind = values.dtype.kind
    if kind in "mM":
        values = values.astype(f"{kind}8[us]")
    cells, module = _listed(values, known), _module(library)
    if library == "pyarrow":
        return module.chunked_array([module.array(cells)])
    return module.Series(name=name, **{"data" if library == "pandas" else "values": cells})


def _pandas(name: str, values: np.ndarray, known: np.ndarray, text: str, levels: list) -> object:
    pd = _module("pandas")
    if text.endswith("[pyarrow]"):
        chunks = _pyarrow(name, values, known, text.removesuffix("[pyarrow]"), levels)
        return pd.Series(pd.arrays.ArrowExtensionArray(chunks), name=name)
    if match := CATEGORY.match(text):
        kinds = pd.Index(levels, dtype=match[2])
        dtype = pd.CategoricalDtype(kinds, ordered=match[1] == "ordered")
        codes = np.where(known, _positions(values, known, levels), -1)
        return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype), name=name)
    if text == "object[date]":
        return pd.Series(_listed(values.astype("datetime64[D]"), known), name=name, dtype=object)
    kind = values.dtype.kind
    if kind == "O" or text == "object":
        if kind in "mM":
            values = np.array(list(pd.Series(values)), dtype=object)
        holes = _listed(values, known)
        dtype = object if text == "object" else text
        return pd.Series(holes, name=name, dtype=dtype)
    if kind in "mM":
        coarse = np.datetime_data(values.dtype)[0] not in ("s", "ms", "us", "ns")
        series = pd.Series(values.astype(f"{values.dtype.str[1:3]}[s]") if coarse else values)
        series[~known] = pd.NaT
        zone = re.search(r"\[\w+, (.+)\]", text)
        series = series.dt.tz_localize("UTC") if zone else series
        return series.astype(text).rename(name)
    if not known.all() and (text == "bool" or re.match(r"u?int\d+$", text)):
        text = {"bool": "boolean"}.get(text, text.replace("int", "Int").replace("u", "U"))
    series = pd.Series(values, name=name)
    if known.all():
        return series.astype(text)
    if text.startswith("float"):
        return series.astype("float64").where(known).astype(text)
    return series.astype(text).where(known, pd.NA)


def _positions(values: np.ndarray, known: np.ndarray, levels: list) -> np.ndarray:
    """The place of each known value among the levels."""
    places = {level: i for i, level in enumerate(levels)}
    positions = np.full(len(values), -1)
    positions[known] = [places[value] for value in values[known].tolist()]
    return positions


def _polars(name: str, values: np.ndarray, known: np.ndarray, text: str, levels: list) -> object:
    pl = _module("polars")
    if text == "Enum":
        return pl.Series(name, _listed(values, known), dtype=pl.Enum(levels))
    base = text.split("(")[0]
    if values.dtype.kind in "mM":
        unit = (re.findall(r"time_unit='(\w+)'", text) or ["us"])[0]
        zone = (re.findall(r"time_zone='(.+)'", text) or [None])[0]
        whole = values.astype(f"{'datetime' if base != 'Duration' else 'timedelta'}64[{unit}]")
        series = pl.Series(name, _listed(whole.astype(np.int64), known), dtype=pl.Int64)
        if base == "Duration":
            return series.cast(pl.Duration(unit))
        series = series.cast(pl.Datetime(unit))
        if base == "Date":
            return series.cast(pl.Date)
        return series.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else series
    dtype = getattr(pl, base)
    if base == "Decimal":
        dtype = dtype(*map(int, re.findall(r"\d+", text)))
    if values.dtype.kind == "O" or not known.all():
        return pl.Series(name, _listed(values, known), dtype=dtype)
    return pl.Series(name, values).cast(dtype)


def _pyarrow(name: str, values: np.ndarray, known: np.ndarray, text: str, levels: list) -> object:
    pa = _module("pyarrow")
    if text.startswith("dictionary"):
        parts = dict(re.findall(r"(\w+)=(\w+)", text))
        codes = pa.array(_listed(_positions(values, known, levels), known))
        indices = codes.cast(pa.type_for_alias(parts["indices"]))
        kinds = pa.array(levels, type=_arrow_type(parts["values"]))
        array = pa.DictionaryArray.from_arrays(indices, kinds, ordered=parts["ordered"] == "1")
        return pa.chunked_array([array])
    dtype = _arrow_type(text)
    if values.dtype.kind in "mM":
        coarse = pa.types.is_date(dtype)
        unit = "us" if coarse else dtype.unit
        whole = values.astype(
            f"{'datetime' if values.dtype.kind == 'M' else 'timedelta'}64[{unit}]"
        )
        ticks = pa.array(_listed(whole.astype(np.int64), known), type=pa.int64())
        array = ticks.cast(pa.timestamp("us")).cast(dtype) if coarse else ticks.cast(dtype)
        return pa.chunked_array([array])
    return pa.chunked_array([pa.array(_listed(values, known)).cast(dtype)])


def _arrow_type(text: str) -> Any:  # noqa: ANN401
    pa = _module("pyarrow")
    if zoned := re.match(r"timestamp\[(\w+), tz=(.+)\]", text):
        return pa.timestamp(zoned[1], zoned[2])
    if text.startswith("decimal"):  # decimal128(12, 2)
        return getattr(pa, text.split("(")[0])(*map(int, re.findall(r"-?\d+", text)[1:]))
    known = {"large_string": pa.large_string(), "date64[ms]": pa.date64()}
    return known[text] if text in known else pa.type_for_alias(text)
