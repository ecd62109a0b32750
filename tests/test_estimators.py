"""Every estimator against an exact gradient: enumeration, or closed form."""

import itertools

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO

from helpers.gradients import (
    MANY,
    bit_model,
    draws,
    exact_bits,
    exact_linear,
    gradient_of,
    renyi_by_quadrature,
    right,
    z_scores,
)
from pyro_vae import MLP, VAE, make_estimator
from pyro_vae.infer import Enumerate, RunningMean, ScoreFunction
from pyro_vae.infer.estimators.handlers import Baseline, NonReparameterized
from pyro_vae.infer.estimators.soundness import check_and_nest

DISCRETE = [
    "Trace_ELBO",
    "Trace_ELBO(gradient=score)",
    "Trace_ELBO(num_particles=3)",
    "TraceGraph_ELBO",
    "TraceGraph_ELBO(gradient=score)",
    "TraceGraph_ELBO(gradient=score, num_particles=3)",
    "TraceGraph_ELBO(gradient=score, baseline=decaying)",
    "TraceGraph_ELBO(gradient=score, baseline=decaying, num_particles=3)",
    "TraceGraph_ELBO(gradient=score, baseline=neural)",
    "TraceGraph_ELBO(gradient=score, baseline=neural, num_particles=3)",
]
CONTINUOUS = [
    *DISCRETE,
    "Trace_ELBO(gradient=pathwise)",
    "Trace_ELBO(gradient=pathwise, num_particles=3)",
    "TraceGraph_ELBO(gradient=pathwise)",
    "TraceMeanField_ELBO",
    "TraceMeanField_ELBO(num_particles=3)",
]
CONTINUOUS = [e for e in CONTINUOUS if "baseline" not in e or "score" in e]


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 4, 10])
@pytest.mark.parametrize("line", DISCRETE)
def test_unbiased_for_discrete_z(line, n):
    vae, x = bit_model(n)
    right(*draws(line, vae, x, copies=MANY), exact_bits(vae, x), vae)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [1.0, 0.25])
@pytest.mark.parametrize("line", CONTINUOUS)
def test_unbiased_for_continuous_z(line, beta, linear):
    vae, x = linear
    copies = MANY // make_estimator(line).elbo.num_particles
    right(*draws(line, vae, x, beta, copies=copies), exact_linear(vae, x, beta), vae)


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_enumeration_is_exact(beta, bits):
    vae, x = bits
    exact = exact_bits(vae, x, beta)
    gradients, values = draws("TraceEnum_ELBO", vae, x, beta, batches=1, copies=1)
    assert torch.allclose(gradients[0], gradient_of(exact, vae), rtol=1e-9, atol=1e-10)
    assert values[0] == pytest.approx(exact.item(), rel=1e-9)


def test_the_evidence_of_discrete_z_lies_above_its_elbo_by_the_kl(bits):
    vae, x = bits
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
    with torch.no_grad():
        log_joint = vae.prior().log_prob(states)[:, None] + vae.decode(
            states[:, None].expand(-1, len(x), -1)
        ).log_prob(x)
        log_q = vae.approximate_posterior(x).log_prob(states[:, None])
        evidence = log_joint.logsumexp(0)
        kl = (log_q.exp() * (log_q - (log_joint - evidence))).sum()
    _, values = draws("TraceEnum_ELBO", vae, x, batches=1, copies=1)
    assert values[0] + kl == pytest.approx(evidence.sum().item(), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_renyi_is_unbiased_for_its_own_bound(alpha):
    vae = VAE(
        3, 1, likelihood="Normal(scale=learned)", guide="Normal(scale=learned(0.7))",
        encoder=MLP([]), decoder=MLP([]), seed=6,
    ).double()  # fmt: skip
    x = torch.randn(2, 3).double()
    exact = renyi_by_quadrature(vae, x, alpha)
    gradients, values = draws(f"RenyiELBO(alpha={alpha}, num_particles=2)", vae, x)
    assert z_scores(gradients, gradient_of(exact, vae)).abs().max() < 5
    assert z_scores(values[:, None], exact.detach()).abs().max() < 5


@pytest.mark.slow
def test_importance_weighted_bounds_rise_to_the_evidence(linear):
    vae, x = linear
    head, scale = vae.likelihood.sources["loc"].head, vae.likelihood.sources["scale"](None)
    w = head.weight.detach()
    evidence = dist.MultivariateNormal(
        head(torch.full((2,), 0.3).double()).detach(),
        1.5**2 * w @ w.T + scale[0].detach() ** 2 * torch.eye(3).double(),
    )
    log_p = evidence.log_prob(x).sum()
    bounds = [exact_linear(vae, x).detach()]
    for k in (2, 10, 50):
        _, values = draws(f"RenyiELBO(alpha=0, num_particles={k})", vae, x, batches=20, copies=150)
        bounds.append(values.mean())
        assert values.mean() < log_p + 5 * values.std() / 20**0.5
    assert bounds == sorted(bounds)


@pytest.mark.slow
def test_an_estimator_switches_the_gradient_and_not_the_model(linear):
    vae, x = linear
    path, _ = draws("Trace_ELBO(gradient=pathwise)", vae, x, copies=32)
    score, _ = draws("Trace_ELBO(gradient=score)", vae, x, copies=32)
    assert score.var(0).sum() > 10 * path.var(0).sum()


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["decaying", "neural"])
def test_a_baseline_lowers_the_variance(baseline, bits):
    vae, x = bits
    many = x.repeat(50, 1)
    estimator = make_estimator(f"TraceGraph_ELBO(gradient=score, baseline={baseline})")
    guide = estimator.wrap(vae.guide, many)
    optim = torch.optim.Adam(estimator.network.parameters(), 0.05) if baseline == "neural" else None
    spread, elbo = {}, TraceGraph_ELBO(max_plate_nesting=1)
    for name, g, learning in (("with", guide, 60), ("without", ScoreFunction()(vae.guide), 0)):
        found = []
        for step in range(learning + 40):
            vae.zero_grad()
            elbo.loss_and_grads(vae.model, g, many)
            if optim is not None:
                optim.step()
                optim.zero_grad()
            if step >= learning:
                found.append(torch.cat([p.grad.flatten() for p in vae.encoder.parameters()]))
        spread[name] = torch.stack(found).var(0).sum()
    assert spread["with"] < 0.5 * spread["without"]


def test_a_running_mean_is_the_decaying_average_of_the_cost():
    mean = RunningMean(decay=0.75).double()
    cost = torch.tensor([1.0, 2.0, 6.0]).double()
    expected = 0.0
    for batch in (cost, cost[:2], cost + 1):  # a batch of another size does not break it
        ((batch - mean(batch).squeeze(-1)) ** 2).sum().backward()
        expected = 0.75 * expected + 0.25 * batch.mean()
        assert torch.allclose(mean.average, expected)


def test_pyros_own_decaying_baseline_breaks_on_another_batch_size(bits):
    vae, x = bits

    def guide(x):
        vae._register("encoder", "approximation")
        with pyro.plate("data", len(x)):
            infer = {"baseline": {"use_decaying_avg_baseline": True}}
            pyro.sample("z", vae.approximate_posterior(x), infer=infer)

    TraceGraph_ELBO().loss_and_grads(vae.model, guide, x)
    with pytest.raises((ValueError, RuntimeError)):
        TraceGraph_ELBO().loss_and_grads(vae.model, guide, x[:2])


def test_pyro_does_not_enumerate_a_product_and_the_handler_does(bits):
    vae, x = bits
    assert vae.approximate_posterior(x).has_enumerate_support is False
    marked = poutine.trace(Enumerate()(vae.guide)).get_trace(x).nodes["z"]
    assert marked["fn"].has_enumerate_support
    assert marked["fn"].enumerate_support(expand=False).shape == (16, 1, 4)
    assert marked["fn"].enumerate_support(expand=True).shape == (16, 3, 4)
    pyro.clear_param_store()
    big = VAE(6, 20, prior="Bernoulli", guide="Bernoulli").double()
    with pytest.raises(ValueError, match=r"2\^20 joint states, too many"):
        TraceEnum_ELBO(max_plate_nesting=1).loss(big.model, Enumerate()(big.guide), x)


def test_the_score_function_outlives_expand():
    hidden = NonReparameterized(dist.Normal(0.0, 1.0)).expand([5, 2]).to_event(1)
    assert not hidden.has_rsample
    assert hidden.sample().shape == (5, 2)
    with pytest.raises((AttributeError, NotImplementedError)):
        dist.Normal(torch.zeros(2), 1.0).to_event(1).has_rsample_(False)


@pytest.mark.slow
def test_handlers_serve_any_pyro_model():
    """Not only our VAE: a model with a global latent, by the score function."""
    data = torch.tensor([0.5, 1.5, 1.0])

    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=data)

    def guide():
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("mu", dist.Normal(loc, 0.5))

    score = ScoreFunction()(guide)
    assert not poutine.trace(score).get_trace().nodes["mu"]["fn"].has_rsample
    elbo = Trace_ELBO(num_particles=20, max_plate_nesting=1, vectorize_particles=True)
    svi = SVI(model, score, pyro.optim.Adam({"lr": 0.02}), elbo)
    for _ in range(300):
        svi.step()
    posterior_mean = data.sum() / (3 + 1 / 4)
    assert pyro.param("loc").item() == pytest.approx(posterior_mean.item(), abs=0.15)


def test_an_infinite_kl_is_refused():
    vae = VAE(6, 2, likelihood="Normal")

    def narrow(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(-torch.ones(len(x), 2), 1.0).to_event(1))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(torch.zeros(len(x), 2), 1.0).to_event(1))

    with pytest.raises(ValueError, match="the KL of Uniform and Uniform is infinite"):
        check_and_nest(make_estimator("TraceMeanField_ELBO"), model, narrow, torch.randn(3, 6))
    assert vae is not None


def test_why_renyi_refuses_the_score_function(linear):
    """At alpha = 0 Pyro's gradient of the guide is exactly zero, silently."""
    vae, x = linear
    elbo = RenyiELBO(alpha=0, num_particles=5, vectorize_particles=True, max_plate_nesting=1)
    elbo.loss_and_grads(vae.model, ScoreFunction()(vae.guide), x)
    guide = [
        p.grad for n, p in vae.named_parameters() if n.startswith(("encoder", "approximation"))
    ]
    assert all((g == 0).all() for g in guide)
    assert vae.likelihood.sources["loc"].head.weight.grad.abs().sum() > 0


def test_why_renyi_refuses_beta(linear):
    """A scale stays inside Pyro's logsumexp: weight 2 on all sites is not twice the bound."""
    vae, x = linear
    elbo = RenyiELBO(alpha=0, num_particles=500, vectorize_particles=True, max_plate_nesting=1)
    once = elbo.loss(vae.model, vae.guide, x)
    twice = elbo.loss(poutine.scale(vae.model, 2.0), poutine.scale(vae.guide, 2.0), x)
    assert abs(twice - 2 * once) > 0.5


def test_any_elbo_of_pyros_is_an_estimator():
    elbo = Trace_ELBO(num_particles=7)
    assert make_estimator(elbo).elbo is elbo
    assert str(make_estimator(elbo)) == "Trace_ELBO"


def test_a_baseline_is_one_network_of_the_estimator(bits):
    vae, x = bits
    estimator = make_estimator("TraceGraph_ELBO(gradient=score, baseline=neural)")
    guide = estimator.wrap(vae.guide, x)
    trace = poutine.trace(guide).get_trace(x)
    assert any(name.startswith("baseline") for name in trace.nodes)
    assert isinstance(Baseline(estimator.network), poutine.messenger.Messenger)
