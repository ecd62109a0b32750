"""Tables whose holes are modelled: a bit beside each column that has some, given z."""

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv

SMALL = {"encoder": "MLP([8])", "decoder": "MLP([8])", "missing": "Bernoulli", "seed": 0}
SHARES = {"a": 0.0, "b": 0.3, "c": 0.6}
ROWS, DRAWS = 400, 20_000


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(
        {"a": rng.choice(["x", "y"], ROWS), "b": rng.normal(3, 1, ROWS), "c": rng.choice(4, ROWS)}
    ).convert_dtypes()
    for name, share in SHARES.items():
        df.loc[rng.permutation(ROWS)[: int(share * ROWS)], name] = None
    return df


@pytest.fixture(scope="module")
def vae(data):
    """A model whose cells do not depend on z, so that they have the shares of the data."""
    table = pv.Table.from_frame(data)
    vae = pv.VAE(table, 2, **SMALL)
    vae.start_from(table)
    for name, parameter in vae.likelihood.named_parameters():
        if name.endswith("head.weight"):
            parameter.data.zero_()
    bits = vae.likelihood.parts[-1].sources["logits"].head
    bits.bias.data = torch.logit(torch.tensor([SHARES["b"], SHARES["c"]]))
    return vae


def z_score(holes, share):
    return (holes.mean() - share) / np.sqrt(share * (1 - share) / len(holes))


def test_a_bit_says_which_cells_are_missing(vae, data):
    x = vae.as_data(data)
    assert vae.record.columns == ("a", "b", "c", "b is missing", "c is missing")
    assert torch.equal(x[:, 3:].bool(), x[:, 1:3].isnan())
    assert not x[:, 3:].isnan().any()


def test_bits_are_scored_beside_the_cells(vae, data):
    x, z = vae.as_data(data), torch.zeros(ROWS, 2)
    p = vae.decode(z)
    bits = torch.tensor(list(SHARES.values())[1:]).expand(ROWS, 2)
    expected = torch.distributions.Bernoulli(bits).log_prob(x[:, 3:]).sum(-1)
    alone = pv.VAE(pv.Table.from_frame(data), 2, **(SMALL | {"missing": False}))
    weights = vae.likelihood.state_dict()
    alone.likelihood.load_state_dict({k: weights[k] for k in alone.likelihood.state_dict()})
    cells = alone.record.score(alone.decode(z), x[:, :3])
    assert torch.allclose(vae.record.score(p, x), cells + expected, atol=1e-4)


@pytest.mark.parametrize("name", ["b", "c"])
def test_rows_are_simulated_with_their_holes(vae, name):
    holes = vae.sample(DRAWS, seed=0)[name].isna()
    assert abs(z_score(holes, SHARES[name])) < 5


@pytest.mark.slow
def test_cells_that_are_not_given_may_be_holes(vae, data):
    one = vae.sample(2_000, given={"a": "x"}, seed=0)
    assert set(one["a"]) == {"x"}
    assert abs(z_score(one["b"].isna(), SHARES["b"])) < 5
    some = data.head(200).assign(c=None)
    several = vae.sample(3, given=some, seed=0)
    there = some["b"].notna()
    for drawn in several:
        assert drawn["b"][there].equals(some["b"][there])
        assert abs(z_score(drawn["c"].isna(), SHARES["c"])) < 5


def test_an_imputed_table_has_no_holes(vae, data):
    assert not vae.impute(data.head(20), seed=0).isna().any().any()
    assert all(not d.isna().any().any() for d in vae.impute(data.head(20), draws=2, seed=0))
    assert not vae.reconstruct(data.head(20)).isna().any().any()


def test_a_saved_model_knows_its_bits(vae, data, tmp_path):
    again = pv.load(vae.save(tmp_path / "run"))
    assert again.sample(50, seed=0).equals(vae.sample(50, seed=0))
    assert torch.equal(again.as_data(data).isnan(), vae.as_data(data).isnan())


def test_a_complete_table_has_no_bits_and_an_array_cannot_have_them(data):
    whole = pv.VAE(pv.Table.from_frame(data[["a"]]), 2, **SMALL)
    assert whole.record.columns == ("a",)
    with pytest.raises(ValueError, match="missing='Bernoulli' is of a table"):
        pv.VAE(3, 2, likelihood="Normal", **SMALL)


def test_a_predictive_check_compares_what_is_seen_with_what_would_be_seen():
    torch.manual_seed(0)
    y = torch.randn(2000)
    seen = torch.where(torch.rand(2000) < torch.sigmoid(3 * y), torch.nan, y)  # high ones are gone
    table = pv.Table.from_frame(pd.DataFrame({"y": seen.numpy()}))
    nets = {"encoder": "MLP([])", "decoder": "MLP([])"}
    vae = pv.VAE(table, 1, missing="Bernoulli", likelihood={"y": "Normal(scale=0.01)"}, **nets)
    units, bits = (part.sources for part in vae.likelihood.parts)
    for head, slope in ((units["loc"].head, 1.0), (bits["logits"].head, 3.0)):
        head.weight.data.fill_(slope)
        head.bias.data.zero_()
    check = pv.predictive_check(vae, table, num_samples=2000, seed=0)
    assert check.columns["mean_z"].abs().max() < 4 and check.columns["shape_p"].min() > 1e-3


def test_simulated_rows_lack_the_cells_that_their_bits_say(vae, data):
    for given in (None, vae.as_data(data)[:7]):
        parts = vae.simulate(50, given, 50, holes=given is not None)
        cells = vae.record.cells(torch.cat([x for _, x in parts]))
        assert torch.equal(cells[:, 3:].bool(), cells[:, 1:3].isnan())
        assert 0 < cells[:, 3:].mean() < 1
