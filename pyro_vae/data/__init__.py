"""Data: each source returns tensors and a description of them."""

from .sources import SOURCES, Data, load_data

__all__ = ["SOURCES", "Data", "load_data"]
