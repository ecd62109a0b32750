"""Values that stand for missing cells, and numbers that are written as words."""

import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

import pyro_vae as pv
from pyro_vae.data.tables import Schema, read_file
from pyro_vae.data.tables.moments import reading
from pyro_vae.data.tables.written import number_form, write_numbers

ROWS = 200
RNG = np.random.default_rng(0)
HOLES = RNG.random(ROWS) < 0.1
AGE = RNG.integers(18, 80, ROWS)
READING = RNG.normal(5, 2, ROWS).round(2)


def table_of(values, **options):
    return pv.Table.from_frame(pd.DataFrame({"x": values, "y": READING}), **options)


SENTINELS = {
    "minus nines": (AGE, -999),
    "nines": (AGE, 9999),
    "floats": (READING, -99.0),
    "minus nine among counts": (AGE, -9),
    "minus one": (AGE, -1),
    "a question mark among words": (np.where(AGE > 40, "old", "young").astype(object), "?"),
    "NA as a word": (np.where(AGE > 40, "old", "young").astype(object), "n/a"),
    "a genotype": (np.where(AGE > 40, "A/A", "A/G").astype(object), "./."),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SENTINELS)
def test_a_sentinel_is_warned_of_and_taken_as_missing_where_it_is_said(case):
    known, sentinel = SENTINELS[case]
    values = known.copy()
    values[HOLES] = sentinel
    with pytest.warns(UserWarning, match=r"column 'x': .* may stand for missing cells") as caught:
        table = table_of(values)
    advice = str(caught[0].message).split("from_frame(df, ")[1].split(")")[0]
    assert "na_values" in table.schema["x"].why and not table.missing.any()
    said = eval(f"dict({advice})")  # the advice is to work as it stands
    for na_values in (said["na_values"], [sentinel]):
        told = table_of(values, na_values=na_values)
        assert np.array_equal(told.missing[:, 0], HOLES) and not told.missing[:, 1].any()
        assert f"({HOLES.sum()} times)" in told.schema["x"].why
        equal = told.to_frame(told.values).equals(told.to_frame())
        assert equal and told.to_frame()["x"].tolist() == values.tolist()
        assert Schema.from_dict(told.schema.as_dict()) == told.schema
        again = told.schema.read(told.to_frame())
        assert np.array_equal(again.values, told.values, equal_nan=True)
    assert not table_of(values, na_values={"x": []}).missing.any()  # nor a warning


REASONS = {
    "an age": (AGE, [97, 98, 99]),
    "hours": (AGE // 4, [97, 98]),
    "answers": (AGE % 5 + 1, [98, 99]),
    "an income": (AGE * 900, [99_997, 99_998]),
    "below": (AGE // 2, [-9, -8]),
    "below, three": (AGE // 2 - 9, [-9, -8, -1]),
    "below numbers of both signs": (AGE - 50, [-99, -98]),
}


@pytest.mark.parametrize("case", REASONS)
def test_codes_of_several_reasons_are_warned_of(case):
    """Refused, does not know, does not apply: surveys count down from nines."""
    known, reasons = REASONS[case]
    values = known.copy()
    values[HOLES] = np.resize(reasons, HOLES.sum())
    with pytest.warns(UserWarning, match=r"column 'x': .* may stand for missing cells") as caught:
        table_of(values)
    said = eval(f"dict({str(caught[0].message).split('from_frame(df, ')[1].split(')')[0]})")
    assert sorted(said["na_values"]["x"]) == reasons
    assert np.array_equal(table_of(values, **said).missing[:, 0], HOLES)


def test_filled_cells_stand_where_the_sentinel_stood():
    values = AGE.copy()
    values[HOLES] = -999
    table = table_of(values, na_values=[-999])
    filled = table.values.copy()
    first, second = np.flatnonzero(HOLES)[:2]
    filled[first, 0] = 33
    frame = table.to_frame(filled)
    assert frame["x"][first] == 33 and frame["x"][second] == -999  # what is not filled stays
    assert frame["x"].drop(index=first).equals(table.to_frame()["x"].drop(index=first))


ORDINARY = {
    "ages to 99": np.where(AGE > 78, 99, AGE),
    "codes with -1": RNG.integers(-1, 2, ROWS),
    "99 once": np.where(np.arange(ROWS) == 3, 99, AGE),
    "temperatures": np.where(HOLES, -9.0, RNG.normal(0, 15, ROWS).round(1)),
    "words": np.where(AGE > 40, "none", "some"),
    "large numbers": np.where(HOLES, 9999, RNG.integers(0, 20_000, ROWS)),
    "scores to 99": np.where(HOLES, 98 + np.arange(ROWS) % 2, 60 + AGE // 2),
    "98 and 99 once": np.select([np.arange(ROWS) == 3, np.arange(ROWS) == 4], [98, 99], AGE),
    "few whole numbers from -9": np.arange(ROWS) % 12 - 9,
}


@pytest.mark.parametrize("case", ORDINARY)
def test_ordinary_values_are_not_suspected(case):
    assert "missing" not in table_of(ORDINARY[case]).schema["x"].why


WRITTEN = {
    "?": ([*map(str, READING)], "?", READING),
    "NA": ([*map(str, AGE)], "NA", AGE),
    "percent": ([f"{v}%" for v in AGE], None, AGE),
    "money": ([f"${v * 977:,}" for v in AGE], None, AGE * 977),
    "money with cents": ([f"-${v * 977:,.2f}" for v in AGE], "-", -AGE * 977),
    "euros": ([f"{v} €" for v in AGE], ".", AGE),
    "reais": ([f"R$ {v}.50" for v in AGE], None, AGE + 0.5),
    "dollars": ([f"USD {v:,.0f}" for v in AGE * 31], ".", AGE * 31),
    "kilograms": ([f"{v} kg" for v in AGE], None, AGE),
    "brackets": ([f"(${v})" if v > 50 else f"${v}" for v in AGE], None, AGE * (1 - 2 * (AGE > 50))),
    "spaces": ([f" {v / 2}" for v in AGE], None, AGE / 2),
    "powers": ([f"{v:.3e}" for v in AGE], None, AGE),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_numbers_in_words_are_numbers(case):
    words, gone, numbers = WRITTEN[case]
    words = np.array(words, dtype=object)
    if gone:
        words[HOLES] = gone
    table = table_of(words)
    column, at = table.schema["x"], table.schema.places["x"]
    assert not column.has_codes and "written as" in column.why
    known = ~HOLES if gone else np.ones(ROWS, bool)
    assert np.array_equal(~table.missing[:, at], known)
    assert np.allclose(table.values[known, at], numbers[known])
    if gone:
        assert f"missing where it is {gone!r} ({HOLES.sum()} times)" in column.why
    assert table.to_frame(table.values)["x"].tolist() == words.tolist()
    changed = table.values.copy()
    changed[:, at] = np.where(known, changed[:, at], numbers)[::-1]
    back = table.schema.read(table.to_frame(changed))
    assert np.allclose(back.values[:, at], changed[:, at])
    new = table.schema.read(table.schema.to_frame(changed))
    assert np.allclose(new.values[:, at], changed[:, at])


def test_words_that_are_no_numbers_stay_words():
    for words in (["007", "12"], ["a1", "a2"], ["1-2", "3-4"], ["."], ["2020-01-02"], ["1e"]):
        assert number_form(words) is None, words
    codes = np.where(AGE > 40, "01234", "90210")
    assert table_of(codes).schema["x"].levels == ("01234", "90210")
    assert table_of(np.where(HOLES, "1", "2")).schema["x"].levels == ("1", "2")
    declared = table_of([*map(str, AGE)], kinds={"x": "real"})
    assert np.array_equal(declared.values[:, 0], AGE)
    assert write_numbers(np.array([-1200.5]), "${:,.2f}")[0] == "-$1,200.50"


def test_a_word_among_written_numbers_is_refused_with_its_row():
    words = np.array([f"{v}%" for v in AGE], dtype=object)
    table = table_of(words)
    words[7] = "much"
    message = r"'x', row 7: 'much' is no number of the form 1200%\n.*na_values=\{'x': \['much'\]\}"
    with pytest.raises(ValueError, match=message):
        table.schema.read(pd.DataFrame({"x": words, "y": READING}))
    assert np.isnan(table_of(words, na_values={"x": ["much"]}).values[7, 0])


def test_leading_zeros_of_a_file_stay(tmp_path):
    zips = RNG.choice(["01234", "90210", "00501"], ROWS)
    frame = pd.DataFrame({"zip": zips, "holed": np.where(HOLES, None, zips), "n": AGE})
    frame.to_csv(tmp_path / "a.csv", index=False)
    read = read_file(tmp_path / "a.csv")
    assert read["zip"].tolist() == zips.tolist() and read["holed"].isna().sum() == HOLES.sum()
    assert read["n"].dtype.kind == "i"
    frame["id"] = [f"900719925474099{i}" if i % 3 else None for i in range(ROWS)]
    frame.to_csv(tmp_path / "b.csv", index=False)
    read = read_file(tmp_path / "b.csv")["id"]
    assert read.dropna().tolist() == frame["id"].dropna().tolist()
    table = pv.Table.read(tmp_path / "a.csv")
    assert table.schema["zip"].levels == ("00501", "01234", "90210")


def test_small_counts_shares_and_durations():
    kinds = {
        "counts": (RNG.poisson(1.2, ROWS), "count"),
        "rare counts": (RNG.poisson(0.5, 3000)[:ROWS], "count"),
        "codes from 0": (RNG.integers(0, 5, ROWS), "categorical"),
        "codes from 1": (RNG.integers(1, 6, ROWS), "categorical"),
        "shares": (RNG.beta(5, 5, ROWS), "bounded"),
        "small numbers": (RNG.normal(0.1, 0.02, ROWS), "real"),
        "durations": (pd.to_timedelta(RNG.beta(5, 5, ROWS), unit="D"), "real"),
    }
    for name, (values, kind) in kinds.items():
        assert table_of(values).schema["x"].kind == kind, name
    assert "'Categorical' if codes" in table_of(kinds["counts"][0]).schema["x"].why


def test_the_row_of_a_message_is_a_plain_number():
    frame = pd.DataFrame({"x": np.where(np.arange(ROWS) == 5, -1.5, READING**2)})
    frame.index = np.arange(ROWS) + 2282
    with pytest.raises(ValueError, match=r"column 'x', row 5 \(index 2287\): -1.5"):
        pv.Table.from_frame(frame, likelihood={"x": "Gamma"})


def words(*cells):
    """A column of these words in turn."""
    return pd.Series([cells[i % len(cells)] for i in range(ROWS)], dtype=object)


DOUBTS = {
    "dates, day first": (words("13/02/2020", "01/03/2020"), "may be dates.*'%d/%m/%Y'"),
    "dates, month first": (words("02/13/20", "03/01/20"), "may be dates.*'%m/%d/%y'"),
    "dates of two forms": (words("2020-02-13", "01/03/2020"), "may be dates"),
    "times of two lengths": (
        words("2020-02-13 10:01", "2020-02-13 10:00:00"),
        "may be times.*to_datetime.*format='mixed'",
    ),
    "times, day first": (words("13/02/2020 9:05", "1/3/2020 9:06"), "may be times.*dayfirst=True"),
    "times of the day": (words("9:05", "23:59"), "may be durations.*':00'"),
    "durations": (words("0 days 00:55:11", "12 days 01:00:00.25"), "may be durations"),
    "stopped times": (words("1:02:03", "0:59:00.5"), "may be durations"),
    "races": (words("0:58.31", "1:03.9", "1:00:02.5"), "may be durations"),
    "races of seconds and minutes": (words("58.31", "1:03.90"), "may be durations"),
    "months": (words("2021-03", "2021-11"), "may be dates.*'%Y-%m'"),
    "months first": (words("03/2021", "11/2021"), "may be dates.*'%m/%Y'"),
    "quarters": (words("2021-Q3", "2021-Q4"), "may be dates.*freq='Q'"),
    "weeks": (words("2021-W03", "2021-W40"), "may be dates"),
    "hours and minutes": (words("5h 10m", "12h", "0h 3min 4s"), "may be durations"),
    "halves of a day": (words("9:05 AM", "12:30 PM", "12:10 am"), "may be durations"),
    "dates in two forms": (words("13/02/2020", "2020-02-14"), "may be dates.*format='mixed'"),
    "two numbers": (words(*(f"{i}/80" for i in range(99, 140))), "may be two numbers each"),
    "months in words": (words("3-Jan-21", "14-Feb-21"), "may be dates.*'%d-%b-%y'"),
    "months and years": (words("Jan 2021", "Feb 2021"), "may be dates"),
    "dates as numbers": (
        np.resize([*range(20210301, 20210332), np.nan], 200),
        "first '20210301', may be dates.*format='%Y%m%d'",
    ),
    "numbers with a unit": (
        words(*(f"{i / 4}mg/dL" for i in range(50))),
        "may be numbers.*kinds={'x': 'real'}",
    ),
    "a minus behind": (words("1,200.50-", "3-", *map(str, range(60))), "may be numbers"),
    "spaces": (words("own", "own ", "rent"), "'own' and 'own ' differ in spaces or capitals"),
    "capitals": (words("Own", "own", "rent"), "'Own' and 'own' differ in spaces or capitals"),
    "few words among numbers": (
        words("12a", "unknown", *map(str, range(20, 60))),
        r"40 of its 42 words are numbers, others are '12a', 'unknown'.*na_values=.*'integer'",
    ),
    "words among numbers": (
        words("a", "b", "c", "<9", *map(str, range(20, 60))),
        "40 of its 44 words are numbers, others are '<9', 'a', 'b'.*to_numeric",
    ),
    "nearly as many levels as rows": (
        words(*(f"r{i}x" for i in range(190))),
        r"190 levels in 200 rows, the first 'r0x'.*kinds=\{'x': 'identifier'\}",
    ),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_a_doubtful_reading_is_warned_of(case):
    values, message = DOUBTS[case]
    with pytest.warns(UserWarning, match=f"(?s)column 'x': .*{message}"):
        assert "; " in table_of(values).schema["x"].why
    assert table_of(values, kinds={"x": "categorical"}).schema["x"].kind == "categorical"


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("times of two lengths", "time"),
        ("times, day first", "time"),
        ("times of the day", "positive"),
        ("durations", "positive"),
        ("stopped times", "positive"),
        ("races", "positive"),
        ("races of seconds and minutes", "positive"),
        ("quarters", "time"),
        ("weeks", "time"),
        ("hours and minutes", "positive"),
        ("halves of a day", "positive"),
        ("dates in two forms", "time"),
        ("dates as numbers", "time"),
        ("a minus behind", "real"),
    ],
)
def test_the_advice_on_words_reads_them_as_it_says(case, kind):
    df = pd.DataFrame({"x": DOUBTS[case][0]})
    with pytest.warns(UserWarning, match="may be") as said:
        pv.Table.from_frame(df)
    call = re.search(r"Table.from_frame\((.*)\) reads", str(said[0].message))
    assert call is not None
    read = eval(call[1], {"pandas": pd, "df": df})
    assert pv.Table.from_frame(read, kinds={"x": kind}).schema["x"].kind == kind
    assert read["x"].dtype.kind in ("f" if kind == "real" else "mM")
    assert case != "a minus behind" or read["x"][:2].tolist() == [-1200.5, -3.0]


@pytest.mark.parametrize("unit", ["mg/dL", "k", " kg", "%"])
def test_numbers_with_a_unit_are_read_where_a_user_says_that_they_are_numbers(unit):
    """Words such as 12a are codes otherwise."""
    table = table_of(words(*(f"{i / 4}{unit}" for i in range(50))), kinds={"x": "real"})
    assert table.values[:50, 0].tolist() == [i / 4 for i in range(50)]
    assert table.to_frame(table.values + 1)["x"][0] == f"1.00{unit}"
    again = table.schema.read(table.to_frame(table.values + 1))
    assert np.array_equal(again.values, table.values + 1)


CLOCKS = {
    "races": (["58.31", "1:03.90", None, "1:00:02.5", "75"], [58.31, 63.9, np.nan, 3602.5, 75]),
    "halves of a day": (["12:10 AM", "12:10 PM", None, "1:00 PM"], [600, 43_800, np.nan, 46_800]),
    "hours": (["2h 3m", "1h", None, "0h 1min 5s"], [7380, 3600, np.nan, 65]),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_the_advice_on_clocks_counts_seconds(name):
    cells, expected = CLOCKS[name]
    may_be = reading([cell for cell in cells if cell], "x")
    assert may_be is not None and may_be[0] == "durations"
    read = eval(may_be[1], {"pandas": pd, "df": pd.DataFrame({"x": cells})})
    seconds = read["x"].dt.total_seconds().to_numpy()
    assert np.allclose(seconds, expected, equal_nan=True)


def test_numbers_of_three_parts_are_no_dates():
    assert reading(["002-47-4997", "123-12-0001"], "x") is None


def test_the_advice_on_two_numbers_makes_two_columns():
    pairs = [None, *(f"{i}/8{i % 10}" for i in range(99, 400)), "99/89"]
    df = pd.DataFrame({"x": pairs, "y": 1.5})
    with pytest.raises(ValueError, match="301 levels, the first '100/80'\nif they are two") as said:
        pv.Table.from_frame(df)
    call = re.search(r"each, (.*); or join", str(said.value))
    assert call is not None
    read = eval(call[1], {"df": df})
    assert list(read) == ["y", "x 0", "x 1"] and read["x 0"][5] == 103 and read["x 1"][5] == 83


@pytest.mark.parametrize("case", ["few words among numbers", "words among numbers"])
def test_the_advice_on_few_words_makes_numbers_of_the_others(case):
    df = pd.DataFrame({"x": DOUBTS[case][0]})
    with pytest.warns(UserWarning, match="are numbers") as said:
        pv.Table.from_frame(df)
    call = re.search(r"Table.from_frame\((.*)\) takes the others", str(said[0].message))
    assert call is not None
    table = eval(f"Table.from_frame({call[1]})", {"Table": pv.Table, "pandas": pd, "df": df})
    numbers = pd.to_numeric(df["x"], errors="coerce").to_numpy()
    assert np.array_equal(table.values[:, 0], numbers, equal_nan=True)


LOCAL = {
    "1.200,50 €": 1200.5, "1 234 567,5": 1234567.5, "1'200.50": 1200.5,
    "€2\N{RIGHT SINGLE QUOTATION MARK}500": 2500.0,
}  # fmt: skip


@pytest.mark.parametrize("word", LOCAL)
def test_the_advice_on_numbers_of_another_country_reads_them(word):
    frame = pd.DataFrame({"x": words(word, "8", "9")})
    with pytest.raises(ValueError, match=r"column 'x', row 0: .* has a") as refused:
        pv.Table.from_frame(frame)
    call = re.search(r"(pandas.to_numeric\(.*\)), or", str(refused.value))
    assert call is not None
    read = eval(call[1], {"pandas": pd, "frame": frame, "name": "x"})
    assert read[0] == LOCAL[word] and read[1] == 8


FORMS = {  # words, what is read, and how another number is written
    "decimal commas": (["1.200,50", "-7,25", "12"], [1200.5, -7.25, 12], "-1.234,50"),
    "shares": (["0,125", "0,500", "1,250"], [0.125, 0.5, 1.25], "-1234,500"),
    "euros": (["1.234.567,50 €", "7,25 €"], [1234567.5, 7.25], "-1.234,50 €"),
    "brackets": (["(1,200.50)", "7.25"], [-1200.5, 7.25], "(1,234.50)"),
    "euros in brackets": (["(1.200,50)", "7,25"], [-1200.5, 7.25], "(1.234,50)"),
    "thousands": (["1,200", "-7,250"], [1200, -7250], "-1,235"),
    "kilos": (["1.200,5kg", "7,2kg"], [1200.5, 7.2], "-1.234,5kg"),
    "euros before": (["EUR 1.200,50", "EUR 7,25"], [1200.5, 7.25], "-EUR 1.234,50"),
    "a minus sign": (["\N{MINUS SIGN}1,5", "7,2"], [-1.5, 7.2], "-1234,5"),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_read_and_written_as_accountants_have_them(form):
    some, numbers, written = FORMS[form]
    table = table_of(words(*some), kinds={"x": "real"})
    assert table.values[: len(some), 0].tolist() == numbers and table.schema["x"].format
    new = table.values.copy()
    new[0, 0], new[1, 0] = -1234.5, 3.0
    rows = table.to_frame(new) if "." in f"{numbers}" else table.to_frame(np.round(new - 0.1))
    assert rows["x"][0] == written and rows["x"][2:].tolist() == words(*some)[2:].tolist()
    assert table.schema.read(rows).values[1, 0] == 3
    with pytest.raises(ValueError, match=r"'none' is no number of the form [(EUR ]*1"):
        table.schema.read(rows.assign(x="none"))


def test_few_amounts_are_drawn_with_the_decimals_of_their_form():
    decimals = pd.Series([Decimal("3.10"), Decimal("1200.50")] * (ROWS // 2))
    for values in (words("$3.10", "$1,200.50"), words("3,10", "1200,50"), decimals):
        assert table_of(values, kinds={"x": "real"}).schema["x"].step == 0.01


def test_points_between_thousands_are_told_and_the_advice_takes_them_out():
    frame = pd.DataFrame({"x": words("12.500", "1.234.567", "950")})
    with pytest.raises(ValueError, match=r"column .x., row 0: .12\.500. has points bet") as refused:
        pv.Table.from_frame(frame)
    call = re.search(r"(pandas.to_numeric\(.*\)), or", str(refused.value))
    assert call is not None
    read = eval(call[1], {"pandas": pd, "frame": frame, "name": "x"})
    assert read[:3].tolist() == [12500, 1234567, 950]
    for other in (["192.168.100.200", "10.0.0.1"], ["1.234.567", "12.5"]):
        assert number_form(other) is None


def test_signs_before_numbers_are_read_and_come_back():
    values = pd.Series([f"{v:+.2f}".replace("-", "\N{MINUS SIGN}") for v in READING - 5])
    table = table_of(values)
    assert np.allclose(table.values[:, 0], READING - 5, atol=0.0051)
    assert table.to_frame(table.values)["x"].tolist() == values.tolist()


@pytest.mark.parametrize(("digits", "unit"), [(1, "100ms"), (3, "ms"), (6, "us")])
def test_fractions_of_a_second_are_read_as_they_are_written(digits, unit):
    """Libraries write milliseconds with three digits."""
    times = pd.to_datetime(1.6e9 + 1e5 * np.arange(ROWS) + 0.25, unit="s").floor(unit)
    cut = [word[: len(word) - 6 + digits] for word in times.strftime("%Y-%m-%d %H:%M:%S.%f")]
    table = table_of(pd.Series(cut, dtype=object))
    assert table.schema["x"].kind == "time"
    days = (times - times[0].normalize()) / pd.Timedelta(1, unit="D")
    assert np.allclose(table.values[:, 0], days, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "form", ["%Y-%m-%dT%H:%M:%S+00:00", "%Y-%m-%d %H:%M:%S.%fZ", "%Y-%m-%dT%H:%M"]
)
def test_iso_times_of_one_zone_are_times(form):
    times = pd.to_datetime(1.6e9 + 1e5 * np.arange(ROWS), unit="s") + pd.Timedelta(7, unit="us")
    values = times.strftime(form)
    table = table_of(values)
    assert table.schema["x"].kind == "time"
    days = (times - times[0].normalize()) / pd.Timedelta(1, unit="D")
    assert np.allclose(table.values[:, 0], days, atol=1e-3)
    assert table.schema.to_frame(table.values)["x"].tolist() == values.tolist()


def test_times_whose_zone_or_precision_changes_are_the_instants_that_they_are():
    """As of a log over the end of daylight saving, whose library leaves parts of 0 out."""
    hours = pd.date_range("2024-10-26", periods=ROWS, freq="h", tz="Europe/Berlin")
    hours += pd.to_timedelta(np.arange(ROWS) % 3 / 4, unit="s")
    logged = pd.Series([time.isoformat() for time in hours])
    table = table_of(logged)
    column = table.schema["x"]
    assert column.kind == "time" and column.format == "%Y-%m-%dT%H:%M:%S.%f%z"
    assert "new ones in UTC" in column.why and logged.str[-6:].nunique() == 2
    days = (hours - pd.Timestamp("2024-10-25", tz="UTC")) / pd.Timedelta(1, unit="D")
    assert np.allclose(table.values[:, 0], days, rtol=0, atol=1e-9)
    moved = table.values.copy()
    moved[0] += 1
    new = table.to_frame(moved)["x"]
    assert new[0] == "2024-10-26T22:00:00.000000+00:00" and new[1:].equals(logged[1:])
    vae = pv.VAE(table, 1, encoder="MLP([2])", decoder="MLP([2])")
    assert (vae.sample(2, given={"x": logged[0]}, seed=0)["x"] == logged[0]).all()
    winter = pv.Table.from_frame({"x": logged[48:], "y": READING[48:]})
    assert winter.schema["x"].format.endswith("%f+01:00")
    days = winter.schema.read({"x": logged, "y": READING}).values[:, 0]  # has summer's hours too
    assert np.allclose(np.diff(days), np.diff(table.values[:, 0]), rtol=0, atol=1e-9)


def test_a_zone_by_its_name_is_no_zulu_time():
    table = table_of(
        words("01.03.2024 10:00 UTC", "02.03.2024 11:00 GMT"), dates={"x": "%d.%m.%Y %H:%M %Z"}
    )
    assert np.allclose(table.values[:2, 0], [10 / 24, 1 + 11 / 24])


def test_times_in_the_place_of_words_are_written_in_their_form():
    """Where a zone is of one of them alone, or of both, an hour is another one."""
    days = pd.date_range("2024-03-01", periods=ROWS, freq="7h")
    moment, nets = pd.Timestamp("2024-03-05T05:00"), {"encoder": "MLP([2])", "decoder": "MLP([2])"}
    for form in ("%d.%m.%Y %H:%M", "%Y-%m-%dT%H:%M+01:00"):
        vae = pv.VAE(table_of(pd.Series(days.strftime(form)), dates={"x": form}), 1, **nets)
        if "+" not in form:
            drawn = vae.sample(2, given={"x": moment}, seed=0)["x"]
            assert (drawn == "05.03.2024 05:00").all()
        else:
            with pytest.raises(
                ValueError, match=r"got datetime64.*\nwrite them so, in the zone of t"
            ):
                vae.sample(2, given={"x": moment}, seed=0)
        with pytest.raises(ValueError, match=r"expected words of the form .*, got datetime64.*UTC"):
            vae.sample(2, given={"x": moment.tz_localize("UTC")}, seed=0)


UNREADABLE = {
    "a half beside a decimal comma": (words("0.500", "1,25"), "'1,25' has a decimal comma"),
    "several forms": (
        words("1%", "2", "3"),
        "'x', row 1: numbers .* several ways, '2' beside '1%'",
    ),
    "decimal commas": (words("1 200,50", "7,25"), "'x', row 0: '1 200,50' has a decimal comma"),
    "zones and none": (
        words("2020-01-01T00:00:00Z", "2020-01-01T00:00:00"),
        "'x', row 1: times with a time zone, .*, and without, .*\nwrite the zone of each, or none",
    ),
    "infinite words": (
        words("1.5", "2.5", "inf"),
        r"'x', row 2: 'inf' is no number.*\n.*na_values=\['inf'\]",
    ),
    "too large": (READING * 1e300, r"'x', row 0: .*e\+30\d is too large to be modelled\n.*larger"),
    "squares too large": (READING * 1e19, r"'x', row 0: .* is too large to be modelled"),
    "squares too small": (READING * 1e-21, "too small to be modelled"),
    "too small": (READING * 1e-300, "too small to be modelled\ngive the column in a smaller unit"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_numbers_and_times_that_cannot_be_read(case):
    values, message = UNREADABLE[case]
    with pytest.raises(ValueError, match=message):
        table_of(values)


def test_objects_of_numbers_beside_question_marks_have_missing_cells():
    values = pd.Series([*READING], dtype=object)
    values[HOLES] = "?"
    table = table_of(values)
    assert np.array_equal(table.missing[:, 0], HOLES)
    assert table.to_frame(table.values)["x"].tolist() == values.tolist()
    values[HOLES] = "unknown"
    with pytest.raises(ValueError, match=r"'x', row .* cells of several types"):
        table_of(values)
    assert np.array_equal(table_of(values, na_values=["unknown"]).missing[:, 0], HOLES)


MISTAKES = {
    "a frame in place of a table": (lambda f: pv.Table(f), "made by Table.from_frame"),
    "a word for a list": (
        lambda f: pv.Table.from_frame(f, na_values="?"),
        r"na_values are a list, or lists by column: na_values=\{'x': \['\?'\]\}",
    ),
    "a list in a list": (
        lambda f: pv.Table.from_frame(f, na_values=[["?"], -1]),
        r"na_values of 'x' are words and numbers, got \['\?'\]",
    ),
    "an unknown column": (
        lambda f: pv.Table.from_frame(f, na_values={"z": [1]}),
        "na_values names the column 'z'",
    ),
    "all cells": (
        lambda f: pv.Table.from_frame(f.assign(x=-999), na_values=[-999]),
        "column 'x': all its cells are missing",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_answered(case):
    make, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        make(pd.DataFrame({"x": READING, "y": AGE}))


def test_angles_beyond_the_circle_are_refused():
    frame = pd.DataFrame({"angle": RNG.uniform(0, 360, ROWS), "y": READING})
    table = pv.Table.from_frame(frame, likelihood={"angle": "VonMises"})
    small = {"encoder": "MLP([4])", "decoder": "MLP([4])", "seed": 0}
    with pytest.raises(ValueError, match=r"VonMises needs .*: give angles in radians.*deg2rad"):
        pv.fit(pv.VAE(table, 1, **small), table, epochs=1, progress=False)
    pair = pv.VAE(2, 1, likelihood="SineBivariateVonMises(correlation=0)", **small)
    with pytest.raises(ValueError, match="SineBivariateVonMises needs a number from"):
        pair.check(frame[["angle", "y"]].to_numpy())
    frame["angle"] = (np.deg2rad(frame["angle"]) + np.pi) % (2 * np.pi) - np.pi
    table = pv.Table.from_frame(frame, likelihood={"angle": "VonMises"})
    vae = pv.VAE(table, 1, **small)
    pv.fit(vae, table, epochs=1, compile=False, progress=False)
    assert vae.sample(50, seed=0)["angle"].abs().max() <= np.pi + 1e-6


@pytest.mark.parametrize("words", [["5", "6", "N/A"], ["12%", "7%", "?"], ["$1,200", "$3", "?"]])
def test_few_numbers_in_words_are_levels_of_words_and_their_placeholder_a_hole(words):
    table = pv.Table.from_frame(pd.DataFrame({"x": words * 30}))
    column = table.schema["x"]
    assert column.levels == tuple(sorted(words[:2])) and column.na_values == (words[2],)
    assert table.missing[:3, 0].tolist() == [False, False, True]
    assert table.to_frame(table.values)["x"].tolist() == words * 30
    assert Schema.from_dict(table.schema.as_dict()) == table.schema


def test_an_event_is_said_by_the_name_of_its_time():
    with pytest.raises(ValueError, match="censored is a dict by column"):
        table_of(AGE, censored=["x"])
