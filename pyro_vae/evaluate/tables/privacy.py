"""Distances to the closest record: whether synthetic rows are copies of the rows trained on."""

import math

import numpy as np

from .coding import Coded
from .learners import one_hot

__all__ = ["closest_records"]

QUERIES = 10_000  # rows whose closest record is looked for
LEVELS = 32  # of a category; the rarer ones are one
TIE = 1e-4  # the most that a record is moved, so that ties are broken by chance
QUANTILE = 0.05
Row = tuple[float, float, float, float]  # a figure, its error, and both of real rows


def closest_records(
    test: Coded, synthetic: Coded, train: Coded, generator: np.random.Generator
) -> tuple[Row, Row]:
    r"""How close synthetic rows come to rows that were trained on, and to others.

    The distance of two rows is :math:`\sqrt{\frac1D \sum_d \delta_d^2}`, where :math:`\delta_d` is
    the difference of the ranks of quantities, from 0 to 1, and of categories 0 or 1.

    Args:
        test: rows that were not trained on.
        synthetic: the rows to judge, coded together with the others.
        train: rows that were trained on.
        generator: of the rows looked at where there are more than 10,000, and of ties.

    Returns:
        The share of synthetic rows whose closest record was trained on; for rows that know nothing
        of either table it is N / (N + M) exactly, whatever their distribution, and its error is
        that of which records are trained on: rows that share a closest record count as one. The row
        whose condition a synthetic one was given is left out of its records. And the
        fifth percentile of the distance to the closest row trained on, beside that of the test
        rows.
    """
    tables = [test, synthetic, train]
    place = _places(np.concatenate([t.values for t in tables]), test, train)
    at = np.split(place, np.cumsum([len(t) for t in tables])[:-1])
    near = [_some(rows, generator) for rows in at[:2]]
    own = [synthetic.given_by(table)[1] for table in (train, test)]
    to_train, to_test = (
        _distances(at[1][near[1]], records, generator, None if rows is None else rows[near[1]])
        for records, rows in zip((at[2], at[0]), own, strict=True)
    )
    nearer = to_train[1] < to_test[1]
    closest = np.where(nearer, to_train[0], len(train) + to_test[0])
    often = np.bincount(closest, minlength=len(train) + len(test))
    n, m = (len(t) - (rows is not None) for t, rows in zip((train, test), own, strict=True))
    share, expected = float(nearer.mean()), n / (n + m)
    variance = expected * (1 - expected) * often.var(ddof=1) * len(often) / len(closest) ** 2
    real = _distances(at[0][near[0]], at[2], generator)[1]
    return (share, math.sqrt(variance), expected, 0.0), (*_low(to_train[1]), *_low(real))


def _places(values: np.ndarray, *real: Coded) -> np.ndarray:
    """Rows as points whose Euclidean distance is that of :func:`closest_records`."""
    numeric, known = real[0].numeric, np.concatenate([table.values for table in real])
    x = values.copy()
    for d in np.flatnonzero(numeric):
        column = np.sort(known[:, d])
        column = column[~np.isnan(column)]
        sides = [np.searchsorted(column, x[:, d], side) for side in ("left", "right")]
        x[:, d] = np.where(np.isnan(x[:, d]), np.nan, np.mean(sides, 0) / max(len(column), 1))
    points, quantities = one_hot(x, numeric, LEVELS)
    points[:, ~quantities] /= math.sqrt(2)  # two categories are at distance 1
    return points / math.sqrt(len(numeric))


def _some(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    n = len(rows)
    return np.arange(n) if n <= QUERIES else generator.choice(n, QUERIES, replace=False)


def _distances(
    rows: np.ndarray,
    records: np.ndarray,
    generator: np.random.Generator,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The closest record, but a row's own, and its distance; each is moved a little, by itself."""
    from sklearn.neighbors import NearestNeighbors

    moved = np.column_stack([records, TIE * generator.random(len(records))])
    still = np.column_stack([rows, np.zeros(len(rows))])
    distances, closest = (
        NearestNeighbors(n_neighbors=2, algorithm="brute").fit(moved).kneighbors(still)
    )
    taken = np.arange(len(rows)), (closest[:, 0] == (-1 if own is None else own)).astype(int)
    return closest[taken], distances[taken]


def _low(distances: np.ndarray) -> tuple[float, float]:
    """The fifth percentile, and its standard error from the percentiles around it."""
    step = math.sqrt(QUANTILE * (1 - QUANTILE) / len(distances))
    ends = [max(QUANTILE - step, 0), QUANTILE, min(QUANTILE + step, 1)]
    low, value, high = np.quantile(distances, ends)
    return float(value), float(high - low) / 2
