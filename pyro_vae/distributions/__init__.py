"""The few distributions that Pyro lacks; their names are families, as Pyro's own are."""

from .learned import AutoregressiveBits, Pushforward, ResampledDistribution
from .normal_mixture import NormalMixture, mixture
from .sparse import Delta, Horseshoe, SpikeAndSlab
from .sphere import ImplicitVonMises, VonMisesFisher, bessel
from .transforms import Interval, Sticks

__all__ = [
    "AutoregressiveBits", "Delta", "Horseshoe", "ImplicitVonMises", "Interval", "NormalMixture",
    "Pushforward", "ResampledDistribution", "SpikeAndSlab", "Sticks", "VonMisesFisher", "bessel",
    "mixture",
]  # fmt: skip
