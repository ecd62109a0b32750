"""Training: the same path as plain SVI, resumable bit for bit, and loud where it must be."""

import inspect
import math
import os
import re
import signal
import threading
import time

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyro_vae as pv
from pyro_vae.infer import FusedOptim, KLWeight, make_optimizer, schedule
from pyro_vae.infer.engine.distributed import Processes
from pyro_vae.infer.training.binarize import binarize
from pyro_vae.infer.training.loop import Loop
from pyro_vae.infer.training.preparation import prepare
from pyro_vae.infer.training.settings import FitSettings

X = torch.randn(250, 4, generator=torch.Generator().manual_seed(1))


def small(**options):
    options = {"likelihood": "Normal(scale=learned)", "seed": 0, **options}
    return pv.VAE(4, 2, encoder=pv.MLP([8]), decoder=pv.MLP([8]), **options)


def weights(vae):
    return torch.cat([p.detach().flatten() for p in vae.parameters()])


@pytest.mark.slow
def test_fit_walks_the_path_of_a_hand_written_svi_loop():
    ours, theirs = small().double(), small().double()
    x = X.double()
    pv.fit(ours, x, epochs=4, batch_size=60, lr=1e-2, seed=7)

    torch.manual_seed(7)
    theirs.start_from(x)
    torch.randperm(len(x))  # fit's choice of training data to evaluate
    svi = SVI(theirs.model, theirs.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(4):
        for rows in torch.randperm(len(x)).split(60):
            svi.step(x[rows])
    assert (weights(ours) - weights(theirs)).abs().max() < 1e-12
    assert (weights(ours) - weights(small().double())).abs().max() > 1e-2


@pytest.mark.slow
def test_a_seed_makes_a_run_and_leaves_the_global_generator():
    before = torch.get_rng_state()
    runs = [small() for _ in range(3)]
    for vae, seed in zip(runs, (1, 1, 2), strict=True):
        pv.fit(vae, X, epochs=2, seed=seed)
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_history_is_the_elbo_and_its_terms():
    vae = small()
    fitted = pv.fit(vae, X, epochs=30, lr=1e-2, validation=0.2, beta=0.5)
    h = fitted.history
    assert list(h.index) == list(range(1, 31))
    assert {"elbo_train", "elbo_validation", "log_likelihood", "kl", "lr", "seconds"} <= set(h)
    assert np.allclose(h.log_likelihood - h.kl, h.elbo_validation, atol=1e-4)
    assert h.elbo_train.iloc[-1] > h.elbo_train.iloc[0] + 0.2
    assert h.seconds.is_monotonic_increasing
    held_out = pv.elbo(vae, X, num_samples=50, seed=0).mean()
    assert h.elbo_train.iloc[-1] == pytest.approx(held_out.item(), abs=0.3)


ESTIMATORS = [
    "Trace_ELBO",
    "TraceGraph_ELBO(gradient=score, baseline=decaying)",
    "TraceGraph_ELBO(gradient=score, baseline=neural, num_particles=2)",
    "RenyiELBO(alpha=0, num_particles=3)",
]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("stop_at", [8, 9, 12], ids=["mid-epoch", "later", "end of an epoch"])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(
    estimator, stop_at, tmp_path, monkeypatch
):
    told = dict(
        estimator=estimator, epochs=6, batch_size=60, lr="cosine(1e-2, warmup=1)", seed=3,
        beta="linear(0.1, 1, epochs=4)" if "Renyi" not in estimator else 1.0,
        validation=0.1, patience=6, optimizer="Adam(clip_norm=20)",
    )  # fmt: skip
    whole, parts = small(), small()
    expected = pv.fit(whole, X, **told)

    taken = []
    step = SVI.step

    def interrupted_step(self, *args):
        taken.append(1)
        if len(taken) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(SVI, "step", interrupted_step)
    first = pv.fit(parts, X, **told, out=tmp_path / "run")
    assert first.interrupted
    assert len(taken) == stop_at
    again = small(seed=99)  # another process: nothing but the folder is left
    second = pv.fit(again, X, **told, resume=tmp_path / "run")
    assert not second.interrupted
    assert torch.equal(weights(again), weights(whole))
    columns = [c for c in expected.history if c != "seconds"]
    assert second.history[columns].equals(expected.history[columns])
    assert second.best_epoch == expected.best_epoch


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0])
def test_a_loaders_run_resumes_too(workers, tmp_path, monkeypatch):
    def loader():
        return DataLoader(TensorDataset(X), 60, shuffle=True)

    whole, parts = small(), small()
    pv.fit(whole, loader(), epochs=4)
    stops = iter(range(1, 100))
    step = SVI.step

    def interrupted_step(self, *args):
        if next(stops) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(SVI, "step", interrupted_step)
    pv.fit(parts, loader(), epochs=4, out=tmp_path)
    pv.fit(parts, loader(), epochs=4, resume=tmp_path)
    assert torch.equal(weights(parts), weights(whole))


@pytest.mark.slow
def test_resume_refuses_another_run(tmp_path):
    pv.fit(small(), X, epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match="batch_size=100, not with batch_size=50"):
        pv.fit(small(), X, epochs=2, batch_size=50, resume=tmp_path / "run")
    for other in (X + 1, (X + 1).numpy(), X[:100].tolist()):
        with pytest.raises(ValueError, match="was run with data="):
            pv.fit(small(), other, epochs=2, resume=tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run already: resume="):
        pv.fit(small(), X, epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        pv.fit(small(), X, epochs=1, resume=tmp_path / "nowhere")
    other = pv.VAE(4, 3, likelihood="Normal(scale=learned)")
    with pytest.raises(
        ValueError, match=r"with model.latent_dim=\[2\].* not with model.latent_dim"
    ):
        pv.fit(other, X, epochs=2, resume=tmp_path / "run")
    file = tmp_path / "run" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged, or not a checkpoint"):
        pv.fit(small(), X, epochs=2, resume=tmp_path / "run")


@pytest.mark.slow
def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    whole, parts = small(), small()
    pv.fit(whole, X, epochs=5)
    pv.fit(parts, X, epochs=2, out=tmp_path)
    fitted = pv.fit(parts, X, epochs=5, resume=tmp_path)
    assert len(fitted.history) == 5
    assert torch.equal(weights(parts), weights(whole))


@pytest.mark.slow
def test_early_stopping_keeps_the_best_weights():
    x = X[:60]
    vae = pv.VAE(4, 2, likelihood="Normal(scale=learned)", encoder="MLP([64])", decoder="MLP([64])")
    fitted = pv.fit(vae, x, epochs=400, lr=1e-2, validation=0.5, patience=10, batch_size=30)
    h = fitted.history.elbo_validation
    assert fitted.best_epoch == h.idxmax()
    assert len(h) == fitted.best_epoch + 10 < 400
    torch.manual_seed(0)
    held_out = x[torch.randperm(60)[:30]]
    assert pv.elbo(vae, held_out, num_samples=300, seed=0).mean() == pytest.approx(h.max(), abs=0.3)


@pytest.mark.slow
def test_a_non_finite_loss_stops_with_the_site_and_the_last_checkpoint(tmp_path, monkeypatch):
    class Fragile(nn.Module):
        broken = False

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 4)

        def forward(self, z):
            return self.layer(z) * (float("nan") if Fragile.broken else 1.0)

    vae = pv.VAE(4, 2, likelihood="Laplace", decoder=Fragile(), seed=0)
    step, steps, before = SVI.step, [], {}

    def sabotaged(self, *args):
        steps.append(1)
        Fragile.broken = len(steps) == 8
        before["weights"] = weights(vae)
        return step(self, *args)

    monkeypatch.setattr(SVI, "step", sabotaged)
    with pytest.warns(UserWarning, match="NaN"), pytest.raises(pv.NonFiniteLossError) as error:
        pv.fit(vae, X, epochs=5, out=tmp_path)
    assert "in epoch 3, step 2" in str(error.value)
    assert "site 'x' (Laplace) of the model has log density nan" in str(error.value)
    assert "smaller lr" in str(error.value)
    assert torch.equal(weights(vae), before["weights"])  # those before the step
    Fragile.broken = False
    fitted = pv.fit(vae, X, epochs=3, resume=tmp_path)
    assert len(fitted.history) == 3


def test_a_fit_says_itself_in_a_line():
    fitted = pv.fit(small(), X, epochs=1, validation=0.1)
    assert re.fullmatch(
        r"Fit\(Trace_ELBO, 1 epochs: ELBO -\S+ train, -\S+ validation nats per observation\)",
        repr(fitted),
    )


@pytest.mark.slow
def test_kl_annealing_weighs_model_and_guide():
    vae = small()
    weight = KLWeight(0.3)
    model, guide = weight(vae.model), weight(vae.guide)
    scaled = [pyro.poutine.trace(f).get_trace(X).nodes["z"]["scale"] for f in (model, guide)]
    assert scaled == [0.3, 0.3]
    assert pyro.poutine.trace(model).get_trace(X).nodes["x"]["scale"] == 1
    low = pv.fit(small(), X, epochs=20, lr=1e-2, beta=0.05).history.kl.iloc[-1]
    high = pv.fit(small(), X, epochs=20, lr=1e-2, beta=10).history.kl.iloc[-1]
    assert low > high + 0.5


def test_fit_anneals_both_sides_of_the_kl_and_the_rate(monkeypatch):
    seen, step = [], SVI.step

    def record(self, x):
        with pyro.poutine.block():
            guide = pyro.poutine.trace(self.guide).get_trace(x)
            model = pyro.poutine.trace(pyro.poutine.replay(self.model, guide)).get_trace(x)
        scales = [t.nodes[n]["scale"] for t, n in ((guide, "z"), (model, "z"), (model, "x"))]
        seen.append([*scales, self.optim.lr])
        return step(self, x)

    monkeypatch.setattr(SVI, "step", record)
    beta, lr = "linear(0, 1, epochs=2)", "linear(0.4, 0.1)"
    pv.fit(small(), X, epochs=3, batch_size=125, beta=beta, lr=lr)
    betas = [0, 0.25, 0.5, 0.75, 1, 1]
    expected = [[b, b, 1, 0.4 - 0.05 * i] for i, b in enumerate(betas)]
    assert np.allclose(seen, expected)


SCHEDULES = {
    "0.5": [0.5, 0.5, 0.5],
    "linear(0, 1, epochs=5)": [0, 1, 1],
    "linear(2)": [2, 1, 0],
    "cosine(2)": [2, 1, 0],
    "cosine(4, 2)": [4, 3, 2],
    "exponential(1, 0.01)": [1, 0.1, 0.01],
    "cosine(2, warmup=2)": [0, 1 + math.cos(math.pi * 3 / 8), 0],
}


@pytest.mark.parametrize("line", SCHEDULES)
def test_schedules(line):
    value = float(line) if line[0].isdigit() else line
    at = schedule(value, 10)
    assert [at(0), at(5), at(10)] == pytest.approx(SCHEDULES[line])


BAD = {
    "an unknown schedule": (dict(lr="cosin(1)"), "unknown schedule 'cosin'; did you mean cosine"),
    "a negative rate": (dict(lr=-1.0), "lr is a number of at least 0, got -1"),
    "a schedule without a start": (dict(lr="cosine"), r"needs its first value: cosine\(1e-3\)"),
    "a bad end": (dict(lr="cosine(1, end='x')"), "end is a number of at least 0"),
    "warmup without an end": (dict(lr="cosine(1, warmup=9)"), "must exceed warmup"),
    "an exponential to zero": (dict(lr="exponential(1)"), "needs positive ends"),
    "an unknown optimizer": (dict(optimizer="Adamm"), "unknown optimizer 'Adamm'; did you mean Ad"),
    "an unknown option": (dict(optimizer="Adam(beta=1)"), "has no argument 'beta'; did you mean"),
    "a bad clip": (
        dict(optimizer="Adam(clip_norm=0)"),
        "clip_norm is a number greater than 0, got 0",
    ),
    "no epochs": (dict(epochs=0), "epochs is a whole number of at least 1, got 0"),
    "half a batch": (dict(batch_size=0.5), "batch_size is a whole number of at least 1, got 0.5"),
    "a fraction of all": (dict(validation=1.5), "a fraction between 0 and 1"),
    "a fraction of nothing": (dict(validation=1e-4), "leaves a part empty"),
    "patience alone": (dict(patience=3), "patience needs validation data"),
    "beta inside Renyi": (
        dict(beta=0.5, estimator="RenyiELBO(alpha=0)"),
        "beta scales inside RenyiELBO's logsumexp",
    ),
    "bits of no grey": (dict(binarize="dynamic"), r"grey values in \[0, 1\], x lies in"),
    "unknown bits": (dict(binarize="often"), "binarize is 'dynamic', 'static' or None"),
    "an estimator that cannot": (dict(estimator="TraceEnum_ELBO"), "has no finite support"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        pv.fit(small(), X, **{"epochs": 2, **options})


def test_fit_trains_a_vae():
    with pytest.raises(ValueError, match=r"fit trains a pyro_vae.VAE or .*, got Linear"):
        pv.fit(nn.Linear(2, 2), X)


@pytest.mark.parametrize("how", ["dynamic", "static", None])
def test_validation_data_leave_the_training_data_as_they_are(how):
    """As many as are evaluated of training data for their sake, too."""
    vae, found = small(likelihood="Bernoulli"), []
    x = torch.rand(1500, 4, generator=torch.Generator().manual_seed(0))
    x = x if how else x.round()
    for n in (0, 20, 1200):
        torch.manual_seed(0)
        settings = FitSettings(binarize=how, batch_size=500)
        data = prepare(vae, x, x[:n] if n else None, settings, Processes())
        found.append([data.sample[:1000], *data.batches])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.slow
def test_bits_are_fresh_every_epoch_or_drawn_once(monkeypatch):
    grey = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    for how, fresh in (("dynamic", True), ("static", False)):
        seen = []
        step = SVI.step

        def record(self, x, step=step, seen=seen):
            seen.append(x.clone())
            return step(self, x)

        monkeypatch.setattr(SVI, "step", record)
        pv.fit(pv.VAE(6, 2, seed=0), grey, epochs=3, batch_size=40, binarize=how)
        monkeypatch.setattr(SVI, "step", step)
        assert all(((x == 0) | (x == 1)).all() for x in seen)
        same = [sorted(x.tolist()) == sorted(seen[0].tolist()) for x in seen[1:]]
        assert same == [not fresh] * 2
    mean = torch.stack([binarize(grey) for _ in range(2000)]).mean(0)
    z = (mean - grey) / (grey * (1 - grey) / 2000).sqrt()
    assert z.abs().max() < 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dataset", "loader"])
def test_datasets_and_loaders(kind):
    data = {
        "dataset": TensorDataset(X),
        "loader": DataLoader(X, batch_size=60, shuffle=True),
    }[kind]
    fitted = pv.fit(small(), data, epochs=3, batch_size=60, validation=X[:20])
    assert fitted.history.elbo_validation.notna().all()
    with pytest.raises(ValueError, match="needs x in memory"):
        pv.fit(small(), data, epochs=1, validation=0.1)
    with pytest.raises(ValueError, match="expected x of shape"):
        pv.fit(pv.VAE(5, 2, likelihood="Normal"), data, epochs=1)


def test_an_empty_loader_is_refused():
    with pytest.raises(ValueError, match="the data are empty"):
        pv.fit(small(), DataLoader(TensorDataset(X[:0])), epochs=1)


def test_the_optimizer_is_one_and_takes_the_steps_of_torch():
    ours, theirs = small().double(), small().double()
    x = X.double()
    optim = make_optimizer("SGD(momentum=0.9)", 1e-4)
    svi = SVI(ours.model, ours.guide, optim, Trace_ELBO())
    torch.manual_seed(0)
    for _ in range(5):
        svi.step(x)
    assert len(optim.optimizer.param_groups) == 1
    assert len(optim.parameters) == len(list(ours.parameters()))
    pyro.clear_param_store()
    by_hand = torch.optim.SGD(theirs.parameters(), lr=1e-4, momentum=0.9)
    torch.manual_seed(0)
    for _ in range(5):
        by_hand.zero_grad()
        Trace_ELBO().loss_and_grads(theirs.model, theirs.guide, x)
        by_hand.step()
    assert (weights(ours) - weights(theirs)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("Adam", {}),
        ("Adam(betas=[0.8, 0.99], weight_decay=0.1, maximize=True)",
         dict(betas=(0.8, 0.99), weight_decay=0.1, maximize=True)),
        ("Adam(amsgrad=True)", dict(amsgrad=True)),
        ("Adam(fused=False)", dict(fused=False)),
        ("AdamW(weight_decay=0.1)", dict(weight_decay=0.1)),
    ],
)  # fmt: skip
def test_adam_in_one_call_is_torchs(line, options, monkeypatch):
    """To the bit, while gradients come and go, the rate changes, and a parameter comes later."""
    noise = torch.Generator().manual_seed(0)
    ours = [
        pyro.param(f"p{i}", torch.randn(3 + i, generator=noise)).unconstrained() for i in range(4)
    ]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    optim = make_optimizer(line, lr=0.1)
    constructor = getattr(torch.optim, line.partition("(")[0])
    by_hand = constructor(theirs[:3], lr=0.1, **{"fused": True, **options})
    calls, of_torch = [], inspect.unwrap(torch.optim.Adam.step)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: calls.append(1) or of_torch(self))
    for i in range(12):
        if i == 5:
            optim.lr = by_hand.param_groups[0]["lr"] = 0.03
        if i == 8:  # taken up by another
            saved, optim = optim.get_state(), make_optimizer(line, lr=0.03)
            optim.set_state(saved)
        if i == 11:
            by_hand.add_param_group({"params": theirs[3:], "lr": 0.03})
        for k in range(4 if i == 11 else 3):
            given = None if k == 0 and 3 <= i < 5 else torch.randn(3 + k, generator=noise)
            ours[k].grad, theirs[k].grad = given, given
        optim(ours)
        with torch.no_grad():
            of_torch(by_hand)
        for p, q in zip(ours, theirs, strict=True):
            assert torch.equal(p, q)
            assert p.grad is None
    plain = not {"amsgrad", "fused"} & set(options)
    assert len(calls) == (5 if plain else 12)  # the first of each kind
    steps = {name: state["step"].item() for name, state in optim.get_state().items()}
    assert steps == {"p0": 10, "p1": 12, "p2": 12, "p3": 1}


def test_clipping_bounds_the_whole_gradient():
    vae = small()
    optim = FusedOptim(torch.optim.SGD, {"lr": 1.0}, clip_norm=0.1)
    before = weights(vae)
    SVI(vae.model, vae.guide, optim, Trace_ELBO()).step(X)
    assert (weights(vae) - before).norm() == pytest.approx(0.1, rel=1e-4)


def test_pyros_validation_is_on_for_the_first_batch_only(monkeypatch):
    seen = []
    step = SVI.step

    def record(self, x):
        seen.append(pyro.infer.util.is_validation_enabled())
        return step(self, x)

    monkeypatch.setattr(SVI, "step", record)
    pv.fit(small(), X, epochs=2)
    assert seen == [True] + [False] * 5
    assert pyro.infer.util.is_validation_enabled()


def test_fit_works_in_a_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(pv.fit(small(), X, epochs=1)))
    thread.start()
    thread.join()
    assert len(done[0].history) == 1


@pytest.fixture
def interruptible():
    """As in the foreground: what a shell starts in the background ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_interrupt_ends_at_once(monkeypatch, interruptible):
    def hang(self, *args, **kwargs):
        first = signal.getsignal(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        while signal.getsignal(signal.SIGINT) is first:  # two before it is seen may arrive as one
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)

    monkeypatch.setattr(Loop, "train", hang)
    with pytest.raises(KeyboardInterrupt):
        pv.fit(small(), X, epochs=1)
