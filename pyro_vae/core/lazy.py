"""Packages that import a name when it is first used; which there are is said in their stub."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

__all__ = ["attach"]


def attach(
    package: str, file: str, hint: Callable[[str, list[str]], str] = lambda name, known: ""
) -> tuple[Callable[[str], object], list[str]]:
    """``__getattr__`` and the public names of a package, from the imports of its ``.pyi`` file.

    Type checkers read the same file, so a name and its home are said once.

    Args:
        package: ``__name__``.
        file: ``__file__``.
        hint: of a name that there is not, and those that there are, to the end of the message.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    homes = {a.name: "." * i.level + (i.module or "") for i in imports for a in i.names}

    def get(name: str) -> object:
        if name not in homes:
            end = "" if name.startswith("_") else hint(name, sorted(homes))
            raise AttributeError(f"module {package!r} has no attribute {name!r}{end}")
        if homes[name] != "." and name in vars(home := import_module(homes[name], package)):
            return getattr(home, name)
        return import_module(f"{homes[name].rstrip('.')}.{name}", package)  # a module

    return get, sorted(homes)
