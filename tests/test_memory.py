"""Memory that is freed within an act is there for what comes next."""

import resource
import subprocess
import sys

import pytest
import torch

import pyro_vae as pv
from pyro_vae.core import memory
from pyro_vae.core.acting import evaluating
from pyro_vae.core.memory import keeping_memory

PAGES = 2**26 // resource.getpagesize()  # of an array of 64 MiB, more than glibc ever keeps


def pages_asked_for(times: int = 1) -> int:
    """How often the system had to give a page, while arrays of 64 MiB came and went."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.fixture(autouse=True)
def glibc(monkeypatch):
    if pages_asked_for(2) < PAGES:
        pytest.skip("the allocator of this machine keeps what is freed, or has huge pages")


def test_an_act_asks_for_its_memory_once():
    vae = pv.VAE(3, 2, seed=0)
    with evaluating(vae):
        torch.ones(2**24)
        assert pages_asked_for(5) < PAGES / 10


def test_training_asks_for_its_memory_once():
    asked = []

    class Asking(pv.callbacks.Callback):
        def after_step(self, loss, n):
            asked.append(pages_asked_for())

    pv.fit(
        pv.VAE(3, 2, seed=0),
        torch.rand(20, 3).round(),
        epochs=1,
        batch_size=5,
        callbacks=[Asking()],
        progress=False,
    )
    assert max(asked[1:]) < PAGES / 10


def test_an_act_within_another_ends_nothing(monkeypatch):
    told = []
    monkeypatch.setattr(memory, "_tell", told.append)
    with keeping_memory():
        with pytest.raises(ValueError), keeping_memory():
            raise ValueError
        assert told == [memory.KEPT]
    assert told == [memory.KEPT, memory.USUAL]


def test_who_tells_the_allocator_is_heeded():
    """The environment is read once a process."""
    script = (
        "from tests.test_memory import PAGES, pages_asked_for\n"
        "from pyro_vae.core.memory import keeping_memory\n"
        "with keeping_memory():\n"
        "    assert pages_asked_for(5) > PAGES"
    )
    told = {"MALLOC_TRIM_THRESHOLD_": "1000000", "PATH": ""}
    subprocess.run([sys.executable, "-c", script], env=told, check=True)
