"""Folders that version 0.1.0 saved load, and give the figures that they gave then."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae as pv

NETS = {"encoder": "MLP([5])", "decoder": "MLP([5])", "seed": 0}
SAVED = Path(__file__).parent / "fixtures" / "saved"
EXPECTED = json.loads((SAVED / "expected.json").read_text())
DATA = {"vae": "bits", "layers": "real", "missing": "holes", "vamp": "bits", "m2": "bits"}


def observations(kind, vae):
    with np.load(SAVED / "data.npz") as arrays:
        x = torch.tensor(arrays[DATA[kind]])
    return vae.labelled(x, torch.arange(20) % 4 - 1) if kind == "m2" else x


@pytest.mark.parametrize("kind", DATA)
def test_an_older_folder_loads_and_gives_its_figures(kind):
    vae = pv.load(SAVED / kind)
    elbo = pv.elbo(vae, observations(kind, vae), num_samples=3, seed=1)
    torch.testing.assert_close(elbo, torch.tensor(EXPECTED[kind]["elbo"]), rtol=1e-4, atol=1e-4)


def test_an_older_run_folder_loads():
    x = pv.load_data("digits").test[:5]
    run = pv.load(SAVED / "run")
    assert pv.elbo(run, (x > 0.5).float(), seed=0).isfinite().all()


class Mine(pv.VAE):
    """A class of the user's."""


def test_a_subclass_is_given_again_and_never_turned_into_its_parent(tmp_path):
    vae = Mine(3, 2, **NETS)
    vae.save(tmp_path)
    with pytest.raises(ValueError, match=r"a class of your own .*Mine\): load\(folder, cls=Mine\)"):
        pv.load(tmp_path)
    again = pv.load(tmp_path, cls=Mine)
    assert type(again) is Mine and torch.equal(again.sample(2, seed=0), vae.sample(2, seed=0))
    pv.VAE(3, 2, **NETS).save(tmp_path)
    assert type(pv.load(tmp_path)) is pv.VAE
    with pytest.raises(ValueError, match=r"the folder holds a VAE, and cls= is .*Mine"):
        pv.load(tmp_path, cls=Mine)


def test_a_description_says_kind_format_and_the_checksum_of_its_weights(tmp_path):
    pv.M2(3, 2, 4, merge="MLP([5])", **NETS).save(tmp_path / "m2")
    text = (tmp_path / "m2" / "model.toml").read_text()
    assert "format = 2" in text and 'kind = "M2"' in text
    pv.VAE(3, 2, **NETS).save(tmp_path)
    later = (tmp_path / "model.toml").read_text().replace("format = 2", "format = 3")
    (tmp_path / "model.toml").write_text(later)
    with pytest.raises(ValueError, match=r"has the format 3, .* install a newer one"):
        pv.load(tmp_path)


def test_a_save_that_is_cut_off_is_never_half_a_model(tmp_path, monkeypatch):
    """Whatever write fails, the folder holds the model of before or says that it is damaged."""
    old, new = pv.VAE(3, 2, **NETS), pv.VAE(3, 2, **{**NETS, "seed": 1})
    real = Path.replace
    for fails in range(2):
        folder = old.save(tmp_path / str(fails))
        count = iter(range(2))

        def replace(path, target, count=count, fails=fails):
            if next(count) == fails:
                raise OSError("no space left on device")
            return real(path, target)

        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="no space"):
            new.save(folder)
        monkeypatch.setattr(Path, "replace", real)
        if fails == 0:
            assert torch.equal(pv.load(folder).sample(2, seed=0), old.sample(2, seed=0))
        else:
            with pytest.raises(ValueError, match="damaged or of another save"):
                pv.load(folder)


def test_loading_leaves_the_global_generator(tmp_path):
    pv.VAE(3, 2, **NETS).save(tmp_path)
    before = torch.get_rng_state()
    pv.load(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_shared_weights_are_saved(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Linear(3, 3)
            self.two = self.one

        def forward(self, x):
            return self.two(self.one(x).relu())

    vae = pv.VAE(3, 2, encoder=Tied(), decoder="MLP([5])", seed=0)
    again = pv.load(vae.save(tmp_path), encoder=Tied())
    assert torch.equal(again.encode(torch.ones(2, 3)).mean, vae.encode(torch.ones(2, 3)).mean)
