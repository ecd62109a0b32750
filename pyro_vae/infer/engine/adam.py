"""PyTorch's Adam and AdamW, whose step is one call."""

import inspect
from typing import Any

import torch
from torch import Tensor

__all__ = ["Adam", "AdamW"]


class Adam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)``, its numbers and its state, without Python per parameter.

    PyTorch's own step collects its lists anew and increments each parameter's counter, which takes
    as long as the kernel on a small VAE. Here the lists are kept while the same parameters have
    gradients, and the counters are views of one tensor, incremented at once: on the CPU by NumPy,
    which is faster there.

    References:
        Kingma & Ba (2015), "Adam: a method for stochastic optimization", ICLR (arXiv:1412.6980).
    """

    kernel: Any = staticmethod(torch._fused_adam_)
    taken: list[bool] | None = None
    # as it is, without the import of a compiler, which takes seconds
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of the parameters that have a gradient."""
        group, *more = self.param_groups
        gradients = [p.grad for p in group["params"]]
        taken = [gradient is not None for gradient in gradients]
        if taken != self.taken or more:
            inspect.unwrap(torch.optim.Adam.step)(self)
            plain = group["fused"] and not group["amsgrad"] and not more
            self.taken = self._collect(group["params"], taken) if plain else None
            return
        self.counters += 1
        beta1, beta2 = group["betas"]
        settings = {name: group[name] for name in ("lr", "eps", "weight_decay", "maximize")}
        state = self.first, self.second, [], self.steps
        gradients = [g for g in gradients if g is not None]
        self.kernel(
            self.parameters, gradients, *state, beta1=beta1, beta2=beta2, amsgrad=False, **settings
        )

    def _collect(self, parameters: list[Tensor], taken: list[bool]) -> list[bool] | None:
        """Keep the lists of a step; ``None`` if the parameters differ in device or type."""
        self.parameters = [p for p, has in zip(parameters, taken, strict=True) if has]
        if len({(p.device, p.dtype) for p in self.parameters}) != 1:
            return None
        states = [self.state[p] for p in self.parameters]
        self.first = [state["exp_avg"] for state in states]
        self.second = [state["exp_avg_sq"] for state in states]
        counters = torch.stack([state["step"] for state in states])
        self.counters = counters.numpy() if counters.device.type == "cpu" else counters
        self.steps = list(counters.unbind())
        for state, step in zip(states, self.steps, strict=True):
            state["step"] = step
        return taken


class AdamW(Adam, torch.optim.AdamW):
    """``torch.optim.AdamW(fused=True)``, likewise.

    References:
        Loshchilov & Hutter (2019), "Decoupled weight decay regularization", ICLR
        (arXiv:1711.05101).
    """

    kernel: Any = staticmethod(torch._fused_adamw_)
