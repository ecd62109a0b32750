"""Pictures of data, reconstructions and samples, and of the latent space."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import constraints

from ..core.checks import whole
from ..core.seeding import seeded
from ..evaluate.bits import levels
from ..evaluate.latent.attributes import as_numbers, attribute_step, move
from ..model.arrays import numbers
from ..model.entry import of_model
from ..model.joint import reading
from ..model.latents import point
from ..model.pieces import alone
from ..model.sequences import Sequences
from ..model.simulation import in_turn
from ..model.tables import TableRecord
from ..model.vae import VAE
from ..model.visits import VisitsRecord
from .axes import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "attribute_arithmetic",
    "has_images",
    "images",
    "interpolations",
    "latent_space",
    "reconstructions",
    "samples",
    "samples_by",
    "traversals",
]

CELL = 0.6  # inches of an image in a grid
CHANNELS = (1, 3)  # grey, or colours


def images(x: Tensor, columns: int = 8, ax: "Axes | None" = None, title: str = "") -> "Axes":
    """Images in a grid.

    Args:
        x: ``(N, C, H, W)``, ``(N, H, W)`` or ``(N, D)`` with a square number D of pixels. Colours
            lie in [0, 1], or are 8-bit (``uint8``).
        columns: images in a row.
        ax: to draw on.
        title: above it.
    """
    columns = whole("columns", columns)
    pictures = _as_images(x)
    rows = -(-len(pictures) // columns)
    ax = ax or new_axes(columns * CELL, rows * CELL + 0.4)
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


def has_images(vae: VAE) -> bool:
    """Whether a model's data are images, ``(C, H, W)`` with C 1 or 3."""
    return len(vae.x_shape) == 3 and vae.x_shape[0] in CHANNELS


@of_model
def reconstructions(vae: VAE, x: Tensor, ax: "Axes | None" = None) -> "Axes":
    """Observations, and beneath each its reconstruction.

    Args:
        vae: a model of images.
        x: ``(N, *x_shape)``; a row holds up to 12.
        ax: to draw on.
    """
    _check_arrays(vae)
    data = vae.as_data(x)
    columns, cells = min(len(data), 12), vae.record.cells(data)
    gap = cells.new_full((-len(data) % columns, *vae.x_shape), float(cells.min())).cpu()
    both = (torch.cat([part.cpu(), gap]).split(columns) for part in (cells, vae.reconstruct(data)))
    rows = zip(*both, strict=True)
    pairs = _shades(vae, torch.cat([part for pair in rows for part in pair]))
    return images(pairs, columns, ax, "Data, and beneath them their reconstructions")


@of_model
def samples(
    vae: VAE,
    num_samples: int = 64,
    *,
    given: Tensor | None = None,
    seed: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Means of p(x|z) for z drawn from the prior.

    Args:
        vae: a model of images.
        num_samples: how many.
        given: observations whose context and offset are taken in turn, where the model reads any.
        seed: of the draws.
        ax: to draw on.
    """
    num_samples = whole("num_samples", num_samples)
    x = _means(vae, num_samples, given, seed)
    columns = min(12, round(num_samples**0.5 * 1.4) or 1)
    return images(x, columns, ax, "Samples from the prior")


def samples_by(
    vaes: Mapping[str, VAE],
    num_samples: int = 12,
    *,
    given: Tensor | None = None,
    seed: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """A row for each model: means of p(x|z) for z drawn from its prior.

    Args:
        vaes: models of images, by the name that stands beside their row.
        num_samples: of each.
        given: as in :func:`samples`.
        seed: of the draws.
        ax: to draw on.
    """
    num_samples = whole("num_samples", num_samples)
    if not isinstance(vaes, Mapping) or not vaes:
        raise ValueError(f"models are given by name, {{'one': vae}}, got {type(vaes).__name__}")
    for name, vae in vaes.items():
        if not isinstance(vae, VAE):
            raise ValueError(f"each row is of a pyro_vae.VAE, got {type(vae).__name__} ({name})")
    x = [_means(vae, num_samples, given, seed) for vae in vaes.values()]
    ax = images(torch.cat(x), num_samples, ax, "Samples from the prior")
    low, high = sorted(ax.get_ylim())
    for i, name in enumerate(vaes):
        middle = low + (high - low) * (i + 0.5) / len(vaes)
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        style = {"ha": "right", "va": "center", "fontsize": 8, "annotation_clip": False}
        ax.annotate(name, (0, middle), (-6, 0), **place, **style)
    return ax


@of_model
@torch.no_grad()
def traversals(
    vae: VAE,
    x: Tensor,
    dims: Sequence[int] | None = None,
    steps: int = 9,
    ax: "Axes | None" = None,
) -> "Axes":
    """Latent traversals: one coordinate of z moves, the others stay.

    Args:
        vae: a model of images.
        x: one observation, ``(*x_shape)``; its z is the mean of q(z|x).
        dims: coordinates of z, a row each; the first 10 by default.
        steps: images in a row, at evenly spaced quantiles of the prior from 1 % to 99 %.
        ax: to draw on.

    Raises:
        ValueError: coordinates that cannot move alone, as on a simplex or a sphere.
    """
    _check_arrays(vae)
    steps = whole("steps", steps)
    x = alone(vae, x)
    with reading(vae, None):
        prior = vae.prior_at(x)
        support = None if prior.support is None else _cell(prior.support)
        if support is None or support.event_dim:
            what = "one coordinate is a label's" if support is None else f"its support is {support}"
            raise ValueError(
                f"the coordinates of z do not move alone: {what}. interpolations() moves all of "
                "them"
            )
        z = point(vae.encode(x)).flatten(1)
        with seeded(0):
            draws = prior.expand([2001]).sample().flatten(1).sort(0).values
        values = draws[torch.linspace(20, 1980, steps).round().long()]
        n = z.shape[1]
        dims = range(min(n, 10)) if dims is None else np.atleast_1d(np.asarray(dims)).tolist()
        dims = [whole("a coordinate of z", dim, -n, n - 1) for dim in dims]
        moved = z.repeat(len(dims), steps, 1)
        for row, dim in zip(moved, dims, strict=True):
            row[:, dim] = values[:, dim]
        moved = moved.reshape(-1, *vae.z_shape)
        x_hat = point(vae.decode(moved, in_turn(x, len(moved))))
    ax = images(_shades(vae, x_hat), steps, ax, "Traversals: one latent dimension moves")
    height = x_hat.shape[-2] + 2 if x_hat.ndim > 2 else round(x_hat.shape[-1] ** 0.5) + 2
    names = vae.latents.coordinates
    for row, dim in enumerate(dims):
        middle = (row + 0.5) * height - 0.5
        ax.text(-1.5, middle, names[dim], ha="right", va="center", fontsize=8)
    return ax


@of_model
@torch.no_grad()
def interpolations(
    vae: VAE, start: Tensor, end: Tensor, steps: int = 8, ax: "Axes | None" = None
) -> "Axes":
    """Pairs of observations, and means of p(x|z) on the straight line between their z.

    Args:
        vae: a model of images.
        start: ``(N, *x_shape)``, a row each.
        end: ``(N, *x_shape)``.
        steps: points on the line, the ends included.
        ax: to draw on.
    """
    _check_arrays(vae)
    steps = whole("steps", steps, 2)
    ends = [vae.as_data(x) for x in (start, end)]
    if len(ends[0]) != len(ends[1]):
        raise ValueError(
            f"start has {len(ends[0])} observations, and end {len(ends[1])}: pair them"
        )
    pairs = zip(*ends, strict=True)
    between = torch.stack([vae.interpolate(one, other, steps) for one, other in pairs])
    first, last = (vae.record.cells(x)[:, None].cpu() for x in ends)
    rows = _shades(vae, torch.cat([first, between.cpu(), last], 1))
    return images(rows.flatten(0, 1), steps + 2, ax, "Interpolations, between pairs of data")


@of_model
@torch.no_grad()
def attribute_arithmetic(
    vae: VAE,
    x: Tensor,
    labels: ArrayLike,
    *,
    source: int,
    target: int,
    steps: int = 8,
    rows: int = 6,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Observations of one label moved along the difference of two labels' mean z.

    .. math:: z_t = z + t \, (\bar z_{target} - \bar z_{source}), \quad 0 \le t \le 1

    with z and the means by the guide: "add glasses", where the label 1 stands for glasses.

    Args:
        vae: a model of images.
        x: ``(N, *x_shape)``.
        labels: ``(N,)`` whole numbers.
        source: the label of the observations that are shown, each before its row.
        target: the label that they are moved to.
        steps: values of t.
        rows: the largest number of observations.
        ax: to draw on.

    Raises:
        ValueError: a label that no observation has, or a categorical z.
    """
    _check_arrays(vae)
    steps, rows = whole("steps", steps), whole("rows", rows)
    step = attribute_step(vae, x, labels, source=source, target=target)
    data = vae.as_data(x)
    shown = data[(as_numbers(labels, len(data)) == source).nonzero().flatten()[:rows]]
    moved = [move(vae, shown, step, t) for t in torch.linspace(0, 1, steps).tolist()]
    both = torch.stack([vae.record.cells(shown), *moved], 1).cpu()
    title = f"Attribute arithmetic: {source} plus the mean step to {target}"
    return images(_shades(vae, both.flatten(0, 1)), steps + 1, ax, title)


@of_model
@torch.no_grad()
def latent_space(
    vae: VAE, x: Tensor, labels: ArrayLike | None = None, ax: "Axes | None" = None
) -> "Axes":
    """The data in z: the two first principal components of the guide's means.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        labels: ``(N,)`` numbers: a colour each where they are ten or fewer, else a scale.
        ax: to draw on.

    Raises:
        ValueError: labels that are no numbers, or of other observations.
    """
    z = point(vae.encode(vae.as_data(x))).flatten(1).cpu().double().numpy()
    axis_names = [*vae.latents.coordinates, ""]
    if z.shape[1] > 2 and len(z) > 1:  # one has no component
        from sklearn.decomposition import PCA

        pca = PCA(2).fit(z)
        z = pca.transform(z)
        shares = pca.explained_variance_ratio_
        axis_names = [f"component {i + 1} ({s:.0%})" for i, s in enumerate(shares)]
    ax = ax or new_axes(5.2, 4.4)
    across, up = z[:, 0], z[:, 1] if z.shape[1] > 1 else 0 * z[:, 0]
    colour = None if labels is None else _colours(labels, len(z))
    values, place = np.unique([0] if colour is None else colour, return_inverse=True)
    few = len(values) <= 10
    shade: Any = {} if colour is None else {"c": colour, "cmap": "viridis"}
    if colour is not None and few:
        shade = {"c": place, "cmap": "tab10", "vmin": 0, "vmax": 9}
    drawn = ax.scatter(across, up, s=6, alpha=0.8, **shade)
    if colour is not None and few:
        dots, _ = drawn.legend_elements(num=list(range(len(values))))
        names = [f"{value:.12g}" for value in values]
        ax.legend(dots, names, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    elif colour is not None:
        ax.figure.colorbar(drawn, ax=ax, label="label")
    ax.set(xlabel=axis_names[0], ylabel=axis_names[1], title="Means of q(z|x)")
    return ax


def _colours(labels: ArrayLike, n: int) -> np.ndarray:
    """Labels as numbers, ``(n,)``."""
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (n,) or values.dtype.kind not in "biuf":
        raise ValueError(
            f"expected labels as {n} numbers, got {values.dtype} of shape {values.shape}: "
            "pandas.factorize(labels)[0] makes numbers of words"
        )
    return values


def _check_arrays(vae: VAE) -> None:
    """Raise for the model of a table or of sequences, which are no images."""
    if isinstance(vae.record, TableRecord | VisitsRecord):
        raise ValueError(
            "rows of a table are no images: vae.reconstruct(frame) and vae.sample(n) give frames, "
            "which plots.margin and plots.associations draw"
        )
    if isinstance(vae.record, Sequences):
        raise ValueError("sequences are no images: plots.piano_roll(vae.sample(8)) draws them")


def _means(vae: VAE, num_samples: int, given: Tensor | None, seed: int) -> Tensor:
    _check_arrays(vae)
    if given is None:
        return _shades(vae, vae.sample(num_samples, mean=True, seed=seed).cpu())
    given = in_turn(vae.as_data(given), num_samples)
    return _shades(vae, vae.sample(given=given, mean=True, seed=seed)[0].cpu())


def _shades(vae: VAE, x: Tensor) -> Tensor:
    """Images of a model with colours in [0, 1]: levels are divided by their highest one."""
    return x / ((levels(vae) or 2) - 1)


def _as_images(x: Tensor) -> Tensor:
    """``(N, H, W, C)``."""
    x = numbers(x)[0].detach().cpu()
    x = x / 255 if x.dtype == torch.uint8 else x.float()
    if x.ndim == 2:
        side = round(x.shape[1] ** 0.5)
        if side * side != x.shape[1]:
            raise ValueError(f"{x.shape[1]} numbers are no square image: reshape x to (N, C, H, W)")
        x = x.reshape(len(x), 1, side, side)
    elif x.ndim == 3:
        x = x.unsqueeze(1)
    if x.ndim != 4 or x.shape[1] not in CHANNELS:
        raise ValueError(
            f"expected images of shape (N, C, H, W) with C 1 or 3, got {tuple(x.shape)}"
        )
    return x.permute(0, 2, 3, 1)


def _cell(support: constraints.Constraint) -> constraints.Constraint:
    """The constraint of one coordinate, where they are independent."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support
