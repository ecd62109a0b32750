"""What every test starts from, and what many of them share."""
# ruff: noqa: E402

import gc

gc.disable()  # until tests run: nothing that is imported goes, and a sixth of the time went to look

import atexit
import os
import random
from pathlib import Path

import matplotlib
import numpy as np
import pyro
import pytest
import torch
from matplotlib import pyplot

from pyro_vae.infer.engine.lowering import for_cpu
from pyro_vae.infer.estimators.learner import Learner

from . import gradients

matplotlib.use("Agg")
os.environ.setdefault("PYRO_VAE_MEASURE", "0")  # bits do not hang on a busy machine's clock
torch.set_num_threads(1)  # the models are small: threads would only wait for each other


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """What is imported stays to the end, so no collection of garbage need walk through it."""
    gc.collect()
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # or what keeps count of objects reports leaks


@pytest.fixture(autouse=True)
def fresh_pyro():
    """Every test starts from a seed, an empty parameter store and Pyro's validation."""
    pyro.clear_param_store()
    random.seed(0)
    np.random.seed(0)
    # Without an accelerator torch.manual_seed keeps the formatted stack for one, in ms.
    some = torch.accelerator.is_available()
    (torch.manual_seed if some else torch.default_generator.manual_seed)(0)
    pyro.enable_validation(True)
    yield
    pyro.clear_param_store()


@pytest.fixture
def close_figures():
    """Figures that a test draws are closed after it."""
    yield
    pyplot.close("all")


@pytest.fixture(autouse=True)
def fresh_generator(request, monkeypatch):
    """The generator of a module's data starts anew in every test, whatever ran before."""
    if hasattr(getattr(request.node, "module", None), "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))


@pytest.fixture(scope="session")
def data_root():
    """The folder of MNIST and the tables; a test that needs it is skipped without it."""
    root = Path(os.environ.get("PYRO_VAE_DATA", Path(__file__).parents[2] / "../shared/data"))
    if not (root / "MNIST").exists():
        pytest.skip("set PYRO_VAE_DATA to the folder that holds MNIST/")
    return root


@pytest.fixture
def bits():
    """Four bits."""
    return gradients.bit_model(4)


@pytest.fixture
def linear():
    """A linear Gaussian model, whose ELBO is a polynomial of its parameters."""
    return gradients.linear_model()


@pytest.fixture
def small():
    """A linear Gaussian model with one z and a learned prior."""
    return gradients.learned_normal_model()


@pytest.fixture
def wandered(monkeypatch):
    """What control variates learn starts away from its start, and networks away from zero."""
    renew = Learner.renew

    def elsewhere(self, guide, *args, **kwargs):
        control = renew(self, guide, *args, **kwargs)
        with torch.no_grad():
            for p in control.parameters():
                p.add_(0.3 * torch.randn_like(p)) if p.requires_grad else None
        return control

    monkeypatch.setattr(Learner, "renew", elsewhere)


@pytest.fixture
def short_pilot(monkeypatch):
    """Annealing, where it is not the subject, tunes its steps by a few moves, not 200."""
    monkeypatch.setattr("pyro_vae.evaluate.evidence.paths.PILOT", 4)


@pytest.fixture
def interpreted(monkeypatch):
    """Steps are captured and rewritten as ever, and run as graphs without Inductor.

    It is for what is ours in a compiled step; that Inductor takes such graphs is asked in
    ``test_compiled`` and ``test_lowering``, since each compilation takes up to a minute.
    """
    name = "pyro_vae.infer.engine.compiled.compile_module"
    monkeypatch.setattr(name, lambda module, *how: for_cpu(module, {}))


@pytest.fixture
def plates():
    """One bit for all data and one for each of 3."""
    return gradients.plated_bits()
