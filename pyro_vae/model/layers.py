"""Stochastic layers: z = (z1, ..., zL), from x upward, each layer drawn given the one before it."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeAlias

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..families.family import Role, construct, family, innermost
from ..families.guides import GUIDES, DeltaNormal
from ..families.networks import MLP, batched, built, network, spec_of
from ..families.priors import PRIORS
from ..language.spec import Spec, SpecError, Value, as_spec
from .latents import Given, Layered, Size, side_by_side

__all__ = [
    "BottomUp", "Hierarchy", "Ladder", "TopDown", "check_plain", "layer_sizes", "stacked",
]  # fmt: skip

Line: TypeAlias = str | Spec | nn.Module
Networks: TypeAlias = Line | Sequence[Line] | None


class Conditional(nn.Module):
    """A distribution of one layer given another: a network, and a family over its features.

    Args:
        line: the family.
        net: the network.
        given: the width of the layer that the network reads.
        size: the width of the layer that is drawn.
    """

    def __init__(self, line: Line, net: nn.Module, given: int, size: int) -> None:
        super().__init__()
        self.network, self.given = net, given
        shape = built(net, torch.zeros(1, given), (size,), "network between layers")
        self.family = _family(line, size, "layer", shape)

    def features(self, z: Tensor) -> Tensor:
        """From the layer that is given, ``(..., D)``, to the network's features."""
        return batched(self.network, z, 1)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """From the layer that is given, ``(..., D)``, to the other's distribution."""
        return self.family(self.features(z))


class Stack(nn.Module):
    """What prior and guides of stochastic layers share: a line for each layer, and networks.

    Args:
        families: a line, or a list of them, from x upward.
        network: between the layers: a line, or a list of them, from x upward. Where it is not said
            they are as the encoder (in a prior, as the decoder), if that is an ``MLP``.
    """

    def __init__(
        self, families: Line | Sequence[Line] = "Normal", network: Networks = None
    ) -> None:
        super().__init__()
        many = isinstance(families, list | tuple)
        some: Any = families if many else [families]
        self.said = [f if isinstance(f, nn.Module) else as_spec(f) for f in some]
        self.single, self.between = not many, network
        told: dict[str, Any] = {} if network is None else {"network": _as_said(network)}
        values: list[Any] = [_as_said(families), *told.values()]
        self.spec = None if None in values else Spec(type(self).__name__, values[0], **told)

    def lines(self, n: int) -> list[Line]:
        """The line of each of n layers."""
        if not self.single and len(self.said) != n:
            raise ValueError(f"{len(self.said)} families for {n} layers: give one, or one for each")
        return [deepcopy(self.said[0]) for _ in range(n)] if self.single else list(self.said)

    def networks(self, n: int, like: nn.Module) -> list[nn.Module]:
        """New networks for the n places between the layers."""
        said: Any = self.between
        if said is None:
            said = spec_of(like) if isinstance(like, MLP) else Spec("MLP")
        many = list(said) if isinstance(said, list | tuple) else [said] * n
        if len(many) != n:
            raise ValueError(f"{len(many)} networks for the {n} places between layers: give one, "
                             "or one for each")  # fmt: skip
        return [network(deepcopy(net)) for net in many]


class Hierarchy(Stack):
    r"""The prior of stochastic layers: from the top down, each layer given the one above it.

    .. math:: p(z) = p(z_L) \prod_{l < L} p(z_l \mid z_{l+1})

    Args:
        families: one line says :math:`p(z_L)`, any prior, and the layers below it are of the
            guide's families. A list says each, from x upward; what is not named in those below the
            top is amortized over the layer above.
        network: from :math:`z_{l+1}` to the features of :math:`z_l`, one or a list of them; as the
            decoder where it is not said.

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519; Tomczak & Welling (2018),
        arXiv:1705.07120, for a VampPrior on top.

    >>> Hierarchy("VampPrior(components=500)", network="MLP([100, 100])").spec
    Hierarchy(VampPrior(components=500), network=MLP([100, 100]))
    """

    def build(self, sizes: Size, below: Sequence[Line], decoder: nn.Module) -> None:
        """Make the conditionals.

        Args:
            sizes: of the layers, from x upward.
            below: the lines of the layers below the top, where they are not said here.
            decoder: as which the networks are, where they are not said.
        """
        self.sizes = tuple(sizes)
        n = len(self.sizes)
        lines = [*below, self.said[0]] if self.single else self.lines(n)
        nets = self.networks(n - 1, decoder)
        self.links = nn.ModuleList(
            Conditional(lines[i], nets[i], self.sizes[i + 1], self.sizes[i]) for i in range(n - 1)
        )
        self.top = family(lines[-1], (self.sizes[-1],), "prior", structures=PRIORS)

    def forward(self, features: None = None) -> dist.TorchDistribution:
        """The chain, of batch shape ()."""
        down = range(len(self.sizes) - 1, -1, -1)
        return Layered(self.sizes, down, self.top(), list(self.links)[::-1])  # pyright: ignore


class BottomUp(Stack):
    r"""A guide of stochastic layers that goes up from x: what a plain line such as ``Normal`` is.

    .. math:: q(z \mid x) = q(z_1 \mid x) \prod_{l > 1} q(z_l \mid z_{l-1})

    Args:
        families: one line for all layers, or a list, from x upward.
        network: from :math:`z_{l-1}` to the features of :math:`z_l`, one or a list of them; as the
            encoder where it is not said.

    References:
        Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519.

    >>> BottomUp("Normal", network="MLP([100, 100])").spec
    BottomUp(Normal, network=MLP([100, 100]))
    """

    def build(
        self, sizes: Size, feature_shape: tuple[int, ...], encoder: nn.Module, prior: Hierarchy
    ) -> None:
        """Make the conditionals; ``feature_shape`` is the encoder's."""
        self.sizes = tuple(sizes)
        n = len(self.sizes)
        lines, nets = self.lines(n), self.networks(n - 1, encoder)
        self.first = _family(lines[0], self.sizes[0], "guide", feature_shape)
        self.links = nn.ModuleList(
            Conditional(lines[i + 1], nets[i], self.sizes[i], self.sizes[i + 1])
            for i in range(n - 1)
        )

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """The chain, of batch shape that of the features."""
        return Layered(self.sizes, range(len(self.sizes)), self.first(features), list(self.links))  # pyright: ignore

    def top(self, features: Tensor) -> dist.TorchDistribution:
        """q of the top layer at the means of the layers below it."""
        q = self.first(features)
        for link in self.links:
            try:
                q = link(q.mean)
            except NotImplementedError:
                raise ValueError(
                    f"the way up to the top layer is by the means of those below, and "
                    f"{type(innermost(q)).__name__} has none: use guide='TopDown(...)'"
                ) from None
        return q


class TopDown(Stack):
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
            encoder where it is not said.

    References:
        Tomczak & Welling (2018), arXiv:1705.07120; Kingma et al. (2016), arXiv:1606.04934.

    >>> TopDown("Normal").spec
    TopDown(Normal)
    """

    def build(
        self, sizes: Size, feature_shape: tuple[int, ...], encoder: nn.Module, prior: Hierarchy
    ) -> None:
        """Make the networks and families; ``feature_shape`` is the encoder's."""
        self.sizes = tuple(sizes)
        lines, nets = self.lines(len(self.sizes)), self.networks(len(self.sizes) - 1, encoder)
        self.above: list[Any] = [self._shared(p) for p in prior.links]  # pyright: ignore
        self.up, shapes = nn.ModuleList(nets), [feature_shape]
        for net, size in zip(nets, self.sizes[1:], strict=True):
            example = torch.zeros(1, *shapes[-1])
            shapes.append(built(net, example, (size,), "network between layers"))
        with torch.no_grad():
            tops = [torch.zeros(1, size) for size in self.sizes[1:]]
            read = [self._read(i, torch.zeros(1, *shapes[i]), z) for i, z in enumerate(tops)]
        widths = [*(h.shape[1:] for h in read), shapes[-1]]
        self.families = nn.ModuleList(
            _family(line, size, "guide", tuple(width))
            for line, size, width in zip(lines, self.sizes, widths, strict=True)
        )

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        """The chain, of batch shape that of the features."""
        h = self._features(features)

        def link(i: int) -> Given:
            return lambda z: self._below(i, h[i], z)

        down = range(len(self.sizes) - 1, -1, -1)
        given = [link(i) for i in down[1:]]
        return Layered(self.sizes, down, self.families[-1](h[-1]), given)

    def top(self, features: Tensor) -> dist.TorchDistribution:
        """q of the top layer."""
        return self.families[-1](self._features(features)[-1])

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
        return side_by_side(h.flatten(1), self.above[i](z).flatten(z.ndim - 1))

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
        parameters: ``scale=learned``; ``loc`` and ``scale`` are amortized where it is not said.

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
        said: Any = innermost(self.families[i](h))
        model: Any = innermost(self.above[i](z))
        own, other = said.scale.square().reciprocal(), model.scale.square().reciprocal()
        precision = own + other
        loc = (said.loc * own + model.loc * other) / precision
        return dist.Normal(loc, precision.rsqrt()).to_event(1)


LAYERED_GUIDES: dict[str, type[Stack]] = {c.__name__: c for c in (BottomUp, Ladder, TopDown)}


def stacked(
    prior: Line,
    guide: Line,
    sizes: Size,
    feature_shape: tuple[int, ...],
    encoder: nn.Module,
    decoder: nn.Module,
) -> tuple[nn.Module, nn.Module]:
    """Prior and guide of stochastic layers, from their lines.

    Args:
        prior: a line such as ``"Hierarchy([Normal, Laplace])"``; another is of the top layer.
        guide: ``"BottomUp(...)"``, ``"TopDown(...)"``, ``"Ladder"``; another is each layer's of a
            :class:`BottomUp`.
        sizes: of the layers, from x upward.
        feature_shape: of the encoder's features.
        encoder: as which the guide's networks are, where they are not said.
        decoder: as which the prior's are.
    """
    q: Any = _stack(guide, LAYERED_GUIDES, BottomUp)
    p: Any = _stack(prior, {"Hierarchy": Hierarchy}, Hierarchy)
    try:
        p.build(sizes, q.lines(len(sizes))[:-1], decoder)
        q.build(sizes, feature_shape, encoder, p)
    except ValueError as problem:
        if isinstance(problem, SpecError):
            raise
        raise ValueError(f"layers={list(sizes)}: {problem}") from problem
    return p, q


def layer_sizes(layers: object) -> tuple[int, ...]:
    """Widths from x upward, checked."""
    sizes = tuple(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else ()
    if not sizes or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(
            f"layers is a list of widths of z1, z2 ... from x upward, such as [100, 50], "
            f"got {layers!r}"
        )
    return sizes


def check_plain(*lines: Line) -> None:
    """Raise where a line, or module, is of stochastic layers and there is one layer."""
    for line in lines:
        name = type(line).__name__ if isinstance(line, nn.Module) else as_spec(line).name
        if name in (*LAYERED_GUIDES, "Hierarchy"):
            raise ValueError(
                f"{name} is of stochastic layers: say their widths, layers=[100, 50], in place of "
                "latent_dim"
            )


def _stack(line: Line, known: dict[str, type[Stack]], plain: type[Stack]) -> nn.Module:
    """A stack as it is said, or of one plain line."""
    if isinstance(line, nn.Module):
        return line if isinstance(line, tuple(known.values())) else plain(line)
    spec = as_spec(line)
    return construct(known[spec.name], spec) if spec.name in known else plain(spec)


def _family(line: Line, size: int, role: Role, feature_shape: tuple[int, ...]) -> nn.Module:
    """The family of a layer that depends on features; what cannot be one is refused."""
    made = family(line, (size,), role, feature_shape, structures=GUIDES)
    with torch.no_grad():
        d = made(torch.zeros(1, *feature_shape))
    if d.event_shape != (size,):
        raise ValueError(f"a layer has events of shape {tuple(d.event_shape)}, expected ({size},)")
    if isinstance(innermost(d), dist.Categorical):
        raise ValueError("the layers are read by networks as numbers: OneHotCategorical, or "
                         "Bernoulli, in place of Categorical")  # fmt: skip
    if isinstance(made, DeltaNormal):
        raise ValueError(f"{spec_of(made)} commits to a rate against N(0, 1), which the layers "
                         "below the top are not: use fit(..., free_bits=...)")  # fmt: skip
    return made


def _as_said(value: Line | Sequence[Line]) -> Value:
    """Lines as a value of the language; ``None`` where one is a class of the user's."""
    if isinstance(value, list | tuple):
        each = tuple(map(_as_said, value))
        return None if None in each else each
    if isinstance(value, nn.Module):
        return spec_of(value)
    return as_spec(value)  # pyright: ignore[reportArgumentType]
