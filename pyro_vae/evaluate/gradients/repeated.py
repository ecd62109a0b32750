"""Many draws of a gradient from the graph of one."""

import warnings
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, fx

from ...infer.engine.capture import Graph, drop_dead_code, placeholders

__all__ = ["factor", "repeat"]


def repeat(graph: Graph, n: int) -> Callable[[], list[Tensor]]:
    """The loss and the gradients of n draws, ``(n, ...)`` each, at the tensors of the graph.

    The draws are made all at once, and what does not depend on the noise only once; if there is
    noise that cannot be drawn for all at once, they are made one by one.
    """
    given = [*graph.inputs, *graph.live]
    module = _separate_noise(graph.module)
    many = torch.func.vmap(lambda zero: module(*given, zero), randomness="different")
    zeros = torch.zeros(n, device=given[0].device)

    def at_once(zeros: Tensor = zeros) -> list[Tensor]:
        with warnings.catch_warnings():  # an operation may go draw by draw after all
            warnings.filterwarnings("ignore", "There is a performance drop")
            return list(many(zeros))

    def one_by_one() -> list[Tensor]:
        draws = zip(*(graph.module(*given) for _ in range(n)), strict=True)
        return [torch.stack(draw) for draw in draws]

    try:
        with torch.random.fork_rng(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            at_once(zeros[:2])
    except RuntimeError:
        return one_by_one
    return at_once


def factor(graph: Graph) -> tuple[Graph, dict[Tensor, Tensor]]:
    r"""The gradients of weight matrices, where no noise touches the layer's input, as a factor.

    A linear layer with input a, ``(B, I)``, has the gradient :math:`\delta^\top a`, ``(O, I)``. Of
    the encoder's layers a is the same in all draws, and where B < I :math:`\delta`, ``(B, O)``, has
    fewer numbers and costs no product.

    Args:
        graph: of one draw.

    Returns:
        A graph that gives :math:`\delta` in place of those gradients, and a by parameter.
    """
    module = deepcopy(graph.module)
    output = next(iter(module.graph.find_nodes(op="output")))
    results, places = list(output.args[0]), dict(enumerate(graph.parameters.values(), 1))
    with module.graph.inserting_before(output):
        pairs = {i: _factors(module.graph, results[i]) for i in places}
    noisy = _noisy(module.graph)
    factors = {i: pair for i, pair in pairs.items() if pair and pair[1] not in noisy}
    output.args = ([a for _, a in factors.values()],)
    module.recompile()
    with torch.no_grad(), torch.random.fork_rng():
        given = dict(zip(factors, module(*graph.inputs, *graph.live), strict=True))
    inputs = {i: a for i, a in given.items() if a.shape[0] < a.shape[1]}
    output.args = ([factors[i][0] if i in inputs else node for i, node in enumerate(results)],)
    factored = Graph(drop_dead_code(module), graph.inputs, graph.live, graph.parameters)
    return factored, {places[i]: a for i, a in inputs.items()}


def _separate_noise(module: fx.GraphModule) -> fx.GraphModule:
    """A copy with one more input, a zero: by it a tensor that noise is written to has a batch.

    vmap refuses to write the noise of many draws to a tensor that all of them share.
    """
    module = deepcopy(module)
    graph = module.graph
    with graph.inserting_after(placeholders(graph)[-1]):
        zero = graph.placeholder("zero")
    for node in list(graph.nodes):
        if _draws(node) and node.target._schema.is_mutable:
            with graph.inserting_before(node):
                own = graph.call_function(torch.ops.aten.add.Tensor, (node.args[0], zero))
            node.args = (own, *node.args[1:])
    module.recompile()
    return module


def _noisy(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that random numbers reach."""
    noisy: set[fx.Node] = set()
    for node in graph.nodes:
        if _draws(node) or noisy.intersection(node.all_input_nodes):
            noisy.add(node)
    return noisy


def _draws(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _factors(graph: fx.Graph, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """delta and a, where a node is delta^T a; new nodes that transpose are added to the graph."""
    aten, flipped = torch.ops.aten, False
    while node.target in (aten.t.default, aten.alias.default, aten.detach.default):
        flipped ^= node.target is aten.t.default
        node = node.args[0]  # pyrefly: ignore[bad-assignment]
    if node.target is not aten.mm.default:
        return None
    left, right = node.args
    if flipped:
        return right, graph.call_function(aten.t.default, (left,))  # pyrefly: ignore[bad-return]
    return graph.call_function(aten.t.default, (left,)), right  # pyrefly: ignore[bad-return]
