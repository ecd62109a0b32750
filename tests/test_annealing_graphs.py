"""Paths of annealing by a graph of the densities: the same bits, or the densities themselves."""

import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.evaluate.evidence import paths
from pyro_vae.infer.engine.capture import CaptureError, capture_function

pytestmark = pytest.mark.usefixtures("short_pilot")

HOLED = torch.tensor([[0.1, torch.nan, 0.3], [-1.0, 0.2, torch.nan]])
MODELS = {
    "bits": {"likelihood": "Bernoulli"},
    "missing cells": {"likelihood": "Normal(scale=learned)", "missing": True},
    "pseudo-inputs": {"likelihood": "Normal", "prior": "VampPrior(components=3)"},
    "positive z": {
        "likelihood": "Poisson",
        "prior": "Gamma(concentration=2)",
        "guide": "LogNormal",
    },
}


@pytest.fixture
def captured(monkeypatch):
    """Whether each graph that was asked for could be made."""
    made = []

    def capture(function, u):
        try:
            graph = capture_function(function, u)
        except CaptureError:
            made.append(False)
            raise
        made.append(True)
        return graph

    monkeypatch.setattr(paths, "capture_function", capture)
    return made


def both(vae, x, monkeypatch):
    """log p(x) as it is, and by a graph."""

    def run():
        return pv.ais(vae, x, temperatures=6, chains=4, leapfrog=2, seed=0).log_evidence

    plain = run()
    monkeypatch.setattr(paths, "WORTH", 20)  # the tuning and the walk have so many together
    return plain, run()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_graph_has_the_bits_of_the_densities(name, captured, monkeypatch):
    vae = pv.VAE(3, 2, encoder="MLP([5])", decoder="MLP([5])", seed=0, **MODELS[name])
    x = HOLED if vae.record.missing else vae.sample(2, seed=1)
    plain, graph = both(vae, x, monkeypatch)
    assert captured == [True]  # one shape of chains: its tuning has as many
    assert torch.equal(plain, graph)


def test_a_decoder_that_looks_at_values_goes_without(captured, monkeypatch):
    class Looking(nn.Module):
        """Bends where the mean of z is above zero."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 3)

        def forward(self, z):
            return self.inner(z) if z.mean() > 0 else self.inner(z).tanh()

    vae = pv.VAE(3, 2, likelihood="Normal", decoder=Looking(), encoder="MLP([5])", seed=0)
    plain, graph = both(vae, vae.sample(2, seed=1), monkeypatch)
    assert captured == [False]
    assert torch.equal(plain, graph)
