"""Pictures: functions that take data and axes, draw, and return the axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from .vae import VAE, point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from xarray import Dataset

__all__ = [
    "gradient_variance", "images", "latent_space", "learning_curves", "reconstructions", "samples",
    "save", "training_curves",
]  # fmt: skip

CELL = 0.6  # inches of an image in a grid


def learning_curves(history: pd.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """The ELBO of training and validation data over the epochs.

    Args:
        history: of a :class:`~pyro_vae.Fit`.
        ax: to draw on; new ones where it is not given.
    """
    ax = ax or _axes(6, 3.6)
    ax.plot(history.index, history.elbo_train, label="training data")
    if history.elbo_validation.notna().any():
        ax.plot(history.index, history.elbo_validation, label="validation data")
    shown = history.iloc[len(history) // 20 :]  # the first epochs would flatten the rest
    values = shown[["elbo_train", "elbo_validation"]].stack()
    low, high = values.min(), values.max()
    ax.set_ylim(low - 0.05 * (high - low) - 1e-6, high + 0.05 * (high - low) + 1e-6)
    ax.set(xlabel="epoch", ylabel="ELBO (nats per datum)", title="Learning curves")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def images(x: Tensor, columns: int = 8, ax: "Axes | None" = None, title: str = "") -> "Axes":
    """Images in a grid.

    Args:
        x: ``(N, C, H, W)``, ``(N, H, W)`` or ``(N, D)`` with a square number D of pixels.
        columns: how many stand in a row.
        ax: to draw on.
        title: above it.
    """
    pictures = _as_images(x)
    rows = -(-len(pictures) // columns)
    ax = ax or _axes(columns * CELL, rows * CELL + 0.4)
    n, h, w, c = pictures.shape
    paper = pictures.max() if c == 3 else pictures.min()
    grid = torch.full((rows * columns, h + 2, w + 2, c), float(paper))
    grid[:n, 1:-1, 1:-1] = pictures
    grid = grid.reshape(rows, columns, h + 2, w + 2, c).transpose(1, 2)
    grid = grid.reshape(rows * (h + 2), columns * (w + 2), c)
    ax.imshow((grid.squeeze(-1) if c == 1 else grid.clamp(0, 1)).numpy(), cmap="gray_r")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    return ax


def reconstructions(vae: VAE, x: Tensor, ax: "Axes | None" = None) -> "Axes":
    """Data, and beneath each its reconstruction.

    Args:
        vae: a model of images.
        x: ``(N, *x_shape)``; a row holds up to 12.
        ax: to draw on.
    """
    columns = min(len(x), 12)
    gap = x.new_full((-len(x) % columns, *x.shape[1:]), float(x.min())).cpu()
    both = (torch.cat([part.cpu(), gap]).split(columns) for part in (x, vae.reconstruct(x)))
    rows = zip(*both, strict=True)
    pairs = torch.cat([part for pair in rows for part in pair])
    return images(pairs, columns, ax, "Data, and beneath them their reconstructions")


def samples(vae: VAE, num_samples: int = 64, *, seed: int = 0, ax: "Axes | None" = None) -> "Axes":
    """Means of p(x|z) for z drawn from the prior.

    Args:
        vae: a model of images.
        num_samples: how many.
        seed: of the draws.
        ax: to draw on.
    """
    x = vae.sample(num_samples, mean=True, seed=seed).cpu()
    columns = min(12, round(num_samples**0.5 * 1.4) or 1)
    return images(x, columns, ax, "Samples from the prior")


@torch.no_grad()
def latent_space(
    vae: VAE, x: Tensor, labels: Tensor | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Where data lie in z: the two first principal components of the guide's means.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        labels: ``(N,)``, for the colour.
        ax: to draw on.
    """
    from sklearn.decomposition import PCA

    z = point(vae.encode(vae.as_data(x))).flatten(1).cpu().double().numpy()
    axis_names = ["z1", "z2"]
    if z.shape[1] > 2:
        pca = PCA(2).fit(z)
        z = pca.transform(z)
        shares = pca.explained_variance_ratio_
        axis_names = [f"component {i + 1} ({s:.0%})" for i, s in enumerate(shares)]
    ax = ax or _axes(5.2, 4.4)
    across, up = z[:, 0], z[:, 1] if z.shape[1] > 1 else 0 * z[:, 0]
    colour = None if labels is None else labels.cpu().numpy()
    few = colour is not None and len(set(colour.tolist())) <= 10
    shade = {} if colour is None else {"c": colour, "cmap": "tab10" if few else "viridis"}
    drawn = ax.scatter(across, up, s=6, alpha=0.8, **shade)
    if few:
        names = drawn.legend_elements(fmt="{x:g}")
        ax.legend(*names, frameon=False, fontsize=8, bbox_to_anchor=(1, 1))
    ax.set(xlabel=axis_names[0], ylabel=axis_names[1], title="Means of q(z|x)")
    return ax


def gradient_variance(
    dataset: "Dataset", ax: "Axes | None" = None, parameter: str = "all"
) -> "Axes":
    """The variance of one gradient draw by estimator, on a logarithmic scale.

    Args:
        dataset: of :func:`~pyro_vae.compare_estimators`.
        ax: to draw on.
        parameter: a group of parameters, or one tensor.
    """
    chosen = dataset.sel(parameter=parameter)
    names = [str(name) for name in chosen.estimator.to_numpy()]
    variance, error = chosen.grad_variance.to_numpy(), chosen.grad_variance_se.to_numpy()
    ax = ax or _axes(6.4, 0.8 + 0.42 * len(names))
    least = min((v for v in variance if v > 0), default=1.0)
    for row, (height, spread) in enumerate(zip(variance, error, strict=True)):
        if height > 0:
            ax.barh(row, height, xerr=min(spread, 0.99 * height), color="C0", capsize=2)
        else:
            ax.text(least, row, "0: exact" if height == 0 else "no parameters", va="center")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.set_xlabel("variance of one gradient draw, trace and standard error, (nats per datum)²")
    ax.set_title(f"Gradient variance: {parameter}")
    ax.grid(axis="x", alpha=0.3)
    return ax


def training_curves(dataset: "Dataset", axes: "Sequence[Axes]" = ()) -> "Sequence[Axes]":
    """The ELBO by estimator, against steps and against seconds.

    Args:
        dataset: of :func:`~pyro_vae.train_estimators`.
        axes: two to draw on; new ones, side by side, where they are not given.
    """
    if not len(axes):
        from matplotlib import pyplot

        axes = pyplot.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")[1]
    held_out = bool(dataset.elbo_validation.notnull().any())
    bound = dataset.elbo_validation if held_out else dataset.elbo_train
    shown = bound.isel(epoch=slice(bound.sizes["epoch"] // 20, None))  # as in learning_curves
    low, high = float(shown.min()), float(shown.max())
    steps = dataset.step.broadcast_like(bound)
    across = {"steps": steps, "seconds of training": dataset.seconds}
    for ax, (label, values) in zip(axes, across.items(), strict=True):
        for name in bound.estimator:
            ax.plot(values.sel(estimator=name), bound.sel(estimator=name), label=name.item())
        ax.set_ylim(low - 0.05 * (high - low) - 1e-6, high + 0.05 * (high - low) + 1e-6)
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
    data = "validation" if held_out else "training"
    axes[0].set_ylabel(f"ELBO of {data} data (nats per datum)")
    axes[0].legend(frameon=False, fontsize=8)
    return axes


def save(ax: "Axes", path: str | Path) -> Path:
    """Write the figure of some axes and close it."""
    from matplotlib import pyplot

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure = ax.get_figure()
    figure.savefig(path, dpi=150, bbox_inches="tight")  # pyright: ignore
    pyplot.close(figure)  # pyright: ignore
    return Path(path)


def _axes(width: float, height: float) -> "Axes":
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height))[1]


def _as_images(x: Tensor) -> Tensor:
    """``(N, H, W, C)``."""
    x = x.detach().cpu().float()
    if x.ndim == 2:
        side = round(x.shape[1] ** 0.5)
        if side * side != x.shape[1]:
            raise ValueError(f"{x.shape[1]} numbers are no square image: reshape x to (N, C, H, W)")
        x = x.reshape(len(x), 1, side, side)
    elif x.ndim == 3:
        x = x.unsqueeze(1)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"expected images of shape (N, C, H, W) with C 1 or 3, got {tuple(x.shape)}"
        )
    return x.permute(0, 2, 3, 1)
