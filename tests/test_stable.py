"""Stable laws: densities where closed forms, integrals or tails are known, and draws of them."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy import special, stats

import pyro_vae as pv
from helpers.digits import finite_gradients, hold, leaf
from pyro_vae.distributions import Stable

X = torch.tensor([-1e6, -1e3, -30.0, -5.0, -1.0, -0.01, 0.0, 0.01, 1.0, 5.0, 30.0, 1e3, 1e6, 1e15])


def law(stability, skew, **other):
    return Stable(torch.tensor(stability), torch.tensor(skew), **other)


CLOSED = {
    "normal": (2.0, 0.3, X[1:-2], stats.norm(0, math.sqrt(2))),
    "Cauchy": (1.0, 0.0, X, stats.cauchy()),
    "Lévy": (0.5, 1.0, X[5:], stats.levy(-1, 1)),
    "Lévy, to the left": (0.5, -1.0, -X[5:], stats.levy_l(1, 1)),
}


@pytest.mark.parametrize("name", CLOSED)
def test_densities_that_are_known(name):
    stability, skew, x, reference = CLOSED[name]
    expected = torch.from_numpy(reference.logpdf(x.double().numpy()))
    hold(law(stability, skew).log_prob(x), expected)


def fourier(a, b, x):
    """The density from its characteristic function."""
    a, b, x = (mp.mpf(float(torch.tensor(v))) for v in (a, b, x))
    tan = mp.tan(mp.pi * a / 2)

    def wave(t):
        return mp.exp(-(t**a)) * mp.cos(t * x + b * tan * (t - t**a))

    top = mp.mpf(60) ** (1 / a)
    return mp.quad(wave, mp.linspace(0, top, 60)) / mp.pi


@pytest.mark.slow
@pytest.mark.parametrize("stability, skew", [(1.7, -0.8), (1.05, 0.5), (0.97, 0.9), (0.8, 0.3)])
def test_densities_are_those_of_the_characteristic_function(stability, skew):
    x = torch.tensor([-3.0, -0.4, 0.0, 0.7, 4.0])
    expected = [float(mp.log(fourier(stability, skew, v))) for v in x.tolist()]
    hold(law(stability, skew).log_prob(x), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("stability", [1e-3, 0.1, 0.5, 0.99, 1.0, 1.01, 1.5, 1.99])
@pytest.mark.parametrize("skew", [-0.7, 0.0, 0.9])
def test_tails_are_powers(stability, skew):
    """f(x) goes to a (1 + b) sin(pi a / 2) gamma(a) / pi over x to the power a + 1."""
    a, b, x = float(torch.tensor(stability)), float(torch.tensor(skew)), 1e30
    constant = math.log(a * (1 + b) * math.sin(math.pi * a / 2) / math.pi) + math.lgamma(a)
    expected = constant - (a + 1) * math.log(float(torch.tensor(x)))
    found = law(stability, skew).log_prob(torch.tensor(x)).item()
    # Of little stability the next term, x to the power -a, is not small yet.
    assert found == pytest.approx(expected, abs=1e-3 if a > 0.2 else 3 * 1e30**-a)


@pytest.mark.slow
@pytest.mark.parametrize("stability", [1e-3, 0.1, 0.7, 1 - 1e-7, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("skew", [-0.999, 0.0, 0.9])
def test_draws_are_finite_and_have_a_density_and_a_path(stability, skew):
    torch.manual_seed(0)
    a, b = leaf(stability), leaf(skew)
    law = [Stable(a, b, 0 * a + 2, 0 * a + 5).expand([4]) for _ in range(2)]
    x = law[0].rsample((200,))
    found = law[1].log_prob(x.detach())
    assert x.isfinite().all() and found.isfinite().all()
    finite_gradients(x.abs().log1p(), a, b)
    finite_gradients(found, a, b)


@pytest.mark.parametrize("stability, skew", [(0.3, 0.5), (0.9, -1.0), (1.0, 0.8), (1.6, 0.9)])
def test_draws_have_the_characteristic_function(stability, skew):
    torch.manual_seed(1)
    a, b, n = stability, skew, 40_000
    x = law(a, b).sample((n,)).double()
    for t in (0.3, 1.0, 2.0):
        if a == 1:
            turn = -b * 2 / math.pi * t * math.log(t)
        else:
            turn = b * math.tan(math.pi * a / 2) * (t**a - t)
        for wave, expected in ((torch.cos, math.cos(turn)), (torch.sin, math.sin(turn))):
            each = wave(t * x)
            z = (each.mean() - math.exp(-(t**a)) * expected) / (each.std() / math.sqrt(n))
            assert abs(z) < 5


@pytest.mark.slow
def test_gradients_are_those_of_differences():
    x = torch.tensor([-4.0, -0.5, 0.3, 2.0, 50.0], dtype=torch.float64)
    for point in ((1.4, 0.3), (0.8, -0.5), (1.02, 0.9)):
        a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in point)
        value = x.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda a, b, v: Stable(a, b, validate_args=False).log_prob(v),
            (a, b, value),
            eps=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("stability", [1 - 1e-5, 1 - 1e-7, 1.0, 1 + 2e-6])
def test_the_slope_in_the_skew_of_what_is_nearly_cauchy(stability):
    """From the characteristic function, as an integral of t log t exp(-t (1 - ix))."""
    x, a = torch.tensor([-4.0, -0.5, 0.3, 2.0, 50.0]).double(), torch.tensor(stability).double()
    b = torch.zeros(5).double().requires_grad_()
    (slope,) = torch.autograd.grad(Stable(a, b).log_prob(x).sum(), b)
    s = 1 - 1j * x.numpy()
    turned = ((special.digamma(2) - np.log(s)) / s**2).imag
    exact = -2 / math.pi * (1 + x.numpy() ** 2) * turned
    # Rounding, 1e-16, over the stability's distance of 1e-6 from 1, twice: 2e-4 at the most.
    assert slope.numpy() == pytest.approx(exact, abs=1e-3)


def test_the_other_coordinates_are_refused():
    with pytest.raises(ValueError, match="coords='S0' alone, got 'S': leave coords out"):
        law(1.5, 0.0, coords="S")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:x is far from unit scale")
def test_a_model_takes_its_own_draws_and_trains():
    vae = pv.VAE(3, 2, likelihood="Stable", encoder="MLP([4])", decoder="MLP([4])", seed=0)
    x = torch.from_numpy(np.float32(stats.cauchy().rvs((60, 3), random_state=0)))
    history = pv.fit(vae, x, epochs=3, batch_size=20, lr=0.02, progress=False).history
    assert history.elbo_train.iloc[-1] > history.elbo_train.iloc[0]
    assert vae.check(vae.sample(20, seed=0)).shape == (20, 3)
