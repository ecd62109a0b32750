"""What log p(x) is a density with respect to: figures of one base measure alone compare."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...families.likelihoods import parts_of
from ...families.support import spike_of, support_bounds, support_of
from ...model.columns import by_cell
from ...model.joint import reading
from ...model.vae import VAE
from ...program.program import Program

__all__ = ["base_measure", "check_one_measure", "describe_measure"]

MASK, LABEL = "which cells are missing", "known labels"  # what log p(x) may be of beside x
TOLERANCE = 1e-5  # relative, between cells of single precision


@torch.no_grad()
def base_measure(vae: VAE | Program, x: Tensor) -> dict[str, str]:
    """By the name of an observed cell, what its likelihood gives: probabilities or densities.

    Densities on the line, on a sphere or simplex, and beside a mass at one value are densities
    with respect to different measures, and so are those of x alone and of x beside which cells are
    missing, or beside labels.

    Args:
        vae: a model.
        x: observations as its record packs them; of a program, its rows.
    """
    found = {cell: kind for cell, (kind, _) in _observed(vae, x).items()}
    if isinstance(vae, Program):
        return found
    if vae.missingness is not None:
        found[MASK] = "probabilities"
    if vae.record.has("label") and (y := vae.record.part(x, "label")) is not None and y.any():
        found[LABEL] = "probabilities"
    return found


def describe_measure(measure: Mapping[str, str]) -> str:
    """A base measure in a few words: ``densities``, or of each cell where they differ."""
    if len(kinds := set(measure.values())) == 1 and not {MASK, LABEL} & measure.keys():
        return kinds.pop()
    return ", ".join(f"{kind} of {name}" for name, kind in measure.items())


def check_one_measure(models: Mapping[str, VAE | Program], data: Mapping[str, Tensor]) -> None:
    """Raise unless all models say log p(x) of the same cells in the same units.

    Args:
        models: by name.
        data: the same observations as the record of each packs them.

    Raises:
        ValueError: with the first cell, and row, in which two models differ.
    """
    first, *others = models
    counts = {name: vae.count(data[name]) for name, vae in models.items()}
    for name in others:
        if counts[name] != counts[first]:
            raise ValueError(
                f"{first} has {counts[first]} observations, {name} {counts[name]}: compare models "
                "of the same data"
            )
    one, cells = base_measure(models[first], data[first]), _observed(models[first], data[first])
    for name in others:
        other, mine = base_measure(models[name], data[name]), _observed(models[name], data[name])
        if apart := one.keys() ^ other.keys():
            which = min(apart)
            who, lacks = (first, name) if which in one else (name, first)
            raise ValueError(
                f"{who} gives log p of {which!r} too, and {lacks} does not: compare models of the "
                "same cells of x"
            )
        for cell, kind in one.items():
            if kind != other[cell]:
                where = f"cell {cell}" if cell.isdecimal() else repr(cell)
                raise ValueError(
                    f"{first} gives {kind} of {where}, {name} {other[cell]}: no common unit, so "
                    "compare models whose likelihoods of it are of one kind"
                )
        for cell, (_, values) in cells.items():
            own = mine[cell][1]
            same = torch.isclose(values, own, rtol=TOLERANCE, atol=0.0, equal_nan=True)
            if not same.all():
                row = int((~same).nonzero()[0])
                raise ValueError(
                    f"{first} reads {cell!r} as {values[row]:g} in row {row}, {name} as "
                    f"{own[row]:g}: densities in different units do not compare, so give "
                    "models the same data"
                )


def _observed(vae: VAE | Program, x: Tensor) -> dict[str, tuple[str, Tensor]]:
    """By name the base measure and the values of each observed cell; numbers where none has one.

    Of numbers of categories the values are only which are there.
    """
    if isinstance(vae, Program):
        found, nodes = {}, dict(vae.example.model.nodes)
        for site, value in vae.drawn.observed.items():
            part: Any = nodes[site]
            columns = value.reshape(vae.layout.size, -1).float().cpu().unbind(1)
            for i, column in enumerate(columns):
                name = str(i) if len(vae.drawn.observed) == 1 else f"{site}[{i}]"
                found[name] = _measure(part["fn"]), column
        return found
    with reading(vae, 0):
        p = vae.decode(vae.prior_at(x[:1]).expand([1]).sample(), x[:1])
        own = [_measure(part) for part in parts_of(p)]
        kinds = [own[k] for k in by_cell(p, lambda part: own.index(_measure(part))).tolist()]
    names = vae.record.columns or tuple(map(str, range(math.prod(vae.x_shape))))
    schema = getattr(vae.record, "schema", None)
    coded = set() if schema is None else {c.name for c in schema.modelled if c.has_codes}
    columns = vae.record.cells(x).flatten(1).float().cpu().unbind(1)
    return {
        name: (kind, 0 * column if name in coded else column)
        for name, kind, column in zip(names, kinds, columns, strict=True)
    }


def _measure(part: torch.distributions.Distribution) -> str:
    """Of one likelihood, what its density is with respect to."""
    support = support_of(part)
    if support is None:
        return "densities of a support that is not known"
    kind, *_ = support_bounds(support)
    if support.is_discrete:
        return "probabilities"
    if (atom := spike_of(support)) is not None:
        return f"densities beside a mass at {atom:g}"
    return "densities" if kind == "continuous" else f"densities on a {kind}"
