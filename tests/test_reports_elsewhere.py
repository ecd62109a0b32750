"""Public bug reports of Pyro, pythae, scvi-tools and SDV about what this package does too."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

import pyro_vae as pv
from helpers.advice import suggestions

NETS = {"encoder": "MLP([5])", "decoder": "MLP([5])", "seed": 0}
QUIET = {"epochs": 2, "batch_size": 10, "progress": False}
X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))


def normal(**said):
    return pv.VAE(3, 2, **{"likelihood": "Normal(scale=learned)", **NETS, **said})


def test_pyro_3438_frozen_parameters_of_a_pyro_module_stay_frozen():
    encoder = PyroModule[nn.Linear](3, 4).requires_grad_(False)
    vae, before = normal(encoder=encoder), encoder.weight.clone()
    pv.fit(vae, X, **QUIET)
    assert torch.equal(encoder.weight, before) and not encoder.weight.requires_grad


def test_pyro_3094_another_models_parameters_in_the_store_are_told():
    optim = pyro.optim.Adam({"lr": 0.01})
    with pyro.get_param_store().scope():
        first, second = normal(), normal(seed=1)
        SVI(first.model, first.guide, optim, Trace_ELBO()).step(X)
        with pytest.raises(ValueError, match=r"holds another model's .*pyro.clear_param_store"):
            SVI(second.model, second.guide, optim, Trace_ELBO()).step(X)
        pyro.clear_param_store()
        SVI(second.model, second.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(X)


@pytest.mark.slow
def test_scvi_681_a_class_of_one_observation_trains():
    vae = pv.M2(3, 2, 3, likelihood="Normal", merge="MLP([5])", **NETS)
    labels = torch.tensor([2] + [0, 1] * 14 + [0])
    fitted = pv.fit(vae, vae.labelled(X, labels), **QUIET | {"batch_size": 1})
    assert np.isfinite(fitted.history.loss).all()


def test_scvi_849_columns_in_another_order_are_put_in_order():
    frame = pd.DataFrame(X.numpy(), columns=["a", "b", "c"])
    vae = normal()
    pv.fit(vae, frame, **QUIET)
    expected = vae.encode(X).mean
    assert torch.equal(vae.encode(frame[["c", "a", "b"]]).mean, expected)
    assert torch.equal(vae.encode(frame.assign(d=0.0)[["d", "c", "a", "b"]]).mean, expected)
    with pytest.raises(ValueError, match="x lacks the column 'b'; it has a, c, d"):
        vae.encode(frame.rename(columns={"b": "d"})[["a", "c", "d"]])


def test_scvi_2335_expected_and_received_are_not_exchanged():
    with pytest.raises(ValueError, match=r"expected x of shape \(N, 3\), got \(30, 2\)"):
        normal().encode(X[:, :2])


def test_sdv_574_a_column_of_nothing_but_missing_cells_trains():
    x = X.clone()
    x[:, 1] = torch.nan
    vae = normal(missing=True)
    assert np.isfinite(pv.fit(vae, x, **QUIET).history.loss).all()
    assert vae.impute(x, num_samples=20, seed=0).isfinite().all()


def test_sdv_1166_samples_of_numbers_are_not_rounded():
    vae = normal()
    pv.fit(vae, pd.DataFrame(X.numpy(), columns=["a", "b", "c"]), **QUIET)
    draws = vae.sample(50, seed=0)
    assert (draws != draws.round()).all()


def test_sdv_2288_missing_whole_numbers_stay_missing():
    frame = pd.DataFrame({"n": pd.array([144, None, 92], dtype="Int64"), "x": [0.5, 1.5, 2.5]})
    x = pv.VAE(2, 1, likelihood="Normal", missing=True, **NETS).as_data(frame)
    assert x.isnan().tolist() == [[False, False], [True, False], [False, False]]


def test_sdv_1735_a_categorical_column_is_named_with_its_first_value():
    frame = pd.DataFrame({"tier": pd.Categorical(["BASIC", "SUITE"]), "n": [1, 2], "m": [0, 1]})
    with pytest.raises(ValueError, match="got 'BASIC' in column 'tier'"):
        pv.fit(normal(), frame, **QUIET)
    assert normal().as_data(frame.assign(tier=pd.Categorical([3, 4])))[:, 0].tolist() == [3, 4]


@pytest.mark.slow
def test_pythae_139_every_model_takes_every_likelihood():
    bits = (X > 0).float()
    with pytest.raises(pv.SpecError) as error:
        pv.VAE(3, 2, likelihood="BCE", **NETS)
    (line,) = suggestions(str(error.value))[1]
    for said in ({"latent_dim": 2}, {"layers": [3, 2]}, {"latent_dim": 2, "prior": "VampPrior"}):
        vae = pv.VAE(3, likelihood=line, **NETS | said)
        assert np.isfinite(pv.fit(vae, bits, **QUIET).history.loss).all()


# Others, of a later day.

COUNTS = torch.poisson(X.exp() * 20, generator=torch.Generator().manual_seed(1))


def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"u{i}" for i in range(60)],
            "address": [0] * 60,
            "nights": pd.array(rng.poisson(30, 60), dtype="Int64"),
            "tier": rng.choice(["basic", "suite"], 60),
            "rate": rng.lognormal(5, 0.3, 60),
        }
    )


@pytest.fixture(scope="module")
def hotel():
    data = frame()
    data.loc[:9, "nights"] = None
    vae = pv.VAE(pv.Table.from_frame(data), 2, missing="Bernoulli", **NETS)
    pv.fit(vae, data, epochs=2, progress=False)
    return data, vae


def test_pyro_3468_an_autoguide_sees_the_rows_of_the_models_own_subsample():
    """Its rows are those of the model, so that log p(x) is that of the normal, exactly known."""
    x = torch.tensor([3.0, -1.0, 0.5, 2.0])

    def model(x, index):
        with pyro.plate("data", len(x), subsample=index):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    for rows in ([0, 1, 2, 3], [3, 1]):
        with pyro.get_param_store().scope():
            program = pv.Program(model, AutoNormal(model, init_scale=1.0), x, torch.tensor(rows))
            found = pv.log_evidence(program, num_samples=2000, seed=0).log_evidence
            exact = dist.Normal(0.0, 2**0.5).log_prob(x[rows])
            assert (found - exact).abs().max() < 0.15  # of 2,000 draws; the rows are .19 apart


@pytest.mark.slow
@pytest.mark.parametrize(
    "prior, guide",
    [("LogNormal", "LogNormal"), ("Transformed(Normal, SigmoidTransform)",) * 2],
)
def test_pyro_2149_analytic_kl_goes_through_transformations(prior, guide):
    vae = pv.VAE(3, 2, likelihood="Normal", prior=prior, guide=guide, **NETS)
    bounds, n = (Trace_ELBO(), TraceMeanField_ELBO()), 200
    with pyro.get_param_store().scope(), torch.no_grad():
        pyro.set_rng_seed(0)
        one, other = (
            torch.tensor([bound.loss(vae.model, vae.guide, X) for _ in range(n)])
            for bound in bounds
        )
    error = (one.var() / n + other.var() / n).sqrt()
    assert abs((one.mean() - other.mean()) / error) < 5 and one.var() > 0


def test_pyro_2124_what_is_masked_leaves_the_kl_alone():
    vae = pv.VAE(3, 2, likelihood="Normal", missing=True, **NETS)
    nothing = torch.full((4, 3), torch.nan)
    kl = torch.distributions.kl_divergence(vae.encode(nothing).base_dist, dist.Normal(0.0, 1.0))
    with pyro.get_param_store().scope():
        loss = TraceMeanField_ELBO().loss(vae.model, vae.guide, nothing)
    assert loss == pytest.approx(kl.sum().item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:x is far")
def test_scvi_1455_rows_without_counts_train_and_logarithms_are_refused():
    counts = COUNTS.clone()
    counts[::3] = 0
    vae = pv.VAE(3, 2, likelihood="NegativeBinomial", **NETS)
    assert np.isfinite(pv.fit(vae, counts, **QUIET).history.loss).all()
    with pytest.raises(ValueError, match=r"NegativeBinomial needs a whole number .* in row 1"):
        pv.fit(vae, counts.log1p(), **QUIET)


@pytest.mark.filterwarnings("ignore:x is far")
def test_scvi_2103_rows_far_from_the_training_data_have_a_finite_elbo():
    vae = pv.VAE(3, 2, likelihood="NegativeBinomial", **NETS)
    pv.fit(vae, COUNTS, **QUIET)
    assert pv.elbo(vae, COUNTS * 1000).isfinite().all()


@pytest.mark.slow
def test_sdv_2514_missing_whole_numbers_are_drawn_in_their_type(hotel):
    data, vae = hotel
    drawn = vae.sample(300, seed=0)
    assert drawn["nights"].dtype == data["nights"].dtype
    assert 0 < drawn["nights"].isna().mean() < 1


def test_sdv_1445_constant_columns_and_keys_are_no_part_of_the_model(hotel):
    _data, vae = hotel
    assert set(vae.record.schema.likelihood) == {"nights", "tier", "rate"}
    assert (vae.sample(5, seed=0)["address"] == 0).all()


def test_sdv_1737_rows_are_drawn_given_a_whole_number(hotel):
    _, vae = hotel
    drawn = vae.sample(20, given={"nights": 1}, seed=0)
    assert (drawn["nights"] == 1).all() and len(drawn) == 20


def test_sdv_2683_whole_numbers_of_pythons_own_are_read():
    data = frame().astype({"nights": object})
    assert {type(v) for v in data["nights"]} == {int}
    assert pv.Table.from_frame(data).likelihood == pv.Table.from_frame(frame()).likelihood


def test_deepecho_83_columns_of_numbers_are_drawn_as_numbers(hotel):
    _, vae = hotel
    drawn = vae.sample(100, seed=0)
    assert drawn["rate"].dtype == float and (drawn["rate"] > 0).all()
    assert set(drawn["tier"]) <= {"basic", "suite"}


def test_pythae_73_a_reconstruction_is_the_same_again():
    vae = pv.VAE(3, 2, likelihood="Normal", **NETS)
    pv.fit(vae, X, **QUIET)
    vae.train()
    first = vae.reconstruct(X)
    assert torch.equal(first, vae.reconstruct(X)) and first.shape == X.shape
