"""Cells that are missing not at random: exact answers by quadrature, training, refusals."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI

import pyro_vae as pv
from helpers.linear import SCALE, X, linear_vae, marginal
from pyro_vae.model.joint import Joint

NAN = math.nan
LINES = ("SelfMasking", "SelfMasking(sign=1)", "SelfMasking(sign=-1)", "Logistic")


def masked(line="SelfMasking", slope=2.0):
    """The model of ``linear.py``, whose encoder knows the prior alone, and a mask by x."""
    vae = pv.VAE(
        X,
        2,
        likelihood=f"Normal(scale={SCALE})",
        guide="Normal(scale=learned(1.0))",
        encoder=[],
        decoder=[],
        missing=line,
        seed=0,
    ).double()
    vae.likelihood.load_state_dict(linear_vae().likelihood.state_dict())
    with torch.no_grad():
        for p in vae.approximation.sources["loc"].parameters():
            p.zero_()
        if line == "Logistic":
            generator = torch.Generator().manual_seed(5)
            vae.missingness.linear.weight.copy_(0.5 * torch.randn(X, X, generator=generator))
        else:
            vae.missingness.slope.fill_(slope)
            vae.missingness.bias.fill_(-0.5)
    return vae


def exact(vae, row):
    """log p(x_obs, mask), and mean and variance of the one missing cell given both."""
    p, gone = marginal(vae), row.isnan()
    j = int(gone.nonzero()[0])
    there = ~gone
    s = p.covariance_matrix
    gain = s[j, there] @ s[there][:, there].inverse()
    loc = p.loc[j] + gain @ (row[there] - p.loc[there])
    scale = (s[j, j] - gain @ s[there, j]).sqrt()
    cell = loc + scale * torch.linspace(-9, 9, 20001).double()
    rows = row.expand(len(cell), X).clone()
    rows[:, j] = cell
    with torch.no_grad():
        log_mask = vae.missingness(rows).log_prob(gone.double().expand(len(cell), X))
    log_p = torch.distributions.Normal(loc, scale).log_prob(cell) + log_mask
    observed = torch.distributions.MultivariateNormal(p.loc[there], s[there][:, there])
    step = cell[1] - cell[0]
    evidence = observed.log_prob(row[there]) + log_p.logsumexp(0) + step.log()
    weights = log_p.softmax(0)
    mean = (weights * cell).sum()
    return evidence, mean, (weights * (cell - mean) ** 2).sum(), loc


@pytest.mark.parametrize("line", ["SelfMasking", "Logistic"])
def test_evidence_and_imputations_are_those_of_quadrature(line):
    vae = masked(line)
    torch.manual_seed(1)
    row = marginal(vae).sample()
    row[1] = NAN
    log_p, mean, variance, at_random = exact(vae, row)
    found = pv.log_evidence(vae, row[None], num_samples=20000, seed=0)
    assert (found.log_evidence[0] - log_p).abs() < 4 * found.standard_error[0]
    assert found.standard_error[0] < 0.05
    values = vae.impute(row.expand(20, X), num_samples=2000, seed=0)[:, 1]
    error = values.std() / 20**0.5
    assert (values.mean() - mean).abs() < 4 * error
    assert (at_random - mean).abs() > 10 * error  # where the mask is not looked at
    one = vae.imputations(row[None], draws=4000, num_samples=10000, seed=0)
    drawn, size = one.values[:, 0, 1], min(4000.0, one.ess.item()) / 2
    assert (drawn.mean() - mean).abs() < 4 * (variance / size).sqrt()
    assert (drawn.var() - variance).abs() < 4 * variance * (2 / size) ** 0.5
    median = vae.impute(row[None], point="median", num_samples=5000, seed=0)[0, 1]
    assert (median - mean).abs() < variance.sqrt() / 4
    bound = pv.elbo(vae, row[None], num_samples=2000, seed=0)
    assert bound < log_p


@pytest.mark.slow
def test_a_cell_that_is_never_missing_by_its_value_is_missing_at_random():
    """Slope 0: the imputations are those of ``missing=True``, and the mask costs its entropy."""
    torch.manual_seed(1)
    vae, x = masked(slope=0.0), marginal(linear_vae()).sample((3,))
    x[0, 1] = x[1, 3] = NAN
    plain = pv.VAE(
        X,
        2,
        likelihood=f"Normal(scale={SCALE})",
        guide="Normal(scale=learned(1.0))",
        encoder=[],
        decoder=[],
        missing=True,
    ).double()
    plain.load_state_dict({k: v for k, v in vae.state_dict().items() if "missingness" not in k})
    share = torch.sigmoid(torch.tensor(-0.5)).double()
    cost = x.isnan().double() * share.log() + (~x.isnan()).double() * (1 - share).log()
    z = torch.randn(7, 3, 2).double()
    first, second = (Joint(m, x).log_likelihood(z) for m in (vae, plain))
    assert torch.allclose(first - second, cost.sum(1).expand(7, 3))
    values = [m.impute(x[:1].expand(20, X), num_samples=4000, seed=0)[:, 1] for m in (vae, plain)]
    error = (values[0].var() / 20 + values[1].var() / 20).sqrt()
    assert (values[0].mean() - values[1].mean()).abs() < 4 * error


def truncated(n, seed):
    """Two columns of correlation .8, the first missing where it is large."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(n, 1, generator=generator) @ torch.full((1, 3), 1.0)
    whole += 0.5 * torch.randn(n, 3, generator=generator)
    gone = torch.rand(n, generator=generator) < (3 * (whole[:, 0] - 0.3)).sigmoid()
    x = whole.clone()
    x[gone, 0] = NAN
    return x, whole, gone


@pytest.mark.slow
def test_what_is_hidden_for_being_large_is_imputed_large():
    """The declared mask recovers the hidden mean, which missing at random underrates."""
    x, whole, gone = truncated(600, 0)
    bias = {}
    for missing in (True, "SelfMasking(sign=1)"):
        vae = pv.VAE(
            3,
            1,
            likelihood="Normal(scale=learned)",
            encoder=[30],
            decoder=[],
            missing=missing,
            seed=0,
        )
        pv.fit(vae, x, epochs=20, lr="cosine(0.05)", estimator="DReG(num_particles=5)", seed=0)
        filled = vae.impute(x, num_samples=100, seed=0)
        bias[missing] = (filled - whole)[gone, 0].mean().item()
    assert abs(bias["SelfMasking(sign=1)"]) < 0.5 * abs(bias[True])
    assert bias[True] < -0.2


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_every_parameter_of_the_mask_has_a_gradient_and_is_saved(line, tmp_path):
    x, _, _ = truncated(50, 1)
    vae = pv.VAE(
        3, 2, likelihood="Normal", encoder=[4], decoder=[4], missing=line, units="data", seed=0
    )
    vae.start_from(1000 + 10 * x)
    assert torch.allclose(vae.missingness.loc, 1000 + 10 * x.nanmean(0), rtol=1e-4)
    before = vae.missingness.loc.clone()
    vae.start_from(x)
    assert torch.equal(vae.missingness.loc, before)
    x = 1000 + 10 * x
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.0}), pyro.infer.Trace_ELBO())
    with pyro.get_param_store().scope():
        svi.loss_and_grads(vae.model, vae.guide, x)
    for name, p in vae.missingness.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name
    again = pv.load(vae.save(tmp_path / "model"))
    assert str(again.missingness.spec) == line
    first, second = (m.imputations(x, num_samples=50, seed=0).values for m in (again, vae))
    assert torch.equal(first, second)


ESTIMATORS = (
    "Trace_ELBO",
    "TraceMeanField_ELBO",
    "DReG(num_particles=3)",
    "GDReG(num_particles=3)",
    "RenyiELBO(alpha=0, num_particles=3)",
    "RWS(num_particles=3)",
    "VIMCO(num_particles=3)",
    "TVO",
    "TraceGraph_ELBO(gradient=score, baseline=decaying)",
)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimators_train_it(estimator):
    x, _, _ = truncated(60, 2)
    vae = pv.VAE(
        3,
        2,
        likelihood="Normal(scale=learned)",
        encoder=[4],
        decoder=[4],
        missing="SelfMasking",
        seed=0,
    )
    before = vae.missingness.bias.clone()
    history = pv.fit(vae, x, epochs=1, estimator=estimator, compile=False, seed=0).history
    assert history.elbo_train.notna().all()
    assert not torch.equal(vae.missingness.bias, before)


def test_a_record_of_several_blocks_may_declare_it():
    x, _, _ = truncated(40, 3)
    blocks = [pv.Block("income", 1, missing=True), pv.Block("rest", 2, likelihood="Laplace")]
    vae = pv.VAE(
        pv.Record(blocks),
        2,
        likelihood="Normal",
        encoder=[4],
        decoder=[4],
        missing="SelfMasking",
        seed=0,
    )
    filled = vae.impute(x, num_samples=100, seed=0)
    assert filled.isfinite().all() and torch.equal(filled[:, 1:], x[:, 1:])
    with pytest.raises(ValueError, match=r"no observed block has missing cells: Block"):
        pv.VAE(pv.Record([pv.Block("x", 3)]), 2, likelihood="Normal", missing="Logistic")


def test_what_it_cannot_do_is_refused():
    x, _, _ = truncated(10, 4)
    with pytest.raises(ValueError, match="unknown missingness 'SelfMask'"):
        pv.VAE(3, 2, likelihood="Normal", missing="SelfMask")
    with pytest.raises(ValueError, match="sign is a whole number from -1 to 1, got 2"):
        pv.VAE(3, 2, likelihood="Normal", missing="SelfMasking(sign=2)")
    with pytest.raises(ValueError, match="missing is True or False, got 1"):
        pv.VAE(3, 2, likelihood="Normal", missing=1)
    with pytest.raises(ValueError, match="draws missing cells along gradients, which Poisson has"):
        pv.VAE(3, 2, likelihood="Poisson", missing="SelfMasking")
    table = pv.Table.from_frame(
        {"y": np.linspace(0.5, 9, 19), "pet": ["cat", "dog", "cow"] * 6 + [None]}
    )
    with pytest.raises(ValueError, match="which Categorical of column 'pet' has not: Self"):
        pv.VAE(table, 2, missing="Logistic")
    vae = pv.VAE(3, 2, likelihood="Normal", encoder=[], decoder=[], missing="Logistic", seed=0)
    with pytest.raises(ValueError, match="have no mode here: ask for the mean"):
        vae.impute(x, point="mode")
    with pytest.raises(ValueError, match="drawn anew for each density here"):
        pv.ais(vae, x, temperatures=3)
