"""A VAE of a table: blocks of columns, frames in and out, conditional draws."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from pyro_vae.data.tables import coding
from pyro_vae.data.tables.native import make_series
from pyro_vae.distributions import Joined, Layout, WithSpike
from pyro_vae.families.likelihoods import fill

SMALL = {"encoder": "MLP([16])", "decoder": "MLP([16])", "seed": 0}
RNG = np.random.default_rng(0)
TICKS = np.arange(1, 60)


def frame(rows: int = 60) -> pd.DataFrame:
    age = RNG.integers(18, 80, rows)
    home = np.array(["rent", "own", "other"])[RNG.integers(0, 3, rows)]
    df = pd.DataFrame(
        {
            "home": home,
            "age": age,
            "income": np.exp(RNG.normal(7, 1, rows)).round(2),
            "children": RNG.poisson(1.5, rows),
            "debt": np.where(RNG.random(rows) < 0.6, 0.0, RNG.gamma(2, 900, rows).round(2)),
            "married": RNG.random(rows) < 0.5,
            "grade": pd.Categorical(RNG.choice(["a", "b", "c"], rows), ordered=True),
        },
        index=[f"r{i}" for i in range(rows)],
    )
    for name in ("income", "home"):
        df.loc[RNG.random(rows) < 0.2, name] = None
    return df


@pytest.fixture(scope="module")
def data():
    return frame()


@pytest.fixture(scope="module")
def vae(data):
    table = pv.Table.from_frame(data)
    lines = {"debt": "Hurdle(Gamma)", "income": "LogNormal", "children": "Poisson"}
    vae = pv.VAE(table, 3, likelihood=lines, **SMALL)
    pv.fit(vae, table, epochs=3, seed=0, compile=False, progress=False)
    return vae


@pytest.mark.slow
def test_a_likelihood_of_blocks_is_their_product(vae, data):
    x = vae.as_data(data)
    z = torch.randn(5, len(data), 3, generator=torch.Generator().manual_seed(0))
    p = vae.decode(z, x)
    assert isinstance(p, Joined)
    expected = 0.0
    for part, cells in zip(p.parts, p.layout.split(x), strict=True):
        seen = ~cells.isnan()
        base = part.base_dist
        value = torch.where(seen, cells, torch.ones(()))
        expected = expected + torch.where(seen, base.log_prob(value), torch.zeros(())).sum(-1)
    assert torch.allclose(vae.record.score(p, x), expected, atol=1e-4)


@pytest.mark.slow
def test_a_tensor_is_read_as_the_values_of_the_table_are(vae, data):
    table = vae.record.read(data)
    x = torch.tensor(table.values, dtype=torch.float32)
    assert vae.record.columns == table.schema.cells
    assert torch.equal(vae.as_data(data).nan_to_num(-1), x.nan_to_num(-1))
    assert pv.elbo(vae, x, seed=0).equal(pv.elbo(vae, data, seed=0))
    blocks = vae.record.unpack(x)
    at = table.schema.places
    assert torch.equal(blocks["Poisson"][:, 0], x[:, at["children"]])
    drawn = vae.decode(torch.zeros(1, 3)).sample()
    assert set(drawn[:, at["married"]].tolist()) <= {0.0, 1.0} and drawn[0, at["debt"]] >= 0


def test_missing_cells_hold_a_value_of_their_own_columns_support():
    """Blocks whose columns lie in turn, so that an order mistaken for its inverse would be seen."""
    parts = [
        dist.Normal(torch.zeros(2), 1.0).to_event(1),
        dist.LogNormal(torch.zeros(1), 1.0).to_event(1),
        dist.Beta(torch.ones(1), 1.0).to_event(1),
        WithSpike(torch.zeros(1), dist.LogNormal(torch.zeros(1), 1.0), 7.0).to_event(1),
    ]
    p = Joined(parts, Layout([[1, 4], [3], [0], [2]]))
    x = torch.full((2, 5), torch.nan)
    x[0, 1] = -3.0
    filled = fill(x, ~x.isnan(), p.support)
    assert filled.tolist() == [[0.5, -3.0, 7.0, 1.0, 0.0], [0.5, 0.0, 7.0, 1.0, 0.0]]
    assert p.log_prob(filled).isfinite().all()


@pytest.mark.slow
def test_like_columns_are_one_block():
    wide = pd.DataFrame({f"c{i}": RNG.normal(i, 1 + i, 50) for i in range(60)})
    for i in range(0, 60, 3):
        wide[f"k{i}"] = RNG.choice(["u", "v", "w"], 50)
    vae = pv.VAE(pv.Table.from_frame(wide), 2, **SMALL)
    assert len(vae.record.blocks) == 2
    assert vae.record.x_shape == (80,)


@pytest.mark.slow
def test_imputation_gives_the_frame_back(vae, data):
    filled = vae.impute(data, seed=0)
    assert list(filled.columns) == list(data.columns) and filled.index.equals(data.index)
    assert (filled.dtypes == data.dtypes).all() and not filled.isna().any().any()
    known = data.notna()
    assert filled.where(known).equals(data.where(known))
    draws = vae.impute(data, draws=3, seed=0)
    assert len(draws) == 3 and all(d.where(known).equals(data.where(known)) for d in draws)
    assert set(filled["home"]) <= {"rent", "own", "other"}
    shuffled = data[list(data.columns)[::-1]]
    assert pv.elbo(vae, shuffled, seed=0).equal(pv.elbo(vae, data, seed=0))


def test_rows_without_a_cell_are_answered_from_the_prior(vae, data):
    gone = data.head(2).copy()
    for name in gone:
        gone[name] = None
    found = pv.log_evidence(vae, gone, num_samples=5000, seed=0)  # of nothing: log 1
    assert (found.log_evidence.abs() < 4 * found.standard_error).all()
    assert not vae.impute(gone, seed=0).isna().any().any()


def test_simulated_rows_look_like_the_frame(vae, data):
    new = vae.sample(40, seed=0)
    assert list(new.columns) == list(data.columns) and (new.dtypes == data.dtypes).all()
    assert len(new) == 40 and (new["age"] >= 0).all() and (new["debt"] == 0).any()
    assert new.equals(vae.sample(40, seed=0))
    given = vae.sample(30, given={"home": "rent", "age": 40}, seed=0)
    assert (given["home"] == "rent").all() and (given["age"] == 40).all()
    assert given["children"].nunique() > 1


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"Home": "rent"}, "no column 'Home'; did you mean home"),
        ({"home": None}, "given column 'home' has no value"),
        ({"home": "castle"}, "'castle' is not among its levels"),
        ({"income": -3.0}, "LogNormal has positive numbers alone"),
    ],
)
def test_a_wrong_condition_is_refused(vae, cells, message):
    with pytest.raises(ValueError, match=message):
        vae.sample(3, given=cells)


@pytest.mark.slow
def test_a_model_of_a_table_is_saved_with_its_schema(vae, data, tmp_path):
    again = pv.load(vae.save(tmp_path))
    assert again.record.schema == vae.record.schema and again.units == "data"
    assert again.record.columns == vae.record.columns
    assert pv.elbo(again, data, seed=0).equal(pv.elbo(vae, data, seed=0))
    assert again.impute(data, seed=0).equals(vae.impute(data, seed=0))


def test_lines_by_column_are_of_a_table(data):
    with pytest.raises(ValueError, match="lines by column, and 'auto', are of a table"):
        pv.VAE(3, 2, likelihood={"age": "Normal"})
    with pytest.raises(ValueError, match="likelihood of a table is 'auto' or a line for each"):
        pv.VAE(pv.Table.from_frame(data), 2, likelihood="Normal")
    with pytest.raises(ValueError, match=r"column 'incom'.*did you mean income"):
        pv.VAE(pv.Table.from_frame(data), 2, likelihood={"incom": "Normal"})


@pytest.mark.slow
def test_a_conditional_draw_has_the_distribution_of_quadrature():
    """Two columns, a count and a bit, one z: p(bit | count) by quadrature."""
    n = 400
    u = RNG.normal(size=n)
    df = pd.DataFrame(
        {"count": RNG.poisson(np.exp(1 + u)), "bit": RNG.random(n) < 1 / (1 + np.exp(-2 * u))}
    )
    lines = {"count": "Poisson", "bit": "Bernoulli"}
    vae = pv.VAE(pv.Table.from_frame(df), 1, likelihood=lines, **SMALL)
    pv.fit(vae, df, epochs=20, lr=1e-2, seed=0, compile=False, progress=False)
    vae.requires_grad_(False)
    z = torch.linspace(-8, 8, 4001)[:, None]
    p, cells = vae.decode(z), vae.record.columns.index("count")
    count, bit = (p.parts[i].base_dist for i in (cells, 1 - cells))
    log_w = dist.Normal(0, 1).log_prob(z[:, 0])
    for k in (0, 3, 12):
        weight = (log_w + count.log_prob(torch.tensor(float(k)))[:, 0]).softmax(0)
        exact = (weight * bit.probs[:, 0]).sum().item()
        m = 4000
        share = vae.sample(m, given={"count": k}, seed=1)["bit"].mean()
        assert abs(share - exact) < 3 * math.sqrt(exact * (1 - exact) / m), k
        evidence = (log_w + count.log_prob(torch.tensor(float(k)))[:, 0]).logsumexp(0)
        evidence = evidence + math.log(16 / 4000)
        row = pd.DataFrame({"count": [k], "bit": [None]})
        found = pv.log_evidence(vae, row, num_samples=5000, seed=0)
        assert abs(found.log_evidence - evidence) < 4 * found.standard_error + 1e-4


LEARNED = {  # lines of columns, and the numbers that a block of two columns learns for them
    "Normal(scale=learned)": 2,
    "Normal(scale=learned(shared=True))": 1,
    "Mixture(Normal(loc=learned, scale=learned), components=3)": 12,
    "Mixture(Normal(loc=learned(shared=True), scale=learned(shared=True)), components=3)": 6,
}


@pytest.mark.slow
@pytest.mark.parametrize("line", LEARNED)
@pytest.mark.parametrize("alone", [True, False], ids=["one block", "beside another"])
def test_what_columns_learn_is_their_own(line, alone):
    """Columns of one line are one block, which is no statement about their parameters."""
    df = pd.DataFrame({"a": [1.0, 2.5, 4.0], "b": [10.0, 50.0, 20.0], "c": ["x", "y", "x"]})
    lines = dict.fromkeys("ab", line)
    vae = pv.VAE(pv.Table.from_frame(df[["a", "b"]] if alone else df), 2, likelihood=lines, seed=0)
    part = vae.likelihood if alone else vae.likelihood.parts[0]
    own = [p for name, p in part.named_parameters() if name.endswith("unconstrained")]
    assert sum(p.numel() for p in own) == LEARNED[line]


def test_what_the_cells_of_an_array_learn_is_shared():
    vae = pv.VAE(2, 2, likelihood="Normal(scale=learned)", seed=0)
    own = [p for name, p in vae.likelihood.named_parameters() if name.endswith("unconstrained")]
    assert sum(p.numel() for p in own) == 1


@pytest.mark.slow
def test_a_linear_gaussian_table_is_the_gaussian():
    """Cells given cells: mean and covariance by the formula of the conditional normal."""
    n = 300
    u = RNG.normal(size=(n, 2))
    x = u @ RNG.normal(size=(2, 4)) + 0.5 * RNG.normal(size=(n, 4))
    df = pd.DataFrame(x * [1, 10, 100, 1000] + [0, 50, 5, -700], columns=list("abcd"))
    linear = {"encoder": "MLP([])", "decoder": "MLP([])", "seed": 0}
    lines = dict.fromkeys("abcd", "Normal(scale=learned)")
    vae = pv.VAE(pv.Table.from_frame(df), 2, likelihood=lines, **linear)
    pv.fit(vae, df, epochs=30, lr=1e-2, seed=0, compile=False, progress=False)
    vae.double().requires_grad_(False)
    zero, eye = torch.zeros(1, 2).double(), torch.eye(2).double()
    p = vae.decode(torch.cat([zero, eye]))
    mean, w = p.mean[0].numpy(), (p.mean[1:] - p.mean[0]).numpy()
    cov = w.T @ w + np.diag(p.variance[0].numpy())
    row = np.array([1.0, math.nan, 20.0, math.nan])
    seen, gone = [0, 2], [1, 3]
    gain = cov[np.ix_(gone, seen)] @ np.linalg.inv(cov[np.ix_(seen, seen)])
    exact = mean[gone] + gain @ (row[seen] - mean[seen])
    left = cov[np.ix_(gone, gone)] - gain @ cov[np.ix_(seen, gone)]
    drawn = vae.sample(4000, given={"a": 1.0, "c": 20.0}, seed=0)[["b", "d"]].to_numpy()
    error = np.sqrt(np.diag(left) / 4000)
    assert (np.abs(drawn.mean(0) - exact) < 3.5 * error).all()
    assert np.allclose(np.cov(drawn.T), left, rtol=0.12)
    density = dist.MultivariateNormal(
        torch.tensor(mean[seen]), torch.tensor(cov[np.ix_(seen, seen)])
    ).log_prob(torch.tensor(row[seen]))
    given = pd.DataFrame([dict(zip("abcd", row, strict=True))])
    found = pv.log_evidence(vae, given, num_samples=20_000, seed=0)
    assert abs(found.log_evidence[0] - density) < 4 * found.standard_error[0]


def test_a_hurdle_has_its_density_mean_and_variance():
    p = WithSpike(torch.tensor([0.3, -1.0]), dist.Gamma(torch.tensor([2.0, 3.0]), 0.5))
    pi = torch.tensor([0.3, -1.0]).sigmoid()
    x = torch.tensor([0.0, 4.0])
    expected = torch.stack([pi[0].log(), (1 - pi[1]).log() + dist.Gamma(3.0, 0.5).log_prob(x[1])])
    assert torch.allclose(p.log_prob(x), expected)
    draws = p.sample((200_000,))
    error = p.variance.sqrt() / math.sqrt(200_000)
    assert ((draws.mean(0) - p.mean).abs() < 4 * error).all()
    assert torch.allclose(draws.var(0), p.variance, rtol=0.03)
    assert p.support.check(torch.tensor([0.0, -1.0])).tolist() == [True, False]
    away = WithSpike(torch.tensor(0.0), dist.Normal(0.0, 1.0), at=5.0)
    assert away.log_prob(torch.tensor(5.0)) == pytest.approx(math.log(0.5))
    with pytest.raises(ValueError, match="a hurdle is of single numbers"):
        pv.VAE(3, 2, likelihood="Hurdle(MultivariateNormal)")


# What a reader of the code broke.


@pytest.mark.slow
@pytest.mark.parametrize("levels", ["abc", "abcd"])
def test_a_table_of_categories_alone_is_drawn(levels):
    """Whose draws are whole numbers, which hold no NaN."""
    rows = np.arange(60)
    x, y = (np.array([*words])[rows % len(words)] for words in (levels, "abc"))
    table = pv.Table.from_frame({"x": x, "y": y})
    for options in ({}, {"condition": ["y"]}):
        vae = pv.VAE(table, 1, **SMALL, **options)
        drawn = vae.sample(40, given={"y": "b"} if options else None, seed=0)
        assert {*drawn["x"]} == {*levels} and {*drawn["y"]} == ({"b"} if options else {*"abc"})


def test_known_cells_stay_beyond_what_was_seen():
    rng = np.random.default_rng(1)
    for kind in ("Int64", "float64", "object", "int32"):
        ages = rng.permutation(np.arange(20, 80)) * 3 + 1
        df = pd.DataFrame({"age": pd.Series(ages).astype(kind), "inc": rng.lognormal(8, 1, 60)})
        table = pd.DataFrame({"age": pd.Series([900, 90]), "inc": [5e3, None]})
        if kind != "int32":
            table.loc[1, "age"] = None
        vae = pv.VAE(pv.Table.from_frame(df, kinds={"age": "integer"}), 2, **SMALL)
        pv.fit(vae, df, epochs=1, seed=0, compile=False, progress=False)
        filled = vae.impute(table.astype({"age": kind}, errors="ignore"), seed=0)
        assert filled["age"].iloc[0] == 900 and filled["inc"].iloc[0] == 5e3, kind
        drawn = vae.sample(5, given={"age": 900, "inc": 0.1}, seed=0)
        assert (drawn["age"] == 900).all() and (drawn["inc"] == 0.1).all()


@pytest.mark.slow
def test_a_spike_outside_of_the_support_with_holes_trains():
    rng = np.random.default_rng(2)
    amounts = np.where(rng.random(200) < 0.4, -99, rng.lognormal(3, 1, 200))
    df = pd.DataFrame({"amt": amounts, "b": rng.normal(size=200)})
    df.loc[::9, "amt"] = np.nan
    vae = pv.VAE(
        pv.Table.from_frame(df, likelihood={"amt": "Hurdle(LogNormal, at=-99)"}), 2, **SMALL
    )
    fit = pv.fit(vae, df, epochs=2, seed=0, compile=False, progress=False)
    assert fit.history.elbo_train.notna().all()
    assert not vae.impute(df, seed=0).isna().any().any()


def test_a_spike_that_single_precision_does_not_hold_is_drawn_as_it_is():
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"amt": np.where(rng.random(60) < 0.4, 0.1, 1 + rng.random(60))})
    vae = pv.VAE(pv.Table.from_frame(data, likelihood={"amt": "Hurdle(Gamma, at=0.1)"}), 1, **SMALL)
    vae.start_from(data)
    spikes = (vae.sample(60, seed=0)["amt"] == 0.1).sum()
    assert abs(spikes - 24) < 4 * math.sqrt(60 * 0.4 * 0.6)


def test_numbers_far_from_where_a_likelihood_starts_are_in_its_support():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"a": 1e4 * rng.gumbel(size=30), "b": 1e-4 * rng.gumbel(size=30)})
    vae = pv.VAE(pv.Table.from_frame(data, likelihood=dict.fromkeys("ab", "Gumbel")), 1, **SMALL)
    vae.check(data)  # e^10000 is infinite at unit scale, and nothing in the units of a
    vae.start_from(data)
    assert pv.elbo(vae, data, seed=0).isfinite().all()


def test_numbers_that_single_precision_does_not_tell_apart_are_refused():
    rng = np.random.default_rng(3)
    df = pd.DataFrame({"seconds": 1.7e9 + 20 * rng.normal(size=50), "b": rng.normal(size=50)})
    vae = pv.VAE(pv.Table.from_frame(df), 2, **SMALL)
    with pytest.raises(ValueError, match=r"'seconds' lies within .* float32 does not tell apart"):
        vae.as_data(df)
    assert vae.double().as_data(df).dtype == torch.float64


@pytest.mark.slow
def test_a_count_that_single_precision_changes_is_refused_by_its_cell(vae, data):
    frame = data.copy()
    frame.iloc[4, frame.columns.get_loc("children")] = 10**9 + 1
    words = (
        r"column 'children', row 4 \(index 'r4'\): 1000000001 is a count that float32 cannot hold\n"
        r"use vae.double\(\), or a density, likelihood=\{'children': 'Normal'\}, or put None there"
        r"; if it names rows, leave it out: kinds=\{'children': 'identifier'\}"
    )
    with pytest.raises(ValueError, match=words):
        vae.impute(frame, seed=0)


def test_large_whole_numbers_are_quantities_as_others_are():
    """Populations, salaries in cents: single precision has seven of their digits."""
    people = np.exp(np.linspace(15, 27, 60)).round()
    df = pd.DataFrame({"people": pd.array(people, dtype="Int64"), "b": np.linspace(0, 1, 60)})
    df.loc[7, "people"] = None
    vae = pv.VAE(pv.Table.from_frame(df), 1, **SMALL)
    vae.start_from(vae.as_data(df))
    assert vae.impute(df, seed=0).drop(index=7).equals(df.drop(index=7))
    drawn = vae.sample(200, seed=0)["people"]
    assert drawn.dtype == "Int64" and drawn.min() >= 0 and drawn.max() > 10**9
    read = vae.as_data(df)[:, 0].double().numpy()
    rest = np.arange(60) != 7
    assert np.allclose(read[rest], people[rest], rtol=2**-24, atol=0)  # half of the last digit


def test_large_numbers_that_are_not_whole_are_no_codes():
    """Beyond 2**52 all floats are whole; single precision rounds them as it does others."""
    rows = pd.DataFrame({"a": np.exp(np.linspace(20, 40, 60)), "b": np.linspace(0, 1, 60)})
    vae = pv.VAE(pv.Table.from_frame(rows), 1, **SMALL)
    assert np.allclose(vae.as_data(rows)[:, 0].double(), rows["a"], rtol=1e-7)
    assert vae.impute(rows, seed=0).equals(rows)


@pytest.mark.slow
def test_a_table_in_small_units_is_read_as_well_as_one_in_large_ones():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 1)) + 0.3 * rng.normal(size=(200, 3))
    x = 0.5 + x / 20
    elbos = []
    for factor in (1.0, 1000.0):
        df = pd.DataFrame(x * factor, columns=list("abc"))
        vae = pv.VAE(pv.Table.from_frame(df, likelihood=dict.fromkeys("abc", "Normal")), 2, **SMALL)
        pv.fit(vae, df, epochs=5, lr=3e-3, seed=0, compile=False, progress=False)
        elbos.append(pv.elbo(vae, df, num_samples=20, seed=0).mean().item())
    assert elbos[0] - elbos[1] == pytest.approx(3 * math.log(1000), abs=0.05)


def test_what_is_not_served_is_refused_in_words():
    with pytest.raises(ValueError, match="use ZeroInflatedPoisson"):
        pv.VAE(3, 2, likelihood="Hurdle(Poisson)")


@pytest.mark.slow
def test_not_at_random_is_loaded_for_records_and_tables(tmp_path):
    df = pd.DataFrame(RNG.normal(size=(40, 2)), columns=["a", "b"])
    df.loc[:5, "a"] = None
    lines = {"a": "Normal", "b": "Normal"}
    table = pv.Table.from_frame(df, likelihood=lines)
    record = pv.Record([pv.Block("x", 2, missing=True)])
    for i, x in enumerate((table, record, 2)):
        vae = pv.VAE(
            x, 2, likelihood=None if x is table else "Normal", missing="SelfMasking", **SMALL
        )
        again = pv.load(vae.save(tmp_path / str(i)))
        assert (
            again.missingness is not None and again.state_dict().keys() == vae.state_dict().keys()
        )


def test_units_are_those_of_x_over_its_exposure():
    record = pv.Record([pv.Block("x", 3), pv.Block("depth", role="offset")])
    x = record.pack({"x": torch.full((50, 3), 50.0), "depth": torch.full((50,), 3.0)})
    vae = pv.VAE(record, 2, likelihood="Poisson", units="data", **SMALL)
    vae.start_from(x)
    mean = vae.decode(torch.zeros(1, 2), x[:1]).mean
    assert ((mean > 15) & (mean < 150)).all()


def test_what_is_of_arrays_says_what_tables_have(vae, data):
    table = vae.record.read(data)
    with pytest.raises(ValueError, match=r"M2 is of arrays: .*vae.impute fills"):
        pv.M2(table, 2, classes=2)
    row = vae.as_data(data)[0]
    pictures = {
        "reconstructions": lambda: pv.plots.reconstructions(vae, data),
        "traversals": lambda: pv.plots.traversals(vae, row),
        "samples": lambda: pv.plots.samples(vae, 4),
        "interpolations": lambda: pv.plots.interpolations(vae, data, data),
    }
    for name, draw in pictures.items():
        with pytest.raises(ValueError, match=r"rows of a table are no images: .*plots.margin"):
            draw()
        assert callable(getattr(pv.plots, name))


def test_a_report_judges_a_frame_a_table_or_a_file(tmp_path):
    from pyro_vae.runs.held_out import held_out

    data = pd.DataFrame({"a": [0.5, 1.5, 2.0, 4.0], "g": [*"xyxy"]})
    vae = pv.VAE(pv.Table.from_frame(data), 1, encoder="MLP([3])", decoder="MLP([3])", seed=0)
    vae.save(tmp_path / "run")
    data.to_csv(tmp_path / "rows.csv", index=False)
    for form in (data, pv.Table.from_frame(data), str(tmp_path / "rows.csv")):
        x, labels = held_out(tmp_path / "run", vae, form)
        assert torch.equal(x, vae.as_data(data)) and labels is None


def test_what_identifies_rows_is_not_given():
    data = pd.DataFrame({"who": [f"p{i}" for i in range(30)], "a": RNG.normal(size=30)})
    vae = pv.VAE(pv.Table.from_frame(data), 1, **SMALL)
    with pytest.raises(ValueError, match="'who' identifies rows, so no draw depends on it: leave"):
        vae.sample(3, given={"who": "p1"})
    assert len(vae.sample(3, given={"a": 0.5}, seed=0)) == 3


HURDLES = {  # values, a third of them the spike, and the line
    "debts": (np.r_[np.zeros(30), np.arange(1, 61)], "Hurdle(Gamma)"),
    "cents": (np.r_[np.zeros(30), np.arange(1, 61) / 100], "Hurdle(LogNormal)"),
    "change": (np.r_[np.zeros(30), np.arange(-30, 0), np.arange(1, 31)], "Hurdle(Normal)"),
    "at the end": (np.r_[np.zeros(30), np.arange(1, 61)], "Hurdle(Normal)"),
    "in words": (np.r_[["$0.00"] * 30, ["$0.05", "$1.10", "$2.50"] * 20], "Hurdle(Gamma)"),
    "within": (np.r_[np.full(30, -99), np.arange(1, 61)], "Hurdle(LogNormal, at=-99)"),
    "share": (np.r_[np.ones(30), np.arange(1, 61) / 64], "Hurdle(Beta, at=1)"),
}


@pytest.mark.parametrize("name", HURDLES)
def test_rounding_leaves_a_spike_its_share_and_the_others_their_support(name):
    values, line = HURDLES[name]
    frame = pd.DataFrame({name: values, "beside": np.linspace(0, 1, 90)})
    frame = frame.convert_dtypes()
    table = pv.Table.from_frame(frame, likelihood={name: line})
    record = pv.VAE(table, latent_dim=1, encoder="MLP([2])", decoder="MLP([2])").record
    spike, size = table.schema[name].spike, 0.4 if table.schema[name].whole else 0.004
    torch.manual_seed(0)
    beside = torch.randn(100) * size + (spike if "Normal)" in line else 0)
    if "Log" in line or "Gamma" in line:
        beside = beside.abs()
    if "Beta" in line:
        beside = torch.cat([beside[:50].abs(), 1 - beside[50:].abs()])
    cells = torch.cat([torch.full((50,), spike), beside])
    packed = torch.stack([cells, torch.zeros(150)], 1)
    rows = record.answer(packed)
    assert (rows[name] == frame[name][0]).sum() == 50
    assert (table.schema.read(rows).values[:, 0] == spike).sum() == 50
    near = record.answer(packed, mean=True)[name]  # means, which are no draws, are not moved
    assert (near == frame[name][0]).sum() > 50 or name == "within"


@pytest.mark.parametrize("form", [dict, pd.DataFrame])
def test_a_given_time_comes_back_to_the_nanosecond(form):
    time = pd.Timestamp("2020-01-05 03:04:05.123456789")
    times = time + pd.to_timedelta(np.arange(1, 31) * 10**12, unit="ns")
    frame = pd.DataFrame({"at": times.as_unit("ns"), "b": np.linspace(0, 1, 30)})
    vae = pv.VAE(pv.Table.from_frame(frame), 1, **SMALL)
    given = {"at": time} if form is dict else pd.DataFrame({"at": [time]})
    rows = vae.sample(3, given=given, seed=0)
    assert (rows["at"] == time).all() and rows["at"].dtype == frame["at"].dtype


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_given_rows_have_the_types_of_the_table_in_columns_that_they_lack(library):
    whole = {"b": np.linspace(0, 1, 30), "c": np.linspace(0, 1, 30) ** 2}
    frames = [whole | {"one": np.full(30, 3, "int16"), "who": [f"w{i}" for i in range(30)]}]
    frames += [{"b": whole["b"][:2]}]
    make = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}[library]
    first, given = (make(frame) for frame in frames)
    vae = pv.VAE(pv.Table.from_frame(first), 1, **SMALL)
    rows = vae.sample(1, given=given, seed=0)[0]
    for name in frames[0]:
        types = [getattr(frame[name], "dtype", None) or frame[name].type for frame in (rows, first)]
        assert types[0] == types[1], name
    assert np.asarray(rows["one"]).tolist() == [3, 3]


STEPS = {  # values, the step by which they lie apart, and the smallest that may be drawn
    "cents": (np.round(np.geomspace(0.35, 900, 60), 2), 0.01, 0.01),
    "dear": (np.arange(3, 43) ** 2 + 0.99, 1.0, 0.99),
    "salary": (1000 * np.arange(7, 60) ** 2, 1000.0, 1000),
    "odd": (4 * np.arange(1, 60) ** 2 + 3, 4.0, 3),
    "share": (np.arange(1, 100) / 100, 0.01, 0.01),
    "balance": (np.arange(-50, 50) ** 3 / 10, 0.1, -math.inf),
    "any": (np.arange(3, 50) ** 2, None, 1),
    "few": (np.tile([10.0, 20.0, 60.0, 90.0, 95.5, 100.0], 4), 0.1, -math.inf),
    "few cents": (np.arange(1, 8) * 1.25 - 0.5, 0.01, -math.inf),
    "few whole": (np.arange(-2, 12) * 100, None, -math.inf),
    "fine": (np.sqrt(np.arange(2, 60)), None, -math.inf),
}


@pytest.mark.parametrize("name", STEPS)
def test_drawn_numbers_lie_in_the_steps_of_the_column(name):
    """Prices end in .99 and salaries are whole thousands, and what is drawn can be read again."""
    values, step, least = STEPS[name]
    frame = pd.DataFrame({name: np.resize(values, 120), "beside": np.linspace(0, 1, 120)})
    table = pv.Table.from_frame(frame)
    assert table.schema[name].step == step
    draws = torch.cat([torch.rand(50), *(torch.randn(50) * s for s in (1e-3, 10, 1e4))])
    if table.schema[name].kind in ("positive", "bounded"):
        draws = draws.abs().clamp(1e-6)
    if table.schema[name].kind == "bounded":
        draws = draws.clamp(max=1 - 1e-6)
    record = pv.VAE(table, latent_dim=1, encoder="MLP([2])", decoder="MLP([2])").record
    rows = record.answer(torch.stack([draws, torch.zeros(200)], 1))
    assert rows[name].min() >= least
    if step is not None:
        ticks = (rows[name] - values[0]) / step
        assert np.allclose(ticks, ticks.round(), atol=1e-6)
        assert (abs(rows[name] - draws.numpy()) <= step * 1.0001).all()
        assert table.schema[name].extent.endswith(f" by {step:g}")
    again = table.schema.read(rows)
    assert np.array_equal(again.to_frame(again.values)[name], rows[name])
    other = frame.assign(**{name: values[0] + (step or 1) / 4})  # a user's cells are as they were
    if not table.schema[name].whole:
        assert np.array_equal(
            table.schema.read(other).to_frame(table.schema.read(other).values), other
        )


@pytest.mark.parametrize("size", [7, 60])
def test_drawn_numbers_of_single_precision_lie_in_the_steps_of_the_column(size):
    """0.1 of single precision is not 0.1; its cells come back as they were."""
    cents = np.resize(np.arange(1, size + 1) ** 2 * 35 + 1, 120)
    frame = pd.DataFrame({"x": (cents / 100).astype("float32"), "y": np.linspace(0, 1, 120) ** 2})
    table = pv.Table.from_frame(frame, kinds={"x": "real"})
    assert table.schema["x"].step == (0.01 if size < 20 else 0.35)
    fine = frame.assign(x=np.random.default_rng(0).normal(40, 9, 120).astype("float32"))
    assert pv.Table.from_frame(fine).schema["x"].step is None
    new = np.stack(
        [coding.drawn(table.schema["x"], table.values[:, 0] + 0.001), table.values[:, 1]], 1
    )
    assert np.array_equal(table.schema.to_frame(new)["x"], frame["x"])


@pytest.mark.parametrize(
    "library, text",
    [
        ("pandas", "timedelta64[s]"),
        ("pandas", "duration[ms][pyarrow]"),
        ("polars", "Duration(time_unit='ms')"),
        ("pyarrow", "duration[s]"),
    ],
)
def test_durations_are_rounded_to_the_unit_of_their_column(library, text):
    size = 10**3 if "ms" in text else 10**6
    values = (np.array([1.4, 1.6, -1.6]) * size).astype("timedelta64[us]")
    column = make_series(library, "d", values, np.ones(3, bool), text)
    cells = column.to_pylist() if library == "pyarrow" else column.to_list()
    assert [round(v.total_seconds() * 1e6 / size) for v in cells] == [1, 2, -2]


def test_the_metadata_of_an_arrow_table_are_kept(tmp_path):
    """So that pandas makes its own types of what is drawn, such as whole numbers with holes."""
    pa = pytest.importorskip("pyarrow")
    rows = frame()[["age", "income"]].astype({"age": "Int16"})
    table = pa.Table.from_pandas(rows)
    table = table.replace_schema_metadata({**table.schema.metadata, b"unit": b"\xff \x00\n"})
    vae = pv.VAE(pv.Table.from_frame(table), 1, **SMALL)
    again = pv.load(vae.save(tmp_path / "model"))
    for drawn in (again.sample(2, seed=0), again.sample(2, given={"age": 40}, seed=0)):
        assert drawn.schema.equals(table.schema, check_metadata=True)
        assert drawn.to_pandas().dtypes.equals(rows.dtypes)


def test_the_name_of_the_columns_names_is_kept(tmp_path):
    rows = frame()[["age", "income"]].rename_axis(columns="measure")
    vae = pv.VAE(pv.Table.from_frame(rows), 1, **SMALL)
    again = pv.load(vae.save(tmp_path / "model"))
    for drawn in (vae.sample(2, seed=0), again.sample(2, given={"age": 40}, seed=0)):
        assert drawn.columns.name == "measure"


CLOCKS = {  # times or durations, and the seconds by which they lie apart
    "quarters": (
        pd.Timestamp("2024-03-01 00:05", tz="UTC") + pd.to_timedelta(TICKS * 15, "min"),
        900,
    ),
    "weeks": (pd.Timestamp("2024-03-04") + pd.to_timedelta(TICKS * 7, "D"), 7 * 86_400),
    "days": (pd.Timestamp("2024-03-04") + pd.to_timedelta(TICKS, "D"), None),
    "microseconds": (pd.Timestamp("2024-03-04") + pd.to_timedelta(TICKS * 1001, "us"), None),
    "minutes": (pd.to_timedelta(TICKS, "min"), 60),
    "seconds": (pd.to_timedelta(TICKS**2, "s"), 1),
    "few hours": (pd.to_timedelta(TICKS[:9] * 3, "h"), 60),
    "few days": (pd.Timestamp("2024-03-04") + pd.to_timedelta(TICKS[:9] * 3, "D"), None),
    "few quarters": (pd.Timestamp("2024-03-04") + pd.to_timedelta(TICKS[:9] * 15, "s"), 15),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_drawn_times_lie_in_the_steps_of_the_column(name):
    values, seconds = CLOCKS[name]
    rows = pd.DataFrame({name: values, "beside": np.linspace(0, 1, len(values))})
    table = pv.Table.from_frame(rows)
    step = table.schema[name].step
    assert (step is None) if seconds is None else math.isclose(step * 86_400, seconds)
    vae = pv.VAE(table, 1, **SMALL)
    vae.start_from(vae.as_data(table))
    drawn = vae.sample(50, seed=0)[name]
    apart = (drawn - values[0]) / pd.Timedelta(seconds or 86_400, "s")
    assert np.allclose(apart, apart.round(), atol=1e-9) == (name != "microseconds")
    assert table.to_frame(table.values).equals(rows)
