"""Models of programs compared by log p(x), and estimators recommended for them."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

import pyro_vae as pv
from helpers.programs import PROGRAMS

X = torch.randn(60, generator=torch.Generator().manual_seed(0)) * 1.3


@pytest.fixture(autouse=True)
def _store():
    with pyro.get_param_store().scope():
        yield


def noisy(noise, x=X, family=dist.Normal, guide_width=1.0):
    """z ~ N(0, 1), x ~ N(z, noise), so that x ~ N(0, (1 + noise^2)^.5); its exact guide."""
    share = 1 / (1 + noise**2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", family(z, noise), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(guide_width), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(share * x, width * (1 - share) ** 0.5))

    return pv.Program(model, guide, x)


def test_programs_are_compared_by_their_exact_figures():
    programs = {str(noise): noisy(noise) for noise in (0.3, 0.9, 3.0)}
    found = pv.compare(programs, num_samples=20, seed=0)
    for name in programs:
        exact = dist.Normal(0.0, (1 + float(name) ** 2) ** 0.5).log_prob(X)
        assert abs(torch.tensor(found.pointwise[name].to_numpy()) - exact).max() < 1e-4
    assert found.table.index[0] == "0.9"
    assert found.weights.sum() == pytest.approx(1)


def test_a_vae_stands_beside_a_program_of_the_same_data():
    vae = pv.VAE(1, 1, likelihood="Normal(scale=0.9)", encoder="MLP([])", decoder="MLP([])", seed=0)
    found = pv.compare({"vae": vae, "program": noisy(0.9)}, X[:, None], num_samples=30, seed=0)
    assert found.pointwise.shape == (60, 2)
    with pytest.raises(ValueError, match="vae is a VAE, which carries no data: give x"):
        pv.compare({"vae": vae, "program": noisy(0.9)})


OTHERS = {
    "values": (lambda: noisy(0.9, X + 1), r"reads '0' as [-.\d]+ in row 0"),
    "number": (lambda: noisy(0.9, X[:50]), "has 60 observations, b 50: compare models of the same"),
    "measure": (
        lambda: noisy(0.9, X.abs().round(), lambda z, s: dist.Poisson(z.exp())),
        "gives densities of cell 0, b probabilities",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_figures_of_other_data_are_not_compared(name):
    make, message = OTHERS[name]
    first = noisy(0.9, X.abs().round()) if name == "measure" else noisy(0.9)
    with pytest.raises(ValueError, match=message):
        pv.compare({"a": first, "b": make()}, num_samples=5)


def test_a_program_is_of_its_own_data_so_that_no_stack_has_it():
    with pytest.raises(ValueError, match="a is a Program, which is of its own data: a stack draws"):
        pv.stack({"a": noisy(0.9), "b": noisy(0.3)}, [0.5, 0.5])
    with pytest.raises(ValueError, match=r"give models, pyro_vae\.VAE or pyro_vae.Program"):
        pv.compare([noisy(0.9), 3])


def test_a_stack_scores_no_data_that_its_models_read_in_other_units():
    table = pv.load_data("digits").train.flatten(1)[:30, 20:23] / 16
    a, b = (
        pv.VAE(pv.Record([pv.Block("x", (3,), "observed")]), 2, likelihood="Normal", seed=seed)
        for seed in (0, 1)
    )
    stacked = pv.stack({"a": a, "b": b}, [0.5, 0.5])
    assert stacked.log_evidence(table, num_samples=20, seed=0).log_evidence.shape == (30,)
    b.record.cells = lambda x: 2 * x  # a record that reads its columns in half the unit
    with pytest.raises(ValueError, match="densities in different units do not compare"):
        stacked.log_evidence(table, num_samples=20, seed=0)


@pytest.mark.slow
def test_an_estimator_is_recommended_for_a_program_that_stays_as_it_is():
    program = noisy(0.9, guide_width=0.2)
    found = pv.recommend_estimator(program, seconds=0.2, batch_size=20, lr=0.05, seed=0)
    assert {"Trace_ELBO", "TraceMeanField_ELBO"} <= set(found.table.index)
    assert found.table.gain.iloc[0] > 0.1
    assert program.state_dict()["width"].item() == pytest.approx(torch.tensor(0.2).log().item())
    assert found.estimator in repr(found)


@pytest.mark.slow
def test_where_nothing_can_be_held_out_the_bound_is_of_the_training_data():
    program, exact = PROGRAMS["Bayesian regression"]()
    found = pv.recommend_estimator(program, seconds=0.1, seed=0)
    assert found.table.bound.iloc[0] < exact + 0.1
    assert "nan" not in found.why
    program, _ = PROGRAMS["Gaussian mixture"]()
    found = pv.recommend_estimator(program, seconds=0.1, validation=0.25, seed=0)
    assert found.estimator == "TraceEnum_ELBO"
