"""Callbacks of fit, its settings, and runs that are stopped, damaged, resumed or moved."""

import csv
import inspect
import json
import os
import re
import signal
import sys
from dataclasses import fields
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyro
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

import pyro_vae as pv
from helpers.commands import Fork
from pyro_vae.infer.training import checkpoint
from pyro_vae.infer.training.settings import FitSettings

X = torch.randn(250, 4, generator=torch.Generator().manual_seed(1))
Callback, Contractive = pv.callbacks.Callback, pv.callbacks.Contractive
Log, TensorBoard = pv.callbacks.Log, pv.callbacks.TensorBoard
FILE = "checkpoint.safetensors"


def small(seed=0, **options):
    parts = {"likelihood": "Normal(scale=learned)", "encoder": "MLP([8])", "decoder": "MLP([8])"}
    return pv.VAE(4, 2, seed=seed, **parts | options)


def weights(vae):
    return torch.cat([p.detach().flatten() for p in vae.parameters()])


class Stop(Callback):
    """Ask to stop at a step, by a signal."""

    def __init__(self, at, number=signal.SIGINT):
        self.at, self.number, self.taken = at, number, 0

    def after_step(self, loss, n):
        self.taken += 1
        if self.taken == self.at:
            os.kill(os.getpid(), self.number)


# Settings.


def test_fit_and_its_settings_say_the_same():
    parameters = inspect.signature(pv.fit).parameters
    for setting in fields(FitSettings):
        assert parameters[setting.name].default == setting.default
        assert setting.metadata["help"].endswith(".") and "metavar" in setting.metadata
    others = {"vae", "x", "out", "resume", "callbacks", "steps_per_epoch", "layout"}
    assert parameters.keys() - others == {setting.name for setting in fields(FitSettings)}


BAD = {
    "epochs is a whole number of at least 1, got True": dict(epochs=True),
    "epochs is a whole number of at least 1, got 1.5": dict(epochs=1.5),
    "seed is a whole number of at least 0, got 'a'": dict(seed="a"),
    "validation is a fraction between 0 and 1, got 1": dict(validation=1),
    "patience is a whole number of at least 1, got 0": dict(patience=0, validation=0.5),
    "aggressive is a whole number of at least 1, got 0.5": dict(aggressive=0.5),
    "checkpoint_minutes is a number greater than 0, got 0": dict(checkpoint_minutes=0),
    "progress is True or False, got 'no'": dict(progress="no"),
    "precision is 'float32', 'tf32' or 'bf16', got 'half'": dict(precision="half"),
    "beta is a number of at least 0, got True": dict(beta=True),
    "callbacks are objects of pv.callbacks.Callback, got function": dict(callbacks=[print]),
}


@pytest.mark.parametrize("message", BAD)
def test_settings_are_refused_in_one_wording(message):
    with pytest.raises(ValueError) as error:
        pv.fit(small(), X, **{"epochs": 1, "callbacks": [], **BAD[message]})
    assert str(error.value).replace("builtin_function_or_method", "function") == message


def test_numbers_of_other_libraries_are_numbers():
    settings = FitSettings(epochs=np.int64(3), validation=np.float32(0.5), lr="0.25")
    assert (settings.epochs, settings.validation, settings.lr) == (3, 0.5, 0.25)
    assert type(settings.epochs) is int and type(settings.validation) is float
    assert len(pv.fit(small(), X, epochs=np.int64(1), seed=np.int32(2)).history) == 1


# The user's own.


class Everything(Callback):
    """Hear of all there is to hear."""

    def __init__(self, epochs=99):
        self.heard, self.epochs = [], epochs

    def start(self):
        self.heard.append("start")

    def before_step(self, time):
        self.heard.append(time)

    def after_step(self, loss, n):
        assert loss == pytest.approx(loss, abs=1e9)
        self.heard.append(n)

    def after_epoch(self, row):
        torch.rand(5)
        row["largest"] = weights(self.run.vae).abs().max().item()
        return self.run.epoch == self.epochs

    def end(self, finished):
        self.heard.append(finished)


def test_a_callback_hears_of_all_and_changes_nothing():
    mine, seen, plain = Everything(), small(), small()
    fitted = pv.fit(seen, X, epochs=2, batch_size=100, callbacks=[mine])
    pv.fit(plain, X, epochs=2, batch_size=100)
    once = [t for step, n in enumerate((100, 100, 50)) for t in (step / 3, n)]
    later = [t + 1 if i % 2 == 0 else t for i, t in enumerate(once)]
    assert mine.heard == ["start", *once, *later, True]
    assert torch.equal(weights(seen), weights(plain))
    assert fitted.history.largest.iloc[-1] == weights(seen).abs().max().item()


def test_true_stops():
    fitted = pv.fit(small(), X, epochs=9, callbacks=[Everything(epochs=3)])
    assert len(fitted.history) == 3 and not fitted.interrupted


@pytest.mark.parametrize("hook", ["start", "before_step", "after_step", "after_epoch"])
def test_an_exception_says_where_it_was_and_what_the_weights_are(hook, tmp_path):
    after = {"start": (0, 0), "before_step": (1, 1), "after_step": (1, 2), "after_epoch": (2, 0)}

    def fail(self, *args):
        if (self.run.epoch, self.run.step) == after[hook]:
            raise KeyError("mine")

    broken = type("Broken", (Callback,), {hook: fail})()
    with pytest.raises(KeyError, match="mine") as error:
        pv.fit(small(), X, epochs=4, out=tmp_path, callbacks=[other := Everything(), broken])
    epochs, steps = after[hook]
    (note,) = error.value.__notes__
    assert f"In {hook} of the callback Broken" in note
    assert f"after {epochs} epochs and {steps} steps" in note
    assert other.heard[-1] is False
    if hook != "start":
        assert checkpoint.read(tmp_path)["progress"]["epoch"] == 1


class Averaged(Callback):
    """A running mean of the weights, which has a state."""

    def start(self):
        self.mean = getattr(self, "mean", torch.zeros_like(weights(self.run.vae)))
        self.losses = getattr(self, "losses", [])

    def after_step(self, loss, n):
        self.mean.lerp_(weights(self.run.vae), 0.1)
        self.losses.append(loss)

    def state_dict(self):
        return {"mean": self.mean, "losses": self.losses}

    def load_state_dict(self, state):
        self.mean, self.losses = state["mean"], state["losses"]


@pytest.mark.slow
@pytest.mark.parametrize("at", [4, 6, 7])
def test_the_state_of_a_callback_comes_back(at, tmp_path):
    whole, again = Averaged(), Averaged()
    pv.fit(small(), X, epochs=4, callbacks=[whole])
    assert pv.fit(small(), X, epochs=4, out=tmp_path, callbacks=[Averaged(), Stop(at)]).interrupted
    pv.fit(small(9), X, epochs=4, resume=tmp_path, callbacks=[again])
    assert torch.equal(whole.mean, again.mean) and whole.losses == again.losses
    with pytest.warns(UserWarning, match=r"has the state of \['Averaged'\], which are not given"):
        pv.fit(small(9), X, epochs=5, resume=tmp_path)


def test_two_of_one_class_keep_their_states_apart(tmp_path):
    pv.fit(small(), X, epochs=1, out=tmp_path, callbacks=[Averaged(), Averaged()])
    assert {"Averaged", "Averaged 2"} <= checkpoint.read(tmp_path)["callbacks"].keys()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.slow
def test_the_contractive_one_is_the_handler_around_the_guide(compiled, interpreted):
    class Wrapped(pv.VAE):
        def guide(self, x):
            return super().guide(x) if not self.training else Contractive(0.5)(super().guide)(x)

    parts = {"likelihood": "Normal(scale=1)", "encoder": "MLP([8])", "decoder": "MLP([8])"}
    given, wrapped, plain = (
        made(4, 2, seed=0, **parts).double() for made in (pv.VAE, Wrapped, pv.VAE)
    )
    told = dict(epochs=3, batch_size=50, lr=1e-2, compile=False)
    first = pv.fit(given, X.double(), **told | {"compile": compiled}, callbacks=[Contractive(0.5)])
    second = pv.fit(wrapped, X.double(), **told)
    pv.fit(plain, X.double(), **told)
    assert torch.allclose(weights(given), weights(wrapped), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(weights(given), weights(plain), rtol=1e-3)
    assert np.allclose(first.history.loss, second.history.loss)


@pytest.mark.slow
def test_the_contractive_one_goes_with_its_bounds_and_its_weight(tmp_path):
    with pytest.raises(ValueError, match="RenyiELBO does not follow: use Trace_ELBO or TraceMean"):
        pv.fit(small(), X, estimator="RenyiELBO(alpha=0)", callbacks=[Contractive(1)])
    pv.fit(small(), X, epochs=1, out=tmp_path, callbacks=[Contractive(1)])
    with pytest.raises(ValueError, match=r"the run had Contractive\(1\), not \(2\)"):
        pv.fit(small(), X, epochs=2, resume=tmp_path, callbacks=[Contractive(2)])
    with pytest.raises(ValueError, match=r"callbacks=\['Contractive'\], not with callbacks=\[\]"):
        pv.fit(small(), X, epochs=2, resume=tmp_path)


# Loggers.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_log_has_the_history_and_goes_on(kind, tmp_path):
    path, told = tmp_path / f"log.{kind}", dict(epochs=4, validation=0.2)
    pv.fit(small(), X, **told, out=tmp_path, callbacks=[Log(path), Stop(5)])
    with path.open("a") as file:
        file.write("a row past the checkpoint\n")
    history = pv.fit(small(), X, **told, resume=tmp_path, callbacks=[Log(path)]).history
    lines = path.read_text().splitlines()
    rows = list(csv.DictReader(lines)) if kind == "csv" else [json.loads(line) for line in lines]
    assert [int(float(row["epoch"])) for row in rows] == [1, 2, 3, 4]
    assert [float(row["elbo_validation"]) for row in rows] == list(history.elbo_validation)
    with pytest.raises(ValueError, match="exists: remove it, or log to another file"):
        pv.fit(small(), X, epochs=1, callbacks=[Log(path)])
    with pytest.raises(ValueError, match=r"a \.csv or \.jsonl file, got 'log.txt'"):
        Log("log.txt")


@pytest.mark.slow
def test_tensorboard_is_written_or_asked_for(tmp_path, monkeypatch):
    module = "pyro_vae.infer.training.callbacks.loggers.find_spec"
    monkeypatch.setattr(module, lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'pyro-vae\[tensorboard\]'"):
        TensorBoard(tmp_path)
    written, made = {}, []

    class Writer:
        def __init__(self, folder, purge_step):
            made.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written[name, step] = value

        def flush(self): ...
        def close(self):
            made.append("closed")

    monkeypatch.setattr(module, lambda name: name)
    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer)
    )
    told = dict(out=tmp_path / "run", callbacks=[TensorBoard(tmp_path)])
    history = pv.fit(small(), X, epochs=2, **told).history
    assert written["elbo_train", 2] == history.elbo_train[2] and made[-1] == "closed"
    pv.fit(small(), X, epochs=3, resume=told.pop("out"), **told)
    assert made[0] == (str(tmp_path), None) and made[2] == (str(tmp_path), 3)


# Runs that are stopped and go on.


def stopped(vae, number, at, **told):
    """A fit that a signal stops; but for Ctrl-C the process is to end too."""
    train = partial(pv.fit, vae, X, callbacks=[Stop(at, number)], **told)
    if number == signal.SIGINT:
        return train()
    with pytest.raises(pv.Terminated) as ended:
        train()
    assert isinstance(ended.value, SystemExit) and ended.value.code == 128 + number
    return ended.value.fitted


@pytest.mark.slow
def test_a_signal_after_the_last_step_is_not_lost(tmp_path):
    class Late(Callback):
        def end(self, finished):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(pv.Terminated) as ended:
        pv.fit(small(), X, epochs=2, out=tmp_path, callbacks=[Late()])
    fitted = ended.value.fitted
    assert not fitted.interrupted and len(fitted.history) == 2
    assert torch.equal(weights(pv.load(tmp_path)), weights(fitted.vae))


@pytest.mark.process
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_ends_the_script_around_a_fit(name, tmp_path):
    number = getattr(signal, name)

    def script():
        try:
            pv.fit(small(), X[:9], out=tmp_path / "run", callbacks=[Stop(1, number)])
        finally:
            (tmp_path / "tidied").touch()
        (tmp_path / "went on").touch()

    process = Fork(script)
    process.join()
    assert process.exitcode == 128 + number
    assert {path.name for path in tmp_path.iterdir()} == {"run", "tidied"}
    assert checkpoint.read(tmp_path / "run")["progress"]["epoch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT"])
def test_a_signal_finishes_the_step_and_writes(name, tmp_path):
    number, before = getattr(signal, name), signal.getsignal(getattr(signal, name))
    whole, parts = small(), small()
    pv.fit(whole, X, epochs=4)
    fitted = stopped(parts, number, at=8, epochs=4, out=tmp_path)
    assert fitted.interrupted and fitted.signal == number and len(fitted.history) == 2
    assert signal.getsignal(number) == before
    assert checkpoint.read(tmp_path)["progress"]["step"] == 2
    pv.fit(parts, X, epochs=4, resume=tmp_path)
    assert torch.equal(weights(parts), weights(whole))


def test_a_signal_with_a_handler_of_its_own_keeps_it(tmp_path):
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *args: heard.append(args))
    try:
        fitted = pv.fit(small(), X, epochs=2, callbacks=[Stop(2, signal.SIGUSR1)])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard and not fitted.interrupted


@pytest.mark.parametrize("epochs", [2, 3])
@pytest.mark.parametrize("optimizer", ["Adam", "SGD(momentum=0.9)"])
@pytest.mark.slow
def test_a_resume_with_nothing_left_keeps_the_optimizers_state(epochs, optimizer, tmp_path):
    """Also where it was stopped within an epoch and is asked to stop before its first step."""
    whole, parts = small(), small()
    told = dict(optimizer=optimizer, estimator="TraceGraph_ELBO(gradient=score, baseline=neural)")
    pv.fit(whole, X, epochs=5, **told)
    pv.fit(parts, X, epochs=epochs, out=tmp_path, callbacks=[Stop(8)], **told)

    class Impatient(Callback):
        def start(self):
            os.kill(os.getpid(), signal.SIGINT)

    for _ in range(2):
        pv.fit(small(7), X, epochs=epochs, resume=tmp_path, callbacks=[Impatient()], **told)
    pv.fit(parts, X, epochs=5, resume=tmp_path, **told)
    assert torch.equal(weights(parts), weights(whole))


@pytest.mark.slow
def test_checkpoints_come_within_epochs_by_the_clock(tmp_path):
    class Look(Callback):
        def before_step(self, time):
            if (tmp_path / FILE).exists():
                progress = checkpoint.read(tmp_path)["progress"]
                seen.append((progress["epoch"], progress["step"]))

    seen = []
    told = dict(epochs=2, batch_size=50, callbacks=[Look()], checkpoint_every=9)
    pv.fit(small(), X, out=tmp_path, **told, checkpoint_minutes=1e-9)
    assert seen == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 1), (1, 2), (1, 3), (1, 4)]


@pytest.mark.slow
def test_a_full_disk_is_a_sentence_and_the_run_goes_on(tmp_path, monkeypatch):
    calls = []

    def full(tensors, path, metadata):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise SafetensorError("No space left on device (os error 28)")
        save_file(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.warns(UserWarning, match=r"no checkpoint was written to .*: No space left") as told:
        fitted = pv.fit(small(), X, epochs=3, out=tmp_path)
    assert len(told) == 1 and len(fitted.history) == 3
    left = {FILE, checkpoint.PREVIOUS, "config.toml", "history.csv"}
    assert set(os.listdir(tmp_path)) == left | {"model.toml", "model.safetensors"}
    assert checkpoint.read(tmp_path)["progress"]["epoch"] == 3


@pytest.mark.slow
def test_every_damage_to_a_checkpoint_is_seen(tmp_path):
    pv.fit(small(), X, epochs=1, out=tmp_path)
    path = tmp_path / FILE
    sound, noise = path.read_bytes(), np.random.default_rng(0)
    for at in [*noise.integers(len(sound), size=60), *range(len(sound) - 3, len(sound))]:
        damaged = bytearray(sound)
        damaged[at] ^= 1 << int(noise.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged, or not a checkpoint"):
            checkpoint.read(tmp_path)
    path.write_bytes(sound)
    checkpoint.read(tmp_path)


def test_a_checkpoint_of_another_version_is_told(tmp_path):
    save_file({"vae/w": torch.ones(1)}, tmp_path / FILE, metadata={"state": "{}"})
    with pytest.raises(ValueError, match=r"is of pyro_vae 0\.1\.0, whose runs this version"):
        pv.fit(small(), X, resume=tmp_path)


def test_what_no_checkpoint_can_hold_is_named(tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"model": nn.Linear(1, 1)}

    with pytest.raises(TypeError, match=r"a checkpoint holds tensors, numbers and texts: .*Linear"):
        pv.fit(small(), X, epochs=1, out=tmp_path, callbacks=[Odd()])


# Another run, another machine.


OTHERS = {
    "another prior": (dict(prior="Laplace"), X, r"model\.prior='Normal'"),
    "another activation": (dict(encoder="MLP([8], activation='Tanh')"), X, r"model\.encoder="),
    "rows in another order": ({}, X.flip(0), "data="),
    "columns in another order": ({}, X.flip(1), "data="),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_resume_with_another_model_or_other_data_is_refused(name, tmp_path):
    pv.fit(small(), X, epochs=1, out=tmp_path)
    parts, x, message = OTHERS[name]
    with pytest.raises(ValueError, match=f"was run with {message}"):
        pv.fit(small(**parts), x, epochs=2, resume=tmp_path)


@pytest.mark.slow
def test_another_machine_is_told(tmp_path, monkeypatch):
    pv.fit(small(), X, epochs=1, out=tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    monkeypatch.setattr(pyro, "__version__", "9.9")
    with pytest.warns(
        UserWarning, match=r"pyro='.*', now '9\.9'; threads=\d+, now 77: its numbers"
    ):
        pv.fit(small(), X, epochs=2, resume=tmp_path)


# What goes wrong is told rightly.


class Fragile(nn.Module):
    def __init__(self, broken=""):
        super().__init__()
        self.layer, self.broken = nn.Linear(2, 4), broken

    def forward(self, z):
        found = self.layer(z)
        if self.broken == "evaluation" and not self.training:
            return found * float("nan")
        if self.broken == "gradient" and self.training:
            return found + 0 * (found - found.detach()).abs().sqrt()
        return found


def test_an_elbo_that_is_not_finite_is_of_its_epoch():
    decoder = Fragile()

    class Break(Callback):
        def after_epoch(self, row):
            decoder.broken = "evaluation"

    vae = pv.VAE(4, 2, likelihood="Laplace", decoder=decoder, seed=0)
    with pytest.raises(
        pv.NonFiniteLossError, match="the ELBO is nan after epoch 2: site 'x'"
    ) as error:
        pv.fit(vae, X, epochs=5, callbacks=[Break()])
    assert "The weights are those after this epoch" in str(error.value)
    assert weights(vae).isfinite().all()


@pytest.mark.parametrize(("step", "place"), [(1, "epoch 1, step 1"), (5, "epoch 3, step 1")])
@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_a_gradient_that_is_not_finite_stops_before_its_step(step, place, value):
    """Two steps an epoch; the loss itself is finite."""
    seen = []

    class Break(Callback):
        def before_step(self, time):
            seen.append(weights(self.run.vae).clone())
            if len(seen) == step:
                self.run.vae.decoder.layer.bias.register_hook(lambda g: g + float(value))

    vae = pv.VAE(4, 2, likelihood="Laplace", decoder=Fragile(), seed=0)
    with pytest.raises(pv.NonFiniteLossError) as error:
        pv.fit(vae, X, epochs=5, batch_size=(len(X) + 1) // 2, callbacks=[Break()])
    where = rf"the gradient of 'decoder\.layer\.bias' is {value} in {place}: no single site"
    assert re.match(where, str(error.value)), error.value
    assert "The weights are those before this step" in str(error.value)
    assert len(seen) == step
    assert torch.equal(weights(vae), seen[-1])
    assert all(p.grad is None for p in vae.parameters())


def test_a_gradient_that_nobody_steps_by_may_be_what_it_is():
    class Break(Callback):
        def start(self):
            self.run.vae.decoder.layer.bias.register_hook(lambda g: g + float("nan"))

        def before_step(self, time):
            names = [n for n in pyro.get_param_store() if n.endswith("layer.bias")]
            self.run.optim.frozen = frozenset(names)

    vae = pv.VAE(4, 2, likelihood="Laplace", decoder=Fragile(), seed=0)
    pv.fit(vae, X, epochs=2, callbacks=[Break()])
    assert weights(vae).isfinite().all()


def test_an_infinite_slope_is_a_gradient_that_is_not_finite():
    vae = pv.VAE(4, 2, likelihood="Laplace", decoder=Fragile("gradient"), seed=0)
    with pytest.raises(pv.NonFiniteLossError, match=r"^the gradient of '.*' is nan in epoch 1, "):
        pv.fit(vae, X, epochs=5)
    assert weights(vae).isfinite().all()


def test_the_scale_of_the_data_is_looked_at_before_advice():
    vae = small(likelihood="Normal(scale=1)", guide="Normal(scale=learned)")
    with (
        pytest.warns(UserWarning, match="far from unit scale"),
        pytest.raises(pv.NonFiniteLossError, match=r"x holds [\d.e+]+: standardize it"),
    ):
        pv.fit(vae, X * 2e18, epochs=2)


@pytest.mark.slow
def test_a_fit_that_ends_with_no_kl_says_what_to_do(capsys):
    noise = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    told = dict(lr=1e-2, progress=False)
    pv.fit(small(likelihood="Normal(scale=1)"), noise, epochs=60, **told)
    assert "nats a data point, so z says next to nothing of x: try" in capsys.readouterr().err
    structured = noise[:, :1] * torch.ones(4) * 3
    pv.fit(small(likelihood="Normal(scale=1)"), structured, epochs=10, **told)
    assert capsys.readouterr().err == ""
