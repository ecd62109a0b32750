"""Answers to the exercises of ``notebooks/02_elbo_and_em.ipynb``."""

import itertools
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch.autograd.functional import jacobian


def log_joint(x, shares, rates):
    """log p(x, z), a column a value of z."""
    return shares.log() + rates.log() - x[:, None] * rates


def em_step(x, shares, rates):
    """Exercise 1. The posterior of z; then shares, and one over weighted means."""
    q = log_joint(x, shares, rates).softmax(1)
    return q.mean(0), q.sum(0) / (q * x[:, None]).sum(0)


@pytest.mark.slow
def test_em_for_two_exponentials_never_falls_and_ends_where_the_slope_is_zero():
    x = torch.cat([dist.Exponential(0.2).sample((150,)), dist.Exponential(3.0).sample((250,))])
    x, shares, rates = x.double(), torch.tensor([0.5, 0.5]).double(), torch.tensor([0.5, 1.0])
    rates, found = rates.double(), []
    for _ in range(1500):
        found.append(log_joint(x, shares, rates).logsumexp(1).mean().item())
        shares, rates = em_step(x, shares, rates)
    assert (np.diff(found) > -1e-12).all() and found[-1] > found[0] + 0.1
    by_rates = jacobian(lambda r: log_joint(x, shares, r).logsumexp(1).mean(), rates)
    by_logits = jacobian(
        lambda a: log_joint(x, a.softmax(0), rates).logsumexp(1).mean(), shares.log()
    )
    assert by_rates.abs().max() < 1e-6 and by_logits.abs().max() < 1e-6
    assert torch.allclose(shares @ (1 / rates), x.mean())  # the mean is fitted, as M-steps do


def best_variances(covariance):
    """Exercise 2. KL(q, p) wants the precisions of p, KL(p, q) its variances."""
    precision = torch.linalg.inv(covariance)
    return 1 / precision.diagonal(), covariance.diagonal()


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_a_guide_without_correlations_is_too_narrow_by_one_direction_and_right_by_the_other(rho):
    covariance = torch.tensor([[1.0, 2 * rho], [2 * rho, 4.0]]).double()
    p = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    kl = torch.distributions.kl_divergence

    def q(log_variance):
        return torch.distributions.MultivariateNormal(p.loc, torch.diag(log_variance.exp()))

    narrow, right = best_variances(covariance)
    assert jacobian(lambda v: kl(q(v), p), narrow.log()).abs().max() < 1e-12
    assert jacobian(lambda v: kl(p, q(v)), right.log()).abs().max() < 1e-12
    assert torch.allclose(narrow / right, torch.tensor(1 - rho**2).double())


START, MOVE = np.array([0.3, 0.7]), np.array([[0.9, 0.1], [0.4, 0.6]])
SEEN = np.array([[0.8, 0.2], [0.1, 0.9]])  # p(x | z), a row a value of z


def by_chain(x):
    """Exercise 3. Forward: p(x_1 ... x_t, z_t), and how many products it took."""
    forward, products = START * SEEN[:, x[0]], 2
    for seen in x[1:]:
        forward, products = (forward @ MOVE) * SEEN[:, seen], products + 6
    return forward.sum(), products


def by_sum(x):
    """All 2^n paths."""
    total = 0.0
    for z in itertools.product([0, 1], repeat=len(x)):
        moves = math.prod(MOVE[a, b] for a, b in itertools.pairwise(z))
        total += START[z[0]] * moves * math.prod(SEEN[a, b] for a, b in zip(z, x, strict=True))
    return total


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_chain_of_bits_is_summed_in_linear_time(n):
    x = np.random.default_rng(n).integers(0, 2, n)
    found, products = by_chain(x)
    assert found == pytest.approx(by_sum(x), rel=1e-12)
    assert products == 6 * n - 4
