"""Tables of families' lines: what their data look like, and the class that Pyro must see."""

import torch
from torch import nn


def normal(*shape):
    return torch.randn(*shape)


def counts(*shape):
    return torch.poisson(torch.full(shape, 3.0))


def positive(*shape):
    return torch.rand(*shape) * 3 + 0.1


def unit(*shape):
    return torch.rand(*shape) * 0.9 + 0.05


def bits(*shape):
    return torch.rand(*shape).lt(0.4).float()


def simplex(*shape):
    return torch.rand(*shape).add(0.1).log().softmax(-1)


def one_hot(*shape):
    return torch.eye(shape[-1])[torch.randint(shape[-1], shape[:-1])]


def sphere(*shape):
    return nn.functional.normalize(torch.randn(*shape), dim=-1)


# The line, what its data look like, and the class that Pyro must see.
LIKELIHOODS = {
    "Normal": (normal, "Normal"),
    "Normal(scale=learned)": (normal, "Normal"),
    "Normal(scale=0.3)": (normal, "Normal"),
    "StudentT(df=4, scale=learned)": (normal, "StudentT"),
    "StudentT(df=learned(5.0))": (normal, "StudentT"),
    "Laplace": (normal, "Laplace"),
    "Cauchy": (normal, "Cauchy"),
    "Logistic": (normal, "Logistic"),
    "Gumbel": (normal, "Gumbel"),
    "SkewLogistic": (normal, "SkewLogistic"),
    "SoftLaplace": (normal, "SoftLaplace"),
    "AsymmetricLaplace": (normal, "AsymmetricLaplace"),
    "MultivariateNormal": (normal, "MultivariateNormal"),
    "MultivariateNormal(scale_tril=learned)": (normal, "MultivariateNormal"),
    "LowRankMultivariateNormal(rank=2)": (normal, "LowRankMultivariateNormal"),
    "MultivariateStudentT(df=5)": (normal, "MultivariateStudentT"),
    "Bernoulli": (bits, "Bernoulli"),
    "Bernoulli(probs=amortized)": (bits, "Bernoulli"),
    "ContinuousBernoulli": (unit, "ContinuousBernoulli"),
    "Beta": (unit, "Beta"),
    "Kumaraswamy": (unit, "Kumaraswamy"),
    "Gamma": (positive, "Gamma"),
    "Gamma(concentration=learned)": (positive, "Gamma"),
    "LogNormal": (positive, "LogNormal"),
    "Weibull": (positive, "Weibull"),
    "InverseGamma": (positive, "InverseGamma"),
    "Exponential": (positive, "Exponential"),
    "HalfNormal": (positive, "HalfNormal"),
    "HalfCauchy": (positive, "HalfCauchy"),
    "Poisson": (counts, "Poisson"),
    "Geometric": (counts, "Geometric"),
    "NegativeBinomial(total_count=learned)": (counts, "NegativeBinomial"),
    "GammaPoisson": (counts, "GammaPoisson"),
    "ZeroInflatedPoisson": (counts, "ZeroInflatedPoisson"),
    "ZeroInflatedNegativeBinomial": (counts, "ZeroInflatedNegativeBinomial"),
    "Binomial(total_count=16)": (lambda *s: counts(*s).clamp(max=16), "Binomial"),
    "BetaBinomial(total_count=16)": (lambda *s: counts(*s).clamp(max=16), "BetaBinomial"),
    "Categorical(categories=3)": (lambda *s: torch.randint(3, s).float(), "Categorical"),
    "OrderedLogistic(categories=3, cutpoints=learned)": (
        lambda *s: torch.randint(3, s).float(),
        "OrderedLogistic",
    ),
    "OneHotCategorical": (one_hot, "OneHotCategorical"),
    "Multinomial(total_count=1)": (one_hot, "Multinomial"),
    "Dirichlet": (simplex, "Dirichlet"),
    "DirichletMultinomial(total_count=1)": (one_hot, "DirichletMultinomial"),
    "VonMises": (lambda *s: torch.rand(*s) * 6 - 3, "VonMises"),
    "ProjectedNormal": (sphere, "ProjectedNormal"),
}
# The guide, a prior with its support, and the class that Pyro must see.
GUIDES = {
    "Normal": ("Normal", "Normal"),
    "Normal(scale=learned)": ("Normal", "Normal"),
    "Laplace": ("Normal", "Laplace"),
    "StudentT(df=5)": ("Normal", "StudentT"),
    "Logistic": ("Normal", "Logistic"),
    "Gumbel": ("Normal", "Gumbel"),
    "SoftLaplace": ("Laplace", "SoftLaplace"),
    "SkewLogistic": ("Logistic", "SkewLogistic"),
    "MultivariateNormal": ("Normal", "MultivariateNormal"),
    "LowRankMultivariateNormal(rank=1)": ("Normal", "LowRankMultivariateNormal"),
    "LogNormal": ("Gamma", "LogNormal"),
    "Gamma": ("Gamma(concentration=2)", "Gamma"),
    "Weibull": ("Exponential", "Weibull"),
    "Exponential": ("Exponential", "Exponential"),
    "HalfNormal": ("HalfNormal", "HalfNormal"),
    "Beta": ("Beta", "Beta"),
    "Kumaraswamy": ("Uniform", "Kumaraswamy"),
    "Dirichlet": ("Dirichlet", "Dirichlet"),
    "VonMises": ("VonMises", "VonMises"),
    "ProjectedNormal": ("ProjectedNormal", "ProjectedNormal"),
    "VonMisesFisher": ("ProjectedNormal", "VonMisesFisher"),
    "SpikeAndSlab": ("SpikeAndSlab(logits=learned, scale=learned)", "SpikeAndSlab"),
    "Delta": ("Normal", "Delta"),
    "Mixture(Normal, components=2)": ("Normal", "NormalMixture"),
    "Mixture(StudentT(df=4), components=2)": ("Normal", "MixtureSameFamily"),
    "Transformed(Normal, SoftplusTransform)": ("Gamma", "TransformedDistribution"),
    "Transformed(Normal, SigmoidTransform)": ("Beta", "TransformedDistribution"),
    "Transformed(Normal, StickBreakingTransform)": ("Dirichlet", "TransformedDistribution"),
    "Transformed(Kumaraswamy, Sticks)": ("Dirichlet", "TransformedDistribution"),
    "Flow(IAF)": ("Normal", "Pushforward"),
    "Flow(NSF, passes=2, hidden_features=[16])": ("Normal", "Pushforward"),
    "Flow(RealNVP)": ("Laplace", "Pushforward"),
    "RelaxedBernoulli(temperature=0.5)": ("Beta", "RelaxedBernoulli"),
    "Bernoulli": ("Bernoulli", "Bernoulli"),
    "OneHotCategorical": ("OneHotCategorical", "OneHotCategorical"),
    "Poisson": ("Poisson", "Poisson"),
    "Geometric": ("Geometric", "Geometric"),
}
# The prior, a guide with its support, and the class that Pyro must see.
PRIORS = {
    "Normal(loc=learned, scale=learned)": ("Normal", "Normal"),
    "Laplace(scale=learned)": ("Laplace", "Laplace"),
    "StudentT(df=4)": ("Normal", "StudentT"),
    "Cauchy(scale=learned)": ("Normal", "Cauchy"),
    "Logistic": ("Normal", "Logistic"),
    "Gumbel(loc=learned)": ("Normal", "Gumbel"),
    "MultivariateNormal(scale_tril=learned)": ("Normal", "MultivariateNormal"),
    "Uniform(low=-0.0, high=1)": ("Beta", "Uniform"),
    "LogNormal(loc=learned)": ("LogNormal", "LogNormal"),
    "Gamma(concentration=learned)": ("Gamma", "Gamma"),
    "Exponential(rate=learned)": ("Gamma", "Exponential"),
    "HalfCauchy": ("LogNormal", "HalfCauchy"),
    "Beta(concentration1=learned)": ("Beta", "Beta"),
    "Dirichlet(concentration=0.5)": ("Dirichlet", "Dirichlet"),
    "VonMises(concentration=learned)": ("VonMises", "VonMises"),
    "Bernoulli(logits=learned)": ("Bernoulli", "Bernoulli"),
    "OneHotCategorical(logits=learned)": ("OneHotCategorical", "OneHotCategorical"),
    "Poisson(rate=learned)": ("Poisson", "Poisson"),
    "VonMisesFisher": ("VonMisesFisher", "VonMisesFisher"),
    "SpikeAndSlab(logits=learned)": ("SpikeAndSlab", "SpikeAndSlab"),
    "Horseshoe(scale=learned)": ("Normal", "Horseshoe"),
    "Mixture(Normal(loc=learned, scale=learned), components=10)": ("Normal", "NormalMixture"),
    "Mixture(Bernoulli(logits=learned), components=3, logits=learned)": (
        "Bernoulli",
        "MixtureSameFamily",
    ),
    "VampPrior(components=5, start=random)": ("Normal", "NormalMixture"),
    "VampPrior(components=5, logits=learned)": ("Beta", "MixtureSameFamily"),
    "Flow(NSF, transforms=2)": ("Normal", "Pushforward"),
    "Flow(NCSF, transforms=1)": ("VonMises", "Pushforward"),
    "Resampled(Normal, hidden=[20])": ("Normal", "ResampledDistribution"),
    "Resampled(Laplace(scale=learned))": ("Normal", "ResampledDistribution"),
    "AutoregressiveBernoulli": ("Bernoulli", "AutoregressiveBits"),
    "AutoregressiveBernoulli([16])": ("Bernoulli", "AutoregressiveBits"),
    "Transformed(Normal(loc=learned), StickBreakingTransform)": (
        "Dirichlet",
        "TransformedDistribution",
    ),
    "Transformed(Beta(concentration0=learned), Sticks)": (
        "Transformed(Kumaraswamy, Sticks)",
        "TransformedDistribution",
    ),
}
