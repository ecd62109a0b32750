"""The figures of a gradient estimator, by group of parameters, from its draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...infer.estimators.estimator import Estimator
from ...model.face import Face
from .references import Reference
from .sample import Sample

__all__ = ["FIGURES", "Groups", "Measurement", "figures"]

FIGURES = {  # what it is, and its unit; the first five are of the estimator as a whole
    "value_mean": ("mean of the bound", "nats per observation"),
    "value_sd": ("standard deviation of the bound of the batch", "nats per observation"),
    "value_mcse": ("Monte Carlo standard error of value_mean", "nats per observation"),
    "grad_variance": (
        "variance of one gradient draw (trace of the covariance)",
        "(nats per observation)^2",
    ),
    "grad_variance_se": ("standard error of grad_variance", "(nats per observation)^2"),
    "snr": ("norm of the mean gradient over the root of its variance", ""),
    "cosine": ("mean cosine of one gradient draw and the reference", ""),
    "bias": ("norm of the bias, relative to the reference", ""),
    "bias_z": ("z-score of the bias", ""),
    "ms_per_draw": ("median time of a gradient draw", "ms"),
    "work": ("grad_variance times ms_per_draw", "ms (nats per observation)^2"),
    "evaluations": ("evaluations of log p(x|z) per observation and draw", ""),
}
LEAST = 1e-300  # a tail probability; its z-score is 37


@dataclass
class Measurement:
    """An estimator, its draws, and the reference for its bound."""

    estimator: Estimator
    sample: Sample
    reference: Reference | None


class Groups:
    """The G groups of a model's parameters: its parts, then ``all``, then each of T tensors.

    A part without parameters, as a network of no layers, is no group. ``with_guide`` ``(G,)`` says
    which hold parameters of the guide, ``rounding`` is the relative rounding error of a norm.
    """

    def __init__(self, vae: Face) -> None:
        parameters = vae.trainable
        self.tensors = list(parameters)
        self.sizes = [p.numel() for p in parameters.values()]
        parts = {role: names for role, names in vae.parameter_groups().items() if names}
        groups = parts | {"all": self.tensors}
        members = {role: [n in names for n in self.tensors] for role, names in groups.items()}
        members |= {name: [name == other for other in self.tensors] for name in self.tensors}
        self.names = list(members)
        self._matrix = np.array(list(members.values()), dtype=float)
        of_guide = vae.guide_parameters()
        self.with_guide = self.sum([name in of_guide for name in self.tensors]) > 0
        self.rounding = 64 * max(torch.finfo(p.dtype).eps for p in parameters.values())

    def sum(self, values: Sequence | np.ndarray) -> np.ndarray:
        """From values by tensor, ``(..., T)``, to sums by group, ``(..., G)``."""
        return np.asarray(values) @ self._matrix.T

    def norms(self, vector: Tensor) -> np.ndarray:
        """Squared norms of a gradient ``(P,)`` by group."""
        squares = torch.stack([part.square().sum() for part in vector.split(self.sizes)])
        return self.sum(squares.cpu().numpy())


@dataclass
class Spread:
    """Trace of the covariance of a gradient draw with its error, and of its square, by group."""

    trace: np.ndarray
    error: np.ndarray
    square: np.ndarray
    count: int

    @classmethod
    def of(cls, sample: Sample, groups: Groups) -> "Spread":
        """The covariance of a sample."""
        moments = sample.moments
        increments = groups.sum(moments.by_draw("increments"))
        error = increments.std(0, ddof=1) / len(increments) ** 0.5
        square = np.square(groups.sum(moments.by_draw("pairs"))).mean(0)
        return cls(groups.sum(moments.trace), error, square, moments.count)


def figures(measurement: Measurement, groups: Groups) -> dict[str, np.ndarray]:
    """The values of ``FIGURES``: numbers, or by group ``(G,)``; 0 where there is no gradient."""
    sample, moments = measurement.sample, measurement.sample.moments
    spread = Spread.of(sample, groups)
    sd, milliseconds = sample.values.std(ddof=1), np.median(sample.seconds) * 1e3
    whole = {
        "value_mean": sample.values.mean(),
        "value_sd": sd,
        "value_mcse": sd / spread.count**0.5,
        "ms_per_draw": milliseconds,
        "evaluations": np.array(sample.evaluations),
    }
    norm = groups.norms(moments.mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_group = {
            "grad_variance": spread.trace,
            "grad_variance_se": spread.error,
            "snr": _root(norm - spread.trace / spread.count, spread.trace),
            "work": spread.trace * milliseconds,
            **_against(measurement, groups, spread, norm),
        }
    return whole | by_group


def _root(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The root of a share that noise may leave below 0, as 0; nothing of nothing is 0."""
    part = np.maximum(part, 0)
    return np.where(part > 0, np.sqrt(part / whole), 0)


def _against(
    measurement: Measurement, groups: Groups, spread: Spread, norm: np.ndarray
) -> dict[str, np.ndarray]:
    """Cosine and bias against the reference, of groups that follow the same objective."""
    moments, reference = measurement.sample.moments, measurement.reference
    if reference is None:
        return dict.fromkeys(("cosine", "bias", "bias_z"), np.full(len(norm), np.nan))
    norm_r = groups.norms(reference.mean)
    lengths = np.sqrt(groups.sum(moments.by_draw("norms")) * norm_r)
    cosines = np.divide(groups.sum(moments.by_draw("dots")), lengths)
    n = spread.count
    trace, root = spread.trace / n, np.sqrt(spread.square) / n
    if reference.sample is not None:
        other = Spread.of(reference.sample, groups)
        trace, root = trace + other.trace / other.count, root + np.sqrt(other.square) / other.count
    distance = groups.norms(moments.mean - reference.mean)
    rounding = groups.rounding**2 * np.maximum(norm, norm_r)
    values = {
        "cosine": np.where(lengths > 0, cosines, 0).mean(0),
        "bias": _root(distance - trace, norm_r),
        "bias_z": _z_score(distance, trace, root, rounding, n),
    }
    elsewhere = groups.with_guide & (measurement.estimator.ascends == "model")
    return {name: np.where(elsewhere, np.nan, v) for name, v in values.items()}


def _z_score(
    distance: np.ndarray, trace: np.ndarray, root: np.ndarray, rounding: np.ndarray, n: int
) -> np.ndarray:
    """The upper tail probability of Dempster's F as a quantile of the standard normal.

    ``root`` is a bound on the root of the trace of V squared: by Cauchy and Schwarz it is at most
    the sum of the two samples'. Without variance the two are equal up to ``rounding``, or not.
    """
    from scipy.special import fdtrc, ndtri

    nu = np.maximum(np.divide(trace, root, where=root > 0, out=np.ones_like(trace)) ** 2, 1)
    f = np.divide(distance, trace, where=trace > rounding, out=np.zeros_like(trace))
    p = np.clip(fdtrc(nu, nu * (n - 1), f), LEAST, 1 - 1e-16)
    exact = np.where(distance > rounding, -ndtri(LEAST), 0)
    return np.where(trace > rounding, -ndtri(p), exact)
