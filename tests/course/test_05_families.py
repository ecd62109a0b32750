"""Answers to the exercises of ``notebooks/05_families``."""

import math

import pyro.distributions as dist
import torch
from torch.distributions import kl_divergence

import pyro_vae as pv


def kl_of_poissons(a, b):
    """1: E[z log(a / b)] - a + b."""
    return a * math.log(a / b) - a + b


def best_scale(rho):
    """2: the standard deviation of each coordinate, the root of 1 over the precision's diagonal."""
    return math.sqrt(1 - rho**2)


def gap(rho):
    """2: what it leaves."""
    return -0.5 * math.log(1 - rho**2)


def change_of_variable(x):
    """3: log p(x) - log p(log x), whatever the model."""
    return -x.log().sum(-1)


def test_the_kl_of_poissons():
    z = torch.arange(60.0, dtype=torch.float64)
    q, p = dist.Poisson(torch.tensor(4.0).double()), dist.Poisson(torch.tensor(2.5).double())
    by_sum = (q.log_prob(z).exp() * (q.log_prob(z) - p.log_prob(z))).sum()
    assert math.isclose(by_sum, kl_of_poissons(4.0, 2.5), rel_tol=1e-9)


def test_the_best_independent_guide():
    rho = 0.8
    p = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, rho], [rho, 1.0]]))

    def kl(scale):
        return kl_divergence(
            torch.distributions.MultivariateNormal(torch.zeros(2), scale**2 * torch.eye(2)), p
        ).item()

    best = best_scale(rho)
    assert math.isclose(kl(best), gap(rho), rel_tol=1e-5)
    assert kl(best) < min(kl(best - 0.05), kl(best + 0.05), kl(1.0))


def test_a_change_of_variable():
    x, z = torch.rand(4, 3) + 0.5, torch.zeros(4, 1)
    for seed in (0, 1):  # two models
        one, other = (
            pv.VAE(3, 1, likelihood=f"{family}(scale=0.5)", seed=seed).decode(z)
            for family in ("LogNormal", "Normal")
        )
        apart = one.log_prob(x) - other.log_prob(x.log())
        assert torch.allclose(apart, change_of_variable(x), atol=1e-5)
