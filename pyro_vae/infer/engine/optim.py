"""One torch optimizer over all parameters, behind Pyro's own face.

``pyro.optim.Adam`` keeps an optimizer per parameter, which costs 2 to 3 ms a step on a small VAE.
"""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from ...language.spec import Spec, as_spec, nearest
from .adam import Adam, AdamW
from .distributed import Processes

__all__ = ["FusedOptim", "make_optimizer"]

IN_ONE_CALL = {torch.optim.Adam: Adam, torch.optim.AdamW: AdamW}


class FusedOptim(PyroOptim):
    """One ``torch.optim`` optimizer for every parameter that SVI hands over.

    Args:
        constructor: a class of ``torch.optim``; its fused kernels are used where it has them.
        options: its arguments, ``lr`` among them.
        clip_norm: the largest norm of the whole gradient; ``None`` does not clip.

    Attributes:
        processes: whose gradients are summed before a step, and which may share its work.
        frozen: names of parameters that the next steps leave as they are.

    >>> optim = FusedOptim(torch.optim.Adam, {"lr": 1e-3})
    """

    def __init__(
        self,
        constructor: type[torch.optim.Optimizer],
        options: dict[str, Any],
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(IN_ONE_CALL.get(constructor, constructor), dict(options))
        if "fused" in inspect.signature(constructor).parameters:
            self.pt_optim_args = {"fused": True, **options}
        self.clip_norm = clip_norm
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
        with self.processes.summed(list(self.parameters)):
            for p, name in self.parameters.items() if self.frozen else ():
                if name in self.frozen:
                    p.grad = None
            if self.clip_norm is not None:
                self._clip(self.clip_norm)
            with torch.no_grad():
                self._step(self.optimizer)
        for p in self.parameters:
            p.grad = None

    def _clip(self, largest: float) -> None:
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.processes.divided:
            (square,) = self.processes.total(norm.double().square().item())
            norm = norm.new_tensor(math.sqrt(square))
        nn.utils.clip_grads_with_norm_(list(self.parameters), largest, norm)

    @property
    def lr(self) -> float:
        """The learning rate; setting it costs nothing and keeps the optimizer's state."""
        return self.pt_optim_args["lr"]  # pyright: ignore[reportIndexIssue]

    @lr.setter
    def lr(self, value: float) -> None:
        self.pt_optim_args["lr"] = value  # pyright: ignore[reportIndexIssue]
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = value

    def get_state(self) -> dict[str, dict[str, Tensor]]:
        """The optimizer's tensors by parameter name; all processes are to ask for them."""
        state = self.optimizer.state if self.optimizer else {}
        mine = {name: dict(state[p]) for p, name in self.parameters.items() if p in state}
        return self.processes.whole(mine)

    def set_state(self, state_dict: dict[str, dict[str, Tensor]]) -> None:
        """Take up a state of :meth:`get_state`; parameters consume it when they are first seen."""
        self._state_waiting_to_be_consumed.update(state_dict)

    def _add(self, new: list[Tensor]) -> None:
        store = pyro.get_param_store()
        named = sorted((str(store.param_name(p)), p) for p in new)
        self.parameters |= {p: name for name, p in named}
        mine = set(self.processes.adopt([p for _, p in named]))
        if self.optimizer is None:
            self.optimizer = self.pt_optim_constructor([p for _, p in named], **self.pt_optim_args)  # pyright: ignore
            self._step = inspect.unwrap(type(self.optimizer).step)  # no profiler, no hooks around
        else:
            self.optimizer.add_param_group({"params": [p for _, p in named]})
        for name, p in named:
            saved = self._state_waiting_to_be_consumed.pop(name, None)
            if saved is not None and p in mine:
                self.optimizer.state[p] = {k: v.clone() for k, v in saved.items()}


def make_optimizer(value: str | Spec, lr: float) -> FusedOptim:
    """An optimizer from a line such as ``"Adam(betas=[0.9, 0.99], clip_norm=10)"``.

    Args:
        value: the name of a class of ``torch.optim`` with its arguments, and ``clip_norm``.
        lr: the learning rate.
    """
    spec = as_spec(value)
    constructor = getattr(torch.optim, spec.name, None)
    optimizers = [n for n, c in vars(torch.optim).items() if isinstance(c, type)]
    if spec.name not in optimizers or not issubclass(constructor, torch.optim.Optimizer):  # pyright: ignore
        raise spec.error(f"unknown optimizer {spec.name!r}{nearest(spec.name, optimizers)}")
    names = [n for n in inspect.signature(constructor).parameters if n not in ("params", "lr")]
    options = spec.bind("clip_norm", *names)
    clip_norm = options.pop("clip_norm", None)
    if clip_norm is not None and not (isinstance(clip_norm, int | float) and clip_norm > 0):
        raise spec.error(f"clip_norm is a positive number, got {clip_norm}", at="clip_norm")
    if constructor is torch.optim.LBFGS:
        raise spec.error("LBFGS evaluates the loss several times a step, which SVI does not serve")
    factory: Any = constructor
    try:
        factory([torch.zeros(1, requires_grad=True)], lr=lr, **options)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise spec.error(f"{spec.name} does not take these arguments: {problem}") from None
    return FusedOptim(constructor, {"lr": lr, **options}, clip_norm)
