"""Annealed draws: an unbiased weight, a tighter bound, and a path that autograd follows."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO

import pyro_vae as pv
from helpers.linear import linear_vae, marginal
from pyro_vae.infer import DAIS


def made(steps=3, step=0.3, damping=0.7):
    dais = DAIS(steps, step, damping)
    dais.chain.double()
    return dais


def log_weights(model, guide, *args):
    """Of each observation, or of all where no plate holds the sites."""
    with torch.no_grad():
        q = poutine.trace(guide).get_trace(*args)
        p = poutine.trace(poutine.replay(model, q)).get_trace(*args)
        for trace in (p, q):
            trace.compute_log_prob()
    sums = [
        sum(s["log_prob"] for s in t.nodes.values() if s["type"] == "sample" and "log_prob" in s)
        for t in (p, q)
    ]
    return sums[0] - sums[1]


def vae_and_data(n=4):
    vae = linear_vae("mean-field", scale_factor=0.8, shift=0.3, mix=0.9)
    return vae, vae.sample(n, seed=100)


def test_the_weight_is_unbiased_for_the_evidence():
    vae, x = vae_and_data()
    model, guide = made().around(vae.model, vae.guide)
    many = x.repeat(4000, 1)
    w = (log_weights(model, guide, many) - marginal(vae).log_prob(many)).exp().reshape(4000, 4)
    assert ((w.mean(0) - 1).abs() < 5 * w.std(0) / 4000**0.5).all()
    plain = (log_weights(vae.model, vae.guide, many) - marginal(vae).log_prob(many)).reshape(-1, 4)
    assert (w.log().mean(0) > plain.mean(0)).all()


@pytest.mark.slow
def test_the_weight_is_unbiased_for_two_dependent_latents_beside_a_plate():
    """A global scale-free program: z1 ~ N(0, 1), z2 ~ N(z1, 1), x_i ~ N(z2, 1)."""
    x = torch.tensor([0.5, 1.5, 1.0]).double()

    def model():
        first = pyro.sample("first", dist.Normal(torch.zeros(()).double(), 1.0))
        second = pyro.sample("second", dist.Normal(first, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(second, 1.0), obs=x)

    def guide():
        first = pyro.sample("first", dist.Normal(torch.tensor(0.8).double(), 0.7))
        pyro.sample("second", dist.Normal(first / 2 + 0.6, 0.6))

    exact = dist.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double() + 2)
    elbo = RenyiELBO(alpha=0, num_particles=20_000, vectorize_particles=True, max_plate_nesting=1)
    found, wanted = [], exact.log_prob(x).item()
    for _ in range(10):
        found.append(math.exp(-elbo.loss(*made(2).around(model, guide)) - wanted))
    assert abs(np.mean(found) - 1) < 5 * np.std(found) / 10**0.5
    assert np.std(found) < 0.02


@pytest.mark.slow
def test_the_gradient_is_that_of_the_path():
    vae, x = vae_and_data()
    dais = made()
    pair, parameters = dais.around(vae.model, vae.guide), [*dais.chain.parameters()]
    parameters += [p for n, p in vae.named_parameters() if n.startswith(("approx", "likeli"))]

    def loss():
        pyro.set_rng_seed(3)
        return Trace_ELBO().differentiable_loss(*pair, x)

    slopes = torch.autograd.grad(loss(), parameters)
    for p, slope in zip(parameters, slopes, strict=True):
        with torch.no_grad():
            at = p.view(-1)[0]
            start = at.item()
            sides = []
            for step in (1e-5, -1e-5):
                at.fill_(start + step)
                sides.append(loss().item())
            at.fill_(start)
        numeric = (sides[0] - sides[1]) / 2e-5
        assert slope.view(-1)[0].item() == pytest.approx(numeric, rel=1e-4, abs=1e-6)
        assert (slope != 0).any()


@pytest.mark.slow
def test_eight_steps_are_tighter_than_importance_weighting_at_equal_evaluations(short_pilot):
    """And below log p(x), which bidirectional Monte Carlo bounds from above."""
    vae, x = vae_and_data(40)
    dais = made(8, 0.1, 0.5)
    model, guide = dais.around(vae.model, vae.guide)
    optimizer = torch.optim.Adam(dais.chain.parameters(), 0.1)
    for _ in range(40):
        optimizer.zero_grad()
        Trace_ELBO().loss_and_grads(model, guide, x.repeat(3, 1))
        optimizer.step()
    sandwich = pv.bdmc(vae, 40, temperatures=40, chains=4, seed=0)
    many = sandwich.x.repeat(100, 1)
    found = log_weights(model, guide, many).reshape(100, 40).mean(1)
    plain = log_weights(vae.model, vae.guide, sandwich.x.repeat(900, 1)).reshape(9, 100, 40)
    weighted = (plain.logsumexp(0) - math.log(9)).mean(1)
    value, error = found.mean(), found.std() / 10
    assert value > weighted.mean() + 5 * (error + weighted.std() / 10)
    assert value < sandwich.upper.log_evidence.mean() + 5 * error
    assert value < marginal(vae).log_prob(sandwich.x).mean() + 5 * error


def small():
    return pv.VAE(3, 2, likelihood="Normal(scale=0.5)", encoder="MLP([4])", decoder="MLP([4])",
                  seed=0)  # fmt: skip


@pytest.mark.slow
def test_it_trains_with_the_model_and_a_resumed_run_goes_on(tmp_path, interpreted):
    x = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
    told = {"batch_size": 20, "lr": 1e-2, "seed": 0, "progress": False}
    whole, parts, compiled = DAIS(2), DAIS(2), DAIS(2)
    one = pv.fit(small(), x, epochs=4, callbacks=[whole], **told)
    pv.fit(small(), x, epochs=2, callbacks=[parts], out=tmp_path, **told)
    pv.fit(small(), x, epochs=4, callbacks=[parts], resume=tmp_path, **told)
    two = pv.fit(small(), x, epochs=4, callbacks=[compiled], compile=True, **told)
    for a, b, c in zip(*(d.chain.parameters() for d in (whole, parts, compiled)), strict=True):
        assert torch.equal(a, b)
        assert torch.allclose(a, c, rtol=1e-3, atol=1e-4)
    assert np.allclose(one.history.loss, two.history.loss, rtol=1e-3)
    assert (whole.chain.log_step != math.log(0.1)).all()


def test_what_it_cannot_serve_is_refused():
    with pytest.raises(ValueError, match=r"DAIS anneals the draws .* use Trace_ELBO or RenyiELBO"):
        pv.fit(small(), torch.zeros(4, 3), estimator="DReG", callbacks=[DAIS()], progress=False)
    with pytest.raises(ValueError, match=r"damping is a fraction between 0 and 1, got 1\.5"):
        DAIS(damping=1.5)

    def of(q):
        return lambda: pyro.sample("z", q)

    gamma = of(dist.Gamma(torch.tensor(2.0), 1.0))
    with pytest.raises(ValueError, match="Gamma at site 'z' does not allow: use guide='Normal'"):
        Trace_ELBO().loss(*DAIS().around(gamma, gamma))

    def sub():
        with pyro.plate("data", 10, subsample_size=5):
            pyro.sample("z", dist.Normal(torch.zeros(5), 1.0))

    with pytest.raises(ValueError, match="'data' subsamples it"):
        Trace_ELBO().loss(*DAIS().around(sub, sub))
