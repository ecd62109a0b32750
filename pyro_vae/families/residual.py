"""Residual networks of convolutions, over one, two or three dimensions."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ..core.checks import whole
from ..language.spec import Spec
from .activations import activation_layer, checked_activation, checked_widths

__all__ = ["ResNet"]

GROUP = 4  # channels of a group that is normalized, at least
GROUPS = 8  # of a layer, at most


class ResNet(nn.Module):
    r"""A residual network of 3-wide convolutions with group normalization, said by its channels.

    .. math:: h_{l+1} = h_l + W_2 * a(\mathrm{GN}(W_1 * a(\mathrm{GN}(h_l))))

    As an encoder each of the channels is a stage, after which a strided convolution halves the
    image; as a decoder each stage comes before the image is doubled, each pixel repeated and then
    convolved, so that no chequerboard comes about. Images are of any size, ``(C, H, W)``,
    ``(C, D, H, W)``, or steps ``(T, C)``.

    Args:
        channels: of the stages: ``[64, 128, 256]`` of an encoder, ``[256, 128, 64]`` of a decoder.
        blocks: residual blocks of a stage.
        activation: the name of a ``torch.nn`` activation, but ``GLU``.

    References:
        He, Zhang, Ren & Sun (2016), "Identity mappings in deep residual networks",
        arXiv:1603.05027; Wu & He (2018), arXiv:1803.08494, for the groups; Odena, Dumoulin & Olah
        (2016), "Deconvolution and checkerboard artifacts".

    >>> import torch
    >>> encoder = ResNet([8, 16])
    >>> encoder.build((3, 9, 6), (3, 9, 6))
    >>> encoder(torch.zeros(2, 3, 9, 6)).shape
    torch.Size([2, 96])
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256),
        *,
        blocks: int = 1,
        activation: str | Spec = "SiLU",
    ) -> None:
        super().__init__()
        self.channels = checked_widths(channels, "ResNet", at_least=1)
        self.blocks, self.activation = whole("blocks", blocks), checked_activation(activation)
        if self.activation == "GLU":
            raise ValueError("GLU halves the channels, which a residual network keeps: take SiLU")
        self.spec = Spec("ResNet", self.channels, blocks=blocks, activation=self.activation)
        self.layers = nn.Sequential()

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Make the layers: an encoder's where inputs have the places of the data, else a decoder's.

        Args:
            in_shape: ``(C, H, W)`` of an encoder; of z, of any shape, of a decoder.
            out_shape: of the data.
        """
        places = _places(out_shape)
        steps = len(out_shape) == 2
        if len(in_shape) == len(out_shape) and _places(in_shape) == places:
            layers = self._encoder(in_shape[-1] if steps else in_shape[0], len(places))
            self.layers = nn.Sequential(*([Transposed()] if steps else []), *layers)
        else:
            layers = self._decoder(math.prod(in_shape), places)
            self.layers = nn.Sequential(*layers, *([Transposed()] if steps else []))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *in_shape)`` to features ``(B, F)``, or to maps with the places of the data."""
        return self.layers(x)

    def _encoder(self, channels: int, dims: int) -> list[nn.Module]:
        """From images to flat features."""
        convolution = _convolution(dims)
        first = self.channels[0]
        layers: list[nn.Module] = [convolution(channels, first, 3, padding=1)]
        for c_in, c_out in zip((first, *self.channels), self.channels, strict=False):
            layers += self._stage(c_in, c_out, dims)
            layers.append(convolution(c_out, c_out, 3, stride=2, padding=1))
        return [*layers, *self._last(self.channels[-1]), nn.Flatten()]

    def _decoder(self, width: int, places: tuple[int, ...]) -> list[nn.Module]:
        """From z to feature maps."""
        sizes, first, dims = [places], self.channels[0], len(places)
        for _ in self.channels:
            sizes.insert(0, tuple(math.ceil(s / 2) for s in sizes[0]))
        layers: list[nn.Module] = [
            nn.Flatten(),
            nn.Linear(width, first * math.prod(sizes[0])),
            nn.Unflatten(1, (first, *sizes[0])),
        ]
        pairs = zip((first, *self.channels), self.channels, sizes[1:], strict=False)
        for c_in, c_out, size in pairs:
            layers += self._stage(c_in, c_out, dims)
            layers += [nn.Upsample(size), _convolution(dims)(c_out, c_out, 3, padding=1)]
        return [*layers, *self._last(self.channels[-1])]

    def _stage(self, c_in: int, c_out: int, dims: int) -> list[nn.Module]:
        widths = (c_in, *[c_out] * self.blocks)
        return [Residual(a, b, dims, self.activation) for a, b in pairwise(widths)]

    def _last(self, channels: int) -> list[nn.Module]:
        return [group_norm(channels), activation_layer(self.activation)]


class Residual(nn.Module):
    """Two convolutions, each after normalization and activation, beside a shortcut.

    Args:
        c_in: channels that come in.
        c_out: and go out; a 1-wide convolution is the shortcut where they differ.
        dims: of an image.
        activation: of ``torch.nn``.
    """

    def __init__(self, c_in: int, c_out: int, dims: int, activation: str) -> None:
        super().__init__()
        convolution = _convolution(dims)
        self.layers = nn.Sequential(
            group_norm(c_in),
            activation_layer(activation),
            convolution(c_in, c_out, 3, padding=1),
            group_norm(c_out),
            activation_layer(activation),
            convolution(c_out, c_out, 3, padding=1),
        )
        same = c_in == c_out
        self.shortcut = nn.Identity() if same else convolution(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, c_in, *places)`` to ``(B, c_out, *places)``."""
        return self.shortcut(x) + self.layers(x)


class Transposed(nn.Module):
    """Steps ``(T, C)`` as channels ``(C, T)``, and the other way."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, M, N)`` to ``(B, N, M)``."""
        return x.transpose(1, 2)


def group_norm(channels: int) -> nn.Module:
    """Group normalization by groups of at least 4 channels, of which there are at most 8.

    Groups of a single channel would leave nothing of an image of one pixel.
    """
    most = min(GROUPS, max(1, channels // GROUP))
    groups = max(n for n in range(1, most + 1) if channels % n == 0)
    return nn.GroupNorm(groups, channels) if channels > 1 else nn.Identity()


def _convolution(dims: int) -> type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]


def _places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions of the places: all but the channels, which come last in ``(T, C)``."""
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            f"ResNet is of images (C, H, W) or (C, D, H, W), or of steps (T, C), got {shape}: "
            "reshape the data, or use MLP"
        )
    return shape[:1] if len(shape) == 2 else shape[1:]
