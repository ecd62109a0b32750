"""A Pyro program run once under a tracer that sees tensors alone: its computation as a graph."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from torch.utils._python_dispatch import TorchDispatchMode

from .passes import PASSES, placeholders

__all__ = ["CaptureError", "Graph", "capture", "capture_function"]

aten: Any = torch.ops.aten


class CaptureError(RuntimeError):
    """The ELBO of this model and guide cannot be made a graph, or the graph cannot be compiled."""

    @classmethod
    def because(cls, problem: Exception, what: str, advice: str) -> "CaptureError":
        """What failed, the first line of the cause, and what to do."""
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
    with torch.random.fork_rng(), _Undo() as undo:
        with poutine.trace(param_only=True) as seen:
            step(model, guide, *args, **kwargs)  # what happens once, such as counting plates
        sites: dict[str, Any] = dict(seen.trace.nodes)
        parameters = {name: site["value"].unconstrained() for name, site in sites.items()}
        named = {name: p for name, p in parameters.items() if p.grad is not None}
        before = {p: None if undo.is_new(p.grad) else p.grad for p in named.values()}

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            given = iter(tensors)
            filled = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            some, others = pytree.tree_unflatten(filled, tree)
            for p in named.values():
                p.grad = None
            with _Constants():
                loss = step(model, guide, *some, **others)
            return (torch.as_tensor(loss), *(p.grad for p in named.values()))

        try:
            with _without_looking():
                module, live = capture_function(run, *inputs)
        finally:
            for p, gradient in before.items():
                p.grad = gradient
    return Graph(module, inputs, live, named)


def capture_function(function: Callable, *inputs: Tensor) -> tuple[fx.GraphModule, list[Tensor]]:
    """A function of tensors as a graph ``(*inputs, *live)``, and the other tensors it touches.

    Raises:
        CaptureError: what it does depends on the values of tensors.
    """
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx._lazy_graph_module import _use_lazy_graph_module
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        # Each node notes its shape by a fake tensor; a mode for each took half of the time. The
        # module's code is written where it is first called, and not after each of the passes.
        mode = FakeTensorMode(allow_fallback_kernels=True)
        with tracing(TracingContext(mode)), _use_lazy_graph_module(True), _noted_quickly(mode):
            module = make_fx(function)(*inputs)
        for apply in PASSES:
            module = apply(module)
    except Exception as problem:
        raise CaptureError.because(
            problem,
            "the structure of the model, guide or estimator depends on the values of tensors",
            "use compile=False, or the ELBO without CompiledELBO",
        ) from problem
    live = [node.meta["val"] for node in placeholders(module.graph)[len(inputs) :]]
    return module, live


@contextmanager
def _noted_quickly(mode: Any) -> Generator[None]:  # noqa: ANN401
    """Within it a fake tensor is made as PyTorch makes it, but in one step: a quarter of a capture.

    PyTorch calls ``torch.empty_strided`` under the mode, which looks for what it does in a cache.
    """
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.fx.experimental import proxy_tensor

    extract = proxy_tensor.extract_val

    def note(value: Any, include_real: bool = False) -> object:  # noqa: ANN401
        if include_real or type(value) is not Tensor or value.layout is not torch.strided:
            return extract(value, include_real)
        like = {"dtype": value.dtype, "device": "meta"}
        return FakeTensor(
            mode, torch.empty_strided(value.shape, value.stride(), **like), value.device
        )

    with patch.object(proxy_tensor, "extract_val", note):
        yield


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
        _Replaced({Tensor.item: _item, torch.nn.functional.one_hot: _one_hot}),
        pyro.validation_enabled(False),
        patch("pyro.util.torch_isnan", lambda value: False),
        patch("pyro.infer.traceenum_elbo._get_common_scale", lambda scales: scales[0]),
        patch.object(Dice, "compute_expectation", compute_expectation),
    ):
        yield


def _item(x: Tensor) -> Tensor | float:
    """A loss stays in its tensor; whole numbers come out if they are constants."""
    return x.detach() if x.is_floating_point() else x.item()


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


class _Constants(TorchDispatchMode):
    """Lets a program read numbers that no input and no noise reaches, as a sequential plate's."""

    def __init__(self) -> None:
        super().__init__()
        self.constants: dict[int, Tensor] = {}  # by storage; held, so that no number is given twice

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

        kwargs = kwargs or {}
        fresh = func is aten.lift_fresh.default  # torch.tensor of numbers
        given = [_storage(tensor) for tensor in _tensors((*args, *kwargs.values()))]
        constant = fresh or all(storage in self.constants for storage in given)
        if func is aten._local_scalar_dense.default and constant:
            with disable_proxy_modes_tracing():
                return func(*args)
        result = func(*args, **kwargs)
        noisy = torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())
        for tensor in _tensors((result,)):
            if constant and not noisy:
                self.constants[_storage(tensor)] = tensor
            else:
                self.constants.pop(_storage(tensor), None)
        return result


class _Undo(TorchDispatchMode):
    """Gives back, at its end, the tensors that were written to and had been there before it."""

    def __init__(self) -> None:
        super().__init__()
        self.new: dict[int, Tensor] = {}  # by storage; held, so that no number is given twice
        self.written: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs, schema = kwargs or {}, func._schema  # pyrefly: ignore[missing-attribute]
        for argument, value in zip(schema.arguments, args, strict=False):
            if argument.is_write and isinstance(value, Tensor):
                place = _storage(value)
                if place not in self.new and place not in self.written:
                    self.written[place] = value, value.clone()
        given = {_storage(tensor) for tensor in _tensors((*args, *kwargs.values()))}
        result = func(*args, **kwargs)
        for tensor in _tensors((result,)):
            if _storage(tensor) not in given:
                self.new.setdefault(_storage(tensor), tensor)
        return result

    def is_new(self, tensor: Tensor) -> bool:
        """Whether a tensor was not there before."""
        return _storage(tensor) in self.new

    def __exit__(self, *problem: object) -> None:  # pyrefly: ignore[bad-override]
        super().__exit__(*problem)
        with torch.no_grad():
            for tensor, was in self.written.values():
                tensor.copy_(was)


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
