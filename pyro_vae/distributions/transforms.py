"""Transformations that Pyro lacks."""

from collections.abc import Sequence

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    SigmoidTransform,
    Transform,
)

__all__ = ["Interval", "Sticks"]

Size = Sequence[int]


class Interval(ComposeTransform):
    """From the real line to ``(low, high)``: a sigmoid, stretched, that knows where it ends.

    >>> Interval(-1.0, 3.0)(torch.tensor(0.0))
    tensor(1.)
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        super().__init__([SigmoidTransform(), AffineTransform(low, high - low)])

    @constraints.dependent_property(is_discrete=False)
    def codomain(self) -> constraints.Constraint:  # pyright: ignore
        """The interval."""
        return constraints.interval(self.low, self.high)


class Sticks(Transform):
    r"""Break a stick: fractions :math:`v \in (0, 1)^{K-1}` to a point of the simplex.

    .. math:: z_k = v_k \prod_{j < k} (1 - v_j), \quad z_K = \prod_j (1 - v_j)

    References:
        Sethuraman (1994), Statistica Sinica 4; Nalisnick & Smyth (2017), arXiv:1605.06197.

    >>> Sticks()(torch.tensor([0.5, 0.5]))
    tensor([0.5000, 0.2500, 0.2500])
    """

    domain = constraints.independent(constraints.unit_interval, 1)
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sticks)

    def __hash__(self) -> int:
        return hash(Sticks)

    def _call(self, x: Tensor) -> Tensor:
        one = torch.ones_like(x[..., :1])
        return torch.cat([x, one], -1) * torch.cat([one, (1 - x).cumprod(-1)], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y[..., :-1] / self._left(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The log of the product of what was left at each break."""
        return self._left(y).log().sum(-1)

    def _left(self, y: Tensor) -> Tensor:
        """What is left of the stick before each break, from its end: no cancellation."""
        left = y.flip(-1).cumsum(-1).flip(-1)[..., :-1]
        return left.clamp_min(torch.finfo(y.dtype).tiny)

    def forward_shape(self, shape: Size) -> Size:
        """One more than the breaks."""
        return torch.Size([*shape[:-1], shape[-1] + 1])

    def inverse_shape(self, shape: Size) -> Size:
        """One less than the pieces."""
        return torch.Size([*shape[:-1], shape[-1] - 1])
