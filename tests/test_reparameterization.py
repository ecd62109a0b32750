"""Gradients along the path for families with no closed-form transform: moments in closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import nn

import pyro_vae as pv
from helpers.gradients import N, draws, z_scores
from pyro_vae.distributions import ImplicitVonMises


def moment_of_beta(n, a, b):
    """E z^n under Beta(a, b)."""
    return (
        torch.lgamma(a + n) + torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(a + b + n)
    ).exp()


def moment_of_kumaraswamy(n, a, b):
    """E z^n, b B(1 + n / a, b)."""
    return b * (torch.lgamma(1 + n / a) + torch.lgamma(b) - torch.lgamma(1 + n / a + b)).exp()


def ratio(n, kappa):
    """I_n / I_0, by the integral over the angle, a sum over equal steps."""
    t = torch.arange(400, dtype=torch.float64) * (2 * math.pi / 400)
    weight = (kappa * (t.cos() - 1)).exp()
    return (weight * (n * t).cos()).mean() / weight.mean()


# Family: its parameters, functions of a draw, and their expectations in the parameters.
FAMILIES = {
    "Gamma": (
        dist.Gamma, [{"concentration": 0.3, "rate": 0.7}, {"concentration": 2.5, "rate": 1.5},
                     {"concentration": 40.0, "rate": 8.0}],
        [
            (lambda z: z, lambda a, b: a / b),
            (lambda z: z**2, lambda a, b: a * (a + 1) / b**2),
            (lambda z: z.log(), lambda a, b: a.digamma() - b.log()),
        ],
    ),
    "Chi2": (
        dist.Chi2, [{"df": 0.9}, {"df": 5.0}],
        [(lambda z: z, lambda df: df), (lambda z: z**2, lambda df: df * (df + 2))],
    ),
    "InverseGamma": (
        dist.InverseGamma, [{"concentration": 9.0, "rate": 2.0}],
        [(lambda z: z, lambda a, b: b / (a - 1))],
    ),
    "Beta": (
        dist.Beta, [{"concentration1": 0.6, "concentration0": 1.7},
                    {"concentration1": 30.0, "concentration0": 4.0}],
        [
            (lambda z: z, lambda a, b: moment_of_beta(1, a, b)),
            (lambda z: z**2, lambda a, b: moment_of_beta(2, a, b)),
        ],
    ),
    "Dirichlet": (
        dist.Dirichlet, [{"concentration": [0.5, 1.5, 3.0]}, {"concentration": [20.0, 5.0, 9.0]}],
        [
            (lambda z: z[..., 0], lambda a: a[0] / a.sum()),
            (
                lambda z: z[..., 0] * z[..., 2],
                lambda a: a[0] * a[2] / (a.sum() * (a.sum() + 1)),
            ),
            (
                lambda z: z[..., 1].log(),
                lambda a: a[1].digamma() - a.sum().digamma(),
            ),
        ],
    ),
    "StudentT": (
        dist.StudentT, [{"df": 13.0, "loc": 0.4, "scale": 1.3}],
        [
            (lambda z: z, lambda df, loc, scale: loc + 0 * df * scale),
            (lambda z: z**2, lambda df, loc, scale: loc**2 + scale**2 * df / (df - 2)),
        ],
    ),
    "Kumaraswamy": (
        dist.Kumaraswamy, [{"concentration1": 0.7, "concentration0": 1.8},
                           {"concentration1": 5.0, "concentration0": 3.0}],
        [
            (lambda z, n=n: z**n,
             lambda a, b, n=n: moment_of_kumaraswamy(n, a, b))
            for n in (1, 2, 3)
        ],
    ),
    "Weibull": (
        dist.Weibull, [{"scale": 1.4, "concentration": 1.7}],
        [
            (lambda z, n=n: z**n,
             lambda scale, a, n=n: scale**n * torch.lgamma(1 + n / a).exp())
            for n in (1, 2)
        ],
    ),
    "ImplicitVonMises": (
        ImplicitVonMises, [{"loc": 0.4, "concentration": 0.3}, {"loc": 2.9, "concentration": 2.5},
                           {"loc": -1.0, "concentration": 60.0}],
        [
            (lambda z: z.cos(), lambda loc, kappa: ratio(1, kappa) * loc.cos()),
            (lambda z: (2 * z).sin(),
             lambda loc, kappa: ratio(2, kappa) * (2 * loc).sin()),
        ],
    ),
}  # fmt: skip
CASES = [
    (name, values, i)
    for name, (_, cases, functions) in FAMILIES.items()
    for values in cases
    for i in range(len(functions))
]


@pytest.mark.slow
@pytest.mark.parametrize("name, values, i", CASES)
def test_the_gradient_of_a_moment(name, values, i):
    """The mean over draws of the gradient, each of a copy of the parameters, is the moment's."""
    family, _, functions = FAMILIES[name]
    f, expectation = functions[i]
    one = {k: torch.tensor(v, dtype=torch.float64).requires_grad_() for k, v in values.items()}
    many = {k: v.detach().expand(N, *v.shape).clone().requires_grad_() for k, v in one.items()}
    value = f(family(**many).rsample())
    exact = expectation(*one.values())
    assert z_scores(value.detach()[:, None], exact.detach()).abs() < 5
    sample = torch.autograd.grad(value.sum(), list(many.values()))
    wanted = torch.autograd.grad(exact, list(one.values()), materialize_grads=True)
    for gradient, w in zip(sample, wanted, strict=True):
        assert z_scores(gradient.reshape(N, -1), w.reshape(-1)).abs().max() < 5
        assert (gradient != 0).any() or (w == 0).all()
    assert any((w != 0).any() for w in wanted)


@pytest.mark.parametrize("a", [0.2, 1.0, 3.0, 50.0])
def test_implicit_gradient_of_gamma(a):
    """E[dz/da] = 1 and E[2 z dz/da] = 2 a + 1; a chi-square has a = nu / 2 and twice the draw."""
    concentration = torch.full((N,), a).double().requires_grad_()
    z = dist.Gamma(concentration, 1.0).rsample()
    (slope,) = torch.autograd.grad(z.sum(), concentration)
    assert z_scores(slope[:, None], 1.0).abs() < 5
    assert z_scores((2 * z.detach() * slope)[:, None], 2 * a + 1).abs() < 5
    df = (2 * concentration.detach()).requires_grad_()
    pyro.set_rng_seed(0)
    chi = dist.Chi2(df).rsample()
    (of_df,) = torch.autograd.grad(chi.sum(), df)
    pyro.set_rng_seed(0)
    half = concentration.detach().requires_grad_()
    z = dist.Gamma(half, 1.0).rsample()
    (slope,) = torch.autograd.grad(z.sum(), half)
    assert torch.allclose(chi, 2 * z)
    assert torch.allclose(of_df, slope)  # d(2 z) / d(2 a)


# Von Mises.


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 4.0, 40.0])
def test_von_mises_moves_along_its_cdf(kappa):
    """The draw at a fixed level of the CDF, by finite differences of scipy's quantiles."""
    levels = torch.tensor([0.001, 0.1, 0.4, 0.5, 0.77, 0.999], dtype=torch.float64)
    h = 1e-4 * kappa
    up, z, down = (
        torch.from_numpy(scipy.stats.vonmises.ppf(levels.numpy(), k))
        for k in (kappa + h, kappa, kappa - h)
    )
    slope = ImplicitVonMises._slope(z, torch.tensor(kappa, dtype=torch.float64).expand(6))
    assert torch.allclose(slope, (up - down) / (2 * h), rtol=1e-3, atol=1e-5)


def test_von_mises_is_pyros_but_for_the_path():
    loc, concentration = torch.randn(4, 3), torch.rand(4, 3) + 0.5
    mine, pyros = (c(loc, concentration) for c in (ImplicitVonMises, dist.VonMises))
    z = mine.expand([5, 4, 3]).to_event(1).rsample()
    assert z.shape == (5, 4, 3)
    assert (z.abs() <= math.pi).all()
    assert torch.allclose(mine.log_prob(z), pyros.log_prob(z), atol=1e-5)
    pyro.set_rng_seed(3)
    a = mine.rsample()
    pyro.set_rng_seed(3)
    assert torch.equal(a, pyros.sample())


@pytest.mark.slow
def test_von_mises_is_biased_where_the_cost_jumps_at_the_cut():
    """E z has the slope 1 - 2 pi p(pi) in loc, where the path sees 1: hence its own name."""
    loc = torch.full((N,), 2.0).double().requires_grad_()
    z = ImplicitVonMises(loc, torch.tensor(1.0).double()).rsample()
    (slope,) = torch.autograd.grad(z.sum(), loc)
    assert (slope == 1).all()
    at_cut = dist.VonMises(2.0, torch.tensor(1.0)).log_prob(torch.tensor(math.pi)).exp()
    h = 0.25
    means = [dist.VonMises(2.0 + d, torch.tensor(1.0)).sample((N,)).mean() for d in (-h, h)]
    finite = (means[1] - means[0]) / (2 * h)
    assert finite == pytest.approx(1 - 2 * math.pi * at_cut.item(), abs=0.05)
    assert abs(finite - 1) > 0.5


class OnTheCircle(nn.Module):
    """A decoder that reads an angle by its cosine and sine, so it is continuous on the circle."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(2 * width, 5)

    def forward(self, z):
        return self.layer(torch.cat([z.cos(), z.sin()], -1)).tanh()


@pytest.mark.slow
def test_a_vae_on_the_circle():
    """The path's gradient of the ELBO is the score function's, at less variance; and it trains."""
    vae = pv.VAE(
        4, 2, prior="VonMises(concentration=0.5)", guide="ImplicitVonMises", likelihood="Normal",
        encoder=pv.MLP([5]), decoder=OnTheCircle(2), seed=0,
    ).double()  # fmt: skip
    x = torch.randn(3, 4).double()
    path, _ = draws("Trace_ELBO(gradient=pathwise)", vae, x, copies=480)
    score, _ = draws("RLOO(num_particles=10)", vae, x, copies=480)
    plain, _ = draws("Trace_ELBO(gradient=score)", vae, x, copies=480)
    error = ((path.var(0) + score.var(0)) / len(path)).sqrt().clamp(min=1e-12)
    assert ((path.mean(0) - score.mean(0)) / error).abs().max() < 5
    assert (path != 0).any(0).float().mean() > 0.8
    assert path.var(0).sum() < 0.5 * plain.var(0).sum()
    before = pv.elbo(vae, x, num_samples=50).mean()
    pv.fit(vae, x, epochs=40, lr=3e-2, progress=False)
    assert pv.elbo(vae, x, num_samples=50).mean() > before + 0.5
