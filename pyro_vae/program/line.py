"""The latent variables of a program on the real line, where guides of their own are fitted."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform, identity_transform

from ..core.layout import MANY
from ..infer.draws import Draws, predict, read, run_once
from ..model.face import Densities
from .program import Program

__all__ = ["RealLine"]


class RealLine(Densities):
    """A program's densities at coordinates u ``(S, N, D)`` of all latent sites, z = T(u).

    As of :class:`~pyro_vae.model.joint.Joint`, of a z that is real: log p(z) and log q(z) have the
    log volume of T in them.

    Args:
        program: in evaluation mode, its latent sites continuous.
        x: its rows.

    Attributes:
        count: N.
        guide: q of u, which may be replaced by another distribution.

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
        self.count, self.example = program.count(x), torch.zeros(())
        self.size = sum(size for *_, size in self.sites.values())
        self.guide: Any = GuideOnLine(self)
        self._last: tuple[Tensor, bool, Draws, Tensor] | None = None

    @property
    def weighs_any_z(self) -> bool:
        """Whether log q(z|x) is known at any z."""
        return not self.program.simulation.why_not_weighed

    def coordinates(self, values: Mapping[str, Tensor]) -> Tensor:
        """The real numbers behind draws of all sites, ``(S, N, D)``."""
        parts: list[Tensor] = []
        for name, (to, *_) in self.sites.items():
            raw: Any = to.inv(values[name])
            parts.append(raw.reshape(len(raw), self.count, -1))
        return torch.cat(parts, 2)

    def from_prior(self, num_samples: int) -> Tensor:
        """u of the prior, ``(S, N, D)``."""
        model = self.program.model
        return self.coordinates(predict(model, None, self.x, num_samples, self.layout)[1])

    def at(self, z: Mapping[str, Tensor]) -> Tensor:
        """u of one draw at given values of the sites, ``(1, N, D)``."""
        return self.coordinates(self.program.densities()(self.x).at(z).values)

    def to_support(self, who: str) -> Transform:
        """From u to u: it is on the real line."""
        return identity_transform

    def log_prior(self, u: Tensor) -> Tensor:
        """log p(T(u)) and the log volume of T, ``(S, N)``."""
        found, volume = self._densities(u)
        return found.log_prior + volume

    def log_likelihood(self, u: Tensor) -> Tensor:
        """log p(x|T(u)), ``(S, N)``."""
        return self._densities(u)[0].log_likelihood

    def log_own_guide(self, u: Tensor) -> Tensor:
        """log q(T(u)|x) and the log volume of T, by the program's guide.

        Raises:
            ValueError: a guide whose density at a given z is not known.
        """
        if why := self.program.simulation.why_not_weighed:
            raise ValueError(
                f"the density of this guide at a given z is not known ({why}): start from the "
                "prior, or draw the model's sites themselves in the guide"
            )
        found, volume = self._densities(u, guide=True)
        return found.log_guide + volume

    def _densities(self, u: Tensor, guide: bool = False) -> tuple[Draws, Tensor]:
        """Of one run at u, which is kept until another u comes."""
        last, grad = self._last, torch.is_grad_enabled()
        if last is None or last[0] is not u or guide > last[1] or grad:
            at, volume = self._values(u)
            how: dict[str, Any] = {"draws": len(u), **self.layout.how}
            if guide:
                run = run_once(self.program.model, self.program.guide, self.x, at=at, **how)
            else:
                run = run_once(self.program.model, lambda x: None, self.x, at=at, **how)
            last = self._last = (u, guide, read(run, self.layout), volume)
        return last[2], last[3]

    def _values(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The sites' values at u, and the log volume, ``(S, N)``."""
        at: dict[str, Tensor] = {}
        volume = u.new_zeros(u.shape[:2])
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
        return at, volume

    def _site(self, name: str) -> tuple[Transform, list[int], int | None, list[int], int]:
        """From the real line to a site; its plates, which is the data's, an event, coordinates."""
        site: Any = self.program.example.model.nodes[name]
        to, nesting = biject_to(site["fn"].support), self.layout.nesting
        value, event_dim = site["value"], site["fn"].event_dim
        lead = list(value.shape[: value.ndim - event_dim])
        batch = [1] * (nesting - len(lead)) + lead
        frames = [f.dim for f in site["cond_indep_stack"] if f.name == self.layout.data]
        own = nesting + frames[0] if frames else None
        u: Any = to.inv(value)
        event = list(u.shape[len(lead) :])
        return to, batch, own, event, u.numel() // (1 if own is None else batch[own])


class GuideOnLine:
    """q of a program's coordinates, with the face of a distribution."""

    def __init__(self, line: RealLine) -> None:
        self.line = line
        self.batch_shape, self.event_shape = torch.Size([line.count]), torch.Size([line.size])

    def sample(self, shape: torch.Size) -> Tensor:
        """Draws ``(S, N, D)``."""
        line = self.line
        drawn = line.program.densities()(line.x).draw(shape.numel())
        return line.coordinates(drawn.values)

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density, ``(S, N)``."""
        return self.line.log_own_guide(u)
