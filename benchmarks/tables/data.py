"""Tables with mixed columns, from the folder that PYRO_VAE_DATA names."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["NAMES", "TARGETS", "HoleTable", "read", "read_holes", "split"]

NAMES = {
    "Adult": "age work weight education marital occupation relationship race sex gain loss hours",
    "Wine": "fixed volatile citric sugar chlorides free total density pH sulphates alcohol "
    "quality colour",
    "Breast": "thickness size shape adhesion epithelial nuclei chromatin nucleoli mitoses class",
}
TARGETS = {"adult": "sex", "credit_data": "Status", "yrbss": "gender"}


def folder() -> Path:
    root = os.environ.get("PYRO_VAE_DATA")
    if root is None:
        raise SystemExit("set PYRO_VAE_DATA to the folder that holds tabular/ and tables/")
    return Path(root)


@dataclass
class HoleTable:
    """A complete table, the kind of each column, and the cells to hide, by percent."""

    frame: pd.DataFrame
    kinds: dict[str, str]  # real, pos, count, ordinal or cat
    hidden: dict[int, np.ndarray]


def read_holes(name: str) -> HoleTable:
    """A table of the HI-VAE study with the masks that it published."""
    place = folder() / "tabular" / name
    kinds = dict(zip(NAMES[name].split(), pd.read_csv(place / "data_types.csv").type, strict=True))
    frame = pd.read_csv(place / "data.csv", names=list(kinds))
    hidden = {}
    for percent in (20, 50):
        row, column = pd.read_csv(place / f"Missing{percent}_1.csv", header=None).to_numpy().T - 1
        hidden[percent] = np.zeros(frame.shape, bool)
        hidden[percent][row, column] = True
    return HoleTable(frame, kinds, hidden)


def read(name: str) -> pd.DataFrame:
    """``adult``, or one of ``tables/``: words are categories, as Adult's codes of them are."""
    if name != "adult":
        return pd.read_csv(folder() / "tables" / f"{name}.csv")
    table = read_holes("Adult")
    codes = [c for c, kind in table.kinds.items() if kind in ("cat", "ordinal")]
    words = {
        c: table.frame[c].map(lambda v, c=c: f"{c} {v:.0f}", na_action="ignore") for c in codes
    }
    return table.frame.assign(**words)


def split(frame: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rows to train on, to choose by (a tenth of two thirds), and to measure on (a third)."""
    rows = np.random.default_rng(seed).permutation(len(frame))
    third = len(frame) // 3
    valid = third + (len(frame) - third) // 10
    parts = rows[valid:], rows[third:valid], rows[:third]
    train, valid, test = (frame.iloc[some].reset_index(drop=True) for some in parts)
    return train, valid, test
