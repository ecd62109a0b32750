"""Priors and guides of stochastic layers: each drawn given the one before it."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..distributions import Layered, side_by_side
from ..language.spec import Spec, Value, as_spec
from .networks import MLP, batched, build_network, make_network, spec_of
from .part import Ends, Line, Part, Role, connect
from .support import innermost

__all__ = [
    "BottomUp",
    "Hierarchy",
    "Ladder",
    "LayeredPart",
    "TopDown",
    "layer_sizes",
]

Networks: TypeAlias = Line | Sequence[Line] | None


class Conditional(Part):
    """A distribution of one layer given another: a network, and a family over its features.

    Args:
        line: the family.
        net: the network.
        given: the width of the layer that the network reads.
    """

    def __init__(self, line: Line, net: nn.Module, given: int) -> None:
        super().__init__()
        self.line, self.network, self.given = line, net, given

    def build(self, ends: Ends) -> None:
        """Make the network and the family for a layer of this shape."""
        example = torch.zeros(1, self.given)
        shape = build_network(self.network, example, ends.shape, "network between layers")
        self.family = _make_layer(self.line, ends, "layer", ends.shape[0], shape)

    def features(self, z: Tensor) -> Tensor:
        """From the layer that is given, ``(..., D)``, to the network's features."""
        return batched(self.network, z, 1)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """From the layer that is given, ``(..., D)``, to the other's distribution."""
        return self.family(self.features(z))


class LayeredPart(Part):
    """What prior and guides of stochastic layers share: a line for each layer, and networks.

    Args:
        families: a line, or a list of them, from x upward.
        network: between the layers: a line, or a list of them, from x upward. By default they are
            as the encoder (in a prior, as the decoder), if that is an ``MLP``.
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"guide"})

    def __init__(
        self, families: Line | Sequence[Line] = "Normal", network: Networks = None
    ) -> None:
        super().__init__()
        self.single = not isinstance(families, list | tuple)
        many: Any = [families] if self.single else families
        self.lines = [f if isinstance(f, nn.Module) else as_spec(f) for f in many]
        self.between = network
        options = {} if network is None else {"network": _as_value(network)}
        values = [_as_value(families), *options.values()]
        self.spec = None if None in values else Spec(type(self).__name__, values[0], **options)

    def layer_lines(self, n: int) -> list[Line]:
        """The line of each of n layers."""
        if self.single:
            return [deepcopy(self.lines[0]) for _ in range(n)]
        if len(self.lines) != n:
            message = f"{len(self.lines)} families for {n} layers: give one, or one for each"
            raise self.error(message)
        return list(self.lines)

    def make_networks(self, ends: Ends) -> list[nn.Module]:
        """New networks for the places between the layers."""
        n, network = len(ends.sizes) - 1, self.between
        if network is None:
            like = ends.network
            network = (spec_of(like) if isinstance(like, MLP) else None) or Spec("MLP")
        many: Any = list(network) if isinstance(network, list | tuple) else [network] * n
        if len(many) != n:
            raise ValueError(
                f"{len(many)} networks for the {n} places between layers: give one, or one for each"
            )
        return [make_network(deepcopy(net)) for net in many]

    def check(self, ends: Ends) -> None:
        """Raise where the model has one layer, or this is a part of something else."""
        name = type(self).__name__
        if not ends.whole:
            raise ValueError(
                f"{name} is of the whole {ends.role}, not of a part of it: use Normal here"
            )
        if not ends.sizes:
            raise ValueError(
                f"{name} is of stochastic layers: say their widths, layers=[100, 50], in place of "
                "latent_dim"
            )


class Hierarchy(LayeredPart):
    r"""The prior of stochastic layers: from the top down, each layer given the one above it.

    .. math:: p(z) = p(z_L) \prod_{l < L} p(z_l \mid z_{l+1})

    Args:
        families: one line says :math:`p(z_L)`, any prior, and the layers below it are of the
            guide's families. A list says each, from x upward; what is not named in those below the
            top is amortized over the layer above.
        network: from :math:`z_{l+1}` to the features of :math:`z_l`, one or a list of them; as the
            decoder by default.

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519; Tomczak & Welling (2018),
        arXiv:1705.07120, for a VampPrior on top.

    >>> Hierarchy("VampPrior(components=500)", network="MLP([100, 100])").spec
    Hierarchy(VampPrior(components=500), network=MLP([100, 100]))
    """

    roles: ClassVar[frozenset[Role]] = frozenset({"prior"})

    def build(self, ends: Ends) -> None:
        """Make the conditionals; the guide, ``ends.partner``, says families that are not named."""
        self.check(ends)
        self.sizes, n = ends.sizes, len(ends.sizes)
        lines = self.layer_lines(n)
        if self.single and isinstance(ends.partner, LayeredPart):
            lines = [*ends.partner.layer_lines(n)[:-1], self.lines[0]]
        nets = self.make_networks(ends)
        links = [Conditional(lines[i], nets[i], self.sizes[i + 1]) for i in range(n - 1)]
        self.links = nn.ModuleList(
            ends.make(link, role="layer", shape=(size,))
            for link, size in zip(links, self.sizes, strict=False)
        )
        self.top = ends.make(lines[-1], shape=(self.sizes[-1],))

    def connect(self, ends: Ends) -> None:
        """Give the top layer's prior the guide of the top layer."""

        def encode(x: Tensor) -> dist.TorchDistribution:
            q: Any = ends.encode and ends.encode(x)
            try:
                return q.top
            except NotImplementedError:
                raise ValueError(
                    "the way up to the top layer is by the means of those below, and "
                    f"{type(innermost(q.first)).__name__} has none: use guide='TopDown(Normal)'"
                ) from None

        connect(self.top, replace(ends, encode=encode))

    def forward(self, features: None = None) -> dist.TorchDistribution:
        """The chain, of batch shape ()."""
        down = range(len(self.sizes) - 1, -1, -1)
        return Layered(self.sizes, down, self.top(), list(self.links)[::-1])


class BottomUp(LayeredPart):
    r"""A guide of stochastic layers that goes up from x: what a plain line such as ``Normal`` is.

    .. math:: q(z \mid x) = q(z_1 \mid x) \prod_{l > 1} q(z_l \mid z_{l-1})

    Args:
        families: one line for all layers, or a list, from x upward.
        network: from :math:`z_{l-1}` to the features of :math:`z_l`, one or a list of them; as the
            encoder by default.

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519.

    >>> BottomUp("Normal", network="MLP([100, 100])").spec
    BottomUp(Normal, network=MLP([100, 100]))
    """

    def build(self, ends: Ends) -> None:
        """Make the conditionals."""
        self.check(ends)
        self.sizes, n = ends.sizes, len(ends.sizes)
        lines, nets = self.layer_lines(n), self.make_networks(ends)
        self.first = _make_layer(lines[0], ends, "guide", self.sizes[0], ends.feature_shape or ())
        links = [Conditional(lines[i + 1], nets[i], self.sizes[i]) for i in range(n - 1)]
        self.links = nn.ModuleList(
            ends.make(link, role="layer", shape=(size,))
            for link, size in zip(links, self.sizes[1:], strict=True)
        )

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """The chain, of batch shape that of the features."""
        return Layered(self.sizes, range(len(self.sizes)), self.first(features), list(self.links))


class TopDown(LayeredPart):
    r"""A guide of stochastic layers in the model's own order: x speaks to every layer.

    .. math:: q(z \mid x) = q(z_L \mid x) \prod_{l < L} q(z_l \mid z_{l+1}, x)

    Networks go up from the encoder's features, without noise. On the way down the family of each
    layer reads the features there, beside those that the *model's* network makes of the layer
    above: guide and model share it, so under an estimator that gives the guide an objective of its
    own (``RWS``, ``CUBO``) that network follows both. As the order is the model's, the KL of each
    layer may be taken in closed form (``TraceMeanField_ELBO``).

    Args:
        families: one line for all layers, or a list, from x upward.
        network: from the features of layer l to those of the next, one or a list of them; as the
            encoder by default.

    References:
        Tomczak & Welling (2018), arXiv:1705.07120; Kingma et al. (2016), arXiv:1606.04934.

    >>> TopDown("Normal").spec
    TopDown(Normal)
    """

    def build(self, ends: Ends) -> None:
        """Make the networks and families; the prior, ``ends.partner``, is there already."""
        self.check(ends)
        if not isinstance(ends.partner, Hierarchy):
            raise ValueError(
                f"{type(self).__name__} needs the prior Hierarchy, whose links it uses"
            )
        self.sizes = ends.sizes
        lines, nets = self.layer_lines(len(self.sizes)), self.make_networks(ends)
        self.above: list[Any] = [self._shared(p) for p in ends.partner.links]  # pyrefly: ignore[bad-argument-type]
        self.up, shapes = nn.ModuleList(nets), [ends.feature_shape or ()]
        for net, size in zip(nets, self.sizes[1:], strict=True):
            example = torch.zeros(1, *shapes[-1])
            shapes.append(build_network(net, example, (size,), "network between layers"))
        with torch.no_grad():
            tops = [torch.zeros(1, size) for size in self.sizes[1:]]
            read = [self._read(i, torch.zeros(1, *shapes[i]), z) for i, z in enumerate(tops)]
        widths = [*(h.shape[1:] for h in read), shapes[-1]]
        self.families = nn.ModuleList(
            _make_layer(line, ends, "guide", size, tuple(width))
            for line, size, width in zip(lines, self.sizes, widths, strict=True)
        )

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """The chain, of batch shape that of the features."""
        h = self._features(features)

        def link(i: int) -> Callable[[Tensor], dist.TorchDistribution]:
            return lambda z: self._below(i, h[i], z)

        down = range(len(self.sizes) - 1, -1, -1)
        given = [link(i) for i in down[1:]]
        return Layered(self.sizes, down, self.families[-1](h[-1]), given)

    def _features(self, features: Tensor) -> list[Tensor]:
        h = [features]
        for net in self.up:
            h.append(net(h[-1]))
        return h

    def _shared(self, link: Conditional) -> Callable[[Tensor], object]:
        """What the guide takes over of the model's conditional."""
        return link.features

    def _read(self, i: int, h: Tensor, z: Tensor) -> Tensor:
        """What the family of layer i reads, given the layer above."""
        parts = h.flatten(1), self.above[i](z).flatten(z.ndim - 1)
        return side_by_side(*parts)

    def _below(self, i: int, h: Tensor, z: Tensor) -> dist.TorchDistribution:
        """q of layer i, given the layer above."""
        return self.families[i](self._read(i, h, z))


class Ladder(TopDown):
    r"""The ladder: x's word on each layer, and the model's, are multiplied as normal densities.

    .. math:: q(z_l \mid z_{l+1}, x) \propto
        N(z_l; \hat\mu_l(x), \hat\sigma_l^2(x))\, p(z_l \mid z_{l+1})

    Precisions add, and means are weighted by them: what is learned from x is only what the layers
    above do not say already. The layers below the top must be normal in the model too.

    Args:
        network: as in :class:`TopDown`.
        parameters: ``scale=learned``; ``loc`` and ``scale`` are amortized by default.

    References:
        Sønderby et al. (2016), arXiv:1602.02282.

    >>> Ladder(network="MLP([100, 100])").spec
    Ladder(network=MLP([100, 100]))
    """

    def __init__(self, network: Networks = None, **parameters: Value) -> None:
        super().__init__(Spec("Normal", **parameters), network)
        self.spec = self.spec and Spec("Ladder", **self.spec.kwargs, **parameters)

    def _shared(self, link: Conditional) -> Callable[[Tensor], object]:
        model = innermost(link(torch.zeros(1, link.given)))
        if not isinstance(model, dist.Normal):
            raise ValueError(
                "a ladder multiplies normal densities, and below the top the model is "
                f"{type(model).__name__}: use guide='TopDown({type(model).__name__})'"
            )
        return link

    def _read(self, i: int, h: Tensor, z: Tensor) -> Tensor:
        return h

    def _below(self, i: int, h: Tensor, z: Tensor) -> dist.TorchDistribution:
        encoded: Any = innermost(self.families[i](h))
        model: Any = innermost(self.above[i](z))
        own, other = encoded.scale.square().reciprocal(), model.scale.square().reciprocal()
        precision = own + other
        loc = (encoded.loc * own + model.loc * other) / precision
        return dist.Normal(loc, precision.rsqrt()).to_event(1)


def layer_sizes(layers: object) -> tuple[int, ...]:
    """Widths from x upward, checked."""
    sizes = tuple(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else ()
    if not sizes or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(
            f"layers is a list of widths of z1, z2 ... from x upward, such as [100, 50], "
            f"got {layers!r}"
        )
    return sizes


def _make_layer(
    line: Line, ends: Ends, role: Role, size: int, feature_shape: tuple[int, ...]
) -> nn.Module:
    """The family of a layer that depends on features; what cannot be one is refused."""
    layer = ends.make(line, role=role, shape=(size,), feature_shape=feature_shape)
    with torch.no_grad():
        d = layer(torch.zeros(1, *feature_shape))
    if d.event_shape != (size,):
        raise ValueError(f"a layer has events of shape {tuple(d.event_shape)}, expected ({size},)")
    if isinstance(innermost(d), dist.Categorical):
        raise ValueError(
            "the layers are read by networks as numbers: OneHotCategorical, or Bernoulli, "
            "in place of Categorical"
        )
    return layer


def _as_value(value: Line | Sequence[Line]) -> Value:
    """Lines as a value of the language; ``None`` where one is a class of the user's."""
    if isinstance(value, list | tuple):
        each = tuple(map(_as_value, value))
        return None if None in each else each
    if isinstance(value, nn.Module):
        return spec_of(value)
    return as_spec(value)  # pyrefly: ignore[bad-argument-type]
