"""Train on synthetic rows, test on real ones: what a table is worth to those who predict."""

import math
from collections.abc import Sequence

import numpy as np

from .coding import Coded
from .learners import area, boosted, common_levels, explained

__all__ = ["predictions"]

CLASSES = 10  # of a target; the rarer ones are one
REST = -1.0  # the class of the rarer ones
TREES = 50  # for each class; twice as many change the area under the curve by less than its error
ROWS = 10_000  # to learn from, and to predict, where there are several targets


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
