"""log p(x): closed forms, enumeration, and the order of the bounds."""

import itertools
import math

import numpy as np
import pytest
import torch

import pyro_vae as pv
from helpers.linear import linear_vae, marginal, pooled, z_scores
from pyro_vae.core.pareto import tail_shape
from pyro_vae.evaluate.evidence import importance as evidence
from pyro_vae.evaluate.evidence import paths
from pyro_vae.evaluate.evidence.importance import Evidence
from pyro_vae.evaluate.statistics import log_mean_exp
from pyro_vae.model.joint import Joint


def draw(vae, n):
    return vae.sample(n, seed=100)  # not the seed of what is tested: its draws would be the same


@pytest.mark.slow
@pytest.mark.parametrize("guide, factor", [("full", 1.2), ("mean-field", 1.3)])
def test_it_is_the_closed_form_within_its_own_error(guide, factor):
    vae = linear_vae(guide, scale_factor=factor)
    x = draw(vae, 200)
    found = pv.log_evidence(vae, x, num_samples=2000, seed=0)
    z = z_scores(found, marginal(vae).log_prob(x))
    assert z.abs().max() < 5
    assert abs(pooled(z)) < 5
    assert 0.8 < z.std() < 1.25  # the stated error is the error
    assert (found.khat < 0.7).all()
    exact = marginal(vae).log_prob(x).mean().item()
    assert abs(found.mean - exact) < 5 * found.monte_carlo_error


def test_an_exact_guide_leaves_no_error():
    vae = linear_vae("full")
    x = draw(vae, 20)
    found = pv.log_evidence(vae, x, num_samples=100, seed=0)
    assert torch.allclose(found.log_evidence, marginal(vae).log_prob(x), atol=1e-9)
    assert found.standard_error.max() < 1e-7  # the root of a rounding error
    assert (found.khat < 0.7).all()


def test_a_narrow_guide_is_seen_by_its_khat():
    vae = linear_vae("full", scale_factor=0.4)
    found = pv.log_evidence(vae, draw(vae, 50), num_samples=2000, seed=0)
    tail = 1 - 0.4**2  # one over the index of the weights' tail
    assert abs(found.khat.mean() - tail) < 0.1
    doubtful = (found.khat > 0.7).double().mean()
    assert f"{doubtful:.1%} of the observations have k-hat > 0.7" in found.summary()
    assert "loose lower bound" in found.summary()


def bits(likelihood="Bernoulli", seed=0):
    vae = pv.VAE(
        (6,), 10, prior="Bernoulli(logits=learned(0.3))", guide="Bernoulli",
        likelihood=likelihood, encoder=pv.MLP([8]), decoder=pv.MLP([8]), seed=seed,
    )  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.mul_(1.5)
    return vae.double()


def enumerated(vae, x):
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=10)), dtype=torch.float64)
    with torch.no_grad():
        joint = Joint(vae, x)
        z = states[:, None].expand(-1, len(x), -1)
        return (joint.log_likelihood(z) + joint.log_prior(z)).logsumexp(0)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["Bernoulli", "Normal", "Poisson"])
def test_ten_bits_are_enumerated(likelihood):
    vae = bits(likelihood)
    x = draw(vae, 30)
    found = pv.log_evidence(vae, x, num_samples=4000, seed=1)
    z = z_scores(found, enumerated(vae, x))
    assert z.abs().max() < 5
    assert abs(pooled(z)) < 5


@pytest.mark.slow
def test_the_bounds_are_in_order():
    """ELBO <= IWAE_K <= log p(x), in expectation, for K that grow."""
    vae = linear_vae("mean-field", scale_factor=1.6, shift=0.3)
    x = draw(vae, 300)
    exact = marginal(vae).log_prob(x)
    means = []
    for k in (2, 8, 64, 512):
        runs = [pv.log_evidence(vae, x, num_samples=k, seed=s).log_evidence for s in range(4)]
        means.append(torch.cat(runs).mean().item())
    elbo = pv.elbo(vae, x, num_samples=400, seed=0).mean().item()
    order = [elbo, *means]
    assert order == sorted(order)
    assert means[1] - elbo > 0.1
    assert order[-1] <= exact.mean() + 0.005


def test_bits_have_the_density_of_pyros_bernoulli():
    vae = pv.VAE((1, 4, 4), 3, encoder=pv.MLP([8]), decoder=pv.MLP([8]), seed=0).double()
    x = torch.rand(7, 1, 4, 4, dtype=torch.float64).round()
    z = torch.randn(5, 7, 3, dtype=torch.float64)
    with torch.no_grad():
        joint = Joint(vae, x)
        assert torch.allclose(joint.log_likelihood(z), vae.decode(z).log_prob(x), atol=1e-12)


def test_missing_cells_drop_out():
    vae = pv.VAE(
        (5,), 2, likelihood="Normal(scale=0.5)", guide="Normal(scale=2)",
        encoder=pv.MLP([4]), decoder=pv.MLP([]), missing=True, seed=0,
    ).double()  # fmt: skip
    x = torch.randn(6, 5, dtype=torch.float64)
    x[:, 3] = math.nan
    found = pv.log_evidence(vae, x, num_samples=3000, seed=0)
    head = vae.likelihood.sources["loc"].head
    seen = [0, 1, 2, 4]
    w, b = head.weight.detach()[seen], head.bias.detach()[seen]
    cov = w @ w.T + 0.25 * torch.eye(4, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(b, cov).log_prob(x[:, seen])
    assert z_scores(found, exact).abs().max() < 5


@pytest.mark.slow
def test_chunks_change_nothing_but_the_draws(monkeypatch):
    vae = linear_vae("full")  # exact: every draw gives log p(x)
    x = draw(vae, 11)
    whole = pv.log_evidence(vae, x, num_samples=30, seed=0)
    for cells in (1, 100, 10**6):
        monkeypatch.setattr(evidence, "CELLS", cells)
        part = pv.log_evidence(vae, x, num_samples=30, seed=0)
        assert torch.allclose(part.log_evidence, whole.log_evidence, atol=1e-9)


def test_the_seed_and_the_mode_are_kept():
    vae = linear_vae("mean-field").train()
    x = draw(vae, 4)
    state = torch.get_rng_state()
    first, second = (pv.log_evidence(vae, x, num_samples=50, seed=3) for _ in range(2))
    assert torch.equal(first.log_evidence, second.log_evidence)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert torch.distributions.Distribution._validate_args


def test_khat_is_arvizs():
    log_w = torch.distributions.Gumbel(0.0, 0.6).sample((500, 6)).double()
    arviz = pytest.importorskip("arviz")
    if int(arviz.__version__[0]) >= 1:
        pytest.skip("compared with ArviZ 0.23's function")
    expected = arviz.psislw(log_w.T.numpy())[1]
    assert np.allclose(tail_shape(log_w), expected)
    assert 0.3 < tail_shape(log_w).mean() < 0.9  # Pareto's tail of index 1/0.6


def test_khat_of_no_tail_and_of_few_draws():
    assert (tail_shape(torch.zeros(400, 3)) == -math.inf).all()
    assert tail_shape(torch.randn(24, 3)).isnan().all()
    assert tail_shape(torch.randn(100, 3)).isfinite().all()


def test_the_standard_error_is_the_delta_methods():
    w = torch.tensor([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]], dtype=torch.float64)
    mean, error = log_mean_exp(w.log())
    assert torch.allclose(mean, w.mean(0).log())
    assert torch.allclose(error, w.std(0) / w.mean(0) / 3**0.5, atol=1e-7)


def test_the_summary_reads_plainly():
    def summary(khat):
        size = len(khat)
        found = torch.linspace(-91, -89, size).double()
        return Evidence(found, torch.full((size,), 0.1), torch.tensor(khat), 5000).summary()

    assert "12.5% of the observations have k-hat > 0.7" in summary([0.8] + [0.1] * 7)
    assert "No observation has k-hat > 0.7" in summary([0.2, 0.3])
    assert "Too few draws" in summary([math.nan, math.nan])
    assert "log p(x) = -90.00 nats per observation" in summary([0.2, 0.3])


def test_bad_input_is_refused():
    vae = linear_vae()
    with pytest.raises(ValueError, match="num_samples is a whole number of at least 2"):
        pv.log_evidence(vae, torch.zeros(1, 5), num_samples=1)
    with pytest.raises(ValueError, match="expected x of shape"):
        pv.log_evidence(vae, torch.zeros(1, 4))
    for call, problem in (
        (lambda: pv.ais(vae, torch.zeros(1, 5), temperatures=1), "temperatures is a whole number"),
        (lambda: pv.ais(vae, torch.zeros(1, 5), start="q"), "start is 'prior' or 'guide'"),
        (lambda: pv.bdmc(vae, 1), "num_data is a whole number of at least 2"),
        (lambda: pv.ais(bits(), torch.zeros(1, 6)), "z is discrete here"),
    ):
        with pytest.raises(ValueError, match=problem):
            call()


# Annealed importance sampling.


@pytest.mark.slow
def test_annealing_goes_block_by_block(monkeypatch):
    vae = linear_vae("mean-field")
    monkeypatch.setattr(paths, "CELLS", 8 * 5 * 3)  # three data
    found = pv.bdmc(vae, 4, temperatures=150, chains=8, leapfrog=3, seed=0)
    exact = marginal(vae).log_prob(found.x)
    assert found.lower.log_evidence.shape == found.upper.khat.shape == (4,)
    for side in (found.lower, found.upper):
        assert (side.log_evidence - exact).abs().max() < 1  # its standard error is about 0.2
    assert pv.ais(
        vae, found.x, temperatures=5, chains=4, leapfrog=1, seed=0
    ).log_evidence.shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["prior", "guide"])
def test_annealing_is_the_closed_form_within_its_own_error(start):
    vae = linear_vae("mean-field", scale_factor=0.5, shift=0.2)
    x = draw(vae, 50)
    found = pv.ais(vae, x, temperatures=60, chains=32, start=start, leapfrog=5, seed=0)
    z = z_scores(found, marginal(vae).log_prob(x))
    assert z.abs().max() < 5
    assert abs(pooled(z)) < 5
    assert found.standard_error.mean() < 0.2


POSITIVE = {
    "Normal": ("Normal", "Normal"),
    "Gamma": ("Gamma(concentration=2)", "LogNormal"),
    "Dirichlet": ("Dirichlet(1.5)", "Dirichlet"),
    "Beta": ("Beta(concentration0=2, concentration1=2)", "Beta"),
}


@pytest.mark.slow
@pytest.mark.parametrize("prior, guide", POSITIVE.values(), ids=POSITIVE)
def test_log_p_lies_between_annealing_and_its_reverse(prior, guide, monkeypatch):
    monkeypatch.setattr(paths, "PILOT", 50)
    vae = pv.VAE(
        6, 2, prior=prior, guide=guide, likelihood="Normal(scale=0.6)",
        encoder=pv.MLP([8]), decoder=pv.MLP([8]), seed=0,
    ).double()  # fmt: skip
    found = pv.bdmc(vae, 100, temperatures=25, chains=8, leapfrog=4, seed=0)
    exact = pv.log_evidence(vae, found.x, num_samples=4000, seed=0)
    if not (exact.khat < 0.7).all():  # then by draws of the prior, which covers the posterior
        exact = by_the_prior(vae, found.x)
    below = exact.log_evidence - found.lower.log_evidence
    above = found.upper.log_evidence - exact.log_evidence
    for side in (below, above):
        assert side.mean() > -5 * side.std() / 10
    assert found.gap > -5 * found.gap_error
    assert found.gap < 0.2
    assert "drawn from the model" in found.summary()


def by_the_prior(vae, x):
    with torch.no_grad():
        joint = Joint(vae, x)
        log_w = joint.log_likelihood(vae.prior().sample((20_000,))[:, None].expand(-1, len(x), -1))
    return Evidence(*log_mean_exp(log_w), tail_shape(log_w), 20_000)


@pytest.mark.slow
def test_a_coarse_path_is_below_and_above():
    """Few temperatures: both bounds are loose, each on its side."""
    vae = linear_vae("full", weight_factor=2.0)
    found = pv.bdmc(vae, 150, temperatures=4, chains=2, leapfrog=3, seed=0)
    exact = marginal(vae).log_prob(found.x)
    below, above = exact - found.lower.log_evidence, found.upper.log_evidence - exact
    for side in (below, above):
        assert side.mean() > 5 * side.std() / math.sqrt(150)


# Draws of the model, and a wider proposal.


def ignorant(scale, dims=4):
    """p(x|z) does not depend on z: the posterior is the standard normal, and log p(x) is known."""
    line = f"Normal(scale={scale})"
    vae = pv.VAE(
        2, dims, likelihood="Normal(scale=1.0)", guide=line, encoder=pv.MLP([]),
        decoder=pv.MLP([]), seed=0,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.zero_()
    return vae, torch.zeros(200, 2).double(), -math.log(2 * math.pi)


def test_a_guide_too_narrow_by_half_passes_khat_and_is_seen_by_data_of_the_model():
    vae, x, exact = ignorant(0.5)
    found = pv.log_evidence(vae, x, num_samples=500, seed=0)
    assert (found.khat <= 0.7).double().mean() > 0.2  # no sign of it there
    low = found.log_evidence - exact
    assert low.mean() < -0.15
    assert (low.abs() < found.standard_error).double().mean() < 0.45
    assert found.simulated.loose and found.simulated.gap > 0.3
    assert "misses mass of the posterior, whatever k-hat says" in found.summary()


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.3])
def test_a_wider_proposal_holds_what_it_says(scale):
    vae, x, exact = ignorant(scale)
    found = pv.log_evidence(vae, x, num_samples=500, wide=0.5, seed=0)
    z = (found.log_evidence + found.standard_error**2 / 2 - exact) / found.standard_error
    assert abs(pooled(z)) < 5 and 0.8 < z.std() < 1.25
    assert (found.khat < 0.7).all() and not found.simulated.loose
    assert "between a lower and an upper bound." in found.summary()


def test_the_upper_bound_is_one():
    """Of a bound from above the mean error over data is not below 0, and falls with K."""
    vae = linear_vae("mean-field", mix=0.9)
    gaps = []
    for k in (2, 20, 200):
        found = pv.log_evidence(vae, draw(vae, 400), num_samples=k, num_simulated=400, seed=0)
        exact = marginal(vae).log_prob(found.simulated.x)
        for side, sign in ((found.simulated.upper, 1), (found.simulated.lower, -1)):
            above = sign * (side.log_evidence - exact)
            assert above.mean() > -3 * above.std() / 400**0.5
        gaps.append(found.simulated.gap)
    assert gaps[0] > 1.3 * gaps[1] > 1.3**2 * gaps[2] > 0


@pytest.mark.slow
def test_a_wide_proposal_of_a_discrete_z_is_the_prior():
    vae = bits()
    x = draw(vae, 40)
    found = pv.log_evidence(vae, x, num_samples=3000, wide=0.3, seed=0)
    assert abs(pooled(z_scores(found, enumerated(vae, x)))) < 5
    assert found.simulated.gap < 0.1
    with pytest.raises(ValueError, match="wide is a fraction of at least 0 and below 1, got"):
        pv.log_evidence(vae, x, wide=1.0)


@pytest.mark.parametrize("role", ["context", "offset"])
def test_data_are_drawn_with_what_comes_with_them(role):
    width = 1 if role == "offset" else 2
    blocks = [
        pv.Block("a", 3, likelihood="Poisson", missing=True), pv.Block("b", width, role=role)
    ]  # fmt: skip
    vae = pv.VAE(pv.Record(blocks), 2, encoder="MLP([4])", decoder="MLP([4])", seed=0)
    counts = torch.tensor([[1.0, 2.0, math.nan]] * 6)
    x = {"a": counts, "b": torch.zeros(6, width)}
    found = pv.log_evidence(vae, x, num_samples=20, seed=0).simulated
    assert found.x.shape == (6, 3 + width)
    assert found.x[:, 2].isnan().all() and not found.x[:, :2].isnan().any()
    assert found.upper.log_evidence.isfinite().all()
    assert pv.log_evidence(vae, x, num_samples=20, num_simulated=0).simulated is None


SIMULATED = {
    "log_evidence": lambda vae, x: pv.log_evidence(vae, x, num_samples=2, num_simulated=20),
    "of a loader": lambda vae, x: pv.log_evidence(
        vae, torch.utils.data.DataLoader(x, 30), num_samples=2, num_simulated=20
    ),
    "calibration": lambda vae, x: pv.calibration(vae, 20, given=x, num_samples=2),
    "bdmc": lambda vae, x: pv.bdmc(vae, 20, given=x, temperatures=2, chains=2, leapfrog=1),
}


@pytest.mark.parametrize("name", SIMULATED)
def test_rows_are_simulated_beside_random_ones(name, monkeypatch):
    """Rows may come sorted: the first 20 have a mean of 9.5."""
    blocks = [pv.Block("a", 2, likelihood="Normal"), pv.Block("b", 1, role="context")]
    vae = pv.VAE(pv.Record(blocks), 1, encoder="MLP([2])", decoder="MLP([2])", seed=0)
    simulate, seen = type(vae).simulate, []

    def spy(self, n, given, *others, **options):
        seen.append(given)
        return simulate(self, n, given, *others, **options)

    monkeypatch.setattr(type(vae), "simulate", spy)
    place = torch.arange(200.0)[:, None]
    SIMULATED[name](vae, torch.cat([torch.zeros(200, 2), place], 1))
    (given,) = seen
    assert len(given) == 20 and (given[:, 2].diff() > 0).all()
    assert abs(given[:, 2].mean() - 99.5) < 4.5 * 57.7 / 20**0.5


def test_a_guide_of_points_has_no_weights():
    """Its log p(x, z) was given for log p(x), without an error; of a narrow prior it has no end."""
    vae = pv.VAE(3, 1, prior="Normal(scale=0.1)", guide="Delta", seed=0)
    x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    said = r"needs a density of z, and the guide sets 'z' to a point: log_evidence\(vae, x, "
    said += r"proposal='auto'\) does without it"
    for refused in (pv.log_evidence, pv.gaps):
        with pytest.raises(ValueError, match=said):
            refused(vae, x)
    with pytest.raises(ValueError, match=said):
        pv.calibration(vae)
    with pytest.raises(ValueError, match=rf"ais\(start='guide'\) {said}"):
        pv.ais(vae, x, start="guide")
    found = pv.log_evidence(vae, x, proposal="auto", seed=0)
    z = torch.linspace(-1, 1, 2001)[:, None, None].expand(-1, 2, 1)
    with torch.no_grad():
        log_p = vae.decode(z).log_prob(x) + vae.prior().log_prob(z)
        exact = log_p.logsumexp(0) + math.log(1e-3)
    assert ((found.log_evidence - exact).abs() < 5 * found.standard_error).all()
