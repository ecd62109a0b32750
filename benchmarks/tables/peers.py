"""Runs in an environment of its own: python peers.py NAME IN.csv OUT.csv [ARGUMENTS]."""

import sys

import numpy as np
import pandas as pd


def simulate(name: str, table: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Rows of TVAE or CTGAN; a hole of a quantity is its median beside an indicator column."""
    import ctgan
    import torch

    np.random.seed(seed)
    torch.manual_seed(seed)
    numbers = [c for c in table if pd.api.types.is_numeric_dtype(table[c])]
    holes = [c for c in numbers if table[c].isna().any()]
    whole = table.fillna(table[numbers].median())
    words = [c for c in table if c not in numbers]
    whole[words] = whole[words].astype(object).where(whole[words].notna(), "(missing)").astype(str)
    for c in holes:
        whole[f"{c} missing"] = table[c].isna().map({True: "yes", False: "no"})
    model = getattr(ctgan, name)(enable_gpu=False)
    model.fit(whole, [*words, *(f"{c} missing" for c in holes)])
    drawn = model.sample(n).replace("(missing)", None)
    for c in holes:
        drawn.loc[drawn[f"{c} missing"] == "yes", c] = np.nan
    return drawn[list(table)]


def miceforest(table: pd.DataFrame, kinds: list[str], seed: int) -> pd.DataFrame:
    """One table completed by chained gradient boosted trees, with its defaults."""
    import miceforest as mf

    kind = dict(zip(table, kinds, strict=True))
    codes = {c: table[c].astype("category") for c in table if kind[c] == "cat"}
    data = table.assign(**codes)
    kernel = mf.ImputationKernel(data, num_datasets=1, random_state=seed)
    kernel.mice(5, verbose=False)
    return kernel.complete_data(0)


if __name__ == "__main__":
    name, source, goal, *rest = sys.argv[1:]
    table = pd.read_csv(source)
    if name == "miceforest":
        result = miceforest(table, rest[0].split(","), int(rest[1]))
    else:
        result = simulate(name, table, int(rest[0]), int(rest[1]))
    result.to_csv(goal, index=False)
