"""Answers to the exercises of ``notebooks/08_believe_it_or_not``."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm

import pyro_vae as pv


def linear_vae(w: torch.Tensor, scale: float) -> pv.VAE:
    """z ~ N(0, I), x ~ N(Wz, I); the guide has the posterior's mean, and standard deviations."""
    vae = pv.VAE(
        *w.shape, likelihood="Normal(scale=1)", guide=f"Normal(scale={scale})",
        encoder=pv.MLP([]), decoder=pv.MLP([]),
    )  # fmt: skip
    precision = torch.eye(w.shape[1]) + w.T @ w
    weights = {"likelihood": w, "approximation": torch.linalg.solve(precision, w.T)}
    with torch.no_grad():
        for name, weight in weights.items():
            head = getattr(vae, name).sources["loc"].head
            head.weight.copy_(weight)
            head.bias.zero_()
    return vae.double()


def test_1_a_wide_guide_has_bounded_weights():
    """log w = log p(x) + log s + (1 - s²) e² / 2, largest at e = 0."""
    s, x = 1.7, torch.linspace(-2, 2, 5)[:, None].double()
    vae = linear_vae(torch.ones(1, 1), s * math.sqrt(0.5))
    torch.manual_seed(0)
    with torch.no_grad():
        q = vae.encode(x)
        z = q.sample((20_000,))
        log_w = vae.decode(z).log_prob(x) + vae.prior().log_prob(z) - q.log_prob(z)
    bound = torch.tensor(norm(0, math.sqrt(2)).logpdf(x[:, 0])) + math.log(s)
    assert (log_w - bound).max() < 1e-6  # the scales are held in single precision
    assert (bound - log_w.max(0).values).max() < 1e-4  # and it is the least bound
    assert pv.log_evidence(vae, x, num_samples=2000, seed=0).khat.max() < 0.5


@pytest.mark.slow
def test_2_an_independent_guide_covers_too_little():
    """Its variance is (1 - rho²) times the posterior's, so 90 % are 2 Phi(1.64 sqrt(...)) - 1."""
    w = torch.tensor([[1.5, 1.2], [1.2, 1.5]])
    precision = torch.eye(2) + w.T @ w
    rho = -precision[0, 1] / precision[0, 0]
    vae = linear_vae(w, precision[0, 0].rsqrt().item())
    table = pv.calibration(vae, 1000, num_samples=99, seed=0).coverage()
    held = table["z[0]"][np.isclose(table.index, 0.9)].item()
    says = 2 * norm.cdf(norm.ppf(0.95) * math.sqrt(1 - rho**2)) - 1
    assert abs(held - says) < 4 * math.sqrt(says * (1 - says) / 1000)
    assert says < 0.75


@pytest.mark.slow
def test_3_one_pixel_collapses_and_two_do_not():
    e = np.linspace(-8, 8, 401)
    weights = norm.pdf(e) / norm.pdf(e).sum()

    def loss(theta, n):
        """Minus the ELBO: slope w, and the guides N(m, s²) and N(-m, s²)."""
        w, m, log_s = theta
        s = math.exp(log_s)
        return n * weights @ np.logaddexp(0, -w * (m + s * e)) + (m**2 + s**2 - 1) / 2 - log_s

    def gain(n):
        starts = ([1.0, 0.5, 0.0], [4.0, 1.0, -0.7], [8.0, 1.0, -1.5])
        return n * math.log(2) - min(minimize(loss, start, (n,)).fun for start in starts)

    assert gain(1) == pytest.approx(0, abs=1e-6)
    smallest = next(n for n in range(1, 10) if gain(n) > 1e-3)
    assert smallest == 2
