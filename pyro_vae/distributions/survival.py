"""Times that are known to be later than the one observed, and the logarithm of survival."""

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch import distributions as td
from torch.distributions.transforms import AbsTransform
from torch.nn.functional import logsigmoid

from .edges import log1mexp
from .supports import number_within
from .tails import GeneralizedPareto

__all__ = ["CensoredTime", "RightCensored", "log_survival"]

LEVELS = 16  # of the continued fraction and the series, where a gamma tail underflows
FAR = 20  # scales from its centre, where a tail is that of an exponential
STEP = 1e-5  # of the difference quotient in a gamma's concentration, relative to it


class CensoredTime(constraints.Constraint):
    """Times greater than 0, with a minus where they are censored."""

    member = 1.0  # a value that is in it

    def check(self, value: Tensor) -> Tensor:
        """Whether each number is one."""
        return value.isfinite() & (value != 0)


class RightCensored(dist.TorchDistribution):
    r"""Times until an event, some of which are known to be later than what was seen.

    .. math:: \log p(x) = \log f(x) \text{ for } x > 0, \quad
              \log p(x) = \log P(T > -x) \text{ for } x < 0

    A negative number is a time at which the observation was censored, as in XGBoost's
    ``survival:cox``. A draw is a time until the event, and positive: why an observation ended is
    not modelled.

    Args:
        base: of the times, positive numbers, with density f.

    References:
        Klein & Moeschberger (2003), Survival Analysis, section 3.5.

    >>> p = RightCensored(dist.Exponential(torch.tensor(0.5)))
    >>> p.log_prob(torch.tensor([2.0, -2.0]))
    tensor([-1.6931, -1.0000])
    """

    arg_constraints = {}
    support = CensoredTime()

    def __init__(self, base: dist.TorchDistribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Of the time until the event."""
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        """Of the time until the event."""
        return self.base.variance

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "RightCensored":
        """The same, expanded."""
        return RightCensored(self.base.expand(torch.Size(batch_shape)))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Times until the event, none of them censored."""
        return self.base.sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of events, log P(T > t) of times that were censored."""
        time = value.abs()
        return torch.where(value > 0, self.base.log_prob(time), log_survival(self.base, time))


def log_survival(p: Any, t: Tensor) -> Tensor:  # noqa: ANN401
    r"""log P(T > t), which stays finite in a far tail.

    Of transformed distributions it is that of what they transform, so most families need no line.
    Of a distribution of your own it is that of its ``cdf``, which has no slope where that rounds
    to 1.

    Raises:
        NotImplementedError: a distribution without ``cdf``.

    >>> log_survival(dist.LogNormal(0.0, 1.0), torch.tensor(1e9))
    tensor(-218.6794)
    """
    return _log_tail(p, t, above=True)


def _log_tail(p: Any, t: Tensor, *, above: bool) -> Tensor:  # noqa: ANN401
    """log P(T > t), or log P(T <= t)."""
    try:
        low = None if p.support.is_discrete else p.support.lower_bound
    except (AttributeError, NotImplementedError):
        low = None
    if low is None:
        return _log_tail_within(p, t, above)
    within = t > low  # the formulas have no meaning, and NaN for slopes, elsewhere
    log = _log_tail_within(p, t.where(within, number_within(p.support).to(t)), above)
    return log.where(within, 0.0 if above else -math.inf)


def _log_tail_within(p: Any, t: Tensor, above: bool) -> Tensor:  # noqa: ANN401
    """The same, of times above the least."""
    match p:
        case td.Exponential():
            return -p.rate * t if above else _log_waited(p.rate.log() + t.log())
        case td.Normal() | dist.Logistic() | td.Laplace() | dist.SoftLaplace():
            return _log_symmetric_tail(p, (t - p.loc) / p.scale * (-1 if above else 1))
        case td.Gumbel():
            z = (t - p.loc) / p.scale
            if not above:
                return -(-z).exp()
            return torch.where(z > FAR, -z, log1mexp((-z.clamp(-FAR, FAR)).exp()))
        case td.Cauchy():
            away = (t - p.loc) * (1 if above else -1)
            return torch.atan2(p.scale, away).log() - math.log(math.pi)
        case td.Weibull():
            if above:
                return -((t / p.scale) ** p.concentration)
            return _log_waited(p.concentration * (t.log() - p.scale.log()))
        case td.HalfNormal() if not above:
            return torch.erf(t / (p.scale * math.sqrt(2))).log()
        case td.HalfCauchy() if not above:
            return torch.atan2(t, p.scale).log() + math.log(2 / math.pi)
        case GeneralizedPareto() if above:
            return p.log_survival(t)
        case td.Gamma():
            return _log_gamma_tail(p.concentration, p.rate * t, above)
        case td.InverseGamma():
            return _log_gamma_tail(p.concentration, p.rate / t, not above)
        case td.MixtureSameFamily():
            inner = _log_tail(p.component_distribution, t.unsqueeze(-1), above=above)
            return (p.mixture_distribution.logits.log_softmax(-1) + inner).logsumexp(-1)
        case td.TransformedDistribution(transforms=[AbsTransform()]) if above:
            return math.log(2) + _log_tail(p.base_dist, t, above=True)  # of symmetric ones
        case dist.SkewLogistic():
            z, a = (t - p.loc) / p.scale, p.asymmetry
            if not above:
                return a * logsigmoid(z)
            return torch.where(z > FAR, a.log() - z, log1mexp(-a * logsigmoid(z.clamp(max=FAR))))
        case td.TransformedDistribution() if all(_sign(f) for f in p.transforms):
            for f in reversed(p.transforms):
                t, above = f.inv(t), above == (_sign(f) > 0)
            return _log_tail(p.base_dist, t, above=above)
    share = p.cdf(t)
    of = torch.finfo(share.dtype)
    return torch.log1p(-share.clamp(max=1 - of.eps)) if above else share.clamp(min=of.tiny).log()


def _log_waited(log_x: Tensor) -> Tensor:
    """log(1 - exp(-x)), of the logarithm of x."""
    return torch.where(log_x < -FAR, log_x, log1mexp(log_x.clamp(min=-FAR).exp()))


def _log_symmetric_tail(p: Any, z: Tensor) -> Tensor:  # noqa: ANN401
    """log P(Z <= z) of a law that is symmetric about its centre, z scales from it."""
    match p:
        case td.Normal():
            far = z.clamp(max=-FAR)  # where PyTorch's slope is a difference of large numbers
            x = far**-2
            rest = (-x * (1 - 3 * x * (1 - 5 * x))).log1p() - (-far).log()
            series = -(far**2) / 2 - math.log(2 * math.pi) / 2 + rest
            return torch.where(z < -FAR, series, torch.special.log_ndtr(z.clamp(min=-FAR)))
        case dist.Logistic():
            return logsigmoid(z)
        case td.Laplace():
            near = torch.log1p(-(-z.clamp(min=0)).exp() / 2)
            return torch.where(z < 0, z - math.log(2), near)
    near = z.clamp(-FAR, 2 * FAR).exp().atan().log()  # of a hyperbolic secant
    return torch.where(z < -FAR, z, near) + math.log(2 / math.pi)


def _sign(transform: Any) -> int:  # noqa: ANN401
    """1 where it rises, -1 where it falls, 0 where it does neither, or both in different cells.

    That of constants is remembered: no graph of the step could read it off a tensor.
    """
    if (known := vars(transform).get("_rises")) is not None:
        return known
    try:
        sign = transform.sign
    except NotImplementedError:
        return 0
    if isinstance(sign, Tensor):
        sign = int(sign.min()) if sign.min() == sign.max() else 0
    if not any(isinstance(v, Tensor) and v.requires_grad for v in vars(transform).values()):
        transform._rises = sign
    return sign


def _log_gamma_tail(a: Tensor, x: Tensor, above: bool) -> Tensor:
    """The logarithm of the regularized incomplete gamma function, with first derivatives."""
    a, x = torch.broadcast_tensors(a, x)
    with torch.no_grad():
        value = _log_gammainc(a.double(), x.double(), above)
    if torch.is_grad_enabled():
        with torch.no_grad():  # PyTorch has no derivative in a: a difference quotient is one
            wide, step = a.double(), STEP * a.double()
            ends = [_log_gammainc(wide + s, x.double(), above) for s in (step, -step)]
            by_a = (ends[0] - ends[1]) / (2 * step)
            log_density = (wide - 1) * x.double().log() - x.double() - wide.lgamma()
            by_x = (log_density - value).exp() * (-1 if above else 1)
        slopes = by_a.to(a) * (a - a.detach()) + by_x.to(x) * (x - x.detach())
        return value.to(x) + slopes
    return value.to(x)


def _log_gammainc(a: Tensor, x: Tensor, above: bool) -> Tensor:
    """In double precision; where it underflows by a continued fraction, or by its series."""
    share = torch.special.gammaincc(a, x) if above else torch.special.gammainc(a, x)
    log_power = a * x.log() - x - a.lgamma()
    if above:
        rest = x + (2 * LEVELS + 1) - a
        for n in range(LEVELS, 0, -1):
            rest = x + (2 * n - 1) - a - n * (n - a) / rest
        far = log_power - rest.clamp(min=1.0).log()
    else:
        rest = torch.ones_like(x)
        for n in range(LEVELS, 0, -1):
            rest = 1 + x / (a + n) * rest
        far = log_power - a.log() + rest.log()
    small = 1e-290
    return torch.where(share > small, share.clamp(min=small).log(), far)
