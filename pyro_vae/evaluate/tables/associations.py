"""How strongly each pair of columns of a table depends on each other, quantities and categories."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .coding import MISSING, encode_tables

__all__ = ["associations"]


def associations(table: object) -> pd.DataFrame:
    r"""An association for each pair of columns, ``(D, D)``, from -1 to 1.

    Two quantities have Spearman's rank correlation; two categories Cramér's V; a category and a
    quantity the correlation ratio :math:`\eta` of its ranks. The latter two have no sign, and are
    corrected for the levels that there are by chance. Cells that are missing are left out pair by
    pair, and a pair that has no spread is 0.

    Args:
        table: a frame; words, booleans and pandas' categories are categories.

    References:
        Bergsma (2013), Journal of the Korean Statistical Society 42, for V; Kelley (1935), PNAS 21,
        for the ratio.

    >>> frame = pd.DataFrame({"a": range(40), "b": range(40, 0, -1), "c": ["x", "y"] * 20})
    >>> associations(frame).round(1).loc["a", ["a", "b", "c"]].tolist()
    [1.0, -1.0, 0.0]
    """
    coded = encode_tables({"table": table}, "table")["table"]
    n = len(coded.names)
    found = np.eye(n)
    for i in range(n):
        for j in range(i):
            both = (coded.codes[:, i] != MISSING) & (coded.codes[:, j] != MISSING)
            pair = [(bool(coded.numeric[d]), coded.values[both, d]) for d in (i, j)]
            found[i, j] = found[j, i] = _association(*sorted(pair, key=lambda part: part[0]))
    return pd.DataFrame(found, index=coded.names, columns=coded.names)


def _association(one: tuple[bool, np.ndarray], other: tuple[bool, np.ndarray]) -> float:
    """Of two columns, a category before a quantity."""
    (numeric, x), (quantity, y) = one, other
    if len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return 0.0
    if numeric:
        return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    levels, which = np.unique(x, return_inverse=True)
    return _ratio(which, len(levels), rankdata(y)) if quantity else _cramer(which, y)


def _ratio(which: np.ndarray, levels: int, y: np.ndarray) -> float:
    """The root of the share of variance between the levels, adjusted."""
    if len(y) <= levels:
        return 0.0
    counts, sums = np.bincount(which), np.bincount(which, y)
    within = ((y - (sums / counts)[which]) ** 2).sum() / (len(y) - levels)
    return float(np.sqrt(max(0.0, 1 - within / y.var(ddof=1))))


def _cramer(which: np.ndarray, y: np.ndarray) -> float:
    """Cramér's V, corrected."""
    counts = pd.crosstab(which, y).to_numpy(float)
    n, shape = counts.sum(), np.array(counts.shape)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / n
    free = (shape - 1).prod() / (n - 1)
    left = max(0.0, ((counts - expected) ** 2 / expected).sum() / n - free)
    room = (shape - (shape - 1) ** 2 / (n - 1)).min() - 1
    return float(np.sqrt(min(1.0, left / room))) if room > 0 else 0.0
