"""simuk drives a program, by a stand-in of its loop, as it is not installed."""

import sys
import types

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from helpers.linear import linear_vae
from pyro_vae.evaluate import simuk_sbc
from pyro_vae.evaluate.guide.sbc import SimukAdapter
from pyro_vae.evaluate.statistics import uniformity

METHODS = (  # of simuk's BackendAdapter, version of 2026
    "compute_single_rank", "get_posterior_predictive_samples", "get_prior_predictive_samples",
    "simulation_params_no_simulator", "simulation_params_from_simulator", "get_posterior_samples",
    "subsample", "replicate", "stop_if_cant_run_without_simulator",
)  # fmt: skip


class SBC:
    """What simuk's loop asks of an adapter, in its order."""

    def __init__(self, model):
        raise ValueError("model should be one of pymc.Model, bambi.Model, or MCMCKernel")

    def _get_seeds(self):
        rng = np.random.default_rng(self.seed)
        return rng.integers(0, 2**30, size=self.num_simulations)

    def run_simulations(self):
        a, n = self.adapter, self.num_simulations
        prior, predictive = a.get_prior_predictive_samples(n, self._seeds)
        prior, predictive = a.subsample(prior, predictive, self.seed, n)
        params = a.simulation_params_no_simulator(prior, predictive)
        while self._simulations_complete < n:
            i = self._simulations_complete
            data = a.replicate(predictive, i, params)
            draws = a.get_posterior_samples(
                params, data, self.sample_kwargs, self._seeds[i], self.method, i
            )
            for name in params.var_names:
                rank = a.compute_single_rank(self._transform, name, draws, i, params.ref_params)
                self.simulations[name].append(rank)
            self._simulations_complete += 1
        self.simulations = {name: np.stack(v) for name, v in self.simulations.items()}


@pytest.fixture
def simuk(monkeypatch):
    """The package's modules, as far as they are asked for."""
    package, adapters = types.ModuleType("simuk"), types.ModuleType("simuk.adapters")
    package.SBC, package.adapters = SBC, adapters
    adapters.backend_adapter = types.ModuleType("simuk.adapters.backend_adapter")
    for module in (package, adapters, adapters.backend_adapter):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def program(narrow=1.0):
    """A mean of several numbers, with the guide that is its posterior, or too narrow by half."""
    y = torch.zeros(4)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def guide(y):
        precision = 1 + len(y)
        pyro.sample("mu", dist.Normal(y.sum() / precision, narrow / precision**0.5))

    return pv.Program(model, guide, y)


@pytest.mark.slow
@pytest.mark.parametrize("narrow, uniform", [(1.0, True), (0.5, False)])
def test_ranks_are_uniform_where_the_guide_is_the_posterior(simuk, narrow, uniform):
    sbc = simuk_sbc(program(narrow), 200, num_samples=9, seed=0)
    sbc.run_simulations()
    ranks = sbc.simulations["mu"].ravel()
    assert ranks.shape == (200,) and ranks.min() >= 0 and ranks.max() <= 9
    p = uniformity(torch.tensor((ranks + 0.5) / 10), 10)[0]
    assert (p > 0.001) == uniform


def test_a_vae_has_an_observation_at_a_time_and_a_transform(simuk):
    vae = linear_vae()
    sbc = simuk_sbc(vae, 8, num_samples=9, transform=lambda name, z: z.mean(), seed=0)
    sbc.run_simulations()
    assert sbc.simulations["z"].shape == (8,)
    again = simuk_sbc(vae, 8, num_samples=9, transform=lambda name, z: z.mean(), seed=0)
    again.run_simulations()
    assert np.array_equal(again.simulations["z"], sbc.simulations["z"])


def test_an_adapter_has_all_that_simuk_names():
    adapter = SimukAdapter(program())
    assert all(callable(getattr(adapter, name)) for name in METHODS)
    assert adapter.var_names == ["mu"] and adapter.observed_vars == ["observations"]
    prior, predictive = adapter.get_prior_predictive_samples(5, [3])
    assert prior["mu"].sizes["sample"] == predictive["observations"].sizes["sample"] == 5
    assert prior["mu"].std() > 0 and predictive["observations"].std() > 0


def test_what_it_cannot_do_is_said(simuk):
    with pytest.raises(NotImplementedError, match="use prior"):
        SimukAdapter(program()).get_posterior_predictive_samples(1, [0], False)
    y = torch.zeros(4)

    def alone(y):
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    fixed = pv.Program(program()._functions[0], alone, y)
    with pytest.raises(ValueError, match="guide does not read the data"):
        simuk_sbc(fixed, 10)


def test_without_simuk_the_fix_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "simuk", None)
    with pytest.raises(ImportError, match="pip install simuk, or use calibration"):
        simuk_sbc(program(), 10)
