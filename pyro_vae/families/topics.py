"""A decoder of documents, from the shares of topics to the logits of words."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..core.checks import boolean, positive, share
from ..language.spec import Spec
from .support import support_bounds, support_of

__all__ = ["Topics", "introduce"]

INITIAL = 0.02  # standard deviation of the weights of words, at the start


def introduce(network: nn.Module, width: int, q: Distribution) -> nn.Module | None:
    """Tell a :class:`Topics` of z, before it is built; other networks need not know.

    Args:
        network: the decoder.
        width: how many of the numbers that it reads are z's.
        q: a distribution of z.

    Returns:
        The network, if its features are a parameter of the likelihood.
    """
    if isinstance(network, Topics):
        support = support_of(q)
        network.width = width
        network.shares = support is not None and support_bounds(support)[0] == "simplex"
    return network if hasattr(network, "writes") else None


class Topics(nn.Module):
    r"""From z to the logits of words, through the shares of topics: ProdLDA, or a mixture as LDA's.

    .. math:: logits = b + BN(W^\top \theta), \quad \theta = softmax(z)

    a product of experts, whose batch normalization BN has no scale of its own that could drift; b
    is the background, which starts at the frequencies of the words. With ``mixture`` it is

    .. math:: logits = \log \sum_k \theta_k\, softmax(W_k)

    Where z is on the simplex (``prior="Dirichlet(0.1)"``), :math:`\theta` is z itself. A condition
    adds to the logits linearly.

    Of few documents BN does harm: it gives the logit of a word that is in two of them as much
    spread as that of any other. Without it, weights may be held small by
    ``fit(..., optimizer="Adam(weight_decay=0.015)")``, a normal prior on them: a rare word then
    stays near its background, which ``smoothing`` keeps from the chances of few documents.

    Args:
        mixture: whether documents are mixtures of topics, not products.
        dropout: the share of topics that are left out of a document while it trains, the others
            growing accordingly; of a product.
        normalize: whether there is a BN; of a product.
        smoothing: b is not learned, but the frequencies of the words with this share of equal ones,
            in (0, 1]; of a product.

    References:
        Srivastava & Sutton (2017), arXiv:1703.01488; Blei, Ng & Jordan (2003), JMLR 3.

    >>> Topics(dropout=0.1).spec
    Topics(mixture=False, dropout=0.1, normalize=True, smoothing=None)
    """

    writes = "logits"  # the parameter of the likelihood that the features are

    def __init__(
        self,
        *,
        mixture: bool = False,
        dropout: float = 0.2,
        normalize: bool = True,
        smoothing: float | None = None,
    ) -> None:
        super().__init__()
        self.mixture, self.dropout = boolean("mixture", mixture), share("dropout", dropout)
        self.normalized = boolean("normalize", normalize)
        self.smoothing = None if smoothing is None else positive("smoothing", smoothing)
        if self.smoothing and (self.smoothing > 1 or self.mixture):
            raise ValueError(f"smoothing is a share in (0, 1], of a product, got {smoothing}")
        options = {"mixture": self.mixture, "dropout": self.dropout, "normalize": self.normalized}
        self.spec = Spec("Topics", **options, smoothing=self.smoothing)
        self.width, self.shares = 0, False

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Make the weights."""
        if len(out_shape) != 1:
            raise ValueError(f"Topics writes vectors of words, got x of shape {out_shape}")
        self.width = self.width or math.prod(in_shape)
        self.weight = nn.Parameter(INITIAL * torch.randn(self.width, *out_shape))
        if self.mixture:
            self.weight.data /= INITIAL  # topics that start as one stay one
        beside = math.prod(in_shape) - self.width
        self.beside = nn.Linear(beside, *out_shape, bias=False) if beside else None
        if self.smoothing:
            self.register_buffer("background", torch.zeros(out_shape))
        else:
            self.background = None if self.mixture else nn.Parameter(torch.zeros(out_shape))
        plain = self.mixture or not self.normalized
        self.normalize = nn.Identity() if plain else nn.BatchNorm1d(*out_shape, affine=False)

    @torch.no_grad()
    def move(self, raw: Tensor) -> None:
        """Add to the logits at all z, ``(V,)``."""
        own = self.weight if self.background is None else self.background
        if self.smoothing:
            equal = self.smoothing / raw.shape[-1]
            raw = ((1 - self.smoothing) * raw.softmax(-1) + equal).log()
        own += raw

    def topics(self) -> Tensor:
        """The logits of words in a document that is of one topic alone, ``(K, V)``."""
        if self.background is None:
            return self.weight
        return self.normalize(self.weight) + self.background

    def relevance(self, share: float, condition: Tensor | None = None) -> Tensor:
        r"""How relevant words are to topics, ``(K, V)``; :math:`\lambda` is the share.

        .. math:: \lambda \log p(w|k) + (1 - \lambda) \log \frac{p(w|k)}{p(w)}

        p(w) is the background of a product, and of a mixture the mean of its topics; all under a
        condition, as the network reads it, or at its zero.
        """
        moved: Any = 0.0 if condition is None or self.beside is None else self.beside(condition)
        topics = (self.topics() + moved).log_softmax(1)
        if self.background is None:
            common = topics.logsumexp(0) - math.log(len(topics))
        else:
            common = (self.background + moved).log_softmax(0)
        return topics - (1 - share) * common

    def shares_of(self, z: Tensor) -> Tensor:
        """The shares of topics, ``(..., K)``, of z."""
        return z if self.shares else z.softmax(-1)

    def forward(self, z: Tensor) -> Tensor:
        """``(B, K)``, or more with a condition, to logits ``(B, V)``."""
        z = z.flatten(1)
        shares = self.shares_of(z[:, : self.width])
        if self.mixture:
            logits = (shares @ self.weight.softmax(1)).clamp(min=1e-30).log()
        else:
            shares = nn.functional.dropout(shares, self.dropout, self.training)
            logits = self.normalize(shares @ self.weight) + self.background
        return logits if self.beside is None else logits + self.beside(z[:, self.width :])
