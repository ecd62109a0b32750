"""Whether a classifier can tell synthetic rows from real ones."""

import math
from typing import Literal

import numpy as np

from .coding import Coded
from .learners import area, boosted, common_levels, one_hot

__all__ = ["two_sample"]

FOLDS = 3


def two_sample(
    real: Coded, other: Coded, classifier: Literal["linear", "boosted"], seed: int
) -> tuple[float, float]:
    r"""The score :math:`1 - (2 \max(\mathrm{AUC}, \frac12) - 1)`, and its standard error.

    1 where the classifier cannot tell the rows of two tables apart, 0 where it always can. The
    linear one (logistic regression on standardized quantities and one-hot categories) sees margins
    only: columns that were shuffled one by one pass it, and not gradient boosted trees.

    Args:
        real: coded together with ``other``.
        other: the table whose rows are to be told apart from those of ``real``.
        classifier: linear, or boosted trees; each row is judged by one that has seen neither it nor
            the row beside it.
        seed: of the folds.

    References:
        Lopez-Paz & Oquab (2017), arXiv:1610.06545.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y = np.repeat([False, True], [len(real), len(other)])
    x, numeric = np.concatenate([real.values, other.values]), real.numeric
    if classifier == "linear":
        x, _ = one_hot(x, numeric)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    else:
        for d in np.flatnonzero(~numeric):
            x[:, d] = common_levels(x[:, d])
        model = boosted(numeric, False, seed)
    areas, variance, n = [], 0.0, len(real)
    groups = np.r_[:n, np.arange(n, len(y)) if other.beside is None else other.beside]
    folds = StratifiedKFold if other.beside is None else StratifiedGroupKFold
    together = None if other.beside is None else groups
    for some, rest in folds(FOLDS, shuffle=True, random_state=seed).split(x, y, together):
        score = model.fit(x[some], y[some]).predict_proba(x[rest])[:, 1]
        value, influence = area(y[rest], score)
        areas.append(value)
        variance += (np.bincount(groups[rest], influence) ** 2).sum() / FOLDS**2
    return 2 - 2 * max(float(np.mean(areas)), 0.5), 2 * math.sqrt(variance)
