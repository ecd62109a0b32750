"""log p(x) of programs by proposals and paths beyond their guide; models of programs compared."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from helpers.programs import PROGRAMS
from pyro_vae.evaluate.evidence import paths
from pyro_vae.program.line import RealLine

Y = torch.tensor([0.0, 3.0, 7.0])


@pytest.fixture(autouse=True)
def _store():
    with pyro.get_param_store().scope():
        yield


@pytest.fixture(autouse=True)
def short_pilots(monkeypatch):
    """Chains are tuned by fewer moves than they are for users."""
    monkeypatch.setattr(paths, "PILOT", 50)


def rates(width=0.6, together=False):
    """Poisson counts with Gamma rates, whose log p(y) is negative binomial."""
    fixed = together

    def model(y):
        with pyro.plate("data", len(Y) if fixed else len(y)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            pyro.sample("y", dist.Poisson(rate), obs=y)

    def guide(y):
        with pyro.plate("data", len(Y) if fixed else len(y)):
            pyro.sample("rate", dist.LogNormal(((y + 2) / 2).log(), width))

    return pv.Program(model, guide, Y)


EXACT = dist.NegativeBinomial(2.0, torch.tensor(0.5)).log_prob(Y)
WAYS = {
    "wide": lambda p: pv.log_evidence(p, num_samples=1000, wide=0.5, num_simulated=0, seed=0),
    "auto": lambda p: pv.log_evidence(p, num_samples=1000, proposal="auto", seed=0),
    "ais": lambda p: pv.ais(p, temperatures=20, chains=60, leapfrog=2, seed=0),
    "ais from the guide": lambda p: pv.ais(
        p, temperatures=10, chains=60, leapfrog=2, start="guide", seed=0
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True], ids=["rows", "one row"])
@pytest.mark.parametrize("way", WAYS)
def test_other_proposals_and_paths_agree_with_the_closed_form(way, together):
    program = rates(together=together)
    assert program.layout.whole == together
    found = WAYS[way](program)
    assert found.log_evidence.shape == (3,)
    z = (found.log_evidence - EXACT) / found.standard_error.clamp_min(1e-3)
    assert z.abs().max() < 5
    assert (found.standard_error > 0).all() and found.standard_error.max() < 0.2


@pytest.mark.slow
def test_annealing_mends_a_guide_that_is_too_narrow():
    narrow = rates(width=0.03)
    guide = pv.log_evidence(narrow, num_samples=300, num_simulated=0, seed=0)
    better = pv.log_evidence(narrow, num_samples=300, proposal="auto", seed=0)
    assert (guide.log_evidence - EXACT).abs().mean() > 0.2
    assert (better.log_evidence - EXACT).abs().max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bayesian regression", "hierarchical, subsampled"])
def test_global_latents_have_one_annealed_evidence(name):
    program, exact = PROGRAMS[name]()
    found = pv.ais(program, temperatures=40, chains=60, leapfrog=3, seed=0)
    assert abs(found.log_evidence - exact) < 5 * found.standard_error + 0.02
    auto = pv.log_evidence(program, num_samples=1000, proposal="auto", seed=0)
    assert abs(auto.log_evidence - exact) < 5 * auto.standard_error + 0.02


@pytest.mark.slow
def test_both_sides_of_a_program_hold_the_exact_figure():
    found = pv.bdmc(rates(), 60, temperatures=15, chains=20, leapfrog=2, seed=0)
    counts = rates().packing.unpack(found.x)[0][0]
    exact = dist.NegativeBinomial(2.0, torch.tensor(0.5)).log_prob(counts)
    for side, sign in ((found.lower, 1), (found.upper, -1)):
        gap = sign * (exact - side.log_evidence)
        error = gap.std() / math.sqrt(60)
        assert -5 * error - 1e-3 < gap.mean() < 0.05 + 5 * error
    assert found.gap > -5 * found.gap_error


REFUSED = {
    "attend, infer, repeat": "'there0' is discrete, and has no gradient to move along",
    "AutoNormal": "the density of this guide at a given z is not known",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_moved_is_refused_with_the_reason(name):
    program, _ = PROGRAMS[name]()
    for act in (
        lambda: pv.ais(program, temperatures=3, chains=2, start="guide"),
        lambda: pv.log_evidence(program, num_samples=30, wide=0.5, num_simulated=0),
    ):
        with pytest.raises(ValueError, match=REFUSED[name]):
            act()


@pytest.mark.slow
def test_a_guide_without_a_density_is_no_matter_from_the_prior():
    program, exact = PROGRAMS["AutoNormal"]()
    found = pv.ais(program, temperatures=30, chains=60, leapfrog=2, seed=0)
    auto = pv.log_evidence(program, num_samples=500, proposal="auto", seed=0)
    for one in (found, auto):
        assert ((one.log_evidence - exact).abs() < 5 * one.standard_error + 1e-3).all()
    with pytest.raises(ValueError, match="'there0' is discrete"):
        pv.log_evidence(PROGRAMS["attend, infer, repeat"]()[0], proposal="auto")


def test_the_split_on_the_line_is_that_of_the_draws():
    program = rates()
    with torch.no_grad():
        line = RealLine(program, program.observations)
        pyro.set_rng_seed(0)
        drawn = program.densities()(program.observations).draw(5)
        u = line.coordinates(drawn.values)
    torch.testing.assert_close(u, drawn.values["rate"].log()[..., None])
    torch.testing.assert_close(line.log_likelihood(u), drawn.log_likelihood)
    torch.testing.assert_close(line.log_prior(u), drawn.log_prior + u[..., 0])
    torch.testing.assert_close(line.log_guide(u), drawn.log_guide + u[..., 0])
