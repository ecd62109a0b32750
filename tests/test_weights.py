"""Figures over rows with weights, as those of a sample from a survey: means, and their errors."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from pyro_vae.evaluate.assessment import Assessment
from pyro_vae.evaluate.evidence.importance import Evidence
from pyro_vae.evaluate.models.comparison import weights_of
from pyro_vae.evaluate.simple_models import baselines
from pyro_vae.evaluate.statistics import mean_and_error

N = 40
WEIGHTS = np.random.default_rng(0).integers(1, 6, N).astype(float)
ROWS = pd.DataFrame(np.random.default_rng(1).normal(size=(N, 2)), columns=["a", "b"])
ROWS = ROWS.assign(a=(ROWS.a + 1) * WEIGHTS**2, w=WEIGHTS)


@pytest.fixture(scope="module")
def vae():
    table = pv.Table.from_frame(ROWS, kinds={"w": "real"})
    return pv.VAE(table, 2, weight="w", encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0).double()


def of_survey(v, w=WEIGHTS):
    """The weighted mean, and its error where primary units are rows (Cochran 1977, 6.4)."""
    average = np.average(v, weights=w)
    return average, np.sqrt(len(v) / (len(v) - 1) * (w**2 * (v - average) ** 2).sum()) / w.sum()


def test_the_error_is_that_of_weighted_means_of_other_samples():
    rng = np.random.default_rng(2)
    w = rng.choice([1.0, 5.0], (400, 200))
    v = rng.normal(size=w.shape) * w  # what is counted more often varies more
    pairs = [mean_and_error(torch.tensor(a), torch.tensor(b)) for a, b in zip(v, w, strict=True)]
    means, errors = np.array(pairs).T
    z = (means.std() / np.sqrt((errors**2).mean()) - 1) * np.sqrt(2 * len(means))
    assert abs(z) < 4  # of a standard deviation of so many normal means
    assert (v.std(1) / 200**0.5).mean() < 0.7 * errors.mean()


@pytest.mark.slow
def test_log_p_of_a_survey_and_comparisons_of_it_are_weighted(vae):
    other = pv.VAE(pv.Table.from_frame(ROWS), 1, weight="w", seed=1).double()
    found = pv.compare({"one": vae, "other": other}, ROWS, num_samples=30, seed=0)
    alone = pv.log_evidence(vae, ROWS, num_samples=30, num_simulated=0, seed=0)
    v, gap = found.pointwise["one"], found.pointwise["other"] - found.pointwise["one"]
    assert (alone.mean, alone.mean_error) == pytest.approx(of_survey(v))
    error = (WEIGHTS * alone.standard_error.numpy() / WEIGHTS.sum()) ** 2
    assert alone.monte_carlo_error == pytest.approx(np.sqrt(error.sum()))
    assert found.table.loc["one", ["elpd", "se"]].to_numpy(float) / N == pytest.approx(of_survey(v))
    gaps = found.table[["difference", "difference_se"]].abs().max().to_numpy() / N
    assert gaps == pytest.approx(np.abs(of_survey(gap)))
    best = found.weights["one"]
    grid = np.linspace(1e-6, 1 - 1e-6, 1001)[:, None]
    scores = np.logaddexp(np.log(grid) + v.to_numpy(), np.log1p(-grid) + (v + gap).to_numpy())
    assert best == pytest.approx(grid[np.average(scores, 1, WEIGHTS).argmax(), 0], abs=2e-3)
    doubled, others = (replace(alone, weights=w) for w in (2 * alone.weights, alone.log_evidence))
    assert weights_of([alone, doubled, replace(alone, weights=None)]) is not None
    drawn = pv.bdmc(vae, 5, given=ROWS, temperatures=2, chains=2, seed=0)
    assert vae.weights_of(drawn.x).tolist() == [1.0] * 5
    with pytest.raises(ValueError, match="different weights"):
        weights_of([alone, others])


def test_the_table_of_an_assessment_is_weighted(vae):
    elbo, by_guide, better = torch.tensor(np.random.default_rng(3).normal(size=(3, N)))
    w = torch.tensor(WEIGHTS)
    guide, fitted = (
        Evidence(v, 0 * v, 0 * v, 9, proposals=("guide",) * N) for v in (by_guide, better)
    )
    parts = dict.fromkeys(
        [
            "latents",
            "gaps",
            "calibration",
            "sandwich",
            "labels",
            "baselines",
            "predictive",
            "imputation",
        ]
    )
    for rows in (None, torch.arange(N)):  # of all rows, double sampling has nothing to add
        found = Assessment(elbo, fitted, guide, rows, **parts, refused={}, weights=w).table
        assert found.loc["log p(x)"].to_numpy() == pytest.approx(of_survey(better.numpy()))
        assert found.loc["ELBO"].to_numpy() == pytest.approx(of_survey(elbo.numpy()))


@pytest.mark.slow
def test_the_latent_space_of_weighted_rows_is_that_of_repeated_ones(vae):
    many = ROWS.loc[ROWS.index.repeat(WEIGHTS.astype(int))].assign(w=1.0)
    one, other, plain = (
        pv.latent_summary(vae, x, num_samples=200, seed=0) for x in (ROWS, many, ROWS.assign(w=1.0))
    )
    a, b, c = (s.dimensions.activity.to_numpy() for s in (one, other, plain))
    assert a * (N - 1) / N == pytest.approx(b * (len(many) - 1) / len(many))
    assert (np.abs(c / a - 1) > 0.02).all()
    a, b, c = (s.totals["value"][["kl", "aggregate_kl"]].to_numpy() for s in (one, other, plain))
    assert np.abs(a - b).max() < 0.1 * np.abs(c - b).max()
    shares = WEIGHTS / WEIGHTS.sum()
    assert one.ceiling == pytest.approx(-(shares * np.log(shares)).sum())


def test_figures_that_count_each_row_once_refuse_weights_and_a_step_heeds_them(vae):
    labels = np.arange(N) % 2
    many = ROWS.index.repeat(WEIGHTS.astype(int))
    one, other = (
        pv.attribute_step(vae, ROWS.loc[rows].assign(w=w), labels[rows])
        for rows, w in ((ROWS.index, WEIGHTS), (many, 1.0))
    )
    torch.testing.assert_close(one, other)
    counts, groups = ROWS[["a", "b"]].abs().round().assign(w=WEIGHTS), (labels == 0, labels == 1)
    line = {"a": "Poisson", "b": "Poisson"}
    rates = pv.VAE(pv.Table.from_frame(counts, likelihood=line), 2, weight="w", seed=0)
    blocks = [pv.Block("x", 2), pv.Block("n", (), "offset"), pv.Block("w", (), "weight")]
    topics = {"likelihood": "Multinomial", "decoder": "Topics", "seed": 0}
    documents = pv.VAE(pv.Record(blocks), 2, **topics).double()
    words = counts[["a", "b"]].to_numpy() + 1
    x = {"x": words, "n": np.log(words.sum(1)), "w": WEIGHTS}
    for call in (
        lambda: pv.label_scores(vae, ROWS, labels),
        lambda: pv.factor_scores(vae, ROWS, labels[:, None]),
        lambda: pv.differential_expression(rates, counts, *groups),
        lambda: pv.topics(documents, ["v", "w"], x, top=2),
    ):
        with pytest.raises(ValueError, match="counts each observation once"):
            call()


def test_baselines_are_fitted_to_what_weighted_rows_stand_for(vae):
    far = ROWS.assign(a=np.where(ROWS.index % 2, 100.0, ROWS.b), w=np.where(ROWS.index % 2, 1, 1e6))
    found = baselines(vae, far)["independent columns"]
    assert np.average(found, weights=far.w) > -6 > found.mean()
    assert np.average(baselines(vae, far.assign(w=1.0))["independent columns"], weights=far.w) < -6


def test_the_gain_of_a_prior_is_the_weighted_mean(vae):
    line = "Normal(loc=learned, scale=learned)"
    found = pv.fit_prior(vae, ROWS, line, epochs=2, validation=0.5, seed=0)
    assert found.weights.std() > 0
    own = of_survey(found.gains.numpy(), found.weights.numpy())
    assert (found.gain, found.gain_error) == pytest.approx(own)
