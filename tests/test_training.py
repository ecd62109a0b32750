"""Training with several estimators from the same start."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from helpers.commands import run as command
from pyro_vae import plots
from pyro_vae.data.rows import Rows
from pyro_vae.evaluate.gradients import training

BITS = ["Trace_ELBO(gradient=score)", "VIMCO(num_particles=4)", "RWS(num_particles=4)", "REBAR",
        "TraceGraph_ELBO(gradient=score, baseline=neural)"]  # fmt: skip
NORMALS = ["Trace_ELBO", "TraceMeanField_ELBO", "DReG(num_particles=4)"]
NUMBERS = ["elbo_train", "elbo_validation", "log_likelihood", "kl"]


def make(guide, prior=None):
    """A small model and grey values."""
    vae = pv.VAE(
        6, 3, prior=prior or guide, guide=guide, encoder=pv.MLP([4]), decoder=pv.MLP([4]), seed=1
    )
    return vae, torch.rand(50, 6, generator=torch.Generator().manual_seed(2))


MODELS = {
    "bits": (("Bernoulli",), BITS),
    "normals": (("Normal",), NORMALS),
    "pseudo-inputs": (("Normal", "VampPrior(components=5)"), [NORMALS[0], NORMALS[2]]),
}
HOW = {"epochs": 3, "batch_size": 8, "binarize": "dynamic", "validation": 0.2}


@pytest.mark.slow
@pytest.mark.parametrize("case", MODELS)
def test_without_learning_all_curves_are_the_start(case):
    """One start, and one evaluation: the ELBO of the same data with the same noise."""
    made, lines = MODELS[case]
    vae, x = make(*made)
    found = pv.train_estimators(vae, x, lines, lr=1e-12, seed=4, **HOW)
    assert list(found.estimator.to_numpy()) == lines
    for name in NUMBERS:
        values = found[name].to_numpy()
        assert values.shape == (len(lines), 3) and np.isfinite(values).all()
        assert np.allclose(values, values[0, 0], rtol=0, atol=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("line", [BITS[0], BITS[3]])
def test_a_curve_is_what_fit_gives(line):
    vae, x = make("Bernoulli")
    before = deepcopy(vae.state_dict())
    found = pv.train_estimators(vae, x, [BITS[4], line], lr=0.05, seed=4, **HOW)
    assert all(torch.equal(before[k], v) for k, v in vae.state_dict().items())
    history = pv.fit(deepcopy(vae), x, estimator=line, lr=0.05, seed=4, **HOW).history
    curve = found.sel(estimator=line).to_dataframe()[NUMBERS]
    pd.testing.assert_frame_equal(curve, history[NUMBERS])
    assert curve.elbo_train.nunique() == 3  # it learned
    assert found.step.to_numpy().tolist() == [5, 10, 15]  # 40 training data, in batches of 8
    assert (found.seconds.diff("epoch") > 0).all()


@pytest.mark.slow
def test_a_line_that_is_given_twice_trains_twice_alike():
    vae, x = make("Bernoulli")
    found = pv.train_estimators(vae, x.round(), ["REBAR", "REBAR"], epochs=2, batch_size=15)
    assert list(found.estimator.to_numpy()) == ["REBAR", "REBAR (2)"]
    first, second = (found.isel(estimator=i).elbo_train.to_numpy() for i in (0, 1))
    assert (first == second).all() and first[0] != first[1]
    assert found.elbo_validation.isnull().all()
    assert found.step.to_numpy().tolist() == [4, 8]  # the last batch is smaller


@pytest.mark.slow
def test_an_array_on_disk_is_trained_on():
    vae, x = make("Normal")
    where = Rows(x.round().numpy())
    disk, memory = (
        pv.train_estimators(vae, data, ["Trace_ELBO"], epochs=2, batch_size=8, validation=0.2)
        for data in (where, x.round())
    )
    assert np.allclose(disk.elbo_train, memory.elbo_train) and disk.step.equals(memory.step)


MISTAKES = {
    "none": ([], {}, "a list of at least one line"),
    "one line": ("Trace_ELBO", {}, "a list of at least one line"),
    "unserved": (["Trace_ELBO", "DisARM"], {}, "DisARM cannot serve this guide"),
    "unknown": (["Trace_ELBO", "Trace_ELB"], {}, "did you mean Trace_ELBO"),
    "patience": (["Trace_ELBO"], {"patience": 3}, r"leave out \['patience'\]"),
    "folder": (["Trace_ELBO"], {"out": "x"}, r"leave out \['out'\]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_before_any_training(mistake, monkeypatch):
    monkeypatch.setattr(training, "fit", None)
    lines, settings, message = MISTAKES[mistake]
    vae, x = make("Normal")
    with pytest.raises(ValueError, match=message):
        pv.train_estimators(vae, x.round(), lines, **settings)


def test_settings_reach_fit():
    vae, x = make("Normal")
    with pytest.raises(ValueError, match=r"compile is True, .*got 'maybe'"):
        pv.train_estimators(vae, x.round(), ["Trace_ELBO"], compile="maybe")


def test_the_estimator_that_diverges_is_named():
    vae, x = make("Normal")
    lines = ["Trace_ELBO", "TraceMeanField_ELBO"]
    with pytest.raises(pv.NonFiniteLossError, match=r"^Trace_ELBO: the ELBO is nan after epoch 1"):
        pv.train_estimators(vae, x.round(), lines, lr=1e30, epochs=3)


@pytest.mark.slow
@pytest.mark.parametrize("finished", [1, 0])
def test_an_interrupt_ends_it_with_what_there_is(finished, monkeypatch):
    vae, x = make("Normal")
    calls = []

    def stopped(*args, **kwargs):
        calls.append(kwargs["estimator"])
        found = pv.fit(*args, **kwargs)
        if len(calls) > finished:
            found.history, found.interrupted = found.history.iloc[:finished], True
        return found

    monkeypatch.setattr(training, "fit", stopped)
    if not finished:
        with pytest.raises(KeyboardInterrupt):
            pv.train_estimators(vae, x.round(), NORMALS, epochs=2)
        return
    found = pv.train_estimators(vae, x.round(), NORMALS, epochs=2)
    assert list(found.estimator.to_numpy()) == NORMALS[:2] and len(calls) == 2
    assert found.elbo_train.isnull().to_numpy().tolist() == [[False, False], [False, True]]


@pytest.mark.slow
@pytest.mark.parametrize("held_out", [None, 0.2])
def test_the_picture_shows_steps_and_seconds(held_out):
    from matplotlib import pyplot

    vae, x = make("Normal")
    lines = NORMALS[:2]
    found = pv.train_estimators(vae, x.round(), lines, epochs=4, validation=held_out)
    name = "elbo_validation" if held_out else "elbo_train"
    for against in ("steps", "seconds"):
        ax = plots.training_curves(found, against=against)
        assert ("validation" if held_out else "training") in ax.get_title()
        assert [text.get_text() for text in ax.get_legend().get_texts()] == lines
        for i, drawn in enumerate(ax.get_lines()):
            across = found.step if against == "steps" else found.seconds.isel(estimator=i)
            assert np.array_equal(drawn.get_xdata(), across.to_numpy())
            assert np.array_equal(drawn.get_ydata(), found[name].isel(estimator=i))
    pyplot.close("all")


# The command line.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    small = ("--encoder", "MLP([8])", "--decoder", "MLP([8])", "--latent-dim", "2", "--seed", 3)
    assert command("fit", "digits", *small, "--epochs", 2, "--out", folder)[0] == 0
    return folder


@pytest.mark.slow
def test_the_command_trains_the_run_anew(trained):
    lines = ["Trace_ELBO", "Trace_ELBO(gradient=score)"]
    given = [part for line in lines for part in ("--estimator", line)]
    code, out, err = command("compare", "estimators", trained, "--train", *given)
    assert (code, err) == (0, "")
    assert all(line in out for line in lines) and "ms_per_step" in out
    assert (trained / "compare" / "training.png").read_bytes()[:4] == b"\x89PNG"
    curves = pd.read_csv(trained / "compare" / "training.csv", index_col="estimator")
    assert len(curves) == 4
    own = pd.read_csv(trained / "history.csv")  # the run's own estimator goes the run's own way
    again = curves.loc["Trace_ELBO"].reset_index(drop=True)
    pd.testing.assert_frame_equal(again[["epoch", *NUMBERS]], own[["epoch", *NUMBERS]])
    more = ("--epochs", 1, "--seed", 4, "--compile", "false")
    assert command("compare", "estimators", trained, "--train", *given, *more)[0] == 0
    other = pd.read_csv(trained / "compare" / "training.csv", index_col="estimator")
    assert len(other) == 2 and (other.elbo_train != curves.elbo_train.iloc[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--train", "--num-draws", 10), "--num-draws goes without --train: leave out one"),
        (("--train", "--batch-size", 10), "--batch-size goes without --train"),
        (("--epochs", 1), "--epochs goes with --train"),
        (("--compile", "true"), "--compile goes with --train"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(flags, message, trained):
    code, _, err = command("compare", "estimators", trained, "--estimator", "Trace_ELBO", *flags)
    assert code == 2 and message in err, err
