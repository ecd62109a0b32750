"""The variance of gradient estimators along one training run: Bernoulli latents, static MNIST.

    python benchmarks/ranking.py               # all that has not been measured, and the tables
    python benchmarks/ranking.py BitFlip UGC   # these, anew
    python benchmarks/ranking.py table         # what there is

A linear VAE 784-200-784 is trained by DisARM. Beside it every estimator that has parameters of its
own (baselines, REBAR's temperature, RELAX's network, Double CV's factor) trains them at the same
weights on the same fresh batches, without a hand on the model. At some steps all are drawn many
times on one fixed batch. The trajectory is the same in each call on one machine, so that a new
estimator is measured alone.
"""

import sys
from typing import Any

import pyro
import torch
from common import RESULTS, finished, keep, publish, static_mnist, table
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.infer import CompiledELBO
from pyro_vae.infer.estimators.soundness import check_and_nest

UNBIASED = {
    "REINFORCE": "Trace_ELBO(gradient=score, num_particles=2)",
    "decaying baseline": "TraceGraph_ELBO(gradient=score, baseline=decaying, num_particles=2)",
    "NVIL": "TraceGraph_ELBO(gradient=score, baseline=neural, num_particles=2)",
    "MuProp": "MuProp",
    "MuProp with baseline": "MuProp(baseline=neural)",
    "REBAR": "REBAR",
    "RELAX": "RELAX",
    "ARM": "ARM",
    "BitFlip": "BitFlip",
    "UGC": "UGC",
    "RLOO(2)": "RLOO(num_particles=2)",
    "DoubleCV(2)": "DoubleCV(num_particles=2)",
    "RODEO(2)": "RODEO(num_particles=2)",
    "DisARM": "DisARM",
    "RLOO(4)": "RLOO(num_particles=4)",
    "DoubleCV(4)": "DoubleCV(num_particles=4)",
    "RODEO(4)": "RODEO(num_particles=4)",
    "DisARM of two pairs": "DisARM(num_particles=2)",
    "BitFlip of two pairs": "BitFlip(num_particles=2)",
    "ARMS(4)": "ARMS(num_particles=4)",
    "CARMS(4)": "CARMS(num_particles=4)",
}
RELAXED = ("concrete", "straight_through", "st_gumbel", "reinmax", "gumbel_rao", "gapped")
BIASED = {
    f"{rule}{', KL in closed form' if analytic else ''}": (
        f"Trace{'MeanField' * analytic}_ELBO(gradient={rule}, num_particles=2)"
    )
    for analytic in (False, True)
    for rule in RELAXED
}
TIGHTER = {
    "VIMCO(4)": "VIMCO(num_particles=4)",
    "OVIS(4)": "OVIS(num_particles=4)",
    "DisARMIWAE(2)": "DisARMIWAE(num_particles=2)",
    "DisARMIWAE(4)": "DisARMIWAE(num_particles=4)",
    "RWS(4)": "RWS(num_particles=4)",
    "TVO(4)": "TVO(gradient=score, num_particles=4)",
    "CUBO(4)": "CUBO(gradient=score, num_particles=4)",
}
LINES = {**UNBIASED, **BIASED, **TIGHTER}
TRAINS, NEAR = "DisARM", "RLOO(num_particles=100)"  # what bias is measured from
PUBLISHED = [  # the first has the larger variance
    ("REINFORCE", "NVIL"), ("NVIL", "MuProp with baseline"), ("MuProp with baseline", "REBAR"),
    ("ARM", "DisARM"), ("RLOO(2)", "DisARM"), ("DisARM", "RODEO(2)"), ("RLOO(2)", "RODEO(2)"),
    ("RLOO(4)", "ARMS(4)"), ("DisARM of two pairs", "ARMS(4)"), ("ARMS(4)", "RODEO(4)"),
]  # fmt: skip
STEPS = (10, 30, 100, 300, 1000)
BATCH, LR, DRAWS = 50, 1e-3, 300
LR_NUMBERS, LR_NETWORKS = 1e-2, 1e-3  # of what the estimators learn; REBAR's authors: 10 times LR
SAME = 0.05  # nats by which the ELBO at a step may differ on one trajectory


class Evaluations(Messenger):
    """How many values of log p(x|z) the model evaluates."""

    count = 0

    def _pyro_post_sample(self, msg: dict) -> None:
        if msg["is_observed"]:
            self.count += msg["fn"].batch_shape.numel()


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
        self.elbo: Any = estimator.elbo
        with pyro.get_param_store().scope() as self.store:  # two lines may be of one estimator
            pass
        groups = [
            {"params": [p for p in self.network.parameters() if (p.ndim == 0) == number], "lr": lr}
            for number, lr in ((True, LR_NUMBERS), (False, LR_NETWORKS))
        ]
        self.optim = torch.optim.Adam(groups) if any(g["params"] for g in groups) else None
        with Evaluations() as seen:
            self.gradient(x, 0)
        self.evaluations = seen.count / len(x)
        if self.optim is not None:  # it takes every step, where compilation pays
            self.elbo = CompiledELBO(estimator.elbo, announce=False)

    def gradient(self, x: Tensor, seed: int) -> Tensor:
        """Of the mean bound in the guide's parameters; the estimator's own stay in ``grad``."""
        for p in (*self.vae.parameters(), *self.network.parameters()):
            p.grad = None
        torch.default_generator.manual_seed(seed)
        with pyro.get_param_store().scope(self.store):
            self.elbo.loss_and_grads(self.vae.model, self.guide, x)
        guide = (*self.vae.encoder.parameters(), *self.vae.approximation.parameters())
        return torch.cat([p.grad.flatten() for p in guide]) / -len(x)

    def learn(self, x: Tensor, seed: int) -> None:
        """A step of the estimator's own parameters."""
        if self.network.state_dict():
            self.gradient(x, seed)
        if self.optim is not None:
            self.optim.step()

    def draws(self, x: Tensor) -> Tensor:
        """Gradients ``(DRAWS, P)``."""
        return torch.stack([self.gradient(x, seed) for seed in range(DRAWS)])

    def numbers(self) -> str:
        """The numbers that it learned, in words."""
        return ", ".join(
            f"{name.removeprefix('log_')} {p.exp().item() if 'log_' in name else p.item():.3g}"
            for name, p in self.network.named_parameters() if p.ndim == 0
        )  # fmt: skip


def variance(draws: Tensor) -> tuple[float, float]:
    """The trace of the covariance of one gradient, and its standard error."""
    squares = (draws - draws.mean(0)).square().sum(1).double()
    return float(squares.sum() / (DRAWS - 1)), float(squares.std() / DRAWS**0.5)


def squared_bias(draws: Tensor, near: Tensor) -> tuple[float, float]:
    """Of the mean gradient beside the mean of unbiased draws, and its standard error."""
    off = draws.mean(0) - near.mean(0)
    noise = (variance(draws)[0] + variance(near)[0]) / DRAWS
    spread = [((some - some.mean(0)) @ off).std() for some in (draws, near)]
    return float(off @ off - noise), float(2 * torch.stack(spread).norm() / DRAWS**0.5)


def measure(names: list[str], x: Tensor) -> None:
    """Train along the trajectory, and measure some estimators at its steps."""
    vae = pv.VAE(
        784, 200, prior="Bernoulli(logits=learned)", guide="Bernoulli",
        encoder=pv.MLP([]), decoder=pv.MLP([]), seed=0,
    )  # fmt: skip
    torch.manual_seed(0)
    first, known = x[:BATCH], {r["step"]: r["elbo"] for r in finished("ranking")}
    trains = Line(LINES[TRAINS], vae, first)
    near = Line(NEAR, vae, first) if BIASED.keys() & names else None
    lines = {name: Line(LINES[name], vae, first) for name in names}
    optim = torch.optim.Adam(vae.parameters(), LR)
    step = 0
    for epoch in range(-(-STEPS[-1] * BATCH // len(x))):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(BATCH):
            seed = 10**6 + step  # apart from the seeds of the draws
            for line in lines.values():
                line.learn(x[rows], seed)
            trains.gradient(x[rows], seed)
            optim.step()
            step += 1
            if step in STEPS:
                elbo = pv.elbo(vae, x[:1000], num_samples=1, seed=0).mean().item()
                if abs(elbo - known.get(step, elbo)) > SAME:
                    raise SystemExit(
                        f"the ELBO at step {step} is {elbo:.2f}, and was {known[step]:.2f}: on "
                        "another machine measure all anew, without results/ranking.jsonl"
                    )
                measure_at(step, elbo, lines, near, first)


def measure_at(
    step: int, elbo: float, lines: dict[str, Line], near: Line | None, x: Tensor
) -> None:
    """Keep what is measured at the weights as they are."""
    reference = near.draws(x) if near else None
    for name, line in lines.items():
        draws = line.draws(x)
        found = {"variance": variance(draws)}
        if name in BIASED and reference is not None:
            found["bias"] = squared_bias(draws, reference)
        keep("ranking", {
            "step": step, "elbo": elbo, "line": name, "evaluations": line.evaluations,
            "learned": line.numbers(), **found,
        })  # fmt: skip
        print(
            f"{step:>7} {elbo:9.2f}  {name:<22}", *(f"{v:.4g} ± {e:.2g}" for v, e in found.values())
        )


def rows_of(names: dict[str, str], at: dict, figure: str = "variance") -> list[list[str]]:
    """Rows of a table, the largest at the last step first."""
    order = sorted((n for n in names if (n, STEPS[-1]) in at),
                   key=lambda n: -at[n, STEPS[-1]][figure][0])  # fmt: skip
    return [
        [f"{n}: `{names[n]}`", f"{at[n, STEPS[-1]]['evaluations']:g}",
         *("{:,.4g} ± {:,.2g}".format(*at[n, s][figure]) for s in STEPS)]
        for n in order
    ]  # fmt: skip


def report() -> None:
    """The tables, the published inequalities, and the picture."""
    at = {(r["line"], r["step"]): r for r in finished("ranking")}
    picture(at)
    steps = [f"{s:,}" for s in STEPS]
    head = ["", "evaluations", *steps]
    bound = ["ELBO of 1,000 training data", "", *(f"{at[TRAINS, s]['elbo']:.1f}" for s in STEPS)]
    ratios, turned = [], []
    for a, b in (pair for pair in PUBLISHED if all((n, STEPS[-1]) in at for n in pair)):
        pairs = [(at[a, s]["variance"][0], at[b, s]["variance"][0]) for s in STEPS]
        ratios.append([f"{a} / {b}", *(f"{one / other:,.3g}" for one, other in pairs)])
        turned += [f"{a} / {b} at step {s:,}" for s, (v, w) in zip(STEPS, pairs, strict=True)
                   if v < w]  # fmt: skip
    absent = [n for n in LINES if (n, STEPS[-1]) not in at]
    learned = [
        f"{n} {what}" for n in LINES
        if (what := at.get((n, STEPS[-1]), {}).get("learned"))
    ]  # fmt: skip
    relaxed = (
        "\n\n## Relaxed: a small variance, and a bias\n\n" + table(head, rows_of(BIASED, at))
        + "\n\nThe squared bias (of the mean of the draws beside that of "
        f"{DRAWS} draws of `{NEAR}`, what is expected of noise taken off, with its standard "
        "error), in the same unit: the mean squared error of n averaged gradients is this and an "
        "n-th of the variance.\n\n" + table(head, rows_of(BIASED, at, "bias"))
    )  # fmt: skip
    text = (
        f"A linear VAE 784-200-784 with Bernoulli latents and a learned prior, static MNIST, "
        f"trained by {TRAINS}, batch {BATCH}, Adam at {LR:g}. Variance of one gradient of the "
        "guide (trace of the covariance, and its standard error; (nats per observation)²) on one "
        f"fixed batch of {BATCH} training data, {DRAWS} draws, by step of that one trajectory. "
        "Evaluations are of log p(x, z) per observation and gradient: compare what has as many. "
        "Those that learn do so along the trajectory, from its start and on its batches, by Adam "
        f"at {LR_NUMBERS:g} (numbers) and {LR_NETWORKS:g} (networks). MuProp's paper has the "
        "learned baseline; without it what its expansion leaves has a mean that depends on x. "
        "CARMS is ARMS for bits, and UGC is DisARM as long as no bit is nearly sure."
        + (f" Not measured yet: {'; '.join(absent)}." if absent else "")
        + " [Ten of them to 10,000 steps](ranking_long.md), [eight of few evaluations]"
        "(antithetic.md), by earlier runs.\n\n## Unbiased for the ELBO\n\n"
        + table(head, [bound, *rows_of(UNBIASED, at)])
        + "\n\nThe order that was published (Dong et al. 2020, arXiv:2006.10680; Tucker et al. "
        "2017, arXiv:1703.07370; Dimitriev & Zhou 2021, arXiv:2105.14141; Shi et al. 2022, "
        "arXiv:2202.09497), as ratios of these variances, above 1 where it appears"
        + (f"; it does not: {', '.join(turned)}" if turned else "")
        + ".\n\n" + table(["", *steps], ratios)
        + (f"\n\nWhat was learned by the last step: {'; '.join(learned)}." if learned else "")
        + "\n\n![variance by step](ranking.png)"
        + (relaxed if rows_of(BIASED, at) else "")
        + "\n\n## Other bounds, whose gradients are others too\n\n"
        "The importance-weighted bound of as many particles as stand in brackets (VIMCO, OVIS, "
        "DisARMIWAE); RWS, TVO and CUBO have objectives of their own for the guide. Only VIMCO(4), "
        "OVIS(4) and DisARMIWAE(4) estimate the same gradient.\n\n"
        + table(head, rows_of(TIGHTER, at))
    )  # fmt: skip
    publish("ranking", "Variance of gradient estimators on one trajectory", text)


def picture(at: dict) -> None:
    """Variance of the unbiased by step, each a line; dashed where more than two evaluations."""
    from matplotlib import pyplot

    figure, ax = pyplot.subplots(figsize=(9.4, 6.4), layout="constrained")
    there = [n for n in UNBIASED if (n, STEPS[-1]) in at]
    names = sorted(there, key=lambda n: -at[n, STEPS[-1]]["variance"][0])
    colors = pyplot.get_cmap("turbo")(torch.linspace(0.03, 0.97, len(names)).numpy())
    for name, color in zip(names, colors, strict=True):
        values = [at[name, s]["variance"][0] for s in STEPS]
        style = "-" if at[name, STEPS[-1]]["evaluations"] <= 2 else "--"
        ax.plot(STEPS, values, style, marker="o", ms=3, lw=1.5, color=color, label=name)
    ax.set(
        xscale="log", yscale="log", xlabel="step of the shared trajectory",
        ylabel="variance of one gradient of the guide,\ntrace, (nats per observation)²",
        title="784-200-784, Bernoulli latents, static MNIST",
    )  # fmt: skip
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5),
              title="dashed: more than\ntwo evaluations")  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "ranking.png", dpi=130)


def main() -> None:
    """Measure what is asked for, or what is not there yet, and publish."""
    done = {r["line"] for r in finished("ranking") if r["step"] == STEPS[-1]}
    names = sys.argv[1:] or [name for name in LINES if name not in done]
    names = [] if names == ["table"] else names
    if odd := [name for name in names if name not in LINES]:
        raise SystemExit(f"{odd[0]!r} is none of {', '.join(LINES)}")
    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        if names:
            measure(names, static_mnist()["train"])
    report()


if __name__ == "__main__":
    main()
