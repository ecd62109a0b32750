"""Data of any scale: what the encoder reads, and likelihoods in the data's own units."""

import math
import warnings

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.distributions.transforms import AffineTransform, ExpTransform

import pyro_vae as pv
from pyro_vae import distributions
from pyro_vae.distributions import Positive, PositiveCholesky
from pyro_vae.families.units import centre_and_spread

SMALL = {"encoder": "MLP([16])", "decoder": "MLP([16])", "seed": 0}
GENERATOR = torch.Generator().manual_seed(0)
RNG = np.random.default_rng(0)
REAL = torch.randn(400, 3, generator=GENERATOR) * torch.tensor([1.0, 20.0, 300.0]) + 50
POSITIVE = (torch.randn(400, 3, generator=GENERATOR) * 0.7 + torch.arange(3)).exp()


def started(likelihood, x, **options):
    vae = pv.VAE(x.shape[1:], 2, likelihood=likelihood, **(SMALL | {"units": "data"} | options))
    vae.start_from(vae.as_data(x))
    return vae


# Units.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "x"),
    [(line, REAL) for line in (
        "Normal", "Laplace", "StudentT(df=4)", "Cauchy", "SoftLaplace", "AsymmetricLaplace",
        "SkewLogistic", "Normal(scale=learned)", "Mixture(Normal, components=3)",
        "MultivariateNormal", "LowRankMultivariateNormal(rank=2)",
        "MultivariateNormal(covariance_matrix=learned)",
        "MultivariateNormal(precision_matrix=learned)",
        "Mixture(Normal(loc=learned, scale=learned), components=4)",
    )]
    + [(line, POSITIVE) for line in (
        "LogNormal", "Gamma", "Exponential", "Weibull", "Gumbel", "InverseGamma", "HalfNormal",
        "HalfCauchy",
        "Mixture(Gamma, components=2)", "Hurdle(LogNormal)",
    )],
)  # fmt: skip
def test_millimetres_change_an_elbo_by_the_log_jacobian(likelihood, x):
    values = []
    for factor in (1.0, 1000.0):
        vae = started(likelihood, x * factor).double()
        values.append(pv.elbo(vae, (x * factor).double(), seed=0))
    expected = 3 * math.log(1000)
    if likelihood.startswith("Hurdle"):
        expected = (x != 0).sum(1) * math.log(1000)
    assert (values[0] - values[1] - expected).abs().max() < 2e-4


@pytest.mark.parametrize("line", ["Gamma", "Normal"])
def test_pseudo_inputs_are_learned_in_the_units_of_the_data(line):
    x, elbos = POSITIVE[:60], []
    for factor in (1.0, 1e-4, 1e4):
        torch.manual_seed(0)  # of the rows that they start at
        vae = started(line, x * factor, prior="VampPrior(components=5)").double()
        pv.fit(vae, x * factor, epochs=3, lr=1e-2, seed=0, compile=False, progress=False)
        elbos.append(pv.elbo(vae, x * factor, seed=0) + 3 * math.log(factor))
    assert torch.allclose(elbos[1], elbos[0]) and torch.allclose(elbos[2], elbos[0])


def test_codes_stay_codes_where_pseudo_inputs_have_units():
    data = pd.DataFrame({"a": 1e5 * POSITIVE[:50, 0].numpy(), "kind": list("abcba") * 10})
    vae = pv.VAE(pv.Table.from_frame(data), 2, prior="VampPrior(components=5)", **SMALL)
    vae.start_from(data)
    x = vae.as_data(data)
    u = vae.prior.unit(vae.prior.pseudo_inputs(None))
    assert torch.isclose(u[:, None], x, rtol=1e-4).all(-1).any(1).all()
    assert (u[:, 1] == u[:, 1].round()).all()
    old = {k: v for k, v in vae.state_dict().items() if "prior.unit" not in k}
    again = pv.VAE(pv.Table.from_frame(data), 2, prior="VampPrior(components=5)", **SMALL)
    again.load_state_dict(old)  # of a folder from before: its pseudo-inputs are as they are
    assert torch.equal(again.prior.unit(old["prior.pseudo_inputs.unconstrained"]),
                       old["prior.pseudo_inputs.unconstrained"])  # fmt: skip


@pytest.mark.slow
def test_trained_in_metres_and_in_millimetres_is_one_model():
    x = REAL * torch.tensor([1.0, 0.05, 0.003])
    elbos = []
    for factor in (1.0, 1000.0):
        vae = started("Normal", x * factor)
        pv.fit(vae, x * factor, epochs=20, lr=3e-3, seed=0, compile=False, progress=False)
        elbos.append(pv.elbo(vae, x * factor, num_samples=50, seed=0).mean().item())
    assert elbos[0] - elbos[1] == pytest.approx(3 * math.log(1000), abs=0.05)


@pytest.mark.slow
def test_likelihoods_start_at_what_the_data_say():
    counts = torch.poisson(torch.tensor([[0.5, 20.0, 3000.0]]).expand(500, 3), generator=GENERATOR)
    bits = (torch.rand(500, 3, generator=GENERATOR) < torch.tensor([0.1, 0.5, 0.9])).float()
    codes = (torch.rand(500, 1, generator=GENERATOR) ** 2 * 4).floor()
    z = torch.zeros(1, 2)
    for line in ("Poisson", "NegativeBinomial(total_count=1.0)", "Geometric"):
        vae = started(line, counts)
        ratio = vae.decode(z).mean[0] / counts.mean(0)
        assert (ratio.log().abs() < 1).all(), line
    for line, total in (("Bernoulli", 1), ("Binomial(total_count=4)", 4)):
        vae = started(line, bits * total)
        nn.init.zeros_(vae.likelihood.sources["logits"].head.weight)
        before = started(line, bits * total, units="none").likelihood.sources["logits"].head.bias
        found = vae.likelihood.sources["logits"].head.bias - before
        ones = bits.sum(0)
        assert torch.allclose(found, ((ones + 0.5) / (500.5 - ones)).log(), atol=1e-5), line
    vae = started("Categorical(categories=4)", codes)
    nn.init.zeros_(vae.likelihood.sources["logits"].head.weight)
    share = torch.tensor([(codes == k).float().mean() for k in range(4)])
    assert (vae.decode(z).base_dist.probs[0, 0] - share).abs().max() < 0.1
    vae = started("OrderedLogistic(categories=4)", codes)
    cutpoints = vae.decode(z).base_dist.cutpoints[0, 0]
    cumulative = share.cumsum(0)[:3]
    assert (cutpoints - (cumulative / (1 - cumulative)).log()).abs().max() < 1


@pytest.mark.slow
def test_components_that_all_data_share_start_as_their_margin():
    halves = (RNG.normal(0, 1, 4000), RNG.normal(4, 0.5, 4000))
    u = np.where(np.arange(4000) % 3 == 0, *halves)
    for line, x in (("Normal", 300 * u + 5e4), ("LogNormal", np.exp(u + 7))):
        data = torch.tensor(np.stack([x, 10 * x], 1)).float()
        data[::7, 0] = math.nan
        vae = started(
            f"Mixture({line}(loc=learned, scale=learned), components=20)", data, missing=True
        )
        for parameter in vae.likelihood.weights.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            drawn = vae.decode(torch.zeros(20_000, 2)).sample().numpy()
        for cell, scale in ((0, 1), (1, 10)):
            assert st.ks_2samp(drawn[:, cell], scale * x).statistic < 0.04
    line = "Mixture(Normal(loc=learned(0.5), scale=learned), components=3)"
    fixed = started(line, data, missing=True)
    assert (fixed.likelihood.family.sources["loc"].unconstrained == 0.5).all()


def test_numbers_of_the_user_stay_in_the_units_of_x():
    vae = started("Normal(scale=0.5)", REAL)
    assert (vae.decode(torch.zeros(1, 2)).base_dist.scale == 0.5).all()
    vae = started("Normal(scale=learned(0.5))", REAL)
    assert torch.allclose(vae.decode(torch.zeros(1, 2)).base_dist.scale, torch.tensor(0.5))


def test_units_are_learned_once_saved_and_loaded(tmp_path):
    vae = started("Normal", REAL)
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    vae.start_from(REAL * 7)
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
    loaded = pv.load(vae.save(tmp_path))
    assert torch.equal(pv.elbo(loaded, REAL, seed=0), pv.elbo(vae, REAL, seed=0))
    assert loaded.units == "data" and loaded.inputs.mode == "auto"


def test_units_of_images_and_sequences():
    for shape in ((1, 4, 4), (6, 2)):
        x = torch.randn(50, *shape, generator=GENERATOR) * 30 + 200
        vae = started("Normal", x)
        assert abs(vae.decode(torch.zeros(1, 2)).mean.mean() - 200) < 30
    for encoder, decoder in (("ConvEncoder([4])", "ConvDecoder([4])"),):
        x = torch.poisson(torch.rand(50, 1, 8, 8, generator=GENERATOR) * 200, generator=GENERATOR)
        vae = started("NegativeBinomial", x, encoder=encoder, decoder=decoder)
        assert pv.elbo(vae, x, seed=0).isfinite().all()


def test_a_likelihood_without_units_is_refused():
    for line in ("Flow(NSF)", "Transformed(Normal, ExpTransform)"):
        with pytest.raises(ValueError, match="units='data' serves families"):
            pv.VAE(3, 2, likelihood=line, units="data")
    with pytest.raises(ValueError, match="units must be 'data' or 'none', got 'metres'"):
        pv.VAE(3, 2, units="metres")


# What the encoder reads.


def test_numbers_are_standardized_and_data_in_0_1_are_not():
    vae = started("Normal", REAL)
    read = vae.inputs(REAL)
    centre = REAL.median(0).values
    spread = (REAL - centre).abs().mean(0) * math.sqrt(math.pi / 2)
    assert torch.allclose(read, (REAL - centre) / spread, atol=1e-5)
    assert (read.std(0) - 1).abs().max() < 0.1
    for line in ("Normal", "Bernoulli", "ContinuousBernoulli", "Exponential", "Poisson"):
        grey = torch.rand(20, 3, generator=GENERATOR).round(decimals=0 if "P" in line else 3)
        assert torch.equal(started(line, grey, units="none").inputs(grey), grey), line
    raw = started("Normal", REAL, inputs="raw")
    assert torch.equal(raw.inputs(REAL), REAL)
    with pytest.raises(ValueError, match="inputs must be 'auto' or 'raw', got 'standard'"):
        pv.VAE(3, 2, inputs="standard")


def test_numbers_at_unit_scale_are_read_as_they_are():
    x = (POSITIVE - POSITIVE.mean(0)) / POSITIVE.std(0)  # with long tails
    holes = x.masked_fill(torch.rand(x.shape, generator=GENERATOR) < 0.3, math.nan)
    vae = started("Normal", holes, units="none", missing=True)
    assert torch.equal(vae.inputs(holes)[:, :3], holes.nan_to_num(0.0))
    constant = torch.cat([holes, torch.zeros(400, 1)], 1)
    read = started("Normal", constant, units="none", missing=True).inputs(constant)
    assert torch.equal(read[:, :4], constant.nan_to_num(0.0))
    for other in (holes * 4, holes / 4, holes + 1):  # one column off is enough for all
        other = torch.cat([holes[:, :2], other[:, 2:]], 1)
        read = started("Normal", other, units="none", missing=True).inputs(other)
        assert not torch.equal(read[:, :3], other.nan_to_num(0.0))
    for line, units in (("Normal", "data"), ("LogNormal", "none")):
        data = holes.abs() + 1e-3 if line == "LogNormal" else holes
        read = started(line, data, units=units, missing=True).inputs(data)
        assert not torch.equal(read[:, :3], data.nan_to_num(0.0))


def test_counts_codes_and_positive_numbers():
    counts = torch.poisson(torch.full((200, 2), 500.0), generator=GENERATOR)
    read = started("NegativeBinomial", counts).inputs(counts)
    centre, spread = centre_and_spread(counts.double().log1p())
    assert torch.allclose(read, ((counts.log1p() - centre) / spread).float(), atol=1e-4)
    byte = (torch.rand(50, 4, generator=GENERATOR) * 255).round()
    centre, spread = centre_and_spread(byte.double())
    read = started("Binomial(total_count=255)", byte).inputs(byte)
    assert torch.allclose(read, ((byte - centre) / spread).float(), atol=1e-5)
    codes = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    read = started("Categorical(categories=3)", codes).inputs(codes)
    assert read.tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]]
    many = torch.arange(5000.0).repeat(4).reshape(5000, 4)
    read = started("Categorical(categories=5000)", many, encoder="MLP([2])", decoder="MLP([2])")
    assert read.inputs(many).shape == (5000, 4) and read.inputs(many).max() == 1
    one, other = (started("Gamma", POSITIVE * f).inputs(POSITIVE * f) for f in (1.0, 1e6))
    assert torch.allclose(one, other, atol=1e-4) and one.std() < 2


def test_channels_share_what_they_learn_and_holes_read_as_the_centre():
    images = torch.randn(20, 2, 3, 3, generator=GENERATOR)
    images = images * torch.tensor([1.0, 9.0])[:, None, None] + 100
    vae = started("Normal", images, encoder=nn.Flatten())
    assert vae.inputs.readers[0].centre.shape == (2, 1, 1)
    assert (vae.inputs(images).std((0, 2, 3)) - 1).abs().max() < 0.2
    holes = REAL.clone()
    holes[0, 1] = math.nan
    vae = started("Normal", holes, missing=True)
    read = vae.inputs(holes)
    assert read.shape == (400, 6) and read[0, 1] == 0 and read[0, 4] == 0 and read[0, 3] == 1
    assert not read.isnan().any()
    codes = torch.tensor([[0.0, math.nan]])
    vae = started("Categorical(categories=2)", codes, missing=True)
    assert vae.inputs(codes).tolist() == [[1, 0, 0, 0, 1, 0]]


def test_context_is_standardized_where_it_is_read():
    record = pv.Record([pv.Block("x", 3), pv.Block("age", role="context")])
    vae = pv.VAE(record, 2, likelihood="Normal", units="data", **SMALL)
    age = torch.arange(20.0, 70.0)
    x = record.pack({"x": REAL[:50], "age": age})
    vae.start_from(x)
    read = vae.inputs(x)[:, 3]
    assert abs(read.mean()) < 0.1 and 0.8 < read.std() < 1.3
    assert torch.equal(vae.inputs.beside(torch.zeros(50, 2), x, 1)[0][:, 2], read)


# Data as people have them.


def scaled(rows: int = 150) -> dict[str, torch.Tensor]:
    raw = torch.tensor(load_wine().data[:rows]).float()
    generator = torch.Generator().manual_seed(1)
    counts = (torch.randn(rows, 5, generator=generator) * 2 + 4).exp().floor().clamp(max=29_406)
    near = REAL[:rows] * torch.tensor([1.0, 1.0, 0.1]) + torch.tensor([0.0, 0.0, 5e4])
    byte = (torch.rand(rows, 6, generator=generator) * 255).round()
    codes = torch.randint(5000, (rows, 1), generator=generator).float()
    return {"raw": raw, "counts": counts, "near 5e4": near, "byte": byte, "codes": codes}


@pytest.mark.slow
@pytest.mark.parametrize("units", ["none", "data"])
@pytest.mark.parametrize(
    ("data", "likelihood"),
    [
        ("raw", "Normal"), ("raw", "Mixture(Normal, components=2)"), ("raw", "Gamma"),
        ("raw", "LogNormal"), ("counts", "Poisson"), ("counts", "NegativeBinomial"),
        ("counts", "GammaPoisson"), ("counts", "ZeroInflatedPoisson"),
        ("counts", "ZeroInflatedNegativeBinomial"), ("counts", "Geometric"),
        ("counts", "Hurdle(LogNormal)"), ("near 5e4", "Normal"), ("near 5e4", "StudentT(df=3)"),
        ("byte", "Normal"), ("byte", "Binomial(total_count=255)"),
        ("codes", "Categorical(categories=5000)"),
    ],
)  # fmt: skip
def test_data_of_any_scale_train(data, likelihood, units):
    x = scaled()[data]
    vae = pv.VAE(x.shape[1:], 2, likelihood=likelihood, units=units, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = pv.fit(vae, x, epochs=4, batch_size=50, seed=0, compile=False, progress=False)
    elbo = fit.history.elbo_train
    assert elbo.notna().all() and elbo.iloc[-1] > elbo.iloc[0] - abs(elbo.iloc[0]) * 0.02
    if units == "data" and data != "codes":  # within reach of what independent columns get
        expected = independent(x, likelihood)
        assert elbo.iloc[-1] > expected - max(2.5 * x.shape[1], 0.1 * abs(expected))


def independent(x: torch.Tensor, likelihood: str) -> float:
    """The mean log density of independent columns: normal, or log-normal, or binomial."""
    a = x.numpy().astype(float)
    if "Binomial(total" in likelihood:
        return st.binom.logpmf(a, 255, a.mean(0) / 255).sum(1).mean()
    if likelihood in ("Poisson", "ZeroInflatedPoisson"):
        return st.poisson.logpmf(a, a.mean(0)).sum(1).mean()
    if x.max() == 29_406 or ((a == a.round()).all() and a.max() > 300):
        k = np.log1p(a)
        return (st.norm.logpdf(k, k.mean(0), k.std(0)) - k).sum(1).mean()
    return st.norm.logpdf(a, a.mean(0), a.std(0)).sum(1).mean()


def test_an_array_far_from_unit_scale_is_warned_of():
    x = REAL + torch.tensor([0.0, 0.0, 5e4])
    with pytest.warns(UserWarning, match=r"far from unit scale.*cell 2.*units='data'"):
        started("Normal", x, units="none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        started("Normal", x)
        started("Normal", (x - x.mean(0)) / x.std(0), units="none")
        started("Normal", torch.rand(50, 3), units="none")
        started("Bernoulli", torch.ones(50, 3), units="none")


def test_a_positive_parameter_is_never_0_and_has_a_gradient():
    raw = torch.tensor([-1e4, -200.0, 0.0, 200.0], requires_grad=True)
    value = Positive()(raw)
    assert (value >= 1e-8).all() and value[2] == nn.functional.softplus(torch.tensor(0.0))
    loss = -torch.distributions.Normal(0.0, value).log_prob(torch.tensor(1e4)).sum()
    loss.backward()
    assert raw.grad.isfinite().all()
    assert torch.allclose(
        Positive().inv(Positive()(torch.tensor([-5.0, 3.0]))), torch.tensor([-5.0, 3.0]), atol=1e-4
    )
    low = PositiveCholesky()(torch.full((2, 2), -500.0))
    assert (low.diagonal() > 0).all() and low[0, 1] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "likelihood, size", [("Normal", 15), ("StudentT(df=4)", 25), ("Laplace", 25)]
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_masses_of_stars_and_of_atoms(likelihood, size, sign):
    """The ELBO moves by log Jacobian; PyTorch's Normal squares its scale, which float32 limits."""
    factor = 10.0 ** (sign * size)
    one, other = started(likelihood, REAL), started(likelihood, REAL.double() * factor)
    before = pv.elbo(one, REAL, num_samples=2, seed=0).mean()
    after = pv.elbo(other, REAL.double() * factor, num_samples=2, seed=0).mean()
    assert after.item() == pytest.approx(before.item() - 3 * math.log(factor), abs=2e-3)
    fit = pv.fit(other, REAL.double() * factor, epochs=2, progress=False, compile=False)
    assert fit.history.elbo_train.iloc[1] > fit.history.elbo_train.iloc[0]


def test_the_command_line_says_the_units():
    from pyro_vae.runs.folder import new_model
    from pyro_vae.runs.settings import RunSettings

    data = pv.load_data("digits")
    told = {"encoder": "MLP([3])", "decoder": "MLP([3])", "likelihood": "Normal"}
    assert new_model(RunSettings(**told, units="data"), data).units == "data"
    assert new_model(RunSettings(**told), data).units == "none"


@pytest.mark.parametrize("line", ["Pareto", "GeneralizedPareto(concentration=0.2)"])
def test_a_pareto_in_units_is_of_all_data_wherever_z_is(line):
    """Its support begins at its scale, or loc, which stays below the least number of a column."""
    torch.manual_seed(0)
    x = 1000 * torch.distributions.Pareto(torch.ones(60, 2), 2.5).sample()
    vae = pv.VAE(2, 1, likelihood=line, units="data", encoder="MLP([])", decoder="MLP([])")
    vae.start_from(x)
    with torch.no_grad():
        for z in (0.0, 3.0, -3.0, 100.0):
            p = vae.decode(torch.full((60, 1), z))
            begins = p.base_dist.scale if line == "Pareto" else p.base_dist.loc
            assert (begins <= x.min(0).values).all() and p.log_prob(x).isfinite().all()


@pytest.mark.parametrize(
    "name, values",
    [("Pareto", (2, 3)), ("GeneralizedPareto", (2, 1, -0.5)), ("AffineBeta", (2, 3, 2, 2))],
)
def test_outside_a_support_that_moves_there_is_no_density(name, values):
    """Evaluations do not validate: a finite density there would be one above any that is right."""
    p = getattr(distributions, name)(*map(torch.tensor, map(float, values)), validate_args=False)
    x = torch.tensor([0.5, 1.99, 2.0, 3.0, 3.99, 4.01, 9.0])
    assert torch.equal(p.log_prob(x).isfinite(), p.support.check(x))
    assert 0 < p.support.check(x).sum() < len(x)


@pytest.mark.parametrize(
    "transforms, begins",
    [
        ([AffineTransform(5.0, 2.0)], 5.0),
        ([ExpTransform()], 1.0),
        ([AffineTransform(1.0, 1.0), ExpTransform()], math.e),
    ],
)
def test_a_transformation_of_less_than_it_maps_has_no_density_beyond(transforms, begins):
    """Its codomain, which is the support, is then too much."""
    base = dist.Exponential(1.0, validate_args=False)
    p = distributions.TransformedDistribution(base, transforms, validate_args=False)
    x = begins + torch.tensor([-4.0, -1.0, -0.01, 0.01, 1.0, 30.0])
    assert p.log_prob(x).isfinite().tolist() == (x > begins).tolist()
