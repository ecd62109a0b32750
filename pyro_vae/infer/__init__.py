"""Training and estimators: it sees only Pyro's messages, no VAE and no families."""

from .antithetic import ARM, DisARM
from .bounds import elbo_terms
from .checkpoint import CHECKPOINT
from .compiled import CaptureError, CompiledELBO
from .estimators import ESTIMATORS, Estimator, make_estimator
from .fit import Fit, fit
from .handlers import (
    Baseline,
    Enumerate,
    KLWeight,
    RunningMean,
    ScoreFunction,
    StickingTheLanding,
)
from .importance import VIMCO, DReG
from .loop import NonFiniteLossError
from .multisample import RLOO
from .optim import FusedOptim, make_optimizer
from .schedules import schedule

__all__ = [
    "ARM", "CHECKPOINT", "ESTIMATORS", "RLOO", "VIMCO", "Baseline", "CaptureError",
    "CompiledELBO", "DReG", "DisARM", "Enumerate", "Estimator", "Fit", "FusedOptim", "KLWeight",
    "NonFiniteLossError", "RunningMean", "ScoreFunction", "StickingTheLanding", "elbo_terms",
    "fit", "make_estimator", "make_optimizer", "schedule",
]  # fmt: skip
