"""Mixtures and transformed families: structure around a family."""

import inspect
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import ComposeTransform, Transform, constraints

from ..core.checks import whole
from ..distributions import Interval, Shares, Sticks, TransformedDistribution, mixture
from ..language.spec import Spec, Value, as_spec, nearest
from .family import Family, is_amortized
from .part import Ends, Part
from .support import REAL, describe_constraint, support_bounds, support_of

__all__ = ["Mixture", "Transformed", "make_weights"]

# Families whose draws have a support.
DRAWS = {
    REAL: "Normal",
    ("continuous", 0.0, math.inf): "Gamma",
    ("continuous", 0.0, 1.0): "Beta",
    ("simplex", -math.inf, math.inf): "Dirichlet",
}
BOUNDED = {*DRAWS.values()} - {"Normal"}


class Mixture(Part):
    r"""A mixture of any family or structure: so many of it side by side, and weights.

    .. math:: p(z) = \sum_{k=1}^K \pi_k\, \mathrm{Family}(z; \theta_k)

    As a prior or guide a component is all of z, not one coordinate. As a likelihood each cell of x
    is a mixture of its own (each vector, where the family draws vectors), so that cells are
    independent given z, and some may be missing. Parameters of the components, and the weights'
    ``logits``, are numbers, learned or amortized, as in any family. Mixtures of ``Normal`` and
    ``MultivariateNormal`` are reparameterized. Components of a likelihood in the units of the data,
    with ``loc`` and ``scale`` learned, start at quantiles of the data, as wide as they lie apart.

    Args:
        family: the components: ``"Normal(loc=learned, scale=learned)"``.
        components: K.
        logits: of the weights: by default 0 (equal weights) in a prior, amortized elsewhere.

    Raises:
        SpecError: a family that cannot be built.
        ValueError: a number of components that is not positive.

    >>> from pyro_vae.families.registry import make_part
    >>> prior = make_part(Mixture("Normal(loc=learned)", components=10), Ends((2,), "prior"))
    >>> prior().event_shape, len(prior.family.sources["loc"].unconstrained)
    (torch.Size([2]), 10)
    """

    batches = in_units = True

    def __init__(self, family: str | Spec, components: int = 10, logits: Value = None) -> None:
        super().__init__()
        self.components, self.line = whole("components", components), as_spec(family)
        self.options = {} if logits is None else {"logits": logits}
        self.spec = Spec("Mixture", self.line, components=self.components, **self.options)

    def build(self, ends: Ends) -> None:
        """Make the components and the weights for events of this shape."""
        self.independent = n = len(ends.shape) - self.event_dim(ends)
        ends = replace(ends, shape=ends.shape[n:], cells=(*ends.cells, *ends.shape[:n]))
        components = (*ends.components, self.components)
        self.family = ends.make(self.line, depends=False, components=components)
        self.weights = make_weights(self.components, ends, **self.options)
        fixed = isinstance(self.family, Family) and self.family.is_fixed("loc")
        if ends.role == "guide" and self.line.name == "Normal" and fixed:
            raise ValueError(
                "components that stay at one place have no path from one to the other: "
                "leave loc to the encoder"
            )

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The mixture, of batch shape that of the features."""
        return mixture(self.weights(features), self.family(features)).to_event(self.independent)

    def start_at(self, draws: Sequence[Tensor]) -> None:
        """Start each component at a cluster of the draws, and weights at the clusters' sizes."""
        if len(draws) > 1 or len(draws[0]) < self.components or not isinstance(self.family, Part):
            return
        which = _clusters(draws[0].flatten(1), self.components)
        parts = [draws[0][which == k] for k in range(self.components)]
        self.family.start_at([part if len(part) else draws[0] for part in parts])
        self.weights.start_at([which])

    def event_dim(self, ends: Ends) -> int:
        """As the components draw, in a likelihood; all of z elsewhere."""
        return ends.event_dim(self.line) if ends.role == "likelihood" else len(ends.shape)

    def depends(self) -> bool:
        """Whether components or weights are amortized."""
        return is_amortized(self)


def _clusters(z: Tensor, k: int) -> Tensor:
    """Which of k clusters each row is of."""
    from sklearn.cluster import KMeans

    seed = int(torch.randint(2**31 - 1, ()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters
        which = KMeans(k, random_state=seed).fit_predict(z.double().cpu().numpy())
    return torch.tensor(which, device=z.device)


def make_weights(components: int, ends: Ends, *, logits: Value = None) -> Family:
    """The distribution over components: a categorical family."""
    options = {} if logits is None else {"logits": logits}
    weights = Family(Spec("Categorical", categories=components, **options))
    weights.build(replace(ends, shape=(), in_units=False))
    return weights


class Transformed(Part):
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

    >>> from pyro_vae.families.registry import make_part
    >>> prior = make_part("Transformed(Normal, StickBreakingTransform)", Ends((3,), "prior"))
    >>> bool((prior().sample().sum() - 1).abs() < 1e-6)
    True
    """

    batches = True

    def __init__(self, family: str | Spec, transforms: Value) -> None:
        super().__init__()
        self.inner = as_spec(family)
        many = transforms if isinstance(transforms, list | tuple) else (transforms,)
        lines = tuple(as_spec(t) if isinstance(t, str | Spec) else t for t in many)
        self.spec = Spec("Transformed", self.inner, lines[0] if len(lines) == 1 else lines)
        self.transforms = [self._transform(line) for line in lines]
        composed = ComposeTransform(self.transforms)
        self.reads, self.gives = composed.domain.event_dim, composed.codomain.event_dim

    def build(self, ends: Ends) -> None:
        """Make the parameters for events of this shape."""
        inner = torch.Size(ends.shape)
        for transform in reversed(self.transforms):
            inner = torch.Size(transform.inverse_shape(inner))
        self.family = ends.make(self.inner, depends=False, shape=tuple(inner))
        self.event = len(ends.shape)
        support = support_of(self.family(ends.example))
        if support is not None and support.is_discrete:
            raise self.error(f"{self.inner} is discrete, and a transformation maps densities", at=0)
        if support is not None:
            self._check_domains(support)

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The transformed distribution, of batch shape that of the features."""
        base = self.family(features)
        while isinstance(base, dist.Independent) and base.event_dim > self.reads:
            independent = min(base.reinterpreted_batch_ndims, base.event_dim - self.reads)
            base = base.base_dist.to_event(base.reinterpreted_batch_ndims - independent)
        d = TransformedDistribution(base, self.transforms)
        return d.to_event(self.event - d.event_dim)

    def event_dim(self, ends: Ends) -> int:
        """What the family draws at once, and what the transformations map at once."""
        return self.gives + max(ends.event_dim(self.inner) - self.reads, 0)

    def depends(self) -> bool:
        """Whether a parameter of the family is amortized."""
        return self.family.depends() if isinstance(self.family, Part) else True

    def _check_domains(self, support: constraints.Constraint) -> None:
        """Raise if a transformation is given what it does not map.

        What a transformation of real numbers to real numbers gives is known for a real base alone.
        """
        given: constraints.Constraint | None = support
        for transform in self.transforms:
            domain: Any = transform.domain
            if given is not None and not _within(given, domain):
                inner = DRAWS.get(support_bounds(domain))
                advice = f": use Transformed({inner}, ...)" if inner else ""
                raise self.error(
                    f"{type(transform).__name__} maps {describe_constraint(domain)}, and it is "
                    f"given {describe_constraint(given)}{advice}"
                )
            real = given is not None and support_bounds(given) == REAL
            gives: Any = transform.codomain
            given = gives if real or support_bounds(gives) != REAL else None

    def _transform(self, line: Value) -> Transform:
        if not isinstance(line, Spec):
            raise self.error(f"a transformation is a name such as ExpTransform, got {line}")
        known: dict[str, Any] = {}
        for name, cls in vars(dist.transforms).items():
            if isinstance(cls, type) and issubclass(cls, Transform):
                known |= {} if issubclass(cls, nn.Module) else {name: cls}
        known |= {"Interval": Interval, "StickBreakingTransform": Shares, "Sticks": Sticks}
        if line.name not in known:
            able = [name for name, cls in known.items() if cls.bijective and not _required(cls)]
            if self.inner.name not in BOUNDED:
                able = [name for name in able if _reads_all(known[name])]
            raise line.error(f"unknown transformation {line.name!r}{nearest(line.name, able)}")
        try:
            transform: Transform = known[line.name](*line.args, **line.kwargs)
            bijective = transform.bijective
        except Exception as problem:  # whatever a constructor raises at what it was given
            raise line.error(f"{line.name} cannot be built: {problem}") from problem
        if not bijective:
            soft = ": decoder='Topics' takes the softmax of a Normal z itself"
            advice = soft if line.name == "SoftmaxTransform" else ""
            raise line.error(
                f"{line.name} is not one to one, so densities cannot go through it{advice}"
            )
        return transform


def _within(support: constraints.Constraint, domain: constraints.Constraint) -> bool:
    """Whether a domain holds all of a support."""
    kind, low, high = support_bounds(support)
    whole, least, most = support_bounds(domain)
    return (whole, least, most) == REAL or (kind == whole and least <= low and high <= most)


def _reads_all(cls: type[Transform]) -> bool:
    """Whether a transformation maps all numbers."""
    domain: Any = cls.domain
    return not isinstance(domain, constraints.Constraint) or support_bounds(domain) == REAL


def _required(cls: type) -> list[str]:
    """The arguments that a class must be given."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
