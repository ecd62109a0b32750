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

SIZES = (1, 5, 10, 100, 1000)
PUBLISHED = (0.6931, 1.066, 1.141, 1.426, 1.486)
FLAT = "Mixture(Normal(loc=learned, scale=learned), components=2)"
MODELS = {
    "normal prior and guide": dict(),
    "mixture of two normals as the guide": dict(guide="Mixture(Normal, components=2)"),
    "mixture of two normals as the prior": dict(prior=FLAT),
    "one bit as the latent": dict(prior="Bernoulli", guide="Bernoulli"),
}


def losses(n: int, *, epochs: int = 1500, seeds: int = 3, **parts: str) -> list[float]:
    """Minus the ELBO in nats per datum after training, for each start; all maps are linear."""
    x = torch.tensor([0.0, 1.0]).repeat(50)[:, None].expand(-1, n).contiguous()
    enumerated = parts.get("guide") == "Bernoulli"
    found = []
    for seed in range(seeds):
        vae = pv.VAE(n, 1, encoder=pv.MLP([]), decoder=pv.MLP([]), seed=seed, **parts)
        pv.fit(
            vae, x, estimator="TraceEnum_ELBO" if enumerated else "Trace_ELBO", epochs=epochs,
            batch_size=len(x), lr=f"cosine({0.1 if n < 100 else 0.02})", compile=False, seed=seed,
        )  # fmt: skip
        found.append(-pv.elbo(vae, x, num_samples=2000, seed=0).mean().item())
    return found


def exact(n: int) -> float:
    """The least loss of normal prior and guide with linear maps, by quadrature.

    The decoder's logits are w z, the guide's mean is m or -m and its scale s: by symmetry no biases
    are needed.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w, m, log_s = theta
        s = math.exp(log_s)
        logit = w * (m + s * nodes)
        slope = weights * -n * expit(-logit)
        kl = 0.5 * (m * m + s * s - 1) - log_s
        value = -n * (weights * log_expit(logit)).sum() + kl
        return value, np.array([
            (slope * (m + s * nodes)).sum(), (slope * w).sum() + m,
            (slope * w * s * nodes).sum() + s * s - 1,
        ])  # fmt: skip

    starts = [(1.0, 1.0, -0.5), (0.1, 0.1, 0.0), (5.0, 1.0, -1.0), (20.0, 1.5, -1.0)]
    return min(minimize(loss, start, jac=True).fun for start in starts)


def main() -> None:
    """Train them all and publish."""
    rows = [
        ["published (Shu 2017), one layer", *(f"{v:.3f}" for v in PUBLISHED)],
        ["normal prior and guide, the optimum", *(f"{exact(n):.3f}" for n in SIZES)],
    ]
    for name, parts in MODELS.items():
        rows.append([name, *(f"{min(losses(n, **parts)):.3f}" for n in SIZES)])
    note = (
        f"Loss in nats per datum, the best of three starts; the floor is ln 2 = {math.log(2):.3f}. "
        "Encoder and decoder are linear, the latent has one dimension. The optimum is by "
        "quadrature and a quasi-Newton search over the decoder's slope and the guide's mean and "
        "scale."
    )
    publish("one_bit", "One bit", f"{table(['', *(f'n = {n}' for n in SIZES)], rows)}\n\n{note}")


if __name__ == "__main__":
    main()
