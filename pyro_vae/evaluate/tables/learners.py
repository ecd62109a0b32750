"""Classifiers and regressors of coded tables, which are scikit-learn's, and scores of them."""

import math
from typing import Any

import numpy as np

__all__ = ["area", "boosted", "common_levels", "explained", "one_hot"]

MOST_LEVELS = 100  # of a category that a classifier reads; the rarer ones are one


def common_levels(codes: np.ndarray, most: int = MOST_LEVELS) -> np.ndarray:
    """Categories numbered by frequency, from 0, the rarest ones as one; missing is a category."""
    _, where, counts = np.unique(codes, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return np.minimum(rank[where], most - 1)


def one_hot(
    x: np.ndarray, numeric: np.ndarray, most: int = MOST_LEVELS
) -> tuple[np.ndarray, np.ndarray]:
    """Quantities with 0 where missing beside an indicator of it, and one-hot categories.

    Args:
        x: ``(N, D)``, quantities, and codes of categories; NaN is missing.
        numeric: ``(D,)``, which columns hold quantities.
        most: levels of a category.

    Returns:
        ``(N, E)``, and for each of its columns whether it stands for a quantity, ``(E,)``.
    """
    columns, quantities = [], []
    for column, quantity in zip(x.T, numeric, strict=True):
        missing = np.isnan(column)
        if not quantity:
            codes = common_levels(column, most)
            columns += [codes == level for level in range(codes.max() + 1)]
        else:
            columns += [np.where(missing, 0, column), *([missing] if missing.any() else [])]
        quantities += [quantity] * (len(columns) - len(quantities))
    return np.stack(columns, 1).astype(np.float64), np.array(quantities)


def boosted(numeric: np.ndarray, quantity: bool, seed: int, **options: Any) -> Any:  # noqa: ANN401
    """Gradient boosted trees.

    Args:
        numeric: ``(D,)``, which of the columns that are read hold quantities.
        quantity: whether a quantity is predicted, and no category.
        seed: of a sample of rows.
        options: of scikit-learn's ``HistGradientBoosting`` classes.
    """
    from sklearn import ensemble

    kind = "Regressor" if quantity else "Classifier"
    make = getattr(ensemble, f"HistGradientBoosting{kind}")
    return make(categorical_features=~numeric, random_state=seed, early_stopping=False, **options)


def area(positive: np.ndarray, score: np.ndarray) -> tuple[float, np.ndarray]:
    """The area under the ROC curve, and the influence of each row on it.

    The influences sum to 0, and the root of the sum of their squares is DeLong's standard error.

    Args:
        positive: ``(N,)`` truth.
        score: ``(N,)``, larger for rows held to be positive.

    References:
        DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44.
    """
    from scipy.stats import rankdata

    p, n = int(positive.sum()), int((~positive).sum())
    ranks, influence = rankdata(score), np.empty(len(score))
    beaten = (ranks[positive] - rankdata(score[positive])) / n  # the share of negatives below
    influence[positive] = (beaten - beaten.mean()) / p
    beating = 1 - (ranks[~positive] - rankdata(score[~positive])) / p
    influence[~positive] = (beating - beating.mean()) / n
    return float(beaten.mean()), influence


def explained(truth: np.ndarray, guess: np.ndarray) -> tuple[float, np.ndarray]:
    """The share of variance that a guess explains (R squared), and each row's influence on it."""
    error, spread = (truth - guess) ** 2, (truth - truth.mean()) ** 2
    total = spread.sum()
    if total == 0:
        return math.nan, np.zeros(len(truth))
    ratio = error.sum() / total
    return float(1 - ratio), (ratio * spread - error) / total
