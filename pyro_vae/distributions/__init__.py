"""The few distributions that Pyro lacks; their names are families, as Pyro's own are."""

from .continuous_bernoulli import ContinuousBernoulli
from .joined import Joined, JoinedSupport
from .layered import Given, Layered, side_by_side
from .learned import AutoregressiveBits, Pushforward, ResampledDistribution
from .normal_mixture import NormalMixture, SideBySide, mixture
from .sparse import Delta, Horseshoe, SpikeAndSlab
from .sphere import ImplicitVonMises, VonMises, VonMisesFisher, bessel
from .spike import WithSpike
from .transforms import Interval, Positive, PositiveCholesky, Sticks

__all__ = [
    "AutoregressiveBits",
    "ContinuousBernoulli",
    "Delta",
    "Given",
    "Horseshoe",
    "ImplicitVonMises",
    "Interval",
    "Joined",
    "JoinedSupport",
    "Layered",
    "NormalMixture",
    "Positive",
    "PositiveCholesky",
    "Pushforward",
    "ResampledDistribution",
    "SideBySide",
    "SpikeAndSlab",
    "Sticks",
    "VonMises",
    "VonMisesFisher",
    "WithSpike",
    "bessel",
    "mixture",
    "side_by_side",
]
