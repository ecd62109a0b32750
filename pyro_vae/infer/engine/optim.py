"""One torch optimizer over all parameters, behind Pyro's own face.

``pyro.optim.Adam`` keeps an optimizer per parameter, which costs 2 to 3 ms a step on a small VAE.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import pyro
import torch
from pyro.optim.optim import PyroOptim
from pyro.params.param_store import normalize_param_name
from torch import Tensor, nn

from ...core.checks import boolean, number, positive
from ...language.spec import Spec, as_spec, nearest
from .adam import Adam, AdamW
from .distributed import Processes

__all__ = ["FusedOptim", "make_optimizer", "optimizer_line"]

Options: TypeAlias = dict[str, Any]

FLAGS = {"foreach", "fused", "capturable", "differentiable", "maximize"}
FLAGS |= {"amsgrad", "nesterov", "centered"}
IN_ONE_CALL: dict[type, type] = {torch.optim.Adam: Adam, torch.optim.AdamW: AdamW}


class FusedOptim(PyroOptim):
    """One ``torch.optim`` optimizer for every parameter that SVI hands over.

    Args:
        constructor: a class of ``torch.optim``; its fused kernels are used where it has them.
        options: its arguments, ``lr`` among them, or as in ``pyro.optim`` a function from the name
            of a parameter, such as ``"encoder.0.weight"``, to them.
        clip_norm: the largest norm of the whole gradient; ``None`` does not clip.
        clip_value: the largest size of any number of the gradient, likewise.

    Raises:
        ValueError: what is no optimizer of PyTorch's, or an option that it has not.

    Attributes:
        processes: whose gradients are summed before a step.
        frozen: names of parameters that the next steps leave as they are.

    >>> optim = FusedOptim(torch.optim.Adam, {"lr": 1e-3})
    """

    def __init__(
        self,
        constructor: type[torch.optim.Optimizer],
        options: Options | Callable[[str], Options],
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        _check(constructor, options)
        super().__init__(IN_ONE_CALL.get(constructor, constructor), options)
        foreach = not callable(options) and "foreach" in options
        fused = "fused" in inspect.signature(constructor).parameters and not foreach
        self.defaults: Options = {"fused": True} if fused else {}
        if not callable(options):
            self.defaults |= options
        self.clip_norm = None if clip_norm is None else positive("clip_norm", clip_norm)
        self.clip_value = None if clip_value is None else positive("clip_value", clip_value)
        self.optimizer: torch.optim.Optimizer | None = None
        self.parameters: dict[Tensor, str] = {}
        self.processes = Processes()
        self.frozen: frozenset[str] = frozenset()

    def __call__(self, params: Iterable[Tensor], *args: object, **kwargs: object) -> None:
        """One step; the gradients are gone afterwards."""
        new = [p for p in params if p not in self.parameters and p.grad is not None]
        if new:
            self._add(new)
        if self.optimizer is None:
            return
        if self.processes.count > 1:
            self._sum()
        for p, name in self.parameters.items() if self.frozen else ():
            if name in self.frozen:
                p.grad = None
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(list(self.parameters), self.clip_norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(list(self.parameters), self.clip_value)
        with torch.no_grad():
            self._step(self.optimizer)
        for p in self.parameters:
            p.grad = None

    def _sum(self) -> None:
        """Sum gradients over the processes; one that has no rows of a last batch has none."""
        mine = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        for p, total in zip(self.parameters, self.processes.sum(mine), strict=True):
            p.grad = total

    @property
    def lr(self) -> float:
        """The learning rate of all parameters; setting it keeps the optimizer's state.

        Raises:
            ValueError: each parameter has its own.
        """
        if callable(self.pt_optim_args):
            raise ValueError("each parameter has options of its own, lr among them")
        return self.defaults["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        self.defaults["lr"] = value
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = value

    def get_state(self) -> dict[str, dict[str, Tensor]]:
        """The optimizer's tensors by parameter name, with those that wait for their parameter."""
        state = self.optimizer.state if self.optimizer else {}
        seen = {name: dict(state[p]) for p, name in self.parameters.items() if p in state}
        return self._state_waiting_to_be_consumed | seen

    def set_state(self, state_dict: dict[str, dict[str, Tensor]]) -> None:
        """Take up a state of :meth:`get_state`; parameters consume it when they are first seen."""
        self._state_waiting_to_be_consumed.update(state_dict)

    def _add(self, new: list[Tensor]) -> None:
        store = pyro.get_param_store()
        named = sorted((str(store.param_name(p)), p) for p in new)
        self.parameters |= {p: name for name, p in named}
        self.processes.share({name: p.data for name, p in named})
        for parameters, options in self._groups(named):
            if self.optimizer is None:
                self.optimizer = self.pt_optim_constructor(parameters, **options)  # pyrefly: ignore[not-callable]
                # without a profiler and hooks around it
                self._step = inspect.unwrap(type(self.optimizer).step)
            else:
                self.optimizer.add_param_group({"params": parameters, **options})
        for name, p in named:
            saved = self._state_waiting_to_be_consumed.pop(name, None)
            if saved is not None:
                self.optimizer.state[p] = {k: v.clone() for k, v in saved.items()}  # pyrefly: ignore[missing-attribute]

    def _groups(self, named: list[tuple[str, Tensor]]) -> list[tuple[list[Tensor], Options]]:
        """Parameters that have the same options, and these."""
        own = self.pt_optim_args
        if not callable(own):
            return [([p for _, p in named], self.defaults)]
        groups: dict[str, tuple[list[Tensor], Options]] = {}
        for name, p in named:
            said = own(normalize_param_name(name))
            _check(self.pt_optim_constructor, said)
            options = self.defaults | said
            groups.setdefault(repr(options), ([], options))[0].append(p)
        return list(groups.values())


def _check(constructor: object, options: object) -> None:
    """Raise unless a constructor is an optimizer's that takes one step, and has these options."""
    if not (isinstance(constructor, type) and issubclass(constructor, torch.optim.Optimizer)):
        raise ValueError(
            "the constructor is a class of torch.optim, such as torch.optim.Adam, got "
            f"{getattr(constructor, '__name__', type(constructor).__name__)}"
        )
    if constructor is torch.optim.LBFGS:
        raise ValueError("LBFGS evaluates the loss several times a step, which SVI does not serve")
    if callable(options):
        return
    if not isinstance(options, dict):
        raise ValueError(
            "options are a dict such as {'lr': 0.001}, or a function from a parameter's name to "
            f"one, got {type(options).__name__}"
        )
    known = inspect.signature(constructor).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for name in options.keys() - known.keys():
        if name in ("clip_norm", "clip_value"):
            raise ValueError(f"{name} is an argument beside the options: FusedOptim(..., {name}=)")
        raise ValueError(f"{constructor.__name__} has no option {name!r}{nearest(name, known)}")


def optimizer_line(value: "str | Spec | type[torch.optim.Optimizer]") -> str:
    """The line of an optimizer, or of a class of ``torch.optim``.

    Raises:
        ValueError: an optimizer's object, which has parameters of its own.
    """
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer):
        return value.__name__
    if isinstance(value, torch.optim.Optimizer | PyroOptim):
        made = getattr(value, "pt_optim_constructor", type(value)).__name__
        raise ValueError(
            f"optimizer is an object, and fit makes its own: give optimizer={made!r} and lr="
        )
    return str(as_spec(value, "optimizer", "Adam(clip_norm=10)"))


def make_optimizer(value: str | Spec, lr: float) -> FusedOptim:
    """An optimizer from a line such as ``"Adam(betas=[0.9, 0.99], clip_norm=10)"``.

    Args:
        value: the name of a class of ``torch.optim`` with its arguments, ``clip_norm`` and
            ``clip_value``.
        lr: the learning rate.
    """
    spec, lr = as_spec(value), number("lr", lr, 0)
    constructor: Any = getattr(torch.optim, spec.name, None)
    optimizers = [n for n, c in vars(torch.optim).items() if isinstance(c, type)]
    if spec.name not in optimizers or not issubclass(constructor, torch.optim.Optimizer):
        raise spec.error(f"unknown optimizer {spec.name!r}{nearest(spec.name, optimizers)}")
    names = [n for n in inspect.signature(constructor).parameters if n not in ("params", "lr")]
    if spec.args:
        raise spec.error(f"name the arguments: {spec.name}(clip_norm=10)", at=0)
    options = spec.bind("clip_norm", "clip_value", *names)
    clips: Any = {k: options.pop(k) for k in ("clip_norm", "clip_value") if k in options}
    factory: Any = IN_ONE_CALL.get(constructor, constructor)
    try:
        for name in options.keys() & FLAGS:
            boolean(name, options[name])
        factory([torch.zeros(1, requires_grad=True)], lr=lr, **options)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise spec.error(f"{spec.name} does not take these arguments: {problem}") from None
    try:
        return FusedOptim(constructor, {"lr": lr, **options}, **clips)
    except ValueError as problem:
        raise spec.error(str(problem), at=str(problem).split()[0]) from None
