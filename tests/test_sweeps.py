"""Sweeps: each run once, a failure is a row, and differences are those of the same data."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pyro_vae as pv
from pyro_vae import sweeps
from pyro_vae.cli import app
from pyro_vae.runs import RESULTS, TEST
from pyro_vae.settings import write_toml


def finish(folder, elbo):
    """What a finished run leaves, as far as a comparison goes."""
    folder.mkdir(parents=True)
    np.save(folder / TEST, elbo)
    write_toml(folder / RESULTS, {"elbo_test": elbo.mean(), "training_seconds": 1.0}, "a run")
    return str(folder)


@pytest.fixture
def quick(monkeypatch):
    """Runs that take no time; those asked for are recorded."""
    asked = []

    def command(settings, folder, threads):
        asked.append(settings)
        if settings["prior"] == "Cauchy":
            return "error: no"
        finish(folder, np.full(5, -float(settings["latent_dim"])))
        return ""

    monkeypatch.setattr(sweeps, "_command", command)
    return asked


def test_what_is_finished_is_not_run_again(quick, tmp_path):
    configs = [{"latent_dim": d, "seed": s, "epochs": 3} for d in (2, 3) for s in (0, 1)]
    table = pv.sweep(configs, tmp_path, jobs=2)
    assert len(quick) == 4
    assert all(told["epochs"] == 3 and told["prior"] == "Normal" for told in quick)
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


def test_differences_are_paired_by_seed_and_datum(tmp_path):
    rng = np.random.default_rng(0)
    rows, common = [], rng.normal(-90, 20, (2, 500))  # what is hard is hard for both
    gain = rng.normal(1.5, 0.5, (2, 500))
    for seed in (0, 1):
        for name, elbo in (("Normal", common[seed]), ("VampPrior", common[seed] + gain[seed])):
            folder = finish(tmp_path / f"{name}{seed}", elbo)
            rows.append({"prior": name, "seed": seed, "folder": folder, "training_seconds": 1.0})
    found = pv.paired_differences(pd.DataFrame(rows), "prior")
    first, second = found.loc["Normal"], found.loc["VampPrior"]
    assert first.difference == first.difference_standard_error == 0
    assert second.difference == pytest.approx(gain.mean())
    assert second.difference == pytest.approx(second.elbo_test - first.elbo_test)
    expected = gain.mean(0).std(ddof=1) / 500**0.5
    assert second.difference_standard_error == pytest.approx(expected)
    assert second.difference_standard_error < second.standard_error / 20
    assert second.difference_seed_sd == pytest.approx(gain.mean(1).std(ddof=1))
    with pytest.raises(ValueError, match="prior=VampPrior has other seeds"):
        pv.paired_differences(pd.DataFrame(rows[:-1]), "prior")


def test_a_sweep_says_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="nothing to run"):
        pv.sweep([], tmp_path)
    with pytest.raises(ValueError, match="unknown key 'epoch'; did you mean epochs"):
        pv.sweep([{"epoch": 3}], tmp_path)
    with pytest.raises(ValueError, match="jobs must be"):
        pv.sweep([{}], tmp_path, jobs=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'pyro-vae\[ray\]'"):
        pv.sweep([{}], tmp_path, address="auto")


def test_a_cluster_runs_the_same_and_sends_the_folders_back(quick, tmp_path, monkeypatch):
    calls = []
    ray = SimpleNamespace(
        init=lambda **told: calls.append(told),
        shutdown=lambda: calls.append("shutdown"),
        remote=lambda num_cpus: lambda f: SimpleNamespace(remote=lambda s: Ref(f(s))),
        wait=lambda left: (left[:1], left[1:]),
        get=lambda ref: ref.value,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    configs = [{"prior": p} for p in ("Normal", "Cauchy", "Laplace")]
    table = pv.sweep(configs, tmp_path, address="ray://here:10001")
    assert calls[0]["address"] == "ray://here:10001"
    assert calls[-1] == "shutdown"
    assert table.error.tolist() == ["", "error: no", ""]
    assert len(pv.paired_differences(table[table.error == ""], "prior")) == 2


class Ref:
    def __init__(self, value):
        self.value = value


def test_compare_trains_each_and_prints_the_differences(tmp_path):
    told = "compare priors digits --epochs 2 --latent-dim 2 --encoder MLP([8]) --decoder MLP([8])"
    told = [*told.split(), "--prior", "Normal", "--prior", "Laplace", "--jobs", "2"]
    done = CliRunner().invoke(app, [*told, "--out", str(tmp_path / "sweep")])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "sweep" / "priors.csv", index_col="prior")
    assert table.index.tolist() == ["Normal", "Laplace"]
    assert table.difference["Normal"] == 0 < table.difference_standard_error["Laplace"]
    assert "difference to the first line on the same data" in done.output
    assert "Laplace" in done.output
    runs = pd.read_csv(tmp_path / "sweep" / "runs.csv")
    for folder, prior, elbo in zip(runs.folder, runs.prior, runs.elbo_test, strict=True):
        assert pv.load(folder).describe()["prior"] == prior
        assert np.load(os.path.join(folder, TEST)).mean() == pytest.approx(elbo, rel=1e-6)
