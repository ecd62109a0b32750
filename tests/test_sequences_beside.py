"""Ragged loaders, and what lies beside sequences: the figures of the whole, and of each alone."""

import math

import pytest
import torch
from torch.utils.data import DataLoader

import pyro_vae as pv

LENGTHS = (3, 1, 6, 2, 4)
GENERATOR = torch.Generator().manual_seed(0)
X = [torch.randn(n, 3, generator=GENERATOR) for n in LENGTHS]
C = torch.randn(5, 2, generator=GENERATOR)
QUIET = {"epochs": 1, "progress": False, "compile": False}


def padded(rows):
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=math.nan)


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i]


LOADERS = {
    "lists": lambda: DataLoader(X, 2, collate_fn=list),
    "lists of one": lambda: DataLoader(X, 1, collate_fn=list),
    "padded, of several lengths": lambda: DataLoader(X, 2, collate_fn=padded),
    "rows of a data set": Rows,
}


def model(decoder="GRU(4)", **options):
    return pv.VAE(
        (None, 3), 2, likelihood="Normal", encoder="GRU(4)", decoder=decoder, seed=0, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_a_ragged_loader_gives_the_figures_of_all_at_once(name):
    vae, x = model(), LOADERS[name]()
    torch.testing.assert_close(pv.elbo(vae, x, seed=0), pv.elbo(vae, X, seed=0))
    pv.fit(vae, x, **QUIET)
    assert vae.record.longest == 6
    assert vae.inputs.lengths.tolist() == [0, 1, 1, 1, 1, 0, 1]


def test_steps_that_were_put_side_by_side_are_refused():
    tokens = [[0, 1, 2], [2, 1, 0]]
    vae = pv.VAE((None,), 2, likelihood="Categorical(categories=3)", seed=0)
    with pytest.raises(ValueError, match="collate_fn=list"):
        vae.as_data(DataLoader(tokens, 2))
    rows = vae.as_data(DataLoader(tokens, 2, collate_fn=list))
    assert rows.tolist() == tokens


@pytest.mark.parametrize("decoder", ["GRU(4)", "Transformer(8, autoregressive=0)"])
def test_a_batch_with_conditions_gives_the_figures_of_each_alone(decoder):
    vae = model(decoder, condition=2).eval()

    def score(x):
        z = vae.approximate_posterior(x).mean
        return vae.record.score(vae.decode(z, x), x)

    together = vae.as_data({"x": X, "condition": C})
    each = [vae.as_data({"x": [x], "condition": c[None]}) for x, c in zip(X, C, strict=True)]
    torch.testing.assert_close(score(together), torch.cat([score(one) for one in each]))
    other = vae.as_data({"x": X, "condition": C + 1})
    assert (score(other) - score(together)).abs().min() > 1e-4


def test_conditions_come_in_pairs_with_lengths_and_from_loaders():
    vae = model(condition=2)
    whole = vae.as_data({"x": X, "condition": C})
    pairs = [*zip(X, C, strict=True)]
    forms = {
        "pairs": pairs,
        "lengths": {"x": padded(X).nan_to_num(7), "lengths": LENGTHS, "condition": C},
        "a loader of pairs": DataLoader(pairs, 2, collate_fn=list),
    }
    for form in forms.values():
        assert torch.equal(vae.as_data(form).nan_to_num(-9), whole.nan_to_num(-9))
    drawn = vae.sample(2, given={"condition": C, "lengths": list(LENGTHS)}, seed=0)
    assert (~drawn[0, ..., 0].isnan()).sum(1).tolist() == [*LENGTHS]
    with pytest.raises(ValueError, match="'x' and 'condition' and 'lengths', got x"):
        vae.as_data(X)


def test_the_line_between_two_sequences_ends_at_their_means():
    vae = model()
    line = vae.interpolate(X[0], X[2], steps=3)
    for x, point in ((X[0], line[0]), (X[2], line[-1])):
        cells = vae.as_data([x])
        mean = vae.decode(vae.encode(cells).mean, cells).mean[0]
        torch.testing.assert_close(point, mean[: len(X[0])].detach())
    assert [len(point) for point in line] == [3, 3, 3]  # the steps of the shorter one


def test_conditions_are_saved(tmp_path):
    vae, data = model(condition=2), {"x": X, "condition": C}
    pv.fit(vae, data, **QUIET)
    again = pv.load(vae.save(tmp_path / "m"))
    assert torch.equal(pv.elbo(again, data, seed=0), pv.elbo(vae, data, seed=0))


def test_arviz_holds_no_step_after_the_end():
    vae = model(condition=2)
    found = pv.to_arviz(vae, {"x": X, "condition": C}, 8, evidence_samples=20, seed=0)
    for group in (found.posterior_predictive, found.prior_predictive):
        steps = group["x"].notnull().to_numpy()
        assert (steps.all(-1).sum(-1) == LENGTHS).all() and (steps.any(-1).sum(-1) == LENGTHS).all()
