"""Mixtures and transformed families: structure around one family."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Transform

from ..distributions import Interval, Sticks, mixture
from ..language.spec import Spec, Value, as_spec, nearest
from .family import Family, Fixed, Role, check_amortized

__all__ = ["Mixture", "Transformed", "weights"]


class Mixture(nn.Module):
    r"""A mixture of any family of Pyro's: a family with one more dimension, and weights.

    .. math:: p(z) = \sum_{k=1}^K \pi_k\, \mathrm{Family}(z; \theta_k)

    A component is all of z, not one coordinate. Its parameters, and the weights' ``logits``, are
    numbers, learned or amortized, as in any family. Mixtures of ``Normal`` are reparameterized.

    Args:
        family: the components: ``"Normal(loc=learned, scale=learned)"``.
        components: K.
        logits: of the weights: as a prior 0 (equal weights) where it is not said, in a guide
            amortized.

    Raises:
        SpecError: a family that cannot be built.

    >>> prior = Mixture("Normal(loc=learned)", components=10)
    >>> prior.build((2,), "prior")
    >>> prior().event_shape, len(prior.family.sources["loc"].unconstrained)
    (torch.Size([2]), 10)
    """

    def __init__(self, family: str | Spec, components: int = 10, logits: Value = None) -> None:
        super().__init__()
        if not isinstance(components, int) or isinstance(components, bool) or components < 1:
            raise ValueError(f"components is a positive whole number, got {components!r}")
        self.components, said = components, {} if logits is None else {"logits": logits}
        self.parts = as_spec(family)
        self.said = said
        self.spec = Spec("Mixture", self.parts, components=components, **said)

    def build(
        self, shape: tuple[int, ...], role: Role, feature_shape: tuple[int, ...] | None = None
    ) -> None:
        """Make the parameters for draws of this shape."""
        self.family = Family(self.parts, shape, role, feature_shape, components=self.components)
        self.weights = weights(self.components, role, feature_shape, **self.said)
        check_amortized(self, role)
        normal = self.parts.name == "Normal"
        if role == "guide" and normal and isinstance(self.family.sources["loc"], Fixed):
            raise self.spec.error(
                "components that stay at one place have no path from one to the other: "
                "leave loc to the encoder"
            )

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The mixture, of batch shape that of the features."""
        return mixture(self.weights(features), self.family(features))


def weights(
    components: int,
    role: Role,
    feature_shape: tuple[int, ...] | None = None,
    *,
    logits: Value = None,
) -> Family:
    """The distribution over components: a categorical family."""
    said: dict[str, Any] = {} if logits is None else {"logits": logits}
    spec = Spec("Categorical", categories=components, **said)
    return Family(spec, (), role, feature_shape)


class Transformed(nn.Module):
    r"""A family mapped onto another support by transformations of Pyro's.

    .. math:: z = f(u), \quad u \sim \mathrm{Family}(\theta)

    So a guide is made to fit a prior: ``Transformed(Normal, SigmoidTransform)`` lives on (0, 1),
    as ``Beta`` does, ``Transformed(Normal, StickBreakingTransform)`` on the simplex (a logistic
    normal), ``Transformed(Kumaraswamy, Sticks)`` too (stick-breaking).

    Args:
        family: of u: ``"Normal(loc=learned)"``.
        transforms: classes of ``pyro.distributions.transforms``, ``Sticks`` or
            ``Interval(low, high)``; a name, a line with numbers, or a list, the first applied
            first.

    Raises:
        SpecError: an unknown transformation, or one that does not give the shape.

    References:
        Srivastava & Sutton (2017), ProdLDA, arXiv:1703.01488; Nalisnick & Smyth (2017),
        arXiv:1605.06197.

    >>> prior = Transformed("Normal", "StickBreakingTransform")
    >>> prior.build((3,), "prior")
    >>> bool((prior().sample().sum() - 1).abs() < 1e-6)
    True
    """

    def __init__(self, family: str | Spec, transforms: Value) -> None:
        super().__init__()
        self.inner = as_spec(family)
        many = transforms if isinstance(transforms, list | tuple) else (transforms,)
        lines = tuple(as_spec(t) if isinstance(t, str | Spec) else t for t in many)
        self.spec = Spec("Transformed", self.inner, lines[0] if len(lines) == 1 else lines)
        self.transforms = [self._transform(line) for line in lines]

    def build(
        self, shape: tuple[int, ...], role: Role, feature_shape: tuple[int, ...] | None = None
    ) -> None:
        """Make the parameters for draws of this shape."""
        inner = torch.Size(shape)
        for transform in reversed(self.transforms):
            inner = torch.Size(transform.inverse_shape(inner))
        self.family = Family(self.inner, tuple(inner), role, feature_shape)
        check_amortized(self, role)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The transformed distribution, of batch shape that of the features."""
        return dist.TransformedDistribution(self.family(features), self.transforms)

    def _transform(self, line: Value) -> Transform:
        if not isinstance(line, Spec):
            raise self.spec.error(f"a transformation is a name such as ExpTransform, got {line}")
        rooms = {**vars(dist.transforms), "Interval": Interval, "Sticks": Sticks}
        known = {
            n: c for n, c in rooms.items()
            if isinstance(c, type) and issubclass(c, Transform) and not issubclass(c, nn.Module)
        }  # fmt: skip
        if line.name not in known:
            raise line.error(f"unknown transformation {line.name!r}{nearest(line.name, known)}")
        try:
            made: Transform = known[line.name](*line.args, **line.kwargs)  # pyright: ignore
        except TypeError as problem:
            raise line.error(f"{line.name} cannot be built: {problem}") from problem
        if not made.bijective:
            raise line.error(f"{line.name} is not one to one, so densities cannot go through it")
        return made
