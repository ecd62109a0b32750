"""Rewrites of a graph for CPUs, of what Inductor leaves undone."""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor, fx

from .capture import drop_dead_code
from .gammas import lower_gamma
from .products import LIBRARY, Choices, lower_product

__all__ = ["for_cpu", "options_for_cpu"]


aten: Any = torch.ops.aten
LIBRARY.define("keep(Tensor x) -> Tensor")
GAMMAS = {aten.lgamma.default, aten.digamma.default}
PRODUCTS = {aten.addmm.default, aten.mm.default}


def options_for_cpu() -> dict[str, Any]:
    """Inductor's, where it has them: tanh by exp, which costs a third, and fused multiply-adds.

    Images keep their layout: Inductor takes a step for inference, for which it would write each
    activation three times, as it is and twice with the channels last. Short sums, as over the
    components of a mixture, are loops of vectors: written out, their exponentials are scalars.
    """
    from torch._inductor.config import cpp

    wanted = {"use_decompose_tanh": True, "enable_floating_point_contract_flag": "fast"}
    options = {f"cpp.{name}": value for name, value in wanted.items() if hasattr(cpp, name)}
    return options | {"layout_optimization": False, "unroll_reductions_threshold": 1}


def for_cpu(module: fx.GraphModule, choices: Choices) -> fx.GraphModule:
    """The graph rewritten; its values are the same up to rounding.

    The Bernoulli's log-density and its gradient share one exponential, in one pass over the data,
    and its logarithm is a polynomial, as softplus's is; large matrix products, with the activation
    that comes next, go to oneDNN where it is measured to be faster than PyTorch's own way; the log
    gamma function and its derivative are series, and of a parameter that all observations share
    they are taken once, as columns of a table are that stand in another order.

    Args:
        module: as it was captured, of tensors on the CPU.
        choices: of ways of matrix products, by shape; new ones are added.
    """
    module = deepcopy(module)
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
            elif node.target in GAMMAS:
                lower_gamma(_before_expanding(node))
            elif node.target is aten.index_select.default:
                _gathered(node)
            elif node.target in PRODUCTS and not lower_product(node, choices):
                _unfuse(node)
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


def _before_expanding(node: Any) -> Any:  # noqa: ANN401
    """f(x), kept and then expanded, in place of f of x expanded: the same numbers, fewer times."""
    x = node.args[0]
    while x.target is aten.expand.default:
        x = x.args[0]
    shape = node.meta["val"].shape
    if x.meta["val"].numel() < shape.numel():
        _keep()
        call = node.graph.call_function
        once = call(node.target, (x,))
        kept = call(torch.ops.pyro_vae.keep.default, (once,))
        _replace(node, call(aten.expand.default, (kept, list(shape))))
        return once
    return node


def _unfuse(node: Any) -> None:  # noqa: ANN401
    """A product, and then what is added to it, in the pass of what comes next.

    PyTorch's own would first copy the bias, a row a time, to where the product goes. In half
    precision it stays with the product, whose sum is rounded once.
    """
    *bias, left, right = node.args
    added = bias or any(user.target is aten.add.Tensor for user in node.users)
    if node.kwargs or not added or node.meta["val"].dtype.itemsize < 4:
        return
    _keep()  # a product that is kept is not fused again
    call = node.graph.call_function
    product = call(aten.mm.default, (left, right))
    kept = call(torch.ops.pyro_vae.keep.default, (product,))
    _replace(node, call(aten.add.Tensor, (kept, *bias)) if bias else kept)


def _gathered(node: Any) -> None:  # noqa: ANN401
    """Columns taken once; Inductor would take them, cell by cell, in each of their uses."""
    _keep()
    call = node.graph.call_function
    taken = call(node.target, node.args, node.kwargs)
    _replace(node, call(torch.ops.pyro_vae.keep.default, (taken,)))


@cache
def _keep() -> None:
    """Let Inductor write the value to memory; it would compute it anew in each of its uses."""
    from torch._inductor.lowering import register_lowering

    @register_lowering(torch.ops.pyro_vae.keep.default, type_promotion_kind=None)
    def _(x: Any) -> Any:  # noqa: ANN401
        x.realize()
        return x


@torch.library.impl(LIBRARY, "keep", "CompositeExplicitAutograd")
def _(x: Tensor) -> Tensor:
    return x.clone()


@cache
def _log1p_over_e() -> list[float]:
    """Coefficients of log(1 + e) / e on [0, 1], to 5e-9: a tenth of float32's rounding."""
    fitted = Chebyshev.interpolate(lambda e: np.log1p(e) / e, 9, domain=[0, 1])
    return fitted.convert(kind=Polynomial, domain=[-1, 1]).coef.tolist()  # pyrefly: ignore[bad-return]
