"""Missing cells from the model, given the cells that are there."""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import pyro.distributions as dist
import torch
from torch import Tensor

from ..core.checks import whole
from ..core.pareto import RELIABLE
from ..distributions import Joined
from ..families.likelihoods import has_independent_cells
from ..families.support import innermost
from .conditional import Posterior, condition
from .joint import Model

__all__ = ["Imputations", "Plan", "Point", "counterfactual", "impute"]

CELLS = 2**22  # numbers of x at once
ENOUGH = 100  # effective draws, with which more are no longer worth their time
MANY = 0.05  # share of the rows with holes, above which doubtful ones are warned of
ROUNDS = 3  # times that draws and sweeps are doubled where they were not enough
CANDIDATES = 64  # values of a cell, of which the most probable is its mode

Point: TypeAlias = Literal["mean", "median", "mode"]


@dataclass(frozen=True)
class Plan:
    """How missing cells are filled; :meth:`VAE.impute` says what each number is."""

    draws: int | None
    point: Point
    num_samples: int
    sweeps: int

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
            f"{self.enough:g} effective draws, or k-hat above {RELIABLE}, even of {2**ROUNDS} "
            "times the draws and sweeps asked for: raise num_samples and sweeps, or train "
            "with missing=True on rows with as many holes."
        )


def impute(model: Model, x: Tensor, plan: Plan) -> Imputations:
    """The observed blocks of x with their NaN cells filled, and the checks of each row.

    Rows whose draws are too few or too uneven are drawn anew, twice as many after twice the sweeps,
    up to three times. Rows without a hole cost nothing.

    Args:
        model: whose likelihood is of independent cells.
        x: ``(B, ...)`` as the model's record packs them.
        plan: what is asked for.

    Raises:
        ValueError: cells that are not independent given z, or have no mean.
    """
    if not has_independent_cells(model.decode(model.prior_at(x[:1]).expand([1]).sample(), x[:1])):
        raise ValueError("missing cells need a likelihood of independent cells")
    cells = model.record.cells(x)
    rows = cells.flatten(1).isnan().any(1).nonzero()[:, 0]
    values = cells.clone() if plan.draws is None else cells.repeat(plan.draws, *[1] * cells.ndim)
    ess = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
    imputations = Imputations(values, ess, -ess, plan.enough)
    for attempt in range(ROUNDS + 1):
        if not len(rows):
            break
        times = 2**attempt
        num_samples = plan.num_samples * times
        # An encoder that knows of missing cells is tried as it is before it is adapted.
        sweeps = plan.sweeps * times if attempt or not model.record.missing else 0
        for some in rows.split(max(1, CELLS // (num_samples * cells[0].numel()))):
            posterior = condition(model, x[some], num_samples, sweeps)
            filled = _fill(model, x[some], posterior, plan)
            values[..., some, *[slice(None)] * (cells.ndim - 1)] = filled
            imputations.ess[some], imputations.k_hat[some] = posterior.ess, posterior.k_hat
        rows = rows[imputations.doubtful[rows]]
    return imputations


def counterfactual(model: Model, x: Tensor, other: Tensor, plan: Plan) -> Tensor:
    """The cells that observations x would have under the contexts of others, z as it is given x.

    Args:
        model: whose likelihood is of independent cells.
        x: ``(B, ...)`` as the model's record packs them.
        other: the same rows under the other contexts; their cells are not looked at.
        plan: what is asked for.
    """
    wanted = model.record.with_cells(other, torch.full_like(model.record.cells(other), math.nan))
    parts, sweeps = [], 0 if model.record.missing else plan.sweeps
    rows = max(1, CELLS // (plan.num_samples * model.record.cells(x)[0].numel()))
    for some, new in zip(x.split(rows), wanted.split(rows), strict=True):
        posterior = condition(model, some, plan.num_samples, sweeps)
        posterior = replace(posterior, likelihood=model.decode(posterior.z, new), completed=None)
        parts.append(_fill(model, new, posterior, plan))
    return torch.cat(parts, 0 if plan.draws is None else 1)


def _fill(model: Model, x: Tensor, posterior: Posterior, plan: Plan) -> Tensor:
    """The observed blocks of some rows, their missing cells filled from the posterior of z."""
    cells = model.record.cells(x)
    if plan.draws is not None:
        filled = posterior.draw(model, x, plan.draws)
    else:
        p, drawn = posterior.likelihood, posterior.completed
        if isinstance(p, Joined):
            shares = [None] * len(p.parts) if drawn is None else p.layout.split(drawn)
            pairs = zip(p.parts, shares, strict=True)
            each = [_point(plan.point, False, part, posterior.log_w, d) for part, d in pairs]
            filled = p.layout.join(each)
        else:
            filled = _point(plan.point, True, p, posterior.log_w, drawn)
    return torch.where(cells.isnan(), filled, cells)


def _point(
    name: Point, alone: bool, p: dist.TorchDistribution, log_w: Tensor, drawn: Tensor | None
) -> Tensor:
    """One value for each cell; of codes, which are no quantities, the mode.

    A block without a mean has its median, unless it is all of x.
    """
    if isinstance(innermost(p), dist.Categorical):
        return _mode(p, log_w, drawn)
    try:
        return POINTS[name](p, log_w, drawn)
    except ValueError:
        if alone:
            raise
        return _median(p, log_w, drawn)


# The value of each cell of p(x|z), ``(K, B, ...)``, from weights of z, ``(K, B)``. Where cells were
# drawn beside z, the weights are theirs too.


def _mean(p: dist.TorchDistribution, log_w: Tensor, drawn: Tensor | None) -> Tensor:
    try:
        mean = p.mean if drawn is None else drawn
    except NotImplementedError:  # of a transformed family it has no closed form
        mean = torch.tensor(math.nan)
    if not mean.isfinite().all():
        raise ValueError("these cells have no mean: ask for point='median', or draws=100")
    return (_beside(log_w.softmax(0), mean) * mean).sum(0)


def _median(p: dist.TorchDistribution, log_w: Tensor, drawn: Tensor | None) -> Tensor:
    values, order = (p.sample() if drawn is None else drawn).sort(0)
    share = _beside(log_w.softmax(0), values).expand(values.shape).gather(0, order)
    middle = (share.cumsum(0) < 0.5).sum(0, keepdim=True).clamp(max=len(values) - 1)
    return values.gather(0, middle)[0]


def _mode(p: dist.TorchDistribution, log_w: Tensor, drawn: Tensor | None) -> Tensor:
    """Of all values, or of some that are drawn, the one of the highest density given the cells."""
    if drawn is not None:
        raise ValueError("cells that are not missing at random have no mode here: ask for the mean")
    base, log_w = innermost(p), log_w.log_softmax(0)
    if base.has_enumerate_support:
        candidates = base.enumerate_support(expand=False).flatten()
    else:
        chosen = dist.Categorical(logits=log_w.T).sample(torch.Size([CANDIDATES]))
        candidates = p.sample()[chosen, torch.arange(log_w.shape[1], device=log_w.device)]
    best = torch.full(base.batch_shape[1:], -math.inf, dtype=log_w.dtype, device=log_w.device)
    mode = best.new_zeros(best.shape)
    for value in candidates:
        each = base.log_prob(value)
        log_p = (_beside(log_w, each) + each).logsumexp(0)
        mode, best = torch.where(log_p > best, value.to(mode), mode), torch.maximum(log_p, best)
    return mode


def _beside(weights: Tensor, values: Tensor) -> Tensor:
    """Weights ``(K, B)`` with as many dimensions as the values ``(K, B, ...)``."""
    return weights.reshape(*weights.shape, *[1] * (values.ndim - 2))


POINTS = {"mean": _mean, "median": _median, "mode": _mode}
