"""Memory that is freed within an act is there for what comes next."""

import json
import os
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
TIMES = 10


def pages_asked_for() -> int:
    """How often the system had to give a page, while arrays of 64 MiB came and went.

    A larger one comes first, so that small ones that settle in its place leave room.
    """
    torch.ones(2**24 + 2**22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


class Asking(pv.callbacks.Callback):
    """Asks after each step."""

    def __init__(self):
        self.asked = []

    def after_step(self, loss, n):
        self.asked.append(pages_asked_for())


def ask_everywhere() -> list[int]:
    """Outside of acts, within an evaluation, and within a training."""
    vae, asking = pv.VAE(3, 2, seed=0), Asking()
    asked = [pages_asked_for()]
    with evaluating(vae):
        asked.append(min(pages_asked_for() for _ in range(4)))
    x = torch.rand(20, 3).round()
    pv.fit(vae, x, epochs=1, batch_size=5, callbacks=[asking], progress=False)
    return [*asked, min(asking.asked)]


def asked_in_a_new_process(**told: str) -> list[int]:
    """What no earlier test has left holes in."""
    script = "from tests.test_memory import ask_everywhere; print(ask_everywhere())"
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", script], env=plain | told, check=True, capture_output=True, text=True
    )
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
def test_an_act_asks_for_its_memory_once():
    outside, evaluation, training = asked_in_a_new_process()
    if outside < TIMES * PAGES / 2:
        pytest.skip("the allocator of this machine keeps what is freed, or has huge pages")
    assert max(evaluation, training) < TIMES * PAGES / 3


@pytest.mark.slow
def test_who_tells_the_allocator_is_heeded():
    """The environment is read once a process."""
    outside, *acts = asked_in_a_new_process(MALLOC_TRIM_THRESHOLD_="1000000")
    if outside < TIMES * PAGES / 2:
        pytest.skip("the allocator of this machine keeps what is freed, or has huge pages")
    assert min(acts) > TIMES * PAGES / 2


def test_an_act_within_another_ends_nothing(monkeypatch):
    told = []
    monkeypatch.setattr(memory, "_tell", told.append)
    with keeping_memory():
        with pytest.raises(ValueError), keeping_memory():
            raise ValueError
        assert told == [memory.KEPT]
    assert told == [memory.KEPT, memory.USUAL]
