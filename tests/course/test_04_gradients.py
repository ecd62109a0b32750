"""Answers to the exercises of ``notebooks/04_gradients``."""

import math

import torch


def best_baseline(rate):
    """1: E[s² f] / E[s²] for the Poisson's score s = z / rate - 1 and f(z) = z."""
    return rate + 1


def pareto(shape, uniform):
    """2: a draw of Pareto(1, shape) from a uniform one, by the inverse of 1 - z ** -shape."""
    return (1 - uniform) ** (-1 / shape)


def arm(logit, f, uniform):
    """3: ARM's gradient in the logit of one bit."""
    p = torch.sigmoid(logit)
    return (f((uniform > 1 - p).double()) - f((uniform < p).double())) * (uniform - 0.5)


def test_the_best_baseline_is_not_the_mean():
    rate, z = 3.0, torch.arange(80.0, dtype=torch.float64)
    q = torch.distributions.Poisson(torch.tensor(rate).double()).log_prob(z).exp()
    score = z / rate - 1

    def variance(b):
        g = score * (z - b)
        return ((q * g**2).sum() - (q * g).sum() ** 2).item()

    b = best_baseline(rate)
    assert variance(b) < min(variance(b - 0.01), variance(b + 0.01), variance(rate))
    assert math.isclose(variance(rate) - variance(b), 1 / rate, rel_tol=1e-9)  # E[s²] (b - b*)²


def test_a_path_of_the_pareto():
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    shape = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    mean = pareto(shape, uniform).log().mean()
    assert math.isclose(mean.item(), 1 / 2.5, rel_tol=1e-3)  # log z is exponential
    (slope,) = torch.autograd.grad(mean, shape)
    assert math.isclose(slope.item(), -1 / 2.5**2, rel_tol=1e-3)


def test_arm_is_unbiased():
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    for value in (-1.3, 0.0, 0.8):
        logit = torch.tensor(value, dtype=torch.float64)
        p = torch.sigmoid(logit)

        def f(z):
            return (z - 0.45) ** 2

        exact = p * (1 - p) * (f(1.0) - f(0.0))
        assert torch.isclose(arm(logit, f, uniform).mean(), exact, atol=1e-6)
