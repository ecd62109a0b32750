"""What a model of documents says of them: topics, how coherent they are, perplexity."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import number, whole
from ...core.pareto import RELIABLE
from ...distributions import Multinomial
from ...families.support import innermost
from ...families.topics import Topics
from ...model.entry import of_model
from ...model.joint import Joint, reading
from ...model.pieces import pieces
from ...model.vae import VAE
from ..evidence.importance import log_evidence
from ..statistics import check_equal
from .rates import column_names

__all__ = ["mean_condition", "npmi", "perplexity", "topics", "uniqueness"]

ROWS = 1024


@of_model
@torch.no_grad()
def topics(
    vae: VAE,
    words: Sequence[str] | None = None,
    documents: Tensor | ArrayLike | None = None,
    *,
    top: int = 10,
    relevance: float = 1.0,
) -> pd.DataFrame:
    r"""The topics of a model of documents: their words, coherence and uniqueness.

    Words are ranked by

    .. math:: \lambda \log p(w|k) + (1 - \lambda) \log \frac{p(w|k)}{p(w)}

    where p(w) is the background of a product, and of a mixture the mean of its topics. Of a model
    with a condition both are under the mean condition of the documents; without documents at the
    first level of words, and at the mean of numbers.

    Args:
        vae: a trained model with ``decoder="Topics"``.
        words: what the columns of x stand for; the names that the model knows by default.
        documents: held out, for the coherence and the shares of the topics, and the condition.
        top: words of a topic.
        relevance: :math:`\lambda`, in [0, 1]: 1 ranks words by their probability in a document of
            the topic alone; with less, words that many topics have in common give way to a topic's
            own, which are rarer, and so less often together in one document.

    Returns:
        A frame by topic: ``words``, the most relevant ones;
        ``uniqueness`` (see :func:`uniqueness`); with documents ``npmi`` (see :func:`npmi`) and
        ``share``, the mean of the topic's share of a document.

    Raises:
        ValueError: another decoder, other numbers of words than columns, or fewer than two words.

    References:
        Sievert & Shirley (2014), ILLVI, for relevance; Lau, Newman & Baldwin (2014), EACL, for
        NPMI; Nan et al. (2019), arXiv:1907.12374, for uniqueness.

    >>> vae = VAE(4, 2, likelihood="Multinomial", decoder="Topics", seed=0)
    >>> topics(vae, ["a", "b", "c", "d"], top=2).columns.tolist()
    ['words', 'uniqueness']
    """
    top, relevance = whole("top", top, 2), number("relevance", relevance, 0)
    if relevance > 1:
        raise ValueError(f"relevance is a share in [0, 1], got {relevance}")
    if not isinstance(vae.decoder, Topics):
        raise ValueError("topics are of VAE(..., decoder='Topics')")
    if isinstance(words, str):
        raise ValueError(f"words is a list of them, a word for each column of x, got {words!r}")
    names = column_names(vae) if words is None else list(words)
    if len(names) != vae.x_shape[0]:
        raise ValueError(f"x has {vae.x_shape[0]} columns, and there are {len(names)} words")
    shares, present, weights = [], [], []
    with reading(vae, 0):
        for some in () if documents is None else pieces(vae, documents, ROWS):
            weights.append(vae.weights_of(some))
            shares.append(vae.decoder.shares_of(Joint(vae, some).draw(8)).mean(0))
            present.append(vae.record.cells(some) > 0)
        check_equal(weights, "topics")
        rank = vae.decoder.relevance(relevance, mean_condition(vae, documents))
    best = rank.topk(min(top, len(names)), 1).indices.cpu()
    columns: dict[str, object] = {
        "words": [" ".join(str(names[i]) for i in row) for row in best.tolist()],
        "uniqueness": uniqueness(best),
    }
    if documents is not None:
        columns["npmi"] = npmi(best, torch.cat(present))
        columns["share"] = torch.cat(shares).mean(0).cpu().numpy()
    return pd.DataFrame(columns)


def mean_condition(vae: VAE, documents: Tensor | ArrayLike | None) -> Tensor | None:
    """The mean of what the decoder reads beside z, ``(C,)``; ``None`` where there is none."""
    some = () if documents is None else pieces(vae, documents, ROWS)
    parts = [part for rows in some if (part := vae.inputs.read_context(rows)) is not None]
    return torch.cat(parts).mean(0) if parts else None


def npmi(words: Tensor | ArrayLike, documents: Tensor | ArrayLike) -> np.ndarray:
    r"""Normalized pointwise mutual information of the words of each topic, in [-1, 1].

    .. math:: \frac{2}{m (m - 1)} \sum_{i < j}
        \frac{\log p_{ij} - \log p_i - \log p_j}{-\log p_{ij}}

    where :math:`p_i` is the share of documents in which word i is, and :math:`p_{ij}` that in
    which both are: -1 where they never are, 1 where they always are together.

    Args:
        words: of each topic, ``(K, m)`` numbers of columns.
        documents: ``(N, V)`` counts, or truth values; held out, or the figure flatters.

    Returns:
        ``(K,)``.

    >>> npmi([[0, 1], [0, 2]], [[1, 1, 0], [1, 1, 0], [0, 0, 1]]).round(6).tolist()
    [1.0, -1.0]
    """
    at, there = torch.as_tensor(words), torch.as_tensor(documents) > 0
    used, place = at.unique(return_inverse=True)
    there = there[:, used.to(there.device)].double()
    both = (there.T @ there / len(there)).cpu()
    single = both.diag()
    value = (both / (single[:, None] * single)).log() / -both.log()
    value = torch.where(both == 0, -1.0, torch.where(both == 1, 1.0, value))
    first, second = torch.triu_indices(at.shape[1], at.shape[1], 1)
    return value[place[:, first], place[:, second]].mean(1).numpy()


def uniqueness(words: Tensor | ArrayLike) -> np.ndarray:
    r"""How much each topic has words of its own: :math:`\frac1m \sum_i 1 / n_i`.

    Args:
        words: of each topic, ``(K, m)`` numbers of columns; n counts the topics that have a word.

    Returns:
        ``(K,)``, from 1/K to 1.

    >>> uniqueness([[0, 1], [1, 2]]).tolist()
    [0.75, 0.75]
    """
    at = torch.as_tensor(words)
    return (1 / at.flatten().bincount()[at].double()).mean(1).numpy()


@of_model
@torch.no_grad()
def perplexity(
    vae: VAE,
    x: Tensor | ArrayLike,
    *,
    num_samples: int = 500,
    proposal: Literal["guide", "auto"] = "guide",
    seed: int | None = None,
) -> pd.Series:
    r"""Perplexity per word, by the evidence: from above, as the evidence is from below.

    .. math:: \exp\Big(-\frac{\sum_d \log p(w_d)}{\sum_d n_d}\Big)

    of the documents as sequences of words: the number of orders that a bag of words has is left
    out. The weights stay as they are, and :math:`\log p(w_d)` is :func:`log_evidence` of the whole
    of each document.

    Args:
        vae: a trained model with ``likelihood="Multinomial"``.
        x: documents, held out.
        num_samples: draws of z per document.
        proposal: what z is drawn from, see :func:`log_evidence`: ``"auto"`` fits it to each
            document, where an encoder of few documents knows little of others.
        seed: of the draws.

    Returns:
        ``perplexity``, its ``standard_error`` over documents, the ``words`` that it is of, and the
        ``doubtful`` share of documents whose k-hat is above 0.7, so that it is too high.

    Raises:
        ValueError: another likelihood.

    References:
        Wallach, Murray, Salakhutdinov & Mimno (2009), ICML, for evaluating topic models.

    >>> vae = VAE(4, 2, likelihood="Multinomial", decoder="Topics", seed=0)
    >>> found = perplexity(vae, torch.ones(3, 4), num_samples=20_000, seed=0)
    >>> print(round(found["perplexity"], 1))  # untrained, all words are alike
    4.0
    """
    bounds, totals, khat, words = [], [], [], 0.0
    options: dict[str, Any] = {"num_samples": num_samples, "proposal": proposal, "num_simulated": 0}
    with reading(vae, seed):
        for some in pieces(vae, x, ROWS):
            joint = Joint(vae, some)
            if not isinstance(innermost(joint.likelihood(joint.draw(1))), Multinomial):
                raise ValueError("perplexity is of VAE(..., likelihood='Multinomial')")
            cells, found = vae.record.cells(some).double(), log_evidence(vae, some, **options)
            orders = (cells.sum(-1) + 1).lgamma() - (cells + 1).lgamma().sum(-1)
            weights = 1.0 if found.weights is None else found.weights.double()
            bounds.append(weights * (found.log_evidence.double() - orders))
            totals.append(weights * cells.sum(-1))
            words += cells.sum().item()
            khat.append(found.khat)
    bound, n = torch.cat(bounds), torch.cat(totals)
    rate = bound.sum() / n.sum()
    error = (bound - rate * n).std() * math.sqrt(len(n)) / n.sum() if len(n) > 1 else math.nan
    value = math.exp(-rate)
    return pd.Series(
        {
            "perplexity": value,
            "standard_error": value * float(error),
            "words": words,
            "doubtful": float((torch.cat(khat) > RELIABLE).double().mean()),
        }
    )
