"""Answers to the exercises of ``notebooks/01_likelihood.ipynb``."""

import itertools
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

import pyro_vae as pv


def best_location(rate):
    """Exercise 1. KL(p, N(theta, 1)) is a constant plus (Var x + (E x - theta)^2) / 2."""
    return 1 / rate


def standard_error(rate, n):
    """The estimate is the mean of x, so it has its standard error, whatever the model says."""
    return 1 / (rate * math.sqrt(n))


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_the_mean_of_an_exponential_is_estimated_with_the_sandwich_error(rate):
    n, repeats = 50, 4000
    x = dist.Exponential(rate).sample((repeats, n))
    estimates = x.mean(1)  # the maximum likelihood estimate of N(theta, 1)
    error = standard_error(rate, n)
    assert abs(estimates.mean() - best_location(rate)) < 4 * error / math.sqrt(repeats)
    # the variance of s^2 with the kurtosis of a mean of n exponentials, 3 + 6 / n
    assert estimates.var() / error**2 == pytest.approx(1, abs=4 * math.sqrt((2 + 6 / n) / repeats))


def log_likelihood(m, x, share):
    return (dist.Normal(m, 1.0).log_prob(x[:, None]) + share.log()).logsumexp(1).mean()


def test_equal_means_are_stationary_and_no_maximum():
    """Exercise 2. r is p(z) for each x, so both slopes are share times the mean of x - m: zero.

    The curvature along the direction that parts the means, and leaves their mean, is positive as
    soon as x varies more than one part does.
    """
    share = torch.tensor([0.6, 0.4]).double()
    x = torch.cat([torch.randn(120), 4 + torch.randn(80)]).double()
    at = x.mean().repeat(2)
    mean = partial(log_likelihood, x=x, share=share)
    assert jacobian(mean, at).abs().max() < 1e-12
    curvature = hessian(mean, at)
    apart = torch.tensor([1 / 0.6, -1 / 0.4]).double()
    by_hand = (x.var(correction=0) - 1) * (1 / 0.6 + 1 / 0.4)
    assert apart @ curvature @ apart == pytest.approx(by_hand.item())
    assert torch.linalg.eigvalsh(curvature)[-1] > 0


W = torch.tensor([[2.0, -1.0, 0.5], [-1.0, 1.0, 1.5]]).double()
ON = torch.tensor([0.3, 0.6]).double()


def model(x):
    """Exercise 3. Each bit a site, each site summed."""
    how = {"enumerate": "parallel"}
    with pyro.plate("data", len(x)):
        first = pyro.sample("first", dist.Bernoulli(ON[0]), infer=how)
        second = pyro.sample("second", dist.Bernoulli(ON[1]), infer=how)
        logits = first[..., None] * W[0] + second[..., None] * W[1] - 0.5
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def guide(x):
    """All sites are summed."""


def test_two_bits_are_four_states():
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3))).double()
    summed = pv.elbo(pv.Program(model, guide, x), num_samples=1, seed=0)
    by_hand = torch.zeros(len(x)).double()
    for state in itertools.product([0.0, 1.0], repeat=2):
        z = torch.tensor(state).double()
        p_z = (z * ON + (1 - z) * (1 - ON)).prod()
        mean = torch.sigmoid(z @ W - 0.5)
        by_hand += p_z * (x * mean + (1 - x) * (1 - mean)).prod(1)
    assert (summed.exp() - by_hand).abs().max() < 1e-12
    assert by_hand.sum() == pytest.approx(1)  # all eight x
