"""Measure-valued derivatives, and the variances of Gaussian costs in closed form."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO

import pyro_vae as pv
from helpers.gradients import MANY, N, copied, draws, exact_linear, right, spread, z_scores
from pyro_vae import MLP, VAE, make_estimator
from pyro_vae.infer import Baseline, MeasureValued, RunningMean, ScoreFunction, StickingTheLanding
from pyro_vae.infer.estimators.soundness import check_and_nest


@pytest.mark.slow
@pytest.mark.parametrize("beta, particles", [(1.0, 1), (0.25, 1), (1.0, 2)])
def test_unbiased_for_normals(beta, particles, linear):
    vae, x = linear
    line = f"MeasureValued(num_particles={particles})"
    right(*draws(line, vae, x, beta, copies=MANY // particles), exact_linear(vae, x, beta), vae)


# Variances in closed form: n copies of a parameter give n draws of the gradient in one pass.


def gaussian_cost(cost, start):
    """E of a cost under Normal(loc, scale): the prior is q itself, so that log w is the cost."""

    def model(x=None):
        with pyro.plate("copies", N):
            z = pyro.sample("z", dist.Normal(*start))
            pyro.factor("cost", cost(z))

    def guide(x=None):
        p = pyro.param("p", lambda: start.repeat(N, 1))
        with pyro.plate("copies", N):
            pyro.sample("z", dist.Normal(p[:, 0], p[:, 1]))

    return model, guide


def with_mean(guide, mean):
    """The score function with the cost's mean as its baseline, which stays."""
    network = RunningMean(decay=1.0).double()
    network.average.fill_(mean)
    one, wrapped = torch.zeros(N, 1), Baseline(network)(ScoreFunction()(guide))
    return lambda: wrapped(one)


def gaussian_variances(d, s):
    """Of one estimate of the gradient of E[(z - k)^2], z ~ N(k + d, s), in loc and in scale."""
    return {
        "pathwise": (4 * s**2, 4 * d**2 + 8 * s**2),
        "score": (
            d**4 / s**2 + 14 * d**2 + 15 * s**2,
            2 * d**4 / s**2 + 60 * d**2 + 74 * s**2,
        ),
        "mean": (8 * d**2 + 10 * s**2, 40 * d**2 + 56 * s**2),
        # 4 d W / sqrt(2 pi), and 2 d M (1 - U) + s M^2 (1 - U^2): E W^2 = 2, E M^2 = 3, E M^4 = 15
        "measure_valued": ((16 / math.pi - 4) * d**2, 4 * d**2 + 4 * s**2),
    }


@pytest.mark.parametrize("d, s", [(0.0, 0.8), (1.5, 0.8), (-0.7, 2.0)])
@pytest.mark.parametrize("rule", gaussian_variances(0, 1))
def test_variance_of_gaussian_costs(rule, d, s):
    """Mohamed et al. (2020); the mean's and the measure-valued ones by the moments above."""
    k = 0.3
    model, guide = gaussian_cost(
        lambda z: (z - k) ** 2, torch.tensor([k + d, s], dtype=torch.float64)
    )
    elbo, wrapped = {
        "pathwise": (Trace_ELBO(), StickingTheLanding()(guide)),
        "score": (Trace_ELBO(), ScoreFunction()(guide)),
        "mean": (TraceGraph_ELBO(), with_mean(guide, d**2 + s**2)),
        "measure_valued": (MeasureValued(), guide),
    }[rule]
    sample = copied(elbo, model, wrapped)
    for i, (exact, known) in enumerate(
        zip((2 * d, 2 * s), gaussian_variances(d, s)[rule], strict=True)
    ):
        variance, error = spread(sample[:, i])
        assert abs(sample[:, i].mean() - exact) < 5 * (variance / N).sqrt() + 1e-12
        assert abs(variance - known) < 5 * error + 1e-15


@pytest.mark.parametrize("loc, scale", [(0.4, 1.3), (-1.0, 0.5)])
def test_right_where_the_cost_jumps(loc, scale):
    """E of 1[z > 0] has the gradient of a normal CDF; along the path it is zero."""
    start = torch.tensor([loc, scale], dtype=torch.float64)
    model, guide = gaussian_cost(lambda z: (z > 0).double(), start)
    density = dist.Normal(0.0, 1.0).log_prob(start[0] / start[1]).exp() / start[1]
    sample = copied(MeasureValued(), model, guide)
    wanted = torch.stack([density, -density * start[0] / start[1]])
    assert z_scores(sample, wanted).abs().max() < 5
    assert (copied(Trace_ELBO(), model, StickingTheLanding()(guide)) == 0).all()


@pytest.mark.parametrize("rate", [0.4, 5.0])
def test_variance_of_a_poisson_cost(rate):
    """E[(z - k)^2] = (rate - k)^2 + rate; one difference is 2 (z - k) + 1."""
    k, start = 1.5, torch.tensor(rate, dtype=torch.float64)

    def model():
        with pyro.plate("copies", N):
            z = pyro.sample("z", dist.Poisson(start))
            pyro.factor("cost", (z - k) ** 2)

    def guide():
        p = pyro.param("p", lambda: start.repeat(N))
        with pyro.plate("copies", N):
            pyro.sample("z", dist.Poisson(p))

    sample = copied(MeasureValued(), model, guide)
    variance, error = spread(sample)
    assert abs(sample.mean() - (2 * (rate - k) + 1)) < 5 * (variance / N).sqrt()
    assert abs(variance - 4 * rate) < 5 * error


# Several sites: a count and two normal variables, by a sum over counts and quadrature.


@pytest.fixture
def mixed():
    n = 8000
    start = {"rate": [1.2], "loc": [0.3, -0.5], "scale": [0.7, 1.1], "w": [0.8]}
    start = {name: torch.tensor(v, dtype=torch.float64) for name, v in start.items()}
    x = torch.tensor(0.9, dtype=torch.float64)

    def log_joint(w, count, z):
        likelihood = dist.Normal(w * count + z[..., 0] * z[..., 1], 1.0).log_prob(x)
        prior = dist.Normal(w, 1.5).log_prob(z).sum(-1)
        return likelihood + prior + dist.Poisson(torch.tensor(2.0).double()).log_prob(count)

    def model():
        w = pyro.param("w", lambda: start["w"].repeat(n, 1))
        with pyro.plate("copies", n):
            count = pyro.sample("count", dist.Poisson(torch.tensor(2.0).double()))
            z = pyro.sample("z", dist.Normal(w.expand(n, 2), 1.5).to_event(1))
            pyro.sample("x", dist.Normal(w[:, 0] * count + z[..., 0] * z[..., 1], 1.0), obs=x)

    def guide():
        rate, loc, scale = (
            pyro.param(name, lambda v=start[name]: v.repeat(n, 1))
            for name in ("rate", "loc", "scale")
        )
        with pyro.plate("copies", n):
            pyro.sample("count", dist.Poisson(rate[:, 0]))
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def exact():
        p = {name: v.clone().requires_grad_() for name, v in start.items()}
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        eps, h = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
        z = p["loc"] + p["scale"] * torch.cartesian_prod(eps, eps)
        h = torch.cartesian_prod(h, h).prod(-1)
        count = torch.arange(40, dtype=torch.float64)[:, None]
        q, q_z = dist.Poisson(p["rate"]), dist.Normal(p["loc"], p["scale"]).to_event(1)
        log_w = log_joint(p["w"], count, z) - q.log_prob(count) - q_z.log_prob(z)
        elbo = (q.log_prob(count).exp() * h * log_w).sum()
        return elbo, dict(zip(p, torch.autograd.grad(elbo, list(p.values())), strict=True))

    return model, guide, exact


@pytest.mark.slow
@pytest.mark.parametrize("particles", [1, 3])
def test_unbiased_for_sites_of_both_kinds(particles, mixed):
    model, guide, exact = mixed
    wanted, gradients = exact()
    for name, gradient in gradients.items():
        sample = copied(MeasureValued(particles), model, guide, name)
        assert z_scores(sample, gradient).abs().max() < 5
        assert (gradient != 0).all()
    with pyro.get_param_store().scope():
        values = [-MeasureValued(particles).loss(model, guide) / 8000 for _ in range(20)]
    values = torch.tensor(values, dtype=torch.float64)
    assert z_scores(values[:, None], wanted.detach()).abs() < 5


@pytest.mark.parametrize("minibatch", [None, 2])
@pytest.mark.slow
def test_sites_in_different_plates(minibatch):
    """A global and a local site: as the path's, also where the local plate is subsampled."""
    x, n = torch.tensor([0.5, -0.3, 1.4]).double(), 4000
    start = torch.tensor([0.4, -0.2, 0.1, 0.6, 0.5], dtype=torch.float64)

    def parameters():
        return pyro.param("p", lambda: start.repeat(n, 1))[..., None]

    def model():
        p = parameters()
        with pyro.plate("copies", n, dim=-2):
            first = pyro.sample("first", dist.Normal(p[:, 4], 1.0))
            with pyro.plate("data", 3, minibatch, dim=-1) as i:
                second = pyro.sample("second", dist.Normal(first, 1.0))
                pyro.sample("x", dist.Normal(first + p[:, 4] * second**2, 1.0), obs=x[i])

    def guide():
        p = parameters()
        with pyro.plate("copies", n, dim=-2):
            pyro.sample("first", dist.Normal(p[:, 0], p[:, 1].exp()))
            with pyro.plate("data", 3, minibatch, dim=-1) as i:
                pyro.sample("second", dist.Normal(p[:, 2] * x[i], p[:, 3]))

    path = torch.cat([copied(Trace_ELBO(), model, guide) for _ in range(25)])
    mine = torch.cat([copied(MeasureValued(), model, guide) for _ in range(25)])
    # the subsample is one for all copies of a pass, so passes are what is independent
    means = [g.reshape(25, n, 5).mean(1) for g in (path, mine)]
    difference = means[1] - means[0]
    assert z_scores(difference, torch.zeros(5).double()).abs().max() < 5
    assert (means[1].mean(0).abs() > 0.05).all()


def test_moved_draws_are_of_the_same_minibatch():
    seen = []

    def model():
        with pyro.plate("data", 1000, 2) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0))
            with pyro.plate("more", 1000, 3) as j:  # a plate of the model's alone
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(3, 2))
            seen.append((i.tolist(), j.tolist()))

    def guide():
        with pyro.plate("data", 1000, 2):
            pyro.sample("z", dist.Normal(pyro.param("p", torch.zeros(2)), 1.0))

    MeasureValued(max_plate_nesting=2).loss_and_grads(model, guide)
    assert len(seen) == 2
    assert seen[0] == seen[1]


# One face with the others.


@pytest.mark.slow
def test_it_counts_its_evaluations(linear):
    vae, x = linear
    found = pv.compare_estimators(vae, x.repeat(50, 1), ["MeasureValued", "RLOO"], num_draws=30)
    assert found.evaluations.to_numpy().tolist() == [1 + 3 * 2, 2]
    assert found.bias_z.sel(parameter="all").max() < 5
    variance = found.grad_variance.sel(parameter="guide")
    assert variance[0] < 0.2 * variance[1]


@pytest.mark.parametrize("family", ["Normal", "Poisson"])
@pytest.mark.slow
def test_it_trains(family):
    vae = VAE(6, 2, prior=family, guide=family, encoder=MLP([16]), decoder=MLP([16]), seed=1)
    x = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).repeat(100, 1)
    before = pv.elbo(vae, x, num_samples=20).mean()
    pv.fit(vae, x, estimator="MeasureValued", epochs=16, batch_size=20, lr=2e-2, progress=False)
    assert pv.elbo(vae, x, num_samples=20).mean() > before + 1


@pytest.mark.parametrize("family, instead", [("Bernoulli", "score"), ("Gamma", "pathwise")])
def test_it_says_which_guides_it_cannot_serve(family, instead):
    vae = VAE(6, 2, prior=family, guide=family, likelihood="Normal")
    estimator, x = make_estimator("MeasureValued"), torch.randn(3, 6)
    reason = f"for Normal and Poisson sites, which {family} at site 'z' is not.*={instead}"
    with pytest.raises(ValueError, match=reason):
        check_and_nest(estimator, vae.model, vae.guide, x)
    with pytest.raises(ValueError, match="Normal and Poisson sites, which 'z' is not: use RLOO"):
        estimator.elbo.loss(vae.model, vae.guide, x)


def test_a_site_that_depends_on_an_earlier_one_is_refused():
    def model():
        first = pyro.sample("first", dist.Normal(0.0, 1.0))
        pyro.sample("second", dist.Normal(first, 1.0))

    def guide():
        p = pyro.param("p", torch.tensor(0.3))
        first = pyro.sample("first", dist.Normal(p, 1.0))
        pyro.sample("second", dist.Normal(p * first, 1.0))

    with pytest.raises(ValueError, match="'second' depend on an earlier site's draw"):
        MeasureValued().loss_and_grads(model, guide)
