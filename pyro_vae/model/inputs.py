"""What the encoder reads of an observation: numbers near unit scale, learned from training data."""

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..distributions import RightCensored, side_by_side
from ..families.likelihoods import parts_of
from ..families.networks import batched
from ..families.part import Line
from ..families.support import extremes, innermost, support_bounds, support_of
from ..families.units import centre_and_spread, far_cell, or_one
from .arrangement import reading_beside
from .record import Record
from .visits import VisitsRecord

__all__ = ["ROWS", "InputMode", "Inputs", "Standardized", "reader_of"]

InputMode: TypeAlias = Literal["auto", "raw"]
ROWS = 10_000  # at most so many observations are looked at
WIDEST = 2**14  # a longer one-hot vector is read as codes in [0, 1]


class Inputs(nn.Module):
    """What the encoder reads of x, and the context that it reads beside it.

    Numbers are standardized by the training data, cell by cell (channel by channel, where x has
    channels), positive ones and counts without an upper bound after their logarithm,
    ``log(1 + x / scale)``. Codes are one-hot vectors, and a censored time has a bit for its event
    beside it. Bits are read as they are, and so are, where x has no units, any data that lie in
    [0, 1], and real numbers that are at unit scale already.

    With an offset of one number (a log exposure), counts are read as if the exposure were a usual
    one, and the offset is a channel more. A mask (1 where a cell is observed), the context, and
    what a prior reads beside z (of visits, or which covariates are known) are channels, too.
    Channels are the first dimension of ``(D,)``, ``(C, H, W)`` and ``(C, D, H, W)``, and the last
    one of ``(T, C)``, a sequence of T steps.

    Args:
        record: what an observation is.
        likelihood: p(x|z) at some z, of batch shape ``(1,)``; ``None`` where it is not known.
        mode: ``raw`` reads all blocks as they are.
        in_units: whether x has units, so that numbers in [0, 1] are small ones, not grey values.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(
        self,
        record: Record,
        likelihood: dist.TorchDistribution | None,
        mode: InputMode = "auto",
        *,
        in_units: bool = False,
    ) -> None:
        super().__init__()
        if mode not in get_args(InputMode):
            known = " or ".join(map(repr, get_args(InputMode)))
            raise ValueError(f"inputs must be {known}, got {mode!r}")
        self.record, self.mode = record, mode
        self.visits = record if isinstance(record, VisitsRecord) else None
        self.passing = reading_beside(record)
        self.channels = 2 if len(record.x_shape) == 2 else 1
        parts: list[Any] = parts_of(likelihood) if likelihood else [None] * len(record.scored)
        self.readers = nn.ModuleList(
            nn.Identity() if mode == "raw" else reader_of(p, shape, in_units)
            for p, (_, shape) in zip(parts, record.scored, strict=True)
        )
        offset = next((b for b in record.blocks if b.role == "offset"), None)
        self.exposure = None
        if offset is not None and offset.width == 1 and mode != "raw":
            self.exposure = Standardized(self._beside_each(1), 0.0, True)
            for i, (p, (_, shape)) in enumerate(zip(parts, record.scored, strict=True)):
                if _counts(p):
                    self.readers[i] = Rates(shape, 1.0, in_units)
        width = sum(b.width for b in record.blocks if b.role == "context")
        plain = mode == "raw" or not width
        beside = (
            nn.Identity() if plain else Standardized(self._beside_each(width), 0.0, True, bits=True)
        )
        self.context = beside

    def _beside_each(self, width: int) -> tuple[int, ...]:
        """The shape of so many numbers beside an observation, or beside each of its visits."""
        return (self.visits.visits, width) if self.visits else (width,)

    @property
    def complete(self) -> bool:
        """Whether numbers of x's shape are all that the encoder needs."""
        return not (self.record.has("context") or self.passing)

    @torch.no_grad()
    def start_from(self, x: Tensor) -> None:
        """Learn centres and spreads from observations, ``(N, *record.shape)``, once."""
        some = x[:: max(1, len(x) // ROWS)]
        context, offset = (self.record.part(some, role) for role in ("context", "offset"))
        if self.visits:  # what only fills up the visits is not there
            there = self.visits.there(some)
            context, offset = (
                None if part is None else torch.where(there, part, torch.nan)
                for part in (context, offset)
            )
        if self.exposure is not None and offset is not None:
            self.exposure.start_from(offset)
        blocks = [*self._blocks(some), context]
        for reader, values in zip([*self.readers, self.context], blocks, strict=True):
            if isinstance(reader, Standardized) and values is not None:
                reader.start_from(values)

    def read_through(self, batches: Iterable[Tensor]) -> None:
        """Learn of all batches of a loader what some do not say: of sequences, the lengths."""

    def far_cell(self, x: Tensor) -> tuple[int, ...] | None:
        """A cell of x whose numbers are far from unit scale, among those without bounds."""
        start = 0
        for reader, block in zip(self.readers, self.record.split(x), strict=True):
            free = isinstance(reader, Standardized) and not isinstance(reader, Levels)
            cell = far_cell(block) if free else None
            if cell is not None:
                return tuple(int(i) for i in np.unravel_index(start + cell, self.record.x_shape))
            start += block[0].numel()
        return None

    def forward(self, x: Tensor) -> Tensor:
        """What the encoder reads, of observations ``(N, *record.shape)``."""
        record, channels = self.record, self.channels
        blocks = self._blocks(x)
        parts = [reader(block) for reader, block in zip(self.readers, blocks, strict=True)]
        if record.missing:
            there = [~block.isnan() for block in blocks]
            parts = [part.nan_to_num(0.0) for part in parts]
            parts += [mask.to(x.dtype) for mask in there]
        exposure = None if self.exposure is None else self.exposure(record.part(x, "offset"))
        for beside in (self.read_context(x), exposure):
            if beside is not None and self.visits:
                parts.append(beside)
            elif beside is not None:
                planes = beside.reshape(len(x), -1, *[1] * (len(record.x_shape) - 1))
                size = list(blocks[0].shape)
                size[channels] = beside.shape[1]
                parts.append(planes.transpose(1, channels).expand(size))
        if self.passing:
            parts.append(self.passing.beside(x))
        return parts[0] if len(parts) == 1 else torch.cat(parts, channels)

    def _blocks(self, x: Tensor) -> list[Tensor]:
        """What each reader reads of x: counts as if their exposure were a usual one."""
        blocks = self.record.split(x)
        if self.exposure is None:
            return blocks
        offset: Any = self.record.part(x, "offset")
        usual = (self.exposure.centre - offset).exp()
        for i, reader in enumerate(self.readers):
            if isinstance(reader, Rates):
                each = usual if self.visits else usual.reshape(-1, *[1] * (blocks[i].ndim - 1))
                blocks[i] = blocks[i] * each
        return blocks

    def beside(self, h: Tensor, x: Tensor | None, event_dim: int) -> tuple[Tensor, int]:
        """What the decoder reads, h of z with the context of x beside it, and its dimensions."""
        context = self.read_context(x)
        if self.passing and not self.visits:
            known = self.passing.beside(x)
            if known is None:  # nothing is
                known = h.new_zeros(2 * len(self.passing.covariates))
            return side_by_side(*(part for part in (h, context, known) if part is not None)), 1
        if context is None:
            return h, event_dim
        if self.visits:
            return side_by_side(h, context), event_dim
        return side_by_side(h.flatten(h.ndim - event_dim), context), 1

    def stepwise(self, likelihood: Line) -> Line:
        """The likelihood as its line says it; of sequences that of a step."""
        return likelihood

    def likelihood(
        self, decoder: nn.Module, likelihood: nn.Module, h: Tensor, event_dim: int
    ) -> dist.TorchDistribution:
        """p(x|z), of what :meth:`beside` gives."""
        return likelihood(batched(decoder, h, event_dim))

    def read_context(self, x: Tensor | None) -> Tensor | None:
        """The context of x near unit scale, ``(B, D)``; ``None`` where the record has none."""
        context = self.record.part(x, "context")
        return None if context is None else self.context(context)


class Standardized(nn.Module):
    r"""Numbers less their centre, over their spread; as they are before that is learned.

    The centre is the median and the spread the mean distance from it, times
    :math:`\sqrt{\pi / 2}`, so that it is a normal distribution's standard deviation. Unless they
    have units, data that lie in [0, 1] stay as they are, and so do those, if no logarithm is taken,
    whose mean is within 1/2 of 0 and whose standard deviation is between 1/2 and 2 in each cell.

    Args:
        shape: of the numbers of one observation.
        scale: s of the logarithm :math:`\log(1 + x / s)` that is taken first; the mean of the
            data where it is ``None``, and no logarithm where it is 0.
        in_units: whether the numbers have units.
        bits: whether cells that are 0 or 1 in all data stay as they are, whatever the others are.
    """

    centre: Tensor
    spread: Tensor
    scale: Tensor
    started: Tensor
    active: Tensor

    def __init__(
        self, shape: tuple[int, ...], scale: float | None, in_units: bool, *, bits: bool = False
    ) -> None:
        super().__init__()
        self.channel, self.in_units, self.bits = 2 if len(shape) == 2 else 1, in_units, bits
        self.log, self.by_mean = scale != 0, scale is None
        each = [n if i + 1 == self.channel else 1 for i, n in enumerate(shape)]
        self.register_buffer("centre", torch.zeros(each))
        self.register_buffer("spread", torch.ones(each))
        if self.log:
            self.register_buffer("scale", torch.ones(each))
            self.register_buffer("active", torch.tensor(False))
        self.register_buffer("started", torch.tensor(False))

    def start_from(self, x: Tensor) -> None:
        """Learn centre and spread from numbers, ``(N, *shape)``, once; NaN is skipped."""
        if self.started or not (ends := extremes(x)):
            return
        self.started.fill_(True)
        if not self.in_units and ends[0] >= 0 and ends[1] <= 1:
            return
        by_cell = x.double().movedim(self.channel, -1).flatten(0, -2)
        if not (self.in_units or self.log) and _at_unit_scale(by_cell):
            return
        if self.log:
            self.active.fill_(True)
            if self.by_mean:
                self.scale.copy_(or_one(by_cell.nanmean(0)).reshape(self.scale.shape))
            by_cell = (by_cell / self.scale.flatten()).log1p()
        centre, spread = centre_and_spread(by_cell)
        if self.bits:
            bits = ((by_cell == 0) | (by_cell == 1)).all(0)
            centre, spread = torch.where(bits, 0.0, centre), torch.where(bits, 1.0, spread)
        self.centre.copy_(centre.reshape(self.centre.shape))
        self.spread.copy_(spread.reshape(self.spread.shape))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, *shape)``, of that shape."""
        if self.log:
            x = torch.where(self.active, (x / self.scale).log1p(), x)
        return (x - self.centre) / self.spread


class Rates(Standardized):
    """Counts under a usual exposure, where what is 0 in most observations is not made larger."""

    def start_from(self, x: Tensor) -> None:
        """Learn centre and spread."""
        new = not self.started
        super().start_from(x)
        if new:
            spread = torch.where(self.centre == 0, self.spread.clamp(min=1.0), self.spread)
            self.spread.copy_(spread)


class Times(Standardized):
    """Censored times beside whether their event was seen, along the channels."""

    def start_from(self, x: Tensor) -> None:
        """Learn centre and spread from the times."""
        super().start_from(x.abs())

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, ...)`` to ``(N, 2 C, ...)``."""
        return torch.cat([super().forward(x.abs()), (x > 0).to(x.dtype)], self.channel)


class Levels(Standardized):
    """Whole numbers between two bounds: none lies far from where their likelihood starts."""


class Scaled(nn.Module):
    """Whole numbers from 0 to an upper bound as numbers in [0, 1]."""

    def __init__(self, upper: float) -> None:
        super().__init__()
        self.upper = upper

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of x."""
        return x / self.upper


class OneHot(nn.Module):
    """Codes as one-hot vectors, along the channels; zeros where a code is missing."""

    def __init__(self, categories: int, channel: int) -> None:
        super().__init__()
        self.categories, self.channel = categories, channel

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, ...)`` to ``(N, C * categories, ...)``."""
        bits = x[..., None] == torch.arange(self.categories, device=x.device)
        return bits.movedim(-1, self.channel + 1).flatten(self.channel, self.channel + 1).to(x)


def _at_unit_scale(x: Tensor) -> bool:
    """Whether each column ``(N, D)`` has a mean near 0, and a standard deviation near 1 or none.

    The spread of :class:`Standardized` is smaller than the standard deviation where tails are long,
    so that standardized data would be read with longer ones.
    """
    mean = x.nanmean(0)
    sd = (x - mean).square().nanmean(0).sqrt()
    near = (mean.abs() <= 0.5) & (sd <= 2) & ((sd >= 0.5) | (sd == 0))
    return bool((near | mean.isnan()).all())


def _counts(p: dist.TorchDistribution | None) -> bool:
    """Whether observations with this likelihood are counts without an upper bound."""
    support = None if p is None else support_of(p)
    bounds = ("discrete", 0, math.inf)
    codes = p is not None and isinstance(innermost(p), dist.Categorical)
    return support is not None and not codes and support_bounds(support) == bounds


def reader_of(
    p: dist.TorchDistribution | None, shape: tuple[int, ...], in_units: bool
) -> nn.Module:
    """How the encoder reads observations with this likelihood."""
    support = None if p is None else support_of(p)
    if p is None or support is None:
        return Standardized(shape, 0.0, in_units)
    kind, lower, upper = support_bounds(support)
    if isinstance(innermost(p), RightCensored):
        return Times(shape, None, in_units)
    if isinstance(innermost(p), dist.Categorical):
        codes = int(upper) + 1
        if codes * math.prod(shape) > WIDEST:
            return Scaled(upper)
        return OneHot(codes, 2 if len(shape) == 2 else 1)
    if kind not in ("discrete", "continuous") or (lower, upper) == (0, 1):
        return nn.Identity()
    if kind == "discrete" and lower == 0 and not math.isfinite(upper):
        return Standardized(shape, 1.0, in_units)
    if kind == "discrete" and math.isfinite(lower) and math.isfinite(upper):
        return Levels(shape, 0.0, in_units)
    positive = lower == 0 and not math.isfinite(upper)
    return Standardized(shape, None if positive else 0.0, in_units)
