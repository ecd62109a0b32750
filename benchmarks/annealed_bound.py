"""DAIS beside the importance-weighted bound at equal evaluations of the likelihood, under BDMC.

    python benchmarks/annealed_bound.py [--steps 8] [--train 10000] [--epochs 15]

Two models whose weights are held: a linear-Gaussian one, of which log p(x) is known, and that of
benchmarks/short.py on static MNIST. Of each the guide's draws are annealed, and only the lengths of
the steps, the temperatures and the damping are learned. A draw of T steps takes T + 1 evaluations
of the likelihood with their gradients; the importance-weighted bound has as many draws, or three
times as many, as a gradient costs about three evaluations. Data are drawn from the model, whose
log p(x) is bounded from above by bidirectional annealing. Each finished model is a line of the
results, and a later call goes on.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import pyro
import pyro.poutine as poutine
import torch
from common import finished, keep, publish, table
from pyro.infer import Trace_ELBO
from short import SETTINGS, trained

import pyro_vae as pv

DATA, REPEATS, BATCH = 100, 10, 100
LEARN = {"steps": 100, "rows": 2000, "lr": 0.1}
ANNEALING = {"temperatures": 100, "chains": 4, "start": "guide", "leapfrog": 5}


def linear() -> pv.VAE:
    """Ten latent variables, twenty columns; the guide is trained, and cannot follow correlation."""
    vae = pv.VAE(20, 10, likelihood="Normal(scale=0.5)", encoder="MLP([])", decoder="MLP([])",
                 guide="Normal(scale=learned)", seed=0)  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    head = vae.likelihood.sources["loc"].head
    with torch.no_grad():
        head.weight.copy_(0.5 * torch.randn(head.weight.shape, generator=generator))
    for p in vae.likelihood.parameters():
        p.requires_grad_(False)
    pv.fit(vae, vae.sample(2000, seed=1), epochs=100, batch_size=100, lr="cosine(1e-2)", seed=0,
           progress=False)  # fmt: skip
    return vae


def exact(vae: pv.VAE, x: torch.Tensor) -> torch.Tensor:
    """log p(x) of the linear model."""
    head = vae.likelihood.sources["loc"].head
    w, b = head.weight.detach().double(), head.bias.detach().double()
    covariance = w @ w.T + 0.25 * torch.eye(len(w)).double()
    return torch.distributions.MultivariateNormal(b, covariance).log_prob(x.double())


def annealed(vae: pv.VAE, steps: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """log weights, ``(B,)``, of annealed draws, once their steps are learned; the rest is held."""
    vae.requires_grad_(False)
    dais, x = pv.callbacks.DAIS(steps=steps), vae.sample(LEARN["rows"], seed=2)
    model, guide = dais.around(vae.model, vae.guide)
    optimizer = torch.optim.Adam(dais.chain.parameters(), LEARN["lr"])
    torch.manual_seed(0)
    for step in range(LEARN["steps"]):
        optimizer.param_groups[0]["lr"] = LEARN["lr"] * (1 - step / LEARN["steps"])
        optimizer.zero_grad()
        Trace_ELBO().loss_and_grads(model, guide, x[torch.randint(len(x), (BATCH,))])
        optimizer.step()

    def log_weights(x: torch.Tensor, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        q = poutine.trace(guide).get_trace(x)
        p = poutine.trace(poutine.replay(model, q)).get_trace(x)
        for trace in (p, q):
            trace.compute_log_prob()
        terms = [
            sign * site["log_prob"]
            for sign, trace in ((1, p), (-1, q))
            for site in trace.nodes.values()
            if site["type"] == "sample" and "log_prob" in site and site["log_prob"].ndim
        ]
        return torch.stack(terms).sum(0).detach()

    return log_weights


def repeated(estimate: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """The mean estimate of each observation over some seeds."""
    return torch.stack([estimate(seed).double() for seed in range(REPEATS)]).mean(0)


def bounds_of(vae: pv.VAE, steps: int, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Each bound of each observation; that of the annealed draws is the last."""
    k = steps + 1
    found = {"ELBO": repeated(lambda seed: pv.elbo(vae, x, num_samples=k, seed=seed))}
    for n in (k, 3 * k):
        found[f"IWAE({n})"] = repeated(
            lambda seed, n=n: (
                pv.log_evidence(vae, x, num_samples=n, num_simulated=0, seed=seed).log_evidence
            )
        )
    with pyro.get_param_store().scope():
        log_weights = annealed(vae, steps)
        found[f"DAIS({steps})"] = repeated(lambda seed: log_weights(x, seed))
    return found


def measured(name: str, vae: pv.VAE, steps: int) -> list[list[str]]:
    """Rows of the table."""
    both = pv.bdmc(vae, DATA, **ANNEALING, seed=3)
    bounds = bounds_of(vae, steps, both.x)
    best, lines = [*bounds.values()][-1], []
    for line, bound in bounds.items():
        ahead, gap = best - bound, both.upper.log_evidence - bound
        found = [
            f"{mean.mean():+.2f} ± {mean.std() / len(mean) ** 0.5:.2f}" for mean in (ahead, gap)
        ]
        lines.append(
            [name, line, f"{bound.mean():.2f}", "" if bound is best else found[0], found[1]]
        )
    ends = {"BDMC, lower": both.lower.log_evidence, "BDMC, upper": both.upper.log_evidence}
    if name.startswith("linear"):
        ends["exact"] = exact(vae, both.x)
    return lines + [[name, line, f"{value.mean():.2f}", "", ""] for line, value in ends.items()]


def main() -> None:
    """What is not there yet, and the table."""
    say = argparse.ArgumentParser()
    say.add_argument("--steps", type=int, default=8)
    say.add_argument("--train", type=int, default=10_000)
    say.add_argument("--epochs", type=int, default=15)
    told = say.parse_args()
    how = replace(SETTINGS["mnist"], train=told.train, epochs=told.epochs)
    models = {
        "linear-Gaussian, 20 columns, z of 10": linear,
        f"static MNIST, {how.words}": lambda: trained("mnist", how=how)[0],
    }
    for name, make in models.items():
        about = {"model": name, "steps": told.steps}
        if not any(about.items() <= r.items() for r in finished("annealed_bound")):
            keep("annealed_bound", {**about, "rows": measured(name, make(), told.steps)})
    rows = [r for r in finished("annealed_bound") if r["steps"] == told.steps]
    head = ["model", "bound", "nats per observation", "DAIS ahead, paired", "below BDMC's upper"]
    text = (
        f"{DATA} observations drawn from each model, means of {REPEATS} estimates. DAIS learns the "
        f"lengths of its steps, temperatures and damping in {LEARN['steps']} steps of Adam; all "
        f"other weights are held. A draw of DAIS({told.steps}) takes {told.steps + 1} evaluations "
        f"of the likelihood with their gradients. BDMC by {ANNEALING}.\n\n"
    )
    lines = [line for r in rows for line in r["rows"]]
    publish("annealed_bound", "DAIS at equal evaluations", text + table(head, lines))


if __name__ == "__main__":
    main()
