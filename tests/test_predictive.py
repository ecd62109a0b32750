"""Data beside the model's draws: a good model passes, a wrong one is named by column and pair."""

import math

import numpy as np
import pytest
import torch

import pyro_vae as pv
from helpers.linear import linear_vae
from pyro_vae.evaluate.predictive import PredictiveCheck


def normal(scale, weights=None):
    """z ~ N(0, I) and x ~ N(Wz, scale^2 I)."""
    vae = pv.VAE(
        3, 2, likelihood=f"Normal(scale={scale})", encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0
    ).double()
    with torch.no_grad():
        for p in vae.parameters():
            p.zero_()
        if weights is not None:
            vae.likelihood.sources["loc"].head.weight.copy_(torch.tensor(weights))
    return vae


def noise(n=400, d=3, seed=5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.slow
def test_a_models_own_draws_pass():
    """At a level of .01, of 40 data sets: more than 4 alarms would be seen once in 10,000 times."""
    vae = linear_vae()
    alarms = sum(
        pv.predictive_check(vae, vae.sample(200, seed=s), seed=100 + s).departs for s in range(40)
    )
    assert alarms <= 4


@pytest.mark.slow
def test_the_scores_are_standard_normal_under_the_model():
    vae = linear_vae()
    found = [pv.predictive_check(vae, vae.sample(200, seed=s), seed=100 + s) for s in range(60)]
    for name in ("mean_z", "spread_z"):
        z = torch.tensor([f.columns[name].iloc[0] for f in found])
        assert abs(z.mean()) < 5 / math.sqrt(60) and 0.7 < z.std() < 1.35
    z = torch.tensor([f.pairs.iloc[0, 1] for f in found])
    assert abs(z.mean()) < 5 / math.sqrt(60) and 0.7 < z.std() < 1.35


def test_noise_that_is_modelled_as_noise_passes_and_another_scale_does_not():
    assert not pv.predictive_check(normal(1.0), noise()).departs
    wide = pv.predictive_check(normal(1.5), noise())
    assert wide.departs and (wide.columns["spread_z"] < -5).all()
    assert "3 of 3 columns are not as the model draws them: x[0], x[1], x[2]." in wide.verdict
    shifted = pv.predictive_check(normal(1.0), noise() + torch.tensor([0.0, 0.5, 0.0]))
    assert (shifted.columns["mean_z"].abs() > 5).tolist() == [False, True, False]
    assert "1 of 3 columns are not as the model draws them: x[1]." in shifted.verdict


def test_a_dependence_that_the_model_lacks_is_named():
    x = noise()
    x[:, 2] = 0.6 * x[:, 0] + 0.8 * x[:, 2]  # of the same margins
    vae = normal(1.0)
    vae.record.columns = ("a", "b", "c")  # as fit keeps a data frame's
    found = pv.predictive_check(vae, x)
    assert "None of 3 columns" in found.verdict
    assert "1 of 3 pairs of columns are not as the model draws them: a and c." in found.verdict
    assert found.pairs.loc["a", "c"] == found.pairs.loc["c", "a"] > 5
    right = normal(0.8, [[0.6, 0.0], [0.0, 0.6], [0.6, 0.0]])
    assert pv.predictive_check(right, noise()).departs  # and one that the data lack


def test_a_wrong_likelihood_is_told_by_the_shape_of_a_margin():
    """Exponential data under the normal distribution of the same mean and variance."""
    u = torch.rand(400, 3, generator=torch.Generator().manual_seed(1)).double()
    found = pv.predictive_check(normal(1.0), -u.log() - 1)
    assert found.columns["mean_z"].abs().max() < 4
    assert (found.columns["shape_p"] < 1e-4).all() and found.departs


def test_missing_cells_and_constant_columns():
    x = noise()
    x[::2, 1] = math.nan
    vae = pv.VAE(
        3, 2, likelihood="Normal(scale=1.0)", encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0,
        missing=True,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.zero_()
    assert not pv.predictive_check(vae, x).departs
    x[:, 0] = 0.0
    found = pv.predictive_check(vae, x)
    assert found.departs and found.columns.notna().all(axis=None)
    with pytest.raises(ValueError, match="at least 20 observations, got 19"):
        pv.predictive_check(vae, x[:19])


@pytest.mark.slow
def test_a_thousand_columns_are_thinned():
    vae = pv.VAE(1200, 2, encoder=pv.MLP([3]), decoder=pv.MLP([3]), seed=0)
    found = pv.predictive_check(vae, vae.sample(30, seed=1), num_samples=50)
    assert isinstance(found, PredictiveCheck) and found.pairs.shape == (500, 500)


def test_a_strong_condition_hides_no_departure():
    parts = {"encoder": "MLP([])", "decoder": "MLP([])", "seed": 0}
    vae = pv.VAE(60, 1, likelihood="Normal(scale=1.0)", condition=1, **parts).double()
    with torch.no_grad():
        vae.likelihood.sources["loc"].head.weight.copy_(torch.tensor([0.0, 5.0]))
        vae.likelihood.sources["loc"].head.bias.zero_()
    c = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
    x = torch.cat([vae.sample(given={"condition": c}, seed=1)[0], c], 1)
    found = pv.predictive_check(vae, x, num_samples=150, seed=2)
    assert (found.num_data, found.num_drawn) == (100, 200)
    few = pv.predictive_check(vae, x, num_samples=60, seed=2)
    assert (few.num_data, few.num_drawn) == (60, 60)
    first, second = np.triu_indices(60, 1)
    pairs = found.pairs.to_numpy()[first, second]
    for z in (found.columns["mean_z"], found.columns["spread_z"], pairs):
        assert abs(np.std(z) - 1) < 5 / (2 * 60) ** 0.5
    x[:, 0] += 0.8
    found = pv.predictive_check(vae, x, seed=2)
    assert found.columns["mean_z"].iloc[0] > 5 and "x[0]" in found.verdict
