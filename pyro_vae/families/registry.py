"""The structures that a line may name, and the function that makes a part from a line."""

from dataclasses import replace

from torch import nn

from ..language.spec import as_spec
from .cells import Censored, Hurdle, OptimalNormal
from .dequantized import Dequantized
from .discretized import DiscretizedLogistic
from .family import Family
from .flows import Flow
from .guides import DeltaNormal, SemiAmortized
from .hamiltonian import Hamiltonian, Langevin
from .layers import BottomUp, Hierarchy, Ladder, LayeredPart, TopDown
from .mixed import LinearMixed
from .mixtures import Mixture, Transformed
from .names import family_names
from .part import Ends, Line, Registry, Role
from .priors import AutoregressiveBernoulli, Resampled, VampPrior
from .processes import GaussianProcess
from .visits import Conjugate

__all__ = ["REGISTRY", "make_layers", "make_part"]

REGISTRY = Registry(
    Family,
    family_names,
    (
        AutoregressiveBernoulli,
        BottomUp,
        Censored,
        Conjugate,
        DeltaNormal,
        Dequantized,
        DiscretizedLogistic,
        Flow,
        GaussianProcess,
        Hamiltonian,
        Hierarchy,
        Hurdle,
        Ladder,
        Langevin,
        LinearMixed,
        Mixture,
        OptimalNormal,
        Resampled,
        SemiAmortized,
        TopDown,
        Transformed,
        VampPrior,
    ),
)


def make_part(value: Line, ends: Ends) -> nn.Module:
    """A module ``forward(features | None) -> distribution`` from a line, a spec or a module.

    Args:
        value: a line, a spec, or a module; one that is no :class:`Part` is taken as it is.
        ends: what surrounds it.

    Raises:
        SpecError: a line that cannot be read or served.

    >>> import torch
    >>> make_part("Mixture(Normal, components=3)", Ends((4,), "likelihood", (10,)))(
    ...     torch.zeros(2, 10)
    ... ).batch_shape
    torch.Size([2])
    """
    return REGISTRY.make(value, ends)


def make_layers(prior: Line, guide: Line, ends: Ends, decoder: nn.Module) -> list[nn.Module]:
    """Prior and guide of stochastic layers, from their lines.

    Args:
        prior: a line such as ``"Hierarchy([Normal, Laplace])"``; another is of the top layer.
        guide: ``"BottomUp(...)"``, ``"TopDown(...)"``, ``"Ladder"``; another is each layer's of a
            :class:`BottomUp`.
        ends: of the guide; ``network`` is the encoder.
        decoder: the network that those of the prior are like.
    """
    q, p = _layered(guide, "guide"), _layered(prior, "prior")
    prior_ends = replace(ends, role="prior", feature_shape=None, network=decoder, partner=q)
    p = REGISTRY.make(p, prior_ends)
    return [p, REGISTRY.make(q, replace(ends, partner=p))]


def _layered(line: Line, role: Role) -> LayeredPart:
    """A part of stochastic layers as the line says it, or of one plain line."""
    if not isinstance(line, nn.Module):
        spec = as_spec(line)
        if issubclass(REGISTRY.structures.get(spec.name, Family), LayeredPart):
            line = REGISTRY.construct(spec, role)
    if isinstance(line, LayeredPart):
        return line
    return Hierarchy(line) if role == "prior" else BottomUp(line)
