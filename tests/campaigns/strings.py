"""Thousands of lines that are nearly right: each makes a model, or a sentence that says why not.

``python tests/campaigns/strings.py [how many] [seed]``
"""

import random
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyro_vae as pv
from helpers.advice import is_clear
from helpers.families import GUIDES, LIKELIHOODS, PRIORS

LINES = [
    *(("likelihood", line) for line in LIKELIHOODS),
    *(("guide", line) for line in GUIDES),
    *(("prior", line) for line in PRIORS),
    *(("encoder", line) for line in ("MLP([4])", "MLP([4, 4], activation=Tanh)", "ConvEncoder")),
    *(("estimator", line) for line in pv.ESTIMATORS),
    ("estimator", "TraceGraph_ELBO(gradient=score, baseline=neural, num_particles=3)"),
    ("estimator", "RenyiELBO(alpha=0.5, num_particles=3)"),
    ("guide", "TopDown([Normal, Normal], network=MLP([3]))"),
    ("prior", "GaussianProcess(kernel=Matern32, index=[0, 1, 2])"),
    ("guide", "SemiAmortized(Normal, steps=2, lr=0.1)"),
]
WORDS = [
    "learned",
    "amortized",
    "None",
    "True",
    "-1",
    "0",
    "0.5",
    "inf",
    "[]",
    "''",
    "Normal",
    "()",
]
SIGNS = "()[]=,.*+-'\"_ aNé1"


def damaged(line, rng):
    """The line with one to three edits, as a hand makes them."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        i, j = sorted(rng.choices(range(len(line) + 1), k=2))
        kind = rng.choice(["delete", "insert", "replace", "swap", "word", "cut", "repeat", "case"])
        if kind == "delete":
            line = line[:i] + line[i + 1 :]
        elif kind == "insert":
            line = line[:i] + rng.choice(SIGNS) + line[i:]
        elif kind == "replace":
            line = line[:i] + rng.choice(SIGNS) + line[i + 1 :]
        elif kind == "swap":
            line = line[:i] + line[i : i + 2][::-1] + line[i + 2 :]
        elif kind == "word":
            words = [m.span() for m in re.finditer(r"[\w.]+", line)] or [(0, 0)]
            start, end = rng.choice(words)
            line = line[:start] + rng.choice(WORDS) + line[end:]
        elif kind == "cut":
            line = line[:i] + line[j:] if j - i < 12 else line[:j]
        elif kind == "repeat":
            line = line[:j] + line[i:j][:12] + line[j:]
        else:
            line = line[:i] + line[i : i + 1].swapcase() + line[i + 1 :]
    return line


def attempt(role, line):
    if role == "estimator":
        return pv.make_estimator(line)
    said = {"likelihood": "Normal", "encoder": "MLP([4])", "decoder": "MLP([4])", role: line}
    return pv.VAE(3, 3, **said, seed=0)


def failures(n, seed=0):
    """``(role, line, error)`` of those that are refused in another way than by a sentence."""
    rng = random.Random(seed)
    for _ in range(n):
        role, line = rng.choice(LINES)
        line = damaged(line, rng)
        if re.search(r"\d{3,}", line):  # a model too large for a test is no fault
            continue
        try:
            attempt(role, line)
        except Exception as error:
            if not is_clear(error):
                yield role, line, error


def main(n=5000, seed=0):
    warnings.simplefilter("ignore")
    kinds = Counter()
    for role, line, error in failures(n, seed):
        kinds[type(error).__name__] += 1
        print(f"{role}={line!r}\n    {type(error).__name__}: {str(error)[:300]!r}", flush=True)
    print(f"{n} lines, {sum(kinds.values())} failures: {dict(kinds)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
