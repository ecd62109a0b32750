"""Programs that a newcomer writes: what is refused, and the words that say what to do."""

import re
from functools import partial

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import pyro_vae as pv

X = torch.tensor([[0.5, 1.0], [-1.0, 0.3], [0.2, -0.7]])
Y = torch.tensor([1.0, 0.2, -0.4])
GROUPS = torch.tensor([0, 1, 1])


@pytest.fixture(autouse=True)
def _store():
    with pyro.get_param_store().scope():
        yield


def regression(x, y=None):
    """Written for one draw: ``x @ w``."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, s), obs=y)


def regression_of_many(x, y=None):
    """The same, as the advice has it."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal((x * w).sum(-1), s), obs=y)


def groups(index, y):
    with pyro.plate("groups", 2):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(theta[index], 1.0), obs=y)


def groups_of_many(index, y):
    with pyro.plate("groups", 2):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(theta[..., index], 1.0), obs=y)


def drawing(loc, scale):
    """A guide of the regression."""

    def guide(x, y):
        pyro.sample("w", dist.Normal(loc, 1.0).to_event(1))
        pyro.sample("s", scale)

    return guide


def program(model, *args):
    return pv.Program(model, AutoNormal(model), *args, data=None)


MADE = {
    "regression": (regression, regression_of_many, X),
    "groups": (groups, groups_of_many, GROUPS),
}


@pytest.mark.parametrize("name", MADE)
def test_many_draws_of_a_program_of_one_are_refused_and_the_advice_mends_it(name):
    alone, together, x = MADE[name]
    with pytest.warns(UserWarning, match="one by one"):
        one = program(alone, x, Y)
    for line in ("RLOO(num_particles=2)", "CUBO(num_particles=2)", "Trace_ELBO(num_particles=2)"):
        with pytest.raises(ValueError, match="makes 2 draws at once, which this program does not"):
            pv.fit(one, epochs=1, estimator=line)
    with pytest.raises(ValueError, match=re.escape("theta[..., group] for theta[group]")):
        pv.compare_estimators(one, ["Trace_ELBO", "RLOO(num_particles=4)"], num_draws=4)
    with pytest.raises(ValueError, match="which this program does not allow"):
        pv.gaps(one, steps=1)
    many = program(together, x, Y)
    assert many.layout.why_loop == ""
    assert len(pv.fit(many, epochs=1, estimator="RLOO(num_particles=2)").history) == 1


NORMAL = dist.Normal(0.0, 1e-3)
REFUSED = {
    "a class": (lambda: pv.Program(regression, AutoNormal, X, Y), "got a class: make one, AutoNo"),
    "no data": (lambda: program(regression, X), "the model observes nothing"),
    "swapped": (
        lambda: pv.Program(drawing(torch.zeros(2), NORMAL), regression, X, Y, data=None),
        "the model before the guide",
    ),
    "shape": (
        lambda: pv.Program(regression, drawing(torch.zeros(3), NORMAL), X, Y, data=None),
        "the guide draws 'w' of shape (3,), and the model has (2,)",
    ),
    "support": (
        lambda: pv.Program(
            regression, drawing(torch.zeros(2), dist.Normal(-5.0, 1e-3)), X, Y, data=None
        ),
        "the guide draws 's' from Normal, outside the support of the model's HalfNormal",
    ),
    "DAIS": (
        lambda: pv.fit(
            program(regression_of_many, X, Y), epochs=1, callbacks=[pv.callbacks.DAIS(steps=2)]
        ),
        "auxiliary, as those of Pyro's AutoGuides are",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:draws of this program")
def test_a_program_is_refused_with_what_to_do(name):
    wrong, message = REFUSED[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        wrong()


@pytest.mark.slow
def test_the_weights_of_a_regression_are_no_collapsed_code(capfd):
    """The KL of what all observations share is little for each, and right."""
    x = X.repeat(70, 1)
    model = regression_of_many
    pv.fit(
        pv.Program(model, AutoNormal(model), x, x[:, 0]), epochs=3, batch_size=3, lr=0.05, seed=0
    )
    assert "next to nothing" not in capfd.readouterr().err


def test_one_evidence_is_of_no_observation():
    found = pv.log_evidence(program(regression_of_many, X, Y), num_samples=100, seed=0).summary()
    assert "nan" not in found
    assert "per observation" not in found.split(",")[0]


def outer_state(data, size, whole=None):
    """A state that all data share and that is summed out, and a plate of so many members."""

    def model(x):
        state = pyro.sample("state", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        with pyro.plate("data", len(data), size, whole) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + state, 1.0), obs=x if whole is not None else x[rows])

    def guide(x):
        with pyro.plate("data", len(data), size, whole) as rows:
            at = x if whole is not None else x[rows]
            pyro.sample("z", dist.Normal(at / 2, 0.8))

    return model, guide


def test_a_state_outside_a_plate_of_which_a_part_is_given_is_not_summed_out():
    """The log of a sum of products has no estimate without bias from some of the factors."""
    data = torch.tensor([0.3, 1.2, -0.5, 2.0])
    model, guide = outer_state(data, 2, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="'state' is summed out and stands outside the plate 'dat"):
        pv.Program(model, guide, data[[0, 2]], data=None)


def test_a_plate_that_draws_a_part_has_all_members_under_an_outer_state():
    data = torch.tensor([0.3, 1.2, -0.5, 2.0])
    program = pv.Program(*outer_state(data, 2), data, data=None)
    n = len(data)
    both = torch.tensor([0.3, 0.7]).log()[:, None] + torch.stack([
        dist.MultivariateNormal(torch.full((n,), shift), 2 * torch.eye(n)).log_prob(data)[None]
        for shift in (1.0, 0.0)
    ])  # fmt: skip
    found = pv.log_evidence(program, num_samples=4000, num_simulated=0, seed=0)
    z = (found.log_evidence - both.logsumexp(0)) / found.standard_error
    assert z.abs().item() < 5


MASK = torch.tensor([True, False, True])


def holes(y, scored=True):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)), poutine.mask(mask=MASK if scored else torch.tensor(True)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=None if scored else MASK)


def guide_of_holes(y, scored=True, masked=True):
    mu = pyro.sample("mu", dist.Normal(0.2, 0.7))
    with pyro.plate("data", len(y)), poutine.mask(mask=~MASK if masked else torch.tensor(True)):
        if not scored:
            pyro.sample("y_unobserved", dist.Normal(mu, 1.2))


def test_cells_that_model_and_guide_mask_apart_are_refused_and_the_advice_has_the_evidence():
    with pytest.raises(ValueError, match="mask other cells of 'y_unobserved'"):
        pv.Program(holes, AutoNormal(holes), Y, scored=False, data=None)
    with pytest.raises(ValueError, match="mask other cells of 'y_unobserved'"):
        pv.Program(holes, partial(guide_of_holes, masked=False), Y, scored=False, data=None)
    seen = Y[MASK]
    covariance = torch.eye(2) + torch.ones(2, 2)
    exact = dist.MultivariateNormal(torch.zeros(2), covariance).log_prob(seen)
    for scored in (True, False):
        program = pv.Program(holes, guide_of_holes, Y, scored=scored, data=None)
        found = pv.log_evidence(program, num_samples=4000, seed=0)
        assert abs(found.log_evidence - exact) < 5 * found.standard_error
    with pytest.raises(ValueError, match="cells of 'y_unobserved' are masked"):
        pv.log_evidence(program, proposal="auto")
