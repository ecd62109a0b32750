"""Missing cells from the model, given the cells that are there."""

import math
from typing import TYPE_CHECKING

import pyro.distributions as dist
import torch
from torch import Tensor

from ..families.likelihoods import fill
from ..families.support import innermost

if TYPE_CHECKING:
    from .vae import VAE

__all__ = ["chains", "imputed"]

CELLS = 2**22  # numbers of x at once


def imputed(
    vae: "VAE", x: Tensor, *, draws: int | None, num_samples: int, sweeps: int
) -> Tensor:  # fmt: skip
    """What :meth:`VAE.impute` gives, for data of the model's type and shape."""
    for name, value in {"num_samples": num_samples, "draws": draws, "sweeps": sweeps}.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if value is not None and not whole:
            raise ValueError(f"{name} is a whole number of at least 1, got {value!r}")
    if innermost(vae.decode(vae.prior().expand([1]).sample())).event_dim:
        raise ValueError("missing cells need a likelihood of independent cells")
    rows = max(1, CELLS // (num_samples * math.prod(vae.x_shape)))
    parts = [_rows(vae, some, draws, num_samples, sweeps) for some in x.split(rows)]
    return torch.cat(parts, 0 if draws is None else 1)


def _rows(vae: "VAE", x: Tensor, draws: int | None, num_samples: int, sweeps: int) -> Tensor:
    cells = vae._cells(x)
    if vae.missing:
        q = vae.encode(x)
        z = q.sample(torch.Size([num_samples]))
        log_w = vae._log_joint(x, z) - q.log_prob(z)
    else:
        z = chains(vae, x, num_samples, sweeps)
        log_w = z.new_zeros(z.shape[:2], dtype=cells.dtype)
    if draws is None:
        mean = vae.decode(z).mean
        if not mean.isfinite().all():
            raise ValueError("these cells have no mean: ask for draws of them, draws=100")
        weights = log_w.softmax(0).reshape(*log_w.shape, *[1] * (mean.ndim - 2))
        filled = (weights * mean).sum(0)
    else:
        chosen = dist.Categorical(logits=log_w.T).sample(torch.Size([draws]))
        filled = vae.decode(z[chosen, torch.arange(len(x), device=z.device)]).sample()
    return torch.where(cells.isnan(), filled, cells)


def chains(vae: "VAE", x: Tensor, num_samples: int, sweeps: int) -> Tensor:
    r"""z of so many chains by Metropolis within Gibbs, for an encoder of complete data.

    In turn the missing cells are drawn given z, and z, proposed by the guide given all cells, is
    accepted with the Metropolis-Hastings probability: the chain's law is
    :math:`p(z, x_{mis} \mid x_{obs})`. Where the guide is the posterior all are accepted.

    Args:
        vae: a model.
        x: ``(B, ...)``, with NaN.
        num_samples: K chains for each datum.
        sweeps: of each chain.

    Returns:
        ``(K, B, *z_shape)``.

    References:
        Mattei & Frellsen (2018), arXiv:1802.04826; Rezende et al. (2014), arXiv:1401.4082, for
        chains that accept all.
    """
    x = x.repeat(num_samples, *[1] * (x.ndim - 1))
    cells = vae._cells(x)
    there = ~cells.isnan()
    support = vae.decode(vae.prior().expand([1]).sample()).support
    data = vae._with_cells(x, fill(cells, there, support))  # pyright: ignore[reportArgumentType]
    z = vae.encode(data).sample()
    for _ in range(sweeps):
        data = vae._with_cells(x, torch.where(there, cells, vae.decode(z).sample()))
        q = vae.encode(data)
        proposed = q.sample()
        gain = vae._log_joint(data, proposed) - q.log_prob(proposed)
        accept = torch.rand_like(gain).log() < gain - vae._log_joint(data, z) + q.log_prob(z)
        z = torch.where(accept.reshape(-1, *[1] * (z.ndim - 1)), proposed, z)
    return z.reshape(num_samples, -1, *z.shape[1:])
