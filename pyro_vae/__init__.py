"""Variational autoencoders as Pyro models and guides.

Say the likelihood, the prior, the guide and the gradient estimator in one line each, train by
``pyro.infer.SVI``, and measure what the choice costs. Names are imported when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import plots
    from .data import Data, load_data
    from .evaluate import compare_estimators, elbo, elbo_draws
    from .families import Family
    from .infer import ESTIMATORS, Fit, NonFiniteLossError, fit, make_estimator
    from .networks import MLP, ConvDecoder, ConvEncoder
    from .spec import Spec, SpecError, amortized, learned, parse
    from .vae import VAE, load

__all__ = [
    "ESTIMATORS", "MLP", "VAE", "ConvDecoder", "ConvEncoder", "Data", "Family", "Fit",
    "NonFiniteLossError", "Spec", "SpecError", "__version__", "amortized", "compare_estimators",
    "elbo", "elbo_draws", "fit", "learned", "load", "load_data", "make_estimator", "parse", "plots",
]  # fmt: skip

__version__ = "0.1.0"

_HOMES = {
    "data": ("Data", "load_data"),
    "evaluate": ("compare_estimators", "elbo", "elbo_draws"),
    "families": ("Family",),
    "infer": ("ESTIMATORS", "Fit", "NonFiniteLossError", "fit", "make_estimator"),
    "networks": ("MLP", "ConvDecoder", "ConvEncoder"),
    "spec": ("Spec", "SpecError", "amortized", "learned", "parse"),
    "vae": ("VAE", "load"),
}


def __getattr__(name: str) -> object:
    if name == "plots":
        return import_module(".plots", __name__)
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
