"""What a trained model is worth: bounds on log p(x), and what its gradient estimators cost."""

from .bounds import elbo
from .draws import elbo_draws
from .variance import as_table, compare_estimators

__all__ = ["as_table", "compare_estimators", "elbo", "elbo_draws"]
