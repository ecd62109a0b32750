"""Parameters of an estimator's own, trained to make the variance of its gradient smaller."""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from ..sites import latent, samples
from .multisample import add

__all__ = ["Learner", "learned"]


class Learner:
    r"""The parameters c of an estimator's control variate, which every step gives a slope.

    Every step adds to their ``.grad`` an unbiased estimate of the slope of the variance,

    .. math:: \nabla_c \operatorname{Var}(g) = E\left[\nabla_c\, g^2\right],

    with g the gradient in a logit, its square averaged over logits. They are parameters of Pyro's,
    under the name of the estimator, so that ``SVI`` trains them beside the model's.

    Args:
        name: of the estimator.
        start: makes the parameters, from the guide's sites and its arguments.

    Attributes:
        control: the parameters, a module that is made at the first step, or by :meth:`renew`.
    """

    def __init__(self, name: str, start: Callable[[list[Any], tuple], nn.Module]) -> None:
        self.name, self.start = name, start
        self.control: nn.Module | None = None

    def renew(self, guide: Callable, *args: object, **kwargs: object) -> nn.Module:
        """Make the parameters anew, for the sites of a guide, and forget what was learned."""
        with torch.no_grad(), poutine.block():
            trace = poutine.trace(guide).get_trace(*args, **kwargs)
        sites = [site for site in samples(trace) if latent(site)]
        self.control = self.start(sites, args)
        if sites:
            self.control.to(sites[0]["value"])
        store = pyro.get_param_store()
        for name, _ in self.control.named_parameters(self.name):
            if name in store:
                del store[name]
        return self.control

    def register(self, guide: Callable, args: tuple, kwargs: dict) -> None:
        """Put the parameters into Pyro's store; make them where there are none.

        Raises:
            ValueError: the store holds another estimator's.
        """
        control = self.control or self.renew(guide, *args, **kwargs)
        for name, value in control.named_parameters(self.name):
            if value.requires_grad and pyro.param(name, value).data_ptr() != value.data_ptr():
                raise ValueError(
                    f"Pyro's parameter store holds another estimator's {name!r}, so this one's "
                    "would not be trained: work within `with pyro.get_param_store().scope():`"
                )

    def surrogate(self, gradients: Sequence[Tensor]) -> Tensor | float:
        """A number whose gradient in the parameters is minus the slope of the variance."""
        control: Any = self.control
        parameters = [p for p in control.parameters() if p.requires_grad]
        if not parameters or not gradients:
            return 0.0
        mean = add(g.square().sum() for g in gradients) / sum(g.numel() for g in gradients)
        slopes = torch.autograd.grad(mean, parameters, retain_graph=True)
        return -add((slope * p).sum() for slope, p in zip(slopes, parameters, strict=True))


def learned(given: float | None, start: float) -> nn.Parameter:
    """A number that is given, or learned from its start."""
    return nn.Parameter(torch.tensor(start if given is None else given), given is None)
