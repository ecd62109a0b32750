"""What a trained model is worth: bounds on log p(x), and what its gradient estimators cost."""

from ..core.lazy import attach

__getattr__, __all__ = attach(__name__, __file__)
