"""Training and estimators: it sees only Pyro's messages, no VAE and no families."""

from ..core.lazy import attach

__getattr__, __all__ = attach(__name__, __file__)
