"""Densities that networks make: flows, resampled proposals, bits one by one."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from .supports import support_of_cell

__all__ = ["AutoregressiveBits", "Pushforward", "ResampledDistribution"]

Size = Sequence[int]


class Draw(NamedTuple):
    """The last draw z of a map, the u that it was made from, and its log density."""

    u: Any = None
    z: Any = None
    log_prob: Any = None


class Pushforward(dist.TorchDistribution):
    r"""A base distribution through an invertible map, with the density of its own draws for free.

    .. math:: z = f(u), \quad \log p(z) = \log p_0(u) - \log |\det \partial f / \partial u|

    One direction of a flow may be much dearer than the other. The log density of a reparameterized
    draw comes from the pass that made it; that of any other value, and of a draw without a path
    (the score function needs the gradient at a fixed z), from the inverse.

    Args:
        base: of event shape ``(D,)``.
        transform: from a value to the base where not ``inverse``, as Zuko has it; otherwise from
            the base to a value. It must have ``call_and_ladj`` and ``inv``.
        shape: of one draw, D numbers in all.
        inverse: see ``transform``.
        one_way: whether the way back from a draw is the dear one, so that :meth:`slope` is known
            without it.
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(
        self,
        base: dist.TorchDistribution,
        transform: Any,  # noqa: ANN401
        shape: Size,
        *,
        inverse: bool = False,
        one_way: bool = False,
    ) -> None:
        self.base, self.transform, self.inverse = base, transform, inverse
        self.one_way, self.draw = one_way, Draw()
        self.has_rsample = base.has_rsample
        super().__init__(base.batch_shape, torch.Size(shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All arrays of the event's shape; of a base on circles angles."""
        base: Any = self.base.support
        circles = isinstance(support_of_cell(base), constraints.interval)
        cell = constraints.interval(-math.pi, math.pi) if circles else constraints.real
        return constraints.independent(cell, len(self.event_shape))

    def expand(self, batch_shape: Size, _instance: object = None) -> Self:
        """The base expanded, under the same map."""
        base = self.base.expand(torch.Size(batch_shape))
        how = {"inverse": self.inverse, "one_way": self.one_way}
        return type(self)(base, self.transform, self.event_shape, **how)

    def rsample(self, sample_shape: Size = ()) -> Tensor:
        """A draw; its log density is kept with it."""
        u = self.base.rsample(torch.Size(sample_shape))
        if self.one_way and torch.is_grad_enabled() and not u.requires_grad:
            u.requires_grad_()
        z, ladj = self._pass(forth=True)(u)
        z = z.reshape(u.shape[:-1] + self.event_shape)
        self.draw = Draw(u, z, self.base.log_prob(u) - ladj)
        return z

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw without a path, for which the base need not have one."""
        if self.base.has_rsample:
            return super().sample(torch.Size(sample_shape))
        with torch.no_grad():
            u = self.base.sample(torch.Size(sample_shape))
            z, _ = self._pass(forth=True)(u)
            return z.reshape(u.shape[:-1] + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        own = value is self.draw.z
        if own and (value.requires_grad or not torch.is_grad_enabled()):
            return self.draw.log_prob
        z = value.flatten(-len(self.event_shape))
        lead = torch.broadcast_shapes(z.shape[:-1], self.batch_shape)  # couplings do not broadcast
        z = z.expand(*lead, z.shape[-1])
        u, ladj = self._pass(forth=False)(z)
        return self.base.log_prob(u) + ladj

    def slope(self, value: Tensor) -> tuple[Tensor, Tensor] | None:
        r"""The log density of an own draw and its derivative in z, all parameters fixed.

        .. math:: \frac{\partial \log q}{\partial z} = J^{-\top} \frac{\partial}{\partial u}
            \left(\log p_0(u) - \log |\det J(u)|\right), \quad J = \partial f / \partial u

        It comes from the pass that made the draw; ``None`` of other values, and where the way back
        is as quick.

        References:
            Vaitl, Winkler, Richter & Kessel (2024), arXiv:2403.15881.
        """
        u, z, log_q = self.draw
        if not self.one_way or value is not z or not z.requires_grad:
            return None
        rows = [_gradient(cell, u) for cell in z.flatten(-len(self.event_shape)).unbind(-1)]
        found = torch.linalg.solve(torch.stack(rows, -1), _gradient(log_q, u)[..., None])
        return log_q.detach(), found.reshape(z.shape)

    def _pass(self, *, forth: bool) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        transform = self.transform if forth == self.inverse else self.transform.inv
        return transform.call_and_ladj


def _gradient(value: Tensor, u: Tensor) -> Tensor:
    """Of a sum in u; the graph stays."""
    return torch.autograd.grad(value.sum(), u, retain_graph=True, materialize_grads=True)[0]


class ResampledDistribution(dist.TorchDistribution):
    r"""Draws of a proposal, accepted with probability a(z), at most ``truncation`` of them.

    .. math:: p(z) = \pi(z) \left[\frac{a(z)}{Z} (1 - \alpha) + \alpha\right],
        \quad \alpha = (1 - Z)^{T - 1}

    Args:
        proposal: :math:`\pi`.
        log_accept: from z to log a(z).
        normalizer: :math:`Z = E_\pi[a]`.
        truncation: T.
    """

    arg_constraints = {}

    def __init__(
        self,
        proposal: dist.TorchDistribution,
        log_accept: Callable[[Tensor], Tensor],
        normalizer: Tensor,
        truncation: int,
    ) -> None:
        self.proposal, self.log_accept = proposal, log_accept
        self.normalizer, self.truncation = normalizer, truncation
        super().__init__(proposal.batch_shape, proposal.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        """That of the proposal."""
        return self.proposal.support

    def expand(self, batch_shape: Size, _instance: object = None) -> "ResampledDistribution":
        """The proposal expanded, under the same acceptance."""
        proposal = self.proposal.expand(torch.Size(batch_shape))
        return ResampledDistribution(proposal, self.log_accept, self.normalizer, self.truncation)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        rate = self.normalizer.double().clamp_max(1 - 2.0**-53)  # a mean that rounds to 1 is below
        last = (self.truncation - 1) * torch.log1p(-rate)
        first = self.log_accept(value) - rate.log() + torch.log(-torch.expm1(last))
        log_p = self.proposal.log_prob(value)
        return log_p + torch.logaddexp(first, last).to(log_p)

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw by rejection."""
        with torch.no_grad():
            shape, ones = torch.Size(sample_shape), (1,) * len(self.event_shape)
            z = self.proposal.sample(shape)
            rejected = torch.ones(z.shape[: z.ndim - len(ones)], dtype=torch.bool, device=z.device)
            for _ in range(self.truncation - 1):
                log_accept = self.log_accept(z)
                rejected = rejected & (torch.rand_like(log_accept).log() > log_accept)
                if not rejected.any():
                    break
                again = rejected.reshape(rejected.shape + ones)
                z = torch.where(again, self.proposal.sample(shape), z)
            return z


class AutoregressiveBits(dist.TorchDistribution):
    r"""Bits, each one's logit a function of those before it.

    Args:
        logits: from bits ``(..., D)`` to logits ``(..., D)``, the d-th a function of the first d-1.
        shape: of one draw, D bits in all.
        batch_shape: of independent draws.
        like: a tensor of the type and on the device of the draws.
    """

    arg_constraints = {}

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        shape: Size,
        batch_shape: Size = (),
        *,
        like: Tensor | None = None,
    ) -> None:
        self.logits, self.like = logits, torch.empty(0) if like is None else like
        super().__init__(torch.Size(batch_shape), torch.Size(shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """0 or 1."""
        return constraints.independent(constraints.boolean, len(self.event_shape))

    def expand(self, batch_shape: Size, _instance: object = None) -> "AutoregressiveBits":
        """The same for a larger batch."""
        return AutoregressiveBits(self.logits, self.event_shape, batch_shape, like=self.like)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability, in one pass."""
        bits = value.flatten(-len(self.event_shape))
        logits = self.logits(bits)
        log = (bits * logits - torch.nn.functional.softplus(logits)).sum(-1)  # between bits, linear
        return log.expand(torch.broadcast_shapes(log.shape, self.batch_shape))

    def sample(self, sample_shape: Size = ()) -> Tensor:
        """A draw, bit by bit."""
        with torch.no_grad():
            shape, n = self._extended_shape(torch.Size(sample_shape)), self.event_shape.numel()
            lead = shape[: len(shape) - len(self.event_shape)]
            bits = torch.zeros(*lead, n, dtype=self.like.dtype, device=self.like.device)
            for d in range(n):
                bits[..., d] = self.logits(bits)[..., d].sigmoid().bernoulli()
            return bits.reshape(shape)
