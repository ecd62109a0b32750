"""The names of families: the distributions that a line can say."""

import inspect
from functools import cache

import pyro.distributions as dist
from torch.distributions import Distribution

from .. import distributions
from ..language.spec import Spec, nearest

__all__ = ["family_names", "find_distribution"]

# Required arguments of Pyro's that are numbers, though no parameters with a constraint.
PLAIN = ("self", "temperature", "low", "high", "df", "dim")
UNDRAWN = {"LogNormalNegativeBinomial"}  # Pyro has no sampler of it
# What no line can say: its arguments have sizes of their own, or a draw is no data and no z.
UNSAID = {
    **dict.fromkeys(("AVFMultivariateNormal", "OMTMultivariateNormal"), "'MultivariateNormal'"),
    "LKJCorrCholesky": "'LKJCholesky(concentration=1)'",
    "LogisticNormal": "'Transformed(Normal, StickBreakingTransform)'",
    "MixtureOfDiagNormals": (mixture := "'Mixture(Normal, components=3)'"),
    "MixtureOfDiagNormalsSharedCovariance": mixture,
}
OTHERS = "CoalescentTimes CoalescentTimesWithRate ExponentialFamily GaussianScaleMixture LKJ Unit"
OTHERS += " GroupedNormalNormal OneOneMatching OneTwoMatching SpanningTree VonMises3D"
OTHERS += " TorchDistribution"
MODULE = "a torch.nn.Module whose forward returns the distribution"  # in the place of the others
UNSAID |= dict.fromkeys(OTHERS.split(), MODULE)


def find_distribution(spec: Spec) -> type[dist.TorchDistribution]:
    """The class of a distribution, by the spec's name."""
    cls = getattr(distributions, spec.name, None) or getattr(dist, spec.name, None)
    if isinstance(cls, type) and issubclass(cls, Distribution):
        if instead := UNSAID.get(spec.name):
            raise spec.error(f"{spec.name} is said by no line: give {instead}")
        if _other_arguments(cls):
            raise spec.error(f"{spec.name} is made of distributions, not of parameters")
        return cls  # pyrefly: ignore[bad-return]
    meant = nearest(spec.name, family_names()) or "; pyro_vae.families() lists them"
    raise spec.error(f"unknown family {spec.name!r}{meant}")


def family_names() -> set[str]:
    """The names of the distributions of Pyro and of this package that parameters make."""
    rooms = {**vars(dist), **vars(distributions)}
    classes = {
        n: c for n, c in rooms.items() if isinstance(c, type) and issubclass(c, Distribution)
    }
    return (
        {name for name, cls in classes.items() if not _other_arguments(cls)}
        - UNDRAWN
        - UNSAID.keys()
    )


@cache
def _other_arguments(cls: type[Distribution]) -> frozenset[str]:
    """The required arguments of a distribution that are neither parameters nor numbers."""
    table = getattr(cls, "arg_constraints", None)
    known = {*(table if isinstance(table, dict) else ()), *PLAIN}
    parameters = inspect.signature(cls.__init__).parameters.values()
    named = (p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return frozenset(p.name for p in named if p.default is p.empty) - known
