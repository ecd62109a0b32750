"""The continuous Bernoulli distribution with all its digits."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import register_kl

__all__ = ["ContinuousBernoulli"]

SERIES = 0.5  # |logits| below which powers of them are summed
LINEAR = 1e-4  # and below which draws are a polynomial in them

Size = Sequence[int]


class ContinuousBernoulli(dist.ContinuousBernoulli):
    r"""Grey values in [0, 1], of a density that is exponential in them.

    .. math:: p(x) = \frac{l}{e^l - 1}\, e^{l x} = \frac{a}{1 - e^{-a}}\, e^{-a d(x)},
        \quad a = |l|, \quad d(x) = x \text{ where } l < 0, \text{ else } 1 - x

    The second form is the one computed: torch's goes by way of ``probs``, which float32 rounds to
    1 at logits past 16.

    Args:
        probs: ``sigmoid(logits)``; instead of
        logits: l, any number.

    References:
        Loaiza-Ganem & Cunningham (2019), arXiv:1907.06845.

    >>> ContinuousBernoulli(logits=torch.tensor(30.0)).log_prob(torch.tensor([0.0, 1.0]))
    tensor([-26.5988,   3.4012])
    """

    def __init__(
        self,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if probs is not None and logits is None:
            if validate_args and not ((probs >= 0) & (probs <= 1)).all():
                raise ValueError(f"probs must lie in [0, 1], got {probs}")
            digits = torch.finfo(probs.dtype)
            probs, logits = None, probs.clamp(digits.tiny, 1 - digits.eps / 2).logit()
        super().__init__(probs, logits, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: object = None) -> "ContinuousBernoulli":
        """The same, expanded."""
        logits = self.logits.expand(torch.Size(batch_shape))
        return ContinuousBernoulli(logits=logits, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        a = self._size
        return self._log_top() - a * torch.where(self.logits < 0, value, 1 - value)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return torch.where(self.logits < 0, self._distance(), 1 - self._distance())

    @property
    def variance(self) -> Tensor:
        """The variance."""
        small, a = self._sizes()
        s = self.logits.square()
        series = 1 / 12 - s * (1 / 240 - s * (1 / 6048 - s * (1 / 172800 - s / 5322240)))
        return torch.where(small, series, a**-2 - (-a).exp() * torch.expm1(-a) ** -2)

    def entropy(self) -> Tensor:
        """The entropy, in nats; at most 0, that of the uniform distribution."""
        return self._size * self._distance() - self._log_top()

    def cdf(self, value: Tensor) -> Tensor:
        """The distribution function."""
        a = self._size.clamp_min(torch.finfo(self.logits.dtype).tiny)
        x = value.clamp(0, 1)
        below = torch.expm1(-a * torch.where(self.logits < 0, x, 1 - x)) / torch.expm1(-a)
        return torch.where(self.logits < 0, below, 1 - below)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile: of a draw, whose path this is, the digits are those of doubles."""
        n, u = self.logits.double(), value.double()
        linear = n.abs() < LINEAR
        a = torch.where(linear, 1.0, n.abs())
        distance = -torch.log1p(torch.where(n < 0, u, 1 - u) * torch.expm1(-a)) / a
        x = torch.where(n < 0, distance, 1 - distance)
        series = u + n * u * (1 - u) * (1 / 2 + n * (1 - 2 * u) / 6)
        return torch.where(linear, series, x).to(value)

    def _cont_bern_log_norm(self) -> Tensor:
        """The log normalizer beside a Bernoulli's log probability: torch's KLs are made of it."""
        return self._log_top() + torch.nn.functional.softplus(-self._size)

    @property
    def _size(self) -> Tensor:
        """|logits|, with a slope at 0: that of the logits themselves."""
        return torch.where(self.logits < 0, -self.logits, self.logits)

    def _sizes(self) -> tuple[Tensor, Tensor]:
        """Where \\|logits\\| are small, and \\|logits\\| elsewhere."""
        a = self._size
        small = a < SERIES
        return small, torch.where(small, 1.0, a)

    def _log_top(self) -> Tensor:
        """The log density at its end of the interval: log(a / (1 - e^-a))."""
        small, a = self._sizes()
        h = self.logits.square() / 4
        series = h * (1 / 6 - h * (1 / 180 - h * (1 / 2835 - h / 37800)))
        return torch.where(small, self._size / 2 - series, a.log() - (-torch.expm1(-a)).log())

    def _distance(self) -> Tensor:
        """The mean of d(x): 1 / a - 1 / (e^a - 1)."""
        small, a = self._sizes()
        s = self.logits.square()
        odd = 1 / 12 - s * (1 / 720 - s * (1 / 30240 - s * (1 / 1209600 - s / 47900160)))
        series = 1 / 2 - self._size * odd
        return torch.where(small, series, 1 / a - (-a).exp() / -torch.expm1(-a))


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _kl(q: ContinuousBernoulli, p: ContinuousBernoulli) -> Tensor:
    distance = q._distance()
    other = torch.where((q.logits < 0) == (p.logits < 0), distance, 1 - distance)
    return p._size * other - p._log_top() - q.entropy()
