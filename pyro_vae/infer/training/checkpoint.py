"""A training run on disk: parts by name in a safetensors file, and in one of the time before."""

import json
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...core.files import replacing
from ...core.system import check_file

__all__ = ["CHECKPOINT", "PREVIOUS", "Parts", "find", "is_kept", "read", "read_one", "write"]

CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
TENSOR = "$tensor"  # the key of what stands for a tensor in the text

Parts = dict[str, Any]


def write(folder: Path, parts: Mapping[str, object]) -> None:
    """Write a checkpoint; the one that was there is kept beside it.

    Args:
        folder: of the run.
        parts: by name: tensors, numbers, texts, and lists and dictionaries of these.

    Raises:
        TypeError: a part holds something else.
        OSError: the disk is full, or not to be written on.
    """
    tensors: dict[str, Tensor] = {}
    try:
        text = json.dumps({name: _detach(part, name, tensors) for name, part in parts.items()})
    except TypeError as problem:
        raise TypeError(f"a checkpoint holds tensors, numbers and texts: {problem}") from None
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"parts": text, "checksum": _checksum(text, tensors)}
    try:
        with replacing(folder / CHECKPOINT) as new:
            save_file(tensors, new, metadata=metadata)
            if (folder / CHECKPOINT).exists():  # a crash between the two leaves the one before
                (folder / CHECKPOINT).replace(folder / PREVIOUS)
    except SafetensorError as problem:
        raise OSError(str(problem)) from None


def is_kept(folder: str | Path) -> bool:
    """Whether a folder holds a checkpoint."""
    return bool(_kept(folder))


def find(folder: str | Path) -> list[Path]:
    """The checkpoints of a folder, the last one first.

    Raises:
        ValueError: there is none.
    """
    if not (paths := _kept(folder)):
        raise ValueError(f"{folder} holds no checkpoint ({CHECKPOINT}) to resume from")
    return paths


def _kept(folder: str | Path) -> list[Path]:
    return [path for name in (CHECKPOINT, PREVIOUS) if (path := Path(folder) / name).exists()]


def read(folder: str | Path) -> Parts:
    """The parts of the last checkpoint by name; of the one before, where that is damaged.

    Raises:
        ValueError: no checkpoint, or damaged or foreign ones.
    """
    problems: list[ValueError] = []
    for path in find(folder):
        try:
            parts = read_one(path)
        except ValueError as problem:
            problems.append(problem)
            continue
        if problems:
            done = parts["progress"]
            warnings.warn(
                f"{problems[0]}. The one before it is taken, with {done['epoch']} epochs and "
                f"{done['step']} steps",
                stacklevel=4,
            )
        return parts
    raise problems[0]


def read_one(path: Path) -> Parts:
    """The parts in one file, which :func:`write` wrote."""
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if "state" in metadata:
            raise ValueError(
                f"{path} is of pyro_vae 0.1.0, whose runs this version does not resume: its model "
                "can be loaded, and trained anew"
            )
        if _checksum(metadata["parts"], tensors) != metadata["checksum"]:
            raise KeyError("its checksum is of other content")
        return _attach(json.loads(metadata["parts"]), tensors)
    except (SafetensorError, KeyError, TypeError, RecursionError, json.JSONDecodeError) as problem:
        raise ValueError(f"{path} is damaged, or not a checkpoint of pyro_vae: {problem}") from None


def _detach(value: object, path: str, tensors: dict[str, Tensor]) -> object:
    """A value without its tensors, which are collected by their path."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {TENSOR: path}
    if isinstance(value, Mapping):
        return {key: _detach(inner, f"{path}/{key}", tensors) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_detach(inner, f"{path}/{i}", tensors) for i, inner in enumerate(value)]
    return value


def _attach(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    """A value with its tensors again."""
    if isinstance(value, list):
        return [_attach(inner, tensors) for inner in value]
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]]
        return {key: _attach(inner, tensors) for key, inner in value.items()}
    return value


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    checksum = zlib.crc32(text.encode())
    for _, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"
