"""Reuters: perplexity, coherence and uniqueness of ProdLDA and of LDA, on one split.

``python benchmarks/topics.py --topics 20 --seeds 3`` reads ``$PYRO_VAE_DATA/reuters``, holds out a
fifth of its 395 documents, and writes ``benchmarks/results/topics.md``. LDA is scikit-learn's, by
variational inference, as no collapsed Gibbs sampler is installed. Perplexities are from lower
bounds of log p of whole documents at the trained topics.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from common import publish, table
from scipy import sparse

import pyro_vae as pv
from pyro_vae.evaluate.counts.topics import npmi, uniqueness

TOP = 10
DRAWS = 200
MODELS = {
    "ProdLDA": {
        "decoder": "Topics",
        "encoder": "Normalized(MLP([100, 100], activation='Softplus'))",
    },
    "mixture, Dirichlet(0.1)": {
        "decoder": "Topics(mixture=True)",
        "prior": "Dirichlet(0.1)",
        "guide": "Dirichlet",
        "encoder": "MLP([100, 100], activation='Softplus')",
    },
}


def reuters() -> tuple[sparse.csr_matrix, list[str]]:
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


def ours(
    name: str,
    train: sparse.csr_matrix,
    test: sparse.csr_matrix,
    told: argparse.Namespace,
    seed: int,
) -> dict[str, float]:
    """One of our models."""
    vae = pv.VAE(
        train.shape[1], latent_dim=told.topics, likelihood="Multinomial", seed=seed, **MODELS[name]
    )
    pv.fit(
        vae,
        train,
        epochs=told.epochs,
        batch_size=50,
        lr=2e-3,
        validation=0.1,
        optimizer="Adam(betas=[0.99, 0.999])",
        seed=seed,
        progress=False,
    )
    vae.eval()
    about = pv.topics(vae, documents=test, top=TOP)
    found = pv.perplexity(vae, test, num_samples=200, seed=0)
    return {
        "perplexity": found["perplexity"],
        "npmi": about.npmi.mean(),
        "uniqueness": about.uniqueness.mean(),
    }


def lda(
    train: sparse.csr_matrix, test: sparse.csr_matrix, told: argparse.Namespace, seed: int
) -> dict[str, float]:
    """Variational LDA of scikit-learn."""
    from sklearn.decomposition import LatentDirichletAllocation

    model = LatentDirichletAllocation(
        told.topics,
        max_iter=100,
        learning_method="batch",
        random_state=seed,
        doc_topic_prior=0.1,
        topic_word_prior=0.01,
    ).fit(train)
    topics = torch.tensor(model.components_ / model.components_.sum(1, keepdims=True))
    best = topics.topk(TOP, 1).indices
    x = torch.tensor(test.toarray()).double()
    # scikit-learn's own perplexity has the topics' prior in it, once for each set of documents.
    gamma = torch.tensor(model.transform(test)) * (0.1 * told.topics + x.sum(1, keepdim=True))
    q, p = torch.distributions.Dirichlet(gamma), torch.distributions.Dirichlet(0.1 * gamma**0)
    bound = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(DRAWS):
        shares = q.sample().clamp(min=1e-30)
        words = (x * (shares @ topics).log()).sum(1)
        bound += (words + p.log_prob(shares) - q.log_prob(shares)) / DRAWS
    return {
        "perplexity": float((-bound.sum() / x.sum()).exp()),
        "npmi": npmi(best, x).mean(),
        "uniqueness": uniqueness(best).mean(),
    }


def main() -> None:
    """Train all, and publish the table."""
    say = argparse.ArgumentParser()
    say.add_argument("--topics", type=int, default=20)
    say.add_argument("--epochs", type=int, default=100)
    say.add_argument("--seeds", type=int, default=3)
    told = say.parse_args()
    x, _ = reuters()
    order = np.random.default_rng(0).permutation(x.shape[0])
    n = x.shape[0] // 5
    test, train = x[order[:n]], x[order[n:]]
    makers = {name: lambda *a, name=name: ours(name, *a) for name in MODELS}
    makers["LDA, variational, scikit-learn"] = lda
    rows = []
    for name, make in makers.items():
        start = time.perf_counter()
        found = [make(train, test, told, seed) for seed in range(told.seeds)]
        seconds = (time.perf_counter() - start) / told.seeds
        cells = []
        for figure in ("perplexity", "npmi", "uniqueness"):
            values = np.array([one[figure] for one in found])
            digits = 0 if figure == "perplexity" else 3
            spread = values.std(ddof=1) if len(values) > 1 else np.nan
            cells.append(f"{values.mean():.{digits}f} ± {spread:.{digits}f}")
        rows.append([name, *cells, f"{seconds:.0f}"])
        print(rows[-1], flush=True)
    head = ["model", "perplexity per word", "NPMI", "uniqueness", "seconds"]
    text = (
        f"Reuters, {train.shape[0]} documents to train on and {n} held out, {x.shape[1]:,} words, "
        f"{told.topics} topics; mean and standard deviation over {told.seeds} seeds of one split. "
        f"Top {TOP} words; coherence on the held-out documents.\n\n{table(head, rows)}"
    )
    publish("topics", "Topics of Reuters", text)


if __name__ == "__main__":
    main()
