"""Transformations that Pyro lacks."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    LowerCholeskyTransform,
    SigmoidTransform,
    SoftplusTransform,
    StickBreakingTransform,
    Transform,
)
from torch.nn.functional import softplus

__all__ = ["Interval", "Ordered", "Positive", "PositiveCholesky", "Shares", "Sticks"]

Size = Sequence[int]

FLOOR = 1e-7  # of positive parameters
ROOM = 1e4  # times the floor, above which it is not felt
STEEP = 4.0  # logarithm of a step, above which it grows by its slope there


class Interval(ComposeTransform):
    """From the real line to ``(low, high)``: a sigmoid, stretched, that knows where it ends.

    >>> Interval(-1.0, 3.0)(torch.tensor(0.0))
    tensor(1.)
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        super().__init__([SigmoidTransform(), AffineTransform(low, high - low)])

    @constraints.dependent_property(is_discrete=False)
    def codomain(self) -> constraints.Constraint:
        """The interval."""
        return constraints.interval(self.low, self.high)


class WithoutParameters:
    """A transform without parameters, which equals all others of its class."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))


class Positive(WithoutParameters, SoftplusTransform):
    r"""Softplus that never is 0, which a scale must not be.

    .. math:: \sqrt{\mathrm{softplus}(x)^2 + 10^{-14}}

    In float32 softplus itself is 0 below -104. The floor is so low that a number of ordinary size
    keeps its bits, and so high that the gradient of a squared residual over a squared scale does
    not overflow.

    >>> Positive()(torch.tensor([-200.0, 1.0]))
    tensor([1.0000e-07, 1.3133e+00])
    """

    def _call(self, x: Tensor) -> Tensor:
        y = softplus(x)  # the root is y to the last bit where y is large, but its gradient is not
        return torch.where(y > ROOM * FLOOR, y, (y.square() + FLOOR**2).sqrt())

    def _inverse(self, y: Tensor) -> Tensor:
        return super()._inverse((y.square() - FLOOR**2).clamp(min=torch.finfo(y.dtype).tiny).sqrt())


class PositiveCholesky(WithoutParameters, LowerCholeskyTransform):
    """To lower triangles whose diagonal is positive, and never 0."""

    codomain = constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        diagonal: Any = Positive()(x.diagonal(dim1=-2, dim2=-1))
        return x.tril(-1) + diagonal.diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        raw: Any = Positive().inv(y.diagonal(dim1=-2, dim2=-1))
        return y.tril(-1) + raw.diag_embed()


class Ordered(WithoutParameters, Transform):
    r"""From the real line to increasing vectors, whose entries differ in their own precision.

    .. math:: y_1 = x_1, \quad y_{k+1} = y_k + s_k + 2\epsilon\Big(|x_1| + \sum_j s_j\Big),
        \quad s_k = \exp(x_{k+1})

    where epsilon is what 1 can be increased by, and the exponential goes on as a line above 4. Sums
    of exponentials alone, which is how Pyro has it, are infinite where one of many steps is a
    little too large, and stay as they are where one is small.

    >>> Ordered()(torch.tensor([8.0, -50.0, 0.5])).diff()
    tensor([1.9073e-06, 1.6487e+00])
    """

    domain = constraints.real_vector
    codomain = constraints.ordered_vector
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        first, rest = x[..., :1], x[..., 1:]
        steps = rest.clamp(max=STEEP).exp() * (1 + (rest - STEEP).clamp(min=0))
        room = 2 * torch.finfo(x.dtype).eps * (first.abs() + steps.sum(-1, keepdim=True))
        return torch.cat([first, steps + room], -1).cumsum(-1, dtype=torch.float64).to(x.dtype)

    def _inverse(self, y: Tensor) -> Tensor:
        first, steps, eps = y[..., :1], y.diff(dim=-1), 2 * torch.finfo(y.dtype).eps
        total = first.abs() + steps.sum(-1, keepdim=True)
        own = (steps - eps * total / (1 + eps * steps.shape[-1])).clamp(FLOOR)
        line = (own / math.exp(STEEP) - 1).clamp(min=0)
        return torch.cat([first, own.clamp(max=math.exp(STEEP)).log() + line], -1)


class Shares(WithoutParameters, StickBreakingTransform):
    r"""PyTorch's map from the real line to the simplex, to the last digits of its shares.

    .. math:: z_k = \sigma(u_k') \prod_{j < k} \sigma(-u_j'), \quad u_k' = u_k - \log(K - k)

    What is left after a break is the sum of the shares that follow. As one minus those before it,
    which is how PyTorch has it, it is rounded away where one share is nearly all.

    >>> Shares().inv(torch.tensor([1.0, 1e-12])).exp()
    tensor([1.0000e+12])
    """

    def _call(self, x: Tensor) -> Tensor:
        one, u = torch.ones_like(x[..., :1]), x - self._offset(x)
        return torch.cat([u.sigmoid(), one], -1) * torch.cat([one, (-u).sigmoid().cumprod(-1)], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        rest = y[..., 1:].flip(-1).cumsum(-1).flip(-1)
        return y[..., :-1].log() - rest.log() + self._offset(rest)

    def _offset(self, x: Tensor) -> Tensor:
        return torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device).log()


class Sticks(WithoutParameters, Transform):
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
