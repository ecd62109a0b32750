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

    One draw is scored alone and as several particles alike; then two draws side by side must not
    have one density where they have two alone, as under a mean over particles. Densities that are
    random beside the latent sites (dropout, subsampling) are not compared.

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
        dim = -int(nesting) - 1
        plate = pyro.plate("num_particles_vectorized", k, dim=dim)

        def in_one_pass(other: dict[str, Any]) -> dict[str, list[float]]:
            many = {n: _side_by_side([v, other[n]], draw.nodes[n]["fn"], k, -dim - 1)
                    for n, v in one.items()}  # fmt: skip
            return _densities(plate(poutine.condition(model, many)), args, kwargs, dim)

        try:
            alike, apart = in_one_pass(one), in_one_pass(two)
        except (ValueError, RuntimeError, IndexError) as problem:
            raise ValueError(
                f"{name} draws its particles in one pass, in a plate outside all others, and the "
                f"model cannot take {k} of them ({str(problem).splitlines()[0]}): {ADVICE}"
            ) from problem
    for site, (value,) in scored.items():
        found, each = sum(alike[site]) / k, apart[site]
        differ = not _close(second[site][0], value)
        if differ and (len(each) < 2 or _close(*each[:2])):  # one for two that differ alone
            found = each[-1]
            value = second[site][0] if _close(found, value) else value
        if math.isfinite(value) and not _close(found, value):
            raise ValueError(
                f"{name} draws its particles in one pass, in a plate outside all others, and site "
                f"{site!r} of the model has log density {found:.6g} there, {value:.6g} alone: "
                f"{ADVICE}"
            )


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= CLOSE * (1 + abs(other))


def _values(trace: Trace) -> dict[str, Any]:
    """Those of the latent sites, by name."""
    return {name: site["value"] for name, site in trace.nodes.items() if latent(site)}


def _densities(
    model: Callable, args: tuple, kwargs: dict, dim: int | None = None
) -> dict[str, list[float]]:
    """The log density of each site, summed over its plates, of each particle along ``dim``."""
    trace: Any = poutine.trace(model).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    found = {}
    for site in samples(trace):
        log_prob = site["log_prob"]
        whole = dim is None or log_prob.ndim < -dim
        rows = log_prob.reshape(1, -1) if whole else log_prob.movedim(dim, 0).flatten(1)
        found[site["name"]] = rows.reshape(len(rows), -1).sum(1).tolist()
    return found


def _side_by_side(values: list[Tensor], fn: Any, k: int, nesting: int) -> Tensor:  # noqa: ANN401
    """Draws in turn, k in all, in a plate outside all others."""
    ones = (1,) * (nesting - (values[0].ndim - fn.event_dim))
    stacked = torch.stack([values[i % len(values)] for i in range(k)])
    return stacked.reshape(k, *ones, *values[0].shape)
