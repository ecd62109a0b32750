"""Whether to believe the model: evidence, gaps, calibration, predictions."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..core.seeding import seeded
from ..model.vae import VAE
from .axes import ink, new_axes

if TYPE_CHECKING:
    from arviz import InferenceData
    from matplotlib.axes import Axes

    from ..evaluate.evidence.importance import Evidence
    from ..evaluate.guide.calibration import Calibration
    from ..evaluate.latent.summary import LatentSummary

__all__ = ["calibration", "gaps", "khat", "latent_kl", "posterior", "predictive_check"]

LEVEL = 0.99  # of the band: that all lines of an exact guide stay within it


def latent_kl(summary: "LatentSummary", ax: "Axes | None" = None) -> "Axes":
    """KL(q(z|x) || p(z)) by latent dimension, largest first; collapsed ones are grey.

    Args:
        summary: of :func:`~pyro_vae.latent_summary`.
        ax: to draw on.

    Raises:
        ValueError: the guide or the prior does not say its dimensions' densities.
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
            ax.bar(across[some], table["kl"][some], yerr=error, color=colour, label=label,
                   ecolor=ink(), capsize=2)  # fmt: skip
    few = len(table) <= 25
    ax.set_xticks(across if few else [], [str(i) for i in table.index] if few else [])
    ax.set(xlabel="latent dimension", ylabel="KL (nats per datum)", title="KL by latent dimension")
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False)
    return ax


def khat(evidence: "Evidence", ax: "Axes | None" = None) -> "Axes":
    """Pareto k-hat of each datum against its log p(x): where not to trust the estimate, and whom.

    Args:
        evidence: of :func:`~pyro_vae.log_evidence`.
        ax: to draw on.

    Raises:
        ValueError: too few draws for a k-hat.
    """
    from ..evaluate.evidence.importance import RELIABLE

    values = evidence.khat.cpu().numpy()
    if np.isnan(values).all():
        raise ValueError(f"{evidence.num_samples} draws are too few for a k-hat: take 25 or more")
    ax = ax or new_axes(6, 3.6)
    across = evidence.log_evidence.cpu().numpy()
    floor = min(0.0, values[np.isfinite(values)].min(initial=0.0))  # no tail at all: minus infinity
    values = values.clip(min=floor)
    doubtful = values > RELIABLE
    for some, colour in ((~doubtful, "C0"), (doubtful, "C3")):
        ax.scatter(across[some], values[some], s=9, alpha=0.8, color=colour)
    ax.axhline(RELIABLE, color="C3", lw=1, ls="--")
    ax.set_ylim(top=max(1.0, values.max() + 0.05))
    ax.set(xlabel="log p(x), nats", ylabel="Pareto k-hat")
    ax.set_title(f"k-hat: {doubtful.mean():.1%} above {RELIABLE}")
    ax.grid(alpha=0.3)
    return ax


def gaps(table: pd.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Where log p(x) - ELBO is lost: mean and standard error, and a dot for each datum.

    Args:
        table: of :func:`~pyro_vae.gaps`.
        ax: to draw on.
    """
    rows = {
        "in all": table["log_evidence"] - table["elbo"],
        "encoder\n(amortization)": table["amortization"],
        "guide's family\n(approximation)": table["approximation"],
        "of it, what a full\ncovariance wins": table["elbo_full"] - table["elbo_local"],
    }
    ax = ax or new_axes(6, 3)
    spread = np.linspace(-0.22, 0.22, len(table))
    for i, values in enumerate(rows.values()):
        ax.barh(i, values.mean(), color=f"C{i}", alpha=0.5)
        ax.scatter(values, i + spread, s=5, color=f"C{i}")
        ax.errorbar(values.mean(), i, xerr=values.sem(), color=ink(), capsize=3)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel="nats per datum", title=f"Gaps of {len(table)} data")
    ax.grid(axis="x", alpha=0.3)
    return ax


def calibration(found: "Calibration", ax: "Axes | None" = None) -> "Axes":
    """Empirical distribution of the ranks minus the uniform one, a line for each column.

    All lines together stay within the band with a probability of 99 % where the guide is the
    posterior. Those that leave it are coloured. A guide that is too narrow rises first and falls
    then; one that is too wide does the reverse.

    Args:
        found: of :func:`~pyro_vae.calibration`.
        ax: to draw on.

    References:
        Säilynoja, Bürkner & Vehtari (2022), arXiv:2103.10522, for bands that hold simultaneously.
    """
    ranks, levels = found.ranks.to_numpy(), found.num_samples + 1
    n, columns = ranks.shape
    u = np.arange(1, levels) / levels
    sd = np.sqrt(u * (1 - u) / n)
    counts = np.random.default_rng(0).multinomial(n, np.full(levels, 1 / levels), size=10_000)
    apart = np.abs(counts.cumsum(1)[:, :-1] / n - u) / sd
    width = np.quantile(apart.max(1), LEVEL ** (1 / columns))
    ax = ax or new_axes(6, 3.6)
    ax.fill_between(u, -width * sd, width * sd, color="0.6", alpha=0.3, lw=0)
    for name, values in found.ranks.items():
        below = np.bincount(values, minlength=levels).cumsum()[:-1] / n - u
        if (np.abs(below) > width * sd).any():
            ax.plot(u, below, lw=1.5, label=str(name), zorder=3)
        else:
            ax.plot(u, below, lw=0.8, color="0.5", alpha=0.7)
    ax.set(xlabel="rank, as a share", ylabel="observed minus uniform", title="Calibration ranks")
    ax.grid(alpha=0.3)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=8, ncols=2)
    return ax


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

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        statistic: from ``(N, *x_shape)`` to ``(N,)``; the mean of a datum's cells where it is not
            given.
        num_replicates: data sets that are drawn.
        seed: of the draws.
        ax: to draw on.
    """
    x = vae.as_data(x)
    count = statistic or (lambda some: some.flatten(1).nanmean(1))
    name = "mean of a datum's cells" if statistic is None else "statistic"
    observed = count(x).cpu().numpy()
    with seeded(seed):
        drawn = [count(vae.sample(len(x))).cpu().numpy() for _ in range(num_replicates)]
    ax = ax or new_axes(6, 3.6)
    for i, values in enumerate(drawn):
        label = "" if i else "draws of p(x)"
        ax.ecdf(values, color="C0", alpha=0.4, lw=0.8, label=label)
    ax.ecdf(observed, color=ink(), lw=2, label="data")
    ax.set(xlabel=name, ylabel="share of data below", title="Predictive check")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def posterior(
    draws: "InferenceData",
    datum: int = 0,
    dims: Sequence[int] = (0, 1),
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws of one datum's posterior by Markov chains, and of the guide beside them.

    Args:
        draws: of :func:`~pyro_vae.posterior`.
        datum: its number.
        dims: two latent dimensions; of a z of one dimension, histograms are drawn.
        ax: to draw on.
    """
    ax = ax or new_axes(4.6, 4.2)
    parts = {"posterior, by chains": draws["posterior"], "guide": draws["guide"]}
    for (label, group), colour in zip(parts.items(), ("0.5", "C0"), strict=True):
        z = np.asarray(group["z"])[:, :, datum]
        z = z.reshape(z.shape[0] * z.shape[1], -1)
        if z.shape[1] == 1:
            ax.hist(z[:, 0], 40, density=True, alpha=0.5, color=colour, label=label)
        else:
            across, up = (z[:, i] for i in dims)
            ax.scatter(across, up, s=4, alpha=0.5, color=colour, label=label)
    one = draws["posterior"]["z"].shape[-1] == 1
    ax.set_xlabel(f"z[{0 if one else dims[0]}]")
    ax.set_ylabel("density" if one else f"z[{dims[1]}]")
    ax.set_title(f"Posterior of datum {datum}")
    ax.legend(frameon=False, markerscale=3)
    return ax
