"""What a gradient estimator costs: its variance, its bias and its time, at fixed weights."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyro
from torch import Tensor

from ...core.acting import differentiates, evaluating
from ...infer.estimators.estimator import Estimator, make_estimator
from ...infer.estimators.soundness import check_and_nest
from ...model.entry import of_face
from ...model.face import Face
from .figures import FIGURES, Groups, Measurement, figures
from .references import EstimatorLike, References
from .sample import MEASURED, Plan, forget_sources, sample_gradients

if TYPE_CHECKING:
    from xarray import Dataset

__all__ = ["as_table", "compare_estimators", "make_estimators", "unique"]


@of_face
@differentiates
def compare_estimators(
    vae: Face,
    x: Tensor,
    estimators: Sequence[EstimatorLike],
    *,
    num_draws: int = 1000,
    seed: int = 0,
    reference: EstimatorLike | Mapping[str, Tensor] | None = None,
    burn_in: int = 500,
    compile: bool = False,
) -> "Dataset":
    r"""Draw each estimator's gradient many times at the model's weights, and compare.

    A gradient is that of the estimator's bound per observation of the batch, in ascent:
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
    The time is the median of a few calls of the estimator's own ``loss_and_grads``.

    A trainable baseline learns for ``burn_in`` draws at the model's weights and is then frozen; a
    decaying mean is warmed up likewise. The model is in evaluation mode, and is as before
    afterwards. The draws of all estimators start from the same seeds.

    Args:
        vae: a model, at the weights where the estimators are compared, or a :class:`Program`, which
            carries its x.
        x: a batch, ``(B, *x_shape)``.
        estimators: lines, or Pyro ``ELBO`` objects.
        num_draws: of each estimator, at least 4. The reference has four times as many.
        seed: of all draws.
        reference: an unbiased estimator, or the exact gradient of the ELBO per observation, by
            parameter. By default exact enumeration where z has at most 4,096 states, else the first
            of the analytic KL, pathwise, and RLOO with 10 particles that serves the guide. An
            estimator of another bound (IWAE, Rényi) is compared with a reference for that bound.
        burn_in: see above.
        compile: whether to compile the draws, which takes 5 to 20 s for each estimator: it pays
            from about 5,000 draws of large networks.

    Returns:
        A dataset over (estimator, parameter). The parameters are the groups ``prior``,
        ``likelihood``, ``guide``, ``encoder``, ``decoder`` (of a program ``model`` and ``guide``),
        then ``all``, then each tensor; the
        coordinate ``size`` counts their numbers, and a part without any is left out. ``bound`` and
        ``reference`` are those of each estimator; without a reference
        ``cosine``, ``bias`` and ``bias_z`` are NaN, and so they are for groups with parameters of
        the guide where an estimator gives it an objective of its own (RWS). ``work`` (variance
        times milliseconds), divided by the variance that is aimed at, is the time to reach it by
        averaging.

    Raises:
        ValueError: an estimator that cannot serve the guide, data outside the likelihood's support
            or of another shape, or numbers out of range.

    References:
        Mohamed et al. (2020), arXiv:1906.10652; Rainforth et al. (2018), arXiv:1802.04537 (signal
        to noise); Dempster (1958), Annals of Mathematical Statistics 29, and Box (1954), ibid. 25
        (the distribution of F).

    >>> import torch
    >>> from pyro_vae import VAE
    >>> vae = VAE(4, latent_dim=2, likelihood="Normal", encoder="MLP([3])", seed=0)
    >>> lines = ["Trace_ELBO", "Trace_ELBO(gradient=score)"]
    >>> dataset = compare_estimators(vae, torch.zeros(8, 4), lines, num_draws=20)
    >>> bool(dataset.grad_variance.sel(parameter="all").diff("estimator") > 0)  # score: more
    True
    """
    x = vae.check(x)
    plan = Plan(vae, x, num_draws, burn_in, seed, compile)
    lines = make_estimators(estimators)
    if not vae.trainable:
        raise ValueError("the model has no trainable parameter, so there is no gradient")
    with evaluating(vae, plan.seed), forget_sources():
        for estimator in lines:
            check_and_nest(estimator, vae.model, vae.guide, x)
        with pyro.validation_enabled(False):
            references = References(plan, reference)
            measurements = [_measure(plan, estimator, references) for estimator in lines]
    dataset = _dataset(measurements, Groups(vae))
    return dataset.assign_attrs(num_draws=plan.num_draws, seed=plan.seed, batch_size=plan.count)


def as_table(dataset: "Dataset", parameter: str = "all") -> pd.DataFrame:
    """A row for each estimator, for one group of parameters or one tensor.

    Args:
        dataset: of :func:`compare_estimators`.
        parameter: the name of the group or tensor.

    Raises:
        ValueError: a group that the dataset has not.
    """
    if parameter not in dataset.parameter:
        known = ", ".join(map(str, dataset.parameter.values))
        raise ValueError(f"no parameters are in {parameter!r}: it is one of {known}")
    chosen = dataset.sel(parameter=parameter)
    table = pd.DataFrame({name: chosen[name].to_numpy() for name in FIGURES})
    table.insert(0, "bound", chosen.bound.to_numpy())
    table.insert(len(table.columns), "reference", chosen.reference.to_numpy())
    return table.set_index(pd.Index(chosen.estimator.to_numpy(), name="estimator"))


def make_estimators(estimators: Sequence[EstimatorLike]) -> list[Estimator]:
    """New estimators from their lines.

    Raises:
        ValueError: no list, or an empty one.
    """
    if isinstance(estimators, str) or not len(estimators):
        raise ValueError(f"estimators is a list of at least one line, got {estimators!r}")
    return [copy(make_estimator(one)) for one in estimators]


def unique(names: Sequence[object]) -> list[str]:
    """Names with a number where they repeat."""
    counts: dict[str, int] = {}
    numbered = []
    for name in map(str, names):
        counts[name] = counts.get(name, 0) + 1
        numbered.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return numbered


def _measure(plan: Plan, estimator: Estimator, references: References) -> Measurement:
    reference = references.of(estimator)
    towards = None if reference is None else reference.mean
    return Measurement(estimator, sample_gradients(plan, estimator, MEASURED, towards), reference)


def _dataset(measurements: Sequence[Measurement], groups: Groups) -> "Dataset":
    import xarray as xr

    rows = [figures(measurement, groups) for measurement in measurements]
    variables = {}
    for name, (text, unit) in FIGURES.items():
        values = np.stack([row[name] for row in rows])
        dims = ("estimator", "parameter")[: values.ndim]
        variables[name] = (dims, values, {"long_name": text, "units": unit})
    estimators = [m.estimator for m in measurements]
    return xr.Dataset(
        variables,
        coords={
            "estimator": unique(estimators),
            "parameter": groups.names,
            "size": ("parameter", groups.sum(groups.sizes).astype(int)),
            "bound": ("estimator", [str(e.bound or "unknown") for e in estimators]),
            "reference": (
                "estimator",
                [m.reference.line if m.reference else "none" for m in measurements],
            ),
        },
    )
