"""Whether model and guide broadcast over particles, which are drawn in one vectorized pass."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..sites import latent, samples

__all__ = ["check_broadcast", "check_plates"]

ADVICE = (
    "index and sum from the right (z[..., i], dim=-1), declare events by to_event, or draw "
    "particles one by one, by vectorize_particles=False"
)
CLOSE = 1e-3  # relative: sums of float32 in another order


def check_plates(trace: Trace) -> None:
    """Raise if a log density has a dimension that none of its site's plates has.

    Raises:
        ValueError: with the site and both shapes.
    """
    for site in samples(trace):
        sizes = {frame.dim: frame.size for frame in site["cond_indep_stack"] if frame.vectorized}
        shape = site["log_prob"].shape
        for dim in range(-len(shape), 0):
            if shape[dim] != 1 and shape[dim] != sizes.get(dim):
                raise ValueError(
                    f"the log density of site {site['name']!r} has shape {tuple(shape)}, and at "
                    f"dimension {dim} no plate of {shape[dim]}: {ADVICE}"
                )


@torch.no_grad()
def check_broadcast(
    name: str, model: Callable, guide: Callable, args: tuple, kwargs: dict, nesting: float
) -> None:
    """Raise if particles in one pass have another log density than each has alone.

    Two draws are scored alone and side by side, so that neither a sum nor a mean over particles
    passes. Densities that are random beside the latent sites (dropout, subsampling) are not
    compared.

    Args:
        name: the estimator's.
        model: a Pyro model.
        guide: its guide.
        args: of both.
        kwargs: of both.
        nesting: how many plates stand within one another.

    Raises:
        ValueError: with the site and both log densities.
    """
    with poutine.block(), torch.random.fork_rng():
        draw, other = (poutine.trace(guide).get_trace(*args, **kwargs) for _ in "ab")
        one, two = _values(draw), _values(other)
        if {n: v.shape for n, v in one.items()} != {n: v.shape for n, v in two.items()}:
            two = one
        scored, again, second = (
            _densities(poutine.condition(model, values), args, kwargs) for values in (one, one, two)
        )
        if scored != again or scored.keys() != second.keys():
            return
        sizes = {f.size for s in samples(draw) for f in s["cond_indep_stack"]}
        k = next(n for n in range(2, len(sizes) + 3) if n not in sizes)
        alone = {n: (v * (k - k // 2) + second[n] * (k // 2)) / k for n, v in scored.items()}
        many = {
            n: _side_by_side([v, two[n]], draw.nodes[n]["fn"], k, int(nesting))
            for n, v in one.items()
        }
        plate = pyro.plate("num_particles_vectorized", k, dim=-int(nesting) - 1)
        try:
            together = _densities(plate(poutine.condition(model, many)), args, kwargs)
        except (ValueError, RuntimeError, IndexError) as problem:
            raise ValueError(
                f"{name} draws its particles in one pass, in a plate outside all others, and the "
                f"model cannot take {k} of them ({str(problem).splitlines()[0]}): {ADVICE}"
            ) from problem
    for site, value in alone.items():
        other = together[site] / k
        if math.isfinite(value) and not abs(other - value) <= CLOSE * (1 + abs(value)):
            raise ValueError(
                f"{name} draws its particles in one pass, in a plate outside all others, and site "
                f"{site!r} of the model has log density {other:.6g} there, {value:.6g} alone: "
                f"{ADVICE}"
            )


def _values(trace: Trace) -> dict[str, Any]:
    """Those of the latent sites, by name."""
    return {name: site["value"] for name, site in trace.nodes.items() if latent(site)}


def _densities(model: Callable, args: tuple, kwargs: dict) -> dict[str, float]:
    """The log density of each site, summed over its plates."""
    trace: Any = poutine.trace(model).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return {site["name"]: site["log_prob"].sum().item() for site in samples(trace)}


def _side_by_side(values: list[Tensor], fn: Any, k: int, nesting: int) -> Tensor:  # noqa: ANN401
    """Draws in turn, k in all, in a plate outside all others."""
    ones = (1,) * (nesting - (values[0].ndim - fn.event_dim))
    stacked = torch.stack([values[i % len(values)] for i in range(k)])
    return stacked.reshape(k, *ones, *values[0].shape)
