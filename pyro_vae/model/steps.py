"""What the networks of sequences read: the steps, and z, with the steps before, at each of them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..families.networks import batched
from ..families.part import Line
from ..families.sequence_networks import SequenceNetwork
from ..families.steps import Autoregressive, Ragged, Steps
from ..families.units import far_cell
from .inputs import ROWS, InputMode, Inputs, Standardized, reader_of
from .record import Record
from .sequence_forms import lengths_of
from .sequences import Sequences

__all__ = ["SequenceInputs", "make_inputs"]


class SequenceInputs(Inputs):
    """What networks read of sequences: padding is NaN to both of them.

    The encoder reads the steps, ``(B, T, C)``, as :class:`Inputs` has them: standardized, or
    one-hot. The decoder reads z at each step, and, where it is autoregressive, the step before: its
    numbers as the encoder reads them, and 1 where it is shown. The first step has none before it,
    and in training a share of them is hidden (word dropout); both are zeros.

    Args:
        record: what an observation is: sequences, or arrays ``(T, C)`` of one length.
        likelihood: p(x|z) at some z.
        mode: as for :class:`Inputs`.
        in_units: likewise.
        hidden: the share of the steps before that are hidden in training; ``None`` reads none.
    """

    lengths: Tensor

    def __init__(
        self,
        record: Record,
        likelihood: dist.TorchDistribution | None,
        mode: InputMode = "auto",
        *,
        in_units: bool = False,
        hidden: float | None = None,
    ) -> None:
        super().__init__(record, likelihood, mode, in_units=in_units)
        self.hidden, self.ragged = hidden, isinstance(record, Sequences)
        self.single = len(record.x_shape) == 1  # steps of one number
        self.channels = 2
        if mode != "raw":  # a step is read in the same way, however many there are
            shape = (1, *(record.x_shape[1:] or (1,)))
            self.readers = nn.ModuleList([reader_of(likelihood, shape, in_units)])
        self.shown = self.read(torch.zeros(1, *record.x_shape)).shape[-1] + 1
        n = record.x_shape[0]
        self.register_buffer("lengths", torch.eye(n + 1)[n])  # how often each was seen

    @property
    def complete(self) -> bool:
        """Whether numbers of x's shape are all that the encoder needs: not their lengths."""
        return super().complete and not self.ragged

    @torch.no_grad()
    def start_from(self, x: Tensor) -> None:
        """Learn centres, spreads and lengths from observations, once."""
        self.read_through([x])
        if not (self.ragged or self.single):
            super().start_from(x)
            return
        some = x[:: max(1, len(x) // ROWS)]
        steps, context = self._steps(self.record.cells(some)), self.record.part(some, "context")
        for reader, values in ((self.readers[0], steps), (self.context, context)):
            if isinstance(reader, Standardized) and values is not None:
                reader.start_from(values)

    @torch.no_grad()
    def read_through(self, batches: Iterable[Tensor]) -> None:
        """Learn the lengths of all sequences, and so the longest one, once."""
        if not isinstance(self.record, Sequences) or self.lengths.sum() > 1:
            return
        pairs = [(lengths_of(x), self.record.part(x, "weight")) for x in batches]
        n, weights = torch.cat([n for n, _ in pairs]), [w[:, 0] for _, w in pairs if w is not None]
        self.record.settle(int(n.max()))
        least, each = self.record.x_shape[0] + 1, torch.cat(weights) if weights else None
        self.lengths = torch.bincount(n, each, minlength=least).to(self.lengths)
        self.lengths *= len(n) / self.lengths.sum()

    def far_cell(self, x: Tensor) -> tuple[int, ...] | None:
        """A cell of x whose numbers are far from unit scale."""
        if not self.ragged:
            return super().far_cell(x)
        x = self.record.cells(x)
        cell = far_cell(x) if isinstance(self.readers[0], Standardized) else None
        return cell if cell is None else tuple(map(int, np.unravel_index(cell, x.shape[1:])))

    def read(self, x: Tensor) -> Tensor:
        """Steps ``(..., T, C)`` as the encoder reads them; zeros at what is not there."""
        steps = self._steps(x)
        lead = steps.shape[:-2]
        flat = steps.reshape(-1, *steps.shape[-2:])
        parts = [self.readers[0](flat).nan_to_num(0.0)]
        if self.record.missing:
            parts.append((~flat.isnan()).to(flat.dtype))
        return torch.cat(parts, 2).unflatten(0, lead)

    def forward(self, x: Tensor) -> Tensor:
        """What the encoder reads, of observations ``(N, T, ...)``, NaN at padding."""
        if not (self.ragged or self.single):
            return super().forward(x)
        read, context = self.read(self.record.cells(x)), self.read_context(x)
        if context is not None:
            read = torch.cat([read, context[:, None].expand(-1, read.shape[1], -1)], 2)
        return self._pad(read, x)

    def beside(self, h: Tensor, x: Tensor | None, event_dim: int) -> tuple[Tensor, int]:
        """What the decoder reads at each step, z, the context and, so far, no step before it.

        Without x there are as many steps as in some sequence of the training data, drawn at random.
        """
        h, event_dim = super().beside(h, x, event_dim)
        h = h.flatten(h.ndim - event_dim)
        steps = self.record.x_shape[0] if x is None else self.record.cells(x).shape[1]
        h = h[..., None, :].expand(*h.shape[:-1], steps, h.shape[-1])
        if self.hidden is not None:
            h = torch.cat([h, h.new_zeros(*h.shape[:-1], self.shown)], -1)
        return self._pad(h, x), 2

    def _pad(self, h: Tensor, x: Tensor | None) -> Tensor:
        """Steps ``(..., T, D)`` with NaN after the lengths of x, or after drawn ones."""
        if not self.ragged:
            return h
        if x is None:
            n = torch.multinomial(self.lengths, h[..., 0, 0].numel(), True).view(h.shape[:-2])
        else:
            n = lengths_of(x)
        there = torch.arange(h.shape[-2], device=h.device) < n[..., None]
        return torch.where(there[..., None], h, torch.nan)

    def stepwise(self, likelihood: Line) -> Line:
        """The likelihood of a step."""
        return Steps(likelihood)

    def likelihood(
        self, decoder: nn.Module, likelihood: nn.Module, h: Tensor, event_dim: int
    ) -> dist.TorchDistribution:
        """p(x|z), which knows what is padding, and where it is autoregressive what came before."""

        def given(h: Tensor, x: Tensor) -> Ragged:
            if self.hidden is not None:
                h = torch.cat([h[..., : -self.shown], self._before(x, h, decoder.training)], -1)
            p = likelihood(batched(decoder, h, event_dim))
            return Ragged.of(p, ~h[..., 0].isnan())

        if self.hidden is None:
            return given(h, h)
        return Autoregressive(h, given, (h.shape[-2], *self.record.x_shape[1:]))

    def _before(self, x: Tensor, h: Tensor, training: bool) -> Tensor:
        """The step before each, ``(..., T, C + 1)``, of which some are hidden in training."""
        read = self.read(x)
        read = read.expand(*h.shape[:-1], read.shape[-1])
        shown = torch.ones_like(read[..., :1])
        if training and self.hidden:
            shown = (torch.rand_like(shown) >= self.hidden).to(read)
        before = torch.cat([read * shown, shown], -1)
        return torch.cat([torch.zeros_like(before[..., :1, :]), before[..., :-1, :]], -2)

    def _steps(self, x: Tensor) -> Tensor:
        """Observations with channels, ``(..., T, C)``."""
        return x[..., None] if self.single else x

    def _load_from_state_dict(  # pyrefly: ignore[bad-override]
        self,
        state_dict: dict,
        prefix: str,
        *others: Any,  # noqa: ANN401
    ) -> None:
        """Take the longest sequence of the weights that come, where no other is known."""
        lengths = state_dict.get(f"{prefix}lengths")
        if isinstance(self.record, Sequences) and lengths is not None:
            self.record.settle(len(lengths) - 1)
            if len(lengths) == self.record.x_shape[0] + 1:
                self.lengths = self.lengths.new_zeros(len(lengths))
        super()._load_from_state_dict(state_dict, prefix, *others)


def make_inputs(
    record: Record,
    encoder: nn.Module,
    decoder: nn.Module,
    likelihood: dist.TorchDistribution | None,
    mode: InputMode,
    in_units: bool,
) -> Inputs:
    """What encoder and decoder read: of sequences step by step.

    Args:
        record: what an observation is.
        encoder: a network, which may not be built yet.
        decoder: likewise; one of sequences is unrolled.
        likelihood: p(x|z) at some z.
        mode: of :class:`Inputs`.
        in_units: whether x has units.

    Raises:
        ValueError: networks that do not read sequences, or x that is none.
    """
    if isinstance(record, Sequences):
        for role, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, SequenceNetwork):
                raise ValueError(
                    f"sequences of several lengths need networks of steps, and the {role} is "
                    f"{type(network).__name__}: {role}='GRU(128)', Transformer, DeepSet or "
                    "Embedding, or a pyro_vae.SequenceNetwork of your own"
                )
    if not isinstance(decoder, SequenceNetwork):
        return Inputs(record, likelihood, mode, in_units=in_units)
    if len(record.x_shape) > 2 or len(record.observed) > 1:
        raise ValueError(
            f"{type(decoder).__name__} decodes sequences of shape (steps, channels), got "
            f"{record.x_shape}: say VAE((None, 12), ...), or another decoder"
        )
    decoder.unroll()
    hidden = decoder.autoregressive
    if hidden is not None and record.missing:
        raise ValueError(
            "missing cells need a likelihood of independent cells: leave autoregressive= out"
        )
    return SequenceInputs(record, likelihood, mode, in_units=in_units, hidden=hidden)
