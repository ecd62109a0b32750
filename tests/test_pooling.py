"""Rubin's rules: another implementation, limits that are known, and coverage."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import pyro_vae as pv


def by_hand(estimates, variances, complete):
    """The formulas of Rubin (1987) and of Barnard and Rubin (1999), in fractions."""
    q, u = [Fraction(x) for x in estimates], [Fraction(x) for x in variances]
    m = len(q)
    mean, within = sum(q) / m, sum(u) / m
    between = sum((x - mean) ** 2 for x in q) / (m - 1)
    total = within + between + between / m
    gamma = (between + between / m) / total
    old = (m - 1) / gamma**2
    observed = Fraction(complete + 1, complete + 3) * complete * (1 - gamma)
    df = old * observed / (old + observed)
    r = (between + between / m) / within
    return mean, math.sqrt(total), df, (r + 2 / (df + 3)) / (r + 1)


def test_against_fractions():
    estimates, variances = [2, 3, 5, 4, Fraction(7, 2)], [1, Fraction(3, 2), 1, 2, Fraction(5, 4)]
    pooled = pv.pool([float(x) for x in estimates], [float(x) for x in variances], df_complete=22)
    found = pooled.estimate, pooled.standard_error, pooled.df, pooled.fraction_missing
    expected = [float(x) for x in by_hand(estimates, variances, 22)]
    assert np.allclose(found, expected, rtol=1e-13)
    low, high = pooled.interval(0.9)
    t = stats.t.ppf(0.95, expected[2])
    assert np.allclose([low, high], [expected[0] - t * expected[1], expected[0] + t * expected[1]])


def test_by_numbers_that_a_hand_can_check():
    """q of 1, 2, 3 and u of 1: b = 1, t = 1 + 4/3, lambda = 4/7, df = 2 (7/4)^2."""
    pooled = pv.pool([1, 2, 3], [1, 1, 1])
    assert pooled.estimate == 2 and np.isclose(pooled.standard_error**2, 7 / 3)
    assert np.isclose(pooled.df, 49 / 8)
    assert np.isclose(pooled.fraction_missing, (4 / 3 + 2 / (49 / 8 + 3)) / (7 / 3))


def test_imputations_that_agree_leave_the_complete_table():
    pooled = pv.pool([2.0, 2.0], [4.0, 4.0])
    assert pooled.standard_error == 2 and pooled.df == math.inf and pooled.fraction_missing == 0
    assert np.allclose(pooled.interval(), stats.norm.interval(0.95, 2, 2))
    few = pv.pool([2.0, 2.0], [4.0, 4.0], df_complete=10)
    assert np.isclose(few.df, 11 / 13 * 10)


def test_several_estimates_are_pooled_at_once():
    rng = np.random.default_rng(0)
    q, u = rng.normal(size=(5, 3)), rng.uniform(1, 2, (5, 3))
    together = pv.pool(q, u, df_complete=30)
    for j in range(3):
        assert pv.pool(q[:, j], u[:, j], df_complete=30).df == together.df[j]
    assert together.interval()[0].shape == (3,)


def test_intervals_cover_the_mean():
    """A normal sample of 40, 40 % of it missing at random, imputed properly five times."""
    rng = np.random.default_rng(1)
    tables, n, seen, m = 4000, 40, 24, 5
    x = rng.normal(size=(tables, seen))
    variance = x.var(1, ddof=1) * (seen - 1) / rng.chisquare(seen - 1, (m, tables))
    loc = x.mean(1) + np.sqrt(variance / seen) * rng.normal(size=(m, tables))
    new = loc[..., None] + np.sqrt(variance)[..., None] * rng.normal(size=(m, tables, n - seen))
    full = np.concatenate([np.broadcast_to(x, (m, tables, seen)), new], -1)
    pooled = pv.pool(full.mean(-1), full.var(-1, ddof=1) / n, df_complete=n - 1)
    low, high = pooled.interval(0.95)
    covered = ((low < 0) & (high > 0)).mean()
    assert abs(covered - 0.95) / math.sqrt(0.95 * 0.05 / tables) < 4
    normal = np.abs(pooled.estimate) < stats.norm.ppf(0.975) * pooled.standard_error
    assert (normal.mean() - 0.95) / math.sqrt(0.95 * 0.05 / tables) < -4  # the t is needed


BAD = {
    "one imputation": ([1.0], [1.0], "at least two imputations"),
    "shapes": ([1.0, 2.0], [1.0], "of one shape"),
    "a variance of 0": ([1.0, 2.0], [0.0, 1.0], "greater than 0"),
    "other lengths": ([[1.0, 2.0], [1.0]], [[1.0, 2.0], [1.0]], "are numbers, m of each"),
    "covariances": (np.ones((2, 3)), np.ones((2, 3, 3)), "give the diagonal"),
    "another order": (
        [pd.Series({"a": 1.0, "b": 2.0}), pd.Series({"b": 2.1, "a": 1.1})],
        [pd.Series({"a": 1.0, "b": 1.0})] * 2,
        r"another order, in some table: \['b', 'a'\], where the first has \['a', 'b'\]",
    ),
    "a hole": ([1.0, math.nan], [1.0, 1.0], "finite numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_pooled_is_refused(name):
    estimates, variances, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        pv.pool(estimates, variances)


def regression(tables):
    """Coefficients of the first column on the others, and their squared errors, by table."""
    found = []
    for values in tables:
        x = np.column_stack([np.ones(len(values)), values[:, 1:]])
        inverse = np.linalg.inv(x.T @ x)
        b = inverse @ x.T @ values[:, 0]
        variance = ((values[:, 0] - x @ b) ** 2).sum() / (len(x) - 3)
        found.append((b, variance * inverse.diagonal()))
    return [b for b, _ in found], [v for _, v in found]


@pytest.mark.slow
def test_coefficients_pooled_over_a_vaes_imputations_cover_their_truth():
    """Of 8 tables; ``benchmarks/tables/coverage.py`` does so for 300."""
    truth, n, covered = np.array([1.0, 0.5, 0.3]), 200, {"draws": [], "means": []}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x1 = rng.normal(size=n)
        x2 = 0.6 * x1 + 0.8 * rng.normal(size=n)
        y = truth @ [np.ones(n), x1, x2] + 0.7 * rng.normal(size=n)
        x = np.where(rng.random((n, 3)) < 1 / 3, math.nan, np.column_stack([y, x1, x2]))
        vae = pv.VAE(
            3, 1, likelihood="Normal(scale=learned)", encoder="MLP([16])", decoder="MLP([])",
            missing=True, seed=seed,
        )  # fmt: skip
        bound, rate = "RenyiELBO(alpha=0, num_particles=10)", "cosine(0.1)"
        pv.fit(vae, x, estimator=bound, epochs=12, batch_size=40, lr=rate, seed=0, progress=False)
        draws = vae.impute(x, draws=10, num_samples=200, seed=0).numpy()
        means = vae.impute(x, num_samples=200, seed=0).numpy()
        for name, tables in {"draws": draws, "means": [means] * 2}.items():
            low, high = pv.pool(*regression(tables), df_complete=n - 3).interval(0.95)
            covered[name].append(((low <= truth) & (truth <= high)).mean())
    share = {name: np.mean(each) for name, each in covered.items()}
    error = np.std(covered["draws"], ddof=1) / 8**0.5
    assert share["draws"] > 0.85 and abs(share["draws"] - 0.95) < 4 * error, share
    assert share["means"] < 0.85, share  # one filling, taken for data
