"""What the parts of a model are made from: lines, and the likelihood of all blocks."""

from copy import deepcopy

import pyro.distributions as dist
import torch
from torch import nn

from ..core.seeding import seeded
from ..families.joined import JoinedLikelihood
from ..families.networks import spec_of
from ..families.part import Ends, Line
from ..families.registry import make_part
from .files import CUSTOM
from .record import Record
from .visits import VisitsRecord

__all__ = ["asks_for_features", "example_of", "joined", "line_of"]


def joined(record: Record, likelihood: Line) -> Line:
    """The likelihood of all observed blocks, where they say their own."""
    lines = [(line or likelihood, shape[-1]) for line, shape in record.scored]
    return lines[0][0] if len(lines) == 1 else JoinedLikelihood(lines, likelihood, record.layout)


def example_of(likelihood: Line, record: Record) -> dist.TorchDistribution | None:
    """The likelihood at some z, for what its support says; ``None`` of a module without a line."""
    line = likelihood
    if isinstance(likelihood, JoinedLikelihood):
        line = deepcopy(likelihood)
    elif isinstance(likelihood, nn.Module) and (line := spec_of(likelihood)) is None:
        return None
    with seeded(0), torch.no_grad():
        x_shape = record.row_shape if isinstance(record, VisitsRecord) else record.x_shape
        try:
            return _made(line, x_shape)
        except ValueError:
            _check_columns(record)
            raise


def _made(line: Line, x_shape: tuple[int, ...]) -> dist.TorchDistribution:
    return make_part(line, Ends(x_shape, "likelihood", (1,)))(torch.zeros(1, 1))


def _check_columns(record: Record) -> None:
    """Raise for the first column of a table whose likelihood cannot be made, with its name."""
    for (line, shape), places in zip(record.scored, record.layout.places, strict=True):
        if line is None or not record.columns:
            return
        try:
            _made(line, shape)
        except ValueError as problem:
            name = record.columns[places[0]]
            raise type(problem)(f"column {name!r}: {problem}") from problem


def asks_for_features(prior: Line) -> bool:
    """Whether a line of the prior leaves a parameter to what it reads."""
    return "amortized" in str(spec_of(prior))


def line_of(module: nn.Module) -> str:
    """The line that makes a part again, or the name of the user's class."""
    spec = spec_of(module)
    own = f"{type(module).__module__}.{type(module).__qualname__}"
    return str(spec) if spec else f"{CUSTOM}{own}"
