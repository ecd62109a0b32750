"""Sequences as records: observations of several lengths, padded with NaN."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..core.checks import boolean, whole
from ..data import Vocabulary
from ..data.loaders import Entries, is_loader, read
from ..data.ragged import joined
from ..data.tables.design import Design
from ..families.likelihoods import check_support
from ..families.part import Line
from ..families.steps import Autoregressive
from ..language.spec import Spec
from .arrays import convert, is_named, numbers
from .blocks import Block, Role, check_values, places_of, shape_of
from .designed import beside_block, framed
from .record import Record
from .sequence_forms import SequenceForms, lengths_of, steps_there

__all__ = ["Sequences", "as_sequences", "is_sequences", "network_for"]

ROLES = ("context", "label", "weight", "index")  # of blocks beside
TRIAL = 2  # steps, while the longest sequence is not known


class Sequences(SequenceForms):
    r"""Observations that are sequences, or sets, each of its own length.

    They come as a list of arrays ``(n_i, *shape)``; padded, ``(N, T, *shape)``, with NaN after the
    last step (or masked there); or padded, with their lengths: ``{"x": x, "lengths": n}``. Within
    the package they are padded with NaN, as many steps as the longest has. A padded step is no
    observation: it is in no density, mean, normalization or gradient.

    What belongs to a whole sequence lies ``beside`` it: ``{"x": rows, "age": age}``, or a list of
    pairs ``(row, age)``. Packed, ``(N, T, C + D)``, each step has it behind its own numbers.

    The length of an observation is given, not modelled: all figures are of
    :math:`\log p(x \mid n)`. Where x is drawn without one, n is drawn from the lengths of the
    training data, p(n) being their frequencies: add :math:`\log p(n)` for a density of both.

    Args:
        shape: of a step: ``(12,)``, or 12, for numbers side by side; ``()`` for a single one, such
            as a token. ``VAE((None, 12), ...)`` and ``VAE((None,), ...)`` are short for it.
        longest: at most so many steps; that of the training data where it is not given.
        missing: whether cells within the length may be NaN, and are missing.
        vocabulary: of texts, which come in, and go out, as strings.
        beside: blocks of a whole sequence, of the roles context, label, weight or index.
        design: from a frame to the numbers of the block ``condition``.

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
        beside: Sequence[Block] = (),
        design: Design | None = None,
    ) -> None:
        self.step = shape_of(shape, "the shape of a step")
        self.said = self.longest = None if longest is None else whole("longest", longest)
        self.vocabulary, steps = vocabulary, self.longest or TRIAL
        self.beside, self.design = tuple(beside), design
        if wrong := [b for b in self.beside if b.role not in ROLES]:
            raise ValueError(
                f"a block beside sequences is a {', '.join(ROLES[:-1])} or {ROLES[-1]}, got "
                f"{wrong[0].name!r}, which is {wrong[0].role}"
            )
        block = Block("x", (steps, *self.step), missing=boolean("missing", missing))
        super().__init__([block, *self.beside])
        widths = {"x": math.prod(self.step), **{b.name: b.width for b in self.beside}}
        self._places, self.width = places_of(widths), sum(widths.values())
        self.shape = (steps, self.width) if self.beside else block.shape

    @property
    def line(self) -> str:
        """The likelihood where none is given."""
        texts = self.vocabulary
        return "Bernoulli" if texts is None else f"Categorical(categories={len(texts)})"

    def settle(self, longest: int) -> None:
        """Take this as the longest there is, unless one is known."""
        if self.longest is None:
            said = self.said
            about = self.missing, self.vocabulary, self.beside, self.design
            self.__init__(self.step, longest, *about)
            self.said = said

    def describe(self) -> dict[str, object]:
        """What makes this record again, as plain values."""
        longest = {} if self.said is None else {"longest": self.said}
        texts = {} if self.vocabulary is None else {"vocabulary": self.vocabulary.as_dict()}
        beside: dict[str, object] = {"beside": [b.row for b in self.beside]} if self.beside else {}
        design: dict[str, object] = {} if self.design is None else {"design": self.design.as_dict()}
        own = {"sequences": list(self.step), **longest, "missing": self.missing}
        return own | texts | beside | design

    @staticmethod
    def arguments(about: Mapping[str, Any]) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        given = tuple(about["sequences"]), about.get("longest"), about["missing"]
        texts = Vocabulary.from_dict(about["vocabulary"]) if "vocabulary" in about else None
        beside = [Block(*row) for row in about.get("beside", ())]
        design = Design.from_dict(about["design"]) if "design" in about else None
        return {"x_shape": Sequences(*given, texts, beside, design)}

    def cells(self, x: Tensor) -> Tensor:
        """The steps of x, ``(N, T, *shape)``."""
        return x[..., self._places["x"]].reshape(*x.shape[:2], *self.step) if self.packed(x) else x

    def packed(self, x: Tensor) -> bool:
        """Whether what lies beside the sequences is in x."""
        return bool(self.beside) and x.ndim == 3 and x.shape[2] == self.width

    def packing(self, x: Any) -> Tensor:  # noqa: ANN401
        """Sequences in any form, packed where they are not."""
        return x if isinstance(x, Tensor) and self.packed(x) else self.pack(x)

    def there(self, x: Tensor) -> Tensor:
        """At which steps a sequence has not ended, ``(N, T, 1 ...)``."""
        at = steps_there(x)
        return at.reshape(*at.shape, *[1] * len(self.step))

    def with_cells(self, x: Tensor, cells: Tensor) -> Tensor:
        """The cells, of the lengths of x, and what lies beside it."""
        if not self.packed(x):
            return cells.to(x)
        beside = x[..., self._places["x"].stop :]
        return torch.cat([cells.reshape(*x.shape[:2], -1).to(x), beside], 2)

    def part(self, x: Tensor | None, role: Role) -> Tensor | None:
        """All blocks of a role side by side, ``(N, D)``; ``None`` where there are none."""
        blocks = [b for b in self.beside if b.role == role]
        if not blocks or x is None or not self.packed(x):
            return super().part(None, role)
        return torch.cat([x[:, 0, self._places[b.name]] for b in blocks], 1)

    def unpack(self, x: Tensor) -> dict[str, Tensor]:
        """The steps, padded with NaN, and what lies beside them, by name."""
        places = {b.name: x[:, 0, self._places[b.name]].reshape(-1, *b.shape) for b in self.beside}
        return {"x": self.cells(x), **places}

    def observe(
        self, p: dist.TorchDistribution, x: Tensor | None
    ) -> tuple[dist.TorchDistribution, Tensor | None]:
        """The likelihood, which knows what is padding, and the steps of x."""
        return p, None if x is None else self.cells(x)

    def score(self, p: dist.TorchDistribution, x: Tensor) -> Tensor:
        """log p(x|z) of the steps that are there, ``(..., N)``, nats."""
        return p.log_prob(self.cells(x))

    # The boundary.

    def take(self, x: object, like: Tensor) -> Tensor:
        """Sequences padded with NaN, ``(N, T, *shape)``, of the type and device of ``like``.

        Raises:
            ValueError: an empty sequence, one that is too long, other channels, with its row.
        """
        if isinstance(x, Entries):
            x = self.entries(x, False)
        if is_loader(x):
            with torch.random.fork_rng(devices=[]):
                return joined([self.take(batch, like) for batch in read(x, self)])
        given = self.packing(x)
        if len(given) == 0:
            raise ValueError("x is empty: give a sequence")
        given = convert(given, like)
        n = lengths_of(given)
        if (n == 0).any():
            row = int((n == 0).nonzero()[0])
            raise ValueError(f"row {row} is an empty sequence: leave it out")
        if self.longest is not None and (n > self.longest).any():
            row = int((n > self.longest).nonzero()[0])
            step = self.step[0] if len(self.step) == 1 else self.step
            raise ValueError(
                f"row {row} has {n[row]} steps, and this model reads at most {self.longest}: cut "
                f"it, x[{row}][:{self.longest}], or make VAE(Sequences({step}, "
                f"longest={n[row]}), ...)"
            )
        for block in (b for b in self.beside if b.role != "index"):
            check_values(block, given[:, 0, self._places[block.name]])
        return given[:, : self.longest] if self.longest else given

    def intervene(self, x: Any, do: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Sequences beside another context; a condition may be a frame."""
        return super().intervene(x, framed(do, self.design))

    def take_known(self, rows: object, like: Tensor) -> Tensor:
        """What lies beside sequences, and their lengths, whatever their steps; or all of them."""
        if not is_named(rows) or "x" in rows:
            return self.take(rows, like)
        if "lengths" not in rows:
            raise ValueError(
                "sequences that are drawn given what lies beside them have lengths: "
                "given={'condition': c, 'lengths': n}"
            )
        n = numbers(rows["lengths"])[0]
        return self.take({**rows, "x": torch.zeros(len(n), int(n.max()), *self.step)}, like)

    def check_complete(self, x: Tensor) -> None:
        """Raise if a cell within a sequence is missing, and the model was not told of it."""
        if self.missing:
            return
        gone = self.cells(x).isnan() & self.there(x)
        if gone.any():
            row, *cell = gone.nonzero()[0].tolist()
            place = self.place(row, *cell)
            advice = "VAE(..., missing=True) takes NaN as a missing cell"
            raise ValueError(f"x holds NaN within a sequence: {advice} (first in {place})")

    def check(self, x: Tensor, likelihoods: Sequence[dist.TorchDistribution], name: str) -> None:
        """Raise unless all steps lie in the support of their likelihood."""
        first = x[:1]
        steps = [p.given(first) if isinstance(p, Autoregressive) else p for p in likelihoods]
        check_support(self.cells(x), steps, name, self.place)

    def place(self, row: int, *cell: int) -> str:
        """Where a cell lies, in words."""
        channel = f", channel {', '.join(map(str, cell[1:]))}" if len(cell) > 1 else ""
        return f"row {row}, step {cell[0]}{channel}" if cell else f"row {row}"

    def answer(
        self, cells: Tensor, x: object = None, *, keep: bool = False, mean: bool = False
    ) -> Any:  # noqa: ANN401
        """Cells ``(..., N, T, *shape)`` as users get them: padded for padded x, else a list."""
        lead = cells.ndim - 2 - len(self.step)
        n = lengths_of(cells[(0,) * lead] if x is None else self.packing(x)).cpu()
        if isinstance(x, Tensor) and not x.is_nested:
            at = torch.arange(cells.shape[lead + 1]) < n[:, None]
            there = at.reshape(*at.shape, *[1] * len(self.step)).to(cells.device)
            return torch.where(there, cells, math.nan)
        rows = zip(cells.unbind(lead), n.tolist(), strict=True)
        each = [part.narrow(lead, 0, k) for part, k in rows]
        if self.vocabulary is None or lead:
            return each
        return [self.vocabulary.decode(row.tolist()) for row in each]


def as_sequences(x: Any, missing: object, condition: object = None) -> Sequences:  # noqa: ANN401
    """The record of a model's first argument, ``(None, 12)``, a :class:`Sequences`, or texts'.

    Args:
        x: the argument.
        missing: whether cells within the length may be missing.
        condition: of a whole sequence: how many numbers, or a :class:`Design`.

    Raises:
        ValueError: another place of the ``None``, or what sequences cannot have.
    """
    if isinstance(missing, str | Spec):
        raise ValueError(f"missing= of sequences is True or False, got {str(missing)!r}")
    if isinstance(x, Sequences):
        if missing:
            raise ValueError("of a record it says it: Sequences(12, missing=True)")
        if condition is not None:
            said = "Sequences(12, beside=[Block('condition', 3, 'context')])"
            raise ValueError(f"of a record it says it: {said}")
        return x
    texts = x if isinstance(x, Vocabulary) else None
    shape = () if isinstance(x, Vocabulary) else tuple(x)
    if shape and (shape[0] is not None or None in shape[1:]):
        raise ValueError(f"None is the first of a shape, the steps: (None, 12), got {shape}")
    block, design = beside_block(condition)
    return Sequences(shape[1:], None, boolean("missing", missing), texts, block, design)


def network_for(record: Record, line: Line | None) -> Line:
    """An encoder or decoder, by default that of the record's kind."""
    default = "GRU(128)" if isinstance(record, Sequences) else "MLP([200, 200])"
    return default if line is None else line


def is_sequences(x: object) -> bool:
    """Whether a model's first argument says sequences of any length, as ``(None, 12)`` does."""
    shape = isinstance(x, tuple | list) and None in x
    return shape or isinstance(x, Sequences | Vocabulary)
