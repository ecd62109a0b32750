"""How good the guide is: gaps, chains and calibration ranks, against closed forms."""

import numpy as np
import pytest
import torch
from torch.distributions import (
    LogNormal,
    MultivariateNormal,
    biject_to,
    constraints,
    kl_divergence,
)

import pyro_vae as pv
from helpers.linear import linear_vae, marginal, posterior
from pyro_vae.evaluate.guide.calibration import Calibration
from pyro_vae.evaluate.guide.gaps import FullCovariance
from pyro_vae.evaluate.guide.posterior import _agreement, sliced_wasserstein
from pyro_vae.evaluate.statistics import log_mean_exp


def divergence(vae, x):
    """KL(q(z|x) || p(z|x)), exactly."""
    with torch.no_grad():
        q = vae.encode(x)
        cov = getattr(q, "covariance_matrix", None)
        cov = torch.diag_embed(q.variance) if cov is None else cov
        return kl_divergence(MultivariateNormal(q.mean, cov), posterior(vae, x)).numpy()


# Gaps.


@pytest.mark.slow
def test_the_gaps_of_a_linear_model_are_its_closed_forms():
    vae, shifted = (linear_vae("mean-field", mix=1.0, shift=s) for s in (0.0, 0.2))
    x = vae.sample(10, seed=100)
    found = pv.gaps(shifted, x, steps=250, num_samples=4000, seed=0)
    exact = {"log_evidence": marginal(vae).log_prob(x).numpy()}
    exact["elbo"] = exact["log_evidence"] - divergence(shifted, x)
    exact["elbo_local"] = exact["log_evidence"] - divergence(vae, x)  # the mean is what moves
    exact["elbo_full"] = exact["log_evidence"]
    for name, value in exact.items():
        short = 0.01  # nats: what 250 steps leave
        assert (abs(found[name] - value) < 5 * found[f"{name}_error"] + short).all(), name
    approximation, amortization = divergence(vae, x), divergence(shifted, x) - divergence(vae, x)
    for name, value in (("approximation", approximation), ("amortization", amortization)):
        assert found[name].mean() == pytest.approx(value.mean(), abs=0.06)
        assert value.mean() > 0.2
    assert (found["khat"] < 0.7).all()


def test_the_gaps_add_up():
    vae = linear_vae("mean-field", shift=0.3)
    found = pv.gaps(vae, vae.sample(3, seed=100), steps=20, num_samples=100, seed=0)
    whole = found["log_evidence"] - found["elbo"]
    assert np.allclose(found["approximation"] + found["amortization"], whole)


@pytest.mark.parametrize("prior, guide", [("Gamma(concentration=2)", "LogNormal"),
                                          ("Dirichlet(2)", "Dirichlet")])  # fmt: skip
@pytest.mark.slow
def test_richer_guides_come_closer(prior, guide):
    vae = pv.VAE(6, 3, prior=prior, guide=guide, likelihood="Normal(scale=0.5)",
                 encoder=pv.MLP([8]), decoder=pv.MLP([8]), seed=0).double()  # fmt: skip
    found = pv.gaps(vae, vae.sample(20, seed=100), steps=150, num_samples=500, seed=0).mean()
    assert found["elbo"] + 0.02 < found["elbo_local"]
    assert found["elbo_local"] < found["log_evidence"] + 0.02
    assert found["elbo_full"] < found["log_evidence"] + 0.02


@pytest.mark.slow
def test_the_local_guide_is_a_density():
    """The mean of p / q over draws of q is 1, for another density p."""
    loc = torch.tensor([[0.3, -0.5], [1.0, 0.0]])
    z = LogNormal(loc, 0.5).sample((1000,))
    full = FullCovariance(biject_to(constraints.positive), z)
    with torch.no_grad():
        z, log_q = full(20_000)
        log_p = LogNormal(loc, 0.4).log_prob(z).sum(-1)
        value, error = log_mean_exp(log_p - log_q)
    assert z.min() > 0
    assert (error < 0.05).all()
    assert (value.abs() < 5 * error).all()


# Chains.


@pytest.mark.slow
@pytest.mark.parametrize("method, num_samples", [("nuts", 100), ("metropolis", 800)])
def test_chains_find_the_posterior_of_a_linear_model(method, num_samples):
    import arviz

    vae = linear_vae("full")
    x = vae.sample(1, seed=100)
    found = pv.posterior(vae, x, method=method, num_samples=num_samples, warmup=60, seed=0)
    exact = posterior(vae, x)
    z = found.posterior["z"].values[:, :, 0]
    for j in range(2):
        ess = float(arviz.ess(z[..., j]))
        assert ess > 30
        mean, variance = exact.mean[0, j].item(), exact.variance[0, j].item()
        assert abs(z[..., j].mean() - mean) < 5 * (variance / ess) ** 0.5
        assert abs(z[..., j].var() / variance - 1) < 5 * (2 / ess) ** 0.5
    agreement = found["agreement"]
    assert agreement["mean_shift"].dims == ("observation", "latent_dim")
    assert abs(agreement["mean_shift"].values).max() < 5 * (2 / ess) ** 0.5
    assert found["guide"]["z"].shape == found["posterior"]["z"].shape == (2, num_samples, 1, 2)


@pytest.mark.slow
def test_a_wrong_guide_is_seen_beside_the_chains():
    p, q = torch.randn(2, 4000, 3, 2)
    q[:, 1] = 0.5 * q[:, 1] + 0.8
    found = {k: v for k, (_, v) in _agreement(p, q, ("latent_dim",), 0).items()}
    expected = np.array([[0.0, 0.0], [0.8, 0.8], [0.0, 0.0]])
    assert np.allclose(found["mean_shift"], expected, atol=5 * (2 / 4000) ** 0.5)
    assert np.allclose(found["sd_ratio"], [[1, 1], [0.5, 0.5], [1, 1]], atol=0.1)
    apart = found["sliced_wasserstein"] > 3 * found["sliced_wasserstein_floor"]
    assert apart.tolist() == [False, True, False]


@pytest.mark.slow
def test_positive_z_stays_positive():
    vae = pv.VAE(4, 2, prior="Gamma(concentration=2)", guide="LogNormal", likelihood="Poisson",
                 encoder=pv.MLP([4]), decoder=pv.MLP([4]), seed=0)  # fmt: skip
    found = pv.posterior(vae, torch.ones(1, 4), num_samples=15, warmup=15, chains=1)
    assert (found.posterior["z"].values > 0).all()
    again = pv.posterior(vae, torch.ones(1, 4), num_samples=15, warmup=15, chains=1)
    assert np.array_equal(found.posterior["z"].values, again.posterior["z"].values)


@pytest.mark.slow
def test_sliced_wasserstein_of_normals():
    z = torch.randn(4000, 3)
    shift = torch.tensor([1.0, 2.0, 2.0])
    assert sliced_wasserstein(z, z + shift) == pytest.approx((9 / 3) ** 0.5, rel=0.1)
    assert sliced_wasserstein(z, 2 * z) == pytest.approx(1, rel=0.05)


# Calibration.


def test_an_exact_guide_is_calibrated():
    found = pv.calibration(linear_vae("full"), 1000, seed=0)
    assert found.ranks.shape == (1000, 3)
    assert (found.table["p_value"] > 0.001).all()
    assert found.table[["bias_z", "spread_z"]].abs().max().max() < 4
    assert "No column" in found.verdict


WRONG = {
    "halved": ({"scale_factor": 0.5}, "too narrow in 2"),
    "doubled": ({"scale_factor": 2.0}, "too wide in 2"),
    "shifted": ({"shift": 0.3}, "biased in 2"),
}


@pytest.mark.parametrize("options, said", WRONG.values(), ids=WRONG)
def test_a_wrong_guide_is_not(options, said):
    found = pv.calibration(linear_vae("full", **options), 500, seed=0)
    assert (found.table["p_value"][:2] < 1e-6).all()
    assert said in found.verdict


def test_a_guide_that_is_the_prior_fails_by_its_likelihood():
    vae = linear_vae("full")
    with torch.no_grad():
        source = vae.approximation.sources["scale_tril"]
        source.unconstrained.copy_(source.transform.inv(torch.eye(2).double()))
        vae.approximation.sources["loc"].head.weight.zero_()
        vae.approximation.sources["loc"].head.bias.zero_()
    found = pv.calibration(vae, 500, seed=0)
    assert (found.table["p_value"][:2] > 0.001).all()
    assert found.table.loc["log_likelihood", "p_value"] < 1e-6
    assert "the guide's draws explain x worse than the true z" in found.verdict


def test_ties_are_broken_evenly():
    """A constant decoder: the posterior of bits is the prior, and so is the guide."""
    vae = pv.VAE(3, 2, prior="Bernoulli", guide="Bernoulli", likelihood="Normal",
                 encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0)  # fmt: skip
    with torch.no_grad():
        for module in (vae.approximation, vae.likelihood):
            for p in module.parameters():
                p.zero_()
    found = pv.calibration(vae, 1000, num_samples=19, seed=0)
    assert found.ranks.to_numpy().min() == 0 and found.ranks.to_numpy().max() == 19
    assert (found.table["p_value"] > 0.001).all()


@pytest.mark.slow
def test_categories_are_simulated_as_numbers_that_an_encoder_reads():
    networks = {"encoder": "MLP([3])", "decoder": "MLP([3])", "seed": 0}
    vae = pv.VAE(2, 1, likelihood="Categorical(categories=3)", **networks).double()
    assert pv.calibration(vae, 20, num_samples=4, seed=0).ranks.shape == (20, 2)
    found = pv.bdmc(vae, 4, temperatures=2, chains=2, leapfrog=1, seed=0)
    assert found.x.dtype == torch.float64


@pytest.mark.parametrize("levels", [2, 5, 100, 101])
def test_p_values_are_uniform_under_the_null(levels):
    import pandas as pd

    ranks = np.random.default_rng(0).integers(0, levels, (400, 500))
    table = Calibration(pd.DataFrame(ranks), levels - 1).table
    for level in (0.05, 0.5, 0.9):
        share = (table["p_value"] < level).mean()
        assert abs(share - level) < 5 * (level * (1 - level) / 500) ** 0.5
    for name in ("bias_z", "spread_z"):
        z = table[name].to_numpy()
        assert abs(z.mean()) < 5 / 500**0.5
        assert (abs(z.std() - 1) < 5 / 1000**0.5) == (name == "bias_z" or levels > 2)


def test_bad_input_is_refused():
    vae = linear_vae()
    bits = pv.VAE(3, 2, prior="Bernoulli", guide="Bernoulli", encoder=pv.MLP([]),
                  decoder=pv.MLP([]), seed=0)  # fmt: skip
    x = torch.zeros(1, 5)
    for call, problem in (
        (lambda: pv.posterior(vae, x, method="gibbs"), "method is 'nuts' or 'metropolis'"),
        (lambda: pv.posterior(vae, x, chains=0), "chains is a whole number of at least 1"),
        (lambda: pv.posterior(bits, torch.zeros(1, 3)), "z is discrete here"),
        (lambda: pv.gaps(bits, torch.zeros(1, 3)), "z is discrete here"),
        (lambda: pv.gaps(vae, x, steps=0), "steps is a whole number of at least 1"),
        (lambda: pv.calibration(vae, 10), "num_data is a whole number of at least 20"),
    ):
        with pytest.raises(ValueError, match=problem):
            call()
