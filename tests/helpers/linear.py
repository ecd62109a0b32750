"""A linear-Gaussian VAE, of which everything is known in closed form."""

import math

import torch
from torch.distributions import MultivariateNormal

import pyro_vae as pv

X, Z, SCALE = 5, 2, 0.7


def linear_vae(guide="full", scale_factor=1.0, shift=0.0, weight_factor=1.0, mix=0.0):
    """z ~ N(0, I), x ~ N(Wz + b, s^2 I); the guide's mean is the posterior's, plus a shift.

    Args:
        guide: ``"full"`` has the posterior's covariance, ``"mean-field"`` its precision's diagonal.
        scale_factor: multiplies the guide's scale.
        shift: is added to the guide's mean.
        weight_factor: multiplies W.
        mix: how much of the first latent dimension's weights the second has too.
    """
    line = "MultivariateNormal(scale_tril=learned)" if guide == "full" else "Normal(scale=learned)"
    vae = pv.VAE(
        X, Z, likelihood=f"Normal(scale={SCALE})", guide=line,
        encoder=pv.MLP([]), decoder=pv.MLP([]), seed=1,
    ).double()  # fmt: skip
    with torch.no_grad():
        decoder = vae.likelihood.sources["loc"].head
        generator = torch.Generator().manual_seed(0)
        w = torch.randn(X, Z, generator=generator, dtype=torch.float64) * weight_factor
        w[:, 1] += mix * w[:, 0]
        decoder.weight.copy_(w)
        precision = torch.eye(Z, dtype=torch.float64) + w.T @ w / SCALE**2
        encoder = vae.approximation.sources["loc"].head
        encoder.weight.copy_(torch.linalg.solve(precision, w.T) / SCALE**2)
        encoder.bias.copy_(shift - encoder.weight @ decoder.bias)
        if guide == "full":
            name, value = "scale_tril", torch.linalg.cholesky(precision.inverse())
        else:
            name, value = "scale", precision.diagonal().rsqrt()
        source = vae.approximation.sources[name]
        source.unconstrained.copy_(source.transform.inv(scale_factor * value))
    return vae


def marginal(vae):
    """p(x), exactly."""
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight.detach(), head.bias.detach()
    return MultivariateNormal(b, w @ w.T + SCALE**2 * torch.eye(X, dtype=torch.float64))


def posterior(vae, x):
    """p(z|x), exactly."""
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight.detach(), head.bias.detach()
    precision = torch.eye(w.shape[1], dtype=torch.float64) + w.T @ w / SCALE**2
    mean = torch.linalg.solve(precision, w.T @ (x - b).T).T / SCALE**2
    return MultivariateNormal(mean, precision_matrix=precision)


def z_scores(found, exact):
    """Of an estimate of log p(x): its expectation is lower by half the squared error."""
    bias = 0.5 * found.standard_error**2
    return (found.log_evidence + bias - exact) / found.standard_error


def pooled(z):
    """Standard normal under the null: the mean of independent z-scores, times the root of n."""
    return z.mean().item() * math.sqrt(len(z))
