"""What 1,000 draws of a gradient cost: the loop that a Pyro user would write, and the instrument.

    python benchmarks/draws.py

The loop calls ``elbo.loss_and_grads`` under Pyro's stock settings and keeps running sums of the
gradient and its square. ``compare_estimators`` measures more (by tensor: norms, products with the
reference, neighbours). Its draws come from the graph of one draw: batched, or compiled with the
moments inside. Both are of ``Trace_ELBO`` at fixed weights, in turns, in one run.
"""

import resource
import statistics
import time

import pyro
import torch
from common import publish, table
from pyro.infer import Trace_ELBO

import pyro_vae as pv
from pyro_vae.core.acting import untouched
from pyro_vae.evaluate.gradients.sample import MEASURED, Plan, sample_gradients

DRAWS, ROUNDS = 1000, 3
MODELS = {"20-10-2": 16, "784-64-8": 16, "784-200-200-50": 100}  # and its data
TARGETS = {"20-10-2": 100, "784-64-8": 8, "784-200-200-50": 3}


def model(widths: str) -> pv.VAE:
    """A Bernoulli VAE with these widths, from x to z and back."""
    x, *hidden, z = map(int, widths.split("-"))
    networks = [pv.MLP(h, activation="Tanh") for h in (hidden, hidden[::-1])]
    return pv.VAE(x, z, encoder=networks[0], decoder=networks[1], seed=0)


def stock(vae: pv.VAE, x: torch.Tensor) -> float:
    """Seconds of the loop that a user of Pyro would write."""
    start = time.perf_counter()
    parameters, elbo = list(vae.parameters()), Trace_ELBO()
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for _ in range(DRAWS):
        vae.zero_grad()
        elbo.loss_and_grads(vae.model, vae.guide, x)
        for p, a, b in zip(parameters, first, second, strict=True):
            a += p.grad
            b += p.grad.square()
    return time.perf_counter() - start


def ours(vae: pv.VAE, x: torch.Tensor, *, compile: bool) -> tuple[float, float]:
    """Seconds of the instrument's draws, and of all with what comes before them."""
    start = time.perf_counter()
    plan = Plan(vae, x, DRAWS, burn_in=1, seed=0, compile=compile)
    sample = sample_gradients(plan, pv.make_estimator("Trace_ELBO"), MEASURED)
    return sample.elapsed, time.perf_counter() - start


def main() -> None:
    """Measure and publish."""
    rows = []
    for widths, batch in MODELS.items():
        torch.manual_seed(0)
        x = torch.rand(batch, int(widths.split("-")[0])).lt(0.13).float()
        vae = model(widths)
        loop: list[float] = []
        draws: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for turn in range(ROUNDS + 1):
            with pyro.get_param_store().scope(), untouched(vae):
                seconds = stock(vae, x)
            with pyro.validation_enabled(False), untouched(vae):
                found = {compiled: ours(vae, x, compile=compiled) for compiled in draws}
            if turn:  # the first round warms up
                loop.append(seconds)
                for compiled, pair in found.items():
                    draws[compiled].append(pair)
        base = statistics.median(loop)
        rows.append([widths, batch, "stock loop", f"{base:.3f}", f"{min(loop):.3f}", "1", ""])
        for compiled, pairs in draws.items():
            alone, whole = zip(*pairs, strict=True)
            middle = statistics.median(alone)
            cells = [f"{middle:.3f}", f"{min(alone):.3f}", f"{base / middle:.1f}"]
            name = "graph, compiled" if compiled else "graph of a draw"
            rows.append([widths, batch, name, *cells, f"{statistics.median(whole) - middle:.2f}"])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    head = ["model", "data", "", "seconds, median", "minimum", "times faster", "set-up, s"]
    aim = ", ".join(f"{times} at {widths}" for widths, times in TARGETS.items())
    note = f"{DRAWS:,} draws. Aim: {aim}. Peak memory of the whole run: {memory:.2f} GB."
    publish("draws", "What gradient draws cost", f"{table(head, rows)}\n\n{note}")


if __name__ == "__main__":
    main()
