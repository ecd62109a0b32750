"""Conditions against closed forms, and what is told of formulas and of arrays beside frames."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import FactorAnalysis
from sklearn.linear_model import LinearRegression
from torch.distributions import MultivariateNormal

import pyro_vae as pv

LINEAR = {"encoder": "MLP([])", "decoder": "MLP([])", "seed": 0}


def frame(n=200, seed=0):
    rng = np.random.default_rng(seed)
    site, age, z = rng.choice(list("abc"), n), rng.normal(50, 10, n), rng.normal(size=(n, 1))
    level = np.array([0.0, 2.0, -1.0])[np.searchsorted(list("abc"), site)]
    x = z @ rng.normal(size=(1, 5)) + 0.1 * age[:, None] * rng.normal(size=5) + level[:, None]
    x = x + rng.normal(size=(n, 5)) * rng.uniform(0.4, 1, 5)
    return pd.DataFrame(x, columns=[*"vwxyz"]).assign(age=age, site=site)


@pytest.mark.slow
def test_a_linear_conditional_model_is_factor_analysis_of_the_regressions_residuals():
    data = frame()
    lines = dict.fromkeys("vwxyz", "Normal(scale=learned(shared=False))")
    vae = pv.VAE(
        pv.Table.from_frame(data, likelihood=lines), 1, condition="~ age + site", **LINEAR
    ).double()
    vae.start_from(x := vae.as_data(data))
    own = [*vae.decoder.parameters(), *vae.likelihood.parameters()]
    best = torch.optim.LBFGS(own, max_iter=1000, line_search_fn="strong_wolfe", tolerance_change=0)

    def log_p():
        z = torch.zeros(len(x), 1).double()
        at = [vae.decode(z + one, x) for one in (0, 1)]
        load = torch.stack([p.mean - at[0].mean for p in at[1:]], -1)[0]
        covariance = load @ load.T + at[0].variance[0].diag()
        return MultivariateNormal(at[0].mean, covariance).log_prob(vae.record.cells(x))

    def loss():
        best.zero_grad()
        value = -log_p().mean()
        value.backward()
        return value

    best.step(loss)
    values = data[[*"vwxyz"]].to_numpy()
    c = pd.get_dummies(data[["age", "site"]], drop_first=True).to_numpy(float)
    residuals = values - LinearRegression().fit(c, values).predict(c)
    expected = (
        FactorAnalysis(1, tol=1e-10, max_iter=10_000, svd_method="lapack")
        .fit(residuals)
        .score(residuals)
    )
    assert abs(log_p().sum().item() - len(data) * expected) < 0.01
    found = pv.log_evidence(vae, data, num_samples=1000, proposal="auto", seed=0)
    error = found.standard_error.square().mean().sqrt() / len(data) ** 0.5
    assert abs(found.log_evidence.mean().item() - expected) < max(0.01, 4 * error.item())


TOLD = {
    "~ .": "names its columns one by one",
    "~ (1 | site)": "which are the prior's: C\\(batch\\) of a condition, or prior=\"LinearMixed",
    "~ bs(site, 4)": "'site' holds words, and a function of the condition computes with numbers",
    "v ~ age": "has nothing before ~",
}


@pytest.mark.parametrize("formula", TOLD)
def test_what_a_condition_cannot_say_is_told_in_words(formula):
    with pytest.raises(ValueError, match=TOLD[formula]):
        pv.Design.of(formula, frame())


def test_numbers_that_are_read_as_codes_are_said_and_a_function_reads_them_as_numbers():
    data = frame().assign(batch=np.arange(200) % 4 + 1)
    with pytest.warns(UserWarning, match="the 4 numbers of 'batch' as codes.*'integer'"):
        names = pv.Design.of("~ batch", data).names
    assert names == ("batch[T.2]", "batch[T.3]", "batch[T.4]")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(pv.Design.of("~ C(batch)", data).names) == 3
        design = pv.Design.of("~ log(batch)", data)
        assert np.allclose(design.read(data)[:, 0], np.log(data.batch))
        number = pv.Table.from_frame(data, kinds={"batch": "integer"})
        assert pv.Design.of("~ batch", number).names == ("batch",)
    assert repr(design) == "Design('~ log(batch)': log(batch))"


def test_a_line_of_what_is_not_scored_is_refused():
    for role in ({"condition": "~ age"}, {"weight": "age"}):
        with pytest.raises(ValueError, match="has a line of 'age', which is a condition"):
            pv.VAE(pv.Table.from_frame(frame()), 2, likelihood={"age": "Normal"}, **role, **LINEAR)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:draws given the cells")  # of a model that is not trained
def test_an_array_beside_a_frame_takes_columns_in_do_and_a_condition_alone_in_draws():
    data, x = frame(60), torch.rand(60, 5)
    design = pv.Design.of("~ age + C(site)", data)
    vae = pv.VAE(5, 2, likelihood="Normal", condition=design, **LINEAR)
    given = {"x": x, "condition": data}
    by_column = vae.counterfactual(given, do={"site": "b"}, seed=0)
    whole = vae.counterfactual(given, do={"condition": data.assign(site="b")}, seed=0)
    assert torch.equal(by_column, whole)
    with pytest.raises(ValueError, match="give the observations with theirs"):
        vae.counterfactual(vae.as_data(given), do={"site": "b"})
    drawn = vae.sample(3, given={"condition": data}, seed=0)
    assert drawn.shape == (3, 60, 5) and torch.equal(drawn, vae.sample(3, given=given, seed=0))


def test_calibration_of_a_conditional_table_takes_its_rows_in_turn():
    table = pv.Table.from_frame(frame())
    vae = pv.VAE(table, 2, condition="~ age", **LINEAR)
    with pytest.raises(ValueError, match="conditional on age: say it, given=table"):
        pv.calibration(vae, 20, num_samples=9, seed=0)
    assert pv.calibration(vae, 20, given=table, num_samples=9, seed=0).ranks.shape == (20, 3)


@pytest.mark.slow
def test_a_fitted_prior_heeds_the_weights_of_observations():
    """A row of weight 3 stands for three: the mean of the fitted normal is the weighted one."""
    data = frame(400)[["v", "w"]]
    weight = np.where(data.v > data.v.mean(), 3.0, 1.0)
    table = pv.Table.from_frame(
        data.assign(weight=weight),
        likelihood=dict.fromkeys("vw", "Normal"),
        kinds={"weight": "real"},
    )
    vae = pv.VAE(table, 1, weight="weight", guide="Normal(scale=0.01)", **LINEAR)
    vae.start_from(vae.as_data(table))
    line = "Normal(loc=learned, scale=learned)"
    fitted = pv.fit_prior(vae, table, line, epochs=200, batch_size=400, lr=0.02, seed=0)
    with torch.no_grad():
        z = vae.encode(table).mean[:, 0].numpy()
        loc = fitted.vae.prior().mean.item()
    weighted, plain = np.average(z, weights=weight), z.mean()
    error = z.std() / 20  # a tenth of the rows is held out
    assert abs(loc - weighted) < error < abs(plain - weighted)
