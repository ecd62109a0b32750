"""The command line: what a run leaves behind, what repeats it, and an answer to each mistake."""

import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import pyro_vae as pv
from helpers.commands import Command, run
from pyro_vae.core.toml import read_config, write_toml
from pyro_vae.infer.training.checkpoint import read
from pyro_vae.infer.training.preparation import fingerprint
from pyro_vae.runs.settings import RunSettings, merge

pytestmark = pytest.mark.usefixtures("short_pilot")

DEFAULTS = asdict(RunSettings())
ROOT = Path(__file__).parents[1]
SMALL = ("--encoder", "MLP([16])", "--decoder", "MLP([16])", "--latent-dim", "2")
HEAVY = ("torch", "pyro", "pandas", "sklearn", "matplotlib", "torchvision")

CONTENTS = {
    "checkpoint.safetensors", "checkpoint.previous.safetensors", "config.toml", "history.csv",
    "model.safetensors", "model.toml", "results.toml", "elbo_test.npy",
    "pictures/latent_space.png", "pictures/learning_curves.png",
    "pictures/reconstructions.png", "pictures/samples.png",
}  # fmt: skip


def contents(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def same_weights(first: Path, second: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def row(label: str, out: str) -> list[float]:
    """The numbers of a line of the table that a command prints."""
    (line,) = [line for line in out.splitlines() if line.startswith(label)]
    return [float(number) for number in line[len(label) :].split()]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from more, and lose much on a machine that is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder, and what the command that made it printed; tests read it only."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    done = run("fit", "digits", "--epochs", 2, "--out", folder)
    assert (done.code, done.err) == (0, "")
    return folder, done.out


@pytest.fixture
def copy(trained, tmp_path):
    """A run folder of this test's own."""
    return Path(shutil.copytree(trained[0], tmp_path / "copy"))


# Help.


@pytest.mark.process
@pytest.mark.parametrize("args", [["--help"], ["fit", "--help"], ["sample", "--help"]], ids=str)
def test_help_imports_nothing_heavy(args):
    code = (
        "import sys\n"
        f"sys.argv = ['pyro-vae', *{args}]\n"
        "from pyro_vae.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"heavy = [m for m in {HEAVY} if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_help_names_every_setting_and_its_default():
    text = " ".join(run("fit", "--help").out.split())
    for name, default in DEFAULTS.items():
        if name != "data":
            assert f"--{name.replace('_', '-')} " in text
        if default is not None:
            assert f"[default: {default}]" in text


@pytest.mark.parametrize("args", [["--help"], ["compare", "--help"]], ids=str)
def test_help_is_not_cut(args, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = run(*args).out.split("Commands:\n")[1]
    assert "..." not in commands and max(map(len, commands.splitlines())) <= 80


def test_version():
    done = run("--version")
    assert (done.code, done.out) == (0, f"pyro-vae {pv.__version__}\n")


def test_families_are_listed_and_described():
    done = run("families")
    assert done.code == 0 and re.search(r"(?m)^StudentT: .+\n +family; prior, likelihood", done.out)
    done = run("families", "StudentT")
    assert done.code == 0 and "a number greater than 0" in done.out and "scale" in done.out
    done = run("families", "StudenT")
    assert done.code == 2 and "did you mean StudentT" in done.err


FILES = {
    "data": ["fit", "none.npy"],
    "configuration": ["fit", "--config", "none.toml"],
    "run": ["sample", "none"],
    "array": ["encode", ".", "none.npy"],
    "coded": ["decompress", ".", "none.pvc"],
    "swept": ["compare", "priors", "none.npy", "--prior", "Normal", "--prior", "Laplace"],
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.slow
def test_a_missing_file_is_said_before_anything_heavy_is_imported(case):
    code = (
        "import sys\nfrom pyro_vae.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 2\n"
        f"assert not {set(HEAVY)} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *FILES[case]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "none" in done.stderr and "Traceback" not in done.stderr


# Each argument of `fit`, said once.

SAID = {  # name: a value that is not the default, and how a flag says it
    "data": ("x.npy", "x.npy"),
    "data_root": ("files", "--data-root files"),
    "size": (64, "--size 64"),
    "layout": ("HWC", "--layout HWC"),
    "units": ("data", "--units data"),
    "likelihood": ("Normal", "--likelihood Normal"),
    "tokens": ("words", "--tokens words"),
    "prior": ("Laplace", "--prior Laplace"),
    "guide": ("Laplace", "--guide Laplace"),
    "latent_dim": (3, "--latent-dim 3"),
    "layers": ((5, 3), "--layers [5,3]"),
    "encoder": ("MLP([4])", "--encoder MLP([4])"),
    "decoder": ("MLP([4])", "--decoder MLP([4])"),
    "missing": ("SelfMasking(sign=1)", "--missing SelfMasking(sign=1)"),
    "censored": (("time=dead",), "--censored time=dead"),
    "na_values": (("-999",), "--na-values=-999"),
    "kinds": (("a=real", "b=u,v"), "--kinds a=real --kinds b=u,v"),
    "dates": (("a=%d/%m/%Y",), "--dates=a=%d/%m/%Y"),
    "condition": ("~age", "--condition ~age"),
    "covariates": (("age=Normal",), "--covariates age=Normal"),
    "inputs": ("raw", "--inputs raw"),
    "offset": ("years", "--offset years"),
    "weight": ("w", "--weight w"),
    "device": ("cpu", "--device cpu"),
    "estimator": ("IWAE", "--estimator IWAE"),
    "epochs": (7, "--epochs 7"),
    "batch_size": (50, "--batch-size 50"),
    "lr": (0.01, "--lr 0.01"),
    "optimizer": ("SGD", "--optimizer SGD"),
    "beta": ("linear(0,1,epochs=3)", "--beta linear(0,1,epochs=3)"),
    "free_bits": (0.5, "--free-bits 0.5"),
    "aggressive": (5, "--aggressive 5"),
    "binarize": ("static", "--binarize static"),
    "validation": (0.2, "--validation 0.2"),
    "patience": (4, "--patience 4"),
    "seed": (9, "--seed 9"),
    "checkpoint_every": (2, "--checkpoint-every 2"),
    "checkpoint_minutes": (1.5, "--checkpoint-minutes 1.5"),
    "compile": (False, "--compile false"),
    "precision": ("bf16", "--precision bf16"),
    "progress": (False, "--no-progress"),
}


def test_every_argument_of_fit_is_a_setting():
    given = inspect.signature(pv.fit).parameters.keys()
    objects = {"vae", "x", "out", "resume", "callbacks", "steps_per_epoch"}  # the last of streams
    assert given - objects <= DEFAULTS.keys() == SAID.keys()


def test_every_argument_of_a_model_is_a_setting():
    given = inspect.signature(pv.VAE).parameters.keys()
    assert given - {"x_shape"} <= DEFAULTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SAID)
def test_a_setting_is_the_same_from_a_flag_a_file_and_a_sweep(name, tmp_path, monkeypatch):
    from pyro_vae.cli import training
    from pyro_vae.runs import folder, sweeps

    value, flag = SAID[name]
    told = []
    outcome = SimpleNamespace(fitted=SimpleNamespace(interrupted=False, signal=None))
    monkeypatch.setattr(
        folder, "train", lambda settings, *_, **__: told.append(settings) or outcome
    )
    monkeypatch.setattr(training, "check_data", lambda name: None)
    monkeypatch.setattr(pv.infer.engine.distributed, "leads", lambda: False)
    assert run("fit", *flag.split()).code == 0
    write_toml(tmp_path / "c.toml", {name: value}, "one setting")
    assert run("fit", "--config", tmp_path / "c.toml").code == 0
    monkeypatch.setattr(sweeps, "_train", lambda settings, *_: told.append(settings) or "")
    pv.sweep([{name: value}], tmp_path / "sweep")
    expected = replace(RunSettings(), **{name: value})
    assert told == [expected] * 3 and expected != RunSettings()


@pytest.mark.slow
def test_free_bits_aggressive_and_precision_reach_the_training(tmp_path):
    given = ("--free-bits", 0.5, "--aggressive", 5, "--precision", "bf16")
    done = run("fit", "digits", *SMALL, *given, "--epochs", 1, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    told = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    kept = read(tmp_path / "run")["identity"]
    for name, value in {"free_bits": 0.5, "aggressive": 5, "precision": "bf16"}.items():
        assert told[name] == kept[name] == value


# What a run leaves behind.


@pytest.mark.slow
def test_fit_writes_the_run_folder_and_lists_it(trained):
    folder, out = trained
    assert contents(folder) == CONTENTS
    listed = out[out.index(f"run folder: {folder}") :].splitlines()[1:]
    assert {line.strip() for line in listed} == CONTENTS
    for path in (folder / "pictures").iterdir():
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
def test_fit_records_what_it_was_told(trained):
    told = tomllib.loads((trained[0] / "config.toml").read_text())
    expected = {k: v for k, v in DEFAULTS.items() if v is not None}
    x = pv.load_data("digits").train
    of_data = {"data_shape": list(x.shape), "data_hash": fingerprint(x)[1]}
    assert told == {**expected, **of_data, "epochs": 2, "binarize": "dynamic"}


def test_fit_measures_the_model_it_saves(trained):
    folder, out = trained
    found = tomllib.loads((folder / "results.toml").read_text())
    history = pd.read_csv(folder / "history.csv", index_col="epoch")
    vae = pv.load(folder)
    assert list(history.index) == [1, 2] and found["epochs"] == 2
    assert found["elbo_train"] == pytest.approx(history.elbo_train[2])
    assert found["elbo_validation"] == pytest.approx(history.elbo_validation[2])
    assert found["parameters"] == sum(p.numel() for p in vae.parameters())
    # by its definition; the two are means over the same draws
    difference = found["log_likelihood_test"] - found["kl_test"]
    assert found["elbo_test"] == pytest.approx(difference, rel=1e-5)
    # better than 64 fair coins, and no better than certainty
    assert -64 * np.log(2) < found["elbo_test"] < 0 < found["kl_test"]
    # the same model on other bits and other draws, within 5 standard errors of the two
    torch.manual_seed(1)
    again = pv.elbo(vae, torch.bernoulli(pv.load_data("digits").test), seed=1)
    error, other = found["elbo_test_standard_error"], again.std().item() / len(again) ** 0.5
    assert abs(again.mean().item() - found["elbo_test"]) < 5 * np.hypot(error, other)
    assert row("ELBO, test data", out) == [round(found["elbo_test"], 2), round(error, 2)]
    assert row("ELBO, training data", out) == [round(found["elbo_train"], 2)]


@pytest.mark.slow
def test_the_configuration_of_a_run_repeats_it_bit_for_bit(trained, tmp_path):
    first, second = trained[0], tmp_path / "second"
    torch.manual_seed(12345)  # what the process drew before is of no account
    assert run("fit", "--config", first / "config.toml", "--out", second).code == 0
    assert same_weights(first, second)
    assert (first / "config.toml").read_text() == (second / "config.toml").read_text()
    histories = [pd.read_csv(folder / "history.csv") for folder in (first, second)]
    a, b = (history.drop(columns="seconds") for history in histories)
    pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.mark.slow
def test_another_seed_is_another_run(trained, tmp_path):
    args = ("--config", trained[0] / "config.toml", "--seed", 1, "--out", tmp_path / "other")
    assert run("fit", *args).code == 0
    assert not same_weights(trained[0], tmp_path / "other")


@pytest.mark.slow
def test_a_flag_beats_the_file_and_the_file_the_default(tmp_path):
    write_toml(tmp_path / "c.toml", {"epochs": 3, "latent_dim": 2, "encoder": "MLP([7])"}, "mine")
    out = tmp_path / "run"
    args = ("--epochs", 1, "--decoder", "MLP([5])", "--out", out)
    assert run("fit", "--config", tmp_path / "c.toml", *args).code == 0
    told = read_config(out / "config.toml")
    assert (told["epochs"], told["decoder"]) == (1, "MLP([5])")
    assert (told["latent_dim"], told["encoder"]) == (2, "MLP([7])")
    assert (told["batch_size"], told["data"]) == (DEFAULTS["batch_size"], DEFAULTS["data"])
    vae = pv.load(out)  # and it was done, not only written down
    assert vae.z_shape == (2,) and vae.encoder.hidden == (7,) and vae.decoder.hidden == (5,)
    assert len(pd.read_csv(out / "history.csv")) == 1


@pytest.mark.slow
def test_without_out_the_run_is_named_after_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("counts.npy", np.random.default_rng(0).poisson(3, (40, 5)))
    args = ("--likelihood", "Poisson", "--epochs", 1, *SMALL)
    assert run("fit", "counts.npy", *args).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"counts-\d{8}-\d{6}", folder.name)
    # a table is no image: curves and latent space, and nothing more
    no_images = {"pictures/reconstructions.png", "pictures/samples.png"}
    no_images.add("checkpoint.previous.safetensors")  # of one epoch
    assert contents(folder) == CONTENTS - no_images
    assert "binarize" not in read_config(folder / "config.toml")
    assert pv.load(folder).x_shape == (5,)


LIKELIHOODS = {  # what --binarize is where it is not given
    "Bernoulli": "dynamic",
    "ContinuousBernoulli": None,
    "Normal(scale=learned)": None,
}


@pytest.mark.parametrize("line", LIKELIHOODS)
@pytest.mark.slow
def test_likelihoods_in_a_line(line, tmp_path):
    done = run("fit", "--likelihood", line, "--epochs", 1, *SMALL, "--out", tmp_path / "run")
    assert done.code == 0
    told = read_config(tmp_path / "run" / "config.toml")
    assert told["likelihood"] == line and told.get("binarize") == LIKELIHOODS[line]
    assert pv.load(tmp_path / "run").describe()["likelihood"] == line


# Show and sample.


def test_show_prints_the_model_the_settings_and_the_figures(trained):
    folder, printed = trained
    done = run("show", folder)
    assert (done.code, done.err) == (0, "")
    for line in ('likelihood = "Bernoulli"', "latent_dim = [10]", "epochs = 2", "seed = 0"):
        assert f"  {line}\n" in done.out
    for label in ("ELBO, training data", "ELBO, validation data", "ELBO, test data"):
        assert row(label, done.out) == row(label, printed)
    assert set(done.out.splitlines()) >= CONTENTS


@pytest.mark.slow
def test_sample_draws_data_by_seed_and_a_picture(copy, tmp_path):
    done = run("sample", copy, "--num-samples", 5, "--seed", 3)
    assert (done.code, done.err) == (0, "")
    assert f"5 samples of shape (1, 8, 8): {copy / 'samples.npy'}" in done.out
    x = np.load(copy / "samples.npy")
    assert x.shape == (5, 1, 8, 8) and set(np.unique(x)) == {0, 1}
    assert np.array_equal(x, pv.load(copy).sample(5, seed=3))
    assert f"picture: {copy / 'samples.png'}" in done.out
    assert (copy / "samples.png").read_bytes()[:4] == b"\x89PNG"
    run("sample", copy, "--num-samples", 5, "--seed", 4, "--out", tmp_path / "other")
    other = np.load(tmp_path / "other.npy")
    assert other.shape == x.shape and not np.array_equal(other, x)


@pytest.mark.slow
def test_encode_and_impute_write_what_the_model_says(copy, tmp_path):
    vae, x = pv.load(copy), torch.bernoulli(pv.load_data("digits").test[:20])
    np.save(tmp_path / "x.npy", x.numpy())
    done = run("encode", copy, tmp_path / "x.npy")
    assert (done.code, done.err) == (0, "")
    z = np.load(tmp_path / "x-z.npy")
    assert np.allclose(z, vae.encode(x).mean.detach(), atol=1e-6)
    assert done.out == f"z of shape (10,) for 20 observations: {tmp_path / 'x-z.npy'}\n"

    np.save(tmp_path / "rows.npy", np.where(np.eye(20, 3) == 1, np.nan, np.ones((20, 3))))
    flags = ("--likelihood", "Normal", "--epochs", 1, *SMALL, "--out", tmp_path / "run")
    assert run("fit", tmp_path / "rows.npy", *flags).code == 0
    done = run("impute", tmp_path / "run", tmp_path / "rows.npy", "--num-samples", 50)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("3 cells of 20 observations: ")
    x = np.load(tmp_path / "rows.npy")
    filled = np.load(tmp_path / "rows-imputed.npy")
    assert np.array_equal(filled[~np.isnan(x)], x[~np.isnan(x)]) and np.isfinite(filled).all()
    expected = pv.load(tmp_path / "run").impute(x, num_samples=50, seed=0)
    assert np.array_equal(filled, expected)


@pytest.mark.slow
def test_nothing_is_written_over_without_force(copy):
    assert run("sample", copy, "--num-samples", 2).code == 0
    before = (copy / "samples.npy").read_bytes()
    done = run("sample", copy, "--num-samples", 2, "--seed", 1)
    assert done.code == 2 and f"{copy / 'samples.npy'} is there already: --force" in done.err
    assert (copy / "samples.npy").read_bytes() == before
    assert run("sample", copy, "--num-samples", 2, "--seed", 1, "--force").code == 0
    assert (copy / "samples.npy").read_bytes() != before
    (copy / "samples.npy").unlink()  # the picture is spared too
    done = run("sample", copy, "--num-samples", 2)
    assert done.code == 2 and f"{copy / 'samples.png'} is there already" in done.err


# Mistakes: exit code 2 and a message, and no run folder.

WRONG = {
    "data": (["digitz"], r"unknown data 'digitz'; did you mean digits\?"),
    "file": (["none.npy"], r"there is no file none\.npy"),
    "no name": ([""], "the name of the data is empty: give a file"),
    "no files in the root": (["kmnist", "--data-root", "."], "KMNIST is not in "),
    "likelihood": (["--likelihood", "Bernouli"],
                   r"unknown family 'Bernouli'; did you mean Bernoulli or .*\n  Bernouli\n  \^"),
    "parameter": (["--likelihood", "Normal(scal=learned)"],
                  r"Normal has no parameter 'scal'; did you mean scale\?\n.*\n {9}\^ column 8"),
    "not a line": (["--prior", "Normal("], r"error: .*\n  Normal\("),
    "support": (["--likelihood", "Beta"], "x holds 0; Beta .*: shrink the ends"),
    "two supports": (["--prior", "Gamma"], "the guide Normal .* the prior Gamma"),
    "estimator": (["--estimator", "TraceElbo"], "unknown estimator .* did you mean Trace_ELBO"),
    "unsound": (["--estimator", "RenyiELBO(gradient=score)"], "RenyiELBO .* is unsound"),
    "network": (["--encoder", "MPL([20])"], "unknown network 'MPL'.*MLP"),
    "width": (["--encoder", "MLP([0])"], "MLP takes a list of widths"),
    "optimizer": (["--optimizer", "Adamm"], "unknown optimizer 'Adamm'; did you mean Adam"),
    "schedule": (["--lr", "cosin(1e-3)"], r"unknown schedule 'cosin'; did you mean cosine\?"),
    "negative": (["--lr", "-1"], "lr is a number of at least 0, got -1"),
    "binarize": (["--binarize", "often"], r"(?s)--binarize.*'often'.*dynamic"),
    "epochs": (["--epochs", "0"], "epochs is a whole number of at least 1, got 0"),
    "not a number": (["--epochs", "ten"], "(?s)--epochs.*integer"),
    "fraction": (["--validation", "1.5"], "fraction between 0 and 1, got 1.5"),
    "latent": (["--latent-dim", "0"], "latent_dim must be a positive whole number.*got 0"),
    "two widths": (["--latent-dim", "3", "--layers", "[3,2]"], "layers both say .*: leave one out"),
    "device": (["--device", "gpu"], "gpu"),
    "flag": (["--latent", "3"], "(?i)no such option.*--latent"),
    "no configuration": (["--config", "none.toml"], r"there is no file none\.toml"),
    "a folder": (["--config", "."], r"\. is a folder: name a file in it"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_answered(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, message = WRONG[mistake]
    done = run("fit", *args, "--out", "run")
    assert done.code == 2
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err and done.out == ""
    assert not (tmp_path / "run").exists()


CONFIGURATIONS = {
    "unknown key": ('likelihod = "Normal"', "unknown key 'likelihod'; did you mean likelihood?"),
    "a dash": ("batch-size = 10", "unknown key 'batch-size'; did you mean batch_size"),
    "a table": ("[model]\nprior = 'Normal'", "the configuration has an unknown key 'model'"),
    "wrong kind": ('epochs = "ten"', "epochs is a whole number, got 'ten'"),
    "a fraction": ("epochs = 1.5", "epochs is a whole number, got 1.5"),
    "a bool": ("seed = true", "seed is a whole number, got True"),
    "not a line": ("likelihood = 3", "likelihood is text or a list of texts, got 3"),
    "not TOML": ("epochs: 3", "is not a TOML file"),
    "binarize": ('binarize = "often"', "binarize is 'dynamic' or 'static', got 'often'"),
}


@pytest.mark.parametrize("mistake", CONFIGURATIONS)
def test_mistakes_in_a_configuration_are_answered(mistake, tmp_path):
    text, message = CONFIGURATIONS[mistake]
    (tmp_path / "c.toml").write_text(text + "\n")
    done = run("fit", "--config", tmp_path / "c.toml", "--out", tmp_path / "run")
    assert done.code == 2 and message in done.err
    assert "Traceback" not in done.err and not (tmp_path / "run").exists()


MERGED = {  # flags, file: what is told
    "flag": ({"epochs": 3, "seed": None}, {"epochs": 5, "seed": 7}, {"epochs": 3, "seed": 7}),
    "zero": ({"seed": 0}, {"seed": 7}, {"seed": 0}),
    "numbers": ({}, {"lr": 0.01, "beta": 1, "validation": 0.2}, {"lr": 0.01, "beta": 1}),
    "of another library": (
        {},
        {"epochs": np.int64(3), "validation": np.float32(0.5)},
        {"epochs": 3, "validation": 0.5},
    ),
    "nothing": ({}, {}, DEFAULTS),
}


@pytest.mark.parametrize("case", MERGED)
def test_merge(case):
    flags, config, told = MERGED[case]
    merged = asdict(merge(flags, config))
    assert merged.keys() == DEFAULTS.keys()
    assert {k: merged[k] for k in told} == told


def test_settings_survive_a_toml_file(tmp_path):
    settings = {**DEFAULTS, "data": 'a "quoted" \\ näme', "validation": 0.25}
    write_toml(tmp_path / "c.toml", settings, "a comment")
    told = {k: v for k, v in settings.items() if v is not None}
    assert read_config(tmp_path / "c.toml") == told


# Mistakes with run folders.


def test_a_run_is_never_written_over(copy):
    before = (copy / "checkpoint.safetensors").read_bytes()
    done = run("fit", "digits", "--epochs", 1, "--out", copy)
    assert done.code == 2 and f"{copy} holds a run already" in done.err
    assert (copy / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "run"
    args = ("fit", "digits", *SMALL, "--compile", "false", "--out", folder, "--epochs")
    first = Command(*args, 1000)
    try:
        while not (folder / "config.toml").exists() and first.is_alive():
            time.sleep(0.02)
        told = (folder / "config.toml").read_bytes()
        done = run(*args, 1)
        assert done.code == 2
        assert f"{folder} is in use by process {first.pid} on " in done.err
        assert (folder / "config.toml").read_bytes() == told
        while not (folder / "checkpoint.safetensors").exists() and first.is_alive():
            time.sleep(0.02)
        done = run("fit", "--resume", folder)
        assert done.code == 2 and f"is in use by process {first.pid} on " in done.err
    finally:
        first.kill()
        first.join()
    finished = read(folder)["progress"]["epoch"]
    assert run("fit", "--resume", folder, "--epochs", finished + 1).code == 0  # the lock is free
    assert contents(folder) == CONTENTS


@pytest.mark.slow
def test_runs_without_a_name_have_folders_of_their_own(tmp_path, monkeypatch):
    from pyro_vae.runs import folder

    monkeypatch.chdir(tmp_path)
    stopped = SimpleNamespace(now=lambda: datetime(2026, 1, 2, 3, 4, 5))
    monkeypatch.setattr(folder, "datetime", stopped)
    np.save("x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    for _ in range(3):
        assert run("fit", "x.npy", "--likelihood", "Normal", *SMALL, "--epochs", 1).code == 0
    stem = "x-20260102-030405"
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {stem, f"{stem}-2", f"{stem}-3"}


@pytest.mark.slow
def test_a_name_of_data_may_hold_any_character(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "\N{GRINNING FACE}'\"\\ \x7fnä.npy"
    np.save(name, np.random.default_rng(0).normal(size=(40, 3)))
    flags = ("--likelihood", "Normal", "--epochs", 1, *SMALL, "--out", "run")
    write_toml(tmp_path / "c.toml", {"data": name}, "mine")
    done = run("fit", "--config", "c.toml", *flags)
    assert done.code == 0, done.err
    assert read_config(tmp_path / "run" / "config.toml")["data"] == name
    assert (
        run("show", "run").code == run("report", "run", "--steps", 2, "--num-samples", 20).code == 0
    )
    assert run("fit", "--config", "run/config.toml", "--out", "again").code == 0


def test_latent_dim_beats_the_layers_of_a_file_and_none_need_be_held_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text('data = "digits"\nlayers = [3, 2]\nvalidation = 0\n')
    flags = ("--latent-dim", 3, "--epochs", 2, "--out", "run")
    assert run("fit", "--config", "c.toml", *flags).code == 0
    assert pv.load("run").describe()["latent_dim"] == (3,)
    table = pd.read_csv("run/history.csv")
    assert table.elbo_train.notna().all() and table.elbo_validation.isna().all()


def fit_array(x, likelihood, folder):
    """``fit`` of a file with x, to ``r`` in the same folder."""
    np.save(folder / "x.npy", x)
    flags = ("--epochs", 2, "--likelihood", likelihood, "--out", folder / "r")
    return run("fit", folder / "x.npy", *flags)


@pytest.mark.parametrize("part", ["test", "train"])
def test_a_cell_that_cannot_be_is_told_by_its_row_in_the_file(part, tmp_path):
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    row = int(order[2 if part == "test" else 9])
    x = np.random.default_rng(0).poisson(3.0, (60, 4))
    x[row, 1] = -1
    done = fit_array(x, "Poisson", tmp_path)
    assert done.code == 2 and not (tmp_path / "r").exists()
    assert "x holds -1; Poisson needs" in done.err and f"(first in row {row}, cell 1)" in done.err


def test_the_first_error_of_real_numbers_says_what_serves_them(tmp_path):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)).numpy()
    for line in ("Bernoulli", "ContinuousBernoulli"):
        told = fit_array(x, line, tmp_path)
        assert re.search("of (other numbers|numbers of either sign) Normal", told.err)
    assert fit_array(x, "Normal", tmp_path).code == 0


RESUMED = {  # flags, and what the answer asks to leave out
    "a setting": (["--lr", "0.1"], "--lr"),
    "other data": (["mnist"], "DATA"),
    "its default": (["--seed", "0", "--epochs", "9"], "--seed"),
    "another folder": (["--out", "elsewhere"], "--out"),
    "a configuration": (["--config", "c.toml", "--prior", "Laplace"], "--config, --prior"),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_keeps_its_settings(case, copy):
    flags, named = RESUMED[case]
    done = run("fit", "--resume", copy, *flags)
    assert done.code == 2
    assert f"a resumed run keeps its settings: leave out {named}\n" in done.err


@pytest.mark.slow
def test_a_finished_run_that_is_resumed_stays_as_it_is(trained, copy):
    done = run("fit", "--resume", copy)
    assert done.code == 0
    assert same_weights(trained[0], copy)
    files = ("config.toml", "history.csv", "results.toml")
    assert all((copy / f).read_text() == (trained[0] / f).read_text() for f in files)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


FOLDERS = {  # command: what is done to the folder, and the answer
    "fit --resume, no folder": (["fit", "--resume"], shutil.rmtree, r"config\.toml|no run"),
    "fit --resume, no checkpoint": (
        ["fit", "--resume"], lambda p: [f.unlink() for f in p.glob("checkpoint*")],
        r"holds no checkpoint \(checkpoint\.safetensors\) to resume from"),
    "fit --resume, damaged": (
        ["fit", "--resume"], lambda p: [cut(f) for f in p.glob("checkpoint*")],
        r"checkpoint\.safetensors is damaged, or not a checkpoint"),
    "sample, no folder": (["sample"], shutil.rmtree, "(?s)RUN.*does not exist"),
    "sample, no weights": (
        ["sample"], lambda p: (p / "model.safetensors").unlink(),
        r"holds no saved model: .*model\.safetensors is missing"),
    "sample, damaged": (
        ["sample"], lambda p: cut(p / "model.safetensors"), "holds a damaged model"),
    "show, no folder": (["show"], shutil.rmtree, "(?s)RUN.*does not exist"),
    "show, no model": (
        ["show"], lambda p: (p / "model.toml").unlink(), r"no run folder: it holds no model\.toml"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_what_is_no_run_folder_is_named(case, copy):
    command, damage, message = FOLDERS[case]
    damage(copy)
    done = run(*command, copy)
    assert done.code == 2 and re.search(message, done.err), done.err
    assert str(copy) in done.err and "Traceback" not in done.err


def test_a_folder_that_cannot_be_made_is_an_answer_before_training(tmp_path):
    (tmp_path / "file").touch()
    done = run("fit", "digits", "--epochs", 1, *SMALL, "--out", tmp_path / "file" / "run")
    assert done.code == 2 and str(tmp_path / "file") in done.err
    assert f"{tmp_path / 'file'} is a file, and no folder: give another" in done.err


# Ctrl-C.


@pytest.mark.process
def test_ctrl_c_leaves_a_run_that_goes_on_as_if_nothing_had_been(tmp_path):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    # a schedule would depend on the epochs, and so would whether it pays to compile
    args = ("digits", *SMALL, "--lr", "1e-3", "--compile", "false")
    training = Command("fit", *args, "--epochs", 1000, "--out", folder)
    try:
        while not (folder / "checkpoint.safetensors").exists() and training.is_alive():
            time.sleep(0.02)
        os.kill(training.pid, signal.SIGINT)
        done = training.done()
    finally:
        training.kill()
    assert training.exitcode == done.code == 130, done.err
    assert f"go on with: pyro-vae fit --resume {folder}" in done.out
    assert "interrupted in epoch" in done.out and "Traceback" not in done.err
    finished = len(pd.read_csv(folder / "history.csv"))
    assert 1 <= finished < 1000
    assert not (folder / "results.toml").exists()

    epochs = finished + 2
    for told in (("--resume", folder), (*args, "--out", whole)):
        done = run("fit", *told, "--epochs", epochs)
        assert done.code == 0, done.err
        assert f"{epochs} epochs in " in done.out
    assert list(pd.read_csv(folder / "history.csv").epoch) == list(range(1, epochs + 1))
    assert contents(folder) == contents(whole) == CONTENTS
    assert same_weights(folder, whole)


@pytest.mark.process
def test_a_run_that_was_killed_can_be_resumed(tmp_path):
    folder = tmp_path / "run"
    args = ("digits", *SMALL, "--compile", "false", "--epochs", 1000)
    training = Command("fit", *args, "--out", folder)
    try:
        while not (folder / "checkpoint.safetensors").exists() and training.is_alive():
            time.sleep(0.02)
    finally:
        training.kill()
        training.join()
    finished = read(folder)["progress"]["epoch"]
    done = run("fit", "--resume", folder, "--epochs", finished + 1)
    assert done.code == 0, done.err
    done = run("fit", "--resume", folder, "--epochs", finished)
    assert done.code == 2 and f"has {finished + 1} epochs already, more than" in done.err
    assert read_config(folder / "config.toml")["epochs"] == finished + 1
    assert "likelihood" in read_config(folder / "config.toml")
