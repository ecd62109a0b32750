"""Missing cells are filled from their distribution given the others."""

import math
from functools import cache

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import multivariate_t

import pyro_vae as pv
from helpers.linear import SCALE, X, Z, linear_vae, marginal
from pyro_vae.core.pareto import effective_draws
from pyro_vae.distributions import Joined, VonMises, WithSpike, mixture
from pyro_vae.model.conditional import condition
from pyro_vae.model.ellipses import Ellipses, to_real
from pyro_vae.model.imputation import TIMES, predicted
from pyro_vae.model.joint import Joint

NAN = math.nan
GONE = torch.tensor([[0, 1, 0, 0, 1], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1] * X]).bool()


def data(n=4, seed=0):
    torch.manual_seed(seed)
    whole = marginal(linear_vae()).sample((n,))
    return whole.masked_fill(GONE[:n], math.nan)


@cache
def exact():
    """p(x) of the linear model."""
    return marginal(linear_vae())


def conditional(x):
    """Mean of the missing cells given the others, and their covariance, of one observation."""
    p = exact()
    gone, there = x.isnan(), ~x.isnan()
    s = p.covariance_matrix
    gain = s[gone][:, there] @ s[there][:, there].inverse()
    mean = p.loc[gone] + gain @ (x[there] - p.loc[there])
    return mean, s[gone][:, gone] - gain @ s[there][:, gone]


def seeing():
    """The model of ``linear.py``, with an encoder of missing cells that knows the prior alone."""
    vae = pv.VAE(
        X, Z, likelihood=f"Normal(scale={SCALE})", guide="Normal(scale=learned(1.0))",
        encoder=pv.MLP([]), decoder=pv.MLP([]), missing=True, seed=0,
    ).double()  # fmt: skip
    vae.likelihood.load_state_dict(linear_vae().likelihood.state_dict())
    with torch.no_grad():
        for p in vae.approximation.sources["loc"].parameters():
            p.zero_()
    return vae


MODELS = {
    "weighted draws of the prior": (seeing, dict(num_samples=5000)),
    "sweeps by the posterior": (linear_vae, dict(num_samples=500)),
    "sweeps by another guide": (
        lambda: linear_vae("mean-field", scale_factor=1.5, shift=0.3),
        dict(num_samples=500),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_the_mean_is_the_conditional_one(name):
    make, told = MODELS[name]
    vae, x = make(), data()
    found = vae.impute(x.repeat(30, 1), seed=0, **told).reshape(30, *x.shape)
    for i, one in enumerate(x):
        gone = one.isnan()
        assert torch.equal(found[:, i, ~gone], one[~gone].expand(30, -1))
        if not gone.any():
            continue
        mean, _ = conditional(one)
        error = found[:, i, gone].std(0) / 30**0.5
        assert ((found[:, i, gone].mean(0) - mean).abs() < 5 * error).all()
        assert gone.all() or (mean - marginal(vae).loc[gone]).abs().max() > 0.1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_draws_have_the_conditional_mean_and_covariance(name):
    make, told = MODELS[name]
    vae, x, n = make(), data(2), 4000
    draws = vae.impute(x, draws=n, **{**told, "num_samples": n}, seed=1)
    assert draws.shape == (n, 2, X) and torch.equal(draws[:, ~GONE[:2]][0], x[~GONE[:2]])
    for i, one in enumerate(x):
        mean, covariance = conditional(one)
        drawn = draws[:, i, one.isnan()]
        size = n / 8 if make is seeing else n / 2  # weighted draws repeat
        variance = covariance.diagonal()
        assert ((drawn.mean(0) - mean).abs() < 5 * (variance / size).sqrt()).all()
        error = ((covariance**2 + torch.outer(variance, variance)) / size).sqrt()
        assert ((torch.cov(drawn.T) - covariance).abs() < 5 * error).all()


def test_weighted_draws_have_the_posterior_given_what_is_there():
    vae, x = linear_vae("mean-field", scale_factor=1.5, shift=0.3), data(1)
    torch.manual_seed(0)
    with torch.no_grad():
        found = condition(vae, x, 4000, 5)
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight.detach()[~GONE[0]], head.bias.detach()[~GONE[0]]
    precision = torch.eye(Z).double() + w.T @ w / SCALE**2
    mean = torch.linalg.solve(precision, w.T @ (x[0, ~GONE[0]] - b)) / SCALE**2
    covariance, weights = precision.inverse(), found.log_w.softmax(0)
    error = (covariance.diagonal() / found.ess).sqrt()
    assert found.ess > 1000
    z = found.z[:, 0]
    assert ((weights.T @ z - mean).abs() < 4 * error).all()
    spread = (weights * (z - mean)).T @ (z - mean)
    assert torch.allclose(spread, covariance, rtol=0.15, atol=0.01)
    # The weights' mean is the marginal likelihood of the observed cells.
    p = marginal(vae)
    there = ~GONE[0]
    exact = torch.distributions.MultivariateNormal(
        p.loc[there], p.covariance_matrix[there][:, there]
    ).log_prob(x[0, there])
    evidence = found.log_w.logsumexp(0) - math.log(len(z))
    assert (evidence - exact).abs() < 4 / found.ess.sqrt()


@pytest.mark.slow
@pytest.mark.parametrize("missing", [True, False])
def test_cells_of_every_kind_are_filled_in_their_support(missing):
    likelihoods = {"Bernoulli": 1.0, "Poisson": 3.0, "Beta": 0.4, "StudentT(df=4)": -2.0,
                   "Categorical(categories=4)": 2.0}  # fmt: skip
    for likelihood, value in likelihoods.items():
        vae = pv.VAE((1, 3, 3), 2, likelihood=likelihood, missing=missing, seed=0)
        x = torch.full((5, 1, 3, 3), value)
        x[0], x[1, 0, 0] = math.nan, math.nan
        draws = vae.impute(x, draws=7, num_samples=20, sweeps=3, seed=0)
        assert draws.shape == (7, 5, 1, 3, 3) and torch.equal(
            draws[:, 2:], x[2:].expand(7, *x[2:].shape)
        )
        vae.check(draws.flatten(0, 1))
        assert torch.equal(draws, vae.impute(x, draws=7, num_samples=20, sweeps=3, seed=0))
        assert not torch.equal(draws, vae.impute(x, draws=7, num_samples=20, sweeps=3, seed=1))
        for point in ("mean", "median", "mode"):
            filled = vae.impute(x.numpy(), point=point, num_samples=20, sweeps=3)
            assert filled.isfinite().all() and torch.equal(filled[2:], x[2:])
            if point != "mean" or likelihood.startswith("Categorical"):
                vae.check(filled)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [True, False])
def test_discrete_latents_and_labels_impute_too(missing):
    x = torch.rand(6, 4).round()
    x[0, :2] = math.nan
    vae = pv.VAE(4, 3, prior="Bernoulli", guide="Bernoulli", missing=missing, seed=0)
    assert torch.equal(vae.impute(x, num_samples=30, seed=0)[1:], x[1:])
    m2 = pv.M2(4, 3, 2, missing=missing, seed=0)
    data = torch.cat([x, torch.eye(2)[[0, 1, 0, 1, 0, 1]]], 1)
    filled = m2.impute(data, num_samples=30, seed=0)
    assert filled.shape == x.shape and filled.isfinite().all()


def test_rows_are_imputed_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("pyro_vae.model.imputation.CELLS", 10 * X)
    vae, x = seeing(), data()
    assert vae.impute(x, num_samples=10, seed=0).shape == x.shape
    assert vae.impute(x, num_samples=10, draws=3, seed=0).shape == (3, *x.shape)


@pytest.mark.slow
def test_it_beats_the_mean_of_the_column():
    """Correlated columns, a fifth of the cells gone: close to the best linear guess."""
    torch.manual_seed(0)
    whole = marginal(linear_vae()).sample((400,))
    x = whole.masked_fill(torch.rand_like(whole) < 0.2, math.nan)
    vae = pv.VAE(X, Z, likelihood="Normal(scale=learned)", encoder="MLP([50])",
                 decoder=pv.MLP([]), missing=True, seed=0).double()  # fmt: skip
    pv.fit(vae, x, estimator="DReG(num_particles=5)", epochs=40, lr="cosine(0.02)")
    gone = x.isnan()
    error = (vae.impute(x, num_samples=500, seed=0) - whole)[gone].square().mean()
    best = torch.cat([(conditional(r)[0] - w[r.isnan()]) for r, w in zip(x, whole, strict=True)])
    column = (x.nanmean(0) - whole)[gone].square().mean()
    assert best.square().mean() * 0.9 < error < 1.15 * best.square().mean() < 0.5 * column


class Square(torch.nn.Module):
    """z beside its square; it counts the z that it reads."""

    rows = 0

    def forward(self, z):
        self.rows += z.shape[:-1].numel()
        return torch.cat([z, z * z], -1)


def two_humps():
    """x1 ~ N(z^2 + 0.6 z, .09), x2 ~ N(1.5 z, .09); the guide is q(z|x2), so it needs x2."""
    vae = pv.VAE(
        2,
        1,
        likelihood="Normal(scale=0.3)",
        guide="Normal(scale=learned)",
        encoder=pv.MLP([]),
        decoder=Square(),
        seed=0,
    ).double()
    precision = 1 + 1.5**2 / 0.3**2
    with torch.no_grad():
        decoder = vae.likelihood.sources["loc"].head
        decoder.weight.copy_(torch.tensor([[0.6, 1.0], [1.5, 0.0]]))
        encoder = vae.approximation.sources["loc"].head
        encoder.weight.copy_(torch.tensor([[0.0, 1.5 / 0.3**2 / precision]]))
        decoder.bias.zero_(), encoder.bias.zero_()
        scale = vae.approximation.sources["scale"]
        scale.unconstrained.copy_(scale.transform.inv(torch.tensor([precision**-0.5])))
    return vae


def posterior_on_a_grid(vae, x):
    """z, the probability of each given the observed cells of one row, and p(x|z) there."""
    z = torch.linspace(-7, 7, 2001, dtype=vae.example.dtype)[:, None]
    with torch.no_grad():
        p = vae.decode(z).base_dist
    log_p = p.log_prob(x.nan_to_num(0.0))[:, ~x.isnan()].sum(-1) + vae.prior().log_prob(z)
    return z[:, 0], log_p.softmax(0), p


def metropolis_within_gibbs(model, x, num_samples, sweeps):
    """z of chains that alternate z and the missing cells, as ``impute`` once had them."""
    x = x.repeat(num_samples, 1)
    there, prior = ~x.isnan(), model.prior()
    z = model.approximate_posterior(x.nan_to_num(0.0)).sample()
    for _ in range(sweeps):
        joint = Joint(model, torch.where(there, x, model.decode(z).sample()), prior)
        proposed = joint.guide.sample()
        accept = torch.rand(len(z)).log() < joint.log_weight(proposed) - joint.log_weight(z)
        z = torch.where(accept[:, None], proposed, z)
    return z.reshape(num_samples, -1, 1)


@pytest.mark.slow
def test_a_posterior_of_two_humps_is_met_where_chains_get_stuck():
    """z^2 says little of the sign: chains stay where they began, in the likelier half or not."""
    vae, n = two_humps(), 40
    x = torch.tensor([[1.6, math.nan]]).double()
    z, weights, _ = posterior_on_a_grid(vae, x[0])
    exact = (weights * 1.5 * z).sum()
    found, cost = {}, {}
    for name, draw in {
        "chains": lambda x: 1.5 * metropolis_within_gibbs(vae, x, 50, 20).mean((0, 2)),
        "weights": lambda x: vae.impute(x, num_samples=1000, sweeps=5)[:, 1],
    }.items():
        torch.manual_seed(0)
        vae.decoder.rows = 0
        with torch.no_grad():
            values = draw(x.repeat(n, 1))
        found[name] = ((values.mean() - exact) / (values.std() / n**0.5)).item()
        cost[name] = vae.decoder.rows
    assert abs(found["weights"]) < 3 and cost["weights"] < cost["chains"]
    assert found["chains"] > 8
    # Its draws have the law of the exact conditional: where the truth's rank is uniform.
    draws = vae.impute(x, draws=2000, num_samples=4000, seed=0)[:, 0, 1]
    left = weights[z < 0].sum()
    error = (left * (1 - left) / 500).sqrt()  # weighted draws repeat
    assert ((draws < 0).double().mean() - left).abs() < 4 * error


DISCRETE = ("Poisson", "Bernoulli", "Categorical(categories=4)", "NegativeBinomial(total_count=4)")


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", [*DISCRETE, "Normal", "StudentT(df=4)"])
@pytest.mark.parametrize("missing", [True, False])
def test_mean_median_and_mode_are_those_of_the_exact_conditional(likelihood, missing):
    """By quadrature over z, and enumeration of the cell or its distribution function."""
    vae = pv.VAE(
        3,
        1,
        likelihood=likelihood,
        encoder=pv.MLP([]),
        decoder=pv.MLP([4]),
        missing=missing,
        seed=4,
    ).double()
    x = torch.tensor([[1.0, math.nan, 0.0]]).double()
    _, weights, p = posterior_on_a_grid(vae, x[0])
    if likelihood in DISCRETE:
        top = {"B": 2, "C": 4}.get(likelihood[0], 60)
        values = torch.arange(top).double()
    else:
        values = torch.linspace(-20, 20, 1001).double()
    mass = torch.stack([weights @ p.log_prob(v)[:, 1].exp() for v in values])
    mass = mass / mass.sum()
    mean, cdf = (values * mass).sum(), mass.cumsum(0)
    sd = ((values - mean) ** 2 * mass).sum().sqrt()
    for point in ("mean", "median", "mode"):
        found = vae.impute(x.repeat(20, 1), point=point, num_samples=1000, sweeps=3, seed=0)[:, 1]
        at = (found[:, None] - values).abs().argmin(1)
        if likelihood.startswith("C") or (point == "mode" and likelihood in DISCRETE):
            assert (mass[at] > mass.max() - 0.05).all()
        elif point == "mode":  # of so many draws one is near that of a single hump
            assert (found - values[mass.argmax()]).abs().max() < sd / 3
        elif point == "mean":
            assert (found.mean() - mean).abs() < 4 * found.std() / 20**0.5
        else:  # the share of weighted draws below it, of 150 effective ones, errs by .1 at most
            assert ((cdf[at] > 0.4) & (cdf[at] - mass[at] < 0.6)).all()


def test_a_cell_without_a_mean_has_its_median_and_leaves_the_others_theirs():
    df = torch.tensor([0.5, 3.0]).expand(101, 1, 2)  # of two columns, the first without a mean
    heavy = dist.StudentT(df, torch.tensor([0.0, 7.0]), 1.0).to_event(1)
    p = Joined([heavy, dist.Normal(torch.zeros(101, 1, 1), 1.0).to_event(1)])
    torch.manual_seed(0)
    filled = predicted(p, torch.zeros(101, 1), "mean")[0]
    assert filled[0].isfinite() and filled[1:].tolist() == pytest.approx([7.0, 0.0])


def test_a_spike_is_the_mode_where_half_of_the_probability_is_its_own():
    """A density above 1 at its own mode does not beat a spike of 60 %, nor a flat one lose to 40 %.

    The last two cells have two spikes, of 30 and 7 % and of 42 and 55 %.
    """
    share = torch.tensor([0.6, 0.4, 0.6, 0.4, 0.3, 0.42])
    scale = torch.tensor([0.01, 0.01, 100.0, 100.0, 1.0, 1.0])
    inner = WithSpike(torch.tensor([0.0] * 4 + [0.1, 0.95]).logit(), dist.Normal(5.0, scale), 7.0)
    p = WithSpike(share.logit(), inner, 0.0).expand([2000, 1, 6]).to_event(1)
    torch.manual_seed(0)
    mode = predicted(p, torch.zeros(2000, 1), "mode")[0]
    assert mode[[0, 2, 5]].tolist() == [0.0, 0.0, 7.0]
    at, sd = mode[[1, 3, 4]], scale[[1, 3, 4]]
    assert ((at - 5).abs() < sd / 3).all() and not ((at == 0) | (at == 7)).any()


def test_angles_have_a_direction_for_their_mean():
    """Those of 3 and -2.8 radians are near to each other, and .1 is far from both."""
    loc = torch.tensor([[3.0], [-2.8 - 2 * math.pi]]).double()
    kappa = torch.tensor([[4.0], [9.0]]).double()
    grid = torch.linspace(-math.pi, math.pi, 2001).double()[:-1, None, None]
    turned = torch.polar(torch.ones_like(grid), grid)
    density = dist.VonMises(loc, kappa).log_prob(grid).exp() * 2 * math.pi / len(grid)
    log_w, each = torch.tensor([0.3, 0.7]).log(), (density * turned).sum(0)
    exact = (each * log_w.exp()[:, None]).sum()
    p = VonMises(loc[..., None], kappa[..., None])
    assert predicted(p.to_event(1), log_w[:, None], "mean").item() == pytest.approx(
        exact.angle().item(), abs=1e-6
    )
    assert torch.allclose(p.mean[..., 0], each.angle())
    both = mixture(dist.Categorical(logits=log_w), VonMises(loc[:, 0], kappa[:, 0]))
    assert both.mean.item() == pytest.approx(exact.angle().item(), abs=1e-6)
    assert both.variance.item() == pytest.approx(1 - exact.abs().item(), abs=1e-6)
    torch.manual_seed(0)
    n, log_w = 2000, log_w.repeat(2000)[:, None]
    many = VonMises(loc.repeat(n, 1)[..., None], kappa.repeat(n, 1)[..., None]).to_event(1)
    found = predicted(many, log_w, "median").item()
    away = (grid.flatten() - exact.angle() + math.pi).remainder(2 * math.pi) - math.pi
    away, order = away.sort()
    mass = (density[..., 0] @ torch.tensor([0.3, 0.7]).double())[order]
    place = int((mass.cumsum(0) < 0.5).sum())
    error = 0.5 / (mass[place] / (away[1] - away[0]) * effective_draws(log_w).sqrt()).item()
    turn = found - exact.angle().item() - away[place].item()
    assert abs((turn + math.pi) % (2 * math.pi) - math.pi) < 5 * error < 0.1


def test_ordered_levels_have_their_median_by_quadrature():
    """Of levels 0 ... 4 with a mode at an end; a mean of levels says nothing."""
    line = "OrderedLogistic(categories=5)"
    vae = pv.VAE(3, 1, likelihood=line, encoder=[], decoder=[4], missing=True, seed=8).double()
    x = torch.tensor([[4.0, NAN, 0.0]]).double()
    _, weights, p = posterior_on_a_grid(vae, x[0])
    mass = weights @ p.probs[:, 1]
    median = (mass.cumsum(0) < 0.5).sum()
    assert (mass.cumsum(0) - 0.5).abs().min() > 0.02  # so that noise does not move it
    assert mass.argmax() != median
    for point, level in {"mean": median, "median": median, "mode": mass.argmax()}.items():
        assert vae.impute(x, point=point, num_samples=2000, seed=0)[0, 1] == level


@pytest.mark.slow
@pytest.mark.parametrize("missing", [True, False])
def test_a_count_beside_a_bit_is_that_of_quadrature(missing):
    """Two blocks with likelihoods of their own: each given the other, and the bound of a row."""
    lines = {"count": "Poisson", "bit": "Bernoulli"}
    blocks = [pv.Block(name, 1, likelihood=line, missing=missing) for name, line in lines.items()]
    vae = pv.VAE(pv.Record(blocks), 1, encoder=[], decoder=[4], seed=6).double()
    with torch.no_grad():  # so that the two depend on one another
        vae.decoder.layers[-2].weight.mul_(3.0)
    z = torch.linspace(-7, 7, 2001).double()[:, None]
    with torch.no_grad():
        count, bit = vae.decode(z).parts
    prior = vae.prior().log_prob(z)
    for x in ([4.0, NAN], [NAN, 1.0]):
        x = torch.tensor([x]).double()
        seen, other, at = (bit, count, 0) if x[0, 0].isnan() else (count, bit, 1)
        log_p = seen.log_prob(x[:, [1 - at]]) + prior
        weights = log_p.softmax(0)
        mean = weights @ other.mean[:, 0]
        second = weights @ (other.variance[:, 0] + other.mean[:, 0] ** 2)
        found = vae.impute(x.repeat(20, 1), num_samples=1000, sweeps=3, seed=0)[:, at]
        error = found.std() / 20**0.5
        assert (found.mean() - mean).abs() < 4 * error
        assert (prior.softmax(0) @ other.mean[:, 0] - mean).abs() > 4 * error
        one = vae.imputations(x, draws=3000, num_samples=8000, sweeps=3, seed=0)
        spread = (second - mean**2).sqrt() / min(3000.0, one.ess.item()) ** 0.5
        assert (one.values[:, 0, at].mean() - mean).abs() < 4 * 2**0.5 * spread
        if missing:
            evidence = pv.log_evidence(vae, x, num_samples=20000, seed=0)
            exact = log_p.logsumexp(0) + (z[1, 0] - z[0, 0]).log()
            gap = (evidence.log_evidence - exact).abs()
            assert gap < 4 * evidence.standard_error


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say():
    """Rows from the model itself, a third of the cells gone at random: 90 % intervals."""
    vae, n, draws = linear_vae("mean-field", scale_factor=1.3, shift=0.2), 600, 199
    torch.manual_seed(3)
    whole = marginal(vae).sample((n,))
    gone = torch.rand_like(whole) < 1 / 3
    found = vae.impute(whole.masked_fill(gone, math.nan), draws=draws, num_samples=500, sweeps=3)
    rank = (found < whole).sum(0)  # uniform on 0 ... 199 where the draws are the truth's law
    covered = ((rank >= 10) & (rank < 190)).double()
    rows = gone.any(1)
    by_row = (covered * gone).sum(1)[rows] - 0.9 * gone.sum(1)[rows]
    z = by_row.sum() / by_row.square().sum().sqrt()
    share = covered[gone].mean()
    assert abs(z) < 4 and 0.88 < share < 0.92
    # Filled from the prior the intervals would be as honest, but wide; by the mean they cover none.
    width = found.quantile(0.95, 0) - found.quantile(0.05, 0)
    assert width[gone].mean() < 0.75 * 3.29 * marginal(vae).stddev.mean()


@pytest.mark.slow
def test_a_masked_bound_is_that_of_the_observed_cells():
    """ELBO and log p(x) of rows with holes, by the Gaussian of the cells that are there."""
    vae, x = seeing(), data(3)
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight.detach(), head.bias.detach()
    evidence = pv.log_evidence(vae, x, num_samples=20000, seed=0)
    bound = pv.elbo(vae, x, num_samples=4000, seed=0)
    q = vae.encode(x[:1])
    scale = q.base_dist.scale[0].detach()
    kl = (scale.square() - 1 - 2 * scale.log()).sum() / 2
    for i, row in enumerate(x):
        there = ~row.isnan()
        p = torch.distributions.MultivariateNormal(
            b[there], w[there] @ w[there].T + SCALE**2 * torch.eye(int(there.sum())).double()
        )
        gap = evidence.log_evidence[i] - p.log_prob(row[there])
        assert gap.abs() < 4 * evidence.standard_error[i]
        r = row[there] - b[there]
        quadratic = r.square().sum() + (w[there] * scale).square().sum()
        exact = -quadratic / 2 / SCALE**2 - there.sum() * math.log(SCALE * (2 * math.pi) ** 0.5)
        spread = ((w[there] * scale).square().sum(0) / SCALE**2).sum() + (
            w[there].T @ r * scale
        ).norm() / SCALE**2
        assert (bound[i] - (exact - kl)).abs() < 5 * spread / 4000**0.5


# The checks.


def narrow(weight_factor):
    """A guide that knows the prior alone, and a posterior that is so many times narrower."""
    vae = seeing()
    with torch.no_grad():
        vae.likelihood.sources["loc"].head.weight.mul_(weight_factor)
    return vae


def test_rows_of_too_few_effective_draws_are_drawn_anew(monkeypatch):
    vae = narrow(4.0)
    x = torch.cat([data(2), torch.zeros(1, X).double()])
    more = vae.imputations(x, num_samples=1000, seed=0)
    assert not more.doubtful.any() and (more.ess[:2] >= 100).all()
    assert more.ess[2] == math.inf and "no row is doubtful" in more.summary()
    monkeypatch.setattr("pyro_vae.model.imputation.TIMES", (1,))
    once = vae.imputations(x, num_samples=1000, seed=0)
    assert once.doubtful[:2].any() and (once.ess[:2] < more.ess[:2])[once.doubtful[:2]].all()
    assert "1 rows are doubtful" in once.summary() or "2 rows are doubtful" in once.summary()


@pytest.mark.slow
def test_a_posterior_much_narrower_than_the_guide_is_neared_by_fits():
    """30 times narrower in each dimension: of the first 1,000 draws about one counts."""
    vae, rows = narrow(30.0), 40
    x = marginal(vae).sample((1,)).masked_fill(GONE[:1], NAN)
    vae.decoder.register_forward_hook(lambda _, z, out: decoded.append(z[0].shape[:-1].numel()))
    decoded = []
    found = vae.imputations(x.expand(rows, X), num_samples=1000, seed=0)
    assert sum(decoded) <= 1 + rows * 1000 * sum(TIMES)
    assert not found.doubtful.any()
    p, gone = marginal(vae), GONE[0]
    s = p.covariance_matrix
    gain = s[gone][:, ~gone] @ s[~gone][:, ~gone].inverse()
    mean = p.loc[gone] + gain @ (x[0, ~gone] - p.loc[~gone])
    values = found.values[:, gone]
    assert ((values.mean(0) - mean).abs() < 4 * values.std(0) / rows**0.5).all()


def test_what_is_fitted_to_draws_has_their_moments_and_its_density():
    torch.manual_seed(0)
    loc = torch.tensor([1.0, -2.0, 0.5]).double()
    tril = torch.tensor([[1.0, 0, 0], [0.9, 0.3, 0], [-0.5, 0.2, 2.0]]).double()
    exact = torch.distributions.MultivariateNormal(loc, scale_tril=tril)
    wide = torch.distributions.MultivariateNormal(loc, scale_tril=2 * tril)
    z = wide.sample((20000, 2))
    fit = Ellipses.of(z, exact.log_prob(z) - wide.log_prob(z), to_real(exact.support))
    assert torch.allclose(fit.loc, loc.expand(2, 3), atol=0.1)
    assert torch.allclose(fit.tril @ fit.tril.mT, (tril @ tril.T).expand(2, 3, 3), atol=0.15)
    drawn = fit.sample(5)
    peer = multivariate_t(fit.loc[1], fit.tril[1] @ fit.tril[1].T, 8)
    assert np.allclose(fit.log_prob(drawn)[:, 1], peer.logpdf(drawn[:, 1]))


@pytest.mark.parametrize("support", ["positive", "unit_interval"])
def test_what_is_fitted_on_a_half_line_has_density_one(support):
    cell = getattr(torch.distributions.constraints, support)
    to_z = to_real(torch.distributions.constraints.independent(cell, 1))
    torch.manual_seed(0)
    z = torch.rand(500, 1, 1).double()
    fit = Ellipses.of(z, torch.zeros(500, 1), to_z)
    grid = to_z(torch.linspace(-30, 30, 200001).double()[:, None])[:, 0]
    p = fit.log_prob(grid[:, None, None]).exp()[:, 0]
    assert abs(torch.trapezoid(p, grid) - 1) < 1e-3
    assert fit.sample(50).shape == (50, 1, 1) and (fit.sample(50) > 0).all()


def test_a_guide_that_misses_the_posterior_is_warned_of():
    vae = narrow(200.0)
    with pytest.warns(UserWarning, match="rows are doubtful: fewer than 50 effective draws"):
        vae.impute(data(2), num_samples=500, sweeps=1, seed=0)


@pytest.mark.parametrize("draws", [None, 3])
def test_no_more_is_decoded_than_is_asked_for(draws):
    vae = two_humps()
    vae.decoder.rows = 0
    vae.impute(torch.ones(5, 2).double())
    assert vae.decoder.rows == 1  # one z, at which the cells are looked at
    vae = pv.VAE(
        2, 1, likelihood="Normal", missing=True, encoder=pv.MLP([]), decoder=Square(), seed=0
    ).double()
    x = torch.tensor([[1.6, math.nan], [1.0, 1.0], [math.nan, 0.0]]).double()
    vae.decoder.rows = 0
    vae.impute(x, draws=draws, num_samples=1000, seed=0)
    assert vae.decoder.rows == 1 + 2 * (1000 + (draws or 0))


def test_training_mode_changes_no_cell():
    dropout = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(0.5))
    vae = pv.VAE(X, 2, likelihood="Normal", decoder=dropout, encoder=pv.MLP([3]), seed=0).double()
    first = vae.eval().imputations(data(2), num_samples=30, sweeps=1, seed=0)
    second = vae.train().imputations(data(2), num_samples=30, sweeps=1, seed=0)
    assert torch.equal(first.values, second.values) and torch.equal(first.ess, second.ess)
    assert vae.training


def test_bad_arguments_are_refused():
    x = np.full((2, X), np.nan)
    with pytest.raises(ValueError, match="num_samples is a whole number"):
        linear_vae().impute(x, num_samples=0)
    with pytest.raises(ValueError, match="draws is a whole number"):
        linear_vae().impute(x, draws=1.5)
    with pytest.raises(ValueError, match="point is one of mean, median, mode, got 'best'"):
        linear_vae().impute(x, point="best")
    with pytest.raises(ValueError, match="no mean: ask for point='median'"):
        pv.VAE(X, 2, likelihood="Cauchy", seed=0).impute(x, num_samples=20, sweeps=1)
    with pytest.raises(ValueError, match="expected x of shape"):
        linear_vae().impute(x[:, :2])
    with pytest.raises(ValueError, match="of independent cells"):
        pv.VAE(3, 2, likelihood="OneHotCategorical").impute(torch.eye(3))
