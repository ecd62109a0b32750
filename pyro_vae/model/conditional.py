"""The posterior of z given the cells that are there, as weighted draws of an adapted proposal."""

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor

from ..core.pareto import effective_draws, tail_shape
from ..families.likelihoods import drop_missing, fill
from ..families.missingness import Missingness
from .ellipses import Ellipses, to_real
from .joint import Model

__all__ = ["Posterior", "Start", "condition"]

COMPONENTS = 16  # completed observations, whose guides are the proposal
TRIES = 4  # draws for each of them in a sweep
WIDE = 0.1  # the prior's share of the proposal, which bounds the weights of what the guides miss
FITTED = 0.7  # of the rest, the share of what was fitted to former draws


@dataclass(frozen=True)
class Start:
    """What former draws of z say of the next proposal, for B observations.

    Args:
        z: some of the draws, by their weights, ``(16, B, *z_shape)``.
        fitted: to all of them; ``None`` where z is no image of a real space.
    """

    z: Tensor
    fitted: Ellipses | None

    def __getitem__(self, rows: Tensor) -> "Start":
        return Start(self.z[:, rows], None if self.fitted is None else self.fitted[rows])


@dataclass(frozen=True)
class Posterior:
    """Draws of z with weights, which stand for p(z | observed cells) of B observations.

    Args:
        z: ``(K, B, *z_shape)``.
        log_w: their log weights, ``(K, B)``.
        likelihood: p(x|z) at the draws, of batch shape ``(K, B)``.
        completed: cells beside each draw, ``(K, B, *x_shape)``, where the missing ones have a part
            in its weight; else ``None``.
    """

    z: Tensor
    log_w: Tensor
    likelihood: dist.TorchDistribution
    completed: Tensor | None

    @property
    def ess(self) -> Tensor:
        """The effective number of draws, ``(B,)``."""
        return effective_draws(self.log_w)

    @property
    def k_hat(self) -> Tensor:
        """Pareto's shape of the largest weights, ``(B,)``."""
        return tail_shape(self.log_w)

    def draw(self, model: Model, x: Tensor, n: int) -> Tensor:
        """Draws of all cells of x, ``(n, B, *x_shape)``, by the weights; observed ones as well."""
        if self.completed is not None:
            return self._choose(self.completed, n)
        return model.decode(self._choose(self.z, n), x).sample()

    def latent(self, n: int) -> Tensor:
        """Draws of z, ``(n, B, *z_shape)``, by the weights."""
        return self._choose(self.z, n)

    def start(self, model: Model, x: Tensor) -> Start:
        """What these draws, of rows x, say of the next proposal."""
        to_z = to_real(model.prior_at(x).support)
        fitted = None if to_z is None else Ellipses.of(self.z, self.log_w, to_z)
        return Start(self._choose(self.z, COMPONENTS), fitted)

    def _choose(self, values: Tensor, n: int) -> Tensor:
        """Of ``(K, B, ...)`` so many by the weights, ``(n, B, ...)``."""
        chosen = dist.Categorical(logits=self.log_w.T).sample(torch.Size([n]))
        return values[chosen, torch.arange(chosen.shape[1], device=values.device)]


def condition(
    model: Model,
    x: Tensor,
    num_samples: int,
    sweeps: int,
    start: Start | None = None,
    masked: bool = True,
) -> Posterior:
    r"""Weighted draws of z given the observed cells of each row.

    .. math:: w_k = \frac{p(x_{obs} \mid z_k)\, p(z_k)}{r(z_k)}, \quad
        r(z) = \frac{1 - \epsilon}{M} \sum_m q(z \mid x^{(m)}) + \epsilon\, p(z)

    The proposal r mixes guides and, for what they miss, the prior. An encoder that knows of missing
    cells gives one guide, at x as it is; completed rows may be like none that it was trained on.
    An encoder of complete rows gives M, at completions :math:`x^{(m)}`, which sweeps adapt: in
    each, draws of r are chosen by their weights and the missing cells are drawn given them. Former
    draws of z give a further part, which is fitted to them. The weights are exact for whatever r
    has become, so no chain has to have forgotten where it began.
    Where the model says how cells come to be missing, missing cells are drawn beside z, and
    p(mask | x) is a factor of the weight.

    Args:
        model: its prior, likelihood and guide.
        x: ``(B, ...)``, with NaN.
        num_samples: K at least; rounded up to as many from each component.
        sweeps: of adaptation of completions, where there are no former draws.
        start: former draws of these rows.
        masked: whether cells that are not there are missing, and that says something of them.

    References:
        Simkus & Gutmann (2023), arXiv:2308.09078 (LAIR); Hesterberg (1995), Technometrics 37(2),
        for the prior's share.
    """
    proposal = _Proposal(model, x, start, model.missingness if masked else None)
    for _ in range(0 if start or model.record.missing else sweeps):
        proposal.adapt()
    return proposal.draw(num_samples)


class _Proposal:
    """The mixture r, at B observations; z is ``(..., B, *z_shape)``."""

    def __init__(
        self, model: Model, x: Tensor, start: Start | None, missingness: Missingness | None
    ) -> None:
        self.model, self.x, self.prior = model, x, model.prior_at(x)
        self.missingness = missingness
        self.fitted = None if start is None else start.fitted
        self.cells = model.record.cells(x)
        self.there = ~self.cells.isnan()
        # A label that is known rules out what the prior would draw.
        self.wide = 0.0 if model.record.has("label") else WIDE
        if model.record.missing:
            self.guides, self.components = model.approximate_posterior(x), 1
        else:
            wide = self.prior.expand(torch.Size([COMPONENTS, len(x)]))
            self._complete(model.decode(start.z if start else wide.sample(), x).sample())

    def adapt(self) -> None:
        """One sweep: completions drawn given z, which are drawn by their weights."""
        posterior = self.draw(COMPONENTS * TRIES)
        self._complete(posterior.draw(self.model, self.x, COMPONENTS))

    def draw(self, num_samples: int) -> Posterior:
        """Draws of the mixture, with their weights."""
        each = math.ceil(num_samples / self.components)
        z = self.guides.sample(torch.Size([each])).unflatten(1, (self.components, -1)).flatten(0, 1)
        if self.fitted:
            z = _exchange(z, self.fitted.sample(len(z)), FITTED)
        if self.wide:
            z = _exchange(z, self.prior.expand(z.shape[:2]).sample(), self.wide)
        p, log_prior = self.model.decode(z, self.x), self.prior.log_prob(z)
        log_r = self._log_guides(z)
        if self.fitted:
            log_r = _mix(log_r, self.fitted.log_prob(z), FITTED)
        if self.wide:
            log_r = _mix(log_r, log_prior, self.wide)
        log_w, completed = self._log_likelihood(p) + log_prior - log_r, None
        if self.missingness is not None:
            completed, logits = self.missingness.complete(p, self.cells)
            log_w = log_w + self.missingness.log_prob(logits, self.cells)
        return Posterior(z, _possible(log_w), p, completed)

    def _complete(self, drawn: Tensor) -> None:
        """Take the guides at so many completions, ``(M, B, *x_shape)``, as the components."""
        record, m = self.model.record, len(drawn)
        cells = torch.where(self.there, self.cells, drawn).flatten(0, 1)
        x = record.with_cells(self.x.repeat(m, *[1] * (self.x.ndim - 1)), cells)
        self.guides, self.components = self.model.approximate_posterior(x), m

    def _log_likelihood(self, p: dist.TorchDistribution) -> Tensor:
        cells = fill(self.cells, self.there, p.support)  # pyrefly: ignore[bad-argument-type]
        return drop_missing(p, self.there).log_prob(cells)

    def _log_guides(self, z: Tensor) -> Tensor:
        """The logarithm of the guides' mean density, ``(K, B)``."""
        m = self.components
        many = z[:, None].expand(-1, m, *z.shape[1:]).flatten(1, 2)
        log_q = self.guides.log_prob(many).unflatten(1, (m, -1))
        return log_q.logsumexp(1) - math.log(m)


def _exchange(z: Tensor, other: Tensor, share: float) -> Tensor:
    """Draws ``(K, B, ...)``, about such a share of them those of another distribution."""
    chosen = torch.rand(z.shape[:2], device=z.device) < share
    return torch.where(chosen.reshape(*chosen.shape, *[1] * (z.ndim - 2)), other, z)


def _mix(log_p: Tensor, log_other: Tensor, share: float) -> Tensor:
    """The log density of what :func:`_exchange` gives."""
    return torch.logaddexp(log_p + math.log1p(-share), log_other + math.log(share))


def _possible(log_w: Tensor) -> Tensor:
    """Log weights, ``(K, B)``, without NaN, where each row has one that is finite.

    Raises:
        ValueError: a row whose cells no draw of z makes possible.
    """
    log_w = torch.where(log_w.isnan(), -math.inf, log_w)
    if (none := log_w.isneginf().all(0)).any():
        row = int(none.nonzero()[0])
        raise ValueError(
            f"the known cells of row {row} have no density under the model: they are too far from "
            "the data that it was trained on"
        )
    return log_w
