"""For each observation a proposal whose weights have a tail that can be trusted, or annealing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.pareto import RELIABLE, tail_shape
from ...model.joint import Joint, NotRealError
from .fitted import ASCENT, Blend, fit_normal, normal_proposal
from .paths import Path, Plan

__all__ = ["Rung", "climb"]

BLOCK = 100  # observations that are fitted together
SHARE = 0.8  # of draws from a fitted normal, beside the guide's
GRADIENT = 3  # evaluations of log p(x, z) that one of its gradients costs
ANNEALING = Plan(temperatures=30, chains=50, start="guide", leapfrog=3)


@dataclass(frozen=True)
class Rung:
    """Some observations, and the weights of the proposal that served them.

    Attributes:
        index: which observations, ``(B,)``.
        log_w: of the draws, ``(K, B)``.
        name: of the proposal.
        evaluations: of log p(x, z) for each observation, what was tried before included.
    """

    index: Tensor
    log_w: Tensor
    name: str
    evaluations: int


def climb(at: Callable[[Tensor], Joint], x: Tensor, num_samples: int, rows: int) -> Iterator[Rung]:
    """Weights of each observation: by the guide beside a fitted normal, or by annealing from these.

    Those whose weights have a heavy tail are annealed. To leave out large weights can only lower
    the figure of the others, so that all stay lower bounds in expectation. Where z has no gradient
    the guide is all that there is. The guide alone is never trusted for its k-hat where a normal
    can be fitted: one that is too narrow by half passes on half of the data.

    Args:
        at: from observations to the densities at them.
        x: observations.
        num_samples: K.
        rows: passes through the decoder at once.
    """
    for index in torch.arange(len(x), device=x.device).split(BLOCK):
        joint = at(x[index])
        try:
            fitted = fit_normal(joint)
        except NotRealError:
            yield Rung(
                index, _log_weights(joint, joint.guide, num_samples, rows), "guide", num_samples
            )
            continue
        log_w = _log_weights(joint, _blend(joint, *fitted), num_samples, rows)
        spent = num_samples + GRADIENT * (ASCENT + 2 * joint.guide.event_shape.numel())
        kept = ~(tail_shape(log_w) > RELIABLE)  # NaN, of few draws, is kept
        yield Rung(index[kept], log_w[:, kept], "normal", spent)
        if kept.all():
            continue
        for some in ANNEALING.split((~kept).nonzero()[:, 0], x):
            joint = at(x[index[some]])
            joint.guide = _blend(joint, *(part[some] for part in fitted))
            path = Path(joint, ANNEALING)
            cost = spent + GRADIENT * path.gradients
            yield Rung(index[some], path.forward(), "annealing", cost)


def _blend(joint: Joint, *fitted: Tensor) -> Any:  # noqa: ANN401
    return Blend(joint.guide, normal_proposal(joint, *fitted), SHARE)


def _log_weights(joint: Joint, q: Any, num_samples: int, rows: int) -> Tensor:  # noqa: ANN401
    """``(K, B)``, from chunks of at most ``rows`` passes through the decoder, where B allows."""
    step = max(1, rows // len(joint.x))
    parts = []
    for start in range(0, num_samples, step):
        z = q.sample(torch.Size([min(step, num_samples - start)]))
        parts.append(joint.log_joint(z) - q.log_prob(z))
    return torch.cat(parts)
