"""What a captured graph goes through before it is used or compiled."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

__all__ = ["PASSES", "drop_dead_code", "placeholders"]

Pass = Callable[[fx.GraphModule], fx.GraphModule]


def reshape_views(module: fx.GraphModule) -> fx.GraphModule:
    """Let each view be a reshape: Inductor may lay out its input in another way."""
    for view in module.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        view.target = torch.ops.aten.reshape.default
    return module


def fold_indices(module: fx.GraphModule) -> fx.GraphModule:
    """Make constants of indices that are read off a buffer, as a coupling flow does off its mask.

    Their number gives a graph its shapes, so it cannot wait for the buffer.

    Raises:
        ValueError: they depend on anything else.
    """

    def evaluate(node: fx.Node) -> Any:  # noqa: ANN401
        if node.op == "get_attr":
            return getattr(module, str(node.target))
        if node.op == "placeholder":
            raise ValueError("where a tensor of the data is not zero decides the shapes")
        target: Any = node.target
        return target(*fx.map_arg(node.args, evaluate), **fx.map_arg(node.kwargs, evaluate))

    nonzero = torch.ops.aten.nonzero.default
    for indices in module.graph.find_nodes(op="call_function", target=nonzero):
        name = f"_{indices.name}"
        module.register_buffer(name, evaluate(indices))
        with module.graph.inserting_before(indices):
            indices.replace_all_uses_with(module.graph.get_attr(name))
        module.graph.erase_node(indices)
    return module


def lift_tensors(module: fx.GraphModule) -> fx.GraphModule:
    """Make the tensors that a graph holds its last inputs, each with its ``meta["val"]``."""
    graph = module.graph
    readers: dict[str, list[fx.Node]] = {}
    for node in graph.find_nodes(op="get_attr"):
        readers.setdefault(str(node.target), []).append(node)
    last = placeholders(graph)[-1:]
    for i, (name, nodes) in enumerate(readers.items()):
        with graph.inserting_after(*last) if last else graph.inserting_before():
            lifted = graph.placeholder(f"live_{i}")
        last = [lifted]
        lifted.meta["val"] = getattr(module, name)
        for node in nodes:
            node.replace_all_uses_with(lifted)
            graph.erase_node(node)
        delattr(module, name)
    return module


def drop_dead_code(module: fx.GraphModule) -> fx.GraphModule:
    """Leave out what no result needs, and write the module's code anew."""
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def placeholders(graph: fx.Graph) -> list[fx.Node]:
    """The inputs of a graph, in their order."""
    return graph.find_nodes(op="placeholder")


PASSES: tuple[Pass, ...] = (reshape_views, fold_indices, lift_tensors, drop_dead_code)
