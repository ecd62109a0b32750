"""Normalizing flows, by Zuko: learned priors, and guides that are more than mean-field."""

import inspect
import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform, constraints

from ..core.checks import boolean, whole
from ..distributions import Pushforward
from ..language.spec import Spec, Value, as_spec, nearest
from .activations import checked_activation
from .part import Ends, Part
from .support import REAL, support_bounds, support_of

__all__ = ["Flow", "kept_validation", "zuko_flows"]

HALVINGS = 26  # of (-1, 1), to the digits of float32

BOTH_WAYS = ("NICE", "RealNVP", "CNF")  # as quick from a draw to the base as to a draw
REFUSED = {
    "GF": "Zuko draws from GF within -10 and 10 only, and its density does not end there: use NSF",
    "GMM": "GMM is a mixture: use Mixture(MultivariateNormal(loc=learned, scale_tril=learned))",
}


class Flow(Part):
    r"""A flow of Zuko's as a prior, or conditional on a network's features elsewhere.

    .. math:: z = f_h(u), \quad u \sim p_0(u | h), \quad
        \log p(z | h) = \log p_0(u | h) - \log |\det \partial f_h / \partial u|

    The base :math:`p_0` is a family, or a structure such as a mixture: as a prior standard, in a
    guide amortized, so that the flow bends a mean-field guide. ``IAF`` is ``MAF`` with
    ``inverse=True``. An autoregressive flow is quick in one direction and takes D passes in the
    other: a prior or likelihood wants densities and a guide wants draws, so ``inverse`` is true by
    default in guides. ``NICE``, ``RealNVP`` and ``passes=2`` are quick in both. The other direction
    of ``NAF``, ``UNAF``, ``BPF`` and ``SOSPF`` is found by bisection, which is slow.

    Args:
        name: a flow of ``zuko.flows``: ``NSF``, ``MAF``, ``RealNVP``, ``NAF``, ``CNF`` ...
        base: the distribution of u: ``"Mixture(Normal, components=4)"``; ``Normal`` by default.
        inverse: whether the quick direction is that of the draws.
        options: of Zuko's class: ``transforms=3``, ``hidden_features=[64, 64]``, ``passes=2`` ...

    Raises:
        SpecError: a flow or option that Zuko does not have.

    References:
        Rezende & Mohamed (2015), arXiv:1505.05770; Kingma et al. (2016), IAF, arXiv:1606.04934;
        Durkan et al. (2019), NSF, arXiv:1906.04032; Rozet et al. (2022), Zuko.

    >>> from pyro_vae.families.registry import make_part
    >>> prior = make_part(Flow("NSF", transforms=2), Ends((3,), "prior"))
    >>> prior().sample((5,)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        name: str | Spec,
        base: str | Spec | None = None,
        inverse: bool | None = None,
        **options: Value,
    ) -> None:
        super().__init__()
        self.name = str(name)
        self.inverse = None if inverse is None else boolean("inverse", inverse)
        self.base_spec = None if base is None else as_spec(base)
        self.options = options
        named = {"base": self.base_spec, "inverse": inverse}
        named = {k: v for k, v in named.items() if v is not None}
        self.spec = Spec("Flow", Spec(self.name), **named, **options)

    def build(self, ends: Ends) -> None:
        """Make the networks for draws of this shape."""
        flow, features = self._class(), math.prod(ends.shape)
        context = 0 if ends.feature_shape is None else math.prod(ends.feature_shape)
        names = _arguments(flow)
        for option in self.options:
            if option not in names:
                raise self.error(
                    f"{self.name} has no option {option!r}{nearest(option, names)}", at=option
                )
            if isinstance(names[option], bool):
                boolean(option, self.options[option])
            elif isinstance(names[option], int):
                whole(option, self.options[option])
        options = dict(self.options)
        if "activation" in options:
            options["activation"] = getattr(nn, checked_activation(str(options["activation"])))
        try:
            with kept_validation():
                zuko_flow = flow(features=features, context=context, **options)
        except Exception as problem:  # whatever a constructor raises at what it was given
            raise self.error(f"Zuko cannot build {self.name}: {problem}") from problem
        self.transform = cast("nn.Module", zuko_flow.transform)
        base = self.base_spec or Spec("Normal")
        inner = replace(ends, shape=(features,))
        own = cast("nn.Module", zuko_flow.base)()
        if type(own).__name__ == "BoxUniform":  # a flow on circles
            base = Spec("Uniform", low=-math.pi, high=math.pi)
            inner = replace(inner, role="prior", feature_shape=None)
        self.base = inner.make(base, depends=False)
        self.shape, self.feature_dim = ends.shape, len(ends.feature_shape or ())
        if self.base_spec is not None:
            support = support_of(self.base(inner.example))
            real = support is not None and support_bounds(support) == REAL
            if not real or "SpikeAndSlab" in str(base):  # no inverse finds its points again
                raise self.error(
                    f"a flow's base has a density over the real numbers, and {base} has none: "
                    "base=StudentT(df=4)",
                    at="base",
                )
        draws = context > 0 and ends.role != "likelihood"
        self.backwards = self.name == "IAF" or (draws if self.inverse is None else self.inverse)
        both_ways = self.name in BOTH_WAYS or self.options.get("passes") == 2
        self.one_way = self.backwards and not both_ways

    def forward(self, features: Tensor | None = None) -> dist.TorchDistribution:
        """The distribution of z, of batch shape that of the features."""
        base, context = self.base(features), None
        if features is not None:
            context = features.flatten(features.ndim - self.feature_dim)
            base = base.expand(torch.broadcast_shapes(base.batch_shape, context.shape[:-1]))
        transform = widen(self.transform(context))
        how = {"inverse": self.backwards, "one_way": self.one_way}
        return Pushforward(base, transform, self.shape, **how)

    def __repr__(self) -> str:
        """As torch shows a module; Zuko draws numbers for it."""
        with torch.random.fork_rng(devices=[]):
            return super().__repr__()

    def _class(self) -> type[nn.Module]:
        flows = zuko_flows()
        if self.name in REFUSED:
            raise self.error(REFUSED[self.name])
        known = {n for n in vars(flows) if n.isupper() or n == "RealNVP"} - {*REFUSED} | {"IAF"}
        if self.name not in known:
            raise self.error(f"unknown flow {self.name!r}{nearest(self.name, known)}")
        return getattr(flows, "MAF" if self.name == "IAF" else self.name)


def zuko_flows() -> ModuleType:
    """``zuko.flows``; importing it leaves torch's validation as it was."""
    with kept_validation():
        import zuko.distributions
        import zuko.flows
    flow: Any = zuko.distributions.NormalizingFlow
    flow.arg_constraints = {}  # torch's validation asks for them
    return zuko.flows


def widen(transform: Any) -> Any:  # noqa: ANN401
    """A transform of Zuko's whose bisections find what lies beyond -10 and 10 too."""
    from zuko.transforms import MonotonicTransform

    if getattr(type(transform), "_inverse", None) is MonotonicTransform._inverse:
        return _Wide(transform)
    if hasattr(transform, "transforms"):
        transform.transforms = [widen(part) for part in transform.transforms]
    if hasattr(transform, "base"):
        transform.base = widen(transform.base)
    if hasattr(transform, "meta"):
        meta = transform.meta
        transform.meta = lambda x: widen(meta(x))
    return transform


class _Wide(Transform):
    """A monotonic function of Zuko's, inverted by bisection.

    It searches in t, where x = 10 t / (1 - abs(t)): in as many halvings as Zuko takes between -10
    and 10, and with as small an error there, it finds what is up to 1e5.
    """

    domain, codomain, bijective = constraints.real, constraints.real, True
    sign = 1

    def __init__(self, narrow: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.narrow, self.call_and_ladj = narrow, narrow.call_and_ladj

    def _call(self, x: Tensor) -> Tensor:
        return self.narrow.f(x)

    def _inverse(self, y: Tensor) -> Tensor:
        from zuko.utils import bisection

        end = torch.full_like(y, 1 - 1e-4)
        f, phi = self.narrow.f, self.narrow.phi
        return self._stretch(bisection(lambda t: f(self._stretch(t)), y, -end, end, HALVINGS, phi))

    def _stretch(self, t: Tensor) -> Tensor:
        return 10 * t / (1 - t.abs())

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The log of the slope."""
        return self.narrow.log_abs_det_jacobian(x, y)


@contextmanager
def kept_validation() -> Generator[None]:
    """Put back what importing Zuko changes in torch's base class."""
    names = ("_validate_args", "arg_constraints")
    before = {name: vars(Distribution)[name] for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(Distribution, name, value)


def _arguments(flow: type) -> dict[str, object]:
    """The arguments that a flow, its bases and its networks take, with their defaults."""
    from zuko.flows import MaskedAutoregressiveTransform
    from zuko.nn import MLP

    names: dict[str, object] = {}
    for cls in (*flow.__mro__, MaskedAutoregressiveTransform, MLP):
        if cls.__module__.startswith("zuko"):
            parameters = inspect.signature(cls.__init__).parameters
            names = {name: one.default for name, one in parameters.items()} | names
    own = {"self", "kwargs", "features", "context", "in_features", "out_features"}
    return {name: default for name, default in names.items() if name not in own}
