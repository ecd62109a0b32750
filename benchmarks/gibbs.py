"""LDA by collapsed Gibbs sampling, by the ``lda`` package in an environment of its own.

``python benchmarks/gibbs.py counts.npy topics.npy --topics 20 --alpha 0.1 --eta 0.01`` reads the
counts of words, ``(N, V)``, and writes the topics, ``(K, V)``; ``benchmarks/topics.py`` calls it
by the interpreter that its option ``--gibbs`` names.
"""

import argparse
import logging

import lda
import numpy as np

say = argparse.ArgumentParser()
say.add_argument("counts")
say.add_argument("out")
say.add_argument("--topics", type=int, default=20)
say.add_argument("--alpha", type=float, default=0.1)
say.add_argument("--eta", type=float, default=0.01)
say.add_argument("--sweeps", type=int, default=1000)
say.add_argument("--seed", type=int, default=0)
told = say.parse_args()
logging.getLogger("lda").setLevel(logging.WARNING)
model = lda.LDA(
    told.topics, n_iter=told.sweeps, alpha=told.alpha, eta=told.eta, random_state=told.seed
)
model.fit(np.load(told.counts).astype(np.int64))
np.save(told.out, model.topic_word_)
