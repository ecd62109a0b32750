"""Effect handlers around a guide or model: an estimator changes, model and guide do not.

All of them work on any Pyro function, not only on those of :class:`pyro_vae.VAE`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.util import sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ...core.checks import number
from ..sites import is_learned_point, is_product, latent

__all__ = [
    "Baseline",
    "EnumerableProduct",
    "Enumerate",
    "KLWeight",
    "RunningMean",
    "ScoreFunction",
    "Size",
    "StickingTheLanding",
    "Wrapper",
]

MAX_STATES = 2**14

Size: TypeAlias = Sequence[int]


class ScoreFunction(Messenger):
    r"""Switch a guide from pathwise to score-function gradients, by hiding its ``rsample``.

    .. math:: \nabla_\phi E_q[f(z)] = E_q[f(z) \nabla_\phi \log q_\phi(z)]

    The site's distribution is wrapped before it draws: replaced afterwards it would already be in
    the trace. A point that has a gradient (``Delta``) keeps its path, for it has no score.

    References:
        Williams (1992), Machine Learning 8; Ranganath et al. (2014), arXiv:1401.0118.
    """

    def _pyro_sample(self, msg: dict) -> None:
        fn = msg["fn"]
        if latent(msg) and getattr(fn, "has_rsample", False) and not is_learned_point(fn):
            msg["fn"] = NonReparameterized(fn)


class StickingTheLanding(Messenger):
    r"""Drop the score from the pathwise gradient of the ELBO: log q keeps its path through z alone.

    .. math:: \nabla_\phi L = E_\epsilon\left[
        \frac{\partial}{\partial z}\left(\log p(x, z) - \log q_\phi(z)\right)
        \frac{\partial z_\phi(\epsilon)}{\partial \phi}\right]

    The score :math:`\partial \log q_\phi(z) / \partial \phi` at a fixed z has mean zero, so the
    gradient stays unbiased for the ELBO, and it is exactly zero where q is the posterior. That
    mean is not zero under the weights of an importance-weighted bound: use :class:`DReG` there.
    Sites without ``rsample`` are left as they are. In a guide of several sites every density's
    parameters count as fixed, those that depend on earlier sites too: unbiased, but exactly zero at
    the posterior only with ``DReG(num_particles=1)``. The path through a flow that is quick in its
    draws alone, as in a guide, comes from the pass that made them, without its inverse.

    References:
        Roeder, Wu & Duvenaud (2017), arXiv:1703.09194; Vaitl, Winkler, Richter & Kessel (2024),
        arXiv:2403.15881, for flows in one pass.

    >>> q = PathOnly(dist.Normal(torch.zeros(2, requires_grad=True), 1.0))
    >>> q.log_prob(torch.ones(2)).requires_grad
    False
    """

    def _pyro_sample(self, msg: dict) -> None:
        if latent(msg) and getattr(msg["fn"], "has_rsample", False):
            msg["fn"] = PathOnly(msg["fn"])


class Wrapper(dist.TorchDistribution):
    """A distribution that changes one thing of another and, unlike an attribute, outlives expand.

    Args:
        base: the distribution.
    """

    arg_constraints = {}

    def __init__(self, base: dist.TorchDistribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        """The support of the wrapped distribution."""
        return self.base.support

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of the wrapped distribution."""
        return self.base.log_prob(value)

    def expand(self, batch_shape: Size, _instance: object = None) -> Self:
        """The wrapped distribution expanded, in the same wrapper."""
        return type(self)(self.base.expand(batch_shape))


class NonReparameterized(Wrapper):
    """A distribution without ``rsample``."""

    has_rsample = False

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw, outside the graph."""
        with torch.no_grad():  # a copy, at which a transform that keeps its draws knows log q anew
            return self.base.sample(torch.Size(sample_shape)).clone()


class PathOnly(Wrapper):
    """A reparameterized distribution whose log density has no gradient but the one through z."""

    has_rsample = True

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw with its path to the parameters."""
        return self.base.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, linear in ``value`` around itself, its parameters fixed.

        Copies with detached parameters would miss those inside transforms and networks; a
        derivative in z alone misses none, whatever the density is made of. A flow may know that of
        its own draw without its inverse.
        """
        own = getattr(self.base, "slope", None)
        known = own(value) if own is not None and torch.is_grad_enabled() else None
        if known is not None:
            return self._linear(value, *known)
        if not (torch.is_grad_enabled() and value.requires_grad):
            return self.base.log_prob(value).detach()
        z = value.detach().requires_grad_()  # a new tensor: no cache of a transform knows it
        log_q = self.base.log_prob(z)
        if not log_q.requires_grad:
            return log_q
        (slope,) = torch.autograd.grad(log_q.sum(), z, materialize_grads=True)
        return self._linear(value, log_q.detach(), slope)

    def _linear(self, value: Tensor, log_q: Tensor, slope: Tensor) -> Tensor:
        path: Any = sum_rightmost(slope * (value - value.detach()), self.event_dim)
        return log_q + path


class KLWeight(Messenger):
    r"""Scale what latent sites contribute, in model and guide alike: the KL term by ``weight``.

    .. math:: E_q[\log p(x|z)] - \beta\, KL(q(z|x) \| p(z))

    ``weight`` may be changed between steps (annealing); a compiled step sees that of a tensor. It
    must wrap the guide too: ``TraceMeanField_ELBO`` scales the analytic KL by the guide's scale.

    References:
        Higgins et al. (2017), beta-VAE; Bowman et al. (2016), arXiv:1511.06349 (annealing).
    """

    def __init__(self, weight: float | Tensor = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.last: float | None = None

    def set(self, weight: float) -> None:
        """Change the weight, in place where it is a tensor."""
        if not isinstance(self.weight, Tensor):
            self.weight = weight
        elif weight != self.last:
            self.weight.fill_(weight)
        self.last = weight

    def _pyro_sample(self, msg: dict) -> None:
        of_kl = latent(msg) or msg["infer"].get("of_kl")  # an observed factor may be a part of it
        if of_kl and (isinstance(self.weight, Tensor) or self.weight != 1):
            msg["scale"] = msg["scale"] * self.weight


class Enumerate(Messenger):
    """Mark the discrete sites of a guide for parallel enumeration, products included.

    Pyro does not enumerate ``Categorical(...).to_event(1)``, and says nothing. Here such a site is
    enumerated over all its joint states.

    Raises:
        ValueError: more than 16,384 joint states.
    """

    def _pyro_sample(self, msg: dict) -> None:
        if not latent(msg):
            return
        if is_product(msg["fn"]):
            msg["fn"] = EnumerableProduct(msg["fn"], msg["name"])
        if msg["fn"].has_enumerate_support:
            msg["infer"] = {**msg["infer"], "enumerate": "parallel"}


class EnumerableProduct(Wrapper):
    """Independent finite variables as one: its support is the product of theirs."""

    has_enumerate_support = True

    def __init__(self, base: dist.Independent, name: str = "z") -> None:
        super().__init__(base)
        self.name = name

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw of all variables."""
        return self.base.sample(torch.Size(sample_shape))

    def expand(self, batch_shape: Size, _instance: object = None) -> "EnumerableProduct":
        """The joint distribution, expanded."""
        return EnumerableProduct(self.base.expand(batch_shape), self.name)  # pyrefly: ignore[bad-argument-type]

    def few_states(self) -> tuple[Tensor, int]:
        """The values of one variable, and how many variables there are.

        Raises:
            ValueError: their joint states are too many.
        """
        joint: Any = self.base
        base, n = joint.base_dist, joint.reinterpreted_batch_ndims
        values = base.enumerate_support(expand=False)
        values = values.reshape(len(values), *base.event_shape)
        cells = self.event_shape[:n].numel()
        if len(values) ** cells > MAX_STATES:
            raise ValueError(
                f"site {self.name!r} has {len(values)}^{cells} joint states, too many to "
                f"enumerate (at most {MAX_STATES}): use Trace_ELBO(gradient=score)"
            )
        return values, cells

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All joint states, ``(S, *batch_shape or 1s, *event_shape)``."""
        values, cells = self.few_states()
        index = torch.cartesian_prod(*[torch.arange(len(values), device=values.device)] * cells)
        states = values[index.reshape(-1, cells)]
        ones = [1] * len(self.batch_shape)
        states = states.reshape(len(states), *ones, *self.event_shape)
        return states.expand(-1, *self.batch_shape, *self.event_shape) if expand else states


class Baseline(Messenger):
    r"""A baseline for the score-function sites of ``TraceGraph_ELBO``.

    .. math:: \nabla_\phi L = E_q[(f(z) - b(x)) \nabla_\phi \log q_\phi(z|x)]

    where ``b`` is fitted to the cost f by squared error. One network serves all sites.

    Args:
        network: from the guide's first argument, flattened to ``(B, D)``, to ``(B, 1)``: a network
            with parameters (NVIL's input-dependent baseline), or a :class:`RunningMean`.

    References:
        Mnih & Gregor (2014), NVIL, arXiv:1402.0030.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.input = torch.empty(0)

    def __call__(self, guide: Callable) -> Callable:
        """Wrap a guide; its first argument is what the baseline reads."""

        def with_baseline(x: Tensor, *args: object, **kwargs: object) -> object:
            pyro.module("baseline", self.network)
            self.input = x.flatten(1).nan_to_num()
            with self:
                return guide(x, *args, **kwargs)

        return with_baseline

    def _pyro_sample(self, msg: dict) -> None:
        if latent(msg) and not msg["fn"].has_rsample:

            def value(x: Tensor) -> Tensor:
                lead = msg["value"].shape[: msg["value"].ndim - msg["fn"].event_dim]
                return self.network(x).squeeze(-1).expand(lead)

            baseline = {"nn_baseline": value, "nn_baseline_input": self.input}
            msg["infer"] = {**msg["infer"], "baseline": baseline}


class RunningMean(nn.Module):
    """A decaying average of the cost, as the network of a :class:`Baseline`.

    Pyro's own decaying baseline keeps one average per place in the batch: a batch of another size
    breaks it, and its parameter store keeps every past value. This one is a single number. It
    learns the cost from the gradient of the squared error, -2 (cost - average).

    References:
        Mnih & Gregor (2014), arXiv:1402.0030, section 2.3.
    """

    average: Tensor

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = number("decay", decay, 0)
        self.register_buffer("average", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The average, ``(B, 1)``; in training mode the backward pass updates it."""
        average = self.average.detach().clone().requires_grad_()

        def update(gradient: Tensor) -> None:
            self.average -= (1 - self.decay) * gradient / (2 * len(x))

        if self.training:
            average.register_hook(update)
        return average.expand(len(x), 1)
