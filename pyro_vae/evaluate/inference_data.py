"""Draws with named dimensions for ArviZ, 0.23 (InferenceData) and 1.x (DataTree).

Only this module knows of the two.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.checks import whole
from ..model.entry import of_model
from ..model.joint import Joint, reading
from ..model.vae import VAE

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["as_draws", "container", "latent_axes", "latent_coords", "to_arviz"]

CHAINS = 4
AXES = {1: ("column",), 2: ("row", "column"), 3: ("channel", "row", "column")}
Variable: TypeAlias = tuple[Sequence[str], np.ndarray]


@of_model
@torch.no_grad()
def to_arviz(
    vae: VAE,
    x: Tensor | ArrayLike,
    num_samples: int = 500,
    *,
    seed: int | None = None,
) -> "InferenceData":
    r"""Draws from the guide, the prior and the likelihood, as ArviZ takes them.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``; a data frame gives ``observation`` and ``column`` their names.
        num_samples: draws of z per observation. Predictions are as many times as large as x.
        seed: of the draws.

    Returns:
        ``InferenceData`` (a ``DataTree`` under ArviZ 1.x), with names for all dimensions:

        - ``posterior``: ``z`` (chain, draw, observation, latent_dim) from q(z|x);
        - ``posterior_predictive``: ``x`` (chain, draw, observation, row, column ...) from p(x|z);
        - ``log_likelihood``: ``x`` (chain, draw, observation), log p(x|z) there, in nats;
        - ``sample_stats``: ``lp``, log p(x, z), and ``log_weight``, log p(x, z) - log q(z|x);
        - ``prior``: ``z`` (chain, draw, latent_dim); ``prior_predictive``: ``x``, which has the
          dimension observation too where the model reads a context or an offset;
        - ``observed_data``: ``x`` (observation, row, column ...).

        The draws are independent; they are dealt into 4 chains where num_samples is a multiple of
        4 and at least 16, else they are one chain. They are draws of the guide: what ArviZ says of
        the posterior holds as far as ``sample_stats.log_weight`` is flat. ``latent_dim`` holds the
        names of the coordinates of z, ``z[0]`` ..., with stochastic layers ``z1[0]`` ....

    Raises:
        ValueError: data that the model refuses, or no draws.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> data = to_arviz(vae, torch.zeros(3, 2), num_samples=40, seed=0)
    >>> dict(data.posterior_predictive["x"].sizes)
    {'chain': 4, 'draw': 10, 'observation': 3, 'column': 2}
    """
    num_samples = whole("num_samples", num_samples)
    index, columns = getattr(x, "index", None), getattr(x, "columns", None)
    x = vae.check(x)
    shape = torch.Size([num_samples])
    with reading(vae, seed):
        joint = Joint(vae, x)
        z = joint.guide.sample(shape)
        x_hat = joint.likelihood(z).sample()
        log_likelihood = joint.log_likelihood(z)
        log_joint = log_likelihood + joint.log_prior(z)
        log_weight = log_joint - joint.log_guide(z)
        z_prior = joint.prior.expand(shape).sample()
        conditional = vae.record.has("context") or vae.record.has("offset")
        each = z_prior[:, None].expand_as(z) if conditional else z_prior
        x_prior = vae.decode(each, x if conditional else None).sample()
    cell, latent = _cell_axes(vae.x_shape), latent_axes(vae)
    known = ("observation", *cell) if conditional else cell
    coords = {
        **latent_coords(vae),
        "observation": np.arange(len(x)) if callable(index) or index is None else np.asarray(index),
    }
    if columns is not None and len(cell) == 1:
        coords["column"] = np.asarray(columns)
    groups = {
        "posterior": {"z": as_draws(z, "observation", *latent)},
        "posterior_predictive": {"x": as_draws(x_hat, "observation", *cell)},
        "log_likelihood": {"x": as_draws(log_likelihood, "observation")},
        "sample_stats": {
            "lp": as_draws(log_joint, "observation"),
            "log_weight": as_draws(log_weight, "observation"),
        },
        "prior": {"z": as_draws(z_prior, *latent)},
        "prior_predictive": {"x": as_draws(x_prior, *known)},
        "observed_data": {"x": (("observation", *cell), vae.record.cells(x).cpu().numpy())},
    }
    return container(groups, coords)


def as_draws(draws: Tensor, *dims: str) -> Variable:
    """Independent draws ``(S, ...)`` as several chains, which diagnostics compare."""
    n = len(draws)
    chains = CHAINS if n % CHAINS == 0 and n >= CHAINS**2 else 1
    values = draws.detach().cpu().numpy().reshape(chains, n // chains, *draws.shape[1:])
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

    arviz = _arviz()
    sets: dict[str, Any] = {}
    for group, variables in groups.items():
        sizes = {d: n for dims, v in variables.values() for d, n in zip(dims, v.shape, strict=True)}
        named = {d: coords.get(d, np.arange(n)) for d, n in sizes.items()}
        about = {"inference_library": "pyro_vae", "arviz_version": arviz.__version__}
        sets[group] = xarray.Dataset(dict(variables), coords=named, attrs=about)
    if _major(arviz) >= 1:
        return xarray.DataTree.from_dict(sets)  # pyright: ignore[reportReturnType]
    return arviz.InferenceData(**sets)


def latent_axes(vae: VAE) -> tuple[str, ...]:
    """Names of the dimensions of one z."""
    extra = (f"latent_dim_{i}" for i in range(1, len(vae.z_shape)))
    return ("latent_dim", *extra)


def latent_coords(vae: VAE) -> dict[str, np.ndarray]:
    """Names of the coordinates of a vector z; the axes of another shape are numbered."""
    return {"latent_dim": np.array(vae.latents.coordinates)} if len(vae.z_shape) == 1 else {}


def _cell_axes(shape: Sequence[int]) -> tuple[str, ...]:
    return AXES.get(len(shape)) or tuple(f"x_dim_{i}" for i in range(len(shape)))


def _arviz() -> Any:  # noqa: ANN401
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ 0.23 announces 1.0 at import
        import arviz

    return arviz


def _major(arviz: Any) -> int:  # noqa: ANN401
    return int(arviz.__version__.split(".")[0])
