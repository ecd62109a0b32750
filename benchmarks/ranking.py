"""The variance of gradient estimators along one training run: Bernoulli latents, static MNIST.

    python benchmarks/ranking.py [--steps 10000] [--state runs/ranking.pt]

A linear VAE 784-200-784 is trained by DisARM. Beside it every estimator that has parameters of its
own (baselines, REBAR's temperature, RELAX's network, Double CV's factor) trains them at the same
weights on the same fresh batches, without a hand on the model. At some steps all are drawn many
times on one fixed batch; all score two values of z per datum and gradient. Interrupt it as you
like, and call it again: it goes on from its last measurement.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from common import RESULTS, publish, table
from priors import static_mnist
from pyro.infer import ELBO
from pyro.infer.util import MultiFrameTensor
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.infer import CompiledELBO, MuProp
from pyro_vae.infer.control_variates import pull
from pyro_vae.infer.points import spread


class Baselined(MuProp):
    """MuProp as in its paper, with NVIL's baseline: of what the first-order expansion leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 1))

    def _estimates(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Tensor, Tensor]:
        pyro.module("MuProp.baseline", self.network)
        self.predicted = self.network(args[0])
        return super()._estimates(model, guide, args, kwargs)

    def _slopes(self, cost: MultiFrameTensor, sites: list[Any]) -> list[Tensor]:
        (site,), f = sites, spread(cost, sites[0])
        mean = site["infer"]["mean"]
        (slope,) = torch.autograd.grad(f[1].sum(), mean, retain_graph=True)
        score = (site["value"][0] - mean).detach()
        self.rest = (f[0] - f[1]).detach() - (slope * score).sum(-1, keepdim=True)
        left = self.rest - self.predicted.detach()
        return [left * score + pull(slope, mean, site["infer"]["kind"])]

    def _surrogate(self, gradients: list[Tensor], sites: list[Any]) -> Tensor:
        return super()._surrogate(gradients, sites) - (self.rest - self.predicted).square().sum()


LINES: dict[str, str | type[ELBO]] = {
    "REINFORCE": "Trace_ELBO(gradient=score, num_particles=2)",
    "NVIL": "TraceGraph_ELBO(gradient=score, baseline=neural, num_particles=2)",
    "MuProp": "MuProp",
    "MuProp + NVIL": Baselined,
    "REBAR": "REBAR",
    "RELAX": "RELAX",
    "ARM": "ARM",
    "RLOO(2)": "RLOO(num_particles=2)",
    "DoubleCV(2)": "DoubleCV(num_particles=2)",
    "DisARM": "DisARM",
}
TRAINS = "DisARM"
PUBLISHED = [  # the first has the larger variance
    ("REINFORCE", "NVIL"), ("NVIL", "MuProp + NVIL"), ("MuProp + NVIL", "REBAR"), ("ARM", "DisARM"),
    ("RLOO(2)", "DisARM"),
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

    def __init__(self, line: str | type[ELBO], vae: pv.VAE, x: Tensor) -> None:
        estimator = pv.make_estimator(line if isinstance(line, str) else line())
        estimator.check(vae.model, vae.guide, x)
        self.vae, self.guide = vae, estimator.wrap(vae.guide, x)
        self.network = estimator.network or getattr(estimator.elbo, "network", nn.Module())
        self.elbo: Any = CompiledELBO(estimator.elbo, announce=False)
        groups = [
            {"params": [p for p in self.network.parameters() if (p.ndim == 0) == number], "lr": lr}
            for number, lr in ((True, LR_NUMBERS), (False, LR_NETWORKS))
        ]
        self.optim = torch.optim.Adam(groups) if any(g["params"] for g in groups) else None

    def gradient(self, x: Tensor, seed: int) -> list[Tensor]:
        """Of the ELBO per datum in the guide's parameters; the estimator's own stay in ``grad``."""
        for p in (*self.vae.parameters(), *self.network.parameters()):
            p.grad = None
        torch.default_generator.manual_seed(seed)
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
    return [*vae.encoder.parameters(), *vae.posterior.parameters()]


class Run:
    """The trajectory and what was measured on it, kept in one file."""

    def __init__(self, x: Tensor, file: Path) -> None:
        self.x, self.file, self.step, self.rows = x, file, 0, []
        self.vae = pv.VAE(
            784, 200, prior="Bernoulli(logits=learned)", guide="Bernoulli",
            encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0,
        )  # fmt: skip
        torch.manual_seed(0)
        self.lines = {name: Line(line, self.vae, x[:BATCH]) for name, line in LINES.items()}
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


def report(rows: list[dict], learned: dict[str, str]) -> None:
    """The table, the published inequalities, and the picture."""
    from matplotlib import pyplot

    steps = sorted({r["step"] for r in rows})
    at = {(r["line"], r["step"]): r for r in rows}
    head = ["", *(f"{s:,}" for s in steps)]

    def cells(form: Callable[[int], str]) -> list[str]:
        return [form(step) for step in steps]

    order = sorted(LINES, key=lambda name: -at[name, steps[-1]]["variance"])
    body = [["ELBO of 1,000 training data", *cells(lambda s: f"{at[TRAINS, s]['elbo']:.1f}")]]
    for name in order:
        one = lambda s, name=name: at[name, s]  # noqa: E731
        line = f": `{LINES[name]}`" if isinstance(LINES[name], str) else ""
        body.append([f"{name}{line}", *cells(
            lambda s, one=one: f"{one(s)['variance']:.3g} ± {one(s)['error']:.1g}")])  # fmt: skip
    ratios = [
        [f"{a} / {b}", *cells(
            lambda s, a=a, b=b: f"{at[a, s]['variance'] / at[b, s]['variance']:.3g}")]
        for a, b in PUBLISHED
    ]  # fmt: skip
    figure, ax = pyplot.subplots(figsize=(8.4, 5.2), layout="constrained")
    for i, name in enumerate(order):
        values = [at[name, s]["variance"] for s in steps]
        style = "--" if name in learned else "-"
        ax.plot(steps, values, style, color=f"C{i}", marker="o", ms=3, lw=1.4, label=name)
    ax.set(xscale="log", yscale="log", xlabel="step of the shared trajectory",
           ylabel="variance of one gradient of the guide,\ntrace, (nats per datum)²",
           title="784-200-784, Bernoulli latents, static MNIST")  # fmt: skip
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), title="dashed: learns")
    figure.savefig(RESULTS / "ranking.png", dpi=130)
    text = (
        f"A linear VAE 784-200-784 with Bernoulli latents and a learned prior, static MNIST, "
        f"trained by {TRAINS}, batch {BATCH}, Adam at {LR:g}. Variance of one gradient of the "
        "guide (trace of the covariance, and its standard error; (nats per datum)²) on one fixed "
        f"batch of {BATCH} training data, {DRAWS} draws, by step of that one trajectory. **Every "
        "gradient takes two evaluations of log p(x, z) per datum**: REINFORCE, NVIL, RLOO and "
        "Double CV two draws, ARM and DisARM an antithetic pair, MuProp the draw and the mean, "
        "REBAR and RELAX the draw and a relaxed one. Those that learn do so along "
        "the trajectory, from its start and on its batches, by Adam at "
        f'{LR_NUMBERS:g} (numbers) and {LR_NETWORKS:g} (networks). MuProp is the package\'s; "MuProp + NVIL" has '
        "the learned baseline of its paper too.\n\n"
        + table(head, body)
        + "\n\nThe order that was published, as ratios of these variances, above 1 where it "
        "appears (Dong et al. 2020, arXiv:2006.10680; Tucker et al. 2017, arXiv:1703.07370):\n\n"
        + table(head, ratios)
        + "\n\nWhat was learned by the last step: "
        + "; ".join(f"{name} {what}" for name, what in learned.items() if what)
        + ".\n\n![variance by step](ranking.png)"
    )
    publish("ranking", "Variance of gradient estimators on one trajectory", text)


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
    say.add_argument("--state", type=Path, default=Path("runs/ranking.pt"))
    said = say.parse_args()
    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        run = Run(static_mnist()["train"], said.state)
        for step in STEPS:
            if run.step < step <= said.steps:
                run.to(step)
                run.measure()
    learning = {name: numbers(line.network) for name, line in run.lines.items() if line.optim}
    report(run.rows, learning)


if __name__ == "__main__":
    main()
