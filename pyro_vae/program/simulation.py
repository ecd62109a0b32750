"""Observations drawn from a program's model, in the place of its arguments."""

from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor

from ..core.layout import Layout
from ..infer.draws import Traces, full_plates
from ..infer.guides import Unobserved
from ..infer.sites import computed, latent, samples
from .packing import Packing

__all__ = ["Simulation"]


class Simulation:
    """Draws of the model without its data; they take the place of the arguments that held these.

    Args:
        traces: a run of the program.
        packing: of its arguments.
        layout: of its plates.

    Attributes:
        why_not: why the model cannot be drawn from; empty where it can.
        why_not_weighed: why the guide's density at a given z is not known, likewise.
    """

    def __init__(self, traces: Traces, packing: Packing, layout: Layout) -> None:
        self.packing, self.layout = packing, layout
        self.sources: dict[str, list[Any]] = {}  # the arguments that hold what a site observes
        self.latent = [s["name"] for s in samples(traces.guide) if latent(s)]
        extra = [name for name in self.latent if name not in traces.model.nodes]
        self.why_not_weighed = f"the guide draws {extra[0]!r} in its place" if extra else ""
        self.why_not = ""
        for site in samples(traces.model):
            if not site["is_observed"] or computed(site):
                continue
            keys = [k for k, held in packing.tensors.items() if _same(held, site["value"])]
            if not keys:
                self.why_not = f"the observed site {site['name']!r} is no argument of the program"
            self.sources[site["name"]] = keys
        units = [s["name"] for s in samples(traces.model) if type(s["fn"]).__name__ == "Unit"]
        self.factor = next(iter(units), "")
        if self.factor:
            self.why_not = f"the factor {self.factor!r} is no distribution"
        if layout.partial:
            self.why_not = f"a part of the plate {layout.partial[0]!r} is given"

    def try_once(self, model: Callable, guide: Callable, x: Tensor) -> None:
        """Draw data once, and learn whether the guide reads them."""
        if self.why_not:
            return
        try:
            for name, keys in self.sources.items():
                if len(keys) > 1:
                    self.sources[name] = [self._told_apart(model, x, name, keys)]
            (_, other), *_ = self.draw(model, self.layout.size, x, len(x))
            values = []
            for rows in (x, other):
                with torch.random.fork_rng(), poutine.block(), full_plates():
                    torch.manual_seed(0)
                    trace = poutine.trace(guide).get_trace(rows)
                values.append([trace.nodes[name]["value"] for name in self.latent])
        except Exception as problem:  # whatever a user's program raises
            self.why_not = f"{type(problem).__name__}: {str(problem).splitlines()[0][:120]}"
            return
        if self.latent and all(map(torch.equal, *values)):
            self.why_not = "its guide does not read the data, so it is of these data alone"

    def draw(
        self, model: Callable, num_data: int, x: Tensor, size: int
    ) -> list[tuple[dict[str, Tensor], Tensor]]:
        """Values of the latent sites and rows that hold data drawn with them.

        Args:
            model: of rows.
            num_data: how many observations, at least.
            x: rows, whose other arguments are taken in turn.
            size: rows of a part.

        Raises:
            ValueError: the model cannot be drawn from.
        """
        if self.why_not:
            raise ValueError(f"observations cannot be drawn from this program: {self.why_not}")
        if self.layout.whole:
            parts = [x] * -(-num_data // self.layout.size)
        else:
            rows = x[torch.arange(num_data, device=x.device) % len(x)]
            parts = list(rows.split(size))
        return [self._draw(model, part) for part in parts]

    def _draw(self, model: Callable, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        with poutine.block(), full_plates():
            trace = poutine.trace(Unobserved()(model)).get_trace(x)
        nodes: dict[str, Any] = dict(trace.nodes)
        drawn = {key: nodes[name]["value"] for name, (key,) in self.sources.items()}
        z = {name: nodes[name]["value"] for name in self.latent if name in nodes}
        return z, self.packing.replace(x, drawn)

    def _told_apart(self, model: Callable, x: Tensor, name: str, keys: list[Any]) -> Any:  # noqa: ANN401
        """Of arguments that hold the same, the one that a site follows when its rows are moved."""
        for key in keys:
            moved = self.packing.tensors[key].roll(1, 0)
            with torch.random.fork_rng(), poutine.block(), full_plates():
                trace = poutine.trace(model).get_trace(self.packing.replace(x, {key: moved}))
            value: Any = trace.nodes[name]["value"]
            if not _same(moved, self.packing.tensors[key]) and _same(moved, value):
                return key
        raise ValueError(
            f"arguments {keys} hold the same values, and {name!r} observes one of them"
        )


def _same(tensor: Tensor, value: object) -> bool:
    """Whether what a site observes is the same numbers as a tensor holds, in the same order."""
    if not isinstance(value, Tensor) or tensor.numel() != value.numel():
        return False
    return torch.equal(tensor.reshape(-1).to(value.dtype), value.detach().reshape(-1))
