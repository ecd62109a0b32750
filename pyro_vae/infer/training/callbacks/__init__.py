"""Callbacks of ``fit(..., callbacks=[...])``: ours, and :class:`Callback`, to write your own."""

from ..run import Callback, Run
from .annealed import DAIS
from .collapse import AggressiveGuide, FreeBits
from .loggers import Log, TensorBoard
from .penalties import MMD, Contractive, TotalCorrelation
from .settings import Beta, Checkpoint, LearningRate, Patience, Progress, Temperature

__all__ = [
    "DAIS",
    "MMD",
    "AggressiveGuide",
    "Beta",
    "Callback",
    "Checkpoint",
    "Contractive",
    "FreeBits",
    "LearningRate",
    "Log",
    "Patience",
    "Progress",
    "Run",
    "Temperature",
    "TensorBoard",
    "TotalCorrelation",
]
