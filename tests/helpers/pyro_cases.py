"""Pyro's tests of gradients and of inference as cases for every estimator, in words of our own.

A case has a model and a guide, and what is known of them: the gradient of any bound by quadrature,
or the posterior that training leads to. ``outcome`` is empty where an estimator passes, and the
reason where it is refused; what is wrong is an ``AssertionError``.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions.testing import fakes
from pyro.distributions.testing.rejection_gamma import ShapeAugmentedGamma
from pyro.infer import SVI

from helpers.gradients import z_scores
from pyro_vae import ESTIMATORS, make_estimator
from pyro_vae.infer.estimators.estimator import Estimator
from pyro_vae.infer.estimators.relaxations import RELAXED, relaxation
from pyro_vae.infer.estimators.soundness import check_and_nest

__all__ = ["CASES", "ELSEWHERE", "LINES", "Case", "outcome"]

LINES = [f"{name}(gradient={r})" for name, p in ESTIMATORS.items() for r in p.gradients]
COPIES = 2000  # draws of a gradient
DATA = torch.tensor([-0.5, 2.0])
ELSEWHERE = {  # tests of Pyro's that hold no bound of ours, and why
    "test_gradient: JIT of every bound": "Pyro expects them to fail; ours compile otherwise",
    "test_gradient: test_collapse_beta_binomial": "of poutine.collapse, without a bound or a guide",
    "test_inference: test_elbo_tail_adaptive": "TraceTailAdaptive_ELBO is no bound of ours",
    "test_inference: test_mmd": "Trace_MMD fits a prior by MMD, and estimates no bound",
    "test_inference: test_reparam_stable": "a finite loss of AutoDelta; not written anew",
    "test_inference: test_energy_distance": "EnergyDistance is a likelihood-free objective",
}


@dataclass(frozen=True)
class Case:
    """What Pyro tests, and how an estimator is held to it.

    Attributes:
        of: the test of Pyro's that it is.
        run: raises ``ValueError`` for an estimator that is refused, ``AssertionError`` where it is
            wrong.
    """

    of: str
    run: Callable[[str], None]


def outcome(line: str, case: Case) -> str:
    """Empty where the estimator passes, the reason where it is refused."""
    pyro.set_rng_seed(0)
    with pyro.get_param_store().scope(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case.run(line)
        except ValueError as why:
            return str(why)
    return ""


def make(line: str, num_particles: int, *, together: bool = True) -> Estimator:
    """An estimator of so many particles, or of as many as it needs."""
    name, rule = line[:-1].split("(gradient=")
    profile = ESTIMATORS[name]
    k = max(num_particles, profile.least)
    if together:
        return make_estimator(f"{name}(gradient={rule}, num_particles={k})")
    extra = {"rule": relaxation(rule, None)} if rule in RELAXED else {}
    return Estimator(profile.build(num_particles=k, vectorize_particles=False, **extra), rule)


# Gradients: two normal variables beside the data -.5 and 2, in so many copies.


def variable(kind: str, *parameters: torch.Tensor | float) -> dist.TorchDistribution:
    """A normal variable with or without a path."""
    if kind == "nonreparameterized":
        return fakes.NonreparameterizedNormal(*parameters)
    normal = dist.Normal(*parameters)
    return normal if kind == "plain" else normal.has_rsample_(kind == "has_rsample=True")


def weight(z: torch.Tensor, loc: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """log p(x, z) - log q(z) of both variables."""
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(DATA)
    return log_p - dist.Normal(loc, scale).log_prob(z)


@cache
def exact(bound: Callable, k: int, shared: bool, of: Callable = weight) -> torch.Tensor:
    """The gradient of a bound of K draws in loc and scale, by quadrature.

    Args:
        bound: of the log weights.
        k: draws that it is a function of, at most two; the ELBO is of one.
        shared: whether the weight is of both variables together.
        of: the log weights, ``(..., 2)``.
    """
    nodes, mass = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(28))
    mass = mass / mass.sum()
    loc, scale = (torch.full((2,), v).double().requires_grad_() for v in (0.0, 1.0))
    each = torch.cartesian_prod(nodes, nodes) if shared else nodes[:, None].expand(-1, 2)
    of_each = torch.cartesian_prod(mass, mass).prod(1) if shared else mass
    log_w = of(loc + scale * each, loc, scale)
    log_w = log_w.sum(-1, keepdim=True) if shared else log_w
    if k == 1:
        value = (of_each[:, None] * bound(log_w[None])).sum()
    else:
        pairs = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None]))
        value = (of_each[:, None, None] * of_each[None, :, None] * bound(pairs)).sum()
    return torch.cat(torch.autograd.grad(value, [loc, scale]))


def held_to(
    estimator: Estimator,
    model: Callable,
    guide: Callable,
    runs: tuple[tuple, ...] = ((),),
    *,
    times: float = 1.0,
    shared: bool = False,
    random: bool = False,
    of: Callable = weight,
) -> None:
    """Compare the mean gradient of all copies, or of all runs, with the exact one."""
    check_and_nest(estimator, model, guide, *runs[0])
    pyro.clear_param_store()
    x = torch.zeros(2, 1)
    guide = estimator.wrap(guide, x)
    each = []
    for args in runs:
        assert math.isfinite(estimator.elbo.loss_and_grads(model, guide, *args))
        found = [pyro.param(name).grad.reshape(COPIES, -1) for name in ("loc", "scale")]
        each.append(-torch.cat(found, 1).double())
        for name in ("loc", "scale"):
            pyro.param(name).grad = None
    sample = torch.stack(each)
    gradient = sample.mean(1) if random else sample.mean(0)
    assert gradient.isfinite().all() and (gradient != 0).any(0).all()
    if estimator.ascends != "both" or estimator.biased or estimator.elbo.num_particles > 2:
        return
    k = 1 if estimator.bound.num_particles == 1 else estimator.elbo.num_particles
    wanted = times * exact(estimator.bound, k, shared, of)
    if gradient.shape[1] == 3:
        wanted = torch.cat([wanted[:2], wanted[2:].sum(0, keepdim=True)])
    assert z_scores(gradient, wanted).abs().max() < 5


def local(kind: str, scale: float = 1.0, subsample: int | None = None, free: bool = False):
    """A latent variable for each observation, with a subsample that is given or drawn."""

    def model(index: torch.Tensor | None = None) -> None:
        with pyro.plate("copies", COPIES, dim=-2), plate(index) as rows:
            z = pyro.sample("z", variable(kind, torch.zeros(len(rows)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=DATA[rows])

    def guide(index: torch.Tensor | None = None) -> None:
        spread = pyro.param("scale", torch.ones(COPIES, 1))
        with pyro.plate("copies", COPIES, dim=-2), plate(index):
            loc = pyro.param("loc", torch.zeros(COPIES, 2), event_dim=0)
            pyro.sample("z", variable(kind, loc, spread))

    def plate(index: torch.Tensor | None) -> pyro.plate:
        return pyro.plate("data", 2, subsample, None if free else index, dim=-1)

    if scale != 1:
        return poutine.scale(model, scale), poutine.scale(guide, scale)
    return model, guide


def subsampled(kind: str, scale: float, size: int, line: str) -> None:
    """A given half of the data and the other, or all."""
    rows = torch.arange(2).split(size)
    model, guide = local(kind, scale, size)
    held_to(make(line, 2), model, guide, tuple((r,) for r in rows), times=scale)


def sequential(kind: str, size: int, line: str) -> None:
    """Particles one by one, each with the same random part of the data."""
    model, guide = local(kind, 1.0, size, free=True)
    held_to(
        make(line, 2, together=False),
        model,
        guide,
        ((),) * (12 if size < 2 else 2),
        random=size < 2,
    )


def single(kind: str, line: str) -> None:
    """One particle, or as few as there must be."""
    held_to(make(line, 1), *local(kind))


def beside_nuisance(kind: str, num_particles: int, line: str) -> None:
    """Sites outside the plate that guide and model draw alike."""

    def nuisance(name: str, loc: float, scale: float) -> None:
        pyro.sample(name, variable(kind, torch.full((COPIES, 1), loc), scale))

    def model() -> None:
        data = pyro.plate("data", 2, dim=-1)
        with pyro.plate("copies", COPIES, dim=-2):
            nuisance("a", 0.0, 1.0)
            with data:
                z = pyro.sample("z", variable(kind, torch.zeros(2), 1.0))
            nuisance("b", 2.0, 3.0)
            with data:
                pyro.sample("x", dist.Normal(z, 1.0), obs=DATA)
            nuisance("c", 4.0, 5.0)

    def guide() -> None:
        loc = pyro.param("loc", torch.zeros(COPIES, 2))
        scale = pyro.param("scale", torch.ones(COPIES, 1))
        with pyro.plate("copies", COPIES, dim=-2):
            nuisance("c", 4.0, 5.0)
            with pyro.plate("data", 2, dim=-1):
                pyro.sample("z", variable(kind, loc, scale))
            nuisance("b", 2.0, 3.0)
            nuisance("a", 0.0, 1.0)

    held_to(make(line, num_particles), model, guide, shared=True)


SHARES = torch.tensor([[0.4, -0.7, 1.0], [0.2, 0.9, -0.3]])
TABLE = torch.linspace(-1.0, 2.0, 15).reshape(5, 3)


def contracted(z: torch.Tensor, loc: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Half of the log weight at each of two variables that all data share."""
    seen = dist.Normal((z @ SHARES.to(z))[..., None, :], 2.0).log_prob(TABLE.to(z)).sum((-1, -2))
    own = dist.Normal(1.0, 0.5).log_prob(z) - dist.Normal(loc, scale).log_prob(z)
    return own + seen[..., None] / 2


def plates_that_are_not_nested(line: str) -> None:
    """Two variables in a plate of their own, and data in two others (Pyro's issue 2361)."""

    def model() -> None:
        with pyro.plate("copies", COPIES, dim=-3):
            with pyro.plate("variables", 2, dim=-1):
                z = pyro.sample("z", dist.Normal(torch.ones(2), 0.5))
            with pyro.plate("columns", 3, dim=-1), pyro.plate("rows", 5, dim=-2):
                pyro.sample("x", dist.Normal(z @ SHARES, 2.0), obs=TABLE)

    def guide() -> None:
        loc = pyro.param("loc", torch.zeros(COPIES, 1, 2))
        scale = pyro.param("scale", torch.ones(COPIES, 1, 1))
        with pyro.plate("copies", COPIES, dim=-3), pyro.plate("variables", 2, dim=-1):
            pyro.sample("z", dist.Normal(loc, scale))

    held_to(make(line, 2), model, guide, shared=True, of=contracted)


def bits_in_plates_that_are_not_nested(line: str) -> None:
    """The same with two bits, exact by their four states."""
    states = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])

    def model(x: torch.Tensor) -> None:
        with pyro.plate("copies", COPIES, dim=-3):
            with pyro.plate("variables", 2, dim=-1):
                z = pyro.sample("z", dist.Bernoulli(torch.full((2,), 0.4)))
            with pyro.plate("columns", 3, dim=-1), pyro.plate("rows", 5, dim=-2):
                pyro.sample("x", dist.Normal(z @ SHARES, 2.0), obs=TABLE)

    def guide(x: torch.Tensor) -> None:
        logits = pyro.param("logits", torch.tensor([0.3, -0.6]).expand(COPIES, 1, 2).clone())
        with pyro.plate("copies", COPIES, dim=-3), pyro.plate("variables", 2, dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=logits))

    def exact_value(bound: Callable, logits: torch.Tensor) -> torch.Tensor:
        z = states.double()
        log_q = dist.Bernoulli(logits=logits).log_prob(z).sum(1)
        seen = dist.Normal((z @ SHARES.double())[:, None], 2.0).log_prob(TABLE.double())
        log_w = dist.Bernoulli(0.4).log_prob(z.float()).double().sum(1) + seen.sum((1, 2)) - log_q
        return mean_of_pairs(bound, log_q, log_w)

    held_to_states(make(line, 2), model, guide, exact_value, torch.tensor([0.3, -0.6]))


def mean_of_pairs(bound: Callable, log_q: torch.Tensor, log_w: torch.Tensor) -> torch.Tensor:
    """The expectation of a bound's estimate from two draws, by all states."""
    pairs = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None]))
    return ((log_q[:, None] + log_q).exp() * bound(pairs)).sum()


def held_to_states(
    estimator: Estimator, model: Callable, guide: Callable, value: Callable, start: torch.Tensor
) -> None:
    """Compare the mean gradient in the logits of all copies with that of an exact value."""
    x = torch.zeros(COPIES, 1)
    check_and_nest(estimator, model, guide, x)
    pyro.clear_param_store()
    guide = estimator.wrap(guide, x)
    assert math.isfinite(estimator.elbo.loss_and_grads(model, guide, x))
    found = -pyro.param("logits").grad.reshape(COPIES, -1).double()
    if estimator.ascends != "both" or estimator.biased or estimator.elbo.num_particles > 2:
        return
    logits = start.double().requires_grad_()
    (wanted,) = torch.autograd.grad(value(estimator.bound, logits), logits)
    spread = found.std(0) > 1e-6
    z = z_scores(found, wanted.reshape(-1)) if spread.all() else 1e4 * (found.mean(0) - wanted)
    assert z.abs().max() < 5


def a_loop_over_a_plate(line: str) -> None:
    """One bit before data in a sequential plate (Pyro's issue 2361), exact by both states."""
    data = torch.tensor([0.2, 1.1, -0.4])

    def model(x: torch.Tensor) -> None:
        with pyro.plate("copies", COPIES, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            for i in pyro.plate("data", len(data)):
                pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=data[i])

    def guide(x: torch.Tensor) -> None:
        logits = pyro.param("logits", torch.full((COPIES,), 0.3))
        with pyro.plate("copies", COPIES, dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=logits))

    def exact_value(bound: Callable, logits: torch.Tensor) -> torch.Tensor:
        z = torch.tensor([0.0, 1.0]).double()
        log_q = dist.Bernoulli(logits=logits).log_prob(z)
        log_w = math.log(0.5) + dist.Normal(z[:, None], 1.0).log_prob(data).sum(1) - log_q
        return mean_of_pairs(bound, log_q, log_w)

    held_to_states(make(line, 2), model, guide, exact_value, torch.tensor(0.3))


# Inference: the gradient is zero at the posterior, and leads there from nearby.


def leads_to(
    line: str, model: Callable, guide: Callable, target: torch.Tensor, start: torch.Tensor
) -> None:
    """Look at the gradients of many copies at the posterior's parameters, and beside them."""
    estimator = make(line, 3)
    with pyro.get_param_store().scope():
        pyro.param("at", start.expand(COPIES, 1, *start.shape).clone())
        check_and_nest(estimator, model, guide)
    guide = estimator.wrap(guide, torch.zeros(2, 1))
    for parameters in (target, start):
        pyro.clear_param_store()
        pyro.param("at", parameters.expand(COPIES, 1, *parameters.shape).clone())
        assert math.isfinite(estimator.elbo.loss_and_grads(model, guide))
        gradient = -pyro.param("at").grad.reshape(COPIES, -1).double()
        assert gradient.isfinite().all()
        if parameters is target:
            moving = gradient[:, gradient.std(0) > 1e-5]
            still = gradient[:, gradient.std(0) <= 1e-5]
            assert not moving.numel() or z_scores(moving, torch.tensor(0.0)).abs().max() < 5
            assert not still.numel() or still.abs().max() < 1e-3
        else:
            along = (gradient * (target - start).reshape(-1)).sum(1, keepdim=True)
            assert z_scores(along, torch.tensor(0.0)).min() > 5


def normal_normal(reparameterized: bool, line: str) -> None:
    """The mean of two normal columns of known precision; its mean and log standard deviation."""
    data = torch.tensor([[-0.1, 0.3], [0.0, 0.4], [0.2, 0.5], [0.1, 0.7]])
    before, known, start = torch.full((2,), 0.1), torch.tensor([6.0, 4.0]), torch.tensor([0.0, 0.5])
    after = before + len(data) * known
    target = torch.stack([(data.sum(0) * known + start * before) / after, -after.log() / 2])
    family = dist.Normal if reparameterized else fakes.NonreparameterizedNormal

    def model() -> None:
        with pyro.plate("copies", COPIES, dim=-2):
            wide = family(start.expand(COPIES, 1, 2), before**-0.5)
            loc = pyro.sample("loc", wide.to_event(1))
            with pyro.plate("data", len(data), dim=-1):
                pyro.sample("x", dist.Normal(loc, known**-0.5).to_event(1), obs=data)

    def guide() -> None:
        mean, log_sd = pyro.param("at").unbind(2)
        with pyro.plate("copies", COPIES, dim=-2):
            pyro.sample("loc", family(mean, log_sd.exp()).to_event(1))

    leads_to(line, model, guide, target, target + torch.tensor([[0.134], [-0.14]]))


def conjugate(
    family: Callable, observed: Callable, data: list[float], after: tuple[float, float], line: str
) -> None:
    """A prior (1, 1) of a family of two positive parameters, and its conjugate posterior."""
    x, target = torch.tensor(data), torch.tensor(after).log()

    def model() -> None:
        with pyro.plate("copies", COPIES, dim=-2):
            value = pyro.sample("value", family(torch.ones(COPIES, 1), torch.ones(COPIES, 1)))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("x", observed(value), obs=x)

    def guide() -> None:
        a, b = pyro.param("at").exp().unbind(2)
        with pyro.plate("copies", COPIES, dim=-2):
            pyro.sample("value", family(a, b))

    leads_to(line, model, guide, target, target + torch.tensor([0.17, -0.143]))


POSTERIORS = {
    "normal mean": {
        "reparameterized": partial(normal_normal, True),
        "nonreparameterized": partial(normal_normal, False),
    },
    "Gamma and Poisson": {
        name: partial(conjugate, family, dist.Poisson, [1.0, 2.0, 3.0], (7.0, 4.0))
        for name, family in (
            ("reparameterized", dist.Gamma),
            ("nonreparameterized", fakes.NonreparameterizedGamma),
        )
    },
    "Gamma and Exponential": {
        name: partial(conjugate, family, dist.Exponential, [3.0, 2.0], (3.0, 6.0))
        for name, family in (
            ("reparameterized", dist.Gamma),
            ("nonreparameterized", fakes.NonreparameterizedGamma),
            ("by rejection", ShapeAugmentedGamma),
        )
    },
    "Beta and Bernoulli": {
        name: partial(conjugate, family, dist.Bernoulli, [0.0, 1.0, 1.0, 1.0], (4.0, 2.0))
        for name, family in (
            ("reparameterized", dist.Beta),
            ("nonreparameterized", fakes.NonreparameterizedBeta),
        )
    },
}


# Optimizers, names and automatic guides.


def rates_by_name(line: str) -> None:
    """What has a rate of 0 stays, and the rest moves."""
    start = {"of_model": 0.11, "of_guide": 0.17}

    def model() -> None:
        log_a = pyro.param("of_model", torch.tensor([start["of_model"]]))
        rate = pyro.sample("rate", dist.LogNormal(log_a, 1.0).to_event(1))
        pyro.sample("x", dist.Poisson(rate).to_event(1), obs=torch.tensor([2.0]))

    def guide() -> None:
        log_a = pyro.param("of_guide", torch.tensor([start["of_guide"]]))
        pyro.sample("rate", dist.LogNormal(log_a, 0.5).to_event(1))

    estimator = make(line, 2)
    check_and_nest(estimator, model, guide)
    for fixed in ((), ("of_model",), ("of_guide",), ("of_model", "of_guide")):
        pyro.clear_param_store()
        rates = pyro.optim.Adam(partial(rate_of, fixed))
        svi = SVI(model, estimator.wrap(guide, torch.zeros(2, 1)), rates, estimator.elbo)
        for _ in range(3):
            svi.step()
        for name, value in start.items():
            stays = pyro.param(name).item() == torch.tensor(value).item()
            assert stays == (name in fixed), (name, fixed)


def rate_of(fixed: tuple[str, ...], name: str) -> dict[str, float]:
    """The rate of a parameter."""
    return {"lr": 0.0 if name in fixed else 0.01}


def names_that_stand_twice(line: str) -> None:
    """A site of a parameter's name, and two sites of one name: errors. A lonely site: a warning."""

    def of_a_parameter(x: torch.Tensor) -> None:
        pyro.param("loc", torch.ones(1))
        pyro.sample("loc", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    def of_a_site(x: torch.Tensor) -> None:
        pyro.sample("loc", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("loc", dist.Normal(torch.zeros(1), 1.0).to_event(1), obs=torch.zeros(1))

    def model(x: torch.Tensor) -> None:
        pyro.sample("loc", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    def guide(x: torch.Tensor) -> None:
        scale = pyro.param("scale", torch.ones(1))
        pyro.sample("loc", dist.Normal(torch.zeros(1), scale).to_event(1))
        pyro.sample("more", dist.Normal(torch.zeros(1), scale).to_event(1))

    estimator, x = make(line, 2), torch.zeros(2, 1)
    for wrong in (of_a_parameter, of_a_site):
        pyro.clear_param_store()
        svi = SVI(wrong, estimator.wrap(guide, x), adam(), estimator.elbo)
        try:
            svi.step(x)
        except RuntimeError as why:
            assert "loc" in str(why)
        else:
            raise AssertionError(f"{wrong.__name__} goes through")
    check_and_nest(estimator, model, guide, x)
    pyro.clear_param_store()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        SVI(model, estimator.wrap(guide, x), adam(), estimator.elbo).step(x)
    assert any("more" in str(w.message) for w in said)


def adam() -> pyro.optim.PyroOptim:
    """An optimizer of its own."""
    return pyro.optim.Adam({"lr": 0.01})


GRADIENTS: dict[str, Case] = {
    f"one particle, {kind}": Case("test_particle_gradient", partial(single, kind))
    for kind in ("plain", "has_rsample=False", "has_rsample=True", "nonreparameterized")
}
GRADIENTS |= {
    f"{'half of' if size == 1 else 'all'} the data, {kind}{', scaled' if scale > 1 else ''}": Case(
        "test_subsample_gradient", partial(subsampled, kind, scale, size)
    )
    for kind in ("plain", "has_rsample=False", "has_rsample=True", "nonreparameterized")
    for scale in (1.0, 2.0)
    for size in (2, 1)
}
GRADIENTS |= {
    f"nuisance sites, {kind}, {'particles' if k == 2 else 'copies'}": Case(
        "test_plate_elbo_vectorized_particles" if k == 2 else "test_plate",
        partial(beside_nuisance, kind, k),
    )
    for kind in ("plain", "nonreparameterized")
    for k in (1, 2)
}
GRADIENTS |= {
    f"particles one by one, {'half of' if size == 1 else 'all'} the data, {kind}": Case(
        "test_subsample_gradient_sequential", partial(sequential, kind, size)
    )
    for kind in ("plain", "nonreparameterized")
    for size in (2, 1)
}
CASES: dict[str, Case] = {
    **GRADIENTS,
    "plates that are not nested": Case("test_non_nested_plating_sum", plates_that_are_not_nested),
    "bits in plates that are not nested": Case(
        "test_non_nested_plating_sum", bits_in_plates_that_are_not_nested
    ),
    "a loop over a plate": Case("test_sequential_plating_sum", a_loop_over_a_plate),
    **{
        f"{name}, {how}": Case("NormalNormal, PoissonGamma, BernoulliBeta, exponential_gamma", run)
        for name, each in POSTERIORS.items()
        for how, run in each.items()
    },
    "rates by name": Case("TestFixedModelGuide", rates_by_name),
    "names that stand twice": Case("SafetyTests", names_that_stand_twice),
}
