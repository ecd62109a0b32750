"""One-hot vectors, whose log mass goes on between the corners of the simplex."""

import pyro.distributions as dist
import torch
from torch import Tensor

from .edges import Checked

__all__ = ["OneHotCategorical"]


class OneHotCategorical(Checked, dist.OneHotCategorical):
    r"""Pyro's, with a log mass that is linear in x, :math:`\sum_k x_k \log \pi_k`.

    Pyro's is that of the largest entry, and jumps where another one becomes it. A gradient that
    looks at relaxed draws, as REBAR's does, is biased by that, within a mixture too.

    >>> p = OneHotCategorical(torch.tensor([0.25, 0.75]), validate_args=False)
    >>> p.log_prob(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).exp()
    tensor([0.2500, 0.4330])
    """

    def _log_density(self, x: Tensor) -> Tensor:
        logits = self.logits.clamp(min=torch.finfo(x.dtype).min)  # 0 of a level that cannot be
        return (x * logits).sum(-1)
