"""ArviZ's container: names, numbers, and what ArviZ makes of them, under 0.23 and 1.x."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from helpers.linear import linear_vae, marginal, posterior
from pyro_vae.evaluate.inference_data import as_draws, container
from pyro_vae.model.joint import Joint

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz

GROUPS = {
    "posterior", "posterior_predictive", "log_likelihood", "conditional_log_likelihood",
    "sample_stats", "prior",
    "prior_predictive", "observed_data",
}  # fmt: skip
SHAPES = {  # the data's shape: the names of its dimensions
    (4,): ("column",),
    (3, 2): ("row", "column"),
    (1, 4, 4): ("channel", "row", "column"),
}


def groups(data):
    """Of an InferenceData or a DataTree."""
    return set(data.groups()) if callable(data.groups) else set(data.children)


@pytest.mark.parametrize("shape, axes", SHAPES.items())
def test_every_dimension_has_its_name(shape, axes):
    vae = pv.VAE(shape, 3, encoder=pv.MLP([4]), decoder=pv.MLP([4]), seed=0)
    x = torch.rand(5, *shape).round()
    data = pv.to_arviz(vae, x, 20, seed=0)
    assert groups(data) == GROUPS
    draws = ("chain", "draw")
    assert data.posterior["z"].dims == (*draws, "observation", "latent_dim")
    assert data.prior["z"].dims == (*draws, "latent_dim")
    assert data.posterior_predictive["x"].dims == (*draws, "observation", *axes)
    assert data.prior_predictive["x"].dims == (*draws, *axes)
    assert data.log_likelihood["x"].dims == (*draws, "observation")
    assert data.observed_data["x"].dims == ("observation", *axes)
    assert dict(data.posterior.sizes) == {"chain": 4, "draw": 5, "observation": 5, "latent_dim": 3}
    assert list(data.posterior_predictive["row" if len(shape) > 1 else "column"].values) == list(
        range(shape[-2] if len(shape) > 1 else shape[-1])
    )
    assert np.array_equal(data.observed_data["x"].values, x.numpy())


def test_a_table_gives_its_names():
    vae = linear_vae()
    index, columns = ["a", "b", "c"], ["v", "w", "x", "y", "z"]
    table = pd.DataFrame(np.zeros((3, 5)), index=index, columns=columns)
    data = pv.to_arviz(vae, table, 16, seed=0)
    assert list(data.posterior["observation"].values) == index
    assert list(data.posterior_predictive["column"].values) == columns


def test_the_numbers_are_the_models():
    vae = linear_vae("full")
    x = vae.sample(3, seed=1)
    data = pv.to_arviz(vae, x, 4000, seed=0)
    z = torch.tensor(data.posterior["z"].values).flatten(0, 1)
    exact = posterior(vae, x)
    error = exact.variance.sqrt() / 4000**0.5
    assert ((z.mean(0) - exact.mean) / error).abs().max() < 5
    with torch.no_grad():
        joint = Joint(vae, x)
        log_likelihood = joint.log_likelihood(z)
        lp = log_likelihood + joint.log_prior(z)
    found = torch.tensor(data.conditional_log_likelihood["x"].values).flatten(0, 1)
    assert torch.allclose(found, log_likelihood)
    assert torch.allclose(torch.tensor(data.sample_stats["lp"].values).flatten(0, 1), lp)
    weight = data.sample_stats["log_weight"].values  # an exact guide: log p(x), always
    assert weight.std(axis=(0, 1)).max() < 1e-6
    predicted = data.posterior_predictive["x"].values
    assert abs(predicted.mean() - vae.decode(z).mean.mean().item()) < 0.02
    prior = data.prior["z"].values.reshape(-1, 2)
    assert abs(prior.mean(0)).max() < 5 / 4000**0.5
    again = pv.to_arviz(vae, x, 4000, seed=0)
    assert np.array_equal(again.posterior["z"].values, data.posterior["z"].values)


def elpd(loo):
    """In the words of 0.23 and of 1.x."""
    return loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd


@pytest.mark.slow
def test_arviz_works_on_it():
    vae = linear_vae("full")
    x = vae.sample(12, seed=1)
    data = pv.to_arviz(vae, x, 400, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = arviz.summary(data, group="posterior")
    assert len(summary) == 24
    assert float(summary["r_hat"].astype(float).max()) < 1.05
    assert "z[0, z[0]]" in summary.index


@pytest.mark.slow
def test_loo_is_held_out_log_p_and_compare_ranks_by_it():
    """Models whose log p(x) is known, of which log p(x|z) at the guide's draws ranks otherwise."""
    models = {
        "true": linear_vae("full", scale_factor=1.4),
        "half": linear_vae("mean-field", weight_factor=0.5),
        "wide": linear_vae("full", weight_factor=1.5),
    }
    x = models["true"].sample(60, seed=1)
    exact = {name: marginal(vae).log_prob(x).sum().item() for name, vae in models.items()}
    data = {name: pv.to_arviz(vae, x, 400, seed=0) for name, vae in models.items()}
    conditional = {
        name: float(d.conditional_log_likelihood["x"].mean(("chain", "draw")).sum())
        for name, d in data.items()
    }
    for name, vae in models.items():
        loo = arviz.loo(data[name], pointwise=True)  # warnings are errors: all k-hats are small
        error = pv.log_evidence(vae, x, num_samples=1000, seed=0).standard_error
        assert abs(elpd(loo) - exact[name]) < 5 * error.square().sum().sqrt() + 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = arviz.compare(data)
    assert list(table.index) == sorted(exact, key=exact.get, reverse=True)
    assert list(table.index) != sorted(conditional, key=conditional.get, reverse=True)


def test_draws_are_dealt_into_chains():
    dims, values = as_draws(torch.arange(16.0), "a")
    assert dims == ("chain", "draw", "a") and values.shape == (4, 4)
    assert as_draws(torch.zeros(15, 2))[1].shape == (1, 15, 2)


def test_both_containers_hold_the_same(monkeypatch):
    import xarray

    groups = {"posterior": {"a": (("chain", "draw", "d"), np.arange(6.0).reshape(1, 3, 2))}}
    old = arviz.__version__.startswith("0.")  # the other has no InferenceData any more
    for version, kind in [("0.23.4", "InferenceData")] * old + [("1.3.0", "DataTree")]:
        monkeypatch.setattr(arviz, "__version__", version)
        data = container(groups, {"d": ["u", "v"]})
        assert type(data).__name__ == kind
        found = data["posterior"]["a"]
        assert isinstance(found, xarray.DataArray)
        assert found.sel(d="v").values.tolist() == [[1, 3, 5]]
        assert list(data["posterior"]["draw"].values) == [0, 1, 2]


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="num_samples is a whole number of at least 1"):
        pv.to_arviz(linear_vae(), torch.zeros(1, 5), 0)


def test_a_table_of_mixed_columns_has_its_names_and_its_own_values():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "kilos": rng.lognormal(size=40),
            "pet": rng.choice(["cat", "dog"], 40),
            "age": rng.integers(1, 90, 40),
            "tame": rng.random(40) < 0.5,
            "born": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(40), unit="D"),
            "passport": [f"no. {i}" for i in range(40)],
        },
        index=[f"r{i}" for i in range(40)],
    )  # fmt: skip
    frame.loc["r3", ["pet", "kilos"]] = None
    table = pv.Table.from_frame(frame)
    vae = pv.VAE(table, 2, encoder="MLP([4])", decoder="MLP([4])", seed=0)
    data = pv.to_arviz(vae, table, 16, evidence_samples=20, seed=0)
    names = [name for name in frame if name != "passport"]
    for group in ("posterior_predictive", "prior_predictive", "observed_data"):
        assert data[group]["x"].coords["column"].values.tolist() == names
        assert set(data[group].data_vars) == {"x", "pet", "tame", "born"}
        assert set(np.unique(data[group]["pet"])) <= {"cat", "dog", ""}
        assert data[group]["born"].dtype.kind == "M" and data[group]["tame"].dtype.kind in "bf"
    observed = data["observed_data"]
    assert observed["pet"].values.tolist() == frame["pet"].fillna("").tolist()
    assert (observed["born"].values == frame["born"].to_numpy()).all()
    assert np.allclose(observed["x"].values, table.values, rtol=1e-6, equal_nan=True)
    assert observed["pet"].coords["observation"].values.tolist() == list(frame.index)
    drawn = data["posterior_predictive"]
    assert drawn["pet"].dims == ("chain", "draw", "observation")
    codes = drawn["x"].sel(column="pet").values
    assert np.array_equal(drawn["pet"].values, np.array(["cat", "dog"])[codes.astype(int)])
    other = pv.to_arviz(vae, frame[frame.columns[::-1]], 16, evidence_samples=20, seed=0)
    assert np.array_equal(other["posterior_predictive"]["x"], drawn["x"])  # columns by their names
