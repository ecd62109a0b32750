"""Rate and distortion, and lossless compression by bits back at a rate near the negative ELBO."""

import math
import struct
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.checks import whole
from ...core.sizes import memory
from ...infer.elbo_terms import elbo_terms
from ...model.entry import of_model
from ...model.joint import reading
from ...model.vae import VAE
from ..statistics import by_observation
from .coding import WORD, Code, EntropyCoder

__all__ = ["Compressed", "compress", "decompress", "rate_distortion"]

HEADER = struct.Struct("<4s5IQ")
MAGIC = b"PVC1"
UNSOUND = (
    "the words do not decode: they are damaged, or of another model or machine; decompress with "
    "the weights, type, device and number of threads that compressed"
)
MOST_PER_WORD = 2**16  # observations
SEAL = 1  # bit on top of the start
MAX_SEED = 2**64 - 1  # in the header


@of_model
def rate_distortion(
    vae: VAE, x: Tensor | ArrayLike, *, num_samples: int = 10, seed: int | None = None
) -> pd.DataFrame:
    r"""Rate and distortion of each observation, whose sum is the negative ELBO.

    .. math:: R = KL(q(z|x) \| p(z)), \quad D = -E_{q(z|x)}[\log p(x|z)]

    A model is a point of the plane; models of several :math:`\beta` (``fit(..., beta=4)``) are a
    curve. A model whose R is 0 does not use z; one of large R and small D copies x into z.

    Args:
        vae: a trained model.
        x: ``(N, *x_shape)``.
        num_samples: draws of z per observation.
        seed: of the draws.

    Returns:
        A row for each observation: ``rate`` and ``distortion`` in nats, and ``bits_per_dimension``,
        their sum in bits over the number of cells of x that are there. For continuous x these are
        densities, so that they depend on the unit of x and may be negative.

    Raises:
        ValueError: data that the model refuses, or no draws.

    References:
        Alemi et al. (2018), arXiv:1711.00464.

    >>> vae = VAE(4, latent_dim=2, seed=0)
    >>> rate_distortion(vae, torch.zeros(3, 4), seed=0).shape
    (3, 3)
    """
    num_samples = whole("num_samples", num_samples)
    x = vae.check(x)
    with reading(vae, seed):
        likelihood, rate = elbo_terms(vae.model, vae.guide, x, num_samples=num_samples)
    cells = (~vae.record.cells(x).isnan()).flatten(1).sum(1)
    bits = (rate - likelihood) / math.log(2) / cells
    return by_observation({"rate": rate, "distortion": -likelihood, "bits_per_dimension": bits})


@dataclass(frozen=True, eq=False)
class Compressed:
    """Data as words of 32 bits, with what :func:`decompress` needs beside the model.

    Attributes:
        words: ``(W,)`` of type ``uint32``.
        num_data: N.
        num_dimensions: cells of one observation.
        latent_bits: each continuous z was coded as one of two to this number of bins.
        largest: the largest number in x, where the likelihood's support is unbounded.
        initial_words: words of the random start that were popped, and are in ``words``.
        seed: of the random start.
    """

    words: np.ndarray
    num_data: int
    num_dimensions: int
    latent_bits: int
    largest: int
    initial_words: int
    seed: int

    @property
    def bits_per_observation(self) -> float:
        """The bits of the words, the start included, over N."""
        return WORD * len(self.words) / self.num_data

    @property
    def net_bits_per_observation(self) -> float:
        """The bits that each observation added to the start: they match the negative ELBO."""
        all_bits = WORD * (len(self.words) - 1) + int(self.words[-1]).bit_length()
        return (all_bits - WORD * self.initial_words - SEAL) / self.num_data

    @property
    def bits_per_dimension(self) -> float:
        """``bits_per_observation`` over the number of cells of an observation."""
        return self.bits_per_observation / self.num_dimensions

    def __bytes__(self) -> bytes:
        numbers = (self.num_data, self.num_dimensions, self.latent_bits, self.largest)
        header = HEADER.pack(MAGIC, *numbers, self.initial_words, self.seed)
        return header + self.words.astype("<u4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Compressed":
        """Read the bytes that ``bytes(compressed)`` gave.

        Raises:
            ValueError: the bytes are none of those.
        """
        body = data[HEADER.size :]
        if data[: len(MAGIC)] != MAGIC or not body or len(body) % 4:
            raise ValueError("expected bytes(compressed) of pv.compress, got other or fewer bytes")
        _, *numbers = HEADER.unpack(data[: HEADER.size])
        coded = cls(np.frombuffer(body, "<u4").astype(np.uint32), *numbers)
        words, n, cells = len(coded.words), coded.num_data, coded.num_dimensions
        sound = 0 < n <= MOST_PER_WORD * words and n * cells <= memory() // 8
        if not (sound and coded.initial_words <= words and 0 < coded.latent_bits <= 16):
            raise ValueError(
                f"{words} words tell of {n} observations of {cells} cells, which they do not hold: "
                "they are damaged, or none of pv.compress"
            )
        return coded


@of_model
@torch.no_grad()
def compress(
    vae: VAE, x: Tensor | ArrayLike, *, latent_bits: int = 12, seed: int = 0
) -> Compressed:
    r"""Code discrete data without loss, at a rate near the negative ELBO, by bits back.

    .. math:: \text{bits} \approx -\log_2 p(x|z) - \log_2 p(z) + \log_2 q(z|x)

    The words are a stack. For each observation z is *popped* under q(z|x), which gives bits back,
    then x is pushed under p(x|z) and z under p(z). A continuous z is one of ``2**latent_bits`` bins
    of equal mass under the prior; a finer bin costs nothing, because it is both pushed and popped.
    Each z is popped from the bits that the observations before have left, with noise added that
    decompression takes off again; the first ones are popped from random words.

    Args:
        vae: a trained model with a discrete likelihood of independent cells. Its prior and guide
            too are of independent cells: of one finite discrete kind, or continuous with
            ``icdf`` and ``cdf`` (Normal, Laplace, LogNormal ...).
        x: ``(N, *x_shape)``.
        latent_bits: bits of a continuous z, at most 16.
        seed: of the random words at the start.

    Raises:
        ValueError: data that the model refuses, or a model whose cells are not independent.

    References:
        Townsend, Bird & Barber (2019), arXiv:1901.04866; Hinton & van Camp (1993); the coder is
        of Bamler (2022), arXiv:2201.01741.

    >>> vae = VAE(4, latent_dim=2, seed=0)
    >>> x = vae.sample(100, seed=0)
    >>> torch.equal(decompress(vae, compress(vae, x)), x)
    True
    """
    latent_bits, seed = whole("latent_bits", latent_bits, 1, 16), whole("seed", seed, 0, MAX_SEED)
    x = vae.check(x)
    with reading(vae, seed):
        code = Code(vae, latent_bits, float(x.max()))
        start = code.start(len(x), seed)
        stack = EntropyCoder(start, seal=True)
        for rows in code.chunks(len(x)):
            # In the memory layout that decompression gives it, so that sums round alike.
            some = x[rows].clone(memory_format=torch.contiguous_format)
            stack.add(code.noise(rows, seed))
            z = stack.pop(code.posterior(some))
            stack.push(code.observed.symbols(some), code.likelihood(z))
            stack.push(z, code.prior(len(some)))
    return Compressed(
        words=stack.words[stack.untouched :],
        num_data=len(x),
        num_dimensions=math.prod(vae.x_shape),
        latent_bits=latent_bits,
        largest=code.largest,
        initial_words=len(start) - stack.untouched,
        seed=seed,
    )


@of_model
@torch.no_grad()
def decompress(vae: VAE, compressed: Compressed) -> Tensor:
    """The data that :func:`compress` coded, bit for bit.

    The probabilities are floating-point numbers from the networks, and must be the same as in
    compression: the same weights, type, device and number of threads. The random words at the start
    come back last, and are compared with those of the seed to detect wrong decoding.

    Args:
        vae: the model that compressed the data.
        compressed: the words.

    Returns:
        ``(N, *x_shape)``, of the model's type, on its device.

    Raises:
        ValueError: another model or machine, or damaged words.
    """
    if compressed.num_dimensions != math.prod(vae.x_shape):
        raise ValueError(
            f"the words are of data with {compressed.num_dimensions} cells, the model's x_shape is "
            f"{vae.x_shape}: give the model that compressed them"
        )
    with reading(vae, compressed.seed):
        code = Code(vae, compressed.latent_bits, compressed.largest)
        stack, parts = EntropyCoder(compressed.words), []
        for rows in reversed(list(code.chunks(compressed.num_data))):
            z = stack.pop(code.prior(rows.stop - rows.start))
            symbols = stack.pop(code.likelihood(z))
            if stack.is_empty:  # sound words last until the end
                raise ValueError(UNSOUND)
            parts.append(code.observed.values(symbols))
            stack.push(z, code.posterior(parts[-1]))
            stack.add(-code.noise(rows, compressed.seed))
        start = code.start(compressed.num_data, compressed.seed)
        expected = EntropyCoder(start[len(start) - compressed.initial_words :], seal=True)
    if not np.array_equal(stack.words, expected.words):
        raise ValueError(UNSOUND)
    return torch.cat(parts[::-1])
