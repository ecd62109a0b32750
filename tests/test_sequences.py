"""Sequences and sets of several lengths: a batch gives the figures of each one alone."""

import math
import warnings

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyro_vae as pv
from pyro_vae.model.joint import Joint
from pyro_vae.model.sequence_forms import lengths_of

LENGTHS = (3, 1, 6, 2, 4)
GENERATOR = torch.Generator().manual_seed(0)
TOKENS = [torch.randint(0, 4, (n,), generator=GENERATOR) for n in LENGTHS]
NUMBERS = [torch.randn(n, 3, generator=GENERATOR, dtype=torch.float64) for n in LENGTHS]
KINDS = {
    "tokens": ((None,), "Categorical(categories=4)", TOKENS),
    "numbers": ((None, 3), "Normal", NUMBERS),
    "vectors": ((None, 3), "MultivariateNormal", NUMBERS),
}
NETWORKS = {
    "GRU": ("GRU(5)", "GRU(5)"),
    "GRU of tokens": ("GRU(5, embedding=3)", "GRU(5, embedding=3, autoregressive=0.5)"),
    "GRU both ways": ("GRU(5, layers=2, bidirectional=True)", "GRU(5, bidirectional=True)"),
    "GRU, step by step": ("GRU(5)", "GRU(5, layers=2, autoregressive=0.5)"),
    "Transformer": ("Transformer(8, heads=2)", "Transformer(8, layers=1, heads=2)"),
    "Transformer, step by step": ("Transformer(8)", "Transformer(8, autoregressive=0)"),
    "DeepSet": ("DeepSet([6, 5])", "DeepSet([5])"),
    "Embedding": ("Embedding(5)", "Embedding(5)"),
}
STEP_BY_STEP = [name for name in NETWORKS if "step" in name]


def model(name="GRU", kind="tokens", **options):
    shape, likelihood, x = KINDS[kind]
    encoder, decoder = NETWORKS[name]
    lines = {"likelihood": likelihood, "encoder": encoder, "decoder": decoder, "seed": 0}
    vae = pv.VAE(shape, 2, **lines | options).double().eval()
    vae.start_from(vae.as_data(x))
    return vae, x


def terms(vae, x, noise):
    """log p(x, z), log q(z|x) and log p(x|z) at z made of the given noise, with their graph."""
    x = vae.as_data(x)
    q = vae.approximate_posterior(x)
    z = q.mean + q.stddev * noise
    joint = Joint(vae, x)
    return torch.stack([joint.log_joint(z), q.log_prob(z), joint.log_likelihood(z)])


def gradients(vae, values):
    vae.zero_grad()
    values.sum().backward()
    return {name: p.grad.clone() for name, p in vae.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_gives_the_figures_and_gradients_of_each_alone(name, kind):
    vae, x = model(name, kind)
    noise = torch.randn(len(x), 2, generator=GENERATOR, dtype=torch.float64)
    together = terms(vae, x, noise)
    alone = torch.cat([terms(vae, [x[i]], noise[i : i + 1]) for i in range(len(x))], 1)
    assert torch.allclose(together, alone, atol=1e-10)
    weights = torch.tensor([1.0, -1.0, 0.0])[:, None]  # log p(x, z) - log q(z|x)
    one, other = gradients(vae, weights * together), gradients(vae, weights * alone)
    assert one.keys() == other.keys() == dict(vae.named_parameters()).keys()
    for key, value in one.items():
        assert torch.allclose(value, other[key], atol=1e-10), key
        assert value.isfinite().all()
        assert value.abs().max() > 0, key


@pytest.mark.parametrize("kind", ["tokens", "numbers"])
def test_how_much_padding_follows_changes_nothing(kind):
    vae, x = model("GRU both ways", kind)
    packed = vae.as_data(x)
    more = packed.new_full((len(x), 4, *packed.shape[2:]), math.nan)
    longer = torch.cat([packed, more], 1)[:, :10]
    noise = torch.zeros(len(x), 2, dtype=torch.float64)
    vae.record.longest = None  # as a batch of another data set would come
    assert torch.allclose(terms(vae, longer, noise), terms(vae, packed, noise), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GRU", "GRU, step by step"])
def test_the_elbo_of_pyro_is_ours(name):
    vae, x = model(name)
    packed = vae.as_data(x)
    told = {"num_particles": 500, "vectorize_particles": True, "max_plate_nesting": 1}
    values = [-Trace_ELBO(**told).loss(vae.model, vae.guide, packed) for _ in range(5)]
    ours = pv.elbo(vae, x, num_samples=5000, seed=0).sum().item()
    spread = np.std(values, ddof=1) * (1 / 5 + 1 / 10) ** 0.5  # ours are 10 such values
    assert abs(np.mean(values) - ours) < 6 * spread
    assert spread < 0.05 * abs(ours)


def test_sequences_of_several_types_keep_their_digits():
    vae, _ = model(kind="numbers")
    x = [torch.ones(2, 3, dtype=torch.half), torch.full((1, 3), 1.0001, dtype=torch.double)]
    assert vae.as_data([x[0], x[1].float()])[1, 0, 0].item() == pytest.approx(1.0001, abs=1e-7)
    assert vae.as_data(x)[1, 0, 0] == 1.0001


@pytest.mark.parametrize("form", ["padded", "masked", "lengths", "objects", "nested", "lists"])
def test_all_forms_of_the_same_sequences_are_the_same_data(form):
    vae, x = model(kind="tokens")
    padded = vae.as_data(x)
    filled = padded.nan_to_num(2)
    gone = padded.isnan().numpy()
    objects = np.empty(len(x), object)
    objects[:] = [row.numpy() for row in x]
    forms = {
        "padded": padded,
        "masked": np.ma.MaskedArray(filled.numpy(), gone),
        "lengths": {"x": filled, "lengths": list(LENGTHS)},
        "objects": objects,
        "nested": torch.nested.nested_tensor([row.double() for row in x], layout=torch.jagged),
        "lists": [row.tolist() for row in x],
    }
    assert torch.equal(vae.as_data(forms[form]).nan_to_num(-1), padded.nan_to_num(-1))


@pytest.mark.parametrize("name", STEP_BY_STEP)
def test_a_step_depends_on_those_before_it_alone(name):
    vae, _ = model(name)
    z = torch.zeros(1, 2, dtype=torch.float64)
    x = torch.tensor([[0, 1, 2, 3, 0, 1.0]], dtype=torch.float64)
    other = torch.tensor([[0, 1, 2, 1, 3, 3.0]], dtype=torch.float64)
    one, two = (vae.decode(z, v).given(v).base_dist.logits[0] for v in (x, other))
    same = (one == two).all(1).tolist()
    assert same == [True] * 4 + [False] * 2  # step 3 differs, and is read after it


@pytest.mark.parametrize("name", STEP_BY_STEP)
def test_draws_step_by_step_follow_the_density(name):
    """All 16 sequences of two tokens, their probabilities exact; they sum to 1."""
    vae, _ = model(name)
    z = torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    exact = vae.decode(z.expand(16, 2), grid).log_prob(grid).exp().detach()
    assert exact.sum().item() == pytest.approx(1, abs=1e-9)
    n = 4000
    torch.manual_seed(0)
    drawn = vae.decode(z.expand(n, 2), grid[:1].expand(n, 2)).sample()
    counts = torch.bincount((drawn[:, 0] * 4 + drawn[:, 1]).long(), minlength=16)
    score = (counts / n - exact) / (exact * (1 - exact) / n).sqrt()
    assert score.abs().max() < 4.5
    assert exact.max() / exact.min() > 1.5  # they are told apart


def test_words_are_hidden_in_training_at_their_share():
    torch.manual_seed(0)
    vae, _ = model("GRU, step by step")
    h = torch.zeros(300, 20, 2 + vae.inputs.shown, dtype=torch.float64)
    x = torch.zeros(300, 20, dtype=torch.float64)
    shown = vae.inputs._before(x, h, True)[..., -1]
    assert (shown[:, 0] == 0).all()
    n = shown[:, 1:].numel()
    assert abs(shown[:, 1:].mean().item() - 0.5) < 5 * 0.5 / n**0.5
    assert (vae.inputs._before(x, h, False)[:, 1:, -1] == 1).all()


def test_lengths_of_draws_are_those_of_the_training_data():
    vae, x = model("GRU")
    drawn = vae.sample(2000, seed=0)
    counts = torch.bincount(torch.tensor([len(row) for row in drawn]), minlength=7)
    assert counts[[0, 5]].sum() == 0
    share = counts[list(LENGTHS)] / 2000
    assert ((share - 0.2).abs() < 5 * (0.16 / 2000) ** 0.5).all()
    assert all(row.isfinite().all() for row in drawn)
    given = vae.sample(2, given=x, seed=0)
    assert lengths_of(given[0]).tolist() == list(LENGTHS)
    record = pv.Sequences(beside=[pv.Block("w", (), "weight")])
    weighted = pv.VAE(record, 2, **dict(zip(("encoder", "decoder"), NETWORKS["GRU"], strict=True)))
    weighted.start_from(weighted.as_data({"x": TOKENS, "w": [2.0, 1, 0.5, 1, 0.5]}))
    assert weighted.inputs.lengths.tolist() == [0, 1, 1, 2, 0.5, 0, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_trained_saved_loaded_resumed(name, tmp_path):
    shape, likelihood, x = KINDS["tokens"]
    encoder, decoder = NETWORKS[name]
    lines = {"likelihood": likelihood, "encoder": encoder, "decoder": decoder, "seed": 0}
    told = {"batch_size": 3, "progress": False, "seed": 0}
    whole = pv.VAE(shape, 2, **lines)
    pv.fit(whole, x, epochs=2, out=tmp_path / "whole", **told)
    half = pv.VAE(shape, 2, **lines)
    pv.fit(half, x, epochs=1, out=tmp_path / "half", **told)
    again = pv.VAE(shape, 2, **lines)
    pv.fit(again, x, epochs=2, resume=tmp_path / "half", **told)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    loaded = pv.load(tmp_path / "whole")
    assert torch.equal(pv.elbo(loaded, x, seed=0), pv.elbo(whole, x, seed=0))
    assert loaded.record.longest == 6
    assert [len(row) for row in loaded.reconstruct(x)] == list(LENGTHS)
    assert loaded.encode(x).batch_shape == (5,)


def test_a_missing_step_within_a_sequence_is_imputed():
    shape, likelihood, x = KINDS["numbers"]
    vae = pv.VAE(
        shape, 2, likelihood=likelihood, encoder="GRU(5)", decoder="GRU(5)", missing=True, seed=0
    )
    holes = [row.clone() for row in x]
    holes[2][1] = math.nan
    holes[0][0, 0] = math.nan
    vae.start_from(vae.as_data(holes))
    filled = vae.impute(holes, num_samples=200, seed=0)
    for row, before in zip(filled, holes, strict=True):
        assert row.shape == before.shape
        assert row.isfinite().all()
        there = ~before.isnan()
        assert torch.allclose(row[there], before[there].float())


@pytest.mark.slow
def test_arrays_of_one_length_are_decoded_step_by_step():
    x = torch.randn(20, 5, 3, generator=GENERATOR)
    vae = pv.VAE((5, 3), 2, likelihood="Normal", encoder="GRU(4)",
                 decoder="GRU(4, autoregressive=0.2)", seed=0)  # fmt: skip
    pv.fit(vae, x, epochs=1, batch_size=10, progress=False, seed=0)
    assert vae.sample(3, seed=0).shape == (3, 5, 3)
    assert vae.reconstruct(x).isfinite().all()
    steps = pv.VAE((5, 3), 2, likelihood="Normal", encoder="DeepSet", decoder="Transformer(8)")
    assert pv.elbo(steps, x, seed=0).isfinite().all()


BAD = {
    "an empty sequence": ([[1, 2], []], "row 1 is an empty sequence"),
    "out of range": (
        [[1, 2], [0, 7]],
        r"x holds 7; .*from 0 to 3.*row 1, step 1",
    ),
    "too long": ([[1] * 3, [1] * 9], "row 1 has 9 steps, and this model reads at most 6"),
    "channels": ([[1, 2], [[0, 1]]], r"row 1 has shape \(1, 2\), expected \(steps\)"),
    "text": (["hello"], "row 0 is text, 'hello'"),
    "nan": ([[1, math.nan, 2]], r"NaN within a sequence.*row 0, step 1"),
    "nan at the end": ([[1, 2], [1, math.nan]], "row 1 ends with a step of NaN"),
    "lengths": ({"x": [[1, 2]], "lengths": [3]}, "lengths are 1 whole numbers from 1 to 2, got 3"),
    "lengths up to padding": (
        {"x": torch.tensor([[1, 2, 1], [1, 2, math.nan]]), "lengths": [3, 3]},
        "lengths: row 1 ends, after 3 steps, with a step of NaN, which is padding here: leave that",
    ),
    "a number": ([1, 2], "row 0 is a number, 1, and no sequence: one alone is \\[x\\]"),
    "names": ({"y": [[1, 2]]}, "'x' and 'lengths', got y"),
    "nothing": ([], "x is empty"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_sequences_are_refused_with_their_place(what):
    vae, _ = model()
    x, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        vae.check(x)


REFUSED = {
    "an MLP": ({"encoder": "MLP([3])"}, "the encoder is MLP: encoder='GRU"),
    "autoregressive encoder": ({"encoder": "GRU(3, autoregressive=0.5)"}, "is of a decoder"),
    "both ways": (
        {"decoder": "GRU(3, bidirectional=True, autoregressive=0)"},
        "steps before alone",
    ),
    "a share": ({"decoder": "GRU(3, autoregressive=2)"}, "share of hidden steps"),
    "VampPrior": ({"prior": "VampPrior(components=3)"}, "choose another prior"),
    "masking": ({"missing": "SelfMasking"}, "True or False"),
    "holes": ({"missing": True, "decoder": "GRU(3, autoregressive=0)"}, "independent cells"),
    "heads": ({"encoder": "Transformer(6, heads=4)"}, "heads divides it"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_models_that_cannot_be_are_refused(what):
    options, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        model(**options)


@pytest.mark.parametrize("x_shape", [(None, 2), pv.Sequences(2)], ids=["None", "Sequences"])
def test_m2_of_sequences_is_refused_and_what_it_advises_works(x_shape):
    with pytest.raises(ValueError, match=r"M2\(\(16, 12\), 50, .*VAE\(\(None, 12\), 50, condition"):
        pv.M2(x_shape, 3, classes=3)
    networks = {"likelihood": "Bernoulli", "encoder": "GRU(4)", "decoder": "GRU(4)", "seed": 0}
    vae = pv.M2((5, 2), 3, classes=3, **networks)
    x = torch.zeros(4, 5, 2)
    assert vae.classify(vae.labelled(x, [0, 1, 2, -1])).probs.shape == (4, 3)
    vae = pv.VAE((None, 2), 3, condition=3, **networks)
    assert pv.elbo(vae, {"x": [*x], "condition": torch.eye(4, 3)}, seed=0).shape == (4,)


def test_numbers_are_read_near_unit_scale_whatever_is_padding():
    x = [1000 + 50 * row for row in NUMBERS]
    vae = pv.VAE((None, 3), 2, likelihood="Normal", units="data", encoder="GRU(4)",
                 decoder="GRU(4)", seed=0).double()  # fmt: skip
    vae.start_from(vae.as_data(x))
    read = vae.inputs(vae.as_data(x))
    assert read[~read.isnan()].abs().max() < 6
    assert lengths_of(read).tolist() == list(LENGTHS)


def test_many_tokens_are_one_hot_however_long_the_sequences():
    vae = pv.VAE(pv.Sequences(longest=400), 2, likelihood="Categorical(categories=100)",
                 encoder="Embedding(4)", decoder="Embedding(4)", seed=0)  # fmt: skip
    assert vae.inputs(vae.as_data([[7, 99]])).shape == (1, 2, 100)


def test_sequences_have_no_code_yet():
    vae, x = model()
    with pytest.raises(ValueError, match="no code yet"):
        pv.compress(vae, x)


def test_the_longest_may_be_said():
    vae = pv.VAE(pv.Sequences(3, longest=8), 2, likelihood="Normal", encoder="GRU(4)",
                 decoder="GRU(4)", seed=0)  # fmt: skip
    pv.fit(vae, NUMBERS, epochs=1, progress=False)
    assert vae.x_shape == (8, 3)
    vae.check([torch.zeros(8, 3)])
    with pytest.raises(ValueError, match="None is the first"):
        pv.VAE((3, None), 2)


def test_drawn_tokens_have_the_type_of_the_model():
    vae, x = model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of k-hat
        found = pv.log_evidence(vae, x, num_samples=5, num_simulated=2, seed=0)
    assert found.log_evidence.dtype == torch.float64 and found.simulated is not None


@torch.no_grad()
def test_checks_of_shorter_sequences_than_any_of_training_are_of_their_steps():
    options = {"likelihood": "Bernoulli", "encoder": "GRU(2)", "decoder": "GRU(2)", "seed": 0}
    vae = pv.VAE((None, 2), 1, missing=True, **options)
    vae.record.settle(4)
    x = [torch.zeros(n, 2) for n in [1, 2] * 50]
    found = pv.predictive_check(vae, x, num_samples=100)
    assert list(found.columns.index) == ["x[0]", "x[1]", "x[2]", "x[3]"]
    cells = pv.imputation_check(vae, x, draws=19, num_samples=20).cells  # the last step stays
    assert set(cells.column) == {"x[0]", "x[1]"} and set(cells.row % 2) == {1}
    assert cells.imputed.notna().all()
