"""Programs with latent sites that hang on a summed state, and with sites that are computed."""

import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import config_enumerate
from pyro.infer.reparam import LocScaleReparam

import pyro_vae as pv
from pyro_vae.evaluate.evidence import paths

X = torch.tensor([0.4, -2.0, 1.5, 3.0])
WEIGHTS, CENTRES = torch.tensor([0.3, 0.5, 0.2]), torch.tensor([-2.0, 0.0, 2.0])


@pytest.fixture(autouse=True)
def _store(monkeypatch):
    monkeypatch.setattr(paths, "PILOT", 50)  # moves by which chains are tuned
    with pyro.get_param_store().scope():
        yield


def states():
    """A latent site whose prior is a mixture over a state that is summed out, and another one."""

    @config_enumerate
    def model(x):
        with pyro.plate("data", len(x)):
            h = pyro.sample("h", dist.Normal(0.0, 1.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS))
            z = pyro.sample("z", dist.Normal(CENTRES[k], 0.5))
            pyro.sample("x", dist.Normal(z + h, 0.7), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(0.8))
        with pyro.plate("data", len(x)):
            h = pyro.sample("h", dist.Normal(x / 2, width))
            pyro.sample("z", dist.Normal(0.7 * (x - h), 0.9))

    parts = dist.Normal(CENTRES, math.sqrt(1 + 0.25 + 0.49)).log_prob(X[:, None])
    return pv.Program(model, guide, X), (WEIGHTS.log() + parts).logsumexp(1)


def deterministic():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(pyro.deterministic("twice", 2 * z), 0.7), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.4 * x, 0.5))

    return pv.Program(model, guide, X), dist.Normal(0.0, math.sqrt(4.49)).log_prob(X)


def reparametrized():
    @poutine.reparam(config={"z": LocScaleReparam(0.0)})
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(1.0, 2.0))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z_decentered", dist.Normal(0.45 * (x - 1), 0.5))

    return pv.Program(model, guide, X), dist.Normal(1.0, math.sqrt(4.49)).log_prob(X)


CASES = {"states": states, "deterministic": deterministic, "reparametrized": reparametrized}
WAYS = {
    "wide": lambda p: pv.log_evidence(p, num_samples=500, wide=0.3, num_simulated=0, seed=0),
    "auto": lambda p: pv.log_evidence(p, num_samples=500, proposal="auto", seed=0),
    "ais": lambda p: pv.ais(p, temperatures=20, chains=30, leapfrog=2, seed=0),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, way",
    [("states", "wide"), ("states", "ais"), ("deterministic", "auto"), ("reparametrized", "ais")],
)
def test_log_p_is_the_closed_form_by_every_proposal(name, way):
    """A state that is summed out gives a latent site its prior: annealing starts from that."""
    program, exact = CASES[name]()
    found = WAYS[way](program)
    z = (found.log_evidence - exact) / found.standard_error
    assert z.abs().max() < 4 and found.standard_error.max() < 0.5


@pytest.mark.parametrize("name", CASES)
def test_observations_are_drawn_from_the_model(name):
    """What is computed stays as it is: a plate would draw its event, of all members, again."""
    program, _ = CASES[name]()
    assert not program.why_not_simulated
    found = pv.log_evidence(program, num_samples=500, num_simulated=4, seed=0).simulated
    assert found.gap < 0.05
    drawn = torch.cat([x for _, x in program.simulate(4000, None, 4000)])
    centre = {"states": (WEIGHTS * CENTRES).sum().item(), "reparametrized": 1.0}.get(name, 0.0)
    assert abs(drawn.mean() - centre) < 4 * drawn.std() / math.sqrt(4000)
    assert drawn.std().item() == pytest.approx({"states": 1.92}.get(name, 4.49**0.5), rel=0.05)


@pytest.mark.slow
def test_a_bound_with_draws_beside_its_states_is_not_exact():
    """Its draws spread as those of log p(x, z) / q(z), with the states summed out."""
    program, _ = states()
    some = program.observations[:2]
    drawn = pv.elbo_draws(program, some, "TraceEnum_ELBO", num_draws=40, seed=0).posterior["elbo"]
    values = drawn.to_numpy().reshape(40, -1)
    mean = pv.elbo(program, some, num_samples=2000, seed=1).numpy()
    z = (values.mean(0) - mean) / (values.std(0) * math.sqrt(1 / 40 + 1 / 2000))
    assert (values.std(0) > 0.1).all() and abs(z).max() < 4
    found = pv.compare_estimators(
        program, some, ["TraceEnum_ELBO"], reference="TraceEnum_ELBO", num_draws=4, burn_in=1
    )
    assert found.reference.item() == "TraceEnum_ELBO, 16 draws"
