"""Observations drawn from a model, packed as its record packs them."""

import torch
from torch import Tensor

from .joint import Model

__all__ = ["in_turn", "simulate"]


def in_turn(given: Tensor, num_data: int) -> Tensor:
    """``num_data`` observations, the given ones over and over in their order."""
    return given[torch.arange(num_data, device=given.device) % len(given)]


@torch.no_grad()
def simulate(vae: Model, num_data: int, given: Tensor | None) -> tuple[Tensor, Tensor]:
    """Draw z from the prior and x from the likelihood.

    Args:
        vae: in evaluation mode.
        num_data: how many.
        given: observations whose context and offset are taken in turn.

    Returns:
        z, ``(num_data, *z_shape)``, and x, which holds no label and counts once; its cells are
        missing where the model says so, and where there is no visit.

    Raises:
        ValueError: the model reads a context or an offset, and none is given.
    """
    x = None if given is None else in_turn(given, num_data)
    z = vae.prior_at(x).expand([num_data]).sample()
    cells = vae.decode(z, x).sample().to(vae.example.dtype)  # categories are drawn as integers
    x = vae.record.with_cells(cells if x is None else x, cells)
    if given is None:
        return z, x
    for block in vae.record.blocks:
        if block.role in ("label", "weight"):
            vae.record.unpack(x)[block.name].fill_(float(block.role == "weight"))
    return z, x
