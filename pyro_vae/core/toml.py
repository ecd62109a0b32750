"""TOML files of flat settings."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["read_config", "write_toml"]


def read_config(path: str | Path) -> dict[str, object]:
    """A TOML file of settings.

    Raises:
        ValueError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path} is not a TOML file: {problem}") from None


def write_toml(path: Path, values: Mapping[str, object], comment: str) -> None:
    """Flat settings as TOML; those that are ``None`` are left out."""
    lines = [f"{k} = {json.dumps(v)}\n" for k, v in values.items() if v is not None]
    path.write_text(f"# {comment}\n" + "".join(lines))
