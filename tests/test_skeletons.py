"""The skeletons of CONTRIBUTING: short, and they do what those of the package do."""

import ast
from pathlib import Path

import pytest
import torch

import pyro_vae as pv
from pyro_vae.families.registry import REGISTRY
from skeletons import callback, network, prior

SKELETONS = sorted((Path(__file__).parent / "skeletons").glob("*.py"))
CONTRIBUTING = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
NETS = {"encoder": "MLP([8])", "decoder": "MLP([8])", "seed": 0}


@pytest.fixture
def mirrored(monkeypatch):
    """The skeleton's prior in the registry, as a contributor would list it."""
    monkeypatch.setitem(REGISTRY.structures, "Mirrored", prior.Mirrored)
    return "Mirrored(scale=0.5)"


@pytest.mark.parametrize("path", SKELETONS, ids=[p.stem for p in SKELETONS])
def test_a_skeleton_is_at_most_40_lines_and_in_contributing(path):
    text = path.read_text()
    (made,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert made.end_lineno is not None and made.end_lineno <= 40
    assert (
        f"tests/skeletons/{path.name}"
        in (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    )


def test_a_prior_of_ones_own_is_said_in_a_line(mirrored, tmp_path):
    vae = pv.VAE(6, 2, prior=mirrored, **NETS)
    x = (torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    before = vae.prior.loc.clone()
    pv.fit(vae, x, epochs=2, batch_size=20, progress=False)
    assert not torch.equal(vae.prior.loc, before)
    again = pv.load(vae.save(tmp_path))
    assert torch.equal(pv.elbo(again, x, seed=0), pv.elbo(vae, x, seed=0))
    assert pv.describe("Mirrored") is not None
    with pytest.raises(pv.SpecError, match="scale is a number greater than 0, got -1"):
        pv.VAE(6, 2, prior="Mirrored(scale=-1)", **NETS)
    with pytest.raises(pv.SpecError, match="Mirrored can be a prior, not a guide"):
        pv.VAE(6, 2, guide=mirrored, **NETS)


def test_its_density_integrates_to_one_and_its_draws_follow_it(mirrored):
    vae = pv.VAE(6, 1, prior=mirrored, **NETS)
    z = torch.linspace(-8, 8, 4001)[:, None]
    p = vae.prior()
    assert torch.trapezoid(p.log_prob(z).exp(), z[:, 0]).item() == pytest.approx(1, abs=1e-4)
    torch.manual_seed(0)
    draws = p.sample((20_000,))[:, 0]
    error = draws.std().item() / len(draws) ** 0.5
    assert abs(draws.mean().item()) < 5 * error
    second = draws.square()
    assert abs(second.mean().item() - 1.25) < 5 * second.std().item() / len(draws) ** 0.5


@pytest.mark.slow
def test_a_callback_of_ones_own_stops_and_resumes(tmp_path):
    def train(epochs, **how):
        vae = pv.VAE(6, 2, **NETS)
        stop = callback.StopAtTarget(0.05)
        return pv.fit(vae, x, epochs=epochs, batch_size=20, callbacks=[stop], progress=False, **how)

    x = (torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    whole = train(200)
    assert 1 < len(whole.history) < 200
    assert whole.history.gain.iloc[-1] >= 0.05 > whole.history.gain.iloc[-2]
    train(2, out=tmp_path / "run")
    resumed = train(200, resume=tmp_path / "run")
    assert resumed.history.gain.tolist() == whole.history.gain.tolist()


def test_a_network_of_ones_own_learns_its_ends():
    vae = pv.VAE((1, 4, 4), 2, encoder=network.Residual(8), decoder=network.Residual(8, blocks=1))
    x = torch.zeros(20, 1, 4, 4)
    pv.fit(vae, x, epochs=1, batch_size=10, progress=False)
    assert vae.sample(3, seed=0).shape == (3, 1, 4, 4)
