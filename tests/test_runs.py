"""A run of ``pv.fit`` is a run folder: held by one, read by all commands, whole after a kill."""

import os
import resource
import signal
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import pyro_vae as pv
from helpers.commands import Fork
from helpers.commands import run as command
from pyro_vae.core.toml import read_config
from pyro_vae.infer.training import checkpoint
from pyro_vae.infer.training.preparation import fingerprint
from pyro_vae.runs.comparisons import measure
from pyro_vae.runs.integrity import check_run

pytestmark = pytest.mark.usefixtures("short_pilot")

X = torch.randn(150, 4, generator=torch.Generator().manual_seed(1))
NETS = {"decoder": "MLP([6])", "likelihood": "Normal(scale=learned)", "seed": 0}
QUICK = ("--num-samples", 20, "--steps", 3)
NETWORK = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 6)
    def forward(self, x):
        return self.layer(x).relu()
encoder = Net()
"""


class Net(nn.Module):
    """A network of the user's."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x):
        return self.layer(x).relu()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs on a tensor, of a network of the user's and of a line; other data, and the network."""
    place = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for name, encoder in (("own", Net()), ("line", "MLP([6])")):
        vae = pv.VAE(4, 2, encoder=encoder, **NETS)
        pv.fit(vae, X, epochs=2, out=place / name, validation=0.2)
    np.save(place / "x.npy", torch.randn(30, 4, generator=torch.Generator().manual_seed(2)))
    (place / "nets.py").write_text(NETWORK)
    return place


@pytest.mark.slow
def test_its_folder_holds_what_it_was_told_and_what_it_gave(runs):
    told = read_config(runs / "own" / "config.toml")
    assert (told["data"], told["epochs"], told["validation"]) == ("", 2, 0.2)
    assert [told["data_shape"], told["data_hash"]] == fingerprint(X)
    assert list(pd.read_csv(runs / "own" / "history.csv").epoch) == [1, 2]
    trained = pv.load(runs / "own", encoder=Net())
    assert trained.encode(X).mean.isfinite().all()
    assert set(check_run(runs / "line").values()) == {""}


def test_a_file_on_disk_is_named(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    pv.fit(pv.VAE(4, 2, encoder="MLP([6])", **NETS), x, epochs=1, out=tmp_path / "run")
    assert read_config(tmp_path / "run" / "config.toml")["data_file"] == str(tmp_path / "x.npy")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", "line"])
def test_every_command_takes_it_with_data(runs, name):
    own = ("--modules", runs / "nets.py") if name == "own" else ()
    run, x = runs / name, runs / "x.npy"
    for verb in ("show", "check"):
        assert command(verb, run).code == 0
    for verb in ("evaluate", "report"):
        done = command(verb, run, x, *QUICK, *own)
        assert (done.code, done.err) == (0, "")
        done = command(verb, run, *QUICK, *own)
        assert done.code == 2 and "does not know its test data" in done.err
    assert (run / "evaluate" / "x.csv").exists() and (run / "report.html").exists()
    assert command("sample", run, *own, "--force").code == 0
    assert command("encode", run, x, *own, "--force").code == 0
    done = command("fit", "--resume", run)
    assert done.code == 2 and "go on with pv.fit(vae, x, ..., resume=" in done.err


@pytest.mark.slow
def test_runs_of_ones_own_modules_compare(runs):
    own = ("--modules", runs / "nets.py")
    both = (runs / "own", runs / "line", "--data", runs / "x.npy", "--num-samples", 20)
    done = command("compare", "runs", *both, *own)
    assert (done.code, done.err) == (0, "")
    done = command("compare", "runs", *both)
    assert done.code == 2 and "or in a shell --modules FILE.py, which defines encoder" in done.err
    x = np.load(runs / "x.npy")
    models = {runs / "own": pv.load(runs / "own", encoder=Net()), runs / "line": None}
    models[runs / "line"] = pv.load(runs / "line")
    table = pv.compare_runs(models, data=x, num_samples=20)
    expected = pv.log_evidence(models[runs / "own"], x, num_samples=20, seed=0).log_evidence
    assert table.log_evidence.iloc[0] == pytest.approx(expected.mean().item(), rel=1e-6)


@pytest.mark.slow
def test_the_mode_of_a_model_changes_no_comparison(tmp_path):
    """Dropout would be in the bound of a model that is still being trained."""
    vae = pv.VAE(4, 2, encoder=nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5)), **NETS)
    pv.fit(vae, X, epochs=1, out=tmp_path / "run")
    bounds = []
    for mode in (False, True):
        (tmp_path / "run" / "evidence.npz").unlink(missing_ok=True)
        found = measure(tmp_path / "run", vae=vae.train(mode), data=X[:40], num_samples=9)
        bounds.append(found.elbo)
        assert vae.training == mode
    assert np.array_equal(*bounds)


@pytest.mark.slow
def test_reports_and_comparisons_leave_the_global_generator(runs, tmp_path):
    before = torch.get_rng_state()
    vae = pv.load(runs / "line")
    pv.write_report(
        runs / "line", tmp_path / "r.html", vae=vae, data=runs / "x.npy", num_samples=20, steps=3
    )
    pv.compare_runs([runs / "line", runs / "line" / ".." / "line"], data=X[:9], num_samples=9)
    assert torch.equal(before, torch.get_rng_state())


# One holder.


@pytest.mark.slow
def test_the_second_to_come_is_told_who_holds_the_folder(tmp_path):
    class Second(pv.callbacks.Callback):
        def before_step(self, time):
            for where in ("out", "resume"):
                if where == "out" or (tmp_path / checkpoint.CHECKPOINT).exists():
                    with pytest.raises(ValueError, match=f"in use by process {os.getpid()} on"):
                        pv.fit(pv.VAE(4, 2, **NETS), X, epochs=1, **{where: tmp_path})
                    seen.append(where)

    seen = []
    pv.fit(pv.VAE(4, 2, **NETS), X, epochs=2, out=tmp_path, callbacks=[Second()])
    assert {"out", "resume"} <= set(seen)
    with pytest.raises(ValueError, match="holds a run already"):
        pv.fit(pv.VAE(4, 2, **NETS), X, epochs=1, out=tmp_path)


@pytest.mark.parametrize("wrong", [True, 3, ["run"]])
def test_what_is_no_folder_is_refused(wrong):
    for name in ("out", "resume"):
        with pytest.raises(ValueError, match=f"{name} is the path of a folder, got"):
            pv.fit(pv.VAE(4, 2, **NETS), X, epochs=1, **{name: wrong})


def test_a_refused_fit_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="patience needs validation data"):
        pv.fit(pv.VAE(4, 2, **NETS), X, epochs=1, out=tmp_path / "run", patience=2)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        pv.fit(pv.VAE(4, 2, **NETS), X, epochs=1, resume=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Two generations.


@pytest.mark.slow
def test_a_damaged_checkpoint_is_followed_by_the_one_before(tmp_path):
    told = dict(lr=1e-2, epochs=4)
    whole, parts = (pv.VAE(4, 2, **NETS) for _ in range(2))
    pv.fit(whole, X, **told)
    pv.fit(parts, X, **told | {"epochs": 2}, out=tmp_path)
    path = tmp_path / checkpoint.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-9])
    assert "damaged" in check_run(tmp_path)[path.name]
    assert command("check", tmp_path).code == 2
    with pytest.warns(UserWarning, match=r"is damaged.* The one before it is taken, with 1 epochs"):
        pv.fit(parts, X, **told, resume=tmp_path)
    assert all(map(torch.equal, parts.parameters(), whole.parameters()))
    path.unlink()  # a kill between two renames
    pv.fit(parts, X, **told, resume=tmp_path)


class Fill(pv.callbacks.Callback):
    """Files of more than 100 bytes cannot be written in epochs 2 and 3."""

    def after_epoch(self, row):
        size = 100 if self.run.epoch in (2, 3) else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.process
def test_a_disk_that_takes_no_more_is_a_sentence_and_the_run_goes_on(tmp_path):
    run, said = tmp_path / "run", tmp_path / "said"

    def script():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        vae = pv.VAE(4, 2, encoder="MLP([6])", **NETS)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            pv.fit(vae, X, epochs=4, out=run, callbacks=[Fill()], progress=False)
        said.write_text("\n".join(str(warning.message) for warning in told))

    process = Fork(script)
    process.join()
    assert process.exitcode == 0
    assert said.read_text().count("no checkpoint was written") == 2
    assert checkpoint.read(run)["progress"]["epoch"] == 4
    assert set(check_run(run).values()) == {""}
    assert not list(run.glob(".*"))


def test_a_folder_that_a_kill_left_says_what_can_be_done(tmp_path):
    pv.fit(pv.VAE(4, 2, **NETS), X, epochs=1, out=tmp_path)
    for name in ("model.toml", "model.safetensors"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"goes on with pv.fit\(..., resume='.*'\), or pyro-vae"):
        pv.load(tmp_path)


@pytest.mark.slow
def test_figures_of_other_weights_are_not_shown(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    flags = ("--likelihood", "Normal", "--encoder", "MLP([6])", "--decoder", "MLP([6])")
    run = tmp_path / "run"
    assert command("fit", tmp_path / "x.npy", *flags, "--epochs", 1, "--out", run).code == 0
    assert "ELBO, test data" in command("show", run).out
    vae = pv.load(run)
    with torch.no_grad():
        next(vae.parameters()).add_(1)
    vae.save(run)
    assert "ELBO, test data" not in command("show", run).out
    assert check_run(run)["results.toml"] == "its figures are of other weights"


@pytest.mark.slow
def test_data_that_changed_since_are_told(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    flags = ("--likelihood", "Normal", "--encoder", "MLP([6])", "--decoder", "MLP([6])")
    run = tmp_path / "run"
    assert command("fit", tmp_path / "x.npy", *flags, "--epochs", 1, "--out", run).code == 0
    command("evaluate", run, *QUICK)
    np.save(tmp_path / "x.npy", X.numpy() + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        done = command("evaluate", run, *QUICK)
    assert f"warning: the data of {run} have changed since it was trained" in done.err


# What a step leaves that is not finite.


class Fragile(nn.Module):
    """Its output is NaN from a step on."""

    def __init__(self, step):
        super().__init__()
        self.norm, self.layer, self.left = nn.BatchNorm1d(2), nn.Linear(2, 4), step

    def forward(self, z):
        self.left -= self.training
        found = self.layer(self.norm(z))
        return found if self.left >= 0 else found + torch.full_like(found, float("nan"))


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_loss_that_is_not_finite_leaves_weights_and_statistics(tmp_path):
    seen = []

    class Look(pv.callbacks.Callback):
        def before_step(self, time):
            seen.append({k: v.clone() for k, v in self.run.vae.state_dict().items()})

    vae = pv.VAE(4, 2, encoder="MLP([6])", decoder=Fragile(5), likelihood="Laplace", seed=0)
    with pytest.raises(pv.NonFiniteLossError, match=r"epoch \d, step \d") as error:
        pv.fit(vae, X, epochs=9, batch_size=50, callbacks=[Look()])
    step = len(seen) - 1
    assert f"in epoch {step // 3 + 1}, step {step % 3 + 1}: " in str(error.value)
    assert all(torch.equal(value, seen[-1][k]) for k, value in vae.state_dict().items())


def test_memory_is_not_used_for_what_a_header_says(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    vae = pv.VAE(4, 2, encoder="MLP([6])", **NETS)
    vae.save(tmp_path)
    text = (tmp_path / "model.toml").read_text()
    for width in (10**9, 10**7):
        (tmp_path / "model.toml").write_text(text.replace("MLP([6]", f"MLP([{width}]", 1))
        with pytest.raises(ValueError, match=r"model.safetensors holds .* numbers, and .* asks"):
            pv.load(tmp_path)
    with pytest.raises(ValueError, match=r"the model asks for 4,000,000,000 numbers"):
        pv.VAE(4, 2, encoder="MLP([1000000000])")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_whole_numbers_of_other_libraries_are_whole(tmp_path):
    vae = pv.VAE(np.int64(4), (np.int32(2),), encoder="MLP([6])", **NETS)
    assert (vae.x_shape, vae.z_shape) == ((4,), (2,))
    vae.save(tmp_path)
    assert pv.load(tmp_path).x_shape == (4,)


@pytest.mark.slow
def test_frozen_parameters_are_a_part_of_the_model_that_is_resumed(tmp_path):
    vae = pv.VAE(4, 2, **NETS)
    told = {"progress": False, "batch_size": 20, "resume": tmp_path / "run"}
    pv.fit(vae, X, epochs=1, out=tmp_path / "run", progress=False, batch_size=20)
    other = pv.VAE(4, 2, **NETS)
    other.decoder.requires_grad_(False)
    with pytest.raises(ValueError, match=r"model.frozen=None, not with model.frozen=\['decoder"):
        pv.fit(other, X, epochs=2, **told)
    pv.fit(other.requires_grad_(True), X, epochs=2, **told)
