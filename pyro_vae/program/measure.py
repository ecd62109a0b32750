"""What a program is found to be by running it a few times: its plates, its sites, its rows."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.distributions import biject_to

from ..core.layout import Layout
from ..infer.draws import Traces, read
from ..infer.sites import family_name, latent, samples, scored_cells

__all__ = [
    "MASK",
    "check_draws",
    "check_sites",
    "is_cut",
    "measure",
    "points",
    "raw_values",
    "why_one_by_one",
]

MASK = (
    "leave obs_mask= out, and observe all under poutine.mask(mask=obs_mask), a value in the place "
    "of what is missing; or draw the site in the guide under the mask of the model's, for figures "
    "by the guide's own draws"
)
TRIED = 3  # draws of the trial that compares one run of many with runs of one
DIGITS: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}  # of float32, summed in another order


def check_sites(traces: Traces) -> None:
    """Raise if the guide's sites are not the model's latent sites.

    Raises:
        ValueError: auxiliary sites whose density is no part of q(z), sites that only one has, or
            draws that are no numbers.
    """
    q: dict[str, Any] = dict(traces.guide.nodes)
    p: dict[str, Any] = dict(traces.model.nodes)
    extra = [n for n, s in q.items() if latent(s) and n not in p]
    auxiliary = [n for n in extra if q[n]["infer"].get("is_auxiliary")]
    if lonely := [n for n in extra if n not in auxiliary]:
        raise ValueError(
            f"the guide draws {_quoted(lonely)}, which the model does not: name the guide's sites "
            "as the model's"
        )
    for name in filter(lambda n: n in q and latent(p[n]), p):
        scored = scored_cells(p[name])
        if not (scored.all() and scored_cells(q[name]).all()) and not torch.equal(
            scored, scored_cells(q[name])
        ):
            raise ValueError(
                f"model and guide mask other cells of {name!r}, so that one gives them a density "
                f"and the other none: {MASK}"
            )
    numbers = sum(q[n]["value"].numel() for n in auxiliary)
    if auxiliary and numbers != _determined(traces):
        raise ValueError(
            f"the guide has the auxiliary sites {_quoted(auxiliary)}, so its density is "
            "q(z, u), and q(z) is not known: draw z from its own distribution, or give the model "
            "a density of u"
        )
    for site in filter(latent, samples(traces.guide)):
        if not site["value"].isfinite().all():
            raise ValueError(
                f"the guide draws {site['value'].flatten()[0].item()} at {site['name']!r}: give "
                "its parameters finite values; a guide of Pyro's that starts at the prior's mean, "
                "where that is infinite, takes init_loc_fn=init_to_median"
            )
    missing = [
        n
        for n, s in p.items()
        if latent(s) and n not in q and s["infer"].get("_enumerate_dim") is None
    ]
    if not any(s["is_observed"] for s in samples(traces.model)):
        raise ValueError(
            "the model observes nothing: give a site its data, obs=..., and the program its "
            "arguments, Program(model, guide, x, y), the model before the guide"
        )
    if missing:
        raise ValueError(
            f"the guide does not draw {_quoted(missing)} of the model: draw it there, or mark it "
            "infer={'enumerate': 'parallel'} in the model, which sums a discrete site out"
        )


@torch.no_grad()
def check_draws(model: Callable, guide: Callable, x: Tensor) -> None:
    """Say what the guide draws that the model cannot take, of a program that does not run.

    Raises:
        ValueError: a site of another shape, or outside the support that it has in the model.
    """
    with poutine.block():
        q: Any = poutine.trace(guide).get_trace(x).nodes
        p: Any = poutine.trace(model).get_trace(x).nodes
    for name, own in p.items():
        if not (latent(own) and name in q and latent(q[name])):
            continue
        drawn, fn, shape = q[name]["value"], own["fn"], own["value"].shape
        if drawn.shape != shape:
            raise ValueError(
                f"the guide draws {name!r} of shape {tuple(drawn.shape)}, and the model has "
                f"{tuple(shape)}: give the guide's site the shape of the model's"
            )
        if not fn.support.check(drawn).all():
            raise ValueError(
                f"the guide draws {name!r} from {family_name(q[name]['fn'])}, outside the support "
                f"of the model's {family_name(fn)}: take a family with its support, or a "
                "TransformedDistribution"
            )


def points(traces: Traces) -> list[str]:
    """Sites that the guide sets to a point: they have no density."""
    q: dict[str, Any] = dict(traces.guide.nodes)
    if any(latent(s) and s["infer"].get("is_auxiliary") for s in q.values()):
        return []
    return [n for n, s in q.items() if latent(s) and family_name(s["fn"]) == "Delta"]


def measure(run: Callable[..., Traces], traces: Traces, data: str | None) -> Layout:
    """The layout of a program, from a first run and those that ``run`` makes.

    Args:
        run: makes a run, as :func:`run_once` does, at the program's own arguments.
        traces: of the first.
        data: the name of the plate over observations.

    Raises:
        ValueError: there is no such plate.
    """
    plates = traces.plates
    if data is not None and not (data in plates and plates[data].vectorized):
        known = [name for name, f in plates.items() if f.vectorized]
        serial = " (it is a sequential one)" if data in plates else ""
        names = f"data={known[0]!r}, or " if known else ""
        raise ValueError(
            f"the model has no plate {data!r} of observations{serial}; its plates are "
            f"{_quoted(known) or 'none'}. Say {names}data=None for one evidence of all"
        )
    full = any(f.full_size != f.size for f in plates.values())
    nesting = traces.nesting
    if full:
        try:
            complete = run(nesting=nesting, full=True)
            complete.model.compute_log_prob()
            traces = complete
        except (RuntimeError, ValueError, IndexError):
            full = False  # the arguments are those of a subsample
    plates = traces.plates
    sites = [s for s in (*samples(traces.model), *samples(traces.guide)) if latent(s)]
    apart = [s for s in sites if all(f.name != data for f in s["cond_indep_stack"])]
    return Layout(
        data,
        plates[data].full_size if data else 1,
        nesting,
        full=full,
        shared=tuple(dict.fromkeys(s["name"] for s in apart)) if data else (),
        partial=tuple(n for n, f in plates.items() if f.full_size != f.size),
        marginal=any(s["infer"].get("_enumerate_dim") is not None for s in samples(traces.model)),
    )


@torch.no_grad()
def why_one_by_one(run: Callable[..., Traces], layout: Layout) -> str:
    """Why draws must be made one by one; empty where one run of many gives what runs of one do."""
    one = run(**layout.how)
    try:
        many = run(draws=TRIED, **layout.how)
        together = read(many, layout)
        for i in range(TRIED):
            alone = read(run(at=raw_values(many, i, one), **layout.how), layout)
            for name in ("log_joint", "log_guide"):
                a, b = getattr(together, name)[i], getattr(alone, name)[0]
                if a.shape != b.shape or not torch.allclose(a, b, equal_nan=True, **DIGITS):
                    return f"in one run of many draws the program has another {name}"
    except Exception as problem:  # whatever a user's program raises
        return f"{type(problem).__name__}: {str(problem).splitlines()[0][:120]}"
    return ""


def is_cut(
    whole: Callable[..., Traces], cut: Callable[[Tensor], Callable[..., Traces]], layout: Layout
) -> bool:
    """Whether some rows of the arguments give the densities that their members have among all.

    More rows than there are must run too: a parameter for each member is of no other rows.

    Args:
        whole: runs at all rows.
        cut: what runs at given rows.
        layout: of the plates.
    """
    every = torch.arange(layout.size)
    parts = every.flip(0)[: min(2, layout.size - 1)], torch.cat([every, every[:1]])
    return all(_agrees(whole, cut(rows), layout, rows) for rows in parts)


@torch.no_grad()
def _agrees(
    whole: Callable[..., Traces], cut: Callable[..., Traces], layout: Layout, rows: Tensor
) -> bool:
    if layout.partial:
        return False
    every = whole(**layout.how)
    try:
        values = {}
        for site in samples(every.guide):
            if latent(site):
                value, frames = site["value"], site["cond_indep_stack"]
                dims = [f.dim for f in frames if f.name == layout.data]
                if dims:
                    value = value.index_select(dims[0] - site["fn"].event_dim, rows)
                values[site["name"]] = value
        part = cut(at=values, **layout.how)
        a, b = read(every, layout).log_weight[:, rows], read(part, layout).log_weight
        drawn = cut(**layout.how)
        sizes = {run.plates[str(layout.data)].size for run in (part, drawn)}
        return sizes == {len(rows)} and a.shape == b.shape and torch.allclose(a, b, **DIGITS)
    except Exception:  # whatever a user's program raises at fewer rows
        return False


def raw_values(traces: Traces, i: int, like: Traces) -> dict[str, Tensor]:
    """Values of the i-th of many draws, as a run of one has them."""
    values = {}
    for site in samples(traces.guide):
        if latent(site):
            node: Any = like.guide.nodes[site["name"]]
            value, one = site["value"], node["value"]
            if value.ndim > one.ndim or value.numel() == TRIED * one.numel():
                value = value[i]
            values[site["name"]] = value.reshape(one.shape)
    return values


def _determined(traces: Traces) -> int:
    """The real numbers behind the sites of the guide that are functions of its auxiliary ones."""
    total = 0
    for name, site in traces.guide.nodes.items():
        if latent(site) and name in traces.model.nodes and family_name(site["fn"]) == "Delta":
            prior: Any = traces.model.nodes[name]["fn"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                total += biject_to(prior.support).inv(site["value"]).numel()
    return total


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names))
