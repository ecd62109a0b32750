"""Coloured shapes with attributes that are known: small 8-bit pictures, made by a rule."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..core.checks import whole

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
NOISE = 4.0  # standard deviation, in levels


def coloured_shapes(num_data: int, *, seed: int = 0) -> tuple[Tensor, pd.DataFrame]:
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
    n, draw = whole("num_data", num_data), np.random.default_rng(whole("seed", seed, 0))
    kinds, colours = draw.integers(len(SHAPES), size=n), draw.integers(len(COLOURS), size=n)
    glasses = draw.integers(2, size=n).astype(bool)
    centres = draw.uniform(11, 21, (n, 2))
    inks = np.array([*COLOURS.values()], float)[colours]
    pictures = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for i in range(n):
        clean = _draw(SHAPES[kinds[i]], inks[i], centres[i], glasses=bool(glasses[i]))
        noisy = clean + draw.normal(0, NOISE, clean.shape)
        pictures[i] = noisy.round().clip(0, 255)
    attributes = {
        "shape": np.array(SHAPES)[kinds],
        "colour": np.array([*COLOURS])[colours],
        "glasses": glasses,
        "x": centres[:, 0],
        "y": centres[:, 1],
    }
    return torch.from_numpy(pictures).movedim(-1, 1).contiguous(), pd.DataFrame(attributes)


def _draw(shape: str, ink: np.ndarray, centre: np.ndarray, *, glasses: bool) -> np.ndarray:
    """A picture without noise, ``(H, W, 3)``."""
    places = (np.arange(SIDE * FINE) + 0.5) / FINE
    dx, dy = places[None, :] - centre[0], places[:, None] - centre[1]
    inside = {
        "disc": dx**2 + dy**2 < 8.5**2,
        "square": (abs(dx) < 7.5) & (abs(dy) < 7.5),
        "triangle": (dy < 7.5) & (dy > 2 * abs(dx) - 9.5),
    }[shape]
    picture = np.where(inside[..., None], ink, PAPER)
    if glasses:
        distance = np.sqrt((abs(dx) - 3.6) ** 2 + dy**2)
        bridge = (abs(dx) < 1.5) & (abs(dy) < 0.8)
        picture = np.where((distance < 2.8)[..., None] | bridge[..., None], INK, picture)
        picture = np.where((distance < 1.4)[..., None], LENS, picture)
    return picture.reshape(SIDE, FINE, SIDE, FINE, 3).mean((1, 3))
