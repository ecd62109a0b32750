"""Pictures of sequences: tokens or channels upward, steps to the right, as on a piano roll."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.checks import whole
from ..model.entry import of_model
from ..model.sequences import Sequences
from ..model.vae import VAE
from .axes import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["piano_roll", "reconstructed_rolls"]

INCH = 0.06  # of a step or token
GAP = 1  # cells between two rolls


def piano_roll(
    rows: Sequence[Tensor] | Tensor, columns: int = 4, ax: "Axes | None" = None, title: str = ""
) -> "Axes":
    """Sequences, each as a roll of its own.

    Args:
        rows: whole numbers of tokens, ``(n_i,)``, or numbers of channels, ``(n_i, C)``, or of one,
            ``(n_i,)``: what ``vae.sample(8)`` gives. What is missing or padded (NaN) stays blank.
        columns: rolls beside each other.
        ax: to draw on.
        title: above them.

    Raises:
        ValueError: texts, or no sequences.
    """
    columns = whole("columns", columns)
    if isinstance(rows, str) or not len(rows) or isinstance(rows[0], str):
        raise ValueError("a piano roll is of sequences of numbers: print texts as they are")
    columns = min(columns, len(rows))
    each = [torch.as_tensor(row, dtype=torch.float32).cpu() for row in rows]
    if each[0].ndim == 1:
        tokens = int(max(row.nan_to_num(0).max() for row in each)) + 1
        each = [row[:, None] for row in each]
        if not any(((row < 0) | (row.frac().nan_to_num() != 0)).any() for row in each):
            each = [(row == torch.arange(tokens)) + 0 * row for row in each]  # NaN stays
    height = each[0].shape[1] + GAP
    width = max(map(len, each)) + GAP
    low = min(float(row.nan_to_num(math.inf).min()) for row in each)
    lines = -(-len(each) // columns)
    page = torch.full((lines * height, columns * width), low)
    edge = page.new_zeros(page.shape)
    for i, row in enumerate(each):
        top, left = i // columns * height, i % columns * width
        page[top : top + height - GAP, left : left + len(row)] = row.T.flip(0)
        edge[top : top + height - GAP, left : left + len(row)] = 0.12
    ax = ax or new_axes(max(3.0, page.shape[1] * INCH), max(1.5, page.shape[0] * INCH) + 0.4)
    spread = float(page.nan_to_num(low).max()) - low or 1.0
    shade = torch.maximum((page - low) / spread, edge)  # a sequence's own ground is pale
    ax.imshow(shade.numpy(), cmap="gray_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    return ax


@of_model
def reconstructed_rolls(vae: VAE, x: Sequence[Tensor] | Tensor, ax: "Axes | None" = None) -> "Axes":
    """Sequences, and beneath each its reconstruction.

    Args:
        vae: a model of sequences of numbers.
        x: up to 8 are shown.
        ax: to draw on.
    """
    record = vae.record
    if not isinstance(record, Sequences) or record.vocabulary is not None:
        raise ValueError("rolls are of a model of sequences of numbers, VAE((None, 12), ...)")
    data = vae.as_data(x)[:8]
    own, made = record.answer(record.cells(data)), list(vae.reconstruct(data))
    made = [part[: len(row)] for part, row in zip(made, own, strict=True)]
    columns = min(4, len(own))
    each = range(0, len(own), columns)
    pairs = [row for i in each for rows in (own, made) for row in rows[i : i + columns]]
    return piano_roll(pairs, columns, ax, "Sequences, and beneath them their reconstructions")
