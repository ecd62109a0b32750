"""A Gaussian process as a prior: its kernels, and the evidence that it gives."""

import math

import numpy as np
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

import pyro_vae as pv
from pyro_vae.families.part import Ends
from pyro_vae.families.processes import KERNELS
from pyro_vae.families.registry import make_part
from pyro_vae.infer.engine.capture import capture

REFERENCES = {  # ours, as a line, and scikit-learn's
    "RBF, lengthscale=1.5": kernels.RBF(1.5),
    "Matern12, lengthscale=1.5": kernels.Matern(1.5, nu=0.5),
    "Matern32, lengthscale=1.5": kernels.Matern(1.5, nu=1.5),
    "Matern52, lengthscale=1.5": kernels.Matern(1.5, nu=2.5),
    "Periodic, lengthscale=1.5, period=3": kernels.ExpSineSquared(1.5, 3.0),
}
INDEX = {  # as said, and the points it means
    None: np.arange(6.0)[:, None],
    "[0, 0.5, 0.75, 2, 3.5, 8]": np.array([0, 0.5, 0.75, 2, 3.5, 8])[:, None],
    "[[0, 0], [0, 1], [1, 0], [2, 2], [3, 0.5], [0, 4]]": np.array(
        [[0, 0], [0, 1], [1, 0], [2, 2], [3, 0.5], [0, 4]]
    ),
}


def process(line, shape=(6,)):
    return make_part(f"GaussianProcess({line})", Ends(shape, "prior")).double()


def test_every_kernel_has_its_reference():
    assert {line.split(",")[0] for line in REFERENCES} == set(KERNELS)


@pytest.mark.parametrize("index", INDEX)
@pytest.mark.parametrize("line", REFERENCES)
def test_the_covariance_is_scikit_learns_kernel(line, index):
    told = f"{line}, scale=2, jitter=1e-6" + (f", index={index}" if index else "")
    expected = 4 * (REFERENCES[line](INDEX[index]) + 1e-6 * np.eye(6))
    found = process(told).covariance().detach().numpy()
    assert np.abs(found - expected).max() < 2e-6  # parameters are numbers of single precision


def test_density_and_draws_are_those_of_independent_processes():
    prior = process("Matern32, lengthscale=[1, 4], scale=learned(0.5)", (2, 6))
    p, covariance = prior(), prior.covariance().detach().numpy()
    assert p.event_shape == (2, 6) and p.batch_shape == ()
    with torch.no_grad():
        z = p.expand([20_000]).sample()
        expected = sum(
            multivariate_normal(np.zeros(6), covariance[i]).logpdf(z[:, i].numpy())
            for i in range(2)
        )
        assert np.abs(p.log_prob(z).numpy() - expected).max() < 1e-8
    found = torch.cov(z.flatten(1).T).numpy()
    exact = np.zeros((12, 12))
    exact[:6, :6], exact[6:, 6:] = covariance
    variance = np.diag(exact)
    error = np.sqrt((exact**2 + np.outer(variance, variance)) / len(z))
    assert np.abs((found - exact) / error).max() < 5
    assert exact[0, 1] < exact[6, 7]  # the longer lengthscale varies more slowly


POINTS, NOISE, WEIGHT = 12, 0.3, 1.7


def regression(prior):
    """x_t = w z_t + noise, and the guide that is the exact posterior."""
    vae = pv.VAE(
        POINTS, POINTS, prior=prior, likelihood=f"Normal(scale={NOISE})",
        guide="MultivariateNormal(scale_tril=learned)", encoder=pv.MLP([]), decoder=pv.MLP([]),
        seed=0,
    ).double()  # fmt: skip
    covariance = vae.prior.covariance().detach()
    eye = torch.eye(POINTS).double()
    gain = WEIGHT * covariance @ (WEIGHT**2 * covariance + NOISE**2 * eye).inverse()
    tril = torch.linalg.cholesky(covariance - WEIGHT * gain @ covariance)
    with torch.no_grad():
        decoder, encoder = (
            s.sources["loc"].head for s in (vae.likelihood, vae.approximation)
        )  # fmt: skip
        decoder.weight.copy_(WEIGHT * eye)
        encoder.weight.copy_(gain)
        for head in (decoder, encoder):
            head.bias.zero_()
        source = vae.approximation.sources["scale_tril"]
        source.unconstrained.copy_(source.transform.inv(tril))
    return vae


@pytest.mark.parametrize("kernel", ["Matern32", "RBF"])
def test_the_evidence_is_that_of_gaussian_process_regression(kernel):
    """The guide is the posterior, so each draw's ELBO is log p(x), which scikit-learn has too."""
    times = torch.linspace(0, 5, POINTS).tolist()
    prior = f"GaussianProcess({kernel}, lengthscale=0.8, index={times}, jitter=1e-3)"
    vae = regression(prior)
    x = torch.randn(3, POINTS, generator=torch.Generator().manual_seed(0)).double()
    nu = {"Matern32": 1.5, "RBF": math.inf}[kernel]
    reference = kernels.ConstantKernel(WEIGHT**2) * kernels.Matern(0.8, nu=nu)
    reference = reference + kernels.WhiteKernel(NOISE**2 + 1e-3 * WEIGHT**2)
    expected = []
    for one in x.numpy():
        gp = GaussianProcessRegressor(reference, alpha=0, optimizer=None)
        gp.fit(np.array(times)[:, None], one)
        expected.append(gp.log_marginal_likelihood_value_)
    expected = torch.tensor(expected)
    # Lengthscale, noise and the times are numbers of single precision.
    assert torch.allclose(pv.elbo(vae, x, num_samples=1, seed=0), expected, atol=1e-3)
    assert torch.allclose(pv.log_evidence(vae, x, num_samples=2).log_evidence, expected, atol=1e-3)


@pytest.mark.slow
def test_the_likelihood_of_lengthscale_and_scale_peaks_at_the_truth():
    """There the scores of draws have mean zero, and not elsewhere."""
    truth = "Matern32, lengthscale=learned(3.0), scale=learned(2.0)"
    with torch.no_grad():
        draws = process(truth, (2, 15))().expand([400]).sample()
    for line in (truth, truth.replace("3.0", "4.0")):
        prior = process(line, (2, 15))
        scores = torch.stack([
            torch.cat(torch.autograd.grad(prior().log_prob(z), list(prior.parameters())))
            for z in draws
        ])  # fmt: skip
        z_scores = scores.mean(0) / (scores.std(0) / len(draws) ** 0.5)
        assert scores.shape == (400, 4)
        assert (z_scores.abs().max() < 5) == (line == truth)


@pytest.mark.slow
def test_it_trains_and_is_saved(tmp_path):
    vae = pv.VAE(
        (3, 7), (2, 7), prior="GaussianProcess(RBF, lengthscale=learned(2.0), index=[0, 1, 2, 3, "
        "5, 8, 13])", likelihood="Normal", guide="MultivariateNormal", seed=0,
    )  # fmt: skip
    start = vae.prior.parameters_of["lengthscale"](None).detach().clone()
    x = torch.randn(20, 3, 7)
    fit = pv.fit(vae, x, estimator="TraceMeanField_ELBO", epochs=3, batch_size=10)
    assert fit.history.elbo_train.notna().all()
    assert (vae.prior.parameters_of["lengthscale"](None) != start).all()
    again = pv.load(vae.save(tmp_path))
    z = torch.randn(4, 2, 7)
    assert torch.equal(again.prior().log_prob(z), vae.prior().log_prob(z))
    assert again.sample(2, seed=0).shape == (2, 3, 7)


@pytest.mark.slow
def test_gradients_reach_its_parameters_through_a_graph_too():
    prior = "GaussianProcess(Periodic, lengthscale=learned, period=learned(3.5), scale=learned)"
    vae = pv.VAE((5, 8), (2, 8), prior=prior, likelihood="Normal", guide="MultivariateNormal",
                 encoder=pv.MLP([9]), decoder=pv.MLP([9]), seed=0)  # fmt: skip
    x, elbo = torch.randn(4, 5, 8), TraceMeanField_ELBO()
    graph = capture(elbo, vae.model, vae.guide, x)
    torch.manual_seed(0)
    loss, *gradients = graph.module(x, *graph.live)
    torch.manual_seed(0)
    assert elbo.loss_and_grads(vae.model, vae.guide, x) == pytest.approx(loss.item(), rel=1e-5)
    for parameter, found in zip(graph.parameters.values(), gradients, strict=True):
        assert torch.allclose(parameter.grad, found, rtol=1e-3, atol=1e-3)
    names = [f"parameters_of.{n}.unconstrained" for n in ("lengthscale", "scale", "period")]
    slopes = dict(vae.prior.named_parameters())
    assert sorted(slopes) == sorted(names)
    assert all(slopes[n].grad.shape == (2,) and (slopes[n].grad != 0).all() for n in names)


def test_bad_lines_are_refused():
    for line, message in {
        "Matern33": "Matern32",
        "Periodic": "a period goes with",
        "RBF, period=2": "a period goes with",
        "RBF, lengthscale=-1": "greater than 0",
        "RBF, lengthscale=[1, 2]": "one for each process",
        "RBF, lengthscale=amortized": "learned, got amortized",
        "RBF, index=[0, 1]": "index has 6 numbers",
        "RBF, jitter=0": "jitter",
    }.items():
        with pytest.raises(ValueError, match=message):
            process(line)
