"""Forecasts of subjects at other visits, given those that were seen."""

import warnings
from typing import Any

import narwhals as nw
import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..core.checks import fraction, whole
from ..core.pareto import RELIABLE
from ..data.tables import Table
from ..data.tables.frames import Frame
from ..families.support import innermost
from .columns import by_cell
from .conditional import Posterior, condition
from .imputation import ANGLES, ENOUGH, MANY, Point, on_circle, predicted
from .inference import Inference
from .joint import reading
from .visits import VisitsRecord

__all__ = ["Forecasts"]

ROUNDS = 3  # of adaptation of the proposal, where draws of z are doubtful


class Forecasts(Inference):
    """What a model of visits says of other visits of its subjects."""

    @torch.no_grad()
    def forecast(
        self,
        x: object,
        at: ArrayLike | object,
        *,
        draws: int | None = None,
        point: Point = "mean",
        level: float = 0.9,
        num_samples: int = 1000,
        seed: int | None = None,
    ) -> Any:  # noqa: ANN401
        r"""The columns of each subject at new times, given its visits.

        .. math:: p(x_{new} \mid x) = \int p(x_{new} \mid z_{new})\, p(z_{new} \mid z)\,
            p(z \mid x)\, dz\, dz_{new}

        z of the visits that were seen is drawn from the guide and weighted, as in :meth:`impute`;
        z of the new ones given it is normal, in closed form. Draws of a subject belong together:
        one draw is a whole course.

        Args:
            x: the rows of subjects that were seen, a frame or a table.
            at: the new times, ``[8, 9]``, the same for each subject, whose other columns that the
                model reads stay as in its last row; or a frame of new rows, with these columns.
            draws: so many draws, not one value with an interval.
            point: the value of a cell, as for :meth:`impute`.
            level: the share of draws that an interval holds.
            num_samples: K, draws for each subject.
            seed: of the draws.

        Returns:
            A frame with a row for each subject and time; of columns of numbers with their interval,
            ``NAME_lower`` and ``NAME_upper``; that of an angle may go through pi, from a lower end
            that is the greater number. Of draws a list of frames.

        Raises:
            ValueError: the model has no visits, or new rows of subjects that were not seen.

        >>> import pandas as pd
        >>> from pyro_vae import VAE, Table
        >>> times, y = [0.0, 2, 0, 1, 3, 0, 1], [1.0, 2.5, 0.2, 1.1, 1.4, 3.3, 4.6]
        >>> frame = pd.DataFrame({"who": [*"aabbbcc"], "time": times, "y": y})
        >>> table = Table.from_frame(frame, likelihood={"y": "Normal"})
        >>> vae = VAE(table, 1, prior="LinearMixed('time + (1 | who)')", seed=0)
        >>> vae.forecast(table, at=[4.0], seed=0).columns.tolist()
        ['who', 'time', 'y', 'y_lower', 'y_upper']
        """
        if not isinstance(record := self.record, VisitsRecord):
            raise ValueError(
                "forecast is of repeated measurements: VAE(table, 2, prior=\"LinearMixed('time + "
                "(1 + time | subject)')\") has subjects with visits"
            )
        share = fraction("level", level)
        num_samples = whole("num_samples", num_samples if draws is None else draws)
        table = record.read(x)
        data = self.as_data(table)
        new = _new_rows(record, table, at)
        subject, visit, labels = record.grouped(new)
        own = {label: i for i, label in enumerate(record.grouped(table)[2])}
        if unseen := [label for label in labels if label not in own]:
            raise ValueError(
                f"{record.by} {unseen[0]} has no row among those that were seen: give its visits "
                "too, or draw new subjects by sample(given=frame)"
            )
        later = record.pack_rows(new, self.example, int(visit.max()) + 1)
        data = data[torch.tensor([own[label] for label in labels])]
        with reading(self, seed):
            p = self._later(data, later, num_samples)
            cells = p.sample()
        flat = cells[:, subject, visit]
        if draws is not None:
            return [_unweighted(record, one) for one in record.row_record.answer(flat, new)]
        log_w = cells.new_zeros(cells.shape[:2])
        value = predicted(p, log_w, point)[subject, visit]
        angles = by_cell(p, lambda part: isinstance(innermost(part), ANGLES))
        ends = _ends(flat, share, value, angles.reshape(cells.shape[2:])[0].to(flat.device))
        return _unweighted(record, _with_intervals(record, new, value, ends))

    def _later(self, data: Tensor, later: Tensor, num_samples: int) -> dist.TorchDistribution:
        """p(x|z) at draws of z of later visits, of batch shape ``(num_samples, B)``."""
        num_draws = max(1000, num_samples)
        posterior = condition(self, data, num_draws, 0)
        for _ in range(ROUNDS):
            if not _doubtful(posterior).any():
                break
            start = posterior.start(self, data)
            posterior = condition(self, data, 4 * num_draws, 0, start)
        if (wrong := int(_doubtful(posterior).sum())) > MANY * len(data):
            warnings.warn(
                f"forecasts of {wrong} of {len(data)} subjects are doubtful: fewer than {ENOUGH} "
                f"effective draws of z given their visits, or k-hat above {RELIABLE}: train longer",
                stacklevel=4,
            )
        beside = torch.cat([self.record.beside(x) for x in (data, later)], 1)  # pyrefly: ignore[missing-attribute]
        z = self.prior(beside).given(posterior.latent(num_samples)).sample()
        return self.decode(z, later)


def _ends(draws: Tensor, share: float, value: Tensor, angles: Tensor) -> Tensor:
    """The ends of central intervals, ``(2, B, D)``, of angles about their value on the circle."""
    turned = torch.where(angles, value, 0.0)
    away = torch.where(angles, on_circle(draws - turned).angle(), draws)
    ends = torch.quantile(away, draws.new_tensor([(1 - share) / 2, (1 + share) / 2]), 0)
    return torch.where(angles, on_circle(turned + ends).angle(), ends)


def _doubtful(posterior: Posterior) -> Tensor:
    """Of which subjects the draws of z are too few or too uneven to be trusted."""
    return (posterior.ess < ENOUGH) | (posterior.k_hat > RELIABLE)


def _new_rows(record: VisitsRecord, table: Table, at: object) -> Table:
    """The rows to forecast, whose cells of x are missing."""
    if hasattr(at, "columns") or isinstance(at, dict):
        given = Frame(at)
        absent = [name for name in record.needed if name not in given.names]
        if absent:
            raise ValueError(f"the new rows have no column {absent[0]!r}, which the model reads")
        rows = record.read(record.given(given.native))
        values = rows.values.copy()
        read = {*record.needed, *record.row_record.numbers.values()}
        keep = [place for name, place in rows.schema.places.items() if name in read]
        gone = np.setdiff1d(np.arange(values.shape[1]), keep)
        values[:, gone] = np.nan
        return Table(rows.schema, Frame(rows.to_frame(values)), values)
    if (name := record.time) is None:
        raise ValueError(
            "the prior reads no single column of times: give at= as a frame of new rows with "
            f"{', '.join(record.needed)}"
        )
    times = np.atleast_1d(np.asarray(at, dtype=object))
    if not len(times):
        raise ValueError("at= holds no time: forecast(table, at=[8, 9])")
    subject, _, labels = record.grouped(table)
    last = np.array([np.flatnonzero(subject == i)[-1] for i in range(len(labels))])
    rows = table[np.repeat(last, len(times))]
    frame = nw.from_native(rows.to_frame(), eager_only=True)
    others = [n for n in frame.columns if n in record.needed and n != name]
    cells: dict[str, object] = {n: frame.get_column(n).to_list() for n in others}
    return _new_rows(record, table, cells | {name: list(times) * len(labels)})


def _unweighted(record: VisitsRecord, frame: Any) -> Any:  # noqa: ANN401
    """A frame without the column of weights, on which no forecast depends."""
    name = record.row_record.numbers.get("weight")
    return frame if name is None else nw.from_native(frame).drop(name).to_native()


def _with_intervals(record: VisitsRecord, new: Table, value: Tensor, ends: Tensor) -> object:
    """The new rows with their values, and of numbers the ends of their intervals beside them."""
    row, schema = record.row_record, record.row_record.schema
    answers = [row.answer(cells, new) for cells in (value, *ends)]
    frame, low, high = (nw.from_native(answer, eager_only=True) for answer in answers)
    names = [name for name in row.columns or () if not schema[name].has_codes]
    beside = [
        one.get_column(name).alias(f"{name}_{end}")
        for name in names
        for end, one in (("lower", low), ("upper", high))
    ]
    return frame.with_columns(*beside).to_native()
