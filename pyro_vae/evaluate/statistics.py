"""Means of weights, standard errors, chunks and tables: what several evaluations share."""

import math
from collections.abc import Mapping

import pandas as pd
from torch import Tensor

__all__ = ["by_observation", "chunks", "log_mean_exp", "standard_error"]


def chunks(values: Tensor, cost: float, budget: int) -> tuple[Tensor, ...]:
    """Split along the first dimension, so that each part costs at most ``budget``.

    Args:
        values: ``(N, ...)``.
        cost: numbers in memory for one entry.
        budget: numbers in memory at once; one entry is always allowed.
    """
    return values.split(max(1, int(budget // cost)))


def standard_error(values: Tensor) -> Tensor:
    """Standard error of the mean over the first dimension."""
    return values.std(0) / math.sqrt(len(values))


def log_mean_exp(log_w: Tensor) -> tuple[Tensor, Tensor]:
    r"""Logarithm of the mean weight, and its standard error by the delta method.

    .. math:: \frac{\mathrm{sd}(w)}{\bar w \sqrt K}

    Args:
        log_w: ``(K, N)``.

    Returns:
        ``(N,)`` each.
    """
    k, log_w = len(log_w), log_w.double()
    share = log_w.softmax(0)
    error = ((share.square().sum(0) - 1 / k) * (k / (k - 1))).clamp(min=0).sqrt()
    return log_w.logsumexp(0) - math.log(k), error


def by_observation(columns: Mapping[str, Tensor]) -> pd.DataFrame:
    """A table with a row for each observation, of vectors ``(N,)``."""
    arrays = {name: values.cpu().numpy() for name, values in columns.items()}
    return pd.DataFrame(arrays).rename_axis("observation")
