"""Models that simulate tables: each takes training and validation rows, and gives n new ones.

TVAE and CTGAN run in an environment of their own, whose interpreter PEER_PYTHON names:

    python -m venv PEERS; PEERS/bin/pip install ctgan miceforest "lightgbm<4.6"
    export PEER_PYTHON=PEERS/bin/python
"""

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.special import logsumexp

import pyro_vae as pv

__all__ = ["METHODS", "PRIOR_LINE", "Simulator", "run_peer", "trained"]

Simulator = Callable[[pd.DataFrame, pd.DataFrame, int, int], pd.DataFrame]
BINS = 40  # of a quantity with more values than that
COMPONENTS, STEPS, PRIOR = 200, 150, 0.05


def independent(train: pd.DataFrame, valid: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Each column's own training values, shuffled."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({c: rng.permutation(np.resize(v, n)) for c, v in train.items()})


def mixture(train: pd.DataFrame, valid: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """200 components of independent categories, fitted by EM from random responsibilities.

    A quantity of more than 40 values is cut into as many bins of equal counts, a missing cell is
    a bin of its own, and a value is drawn from the training values in its bin. The steps stop where
    the validation rows' likelihood is at its best.
    """
    rng = np.random.default_rng(seed)
    codes = {c: _bins(train[c], pd.concat([train[c], valid[c]])) for c in train}
    sizes = [int(both.max()) + 1 for both in codes.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    x = np.stack([both + s for both, s in zip(codes.values(), starts, strict=True)], 1)
    ones = csr_array((np.ones(x.size), x.ravel(), np.arange(0, x.size + 1, x.shape[1])))
    x_train, x_valid = ones[: len(train)], ones[len(train) :]
    margins = np.asarray(x_train.sum(0)) / len(train)
    best, log_theta = (-np.inf, 0), np.empty(())
    shares = rng.dirichlet(np.full(COMPONENTS, 0.1), len(train))
    for step in range(STEPS):
        weight = (shares.sum(0) + PRIOR) / (len(train) + PRIOR * COMPONENTS)
        counts = x_train.T @ shares + PRIOR * len(sizes) * margins[:, None] + 1e-9
        totals = np.add.reduceat(counts, starts, 0)
        log_theta = np.log(counts / np.repeat(totals, sizes, 0))
        score = logsumexp(x_valid @ log_theta + np.log(weight), 1).mean()
        if score > best[0]:
            best, kept = (score, step), (weight, log_theta)
        elif step > best[1] + 10:
            break
        joint = x_train @ log_theta + np.log(weight)
        shares = np.exp(joint - logsumexp(joint, 1, keepdims=True))
    weight, log_theta = kept
    which = np.sort(rng.choice(COMPONENTS, n, p=weight))
    drawn = {}
    for c, start, size in zip(codes, starts, sizes, strict=True):
        p = np.exp(log_theta[start : start + size])
        bins = (p.cumsum(0).T[which] < rng.random((n, 1))).sum(1).clip(max=size - 1)
        drawn[c] = _values(train[c], codes[c][: len(train)], bins, rng)
    return pd.DataFrame(drawn).iloc[rng.permutation(n)].reset_index(drop=True)


def _bins(train: pd.Series, column: pd.Series) -> np.ndarray:
    """Codes from 0; 0 is missing."""
    if train.nunique() <= BINS or not pd.api.types.is_numeric_dtype(train):
        levels = pd.Index(train.dropna().unique())
        return levels.get_indexer(column) + 1  # a value that only validation rows have: missing
    edges = np.unique(train.quantile(np.arange(1, BINS) / BINS))
    return np.where(column.isna(), 0, np.searchsorted(edges, column, "right") + 1)


def _values(
    train: pd.Series, codes: np.ndarray, bins: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """For each drawn bin one of the training values in it."""
    order = np.argsort(codes, kind="stable")
    first, last = (np.searchsorted(codes[order], bins, side) for side in ("left", "right"))
    chosen = first + (rng.random(len(bins)) * (last - first)).astype(int)
    values = train.to_numpy()[order[np.minimum(chosen, len(order) - 1)]]
    return pd.Series(values).where(last > first, None).to_numpy()


def vae(train: pd.DataFrame, valid: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """The package's, with a flow for a prior."""
    return trained(train, valid, seed, PRIOR_LINE).sample(n, seed=seed)


def trained(train: pd.DataFrame, valid: pd.DataFrame, seed: int, prior: str) -> pv.VAE:
    """A VAE: quantities with few values are categories, holes have bits beside them.

    The weight of the KL rises during the first half of the epochs: without that z carries 2 nats
    of a row of Adult where it carries 5 with it. With few rows it rises during all of them, to a
    half, batches are smaller, for as many steps as with many, and the categories are in order.
    """
    rows, few = pd.concat([train, valid], ignore_index=True), len(train) <= 5_000
    quantities = lines(rows, "OrderedLogistic" if few else "Categorical")
    table = pv.Table.from_frame(rows, likelihood=quantities)
    nets = {"encoder": NET_LINE, "decoder": NET_LINE}
    model = pv.VAE(table, latent_dim=8, prior=prior, missing="Bernoulli", seed=seed, **nets)
    epochs = 30 if len(train) > 10_000 else 60
    beta = f"linear(0.1, 0.5, epochs={epochs})" if few else f"linear(0.1, 1, epochs={epochs // 2})"
    pv.fit(
        model,
        table[: len(train)],
        epochs=epochs,
        batch_size=125 if few else 500,
        lr="cosine(4e-3)",
        beta=beta,
        validation=table[len(train) :],
        seed=seed,
    )
    return model


def lines(rows: pd.DataFrame, levels: str) -> dict[str, str]:
    """The likelihoods of quantities; ``levels`` of those with few values."""
    few = {c: values.nunique() <= VALUES for c, values in rows.select_dtypes("number").items()}
    return {c: levels if short else QUANTITY_LINE for c, short in few.items()}


VALUES = 400
NET_LINE = "MLP([256, 256], activation=SiLU)"
PRIOR_LINE = "Flow(NSF, transforms=3)"
QUANTITY_LINE = "Mixture(LogNormal(loc=learned, scale=learned), components=20)"


def run_peer(name: str, table: pd.DataFrame, *arguments: object) -> pd.DataFrame:
    """What ``peers.py`` makes of a table, in the environment that PEER_PYTHON names."""
    python = os.environ.get("PEER_PYTHON")
    if python is None:
        raise SystemExit(f"{name} needs PEER_PYTHON: see {__file__}")
    with tempfile.TemporaryDirectory() as place:
        ends = [Path(place) / "in.csv", Path(place) / "out.csv"]
        table.to_csv(ends[0], index=False)
        script = Path(__file__).with_name("peers.py")
        subprocess.run([python, script, name, *ends, *map(str, arguments)], check=True)
        return pd.read_csv(ends[1])


def peer(name: str) -> Simulator:
    """TVAE or CTGAN with its authors' settings."""
    return lambda train, valid, n, seed: run_peer(name, train, n, seed)


METHODS: dict[str, Simulator] = {
    "independent columns": independent,
    f"mixture of {COMPONENTS}": mixture,
    "TVAE": peer("TVAE"),
    "CTGAN": peer("CTGAN"),
    "pyro_vae": vae,
}
