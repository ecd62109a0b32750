"""Attribute arithmetic: observations moved in z along the difference of two groups' means."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import number
from ...model.entry import of_model
from ...model.joint import reading
from ...model.latents import point
from ...model.vae import VAE
from ..statistics import mean

__all__ = ["as_numbers", "attribute_step", "move"]


@of_model
@torch.no_grad()
def attribute_step(
    vae: VAE, x: Tensor | ArrayLike, labels: ArrayLike, *, source: int = 0, target: int = 1
) -> Tensor:
    r"""The step in z from observations of one label to those of another.

    .. math:: \bar z_{target} - \bar z_{source}

    with the means of q(z|x), averaged over the observations of each label, by their weights.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        labels: ``(N,)`` whole numbers, or whether each has an attribute.
        source: the label that the step starts from.
        target: the label that it leads to.

    Returns:
        ``(*z_shape)``.

    Raises:
        ValueError: a label that no observation has, or a categorical z.

    References:
        Larsen, Sonderby, Larochelle & Winther (2016), arXiv:1512.09300, section 4.2.

    >>> vae = VAE(4, latent_dim=3, likelihood="Normal", seed=0)
    >>> attribute_step(vae, torch.randn(10, 4), [0, 1] * 5).shape
    torch.Size([3])
    """
    if vae.latents.categorical:
        raise ValueError("z is categorical: there is no line between two categories")
    data = vae.as_data(x)
    z, weights = point(vae.encode(data)), vae.counts_as(data)
    which = as_numbers(labels, len(z)).to(z.device)
    for label in (source, target):
        if not (which == label).any():
            raise ValueError(
                f"no observation has the label {label}; there are {which.unique().tolist()}"
            )
    own = (which == target, which == source)
    above, below = (mean(z[rows], weights[rows]) for rows in own)
    return above - below


def as_numbers(labels: ArrayLike, n: int) -> Tensor:
    """Labels as whole numbers, ``(n,)``; whether a row has an attribute is 0 or 1.

    Raises:
        ValueError: labels of another shape.
    """
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (n,):
        raise ValueError(f"expected labels of shape ({n},), got {values.shape}")
    number = values.dtype.kind in "biuf"
    wrong = values != values.round() if number else np.ones(n, bool)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"labels are whole numbers, or whether each row has an attribute, got "
            f"{values[row]!s} in row {row}: say one, labels == {values[0]!s}"
            if not number
            else f"labels are whole numbers, got {values[row]!s} in row {row}: leave the row out"
        )
    return torch.from_numpy(values.astype(np.int64))


@of_model
@torch.no_grad()
def move(vae: VAE, x: Tensor | ArrayLike, step: Tensor, amount: float = 1.0) -> Tensor:
    r"""Means of p(x|z) at each observation's z plus a step: "add glasses".

    .. math:: \mathrm{E}[x \mid z + a\,s], \quad z = \mathrm{E}_{q(z|x)}[z]

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        step: s, ``(*z_shape)``, as :func:`attribute_step` gives it.
        amount: a.

    Returns:
        ``(N, *x_shape)``.

    Raises:
        ValueError: a step of another shape.

    >>> vae = VAE(4, latent_dim=3, likelihood="Normal", seed=0)
    >>> x = torch.randn(10, 4)
    >>> bool((move(vae, x, torch.zeros(3)) == vae.reconstruct(x)).all())
    True
    """
    x, amount = vae.as_data(x), number("amount", amount)
    if tuple(step.shape) != vae.z_shape:
        raise ValueError(f"expected a step of shape {vae.z_shape}, got {tuple(step.shape)}")
    with reading(vae, None):
        return point(vae.decode(point(vae.encode(x)) + amount * step, x))
