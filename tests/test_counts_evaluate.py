"""Rates, loadings, and differences between groups of counts."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import pyro_vae as pv

NB = "NegativeBinomial(total_count=learned(shared=False))"
GENES = [f"gene{i}" for i in range(6)]


def model(genes=6, likelihood=NB, **options):
    options = {"offset": "library", "decoder": "MLP([])", "encoder": "MLP([8])", **options}
    return pv.VAE(genes, latent_dim=2, likelihood=likelihood, seed=0, **options)


@pytest.mark.parametrize("likelihood", [NB, "Poisson", "Multinomial", f"ZeroInflated{NB}"])
def test_rates_are_the_decoders_at_an_exposure_of_1(likelihood):
    vae, x = model(likelihood=likelihood), torch.arange(1.0, 25.0).reshape(4, 6)
    found = pv.rates(vae, x, num_samples=4000, seed=0).to_numpy()
    q = vae.encode(x)
    with torch.no_grad():
        p = vae.decode(q.sample((4000,)), vae.as_data(x))
        base = getattr(p, "base_dist", p)
        base = getattr(base, "base_dist", base)
        each = base.mean / x.sum(1, keepdim=True)
    z = (torch.tensor(found) - each.mean(0)) / (each.std(0) / 4000**0.5 * 2**0.5)
    assert z.abs().max() < 5
    if likelihood == "Multinomial":
        assert np.allclose(found.sum(1), 1)


def test_rates_have_the_names_and_do_not_depend_on_a_depth_that_the_guide_does_not_see():
    x = sparse.csr_matrix(np.arange(1, 25).reshape(4, 6))
    vae = pv.VAE(pv.Counts(x, names=GENES), latent_dim=2, likelihood=NB, offset="library", seed=0)
    assert list(pv.rates(vae, pv.Counts(x, names=GENES), seed=0).columns) == GENES


def test_loadings_are_the_slopes_of_the_log_mean():
    vae = model()
    z = torch.zeros(3, 2)
    z[1, 0] = z[2, 1] = 1.0
    x = vae.as_data(torch.ones(3, 6))
    log_mean = vae.decode(z, x).mean.log()
    by_hand = (log_mean[1:] - log_mean[0]).T.detach().numpy()
    assert np.allclose(pv.loadings(vae).to_numpy(), by_hand, atol=1e-5)
    assert list(pv.loadings(vae).columns) == ["z[0]", "z[1]"]
    with pytest.raises(ValueError, match=r"decoder='MLP\(\[\]\)'"):
        pv.loadings(model(decoder="MLP([4])"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("GammaPoisson(concentration=learned)", "GammaPoisson falls with its rate: use"),
        ("Geometric", "Geometric falls with its logits: use a likelihood"),
        (
            "NegativeBinomial",
            r"its total_count, too: use .* NegativeBinomial\(total_count=learned\)",
        ),
        ("ZeroInflatedNegativeBinomial", "is not the decoder's, such as NegativeBinomial"),
        ("InverseGamma", "the mean of InverseGamma depends on z by its concentration, too"),
    ],
)
def test_loadings_that_are_no_slopes_of_a_mean_are_refused(line, said):
    with pytest.raises(ValueError, match=said):
        pv.loadings(model(likelihood=line, offset=None))


def test_loadings_of_a_location_are_in_the_units_of_x():
    vae = pv.VAE(3, 2, likelihood="Normal", decoder="MLP([])", units="data", seed=0)
    vae.start_from(torch.randn(50, 3) * torch.tensor([1.0, 30.0, 1e4]) + 7)
    means = vae.decode(torch.cat([torch.zeros(1, 2), torch.eye(2)])).mean.detach()
    assert np.allclose(pv.loadings(vae).to_numpy(), (means[1:] - means[0]).T, rtol=1e-3)


def cells(n, genes, seed):
    """Counts of two groups in two batches, and the true log fold changes of their rates."""
    rng = np.random.default_rng(seed)
    group, batch = rng.random(n) < 0.5, rng.random(n) < 0.5
    rate = np.exp(rng.normal(-5, 1, genes))
    change, effect = (
        rng.normal(0, 0.7, genes) * (rng.random(genes) < 0.5),
        rng.normal(0, 0.3, genes),
    )
    mean = rate * np.exp(group[:, None] * change + batch[:, None] * effect)
    mean = mean * rng.lognormal(7, 0.3, n)[:, None]
    return rng.negative_binomial(2.0, 2 / (2 + mean)), group, batch, change / np.log(2)


@pytest.mark.slow
def test_intervals_cover_the_true_fold_changes():
    """The decoder is untrained: what the intervals hold comes from the residuals alone."""
    x, group, batch, truth = cells(300, 400, 0)
    x[:, 0] += 1
    obs = pd.DataFrame({"batch": batch.astype(str)})
    data = pv.Counts(sparse.csr_matrix(x), obs)
    likelihood = "NegativeBinomial(total_count=2)"
    options = {"likelihood": likelihood, "offset": "library", "seed": 0, "encoder": "MLP([8])"}
    vae = pv.VAE(data, latent_dim=2, decoder="MLP([])", condition="~ C(batch)", **options)
    vae.start_from(vae.as_data(data))
    table = pv.differential_expression(vae, data, group, ~group, draws=100, seed=0)
    table, shift = table.sort_index(), np.log2(x[group].sum() / x[~group].sum())
    # Shares are of a total, which differs between the groups by what the genes differ together.
    total = np.median(table.log2_fold_change - truth)
    covered = (table.low < truth + total) & (truth + total < table.high)
    error = np.sqrt(0.95 * 0.05 / len(truth))
    assert abs(covered.mean() - 0.95) < 5 * error, (covered.mean(), shift)
    right = np.abs(truth) > 0.5
    assert np.corrcoef(table.log2_fold_change[right], truth[right])[0, 1] > 0.9


def test_intervals_cover_changes_that_the_decoder_does_not_know():
    """The mean is that of most rows, and a change of 4 has 16 times their overdispersion."""
    rng, genes = np.random.default_rng(0), 400
    group, change = np.arange(200) < 30, rng.choice([-2.0, 0.0, 2.0], genes)
    mean = 20 * 2 ** (group[:, None] * change)
    x = rng.negative_binomial(2.0, 2 / (2 + mean))
    record = pv.Record([pv.Block("x", genes), pv.Block("log", role="offset")])
    line = "NegativeBinomial(total_count=2)"
    vae = pv.VAE(record, 1, likelihood=line, encoder="MLP([])", decoder="MLP([])", seed=0)
    head = vae.likelihood.sources["logits"].head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(np.log(20 / 2))
    data = {"x": torch.tensor(x).float(), "log": torch.zeros(200)}
    table = pv.differential_expression(vae, data, group, ~group, draws=200, seed=0).sort_index()
    covered = ((table.low < change) & (change < table.high)).to_numpy()
    for of in np.unique(change):
        own = covered[change == of]
        assert abs(own.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / len(own)), (of, own.mean())


def test_missing_counts_are_in_no_sum():
    """A group with a hole has the change of that column as the rows without the hole give it."""
    x = torch.tensor(np.random.default_rng(0).poisson(20, (12, 3)), dtype=torch.float32)
    record = pv.Record([pv.Block("x", 3, missing=True), pv.Block("log", role="offset")])
    vae = pv.VAE(record, 1, likelihood="Poisson", decoder="MLP([])", seed=0)
    with torch.no_grad():  # z says nothing: the decoder's mean is the same for all
        for p in vae.decoder.parameters():
            p.zero_()
        vae.likelihood.sources["rate"].head.weight.zero_()
    holed = x.clone()
    holed[:3, 1] = torch.nan
    tables = [
        pv.differential_expression(
            vae, {"x": data, "log": torch.zeros(12)}, a, [*range(6, 12)], draws=4000, seed=0
        ).sort_index()
        for data, a in ((holed, [*range(6)]), (x, [3, 4, 5]))
    ]
    found, expected = (t.loc[1, "log2_fold_change"] for t in tables)
    by_hand = (x[3:6, 1].mean() / x[6:, 1].mean()).log2().item()
    assert found == pytest.approx(by_hand, abs=0.03) == expected
    holed[:6, 1] = torch.nan
    with pytest.raises(ValueError, match="group_a has no count of column 1, which is missing"):
        pv.differential_expression(
            vae, {"x": holed, "log": torch.zeros(12)}, [*range(6)], [*range(6, 12)]
        )


def test_fold_changes_are_of_positive_rates():
    vae = pv.VAE(6, latent_dim=2, likelihood="Normal", seed=0)
    with pytest.raises(ValueError, match="fold changes are of rates greater than 0"):
        pv.differential_expression(vae, torch.randn(4, 6), [0, 1], [2, 3], draws=2, seed=0)


def test_categories_have_no_rates():
    frame = pd.DataFrame({"n": [1, 2, 30, 44, 5] * 4, "word": [*"abcab"] * 4})
    vae = pv.VAE(pv.Table.from_frame(frame, kinds={"n": "count"}), 1, encoder="MLP([3])", seed=0)
    with pytest.raises(ValueError, match="column 'word' has no mean given z, and so no rate"):
        pv.rates(vae, frame, seed=0)


REFUSED = {
    "none": (([], [1]), "group_a has no rows"),
    "shared": (([0, 1], [1, 2]), "both groups have row 1"),
    "outside": (([0], [9]), "group_b has rows 9 to 9, and x has 4"),
    "length": (([True], [1]), "group_a has 1 truth values, and x 4 rows"),
    "words": ((["T"], [1]), "group_a is N truth values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_groups_that_are_none_are_refused(case):
    (a, b), message = REFUSED[case]
    a = np.array(a, int) if a == [] else a
    with pytest.raises(ValueError, match=message):
        pv.differential_expression(model(), torch.ones(4, 6), a, b)


@pytest.mark.slow
def test_batches_of_other_shares_do_not_hide_a_difference():
    """z says nothing, and the decoder has the means of two batches, in which a and b mix 8 to 2."""
    record = pv.Record(
        [pv.Block("x", 2), pv.Block("batch", role="context"), pv.Block("log", role="offset")]
    )
    vae = pv.VAE(record, 1, likelihood="Poisson", decoder="MLP([])", encoder="MLP([])", seed=0)
    batch = torch.arange(100) // 50
    in_a = (torch.arange(100) % 50 < 40) == (batch == 0)
    x = (1000.0 * (1 + in_a) * (1 + batch))[:, None].expand(-1, 2).clone()  # of twice the rate
    x[:, 1] = 1000.0 * (1 + batch)  # and of the same
    means = torch.stack([x[batch == k].mean(0) for k in (0, 1)])
    head = vae.likelihood.sources["rate"].head
    with torch.no_grad():
        head.weight.copy_(torch.stack([torch.zeros(2), means[1] - means[0]], 1))
        head.bias.copy_(means[0])
    data = {"x": x, "batch": batch.float(), "log": torch.zeros(100)}
    found = pv.differential_expression(vae, data, in_a, ~in_a, draws=400, seed=0).sort_index()
    assert found.log2_fold_change.to_numpy() == pytest.approx([1, 0], abs=0.02)
    width = (found.high - found.low).to_numpy()
    by_hand = 2 * 1.96 / np.log(2) * (1 / x[in_a].sum(0) + 1 / x[~in_a].sum(0)).sqrt().numpy()
    assert (width > by_hand).all() and (width < 2 * by_hand).all()
    with torch.no_grad():  # z of a batch takes part of what the batch does, as it does at first
        head.weight[:, 0] = 900
    found = pv.differential_expression(vae, data, in_a, ~in_a, draws=400, seed=0).sort_index()
    assert found.log2_fold_change.to_numpy() == pytest.approx([1, 0], abs=0.02)
    with pytest.warns(UserWarning, match="no condition is in both groups"):
        pv.differential_expression(vae, data, batch == 0, batch == 1, draws=2, seed=0)
