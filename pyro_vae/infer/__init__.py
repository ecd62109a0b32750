"""Training and estimators: it sees only Pyro's messages, no VAE and no families."""

from .bounds import elbo_terms
from .checkpoint import CHECKPOINT
from .estimators import ESTIMATORS, Estimator, make_estimator
from .fit import Fit, fit
from .handlers import Baseline, Enumerate, KLWeight, RunningMean, ScoreFunction
from .loop import NonFiniteLossError
from .optim import FusedOptim, make_optimizer
from .schedules import schedule

__all__ = [
    "CHECKPOINT", "ESTIMATORS", "Baseline", "Enumerate", "Estimator", "Fit", "FusedOptim",
    "KLWeight", "NonFiniteLossError", "RunningMean", "ScoreFunction", "elbo_terms", "fit",
    "make_estimator", "make_optimizer", "schedule",
]  # fmt: skip
