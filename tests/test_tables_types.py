"""Types of columns that few tables have: they come back as they were, or are refused."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

import pyro_vae as pv
from pyro_vae.data.tables.coding import drawn

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pl = pytest.importorskip("polars", reason="polars is not installed")

N = 42
HOLES = np.arange(N) % 7 == 0


def holed(values):
    """The values, and nothing in each seventh row."""
    return [None if hole else value for value, hole in zip(values, HOLES, strict=True)]


CENTS = holed([Decimal(i) / 4 for i in range(N)])
WORDS = pa.array(["low", "mid", "high"])
CODES = pa.array(holed(np.arange(N) % 3), pa.int8())
ARROW = {
    "decimal32": pa.array(CENTS, pa.decimal32(8, 3)),
    "decimal64": pa.array(CENTS, pa.decimal64(12, 2)),
    "decimal256": pa.array(CENTS, pa.decimal256(50, 2)),
    "ordered": pa.DictionaryArray.from_arrays(CODES, WORDS, ordered=True),
}


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
@pytest.mark.parametrize("name", ARROW)
def test_types_of_arrow_come_back(name, library):
    arrow = pa.table({"x": ARROW[name], "y": np.arange(N) / 8})
    frame = arrow if library == "pyarrow" else arrow.to_pandas(types_mapper=pd.ArrowDtype)
    table = pv.Table.from_frame(frame)
    assert table.schema.to_frame(table.values).equals(frame)
    if name == "ordered":
        assert table.schema["x"].kind == "ordinal"
        assert table.schema["x"].levels == ("low", "mid", "high")


def test_whole_numbers_with_holes_of_a_parquet_file_stay_whole(tmp_path):
    """Pandas reads those of other libraries as floats, which hold no number beyond 2^53."""
    values = {"small": pa.array([None, 1, 2] * 9, pa.int8()), "id": [2**60 + 1, None, 5] * 9}
    rows = pa.table({**values, "x": [0.5, None, 2.0] * 9})
    pytest.importorskip("pyarrow.parquet").write_table(rows, tmp_path / "x.parquet")
    table = pv.Table.read(tmp_path / "x.parquet", kinds={"id": "identifier"})
    assert [c.dtype for c in table.schema.columns] == ["Int8", "Int64", "float64"]
    assert table.to_frame()["id"][0] == 2**60 + 1
    assert table.schema.to_frame(table.values)["small"].dtype == "Int8"


def test_a_type_that_cannot_be_made_again_is_refused_with_its_column():
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([30, N], pa.int32()), pa.array([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"column 'x' of type run_end_encoded.*cannot be read"):
        pv.Table.from_frame(pa.table({"x": runs, "y": np.arange(N) / 8}))


@pytest.mark.parametrize("text", ["timedelta64[ns]", "duration[ns][pyarrow]"])
def test_nanoseconds_stay(text):
    waits = pd.Series(np.arange(1, N + 1) * 37, dtype="timedelta64[ns]").astype(text)
    frame = pd.DataFrame({"wait": waits, "same": waits.iloc[0]})
    table = pv.Table.from_frame(frame)
    assert table.schema.to_frame(table.values).equals(frame)


DAY = datetime.date(2020, 1, 1)
OBJECTS = {
    "whole": list(range(40, 40 + N)),
    "whole and not": [i if i % 2 else i / 2 for i in range(N)],
    "decimals and floats": [Decimal(i) / 4 if i % 2 else i / 2 for i in range(N)],
    "NumPy's": [np.int64(i) if i % 2 else np.float32(i / 2) for i in range(N)],
    "dates and moments": [
        DAY + datetime.timedelta(i) if i % 2 else datetime.datetime(2020, 3, 1, i % 24)
        for i in range(N)
    ],
}


@pytest.mark.parametrize("name", OBJECTS)
def test_known_objects_stay_the_very_objects(name):
    frame = pd.DataFrame({"x": pd.Series(holed(OBJECTS[name]), dtype=object), "y": range(N)})
    table = pv.Table.from_frame(frame, kinds={"y": "integer"})
    filled = np.where(table.missing, np.nanmean(table.values, 0), table.values)
    x = table.to_frame(filled)["x"]
    assert x.dtype == object and x.notna().all()
    assert all(new is old for new, old in zip(x[~HOLES], frame["x"][~HOLES], strict=True))
    if name == "whole":
        assert {type(value) for value in x} == {int}


WHOLE = {
    "pandas": pd.DataFrame({"x": pd.array(holed(range(N)), dtype="Int64")}),
    "objects": pd.DataFrame({"x": pd.Series(holed(range(N)), dtype=object)}),
    "Arrow in pandas": pd.DataFrame({"x": pd.array(holed(range(N)), dtype="int64[pyarrow]")}),
    "polars": pl.DataFrame({"x": holed(range(N))}),
    "pyarrow": pa.table({"x": holed(range(N))}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_where_the_first_frame_had_others_take_any_number(name):
    table = pv.Table.from_frame({"x": np.arange(N) / 8}).schema.read(WHOLE[name])
    x = table.to_frame(np.where(table.missing, 2.375, table.values))["x"]
    x = x.to_pylist() if name == "pyarrow" else list(x)
    assert x == [2.375 if hole else i for i, hole in enumerate(HOLES)]


ZONES = ["America/New_York", "Etc/GMT+5", "Asia/Ho_Chi_Minh", "UTC-05:00", "Europe/Berlin"]


@pytest.mark.parametrize("zone", ZONES)
def test_times_of_any_zone_are_times(zone):
    """narwhals knows no zone whose name holds an underscore or a digit."""
    start = pd.Timestamp("2024-03-10 04:00", tz="UTC")
    moments = (start + pd.to_timedelta(np.arange(N) * 37, unit="min")).tz_convert(zone)
    frame = pd.DataFrame({"x": moments.where(~HOLES), "y": np.arange(N) / 8})
    table = pv.Table.from_frame(frame)
    assert table.schema["x"].kind == "time"
    assert table.schema.to_frame(table.values).equals(frame)
    filled = table.to_frame(np.where(table.missing, 1.25, table.values))["x"]
    assert filled.dtype == frame["x"].dtype and filled[~HOLES].equals(frame["x"][~HOLES])
    assert (filled[HOLES] == pd.Timestamp("2024-03-11 06:00", tz="UTC")).all()


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "America/Havana"])
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_days_of_a_zone_are_days_there(library, zone):
    """Also where clocks are set at midnight, which is then not there, or twice."""
    days = pd.date_range("2018-01-01", periods=400, freq="D").tz_localize(
        zone, nonexistent="shift_forward", ambiguous=np.ones(400, bool)
    )
    days = days[days.hour == 0].as_unit("us")
    frame = pd.DataFrame({"x": days, "y": np.arange(len(days)) / 8})
    arrow = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    own = {"pandas": frame, "polars": pl.from_arrow(arrow), "pyarrow": arrow}[library]
    table = pv.Table.from_frame(own)
    assert table.schema["x"].whole and (np.diff(table.values[:, 0]) >= 1).all()
    assert table.schema.to_frame(table.values).equals(own)
    new = table.schema.to_frame(table.values + np.array([0.3, 0]))
    x = pd.Series(new["x"].to_pylist() if library == "pyarrow" else list(new["x"]))
    assert (pd.to_datetime(x, utc=True).dt.tz_convert(zone) == days).all()
    other = frame.assign(x=frame["x"].dt.tz_convert("UTC"))  # the same moments
    assert np.array_equal(table.schema.read(other).values, table.values)
    said = rf"'x', row 0: expected times as .*, got datetime64(.|\n)*tz_localize\('{zone}'\)"
    with pytest.raises(ValueError, match=said):
        table.schema.read(frame.assign(x=frame["x"].dt.tz_localize(None)))


@pytest.mark.parametrize("sort", ["time", "duration"])
def test_an_hour_of_the_day_that_all_have_is_kept(sort):
    noons = pd.to_timedelta(np.arange(N) + 0.5, unit="D")
    frame = pd.DataFrame({"x": noons if sort == "duration" else noons + pd.Timestamp(DAY)})
    table = pv.Table.from_frame(frame, kinds={"x": "real" if sort == "duration" else "time"})
    assert np.array_equal(drawn(table.schema["x"], table.values + 0.3), table.values)


CENTS = pa.array([Decimal(i) / 100 for i in range(9999 - N, 9999)], pa.decimal128(4, 2))
TENS = pa.array(range(127 - N, 127), pa.int8())
NARROW = {
    "whole numbers": TENS,
    "decimals": CENTS,
    "half precision": pa.array(np.linspace(6e4, 6.5e4, N).astype("float16")),
}


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "NumPy in pandas"])
@pytest.mark.parametrize("name", NARROW)
def test_a_draw_beyond_what_a_type_holds_is_the_last_that_it_holds(name, library):
    arrow = pa.table({"x": NARROW[name], "y": np.arange(N) / 8})
    make = {
        "pandas": lambda: arrow.to_pandas(types_mapper=pd.ArrowDtype),
        "NumPy in pandas": arrow.to_pandas,
        "polars": lambda: pl.from_arrow(arrow),
        "pyarrow": lambda: arrow,
    }
    frame = make[library]()
    table = pv.Table.from_frame(frame, likelihood={"x": "Normal"})
    new = table.schema.to_frame(np.where([True, False], 1e6, table.values))
    x = new["x"].to_pylist() if library == "pyarrow" else list(new["x"])
    free = name == "decimals" and library == "NumPy in pandas"  # objects, of any size
    most = {"whole numbers": 127, "decimals": Decimal("99.99"), "half precision": 65504}[name]
    assert {*x} == {Decimal(10**6) if free else most}
