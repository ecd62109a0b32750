"""The parts of a model with labels: p(y) p(z) and q(y|x) q(z|x, y), each as one distribution."""

import math
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..distributions import Given, Layered, side_by_side
from ..families.guides import WithSteps
from ..families.networks import batched, build_network, make_network, spec_of
from ..families.part import Ends, Line, Part, connect
from ..language.spec import as_spec
from .latents import point

__all__ = ["NEVER", "Labelled", "LabelledGuide", "LabelledPrior"]

ONE_HOT = "OneHotCategorical"
NEVER = 1e4  # nats: the exponential of minus it is 0, and 0 times it is 0 too


class Labelled(Layered):
    r"""A label and z given the label, as one distribution of both side by side.

    .. math:: p(y, z) = p(y)\, p(z \mid y)

    Args:
        label: a ``OneHotCategorical``, of batch shape ``(B,)`` or ``()``.
        given: from y, ``(..., K)``, to the distribution of z.
        latent_dim: of z.
    """

    read = 2
    first: Any  # the label

    def __init__(
        self,
        label: dist.TorchDistribution,
        given: Given,
        latent_dim: int,
    ) -> None:
        sizes = label.event_shape[0], latent_dim
        super().__init__(sizes, (0, 1), label, [given], ("y", "z"))

    @property
    def mean(self) -> Tensor:
        """Labels have none."""
        raise NotImplementedError

    @property
    def mode(self) -> Tensor:
        """The most probable label, and beside it a point of z given that label."""
        return self.along(lambda layer, d: point(d) if layer else d.mode)

    def at(self, known: Tensor) -> "Labelled":
        """The same, the label at its place where it is known.

        Args:
            known: ``(B, K)``, one-hot vectors, or zeros.
        """
        logits = torch.where(known.any(-1, keepdim=True), NEVER * (known - 1), self.first.logits)
        return Labelled(dist.OneHotCategorical(logits=logits), self.given[0], self.sizes[1])


class LabelledPrior(Part):
    """p(y) p(z), from a line of each."""

    def __init__(self, labels: Line, prior: Line, classes: int) -> None:
        super().__init__()
        self.labels, self.line, self.classes = labels, prior, classes

    def build(self, ends: Ends) -> None:
        """Make both families, for y and z side by side."""
        if not isinstance(self.labels, nn.Module) and as_spec(self.labels).name != ONE_HOT:
            raise ValueError(f"labels are {ONE_HOT}, or {ONE_HOT}(logits=learned)")
        self.latent_dim = ends.shape[0] - self.classes
        self.label = ends.make(self.labels, shape=(self.classes,))
        self.family = ends.make(self.line, shape=(self.latent_dim,))
        self.spec = spec_of(self.family)

    def connect(self, ends: Ends) -> None:
        """Let p(z) take notice of the guide, whose q(z|x) comes with a label."""
        connect(self.family, replace(ends, encode=None))

    def forward(self, features: None = None) -> Labelled:
        """The joint distribution, of batch shape ()."""
        p = self.family()
        return Labelled(self.label(), lambda y: p.expand(y.shape[:-1]), self.latent_dim)


class LabelledGuide(Part):
    """q(y|x) q(z|x, y), from the network between them and the line of the latter."""

    def __init__(self, merge: Line, guide: Line, classes: int) -> None:
        super().__init__()
        self.merge, self.line, self.classes = make_network(merge), guide, classes

    def build(self, ends: Ends) -> None:
        """Make both families, and the network between them."""
        self.latent_dim = ends.shape[0] - self.classes
        self.label = ends.make(ONE_HOT, shape=(self.classes,))
        features = torch.zeros(1, math.prod(ends.feature_shape or ()) + self.classes)
        h = build_network(self.merge, features, (self.latent_dim,), "merge")
        self.family = ends.make(self.line, whole=True, shape=(self.latent_dim,), feature_shape=h)
        if isinstance(self.family, WithSteps):
            name = type(self.family).__name__
            raise ValueError(f"{name} is of the whole guide, not of a part of it")
        self.spec = spec_of(self.family)

    def connect(self, ends: Ends) -> None:
        """Let q(z|x, y) take notice of p(z)."""
        prior: Any = ends.partner
        connect(self.family, replace(ends, partner=prior.family))

    def forward(self, features: Tensor) -> Labelled:
        """The joint distribution, of batch shape that of the features."""
        flat = features.flatten(1)

        def given(y: Tensor) -> dist.TorchDistribution:
            return self.family(batched(self.merge, side_by_side(flat, y), 1))

        return Labelled(self.label(features), given, self.latent_dim)
