"""Sweeps: each run once, a failure is a row, and differences are those of the same data."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from typer.testing import CliRunner

import pyro_vae as pv
from pyro_vae.cli import app
from pyro_vae.core.toml import write_toml
from pyro_vae.infer.training.folder import RESULTS
from pyro_vae.runs import comparisons, sweeps
from pyro_vae.runs.comparisons import EVIDENCE, Measurement, measure
from pyro_vae.runs.folder import read_results
from pyro_vae.runs.held_out import held_out
from pyro_vae.runs.settings import CONFIG


def finish(folder, log_p, data="the test data", unit="probabilities", rows=None):
    """What a finished run leaves, as far as a comparison goes."""
    folder.mkdir(parents=True)
    write_toml(folder / RESULTS, {"elbo_test": log_p.mean(), "training_seconds": 1.0}, "a run")
    MEASURED[str(folder)] = Measurement(
        log_p, log_p * 0, log_p - 1, log_p * 0 + 7, 3.0, data, unit, log_p * 0 + 1,
        np.arange(len(log_p)) if rows is None else rows,
    )  # fmt: skip
    return str(folder)


MEASURED = {}


@pytest.fixture
def known(monkeypatch):
    """What the runs' models say is as :func:`finish` has it."""
    monkeypatch.setattr(comparisons, "measure", lambda run, **_: MEASURED[str(run)])


@pytest.fixture
def quick(monkeypatch):
    """Runs that take no time; those asked for are recorded."""
    asked = []

    def command(settings, folder, threads):
        asked.append(settings)
        if settings.prior == "Cauchy":
            return "error: no"
        finish(folder, np.full(5, -float(settings.latent_dim)))
        return ""

    monkeypatch.setattr(sweeps, "_train", command)
    return asked


def test_what_is_finished_is_not_run_again(quick, tmp_path):
    configs = [{"latent_dim": d, "seed": s, "epochs": 3} for d in (2, 3) for s in (0, 1)]
    table = pv.sweep(configs, tmp_path, jobs=2)
    assert len(quick) == 4
    assert all(told.epochs == 3 and told.prior == "Normal" for told in quick)
    assert table[["latent_dim", "seed", "elbo_test"]].to_numpy().tolist() == [
        [2, 0, -2], [2, 1, -2], [3, 0, -3], [3, 1, -3],
    ]  # fmt: skip
    assert pv.sweep(configs, tmp_path).equals(table)
    assert len(quick) == 4
    more = pv.sweep([*configs, {"latent_dim": 4}], tmp_path)  # that one has other epochs
    assert len(quick) == 5
    assert more.folder[:4].equals(table.folder)
    assert sorted(f[:-9] for f in os.listdir(tmp_path)) == [  # what is told, and a digest
        "latent_dim-2-epochs-3", "latent_dim-2-epochs-3-seed-1", "latent_dim-3-epochs-3",
        "latent_dim-3-epochs-3-seed-1", "latent_dim-4",
    ]  # fmt: skip


def test_a_failure_is_a_row(quick, tmp_path):
    table = pv.sweep([{"prior": "Cauchy"}, {"prior": "Normal"}], tmp_path)
    assert table.error.tolist() == ["error: no", ""]
    assert table.elbo_test.isna().tolist() == [True, False]
    with pytest.raises(ValueError, match=r"1 runs are not finished: .*Cauchy"):
        pv.paired_differences(table, "prior")
    done = CliRunner().invoke(
        app, ["compare", "priors", "--prior", "Normal", "--prior", "Cauchy", "--out", str(tmp_path)]
    )
    assert "1 of 2 runs failed" in str(done.exception)


def test_differences_are_paired_by_seed_and_observation(known, tmp_path):
    rng = np.random.default_rng(0)
    rows, common = [], rng.normal(-90, 20, (2, 500))  # what is hard is hard for both
    gain = rng.normal(1.5, 0.5, (2, 500))
    for seed in (0, 1):
        for name, log_p in (("Normal", common[seed]), ("VampPrior", common[seed] + gain[seed])):
            folder = finish(tmp_path / f"{name}{seed}", log_p)
            rows.append({"prior": name, "seed": seed, "folder": folder, "training_seconds": 1.0})
    found = pv.paired_differences(pd.DataFrame(rows), "prior")
    first, second = found.loc["Normal"], found.loc["VampPrior"]
    assert first.difference == first.difference_standard_error == 0
    assert second.difference == pytest.approx(gain.mean())
    assert second.difference == pytest.approx(second.log_evidence - first.log_evidence)
    expected = gain.mean(0).std(ddof=1) / 500**0.5
    assert second.difference_standard_error == pytest.approx(expected)
    assert second.difference_standard_error < second.standard_error / 20
    assert second.difference_seed_sd == pytest.approx(gain.mean(1).std(ddof=1))
    assert second[["doubtful", "kl", "active_units", "runs"]].tolist() == [0, 7, 3, 2]
    assert second.elbo == pytest.approx(second.log_evidence - 1)
    with pytest.raises(ValueError, match="prior=VampPrior has other seeds"):
        pv.paired_differences(pd.DataFrame(rows[:-1]), "prior")


def test_rows_that_splits_have_in_common_are_one_draw(known, tmp_path):
    """By the place in the split they were several, and errors too small by a third and more."""
    rng = np.random.default_rng(0)
    everyone, seeds, rows = rng.normal(1.5, 0.5, 1000), range(5), []
    held_out = [rng.choice(1000, 300, replace=False) for _ in seeds]
    for seed, some in zip(seeds, held_out, strict=True):
        for name, gain in (("Normal", 0 * everyone), ("VampPrior", everyone)):
            folder = finish(tmp_path / f"{name}{seed}", gain[some] - 90, str(seed), rows=some)
            rows.append({"prior": name, "seed": seed, "folder": folder, "training_seconds": 1.0})
    found = pv.paired_differences(pd.DataFrame(rows), "prior").loc["VampPrior"]
    times = np.bincount(np.concatenate(held_out), minlength=1000)  # a weighted mean of each once
    away = times[times > 0] * (everyone[times > 0] - found.difference) / 1500
    expected = (np.square(away).sum()) ** 0.5
    assert found.difference_standard_error == pytest.approx(expected, rel=0.02)
    assert expected > 1.3 * 0.5 / 1500**0.5


def test_runs_that_differ_in_more_than_one_setting_are_not_paired(known, tmp_path):
    rows = [
        {
            "prior": prior,
            "latent_dim": dim,
            "folder": finish(tmp_path / f"{prior}{dim}", np.arange(5.0) + dim),
            "training_seconds": 1.0,
        }
        for prior in ("Normal", "VampPrior")
        for dim in (8, 9)
    ]
    table = pd.DataFrame(rows)
    with pytest.raises(
        ValueError,
        match=r"several runs have prior=Normal and seed 0: give the rows that differ in prior and "
        r"seed alone, such as table\[table.latent_dim == 8\]",
    ):
        pv.paired_differences(table, "prior")
    found = pv.paired_differences(table[table.latent_dim == 8], "prior")
    assert found.log_evidence.tolist() == [10, 10] and found.runs.tolist() == [1, 1]
    with pytest.raises(ValueError, match="the table has no column 'priors'; did you mean prior"):
        pv.paired_differences(table, "priors")


def test_a_setting_that_is_not_said_is_a_row(known, tmp_path):
    folders = [finish(tmp_path / name, np.arange(5.0) + i) for i, name in enumerate("ab")]
    rows = {"units": [None, "data"], "folder": folders, "training_seconds": [1.0, 2.0]}
    found = pv.paired_differences(pd.DataFrame(rows), "units")
    assert found.difference.tolist() == [0, 1] and found.training_seconds.tolist() == [1, 2]


@pytest.mark.parametrize("other", [{"data": "bits of it"}, {"unit": "densities"}])
def test_what_has_no_common_unit_has_no_difference(known, other, tmp_path):
    folders = [
        finish(tmp_path / "a", np.arange(5.0)),
        finish(tmp_path / "b", np.arange(4.0) if "data" in other else np.arange(5.0), **other),
    ]
    rows = {"likelihood": ["A", "B"], "folder": folders, "training_seconds": 1.0}
    found = pv.paired_differences(pd.DataFrame(rows), "likelihood")
    assert found.difference.isna().tolist() == [False, True]
    assert found.log_evidence.notna().all()


@pytest.mark.slow
def test_a_run_is_measured_once_and_anew_when_its_weights_change(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 3)).astype("float32"))
    vae = pv.VAE(3, 2, likelihood="Normal", encoder=pv.MLP([4]), decoder=pv.MLP([4]), seed=0)
    run = vae.save(tmp_path / "run")
    write_toml(run / CONFIG, {"data": str(tmp_path / "x.npy"), "seed": 0}, "by hand")
    found = measure(run, num_samples=50)
    x = held_out(run, pv.load(run))[0]
    expected = pv.log_evidence(vae, x, num_samples=50, seed=0)
    assert np.allclose(found.log_evidence, expected.log_evidence)
    assert np.allclose(found.khat, expected.khat)
    assert found.active_units == pv.latent_summary(vae, x, seed=0).active_units
    assert found.unit == "densities"
    asked = []
    real = comparisons.log_evidence
    monkeypatch.setattr(
        comparisons, "log_evidence", lambda *a, **k: asked.append(k) or real(*a, **k)
    )
    again = measure(run, num_samples=50)
    assert not asked and np.array_equal(again.log_evidence, found.log_evidence)
    assert (again.data, again.active_units) == (found.data, found.active_units)
    measure(run, num_samples=60)
    with torch.no_grad():
        vae.likelihood.sources["loc"].head.bias.add_(1)
    vae.save(run)
    assert measure(run, num_samples=60).log_evidence.mean() < found.log_evidence.mean()
    assert len(asked) == 2


@pytest.mark.slow
def test_a_run_is_measured_anew_when_its_data_change_or_its_cache_is_torn(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 60, 3)).astype("float32")
    vae = pv.VAE(3, 2, likelihood="Normal", encoder=pv.MLP([4]), decoder=pv.MLP([4]), seed=0)
    run = vae.save(tmp_path / "run")
    write_toml(run / CONFIG, {"data": str(tmp_path / "x.npy"), "seed": 0}, "by hand")
    found = []
    for rows in x:
        np.save(tmp_path / "x.npy", rows)
        found.append(measure(run, num_samples=50))
        test = held_out(run, pv.load(run))[0]
        expected = pv.log_evidence(vae, test, num_samples=50, seed=0)
        assert np.allclose(found[-1].log_evidence, expected.log_evidence)
    assert found[0].data != found[1].data
    whole = (run / EVIDENCE).read_bytes()
    for torn in (whole[:100], whole[:-1], b"", b"other", whole[:200] + b"0" * 90 + whole[290:]):
        (run / EVIDENCE).write_bytes(torn)
        again = measure(run, num_samples=50)
        assert np.array_equal(again.log_evidence, found[1].log_evidence)
        assert (run / EVIDENCE).read_bytes() == whole


def test_a_sweep_runs_again_when_its_data_file_changes(quick, tmp_path):
    for _ in range(2):
        for value in (0, 1):
            np.save(tmp_path / "x.npy", np.full((20, 2), value))
            pv.sweep([{"data": str(tmp_path / "x.npy")}], tmp_path / "sweep")
    assert len(quick) == 2


def test_one_line_has_nothing_to_be_compared_with(quick):
    done = CliRunner().invoke(app, ["compare", "priors", "--prior", "Normal"])
    assert "nothing to compare: give --prior at least twice" in str(done.exception)
    assert not quick


def test_a_sweep_says_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="nothing to run"):
        pv.sweep([], tmp_path)
    with pytest.raises(ValueError, match="unknown key 'epoch'; did you mean epochs"):
        pv.sweep([{"epoch": 3}], tmp_path)
    with pytest.raises(ValueError, match="jobs is a whole number of at least 1, got 0"):
        pv.sweep([{}], tmp_path, jobs=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'pyro-vae\[ray\]'"):
        pv.sweep([{}], tmp_path, address="auto")


def test_a_cluster_runs_the_same_and_sends_the_folders_back(quick, tmp_path, monkeypatch):
    calls = []
    ray = SimpleNamespace(
        init=lambda **told: calls.append(told),
        shutdown=lambda: calls.append("shutdown"),
        remote=lambda num_cpus: lambda f: SimpleNamespace(remote=lambda *given: Ref(f(*given))),
        wait=lambda left: (left[:1], left[1:]),
        get=lambda ref: ref.value,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    configs = [{"prior": p} for p in ("Normal", "Cauchy", "Laplace")]
    table = pv.sweep(configs, tmp_path, address="ray://here:10001")
    assert calls[0]["address"] == "ray://here:10001"
    assert calls[-1] == "shutdown"
    assert table.error.tolist() == ["", "error: no", ""]
    for folder, elbo in zip(table.folder, table.elbo_test, strict=True):
        found = read_results(Path(folder))
        assert found["elbo_test"] == elbo if found else np.isnan(elbo)
    assert table.elbo_test.isna().tolist() == [False, True, False]


class Ref:
    def __init__(self, value):
        self.value = value


@pytest.mark.process
def test_compare_trains_each_and_prints_the_differences(tmp_path, monkeypatch):
    """One in a process of its own, as all are; and one here, which imports nothing."""
    elsewhere = sweeps._train

    def train(settings, folder, threads):
        if settings.prior == "Normal":
            return sweeps._in_process(settings, folder, {})
        return elsewhere(settings, folder, threads)

    monkeypatch.setattr(sweeps, "_train", train)
    np.save(tmp_path / "x.npy", pv.load_data("digits").train[:100].round())
    told = f"compare priors {tmp_path / 'x.npy'} --epochs 1 --latent-dim 2 --num-samples 200"
    told += " --encoder MLP([8]) --decoder MLP([8]) --prior Normal --prior Laplace --jobs 2"
    done = CliRunner().invoke(app, [*told.split(), "--out", str(tmp_path / "sweep")])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "sweep" / "priors.csv", index_col="prior")
    assert table.index.tolist() == ["Normal", "Laplace"]
    assert table.difference["Normal"] == 0 < table.difference_standard_error["Laplace"]
    said = " ".join(done.output.split())
    assert "held-out log p(x) by 200 draws" in said and "active_units" in said
    assert (table.log_evidence > table.elbo).all() and (table.kl > 0).all()
    assert pyplot.imread(tmp_path / "sweep" / "samples.png")[..., :3].std() > 0.01
    runs = pd.read_csv(tmp_path / "sweep" / "runs.csv")
    for folder, prior in zip(runs.folder, runs.prior, strict=True):
        assert pv.load(folder).describe()["prior"] == prior
        found = measure(folder, num_samples=200).log_evidence
        assert found.mean() == pytest.approx(table.log_evidence[prior], rel=1e-6)


class Net(torch.nn.Module):
    """A network of the user's."""

    def __init__(self, width=6):
        super().__init__()
        self.layer = torch.nn.Linear(64, width)

    def forward(self, x):
        return self.layer(x.flatten(1)).relu()


@pytest.mark.slow
def test_a_sweep_takes_modules_functions_and_lines(tmp_path):
    common = {"epochs": 1, "latent_dim": 2, "decoder": pv.MLP([6]), "lr": 1e-3}
    torch.manual_seed(3)
    encoders = [Net(), Net, lambda: Net(5)]
    before = encoders[0].layer.weight.clone()
    configs = [{**common, "encoder": encoder} for encoder in encoders]
    table = pv.sweep(configs, tmp_path)
    assert table.error.tolist() == [""] * 3 and table.encoder.nunique() == 3
    assert table.encoder.str.startswith("custom Net-").all()
    assert torch.equal(before, encoders[0].layer.weight)  # a copy was trained
    widths = (6, 6, 5)
    models = {
        folder: pv.load(folder, encoder=Net(width))
        for folder, width in zip(table.folder, widths, strict=True)
    }
    found = pv.paired_differences(table, "encoder", models=models, num_samples=10)
    assert found.log_evidence.notna().all() and found.difference.iloc[0] == 0
    with pytest.raises(ValueError, match=r"class of your own .*load\(folder, encoder=...\)"):
        measure(table.folder[0])
    times = [(Path(folder) / RESULTS).stat().st_mtime_ns for folder in table.folder]
    assert pv.sweep(configs[:2], tmp_path).folder.tolist() == table.folder[:2].tolist()
    assert times == [(Path(folder) / RESULTS).stat().st_mtime_ns for folder in table.folder]


def test_a_run_on_a_cluster_goes_on_from_what_its_folder_holds(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    (folder / "pictures").mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"half way")
    (folder / "pictures" / "x.png").write_bytes(b"x")
    seen = {}

    def train(settings, place, threads):
        seen.update(sweeps.files_of(place))
        return "error: no"

    monkeypatch.setattr(sweeps, "_train", train)
    error, files = sweeps.train_elsewhere(None, sweeps.files_of(folder))
    assert error == "error: no" and files == seen == sweeps.files_of(folder)
    assert seen["checkpoint.safetensors"] == b"half way"


def test_a_message_of_several_lines_is_kept_whole(tmp_path, monkeypatch):
    message = "error: unknown family 'Laplce'; did you mean Laplace?\n  Laplce\n  ^ column 1"
    done = SimpleNamespace(returncode=2, stderr=f"warning: before\n{message}\n")
    monkeypatch.setattr(sweeps.subprocess, "run", lambda *_, **__: done)
    table = pv.sweep([{"prior": "Laplce"}], tmp_path)
    assert table.error.tolist() == [message]


def test_every_row_has_a_number_however_often_it_is_there():
    """By the count's last byte alike rows 256 apart were one draw, and errors grew with them."""
    numbers = comparisons._row_numbers(torch.zeros(600, 2))
    assert len(np.unique(numbers)) == 600
    assert (numbers[:300] == comparisons._row_numbers(torch.zeros(300, 2))).all()
