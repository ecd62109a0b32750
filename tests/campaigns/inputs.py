"""Hundreds of inputs that are none: each is refused by a sentence.

``python tests/campaigns/inputs.py``
"""

import contextlib
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd
import torch

import pyro_vae as pv
from helpers.advice import is_clear

NAN, INF = float("nan"), float("inf")
# What x of shape (N, 4), of bits, cannot be.
BAD_X = {
    "None": None,
    "a number": 3,
    "a word": "abc",
    "an empty list": [],
    "a dict": {},
    "a set": {1, 2},
    "an object": object(),
    "a function": len,
    "a class": dict,
    "a path": Path("x.npy"),
    "bytes": b"12",
    "True": True,
    "a complex tensor": torch.zeros(5, 4, dtype=torch.complex64),
    "of no rows": torch.zeros(0, 4),
    "a vector": torch.zeros(4),
    "too narrow": torch.zeros(5, 3),
    "too wide": torch.zeros(5, 5),
    "too deep": torch.zeros(5, 4, 1),
    "a scalar": torch.zeros(()),
    "a ragged list": [[1, 0, 1, 0], [1]],
    "words": [["a", "b", "c", "d"]],
    "a list of None": [None, None],
    "an array of objects": np.array([["a", 1, None, 2]], dtype=object),
    "an array of words": np.array([["1", "0", "1", "0"]]),
    "dates": np.array([["2020-01-01"] * 4], dtype="datetime64[D]"),
    "a frame of words": pd.DataFrame({k: ["u", "v"] for k in "abcd"}),
    "a frame too narrow": pd.DataFrame({k: [0, 1] for k in "abc"}),
    "an empty frame": pd.DataFrame(),
    "a series": pd.Series([0, 1, 0, 1]),
    "a meta tensor": torch.zeros(5, 4, device="meta"),
    "a sparse tensor": torch.zeros(5, 3).to_sparse(),
    "a range": range(4),
    "a generator": (i for i in "ab"),
    "a model": torch.nn.Linear(4, 4),
    "NaN": torch.full((5, 4), NAN),
    "one NaN": torch.tensor([[NAN, 0, 0, 0]]),
    "inf": torch.full((5, 4), INF),
    "-inf": torch.tensor([[-INF, 0, 0, 0.0]]),
    "outside the support": torch.full((5, 4), 7.0),
    "a little outside": torch.tensor([[0, 1, 0.5, 1.0]]),
    "negative": -torch.ones(5, 4),
}
SEEN_BY_THE_LIKELIHOOD = {"inf", "-inf", "outside the support", "a little outside", "negative"}


def vae(**said):
    return pv.VAE(4, 2, encoder="MLP([3])", decoder="MLP([3])", seed=0, **said)


# Who reads x, and who its likelihood.
READERS = {
    "fit": lambda x: pv.fit(vae(), x, epochs=1, progress=False),
    "fit, held out": lambda x: pv.fit(
        vae(), torch.ones(8, 4), validation=x, epochs=1, progress=False
    ),
    "elbo": lambda x: pv.elbo(vae(), x, num_samples=2),
    "log_evidence": lambda x: pv.log_evidence(vae(), x, num_samples=2),
    "latent_summary": lambda x: pv.latent_summary(vae(), x),
    "outlier_scores": lambda x: pv.outlier_scores(vae(), torch.ones(4, 4), x, num_samples=2),
    "check": lambda x: vae().check(x),
    "gaps": lambda x: pv.gaps(vae(), x, steps=1, num_samples=2),
}
LOOKERS = {
    "impute": lambda x: vae(missing=True).impute(x, num_samples=2),
    "reconstruct": lambda x: vae().reconstruct(x),
    "refine": lambda x: vae().refine(x, steps=1),
}
FILLED = {"NaN", "one NaN"}  # what impute is for
SHAPES = [
    None,
    0,
    -1,
    2.5,
    "4",
    (),
    (0,),
    (4, -1),
    (4, 2.5),
    "ab",
    [],
    {},
    True,
    (True,),
    object(),
    NAN,
    10**30,
]
CONSTRUCTOR = {
    "x_shape": SHAPES,
    "latent_dim": [0, -1, 2.5, "4", (), (0,), (2, -1), [], {}, True, NAN],
    "layers": [None, 0, 3, [], [0], [2, -1], [2.5], ["a"], "34", {}, [True], [[2]]],
    "prior": [
        None,
        3,
        "",
        " ",
        "3",
        "Normal Normal",
        "Normal(",
        [],
        {},
        len,
        dict,
        "lambda: 0",
        b"Normal",
        torch.zeros(3),
        torch.nn.Linear,
    ],
    "likelihood": [3, "", "3", "[Normal]", [], {}, len, "Normal;Normal", torch.nn.Identity],
    "guide": [3, "", "None", "True", [], {}, len, "*Normal", "Normal(**k)", "x=Normal"],
    "encoder": [
        3,
        "",
        "3",
        {},
        len,
        "MLP(-1)",
        "MLP([0])",
        "MLP(['a'])",
        "MLP([2.5])",
        "ConvEncoder([])",
    ],
    "decoder": [
        3,
        "",
        "3",
        {},
        len,
        "MLP(-1)",
        "MLP([0])",
        "MLP(None)",
        "ConvDecoder",
        "MLP([True])",
    ],
    "missing": ["yes", 1, 0, None, [], 0.5],
    "seed": ["a", 1.5, -1, [], True, NAN, 2**64],
}
FIT = {
    "estimator": [None, 3, "", [], {}, len, "ELBO", torch.nn.Identity()],
    "epochs": [0, -1, 1.5, "a", None, [], True, NAN],
    "batch_size": [0, -1, 1.5, "a", None, [], True],
    "lr": [0, -1, "a", None, [], True, NAN, INF, "cosine()", "cosine('a')"],
    "optimizer": [
        None,
        3,
        "",
        [],
        len,
        "Adam(lr=0.1)",
        "Adam(1)",
        "Optimizer",
        "Adam(foreach='a')",
        torch.optim.Adam([torch.zeros(1)]),
    ],
    "beta": [-1, "a", None, [], True, NAN, INF, "linear(0, 'a')"],
    "free_bits": [0, -1, "a", [], True, NAN, INF],
    "aggressive": [0, -1, 1.5, "a", [], True],
    "binarize": ["yes", 1, True, [], "Dynamic"],
    "validation": [0, 1, 1.0, -0.5, 2, "a", [], True, NAN, torch.zeros(0, 4), torch.zeros(3, 3)],
    "patience": [0, -1, 1.5, "a", [], True, 3],
    "seed": ["a", 1.5, None, [], True, -1, NAN],
    "checkpoint_every": [0, -1, 1.5, "a", None, True],
    "compile": ["yes", 2, None, [], "max"],
    "precision": ["float16", 16, None, [], torch.bfloat16],
    "progress": ["yes", 1, []],
    "out": [3, [], True],
    "resume": [3, "nowhere", [], True],
}
FOLDERS = [None, 3, "", "nowhere", [], {}, True, b"x", __file__, Path("nowhere"), "nul\0l"]


def cases():
    """``(what, call)``, each of which is to be refused."""
    for reader, read in READERS.items():
        for kind, x in BAD_X.items():
            if (reader, kind) != ("fit, held out", "None"):
                yield f"{reader}({kind})", lambda f=read, x=x: f(x)
    for looker, read in LOOKERS.items():
        for kind, x in BAD_X.items():
            if kind not in SEEN_BY_THE_LIKELIHOOD and not (looker == "impute" and kind in FILLED):
                yield f"{looker}({kind})", lambda f=read, x=x: f(x)
    for name, values in CONSTRUCTOR.items():
        for value in values:
            said = {"x_shape": 4, "latent_dim": 2} | {name: value}
            said |= {"latent_dim": None} if name == "layers" else {}
            yield (
                f"VAE({name}={value!r})",
                lambda said=said: pv.VAE(
                    said["x_shape"], **{k: v for k, v in said.items() if k != "x_shape"}
                ),
            )
    for name, values in FIT.items():
        for value in values:
            said = {"epochs": 1, "progress": False, name: value}
            yield (
                f"fit({name}={value!r})",
                lambda said=said: pv.fit(vae(), torch.ones(8, 4), **said),
            )
    yield from ((f"load({folder!r})", lambda f=folder: pv.load(f)) for folder in FOLDERS)


def failures(some=slice(None)):
    """``(what, answer)`` of those that are taken, or refused otherwise than by a sentence."""
    for what, call in [*cases()][some]:
        try:
            call()
        except Exception as error:
            if not is_clear(error):
                yield what, f"{type(error).__name__}: {str(error)[:200]!r}"
        else:
            yield what, "is taken"


def main():
    warnings.simplefilter("ignore")
    kinds = Counter()
    for what, answer in failures():
        kinds[answer.split(":")[0]] += 1
        print(f"{what}\n    {answer}", flush=True)
    print(f"{len(list(cases()))} inputs, {sum(kinds.values())} failures: {dict(kinds)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        main()
