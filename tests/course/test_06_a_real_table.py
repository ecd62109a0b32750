"""Answers to the exercises of ``notebooks/06_a_real_table``."""

import math

import numpy as np
import pytest
import torch

import pyro_vae as pv


def test_1_rubins_rules_by_hand():
    estimates, variances, m = np.array([2.0, 2.6, 2.3]), np.array([0.09, 0.08, 0.1]), 3
    within, between = 0.09, 0.09  # (0.09 + 0.08 + 0.1) / 3, and (0.3² + 0.3²) / 2
    total = within + (1 + 1 / m) * between
    share = (1 + 1 / m) * between / total
    df = (m - 1) / share**2
    ratio = (1 + 1 / m) * between / within
    pooled = pv.pool(estimates, variances)
    assert pooled.estimate == pytest.approx(2.3)
    assert pooled.standard_error == pytest.approx(math.sqrt(total))
    assert pooled.df == pytest.approx(df)
    assert pooled.fraction_missing == pytest.approx((ratio + 2 / (df + 3)) / (ratio + 1))


def test_2_draws_have_the_conditional_variance_and_means_do_not():
    """x1 = z + e1, x2 = z + e2: x2 given x1 is normal, with mean x1 / 2 and variance 3 / 2."""
    vae = pv.VAE(2, 1, likelihood="Normal(scale=1)", missing=True, encoder=pv.MLP([]),
                 decoder=pv.MLP([]), inputs="raw", seed=0)  # fmt: skip
    with torch.no_grad():
        vae.likelihood.sources["loc"].head.weight.fill_(1.0)
        vae.likelihood.sources["loc"].head.bias.zero_()
    n = 4000
    x = torch.stack([torch.ones(n), torch.full((n,), math.nan)], 1)
    drawn = vae.impute(x[:1], draws=n, num_samples=20_000, seed=0)[:, 0, 1]
    assert abs(drawn.mean() - 0.5) < 4 * math.sqrt(1.5 / n)
    assert abs(drawn.var() - 1.5) < 4 * 1.5 * math.sqrt(2 / n)
    means = vae.impute(x[:20], num_samples=2000, seed=0)[:, 1]
    assert means.var() < 0.1  # all alike: the noise is left out


def test_3_the_mean_of_what_is_left_where_high_cells_are_hidden():
    """Without its upper half the mean of a standard normal is -sqrt(2 / pi)."""
    n = 4000
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(0))
    left = pv.ampute(x, "MNAR", 0.5, seed=0, strength=200.0)
    known = left[~left.isnan()]
    error = math.sqrt((1 - 2 / math.pi) / len(known))
    assert abs(known.mean() + math.sqrt(2 / math.pi)) < 4 * error
