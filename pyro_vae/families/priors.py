"""Priors with structure: what p(z) can be beyond one family of Pyro's."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from ..core.checks import whole
from ..core.seeding import seeded
from ..distributions import AutoregressiveBits, JoinedSupport, ResampledDistribution, mixture
from ..language.spec import Spec, Value, as_spec
from .flows import kept_validation
from .likelihoods import fill
from .mixtures import make_weights
from .networks import MLP
from .parameters import GlobalParameter
from .part import Ends, Part, Role
from .support import REAL, convex, support_bounds, transform
from .units import Unit, centre_and_spread, or_one, read_without

__all__ = ["AutoregressiveBernoulli", "Resampled", "VampPrior", "is_made_of_guide"]

MARGIN = 0.02  # how far pseudo-inputs start from the ends of their range


class VampPrior(Part):
    r"""A mixture of the guide at pseudo-inputs, which are learned.

    .. math:: p(z) = \sum_{k=1}^K \pi_k\, q(z \mid u_k)

    The best prior for an ELBO is the guide averaged over the data; this is that average over K
    made-up data. They are a learned parameter with x's range as its constraint (within [0, 1] for
    bits and grey values), where x has units in those of each cell. The encoder is the VAE's own; it
    is called, not kept as a part.

    Args:
        components: K.
        start: where pseudo-inputs start: ``data`` (training data, once :func:`fit` or
            :meth:`start_from` gives them; random until then) or ``random``.
        logits: of the weights: 0 (equal weights) by default, numbers or ``learned``.

    References:
        Tomczak & Welling (2018), arXiv:1705.07120.
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"prior"})
    started: Tensor
    scaled: Tensor  # which cells have a unit
    unit: Unit | None

    def __init__(
        self, components: int = 500, start: str | Spec = "data", logits: Value = None
    ) -> None:
        super().__init__()
        if str(start) not in ("data", "random"):
            raise ValueError(f"start is data or random, got {start}")
        self.components = whole("components", components)
        self.options = {} if logits is None else {"logits": logits}
        start = Spec(str(start))
        self.spec = Spec("VampPrior", components=components, start=start, **self.options)
        self.register_buffer("started", torch.tensor(start.name == "random"))
        self.encode: Callable[[Tensor], dist.TorchDistribution] | None = None
        self.unit = None

    def build(self, ends: Ends) -> None:
        """Make the weights."""
        self.weights = make_weights(self.components, ends, **self.options)

    def connect(self, ends: Ends) -> None:
        """Take the encoder, and make pseudo-inputs within the range of the likelihood's support."""
        if ends.encode is None or ends.x_shape is None or ends.x_support is None:
            raise ValueError(
                "a VampPrior is made of q(z|x) at made-up x, and this guide reads more than x of "
                "one shape (a condition, visits, a label, or sequences of any length): choose "
                "another prior, such as Mixture(Normal(loc=learned, scale=learned))"
            )
        self.encode, self.range = ends.encode, convex(ends.x_support)
        to_range, shape = transform(self.range), (self.components, *ends.x_shape)
        start: Any = to_range(torch.randn(to_range.inverse_shape(shape)))
        self.pseudo_inputs = GlobalParameter(start, shape, to_range)
        if ends.in_units and support_bounds(self.range)[2] == math.inf:
            self.unit = Unit(ends.x_shape)
            read_without(self, {"unit.shift": 0.0, "unit.factor": 1.0})
            self.register_buffer("scaled", _continuous(ends.x_support), persistent=False)

    @torch.no_grad()
    def start_from(self, x: Tensor) -> None:
        """Set pseudo-inputs to data points drawn from x (with replacement if there are too few)."""
        if self.started:
            return
        n, k = len(x), self.components
        rows = torch.randperm(n)[:k] if k <= n else torch.randint(n, (k,))
        some = x[rows.to(x.device)]
        if self.unit is not None:
            some = self._in_units(x, some, self.unit)
        start: Any = self.pseudo_inputs.transform.inv(inside(some, self.range))
        self.pseudo_inputs.unconstrained.copy_(start)
        self.started.fill_(True)

    def forward(self, features: None = None) -> dist.TorchDistribution:
        """The mixture, of batch shape ()."""
        if self.encode is None:
            raise ValueError("a VampPrior needs an encoder: connect(ends) with encode")
        u = self.pseudo_inputs(None)
        return mixture(self.weights(), self.encode(u if self.unit is None else self.unit(u)))

    def _in_units(self, x: Tensor, some: Tensor, unit: Unit) -> Tensor:
        """Some of the data x in the units of each cell, in which a step is as long in any unit."""
        centre, spread = centre_and_spread(x.double())
        if support_bounds(self.range) != REAL:
            centre, spread = torch.zeros_like(spread), or_one(x.double().nanmean(0))
        unit.shift.copy_(torch.where(self.scaled, centre, 0.0))
        unit.factor.copy_(torch.where(self.scaled, spread, 1.0))
        return (some - unit.shift) / unit.factor


def _continuous(support: constraints.Constraint) -> Tensor:
    """Which cells are no whole numbers, such as codes, which must stay as they are."""
    if not isinstance(support, JoinedSupport):
        return torch.tensor(not support.is_discrete)
    widths = zip(support.supports, support.layout.widths, strict=True)
    return support.layout.join([torch.full((n,), not s.is_discrete) for s, n in widths])


class Resampled(Part):
    r"""A proposal whose draws are accepted or rejected by a learned function.

    .. math:: p(z) \propto \pi(z)\, a(z), \quad 0 \le a(z) \le 1

    After ``truncation`` - 1 rejections the next draw is taken as it comes, which the density
    knows. The normalizer :math:`Z = E_\pi[a]` is estimated anew at every training step, with its
    gradient, and measured once by many more draws when the module is put into ``eval()`` (as
    :func:`fit` and :func:`load` do).

    Args:
        proposal: :math:`\pi`, any prior: ``"Normal"``.
        hidden: the widths of the acceptance network (tanh).
        truncation: how many proposals a draw may take.
        num_samples: draws for the normalizer at a training step.

    References:
        Bauer & Mnih (2019), arXiv:1810.11428.

    >>> from pyro_vae.families.registry import make_part
    >>> prior = make_part(Resampled("Normal"), Ends((2,), "prior"))
    >>> prior().sample((5,)).shape
    torch.Size([5, 2])
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"prior"})
    normalizer: Tensor
    measured = 2**17

    def __init__(
        self,
        proposal: str | Spec = "Normal",
        hidden: Sequence[int] = (100, 100),
        truncation: int = 100,
        num_samples: int = 1024,
    ) -> None:
        super().__init__()
        self.proposed = as_spec(proposal)
        self.truncation = whole("truncation", truncation, 2)
        self.num_samples = whole("num_samples", num_samples)
        self.features = MLP(hidden, activation="Tanh")
        options = {"truncation": truncation, "num_samples": num_samples}
        self.spec = Spec("Resampled", self.proposed, hidden=self.features.hidden, **options)
        self.register_buffer("normalizer", torch.tensor(0.5))

    def build(self, ends: Ends) -> None:
        """Make the proposal and the network for draws of this shape."""
        self.proposal = ends.make(self.proposed)
        self.features.build(ends.shape, ())
        width = (math.prod(ends.shape), *self.features.hidden)[-1]
        self.accept = nn.Linear(width, 1)

    def forward(self, features: None = None) -> dist.TorchDistribution:
        """The resampled distribution, of batch shape ()."""
        proposal = self.proposal()
        z = self.normalizer if not self.training else self._normalizer(proposal, self.num_samples)
        return ResampledDistribution(proposal, self.log_accept, z, self.truncation)

    def log_accept(self, z: Tensor) -> Tensor:
        """log a(z) for z of shape ``(..., *z_shape)``."""
        flat = z.reshape(-1, *self.proposal().event_shape)
        logits = self.accept(self.features(flat)).squeeze(-1)
        lead = z.shape[: z.ndim - flat.ndim + 1]
        return nn.functional.logsigmoid(logits).reshape(lead)

    def train(self, mode: bool = True) -> "Resampled":
        """Measure the normalizer where training ends."""
        if self.training and not mode and hasattr(self, "proposal"):
            with torch.no_grad(), seeded(0):
                self.normalizer.copy_(self._normalizer(self.proposal(), self.measured))
        return super().train(mode)

    def _normalizer(self, proposal: dist.TorchDistribution, n: int) -> Tensor:
        many = proposal.expand([n])
        z = many.rsample() if proposal.has_rsample else many.sample()
        return self.log_accept(z).exp().mean()


class AutoregressiveBernoulli(Part):
    r"""Bits, each one's probability a function of those before it.

    .. math:: p(z) = \prod_d \mathrm{Bernoulli}(z_d; \mathrm{logits}_d(z_{<d}))

    Args:
        hidden: the widths of a masked network; none makes the logits linear (a sigmoid belief
            network with all links).

    References:
        Frey, Hinton & Dayan (1996); Germain et al. (2015), MADE, arXiv:1502.03509.
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"prior"})

    def __init__(self, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        self.hidden = MLP(hidden).hidden  # checked there
        self.spec = Spec("AutoregressiveBernoulli", self.hidden)

    def build(self, ends: Ends) -> None:
        """Make the masked network for draws of this shape."""
        with kept_validation():
            from zuko.nn import MaskedMLP

        self.shape = torch.Size(ends.shape)
        n = self.shape.numel()
        before: Any = torch.ones(n, n).tril(-1).bool()
        self.network = MaskedMLP(before, hidden_features=self.hidden)

    def forward(self, features: None = None) -> dist.TorchDistribution:
        """The joint distribution of the bits, of batch shape ()."""
        like = next(self.network.parameters())
        return AutoregressiveBits(self.network, self.shape, like=like)


def inside(x: Tensor, region: constraints.Constraint) -> Tensor:
    """x moved off the ends of its range, where an unconstrained value would be infinite."""
    if region is constraints.simplex:
        return (1 - MARGIN) * x + MARGIN / x.shape[-1]
    x = fill(x, ~x.isnan(), region)
    _, lower, upper = support_bounds(region)
    if math.isfinite(upper):
        return lower + (upper - lower) * ((x - lower) / (upper - lower)).clamp(MARGIN, 1 - MARGIN)
    return x.clamp_min(lower + MARGIN)


def is_made_of_guide(prior: nn.Module | None) -> bool:
    """Whether a prior is, or has among its parts, one that is made of q(z|x)."""
    return prior is not None and any(isinstance(part, VampPrior) for part in prior.modules())
