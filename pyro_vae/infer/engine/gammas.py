"""The log gamma function and its derivative by a few products, where the library's own are slow."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx

from .capture import capture_function

__all__ = ["digamma", "lgamma", "lower_gamma"]

FROM = 4.0  # from where the series hold to float32's rounding
LOG_GAMMA = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)  # Bernoulli numbers B_2k / 2k(2k - 1)
DIGAMMA = (-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132)  # and -B_2k / 2k
CONSTANT = math.log(2 * math.pi) / 2 - 0.5
aten: Any = torch.ops.aten


def lgamma(x: Tensor) -> Tensor:
    r"""The logarithm of :math:`\Gamma(x)`, of x from 0; NaN below, where no density has it.

    Stirling's series, of x + 4 where x is less than 4:
    :math:`\Gamma(x) = \Gamma(x + 4) / (x (x + 1) (x + 2) (x + 3))`.
    """
    small, y, low = _raised(x)
    series = _series(LOG_GAMMA, y) / y
    value = (y - 0.5) * (y.log() - 1) + (CONSTANT + series)
    return value - torch.where(small, (low * (low + 2)).log(), 0.0)


def digamma(x: Tensor) -> Tensor:
    r""":math:`\psi(x)`, of x from 0; NaN below."""
    small, y, low = _raised(x)
    value = y.log() - 0.5 / y + _series(DIGAMMA, y) / (y * y)
    slope = (2 * x + 3) * (2 * low + 2) / (low * (low + 2))
    return value - torch.where(small, slope, 0.0)


def _raised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where x is small; there x + 4 in place of x; and x (x + 3), 1 elsewhere."""
    small = x < FROM
    y = torch.where(small, torch.where(x < 0, math.nan, x + 4), x)
    return small, y, torch.where(small, x * (x + 3), 1.0)


def _series(coefficients: tuple[float, ...], y: Tensor) -> Tensor:
    """A polynomial in 1 / y^2."""
    inverse = 1 / (y * y)
    value = inverse * coefficients[-1]
    for coefficient in reversed(coefficients[1:-1]):
        value = inverse * (value + coefficient)
    return value + coefficients[0]


def lower_gamma(node: Any) -> None:  # noqa: ANN401
    """Put these in the place of PyTorch's, of single precision."""
    if node.args[0].meta["val"].dtype is torch.float32:
        graph = _graph("lgamma" if node.target is aten.lgamma.default else "digamma")
        (x,) = graph.find_nodes(op="placeholder")
        values: dict[fx.Node, fx.Node] = {x: node.args[0]}
        with node.graph.inserting_before(node):
            copied = node.graph.graph_copy(graph, values)
        node.replace_all_uses_with(copied, propagate_meta=True)


@cache
def _graph(name: str) -> fx.Graph:
    """The function in PyTorch's own operators, whose shapes are whatever x has."""
    module, _ = capture_function({"lgamma": lgamma, "digamma": digamma}[name], torch.ones(2))
    for node in module.graph.nodes:
        node.meta = {}
    return module.graph
