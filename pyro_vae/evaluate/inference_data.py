"""Draws with named dimensions for ArviZ, 0.23 (InferenceData) and 1.x (DataTree).

Only this module knows of the two.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from ..model.face import Face

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["Variable", "as_draws", "container", "latent_coords"]

CHAINS = 4
Variable: TypeAlias = tuple[Sequence[str], np.ndarray]


def as_draws(draws: Tensor | np.ndarray, *dims: str) -> Variable:
    """Independent draws ``(S, ...)`` as several chains, which diagnostics compare."""
    n = len(draws)
    chains = CHAINS if n % CHAINS == 0 and n >= CHAINS**2 else 1
    values = draws.detach().cpu().numpy() if isinstance(draws, Tensor) else draws
    values = values.reshape(chains, n // chains, *values.shape[1:])
    return ("chain", "draw", *dims), values


def container(
    groups: Mapping[str, Mapping[str, Variable]],
    coords: Mapping[str, ArrayLike],
) -> "InferenceData":
    """Named arrays as ArviZ's container: ``InferenceData``, in 1.x ``DataTree``.

    Args:
        groups: by the name of the group, variables as (dimensions, array).
        coords: of the dimensions; ``chain`` and ``draw`` are numbered here.
    """
    import xarray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ 0.23 announces 1.0 at import
        import arviz
    sets: dict[str, Any] = {}
    for group, variables in groups.items():
        sizes = {d: n for dims, v in variables.values() for d, n in zip(dims, v.shape, strict=True)}
        named = {d: coords.get(d, np.arange(n)) for d, n in sizes.items()}
        about = {"inference_library": "pyro_vae", "arviz_version": arviz.__version__}
        sets[group] = xarray.Dataset(dict(variables), coords=named, attrs=about)
    if int(arviz.__version__.split(".")[0]) >= 1:
        return xarray.DataTree.from_dict(sets)  # pyrefly: ignore[bad-return]
    return arviz.InferenceData(**sets)


def latent_coords(vae: Face) -> dict[str, np.ndarray]:
    """Names of the coordinates of a vector z; the axes of another shape are numbered."""
    return {"latent_dim": np.array(vae.coordinates)} if len(vae.latent_axes) == 1 else {}
