"""The latent variables of a program on the real line, where guides of their own are fitted."""

from collections.abc import Mapping
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from ..core.layout import MANY
from ..infer.draws import Draws, read, replay_at, run_once
from .program import Program

__all__ = ["RealLine"]


class RealLine:
    """log p(x, T(u)) and the volume of T, at coordinates u ``(S, N, D)`` of all latent sites.

    Args:
        program: in evaluation mode, its latent sites continuous.
        x: its rows.

    Raises:
        ValueError: a discrete site, or draws that are made one by one.
    """

    def __init__(self, program: Program, x: Tensor) -> None:
        program.posterior_model(x)
        if program.layout.why_loop:
            raise ValueError(
                "a guide is fitted to many draws at once, which this program does not allow "
                f"({program.layout.why_loop})\n{MANY}"
            )
        self.program, self.x, self.layout = program, x, program.layout
        self.sites = {name: self._site(name) for name in program.drawn.values}

    def coordinates(self, z: Draws) -> Tensor:
        """The real numbers behind draws of the guide, ``(S, N, D)``."""
        shape = z.log_prior.shape
        parts = [t.inv(z.values[n]).reshape(*shape, -1) for n, (t, *_) in self.sites.items()]  # pyright: ignore
        return torch.cat(parts, 2)

    def log_prior(self, u: Tensor) -> Tensor:
        """Nothing: all of the density is in :meth:`log_likelihood`."""
        return u.new_zeros(u.shape[:2])

    def log_likelihood(self, u: Tensor) -> Tensor:
        """log p(x, T(u)) and the log volume of T, ``(S, N)``."""
        at, volume = {}, self.log_prior(u)
        sizes = [size for *_, size in self.sites.values()]
        for (name, (to, batch, own, event, _)), part in zip(
            self.sites.items(), u.split(sizes, 2), strict=True
        ):
            others = [n for d, n in enumerate(batch) if d != own]
            raw = part.reshape(*u.shape[:2], *others, *event)
            raw = raw.movedim(1, 1 + own) if own is not None else raw.squeeze(1)
            value: Any = to(raw)
            log_det = to.log_abs_det_jacobian(raw, value)
            if own is not None:
                log_det = log_det.movedim(1 + own, 1)
            volume = volume + log_det.reshape(*u.shape[:2], -1).sum(2)
            at[name] = value
        return self._log_joint(at, len(u)) + volume

    def _log_joint(self, at: Mapping[str, Tensor], num_samples: int) -> Tensor:
        model = poutine.replay(self.program.model, trace=replay_at(at))
        run = run_once(
            model,
            lambda x: None,
            self.x,
            draws=num_samples,
            nesting=self.layout.nesting,
            full=self.layout.full,
        )
        return read(run, self.layout).log_joint

    def _site(self, name: str) -> tuple[Transform, list[int], int | None, list[int], int]:
        """From the real line to a site; its plates, which is the data's, an event, coordinates."""
        site: Any = self.program.example.model.nodes[name]
        to, nesting = biject_to(site["fn"].support), self.layout.nesting
        value, event_dim = site["value"], site["fn"].event_dim
        lead = list(value.shape[: value.ndim - event_dim])
        batch = [1] * (nesting - len(lead)) + lead
        frames = [f.dim for f in site["cond_indep_stack"] if f.name == self.layout.data]
        own = nesting + frames[0] if frames else None
        u: Any = to.inv(value)  # pyright: ignore[reportOptionalCall]
        event = list(u.shape[len(lead) :])
        return to, batch, own, event, u.numel() // (1 if own is None else batch[own])
