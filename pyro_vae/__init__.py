"""Variational autoencoders as Pyro models and guides.

Say the likelihood, the prior, the guide and the gradient estimator in one line each, train by
``pyro.infer.SVI``, and measure what the choice costs. Names are imported when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import plots
    from .comparisons import compare_runs, paired_differences
    from .data import Data, load_data
    from .evaluate import (
        Compressed,
        ais,
        assess,
        bdmc,
        calibration,
        compare_estimators,
        compress,
        decompress,
        elbo,
        elbo_draws,
        factor_scores,
        gaps,
        label_scores,
        latent_summary,
        log_evidence,
        outlier_scores,
        posterior,
        rate_distortion,
        to_arviz,
        train_estimators,
    )
    from .families import Family
    from .flows import Flow
    from .infer import ESTIMATORS, Fit, NonFiniteLossError, fit, make_estimator
    from .layers import BottomUp, Hierarchy, Ladder, TopDown
    from .mixtures import Mixture, Transformed
    from .networks import MLP, ConvDecoder, ConvEncoder, Corrupted
    from .priors import AutoregressiveBernoulli, Resampled, VampPrior
    from .processes import GaussianProcess
    from .report import write_report
    from .semisupervised import M2
    from .spec import Spec, SpecError, amortized, learned, parse
    from .sweeps import sweep
    from .vae import VAE, load

__all__ = [
    "ESTIMATORS", "M2", "MLP", "VAE", "AutoregressiveBernoulli", "BottomUp", "Compressed",
    "ConvDecoder", "ConvEncoder", "Corrupted", "Data", "Family", "Fit", "Flow", "GaussianProcess",
    "Hierarchy", "Ladder", "Mixture", "NonFiniteLossError", "Resampled", "Spec", "SpecError",
    "TopDown", "Transformed", "VampPrior", "__version__", "ais", "amortized", "assess", "bdmc",
    "calibration", "compare_estimators", "compare_runs", "compress", "decompress", "elbo",
    "elbo_draws", "factor_scores", "fit", "gaps", "label_scores", "latent_summary", "learned",
    "load", "load_data", "log_evidence", "make_estimator", "outlier_scores", "paired_differences",
    "parse", "plots", "posterior", "rate_distortion", "sweep", "to_arviz", "train_estimators",
    "write_report",
]  # fmt: skip

__version__ = "0.1.0"

_HOMES = {
    "comparisons": ("compare_runs", "paired_differences"),
    "data": ("Data", "load_data"),
    "evaluate": (
        "Compressed", "ais", "assess", "bdmc", "calibration", "compare_estimators", "compress",
        "decompress", "elbo", "elbo_draws", "factor_scores", "gaps", "label_scores",
        "latent_summary", "log_evidence", "outlier_scores", "posterior", "rate_distortion",
        "to_arviz", "train_estimators",
    ),
    "families": ("Family",),
    "flows": ("Flow",),
    "infer": ("ESTIMATORS", "Fit", "NonFiniteLossError", "fit", "make_estimator"),
    "layers": ("BottomUp", "Hierarchy", "Ladder", "TopDown"),
    "mixtures": ("Mixture", "Transformed"),
    "networks": ("MLP", "ConvDecoder", "ConvEncoder", "Corrupted"),
    "priors": ("AutoregressiveBernoulli", "Resampled", "VampPrior"),
    "processes": ("GaussianProcess",),
    "report": ("write_report",),
    "semisupervised": ("M2",),
    "spec": ("Spec", "SpecError", "amortized", "learned", "parse"),
    "sweeps": ("sweep",),
    "vae": ("VAE", "load"),
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name == "plots":
        return import_module(".plots", __name__)
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
