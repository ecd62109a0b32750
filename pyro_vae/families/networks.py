"""Encoders and decoders: from x or z to features.

A network is any ``nn.Module`` that maps ``(B, *in_shape)`` to ``(B, *feature_shape)``; it sees one
batch dimension. One that has ``build(in_shape, out_shape)``, as those here do, learns its ends from
the VAE: what comes in, and the shape of the data that its features will describe.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from pyro.nn import PyroModule
from pyro.poutine import trace
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from ..core.checks import number, share
from ..language.spec import Spec, as_spec, nearest
from .activations import activation_layer, checked_activation, checked_widths, wide
from .part import Line, construct, read_line
from .residual import ResNet
from .sequence_networks import SEQUENCE_NETWORKS
from .topics import Topics

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "Corrupted",
    "Normalized",
    "batched",
    "build_network",
    "make_network",
    "spec_of",
]


class MLP(nn.Module):
    r"""A multilayer perceptron, said by its hidden sizes: :math:`h_{l} = a(W_l h_{l-1} + b_l)`.

    The family's linear heads come after the last activation, so ``MLP([])`` makes a linear map.

    Args:
        hidden: the widths of the hidden layers.
        activation: the name of a ``torch.nn`` activation; with ``GLU`` the layers are gated
            (:math:`h_l = (W_l h_{l-1} + b_l) \odot \sigma(V_l h_{l-1} + c_l)`).
        dropout: the share of each hidden layer that is left out while it trains; in an encoder it
            keeps few data from being learned by heart (Srivastava et al., 2014).

    >>> vae_encoder = MLP([200, 200], activation="Tanh")
    >>> vae_encoder.spec
    MLP([200, 200], activation='Tanh')
    """

    def __init__(
        self,
        hidden: Sequence[int] = (200, 200),
        *,
        activation: str | Spec = "ReLU",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden, self.activation = checked_widths(hidden, "MLP"), checked_activation(activation)
        self.dropout = share("dropout", dropout)
        options = {"dropout": self.dropout} if self.dropout else {}
        self.spec = Spec("MLP", self.hidden, activation=self.activation, **options)
        self.layers = nn.Sequential()

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Make the layers for inputs of shape ``in_shape``."""
        self.layers = nn.Sequential(nn.Flatten())
        for width_in, width in zip((math.prod(in_shape), *self.hidden), self.hidden, strict=False):
            self.layers.append(nn.Linear(width_in, wide(width, self.activation)))
            self.layers.append(activation_layer(self.activation))
            if self.dropout:
                self.layers.append(nn.Dropout(self.dropout))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *in_shape)`` to features ``(B, hidden[-1])``."""
        return self.layers(x)


class ConvEncoder(nn.Module):
    """Strided 3x3 convolutions, each halving an image: ``(B, C, H, W)`` to flat features.

    Args:
        channels: the channels of the layers.
        activation: the name of a ``torch.nn`` activation.
    """

    def __init__(
        self, channels: Sequence[int] = (32, 64), *, activation: str | Spec = "ReLU"
    ) -> None:
        super().__init__()
        self.channels = checked_widths(channels, "ConvEncoder", at_least=1)
        self.activation = checked_activation(activation)
        self.spec = Spec("ConvEncoder", self.channels, activation=self.activation)
        self.layers = nn.Sequential()

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Make the layers for images of shape ``in_shape = (C, H, W)``."""
        c, _, _ = _image(in_shape, "ConvEncoder reads")
        self.layers = nn.Sequential()
        for c_in, c_out in zip((c, *self.channels), self.channels, strict=False):
            out = wide(c_out, self.activation)
            self.layers.append(nn.Conv2d(c_in, out, 3, stride=2, padding=1))
            self.layers.append(activation_layer(self.activation))
        self.layers.append(nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to features ``(B, F)``."""
        return self.layers(x)


class ConvDecoder(nn.Module):
    """The mirror of :class:`ConvEncoder`: z to feature maps ``(B, channels[-1], H, W)``.

    Args:
        channels: the channels of the layers, from z to the image.
        activation: the name of a ``torch.nn`` activation.
    """

    def __init__(
        self, channels: Sequence[int] = (64, 32), *, activation: str | Spec = "ReLU"
    ) -> None:
        super().__init__()
        self.channels = checked_widths(channels, "ConvDecoder", at_least=1)
        self.activation = checked_activation(activation)
        self.spec = Spec("ConvDecoder", self.channels, activation=self.activation)
        self.layers = nn.Sequential()

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Make the layers from z of shape ``in_shape`` to images of shape ``out_shape``."""
        _, *size = _image(out_shape, "ConvDecoder writes")
        sizes = [size]
        for _ in self.channels:
            sizes.insert(0, [math.ceil(s / 2) for s in sizes[0]])
        c, (h, w) = self.channels[0], sizes[0]
        c_wide = wide(c, self.activation)
        linear = nn.Linear(math.prod(in_shape), c_wide * h * w)
        self.layers = nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, (c_wide, h, w)))
        for c_in, c_out, target in zip((c, *self.channels), self.channels, sizes[1:], strict=False):
            odd = cast("tuple[int, int]", tuple(1 - s % 2 for s in target))
            out = wide(c_out, self.activation)
            self.layers.append(activation_layer(self.activation))
            self.layers.append(
                nn.ConvTranspose2d(c_in, out, 3, stride=2, padding=1, output_padding=odd)
            )
        self.layers.append(activation_layer(self.activation))

    def forward(self, z: Tensor) -> Tensor:
        """``(B, *in_shape)`` to feature maps ``(B, channels[-1], H, W)``."""
        return self.layers(z)


class Normalized(nn.Module):
    r"""A network whose features are normalized over the batch, without a scale that could drift.

    .. math:: h = BN(m \odot f(x) / (1 - d)), \quad m \sim \mathrm{Bernoulli}(1 - d)

    As the encoder of documents it keeps all dimensions of z in use.

    Args:
        network: a network, or its line: ``"Normalized(MLP([100, 100], activation='Softplus'))"``.
        dropout: d, the share of features that are left out while it trains.

    References:
        Ioffe & Szegedy (2015), arXiv:1502.03167; Srivastava & Sutton (2017), arXiv:1703.01488.

    >>> Normalized("MLP([100])").spec
    Normalized(MLP([100], activation='ReLU'), dropout=0.2)
    """

    def __init__(self, network: str | Spec | nn.Module, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = nn.Dropout(share("dropout", dropout))
        self.network = make_network(network)
        spec = spec_of(self.network)
        self.spec = spec and Spec("Normalized", spec, dropout=dropout)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Make the layers of the network, and the normalization of its features."""
        shape = build_network(self.network, torch.zeros(1, *in_shape), out_shape, "network")
        self.normalize = nn.BatchNorm1d(math.prod(shape), affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *in_shape)`` to features ``(B, F)``."""
        return self.normalize(self.dropout(self.network(x)).flatten(1))


class Corrupted(nn.Module):
    r"""A network that reads its input with noise while it trains: an encoder that denoises.

    .. math:: h = f(\tilde x), \quad \tilde x = m \odot (x + \epsilon), \quad
        \epsilon \sim N(0, s^2), \quad m \sim \mathrm{Bernoulli}(1 - d)

    The likelihood is evaluated at the uncorrupted x. In ``eval()`` mode the network reads x
    without noise.

    Args:
        network: a network, or its line: ``"Corrupted(MLP([200]), noise=0.3)"``.
        noise: s, in the units of what the network reads.
        drop: d, the fraction of cells that are set to 0.

    References:
        Vincent et al. (2008), "Extracting and composing robust features with denoising
        autoencoders"; Im et al. (2017), arXiv:1511.06406, for the bound.

    >>> encoder = Corrupted("MLP([200])", drop=0.2)
    >>> encoder.spec
    Corrupted(MLP([200], activation='ReLU'), noise=0.0, drop=0.2)
    """

    def __init__(
        self, network: str | Spec | nn.Module, *, noise: float = 0.0, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.noise, self.drop = number("noise", noise, least=0.0), share("drop", drop)
        self.network = make_network(network)
        spec = spec_of(self.network)
        self.spec = spec and Spec("Corrupted", spec, noise=noise, drop=drop)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Make the layers of the network."""
        if (build := getattr(self.network, "build", None)) is not None:
            build(in_shape, out_shape)  # pyrefly: ignore[not-callable]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *in_shape)`` to the network's features."""
        if self.training:
            x = x + self.noise * torch.randn_like(x) if self.noise else x
            x = x * (torch.rand_like(x) >= self.drop) if self.drop else x
        return self.network(x)


BUILT = (MLP, ConvEncoder, ConvDecoder, Corrupted, Normalized, ResNet, Topics)
NETWORKS = {c.__name__: c for c in (*BUILT, *SEQUENCE_NETWORKS)}


def make_network(value: Line | Sequence[int], what: str = "network") -> nn.Module:
    """A network from its line, or from the hidden widths of an MLP; a module is taken as it is.

    Args:
        value: ``"MLP([200])"``, ``[200]``, or a module.
        what: of the model, for the message.
    """
    if isinstance(value, list | tuple) and any(isinstance(v, nn.Module) for v in value):
        raise ValueError(f"the {what} is a list of modules: give nn.Sequential(*{what})")
    if isinstance(value, list | tuple | np.ndarray):
        return MLP(value.tolist() if isinstance(value, np.ndarray) else value)
    if isinstance(value, int):
        raise ValueError(f"the {what} is a list of widths, as [{value}], or a line, got {value}")
    line = read_line(value, what)
    if isinstance(line, nn.Module):
        return line
    spec = as_spec(line)
    if spec.name not in NETWORKS:
        raise spec.error(f"unknown network {spec.name!r}{nearest(spec.name, NETWORKS)}")
    return construct(NETWORKS[spec.name], spec)


def build_network(
    net: nn.Module, example: Tensor, out_shape: tuple[int, ...], name: str
) -> tuple[int, ...]:
    """Build a network if it asks for its shapes; the shape of its features for one data point."""
    build: Any = getattr(net, "build", None)
    if build is not None:
        build(tuple(example.shape[1:]), out_shape)
    for p in net.parameters():
        if p.is_complex():
            raise ValueError(
                f"the {name} has complex weights: make their parts two parameters, and put them "
                "together by torch.complex(real, imaginary)"
            )
        own = not is_lazy(p) and p.is_floating_point()
        if own and p.dtype != example.dtype:
            kinds = f"{p.dtype} weights, and the model is made of {example.dtype}".replace(
                "torch.", ""
            )
            raise ValueError(
                f"the {name} has {kinds}: give {name}.to({example.dtype}), and convert the whole "
                "model afterwards, as vae.double() does"
            )
    if odd := [key for key, value in net.state_dict().items() if not isinstance(value, Tensor)]:
        raise ValueError(
            f"the {name} keeps {odd[0]}, which is no tensor and cannot be saved: make it a buffer"
        )
    _keep_frozen(net)
    modes = {module: module.training for module in net.modules()}
    net.eval()  # batch normalization needs more than one
    shape = _check_features(net, example, name)
    if spec_of(net) is None:
        with torch.random.fork_rng(devices=[]):
            _check_features(net, torch.cat([example, example]), name)
    for module, mode in modes.items():
        module.training = mode
    return shape


def _check_features(net: nn.Module, example: Tensor, name: str) -> tuple[int, ...]:
    """The shape of the features of a data point, by some; what is wrong with them raises."""
    read = example.clone()
    version = read._version
    try:
        with torch.no_grad(), trace() as sites:
            features = net(read)
    except Exception as problem:  # whatever a network of the user's raises
        raise ValueError(
            f"the {name} cannot read an array of shape {tuple(example.shape)}: "
            f"{type(problem).__name__}: {problem}{_advice(net, problem, name)}"
        ) from problem
    plain = not any(isinstance(module, PyroModule) for module in net.modules())
    kinds = ("sample", "param") if plain else ("sample",)
    if found := [key for key, site in sites.trace.nodes.items() if site["type"] in kinds]:
        raise ValueError(
            f"the {name} has the Pyro site {found[0]!r}: a network is a function of what it reads, "
            "whose weights are nn.Parameters"
        )
    if read._version != version:
        raise ValueError(f"the {name} changes what it reads in place: let it read x.clone()")
    if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(example):
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        several = ": return its first entry alone" if isinstance(features, tuple) else ""
        several = ": return one of its entries" if isinstance(features, dict) else several
        raise ValueError(
            f"the {name} must return features of shape (B, ...), got {got} for B = {len(example)}"
            f"{several}"
        )
    if features.dtype != example.dtype:
        kinds = f"of {example.dtype}, got {features.dtype}".replace("torch.", "")
        advice = "torch.view_as_real(...) of them" if features.is_complex() else "them .to(x.dtype)"
        raise ValueError(f"the {name} must return features {kinds}: return {advice}")
    return tuple(features.shape[1:])


def _advice(net: nn.Module, problem: Exception, name: str) -> str:
    """What may be done where a network cannot read an array."""
    if isinstance(net, nn.ModuleList | nn.ModuleDict):
        return f"; give nn.Sequential(*{name})"
    if any(isinstance(module, nn.Embedding) for module in net.modules()):
        return "; x comes in floats: look up x.long(), and leave codes be by inputs='raw'"
    if "positional argument" in str(problem):
        return f"; the {name} is called with one array: give a module whose forward takes that"
    normalized = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    if any(not module.track_running_stats for module in normalized):
        return "; features that depend on other rows have no value for one: keep running statistics"
    return ""


def _keep_frozen(net: nn.Module) -> None:
    """Make buffers of the frozen parameters of a ``PyroModule``, which Pyro would train."""
    for module in net.modules():
        if isinstance(module, PyroModule):
            for name, value in [*module.named_parameters(recurse=False)]:
                if not value.requires_grad:
                    delattr(module, name)
                    module.register_buffer(name, value.detach())


def batched(net: Callable[[Tensor], Tensor], x: Tensor, event_dim: int) -> Tensor:
    """A network, which sees one batch dimension, over any number of them."""
    lead = x.shape[: x.ndim - event_dim]
    if len(lead) == 1:
        return net(x)
    features = net(x.reshape(-1, *x.shape[x.ndim - event_dim :]))
    return features.reshape(*lead, *features.shape[1:])


def spec_of(value: Line) -> Spec | None:
    """The line that makes this again, or ``None`` for a class of the user's."""
    if isinstance(value, str | Spec):
        return as_spec(value)
    spec = getattr(value, "spec", None)
    return spec if isinstance(spec, Spec) else None


def _image(shape: tuple[int, ...], who: str) -> tuple[int, ...]:
    if len(shape) != 3:
        raise ValueError(
            f"{who} images of shape (channels, height, width), got {shape}: "
            "reshape the data, or use MLP"
        )
    return shape
