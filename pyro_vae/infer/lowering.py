"""What Inductor leaves undone on CPUs: rewrites of a float32 graph before it compiles it."""

import platform
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor, fx

__all__ = ["for_cpu"]

WORTH_A_CALL = 6e7  # operations of a product: with fewer the call costs what oneDNN gains
LIBRARY = torch.library.Library("pyro_vae", "DEF")
LIBRARY.define("linear(Tensor a, Tensor weight, Tensor? bias) -> Tensor")
aten: Any = torch.ops.aten


def for_cpu(module: fx.GraphModule) -> fx.GraphModule:
    """The graph rewritten; its values are the same up to rounding.

    The logarithm in the Bernoulli's log-density becomes a polynomial, and large matrix products go
    to oneDNN where MKL does not use all of the processor's vector instructions.

    Args:
        module: as ``make_fx`` gives it, of tensors on the CPU.
    """
    module = deepcopy(module)
    for node in list(module.graph.nodes):
        if node.target is aten.binary_cross_entropy_with_logits.default:
            _cross_entropy(module.graph, node)
        elif node.target in (aten.addmm.default, aten.mm.default) and _onednn_is_faster():
            _product(module.graph, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _cross_entropy(graph: fx.Graph, node: Any) -> None:  # noqa: ANN401
    """max(l, 0) - l x + log(1 + exp(-|l|)), where log1p would cost as much as three exp."""
    logits, x, *weights, reduction = (*node.args, None, None, 0)[:5]
    if node.meta["val"].dtype is not torch.float32 or any(weights) or reduction != 0:
        return

    def call(operator: Any, *args: Any) -> fx.Node:  # noqa: ANN401
        return graph.call_function(operator, args)

    add, multiply = partial(call, aten.add.Tensor), partial(call, aten.mul.Tensor)
    with graph.inserting_before(node):
        e = call(aten.exp.default, call(aten.neg.default, call(aten.abs.default, logits)))
        ratio, *coefficients = reversed(_log1p_over_e())
        for coefficient in coefficients:
            ratio = add(multiply(e, ratio), coefficient)
        line = call(aten.sub.Tensor, call(aten.relu.default, logits), multiply(logits, x))
        node.replace_all_uses_with(add(line, multiply(e, ratio)))


@cache
def _log1p_over_e() -> list[float]:
    """Coefficients of log(1 + e) / e on [0, 1], to 5e-9: a tenth of float32's rounding."""
    fitted = Chebyshev.interpolate(lambda e: np.log1p(e) / e, 9, domain=[0, 1])
    return fitted.convert(kind=Polynomial, domain=[-1, 1]).coef.tolist()


def _product(graph: fx.Graph, node: Any) -> None:  # noqa: ANN401
    """Products that oneDNN is better at, if they are large: a W^T + b, and a wide D^T a.

    The first is that of a layer and of the gradient in its input, the second of that in its
    weights; one with more rows than columns MKL does faster.
    """
    *bias, left, right = node.args
    value, flip = node.meta["val"], aten.t.default
    if right.target is flip:
        inner = right.meta["val"].shape[0]
    elif left.target is flip and value.shape[0] < value.shape[1]:
        inner = left.meta["val"].shape[1]
    else:
        return
    if node.kwargs or value.dtype is not torch.float32 or 2 * value.numel() * inner < WORTH_A_CALL:
        return
    with graph.inserting_before(node):
        weight = right.args[0] if right.target is flip else graph.call_function(flip, (right,))
        given = left, weight, *(bias or [None])
        node.replace_all_uses_with(graph.call_function(torch.ops.pyro_vae.linear.default, given))


@cache
def _onednn_is_faster() -> bool:
    """MKL takes AVX-512 on Intel's processors alone; oneDNN where it is."""
    cpu = Path("/proc/cpuinfo")
    return (
        torch.backends.mkldnn.is_available()
        and platform.machine() == "x86_64"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and cpu.exists()
        and "GenuineIntel" not in cpu.read_text()
    )


@torch.library.impl(LIBRARY, "linear", "CPU")
def _(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is not None and bias.ndim != 1:  # no layer's
        return torch.addmm(bias, a, weight.t())
    return torch.ops.mkldnn._linear_pointwise(a, weight, bias, "none", [], "")


@torch.library.impl(LIBRARY, "linear", "Meta")
def _(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty(a.shape[0], weight.shape[0])
