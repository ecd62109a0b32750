"""Networks of sequences and sets: from steps, some of which are padding, to features.

A network reads ``(B, T, C)``, NaN where a step is padding: its first steps are the sequence, and
what is computed of them does not depend on how many others follow. As an encoder it gives features
of the whole sequence, ``(B, H)``; :meth:`SequenceNetwork.unroll` makes it a decoder, which gives
features of each step, ``(B, T, H)``. It has no weight that knows T.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.checks import boolean, number, whole
from ..language.spec import Spec

__all__ = ["GRU", "SEQUENCE_NETWORKS", "DeepSet", "Embedding", "SequenceNetwork", "Transformer"]

LONGEST_WAVE = 10_000.0  # of the positions that a transformer reads, as Vaswani and others have it


class SequenceNetwork(nn.Module):
    """A network of steps; one of your own has ``make`` and ``steps``, and may have ``pool``.

    Attributes:
        unrolled: whether it gives features of each step.
        autoregressive: of a decoder that reads the steps before each: the share of them that is
            hidden from it in training (word dropout); ``None`` reads z alone.
    """

    autoregressive: float | None = None
    unrolled = False
    spec: Spec | None = None

    def unroll(self) -> None:
        """From now on give features of each step, as a decoder does."""
        self.unrolled = True

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        """Make the layers for steps of width ``in_shape[-1]``."""
        name = type(self).__name__
        if len(in_shape) != 2:
            raise ValueError(
                f"{name} reads sequences of shape (steps, channels), got {in_shape}: say "
                "VAE((None, 12), ...), or (None,) for tokens"
            )
        if self.autoregressive is not None and not self.unrolled:
            raise ValueError(f"autoregressive= is of a decoder: leave it out of the {name} here")
        self.make(in_shape[1])

    def make(self, width: int) -> None:
        """Make the layers for steps of this width."""
        raise NotImplementedError

    def steps(self, x: Tensor, there: Tensor) -> Tensor:
        """Features of each step, ``(B, T, H)``; at padding any finite ones.

        Args:
            x: ``(B, T, C)``, zeros at padding.
            there: ``(B, T)``, false at padding.
        """
        raise NotImplementedError

    def pool(self, h: Tensor, there: Tensor) -> Tensor:
        """Features of the sequence, ``(B, H)``: the mean over its steps."""
        return h.sum(1) / there.sum(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C)``, NaN at padding, to ``(B, H)``, or ``(B, T, H)`` where it is unrolled."""
        there = ~x.isnan().any(-1)
        at = there[..., None]
        h = self.steps(torch.where(at, x, 0.0), there)
        h = torch.where(at, h, 0.0)
        return h if self.unrolled else self.pool(h, there)


class GRU(SequenceNetwork):
    r"""A gated recurrent unit: :math:`h_t = \mathrm{GRU}(x_t, h_{t-1})`.

    An encoder gives the state after the last step; a decoder the state at each step, where
    :math:`x_t` is z, and the step before where it is autoregressive.

    Args:
        hidden: the width of the state.
        layers: of recurrent units, each reading the states of the one before.
        bidirectional: whether a second unit reads the sequence from its end.
        embedding: the width that each step is mapped to first; of tokens, their embedding.
        autoregressive: of a decoder, :math:`p(x_t \mid x_{<t}, z)`: the share of the steps before
            that are hidden in training; ``None``: :math:`p(x_t \mid z)`.

    References:
        Cho et al. (2014), arXiv:1406.1078; Bowman et al. (2016), arXiv:1511.06349, for word dropout
        and the collapse of autoregressive decoders.

    >>> GRU(128, autoregressive=0.5).spec
    GRU(128, autoregressive=0.5)
    """

    def __init__(
        self,
        hidden: int = 128,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        embedding: int | None = None,
        autoregressive: float | None = None,
    ) -> None:
        super().__init__()
        self.hidden, self.depth = whole("hidden", hidden), whole("layers", layers)
        self.bidirectional = boolean("bidirectional", bidirectional)
        self.embedding = None if embedding is None else whole("embedding", embedding)
        self.autoregressive = _share(autoregressive)
        if self.bidirectional and autoregressive is not None:
            raise ValueError("an autoregressive decoder reads the steps before alone: one way")
        said = {"layers": layers, "bidirectional": bidirectional}
        options = {name: value for name, value in said.items() if value != (name == "layers")}
        maybe = {"embedding": embedding, "autoregressive": autoregressive}
        options |= {name: value for name, value in maybe.items() if value is not None}
        self.spec = Spec("GRU", self.hidden, **options)

    def make(self, width: int) -> None:
        """Make the units."""
        self.embed = _embedding(width, self.embedding)
        width = self.embedding or width
        ways = 1 + self.bidirectional
        self.units = nn.ModuleList()
        for _ in range(self.depth):
            self.units.extend(nn.GRU(width, self.hidden, batch_first=True) for _ in range(ways))
            width = ways * self.hidden

    def steps(self, x: Tensor, there: Tensor) -> Tensor:
        """The states, ``(B, T, H)``, or ``(B, T, 2 H)`` of both ways."""
        h, ways = self.embed(x), 1 + self.bidirectional
        for start in range(0, len(self.units), ways):
            states = [self.units[start](h)[0]]
            if self.bidirectional:
                states.append(_reverse(self.units[start + 1](_reverse(h, there))[0], there))
            h = torch.cat(states, -1)
        return h

    def pool(self, h: Tensor, there: Tensor) -> Tensor:
        """The state after the last step, and, from the end, that after the first."""
        last = (there.sum(1) - 1)[:, None, None].expand(-1, 1, h.shape[-1])
        end = h.gather(1, last)[:, 0]
        return torch.cat([end[:, : self.hidden], h[:, 0, self.hidden :]], 1)


class Transformer(SequenceNetwork):
    r"""Layers of attention, each step reading all others: normalization comes before each layer.

    .. math:: h \leftarrow h + \mathrm{softmax}(Q K^\top / \sqrt d)\, V, \quad
        h \leftarrow h + W_2\, \mathrm{gelu}(W_1 h)

    Steps know their place by sines and cosines. An encoder gives the mean over the steps; an
    autoregressive decoder lets each step read those before it alone.

    Args:
        width: of a step's features.
        layers: of attention.
        heads: of each layer; they divide the width.
        autoregressive: as for :class:`GRU`.

    References:
        Vaswani et al. (2017), arXiv:1706.03762; Xiong et al. (2020), arXiv:2002.04745.

    >>> Transformer(layers=4).spec
    Transformer(64, layers=4, heads=4)
    """

    def __init__(
        self,
        width: int = 64,
        *,
        layers: int = 2,
        heads: int = 4,
        autoregressive: float | None = None,
    ) -> None:
        super().__init__()
        self.width, self.depth = whole("width", width), whole("layers", layers)
        self.heads, self.autoregressive = whole("heads", heads), _share(autoregressive)
        if width % heads or width % 2:
            raise ValueError(f"width is even and heads divides it, got {width} and {heads} heads")
        options = {} if autoregressive is None else {"autoregressive": autoregressive}
        self.spec = Spec("Transformer", width, layers=layers, heads=heads, **options)

    def make(self, width: int) -> None:
        """Make the layers."""
        w = self.width
        self.embed = nn.Linear(width, w)
        self.attentions, self.maps = nn.ModuleList(), nn.ModuleList()
        for _ in range(self.depth):
            self.attentions.append(Attention(w, self.heads))
            inner = nn.Sequential(nn.Linear(w, 4 * w), nn.GELU(), nn.Linear(4 * w, w))
            self.maps.append(nn.Sequential(nn.LayerNorm(w), *inner))
        self.norm = nn.LayerNorm(w)

    def steps(self, x: Tensor, there: Tensor) -> Tensor:
        """Features ``(B, T, width)``."""
        n = x.shape[1]
        seen = there[:, None, :].expand(-1, n, n)
        if self.autoregressive is not None:
            seen = seen & torch.ones(n, n, dtype=torch.bool, device=x.device).tril()
        h = self.embed(x) + _positions(n, self.width).to(x)
        for attention, inner in zip(self.attentions, self.maps, strict=True):
            h = h + attention(h, seen)
            h = h + inner(h)
        return self.norm(h)


class Attention(nn.Module):
    """A layer of attention over the steps that each step may read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.inner, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor, seen: Tensor) -> Tensor:
        """``(B, T, W)`` of that shape; ``seen`` is ``(B, T, T)``, true where a row reads a step."""
        parts = self.inner(self.norm(h)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        fit = q @ k.mT / math.sqrt(q.shape[-1])
        weights = fit.masked_fill(~seen[:, None], -math.inf).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class DeepSet(SequenceNetwork):
    r"""A network of sets, whose elements have no order.

    .. math:: h = \rho\left(\tfrac1n \sum_i \phi(x_i), \log n\right)

    As a decoder it gives each element the same features of z: elements are independent and alike
    given z.

    Args:
        hidden: the widths of the layers of :math:`\phi`; the last one is that of :math:`\rho` too.

    References:
        Zaheer et al. (2017), arXiv:1703.06114.

    >>> DeepSet([64, 64]).spec
    DeepSet([64, 64])
    """

    def __init__(self, hidden: int | Sequence[int] = (64, 64)) -> None:
        super().__init__()
        widths = [hidden] if isinstance(hidden, int) else list(hidden)
        if not widths:
            raise ValueError("DeepSet takes a width or more, such as [64, 64]")
        self.hidden = tuple(whole("a width", width) for width in widths)
        self.spec = Spec("DeepSet", self.hidden)

    def make(self, width: int) -> None:
        """Make the layers."""
        self.each = nn.Sequential()
        for wide in self.hidden:
            self.each.append(nn.Linear(width, wide)).append(nn.ReLU())
            width = wide
        if not self.unrolled:
            self.all = nn.Sequential(nn.Linear(width + 1, width), nn.ReLU())

    def steps(self, x: Tensor, there: Tensor) -> Tensor:
        """Features of each element by itself."""
        return self.each(x)

    def pool(self, h: Tensor, there: Tensor) -> Tensor:
        """Features of the set."""
        size = there.sum(1, keepdim=True).to(h).log()
        return self.all(torch.cat([super().pool(h, there), size], 1))


class Embedding(SequenceNetwork):
    """A vector for each token, and their mean: a bag of words; of numbers a linear map.

    Args:
        width: of the vectors.

    >>> Embedding(32).spec
    Embedding(32)
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = whole("width", width)
        self.spec = Spec("Embedding", self.width)

    def make(self, width: int) -> None:
        """Make the vectors."""
        self.embed = _embedding(width, self.width)

    def steps(self, x: Tensor, there: Tensor) -> Tensor:
        """The vectors, ``(B, T, width)``."""
        return self.embed(x)


SEQUENCE_NETWORKS = (GRU, Transformer, DeepSet, Embedding)


def _share(value: float | None) -> float | None:
    """The share of hidden steps, checked."""
    if value is not None and number("autoregressive", value, least=0.0) > 1:
        raise ValueError(f"autoregressive is the share of hidden steps, in [0, 1], got {value}")
    return value


def _embedding(width: int, to: int | None) -> nn.Module:
    """A vector for each one-hot code; the steps as they are where no width is asked for."""
    return nn.Identity() if to is None else nn.Linear(width, to, bias=False)


def _reverse(h: Tensor, there: Tensor) -> Tensor:
    """Each sequence from its end, padding behind it as before."""
    at, n = torch.arange(h.shape[1], device=h.device), there.sum(1, keepdim=True)
    order = torch.where(at < n, n - 1 - at, at)
    return h.gather(1, order[..., None].expand_as(h))


def _positions(steps: int, width: int) -> Tensor:
    """Sines and cosines of the places of steps, ``(steps, width)``."""
    rates = LONGEST_WAVE ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(steps)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
