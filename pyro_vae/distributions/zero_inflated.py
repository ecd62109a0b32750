"""Counts with more zeros than their family has, which may be used before they are expanded."""

from typing import Any

import pyro.distributions as dist
from torch.distributions.utils import lazy_property

__all__ = ["ZeroInflatedDistribution", "ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson"]

PYRO = vars(dist.ZeroInflatedDistribution)


class Recomputed(lazy_property):
    """A parameter that is made of the one that was given, and not kept beside it."""

    def __get__(self, instance: Any, obj_type: Any = None) -> Any:  # noqa: ANN401
        """Its value, as of all lazy ones."""
        value = super().__get__(instance, obj_type)
        if instance is not None:
            del vars(instance)[self.wrapped.__name__]
        return value


class Gated:
    """Pyro's keep ``gate`` beside ``gate_logits``, once one is asked for, and expand refuses both.

    Their log mass would also have the digits of the probability, not of the logits, from then on.
    """

    gate, gate_logits = Recomputed(PYRO["gate"].wrapped), Recomputed(PYRO["gate_logits"].wrapped)


class ZeroInflatedDistribution(Gated, dist.ZeroInflatedDistribution):
    """A family of one cell, or zero."""


class ZeroInflatedPoisson(Gated, dist.ZeroInflatedPoisson):
    """A Poisson count, or zero."""


class ZeroInflatedNegativeBinomial(Gated, dist.ZeroInflatedNegativeBinomial):
    """A negative binomial count, or zero."""
