"""Annealing without its long pilot, where what is asked of it is that it runs."""

import pytest

from pyro_vae.evaluate.evidence import paths


@pytest.fixture(autouse=True)
def short_pilot(monkeypatch):
    """The lengths of the steps are found in a few of the 200 moves."""
    monkeypatch.setattr(paths, "PILOT", 4)
