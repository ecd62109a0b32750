"""The parts of a model with labels: p(y) p(z) and q(y|x) q(z|x, y), each as one distribution."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..families.family import Family, Role, family
from ..families.guides import GUIDES
from ..families.networks import batched, built, network, spec_of
from ..families.priors import PRIORS
from ..language.spec import Spec, as_spec
from .latents import Layered, point, side_by_side

__all__ = ["NEVER", "Labelled", "LabelledGuide", "LabelledPrior"]

NEVER = 1e4  # nats: the exponential of minus it is 0, and 0 times it is 0 too


class Labelled(Layered):
    r"""A label and z given the label, as one distribution of both side by side.

    .. math:: p(y, z) = p(y)\, p(z \mid y)

    Args:
        label: a ``OneHotCategorical``, of batch shape ``(B,)`` or ``()``.
        given: from y, ``(..., K)``, to the distribution of z.
        latent_dim: of z.
    """

    read: ClassVar[int] = 2

    def __init__(
        self,
        label: dist.TorchDistribution,
        given: Callable[[Tensor], dist.TorchDistribution],
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
        free: Any = self.first.logits
        logits = torch.where(known.any(-1, keepdim=True), NEVER * (known - 1), free)
        return Labelled(dist.OneHotCategorical(logits=logits), self.given[0], self.sizes[1])


class LabelledPrior(nn.Module):
    """p(y) p(z)."""

    def __init__(self, labels: str | Spec, prior: str | Spec | nn.Module, classes: int) -> None:
        super().__init__()
        self.labels, self.said, self.classes = as_spec(labels), prior, classes

    def build(self, shape: tuple[int, ...], role: Role, feature_shape: None = None) -> None:
        """Make both families for y and z side by side."""
        self.latent_dim = shape[0] - self.classes
        self.label = Family(self.labels, (self.classes,), role)
        self.family = family(self.said, (self.latent_dim,), role, structures=PRIORS)
        if any(hasattr(part, "attach") for part in self.family.modules()):
            raise ValueError(
                "a VampPrior is made of q(z|x), and here z comes with a label: choose another "
                "prior, such as Mixture(Normal(loc=learned, scale=learned))"
            )

    @property
    def spec(self) -> Spec | None:
        """The line of p(z)."""
        return spec_of(self.family)

    def forward(self, features: None = None) -> Labelled:
        """The joint distribution, of batch shape ()."""
        p = self.family()
        return Labelled(self.label(), lambda y: p.expand(y.shape[:-1]), self.latent_dim)


class LabelledGuide(nn.Module):
    """q(y|x) q(z|x, y)."""

    def __init__(
        self, merge: str | Spec | nn.Module, guide: str | Spec | nn.Module, classes: int
    ) -> None:
        super().__init__()
        self.merge, self.said, self.classes = network(merge), guide, classes

    def build(self, shape: tuple[int, ...], role: Role, feature_shape: tuple[int, ...]) -> None:
        """Make the families, and the network between them, for the encoder's features."""
        self.latent_dim = shape[0] - self.classes
        self.label = Family("OneHotCategorical", (self.classes,), role, feature_shape)
        width = math.prod(feature_shape) + self.classes
        h = built(self.merge, torch.zeros(1, width), (self.latent_dim,), "merge")
        self.family = family(self.said, (self.latent_dim,), role, h, structures=GUIDES)

    def check_prior(self, prior: LabelledPrior) -> None:
        """Raise where the guide of z refuses the prior of z."""
        if (check := getattr(self.family, "check_prior", None)) is not None:
            check(prior.family)

    @property
    def spec(self) -> Spec | None:
        """The line of q(z|x, y)."""
        return spec_of(self.family)

    def forward(self, features: Tensor) -> Labelled:
        """The joint distribution, of batch shape that of the features."""
        flat = features.flatten(1)

        def given(y: Tensor) -> dist.TorchDistribution:
            return self.family(batched(self.merge, side_by_side(flat, y), 1))

        return Labelled(self.label(features), given, self.latent_dim)
