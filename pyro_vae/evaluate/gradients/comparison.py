"""What a gradient estimator costs: its variance, its bias and its time, at fixed weights."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor

from ...core.modes import untouched
from ...core.seeding import seeded
from ...infer.estimators.estimator import Estimator, make_estimator
from ...language.spec import Spec
from ...model.vae import VAE
from .references import Reference, References
from .sample import MEASURED, Sample, sample_gradients, trainable

if TYPE_CHECKING:
    from xarray import Dataset

__all__ = ["as_table", "compare_estimators"]

GROUPS = {"prior": "prior", "likelihood": "likelihood", "guide": "approximation",
          "encoder": "encoder", "decoder": "decoder"}  # fmt: skip
ABOUT = {  # variable: what it is, and its unit
    "value_mean": ("mean of the bound", "nats per datum"),
    "value_sd": ("standard deviation of the bound of the batch", "nats per datum"),
    "value_mcse": ("Monte Carlo standard error of value_mean", "nats per datum"),
    "grad_variance": (
        "variance of one gradient draw (trace of the covariance)",
        "(nats per datum)^2",
    ),
    "grad_variance_se": ("standard error of grad_variance", "(nats per datum)^2"),
    "snr": ("norm of the mean gradient over the root of its variance", ""),
    "cosine": ("mean cosine of one gradient draw and the reference", ""),
    "bias": ("norm of the bias, relative to the reference", ""),
    "bias_z": ("z-score of the bias", ""),
    "ms_per_draw": ("median time of a gradient draw", "ms"),
    "work": ("grad_variance times ms_per_draw", "ms (nats per datum)^2"),
    "evaluations": ("evaluations of log p(x|z) per datum and draw", ""),
}
LEAST = 1e-300  # a tail probability; its z-score is 37
WHOLE = ("value_mean", "value_sd", "value_mcse", "ms_per_draw", "evaluations")
EstimatorLike = str | Spec | ELBO | Estimator


def compare_estimators(
    vae: VAE,
    x: Tensor,
    estimators: Sequence[EstimatorLike],
    *,
    num_draws: int = 1000,
    seed: int = 0,
    reference: EstimatorLike | Mapping[str, Tensor] | None = None,
    burn_in: int = 500,
    coordinates: bool = False,
    compile: bool = False,
) -> "Dataset":
    r"""Draw each estimator's gradient many times at the model's weights, and compare.

    A gradient is that of the estimator's bound per datum of the batch, in ascent:
    :math:`g = -\nabla \text{loss} / B`. With :math:`m` the mean of n draws, :math:`S` their
    covariance and :math:`r` the reference, on the coordinates of one group of parameters:

    .. math::
        \text{grad\_variance} = \operatorname{tr} S, \qquad
        \text{snr}^2 = \frac{\|m\|^2 - \operatorname{tr} S / n}{\operatorname{tr} S}, \qquad
        \text{bias}^2 = \frac{\|m - r\|^2 - \operatorname{tr} V}{\|r\|^2}, \qquad
        F = \frac{\|m - r\|^2}{\operatorname{tr} V}

    where :math:`V = S/n + S_r/n_r` is the covariance of :math:`m - r`. Squares that noise leaves
    below 0 are 0. An unbiased estimator's F is about Fisher's with :math:`\nu = (\operatorname{tr}
    V)^2 / \operatorname{tr} V^2` and :math:`(n - 1) \nu` degrees of freedom; ``bias_z`` is its
    upper tail probability as a standard normal's quantile: one-sided, about N(0, 1) without bias,
    37 at most. The cosine is that of one draw with the reference, on average: noise lowers it.
    The time is that of the estimator's own ``loss_and_grads``, of a few draws.

    A trainable baseline learns for ``burn_in`` draws at the model's weights and is then frozen; a
    decaying mean is warmed up likewise. The model is in evaluation mode, and is as before
    afterwards. The draws of all estimators start from the same seeds.

    Args:
        vae: a model, at the weights where the estimators are compared.
        x: a batch, ``(B, *x_shape)``.
        estimators: lines, or Pyro ``ELBO`` objects.
        num_draws: of each estimator; at least 4. The reference has four times as many.
        seed: of all draws; at least 0.
        reference: an unbiased estimator, or the exact gradient of the ELBO per datum by parameter.
            By default exact enumeration where z has at most 4,096 states, else the first of the
            analytic KL, pathwise, and RLOO with 10 particles that serves the guide. An
            estimator of another bound (IWAE, Rényi) is compared with a reference for that bound.
        burn_in: see above.
        coordinates: also give the variance of each coordinate, ``coordinate_variance``.
        compile: compile the draws, which takes 5 to 20 s for each estimator: it pays from about
            5,000 draws of large networks.

    Returns:
        A dataset over (estimator, parameter). The parameters are the groups ``prior``,
        ``likelihood``, ``guide``, ``encoder``, ``decoder``, then ``all``, then each tensor; the
        coordinate ``size`` counts theirs, and a group that trains nothing is NaN. ``bound`` and
        ``reference`` say by estimator what is estimated and compared with; without a reference
        ``cosine``, ``bias`` and ``bias_z`` are NaN, and so they are for groups with parameters of
        the guide where an estimator gives it an objective of its own (RWS). ``work`` (variance
        times milliseconds), divided by the variance that is aimed at, is the time to reach it by
        averaging.

    Raises:
        ValueError: an estimator that cannot serve the guide, data that are not the model's, or
            numbers out of range.

    References:
        Mohamed et al. (2020), arXiv:1906.10652; Rainforth et al. (2018), arXiv:1802.04537 (signal
        to noise); Dempster (1958), Annals of Mathematical Statistics 29, and Box (1954), ibid. 25
        (the distribution of F).

    >>> vae = VAE(4, latent_dim=2, likelihood="Normal", encoder="MLP([3])", seed=0)
    >>> lines = ["Trace_ELBO", "Trace_ELBO(gradient=score)"]
    >>> found = compare_estimators(vae, torch.zeros(8, 4), lines, num_draws=20)
    >>> bool(found.grad_variance.sel(parameter="all").diff("estimator") > 0)  # score: more
    True
    """
    x = vae.check(x)
    _check_numbers(num_draws=(num_draws, 4), burn_in=(burn_in, 1), seed=(seed, 0))
    if isinstance(estimators, str) or not len(estimators):
        raise ValueError(f"estimators is a list of at least one line, got {estimators!r}")
    if not trainable(vae):
        raise ValueError("the model has no trainable parameter, so there is no gradient")
    made = [copy(make_estimator(one)) for one in estimators]
    with pyro.get_param_store().scope(), seeded(seed), untouched(vae):
        for estimator in made:
            estimator.check(vae.model, vae.guide, x)
        with pyro.validation_enabled(False):
            how = {"num_draws": num_draws, "burn_in": burn_in, "seed": seed}
            references = References(vae, x, reference, **how)
            samples, compared = [], []
            for estimator in made:
                compared.append(references.of(estimator))
                towards = None if compared[-1] is None else compared[-1].mean
                samples.append(
                    sample_gradients(
                        vae,
                        estimator,
                        x,
                        stream=MEASURED,
                        towards=towards,
                        coordinates=coordinates,
                        compile=compile,
                        **how,
                    )
                )
    found = _dataset(vae, made, samples, compared, coordinates)
    return found.assign_attrs(num_draws=num_draws, seed=seed, batch_size=len(x))


def as_table(dataset: "Dataset", parameter: str = "all") -> pd.DataFrame:
    """A row by estimator, of one group of parameters or tensor.

    Args:
        dataset: of :func:`compare_estimators`.
        parameter: which.
    """
    chosen = dataset.sel(parameter=parameter)
    table = pd.DataFrame({name: chosen[name].to_numpy() for name in ABOUT})
    table.insert(0, "bound", chosen.bound.to_numpy())
    table.insert(len(table.columns), "reference", chosen.reference.to_numpy())
    return table.set_index(pd.Index(chosen.estimator.to_numpy(), name="estimator"))


def _dataset(
    vae: VAE,
    estimators: Sequence[Estimator],
    samples: Sequence[Sample],
    references: Sequence[Reference | None],
    coordinates: bool,
) -> "Dataset":
    import xarray as xr

    names = list(trainable(vae))
    members = {g: [n.split(".")[0] == part for n in names] for g, part in GROUPS.items()}
    members |= {"all": [True] * len(names)} | {n: [n == m for m in names] for n in names}
    group = np.array(list(members.values()), dtype=float)
    eps = max(torch.finfo(p.dtype).eps for p in trainable(vae).values())
    guide = group @ [n.split(".")[0] in (GROUPS["guide"], GROUPS["encoder"]) for n in names] > 0
    rows = [
        _row(s, r, group, eps, guide & (e.ascends == "model"))
        for e, s, r in zip(estimators, samples, references, strict=True)
    ]
    variables = {
        name: (("estimator",) if name in WHOLE else ("estimator", "parameter"),
               np.stack([row[name] for row in rows]), {"long_name": text, "units": unit})
        for name, (text, unit) in ABOUT.items()
    }  # fmt: skip
    found = xr.Dataset(
        variables,
        coords={
            "estimator": unique([str(e) for e in estimators]),
            "parameter": list(members),
            "size": ("parameter", (group @ samples[0].moments.sizes).astype(int)),
            "bound": ("estimator", [str(e.bound or "unknown") for e in estimators]),
            "reference": ("estimator", [r.line if r else "none" for r in references]),
        },
    )
    if coordinates:
        variance = np.stack([s.moments.variance.cpu().numpy() for s in samples])
        tensor = np.repeat(np.array(names, dtype=object), samples[0].moments.sizes)
        found["coordinate_variance"] = (("estimator", "coordinate"), variance)
        found = found.assign_coords(tensor=("coordinate", tensor))
    return found


def _row(
    sample: Sample,
    reference: Reference | None,
    group: np.ndarray,
    eps: float,
    elsewhere: np.ndarray,
) -> dict[str, np.ndarray]:
    """Everything that is measured of one estimator, by row of ``group``.

    Rows in ``elsewhere`` are of another objective, and not to be compared with the reference.
    """
    moments, n = sample.moments, sample.moments.count
    trace, square, error = _traces(sample, group)
    missing = np.full(len(group), np.nan)
    row = {
        "value_mean": sample.values.mean(), "value_sd": sample.values.std(ddof=1),
        "value_mcse": sample.values.std(ddof=1) / n**0.5, "evaluations": sample.evaluations,
        "ms_per_draw": np.median(sample.seconds) * 1e3,
        "grad_variance": trace, "grad_variance_se": error,
        "cosine": missing, "bias": missing, "bias_z": missing,
    }  # fmt: skip
    norm = _norms(moments.mean, moments.sizes, group)
    with np.errstate(divide="ignore", invalid="ignore"):
        row["snr"] = np.sqrt(np.maximum(norm - trace / n, 0) / trace)
        if reference is not None:
            norm_r = _norms(reference.mean, moments.sizes, group)
            lengths = np.sqrt(moments.norms() @ group.T * norm_r)
            cosines = np.divide(moments.dots() @ group.T, lengths)
            row["cosine"] = np.where(lengths > 0, cosines, 0).mean(0)
            trace_v, root = trace / n, np.sqrt(square) / n
            if reference.sample is not None:
                other, other_square, _ = _traces(reference.sample, group)
                n_r = reference.sample.moments.count
                trace_v, root = trace_v + other / n_r, root + np.sqrt(other_square) / n_r
            distance = _norms(moments.mean - reference.mean, moments.sizes, group)
            row["bias"] = np.sqrt(np.maximum(distance - trace_v, 0) / norm_r)
            rounding = (64 * eps) ** 2 * np.maximum(norm, norm_r)
            row["bias_z"] = _z_score(distance, trace_v, root, rounding, n)
            row |= {k: np.where(elsewhere, np.nan, row[k]) for k in ("cosine", "bias", "bias_z")}
    row["work"] = trace * row["ms_per_draw"]
    empty = group @ moments.sizes == 0
    return {k: v if k in WHOLE else np.where(empty, np.nan, v) for k, v in row.items()}


def _traces(sample: Sample, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Traces of the covariance of one draw and of its square, and the error of the first."""
    moments = sample.moments
    increments = moments.increments() @ group.T
    error = increments.std(0, ddof=1) / len(increments) ** 0.5
    square = np.square(moments.pairs() @ group.T).mean(0)
    return group @ moments.trace, square, error


def _norms(vector: Tensor, sizes: Sequence[int], group: np.ndarray) -> np.ndarray:
    squares = torch.stack([part.square().sum() for part in vector.split(list(sizes))])
    return group @ squares.cpu().numpy()


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


def unique(names: Sequence[str]) -> list[str]:
    """Names with a number where they repeat."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    counts = dict.fromkeys(seen, 0)
    found = []
    for name in names:
        counts[name] += 1
        found.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return found


def _check_numbers(**limits: tuple[int, int]) -> None:
    for name, (value, least) in limits.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
