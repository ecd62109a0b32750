"""Methods that fill the holes of a table: each takes it with the kinds of its columns, and a seed.

miceforest runs in an environment of its own: ``simulators.py`` says which.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from simulators import run_peer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.preprocessing import StandardScaler

import pyro_vae as pv

__all__ = ["METHODS", "Filler", "trained"]

Filler = Callable[[pd.DataFrame, dict[str, str], int], pd.DataFrame]
DONORS = 5000  # rows among which nearest neighbours are looked for


def simple(table: pd.DataFrame, kinds: dict[str, str], seed: int) -> pd.DataFrame:
    """The mean of a quantity, the mode of a category."""
    modes = table.mode().iloc[0]
    return table.fillna({c: modes[c] if discrete(kinds[c]) else table[c].mean() for c in table})


def discrete(kind: str) -> bool:
    """Whether a column's error is counted by category."""
    return kind in ("cat", "ordinal")


class OneHot:
    """Standardized quantities and ordinals, one-hot categories; and the table again.

    Args:
        table: with holes.
        kinds: of its columns.
        first: the first level that has a cell; with 1, a category's cells do not sum to 1, which
            a regression of each on the others would find out first.
    """

    def __init__(self, table: pd.DataFrame, kinds: dict[str, str], first: int) -> None:
        self.first, self.table, self.kinds, self.levels = first, table, kinds, {}
        columns = []
        for c, column in table.items():
            if kinds[c] == "cat":
                self.levels[c] = np.unique(column.dropna())
                ones = (column.to_numpy()[:, None] == self.levels[c]).astype(float)
                ones[column.isna()] = np.nan
                columns.append(ones[:, first:])
            else:
                columns.append(column.to_numpy(float)[:, None])
        self.width = [part.shape[1] for part in columns]
        self.scaler = StandardScaler()
        self.x = self.scaler.fit_transform(np.concatenate(columns, 1))

    def restored(self, x: np.ndarray) -> pd.DataFrame:
        """The table with its holes filled: the largest of one-hot cells, ordinals rounded."""
        parts = np.split(self.scaler.inverse_transform(x), np.cumsum(self.width)[:-1], 1)
        filled = {}
        for (c, column), part in zip(self.table.items(), parts, strict=True):
            guess = part[:, 0]
            if self.kinds[c] == "cat":
                rest = 1 - part.sum(1, keepdims=True)
                whole = np.hstack([rest, part]) if self.first else part
                guess = self.levels[c][whole.argmax(1)]
            if self.kinds[c] == "ordinal":
                guess = np.clip(np.round(guess), column.min(), column.max())
            filled[c] = np.where(column.isna(), guess, column)
        return pd.DataFrame(filled)


def iterative(table: pd.DataFrame, kinds: dict[str, str], seed: int) -> pd.DataFrame:
    """scikit-learn's chained ridge regressions, of one-hot categories."""
    coded = OneHot(table, kinds, 1)
    imputer = IterativeImputer(random_state=seed, max_iter=10)
    return coded.restored(imputer.fit_transform(coded.x))


def neighbours(table: pd.DataFrame, kinds: dict[str, str], seed: int) -> pd.DataFrame:
    """scikit-learn's 5 nearest rows, of one-hot categories, among at most 5,000."""
    coded = OneHot(table, kinds, 0)
    rows = np.random.default_rng(seed).permutation(len(table))[:DONORS]
    return coded.restored(KNNImputer().fit(coded.x[rows]).transform(coded.x))


def miceforest(table: pd.DataFrame, kinds: dict[str, str], seed: int) -> pd.DataFrame:
    """Chained gradient boosted trees: the mean, or mode, of five completed tables."""
    filled = [run_peer("miceforest", table, ",".join(kinds.values()), seed + i) for i in range(5)]
    return pd.DataFrame(
        {
            c: pd.concat([f[c] for f in filled], axis=1).mode(axis=1)[0]
            if discrete(kinds[c])
            else np.mean([f[c] for f in filled], 0)
            for c in table
        }
    )


FAMILIES = {"cat": "Categorical", "ordinal": "OrderedLogistic"}
LARGE = 10_000  # rows, above which batches are larger, and epochs and draws fewer


def trained(table: pd.DataFrame, kinds: dict[str, str], seed: int) -> tuple[pv.VAE, pv.Table]:
    """The package's model of a table, with its defaults, and the table."""
    lines = {c: FAMILIES[kind] for c, kind in kinds.items() if kind in FAMILIES}
    data = pv.Table.from_frame(table, likelihood=lines)
    model = pv.VAE(data, latent_dim=10, seed=seed)
    size = {"epochs": 200}
    if len(table) > LARGE:
        size = {"epochs": 40, "batch_size": 500, "lr": "cosine(5e-3)"}
        size |= {"beta": "linear(0.1, 1, epochs=20)"}  # at 50 % z stays empty otherwise
    pv.fit(model, data, seed=seed, **size)
    return model, data


def vae(table: pd.DataFrame, kinds: dict[str, str], seed: int) -> pd.DataFrame:
    """The package's: means of quantities, modes of categories."""
    model, data = trained(table, kinds, seed)
    return model.impute(data, num_samples=100 if len(table) > LARGE else 1000, seed=seed)


METHODS: dict[str, Filler] = {
    "mean, mode": simple,
    "IterativeImputer": iterative,
    "KNNImputer": neighbours,
    "miceforest": miceforest,
    "pyro_vae": vae,
}
