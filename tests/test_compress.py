"""Bits back: data return bit for bit, and the words cost the negative ELBO and nothing more."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.evaluate.compression import coding
from pyro_vae.evaluate.compression import compress as compression
from pyro_vae.infer.elbo_terms import draw_terms

pytest.importorskip("constriction")

BITS = {"likelihood": "Bernoulli", "prior": "Bernoulli", "guide": "Bernoulli"}
MODELS = {
    "normal": {},
    "learned prior": {"prior": "Normal(loc=learned(0.3), scale=learned(2))"},
    "lognormal, poisson": {"prior": "LogNormal", "guide": "LogNormal", "likelihood": "Poisson"},
    "normal under laplace": {"prior": "Laplace", "guide": "Normal"},
    "bits": {**BITS, "prior": "Bernoulli(logits=1.5)"},
    "one-hot": {"prior": "OneHotCategorical", "guide": "OneHotCategorical", "latent_dim": (4, 3)},
    "categories": {"prior": "Categorical(categories=4)", "guide": "Categorical(categories=4)"},
    "binomial": {"likelihood": "Binomial(total_count=5)"},
    "categorical x": {"likelihood": "Categorical(categories=3)"},
    "one-hot x": {"likelihood": "OneHotCategorical", "x_shape": (5, 3)},
    "negative binomial": {"likelihood": "NegativeBinomial(total_count=learned)"},
    "zero-inflated": {"likelihood": "ZeroInflatedPoisson"},
    "convolutions": {"x_shape": (1, 8, 8), "encoder": pv.ConvEncoder([4]),
                     "decoder": pv.ConvDecoder([4])},
}  # fmt: skip


def model(x_shape=(6,), latent_dim=4, dtype=torch.float32, **parts):
    sides = {"encoder": pv.MLP([16]), "decoder": pv.MLP([16])}
    return pv.VAE(x_shape, latent_dim, **{**sides, **parts}, seed=0).to(dtype)


@pytest.fixture(scope="module")
def digits():
    data = pv.load_data("digits")
    torch.manual_seed(0)
    return torch.bernoulli(data.train), torch.bernoulli(data.test)


@pytest.fixture(scope="module", params=["Normal", "Bernoulli"])
def trained(request, digits):
    """A model of the digits' bits, and bits that it has not seen."""
    parts = {} if request.param == "Normal" else {
        **BITS, "prior": "Bernoulli(logits=learned(1))", "latent_dim": 16,
    }  # fmt: skip
    vae = model((1, 8, 8), **parts)
    estimator = "Trace_ELBO" if request.param == "Normal" else "DisARM"
    pv.fit(vae, digits[0], estimator=estimator, epochs=8, lr=5e-3, seed=0)
    return vae, digits[1]


def bits_of_elbo(vae, x, num_samples=200):
    """The negative ELBO, bits per observation; the standard error of a rate of one draw each."""
    with pyro.get_param_store().scope():
        fit, kl = draw_terms(vae.model, vae.guide, x, num_samples)
    bits = (kl - fit).double() / math.log(2)
    return bits.mean().item(), (bits.var(0).sum().sqrt() / len(x)).item()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_data_return_bit_for_bit_at_the_negative_elbo(name):
    vae = model(**MODELS[name])
    x = vae.as_data(vae.sample(400, seed=1))
    coded = pv.compress(vae, x, seed=2)
    returned = pv.decompress(vae, coded)
    assert returned.dtype == x.dtype
    assert torch.equal(returned, x)
    expected, error = bits_of_elbo(vae, x)
    assert error > 0
    # the last bit is whole
    assert abs(coded.net_bits_per_observation - expected) < 5 * error + 1 / len(x)
    assert coded.bits_per_observation > coded.net_bits_per_observation


@pytest.mark.slow
def test_a_trained_model_reaches_the_elbo_on_data_it_has_not_seen(trained):
    vae, x = trained
    coded = pv.compress(vae, x)
    assert torch.equal(pv.decompress(vae, coded), x)
    expected, error = bits_of_elbo(vae, x)
    assert expected < 0.75 * x[0].numel()  # it has learned something
    assert abs(coded.net_bits_per_observation - expected) < 5 * error + 1 / len(x)
    assert coded.net_bits_per_observation == pytest.approx(expected, rel=0.05)
    assert coded.bits_per_observation == pytest.approx(expected, rel=0.05)  # the start included
    assert coded.bits_per_dimension == coded.bits_per_observation / 64
    assert len(bytes(coded)) < x.numel() / 8


@pytest.mark.slow
def test_words_are_as_long_as_the_information_in_what_is_pushed_and_popped(trained, monkeypatch):
    """So the coder itself costs nothing; what it costs beyond the ELBO is the draw of z."""
    total = 0.0

    def information(symbols, table):
        table = table / table.sum(1, keepdims=True)
        return -np.log2(np.take_along_axis(table, symbols[:, None], 1)).sum()

    class Counted(coding.EntropyCoder):
        def push(self, symbols, table):
            nonlocal total
            total += information(symbols, table)
            super().push(symbols, table)

        def pop(self, table):
            nonlocal total
            symbols = super().pop(table)
            total -= information(symbols, table)
            return symbols

    monkeypatch.setattr(compression, "EntropyCoder", Counted)
    vae, x = trained
    coded = pv.compress(vae, x)
    actual = coded.net_bits_per_observation * len(x)
    assert abs(actual - total) < 2  # of some 7,000: a whole last bit, probabilities of 24 bits


def test_a_double_model_and_one_observation():
    vae = model(dtype=torch.float64)
    x = vae.sample(1, seed=0)
    coded = pv.compress(vae, x)
    assert torch.equal(pv.decompress(vae, coded), x)
    assert coded.num_data == 1


def test_large_counts_come_back():
    vae = model(likelihood="Poisson")
    x = torch.tensor([[0.0, 1.0, 2.0, 3.0, 500.0, 65000.0]])
    coded = pv.compress(vae, x)
    assert coded.largest == 65000
    assert torch.equal(pv.decompress(vae, coded), x)
    zeros = torch.zeros(2, 6)
    assert torch.equal(pv.decompress(vae, pv.compress(vae, zeros)), zeros)


def test_batch_statistics_and_dropout_are_out_of_the_way():
    noisy = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU())
    vae = model(encoder=noisy).train()
    x = vae.sample(40, seed=0)
    assert torch.equal(pv.decompress(vae, pv.compress(vae, x)), x)
    assert vae.training


@pytest.mark.slow
def test_memory_of_another_layout_is_the_same_data():
    vae = model()
    x = vae.sample(100, seed=0)
    spread = torch.stack([x, 1 - x], 2)[..., 0]
    assert not spread.is_contiguous()
    for same in (spread, x.t().contiguous().t(), x.numpy().astype(np.uint8)):
        coded = pv.compress(vae, same)
        assert np.array_equal(coded.words, pv.compress(vae, x).words)
        assert torch.equal(pv.decompress(vae, coded), x)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_words():
    vae = model()
    x = vae.sample(50, seed=0)
    first, again, other = (pv.compress(vae, x, seed=s).words for s in (0, 0, 2**64 - 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_bytes_are_read_again():
    vae = model(likelihood="Poisson")
    x = vae.sample(20, seed=0)
    coded = pv.compress(vae, x, seed=7, latent_bits=10)
    again = pv.Compressed.from_bytes(bytes(coded))
    assert {**vars(again), "words": 0} == {**vars(coded), "words": 0}
    assert torch.equal(pv.decompress(vae, again), x)
    assert len(bytes(coded)) == 4 * len(coded.words) + compression.HEADER.size
    for bad in (b"", b"PK" + bytes(coded)[2:], bytes(coded)[:-1], bytes(coded)[:20]):
        with pytest.raises(ValueError, match=r"expected bytes\(compressed\)"):
            pv.Compressed.from_bytes(bad)


def damage(coded, place):
    words = coded.words.copy()
    words[place] ^= 1
    return replace(coded, words=words)


def nudge(vae, name):
    with torch.no_grad():
        for p in getattr(vae, name).parameters():
            p.mul_(1.0001)
    return vae


WRONG = {
    "first bit flipped": lambda vae, coded: (vae, damage(coded, 0)),
    "a bit flipped": lambda vae, coded: (vae, damage(coded, len(coded.words) // 2)),
    "another seed": lambda vae, coded: (vae, replace(coded, seed=1)),
    "a word lost": lambda vae, coded: (vae, replace(coded, words=coded.words[1:])),
    "another model": lambda vae, coded: (model(decoder=pv.MLP([8])), coded),
    "another guide": lambda vae, coded: (nudge(vae, "encoder"), coded),
    "another decoder": lambda vae, coded: (nudge(vae, "decoder"), coded),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_decode_is_refused_not_returned(name):
    vae = model()
    coded = pv.compress(vae, vae.sample(100, seed=0))
    with pytest.raises(ValueError, match="the words do not decode"):
        pv.decompress(*WRONG[name](vae, coded))


@pytest.mark.slow
def test_another_order_of_chunks_does_not_decode(monkeypatch):
    vae = model()
    coded = pv.compress(vae, vae.sample(100, seed=0))
    chunks = coding.Code.chunks
    monkeypatch.setattr(coding.Code, "chunks", lambda self, n: reversed(list(chunks(self, n))))
    with pytest.raises(ValueError, match="the words do not decode"):
        pv.decompress(vae, coded)


@torch.no_grad()
def test_chunks_cover_all_rows_once_and_start_small():
    code = coding.Code(model(), 12, 1)
    sizes = [len(range(*rows.indices(1000))) for rows in code.chunks(1000)]
    assert sum(sizes) == 1000
    assert sizes[:9] == [1] * 9
    assert max(sizes) <= 64
    assert [r.start for r in code.chunks(1000)] == [0, *np.cumsum(sizes)[:-1]]


@pytest.mark.slow
def test_the_command_line_gives_the_file_back(tmp_path, monkeypatch, capsys):
    vae = model()
    vae.save(tmp_path / "run")
    x = vae.sample(40, seed=0).numpy()
    np.save(tmp_path / "x.npy", x)
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["pyro-vae", *args])
        with pytest.raises(SystemExit) as done:
            main()
        return done.value.code, capsys.readouterr()

    code, shown = call("compress", "run", "x.npy")
    assert code == 0
    assert f"x.pvc, {Path('x.pvc').stat().st_size} bytes" in shown.out
    code, shown = call("decompress", "run", "x.pvc", "--out", "back.npy")
    assert code == 0
    assert shown.out == "40 observations of shape (6,): back.npy\n"
    assert np.array_equal(np.load("back.npy"), x)
    Path("x.pvc").write_bytes(b"other")
    code, shown = call("decompress", "run", "x.pvc", "--force")
    assert code == 2
    assert "error: expected bytes(compressed)" in shown.err


REFUSED = {
    "continuous x": ({"likelihood": "Normal"}, "Normal is not made of independent discrete"),
    "joint guide": ({"guide": "MultivariateNormal"}, "z of the guide MultivariateNormal under"),
    "no icdf": (
        {"prior": "StudentT(df=4)", "guide": "Normal"},
        "under the prior StudentT has no code",
    ),
    "mixture": ({"prior": "VampPrior(components=3)"}, "has no code here"),
    "counts in z": ({"prior": "Poisson", "guide": "Poisson"}, "has no code here"),
    "joint bits": ({**BITS, "prior": "AutoregressiveBernoulli([8])"}, "has no code here"),
    "missing": ({"missing": True}, "no code for missing cells"),
    "dequantized": ({"likelihood": "Dequantized(Normal, levels=4)"}, "estimates, other ones at"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_it_cannot_code_are_refused(name):
    parts, message = REFUSED[name]
    x = torch.ones(3, 6)
    if "missing" in parts:
        x[0, 0] = math.nan
    with pytest.raises(ValueError, match=message):
        pv.compress(model(**parts), x)


def test_arguments_are_checked(monkeypatch):
    vae = model()
    x = torch.ones(3, 6)
    for bits in (0, 17, 1.5):
        with pytest.raises(ValueError, match="latent_bits is a whole number from 1 to 16"):
            pv.compress(vae, x, latent_bits=bits)
    with pytest.raises(ValueError, match="seed is a whole number from 0"):
        pv.compress(vae, x, seed=-1)
    with pytest.raises(ValueError, match=r"x holds 0\.5"):
        pv.compress(vae, x / 2)
    with pytest.raises(ValueError, match="Poisson is coded up to 65535"):
        pv.compress(model(likelihood="Poisson"), 65536 * x)
    with pytest.raises(ValueError, match="data with 6 cells"):
        pv.decompress(model((7,)), pv.compress(vae, x))
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ValueError, match=r"pip install 'pyro-vae\[compress\]'"):
        pv.compress(vae, x)


@pytest.mark.slow
def test_rate_and_distortion_are_the_terms_of_the_elbo():
    vae = model()
    x = vae.sample(200, seed=0)
    table = pv.rate_distortion(vae, x, num_samples=100, seed=0)
    assert table.index.name == "observation"
    elbo = pv.elbo(vae, x, num_samples=100, seed=0).numpy()
    np.testing.assert_allclose(table.rate + table.distortion, -elbo, rtol=1e-5)
    np.testing.assert_allclose(table.bits_per_dimension, -elbo / math.log(2) / 6, rtol=1e-5)
    with torch.no_grad():
        exact = kl_divergence(vae.encode(x), vae.prior()).numpy()
    difference = table.rate - exact
    assert difference.abs().max() > 0
    assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(200)
    with pytest.raises(ValueError, match="num_samples is a whole number of at least 1"):
        pv.rate_distortion(vae, x, num_samples=0)


def test_bits_per_dimension_are_of_the_cells_that_are_there():
    bit = [torch.zeros(n, 3) for n in (1, 4)]
    found = pv.rate_distortion(pv.VAE((None, 3), 2, likelihood="Bernoulli", seed=0), bit, seed=0)
    nats = found.rate + found.distortion
    np.testing.assert_allclose(found.bits_per_dimension, nats / math.log(2) / [3, 12], rtol=1e-5)
    x = torch.tensor([[1.0, 0, math.nan, math.nan], [1, 0, 1, math.nan]])
    found = pv.rate_distortion(pv.VAE(4, 2, likelihood="Bernoulli", missing=True, seed=0), x)
    nats = found.rate + found.distortion
    np.testing.assert_allclose(found.bits_per_dimension, nats / math.log(2) / [2, 3], rtol=1e-5)
