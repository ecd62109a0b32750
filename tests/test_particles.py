"""Models that do not broadcast over particles are refused, not averaged wrongly."""

import inspect
from collections import Counter
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import pyro_vae as pv
from pyro_vae.infer import ScoreFunction
from pyro_vae.infer.estimators.multisample import MultiSampleELBO
from pyro_vae.infer.estimators.table import ESTIMATORS

X = torch.linspace(-1, 2, 4)
OURS = {
    n: p.build
    for n, p in ESTIMATORS.items()
    if inspect.isclass(p.build) and issubclass(p.build, MultiSampleELBO)
}
RLOO_ONE_BY_ONE = partial(OURS["RLOO"], vectorize_particles=False)
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
    for build in (Trace_ELBO, RLOO_ONE_BY_ONE):
        figures = []
        for model in (right, read_as_data, summed, an_event):
            torch.manual_seed(0)
            figures.append(build(num_particles=4).loss(model, guide, X))
        assert figures == pytest.approx([figures[0]] * 4)


# One by one.

ONE_BY_ONE = [*OF_NORMALS, "RLOO scores", "RWS asleep"]


def of(name, together, k=3):
    """An estimator, and its guide: sites that depend on each other, in two plates."""
    name, _, how = name.partition(" ")
    options = {"sleep": 0.5} if how == "asleep" else {}
    elbo = OURS[name](num_particles=k, vectorize_particles=together, **options)
    return elbo, ScoreFunction()(in_plates) if how == "scores" else in_plates


def in_plates(x):
    loc = pyro.param("loc", torch.tensor([0.3, -0.2]))
    with pyro.plate("data", 4, dim=-1):
        z = pyro.sample("z", dist.Normal(loc, pyro.param("scale", torch.tensor(0.8))).to_event(1))
        pyro.sample("w", dist.Normal(z.sum(-1), 1.0))


def of_plates(x):
    """A model that broadcasts; ``slope`` is its own."""
    slope = pyro.param("slope", torch.tensor(0.7))
    with pyro.plate("data", 4, dim=-1):
        z = pyro.sample(
            "z", dist.Normal(pyro.param("a", torch.tensor(0.1)), 1).expand([2]).to_event(1)
        )
        w = pyro.sample("w", dist.Normal(slope * z[..., 0], 1.0))
        with pyro.plate("parts", 3, dim=-2):
            pyro.sample("x", dist.Normal(w * z[..., 1], 1.0), obs=x)


@pytest.fixture
def fixed_noise(monkeypatch):
    """The noise of three particles, drawn together or one by one: clear what it gives."""
    draws = torch.Generator().manual_seed(1)
    noise = {size: torch.randn(3, 1, *size, generator=draws) for size in [(4, 2), (4,)]}
    count = Counter()

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        if shape == (3, 4):  # of x, in a dream
            return self.loc
        size = (4, 2) if shape[-1] == 2 else (4,)
        eps = noise[size]
        if shape != eps.shape:
            eps = eps[count[size] % 3]
            count[size] += 1
        return self.loc + self.scale * eps.reshape(shape)

    normal = torch.distributions.Normal
    monkeypatch.setattr(normal, "rsample", rsample)
    monkeypatch.setattr(normal, "sample", lambda self, shape=(): rsample(self, shape).detach())
    return count


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_particles_one_by_one_are_those_of_one_pass(name, fixed_noise):
    """The same noise gives the same value and gradient; K = 3, which is a plate's size too."""
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    found = []
    for together in (True, False):
        fixed_noise.clear()
        with pyro.get_param_store().scope():
            elbo, own = of(name, together)
            elbo.max_plate_nesting = 2 + together
            loss = elbo.loss_and_grads(of_plates, own, x)
            store = pyro.get_param_store().named_parameters()
            found.append({"loss": torch.tensor(loss)} | {n: p.grad.clone() for n, p in store})
    assert {"loss", "loc", "scale", "a", "slope"} == found[0].keys()
    for key, value in found[0].items():
        assert value.abs().sum() > 1e-3, key
        assert torch.allclose(found[1][key].double(), value.double(), rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize("name", [n for n in OURS if not OURS[n].sequential])
def test_what_scores_further_values_goes_in_one_pass(name):
    with pytest.raises(ValueError, match="leave vectorize_particles=False out"):
        OURS[name](num_particles=2, vectorize_particles=False)


def test_particles_of_different_sites_are_not_compared():
    sizes = iter([1, 2])

    def changing(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        for i in range(next(sizes)):
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[0])

    with pytest.raises(ValueError, match="different sites"):
        RLOO_ONE_BY_ONE(num_particles=2).loss(changing, guide, X)


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


@pytest.mark.slow
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


READS = {
    "the mean of all": lambda w: w.mean(),
    "the first of all": lambda w: w.reshape(-1)[0],
    "a number": lambda w: float(w.reshape(-1)[-1]),
    "a share of all": lambda w: w.exp().sum(-1) / w.exp().sum(),
}


@pytest.mark.parametrize("reads", READS.values(), ids=READS)
def test_a_model_that_mixes_particles_is_refused(reads):
    """Such a model takes particles in one pass without an error, and scores others than it has."""

    def mixing(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(reads(w) * torch.ones(len(x)), 1.0), obs=x)

    def draws(x):
        loc = pyro.param("loc", torch.zeros(2))
        pyro.sample("w", dist.Normal(loc, 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"site 'x' of the model has log density .* alone"):
        OURS["RLOO"](num_particles=2).loss(mixing, draws, X)
