"""The few distributions that Pyro lacks; their names are families, as Pyro's own are."""

from .joined import Joined, JoinedSupport
from .layered import Given, Layered, side_by_side
from .learned import AutoregressiveBits, Pushforward, ResampledDistribution
from .normal_mixture import NormalMixture, SideBySide, mixture
from .sparse import Delta, Horseshoe, SpikeAndSlab
from .sphere import ImplicitVonMises, VonMisesFisher, bessel
from .spike import WithSpike
from .transforms import Interval, Positive, PositiveCholesky, Sticks

__all__ = [
    "AutoregressiveBits",
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
    "VonMisesFisher",
    "WithSpike",
    "bessel",
    "mixture",
    "side_by_side",
]
