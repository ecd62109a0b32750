import os
from pathlib import Path

import matplotlib
import pyro
import pytest
import torch

pytest.register_assert_rewrite("helpers")

from helpers import gradients  # noqa: E402

matplotlib.use("Agg")
torch.set_num_threads(1)  # the models are small: threads would only wait for each other


@pytest.fixture(autouse=True)
def fresh_pyro():
    """Every test starts from a seed, an empty parameter store and Pyro's validation."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)
    yield
    pyro.clear_param_store()


@pytest.fixture(scope="session")
def data_root():
    """The folder of MNIST and the tables; a test that needs it is skipped without it."""
    root = Path(os.environ.get("PYRO_VAE_DATA", Path(__file__).parents[1] / "../shared/data"))
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
def plates():
    """One bit for all data and one for each of 3."""
    return gradients.plated_bits()
