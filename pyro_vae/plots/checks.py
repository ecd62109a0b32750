"""Checks of a model: evidence, gaps, calibration, predictions."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..core.checks import boolean, whole
from ..core.seeding import seeded
from ..model.entry import of_model
from ..model.vae import VAE
from .axes import finish, ink, line_looks, new_axes

if TYPE_CHECKING:
    from arviz import InferenceData
    from matplotlib.axes import Axes

    from ..evaluate.evidence.importance import Evidence
    from ..evaluate.guide.calibration import Calibration
    from ..evaluate.latent.summary import LatentSummary

__all__ = ["calibration", "gaps", "khat", "latent_kl", "posterior", "predictive_check"]

LEVEL = 0.99  # probability that all lines of an exact guide stay within the band
NAMES = 12  # of lines, below each other


def latent_kl(summary: "LatentSummary", ax: "Axes | None" = None) -> "Axes":
    """KL(q(z|x) || p(z)) by latent dimension, largest first; collapsed ones are grey.

    Args:
        summary: of :func:`~pyro_vae.latent_summary`.
        ax: to draw on.

    Raises:
        ValueError: the guide or the prior has no density by dimension.
    """
    table = summary.dimensions.sort_values("kl", ascending=False)
    if table["kl"].isna().to_numpy().all():
        raise ValueError("the guide or the prior has no density by dimension")
    ax = ax or new_axes(6, 3.6)
    across = np.arange(len(table))
    for active, colour, label in ((True, "C0", "active"), (False, "0.6", "collapsed")):
        some = table["active"].to_numpy() == active
        if some.any():
            error = table["kl_error"][some] if len(table) <= 60 else None
            bars = ax.bar(across[some], table["kl"][some], yerr=error, ecolor=ink(), capsize=2)
            bars.set_label(label)
            for bar in bars:
                bar.set_color(colour)
    few = len(table) <= 25
    names = [str(name) for name in table.index]
    ax.set_xticks(across if few else [], names if few else [], rotation=90)
    unit = "KL (nats per observation)"
    return finish(ax, "KL by latent dimension", "latent dimension", unit, grid="y")


def khat(evidence: "Evidence", ax: "Axes | None" = None) -> "Axes":
    """Pareto k-hat of each observation against its log p(x); above 0.7 the estimate is too low.

    Args:
        evidence: of :func:`~pyro_vae.log_evidence`.
        ax: to draw on.

    Raises:
        ValueError: too few draws for a k-hat.
    """
    from ..core.pareto import RELIABLE

    values = evidence.khat.cpu().numpy()
    if np.isnan(values).all():
        raise ValueError(f"{evidence.num_samples} draws are too few for a k-hat: take 25 or more")
    ax = ax or new_axes(6, 3.6)
    across = evidence.log_evidence.cpu().numpy()
    floor = min(0.0, values[np.isfinite(values)].min(initial=0.0))  # no tail: minus infinity
    values = values.clip(min=floor)
    doubtful = values > RELIABLE
    for some, colour in ((~doubtful, "C0"), (doubtful, "C3")):
        ax.scatter(across[some], values[some], s=9, alpha=0.8, color=colour)
    ax.axhline(RELIABLE, color="C3", lw=1, ls="--")
    ax.set_ylim(top=max(1.0, values.max() + 0.05))
    title = f"k-hat: {doubtful.mean():.1%} above {RELIABLE}"
    return finish(ax, title, "log p(x), nats", "Pareto k-hat")


def gaps(table: pd.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Gaps between log p(x) and the ELBO: mean and standard error, and a dot for each observation.

    Args:
        table: of :func:`~pyro_vae.gaps`.
        ax: to draw on.
    """
    rows = {
        "log p(x) - ELBO": table["log_evidence"] - table["elbo"],
        "encoder\n(amortization)": table["amortization"],
        "guide's family\n(approximation)": table["approximation"],
        "gain of a full\ncovariance": table["elbo_full"] - table["elbo_local"],
    }
    ax = ax or new_axes(6, 3)
    spread = np.linspace(-0.22, 0.22, len(table))
    for i, values in enumerate(rows.values()):
        ax.barh(i, values.mean(), color=f"C{i}", alpha=0.5)
        ax.scatter(values, i + spread, s=5, color=f"C{i}")
        ax.errorbar(values.mean(), i, xerr=values.sem(), color=ink(), capsize=3)  # pyrefly: ignore[bad-argument-type]
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    return finish(ax, f"Gaps of {len(table)} observations", "nats per observation", grid="x")


def calibration(
    result: "Calibration", ax: "Axes | None" = None, *, coverage: bool = False
) -> "Axes":
    """Empirical distribution of the ranks minus the uniform one, a line for each column.

    Where the guide is the posterior, all lines stay within the band with a probability of 99 %.
    Those that leave it are coloured. The line of a guide that is too narrow first rises and then
    falls; that of one too wide does the reverse.

    Args:
        result: of :func:`~pyro_vae.calibration`.
        ax: to draw on.
        coverage: draw how often central intervals hold the true value in place of the ranks: a
            line below 0 is of a guide that is too narrow.

    References:
        Säilynoja, Bürkner & Vehtari (2022), arXiv:2103.10522, for bands that hold simultaneously.
    """
    covering = boolean("coverage", coverage)
    table = result.coverage(LEVEL) if covering else result.bands(LEVEL)
    u = table.index.to_numpy()
    lower, upper = (table.pop(side) - u for side in ("lower", "upper"))
    ax = ax or new_axes(6, 3.6)
    ax.fill_between(u, lower, upper, color="0.6", alpha=0.3, lw=0)
    looks = line_looks()
    for name, values in table.items():
        apart = values - u
        if ((apart < lower) | (apart > upper)).any():
            ax.plot(u, apart, lw=1.5, label=str(name), zorder=3, **next(looks))
        else:
            ax.plot(u, apart, lw=0.8, color="0.5", alpha=0.7)
    words = ("Calibration ranks", "rank, as a share", "observed minus uniform")
    if covering:
        title, x = "Coverage of central intervals", "probability of the interval"
        words = (title, x, "observed minus nominal")
    finish(ax, *words)
    if (legend := ax.get_legend()) is not None:  # beside the lines, which it would hide
        columns = -(-len(legend.get_texts()) // NAMES)
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1), "ncols": columns}
        ax.legend(frameon=False, fontsize=8, **place)
    return ax


@of_model
@torch.no_grad()
def predictive_check(
    vae: VAE,
    x: Tensor,
    statistic: Callable[[Tensor], Tensor] | None = None,
    num_replicates: int = 20,
    *,
    seed: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """A statistic of held-out data, and of data sets of the same size drawn from p(x).

    The drawn observations have the contexts, offsets and holes of the held-out ones, of which those
    with weights are each kept with a probability in proportion to it.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        statistic: from ``(N, *x_shape)`` to ``(N,)``; the mean of the cells by default.
        num_replicates: how many data sets are drawn.
        seed: of the draws.
        ax: to draw on.
    """
    num_replicates = whole("num_replicates", num_replicates)
    x = vae.as_data(x)
    reduce = statistic or (lambda some: some.flatten(1).float().nanmean(1))
    name = "mean of the cells" if statistic is None else "statistic"

    def measured(cells: Tensor) -> np.ndarray:
        found = torch.as_tensor(reduce(cells)).cpu()
        if found.shape != cells.shape[:1]:
            raise ValueError(
                f"statistic gives a number of each observation, ({len(cells)},), got a shape of "
                f"{tuple(found.shape)}"
            )
        return found.numpy()

    with seeded(seed):
        x = x[vae.representative(x)]
        cells = vae.record.cells(x)
        many = (vae.sample(given=x)[0].to(cells) for _ in range(num_replicates))
        drawn = [measured(one.where(~cells.isnan(), torch.nan)) for one in many]
    observed = measured(cells)
    ax = ax or new_axes(6, 3.6)
    for i, values in enumerate(drawn):
        label = "" if i else "draws of p(x)"
        ax.ecdf(values, color="C0", alpha=0.4, lw=0.8, label=label)
    ax.ecdf(observed, color=ink(), lw=2, label="data")
    return finish(ax, "Predictive check", name, "share of data below")


def posterior(
    draws: "InferenceData",
    observation: int = 0,
    dims: Sequence[int] = (0, 1),
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws of one observation's posterior by Markov chains, and of the guide beside them.

    Args:
        draws: of :func:`~pyro_vae.posterior`.
        observation: the number of the observation.
        dims: two latent dimensions; for a z of one dimension histograms are drawn.
        ax: to draw on.
    """
    names = [str(name) for name in np.asarray(draws["posterior"]["latent_dim"])]
    count = draws["posterior"]["z"].shape[2]
    observation = whole("observation", observation, 0, count - 1)
    if len(names) > 1 and len(dims) != 2:
        raise ValueError(f"dims are two latent dimensions, such as (0, 1), got {dims!r}")
    dims = [whole("dims", dim, 0, len(names) - 1) for dim in dims if len(names) > 1]
    ax = ax or new_axes(4.6, 4.2)
    parts = {"posterior, by chains": draws["posterior"], "guide": draws["guide"]}
    for (label, group), colour in zip(parts.items(), ("0.5", "C0"), strict=True):
        z = np.asarray(group["z"])[:, :, observation]
        z = z.reshape(z.shape[0] * z.shape[1], -1)
        if z.shape[1] == 1:
            ax.hist(z[:, 0], 40, density=True, alpha=0.5, color=colour, label=label)
        else:
            across, up = (z[:, i] for i in dims)
            ax.scatter(across, up, s=4, alpha=0.5, color=colour, label=label)
    x, y = (names[0], "density") if len(names) == 1 else (names[i] for i in dims)
    return finish(ax, f"Posterior of observation {observation}", x, y)
