"""Where a step's time goes beyond hand-written PyTorch's: the eager path, part by part.

    python benchmarks/eager.py [--rounds 40]

784-200-200-50 (tanh), Bernoulli, batches of 100 and 1,000, CPU time of one thread. The parts are
run in turns in short rounds, and the least of each is taken: other work may go on beside it.
"""

import argparse
import time
from collections.abc import Callable

import pandas as pd
import pyro
import pyro.poutine as poutine
import torch
from common import publish
from peers import PEERS, compiled, fused_adam, vae
from pyro.infer import SVI, Trace_ELBO
from speed import BATCHES, page, ready
from torch import Tensor, nn

STEPS = 5


def parts(x: Tensor) -> dict[str, Callable[[], object]]:
    """The parts of a step, each to be called alone; some hold others."""
    model, store = vae(), {"params": {}, "constraints": {}}
    elbo, optim = Trace_ELBO(), fused_adam()
    svi = SVI(model.model, model.guide, optim, elbo)
    captured = SVI(model.model, model.guide, optim, compiled(elbo, "capture"))
    q, p = model.approximate_posterior(x), model.decode(torch.zeros(len(x), 50))
    z, prior = q.rsample(), model.prior()
    q_parts, p_parts = model.approximation.sources, model.likelihood.sources

    def networks() -> Tensor:
        h = model.encoder(x)
        loc, scale = (q_parts[name].head(h) for name in ("loc", "scale"))
        return p_parts["logits"].head(model.decoder(loc + scale))

    def within(run: Callable[[], object]) -> Callable[[], object]:
        def inside() -> object:
            with pyro.get_param_store().scope(store), pyro.validation_enabled(False):
                return run()

        return inside

    def plain() -> object:
        with torch.no_grad():
            return model.decode(model.approximate_posterior(x).sample())

    def densities() -> Tensor:
        return (p.log_prob(x) + prior.log_prob(z) - q.log_prob(z)).sum()

    def update() -> None:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optim(model.parameters())

    loss = densities()

    def run_twice() -> None:
        guide = poutine.trace(model.guide).get_trace(x)
        poutine.trace(poutine.replay(model.model, guide)).get_trace(x)

    def registered() -> None:
        model._register("encoder", "approximation", "prior", "decoder", "likelihood")

    def by_hand_densities() -> Tensor:
        fit = nn.functional.binary_cross_entropy_with_logits(
            p.base_dist.logits,
            x,
            reduction="sum",
        )
        return fit + (0.5 * (z**2 + z**2 - 1) - z.abs().log()).sum()

    return {
        "whole step": within(lambda: svi.step(x)),
        "whole step, captured": within(lambda: captured.step(x)),
        "loss and gradient": within(lambda: elbo.loss_and_grads(model.model, model.guide, x)),
        "guide and model, traced": within(run_twice),
        "guide and model as distributions, untraced, no graph": plain,
        "of it: layers and heads alone, with graph": networks,
        "parameters told to Pyro, untraced": within(registered),
        "encoder's inputs": lambda: model.inputs(x),
        "log densities": densities,
        "log densities as one writes them by hand": by_hand_densities,
        "backward of log densities": lambda: loss.backward(retain_graph=True),
        "optimizer": update,
    }


def measure(batch: int, rounds: int) -> pd.Series:
    """Milliseconds of CPU time: the whole by hand, and the parts of ours."""
    bits = ready(torch.rand(batch, 784), batch)[:STEPS]
    hand = PEERS["PyTorch by hand, eager"](bits, bits[0])
    runs = {"whole step by hand": hand.steps} | {
        name: (lambda run=run: [run() for _ in range(STEPS)])
        for name, run in parts(bits[0]).items()
    }
    found: list[dict[str, float]] = []
    for _ in range(rounds + 2):
        row = {}
        for name, run in runs.items():
            start = time.process_time()
            run()
            row[name] = (time.process_time() - start) * 1000 / STEPS
        found.append(row)
    return pd.DataFrame(found[2:]).min().rename(f"batch {batch:,}")


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    told = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = pd.concat([measure(batch, told.rounds) for batch in BATCHES], axis=1)
    for batch in BATCHES:
        column = f"batch {batch:,}"
        found[f"of by hand, {batch:,}"] = found[column] / found[column]["whole step by hand"]
    how = (
        f"CPU time of one thread, ms, the least of {told.rounds} rounds of {STEPS} calls. Parts "
        "overlap: those below hold one another, and are run alone."
    )
    text = page(found.rename_axis("").reset_index())
    publish("profile", "Where an eager step's time goes", f"{how}\n\n{text}")


if __name__ == "__main__":
    main()
