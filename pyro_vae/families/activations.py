"""Widths and activations of networks, as lines say them."""

from collections.abc import Sequence

from torch import nn

from ..core.checks import whole
from ..language.spec import Spec, nearest

__all__ = ["activation_layer", "checked_activation", "checked_widths", "wide"]


def wide(width: int, activation: str) -> int:
    """The outputs that a layer needs for ``width`` features: a gate takes as many again."""
    return 2 * width if activation == "GLU" else width


def activation_layer(activation: str) -> nn.Module:
    """The activation, over the features or channels."""
    return nn.GLU(1) if activation == "GLU" else getattr(nn, activation)()


def checked_widths(widths: Sequence[int], name: str, at_least: int = 0) -> tuple[int, ...]:
    """A list of widths, each a whole number of at least 1."""
    message = f"{name} takes a list of widths such as [200, 200], got {widths!r}"
    if isinstance(widths, str) or not isinstance(widths, Sequence) or len(widths) < at_least:
        raise ValueError(message)
    try:
        return tuple(whole("a width", width) for width in widths)
    except ValueError:
        raise ValueError(message) from None


def checked_activation(activation: str | Spec) -> str:
    """The name of an activation of ``torch.nn``."""
    name = str(activation)
    cls = getattr(nn, name, None)
    if not (isinstance(cls, type) and cls.__module__ == "torch.nn.modules.activation"):
        known = [n for n in dir(nn.modules.activation) if n[0].isupper()]
        raise ValueError(f"unknown activation {name!r}{nearest(name, known)}")
    return name
