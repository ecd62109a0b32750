"""What every public function of a model checks of its arguments, before it does anything."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from ..language.arguments import suggests
from .vae import VAE

__all__ = ["of_model"]

P = ParamSpec("P")
R = TypeVar("R")


def of_model(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose first argument is a model: another one is refused, in words.

    Raises:
        ValueError: the first argument is no model; it may have been swapped with the second.
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
        if not isinstance(vae, VAE) and (args or "vae" in kwargs):
            if len(args) > 1 and isinstance(args[1], VAE):
                raise ValueError(
                    f"{name} takes the model first, {name}(vae, x): swap its arguments"
                )
            raise ValueError(
                f"{name} evaluates a pyro_vae.VAE, got {type(vae).__name__}: {name}(vae, ...)"
            )
        return named(*args, **kwargs)

    return call
