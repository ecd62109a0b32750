"""A small matrix of counts, and a frame beside it."""

import numpy as np
import pandas as pd
from scipy import sparse

__all__ = ["GENES", "matrix", "obs"]

GENES = [f"gene{i}" for i in range(12)]


def matrix(n=40, d=12):
    """Counts without an empty row."""
    x = np.random.default_rng(0).poisson(0.7, (n, d))
    x[:, 0] += 1
    return sparse.csr_matrix(x)


def obs(n=40):
    """A batch for each row."""
    return pd.DataFrame({"batch": np.random.default_rng(1).choice(list("ab"), n)})
