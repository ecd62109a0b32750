"""Estimators of importance-weighted bounds, against enumeration over all draws of the particles."""

import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch

from helpers.bounds import exact, part
from helpers.gradients import (
    bit_model,
    copied,
    draws,
    iwae_by_enumeration,
    right,
    right_in_plates,
    z_scores,
)
from pyro_vae import SpecError, make_estimator
from pyro_vae.infer import OVIS, RLOO, VIMCO
from pyro_vae.infer.estimators.bounds import Bound, Convex, Renyi


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3])
def test_ovis_is_unbiased_for_bits(k, bits):
    vae, x = bits
    right(*draws(f"OVIS(num_particles={k})", vae, x), iwae_by_enumeration(vae, x, k), vae)


@pytest.mark.slow
def test_ovis_is_unbiased_with_sites_in_different_plates(plates):
    right_in_plates(OVIS(2), plates, 2)


COPIES = 1000  # a slope's standard error is .015 with them
LOGIT, LOG_W = 0.6, (0.0, 0.7)  # of a bit, and log w of its two values


def one_bit():
    """Copies of a bit with given log weights: the guide's gradient is by the score alone."""

    def guide():
        p = pyro.param("p", lambda: torch.full((COPIES,), LOGIT).double())
        with pyro.plate("copies", COPIES):
            pyro.sample("b", dist.Bernoulli(logits=p))

    def model():
        p = torch.full((COPIES,), LOGIT).double()
        with pyro.plate("copies", COPIES):
            b = pyro.sample("b", dist.Bernoulli(logits=p))
            pyro.factor("weight", LOG_W[0] + (LOG_W[1] - LOG_W[0]) * b)

    return model, guide


def exact_slope(k):
    """Of the K-particle bound in the logit of q, by the number of ones among K bits."""
    logit = torch.tensor(LOGIT).double().requires_grad_()
    ones = torch.arange(k + 1).double()
    q = dist.Bernoulli(logits=logit)
    log_q = [q.log_prob(torch.tensor(v).double()) for v in (0.0, 1.0)]
    fixed = [v.detach() for v in log_q]
    log_w = [LOG_W[v] + fixed[v] - log_q[v] for v in (0, 1)]
    terms = torch.stack([(k - ones).log() + log_w[0], ones.log() + log_w[1]])
    mass = dist.Binomial(k, logits=logit).log_prob(ones).exp()
    bound = (mass * (terms.logsumexp(0) - math.log(k))).sum()
    return torch.autograd.grad(bound, logit)[0]


@pytest.mark.slow
@pytest.mark.parametrize("make, slope", [(OVIS, 0.5), (VIMCO, -0.5)])
def test_the_signal_to_noise_ratio_has_the_slope_of_theory(make, slope):
    """In log SNR against log K: Liévin et al. have 1/2, and for VIMCO Rainforth et al. -1/2."""
    ks, found = [32, 64, 128, 256], []
    for k in ks:
        sample = copied(make(k), *one_bit())
        wanted = exact_slope(k)
        assert abs(sample.mean() - wanted) < 5 * sample.std() / COPIES**0.5
        found.append((wanted.abs() / sample.std()).log())
    log_k = torch.tensor(ks).double().log()
    centred = log_k - log_k.mean()
    assert abs((centred * torch.stack(found)).sum() / centred.square().sum() - slope) < 0.1


class Multiple(VIMCO):
    """VIMCO with a multiple of the others' mean weight in the place of each."""

    multiple = 0.0

    def _instead_of_each(self, log_w):
        others = (log_w.exp().sum(0) - log_w.exp()) / (self.num_particles - 1)
        return (self.multiple * others).log()


@pytest.mark.slow
@pytest.mark.parametrize("multiple, slope", [(0.0, -3.0), (0.3, -1.0)])
def test_of_multiples_of_the_mean_only_none_has_the_rate_of_vimco_star(multiple, slope):
    """In log variance against log K: what is left of the multiple weighs every score by c / K."""
    ks, found = [32, 64, 128], []
    for k in ks:
        elbo = Multiple(k)
        elbo.multiple = multiple
        sample = copied(elbo, *one_bit())
        assert abs(sample.mean() - exact_slope(k)) < 5 * sample.std() / COPIES**0.5
        found.append(sample.var().log())
    log_k = torch.tensor(ks).double().log()
    centred = log_k - log_k.mean()
    error = (2 / COPIES) ** 0.5 / centred.square().sum() ** 0.5  # of normal draws; tails add some
    assert abs((centred * torch.stack(found)).sum() / centred.square().sum() - slope) < 5 * error


@pytest.mark.parametrize("k", [2, 5])
def test_vargrad_is_rloo(k):
    """The gradient of half the sample variance of log w, in the guide's parameters alone."""
    (vae, x), seen = bit_model(4), []

    def guide(x):
        with poutine.trace() as kept:
            vae.guide(x)
        seen.append(kept.trace.nodes["z"]["value"])

    elbo = make_estimator(f"VarGrad(num_particles={k})").elbo
    assert isinstance(elbo, RLOO)
    elbo.loss_and_grads(vae.model, guide, x)
    parameters = [p for n, p in vae.named_parameters() if n.startswith("encoder")]
    found, z = [-p.grad for p in parameters], seen[-1]
    q, prior = vae.approximate_posterior(x), vae.prior()
    log_p = (prior.log_prob(z) + vae.decode(z).log_prob(x)).detach()
    wanted = torch.autograd.grad((log_p - q.log_prob(z)).var(0).sum() / 2, parameters)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, -other, atol=1e-12) and (one != 0).any()


# Groups of particles, by pairs of values of one normal latent on a grid.


def agrees(gradients, vae, value, which):
    wanted, mask = part(vae, value, which)
    assert z_scores(gradients[:, mask], wanted).abs().max() < 5
    assert (wanted != 0).sum() > 0.8 * len(wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, of_model, of_guide",
    [
        ("MIWAE(num_particles=4)", Renyi(2, 0.0), Renyi(2, 0.0)),
        ("MIWAE(num_particles=3)", Bound(), Bound()),
        ("MIWAE(num_particles=2, groups=1)", Renyi(2, 0.0), Renyi(2, 0.0)),
        ("PIWAE(num_particles=2)", Renyi(2, 0.0), Bound()),
        ("CIWAE(num_particles=2, beta=0.3)", Convex(2, 0.3), Convex(2, 0.3)),
    ],
)
def test_model_and_guide_ascend_what_is_said(line, of_model, of_guide, small):
    vae, x = small
    gradients, values = draws(line, vae, x)
    agrees(gradients, vae, exact(vae, x, of_model), "model")
    agrees(gradients, vae, exact(vae, x, of_guide), "guide")
    assert z_scores(values[:, None], exact(vae, x, of_model).detach()).abs() < 5
    assert make_estimator(line).bound == of_model


def test_the_guide_of_piwae_is_that_of_miwae(small):
    vae, x = small
    found = []
    for name in ("PIWAE", "MIWAE"):
        pyro.set_rng_seed(3)
        found.append(draws(f"{name}(num_particles=6, groups=3)", vae, x, batches=3, copies=2)[0])
    _, mask = part(vae, exact(vae, x, Bound()), "guide")
    assert torch.allclose(found[0][:, mask], found[1][:, mask], rtol=1e-9)
    assert not torch.allclose(found[0], found[1], rtol=1e-3)


def test_groups_divide_the_particles():
    message = "groups divides num_particles=6, so it is one of 1, 2, 3, 6, got 4"
    with pytest.raises(SpecError, match=message):
        make_estimator("MIWAE(num_particles=6, groups=4)")
    with pytest.raises(SpecError, match=r"beta is a fraction between 0 and 1, got 1\.5"):
        make_estimator("CIWAE(beta=1.5)")
