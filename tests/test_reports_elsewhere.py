"""Public bug reports of Pyro, pythae, scvi-tools and SDV about what this package does too."""

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
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


def test_pythae_139_every_model_takes_every_likelihood():
    bits = (X > 0).float()
    with pytest.raises(pv.SpecError) as error:
        pv.VAE(3, 2, likelihood="BCE", **NETS)
    (line,) = suggestions(str(error.value))[1]
    for said in ({"latent_dim": 2}, {"layers": [3, 2]}, {"latent_dim": 2, "prior": "VampPrior"}):
        vae = pv.VAE(3, likelihood=line, **NETS | said)
        assert np.isfinite(pv.fit(vae, bits, **QUIET).history.loss).all()
