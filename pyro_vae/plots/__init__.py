"""Pictures: functions that take data and axes, draw, and return the axes."""

from ..core.lazy import attach

__getattr__, __all__ = attach(__name__, __file__)
