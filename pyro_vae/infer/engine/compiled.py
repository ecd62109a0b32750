"""An ELBO whose value and gradient are captured as a graph, which Inductor may compile."""

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, TypeAlias

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, fx
from torch.nn.utils import get_total_norm
from torch.utils import _pytree as pytree

from .capture import CaptureError, Graph, capture
from .lowering import for_cpu, options_for_cpu
from .products import Choices
from .undo import left_alone

__all__ = ["CompileMode", "CompiledELBO", "compile_module"]

CompileMode: TypeAlias = Literal["capture", "reduce-overhead", "max-autotune"]

OFTEN = 1024  # steps between looks at the program, which cost up to twenty steps


class CompiledELBO(ELBO):
    r"""Any ELBO, its value and gradient captured once as one graph and compiled by Inductor.

    ``torch.compile`` over a Pyro program gains nothing: most of the time goes to Pyro's messages,
    which it does not see through. Here model, guide, bound *and* backward pass run once under a
    tracer that sees tensors alone; what it wrote down is the computation without Pyro, and that is
    compiled. Parameters, buffers and any other tensor that the program reads are inputs of the
    graph, so a step of an optimizer, an annealed weight kept in a tensor, or
    ``load_state_dict`` need no new graph. Random numbers are drawn as ever: with the same seed a
    step gives the eager one's numbers, up to rounding.

    The program must do the same whatever its tensors hold (*static structure*); sites may be
    enumerated and plates sequential. A graph serves the shapes and types that it was captured for;
    others, such as a ragged last batch, get their own. Python numbers, and whether a module is in
    training mode, are as they were at the capture: its steps 1, 2, 4, ..., and each 1,024th, are
    held against the program, so that one that has changed is found. The first step of each graph
    also runs the program as it is, so Pyro's validation checks it, where that is enabled. On a CPU
    the log gamma function and its derivative are series in single precision, NaN below 0.

    Args:
        elbo: any ``ELBO``; :meth:`loss` and :meth:`differentiable_loss` stay its own, uncompiled.
        mode: of ``torch.compile``: ``"reduce-overhead"`` uses CUDA graphs. ``"capture"`` compiles
            nothing: it runs the operations of the graph, to the eager bits but without Pyro's
            messages, and is ready in a fraction of a second.
        announce: at every step look whether the parameters are those of the graph, and tell
            handlers, and so ``SVI``, of them. Where nobody puts others in their place, and the
            optimizer remembers them, as :class:`FusedOptim` does, the first step suffices.
        choices: of ways of matrix products on a CPU, by shape, which a run keeps so that it is
            resumed with the same bits; new ones, by measurement, are added.

    Raises:
        CaptureError: in a step, a program whose structure depends on its data, or which changes by
            what is no tensor, or no C++ compiler.

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
        choices: Choices | None = None,
    ) -> None:
        super().__init__(elbo.num_particles, elbo.max_plate_nesting)
        self.elbo: Any = elbo
        self.mode, self.announce = mode, announce
        self.choices: Choices = {} if choices is None else choices
        self._steps: dict[Hashable, _Step] = {}

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> object:
        return self.elbo._get_trace(model, guide, args, kwargs)

    def loss(self, model: Callable, guide: Callable, *args: object, **kwargs: object) -> float:
        """Minus an estimate of the bound, uncompiled."""
        return self.elbo.loss(model, guide, *args, **kwargs)

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: object, **kwargs: object
    ) -> Tensor:
        """Minus an estimate of the bound as a tensor with a gradient, uncompiled."""
        return self.elbo.differentiable_loss(model, guide, *args, **kwargs)

    def loss_and_grads(
        self, model: Callable, guide: Callable, *args: object, **kwargs: object
    ) -> float:
        """Minus an estimate of the bound; adds its gradient to the parameters'."""
        plain = not kwargs and all(isinstance(a, Tensor) for a in args)
        leaves, tree = (args, None) if plain else pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        layout = tuple(_layout(a) if isinstance(a, Tensor) else a for a in leaves)
        key = (model, guide, tree, layout)
        step = self._steps.get(key)
        new = step is None or not step.is_current(self.announce)
        if step is None or new:
            graph = capture(self.elbo, model, guide, *args, **kwargs)
            step = self._steps[key] = _Step(graph, self._made(graph), self.mode == "capture")
        for name in step.graph.parameters if new or self.announce else ():
            pyro.param(name)
        return step(tensors, self._eager(model, guide, args, kwargs))

    def _eager(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> Callable[[], tuple[float, dict[Tensor, Tensor]]]:
        """The program's own loss and gradient, by the noise to come; all is left as it is."""

        def evaluate() -> tuple[float, dict[Tensor, Tensor]]:
            with left_alone():
                for _, p in pyro.get_param_store().named_parameters():
                    p.grad = None
                loss = self.elbo.loss_and_grads(model, guide, *args, **kwargs)
                named = pyro.get_param_store().named_parameters()
                return loss, {p: p.grad for _, p in named if p.grad is not None}

        return evaluate

    def _made(self, graph: Graph) -> Callable[..., Sequence[Tensor]]:
        """A graph as a function: its operations one by one, or compiled."""
        if self.mode == "capture":
            return graph.module.forward
        return compile_module(graph.module, [*graph.inputs, *graph.live], self.mode, self.choices)


def compile_module(
    module: fx.GraphModule,
    examples: Sequence[Tensor],
    mode: str | None = None,
    choices: Choices | None = None,
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
        choices = {} if choices is None else choices
        module, options = for_cpu(module, choices), options | options_for_cpu()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of its own parts
            with inductor.patch(fallback_random=True, **options):
                compiled: Any = compile_fx(module, given)
    except Exception as problem:
        raise CaptureError.because(
            problem,
            "Inductor could not compile the step",
            "use compile=False, or, if it is the C++ compiler that is missing, install g++ or name "
            "yours in the environment variable CXX",
        ) from problem
    return compiled


class _Step:
    """A compiled graph, and the layout of the tensors that it was captured with.

    Its calls of number 1, 2, 4, ..., and each 1,024th, are held against the program, which may have
    changed.
    """

    def __init__(
        self, graph: Graph, compiled: Callable[..., Sequence[Tensor]], exact: bool
    ) -> None:
        self.graph, self.compiled, self.tolerance = graph, compiled, 1e-6 if exact else 1e-2
        # Where it was recorded: an operation may look whether there are gradients, as an LSTM's.
        self.place: Any = torch._C._AutoDispatchBelowAutograd if exact else torch.no_grad
        self.layout = [_layout(tensor) for tensor in graph.live]
        self.learned = [tensor.requires_grad for tensor in graph.live]
        self.calls = self.doubts = 0

    def is_current(self, store_too: bool) -> bool:
        """Whether the same tensors have gradients, and the rest too if that is asked.

        Pyro's store still holds these parameters then, and all tensors have their layout.
        """
        if [tensor.requires_grad for tensor in self.graph.live] != self.learned:
            return False
        if not store_too:
            return True
        store = dict(pyro.get_param_store().named_parameters())
        return (
            all(store.get(n) is p for n, p in self.graph.parameters.items())
            and [_layout(tensor) for tensor in self.graph.live] == self.layout
        )

    def __call__(
        self, inputs: Sequence[Tensor], eager: Callable[[], tuple[float, dict[Tensor, Tensor]]]
    ) -> float:
        """The loss; gradients are added to the parameters'.

        Raises:
            CaptureError: it is not the program's, or the gradient is not, twice in a row: once may
                be a draw at its edge.
        """
        self.calls += 1
        looks = self.calls & (self.calls - 1) == 0 or self.calls % OFTEN == 0
        expected = eager() if self.doubts or looks else None
        try:
            with self.place():
                loss, *gradients = self.compiled(*inputs, *self.graph.live)
        except Exception as problem:
            if self.calls > 1:
                raise
            what, advice = "the graph of the step does not run", "use compile=False"
            raise CaptureError.because(problem, what, advice) from problem
        found = loss.item()
        if expected is not None:
            what = self._apart((found, gradients), expected)
            self.doubts = self.doubts + 1 if what else 0
            if self.doubts == 2:
                raise CaptureError(
                    f"the {what} by the graph of the first one: the program has changed by what is "
                    "no tensor, such as a number of Python or of NumPy: keep it in a tensor, or "
                    "use compile=False"
                )
        for p, gradient in zip(self.graph.parameters.values(), gradients, strict=True):
            p.grad = gradient if p.grad is None else p.grad + gradient
        return found

    def _apart(
        self, found: tuple[float, list[Tensor]], expected: tuple[float, dict[Tensor, Tensor]]
    ) -> str:
        """How the loss, or the gradient, differs from the program's, if it does."""
        (loss, gradients), (right, by_parameter) = found, expected
        if abs(loss - right) > self.tolerance * (1 + abs(right)):
            return f"loss of step {self.calls} is {right:g}, and {loss:g}"
        eager = [by_parameter.get(p, torch.zeros_like(p)) for p in self.graph.parameters.values()]
        off = get_total_norm([a - b for a, b in zip(gradients, eager, strict=True)]).item()
        size = get_total_norm(eager).item()  # rounding is larger in a gradient than in a loss
        if off > 10 * self.tolerance * size:
            return f"gradient of step {self.calls} has norm {size:g}, and is {off:g} away from that"
        return ""


def _layout(tensor: Tensor) -> Hashable:
    """What a graph is captured for; strides too, which compiled code takes as given."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad
