"""A distribution of a model tried once, when the model is made: what it cannot do is said then."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..families.cells import OptimalNormal
from ..families.part import looks_at_joint

__all__ = ["check_density", "check_event", "check_meeting", "check_scale", "try_part"]


def try_part(
    part: nn.Module, role: str, line: str, features: Tensor | None = None
) -> dist.TorchDistribution:
    """The distribution of a part of a model, at the features of one observation.

    Raises:
        ValueError: whatever the part raises.
    """
    try:
        return part() if features is None else part(features)
    except ValueError:
        raise
    except Exception as problem:
        said = str(problem).split("\n")[0] or type(problem).__name__
        raise ValueError(f"the {role} {line} gives no distribution: {said}") from problem


def check_density(d: dist.TorchDistribution, role: str, line: str) -> None:
    """Raise unless a distribution can be drawn from, and its density evaluated at the draw.

    The generator of random numbers stays as it was.

    Raises:
        ValueError: whatever the distribution raises.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            z = d.sample(torch.Size([2]))
            if z.shape != (2, *d.batch_shape, *d.event_shape):
                raise NotImplementedError(f"a draw has shape {tuple(z.shape)}")
            d.log_prob(z)
    except ValueError:  # of a draw at an edge of the support, which is no matter of the model
        return
    except Exception as problem:
        said = str(problem).split("\n")[0] or "Pyro does not have it"
        raise ValueError(
            f"the {role} {line} cannot be drawn from, or has no density, for draws of shape "
            f"{tuple(d.event_shape)} ({said}): choose another {role}, or another shape"
        ) from problem


def check_meeting(p: dist.TorchDistribution, q: dist.TorchDistribution, lines: list[str]) -> None:
    """Raise if the prior has density 0 wherever a guide of points puts its mass."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            log_p = p.log_prob(q.sample(torch.Size([8])))
        except Exception:  # what cannot be evaluated is refused elsewhere
            return
    if (log_p == -torch.inf).all():
        raise ValueError(
            f"the prior {lines[0]} has density 0 at the points of the guide {lines[1]}: choose "
            "guide='Normal', or a prior that is not made of the guide"
        )


def check_scale(likelihood: nn.Module, guide: nn.Module, line: str) -> None:
    """Raise if a scale is fitted to all that is scored, and a guide scores z along its steps."""
    optimal = any(isinstance(part, OptimalNormal) for part in likelihood.modules())
    if optimal and looks_at_joint(guide):
        raise ValueError(
            f"OptimalNormal has the best scale for all that is scored, and {line} scores z along "
            "its steps: use Normal(scale=learned)"
        )


def check_event(d: dist.TorchDistribution, shape: tuple[int, ...], name: str) -> None:
    """Raise unless a distribution draws events of this shape."""
    if d.event_shape != shape:
        raise ValueError(
            f"the {name} has events of shape {tuple(d.event_shape)}, expected {shape}: "
            "declare the dimensions of one draw by .to_event()"
        )
