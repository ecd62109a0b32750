"""Likelihoods of sequences: a family for each step, of as many steps as there are features of."""

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from .likelihoods import fill, weigh
from .networks import spec_of
from .part import Ends, Line, Part, start_from
from .support import innermost

__all__ = ["Autoregressive", "Ragged", "Steps"]


class Steps(Part):
    r"""One family for all steps: :math:`p(x \mid h) = \prod_t \mathrm{Family}(x_t; \theta(h_t))`.

    Its parameters do not know how many steps there are.

    Args:
        line: of the likelihood of a step; or a module, from features of steps ``(..., T, H)`` to a
            distribution of batch shape ``(..., T)``.
    """

    in_units = True
    step: Any  # the line, until it is built

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.spec = spec_of(line)
        self.line, self.step = line, line

    def build(self, ends: Ends) -> None:
        """Make the family for a step."""
        features = ends.feature_shape or ()
        if len(features) < 2 or features[0] != ends.shape[0]:
            raise ValueError(
                f"the decoder of sequences gives features of each step, ({ends.shape[0]}, H) here, "
                f"got {features}: GRU, Transformer or DeepSet, or a pyro_vae.SequenceNetwork of "
                "your own"
            )
        self.shape = ends.shape[1:]
        self.step = ends.make(
            self.line, shape=self.shape, feature_shape=features[1:], whole=ends.whole
        )

    def depends(self) -> bool:
        """Whether a parameter of a step depends on its features."""
        return self.step.depends() if isinstance(self.step, Part) else True

    def start_from(self, x: Tensor) -> None:
        """Start from the steps of training data, ``(N, T, ...)``, that are no padding."""
        steps = x.flatten(0, 1)
        there = ~steps.isnan().flatten(1).all(1) if steps.ndim > 1 else ~steps.isnan()
        start_from(self.step, steps[there])

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """From features ``(..., T, H)`` to a distribution of event shape ``(T, ...)``."""
        return self.step(features).to_event(1)


class Ragged(dist.Independent):
    r"""Independent steps of sequences with lengths of their own.

    .. math:: p(x) = \prod_{t=1}^{n} p_t(x_t)

    Steps that are padding have no density, and a draw has NaN there. Cells that are NaN within the
    length are missing, and drop out likewise.

    Args:
        steps: of batch shape ``(..., T)``.
        there: ``(..., T)``, false where a step is padding; the first one is none.

    >>> steps = dist.Normal(torch.zeros(2, 3, 1), 1).to_event(1)
    >>> Ragged(steps, torch.tensor([[True] * 3, [True, False, False]])).sample().isnan().sum()
    tensor(2)
    """

    def __init__(self, steps: dist.TorchDistribution, there: Tensor) -> None:
        self.there = there
        super().__init__(steps, 1, validate_args=False)

    @classmethod
    def of(cls, p: dist.TorchDistribution, there: Tensor) -> "Ragged":
        """The likelihood that :class:`Steps` gives, for sequences of these lengths."""
        base = innermost(p)
        return cls(base.to_event(p.event_dim - base.event_dim - 1), there)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Ragged":
        """Each for a larger batch."""
        shape = torch.Size([*batch_shape, self.there.shape[-1]])
        return Ragged(self.base_dist.expand(shape), self.there.expand(shape))

    def pad(self, value: Tensor) -> Tensor:
        """Values, ``(..., T, ...)``, with NaN where a step is padding."""
        return torch.where(self._beside(self.there), value, torch.nan)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw, NaN at padding."""
        return self.pad(self.base_dist.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A reparameterized draw, NaN at padding."""
        return self.pad(self.base_dist.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over the steps and cells that are there."""
        base, n = innermost(self.base_dist), self.event_dim
        seen = ~value.isnan() & self._beside(self.there)
        if base.event_dim:  # a step is drawn at once: its cells are there together
            safe = torch.where(seen, value, value.narrow(-n, 0, 1))
            seen = seen.flatten(-base.event_dim).all(-1)
        else:
            safe = fill(value, seen, base.support)  # pyrefly: ignore[bad-argument-type]
        each = base.mask(seen).log_prob(safe)  # a scale that is fitted to x sees the mask too
        return each.flatten(-(n - base.event_dim)).sum(-1)

    def point(self, of: Callable[[dist.TorchDistribution], Tensor]) -> Tensor:
        """A value of the steps, such as their means, NaN at padding."""
        return self.pad(of(self.base_dist))

    def _beside(self, there: Tensor) -> Tensor:
        """The mask with as many dimensions as a value."""
        return there.reshape(*there.shape, *[1] * (self.event_dim - 1))


class Autoregressive(dist.TorchDistribution):
    r"""Steps given those before them: :math:`p(x) = \prod_t p(x_t \mid x_{<t})`.

    The density of all steps takes one pass, a draw one for each step.

    Args:
        h: what is read at each step beside the steps before it, ``(..., T, D)``.
        given: from h and values, of as many steps, to the distribution of the steps, in which none
            depends on its own value, nor on later ones.
        event_shape: ``(T, ...)``.

    Attributes:
        row_weight: of each sequence, ``(B,)``, for a scale that is fitted to a batch.
    """

    arg_constraints = {}
    row_weight: Tensor | None = None

    def __init__(
        self, h: Tensor, given: Callable[[Tensor, Tensor], Ragged], event_shape: Sequence[int]
    ) -> None:
        self.h, self._given = h, given
        super().__init__(h.shape[:-2], torch.Size(event_shape), validate_args=False)

    def given(self, value: Tensor) -> Ragged:
        """The distribution of each step given the steps before it in ``value``."""
        p = self._given(self.h, value)
        weigh(p, self.row_weight)
        return p

    @property
    def support(self) -> constraints.Constraint | None:
        """That of the steps."""
        with torch.no_grad():
            value = self.h.new_zeros(*self.batch_shape, *self.event_shape)
            return self.given(value).support

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Autoregressive":
        """Each for a larger batch."""
        h = self.h.expand(*batch_shape, *self.h.shape[-2:])
        new = Autoregressive(h, self._given, self.event_shape)
        new.row_weight = self.row_weight
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over the steps that are there."""
        return self.given(value).log_prob(value)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw, step by step, NaN at padding."""
        many = self.expand([*sample_shape, *self.batch_shape])
        return many.point(lambda p: p.sample())

    @torch.no_grad()
    def point(self, of: Callable[[dist.TorchDistribution], Tensor]) -> Tensor:
        """A value of each step given those before it: a draw, or the likeliest (greedily)."""
        x = self.h.new_zeros(*self.batch_shape, *self.event_shape)
        dim: Any = -len(self.event_shape)
        for t in range(self.event_shape[0]):
            p = self._given(self.h[..., : t + 1, :], x.narrow(dim, 0, t + 1))
            x.select(dim, t).copy_(p.point(of).select(dim, t))
        return x
