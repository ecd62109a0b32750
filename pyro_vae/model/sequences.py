"""Sequences as records: observations of several lengths, padded with NaN."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..core.checks import boolean, whole
from ..data import Vocabulary
from ..data.loaders import Entries, is_loader, read
from ..families.likelihoods import check_support
from ..families.part import Line
from ..families.steps import Autoregressive
from ..language.spec import Spec
from .arrays import convert, is_named, numbers
from .blocks import Block, shape_of
from .record import Record

__all__ = ["Sequences", "as_sequences", "is_sequences", "lengths_of", "network_for"]

TRIAL = 2  # steps, while the longest sequence is not known


class Sequences(Record):
    r"""Observations that are sequences, or sets, each of its own length.

    They come as a list of arrays ``(n_i, *shape)``; padded, ``(N, T, *shape)``, with NaN after the
    last step (or masked there); or padded, with their lengths: ``{"x": x, "lengths": n}``. Within
    the package they are padded with NaN, as many steps as the longest has. A padded step is no
    observation: it is in no density, mean, normalization or gradient.

    The length of an observation is given, not modelled: all figures are of
    :math:`\log p(x \mid n)`. Where x is drawn without one, n is drawn from the lengths of the
    training data, p(n) being their frequencies: add :math:`\log p(n)` for a density of both.

    Args:
        shape: of a step: ``(12,)``, or 12, for numbers side by side; ``()`` for a single one, such
            as a token. ``VAE((None, 12), ...)`` and ``VAE((None,), ...)`` are short for it.
        longest: at most so many steps; that of the training data where it is not given.
        missing: whether cells within the length may be NaN, and are missing.
        vocabulary: of texts, which come in, and go out, as strings.

    >>> record = Sequences(12, longest=9)
    >>> record.take([torch.zeros(5, 12), torch.zeros(9, 12)], torch.zeros(())).shape
    torch.Size([2, 9, 12])
    """

    def __init__(
        self,
        shape: int | Sequence[int] = (),
        longest: int | None = None,
        missing: bool = False,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.step = shape_of(shape, "the shape of a step")
        self.said = self.longest = None if longest is None else whole("longest", longest)
        self.vocabulary, steps = vocabulary, self.longest or TRIAL
        block = Block("x", (steps, *self.step), missing=boolean("missing", missing))
        super().__init__([block])

    @property
    def line(self) -> str:
        """The likelihood where none is given."""
        texts = self.vocabulary
        return "Bernoulli" if texts is None else f"Categorical(categories={len(texts)})"

    def settle(self, longest: int) -> None:
        """Take this as the longest there is, unless one is known."""
        if self.longest is None:
            said = self.said
            self.__init__(self.step, longest, self.missing, self.vocabulary)
            self.said = said

    def describe(self) -> dict[str, object]:
        """What makes this record again, as plain values."""
        longest = {} if self.said is None else {"longest": self.said}
        texts = {} if self.vocabulary is None else {"vocabulary": self.vocabulary.as_dict()}
        return {"sequences": list(self.step), **longest, "missing": self.missing, **texts}

    @staticmethod
    def arguments(about: Mapping[str, Any]) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        given = tuple(about["sequences"]), about.get("longest"), about["missing"]
        texts = Vocabulary.from_dict(about["vocabulary"]) if "vocabulary" in about else None
        return {"x_shape": Sequences(*given, texts)}

    def cells(self, x: Tensor) -> Tensor:
        """All of x."""
        return x

    def with_cells(self, x: Tensor, cells: Tensor) -> Tensor:
        """The cells, of the lengths of x."""
        return cells.to(x)

    def observe(
        self, p: dist.TorchDistribution, x: Tensor | None
    ) -> tuple[dist.TorchDistribution, Tensor | None]:
        """The likelihood, which knows what is padding, and x."""
        return p, x

    # The boundary.

    def take(self, x: object, like: Tensor) -> Tensor:
        """Sequences padded with NaN, ``(N, T, *shape)``, of the type and device of ``like``.

        Raises:
            ValueError: an empty sequence, one that is too long, other channels, with its row.
        """
        if isinstance(x, Entries):
            raise ValueError("a batch of sequences is one list or padded array, got several")
        if is_loader(x):
            with torch.random.fork_rng(devices=[]):
                return _pad([row for batch in read(x) for row in self.take(batch, like)])
        given = self._padded(x)
        if len(given) == 0:
            raise ValueError("x is empty: give a sequence")
        given = convert(given, like)
        n = lengths_of(given)
        if (n == 0).any():
            row = int((n == 0).nonzero()[0])
            raise ValueError(f"row {row} is an empty sequence: leave it out")
        if self.longest is not None and (n > self.longest).any():
            row = int((n > self.longest).nonzero()[0])
            raise ValueError(
                f"row {row} has {n[row]} steps, and this model reads at most {self.longest}: cut "
                f"it, x[{row}][:{self.longest}], or make VAE(Sequences({self._said}, "
                f"longest={n[row]}), ...)"
            )
        return given[:, : self.longest] if self.longest else given

    @property
    def _said(self) -> str:
        return str(self.step[0] if len(self.step) == 1 else self.step)

    def _padded(self, x: Any) -> Tensor:  # noqa: ANN401
        """What users have, as one tensor."""
        if is_named(x):
            if set(x) != {"x", "lengths"}:
                names = ", ".join(map(str, x))
                raise ValueError(f"sequences by name are 'x' and 'lengths', got {names}")
            return self._cut(self._padded(x["x"]), numbers(x["lengths"])[0])
        if isinstance(x, Tensor) and x.is_nested:
            x = list(x.unbind())
        rows = _rows(x)
        if rows == []:
            raise ValueError("x is empty: give a sequence")
        if rows is None:
            padded = numbers(x)[0]
            padded = padded if padded.is_floating_point() else padded.double()
            if padded.ndim != 2 + len(self.step) or padded.shape[2:] != self.step:
                shape, got = ", ".join(map(str, ("N", "T", *self.step))), tuple(padded.shape)
                raise ValueError(
                    f"expected a list of sequences, or x of shape ({shape}), got {got}"
                )
            return padded
        return _pad([self._row(i, row) for i, row in enumerate(rows)])

    def _row(self, i: int, row: object) -> Tensor:
        """A sequence of a list, checked."""
        if isinstance(row, str) and self.vocabulary is None:
            raise ValueError(
                f"row {i} is text, {row!r:.40}: of texts make VAE(Vocabulary.of(texts), ...)"
            )
        try:
            coded = self.vocabulary and isinstance(row, str)
            found = numbers(self.vocabulary.encode(row) if coded else row)[0]  # pyright: ignore
        except ValueError as problem:
            raise ValueError(f"{problem} (in row {i})") from problem
        found = found if found.is_floating_point() else found.double()
        if found.numel() == 0:
            raise ValueError(f"row {i} is an empty sequence: leave it out")
        if found.ndim != 1 + len(self.step) or found.shape[1:] != self.step:
            shape = ", ".join(map(str, ("steps", *self.step)))
            raise ValueError(f"row {i} has shape {tuple(found.shape)}, expected ({shape})")
        gone = found.isnan().reshape(len(found), -1)
        if gone[-1].all():
            raise ValueError(
                f"row {i} ends with a step of NaN, which is padding here: leave that step out"
            )
        return found

    def _cut(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Padded sequences with NaN after their lengths."""
        n = x.shape[1]
        wrong = (lengths < 1) | (lengths > n) | (lengths != lengths.round())
        if lengths.shape != (len(x),) or wrong.any():
            got = tuple(lengths.shape) if lengths.shape != (len(x),) else lengths[wrong][0].item()
            raise ValueError(f"lengths are {len(x)} whole numbers from 1 to {n}, got {got}")
        there = torch.arange(n, device=x.device) < lengths.to(x.device)[:, None]
        return torch.where(there.reshape(*there.shape, *[1] * (x.ndim - 2)), x, math.nan)

    def check_complete(self, x: Tensor) -> None:
        """Raise if a cell within a sequence is missing, and the model was not told of it."""
        if self.missing:
            return
        at = torch.arange(x.shape[1], device=x.device) < lengths_of(x)[:, None]
        gone = x.isnan() & at.reshape(*at.shape, *[1] * (x.ndim - 2))
        if gone.any():
            row, *cell = gone.nonzero()[0].tolist()
            place = self.place(row, *cell)
            advice = "VAE(..., missing=True) takes NaN as a missing cell"
            raise ValueError(f"x holds NaN within a sequence: {advice} (first in {place})")

    def check(self, x: Tensor, likelihoods: Sequence[dist.TorchDistribution], name: str) -> None:
        """Raise unless all steps lie in the support of their likelihood."""
        first = x[:1]
        steps = [p.given(first) if isinstance(p, Autoregressive) else p for p in likelihoods]
        check_support(x, steps, name, self.place)

    def place(self, row: int, *cell: int) -> str:
        """Where a cell lies, in words."""
        channel = f", channel {', '.join(map(str, cell[1:]))}" if len(cell) > 1 else ""
        return f"row {row}, step {cell[0]}{channel}" if cell else f"row {row}"

    def answer(self, cells: Tensor, x: object = None, *, keep: bool = False) -> Any:  # noqa: ANN401
        """Cells ``(..., N, T, *shape)`` as users get them: padded for padded x, else a list."""
        lead = cells.ndim - 2 - len(self.step)
        n = lengths_of(cells[(0,) * lead] if x is None else self._padded(x)).tolist()
        if isinstance(x, Tensor) and not x.is_nested:
            at = torch.arange(cells.shape[lead + 1]) < torch.tensor(n)[:, None]
            there = at.reshape(*at.shape, *[1] * len(self.step)).to(cells.device)
            return torch.where(there, cells, math.nan)
        each = [part.narrow(lead, 0, k) for part, k in zip(cells.unbind(lead), n, strict=True)]
        if self.vocabulary is None or lead:
            return each
        return [self.vocabulary.decode(row.tolist()) for row in each]


def as_sequences(x: Any, missing: object, condition: object) -> Sequences:  # noqa: ANN401
    """The record of a model's first argument, ``(None, 12)``, a :class:`Sequences`, or texts'.

    Raises:
        ValueError: another place of the ``None``, or what sequences cannot have.
    """
    if isinstance(x, Vocabulary):
        x = Sequences(vocabulary=x)
    if condition is not None:
        raise ValueError("sequences of several lengths have no condition yet: put it into x")
    if isinstance(missing, str | Spec):
        raise ValueError(f"missing= of sequences is True or False, got {str(missing)!r}")
    if isinstance(x, Sequences):
        if missing:
            raise ValueError("of a record it says it: Sequences(12, missing=True)")
        return x
    if x[0] is not None or None in x[1:]:
        raise ValueError(f"None is the first of a shape, the steps: (None, 12), got {tuple(x)}")
    return Sequences(x[1:], missing=boolean("missing", missing))


def network_for(record: Record, line: Line | None) -> Line:
    """An encoder or decoder, by default that of the record's kind."""
    default = "GRU(128)" if isinstance(record, Sequences) else "MLP([200, 200])"
    return default if line is None else line


def is_sequences(x: object) -> bool:
    """Whether a model's first argument says sequences of any length, as ``(None, 12)`` does."""
    shape = isinstance(x, tuple | list) and None in x
    return shape or isinstance(x, Sequences | Vocabulary)


def lengths_of(x: Tensor) -> Tensor:
    """The numbers of steps of padded sequences, ``(N, T, ...)``: up to the last that is there."""
    there = ~x.isnan().reshape(*x.shape[:2], -1).all(-1)
    at = torch.arange(1, x.shape[1] + 1, device=x.device)
    return (there * at).amax(1)


def _pad(rows: Sequence[Tensor]) -> Tensor:
    """Sequences side by side, NaN after each; those that are padded already keep their padding."""
    kind = torch.float64 if any(r.dtype == torch.float64 for r in rows) else rows[0].dtype
    same = [row.to(kind) for row in rows]
    return nn.utils.rnn.pad_sequence(same, batch_first=True, padding_value=math.nan)


def _rows(x: Any) -> list[object] | None:  # noqa: ANN401
    """The sequences of a list, an array of objects or a column of lists; ``None`` of an array."""
    if isinstance(x, list | tuple):
        return list(x)
    if isinstance(x, np.ndarray) and x.dtype == object and x.ndim == 1:
        return list(x)
    for name in ("to_pylist", "to_list"):  # PyArrow; pandas and polars
        if hasattr(x, name) and not hasattr(x, "columns"):
            return list(getattr(x, name)())
    return None
