"""What a Program costs beside the VAE that it is made of: gradient draws and log p(x).

python benchmarks/programs.py
"""

import time
from collections.abc import Callable
from functools import partial

import pyro
import torch

import pyro_vae as pv

SIZES = ((20, 10, 2, 16, 1000), (784, 200, 50, 100, 100))  # cells, hidden, latent, data, draws
ROUNDS = 3


def seconds(function: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print a line for each size and function: the shortest of a few rounds, in turn."""
    for cells, hidden, latent, n, draws in SIZES:
        with pyro.get_param_store().scope():
            x = torch.rand(n, cells, generator=torch.Generator().manual_seed(0)).round()
            net = f"MLP([{hidden}])"
            vae = pv.VAE(cells, latent_dim=latent, encoder=net, decoder=net, seed=0).eval()
            program = pv.Program(vae.model, vae.guide, x)
            lines = ["Trace_ELBO"]
            calls = {
                "compare_estimators": partial(
                    pv.compare_estimators, estimators=lines, num_draws=draws
                ),
                "log_evidence": partial(pv.log_evidence, num_samples=500, num_simulated=0),
            }
            for name, call in calls.items():
                rounds = [
                    (seconds(partial(call, vae, x)), seconds(partial(call, program)))
                    for _ in range(ROUNDS)
                ]
                one, other = map(min, zip(*rounds, strict=True))
                print(
                    f"{cells}-{hidden}-{latent}, {n} data: {name} {one:.2f} s of the VAE, "
                    f"{other:.2f} of the program, ratio {other / one:.2f}"
                )


if __name__ == "__main__":
    main()
