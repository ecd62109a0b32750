"""Models by held-out log p(x): differences paired by observation, and stacking weights."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import whole
from ...core.pareto import RELIABLE
from ...language.arguments import suggests
from ...model.vae import VAE
from ...program.program import Program
from ..evidence.importance import Evidence, log_evidence
from ..statistics import best_column, by_observation, combined_error, mean, standard_error
from .measures import check_one_measure

__all__ = ["Comparison", "compare", "differences", "named", "stacking_weights", "weights_of"]

ENOUGH, STEPS = 1e-10, 1000  # nats a step of stacking can still gain, at most; and steps


@dataclass(frozen=True)
class Comparison:
    """Held-out log p(x) of several models, by observation.

    Attributes:
        pointwise: log p(x) in nats, a row an observation and a column a model.
        khat: Pareto's k-hat of each of these figures.
        monte_carlo_error: the standard error of each, from drawing z.
        row_weights: of the observations, ``(N,)``, where a model was told of some: every mean, sum
            and error over the data is then by them, and ``elpd`` is N times the weighted mean.
    """

    pointwise: pd.DataFrame
    khat: pd.DataFrame
    monte_carlo_error: pd.DataFrame
    row_weights: Tensor | None = None

    @cached_property
    def weights(self) -> pd.Series:
        """Stacking weights: those of the mixture of the models with the highest mean score."""
        w = stacking_weights(self.pointwise.to_numpy(), self.row_weights)
        return pd.Series(w, self.pointwise.columns, name="weight")

    @property
    def table(self) -> pd.DataFrame:
        """A row a model, the best one first.

        ``elpd``, the sum of log p(x) over the data, with its standard error ``se``; ``difference``
        to the best model, with the error of a paired difference, ``difference_se``; ``weight``
        (stacking); ``mc_error``, the part of ``se`` that is from drawing z; ``doubtful``, the share
        of data with k-hat above 0.7, for which log p(x) is too low.
        """
        n, counts = len(self.pointwise), self.row_weights
        found = differences(self.pointwise, best_column(self.pointwise, counts), counts)
        errors = torch.tensor(self.monte_carlo_error.to_numpy())
        table = pd.DataFrame(
            {
                "elpd": n * found["log_evidence"],
                "se": n * found["standard_error"],
                "difference": n * found["difference"],
                "difference_se": n * found["difference_standard_error"],
                "weight": self.weights,
                "mc_error": n * combined_error(errors, counts).numpy(force=True),
                "doubtful": (self.khat > RELIABLE).mean(),
            }
        )
        return table.sort_values("elpd", ascending=False)

    def __repr__(self) -> str:
        head = f"log p(x) of {len(self.pointwise)} observations, nats; the best model first"
        return f"{head}\n{self.table.to_string(float_format='{:.2f}'.format)}"


@suggests
def compare(
    vaes: Sequence[VAE | Program] | Mapping[str, VAE | Program],
    x: Tensor | ArrayLike | None = None,
    *,
    num_samples: int = 1000,
    seed: int | None = None,
) -> Comparison:
    r"""Compare trained models by log p(x) of held-out data.

    .. math:: \mathrm{elpd}_m = \sum_n \log p_m(x_n), \quad
        \mathrm{se}(\mathrm{elpd}_a - \mathrm{elpd}_b) =
        \sqrt{N}\, \mathrm{sd}_n \big(\log p_a(x_n) - \log p_b(x_n)\big)

    The parameters are fixed and z is integrated out, so that :func:`~pyro_vae.log_evidence` of each
    model is all that is computed. The difference to the best of many models is too sure of itself
    where they are nearly equal: the best one is chosen by the same data.

    Args:
        vaes: the models, ``[a, b]`` (named by their numbers) or ``{"flow": a, "normal": b}``,
            programs too.
        x: held-out data, as each model takes them: ``(N, *x_shape)``, blocks by name, or a frame.
            A :class:`Program` carries its own, which are the same, in the same order.
        num_samples: draws of z per observation and model.
        seed: of the draws, the same for each model.

    Returns:
        :class:`Comparison`, which prints as its ``table``; ``pointwise``, ``weights``, ``khat``.

    Raises:
        ValueError: fewer than two models; data that one of them refuses; log p(x) with respect to
            different measures: probabilities beside densities, other cells, or other units.

    References:
        Vehtari, Gelman & Gabry (2017), arXiv:1507.04544; Yao, Vehtari, Simpson & Gelman (2018),
        arXiv:1704.02030, for the weights.

    >>> import torch
    >>> from pyro_vae import VAE
    >>> a, b = (VAE(2, latent_dim=1, likelihood="Normal", seed=seed) for seed in (0, 1))
    >>> compare({"a": a, "b": b}, torch.zeros(9, 2), num_samples=50, seed=0).weights.sum().round(6)
    np.float64(1.0)
    """
    models, num_samples = named(vaes), whole("num_samples", num_samples, 2)
    seed = None if seed is None else whole("seed", seed, 0, 2**64 - 1)
    if len(models) < 2:
        raise ValueError(f"a comparison needs two models or more, got {len(models)}")
    data = {name: _data(name, vae, x) for name, vae in models.items()}
    check_one_measure(models, data)
    found = {
        name: log_evidence(vae, data[name], num_samples=num_samples, num_simulated=0, seed=seed)
        for name, vae in models.items()
    }

    def frame(part: str) -> pd.DataFrame:
        return by_observation({name: getattr(each, part).double() for name, each in found.items()})

    log_p, khat, error = (frame(part) for part in ("log_evidence", "khat", "standard_error"))
    return Comparison(log_p, khat, error, weights_of(found.values()))


def _data(name: str, vae: VAE | Program, x: Tensor | ArrayLike | None) -> Tensor:
    """The observations of a model: those that a program carries, or x."""
    if vae.observations is not None:
        return vae.observations
    if x is None:
        raise ValueError(f"{name} is a {type(vae).__name__}, which carries no data: give x")
    return vae.check(x)


def named(
    vaes: Sequence[VAE | Program] | Mapping[str, VAE | Program],
) -> dict[str, VAE | Program]:
    """Models by name; those of a list are named by their numbers.

    Raises:
        ValueError: something that is no model.
    """
    if not isinstance(vaes, Mapping):
        if isinstance(vaes, VAE | Program):
            raise ValueError("one model was given: give several, [a, b] or {'a': a, 'b': b}")
        if not isinstance(vaes, list | tuple):
            raise ValueError(
                f"the models come first, [a, b] or {{'a': a, 'b': b}}, got {type(vaes).__name__}"
            )
        vaes = {str(i): vae for i, vae in enumerate(vaes)}
    for name, vae in vaes.items():
        if not isinstance(vae, VAE | Program):
            raise ValueError(
                f"{name} is a {type(vae).__name__}: give models, pyro_vae.VAE or pyro_vae.Program, "
                "[a, b]"
            )
    return dict(vaes)


def weights_of(found: Iterable[Evidence]) -> Tensor | None:
    """The weights of the observations, of those models that were told of some.

    Raises:
        ValueError: two models were told of different ones.
    """
    told = [each.weights.double().cpu() for each in found if each.weights is not None]
    for other in told[1:]:
        if not torch.allclose(other / other.mean(), told[0] / told[0].mean()):
            raise ValueError(
                "two models were told of different weights of these observations, so their means "
                "are of different populations: give models of one weight"
            )
    return told[0] if told else None


def differences(log_p: pd.DataFrame, to: str, counts: Tensor | None = None) -> pd.DataFrame:
    """Mean log p(x) of each model, and its mean difference to one of them, with their errors.

    Args:
        log_p: a row an observation, a column a model.
        to: the model that the others are compared with.
        counts: weights of the observations, ``(N,)``.
    """
    values = torch.tensor(log_p.to_numpy())
    gaps = values - torch.tensor(log_p[to].to_numpy())[:, None]
    return pd.DataFrame(
        {
            "log_evidence": mean(values, counts),
            "standard_error": standard_error(values, counts),
            "difference": mean(gaps, counts),
            "difference_standard_error": standard_error(gaps, counts),
        },
        index=log_p.columns,
    )


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
