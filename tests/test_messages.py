"""Advice in code or flags: every message that gives one is quoted by a test, which follows it."""

import ast
import datetime
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import pyro_vae as pv
from helpers.commands import run as command

pytestmark = pytest.mark.usefixtures("short_pilot")

ROOT = Path(pv.__file__).parent
CODE = re.compile(
    r"\w+=['\"\[\d\w]|\b\w+\([\w.='\", ]*\.{0,3}[^)]*\)|--[a-z]|pip install|\b[xz]\["
    r"|\.(?:to_event|transpose|reshape|numpy|float|round)\b"
)
VERB = re.compile(
    r"\b(use|give|say|call|make|leave|add|choose|draw|read|pass|set|put|take|write|resume|start"
    r"|go on|train|build|name|hand|drop|wrap|declare|load|divide|standardize)\b"
)
NETS = {"encoder": "MLP([3])", "decoder": "MLP([3])", "seed": 0}
X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))


def words(text):
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).split()


def runs(text):
    """Three words in a row, if they are not all short."""
    every = words(text)
    return {run for i in range(len(every)) if len(run := " ".join(every[i : i + 3])) >= 9}


def advising():
    """``(place, constant texts)`` of each raise whose message gives an advice in code."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                constants = (c.value for c in ast.walk(node.exc) if isinstance(c, ast.Constant))
                texts = [text for text in constants if isinstance(text, str)]
                whole = " ".join(texts)
                if CODE.search(whole) and VERB.search(whole):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}: {whole}", texts


@pytest.mark.slow
def test_every_advice_in_code_is_quoted_by_a_test():
    sources = (path.read_text() for path in Path(__file__).parent.glob("*.py"))
    said = runs(re.sub(r'"\s*\n\s*r?f?"', "", " ".join(sources)))
    advices = [*advising()]
    missing = [place for place, texts in advices if not said & set().union(*map(runs, texts))]
    assert not missing, "\n".join(missing)
    assert len(advices) > 60


# Of tables, put a number there, or say na_values: followed where written tables are tested.
# The advice of one message each: what is refused, what it says, and the advice, followed.


def vae(**told):
    return pv.VAE(4, 2, likelihood="Normal", **NETS | told)


class Ragged(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def zoned(convert=lambda column: column):
    zone = datetime.UTC
    times = [datetime.datetime(2020, 1, 1 + i % 28, tzinfo=zone) for i in range(40)]
    return pd.DataFrame({"t": convert(pd.Series(times, dtype=object)), "a": X[:, 0].numpy()})


def long_numbers(convert=lambda column: column):
    column = pd.Series([2**70 + i % 3 for i in range(40)], dtype=object)
    return pd.DataFrame({"n": convert(column), "a": X[:, 0].numpy()})


def named_twice(x=X):
    return pd.DataFrame(x.numpy(), columns=[*"aabc"])


def double():
    large = X.double()
    large[:, 0] = 2**25 + 1
    return large


def in_latin(folder, encoding=None):
    path = folder / "x.csv"
    path.write_bytes("size,town\n1.5,Köln\n2.5,Bonn\n".encode("cp1252"))
    if encoding is None:
        return pv.Table.read(path)
    return pv.Table.from_frame(pd.read_csv(path, encoding=encoding))


def from_python(folder):
    if not (folder / "run").exists():
        pv.fit(vae(), X, epochs=1, out=folder / "run", progress=False)
        np.save(folder / "X.npy", X.numpy())
    return folder / "run"


def told(*arguments):
    done = command(*arguments)
    if done.code:
        raise ValueError(done.err)


FEW = ("--num-samples", 10, "--steps", 2)
IDLE = ("--estimator", "DReG", "--epochs", 1)
ADVICE = {
    "a table whose text is in another code": (
        in_latin, "Table.from_frame(pandas.read_csv(path, encoding='cp1252'))",
        lambda f: in_latin(f, "cp1252")),
    "times with a zone": (
        lambda f: pv.Table.from_frame(zoned()), "pandas.to_datetime(frame[name], utc=True)",
        lambda f: pv.Table.from_frame(zoned(lambda column: pd.to_datetime(column, utc=True)))),
    "numbers beyond 64 bits": (
        lambda f: pv.Table.from_frame(long_numbers()),
        "as words: frame[name].map(str, na_action='ignore')",
        lambda f: pv.Table.from_frame(long_numbers(lambda x: x.map(str, na_action="ignore")))),
    "two columns of one name": (
        lambda f: pv.elbo(vae(), named_twice()), "give each a name of its own, or x.to_numpy()",
        lambda f: pv.elbo(vae(), named_twice().to_numpy())),
    "a whole number that float32 changes": (
        lambda f: vae(inputs="raw").as_data(double()), "use vae.double(), or number the categories",
        lambda f: vae(inputs="raw").double().as_data(double())),
    "missing of a record": (
        lambda f: vae_of(pv.Record([pv.Block("x", 4)]), missing=True),
        "of a record the blocks say it: Block('x', 784, missing=True)",
        lambda f: vae_of(pv.Record([pv.Block("x", 4, missing=True)]))),
    "weights of another type": (
        lambda f: vae(encoder=nn.Linear(4, 3).double()), "and convert the whole model afterwards",
        lambda f: vae(encoder=nn.Linear(4, 3).double().to(torch.float32)).double()),
    "two proposals": (
        lambda f: pv.log_evidence(vae(), X[:2], wide=0.1, proposal="auto", num_samples=40, seed=0),
        "wide= widens the guide, and proposal='auto' chooses itself: give one",
        lambda f: pv.log_evidence(vae(), X[:2], proposal="auto", num_samples=40, seed=0)),
    "rows of different shapes": (
        lambda f: pv.elbo(vae(), Ragged([X[0], X[1, :3]])), "give each as a tensor of one shape",
        lambda f: pv.elbo(vae(), Ragged([X[0], X[1]]))),
    "a fraction of a stream": (
        lambda f: pv.fit(vae(), DataLoader(X, 20), epochs=1, validation=0.2, progress=False),
        "validation=fraction needs x in memory: give validation data",
        lambda f: pv.fit(vae(), DataLoader(X, 20), epochs=1, validation=X, progress=False)),
    "a run of Python on the command line": (
        lambda f: told("fit", "--resume", from_python(f)), "go on with pv.fit(vae, x, ..., resume=",
        lambda f: pv.fit(vae(), X, epochs=1, resume=from_python(f), progress=False)),
    "a report without data": (
        lambda f: told("report", from_python(f)), "name a file of them, pyro-vae report",
        lambda f: told("report", from_python(f), f / "X.npy", *FEW)),
    "flags of the other way": (
        lambda f: told("compare", "estimators", f, *IDLE),
        "goes with --train", None),
    "a copy with layers": (
        lambda f: pv.fit_prior(layered(), X, "Normal(loc=learned)", epochs=1),
        "whose prior holds networks of the model: choose a model with latent_dim=50",
        lambda f: pv.fit_prior(vae(), X, "Normal(loc=learned)", epochs=1)),
    "steps of no channels": (
        lambda f: sequences("GRU(3)", (1, 4, 4), "MLP([3])"),
        "say VAE((None, 12), ...), or (None,) for tokens",
        lambda f: [sequences("GRU(3)", shape=shape) for shape in ((None, 12), (None,))]),
    "steps of a decoder of no channels": (
        lambda f: sequences(shape=(1, 4, 4)), "say VAE((None, 12), ...), or another decoder",
        lambda f: [sequences("GRU(3)", shape=(None, 12)), sequences(shape=4, decoder="MLP([3])")]),
    "texts without their tokens": (
        lambda f: sequences("GRU(3)").as_data(TEXTS), "of texts make VAE(Vocabulary.of(texts), ",
        lambda f: sequences("GRU(3)", pv.Vocabulary.of(TEXTS), likelihood=None).as_data(TEXTS)),
}  # fmt: skip
TEXTS = ["to be", "or not"]


def sequences(encoder="MLP([3])", shape=(None,), decoder="GRU(3)", **told):
    line = {"likelihood": "Categorical(categories=5)" if shape == (None,) else "Normal"} | told
    line = {name: value for name, value in line.items() if value is not None}
    return pv.VAE(shape, 2, encoder=encoder, decoder=decoder, seed=0, **line)


def layered():
    return pv.VAE(4, layers=[3, 2], likelihood="Normal", **NETS)


def vae_of(record, **more):
    return pv.VAE(record, 2, likelihood="Normal", **NETS, **more)


SLOW = {"a report without data", "two proposals", "flags of the other way"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in ADVICE]
)
def test_what_a_message_advises_works(name, tmp_path):
    wrong, message, advised = ADVICE[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        wrong(tmp_path)
    if advised is not None:
        advised(tmp_path)


class Named(pv.VAE):
    """A model whose constructor takes its own arguments."""

    def __init__(self, width, **parts):
        super().__init__(4, 2, **parts)
        self.width = width


class Saying(Named):
    """And says them."""

    @classmethod
    def arguments(cls, about):
        parts = {role: about[role] for role in cls.ROLES}
        return {"width": 3, **parts}


def test_a_class_with_arguments_of_its_own_says_them(tmp_path):
    parts = {"likelihood": "Normal", **NETS}
    Named(3, **parts).save(tmp_path / "named")
    with pytest.raises(ValueError, match=r"says them in its classmethod arguments\(about\)"):
        pv.load(tmp_path / "named", cls=Named)
    Saying(3, **parts).save(tmp_path / "saying")
    assert pv.load(tmp_path / "saying", cls=Saying).width == 3
