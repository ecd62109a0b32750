"""Documents: topics as products and as mixtures, coherence, uniqueness, perplexity."""

import math

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from pyro_vae.evaluate.counts.topics import npmi, uniqueness

LDA = {"prior": "Dirichlet(0.1)", "guide": "Dirichlet"}


def documents(n=60, words=12):
    return torch.tensor(np.random.default_rng(0).poisson(1.0, (n, words)) + np.eye(n, words))


def model(**options):
    options = {"likelihood": "Multinomial", "decoder": "Topics", "encoder": "MLP([8])", **options}
    return pv.VAE(12, latent_dim=3, seed=0, **options).eval()


def test_a_mixture_of_topics_has_the_likelihood_of_lda():
    """Each word is drawn from a topic, which is drawn from the shares: summed out by hand."""
    vae, x = (
        model(decoder="Topics(mixture=True)", prior="Dirichlet(0.1)", guide="Dirichlet"),
        documents(),
    )
    vae.start_from(x)
    shares = dist.Dirichlet(torch.ones(3)).sample((60,))
    p = vae.decode(shares, vae.as_data(x))
    words = vae.decoder.topics().softmax(1).double()
    by_hand = torch.zeros(60, dtype=torch.float64)
    for d in range(60):
        for v in range(12):
            each = sum(float(shares[d, k]) * words[k, v] for k in range(3))
            by_hand[d] += x[d, v] * each.log() - math.lgamma(float(x[d, v]) + 1)
        by_hand[d] += math.lgamma(float(x[d].sum()) + 1)
    assert torch.allclose(p.log_prob(x.float()).double(), by_hand, atol=1e-3)


def test_a_product_of_topics_is_the_softmax_of_their_mean():
    vae, x = model(), documents()
    z = torch.randn(60, 3)
    probs = vae.decode(z, vae.as_data(x)).probs
    by_hand = ((z.softmax(1) @ vae.decoder.weight) / math.sqrt(1 + 1e-5)).softmax(1)
    assert torch.allclose(probs, by_hand, atol=1e-6)


def test_a_product_without_normalization_is_a_softmax_that_a_document_alone_has():
    vae, x = model(decoder="Topics(normalize=False, dropout=0.0)"), documents()
    vae.start_from(x)
    z = torch.randn(60, 3)
    with torch.no_grad():
        by_hand = (z.softmax(1) @ vae.decoder.weight + vae.decoder.background).softmax(1)
    for mode in (True, False):
        assert torch.allclose(vae.train(mode).decode(z, vae.as_data(x)).probs, by_hand, atol=1e-6)
    assert torch.equal(vae.decoder.topics(), vae.decoder.weight + vae.decoder.background)


def test_a_smoothed_background_is_mixed_with_equal_words_and_stays(tmp_path):
    vae, x = model(decoder="Topics(normalize=False, smoothing=0.3)"), documents()
    pv.fit(vae, x, epochs=1, optimizer="Adam(weight_decay=0.1)", progress=False)
    shares = x.sum(0) + 0.5
    by_hand = 0.7 * shares / shares.sum() + 0.3 / 12
    assert torch.allclose(vae.decoder.background.exp().double(), by_hand, atol=1e-6)
    assert {name for name, _ in vae.decoder.named_parameters()} == {"weight"}
    again = pv.load(vae.save(tmp_path))
    assert torch.equal(again.decoder.background, vae.decoder.background)
    for wrong in ("smoothing=1.5", "smoothing=0.3, mixture=True"):
        with pytest.raises(ValueError, match=r"share in \(0, 1\], of a product"):
            model(decoder=f"Topics({wrong})")


def test_its_normalization_has_no_scale_and_its_background_starts_at_the_words():
    vae, x = model(), documents()
    vae.start_from(x)
    with torch.no_grad():
        vae.decoder.weight.zero_()
    probs = vae.decode(torch.zeros(1, 3), vae.as_data(x[:1])).probs[0]
    shares = x.sum(0) + 0.5  # counts: of many rare words a half of a document each would be most
    assert torch.allclose(probs, (shares / shares.sum()).float(), atol=1e-5)
    names = dict(vae.decoder.named_parameters())
    assert set(names) == {"weight", "background"}
    vae.decoder.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    logits = vae.train().decoder(torch.randn(500, 3))
    assert torch.allclose(logits.std(0), torch.ones(12), atol=0.05)


def test_a_condition_adds_to_the_logits():
    obs = {"journal": [0.0, 1.0] * 30}
    data = pv.Counts(documents().numpy(), pd.DataFrame(obs))
    options = {"likelihood": "Multinomial", "decoder": "Topics", "encoder": "MLP([8])"}
    vae = pv.VAE(data, latent_dim=3, condition="~ C(journal)", seed=0, **options)
    pv.fit(vae, data, epochs=1, progress=False)
    assert vae.decoder.weight.shape == (3, 12) and vae.decoder.beside.weight.shape == (12, 1)


@pytest.mark.parametrize("mixture", [False, True])
def test_topics_are_those_of_the_mean_condition_of_documents(mixture):
    """The condition of two documents in three lifts the last word above all others."""
    data = pv.Counts(documents().numpy(), pd.DataFrame({"journal": [*"abb"] * 20}))
    options = {"decoder": f"Topics(mixture={mixture})", "encoder": "MLP([8])", "seed": 0}
    vae = pv.VAE(data, 3, likelihood="Multinomial", condition="~ C(journal)", **options).eval()
    with torch.no_grad():
        vae.decoder.beside.weight[:, 0] = torch.tensor([0.0] * 11 + [30.0])
        condition = torch.full((3, 1), 2 / 3)
        one_topic = vae.decoder(torch.cat([200 * torch.eye(3), condition], 1)).log_softmax(1)
    found = vae.decoder.relevance(1.0, condition[0])
    assert torch.allclose(found, one_topic, atol=1e-4)
    best = [" ".join(map(str, row)) for row in one_topic.topk(2).indices.tolist()]
    assert pv.topics(vae, None, data, top=2)["words"].tolist() == best
    assert all(words.startswith("11 ") for words in best)
    bars = pv.plots.topics(vae, None, data, top=2).get_yticklabels()
    assert bars[0].get_text() == "11"


def test_prodlda_trains_and_is_loaded_again(tmp_path):
    x, encoder = documents(), "Normalized(MLP([8], activation='Softplus'))"
    vae = model(encoder=encoder)
    fitted = pv.fit(vae, x, epochs=3, optimizer="Adam(betas=[0.99, 0.999])", progress=False)
    assert fitted.history.elbo_train.iloc[-1] > fitted.history.elbo_train.iloc[0]
    again = pv.load(vae.save(tmp_path))
    assert torch.equal(again.eval().encode(x).mean, vae.eval().encode(x).mean)
    assert pv.topics(again)["words"].tolist() == pv.topics(vae)["words"].tolist()


def test_npmi_by_hand():
    x = [[1, 2, 0, 0], [3, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 2]]
    # p(0) = 1/2, p(1) = 3/4, p(3) = 3/4, p(0, 1) = 1/2, p(0, 3) = 1/4, p(1, 3) = 1/2
    zero_one = math.log(0.5 / (0.5 * 0.75)) / -math.log(0.5)
    zero_three = math.log(0.25 / (0.5 * 0.75)) / -math.log(0.25)
    one_three = math.log(0.5 / (0.75 * 0.75)) / -math.log(0.5)
    found = npmi([[0, 1, 3], [3, 0, 1], [0, 1, 2]], x)
    mean = (zero_one + zero_three + one_three) / 3
    assert np.allclose(found, [mean, mean, (zero_one - 2) / 3])


def test_uniqueness_by_hand():
    assert np.allclose(uniqueness([[0, 1], [0, 2], [0, 1]]), [(1 / 3 + 1 / 2) / 2, 2 / 3, 5 / 12])


def test_the_perplexity_of_a_known_model_is_exact():
    """Words are independent of z, and the guide is the prior: the bound is log p."""
    vae, x = model(prior="Normal"), documents()
    probs = torch.tensor(np.random.default_rng(1).dirichlet(np.ones(12)))
    with torch.no_grad():
        vae.decoder.weight.zero_()
        vae.decoder.background.copy_(probs.log())
        for source in vae.approximation.sources.values():
            source.head.weight.zero_()
            source.head.bias.zero_()
        scale = vae.approximation.sources["scale"]
        scale.head.bias.copy_(scale.transform.inv(torch.ones(3)))
    found = pv.perplexity(vae, x, num_samples=5, seed=0)
    rate = (x * probs.log()).sum() / x.sum()
    assert found["perplexity"] == pytest.approx(math.exp(-rate), rel=1e-5)
    assert found["words"] == x.sum()
    by_document = (x * probs.log()).sum(1) - rate * x.sum(1)
    error = by_document.std() * 60**0.5 / x.sum() * math.exp(-rate)
    assert found["standard_error"] == pytest.approx(float(error), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("proposal", ["guide", "auto"])
def test_the_perplexity_is_that_of_the_evidence(proposal, short_pilot):
    """Two topics of two words, whose shares are summed out by quadrature; the guide is wide."""
    options = {"decoder": "Topics(mixture=True)", "prior": "Dirichlet(0.5)", "guide": "Dirichlet"}
    vae = pv.VAE(2, latent_dim=2, likelihood="Multinomial", encoder="MLP([4])", seed=0, **options)
    x = torch.tensor([[7.0, 1.0], [2.0, 2.0], [0.0, 9.0]])
    with torch.no_grad():
        vae.decoder.weight.copy_(torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log())
    share = (torch.arange(200_000) + 0.5).double() / 200_000
    u = (share * math.pi / 2).sin() ** 2  # whose density is that of Dirichlet(0.5, 0.5)
    first = 0.9 * u + 0.2 * (1 - u)
    each = x.double()[:, :1] * first.log() + x.double()[:, 1:] * (1 - first).log()
    exact = math.exp(-float((each.logsumexp(1) - math.log(len(u))).sum() / x.sum()))
    told = {"num_samples": 20_000, "proposal": proposal, "seed": 0}
    found = pv.perplexity(vae, x, **told)["perplexity"]
    errors = pv.log_evidence(vae, x, **told).standard_error
    error = exact * errors.square().sum().sqrt() / x.sum()
    assert abs(found - exact) < 4 * error < 0.02 * exact


@pytest.mark.slow
def test_shares_that_round_to_zero_leave_the_perplexity_finite():
    """All topics are alike, and the guide is the prior, many of whose draws are of one topic."""
    options = {"decoder": "Topics(mixture=True)", "prior": "Dirichlet(0.1)", "guide": "Dirichlet"}
    vae = pv.VAE(12, 20, likelihood="Multinomial", encoder="MLP([4])", seed=0, **options)
    with torch.no_grad():
        vae.decoder.weight.zero_()
        (source,) = vae.approximation.sources.values()
        source.head.weight.zero_()
        source.head.bias.copy_(source.transform.inv(torch.full((20,), 0.1)))
    found = pv.perplexity(vae, documents(3), num_samples=1000, proposal="auto", seed=0)
    assert found["perplexity"] == pytest.approx(12, rel=5e-3)


def test_topics_are_told_by_their_words():
    vae = model()
    with torch.no_grad():
        vae.decoder.weight.copy_(torch.eye(3, 12) * 3 + torch.eye(3, 12).roll(3, 1) * 2)
    words = [f"w{i}" for i in range(12)]
    table = pv.topics(vae, words, documents(), top=2)
    assert table["words"].tolist() == ["w0 w3", "w1 w4", "w2 w5"]
    assert (table.uniqueness == 1).all() and table["share"].sum() == pytest.approx(1, abs=1e-5)
    with torch.no_grad():  # the last word is common to all, and lifts none
        vae.decoder.background[11] = 4.0
    for relevance, first in ((1.0, "w11 w0"), (0.6, "w0 w11"), (0.2, "w0 w3")):
        assert pv.topics(vae, words, top=2, relevance=relevance)["words"][0] == first
    mixed = model(decoder="Topics(mixture=True)", prior="Dirichlet(0.1)", guide="Dirichlet")
    with torch.no_grad():
        mixed.decoder.weight.copy_(vae.decoder.weight + vae.decoder.background)
    assert pv.topics(mixed, words, top=2)["words"][0] == "w11 w0"
    assert pv.topics(mixed, words, top=2, relevance=0.0)["words"][0] == "w0 w3"
    with torch.no_grad():
        vae.decoder.background[11] = 0.0
    assert table.npmi.tolist() == npmi([[0, 3], [1, 4], [2, 5]], documents()).tolist()
    ax = pv.plots.topics(vae, words, documents(), top=2)
    assert len(ax.figure.axes) == 3


REFUSED = {
    "no document of words": (lambda v: pv.topics(v, ["a"]), "12 columns, and there are 1 words"),
    "one word": (lambda v: pv.topics(v, "abcdefghijkl"), "words is a list of them"),
    "decoder": (lambda v: pv.topics(model(decoder="MLP([4])")), "decoder='Topics'"),
    "relevance": (
        lambda v: pv.topics(v, relevance=1.5),
        r"relevance is a share in \[0, 1\], got 1.5",
    ),
    "likelihood": (
        lambda v: pv.perplexity(model(likelihood="Poisson", decoder="MLP([4])"), documents()),
        "likelihood='Multinomial'",
    ),
    "family": (lambda v: model(likelihood="Normal"), "the decoder writes logits alone"),
    "bits": (
        lambda v: pv.VAE((3, 2), 2, decoder="Topics", likelihood="Poisson"),
        "vectors of words",
    ),
    "empty": (
        lambda v: v.as_data(documents() * (torch.arange(60) != 4)[:, None]),
        "row 4 has no counts",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_topic_model_is_refused(case):
    act, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        act(model())
