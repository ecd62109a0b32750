"""For each observation a proposal whose weights have a tail that can be trusted, or annealing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.pareto import RELIABLE, tail_shape
from ...model.face import Face
from ...model.joint import Joint, NotRealError
from ...program.line import RealLine
from .fitted import fit_normal, normal_proposal
from .paths import Path, Plan, joint_of
from .proposals import Blend, log_weights

__all__ = ["ANNEALED", "Rung", "climb"]

ANNEALED = "annealing"  # the name of a proposal

BLOCK = 100  # observations that are fitted together
SHARE = 0.8  # of draws from a fitted normal, beside the guide's
GRADIENT = 3  # evaluations of log p(x, z) that one of its gradients costs
LOST = 0.5  # of chains that end at the edge of the support: more, and annealing is not taken
NO_MEAN = 1.0  # the k-hat above which weights have no mean, and k-hats do not say which is better
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


def climb(vae: Face, x: Tensor, num_samples: int, rows: int) -> Iterator[Rung]:
    """Weights of each observation: by the guide beside a fitted normal, or by annealing from these.

    Where the guide's density is known at its own draws alone, it is the normal's without it.
    Those whose weights have a heavy tail are annealed. To leave out large weights can only lower
    the figure of the others, so that all stay lower bounds in expectation. Annealing is not taken
    where its own weights have a heavier tail, if those of the draws have a mean (a k-hat of at most
    1), or where it loses most of its chains to rounding at the edge of the support. Where they have
    none annealing is closer, whatever its k-hat. Where z has no gradient
    the guide is all that there is. The guide alone is never trusted for its k-hat where a normal
    can be fitted: one that is too narrow by half passes on half of the data.

    Args:
        vae: a VAE, or a program.
        x: its observations.
        num_samples: K.
        rows: passes through the decoder at once.
    """
    whole = vae.count(x) != len(x)  # one row that holds them all
    for index in torch.arange(vae.count(x), device=x.device).split(
        vae.count(x) if whole else BLOCK
    ):
        joint = joint_of(vae, x if whole else x[index])
        try:
            fitted = fit_normal(joint)
        except NotRealError:
            yield Rung(index, _log_weights(joint, num_samples, rows), "guide", num_samples)
            continue
        joint.guide = _blend(joint, fitted.loc, fitted.scale)
        log_w = _log_weights(joint, num_samples, rows)
        spent = num_samples + GRADIENT * fitted.gradients
        khat = tail_shape(log_w)
        kept = ~(khat > RELIABLE)  # NaN, of few draws, is kept
        yield Rung(index[kept], log_w[:, kept], "normal", spent)
        left = (~kept).nonzero()[:, 0]
        for some in left.split(len(left) if whole else ANNEALING.room(vae.cells)):
            if not len(some):
                continue
            part = slice(None) if whole else some
            joint = joint_of(vae, x if whole else x[index[some]])
            joint.guide = _blend(joint, fitted.loc[part], fitted.scale[part])
            path = Path(joint, ANNEALING)
            cost, annealed = spent + GRADIENT * path.gradients, _finite(path.forward())
            annealed = annealed[:, some] if whole else annealed
            lost = annealed.isinf().double().mean(0) > LOST
            lost |= (tail_shape(annealed) >= khat[some]) & (khat[some] <= NO_MEAN)
            yield Rung(index[some[~lost]], annealed[:, ~lost], ANNEALED, cost)
            yield Rung(index[some[lost]], log_w[:, some[lost]], "normal", cost)


def _blend(joint: Joint | RealLine, *fitted: Tensor) -> Any:  # noqa: ANN401
    normal = normal_proposal(joint, *fitted)
    return Blend(joint.guide, normal, SHARE) if joint.weighs_any_z else normal


def _log_weights(joint: Joint | RealLine, num_samples: int, rows: int) -> Tensor:
    """``(K, B)``, from chunks of at most ``rows`` passes through the decoder, where B allows."""
    return _finite(log_weights(joint, num_samples, rows // joint.count))


def _finite(log_w: Tensor) -> Tensor:
    """Weights, of which those of draws that round to the edge of the support count nothing.

    Densities are not finite there; to leave a weight out can only lower the figure.
    """
    return torch.where(log_w.isfinite(), log_w, -math.inf)
