"""What a step costs of models of other kinds than `speed.py`'s, in one run.

    PEERS=FOLDER python benchmarks/kinds.py [--rounds 20] [--steps 20] [--only WORD ...]
        [--cpu] [--device cuda]
    python benchmarks/kinds.py --memory

Each model is stepped by this package, eager and compiled, by stock Pyro (its tutorial's Adam,
validation on) and by hand in PyTorch, eager and under ``torch.compile``; where it is not said
otherwise in ``KINDS``, by hand means the same modules and `torch.distributions` without Pyro's
messages; NumPyro, where PEERS names its folder, by `kinds_numpyro.py`. All take turns in short
rounds; this package's steps keep freed memory, as `fit` does, which goes back between rounds.
``--cpu`` takes the process's CPU time and one thread, for a machine that has other things to do.
``--memory`` measures the tensors that a step of PyTorch's holds instead.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyro
import torch
from common import publish, table
from peers import adam, compiled, fused_adam
from pyro.infer import ELBO, SVI, RenyiELBO, Trace_ELBO
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import pyro_vae as pv
from pyro_vae.core.memory import keeping_memory
from pyro_vae.infer import make_estimator

LR, BATCH = 1e-3, 100
ROUND = 0.25  # seconds that a round is to take at most
NUMPYRO = "NumPyro, jit"
WAYS = ("eager", "compiled", "stock Pyro", "by hand", "by hand, compiled", NUMPYRO)
softplus, cross_entropy = nn.functional.softplus, nn.functional.binary_cross_entropy_with_logits
Loss = Callable[[Tensor], Tensor]
Steps = Callable[..., float]  # so many steps, one without a number, and the loss of the last


@dataclass(frozen=True)
class Kind:
    """A model, its data, and how others train it.

    Attributes:
        make: the model and a batch.
        estimator: our line.
        stock: Pyro's bound.
        hand: from the model to a loss of a batch, written without Pyro.
    """

    make: Callable[[], tuple[pv.VAE, Tensor]]
    estimator: str = "Trace_ELBO"
    stock: Callable[[], ELBO] = Trace_ELBO
    hand: Callable[[pv.VAE], Loss] | None = None


def bits(*shape: int) -> Tensor:
    return torch.rand(BATCH, *shape).lt(0.3).float()


def mlps(*sizes: int, activation: str = "Tanh") -> dict[str, pv.MLP]:
    return {role: pv.MLP(sizes, activation=activation) for role in ("encoder", "decoder")}


def images(
    *shape: int,
    encoder: str = "ConvEncoder([32, 64])",
    decoder: str = "ConvDecoder([64, 32])",
) -> Callable[[], tuple[pv.VAE, Tensor]]:
    """Images of a shape, bits of them, by networks that keep it."""

    def make() -> tuple[pv.VAE, Tensor]:
        vae = pv.VAE(shape, 20, encoder=encoder, decoder=decoder, seed=0)
        return vae, bits(*shape)

    return make


def counts() -> tuple[pv.VAE, Tensor]:
    rates = torch.rand(2000).exponential_(2.0)
    likelihood = "NegativeBinomial(total_count=learned)"
    vae = pv.VAE(2000, 10, likelihood=likelihood, **mlps(128), seed=0)
    return vae, torch.poisson(rates.expand(BATCH, -1))


def mixed() -> tuple[pv.VAE, Tensor]:
    rng = np.random.default_rng(0)
    levels = np.array(list("abcd"))
    columns = {f"n{i}": rng.normal(size=BATCH) for i in range(20)}
    columns |= {f"b{i}": rng.random(BATCH) < 0.3 for i in range(20)}
    columns |= {f"k{i}": levels[np.arange(BATCH) % 4] for i in range(10)}
    data = pv.Table.from_frame(pd.DataFrame(columns))
    vae = pv.VAE(data, 10, **mlps(128, 128), seed=0)
    return vae, vae.as_data(data)


def layers() -> tuple[pv.VAE, Tensor]:
    return pv.VAE(784, layers=[50, 20], **mlps(200, 200), seed=0), bits(784)


def plain(**parts: object) -> Callable[[], tuple[pv.VAE, Tensor]]:
    """784-200-200-50 with another prior or guide."""

    def make() -> tuple[pv.VAE, Tensor]:
        return pv.VAE(784, 50, **mlps(200, 200), seed=0, **parts), bits(784)

    return make


def binary() -> tuple[pv.VAE, Tensor]:
    return pv.VAE(784, 200, prior="Bernoulli", guide="Bernoulli", **mlps(), seed=0), bits(784)


def by_distributions(vae: pv.VAE) -> Loss:
    """The ELBO of the model's own modules, without Pyro."""

    def loss(x: Tensor) -> Tensor:
        q = vae.approximate_posterior(x)
        z = q.rsample()
        p, likelihood = vae.prior_at(x), vae.decode(z, x)
        return (q.log_prob(z) - p.log_prob(z) - likelihood.log_prob(x)).sum()

    return loss


def gaussian(vae: pv.VAE) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], nn.Module]:
    """loc and scale of q(z|x), and the decoder's head of logits."""
    q, p = vae.approximation.sources, vae.likelihood.sources

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        h = vae.encoder(x)
        return q["loc"].head(h), softplus(q["scale"].head(h))

    return encode, p["logits"].head


def by_kl(vae: pv.VAE) -> Loss:
    """Bits with the Gaussian's KL in closed form."""
    encode, head = gaussian(vae)

    def loss(x: Tensor) -> Tensor:
        loc, scale = encode(x)
        logits = head(vae.decoder(loc + scale * torch.randn_like(loc)))
        fit = cross_entropy(logits, x, reduction="sum")
        return fit + (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()

    return loss


def by_counts(vae: pv.VAE) -> Loss:
    """Negative binomial, with the normalizing terms of x left out and of r once a step."""
    encode, head = gaussian(vae)
    total = nn.Parameter(torch.zeros(2000))
    vae.register_parameter("hand", total)

    def loss(x: Tensor) -> Tensor:
        loc, scale = encode(torch.log1p(x))
        logits = head(vae.decoder(loc + scale * torch.randn_like(loc)))
        r = softplus(total)
        log_p = (x + r).lgamma().sum() - len(x) * r.lgamma().sum()
        log_p = log_p - (r * softplus(logits) + x * softplus(-logits)).sum()
        return (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum() - log_p

    return loss


def by_weights(vae: pv.VAE) -> Loss:
    """IWAE of 50 particles."""
    encode, head = gaussian(vae)

    def loss(x: Tensor) -> Tensor:
        loc, scale = encode(x)
        noise = torch.randn(50, *loc.shape)
        z = loc + scale * noise
        logits = head(vae.decoder(z.flatten(0, 1))).unflatten(0, z.shape[:2])
        fit = cross_entropy(logits, x.expand_as(logits), reduction="none").sum(-1)
        log_w = (0.5 * (noise**2 - z**2) + scale.log()).sum(-1) - fit
        return -log_w.logsumexp(0).sum()

    return loss


def by_score(vae: pv.VAE) -> Loss:
    """RLOO of two particles."""
    q, head = vae.approximation.sources["logits"].head, vae.likelihood.sources["logits"].head

    def loss(x: Tensor) -> Tensor:
        logits = q(vae.encoder(x))
        z = torch.bernoulli(logits.detach().sigmoid().expand(2, *logits.shape))
        log_q = -cross_entropy(logits.expand_as(z), z, reduction="none").sum(-1)
        out = head(vae.decoder(z.flatten(0, 1))).unflatten(0, z.shape[:2])
        log_p = -cross_entropy(out, x.expand_as(out), reduction="none").sum(-1)
        reward = (log_p - log_q).detach()
        score = (reward - reward.flip(0)) * log_q
        return -(log_p + score - log_q + log_q.detach()).sum() / 2

    return loss


KINDS: dict[str, Kind] = {
    "784-200-200-50, Bernoulli": Kind(plain(), hand=by_kl),
    "convolutions, 28 x 28": Kind(images(1, 28, 28), hand=by_kl),
    "convolutions, 3 x 64 x 64": Kind(images(3, 64, 64), hand=by_kl),
    "ResNet, 28 x 28": Kind(
        images(1, 28, 28, encoder="ResNet([16, 32])", decoder="ResNet([32, 16])"), hand=by_kl
    ),
    "2,000 counts, negative binomial": Kind(counts, hand=by_counts),
    "50 mixed columns": Kind(mixed, hand=by_distributions),
    "two layers of z": Kind(layers, hand=by_distributions),
    "IWAE, K = 50": Kind(
        plain(), "RenyiELBO(alpha=0, num_particles=50)",
        lambda: RenyiELBO(0, 50, 1, vectorize_particles=True), by_weights,
    ),
    "200 bits, RLOO(2)": Kind(
        binary, "RLOO(num_particles=2)",
        lambda: Trace_ELBO(2, 1, vectorize_particles=True), by_score,
    ),
    "200 bits, DisARM": Kind(binary, "DisARM", hand=by_score),
    "VampPrior(500)": Kind(plain(prior="VampPrior(components=500)"), hand=by_distributions),
    "NSF prior": Kind(plain(prior="Flow(NSF, transforms=2)"), hand=by_distributions),
    "IAF guide": Kind(plain(guide="Flow(IAF, transforms=2)"), hand=by_distributions),
}  # fmt: skip


def steps_of(name: str, way: str, device: str) -> Steps:
    """Steps of a way, on a model of its own."""
    if way != NUMPYRO:
        return stepper(KINDS[name], way, device)
    import kinds_numpyro

    torch.manual_seed(0)
    return kinds_numpyro.stepper(name, KINDS[name].make()[1])


def stepper(kind: Kind, way: str, device: str) -> Steps:
    """Steps of a way of PyTorch's, on a model of its own."""
    torch.manual_seed(0)
    vae, x = kind.make()
    with torch.no_grad():
        vae.start_from(x)
    vae, x = vae.to(device), x.to(device)
    if way.startswith("by hand"):
        assert kind.hand is not None
        loss = kind.hand(vae.train())
        run = torch.compile(loss) if way.endswith("compiled") else loss
        optim = torch.optim.Adam(vae.to(device).parameters(), LR, fused=True)

        def by_hand(n: int = 1) -> float:
            last = 0.0
            for _ in range(n):
                optim.zero_grad()
                value = run(x)
                value.backward()
                optim.step()
                last = value.item()
            return last

        return by_hand
    stock, estimator = way == "stock Pyro", make_estimator(kind.estimator)
    guide = vae.guide if stock else estimator.wrap(vae.guide, x)
    elbo = kind.stock() if stock else estimator.elbo
    elbo = compiled(elbo) if way == "compiled" else elbo
    svi = SVI(vae.model, guide, adam() if stock else fused_adam(), elbo)
    store = {"params": {}, "constraints": {}}

    def by_svi(n: int = 1) -> float:
        kept = nullcontext() if stock else keeping_memory()  # as in `fit`
        with kept, pyro.get_param_store().scope(store), pyro.validation_enabled(stock):
            return [float(svi.step(x)) for _ in range(n)][-1]

    return by_svi


def peak(run: Steps, device: str) -> float:
    """MiB of tensors that a step makes and holds at once, gradients among them."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = profiled.profiler.kineto_results.events()
    taken = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return float(np.ptp(np.cumsum([0, *(size for _, size in taken)]))) / 2**20


def measure(name: str, told: argparse.Namespace) -> dict[str, float]:
    """Milliseconds a step of each way, ratios, and seconds of the compiled one's first steps."""
    clock = time.process_time if told.cpu else time.perf_counter
    runs, first, steps = {}, {}, {}
    for way in WAYS:
        if told.ways and way not in told.ways:
            continue
        try:
            run = steps_of(name, way, told.device)
            start = time.perf_counter()
            run(), run()
            first[way] = time.perf_counter() - start
            run()
            step = time.perf_counter() - start - first[way]
        except Exception as problem:  # a peer that cannot is no row less
            print(f"  {way}: {type(problem).__name__}: {str(problem).splitlines()[0][:150]}")
            continue
        runs[way] = run
        steps[way] = max(2, min(told.steps, int(ROUND / step)))

    def milliseconds(way: str) -> float:
        start = clock()
        value = runs[way](steps[way])
        if told.device == "cuda":
            torch.cuda.synchronize()
        assert value == value
        return (clock() - start) * 1000 / steps[way]

    found = pd.DataFrame([{way: milliseconds(way) for way in runs} for _ in range(told.rounds)])
    ms = found.median()
    row = {way: ms.get(way, np.nan) for way in WAYS}
    for ours, theirs in (
        ("compiled", "by hand"), ("compiled", "by hand, compiled"), ("compiled", NUMPYRO),
        ("compiled", "stock Pyro"), ("eager", "by hand"),
    ):  # fmt: skip
        ratio = (found[ours] / found[theirs]).median() if {ours, theirs} <= set(found) else np.nan
        row[f"{ours} / {theirs}"] = ratio
    row["compile, s"] = first.get("compiled", np.nan)
    return row


def memory(name: str, told: argparse.Namespace) -> dict[str, float]:
    """MiB of each way."""
    row = {}
    for way in told.ways or [way for way in WAYS if way != NUMPYRO]:  # its tensors are not seen
        try:
            run = steps_of(name, way, told.device)
            run(), run()
            row[way] = peak(run, told.device)
        except Exception as problem:  # as above
            print(f"  {way}: {type(problem).__name__}: {str(problem).splitlines()[0][:150]}")
    return row


def page(rows: dict[str, dict[str, float]]) -> str:
    """The rows as a table of the ways that ran; a dash where one could not."""
    frame = pd.DataFrame(rows).T.dropna(axis=1, how="all").rename_axis("").reset_index()
    cells = frame.map(lambda v: ("-" if v != v else f"{v:.2f}") if isinstance(v, float) else v)
    return table(list(map(str, cells.columns)), cells.to_numpy().tolist())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20, help="of a round, at most")
    parser.add_argument("--only", nargs="*", default=[], help="kinds whose name holds a word")
    parser.add_argument("--ways", nargs="*", default=[], choices=WAYS)
    parser.add_argument("--cpu", action="store_true", help="CPU time of one thread")
    parser.add_argument("--memory", action="store_true", help="MiB in place of time")
    parser.add_argument("--device", default="cpu")
    told = parser.parse_args(arguments)
    if told.cpu:
        torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = {}
    for name in KINDS:
        if not told.only or any(word in name for word in told.only):
            rows[name] = (memory if told.memory else measure)(name, told)
            print(name, {k: round(float(v), 2) for k, v in rows[name].items()}, flush=True)
    device = "" if told.device == "cpu" else f"_{told.device}"
    device += "_numpyro" if NUMPYRO in told.ways else ""
    how = (
        f"Milliseconds a step at batch {BATCH}; medians of {told.rounds} rounds of at most "
        f"{told.steps} steps and {ROUND} s, ratios round by round; "
        f"{'CPU time' if told.cpu else 'time'} of {torch.get_num_threads()} threads, {told.device}."
    )
    name, title = "kinds", "What a step costs by kind of model"
    if told.memory:
        how = "MiB of tensors that a step at batch 100 makes and holds at once, with gradients."
        name, title = "kinds_memory", "What a step holds by kind of model"
    publish(f"{name}{device}", title, f"{how}\n\n{page(rows)}")


if __name__ == "__main__":
    main()
