"""A Pyro program run once under a tracer that sees tensors alone: its computation as a graph."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import getitem
from typing import Any
from unittest.mock import patch

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from pyro.infer.util import Dice
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._mode_utils import no_dispatch
from torch.utils.weak import WeakTensorKeyDictionary

from .undo import Watching, generators, left_alone, storage_of, tensors

__all__ = [
    "CaptureError",
    "Graph",
    "capture",
    "capture_function",
    "drop_dead_code",
    "placeholders",
]

aten: Any = torch.ops.aten
DATA, PROGRAM, CONSTANT = range(3)  # what decides the value of a tensor: data or noise, and so on
RECORDED = {  # Inductor may lay out the input of a view in another way; constants stay as they were
    aten.view.default: aten.reshape.default,
    aten.lift_fresh.default: aten.lift_fresh_copy.default,
}
VIEWS = [  # that are left out where they change nothing
    getattr(aten, name).default for name in ("alias", "detach", "expand", "permute", "view")
]


class CaptureError(RuntimeError):
    """The ELBO of this model and guide cannot be made a graph, or the graph cannot be compiled."""

    @classmethod
    def because(cls, problem: BaseException, what: str, advice: str) -> "CaptureError":
        """What failed, the first line of the first cause, and what to do."""
        while problem.__cause__ is not None:  # Pyro says first at which site it was
            problem = problem.__cause__
        line, *_ = str(problem).split("\n", 1)
        return cls(f"{what} ({type(problem).__name__}: {line[:200]}): {advice}")


@dataclass
class Graph:
    """A bound and its gradient as a function of tensors alone.

    Attributes:
        module: ``(*inputs, *live) -> (loss, *gradients)``.
        inputs: the tensors among the arguments, as they were at the capture.
        live: the other tensors that the program reads, or writes: parameters, buffers, constants.
        parameters: those that have a gradient, by their name in Pyro's store, in that order.
    """

    module: fx.GraphModule
    inputs: list[Tensor]
    live: list[Tensor]
    parameters: dict[str, Tensor]


def capture(elbo: ELBO, model: Callable, guide: Callable, *args: object, **kwargs: object) -> Graph:
    """Make a graph of ``elbo.loss_and_grads``.

    The program runs twice: once as it is, under Pyro's validation if that is enabled, and once
    under the tracer. Gradients, buffers and the state of the random numbers are left as they were.

    Args:
        elbo: any ``ELBO``.
        model: a Pyro model of static structure.
        guide: its guide.
        args: of both.
        kwargs: of both.

    Raises:
        CaptureError: the structure depends on the data.
    """
    leaves, tree = pytree.tree_flatten((args, kwargs))
    inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    step = elbo.loss_and_grads  # pyrefly: ignore[missing-attribute]
    with left_alone() as drawn:
        with poutine.trace(param_only=True) as seen:
            step(model, guide, *args, **kwargs)  # what happens once, such as counting plates
        if drawn():
            raise CaptureError(
                "the program draws random numbers of NumPy's or Python's, which a graph would not "
                "draw anew: draw them by PyTorch, or use compile=False"
            )
        sites: dict[str, Any] = dict(seen.trace.nodes)
        parameters = {name: site["value"].unconstrained() for name, site in sites.items()}
        named = {name: p for name, p in parameters.items() if p.grad is not None}

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            given = iter(tensors)
            filled = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            some, others = pytree.tree_unflatten(filled, tree)
            for p in named.values():
                p.grad = None
            loss = step(model, guide, *some, **others)
            return (torch.as_tensor(loss), *(p.grad for p in named.values()))

        with _without_looking():
            module, live = capture_function(run, *inputs)
    return Graph(module, inputs, live, named)


def capture_function(function: Callable, *inputs: Tensor) -> tuple[fx.GraphModule, list[Tensor]]:
    """A function of tensors as a graph ``(*inputs, *live)``, and the other tensors it touches.

    Raises:
        CaptureError: what it does depends on the values of tensors.
    """
    # each an object of its own, though one tensor is given twice or is the program's too
    given = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
    try:
        with _Recorder(given) as recorder:
            results = function(*given)
        return recorder.finish(results)
    except CaptureError:
        raise
    except Exception as problem:
        raise CaptureError.because(
            problem,
            "the structure of the model, guide or estimator depends on the values of tensors",
            "use compile=False, or the ELBO without CompiledELBO",
        ) from problem


@contextmanager
def _without_looking() -> Generator[None]:
    """Within it Pyro reads no value for a check that the first run made, a report or a shortcut."""
    compute = Dice.compute_expectation
    zeros = {  # in place of outcomes of probability zero, which Pyro leaves out of its sum
        Tensor.all: lambda mask: False,
        Tensor.masked_select: lambda x, mask: torch.where(mask, x, 0.0),
    }

    def compute_expectation(dice: Dice, costs: object) -> object:
        with _Replaced(zeros):
            return compute(dice, costs)

    with (
        _Replaced({**READS, Tensor.item: _item, torch.nn.functional.one_hot: _one_hot}),
        pyro.validation_enabled(False),
        patch("pyro.util.torch_isnan", lambda value: False),
        patch("pyro.infer.traceenum_elbo._get_common_scale", lambda scales: scales[0]),
        patch.object(Dice, "compute_expectation", compute_expectation),
    ):
        yield


def _item(x: Tensor) -> Tensor | float:
    """A loss stays in a tensor, of a Python number's precision; whole constants come out."""
    return x.detach().double() if x.is_floating_point() else x.item()


def _read(how: Callable) -> Callable:
    """A way to read all numbers of a tensor that the recorder does not see, with one that it does.

    It refuses them as it does a single number.
    """

    def read(x: Tensor, *args: object, **kwargs: object) -> object:
        x.detach().sum().item()
        return how(x, *args, **kwargs)

    return read


READS = {how: _read(how) for how in (Tensor.tolist, Tensor.numpy, Tensor.__array__)}


def _one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """PyTorch's own, without its look at the largest class."""
    if num_classes <= 0:
        return torch.nn.functional.one_hot(x, num_classes)
    return (x[..., None] == torch.arange(num_classes, device=x.device)).long()


class _Replaced(TorchFunctionMode):
    """Within it other functions are called in place of some of PyTorch's."""

    def __init__(self, others: dict[Callable, Callable]) -> None:
        super().__init__()
        self.others = others

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        return self.others.get(func, func)(*args, **(kwargs or {}))


def drop_dead_code(module: fx.GraphModule) -> fx.GraphModule:
    """Leave out what no result needs, and write the module's code anew."""
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def placeholders(graph: fx.Graph) -> list[fx.Node]:
    """The inputs of a graph, in their order."""
    return graph.find_nodes(op="placeholder")


class _Recorder(Watching):
    """Writes each operation on tensors down as a node of a graph, in their order.

    Tensors that it did not see being made, as parameters, buffers and numbers, become inputs of
    the graph, after the given ones. The ``meta["val"]`` of a node holds shape, strides and type.
    What follows from constants alone, as the indices of a sequential plate do, may be read as a
    number; what follows from tensors of the program may decide shapes, as a coupling flow's mask.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph, self.inputs = fx.Graph(), list[Tensor]()  # the live ones too
        self.nodes: Any = WeakTensorKeyDictionary()
        self.origins: dict[int, int] = {}  # by storage; a number that is free again gets its own
        for x in inputs:
            self._place(x, DATA)
        self.count = len(self.inputs)

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> object:
        kwargs = kwargs or {}
        given = list(tensors((*args, *kwargs.values())))
        if generators((*args, *kwargs.values())):
            raise CaptureError(
                "the program draws by a torch.Generator of its own, which no graph holds: draw "
                "without one, or use compile=False"
            )
        names = fx.node.map_aggregate((args, kwargs), self._name)
        origin = CONSTANT if func is aten.lift_fresh.default else self._origin(given)
        if torch.Tag.data_dependent_output in func.tags:
            if origin != CONSTANT:
                raise ValueError(f"the value of a tensor is read, by {func}")
            return func(*args, **kwargs)
        if torch.Tag.dynamic_output_shape in func.tags:
            masks = _masks(args[1]) if func is aten.index.Tensor else given
            if self._origin(masks) == DATA:
                raise ValueError("where a tensor of the data is not zero decides the shapes")
            if masks and origin != DATA:
                return func(*args, **kwargs)  # a tensor of the program's from now on
        result = func(*args, **kwargs)
        if func in VIEWS and (result.shape, result.stride()) == (args[0].shape, args[0].stride()):
            self.nodes[result] = self.nodes[args[0]]
            return result
        if torch.Tag.nondeterministic_seeded in func.tags:
            origin = DATA
        target = RECORDED.get(func, func)
        name = target.overloadpacket.__name__
        node = self.graph.create_node("call_function", target, *names, name)
        self._note(node, result, origin)
        return result

    def finish(self, results: Any) -> tuple[fx.GraphModule, list[Tensor]]:  # noqa: ANN401
        """The graph of these results, and what it needs beside its inputs."""
        self.graph.output(fx.node.map_aggregate(results, self._name))
        self.graph.eliminate_dead_code()
        live, beside = [], placeholders(self.graph)[self.count :]
        for node, tensor in zip(beside, self.inputs[self.count :], strict=True):
            if node.users:
                live.append(tensor)
            else:
                self.graph.erase_node(node)
        return fx.GraphModule({}, self.graph), live

    def _origin(self, tensors: Sequence[Tensor]) -> int:
        """The least certain of theirs."""
        return min((self.origins[storage_of(tensor)] for tensor in tensors), default=CONSTANT)

    def _name(self, value: Any) -> Any:  # noqa: ANN401
        """The node of a tensor; anything else as it is."""
        if not isinstance(value, Tensor):
            return value
        if value not in self.nodes:
            self._place(value, PROGRAM)
        return self.nodes[value]

    def _place(self, tensor: Tensor, origin: int) -> None:
        """Make it the last input."""
        last = placeholders(self.graph)[-1:]
        with self.graph.inserting_after(*last) if last else self.graph.inserting_before():
            self.nodes[tensor] = self.graph.placeholder(f"input_{len(self.inputs)}")
        self.nodes[tensor].meta["val"] = tensor
        self.inputs.append(tensor)
        self.origins[storage_of(tensor)] = origin

    def _note(self, node: fx.Node, result: object, origin: int) -> None:
        """Remember whose value a node is."""
        if isinstance(result, list | tuple):
            for i, part in enumerate(result):
                self._note(self.graph.call_function(getitem, (node, i)), part, origin)
        elif isinstance(result, Tensor):
            self.nodes[result] = node
            with no_dispatch():
                node.meta["val"] = torch.empty_strided(
                    result.shape, result.stride(), dtype=result.dtype, device="meta"
                )
            self.origins[storage_of(result)] = origin


def _masks(indices: Iterable[Tensor | None]) -> list[Tensor]:
    """Those of the indices whose values decide how many rows are taken."""
    return [i for i in indices if i is not None and i.dtype in (torch.bool, torch.uint8)]
