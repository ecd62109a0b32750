"""Scores of predictions that are given as draws: rank, interval, CRPS, Brier."""

import numpy as np

__all__ = [
    "brier",
    "commonness",
    "crps",
    "crps_of_angles",
    "interval_width",
    "pit",
    "set_size",
    "turned",
]


def pit(draws: np.ndarray, truth: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    r"""The place of each truth among its draws, from 0 to 1; ties are broken by chance.

    .. math:: u = \frac{\#\{s: y_s < y\} + v\,(\#\{s: y_s = y\} + 1)}{S + 1}, \quad v \sim U(0, 1)

    is uniform where the truth is as one more draw, whether the numbers are discrete or not.

    Args:
        draws: ``(S, n)``.
        truth: ``(n,)``.
        generator: of v.

    References:
        Czado, Gneiting & Held (2009), Biometrics 65.
    """
    below, ties = (draws < truth).sum(0), (draws == truth).sum(0)
    return (below + generator.random(len(truth)) * (ties + 1)) / (len(draws) + 1)


def commonness(draws: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels, which have no order, as minus their frequency among the draws and the truth.

    The most common level of a cell comes first, and the truth is counted as one more draw, so that
    :func:`pit` of the two is uniform where the truth is one.

    Args:
        draws: codes ``(S, n)``.
        truth: ``(n,)``.
    """
    all_of_them = np.concatenate([draws, truth[None]])
    rank = np.empty(all_of_them.shape)
    for level in np.unique(all_of_them):
        its = all_of_them == level
        rank = np.where(its, -its.sum(0), rank)
    return rank[:-1], rank[-1]


def crps(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    r"""The continuous ranked probability score of each cell, in the units of the draws.

    .. math:: \mathrm{E}\,|Y - y| - \tfrac12 \mathrm{E}\,|Y - Y'|

    without the bias of a finite number of draws; lower is better, and 0 is a certain hit.

    Args:
        draws: ``(S, n)``.
        truth: ``(n,)``.

    References:
        Gneiting & Raftery (2007), JASA 102; Fricker, Ferro & Stephenson (2013), Meteorological
        Applications 20.
    """
    n = len(draws)
    weight = 2 * np.arange(1, n + 1) - n - 1
    spread = weight @ np.sort(draws, 0) / (n * (n - 1))
    return np.abs(draws - truth).mean(0) - spread


def crps_of_angles(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    r""":func:`crps` of angles, whose distance is that along the circle.

    .. math:: d(a, b) = \tfrac12 \int_0^{2 \pi} 1[\text{one of both is in } (t, t + \pi)]\, dt

    Args:
        draws: ``(S, n)``, in radians.
        truth: ``(n,)``.

    References:
        Grimit, Gneiting, Berrocal & Johnson (2006), QJRMS 132.
    """
    n, whole = len(draws), 2 * np.pi
    ends = np.concatenate([draws, draws - np.pi]) % whole  # where a draw leaves, and enters
    order = ends.argsort(0)
    inside = (draws % whole < np.pi).sum(0) + np.where(order < n, -1, 1).cumsum(0)
    places = np.take_along_axis(ends, order, 0)
    length = np.diff(places, axis=0, append=places[:1] + whole)
    spread = (inside * (n - inside) * length).sum(0) / (2 * n * (n - 1))
    return np.abs(turned(draws - truth)).mean(0) - spread


def turned(angles: np.ndarray) -> np.ndarray:
    """Angles from -pi to pi, in radians."""
    return (angles + np.pi) % (2 * np.pi) - np.pi


def brier(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    r"""The Brier score of each cell, :math:`\sum_k (p_k - 1[y = k])^2`, from 0 to 2.

    The squares of the probabilities are without the bias of a finite number of draws.

    Args:
        draws: codes ``(S, n)``.
        truth: ``(n,)``.
    """
    n = len(draws)
    counts = np.stack([(draws == level).sum(0) for level in np.unique(draws)])
    squares = (counts * (counts - 1)).sum(0) / (n * (n - 1))
    return 1 - 2 * (draws == truth).mean(0) + squares


def interval_width(draws: np.ndarray, level: float) -> np.ndarray:
    """The width of each cell's central interval, between draws by their order.

    Args:
        draws: ``(S, n)``.
        level: the probability that the interval has.
    """
    ends = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
    return ends[1] - ends[0]


def set_size(draws: np.ndarray, level: float) -> np.ndarray:
    """How many levels, the most common first, have a share of the draws of each cell.

    Args:
        draws: codes ``(S, n)``.
        level: the share.
    """
    counts = np.stack([(draws == level).sum(0) for level in np.unique(draws)])
    before = np.sort(counts, 0)[::-1].cumsum(0) - np.sort(counts, 0)[::-1]
    return (before < level * len(draws)).sum(0).astype(float)
