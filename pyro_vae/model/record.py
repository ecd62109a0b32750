"""An observation as named blocks: the one place that knows how x is laid out."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.checks import boolean
from ..families.family import innermost
from ..families.likelihoods import check_support, fill, observed, with_offset
from ..language.spec import Spec, as_spec
from .arrays import numbers

__all__ = ["Block", "Record", "Role", "shape_of"]

Role: TypeAlias = Literal["observed", "context", "label", "offset", "index", "weight"]
SINGLE = ("label", "offset", "weight")  # roles that one block can have
PER_OBSERVATION = {"label": 1, "weight": 0}  # the number of dimensions of such a block


def shape_of(value: int | Sequence[int], name: str, least: int = 0) -> tuple[int, ...]:
    """A shape from a number or several, checked; of so many dimensions at least."""
    shape = (value,) if isinstance(value, int) else tuple(value)
    if len(shape) < least or not all(
        isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape
    ):
        raise ValueError(f"{name} must be a positive whole number or a tuple of them, got {value}")
    return shape


@dataclass(frozen=True)
class Block:
    """A named part of an observation.

    Args:
        name: of the block.
        shape: of one observation's part; ``()`` for a number.
        role: what it is to the model:

            - ``observed``: scored by the likelihood, and read by the encoder;
            - ``context``: read by the encoder and, beside z, by the decoder; never scored;
            - ``label``: one of ``shape`` classes, scored where it is known, latent elsewhere;
            - ``offset``: added to the logarithm of the likelihood's mean (a log exposure), of the
              shape of x, or one number; of families of counts, such as ``Poisson``;
            - ``weight``: a number that multiplies the observation's term in the objective;
            - ``index``: a time or place, kept beside the observation and read by no network.
        likelihood: the line of an observed block; the model's ``likelihood`` by default.
        missing: whether NaN in an observed block is a missing cell, and no mistake.

    Raises:
        ValueError: an unknown role, or a shape that the role cannot have.

    >>> Block("age", role="context").spec
    Block('age', [], role='context')
    """

    name: str
    shape: int | tuple[int, ...] = ()
    role: Role = "observed"
    likelihood: str | Spec | None = None
    missing: bool = False

    def __post_init__(self) -> None:
        shape = shape_of(self.shape, f"the shape of block {self.name!r}")
        object.__setattr__(self, "shape", shape)
        if self.role not in get_args(Role):
            known = ", ".join(get_args(Role))
            raise ValueError(f"the role of block {self.name!r} is one of {known}, got {self.role}")
        if len(shape) != PER_OBSERVATION.get(self.role, len(shape)):
            needs = "a number of classes" if self.role == "label" else "one number, ()"
            raise ValueError(f"the shape of a {self.role} is {needs}, got {shape}")
        if self.role != "observed" and (self.missing or self.likelihood is not None):
            raise ValueError(f"missing and likelihood are of observed blocks, not of a {self.role}")

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape, always a tuple."""
        return cast("tuple[int, ...]", self.shape)

    @property
    def width(self) -> int:
        """How many numbers an observation has in the block."""
        return math.prod(self.dims)

    @property
    def spec(self) -> Spec:
        """The block as a line, which :meth:`of` reads."""
        line = None if self.likelihood is None else as_spec(self.likelihood)
        usual = {"role": "observed", "likelihood": None, "missing": False}
        said = {"role": self.role, "likelihood": line, "missing": self.missing}
        options = {name: value for name, value in said.items() if value != usual[name]}
        return Spec("Block", self.name, self.dims, **options)  # pyright: ignore[reportArgumentType]

    @classmethod
    def of(cls, line: str) -> "Block":
        """The block that a line describes."""
        given = as_spec(line).bind("name", "shape", "role", "likelihood", "missing")
        return cls(**given)  # pyright: ignore[reportArgumentType]


class Record:
    r"""Observations as named blocks, packed into one tensor.

    A record of one block is the plain array, ``(N, *shape)``. Of several blocks, each is flattened
    and they lie side by side, ``(N, D)``, the observed ones first.

    Args:
        blocks: at least one of them ``observed``. Several observed blocks share a likelihood.

    Attributes:
        shape: of one packed observation.
        x_shape: of what the likelihood scores.
        missing: whether observed cells may be missing.
        columns: the names of x's columns, once a data frame has told them.

    Raises:
        ValueError: no observed block, two blocks of one name, or two of a role that one can have.

    >>> record = Record([Block("counts", 3), Block("exposure", role="offset")])
    >>> x = record.pack({"counts": torch.ones(2, 3), "exposure": torch.zeros(2)})
    >>> x.shape, record.cells(x).shape, record.unpack(x)["exposure"].shape
    (torch.Size([2, 4]), torch.Size([2, 3]), torch.Size([2]))
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(sorted(blocks, key=lambda block: block.role != "observed"))
        names, roles = [b.name for b in self.blocks], [b.role for b in self.blocks]
        scored = [b for b in self.blocks if b.role == "observed"]
        if not scored:
            raise ValueError("a record has an observed block: Block('x', 784)")
        if len(set(names)) < len(names):
            raise ValueError(f"two blocks have one name: {', '.join(names)}")
        if twice := [role for role in SINGLE if roles.count(role) > 1]:
            raise ValueError(f"two blocks have the role {twice[0]}: give one of them")
        lines = {b.likelihood for b in scored if b.likelihood is not None}
        if len(lines) > 1:
            raise ValueError("the observed blocks of a record share one likelihood")
        self.likelihood = lines.pop() if lines else None
        self.x_shape = scored[0].dims or (1,)
        if len(scored) > 1:
            self.x_shape = (sum(b.width for b in scored),)
        self.plain = len(self.blocks) == len(scored)
        self.shape = self.x_shape if self.plain else (sum(b.width for b in self.blocks),)
        self.missing = any(b.missing for b in scored)
        self.columns: tuple[str, ...] | None = None
        ends = torch.tensor([b.width for b in self.blocks]).cumsum(0).tolist()
        self._places = {
            b.name: slice(end - b.width, end) for b, end in zip(self.blocks, ends, strict=True)
        }

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
        if self == Record.of(self.x_shape, self.missing):
            return {"x_shape": list(self.x_shape), "missing": self.missing, **columns}
        return {"blocks": [str(block.spec) for block in self.blocks], **columns}

    @staticmethod
    def arguments(about: Mapping[str, Any]) -> dict[str, object]:
        """The arguments of a model, from what :meth:`describe` gives."""
        if "blocks" in about:
            return {"x_shape": Record([Block.of(line) for line in about["blocks"]])}
        return {"x_shape": tuple(about["x_shape"]), "missing": about["missing"]}

    def __eq__(self, other: object) -> bool:
        """Whether the blocks are alike."""
        return isinstance(other, Record) and self.blocks == other.blocks

    # The layout.

    def pack(self, arrays: Mapping[str, Tensor | ArrayLike]) -> Tensor:
        """Blocks by name as one tensor.

        Args:
            arrays: of each block, ``(N, *shape)``; of a label, ``(N,)`` whole numbers from 0, with
                -1 or NaN where it is not known. A label that is not given is known nowhere.

        Returns:
            ``(N, *self.shape)``.

        Raises:
            ValueError: a block that is absent or unknown, or an array of another shape.
        """
        if unknown := set(arrays) - {b.name for b in self.blocks}:
            names = ", ".join(self._places)
            raise ValueError(f"unknown block {', '.join(sorted(unknown))}; there are {names}")
        parts: list[Tensor] = []
        for block in self.blocks:
            if block.name in arrays:
                value = numbers(arrays[block.name])[0].to(parts[0].device if parts else None)
                if block.role == "label":
                    value = _one_hot(value, block.width, len(parts[0]))
                parts.append(value)
            elif block.role == "label":
                parts.append(parts[0].new_zeros(len(parts[0]), block.width))
            else:
                raise ValueError(f"block {block.name!r} is absent: give an array of it")
            expected = (len(parts[0]), *block.dims)
            if parts[-1].shape != expected:
                raise ValueError(
                    f"expected block {block.name!r} of shape {expected}, "
                    f"got {tuple(parts[-1].shape)}"
                )
        if len(parts) == 1:
            return parts[0].reshape(-1, *self.x_shape)
        packed = torch.cat([part.reshape(len(part), -1) for part in parts], 1)
        return packed.reshape(-1, *self.shape)

    def unpack(self, x: Tensor) -> dict[str, Tensor]:
        """The blocks by name, ``(N, *shape)``; they share the memory of x."""
        flat = x.flatten(1)
        return {b.name: flat[:, self._places[b.name]].reshape(-1, *b.dims) for b in self.blocks}

    def cells(self, x: Tensor) -> Tensor:
        """The part of x that the likelihood models, ``(N, *x_shape)``."""
        if x.shape[1:] == self.x_shape:
            return x
        return x[:, : math.prod(self.x_shape)].reshape(-1, *self.x_shape)

    def with_cells(self, x: Tensor, cells: Tensor) -> Tensor:
        """The observations x with other cells in their observed blocks."""
        if x.shape[1:] == self.x_shape:
            return cells
        return torch.cat([cells.flatten(1), x[:, math.prod(self.x_shape) :]], 1)

    def part(self, x: Tensor | None, role: Role) -> Tensor | None:
        """All blocks of a role side by side, ``(N, D)``; ``None`` where the record has none.

        Raises:
            ValueError: the model reads the block, and x is not given, or is given without it.
        """
        blocks = [b for b in self.blocks if b.role == role]
        if not blocks:
            return None
        if x is None or x.shape[1:] == self.x_shape:
            if role == "label" and x is not None:
                return x.new_zeros(len(x), blocks[0].width)
            names = ", ".join(b.name for b in blocks)
            raise ValueError(f"this model reads {names} ({role}) beside z: give x with it")
        each = [x[:, self._places[b.name]] for b in blocks]
        return each[0] if len(each) == 1 else torch.cat(each, 1)

    # What the parts of a model read.

    def see(self, x: Tensor) -> Tensor:
        """What the encoder reads: x, with zeros and a mask where cells may be missing, and context.

        The mask (1 where a cell is observed) and the context are channels more. Channels are the
        first dimension of ``(D,)``, ``(C, H, W)`` and ``(C, D, H, W)``, and the last one of
        ``(T, C)``, a sequence of T steps.
        """
        cells = self.cells(x)
        parts = [cells]
        if self.missing:
            mask = ~cells.isnan()
            parts = [torch.where(mask, cells, 0.0), mask.to(x.dtype)]
        if (context := self.context(x)) is not None:
            last = len(self.x_shape) == 2
            width, rest = context.shape[1], self.x_shape[:-1] if last else self.x_shape[1:]
            ones = [1] * len(rest)
            planes = context.reshape(-1, *((*ones, width) if last else (width, *ones)))
            parts.append(planes.expand(-1, *((*rest, width) if last else (width, *rest))))
        return (
            parts[0] if len(parts) == 1 else torch.cat(parts, -1 if len(self.x_shape) == 2 else 1)
        )

    def context(self, x: Tensor | None) -> Tensor | None:
        """What the decoder reads beside z, ``(N, D)``; ``None`` where there is none."""
        return self.part(x, "context")

    @property
    def context_width(self) -> int:
        """How many numbers of context an observation has."""
        return sum(b.width for b in self.blocks if b.role == "context")

    def shift(self, p: dist.TorchDistribution, x: Tensor | None) -> dist.TorchDistribution:
        """The likelihood with the offset added to the logarithm of its mean."""
        offset = self.part(x, "offset")
        if offset is None:
            return p
        wide = offset.shape[1] > 1
        return with_offset(p, offset.reshape(-1, *(self.x_shape if wide else [1] * p.event_dim)))

    def weighted(self, x: Tensor | None) -> AbstractContextManager[object]:
        """Within it the sites of each observation count as often as its weight says."""
        if x is None or (weight := self.part(x, "weight")) is None:
            return nullcontext()
        return poutine.scale(scale=weight[:, 0])  # pyright: ignore[reportReturnType, reportArgumentType]

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
        return observed(p, mask), fill(cells, mask, p.support)  # pyright: ignore[reportArgumentType]

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

    def take(self, x: Tensor | ArrayLike, like: Tensor) -> Tensor:
        """Observations as a packed tensor of the type and device of ``like``; NaN stays.

        Args:
            x: packed observations, those of the observed blocks alone where all else is labels, or
                a mapping of blocks by name.
            like: a tensor.

        Raises:
            ValueError: not numbers, another shape, whole numbers that the type would change.
        """
        given = self.pack(x) if isinstance(x, Mapping) else self._in_order(*numbers(x))
        given = _converted(given, like)
        if given.shape[1:] != self.shape:
            given = self._completed(given)
        if given.ndim == 0 or len(given) == 0:
            raise ValueError(f"x is empty: shape {tuple(given.shape)}; give at least one datum")
        for block in self.blocks:
            if block.role not in ("observed", "index"):
                self._check_block(block, given[:, self._places[block.name]])
        return given

    def check_complete(self, x: Tensor) -> None:
        """Raise where a cell is missing in a block that was not told of missing cells."""
        flat = x.flatten(1)
        for block in self.blocks:
            if block.role != "observed" or block.missing:
                continue
            gone = flat[:, self._places[block.name]].isnan()
            if gone.any():
                row, cell = gone.nonzero()[0].tolist()
                at = self.place((row, cell + self._places[block.name].start))
                raise ValueError(
                    f"x holds NaN: VAE(..., missing=True) takes NaN as a missing cell ({at})"
                )

    def check(self, x: Tensor, likelihoods: Sequence[dist.TorchDistribution], name: str) -> None:
        """Raise unless all observed cells lie in the support of the likelihood.

        Args:
            x: observations.
            likelihoods: p(x|z) at some draws of z, each of batch shape ``(1,)``.
            name: the likelihood's, for the message.
        """
        check_support(self.cells(x), likelihoods, name, self.place)

    def place(self, index: Sequence[int]) -> str:
        """Where an observed cell lies, in words: its row, and its column or block."""
        row, *cell = index
        if not cell:
            return f"row {row}"
        if len(cell) == 1 and self.columns is not None:
            return f"row {row}, column {self.columns[cell[0]]!r}"
        scored = [b for b in self.blocks if b.role == "observed"]
        if len(scored) > 1:
            block = next(b for b in scored if cell[0] < self._places[b.name].stop)
            return f"row {row}, block {block.name!r}"
        return f"row {row}, cell {cell[0] if len(cell) == 1 else tuple(cell)}"

    def _in_order(self, x: Tensor, columns: tuple[str, ...] | None) -> Tensor:
        """The columns of a frame in the order in which the model has met them first."""
        if columns is None or x.shape[1:] != self.x_shape or self.columns == columns:
            return x
        if self.columns is None:
            self.columns = columns
            return x
        if absent := [name for name in self.columns if name not in columns]:
            raise ValueError(f"x lacks the column {absent[0]!r}; it has {', '.join(columns)}")
        return x[:, [columns.index(name) for name in self.columns]]

    def _completed(self, x: Tensor) -> Tensor:
        """Observed cells without their labels, as observations whose labels are not known."""
        others = [b for b in self.blocks if b.role not in ("observed", "label")]
        if x.ndim and x.shape[1:] == self.x_shape and not others:
            return torch.cat([x.flatten(1), x.new_zeros(len(x), self.shape[0] - x[0].numel())], 1)
        if others and x.shape[1:] == self.x_shape:
            names = ", ".join(self._places)
            raise ValueError(f"give x by blocks, as a dict of {names}, or packed by record.pack")
        shape, got = self.x_shape, tuple(x.shape)
        expected = ", ".join(map(str, ("N", *shape)))
        if got == shape:
            advice = "one observation is x[None]"
        elif len(shape) == 3 and len(got) == 4 and (got[3], *got[1:3]) == shape:
            advice = (
                "channels come first, x.transpose(0, 3, 1, 2) of an array (of a tensor permute)"
            )
        else:
            advice = f"reshape x, or make VAE({got[1:]}, ...)"
        raise ValueError(f"expected x of shape ({expected}), got {got}: {advice}")

    def _check_block(self, block: Block, values: Tensor) -> None:
        wrong = ~values.isfinite()
        if block.role == "label":
            one_hot = ((values == 0) | (values == 1)).all(1) & (values.sum(1) <= 1)
            if not one_hot.all():
                raise ValueError(
                    f"the last {block.width} columns are a label as a one-hot vector, or zeros: "
                    "make data by vae.labelled(x, labels)"
                )
        if block.role == "weight":
            wrong = wrong | (values <= 0)
        if wrong.any():
            row, cell = wrong.nonzero()[0].tolist()
            need = "a number greater than 0" if block.role == "weight" else "a finite number"
            raise ValueError(
                f"block {block.name!r} ({block.role}) needs {need}, got "
                f"{values[row, cell].item():g} in row {row}"
            )


def _one_hot(labels: Tensor, classes: int, n: int) -> Tensor:
    """Labels as one-hot vectors, zeros where they are not known."""
    y = labels.double().nan_to_num(-1)
    if y.shape != (n,):
        raise ValueError(
            f"expected a label for each observation, ({n},), got {tuple(y.shape)}: "
            "give -1 where it is not known"
        )
    wrong = y[(y != y.round()) | (y < -1) | (y >= classes)]
    if len(wrong):
        raise ValueError(
            f"labels are whole numbers from 0 to {classes - 1}, or -1 where they are not known, "
            f"got {wrong[0].item():g}"
        )
    return (y[:, None] == torch.arange(classes, device=y.device)).to(torch.get_default_dtype())


def _converted(x: Tensor, like: Tensor) -> Tensor:
    """x in another type; whole numbers that it cannot hold are refused."""
    as_given = x.to(like.device)
    found = as_given.to(like.dtype)
    exact = as_given.dtype in (torch.int32, torch.int64, torch.float64)
    if exact and as_given.dtype != like.dtype:
        large = as_given.abs() > 2 / torch.finfo(like.dtype).eps
        if large.any():
            changed = large & (as_given == as_given.round()) & (found.to(as_given) != as_given)
            if changed.any():
                kind = str(like.dtype).removeprefix("torch.")
                raise ValueError(
                    f"x holds the whole number {as_given[changed][0].item():.15g}, which {kind} "
                    "cannot hold: use vae.double(), or number the categories from 0"
                )
    return found
