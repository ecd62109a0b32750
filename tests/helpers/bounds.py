"""Exact values and gradients of bounds, by quadrature or by all states."""

import itertools

import numpy as np
import torch


def grid(vae, x):
    """All z, ``(Z, N, D)``, log w and log q of each, and its probability under q."""
    if vae.approximate_posterior(x).has_rsample:
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        q = vae.approximate_posterior(x)
        z = q.base_dist.loc + q.base_dist.scale * torch.from_numpy(nodes)[:, None, None]
        mass = torch.from_numpy(weights / weights.sum())[:, None].expand(-1, len(x))
    else:
        z = torch.tensor(list(itertools.product([0.0, 1.0], repeat=vae.z_shape[0]))).double()
        z = z[:, None].expand(-1, len(x), -1)
        mass = vae.approximate_posterior(x).log_prob(z).exp()
    log_p = vae.prior().log_prob(z) + vae.decode(z).log_prob(x)
    log_q = vae.approximate_posterior(x).log_prob(z)
    return z, log_p - log_q, log_q, mass


def exact(vae, x, bound):
    """E of the bound's estimate from two particles."""
    _, log_w, _, mass = grid(vae, x)
    pair = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None]))
    return (mass[:, None] * mass[None] * bound(pair)).sum()


def part(vae, value, which):
    """The gradient, and the coordinates of guide or model."""
    guide = {n: n.split(".")[0] in ("encoder", "approximation") for n, _ in vae.named_parameters()}
    mask = [
        torch.full((p.numel(),), guide[n] == (which == "guide")) for n, p in vae.named_parameters()
    ]
    parameters = list(vae.parameters())
    grads = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in grads])[torch.cat(mask)], torch.cat(mask)
