"""Draws at the edge of float32, and densities there, of families with open supports."""

import math

import mpmath as mp
import pytest
import torch
from torch import distributions as td

import pyro_vae as pv
import pyro_vae.distributions as ours
from helpers.digits import exact, finite_gradients, leaf
from pyro_vae.families.likelihoods import with_offset

POSITIVE = [1e-7, 1e-4, 1e-2, 0.3, 1.0, 1.7, 30.0, 1e3, 1e5]
LOCS = [-90.0, -3.0, 0.0, 5.0, 90.0]
TINY, HUGE = 1.2e-38, 3.4e38
# The family, what its two parameters may be, values of x, and the log density.
FAMILIES = {
    "LogNormal": (
        LOCS, POSITIVE, [TINY, 0.5, 1.0, 40.0, HUGE],
        lambda m, s, x: -mp.log(x * s * mp.sqrt(2 * mp.pi)) - ((mp.log(x) - m) / s) ** 2 / 2,
    ),
    "Weibull": (
        POSITIVE, POSITIVE, [TINY, 0.5, 1.0, 40.0],
        lambda s, k, x: mp.log(k / s) + (k - 1) * mp.log(x / s) - (x / s) ** k
    ),
    "Pareto": (
        POSITIVE, POSITIVE, [2e5, 1e9, HUGE],
        lambda s, a, x: mp.log(a) + a * mp.log(s) - (a + 1) * mp.log(x),
    ),
    "InverseGamma": (
        POSITIVE, POSITIVE, [0.5, 1.0, 40.0, HUGE],
        lambda a, b, x: a * mp.log(b) - mp.loggamma(a) - (a + 1) * mp.log(x) - b / x,
    ),
    "Kumaraswamy": (
        POSITIVE, POSITIVE, [TINY, 1e-4, 0.5, 0.9, 1 - 2**-24],
        lambda a, b, x: mp.log(a * b) + (a - 1) * mp.log(x) + (b - 1) * mp.log1p(-(x**a)),
    ),
}  # fmt: skip


def grid(name):
    first, second, x, log_density = FAMILIES[name]
    a, b = leaf(first), leaf(second)
    return a, b, torch.tensor(x), log_density


@pytest.mark.parametrize("name", FAMILIES)
def test_a_density_has_its_digits_wherever_a_draw_can_lie(name):
    a, b, x, log_density = grid(name)
    p = getattr(ours, name)(a[:, None, None], b[:, None], validate_args=False)
    found = p.log_prob(x)
    with mp.workdps(60):
        expected = exact(log_density, a[:, None, None], b[:, None], x)
    # What a float32 can lose is relative to the largest term, not to the sum of terms that cancel.
    terms = {
        "Pareto": b[:, None] * (a[:, None, None].log().abs() + x.log().abs()),
        "InverseGamma": a[:, None, None] * (b[:, None].log().abs() + x.log().abs() + 12),
        "Weibull": b[:, None] * (a[:, None, None].log().abs() + x.log().abs()) * (
            1 + (found - found.detach() + expected.clamp(-1e30)).abs()
        ),
        "LogNormal": expected.abs() * (1 + (a[:, None, None].abs() + x.log().abs()) / b[:, None]),
        "Kumaraswamy": b[:, None] + a[:, None, None] * x.log().abs(),
    }[name].detach()  # fmt: skip
    there = expected.abs() < 1e30
    lost = ((found - expected).abs() / (1 + expected.abs() + terms))[there]
    assert lost.max() <= 4e-6
    assert found[there].isfinite().all()


def test_a_level_that_cannot_be_leaves_the_others_their_mass():
    p = ours.OneHotCategorical(logits=torch.tensor([-math.inf, 0.0, 0.0]), validate_args=False)
    assert p.log_prob(torch.eye(3)).exp().tolist() == pytest.approx([0.0, 0.5, 0.5])


@pytest.mark.parametrize("line", ["ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial"])
def test_zero_inflated_counts_that_were_used_are_as_they_were(line):
    """Pyro's keep both parameters of the gate, which expand refuses."""
    vae = pv.VAE(3, 1, likelihood=line, encoder=[], decoder=[], seed=0)
    with torch.no_grad():
        p = vae.decode(torch.tensor([[9.0], [-1.0]]))
        for used in (p, with_offset(p, torch.ones(2, 1))):
            x = torch.tensor([0.0, 1.0, 7.0])
            before = used.log_prob(x)
            assert used.mean.shape == used.sample().shape == (2, 3)
            assert torch.equal(used.log_prob(x), before)
            assert torch.equal(used.expand([4, 2]).log_prob(x), before.expand(4, 2))


def test_a_density_has_its_slope_where_a_power_vanishes():
    x, ones = torch.tensor(0.7), (torch.ones((), requires_grad=True) for _ in range(2))
    a, b = ones
    slopes = torch.autograd.grad(ours.Kumaraswamy(a, b).log_prob(x), (a, b))
    assert slopes == (pytest.approx(1 + math.log(0.7)), pytest.approx(1 + math.log(0.3)))


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_stay_in_the_support_and_have_a_density_and_a_path(name):
    a, b, _, _ = grid(name)
    torch.manual_seed(0)
    p = getattr(ours, name)(a[:, None], b)
    x = p.rsample((2000,))
    assert x.isfinite().all() and p.support.check(x).all()
    assert p.log_prob(x).isfinite().all()
    finite_gradients(x.log(), a, b)
    x = p.expand([3, len(a), len(b)]).sample((5,))
    assert x.shape == (5, 3, len(a), len(b)) and p.support.check(x).all()


@pytest.mark.parametrize(
    "name, a, b",
    [
        ("LogNormal", 0.3, 0.8),
        ("Weibull", 2.0, 1.5),
        ("Pareto", 0.5, 3.0),
        ("InverseGamma", 3.0, 2.0),
        ("Kumaraswamy", 2.0, 0.6),
    ],
)
def test_draws_follow_the_distribution(name, a, b):
    """Their shares below three points, whose standard errors are those of fractions."""
    torch.manual_seed(1)
    n, parameters = 20_000, (torch.tensor(a), torch.tensor(b))
    x = getattr(ours, name)(*parameters).sample((n,))
    reference = getattr(td, name)(*parameters)
    at = x.quantile(torch.tensor([0.1, 0.5, 0.9]))
    share = {
        "InverseGamma": lambda: torch.special.gammaincc(torch.tensor(a), b / at),
    }.get(name, lambda: reference.cdf(at))()
    z = (share - torch.tensor([0.1, 0.5, 0.9])) / (share * (1 - share) / n).sqrt()
    assert z.abs().max() < 5


@pytest.mark.parametrize(
    "line",
    [
        "Transformed(StudentT(df=0.5), ExpTransform)",
        "Transformed(Normal(scale=200), SoftplusTransform)",
        "Transformed(Normal(scale=200), SigmoidTransform)",
        "Transformed(Normal(scale=200), Interval(-3, 2))",
        "Transformed(Normal(scale=200), StickBreakingTransform)",
    ],
)
def test_transformed_draws_stay_in_the_support(line):
    vae = pv.VAE(4, 3, prior=line, guide=line, seed=0)
    torch.manual_seed(0)
    z = vae.prior().expand([500]).sample()
    assert vae.prior().support.check(z).all() and z.isfinite().all()
    assert (z != 0).all()


@pytest.mark.filterwarnings("ignore:x is far from unit scale")
@pytest.mark.parametrize(
    "line",
    [
        "Weibull(concentration=0.01)",
        "LogNormal(scale=60)",
        "Pareto(alpha=0.01)",
        "Kumaraswamy(concentration1=0.005)",
        "InverseGamma(concentration=0.01)",
        "Mixture(Weibull(concentration=0.01), components=2)",
        "Transformed(Normal(scale=150), ExpTransform)",
    ],
)
def test_a_model_takes_its_own_draws(line):
    vae = pv.VAE(4, 2, likelihood=line, seed=0)
    x = vae.sample(200, seed=0)
    assert vae.check(x).shape == (200, 4)
    vae.start_from(x)
    with torch.no_grad():
        assert vae.decode(vae.prior().sample([200])).log_prob(x).isfinite().all()


def test_the_kl_of_lognormals_is_still_exact():
    p, q = (
        ours.LogNormal(torch.tensor(0.5), torch.tensor(2.0)),
        ours.LogNormal(torch.tensor(0.0), torch.tensor(1.0)),
    )
    expected = td.kl_divergence(td.Normal(0.5, 2.0), td.Normal(0.0, 1.0))
    assert math.isclose(td.kl_divergence(p, q).item(), expected.item(), rel_tol=1e-6)


def sigmoid_of_normal(loc, scale):
    return ours.TransformedDistribution(td.Normal(loc, scale), [td.SigmoidTransform()])


def tanh_of_normal(loc, scale):
    return ours.TransformedDistribution(td.Normal(loc, scale), [td.TanhTransform()])


def affine_beta(a, b):
    return ours.AffineBeta(a, b, torch.tensor(-3.0), torch.tensor(2.0))


def expected_log_beta(a, b):
    rest = a + b
    log_beta = a.lgamma() + b.lgamma() - rest.lgamma()
    own = (a - 1) * a.digamma() + (b - 1) * b.digamma() - (rest - 2) * rest.digamma()
    return own - log_beta


def expected_log_kumaraswamy(a, b):
    harmonic = (b + 1).digamma() - torch.tensor(1.0).digamma()
    return (a * b).log() - (1 - 1 / a) * harmonic - (1 - 1 / b)


def expected_log_normal(loc, scale):
    return -0.5 * (2 * math.pi * math.e * scale**2).log() + loc  # far out, where slopes are 1


NEAR_ONE = {  # with E[log q] of draws, most of which float32 rounds to one number
    "Beta": (ours.Beta, (2.0, 0.08), expected_log_beta),
    "AffineBeta": (affine_beta, (2.0, 0.08), lambda a, b: expected_log_beta(a, b) - math.log(2)),
    "Kumaraswamy": (ours.Kumaraswamy, (2.0, 0.1), expected_log_kumaraswamy),
    "sigmoid": (sigmoid_of_normal, (30.0, 0.1), expected_log_normal),
    "sigmoid, narrow": (sigmoid_of_normal, (14.0, 1e-3), expected_log_normal),
    "tanh": (
        tanh_of_normal, (30.0, 0.1),
        lambda m, s: expected_log_normal(2 * m, s) - math.log(4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("name", NEAR_ONE)
def test_rounded_draws_have_the_density_of_what_was_rounded(name, copied):
    """Else a guide that goes to a bound has a KL below 0, and an ELBO without limit."""
    torch.manual_seed(0)
    make, parameters, expected = NEAR_ONE[name]
    parameters = [torch.tensor(p) for p in parameters]
    q = make(*parameters)
    z = q.sample((20_000,))
    log_q = q.log_prob(z.clone() if copied else z).double()
    error = log_q.std() / len(log_q) ** 0.5
    assert abs(log_q.mean() - expected(*parameters)) < 5 * error


@pytest.mark.parametrize("copied", [False, True])
def test_the_gradient_of_the_entropy_near_a_bound(copied):
    """d E[log q] / d loc is E[tanh(u / 2)], of draws with a path and of copies without one."""
    torch.manual_seed(0)
    loc = torch.full((20_000,), 3.0, requires_grad=True)
    q = sigmoid_of_normal(loc, torch.tensor(0.5))
    if copied:  # by the score function
        z = q.sample().clone()
        log_q = q.log_prob(z)
        surrogate = (log_q.detach() - log_q.detach().mean()) * log_q
    else:
        surrogate = q.log_prob(q.rsample())
    (slope,) = torch.autograd.grad(surrogate.sum(), loc)
    u = torch.distributions.Normal(3.0, 0.5).sample((200_000,))
    z = (slope.mean() - (u / 2).tanh().mean()) / (slope.std() / len(slope) ** 0.5)
    assert abs(z) < 5


@pytest.mark.parametrize(
    ("prior", "guide"),
    [
        ("Uniform", "Transformed(Normal(loc=40), SigmoidTransform)"),
        ("Beta", "Beta(concentration0=1e-6)"),
        ("Uniform", "Kumaraswamy(concentration0=1e-6)"),
        ("Beta", "Mixture(Beta(concentration0=1e-6), components=2)"),
        ("Dirichlet", "Transformed(Normal(loc=40), StickBreakingTransform)"),
        (
            "Transformed(Kumaraswamy, Sticks)",
            "Transformed(Kumaraswamy(concentration0=1e-6), Sticks)",
        ),
    ],
)
def test_a_guide_at_a_bound_pays_for_it(prior, guide):
    """It is all in the last number before 1, of which the prior holds exp(-16.6) at most."""
    vae = pv.VAE(2, 2, prior=prior, guide=guide, seed=0)
    x = torch.tensor([[0.0, 1.0]])
    assert pv.rate_distortion(vae, x, seed=0).rate.item() > 16


def test_the_largest_number_of_counts_that_differ_by_cell():
    vae = pv.VAE(2, 1, likelihood="BetaBinomial(total_count=[3, 9])", seed=0)
    assert vae.check(torch.tensor([[3.0, 9.0]])).shape == (1, 2)
    with pytest.raises(ValueError, match="x holds 4; BetaBinomial needs"):
        vae.check(torch.tensor([[4.0, 9.0]]))


@pytest.mark.parametrize("name", NEAR_ONE)
def test_the_score_of_a_draw_without_a_path_is_that_of_its_copy(name):
    make, parameters, _ = NEAR_ONE[name]
    torch.manual_seed(0)
    parameters = [torch.tensor(0.5 + i, requires_grad=True) for i, _ in enumerate(parameters)]
    q = make(*parameters)
    z = q.sample((5,))
    slopes = torch.autograd.grad(q.log_prob(z).sum(), parameters)
    expected = torch.autograd.grad(make(*parameters).log_prob(z).sum(), parameters)
    torch.testing.assert_close(slopes, expected, rtol=1e-4, atol=1e-4)


def test_the_slope_at_a_draw_without_a_path():
    torch.manual_seed(0)
    q = sigmoid_of_normal(torch.tensor(0.5), torch.tensor(1.5))
    z = q.sample((5,)).requires_grad_()
    copy = z.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(q.log_prob(z).sum(), z)
    (expected,) = torch.autograd.grad(q.log_prob(copy).sum(), copy)
    torch.testing.assert_close(slope, expected)
