"""TOML files of settings: a line for each, with tables in place."""

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path

from .files import write_whole
from .system import check_file

__all__ = ["read_config", "write_toml"]


def read_config(path: str | Path) -> dict[str, object]:
    """A TOML file of settings.

    Raises:
        ValueError: no such file, or not TOML.
    """
    check_file(path)
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a TOML file: it is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as problem:
        raise ValueError(f"{path} is not a TOML file: {problem}") from None


def write_toml(path: Path, values: Mapping[str, object], comment: str) -> None:
    """Settings as TOML, a line for each; those that are ``None`` are left out."""
    lines = [f"{k} = {_value(v)}\n" for k, v in values.items() if v is not None]
    write_whole(path, f"# {comment}\n" + "".join(lines))


def _value(value: object) -> str:
    """As JSON, but for numbers that are not finite and what TOML escapes beyond it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(k)} = {_value(v)}' for k, v in value.items())}}}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
