"""Every prior: its draws follow its density, and it serves the estimators that the table allows."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import special
from torch import nn
from torch.distributions import kl_divergence

import pyro_vae as pv
from pyro_vae import distributions as ours
from pyro_vae.families.likelihoods import check_support
from pyro_vae.families.part import Ends
from pyro_vae.families.registry import make_part
from pyro_vae.infer.estimators.soundness import check_and_nest

N = 20_000


def build(line, shape, seed=0):
    """A prior with every parameter moved off its start, in evaluation mode."""
    torch.manual_seed(seed)
    prior = make_part(line, Ends(shape, "prior")).double()
    with torch.no_grad():
        for p in prior.parameters():
            p += 0.4 * torch.randn_like(p) / (p.shape[-1] if p.ndim else 1) ** 0.5
        for m in prior.modules():  # so that acceptance differs much from place to place
            if isinstance(m, pv.Resampled):
                m.accept.weight *= 20
    return prior.eval()


def box(low, high, n, power=1.0):
    """Midpoints of a square grid and the area of its cells; ``power`` crowds them at zero."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    if power != 1:
        v = 2 * u - 1
        x = high * v.sign() * v.abs() ** power
        w = high * power * v.abs() ** (power - 1) * 2 / n
    else:
        x, w = low + (high - low) * u, torch.full_like(u, (high - low) / n)
    return torch.cartesian_prod(x, x), torch.cartesian_prod(w, w).prod(-1)


def plane():
    return box(-10, 10, 180)


def coarse():
    return box(-9, 9, 60)


def heavy():
    return box(-(10.0**6), 10.0**6, 600, power=12.0)


def square():
    return box(0, 1, 400)


def wide():
    return box(-1, 1, 400)


def torus():
    return box(-math.pi, math.pi, 100)


def triangle():
    points, area = box(0, 1, 500)
    inside = points.sum(-1) < 1
    points = points[inside]
    return torch.cat([points, 1 - points.sum(-1, keepdim=True)], -1), area[inside]


def circle():
    t = torch.arange(2000, dtype=torch.float64) * 2 * math.pi / 2000
    return torch.stack([t.cos(), t.sin()], -1), torch.full_like(t, 2 * math.pi / 2000)


def bits():
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 2), torch.ones(4)


# A prior of two free dimensions, and points and weights that integrate over its support.
DENSITIES = {
    "Normal(loc=learned, scale=learned)": plane,
    "Mixture(Normal(loc=learned, scale=learned), components=10)": plane,
    "Mixture(Normal(loc=learned, scale=learned), components=3, logits=learned)": plane,
    "Mixture(MultivariateNormal(loc=learned, scale_tril=learned), components=3)": plane,
    "Mixture(Laplace(loc=learned), components=3)": plane,
    "Mixture(Beta(concentration1=learned(3.0), concentration0=2), components=3)": square,
    "Mixture(Bernoulli(logits=learned), components=3)": bits,
    "Flow(NSF, transforms=2)": plane,
    "Flow(NSF, passes=2)": plane,
    "Flow(MAF)": plane,
    "Flow(IAF)": plane,
    "Flow(MAF, base=Normal(scale=learned))": plane,
    "Flow(RealNVP)": plane,
    "Flow(NICE, transforms=2)": plane,
    "Flow(NAF, transforms=1)": coarse,
    "Flow(UNAF, transforms=1, signal=4)": coarse,
    "Flow(SOSPF, transforms=1)": coarse,
    "Flow(BPF, transforms=1)": coarse,
    "Flow(CNF)": coarse,
    "Flow(NCSF, transforms=1)": torus,
    "Resampled(Normal)": plane,
    "Resampled(Mixture(Normal(loc=learned), components=2), truncation=5)": plane,
    "Resampled(Normal, truncation=2, hidden=[])": plane,
    "Transformed(Normal(loc=learned, scale=learned), SigmoidTransform)": square,
    "Transformed(Normal(loc=learned), Interval(-1, 1))": wide,
    "Transformed(Normal(loc=learned), [AffineTransform(0.5, 2.0), SigmoidTransform])": square,
    "Transformed(Normal(loc=learned), StickBreakingTransform)": triangle,
    "Transformed(Kumaraswamy(concentration1=1.5, concentration0=2.0), Sticks)": triangle,
    "Dirichlet([1.5, 2.0, 3.0])": triangle,
    "VonMisesFisher(loc=learned, concentration=learned)": circle,
    "ProjectedNormal(concentration=learned)": circle,
    "Horseshoe(scale=learned)": heavy,
    "GaussianProcess(Matern32, lengthscale=learned, scale=learned)": plane,
    "AutoregressiveBernoulli": bits,
    "AutoregressiveBernoulli([8])": bits,
}


SLOW = {  # draws by bisection, or by an equation solved backwards
    "Flow(NAF, transforms=1)": 800, "Flow(UNAF, transforms=1, signal=4)": 60,
    "Flow(SOSPF, transforms=1)": 4000, "Flow(BPF, transforms=1)": 4000, "Flow(CNF)": 1000,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("line", DENSITIES)
def test_draws_follow_the_density_and_it_integrates_to_one(line):
    grid = DENSITIES[line]
    points, area = grid()
    prior = build(line, (points.shape[-1],))
    with torch.no_grad():
        p = prior()
        mass = p.log_prob(points).exp() * area
        n = SLOW.get(line, N)
        z = p.expand([n]).sample()
        check_support(z.float(), [prior.float()().expand([1])], line, "row {}".format)
    # The pole and tails of the horseshoe; a normalizer measured by 2^17 draws.
    tolerance = 1e-2 if grid is heavy or "Resampled" in line else 2e-3
    assert mass.sum().item() == pytest.approx(1, abs=tolerance)
    w = torch.tensor([1.3, 0.7, -0.5], dtype=torch.float64)[: points.shape[-1]]
    for h in (
        lambda z: z[..., 0].tanh(), lambda z: z[..., -1].tanh(), lambda z: (z @ w).cos(),
        lambda z: (z[..., 0] * z[..., 1]).tanh(), lambda z: (-z.square().sum(-1)).exp(),
    ):  # fmt: skip
        drawn, expected = h(z), (h(points) * mass).sum() / mass.sum()
        error = drawn.std() / n**0.5
        assert (drawn.mean() - expected).abs() < 5 * error + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in SLOW if line != "Flow(CNF)"])
def test_draws_by_bisection_go_as_far_as_the_density(line):
    """In one dimension the share beyond 10 is known by the base's distribution function."""
    prior, n = build(line.replace(")", ", base=Normal(scale=40))"), (1,)).requires_grad_(False), 300
    x = torch.tensor([[-900.0], [-80.0], [-11.0], [-9.0], [0.3], [10.5], [400.0]]).double()
    with torch.no_grad():
        p = prior()
        base = torch.distributions.Normal(0.0, 40.0)
        below, above = base.cdf(p.transform(torch.tensor([[-10.0], [10.0]]).double()))
        share = (1 - above + below).item()
        z = p.expand([n]).sample()
    assert share > 0.2
    assert abs((z.abs() > 10).double().mean() - share) < 4 * (share * (1 - share) / n) ** 0.5
    u = p.transform(x).detach().requires_grad_()
    back = p.transform.inv(u)
    assert ((back - x).abs() < 1e-5 * (1 + x.abs() + x.square() / 10)).all()
    (slope,) = torch.autograd.grad(back.sum(), u)
    _, ladj = p.transform.call_and_ladj(back.detach())
    assert torch.allclose(slope.log(), -ladj.reshape(slope.shape), atol=1e-5)


def test_spike_and_slab_by_its_parts():
    one = ours.SpikeAndSlab(torch.tensor(0.4), torch.tensor(1.0), torch.tensor(0.5))
    p, keep = one.expand([N]), torch.tensor(0.4).sigmoid()
    z = p.sample()
    x = torch.linspace(-6, 8, 4001)
    slab = torch.trapezoid(one.log_prob(x.where(x != 0, 1e-9)).exp(), x)  # without the point 0
    assert slab.item() == pytest.approx(keep.item(), abs=1e-4)
    assert p.log_prob(torch.zeros(N))[0].exp().item() == pytest.approx(1 - keep.item(), abs=1e-6)
    assert abs((z != 0).float().mean() - keep) < 5 * (keep * (1 - keep) / N).sqrt()
    assert (z.mean() - p.mean[0]).abs() < 5 * z.std() / N**0.5
    assert z[z != 0].std().item() == pytest.approx(0.5, rel=0.03)


SERVED = {  # prior: its guide
    "Mixture(Normal(loc=learned, scale=learned), components=3)": "Normal",
    "VampPrior(components=4)": "Normal",
    "VampPrior(components=4, logits=learned)": "MultivariateNormal",
    "Flow(NSF, transforms=1)": "Normal",
    "Flow(RealNVP, transforms=1)": "Flow(IAF, transforms=1)",
    "Resampled(Normal)": "Mixture(Normal, components=2)",
    "VonMisesFisher": "VonMisesFisher",
    "Dirichlet(0.1)": "Transformed(Normal, StickBreakingTransform)",
    "Transformed(Normal, StickBreakingTransform)": "Transformed(Normal, StickBreakingTransform)",
    "Transformed(Beta, Sticks)": "Transformed(Kumaraswamy, Sticks)",
    "AutoregressiveBernoulli": "Bernoulli",
    "SpikeAndSlab(logits=learned)": "SpikeAndSlab",
    "Horseshoe(scale=learned)": "Normal",
    "GaussianProcess(RBF, lengthscale=learned)": "MultivariateNormal",
}


@pytest.mark.slow
@pytest.mark.parametrize("prior", SERVED)
def test_every_estimator_that_the_table_allows_trains_it(prior):
    def made():
        nets = {"encoder": "MLP([8])", "decoder": "MLP([8])"}
        return pv.VAE(4, 3, prior=prior, guide=SERVED[prior], seed=0, **nets)

    x, served, vae = torch.rand(6, 4).round(), [], made()
    vae.start_from(x)
    for name in pv.ESTIMATORS:
        estimator = pv.make_estimator(name)
        try:
            check_and_nest(estimator, vae.model, vae.guide, x)
        except ValueError as reason:
            assert "use" in str(reason) or "choose" in str(reason)  # what would serve
            continue
        vae.zero_grad()
        loss = estimator.elbo.loss_and_grads(vae.model, estimator.wrap(vae.guide, x), x)
        gradients = [p.grad for p in vae.parameters() if p.grad is not None]
        assert math.isfinite(loss) and all(g.isfinite().all() for g in gradients)
        assert sum(g.any() for g in gradients) > len(gradients) / 2
        served.append(name)
    assert "Trace_ELBO" in served
    assert len(served) >= 4
    history = pv.fit(made(), x, estimator=served[-1], epochs=1, batch_size=3).history
    assert history.elbo_train.notna().all()


# VampPrior


def vamp(**options):
    said = {"prior": "VampPrior(components=20)", "encoder": "MLP([8])", "seed": 0, **options}
    return pv.VAE(4, 2, **said)


def test_a_vamp_prior_is_the_guide_at_its_pseudo_inputs():
    vae = vamp()
    u, z = vae.prior.pseudo_inputs(None), torch.randn(5, 2)
    each = vae.encode(u).log_prob(z[:, None])
    assert u.shape == (20, 4)
    assert torch.allclose(vae.prior().log_prob(z), each.logsumexp(-1) - math.log(20), atol=1e-5)


def test_a_vamp_prior_keeps_no_encoder_of_its_own(tmp_path):
    vae = vamp()
    names = [name for name in vae.state_dict() if name.startswith("prior")]
    assert names == ["prior.started", "prior.pseudo_inputs.unconstrained"]
    again = copy.deepcopy(vae)
    nn.init.zeros_(again.encoder.layers[1].weight)
    z = torch.randn(5, 2)
    assert not torch.allclose(again.prior().log_prob(z), vae.prior().log_prob(z))
    loaded = pv.load(vae.save(tmp_path))
    assert torch.equal(loaded.prior().log_prob(z), vae.prior().log_prob(z))
    with pytest.raises(ValueError, match="a VampPrior needs an encoder"):
        pv.VampPrior(3)()


def test_the_encoder_learns_through_the_vamp_prior_too():
    vae = vamp()
    vae.prior().log_prob(torch.randn(5, 2)).sum().backward()
    reached = {n for n, p in vae.named_parameters() if p.grad is not None and p.grad.any()}
    assert {n.split(".")[0] for n in reached} == {"prior", "encoder", "approximation"}


@pytest.mark.parametrize("line", ["RWS", "CUBO"])
def test_a_vamp_prior_serves_no_guide_with_an_objective_of_its_own(line):
    """The encoder is the prior's too, and would follow the model's objective as well."""
    vae, x = vamp(), torch.ones(3, 4)
    with pyro.get_param_store().scope():
        with pytest.raises(ValueError, match="of guide and model: use Trace_ELBO"):
            check_and_nest(pv.make_estimator(line), vae.model, vae.guide, x)
        check_and_nest(pv.make_estimator("VIMCO"), vae.model, vae.guide, x)


@pytest.mark.slow
def test_pseudo_inputs_start_from_data_once(tmp_path):
    x = torch.rand(50, 4).round()
    vae = vamp()
    random = vae.prior.pseudo_inputs(None).clone()
    vae.start_from(x)
    start = vae.prior.pseudo_inputs(None).clone()
    assert (start.round()[:, None] == x).all(-1).any(1).all()
    assert not torch.equal(start, random)
    vae.start_from(1 - x)
    assert torch.equal(vae.prior.pseudo_inputs(None), start)
    loaded = pv.load(vae.save(tmp_path))
    loaded.start_from(1 - x)
    assert torch.equal(loaded.prior.pseudo_inputs(None), start)
    fitted = vamp()
    pv.fit(fitted, x, epochs=1, lr=1e-9)
    assert (fitted.prior.pseudo_inputs(None).round()[:, None] == x).all(-1).any(1).all()
    stays = vamp(prior="VampPrior(components=20, start=random)")
    pv.fit(stays, x, epochs=1, lr=1e-9)
    assert torch.allclose(stays.prior.pseudo_inputs(None), random, atol=1e-4)


RANGES = {  # likelihood, data with missing cells: the range of its pseudo-inputs
    "Bernoulli": (torch.tensor([0.0, 1.0, 1.0, float("nan")]), 0, 1),
    "ContinuousBernoulli": (torch.tensor([0.0, 1.0, 0.3, float("nan")]), 0, 1),
    "Poisson": (torch.tensor([0.0, 7.0, 1.0, float("nan")]), 0, math.inf),
    "Categorical(categories=3)": (torch.tensor([0.0, 2.0, 1.0, float("nan")]), 0, 2),
    "Normal": (torch.tensor([-3.0, 5.0, 0.0, float("nan")]), -math.inf, math.inf),
}


@pytest.mark.parametrize("likelihood", RANGES)
def test_pseudo_inputs_stay_in_the_range_of_x(likelihood):
    x, low, high = RANGES[likelihood]
    vae = vamp(likelihood=likelihood, missing=True)
    vae.start_from(x.expand(30, 4))
    u = vae.prior.pseudo_inputs(None)
    assert ((u >= low) & (u <= high) & u.isfinite()).all()
    assert (u[0, :3] - x[:3]).abs().max() <= 0.05
    with torch.no_grad():
        vae.prior.pseudo_inputs.unconstrained.mul_(20)
    u = vae.prior.pseudo_inputs(None)
    assert ((u >= low) & (u <= high)).all()


def test_one_hot_data_are_pseudo_inputs_on_the_simplex():
    vae = vamp(likelihood="OneHotCategorical")
    vae.start_from(torch.eye(4))
    u = vae.prior.pseudo_inputs(None)
    assert torch.allclose(u.sum(-1), torch.ones(20))
    assert (u.max(-1).values > 0.9).all()


# Mixtures


def test_components_start_apart_or_where_they_are_told():
    line = "Mixture(Normal(loc=learned, scale=learned(0.5)), components=9)"
    prior = make_part(line, Ends((2,), "prior"))().expand([3])
    assert torch.pdist(prior.loc).min() > 1e-3
    assert torch.allclose(prior.scale, torch.tensor(0.5))
    assert torch.allclose(prior.logits.exp(), torch.tensor(1 / 9))


@pytest.mark.slow
def test_a_mixture_finds_the_clusters():
    """A learned mixture prior, on data whose codes are two points apart."""
    x = torch.cat([torch.zeros(100, 6), torch.ones(100, 6)])
    bounds = {}
    for prior in ("Normal", "Mixture(Normal(loc=learned, scale=learned), components=2)"):
        vae = pv.VAE(6, 2, prior=prior, encoder="MLP([16])", decoder="MLP([16])", seed=0)
        pv.fit(vae, x, epochs=30, batch_size=50, lr="cosine(4e-2)")
        bounds[prior] = pv.elbo(vae, x, num_samples=50, seed=0).mean().item()
    normal, mixture = bounds.values()
    assert normal + 0.02 < mixture < -math.log(2) + 0.02  # log p(x) of a fair coin


def test_the_matrix_products_are_the_density():
    logits, loc = torch.randn(50).double(), 2 * torch.randn(50, 3, 4).double()
    scale = torch.rand(50, 3, 4).double() + 0.1
    p = ours.NormalMixture(logits, loc, scale, event_dim=2)
    parts = dist.Normal(loc, scale).to_event(2)
    peer = dist.MixtureSameFamily(dist.Categorical(logits=logits), parts)
    z = 2 * torch.randn(7, 5, 3, 4).double()
    expected = peer.log_prob(z)
    assert torch.allclose(p.expand([5]).log_prob(z), expected)
    assert torch.allclose(p.mean, peer.mean)
    # Multiplied out, squares of about |m / s|^2 cancel: their rounding is what float32 loses.
    single = ours.NormalMixture(logits.float(), loc.float(), scale.float(), event_dim=2)
    lost = 8 * 2**-24 * (loc / scale).square().flatten(1).sum(-1).max()
    assert (single.log_prob(z.float()) - expected).abs().max() < lost
    batch = ours.NormalMixture(logits.expand(5, 50), loc.expand(5, 50, 3, 4), scale, event_dim=2)
    assert torch.allclose(batch.log_prob(z), expected)
    assert batch.sample((6,)).shape == (6, 5, 3, 4)


@pytest.mark.slow
def test_the_path_through_a_mixture_has_the_mixtures_gradient():
    """E[f] of a mixture is the weighted sum of its components' expectations: exact."""
    leaves = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True)
        for v in ([0.3, -0.4], [[-1.0, 0.5], [1.0, -0.3]], [[0.5, 1.0], [0.8, 0.4]])
    ]
    logits, loc, scale = leaves
    mean = logits.softmax(0) @ (loc.square() + scale.square()).sum(-1)  # E |z|^2
    exact = torch.autograd.grad(mean, leaves)
    draws, n = [], 4000
    for _ in range(20):
        z = ours.NormalMixture(logits, loc, scale).rsample((n,))
        draws.append(torch.autograd.grad(z.square().sum(-1).mean(), leaves))
    for got, expected in zip(zip(*draws, strict=True), exact, strict=True):
        got = torch.stack(got)
        error = got.std(0) / 20**0.5
        assert ((got.mean(0) - expected).abs() < 5 * error).all()
        assert expected.abs().min() > 0


# Flows


def test_importing_zuko_leaves_validation_on():
    build("Flow(MAF)", (2,))
    assert torch.distributions.Distribution._validate_args
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)


# The sphere


@pytest.mark.parametrize("order", [0, 0.5, 1, 4, 24, 49.5])
def test_bessel_functions(order):
    x = torch.tensor([0.01, 0.5, 3.0, 40.0, 300.0], dtype=torch.float64)
    log, ratio = ours.bessel(order, x)
    f = special.ive(order, x.numpy())
    there = f > 1e-290
    expected = torch.tensor(f).log() - order * x.log()
    assert torch.allclose(log[there], expected[there], atol=1e-8)
    up = torch.tensor(special.ive(order + 1, x.numpy()) / f)
    assert torch.allclose(ratio[there], up[there], rtol=1e-9)
    assert ours.bessel(order, torch.zeros(1).double())[1] == 0


@pytest.mark.parametrize("d, kappa", [(2, 0.5), (3, 4.0), (5, 40.0), (30, 15.0)])
@pytest.mark.slow
def test_the_sphere_is_reparameterized_without_bias(d, kappa):
    """E[cos] and E[cos^2] are known: A and 1 - (D - 1) A / kappa."""
    k = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
    mu = torch.eye(d, dtype=torch.float64)[1]
    a = ours.VonMisesFisher(mu, k).mean[1]
    exact = [torch.autograd.grad(v, k)[0] for v in (a, 1 - (d - 1) * ours.VonMisesFisher(
        mu, k).mean[1] / k)]  # fmt: skip
    q = ours.VonMisesFisher(mu, k.expand(N)).rsample()
    cosine = q[:, 1]
    assert (cosine.mean() - a).abs() < 5 * cosine.std() / N**0.5
    assert torch.allclose(q.norm(dim=-1), torch.ones(N).double())
    leaf = torch.full((N,), kappa, dtype=torch.float64, requires_grad=True)
    z = ours.VonMisesFisher(mu, leaf).rsample()[:, 1]
    for f, expected in zip((z, z.square()), exact, strict=True):
        (each,) = torch.autograd.grad(f.sum(), leaf, retain_graph=True)
        assert (each.mean() - expected).abs() < 5 * each.std() / N**0.5
        assert expected.abs() > 1e-4


@pytest.mark.slow
def test_the_kl_on_the_sphere():
    mu = nn.functional.normalize(torch.randn(2, 4).double(), dim=-1)
    q = ours.VonMisesFisher(mu[0], torch.tensor(6.0).double())
    for p in (
        ours.VonMisesFisher(mu[1], torch.tensor(2.0).double()),
        ours.VonMisesFisher(mu[1], torch.tensor(0.0).double()),
    ):
        z = q.sample((N,))
        each = q.log_prob(z) - p.log_prob(z)
        assert (each.mean() - kl_divergence(q, p)).abs() < 5 * each.std() / N**0.5
    assert kl_divergence(q, q).abs() < 1e-12
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        ours.VonMisesFisher(torch.ones(1), torch.ones(()))


# Resampled


def test_the_normalizer_is_measured_where_training_ends():
    prior = build("Resampled(Normal, hidden=[20])", (2,)).float()
    before = prior.normalizer.clone()
    nn.init.constant_(prior.accept.bias, 1.5)
    prior.train()
    draws = torch.stack([prior().normalizer for _ in range(50)])
    assert torch.equal(prior.normalizer, before)
    prior.eval()
    assert (draws.mean() - prior.normalizer).abs() < 5 * draws.std() / 50**0.5 + 1e-3
    assert not torch.equal(prior.normalizer, before)
    assert torch.equal(prior().normalizer, prior().normalizer)


@pytest.mark.parametrize(
    ("prior", "guide", "advice"),
    [
        ("SpikeAndSlab", "Normal", "for example guide='SpikeAndSlab'"),
        ("Normal(scale=0.01)", "SpikeAndSlab", "for example guide='Normal'"),
        ("Mixture(SpikeAndSlab, components=2)", "Normal", "for example guide='SpikeAndSlab'"),
    ],
)
def test_a_mass_at_zero_is_in_prior_and_guide_or_in_neither(prior, guide, advice):
    """Else log p(x) of bits was 7.8 nats, or lacked log 2 for each dimension, in silence."""
    with pytest.raises(ValueError, match="0, as a mass of its own, or a finite number") as refused:
        pv.VAE(5, 3, prior=prior, guide=guide)
    assert advice in str(refused.value)
    assert pv.VAE(5, 3, prior="SpikeAndSlab", guide="SpikeAndSlab").z_shape == (3,)


def test_chains_do_not_leave_a_mass_at_zero():
    vae = pv.VAE(2, 1, prior="SpikeAndSlab", guide="SpikeAndSlab", seed=0)
    with pytest.raises(ValueError, match="annealing moves z along gradients: use log_evidence"):
        pv.ais(vae, torch.zeros(1, 2), seed=0)
