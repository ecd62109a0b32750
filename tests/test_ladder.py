"""log p(x) by a normal fitted to each observation, and by annealing from it."""

import math

import pytest
import torch

import pyro_vae as pv
from helpers.linear import linear_vae, marginal, pooled, posterior, z_scores
from pyro_vae.core.pareto import tail_shape
from pyro_vae.evaluate.evidence import fitted, ladder
from pyro_vae.evaluate.evidence.fitted import fit_normal, normal_proposal
from pyro_vae.evaluate.evidence.paths import Plan
from pyro_vae.evaluate.evidence.proposals import Blend
from pyro_vae.model.joint import Joint

NORMAL = torch.distributions.Normal
OF_FIT = 3 * (fitted.LOOK + fitted.STEP + 2 * 2)  # evaluations, where one step of Newton's is exact


def narrow(**options):
    return linear_vae("mean-field", scale_factor=0.35, shift=0.2, mix=0.5, **options)


def draw(vae, n):
    return vae.sample(n, seed=100)


def test_the_fitted_normal_is_the_posterior_where_it_is_normal():
    vae = narrow()
    x = draw(vae, 6)
    loc, scale, _ = fit_normal(Joint(vae, x))
    exact = posterior(vae, x)
    sd = exact.variance.sqrt()
    assert ((loc - exact.mean) / sd).abs().max() < 1e-6
    assert torch.allclose(scale @ scale.mT, fitted.WIDER * exact.covariance_matrix, rtol=1e-6)
    assert torch.equal(scale, scale.tril()) and (scale.diagonal(dim1=1, dim2=2) > 0).all()


@pytest.mark.slow
def test_it_mends_a_guide_that_is_too_narrow():
    vae = narrow()
    x = draw(vae, 150)
    plain = pv.log_evidence(vae, x, num_samples=1000, num_simulated=0, seed=0)
    found = pv.log_evidence(vae, x, num_samples=1000, proposal="auto", seed=0)
    assert (plain.khat > 0.7).double().mean() > 0.5
    assert (found.khat < 0.7).all()
    z = z_scores(found, marginal(vae).log_prob(x))
    assert z.abs().max() < 5 and abs(pooled(z)) < 5
    assert found.proposals.count("normal") > 100
    assert found.standard_error.mean() < 0.02 < plain.standard_error.mean()
    assert "z was drawn from: normal" in found.summary() and "a lower bound" in found.summary()
    assert found.evaluations.eq(1000 + OF_FIT).all()


def test_it_costs_a_good_guide_little():
    vae = linear_vae("mean-field", scale_factor=1.3)
    x = draw(vae, 50)
    found = pv.log_evidence(vae, x, num_samples=500, proposal="auto", seed=0)
    assert set(found.proposals) == {"normal"}
    assert z_scores(found, marginal(vae).log_prob(x)).abs().max() < 5


POOR = {  # guides: what multiplies the scale, and what is added to the mean
    "far": (1.0, 30.0),
    "far and narrow": (0.1, 5.0),
    "wide": (100.0, 0.0),
    "good": (1.3, 0.0),
}


@pytest.mark.parametrize("name", POOR)
def test_a_posterior_that_is_normal_needs_no_good_guide(name):
    """The cost is that of one normal, under a twentieth of the draws, and nothing is annealed."""
    factor, shift = POOR[name]
    vae = linear_vae("mean-field", scale_factor=factor, shift=shift, mix=0.5)
    x = draw(vae, 40)
    found = pv.log_evidence(vae, x, num_samples=1000, proposal="auto", seed=0)
    assert set(found.proposals) == {"normal"} and (found.khat < 0.7).all()
    assert found.evaluations.eq(1000 + OF_FIT).all() and OF_FIT < 0.05 * 1000
    assert found.standard_error.max() < 0.03
    assert z_scores(found, marginal(vae).log_prob(x)).abs().max() < 5


@pytest.mark.slow
def test_a_posterior_that_is_not_normal_is_climbed():
    vae = pv.VAE(6, 2, decoder="MLP([8], activation=Tanh)", seed=0).double()
    with torch.no_grad():
        for weight in vae.decoder.parameters():
            weight.mul_(4.0)
    joint = Joint(vae, draw(vae, 20))
    loc, _, gradients = fit_normal(joint)
    assert gradients >= fitted.LOOK + fitted.ASCENT + fitted.STEP + 2 * 2
    z = loc[None].requires_grad_()
    (slope,) = torch.autograd.grad(joint.log_joint(z).sum(), z)
    assert slope.norm(dim=-1).median() < 0.05


@pytest.mark.slow
def test_annealing_is_left_for_the_rest(monkeypatch):
    monkeypatch.setattr(ladder, "RELIABLE", -math.inf)  # no k-hat is small enough
    monkeypatch.setattr(ladder, "NO_MEAN", -math.inf)
    monkeypatch.setattr(ladder, "ANNEALING", Plan(10, 40, "guide", 3))
    vae = narrow()
    x = draw(vae, 40)
    found = pv.log_evidence(vae, x, proposal="auto", seed=0)
    assert set(found.proposals) == {"annealing"}
    z = z_scores(found, marginal(vae).log_prob(x))
    assert z.abs().max() < 5 and abs(pooled(z)) < 5
    gradients = 3 * (10 * 18 * 10 + 40 * 9)  # of 10 chains that tune in 18 moves, and of 40
    assert found.evaluations.eq(5000 + OF_FIT + 3 * gradients).all()


def test_annealing_is_not_taken_where_its_weights_have_a_heavier_tail(monkeypatch):
    """Unless those of the draws have no mean; it costs what it costs."""
    tails = torch.tensor([0.6, 0.8, 0.9, 1.2])  # k-hats of the draws

    def forward(path):
        wait = torch.arange(1.0, 51).double().div(51).log().neg()[:, None]
        return torch.tensor([0.7, 5.0, 5.0]).double() * wait  # of those with a k-hat above 0.7

    monkeypatch.setattr(ladder, "tail_shape", lambda w: tails if len(w) > 50 else tail_shape(w))
    monkeypatch.setattr(ladder.Path, "forward", forward)
    monkeypatch.setattr(ladder, "ANNEALING", Plan(2, 50, "guide", 1))
    found = pv.log_evidence(narrow(), draw(narrow(), 4), num_samples=400, proposal="auto", seed=0)
    assert found.proposals == ("normal", "annealing", "normal", "annealing")
    assert found.evaluations[2] == found.evaluations[1] > found.evaluations[0]
    assert found.khat[2] < 0.7 < found.khat[3]  # of the draws, and of the chains


LATENTS = {  # of one number or two, for quadrature on a grid
    "positive": ("Gamma(2.0, 1.0)", "Gamma", (1,)),
    "interval": ("Beta(2.0, 2.0)", "Beta", (2,)),
    "matrix": ("Normal", "Normal", (2, 1)),
    "heavy": ("Laplace", "Normal", (2,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LATENTS)
def test_other_supports_agree_with_quadrature(name):
    prior, guide, shape = LATENTS[name]
    vae = pv.VAE(
        3, shape, prior=prior, guide=guide, likelihood="Normal(scale=0.3)",
        encoder="MLP([4])", decoder="MLP([8], activation='Tanh')", seed=1,
    ).double()  # fmt: skip
    x = draw(vae, 12)
    found = pv.log_evidence(vae, x, num_samples=2000, proposal="auto", seed=0)
    assert "normal" in found.proposals
    with torch.no_grad():
        joint = Joint(vae, x)
        transform = joint.to_support("a test")
        line = torch.linspace(-9, 9, 201 if shape != (1,) else 4001).double()
        d = math.prod(shape)
        u = torch.cartesian_prod(*[line] * d).reshape(-1, 1, *shape)
        z = transform(u).expand(-1, len(x), *shape)
        volume = transform.log_abs_det_jacobian(u, transform(u)).reshape(len(u), 1, -1).sum(-1)
        step = (line[1] - line[0]).log() * d
        exact = (joint.log_joint(z) + volume).logsumexp(0) + step
    own = torch.tensor([name == "normal" for name in found.proposals])
    assert z_scores(found, exact)[own].abs().max() < 5  # 50 chains have no error to be trusted


def test_a_discrete_z_has_the_guide():
    vae = pv.VAE(4, 3, prior="Bernoulli", guide="Bernoulli", likelihood="Normal", seed=0)
    x = torch.randn(5, 4)
    found = pv.log_evidence(vae, x, num_samples=500, proposal="auto", seed=0)
    assert set(found.proposals) == {"guide"} and found.log_evidence.isfinite().all()


def test_a_blend_is_the_mixture_of_its_parts():
    first, second = NORMAL(torch.zeros(3), 1.0), NORMAL(torch.full((3,), 4.0), 0.5)
    blend = Blend(first, second, 0.3)
    z = blend.sample(torch.Size([20_000]))
    assert ((z.mean(0) - 1.2) / (4.285 / 20_000) ** 0.5).abs().max() < 5
    exact = (0.7 * first.log_prob(z).exp() + 0.3 * second.log_prob(z).exp()).log()
    assert torch.allclose(blend.log_prob(z), exact, atol=1e-5)


@pytest.mark.slow
def test_a_normal_of_a_matrix_has_its_shape():
    vae = pv.VAE(3, (2, 2), likelihood="Normal", seed=0)
    joint = Joint(vae, torch.zeros(5, 3))
    q = normal_proposal(joint, *fit_normal(joint)[:2])
    z = q.sample(torch.Size([7]))
    assert z.shape == (7, 5, 2, 2) and q.log_prob(z).shape == (7, 5)


def test_order_is_that_of_the_data():
    vae = narrow()
    x = draw(vae, 30)
    found = pv.log_evidence(vae, x, num_samples=300, proposal="auto", seed=0)
    exact = marginal(vae).log_prob(x)
    assert torch.corrcoef(torch.stack([found.log_evidence, exact]))[0, 1] > 0.99


def test_wrong_proposals_are_refused():
    with pytest.raises(ValueError, match="proposal is 'guide' or 'auto', got 'refined'"):
        pv.log_evidence(narrow(), torch.zeros(2, 5), proposal="refined")
    with pytest.raises(ValueError, match="give one"):
        pv.log_evidence(narrow(), torch.zeros(2, 5), proposal="auto", wide=0.5)
