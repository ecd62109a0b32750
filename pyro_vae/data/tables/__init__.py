"""Tables: frames of mixed columns with missing cells, as numbers that a model reads, and back."""

from .columns import KINDS, Column, Kind, Level
from .files import SUFFIXES, naming, read_file
from .placeholders import NaValues
from .table import Schema, Table

__all__ = [
    "KINDS",
    "SUFFIXES",
    "Column",
    "Kind",
    "Level",
    "NaValues",
    "Schema",
    "Table",
    "naming",
    "read_file",
]
