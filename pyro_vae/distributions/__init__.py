"""The few distributions that Pyro lacks; their names are families, as Pyro's own are."""

from .layered import Given, Layered, side_by_side
from .learned import AutoregressiveBits, Pushforward, ResampledDistribution
from .normal_mixture import NormalMixture, SideBySide, mixture
from .sparse import Delta, Horseshoe, SpikeAndSlab
from .sphere import ImplicitVonMises, VonMisesFisher, bessel
from .transforms import Interval, Sticks

__all__ = [
    "AutoregressiveBits",
    "Delta",
    "Given",
    "Horseshoe",
    "ImplicitVonMises",
    "Interval",
    "Layered",
    "NormalMixture",
    "Pushforward",
    "ResampledDistribution",
    "SideBySide",
    "SpikeAndSlab",
    "Sticks",
    "VonMisesFisher",
    "bessel",
    "mixture",
    "side_by_side",
]
