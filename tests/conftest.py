import os
from pathlib import Path

import matplotlib
import pyro
import pytest
import torch

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
