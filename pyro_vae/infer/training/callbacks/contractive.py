"""A guide whose mean is made to change little with x."""

from collections.abc import Callable

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ....core.checks import number
from ...sites import latent
from .aggregate import Weighted

__all__ = ["Contractive"]

SERVED: tuple[type[ELBO], ...] = (Trace_ELBO, TraceMeanField_ELBO)


class Contractive(Messenger, Weighted):
    r"""Subtract the squared slopes of the guide's mean from the bound: a contractive autoencoder.

    .. math:: L(x) - \lambda \left\| \frac{\partial\, E_q[z]}{\partial x} \right\|_F^2

    The norm is estimated without bias by one more backward pass, :math:`\|v^\top J\|^2` with
    random signs v. It is a factor of the guide, so it goes with every bound that keeps to the
    guide's gradient: ``Trace_ELBO``, ``TraceMeanField_ELBO``. Give it to ``fit`` as a callback, or
    wrap a guide of your own: ``Contractive(0.1)(guide)``.

    Args:
        weight: :math:`\lambda`.
        cells: from x to the part in which the slopes are penalized; ``vae.record.cells`` leaves out
            the context beside x. ``fit`` takes the model's.

    References:
        Rifai et al. (2011), "Contractive auto-encoders: explicit invariance during feature
        extraction"; Hutchinson (1990) for the random signs.

    >>> from pyro_vae import MLP, VAE
    >>> from pyro.infer import TraceMeanField_ELBO
    >>> vae, x = VAE(3, 2, likelihood="Normal", encoder=MLP([])), torch.zeros(5, 3)
    >>> loss = TraceMeanField_ELBO().loss
    >>> loss(vae.model, Contractive(1e4)(vae.guide), x) > loss(vae.model, vae.guide, x)
    True
    """

    def __init__(self, weight: float, cells: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.weight, self.cells = number("weight", weight, 0), cells
        self.x = self.mean = torch.empty(0)

    def __call__(self, guide: Callable) -> Callable:
        """Wrap a guide; the slopes are those in its first argument, ``(B, ...)``."""

        def contracted(x: Tensor, *args: object, **kwargs: object) -> object:
            self.x = x.detach().requires_grad_()
            with torch.enable_grad(), self:
                return guide(self.x, *args, **kwargs)

        return contracted

    def wrap(self, model: Callable, guide: Callable) -> tuple[Callable, Callable]:
        """Wrap the guide of a training run.

        Raises:
            ValueError: a bound that does not keep to the guide's gradient.
        """
        elbo = self.run.estimator.elbo
        if type(elbo) not in SERVED:
            served = " or ".join(known.__name__ for known in SERVED)
            raise ValueError(
                f"Contractive adds a factor to the guide, whose gradient {type(elbo).__name__} "
                f"does not follow: use {served}"
            )
        record = getattr(self.run.vae, "record", None)
        if self.cells is None and record is not None:
            self.cells = record.cells
        return model, self(guide)

    def _pyro_sample(self, msg: dict) -> None:
        if latent(msg):
            self.mean = msg["fn"].mean  # before particles multiply it

    def _pyro_post_sample(self, msg: dict) -> None:
        if not latent(msg):
            return
        signs = torch.randint_like(self.mean, 2).mul(2).sub(1)
        (slopes,) = torch.autograd.grad((signs * self.mean).sum(), self.x, create_graph=True)
        slopes = slopes if self.cells is None else self.cells(slopes)
        penalty = self.weight * slopes.square().flatten(1).sum(1)
        pyro.factor(f"{msg['name']}_slopes", penalty, has_rsample=True)
