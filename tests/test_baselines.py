"""Simple models in the units of log p(x), and verdicts that judge the model by them."""

import linecache
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
import torch
from matplotlib import pyplot

import pyro_vae as pv
from helpers.linear import linear_vae, marginal
from pyro_vae import plots
from pyro_vae.evaluate import baselines

pytestmark = pytest.mark.usefixtures("short_pilot")


def vae(likelihood, columns=3, **parts):
    return pv.VAE(columns, 2, likelihood=likelihood, encoder="MLP([4])", seed=0, **parts)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def z_score(values, expected):
    return (values.mean() - expected) / values.sem()


@pytest.mark.slow
def test_independent_columns_are_the_densities_that_data_come_from():
    n = 4000
    scale = torch.tensor([0.5, 2.0, 30.0])
    normal = torch.randn(n, 3, generator=generator()) * scale + 7
    entropy = (0.5 + 0.5 * math.log(2 * math.pi)) * 3 + scale.log().sum().item()
    scores = baselines(vae("Normal"), normal / normal.std(0) * scale)["independent columns"]
    assert abs(z_score(scores, -entropy)) < 5
    rates = torch.tensor([0.2, 4.0, 90.0])
    counts = torch.poisson(rates.expand(n, 3), generator=generator())
    exact = torch.distributions.Poisson(rates).log_prob(counts).sum(1).numpy()
    difference = baselines(vae("Poisson"), counts)["independent columns"] - exact
    assert abs(difference.mean()) < 0.01  # six parameters of some thousand observations
    p = torch.tensor([0.01, 0.4, 0.9])
    bits = torch.rand(n, 3, generator=generator()).lt(p).float()
    exact = torch.distributions.Bernoulli(p).log_prob(bits).sum(1).numpy()
    difference = baselines(vae("Bernoulli"), bits)["independent columns"] - exact
    assert abs(difference.mean()) < 0.01


def test_probabilistic_pca_is_the_marginal_of_a_linear_model():
    model = linear_vae()
    x = model.sample(4000, seed=0)
    scores = baselines(model, x)
    difference = scores["probabilistic PCA"] - marginal(model).log_prob(x).detach().numpy()
    assert -0.02 < difference.mean() < 0
    assert scores["independent columns"].mean() < scores["probabilistic PCA"].mean() - 0.5


def test_a_mixture_sees_clusters():
    which = torch.randint(0, 2, (400, 1), generator=generator())
    bits = (torch.rand(400, 12, generator=generator(1)) < 0.05 + 0.9 * which).float()
    scores = baselines(vae("Bernoulli", 12), bits)
    assert scores["mixture"].mean() > scores["independent columns"].mean() + 3
    assert list(scores) == ["independent columns", "mixture"] and scores.index.name == "observation"
    assert np.allclose(scores, baselines(vae("Bernoulli", 12), bits))


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (vae("Normal"), torch.zeros(19, 3), "at least 20 observations"),
        (vae("OneHotCategorical"), torch.eye(3).repeat(10, 1), "cells are independent given z"),
    ],
)
def test_data_without_baselines_are_refused(model, x, message):
    with pytest.raises(ValueError, match=message):
        baselines(model, x)


@pytest.mark.slow
def test_a_model_of_noise_is_not_said_to_say_anything():
    x = torch.randn(60, 4, generator=generator(7))  # not the numbers of z, of seed 0
    line = "Normal(scale=1.0)"
    nets = {"encoder": pv.MLP([]), "decoder": pv.MLP([])}
    model = pv.VAE(4, 4, prior=line, likelihood=line, guide=line, seed=0, **nets)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.approximation.sources["loc"].head.weight.copy_(0.15 * torch.eye(4))
    found = pv.assess(model, x, num_samples=50, steps=10)
    assert (found.latents.dimensions["activity"] > 0.01).all()  # the mean moves, for 0.01 nats
    assert found.latents.active_units == 0
    assert "none of 4 latent dimensions" in found.verdicts["Latent space"]
    assert "Nothing shows that the model describes x better" in found.verdicts["Baselines"]
    assert "log p(x), independent columns" in found.table.index


@pytest.mark.slow
def test_an_estimate_that_goes_on_rising_is_told_of():
    x = linear_vae().sample(50, seed=1)
    exact = pv.log_evidence(linear_vae(), x, num_samples=400, seed=0)
    assert exact.rise.abs().max() < 1e-9
    assert "rose by" not in exact.summary()
    narrow = pv.log_evidence(linear_vae(scale_factor=0.4), x, num_samples=400, seed=0)
    truth = marginal(linear_vae()).log_prob(x).mean().item()
    assert narrow.rise.mean() > 0.05 and narrow.mean < truth - 0.05
    assert "From 100 to 400 draws it rose by" in narrow.summary()
    wide = pv.log_evidence(linear_vae(scale_factor=1.3), x, num_samples=4000, seed=0)
    expected = 1.5 * wide.standard_error.square()  # the bias of K / 4 draws minus that of K
    assert 0.5 < wide.rise.mean() / expected.mean() < 2


@pytest.mark.slow
def test_figures_that_nobody_shows_do_not_stay_open():
    pyplot.switch_backend("agg")
    pyplot.close("all")
    for _ in range(25):  # pyplot warns at 20, and warnings are errors here
        ax = plots.images(torch.rand(2, 1, 4, 4))
    assert pyplot.get_fignums() == []
    assert ax.get_figure().canvas.get_width_height()[0] > 0


@pytest.mark.slow
def test_comparing_estimators_keeps_no_source_of_its_graphs():
    from torch.fx.graph_module import _loader

    model, x = vae("Normal"), torch.zeros(4, 3)
    sizes = []
    for _ in range(2):
        pv.compare_estimators(model, x, ["Trace_ELBO"], num_draws=34)
        sizes.append((len(_loader.eval_cache), len(linecache.cache)))
    assert sizes[0] == sizes[1]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_one_hot_latents_are_compressed(shape):
    pytest.importorskip("constriction")
    line = "OneHotCategorical"
    model = pv.VAE(6, shape, prior=line, guide=line, encoder="MLP([4])", seed=0)
    x = model.sample(40, seed=0)
    assert torch.equal(pv.decompress(model, pv.compress(model, x)), x)


@pytest.mark.slow
def test_baselines_of_a_table_with_holes_are_densities_of_its_known_cells():
    rng, n = np.random.default_rng(0), 6000
    frame = pd.DataFrame(
        {
            "x": rng.normal(50, 3, n),
            "income": rng.lognormal(8, 0.5, n),
            "debt": np.where(rng.random(n) < 0.4, 0.0, rng.normal(9, 1, n)),
            "home": rng.choice(["a", "b", "c"], n, p=[0.7, 0.2, 0.1]),
            "visits": rng.poisson(3, n),
        }
    )
    event, lost = rng.exponential(9, n), rng.exponential(20, n)
    frame["time"], frame["dead"] = np.minimum(event, lost), event <= lost
    share = frame["home"].map({"a": 0.7, "b": 0.2, "c": 0.1})
    spent = (frame["debt"] == 0).to_numpy()
    cells = {
        "x": st.norm(50, 3).logpdf(frame["x"]),
        "income": st.lognorm(0.5, scale=math.exp(8)).logpdf(frame["income"]),
        "debt": np.where(spent, math.log(0.4), math.log(0.6) + st.norm(9, 1).logpdf(frame["debt"])),
        "home": np.log(share),
        "visits": st.poisson(3).logpmf(frame["visits"]),
        "time": -frame["time"] / 9 - math.log(9) * frame["dead"],
    }
    exact = pd.DataFrame(cells)
    for name in ("x", "income", "home"):
        hole = rng.random(n) < 0.3
        frame.loc[hole, name] = None
        exact.loc[hole, name] = 0.0
    lines = {"debt": "Hurdle(Normal)", "visits": "Poisson", "income": "LogNormal"}
    table = pv.Table.from_frame(frame, likelihood=lines)
    model = pv.VAE(table, 2, encoder="MLP([4])", decoder="MLP([4])", seed=0)
    scores = baselines(model, table)
    difference = scores["independent columns"] - exact.sum(axis=1)
    assert abs(difference.mean()) < 0.01  # a dozen parameters of some thousand observations
    assert list(scores) == ["independent columns", "mixture"]
    assert np.isfinite(scores["mixture"]).all()  # no better: there are no clusters
    assert scores["mixture"].mean() < scores["independent columns"].mean()
