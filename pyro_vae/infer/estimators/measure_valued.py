"""Measure-valued derivatives: gradients from differences of the cost, for Normal and Poisson."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from ..sites import latent, samples, unwrapped
from .multisample import MultiSampleELBO, Plates, Run, add, log_weight, own, total
from .profile import Profile
from .rules import (
    Trial,
    UnsoundError,
    first_that_meet,
    no_factor_has_a_slope_of_its_own,
    sites_are_independent,
)

__all__ = ["MeasureValued"]


def sites_are_measurable(trial: Trial) -> None:
    """The derivatives of all families are known as differences of two measures."""
    if rough := trial.where(lambda d: _coupling(d) is None):
        raise UnsoundError(
            "measure-valued derivatives are for Normal and Poisson sites, which "
            f"{trial.named(rough)} is not: use RLOO(num_particles=2) or Trace_ELBO(gradient="
            + ("score)" if trial.rigid else "pathwise)")
        )


def coordinates_are_moved_alone(trial: Trial) -> None:
    """No more than one coordinate is moved of what a site of the model reads."""
    if lonely := [name for name in trial.sites if name not in trial.priors]:
        raise UnsoundError(
            f"the guide draws {lonely[0]!r}, which the model does not: use Trace_ELBO, or name the "
            "guide's sites as the model's"
        )
    if meeting := first_that_meet(trial, trial.sites):
        name, plate, reader = meeting
        raise UnsoundError(
            f"site {name!r} is moved in all members of the plate {plate!r} at once, and "
            f"{reader!r}, outside it, reads them all: use Trace_ELBO, or declare the plate as an "
            "event, to_event(1)"
        )


class MeasureValued(MultiSampleELBO):
    r"""The ELBO by measure-valued derivatives, for guides of Normal and Poisson sites.

    The derivative of a density is a difference of two densities, times a constant; so that of a
    mean is a difference of two means, of which no derivative of f is asked:

    .. math::
        \nabla_{\mu} E[f(z)] &= \frac{E\left[f(\mu + \sigma W) - f(\mu - \sigma W)\right]}
            {\sigma \sqrt{2 \pi}}, & W &\sim \text{Rayleigh}(1) \\
        \nabla_{\sigma} E[f(z)] &= \frac{E\left[f(\mu + \sigma M) - f(\mu + \sigma M U)\right]}
            {\sigma}, & M &\sim \text{double-sided Maxwell}, \; U \sim \text{Uniform} \\
        \nabla_{\lambda} E[f(z)] &= E\left[f(z + 1) - f(z)\right], & z &\sim \text{Poisson}(\lambda)

    The pairs are coupled: both share W, M (as :math:`M U` is a standard normal variable) or z, and
    all other coordinates. One coordinate is moved at a time, and all of them are evaluated in one
    vectorized pass, in a plate outside all others, without a backward pass; the model's gradient
    comes from the draw that nothing moves. Here :math:`f = \log p(x, z) - \log q(z)`, and a site
    is scored by its own plates.

    Unbiased, also where f jumps; for guides whose sites are all Normal or Poisson and do not
    depend on each other. Three evaluations for each coordinate of a Normal, one for each of a
    Poisson, and one more, a particle.

    Args:
        num_particles: how many draws, each with its moved ones.

    Raises:
        ValueError: in a step, a site that is neither.

    References:
        Mohamed, Rosca, Figurnov & Mnih (2020), arXiv:1906.10652, section 6; Pflug (1989), "Sampling
        derivatives of probabilities", Computing 42; Heidergott et al. (2008), "Measure-valued
        differentiation for stationary Markov chains", for the coupling.
    """

    sequential = False
    elsewhere = True
    profile = Profile(
        gradients=("measure_valued",),
        guides="Normal, Poisson",
        note="unbiased; for each coordinate three evaluations a particle (Poisson: one), and one "
        "more",
        needs=(
            sites_are_measurable,
            sites_are_independent,
            coordinates_are_moved_alone,
            no_factor_has_a_slope_of_its_own,
        ),
    )

    def __init__(self, num_particles: int = 1, **plates: Unpack[Plates]) -> None:
        super().__init__(num_particles, **plates)

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Run:
        traced, draw = poutine.trace(model), Draw()  # with its subsamples, for the moved draws
        run = self._run(traced, draw(guide), args, kwargs, self.max_plate_nesting, draw.coupled)
        if not torch.is_grad_enabled():
            return run
        with torch.no_grad():
            return run._replace(kept=self._move(model, traced.trace, run, args, kwargs))

    def _move(
        self, model: Callable, traced: Trace, run: Run, args: tuple, kwargs: dict
    ) -> dict[str, "Moved"]:
        """Evaluate f with every coordinate moved, site by site."""
        sites = [site for site in samples(run.guide) if latent(site)]
        coupled: list[Coupled] = [run.kept[site["name"]] for site in sites]
        counts = [len(one.moved) for one in coupled]
        if not sites:
            return {}
        nesting = int(self.max_plate_nesting)
        for i, (site, one) in enumerate(zip(sites, coupled, strict=True)):
            draw = site["value"]
            before, after = sum(counts[:i]), sum(counts[i + 1 :])
            parts = [draw.expand(before, *draw.shape), one.moved, draw.expand(after, *draw.shape)]
            pad = [1] * (nesting - len(site["fn"].batch_shape))
            value = torch.cat(parts).reshape(sum(counts), *pad, *draw.shape)
            traced.nodes[site["name"]] = {**traced.nodes[site["name"]], "value": value}
        plate = pyro.plate("moved_coordinates", sum(counts), dim=-nesting - 1)
        trace = poutine.trace(poutine.replay(plate(model), trace=traced))
        moved = prune_subsample_sites(trace.get_trace(*args, **kwargs))
        moved.compute_log_prob()
        cost, kept = log_weight(moved, Trace()), {}
        for i, (site, one) in enumerate(zip(sites, coupled, strict=True)):
            f = own(cost, moved.nodes[site["name"]]).reshape(sum(counts), -1).split(counts)[i]
            log_q = site["fn"].log_prob(one.moved)
            f = f.reshape(log_q.shape) - scale_and_mask(log_q, site["scale"], site["mask"])
            kept[site["name"]] = Moved(one, f)
        return kept

    def _estimate(self, run: Run) -> tuple[Tensor, Tensor]:
        cost, k = log_weight(run.model, run.guide), self.num_particles
        log_p = log_weight(run.model, Trace())
        surrogate = add(site["log_prob"].sum() for site in samples(run.model))
        for site in samples(run.guide):
            moved = run.kept.get(site["name"])
            if isinstance(moved, Moved):
                f = own(log_p, site) - site["log_prob"].detach()
                surrogate = surrogate + moved.coupled.surrogate(moved.f, f)
        return total(cost) / k, surrogate / k


class Coupled:
    """A site's draw, and what its coordinates move to, one after another.

    Attributes:
        draw: ``(*batch_shape, *event_shape)``.
        moved: ``(pairs * D, *batch_shape, *event_shape)``, each with one of the D coordinates of an
            event moved; first all of the first pair, then all of the next.
    """

    draw: Tensor
    moved: Tensor

    def __init__(self, fn: torch.distributions.Distribution) -> None:
        self.batch_shape, self.event_shape = fn.batch_shape, fn.event_shape
        self.shape = fn.batch_shape + fn.event_shape

    def move(self, *values: Tensor) -> Tensor:
        """The draw, with one coordinate of it that of a value, ``(len(values) * D, ...)``."""
        d, ones = self.event_shape.numel(), [1] * len(self.batch_shape)
        one = torch.eye(d, dtype=torch.bool, device=self.draw.device)
        one = one.reshape(d, *ones, *self.event_shape)
        return torch.cat([torch.where(one, value, self.draw) for value in values])

    def by_coordinate(self, f: Tensor) -> Tensor:
        """From ``(pairs * D, *batch_shape)`` to ``(pairs, *batch_shape, *event_shape)``."""
        d = self.event_shape.numel()
        return f.reshape(-1, d, *self.batch_shape).movedim(1, -1).reshape(-1, *self.shape)

    def unmoved(self, f: Tensor) -> Tensor:
        """From ``batch_shape`` to what broadcasts over the coordinates."""
        return f.reshape(self.batch_shape + (1,) * len(self.event_shape))


class Moved(NamedTuple):
    """A coupled draw, and f with each of its coordinates moved."""

    coupled: Any
    f: Tensor


class CoupledNormal(Coupled):
    """Normal: a pair of Rayleigh variables for loc, and a Maxwell variable for scale."""

    def __init__(self, fn: torch.distributions.Distribution) -> None:
        super().__init__(fn)
        base = unwrapped(fn)
        self.parameters = base.loc.expand(self.shape), base.scale.expand(self.shape)
        loc, scale = (p.detach() for p in self.parameters)
        w = torch.randn_like(loc.expand(2, *self.shape)).square().sum(0).sqrt()
        m = torch.randn_like(loc.expand(3, *self.shape)).square().sum(0).sqrt()
        m = torch.where(torch.rand_like(m) < 0.5, m, -m)
        self.draw = loc + scale * m * torch.rand_like(m)
        self.moved = self.move(loc + scale * w, loc - scale * w, loc + scale * m)

    def surrogate(self, moved: Tensor, unmoved: Tensor) -> Tensor:
        """What has the gradient in the parameters, from f at the moved draws and at the draw."""
        loc, scale = self.parameters
        plus, minus, wide = self.by_coordinate(moved)
        to_loc = (plus - minus) / math.sqrt(2 * math.pi)
        to_scale = wide - self.unmoved(unmoved)
        return ((to_loc * loc + to_scale * scale) / scale.detach()).sum()


class CoupledPoisson(Coupled):
    """Poisson: one more for the rate."""

    def __init__(self, fn: torch.distributions.Distribution) -> None:
        super().__init__(fn)
        self.rate = unwrapped(fn).rate.expand(self.shape)
        self.parameters = (self.rate,)
        self.draw = torch.poisson(self.rate.detach())
        self.moved = self.move(self.draw + 1)

    def surrogate(self, moved: Tensor, unmoved: Tensor) -> Tensor:
        """What has the gradient in the rate, from f at the moved draws and at the draw."""
        (more,) = self.by_coordinate(moved)
        return ((more - self.unmoved(unmoved)) * self.rate).sum()


def _coupling(distribution: object) -> type[CoupledNormal] | type[CoupledPoisson] | None:
    """How the draws of a distribution are coupled, under its wrappers; ``None``: not at all."""
    base = unwrapped(distribution)
    if isinstance(base, torch.distributions.Normal):
        return CoupledNormal
    return CoupledPoisson if isinstance(base, torch.distributions.Poisson) else None


class Draw(Messenger):
    """Draw the sites of a guide together with what their coordinates move to."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Tensor] = []
        self.coupled: dict[str, Coupled] = {}

    def _pyro_sample(self, msg: dict) -> None:
        if not latent(msg) or msg["value"] is not None:
            return
        coupling = _coupling(msg["fn"])
        if coupling is None:
            raise ValueError(
                f"measure-valued derivatives are for Normal and Poisson sites, which "
                f"{msg['name']!r} is not: use RLOO"
            )
        coupled = coupling(msg["fn"])
        if is_validation_enabled():
            self._check_independent(msg["name"], coupled.parameters)
            self.draws.append(coupled.draw.requires_grad_())
        msg["value"] = coupled.draw
        self.coupled[msg["name"]] = coupled

    def _check_independent(self, name: str, parameters: Sequence[Tensor]) -> None:
        """A path from earlier draws to a site's parameters is refused."""
        for value in (p.sum() for p in parameters):
            if self.draws and value.requires_grad:
                paths = torch.autograd.grad(value, self.draws, retain_graph=True, allow_unused=True)
                if any(path is not None for path in paths):
                    raise ValueError(
                        f"the parameters of site {name!r} depend on an earlier site's draw, and "
                        "where that moves they are to stay: use RLOO"
                    )
