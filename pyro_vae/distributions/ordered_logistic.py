"""Ordered levels by a logistic density cut at points, to the last digits of their probabilities."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["OrderedLogistic"]


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
