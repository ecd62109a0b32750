"""What a second stochastic layer buys: IWAE's models on dynamic MNIST, by held-out log p(x).

    python benchmarks/layers.py [--epochs 60] [--particles 1 5] [--seeds 0] [--models "1 layer" ..]

784-200-200-50 (tanh) beside 784-200-200-100-100-100-50 with z = (100, 50), as Burda, Grosse &
Salakhutdinov (2016, arXiv:1509.00519) have them, trained by the importance-weighted bound of K
particles. Both models are trained alike: Glorot's first weights between x and the first layer of z,
a clipped gradient, and a quarter of the epochs by the ELBO while the weight of the KL rises.
Between the layers of z the first weights stay small: with larger ones p(z1|z2) starts as noise in
the place of N(0, I), and z2 is switched off in the first epoch, as it is without the warm-up.

Each run is a folder that a later call resumes, and each finished run is a line of the results:
interrupt it as you like, call it again, or run several side by side.
"""

import argparse

import numpy as np
import torch
from common import RUNS, each, finished, keep, mnist, place, publish, table

import pyro_vae as pv

BETWEEN = "network=MLP([100, 100], activation=Tanh)"
TWO = {"layers": [100, 50], "prior": f"Hierarchy(Normal, {BETWEEN})"}
MODELS = {
    "1 layer": {"latent_dim": 50},
    "2 layers": {**TWO, "guide": f"BottomUp(Normal, {BETWEEN})"},
    "2 layers, ladder": {**TWO, "guide": f"Ladder({BETWEEN})"},
}
ESTIMATORS = {1: "Trace_ELBO"}  # the importance-weighted bound of one particle
PUBLISHED = {("1 layer", 1): 86.76, ("1 layer", 5): 85.54, ("1 layer", 50): 84.78,
             ("2 layers", 1): 85.33, ("2 layers", 5): 83.89, ("2 layers", 50): 82.90}  # fmt: skip
LR, OPTIMIZER, BATCH, WARM = 2e-3, "Adam(clip_norm=300)", 100, 0.25


def estimator(k: int) -> str:
    """The line of the importance-weighted bound."""
    return ESTIMATORS.get(k, f"RenyiELBO(alpha=0, num_particles={k})")


def start(vae: pv.VAE, seed: int) -> None:
    """Glorot's weights in every layer between x and z1."""
    torch.manual_seed(seed)
    for name, weight in vae.named_parameters():
        if weight.ndim == 2 and ".links." not in name:
            torch.nn.init.xavier_uniform_(weight)


def run(about: dict, draws: int, train: torch.Tensor, test: torch.Tensor) -> dict:
    """Train one model to the end of its budget, and measure it."""
    name, k, seed, epochs = (about[key] for key in ("model", "k", "seed", "epochs"))
    word = "".join(c for c in name if c.isalnum())
    folder = RUNS / f"layers-{word}-{k}-{epochs}-{seed}"
    networks = [pv.MLP([200, 200], activation="Tanh") for _ in range(2)]
    vae = pv.VAE(784, encoder=networks[0], decoder=networks[1], seed=seed, **MODELS[name])
    start(vae, seed)
    warm, seconds = round(WARM * epochs), 0.0
    parts = {
        "warm-up": {"epochs": warm, "lr": LR, "beta": f"linear(0, 1, epochs={warm})"},
        "run": {"epochs": epochs - warm, "lr": f"cosine({LR})", "estimator": estimator(k)},
    }
    for part, told in parts.items():
        history = pv.fit(
            vae, train, batch_size=BATCH, optimizer=OPTIMIZER, binarize="dynamic", seed=seed,
            progress=True, checkpoint_every=2, **told, **place(folder / part),
        )  # fmt: skip
        if history.interrupted:
            raise SystemExit("interrupted: call it again to go on")
        seconds += history.history.seconds.iloc[-1]
    vae.save(folder)
    found = pv.log_evidence(vae, test, num_samples=draws, seed=0)
    np.save(folder / "log_evidence.npy", found.log_evidence.numpy())
    latent = pv.latent_summary(vae, test[:1000], seed=0).dimensions
    layers = latent.index.astype(str).str.split("[").str[0] if vae.layers else np.full(50, "z")
    return {
        **about, "nll": -found.mean, "monte_carlo_error": found.monte_carlo_error,
        "elbo": pv.elbo(vae, test, num_samples=10, seed=0).mean().item(),
        "active": latent.groupby(np.asarray(layers)).active.sum().tolist(),
        "khat_above": (found.khat > 0.7).double().mean().item(),
        "seconds": seconds, "folder": folder.name,
    }  # fmt: skip


def report(rows: list[dict], epochs: int, draws: int) -> None:
    """The table: differences paired by observation and seed."""
    base = {(r["k"], r["seed"]): each(r) for r in rows if r["model"] == "1 layer"}
    lines = []
    for model, k in sorted({(r["model"], r["k"]) for r in rows}, key=lambda m: (m[1], m[0])):
        mine = [r for r in rows if (r["model"], r["k"]) == (model, k)]
        gain = [each(r) - base[k, r["seed"]] for r in mine if (k, r["seed"]) in base]
        ahead = ""
        if model != "1 layer" and gain:
            d = np.mean(gain, 0)
            ahead = f"{d.mean():.2f} ± {d.std(ddof=1) / len(d) ** 0.5:.2f}"
        lines.append([
            model, k, ", ".join(f"{r['nll']:.2f}" for r in mine), ahead,
            f"{-np.mean([r['elbo'] for r in mine]):.2f}",
            "; ".join(" + ".join(map(str, r["active"])) for r in mine),
            f"{np.mean([r['khat_above'] for r in mine]):.1%}",
            f"{np.mean([r['seconds'] for r in mine]):.0f}", PUBLISHED.get((model, k), ""),
        ])  # fmt: skip
    head = ["model", "K", f"-log p(x), {draws:,} draws, by seed", "ahead of 1 layer, paired",
            "-ELBO", "active units by layer", "k-hat > 0.7", "seconds", "published"]  # fmt: skip
    text = (
        f"Dynamic MNIST, 60,000 training and 10,000 test data, tanh, {epochs} epochs at batch "
        f"{BATCH}, `{OPTIMIZER}`: {WARM:.0%} by `Trace_ELBO` at lr {LR} while beta rises from 0 to "
        f'1, then `lr="cosine({LR})"`, K = 1 by `{estimator(1)}`, others by '
        "`RenyiELBO(alpha=0, num_particles=K)`. Nats per observation. Active: the variance of the "
        "guide's mean over 1,000 test data is above 0.01; at z2, of the mean at the mean of z1. "
        "Published: Burda et al. (2016), arXiv:1509.00519, after 3,280 epochs at batch 20.\n\n"
    )
    publish("layers", "Stochastic layers", text + table(head, lines))


def main() -> None:
    """Run what is not there yet, and publish what is."""
    say = argparse.ArgumentParser()
    say.add_argument("--epochs", type=int, default=60)
    say.add_argument("--seeds", type=int, nargs="+", default=[0])
    say.add_argument("--particles", type=int, nargs="+", default=[1, 5])
    say.add_argument("--models", nargs="+", choices=MODELS, default=["1 layer", "2 layers"])
    say.add_argument("--draws", type=int, default=1000)
    said = say.parse_args()
    data = mnist()
    train, grey = data.train.flatten(1), data.test.flatten(1)
    test = torch.rand(grey.shape, generator=torch.Generator().manual_seed(0)).lt(grey).float()
    keys = ("model", "k", "seed", "epochs")
    asked = [
        dict(zip(keys, (model, k, seed, said.epochs), strict=True))
        for seed in said.seeds for k in said.particles for model in said.models
    ]  # fmt: skip
    for about in asked:
        if not any({key: r[key] for key in keys} == about for r in finished("layers")):
            keep("layers", run(about, said.draws, train, test))
    done = finished("layers")
    report([r for r in done if r["epochs"] == said.epochs], said.epochs, said.draws)


if __name__ == "__main__":
    main()
