"""Stacking: the weights of models whose mixture predicts best."""

import numpy as np
from torch import Tensor

__all__ = ["stacking_weights"]

ENOUGH, STEPS = 1e-10, 1000  # nats a step can still gain, at most; and steps


def stacking_weights(log_p: np.ndarray, counts: Tensor | None = None) -> np.ndarray:
    r"""The weights of the mixture of models whose mean log score is the highest.

    .. math:: \max_{w \in \Delta} \frac1N \sum_n \log \sum_m w_m\, p_m(x_n)

    The problem is concave. At weights w no others gain more than
    :math:`\log \max_m \overline{p_m / \sum_l w_l p_l}` nats per observation, so that the answer
    proves itself.

    Args:
        log_p: log p(x) by observation and model, ``(N, M)``.
        counts: weights of the observations, ``(N,)``, which the mean is by.

    Returns:
        ``(M,)``, which sum to 1.

    References:
        Yao, Vehtari, Simpson & Gelman (2018), arXiv:1704.02030.

    >>> stacking_weights(np.log([[0.9, 0.1], [0.1, 0.9]])).round(3).tolist()
    [0.5, 0.5]
    """
    from scipy.optimize import minimize

    p = np.exp(log_p - log_p.max(1, keepdims=True))
    m = p.shape[1]
    c = np.ones(len(p)) if counts is None else (counts / counts.mean()).numpy(force=True)
    found = minimize(
        lambda w: -(c * np.log(p @ w)).mean(),
        np.full(m, 1 / m),
        jac=lambda w: -_ratios(p, w, c),
        method="SLSQP",
        bounds=[(1e-12, 1.0)] * m,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(m)},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    w = found.x.clip(0) / found.x.clip(0).sum()
    for _ in range(STEPS):
        if np.log((ratios := _ratios(p, w, c)).max()) < ENOUGH:
            break
        w = w * ratios  # an EM step, which never loses
    return w


def _ratios(p: np.ndarray, w: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The mean of each model's density over that of the mixture, ``(M,)``."""
    return (p * (c / (p @ w))[:, None]).mean(0)
