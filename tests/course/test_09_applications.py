"""Answers to the exercises of ``notebooks/09_applications``."""

import math

import pytest
import torch

import pyro_vae as pv
from pyro_vae.data.melodies import Melodies


def test_1_with_the_exact_posterior_the_rate_is_minus_log_p():
    """log p(x|z) + log p(z) - log q(z|x) = log p(x) for each z, so the draw does not matter."""
    vae = pv.VAE(
        1, 1, prior="Bernoulli", likelihood="Bernoulli", guide="Bernoulli",
        encoder=pv.MLP([]), decoder=pv.MLP([]),
    ).double()  # fmt: skip
    with torch.no_grad():
        decoder = vae.likelihood.sources["logits"].head
        decoder.weight.fill_(3.0)
        decoder.bias.fill_(-1.0)
        p = torch.stack([decoder(torch.tensor([[z]]).double()).sigmoid() for z in (0.0, 1.0)])
        p = torch.cat([1 - p, p], 2)[:, 0]  # of x, a row for each z
        guide = vae.approximation.sources["logits"].head
        odds = (p[1] / p[0]).log()  # of z = 1, for each x
        guide.weight.fill_(odds[1] - odds[0])
        guide.bias.fill_(odds[0])
    x = torch.tensor([[0.0], [1.0]]).double()
    rate = -pv.elbo(vae, x.repeat(50, 1), num_samples=1, seed=0) / math.log(2)
    exact = -p.mean(0).log2().repeat(50)
    assert torch.allclose(rate, exact, atol=1e-9)


def test_2_in_a_linear_model_the_step_adds_one_vector():
    """W (mean z of those with it - mean z of those without)."""
    vae = pv.VAE(5, 2, likelihood="Normal(scale=1)", encoder=pv.MLP([]), decoder=pv.MLP([]),
                 seed=0).double()  # fmt: skip
    x, labels = vae.sample(40, seed=0), torch.arange(40) % 2
    step = pv.attribute_step(vae, x, labels)
    added = pv.move(vae, x, step) - vae.reconstruct(x)
    w = vae.likelihood.sources["loc"].head.weight.detach()
    z = vae.encode(x).mean
    expected = w @ (z[labels == 1].mean(0) - z[labels == 0].mean(0))
    assert torch.allclose(added, expected.expand_as(added), atol=1e-9)
    assert torch.allclose(pv.attribute_step(vae, x, labels, source=1, target=0), -step, atol=1e-9)
    assert expected.abs().max() > 1e-3


@pytest.mark.slow
def test_3_notes_on_their_own_waste_what_they_say_of_each_other():
    """Each note alone is uniform, so a model without memory and z costs n log 12."""
    melodies, n = Melodies(), 4
    waste = n * math.log(12) - melodies.entropy(n)
    rows, _ = melodies.sample(4000, (n, n), seed=0)
    saved = melodies.log_prob(rows) + n * math.log(12)
    error = saved.std() / len(rows) ** 0.5
    assert abs(saved.mean() - waste) < 4 * error
    share = torch.bincount(torch.cat(rows), minlength=12) / (n * len(rows))
    assert (share - 1 / 12).abs().max() < 5 * (1 / 12 / len(rows)) ** 0.5  # notes of a row depend
    assert waste > 20 * error
