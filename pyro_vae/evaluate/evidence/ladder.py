"""For each observation the cheapest proposal whose weights have a tail that can be trusted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.pareto import RELIABLE, tail_shape
from ...model.joint import Joint
from .fitted import ASCENT, Blend, fit_normal, normal_proposal
from .paths import Path, Plan

__all__ = ["Rung", "climb"]

PILOT = 400  # draws that decide whether a proposal will do
MARGIN = 0.1  # of k-hat, which is noisy, below what can be trusted
BLOCK = 100  # observations that are fitted together
SHARE = 0.9  # of draws from a fitted proposal, beside the guide's
GRADIENT = 3  # evaluations of log p(x, z) that one of its gradients costs
ANNEALING = Plan(temperatures=30, chains=50, start="guide", leapfrog=3)


@dataclass(frozen=True)
class Rung:
    """Some observations, and the weights of the proposal that served them.

    Attributes:
        index: which observations, ``(B,)``.
        log_w: of the draws, ``(K, B)``.
        name: of the proposal.
        evaluations: of log p(x, z), for each observation, what was tried before included.
    """

    index: Tensor
    log_w: Tensor
    name: str
    evaluations: int


def climb(at: Callable[[Tensor], Joint], x: Tensor, num_samples: int, rows: int) -> Iterator[Rung]:
    """Weights of each observation: by the guide, by a fitted normal, or by annealing from it.

    A pilot run decides; the weights are of draws of their own, so that the figure stays a lower
    bound in expectation.

    Args:
        at: from observations to the densities at them.
        x: observations.
        num_samples: K.
        rows: passes through the decoder at once.
    """

    def joint_at(index: Tensor) -> Joint:
        return at(x[index])

    for block in torch.arange(len(x), device=x.device).split(BLOCK):
        left, spent, fitted = block, 0, ()
        for name, fit, proposal, cost in PROPOSALS:
            try:
                joint = joint_at(left)
                fitted = fit(joint)
            except ValueError:  # z has no gradient, or no real line maps to it
                break
            spent += cost(joint) + PILOT
            pilot = _log_weights(joint, proposal(joint, *fitted), PILOT, rows)
            done = tail_shape(pilot) <= RELIABLE - MARGIN
            if done.any():
                some = joint_at(left[done])
                q = proposal(some, *(part[done] for part in fitted))
                log_w = _log_weights(some, q, num_samples, rows)
                yield Rung(left[done], log_w, name, spent + num_samples)
            left, fitted = left[~done], tuple(part[~done] for part in fitted)
            if not len(left):
                break
        if not len(left):
            continue
        joint = joint_at(left)
        if not fitted:
            log_w = _log_weights(joint, joint.guide, num_samples, rows)
            yield Rung(left, log_w, "guide", spent + num_samples)
            continue
        joint.guide = _blend(joint, *fitted)
        path = Path(joint, ANNEALING)
        yield Rung(left, path.forward(), "annealing", spent + GRADIENT * path.gradients)


def _blend(joint: Joint, *fitted: Tensor) -> Any:  # noqa: ANN401
    return Blend(joint.guide, normal_proposal(joint, *fitted), SHARE)


def _cost(joint: Joint) -> int:
    """Of the ascent, and of the second derivatives, two gradients for each dimension."""
    return GRADIENT * (ASCENT + 2 * joint.guide.event_shape.numel())


# The name of a proposal, from a joint density to its parameters by observation, from both to the
# distribution, and what the fit costs.
Fit = Callable[[Joint], tuple[Tensor, ...]]
PROPOSALS: tuple[tuple[str, Fit, Callable[..., Any], Callable[[Joint], int]], ...] = (
    ("guide", lambda joint: (), lambda joint: joint.guide, lambda joint: 0),
    ("normal", fit_normal, _blend, _cost),
)


def _log_weights(joint: Joint, q: Any, num_samples: int, rows: int) -> Tensor:  # noqa: ANN401
    """``(K, B)``, from chunks of at most ``rows`` passes through the decoder, where B allows."""
    step = max(1, rows // len(joint.x))
    parts = []
    for start in range(0, num_samples, step):
        z = q.sample(torch.Size([min(step, num_samples - start)]))
        parts.append(joint.log_joint(z) - q.log_prob(z))
    return torch.cat(parts)
