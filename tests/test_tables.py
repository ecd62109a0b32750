"""Tables: what columns are taken for, round trips, and an answer to each bad input."""

import datetime
import tomllib
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from scipy.stats import poisson

import pyro_vae as pv
from pyro_vae.core.toml import write_toml
from pyro_vae.data.tables import Schema
from pyro_vae.data.tables.numbers import by_values

FILES = {
    "credit_data.csv": {"Home": "categorical", "Price": "positive", "Debt": "hurdle"},
    "yrbss.csv": {"gender": "binary", "race": "categorical", "height": "real"},
    "pbc.csv": {"id": "identifier", "bili": "positive", "trt": "binary", "stage": "categorical"},
    "nlsyV.csv": {"momage": "integer", "income": "hurdle", "first": "binary"},
    "penguins.csv": {"species": "categorical", "bill_length_mm": "real", "sex": "binary"},
    "sleepstudy.csv": {"Subject": "integer"},
}


def mixed(n=60, seed=0):
    """A frame with a column of most types, and a hole in each fifth row."""
    rng = np.random.default_rng(seed)
    hole = np.arange(n) % 5 == 3
    words = np.where(rng.random(n) < 0.5, "yes", "no").astype(object)
    start = datetime.date(2020, 1, 1)
    dates = [start + datetime.timedelta(int(d)) for d in rng.integers(0, 900, n)]
    moments = pd.to_datetime(1.6e9 + 1e7 * rng.random(n), unit="s")
    frame = pd.DataFrame(
        {
            "real": rng.normal(5, 2, n),
            "single": rng.normal(size=n).astype("float32"),
            "whole": rng.integers(20, 90, n),
            "small": rng.integers(20, 90, n).astype("uint8"),
            "holed": np.where(hole, np.nan, rng.integers(20, 90, n)),
            "nullable": pd.array(np.where(hole, None, rng.integers(20, 90, n)), dtype="Int16"),
            "flag": rng.random(n) < 0.3,
            "maybe": pd.array(np.where(hole, None, rng.random(n) < 0.3), dtype="boolean"),
            "word": words,
            "object": pd.Series(np.where(hole, None, words), dtype=object),
            "string": pd.Series(np.where(hole, None, words), dtype="string"),
            "category": pd.Categorical(np.where(hole, None, words), ["no", "yes", "never"]),
            "grade": pd.Categorical(rng.integers(1, 4, n), [3, 2, 1], ordered=True),
            "day": pd.Series(np.where(hole, None, dates), dtype=object),
            "moment": pd.Series(moments).astype("datetime64[ns]").where(~hole),
            "zoned": pd.Series(moments).dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata"),
            "iso": [d.isoformat() for d in dates],
            "price": np.where(
                hole, None, [Decimal(int(d)).scaleb(-2) for d in rng.integers(9**5, size=n)]
            ),
            "wait": pd.to_timedelta(rng.integers(1, 10**6, n), unit="s"),
            "code": rng.integers(1, 6, n),
            "same": 7,
            "always": "a",
            "name": [f"n{i}" for i in range(n)],
        }
    )
    return frame.set_axis([f"row{i}" for i in range(n)])


def equal(a, b):
    """Frames of one library are equal: names, types, order, index, cells."""
    assert type(a) is type(b)
    if isinstance(a, pd.DataFrame):
        assert_frame_equal(a, b, check_exact=True)
    elif type(a).__module__.startswith("polars"):
        pytest.importorskip("polars.testing").assert_frame_equal(a, b)
    else:
        assert a.schema.equals(b.schema) and a.equals(b)


def in_library(frame, library):
    """The frame of pandas in another library, without what it cannot hold."""
    if library == "pandas":
        return frame
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    arrow = pa.Table.from_pandas(frame.astype({"grade": object}), preserve_index=False)
    return arrow.replace_schema_metadata() if library == "pyarrow" else module.from_arrow(arrow)


# What columns are taken for.


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_kinds_of_real_tables(data_root, name):
    table = pv.Table.read(data_root / "tables" / name)
    assert {c: table.schema[c].kind for c in FILES[name]} == FILES[name]
    for column in table.schema.columns:
        assert column.why
        assert bool(column.line) == column.modelled
        assert column.name in repr(table) and column.line in repr(table)


RARE = {
    "Poisson": lambda rng: rng.poisson(0.3, 2000),
    "a few ones": lambda rng: rng.poisson(0.1, 5000),
    "geometric": lambda rng: rng.geometric(0.7, 2000) - 1,
    "negative binomial": lambda rng: rng.negative_binomial(0.1, 0.2, 2000),
    "many zeros": lambda rng: np.where(rng.random(200) < 0.8, 0, rng.poisson(4, 200)),
}


@pytest.mark.parametrize("name", RARE)
def test_rare_counts_are_counts(name):
    """A density without bound at the value that most have is no better fit than a probability."""
    kind, *_ = by_values(RARE[name](np.random.default_rng(0)).astype(float), whole=True)
    assert kind == "count"


def test_a_zero_has_no_sign():
    table = pv.Table.from_frame({"x": [-0.0, 1.0, 2.0, 3.5] * 20, "y": np.arange(80) / -8})
    assert table.schema["x"].extent == "0.0, 1.0, 2.0, 3.5"
    assert table.schema["y"].extent == "-9.875 to 0 by 0.125"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_round_trip_of_real_tables(data_root, name):
    path = data_root / "tables" / name
    table, frame = pv.Table.read(path), pd.read_csv(path)
    equal(table.to_frame(table.values), frame)
    left_out = [c.name for c in table.schema.columns if c.kind == "identifier"]
    equal(table.schema.to_frame(table.values).drop(columns=left_out), frame.drop(columns=left_out))
    assert np.array_equal(np.isnan(table.values), frame.drop(columns=left_out).isna().to_numpy())


FAMILIES = {"cat": "Categorical", "ordinal": "OrderedLogistic", "count": "NegativeBinomial"}


@pytest.mark.parametrize("name", ["Adult", "Breast", "Wine"])
def test_tables_of_declared_types(data_root, name):
    """The sets of the HI-VAE study, by the types and numbers of classes that it gives."""
    types = pd.read_csv(data_root / "tabular" / name / "data_types.csv")
    names = [f"c{i}" for i in range(len(types))]
    frame = pd.read_csv(data_root / "tabular" / name / "data.csv", header=None, names=names)
    lines = {n: FAMILIES[t] for n, t in zip(names, types["type"], strict=True) if t in FAMILIES}
    table = pv.Table.from_frame(frame, likelihood=lines, na_values=[])
    equal(table.to_frame(table.values), frame)
    equal(table.schema.to_frame(table.values), frame)
    for column, kind, classes in zip(names, types["type"], types["nclass"], strict=True):
        if kind in ("cat", "ordinal"):
            seen = frame[column].nunique()  # one of Breast's ordinals lacks a level
            assert seen <= classes and len(table.schema[column].levels) == seen
            assert table.schema[column].line == f"{FAMILIES[kind]}(categories={seen})"
    assert np.array_equal(table.missing, frame.isna())


SAMPLES = {
    "Normal": lambda rng: rng.normal(3, 2, 400),
    "StudentT(df=4)": lambda rng: rng.standard_t(2, 400),
    "LogNormal": lambda rng: rng.lognormal(3, 1, 400),
    "Gamma": lambda rng: rng.gamma(0.5, 3, 400),
    "Beta": lambda rng: rng.beta(0.5, 0.7, 400),
    "Poisson": lambda rng: rng.permutation(poisson.ppf((np.arange(45) + 0.5) / 45, 6)),
    "NegativeBinomial": lambda rng: rng.negative_binomial(1, 0.05, 400),
    "Hurdle(LogNormal)": lambda rng: rng.lognormal(3, 1, 400) * (rng.random(400) < 0.6),
    "Hurdle(Normal, at=40.0)": lambda rng: np.where(
        rng.random(400) < 0.5, 40, rng.normal(42, 9, 400).round()
    ),
    "Hurdle(Normal, at=9.0)": lambda rng: np.minimum(rng.normal(8, 2, 400), 9),
    "Bernoulli": lambda rng: rng.integers(0, 2, 400),
    "Categorical(categories=5)": lambda rng: rng.integers(1, 6, 400),
}


@pytest.mark.slow
@pytest.mark.parametrize("line", SAMPLES)
def test_the_family_that_drew_a_column_is_found(line):
    """The families lie far apart: ten seeds give one answer."""
    for seed in range(10):
        x = SAMPLES[line](np.random.default_rng(seed))
        assert pv.Table.from_frame({"x": x}).likelihood == {"x": line}


def test_a_code_is_no_quantity_and_said_so():
    column = pv.Table.from_frame({"x": [1, 2, 3, 4, 5] * 5}).schema["x"]
    assert column.kind == "categorical" and "codes" in column.why
    column = pv.Table.from_frame({"x": [1, 2, 3, 4, 5]}).schema["x"]
    assert "read as a quantity" in column.why


HEAPS = {  # whether values are heaped more than the step by which they lie apart says
    "all alike": (lambda rng: rng.normal(40, 9, 900).round(), False),
    "by thousands": (lambda rng: rng.lognormal(11, 0.2, 900).round(-3), False),
    "at round ones": (lambda rng: _heap(rng.lognormal(6, 0.4, 900).round(), rng, 100), True),
    "of cents": (lambda rng: _heap(rng.lognormal(1, 0.4, 900).round(2), rng, 0.5), True),
    "beside zeros": (
        lambda rng: _heap(rng.lognormal(6, 0.4, 900).round(), rng, 100) * (rng.random(900) < 0.6),
        True,
    ),
    "each another": (lambda rng: rng.normal(0, 1e4, 900).round(2), False),
}


def _heap(x, rng, at):
    return np.where(rng.random(900) < 0.9, (x / at).round() * at, x)


@pytest.mark.parametrize("name", HEAPS)
def test_heaped_numbers_are_said_to_be(name):
    """A density spreads them, so what is drawn has none of the heaps: what has them is named."""
    values, heaped = HEAPS[name]
    for seed in range(5):
        frame = {"x": values(np.random.default_rng(seed))}
        table = pv.Table.from_frame(frame)
        assert ("heaped at" in table.schema["x"].why) == heaped
    if heaped:
        other = table.with_likelihood({"x": "OrderedLogistic"})
        assert "'OrderedLogistic'" in table.schema["x"].why
        assert other.to_frame(other.values)["x"].tolist() == frame["x"].tolist()


def test_lines_override_and_come_back():
    frame = mixed()
    lines = {
        "real": "StudentT",
        "whole": "Poisson",
        "code": "OrderedLogistic",
        "word": "Categorical",
    }
    table = pv.Table.from_frame(frame, likelihood=lines)
    kinds = {name: table.schema[name].kind for name in lines}
    assert kinds == {
        "real": "heavy-tailed",
        "whole": "count",
        "code": "ordinal",
        "word": "categorical",
    }
    assert table.likelihood["code"] == "OrderedLogistic(categories=5)"
    assert table.likelihood["word"] == "Categorical(categories=2)"
    again = pv.Table.from_frame(frame, likelihood=table.likelihood)
    assert again.likelihood == table.likelihood
    assert np.array_equal(again.values, table.values, equal_nan=True)


def test_another_likelihood_keeps_what_was_decided_of_more_rows():
    """A part that lacks a level, with a declared kind, date and event, is of the same schema."""
    n = 40
    frame = pd.DataFrame(
        {
            "pet": ["cat"] * 20 + ["dog"] * 19 + ["cow"],
            "code": [1, 2, 3, 4] * 10,
            "when": ["03/01/2020", "14/02/2020"] * 20,
            "time": np.arange(1.0, n + 1),
            "seen": [0, 1] * 20,
            "x": np.linspace(1, 2, n),
        }
    )
    said = {"dates": {"when": "%d/%m/%Y"}, "censored": {"time": "seen"}, "kinds": {"x": "real"}}
    whole = pv.Table.from_frame(frame, **said)
    lines = {"pet": "Categorical", "x": "LogNormal", "time": "Censored(LogNormal)"}
    part = whole[:30].with_likelihood(lines)
    assert part.likelihood == {
        **whole.likelihood,
        "pet": "Categorical(categories=3)",
        "x": "LogNormal",
        "time": "Censored(LogNormal)",
    }
    assert part.schema["pet"].levels == ("cat", "cow", "dog")
    assert part.schema.cells == whole.schema.cells
    assert np.array_equal(part.values, whole.values[:30])
    assert part.with_likelihood({"code": "OrderedLogistic"}).schema["code"].kind == "ordinal"
    assert part.with_likelihood({"code": "Normal"}).values[:4, 1].tolist() == [1, 2, 3, 4]
    assert whole.with_likelihood({}) is whole
    with pytest.raises(ValueError, match="column 'pet': the order of its levels is not known"):
        part.with_likelihood({"pet": "OrderedLogistic"})
    with pytest.raises(ValueError, match="column 'pet': it has 3 levels"):
        part.with_likelihood({"pet": "Bernoulli"})
    with pytest.raises(ValueError, match="no column 'pat'; did you mean pet"):
        part.with_likelihood({"pat": "Categorical"})


def test_the_order_of_an_ordinal_column_is_said():
    words = ["low", "high", "middle"] * 4
    table = pv.Table.from_frame({"x": words}, kinds={"x": ["low", "middle", "high"]})
    assert table.schema["x"].kind == "ordinal"
    assert table.values[:3, 0].tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match="the order of its levels is not known"):
        pv.Table.from_frame({"x": words}, kinds={"x": "ordinal"})


def test_censored_times_have_a_minus(data_root):
    frame = pd.read_csv(data_root / "tables" / "pbc.csv")
    frame["dead"] = frame.pop("status") == 2
    table = pv.Table.from_frame(frame, censored={"time": "dead"})
    assert "time" in table.schema.cells and "dead" not in table.schema.cells
    assert np.array_equal(table.values[:, 0], frame["time"] * np.where(frame["dead"], 1, -1))
    assert table.likelihood["time"] == "Censored(Weibull)" and "dead" not in table.likelihood
    equal(table.to_frame(table.values), frame)
    equal(table.schema.to_frame(table.values).drop(columns="id"), frame.drop(columns="id"))


# Round trips.


@pytest.mark.slow
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_round_trip_of_each_type(library):
    frame = in_library(mixed(), library)
    table = pv.Table.from_frame(frame)
    equal(table.to_frame(table.values), frame)
    equal(table.to_frame(), frame)
    assert table.schema["same"].kind == table.schema["always"].kind == "constant"
    assert table.schema["name"].kind == "identifier"


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_new_rows_have_the_types_of_the_frame(library):
    frame = in_library(mixed(), library)
    table = pv.Table.from_frame(frame)
    whole = table.values[~np.isnan(table.values).any(1)]
    rows = Schema.from_dict(table.schema.as_dict()).to_frame(np.repeat(whole, 2, axis=0))
    assert len(rows) == 2 * len(whole)
    again = table.schema.read(rows)
    assert np.allclose(again.values, np.repeat(whole, 2, axis=0), atol=1e-9, rtol=0)
    if library == "pandas":
        kept = [c for c in frame if c != "name"]
        assert rows[kept].dtypes.equals(frame[kept].dtypes)
        assert isinstance(rows.index, pd.RangeIndex) and rows["name"].isna().all()
    elif library == "polars":
        assert rows.schema == frame.schema
    else:
        assert rows.schema.equals(frame.schema)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_filled_cells_are_new_and_the_others_exactly_as_they_were(library):
    frame = in_library(mixed(), library)
    table = pv.Table.from_frame(frame)
    filled = np.where(table.missing, np.nanmedian(table.values, 0).round(), table.values)
    rows = table.to_frame(filled)
    again = table.schema.read(rows)
    assert not again.missing.any()
    assert np.allclose(again.values, filled, atol=1e-9, rtol=0)
    if library == "pandas":
        assert_frame_equal(rows.where(frame.notna()), frame.where(frame.notna()), check_dtype=False)
        assert rows.index.equals(frame.index) and rows.dtypes.equals(frame.dtypes)
        assert rows["name"].equals(frame["name"])


def test_whole_numbers_are_rounded_and_not_heaped_at_the_ends_of_what_was_seen():
    table = pv.Table.from_frame({"age": list(range(20, 90))})
    rows = table.to_frame([[19.2], [20.4], [20.6], [300.0], [-3.0]])
    assert rows["age"].tolist() == [19, 20, 21, 300, 0] and rows["age"].dtype == "int64"
    small = pd.DataFrame({"level": np.arange(20, 90, dtype=np.int8)})
    assert pv.Table.from_frame(small).to_frame([[300.0]])["level"].tolist() == [127]


def test_holes_in_whole_numbers_are_nullable():
    table = pv.Table.from_frame({"age": list(range(20, 90)), "flag": [True, False] * 35})
    rows = table.to_frame([[np.nan, 1.0], [30.0, np.nan]])
    assert rows.dtypes.astype(str).tolist() == ["Int64", "boolean"]
    assert rows["age"].isna().tolist() == [True, False]


def test_another_frame_is_read_by_name_in_any_order_and_library():
    frame = mixed()
    table = pv.Table.from_frame(frame)
    turned = frame[frame.columns[::-1]]
    read = table.schema.read(turned)
    assert np.array_equal(read.values, table.values, equal_nan=True)
    equal(read.to_frame(read.values), turned)


def test_a_frame_with_holes_where_there_were_none_is_read():
    table = pv.Table.from_frame({"age": list(range(20, 90)), "pet": ["cat", "dog"] * 35})
    read = table.schema.read(pd.DataFrame({"age": [30.0, None], "pet": [None, None]}))
    assert np.array_equal(read.values, [[30, np.nan], [np.nan, np.nan]], equal_nan=True)
    assert read.to_frame([[30, 1], [40, 0]])["pet"].tolist() == ["dog", "cat"]


def test_masked_arrays_are_missing_cells():
    x = np.ma.array(np.arange(30.0), mask=np.arange(30) % 4 == 0)
    table = pv.Table.from_frame({"x": x, "y": np.arange(30.0) ** 2})
    assert np.array_equal(table.missing[:, 0], x.mask)


def test_a_schema_is_plain_values_that_toml_holds(tmp_path):
    schema = pv.Table.from_frame(mixed()).schema
    write_toml(tmp_path / "schema.toml", schema.as_dict(), "a schema")
    read = tomllib.loads((tmp_path / "schema.toml").read_text())
    assert Schema.from_dict(read) == schema


def test_rows_and_parts():
    frame = mixed()
    table = pv.Table.from_frame(frame)
    assert len(table[:7]) == 7 and len(table[3]) == 1
    mask = np.arange(60) % 2 == 0
    equal(table[mask].to_frame(), frame[mask])
    train, test = table.split(0.8, seed=0)
    assert (len(train), len(test)) == (48, 12) and train.schema is table.schema
    assert set(train.to_frame().index) | set(test.to_frame().index) == set(frame.index)
    again, other = table.split(0.8, seed=0)[0], table.split(0.8, seed=1)[0]
    equal(again.to_frame(), train.to_frame())
    assert not other.to_frame().index.equals(train.to_frame().index)


WORDS = st.sampled_from(["a", "b", "ä ö", "", "1", "None", "nan"])
COLUMNS = {
    "float64": st.floats(-1e6, 1e6),
    "float32": st.floats(-1e6, 1e6, width=32),
    "int64": st.integers(-(2**50), 2**50),
    "Int32": st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
    "Float64": st.one_of(st.none(), st.floats(-1e6, 1e6)),
    "boolean": st.one_of(st.none(), st.booleans()),
    "str": st.one_of(st.none(), WORDS),
    "object": st.one_of(st.none(), WORDS),
    "string": st.one_of(st.none(), WORDS),
    "category": st.one_of(st.none(), WORDS),
    "datetime64[ns]": st.one_of(
        st.none(), st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))
    ),
    "datetime64[s, UTC]": st.datetimes(
        datetime.datetime(1000, 1, 1),
        datetime.datetime(9000, 1, 1),
        timezones=st.just(datetime.UTC),
    ),
}


@st.composite
def frames(draw):
    n = draw(st.integers(1, 12))
    columns = {}
    for i, dtype in enumerate(
        draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5))
    ):
        cells = draw(st.lists(COLUMNS[dtype], min_size=n, max_size=n))
        columns[f"{dtype}{i}"] = pd.Series(cells, dtype=dtype)
    return pd.DataFrame(columns)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(frames())
def test_any_frame_comes_back_or_is_refused_with_its_column(frame):
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "column .* may stand for missing cells")
            table = pv.Table.from_frame(frame)
    except ValueError as problem:
        assert "column" in str(problem)
        return
    equal(table.to_frame(table.values), frame)
    new = table.schema.to_frame(table.values)
    again = table.schema.read(new)
    assert np.allclose(again.values, table.values, equal_nan=True, atol=1e-9, rtol=0)
    assert Schema.from_dict(table.schema.as_dict()) == table.schema


def test_one_list_of_missing_values_is_of_all_columns_whatever_their_types():
    frame = pd.DataFrame({"a": np.arange(20) / 7})
    assert not pv.Table.from_frame(frame, na_values=["?"]).missing.any()
    with pytest.raises(ValueError, match="column 'a': na_values are '\\?', and its cells are"):
        pv.Table.from_frame(frame, na_values={"a": ["?"]})
    two = frame.assign(b=frame["a"])
    with pytest.raises(ValueError, match="na_values are '\\?'"):
        pv.Table.from_frame(two, na_values={"a": ["?"], "b": ["?"]})


@pytest.mark.parametrize("unit", [" °C", "°F", " mg/L", " km/h", " m²", " µg/dl", " kg"])
def test_numbers_beside_one_unit_are_numbers(unit):
    frame = pd.DataFrame({"a": [f"{v:.1f}{unit}" for v in np.linspace(3, 90, 40)]})
    table = pv.Table.from_frame(frame)
    assert np.allclose(table.values[:, 0], np.linspace(3, 90, 40).round(1))
    assert table.to_frame(table.values).equals(frame)
    assert table.to_frame(table.values[:2] + 1)["a"].tolist() == [f"4.0{unit}", f"6.2{unit}"]
