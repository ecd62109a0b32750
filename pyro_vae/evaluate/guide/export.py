"""A trained model's draws and log p(x), as ArviZ takes them."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import whole
from ...data.tables import Table
from ...infer.draws import predict
from ...model.columns import by_column, own_values
from ...model.entry import of_face
from ...model.face import Face
from ...model.joint import Joint, reading
from ...model.record import Record
from ...model.tables import TableRecord
from ...model.vae import VAE
from ...model.visits import VisitsRecord
from ...program.program import Program
from ..evidence.importance import log_evidence
from ..inference_data import Variable, as_draws, container, latent_coords

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["to_arviz"]

AXES = {1: ("column",), 2: ("row", "column"), 3: ("channel", "row", "column")}
LEAST = 1e-6  # nats: of an exact value, so that ArviZ has a tail to fit


@of_face
@torch.no_grad()
def to_arviz(
    vae: VAE | Program,
    x: Tensor | ArrayLike,
    num_samples: int = 500,
    *,
    evidence_samples: int = 1000,
    seed: int | None = None,
) -> "InferenceData":
    r"""Draws from the guide, the prior and the likelihood, as ArviZ takes them.

    Args:
        vae: a trained model, or a :class:`Program`, which carries its x and whose groups have a
            variable for each site.
        x: ``(N, *x_shape)``; a data frame gives ``observation`` and ``column`` their names, as
            does the table of a table's model.
        num_samples: draws of z per observation. Predictions are as many times as large as x.
        evidence_samples: draws of z per observation behind log p(x), as :func:`log_evidence`.
        seed: of the draws.

    Returns:
        ``InferenceData`` (a ``DataTree`` under ArviZ 1.x), with names for all dimensions:

        - ``posterior``: ``z`` (chain, draw, observation, latent_dim) from q(z|x);
        - ``posterior_predictive``: ``x`` (chain, draw, observation, row, column ...) from p(x|z);
        - ``log_likelihood``: ``x`` (chain, draw, observation), log p(x), z integrated out, in nats:
          what ``arviz.loo`` and ``arviz.compare`` ask for. The parameters are fixed, so draws
          differ by the estimate's own error alone, and ``loo`` is the sum of
          :func:`log_evidence`;
        - ``conditional_log_likelihood``: ``x`` (chain, draw, observation), log p(x|z) at the z of
          the posterior group. z belongs to its observation alone, so this is no prediction of x,
          and ``loo`` on it would be of another quantity;
        - ``sample_stats``: ``lp``, log p(x, z), and ``log_weight``, log p(x, z) - log q(z|x);
        - ``prior``: ``z`` (chain, draw, latent_dim); ``prior_predictive``: ``x``, which has the
          dimension observation too where the model reads a context or an offset;
        - ``observed_data``: ``x`` (observation, row, column ...).

        The draws are independent; they are dealt into 4 chains where num_samples is a multiple of
        4 and at least 16, else they are one chain. They are draws of the guide: what ArviZ says of
        the posterior holds as far as ``sample_stats.log_weight`` is flat. ``latent_dim`` holds the
        names of the coordinates of z, ``z[0]`` ..., with stochastic layers ``z1[0]`` ....

        Of repeated measurements ``observation`` is a subject, with its label, and the first
        dimension of z and of a cell is the visit. Predictions of a visit that is not there, or of
        a step after the end of a sequence, are NaN, as in x.

        Of a table ``x`` holds the numbers of ``Table.values``, in the order of its columns. Beside
        it the two predictive groups and the observed data have a variable by the name of each
        column of categories, dates or durations, with the table's own values.

        Of a program whose latent variables are all outside the plate of its observations (the
        weights of a regression), ``log_likelihood`` is log p(x|z) of each observation, which is
        then what ``loo`` asks for; where some are outside and some inside there is none, and none
        with ``data=None``. ``prior`` is left out where the model has factors.

    Raises:
        ValueError: data that the model refuses, or no draws.

    References:
        Merkle, Furr & Rabe-Hesketh (2019), Psychometrika 84, on marginal and conditional criteria.

    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> data = to_arviz(vae, torch.zeros(3, 2), num_samples=40, seed=0)
    >>> dict(data.posterior_predictive["x"].sizes)
    {'chain': 4, 'draw': 10, 'observation': 3, 'column': 2}
    """
    num_samples = whole("num_samples", num_samples)
    evidence_samples = whole("evidence_samples", evidence_samples, 2)
    frame = x.to_frame() if isinstance(x, Table) else x
    data = vae.check(x)
    with reading(vae, seed):
        if isinstance(vae, VAE):
            return _export(vae, data, frame, num_samples, evidence_samples)
        each = vae.layout.data and not vae.why_not_separate
        log_p = _marginal(vae, data, num_samples, evidence_samples) if each else None
        return _export_program(vae, data, num_samples, log_p)


def _export(
    vae: VAE, x: Tensor, frame: object, num_samples: int, evidence_samples: int
) -> "InferenceData":
    """The groups of a VAE; ``frame`` is its data as they came in."""
    index, columns = getattr(frame, "index", None), getattr(frame, "columns", None)
    if isinstance(vae.record, VisitsRecord):  # an observation is a subject
        index = vae.record.labels if frame is not x else None
    shape = torch.Size([num_samples])
    joint = Joint(vae, x)
    z = joint.guide.sample(shape)
    x_hat = joint.likelihood(z).sample()
    log_likelihood = joint.log_likelihood(z)
    log_joint = log_likelihood + joint.log_prior(z)
    log_weight = log_joint - joint.log_guide(z)
    z_prior = joint.prior.expand(shape + joint.prior.batch_shape).sample()
    own = vae.inputs.passing is not None  # prior and guide read of x what is beside z
    conditional = own or vae.record.has("context") or vae.record.has("offset")
    each = z_prior
    if conditional and not vae.prior_reads:
        each = z_prior[:, None].expand_as(z)
    x_prior = vae.decode(each, x if conditional else None).sample()
    if (there := vae.record.there(x)) is not None:
        x_hat = torch.where(there, x_hat, math.nan)
        x_prior = torch.where(there, x_prior, math.nan) if conditional else x_prior
    log_p = _marginal(vae, x, num_samples, evidence_samples)
    latent = vae.latent_axes
    cell = AXES.get(len(vae.x_shape)) or tuple(f"x_dim_{i}" for i in range(len(vae.x_shape)))
    known = ("observation",) if conditional else ()
    of_row = ("observation",) if vae.prior_reads else ()
    coords = {
        **latent_coords(vae),
        "observation": np.arange(len(x)) if callable(index) or index is None else np.asarray(index),
    }
    if columns is not None and len(cell) == 1:
        coords["column"] = np.asarray(columns)
    if isinstance(vae.record, TableRecord):
        coords["column"] = np.asarray(list(by_column(vae.record, vae.record.cells(x))))
    x_of = partial(_cells, vae.record, cell)
    groups = {
        "posterior": {"z": as_draws(z, "observation", *latent)},
        "posterior_predictive": x_of(x_hat, "observation"),
        "log_likelihood": {"x": as_draws(log_p, "observation")},
        "conditional_log_likelihood": {"x": as_draws(log_likelihood, "observation")},
        "sample_stats": {
            "lp": as_draws(log_joint, "observation"),
            "log_weight": as_draws(log_weight, "observation"),
        },
        "prior": {"z": as_draws(z_prior, *of_row, *latent)},
        "prior_predictive": x_of(x_prior, *known),
        "observed_data": x_of(vae.record.cells(x)[None], "observation", drawn=False),
    }
    return container(groups, coords)


def _export_program(
    program: Program, x: Tensor, num_samples: int, log_p: Tensor | None
) -> "InferenceData":
    """The groups of a program, a variable for each site; ``log_p`` as of :func:`_marginal`."""
    layout = program.layout
    z, values = predict(program.model, program.guide, x, num_samples, layout)
    assert z is not None

    def sites(chosen: Mapping[str, Tensor]) -> dict[str, Variable]:
        found = {}
        for name, value in chosen.items():
            own = layout.data is not None and name not in layout.shared
            axes = (f"{name}_dim_{i}" for i in range(value.ndim - 1 - own))
            found[name] = as_draws(value, *["observation"] * own, *axes)
        return found

    conditional = {n: as_draws(v, "observation") for n, v in z.by_site.items()}
    groups: dict[str, Any] = {
        "posterior": sites(z.values),
        "posterior_predictive": sites({n: v for n, v in values.items() if n in z.observed}),
        "sample_stats": {
            "lp": as_draws(z.log_joint, "observation"),
            "log_weight": as_draws(z.log_weight, "observation"),
        },
        "conditional_log_likelihood": conditional,
        "observed_data": {n: (dims[2:], v[0, 0]) for n, (dims, v) in sites(z.observed).items()},
    }
    if log_p is not None:
        name = next(iter(z.observed)) if len(z.observed) == 1 else "x"
        groups["log_likelihood"] = {name: as_draws(log_p, "observation")}
    elif layout.data is not None and set(z.values) <= set(layout.shared):
        groups["log_likelihood"] = conditional
    if not program.why_not_drawn:
        _, values = predict(program.model, None, x, num_samples, layout)
        groups["prior"] = sites({n: v for n, v in values.items() if n in z.values})
        groups["prior_predictive"] = sites({n: v for n, v in values.items() if n in z.observed})
    coords = {"observation": np.arange(z.log_prior.shape[1])}
    return container({k: v for k, v in groups.items() if v}, coords)


def _marginal(vae: Face, x: Tensor, num_samples: int, evidence_samples: int) -> Tensor:
    """Draws ``(S, N)`` whose harmonic mean, which ``loo`` takes, is the estimate of p(x)."""
    found = log_evidence(vae, x, num_samples=evidence_samples, num_simulated=0)
    error = found.standard_error.clamp_min(LEAST)
    noise = torch.randn(num_samples, len(error), device=error.device, dtype=error.dtype)
    draws = found.log_evidence + error * noise
    return draws + found.log_evidence + torch.logsumexp(-draws, 0) - math.log(num_samples)


def _cells(
    record: Record, cell: Sequence[str], draws: Tensor, *dims: str, drawn: bool = True
) -> dict[str, Variable]:
    """Cells ``(S, ..., *x_shape)`` as variables; of a table those with words or dates as well."""

    def variable(values: np.ndarray, *dims: str) -> Variable:
        return as_draws(values, *dims) if drawn else (dims, values[0])

    if not isinstance(record, TableRecord):
        return {"x": variable(draws.cpu().numpy(), *dims, *cell)}
    numbers = by_column(record, draws)
    values = np.stack(list(numbers.values()), -1)
    variables = {"x": variable(values, *dims, *cell)}
    for name, some in numbers.items():
        if (own := own_values(record.schema[name], some)) is not None:
            variables[name if name != "x" else "x (values)"] = variable(own, *dims)
    return variables
