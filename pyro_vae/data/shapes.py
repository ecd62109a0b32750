"""Coloured shapes with attributes that are known: small 8-bit pictures, made by a rule."""

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..core.checks import whole

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLOURS", "SHAPES", "coloured_shapes"]

COLOURS = {
    "red": (220, 50, 47),
    "green": (60, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (230, 190, 40),
}
SHAPES = ("disc", "square", "triangle")
SIDE = 32  # pixels
FINE = 3  # samples of a pixel along each side, so that edges are smooth
PAPER, INK, LENS = 235.0, 25.0, 200.0  # brightness of the ground, of the glasses and their insides
CHUNK = 200  # pictures that are drawn together
NOISE = 4.0  # standard deviation, in levels


def coloured_shapes(num_data: int, *, seed: int = 0) -> "tuple[Tensor, pd.DataFrame]":
    r"""Pictures of a shape on a light ground, and their attributes, each drawn on its own.

    Args:
        num_data: N.
        seed: of the attributes and the noise.

    Returns:
        ``(N, 3, 32, 32)``, 8-bit, with normal noise of 4 levels; and a row for each: ``shape``
        (disc, square, triangle), ``colour`` (red, green, blue, yellow), ``glasses`` (whether the
        shape wears them), ``x`` and ``y``, its middle in pixels, uniform in [11, 21].

    >>> pictures, attributes = coloured_shapes(5, seed=0)
    >>> pictures.shape, pictures.dtype, list(attributes)
    (torch.Size([5, 3, 32, 32]), torch.uint8, ['shape', 'colour', 'glasses', 'x', 'y'])
    """
    import pandas as pd

    n, draw = whole("num_data", num_data), np.random.default_rng(whole("seed", seed, 0))
    kinds, colours = draw.integers(len(SHAPES), size=n), draw.integers(len(COLOURS), size=n)
    glasses = draw.integers(2, size=n).astype(bool)
    centres = draw.uniform(11, 21, (n, 2))
    inks = np.array([*COLOURS.values()], float)[colours]
    parts = []
    for rows in np.array_split(np.arange(n), -(-n // CHUNK)):
        clean = _draw(kinds[rows], inks[rows], centres[rows], glasses[rows])
        noisy = clean + draw.normal(0, NOISE, clean.shape)
        parts.append(noisy.round().clip(0, 255).astype(np.uint8))
    pictures = np.concatenate(parts)
    attributes = {
        "shape": np.array(SHAPES)[kinds],
        "colour": np.array([*COLOURS])[colours],
        "glasses": glasses,
        "x": centres[:, 0],
        "y": centres[:, 1],
    }
    return torch.from_numpy(pictures).movedim(-1, 1).contiguous(), pd.DataFrame(attributes)


def _draw(
    kinds: np.ndarray, inks: np.ndarray, centres: np.ndarray, glasses: np.ndarray
) -> np.ndarray:
    """Pictures without noise, ``(n, H, W, 3)``."""
    places = ((np.arange(SIDE * FINE) + 0.5) / FINE).astype(np.float32)
    dx, dy = places - centres[:, :1], places - centres[:, 1:]
    dx, dy = dx.astype(np.float32)[:, None, :], dy.astype(np.float32)[:, :, None]
    disc, square = dx**2 + dy**2 < 8.5**2, (abs(dx) < 7.5) & (abs(dy) < 7.5)
    triangle = (dy < 7.5) & (dy > 2 * abs(dx) - 9.5)
    inside = np.choose(kinds[:, None, None], [disc, square, triangle])
    distance = (abs(dx) - 3.6) ** 2 + dy**2
    worn = glasses[:, None, None]
    lens = worn & (distance < 1.4**2)
    frame = worn & ~lens & ((distance < 2.8**2) | ((abs(dx) < 1.5) & (abs(dy) < 0.8)))
    shape = inside & ~lens & ~frame
    picture = PAPER + _cover(shape) * (inks - PAPER)[:, None, None, :]
    return picture + _cover(frame) * (INK - PAPER) + _cover(lens) * (LENS - PAPER)


def _cover(fine: np.ndarray) -> np.ndarray:
    """How much of each pixel is covered, ``(n, H, W, 1)``."""
    fine = fine.view(np.uint8)
    rows = reduce(np.add, [fine[:, i::FINE] for i in range(FINE)])
    count = reduce(np.add, [rows[:, :, i::FINE] for i in range(FINE)])
    return (count.astype(np.float32) / np.float32(FINE**2))[..., None]
