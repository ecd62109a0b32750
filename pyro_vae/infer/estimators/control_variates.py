"""Control variates for discrete latents from the slopes of the cost: MuProp and Double CV."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.util import sum_rightmost
from pyro.infer.util import MultiFrameTensor
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from ..sites import latent
from .importance import widen
from .multisample import samples, total
from .points import ByLogits, Paired, spread
from .relaxed import Bits, Kind, OneHots

__all__ = ["KINDS", "DoubleCV", "Learned", "MuProp"]

KINDS = (Bits, OneHots)


class Learned(ByLogits):
    r"""An estimator with parameters of its own, which it trains to make its variance smaller.

    Every step adds to their ``.grad`` an unbiased estimate of the slope of the variance,

    .. math:: \nabla_c \operatorname{Var}(g) = E\left[\nabla_c\, g^2\right],

    with g the gradient in a logit, its square averaged over logits. They are parameters of Pyro's,
    under the name of the class, so that ``SVI`` trains them beside the model's.

    Attributes:
        control: the parameters, a module that is made at the first step, or by :meth:`renew`.
    """

    control: nn.Module | None = None

    def renew(self, guide: Callable, *args: object, **kwargs: object) -> nn.Module:
        """Make the parameters anew, for the sites of a guide, and forget what was learned.

        Args:
            guide: a Pyro guide.
            args: its arguments.
            kwargs: likewise.
        """
        with torch.no_grad(), poutine.block():
            trace = poutine.trace(guide).get_trace(*args, **kwargs)
        sites = [site for site in samples(trace) if latent(site)]
        self.control = self._control(sites).to(sites[0]["value"])
        store = pyro.get_param_store()
        for name, _ in self.control.named_parameters(type(self).__name__):
            if name in store:
                del store[name]
        return self.control

    @abstractmethod
    def _control(self, sites: list[Any]) -> nn.Module:
        """The parameters at their start."""

    def _traced(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict, nesting: float
    ) -> tuple[Trace, Trace]:
        control = self.control or self.renew(guide, *args, **kwargs)
        for name, value in control.named_parameters(type(self).__name__):
            if value.requires_grad and pyro.param(name, value).data_ptr() != value.data_ptr():
                raise ValueError(
                    f"Pyro's parameter store holds another estimator's {name!r}, so this one's "
                    "would not be trained: work within `with pyro.get_param_store().scope():`"
                )
        return super()._traced(model, guide, args, kwargs, nesting)

    def _surrogate(self, gradients: list[Tensor], sites: list[Any]) -> Tensor:
        surrogate = super()._surrogate(gradients, sites)
        learned = [p for p in self.control.parameters() if p.requires_grad]  # pyright: ignore
        if learned:
            squares: Any = sum(g.square().sum() for g in gradients)
            mean = squares / sum(g.numel() for g in gradients)
            slopes = torch.autograd.grad(mean, learned, retain_graph=True)
            pairs = zip(slopes, learned, strict=True)
            surrogate = surrogate - sum((slope * p).sum() for slope, p in pairs)
        return surrogate


class MuProp(Learned, Paired):
    r"""The ELBO by MuProp: the score function, less the cost's first-order expansion at the mean.

    .. math:: \nabla_\phi L \approx \left(f(b) - f(\mu) - f'(\mu)^\top (b - \mu) - r(x)\right)
        \nabla_\phi \log q_\phi(b) + f'(\mu)^\top \nabla_\phi \mu

    with :math:`\mu = E_q[b]` and :math:`f = \log p(x, z) - \log q(z)`, which the model gives at
    real values as it does at discrete ones; log masses are continued linearly. The baseline r, a
    network that reads the guide's first argument, is 0 unless it is asked for; what the expansion
    leaves has no mean of zero, so it pays once the model is trained. Unbiased, for guides whose
    sites are Bernoulli or one-hot and do not depend on each other; two evaluations a particle.

    Args:
        num_particles: K; the gradient is the mean over K draws.
        baseline: ``"neural"`` for a learned one, of one hidden layer of 100 units.
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: an unknown baseline; in a step, a site that is neither Bernoulli nor one-hot,
            or with a baseline one outside the plate of the data.

    References:
        Gu, Levine, Sutskever & Mnih (2016), arXiv:1511.05176.

    >>> MuProp(num_particles=2).num_particles
    2
    """

    kinds = KINDS
    draws = 1

    def __init__(
        self,
        num_particles: int = 1,
        baseline: Literal["none", "neural"] = "none",
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
    ) -> None:
        if baseline not in ("none", "neural"):
            raise ValueError(f"baseline is none or neural, got {baseline}")
        super().__init__(num_particles, max_plate_nesting, vectorize_particles)
        self.baseline = baseline

    def renew(self, guide: Callable, *args: object, **kwargs: object) -> nn.Module:
        """Make the baseline anew, for data of this width."""
        self._see(args)
        return super().renew(guide, *args, **kwargs)

    def _control(self, sites: list[Any]) -> nn.Module:
        if self.baseline == "none":
            return nn.Module()
        return nn.Sequential(nn.Linear(self.read.shape[1], 100), nn.ReLU(), nn.Linear(100, 1))

    def _traced(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict, nesting: float
    ) -> tuple[Trace, Trace]:
        self._see(args)
        return super()._traced(model, guide, args, kwargs, nesting)

    def _pair(self, logits: Tensor, kind: Kind) -> tuple[Tensor, dict[str, Any]]:
        mean = kind.soft(logits).requires_grad_()
        return torch.stack([kind.hard(logits + kind.noise(logits)), mean]), {"mean": mean}

    def _slopes(self, cost: MultiFrameTensor, sites: list[Any]) -> list[Tensor]:
        at_mean: Any = sum(value[1].sum() for value in cost.values())
        means = [site["infer"]["mean"] for site in sites]
        slopes = torch.autograd.grad(at_mean, means, retain_graph=True)
        scores = [site["value"][0] - mean for site, mean in zip(sites, means, strict=True)]
        found = []
        for site, slope, mean, score in zip(sites, slopes, means, scores, strict=True):
            f = spread(cost, site)
            rest = (f[0] - f[1]).detach() - linear_part(slopes, scores, sites, site)
            if self.baseline != "none":
                rest = rest - self._predicted(site)
            found.append(rest * score + pull(slope, mean, site["infer"]["kind"]))
        return found

    def _see(self, args: tuple) -> None:
        if self.baseline != "none":
            self.read = args[0].flatten(1).nan_to_num()

    def _predicted(self, site: Any) -> Tensor:  # noqa: ANN401
        """The baseline of each datum, to be broadcast against the site's draws."""
        network: Any = self.control
        sizes = [frame.size for frame in site["cond_indep_stack"] if frame.dim == -1]
        if sizes != [len(self.read)]:
            raise ValueError(
                f"a neural baseline is one for each row of the guide's first argument, here "
                f"{len(self.read)}, and site {site['name']!r} does not lie in a plate of that "
                "size: leave baseline out"
            )
        return widen(network(self.read).squeeze(-1), site)


class DoubleCV(Learned):
    r"""The ELBO by RLOO with double control variates, made of the slopes at the other draws.

    .. math:: \nabla_\phi L \approx \frac{1}{K} \sum_{k=1}^K \left[
        \left(h_k - \frac{1}{K - 1} \sum_{j \ne k} h_j\right) \nabla_\phi \log q_\phi(b_k)
        + \alpha\, \bar f_k'^\top \nabla_\phi \mu\right], \quad
        h_k = f(b_k) - \alpha\, \bar f_k'^\top (b_k - \mu)

    with :math:`f = \log p(x, z) - \log q(z)`, :math:`\bar f_k'` the mean of :math:`f'(b_j)` over
    the other draws and :math:`\mu = E_q[b]`. The slopes cost a backward pass and no evaluation. At
    alpha = 0, where it starts, it is :class:`RLOO`. Unbiased, for guides whose sites are Bernoulli
    or one-hot and do not depend on each other; one evaluation a particle.

    Args:
        num_particles: K, at least 2.
        alpha: learned where it is not given.
        max_plate_nesting: as in every Pyro ``ELBO``.
        vectorize_particles: must stay true.

    Raises:
        ValueError: fewer than 2 particles; in a step, a site that is neither Bernoulli nor one-hot.

    References:
        Titsias & Shi (2022), arXiv:2111.05300.

    >>> DoubleCV(num_particles=4).num_particles
    4
    """

    kinds = KINDS
    least = 2

    def __init__(
        self,
        num_particles: int = 2,
        alpha: float | None = None,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles)
        self.alpha = alpha

    def _control(self, sites: list[Any]) -> nn.Module:
        return nn.ParameterDict({"alpha": number(self.alpha, 0.0)})

    def _values(self, logits: Tensor, kind: Kind) -> tuple[Tensor, dict[str, Any]]:
        return kind.hard(logits + kind.noise(logits)).requires_grad_(), {}

    def _gradients(self, cost: MultiFrameTensor, sites: list[Any]) -> list[Tensor]:
        k, alpha = self.num_particles, self.control["alpha"]  # pyright: ignore
        draws = [site["value"] for site in sites]
        slopes = torch.autograd.grad(total(cost), draws, retain_graph=True)
        others = [(slope.sum(0) - slope) / (k - 1) for slope in slopes]
        means = [site["infer"]["kind"].soft(site["infer"]["logits"].detach()) for site in sites]
        scores = [draw.detach() - mean for draw, mean in zip(draws, means, strict=True)]
        found = []
        for site, other, mean, score in zip(sites, others, means, scores, strict=True):
            h = spread(cost, site).detach() - alpha * linear_part(others, scores, sites, site)
            rest = (h - h.mean(0)) * (k / (k - 1))
            g = rest * score + alpha * pull(other, mean, site["infer"]["kind"])
            found.append(g.mean(0))
        return found


def number(given: float | None, start: float) -> nn.Parameter:
    """A number that is given, or learned from its start."""
    return nn.Parameter(torch.tensor(start if given is None else given), given is None)


def logits_of(site: Any) -> Tensor:  # noqa: ANN401
    return site["infer"]["logits"].detach()


def pull(slope: Tensor, mean: Tensor, kind: Kind) -> Tensor:
    """What a slope in the mean is in the logits."""
    if kind is Bits:
        return slope * mean * (1 - mean)
    return mean * (slope - (slope * mean).sum(-1, keepdim=True))


def linear_part(slopes: Any, steps: list[Tensor], sites: list[Any], site: Any) -> Tensor:  # noqa: ANN401
    """Slopes times steps, of the sites that lie in all plates of one, summed to its plates.

    A slope of a site outside (a global one) is of the whole cost, of which this site's is a part.
    """
    found, plates = MultiFrameTensor(), set(site["cond_indep_stack"])
    for slope, step, other in zip(slopes, steps, sites, strict=True):
        stack = other["cond_indep_stack"]
        if plates <= set(stack):
            term: Any = sum_rightmost(slope * step, other["fn"].event_dim)
            depth = max((-frame.dim for frame in stack if frame.vectorized), default=0)
            found.add((stack, term.reshape((1,) * (depth - term.ndim) + term.shape)))
    return spread(found, site)
