"""Training and estimators: it sees only Pyro's messages, no VAE and no families."""

from .antithetic import ARM, DisARM, DisARMIWAE
from .bounds import elbo_terms
from .checkpoint import CHECKPOINT
from .chi import CUBO
from .collapse import AggressiveGuide, with_free_bits
from .compiled import CaptureError, CompiledELBO
from .contractive import Contractive
from .control_variates import DoubleCV, MuProp
from .estimators import Estimator, make_estimator
from .fit import Fit, fit
from .generalized import GDReG
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
from .measure_valued import MeasureValued
from .multisample import RLOO
from .optim import FusedOptim, make_optimizer
from .relaxed import (
    Concrete,
    GumbelStraightThrough,
    RelaxedTrace_ELBO,
    RelaxedTraceMeanField_ELBO,
    StraightThrough,
)
from .relaxed_control import REBAR, RELAX
from .schedules import schedule
from .table import ESTIMATORS
from .thermodynamic import TVO
from .wake_sleep import RWS

__all__ = [
    "ARM", "CHECKPOINT", "CUBO", "ESTIMATORS", "REBAR", "RELAX", "RLOO", "RWS", "TVO", "VIMCO",
    "AggressiveGuide", "Baseline", "CaptureError", "CompiledELBO", "Concrete", "Contractive",
    "DReG", "DisARM", "DisARMIWAE", "DoubleCV", "Enumerate", "Estimator", "Fit", "FusedOptim",
    "GDReG", "GumbelStraightThrough", "KLWeight", "MeasureValued", "MuProp", "NonFiniteLossError",
    "RelaxedTraceMeanField_ELBO", "RelaxedTrace_ELBO", "RunningMean", "ScoreFunction",
    "StickingTheLanding", "StraightThrough", "elbo_terms", "fit", "make_estimator",
    "make_optimizer", "schedule", "with_free_bits",
]  # fmt: skip
