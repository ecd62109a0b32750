"""Whether a gradient sees all that a model's log densities do between the codes of sites."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor

from ..sites import replayed, samples
from .multisample import add
from .relaxed import Bits, StraightThrough, kind_of
from .rules import Trial, UnsoundError

__all__ = ["the_cost_has_no_jumps"]

STEPS = 32  # of the way from one code to another
HALVINGS = 16  # of the step with the greatest change, of which a jump keeps all, a slope 2^-16
ROUNDING = 1e-4  # of a log density, below which no change is a jump
PLACES = 0.15, 0.35, 0.5, 0.65, 0.85  # of the way, where slopes are held against changes
UNSEEN = 0.05  # of a change: so much of it, however short the step, is none of the slope's
NOISE = 3e-6  # of a log density


def the_cost_has_no_jumps(trial: Trial) -> None:
    """The model's log density goes on between codes, where a gradient follows a path there.

    What jumps has no slope, so a path leaves the jump out. All sites go from one code to another,
    each in its own time, and rest at both, which a relaxed draw is rounded to; where a log density
    changes more than in the steps beside it, that step is halved until the change is gone, or is
    seen to stay. What is detached changes too, and autograd sees no slope of it: at some places on
    the way slopes are held against changes.
    """
    with torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(0)
        way = _Way(trial)
        rows = [way.at(i / STEPS) for i in range(STEPS + 1)]
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
        if all(map(way.hides, PLACES)):
            raise UnsoundError(
                "its control variate follows draws from one code to another, and the gradient of "
                "the model's log density does not tell how it changes there, so it is biased: use "
                "RLOO(num_particles=2) or DisARM, or mend the program: compute with z itself, not "
                "with z.detach(), z.item() or within torch.no_grad()"
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

    def hides(self, time: float) -> bool:
        """Whether the slopes there miss a part of a change, however short the step is."""
        for halvings in range(6):
            half = 0.5 / STEPS / 2**halvings
            (low, f, s), (high, g, t) = map(self._sloped, (time - half, time + half))
            pairs = zip(low, high, s, t, strict=True)
            seen = add(((a + b) * (y - x)).sum() / 2 for x, y, a, b in pairs)
            change = g - f
            off = ((self.sign * change).sum() - seen).abs()
            if off <= torch.maximum(UNSEEN * change.norm(), NOISE * (1 + f.norm())):
                return False
        return True

    def _sloped(self, time: float) -> tuple[list[Tensor], Tensor, Sequence[Tensor]]:
        """The codes, the log densities, and the slopes of these, summed with signs at random."""
        codes = {name: code.requires_grad_() for name, code in self.codes(time).items()}
        given = [*codes.values()]
        with torch.enable_grad():
            cells = torch.cat([*self(codes).values()])
            self.sign = (torch.rand_like(cells) - 0.5).sign()
            total = (self.sign * cells).sum()
        if not total.requires_grad:
            return given, cells, [torch.zeros_like(code) for code in given]
        slopes = torch.autograd.grad(total, given, allow_unused=True, materialize_grads=True)
        return given, cells.detach(), slopes

    def codes(self, time: float) -> dict[str, Tensor]:
        """The values of the sites on the way."""
        values = {}
        for name, (start, end, pace) in self.ends.items():
            share = torch.full_like(pace, max(0.0, min(1.0, 1.1 * time - 0.05))) ** pace
            values[name] = torch.lerp(start, end, share.expand_as(start))
        return values

    def at(self, time: float) -> dict[str, Tensor]:
        """The model's log densities at a time."""
        return self(self.codes(time))

    def __call__(self, codes: dict[str, Tensor]) -> dict[str, Tensor]:
        """The model's log densities there, cell by cell."""
        trace: Any = self.trial.guide_trace.copy()
        for name, value in codes.items():
            trace.nodes[name] = {**trace.nodes[name], "value": value}
        torch.manual_seed(0)  # of what else is random, such as dropout
        model: Any = replayed(StraightThrough()(self.trial.model), trace, *self.trial.args)
        model.compute_log_prob()
        return {site["name"]: site["log_prob"].nan_to_num().flatten() for site in samples(model)}


def _stays(way: _Way, name: str, step: int, cell: int, change: Tensor) -> bool:
    """Whether a change of a log density stays, however short the step is in which it is made."""
    low, high = step / STEPS, (step + 1) / STEPS
    ends = [way.at(t)[name][cell] for t in (low, high)]
    floor = torch.maximum(change / 2, ROUNDING * (1 + ends[0].abs()))
    for _ in range(HALVINGS):
        if not (ends[1] - ends[0]).abs() > floor:
            return False
        middle = (low + high) / 2
        value = way.at(middle)[name][cell]
        if (value - ends[0]).abs() > (ends[1] - value).abs():
            high, ends[1] = middle, value
        else:
            low, ends[0] = middle, value
    return True
