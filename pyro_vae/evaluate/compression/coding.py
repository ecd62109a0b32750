"""A model's prior, likelihood and guide as tables of probabilities for an entropy coder."""

import math
from collections.abc import Iterator

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from ...distributions import DequantizedLevels
from ...families.support import innermost, support_bounds
from ...model.sequences import Sequences
from ...model.vae import VAE
from ...model.visits import VisitsRecord

__all__ = ["WORD", "Code", "EntropyCoder"]

WORD = 32  # bits
PRECISION = 24  # bits of a probability in the coder: no symbol costs more
MOST_ROWS = 64  # observations in a chunk
MOST_CELLS = 2**22  # probabilities in its tables
MOST_VALUES = 2**16  # of one cell
NOISE = 16  # bits to which noise is added together


class Code:
    """Tables of the probabilities of symbols under a model's prior, likelihood and guide.

    ``observed`` and ``latent`` map x and z to symbols; ``largest``, the largest number in x, is 0
    where the likelihood's support is finite.

    Raises:
        ValueError: the model has missing cells, or cells that are not independent.
    """

    def __init__(self, vae: VAE, latent_bits: int, largest: float) -> None:
        if isinstance(vae.record, VisitsRecord):
            raise ValueError(
                "a code is of arrays whose cells are all there, and subjects have visits that are "
                "not: make a model of single rows, VAE(x_shape, ...)"
            )
        if vae.record.missing:
            raise ValueError("VAE(..., missing=True) has no code for missing cells: impute x first")
        if isinstance(vae.record, Sequences):
            raise ValueError("sequences of several lengths have no code yet: give arrays (T, C)")
        if vae.record.shape != vae.x_shape:
            raise ValueError("only x itself is coded, and this model's record has further blocks")
        like = vae.as_data(torch.zeros(1, *vae.record.shape))
        prior, guide = vae.prior(), vae.encode(like)
        z = prior.expand([1]).sample()
        self._vae = vae
        self.observed, self.largest = _observed(vae.decode(z), largest, like)
        self.latent = _latent(prior, guide, 2**latent_bits, like)
        self._prior = self.latent.table(prior)

    def prior(self, rows: int) -> np.ndarray:
        """Probabilities of the symbols of z under p(z), for so many observations."""
        return np.tile(self._prior, (rows, 1))

    def posterior(self, x: Tensor) -> np.ndarray:
        """Probabilities of the symbols of z under q(z|x)."""
        return self.latent.table(self._vae.encode(x))

    def likelihood(self, symbols: np.ndarray) -> np.ndarray:
        """Probabilities of the symbols of x under p(x|z), given the symbols of z."""
        return self.observed.table(self._vae.decode(self.latent.values(symbols)))

    def noise(self, rows: slice, seed: int) -> np.ndarray:
        """Noise for the bits from which so many z are popped.

        On top of the stack lies z of the observations before, which was pushed under p(z) though it
        came from q(z|x). Without noise the next z would be a function of that one, and not a draw
        from its own q(z|x).
        """
        bits = (rows.stop - rows.start) * self.latent.cells * math.log2(self.latent.size)
        words = random_words(math.ceil(bits / NOISE), seed, 1 + rows.start)
        return (words % 2**NOISE).astype(np.int32)

    def start(self, num_data: int, seed: int) -> np.ndarray:
        """Random words, enough for all pops; those that no pop reaches are not kept."""
        return random_words(num_data * self.latent.cells * PRECISION // WORD + 4, seed)

    def chunks(self, num_data: int) -> Iterator[slice]:
        """Observations that share a call of the networks: an eighth of those before, at least one.

        A chunk pops all its z at once, and the observations before it must have left as many bits,
        or random words are spent. Compression and decompression must use the same chunks, because a
        network may round differently in a batch of another size.
        """
        cells = max(v.cells * v.size for v in (self.latent, self.observed))
        most = min(MOST_ROWS, max(1, MOST_CELLS // cells))
        start = 0
        while start < num_data:
            stop = min(num_data, start + min(most, max(1, start // 8)))
            yield slice(start, stop)
            start = stop


class Values:
    """The values that each cell of a discrete variable can take; a symbol is the index of one.

    Args:
        values: ``(n, *cell_shape)``; a cell is a number, or a one-hot vector.
        shape: the shape of the variable.
    """

    def __init__(self, values: Tensor, shape: tuple[int, ...]) -> None:
        self._values, self._shape = values, shape
        self._cell_dim = values.ndim - 1
        self.cells = math.prod(shape[: len(shape) - self._cell_dim])
        self.size = len(values)

    def values(self, symbols: np.ndarray) -> Tensor:
        """``(B, *shape)`` for symbols ``(B * cells,)``."""
        index = torch.from_numpy(symbols).long().to(self._values.device)
        return self._values[index].reshape(-1, *self._shape)

    def symbols(self, x: Tensor) -> np.ndarray:
        """Symbols ``(B * cells,)`` for values ``(B, *shape)``."""
        same = x.unsqueeze(0) == self._aligned(x.ndim)
        if self._cell_dim:
            same = same.all(-1)
        return same.byte().argmax(0).flatten().cpu().numpy().astype(np.int32)

    def table(self, d: dist.TorchDistribution) -> np.ndarray:
        """Probabilities ``(B * cells, n)``."""
        log_prob = innermost(d).log_prob(self._aligned(len(d.batch_shape) + len(self._shape)))
        return _rows(log_prob.double().softmax(0))

    def _aligned(self, ndim: int) -> Tensor:
        ones = [1] * (ndim - self._cell_dim)
        return self._values.reshape(self.size, *ones, *self._values.shape[1:])


class Bins:
    """Bins of equal mass under a prior of independent continuous cells; a symbol is a bin."""

    def __init__(self, prior: dist.TorchDistribution, size: int, like: Tensor) -> None:
        self.size, self._shape = size, prior.event_shape
        self.cells = prior.event_shape.numel()
        mass = torch.arange(1, 2 * size, dtype=torch.float64, device=like.device) / (2 * size)
        points = innermost(prior).icdf(mass.reshape(-1, *[1] * len(self._shape)))
        points = points.expand(-1, *self._shape)
        self._medians = points[::2].to(like.dtype).reshape(size, -1)
        self._edges = points[1::2]

    def values(self, symbols: np.ndarray) -> Tensor:
        """The medians of the bins, ``(B, *shape)`` for symbols ``(B * cells,)``."""
        index = torch.from_numpy(symbols).long().to(self._medians.device)
        return self._medians.gather(0, index.reshape(-1, self.cells)).reshape(-1, *self._shape)

    def table(self, d: dist.TorchDistribution) -> np.ndarray:
        """Probabilities ``(B * cells, n)``."""
        edges = self._edges.reshape(-1, *[1] * len(d.batch_shape), *self._shape)
        below = innermost(d).cdf(edges).double()
        first, last = torch.zeros_like(below[:1]), torch.ones_like(below[:1])
        return _rows(torch.cat([first, below, last]).diff(dim=0).clamp(min=0))


def _observed(p: dist.TorchDistribution, largest: float, like: Tensor) -> tuple[Values, int]:
    """The map between x and symbols, and the largest number in x where the support is infinite."""
    values = _enumerated(p, like)
    if values is not None:
        return values, 0
    base = innermost(p)
    if isinstance(base, DequantizedLevels):
        raise ValueError(
            "the probabilities of Dequantized are estimates, other ones at every call, and have no "
            "lossless code: choose DiscretizedLogistic or Categorical"
        )
    kind, lower, _ = support_bounds(base.support)  # pyrefly: ignore[bad-argument-type]
    if base.event_dim or kind != "discrete" or math.isinf(lower):
        raise ValueError(
            f"x of {type(base).__name__} is not made of independent discrete cells, and has no "
            "lossless code: choose Bernoulli, Categorical, Binomial, Poisson ..., and round x"
        )
    first, last = int(lower), max(int(largest), int(lower) + 1)
    if last - first >= MOST_VALUES:
        raise ValueError(
            f"x holds {last}; {type(base).__name__} is coded up to {first + MOST_VALUES - 1} here: "
            "count in a larger unit"
        )
    numbers = torch.arange(first, last + 1, dtype=like.dtype, device=like.device)
    return Values(numbers, tuple(p.event_shape)), int(largest)


def _latent(
    prior: dist.TorchDistribution, guide: dist.TorchDistribution, bins: int, like: Tensor
) -> Values | Bins:
    """The map between z and symbols."""
    ends = innermost(prior), innermost(guide)
    values = _enumerated(prior, like) if ends[0].event_shape == ends[1].event_shape else None
    try:
        if values is not None and ends[1].has_enumerate_support:
            return values
        if not any(d.event_dim for d in ends):
            latent = Bins(prior, bins, like)
            latent.table(guide)
            return latent
    except NotImplementedError:
        pass
    names = " under the prior ".join(type(d).__name__ for d in reversed(ends))
    raise ValueError(
        f"z of the guide {names} has no code here, which needs independent cells: of one finite "
        "discrete family (Bernoulli, OneHotCategorical ...), or continuous with icdf and cdf "
        "(Normal, Laplace, LogNormal ...)"
    )


def _enumerated(d: dist.TorchDistribution, like: Tensor) -> Values | None:
    """The values of a finite discrete distribution, else ``None``."""
    base = innermost(d)
    if not base.has_enumerate_support:
        return None
    try:
        values = base.enumerate_support(expand=False)
    except NotImplementedError:  # each cell has a support of its own
        return None
    return Values(values.reshape(-1, *base.event_shape).to(like), tuple(d.event_shape))


def random_words(number: int, *seed: int) -> np.ndarray:
    """Random words that are the same on every machine and under every version of NumPy."""
    raw = np.random.PCG64(seed).random_raw((number + 1) // 2)
    return raw.astype("<u8").view("<u4").astype(np.uint32)[:number]


def _rows(table: Tensor) -> np.ndarray:
    """Probabilities ``(n, ...)`` as rows ``(M, n)``."""
    return table.reshape(len(table), -1).T.contiguous().cpu().numpy()


class EntropyCoder:
    """A stack of symbols in words of 32 bits, by asymmetric numeral systems.

    ``seal`` puts a bit on top of the first words, without which zeros there would be lost;
    ``untouched`` counts the words at the bottom that no pop has reached.
    """

    def __init__(self, words: np.ndarray, *, seal: bool = False) -> None:
        try:
            import constriction
        except ImportError:
            raise ValueError(
                "compression needs constriction: pip install 'pyro-vae[compress]'"
            ) from None
        library = constriction.stream
        self._coder = library.stack.AnsCoder(words, seal)
        self._model = library.model.Categorical(perfect=False)
        self._uniform = library.model.Uniform(2**NOISE)
        self.untouched: int = self._coder.pos()[0]

    def push(self, symbols: np.ndarray, table: np.ndarray) -> None:
        """Symbols ``(M,)``, each under its row of probabilities, ``(M, n)``."""
        self._coder.encode_reverse(symbols, self._model, table)

    def pop(self, table: np.ndarray) -> np.ndarray:
        """As many symbols as the table has rows: those that were pushed, or draws from it."""
        return self._decode(self._model, table)

    def add(self, noise: np.ndarray) -> None:
        """Add to the numbers of 16 bits on top, modulo 2^16."""
        top = self._decode(self._uniform, len(noise))
        self._coder.encode_reverse((top + noise) % 2**NOISE, self._uniform)

    def _decode(self, *arguments: object) -> np.ndarray:
        symbols = self._coder.decode(*arguments)
        self.untouched = min(self.untouched, self._coder.pos()[0])
        return symbols

    @property
    def is_empty(self) -> bool:
        """Whether all was popped: the coder's state is refilled as long as words are left."""
        words, state = self._coder.pos()
        return words == 0 and state < 2**WORD

    @property
    def words(self) -> np.ndarray:
        """The whole stack."""
        return self._coder.get_compressed()
