"""What scikit-learn's classifiers and regressors learn from coded tables, with errors."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .coding import Coded

__all__ = ["area", "explained", "one_hot", "predictions", "two_sample"]

MOST_LEVELS = 100  # of a category that a classifier reads; the rarer ones are one
FOLDS = 3  # of two-sample tests
CLASSES = 10  # of a target; the rarer ones are one
REST = -1.0  # the class of the rarer ones
TREES = 50  # for each class; twice as many change the area under the curve by less than its error
ROWS = 10_000  # to learn from, and to predict, where there are several targets


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


def predictions(
    test: Coded, train: Coded, targets: Sequence[int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """How well boosted trees trained on one table predict columns of another from the rest.

    The score of a category is the area under the ROC curve, the mean over its classes where there
    are more than two (the ten most frequent, and the rest as one); that of a quantity is R squared.

    Args:
        test: real rows, coded together with ``train``.
        train: the rows to learn from.
        targets: the columns, by number.
        seed: of the trees, and of 10,000 rows of each table where there are more, and several
            targets.

    Returns:
        Scores ``(T,)``, NaN where the test rows hold one class only, and the influence ``(T, N)``
        of each test row on them: the root of the sum of squares is a standard error.
    """
    scores, influences = np.empty(len(targets)), np.zeros((len(targets), len(test)))
    both = np.concatenate([test.values, train.values])
    for d in np.flatnonzero(~test.numeric):
        both[:, d] = np.where(np.isnan(both[:, d]), np.nan, common_levels(both[:, d]))
    x = both[: len(test)], both[len(test) :]
    rows = [np.arange(len(table)) for table in x]
    if len(targets) > 1:
        generator = np.random.default_rng(seed)
        rows = [generator.permutation(some)[:ROWS] for some in rows]
    for k, target in enumerate(targets):
        known = [some[~np.isnan(table[some, target])] for table, some in zip(x, rows, strict=True)]
        scores[k], influences[k, known[0]] = _predict(
            x[0][known[0]], x[1][known[1]], target, test.numeric, seed
        )
    return scores, influences


def _predict(
    test: np.ndarray, train: np.ndarray, target: int, numeric: np.ndarray, seed: int
) -> tuple[float, np.ndarray]:
    """The score of one target, and the influence of each test row."""
    rest = np.arange(len(numeric)) != target
    y, z = test[:, target], train[:, target]
    if numeric[target]:
        if not len(z) or not rest.any():
            return explained(y, np.full(len(y), z.mean() if len(z) else 0.0))
        model = boosted(numeric[rest], True, seed, max_iter=TREES).fit(train[:, rest], z)
        return explained(y, model.predict(test[:, rest]))
    levels, counts = np.unique(y, return_counts=True)
    common = levels[np.argsort(-counts, kind="stable")][: CLASSES - 1]
    y, z = (np.where(np.isin(column, common), column, REST) for column in (y, z))
    levels = np.unique(y)
    if len(levels) < 2:
        return math.nan, np.zeros(len(y))
    scores = dict.fromkeys(levels, np.zeros(len(y)))  # a class that was not learned from
    if len(np.unique(z)) > 1 and rest.any():
        model = boosted(numeric[rest], False, seed, max_iter=TREES).fit(train[:, rest], z)
        scores |= dict(zip(model.classes_, model.predict_proba(test[:, rest]).T, strict=True))
    parts = [area(y == level, scores[level]) for level in levels[len(levels) == 2 :]]
    values, influences = zip(*parts, strict=True)
    return float(np.mean(values)), np.mean(influences, 0)


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
