"""Categories, ordered levels and counts with more zeros, as Pyro has them, with their digits."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import lazy_property
from torch.nn.functional import logsigmoid

from .edges import Checked

__all__ = [
    "OneHotCategorical",
    "OrderedLogistic",
    "ZeroInflatedDistribution",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
]

PYRO = vars(dist.ZeroInflatedDistribution)


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


class OrderedLogistic(dist.OrderedLogistic):
    r"""Pyro's, whose log probabilities, and their gradients, are right however small they are.

    .. math:: P(x = k) = \sigma(c_{k+1} - \eta) - \sigma(c_k - \eta)
        = \sigma(c_{k+1} - \eta)\, \sigma(\eta - c_k)\, (1 - e^{c_k - c_{k+1}})

    As a difference, which is how Pyro has it, a level far from the predictor has probability 0 in
    float32, and no gradient brings the predictor back to it.

    Args:
        predictor: :math:`\eta`, ``(*batch)``.
        cutpoints: c, increasing, ``(*batch, K - 1)``.

    References:
        McCullagh (1980), Regression models for ordinal data, Journal of the Royal Statistical
        Society B 42.

    >>> p = OrderedLogistic(torch.tensor(40.0), torch.tensor([0.0, 1.0]))
    >>> p.log_prob(torch.tensor(0.0))
    tensor(-40.)
    """

    def __init__(
        self, predictor: Tensor, cutpoints: Tensor, validate_args: bool | None = None
    ) -> None:
        below = cutpoints - predictor.unsqueeze(-1)
        width = (-torch.expm1(-cutpoints.diff(dim=-1))).log()
        middle = logsigmoid(below[..., 1:]) + logsigmoid(-below[..., :-1]) + width
        ends = logsigmoid(below[..., :1]), logsigmoid(-below[..., -1:])
        self.predictor = predictor.expand(below.shape[:-1])
        self.cutpoints = cutpoints.expand(below.shape)
        logits = torch.cat([ends[0], middle, ends[1]], -1)
        dist.Categorical.__init__(self, logits=logits, validate_args=validate_args)

    def expand(
        self, batch_shape: Sequence[int], _instance: "OrderedLogistic | None" = None
    ) -> "OrderedLogistic":
        """The same, expanded."""
        new = self._get_checked_instance(OrderedLogistic, _instance)
        return super().expand(torch.Size(batch_shape), new)


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
