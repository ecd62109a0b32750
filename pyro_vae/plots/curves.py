"""Curves over the epochs, and what gradient estimators cost."""

from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from .axes import clip_start, finish, line_looks, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from xarray import Dataset

__all__ = ["gradient_variance", "kl_curve", "learning_curves", "training_curves"]


def learning_curves(history: pd.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """The ELBO of training and validation data over the epochs.

    Args:
        history: of a :class:`~pyro_vae.Fit`.
        ax: to draw on; new ones by default.
    """
    ax = ax or new_axes(6, 3.6)
    _draw(ax, history.index, history.elbo_train, label="training data")
    if history.elbo_validation.notna().any():
        _draw(ax, history.index, history.elbo_validation, label="validation data")
    shown = history.iloc[len(history) // 20 :]  # the first epochs would flatten the rest
    values: Any = shown[["elbo_train", "elbo_validation"]].stack()
    clip_start(ax, values.min(), values.max())
    return _by_epoch(finish(ax, "Learning curves", "epoch", "ELBO (nats per observation)"))


def kl_curve(history: pd.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """KL(q(z|x) || p(z)) over the epochs: of validation data where there are any.

    Args:
        history: of a :class:`~pyro_vae.Fit`.
        ax: to draw on.
    """
    ax = ax or new_axes(6, 3.6)
    _draw(ax, history.index, history.kl)
    ax.set_ylim(bottom=min(0.0, history.kl.min()))
    title, unit = "KL of the guide to the prior", "KL (nats per observation)"
    return _by_epoch(finish(ax, title, "epoch", unit))


def gradient_variance(dataset: "Dataset", ax: "Axes | None" = None) -> "Axes":
    """The variance of one gradient draw of all parameters by estimator, on a logarithmic scale.

    Args:
        dataset: of :func:`~pyro_vae.compare_estimators`.
        ax: to draw on.
    """
    chosen = dataset.sel(parameter="all")
    names = [str(name) for name in chosen.estimator.to_numpy()]
    variance, error = chosen.grad_variance.to_numpy(), chosen.grad_variance_se.to_numpy()
    ax = ax or new_axes(6.4, 0.8 + 0.42 * len(names))
    least = min((v for v in variance if v > 0), default=1.0)
    for row, (height, spread) in enumerate(zip(variance, error, strict=True)):
        if height > 0:
            ax.barh(row, height, xerr=min(spread, 0.99 * height), color="C0", capsize=2)
        else:
            ax.text(least, row, "0: exact" if height == 0 else "no parameters", va="center")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xscale("log")
    unit = "variance of one gradient draw, trace and standard error, (nats per observation)²"
    return finish(ax, "Gradient variance: all", unit, grid="x")


def training_curves(
    dataset: "Dataset", ax: "Axes | None" = None, against: Literal["steps", "seconds"] = "steps"
) -> "Axes":
    """The ELBO by estimator, of validation data where there are any.

    Args:
        dataset: of :func:`~pyro_vae.train_estimators`.
        ax: to draw on.
        against: gradient steps, or the time that they took.
    """
    if against not in ("steps", "seconds"):
        raise ValueError(f"against is 'steps' or 'seconds', got {against!r}")
    held_out = bool(dataset.elbo_validation.notnull().any())
    bound = dataset.elbo_validation if held_out else dataset.elbo_train
    across = dataset.step.broadcast_like(bound) if against == "steps" else dataset.seconds
    ax = ax or new_axes(6, 3.6)
    for name, look in zip(bound.estimator, line_looks(), strict=False):
        _draw(ax, across.sel(estimator=name), bound.sel(estimator=name), label=name.item(), **look)
    shown = bound.isel(epoch=slice(bound.sizes["epoch"] // 20, None))  # as in learning_curves
    clip_start(ax, float(shown.min()), float(shown.max()))
    data = "validation" if held_out else "training"
    return finish(ax, f"ELBO of {data} data", against, "ELBO (nats per observation)")


def _draw(ax: "Axes", across: Any, up: Any, **look: Any) -> None:  # noqa: ANN401
    """A line; a dot where there is one epoch, of which no line is seen."""
    ax.plot(across, up, marker="o" if len(up) == 1 else None, **look)


def _by_epoch(ax: "Axes") -> "Axes":
    """With ticks at whole epochs."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return ax
