"""Numbers of any library: what is missing stays missing, what is no number is refused."""

import decimal
import math
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import xarray
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import pyro_vae as pv
from pyro_vae.model.arrays import numbers

NAN = math.nan
NETS = {"encoder": "MLP([5])", "decoder": "MLP([5])", "seed": 0}


def small():
    return pv.VAE(3, 2, likelihood="Normal", **NETS)


class Exchanged:
    """An array that is exchanged by DLPack alone."""

    def __dlpack__(self, **options):
        return torch.ones(1, 2).__dlpack__(**options)

    def __dlpack_device__(self):
        return torch.ones(1, 2).__dlpack_device__()


class Coded:
    """A dictionary-encoded column, as PyArrow has it."""

    null_count = 1

    class type:
        index_type = int

    def to_pylist(self):
        return [1, None, 1]


def nullable(values):
    return pd.DataFrame({"a": pd.array(values, dtype="Int64"), "b": [0.5] * len(values)})


TAKEN = {
    "a masked tensor": (
        lambda: torch.masked.masked_tensor(torch.ones(1, 2), torch.tensor([[True, False]])),
        [[1.0, NAN]],
    ),
    "masked objects": (
        lambda: np.ma.array([[1, 2]], mask=[[True, False]], dtype=object), [[NAN, 2.0]],
    ),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.ones(1, 2), 0.5, 0, torch.quint8), [[1.0, 1.0]],
    ),
    "unsigned": (lambda: torch.ones(1, 2, dtype=torch.uint16), [[1, 1]]),
    "a parameter": (lambda: nn.Parameter(torch.ones(1, 2)), [[1.0, 1.0]]),
    "signaling": (lambda: [[decimal.Decimal("sNaN"), 1]], [[NAN, 1.0]]),
    "missing whole numbers": (lambda: nullable([3, None]), [[3.0, 0.5], [NAN, 0.5]]),
    "a lazy sparse array": (lambda: scipy.sparse.dok_array([[1.0, 2.0]]), [[1.0, 2.0]]),
    "a data set": (
        lambda: xarray.Dataset({"a": ("n", [1.0]), "b": ("n", [2])}), [[1.0, 2.0]],
    ),
    "a dictionary's codes": (lambda: Coded(), [1.0, NAN, 1.0]),
    "a series of arrays": (lambda: pd.Series([np.ones(2), [2, 3]]), [[1.0, 1.0], [2.0, 3.0]]),
    "exchanged": (Exchanged, [[1.0, 1.0]]),
    "hybrid": (lambda: torch.ones(1, 2).to_sparse(1), [[1.0, 1.0]]),
    "cells of tensors": (lambda: pd.DataFrame([[torch.tensor(2), 1]]), [[2.0, 1.0]]),
    "inference": (lambda: torch.inference_mode()(lambda: torch.ones(1, 2))(), [[1.0, 1.0]]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TAKEN)
def test_every_library_has_its_own_notion_of_missing(name):
    make, expected = TAKEN[name]
    found, _ = numbers(make())
    assert not found.requires_grad and not found.is_inference()
    torch.testing.assert_close(
        found.double(), torch.tensor(expected).double(), equal_nan=True, rtol=0, atol=0
    )


NONE = {
    "None": (lambda: None, "x is None"),
    "a data set of parts": (lambda: pv.load_data("digits"), "give data.train or data.test"),
    "meta": (lambda: torch.zeros(2, 3, device="meta"), "a tensor without values"),
    "fake": (lambda: FakeTensorMode().from_tensor(torch.zeros(2, 3)), "a tensor without values"),
    "a module": (lambda: np, "got module"),
    "ragged": (lambda: [[1, 2], [3]], "rows of 2 and of 1 numbers: pad them with NaN to one"),
    "batches": (lambda: [torch.ones(2, 3), torch.ones(1, 3)], r"got list: put batches together"),
    "ragged within": (lambda: [[[1], [0]], [[1, 2], [0]]], "got list"),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "to_padded_tensor",
    ),
    "twice": (lambda: pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]), "two columns 'a'"),
    "ids": (lambda: np.array([[2**63 + 1]], dtype="u8"), "9223372036854775809, which float64"),
    "ids beside missing ones": (lambda: nullable([2**53 + 1, None]), "9007199254740993, which"),
    "huge": (lambda: [[10**400]], "too large for float64"),
    "raw bytes": (lambda: np.zeros(3, "V4"), "must be an array of numbers"),
    "strings": (lambda: np.array([["1"]], np.dtypes.StringDType()), "numbers, got StringDType"),
    "a series of arrays of two shapes": (
        lambda: pd.Series([np.ones(2), np.ones(3)]), r"arrays of shapes \(2,\) and \(3,\): pad",
    ),
    "a column of lists": (
        lambda: pd.DataFrame({"a": [[1, 2], [3, 4]], "b": [1, 2]}), "column 'a' has entries of sha",
    ),
    "columns of arrays": (
        lambda: np.array([([1, 2], 3.0)], dtype=[("a", "i4", 2), ("b", "f8")]),
        "column 'a' has entries of shape",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NONE)
def test_what_holds_no_numbers_says_so(name):
    make, message = NONE[name]
    with pytest.raises(ValueError, match=message):
        numbers(make())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padding_a_nested_tensor_is_good_advice():
    x = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]).to_padded_tensor(NAN)
    vae = pv.VAE(3, 2, likelihood="Normal", missing=True, **NETS)
    assert pv.elbo(vae, x).isfinite().all()


def test_one_observation_or_one_column_of_a_series():
    series = pd.Series([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"numpy.asarray\(x\)\[None\], .* one column \[:, None\]"):
        small().as_data(series)
    assert small().as_data(np.asarray(series)[None]).shape == (1, 3)
    assert pv.VAE(1, 2, likelihood="Normal").as_data(np.asarray(series)[:, None]).shape == (3, 1)


@pytest.mark.parametrize("x", [[[1, 2**24 + 1]], [[1.0, 2**24 + 1]], [[2**60 + 2**30, 1]]], ids=str)
def test_whole_numbers_that_float32_would_change_are_refused(x):
    with pytest.raises(
        ValueError, match=f"whole number {re.escape(f'{max(x[0]):.15g}')}, which float32"
    ):
        pv.VAE(2, 2, likelihood="Normal", **NETS).check(np.array(x))


def test_measurements_beyond_float32s_whole_numbers_are_rounded():
    """A column with a fraction is measured; a float beyond 2^52 is whole only by its spacing."""
    x = np.array([[2.0**24 + 1, 1e18 / 3], [0.5, -1e18 / 7]])
    checked = pv.VAE(2, 2, likelihood="Normal", **NETS).check(x)
    assert checked.tolist() == x.astype(np.float32).tolist()
