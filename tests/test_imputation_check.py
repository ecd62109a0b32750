"""Hidden cells beside their draws: closed forms of a linear model, and wrong models named."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import pyro_vae as pv
from helpers.linear import SCALE, linear_vae, marginal
from pyro_vae.evaluate.imputation import _column
from pyro_vae.evaluate.scores import brier, commonness, crps, interval_width, pit, set_size

RNG = np.random.default_rng(0)


def conditional(vae, x, cells):
    """The exact mean and standard deviation of each hidden cell given those that are left."""
    p, names = marginal(vae), [f"x[{i}]" for i in range(5)]
    mean, covariance = p.mean.numpy(), p.covariance_matrix.numpy()
    hidden = np.zeros(x.shape, bool)
    columns = cells["column"].map(names.index)
    hidden[cells["row"], columns] = True
    loc, scale = np.empty(len(cells)), np.empty(len(cells))
    for i, (row, j) in enumerate(zip(cells["row"], columns, strict=True)):
        o = ~hidden[row]
        gain = covariance[j, o] @ np.linalg.inv(covariance[np.ix_(o, o)]) if o.any() else 0
        loc[i] = mean[j] + (gain @ (x[row, o] - mean[o]) if o.any() else 0)
        scale[i] = math.sqrt(covariance[j, j] - (gain @ covariance[o, j] if o.any() else 0))
    return loc, scale


def holed_vae():
    """The linear model with an encoder that knows of missing cells; weights make it exact."""
    whole, nets = linear_vae(), {"encoder": pv.MLP([]), "decoder": pv.MLP([])}
    line = f"Normal(scale={SCALE})"
    vae = pv.VAE(5, 2, likelihood=line, guide="Normal(scale=0.8)", missing=True, **nets).double()
    with torch.no_grad():
        vae.likelihood.load_state_dict(whole.likelihood.state_dict())
        own, exact = (v.approximation.sources["loc"].head for v in (vae, whole))
        own.weight.zero_()
        own.weight[:, :5] = exact.weight
        own.bias.copy_(exact.bias)
    return vae


def drawn(n=250):
    vae = holed_vae()
    return vae, marginal(vae).sample(torch.Size([n]))


@pytest.fixture(scope="module")
def exact():
    """A check of the model that the data are from, and the closed form of each hidden cell."""
    torch.manual_seed(3)
    vae, x = drawn()
    check = pv.imputation_check(vae, x, seed=1)
    return check, *conditional(vae, x.numpy(), check.cells)


def z_of(values):
    return values.mean() / (values.std(ddof=1) / math.sqrt(len(values)))


@pytest.mark.slow
def test_scores_and_widths_are_those_of_the_exact_normal(exact):
    check, loc, scale = exact
    y = (check.cells["value"] - loc) / scale
    closed = scale * (y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - math.pi**-0.5)
    assert abs(z_of(check.cells["score"] - closed)) < 4
    assert np.corrcoef(check.cells["score"], closed)[0, 1] > 0.99
    u = (np.arange(100_000) + 0.5) / 100_000
    for level, k in ((0.5, 150), (0.9, 190)):  # between draws k and 200 - k of 199
        exact_width = 2 * scale * (stats.norm.ppf(u) * stats.beta.pdf(u, k, 200 - k)).mean()
        width = check.table[f"width_{round(100 * level)}"] * check.table["cells"]
        error = (check.table[f"width_{round(100 * level)}_error"] * check.table["cells"]) ** 2
        assert abs(width.sum() - exact_width.sum()) < 4 * math.sqrt(error.sum())
        assert width.sum() == pytest.approx(exact_width.sum(), rel=0.02)


def test_the_right_model_is_calibrated(exact):
    check, loc, scale = exact
    exact_place = stats.norm.cdf((check.cells["value"] - loc) / scale)
    apart = check.cells["pit"] - exact_place
    assert apart.std() < 0.05 and abs(apart.mean()) < 0.01
    for level in (50, 90):
        share, error = (check.table[f"coverage_{level}{k}"] for k in ("", "_error"))
        z = (share - level / 100) / error
        assert abs(z.sum()) / math.sqrt(5) < 4
    assert "No column of 5 is seen to depart" in check.verdict
    assert (check.table["skill"] > 2.5 * check.table["skill_error"]).all()
    assert check.table["cells"].tolist() == [50] * 5
    shown = str(check)
    assert "90 % cover" in shown and "CRPS" in shown and check.verdict in shown


@pytest.mark.slow
def test_alarms_are_as_rare_as_the_level_says():
    """At a level of .01, of 20 data sets: more than 3 would be seen once in 6,000 times."""
    alarms = 0
    for seed in range(20):
        torch.manual_seed(seed)
        vae, x = drawn(120)
        check = pv.imputation_check(vae, x, seed=seed, num_samples=200, draws=99)
        alarms += "not calibrated" in check.verdict
    assert alarms <= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "how"),
    [(0.25, "too narrow"), (3.0, "too wide"), (-2.0, "too low"), (2.0, "too high")],
)
def test_a_wrong_model_is_named_with_the_way_it_is_wrong(change, how):
    """The third column's noise is other than the model says, or its cells are shifted."""
    torch.manual_seed(5)
    _, x = drawn(200)
    if how.startswith("too n"):
        x[:, 2] += 2.0 * torch.randn(200).double()
    elif how == "too wide":
        x = x.mean(0) + (x - x.mean(0)) / change
    else:
        x[:, 2] -= change
    check = pv.imputation_check(holed_vae(), x, num_samples=200, draws=99)
    assert "not calibrated" in check.verdict and f"x[2] ({how})" in check.verdict


def test_scores_of_few_draws_are_those_of_all_pairs():
    draws, truth = RNG.normal(size=(7, 5)), RNG.normal(size=5)
    pairs = np.abs(draws[:, None] - draws[None]).sum((0, 1)) / (7 * 6)
    assert crps(draws, truth) == pytest.approx(np.abs(draws - truth).mean(0) - pairs / 2)
    codes, hit = RNG.integers(0, 3, (7, 5)), RNG.integers(0, 3, 5)
    unlike = (codes[:, None] != codes[None]).sum((0, 1)) / (7 * 6)
    energy = (codes != hit).mean(0) - unlike / 2
    assert brier(codes, hit) == pytest.approx(2 * energy)


def test_scores_have_no_bias_of_few_draws():
    """Bits of probability .3: the Brier score against a one is 2 * .7^2; ten draws, many times."""
    draws = (RNG.random((10, 20_000)) < 0.3).astype(float)
    assert abs(z_of(brier(draws, np.ones(20_000)) - 2 * 0.7**2)) < 4
    normal = RNG.normal(size=(10, 20_000))
    closed = (2 - math.sqrt(2)) / math.sqrt(2 * math.pi)
    assert abs(z_of(crps(normal, np.zeros(20_000)) - closed)) < 4


@pytest.mark.parametrize("levels", [2, 5])
def test_places_are_uniform_for_discrete_values(levels):
    """Cells of different probabilities: the truth is one more draw of each."""
    p = RNG.dirichlet(np.ones(levels), 3000)
    codes = (RNG.random((40, 3000, 1)) > p.cumsum(1)).sum(-1)
    draws, truth = codes[1:], codes[0]
    for ranked in ((draws, truth), commonness(draws, truth)):
        assert stats.kstest(pit(*ranked, RNG), "uniform").pvalue > 1e-3
    wrong = RNG.integers(0, levels, 3000)  # levels that the draws hold for rare come as often
    u = pit(*commonness(draws, wrong), RNG)
    assert (u.mean() - 0.5) * math.sqrt(12 * 3000) > 5


def test_sizes_of_intervals_and_of_sets():
    draws = np.arange(1.0, 200)[:, None]
    assert interval_width(draws, 0.9)[0] == pytest.approx(180)
    assert interval_width(draws, 0.5)[0] == pytest.approx(100)
    codes = np.repeat([0, 1, 2], [120, 60, 20])[:, None]
    assert [set_size(codes, level)[0] for level in (0.5, 0.6, 0.61, 0.9, 0.95)] == [1, 1, 2, 2, 3]


# Tables.


def frame(rows=150):
    z = RNG.normal(size=rows)
    return pd.DataFrame(
        {
            "pet": np.where(z + RNG.normal(size=rows) > 0, "cat", "dog"),
            "kilos": np.exp(z + 0.3 * RNG.normal(size=rows)).round(3),
            "legs": RNG.poisson(np.exp(z / 2)),
            "grade": pd.Categorical(RNG.choice(["a", "b", "c"], rows), ordered=True),
            "born": pd.Timestamp("2020-01-01") + pd.to_timedelta((100 * z).round(), unit="D"),
        }
    )


@pytest.fixture(scope="module")
def table():
    data = frame()
    data.loc[::7, "kilos"] = None
    lines = {"kilos": "LogNormal", "legs": "Poisson"}
    vae = pv.VAE(pv.Table.from_frame(data), 2, likelihood=lines, encoder="MLP([8])", seed=0)
    pv.fit(vae, data, epochs=30, lr=0.01, seed=0, compile=False, progress=False)
    return vae, data


@pytest.mark.slow
def test_a_table_is_checked_in_its_own_order_and_numbers(table):
    vae, data = table
    check = pv.imputation_check(vae, data, num_samples=100)
    assert list(check.table.index) == list(data)
    assert check.table["score"].tolist() == ["Brier", "CRPS", "CRPS", "CRPS", "CRPS"]
    assert check.table["cells"].tolist() == [30, 26, 30, 30, 30]  # 21 of "kilos" are missing
    values = vae.record.read(data).values
    for i, name in enumerate(data):
        some = check.cells[check.cells["column"] == name]
        assert some["value"].to_numpy() == pytest.approx(values[some["row"], i], rel=1e-6)
        if name != "kilos":
            assert np.array_equal(some["imputed"], some["imputed"].round())
    assert check.cells["pit"].between(0, 1).all()
    assert str(check).count("\n") == 7  # two lines of a head, five columns, a verdict


@pytest.mark.slow
def test_draws_are_those_of_impute(table):
    """The score of each cell again, from ``impute`` of the frame with the same holes."""
    vae, data = table
    check = pv.imputation_check(vae, data, draws=99, seed=4)
    holed = data.astype({"legs": "Int64"})
    for row, column in zip(check.cells["row"], check.cells["column"], strict=True):
        holed.loc[row, column] = None
    frames = vae.impute(holed, draws=99, seed=7)
    draws = np.stack([vae.record.read(frame).values for frame in frames])
    again = {column: draws[..., i] for i, column in enumerate(data)}
    for name, some in check.cells.groupby("column"):
        draws = again[name][:, some["row"]]
        score = (brier if name == "pet" else crps)(draws, some["value"].to_numpy())
        if name in ("kilos", "born"):  # of others the scores are too much alike
            assert np.corrcoef(score, some["score"])[0, 1] > 0.8, name
        assert abs(z_of(score - some["score"])) < 4, name


@pytest.mark.slow
def test_all_cells_are_hidden_once_in_turn(table):
    vae, data = table
    check = pv.imputation_check(vae, data, share=0.25, repeats=4, num_samples=100, draws=19)
    assert check.table["cells"].tolist() == [150, 128, 150, 150, 150]
    assert not check.cells.duplicated(["row", "column"]).any()
    with pytest.raises(ValueError, match=r"a share of 0.25 can be hidden 4 times, got 5"):
        pv.imputation_check(vae, data, share=0.25, repeats=5)


@pytest.mark.slow
def test_columns_of_the_condition_are_not_hidden():
    data = frame(60)
    vae = pv.VAE(pv.Table.from_frame(data), 2, condition=["legs"], encoder="MLP([8])", seed=0)
    check = pv.imputation_check(vae, data, num_samples=30, draws=19)
    assert list(check.table.index) == [name for name in data if name != "legs"]


@pytest.mark.slow
def test_what_cannot_be_checked_is_refused(table):
    vae, data = table
    with pytest.raises(ValueError, match="no column has 10 cells to hide: give more rows"):
        pv.imputation_check(vae, data.head(20))
    masked = pv.VAE(3, 2, likelihood="Normal", missing="SelfMasking", encoder="MLP([3])", seed=0)
    with pytest.raises(ValueError, match="cells hidden at random are not missing in the way"):
        pv.imputation_check(masked, torch.randn(60, 3))
    with pytest.raises(ValueError, match="share"):
        pv.imputation_check(vae, data, share=1.5)


def test_the_cells_of_whole_positive_columns_are_those_that_were_hidden():
    income = RNG.lognormal(8, 1, 60).round()
    size = np.where(np.arange(60) % 6, RNG.normal(size=60), np.nan)
    table = pv.Table.from_frame(pd.DataFrame({"income": income, "size": size}))
    assert table.schema["income"].kind == "positive"
    nets = {"encoder": "MLP([4])", "decoder": "MLP([4])"}
    vae = pv.VAE(table, 1, missing="Bernoulli", **nets, seed=0)
    hidden = []
    own = vae.imputations
    vae.imputations = lambda x, **options: hidden.append(x.isnan()) or own(x, **options)
    check = pv.imputation_check(vae, table, draws=19, num_samples=50)
    assert check.table["cells"].to_dict() == {"income": 12, "size": 10}
    assert not hidden[0][:, 2].any(), "the bit of a hole stays"
    places = check.cells.assign(place=check.cells.column.map(vae.record.columns.index))
    assert all(hidden[0][row, place] for row, place in places[["row", "place"]].to_numpy())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numbers", "levels", "angles"])
def test_draws_of_the_margin_itself_have_no_skill_in_a_small_table(kind):
    """The margin of a column holds each truth, which must not count as a prediction of itself."""
    rng, scores = np.random.default_rng(0), []
    for _ in range(300):
        draw = {
            "numbers": lambda *n: rng.normal(size=n),
            "levels": lambda *n: rng.integers(0, 3, n),
            "angles": lambda *n: rng.vonmises(np.pi, 1.0, n),
        }[kind]
        truth = draw(20)
        figures, _ = _column(truth, draw(40, 20), truth, kind, rng)
        value, skill = float(figures["value"]), float(figures["skill"])
        scores.append((value, value / (1 - skill)))
    gap = -np.diff(scores, axis=1)[:, 0]
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))


def test_intervals_and_scores_of_angles_are_those_of_the_circle():
    """About pi, where the intervals were as wide as the circle; a turn of all changes nothing."""
    rng, p = np.random.default_rng(0), stats.vonmises(20.0)
    truth, draws = p.rvs(800, random_state=rng), p.rvs((199, 800), random_state=rng)
    found = {}
    for centre in (0.0, np.pi):
        turned = [np.angle(np.exp(1j * (part + centre))) for part in (truth, draws)]
        figures, _ = _column(*turned, turned[0], "angles", np.random.default_rng(1))
        found[centre] = {name: value for name, value in figures.items() if name != "score"}
    assert found[np.pi] == pytest.approx(found[0.0], rel=1e-6)
    width = p.ppf(0.95) - p.ppf(0.05)
    assert found[np.pi]["width_90"] == pytest.approx(width, rel=0.03)
    for level in (50, 90):
        share, error = (found[np.pi][f"coverage_{level}{end}"] for end in ("", "_error"))
        assert abs(share - level / 100) < 4 * error
    plain = crps(draws, truth)  # of angles that are far from the ends
    assert found[np.pi]["value"] == pytest.approx(plain.mean(), rel=1e-9)
