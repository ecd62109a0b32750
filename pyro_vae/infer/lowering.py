"""What Inductor leaves undone on CPUs: rewrites of a graph before it compiles it."""

import platform
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor, fx

__all__ = ["for_cpu", "options_for_cpu"]

WORTH_A_CALL = 6e7  # operations of a product: with fewer the call costs what oneDNN gains
LIBRARY = torch.library.Library("pyro_vae", "DEF")
LIBRARY.define("linear(Tensor a, Tensor weight, Tensor? bias, str then) -> Tensor")
aten: Any = torch.ops.aten
THEN = {aten.tanh.default: "tanh", aten.relu.default: "relu", aten.sigmoid.default: "sigmoid"}


def options_for_cpu() -> dict[str, Any]:
    """Inductor's, where it has them: tanh by exp, which costs a third."""
    from torch._inductor.config import cpp

    return {"cpp.use_decompose_tanh": True} if hasattr(cpp, "use_decompose_tanh") else {}


def for_cpu(module: fx.GraphModule) -> fx.GraphModule:
    """The graph rewritten; its values are the same up to rounding.

    The Bernoulli's log-density and its gradient share one exponential, in one pass over the data,
    and its logarithm is a polynomial; large matrix products, with the activation that comes next,
    go to oneDNN where MKL does not use all of the processor's vector instructions.

    Args:
        module: as ``make_fx`` gives it, of tensors on the CPU.
    """
    module = deepcopy(module)
    decays: dict[Any, fx.Node] = {}  # of logits l: exp(-|l|)
    for node in list(module.graph.nodes):
        with module.graph.inserting_before(node):
            if node.target is aten.binary_cross_entropy_with_logits.default:
                _cross_entropy(node, decays)
            elif node.target is aten.sigmoid.default and node.args[0] in decays:
                _sigmoid(node, decays[node.args[0]])
            elif node.target is aten.sum.default:
                _sum(node)
            elif node.target in (aten.addmm.default, aten.mm.default) and _onednn_is_faster():
                _product(node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _cross_entropy(node: Any, decays: dict[Any, fx.Node]) -> None:  # noqa: ANN401
    """max(l, 0) - l x + log(1 + exp(-|l|)), where log1p would cost as much as three exp."""
    logits, x, *weights, reduction = (*node.args, None, None, 0)[:5]
    if node.meta["val"].dtype is not torch.float32 or any(weights) or reduction != 0:
        return
    call = node.graph.call_function
    e = call(aten.exp.default, (call(aten.neg.default, (call(aten.abs.default, (logits,)),)),))
    ratio, *coefficients = reversed(_log1p_over_e())
    for coefficient in coefficients:
        ratio = call(aten.add.Tensor, (call(aten.mul.Tensor, (e, ratio)), coefficient))
    hinge, slope = call(aten.relu.default, (logits,)), call(aten.mul.Tensor, (logits, x))
    line = call(aten.sub.Tensor, (hinge, slope))
    node.replace_all_uses_with(call(aten.add.Tensor, (line, call(aten.mul.Tensor, (e, ratio)))))
    decays[logits] = e


def _sigmoid(node: Any, e: fx.Node) -> None:  # noqa: ANN401
    """By the exponential that is there: 1 or exp(l), over 1 + exp(-|l|)."""
    call = node.graph.call_function
    positive = call(aten.ge.Scalar, (node.args[0], 0))
    above = call(aten.where.ScalarSelf, (positive, 1.0, e))
    node.replace_all_uses_with(call(aten.div.Tensor, (above, call(aten.add.Tensor, (e, 1.0)))))


def _sum(node: Any) -> None:  # noqa: ANN401
    """A sum of sums is one: Inductor then does it in the pass that makes the gradients."""
    parts = node.args[0]
    alone = parts.target is aten.sum.dim_IntList and len(parts.users) == 1
    if alone and not node.kwargs and not parts.kwargs:
        node.args = (parts.args[0],)


@cache
def _log1p_over_e() -> list[float]:
    """Coefficients of log(1 + e) / e on [0, 1], to 5e-9: a tenth of float32's rounding."""
    fitted = Chebyshev.interpolate(lambda e: np.log1p(e) / e, 9, domain=[0, 1])
    return fitted.convert(kind=Polynomial, domain=[-1, 1]).coef.tolist()


def _product(node: Any) -> None:  # noqa: ANN401
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
    if bias and bias[0].meta["val"].ndim != 1:  # no layer's
        return
    call = node.graph.call_function
    weight = right.args[0] if right.target is flip else call(flip, (right,))
    if left.target is flip:  # here it is fused, inside the call it would be a slow copy
        left = call(aten.clone.default, (left,), {"memory_format": torch.contiguous_format})
    last = next(iter(node.users), node)
    if len(node.users) > 1 or last.target not in THEN:
        last = node
    given = left, weight, *(bias or [None]), THEN.get(last.target, "none")
    last.replace_all_uses_with(call(torch.ops.pyro_vae.linear.default, given))


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
def _(a: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, weight, bias, then, [], "")


@torch.library.impl(LIBRARY, "linear", "Meta")
def _(a: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return a.new_empty(a.shape[0], weight.shape[0])
