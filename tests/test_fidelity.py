"""Synthetic tables against real ones: figures known by hand, copies, shuffled columns."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import pyro_vae as pv
from pyro_vae.evaluate.tables.coding import MISSING, encode_tables
from pyro_vae.evaluate.tables.learners import area, explained, predictions, two_sample
from pyro_vae.evaluate.tables.privacy import closest_records
from pyro_vae.evaluate.tables.similarity import similarity

NA = math.nan


def mixed(n, seed):
    """A quantity and a category of its sign, a second quantity with holes, and a date."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    b = np.where(rng.random(n) < 0.2, NA, a + 0.5 * rng.normal(size=n))
    sign = np.where(a + 0.3 * rng.normal(size=n) > 0, "up", "down")
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    return pd.DataFrame({"a": a, "b": b, "sign": sign, "day": days})


def coded(**tables):
    return encode_tables(tables, next(iter(tables)))


def shuffled(table, seed):
    """Independent columns with the same margins."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({k: v.to_numpy()[rng.permutation(len(v))] for k, v in table.items()})


def compare(real, other):
    tables = coded(real=pd.DataFrame(real), other=pd.DataFrame(other))
    return similarity(*tables.values(), np.random.default_rng(0))[0]


# Definitions, by hand.


@pytest.mark.parametrize(
    ("real", "other", "score"),
    [
        ([1.0, 2, 3, 4], [1.0, 2, 3, 4], 1),
        ([1.0, 2, 3, 4], [3.0, 4, 5, 6], 0.5),  # F(2) = 1/2, G(2) = 0
        ([1.0, 2, 3, 4], [9.0, 9], 0),
        ([1.0, NA, 2, NA], [1.0, 1, 1, 2], 0.75),  # of the cells that are there
        (["x", "x", "y", "z"], ["x", "y", "y", "y"], 0.5),
        (["x", None, "y", None], ["x", "x", "x", "y"], 0.75),
        ([True, True, False, False], [True, True, True, False], 0.75),
        ([1.0, NA], [NA, NA], 0),
        ([NA, NA], [NA, NA], 1),
    ],
)
def test_column_shapes(real, other, score):
    assert compare({"c": real}, {"c": other}).shapes == pytest.approx([score])


def test_pair_trends_of_quantities_are_differences_of_correlations():
    found = compare({"a": [1.0, 2, 3], "b": [1.0, 2, 3]}, {"a": [1.0, 2, 3], "b": [3.0, 2, 1]})
    assert found.trends == pytest.approx([0])  # 1 and -1
    found = compare({"a": [1.0, 2, 3], "b": [1.0, 2, 3]}, {"a": [1.0, 2, 3], "b": [5.0, 5, 5]})
    assert found.trends == pytest.approx([0.5])  # a constant has correlation 0


def test_correlations_are_of_the_rows_that_have_both():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50)) + 100
    holes = {"a": np.where(rng.random(50) < 0.3, NA, a), "b": np.where(rng.random(50) < 0.3, NA, b)}
    r = pd.DataFrame(holes).corr().loc["a", "b"]
    assert compare(holes, {"a": a, "b": -a}).trends == pytest.approx([1 - (r + 1) / 2])


def test_pair_trends_of_categories_are_of_the_contingency_table():
    real = {"a": ["x", "x", "y", "y"], "b": ["u", "u", "v", "v"]}
    other = {"a": ["x", "x", "y", "y"], "b": ["u", "v", "u", "v"]}
    found = compare(real, other)
    assert found.trends == pytest.approx([0.5])
    assert found.information == pytest.approx(0)  # log 2 nats, and none
    assert compare(real, real).information == pytest.approx(1)
    found = compare(real, {"a": ["x", "x", "y", "y"], "b": ["u", "u", None, None]})
    assert found.trends == pytest.approx([0.5])  # missing is a level of its own


def test_pair_trends_of_mixed_columns_take_deciles_of_the_reference():
    real = {"a": np.arange(100.0), "b": ["x", "y"] * 50}
    assert coded(real=pd.DataFrame(real))["real"].bins[:, 0].tolist() == [
        1 + i // 10 for i in range(100)
    ]
    within = compare(real, {"a": np.arange(100.0) + 0.05, "b": ["x", "y"] * 50})
    assert within.trends == pytest.approx([1])
    beyond = compare(real, {"a": np.arange(100.0) + 10, "b": ["x", "y"] * 50})
    assert beyond.trends == pytest.approx([0.9])  # only the top decile has too many


def test_missing_cells():
    found = compare({"a": [1.0, NA, 2, NA], "b": [1.0, 2, 3, 4]}, {"a": [1.0] * 4, "b": [1.0] * 4})
    assert found.missing == pytest.approx([0.5, 1])


@pytest.mark.slow
def test_the_area_under_the_curve_and_its_error():
    positive, score = np.array([True, True, False, False]), np.array([0.9, 0.4, 0.4, 0.1])
    value, influence = area(positive, score)
    assert value == pytest.approx((2 + 1.5) / 4)  # a tie counts a half
    assert influence.sum() == pytest.approx(0)
    rng = np.random.default_rng(0)
    areas, errors = [], []
    for _ in range(400):
        positive = np.repeat([True, False], [60, 90])
        value, influence = area(positive, rng.normal(size=150) + positive)
        areas.append(value)
        errors.append(math.sqrt((influence**2).sum()))
    truth = 0.760250  # Phi(1 / sqrt 2)
    z = (np.mean(areas) - truth) / (np.std(areas) / 20)
    assert abs(z) < 4
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=4 / math.sqrt(800))


def test_the_variance_explained_and_its_error():
    assert explained(np.array([0.0, 2.0]), np.array([0.0, 1.0]))[0] == pytest.approx(0.5)
    assert math.isnan(explained(np.ones(3), np.zeros(3))[0])
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        x, e = rng.normal(size=(2, 200))
        value, influence = explained(x + e, x)
        found.append((value, math.sqrt((influence**2).sum())))
    values, errors = np.transpose(found)
    assert np.mean(errors) == pytest.approx(values.std(), rel=4 / math.sqrt(800))


# What the figures are for.


@pytest.mark.slow
def test_shuffled_columns_pass_the_linear_test_and_not_the_boosted_one():
    tables = coded(real=mixed(1500, 0), other=shuffled(mixed(1500, 1), 2), again=mixed(1500, 3))
    z = {}
    for kind in ("linear", "boosted"):
        for name in ("other", "again"):
            score, error = two_sample(tables["real"], tables[name], kind, 0)
            z[kind, name] = (1 - score) / error
    assert z["boosted", "other"] > 20
    assert max(z["linear", "other"], z["linear", "again"], z["boosted", "again"]) < 4


def test_copies_are_detected():
    n = 400
    test, train, fresh = mixed(n, 0), mixed(2 * n, 1), mixed(n, 2)
    for other, copied in ((fresh, False), (train.sample(n, random_state=0), True)):
        tables = coded(test=test, synthetic=other, train=train)
        share, low = closest_records(*tables.values(), np.random.default_rng(0))
        value, error, expected, _ = share
        assert expected == pytest.approx(2 / 3)  # exact, as there are twice as many
        z = (value - expected) / max(error, math.sqrt(2 / 9 / n))
        assert (z > 10) if copied else (abs(z) < 4)
        assert (low[0] < 1e-3) == copied and low[2] > 0.005


@pytest.mark.parametrize("beside", ["test", "train"])
def test_rows_that_share_a_condition_are_no_copies_and_are_told_apart(beside):
    """Columns that were given row by row say nothing of the model that drew the others."""
    rng, tables = np.random.default_rng(0), {}
    for name in ("test", "train", "synthetic"):
        own = rng.normal(size=(200, 4))
        given = tables[beside][list("abcd")] if name == "synthetic" else own
        tables[name] = pd.DataFrame(np.asarray(given), columns=list("abcd"))
        tables[name]["y"] = tables[name]["a"] + rng.normal(size=200) + (name == "synthetic")
    tables = coded(**tables)
    given, rows = tables["synthetic"].given_by(tables[beside])
    assert given.tolist() == [True] * 4 + [False] and (rows == np.arange(200)).all()
    assert tables["train"].given_by(tables["train"])[1] is None  # a copy
    tables["synthetic"] = replace(
        tables["synthetic"], beside=tables["synthetic"].given_by(tables["test"])[1]
    )
    parts = [tables[name] for name in ("test", "synthetic", "train")]
    (share, error, expected, _), _ = closest_records(*parts, rng)
    assert abs(share - expected) < 4 * error  # .28 and .75 where it is closest to its own
    score, error = two_sample(*parts[:2], "boosted", 0)
    assert score < 1 - 4 * error  # 1 where a tree has seen its twin


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numbers", "categories"])
def test_the_error_of_the_closest_records_is_of_the_records(kind):
    """Of few records each is the closest of many rows, and of two levels two of nearly all."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        draw = rng.normal if kind == "numbers" else lambda size: rng.choice(["x", "y"], size)
        sizes = {"test": 20, "synthetic": 500, "train": 40}
        tables = coded(**{k: pd.DataFrame({"c": draw(size=n)}) for k, n in sizes.items()})
        (value, error, expected, _), _ = closest_records(*tables.values(), rng)
        found.append((value - expected) / error)
    assert abs(np.std(found) - 1) < 4 / math.sqrt(120)


@pytest.mark.slow
def test_ties_are_broken_by_chance():
    """Of categories alone, most rows have many closest records at distance 0."""
    rng = np.random.default_rng(0)
    tables = coded(
        **{k: pd.DataFrame({"c": rng.choice(["x", "y"], n)}) for k, n in
           {"test": 100, "synthetic": 2000, "train": 300}.items()}
    )  # fmt: skip
    shares = [closest_records(*tables.values(), np.random.default_rng(i))[0][0] for i in range(60)]
    z = (np.mean(shares) - 0.75) / (np.std(shares) / math.sqrt(60))
    assert abs(z) < 4


@pytest.mark.slow
def test_predictions():
    test, train = mixed(600, 0), mixed(600, 1)
    tables = coded(test=test, train=train, shuffled=shuffled(train, 2))
    good, _ = predictions(tables["test"], tables["train"], [1, 2], 0)
    bad, influence = predictions(tables["test"], tables["shuffled"], [1, 2], 0)
    assert good[0] > 0.65 and good[1] > 0.9  # 0.8, and 0.97, are the best possible
    assert bad[0] < 0.1
    assert abs(bad[1] - 0.5) < 4 * math.sqrt((influence[1] ** 2).sum()) + 0.1
    assert np.all(influence[0, test["b"].isna()] == 0)  # rows without the target do not count


def test_targets_that_cannot_be_learned():
    test = pd.DataFrame({"c": ["x", "y"] * 20, "one": ["u"] * 40, "n": np.arange(40.0)})
    train = pd.DataFrame({"c": ["x"] * 40, "one": ["u"] * 40, "n": [NA] * 40})
    tables = coded(test=test, train=train)
    scores, _ = predictions(tables["test"], tables["train"], [0, 1, 2], 0)
    assert scores[0] == 0.5 and math.isnan(scores[1]) and scores[2] < 0


# The whole.


@pytest.fixture(scope="module")
def found():
    test, train = mixed(300, 0), mixed(500, 1)
    result = pv.fidelity(test, shuffled(train, 2), train, target="sign")
    return result


@pytest.mark.slow
def test_the_table_has_the_figures_of_real_rows_beside(found):
    assert list(found.table) == ["value", "standard_error", "real", "real_standard_error"]
    errors = found.table[["standard_error", "real_standard_error"]]
    assert np.isfinite(errors.to_numpy()).all()
    assert found.table.loc["prediction", "real"] > 0.9
    assert found.columns["kind"].tolist() == ["quantity", "quantity", "category", "quantity"]
    assert found.columns["prediction"].notna().tolist() == [False, False, True, False]
    assert found.columns["shape"].mean() == pytest.approx(found.table.loc["column shapes", "value"])
    assert found.pairs["trend"].mean() == pytest.approx(found.table.loc["pair trends", "value"])
    assert found.pairs.index.tolist()[:2] == [("a", "b"), ("a", "sign")]
    assert "below those of real rows" in found.verdict and "copies" not in found.verdict


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures(found):
    test, train = mixed(300, 0), mixed(500, 1)
    again = pv.fidelity(test, shuffled(train, 2), train, target="sign")
    pd.testing.assert_frame_equal(again.table, found.table)


@pytest.mark.slow
def test_errors_of_the_means_are_those_of_new_tables():
    """The bootstrap's standard error against the spread over fresh tables."""
    means, errors = [], []
    for i in range(30):
        tables = coded(real=mixed(200, 2 * i), other=shuffled(mixed(200, 2 * i + 1), i))
        shared, error = similarity(*tables.values(), np.random.default_rng(i))
        means.append(shared.means)
        errors.append(error)
    ratio = np.mean(errors, 0)[:2] / np.std(means, 0)[:2]
    assert np.all((ratio > 0.5) & (ratio < 2))  # of statistics that are not smooth at their best


@pytest.mark.slow
def test_frames_of_other_libraries():
    arrow = pytest.importorskip("pyarrow")
    table = mixed(40, 0)
    encoded = coded(a=table, b=arrow.Table.from_pandas(table).to_pandas())
    assert (encoded["a"].codes == encoded["b"].codes).all()
    found = pv.fidelity(arrow.Table.from_pandas(table), mixed(40, 1), mixed(40, 2), target="sign")
    assert len(found.columns) == 4


def test_a_table_is_its_frame():
    frame = mixed(40, 0)
    encoded = coded(a=pv.Table.from_frame(frame), b=frame)
    assert (encoded["a"].codes == encoded["b"].codes).all()


def test_codes_mean_the_same_in_all_tables():
    tables = coded(
        a=pd.DataFrame({"c": pd.Categorical(["x", None, "y"])}),
        b=pd.DataFrame({"c": np.array(["y", "new", None], object)}),
    )
    assert tables["a"].codes[:, 0].tolist() == [0, MISSING, 1]
    assert tables["b"].codes[:, 0].tolist() == [1, 2, MISSING]


DAYS = pd.date_range("2024-01-01", periods=30, freq="7h")
IN_TIME = {
    "a zone": DAYS.tz_localize("Asia/Tokyo"),
    "milliseconds": DAYS.as_unit("ms"),
    "centuries ago": pd.Series(DAYS).astype("datetime64[s]") - pd.Timedelta(300_000, "D"),
    "objects": pd.Series(list(DAYS.tz_localize("UTC")), dtype=object),
    "words": pd.Series(DAYS.astype(str), dtype=object),
    "durations": DAYS - DAYS[7],
    "duration objects": pd.Series((DAYS - DAYS[7]).to_pytimedelta(), dtype=object),
}


@pytest.mark.parametrize("name", IN_TIME)
def test_times_and_durations_are_quantities_in_days(name):
    column = pd.Series(IN_TIME[name], name="t")
    tables = coded(a=column.to_frame(), b=column.where(column.index != 3).to_frame())
    assert tables["a"].numeric.all()
    assert np.allclose(np.diff(tables["a"].values[:, 0]), 7 / 24)
    assert np.flatnonzero(tables["b"].codes[:, 0] == MISSING).tolist() == [3]


def _words(write, seed):
    values = np.random.default_rng(seed).uniform(5, 3000, 30).round(2)
    return values, pd.DataFrame({"a": [write(v) for v in values]}, dtype=object)


WRITTEN = {
    "amounts": lambda v: f"${v:,.2f}",
    "percentages": lambda v: f"{v:.2f}%",
    "words": lambda v: f"{v:.2f}",
    "beside a question mark": lambda v: "?" if v < 500 else f"{v:.2f}",
    "numbers beside it": lambda v: "?" if v < 500 else v,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_words_that_are_numbers_are_quantities(name):
    own = [_words(WRITTEN[name], seed) for seed in (0, 1)]
    coded = encode_tables({"one": own[0][1], "other": own[1][1]}, "one")
    for (values, _), table in zip(own, coded.values(), strict=True):
        if "beside" in name:
            values = np.where(values < 500, np.nan, values)
        assert table.numeric.all()
        assert np.array_equal(table.values[:, 0], values, equal_nan=True)


def test_words_that_are_numbers_are_written_alike_in_all_tables():
    tables = {"one": pd.DataFrame({"a": ["$1", "$2"]}), "other": pd.DataFrame({"a": ["1 EUR"]})}
    with pytest.raises(ValueError, match=r"other: column 'a', row 0: '1 EUR' is no number of the"):
        encode_tables(tables, "one")
    levels = pd.DataFrame({"a": ["01", "02", "02"]})  # codes
    assert not encode_tables({"one": levels, "other": levels}, "one")["one"].numeric.any()


def test_what_stands_for_missing_cells_of_a_table_is_missing():
    frame = pd.DataFrame({"a": [1.5, -999.0, 2.5, 4.0] * 5, "b": np.arange(20) / 7})
    table = pv.Table.from_frame(frame, na_values=[-999])
    coded = encode_tables({"one": table}, "one")["one"]
    assert (coded.codes[:, 0] == MISSING).tolist() == (frame["a"] == -999).tolist()


def test_words_that_are_no_dates_are_categories():
    for words in (["2024-01-01", "2024-01-32"] * 15, ["x"] * 30, [None] * 30):
        table = pd.DataFrame({"t": pd.Series(words, dtype=object)})
        assert not coded(a=table, b=table)["a"].numeric.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename(columns={"a": "A"}), "synthetic has column 'A', which train lacks"),
        (lambda t: t.drop(columns="b"), "synthetic lacks column 'b', which train has"),
        (lambda t: t.assign(a="word"), "synthetic: column 'a' holds quantities elsewhere"),
        (lambda t: t.assign(a=[*t["a"][:-1], math.inf]), "column 'a' is infinite in row 39"),
        (lambda t: t[:5], "at least 20 rows in each table, synthetic has 5"),
        (lambda t: t[:0], "synthetic is empty"),
        (lambda t: t.set_axis(["a", "a", "b", "c"], axis=1), "two columns named 'a'"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        pv.fidelity(mixed(40, 0), change(mixed(40, 1)), mixed(40, 2))


@pytest.mark.slow
def test_refusals_of_arguments():
    tables = [mixed(40, i) for i in range(3)]
    with pytest.raises(ValueError, match="target 'a' was given to the synthetic rows"):
        pv.fidelity(tables[0], tables[1].assign(a=tables[0]["a"]), tables[2], target="a")
    with pytest.raises(ValueError, match="target 'z' is no column: expected one of a, b"):
        pv.fidelity(*tables, target="z")
    with pytest.raises(ValueError, match="seed is a whole number"):
        pv.fidelity(*tables, seed=-1)


def test_what_is_no_frame_is_named():
    rows = pd.DataFrame({"a": range(30)})
    with pytest.raises(ValueError, match="synthetic is a frame of rows, got int"):
        pv.fidelity(rows, 3, rows)


@pytest.mark.slow
def test_times_that_no_draw_censors_are_left_out():
    rng = np.random.default_rng(0)
    rows = mixed(90, 0).assign(time=rng.gamma(2, 1, 90), event=rng.random(90) < 0.5)
    with pytest.warns(UserWarning, match="left out, as no synthetic time is censored: time, event"):
        found = pv.fidelity(rows[:30], rows[30:60].assign(event=True), rows[60:])
    assert list(found.columns.index) == ["a", "b", "sign", "day"]
    assert "time" in pv.fidelity(rows[:30], rows[30:60], rows[60:]).columns.index
