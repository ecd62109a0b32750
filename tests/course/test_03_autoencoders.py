"""Answers to the exercises of ``notebooks/03_autoencoders.ipynb``."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

import pyro_vae as pv


@pytest.mark.slow
def test_the_absolute_error_is_a_laplace_likelihood_and_its_constant_the_median():
    """Exercise 1. -log p(x) = |x - m| / s + log 2 s; squares give the mean instead."""
    x = torch.tensor([0.0, 1.0, 2.0, 10.0, 50.0])
    grid = torch.linspace(-5, 60, 651)  # holds the median and the mean
    best = {}
    for line, s in (("Laplace(scale=2)", 2.0), ("Normal(scale=2)", 2.0)):
        vae = pv.VAE(1, 1, likelihood=line, encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0)
        head = vae.likelihood.sources["loc"].head
        with torch.no_grad():
            head.weight.zero_()
            cost = []
            for m in grid:
                head.bias.fill_(m.item())
                cost.append(-vae.decode(torch.zeros(1, 1)).log_prob(x[:, None]).sum())
        if line.startswith("Laplace"):
            formula = (x - grid[:, None]).abs().sum(1) / s + len(x) * math.log(2 * s)
            assert torch.allclose(torch.stack(cost), formula, rtol=1e-5)
        best[line] = grid[torch.stack(cost).argmin()].item()
    assert best["Laplace(scale=2)"] == pytest.approx(x.median().item(), abs=1e-4)
    assert best["Normal(scale=2)"] == pytest.approx(x.mean().item(), abs=0.0501)  # half a grid step


def wiener(covariance, s):
    """Exercise 2. The slope of E[x | x + s e], both of mean zero: Cov(x, seen) Var(seen)^-1."""
    return covariance @ np.linalg.inv(covariance + s**2 * np.eye(len(covariance)))


def test_the_best_linear_denoiser_is_a_regression_of_x_on_its_noisy_version():
    rng, s, n = np.random.default_rng(0), 0.8, 20000
    root = rng.normal(size=(3, 3))
    x = rng.normal(size=(n, 3)) @ root.T
    seen = x + s * rng.normal(size=x.shape)
    slopes = np.linalg.solve(seen.T @ seen, seen.T @ x).T
    covariance = root @ root.T
    left = covariance - wiener(covariance, s) @ covariance  # variance of x given what is seen
    inverse = np.linalg.inv(covariance + s**2 * np.eye(3))
    error = np.sqrt(np.outer(np.diag(left), np.diag(inverse)) / n)
    assert np.abs((slopes - wiener(covariance, s)) / error).max() < 4


def elbo(w, variance, noise, beta):
    """Exercise 3. Mean over x of E log N(x; wz, noise^2) - beta KL, at the best q = N(m x, v)."""
    v = beta / (beta + w**2 / noise**2)
    m = w / (w**2 + beta * noise**2)
    rebuilt = ((1 - w * m) ** 2 * variance + w**2 * v) / noise**2
    kl = (m**2 * variance + v - 1 - math.log(v)) / 2
    return -(rebuilt + math.log(2 * math.pi * noise**2)) / 2 - beta * kl


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0, 9.0])
def test_a_weak_direction_is_switched_off_by_the_kl(beta):
    variance, noise = 2.0, 0.6
    found = minimize_scalar(
        lambda w: -elbo(w, variance, noise, beta), bounds=(0, 3), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert found.x == pytest.approx(math.sqrt(max(variance - beta * noise**2, 0)), abs=1e-4)
    if beta == 1:  # and it is the log-likelihood of N(0, w^2 + noise^2) there
        exact = -(math.log(2 * math.pi * variance) + 1) / 2
        assert -found.fun == pytest.approx(exact, abs=1e-9)
