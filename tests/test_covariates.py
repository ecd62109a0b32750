"""Covariates with holes: latent where they are missing, scored where they are known."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Bernoulli, MultivariateNormal, Normal

import pyro_vae as pv
from pyro_vae.model.joint import Joint

LINEAR = {"encoder": "MLP([])", "decoder": "MLP([])", "seed": 0}
BOTH = {"age": "Normal", "sex": "Bernoulli"}


def frame(n=24, seed=0):
    rng = np.random.default_rng(seed)
    age, sex = rng.normal(50, 10, n), rng.choice(["f", "m"], n)
    y = 0.1 * (age - 50) + (sex == "m") + rng.normal(size=n)
    data = pd.DataFrame({"age": age, "sex": sex, "y": y, "w": y + rng.normal(size=n)})
    data.loc[[1, 4, 7], "age"] = np.nan
    data.loc[[2, 4, 9], "sex"] = None
    return data


def model(condition="~ age + sex", covariates=None, data=None, **options):
    lines = {"y": "Normal(scale=learned)", "w": "Normal(scale=learned)"}
    table = pv.Table.from_frame(frame() if data is None else data, likelihood=lines)
    covariates = BOTH if covariates is None else covariates
    arguments = {"condition": condition, "covariates": covariates} | LINEAR | options
    vae = pv.VAE(table, 1, **arguments).double()
    vae.start_from(vae.as_data(frame() if data is None else data))
    with torch.no_grad():
        torch.manual_seed(1)
        for p in vae.parameters():
            p += 0.3 * torch.randn_like(p)
    return vae


def moments(vae, x, row, age, sex):
    """Mean and covariance of (y, w) of a row given both covariates: by hand, from the decoder."""
    c = vae.prior.marginals
    z = torch.zeros(3, len(x), 3).double()
    z[1, :, 0] = 1.0
    u = (torch.as_tensor(age).double() - c.centre[0]) / c.spread[0]
    z[..., 1], z[..., 2] = u, float(sex)
    p = vae.decode(z, x)
    places = [vae.record.columns.index(name) for name in "yw"]
    mean, variance = p.mean[:2, row][:, places], p.variance[0, row, places]
    load = mean[1] - mean[0]
    return mean[0], torch.outer(load, load) + variance.diag()


@torch.no_grad()
def log_marginal(vae, x, row):
    """log p(y, w, known covariates) of a row, by hand; the decoder is linear in age."""
    c, cells = vae.prior.marginals, vae.record.cells(x)[row]
    at = {name: cells[vae.record.columns.index(name)] for name in vae.record.columns}
    values = torch.stack([at["y"], at["w"]])
    loc = c.centre[0] + c.spread[0] * c.loc[0]
    sd = c.spread[0] * c.log_scale[0].exp()
    total = []
    for sex in (0, 1) if at["sex"].isnan() else (int(at["sex"]),):
        log_p = Bernoulli(logits=c.logits[0]).log_prob(torch.tensor(float(sex)).double())
        if at["age"].isnan():
            mean, covariance = moments(vae, x, row, loc, sex)
            slope = moments(vae, x, row, loc + 1, sex)[0] - mean
            covariance = covariance + sd**2 * torch.outer(slope, slope)
        else:
            mean, covariance = moments(vae, x, row, at["age"], sex)
            log_p = log_p + Normal(loc, sd).log_prob(at["age"])
        total.append(log_p + MultivariateNormal(mean, covariance).log_prob(values))
    return torch.stack(total).logsumexp(0)


@pytest.mark.slow
def test_the_evidence_of_rows_with_holes_sums_and_integrates_over_the_covariates():
    vae, data = model(), frame()
    x = vae.as_data(data)
    expected = torch.stack([log_marginal(vae, x, row) for row in range(len(x))])
    joint = Joint(vae, x)
    torch.manual_seed(0)
    with torch.no_grad():  # E[p(x | z, c)] over the prior, whose draws the guide has no part in
        log_p = joint.log_likelihood(joint.prior.sample((20_000,)))
    estimate = log_p.logsumexp(0) - np.log(20_000)
    weight = (log_p - estimate).exp()
    assert ((weight.mean(0) - (expected - estimate).exp()).abs() < 4 * weight.std(0) / 141).all()
    good = weight.std(0) / 141 < 0.1
    assert good[[1, 2, 4, 7]].all() and good.sum() > 15
    bound = pv.elbo(vae, data, num_samples=200, seed=0)
    assert (bound < expected + 0.2).all()


def test_what_is_known_of_a_covariate_leaves_nothing_to_its_latent():
    """Prior and guide agree there, and the decoder reads the value, whatever the latent is."""
    vae, data = model(), frame()
    x = vae.as_data(data)
    joint = Joint(vae, x)
    z = joint.draw(5)
    other = z.clone()
    other[..., 1] += 1.0
    known = ~x[:, vae.record.covariate_cells[0]].isnan()
    change = (joint.log_weight(other) - joint.log_weight(z)).abs()
    assert change[:, known].max() < 1e-9 and change[:, ~known].min() > 1e-6


def test_enumeration_over_missing_bits_is_the_guides_exact_sum_and_so_is_its_gradient():
    r"""sum over z and b of q(z|x) q(b|x) (log p(x, z, b) - log q(z, b|x)), at no draw at all."""
    vae = model("~ sex", {"sex": "Bernoulli"}, prior="Bernoulli", guide="Bernoulli")
    x = vae.as_data(frame())
    made = pv.make_estimator("TraceEnum_ELBO")
    loss = made.elbo.loss_and_grads(vae.model, made.wrap(vae.guide, x), x)
    found = [p.grad for p in vae.parameters()]
    joint, expected = Joint(vae, x), 0.0
    for state in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]:
        z = torch.tensor(state).double().expand(1, len(x), 2)
        log_q, log_p = joint.log_guide(z)[0], joint.log_joint(z)[0]
        expected = expected + torch.where(log_q > -100, log_q.exp() * (log_p - log_q), 0.0).sum()
    assert abs(loss + expected.item()) < 1e-8
    exact = torch.autograd.grad(-expected, list(vae.parameters()), allow_unused=True)
    pairs = [(a, b) for a, b in zip(found, exact, strict=True) if a is not None and b is not None]
    assert len(pairs) > 8 and max(b.abs().max() for _, b in pairs) > 0.1
    for got, right in pairs:
        assert torch.allclose(got, right, atol=1e-8)


@pytest.mark.slow
def test_imputing_a_covariate_is_its_posterior_mean():
    vae, data = model(), frame()
    x = vae.as_data(data)
    c = vae.prior.marginals
    filled = vae.impute(data, num_samples=20_000, seed=0)
    assert filled[["y", "w"]].equals(data[["y", "w"]]) and filled.notna().all(axis=None)
    with torch.no_grad():
        loc = c.centre[0] + c.spread[0] * c.loc[0]
        sd = c.spread[0] * c.log_scale[0].exp()
        for row in (1, 7):  # sex is known: the regression of age on y and w
            sex = int(data.sex[row] == "m")
            mean, covariance = moments(vae, x, row, loc, sex)
            slope = moments(vae, x, row, loc + 1, sex)[0] - mean
            whole = covariance + sd**2 * torch.outer(slope, slope)
            values = torch.tensor(data.loc[row, ["y", "w"]].to_numpy(float))
            expected = loc + sd**2 * slope @ torch.linalg.solve(whole, values - mean)
            spread = (sd**2 - sd**4 * slope @ torch.linalg.solve(whole, slope)).sqrt()
            assert abs(filled.age[row] - expected) < 5 * spread / 1000**0.5


@pytest.mark.slow
def test_a_model_with_covariates_is_trained_saved_and_drawn_from(tmp_path):
    data = frame()
    vae = model("~ age + sex + w")
    before = vae.prior.marginals.loc.clone()
    fit = pv.fit(vae, data, epochs=3, batch_size=8, seed=0)
    assert fit.history.elbo_train.notna().all() and not torch.equal(before, vae.prior.marginals.loc)
    pv.fit(vae, data, estimator="TraceEnum_ELBO", epochs=1, seed=0)
    again = pv.load(vae.save(tmp_path / "model"))
    assert torch.equal(again.as_data(data).nan_to_num(), vae.as_data(data).nan_to_num())
    assert torch.equal(again.encode(data).mean, vae.encode(data).mean)
    assert list(again.sample(3, given={"w": 1.0, "age": 40.0}, seed=0).age) == [40.0] * 3


REFUSED = {
    "not in the condition": ({"condition": "~ age"}, "names 'sex', and the condition '~ age' does"),
    "a function": ({"condition": "~ bs(age, 4) + sex"}, "'age' stands in 'bs\\(age, 4\\)'"),
    "a product": ({"condition": "~ age * sex"}, "stands in 'age:sex'"),
    "no condition": ({"condition": None}, "condition='~ age \\+ sex'"),
    "another family": ({"covariates": {"age": "Gamma"}}, "'Normal' or 'Bernoulli', got 'Gamma'"),
    "words": ({"condition": "~ sex", "covariates": {"sex": "Normal"}}, "'sex' holds words"),
    "p(z|c)": ({"prior": "Normal(loc=amortized)"}, "go with a prior of z alone"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_covariates_cannot_be_is_told(case):
    options, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        model(**options)


def test_covariates_are_of_tables():
    with pytest.raises(ValueError, match="covariates= are columns of a table"):
        pv.VAE(5, 2, covariates={"age": "Normal"}, seed=0)


@pytest.mark.parametrize("condition", ["~ age", "~ age + sex"])
def test_a_covariate_with_holes_is_no_condition_that_do_could_set(condition):
    vae = model(condition, {"age": "Normal"}, frame().fillna({"sex": "f"}))
    with pytest.raises(ValueError, match=r"'age' may have holes, .* given=\{'age': ...\}"):
        vae.counterfactual(frame().fillna({"sex": "f"})[:3], do={"age": 40.0})
