"""Penalties on the aggregated posterior, against closed forms and quadrature."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

import pyro_vae as pv
from pyro_vae.infer import MMD, TotalCorrelation

MEANS = torch.tensor([[0.5, -1.0], [1.5, 0.3], [-0.7, 0.8]]).double()
SCALES = torch.tensor([[0.6, 0.9], [0.4, 0.7], [1.1, 0.5]]).double()


def gaussian(copies=1):
    """Three observations with a posterior each, and a standard normal prior, in so many copies."""

    def model():
        with pyro.plate("copies", copies, dim=-2), pyro.plate("data", 3, dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))

    def guide():
        loc = pyro.param("loc", lambda: MEANS.repeat(copies, 1, 1))
        with pyro.plate("copies", copies, dim=-2), pyro.plate("data", 3, dim=-1):
            pyro.sample("z", dist.Normal(loc, SCALES).to_event(1))

    return model, guide


def alike(m, v):
    """E exp(-|d|^2 / 4) of a normal difference d, of mean m and variance v, in 2 dimensions."""
    return ((-m.square() / (2 * (v + 2))).exp() * (2 / (v + 2)).sqrt()).prod(-1)


def exact_mmd(means):
    """By pairs of different observations."""
    v = SCALES.square()
    pairs = [alike(means[i] - means[j], v[i] + v[j]) for i in range(3) for j in range(3) if i != j]
    prior = alike(torch.zeros(2).double(), torch.full((2,), 2.0).double())
    return torch.stack(pairs).mean() + prior - 2 * alike(means, v + 1).mean()


def exact_tc(means):
    """On a grid."""
    at = torch.linspace(-7, 7, 600).double()
    log_q = dist.Normal(means[:, :, None], SCALES[:, :, None]).log_prob(at)  # (3, 2, 600)
    joint = (log_q[:, 0, :, None] + log_q[:, 1, None, :]).exp().mean(0)
    one, two = log_q.exp().mean(0)
    cell = (at[1] - at[0]) ** 2
    return (joint * (joint / (one[:, None] * two)).log()).sum() * cell


EXACT = {MMD: exact_mmd, TotalCorrelation: exact_tc}


@pytest.mark.slow
@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("make", EXACT)
def test_the_penalty_is_the_exact_one_in_value_and_gradient(make, particles):
    copies = 50
    model, guide = gaussian(copies)
    penalized = make(2.0).around(model, guide)
    elbo = TraceMeanField_ELBO(
        num_particles=particles, vectorize_particles=True, max_plate_nesting=2
    )
    values, slopes = [], []
    for _ in range(30):
        with pyro.get_param_store().scope():
            whole = elbo.differentiable_loss(*penalized)
            rest = elbo.differentiable_loss(model, guide)
            values.append(((whole - rest) / (copies * 3 * 2.0)).item())
            (whole - rest).backward()
            slopes.append(pyro.param("loc").grad.flatten(1) / (3 * 2.0))
    means = MEANS.clone().requires_grad_()
    wanted = EXACT[make](means)
    (slope,) = torch.autograd.grad(wanted, means)
    for sample, known in ((torch.tensor(values)[:, None].double(), wanted[None]),
                          (torch.cat(slopes), slope.flatten())):  # fmt: skip
        error = sample.std(0) / len(sample) ** 0.5
        assert ((sample.mean(0) - known.detach()).abs() < 5 * error).all()
        assert (known.abs() > 5 * error).any()  # it would be seen if it were zero


def data():
    pyro.set_rng_seed(0)
    z = torch.randn(400, 2)
    return z @ torch.tensor([[1.0, 0.6, 0.1], [0.5, 1.2, 1.0]]) + 0.3 * torch.randn(400, 3)


def trained(batch_size=100, **told):
    vae = pv.VAE(3, 2, likelihood="Normal(scale=0.3)", encoder="MLP([8])", decoder="MLP([8])",
                 seed=0)  # fmt: skip
    told = {"batch_size": batch_size, "lr": 1e-2, "progress": False, **told}
    fit = pv.fit(vae, data(), epochs=15, seed=0, **told)
    return vae, fit


@pytest.mark.slow
@pytest.mark.parametrize("make", EXACT)
def test_training_lowers_what_is_penalized_and_the_compiled_step_is_the_same(make, interpreted):
    (plain, _), (one, history) = trained(beta=0.1), trained(beta=0.1, callbacks=[make(20.0)])
    _, again = trained(beta=0.1, callbacks=[make(20.0)], compile=True)
    assert np.allclose(history.history.loss, again.history.loss, rtol=1e-3)

    def penalty(vae):
        q = vae.approximate_posterior(data())
        with torch.no_grad():
            return make(1.0).penalty(q.rsample(), q, vae.prior()).item()

    assert penalty(one) < 0.5 * penalty(plain)


def test_what_it_cannot_serve_is_refused():
    with pytest.raises(ValueError, match=r"MMD adds a factor .* use Trace_ELBO or TraceMeanField"):
        trained(estimator="DReG", callbacks=[MMD(1.0)])
    with pytest.raises(ValueError, match=r"gradient=stl\) does not do: use Trace_ELBO"):
        trained(estimator="Trace_ELBO(gradient=stl)", callbacks=[TotalCorrelation(1.0)])
    n = len(data())
    with pytest.raises(ValueError, match=f"one batch of an epoch has one: .* than {n - 1}"):
        trained(batch_size=n - 1, callbacks=[MMD(1.0)])
    full = dist.MultivariateNormal(torch.zeros(2), torch.eye(2)).expand([3])
    with pytest.raises(ValueError, match="MultivariateNormal is no product over dimensions: use"):
        TotalCorrelation(1.0).penalty(full.sample(), full, full)
    with pytest.raises(ValueError, match="batch_size is at least 2, got 1"):
        one = dist.Normal(torch.zeros(1, 2), 1.0).to_event(1)
        MMD(1.0).penalty(one.sample(), one, one)

    def model():
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.4)))

    with pytest.raises(ValueError, match="site 'z' has no path: use a reparameterized guide"):
        Trace_ELBO().loss(*MMD(1.0).around(model, model))
    assert math.isfinite(Trace_ELBO().loss(*MMD(1.0).around(*gaussian())))
    heavy = pyro.poutine.scale(scale=torch.arange(1.0, 4))
    with pytest.raises(ValueError, match="MMD is of the guide's mean in which each observation"):
        Trace_ELBO().loss(*MMD(1.0).around(*map(heavy, gaussian())))
