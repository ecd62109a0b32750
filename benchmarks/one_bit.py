"""One bit in n pixels: what a continuous latent pays for it, and what a discrete one does.

The data are the two points 0...0 and 1...1, so log p(x) is at most -ln 2.

python benchmarks/one_bit.py
"""

import math

import numpy as np
import torch
from common import publish, table
from scipy.optimize import minimize
from scipy.special import expit, log_expit

import pyro_vae as pv

SIZES = (1, 5, 10, 100)
PUBLISHED = (0.6931, 1.066, 1.141, 1.426)
BIT = dict(prior="Bernoulli", guide="Bernoulli", estimator="TraceEnum_ELBO")
MODELS = {
    "normal prior and guide": dict(estimator="TraceMeanField_ELBO"),
    "mixture of two normals as the guide": dict(guide="Mixture(Normal, components=2)"),
    "mixture of two normals as the prior": dict(
        prior="Mixture(Normal(loc=learned, scale=learned), components=2)"
    ),
    "one bit as the latent": BIT,
}


def losses(
    n: int, *, epochs: int = 2000, seeds: int = 2, estimator: str = "Trace_ELBO", **parts: str
) -> list[float]:
    """Minus the ELBO, nats per observation, after training from each start; all maps are linear."""
    x = torch.tensor([0.0, 1.0]).repeat(50)[:, None].expand(-1, n).contiguous()
    found = []
    for seed in range(seeds):
        vae = pv.VAE(n, 1, encoder=pv.MLP([]), decoder=pv.MLP([]), seed=seed, **parts)
        pv.fit(
            vae, x, estimator=estimator, epochs=epochs, batch_size=len(x),
            lr=f"cosine({0.2 / n**0.5})",  # n equal pixels move the encoder n times as far
            optimizer="Adam(betas=[0.9, 0.9])",  # slopes fall by orders of magnitude: forget soon
            compile=False, seed=seed,
        )  # fmt: skip
        found.append(-pv.elbo(vae, x, num_samples=2000, seed=0).mean().item())
    return found


def exact(n: int) -> float:
    """The least loss of normal prior and guide with linear maps, by quadrature and a search.

    It is over the decoder's logits w z + b, and mean and scale of the guide at each of the points.
    """
    noise = np.linspace(-8, 8, 16_001)
    weights = np.exp(-0.5 * noise**2)
    weights /= weights.sum()

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = theta[:2]
        value, gradient = 0.0, np.zeros(6)
        for i, sign in ((2, 1), (4, -1)):
            m, s = theta[i], math.exp(theta[i + 1])
            z = m + s * noise
            logit = sign * (w * z + b)
            slope = -n * sign * weights * expit(-logit)
            value += -n * (weights @ log_expit(logit)) + 0.5 * (m * m + s * s - 1) - math.log(s)
            gradient[:2] += slope @ z, slope.sum()
            gradient[i] += w * slope.sum() + m
            gradient[i + 1] += w * s * (slope @ noise) + s * s - 1
        return value / 2, gradient / 2

    starts = np.random.default_rng(0).normal(size=(10, 6)) * [5, 1, 1, 0.5, 1, 0.5]
    starts[0] = 5, 0, 1, -1, -1, -1
    return min(float(minimize(loss, start, jac=True).fun) for start in starts)


def main() -> None:
    """Train them all and publish."""
    rows = [
        ["published (Shu 2017), one layer", *(f"{v:.3f}" for v in PUBLISHED)],
        ["normal prior and guide, the optimum", *(f"{exact(n):.3f}" for n in SIZES)],
    ]
    for name, parts in MODELS.items():
        rows.append([name, *(f"{min(losses(n, **parts)):.3f}" for n in SIZES)])
    note = (
        "Loss in nats per observation, the best of two starts; the floor is "
        f"ln 2 = {math.log(2):.3f}. Encoder and decoder are linear, the latent has one dimension. "
        "The optimum is by quadrature and a quasi-Newton search over the decoder's line and "
        "the guide's mean and scale at both points."
    )
    publish("one_bit", "One bit", f"{table(['', *(f'n = {n}' for n in SIZES)], rows)}\n\n{note}")


if __name__ == "__main__":
    main()
