"""What a Program costs beside the VAE that it is made of: gradient draws and log p(x).

python benchmarks/programs.py
"""

import time
from collections.abc import Callable
from functools import partial

import pyro
import torch
from common import publish, table

import pyro_vae as pv

SIZES = ((20, 10, 2, 16, 1000), (784, 200, 50, 100, 1000))  # cells, hidden, latent, data, draws
ROUNDS = 3


def seconds(function: Callable[[], object]) -> float:
    """Of one call, of the processor: others may use the machine."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    """A row for each size and function: the shortest of a few rounds, in turn."""
    rows = []
    for cells, hidden, latent, n, draws in SIZES:
        with pyro.get_param_store().scope():
            x = torch.rand(n, cells, generator=torch.Generator().manual_seed(0)).round()
            net = f"MLP([{hidden}])"
            vae = pv.VAE(cells, latent_dim=latent, encoder=net, decoder=net, seed=0).eval()
            program = pv.Program(vae.model, vae.guide, x)
            calls = {
                f"`compare_estimators`, {draws:,} draws": partial(
                    pv.compare_estimators, estimators=["Trace_ELBO"], num_draws=draws
                ),
                "`log_evidence`, 500 draws": partial(
                    pv.log_evidence, num_samples=500, num_simulated=0
                ),
            }
            for name, call in calls.items():
                rounds = [
                    (seconds(partial(call, vae, x)), seconds(partial(call, program)))
                    for _ in range(ROUNDS)
                ]
                one, other = map(min, zip(*rounds, strict=True))
                size = f"{cells}-{hidden}-{latent}, {n} observations"
                rows.append([size, name, f"{one:.2f}", f"{other:.2f}", f"{other / one:.2f}"])
    head = ["model", "function", "VAE", "program", "ratio"]
    text = f"Seconds of a processor, the least of {ROUNDS} rounds in turn.\n\n"
    publish("programs", "A program beside the VAE that it is made of", text + table(head, rows))


if __name__ == "__main__":
    main()
