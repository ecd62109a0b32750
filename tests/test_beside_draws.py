"""Guides of more than draws (points, factors, auxiliary sites): right, or refused with a reason."""

import math
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from helpers.gradients import z_scores
from pyro_vae import ESTIMATORS, make_estimator
from pyro_vae.infer.estimators.soundness import check_and_nest

COPIES = 3000  # draws of a gradient
START = {"a": 0.4, "s": 0.7, "t": 0.5}
LINES = [
    f"{name}(gradient={rule}, num_particles={max(2, profile.least)})"
    for name, profile in ESTIMATORS.items()
    for rule in profile.gradients
    if rule not in profile.biased
]


def parameter(name):
    return pyro.param(f"q_{name}", lambda: torch.full((COPIES,), START[name]).double())


def model(x):
    with pyro.plate("copies", COPIES):
        t = pyro.sample("t", dist.Normal(torch.zeros(()).double(), 1.0)) if POINT in x else 0.0
        z = pyro.sample("z", dist.Normal(t, torch.ones(COPIES).double()))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.full((COPIES,), 0.7).double())


POINT, FACTOR, AUXILIARY = "point", "factor", "auxiliary"


def guide(x):
    a, s = parameter("a"), parameter("s")
    with pyro.plate("copies", COPIES):
        if POINT in x:
            pyro.sample("t", dist.Delta(parameter("t")))
        if AUXILIARY in x:
            a = pyro.sample("u", dist.Normal(a, 0.9), infer={"is_auxiliary": True})
        z = pyro.sample("z", dist.Normal(a, s))
        if FACTOR in x:
            pyro.factor("cost", 0.3 * s * z.square(), has_rsample=True)


def exact(kind, bound):
    """The gradient of a bound of one or two draws, by quadrature."""
    p = {name: torch.tensor(v).double().requires_grad_() for name, v in START.items()}
    nodes, mass = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(16))
    e, other = torch.cartesian_prod(nodes, nodes).unbind(1)
    mass = torch.cartesian_prod(mass, mass).prod(1) / (2 * math.pi)
    u = p["a"] + 0.9 * other if kind == AUXILIARY else p["a"]
    z, t = u + p["s"] * e, p["t"] if kind == POINT else torch.zeros(()).double()
    log_w = dist.Normal(t, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(torch.tensor(0.7))
    log_w = log_w - dist.Normal(u, p["s"]).log_prob(z)
    if kind == POINT:
        log_w = log_w + dist.Normal(0.0, 1.0).log_prob(t)
    if kind == AUXILIARY:
        log_w = log_w - dist.Normal(p["a"], 0.9).log_prob(u)
    if kind == FACTOR:
        log_w = log_w - 0.3 * p["s"] * z.square()
    if bound.num_particles == 1:
        value = (mass * bound(log_w[None])).sum()
    else:
        pair = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None]))
        value = (mass[:, None] * mass * bound(pair)).sum()
    names = [n for n in START if n != "t" or kind == POINT]
    return names, torch.stack(torch.autograd.grad(value, [p[n] for n in names]))


WHY = {
    POINT: "'t' is a point, which has no score: use VIMCO(num_particles=2) or Trace_ELBO",
    FACTOR: "the parameters that the factor 'cost' of this guide reads: use RLOO(num_particles=2)",
    AUXILIARY: "Pyro scores its draws by a cost without the site 'u', which the model has not",
}
LEAST = {POINT: 8, FACTOR: 7, AUXILIARY: 13}  # estimators that serve it


@pytest.mark.slow
@pytest.mark.parametrize("kind", WHY)
def test_every_estimator_is_right_or_refused(kind):
    served, refused, known = [], [], {}
    for line in LINES:
        estimator = make_estimator(line)
        with pyro.get_param_store().scope():
            try:
                check_and_nest(estimator, model, guide, [kind])
            except ValueError as why:
                refused.append(str(why))
                continue
            pyro.set_rng_seed(0)
            estimator.elbo.loss_and_grads(model, estimator.wrap(guide, torch.zeros(1)), [kind])
            store = pyro.get_param_store().named_parameters()
            gradients = {name[2:]: -p.grad for name, p in store}
        if estimator.ascends != "both":
            continue
        bound = estimator.bound
        if str(bound) not in known:
            known[str(bound)] = exact(kind, bound)
        names, wanted = known[str(bound)]
        found = torch.stack([gradients[n] for n in names], 1)
        assert z_scores(found, wanted).abs().max() < 5, line
        served.append(line)
    assert len(served) >= LEAST[kind], served
    assert any(re.search(re.escape(WHY[kind]), why) for why in refused)
