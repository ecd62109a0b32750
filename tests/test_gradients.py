"""The gradient rules that Pyro lacks, against exact gradients and closed-form variances."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO

import pyro_vae as pv
from helpers.gradients import (
    MANY,
    N,
    bernoulli_toy,
    bit_model,
    copied,
    covering,
    draws,
    exact_bits,
    exact_linear,
    gradient_of,
    iwae_by_enumeration,
    renyi_by_quadrature,
    right,
    right_in_plates,
    spread,
    toy_variances,
    z_scores,
)
from pyro_vae import MLP, VAE, make_estimator
from pyro_vae.infer import (
    ARM,
    RLOO,
    VIMCO,
    DisARM,
    DReG,
    ScoreFunction,
    StickingTheLanding,
)
from pyro_vae.infer.estimators.handlers import PathOnly
from pyro_vae.infer.estimators.soundness import check_and_nest

OF_BITS = [
    "RLOO(num_particles=2)", "RLOO(num_particles=5)",
    "ARM", "ARM(num_particles=3)", "DisARM", "DisARM(num_particles=3)",
]  # fmt: skip
OF_NORMALS = [
    "Trace_ELBO(gradient=stl)", "Trace_ELBO(gradient=stl, num_particles=3)",
    "RLOO(num_particles=2)", "RLOO(num_particles=5)",
]  # fmt: skip


# The ELBO.


@pytest.mark.slow
@pytest.mark.parametrize("line, n, beta", covering(OF_BITS))
def test_unbiased_for_bits(line, n, beta):
    vae, x = bit_model(n)
    right(*draws(line, vae, x, beta, copies=MANY), exact_bits(vae, x, beta), vae)


@pytest.mark.parametrize(
    "line, beta", [*((line, 0.25) for line in OF_NORMALS), (OF_NORMALS[0], 1.0)]
)
@pytest.mark.slow
def test_unbiased_for_normals(line, beta, linear):
    vae, x = linear
    copies = MANY // make_estimator(line).elbo.num_particles
    right(*draws(line, vae, x, beta, copies=copies), exact_linear(vae, x, beta), vae)


# Importance-weighted bounds.


@pytest.fixture
def small():
    """A linear Gaussian model with one z, whose two-particle bound is a double integral."""
    vae = VAE(
        3, 1, likelihood="Normal(scale=learned)", guide="Normal(scale=learned(0.7))",
        encoder=MLP([]), decoder=MLP([]), seed=6,
    ).double()  # fmt: skip
    return vae, torch.randn(2, 3).double()


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3])
def test_vimco_is_unbiased_for_bits(k, bits):
    vae, x = bits
    right(*draws(f"VIMCO(num_particles={k})", vae, x), iwae_by_enumeration(vae, x, k), vae)


@pytest.mark.slow
def test_sticking_the_landing_is_biased_for_the_importance_weighted_bound(small):
    """Why RenyiELBO refuses it: on the same model, its mean is off where DReG's is right."""
    vae, x = small
    wanted = gradient_of(renyi_by_quadrature(vae, x, 0.0), vae)
    many, found = x.repeat(100, 1), []
    elbo = RenyiELBO(alpha=0, num_particles=2, vectorize_particles=True, max_plate_nesting=1)
    for _ in range(60):
        vae.zero_grad()
        elbo.loss_and_grads(vae.model, StickingTheLanding()(vae.guide), many)
        found.append(torch.cat([-p.grad.flatten() for p in vae.parameters()]) / 100)
    assert z_scores(torch.stack(found), wanted).abs().max() > 10


def test_one_doubly_reparameterized_particle_is_sticking_the_landing(linear):
    vae, x = linear
    found = []
    for line in ("DReG(num_particles=1)", "Trace_ELBO(gradient=stl)"):
        pyro.set_rng_seed(3)
        found.append(draws(line, vae, x, batches=3, copies=2))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-9, atol=1e-12)
    assert torch.allclose(found[0][1], found[1][1])


def layers(n, k):
    """A guide of two sites, the second given the first, and n copies of its parameters."""
    x = torch.tensor(0.7).double()

    def model():
        with pyro.plate("copies", n):
            first = pyro.sample("z1", dist.Normal(x * 0, 1.0))
            second = pyro.sample("z2", dist.Normal(first, 1.0))
            pyro.sample("x", dist.Normal(second, 1.0), obs=x.expand(n))

    def guide():
        p = pyro.param("p", lambda: torch.tensor([0.3, -0.2, 0.4, 0.5, 0.1]).double().repeat(n, 1))
        with pyro.plate("copies", n):
            first = pyro.sample("z1", dist.Normal(p[:, 0], p[:, 1].exp()))
            loc = p[:, 2] * first + p[:, 3]
            pyro.sample("z2", dist.Normal(loc, (p[:, 4] + 0.2 * first).exp()))

    return model, guide


@pytest.mark.slow
def test_a_guide_of_several_sites_is_doubly_reparameterized():
    model, guide = layers(100_000, 3)
    renyi = RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    standard, double = copied(renyi, model, guide), copied(DReG(3), model, guide)
    error = ((standard.var(0) + double.var(0)) / len(double)).sqrt()
    assert ((standard.mean(0) - double.mean(0)) / error).abs().max() < 5
    assert (double.mean(0) / (double.var(0) / len(double)).sqrt()).abs().max() > 20
    path, score = (copied(Trace_ELBO(), model, g) for g in (guide, ScoreFunction()(guide)))
    stl = copied(Trace_ELBO(), model, StickingTheLanding()(guide))
    for other in (score, stl, copied(DReG(1), model, guide), copied(RLOO(2), model, guide)):
        error = ((path.var(0) + other.var(0)) / len(path)).sqrt()
        assert ((path.mean(0) - other.mean(0)) / error).abs().max() < 5


def test_the_landing_is_stuck_at_the_posterior():
    """Where q is the posterior the gradient of the guide is zero in every draw."""
    x = torch.tensor([0.7], dtype=torch.float64)

    def model():
        with pyro.plate("data", 1):
            first = pyro.sample("z1", dist.Normal(x * 0, 1.0))
            second = pyro.sample("z2", dist.Normal(first, 1.0))
            pyro.sample("x", dist.Normal(second, 1.0), obs=x)

    # z1 | x ~ N(x / 3, 2 / 3), z2 | z1, x ~ N((z1 + x) / 2, 1 / 2)
    start = torch.tensor(
        [0.7 / 3, math.log(2 / 3) / 2, 0.5, 0.35, math.log(1 / 2) / 2], dtype=torch.float64
    )

    def guide():
        p = pyro.param("p", lambda: start)
        with pyro.plate("data", 1):
            first = pyro.sample("z1", dist.Normal(p[0].expand(1), p[1].exp()))
            pyro.sample("z2", dist.Normal(p[2] * first + p[3], p[4].exp()))

    for k in (1, 5):
        gradient = copied(DReG(k), model, guide)
        assert gradient.abs().max() < 1e-12
    assert copied(Trace_ELBO(), model, guide).abs().max() > 1e-2

    def one():
        with pyro.plate("data", 1):
            z = pyro.sample("z", dist.Normal(x * 0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def posterior():
        p = pyro.param("p", lambda: torch.tensor([0.35, math.log(1 / 2) / 2], dtype=torch.float64))
        with pyro.plate("data", 1):
            pyro.sample("z", dist.Normal(p[0].expand(1), p[1].exp()))

    assert copied(Trace_ELBO(), one, StickingTheLanding()(posterior)).abs().max() < 1e-12
    assert copied(Trace_ELBO(), one, posterior).abs().max() > 1e-2


# Sticking the landing for any family.


def positive(*shape):
    return (torch.rand(*shape).double() + 0.5).requires_grad_()


def triangular():
    return (torch.rand(4, 3, 3).double().tril(-1) + torch.eye(3).double()).requires_grad_()


def network():
    """A transform whose parameters sit in a module, out of a copy's reach."""
    torch.manual_seed(1)
    flow = dist.transforms.affine_autoregressive(3, hidden_dims=[5])
    base = dist.Normal(torch.zeros(4, 3), 1.0).to_event(1)
    return dist.TransformedDistribution(base, [flow]), list(flow.parameters())


FAMILIES = {
    "Normal": (dist.Normal, lambda: (positive(4, 3), positive(4, 3))),
    "Laplace": (dist.Laplace, lambda: (positive(4, 3), positive(4, 3))),
    "StudentT": (dist.StudentT, lambda: (positive(4, 3), positive(4, 3), positive(4, 3))),
    "Gamma": (dist.Gamma, lambda: (positive(4, 3), positive(4, 3))),
    "Beta": (dist.Beta, lambda: (positive(4, 3), positive(4, 3))),
    "Weibull": (dist.Weibull, lambda: (positive(4, 3), positive(4, 3))),
    "Kumaraswamy": (dist.Kumaraswamy, lambda: (positive(4, 3), positive(4, 3))),
    "LogNormal": (dist.LogNormal, lambda: (positive(4, 3), positive(4, 3))),
    "Gumbel": (dist.Gumbel, lambda: (positive(4, 3), positive(4, 3))),
    "Dirichlet": (dist.Dirichlet, lambda: (positive(4, 3),)),
    "MultivariateNormal": (
        lambda loc, scale: dist.MultivariateNormal(loc, scale_tril=scale),
        lambda: (positive(4, 3), triangular()),
    ),
}


@pytest.mark.parametrize("name", [*FAMILIES, "flow"])
def test_the_density_keeps_its_path_and_nothing_else(name):
    if name == "flow":
        q, parameters = network()
    else:
        family, parameters = FAMILIES[name][0], FAMILIES[name][1]()
        q = family(*parameters)
        q = q.to_event(1 - q.event_dim)
    site = PathOnly(q).expand([5, 4]).to_event(0)
    z = site.rsample()
    assert z.shape == (5, 4, 3)
    assert torch.allclose(site.log_prob(z), q.log_prob(z.detach()))
    assert not site.log_prob(z.detach()).requires_grad
    leaf = z.detach().requires_grad_()
    wanted = torch.autograd.grad(q.log_prob(leaf).sum(), leaf)[0]
    assert torch.allclose(torch.autograd.grad(site.log_prob(leaf).sum(), leaf)[0], wanted)
    path = torch.autograd.grad((z * wanted).sum(), parameters, retain_graph=True)
    found = torch.autograd.grad(site.log_prob(z).sum(), parameters, retain_graph=True)
    assert sum(g.abs().sum() for g in found) > 0
    for a, b in zip(found, path, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)  # the flow is in single precision
    with torch.no_grad():
        assert torch.allclose(site.log_prob(z), q.log_prob(z))


# Variances in closed form: n copies of a parameter give n draws of the gradient in one pass.


@pytest.mark.slow
@pytest.mark.parametrize("t", [0.45, 0.1])
@pytest.mark.parametrize("p", [0.5, 0.3, 0.9])
@pytest.mark.parametrize("line", toy_variances(0.5, 0.45))
def test_variance_of_the_bernoulli_toy(line, p, t):
    wanted = toy_variances(p, t)[line]
    estimator, (model, guide) = make_estimator(line), bernoulli_toy(p, t)
    sample = copied(estimator.elbo, model, guide)
    exact = (1 - 2 * t) * p * (1 - p)
    variance, error = spread(sample)
    assert abs(sample.mean() - exact) < 5 * (variance / N).sqrt() + 1e-12
    assert abs(variance - wanted) < 5 * error + 1e-15
    if (line, p) == ("DisARM", 0.5):
        assert wanted == 0


@pytest.mark.slow
def test_antithetic_pairs_divide_the_variance(bits):
    """DisARM < ARM, and DisARM < RLOO(2), which has as many evaluations (Dong et al. 2020)."""
    vae, x = bits
    guide = [n.startswith(("encoder", "approximation")) for n, _ in vae.named_parameters()]
    guide = torch.cat(
        [torch.full((p.numel(),), g) for g, p in zip(guide, vae.parameters(), strict=True)]
    )
    trace = {}
    for line in ("Trace_ELBO(gradient=score)", "RLOO(num_particles=2)", "ARM", "DisARM"):
        gradients, _ = draws(line, vae, x, batches=80, copies=20)
        trace[line] = gradients[:, guide].var(0).sum().item()
    reinforce, rloo, arm, disarm = trace.values()
    assert disarm < 0.9 * arm
    assert disarm < 0.9 * rloo
    assert max(rloo, arm) < 0.5 * reinforce


@pytest.mark.parametrize("parameter", ["loc", "scale"])
@pytest.mark.parametrize("d", [0.0, 1.5])
def test_variance_of_gaussian_costs(parameter, d):
    """E[(z - k)^2] under Normal(k + d, s): pathwise and score function (Mohamed et al. 2020)."""
    k, s = 0.3, 0.8
    start = torch.tensor([k + d, s]).double()
    known = {
        ("pathwise", "loc"): 4 * s**2,
        ("pathwise", "scale"): 4 * d**2 + 8 * s**2,
        ("score", "loc"): d**4 / s**2 + 14 * d**2 + 15 * s**2,
        ("score", "scale"): 2 * d**4 / s**2 + 60 * d**2 + 74 * s**2,
    }

    def model():
        with pyro.plate("copies", N):
            z = pyro.sample("z", dist.Normal(*start))
            pyro.factor("cost", (z - k) ** 2)

    def guide():
        p = pyro.param("p", lambda: start.repeat(N, 1))
        with pyro.plate("copies", N):
            pyro.sample("z", dist.Normal(p[:, 0], p[:, 1]))

    exact = {"loc": 2 * d, "scale": 2 * s}[parameter]
    # the prior is q, so along the path log p(z) cancels log q(z) once its parameters are fixed
    for rule, wrapped in (
        ("pathwise", StickingTheLanding()(guide)),
        ("score", ScoreFunction()(guide)),
    ):
        sample = copied(Trace_ELBO(), model, wrapped)[:, int(parameter == "scale")]
        variance, error = spread(sample)
        assert abs(sample.mean() - exact) < 5 * (variance / N).sqrt()
        assert abs(variance - known[rule, parameter]) < 5 * error


@pytest.mark.slow
def test_signal_to_noise_over_particles():
    """Slopes over K: -1/2 for the guide's standard gradient, +1/2 for DReG's and the model's."""
    x, n = torch.tensor([0.5, -1.0, 1.5]).double(), 10_000
    ks = torch.tensor([4, 16, 64])

    def model():
        mu = pyro.param("mu", lambda: torch.full((n, 3), 0.3).double())
        with pyro.plate("copies", n):
            z = pyro.sample("z", dist.Normal(mu, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x.expand(n, 3))

    def guide():
        p = pyro.param("p", lambda: (x / 2 + 0.3).repeat(n, 1))
        with pyro.plate("copies", n):
            pyro.sample("z", dist.Normal(p, 0.8).to_event(1))

    def slope(sample, mean):
        logs = torch.stack(
            [(m.mean(0).abs() / g.std(0)).log().mean() for g, m in zip(sample, mean, strict=True)]
        )
        steps = ks.log() - ks.log().mean()
        return ((steps * logs).sum() / steps.square().sum()).item()

    standard, double, prior = [], [], []
    for k in ks.tolist():
        renyi = RenyiELBO(alpha=0, num_particles=k, vectorize_particles=True, max_plate_nesting=1)
        standard.append(copied(renyi, model, guide))
        double.append(copied(DReG(k, max_plate_nesting=1), model, guide))
        prior.append(copied(DReG(k, max_plate_nesting=1), model, guide, "mu"))
    for a, b in zip(standard, double, strict=True):
        error = ((a.var(0) + b.var(0)) / n).sqrt()
        assert ((a.mean(0) - b.mean(0)) / error).abs().max() < 5
    # both are of one bound, so DReG's mean, of less noise, stands for the standard one's; at these
    # K the laws hold up to terms of order 1/K
    assert slope(standard, double) == pytest.approx(-0.5, abs=0.07)
    assert slope(double, double) == pytest.approx(0.5, abs=0.07)
    assert slope(prior, prior) == pytest.approx(0.5, abs=0.07)


# Sites in different plates, and scales.


@pytest.mark.slow
@pytest.mark.parametrize(
    "elbo", [ARM(), DisARM(2), RLOO(2), VIMCO(2)], ids=["ARM", "DisARM", "RLOO", "VIMCO"]
)
def test_unbiased_with_sites_in_different_plates(elbo, plates):
    right_in_plates(elbo, plates, 2 if isinstance(elbo, VIMCO) else 1)


@pytest.mark.parametrize("line", ["VIMCO", "DReG"])
def test_a_kl_weight_is_no_scale_of_the_bound(line, linear):
    vae, x = linear
    kl, estimator = pv.infer.KLWeight(0.5), make_estimator(line)
    with pytest.raises(ValueError, match=f"{line} takes the logarithm of a sum over particles"):
        estimator.elbo.loss(kl(vae.model), kl(estimator.wrap(vae.guide, x)), x)
    with pytest.raises(ValueError, match=f"beta scales inside {line}'s logsumexp"):
        pv.fit(vae, x, estimator=line, beta=0.5, epochs=1)


# One face for all.

NEW = ["RLOO", "VIMCO", "DReG", "ARM", "DisARM"]


@pytest.mark.slow
@pytest.mark.parametrize("line", [*NEW, "Trace_ELBO(gradient=stl)"])
def test_it_trains(line):
    family = "Bernoulli" if line in ("ARM", "DisARM", "VIMCO", "RLOO") else "Normal"
    vae = VAE(
        6, 3, prior=family, guide=family, encoder=MLP([8]), decoder=MLP([8]), seed=0,
    )  # fmt: skip
    x = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).repeat(100, 1)
    fit = pv.fit(vae, x, estimator=line, epochs=12, batch_size=50, lr=5e-2, progress=False)
    assert fit.history.elbo_train.iloc[-1] > fit.history.elbo_train.iloc[0] + 1
    assert fit.history.loss.iloc[-1] < -fit.history.elbo_train.iloc[-1] + 0.5  # a bound


@pytest.mark.slow
def test_a_count_by_plain_svi():
    """RLOO on a model that is no VAE: a Poisson count, whose guide has no path."""
    x, counts = torch.tensor(6.0), torch.arange(60.0)

    def model():
        count = pyro.sample("count", dist.Poisson(torch.tensor(4.0)))
        pyro.sample("x", dist.Normal(count, 2.0), obs=x)

    def guide():
        rate = pyro.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("count", dist.Poisson(rate))

    def elbo(rate):
        q = dist.Poisson(rate)
        log_w = dist.Poisson(4.0).log_prob(counts) + dist.Normal(counts, 2.0).log_prob(x)
        return (q.log_prob(counts).exp() * (log_w - q.log_prob(counts))).sum()

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), RLOO(num_particles=10))
    for _ in range(150):
        svi.step()
    rates = torch.linspace(1, 10, 181)
    best = rates[torch.stack([elbo(r) for r in rates]).argmax()]
    assert pyro.param("rate").item() == pytest.approx(best.item(), abs=0.5)


@pytest.mark.slow
def test_a_mean_by_plain_svi():
    """DReG on a model that is no VAE: one latent for all data."""
    data = torch.tensor([0.5, 1.5, 1.0])

    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=data)

    def guide():
        loc = pyro.param("loc", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("mu", dist.Normal(loc, scale))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), DReG(num_particles=5))
    for _ in range(200):
        loss = svi.step()
    assert pyro.param("loc").item() == pytest.approx(data.sum().item() / 3.25, abs=1e-2)
    assert pyro.param("scale").item() == pytest.approx(3.25**-0.5, abs=1e-2)
    evidence = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 4).log_prob(data)
    assert -loss == pytest.approx(evidence.item(), abs=1e-2)


# What is unsound is refused.


@pytest.mark.parametrize("line", ["Trace_ELBO(gradient=stl)", "DReG", "RLOO"])
def test_a_support_that_moves_is_refused(line):
    """The score of Uniform(0, c) is -1/c everywhere: its mean is not zero, and its use biased."""

    def model():
        pyro.sample("z", dist.Uniform(0.0, torch.tensor(2.0)).to_event(0))

    def guide():
        c = pyro.param("c", torch.tensor([1.0]))
        pyro.sample("z", dist.Uniform(torch.zeros(1), c).to_event(1))

    with pytest.raises(ValueError, match="the support of Uniform at site 'z' moves"):
        check_and_nest(make_estimator(line), model, guide)


def test_antithetic_pairs_refuse_what_they_cannot_pair():
    def model():
        first = pyro.sample("first", dist.Bernoulli(0.5))
        pyro.sample("second", dist.Bernoulli(0.2 + 0.5 * first))

    def chained():
        p = pyro.param("p", torch.tensor(0.3))
        first = pyro.sample("first", dist.Bernoulli(0.5))
        pyro.sample("second", dist.Bernoulli(p + 0.5 * first))

    def normal():
        pyro.sample("first", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    with pytest.raises(ValueError, match="'second' depend on an earlier site's draw"):
        for _ in range(20):
            DisARM().loss(model, chained)
    with pytest.raises(ValueError, match="need Bernoulli sites, which 'first' is not: use RLOO"):
        ARM().loss(normal, normal)
    with pytest.raises(ValueError, match="which site 'first' has not: use VIMCO"):
        DReG().loss(model, chained)


@pytest.mark.parametrize("make", [RLOO, VIMCO])
def test_one_particle_has_no_others(make):
    with pytest.raises(ValueError, match="num_particles is a whole number of at least 2, got 1"):
        make(1)
