"""Draws from the guide of any Pyro program, and the densities at them by observation."""

import math
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pyro
import pyro.ops.packed as packed
import pyro.poutine as poutine
import torch
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine.subsample_messenger import SubsampleMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import kl_divergence

from ..core.layout import Layout
from .guides import At, Unobserved
from .sites import computed, latent, replayed, samples, unweighted

__all__ = ["Draws", "Traces", "draws", "full_plates", "predict", "read", "run_once"]

PLATE = "_draws"


@dataclass(frozen=True)
class Draws:
    """S draws of the latent sites at N observations.

    What all observations share has an N-th of its density in each of them, so that sums over
    observations are the program's. Enumerated sites of the model are summed out. Scales
    (``poutine.scale``) are of the objective, and not in it.

    Attributes:
        values: of latent sites, ``(S, N, ...)``, or ``(S, ...)`` of those outside the data plate.
        log_likelihood: of what is observed, ``(S, N)``, as are the others.
        log_prior: of the latent sites in the model.
        log_guide: of those in the guide.
        observed: values of the model's observed sites, as ``values``.
        by_site: log densities of the observed sites that depend on no enumerated one.
    """

    values: dict[str, Tensor]
    log_likelihood: Tensor
    log_prior: Tensor
    log_guide: Tensor
    observed: dict[str, Tensor]
    by_site: dict[str, Tensor]

    @property
    def log_joint(self) -> Tensor:
        """log p(x, z)."""
        return self.log_likelihood + self.log_prior

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z)."""
        return self.log_joint - self.log_guide

    @classmethod
    def join(cls, parts: "Sequence[Draws]") -> "Draws":
        """Several draws as one; values of sites that not all of them have in one shape are lost."""
        if len(parts) == 1:
            return parts[0]
        terms: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("log_likelihood", "log_prior", "log_guide")
        }
        tables: dict[str, Any] = {
            name: _join([getattr(part, name) for part in parts])
            for name in ("values", "observed", "by_site")
        }
        return cls(**terms, **tables)


@dataclass(frozen=True)
class Traces:
    """A run of the guide, and of the model at its draws."""

    guide: Trace
    model: Trace

    @property
    def plates(self) -> dict[str, Any]:
        """The frames of all plates by name."""
        both = (*samples(self.model), *samples(self.guide))
        return {f.name: f for site in both for f in site["cond_indep_stack"]}

    @property
    def nesting(self) -> int:
        """How many plates stand within one another."""
        return -min((f.dim for f in self.plates.values() if f.vectorized), default=0)


@contextmanager
def full_plates() -> Generator[None]:
    """Within it plates that would draw a subsample have all their members."""
    subsample = SubsampleMessenger._subsample

    def whole(
        name: str,
        size: int | None = None,
        subsample_size: int | None = None,
        members: Tensor | None = None,
        *others: Any,  # noqa: ANN401
    ) -> object:
        given = size is None or members is not None
        return subsample(name, size, subsample_size if given else None, members, *others)

    with patch.object(SubsampleMessenger, "_subsample", staticmethod(whole)):
        yield


def run_once(
    model: Callable,
    guide: Callable,
    x: Tensor,
    *,
    at: Mapping[str, Tensor] | None = None,
    draws: int | None = None,
    nesting: int = 0,
    full: bool = False,
    enumerate: bool = True,
) -> Traces:
    """Run the guide, and the model at its draws, with the model's enumerated sites in parallel.

    Args:
        model: a Pyro model.
        guide: its guide.
        x: of both.
        at: values of the guide's sites, and of the model's; it draws those that are not given.
        draws: so many at once, by a plate outside the others; ``None`` makes one without it.
        nesting: of the plates, where it is known.
        full: whether plates that would draw a subsample have all their members.
        enumerate: whether the model's marked sites have all their values in parallel.
    """
    if draws is not None:
        plate = pyro.plate(PLATE, draws, dim=-1 - nesting)
        model, guide = plate(model), plate(guide)
    if at is not None:
        guide = At(at)(guide)
    first = -1 - nesting - (draws is not None)
    with poutine.block(), full_plates() if full else nullcontext():
        q = poutine.trace(guide).get_trace(x)
        if enumerate:
            model = poutine.enum(model, first_available_dim=first)
        if at is not None:  # after the sites that are enumerated have their dimensions
            model = At(at)(model)
        p = replayed(model, q, x)
    return Traces(q, p)


def draws(
    model: Callable,
    guide: Callable,
    x: Tensor,
    num_samples: int,
    layout: Layout,
    *,
    exact_kl: bool = False,
) -> Draws:
    """So many draws from the guide, with their densities.

    Args:
        model: a Pyro model.
        guide: its guide.
        x: of both.
        num_samples: S; in one run where the layout allows it, else one by one.
        layout: of the plates.
        exact_kl: put KL(q || p) in closed form in the place of log q - log p(z).
    """
    if layout.why_loop:
        each = (run_once(model, guide, x, **layout.how) for _ in range(num_samples))
        return Draws.join([read(run, layout, exact_kl=exact_kl) for run in each])
    run = run_once(model, guide, x, draws=num_samples, **layout.how)
    return read(run, layout, exact_kl=exact_kl)


def read(traces: Traces, layout: Layout, *, exact_kl: bool = False) -> Draws:
    """The values and densities of a run."""
    q, p = traces.guide, traces.model
    p.compute_log_prob()
    q.compute_log_prob()
    members = Members(traces, layout)
    likelihood, prior, guide, gone = members.zero, members.zero, members.zero, set()
    if layout.marginal:
        summed, prior, gone = _marginalize(p, q, members)
        likelihood = summed - prior
    by_site: dict[str, Tensor] = {}
    for site in filter(_scored, samples(q)):
        own: Any = p.nodes.get(site["name"])
        density = kl_divergence(site["fn"], own["fn"]) if exact_kl and own else unweighted(site)
        guide = guide + members.term(density, site["cond_indep_stack"])
    for site in filter(_scored, samples(p)):
        if (name := site["name"]) in gone:
            continue
        term = members.term(unweighted(site), site["cond_indep_stack"])
        if site["is_observed"]:
            likelihood, by_site[name] = likelihood + term, term
        elif not exact_kl:
            prior = prior + term
    shared = [s for s in samples(q) if latent(s) and s["name"] in p.nodes]
    values = {s["name"]: members.values(s) for s in shared}
    seen = {s["name"]: members.values(s) for s in samples(p) if s["is_observed"] and _data(s)}
    by_site = {name: term for name, term in by_site.items() if name in seen}
    return Draws(values, likelihood, prior, guide, seen, by_site)


class Members:
    """Reduces what a run computes to ``(S, N)``: draws and members of the data plate."""

    def __init__(self, traces: Traces, layout: Layout) -> None:
        self.layout, plates = layout, traces.plates
        self.together = PLATE in plates
        self.draws = plates[PLATE].size if self.together else 1
        self.count = plates[layout.data].size if layout.data in plates else 1
        site: Any = next(iter(s for s in samples(traces.model) if _scored(s)), None)
        like = torch.zeros(()) if site is None else site.get("unscaled_log_prob", torch.zeros(()))
        self.zero = like.new_zeros(self.draws, self.count)

    def term(self, value: Tensor, frames: Sequence[Any]) -> Tensor:
        """A log density, ``(S, N)``: summed over other plates, shared out where it is shared."""
        apart = PLATE, self.layout.data
        scale = math.prod(f.full_size / f.size for f in frames if f.name not in apart)
        batch, own = self._batch(value, frames, 0), self._own(frames)
        if own is None:
            shared = batch.reshape(self.draws, -1).sum(1, keepdim=True) / self.layout.size
            return (scale * shared).expand(self.draws, self.count)
        return scale * batch.movedim(own, 1).reshape(self.draws, self.count, -1).sum(2)

    def values(self, site: Any) -> Tensor:  # noqa: ANN401
        """Values of a site, ``(S, N, ...)`` or ``(S, ...)``, without the dimensions of no plate."""
        frames, event_dim = site["cond_indep_stack"], site["fn"].event_dim
        value, own = self._batch(site["value"], frames, event_dim), self._own(frames)
        if own is not None:
            value = value.movedim(own, 1)
        first = 1 if own is None else 2
        last = 1 + self.layout.nesting
        kept = [n for n in value.shape[first:last] if n > 1]
        return value.reshape(*value.shape[:first], *kept, *value.shape[last:])

    def _own(self, frames: Sequence[Any]) -> int | None:
        """Where the data plate is among the dimensions of :meth:`_batch`."""
        dims = [f.dim for f in frames if f.name == self.layout.data]
        return 1 + self.layout.nesting + dims[0] if dims else None

    def _batch(self, value: Tensor, frames: Sequence[Any], event_dim: int) -> Tensor:
        """``(S, *plates, ...)``: draws, one dimension for each level of the plates, and the rest.

        Dimensions that no plate declares come after the plates', in a run without the plate of
        draws; with it there are none.
        """
        n = self.layout.nesting
        split = value.ndim - event_dim
        if not self.together and (extra := max(0, split - n)):
            value = value.movedim(tuple(range(extra)), tuple(range(split - extra, split)))
            split -= extra
        sizes = [self.draws, *[1] * n]
        for frame in frames:
            if frame.vectorized:
                sizes[frame.dim] = frame.size
        batch, rest = value.shape[:split], value.shape[split:]
        if split > n + 1:
            raise ValueError("a site has dimensions that no plate declares, left of the plates'")
        given = [1] * (n + 1 - split) + list(batch)
        shape = [max(a, b) for a, b in zip(given, sizes, strict=True)]
        return value.reshape(*given, *rest).expand(*shape, *rest)


def _join(each: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Several runs as one, by site: of those sites that all runs have in one shape."""
    names = [
        name
        for name, first in each[0].items()
        if all(name in one and one[name].shape[1:] == first.shape[1:] for one in each)
    ]
    return {name: torch.cat([one[name] for one in each]) for name in names}


def _marginalize(p: Trace, q: Trace, members: Members) -> tuple[Tensor, Tensor, set[str]]:
    """The log density with enumerated sites summed out, that of latent sites, and of which sites.

    That of latent sites alone is 0 where none depends on an enumerated one.
    """
    q.pack_tensors()
    p.pack_tensors(q.plate_to_symbol)
    enumerated = {
        site["infer"]["_enumerate_symbol"]: site
        for site in samples(p)
        if site["infer"].get("_enumerate_dim") is not None
    }
    symbols = set(enumerated)
    frames = {f.name: f for site in samples(p) for f in site["cond_indep_stack"]}
    plates = {symbol: frames[name] for name, symbol in p.plate_to_symbol.items() if name in frames}
    factors: Any = {}
    of_latent: Any = {}
    names: set[str] = set()
    for site in samples(p):
        own: Any = site.get("packed", {})
        if not _scored(site) or symbols.isdisjoint(own["log_prob"]._pyro_dims):
            continue
        _check_whole(site, enumerated, set(own["log_prob"]._pyro_dims))
        ordinal = frozenset(
            p.plate_to_symbol[f.name] for f in site["cond_indep_stack"] if f.vectorized
        )
        factor = packed.scale_and_mask(own["unscaled_log_prob"], mask=own["mask"])
        factors.setdefault(ordinal, []).append(factor)
        if not site["is_observed"]:
            of_latent.setdefault(ordinal, []).append(factor)
        names.add(site["name"])

    def contract(factors: Any) -> Tensor:  # noqa: ANN401
        total = members.zero
        for ordinal, several in contract_tensor_tree(OrderedDict(factors), symbols).items():
            stack = [plates[symbol] for symbol in ordinal]
            for factor in several:
                value = packed.unpack(factor, p.symbol_to_dim)
                total = total + members.term(value, stack)
        return total

    others = names - {site["name"] for site in enumerated.values()}
    moved = any(latent(p.nodes[name]) for name in others)
    return contract(factors), contract(of_latent) if moved else members.zero, names


def _check_whole(site: Any, enumerated: Mapping[str, Any], symbols: set[str]) -> None:  # noqa: ANN401
    """Raise where a state is summed out of a product of which some factors are missing."""
    for frame in site["cond_indep_stack"]:
        if frame.full_size == frame.size:
            continue
        for symbol in symbols & enumerated.keys():
            outer = enumerated[symbol]
            if all(f.name != frame.name for f in outer["cond_indep_stack"]):
                raise ValueError(
                    f"{outer['name']!r} is summed out and stands outside the plate {frame.name!r}, "
                    f"of whose {frame.full_size} members {frame.size} are given: the log of its "
                    f"sum needs all of them, so pass all data, or draw {outer['name']!r} in the "
                    "guide"
                )


def _scored(site: Any) -> bool:  # noqa: ANN401
    return not site_is_subsample(site)


def _data(site: Any) -> bool:  # noqa: ANN401
    """Whether an observed site holds data: no factor, no deterministic value."""
    return (
        isinstance(site["value"], Tensor)
        and "Unit" not in type(site["fn"]).__name__
        and not computed(site)
    )


def predict(
    model: Callable, guide: Callable | None, x: Tensor, num_samples: int, layout: Layout
) -> tuple[Draws | None, dict[str, Tensor]]:
    """Draws of the model's sites, the observed ones too, at draws of the guide.

    Args:
        model: a Pyro model.
        guide: its guide; ``None`` draws the latent sites from the prior.
        x: of both.
        num_samples: S.
        layout: of their plates.

    Returns:
        The guide's draws, and the values of the model's sites, as :class:`Draws` has them.
    """
    if layout.why_loop:
        parts = [_predict(model, guide, x, None, layout) for _ in range(num_samples)]
        given = [z for z, _ in parts if z is not None]
        values = _join([values for _, values in parts])
        return Draws.join(given) if given else None, values
    return _predict(model, guide, x, num_samples, layout)


def _predict(
    model: Callable, guide: Callable | None, x: Tensor, draws: int | None, layout: Layout
) -> tuple[Draws | None, dict[str, Tensor]]:
    how = {"draws": draws, "nesting": layout.nesting, "full": layout.full}
    z = None if guide is None else run_once(model, guide, x, **how)
    free: Callable = Unobserved()(model)
    if z is not None:
        latents: dict[str, Any] = {n: s["value"] for n, s in z.guide.nodes.items() if latent(s)}
        free = At(latents)(free)
    run = run_once(free, lambda x: None, x, enumerate=False, **how)
    members = Members(run, layout)
    sites = [s for s in samples(run.model) if _scored(s) and not computed(s)]
    values = {s["name"]: members.values(s) for s in sites}
    return None if z is None else read(z, layout), values
