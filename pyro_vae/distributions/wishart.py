"""Positive definite matrices."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["Wishart"]


class Wishart(dist.Wishart):
    """Sums of squares of normal vectors, each draw made once.

    PyTorch takes all regular draws for singular ones, warns of them and makes them again.
    """

    def rsample(
        self, sample_shape: Sequence[int] = (), max_try_correction: int | None = None
    ) -> Tensor:
        """A draw, by Bartlett's decomposition."""
        return self._bartlett_sampling(torch.Size(sample_shape))
