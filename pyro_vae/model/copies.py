"""A copy of a model in which one part is another."""

from copy import deepcopy
from typing import Any

import torch

from ..core.seeding import seeded
from ..families.part import Line
from .files import CUSTOM
from .vae import VAE

__all__ = ["with_prior"]


def with_prior(vae: VAE, prior: Line, seed: int | None = None) -> VAE:
    """A copy of a model with another prior, not trained; all its other weights are the same.

    Args:
        vae: a model with one latent variable, which stays as it is.
        prior: a line, or a module with ``forward() -> distribution``.
        seed: of the new prior's weights.

    Raises:
        SpecError: an unknown family or parameter.
        ValueError: several latent variables, or a prior with another support than the guide's.
    """
    if len(vae.latents.sites) > 1:
        raise ValueError(
            f"z is of several parts, {', '.join(vae.latents.sites)}, whose prior holds networks of "
            "the model: choose a model with latent_dim=50 and no layers or labels"
        )
    about, like = vae.describe(), torch.empty(0)  # models are made in the default type
    own: dict[str, Any] = {
        role: deepcopy(vae.get_submodule(path)).to(like)
        for role, path in vae.ROLES.items()
        if str(about[role]).startswith(CUSTOM)
    }
    arguments: dict[str, Any] = vae.arguments(about) | own | {"prior": prior}
    with seeded(seed):
        copy = type(vae)(**arguments).to(vae.example)
    copy.record.columns = vae.record.columns
    weights = copy.state_dict()
    weights |= {k: v for k, v in vae.state_dict().items() if not k.startswith("prior.")}
    copy.load_state_dict(weights)
    return copy.train(vae.training)
