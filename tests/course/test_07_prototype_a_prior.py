"""Answers to the exercises of ``notebooks/07_prototype_a_prior``."""

import math

import pyro.distributions as dist
import torch
from torch import nn

import pyro_vae as pv


def best_variance(a, s):
    """1: that of q(z), as the mean of log N(z; 0, v) asks for the second moment alone."""
    return a**2 + s**2


def least_kl(a, s):
    """1: KL(q(z) || N(0, best v)), the entropy that a normal has more than q(z)."""
    z = torch.linspace(-a - 12 * s, a + 12 * s, 20_001, dtype=torch.float64)
    q = torch.stack([dist.Normal(m, s).log_prob(z) for m in (-a, a)]).logsumexp(0) - math.log(2)
    entropy = -torch.trapezoid(q.exp() * q, z).item()
    return 0.5 * math.log(2 * math.pi * math.e * best_variance(a, s)) - entropy


class TwoModes(nn.Module):
    """2: half of the mass around mu, half around -mu."""

    def __init__(self, dim):
        super().__init__()
        self.mu = nn.Parameter(torch.ones(dim))

    def forward(self):
        parts = dist.Normal(torch.stack([self.mu, -self.mu]), 1.0).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=torch.zeros(2)), parts)


def vamp_at_data(x):
    """3: a model whose VampPrior has the rows of x for its pseudo-inputs."""
    prior = pv.VampPrior(components=len(x), start="random")
    vae = pv.VAE(x.shape[1], 2, prior=prior, likelihood="Normal", inputs="raw", seed=0)
    with torch.no_grad():
        vae.prior.pseudo_inputs.unconstrained.copy_(x)
    return vae


def test_the_best_normal_prior():
    a, s = 1.5, 0.5
    z = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    q = torch.stack([dist.Normal(m, s).log_prob(z) for m in (-a, a)]).logsumexp(0) - math.log(2)

    def kl(v):
        p = dist.Normal(0.0, math.sqrt(v)).log_prob(z)
        return torch.trapezoid(q.exp() * (q - p), z).item()

    v = best_variance(a, s)
    assert math.isclose(kl(v), least_kl(a, s), rel_tol=1e-6)
    assert kl(v) < min(kl(0.9 * v), kl(1.1 * v), kl(1.0))


def test_a_prior_with_two_modes():
    axis = torch.linspace(-8, 8, 161)
    grid, cell = torch.cartesian_prod(axis, axis), 0.1**2
    with torch.no_grad():
        prior = TwoModes(2)()
        density = prior.log_prob(grid).exp() * cell
        assert math.isclose(density.sum(), 1, rel_tol=1e-4)
        torch.manual_seed(0)
        drawn = prior.sample((4000,)).prod(1)  # E z1 z2 = mu1 mu2: the modes lie on a diagonal
    z = (drawn.mean() - (density * grid.prod(1)).sum()) / (drawn.std() / 4000**0.5)
    assert abs(z) < 4
    vae = pv.VAE(3, 2, prior=TwoModes(2), likelihood="Normal", seed=0)
    pv.fit(vae, torch.randn(20, 3), epochs=1, progress=False)
    assert not torch.equal(vae.prior.mu, torch.ones(2))


def test_a_vamp_prior_at_the_data_is_the_aggregated_posterior():
    torch.manual_seed(0)
    x, z = torch.randn(30, 4), torch.randn(7, 2)
    vae = vamp_at_data(x)
    with torch.no_grad():
        each = vae.approximate_posterior(x).log_prob(z[:, None])
        assert torch.allclose(vae.prior().log_prob(z), each.logsumexp(1) - math.log(30), atol=1e-5)
