"""Missing cells from the model, given the cells that are there."""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..core.checks import whole
from ..core.pareto import RELIABLE
from ..distributions import Joined, VonMises, VonMisesMixture, WithSpike, direction
from ..families.likelihoods import has_independent_cells
from ..families.support import innermost
from .conditional import Posterior, Start, condition
from .joint import Model

__all__ = [
    "ANGLES",
    "ENOUGH",
    "MANY",
    "Imputations",
    "Plan",
    "Point",
    "impute",
    "on_circle",
    "predicted",
]

CELLS = 2**18  # numbers of x at once: more leave the cache, and are slower
ENOUGH = 100  # effective draws, with which more are no longer worth their time
MANY = 0.05  # share of the rows with holes, above which doubtful ones are warned of
TIMES = (1, 1, 2, 4)  # the draws asked for: of the first round, and of those for doubtful rows
FAR = 1e4  # nats below a log density, where none is
ANGLES = VonMises | VonMisesMixture
CANDIDATES = 64  # values of a cell, of which the most probable is its mode

Point: TypeAlias = Literal["mean", "median", "mode"]


@dataclass(frozen=True)
class Plan:
    """How missing cells are filled; :meth:`VAE.impute` says what each number is.

    ``masked`` is whether cells that are not there are missing, and not only not asked for.
    """

    draws: int | None
    point: Point
    num_samples: int
    sweeps: int
    masked: bool = True

    def __post_init__(self) -> None:
        for name, least in {"draws": 1, "num_samples": 1, "sweeps": 0}.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole(name, value, least))
        if self.point not in get_args(Point):
            raise ValueError(f"point is one of {', '.join(get_args(Point))}, got {self.point!r}")

    @property
    def enough(self) -> float:
        """The effective draws below which a row is doubtful: of few draws, a tenth."""
        return min(ENOUGH, self.num_samples / 10)


@dataclass(frozen=True)
class Imputations:
    """Filled cells, and how far the draws behind each row are to be trusted.

    Attributes:
        values: as :meth:`VAE.impute` gives them, ``(N, *x_shape)`` or ``(draws, N, *x_shape)``.
        ess: the effective number of draws of z, ``(N,)``; infinite where no cell was missing.
        k_hat: Pareto's shape of the largest weights, ``(N,)``; NaN of fewer than 25 draws. Above
            0.7 the weights have too heavy a tail; below it nothing is said of what was never drawn.
        enough: the effective number of draws below which a row is doubtful.
    """

    values: Tensor
    ess: Tensor
    k_hat: Tensor
    enough: float

    @property
    def doubtful(self) -> Tensor:
        """Whether a row's draws are too few or too uneven to be trusted, ``(N,)``."""
        return (self.ess < self.enough) | (self.k_hat > RELIABLE)

    @property
    def unreliable(self) -> bool:
        """Whether more than a twentieth of the rows with holes are doubtful."""
        return bool(self.doubtful.sum() > MANY * self.ess.isfinite().sum())

    def summary(self) -> str:
        """The two checks in words."""
        holes = self.ess.isfinite()
        n, wrong = int(holes.sum()), int(self.doubtful.sum())
        if not n:
            return "No cell is missing."
        text = f"{n} rows have missing cells; {self.ess[holes].median().item():.0f} effective draws"
        if not wrong:
            return f"{text} of z at the median row, no row is doubtful."
        return (
            f"{text} of z at the median row. {wrong} rows are doubtful: fewer than "
            f"{self.enough:g} effective draws, or k-hat above {RELIABLE}, even of {TIMES[-1]} "
            "times the draws asked for from an adapted proposal: raise num_samples, or train with "
            "missing=True on rows with as many holes."
        )


def impute(model: Model, x: Tensor, plan: Plan, other: Tensor | None = None) -> Imputations:
    """The observed blocks of x with their NaN cells filled, and the checks of each row.

    Rows whose draws are too few or too uneven are drawn anew, up to three times, from a proposal
    that is fitted to the former draws. Rows without a hole cost nothing.

    Args:
        model: whose likelihood is of independent cells.
        x: ``(B, ...)`` as the model's record packs them.
        plan: what is asked for.
        other: the same rows under other contexts: all their cells are filled, by z as it is given
            x; ``None`` fills those of x.

    Raises:
        ValueError: cells that are not independent given z, or have no mean.
    """
    if not has_independent_cells(model.decode(model.prior_at(x[:1]).expand([1]).sample(), x[:1])):
        raise ValueError("missing cells need a likelihood of independent cells")
    cells = model.record.cells(x)
    if other is not None:
        cells = torch.full_like(cells, math.nan)
    wanted = x if other is None else model.record.with_cells(other, cells)
    rows = cells.flatten(1).isnan().any(1).nonzero()[:, 0]
    values = cells.clone() if plan.draws is None else cells.repeat(plan.draws, *[1] * cells.ndim)
    ess = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
    imputations = Imputations(values, ess, -ess, plan.enough)

    def fill(rows: Tensor, start: Start | None, number: int) -> None:
        num_samples = plan.num_samples * TIMES[number]
        size = max(1, CELLS // (num_samples * model.cells))
        for at in torch.arange(len(rows), device=x.device).split(size):
            some = rows[at]
            own = start and start[at]
            posterior = condition(model, x[some], num_samples, plan.sweeps, own, plan.masked)
            here, new = posterior, wanted[some]
            if other is not None:
                here = replace(here, likelihood=model.decode(here.z, new), completed=None)
            filled = _fill(model, new, here, plan)
            values[..., some, *[slice(None)] * (cells.ndim - 1)] = filled
            imputations.ess[some], imputations.k_hat[some] = posterior.ess, posterior.k_hat
            doubtful = imputations.doubtful[some]
            if number + 1 < len(TIMES) and doubtful.any():
                fill(some[doubtful], posterior.start(model, x[some])[doubtful], number + 1)

    if len(rows):
        fill(rows, None, 0)
    return imputations


def _fill(model: Model, x: Tensor, posterior: Posterior, plan: Plan) -> Tensor:
    """The observed blocks of some rows, their missing cells filled from the posterior of z."""
    cells = model.record.cells(x)
    if plan.draws is not None:
        filled = posterior.draw(model, x, plan.draws)
    else:
        p, drawn = posterior.likelihood, posterior.completed
        filled = predicted(p, posterior.log_w, plan.point, drawn)
    return torch.where(cells.isnan(), filled, cells)


def predicted(
    p: dist.TorchDistribution, log_w: Tensor, name: Point, drawn: Tensor | None = None
) -> Tensor:
    """One value for each cell, ``(B, *x_shape)``, over weighted draws of z.

    Args:
        p: p(x|z) at the draws, of batch shape ``(K, B)``.
        log_w: of the draws, ``(K, B)``.
        name: which value; a cell that has none such is given its median, or its mode.
        drawn: cells beside each draw, where they have a part in its weight.

    Raises:
        ValueError: all of x has no such value.
    """
    if not isinstance(p, Joined):
        return _point(name, True, p, log_w, drawn)
    shares = [None] * len(p.parts) if drawn is None else p.layout.split(drawn)
    pairs = zip(p.parts, shares, strict=True)
    return p.layout.join([_point(name, False, part, log_w, d) for part, d in pairs])


def _point(
    name: Point, alone: bool, p: dist.TorchDistribution, log_w: Tensor, drawn: Tensor | None
) -> Tensor:
    """One value for each cell; of codes, which are no quantities, the mode.

    Ordered levels have a median, but no mean. A cell without a mean has its median, unless its
    block is all of x.
    """
    if isinstance(base := innermost(p), dist.Categorical):
        ordered = isinstance(base, dist.OrderedLogistic)
        shares = _shares(base, log_w, drawn)
        if not ordered or name == "mode":
            return shares.argmax(-1).to(log_w)
        # The median: the lowest level of which as much lies at it or below as above.
        return (shares.cumsum(-1)[..., :-1] < 0.5).sum(-1).to(log_w)
    if alone or (name != "mean" and drawn is None):
        return POINTS[name](p, log_w, drawn)
    if name != "mean":
        return _median(p, log_w, drawn)
    mean = _average(p, log_w, drawn)
    there = mean.isfinite()
    return mean if there.all() else torch.where(there, mean, _median(p, log_w, drawn))


# The value of each cell of p(x|z), ``(K, B, ...)``, from weights of z, ``(K, B)``. Where cells were
# drawn beside z, the weights are theirs too.


def _mean(p: dist.TorchDistribution, log_w: Tensor, drawn: Tensor | None) -> Tensor:
    mean = _average(p, log_w, drawn)
    if not mean.isfinite().all():
        raise ValueError("these cells have no mean: ask for point='median', or draws=100")
    return mean


def _average(p: dist.TorchDistribution, log_w: Tensor, drawn: Tensor | None) -> Tensor:
    """The mean of each cell, not finite where it has none; of angles a direction."""
    if isinstance(innermost(p), ANGLES):
        turned = direction(p) if drawn is None else on_circle(drawn)
        return (_beside(log_w.softmax(0), turned) * turned).sum(0).angle()
    try:
        mean = p.mean if drawn is None else drawn
    except NotImplementedError:  # of a transformed family it has no closed form
        mean = torch.full(log_w.shape + p.event_shape, math.nan)
    return (_beside(log_w.softmax(0), mean) * mean).sum(0)


def _median(p: dist.TorchDistribution, log_w: Tensor, drawn: Tensor | None) -> Tensor:
    """The median of each cell; of angles that of what they are away from their mean direction."""
    values = p.sample() if drawn is None else drawn
    share = _beside(log_w.softmax(0), values).expand(values.shape)
    if not isinstance(innermost(p), ANGLES):
        return _middle(values, share)
    centre = (share * on_circle(values)).sum(0).angle()
    away = _middle(on_circle(values - centre).angle(), share)
    return on_circle(centre + away).angle()


def _middle(values: Tensor, share: Tensor) -> Tensor:
    """The lowest value of each cell up to which half of the shares lie, ``(K, B, ...)`` of both."""
    values, order = values.sort(0)
    place = (share.gather(0, order).cumsum(0) < 0.5).sum(0, keepdim=True)
    return values.gather(0, place.clamp(max=len(values) - 1))[0]


def on_circle(angles: Tensor) -> Tensor:
    """The unit vectors at angles, as complex numbers."""
    return torch.polar(torch.ones_like(angles), angles)


def _shares(p: dist.Categorical, log_w: Tensor, drawn: Tensor | None) -> Tensor:
    """The probability of each level given the cells, ``(B, *x_shape, levels)``."""
    if drawn is not None:
        probs = one_hot(drawn.long(), p.logits.shape[-1]).to(log_w)
    else:
        probs = p.probs if "probs" in vars(p) else p.logits.exp()  # softmaxes of few are slow
    return torch.einsum("kb,kb...->b...", log_w.softmax(0), probs)


def _mode(p: dist.TorchDistribution, log_w: Tensor, drawn: Tensor | None) -> Tensor:
    """Of all values, or of some that are drawn, the one of the highest density given the cells.

    A probability and a density do not compare: a spike is the mode where half of the probability is
    its own, and no more than the last resort elsewhere.
    """
    if drawn is not None and isinstance(innermost(p), dist.Bernoulli):
        return _median(p, log_w, drawn)
    if drawn is not None:
        raise ValueError("cells that are not missing at random have no mode here: ask for the mean")
    base, log_w = innermost(p), log_w.log_softmax(0)
    if base.has_enumerate_support:
        candidates = base.enumerate_support(expand=False).flatten()
    else:
        chosen = dist.Categorical(logits=log_w.T).sample(torch.Size([CANDIDATES]))
        candidates = p.sample()[chosen, torch.arange(log_w.shape[1], device=log_w.device)]
    best = torch.full(base.batch_shape[1:], -math.inf, dtype=log_w.dtype, device=log_w.device)
    mode, spikes = best.new_zeros(best.shape), _spikes(base)
    for value in candidates:
        each = base.log_prob(value)
        log_p = (_beside(log_w, each) + each).logsumexp(0)
        for at in spikes:
            rank = torch.where(log_p >= math.log(0.5), math.inf, log_p - FAR)
            log_p = torch.where(value == at, rank, log_p)
        mode, best = torch.where(log_p > best, value.to(mode), mode), torch.maximum(log_p, best)
    return mode


def _spikes(p: dist.TorchDistribution) -> list[float]:
    """The values of p that have a probability beside a density of the others."""
    return [p.at, *_spikes(p.base)] if isinstance(p, WithSpike) else []


def _beside(weights: Tensor, values: Tensor) -> Tensor:
    """Weights ``(K, B)`` with as many dimensions as the values ``(K, B, ...)``."""
    return weights.reshape(*weights.shape, *[1] * (values.ndim - 2))


POINTS = {"mean": _mean, "median": _median, "mode": _mode}
