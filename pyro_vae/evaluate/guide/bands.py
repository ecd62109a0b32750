"""Bands within which a whole empirical distribution function stays, with a given probability."""

import numpy as np

__all__ = ["simultaneous_band"]

STEPS = 40  # of the bisection: as many binary digits


def simultaneous_band(num_data: int, u: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Bounds of the empirical distribution function of uniform numbers, at all points together.

    .. math:: P\Big(l_i \le \tfrac1N \#\{n: x_n \le u_i\} \le h_i \text{ for all } i\Big)
        \ge \text{level}

    The bounds are quantiles of the binomial distribution at each point, of one tail probability for
    all of them. It is the largest at which the counts, a Markov chain along the points, stay within
    the bounds often enough: ArviZ's ``ecdf_confidence_band(method="optimized")``.

    Args:
        num_data: N.
        u: points in (0, 1), rising, ``(K,)``.
        level: the probability.

    Returns:
        Lower and upper bounds, shares of the data, ``(K,)`` each.

    References:
        Säilynoja, Bürkner & Vehtari (2022), arXiv:2103.10522.

    >>> lower, upper = simultaneous_band(100, np.array([0.25, 0.5, 0.75]), 0.95)
    >>> lower.round(2).tolist(), upper.round(2).tolist()
    ([0.15, 0.39, 0.65], [0.35, 0.61, 0.85])
    """
    from scipy.stats import binom

    steps = np.diff(u, prepend=0) / (1 - np.concatenate([[0], u[:-1]]))
    narrow, wide = level, 1.0
    bounds = np.zeros(len(u), int), np.full(len(u), num_data)
    wide_enough: dict[bytes, bool] = {}  # whole numbers: most of the last steps change none
    for _ in range(STEPS):
        middle = (narrow + wide) / 2
        lower, upper = (side.astype(int) for side in binom.interval(middle, num_data, u))
        key = lower.tobytes() + upper.tobytes()
        if key not in wide_enough:
            wide_enough[key] = _inside(num_data, steps, lower, upper) >= level
        if wide_enough[key]:
            wide, bounds = middle, (lower, upper)
        else:
            narrow = middle
    return bounds[0] / num_data, bounds[1] / num_data


def _inside(n: int, steps: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The probability that the counts stay within the bounds, given the steps' probabilities."""
    from scipy.special import gammaln

    factorial = gammaln(np.arange(n + 1) + 1.0)
    before, probability = np.zeros(1, int), np.ones(1)
    for step, low, high in zip(steps, lower, upper, strict=True):
        after = np.arange(low, high + 1)
        new, left = after - before[:, None], n - after
        log_p = factorial[n - before][:, None] - factorial[new.clip(0)] - factorial[left]
        log_p += new * np.log(step) + left * np.log1p(-step)
        probability = probability @ np.where(new >= 0, np.exp(log_p), 0.0)
        before = after
    return float(probability.sum())
