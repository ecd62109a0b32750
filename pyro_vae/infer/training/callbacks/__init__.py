"""Callbacks of ``fit(..., callbacks=[...])``: ours, and :class:`Callback`, to write your own."""

from ..run import Callback, Run
from .aggregate import MMD, TotalCorrelation
from .annealed import DAIS
from .collapse import AggressiveGuide, FreeBits
from .contractive import Contractive
from .loggers import Log, TensorBoard
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
