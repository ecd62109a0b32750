"""Missing cells are filled from their distribution given the others."""

import math

import numpy as np
import pytest
import torch

import pyro_vae as pv
from helpers.linear import SCALE, X, Z, linear_vae, marginal
from pyro_vae.model.imputation import chains

GONE = torch.tensor([[0, 1, 0, 0, 1], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1] * X]).bool()


def data(n=4, seed=0):
    torch.manual_seed(seed)
    whole = marginal(linear_vae()).sample((n,))
    return whole.masked_fill(GONE[:n], math.nan)


def conditional(x):
    """Mean of the missing cells given the others, and their covariance, of one datum."""
    p = marginal(linear_vae())
    gone, there = x.isnan(), ~x.isnan()
    s = p.covariance_matrix
    gain = s[gone][:, there] @ s[there][:, there].inverse()
    mean = p.loc[gone] + gain @ (x[there] - p.loc[there])
    return mean, s[gone][:, gone] - gain @ s[there][:, gone]


def seeing():
    """The model of ``linear.py``, with an encoder of missing cells that knows the prior alone."""
    vae = pv.VAE(
        X, Z, likelihood=f"Normal(scale={SCALE})", guide="Normal(scale=learned(1.0))",
        encoder=pv.MLP([]), decoder=pv.MLP([]), missing=True, seed=0,
    ).double()  # fmt: skip
    vae.likelihood.load_state_dict(linear_vae().likelihood.state_dict())
    with torch.no_grad():
        for p in vae.approximation.sources["loc"].parameters():
            p.zero_()
    return vae


MODELS = {
    "weighted draws of the prior": (seeing, dict(num_samples=5000)),
    "chains by the posterior": (linear_vae, dict(num_samples=50, sweeps=60)),
    "chains by another guide": (
        lambda: linear_vae("mean-field", scale_factor=1.5, shift=0.3),
        dict(num_samples=50, sweeps=100),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_the_mean_is_the_conditional_one(name):
    make, told = MODELS[name]
    vae, x = make(), data()
    found = vae.impute(x.repeat(30, 1), seed=0, **told).reshape(30, *x.shape)
    for i, one in enumerate(x):
        gone = one.isnan()
        assert torch.equal(found[:, i, ~gone], one[~gone].expand(30, -1))
        if not gone.any():
            continue
        mean, _ = conditional(one)
        error = found[:, i, gone].std(0) / 30**0.5
        assert ((found[:, i, gone].mean(0) - mean).abs() < 5 * error).all()
        assert gone.all() or (mean - marginal(vae).loc[gone]).abs().max() > 0.1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_draws_have_the_conditional_mean_and_covariance(name):
    make, told = MODELS[name]
    vae, x, n = make(), data(2), 4000
    draws = vae.impute(x, draws=n, **{**told, "num_samples": n}, seed=1)
    assert draws.shape == (n, 2, X) and torch.equal(draws[:, ~GONE[:2]][0], x[~GONE[:2]])
    for i, one in enumerate(x):
        mean, covariance = conditional(one)
        drawn = draws[:, i, one.isnan()]
        # Weighted draws and chains' last states repeat: fewer than n are different.
        size = n / 8 if make is seeing else n / 2
        variance = covariance.diagonal()
        assert ((drawn.mean(0) - mean).abs() < 5 * (variance / size).sqrt()).all()
        error = ((covariance**2 + torch.outer(variance, variance)) / size).sqrt()
        assert ((torch.cov(drawn.T) - covariance).abs() < 5 * error).all()


def test_chains_leave_z_at_the_posterior_given_what_is_there():
    vae, x = linear_vae("mean-field", scale_factor=1.5, shift=0.3), data(1)
    z = chains(vae, x, 4000, 60)[:, 0]
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight.detach()[~GONE[0]], head.bias.detach()[~GONE[0]]
    precision = torch.eye(Z).double() + w.T @ w / SCALE**2
    mean = torch.linalg.solve(precision, w.T @ (x[0, ~GONE[0]] - b)) / SCALE**2
    covariance = precision.inverse()
    assert ((z.mean(0) - mean).abs() < 5 * (covariance.diagonal() / len(z)).sqrt()).all()
    assert torch.allclose(torch.cov(z.T), covariance, rtol=0.15, atol=0.01)


@pytest.mark.parametrize("missing", [True, False])
def test_cells_of_every_kind_are_filled_in_their_support(missing):
    likelihoods = {"Bernoulli": 1.0, "Poisson": 3.0, "Beta": 0.4, "StudentT(df=4)": -2.0,
                   "Categorical(categories=4)": 2.0}  # fmt: skip
    for likelihood, value in likelihoods.items():
        vae = pv.VAE((1, 3, 3), 2, likelihood=likelihood, missing=missing, seed=0)
        x = torch.full((5, 1, 3, 3), value)
        x[0], x[1, 0, 0] = math.nan, math.nan
        draws = vae.impute(x, draws=7, num_samples=20, sweeps=3, seed=0)
        assert draws.shape == (7, 5, 1, 3, 3) and torch.equal(
            draws[:, 2:], x[2:].expand(7, *x[2:].shape)
        )
        vae.check(draws.flatten(0, 1))
        assert torch.equal(draws, vae.impute(x, draws=7, num_samples=20, sweeps=3, seed=0))
        assert not torch.equal(draws, vae.impute(x, draws=7, num_samples=20, sweeps=3, seed=1))
        if likelihood.startswith("Categorical"):
            with pytest.raises(ValueError, match="no mean: ask for draws"):
                vae.impute(x, num_samples=20, sweeps=3)
        else:
            assert vae.impute(x.numpy(), num_samples=20, sweeps=3).isfinite().all()


@pytest.mark.parametrize("missing", [True, False])
def test_discrete_latents_and_labels_impute_too(missing):
    x = torch.rand(6, 4).round()
    x[0, :2] = math.nan
    vae = pv.VAE(4, 3, prior="Bernoulli", guide="Bernoulli", missing=missing, seed=0)
    assert torch.equal(vae.impute(x, num_samples=30, seed=0)[1:], x[1:])
    m2 = pv.M2(4, 3, 2, missing=missing, seed=0)
    data = torch.cat([x, torch.eye(2)[[0, 1, 0, 1, 0, 1]]], 1)
    filled = m2.impute(data, num_samples=30, seed=0)
    assert filled.shape == x.shape and filled.isfinite().all()


def test_rows_are_imputed_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("pyro_vae.model.imputation.CELLS", 10 * X)
    vae, x = seeing(), data()
    assert vae.impute(x, num_samples=10, seed=0).shape == x.shape
    assert vae.impute(x, num_samples=10, draws=3, seed=0).shape == (3, *x.shape)


@pytest.mark.slow
def test_it_beats_the_mean_of_the_column():
    """Correlated columns, a fifth of the cells gone: close to the best linear guess."""
    torch.manual_seed(0)
    whole = marginal(linear_vae()).sample((400,))
    x = whole.masked_fill(torch.rand_like(whole) < 0.2, math.nan)
    vae = pv.VAE(X, Z, likelihood="Normal(scale=learned)", encoder="MLP([50])",
                 decoder=pv.MLP([]), missing=True, seed=0).double()  # fmt: skip
    pv.fit(vae, x, estimator="DReG(num_particles=5)", epochs=40, lr="cosine(0.02)")
    gone = x.isnan()
    error = (vae.impute(x, num_samples=500, seed=0) - whole)[gone].square().mean()
    best = torch.cat([(conditional(r)[0] - w[r.isnan()]) for r, w in zip(x, whole, strict=True)])
    column = (x.nanmean(0) - whole)[gone].square().mean()
    assert best.square().mean() * 0.9 < error < 1.15 * best.square().mean() < 0.5 * column


def test_bad_arguments_are_refused():
    x = np.full((2, X), np.nan)
    with pytest.raises(ValueError, match="num_samples is a whole number"):
        linear_vae().impute(x, num_samples=0)
    with pytest.raises(ValueError, match="draws is a whole number"):
        linear_vae().impute(x, draws=1.5)
    with pytest.raises(ValueError, match="expected x of shape"):
        linear_vae().impute(x[:, :2])
    with pytest.raises(ValueError, match="of independent cells"):
        pv.VAE(3, 2, likelihood="OneHotCategorical").impute(torch.eye(3))
