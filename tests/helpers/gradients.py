"""Models whose gradients are known exactly, and draws of them."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from pyro_vae import MLP, VAE, make_estimator
from pyro_vae.infer import KLWeight
from pyro_vae.infer.estimators.soundness import check_and_nest

BATCHES, COPIES = 25, 240  # 6,000 draws; the standard error comes from the batches
MANY = 960  # copies for 24,000 draws
N = 50_000


def bit_model(n):
    """A model of n Bernoulli latents, away from symmetry, and its data."""
    pyro.set_rng_seed(0)
    vae = VAE(
        6, n, prior="Bernoulli(logits=learned)", guide="Bernoulli",
        encoder=MLP([5], activation="Tanh"), decoder=MLP([5], activation="Tanh"), seed=3,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(torch.randn_like(p) * 0.7)
    return vae, torch.rand(3, 6).lt(0.5).double()


def linear_model():
    """A linear Gaussian model, whose ELBO is a polynomial of its parameters."""
    vae = VAE(
        3, 2, prior="Normal(loc=0.3, scale=1.5)", likelihood="Normal(scale=learned(0.8))",
        guide="Normal(scale=learned(0.6))", encoder=MLP([]), decoder=MLP([]), seed=4,
    ).double()  # fmt: skip
    return vae, torch.randn(3, 3).double()


def learned_normal_model():
    """A linear Gaussian model with one z and a learned prior."""
    vae = VAE(
        3, 1, prior="Normal(loc=learned(0.2), scale=learned(1.2))",
        likelihood="Normal(scale=learned)", guide="Normal(scale=learned(0.7))",
        encoder=MLP([]), decoder=MLP([]), seed=6,
    ).double()  # fmt: skip
    return vae, torch.randn(2, 3).double()


def covering(lines):
    """Each line at four bits with a KL weight, and at one, ten or four without, in turn."""
    without = itertools.cycle([(1, 1.0), (10, 1.0), (4, 1.0)])
    return [(line, *case) for line in lines for case in ((4, 0.25), next(without))]


def exact_bits(vae, x, beta=1.0):
    """The ELBO summed over the data, by all states."""
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=vae.z_shape[0]))).double()
    q = vae.approximate_posterior(x)
    log_q = q.log_prob(states[:, None])
    log_p = vae.prior().log_prob(states)[:, None]
    log_x = vae.decode(states[:, None].expand(-1, len(x), -1)).log_prob(x)
    return (log_q.exp() * (log_x + beta * (log_p - log_q))).sum()


def exact_linear(vae, x, beta=1.0):
    """The ELBO summed over the data, by the moments of q."""
    q, scale = vae.approximate_posterior(x), vae.likelihood.sources["scale"](None)
    m, s = q.base_dist.loc, q.base_dist.scale
    head = vae.likelihood.sources["loc"].head
    error = (x - head(m)).square() + s.square() @ head.weight.square().T
    fit = (-error / (2 * scale**2) - scale.log() - 0.5 * math.log(2 * math.pi)).sum()
    prior = dist.Normal(torch.tensor(0.3).double(), torch.tensor(1.5).double())
    return fit - beta * dist.kl.kl_divergence(q.base_dist, prior).sum()


def gradient_of(value, vae):
    grads = torch.autograd.grad(value, list(vae.parameters()))
    return torch.cat([g.flatten() for g in grads])


def draws(line, vae, x, beta=1.0, batches=BATCHES, copies=COPIES):
    """Gradients of the ELBO, ``(batches, P)``, each the mean over copies of the data."""
    estimator = make_estimator(line)
    many = x.repeat(copies, 1)
    check_and_nest(estimator, vae.model, vae.guide, many)
    kl = KLWeight(beta)
    model, guide = kl(vae.model), kl(estimator.wrap(vae.guide, many))
    found, values = [], []
    with pyro.validation_enabled(False):
        for _ in range(batches):
            vae.zero_grad()
            if estimator.network is not None:
                estimator.network.zero_grad()
            loss = estimator.elbo.loss_and_grads(model, guide, many)
            found.append(torch.cat([-p.grad.flatten() for p in vae.parameters()]) / copies)
            values.append(-loss / copies)
    return torch.stack(found), torch.tensor(values, dtype=torch.float64)


def z_scores(sample, exact):
    error = sample.std(0) / len(sample) ** 0.5
    return (sample.mean(0) - exact) / error.clamp(min=1e-12)


def agree(one, two, vae, x, copies=COPIES):
    """Two estimators of one bound have the same mean gradient, which is seen not to be zero."""
    a, b = (draws(line, vae, x, copies=copies)[0] for line in (one, two))
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt().clamp(min=1e-12)
    assert ((a.mean(0) - b.mean(0)) / error).abs().max() < 5
    assert ((a.mean(0) / error).abs() > 5).sum() > 0.3 * len(error)


def right(gradients, values, exact, vae):
    """Unbiased, and zero only where the exact gradient is."""
    wanted = gradient_of(exact, vae)
    assert z_scores(gradients, wanted).abs().max() < 5
    assert z_scores(values[:, None], exact.detach()).abs().max() < 5
    assert ((gradients != 0).any(0) == (wanted != 0)).all()
    assert (wanted != 0).sum() > 0.8 * len(wanted)


def renyi_by_quadrature(vae, x, alpha):
    """E of the 2-particle Rényi bound for a 1-dimensional z, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    eps, w = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    q = vae.approximate_posterior(x)
    z = q.base_dist.loc + q.base_dist.scale * eps[:, None, None]
    log_w = vae.prior().log_prob(z) + vae.decode(z).log_prob(x) - q.log_prob(z)
    pair = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None]))
    bound = ((1 - alpha) * pair).logsumexp(0).sub(math.log(2)) / (1 - alpha)
    return (w[:, None, None] * w[None, :, None] * bound).sum()


def exact_bound(log_w, log_q, k):
    """E of the k-particle bound, over all tuples of states."""
    index = torch.cartesian_prod(*[torch.arange(len(log_w))] * k).reshape(-1, k)
    bound = log_w[index].logsumexp(1) - math.log(k)
    return (log_q[index].sum(1).exp() * bound).sum()


def iwae_by_enumeration(vae, x, k):
    """E of the k-particle bound, over all 16^k tuples of states."""
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
    log_q = vae.approximate_posterior(x).log_prob(states[:, None])
    log_x = vae.decode(states[:, None].expand(-1, len(x), -1)).log_prob(x)
    log_w = vae.prior().log_prob(states)[:, None] + log_x - log_q
    return sum(exact_bound(log_w[:, i], log_q[:, i], k) for i in range(len(x)))


def copied(elbo, model, guide, name="p"):
    """A draw of the gradient for every copy of a parameter, ``(n, ...)``: ascent."""
    with pyro.get_param_store().scope():
        elbo.loss_and_grads(model, guide)
        return -pyro.get_param_store()._params[name].grad


def spread(sample):
    """The variance and its standard error."""
    centred = sample - sample.mean()
    variance = centred.square().mean()
    return variance, ((centred**4).mean() - variance**2).div(len(sample)).sqrt()


def bernoulli_toy(p, t):
    """E[(b - t)^2]: the prior is q itself, so that log w is the cost."""
    logits = torch.tensor(p).double().logit()

    def model():
        with pyro.plate("copies", N):
            b = pyro.sample("b", dist.Bernoulli(logits=logits))
            pyro.factor("cost", (b - t) ** 2)

    def guide():
        phi = pyro.param("p", lambda: logits.repeat(N))
        with pyro.plate("copies", N):
            pyro.sample("b", dist.Bernoulli(logits=phi))

    return model, guide


def toy_variances(p, t):
    d, m, q, f = 1 - 2 * t, max(p, 1 - p), 1 - p, lambda b: (b - t) ** 2
    return {
        "Trace_ELBO(gradient=score)": p * q * (q * f(1) ** 2 + p * f(0) ** 2) - (d * p * q) ** 2,
        "RLOO(num_particles=2)": d**2 * (p * q / 2 - p**2 * q**2),
        "ARM": d**2 * (2 / 3 * (1 / 8 - abs(p - 0.5) ** 3) - p**2 * q**2),
        "DisARM": d**2 * m**2 * (1 - m) * (m - 0.5),
    }


def plated_bits():
    """One bit for all data and one for each of 3, n copies: ``(model, guide)``, exact log w."""
    x, n = torch.tensor([0.5, -0.3, 1.4]).double(), 2000
    start = {"a": [0.4], "b": [0.3, -0.6, 1.0], "w": [0.8]}

    def parameters():
        return [
            pyro.param(k, lambda v=v: torch.tensor(v).double().repeat(n, 1))
            for k, v in start.items()
        ]

    def model():
        _, _, w = parameters()
        with pyro.plate("copies", n, dim=-2):
            first = pyro.sample("first", dist.Bernoulli(logits=w / 2))
            with pyro.plate("data", 3, dim=-1):
                second = pyro.sample("second", dist.Bernoulli(logits=2 * first - w))
                pyro.sample("x", dist.Normal(first + w * second, 1.0), obs=x.expand(n, 3))

    def guide():
        a, b, _ = parameters()
        with pyro.plate("copies", n, dim=-2):
            pyro.sample("first", dist.Bernoulli(logits=a))
            with pyro.plate("data", 3, dim=-1):
                pyro.sample("second", dist.Bernoulli(logits=b))

    def exact():
        """Parameters of one copy, and log w and log q of all 16 states."""
        a, b, w = (torch.tensor(v).double().requires_grad_() for v in start.values())
        states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
        first, second = states[:, :1], states[:, 1:]
        log_q = dist.Bernoulli(logits=torch.cat([a, b])).log_prob(states).sum(1)
        log_p = dist.Bernoulli(logits=w / 2).log_prob(first).sum(1)
        log_p = log_p + dist.Bernoulli(logits=2 * first - w).log_prob(second).sum(1)
        log_p = log_p + dist.Normal(first + w * second, 1.0).log_prob(x).sum(1)
        return (a, b, w), log_p - log_q, log_q

    return model, guide, exact


def right_in_plates(elbo, plates, k, runs=16):
    """The gradient and the value of a bound of k particles, of bits in and outside of a plate."""
    model, guide, exact = plates
    found, values = [], []
    for _ in range(runs):
        with pyro.get_param_store().scope():
            values.append(-elbo.loss_and_grads(model, guide))
            found.append(torch.cat([-pyro.param(name).grad for name in "abw"], 1))
    parameters, log_w, log_q = exact()
    wanted = exact_bound(log_w, log_q, k)
    gradient = torch.cat(torch.autograd.grad(wanted, parameters))
    assert z_scores(torch.cat(found), gradient).abs().max() < 5
    values = torch.tensor(values)[:, None].double() / len(found[0])
    assert z_scores(values, wanted.detach()).abs().max() < 5
