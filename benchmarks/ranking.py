"""The variance of gradient estimators along one training run: Bernoulli latents, static MNIST.

    python benchmarks/ranking.py [--steps 10000] [--state runs/ranking.pt]
    python benchmarks/ranking.py --list antithetic --steps 1000  # those of 2021 and 2022

A linear VAE 784-200-784 is trained by DisARM. Beside it every estimator that has parameters of its
own (baselines, REBAR's temperature, RELAX's network, Double CV's factor) trains them at the same
weights on the same fresh batches, without a hand on the model. At some steps all are drawn many
times on one fixed batch; all score two values of z per observation and gradient. Interrupt it as
you like, and call it again: it goes on from its last measurement.
"""

import argparse
from pathlib import Path
from typing import Any

import pyro
import torch
from common import RESULTS, publish, static_mnist, table
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.infer import CompiledELBO
from pyro_vae.infer.estimators.soundness import check_and_nest

LINES = {
    "REINFORCE": "Trace_ELBO(gradient=score, num_particles=2)",
    "NVIL": "TraceGraph_ELBO(gradient=score, baseline=neural, num_particles=2)",
    "MuProp": "MuProp",
    "MuProp with baseline": "MuProp(baseline=neural)",
    "REBAR": "REBAR",
    "RELAX": "RELAX",
    "ARM": "ARM",
    "RLOO(2)": "RLOO(num_particles=2)",
    "DoubleCV(2)": "DoubleCV(num_particles=2)",
    "DisARM": "DisARM",
}
ANTITHETIC = {
    "RLOO(2)": "RLOO(num_particles=2)",
    "DisARM": "DisARM",
    "RODEO(2)": "RODEO(num_particles=2)",
    "RLOO(4)": "RLOO(num_particles=4)",
    "DoubleCV(4)": "DoubleCV(num_particles=4)",
    "DisARM of two pairs": "DisARM(num_particles=2)",
    "ARMS(4)": "ARMS(num_particles=4)",
    "RODEO(4)": "RODEO(num_particles=4)",
}
LISTS = {"ranking": LINES, "antithetic": ANTITHETIC}
TRAINS = "DisARM"
PUBLISHED = [  # the first has the larger variance
    ("REINFORCE", "NVIL"), ("NVIL", "MuProp with baseline"), ("MuProp with baseline", "REBAR"),
    ("ARM", "DisARM"), ("RLOO(2)", "DisARM"), ("DisARM", "RODEO(2)"), ("RLOO(4)", "ARMS(4)"),
    ("DisARM of two pairs", "ARMS(4)"), ("ARMS(4)", "RODEO(4)"),
]  # fmt: skip
STEPS = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
BATCH, LR, DRAWS, PILOT = 50, 1e-3, 300, 32
LR_NUMBERS, LR_NETWORKS = 1e-2, 1e-3  # of what the estimators learn; REBAR's authors: 10 times LR


class Line:
    """One estimator at the model's weights, with an optimizer of its own parameters.

    Args:
        line: that says it.
        vae: the model, shared by all.
        x: a batch.
    """

    def __init__(self, line: str, vae: pv.VAE, x: Tensor) -> None:
        estimator = pv.make_estimator(line)
        check_and_nest(estimator, vae.model, vae.guide, x)
        self.vae, self.guide = vae, estimator.wrap(vae.guide, x)
        self.network = estimator.network or nn.Module()
        self.elbo: Any = CompiledELBO(estimator.elbo, announce=False)
        with pyro.get_param_store().scope() as self.store:  # two lines may be of one estimator
            pass
        groups = [
            {"params": [p for p in self.network.parameters() if (p.ndim == 0) == number], "lr": lr}
            for number, lr in ((True, LR_NUMBERS), (False, LR_NETWORKS))
        ]
        self.optim = torch.optim.Adam(groups) if any(g["params"] for g in groups) else None

    def gradient(self, x: Tensor, seed: int) -> list[Tensor]:
        """Of the mean ELBO in the guide's parameters; the estimator's own stay in ``grad``."""
        for p in (*self.vae.parameters(), *self.network.parameters()):
            p.grad = None
        torch.default_generator.manual_seed(seed)
        with pyro.get_param_store().scope(self.store):
            self.elbo.loss_and_grads(self.vae.model, self.guide, x)
        return [p.grad / -len(x) for p in guide_parameters(self.vae)]  # pyright: ignore

    def learn(self, x: Tensor, seed: int) -> None:
        """A step of the estimator's own parameters."""
        if self.optim is not None:
            self.gradient(x, seed)
            self.optim.step()

    def variance(self, x: Tensor) -> tuple[float, float]:
        """The trace of the covariance of one gradient, and its standard error."""
        center = self._mean(x, range(PILOT))
        total, squares = [torch.zeros_like(c, dtype=torch.float64) for c in center], []
        for seed in range(PILOT, PILOT + DRAWS):
            d = [g - c for g, c in zip(self.gradient(x, seed), center, strict=True)]
            squares.append(sum(float(part.square().sum()) for part in d))
            for t, part in zip(total, d, strict=True):
                t += part
        found = torch.tensor(squares, dtype=torch.float64)
        trace = found.sum() - sum(t.square().sum() for t in total) / DRAWS
        error = found.std() * PILOT / (PILOT + 1) / DRAWS**0.5
        return float(trace / (DRAWS - 1)), float(error)

    def _mean(self, x: Tensor, seeds: range) -> list[Tensor]:
        parts = zip(*(self.gradient(x, seed) for seed in seeds), strict=True)
        return [torch.stack(part).mean(0) for part in parts]


def guide_parameters(vae: pv.VAE) -> list[nn.Parameter]:
    """Those of q(z|x)."""
    return [*vae.encoder.parameters(), *vae.approximation.parameters()]


class Run:
    """The trajectory and what was measured on it, kept in one file."""

    def __init__(self, lines: dict[str, str], x: Tensor, file: Path) -> None:
        self.x, self.file, self.step, self.rows = x, file, 0, []
        self.vae = pv.VAE(
            784, 200, prior="Bernoulli(logits=learned)", guide="Bernoulli",
            encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0,
        )  # fmt: skip
        torch.manual_seed(0)
        self.lines = {name: Line(line, self.vae, x[:BATCH]) for name, line in lines.items()}
        self.optim = torch.optim.Adam(self.vae.parameters(), LR)
        own = {n: (line.network, line.optim) for n, line in self.lines.items() if line.optim}
        self.parts = {"model": (self.vae, self.optim), **own}
        if file.exists():
            kept = torch.load(file)
            self.step, self.rows = kept["step"], kept["rows"]
            for name, (module, optim) in self.parts.items():
                module.load_state_dict(kept[name][0])
                optim.load_state_dict(kept[name][1])

    def to(self, step: int) -> None:
        """Train until a step."""
        per_epoch = len(self.x) // BATCH
        while self.step < step:
            epoch, batch = divmod(self.step, per_epoch)
            order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(BATCH)[batch : min(per_epoch, batch + step - self.step)]:
                x, seed = self.x[rows], 10**6 + self.step  # apart from the seeds of the draws
                for line in self.lines.values():
                    line.learn(x, seed)
                self.lines[TRAINS].gradient(x, seed)
                self.optim.step()
                self.step += 1

    def measure(self) -> None:
        """The variances at the weights as they are."""
        bound = pv.elbo(self.vae, self.x[:1000], num_samples=1, seed=0).mean().item()
        for name, line in self.lines.items():
            variance, error = line.variance(self.x[:BATCH])
            self.rows.append({"step": self.step, "line": name, "variance": variance,
                              "error": error, "elbo": bound})  # fmt: skip
            print(f"{self.step:>7} {bound:9.2f}  {name:<12} {variance:10.4g} ± {error:.2g}")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        parts = {name: (m.state_dict(), o.state_dict()) for name, (m, o) in self.parts.items()}
        torch.save({"step": self.step, "rows": self.rows, **parts}, self.file.with_suffix(".new"))
        self.file.with_suffix(".new").replace(self.file)


EVALUATIONS = {
    "ranking": (
        "**Every gradient takes two evaluations of log p(x, z) per observation**: REINFORCE, NVIL, "
        "RLOO and Double CV two draws (with one draw the first two would have twice their "
        "variance), ARM and DisARM an antithetic pair, MuProp the draw and the mean, REBAR "
        "and RELAX the draw and a relaxed one. MuProp's paper has the learned baseline; without it "
        "what its expansion leaves has a mean that depends on x."
    ),
    "antithetic": (
        "**RLOO(2), DisARM and RODEO(2) take two evaluations of log p(x, z) per observation and "
        "gradient, the others four.** CARMS is ARMS for bits."
    ),
}


def report(rows: list[dict], learned: dict[str, str], which: str) -> None:
    """The table, the published inequalities, and the picture."""
    lines = LISTS[which]
    published = [pair for pair in PUBLISHED if set(pair) <= set(lines)]
    steps = sorted({r["step"] for r in rows})
    at = {(r["line"], r["step"]): r for r in rows}
    order = sorted(lines, key=lambda name: -at[name, steps[-1]]["variance"])
    picture(order, steps, at, learned, which)
    head = ["", *(f"{s:,}" for s in steps)]
    body = [["ELBO of 1,000 training data", *(f"{at[TRAINS, s]['elbo']:.1f}" for s in steps)]]
    for name in order:
        cells = (f"{at[name, s]['variance']:,.0f} ± {at[name, s]['error']:,.0f}" for s in steps)
        body.append([f"{name}: `{lines[name]}`", *cells])
    ratios, turned = [], []
    for a, b in published:
        pairs = [(at[a, s]["variance"], at[b, s]["variance"]) for s in steps]
        ratios.append([f"{a} / {b}", *(f"{one / other:,.3g}" for one, other in pairs)])
        turned += [f"{a} / {b} at step {s:,}" for s, (v, w) in zip(steps, pairs, strict=True)
                   if v < w]  # fmt: skip
    text = (
        f"A linear VAE 784-200-784 with Bernoulli latents and a learned prior, static MNIST, "
        f"trained by {TRAINS}, batch {BATCH}, Adam at {LR:g}. Variance of one gradient of the "
        "guide (trace of the covariance, and its standard error; (nats per observation)²) on one "
        f"fixed batch of {BATCH} training data, {DRAWS} draws, by step of that one trajectory.\n\n"
        f"{EVALUATIONS[which]} Those that learn do so along the trajectory, from "
        f"its start and on its batches, by Adam at {LR_NUMBERS:g} (numbers) and {LR_NETWORKS:g} "
        "(networks).\n\n"
        + table(head, body)
        + "\n\nThe order that was published (Dong et al. 2020, arXiv:2006.10680; Tucker et al. "
        "2017, arXiv:1703.07370; Dimitriev & Zhou 2021, arXiv:2105.14141; Shi et al. 2022, "
        "arXiv:2202.09497), as ratios of these variances, above 1 where it appears"
        + (f"; it does not: {', '.join(turned)}" if turned else "")
        + ".\n\n"
        + table(head, ratios)
        + "\n\nWhat was learned by the last step: "
        + "; ".join(f"{name} {what}" for name, what in learned.items() if what)
        + f".\n\n![variance by step]({which}.png)"
    )
    publish(which, "Variance of gradient estimators on one trajectory", text)


def picture(
    order: list[str], steps: list[int], at: dict, learned: dict[str, str], which: str
) -> None:
    """Variance by step, each a line; later ones are thinner, so that none is hidden."""
    from matplotlib import pyplot

    figure, ax = pyplot.subplots(figsize=(8.4, 5.2), layout="constrained")
    for i, name in enumerate(order):
        values = [at[name, s]["variance"] for s in steps]
        style = "--" if name in learned else "-"
        ax.plot(steps, values, style, marker="o", ms=6 - 0.4 * i, lw=3 - 0.2 * i, label=name)
    ax.set(
        xscale="log", yscale="log", xlabel="step of the shared trajectory",
        ylabel="variance of one gradient of the guide,\ntrace, (nats per observation)²",
        title="784-200-784, Bernoulli latents, static MNIST",
    )  # fmt: skip
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), title="dashed: learns")
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"{which}.png", dpi=130)


def numbers(module: nn.Module) -> str:
    """The learned numbers of an estimator, in words."""
    return ", ".join(
        f"{name.removeprefix('log_')} {p.exp().item() if 'log_' in name else p.item():.3g}"
        for name, p in module.named_parameters() if p.ndim == 0
    )  # fmt: skip


def main() -> None:
    """Train on to each of the steps, measure there and publish."""
    say = argparse.ArgumentParser()
    say.add_argument("--steps", type=int, default=10_000)
    say.add_argument("--list", choices=LISTS, default="ranking")
    say.add_argument("--state", type=Path)
    said = say.parse_args()
    state = said.state or Path(f"runs/{said.list}.pt")
    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        run = Run(LISTS[said.list], static_mnist()["train"], state)
        for step in STEPS:
            if run.step < step <= said.steps:
                run.to(step)
                run.measure()
    learning = {name: numbers(line.network) for name, line in run.lines.items() if line.optim}
    report(run.rows, learning, said.list)


if __name__ == "__main__":
    main()
