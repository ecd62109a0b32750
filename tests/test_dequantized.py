"""Dequantized densities: bounds on the levels' probabilities, uniform and variational."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import SigmoidTransform
from scipy.optimize import minimize

import pyro_vae as pv
from pyro_vae.distributions import DequantizedLevels
from pyro_vae.families.part import Ends
from pyro_vae.families.registry import REGISTRY

SMALL = {"encoder": "MLP([8])", "decoder": "MLP([8])", "seed": 0}


def images(n=24):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 4, 4), generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("samples", [1, 64])
def test_dequantized_levels_are_bounded_by_the_density_between_them(samples):
    """E[log estimate] <= log P(x), exact by the distribution function; more draws come closer.

    With one draw its distance is known: the mean log density between two levels.
    """
    base = dist.Normal(torch.tensor(0.45), torch.tensor(0.08))
    p = DequantizedLevels(base, levels=8, samples=samples)
    x = torch.arange(2.0, 6.0)
    exact = (base.cdf((x + 1) / 8) - base.cdf(x / 8)).log()
    torch.manual_seed(0)
    log = p.log_prob(x.expand(20_000, 4)).double()
    error = log.std(0) / len(log) ** 0.5
    assert (log.mean(0) < exact + 4 * error).all()
    if samples == 1:
        between = (torch.arange(1000)[:, None] + 0.5) / 1000
        mean = (base.log_prob((x + between) / 8) - np.log(8)).mean(0)
        assert ((log.mean(0) - mean) / error).abs().max() < 4.5
    else:
        assert (exact - log.mean(0)).max() < 0.02
    estimate = log.exp()
    z = (estimate.mean(0) - exact.exp()) / (estimate.std(0) / len(log) ** 0.5)
    assert z.abs().max() < 4.5


def test_dequantized_uniform_density_is_exact():
    p = DequantizedLevels(dist.Beta(torch.ones(()), torch.ones(())), levels=16)
    torch.testing.assert_close(p.log_prob(torch.arange(16.0)), -torch.full((16,), 16.0).log())
    torch.manual_seed(0)
    share = torch.bincount(p.sample(torch.Size([40_000])).long(), minlength=16) / 40_000
    assert (share - 1 / 16).abs().max() < 4.5 * (1 / 16 * 15 / 16 / 40_000) ** 0.5
    assert p.mean == 7.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["Normal", "Mixture(Normal, components=3)", "ContinuousBernoulli", "StudentT(df=4)"]
)
def test_dequantized_families_train(family):
    vae = pv.VAE((3, 4, 4), 2, likelihood=f"Dequantized({family}, samples=2)", **SMALL)
    pv.fit(vae, images(), epochs=2, batch_size=8, progress=False)
    draws = vae.sample(5, seed=0)
    assert torch.equal(draws, vae.check(draws))
    assert vae.reconstruct(images()).isfinite().all()


def test_dequantized_families_that_are_none_are_refused():
    with pytest.raises(ValueError, match="Poisson is of whole numbers already"):
        pv.VAE(4, 2, likelihood="Dequantized(Poisson)", **SMALL)
    with pytest.raises(ValueError, match="MultivariateNormal draws arrays at once"):
        pv.VAE(4, 2, likelihood="Dequantized(MultivariateNormal)", **SMALL)


def logistic_noise(loc, scale):
    """q(u|x), the same at all levels."""
    return lambda x: dist.TransformedDistribution(
        dist.Logistic(loc.expand(x.shape), scale.expand(x.shape)), [SigmoidTransform(cache_size=1)]
    )


def variational_bound(base, x, loc, scale, levels=8):
    """E_q[log p((x + u) / L) - log q(u)] - log L of one level, by quadrature over q's quantiles."""
    v = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    u = (loc + scale * v.logit()).sigmoid()
    log_q = (v * (1 - v)).log() - scale.log() - (u * (1 - u)).log()
    return (base.log_prob((x + u) / levels) - log_q).mean() - np.log(levels)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 32])
def test_variational_noise_bounds_the_levels_probability(samples):
    """With one draw the bound and its gradient are quadrature's; the mean of many is unbiased."""
    base = dist.Normal(torch.tensor(0.42).double(), torch.tensor(0.03).double())
    loc, scale = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.4, 0.7))
    p = DequantizedLevels(base, 8, samples, logistic_noise(loc, scale))
    x = torch.full((40_000,), 3.0, dtype=torch.float64)
    exact = (base.cdf(torch.tensor(0.5)) - base.cdf(torch.tensor(0.375))).log().item()
    torch.manual_seed(0)
    log = p.log_prob(x)
    error = log.std() / len(log) ** 0.5
    assert log.mean() < exact + 4 * error
    if samples > 1:
        z = (log.exp().mean() - np.exp(exact)) / (log.exp().std() / len(log) ** 0.5)
        assert abs(z) < 4.5
        return
    bound = variational_bound(base, 3.0, loc, scale)
    assert exact - 0.5 < bound < exact - 0.01
    assert abs((log.mean() - bound) / error) < 4.5
    wanted = torch.autograd.grad(bound, [loc, scale])
    batches = [
        torch.autograd.grad(part.mean(), [loc, scale], retain_graph=True)
        for part in log.split(1000)
    ]
    for found, right in zip(zip(*batches, strict=True), wanted, strict=True):
        found = torch.stack(found)
        z = (found.mean() - right) / (found.std() / len(found) ** 0.5)
        assert abs(right) > 0.05 and abs(z) < 4.5


def test_variational_noise_that_is_the_density_between_two_levels_is_exact():
    """A logistic density of the noise's logit: each draw gives P(x) itself."""
    loc, scale = torch.tensor(0.3), torch.tensor(0.8)
    inside = logistic_noise(loc, scale)(torch.zeros(()))
    p = DequantizedLevels(inside, 1, noise=logistic_noise(loc, scale))
    torch.testing.assert_close(p.log_prob(torch.zeros(50)), torch.zeros(50), atol=1e-5, rtol=0)


def test_variational_noise_starts_at_the_uniform_one():
    line = "Dequantized(Normal, noise=MLP([8]))"
    vae = pv.VAE((3, 4, 4), 2, likelihood=line, **SMALL)
    q = vae.likelihood.noise(images().float())
    u = torch.rand(100, *images().shape)
    torch.testing.assert_close(q.log_prob(u), torch.zeros_like(u), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_learned_noise_comes_to_the_best_bound_of_its_kind():
    """One level of 8, a density mostly within a fifth of its room: the best by quadrature."""
    base, x = dist.Normal(*torch.tensor([0.35, 0.01]).double()), torch.full((500, 1), 2.0)
    exact = (base.cdf(torch.tensor(3 / 8)) - base.cdf(torch.tensor(2 / 8))).log().item()

    def lost(about):
        return exact - variational_bound(base, 2.0, *torch.tensor(about).double()).item()

    best = minimize(lost, [1.0, 0.5], method="Nelder-Mead", bounds=[(-5, 5), (0.01, 5)]).fun
    line = "Dequantized(Normal(loc=0.35, scale=0.01), levels=8, noise=MLP([8]))"
    p = REGISTRY.make(line, Ends((1,), "likelihood", (1,)), depends=False)
    optimizer = torch.optim.Adam(p.noise.parameters(), 0.05)
    torch.manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        (-p(torch.zeros(500, 1)).log_prob(x).mean()).backward()
        optimizer.step()
    logits = p.noise(x).base_dist
    learned = lost([logits.loc[0].item(), logits.scale[0].item()])
    assert lost([0.0, 1.0]) > 1 + best
    assert best < learned < best + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("network", ["MLP([8])", "ResNet([4])"])
def test_variational_noise_trains_is_saved_and_takes_missing_cells(network, tmp_path):
    x = images().float()
    x[0, 0, 0, 0] = np.nan
    line = f"Dequantized(Normal, noise={network})"
    vae = pv.VAE((3, 4, 4), 2, likelihood=line, missing=True, **SMALL)
    pv.fit(vae, x, epochs=2, batch_size=8, progress=False)
    assert all(p.grad is None or p.grad.isfinite().all() for p in vae.parameters())
    assert any((p != 0).any() for p in vae.likelihood.noise.loc.parameters())
    vae.save(tmp_path / "run")
    again = pv.load(tmp_path / "run")
    assert str(again.likelihood.spec) == str(vae.likelihood.spec)
    torch.testing.assert_close(pv.elbo(again, x, seed=0), pv.elbo(vae, x, seed=0))


def test_noise_that_is_no_network_is_refused():
    with pytest.raises(ValueError, match="unknown network 'Normal'"):
        pv.VAE(4, 2, likelihood="Dequantized(Normal, noise=Normal)", **SMALL)


def test_no_upper_bound_is_claimed_of_estimates():
    """The noise beside a drawn level is no draw of its posterior: bdmc's bound was .07 too low."""
    vae = pv.VAE(2, 1, likelihood="Dequantized(Normal, levels=4)", **SMALL)
    found = pv.log_evidence(vae, torch.ones(5, 2), num_samples=2, seed=0)
    assert found.simulated is None
    with pytest.raises(ValueError, match="this model has none: its probabilities of levels are"):
        pv.bdmc(vae, 2, temperatures=2, chains=2)


def test_no_trajectory_follows_estimates():
    """NUTS took minutes for an observation, as each step found another energy."""
    vae = pv.VAE(2, 1, likelihood="Dequantized(Normal, levels=4)", **SMALL)
    with pytest.raises(ValueError, match="noise of their own: use method='metropolis'"):
        pv.posterior(vae, torch.ones(1, 2))
    told = {"method": "metropolis", "num_samples": 4, "warmup": 1, "chains": 1}
    assert pv.posterior(vae, torch.ones(1, 2), **told).posterior["z"].shape == (1, 4, 1, 1)
