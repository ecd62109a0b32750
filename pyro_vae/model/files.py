"""The two files of a saved model, weights and a readable description; nothing is unpickled."""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core.files import CHECKPOINTS, folder_path, replacing
from ..core.system import check_file
from ..core.toml import read_config, write_toml

__all__ = ["CUSTOM", "DESCRIPTION", "WEIGHTS", "own_parts", "read_model", "write_model"]

CUSTOM = "custom "  # begins the description of a part that is a class of the user's

DESCRIPTION, WEIGHTS = "model.toml", "model.safetensors"
FORMAT = 2  # 1 is that of version 0.1.0, which does not say it
# The beginnings of weights' names in format 1, the longest first, and those of today.
RENAMED = {"posterior.posterior.": "approximation.family.", "posterior.": "approximation."}


def write_model(
    folder: str | Path, about: Mapping[str, object], weights: Mapping[str, Tensor]
) -> Path:
    """Write both files into a folder, which is made: the weights first, and each of them whole.

    The description holds a checksum of the weights, so those of another save are seen as such.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
    try:
        with replacing(folder / WEIGHTS) as new:
            save_file(tensors, new)
            checksum = _checksum(new)
    except safetensors.SafetensorError as problem:
        raise OSError(f"{folder / WEIGHTS}: {problem}") from None
    settings = {"format": FORMAT, **about, "checksum": checksum}
    write_toml(folder / DESCRIPTION, settings, "a model of pyro_vae: pv.load(folder)")
    return folder


def read_model(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the weights of a folder.

    Raises:
        ValueError: no model, a damaged one, or one of a later version.
    """
    folder = folder_path("folder", folder)
    for path in (folder / DESCRIPTION, folder / WEIGHTS):
        if not path.is_file():
            raise ValueError(f"{folder} holds no saved model: {path} is missing{_advice(folder)}")
        check_file(path)
    try:
        about = tomllib.loads((folder / DESCRIPTION).read_text("utf-8"))
        weights = load_file(folder / WEIGHTS)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, safetensors.SafetensorError) as problem:
        raise ValueError(f"{folder} holds a damaged model: {problem}") from problem
    version = about.pop("format", 1)
    if version not in range(1, FORMAT + 1):
        raise ValueError(
            f"{folder / DESCRIPTION} has the format {version}, and this version of pyro_vae reads "
            f"up to {FORMAT}: install a newer one"
        )
    checksum = about.pop("checksum", None)
    if checksum is not None and checksum != _checksum(folder / WEIGHTS):
        raise ValueError(
            f"{folder} holds a damaged model: {WEIGHTS} does not fit the description's checksum, "
            "so it is damaged or of another save"
        )
    if version == 1:
        weights = {_renamed(name): value for name, value in weights.items()}
    return about, weights


def own_parts(folder: str | Path) -> list[str]:
    """The roles, in a model's description, of parts that are classes of the user's."""
    about = read_config(Path(folder) / DESCRIPTION)
    return [role for role, line in about.items() if str(line).startswith(CUSTOM)]


def _advice(folder: Path) -> str:
    """What can be done with the folder of a run that ended before its model was saved."""
    if not any(folder.glob(CHECKPOINTS)):
        return ""
    return (
        "; the run ended before its end, and goes on with pv.fit(..., "
        f"resume={str(folder)!r}), or pyro-vae fit --resume {folder}"
    )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
