"""An observation as named blocks: the one place that knows how x is laid out."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, cast

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.checks import boolean
from ..data.loaders import Entries, Form, is_loader, read
from ..data.sparse import SparseRows, is_sparse
from ..distributions import Layout
from ..families.likelihoods import check_support, drop_missing, fill, parts_of, scaled, with_offset
from ..families.support import innermost
from ..language.spec import as_spec
from .arrays import column_names, convert, how_many, in_order, is_named, numbers, numbers_of
from .blocks import Block, Role, by_name, check_values, one_hot, places_of, reshaping, shape_of

__all__ = ["Record"]


class Record(Form):
    r"""Observations as named blocks, packed into one tensor.

    A record of one block is the plain array, ``(N, *shape)``. Of several blocks, each is flattened
    and they lie side by side, ``(N, D)``, the observed ones first.

    Args:
        blocks: at least one of them ``observed``. Observed blocks whose likelihoods differ are
            scored each by its own; else one likelihood scores all of them.

    Attributes:
        scored: the line (``None`` is the model's) and the shape of what each likelihood scores.
        layout: of these in the observed cells.
        shape: of one packed observation.
        x_shape: of what the likelihood scores.
        missing: whether observed cells may be missing.
        columns: the names of x's columns, where it was trained on a data frame.

    Raises:
        ValueError: no observed block, two blocks of one name, or two of a role that one can have.

    >>> record = Record([Block("counts", 3), Block("exposure", role="offset")])
    >>> x = record.pack({"counts": torch.ones(2, 3), "exposure": torch.zeros(2)})
    >>> x.shape, record.cells(x).shape, record.unpack(x)["exposure"].shape
    (torch.Size([2, 4]), torch.Size([2, 3]), torch.Size([2]))
    """

    in_units = own = False  # by default: numbers in units, cells that learn their own parameters
    largest: Mapping[int, float] = MappingProxyType({})  # counts, by the places of their cells
    shape: tuple[int, ...]

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(sorted(blocks, key=lambda block: block.role != "observed"))
        names, roles = [b.name for b in self.blocks], [b.role for b in self.blocks]
        self.observed = [b for b in self.blocks if b.role == "observed"]
        if not self.observed:
            raise ValueError("a record has an observed block: Block('x', 784)")
        if len(set(names)) < len(names):
            raise ValueError(f"two blocks have one name: {', '.join(names)}")
        for role in ("label", "offset", "weight"):
            if roles.count(role) > 1:
                raise ValueError(f"two blocks have the role {role}: give one of them")
        self.x_shape = self.observed[0].shape or (1,)
        if len(self.observed) > 1:
            self.x_shape = (sum(b.width for b in self.observed),)
        width = sum(b.width for b in self.blocks)
        self.shape = self.x_shape if len(self.observed) == len(self.blocks) else (width,)
        self.scored = [(b.likelihood, (b.width,)) for b in self.observed]
        if len({line for line, _ in self.scored}) == 1:
            self.scored = [(self.observed[0].likelihood, self.x_shape)]
        cells = math.prod(self.x_shape)
        if wrong := [b for b in self.blocks if b.role == "offset" and b.width not in (1, cells)]:
            more = f"an offset is one number or has the shape of x, {cells} here"
            raise ValueError(f"{more}, got {wrong[0].width}")
        self.layout = Layout([math.prod(shape) for _, shape in self.scored])
        self.missing = any(b.missing for b in self.observed)
        self.columns: tuple[str, ...] | None = None
        self._named: tuple[str, ...] | None = None  # the columns of x at hand, for messages
        self._places: dict[str, Any] = places_of({b.name: b.width for b in self.blocks})

    def has(self, role: Role) -> bool:
        """Whether a block has this role."""
        return any(block.role == role for block in self.blocks)

    @classmethod
    def of(cls, x: "int | tuple[int, ...] | Record", missing: bool = False) -> "Record":
        """The record of a plain array of this shape; a record as it is."""
        if isinstance(x, Record):
            if missing:
                raise ValueError("of a record the blocks say it: Block('x', 784, missing=True)")
            return x
        shape = shape_of(x, "x_shape", least=1)
        return cls([Block("x", shape, missing=boolean("missing", missing))])

    def describe(self) -> dict[str, object]:
        """What makes this record again, as plain values."""
        columns = {} if self.columns is None else {"columns": list(self.columns)}
        if self.blocks == Record.of(self.x_shape, self.missing).blocks:
            return {"x_shape": list(self.x_shape), "missing": self.missing, **columns}
        return {"blocks": [block.row for block in self.blocks], **columns}

    @staticmethod
    def arguments(about: Mapping[str, Any]) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        if "blocks" in about:
            return {"x_shape": Record([Block(*row) for row in about["blocks"]])}
        return {"x_shape": tuple(about["x_shape"]), "missing": about["missing"]}

    def pack(self, arrays: Mapping[str, Tensor | ArrayLike]) -> Tensor:
        """Blocks by name as one tensor, ``(N, *self.shape)``.

        Args:
            arrays: of each block, ``(N, *shape)``; of a label, ``(N,)`` whole numbers from 0, with
                -1 or NaN where it is not known. A label that is not given is known nowhere.

        Raises:
            ValueError: a block that is absent or unknown, or an array of another shape.
        """
        if unknown := set(arrays) - set(self._places):
            names = ", ".join(self._places)
            more = f"unknown block {', '.join(sorted(map(str, unknown)))}; there are {names}"
            say = "leave the others out, or say them, Record([..., Block('y', role='context')])"
            raise ValueError(f"{more}: {say}")
        parts: list[Tensor] = []
        for block in self.blocks:
            if block.name not in arrays and block.role != "label":
                raise ValueError(f"block {block.name!r} is absent: give an array of it")
            n = len(parts[0]) if parts else 0
            value = numbers_of(block.name, arrays.get(block.name, torch.full((n,), -1)))
            value = value.to(parts[0].device) if parts else value
            if block.role == "label":
                value = one_hot(value, block.width, n)
            expected = (*(parts[0] if parts else value).shape[:1], *block.shape)
            if parts and value.ndim and value.shape[1:] == block.shape and len(value) != n:
                first = self.blocks[0].name
                got = f"block {block.name!r} has {len(value)} observations, and {first!r} {n}"
                raise ValueError(f"{got}: give each block the same ones")
            if value.ndim == 0 or value.shape != expected:
                expected, got = ("N", *block.shape), tuple(value.shape)
                codes = ": of labels, torch.nn.functional.one_hot(c)" if len(got) == 1 else ""
                said = f"expected block {block.name!r} of shape {expected}, got {got}{codes}"
                raise ValueError(said)
            parts.append(value)
        if len(parts) == 1:
            return parts[0].reshape(-1, *self.x_shape)
        alike = all(part.dtype == parts[0].dtype for part in parts)
        flat = [part.reshape(len(part), -1) for part in parts]
        return torch.cat(flat if alike else [part.double() for part in flat], 1)

    def unpack(self, x: Tensor) -> dict[str, Tensor]:
        """The blocks by name, ``(N, *shape)``; they share the memory of x."""
        flat = x.flatten(1)
        return {b.name: flat[:, self._places[b.name]].reshape(-1, *b.shape) for b in self.blocks}

    def cells(self, x: Tensor) -> Tensor:
        """The part of x that the likelihood models, ``(N, *x_shape)``."""
        if x.shape[1:] == self.x_shape:
            return x
        return x[:, : math.prod(self.x_shape)].reshape(-1, *self.x_shape)

    def there(self, x: Tensor) -> Tensor | None:
        """At which steps or visits an observation is, ``(N, T, ...)``; ``None`` where it is one."""
        return None

    def with_cells(self, x: Tensor, cells: Tensor) -> Tensor:
        """The observations x with other cells in their observed blocks."""
        beside = x[:, math.prod(self.x_shape) :] if x.shape[1:] != self.x_shape else None
        return cells if beside is None else torch.cat([cells.flatten(1), beside], 1)

    def part(self, x: Tensor | None, role: Role) -> Tensor | None:
        """All blocks of a role side by side, ``(N, D)``; ``None`` where the record has none.

        Raises:
            ValueError: the model reads the block, and x is not given, or is given without it.
        """
        if not (blocks := [b for b in self.blocks if b.role == role]):
            return None
        if x is not None and x.shape[1:] != self.x_shape:
            return torch.cat([x[:, self._places[b.name]] for b in blocks], 1)
        if role == "label" and x is not None:
            return x.new_zeros(len(x), blocks[0].width)
        names = ", ".join(b.name for b in blocks)
        raise ValueError(f"this model reads {names} ({role}) beside z: give x with it, or given=")

    def split(self, x: Tensor) -> list[Tensor]:
        """What each likelihood scores, ``(N, *shape)`` with the shapes of :attr:`scored`."""
        cells = self.cells(x)
        return [cells] if len(self.scored) == 1 else list(self.layout.split(cells))

    def shift(self, p: dist.TorchDistribution, x: Tensor | None) -> dist.TorchDistribution:
        """The likelihood with the offset of x added to the logarithm of its mean."""
        return p if (offset := self.offset_of(x)) is None else with_offset(p, offset)

    def offset_of(self, x: Tensor | None) -> Tensor | None:
        """The offset of x, ``(N, *x_shape)`` or ``(N, 1, ...)``."""
        if (offset := self.part(x, "offset")) is None:
            return None
        shape = self.x_shape if offset.shape[1] > 1 else [1] * len(self.x_shape)
        return offset.reshape(-1, *shape)

    def without_offset(self, x: Tensor, p: dist.TorchDistribution) -> Tensor:
        """The cells of x over what the offset multiplies their mean by, ``(N, *x_shape)``.

        Args:
            x: observations.
            p: p(x|z) at some z: of its blocks those are divided whose parameters take an offset.
        """
        if (offset := self.offset_of(x)) is None:
            return self.cells(x)
        divided = self.with_cells(x, self.cells(x) * (-offset).exp())
        blocks = zip(scaled(p), self.split(x), self.split(divided), strict=True)
        each = [other if take else own for take, own, other in blocks]
        return each[0] if len(each) == 1 else self.layout.join(each)

    def weighted(self, x: Tensor | None) -> AbstractContextManager[object]:
        """Within it the sites of each observation count as often as its weight says."""
        if x is None or (weight := self.part(x, "weight")) is None:
            return nullcontext()
        return poutine.scale(scale=weight[:, 0])

    def observe(
        self, p: dist.TorchDistribution, x: Tensor | None
    ) -> tuple[dist.TorchDistribution, Tensor | None]:
        """The likelihood of the observed cells, and these cells.

        Missing cells drop out of the likelihood, and hold a value of its support.

        Args:
            p: p(x|z), of batch shape ``(..., N)``.
            x: observations; ``None`` stays it.
        """
        if x is None:
            return p, None
        cells = self.cells(x)
        if not self.missing:
            return p, cells
        mask = ~cells.isnan()
        return drop_missing(p, mask), fill(cells, mask, p.support)  # pyrefly: ignore[bad-argument-type]

    def score(self, p: dist.TorchDistribution, x: Tensor) -> Tensor:
        r"""log p(x|z) of the observed cells, ``(..., N)``, nats.

        Of bits it is :math:`x \cdot l - \sum \log(1 + e^l)`, in fewer passes over memory: beside
        the matrix products of the decoder this is what a long loop spends its time on.
        """
        p, cells = self.observe(p, x)
        cells, bits = cast("Tensor", cells), innermost(p)
        lowered = torch.is_autocast_enabled(cells.device.type)
        if type(bits) is not dist.Bernoulli or p.batch_shape[-1:] != cells.shape[:1] or lowered:
            return p.log_prob(cells)
        logits = bits.logits.flatten(-p.event_dim)
        fit = torch.einsum("...bd,bd->...b", logits, cells.flatten(-p.event_dim))
        return fit - torch.nn.functional.softplus(logits).sum(-1)

    # The boundary: what comes in is checked once.

    def take(self, x: object, like: Tensor) -> Tensor:
        """Observations as a packed tensor of the type and device of ``like``; NaN stays.

        Args:
            x: packed observations, those of the observed blocks alone where all else is labels, a
                mapping of blocks by name, or a loader of any of these, which is read whole.
            like: a tensor.

        Raises:
            ValueError: not numbers, another shape, whole numbers that the type would change.
        """
        if isinstance(x, Entries):
            return self.take(by_name(self.blocks, x), like)
        if (rows := self.rows(x)) is not None:
            return self.take(rows.dense(), like)
        if is_loader(x):
            with torch.random.fork_rng(devices=[]):
                return torch.cat([self.take(batch, like) for batch in read(x, self)])
        given = convert(self.pack(x) if is_named(x) else self._in_order(*numbers(x)), like)
        if given.ndim == 0 or given.shape[1:] != self.shape:
            given = self._complete(given)
        if len(given) == 0:
            raise ValueError(f"x is empty, of shape {tuple(given.shape)}: give an observation")
        for block in self.blocks:
            if block.role not in ("observed", "index"):
                check_values(block, given[:, self._places[block.name]])
        return given

    def rows(self, x: object) -> SparseRows | None:
        """Packed rows of a sparse matrix, made dense a few at a time; ``None`` of another array."""
        return SparseRows(x) if is_sparse(x) and self.shape == self.x_shape else None

    def check_complete(self, x: Tensor) -> None:
        """Raise if a cell is missing in a block that was not told of missing cells."""
        for block in self.observed:
            gone = x.flatten(1)[:, self._places[block.name]].isnan()
            if not block.missing and gone.any():
                row, cell = gone.nonzero()[0].tolist()
                at = self.place(row, cell + self._places[block.name].start)
                advice = "VAE(..., missing=True) takes NaN as a missing cell"
                raise ValueError(f"x holds NaN: {advice} (first in {at})")

    def check(self, x: Tensor, likelihoods: Sequence[dist.TorchDistribution], name: str) -> None:
        """Raise unless all observed cells lie in the support of their likelihood.

        Args:
            x: observations.
            likelihoods: p(x|z) at some draws of z, each of batch shape ``(1,)``.
            name: the model's likelihood, for the message.
        """
        each = zip(*map(parts_of, likelihoods), strict=True)
        start = 0
        for cells, parts, (line, shape) in zip(self.split(x), each, self.scored, strict=True):

            def place(row: int, *cell: int, start: int = start) -> str:
                if not cell or len(self.scored) == 1:
                    return self.place(row, *cell)
                return self.place(row, *cell[:-1], self.layout.order[start + cell[-1]])

            check_support(cells, parts, as_spec(line).name if line else name, place)
            start += shape[-1]

    def intervene(self, x: Any, do: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Observations x, by blocks or packed, with some blocks of context set to other values.

        Args:
            x: a tensor as :meth:`pack` gives it.
            do: of a block its value, or one for each observation.
        """
        blocks = {b.name: b for b in self.blocks if b.role == "context"}
        if wrong := [name for name in do if name not in blocks]:
            have = ", ".join(blocks) or "none"
            raise ValueError(f"do= sets blocks of the context ({have}), got {wrong[0]!r}")
        x = x if isinstance(x, Tensor) else self.take(x, torch.zeros((), dtype=torch.float64))
        parts: dict[str, Any] = {name: part for name, part in self.unpack(x).items()}
        for name, value in do.items():
            new = convert(numbers(value)[0], x)
            parts[name] = new.expand(parts[name].shape) if new.ndim < parts[name].ndim else new
        return self.pack(parts)

    def given(self, cells: Any) -> Any:  # noqa: ANN401
        """Rows whose known cells a draw is conditioned on: of a table alone."""
        return None

    def take_known(self, rows: object, like: Tensor) -> Tensor:
        """Rows packed, where nothing need be known of what is observed."""
        if is_named(rows) and not any(b.name in rows for b in self.observed):
            n = how_many(rows)
            rows = {**{b.name: like.new_zeros(n, *b.shape) for b in self.observed}, **rows}
        return self.take(rows, like)

    def answer_given(self, cells: Tensor, rows: object) -> Any:  # noqa: ANN401
        """Draws of rows, ``(draws, N, D)``, as users get them."""
        return cells

    def answer(
        self, cells: Tensor, x: object = None, *, keep: bool = False, mean: bool = False
    ) -> Any:  # noqa: ANN401
        """Cells ``(..., N, *x_shape)`` as users get them: of a plain array as they are."""
        return cells

    def place(self, row: int, *cell: int) -> str:
        """Where an observed cell lies, in words: its row, and its column or block."""
        if len(cell) != 1:
            return f"row {row}, cell {cell}" if cell else f"row {row}"
        if names := self.columns or self._named:
            return f"row {row}, column {names[cell[0]]!r}"
        block = next(b for b in self.observed if cell[0] < self._places[b.name].stop)
        named = f", block {block.name!r}" if len(self.observed) > 1 else ""
        return f"row {row}{named}, cell {cell[0] - self._places[block.name].start}"

    def name_columns(self, x: object) -> None:
        """Keep the names of a frame's columns, once: later frames are put in their order."""
        names = None if is_loader(x) else column_names(x)
        if self.columns is None and names and len(names) == math.prod(self.x_shape):
            self.columns = names

    def _in_order(self, x: Tensor, columns: tuple[str, ...] | None) -> Tensor:
        """The columns of a frame in the order of the one that the model was trained on."""
        width = math.prod(self.x_shape)
        self._named = columns if columns and len(columns) == width else None
        if columns is None or self.columns is None or len(self.x_shape) > 1 or len(columns) < width:
            return x
        return in_order(x, columns, self.columns)

    def _complete(self, x: Tensor) -> Tensor:
        """Observed cells alone, beside labels that are not known."""
        got, shape = tuple(x.shape), self.x_shape
        if got[1:] == shape:
            if any(b.role not in ("observed", "label") for b in self.blocks):
                say = f"give x by blocks, a dict of {', '.join(self._places)}"
                raise ValueError(f"{say}, or packed by record.pack")
            return torch.cat([x.flatten(1), x.new_zeros(len(x), self.shape[0] - x[0].numel())], 1)
        expected = ", ".join(map(str, ("N", *shape)))
        raise ValueError(f"expected x of shape ({expected}), got {got}: {reshaping(shape, got)}")
