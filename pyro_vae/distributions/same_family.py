"""Mixtures of any family, whose gradients hold no terms that are too slight to count."""

import pyro.distributions as dist
from torch import Tensor

from ..core.slight import logsumexp

__all__ = ["MixtureSameFamily"]


class MixtureSameFamily(dist.MixtureSameFamily):
    """Pyro's; a component whose share of a density is below 1e-26 has no gradient there."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, by logsumexp over the components."""
        if self._validate_args:
            self._validate_sample(value)
        logits = self.mixture_distribution.logits.log_softmax(-1)
        return logsumexp(self.component_distribution.log_prob(self._pad(value)) + logits)
