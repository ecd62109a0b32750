"""What every estimator of the table keeps to; a new one is tested by its entry alone."""

import inspect
import itertools
import math
import re
from functools import cache

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI

from helpers.bounds import exact, part
from helpers.gradients import bit_model, draws, learned_normal_model, z_scores
from pyro_vae import ESTIMATORS, MLP, VAE, SpecError, make_estimator
from pyro_vae.infer.estimators.soundness import check, check_and_nest
from skeletons import estimator
from skeletons.estimator import CyclicBaseline

GRADIENTS = list(dict.fromkeys(rule for p in ESTIMATORS.values() for rule in p.gradients))
LINES = [
    f"{name}(gradient={rule}, num_particles=2)"
    for name, profile in ESTIMATORS.items()
    for rule in profile.gradients
]


def small_model(family):
    """Three bits, or one normal variable with a learned prior, and their data."""
    return bit_model(3) if family == "Bernoulli" else learned_normal_model()


def served(line):
    """A model that the estimator serves, its data, and the estimator."""
    for family in ("Bernoulli", "Normal"):
        vae, x = small_model(family)
        estimator = make_estimator(line)
        try:
            check_and_nest(estimator, vae.model, vae.guide, x)
        except ValueError:
            continue
        return vae, x, estimator
    raise AssertionError(f"{line} serves neither bits nor normals")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.slow
def test_it_is_unbiased_for_its_bound_or_says_that_it_is_biased(line):
    vae, x, estimator = served(line)
    value = exact(vae, x, estimator.bound)
    gradients, values = draws(line, vae, x, copies=640)
    if estimator.gradient != "concrete":  # whose loss is that of relaxed draws
        assert z_scores(values[:, None], value.detach()).abs().max() < 5
    for which in ("model", "guide"):
        wanted, mask = part(vae, value, which)
        z = z_scores(gradients[:, mask], wanted).abs()
        assert ((gradients[:, mask] != 0).any(0) | (wanted.abs() < 1e-9)).all()
        assert (wanted.abs() > 1e-9).sum() > 0.8 * len(wanted)
        if estimator.biased:
            assert which == "model" or z.max() > 5
        elif estimator.ascends in ("both", which):
            assert z.max() < 5


def gradients_of(estimator, vae, guide, x, loss):
    """The loss and the gradients of model, guide and what the estimator learns."""
    learned = [] if estimator.network is None else list(estimator.network.parameters())
    parameters = [*vae.parameters(), *learned]
    for p in parameters:
        p.grad = None
    pyro.set_rng_seed(2)
    value = loss(vae.model, guide, x)
    if isinstance(value, torch.Tensor):
        value.backward()
    return float(torch.as_tensor(value).detach()), [
        p.grad for p in parameters if p.grad is not None
    ]


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_the_differentiable_loss_has_the_loss_and_its_gradient(line):
    vae, x, estimator = served(line)
    elbo, guide = estimator.elbo, estimator.wrap(vae.guide, x)
    loss, gradients = gradients_of(estimator, vae, guide, x, elbo.loss_and_grads)
    if line.startswith(("TraceGraph_ELBO", "RenyiELBO")):
        return  # Pyro has none of them
    again, others = gradients_of(estimator, vae, guide, x, elbo.differentiable_loss)
    assert again == pytest.approx(loss)
    assert len(others) == len(gradients) > 0
    for one, other in zip(gradients, others, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    pyro.set_rng_seed(2)
    assert elbo.loss(vae.model, guide, x) == pytest.approx(loss)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_a_minibatch_scales_the_bound(line):
    """N/B times the loss and its gradient, also where the bound has a logarithm."""
    vae, x, estimator = served(line)
    if line.startswith("RenyiELBO"):
        return  # Pyro's takes a scale as a power of the weights
    found = []
    for scale in (1.0, torch.tensor(2.5).double()):
        pyro.set_rng_seed(1)
        guide = estimator.wrap(vae.guide, x)
        model, guide = (poutine.scale(f, scale) for f in (vae.model, guide))
        vae.zero_grad()
        pyro.set_rng_seed(1)
        loss = estimator.elbo.loss_and_grads(model, guide, x)
        found.append((loss, torch.cat([p.grad.flatten() for p in vae.parameters()])))
    (loss, gradient), (scaled, scaled_gradient) = found
    assert scaled == pytest.approx(2.5 * loss)
    assert torch.allclose(scaled_gradient, 2.5 * gradient)


# Pyro's own loop, on programs that are no VAE.


def independent(family):
    """One latent variable for each of two data points, by plain functions of ``x``."""

    def variable(parameter):
        if family == "Bernoulli":
            return dist.Bernoulli(logits=parameter)
        return dist.Normal(parameter, 0.8)

    def model(x):
        start = pyro.param("prior", torch.tensor(0.3))
        with pyro.plate("data", 2):
            z = pyro.sample("z", variable(start.expand(2)))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", 2):
            pyro.sample("z", variable(pyro.param("guide", torch.tensor([0.5, -0.2]))))

    return model, guide, torch.tensor([[0.2], [1.4]])


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_plain_svi_trains_model_and_guide(line):
    for family in ("Bernoulli", "Normal"):
        model, guide, x = independent(family)
        estimator = make_estimator(line)
        try:
            check(estimator, model, guide, x)
        except ValueError:
            continue
        break
    svi = SVI(model, estimator.wrap(guide, x), pyro.optim.Adam({"lr": 0.1}), estimator.elbo)
    losses = [svi.step(x) for _ in range(4)]
    assert all(math.isfinite(loss) for loss in losses)
    assert pyro.param("prior").item() != pytest.approx(0.3)
    assert not torch.equal(pyro.param("guide").detach(), torch.tensor([0.5, -0.2]))


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("k", [1, 3])
def test_a_global_latent_stands_beside_a_plate(line, k):
    """Its gradient is that of one draw for all data points."""
    name, rule = line.split("(")[0], re.findall(r"gradient=(\w+)", line)[0]
    if k < ESTIMATORS[name].least or (name == "RenyiELBO" and k == 1):
        return
    estimator, served_one = make_estimator(f"{name}(gradient={rule}, num_particles={k})"), False
    for family in (lambda p: dist.Bernoulli(logits=p), lambda p: dist.Normal(p, 0.8)):

        def model(x, family=family):
            z = pyro.sample("z", family(pyro.param("prior", torch.tensor(0.3))))
            with pyro.plate("data", 3):
                pyro.sample("x", dist.Normal(z, 0.5), obs=x[:, 0])

        def guide(x, family=family):
            pyro.sample("z", family(pyro.param("guide", torch.tensor(0.5))))

        pyro.clear_param_store()
        x = torch.tensor([[0.2], [1.4], [0.3]])
        try:
            check_and_nest(estimator, model, guide, x)
        except ValueError:
            continue
        served_one = True
        loss = estimator.elbo.loss_and_grads(model, estimator.wrap(guide, x), x)
        assert math.isfinite(loss)
        for parameter in ("prior", "guide"):
            gradient = pyro.param(parameter).grad
            assert gradient.isfinite() and gradient.shape == ()
    assert served_one


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("Trace")])
@pytest.mark.parametrize("observed", [True, False])
def test_a_program_without_latent_sites_has_a_loss(line, observed):
    def model(x):
        if observed:
            with pyro.plate("data", 3):
                pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0), obs=x)

    def guide(x):
        pass

    x, elbo = torch.tensor([0.2, 1.4, 0.3]), make_estimator(line).elbo
    wanted = -dist.Normal(0.3, 1.0).log_prob(x).sum() if observed else torch.tensor(0.0)
    if line.startswith("RenyiELBO"):
        return  # Pyro's
    assert elbo.loss_and_grads(model, guide, x) == pytest.approx(wanted.item())
    assert elbo.loss(model, guide, x) == pytest.approx(wanted.item())
    assert elbo.differentiable_loss(model, guide, x).item() == pytest.approx(wanted.item())
    if observed:
        assert pyro.param("loc").grad is not None


# Sites that depend on each other: served without bias, or refused at once and in a step.

COPIES = 2000


def chained():
    """Two bits, the second given the first, copied; exact log w and log q of the four states."""
    start = {"a": 0.4, "b": -0.7, "c": 1.1, "w": 0.8}

    def of(a, b, c, w, first):
        return dist.Bernoulli(logits=b + c * first), dist.Bernoulli(logits=2 * first - w)

    def parameters():
        return [
            pyro.param(k, lambda v=v: torch.full((COPIES,), v).double()) for k, v in start.items()
        ]

    def model(x=None):
        a, b, c, w = parameters()
        with pyro.plate("copies", COPIES):
            first = pyro.sample("first", dist.Bernoulli(logits=w / 2))
            second = pyro.sample("second", of(a, b, c, w, first)[1])
            pyro.sample("x", dist.Normal(first + w * second, 1.0), obs=torch.ones(COPIES).double())

    def guide(x=None):
        a, b, c, w = parameters()
        with pyro.plate("copies", COPIES):
            first = pyro.sample("first", dist.Bernoulli(logits=a))
            pyro.sample("second", of(a, b, c, w, first)[0])

    def exact_value(bound):
        values = [torch.tensor(v).double().requires_grad_() for v in start.values()]
        a, _, _, w = values
        first, second = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2))).double().T
        q, p = of(*values, first)
        log_q = dist.Bernoulli(logits=a).log_prob(first) + q.log_prob(second)
        log_p = dist.Bernoulli(logits=w / 2).log_prob(first) + p.log_prob(second)
        log_w = log_p + dist.Normal(first + w * second, 1.0).log_prob(torch.tensor(1.0)) - log_q
        pair = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None]))
        value = ((log_q[:, None] + log_q[None]).exp() * bound(pair)).sum()
        return torch.stack(torch.autograd.grad(value, values))

    return model, guide, exact_value


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_dependent_sites_are_served_or_refused(line):
    estimator, (model, guide, exact_value) = make_estimator(line), chained()
    x = torch.zeros(COPIES, 1).double()
    try:
        check_and_nest(estimator, model, guide, x)
    except ValueError as why:
        assert "cannot serve this guide" in str(why)
        if "depend" in str(why):
            wrapped = estimator.wrap(guide, x)
            with pytest.raises(ValueError, match="depend on an earlier site's draw"):
                estimator.elbo.loss(model, wrapped, x)
        return
    wrapped, found = estimator.wrap(guide, x), []
    for _ in range(10):
        with pyro.get_param_store().scope():
            estimator.elbo.loss_and_grads(model, wrapped, x)
            found.append(torch.stack([-pyro.param(name).grad for name in "abcw"], 1))
    sample, wanted = torch.cat(found), exact_value(estimator.bound)
    assert (sample != 0).any(0).all()
    z = z_scores(sample, wanted).abs()
    if not estimator.biased and estimator.ascends == "both":
        assert z.max() < 5
    if estimator.ascends != "none" and not estimator.biased:
        assert z[3] < 5


# Refusals give a reason, and advice that can be taken.

NAMES = "|".join(sorted(ESTIMATORS, key=len, reverse=True))
FAMILIES = [
    "Normal", "Bernoulli", "OneHotCategorical", "Categorical(categories=3)", "Poisson", "Gamma",
    "VonMises",
]  # fmt: skip


def advised(message):
    """The lines that an error tells to use."""
    _, _, advice = message.split("\n")[0].partition("use ")
    return re.findall(rf"\b(?:{NAMES})\b(?:\([^)]*\))?", advice)


@cache
def with_latents(family):
    """A model that a check leaves as it is."""
    likelihood = "Normal" if family != "Poisson" else "Bernoulli"
    return VAE(4, 2, prior=family, guide=family, likelihood=likelihood, encoder=MLP([3]), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("line", LINES)
def test_a_refusal_names_an_estimator_that_can(line, family):
    vae, x = with_latents(family), torch.zeros(3, 4)
    try:
        check(make_estimator(line), vae.model, vae.guide, x)
    except ValueError as why:
        assert str(why).startswith(f"{line} cannot serve this guide: ")
        lines = advised(str(why))
        assert lines, why
        for other in lines:
            check(make_estimator(other), vae.model, vae.guide, x)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_gradient_that_it_lacks_is_refused_with_advice(name):
    for rule in set(GRADIENTS) - set(ESTIMATORS[name].gradients):
        with pytest.raises(SpecError) as error:
            make_estimator(f"{name}(gradient={rule})")
        lines = advised(str(error.value))
        assert lines or "leave gradient out" in str(error.value)
        for line in lines:
            make_estimator(line)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_its_entry_agrees_with_its_class(name):
    profile = ESTIMATORS[name]
    assert profile.gradient is None or profile.gradient in profile.gradients
    assert set(profile.biased) <= set(profile.gradients)
    elbo = make_estimator(name).elbo
    assert type(elbo).__name__ == name
    assert elbo.num_particles == profile.num_particles >= profile.least
    assert elbo.vectorize_particles == (elbo.num_particles > 1) or hasattr(elbo, "profile")
    estimator = make_estimator(f"{name}(num_particles=3)")
    assert estimator.elbo.num_particles == 3
    assert estimator.elbo.vectorize_particles
    with pytest.raises(SpecError, match=rf"whole number of at least {profile.least}, got 0"):
        make_estimator(f"{name}(num_particles=0)")
    with pytest.raises(SpecError, match="has no argument 'foo'"):
        make_estimator(f"{name}(foo=1)")
    for option in profile.options:
        with pytest.raises(SpecError, match=option):
            make_estimator(f"{name}({option}=[nothing])")


REFUSED = {
    "Trace_ELB": "unknown estimator 'Trace_ELB'; did you mean Trace_ELBO",
    "Foo": r"unknown estimator 'Foo'; pyro_vae.estimators\(\) lists them",
    "AdamW": "AdamW is an optimizer: optimizer='AdamW'",
    "Trace_ELBO(gradient=foo)": "gradient is one of pathwise, score, stl, .*got foo",
    "Trace_ELBO(baseline=neural)": "Trace_ELBO has no baselines: use TraceGraph_ELBO",
    "Trace_ELBO(num_particle=2)": "did you mean num_particles",
    "Trace_ELBO(num_particles=0)": "whole number of at least 1, got 0",
    "Trace_ELBO(num_particles=2.5)": "whole number of at least 1, got 2.5",
    "TraceMeanField_ELBO(gradient=score)": "is unsound: the analytic KL",
    "RenyiELBO(alpha=0, gradient=score)": "exactly zero",
    "RenyiELBO(alpha=1)": "alpha=1 makes the Rényi bound the ELBO: use Trace_ELBO",
    "RenyiELBO(alpha=1.0000001)": "the ELBO, but for rounding, .*: use Trace_ELBO",
    "RenyiELBO(alpha='x')": "alpha is a number",
    "TraceGraph_ELBO(gradient=pathwise, baseline=neural)": "baseline serves score-function",
    "TraceGraph_ELBO(baseline=mean)": "baseline is one of none, decaying, neural",
    "TraceGraph_ELBO(gradient=score, baseline=decaying, decay=2)": "decay is a fraction",
    "Trace_ELBO(gradient=stk)": "gradient is one of pathwise, score, stl, .*got stk",
    "TraceMeanField_ELBO(gradient=stl)": "would silently be sampled: use Trace_ELBO.gradient=stl",
    "TraceGraph_ELBO(gradient=stl)": "use Trace_ELBO.gradient=stl",
    "TraceEnum_ELBO(gradient=stl)": "have no path: use Trace_ELBO.gradient=stl",
    "RenyiELBO(gradient=stl)": "biased with more than one particle: use DReG",
    "DReG(gradient=score)": "reparameterizes twice: use VIMCO",
    "DReG(gradient=stl)": "leave gradient out",
    "RLOO(gradient=pathwise)": "for sites without a path: use Trace_ELBO",
    "VIMCO(gradient=stl)": "use Trace_ELBO.gradient=stl",
    "RLOO(num_particles=1)": "whole number of at least 2, got 1",
    "VIMCO(num_particles=1)": "whole number of at least 2, got 1",
    "ARM(gradient=pathwise)": "for sites without a path",
    "DisARM(baseline=neural)": "DisARM has no baselines: use TraceGraph_ELBO",
    "DisArm": "did you mean DisARM",
    "REBAR(temperature=0)": "temperature is a number greater than 0",
    "REBAR(alpha=1)": "alpha",
    "DoubleCV(num_particles=1)": "whole number of at least 2, got 1",
    "RELAX(gradient=pathwise)": "for sites without a path",
    "MuProp(baseline=decaying)": "baseline is one of none, neural, got decaying",
    "REBAR(baseline=neural)": "REBAR has no baselines",
    "Rebar": "did you mean REBAR",
    "RELAX(hidden=2.5)": "hidden is a whole number of at least 1, got 2.5",
    "RLOO(gradient=concrete)": "RLOO has no gradient=concrete: use Trace_ELBO.gradient=concrete",
    "TraceGraph_ELBO(gradient=st_gumbel)": "or TraceMeanField_ELBO.gradient=st_gumbel",
    "Trace_ELBO(gradient=gumbel)": "straight_through, st_gumbel, .*got gumbel",
    "Trace_ELBO(temperature=1)": "use Trace_ELBO.gradient=concrete, temperature=0.5",
    "Trace_ELBO(gradient=straight_through, temperature=1)": "temperature serves relaxed draws",
    "Trace_ELBO(gradient=concrete, temperature=0)": "temperature is positive throughout",
    "Trace_ELBO(gradient=concrete, temperature=cosine(1))": "positive throughout",
    "Trace_ELBO(gradient=concrete, temperature='linear(0, 1)')": "positive throughout",
    "Trace_ELBO(gradient=concrete, temperature=slow(1))": "unknown schedule 'slow'",
    "TVO(num_particles=1)": "whole number of at least 2",
    "TVO(partitions=0)": "partitions is a whole number of at least 1, got 0",
    "TraceGraph_ELBO(decay=0.5)": "say that, or leave decay out",
    "TVO(partitions=[0.1, 0.5], beta_min=0.01)": "are the points themselves: leave beta_min out",
    "TVO(beta_min=1.5)": "beta_min is a fraction between 0 and 1, got 1.5",
    "TVO(partitions=[0.5, 0.1])": "partitions rise between 0 and 1, both left out, got",
    "TVO(partitions=[0.5, 1.0])": "partitions rise between 0 and 1",
    "TVO(gradient=stl)": "its pathwise gradient has that already",
    "RWS(sleep=2)": "sleep is a share between 0 and 1, got 2",
    "RWS(gradient=pathwise)": "ascends log q at draws that are fixed: leave gradient out",
    "CUBO(n=1)": "n is the order of an upper bound, greater than 1, got 1",
    "CUBO(n=two)": "n is a number, got two",
    "TVO(partitions=many)": "partitions is a whole number of at least 1, got many",
    "GDReG(gradient=score)": "use VIMCO",
    "TVO(alpha=2)": "alpha",
    "RLOO(2)": "name the arguments: RLOO.num_particles=5",
}


@pytest.mark.slow
@pytest.mark.parametrize("line", REFUSED)
def test_what_is_unsound_is_refused(line):
    with pytest.raises(SpecError, match=REFUSED[line]):
        make_estimator(line)


UNSERVED = {  # the estimator, prior and guide, and the reason
    "Trace_ELBO(gradient=pathwise)": ("Bernoulli", "Bernoulli", "which Bernoulli at site 'z' has"),
    "TraceMeanField_ELBO": ("Bernoulli", "Bernoulli", "use Trace_ELBO.gradient=score"),
    "RenyiELBO(alpha=0)": ("VonMises", "VonMises", "reparameterized sampler, which VonMises"),
    "TraceEnum_ELBO": ("Normal", "Normal", "Normal has no finite support"),
    "TraceMeanField_ELBO(num_particles=2)": ("Logistic", "Normal", "no analytic KL of Normal and"),
    "TraceGraph_ELBO(baseline=neural)": ("Normal", "Normal", "say gradient=score"),
    "ARM": ("Normal", "Normal", "need Bernoulli sites, which Normal at site 'z' is not: use RLOO"),
    "DisARM(num_particles=2)": ("Normal", "Normal", "or Trace_ELBO.gradient=pathwise"),
    "DReG": (
        "Bernoulli",
        "Bernoulli",
        "which Bernoulli at site 'z' has not: use Trace_ELBO.gradient=score",
    ),
    "Trace_ELBO(gradient=stl)": (
        "Bernoulli",
        "Bernoulli",
        "VIMCO.num_particles=2., DisARM or TraceEnum_ELBO",
    ),
    "REBAR": (
        "Normal",
        "Normal",
        "need Bernoulli or OneHotCategorical sites, which Normal at site 'z'",
    ),
    "DoubleCV": (
        "Categorical(categories=3)",
        "Categorical(categories=3)",
        "which Categorical at site 'z' is not: use RLOO",
    ),
    "DisARMIWAE": (
        "OneHotCategorical",
        "OneHotCategorical",
        "need Bernoulli sites, which OneHotCategorical at",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("line", UNSERVED)
def test_an_estimator_says_which_guides_it_cannot_serve(line):
    prior, guide, reason = UNSERVED[line]
    vae = VAE(6, 2, prior=prior, guide=guide, likelihood="Normal")
    with pytest.raises(ValueError, match=reason):
        check(make_estimator(line), vae.model, vae.guide, torch.randn(3, 6))


# The skeleton of a new estimator keeps the contract by its entry in the table alone.

KEPT = [
    test_it_is_unbiased_for_its_bound_or_says_that_it_is_biased,
    test_the_differentiable_loss_has_the_loss_and_its_gradient,
    test_a_minibatch_scales_the_bound,
    test_plain_svi_trains_model_and_guide,
    test_dependent_sites_are_served_or_refused,
]


@pytest.fixture
def listed(monkeypatch):
    monkeypatch.setitem(ESTIMATORS, "CyclicBaseline", CyclicBaseline.profile)


@pytest.mark.slow
@pytest.mark.parametrize("test", KEPT, ids=lambda test: test.__name__)
def test_a_new_estimator_keeps_the_contract(test, listed):
    test("CyclicBaseline(gradient=score, num_particles=2)")


def test_a_new_estimator_is_in_the_language(listed):
    test_its_entry_agrees_with_its_class("CyclicBaseline")
    test_a_gradient_that_it_lacks_is_refused_with_advice("CyclicBaseline")
    assert make_estimator("CyclicBaseline(share=0.5)").elbo.share == 0.5
    assert len(inspect.getsource(estimator).splitlines()) <= 40
