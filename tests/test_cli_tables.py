"""Tables on the command line: fit, sample, impute and report, and an answer to each mistake."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pyro_vae as pv
from helpers.commands import run
from pyro_vae.cli.flags import in_flags
from pyro_vae.cli.parts import beside, free_rows, write_rows
from pyro_vae.cli.using import _cell
from pyro_vae.data.tables import read_file
from pyro_vae.data.tables.columns import Column
from pyro_vae.data.tables.native import make_frame
from pyro_vae.runs.folder import new_model
from pyro_vae.runs.held_out import held_out
from pyro_vae.runs.settings import merge

pytestmark = pytest.mark.usefixtures("short_pilot")

SMALL = ("--encoder", "MLP([16])", "--decoder", "MLP([16])", "--latent-dim", "2")
FIT = ("--epochs", "3", "--no-progress", *SMALL)


def refused(*args: object) -> str:
    """What a command says that ends with an error."""
    done = run(*args)
    assert done.code != 0
    return done.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on a table with holes."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "home": rng.choice(["rent", "own"], 80),
            "income": np.exp(rng.normal(7, 1, 80)).round(),
            "debt": np.where(rng.random(80) < 0.6, 0, rng.gamma(2, 900, 80).round()),
        }
    )
    frame.loc[:9, "income"] = None
    frame.to_csv(folder / "loans.csv", index=False)
    lines = ("--likelihood", "income=Gamma", "--likelihood", "debt=Hurdle(LogNormal)")
    run("fit", folder / "loans.csv", *lines, *FIT, "--out", folder / "run")
    return folder


@pytest.mark.slow
def test_a_run_of_a_table_holds_its_lines(folder):
    vae = pv.load(folder / "run")
    assert vae.record.schema.likelihood["income"] == "Gamma"
    assert vae.record.schema.likelihood["debt"] == "Hurdle(LogNormal)"


@pytest.mark.slow
def test_a_name_of_a_column_may_hold_an_equals_sign(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(5, 1, 40), "a=b": rng.choice(["u=1", "v"], 40)})
    frame.assign(**{"b=": rng.gamma(2, 3, 40)}).to_csv(tmp_path / "t.csv", index=False)
    run("fit", tmp_path / "t.csv", "--likelihood", "b==Gamma", *FIT, "--out", tmp_path / "run")
    assert pv.load(tmp_path / "run").record.schema.likelihood["b="] == "Gamma"
    run("sample", tmp_path / "run", "--num-samples", 4, "--given", "a=b=u=1", "--given", "a=3")
    drawn = pd.read_csv(tmp_path / "run" / "samples.csv")
    assert (drawn["a=b"] == "u=1").all() and (drawn["a"] == 3).all()


GIVEN = {
    "whole": ("3", 3),
    "number": ("40.5", 40.5),
    "boolean": ("Yes", True),
    "duration": ("2 days", pd.Timedelta(2, unit="D")),
    "time": ("2024-03-01", pd.Timestamp(2024, 3, 1)),
}


@pytest.mark.parametrize("sort", GIVEN)
def test_a_given_cell_is_of_the_type_of_its_column(sort):
    text, value = GIVEN[sort]
    column = Column("a", "real", "Normal", "", sort, "object")
    assert _cell(column, text) == value
    with pytest.raises(ValueError, match=r"column 'a' holds .*, got 'much'"):
        _cell(column, "much")
    form = replace(column, format="%d.%m.%Y" if sort == "time" else "${:,.2f}")
    assert _cell(form, "01.03.2024 $") == "01.03.2024 $"


def test_points_of_a_column_with_decimal_commas_stand_between_thousands(tmp_path):
    """In a later file, and in a cell that is given, too, although these look like numbers."""
    frame = pd.DataFrame({"a": ["1.200,50", "7,25", "3,5"] * 20, "b": np.arange(60.0)})
    table = pv.Table.from_frame(frame, kinds={"a": "real"})
    record = pv.VAE(table, 1, encoder="MLP([2])", decoder="MLP([2])").record
    assert record.words == ("a",)
    frame.assign(a="1.250").to_csv(tmp_path / "x.csv", index=False)
    assert (record.read(read_file(tmp_path / "x.csv", record.words)).values[:, 0] == 1250).all()
    assert _cell(table.schema["a"], "1.000") == "1.000"


@pytest.mark.slow
def test_rows_are_drawn_given_cells(folder):
    run("sample", folder / "run", "--num-samples", 6, "--given", "home=rent")
    drawn = pd.read_csv(folder / "run" / "samples.csv")
    assert list(drawn.columns) == ["home", "income", "debt"] and (drawn["home"] == "rent").all()
    assert "is there already" in refused("sample", folder / "run")
    for cell, words in {
        "home": "--given is COLUMN=VALUE",
        "Home=rent": "no column 'Home'; did you mean home",
        "income=much": "column 'income' holds numbers, as 1200.5, got 'much'",
        "home=castle": "'castle' is not among its levels",
    }.items():
        assert words in refused("sample", folder / "run", "--given", cell, "--force")


@pytest.mark.slow
def test_holes_are_filled_and_other_cells_stay(folder):
    run("impute", folder / "run", folder / "loans.csv")
    before = pd.read_csv(folder / "loans.csv")
    after = pd.read_csv(folder / "loans-imputed.csv")
    assert not after.isna().any().any()
    pd.testing.assert_frame_equal(after.where(before.notna()), before, check_dtype=False)
    assert before["income"].dtype == float and after["income"].dtype == int  # 2, where 2.0 was read


@pytest.mark.slow
def test_a_later_file_is_read_as_the_first_one(tmp_path):
    """Codes stay words where none of them starts with 0, and what is filled is counted."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"zip": rng.choice(["01234", "90210"], 60), "x": rng.normal(size=60)})
    frame.loc[:4, "x"] = -99
    frame.loc[6:9, "zip"] = None
    frame.to_csv(tmp_path / "first.csv", index=False)
    run("fit", tmp_path / "first.csv", "--na-values", "x=-99", *FIT, "--out", tmp_path / "run")
    later = frame[frame["zip"] != "01234"]
    later.to_csv(tmp_path / "later.csv", index=False)
    done = run("impute", tmp_path / "run", tmp_path / "later.csv")
    holes = (later["x"] == -99).sum() + 4
    assert done.code == 0 and done.out.startswith(f"{holes} cells of {len(later)} observations")
    filled = pd.read_csv(tmp_path / "later-imputed.csv", dtype={"zip": str})
    assert filled["zip"].isin(["01234", "90210"]).all() and not (filled["x"] == -99).any()
    x, _ = held_out(tmp_path / "run", pv.load(tmp_path / "run"), tmp_path / "later.csv")
    assert len(x) == len(later)


def test_what_is_made_of_a_file_stands_beside_it(tmp_path, monkeypatch):
    for name in ("loans.csv", "loans.csv.gz"):
        assert beside(tmp_path / name, "imputed") == tmp_path / "loans-imputed.csv"
    monkeypatch.chdir(tmp_path)
    assert beside(Path("."), "z").name == f"{tmp_path.name}-z"
    with pytest.raises(ValueError, match=r"loans.csv.gz: rows .* --out \S*loans.csv$"):
        free_rows("table", tmp_path / "loans.csv.gz", False)
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*absent/x.csv'"):
        write_rows(tmp_path / "absent" / "x.csv", pd.DataFrame({"x": [1]}))


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_rows_of_any_library_are_written(library, tmp_path):
    pytest.importorskip(library)
    columns = {"n": [1.0, None, 3.0], "x": [0.5, 1.0, None], "id": [2.0**60, 1.0, 2.0]}
    frame = make_frame(library, columns)
    text = write_rows(tmp_path / "x.csv", frame).read_text()
    assert text == f"n,x,id\n1,0.5,{2.0**60}\n,1.0,1.0\n3,,2.0\n"


@pytest.mark.slow
def test_a_run_is_conditional_on_columns(folder):
    run("fit", folder / "loans.csv", "--condition", "~ home", *FIT, "--out", folder / "given")
    assert pv.load(folder / "given").record.columns == ("income", "debt")
    assert pv.load(folder / "given").record.design.names == ("home[T.rent]",)
    run("sample", folder / "given", "--num-samples", 6, "--given", "home=rent")
    drawn = pd.read_csv(folder / "given" / "samples.csv")
    assert (drawn["home"] == "rent").all() and drawn["debt"].notna().all()
    assert "conditional on 'home': say its value" in refused(
        "sample", folder / "given", "--given", "income=9", "--force"
    )
    assert "names 'hom'" in refused("fit", folder / "loans.csv", "--condition", "~ hom", *FIT)


@pytest.mark.slow
def test_a_report_of_a_table(folder):
    run("report", folder / "run", "--num-samples", 50, "--steps", 5)
    assert "log p(x)" in (folder / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["LogNormal"], "is said by column, got 'LogNormal'"),
        (["incom=Normal"], "no column 'incom'; did you mean income"),
        (["income=Norml"], "unknown family 'Norml'"),
    ],
)
def test_a_wrong_line_is_answered(folder, lines, words):
    flags = [flag for line in lines for flag in ("--likelihood", line)]
    out = refused("fit", folder / "loans.csv", *flags, *FIT, "--out", folder / "no")
    assert words in out and not (folder / "no").exists()


def test_lines_by_column_are_of_a_table(tmp_path):
    flags = ("--likelihood", "a=Normal", "--likelihood", "b=Normal")
    out = refused("fit", "digits", *flags, *FIT, "--out", tmp_path / "no")
    assert "likelihoods by column are of a table" in out


@pytest.mark.slow
def test_what_stands_for_missing_and_events_are_said(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "months": rng.gamma(2, 9, 60).round(1) + 0.1,
            "status": rng.integers(0, 2, 60),
            "age": np.where(rng.random(60) < 0.2, -999, rng.integers(20, 80, 60)),
        }
    )
    frame.to_csv(tmp_path / "p.csv", index=False)
    told = ("--censored", "months=status", "--na-values", "age=-999")
    run("fit", tmp_path / "p.csv", *told, *FIT, "--out", tmp_path / "run")
    schema = pv.load(tmp_path / "run").record.schema
    assert schema.likelihood == {"months": "Censored(Weibull)", "age": "Normal"}
    assert schema["age"].na_values == (-999,) and schema["months"].event == "status"
    run("impute", tmp_path / "run", tmp_path / "p.csv", "--draws", 2, "--num-samples", 100)
    first, second = (pd.read_csv(tmp_path / f"p-imputed-{i}.csv") for i in (1, 2))
    assert (first["age"] != -999).all() and not first.equals(second)
    assert first[["months", "status"]].equals(frame[["months", "status"]])
    run("sample", tmp_path / "run", "--num-samples", 5)
    assert (pd.read_csv(tmp_path / "run" / "samples.csv")["status"] == 1).all()
    run("evaluate", tmp_path / "run", "--num-samples", 30, "--steps", 2)
    for flags, words in {
        ("--censored", "months"): "censored is TIME=EVENT, got 'months'",
        ("--na-values", "age=-999", "--na-values", "?"): "each of a column, COLUMN=VALUE",
        ("--kinds", "age"): "kinds is COLUMN=KIND, got 'age'",
        ("--kinds", "age=old"): "the kind of column 'age' is one of real,",
        ("--dates", "aeg=%Y"): "dates names the column 'aeg', which the frame does not have",
    }.items():
        out = refused("fit", tmp_path / "p.csv", *flags, *FIT, "--out", tmp_path / "no")
        assert words in out and not (tmp_path / "no").exists()


@pytest.mark.parametrize("name", ["likelihood", "covariates", "censored", "kinds", "dates"])
def test_a_column_is_said_once(name):
    settings = merge({"data": "x.csv", name: ["a=Normal", "b=Normal", "a=Laplace"]}, {})
    with pytest.raises(ValueError, match=f"{name} says column 'a' twice: leave one out"):
        _ = settings.by_column, settings.of_condition, settings.of_table


def test_kinds_levels_and_dates_are_said_in_flags_and_messages_say_them(tmp_path):
    n = 40
    frame = pd.DataFrame(
        {
            "zip": np.arange(n) % 4 + 8000,
            "size": np.tile([*"SML", "S"], n // 4),
            "stars": np.tile([1, 3, 2, 3], n // 4),
            "day": np.tile(["01/02/2020", "03/04/2021"], n // 2),
            "y": np.linspace(0, 1, n),
        }
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    told = ["zip=categorical", "size=S,M,L", "stars=3, 2, 1", "y=real"]
    settings = merge(
        {"data": str(tmp_path / "x.csv"), "kinds": told, "dates": ["day=%d/%m/%Y"]}, {}
    )
    schema = pv.load_data(settings.data, **settings.of_table).train.schema
    kinds = {name: schema[name].kind for name in schema.names}
    assert kinds == {
        "zip": "categorical", "size": "ordinal", "stars": "ordinal", "day": "time", "y": "real"
    }  # fmt: skip
    assert schema["size"].levels == ("S", "M", "L") and schema["stars"].levels == (3, 2, 1)
    out = refused(
        "fit", tmp_path / "x.csv", *FIT, "--kinds", "size=ordinal", "--out", tmp_path / "a"
    )
    advice = re.search(r"--kinds (size=\S+)", out)[1]
    again = merge({"kinds": [advice], "dates": ["day=%d/%m/%Y"]}, {}).of_table
    again = pv.load_data(settings.data, **again)
    assert again.train.schema["size"].kind == "ordinal"
    np.save(tmp_path / "x.npy", np.eye(20))
    for flag in ("--kinds", "--dates", "--censored", "--na-values"):
        out = refused("fit", tmp_path / "x.npy", *FIT, flag, "a=b", "--out", tmp_path / "a")
        assert "is of a table, and" in out and "leave it out" in out


def test_messages_of_columns_are_in_flags():
    for text, flags in {
        "kinds={'a b': 'identifier'}; or": "--kinds 'a b=identifier'; or",
        "Table.from_frame(df, censored={'time': 'dead'})": "--censored time=dead",
        "na_values={'x': [-999, '?']}, na_values={'x': []}": (
            "--na-values x=-999 --na-values 'x=?', --na-values x="
        ),
        "na_values=['?']": "--na-values '?'",
        "likelihood={'Income': 'Normal'}, or": "--likelihood Income=Normal, or",
        "kinds={name: 'categorical'}": "kinds={name: 'categorical'}",
    }.items():
        assert in_flags(text) == flags
    assert merge({"na_values": ["x="]}, {}).of_table["na_values"] == {"x": []}
    given = merge({"na_values": ["zip=00003", "age=-9"]}, {}).of_table["na_values"]
    frame = pd.DataFrame({"zip": ["00003", "00017", "00018"] * 9, "age": [-9.0, 30.5, 40.25] * 9})
    assert pv.Table.from_frame(frame, na_values=given).missing.mean(0).tolist() == [1 / 3, 1 / 3]


def test_covariates_and_inputs_reach_the_model(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"y": rng.normal(size=40), "age": rng.normal(size=40), "sick": [0, 1] * 20}
    )
    frame.where(rng.random(frame.shape) > 0.2).to_csv(tmp_path / "x.csv", index=False)
    told = {"data": str(tmp_path / "x.csv"), "condition": "~ age + sick", "inputs": "raw"}
    told |= {"encoder": "MLP([3])", "decoder": "MLP([3])"}
    settings = merge({"covariates": ["age=Normal", "sick=Bernoulli"], **told}, {})
    vae = new_model(settings, pv.load_data(settings.data))
    assert set(vae.record.covariates) == {"age", "sick"} and vae.inputs.mode == "raw"
    with pytest.raises(ValueError, match="covariates is COLUMN=LINE, got 'age'"):
        new_model(replace(settings, covariates=("age",)), pv.load_data(settings.data))


def test_rows_are_not_written_as_arrays(folder):
    for command in (("sample", folder / "run"), ("impute", folder / "run", folder / "loans.csv")):
        out = refused(*command, "--out", folder / "x.npy")
        assert "rows of a table are written as .csv, .tsv, .parquet: --out" in " ".join(out.split())
        assert not (folder / "x.npy").exists()


@pytest.mark.slow
def test_how_cells_go_missing_is_said(folder, tmp_path):
    run("fit", folder / "loans.csv", *FIT, "--missing", "Bernoulli", "--out", tmp_path / "run")
    run("sample", tmp_path / "run", "--num-samples", 200)
    assert pd.read_csv(tmp_path / "run" / "samples.csv")["income"].isna().any()
    words = "SelfMasking"
    refusal = refused(
        "fit", folder / "loans.csv", *FIT, "--missing", "Selfmaskin", "--out", tmp_path / "no"
    )
    assert words in refusal
