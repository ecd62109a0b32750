"""Amputation: each mechanism does what it says, and no more."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

import pyro_vae as pv

N = 20_000


def numbers(n=N, d=4, seed=0):
    """Correlated normal columns."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + rng.normal(size=(n, 1))


def z_of_difference(x, hole):
    """The difference of the means of x where there is a hole and where there is none."""
    a, b = x[hole], x[~hole]
    return (a.mean() - b.mean()) / np.sqrt(a.var() / len(a) + b.var() / len(b))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("mechanism", ["MCAR", "MAR", "MNAR"])
def test_the_share_is_hit(mechanism, share):
    holes = np.isnan(pv.ampute(numbers(), mechanism, share, seed=1))
    z = (holes.mean(0) - share) / np.sqrt(share * (1 - share) / N)
    assert np.abs(z).max() < 5


def test_mcar_says_nothing_of_any_value():
    x = numbers()
    holes = np.isnan(pv.ampute(x, "MCAR", 0.3, seed=2))
    z = [z_of_difference(x[:, j], holes[:, k]) for j in range(4) for k in range(4)]
    assert np.abs(z).max() < 4.5
    pairs = np.corrcoef(holes.T)[np.triu_indices(4, 1)] * np.sqrt(N)
    assert np.abs(pairs).max() < 4.5


def test_mar_depends_on_what_is_seen_alone():
    """Given the columns that stay whole, the hidden value tells nothing of the hole."""
    x = numbers()
    holes = np.isnan(pv.ampute(x, "MAR", 0.3, seed=3, columns=[0, 1], strength=2.0))
    assert not holes[:, 2:].any()
    assert z_of_difference(x[:, 2] + x[:, 3], holes[:, 0]) > 30
    assert z_of_difference(x[:, 0], holes[:, 0]) > 10  # in the margin it does
    ranks = norm.ppf((x[:, 2:].argsort(0).argsort(0) + 0.5) / N).sum(1)
    ranks = (ranks - ranks.mean()) / ranks.std()
    bins = np.digitize(ranks, np.linspace(-2.5, 2.5, 200))
    seen = np.isin(np.arange(202), np.flatnonzero(np.bincount(bins, minlength=202) > 20))
    left = x[:, 0].copy()
    for k in np.flatnonzero(seen):
        left[bins == k] -= left[bins == k].mean()
    inside = seen[bins]
    assert abs(z_of_difference(left[inside], holes[inside, 0])) < 4.5


def test_mar_of_all_columns_leaves_the_cells_it_depends_on():
    """A row of one pattern has holes in one half of the columns alone."""
    holes = np.isnan(pv.ampute(numbers(d=6), "MAR", 0.4, seed=4))
    together = (holes.T.astype(float) @ holes) > 0
    halves = {tuple(np.flatnonzero(row)) for row in together}
    assert len(halves) == 2 and sorted(j for half in halves for j in half) == list(range(6))


def test_mnar_depends_on_the_hidden_value_alone():
    x = np.random.default_rng(5).normal(size=(N, 2))
    holes = np.isnan(pv.ampute(x, "MNAR", 0.3, seed=5))
    assert z_of_difference(x[:, 0], holes[:, 0]) > 30
    assert abs(z_of_difference(x[:, 1], holes[:, 0])) < 4.5
    logits = np.polyfit(*_log_odds(x[:, 0], holes[:, 0]), 1)
    assert abs(logits[0] - 1) < 0.1  # a slope of strength 1, with an error of .02


def _log_odds(x, hole):
    """Centres of 20 bins of x and the log odds of a hole in each."""
    parts = np.array_split(np.argsort(x), 20)[1:-1]
    shares = np.array([hole[part].mean() for part in parts])
    return [x[part].mean() for part in parts], np.log(shares / (1 - shares))


def test_frames_keep_their_kind():
    frame = pd.DataFrame(
        {
            "age": np.arange(200) % 70,
            "weight": np.arange(200) / 3,
            "pet": ["cat", "dog"] * 100,
            "flag": [True, False] * 100,
            "kind": pd.Categorical(["a", "b", "c", "a"] * 50),
            "day": pd.date_range("2020", periods=200),
        },
        index=np.arange(200) * 2,
    )
    for mechanism in ("MCAR", "MAR", "MNAR"):
        holed = pv.ampute(frame, mechanism, 0.3, seed=0)
        assert list(holed) == list(frame) and holed.index.equals(frame.index)
        assert 0.2 < holed.isna().to_numpy().mean() < 0.4
        kept = holed.notna()
        for name in frame:
            same = holed[name][kept[name]].astype(frame[name].dtype)
            assert same.equals(frame[name][kept[name]])
        assert holed["kind"].dtype == frame["kind"].dtype
        assert not frame.isna().to_numpy().any()
    some = pv.ampute(frame, "MAR", 0.9, seed=0, columns=["pet"])
    assert some.isna().sum().drop("pet").sum() == 0 and some["pet"].isna().mean() > 0.8


def test_what_stays_whole_may_be_of_any_type():
    frame = pd.DataFrame({"x": np.arange(40.0), "y": np.arange(40.0), "lists": [[1]] * 40})
    holed = pv.ampute(frame, "MAR", 0.5, seed=0, columns=["x"])
    assert holed["x"].isna().any() and holed[["y", "lists"]].equals(frame[["y", "lists"]])
    with pytest.raises(ValueError, match="column 'lists', row 0: a table cannot hold list"):
        pv.ampute(frame, "MAR", 0.5, seed=0)
    assert len(pv.ampute(frame[["x", "y"]][:1], "MAR", 0.5, seed=0)) == 1  # warns of no mean


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_frames_of_other_libraries_keep_their_types(library):
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    make = module.table if library == "pyarrow" else module.DataFrame
    frame = make({"age": list(range(50)), "pet": ["cat", "dog"] * 25})
    holed = pv.ampute(frame, "MNAR", 0.5, seed=0)
    assert holed.schema == frame.schema
    nulls = (
        holed.to_pandas() if library == "pyarrow" else pd.DataFrame(holed.to_dict(as_series=False))
    )
    assert 0.3 < nulls.isna().to_numpy().mean() < 0.7


def test_tensors_seeds_and_holes_that_were_there():
    x = torch.arange(60.0).reshape(30, 2)
    x[::3, 0] = torch.nan
    holed = pv.ampute(x, "MNAR", 0.4, seed=1)
    assert holed.dtype == x.dtype and holed[::3, 0].isnan().all()
    assert torch.equal(holed.isnan(), pv.ampute(x, "MNAR", 0.4, seed=1).isnan())
    assert not torch.equal(holed.isnan(), pv.ampute(x, "MNAR", 0.4, seed=2).isnan())
    assert pv.ampute(torch.arange(60).reshape(30, 2), seed=0).dtype == torch.float64


def test_what_a_mask_hides_stays_missing():
    x = np.ma.masked_array(np.arange(40).reshape(20, 2), mask=False)
    x[3:9, 1] = np.ma.masked
    holed = pv.ampute(x, "MNAR", 0.3, seed=0)
    assert np.isnan(holed[3:9, 1]).all() and np.isnan(holed).sum() > 6
    seen = ~np.isnan(holed)
    assert np.array_equal(holed[seen], x.data[seen])


BAD = {
    "a mechanism": ({"mechanism": "MBR"}, "one of MCAR, MAR, MNAR, got 'MBR'"),
    "a share": ({"share": 1.5}, "share is a fraction"),
    "a column": ({"columns": [7]}, "there is no column 7"),
    "no column": ({"columns": []}, "columns are a list"),
    "too much": ({"mechanism": "MAR", "share": 0.7}, "at most half"),
    "nothing whole": ({"mechanism": "MAR", "columns": [0, 1]}, "needs a column that stays whole"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused(name):
    said, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        pv.ampute(np.zeros((9, 2)), **{"seed": 0, **said})
