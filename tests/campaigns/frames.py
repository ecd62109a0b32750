"""Frames as strangers have them, against every face of tables: an answer that keeps them, or words.

``python tests/campaigns/frames.py [name ...]``
"""

import datetime
import decimal
import io
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd
import torch
from pandas.testing import assert_frame_equal
from sklearn import datasets

import pyro_vae as pv

N = 80
RNG = np.random.default_rng(0)
X = RNG.normal(size=N)
WORDS = RNG.choice(["u", "v", "w"], N)
FEW = {"encoder": "MLP([16])", "decoder": "MLP([16])", "seed": 0}


def holed(values):
    """With every seventh cell missing."""
    return pd.Series(values).mask(np.arange(len(values)) % 7 == 3)


def beside(**columns):
    """Columns beside a quantity."""
    return pd.DataFrame({"x": X, **columns})


def drawn(*values):
    """Some values, as often as there are rows, as objects."""
    return pd.Series([values[i] for i in RNG.integers(len(values), size=N)], dtype=object)


def named(data, **names):
    """A data set of scikit-learn's with its target in words."""
    frame = data.frame.sample(N, random_state=0)
    return frame.assign(target=frame["target"].map(dict(enumerate(data.target_names))), **names)


DAY = datetime.date(1950, 1, 1)
FRAMES = {
    "iris": named(datasets.load_iris(as_frame=True)),
    "wine, one label for all rows": named(datasets.load_wine(as_frame=True)).set_axis([0] * N),
    "diabetes": datasets.load_diabetes(as_frame=True, scaled=False).frame[:N],
    "linnerud": datasets.load_linnerud(as_frame=True).frame,
    "tumours": named(datasets.load_breast_cancer(as_frame=True)).iloc[:, [0, 5, 29, 30]],
    "a shop": pd.DataFrame(
        {
            "prix €": holed(RNG.lognormal(3, 1, N).round(2)),
            "größe": pd.Categorical(
                RNG.choice(list("SML"), N), ["XS", "S", "M", "L"], ordered=True
            ),
            "注文": pd.date_range("2024-03-01", periods=N, freq="7h", tz="Asia/Tokyo"),
            "wait": pd.to_timedelta(RNG.exponential(3600, N).round(), unit="s"),
            "gift": drawn(True, False, None),
            "qty": RNG.poisson(2, N),
        }
    ),
    "a clinic": pd.DataFrame(
        {
            "stage": RNG.integers(1, 5, N),
            "born": holed([DAY + datetime.timedelta(int(d)) for d in RNG.integers(0, 9000, N)]),
            "bilirubin": np.where(RNG.random(N) < 0.3, 0.1, RNG.lognormal(0, 1, N).round(2)),
            "sex": holed(RNG.choice(["m", "f"], N)),
        }
    ),
    "decimals": beside(amount=drawn(*map(decimal.Decimal, range(50)))),
    "periods": beside(quarter=pd.period_range("2001", periods=N, freq="Q")),
    "intervals": beside(cut=pd.cut(X, 4)),
    "sparse": beside(few=pd.arrays.SparseArray(np.where(X < 1, 0, RNG.integers(1, 5, N)))),
    "sparse with holes": beside(few=pd.arrays.SparseArray(np.where(X < 0, np.nan, X))),
    "names in levels": pd.DataFrame(
        RNG.normal(size=(N, 2)), columns=pd.MultiIndex.from_product([["a"], ["x", "y"]])
    ),
    "rows in levels": beside(w=WORDS).set_axis(pd.MultiIndex.from_product([range(8), range(10)])),
    "rows by day": beside(w=WORDS).set_axis(pd.date_range("2020", periods=N)),
    "long words": beside(w=RNG.choice(["x" * 5000, "y" * 4000, "z"], N)),
    "numbers beside words": beside(w=drawn(1, "1")),
    "truths beside numbers": beside(w=drawn(True, 3)),
    "truths with None": beside(w=drawn(True, False, None)),
    "one name twice": pd.concat([beside(), beside()], axis=1),
    "nothing in whole numbers": beside(w=pd.array([None] * N, dtype="Int64")),
    "nothing in objects": beside(w=[None] * N),
    "no time": beside(w=pd.Series([pd.NaT] * N)),
    "levels that none has": beside(w=pd.Categorical(WORDS, ["t", "u", "v", "w", "x"])),
    "levels of numbers": beside(w=pd.Categorical(holed(RNG.integers(0, 3, N)))),
    "names of arguments": beside(
        loc=X, weight=X**2 + 0.1, missing=WORDS, condition=-X, z=X, **{"a.b": X, "c=d": WORDS}
    ),
    "truths alone": pd.DataFrame({"p": X < 0, "q": pd.array(X > 1, dtype="boolean")}),
    "one column": pd.DataFrame({"p": holed(X)}),
    "small numbers": beside(w=X * 1e-12),
    "large numbers": beside(w=X * 1e15),
    "numbers too large": beside(w=X * 1e25),
    "numbers far from 0": beside(w=RNG.integers(10**9, 10**9 + 50, N)),
    "spikes": beside(p=np.where(X < 0, 0, X), q=np.where(X < 0, 100.0, 50 + X)),
    "a level once": beside(w=np.where(np.arange(N) == 3, "rare", "usual")),
    "nanoseconds": beside(w=pd.to_datetime(RNG.integers(0, 10**18, N))),
    "milliseconds": beside(w=pd.to_datetime(RNG.integers(0, 10**12, N), unit="ms").as_unit("ms")),
    "times of the day": beside(w=[f"{i % 24:02d}:{i % 60:02d}" for i in range(N)]),
    "small types": beside(
        a=RNG.integers(0, 255, N).astype("uint8"), b=X.astype("float16"), c=X.astype("float32")
    ),
    "negative counts": beside(w=RNG.poisson(3, N) - 1),
    "shares": beside(p=RNG.beta(2, 2, N), q=(100 * RNG.beta(2, 2, N)).round(1)),
    "bytes": beside(w=drawn(b"a", b"b")),
    "tuples": beside(w=drawn((1, 2), (3, 4))),
    "years": beside(w=RNG.integers(1990, 2020, N)),
}


def with_holes(frame, columns):
    """The frame with cells missing in the columns, of types that can say so."""
    frame = frame.copy()
    for i, name in enumerate(columns):
        column = frame[name]
        if isinstance(column.dtype, pd.SparseDtype):
            column = column.sparse.to_dense()
        if column.dtype.kind in "iub" and isinstance(column.dtype, np.dtype):
            column = column.astype({"b": "boolean"}.get(column.dtype.kind, "Int64"))
        frame[name] = column.mask(np.arange(len(frame)) % 7 == i % 7)
    return frame


def kept(frame, filled, columns):
    """What is wrong with a filled frame, in words."""
    if list(filled) != list(frame) or not filled.index.equals(frame.index):
        return "the order of columns or the index is another"
    for name in frame:
        known = frame[name].notna().to_numpy()
        own, new = (f[name].to_numpy(object)[known] for f in (frame, filled))
        if not (own == new).all() or filled[name].dtype != frame[name].dtype:
            return f"known cells or the type of {name!r} are others"
        if name in columns and filled[name].isna().any():
            return f"holes are left in {name!r}"
    return None


def faces(name, frame):
    """Each use of the frame by its name; an answer is what is wrong, ``None`` if nothing is."""
    table = pv.Table.from_frame(frame)
    columns = [c.name for c in table.schema.modelled]
    vae = pv.VAE(table, 2, **FEW)
    holes = with_holes(frame, columns)
    assert_frame_equal(table.to_frame(table.values), frame)

    def train():
        pv.fit(vae, table, epochs=1, seed=0, compile=False, progress=False)

    def impute():
        return kept(holes, vae.impute(holes, num_samples=50, seed=0), columns)

    def draw():
        drawn = vae.impute(holes, draws=2, num_samples=50, seed=0)
        return kept(holes, drawn[1], columns)

    def sample():
        new = vae.sample(12, seed=0)
        table.schema.read(new)
        return None if (new.dtypes == frame.dtypes).all() else "types of draws are others"

    def given():
        for column in columns:
            value = frame[column].dropna().iloc[0]
            new = vae.sample(3, given={column: value}, seed=0)[column]
            exact = not isinstance(value, pd.Timestamp)
            if not all(v == value if exact else abs(v - value) < pd.Timedelta("1us") for v in new):
                return f"{column!r} given as {value!r} is {new.tolist()!r}"
        return None

    def score():
        figures = pv.log_evidence(vae, holes, num_samples=20, seed=0).log_evidence
        return None if figures.isfinite().all() else "densities are not finite"

    def fidelity():
        half = len(frame) // 2
        if half >= 20:
            pv.fidelity(frame[:half], vae.sample(half, seed=1), frame[half:])

    def scikit_learn():
        from pyro_vae.sklearn import VAEImputer

        options = {"encoder": "MLP([8])", "decoder": "MLP([8])", "epochs": 1, "num_samples": 20}
        imputer = VAEImputer(2, likelihood="auto", random_state=0, **options)
        return kept(holes, imputer.fit_transform(holes), columns)

    def csv():
        text = io.StringIO()
        vae.sample(30, seed=0).to_csv(text, index=False)
        text.seek(0)
        pv.Table.from_frame(pd.read_csv(text))

    return (train, impute, draw, sample, given, score, fidelity, scikit_learn, csv)


def failures(names=tuple(FRAMES)):
    """What neither keeps a frame nor refuses it in words that name a column."""
    for name in names:
        try:
            uses = faces(name, FRAMES[name])
        except ValueError as error:
            if "column" not in str(error):
                yield f"{name}: from_frame", f"no column is named: {error}"
            continue
        except Exception as error:
            yield f"{name}: from_frame", f"{type(error).__name__}: {error}"
            continue
        for use in uses:
            try:
                answer = use()
            except ValueError as error:
                answer = None if "column" in str(error) else f"ValueError: {error}"
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            if answer:
                yield f"{name}: {use.__name__}", answer


def main(*names):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wrong = 0
    for what, answer in failures(names or tuple(FRAMES)):
        wrong += 1
        print(f"{what}\n    {answer}", flush=True)
    print(f"{len(names or FRAMES)} frames, {wrong} failures")


if __name__ == "__main__":
    main(*sys.argv[1:])
