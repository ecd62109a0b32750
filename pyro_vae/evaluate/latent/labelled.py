"""The latent space against labels: clusters, and disentanglement by labelled factors."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import whole
from ...model.entry import of_model
from ...model.joint import Joint, reading
from ...model.latents import point
from ...model.vae import VAE
from ..statistics import check_equal
from .summary import cross_factors, dimension_names

__all__ = ["FactorScores", "factor_scores", "label_scores"]

MAX_SEED = 2**32 - 1  # of scikit-learn's
MOST_LEVELS = 20  # of labels, where they are more than half of the rows


@of_model
@torch.no_grad()
def label_scores(
    vae: VAE,
    x: Tensor | ArrayLike,
    labels: ArrayLike,
    *,
    neighbors: int = 10,
    folds: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """How well the guide's means tell labels apart that the model has not seen.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        labels: ``(N,)``, classes.
        neighbors: how many of an observation's neighbours vote.
        folds: of the cross-validation, with every class in each.
        seed: of the folds.

    Returns:
        Rows ``knn_accuracy``, ``linear_accuracy`` (logistic regression), both cross-validated, and
        ``silhouette`` (-1 to 1; how much closer z is to its own class than to the next).
        Columns ``value``, ``standard_error`` over the data, ``chance`` (the largest class; 0).

    Raises:
        ValueError: labels that do not fit the data, or a class with fewer data than folds.

    References:
        Rousseeuw (1987), Journal of Computational and Applied Mathematics 20, for the silhouette.

    >>> vae = VAE(2, latent_dim=2, likelihood="Normal", seed=0)
    >>> x, labels = torch.randn(40, 2), [0, 1] * 20
    >>> list(label_scores(vae, x, labels).index)
    ['knn_accuracy', 'linear_accuracy', 'silhouette']
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import silhouette_samples
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    neighbors, folds = whole("neighbors", neighbors), whole("folds", folds, 2)
    seed = whole("seed", seed, 0, MAX_SEED)
    x = vae.check(x)
    check_equal([vae.weights_of(x)], "label_scores")
    z = _features(vae, x)
    labels = _as_labels(labels, len(z))
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < folds:
        raise ValueError(
            f"{len(counts)} classes, the smallest of {counts.min()}: "
            f"expected two or more, of at least {folds} observations each (folds={folds})"
        )
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    probes = {
        "knn_accuracy": KNeighborsClassifier(neighbors),
        "linear_accuracy": make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
    }
    scores: dict[str, Any] = {
        k: cross_val_predict(p, z, labels, cv=split) == labels for k, p in probes.items()
    }
    scores["silhouette"] = silhouette_samples(z, labels)
    majority = counts.max() / counts.sum()
    rows = {
        k: (v.mean(), v.std(ddof=1) / math.sqrt(len(v)), 0.0 if k == "silhouette" else majority)
        for k, v in scores.items()
    }
    return pd.DataFrame(rows, index=["value", "standard_error", "chance"]).T


@dataclass(frozen=True)
class FactorScores:
    """Disentanglement: how far each factor has a latent dimension of its own, from 0 to 1.

    Attributes:
        mig: the mutual information gap.
        disentanglement: 1 where each dimension serves one factor.
        completeness: 1 where each factor is served by one dimension.
        informativeness: accuracy of a random forest on held-out data.
        mutual_information: ``(D, F)`` in nats, by latent dimension and factor.
        importance: ``(D, F)``, of a random forest's features; columns sum to 1.
    """

    mig: float
    disentanglement: float
    completeness: float
    informativeness: float
    mutual_information: pd.DataFrame
    importance: pd.DataFrame


@of_model
@torch.no_grad()
def factor_scores(
    vae: VAE, x: Tensor | ArrayLike, factors: pd.DataFrame | ArrayLike, *, seed: int = 0
) -> FactorScores:
    r"""Disentanglement by labelled factors: MIG and DCI.

    .. math:: \mathrm{MIG} = \frac1F \sum_k \frac{1}{H(v_k)}
        \left(I(z_{(1)}; v_k) - I(z_{(2)}; v_k)\right)

    with the two dimensions of the largest mutual information. DCI takes the feature importances of
    a random forest for each factor. None of the scores is invariant under a rotation of z, to which
    the likelihood of a model with a normal prior is blind.

    Args:
        vae: a trained model whose guide has known marginals.
        x: ``(N, *x_shape)``; the time grows with N squared.
        factors: ``(N, F)`` categories, with names where it is a data frame.
        seed: of the draws, the forest and the split.

    Returns:
        :class:`FactorScores`.

    Raises:
        ValueError: factors that do not fit the data or are constant; a guide whose marginals are
            not known.

    References:
        Chen et al. (2018), arXiv:1802.04942; Eastwood & Williams (2018), "A framework for the
        quantitative evaluation of disentangled representations".

    >>> vae = VAE(2, latent_dim=2, likelihood="Normal", seed=0)
    >>> x = torch.randn(60, 2)
    >>> factor_scores(vae, x, (x > 0).long().numpy()).mutual_information.shape
    (2, 2)
    """
    seed = whole("seed", seed, 0, MAX_SEED)
    data = vae.check(x)
    check_equal([vae.weights_of(data)], "factor_scores")
    table = pd.DataFrame(np.asarray(factors)) if not isinstance(factors, pd.DataFrame) else factors
    if len(table) != len(data):
        raise ValueError(f"{len(table)} rows of factors for {len(data)} observations")
    codes = {str(k): _as_labels(v, len(data)) for k, v in table.items()}
    if constant := [k for k, v in codes.items() if len(np.unique(v)) < 2]:
        raise ValueError(f"factor {constant[0]} has one value only: leave it out")
    with reading(vae, seed):
        information = _information(Joint(vae, data), codes)
    entropy = np.array([_entropy(np.bincount(v) / len(v)) for v in codes.values()])
    top = np.sort(information, 0)[::-1]
    second = top[1].clip(min=0) if len(top) > 1 else 0.0  # noise around 0 is no information
    importance, accuracy = _forests(_features(vae, data), codes, seed)
    names = {"index": dimension_names(vae, len(information)), "columns": list(codes)}
    return FactorScores(
        float(((top[0] - second) / entropy).mean()),
        *_dci(importance),
        accuracy,
        pd.DataFrame(information, **names),
        pd.DataFrame(importance, **names),
    )


def _information(joint: Joint, codes: dict[str, np.ndarray]) -> np.ndarray:
    """I(z_j; v_k), ``(D, F)``: the mixture of a class against that of all data."""
    z = joint.guide.sample()
    n, information = len(z), []
    for rows, log_q in cross_factors(joint.guide, z):
        every, parts = log_q.logsumexp(1) - math.log(n), []
        for values in codes.values():
            v = torch.as_tensor(values, device=z.device)
            same = v[rows, None] == v
            own = log_q.masked_fill(~same[..., None], -math.inf).logsumexp(1)
            parts.append(own - same.sum(1, keepdim=True).log() - every)
        information.append(torch.stack(parts, -1))
    return torch.cat(information).mean(0).double().cpu().numpy()


def _forests(z: np.ndarray, codes: dict[str, np.ndarray], seed: int) -> tuple[np.ndarray, float]:
    """Importances ``(D, F)`` and the mean held-out accuracy."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(len(z)), random_state=seed)
    importance, accuracy = [], []
    every: Any = 1.0  # a tree that may not see the right dimension makes do with another
    for v in codes.values():
        forest = RandomForestClassifier(100, max_features=every, random_state=seed)
        forest.fit(z[train], v[train])
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(z[test], v[test]))
    return np.stack(importance, 1), float(np.mean(accuracy))


def _dci(importance: np.ndarray) -> tuple[float, float]:
    """Disentanglement and completeness of ``(D, F)``."""
    d, f = importance.shape
    importance = np.where(importance.sum(0) > 0, importance, 1.0)  # of what no dimension tells
    weight = importance.sum(1) / importance.sum()
    rows = importance / np.maximum(importance.sum(1, keepdims=True), 1e-300)
    columns = importance / np.maximum(importance.sum(0, keepdims=True), 1e-300)
    by_row = [1 - (_entropy(r) / math.log(f) if f > 1 else 0.0) for r in rows]
    by_column = [1 - (_entropy(c) / math.log(d) if d > 1 else 0.0) for c in columns.T]
    return float(weight @ np.array(by_row)), float(np.mean(by_column))


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def _features(vae: VAE, x: Tensor) -> np.ndarray:
    """The guide's means, ``(N, D)``."""
    with reading(vae, 0):
        return point(vae.encode(x)).flatten(1).double().cpu().numpy()


def _as_labels(labels: Any, n: int) -> np.ndarray:  # noqa: ANN401
    """Classes numbered from 0, ``(N,)``."""
    values = np.asarray(labels)
    if values.shape != (n,):
        raise ValueError(f"expected labels of shape ({n},), got {values.shape}")
    if (unknown := np.asarray(pd.isna(values))).any():
        raise ValueError(f"the label of row {int(unknown.argmax())} is missing: leave the row out")
    levels, codes = np.unique(values, return_inverse=True)
    if len(levels) > max(MOST_LEVELS, n / 2):
        raise ValueError(
            f"{len(levels)} labels of {n} rows differ, and labels are classes: cut numbers into "
            "some, pandas.qcut(values, 20, labels=False)"
        )
    return codes
