"""Data for training: checked, held out, made bits, and told apart from other data."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from pyro import get_param_store
from pyro.poutine import trace
from torch import Tensor, nn
from torch.utils.data import Dataset

from ...core.seeding import seeded
from ...data.counts import Counts
from ...data.loaders import Form, Stream, is_loader, length, stream
from ...data.pictures import warn_of_layout
from ...data.ragged import joined
from ...data.rows import HELD_OUT, Rows
from ..engine.distributed import Processes
from . import binarize as bits
from .batches import Batches
from .run import Trainable
from .settings import Binarize, FitSettings

__all__ = ["Data", "Prepared", "check_grey", "fingerprint", "prepare"]

Data: TypeAlias = Tensor | ArrayLike | Iterable[Any] | Dataset[Any] | Counts

EVALUATED = 1000  # at least so many training data points are evaluated for the history


@dataclass(frozen=True)
class Prepared:
    """Data as a run uses them.

    Attributes:
        batches: of an epoch.
        sample: training data to evaluate.
        held_out: validation data, if any.
        whole: all training data where memory holds them, else the sample.
        identity: what tells the data from others, where it was asked for.
        described: the same of x alone, and its file where it has one, for people to read.
    """

    batches: Batches
    sample: Tensor
    held_out: Tensor | None
    whole: Tensor
    identity: dict[str, object]
    described: dict[str, object]


def prepare(
    vae: Trainable,
    x: Data,
    validation: "Data | float | None",
    settings: FitSettings,
    team: Processes,
    *,
    steps: int | None = None,
    identify: bool = False,
) -> Prepared:
    """Check the data, and draw what is held out and what is evaluated.

    Args:
        vae: the model.
        x: the data of ``fit``.
        validation: data, or the fraction that ``settings`` has.
        settings: of ``fit``.
        team: who trains together.
        steps: batches of a loader that make an epoch.
        identify: hash the data, for a run that may be resumed.

    Raises:
        ValueError: data that cannot be served, with what to do.
    """
    warn_of_layout(getattr(vae, "x_shape", ()))
    held_out, binarize = None, settings.binarize
    form: Any = getattr(vae, "record", None) or Form()
    blocks = getattr(form, "blocks", ())
    if binarize and (others := [b.name for b in blocks if b.role not in ("observed", "label")]):
        raise ValueError(
            f"binarize would draw bits of {', '.join(others)} too: binarize x before packing it"
        )
    x = _kept_sparse(vae, x, binarize)
    x = stream(Rows(x) if isinstance(x, np.memmap) else x, settings.batch_size, steps)
    given = None if settings.validation or validation is None else vae.as_data(validation)
    if given is not None:
        with seeded(_other_seed() if binarize else None):
            held_out = vae.check(draw_bits(given, binarize))
    if isinstance(x, Rows | Stream) or is_loader(x):
        if binarize == "static":
            raise ValueError("binarize='static' needs x in memory; of a loader: 'dynamic'")
    else:
        x = vae.as_data(x) if binarize else vae.check(x)
    named = {"data": x} if given is None else {"data": x, "validation": given}
    identity: dict[str, object] = {k: fingerprint(v) for k, v in named.items() if identify}
    described = _describe(x, identity.get("data"))
    if settings.validation:
        x, held_out = _hold_out(vae, x, settings)
    if isinstance(x, Tensor):  # others are checked as they are read
        if binarize == "dynamic":
            check_grey(x)
        else:
            x = draw_bits(x, binarize)
    batches = Batches(
        x,
        settings.batch_size,
        team,
        fresh=binarize == "dynamic",
        prepare=lambda batch: form.even(draw_bits(vae.as_data(batch), binarize)),
        form=form,
    )
    if isinstance(x, Rows | Tensor):
        sample = _sampled(vae, x, 0 if held_out is None else len(held_out), binarize)
    else:
        sample = _read_first(vae, x, batches)
    if binarize or not isinstance(x, Tensor):  # else it is of what was checked
        sample = vae.check(sample)
    if batches.smallest == 1:
        _check_one(vae, sample[:1], settings.batch_size)
    whole = x if isinstance(x, Tensor) else sample
    return Prepared(batches, sample, held_out, whole, identity, described)


def _kept_sparse(vae: Trainable, x: Data, binarize: Binarize) -> Data:
    """A sparse matrix as rows of it, all of which are checked; others as they are."""
    if (record := getattr(vae, "record", None)) is None:
        return x
    if (rows := record.rows(x)) is None:
        record.name_columns(x)
        return x
    if binarize is None:
        deque(rows.checked(vae.check), maxlen=0)
    return rows


def _check_one(vae: Trainable, x: Tensor, batch_size: int) -> None:
    """Raise if a network cannot be trained on a batch of one, as batch normalization cannot."""
    if not isinstance(vae, nn.Module):
        return
    copied: Any = getattr(vae, "copied", lambda: nullcontext(deepcopy(vae)))
    store = get_param_store().scope()
    with copied() as trial, torch.random.fork_rng(), torch.no_grad(), store:
        trial.train()
        try:
            trace(trial.model)(x)  # Pyro warns of observations outside of inference
            trace(trial.guide)(x)
        except ValueError as problem:
            if "more than 1 value" not in str(problem):
                raise
            raise ValueError(
                "batch normalization needs two observations a step, and one batch of an epoch has "
                f"one: another batch_size than {batch_size}, or drop_last=True of a DataLoader"
            ) from None


def _sampled(vae: Trainable, x: Any, held_out: int, binarize: Binarize) -> Tensor:  # noqa: ANN401
    """Random training data that are evaluated: more where more are held out, drawn apart."""
    rows = torch.randperm(len(x), device=x.device)[: max(EVALUATED, held_out)]
    first, more = rows.tensor_split([EVALUATED])
    sample = draw_bits(vae.as_data(x[first]), binarize)
    if not len(more):
        return sample
    with seeded(_other_seed() if binarize else None):
        return torch.cat([sample, draw_bits(vae.as_data(x[more]), binarize)])


def _read_first(vae: Any, x: object, batches: Batches) -> Tensor:  # noqa: ANN401
    """The first rows of a loader, which a model that asks for it reads through."""
    with torch.random.fork_rng():
        sample = _first(batches)
        if not isinstance(x, Stream) and hasattr(vae, "read_through"):
            vae.read_through(batches)
    if isinstance(x, Stream):
        x.rewind()
    return sample


def _first(batches: Batches) -> Tensor:
    """Some observations of a loader: its first batches."""
    parts: list[Tensor] = []
    for batch in batches:
        parts.append(batch)
        if sum(map(len, parts)) >= EVALUATED:
            break
    return joined(parts)


def _hold_out(vae: Trainable, x: Data, settings: FitSettings) -> tuple[Data, Tensor]:
    """What is left of the data, and a fraction of them."""
    if not isinstance(x, Rows | Tensor):
        raise ValueError("validation=fraction needs x in memory: give validation data")
    fraction = settings.validation or 0.0
    order, n = torch.randperm(len(x), device=x.device), round(fraction * len(x))
    if not 0 < n < len(x):
        raise ValueError(f"validation={fraction} of {len(x)} data points leaves a part empty")
    n = min(n, HELD_OUT) if isinstance(x, Rows) else n
    held_out = x[order[:n]]
    if isinstance(x, Rows) or settings.binarize:
        held_out = vae.check(draw_bits(vae.as_data(held_out), settings.binarize))
    return x.subset(order[n:]) if isinstance(x, Rows) else x[order[n:]], held_out


def _other_seed() -> int:
    """A seed of draws that leave those of training, which are others, as they are."""
    with torch.random.fork_rng(devices=[]):
        return int(torch.randint(2**62, ()))


def draw_bits(x: Tensor, binarize: Binarize) -> Tensor:
    """Bits of grey values where they are asked for, else x as it is."""
    if binarize is None:
        return x
    check_grey(x)
    return bits.binarize(x)


def check_grey(x: Tensor) -> None:
    """Raise unless x are probabilities of bits."""
    low, high = x.min().item(), x.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"binarize takes grey values in [0, 1], x lies in [{low:g}, {high:g}]: "
            "divide it by its largest value"
        )


def _describe(x: Data, identity: object) -> dict[str, object]:
    """The shape and the hash of data, and their file, where they have these."""
    if not isinstance(x, Rows | Tensor) or not isinstance(identity, list):
        return {}
    shape, digest = identity
    file = getattr(getattr(x, "array", None), "filename", None)
    about: dict[str, object] = {"data_shape": shape, "data_hash": digest}
    return about | ({} if file is None else {"data_file": str(Path(file).resolve())})


def fingerprint(x: Data) -> list[object]:
    """The shape of data and a hash of their bytes; of an array on disk, of some rows."""
    if isinstance(x, Rows):
        some: Iterator[Tensor] = iter([x[:: max(1, len(x) // EVALUATED)]])
    elif isinstance(x, Tensor):
        some = iter(x.split(EVALUATED))
    else:
        return [type(x).__name__, length(x)]
    digest = hashlib.blake2b(digest_size=8)
    for rows in some:
        digest.update(rows.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return [list(x.shape), digest.hexdigest()]
