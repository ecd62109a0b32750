"""Bits with grey values as probabilities, from random numbers that any device computes alike."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..engine.capture import capture_function
from ..engine.compiled import compile_module

__all__ = ["binarize", "bits", "compiled_bits", "random_keys"]

IN_CACHE = 2**18  # numbers that go through the operations together
GAMMA, FIRST, SECOND = (c - 2**32 for c in (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35))


def binarize(x: Tensor) -> Tensor:
    r"""Bits with the grey values in [0, 1] as their probabilities.

    A bit is :math:`[u < x]` for a uniform u of 24 binary digits.

    Args:
        x: of any shape.

    References:
        Salakhutdinov & Murray (2008), "On the quantitative analysis of deep belief networks".

    >>> binarize(torch.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    rows = x.reshape(len(x), -1) if x.ndim > 1 and x.numel() else x.reshape(1, -1)
    return bits(rows, torch.arange(len(rows)), random_keys(len(rows))).view(x.shape)


def random_keys(n: int) -> Tensor:
    """What the bits of n data are computed from, ``(n, 2)``, by torch's generator."""
    return torch.empty(n, dtype=torch.int64).random_().view(torch.int32).view(n, 2)


def bits(x: Tensor, rows: Tensor, keys: Tensor) -> Tensor:
    """Bits for some rows of grey values.

    An observation's random numbers are a counter through a hash function, with its two keys. As
    whole numbers they are the same on each device, compiled or not, and for each of several
    processes that share a batch.

    Args:
        x: grey values, ``(N, D)``.
        rows: which, ``(n,)``.
        keys: of these, ``(n, 2)``.

    Returns:
        ``(n, D)``.

    References:
        Steele, Lea & Flood (2014), "Fast splittable pseudorandom number generators", for a counter
        with an odd stride through a hash function; Appleby (2011), MurmurHash3, for its constants.
    """
    return _bits(x, rows.to(x.device), keys.to(x.device), _counter(x), IN_CACHE)


def compiled_bits(x: Tensor, n: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """:func:`bits` in one pass over the data, where it is asked for n rows.

    Raises:
        CaptureError: there is no C++ compiler.
    """
    counter = _counter(x)
    given = x, torch.zeros(n, dtype=torch.int64), random_keys(n), counter
    module, live = capture_function(lambda *of: (_bits(*of, at_once=n * x.shape[1]),), *given)
    in_one_pass = compile_module(module, [*given, *live])

    def binarize(x: Tensor, rows: Tensor, keys: Tensor) -> Tensor:
        whole = len(rows) == n
        return in_one_pass(x, rows, keys, counter, *live)[0] if whole else bits(x, rows, keys)

    return binarize


def _counter(x: Tensor) -> Tensor:
    """Multiples of a stride, which no compiler is to work out: as numbers of C++ they overflow."""
    return torch.arange(x.shape[1], dtype=torch.int32, device=x.device).mul_(GAMMA)


def _bits(x: Tensor, rows: Tensor, keys: Tensor, counter: Tensor, at_once: int) -> Tensor:
    """So many numbers go through the operations together."""
    drawn = x.index_select(0, rows).to(torch.promote_types(x.dtype, torch.float32))
    n = max(1, at_once // max(1, x.shape[1]))
    for grey, key in zip(drawn.split(n), keys.split(n), strict=True):
        u = counter + key[:, :1]
        u.bitwise_xor_((u >> 16).bitwise_and_(0xFFFF)).mul_(FIRST)
        u.bitwise_xor_(key[:, 1:])
        u.bitwise_xor_((u >> 13).bitwise_and_(0x7FFFF)).mul_(SECOND)
        grey.mul_(2.0**24).sub_(u >> 8).gt_(2.0**23)  # u >> 8 lies in [-2^23, 2^23)
    return drawn.to(x.dtype)
