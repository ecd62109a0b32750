"""Families that a user declares of a table's columns: served, or refused with the column."""

import math
import re

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from pyro_vae.core.errors import in_words
from pyro_vae.distributions import GeneralizedPareto, Joined, Pareto
from pyro_vae.families.likelihoods import fill

N = 60
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "debt": np.where(RNG.random(N) < 0.4, 0.0, RNG.lognormal(8, 1, N).round(2)),
        "level": RNG.choice([1, 2, 3, 4], N),
        "income": np.where(RNG.random(N) < 0.2, np.nan, RNG.lognormal(8, 1, N)),
        "pet": RNG.choice(["cat", "dog", "cow"], N),
    }
)


def vae_of(**lines):
    table = pv.Table.from_frame(FRAME, likelihood=lines)
    return pv.VAE(table, 1, encoder="MLP([4])", decoder="MLP([4])", seed=0), table


def test_a_family_of_no_kind_is_of_the_numbers_themselves():
    """Not of their codes, or of those beside a spike."""
    for make in (pv.Table.from_frame, lambda frame, likelihood: TABLE.with_likelihood(likelihood)):
        table = make(FRAME, likelihood={"debt": "HalfNormal", "level": "HalfNormal"})
        assert [table.schema[name].kind for name in ("debt", "level")] == ["real", "integer"]
        assert np.array_equal(table.values[:, :2], FRAME[["debt", "level"]])
    vae, table = vae_of(debt="HalfNormal")
    assert vae.sample(5, seed=0)["debt"].dtype == table.to_frame()["debt"].dtype


TABLE = pv.Table.from_frame(FRAME)
REFUSED = {
    "no levels": (
        {"pet": "HalfNormal"},
        "column 'pet': HalfNormal has other values than",
    ),
    "other levels": ({"pet": "DiscretizedLogistic"}, "column 'pet': .* codes of its 3 levels"),
    "a family within": ({"income": "Mixture"}, "column 'income': Mixture needs family="),
    "several cells": ({"income": "Dirichlet"}, "column 'income': missing cells need .* as Normal"),
    "misspelled": (
        {"pet": "Categoricl"},
        "column 'pet': unknown family 'Categoricl'; did you",
    ),
    "a bound": ({"debt": "Normal(scale=-1)"}, "column 'debt': scale of Normal must be a number gr"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_is_refused_with_its_column(name):
    lines, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        vae_of(**lines)


def test_a_loss_that_is_not_finite_is_told_by_column():
    vae, table = vae_of(income="Delta")
    with pytest.raises(pv.NonFiniteLossError, match=r"-inf, by column 'income'\. Try"):
        pv.fit(vae, table, epochs=1, progress=False)


ENDS = torch.tensor([[1.0, 40.0], [900.0, 3.0]])
MOVING = {
    "from its scale": Pareto(ENDS, torch.ones(2, 2)),
    "to its end": GeneralizedPareto(ENDS, ENDS, torch.tensor([[-0.5, 0.5], [0.5, -0.5]])),
    "within": dist.Uniform(ENDS, ENDS + 2),
    "of components": dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2, 2, 2)),
        Pareto(torch.stack([ENDS, ENDS + 5], -1), torch.ones(2, 2, 2)),
    ),
}


@pytest.mark.parametrize("name", MOVING)
def test_a_missing_cell_lies_in_a_support_whose_ends_are_parameters(name):
    p = Joined([MOVING[name].to_event(1), dist.Normal(torch.zeros(2, 1), 1.0).to_event(1)])
    x = torch.full((2, 3), math.nan)
    filled = fill(x, ~x.isnan(), p.support)
    assert p.support.check(filled).all() and p.log_prob(filled).isfinite().all()


def test_a_value_outside_a_support_is_told_without_pages_of_numbers():
    outside = pytest.raises(ValueError, match="outside the support of Uniform, Interval: ")
    with outside as said, in_words():
        dist.Uniform(ENDS, ENDS + 1, validate_args=True).log_prob(ENDS - 1)
    assert not re.search("tensor|\n", str(said.value))
