"""Sequences from files: lines of text, lists in a column, and arrays with their lengths."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.system import check_file
from .vocabulary import Unit, Vocabulary

__all__ = ["TEXTS", "joined", "padded", "read_lines", "read_lists", "read_texts", "with_lengths"]

TEXTS = (".txt",)


def padded(
    rows: Sequence[np.ndarray | Tensor], dtype: torch.dtype | None = torch.float32
) -> Tensor:
    """Sequences side by side, ``(N, T, ...)``, NaN after the last step of each.

    Args:
        rows: each ``(T_i, ...)``; those that are padded already keep their padding.
        dtype: of all; ``None`` keeps their own, or takes the least that holds all of theirs.
    """
    each = [torch.as_tensor(row, dtype=dtype) for row in rows]
    least = reduce(torch.promote_types, {row.dtype for row in each})
    each = [row.to(least) for row in each]
    return torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=torch.nan)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Batches, ``(N_i, T_i, ...)``, as one, NaN after the steps of those that have fewer."""
    if len({part.shape[1:] for part in parts}) == 1:
        return torch.cat([*parts])
    return padded([row for part in parts for row in part], None)


def read_lines(path: Path) -> list[str]:
    """The lines of a file of text that are not empty.

    Raises:
        ValueError: no file, or none of text, or no line.
    """
    check_file(path)
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"{path} is no text in UTF-8 (byte {problem.start}): save it as UTF-8"
        ) from None
    if not lines:
        raise ValueError(f"{path} holds no line of text: write one observation a line")
    return lines


def read_texts(path: Path, unit: Unit) -> tuple[Tensor, Vocabulary]:
    """The lines of a file that are not empty, as padded numbers of their tokens.

    Raises:
        ValueError: no file, none of text, or no line.
    """
    lines = read_lines(path)
    vocabulary = Vocabulary.of(lines, unit)
    return padded([vocabulary.encode(line) for line in lines]), vocabulary


def read_lists(path: Path) -> Tensor | None:
    """The sequences of a ``.parquet`` file whose one column holds lists; ``None`` of a table.

    Raises:
        ValueError: an empty list, or one that holds no numbers, with its row.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        schema = parquet.read_schema(path)
    except (ImportError, OSError, ValueError):  # what a table is, or what is no Parquet, is theirs
        return None
    kinds = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    if len(schema) != 1 or not any(kind(schema.field(0).type) for kind in kinds):
        return None
    rows = parquet.read_table(path).column(0).to_pylist()
    arrays = []
    for i, row in enumerate(rows):
        try:
            array = np.array(row, dtype=np.float32)
        except (TypeError, ValueError) as problem:
            raise ValueError(f"row {i} of {path} is no list of numbers: {problem}") from None
        alike = not arrays or array.shape[1:] == arrays[0].shape[1:]
        if not array.size or array.ndim > 2 or not alike:
            raise ValueError(
                f"row {i} of {path} has shape {array.shape}: expected a step or more, all alike"
            )
        arrays.append(array)
    return padded(arrays)


def with_lengths(x: Tensor, lengths: Tensor, of: str = "lengths") -> Tensor:
    """Padded sequences with NaN after their lengths, which a message calls ``of``.

    Raises:
        ValueError: lengths that are none of these sequences, or a last step of nothing but NaN.
    """
    most = x.shape[1]
    wrong = (lengths < 1) | (lengths > most) | (lengths != lengths.round())
    if lengths.shape != (len(x),) or wrong.any():
        got = tuple(lengths.shape) if lengths.shape != (len(x),) else lengths[wrong][0].item()
        raise ValueError(f"{of} are {len(x)} whole numbers from 1 to {most}, got {got}")
    lengths = lengths.to(x.device)
    last = x[torch.arange(len(x), device=x.device), lengths.long() - 1]
    if (gone := last.isnan().reshape(len(x), -1).all(1)).any():
        row = int(gone.nonzero()[0])
        raise ValueError(
            f"{of}: row {row} ends, after {int(lengths[row])} steps, with a step of NaN, which is "
            "padding here: leave that step out"
        )
    there = torch.arange(most, device=x.device) < lengths[:, None]
    return torch.where(there.reshape(*there.shape, *[1] * (x.ndim - 2)), x, torch.nan)
