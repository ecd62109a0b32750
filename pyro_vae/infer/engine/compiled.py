"""The ELBO and its gradient traced once into a graph, and the graph compiled."""

import warnings
from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from unittest.mock import patch

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .lowering import for_cpu, options_for_cpu

__all__ = [
    "CaptureError", "CompileMode", "CompiledELBO", "Graph", "capture", "compile_module", "factored",
    "repeated", "trace",
]  # fmt: skip


CompileMode: TypeAlias = Literal["reduce-overhead", "max-autotune"]


class CaptureError(RuntimeError):
    """The ELBO of this model and guide cannot be made a graph, or the graph cannot be compiled."""


class CompiledELBO(ELBO):
    r"""Any ELBO, its value and gradient traced once into one graph and compiled by Inductor.

    ``torch.compile`` over a Pyro program gains nothing: most of the time goes to Pyro's messages,
    which it does not see through. Here model, guide, bound *and* backward pass run once under a
    tracer that sees tensors alone; what it wrote down is the computation without Pyro, and that is
    compiled. Parameters, buffers and any other tensor that the program reads are inputs of the
    graph, so a step of an optimizer, an annealed weight kept in a tensor, or
    ``load_state_dict`` need no new trace. Random numbers are drawn as ever: with the same seed a
    step gives the eager one's numbers, up to rounding.

    The program must do the same whatever its tensors hold (*static structure*). A graph serves the
    shapes and types that it was made for; others, such as a ragged last batch, get their own.
    Python numbers, and whether a module is in training mode, are as they were when it was made.

    Args:
        elbo: any ``ELBO``; :meth:`loss` stays its own, uncompiled.
        mode: of ``torch.compile``: ``"reduce-overhead"`` uses CUDA graphs.
        announce: at every step look whether the parameters are those of the graph, and tell
            handlers, and so ``SVI``, of them. Where nobody puts others in their place, and the
            optimizer remembers them, as :class:`FusedOptim` does, the first step suffices.

    Raises:
        CaptureError: in a step, a program whose structure depends on its data, or no C++ compiler.

    References:
        Ansel et al. (2024), "PyTorch 2: faster machine learning through dynamic Python bytecode
        transformation and graph compilation", ASPLOS, for Inductor.

    >>> from pyro.infer import Trace_ELBO
    >>> CompiledELBO(Trace_ELBO(num_particles=3)).num_particles
    3
    """

    def __init__(
        self,
        elbo: ELBO,
        mode: CompileMode | None = None,
        *,
        announce: bool = True,
    ) -> None:
        super().__init__(elbo.num_particles, elbo.max_plate_nesting)
        self.elbo, self.mode, self.announce = elbo, mode, announce
        self._steps: dict[Hashable, _Step] = {}

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> object:
        return self.elbo._get_trace(model, guide, args, kwargs)

    def loss(self, model: Callable, guide: Callable, *args: object, **kwargs: object) -> float:
        """Minus an estimate of the bound, uncompiled."""
        return self.elbo.loss(model, guide, *args, **kwargs)  # pyright: ignore

    def loss_and_grads(
        self, model: Callable, guide: Callable, *args: object, **kwargs: object
    ) -> float:
        """Minus an estimate of the bound; adds its gradient to the parameters'."""
        plain = not kwargs and all(isinstance(a, Tensor) for a in args)
        leaves, tree = (args, None) if plain else pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        form = tuple(_form(a) if isinstance(a, Tensor) else a for a in leaves)
        key = (model, guide, tree, form)
        step = self._steps.get(key)
        new = step is None or (self.announce and not step.holds())
        if step is None or new:
            graph = capture(self.elbo, model, guide, *args, **kwargs)
            compiled = compile_module(graph.module, [*graph.inputs, *graph.live], self.mode)
            step = self._steps[key] = _Step(graph, compiled)
        for name in step.graph.parameters if new or self.announce else ():
            pyro.param(name)
        return step(tensors).item()


@dataclass
class Graph:
    """A bound and its gradient as a function of tensors alone.

    Attributes:
        module: ``(*inputs, *live) -> (loss, *gradients)``.
        inputs: the tensors among the arguments, as they were at the trace.
        live: the other tensors that the program reads, or writes: parameters, buffers, constants.
        parameters: those that have a gradient, by their name in Pyro's store, in that order.
    """

    module: fx.GraphModule
    inputs: list[Tensor]
    live: list[Tensor]
    parameters: dict[str, Tensor]


def capture(elbo: ELBO, model: Callable, guide: Callable, *args: object, **kwargs: object) -> Graph:
    """Trace ``elbo.loss_and_grads`` into a graph.

    Gradients, buffers and the state of the random numbers are left as they were.

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
    step: Any = elbo.loss_and_grads  # pyright: ignore[reportAttributeAccessIssue]
    with torch.random.fork_rng(), pyro.validation_enabled(False), _Undo() as undo:
        with poutine.trace(param_only=True) as seen:
            step(model, guide, *args, **kwargs)  # what happens once, such as counting plates
        sites: dict[str, Any] = dict(seen.trace.nodes)
        parameters = {name: site["value"].unconstrained() for name, site in sites.items()}
        named = {name: p for name, p in parameters.items() if p.grad is not None}
        before = {p: None if undo.made(p.grad) else p.grad for p in named.values()}

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            fed = iter(tensors)
            filled = [next(fed) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            some, others = pytree.tree_unflatten(filled, tree)
            for p in named.values():
                p.grad = None
            loss = step(model, guide, *some, **others)
            return (torch.as_tensor(loss), *(p.grad for p in named.values()))  # pyright: ignore

        try:
            with _Traceable(), patch("pyro.util.torch_isnan", lambda value: False):
                module, live = trace(run, *inputs)
        finally:
            for p, gradient in before.items():
                p.grad = gradient
    return Graph(module, inputs, live, named)


def trace(function: Callable, *inputs: Tensor) -> tuple[fx.GraphModule, list[Tensor]]:
    """A function of tensors as a graph ``(*inputs, *live)``, and the other tensors it touches.

    Raises:
        CaptureError: what it does depends on the values of tensors.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        module = make_fx(function)(*inputs)
    except Exception as problem:
        raise CaptureError(
            "the structure of the model, guide or estimator depends on the values of tensors "
            f"({type(problem).__name__}: {str(problem).splitlines()[0][:200]}): use "
            "compile=False, or the ELBO without CompiledELBO"
        ) from problem
    for view in module.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        view.target = torch.ops.aten.reshape.default  # Inductor may lay its input out otherwise
    _fold(module)
    return module, _lift(module)


def repeated(graph: Graph, n: int, *, batched: bool) -> Callable[[], list[Tensor]]:
    """The loss and the gradients of n draws, ``(n, ...)`` each, at the tensors of the graph.

    Args:
        graph: of one draw.
        n: how many.
        batched: all at once, what does not depend on the noise only once; else one by one.

    Raises:
        CaptureError: there is random noise that cannot be drawn for all at once.
    """
    given = [*graph.inputs, *graph.live]
    if not batched:

        def one_by_one() -> list[Tensor]:
            draws = zip(*(graph.module(*given) for _ in range(n)), strict=True)
            return [torch.stack(draw) for draw in draws]

        return one_by_one
    module = _with_own_noise(graph.module)
    many = torch.func.vmap(lambda zero: module(*given, zero), randomness="different")
    zeros = torch.zeros(n, device=given[0].device)

    def at_once() -> list[Tensor]:
        return list(many(zeros))

    try:
        with torch.random.fork_rng(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an operation goes draw by draw after all
            at_once()
    except RuntimeError as problem:
        raise CaptureError(f"draws cannot be batched: {problem}") from problem
    return at_once


def factored(graph: Graph) -> tuple[Graph, dict[Tensor, Tensor]]:
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
    output = next(node for node in module.graph.nodes if node.op == "output")
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
    module.graph.eliminate_dead_code()
    module.recompile()
    found = Graph(module, graph.inputs, graph.live, graph.parameters)
    return found, {places[i]: a for i, a in inputs.items()}


def compile_module(
    module: fx.GraphModule, examples: Sequence[Tensor], mode: str | None = None
) -> Callable[..., Sequence[Tensor]]:
    """A graph compiled by Inductor, with PyTorch's own random numbers.

    Raises:
        CaptureError: there is no compiler that could.
    """
    import torch._inductor.config as inductor
    from torch._inductor.compile_fx import compile_fx

    options: dict[str, Any] = torch._inductor.list_mode_options(mode) if mode else {}
    given: Any = list(examples)
    if all(tensor.device.type == "cpu" for tensor in examples):
        module, options = for_cpu(module), options | options_for_cpu()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of its own parts
            with inductor.patch(fallback_random=True, **options):
                compiled: Any = compile_fx(module, given)
    except Exception as problem:
        raise CaptureError(
            f"Inductor could not compile the step ({type(problem).__name__}: "
            f"{str(problem).splitlines()[0][:200]}): use compile=False, or, if it is the C++ "
            "compiler that is missing, install g++ or name yours in the environment variable CXX"
        ) from problem
    return compiled


class _Step:
    """A compiled graph, and whether it still is the one of the parameters in Pyro's store."""

    def __init__(self, graph: Graph, compiled: Callable[..., Sequence[Tensor]]) -> None:
        self.graph, self.compiled = graph, compiled
        self.form = [_form(tensor) for tensor in graph.live]

    def holds(self) -> bool:
        """Whether what it reads, and what Pyro's store holds, are of the form that it was."""
        store = dict(pyro.get_param_store().named_parameters())
        return (
            all(store.get(n) is p for n, p in self.graph.parameters.items())
            and [_form(tensor) for tensor in self.graph.live] == self.form
        )

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The loss; gradients are added to the parameters'."""
        with torch.no_grad():
            loss, *gradients = self.compiled(*inputs, *self.graph.live)
        for p, gradient in zip(self.graph.parameters.values(), gradients, strict=True):
            p.grad = gradient if p.grad is None else p.grad + gradient
        return loss


def _form(tensor: Tensor) -> Hashable:
    """What a graph is made for; strides too, which compiled code takes as given."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad


class _Traceable(TorchFunctionMode):
    """What looks at values without need: Pyro takes the loss out of its tensor, one-hot checks."""

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if func is Tensor.item:
            return args[0].detach()
        if func is torch.nn.functional.one_hot and len(args) == 2 and args[1] > 0:
            return (args[0][..., None] == torch.arange(args[1], device=args[0].device)).long()
        return func(*args, **(kwargs or {}))


class _Undo(TorchDispatchMode):
    """Gives back, at its end, the tensors that were written to and had been there before it."""

    def __init__(self) -> None:
        super().__init__()
        self.new: dict[int, Tensor] = {}  # by storage; held, so that no number is given twice
        self.written: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs, schema = kwargs or {}, func._schema  # pyright: ignore[reportFunctionMemberAccess]
        for argument, value in zip(schema.arguments, args, strict=False):
            if argument.is_write and isinstance(value, Tensor):
                place = _storage(value)
                if place not in self.new and place not in self.written:
                    self.written[place] = value, value.clone()
        given = {_storage(t) for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **kwargs)
        for made in pytree.tree_leaves(result):
            if isinstance(made, Tensor) and _storage(made) not in given:
                self.new.setdefault(_storage(made), made)
        return result

    def made(self, tensor: Tensor) -> bool:
        """Whether a tensor was not there before."""
        return _storage(tensor) in self.new

    def __exit__(self, *problem: object) -> None:
        super().__exit__(*problem)
        with torch.no_grad():
            for tensor, was in self.written.values():
                tensor.copy_(was)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _with_own_noise(module: fx.GraphModule) -> fx.GraphModule:
    """A copy with one more input, a zero: by it a tensor that noise is written to has a batch.

    vmap refuses to write the noise of many draws to a tensor that all of them share.
    """
    module = deepcopy(module)
    graph = module.graph
    with graph.inserting_after([node for node in graph.nodes if node.op == "placeholder"][-1]):
        zero = graph.placeholder("zero")
    for node in list(graph.nodes):
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags and node.target._schema.is_mutable:
            with graph.inserting_before(node):
                own = graph.call_function(torch.ops.aten.add.Tensor, (node.args[0], zero))
            node.args = (own, *node.args[1:])
    module.recompile()
    return module


def _noisy(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that random numbers reach."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        drawn = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if drawn or found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def _factors(graph: fx.Graph, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """delta and a, where a node is delta^T a; new nodes that transpose are added to the graph."""
    aten, flipped = torch.ops.aten, False
    while node.target in (aten.t.default, aten.alias.default, aten.detach.default):
        flipped ^= node.target is aten.t.default
        node = node.args[0]  # pyright: ignore[reportAssignmentType]
    if node.target is not aten.mm.default:
        return None
    left, right = node.args
    if flipped:
        return right, graph.call_function(aten.t.default, (left,))  # pyright: ignore
    return graph.call_function(aten.t.default, (left,)), right  # pyright: ignore


def _fold(module: fx.GraphModule) -> None:
    """Put constants for places that are read off a buffer, as a coupling flow does off its mask.

    Their number gives a graph its shapes, so it cannot wait for the buffer.

    Raises:
        CaptureError: they depend on anything else.
    """

    def value(node: fx.Node) -> Any:  # noqa: ANN401
        if node.op == "get_attr":
            return getattr(module, str(node.target))
        if node.op == "placeholder":
            raise CaptureError(
                "the structure of the model, guide or estimator depends on where a tensor of the "
                "data is not zero: use compile=False, or the ELBO without CompiledELBO"
            )
        target: Any = node.target
        return target(*fx.map_arg(node.args, value), **fx.map_arg(node.kwargs, value))

    for places in module.graph.find_nodes(
        op="call_function", target=torch.ops.aten.nonzero.default
    ):
        name = f"_{places.name}"
        module.register_buffer(name, value(places))
        with module.graph.inserting_before(places):
            places.replace_all_uses_with(module.graph.get_attr(name))
        module.graph.erase_node(places)


def _lift(module: fx.GraphModule) -> list[Tensor]:
    """Make the tensors that a graph holds its last inputs, and give them."""
    graph, live = module.graph, []
    held: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            held.setdefault(str(node.target), []).append(node)
    last = [node for node in graph.nodes if node.op == "placeholder"][-1:]
    for target, nodes in held.items():
        with graph.inserting_after(*last) if last else graph.inserting_before():
            lifted = graph.placeholder(f"live_{len(live)}")
        last = [lifted]
        live.append(getattr(module, target))
        lifted.meta["val"] = live[-1]
        for node in nodes:
            node.replace_all_uses_with(lifted)
            graph.erase_node(node)
        delattr(module, target)
    graph.eliminate_dead_code()
    module.recompile()
    return live
