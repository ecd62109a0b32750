"""Exact answers: a linear VAE is probabilistic PCA."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

import pyro_vae as pv

pytestmark = pytest.mark.slow

LATENT = 3


@pytest.fixture(scope="module")
def wine():
    return torch.tensor(StandardScaler().fit_transform(load_wine().data))


def train(vae, x, estimator):
    """500 steps with all data."""
    steps = {"epochs": 5, "steps_per_epoch": 100, "batch_size": len(x)}
    pv.fit(vae, itertools.repeat(x), estimator=estimator, **steps, lr="cosine(1e-1)", seed=0)


@pytest.fixture(scope="module")
def linear_vae(wine):
    vae = pv.VAE(
        13, LATENT, likelihood="Normal(scale=learned)", guide="Normal(scale=learned)",
        encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0,
    ).double()  # fmt: skip
    train(vae, wine, "TraceMeanField_ELBO(num_particles=16)")
    return vae


def ppca(x):
    """Eigenvalues of the covariance, the noise variance and the log likelihood per observation."""
    values = np.linalg.eigvalsh(np.cov(x.T.numpy(), bias=True))[::-1]
    sigma2 = values[LATENT:].mean()
    d = len(values)
    log_det = np.log(values[:LATENT]).sum() + (d - LATENT) * np.log(sigma2)
    return values, sigma2, -0.5 * (d * np.log(2 * np.pi) + log_det + d)


def test_the_formula_is_scikit_learns(wine):
    model = PCA(LATENT).fit(wine.numpy())
    n = len(wine)  # scikit-learn divides by n - 1
    model.explained_variance_ *= (n - 1) / n
    model.noise_variance_ *= (n - 1) / n
    assert ppca(wine)[2] == pytest.approx(model.score(wine.numpy()), abs=1e-9)


def test_a_linear_vae_reaches_the_likelihood_of_ppca(wine, linear_vae):
    """Lucas et al. (2019), arXiv:1911.02469: at the optimum the ELBO is log p(x)."""
    _, sigma2, log_likelihood = ppca(wine)
    bound = pv.elbo(linear_vae, wine, num_samples=400, seed=0)
    assert bound.mean() == pytest.approx(log_likelihood, abs=0.05)
    scale = linear_vae.likelihood.sources["scale"](None)[0].item()
    assert scale**2 == pytest.approx(sigma2, rel=0.01)


def test_its_encoder_is_the_posterior_mean_of_ppca(wine, linear_vae):
    head = linear_vae.likelihood.sources["loc"].head
    w, mu = head.weight.detach(), head.bias.detach()
    scale = linear_vae.likelihood.sources["scale"](None)[0].detach()
    m = w.T @ w + scale**2 * torch.eye(LATENT).double()
    mean = torch.linalg.solve(m, w.T @ (wine - mu).T).T
    assert (linear_vae.encode(wine).mean - mean).abs().max() < 0.02
    off_diagonal = m - torch.diag(m.diagonal())  # the diagonal guide turns W until M is diagonal
    assert off_diagonal.abs().max() < 0.01 * m.diagonal().min()


@pytest.mark.parametrize("sigma2", [0.75, 1.2])
def test_dimensions_collapse_where_the_noise_exceeds_the_eigenvalue(wine, sigma2):
    values, *_ = ppca(wine)
    scale = sigma2**0.5
    vae = pv.VAE(
        13, 6, likelihood=f"Normal(scale={scale})", guide="Normal(scale=learned)",
        encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0,
    ).double()  # fmt: skip
    train(vae, wine, "TraceMeanField_ELBO")
    q = vae.encode(wine).base_dist
    kl = (0.5 * (q.loc**2 + q.scale**2 - 1) - q.scale.log()).mean(0)
    active = int((values[:6] > sigma2).sum())
    assert int((kl > 0.02).sum()) == active < 6
