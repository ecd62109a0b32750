"""Folders that version 0.1.0 saved load, and give the figures that they gave then."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae as pv

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
