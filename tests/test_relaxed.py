"""Relaxed gradients: each optimizes what it says, and is seen to be biased for the ELBO."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

import pyro_vae as pv
from helpers.gradients import (
    MANY,
    N,
    bit_model,
    copied,
    draws,
    exact_bits,
    gradient_of,
    spread,
    z_scores,
)
from pyro_vae import MLP, VAE, make_estimator
from pyro_vae.infer import (
    ESTIMATORS,
    Concrete,
    GappedStraightThrough,
    GumbelRao,
    GumbelStraightThrough,
    ReinMax,
    RelaxedTrace_ELBO,
    RelaxedTraceMeanField_ELBO,
    StraightThrough,
)
from pyro_vae.infer.engine.capture import capture
from pyro_vae.infer.estimators.relaxations import RELAXED
from pyro_vae.infer.estimators.relaxed import Bits, OneHots, Relaxed
from pyro_vae.infer.estimators.soundness import check_and_nest

BOUNDS = ["Trace_ELBO", "TraceMeanField_ELBO"]
RULES = [
    "concrete, temperature=0.5", "straight_through", "st_gumbel, temperature=0.5", "reinmax",
    "gumbel_rao, temperature=0.5", "gapped, temperature=0.5",
]  # fmt: skip
LINES = [f"{bound}(gradient={rule})" for bound in BOUNDS for rule in RULES]
ELBOS = {Trace_ELBO: RelaxedTrace_ELBO, TraceMeanField_ELBO: RelaxedTraceMeanField_ELBO}


def relative_bias(gradients, wanted):
    return ((gradients.mean(0) - wanted).norm() / wanted.norm()).item()


# Biased for the ELBO, and how.


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, n",
    [(line, (1, 4, 10)[(i + i // len(RULES)) % 3]) for i, line in enumerate(LINES)],
)  # every bound and every rule at several sizes
def test_it_is_seen_to_be_biased(line, n):
    vae, x = bit_model(n)
    exact = exact_bits(vae, x)
    gradients, values = draws(line, vae, x, copies=MANY)
    wanted = gradient_of(exact, vae)
    assert z_scores(gradients, wanted).abs().max() > 10
    assert 1e-3 < relative_bias(gradients, wanted) < 0.5
    assert ((gradients != 0).any(0) == (wanted != 0)).all()
    if "concrete" not in line:  # discrete draws: the loss is the ELBO's
        assert z_scores(values[:, None], exact.detach()).abs().item() < 5


@pytest.mark.slow
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_lower_temperature_trades_bias_for_variance(bound):
    vae, x = bit_model(4)
    wanted = gradient_of(exact_bits(vae, x), vae)
    bias, variance = [], []
    for temperature in (1.0, 0.5, 0.25, 0.1):
        line = f"{bound}(gradient=concrete, temperature={temperature})"
        gradients, _ = draws(line, vae, x, copies=MANY)
        bias.append(relative_bias(gradients, wanted))
        variance.append(gradients.var(0).sum().item())
    assert variance == sorted(variance)
    assert variance[-1] > 3 * variance[0]
    assert bias == sorted(bias, reverse=True)
    assert bias[-1] < 0.25 * bias[0]


@pytest.mark.slow
def test_a_lower_temperature_leaves_hard_draws_biased():
    """Their slope is taken at the corners, the exact difference is between them."""
    vae, x = bit_model(4)
    wanted = gradient_of(exact_bits(vae, x), vae)
    line = "TraceMeanField_ELBO(gradient=st_gumbel, temperature={})"
    near, far = (draws(line.format(t), vae, x, copies=MANY)[0] for t in (0.05, 0.5))
    assert relative_bias(near, wanted) > 0.5 * relative_bias(far, wanted)
    assert z_scores(near, wanted).abs().max() > 10


@pytest.mark.slow
def test_comparing_shows_the_bias():
    vae, x = bit_model(4)
    lines = [*LINES[:6:2], *LINES[7::2]]  # each rule, with one of the bounds
    found = pv.compare_estimators(vae, x.repeat(200, 1), [*lines, "RLOO"], num_draws=50)
    z = found.bias_z.sel(parameter="all").to_series()
    assert (z[:-1] > 10).all()
    assert abs(z["RLOO"]) < 5
    assert (found.bound == "ELBO").all()
    assert (found.evaluations[:-1] == 1).all()


def test_the_table_marks_what_is_biased():
    for name, row in ESTIMATORS.items():
        assert set(row.biased) <= set(row.gradients)
        assert set(row.biased) >= set(RELAXED) & set(row.gradients)
        assert ("relaxed: biased" in row.note) == bool(set(row.biased) & set(RELAXED))
        for gradient in row.gradients:
            biased = make_estimator(f"{name}(gradient={gradient})").biased
            assert biased == (gradient in row.biased)


# What each optimizes, on one bit: f(b) = (b - t)^2 or c b, prior and guide apart or alike.


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def one_bit(phi, theta, cost):
    start = number(phi)

    def model():
        with pyro.plate("copies", N):
            b = pyro.sample("b", dist.Bernoulli(logits=number(theta)))
            pyro.factor("cost", cost(b))

    def guide():
        logits = pyro.param("p", lambda: start.repeat(N))
        with pyro.plate("copies", N):
            pyro.sample("b", dist.Bernoulli(logits=logits))

    return model, guide


def close(sample, wanted):
    error = spread(sample)[0].div(len(sample)).sqrt()
    assert abs(sample.mean() - wanted) < 5 * error + 1e-12
    assert (sample != 0).any()


@pytest.mark.parametrize("bound", ELBOS)
@pytest.mark.parametrize("phi, theta", [(0.8, 0.8), (-0.5, 0.4)])
def test_straight_through_is_right_for_what_is_linear(bound, phi, theta):
    """The KL term is: only a cost that is not linear in b is biased, and by how much is known."""
    p = number(phi).sigmoid()
    slope, elbo = p * (1 - p), ELBOS[bound](rule=StraightThrough())
    linear = copied(elbo, *one_bit(phi, theta, lambda b: 3 * b))
    close(linear, slope * (3 + theta - phi))
    if bound is TraceMeanField_ELBO:
        assert linear.std() < 1e-12  # nothing is left to chance
    t = 0.3
    square = copied(elbo, *one_bit(phi, theta, lambda b: (b - t) ** 2))
    close(square, slope * (2 * (p - t) + theta - phi))  # the exact one has 1 - 2 t for 2 (p - t)


@pytest.mark.slow
@pytest.mark.parametrize("bound", ELBOS)
@pytest.mark.parametrize("rule", [Concrete, GumbelStraightThrough])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_the_gradient_is_that_of_its_definition(rule, temperature, bound):
    """By quadrature over the noise: for Concrete, of the relaxed objective."""
    phi, theta, t = -0.5, 0.4, 0.3
    u = (torch.arange(2**18, dtype=torch.float64) + 0.5) / 2**18
    q = number(phi).requires_grad_()
    scores = q + u.logit()
    z = (scores / temperature).sigmoid()
    value = z if rule is Concrete else (scores > 0).double() + z - z.detach()
    cost = ((value - t) ** 2).mean()
    if bound is Trace_ELBO:
        log_q, log_p = (value * a - a.exp().log1p() for a in (q, number(theta)))
        kl = (log_q - log_p).mean()
    else:
        kl = dist.kl.kl_divergence(dist.Bernoulli(logits=q), dist.Bernoulli(logits=number(theta)))
    (wanted,) = torch.autograd.grad(cost - kl, q)
    elbo = ELBOS[bound](rule=rule(temperature))
    model, guide = one_bit(phi, theta, lambda b: (b - t) ** 2)
    close(copied(elbo, model, guide), wanted)
    values = number([-elbo.loss(model, guide) / N for _ in range(10)])
    assert z_scores(values[:, None], (cost - kl).detach()).abs() < 5


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_more_particles_are_a_mean(line):
    vae, x = bit_model(4)
    one, _ = draws(line, vae, x, copies=160)
    three, _ = draws(line.replace(")", ", num_particles=3)"), vae, x, copies=160)
    error = ((one.var(0) + three.var(0)) / len(one)).sqrt()
    assert ((one.mean(0) - three.mean(0)) / error.clamp(min=1e-12)).abs().max() < 5
    assert three.var(0).sum() < 0.6 * one.var(0).sum()


# Straight-through rules of smaller bias or variance.


@pytest.mark.parametrize("phi, t", [(-0.5, 0.3), (1.2, 0.8)])
def test_reinmax_is_exact_for_a_quadratic(phi, t):
    """Where straight-through is not: the trapezoidal rule takes (b - t)^2 for what it is."""
    p, theta = number(phi).sigmoid(), 0.4
    wanted = p * (1 - p) * (1 - 2 * t + theta - phi)
    model, guide = one_bit(phi, theta, lambda b: (b - t) ** 2)
    close(copied(RelaxedTrace_ELBO(ReinMax()), model, guide), wanted)


@pytest.mark.parametrize("phi", [-1.5, 0.4])
def test_gapped_straight_through_is_its_definition(phi):
    """By the two values of a bit, with the cost b^3: the path's slope is at a moved logit."""
    model, guide = one_bit(phi, phi, lambda b: b**3)
    found = copied(RelaxedTrace_ELBO(GappedStraightThrough(0.7)), model, guide)
    p = number(phi).sigmoid()
    at = (number(max(phi, 1.0)) / 0.7).sigmoid()  # where it is 1; where it is 0 the slope is 0
    close(found, p * 3 * at * (1 - at) / 0.7)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bits", "one-hot"])
def test_gumbel_rao_has_the_mean_of_st_gumbel_and_less_variance(family):
    vae, x = bit_model(4) if family == "bits" else one_hot_model()
    line = "Trace_ELBO(gradient={}, temperature=0.1)"
    one, two = (
        draws(line.format(r), vae, x, batches=100, copies=60)[0]
        for r in ("st_gumbel", "gumbel_rao")
    )
    error = ((one.var(0) + two.var(0)) / len(one)).sqrt()
    assert ((one.mean(0) - two.mean(0)) / error.clamp(min=1e-12)).abs().max() < 5
    assert two.var(0).sum() < 0.8 * one.var(0).sum()


@pytest.mark.parametrize("kind", [Bits, OneHots])
def test_noise_given_a_draw_gives_that_draw(kind):
    """And over the draws it has the law of the noise: compared by the mean of its exponential."""
    logits = number([0.4, -1.2, 0.1]).log_softmax(-1).expand(N, 3)
    hard = kind.hard(logits + kind.noise(logits))
    noise = kind.noise_given(logits, hard)
    assert torch.equal(kind.hard(logits + noise), hard)
    for f in (lambda g: (-g.abs()).exp(), lambda g: g.clamp(-1, 1)):
        a, b = f(noise), f(kind.noise(logits))
        error = ((a.var(0) + b.var(0)) / N).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 5 * error).all()


@pytest.mark.slow
def test_bias_of_straight_through_rules_against_enumeration():
    """On 8^4 states, at a temperature of 1: ReinMax's is the smallest, in the mean of its draws."""
    pyro.set_rng_seed(0)
    vae = VAE(
        6, (4, 8), prior="OneHotCategorical(logits=learned)", guide="OneHotCategorical",
        encoder=MLP([5], activation="Tanh"), decoder=MLP([16], activation="Tanh"), seed=3,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(torch.randn_like(p) * 0.7)
    x = torch.rand(3, 6).lt(0.5).double()
    exact, value = draws("TraceEnum_ELBO", vae, x, batches=1, copies=1)
    bias = {}
    for rule in ("straight_through", "st_gumbel", "gumbel_rao", "gapped", "reinmax"):
        at = "" if rule in ("straight_through", "reinmax") else ", temperature=1.0"
        gradients, values = draws(f"Trace_ELBO(gradient={rule}{at})", vae, x, copies=MANY)
        bias[rule] = relative_bias(gradients, exact[0])
        assert z_scores(values[:, None], value).abs().item() < 5
        noise = (gradients.var(0) / len(gradients)).sum().sqrt() / exact[0].norm()
        assert noise < 0.05
    assert bias["reinmax"] < 0.6 * min(bias[r] for r in bias if r != "reinmax"), bias


# One-hot sites.


def one_hot_model():
    pyro.set_rng_seed(0)
    vae = VAE(
        6, (2, 3), prior="OneHotCategorical(logits=learned)", guide="OneHotCategorical",
        encoder=MLP([5], activation="Tanh"), decoder=MLP([5], activation="Tanh"), seed=3,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(torch.randn_like(p) * 0.7)
    return vae, torch.rand(3, 6).lt(0.5).double()


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_one_hot_sites(line):
    vae, x = one_hot_model()
    exact, value = draws("TraceEnum_ELBO", vae, x, batches=1, copies=1)
    gradients, values = draws(line, vae, x, copies=MANY)
    assert z_scores(gradients, exact[0]).abs().max() > 10
    assert relative_bias(gradients, exact[0]) < 0.3
    live = exact[0].abs() > 1e-12  # up to rounding: logits have one degree of freedom too many
    assert (gradients[:, live] != 0).any(0).all()
    if "concrete" not in line:
        assert z_scores(values[:, None], value).abs().item() < 5


@pytest.mark.parametrize("bound", ELBOS)
def test_a_one_hot_prior_passes_the_gradient_on(bound):
    """Pyro's log mass of a one-hot draw has no gradient in it: the prior's part would be lost."""
    start = torch.tensor([[0.3, -0.2, 0.9], [-1.0, 0.4, 0.1]]).double()
    prior = torch.tensor([[1.0, 0.0, -0.5], [0.2, 0.2, -0.7]]).double()

    def model():
        with pyro.plate("copies", N // 10):
            pyro.sample("z", dist.OneHotCategorical(logits=prior).to_event(1))

    def guide():
        p = pyro.param("p", lambda: start.repeat(N // 10, 1, 1))
        with pyro.plate("copies", N // 10):
            pyro.sample("z", dist.OneHotCategorical(logits=p).to_event(1))

    q = start.clone().requires_grad_()
    kl = dist.kl.kl_divergence(
        dist.OneHotCategorical(logits=q), dist.OneHotCategorical(logits=prior)
    )
    (wanted,) = torch.autograd.grad(-kl.sum(), q)
    sample = copied(ELBOS[bound](rule=StraightThrough()), model, guide)
    for i in range(2):
        for k in range(3):
            close(sample[:, i, k], wanted[i, k])


def test_draws_follow_the_family():
    logits = torch.tensor([0.4, -1.2, 0.1]).double().log_softmax(-1).expand(N, 3)
    share = OneHots.hard(logits + OneHots.noise(logits)).mean(0)
    assert ((share - logits[0].exp()).abs() < 5 * (share * (1 - share) / N).sqrt()).all()
    bits = Bits.hard(logits + Bits.noise(logits)).mean(0)
    p = logits[0].sigmoid()
    assert ((bits - p).abs() < 5 * (p * (1 - p) / N).sqrt()).all()


def test_draws_of_each_rule():
    for base, shape in (
        (dist.Bernoulli(logits=torch.randn(4, 3)).to_event(1), (4, 3)),
        (dist.OneHotCategorical(logits=torch.randn(4, 2, 3)).to_event(1), (4, 2, 3)),
        (dist.Bernoulli(logits=torch.randn(1, 3)).expand([4, 3]).to_event(1), (4, 3)),
    ):
        for rule in (
            Concrete(0.7), StraightThrough(), GumbelStraightThrough(0.7), ReinMax(),
            GumbelRao(0.7), GappedStraightThrough(0.7),
        ):  # fmt: skip
            q = Relaxed(base, rule.draw)
            assert q.rsample().shape == shape
            assert q.expand(torch.Size([5, 4])).rsample().shape == (5, *shape)
            z = q.rsample(torch.Size([5]))
            hard = ((z == 0) | (z == 1)).all()
            assert hard == (type(rule) is not Concrete)
            assert ((z >= 0) & (z <= 1)).all()
            if hard:
                assert torch.allclose(q.log_prob(z), base.log_prob(z), atol=1e-5)
            if base.event_shape[-1:] == (3,) and len(shape) == 3:
                assert torch.allclose(z.sum(-1), torch.ones(()))


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1e-3, 1e-2, 100.0])
def test_it_is_finite_at_any_temperature(temperature):
    vae, x = bit_model(4)
    vae, x = vae.float(), x.float()
    for rule in ("concrete", "st_gumbel", "gumbel_rao", "gapped"):
        line = f"Trace_ELBO(gradient={rule}, temperature={temperature})"
        gradients, values = draws(line, vae, x, batches=5)
        assert gradients.isfinite().all()
        assert values.isfinite().all()


# Training.


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, family",
    [(line, ("Bernoulli", "OneHotCategorical")[(i + i // len(RULES)) % 2])
     for i, line in enumerate(LINES)],
)  # fmt: skip
def test_it_trains(line, family):
    size = 3 if family == "Bernoulli" else (2, 3)
    vae = VAE(6, size, prior=family, guide=family, encoder=MLP([16]), decoder=MLP([16]), seed=1)
    x = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).repeat(100, 1)
    before = pv.elbo(vae, x, num_samples=20).mean()
    pv.fit(vae, x, estimator=line, epochs=16, batch_size=20, lr=2e-2, progress=False)
    assert pv.elbo(vae, x, num_samples=20).mean() > before + 1


@pytest.mark.parametrize("at", ["'exponential(1, 0.25)'", "exponential(1, 0.25)"])
def test_the_temperature_follows_its_schedule(at):
    vae = VAE(6, 3, prior="Bernoulli", guide="Bernoulli", encoder=MLP([8]), decoder=MLP([8]))
    estimator = make_estimator(f"Trace_ELBO(gradient=concrete, temperature={at})")
    assert estimator.rule.temperature == 1
    seen = []
    fill = estimator.annealing(4)
    for t in (0.0, 2.0, 4.0):
        fill(t)
        seen.append(estimator.rule.temperature.item())
    assert seen == pytest.approx([1, 0.5, 0.25])
    pv.fit(vae, torch.ones(4, 6), estimator=estimator, epochs=4, batch_size=2, progress=False)
    assert estimator.rule.temperature.item() == pytest.approx(0.25 ** (3.5 / 4))


@pytest.mark.slow
def test_a_captured_step_reads_the_temperature():
    vae, x = bit_model(4)
    estimator = make_estimator("Trace_ELBO(gradient=concrete)")
    check_and_nest(estimator, vae.model, vae.guide, x)
    graph = capture(estimator.elbo, vae.model, vae.guide, x)
    assert any(tensor is estimator.rule.temperature for tensor in graph.live)
    found = []
    for temperature in (0.5, 0.05):
        estimator.rule.temperature.fill_(temperature)
        pyro.set_rng_seed(1)
        vae.zero_grad()
        with pyro.validation_enabled(False):
            loss = estimator.elbo.loss_and_grads(vae.model, vae.guide, x)
        pyro.set_rng_seed(1)
        with torch.no_grad():
            captured, *gradients = graph.module(*graph.inputs, *graph.live)
        assert captured.item() == pytest.approx(loss)
        for p, g in zip(graph.parameters.values(), gradients, strict=True):
            assert torch.allclose(p.grad, g, atol=1e-12)
        found.append(loss)
    assert found[0] != found[1]


def test_the_model_and_guide_are_left_as_they_were():
    vae, x = bit_model(4)
    draws("Trace_ELBO(gradient=concrete)", vae, x, batches=1)
    z = poutine.trace(vae.guide).get_trace(x).nodes["z"]
    assert not isinstance(z["fn"], Relaxed)
    assert ((z["value"] == 0) | (z["value"] == 1)).all()


@pytest.mark.slow
def test_handlers_serve_any_pyro_model():
    """A bit and a normal variable, by stock SVI: the normal site keeps its own path."""
    x = torch.tensor(1.5)

    def model():
        b = pyro.sample("b", dist.Bernoulli(0.5))
        m = pyro.sample("m", dist.Normal(0.0, 0.3))
        pyro.sample("x", dist.Normal(2 * b + m, 0.5), obs=x)

    def guide():
        logits = pyro.param("logits", torch.tensor(0.0))
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("b", dist.Bernoulli(logits=logits))
        pyro.sample("m", dist.Normal(loc, 0.25))

    rule = Concrete(0.2)
    svi = SVI(
        rule(model), rule(guide), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(20, 0, None, True)
    )
    with pyro.validation_enabled(True):
        for _ in range(400):
            svi.step()
    assert pyro.param("logits") > 1
    assert -0.25 < pyro.param("loc") < 0.0


# What is unsound is refused.

UNSERVED = {
    "Normal": "this guide's gradients are pathwise already: use Trace_ELBO.gradient=pathwise",
    "Poisson": "are Bernoulli or OneHotCategorical, which Poisson at site 'z' is not: use RLOO",
    "Categorical(categories=3)": "which Categorical at site 'z' is not.*or OneHotCategorical",
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RELAXED)
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("family", UNSERVED)
def test_it_says_which_guides_it_cannot_serve(family, bound, rule):
    vae = VAE(6, 2, prior=family, guide=family, likelihood="Normal")
    with pytest.raises(ValueError, match=UNSERVED[family]):
        check_and_nest(
            make_estimator(f"{bound}(gradient={rule})"), vae.model, vae.guide, torch.randn(3, 6)
        )


def test_an_elbo_object_is_known_for_its_rule():
    vae, x = bit_model(4)
    for name, made in RELAXED.items():
        estimator = make_estimator(RelaxedTraceMeanField_ELBO(rule=made()))
        assert estimator.gradient == name
        assert estimator.biased
        check_and_nest(estimator, vae.model, vae.guide, x)
