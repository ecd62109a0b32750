"""Mixtures of multivariate normals: their density, and the path from the parameters to draws."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae as pv
from helpers.gradients import draws, z_scores
from pyro_vae.core import slight
from pyro_vae.distributions import (
    LogisticLevels,
    MultivariateNormalMixture,
    mixture,
    normal_mixture,
)

K, D, N = 3, 3, 4000
A = torch.tensor([0.7, -1.1, 0.9]).double()  # the direction of a wave, of which the mean is known


def parameters(seed=0, k=K, d=D):
    """Logits, means and triangles, away from symmetry."""
    g = torch.Generator().manual_seed(seed)
    logits, loc, low = (torch.randn(s, generator=g).double() for s in ((k,), (k, d), (k, d, d)))
    return logits, loc, low.tril(-1) * 0.5 + torch.diag_embed(low.diagonal(dim1=1, dim2=2).exp())


def make(logits, loc, tril):
    components = dist.MultivariateNormal(loc, scale_tril=tril)
    return mixture(dist.Categorical(logits=logits), components)


def wave(logits, loc, tril):
    """E of sin(a'z), in closed form."""
    variance = (tril.mT @ A).square().sum(-1)
    return (logits.softmax(0) * (-variance / 2).exp() * (loc @ A).sin()).sum()


def test_the_gradient_of_a_mean_is_exact():
    torch.manual_seed(0)
    given = parameters()
    leaves = [v.clone().requires_grad_() for v in given]
    exact = torch.autograd.grad(wave(*leaves), leaves)
    copies = [v.expand(N, *v.shape).clone().requires_grad_() for v in given]
    values = (make(*copies).rsample() @ A).sin()
    assert abs(z_scores(values[:, None].detach(), wave(*given))) < 5
    found = torch.autograd.grad(values.sum(), copies)
    low = torch.ones(D, D).tril().bool()
    for name, one, wanted in zip(("logits", "loc", "tril"), found, exact, strict=True):
        if name == "tril":
            one, wanted = one[..., low], wanted[..., low]
        assert z_scores(one, wanted).abs().max() < 5 and (wanted.abs() > 1e-3).any()


@pytest.mark.parametrize("joint", [False, True])
def test_no_slope_is_too_slight_to_count(joint, monkeypatch):
    """Subnormal numbers take processors many times as long."""
    g, found = torch.Generator().manual_seed(0), []
    logits, loc = torch.randn(300, 4, generator=g), 4 * torch.randn(300, 4, 3, generator=g)
    for least in (slight.SLIGHT, 0.0):
        monkeypatch.setattr(slight, "SLIGHT", least)
        torch.manual_seed(0)
        leaves = [v.clone().requires_grad_() for v in (logits, loc)]
        tril = (0.5 * torch.eye(3)).expand(300, 4, 3, 3)
        normal = dist.Normal(leaves[1], torch.tensor(0.5)).to_event(1)
        parts = dist.MultivariateNormal(leaves[1], scale_tril=tril) if joint else normal
        z = mixture(dist.Categorical(logits=leaves[0]), parts).rsample()
        found.append(torch.autograd.grad(z.square().sum(), leaves))
        sizes = torch.cat([slope.abs().flatten() for slope in found[-1]])
        assert (sizes[sizes > 0].min() > 1e-30) == (least > 0)
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-25)


def test_draws_leave_their_parameters_as_they_are():
    loc = torch.randn(4, 3).double().requires_grad_()
    parts = dist.Normal(loc, 1).to_event(1)
    mixture(dist.Categorical(logits=torch.zeros(4).double()), parts).rsample()
    assert not loc._backward_hooks


EVEN = torch.zeros(300, 4)
MIXTURES = {  # of locations
    "normals": lambda loc: mixture(dist.Categorical(logits=EVEN), dist.Normal(loc, 0.5)),
    "another family": lambda loc: mixture(dist.Categorical(logits=EVEN), dist.Laplace(loc, 0.5)),
    "levels": lambda loc: LogisticLevels(EVEN, loc + 90, torch.full_like(loc, 0.5), 256),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_components_of_no_share_have_no_gradient(name):
    """Whatever their density is multiplied by."""
    g = torch.Generator().manual_seed(0)
    x, loc = (20 * torch.randn(300, generator=g)).round(), 20 * torch.randn(300, 4, generator=g)
    x = x + 90 if name == "levels" else x

    def log_prob(loc):
        return MIXTURES[name](loc).log_prob(x)

    loc.requires_grad_()
    slope = torch.autograd.grad(log_prob(loc).sum(), loc)[0]
    assert 1e-27 < slope.abs()[slope != 0].min() < 1e-15
    (small,) = torch.autograd.grad(1e-20 * log_prob(loc).sum(), loc)
    assert torch.allclose(1e20 * small, slope)
    parts = (dist.Laplace(loc, 0.5).log_prob(x[:, None]) - math.log(4)).logsumexp(-1)
    assert name != "another family" or torch.allclose(log_prob(loc), parts)


def test_a_density_of_none_or_of_infinity_stays_so():
    log = torch.tensor([[-math.inf, -math.inf], [0.0, math.inf], [-math.inf, 3.0]])
    assert slight.logsumexp(log).tolist() == log.logsumexp(-1).tolist() == [-math.inf, math.inf, 3]
    finite = log[[0, 2]].requires_grad_()
    (slope,) = torch.autograd.grad(slight.logsumexp(finite).sum(), finite)
    assert slope.tolist() == [[0, 0], [0, 1]]


def test_a_draw_keeps_its_uniform_variables():
    """Of one component the path is that of z = m + L e."""
    _, loc, tril = parameters(k=1)
    leaves = [v.requires_grad_() for v in (loc, tril)]
    torch.manual_seed(1)
    z = make(torch.zeros(1).double(), *leaves).rsample((5,))
    e = torch.linalg.solve_triangular(tril[0], (z - loc).mT, upper=False).mT.detach()
    again = loc[0] + e @ tril[0].mT
    weights = torch.randn(5, D).double()
    found, wanted = (torch.autograd.grad((v * weights).sum(), leaves) for v in (z, again))
    assert all(torch.allclose(f, w) for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize("d, block", [(1, 32), (3, 32), (3, 1)])
def test_a_draw_of_independent_coordinates_keeps_its_uniform_variables(d, block, monkeypatch):
    """Each coordinate's distribution function, given those before it, stays what it was."""
    monkeypatch.setattr(normal_mixture, "BLOCK", block)
    logits, loc, tril = parameters(d=d)
    leaves = [v.requires_grad_() for v in (logits, loc, tril.diagonal(dim1=1, dim2=2).clone())]
    torch.manual_seed(1)
    components = dist.Normal(*leaves[1:]).to_event(1)
    z = mixture(dist.Categorical(logits=logits), components).rsample((50,))
    e = (z[:, None] - loc) / leaves[2]
    each = (-e.square() / 2 - leaves[2].log()).cumsum(-1)
    before = torch.cat([torch.zeros_like(each[..., :1]), each[..., :-1]], -1)
    uniform = ((logits[:, None] + before).softmax(1) * torch.special.ndtr(e)).sum(1)
    left, moved = (torch.autograd.grad(v.sum(), leaves, retain_graph=True) for v in (uniform, z))
    for one, other in zip(left, moved, strict=True):
        assert one.abs().max() < 1e-9 < other.abs().max()


@pytest.mark.parametrize("kind", ["full", "low rank", "side by side"])
def test_its_density_is_that_of_its_parts(kind):
    logits, loc, tril = parameters()
    if kind == "low rank":
        parts = dist.LowRankMultivariateNormal(loc, tril[..., :1], torch.ones(K, D).double())
    elif kind == "full":
        parts = dist.MultivariateNormal(loc, scale_tril=tril)
    else:
        twice = torch.stack([loc, loc + 1], 1), torch.stack([tril, tril / 2], 1)
        parts = dist.MultivariateNormal(twice[0], scale_tril=twice[1]).to_event(1)
    q = mixture(dist.Categorical(logits=logits), parts)
    assert isinstance(q, MultivariateNormalMixture) and q.expand([4]).has_rsample
    z = q.expand([4]).rsample((2,))
    assert z.shape == (2, 4, *parts.event_shape)
    each = logits.log_softmax(0) + parts.log_prob(z.unsqueeze(-1 - parts.event_dim))
    assert torch.allclose(q.log_prob(z), each.logsumexp(-1))


@pytest.mark.slow
def test_a_guide_of_them_has_a_path_of_less_variance_than_the_score():
    vae = pv.VAE(
        6, 2, guide="Mixture(MultivariateNormal, components=3)", encoder="MLP([8])",
        decoder="MLP([8])", seed=0,
    ).double()  # fmt: skip
    x = torch.rand(5, 6).double().round()
    assert vae.approximate_posterior(x).has_rsample
    found = {}
    for rule in ("pathwise", "score"):
        pyro.set_rng_seed(0)
        found[rule], _ = draws(f"Trace_ELBO(gradient={rule})", vae, x, batches=100, copies=4)
    of_guide = torch.cat([
        torch.full((p.numel(),), not name.startswith(("decoder", "likelihood")))
        for name, p in vae.named_parameters()
    ])  # fmt: skip
    path, score = (each[:, of_guide] for each in found.values())
    assert path.var(0).sum() < score.var(0).sum() / 5
    error = (path.var(0) + score.var(0)).div(100).sqrt()
    assert ((path.mean(0) - score.mean(0)) / error.clamp(min=1e-12)).abs().max() < 5


def test_its_draws_have_first_derivatives_alone():
    with pytest.raises(ValueError, match="first derivatives only"):
        pv.VAE(
            6, 2, guide="SemiAmortized(Mixture(MultivariateNormal, components=3), steps=2)", seed=0
        )
