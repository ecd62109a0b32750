"""Posterior collapse: it is where the closed form says, and each treatment does what it says."""

import itertools
import math
import os
import signal
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

import pyro_vae as pv
from helpers.linear import SCALE, linear_vae, marginal, posterior
from pyro_vae.infer import AggressiveGuide, FusedOptim, KLWeight, make_estimator, with_free_bits
from pyro_vae.infer.engine.capture import capture
from pyro_vae.infer.engine.distributed import Processes
from pyro_vae.infer.training.callbacks.collapse import mutual_information


def gaussian_data(*variances, n=400):
    """Rows whose sample covariance is exactly the diagonal matrix, and whose mean is 0."""
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, _ = torch.linalg.qr(x - x.mean(0))
    return x * (n * torch.tensor(variances).double()).sqrt()


MEASURED = "pyro_vae.infer.training.callbacks.collapse.mutual_information"
X = gaussian_data(4.0, 0.6, 0.3)
FAINT = gaussian_data(0.6, 0.3, 0.2)


def collapsing(guide="Normal(scale=learned)", latent_dim=2, seed=0):
    """Noise of variance 1: a direction of less variance is not worth its KL."""
    return pv.VAE(
        3, latent_dim, likelihood="Normal(scale=1)", guide=guide,
        encoder=pv.MLP([]), decoder=pv.MLP([]), seed=seed,
    ).double()  # fmt: skip


def train(vae, x=X, **told):
    options = dict(estimator="TraceMeanField_ELBO", batch_size=len(x), lr="cosine(0.1)")
    if "epochs" not in told:  # 200 steps with all data
        x, options = itertools.repeat(x), options | dict(epochs=2, steps_per_epoch=100)
    return pv.fit(vae, x, seed=0, compile=False, **options | told)


def rates(vae, x=X):
    """KL by latent dimension, in closed form."""
    q = vae.encode(x).base_dist
    return kl_divergence(q, dist.Normal(0.0, 1.0)).mean(0).detach()


def weights(vae):
    return torch.cat([p.detach().reshape(-1) for p in vae.parameters()])


# Free bits.


@pytest.mark.slow
def test_without_a_treatment_it_collapses_where_theory_says():
    vae = collapsing()
    train(vae)
    kl = rates(vae).sort(descending=True).values
    assert kl[0] == pytest.approx(0.5 * math.log(4.0), abs=0.01)
    assert kl[1] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["TraceMeanField_ELBO", "Trace_ELBO(num_particles=8)"])
def test_free_bits_are_used_and_buy_what_rate_distortion_theory_says(estimator):
    """A direction of variance v, sent at rate R, is known up to a variance of v exp(-2R)."""
    minimum, vae = 0.4, collapsing(latent_dim=1)
    train(vae, FAINT)
    assert rates(vae, FAINT).item() < 1e-3
    train(vae, FAINT, free_bits=minimum, estimator=estimator)
    assert rates(vae, FAINT).item() == pytest.approx(minimum, abs=0.01)
    left = 0.6 * math.exp(-2 * minimum) + 0.3 + 0.2
    expected = -0.5 * (3 * math.log(2 * math.pi) + left)
    z = vae.encode(FAINT).sample((200,))
    assert vae.decode(z).log_prob(FAINT).mean().item() == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_every_dimension_uses_its_free_bits():
    vae = collapsing()
    train(vae, free_bits=0.4)
    assert rates(vae).min() > 0.39


def test_the_loss_of_a_short_dimension_is_its_minimum_and_the_history_has_the_elbo():
    vae = collapsing()
    minimum = 5.0  # more than any dimension uses
    h = train(vae, free_bits=minimum, epochs=3, lr=1e-9).history
    loss, row = h.loss.iloc[-1], h.iloc[-1]
    assert loss == pytest.approx(-row.log_likelihood + 2 * minimum, abs=0.3)
    assert row.elbo_train == pytest.approx(row.log_likelihood - row.kl)
    h = train(collapsing(), free_bits=minimum, beta=0.5, epochs=3, lr=1e-9).history
    assert h.loss.iloc[-1] == pytest.approx(loss - minimum, abs=0.3)


def exact_gradient(vae, x, minimum):
    """Of minus the free-bits objective of a linear Gaussian model, summed over data."""
    q = vae.approximate_posterior(x).base_dist
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight, head.bias
    squares = (x - q.loc @ w.T - b).square().sum(1) + (q.scale**2 @ w.square().T).sum(1)
    kl = kl_divergence(q, dist.Normal(torch.zeros(()).to(x), 1.0)).mean(0)
    loss = (0.5 * squares / SCALE**2).sum() + len(x) * kl.clamp_min(minimum).sum()
    return torch.autograd.grad(loss, list(vae.parameters()))


SERVED = [
    "Trace_ELBO", "Trace_ELBO(gradient=stl, num_particles=3)", "Trace_ELBO(gradient=score)",
    "TraceMeanField_ELBO", "TraceGraph_ELBO", "TraceGraph_ELBO(gradient=score)",
    "RLOO(gradient=score, num_particles=4)",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("line", SERVED)
def test_the_gradient_under_free_bits_is_unbiased(line):
    vae = linear_vae("mean-field", scale_factor=1.3, shift=0.2, weight_factor=0.5)
    x = marginal(vae).sample((6,))
    kl = rates(vae, x)
    minimum = kl.mean().item()  # one dimension is above it and one below
    assert (kl > minimum).sum() == 1
    exact = torch.cat([g.flatten() for g in exact_gradient(vae, x, minimum)])
    plain = torch.cat([g.flatten() for g in exact_gradient(vae, x, 0.0)])
    assert (exact - plain).abs().max() > 0.1
    estimator = make_estimator(line)
    model, guide = with_free_bits(vae.model, vae.guide, minimum)
    guide = estimator.wrap(guide, x)
    draws, copies = [], 200
    many = x.repeat(copies, 1)  # whose mean KL is that of x
    for _ in range(40):
        vae.zero_grad()
        estimator.elbo.loss_and_grads(model, guide, many)
        draws.append(torch.cat([p.grad.flatten() for p in vae.parameters()]) / copies)
    draws = torch.stack(draws)
    error = draws.std(0) / math.sqrt(len(draws))
    z = (draws.mean(0) - exact) / error.clamp_min(1e-9)
    assert z.abs().max() < 5


REFUSED = {
    "an importance-weighted bound": (
        {}, "RenyiELBO(alpha=0, num_particles=2)", "which RenyiELBO does not follow: use one of T"),
    "measure-valued": ({}, "MeasureValued", "which MeasureValued does not follow"),
    "no KL in closed form": (
        dict(guide="Logistic"), "Trace_ELBO", r"none of Logistic and Normal \(site 'z'\) is reg"),
    "a mixture": (dict(prior="Mixture(Normal(loc=learned))"), "Trace_ELBO", "form, and none of"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_free_bits_are_refused_where_they_do_not_hold(name):
    parts, estimator, message = REFUSED[name]
    vae = pv.VAE(3, 2, likelihood="Normal(scale=1)", **parts)
    with pytest.raises(ValueError, match=message):
        pv.fit(vae, X.float(), estimator=estimator, free_bits=0.1, epochs=1)
    with pytest.raises(ValueError, match="free_bits is a number greater than 0, got -1"):
        pv.fit(vae, X.float(), free_bits=-1, epochs=1)


def test_free_bits_serve_any_pyro_program_and_the_kls_weight():
    def model():
        return pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))

    def guide():
        loc = pyro.param("loc", torch.tensor([1.0, 1.0]))
        return pyro.sample("z", dist.MultivariateNormal(loc, torch.eye(2)))

    for minimum, beta, expected in [(0.5, 1.0, 1.0), (3.0, 1.0, 3.0), (3.0, 0.5, 1.5)]:
        weight = KLWeight(beta)
        treated = [weight(fn) for fn in with_free_bits(model, guide, minimum)]
        assert TraceMeanField_ELBO().loss(*treated) == pytest.approx(expected)
        elbo = Trace_ELBO(num_particles=400, vectorize_particles=True, max_plate_nesting=0)
        mean = elbo.loss(*treated)
        error = beta * math.sqrt(2 / 400)  # log q - log p varies by 2 |loc|^2 / 2
        assert abs(mean - expected) < 5 * error


# delta-VAE.


@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("line", ["DeltaNormal(rate={})", "DeltaNormal({}, scale=learned)"])
def test_a_committed_rate_is_kept_by_every_observation_and_is_tight(rate, line):
    vae = pv.VAE(3, 4, likelihood="Normal", guide=line.format(rate), seed=0)
    q = vae.encode(3 * torch.randn(200, 3)).base_dist
    assert kl_divergence(q, dist.Normal(0.0, 1.0)).min() > rate
    with torch.no_grad():
        for name, p in vae.approximation.named_parameters():
            p.zero_() if "loc" in name else p.copy_(torch.full_like(p, 30.0))
    q = vae.encode(torch.zeros(5, 3)).base_dist
    kl = kl_divergence(q, dist.Normal(0.0, 1.0)).double()
    assert torch.allclose(kl, torch.full_like(kl, rate), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("minimum", "beta"), [(9.0, 1.0), (0.01, 1.0), (0.01, 0.0)])
def test_free_bits_of_rows_with_weights_are_of_what_they_stand_for(minimum, beta):
    weights, loc = torch.tensor([1.0, 2, 7]), torch.tensor([0.3, -1, 2], requires_grad=True)

    def draw(at):
        with pyro.plate("data", 3), pyro.poutine.scale(scale=weights):
            return pyro.sample("z", dist.Normal(at, 1.0))

    pair = with_free_bits(lambda: draw(torch.zeros(3)), lambda: draw(loc), minimum)
    model, guide = map(KLWeight(beta), pair)
    loss = TraceMeanField_ELBO().differentiable_loss(model, guide)
    kl = 0.5 * (weights * loc.detach().square()).sum()  # of ten rows
    assert loss.item() == pytest.approx(beta * max(kl.item(), 10 * minimum))
    (gradient,) = torch.autograd.grad(loss, loc)
    torch.testing.assert_close(gradient, beta * (minimum < 1) * weights * loc.detach())


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_a_committed_rate_is_paid_and_used_where_the_posterior_would_collapse(rate):
    """The encoder's mean moves where the committed noise makes that cheap: v > s^2.

    With mean a x and the scale s, the ELBO is -v / (1 + m / s^2) / 2 - m / 2 and constants, where
    m = a^2 v, so m = (v s^2)^(1/2) - s^2, or 0.
    """
    vae = collapsing(f"DeltaNormal(rate={rate:g}, scale=learned)", latent_dim=1)
    (raw,) = vae.approximation.family.sources["scale"].parameters()
    raw.data.fill_(30.0)  # the best scale is the largest, as v s^2 < 1; its approach is slow
    raw.requires_grad_(False)
    train(vae, FAINT)
    variance = vae.approximation.largest**2
    moved = max(0.0, math.sqrt(0.6 * variance) - variance)
    assert (moved > 0) == (rate == 0.3)
    assert rates(vae, FAINT).item() == pytest.approx(rate + moved / 2, abs=0.005)


def test_delta_normal_saves_loads_and_refuses(tmp_path):
    vae = pv.VAE(3, 2, likelihood="Normal", guide="DeltaNormal(rate=0.3)", seed=0)
    x = torch.randn(4, 3)
    again = pv.load(vae.save(tmp_path))
    assert torch.equal(again.encode(x).base_dist.scale, vae.encode(x).base_dist.scale)
    for prior in ("Normal(scale=learned)", "Normal(scale=2)", "Laplace", "Mixture(Normal)"):
        with pytest.raises(ValueError, match=r"commits to a rate against N\(0, 1\)"):
            pv.VAE(3, 2, likelihood="Normal", guide="DeltaNormal(rate=0.3)", prior=prior)
    with pytest.raises(ValueError, match="rate is a number greater than 0"):
        pv.VAE(3, 2, guide="DeltaNormal(rate=0)")
    with pytest.raises(ValueError, match="says how large the scale may be"):
        pv.VAE(3, 2, guide="DeltaNormal(rate=1, scale=0.5)")


# A guide ahead of the model.


def lagging(seed=0):
    return pv.VAE(
        3, 2, likelihood="Normal(scale=0.5)", encoder=pv.MLP([20]), decoder=pv.MLP([20]), seed=seed
    ).double()


@pytest.mark.slow
def test_the_model_moves_only_when_the_guide_no_longer_improves(monkeypatch):
    vae, seen = lagging(), []
    call = FusedOptim.__call__

    def watched(self, params):
        before = {k: v.detach().clone() for k, v in vae.named_parameters()}
        call(self, params)
        seen.append({k for k, v in vae.named_parameters() if not torch.equal(v, before[k])})

    monkeypatch.setattr(FusedOptim, "__call__", watched)
    rising = itertools.count()
    monkeypatch.setattr(
        MEASURED,
        lambda g, x: torch.tensor(next(rising)),
    )
    train(vae, batch_size=20, epochs=6, lr=1e-2, aggressive=6)
    guides = {k for k, _ in vae.named_parameters() if k.startswith(("encoder", "approximation"))}
    everything = {k for k, _ in vae.named_parameters()}
    moved = [names == everything for names in seen]
    assert all(names in (guides, everything) for names in seen)
    assert not any(moved[:20])  # the first two windows have to be compared
    assert 0 < sum(moved) < len(moved) / 2


def begin(vae, epochs):
    """The callback at the start of a run, as far as it looks at it."""
    optim, processes = FusedOptim(torch.optim.Adam, {"lr": 1e-3}), Processes()
    ahead = AggressiveGuide(epochs)
    ahead.run = SimpleNamespace(vae=vae, sample=X, optim=optim, processes=processes, epoch=0)
    ahead.start()
    return ahead


def test_when_the_model_moves_follows_the_windows_of_the_loss():
    vae = lagging()

    def at(losses):
        ahead = begin(vae, 9)
        found = []
        for i, loss in enumerate(losses):
            ahead.before_step(0.0)
            if not ahead.run.optim.frozen:
                found.append(i)
            ahead.after_step(2 * loss, 2)
        return found

    assert at([5.0] * 43) == [20, 41]  # 10 and 10 of the guide, one of both
    assert at([100.0 - i for i in range(250)]) == [100, 201]  # never longer than 100
    assert at([5.0] * 10 + [4.0] * 10 + [4.5] * 12) == [30]


def test_it_ends_where_the_mutual_information_no_longer_rises():
    found = iter([0.5, 1.0, 0.9])

    def watched(ahead, epochs):
        over = []
        for ahead.run.epoch in range(1, epochs + 1):
            ahead.after_epoch({})
            over.append(ahead.progress.over)
        return over

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            MEASURED,
            lambda g, x: torch.tensor(next(found)),
        )
        vae = lagging()
        ahead = begin(vae, 9)
        assert watched(ahead, 4) == [False, False, True, True]
        ahead.before_step(4.0)
        assert not ahead.run.optim.frozen
    ahead = begin(vae, 1)
    ahead.before_step(0.0)
    assert ahead.run.optim.frozen and watched(ahead, 1) == [True]


@pytest.mark.slow
def test_where_the_model_moves_the_guide_is_at_its_posterior(monkeypatch):
    """KL(q || p(z|x)) at the first ten steps of the model, in closed form."""
    x = marginal(linear_vae()).sample((200,))
    call, gaps = FusedOptim.__call__, []

    def watched(self, params):
        if not self.frozen:
            q = vae.encode(x).base_dist
            q = dist.MultivariateNormal(q.loc, torch.diag_embed(q.scale**2))
            gaps.append(kl_divergence(q, posterior(vae, x)).mean().item())
        call(self, params)

    monkeypatch.setattr(FusedOptim, "__call__", watched)
    found = {}
    for aggressive, epochs in ((None, 1), (40, 16)):
        vae = linear_vae("mean-field", scale_factor=2.0, shift=2.0)
        gaps.clear()
        pv.fit(vae, x, batch_size=20, epochs=epochs, lr=0.02, aggressive=aggressive)
        assert len(gaps) >= 10
        found[aggressive] = sum(gaps[:10]) / 10
    assert found[40] < 0.1 * found[None]


@pytest.mark.slow
def test_mutual_information_is_that_of_the_latent_summary():
    vae = lagging()
    x = X[:200]
    told = pv.latent_summary(vae, x, num_samples=20, seed=0).totals.loc["mutual_information"]
    found = torch.stack([mutual_information(vae.guide, x) for _ in range(20)])
    assert found.mean().item() == pytest.approx(told.value, abs=5 * found.std().item() / 20**0.5)
    far = dist.Normal(torch.arange(7.0) * 100, 1.0)
    assert mutual_information(lambda x: pyro.sample("z", far), torch.zeros(7, 1)) == pytest.approx(
        math.log(7)
    )


# All of them go with compiled steps, and resume bit for bit.


TREATMENTS = {
    "free bits": dict(free_bits=0.3, estimator="TraceMeanField_ELBO"),
    "free bits, sampled": dict(free_bits=0.3),
    "aggressive": dict(aggressive=3, batch_size=10),
    "cyclical": dict(beta="cyclical(0, 1, cycles=2)"),
    "committed rate": dict(),
}


def treated(name, seed=0):
    return collapsing("DeltaNormal(rate=0.2)" if "rate" in name else "Normal", seed=seed)


@pytest.mark.parametrize("name", TREATMENTS)
@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_was_not_interrupted(name, tmp_path, monkeypatch):
    told = dict(epochs=4, batch_size=50, seed=3, lr=1e-2) | TREATMENTS[name]
    whole, parts, again = treated(name), treated(name), treated(name, seed=9)
    expected = pv.fit(whole, X, **told)
    step, taken = SVI.step, []

    def interrupted_step(self, *args):
        taken.append(1)
        if len(taken) == 13 if told["batch_size"] == 50 else len(taken) == 67:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(SVI, "step", interrupted_step)
    assert pv.fit(parts, X, **told, out=tmp_path).interrupted
    resumed = pv.fit(again, X, **told, resume=tmp_path)
    assert torch.equal(weights(again), weights(whole))
    columns = [c for c in expected.history if c != "seconds"]
    assert resumed.history[columns].equals(expected.history[columns])


def test_other_treatments_are_another_run(tmp_path):
    pv.fit(treated(""), X, epochs=1, out=tmp_path, free_bits=0.1)
    with pytest.raises(ValueError, match=r"was run with free_bits=0\.1, not with free_bits=0.2"):
        pv.fit(treated(""), X, epochs=2, resume=tmp_path, free_bits=0.2)


@pytest.mark.slow
def test_a_compiled_run_has_the_numbers_of_the_eager_one(interpreted):
    told = dict(
        epochs=4, batch_size=10, seed=3, lr=1e-2, free_bits=0.3, aggressive=2,
        beta="cyclical(0.1, 1, cycles=2)", estimator="TraceMeanField_ELBO",
    )  # fmt: skip
    runs = [pv.fit(treated("rate"), X, compile=mode, **told) for mode in (False, True)]
    one, other = (torch.tensor(r.history.drop(columns="seconds").to_numpy()) for r in runs)
    assert torch.allclose(one, other, rtol=1e-6, atol=1e-8, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Trace_ELBO", "TraceMeanField_ELBO", "TraceGraph_ELBO"])
def test_free_bits_can_be_made_a_graph(line):
    vae, x = treated(""), X[:20]
    elbo = make_estimator(line).elbo
    model, guide = with_free_bits(vae.model, vae.guide, 0.3)
    graph = capture(elbo, model, guide, x)
    torch.manual_seed(0)
    loss, *gradients = graph.module(x, *graph.live)
    torch.manual_seed(0)
    assert elbo.loss_and_grads(model, guide, x) == pytest.approx(loss.item())
    for parameter, gradient in zip(graph.parameters.values(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient)


CYCLES = {
    "cyclical(0, 1)": [(0, 0), (1.25, 0.5 / 0.5), (0.625, 0.5), (2.4999, 1), (2.5, 0), (9.99, 1)],
    "cyclical(0, 1, cycles=2)": [(0, 0), (1.25, 0.5), (2.5, 1), (4.9, 1), (5, 0), (10, 1)],
    "cyclical(1, 3, epochs=4, cycles=2, rise=1)": [(1, 2), (2, 1), (3, 2), (4, 3), (9, 3)],
}


@pytest.mark.parametrize("line", CYCLES)
def test_cycles_begin_anew_rise_and_stay(line):
    from pyro_vae.infer import schedule

    at = schedule(line, 10)
    assert [at(t) for t, _ in CYCLES[line]] == pytest.approx([value for _, value in CYCLES[line]])


@pytest.mark.parametrize(
    "line, message",
    {
        "cyclical(0, 1, cycles=1.5)": "cycles is a whole number of at least 1, got 1.5",
        "cyclical(0, 1, rise=0)": "rise is a part of a cycle",
        "cyclical(0, 1, warmup=2)": "has no argument 'warmup'",
        "linear(0, 1, cycles=2)": "has no argument 'cycles'",
    }.items(),
)
def test_a_schedule_refuses(line, message):
    with pytest.raises(ValueError, match=message):
        pv.fit(collapsing(), X, beta=line, epochs=4)
