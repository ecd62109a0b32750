"""Variational autoencoders as Pyro models and guides.

Say the likelihood, the prior, the guide and the gradient estimator in one line each, train by
``pyro.infer.SVI``, and measure what the choice costs.
"""

from .core.lazy import attach
from .language.words import where

__version__ = "0.1.0"
__getattr__, __all__ = attach(__name__, __file__, where)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
