"""What log p(x) is a density with respect to: figures of one base measure alone compare."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...distributions import SpikeAndSlab, SpikeOr, support_of_cell
from ...families.likelihoods import parts_of
from ...families.support import innermost, support_bounds, support_of
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
    if isinstance(vae, Program):
        nodes: dict[str, Any] = dict(vae.example.model.nodes)
        return {
            cell: kind
            for name, names in _names_by_site(vae).items()
            for kind in [_measure(nodes[name]["fn"])]
            for cell in names
        }
    with reading(vae, 0):
        p = vae.decode(vae.prior_at(x[:1]).expand([1]).sample(), x[:1])
        parts = [(_measure(part), math.prod(part.event_shape)) for part in parts_of(p)]
    names = _names(vae)
    kinds = [kind for kind, size in parts for _ in range(size)]
    found = dict(zip(names, kinds, strict=True))
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
    one, cells = base_measure(models[first], data[first]), _cells(models[first], data[first])
    for name in others:
        other, mine = base_measure(models[name], data[name]), _cells(models[name], data[name])
        if apart := one.keys() ^ other.keys():
            which = min(apart)
            who, lacks = (first, name) if which in one else (name, first)
            raise ValueError(
                f"{who} gives log p of {which!r} too, and {lacks} does not: compare models of the "
                "same cells of x"
            )
        for cell, kind in one.items():
            if kind != other[cell]:
                raise ValueError(
                    f"{first} gives {kind} of {cell!r}, {name} {other[cell]}: no common unit, so "
                    "compare models whose likelihoods of it are of one kind"
                )
        for cell, values in cells.items():
            same = torch.isclose(values, mine[cell], rtol=TOLERANCE, atol=0.0, equal_nan=True)
            if not same.all():
                row = int((~same).nonzero()[0])
                raise ValueError(
                    f"{first} reads {cell!r} as {values[row]:g} in row {row}, {name} as "
                    f"{mine[cell][row]:g}: densities in different units do not compare, so give "
                    "models the same data"
                )


def _names(vae: VAE) -> tuple[str, ...]:
    """Of the observed cells, in the order in which they are packed."""
    return vae.record.columns or tuple(map(str, range(math.prod(vae.x_shape))))


def _names_by_site(program: Program) -> dict[str, list[str]]:
    """Of the cells of an observation, by observed site; numbers where there is one site."""
    found, one = {}, len(program.drawn.observed) == 1
    for name, value in program.drawn.observed.items():
        size = value.numel() // program.layout.size
        found[name] = [str(i) if one else f"{name}[{i}]" for i in range(size)]
    return found


def _cells(vae: VAE | Program, x: Tensor) -> dict[str, Tensor]:
    """The observed cells by name; of numbers of categories only which are there."""
    if isinstance(vae, Program):
        found = {}
        for name, names in _names_by_site(vae).items():
            values = vae.drawn.observed[name].reshape(vae.layout.size, -1).float().cpu()
            found |= dict(zip(names, values.unbind(1), strict=True))
        return found
    flat = vae.record.cells(x).flatten(1).float().cpu()
    schema = getattr(vae.record, "schema", None)
    coded = set() if schema is None else {c.name for c in schema.modelled if c.has_codes}
    columns = zip(_names(vae), flat.unbind(1), strict=True)
    return {name: 0 * values if name in coded else values for name, values in columns}


def _measure(part: torch.distributions.Distribution) -> str:
    """Of one likelihood, what its density is with respect to."""
    cell, support = innermost(part), support_of(part)  # pyright: ignore[reportArgumentType]
    if support is None:
        return "densities of a support that is not known"
    kind, *_ = support_bounds(support)
    if support.is_discrete:
        return "probabilities"
    of_cell = support_of_cell(support)
    spike = of_cell.member if isinstance(of_cell, SpikeOr) else None
    atom = 0.0 if isinstance(cell, SpikeAndSlab) else spike
    if atom is not None:
        return f"densities beside a mass at {atom:g}"
    return "densities" if kind == "continuous" else f"densities on a {kind}"
