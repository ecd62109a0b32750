"""What a table refuses: the column, the first row, and what to do."""

import datetime
import re
import warnings

import numpy as np
import pandas as pd
import pytest

import pyro_vae as pv
from pyro_vae import Design, Table
from pyro_vae.data.tables import read_file


def good(**columns):
    """A frame of 40 rows, some columns of which are replaced."""
    frame = pd.DataFrame(
        {
            "pet": ["cat", "dog", "cow", "cat"] * 10,
            "age": [23.5, 31.0, 44.25, 58.0] * 10 + np.arange(40),
            "count": list(range(20)) * 2,
            "day": pd.date_range("2020-01-01", periods=40),
        }
    )
    return frame.assign(**columns)


def put(name, value, row=7):
    """The good frame, with one cell replaced."""
    column = good()[name].astype(object).copy()
    column.iloc[row] = value
    return good(**{name: column})


# Of a first frame: what is wrong with it, and words of the message, the column and row among them.
FIRST = {
    "no rows": (good()[:0], "no rows"),
    "no columns": (good()[[]], "no columns"),
    "no frame": (np.zeros((3, 2)), "expected a frame.*got ndarray"),
    "a number as a name": (good().rename(columns={"age": 3}), "names that are words, got 3"),
    "names in levels": (
        good().set_axis(pd.MultiIndex.from_product([["a"], list("bcde")]), axis=1),
        r"names that are words, got \('a', 'b'\)",
    ),
    "one name twice": (pd.concat([good(), good()[["age"]]], axis=1), "'age' occurs 2 times"),
    "infinite": (put("age", np.inf), r"column 'age', row 7: inf is no number"),
    "infinite in a float column": (
        good(age=good()["age"].where(good().index != 9, -np.inf)),
        r"column 'age', row 9: -inf is no number",
    ),
    "a word among numbers": (
        put("age", "old"),
        r"column 'age', row 7: cells of several types: 'old' \(word\) beside 23.5 \(number\) in "
        "row 0",
    ),
    "a number among words": (put("pet", 3), r"column 'pet', row 7: cells of several types: 3"),
    "a list among words": (put("pet", ["cat"]), r"column 'pet', row 7: cells of several types"),
    "lists": (good(pet=[["cat"]] * 40), r"column 'pet', row 0: a table cannot hold list"),
    "complex": (good(age=np.ones(40) * 1j), r"column 'age', row 0: a table cannot hold complex"),
    "periods": (
        good(day=pd.period_range("2020", periods=40, freq="M")),
        r"column 'day', row 0: a table cannot hold pandas.Period.*to_timestamp",
    ),
    "all missing": (good(age=np.nan), r"column 'age': all its cells are missing"),
    "10,000 levels": (
        pd.DataFrame({"zip": [f"z{i % 10_000}" for i in range(20_000)]}),
        r"column 'zip': it has 10,000 levels.*join the rare ones.*'identifier'",
    ),
    "numbers as words": (
        pd.DataFrame({"x": [f"{i % 500} 500,5" for i in range(1000)]}),
        r"column 'x', row 0: '0 500,5' has a decimal comma.*pandas.to_numeric",
    ),
    "thousands by spaces": (
        pd.DataFrame({"x": [f"{i}\N{NO-BREAK SPACE}500" for i in range(1, 500)]}),
        r"column 'x', row 0: '1.*500' has a space within.*pandas.to_numeric",
    ),
    "a date that means never": (
        put("day", datetime.date(9999, 12, 31)),
        r"column 'day', row 7.*",
    ),
    "a date beyond the calendar": (
        good(day=["2020-02-28"] * 39 + ["2020-02-30"]),
        r"column 'day', row 39: '2020-02-30' is not a date",
    ),
    "a date out of range": (
        good(day=[datetime.date(2020, 1, 1 + i % 9) for i in range(39)] + [datetime.date.max]),
        r"column 'day', row 39: the date 9999-12-31 is out of range.*put None there",
    ),
    "numbers too large": (
        good(count=[2**60 + i % 30 for i in range(40)]),
        r"column 'count', row 0: .* too large.*'identifier'",
    ),
    "numbers beyond 64 bits": (
        put("count", 2**70),
        rf"column 'count', row 7: {2**70} is beyond 64 bits",
    ),
    "few words among many numbers": (
        pd.DataFrame({"x": [f"{i / 8}" for i in range(900)] + ["<0.1"] * 9}),
        r"column 'x': it has 901 levels.*numbers beside '<0.1', na_values={'x': \['<0.1'\]}; or",
    ),
    "categories of two types": (
        good(pet=pd.Categorical(["cat", 3] * 20)),
        r"column 'pet', row 1: the category 3 \(whole\) beside 'cat'.*rename_categories\(str\)",
    ),
    "categories of dates": (
        good(pet=pd.Categorical(pd.date_range("2020", periods=4).repeat(10))),
        r"column 'pet', row 0: the category Timestamp.*rename_categories\(str\)",
    ),
    "times of the day": (
        good(age=[datetime.time(i % 24) for i in range(40)]),
        r"column 'age', row 0: a table cannot hold datetime.time.*as hours.*'identifier'",
    ),
    "only a constant": (pd.DataFrame({"x": [1] * 9}), "no column is left to model"),
}


@pytest.mark.parametrize("name", FIRST)
def test_a_first_frame_is_refused(name):
    frame, words = FIRST[name]
    with pytest.raises(ValueError, match=re.compile(words, re.DOTALL)):
        pv.Table.from_frame(frame)


# Of another frame, under the schema of the good one.
OTHER = {
    "an absent column": (good().drop(columns="age"), r"no column 'age'"),
    "a renamed column": (
        good().rename(columns={"age": "Age"}),
        r"no column 'age'; did you mean Age",
    ),
    "a new column": (good(size=1), r"1 columns that the table does not have, the first 'size'"),
    "an unseen category": (
        put("pet", "cad"),
        r"column 'pet', row 7: 'cad' is not among its levels; did you mean cat\?",
    ),
    "a negative count": (put("count", -1), r"column 'count', row 7: -1: a count is not negative"),
    "half a count": (put("count", 1.5), r"column 'count', row 7: 1.5 in a column of whole numbers"),
    "words for numbers": (
        good(age="old"),
        r"column 'age', row 0: expected numbers, got words, first 'old'.*pandas.to_numeric",
    ),
    "numbers for words": (good(pet=1), r"column 'pet', row 0: expected words, got whole numbers"),
    "numbers for dates": (
        good(day=1.5),
        r"column 'day', row 0: expected times, got numbers.*to_datetime\(frame\[name\], unit='D'\)",
    ),
    "dates for numbers": (good(age=good()["day"]), r"column 'age', row 0: expected numbers"),
    "booleans for numbers": (
        good(age=True),
        r"column 'age', row 0: expected numbers, got booleans.*frame\[name\].astype\(float\)",
    ),
    "infinite": (put("age", np.inf), r"column 'age', row 7: inf is no number"),
    "no rows": (good()[:0], "no rows"),
}


@pytest.mark.parametrize("name", OTHER)
def test_another_frame_is_refused(name):
    table = pv.Table.from_frame(good(), likelihood={"count": "NegativeBinomial"})
    frame, words = OTHER[name]
    with pytest.raises(ValueError, match=re.compile(words, re.DOTALL)):
        table.schema.read(frame)


def test_the_advice_on_booleans_reads_those_of_any_spelling():
    table = pv.Table.from_frame(good(ok=[True, False] * 20))
    frame, name = good(ok=["TRUE", "false"] * 20), "ok"
    with pytest.raises(ValueError, match="expected booleans") as said:
        table.schema.read(frame)
    new = eval(str(said.value).split("as by ")[1], {"frame": frame, "name": name})
    with pytest.raises(ValueError, match=r"got whole numbers.*\n.*astype\('boolean'\)"):
        table.schema.read(good(ok=[1, 0] * 20))
    assert np.array_equal(table.schema.read(frame.assign(ok=new)).values, table.values)


@pytest.mark.parametrize("make", [list, np.array, pd.Index])
def test_levels_come_as_an_array_too(make):
    table = pv.Table.from_frame(good(pet=[*"abca"] * 10), kinds={"pet": make([*"bca"])})
    assert table.schema["pet"].levels == ("b", "c", "a")


def test_another_form_of_dates_is_for_the_first_frame_to_say():
    frame = good(day=["2020-01-02", "2021-03-04"] * 20)
    table = pv.Table.from_frame(frame)
    with pytest.raises(ValueError, match=r"or put None there$"):
        table.schema.read(frame.assign(day="2020-13-02"))
    with pytest.raises(ValueError, match=r"or put None there, or leave dates= out$"):
        pv.Table.from_frame(frame, dates={"day": "%d/%m/%Y"})
    with pytest.raises(ValueError, match=r"or say the form: dates={'day': '%m/%d/%Y'}"):
        pv.Table.from_frame(good(day="02/13/2020"), dates={"day": "%d/%m/%Y"})


def test_times_are_not_changed_to_days_or_another_zone():
    hours = good(day=good()["day"] + pd.to_timedelta(np.arange(40) % 9 // 8, unit="h"))
    table = pv.Table.from_frame(good())
    with pytest.raises(ValueError, match=r"column 'day', row 8: 2020-01-09T01:00.* of days"):
        table.schema.read(hours)
    zoned = good(day=good()["day"].dt.tz_localize("UTC"))
    with pytest.raises(ValueError, match=r"(?s)'day', row 0: expected times .*tz_localize\(None\)"):
        table.schema.read(zoned)
    with pytest.raises(
        ValueError, match=r"(?s)'day', row 0: expected times .*tz_localize\('UTC'\)"
    ):
        pv.Table.from_frame(zoned).schema.read(good())
    there = zoned.assign(day=zoned["day"].dt.tz_convert("Asia/Tokyo"))
    assert np.array_equal(
        pv.Table.from_frame(zoned).schema.read(there).values[:, -1], np.arange(40)
    )


def test_every_row_is_looked_at():
    """Libraries tell the type of objects from the first hundred."""
    words = pd.Series(["a", "b"] * 100, dtype=object)
    words[150] = 3
    with pytest.raises(ValueError, match="column 'x', row 150: cells of several types: 3"):
        pv.Table.from_frame(pd.DataFrame({"x": words}))


def test_what_a_table_cannot_hold_may_be_left_out():
    frame = good(pet=[["cat"]] * 40, age=np.nan)
    aside = {"pet": "identifier", "age": "identifier"}
    table = pv.Table.from_frame(frame, kinds=aside)
    assert table.schema.cells == ("count", "day")
    assert table.to_frame(table.values).equals(frame)
    assert table.schema.to_frame(table.values[:3])["pet"].isna().all()


def test_a_row_is_named_by_number_and_label():
    frame = put("age", np.inf).set_axis([f"p{i}" for i in range(40)])
    with pytest.raises(ValueError, match=r"column 'age', row 7 \(index 'p7'\): inf"):
        pv.Table.from_frame(frame)


def test_all_missing_rows_and_columns_of_another_frame_are_read():
    table = pv.Table.from_frame(good())
    rows = pd.DataFrame({name: [None, None] for name in good()})
    assert table.schema.read(rows).missing.all()


# What a user says of columns.
SAID = {
    "an unknown column": (
        {"likelihood": {"Age": "Normal"}},
        "likelihood names the column 'Age'.*did you mean age",
    ),
    "an unknown kind": ({"kinds": {"age": "float"}}, "the kind of column 'age' is one of"),
    "a line that cannot be read": ({"likelihood": {"age": "Normal("}}, "column 'age': cannot read"),
    "a family for all": ({"likelihood": "Normal"}, "'auto' or a line for each column"),
    "a family of numbers for words": (
        {"likelihood": {"pet": "LogNormal"}},
        "column 'pet': .*is not positive",
    ),
    "a positive family with 0": (
        {"likelihood": {"count": "Gamma"}},
        r"column 'count', row 0: 0: Gamma has positive numbers alone.*Hurdle\(Gamma\)",
    ),
    "a fraction beyond 1": (
        {"likelihood": {"age": "Beta"}},
        r"column 'age', row 0: 23.5: Beta has numbers within \(0, 1\)",
    ),
    "three levels of a bit": (
        {"likelihood": {"pet": "Bernoulli"}},
        "column 'pet': it has 3 levels",
    ),
    "other categories": (
        {"likelihood": {"pet": "Categorical(categories=4)"}},
        "column 'pet': .* says 4 categories, and the column has 3 levels",
    ),
    "a level that is not said": (
        {"kinds": {"pet": ["cat", "dog"]}},
        r"column 'pet', row 2: 'cow' is not among its levels",
    ),
    "a form of dates for numbers": ({"dates": {"age": "%Y"}}, "column 'age': .*holds no words"),
    "another form of dates": (
        {"dates": {"pet": "%Y"}},
        r"column 'pet', row 0: 'cat' is not a date of the form %Y",
    ),
    "a survival time without event": (
        {"likelihood": {"age": "Censored(Weibull)"}},
        "column 'age': say which column tells the event",
    ),
    "an event of many values": (
        {"censored": {"age": "count"}},
        r"column 'count', row 2: 2: an event is 0 \(censored\) or 1 \(seen\)",
    ),
    "numbers as times": (
        {"kinds": {"age": "time"}},
        "column 'age': a column of float64 is not time",
    ),
    "missing values of another type": (
        {"na_values": {"count": ["-8"]}},
        "column 'count': na_values are '-8', and its cells are of another type, int64, first 0",
    ),
    "missing times": ({"na_values": {"day": ["1900-01-01"]}}, "column 'day'.*None in the frame"),
    "levels without order": ({"kinds": {"pet": {"cat", "dog"}}}, "column 'pet' are a list, from"),
    "levels of a type": (
        {"kinds": {"pet": pd.CategoricalDtype(["cat", "dog", "cow"])}},
        "column 'pet' are a list, from the least to the greatest",
    ),
    "a constant that varies": ({"kinds": {"age": "constant"}}, "column 'age': it is no constant"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_of_columns_is_checked(name):
    said, words = SAID[name]
    with pytest.raises(ValueError, match=re.compile(words, re.DOTALL)):
        pv.Table.from_frame(good(), **said)


def test_a_constant_has_no_likelihood():
    with pytest.raises(ValueError, match=r"column 'x': it is left out of the model \(one value"):
        pv.Table.from_frame(good(x=3.5), likelihood={"x": "Normal"})


def test_half_a_survival_time_is_refused():
    frame = pd.DataFrame({"t": np.arange(1.0, 31), "e": [0.0, 1.0, np.nan] * 10})
    with pytest.raises(ValueError, match=r"column 't', row 2: of 't' and its event 'e' one is"):
        pv.Table.from_frame(frame, censored={"t": "e"})


def test_another_value_of_a_constant_is_refused():
    table = pv.Table.from_frame(good(unit="kg"))
    with pytest.raises(ValueError, match=r"column 'unit', row 0: 'g' in a column that held 'kg'"):
        table.schema.read(good(unit="g"))


VALUES = {
    "another width": (np.zeros((3, 2)), r"expected values of shape \(N, 4\)"),
    "a code of no level": ([[3, 1, 1, 1]], r"column 'pet', row 0: 3 is no code"),
    "half a code": ([[0.5, 1, 1, 1]], r"column 'pet', row 0: 0.5 is no code"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_are_no_rows_are_refused(name):
    values, words = VALUES[name]
    with pytest.raises(ValueError, match=words):
        pv.Table.from_frame(good()).to_frame(values)


# Files.


def test_files_are_read_and_named_in_errors(tmp_path):
    frame = good().drop(columns="day")
    for suffix, separator in ((".csv", ","), (".tsv", "\t"), (".csv.gz", ",")):
        path = tmp_path / f"pets{suffix}"
        frame.to_csv(path, sep=separator, index=False)
        assert pv.Table.read(path).to_frame().equals(frame)
    (tmp_path / "inf.csv").write_text("a,b\n" + "1.5,x\n2.5,y\n" * 9 + "inf,x\n")
    with pytest.raises(ValueError, match=r"inf.csv: column 'a', row 18 \(line 20\): inf is no"):
        pv.Table.read(tmp_path / "inf.csv")


def test_a_cell_may_be_long(tmp_path):
    """Beside a last column with holes, whose rows are counted."""
    rows = "".join(
        f"{'w' * 2**17 * (i == 3)}u{i % 2},{'' if i == 5 else i / 2}\n" for i in range(9)
    )
    (tmp_path / "x.csv").write_text(f"a,b\n{rows}")
    assert len(read_file(tmp_path / "x.csv")["a"][3]) == 2**17 + 2


LINES = {  # what stands before, and what is wrong, in the last line but one
    "empty lines": "\n \n",
    "a cell of three lines": '5,"x\ny\nz"\n',
}


@pytest.mark.parametrize("before", LINES)
def test_errors_name_the_line_of_the_file(before, tmp_path):
    """Whatever lies before it: empty lines, which are no rows, and cells of several lines."""
    rows = [f"{i}.5,{'uv'[i % 2]}" for i in range(9)]
    for last, words in {
        "inf,u": r"column 'a', row \d+ \(line {}\): inf is no number",
        "1,2,3": "line {} has 3 cells, and there are 2 columns",
        "1": "line {} has 1 cells, and there are 2 columns",
        '1,"2': "the quotation mark in line {} is not closed",
    }.items():
        text = "\n".join(["a,b", LINES[before] + rows[0], *rows[1:], last, "4.5,u"])
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(ValueError, match=words.format(text.count("\n"))):
            pv.Table.read(tmp_path / "x.csv")


def test_booleans_come_back_as_the_file_writes_them(tmp_path):
    n = 60
    frame = pd.DataFrame(
        {
            "time": np.arange(n) % 7 + 1.5,
            "dead": np.tile(["TRUE", "FALSE", "TRUE"], n // 3),
            "ok": np.tile(["false", "true", "true", None], n // 4),
            "all": "TRUE",
            "python": np.tile(["True", "False"], n // 2),
        }
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    table = pv.Table.read(tmp_path / "x.csv")
    assert table.schema["time"].event == "dead" and table.schema["ok"].levels == (False, True)
    new = table.to_frame(np.ones_like(table.values))
    assert (new["dead"] == "TRUE").all() and (new["ok"] == "true").all()
    assert (new["all"] == "TRUE").all() and new["python"].dtype == bool
    record = pv.VAE(table, 1, encoder="MLP([2])", decoder="MLP([2])").record
    assert {*record.words} == {"dead", "ok", "all"}
    again = read_file(tmp_path / "x.csv", record.words)
    assert np.array_equal(table.schema.read(again).values, table.values, equal_nan=True)
    assert read_file(tmp_path / "x.csv", ()).dtypes[["dead", "python"]].tolist() == [bool, bool]
    again.loc[8, "ok"] = "perhaps"
    with pytest.raises(ValueError, match=r"(?s)'ok', row 8: 'perhaps' beside .*write true, false"):
        table.schema.read(again)


FILES = {
    "absent.csv": (None, "there is no file"),
    "empty.csv": ("", "it is empty: its first line names the columns"),
    "twice.csv": ("a,b,a\n1,2,3\n", "column 'a' occurs twice"),
    "twice too.csv": ("a;b;a\n1;2;3\n", "column 'a' occurs twice"),
    "ragged.csv": ("a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, and there are 2 columns: put cells"),
    "short.csv": ("a,b,c\n1,2,3\n4,5\n", "line 3 has 2 cells, and there are 3 columns"),
    "index.csv": ("a,b\nr1,1,2\nr2,3,4\n", "1 more cells than its first line has names, 'a', 'b'"),
    "quoted.csv": ('a,b\n1.5,"x\n2.5,y\n', "the quotation mark in line 2 is not closed"),
    "mixed.csv": ("0.5,x\n1.5,y\n", "its first line holds numbers, 0.5, where the names of"),
    "latin.csv": ("\xe2ge,b\n1,x\n".encode("latin-1"), "is not UTF-8: .*encoding='cp1252'"),
    "wide.csv": ("age,b\n1,x\n".encode("utf-16"), "is not UTF-8: .*encoding='utf-16'"),
    "numbers.csv": ("1,2.5\n3,4\n", "its first line holds numbers, 1, 2.5, where the names of"),
    "excel.csv": ("sep=;\na;b\n1;2\n", "its first line is Excel's, which names .*: take it out"),
    "head.csv": ("a,b\n", "no rows"),
    "table.xlsx": ("", r"a table is a file .csv, .tsv, .parquet, got .xlsx"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_refused(tmp_path, name):
    text, words = FILES[name]
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=words) as refused:
        pv.Table.read(tmp_path / name)
    if "encoding=" in (said := str(refused.value)):  # the advice works
        frame = pd.read_csv(tmp_path / name, encoding=said.split("encoding='")[1].split("'")[0])
        assert frame.columns[0].endswith("ge")


def test_an_empty_line_of_one_column_is_a_missing_cell(tmp_path):
    (tmp_path / "one.csv").write_text("a\n" + "1.5\n\n2.5\n" * 9)
    assert pv.Table.read(tmp_path / "one.csv").missing[:, 0].tolist() == [False, True, False] * 9
    (tmp_path / "two.csv").write_text("a,b\n\n" + "1.5,x\n\n2.5,y\n" * 9)
    assert len(pv.Table.read(tmp_path / "two.csv")) == 18


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_empty_lines_at_the_end_alone_are_no_missing_cells(tmp_path, end):
    for text, rows in {
        "1.5\n2.5\n\n\n": 2,
        "1.5\n2.5": 2,
        "1.5\n\n2.5\n\n": 4,
        '1.5\n""\n\n': 2,
    }.items():
        (tmp_path / "one.csv").write_bytes(f"a\n{text}".replace("\n", end).encode())
        assert len(read_file(tmp_path / "one.csv")) == rows, text


POINTS = {
    "points": (",", ["1.200", "950", "12.500", "3.400"], 1200),
    "beside semicolons": (";", ["1.200", "4.950", "12.500", "3.400"], 1200),
    "three decimals in each": (",", ["1.200", "4.950", "12.500", "3.400"], None),
    "decimals": (",", ["1.2", "950", "12.345", "3.415"], None),
    "below one": (";", ["0.125", "0.250", "0.375", "0.500"], None),
}


@pytest.mark.parametrize("name", POINTS)
def test_points_that_may_stand_between_thousands_are_said(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    separator, words, value = POINTS[name]
    (tmp_path / "x.csv").write_text("\n".join(f"{w}{separator}u" for w in ["a", *words * 9]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_file(tmp_path / "x.csv")["a"][0] == float(words[0])
    assert len(caught) == (value is not None)
    if value is not None:
        call = re.search(r"from_frame\((.*)\)$", said := str(caught[0].message))
        assert "'1.200' is read with a decimal point\nif points stand between thousands" in said
        assert call is not None
        assert eval(call[1], {"pandas": pd, "path": "x.csv"})["a"][0] == value


def test_none_among_words_is_a_word_and_said(tmp_path):
    """Pandas takes it for a missing cell, and a model would fill it with another level."""
    some = ["None", "Some", "", "Much"] * 9
    frame = pd.DataFrame({"a": some, "b": ["None", "1.5", "2.5", "3.5"] * 9, "c": range(36)})
    frame.to_csv(tmp_path / "x.csv", index=False)
    with pytest.warns(UserWarning, match=r"column 'a': 'None' \(9 times\) may stand for missing"):
        table = pv.Table.read(tmp_path / "x.csv")
    assert table.schema["a"].levels == ("Much", "None", "Some")
    assert table.missing[:, :2].sum(0).tolist() == [9, 9]
    assert pv.Table.read(tmp_path / "x.csv", na_values={"a": ["None"]}).missing[:, 0].sum() == 18


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_read(tmp_path, separator):
    point = "," if separator == ";" else "."
    lines = [("id", "x", "g"), *((i, f"{i + 1}{point}5", "ab"[i % 2]) for i in range(9))]
    text = "\n".join(separator.join(map(str, line)) for line in lines)
    (tmp_path / "x.csv").write_text(text)
    table = pv.Table.read(tmp_path / "x.csv")
    assert table.schema["x"].kind in ("real", "positive") and table.schema["g"].levels == ("a", "b")
    assert table.values[:, table.schema.places["x"]].tolist() == [i + 1.5 for i in range(9)]


MISTAKEN = {
    "censored a word": (
        lambda f: Table.from_frame(f, censored="time"),
        "censored is a dict by column, {'column': ...}, got 'time'",
    ),
    "censored a list": (
        lambda f: Table.from_frame(f, censored=[("a", "b")]),
        "censored is a dict by column, {'column': ...}, got [('a', 'b')]",
    ),
    "kinds a word": (
        lambda f: Table.from_frame(f, kinds="ordinal"),
        "kinds is a dict by column, {'column': ...}, got 'ordinal'",
    ),
    "dates a word": (
        lambda f: Table.from_frame(f, dates="%d"),
        "dates is a dict by column, {'column': ...}, got '%d'",
    ),
    "a file for a frame": (
        lambda f: Table.from_frame("a.csv"),
        "of a file: Table.read('a.csv')",
    ),
    "a frame for a file": (
        lambda f: Table.read(f),
        "expected the name of a file, got DataFrame: a frame is Table.from_frame(df)",
    ),
    "a formula after its frame": (
        lambda f: Design.of(f, "~ a"),
        "Design.of takes the formula first, Design.of('~ age', frame)",
    ),
}


@pytest.mark.parametrize("name", MISTAKEN)
def test_a_mistaken_argument_is_told_what_it_should_be(name):
    wrong, message = MISTAKEN[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        wrong(pd.DataFrame({"a": np.linspace(0.1, 1, 30), "b": np.linspace(3, 4, 30)}))


def test_a_word_among_numbers_with_a_point_makes_no_decimal_comma_of_thousands(tmp_path):
    rows = [f"{i},500;{'low' if i == 3 else i / 8:}\n" for i in range(1, 40)]
    (tmp_path / "mixed.csv").write_text("amount;rate\n" + "".join(rows))
    table = pv.Table.read(tmp_path / "mixed.csv", kinds={"rate": "identifier"})
    assert table.values[:2, 0].tolist() == [1500.0, 2500.0]


@pytest.mark.parametrize(
    "rows, said, value",
    [
        (["{},500", "7"], "column 'a': '1,500' is read as 1.500.*thousands=','", 1.5),
        (["{},50", "7"], None, 1.5),
        (["{},500", "0,25"], None, 1.5),
        (["{},500", "1,234.50"], None, 1500.0),
        (["{},500", "1,234,500"], None, 1500.0),
    ],
)
def test_commas_before_three_digits_are_said_where_nothing_tells_what_they_are(
    rows, said, value, tmp_path
):
    lines = [";".join([rows[0].format(i), rows[1], "x"]) for i in range(1, 9)]
    (tmp_path / "x.csv").write_text("\n".join(["a;b;c", *lines]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = read_file(tmp_path / "x.csv")
        assert len(caught) == bool(said)
    assert not said or re.search(said, str(caught[0].message), re.DOTALL)
    assert float(str(frame.a[0]).replace(",", "")) == value
