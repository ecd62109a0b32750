"""The report's section of a table: margins, pairs of columns, and imputations that are checked."""

import numpy as np
import pandas as pd
from torch import Tensor

from .. import plots
from ..data.tables import Schema
from ..evaluate.imputation import ImputationCheck
from ..model.columns import by_column
from ..model.joint import reading
from ..model.simulation import simulate
from ..model.tables import TableRecord
from ..model.vae import VAE
from . import page

__all__ = ["columns_of"]

DRAWN = 1000  # rows of the model behind its margins, at least
MARGINS = 40  # columns whose margins are drawn, at most
PAIRS = 25  # columns whose associations are drawn, at most


def columns_of(vae: VAE, x: Tensor, check: ImputationCheck | None, seed: int) -> str:
    """Pictures by column of held-out rows, the model's draws and imputed cells.

    Args:
        vae: the model; of anything but a table nothing is said.
        x: held-out rows, as its record packs them.
        check: of its imputations.
        seed: of the draws.
    """
    record = vae.record
    if not isinstance(record, TableRecord):
        return ""
    with reading(vae, seed):
        x = x[vae.representative(x)]
        drawn = record.cells(simulate(vae, max(DRAWN, len(x)), x)[1])
    numbers = [by_column(record, cells) for cells in (record.cells(x), drawn)]
    # Times that are censored are not those that are drawn.
    there = {k for k, v in numbers[0].items() if not np.isnan(v).all()}
    names = [k for k in numbers[0] if k in there and record.schema[k].kind != "survival"]
    observed, simulated = (
        pd.DataFrame({k: shown(record.schema, k, some[k]) for k in names}) for some in numbers
    )
    margins = []
    for name in names[:MARGINS]:
        samples = {"observed": observed[name], "simulated": simulated[name]}
        if check is not None:
            cells = check.cells.loc[check.cells["column"] == name, "imputed"].to_numpy()
            samples["imputed"] = shown(record.schema, name, cells)
        margins.append(page.figure(plots.margin, samples, explained=False))
    parts = [page.grid(*margins), page.note(page.caption("margin"))]
    parts.append(_pairs(observed.loc[:, names[:PAIRS]], simulated.loc[:, names[:PAIRS]]))
    if check is not None:
        table = page.table(check.summary, "Column", "")
        text = page.note(page.caption("figures_by_column"))
        picture = page.figure(plots.imputation_check, check)
        parts.append(page.grid(picture, f"<div>{table}{text}</div>"))
    if len(names) > PAIRS:
        parts.append(page.note(f"Of {len(names)} columns the first are drawn."))
    return "".join(parts)


def _pairs(observed: pd.DataFrame, simulated: pd.DataFrame) -> str:
    if len(observed.columns) < 2:
        return ""
    simulated = simulated.head(len(observed))
    titles = {"Associations, observed": (observed,), "Associations, simulated": (simulated,)}
    each = [
        page.figure(plots.associations, *frames, title=title, explained=False)
        for title, frames in titles.items()
    ]
    title = "Associations, simulated minus observed"
    return page.grid(*each, page.figure(plots.associations, observed, simulated, title=title))


def shown(schema: Schema, name: str, numbers: np.ndarray) -> pd.Series:
    """The numbers of a column as its pictures show them: levels by name, times as dates."""
    column = schema[name]
    if column.has_codes:
        codes = np.where(np.isnan(numbers), -1, numbers).astype(int)
        levels = [str(level) for level in column.levels]
        return pd.Series(pd.Categorical.from_codes(codes, levels, ordered=True), name=name)  # pyrefly: ignore[bad-argument-type]
    if column.sort == "time":
        days = pd.to_timedelta(numbers, unit="D")
        return pd.Series(pd.Timestamp(str(column.origin)) + days, name=name)
    return pd.Series(numbers, name=f"{name} (days)" if column.sort == "duration" else name)
