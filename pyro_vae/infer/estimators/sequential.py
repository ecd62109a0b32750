"""Particles that were drawn one by one, as if they had been drawn in one vectorized pass."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.score_parts import ScoreParts
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..sites import samples

__all__ = ["SameMembers", "depth", "stack_traces"]


class SameMembers(Messenger):
    """Within it a plate that draws a subsample has the same members in every run.

    Particles are compared, so they must be of the same data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[str, Any] = {}

    def _pyro_sample(self, msg: dict) -> None:
        if site_is_subsample(msg) and msg["value"] is None:  # pyrefly: ignore[bad-argument-type]
            msg["value"] = self.members.get(msg["name"])

    def _pyro_post_sample(self, msg: dict) -> None:
        if site_is_subsample(msg):  # pyrefly: ignore[bad-argument-type]
            self.members.setdefault(msg["name"], msg["value"])


def depth(*traces: Trace) -> int:
    """How many plates stand within one another."""
    sites = [site for trace in traces for site in samples(trace)]
    dims = (-f.dim for site in sites for f in site["cond_indep_stack"] if f.vectorized)
    return max([*dims, *(site["log_prob"].ndim for site in sites)], default=0)


def stack_traces(traces: Sequence[Trace], nesting: int) -> Trace:
    """The sites of several runs of a program, with their densities along an outermost plate.

    Values stay those of the first run.

    Args:
        traces: with log densities, and score parts in a guide's.
        nesting: the plates within the new one.

    Raises:
        ValueError: runs of other sites, or of densities of other shapes.
    """
    sites = [list(samples(trace)) for trace in traces]
    names = [[site["name"] for site in run] for run in sites]
    if other := next((run for run in names if run != names[0]), None):
        raise ValueError(
            f"the particles have different sites, {names[0]} and {other}, so they cannot be "
            "compared: use Trace_ELBO(num_particles=K)"
        )
    frame = CondIndepStackFrame("num_particles_vectorized", -nesting - 1, len(traces), 0)
    stacked = Trace()
    for same in zip(*sites, strict=True):
        name, first = same[0]["name"], same[0]
        try:
            parts = _stack(name, same, nesting)
        except RuntimeError as problem:
            raise ValueError(
                f"the particles' log densities of site {name!r} have different shapes, so they "
                "cannot be compared: use Trace_ELBO(num_particles=K)"
            ) from problem
        stack = (*first["cond_indep_stack"], frame)
        stacked.add_node(name, **{**first, **parts, "cond_indep_stack": stack})
    return stacked


def _stack(name: str, same: Sequence[Any], nesting: int) -> dict[str, Any]:
    """The density of a site, and its score parts, ``(K, *plates)``."""

    def stack(values: Sequence[Any]) -> Any:  # noqa: ANN401
        if not isinstance(values[0], Tensor):  # an identical zero
            return values[0]
        return torch.stack([v.reshape((1,) * (nesting - v.ndim) + v.shape) for v in values])

    parts: dict[str, Any] = {"log_prob": stack([site["log_prob"] for site in same])}
    if "score_parts" in same[0]:
        parts["score_parts"] = ScoreParts(
            *map(stack, zip(*(s["score_parts"] for s in same), strict=True))
        )
    return parts
