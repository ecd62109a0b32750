"""Which library multiplies matrices faster here: measured, once for each shape."""

import json
import os
import platform
import time
from collections.abc import Callable
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from ...core.files import write_whole

__all__ = ["LIBRARY", "Choices", "choose", "lower_product"]

Choices = dict[str, str]

SWITCH = "PYRO_VAE_MEASURE"  # "0" leaves each product to PyTorch
LEAST = 1e6  # multiplications; fewer are not worth a measurement
SECONDS, MARGIN = 0.05, 0.95  # for a shape; what another way must save
LIBRARY = torch.library.Library("pyro_vae", "DEF")
LIBRARY.define("linear(Tensor a, Tensor weight, Tensor? bias, str then) -> Tensor")
aten: Any = torch.ops.aten
PLAIN: tuple[list, str] = ([], "")  # of oneDNN's activation: no numbers, its usual algorithm
THEN = {aten.tanh.default: "tanh", aten.relu.default: "relu", aten.sigmoid.default: "sigmoid"}

_linear: Any = torch.ops.pyro_vae.linear.default


def _turned(left: Any, right: Any, copy: Callable, turn: Callable, linear: Callable) -> Any:  # noqa: ANN401
    return copy(turn(linear(copy(turn(right)), left)))


WAYS: dict[str, Callable[..., Any]] = {  # beside PyTorch's own, of which it is "torch"
    "oneDNN": lambda left, right, copy, turn, linear: linear(copy(left), turn(right)),
    "oneDNN, turned": _turned,
}


def lower_product(node: Any, choices: Choices) -> bool:  # noqa: ANN401
    """Give a product to oneDNN, with its bias and the activation next to it, if that is faster.

    Args:
        node: ``mm`` or ``addmm`` in a graph for CPUs.
        choices: those made before, by shape; a new one is added.

    Returns:
        Whether oneDNN has it.
    """
    *bias, left, right = node.args
    values = left.meta["val"], right.meta["val"]
    if node.kwargs or values[0].dtype is not torch.float32:
        return False
    if any(b.meta["val"].ndim != 1 for b in bias):
        return False
    way = choose(*values, choices)
    straight = values[0].stride(1) == 1
    if way == "torch" or (bias and not straight):
        return False
    _lower()
    call = node.graph.call_function

    def turn(matrix: Any) -> fx.Node:  # noqa: ANN401
        if matrix.target is aten.t.default:
            return matrix.args[0]
        return call(aten.t.default, (matrix,))

    def copy(matrix: fx.Node) -> fx.Node:  # fused with what comes before, as oneDNN's own is not
        return call(aten.clone.default, (matrix,), {"memory_format": torch.contiguous_format})

    def linear(a: fx.Node, weight: fx.Node) -> fx.Node:
        return call(_linear, (a, weight, *(bias or [None]), then))

    last, then = node, "none"
    if straight:
        following = next(iter(node.users), node)
        if len(node.users) == 1 and following.target in THEN:
            last, then = following, THEN[following.target]
    product = WAYS[way](left, right, (lambda x: x) if straight else copy, turn, linear)
    last.replace_all_uses_with(product, propagate_meta=True)
    return True


def choose(left: Tensor, right: Tensor, choices: Choices) -> str:
    """The way of a product, by earlier choices: the given ones, this machine's, a measurement.

    On one machine a shape has one way, so runs that follow one another have the same bits. The
    environment variable ``PYRO_VAE_MEASURE=0`` leaves each product to PyTorch.

    Args:
        left: ``(M, K)``; of both only shape and strides matter.
        right: ``(K, N)``.
        choices: by shape; a new one is added.

    Returns:
        ``"torch"``, or a name of ``WAYS``.
    """
    rows, inner, columns = *left.shape, right.shape[1]
    if rows * inner * columns < LEAST or not torch.backends.mkldnn.is_available():
        return "torch"
    layout = "".join("T" if matrix.stride(1) != 1 else "N" for matrix in (left, right))
    shape = f"{rows} x {inner} x {columns} {layout}"
    if shape not in choices:
        if os.environ.get(SWITCH) == "0":
            return "torch"
        known = _read().get(_machine(), {}).get(shape, "")
        whole = known in ("torch", *WAYS)
        choices[shape] = known if whole else _keep(shape, _measure(left, right))
    return choices[shape]


def _measure(left: Tensor, right: Tensor) -> str:
    """The fastest way in short turns, by the least time of each."""
    with torch.random.fork_rng(), torch.no_grad():
        a, b = (torch.empty_strided(m.shape, m.stride()).normal_() for m in (left, right))

        def copy(matrix: Tensor) -> Tensor:
            return matrix.contiguous()

        def linear(a: Tensor, weight: Tensor) -> Tensor:
            return _linear(a, weight, None, "none")

        runs: dict[str, Callable[[], Tensor]] = {"torch": lambda: a @ b}
        for name, way in list(WAYS.items())[: 2 if a.stride(1) != 1 else 1]:
            runs[name] = lambda way=way: way(a, b, copy, torch.t, linear)
        least, end, rounds = dict.fromkeys(runs, inf), time.perf_counter() + SECONDS, 0
        while rounds < 4 or time.perf_counter() < end:
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                least[name] = min(least[name], time.perf_counter() - start)
            rounds += 1
    least["torch"] *= MARGIN
    return min(least, key=lambda name: least[name])


def _path() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "pyro_vae", "products.json")


def _machine() -> str:
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return f"{platform.node()}, {capability}, torch {torch.__version__}, {threads} threads"


def _read() -> dict[str, Choices]:
    try:
        found = json.loads(_path().read_text())
        return {machine: dict(known) for machine, known in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # none, or damaged
        return {}


def _keep(shape: str, way: str) -> str:
    """Keep a choice for later runs."""
    kept = _read()
    kept.setdefault(_machine(), {})[shape] = way
    try:
        _path().parent.mkdir(parents=True, exist_ok=True)
        write_whole(_path(), json.dumps(kept, indent=1))
    except OSError:  # a home that is not to be written to: the run itself keeps its choices
        pass
    return way


@cache
def _lower() -> None:
    """Let compiled code call oneDNN itself: an operation of our own costs 30 us in Python."""
    from torch._inductor.ir import ExternKernel
    from torch._inductor.lowering import fallback_handler, register_lowering

    onednn = fallback_handler(torch.ops.mkldnn._linear_pointwise.default, add_to_fallback_set=False)

    @register_lowering(_linear, type_promotion_kind=None)
    def _(a: Any, weight: Any, bias: Any, then: str) -> Any:  # noqa: ANN401
        a = ExternKernel.require_contiguous(ExternKernel.realize_input(a))
        return onednn(a, weight, bias, then, *PLAIN)


@torch.library.impl(LIBRARY, "linear", "CPU")
def _(a: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, weight, bias, then, *PLAIN)


@torch.library.impl(LIBRARY, "linear", "Meta")
def _(a: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return a.new_empty(a.shape[0], weight.shape[0])
