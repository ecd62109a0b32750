"""What every public function of a model checks of its arguments, before it does anything."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

from ..language.arguments import suggests
from .face import Face
from .vae import VAE

__all__ = ["of_face", "of_model"]

P = ParamSpec("P")
R = TypeVar("R")


def of_model(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose first argument is a VAE: another one is refused, in words.

    Raises:
        ValueError: the first argument is no VAE; it may have been swapped with the second.
        TypeError: an unknown argument, with the nearest ones.

    >>> @of_model
    ... def elbo(vae, x): ...
    >>> elbo([0.0], VAE(1, 1))
    Traceback (most recent call last):
    ValueError: elbo takes the model first, elbo(vae, x): swap its arguments
    """
    name, named = function.__name__, suggests(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        vae = args[0] if args else kwargs.get("vae")
        if isinstance(vae, Face) and not isinstance(vae, VAE):
            raise ValueError(
                f"{name} needs a pyro_vae.VAE, which has a prior, an encoder and a decoder of its "
                f"own; a {type(vae).__name__} has a model and a guide, functions that draw"
            )
        if not isinstance(vae, VAE) and (args or "vae" in kwargs):
            _refuse(name, args)
        return named(*args, **kwargs)

    return call


def of_face(function: Callable[P, R]) -> Callable[P, R]:
    """:func:`of_model` that takes a program too, whose observations it puts in the place of x.

    >>> @of_face
    ... def elbo(vae, x): ...
    >>> elbo([0.0], VAE(1, 1))
    Traceback (most recent call last):
    ValueError: elbo takes the model first, elbo(vae, x): swap its arguments
    """
    name, named = function.__name__, suggests(function)
    parameters = inspect.signature(function).parameters
    takes_x = "x" in parameters
    places = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters.values())

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        vae = args[0] if args else kwargs.get("vae")
        if not isinstance(vae, Face) and (args or "vae" in kwargs):
            _refuse(name, args, program=f" or {name}(pyro_vae.Program(model, guide, x))")
        given = len(args) > 1 and (isinstance(args[1], Tensor) or len(args) == places)
        if takes_x and not given and isinstance(vae, Face) and vae.observations is not None:
            rest: Any = {key: value for key, value in kwargs.items() if key != "vae"}
            rest.setdefault("x", vae.observations)
            return named(vae, rest.pop("x"), *args[1:], **rest)  # pyrefly: ignore[invalid-param-spec]
        return named(*args, **kwargs)

    return call


def _refuse(name: str, args: tuple, program: str = "") -> None:
    """Raise, for a first argument that is no model."""
    if len(args) > 1 and isinstance(args[1], Face):
        raise ValueError(f"{name} takes the model first, {name}(vae, x): swap its arguments")
    kinds = "a pyro_vae.VAE or a pyro_vae.Program" if program else "a pyro_vae.VAE"
    got = type(args[0]).__name__ if args else "another model"
    raise ValueError(f"{name} evaluates {kinds}, got {got}: {name}(vae, ...){program}")
