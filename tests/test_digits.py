"""Densities in float32 against mpmath's 50 digits, over what a network's output can reach."""

import math

import mpmath as mp
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

import pyro_vae.distributions as ours
from helpers.digits import ULPS, exact, finite_gradients, hold, leaf
from pyro_vae.families.part import Ends
from pyro_vae.families.registry import make_part

LOGITS = [
    s * a for a in (0.0, 1e-8, 1e-3, 0.1, 0.4999, 0.5001, 1, 5, 16, 30, 90, 1e4) for s in (1, -1)
]
SCALES = [1e-9, 1e-6, 1e-3, 0.1, 1.0, 30.0, 1e4]
CONCENTRATIONS = [1e-6, 1e-2, 0.5, 3.0, 20.0, 300.0, 1e3, 1e4, 1e5, 1e6, 1e7]


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(50):
        yield


# The continuous Bernoulli


def log_bernoulli(n, x):
    return n * x - mp.log(mp.expm1(n) / n) if n else mp.mpf(0)


def mean_bernoulli(n):
    return 1 / (1 - mp.exp(-n)) - 1 / n if n else mp.mpf(1) / 2


def entropy_bernoulli(n):
    return -log_bernoulli(n, mean_bernoulli(n))


def variance_bernoulli(n):
    return 1 / n**2 - 1 / (4 * mp.sinh(n / 2) ** 2) if n else mp.mpf(1) / 12


def quantile_bernoulli(n, u):
    return mp.log1p(u * mp.expm1(n)) / n if n else u


X = torch.tensor([0.0, 1e-6, 0.2, 0.5, 0.9, 1 - 2**-24, 1.0])


def test_the_continuous_bernoulli_has_its_digits_at_any_logits():
    logits = leaf(LOGITS)
    p = ours.ContinuousBernoulli(logits=logits[:, None])
    found = p.log_prob(X)
    hold(found, exact(log_bernoulli, logits[:, None], X))
    finite_gradients(found, logits)
    slope = torch.autograd.grad(p.log_prob(X).sum(), logits)[0]
    hold(slope, exact(lambda n, x: x - mean_bernoulli(n), logits[:, None], X).sum(1))
    p = ours.ContinuousBernoulli(logits=logits)
    for name, function in {
        "mean": mean_bernoulli, "variance": variance_bernoulli, "entropy": entropy_bernoulli,
    }.items():  # fmt: skip
        found = getattr(p, name)
        found = found() if callable(found) else found
        hold(found, exact(function, logits))
        finite_gradients(found, logits)
    u = torch.tensor([2**-24, 0.1, 0.5, 0.99, 1 - 2**-24])
    draws = ours.ContinuousBernoulli(logits=logits[:, None]).icdf(u)
    hold(draws, exact(quantile_bernoulli, logits[:, None], u))
    (path,) = torch.autograd.grad(draws[:, 1].sum(), logits, retain_graph=True)
    expected = exact(
        lambda n: mp.diff(lambda t: quantile_bernoulli(t, mp.mpf(u[1].item())), n), logits
    )
    hold(path, expected)
    finite_gradients(draws, logits)
    levels = p.expand([len(logits)]).cdf(draws[:, 2])
    assert ((levels - 0.5).abs() < 1e-6 * (1 + logits.abs())).all()


def test_the_kl_of_continuous_bernoullis():
    logits = leaf(LOGITS)

    def kl(n, m):
        mean = mean_bernoulli(n)
        return log_bernoulli(n, mean) - log_bernoulli(m, mean)

    found = kl_divergence(
        ours.ContinuousBernoulli(logits=logits[:, None]), ours.ContinuousBernoulli(logits=logits)
    )
    expected = exact(kl, logits[:, None], logits)
    size = logits.abs().max(logits.abs()[:, None])
    assert ((found - expected).abs() <= ULPS * (1 + expected.abs() + size.sqrt())).all()
    finite_gradients(found, logits)


def test_probabilities_are_read_to_their_last_digit():
    probs = leaf([1e-37, 1e-20, 1e-7, 0.3, 0.5, 1 - 2**-24])
    p = ours.ContinuousBernoulli(probs)
    hold(p.log_prob(torch.ones(6)), exact(lambda q: log_bernoulli(mp.log(q / (1 - q)), 1), probs))
    finite_gradients(p.log_prob(torch.ones(6)), probs)
    assert ours.ContinuousBernoulli(torch.tensor([0.0, 1.0])).log_prob(X[:2]).isfinite().all()
    with pytest.raises(ValueError, match="probs must lie in"):
        ours.ContinuousBernoulli(torch.tensor([1.5]), validate_args=True)


# Circle and sphere


def log_sphere(d, kappa, apart):
    """Log density at a distance |z - mu| from the mean direction."""
    order = mp.mpf(d) / 2 - 1
    log_c = order * mp.log(kappa) - d * mp.log(2 * mp.pi) / 2 - mp.log(mp.besseli(order, kappa))
    return log_c + kappa * (1 - apart**2 / 2)


@pytest.mark.parametrize("other", [0.5, 1e4])
@pytest.mark.parametrize("d", [2, 3, 10, 200])
def test_directions_of_any_concentration(d, other):
    kappa = leaf(CONCENTRATIONS)
    mu = torch.eye(d)[0]
    p = ours.VonMisesFisher(mu, kappa)
    z = mu * torch.tensor(2e-3).cos() + torch.eye(d)[1] * torch.tensor(2e-3).sin()
    apart = (z.double() - mu).norm().float()
    for value, distance in ((mu, torch.zeros(())), (z, apart), (-mu, torch.tensor(2.0))):
        found = p.log_prob(value)
        hold(found, exact(lambda k, r: log_sphere(d, k, r), kappa, distance))
        finite_gradients(found, kappa)
    q = ours.VonMisesFisher(mu, torch.tensor(other))
    hold(kl_divergence(p, q), exact(lambda k: kl_sphere(d, k, mp.mpf(other)), kappa))
    finite_gradients(kl_divergence(p, q), kappa)


def kl_sphere(d, q, p):
    order = mp.mpf(d) / 2
    cosine = mp.besseli(order, q) / mp.besseli(order - 1, q)
    return log_sphere(d, q, 0) - q - log_sphere(d, p, 0) + p + cosine * (q - p)


@pytest.mark.slow
@pytest.mark.parametrize("kappa", [0.01, 1e3, 1e6])
def test_draws_near_a_direction_are_as_wide_as_they_should_be(kappa):
    """On the sphere in three dimensions the cosine's distribution function is elementary."""
    n = 20_000
    torch.manual_seed(0)
    concentration = torch.full((n,), kappa, requires_grad=True)
    z = ours.VonMisesFisher(torch.tensor([1.0, 0.0, 0.0]), concentration).rsample()
    v = z[:, 1:].square().sum(1)  # 1 - cos^2
    v = torch.where(
        z[:, 0] > 0, v / (1 + (1 - v).clamp_min(0).sqrt()), 1 + (1 - v).clamp_min(0).sqrt()
    )
    u = torch.expm1(-kappa * v.double()) / math.expm1(-2 * kappa)
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert abs(u.square().mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / n)
    (path,) = torch.autograd.grad(v.sum(), concentration)  # E v = 1 / kappa where it is large
    if kappa > 100:
        expected = -1 / kappa**2
        assert abs(path.mean() - expected) < 5 * path.std() / math.sqrt(n)
        assert path.std() < -3 * expected


def test_angles_of_any_concentration():
    kappa = leaf(CONCENTRATIONS)
    for make in (ours.VonMises, ours.ImplicitVonMises):
        for angle in (0.0, 1e-3, 2.0, math.pi):
            z = torch.tensor(angle)
            found = make(torch.tensor(0.0), kappa).log_prob(z)
            log = exact(
                lambda k, t: k * (mp.cos(t) - 1) - mp.log(2 * mp.pi * mp.besseli(0, k)) + k,
                kappa,
                z,
            )
            hold(found, log)
            finite_gradients(found, kappa)


# Mixtures, sparse codes


def log_normal(z, loc, scale):
    return -((z - loc) ** 2) / (2 * scale**2) - mp.log(scale) - mp.log(2 * mp.pi) / 2


@pytest.mark.slow
@pytest.mark.parametrize("far", [0.0, 10.0, 1e3, 1e5])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_narrow_components_far_from_zero(far, scale):
    """z is rounded to float32 before either computes with it; nothing is lost after that."""
    torch.manual_seed(0)
    loc = (far * torch.randn(4, 3)).requires_grad_()
    scales = (scale * (0.5 + torch.rand(4, 3))).requires_grad_()
    logits = torch.randn(4).requires_grad_()
    p = ours.NormalMixture(logits, loc, scales)
    z = torch.cat([p.sample((20,)), loc.detach(), 2 * loc.detach()])
    found = p.expand([len(z)]).log_prob(z)
    weights = [mp.exp(mp.mpf(v)) for v in logits.tolist()]

    def log(point):
        parts = [
            mp.log(w) + sum(log_normal(*map(mp.mpf, row)) for row in zip(point, m, s, strict=True))
            for w, m, s in zip(weights, loc.tolist(), scales.tolist(), strict=True)
        ]
        top = max(parts)
        return top + mp.log(sum(mp.exp(part - top) for part in parts)) - mp.log(sum(weights))

    expected = torch.tensor([float(log(point)) for point in z.tolist()], dtype=torch.float64)
    # Doubles lose this of the squares, and less than z did when it was rounded to float32.
    lost = 2**-50 * (loc.abs().max() / scales.min()).item() ** 2
    assert ((found - expected).abs() <= lost + ULPS * (1 + expected.abs())).all()
    finite_gradients(found, logits, loc, scales)
    batch = ours.NormalMixture(logits.expand(2, 4), loc.expand(2, 4, 3), scales.expand(2, 4, 3))
    hold(batch.log_prob(z[:2]), expected[:2])


@pytest.mark.slow
@pytest.mark.parametrize("d, scale", [(1, 1.0), (50, 0.01), (50, 1.0), (400, 1.0)])
def test_the_path_through_a_mixture_of_many_dimensions_is_finite(d, scale):
    """A density under- or overflows there, and the path does not: the mean's is known."""
    torch.manual_seed(0)
    logits, n = torch.zeros(2, requires_grad=True), 2000
    loc = torch.randn(2, d, requires_grad=True)
    scales = torch.full((2, d), scale, requires_grad=True)
    z = ours.NormalMixture(logits, loc, scales).rsample((n,))
    assert z.dtype == torch.float32
    (path,) = torch.autograd.grad(z.mean(0).sum(), loc, retain_graph=True)
    error = 0.5 / math.sqrt(n)  # the share of a component among the draws
    assert (path.mean(1) - 0.5).abs().max() < 5 * error
    finite_gradients(z, logits, loc, scales)
    same = ours.NormalMixture(logits, torch.zeros(2, d), scales).rsample((9,))
    finite_gradients(same, logits, scales)


def test_a_spike_and_a_slab():
    logits, scale = leaf(LOGITS), leaf(SCALES)
    one, zero = torch.tensor(0.3), torch.tensor(0.0)
    p = ours.SpikeAndSlab(logits[:, None], one, scale)
    found = p.log_prob(zero)
    hold(found, exact(lambda n, s: -mp.log1p(mp.exp(n)), logits[:, None], scale))
    for value in (one, torch.tensor(5.0)):
        slab = exact(
            lambda n, s, z: -mp.log1p(mp.exp(-n)) + log_normal(z, mp.mpf(one.item()), s),
            logits[:, None], scale, value,
        )  # fmt: skip
        hold(p.log_prob(value), slab)
        finite_gradients(p.log_prob(value), logits, scale)
    finite_gradients(found, logits, scale)


def test_the_horseshoe():
    scale = leaf(SCALES)
    value = leaf([1e-15, 1e-6, 1e-2, 0.3, 1.0, 7.0, 1e3, 1e6])[:, None]
    found = ours.Horseshoe(scale).log_prob(value)

    def log(s, z):
        t = z**2 / (2 * s**2)
        scaled = mp.exp(t) * mp.e1(t) if t < 1e6 else 1 / (t + 1 - 1 / (t + 3))
        return mp.log(scaled) - mp.log(s) - mp.log(2 * mp.pi**3) / 2

    hold(found, exact(log, scale, value))
    finite_gradients(found, scale)
    zero = leaf([0.0])
    finite_gradients(ours.Horseshoe(scale).log_prob(zero), scale, zero)


# What networks make


@pytest.mark.parametrize("truncation", [2, 100])
def test_a_resampled_density_where_nearly_all_or_nothing_is_accepted(truncation):
    z, proposal = torch.zeros(1), dist.Normal(torch.zeros(1), 1.0).to_event(1)
    rates = leaf([1e-38, 1e-10, 1e-4, 0.5, 0.999, 1 - 2**-24, 1.0])
    accept = leaf([-20.0])

    def log(rate, a):
        last = (1 - rate) ** (truncation - 1)
        return log_normal(0, 0, 1) + mp.log(mp.exp(a) / rate * (1 - last) + last)

    found = ours.ResampledDistribution(proposal, lambda z: accept, rates, truncation).log_prob(z)
    hold(found, exact(log, rates, accept))
    finite_gradients(found, rates, accept)


@pytest.mark.parametrize("bit", [0.0, 1.0])
def test_bits_of_any_logits(bit):
    logits = leaf(LOGITS)
    p = ours.AutoregressiveBits(lambda bits: logits[:, None], (1,), (len(logits),))
    found = p.log_prob(torch.full((len(logits), 1), bit))
    hold(found, exact(lambda n: -mp.log1p(mp.exp(-n if bit else n)), logits))
    finite_gradients(found, logits)


def test_shares_of_the_real_line():
    """Two shares are a sigmoid and the rest; of five, small ones come back to the real line."""
    u = leaf([[0.0], [-60.0], [60.0], [1e-3]])
    y = ours.Shares()(u)
    hold(y[:, 0], exact(lambda a: 1 / (1 + mp.exp(-a)), u[:, 0]))
    hold(ours.Shares().inv(y)[:, 0], u[:, 0].double())
    found = ours.Shares().log_abs_det_jacobian(u, y)
    hold(found, exact(lambda a: -a - 2 * mp.log1p(mp.exp(-a)), u[:, 0]))
    finite_gradients(found, u)
    u = 6 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    assert (ours.Shares().inv(ours.Shares()(u)) - u).abs().max() < 1e-4
    torchs = dist.transforms.StickBreakingTransform()(u.double() / 6)
    assert torch.allclose(ours.Shares()(u.double() / 6), torchs, atol=1e-12)


def test_broken_sticks():
    v = leaf([[1e-30, 0.5, 0.3], [0.5, 0.5, 0.5], [1 - 2**-24] * 3, [1e-7, 1e-12, 0.999]])
    y = ours.Sticks()(v)
    found = ours.Sticks().log_abs_det_jacobian(v, y)
    log = exact(lambda a, b: 2 * mp.log1p(-a) + mp.log1p(-b), *v[:, :2].unbind(1))
    hold(found, log)
    finite_gradients(found, v)
    assert (ours.Sticks().inv(y) - v).abs().max() < 1e-6


def test_an_interval():
    x = leaf([-80.0, -20.0, -1e-3, 0.0, 3.0, 16.0, 80.0])
    found = ours.Interval(-3.0, 5.0).log_abs_det_jacobian(x, ours.Interval(-3.0, 5.0)(x))
    hold(found, exact(lambda t: mp.log(8) - abs(t) - 2 * mp.log1p(mp.exp(-abs(t))), x))
    finite_gradients(found, x)


# What families pass on


PROBABILITIES = {
    "Bernoulli(probs={})": [1.0],
    "Geometric(probs={})": [0.0],
    "ContinuousBernoulli(probs={})": [0.0],
    "Binomial(total_count=3, probs={})": [3.0],
    "OneHotCategorical(probs={})": [0.0, 1.0],
    "ZeroInflatedPoisson(gate={}, rate=1.0)": [2.0],
    "NegativeBinomial(total_count=2, probs={})": [3.0],
}


@pytest.mark.parametrize("source", ["amortized", "learned"])
@pytest.mark.parametrize("line", PROBABILITIES)
def test_a_networks_probabilities_are_as_good_as_its_logits(line, source):
    x = torch.tensor(PROBABILITIES[line])
    ends = Ends((len(x),), "guide", (2,)) if source == "amortized" else Ends((len(x),), "prior")
    found = []
    for name in (line, line.replace("probs", "logits").replace("gate", "gate_logits")):
        family = make_part(name.format(source), ends)
        with torch.no_grad():
            for parameter in family.parameters():
                parameter.copy_(torch.linspace(-30, 0, parameter.numel()).reshape(parameter.shape))
        found.append(family(torch.ones(2) if source == "amortized" else None).log_prob(x))
        finite_gradients(found[-1], *family.parameters())
    assert torch.equal(*found)
    if line.split("(")[0] in ("Bernoulli", "Binomial", "NegativeBinomial"):
        assert found[0] < -20  # a probability in float32 ends at 16
