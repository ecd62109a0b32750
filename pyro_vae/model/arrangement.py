"""How the parts of a model are put together where its prior reads something beside z."""

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from ..families.covariates import (
    CovariateDecoder,
    CovariateGuide,
    CovariateLikelihood,
    CovariatePrior,
    Marginals,
)
from ..families.networks import make_network
from ..families.part import Line
from ..families.registry import REGISTRY
from ..families.visits import Conjugate, MeanField, VisitLikelihood, VisitNetwork, VisitPart
from .latents import latent_shape
from .record import Record
from .sequences import network_for
from .tables import TableRecord
from .visits import VisitsRecord, visits_of

__all__ = ["arranged", "latent_shapes", "own_shape", "reading_beside"]


def reading_beside(record: Record) -> Any:  # noqa: ANN401
    """The record, if prior and guide read of it what lies beside z; else ``None``."""
    covariates = isinstance(record, TableRecord) and record.covariates
    return record if covariates or isinstance(record, VisitsRecord) else None


def arranged(
    record: Record,
    latent_dim: int,
    encoder: Line | None,
    decoder: Line | None,
    likelihood: Line,
    guide: Line | None,
    prior: Line,
) -> tuple[nn.Module, nn.Module, Line, Line, Line]:
    """The networks, and the other parts as models of visits or covariates with holes have them."""
    encoder, decoder = (
        make_network(network_for(record, line), name)
        for line, name in ((encoder, "encoder"), (decoder, "decoder"))
    )
    if encoder is decoder:
        raise ValueError("encoder and decoder are one module: give each its own")
    if guide is None:
        guide = "Conjugate" if isinstance(record, VisitsRecord) else "Normal"
    if isinstance(record, TableRecord) and record.covariates:
        c = Marginals(len(record.covariates) - len(record.bits), len(record.bits))
        encoder = VisitNetwork(encoder, 2 * c.count)
        likelihood = CovariateLikelihood(likelihood, c, record.covariate_cells)
        decoder = CovariateDecoder(decoder, c, latent_dim)
        return encoder, decoder, likelihood, CovariateGuide(guide, c), CovariatePrior(prior, c)
    if not isinstance(record, VisitsRecord):
        return encoder, decoder, likelihood, guide, prior
    p = cast(VisitPart, visits_of(prior))
    q = guide if isinstance(guide, nn.Module) else REGISTRY.construct(guide, "guide")
    q = q if isinstance(q, Conjugate) else MeanField(guide)
    p.columns = q.columns = record.prior_columns
    encoder = VisitNetwork(encoder, record.width + 2)
    return encoder, VisitNetwork(decoder), VisitLikelihood(likelihood), q, p


def latent_shapes(
    record: Record, latent_dim: int | tuple[int, ...] | None, layers: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The shape of z as it was said, and in full, and the widths of stochastic layers.

    In full it is ``(T, L)`` of a subject's visits, and ``(L + m,)`` with m covariates.
    """
    own, sizes = latent_shape(latent_dim, layers)
    if reading_beside(record) is None:
        return own, own, sizes
    if sizes or len(own) > 1:
        raise ValueError(
            "z is a vector in one layer where there are visits by subject, or covariates with "
            "holes: VAE(table, latent_dim=4, ...)"
        )
    if isinstance(record, VisitsRecord):
        return own, (record.visits, *own), sizes
    return own, (sum(own) + len(cast(TableRecord, record).covariates),), sizes


def own_shape(record: Record, z_shape: tuple[int, ...]) -> tuple[int, ...]:
    """What the user said, of a full shape: without visits and covariates."""
    if isinstance(record, VisitsRecord):
        return z_shape[1:]
    m = len(record.covariates) if isinstance(record, TableRecord) else 0
    return (z_shape[0] - m,) if m else z_shape
