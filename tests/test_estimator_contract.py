"""What every estimator of the table keeps to; a new one is tested by its entry alone."""

import itertools
import math
import re

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI

from helpers.bounds import exact, part
from helpers.gradients import bit_model, draws, z_scores
from pyro_vae import ESTIMATORS, MLP, VAE, SpecError, make_estimator
from pyro_vae.infer.estimators.soundness import check, check_and_nest

GRADIENTS = list(dict.fromkeys(rule for p in ESTIMATORS.values() for rule in p.gradients))
LINES = [
    f"{name}(gradient={rule}, num_particles=2)"
    for name, profile in ESTIMATORS.items()
    for rule in profile.gradients
]


def small_model(family):
    """Three bits, or one normal variable with a learned prior, and their data."""
    if family == "Bernoulli":
        return bit_model(3)
    vae = VAE(
        3, 1, prior="Normal(loc=learned(0.2), scale=learned(1.2))",
        likelihood="Normal(scale=learned)", guide="Normal(scale=learned(0.7))",
        encoder=MLP([]), decoder=MLP([]), seed=6,
    ).double()  # fmt: skip
    return vae, torch.randn(2, 3).double()


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
def test_it_is_unbiased_for_its_bound_or_says_that_it_is_biased(line):
    vae, x, estimator = served(line)
    value = exact(vae, x, estimator.bound)
    gradients, values = draws(line, vae, x, copies=400, batches=60)
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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("line", LINES)
def test_a_refusal_names_an_estimator_that_can(line, family):
    likelihood = "Normal" if family != "Poisson" else "Bernoulli"
    vae = VAE(4, 2, prior=family, guide=family, likelihood=likelihood, encoder=MLP([3]), seed=0)
    x = torch.zeros(3, 4)
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
