"""What z carries: closed forms for a linear model, enumeration for bits, labels that are known."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import pyro_vae as pv
from helpers.linear import linear_vae
from pyro_vae.evaluate.evidence.outliers import outlier_scores
from pyro_vae.evaluate.latent.labelled import _dci
from pyro_vae.evaluate.latent.summary import cross_factors

N = 1500


def closed_forms(vae):
    """Of z = A x + noise with x from the model: the guide's aggregate is Gaussian."""
    head = vae.likelihood.sources["loc"].head
    w = head.weight.detach()
    encoder = vae.approximation.sources["loc"].head
    a = encoder.weight.detach()
    x_cov = w @ w.T + 0.49 * torch.eye(5, dtype=torch.float64)
    q = vae.encode(torch.zeros(1, 5, dtype=torch.float64))
    noise = torch.diag(q.variance[0]) if not hasattr(q, "covariance_matrix") else (
        q.covariance_matrix[0].detach()
    )  # fmt: skip
    mean = encoder.bias.detach() + a @ vae.likelihood.sources["loc"].head.bias.detach()
    aggregate = MultivariateNormal(mean, a @ x_cov @ a.T + noise)
    d = len(mean)
    prior = MultivariateNormal(torch.zeros(d).double(), torch.eye(d).double())
    marginals = Normal(aggregate.mean, aggregate.variance.sqrt())
    information = 0.5 * (aggregate.covariance_matrix.logdet() - noise.logdet())
    aggregate_kl = kl_divergence(aggregate, prior)
    dimension_kl = kl_divergence(marginals, Normal(torch.zeros(d).double(), 1.0)).sum()
    return {
        "kl": information + aggregate_kl,
        "mutual_information": information,
        "aggregate_kl": aggregate_kl,
        "total_correlation": aggregate_kl - dimension_kl,
        "dimension_kl": dimension_kl,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"guide": "full"},
        {"guide": "mean-field", "scale_factor": 1.5, "shift": 0.8},
    ],
    ids=["exact", "shifted"],
)
@pytest.mark.slow
def test_a_linear_model_has_closed_forms(options):
    vae = linear_vae(weight_factor=0.5, **options)
    found = pv.latent_summary(vae, vae.sample(N, seed=0), num_samples=4, seed=1).totals
    for name, value in closed_forms(vae).items():
        error = found.loc[name, "standard_error"]
        assert abs(found.loc[name, "value"] - value.item()) < 5 * error, name
        assert error < 0.1


def test_the_parts_add_up():
    vae = linear_vae("mean-field", shift=0.3)
    found = pv.latent_summary(vae, vae.sample(300, seed=0), seed=0).totals["value"]
    parts = found["mutual_information"] + found["total_correlation"] + found["dimension_kl"]
    assert found["kl"] == pytest.approx(parts)
    total = found["mutual_information"] + found["aggregate_kl"]
    assert found["kl"] == pytest.approx(total)


@pytest.mark.slow
def test_kl_by_dimension_is_pyros():
    vae = linear_vae("mean-field")
    x = vae.sample(400, seed=0)
    found = pv.latent_summary(vae, x, num_samples=50, seed=1).dimensions
    with torch.no_grad():
        q = vae.encode(x).base_dist
        exact = kl_divergence(q, Normal(torch.zeros(2).double(), 1.0)).mean(0).numpy()
        variance = q.mean.var(0)
    assert np.allclose(found["kl"], exact, rtol=0.03)  # of 20,000 draws
    assert np.allclose(found["activity"], variance)


def bits():
    vae = pv.VAE((6,), 3, prior="Bernoulli", guide="Bernoulli", likelihood="Bernoulli",
                 encoder=pv.MLP([8]), decoder=pv.MLP([8]), seed=0).double()  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.mul_(5)
    return vae


@pytest.mark.slow
def test_bits_are_enumerated():
    vae = bits()
    x = vae.sample(300, seed=0)
    found = pv.latent_summary(vae, x, num_samples=40, seed=1)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    with torch.no_grad():
        q = vae.encode(x).log_prob(states[:, None])  # (8, N)
    joined = q.logsumexp(1) - math.log(300)
    information = (q.exp() * (q - joined[:, None])).sum(0).mean().item()
    error = found.totals.loc["mutual_information", "standard_error"]
    assert abs(found.totals.loc["mutual_information", "value"] - information) < 5 * error
    assert information > 0.1


def test_collapse_is_called_collapse():
    vae = linear_vae("mean-field", weight_factor=0.0)  # then the posterior is the prior
    found = pv.latent_summary(vae, vae.sample(200, seed=0), seed=0)
    assert found.active_units == 0
    assert "The posterior has collapsed: none of 2" in found.verdict
    assert found.totals["value"].abs().max() < 1e-9


def test_a_guide_that_is_the_prior_given_a_condition_is_collapsed(monkeypatch):
    vae = pv.VAE(2, 2, likelihood="Normal", condition=1, prior="Normal(loc=amortized)", seed=0)
    x = torch.cat([torch.zeros(50, 2), torch.linspace(-9, 9, 50)[:, None]], 1)
    monkeypatch.setattr(vae, "approximate_posterior", vae.prior_at)
    found = pv.latent_summary(vae, x, seed=0)
    totals = found.totals["value"]
    assert totals["mutual_information"] > 0.1 and found.active_units == 0
    assert totals["kl"] == totals["aggregate_kl"] == totals["dimension_kl"] == 0


@pytest.mark.parametrize(
    "options, said",
    [
        ({}, "2 of 2 latent dimensions are active"),
        ({"shift": 3.0}, "nats from the prior: draws of the prior fall where"),
        ({"weight_factor": 50.0}, "more data would show more"),
    ],
)
def test_the_verdict_says_what_is_to_be_seen(options, said):
    vae = linear_vae("mean-field", **options)
    assert said in pv.latent_summary(vae, vae.sample(100, seed=0), seed=0).verdict


def test_one_dead_dimension_is_counted():
    vae = linear_vae("mean-field")
    with torch.no_grad():
        vae.approximation.sources["loc"].head.weight[1] = 0
    found = pv.latent_summary(vae, vae.sample(100, seed=0), seed=0)
    assert found.dimensions["active"].tolist() == [True, False]
    assert "1 of 2 latent dimensions is active" in found.verdict
    assert "1 has collapsed to the prior" in found.verdict


GUIDES = {
    "Normal": "Normal", "LogNormal": "Gamma(concentration=2)", "Dirichlet": "Dirichlet",
    "OneHotCategorical": "OneHotCategorical", "LowRankMultivariateNormal(rank=1)": "Normal",
    "Bernoulli": "Bernoulli", "Categorical(categories=3)": "Categorical(categories=3)",
}  # fmt: skip


@pytest.mark.parametrize("guide, prior", GUIDES.items())
def test_every_guide_has_a_summary(guide, prior):
    vae = pv.VAE(4, 3, prior=prior, guide=guide, encoder=pv.MLP([4]), decoder=pv.MLP([4]), seed=0)
    found = pv.latent_summary(vae, torch.rand(20, 4).round(), num_samples=2, seed=0)
    main = found.totals["value"][["kl", "mutual_information", "aggregate_kl"]]
    assert np.isfinite(main).all()
    assert found.verdict
    assert len(found.dimensions) in (1, 3)


def test_chunks_change_nothing(monkeypatch):
    from pyro_vae.evaluate.latent import summary as latents

    vae = linear_vae("mean-field")
    x = vae.sample(50, seed=0)
    whole = pv.latent_summary(vae, x, num_samples=3, seed=0).totals
    monkeypatch.setattr(latents, "CELLS", 500)
    pd.testing.assert_frame_equal(pv.latent_summary(vae, x, num_samples=3, seed=0).totals, whole)


# With labels.


def separated(n=150):
    """A model whose z is x, and data of two factors, each along one axis."""
    vae = pv.VAE(2, 2, likelihood="Normal(scale=0.1)", guide="Normal(scale=learned(0.1))",
                 encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0).double()  # fmt: skip
    with torch.no_grad():
        vae.approximation.sources["loc"].head.weight.copy_(torch.eye(2))
        vae.approximation.sources["loc"].head.bias.zero_()
    factors = torch.randint(0, 2, (n, 2))
    x = 4.0 * factors + 0.1 * torch.randn(n, 2)
    return vae, x.double(), factors.numpy()


@pytest.mark.slow
def test_factors_with_a_dimension_each():
    vae, x, factors = separated()
    found = pv.factor_scores(vae, x, factors)
    entropy = [-sum(p * math.log(p) for p in (v.mean(), 1 - v.mean())) for v in factors.T]
    assert np.allclose(np.diag(found.mutual_information), entropy, atol=0.02)
    assert found.mig > 0.9
    assert min(found.disentanglement, found.completeness) > 0.9
    assert found.informativeness == 1.0
    assert np.allclose(found.importance.sum(), 1)


@pytest.mark.slow
def test_a_rotation_undoes_disentanglement():
    vae, x, factors = separated()
    with torch.no_grad():
        turn = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
        vae.approximation.sources["loc"].head.weight.copy_(turn)
    found = pv.factor_scores(vae, x, pd.DataFrame(factors, columns=["a", "b"]))
    assert found.mig < 0.3 and found.disentanglement < 0.5
    assert list(found.mutual_information.columns) == ["a", "b"]


def test_dci_of_known_tables():
    assert _dci(np.eye(3)) == pytest.approx((1, 1))
    assert _dci(np.ones((3, 2))) == pytest.approx((0, 0))
    assert _dci(np.zeros((3, 2))) == pytest.approx((0, 0))  # of a collapsed guide
    disentangled, complete = _dci(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert disentangled == pytest.approx(1)
    assert complete == pytest.approx((1 + 1 - math.log(2) / math.log(3)) / 2)


@pytest.mark.slow
def test_clusters_are_seen_and_noise_is_not():
    vae, x, factors = separated()
    labels = factors @ [1, 2]
    found = pv.label_scores(vae, x, labels)
    assert (found["value"] > [0.99, 0.99, 0.9]).all()
    noise = pv.label_scores(vae, x, np.random.default_rng(0).integers(0, 2, len(x)))
    accuracy, error = noise["value"][:2], noise["standard_error"][:2]
    assert (abs(accuracy - 0.5) < 5 * error).all()
    assert abs(noise.loc["silhouette", "value"]) < 0.1


def test_labels_that_do_not_fit_are_refused():
    vae, x, factors = separated(40)
    with pytest.raises(ValueError, match=r"expected labels of shape \(40,\), got \(39,\)"):
        pv.label_scores(vae, x, factors[:-1, 0])
    with pytest.raises(ValueError, match="at least 5 observations each"):
        pv.label_scores(vae, x, [0] * 37 + [1] * 3)
    with pytest.raises(ValueError, match="factor b has one value only"):
        pv.factor_scores(vae, x, pd.DataFrame({"a": factors[:, 0], "b": 1}))
    with pytest.raises(ValueError, match="39 rows of factors for 40 observations"):
        pv.factor_scores(vae, x, factors[:-1])
    with pytest.raises(ValueError, match="the label of row 1 is missing"):
        pv.label_scores(vae, x, [0, None, 1, 1] * 10)
    with pytest.raises(ValueError, match="40 labels of 40 rows differ, and labels are classes"):
        pv.factor_scores(vae, x, x[:, :1])
    with pytest.raises(ValueError, match="x holds one observation"):
        pv.latent_summary(vae, x[:1])
    with pytest.raises(ValueError, match="marginals of this guide"):
        next(cross_factors(torch.distributions.Wishart(4, torch.eye(2)), torch.zeros(3, 2, 2)))


def test_outliers():
    vae = linear_vae("full")
    usual, held_out = vae.sample(100, seed=0), vae.sample(100, seed=1)
    scores = outlier_scores(vae, torch.cat([usual, usual + 9]), held_out, seed=0)
    assert scores[:100].max().lt(scores[100:].min()).all()
    mode = vae.decode(torch.zeros(1, 2).double()).mean.detach()  # too usual: the known failure
    found = outlier_scores(vae, mode, held_out, seed=0).iloc[0]
    assert found["surprise"] < scores["surprise"][:100].min()
    assert found["typicality"] > scores["typicality"][:100].median()


@pytest.mark.parametrize(
    "labels, message",
    [
        (["a", "b"] * 5, "whole numbers, or whether each row has an attribute, got a in row 0"),
        ([0.0, 0.5] * 5, "labels are whole numbers, got 0.5 in row 1"),
        ([1.0, float("nan")] * 5, "got nan in row 1: leave the row out"),
    ],
)
def test_labels_that_are_no_numbers_are_refused(labels, message):
    vae = pv.VAE(4, latent_dim=3, likelihood="Normal", seed=0)
    with pytest.raises(ValueError, match=message):
        pv.attribute_step(vae, torch.zeros(10, 4), labels)
