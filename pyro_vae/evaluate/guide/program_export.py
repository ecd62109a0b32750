"""A program's draws by site, as ArviZ takes them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...infer.draws import predict
from ...program.program import Program
from ..inference_data import as_draws, container

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["export_program"]


def export_program(
    program: Program, x: Tensor, num_samples: int, marginal: Tensor | None = None
) -> "InferenceData":
    """The groups of :func:`to_arviz`, with a variable for each site.

    Args:
        program: in evaluation mode.
        x: its rows.
        num_samples: draws.
        marginal: draws of the estimate of log p(x) of each observation, ``(S, N)``, where they
            have one.
    """
    layout = program.layout
    z, values = predict(program.model, program.guide, x, num_samples, layout)
    assert z is not None
    shared = set(layout.shared)

    def draws(name: str, value: Tensor, own: bool) -> Any:  # noqa: ANN401
        where = ("observation",) if own else ()
        axes = (f"{name}_dim_{i}" for i in range(value.ndim - 1 - own))
        return as_draws(value, *where, *axes)

    def sites(chosen: Mapping[str, Tensor]) -> dict[str, Any]:
        has_plate = layout.data is not None
        return {n: draws(n, v, has_plate and n not in shared) for n, v in chosen.items()}

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
    if marginal is not None:
        name = next(iter(z.observed), "x") if len(z.observed) == 1 else "x"
        groups["log_likelihood"] = {name: as_draws(marginal, "observation")}
    elif layout.data is not None and shared >= set(z.values):
        groups["log_likelihood"] = conditional
    if not program.why_not_drawn:
        _, values = predict(program.model, None, x, num_samples, layout)
        groups["prior"] = sites({n: v for n, v in values.items() if n in z.values})
        groups["prior_predictive"] = sites({n: v for n, v in values.items() if n in z.observed})
    coords = {"observation": np.arange(z.log_prior.shape[1])}
    return container({k: v for k, v in groups.items() if v}, coords)
