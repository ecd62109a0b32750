"""Denoised rates of counts, and the loadings of a linear decoder."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ...core.checks import whole
from ...distributions import Multinomial
from ...families.parameters import Amortized
from ...families.support import innermost
from ...model.entry import of_model
from ...model.joint import Joint, reading
from ...model.pieces import pieces
from ...model.sequences import Sequences
from ...model.vae import VAE

__all__ = ["column_names", "loadings", "rate_of", "rates", "unexposed"]

FALLING = ("Exponential", "Gamma", "GammaPoisson", "Geometric")  # means fall as rate or logits rise
NUMBERS = 2**22  # of decoded rates that are in memory together


@of_model
@torch.no_grad()
def rates(
    vae: VAE, x: Tensor | ArrayLike, *, num_samples: int = 10, seed: int | None = None
) -> pd.DataFrame:
    r"""Denoised rates: what is expected of each count per unit of exposure, given the row.

    .. math:: \rho_g(x) = E_{q(z|x)}[E[x_g \mid z, c, exposure = 1]]

    With ``offset="library"`` they are shares of the row's total. Excess zeros of a zero-inflated
    family are left out: the rate is that of its counts.

    Args:
        vae: a trained model of counts.
        x: the counts, with what stands beside them; a sparse matrix is read piece by piece.
        num_samples: draws of z per row.
        seed: of the draws.

    Returns:
        A frame ``(N, D)``, by the names of the columns where the model knows them; of visits a
        column for each of them, NaN where a subject has none.

    Raises:
        ValueError: a likelihood without a mean, sequences, or rows that the model refuses.

    References:
        Lopez et al. (2018), Nature Methods 15, doi:10.1038/s41592-018-0229-2.

    >>> vae = VAE(3, latent_dim=1, likelihood="Poisson", offset="library", seed=0)
    >>> rates(vae, torch.tensor([[1.0, 2.0, 0.0]]), seed=0).shape
    (1, 3)
    """
    num_samples, parts, seen = whole("num_samples", num_samples), [], []
    if isinstance(vae.record, Sequences):
        raise ValueError("rates are of columns, not of sequences: vae.reconstruct(x) has the means")
    width = math.prod(vae.x_shape)
    with reading(vae, seed):
        for some in pieces(vae, x, max(1, NUMBERS // (width * num_samples))):
            z = Joint(vae, some).draw(num_samples)
            parts.append(rate_of(vae.decode(z, unexposed(vae, some))).mean(0))
            at = vae.record.there(some)
            seen.append((torch.tensor(True) if at is None else at).expand(parts[-1].shape))
    values, there = (torch.cat(each).flatten(1).cpu().numpy() for each in (parts, seen))
    if (none := ~(np.isfinite(values) | ~there).all(0)).any():
        name = column_names(vae)[int(none.argmax())]
        raise ValueError(
            f"column {name!r} has no mean given z, and so no rate: vae.reconstruct(x) gives "
            "categories and medians"
        )
    return pd.DataFrame(np.where(there, values, np.nan), columns=column_names(vae), dtype=float)


@of_model
@torch.no_grad()
def loadings(vae: VAE) -> pd.DataFrame:
    r"""The loadings of a linear decoder: what a step of 1 along each latent dimension adds.

    .. math:: \log E[x_g \mid z] = b_g + \sum_k L_{gk} z_k

    It adds to the logarithm of the mean of negative binomial counts and of shares, to a location in
    the units of x, to the unconstrained value of other parameters (that of a rate, before its
    softplus).

    Args:
        vae: whose decoder is ``"MLP([])"``.

    Returns:
        A frame, columns of x by latent dimensions.

    Raises:
        ValueError: a decoder that is not linear, or a likelihood of several such parameters none of
            which is a location, or whose mean falls as it rises.

    References:
        Svensson et al. (2020), Bioinformatics 36, doi:10.1093/bioinformatics/btaa169.

    >>> vae = VAE(3, latent_dim=2, likelihood="NegativeBinomial(total_count=1)", decoder="MLP([])")
    >>> loadings(vae).shape
    (3, 2)
    """
    leaves = [m for m in vae.decoder.modules() if m is not vae.decoder and not [*m.children()]]
    if not all(isinstance(m, nn.Sequential | nn.Flatten) for m in leaves):
        raise ValueError("loadings are of a linear decoder: VAE(..., decoder='MLP([])')")
    likelihood: Any = vae.likelihood
    sources = getattr(likelihood, "sources", {})
    heads = {name: part for name, part in sources.items() if isinstance(part, Amortized)}
    name = next((n for n in ("logits", "loc", "rate", "probs") if n in heads), None)
    if name is None:
        raise ValueError("the likelihood has no location that depends linearly on z")
    family, told = likelihood.spec.name, "such as NegativeBinomial(total_count=learned)"
    if family in FALLING:
        raise ValueError(
            f"the mean of {family} falls with its {name}: use a likelihood whose mean is "
            f"linear in z on some scale, {told}"
        )
    if other := next((n for n in ("total_count", "concentration") if n in heads), None):
        raise ValueError(
            f"the mean of {family} depends on z by its {other}, too: use a likelihood whose "
            f"{other} is not the decoder's, {told}"
        )
    k = len(vae.latents.coordinates)
    head: Any = heads[name].head
    weight = head.weight[:, :k].cpu().double().numpy()
    if name == "loc" and name in (units := getattr(likelihood, "units", {})):
        weight = weight * units[name].factor.reshape(-1, 1).cpu().double().numpy()
    return pd.DataFrame(weight, index=column_names(vae), columns=list(vae.latents.coordinates))


def rate_of(p: dist.TorchDistribution) -> Tensor:
    """The mean of a likelihood, of a zero-inflated one that of its counts.

    Raises:
        ValueError: it has none.
    """
    base: Any = innermost(p)
    base = base.base_dist if isinstance(base, dist.ZeroInflatedDistribution) else base
    try:
        return base.probs if isinstance(base, Multinomial) else base.mean
    except (NotImplementedError, AttributeError):
        raise ValueError(f"{type(base).__name__} has no mean, so there are no rates") from None


def unexposed(vae: VAE, x: Tensor) -> Tensor:
    """Packed rows under an exposure of 1."""
    x = x.clone()
    for block in vae.record.blocks:
        if block.role == "offset":
            vae.record.unpack(x)[block.name].zero_()
    return x


def column_names(vae: VAE) -> list[object]:
    """Names of the columns of x, or their numbers."""
    return [*(vae.record.columns or range(math.prod(vae.x_shape)))]
