r"""Gradients for discrete latents through a relaxation: of low variance, and biased.

The rules are handlers. Model and guide run under one of them, for the prior has to take a draw that
is no longer discrete, and to pass its gradient on:

>>> import pyro
>>> rule = Concrete(temperature=0.3)
>>> def guide():
...     return pyro.sample("z", dist.Bernoulli(torch.full((2,), 0.5)).to_event(1))
>>> rule(guide)().unique().numel(), StraightThrough()(guide)().unique().numel() <= 2
(2, True)

Every rule has the log mass continued from the corners linearly, :math:`\log q(z) = \sum_k z_k \log
\pi_k`, in prior and guide alike, so at a discrete draw it is the log mass, and its gradient in z is
the difference that a change of z makes.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import kl_divergence, register_kl
from torch.nn.functional import one_hot, softplus

from ..sites import family_name, latent, unwrapped
from .handlers import Size, Wrapper
from .rules import Trial, UnsoundError

__all__ = [
    "Bits",
    "Concrete",
    "GumbelStraightThrough",
    "Kind",
    "OneHots",
    "Relaxation",
    "RelaxedTraceMeanField_ELBO",
    "RelaxedTrace_ELBO",
    "StraightThrough",
    "kind_of",
    "sites_can_be_relaxed",
    "through",
]


class Bits:
    """Bernoulli variables, by their logits ``(..., D)``."""

    family = "Bernoulli"

    @staticmethod
    def noise(logits: Tensor) -> Tensor:
        """Logistic: the logits plus it are positive with the Bernoulli's probability."""
        return torch.rand_like(logits).logit(eps=torch.finfo(logits.dtype).eps)

    @staticmethod
    def soft(scores: Tensor) -> Tensor:
        """From the real line into (0, 1)."""
        return scores.sigmoid()

    @staticmethod
    def hard(scores: Tensor) -> Tensor:
        """The bits nearest to :meth:`soft`."""
        return (scores > 0).to(scores.dtype)

    @staticmethod
    def log_mass(logits: Tensor, z: Tensor) -> Tensor:
        """Linear in z, ``(..., D)``."""
        return z * logits - softplus(logits)

    @staticmethod
    def scores(soft: Tensor) -> Tensor:
        """What :meth:`soft` maps there."""
        return soft.logit()

    @staticmethod
    def noise_given(logits: Tensor, hard: Tensor) -> Tensor:
        """:meth:`noise`, given the bits that it makes."""
        u, p = torch.rand_like(logits), logits.sigmoid()
        return torch.where(hard > 0, 1 - p * u, (1 - p) * u).logit(
            eps=torch.finfo(logits.dtype).eps
        )

    @staticmethod
    def gapped(logits: Tensor, hard: Tensor, gap: float) -> Tensor:
        """Logits at which the bits are the likelier ones, by a gap at least."""
        sign = 2 * hard - 1
        return sign * (sign * logits).clamp(min=gap)


class OneHots:
    """One-hot vectors, by their normalized logits ``(..., D, K)``."""

    family = "OneHotCategorical"

    @staticmethod
    def noise(logits: Tensor) -> Tensor:
        """Gumbel: the logits plus it are largest at k with the category's probability."""
        u = torch.rand_like(logits).clamp(min=torch.finfo(logits.dtype).tiny)
        return -(-u.log()).log()

    @staticmethod
    def soft(scores: Tensor) -> Tensor:
        """From real vectors into the simplex."""
        return scores.softmax(-1)

    @staticmethod
    def hard(scores: Tensor) -> Tensor:
        """The corner nearest to :meth:`soft`."""
        return one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)

    @staticmethod
    def log_mass(logits: Tensor, z: Tensor) -> Tensor:
        """Linear in z, ``(..., D)``."""
        return (z * logits).sum(-1)

    @staticmethod
    def scores(soft: Tensor) -> Tensor:
        """What :meth:`soft` maps there."""
        return soft.log()

    @staticmethod
    def noise_given(logits: Tensor, hard: Tensor) -> Tensor:
        """:meth:`noise`, given the corner that it makes."""
        e = -torch.log1p(-torch.rand_like(logits))
        best = (hard * e).sum(-1, keepdim=True)
        return -torch.where(hard > 0, best, e / logits.exp() + best).log() - logits

    @staticmethod
    def gapped(logits: Tensor, hard: Tensor, gap: float) -> Tensor:
        """Logits at which the corner is the likeliest, the others by a gap below the largest."""
        top = logits.amax(-1, keepdim=True)
        return torch.where(hard > 0, top, torch.minimum(logits, top - gap))


Kind: TypeAlias = type[Bits] | type[OneHots]


def kind_of(distribution: object) -> Kind | None:
    """Of which kind a distribution is, under its wrappers; ``None`` for any other."""
    base = unwrapped(distribution)
    if isinstance(base, torch.distributions.Bernoulli):
        return Bits
    return OneHots if isinstance(base, torch.distributions.OneHotCategorical) else None


class Relaxation(Messenger):
    """A rule for the draws of Bernoulli and one-hot sites; other sites are left as they are.

    Wrap model and guide in one, or give it to :class:`RelaxedTrace_ELBO`.
    """

    def _pyro_sample(self, msg: dict) -> None:
        if latent(msg) and kind_of(msg["fn"]):
            msg["fn"] = Relaxed(msg["fn"], self.draw)

    @abstractmethod
    def draw(self, logits: Tensor, kind: Kind) -> Tensor:
        """A draw with a path to the logits, of their shape."""


class Concrete(Relaxation):
    r"""Draw a continuous relaxation of the discrete variable: Concrete, or Gumbel-softmax.

    .. math:: \nabla_\phi L \approx \nabla_\phi E_g\left[f_\phi(z)\right],
        \quad z = \mathrm{softmax}\left(\frac{\log \pi_\phi + g}{T}\right),
        \quad f_\phi = \log p(x, z) - \log q_\phi(z)

    with standard Gumbel noise g; for bits, sigmoid and logistic noise. This is the gradient of the
    *relaxed* objective, and the loss is its value. It is no bound: a continuous z carries more
    than log q charges it for, the more so the higher T is. As T falls both go to those of the
    ELBO, bias vanishing and variance growing as 1/T. ``Trace_ELBO`` takes log p(z) and log q(z) at
    the relaxed draw; ``TraceMeanField_ELBO`` takes the KL of the discrete distributions, in closed
    form, so that only log p(x|z) is relaxed (Jang et al.). Relaxed *densities* on both sides
    (Maddison et al.) are another model, of which they give a bound, with a KL that does not fall
    to the discrete one as T does: ``prior="RelaxedBernoulli(temperature=0.5)"``, and the guide
    likewise.

    Biased; for guides of Bernoulli and OneHotCategorical sites; one evaluation a particle.

    Args:
        temperature: T > 0; :attr:`temperature`, a tensor, may be filled anew between steps.

    References:
        Maddison, Mnih & Teh (2017), arXiv:1611.00712; Jang, Gu & Poole (2017), arXiv:1611.01144.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        self.temperature = torch.tensor(float(temperature))

    def draw(self, logits: Tensor, kind: Kind) -> Tensor:
        """A point inside the cube or simplex."""
        return kind.soft((logits + kind.noise(logits)) / self.temperature)


class GumbelStraightThrough(Concrete):
    r"""Discrete draws whose path is that of the Concrete draw with the same noise (ST-Gumbel).

    .. math:: \nabla_\phi L \approx E_g\left[
        \frac{\partial f(b)}{\partial b} \frac{\partial z_\phi(g)}{\partial \phi}\right],
        \quad b = \text{one-hot}\left(\arg\max_k\, (\log \pi_\phi + g)_k\right)

    with z and f as in :class:`Concrete`. The loss is that of discrete draws: a true estimate of
    the ELBO. The gradient is that of no objective, and biased at any T: f is differentiated at
    the corners, where the exact gradient has differences between them.

    Biased; for guides of Bernoulli and OneHotCategorical sites; one evaluation a particle.

    Args:
        temperature: T > 0, of the path.

    References:
        Jang, Gu & Poole (2017), arXiv:1611.01144, section 2.2.
    """

    def draw(self, logits: Tensor, kind: Kind) -> Tensor:
        """A corner."""
        scores = logits + kind.noise(logits)
        return through(kind.hard(scores), kind.soft(scores / self.temperature))


class StraightThrough(Relaxation):
    r"""Discrete draws whose path is that of their mean.

    .. math:: \nabla_\phi L \approx E_q\left[
        \frac{\partial f(b)}{\partial b} \frac{\partial \pi_\phi}{\partial \phi}\right],
        \quad b \sim q_\phi, \quad f = \log p(x, z) - \log q(z)

    The loss is that of discrete draws: a true estimate of the ELBO. The gradient is that of no
    objective; it is right where f is linear in b, as the KL term is, and to first order elsewhere.

    Biased; for guides of Bernoulli and OneHotCategorical sites; one evaluation a particle.

    References:
        Bengio, Léonard & Courville (2013), arXiv:1308.3432.

    >>> q = dist.Bernoulli(logits=torch.zeros(3, requires_grad=True)).to_event(1)
    >>> Relaxed(q, StraightThrough().draw).rsample().requires_grad
    True
    """

    def draw(self, logits: Tensor, kind: Kind) -> Tensor:
        """A corner."""
        return through(kind.hard(logits.detach() + kind.noise(logits)), kind.soft(logits))


def sites_can_be_relaxed(trial: Trial) -> None:
    """Sites without a path are discrete in guide and prior, for a relaxed gradient."""
    if not trial.rigid:
        raise UnsoundError(
            "it relaxes discrete sites, and this guide's gradients are pathwise already: use "
            "Trace_ELBO(gradient=pathwise) or Trace_ELBO(gradient=stl)"
        )
    sides = trial.sites, trial.priors
    if other := [n for n in trial.rigid if not all(kind_of(side[n]["fn"]) for side in sides)]:
        names = [family_name(trial.sites[n]["fn"]) for n in other]
        raise UnsoundError(
            "it relaxes sites whose prior and guide are Bernoulli or OneHotCategorical, "
            f"which {trial.named(other)} is not: use RLOO(num_particles=2) or "
            "Trace_ELBO(gradient=score)"
            + (", or OneHotCategorical" if "Categorical" in names else "")
        )


class Relaxed(Wrapper):
    """A discrete distribution whose draws have a path, and whose log mass is linear in them."""

    has_rsample = True

    def __init__(
        self, base: dist.TorchDistribution, draw: Callable[[Tensor, Kind], Tensor]
    ) -> None:
        super().__init__(base)
        self.draw = draw
        self.kind: Any = kind_of(base)

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw by the rule."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        return self.draw(unwrapped(self.base).logits.expand(shape), self.kind)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass, linear in ``value``."""
        return log_mass(self.base, value, self.kind)

    def expand(self, batch_shape: Size, _instance: object = None) -> "Relaxed":
        """The wrapped distribution expanded, in the same wrapper."""
        return Relaxed(self.base.expand(batch_shape), self.draw)


@register_kl(Relaxed, torch.distributions.Distribution)
def _kl(q: Relaxed, p: torch.distributions.Distribution) -> Tensor:
    """That of the discrete distributions."""
    return kl_divergence(q.base, p.base if isinstance(p, Relaxed) else p)


class RelaxedTrace_ELBO(Trace_ELBO):
    """``Trace_ELBO`` with model and guide under a :class:`Relaxation`.

    Args:
        rule: :class:`Concrete`, :class:`StraightThrough` or :class:`GumbelStraightThrough`.
        num_particles: as in every Pyro ``ELBO``, and so are all other arguments.

    >>> RelaxedTrace_ELBO(Concrete(0.3), num_particles=2).rule.temperature
    tensor(0.3000)
    """

    def __init__(self, rule: Relaxation, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.rule = rule

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        return super()._get_trace(self.rule(model), self.rule(guide), args, kwargs)


class RelaxedTraceMeanField_ELBO(RelaxedTrace_ELBO, TraceMeanField_ELBO):
    """``TraceMeanField_ELBO`` likewise: the KL in closed form is that of the discrete sites."""


def log_mass(distribution: Any, value: Tensor, kind: Kind) -> Tensor:  # noqa: ANN401
    """The log mass at a real value, under the distribution's own wrappers."""
    base = getattr(distribution, "base_dist", None)
    if base is None:
        return kind.log_mass(distribution.logits, value)
    mass: Any = log_mass(base, value, kind)
    if isinstance(distribution, torch.distributions.Independent):
        mass = sum_rightmost(mass, distribution.reinterpreted_batch_ndims)
    elif isinstance(distribution, dist.MaskedDistribution):
        mass = scale_and_mask(mass, mask=distribution._mask)
    return mass


def through(value: Tensor, path: Tensor) -> Tensor:
    """The one's value with the other's gradient."""
    return value.detach() + (path - path.detach())
