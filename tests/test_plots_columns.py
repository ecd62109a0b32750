"""Pictures of a table: shares that are exact, levels and dates by name, associations, bands."""

import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from scipy.stats import spearmanr

from pyro_vae import plots
from pyro_vae.evaluate import ImputationCheck
from pyro_vae.evaluate.tables.associations import associations

pytestmark = pytest.mark.usefixtures("close_figures")

RNG = np.random.default_rng(0)


# Margins.


def test_a_bar_is_the_share_of_a_level():
    kinds = pd.CategoricalDtype(["a very long name of a level", "b", "c"])
    first = pd.Series(["b", "b", "c", None], name="kind", dtype=kinds)
    other = pd.Series(["b", "a very long name of a level"], name="kind", dtype=kinds)
    ax = plots.margin({"observed": first, "simulated": other})
    widths = [[bar.get_width() for bar in bars] for bars in ax.containers]
    assert widths == [[0, 2 / 3, 1 / 3], [0.5, 0.5, 0]]  # of the cells that are there
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["a very long name …", "b", "c"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("share of rows", "")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["observed", "simulated"]


def test_rare_levels_are_one_bar():
    levels = [f"l{i}" for i in range(30)]
    some = pd.Series([level for i, level in enumerate(levels) for _ in range(40 - i)], name="l")
    ax = plots.margin({"observed": some})
    shares = [bar.get_width() for bar in ax.containers[0]]
    assert len(shares) == 10 and sum(shares) == pytest.approx(1)
    assert [t.get_text() for t in ax.get_yticklabels()] == [*levels[:9], "others"]


def test_few_whole_numbers_have_a_bar_each():
    ax = plots.margin({"observed": pd.Series([2, 2, 5, None], name="legs")})
    bars = ax.containers[0]
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([2, 5])
    assert [bar.get_height() for bar in bars] == pytest.approx([2 / 3, 1 / 3])
    assert ax.get_xlabel() == "legs"


def test_bars_of_whole_numbers_that_lie_far_apart_are_seen():
    ax = plots.margin({"observed": pd.Series([0, 1, 1, 50_000], name="debt")})
    left, right = ax.get_xlim()
    assert all(bar.get_width() > 0.1 * (right - left) for bar in ax.containers[0])
    assert [bar.get_height() for bar in ax.containers[0]] == [0.25, 0.5, 0.25]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "50000"]


def test_a_histogram_holds_all_rows():
    samples = {k: pd.Series(RNG.normal(0, s, 500), name="x") for k, s in (("a", 1), ("b", 3))}
    ax = plots.margin(samples)
    for patch in ax.patches:
        assert patch.get_data().values.sum() == pytest.approx(1)  # what lies beyond is at the ends
    assert len({len(patch.get_data().edges) for patch in ax.patches}) == 1
    assert ax.get_xscale() == "linear"
    assert plots.margin({"a": pd.Series(np.exp(RNG.normal(0, 3, 500)))}).get_xscale() == "log"


def test_dates_are_on_an_axis_of_dates():
    days = pd.Series(pd.date_range("2020-01-01", periods=400), name="born")
    ax = plots.margin({"observed": days})
    ax.figure.canvas.draw()
    shown = " ".join(text.get_text() for text in ax.get_xticklabels())
    assert "2020" in shown or "2021" in shown
    with pytest.raises(ValueError, match="samples of a column with some cells, got none"):
        plots.margin({"observed": pd.Series([None, None], dtype=float)})


HOURS = np.random.default_rng(1).gamma(2, 5, 200)
WRITTEN = {
    "durations": (pd.to_timedelta(HOURS, unit="h"), HOURS / 24),
    "decimals": ([Decimal(f"{hour:.2f}") for hour in HOURS], HOURS.round(2)),
    "prices": ([f"${100 * hour:,.2f}" for hour in HOURS], (100 * HOURS).round(2)),
    "objects": (pd.Series([*HOURS.round().tolist(), None], dtype=object), HOURS.round()),
    "Arrow": (pd.Series(HOURS).astype("double[pyarrow]"), HOURS),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_numbers_in_any_type_are_drawn_as_associations_read_them(kind):
    some, numbers = WRITTEN[kind]
    ax = plots.margin({"observed": pd.Series(some, name="x")})
    right = plots.margin({"observed": pd.Series(numbers, name="x")})
    assert len(ax.patches) == len(right.patches)
    for one, other in zip(ax.patches, right.patches, strict=True):
        assert one.get_path().vertices == pytest.approx(other.get_path().vertices, rel=1e-5)
    assert ax.get_xlabel() == ("x (days)" if kind == "durations" else "x")


def test_dates_that_are_objects_are_dates_and_moments_on_their_own_clock():
    days = pd.Series(pd.date_range("2020-01-01", periods=400), name="born")
    right = plots.margin({"observed": days}).patches[0].get_data()
    clocks = days.dt.tz_localize("Asia/Tokyo")
    for some in (days.dt.date, days.dt.strftime("%Y-%m-%d"), clocks):
        found = plots.margin({"observed": some.rename("born")}).patches[0].get_data()
        assert found.edges == pytest.approx(right.edges) and (found.values == right.values).all()
    with pytest.raises(ValueError, match="simulated: column 'born' holds quantities elsewhere"):
        plots.margin({"observed": days, "simulated": pd.Series(["soon", "never"], name="born")})


# Associations.


def table(n=2000):
    z = RNG.normal(size=(n, 2))
    return pd.DataFrame(
        {
            "a": z[:, 0],
            "b": -np.exp(z[:, 0]) + 0.5 * z[:, 1],
            "c": np.where(z[:, 0] > 0, "u", "v"),
            "d": np.where(z[:, 0] > 0, "w", "x"),
            "noise": RNG.choice(list("pqrst"), n),
        }
    )


def test_associations_are_those_that_are_known():
    frame = table()
    frame.loc[::5, "b"] = np.nan
    found = associations(frame)
    assert (found.to_numpy() == found.to_numpy().T).all() and (np.diag(found) == 1).all()
    known = frame.dropna()
    assert found.loc["a", "b"] == pytest.approx(spearmanr(known["a"], known["b"])[0])
    assert found.loc["c", "d"] == pytest.approx(1)
    # Ranks of a half against those of the other: the share of variance between is 3/4.
    assert found.loc["a", "c"] == pytest.approx(math.sqrt(0.75), abs=0.02)
    assert found.loc["noise", ["a", "b", "c"]].max() < 0.08


@pytest.mark.slow
def test_associations_of_noise_have_a_square_of_no_bias():
    """Without the correction the square of V would be (4 - 1) / n, that of the ratio 3 / n."""
    squares = []
    for _ in range(100):
        frame = pd.DataFrame({"a": RNG.normal(size=50), "c": RNG.choice(list("abcd"), 50)})
        frame["d"] = RNG.choice(list("ab"), 50)
        squares.append(associations(frame).to_numpy()[[0, 1], [1, 2]] ** 2)
    assert (np.mean(squares, 0) < 0.7 * 3 / 50).all()  # what is below 0 is cut off
    assert (np.median(squares, 0) < 0.01).all()


@pytest.mark.slow
def test_the_matrix_is_drawn_with_its_names_and_numbers():
    frame = table(200)
    other = frame.assign(a=RNG.permutation(frame["a"]))
    one, difference = plots.associations(frame), plots.associations(frame, other, title="gap")
    expected = associations(other) - associations(frame)
    assert np.allclose(difference.images[0].get_array(), expected)
    assert np.allclose(one.images[0].get_array(), associations(frame))
    assert [text.get_text() for text in one.get_xticklabels()] == list(frame)
    written = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in one.texts]
    assert np.allclose(
        [float(text) for text in written], associations(frame).to_numpy().ravel(), atol=0.006
    )
    assert difference.get_title() == "gap"


# Imputations.


def check_of(columns):
    cells = [
        pd.DataFrame({"row": range(len(u)), "column": k, "pit": u}) for k, u in columns.items()
    ]
    figures = pd.DataFrame({"score": ["CRPS", "Brier"][: len(columns)]}, index=list(columns))
    return ImputationCheck(figures, pd.concat(cells), 0)


def coloured(ax):
    red = pyplot.matplotlib.colors.to_rgba("C3")[:3]
    return [bars.patches[0].get_facecolor()[:3] == red for bars in ax.containers]


@pytest.mark.slow
def test_bands_hold_for_all_bars_of_uniform_places_together():
    """A probability of .99, of 60 tables: more than 4 alarms are seen once in 2,000 times."""
    alarms = 0
    for seed in range(60):
        u = np.random.default_rng(seed).random((2, 120))
        alarms += any(coloured(plots.imputation_check(check_of({"a": u[0], "b": u[1]}))))
        pyplot.close("all")
    assert alarms <= 4


def test_places_that_crowd_at_the_ends_are_coloured():
    u = RNG.beta(0.4, 0.4, 200)
    ax = plots.imputation_check(check_of({"sure": u, "right": RNG.random(200)}))
    assert coloured(ax) == [True, False]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["sure", "right *"]
    heights = np.array([-bar.get_height() for bar in ax.containers[0]])
    counts = np.histogram(u, 10, (0, 1))[0]
    assert heights / heights.sum() == pytest.approx(counts / 200)
