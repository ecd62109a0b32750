"""What a trained model is worth: bounds on log p(x), in nats per datum."""

from .bounds import elbo

__all__ = ["elbo"]
