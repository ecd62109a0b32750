"""Imported for its effect: the scripts of this folder find ``common`` in the one above."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
