"""Ranks and coverage of calibration, within bands that hold simultaneously."""

import warnings

import numpy as np
import pandas as pd
import pytest

import pyro_vae as pv
from helpers.linear import linear_vae
from pyro_vae.evaluate.guide.calibration import Calibration, simultaneous_band


@pytest.mark.slow
@pytest.mark.parametrize(("n", "points", "level"), [(50, 9, 0.9), (200, 19, 0.99), (500, 49, 0.95)])
def test_the_band_is_arvizs(n, points, level):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utils = pytest.importorskip("arviz.stats.ecdf_utils", exc_type=ImportError)
    u = np.arange(1, points + 1) / (points + 1)
    theirs = utils.ecdf_confidence_band(n, u, u, prob=level, method="optimized")
    ours = simultaneous_band(n, u, level)
    for side, other in zip(ours, theirs, strict=True):
        assert np.abs(side - other).max() < 1.01 / n  # a count: theirs may fall short of the level


def test_all_of_it_holds_as_often_as_it_says():
    n, levels, level, runs = 60, 20, 0.9, 20_000
    u = np.arange(1, levels) / levels
    lower, upper = simultaneous_band(n, u, level)
    counts = np.random.default_rng(0).multinomial(n, np.full(levels, 1 / levels), size=runs)
    below = counts.cumsum(1)[:, :-1] / n
    inside = ((below >= lower - 1e-9) & (below <= upper + 1e-9)).all(1).mean()
    error = (level * (1 - level) / runs) ** 0.5
    assert inside > level - 5 * error
    assert inside < level + 0.05  # counts are whole, so it is not exact
    pointwise = (np.abs(below - u) <= 1.645 * np.sqrt(u * (1 - u) / n)).all(1).mean()
    assert pointwise < level - 0.2  # what bands for each point alone hold


def test_coverage_counts_central_intervals():
    ranks = pd.DataFrame({"z[0]": [0, 1, 2, 3, 4, 5] * 10})
    table = Calibration(ranks, num_samples=5).coverage(0.9)
    assert np.allclose(table.index, [1 / 3, 2 / 3])
    assert np.allclose(table["z[0]"], [1 / 3, 2 / 3])  # ranks 2 and 3, then 1 to 4
    odd = Calibration(pd.DataFrame({"z[0]": [0, 1, 2, 3, 4] * 10}), num_samples=4).coverage(0.9)
    assert np.allclose(odd.index, [0.2, 0.6]) and np.allclose(odd["z[0]"], [0.2, 0.6])
    below = Calibration(ranks, num_samples=5).bands(0.9)
    assert np.allclose(below["z[0]"], below.index)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "side"), [(1.0, 0), (0.7, -1), (1.4, 1)])
def test_a_guide_of_the_wrong_width_covers_too_little_or_too_much(factor, side):
    found = pv.calibration(linear_vae("full", scale_factor=factor), 500, num_samples=49, seed=0)
    table = found.coverage()
    low = table["z[0]"] < table["lower"]
    high = table["z[0]"] > table["upper"]
    assert (low.any(), high.any()) == (side < 0, side > 0)
    ranks = found.bands()
    outside = (ranks["z[0]"] < ranks["lower"]) | (ranks["z[0]"] > ranks["upper"])
    assert outside.any() == (side != 0)
    lines = pv.plots.calibration(found, coverage=True).get_lines()
    assert any(line.get_label() == "z[0]" for line in lines) == (side != 0)


def test_a_level_is_a_probability():
    found = pv.calibration(linear_vae(), 20, num_samples=9, seed=0)
    with pytest.raises(ValueError, match="level is a fraction between 0 and 1, got 1"):
        found.coverage(1)
