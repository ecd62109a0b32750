"""Reading saved models: the one place that knows which kinds of model there are."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.seeding import seeded
from ..core.sizes import bounded
from .files import CUSTOM, DESCRIPTION, WEIGHTS, read_model
from .semisupervised import M2
from .vae import VAE

__all__ = ["load"]

SLACK = 20  # times what is saved may be made on the way to the model
KINDS: dict[str, type[VAE]] = {"VAE": VAE, "M2": M2}


def load(folder: str | Path, cls: type[VAE] | None = None, **modules: nn.Module) -> VAE:
    """Read what :meth:`VAE.save` wrote.

    Args:
        folder: with ``model.toml`` and ``model.safetensors``.
        cls: the class of the model, where it is a subclass of your own. Its constructor takes what
            its method ``arguments`` makes of the description.
        modules: ``encoder=``, ``prior=`` ...: those that are classes of your own.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: a damaged or foreign folder, or a class of your own that is not given.
    """
    if cls is not None and not (isinstance(cls, type) and issubclass(cls, VAE)):
        raise ValueError(f"cls is a subclass of pyro_vae.VAE, got {getattr(cls, '__name__', cls)}")
    about, weights = read_model(folder)
    where = Path(folder) / DESCRIPTION
    cls = _kind(about, cls)
    if unknown := set(modules) - set(cls.ROLES):
        known = ", ".join(cls.ROLES)
        raise ValueError(f"unknown part {', '.join(sorted(unknown))}; there are {known}")
    try:
        arguments: dict[str, Any] = cls.arguments(about) | modules
        dtype = getattr(torch, str(about["dtype"]), None)
    except KeyError as absent:
        raise ValueError(f"{where} lacks {absent.args[0]}") from None
    except TypeError as problem:  # values of another kind, or a constructor of the user's own
        raise ValueError(f"{where} does not make a {cls.__name__}: {problem}") from None
    for role in cls.ROLES:
        line = str(arguments[role])
        if line.startswith(CUSTOM):
            raise ValueError(
                f"the {role} of this model is a class of your own ({line.removeprefix(CUSTOM)}): "
                f"load(folder, {role}=...), or in a shell --modules FILE.py, which defines {role}"
            )
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"{where} names an unknown dtype {about['dtype']!r}")
    try:
        sizes = sum(w.numel() for w in weights.values()), len(weights)
        most = SLACK * sizes[0] + 10**7, SLACK * sizes[1] + 1000
        with (
            seeded(0),
            bounded(*most, f"{WEIGHTS} holds {sizes[0]:,} numbers, and {where} asks for"),
        ):
            vae = cls(**arguments).to(dtype)
    except TypeError as problem:
        raise ValueError(
            f"{where} does not make a {cls.__name__}: {problem}; a class whose constructor takes "
            "other arguments says them in its classmethod arguments(about)"
        ) from None
    if (columns := about.get("columns")) is not None:  # a table's record has its own
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise ValueError(f"{where} has columns that are no list of names: {columns!r}")
        vae.record.columns = tuple(columns)
    try:
        vae.load_state_dict(weights)
    except RuntimeError as problem:
        raise ValueError(
            f"{Path(folder) / WEIGHTS} does not fit the description: {problem}"
        ) from None
    return vae.eval()


def _kind(about: dict[str, Any], cls: type[VAE] | None) -> type[VAE]:
    """The class of a saved model: one of those known, or the user's own that is given."""
    kind = str(about.get("kind", "M2" if "classes" in about else "VAE"))
    name = kind.rsplit(".", 1)[-1]
    if cls is not None and cls.__name__ != name:  # a script's module is __main__
        raise ValueError(f"the folder holds a {kind}, and cls= is {cls.kind()}")
    if cls is None and kind not in KINDS:
        raise ValueError(f"the model is of a class of your own ({kind}): load(folder, cls={name})")
    return cls or KINDS[kind]
