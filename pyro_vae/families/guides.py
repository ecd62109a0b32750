"""Guides with structure, and what makes a guide fit a prior."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..core.checks import boolean, positive, whole
from ..distributions import MultivariateNormalMixture, NormalMixture
from ..language.spec import Spec, Value, as_spec
from .family import Family
from .part import Ends, Part, Role
from .priors import is_made_of_guide
from .support import innermost, spike_of, support_bounds

__all__ = ["DeltaNormal", "SemiAmortized", "WithSteps", "refine", "suggest_guide"]

FIRST_ONLY = (NormalMixture, MultivariateNormalMixture)  # draws have no second derivatives


class DeltaNormal(Part):
    r"""Normal, its scale so far below 1 that each dimension carries a committed rate (delta-VAE).

    .. math:: KL(q(z_j|x) \| N(0, 1)) \ge \tfrac12 (\sigma_\delta^2 - 1 - \log \sigma_\delta^2)
        = \delta, \quad \sigma_j(x) < \sigma_\delta < 1

    No data point's posterior can be the prior then, in any dimension. The prior must be ``Normal``
    as it is: one that learns would follow the guide.

    Args:
        rate: :math:`\delta`, nats per dimension.
        parameters: ``scale=learned``; ``loc`` and ``scale`` are amortized by default.

    Raises:
        ValueError: a rate that is not positive, or a scale that is a number.

    References:
        Razavi et al. (2019), arXiv:1901.03416.

    >>> guide = DeltaNormal(rate=0.5)
    >>> round(guide.largest, 4), round(0.5 * (guide.largest**2 - 1) - math.log(guide.largest), 4)
    (0.3982, 0.5)
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"guide"})

    def __init__(self, rate: float = 0.1, **parameters: Value) -> None:
        super().__init__()
        if isinstance(parameters.get("scale"), int | float):
            raise ValueError("the rate says how large the scale may be: leave it out, or learned")
        self.rate, self.inner = positive("rate", rate), Spec("Normal", **parameters)
        self.spec = Spec("DeltaNormal", rate=rate, **parameters)

        def excess(s: float) -> float:
            return 0.5 * (s * s - 1) - math.log(s) - rate

        low, high = math.exp(-0.5 - rate), 1.0  # the excess is >= 0 at the one and < 0 at the other
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) >= 0 else (low, middle)
        self.largest = low

    def build(self, ends: Ends) -> None:
        """Make the parameters for draws of this shape."""
        if not ends.whole:
            raise ValueError(
                "DeltaNormal commits to a rate against N(0, 1), so it is of the whole guide, not "
                "of a part of it: use Normal here, with fit(..., free_bits=...)"
            )
        self.family = Family(self.inner)
        self.family.build(ends)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The normal distribution, of batch shape that of the features."""
        q: Any = innermost(self.family(features))
        scale = -self.largest * torch.expm1(-q.scale)
        return dist.Normal(q.loc, scale).to_event(len(self.family.event_shape))

    def depends(self) -> bool:
        """Whether a parameter is amortized."""
        return self.family.depends()

    def connect(self, ends: Ends) -> None:
        """Raise if the rate would not be committed: the prior is another than N(0, 1)."""
        prior: Any = ends.partner
        p: Any = innermost(prior())
        standard = isinstance(p, dist.Normal) and bool((p.loc == 0).all() & (p.scale == 1).all())
        if not standard or any(True for _ in prior.parameters()):
            raise ValueError(
                f"{self.spec} commits to a rate against N(0, 1): use prior='Normal' with it, or "
                "fit(..., free_bits=...) with another prior"
            )


class WithSteps(Part):
    """A guide that goes on from a family's q(z|x) by steps of its own, towards p(z|x)."""

    roles: ClassVar[frozenset[Role]] = frozenset({"guide"})
    start: Spec
    asks, instead = "make", "a guide without steps and vae.refine"  # of a prior made of the guide

    def make_family(self, ends: Ends) -> dist.TorchDistribution:
        """Make the family of ``start``; its distribution where all features are 0."""
        if not ends.whole:
            raise ValueError(f"{type(self).__name__} is of the whole guide, not of a part of it")
        self.family = ends.make(self.start)
        with torch.no_grad():
            return self.family(torch.zeros(1, *(ends.feature_shape or ())))

    def connect(self, ends: Ends) -> None:
        """Raise if prior and steps would ask for each other without end."""
        if is_made_of_guide(ends.partner):
            raise ValueError(
                f"{self.spec} asks for p(z) to {self.asks} q(z|x), and a VampPrior is made of "
                f"q(z|x): choose another prior, or {self.instead}"
            )
        super().connect(ends)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The family at features, of batch shape that of the features."""
        return self.family(features)


class SemiAmortized(WithSteps):
    r"""A guide that takes some steps for each data point from the encoder's answer, always.

    .. math:: h_{i+1} = h_i + \rho\, \nabla_h L(x; h_i), \quad h_0 = \mathrm{encoder}(x), \quad
        q(z \mid x) = \mathrm{Family}(z; h_{steps})

    What moves are the features, so it serves every reparameterized family. The steps are a part of
    the guide, in training too: :meth:`VAE.refine` is for the end alone. L is the ELBO, whatever is
    trained by, and it is drawn with noise of its own.

    Args:
        guide: the family: ``"Normal"``.
        steps: for each data point.
        lr: :math:`\rho`.
        num_particles: draws of z a step.
        clip_norm: no data point's gradient is longer in a step.
        through: whether training's gradient passes through the steps (exactly, by second
            derivatives, at the price of about as many backward passes more), or takes what they
            add for a constant. Either is exact for the model where the steps have converged;
            then the first tells the encoder nothing more, as it has nothing left to say.

    References:
        Kim, Wiseman, Miller, Sontag & Rush (2018), arXiv:1802.02550; Marino, Yue & Mandt (2018),
        arXiv:1807.09356.

    >>> SemiAmortized("Normal", steps=3, lr=0.5).spec
    SemiAmortized(Normal, steps=3, lr=0.5)
    """

    def __init__(
        self,
        guide: str | Spec = "Normal",
        steps: int = 5,
        lr: float = 0.1,
        num_particles: int = 1,
        clip_norm: float = 10.0,
        through: bool = True,
    ) -> None:
        super().__init__()
        self.start = as_spec(guide)
        self.steps, self.lr = whole("steps", steps), positive("lr", lr)
        self.num_particles = whole("num_particles", num_particles)
        self.clip_norm, self.through = positive("clip_norm", clip_norm), boolean("through", through)
        options = {
            "num_particles": (num_particles, 1),
            "clip_norm": (clip_norm, 10.0),
            "through": (through, True),
        }
        named = {name: value for name, (value, usual) in options.items() if value != usual}
        self.spec = Spec("SemiAmortized", self.start, steps=steps, lr=lr, **named)

    def build(self, ends: Ends) -> None:
        """Make the family for draws of this shape."""
        q = self.make_family(ends)
        if self.through and (isinstance(q, FIRST_ONLY) or not self._curves(ends.feature_shape)):
            raise ValueError(
                f"draws of {self.start.name} have first derivatives only, and the steps are "
                "differentiated through: say through=False"
            )

    def _curves(self, shape: tuple[int, ...] | None) -> bool:
        """Whether draws of the family have second derivatives."""
        h = torch.zeros(1, *(shape or ()), requires_grad=True)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            q = self.family(h)
            if not q.has_rsample:
                return True  # what is not reparameterized is refused elsewhere
            try:
                (slope,) = torch.autograd.grad(q.rsample().square().sum(), h, create_graph=True)
                if slope.requires_grad:
                    torch.autograd.grad(slope.square().sum(), h, allow_unused=True)
            except RuntimeError:  # NotImplementedError is one
                return False
        return True

    def approximate(
        self, features: Tensor, log_joint: Callable[[Tensor], Tensor]
    ) -> dist.TorchDistribution:
        """The family at the features after the steps."""
        return self(self.improve(features, log_joint))

    def improve(self, features: Tensor, log_joint: Callable[[Tensor], Tensor]) -> Tensor:
        """The features after the steps."""
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            free = training and features.requires_grad
            h = features if free else features.detach().requires_grad_()
            for _ in range(self.steps):
                slope = _slope(
                    self.family, h, log_joint, self.num_particles, through=training and self.through
                )
                norm = slope.flatten(1).norm(dim=1).clamp_min(self.clip_norm)
                h = h + self.lr * slope * (self.clip_norm / norm).reshape(-1, *[1] * (h.ndim - 1))
        return h if training else h.detach()


GUIDE_OF = {  # kinds of supports, and a line for a guide that has them
    "simplex": "Transformed(Normal, StickBreakingTransform)",
    "sphere": "VonMisesFisher",
    "boolean": "Bernoulli",
    "onehot": "OneHotCategorical",
}


def suggest_guide(p: dist.TorchDistribution) -> str:
    """The line of a guide with the support of a prior."""
    kind, lower, upper = support_bounds(p.support)  # pyrefly: ignore[bad-argument-type]
    finite = math.isfinite(lower) and math.isfinite(upper)
    if kind in GUIDE_OF:
        return GUIDE_OF[kind]
    if spike_of(p.support) is not None:  # pyrefly: ignore[bad-argument-type]
        return "SpikeAndSlab"
    if kind == "discrete" and lower == 0:
        if isinstance(innermost(p), dist.Categorical):
            return f"Categorical(categories={int(upper) + 1})"
        return f"Binomial(total_count={int(upper)})" if finite else "Poisson"
    if (lower, upper) == (0, 1):
        return "Transformed(Normal, SigmoidTransform)"
    if finite:
        low, high = (
            np.format_float_positional(np.float32(end), trim="-") for end in (lower, upper)
        )
        return f"Transformed(Normal, Interval({low}, {high}))"
    if lower == -math.inf:
        return "Normal"
    return "Transformed(Normal, SoftplusTransform)" if lower == 0 else type(innermost(p)).__name__


def refine(
    posterior: nn.Module,
    features: Tensor,
    log_joint: Callable[[Tensor], Tensor],
    *,
    steps: int,
    lr: float,
    num_particles: int,
) -> dist.TorchDistribution:
    r"""q(z|x) with its features improved for each data point by ascent on its ELBO.

    The features, not the family's parameters, are what moves: so it serves every guide.

    Args:
        posterior: from features to q(z|x); its weights stay.
        features: the encoder's answer, ``(B, ...)``, where the ascent starts.
        log_joint: from z, ``(K, B, ...)``, to log p(x, z), ``(K, B)``.
        steps: of Adam.
        lr: its learning rate.
        num_particles: draws of z a step.
    """
    h = features.detach().clone().requires_grad_()
    moves = h.shape[-1] - getattr(posterior, "still", 0)  # pyrefly: ignore[unsupported-operation]
    optimizer = torch.optim.Adam([h], lr=lr)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            gradient = -_slope(posterior, h, log_joint, num_particles)
            gradient[..., moves:] = 0  # what stands beside them is data
            h.grad = gradient
            optimizer.step()
    with torch.no_grad():
        return posterior(h.detach())


def _slope(
    posterior: nn.Module,
    h: Tensor,
    log_joint: Callable[[Tensor], Tensor],
    num_particles: int,
    *,
    through: bool = False,
) -> Tensor:
    """The gradient of each data point's ELBO in its features; differentiable on request."""
    q = posterior(h)
    if not q.has_rsample:
        raise ValueError(
            f"{type(q).__name__} has no reparameterized sampler, so refining would not see "
            "how z moves: use a reparameterized guide"
        )
    z = q.rsample(torch.Size([num_particles]))
    bound = (log_joint(z) - q.log_prob(z)).mean(0).sum()
    return torch.autograd.grad(bound, h, create_graph=through)[0]
