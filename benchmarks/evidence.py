"""log p(x) where the guide's weights have heavy tails: what each way costs, beside long annealing.

    python benchmarks/evidence.py [--images 100] [--temperatures 300] [--chains 8]

Static MNIST, test images; the model of benchmarks/short.py.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable

from common import publish, table
from short import SETTINGS, images, trained

import pyro_vae as pv
from pyro_vae.evaluate import Evidence


def measured(act: Callable) -> tuple[Evidence, float]:
    """An estimate, and its seconds."""
    start = time.perf_counter()
    return act(), time.perf_counter() - start


def main() -> None:
    """Estimate, and publish the table."""
    say = argparse.ArgumentParser()
    say.add_argument("--images", type=int, default=100)
    say.add_argument("--temperatures", type=int, default=300)
    say.add_argument("--chains", type=int, default=8)
    say.add_argument("--starts", nargs="+", default=["prior", "guide"], help="of annealing")
    told = say.parse_args()
    vae, _ = trained("mnist")
    x = images("mnist")["test"][: told.images]
    ways: dict[str, Callable] = {
        "guide, 1,000 draws": lambda: pv.log_evidence(vae, x, num_samples=1000, num_simulated=0,
                                                      seed=0),
        "guide, 10,000 draws": lambda: pv.log_evidence(vae, x, num_samples=10_000, num_simulated=0,
                                                       seed=0),
        '`proposal="auto"`, 1,000 draws': lambda: pv.log_evidence(vae, x, num_samples=1000,
                                                                  proposal="auto", seed=0),
        **{
            f"`ais` from the {start}, {told.temperatures} temperatures, {told.chains} chains":
            lambda start=start: pv.ais(vae, x, temperatures=told.temperatures, start=start,
                                       chains=told.chains, leapfrog=5, seed=0)
            for start in told.starts
        },
    }  # fmt: skip
    found = {name: measured(act) for name, act in ways.items()}
    long, seconds = found[[*ways][-1]]
    lines = []
    for name, (one, its) in found.items():
        gap = one.log_evidence - long.log_evidence
        kinds = ", ".join(f"{k} {v}" for k, v in Counter(one.proposals).most_common())
        lines.append([
            name, f"{one.mean:.2f}", f"{one.monte_carlo_error:.3f}",
            f"{gap.mean().item():+.2f} ± {gap.std().item() / len(x) ** 0.5:.2f}",
            "" if one.khat.isnan().all() else f"{(one.khat > 0.7).double().mean().item():.0%}",
            "" if one.evaluations is None else f"{one.evaluations.double().mean().item():,.0f}",
            kinds, f"{its:.1f}", f"{its / seconds:.3f}",
        ])  # fmt: skip
    head = ["", "log p(x)", "Monte Carlo error", "minus long annealing", "k-hat > 0.7",
            "evaluations an image", "proposals", "seconds", "share of the time"]  # fmt: skip
    text = (
        f"Static MNIST, {len(x)} test images, nats per observation; {SETTINGS['mnist'].words}. All "
        "figures are lower bounds in expectation; annealing has 5 leapfrog steps at each "
        "temperature, and its last row is what the others are compared with.\n\n"
    )
    publish("evidence", "log p(x) by proposal", text + table(head, lines))


if __name__ == "__main__":
    main()
