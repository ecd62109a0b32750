"""Data: each source returns tensors and a description of them."""

from .dataset import Data
from .sources import SOURCES, load_data
from .vocabulary import Vocabulary

__all__ = ["SOURCES", "Data", "Vocabulary", "load_data"]
