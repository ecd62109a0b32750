"""Missing cells from the model, given the cells that are there."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from ..core.checks import whole
from ..families.likelihoods import fill
from ..families.support import innermost
from .joint import Joint, Model

__all__ = ["chains", "impute"]

CELLS = 2**22  # numbers of x at once


def impute(model: Model, x: Tensor, *, draws: int | None, num_samples: int, sweeps: int) -> Tensor:
    """The observed blocks of x with their NaN cells filled; :meth:`VAE.impute` says how.

    Args:
        model: whose likelihood is of independent cells.
        x: ``(B, ...)`` as the model's record packs them.
        draws: so many draws of the missing cells; their mean where it is ``None``.
        num_samples: K, draws of z or chains for each observation.
        sweeps: of the chains.
    """
    draws = draws if draws is None else whole("draws", draws)
    num_samples, sweeps = whole("num_samples", num_samples), whole("sweeps", sweeps)
    if innermost(Joint(model, x[:1]).likelihood(_one(model))).event_dim:
        raise ValueError("missing cells need a likelihood of independent cells")
    cells = model.record.cells(x)
    rows = cells.flatten(1).isnan().any(1).nonzero()[:, 0]
    found = cells.clone() if draws is None else cells.expand(draws, *cells.shape).clone()
    if not len(rows):
        return found
    at_once = max(1, CELLS // (num_samples * math.prod(model.record.x_shape)))
    for some in rows.split(at_once):
        found[..., some, *[slice(None)] * (cells.ndim - 1)] = _impute(
            model, x[some], draws, num_samples, sweeps
        )
    return found


def _impute(model: Model, x: Tensor, draws: int | None, num_samples: int, sweeps: int) -> Tensor:
    cells, joint = model.record.cells(x), Joint(model, x)
    if model.record.missing:
        z = joint.guide.sample(torch.Size([num_samples]))
        log_w = joint.log_weight(z)
    else:
        z = chains(model, x, num_samples, sweeps)
        log_w = z.new_zeros(z.shape[:2], dtype=cells.dtype)
    if draws is None:
        try:
            mean = joint.likelihood(z).mean
        except NotImplementedError:  # of a transformed family it has no closed form
            mean = torch.tensor(math.nan)
        if not mean.isfinite().all():
            raise ValueError("these cells have no mean: ask for draws of them, draws=100")
        weights = log_w.softmax(0).reshape(*log_w.shape, *[1] * (cells.ndim - 1))
        filled = (weights * mean).sum(0)
    else:
        chosen = dist.Categorical(logits=log_w.T).sample(torch.Size([draws]))
        filled = joint.likelihood(z[chosen, torch.arange(len(x), device=z.device)]).sample()
    return torch.where(cells.isnan(), filled, cells)


def chains(model: Model, x: Tensor, num_samples: int, sweeps: int) -> Tensor:
    r"""z of so many chains by Metropolis within Gibbs, for an encoder of complete data.

    In turn the missing cells are drawn given z, and z, proposed by the guide given all cells, is
    accepted with the Metropolis-Hastings probability: the chain's law is
    :math:`p(z, x_{mis} \mid x_{obs})`. Where the guide is the posterior all are accepted.

    Args:
        model: its prior, likelihood and guide.
        x: ``(B, ...)``, with NaN.
        num_samples: K chains for each observation.
        sweeps: of each chain.

    Returns:
        ``(K, B, *z_shape)``.

    References:
        Mattei & Frellsen (2018), arXiv:1802.04826; Rezende et al. (2014), arXiv:1401.4082, for
        chains that accept all.
    """
    x = x.repeat(num_samples, *[1] * (x.ndim - 1))
    record, prior = model.record, model.prior()
    cells = record.cells(x)
    there = ~cells.isnan()
    support = model.decode(_one(model), x[:1]).support
    data = record.with_cells(x, fill(cells, there, support))  # pyright: ignore[reportArgumentType]
    z = model.approximate_posterior(data).sample()
    for _ in range(sweeps):
        drawn = model.decode(z, x).sample()
        joint = Joint(model, record.with_cells(x, torch.where(there, cells, drawn)), prior)
        proposed = joint.guide.sample()
        gain = joint.log_weight(proposed) - joint.log_weight(z)
        accept = torch.rand_like(gain).log() < gain
        z = torch.where(accept.reshape(-1, *[1] * (z.ndim - 1)), proposed, z)
    return z.reshape(num_samples, -1, *z.shape[1:])


def _one(model: Model) -> Tensor:
    return model.prior().expand([1]).sample()
