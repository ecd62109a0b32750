"""The classical autoencoders are points of the same language."""

import math
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from scipy.linalg import subspace_angles
from sklearn.datasets import load_wine, make_blobs
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

import pyro_vae as pv
from pyro_vae.infer import Contractive
from pyro_vae.infer.engine.capture import capture

pytestmark = pytest.mark.slow

WINE = torch.tensor(StandardScaler().fit_transform(load_wine().data))


def autoencoder(x, latent_dim, epochs=600, *, beta=0.0, **parts):
    """A plain autoencoder: a point for a guide, and no weight on the prior."""
    told = dict(
        likelihood=f"Normal(scale={math.sqrt(0.5)})", guide="Delta",  # minus the squared error
        encoder=pv.MLP([]), decoder=pv.MLP([]), inputs="raw", seed=0,
    )  # fmt: skip
    vae = pv.VAE(x.shape[1], latent_dim, **told | parts).double()
    pv.fit(vae, x, epochs=epochs, batch_size=len(x), lr="cosine(0.02)", beta=beta)
    return vae


def error(vae, x):
    """Squared error per observation."""
    return (vae.reconstruct(x) - x).square().sum(1).mean().item()


def map_of(vae):
    """The matrix of a linear autoencoder, from x to its reconstruction."""
    return vae.likelihood.sources["loc"].head.weight.detach() @ encoder_of(vae)


def encoder_of(vae):
    return vae.approximation.sources["v"].head.weight.detach()


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_the_linear_one_is_pca(latent_dim):
    """Baldi & Hornik (1989): its decoder spans the principal subspace, and errs as PCA does."""
    vae = autoencoder(WINE, latent_dim)
    pca = PCA(latent_dim).fit(WINE.numpy())
    decoder = vae.likelihood.sources["loc"].head.weight.detach().numpy()
    assert np.degrees(subspace_angles(decoder, pca.components_.T)).max() < 0.1
    projected = torch.tensor(pca.inverse_transform(pca.transform(WINE.numpy())))
    assert (vae.reconstruct(WINE) - projected).abs().max() < 1e-2
    best = (projected - WINE).square().sum(1).mean().item()
    assert best - 1e-9 <= error(vae, WINE) < best + 1e-4


def test_a_hidden_layer_beats_pca():
    parts = dict(encoder=pv.MLP([30], activation="Tanh"), decoder=pv.MLP([30], activation="Tanh"))
    best = PCA(2).fit(WINE.numpy()).noise_variance_ * 11 * (177 / 178)
    assert error(autoencoder(WINE, 2, **parts), WINE) < 0.9 * best


def test_the_sparse_one_has_sparse_codes():
    """A Laplace prior at a point is an L1 penalty: codes gather at zero, as those of the data."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    on = torch.rand(600, 6, generator=generator) < 0.2
    x = (on * torch.randn(600, 6, generator=generator).double()) @ atoms
    parts = dict(guide="Delta", encoder=pv.MLP([50]), epochs=400)
    codes = {}
    for prior, beta in {"Laplace(scale=0.5)": 1.0, "Normal": 0.0}.items():
        vae = autoencoder(x, 6, prior=prior, beta=beta, **parts)
        assert error(vae, x) < 0.25 * x.square().sum(1).mean()
        z = vae.encode(x).mean.detach()
        codes[prior] = ((z / z.std(0)).abs() < 0.1).double().mean().item()
    assert codes["Laplace(scale=0.5)"] > codes["Normal"] + 0.2


def test_the_denoising_one_is_the_wiener_filter():
    """With linear maps the best answer to noise of variance s^2 is S (S + s^2)^-1."""
    x, noise = WINE[:, :4] - WINE[:, :4].mean(0), 0.8
    encoder = pv.Corrupted(pv.MLP([]), noise=noise)
    vae = autoencoder(x.repeat(10, 1), 4, 1000, encoder=encoder)
    s = torch.cov(x.T, correction=0)
    wiener = s @ torch.linalg.inv(s + noise**2 * torch.eye(4))
    assert (map_of(vae) - wiener).abs().max() < 0.03
    assert (map_of(autoencoder(x, 4)) - torch.eye(4)).abs().max() < 0.01


def test_corruption_is_of_training_alone_and_is_saved(tmp_path):
    line = "Corrupted(MLP([20]), noise=0.5, drop=0.3)"
    vae = pv.VAE(4, 2, likelihood="Normal", encoder=line, seed=0)
    x = torch.ones(2000, 4)
    seen = []
    hook = vae.encoder.network.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    vae.train().approximate_posterior(x)
    vae.encode(x)
    hook.remove()
    assert torch.equal(seen[1], x)
    assert (seen[0] == 0).float().mean() == pytest.approx(0.3, abs=0.03)
    kept = seen[0][seen[0] != 0]
    assert kept.mean() == pytest.approx(1, abs=0.05) and kept.std() == pytest.approx(0.5, abs=0.03)
    again = pv.load(vae.save(tmp_path))
    assert again.describe()["encoder"] == vae.describe()["encoder"]
    assert torch.equal(again.eval().encode(x).mean, vae.encode(x).mean)
    for bad, message in {
        "noise=-1": "noise is a number of at least 0",
        "drop=1": "drop is a fraction",
    }.items():
        with pytest.raises(ValueError, match=message):
            pv.VAE(4, 2, encoder=f"Corrupted(MLP([20]), {bad})")


def jacobians(vae, x):
    """Of the guide's mean at each observation."""
    return torch.func.vmap(
        torch.func.jacrev(lambda one: vae.approximate_posterior(one[None]).mean[0])
    )(x)


class ContractiveVAE(pv.VAE):
    weight = 0.0

    def guide(self, x):
        return Contractive(self.weight)(super().guide)(x)


@pytest.mark.parametrize("elbo", [TraceMeanField_ELBO, Trace_ELBO])
@pytest.mark.parametrize("num_particles", [1, 3])
def test_the_contractive_penalty_is_the_norm_of_the_jacobian(elbo, num_particles):
    vae = pv.VAE(3, 2, likelihood="Normal(scale=1)", encoder=pv.MLP([8], activation="Tanh"), seed=0)
    vae.double()
    x = WINE[:5, :3]

    exact = jacobians(vae, x).square().sum()
    exact_gradient = torch.autograd.grad(exact, list(vae.encoder.parameters()))
    bound = elbo(num_particles=num_particles, vectorize_particles=num_particles > 1)
    draws, slopes = [], []
    for seed in range(300):
        found = []
        for guide in (Contractive(2.0)(vae.guide), vae.guide):
            pyro.set_rng_seed(seed)
            vae.zero_grad()
            loss = bound.loss_and_grads(vae.model, guide, x)
            gradient = torch.cat([p.grad.flatten() for p in vae.encoder.parameters()])
            found.append((loss, gradient.clone()))
        draws.append(found[0][0] - found[1][0])
        slopes.append(found[0][1] - found[1][1])
    draws, slopes = torch.tensor(draws), torch.stack(slopes)
    if elbo is TraceMeanField_ELBO or num_particles == 1:
        z = (draws.mean() - 2 * exact) / (draws.std() / len(draws) ** 0.5)
        assert abs(z) < 5
    expected = 2 * torch.cat([g.flatten() for g in exact_gradient])
    z = (slopes.mean(0) - expected) / (slopes.std(0) / len(slopes) ** 0.5)
    assert expected.abs().max() > 0.1 and z.abs().max() < 5


def test_the_contractive_penalty_can_be_made_a_graph():
    vae = pv.VAE(3, 2, likelihood="Normal(scale=1)", encoder=pv.MLP([8]), seed=0).double()
    x, guide, elbo = WINE[:20, :3], Contractive(2.0)(vae.guide), TraceMeanField_ELBO()
    graph = capture(elbo, vae.model, guide, x)
    torch.manual_seed(0)
    loss, *gradients = graph.module(x, *graph.live)
    torch.manual_seed(0)
    assert elbo.loss_and_grads(vae.model, guide, x) == pytest.approx(loss.item())
    for parameter, gradient in zip(graph.parameters.values(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient)


def test_the_contractive_one_trains_and_is_flatter():
    slopes = {}
    for weight in (0.0, 1.0):
        vae = ContractiveVAE(3, 2, likelihood="Normal(scale=0.5)", encoder=pv.MLP([8]), seed=0)
        vae.double().weight = weight
        told = pv.fit(vae, WINE[:, :3], epochs=100, lr=1e-2).history.iloc[-1]
        assert told.elbo_train == pytest.approx(told.log_likelihood - told.kl)
        slopes[weight] = jacobians(vae, WINE[:, :3]).square().sum((1, 2)).mean().item()
    assert slopes[1.0] < 0.5 * slopes[0.0]


def test_a_gaussian_mixture_is_a_vae_with_an_enumerated_category():
    """EM's answer is the optimum of the ELBO where the guide is the posterior."""
    x, _ = make_blobs(400, centers=3, n_features=2, cluster_std=[0.5, 1.0, 1.5], random_state=3)
    x = torch.tensor(StandardScaler().fit_transform(x))
    em = GaussianMixture(3, covariance_type="diag", n_init=5, random_state=0, tol=1e-8).fit(x)
    found = []
    for seed in range(2):  # EM has its restarts too
        vae = pv.VAE(
            2, 1, prior="Categorical(categories=3, logits=learned)", likelihood="Normal",
            guide="Categorical(categories=3)", encoder=pv.MLP([50], activation="Tanh"),
            decoder=pv.MLP([]), seed=seed,
        ).double()  # fmt: skip
        pv.fit(vae, x, estimator="TraceEnum_ELBO", epochs=200, batch_size=100, lr="cosine(0.03)")
        z = torch.arange(3.0).reshape(3, 1)
        p = vae.decode(z)
        joint = p.log_prob(x[:, None]) + vae.prior().base_dist.logits.log_softmax(-1)
        bound = pv.elbo(vae, x, num_samples=200, seed=0).mean().item()
        found.append((joint.logsumexp(1).mean().item(), bound, joint.softmax(1)))
    log_likelihood, bound, responsibilities = max(found, key=lambda one: one[0])
    best = em.score(x)  # 5 starts of EM's on the same likelihood
    assert log_likelihood == pytest.approx(best, abs=0.005)
    assert bound < log_likelihood + 0.01
    assert bound == pytest.approx(log_likelihood, abs=0.03)  # the guide is nearly the posterior
    agree = responsibilities.detach().T @ torch.tensor(em.predict_proba(x))
    assert agree.max(1).values.sum() > 0.95 * len(x)


def test_one_bit_costs_a_normal_latent_more_than_ln_2_and_a_bit_exactly_that():
    """benchmarks/one_bit.py, briefly."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    try:
        from one_bit import BIT, exact, losses
    finally:
        sys.path.pop(0)
    assert exact(1) == pytest.approx(math.log(2), abs=1e-6)  # it collapses
    assert exact(5) > 1
    (normal,) = losses(5, epochs=400, seeds=1, estimator="TraceMeanField_ELBO")
    assert exact(5) - 0.01 < normal < exact(5) + 0.05  # 0.01: noise of 200,000 draws
    (bit,) = losses(5, epochs=800, seeds=1, **BIT)
    assert bit == pytest.approx(math.log(2), abs=0.01)
