"""Column shapes, pair trends and mutual information: what two tables share, with errors."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .coding import MISSING, Coded

__all__ = ["Similarity", "similarity"]

RESAMPLES = 25  # of the rows: a standard error is known to a seventh


@dataclass(frozen=True)
class Similarity:
    """Scores of one table against another; 1 says that nothing differs.

    Attributes:
        shapes: ``(D,)``, by column.
        trends: ``(P,)``, by pair of columns, in the order of ``itertools.combinations``.
        information: one minus the difference of the pairs' mutual information, weighted by it.
        missing: ``(D,)``, one minus the difference of the shares of missing cells.
    """

    shapes: np.ndarray
    trends: np.ndarray
    information: float
    missing: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Of shapes, trends, information and missing cells."""
        trends = self.trends.mean() if len(self.trends) else np.nan
        return np.array([self.shapes.mean(), trends, self.information, self.missing.mean()])


def similarity(
    real: Coded, other: Coded, generator: np.random.Generator
) -> tuple[Similarity, np.ndarray]:
    r"""Compare two tables, and give the standard errors of the :attr:`Similarity.means`.

    A quantity's shape is :math:`1 - \sup |F - G|` (Kolmogorov and Smirnov), a category's
    :math:`1 - \frac12 \sum |p - q|` (total variation), over the cells that are there. The trend of
    two quantities is :math:`1 - |r - s| / 2` with the correlations of rows where both are there;
    of other pairs one minus the total variation of the contingency table, with quantities in
    deciles and missing cells as a level of their own.

    Args:
        real: coded together with ``other``.
        other: the table that is compared with it.
        generator: of the resampled rows; those that stand beside others come with them.

    References:
        Definitions as in SDMetrics, ``ColumnShapes`` and ``ColumnPairTrends``, whose bins are of
        equal width.
    """
    count = _Counts(real, other)

    def resampled() -> np.ndarray:
        one, two = (generator.multinomial(n, np.full(n, 1 / n)) for n in (len(real), len(other)))
        return count(one, two if other.beside is None else one[other.beside]).means

    errors = np.array([resampled() for _ in range(RESAMPLES)]).std(0, ddof=1)
    return count(np.ones(len(real)), np.ones(len(other))), errors


class _Counts:
    """Everything of two tables that does not change when their rows are weighed."""

    def __init__(self, real: Coded, other: Coded) -> None:
        self.tables = real, other
        self.numeric = real.numeric
        self.pairs = list(combinations(range(len(real.names)), 2))
        self.cells = [self._pair(i, j) for i, j in self.pairs]
        self.quantities = [self._standard(t) for t in self.tables]

    def _pair(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The cell of the contingency table that each row is in, and each cell's two bins."""
        width = 1 + max(t.bins[:, j].max() for t in self.tables)
        both = np.concatenate([t.bins[:, i] * width + t.bins[:, j] for t in self.tables])
        cells, where = np.unique(both, return_inverse=True)
        first = len(self.tables[0])
        return where[:first], where[first:], *np.divmod(cells, width)

    def _standard(self, table: Coded) -> tuple[np.ndarray, np.ndarray]:
        """Standardized quantities with 0 where missing, and where they are not."""
        x = table.values[:, self.numeric]
        known = ~np.isnan(x)
        n = np.maximum(known.sum(0), 1)
        x = np.where(known, x, 0)
        x = np.where(known, x - x.sum(0) / n, 0)
        scale = np.sqrt((x**2).sum(0) / n)
        return x / np.where(scale > 0, scale, 1), known.astype(float)

    def __call__(self, *weights: np.ndarray) -> Similarity:
        shapes = [self._shape(d, weights) for d in range(len(self.numeric))]
        known = [
            w @ (t.codes != MISSING) / w.sum() for t, w in zip(self.tables, weights, strict=True)
        ]
        trends, information = self._pairs(weights)
        return Similarity(np.array(shapes), trends, information, 1 - np.abs(known[0] - known[1]))

    def _shape(self, d: int, weights: tuple[np.ndarray, ...]) -> float:
        levels = 1 + max(t.codes[:, d].max() for t in self.tables)
        counts = [
            np.bincount(t.codes[:, d] + 1, w, levels + 1)[1:]
            for t, w in zip(self.tables, weights, strict=True)
        ]
        totals = [c.sum() for c in counts]
        if not all(totals):  # a column that is missing altogether
            return float(totals[0] == totals[1])
        gap = counts[0] / totals[0] - counts[1] / totals[1]
        return 1 - (np.abs(gap.cumsum()).max() if self.numeric[d] else np.abs(gap).sum() / 2)

    def _pairs(self, weights: tuple[np.ndarray, ...]) -> tuple[np.ndarray, float]:
        correlations = [_correlations(*q, w) for q, w in zip(self.quantities, weights, strict=True)]
        column = np.cumsum(self.numeric) - 1
        trends, information = np.empty(len(self.pairs)), np.empty((len(self.pairs), 2))
        for k, ((i, j), (*where, one, two)) in enumerate(zip(self.pairs, self.cells, strict=True)):
            p, q = (
                np.bincount(cells, w, len(one)) / w.sum()
                for cells, w in zip(where, weights, strict=True)
            )
            information[k] = _information(p, one, two), _information(q, one, two)
            if self.numeric[i] and self.numeric[j]:
                r, s = (c[column[i], column[j]] for c in correlations)
                trends[k] = 1 - abs(r - s) / 2
            else:
                trends[k] = 1 - np.abs(p - q).sum() / 2
        total = information[:, 0].sum()
        gap = np.abs(information[:, 1] - information[:, 0]).sum()
        return trends, float(1 - gap / total) if total > 0 else float(gap == 0)


def _information(p: np.ndarray, one: np.ndarray, two: np.ndarray) -> float:
    """Mutual information in nats, of the probabilities of cells and the cells' two bins."""
    margins = np.bincount(one, p)[one] * np.bincount(two, p)[two]
    some = p > 0
    return float(p[some] @ np.log(p[some] / margins[some]))


def _correlations(x: np.ndarray, known: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``(Q, Q)``, each over the rows that have both; of a constant column 0."""
    weighted, seen = x * w[:, None], known * w[:, None]
    n = np.maximum(seen.T @ known, 1e-300)
    mean = weighted.T @ known / n  # of column i where j is known too
    variance = (weighted * x).T @ known / n - mean**2
    covariance = weighted.T @ x / n - mean * mean.T
    scale = np.sqrt(np.maximum(variance, 0) * np.maximum(variance.T, 0))
    return np.where(scale > 1e-12, covariance / np.where(scale > 1e-12, scale, 1), 0)
