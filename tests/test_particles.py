"""Models that do not broadcast over particles are refused, not averaged wrongly."""

import inspect

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import pyro_vae as pv
from pyro_vae.infer.estimators.multisample import MultiSampleELBO
from pyro_vae.infer.estimators.table import ESTIMATORS

X = torch.linspace(-1, 2, 4)
OURS = {
    n: p.build
    for n, p in ESTIMATORS.items()
    if inspect.isclass(p.build) and issubclass(p.build, MultiSampleELBO)
}
OF_NORMALS = ("RLOO", "VIMCO", "DReG", "GDReG", "TVO", "RWS", "CUBO")


@pytest.fixture(autouse=True)
def own_store():
    with pyro.get_param_store().scope():
        yield


def guide(x):
    pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.3)), 1.0))


def right(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def read_as_data(x):
    """As many particles as data: particle k would score datum k alone."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z.reshape(-1), 1.0), obs=x)


def summed(x):
    """Over particles too."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x)


def an_event(x):
    """The particles' dimension moves to where the data's would be: four times too large."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z * torch.ones(len(x)), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("model", [read_as_data, summed])
@pytest.mark.parametrize("name", OF_NORMALS)
def test_a_model_that_does_not_broadcast_is_refused(name, model):
    for validate in (True, False):
        refused = pytest.raises(ValueError, match=r"particles in one pass[\s\S]*one by one")
        with pyro.validation_enabled(validate), refused:
            OURS[name](num_particles=4).loss_and_grads(model, guide, X)


@pytest.mark.parametrize("name", OF_NORMALS)
def test_a_density_keeps_no_dimension_that_is_no_plate(name):
    with pyro.validation_enabled(False), pytest.raises(ValueError, match="no plate of 4"):
        OURS[name](num_particles=4, max_plate_nesting=1).loss_and_grads(an_event, guide, X)


def test_the_advice_works():
    """One by one the wrong models are right: the same figure as the right one's."""
    figures = []
    for model in (right, read_as_data, summed, an_event):
        torch.manual_seed(0)
        figures.append(Trace_ELBO(num_particles=4).loss(model, guide, X))
    assert figures == pytest.approx([figures[0]] * 4)


@pytest.mark.parametrize("name", OF_NORMALS)
def test_what_is_random_or_broadcasts_is_served(name):
    def dropping(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            noise = torch.nn.functional.dropout(torch.ones(2))
            pyro.sample("x", dist.Normal(z + noise, 1.0), obs=x[rows])

    models = (
        [right] if name in ("VIMCO", "DReG", "GDReG", "TVO", "RWS", "CUBO") else [right, dropping]
    )
    for model in models:
        loss = OURS[name](num_particles=3).loss_and_grads(model, guide, X)
        assert loss == loss


@pytest.mark.parametrize("name", OURS)
def test_a_program_without_sites_has_no_loss(name):
    """Pyro's own tests have both: nothing, and a guide that has nothing to draw."""

    def empty(x):
        pyro.param("a", torch.tensor(0.5))

    def observed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("a", torch.tensor(0.5)), 1.0), obs=x)

    elbo = OURS[name]()
    assert elbo.loss_and_grads(empty, empty, X) == elbo.loss(empty, empty, X) == 0
    exact = -dist.Normal(0.5, 1.0).log_prob(X).sum().item()
    elbo = OURS[name]()
    assert elbo.loss_and_grads(observed, empty, X) == pytest.approx(exact, rel=1e-5)
    slope = pyro.param("a").grad.item()
    if name != "CUBO":
        assert slope == pytest.approx((0.5 - X).sum().item(), rel=1e-5, abs=1e-5)
    loss = SVI(observed, empty, pv.infer.make_optimizer("Adam", 0.1), OURS[name]()).step(X)
    assert loss == pytest.approx(exact, rel=1e-5)
