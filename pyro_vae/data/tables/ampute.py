"""Holes made on purpose, by a known mechanism, for studies of imputation."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from ...core.checks import fraction, positive, whole
from ...language.spec import nearest
from .cells import Cells
from .frames import Frame
from .native import make_series

__all__ = ["Mechanism", "ampute"]

Mechanism: TypeAlias = Literal["MCAR", "MAR", "MNAR"]


def ampute(
    frame: Any,  # noqa: ANN401
    mechanism: Mechanism = "MCAR",
    share: float = 0.2,
    *,
    seed: int,
    columns: Sequence[str] | Sequence[int] | None = None,
    strength: float = 1.0,
) -> Any:  # noqa: ANN401
    r"""The same frame or array with holes.

    A cell of row i and column j is hidden with probability

    .. math:: \pi_{ij} = 1 / (1 + \exp(-\alpha_j - \beta s_{ij})),

    where :math:`\beta` is the strength and :math:`\alpha_j` brings the mean to the share asked for.
    The score s is:

    - ``MCAR``: 0. A hole says nothing of any value.
    - ``MAR``: the standardized sum of the row's cells in columns that stay whole. With ``columns``,
      those are the others. Without, each row is of one of two patterns at random: in the one, half
      of the columns may be hidden and the other half stays whole; in the other, the reverse. So a
      hole depends on cells that can be seen, and on nothing else.
    - ``MNAR``: the value of the cell itself, which is then hidden (self-masking).

    Of numbers and times s is their normal score, of rank r among n known cells
    :math:`\Phi^{-1}((r - 1/2)/n)`, so that outliers count no more than others and large values are
    hidden more; of words and booleans a random number for each level. Cells that were missing stay
    so, and score 0.

    Args:
        frame: of pandas, polars or pyarrow, or an array or tensor of numbers ``(N, D)``.
        mechanism: ``"MCAR"``, ``"MAR"`` or ``"MNAR"``.
        share: of the known cells of each column that are hidden on average; with ``MAR`` and all
            columns at most one half.
        seed: of the draws.
        columns: which may have holes, by name or number; all by default.
        strength: how much the score counts, in logits a standard deviation.

    Returns:
        A copy with holes. Whole numbers and booleans of pandas get its nullable types, whole
        numbers of NumPy and PyTorch become float64.

    Raises:
        ValueError: an unknown mechanism or column, or a share that cannot be reached.

    References:
        R. M. Schouten, P. Lugtig and G. Vink, Generating missing values for simulation purposes: a
        multivariate amputation procedure, Journal of Statistical Computation and Simulation 2018.

    >>> x = np.arange(40.0).reshape(20, 2)
    >>> holed = ampute(x, "MNAR", 0.5, seed=0, strength=9.0)
    >>> bool(np.nanmax(holed) < x.max()), bool(np.isnan(x).any())
    (True, False)
    """
    if mechanism not in get_args(Mechanism):
        known = ", ".join(get_args(Mechanism))
        raise ValueError(f"the mechanism is one of {known}, got {mechanism!r}")
    share, strength = fraction("share", share), positive("strength", strength)
    rng = np.random.default_rng(whole("seed", seed, 0))
    given, cells = _cells(frame, columns)
    names = [c.name for c in cells]
    chosen = _chosen(names, columns)
    known = np.stack([c.known for c in cells], 1)
    scores = np.stack([_score(c, rng) for c in cells], 1)
    if mechanism == "MAR":
        hidden = _at_random(scores, known, chosen, share, strength, rng, halves=columns is None)
    else:
        hidden = np.zeros_like(known)
        for j in chosen:
            score = scores[:, j] * (mechanism == "MNAR")
            hidden[:, j] = _drawn(score, known[:, j], share, strength, rng)
    if isinstance(given, Frame):
        made = {
            c.name: make_series(
                given.library, c.name, c.values, c.known & ~hidden[:, j], c.dtype, c.levels
            )
            for j, c in enumerate(cells)
            if hidden[:, j].any()
        }
        return given.replaced(made)
    if isinstance(given, Tensor):
        x = given if given.is_floating_point() else given.double()
        return x.masked_fill(torch.from_numpy(hidden).to(x.device), torch.nan)
    return np.where(hidden, np.nan, given)


def _cells(
    frame: object, columns: Sequence[str] | Sequence[int] | None
) -> "tuple[Frame | np.ndarray | Tensor, list[Cells]]":
    """What came in, and its columns; those that stay whole may be of any type."""
    if not isinstance(frame, np.ndarray | Tensor):
        given = Frame(frame)
        whole = [name for name in given.names if columns is not None and name not in columns]
        return given, [given.cells(name, any_type=name in whole) for name in given.names]
    x = frame.detach().cpu().double().numpy() if isinstance(frame, Tensor) else frame
    if isinstance(x, np.ma.MaskedArray):
        x = frame = np.ma.filled(x.astype(np.result_type(x, np.float16)), np.nan)
    if x.ndim != 2 or x.dtype.kind not in "biuf" or not x.size:
        raise ValueError(f"expected numbers of shape (N, D), got {x.dtype} of shape {x.shape}")
    known = ~np.isnan(x)
    return frame, [
        Cells(str(j), "number", x[:, j], known[:, j], str(x.dtype)) for j in range(x.shape[1])
    ]


def _chosen(names: list[str], columns: Sequence[str] | Sequence[int] | None) -> list[int]:
    """The places of the columns that may have holes."""
    if columns is None:
        return list(range(len(names)))
    if isinstance(columns, str) or not len(columns):
        raise ValueError(f"columns are a list of some names or numbers, got {columns!r}")
    for name in columns:
        if str(name) not in names:
            raise ValueError(f"there is no column {name!r}{nearest(str(name), names)}")
    return [names.index(str(name)) for name in columns]


def _score(cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """Of each cell, with mean 0 and variance about 1; 0 where it is missing."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    score, seen = np.zeros(len(cells)), cells.seen
    if not len(seen):
        return score
    if cells.sort in ("word", "boolean") or cells.levels:
        levels = sorted(set(seen.tolist()))
        numbers = dict(zip(levels, rng.normal(size=len(levels)), strict=True))
        score[cells.known] = [numbers[level] for level in seen.tolist()]
    else:
        seen = seen if seen.dtype.kind in "biuf" else seen.astype(np.int64)
        score[cells.known] = ndtri((rankdata(seen) - 0.5) / len(seen))
    return score


def _at_random(
    scores: np.ndarray,
    known: np.ndarray,
    chosen: list[int],
    share: float,
    strength: float,
    rng: np.random.Generator,
    *,
    halves: bool,
) -> np.ndarray:
    """The cells that are hidden by what stays whole in their row."""
    n, d = scores.shape
    others = [j for j in range(d) if j not in chosen]
    rows, patterns, target = np.zeros(n, int), [(chosen, others)], share
    if halves:
        if share > 0.5:
            raise ValueError(
                f"MAR of all columns hides at most half of their cells, got {share}\n"
                "name those that may have holes: columns=[...]; the others stay whole"
            )
        order = rng.permutation(d).tolist()
        parts = order[: d // 2], order[d // 2 :]
        rows, patterns = rng.permutation(n) % 2, [parts, parts[::-1]]
        target = 2 * share
    if not all(seen for _, seen in patterns):
        raise ValueError("MAR needs a column that stays whole: there is none")
    hidden = np.zeros_like(known)
    for k, (holed, seen) in enumerate(patterns):
        here = rows == k
        if not here.any():
            continue
        total = scores[here][:, seen].sum(1)
        total = (total - total.mean()) / (total.std() or 1.0)
        for j in holed:
            hidden[here, j] = _drawn(total, known[here, j], target, strength, rng)
    return hidden


def _drawn(
    score: np.ndarray, known: np.ndarray, share: float, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Which of the known cells are hidden, by logistic probabilities of this mean."""
    from scipy.special import expit

    probability = np.full(len(score), share)
    if share < 1 and known.any() and (steep := strength * score).any():
        low, high = -50.0 - np.abs(steep).max(), 50.0 + np.abs(steep).max()
        for _ in range(60):
            middle = (low + high) / 2
            less = expit(middle + steep[known]).mean() < share
            low, high = (middle, high) if less else (low, middle)
        probability = expit(low + steep)
    return known & (rng.random(len(score)) < probability)
