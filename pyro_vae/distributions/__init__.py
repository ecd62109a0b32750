"""The few distributions that Pyro lacks; their names are families, as Pyro's own are."""

from .continuous_bernoulli import ContinuousBernoulli
from .dequantized import DequantizedLevels
from .discrete import (
    OneHotCategorical,
    OrderedLogistic,
    ZeroInflatedDistribution,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)
from .edges import (
    Beta,
    InverseGamma,
    Kumaraswamy,
    LogNormal,
    Pareto,
    TransformedDistribution,
    Weibull,
)
from .fitted_normal import FittedNormal
from .joined import Joined, JoinedSupport, Layout
from .layered import Given, Layered, side_by_side
from .learned import AutoregressiveBits, Pushforward, ResampledDistribution
from .logistic_levels import CoupledLogisticLevels, LogisticLevels
from .multinomial import Multinomial
from .multivariate_mixture import MultivariateNormalMixture
from .normal_mixture import NormalMixture, SideBySide, mixture
from .sparse import Delta, Horseshoe, SpikeAndSlab
from .sphere import (
    ImplicitVonMises,
    SineBivariateVonMises,
    VonMises,
    VonMisesFisher,
    VonMisesMixture,
    bessel,
    direction,
)
from .spike import SpikeOr, WithSpike
from .stable import Stable, StableWithLogProb
from .supports import support_of_cell
from .survival import CensoredTime, RightCensored, log_survival
from .tails import (
    AffineBeta,
    FisherSnedecor,
    GeneralizedPareto,
    Logistic,
    SkewLogistic,
    SoftAsymmetricLaplace,
    SoftLaplace,
    StudentT,
)
from .trajectories import Trajectories
from .transforms import Interval, Ordered, Positive, PositiveCholesky, Shares, Sticks
from .wishart import Wishart

__all__ = [
    "AffineBeta",
    "AutoregressiveBits",
    "Beta",
    "CensoredTime",
    "ContinuousBernoulli",
    "CoupledLogisticLevels",
    "Delta",
    "DequantizedLevels",
    "FisherSnedecor",
    "FittedNormal",
    "GeneralizedPareto",
    "Given",
    "Horseshoe",
    "ImplicitVonMises",
    "Interval",
    "InverseGamma",
    "Joined",
    "JoinedSupport",
    "Kumaraswamy",
    "Layered",
    "Layout",
    "LogNormal",
    "Logistic",
    "LogisticLevels",
    "Multinomial",
    "MultivariateNormalMixture",
    "NormalMixture",
    "OneHotCategorical",
    "Ordered",
    "OrderedLogistic",
    "Pareto",
    "Positive",
    "PositiveCholesky",
    "Pushforward",
    "ResampledDistribution",
    "RightCensored",
    "Shares",
    "SideBySide",
    "SineBivariateVonMises",
    "SkewLogistic",
    "SoftAsymmetricLaplace",
    "SoftLaplace",
    "SpikeAndSlab",
    "SpikeOr",
    "Stable",
    "StableWithLogProb",
    "Sticks",
    "StudentT",
    "Trajectories",
    "TransformedDistribution",
    "VonMises",
    "VonMisesFisher",
    "VonMisesMixture",
    "Weibull",
    "Wishart",
    "WithSpike",
    "ZeroInflatedDistribution",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
    "bessel",
    "direction",
    "log_survival",
    "mixture",
    "side_by_side",
    "support_of_cell",
]
