"""scikit-learn's face: its conventions, pipelines, searches over lines, exact figures."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import pyro_vae as pv
from pyro_vae.sklearn import EXPECTED_FAILED_CHECKS, VAEImputer, VAETransformer

ESTIMATORS = [VAEImputer, VAETransformer]
SMALL = {"latent_dim": 1, "encoder": "MLP([4])", "decoder": "MLP([])", "random_state": 0}


def holed(n=120, share=0.2, seed=0):
    """Correlated columns of unlike units, with holes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1)) * [1.0, 2, -1] + 0.5 * rng.normal(size=(n, 3))
    x = x * [1.0, 1000, 0.01] + [5.0, 50_000, 0]
    return np.where(rng.random(x.shape) < share, math.nan, x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_conventions(kind):
    estimator = kind(**SMALL, epochs=2, num_samples=4)
    found = check_estimator(estimator, expected_failed_checks=EXPECTED_FAILED_CHECKS, on_skip=None)
    failed = {c["check_name"] for c in found if c["status"] == "xfail"}
    assert failed == set(EXPECTED_FAILED_CHECKS) and len(failed) <= 3


@pytest.fixture(scope="module")
def trained():
    """Linear, so that log p(x) and imputations have a closed form; the guide has heavy tails."""
    x, guide = holed(), "StudentT(df=4)"
    return x, VAEImputer(**SMALL, guide=guide, epochs=60, lr=0.02, num_samples=500).fit(x)


def gaussian(imputer):
    """The mean and covariance of x in its own units."""
    with torch.no_grad():
        ends = imputer.vae_.decode(torch.tensor([[0.0], [1.0]]).double()).base_dist
        loc, weight = ends.loc[0].numpy(), (ends.loc[1] - ends.loc[0]).numpy()
        noise = ends.scale[0].numpy() ** 2
    return loc, np.outer(weight, weight) + np.diag(noise)


@pytest.mark.slow
def test_log_densities_are_exact_in_the_units_of_the_data(trained):
    x, imputer = trained
    mean, covariance = gaussian(imputer)
    exact = []
    for row in x:
        o = ~np.isnan(row)
        d, c = row[o] - mean[o], covariance[np.ix_(o, o)]
        log_det = np.linalg.slogdet(2 * math.pi * c)[1] if o.any() else 0
        exact.append(-0.5 * (d @ np.linalg.solve(c, d) + log_det))
    found = imputer.score_samples(x)
    evidence = pv.log_evidence(imputer.vae_, x, num_samples=500, seed=imputer.seed_)
    error = (found - exact) / evidence.standard_error.numpy()
    assert 0.5 < np.sqrt((error**2).mean()) < 1.5
    assert abs(error.mean()) < 4 / math.sqrt(len(x))


@pytest.mark.slow
def test_imputations_are_the_conditional_means(trained):
    x, imputer = trained
    mean, covariance = gaussian(imputer)
    exact = x.copy()
    for row in exact:
        o = ~np.isnan(row)
        gain = covariance[np.ix_(~o, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
        row[~o] = mean[~o] + gain @ (row[o] - mean[o])
    missing, seed, filled = np.isnan(x), imputer.seed_, []
    for imputer.seed_ in range(16):
        filled.append(imputer.transform(x))
    imputer.seed_ = seed
    assert np.array_equal(filled[0][~missing], x[~missing])
    gap = (np.mean(filled, 0) - exact)[missing] / (np.std(filled, 0, ddof=1)[missing] / 4)
    assert np.sqrt((gap**2).mean()) < 1.5  # 1.07 expected of Student's t
    z = (exact - np.nanmean(x, 0)) / np.nanstd(x, 0)
    assert np.abs(z[missing]).mean() > 0.3  # and they are not the columns' means


@pytest.mark.slow
def test_other_units_change_the_density_by_their_logarithm():
    x, unit = holed(40), np.array([1000.0, 0.5, 7])
    one, other = (VAEImputer(**SMALL, epochs=3).fit(v) for v in (x, x * unit))
    expected = one.score_samples(x) - ~np.isnan(x) @ np.log(unit)
    assert other.score_samples(x * unit) == pytest.approx(expected)
    assert other.transform(x * unit) == pytest.approx(one.transform(x) * unit)


@pytest.mark.slow
def test_rows_come_back_from_z():
    x = holed(200, share=0.0)
    reducer = VAETransformer(**SMALL | {"encoder": "MLP([])"}, epochs=80, lr=0.02).fit(x)
    back = reducer.inverse_transform(reducer.transform(x))
    left = ((x - back) ** 2).sum(0) / ((x - x.mean(0)) ** 2).sum(0)
    assert left.max() < 0.35  # noise is a fifth of the first and last column's variance
    assert reducer.sample(5, random_state=1).shape == (5, 3)
    assert np.array_equal(reducer.sample(2, random_state=1), reducer.sample(2, random_state=1))
    with pytest.raises(ValueError, match="expected 1 columns of z, got 3"):
        reducer.inverse_transform(x)


@pytest.mark.slow
def test_draws_have_the_moments_of_the_model(trained):
    _, imputer = trained
    mean, covariance = gaussian(imputer)
    rows = imputer.sample(4000, random_state=0)
    z = (rows.mean(0) - mean) / np.sqrt(np.diag(covariance) / 4000)
    assert np.abs(z).max() < 4
    assert np.cov(rows.T) / covariance == pytest.approx(np.ones((3, 3)), abs=0.15)


@pytest.mark.slow
def test_a_search_over_lines_within_a_pipeline():
    x = load_iris().data
    pipeline = make_pipeline(StandardScaler(), VAETransformer(**SMALL, epochs=15, lr=0.01))
    lines = ["Normal(scale=learned)", "Normal(scale=20.0)"]
    search = GridSearchCV(pipeline, {"vaetransformer__likelihood": lines}, cv=2).fit(x)
    assert search.best_params_ == {"vaetransformer__likelihood": lines[0]}
    assert search.transform(x).shape == (150, 1)


def test_frames_out():
    frame = pd.DataFrame(holed(40), columns=["a", "b", "c"]).set_index(np.arange(40) * 2)
    imputer = VAEImputer(**SMALL, epochs=1).set_output(transform="pandas").fit(frame)
    filled = imputer.transform(frame)
    assert list(filled) == ["a", "b", "c"] and filled.index.equals(frame.index)
    assert not filled.isna().to_numpy().any()
    reducer = VAETransformer(**SMALL, epochs=1).set_output(transform="pandas").fit(frame)
    assert list(reducer.transform(frame)) == ["vaetransformer0"]
    with pytest.raises(ValueError, match="feature names"):
        imputer.transform(frame[["b", "a", "c"]])


def test_counts():
    x = np.random.default_rng(0).poisson(3, (60, 3)).astype(float)
    x[0, 0] = math.nan
    imputer = VAEImputer(**SMALL | {"likelihood": "Poisson"}, epochs=2).fit(x)
    assert imputer.transform(x)[0, 0] > 0
    assert imputer.sample(3).shape == (3, 3)


def test_refusals():
    x = holed(20)
    x[:, 1] = math.nan
    with pytest.raises(ValueError, match="column 1 has no observed cell"):
        VAEImputer(**SMALL).fit(x)
    with pytest.raises(ValueError, match="column 'b' has no observed cell"):
        VAEImputer(**SMALL).fit(pd.DataFrame(x, columns=list("abc")))
    with pytest.raises(pv.SpecError, match="did you mean"):
        VAEImputer(**SMALL | {"likelihood": "Nomral"}).fit(holed(20))
    with pytest.raises(ValueError, match="Poisson"):
        VAEImputer(**SMALL | {"likelihood": "Poisson"}).fit(holed(20))


# Frames of mixed columns.

# Of a model that is hardly trained some rows are doubtful, as ``impute`` says.
DOUBTS = pytest.mark.filterwarnings("ignore:.*rows are doubtful:UserWarning")


def mixed(n=80, seed=1):
    """One factor behind a quantity, a word, an ordered category, a bit, a date and a count."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "income": np.exp(z + 0.3 * rng.normal(size=n) + 8).round(2),
            "home": pd.Categorical(np.where(z + 0.5 * rng.normal(size=n) > 0, "own", "rent")),
            "grade": pd.Categorical(rng.choice(["a", "b", "c"], n), ordered=True),
            "married": rng.random(n) < 0.5,
            "since": pd.Timestamp("2015-01-01") + pd.to_timedelta((100 * z).round(), unit="D"),
            "age": rng.integers(18, 80, n),
        },
        index=[f"r{i}" for i in range(n)],
    )
    for name in ("income", "home", "since"):
        frame.loc[rng.random(n) < 0.2, name] = None
    return frame


@pytest.fixture(scope="module")
def imputer():
    options = {"guide": "StudentT(df=4)", "epochs": 20, "lr": 0.02, "num_samples": 100}
    return VAEImputer(**SMALL, **options).fit(mixed())


@DOUBTS
@pytest.mark.slow
def test_a_mixed_frame_is_filled_and_keeps_its_types(imputer):
    frame = mixed()
    for way in (imputer, clone(imputer).set_output(transform="pandas").fit(frame)):
        filled = way.transform(frame)
        known = frame.notna()
        assert (filled.dtypes == frame.dtypes).all() and filled.index.equals(frame.index)
        assert not filled.isna().any(axis=None)
        assert filled.where(known).equals(frame.where(known))
    assert imputer.get_feature_names_out().tolist() == list(frame)
    assert list(imputer.vae_.record.schema.names) == list(frame)


@pytest.mark.slow
def test_a_mixed_frame_is_scored_as_its_table(imputer):
    frame = mixed()
    found = pv.log_evidence(imputer.vae_, frame, num_samples=100, seed=imputer.seed_)
    assert np.array_equal(imputer.score_samples(frame), found.log_evidence.numpy())
    assert imputer.score(frame) == pytest.approx(found.log_evidence.mean().item())
    new = imputer.sample(5, random_state=0)
    assert (new.dtypes == frame.dtypes).all() and len(new) == 5
    assert new.equals(imputer.sample(5, random_state=0))


@pytest.mark.slow
def test_a_mixed_frame_goes_to_z_and_back():
    frame = mixed()
    reducer = VAETransformer(**SMALL | {"latent_dim": 2}, epochs=2).fit(frame)
    z = reducer.transform(frame)
    assert z.shape == (80, 2) and np.isfinite(z).all()
    back = reducer.inverse_transform(z)
    assert (back.dtypes == frame.dtypes).all() and not back.isna().any(axis=None)
    named = reducer.set_output(transform="pandas").transform(frame)
    assert list(named) == ["vaetransformer0", "vaetransformer1"]
    assert named.index.equals(frame.index)


@DOUBTS
@pytest.mark.slow
def test_mixed_estimators_are_copied_and_kept(imputer):
    frame = mixed()
    again = pickle.loads(pickle.dumps(imputer))
    assert again.transform(frame).equals(imputer.transform(frame))
    lines = {"income": "LogNormal"}
    copy = clone(VAEImputer(**SMALL, likelihood=lines))
    assert copy.likelihood == lines and not hasattr(copy, "vae_")


@DOUBTS
@pytest.mark.slow
def test_feature_names_are_asked_for_in_scikit_learns_words(imputer):
    frame = mixed()
    with pytest.raises(ValueError, match="The feature names should match those that were passed"):
        imputer.transform(frame.rename(columns={"home": "house"}))
    with pytest.raises(ValueError, match="Feature names must be in the same order"):
        imputer.transform(frame[frame.columns[::-1]])
    with pytest.raises(ValueError, match="Feature names seen at fit time, yet now missing"):
        imputer.transform(frame.drop(columns="age"))
    with pytest.raises(NotFittedError):
        VAEImputer().transform(frame)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        filled = imputer.transform(frame.astype(object).to_numpy())
    assert filled.shape == frame.shape


@DOUBTS
@pytest.mark.slow
def test_mixed_frames_in_pipelines_and_column_transformers():
    frame, y = mixed(), np.arange(80) % 2
    imputer = VAEImputer(**SMALL, epochs=2, num_samples=50)
    ahead = make_column_transformer(
        (make_pipeline(imputer, OneHotEncoder()), ["home", "grade"]),
        (VAETransformer(**SMALL, epochs=1), ["income", "since", "age"]),
        verbose_feature_names_out=False,
    )
    found = make_pipeline(ahead, LogisticRegression()).fit(frame, y)
    assert found.predict(frame).shape == (80,)
    names = found[0].get_feature_names_out().tolist()
    assert names == ["home_own", "home_rent", "grade_a", "grade_b", "grade_c", "vaetransformer0"]
    both = make_column_transformer(
        (imputer, ["home", "income"]), remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    filled = both.fit_transform(frame)
    assert filled["home"].dtype == "category" and not filled["income"].isna().any()


@pytest.mark.slow
def test_a_search_over_lines_of_columns_and_priors():
    """Log-normal incomes: their own line wins, by nats of the data's own units."""
    frame = mixed(100)[["income", "home"]]
    grid = {
        "vaeimputer__likelihood": [{"income": "Normal"}, {"income": "LogNormal"}],
        "vaeimputer__prior": ["Normal", "Normal(loc=learned, scale=learned)"],
    }
    pipeline = make_pipeline(VAEImputer(**SMALL, epochs=20, lr=0.04))
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(frame)
    assert search.best_params_["vaeimputer__likelihood"] == {"income": "LogNormal"}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.slow
def test_what_a_mixed_frame_cannot_have_is_refused(imputer):
    frame = mixed()
    with pytest.raises(ValueError, match="likelihood of a table is 'auto' or a line for each"):
        VAEImputer(**SMALL, likelihood="Normal").fit(frame)
    with pytest.raises(ValueError, match="need a data frame with named columns, got ndarray"):
        VAEImputer(**SMALL, likelihood="auto").fit(holed(20))
    other = frame.astype({"home": str})
    other.loc["r1", "home"] = "castle"
    with pytest.raises(ValueError, match="'castle' is not among its levels"):
        imputer.transform(other)
    bits = pd.DataFrame({"a": [True, False] * 10, "b": [False] * 10 + [True] * 10})
    assert VAEImputer(**SMALL, likelihood="Bernoulli", epochs=1).fit(bits).transform(bits).dtype
