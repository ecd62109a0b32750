"""Whether a model's log densities jump between the codes of discrete sites."""

from typing import Any

import pyro
import torch
from torch import Tensor

from ..sites import replayed, samples
from .relaxed import Bits, StraightThrough, kind_of
from .rules import Trial, UnsoundError

__all__ = ["the_cost_has_no_jumps"]

STEPS = 32  # of the way from one code to another
HALVINGS = 16  # of the step with the greatest change, of which a jump keeps all, a slope 2^-16
ROUNDING = 1e-4  # of a log density, below which no change is a jump


def the_cost_has_no_jumps(trial: Trial) -> None:
    """The model's log density goes on between codes, where a gradient follows a path there.

    What jumps has no slope, so a path leaves the jump out. All sites go from one code to another,
    each in its own time, and rest at both, which a relaxed draw is rounded to; where a log density
    changes more than in the steps beside it, that step is halved until the change is gone, or is
    seen to stay.
    """
    with torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(0)
        way = _Way(trial)
        rows = [way(i / STEPS) for i in range(STEPS + 1)]
        for name in rows[0]:
            change = torch.stack([row[name] for row in rows]).diff(dim=0).abs()
            beside = torch.maximum(change[:-2], change[2:])
            excess = change[1:-1] - beside
            step, cell = divmod(int(excess.argmax()), excess.shape[1])
            if _stays(way, name, step + 1, cell, excess[step, cell]):
                raise UnsoundError(
                    f"its control variate follows draws from one code to another, where the log "
                    f"density of {name!r} jumps, so it is biased: use RLOO(num_particles=2) or "
                    "DisARM, or mend the program: compute with z itself in place of its argmax, "
                    "its rounded value or an index, and put "
                    "pyro_vae.distributions.OneHotCategorical into mixtures"
                )


class _Way:
    """The model's log densities on the way from one code of all sites to another."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.ends = trial, {}
        for name, site in trial.sites.items():
            start, kind = site["value"], kind_of(site["fn"])
            if kind is Bits:
                end, per = 1 - start, start
            else:
                shift = int(torch.randint(1, start.shape[-1], ())) if start.shape[-1] > 1 else 0
                end, per = start.roll(shift, -1), start[..., :1]
            self.ends[name] = start, end, (torch.rand_like(per) - 0.5).exp()

    def __call__(self, time: float) -> dict[str, Tensor]:
        trace: Any = self.trial.guide_trace.copy()
        for name, (start, end, pace) in self.ends.items():
            share = torch.full_like(pace, max(0.0, min(1.0, 1.1 * time - 0.05))) ** pace
            value = torch.lerp(start, end, share.expand_as(start))
            trace.nodes[name] = {**trace.nodes[name], "value": value}
        torch.manual_seed(0)  # of what else is random, such as dropout
        model: Any = replayed(StraightThrough()(self.trial.model), trace, *self.trial.args)
        model.compute_log_prob()
        return {site["name"]: site["log_prob"].nan_to_num().flatten() for site in samples(model)}


def _stays(way: _Way, name: str, step: int, cell: int, change: Tensor) -> bool:
    """Whether a change of a log density stays, however short the step is in which it is made."""
    low, high = step / STEPS, (step + 1) / STEPS
    ends = [way(t)[name][cell] for t in (low, high)]
    floor = torch.maximum(change / 2, ROUNDING * (1 + ends[0].abs()))
    for _ in range(HALVINGS):
        if not (ends[1] - ends[0]).abs() > floor:
            return False
        middle = (low + high) / 2
        value = way(middle)[name][cell]
        if (value - ends[0]).abs() > (ends[1] - value).abs():
            high, ends[1] = middle, value
        else:
            low, ends[0] = middle, value
    return True
