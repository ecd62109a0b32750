"""Antithetic draws of several particles, and Stein control variates, against enumeration."""

import itertools

import pyro
import pytest
import torch

from helpers.gradients import (
    N,
    bernoulli_toy,
    bit_model,
    copied,
    covering,
    draws,
    exact_bits,
    gradient_of,
    right,
    right_in_plates,
    spread,
    toy_variances,
    z_scores,
)
from pyro_vae import MLP, VAE
from pyro_vae.infer import ARMS, CARMS, RODEO, Estimator
from pyro_vae.infer.estimators.arms import both, of_pairs, stick, uniforms
from pyro_vae.infer.estimators.relaxed import OneHots

LINES = ["ARMS(num_particles=3)", "CARMS(num_particles=4)", "RODEO(num_particles=3, hidden=10)"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, n, beta", covering([*LINES, "ARMS(num_particles=2)", "RODEO(hidden=10)"])
)
def test_unbiased_for_bits(line, n, beta, wandered):
    vae, x = bit_model(n)
    right(*draws(line, vae, x, beta, copies=640), exact_bits(vae, x, beta), vae)


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3, 5])
def test_carms_is_unbiased_for_one_hot_vectors(k):
    vae = VAE(
        5, (2, 4), prior="OneHotCategorical(logits=learned)", guide="OneHotCategorical",
        encoder=MLP([4], activation="Tanh"),
        decoder=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 4), torch.nn.Tanh()),
        seed=3,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(torch.randn_like(p) * 0.7)
    x = torch.rand(3, 5).lt(0.5).double()
    wanted, value = draws("TraceEnum_ELBO", vae, x, batches=1, copies=1)
    gradients, values = draws(f"CARMS(num_particles={k})", vae, x, copies=640)
    live = wanted[0].abs() > 1e-9  # logits have one degree of freedom too many
    assert z_scores(gradients, wanted[0])[live].abs().max() < 5
    assert z_scores(values[:, None], value).abs().max() < 5
    assert (gradients != 0).any(0)[live].all() and live.sum() > 0.8 * len(live)


@pytest.mark.slow
@pytest.mark.parametrize("elbo", [ARMS(3), CARMS(2), RODEO(2)], ids=lambda e: type(e).__name__)
def test_unbiased_with_sites_in_different_plates(elbo, plates, wandered):
    right_in_plates(elbo, plates, 1)


# The joint law of the draws.


@pytest.mark.parametrize("k", [2, 3, 6])
def test_two_of_the_uniforms_have_the_probability_that_is_said(k):
    u = uniforms(torch.empty(k, N).double())
    for p in (0.1, 0.4, 0.5, 0.9):
        p = torch.tensor(p).double()
        for i, j in itertools.combinations(range(k), 2):
            share = ((u[i] < p) & (u[j] < p)).double().mean()
            wanted = both(p, k)
            assert abs(share - wanted) < 5 * (wanted * (1 - wanted) / N).sqrt() + 1e-12
        assert abs((u[0] < p).double().mean() - p) < 5 * (p * (1 - p) / N).sqrt()


@pytest.mark.parametrize("k", [2, 3, 6])
def test_pairs_of_categories_have_the_mass_that_is_said(k):
    p = torch.tensor([0.45, 0.05, 0.2, 0.3]).double()
    logits = p.log()
    z, rank = CARMS(k)._values(logits.expand(k, N, 4), OneHots)
    ratios, order = of_pairs(stick(logits)[1], k), stick(logits)[0]
    place = order.argsort()
    assert torch.equal(place[z.argmax(-1)], rank)
    for a, b in itertools.permutations(range(4), 2):
        share = (z[0, :, a] * z[1, :, b]).mean()
        wanted = p[a] * p[b] / ratios[min(place[a], place[b])]
        assert abs(share - wanted) < 5 * (wanted / N).sqrt()
    for a in range(4):
        assert abs(z[0, :, a].mean() - p[a]) < 5 * (p[a] * (1 - p[a]) / N).sqrt()


@pytest.mark.parametrize("logit", [-200.0, -30.0, 30.0, 200.0])
def test_a_certain_bit_has_a_finite_gradient(logit):
    for make in (ARMS, CARMS):
        model, guide = bernoulli_toy(0.5, 0.45)
        with pyro.get_param_store().scope():
            pyro.param("p", torch.full((N,), logit))
            make(3).loss_and_grads(model, guide)
            assert pyro.param("p").grad.isfinite().all()


# Variances in closed form, of the Bernoulli toy E[(b - t)^2].

TOY = [(0.5, 0.45), (0.3, 0.45), (0.9, 0.1)]


def taken(elbo, p, t):
    """The draws' variance, their mean asserted to be exact."""
    sample = copied(elbo, *bernoulli_toy(p, t))
    variance, error = spread(sample)
    assert abs(sample.mean() - (1 - 2 * t) * p * (1 - p)) < 5 * (variance / N).sqrt() + 1e-12
    return variance, error


@pytest.mark.parametrize("make", [ARMS, CARMS])
@pytest.mark.parametrize("p, t", TOY)
def test_two_antithetic_particles_are_disarm(p, t, make):
    variance, error = taken(make(2), p, t)
    assert abs(variance - toy_variances(p, t)["DisARM"]) < 5 * error + 1e-15


@pytest.mark.slow
@pytest.mark.parametrize("k", [3, 4, 8])
@pytest.mark.parametrize("p, t", TOY)
def test_antithetic_particles_beat_independent_ones(p, t, k):
    """RLOO's variance in closed form: of the sample covariance of cost and score."""
    d, v = 1 - 2 * t, p * (1 - p)
    fourth = v * (1 - 3 * v)
    independent = d**2 * (fourth / k - v**2 * (k - 3) / (k * (k - 1)))
    variance, error = taken(ARMS(k), p, t)
    assert variance + 5 * error < independent


@pytest.mark.slow
@pytest.mark.parametrize(
    "p, t, c",
    [(*TOY[0], (0.0, 0.0)), (*TOY[1], (0.4, -0.3)), (*TOY[2], (1.0, 0.5)), (*TOY[1], (1.0, 0.5))],
)
def test_variance_of_rodeo(p, t, c):
    """By the four states of two bits, h linear in the step; at the start (0, 0) that of RLOO."""
    b = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).double()
    mass = (p * b + (1 - p) * (1 - b)).prod(1)
    f, slope, other, s = (b - t) ** 2, 2 * (b - t), b.flip(1), b - p
    one, zero = (slope.flip(1) * (v - other) for v in (1.0, 0.0))  # the step to either value
    here = slope.flip(1) * (b - other)
    operator = p * one + (1 - p) * zero - here
    weighted = p * one * (1 - p) - (1 - p) * zero * p - here * s
    g = ((f - (f + c[0] * operator).flip(1)) * s + c[1] * weighted).mean(1)
    mean = (mass * g).sum()
    assert mean == pytest.approx((1 - 2 * t) * p * (1 - p), abs=1e-12)
    wanted = (mass * (g - mean) ** 2).sum()
    elbo, (_, guide) = RODEO(2), bernoulli_toy(p, t)
    with pyro.get_param_store().scope():
        control = elbo.learner.renew(guide)
    with torch.no_grad():
        control.c.copy_(torch.tensor(c))
    variance, error = taken(elbo, p, t)
    assert abs(variance - wanted) < 5 * error + 1e-14
    if c == (0.0, 0.0):
        assert wanted == pytest.approx(toy_variances(p, t)["RLOO(num_particles=2)"])


@pytest.mark.slow
def test_rodeo_learns_a_smaller_variance():
    """Ten bits: below that of the others that take two evaluations."""
    vae, x = bit_model(10)
    many, elbo = x.repeat(20, 1), RODEO(2)
    control = elbo.learner.renew(vae.guide, many)
    optimizer = torch.optim.Adam(control.parameters(), 3e-2)
    for _ in range(120):
        optimizer.zero_grad()
        elbo.loss_and_grads(vae.model, vae.guide, many)
        optimizer.step()

    def variance(line):
        gradients, _ = draws(line, vae, x, copies=20, batches=60)
        wanted = gradient_of(exact_bits(vae, x), vae)
        names = [torch.full_like(p, n.startswith("encoder")) for n, p in vae.named_parameters()]
        of_guide = torch.cat([n.flatten() for n in names]).bool()
        return (gradients - wanted)[:, of_guide].square().sum(1).mean()

    learned = variance(Estimator(_kept(elbo), "score"))
    for line in ("RLOO(num_particles=2)", "DisARM", "DoubleCV(num_particles=2, alpha=1)"):
        assert learned < 0.8 * variance(line)


def _kept(elbo):
    """An estimator whose learner is not made anew."""
    elbo.learner.renew = lambda guide, *args, **kwargs: elbo.learner.control
    return elbo
