"""Models of every kind, tiny, with observations as their users have them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from scipy import sparse
from torch import nn

import pyro_vae as pv

__all__ = ["KINDS", "Case", "case_of"]

N = 12
SMALL = {"encoder": "MLP([4])", "decoder": "MLP([4])", "seed": 0}
RNG = np.random.default_rng(0)
BITS = torch.tensor(RNG.integers(0, 2, (N, 4)), dtype=torch.float32)
REALS = torch.tensor(RNG.normal(size=(N, 4)), dtype=torch.float32)
COUNTS = RNG.poisson(3, (N, 5))
COUNTS[:, 0] += 1
HOLES = torch.where(torch.tensor(RNG.random((N, 4)) < 0.2), torch.nan, REALS)
HOLES[:, 0] = REALS[:, 0]
ROLLS = [torch.tensor(RNG.normal(size=(n, 3)), dtype=torch.float32) for n in [3, 1, 4, 2] * 3]
TOKENS = [[*map(int, RNG.integers(0, 3, n))] for n in [3, 1, 4, 2] * 3]
C = torch.tensor(RNG.normal(size=(N, 2)), dtype=torch.float32)
OBS = pd.DataFrame({"batch": [*"ab"] * (N // 2), "depth": RNG.random(N) + 0.5})
FRAME = pd.DataFrame(
    {
        "age": RNG.normal(50, 10, N).round(1),
        "income": RNG.gamma(2, 1000, N),
        "site": [*"abc"] * (N // 3),
        "sick": [True, False] * (N // 2),
        "visits": RNG.poisson(3, N),
        "on": pd.date_range("2020-01-01", periods=N),
        "w": RNG.random(N) + 0.5,
    },
    index=[f"r{i}" for i in range(N)],
)
GONE = FRAME.assign(
    age=FRAME.age.where(RNG.random(N) > 0.3),
    site=FRAME.site.where(RNG.random(N) > 0.3),
    visits=FRAME.visits.astype("Int64").where(RNG.random(N) > 0.3),
)
VISITS = pd.DataFrame(
    {
        "subject": np.repeat([*"pqrstu"], 3)[:-1],
        "time": np.tile([0.0, 1, 2], 6)[:-1],
        "y": RNG.normal(size=17),
        "v": RNG.normal(size=17),
        "arm": np.repeat([*"xyxyxy"], 3)[:-1],
    }
)


IMAGES = torch.tensor(RNG.random((N, 1, 8, 8)), dtype=torch.float32)
BYTES = torch.tensor(RNG.integers(0, 256, (N, 3, 8, 8)), dtype=torch.uint8)
TEXTS = ["the cat", "a dog", "the dog sat", "cat"] * 3
GENES = [f"g{i}" for i in range(5)]
CELLS = pv.Counts(sparse.csr_matrix(COUNTS), OBS, names=GENES)
SPARSE = sparse.csr_matrix(COUNTS)
DENSE = torch.tensor(COUNTS, dtype=torch.float32)
CENSORED = FRAME[["age", "site", "sick"]].assign(time=FRAME.income)
CONVOLUTIONS = {"encoder": "ConvEncoder([2])", "decoder": "ConvDecoder([2])"}
NEGATIVE = "NegativeBinomial(total_count=learned(shared=False))"
Block, Record = pv.Block, pv.Record
DEPTH = torch.tensor(OBS.depth.to_numpy(), dtype=torch.float32)


@dataclass
class Case:
    """A model of a kind, and what its functions are asked about.

    Attributes:
        vae: the model.
        x: observations, as its user has them.
        ends: two of them alone.
        given: what a sample is conditioned on.
        do: what a counterfactual sets.
        rows: how many observations there are in x.
    """

    vae: Any
    x: Any
    ends: tuple[Any, Any] | None = None
    given: Any = None
    do: dict[str, Any] = field(default_factory=lambda: {"condition": 0.0})
    rows: int = N

    @property
    def models(self) -> list[Any]:
        """The model, or those of a stack."""
        return list(self.vae.models.values()) if hasattr(self.vae, "models") else [self.vae]


def of_array(x, *args, **said):
    vae = pv.VAE(*args, **{**SMALL, **said})
    return Case(vae, x, (x[0], x[1]))


def of_frame(frame=FRAME, table=None, **said):
    vae = pv.VAE(table or pv.Table.from_frame(frame), **{"latent_dim": 2, **SMALL, **said})
    given = frame.iloc[:2].drop(columns="income", errors="ignore")
    return Case(vae, frame, (frame.iloc[:1], frame.iloc[1:2]), given, {"site": "b"})


def beside(x=REALS, **said):
    vae = pv.VAE(4, 2, likelihood="Normal", condition=2, **{**SMALL, **said})
    ends = tuple({"x": x[i : i + 1], "condition": C[i : i + 1]} for i in (0, 1))
    given = {"x": x[:2], "condition": C[:2]}
    return Case(vae, {"x": x, "condition": C}, ends, given, {"condition": [0.0, 1.0]})


def of_blocks(record, arrays, **said):
    vae = pv.VAE(record, 2, **SMALL, **said)
    ends = tuple({k: v[i : i + 1] for k, v in arrays.items()} for i in (0, 1))
    return Case(vae, arrays, ends, {k: v[:2] for k, v in arrays.items()})


def of_counts(x, **said):
    vae = pv.VAE(x, 2, **{**SMALL, "likelihood": NEGATIVE, **said})
    ends = None if hasattr(x, "X") else (x[:1], x[1:2])
    return Case(vae, x, ends, x, {"batch": "b"})


def of_visits(prior, **said):
    table = pv.Table.from_frame(VISITS, likelihood={"y": "Normal", "v": "Normal"})
    one, other = (VISITS[VISITS.subject == s] for s in "pq")
    vae = pv.VAE(table, 2, prior=prior, seed=0, **said)
    return Case(vae, VISITS, (one, other), VISITS, {"arm": "x"}, 6)


def labelled(x, shape=4, *, missing=False, **beside):
    networks = {"merge": "MLP([4])", "likelihood": "Normal", **SMALL}
    vae = pv.M2(shape, 2, 3, missing=missing, **networks)
    x = vae.labelled({"x": x, **beside} if beside else x, [0, 1, 2, -1] * (N // 4))
    return Case(vae, x, (x[0], x[1]), x[:2], {"c": [0.0, 1.0]})


def sequences(x, shape, line, **said):
    networks = {"encoder": "GRU(4)", "decoder": "GRU(4)"}
    vae = pv.VAE(shape, 2, likelihood=line, seed=0, **networks | said)
    return Case(vae, x, (x[0], x[2]) if isinstance(x, list) else None)


def with_keys():
    case = sequences({"x": ROLLS, "condition": C}, (None, 3), "Normal", condition=2)
    case.ends = tuple({"x": [ROLLS[i]], "condition": C[i : i + 1]} for i in (0, 2))
    case.given = {"condition": C[:2], "lengths": [2, 3]}
    return case


def texts():
    vocabulary = pv.Vocabulary.of(TEXTS, "words")
    vae = pv.VAE(vocabulary, 2, encoder="GRU(4)", decoder="GRU(4)", seed=0)
    return Case(vae, TEXTS, (TEXTS[0], TEXTS[1]))


class Annotated:
    """Counts as AnnData has them."""

    def __init__(self, x, obs):
        self.X, self.obs, self.layers = x, obs, {}
        self.var_names, self.obs_names = pd.Index(GENES), obs.index
        self.var, self.shape, self.n_obs = pd.DataFrame(index=self.var_names), x.shape, len(obs)


def program(shared=False):
    y = torch.tensor(COUNTS[:, 0], dtype=torch.float32)

    def model(y):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0)) if shared else None
        with pyro.plate("data", len(y)):
            rate = pyro.sample("own", dist.Gamma(2.0, 1.0)) if rate is None else rate
            pyro.sample("y", dist.Poisson(rate), obs=y)

    guide = pyro.infer.autoguide.AutoNormal(model)
    vae = pv.Program(model, guide, y, data=None if shared else "data")
    return Case(vae, None, rows=1 if shared else N)


def of_own_networks():
    encoder = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())
    decoder = nn.Sequential(nn.Linear(2, 5), nn.Dropout(0.5))
    return of_array(REALS, 4, 2, encoder=encoder, decoder=decoder, likelihood="Normal")


def in_double():
    case = of_array(REALS.double(), 4, 2, likelihood="Normal")
    case.vae.double()
    return case


def stacked():
    models = {s: pv.VAE(4, 2, **SMALL | {"seed": i}) for i, s in enumerate("ab")}
    return Case(pv.stack(models, [0.3, 0.7]), BITS, (BITS[0], BITS[1]))


VAMP, MIXTURE = (
    "VampPrior(components=3)",
    "Mixture(Normal(loc=learned, scale=learned), components=3)",
)
AMORTIZED = "Normal(loc=amortized, scale=amortized)"
MIXED = "LinearMixed('time + (1 + time | subject)')"


def bits(**said):
    return of_array(BITS, 4, **{"latent_dim": 2, **said})


def reals(**said):
    return of_array(REALS, 4, **{"latent_dim": 2, "likelihood": "Normal", **said})


def bytes_by(line):
    return of_array(BYTES, (3, 8, 8), 2, likelihood=line, **CONVOLUTIONS)


KINDS: dict[str, Callable[[], Case]] = {
    "bits": bits,
    "numbers": lambda: reals(likelihood="Normal(scale=learned)"),
    "one column": lambda: of_array(REALS[:, :1], 1, 1, likelihood="Normal"),
    "double": in_double,
    "units": lambda: of_array(REALS * 1e5 + 3e6, 4, 2, likelihood="Normal", units="data"),
    "own networks": of_own_networks,
    "correlated": lambda: reals(likelihood="MultivariateNormal"),
    "Student's t": lambda: reals(likelihood="StudentT(df=4)"),
    "Cauchy": lambda: reals(likelihood="Cauchy"),
    "simplices": lambda: of_array(REALS.softmax(1), 4, 2, likelihood="Dirichlet"),
    "categories": lambda: of_array(
        DENSE.clamp(max=4), 5, 2, likelihood="Categorical(categories=5)"
    ),
    "holes": lambda: of_array(HOLES, 4, 2, likelihood="Normal", missing=True),
    "self-masking": lambda: of_array(HOLES, 4, 2, likelihood="Normal", missing="SelfMasking"),
    "images": lambda: of_array(
        IMAGES, (1, 8, 8), 2, likelihood="ContinuousBernoulli", **CONVOLUTIONS
    ),
    "bytes": lambda: bytes_by("DiscretizedLogistic(components=2)"),
    "bytes, coupled": lambda: bytes_by("DiscretizedLogistic(components=2, coupled=True)"),
    "bytes, dequantized": lambda: bytes_by("Dequantized(Normal)"),
    "images of counts": lambda: of_array(
        (16 * IMAGES).round(), (1, 8, 8), 2, likelihood="Binomial(total_count=16)"
    ),
    "images, condition": lambda: of_blocks(
        Record([Block("x", (1, 8, 8)), Block("condition", 2, "context")]),
        {"x": IMAGES.round(), "condition": C},
    ),
    # tables
    "table": of_frame,
    "table, holes": lambda: of_frame(GONE),
    "table, bits of holes": lambda: of_frame(GONE, missing="Bernoulli"),
    "table, self-masking": lambda: of_frame(GONE, missing="SelfMasking"),
    "table, lines": lambda: of_frame(
        likelihood={"income": "Hurdle(Gamma)", "age": "Mixture(Normal, components=2)"}
    ),
    "table, condition": lambda: of_frame(condition="~ age + site"),
    "table, prior of condition": lambda: of_frame(condition=["site"], prior=AMORTIZED),
    "table, covariates": lambda: of_frame(
        GONE.drop(columns="site"), condition="~ age + sick", covariates={"age": "Normal"}
    ),
    "table, weight": lambda: of_frame(weight="w"),
    "table, offset": lambda: of_frame(offset="w", likelihood={"visits": "Poisson"}),
    "table, layers": lambda: of_frame(latent_dim=None, layers=[3, 2]),
    "table, VampPrior": lambda: of_frame(prior=VAMP),
    "table, censored": lambda: of_frame(
        CENSORED, pv.Table.from_frame(CENSORED, censored={"time": "sick"})
    ),
    # beside
    "condition": beside,
    "condition, prior": lambda: beside(prior=AMORTIZED),
    "condition, holes": lambda: beside(HOLES, missing=True),
    "condition, VampPrior": lambda: beside(prior=VAMP),
    "blocks": lambda: of_blocks(
        Record([Block("a", 4, likelihood="Normal"), Block("b", 4, likelihood="Bernoulli")]),
        {"a": REALS, "b": BITS},
    ),
    "offset": lambda: of_blocks(
        Record([Block("n", 5), Block("depth", role="offset")]),
        {"n": DENSE, "depth": DEPTH.log()},
        likelihood="Poisson",
    ),
    "weight": lambda: of_blocks(
        Record([Block("a", 4), Block("w", role="weight")]), {"a": BITS, "w": DEPTH}
    ),
    "M2": lambda: labelled(REALS),
    "M2, holes": lambda: labelled(HOLES, missing=True),
    "M2, condition": lambda: labelled(
        REALS, Record([Block("x", 4), Block("c", 2, "context")]), c=C
    ),
    # counts
    "counts, dense": lambda: of_array(DENSE, 5, 2, likelihood=NEGATIVE, offset="library"),
    "counts, sparse": lambda: of_counts(SPARSE, offset="library"),
    "counts": lambda: of_counts(CELLS, condition="~ C(batch)", offset="library"),
    "counts, offset": lambda: of_counts(
        CELLS, offset="depth", likelihood=f"ZeroInflated{NEGATIVE}"
    ),
    "counts, linear": lambda: of_counts(CELLS, offset="library", decoder="MLP([])"),
    "counts, VampPrior": lambda: of_counts(SPARSE, offset="library", prior=VAMP),
    "counts, AnnData": lambda: of_counts(
        Annotated(SPARSE, OBS), offset="library", condition="~ C(batch)"
    ),
    "documents": lambda: of_counts(SPARSE, likelihood="Multinomial", decoder="Topics"),
    "documents, LDA": lambda: of_array(
        DENSE,
        5,
        2,
        likelihood="Multinomial",
        prior="Dirichlet(0.5)",
        guide="Dirichlet",
        decoder="Topics(mixture=True)",
    ),
    # visits and sequences
    "LinearMixed": lambda: of_visits(MIXED),
    "LinearMixed, condition": lambda: of_visits(
        "LinearMixed('time + (1 | subject)')", condition="~ arm"
    ),
    "GaussianProcess": lambda: of_visits("GaussianProcess(Matern32, over='time', by='subject')"),
    "sequences": lambda: sequences(ROLLS, (None, 3), "Normal"),
    "sequences, condition": with_keys,
    "sequences, VampPrior": lambda: sequences(ROLLS, (None, 3), "Normal", prior=VAMP),
    "tokens": lambda: sequences(TOKENS, (None,), "Categorical(categories=3)"),
    "tokens, autoregressive": lambda: sequences(
        TOKENS, (None,), "Categorical(categories=3)", decoder="GRU(4, autoregressive=0.5)"
    ),
    "texts": texts,
    # z
    "z of bits": lambda: bits(prior="Bernoulli", guide="Bernoulli", latent_dim=3),
    "z of one-hots": lambda: bits(
        prior="OneHotCategorical", guide="OneHotCategorical", latent_dim=3
    ),
    "z of categories": lambda: bits(
        prior="Categorical(categories=3)", guide="Categorical(categories=3)"
    ),
    "z on a simplex": lambda: bits(prior="Dirichlet(0.5)", guide="Dirichlet", latent_dim=3),
    "z on a sphere": lambda: bits(prior="VonMisesFisher", guide="VonMisesFisher", latent_dim=3),
    "flow": lambda: reals(prior="Flow(NSF, transforms=1)"),
    "flow of the guide": lambda: reals(guide="Flow(MAF, transforms=1)"),
    "VampPrior": lambda: bits(prior=VAMP),
    "mixture": lambda: bits(prior=MIXTURE),
    "resampled": lambda: bits(prior="Resampled(Normal)"),
    "layers": lambda: bits(latent_dim=None, layers=[3, 2]),
    "ladder": lambda: bits(latent_dim=None, layers=[3, 2], guide="Ladder"),
    "top-down": lambda: bits(latent_dim=None, layers=[3, 2], guide="TopDown"),
    "semi-amortized": lambda: bits(guide="SemiAmortized(Normal, steps=1)"),
    # no VAE
    "program": program,
    "program of one evidence": lambda: program(True),
    "stack": stacked,
}


@cache
def case_of(kind: str) -> Case:
    """The case of a kind, its model trained for an epoch and left in training mode."""
    case = KINDS[kind]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for vae in case.models:
            pv.fit(vae, case.x, epochs=1, batch_size=5, progress=False, compile=False)
            vae.train()
    return case
