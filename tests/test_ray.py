"""Sweeps on a Ray cluster of two workers, where the extra is installed."""

from pathlib import Path

import numpy as np
import pytest

import pyro_vae as pv

pytestmark = [pytest.mark.slow, pytest.mark.process]

RUN = {"data": "digits", "epochs": 1, "latent_dim": 2, "encoder": "MLP([8])", "decoder": "MLP([8])"}


def test_a_cluster_of_two_trains_what_this_machine_trains(tmp_path):
    """Runs that share no disk with us come back whole, and a failure is a row."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert ray.cluster_resources()["CPU"] == 2
        configs = [RUN | {"prior": p} for p in ("Normal", "Gamma", "Laplace")]  # Gamma: no guide
        there = pv.sweep(configs, tmp_path / "there", address="auto")
    finally:
        ray.shutdown()
    here = pv.sweep([configs[0], configs[2]], tmp_path / "here")
    assert there.error.astype(bool).tolist() == [False, True, False]
    assert "choose a guide with the prior's support" in there.error[1]
    figures = there.elbo_test[[0, 2]].to_numpy()
    assert np.array_equal(figures, here.elbo_test.to_numpy())
    for folder, prior in zip(there.folder[[0, 2]], ("Normal", "Laplace"), strict=True):
        assert pv.load(Path(folder)).describe()["prior"] == prior
