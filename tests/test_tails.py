"""Draws and densities of families whose tails float32 can hardly hold."""

import math

import mpmath as mp
import pytest
import torch
from scipy import stats

import pyro_vae as pv
import pyro_vae.distributions as ours
from helpers.digits import exact, finite_gradients, leaf

POSITIVE = [1e-7, 1e-4, 1e-2, 0.3, 1.0, 30.0, 1e3, 1e5]
HUGE = 3.4e38


def student(df, s, x):
    norm = mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(mp.pi * df) / 2 - mp.log(s)
    return norm - (df + 1) / 2 * mp.log1p((x / s) ** 2 / df)


def pareto(k, s, x):
    return -mp.log(s) - (x / s if k == 0 else (1 / k + 1) * mp.log1p(k * x / s))


def ratio(a, b, x):
    beta = mp.loggamma((a + b) / 2) - mp.loggamma(a / 2) - mp.loggamma(b / 2)
    logs = a / 2 * mp.log(a * x / b) - mp.log(x) - (a + b) / 2 * mp.log1p(a * x / b)
    return beta + logs


def skew(a, s, x):
    return mp.log(a / s) - mp.log1p(mp.exp(x / s)) - a * mp.log1p(mp.exp(-x / s))


def soft(a, s, x):
    """Pyro's formula; terms of very different sizes cancel, so digits are many."""

    def tail(x, a):
        u = (s * s + a * x) / (a * s * mp.sqrt(2))
        return mp.exp((s * s / 2 + a * x) / a**2) * mp.erfc(u)

    return mp.log((tail(x, a) + tail(-x, 1 / a)) / (2 * (a + 1 / a)))


def affine(a, b, x):
    """Of a beta variable from 2 to 5."""
    share = (x - 2) / 3
    beta = mp.loggamma(a + b) - mp.loggamma(a) - mp.loggamma(b)
    return beta + (a - 1) * mp.log(share) + (b - 1) * mp.log1p(-share) - mp.log(3)


# By family: its two parameters, values of x, the log density, and the constructor of both.
FAMILIES = {
    "StudentT": (
        POSITIVE, [1e-3, 1.0, 30.0], [-HUGE, -40.0, -1.0, 0.0, 1e-3, 5.0, 1e9, HUGE], student,
        lambda df, s: ours.StudentT(df, 0 * s, s),
    ),
    "GeneralizedPareto": (
        [0.0, 1e-6, 0.1, 1.0, 5.0, 90.0], [1e-3, 1.0, 30.0], [0.0, 1e-4, 1.0, 40.0, 1e30], pareto,
        lambda k, s: ours.GeneralizedPareto(0 * s, s, k),
    ),
    "FisherSnedecor": (POSITIVE, POSITIVE, [1.2e-38, 1e-3, 1.0, 40.0, HUGE], ratio,
        ours.FisherSnedecor,
    ),
    "SoftAsymmetricLaplace": (
        POSITIVE, [1e-3, 0.1, 1.0, 30.0, 1e3], [-1e7, -40.0, -1.0, 0.0, 1e-3, 1.0, 300.0, 1e9],
        soft, lambda a, s: ours.SoftAsymmetricLaplace(0 * s, 1 + 0 * s, a, s),
    ),
    "AffineBeta": (
        POSITIVE, POSITIVE, [2.000001, 2.3, 4.0, 4.99999], affine,
        lambda a, b: ours.AffineBeta(a, b, torch.tensor(2.0), torch.tensor(3.0)),
    ),
    "SkewLogistic": (
        POSITIVE, [1e-3, 1.0, 30.0], [-1e7, -40.0, 0.0, 1.0, 1e7], skew,
        lambda a, s: ours.SkewLogistic(0 * s, s, a),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_density_has_its_digits_wherever_a_draw_can_lie(name):
    first, second, x, log_density, make = FAMILIES[name]
    a, b, x = leaf(first), leaf(second), torch.tensor(x)
    found = make(a[:, None, None], b[:, None]).log_prob(x)
    with mp.workdps(50):
        expected = exact(log_density, a[:, None, None], b[:, None], x)
    # Of a ratio terms of the size of its degrees of freedom cancel.
    terms = {"FisherSnedecor": a[:, None, None] + b[:, None]}.get(name, torch.zeros(())).detach()
    there = expected.abs() < 1e30
    lost = ((found - expected).abs() / (1 + expected.abs() + terms))[there]
    assert lost.max() <= 4e-6
    assert found[there].isfinite().all()
    finite_gradients(found[there], a, b)


def three(*numbers):
    return map(torch.tensor, numbers)


def test_a_generalized_pareto_has_a_slope_where_it_is_exponential():
    k = torch.zeros((), requires_grad=True)
    p = ours.GeneralizedPareto(torch.tensor(1.0), torch.tensor(2.0), k)
    (slope,) = torch.autograd.grad(p.log_prob(torch.tensor(7.0)), k)
    assert slope.item() == pytest.approx(1.5)  # y^2 / 2 - y at y = 3
    x = p.rsample((5,))
    (path,) = torch.autograd.grad(x.sum(), k)
    assert path.item() == pytest.approx(((x - 1).square() / 4).sum().item(), rel=1e-5)


PARAMETERS = {
    "StudentT": lambda a, b: ours.StudentT(a, torch.tensor(5.0), b),
    "GeneralizedPareto": lambda a, b: ours.GeneralizedPareto(torch.tensor(0.5), b, a.log() * 5),
    "FisherSnedecor": ours.FisherSnedecor,
    "SkewLogistic": lambda a, b: ours.SkewLogistic(torch.tensor(-3.0), b, a),
    "Logistic": lambda a, b: ours.Logistic(a, b),
    "SoftLaplace": lambda a, b: ours.SoftLaplace(a, b),
    "SoftAsymmetricLaplace": lambda a, b: ours.SoftAsymmetricLaplace(0 * a, 1 + 0 * a, a, b),
    "AffineBeta": lambda a, b: ours.AffineBeta(a, a.flip(0), 900 + 0 * a, b),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_draws_stay_in_the_support_and_have_a_density_and_a_path(name):
    a, b = leaf(POSITIVE), leaf(POSITIVE if name == "FisherSnedecor" else [1e-2, 1.0, 1e3])
    torch.manual_seed(0)
    p = PARAMETERS[name](a[:, None], b)
    x = p.rsample((1000,))
    assert x.isfinite().all() and p.support.check(x).all()
    assert p.log_prob(x).isfinite().all()
    finite_gradients(x.abs().log1p(), a, b)
    x = p.expand([3, len(a), len(b)]).sample((5,))
    assert x.shape == (5, 3, len(a), len(b)) and p.support.check(x).all()


@pytest.mark.parametrize(
    "p, reference",
    [
        (ours.StudentT(*three(0.4, 1.0, 2.0)), stats.t(0.4, 1, 2)),
        (ours.StudentT(torch.tensor(7.0)), stats.t(7)),
        (ours.StudentT(torch.tensor(0.02)), stats.t(0.02)),
        (ours.GeneralizedPareto(*three(1.0, 2.0, 6.0)), stats.genpareto(6.0, 1.0, 2.0)),
        (ours.GeneralizedPareto(*three(1.0, 2.0, -0.7)), stats.genpareto(-0.7, 1.0, 2.0)),
        (ours.GeneralizedPareto(*three(1.0, 2.0, 0.0)), stats.expon(1.0, 2.0)),
        (ours.AffineBeta(*three(0.3, 2.0, 5.0), torch.tensor(4.0)), stats.beta(0.3, 2.0, 5.0, 4.0)),
        (ours.SoftLaplace(*three(1.0, 2.0)), stats.hypsecant(1.0, 2.0)),
        (
            ours.SoftAsymmetricLaplace(*three(1.0, 2.0, 1.0), torch.tensor(1e-4)),
            stats.laplace(1.0, 2.0),
        ),
        (ours.SkewLogistic(*three(1.0, 2.0, 0.01)), stats.genlogistic(0.01, 1.0, 2.0)),
        (ours.SkewLogistic(*three(1.0, 2.0, 40.0)), stats.genlogistic(40.0, 1.0, 2.0)),
    ],
)  # fmt: skip
def test_draws_follow_the_distribution(p, reference):
    """Shares of draws below quantiles of scipy's, whose standard errors are those of fractions."""
    torch.manual_seed(1)
    n, levels = 20_000, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    at = torch.as_tensor(reference.ppf(levels.numpy()))
    seen = (p.sample((n,)).double()[:, None] <= at).double().mean(0)
    there = at.abs() < 1e38  # of few degrees of freedom half of the draws are beyond float32
    z = (seen - levels) / (levels * (1 - levels) / n).sqrt()
    assert there.any() and z[there].abs().max() < 5


def test_the_path_of_students_draws_is_that_of_its_quantiles():
    """Of E[log |x|] the derivative in df by draws, beside that of quadrature."""
    torch.manual_seed(2)
    df, n = torch.tensor(0.3, requires_grad=True), 40_000
    each = df.expand(n)
    p = ours.StudentT(each)
    (gradient,) = torch.autograd.grad(p.rsample().abs().log().sum(), each)
    # log |x| = log |N| - log(chi2) / 2 + log(df) / 2, and E log chi2 = digamma(df / 2) + log 2.
    expected = 1 / (2 * 0.3) - float(mp.polygamma(1, mp.mpf(0.3) / 2)) / 4
    z = (gradient.mean() - expected) / (gradient.std() / math.sqrt(n))
    assert abs(z) < 5 and expected < -5


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "StudentT(df=0.005)",
        "GeneralizedPareto(loc=0, concentration=7)",
        "GeneralizedPareto(loc=0, scale=amortized, concentration=-0.5)",
        "SkewLogistic(asymmetry=0.0001)",
        "FisherSnedecor(df2=0.001)",
        "SoftAsymmetricLaplace(asymmetry=1000)",
        "SoftAsymmetricLaplace(softness=0.0001)",
        "AffineBeta(concentration1=0.01, loc=1000, scale=0.001)",
        "AffineBeta(concentration0=0.02, loc=0, scale=1)",
    ],
)
@pytest.mark.filterwarnings("ignore:x is far from unit scale")
def test_a_model_takes_its_own_draws(line):
    vae = pv.VAE(4, 2, likelihood=line, seed=0)
    x = vae.sample(200, seed=0)
    assert vae.check(x).shape == (200, 4)
    with torch.no_grad():
        assert vae.decode(vae.prior().sample([200])).log_prob(x).isfinite().all()
