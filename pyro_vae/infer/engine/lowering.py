"""Rewrites of a graph for CPUs, of what Inductor leaves undone."""

import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor, fx

from .passes import drop_dead_code

__all__ = ["for_cpu", "options_for_cpu"]


class Worth(NamedTuple):
    """The multiplications that repay a call of oneDNN, and each number to be copied for it."""

    call: float
    copy: float


HALF_WIDTH, WHOLE_WIDTH = Worth(3e7, 250), Worth(3e6, 50)  # of the units that do AVX-512
LIBRARY = torch.library.Library("pyro_vae", "DEF")
LIBRARY.define("linear(Tensor a, Tensor weight, Tensor? bias, str then) -> Tensor")
aten: Any = torch.ops.aten
PLAIN: tuple[list, str] = ([], "")  # of oneDNN's activation: no numbers, its usual algorithm
THEN = {aten.tanh.default: "tanh", aten.relu.default: "relu", aten.sigmoid.default: "sigmoid"}


def options_for_cpu() -> dict[str, Any]:
    """Inductor's, where it has them: tanh by exp, which costs a third, and fused multiply-adds."""
    from torch._inductor.config import cpp

    wanted = {"use_decompose_tanh": True, "enable_floating_point_contract_flag": "fast"}
    return {f"cpp.{name}": value for name, value in wanted.items() if hasattr(cpp, name)}


def for_cpu(module: fx.GraphModule) -> fx.GraphModule:
    """The graph rewritten; its values are the same up to rounding.

    The Bernoulli's log-density and its gradient share one exponential, in one pass over the data,
    and its logarithm is a polynomial, as softplus's is; large matrix products, with the activation
    that comes next, go to oneDNN where MKL does not use all of the processor's vector instructions.

    Args:
        module: as ``make_fx`` gives it, of tensors on the CPU.
    """
    module, worth = deepcopy(module), _onednn()
    decays: dict[Any, fx.Node] = {}  # of logits l: exp(-|l|)
    for node in list(module.graph.nodes):
        with module.graph.inserting_before(node):
            if node.target is aten.binary_cross_entropy_with_logits.default:
                _cross_entropy(node, decays)
            elif node.target is aten.sigmoid.default and node.args[0] in decays:
                _sigmoid(node, decays[node.args[0]])
            elif node.target is aten.softplus.default:
                _softplus(node)
            elif node.target is aten.sum.default:
                _sum(node)
            elif node.target in (aten.addmm.default, aten.mm.default) and worth:
                _product(node, worth)
    return drop_dead_code(module)


def _replace(node: fx.Node, new: fx.Node) -> None:
    node.replace_all_uses_with(new, propagate_meta=True)


def _cross_entropy(node: Any, decays: dict[Any, fx.Node]) -> None:  # noqa: ANN401
    """max(l, 0) - l x + log(1 + exp(-|l|)), where log1p would cost as much as three exp."""
    logits, x, *weights, reduction = (*node.args, None, None, 0)[:5]
    if node.meta["val"].dtype is not torch.float32 or any(weights) or reduction != 0:
        return
    call = node.graph.call_function
    e, bend = _bend(logits)
    hinge, slope = call(aten.relu.default, (logits,)), call(aten.mul.Tensor, (logits, x))
    line = call(aten.sub.Tensor, (hinge, slope))
    _replace(node, call(aten.add.Tensor, (line, bend)))
    decays[logits] = e


def _softplus(node: Any) -> None:  # noqa: ANN401
    """max(l, 0) + log(1 + exp(-|l|))."""
    if node.meta["val"].dtype is not torch.float32 or len(node.args) > 1:
        return
    call = node.graph.call_function
    hinge, (_, bend) = call(aten.relu.default, node.args), _bend(node.args[0])
    _replace(node, call(aten.add.Tensor, (hinge, bend)))


def _bend(logits: Any) -> tuple[fx.Node, fx.Node]:  # noqa: ANN401
    """exp(-|l|), and log(1 + exp(-|l|)), where log1p would cost as much as three exp."""
    call = logits.graph.call_function
    e = call(aten.exp.default, (call(aten.neg.default, (call(aten.abs.default, (logits,)),)),))
    ratio, *coefficients = reversed(_log1p_over_e())
    for coefficient in coefficients:
        ratio = call(aten.add.Tensor, (call(aten.mul.Tensor, (e, ratio)), coefficient))
    return e, call(aten.mul.Tensor, (e, ratio))


def _sigmoid(node: Any, e: fx.Node) -> None:  # noqa: ANN401
    """By the exponential that is there: 1 or exp(l), over 1 + exp(-|l|)."""
    call = node.graph.call_function
    positive = call(aten.ge.Scalar, (node.args[0], 0))
    above = call(aten.where.ScalarSelf, (positive, 1.0, e))
    _replace(node, call(aten.div.Tensor, (above, call(aten.add.Tensor, (e, 1.0)))))


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


def _product(node: Any, worth: Worth) -> None:  # noqa: ANN401
    """Products that oneDNN is better at, if they are large: a W + b, and D^T a.

    The first is that of a layer and of the gradient in its input, the second, whose left factor
    lies in memory by columns, of that in its weights: D is to be copied, or a and the product.
    """
    *bias, left, right = node.args
    a, value = left.meta["val"], node.meta["val"]
    (rows, inner), columns = a.shape, value.shape[1]
    work = rows * inner * columns
    if node.kwargs or value.dtype is not torch.float32 or work < worth.call:
        return
    if any(b.meta["val"].ndim != 1 for b in bias):
        return
    if a.stride(1) == 1:
        last = next(iter(node.users), node)
        if len(node.users) > 1 or last.target not in THEN:
            last = node
        then = THEN.get(last.target, "none")
        _replace(last, _linear(left, _transposed(right), *bias, then=then))
    elif not bias:
        copied, turned = rows * inner, columns * (rows + inner)
        if work < worth.copy * min(copied, turned):
            return
        if copied <= turned:
            product = _linear(_copy(left), _transposed(right))
        else:
            product = _copy(_transposed(_linear(_copy(_transposed(right)), left)))
        _replace(node, product)


def _linear(
    a: fx.Node, weight: fx.Node, bias: fx.Node | None = None, then: str = "none"
) -> fx.Node:
    _lower()
    return a.graph.call_function(torch.ops.pyro_vae.linear.default, (a, weight, bias, then))


def _transposed(matrix: Any) -> fx.Node:  # noqa: ANN401
    if matrix.target is aten.t.default:
        return matrix.args[0]
    return matrix.graph.call_function(aten.t.default, (matrix,))


def _copy(matrix: fx.Node) -> fx.Node:
    """Contiguous; here it is fused with what comes before, inside oneDNN it would be slow."""
    contiguous: dict[str, Any] = {"memory_format": torch.contiguous_format}
    return matrix.graph.call_function(aten.clone.default, (matrix,), contiguous)


@cache
def _onednn() -> Worth | None:
    """What oneDNN is worth where it is, and MKL takes AVX-512 on Intel's processors alone."""
    cpu = Path("/proc/cpuinfo")
    about = cpu.read_text() if cpu.exists() else ""
    family = re.search(r"AuthenticAMD\s+cpu family\s*: (\d+)", about)
    if (
        family is None
        or torch.backends.cpu.get_cpu_capability() != "AVX512"
        or not torch.backends.mkldnn.is_available()
    ):
        return None
    return WHOLE_WIDTH if int(family[1]) >= 26 else HALF_WIDTH  # Zen 5; Zen 4


@cache
def _lower() -> None:
    """Let compiled code call oneDNN itself: an operation of our own costs 30 us in Python."""
    from torch._inductor.ir import ExternKernel
    from torch._inductor.lowering import fallback_handler, register_lowering

    onednn = fallback_handler(torch.ops.mkldnn._linear_pointwise.default, add_to_fallback_set=False)

    @register_lowering(torch.ops.pyro_vae.linear.default, type_promotion_kind=None)
    def _(a: Any, weight: Any, bias: Any, then: str) -> Any:  # noqa: ANN401
        a = ExternKernel.require_contiguous(ExternKernel.realize_input(a))
        return onednn(a, weight, bias, then, *PLAIN)


@torch.library.impl(LIBRARY, "linear", "CPU")
def _(a: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, weight, bias, then, *PLAIN)


@torch.library.impl(LIBRARY, "linear", "Meta")
def _(a: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return a.new_empty(a.shape[0], weight.shape[0])
