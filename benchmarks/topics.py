"""Reuters: perplexity, coherence and uniqueness of our topics and of LDA, on one split.

``python benchmarks/topics.py --gibbs /path/of/python`` reads ``$PYRO_VAE_DATA/reuters``, holds out
a fifth of its 395 documents, and writes ``benchmarks/results/topics.md``. LDA is by collapsed Gibbs
sampling, of the ``lda`` package in that other interpreter (``benchmarks/gibbs.py``). With
``--validation`` a fifth of the training documents takes the place of what is held out, to choose
settings by.

Perplexities are from lower bounds of log p(x) of whole documents at the trained topics: of LDA, and
of our mixtures under a Dirichlet prior, by draws from the variational posterior of each document;
of the others by ``pv.perplexity(proposal="auto")``.
"""

import argparse
import math
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finished, keep, publish, table
from scipy import sparse
from torch import Tensor

import pyro_vae as pv
from pyro_vae.evaluate.counts.topics import npmi, uniqueness
from pyro_vae.language.spec import as_spec

TOP = 10
FIGURES = {"perplexity": 0, "npmi": 3, "uniqueness": 3}  # and their digits
Counts = sparse.csr_matrix
MODELS: dict[str, dict[str, Any]] = {
    "mixture, Dirichlet(0.1)": {
        "decoder": "Topics(mixture=True)",
        "prior": "Dirichlet(0.1)",
        "guide": "Dirichlet",
        "encoder": "MLP([100, 100], activation='Softplus')",
        "lr": 1e-2,
        "optimizer": "Adam(weight_decay=0.01)",
    },
    "product (ProdLDA)": {
        "decoder": "Topics",
        "prior": "Normal",
        "guide": "Normal",
        "encoder": "Normalized(MLP([100, 100], activation='Softplus'))",
        "lr": 2e-3,
        "optimizer": "Adam(betas=[0.99, 0.999])",
    },
    "product, smoothed": {
        "decoder": "Topics(normalize=False, dropout=0.0, smoothing=0.3)",
        "prior": "Normal",
        "guide": "Normal",
        "encoder": "MLP([])",
        "lr": "cosine(3e-2)",
        "optimizer": "Adam(weight_decay=0.015)",
        "epochs": 200,
        "validation": None,  # by bounds of an encoder of 300 documents one would stop too early
        "patience": None,
    },
}
GIBBS = {
    "LDA, collapsed Gibbs": {"alpha": 0.1, "eta": 0.01},
    "the same, eta = 0.1": {"alpha": 0.1, "eta": 0.1},
}


def reuters() -> tuple[Counts, list[str]]:
    """Counts of the words of each document, and the words."""
    root = Path(os.environ.get("PYRO_VAE_DATA", ".")) / "reuters"
    words = (root / "reuters.tokens").read_text().split()
    rows, columns, counts = [], [], []
    for i, line in enumerate((root / "reuters.ldac").read_text().splitlines()):
        for pair in line.split()[1:]:
            column, count = map(int, pair.split(":"))
            rows.append(i)
            columns.append(column)
            counts.append(count)
    shape = max(rows) + 1, len(words)
    return sparse.csr_matrix((counts, (rows, columns)), shape=shape), words


def log_evidence(x: Tensor, topics: Tensor, alpha: float, draws: int = 1000) -> Tensor:
    """log p of the words of each document under LDA: from draws of its variational posterior.

    Args:
        x: counts, ``(N, V)``.
        topics: probabilities of words, ``(K, V)``.
        alpha: the concentration of the shares.
        draws: of the shares of a document.
    """
    seen = x.sum(0) > 0
    x, topics = x[:, seen].double(), topics[:, seen].double()
    gamma = alpha + x.sum(1, keepdim=True).expand(-1, len(topics)) / len(topics)
    for _ in range(100):  # Blei, Ng & Jordan (2003), the E step
        share = gamma.digamma().exp()
        gamma = alpha + share * ((x / (share @ topics).clamp(min=1e-300)) @ topics.T)
    q = torch.distributions.Dirichlet(gamma)
    p = torch.distributions.Dirichlet(torch.full_like(gamma, alpha))
    log_w = []
    for _ in range(draws):
        share = q.sample().clamp(min=1e-300)
        log_p = (x * (share @ topics).log()).sum(1) + p.log_prob(share)
        log_w.append(log_p - q.log_prob(share))
    return torch.stack(log_w).logsumexp(0) - math.log(draws)


def of_topics(topics: Tensor, test: Counts) -> dict[str, float]:
    """How coherent on held-out documents, and how much their own, the words of topics are."""
    best = topics.topk(TOP, 1).indices
    x = torch.tensor(test.toarray())
    return {"npmi": npmi(best, x).mean(), "uniqueness": uniqueness(best).mean()}


def ours(train: Counts, test: Counts, told: argparse.Namespace, seed: int, **say: Any) -> dict:  # noqa: ANN401
    """One of our models: lines of a VAE, and what ``fit`` is told."""
    lines = {name: say.pop(name) for name in ("decoder", "prior", "guide", "encoder")}
    lines |= {"latent_dim": told.topics, "likelihood": "Multinomial", "seed": seed}
    vae = pv.VAE(train.shape[1], **lines)
    about = {"epochs": told.epochs, "validation": 0.1, "patience": 20, "seed": seed, **say}
    pv.fit(vae, train, batch_size=50, progress=False, **about)
    vae.eval()
    with torch.no_grad():
        topics = vae.decoder.topics()
    if lines["prior"].startswith("Dirichlet"):
        alpha = float(as_spec(lines["prior"]).args[0])
        bound = log_evidence(torch.tensor(test.toarray()), topics.softmax(1), alpha)
        found = math.exp(-bound.sum() / test.sum())
    else:
        found = pv.perplexity(vae, test, num_samples=200, proposal="auto", seed=0)["perplexity"]
    return {"perplexity": found, **of_topics(topics, test)}


def gibbs(train: Counts, test: Counts, told: argparse.Namespace, seed: int, **say: float) -> dict:
    """LDA by collapsed Gibbs sampling, in another interpreter."""
    script = Path(__file__).with_name("gibbs.py")
    with tempfile.TemporaryDirectory() as folder:
        counts, out = Path(folder, "counts.npy"), Path(folder, "topics.npy")
        np.save(counts, train.toarray())
        options = {"topics": told.topics, "sweeps": told.sweeps, "seed": seed, **say}
        words = [w for name, value in options.items() for w in (f"--{name}", str(value))]
        subprocess.run([told.gibbs, script, counts, out, *words], check=True)
        topics = torch.tensor(np.load(out))
    bound = log_evidence(torch.tensor(test.toarray()), topics, say["alpha"])
    return {"perplexity": math.exp(-bound.sum() / test.sum()), **of_topics(topics, test)}


def said(values: list[float], digits: int) -> str:
    """A mean with the standard deviation over seeds."""
    spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
    return f"{np.mean(values):.{digits}f} ± {spread:.{digits}f}"


def main() -> None:
    """Train all, and publish the table."""
    say = argparse.ArgumentParser()
    say.add_argument("--gibbs", help="a Python that has the package lda")
    say.add_argument("--topics", type=int, default=20)
    say.add_argument("--epochs", type=int, default=100)
    say.add_argument("--sweeps", type=int, default=1000)
    say.add_argument("--seeds", type=int, default=3)
    say.add_argument("--validation", action="store_true")
    say.add_argument("--model", action="append", help="one of the table's; others stay in it")
    told = say.parse_args()
    x, _ = reuters()
    order = np.random.default_rng(0).permutation(x.shape[0])
    n = x.shape[0] // 5
    test, train = x[order[:n]], x[order[n:]]
    if told.validation:
        test, train = train[: len(order) * 4 // 25], train[len(order) * 4 // 25 :]
    makers = {name: partial(ours, **lines) for name, lines in MODELS.items()}
    if told.gibbs:
        makers |= {name: partial(gibbs, **options) for name, options in GIBBS.items()}
    script = "topics_validation" if told.validation else "topics"
    for name in told.model or makers:
        found = [makers[name](train, test, told, seed) for seed in range(told.seeds)]
        cells = [said([one[k] for one in found], digits) for k, digits in FIGURES.items()]
        keep(script, {"model": name, "cells": [name, *cells]})
    measured = {row["model"]: row["cells"] for row in finished(script)}
    rows = [measured[name] for name in (*MODELS, *GIBBS) if name in measured]
    head = ["model", "perplexity per word", "NPMI", "uniqueness"]
    text = (
        f"Reuters, {train.shape[0]} documents to train on and {test.shape[0]} held out, "
        f"{x.shape[1]:,} words, {told.topics} topics; mean and standard deviation over "
        f"{told.seeds} seeds of one split. Top {TOP} words by their probability; coherence on the "
        f"held-out documents.\n\n{table(head, rows)}"
    )
    publish(script, "Topics of Reuters", text)


if __name__ == "__main__":
    main()
