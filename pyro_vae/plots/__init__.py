"""Pictures: functions that take data and axes, draw, and return the axes."""

from .axes import save
from .checks import calibration, gaps, khat, latent_kl, posterior, predictive_check
from .curves import gradient_variance, kl_curve, learning_curves, training_curves
from .pictures import (
    attribute_arithmetic,
    images,
    interpolations,
    latent_space,
    reconstructions,
    samples,
    samples_by,
    traversals,
)

__all__ = [
    "attribute_arithmetic", "calibration", "gaps", "gradient_variance", "images", "interpolations",
    "khat", "kl_curve", "latent_kl", "latent_space", "learning_curves", "posterior",
    "predictive_check", "reconstructions", "samples", "samples_by", "save", "training_curves",
    "traversals",
]  # fmt: skip
