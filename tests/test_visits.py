"""Repeated measurements: subjects as observations, and priors over their visits."""

import math
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import multivariate_normal, vonmises
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

import pyro_vae as pv
from pyro_vae.cli.parts import read_rows
from pyro_vae.distributions import VonMises
from pyro_vae.evaluate.models.measures import base_measure
from pyro_vae.infer.estimators.soundness import check
from pyro_vae.model.forecast import _ends
from pyro_vae.model.joint import Joint, reading

LINEAR = {"encoder": "MLP([])", "decoder": "MLP([])", "seed": 0}
MIXED = "LinearMixed('time + (1 + time | subject)')"
PROCESS = "GaussianProcess(Matern32, over='time', by='subject', lengthscale=2.0, noise=0.3)"


def frame(seed=0, subjects=12):
    """Ragged visits: two to five of a subject, at times of their own, and a hole here and there."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(subjects):
        level, slope = rng.normal(size=2)
        for t in np.sort(rng.choice(np.arange(0, 10, 0.5), rng.integers(2, 6), replace=False)):
            mean = level + 0.3 * slope * t + 0.2 * t
            rows.append((f"s{i}", t, mean + rng.normal(0, 0.4), 2 - mean + rng.normal(0, 0.4)))
    data = pd.DataFrame(rows, columns=["subject", "time", "a", "b"])
    data.loc[data.index[[3, 11]], "a"] = np.nan
    return data


def table(data=None):
    lines = {"a": "Normal(scale=learned)", "b": "Normal(scale=learned)"}
    return pv.Table.from_frame(frame() if data is None else data, likelihood=lines)


def model(prior=MIXED, data=None, latent_dim=1, **options):
    return pv.VAE(table(data), latent_dim, prior=prior, **(LINEAR | options)).double()


def test_a_column_learns_its_own_scale_for_all_visits():
    (own,) = (p for name, p in model().likelihood.named_parameters() if "scale" in name)
    assert own.shape == (2,)


def test_a_cell_of_any_visit_has_the_kind_of_its_column():
    data = frame()
    data["a"] = np.arange(len(data)) % 4
    lines = {"a": "Poisson", "b": "Normal"}
    columns = pv.Table.from_frame(data.assign(c=data.a + 1), likelihood={**lines, "c": "Poisson"})
    vae = pv.VAE(columns, 1, prior=MIXED, **LINEAR)
    assert len(found := base_measure(vae, vae.as_data(columns))) == 3 * vae.record.visits
    assert all((kind == "densities") == name.startswith("b[") for name, kind in found.items())


@pytest.mark.slow
def test_imputations_of_visits_are_judged_by_column():
    """The cells of all visits together, as those of one visit are few; rounded as the rows are."""
    data = frame(subjects=60)
    vae = shaken(model(data=data))
    (rows,) = vae.sample(1, given=data[["subject", "time"]], seed=1)
    check = pv.imputation_check(vae, rows, share=0.2, draws=99, num_samples=200, seed=1)
    assert check.table.index.tolist() == ["a", "b"]
    expected = 0.2 * len(data)  # a hidden cell of a subject has a probability of its own
    assert (abs(check.table["cells"] - expected) < 4 * math.sqrt(expected)).all()
    assert not check.cells.duplicated(["row", "column"]).any()
    assert (check.table["p_value"] > 0.001).all()
    z = (check.table["coverage_90"] - 0.9) / check.table["coverage_90_error"]
    assert (abs(z) < 4).all()


@torch.no_grad()
def shaken(vae, seed=0):
    """The model with all its weights off their starting values."""
    torch.manual_seed(seed)
    for p in vae.parameters():
        p += 0.3 * torch.randn_like(p)
    return vae


def linear_parts(vae, x):
    """b, W and the scales of p(x|z) = N(W z + b, scale) at each visit."""
    z = torch.zeros(len(x), *vae.z_shape, dtype=x.dtype)
    at = [vae.decode(z, x)]
    for k in range(vae.z_shape[1]):
        one = z.clone()
        one[..., k] = 1
        at.append(vae.decode(one, x))
    b = at[0].mean
    scale = at[0].variance.sqrt()
    return b, torch.stack([p.mean - b for p in at[1:]], -1), scale


def log_marginal(vae, x):
    """log p(x) of each subject of a linear model, from its observed cells alone: by hand."""
    b, w, scale = linear_parts(vae, x)
    p, cells, out = vae.prior_at(x), vae.record.cells(x), []
    for i in range(len(x)):
        seen = ~cells[i].isnan().flatten()
        visits, dims = vae.z_shape
        load = torch.zeros(visits, cells.shape[-1], visits, dims, dtype=x.dtype)
        for t in range(visits):
            load[t, :, t] = w[i, t]
        load = load.flatten(2).flatten(0, 1)[seen]
        blocks = p.scale_tril[i] @ p.scale_tril[i].mT
        k = torch.zeros(visits, dims, visits, dims, dtype=x.dtype)
        for d in range(dims):
            k[:, d, :, d] = blocks[d]
        k = k.reshape(visits * dims, visits * dims)
        mean = b[i].flatten()[seen] + load @ p.mean[i].flatten()
        noise = scale[i].flatten()[seen].square()
        covariance = load @ k @ load.T + noise.diag()
        out.append(MultivariateNormal(mean, covariance).log_prob(cells[i].flatten()[seen]))
    return torch.stack(out)


@torch.no_grad()
def exact_factors(vae, x):
    """Set the guide of a model of one column and one latent dimension to the exact posterior."""
    b, w, scale = (one[0, 0].item() for one in linear_parts(vae, x))
    vae.inputs.start_from(x)
    centre, spread = (getattr(vae.inputs.readers[0], n).item() for n in ("centre", "spread"))
    loc, width = (vae.approximation.factor.sources[n] for n in ("loc", "scale"))
    loc.head.weight.copy_(torch.tensor([[spread / w, 0.0]]))
    loc.head.bias.fill_((centre - b) / w)
    width.head.weight.zero_()
    width.head.bias.fill_(width.transform.inv(torch.tensor(scale / abs(w)).double()))
    return vae


def one_column(prior, seed=0, **options):
    """A trained-looking linear model of column a alone, its guide exact, and its rows."""
    data = frame(seed)[["subject", "time", "a"]]
    lines = {"a": "Normal(scale=learned(0.5))"}
    rows = pv.Table.from_frame(data, likelihood=lines)
    vae = shaken(pv.VAE(rows, 1, prior=prior, **(LINEAR | options)).double())
    return exact_factors(vae, vae.as_data(data)), data


@pytest.mark.slow
@pytest.mark.parametrize("formula", ["(1 | subject)", "(0 + time | subject)", "(1+time|subject)"])
def test_the_density_of_a_linear_mixed_prior_is_that_of_its_marginal_normal(formula):
    vae = shaken(model(f"LinearMixed('time + {formula}', scale=learned(0.7))", latent_dim=2))
    data = frame()
    p, prior = vae.prior_at(vae.as_data(data)), vae.prior
    with torch.no_grad():
        z = p.sample((3,))
        got = p.log_prob(z)
        for i, name in enumerate(data.subject.unique()):
            t = data.time[data.subject == name].to_numpy()
            r = np.stack([t**k for k in (0, 1)], 1)[:, ["1" in formula, "time" in formula]]
            n, expected = len(t), 0.0
            for d in range(2):
                loc = t * prior.fixed_effects[d, 0].item()
                own = prior.random_covariance[d].numpy()
                sd = prior.noise(None)[d].item()
                covariance = r @ own @ r.T + sd**2 * np.eye(n)
                expected += multivariate_normal(loc, covariance).logpdf(z[:, i, :n, d].numpy())
            expected += -0.5 * (z[:, i, n:] ** 2 + math.log(2 * math.pi)).sum((1, 2)).numpy()
            assert np.allclose(got[:, i].numpy(), expected, atol=1e-9)


def test_where_time_begins_changes_no_training_of_a_linear_mixed_prior():
    models, data = [], frame()
    for start in (0, 2020):
        vae = model(data=data.assign(time=data.time + start))
        told = {"epochs": 5, "lr": 0.05, "seed": 0}
        models.append((vae, pv.fit(vae, data.assign(time=data.time + start), **told).history))
    (vae, one), (later, other) = models
    assert np.allclose(one.elbo_train, other.elbo_train, rtol=1e-9)
    assert torch.allclose(vae.prior.fixed_effects, later.prior.fixed_effects)
    level, design = later.prior.random_covariance, torch.tensor([[1.0, 2020.0], [0, 1]]).double()
    assert torch.allclose(vae.prior.random_covariance, design @ level @ design.mT, atol=1e-6)


@pytest.mark.slow
def test_the_unit_of_time_changes_no_training_of_a_process():
    prior, found = "GaussianProcess(Matern32, over='time', by='subject')", []
    for unit in (1, 1000):
        data = frame().assign(time=frame().time * unit)
        told = {"epochs": 5, "lr": 0.05, "seed": 0}
        found.append(pv.fit(model(prior, data), data, **told).history.elbo_train)
    assert np.allclose(*found, rtol=1e-9)
    periodic = model("GaussianProcess(Periodic, period=2.0, over='time', by='subject')", data)
    periodic.start_from(periodic.as_data(data))
    assert periodic.prior.parameters_of["lengthscale"](None).item() == pytest.approx(1.0)


def test_weights_of_a_process_without_a_unit_are_read():
    prior = model("GaussianProcess(Matern32, over='time', by='subject')").prior
    old = {name: value for name, value in prior.state_dict().items() if name != "unit"}
    assert prior.load_state_dict(old).missing_keys == [] and prior.unit == 1


def test_weights_of_a_linear_mixed_prior_without_centres_are_read():
    prior = model("LinearMixed('time + (1 + time | subject)')").prior
    old = {name: value for name, value in prior.state_dict().items() if name != "centre"}
    assert prior.load_state_dict(old).missing_keys == [] and not prior.centre.any()


@pytest.mark.parametrize(
    ("formula", "names"),
    [
        ("center(time) + (1 + center(time) | subject)", ("center(time)",)),
        ("(1 + log1p(time) | subject) + (I(time ** 2) + time)", ("I(time ** 2)", "time")),
    ],
)
def test_a_mixed_formula_may_call_functions(formula, names):
    prior = model(f"LinearMixed('{formula}')").prior
    assert set(prior.columns["fixed"]) == set(names) and prior.by == "subject"


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "RBF, lengthscale=2.0",
        "Matern12, lengthscale=2.0",
        "Matern32, lengthscale=2.0",
        "Matern52, lengthscale=2.0, constant=0.8",
        "Matern32, lengthscale=2.0, constant=0.8, noise=0.5",
    ],
)
def test_the_density_of_processes_by_subject_is_that_of_scikit_learns_kernel(line):
    prior = f"GaussianProcess({line}, scale=1.5, over='time', by='subject')"
    vae, data = model(prior, latent_dim=2), frame()
    kernel = (
        2.25
        * {
            "RBF": kernels.RBF(2.0),
            "Matern12": kernels.Matern(2.0, nu=0.5),
            "Matern32": kernels.Matern(2.0, nu=1.5),
            "Matern52": kernels.Matern(2.0, nu=2.5),
        }[line.split(",")[0]]
    )
    p = vae.prior_at(vae.as_data(data))
    z = p.sample()
    for i, name in enumerate(data.subject.unique()):
        t = data.time[data.subject == name].to_numpy()[:, None]
        n = len(t)
        covariance = kernel(t) + 2.25e-4 * np.eye(n)
        covariance += 0.64 * ("constant" in line) + 0.25 * ("noise" in line) * np.eye(n)
        rest = -0.5 * (z[i, n:] ** 2 + math.log(2 * math.pi)).sum()
        expected = sum(
            MultivariateNormal(torch.zeros(n).double(), torch.tensor(covariance)).log_prob(
                z[i, :n, d]
            )
            for d in range(2)
        )
        found = p.log_prob(z)[i]
        assert abs(found.item() - (expected + rest).item()) < 1e-5  # numbers of single precision


def sleepstudy():
    data = os.environ.get("PYRO_VAE_DATA")
    if not data or not (path := Path(data) / "tables" / "sleepstudy.csv").exists():
        pytest.skip("needs $PYRO_VAE_DATA/tables/sleepstudy.csv")
    return pd.read_csv(path)


@pytest.mark.slow
def test_the_best_likelihood_on_sleepstudy_is_that_of_lme4():
    """Reaction ~ Days + (Days | Subject) by maximum likelihood, as lme4 prints it."""
    data = sleepstudy()
    line = {"Reaction": "Normal(scale=learned)"}
    vae = pv.VAE(
        pv.Table.from_frame(data, likelihood=line),
        1,
        prior="LinearMixed('Days + (1 + Days | Subject)')",
        **LINEAR,
    ).double()
    vae.start_from(x := vae.as_data(data))
    own = [*vae.prior.parameters(), *vae.decoder.parameters(), *vae.likelihood.parameters()]
    best = torch.optim.LBFGS(own, max_iter=500, line_search_fn="strong_wolfe", tolerance_change=0)

    def loss():
        best.zero_grad()
        value = -log_marginal(vae, x).sum()
        value.backward()
        return value

    best.step(loss)
    with torch.no_grad():
        b, w, scale = (one.flatten()[0].item() for one in linear_parts(vae, x))
        slope = w * vae.prior.fixed_effects.item()
        own = w**2 * vae.prior.random_covariance[0]
        sd, residual = own.diagonal().sqrt(), math.sqrt(w**2 + scale**2)
        assert abs(log_marginal(vae, x).sum().item() + 875.970) < 0.01
    b -= slope * vae.prior.centre[0].item()  # the constant where Days are 0
    assert abs(b - 251.405) < 0.01 and abs(slope - 10.467) < 0.001
    assert abs(sd[0].item() - 23.78) < 0.01 and abs(sd[1].item() - 5.717) < 0.002
    assert abs((own[0, 1] / sd.prod()).item() - 0.08) < 0.005
    assert abs(residual - 25.592) < 0.002
    exact_factors(vae, x)
    for seed in range(2):  # the bound is the likelihood
        bound = pv.elbo(vae, data, num_samples=1, seed=seed)
        assert bound.shape == (18,) and abs(bound.sum().item() + 875.970) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("prior", [MIXED, PROCESS])
@pytest.mark.parametrize("visits", [None, 9])
def test_the_bound_of_the_exact_guide_is_the_likelihood_of_ragged_visits_with_holes(prior, visits):
    prior = prior if visits is None else f"{prior[:-1]}, visits={visits})"
    vae, data = one_column(prior)
    x = vae.as_data(data)
    assert x.shape[:2] == (12, visits or data.subject.value_counts().max())
    with torch.no_grad():
        expected = log_marginal(vae, x)
    bound = pv.elbo(vae, data, num_samples=1, seed=0)
    found = pv.log_evidence(vae, data, num_samples=10, seed=0)
    for estimate in (bound, found.log_evidence):  # rounded as sums of their size are
        assert torch.allclose(estimate, expected, rtol=2e-8, atol=1e-6)


@pytest.mark.slow
def test_the_evidence_of_a_guide_that_is_not_exact_is_the_likelihood_still():
    vae, data = one_column(MIXED)
    with torch.no_grad():
        vae.approximation.factor.sources["scale"].head.bias += 0.3
        expected = log_marginal(vae, vae.as_data(data))
    found = pv.log_evidence(vae, data, num_samples=2000, seed=0)
    assert found.khat.max() < 0.7 and found.standard_error.max() < 0.1
    z_score = (found.log_evidence - expected) / found.standard_error
    assert z_score.abs().max() < 4
    assert pv.elbo(vae, data, num_samples=200, seed=0).sum() < expected.sum() - 0.2


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["Conjugate", "Normal"])
@pytest.mark.parametrize("prior", [MIXED, PROCESS])
def test_the_divergence_of_a_guide_is_that_of_the_visits_that_there_are(prior, guide):
    vae, data = shaken(model(prior, latent_dim=2, guide=guide)), frame()
    x = vae.as_data(data)
    with torch.no_grad():
        q, p = vae.encode(data), vae.prior_at(x)
        found = kl_divergence(q, p)
        for i, n in enumerate(data.subject.value_counts(sort=False)):
            k = (p.scale_tril[i] @ p.scale_tril[i].mT)[:, :n, :n]
            variance = q.variance[i].mT
            own = (
                q.scale_tril[i] @ q.scale_tril[i].mT
                if guide == "Conjugate"
                else variance.diag_embed()
            )
            first = MultivariateNormal(q.mean[i].mT[:, :n], own[:, :n, :n])
            by_hand = kl_divergence(first, MultivariateNormal(p.mean[i].mT[:, :n], k)).sum()
            assert abs(found[i] - by_hand) < 1e-8 * (1 + by_hand)


@pytest.mark.slow
def test_a_forecast_is_the_posterior_of_scikit_learns_process():
    (vae, data), n = one_column(PROCESS), 1000
    x, at = vae.as_data(data), [0.25, 4.1, 12.0]
    b, w, scale = (one[0, 0].item() for one in linear_parts(vae, x))
    kernel = w**2 * (kernels.Matern(2.0, nu=1.5) + kernels.WhiteKernel(0.09 + 1e-4))
    kernel += kernels.WhiteKernel(scale**2)
    draws = vae.forecast(data, at, draws=n, seed=0)
    found, ratios = np.stack([d.a.to_numpy().reshape(12, 3) for d in draws]), []
    for i, name in enumerate(data.subject.unique()):
        seen = data[(data.subject == name) & data.a.notna()]
        process = GaussianProcessRegressor(kernel, optimizer=None, alpha=1e-12)
        process.fit(seen[["time"]].to_numpy(), seen.a - b)
        mean, covariance = process.predict(np.array(at)[:, None], return_cov=True)
        z_score = (found[:, i].mean(0) - b - mean) / (found[:, i].std(0) / n**0.5)
        assert np.abs(z_score).max() < 4.5
        sd = np.sqrt(np.diag(covariance))
        ratios.append(found[:, i].std(0) / sd)
        assert np.abs(ratios[-1] - 1).max() < 4.5 / (2 * n) ** 0.5
        r = np.corrcoef(found[:, i].T)  # one draw is a whole course
        expected = covariance / np.outer(sd, sd)
        assert (
            np.abs(
                np.arctanh(r[[0, 0, 1], [1, 2, 2]] - 0) - np.arctanh(expected[[0, 0, 1], [1, 2, 2]])
            ).max()
            < 4.5 / n**0.5
        )
    assert np.abs(np.mean(ratios, 0) - 1).max() < 4.5 / (2 * n * len(ratios)) ** 0.5
    point = vae.forecast(data, at, seed=0)
    assert list(point.subject) == [n for n in data.subject.unique() for _ in at]
    assert ((point.a_lower < point.a) & (point.a < point.a_upper)).all()
    covered = (found.reshape(n, -1) > point.a_lower.to_numpy()) & (
        found.reshape(n, -1) < point.a_upper.to_numpy()
    )
    assert np.abs(covered.mean(0) - 0.9).max() < 0.06  # quantiles of 1,000 draws, seen by as many


@pytest.mark.slow
def test_a_forecast_is_right_where_the_guide_is_far_off_and_says_so_where_it_cannot_be(monkeypatch):
    (vae, data), n, found = one_column(PROCESS), 2000, []
    data = data[data.subject.isin(["s7", "s9"])]
    for shift in (0.0, 6.0):
        with torch.no_grad():
            vae.approximation.factor.sources["loc"].head.bias += shift
            vae.approximation.factor.sources["scale"].head.bias -= shift / 2
        found.append(vae.forecast(data, [3.05, 5.05], num_samples=n, seed=0))
    right, far = found
    error = (right.a_upper - right.a_lower) / 3.29 * (2 / n) ** 0.5  # of draws, at most
    assert ((far.a - right.a) / error).abs().max() < 4.5
    monkeypatch.setattr("pyro_vae.model.forecast.ROUNDS", 1)
    with pytest.warns(UserWarning, match="of 2 subjects are doubtful"):
        vae.forecast(data, [3.05], num_samples=100, seed=0)


@pytest.mark.slow
def test_a_forecast_takes_times_or_rows_and_says_what_it_lacks():
    vae, data = model(), frame()
    rows = pd.DataFrame({"subject": ["s3", "s1"], "time": [20.0, 21.0]})
    assert list(vae.forecast(data, rows, seed=0).subject) == ["s3", "s1"]
    assert vae.forecast(data, [20.0], seed=0).shape == (12, 2 + 2 + 4)
    with pytest.raises(ValueError, match="subject s99 has no row among those that were seen"):
        vae.forecast(data, rows.assign(subject="s99"))
    with pytest.raises(ValueError, match="the new rows have no column 'time'"):
        vae.forecast(data, rows[["subject"]])
    with pytest.raises(ValueError, match="holds no time"):
        vae.forecast(data, [])
    with pytest.raises(ValueError, match="forecast is of repeated measurements"):
        pv.VAE(table(), 2, seed=0).forecast(data, [1.0])
    constant = model("LinearMixed('(1 | subject)')", data.drop(columns="time"))
    with pytest.raises(ValueError, match="give at= as a frame of new rows with subject"):
        constant.forecast(data.drop(columns="time"), [1.0])


@pytest.mark.slow
@pytest.mark.parametrize("prior", [MIXED, PROCESS])
def test_a_forecast_is_before_and_between_visits_at_whole_times(prior):
    """A column of times from 0 is no column of counts."""
    data = frame().assign(time=frame().groupby("subject").cumcount())
    before = model(prior, data).forecast(data, [-1], seed=0)
    assert (before.time == -1).all() and before.time.dtype == data.time.dtype
    with pytest.raises(ValueError, match="make the table from a frame that has such numbers"):
        model(prior, data).forecast(data, [0.5])
    data = data.astype({"time": float})
    assert list(model(prior, data).forecast(data, [-1, 0.5], seed=0).time[:2]) == [-1, 0.5]


@pytest.mark.slow
def test_a_model_of_visits_is_trained_over_subjects_resumed_and_loaded(tmp_path):
    vae = model(latent_dim=2)
    fit = pv.fit(vae, table(), epochs=4, batch_size=5, seed=0, out=tmp_path / "run")
    assert fit.history.elbo_train.iloc[-1] > fit.history.elbo_train.iloc[0]
    again = pv.load(vae.save(tmp_path / "model"))
    data = frame()
    assert torch.equal(again.encode(data).mean, vae.encode(data).mean)
    assert torch.equal(
        again.prior_at(again.as_data(data)).mean, vae.prior_at(vae.as_data(data)).mean
    )
    new = pd.DataFrame({"subject": ["x", "x", "y"], "time": [0.0, 1.0, 2.0]})
    drawn = again.sample(3, given=new, seed=0)
    assert len(drawn) == 3 and list(drawn[0].subject) == ["x", "x", "y"]
    assert drawn[0].notna().all(axis=None)
    filled = vae.impute(data, seed=0)
    assert filled.notna().all(axis=None) and filled.index.equals(data.index)
    assert filled.b.equals(data.b)


BAD = {
    "a visit twice": (
        lambda d: pd.concat([d, d.iloc[[2]]], ignore_index=True),
        r"subject s\d has two visits at time [\d.]+: rows 2 and \d+",
    ),
    "nobody's visit": (
        lambda d: d.assign(subject=d.subject.where(d.index != 4))[1:],
        r"'subject', row 3 \(index 4\): it is missing, so .*\nleave the row out, or give its subj",
    ),
    "nobody's of pandas' own": (
        lambda d: d.assign(subject=d.subject.where(d.index != 4).astype("string")),
        "'subject', row 4",
    ),
    "no time": (lambda d: d.assign(time=d.time.where(d.index != 4)), "column 'time', row 4"),
    "too many visits": (
        lambda d: pd.DataFrame({"subject": "s0", "time": np.arange(8.0), "a": 0.1, "b": 0.1}),
        r"subject s0 has 8 visits, and this model reads \d of a subject: .*visits=8",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_rows_that_are_no_visits_are_told(case):
    change, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        model().as_data(change(frame()))


def test_rows_of_a_file_that_are_no_visits_are_told_by_their_line(tmp_path):
    data = frame()
    data.assign(subject=data.subject.where(data.index != 4)).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(
        ValueError, match=r"x.csv: column 'subject', row 4 \(line 6\): it is missin"
    ):
        read_rows(tmp_path, model(), tmp_path / "x.csv")


REFUSED = {
    "another's subject": ("LinearMixed('(1 | subjct)')", "no such column; did you mean subject"),
    "another's column": ("LinearMixed('tim + (1 | subject)')", "names 'tim'.*did you mean time"),
    "no subject": ("LinearMixed('time')", "one term of a subject's own effects"),
    "two terms": ("LinearMixed('(1 | subject) + (1 | time)')", "one term of a subject's own"),
    "no effect": ("LinearMixed('(0 | subject)')", "gives a subject no effect"),
    "no formula": ("LinearMixed('time ++* (1 | subject)')", "is no formula|cannot be read"),
    "no by": ("GaussianProcess(RBF, over='time')", "go together"),
    "a subject's over": (
        "GaussianProcess(RBF, over='subject', by='subject')",
        "over= is a column of times, and by= one of subjects, got 'subject'",
    ),
    "an unknown over": ("GaussianProcess(RBF, over='tiem', by='subject')", "did you mean time"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_prior_of_visits_is_told(case):
    line, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        model(line)


def test_a_subject_that_is_seen_once_is_said_and_works():
    data = frame().drop_duplicates("subject").iloc[:3]
    data = pd.concat([frame().iloc[10:], data.assign(subject=["u", "v", "w"])], ignore_index=True)
    with pytest.warns(UserWarning, match="of .* subjects are seen once, the first"):
        vae = model(data=data)
    assert pv.elbo(vae, data, seed=0).isfinite().all()


def test_one_subject_alone_is_said_and_works():
    data = frame().assign(subject="s0", time=np.arange(len(frame())))
    with pytest.raises(ValueError, match="if they are groups, 'integer', if they are"):
        model(data=data)
    lines = {"a": "Normal(scale=learned)", "b": "Normal(scale=learned)"}
    rows = pv.Table.from_frame(data, likelihood=lines, kinds={"time": "integer"})
    with pytest.warns(UserWarning, match=r"all \d+ rows are of one subject, s0: they tell nothing"):
        vae = pv.VAE(rows, 1, prior=MIXED, **LINEAR)
    assert pv.elbo(vae, data, seed=0).isfinite().all()


def test_two_rows_at_one_time_are_said_where_they_may_be_meant():
    data = pd.concat([frame(), frame().iloc[[2]]], ignore_index=True)
    with pytest.warns(
        UserWarning, match=r"subject s0 has two visits at time .*: rows 2 and \d+; both"
    ):
        model("LinearMixed('time + (1 | subject)')", data=data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an age at the start is of a subject
        model(
            "LinearMixed('time + (1 | subject)')",
            data=data.assign(time=1.0 + (data.subject == "s0")),
        )


def test_what_visits_cannot_be_combined_with_is_told():
    with pytest.raises(ValueError, match="in one layer"):
        pv.VAE(table(), layers=[3, 2], prior=MIXED, seed=0)
    with pytest.raises(ValueError, match="is of rows, not of visits"):
        model(missing="SelfMasking")
    with pytest.raises(ValueError, match="reads the columns of a table"):
        pv.VAE(5, 2, prior=MIXED, seed=0)
    with pytest.raises(ValueError, match="'Conjugate' or 'Normal', got Laplace"):
        model(guide="Laplace")
    with pytest.raises(ValueError, match="whole guide of a table's visits"):
        pv.VAE(5, 2, guide="Conjugate", seed=0)
    with pytest.raises(ValueError, match=r"sample\(10, given=frame\) of rows with subject, time"):
        model().sample(3)


@pytest.mark.slow
@pytest.mark.parametrize("at", [[20.0], "rows"])
def test_a_forecast_needs_no_weight(at):
    data = frame()
    data["w"] = data.subject.astype("category").cat.codes + 1.0
    vae = model(data=data, weight="w")
    rows = pd.DataFrame({"subject": [f"s{i}" for i in range(12)], "time": 20.0})
    found = vae.forecast(data, rows if at == "rows" else at, seed=0)
    plain = vae.forecast(data.assign(w=1.0), at if at != "rows" else rows, seed=0)
    assert found.equals(plain), "no forecast depends on a weight"
    assert "w" not in found


@pytest.mark.slow
def test_what_is_asked_of_a_model_of_visits_is_answered_by_subject():
    vae, data = shaken(model(latent_dim=2)), frame()
    names = list(data.subject.unique())
    arviz = pv.to_arviz(vae, data, num_samples=8, seed=0)
    assert list(arviz.posterior.observation.to_numpy()) == names
    assert arviz.posterior["z"].sizes["latent_dim"] == vae.record.visits
    there = vae.as_data(data)[..., -1].numpy() > 0
    for group in (arviz.posterior_predictive, arviz.prior_predictive):
        assert not there.all() and (group["x"].notnull().to_numpy() == there[..., None]).all()
    assert pv.calibration(vae, 20, given=data, num_samples=9, seed=0).ranks.shape[0] == 20
    assert pv.rate_distortion(vae, data).shape[0] == 12
    assert pv.latent_summary(vae, data, seed=0) is not None
    assert vae.refine(data, steps=2, seed=0).batch_shape == (12,)
    assert vae.reconstruct(data).shape == data.shape
    with pytest.raises(ValueError, match="subjects have visits that are not"):
        pv.compress(vae, data)
    with pytest.raises(ValueError, match="no images"):
        pv.plots.reconstructions(vae, data)
    with pytest.raises(ValueError, match="the prior of visits is not exchanged"):
        pv.fit_prior(vae, data, "Mixture(Normal(loc=learned), components=2)")


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Trace_ELBO(gradient=stl)", "DReG(num_particles=2)"])
def test_estimators_of_a_prior_that_the_guide_reads_too_have_the_same_mean(line):
    """The prior's parameters are in the guide: gradients agree with those of the plain bound."""
    vae, data = one_column(MIXED)
    with torch.no_grad():  # not exact, or each gradient were 0
        vae.approximation.factor.sources["scale"].head.bias += 0.5
    x = vae.as_data(data)
    reference = "RenyiELBO(alpha=0, num_particles=2)" if "DReG" in line else "Trace_ELBO"
    means, errors = [], []
    for i, name in enumerate((line, reference)):
        made = pv.make_estimator(name)
        guide, draws = made.wrap(vae.guide, x), []
        torch.manual_seed(i)
        for _ in range(120):
            vae.zero_grad()
            made.elbo.loss_and_grads(vae.model, guide, x)
            grads = [p.grad for p in vae.parameters() if p.grad is not None]
            draws.append(torch.cat([g.flatten() for g in grads]))
        draws = torch.stack(draws)
        means.append(draws.mean(0))
        errors.append(draws.std(0) / 120**0.5)
    z_score = (means[0] - means[1]) / (errors[0] ** 2 + errors[1] ** 2).sqrt().clamp(min=1e-9)
    assert z_score.abs().max() < 5 and means[0].abs().max() > 0.1


@pytest.mark.slow
def test_an_estimator_whose_guide_has_its_own_objective_is_refused_where_it_shares_the_prior():
    x = model().as_data(frame())
    for line in ("RWS", "CUBO"):
        made = pv.make_estimator(line)
        store = pyro.get_param_store()
        with store.scope(), pytest.raises(ValueError, match="of guide and model: use Trace_ELBO"):
            check(made, (vae := model()).model, vae.guide, x)
        with store.scope():
            check(made, (vae := model(guide="Normal")).model, vae.guide, x)


class OwnGuide(nn.Module):
    """A module of the user's, which has no line."""

    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(2)

    def forward(self, features):
        loc, scale = self.head(features).chunk(2, -1)
        return dist.Normal(loc, scale.exp()).to_event(1)


def test_a_module_of_the_users_is_the_guide_of_a_visit():
    vae = model(latent_dim=1, guide=OwnGuide())
    assert vae.approximation.spec is None and "OwnGuide" in str(vae.approximation)
    assert pv.elbo(vae, frame(), seed=0).isfinite().all()


def test_simulated_subjects_have_the_visits_of_those_that_are_given():
    vae = model().float()
    x = vae.as_data(frame())
    ((_, drawn),) = vae.simulate(len(x), x, 100)
    there = x[..., -1] > 0
    assert not there.all()  # some have fewer visits
    assert torch.equal(~vae.record.cells(drawn).isnan().any(-1), there)
    table = pv.predictive_check(vae, pd.concat([frame()] * 2).assign(
        subject=[f"{s}{i // 46}" for i, s in enumerate(pd.concat([frame()] * 2).subject)]
    ), num_samples=30)  # fmt: skip
    assert table.num_data >= 20


def test_one_goes_from_a_subject_to_another():
    vae, data = model().float(), frame()
    first, last = data[data.subject == "s0"], data[data.subject == "s1"]
    with pytest.raises(ValueError, match="expected one observation, got 12"):
        vae.interpolate(data, last)
    line = vae.interpolate(first, last, 3)
    assert line.shape == (3, *vae.x_shape)


@pytest.mark.slow
def test_conditions_and_exposures_of_visits_are_read_at_the_scale_of_the_visits_there_are():
    data = frame().assign(dose=lambda rows: 50 + 5 * rows.time, years=lambda rows: 1 + rows.time)
    counts = np.random.default_rng(0).poisson(3 * data.years)
    data = data[["subject", "time", "dose", "years"]].assign(n=counts)
    whole = pv.Table.from_frame(data, likelihood={"n": "Poisson"})
    vae = pv.VAE(whole, 1, prior=MIXED, condition="~ dose", offset="years", **LINEAR)
    pv.fit(vae, data, epochs=1, batch_size=4, progress=False, compile=False)
    middle = data.dose.median()
    spread = (data.dose - middle).abs().mean() * math.sqrt(math.pi / 2)
    assert vae.inputs.context.centre.item() == pytest.approx(middle)
    assert vae.inputs.context.spread.item() == pytest.approx(spread, rel=1e-5)
    assert vae.inputs.exposure.centre.item() == pytest.approx(math.log(data.years.median()))
    with torch.no_grad():
        assert pv.elbo(vae, data, seed=0).isfinite().all()


def of_counts():
    """Events in some years, beside a dose."""
    data = frame()[["subject", "time"]]
    data = data.assign(dose=data.time - 3.5, years=1 + data.time, n=range(len(data)))
    lines = {"n": "Poisson", "dose": "Normal"}
    vae = pv.VAE(
        pv.Table.from_frame(data, likelihood=lines), 1, prior=MIXED, offset="years", **LINEAR
    )
    vae.start_from(vae.as_data(data))
    return vae, data


def test_an_exposure_is_of_each_visit_and_of_the_counts_alone():
    vae, data = of_counts()
    x, names = vae.as_data(data), vae.record.row_record.columns
    at, n, nan = vae.record.there(x).squeeze(-1), names.index("n"), math.nan
    vae.record.unpack(other := x.clone())["offset"].zero_()
    with torch.no_grad():
        z = vae.prior_at(x).sample()
        ratio = vae.decode(z, x).mean / vae.decode(z, other).mean
    years = torch.tensor(data.years.to_numpy()).to(ratio)
    by_row = vae.record.by_row(ratio, vae.record.read(data))[:, n]
    assert by_row.numpy() == pytest.approx(years.numpy(), rel=1e-5)
    assert ratio[..., names.index("dose")][at].numpy() == pytest.approx(1)
    assert pv.elbo(vae, data, seed=0).isfinite().all()
    found = pv.rates(vae, data, num_samples=5, seed=0)
    with torch.no_grad(), reading(vae, 0):
        expected = vae.decode(Joint(vae, x).draw(5), other).mean.mean(0).where(at[..., None], nan)
    assert found.to_numpy() == pytest.approx(expected.flatten(1).numpy(), nan_ok=True)


def test_columns_of_visits_and_steps_have_no_fold_changes():
    vae, data = of_counts()
    with pytest.raises(ValueError, match="compares the columns of rows, and an observation here"):
        pv.differential_expression(vae, data, [0], [1])
    rows = [torch.ones(3, 2), torch.zeros(2, 2)]
    steps = pv.VAE((None, 2), 1, likelihood="Poisson", encoder="GRU(4)", decoder="GRU(4)", seed=0)
    with pytest.raises(ValueError, match="take a model of rows"):
        pv.differential_expression(steps, rows, [0], [1])
    with pytest.raises(ValueError, match=r"not of sequences: vae\.reconstruct\(x\) has the means"):
        pv.rates(steps, rows)


@pytest.mark.slow
@pytest.mark.parametrize("prior", [MIXED, PROCESS])
def test_refining_moves_no_data(prior):
    """What the guide reads of the visits stays: a step along it is not finite at distance 0."""
    vae = shaken(model(prior))
    x, seen = vae.as_data(frame()), []
    bound = pv.elbo(vae, x, num_samples=200, seed=0)
    vae.approximation.register_forward_hook(lambda _, told, __: seen.append(told[0].detach()))
    q = vae.refine(x, steps=20, seed=0)
    beside = vae.record.beside(x)
    assert all(torch.equal(h[..., -beside.shape[-1] :], beside) for h in seen) and len(seen) > 20
    z = q.sample(torch.Size([200]))
    with torch.no_grad():
        better = (Joint(vae, x).log_joint(z) - q.log_prob(z)).mean(0)
    assert (better - bound).sum() > -0.1
    one, other = (frame()[frame().subject == s] for s in ("s1", "s2"))
    assert pv.gaps(vae, frame(), steps=2, num_samples=20, seed=0)["approximation"].notna().all()
    assert len(vae.interpolate(one, other, 3)) == 3


def test_the_interval_of_an_angle_goes_through_pi():
    """Of numbers it was from one end of the circle to the other, and did not hold the angle."""
    torch.manual_seed(0)
    draws = VonMises(torch.tensor([3.0, -3.0, 0.5]), torch.tensor(50.0))
    draws = draws.sample(torch.Size([20_000, 1]))
    value = torch.tensor([[3.0, -3.0, 0.5]])
    low, high = _ends(draws, 0.9, value, torch.tensor([True, True, False]))
    half = vonmises(50.0).ppf(0.95)
    away = torch.stack([value - low, high - value]).remainder(2 * math.pi)
    error = 4 * (0.05 * 0.95 / 20_000) ** 0.5 / vonmises(50.0).pdf(half)
    assert (away - half).abs().max() < error < 0.02
    assert (low > high).tolist() == [[True, True, False]]
