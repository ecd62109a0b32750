"""Data: each source returns tensors and a description of them."""

from .dataset import Data
from .sources import SOURCES, load_data

__all__ = ["SOURCES", "Data", "load_data"]
