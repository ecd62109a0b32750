"""Simulation-based calibration of the approximate posterior, on data drawn from the model."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import fraction, whole
from ...model.entry import of_face
from ...model.face import Densities, Face
from ...model.joint import reading
from ..statistics import UNIFORMITY, given_rows, smallest_p, uniformity

__all__ = ["Calibration", "calibration", "simultaneous_band"]

ROWS = 2**14  # draws of z at once
LEVEL = 0.01  # of the tests that the verdict rests on
STEPS = 40  # of the bisection of a band: as many binary digits


@dataclass(frozen=True)
class Calibration:
    """Ranks of the z that data were drawn with, among draws of the guide.

    ``ranks`` ``(num_data, D + 1)``, from 0 to ``num_samples``, has a column for each latent
    dimension and one for ``log_likelihood``, log p(x|z). Where the guide is the posterior, each
    column is uniform.
    """

    ranks: pd.DataFrame
    num_samples: int

    @property
    def table(self) -> pd.DataFrame:
        """By column: ``p_value`` (chi-squared, 20 bins at most), ``bias_z`` and ``spread_z``.

        ``bias_z`` is the z-score of the mean rank, ``spread_z`` that of its variance: positive
        where ranks crowd at the ends, so where the guide is too narrow.
        """
        levels = self.num_samples + 1
        u = torch.tensor((self.ranks.to_numpy() + 0.5) / levels)
        each = [uniformity(column, levels) for column in u.T]
        return pd.DataFrame(each, self.ranks.columns, UNIFORMITY)

    def bands(self, level: float = 0.99) -> pd.DataFrame:
        """The empirical distribution functions of the ranks, and a band for all of them together.

        Where the guide is the posterior, all columns stay within the band with a probability of at
        least ``level``.

        Returns:
            A row for each share u: the share of ranks below it by column, ``lower`` and ``upper``.

        References:
            Säilynoja, Bürkner & Vehtari (2022), arXiv:2103.10522.
        """
        levels = self.num_samples + 1
        u = np.arange(1, levels) / levels
        below = {
            name: np.bincount(values, minlength=levels).cumsum()[:-1] / len(values)
            for name, values in self.ranks.items()
        }
        return self._with_band(pd.DataFrame(below, index=pd.Index(u, name="u")), level)

    def coverage(self, level: float = 0.99) -> pd.DataFrame:
        """How often the guide's central intervals hold the true value, and a band for all of it.

        Args:
            level: the probability that all columns stay within the band, where the guide is the
                posterior.

        Returns:
            A row for each central interval, by its nominal probability ``interval``: the share of
            data whose value it holds by column, ``lower`` and ``upper``.
        """
        apart = (2 * self.ranks - self.num_samples).abs()
        rings = np.abs(2 * np.arange(self.num_samples + 1) - self.num_samples)
        inner = np.unique(rings)[:-1]
        nominal = [(rings <= ring).mean() for ring in inner]
        held = [(apart <= ring).mean() for ring in inner]
        table = pd.DataFrame(held, index=pd.Index(nominal, name="interval"))
        return self._with_band(table, level)

    def _with_band(self, table: pd.DataFrame, level: float) -> pd.DataFrame:
        each = fraction("level", level) ** (1 / self.ranks.shape[1])
        lower, upper = simultaneous_band(len(self.ranks), table.index.to_numpy(), each)
        return table.assign(lower=lower, upper=upper)

    @property
    def verdict(self) -> str:
        """Whether the ranks are uniform, and if not, in which way, in words."""
        table = self.table
        p = smallest_p(table)
        worst = p.min()
        if worst > LEVEL:
            return (
                f"No column of {len(self.ranks)} ranks is seen to depart from uniform "
                f"(smallest p-value {min(worst, 1.0):.2g}, corrected for {len(table)} columns)."
            )
        uneven = p <= LEVEL
        latent = uneven & (table.index.to_numpy() != "log_likelihood")
        bias, spread = (table[k].to_numpy()[latent] for k in ("bias_z", "spread_z"))
        counts = {
            "too narrow": (spread > 3).sum(),
            "too wide": (spread < -3).sum(),
            "biased": (np.abs(bias) > 3).sum(),
        }
        words = [f"{uneven.sum()} of {len(table)} columns of ranks are not uniform (p < {LEVEL})"]
        words += [f"the guide is {how} in {n} of them" for how, n in counts.items() if n]
        if not latent.any():
            how = "worse" if table["bias_z"].iloc[-1] > 0 else "better"
            words.append(f"that of log p(x|z): the guide's draws explain x {how} than the true z")
        return "; ".join(words) + "."


@of_face
@torch.no_grad()
def calibration(
    vae: Face,
    num_data: int = 1000,
    *,
    given: Tensor | ArrayLike | None = None,
    num_samples: int = 99,
    seed: int | None = None,
) -> Calibration:
    r"""Simulation-based calibration of the guide.

    .. math:: z \sim p(z), \quad x \sim p(x|z), \quad z_1 \dots z_L \sim q(z|x), \quad
        r_j = \#\{l: z_{lj} < z_j\}

    is uniform on 0 ... L for each dimension j where q(z|x) is the posterior. A guide that is the
    prior whatever x is passes this test, so the rank of log p(x|z) is tested beside. Ties are
    broken at random.

    Args:
        vae: a trained model, or a :class:`Program` whose guide reads the data.
        num_data: how many observations to draw from it, at least 20.
        given: observations whose context and offset are taken in turn, where the model reads any;
            of more than ``num_data`` as many at random.
        num_samples: L.
        seed: of the draws.

    Returns:
        :class:`Calibration`: ``ranks``, ``table`` (p-values and z-scores), ``bands()`` and
        ``coverage()`` with simultaneous bands, ``verdict``.

    Raises:
        ValueError: fewer than 20 observations, no draws, or a model that reads a context or an
            offset without ``given``.

    References:
        Talts et al. (2018), arXiv:1804.06788; Modrák et al. (2023), arXiv:2211.02383, for ranks of
        the likelihood.

    >>> from pyro_vae import VAE
    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> calibration(vae, 20, num_samples=9, seed=0).ranks.shape
    (20, 2)
    """
    num_data = whole("num_data", num_data, 20)
    num_samples = whole("num_samples", num_samples)
    vae.check_separate("calibration")
    vae.check_guide("calibration")
    with reading(vae, seed):
        given = given_rows(vae, given, num_data)
        at, size = vae.densities(), max(1, ROWS // num_samples)
        each = vae.simulate(num_data, given, size)
        ranks = torch.cat([_ranks(at(x), z, num_samples) for z, x in each])
    names = [*vae.coordinates, "log_likelihood"]
    table = pd.DataFrame(ranks.cpu().numpy(), columns=names)
    return Calibration(table.rename_axis("observation"), num_samples)


def _ranks(joint: Densities, z: object, num_samples: int) -> Tensor:
    """``(B, D + 1)``."""
    drawn, true = (
        torch.cat([joint.flat(of), joint.log_likelihood(of)[..., None]], -1)
        for of in (joint.draw(num_samples), joint.at(z))
    )
    below, ties = (drawn < true).sum(0), (drawn == true).sum(0)
    return below + (torch.rand(ties.shape, device=true.device) * (ties + 1)).long()


def simultaneous_band(num_data: int, u: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Bounds of the empirical distribution function of uniform numbers, at all points together.

    .. math:: P\Big(l_i \le \tfrac1N \#\{n: x_n \le u_i\} \le h_i \text{ for all } i\Big)
        \ge \text{level}

    The bounds are quantiles of the binomial distribution at each point, of one tail probability for
    all of them. It is the largest at which the counts, a Markov chain along the points, stay within
    the bounds often enough: ArviZ's ``ecdf_confidence_band(method="optimized")``.

    Args:
        num_data: N.
        u: points in (0, 1), rising, ``(K,)``.
        level: the probability.

    Returns:
        Lower and upper bounds, shares of the data, ``(K,)`` each.

    References:
        Säilynoja, Bürkner & Vehtari (2022), arXiv:2103.10522.

    >>> lower, upper = simultaneous_band(100, np.array([0.25, 0.5, 0.75]), 0.95)
    >>> lower.round(2).tolist(), upper.round(2).tolist()
    ([0.15, 0.39, 0.65], [0.35, 0.61, 0.85])
    """
    from scipy.stats import binom

    steps = np.diff(u, prepend=0) / (1 - np.concatenate([[0], u[:-1]]))
    narrow, wide = level, 1.0
    bounds = np.zeros(len(u), int), np.full(len(u), num_data)
    wide_enough: dict[bytes, bool] = {}  # whole numbers: most of the last steps change none
    for _ in range(STEPS):
        middle = (narrow + wide) / 2
        lower, upper = (side.astype(int) for side in binom.interval(middle, num_data, u))
        key = lower.tobytes() + upper.tobytes()
        if key not in wide_enough:
            wide_enough[key] = _inside(num_data, steps, lower, upper) >= level
        if wide_enough[key]:
            wide, bounds = middle, (lower, upper)
        else:
            narrow = middle
    return bounds[0] / num_data, bounds[1] / num_data


def _inside(n: int, steps: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The probability that the counts stay within the bounds, given the steps' probabilities."""
    from scipy.special import gammaln

    factorial = gammaln(np.arange(n + 1) + 1.0)
    before, probability = np.zeros(1, int), np.ones(1)
    for step, low, high in zip(steps, lower, upper, strict=True):
        after = np.arange(low, high + 1)
        new, left = after - before[:, None], n - after
        log_p = factorial[n - before][:, None] - factorial[new.clip(0)] - factorial[left]
        log_p += new * np.log(step) + left * np.log1p(-step)
        probability = probability @ np.where(new >= 0, np.exp(log_p), 0.0)
        before = after
    return float(probability.sum())
