"""MNIST in parts: three quarters predicted from one, and digits by their label.

``python benchmarks/halves.py`` trains, on MNIST whose bits are drawn once, a conditional VAE of
three quarters of an image given its lower left one, as Pyro's tutorial "CVAE" does, beside that
tutorial's baseline, a network from the one to the pixels of the others; then a VAE of whole images
given their label, whose draws a classifier of real ones is asked about. It writes
``benchmarks/results/halves.md``; ``--part quarters`` or ``--part labels`` measures one of the two,
and the other's last figures stay in the table.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from common import finished, keep, mnist, publish, table
from torch import Tensor, nn
from torch.nn import functional

import pyro_vae as pv

BATCH = 100
ABOUT = {
    "quarters": "The quarter that is known is the lower left one. Baseline 196-500-500-588; VAE of "
    "30 latents, networks 500-500, prior normal given the quarter, linear in it.",
    "labels": "Digits by their label: 5 latents (of 20, 10 and 5, chosen by other draws), networks "
    "of 500, prior normal given the label; the judges are convolutional networks, of real digits' "
    "bits and of their grey values.",
}
Loss = Callable[[Tensor, Tensor], Tensor]


def bits(x: Tensor, seed: int) -> Tensor:
    """Drawn once, with the grey values as their probabilities."""
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).lt(x).float()


def quarters(x: Tensor) -> tuple[Tensor, Tensor]:
    """The lower left quarter of images ``(N, 28, 28)``, and the others, each as a row."""
    known = torch.zeros(28, 28, dtype=torch.bool)
    known[14:, :14] = True
    return x[:, known], x[:, ~known]


def train(network: nn.Module, x: Tensor, y: Tensor, loss: Loss, epochs: int) -> nn.Module:
    """A plain network with Adam: a tenth is held out, and the best epoch kept."""
    optimizer, best = torch.optim.Adam(network.parameters(), 1e-3), (float("inf"), {})
    n = len(x) * 9 // 10
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(n).split(BATCH):
            optimizer.zero_grad()
            loss(network(x[rows]), y[rows]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            held_out = loss(network(x[n:]), y[n:]).item()
        if held_out < best[0]:
            best = held_out, {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(best[1])
    return network


def bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    """Minus the log likelihood of an image, the mean over images."""
    every = functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return every.sum(1).mean()


def classifier() -> nn.Module:
    """A small convolutional one, of images as rows."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * 49, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def train_vae(
    x: Tensor,
    c: Tensor,
    told: argparse.Namespace,
    model: dict[str, Any],
    *,
    validation: float | None = None,
) -> pv.VAE:
    """Our VAE of rows x given rows c: with validation data, of its best epoch."""
    vae = pv.VAE(x.shape[1], condition=c.shape[1], seed=told.seed, **model)
    pv.fit(
        vae,
        {"x": x, "condition": c},
        epochs=told.epochs,
        batch_size=BATCH,
        lr="cosine(1e-3)",
        seed=told.seed,
        compile=True,
        progress=False,
        beta=told.beta,
        validation=validation,
        patience=told.epochs if validation else None,
    )
    return vae


def by_quarter(x: Tensor, test: Tensor, told: argparse.Namespace) -> list[list[object]]:
    """Rows of the table: the conditional log likelihood of three quarters."""
    (c, rest), (c_test, rest_test) = quarters(x), quarters(test)
    start = time.perf_counter()
    torch.manual_seed(told.seed)
    hidden = nn.Linear(196, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU()
    baseline = train(nn.Sequential(*hidden, nn.Linear(500, 588)), c, rest, bernoulli, told.epochs)
    with torch.no_grad():
        logits = baseline(c_test)
    each = -functional.binary_cross_entropy_with_logits(logits, rest_test, reduction="none").sum(1)
    between = time.perf_counter()
    model = {
        "latent_dim": 30,
        "prior": "Normal(loc=amortized, scale=amortized)",
        "encoder": "MLP([500, 500])",
        "decoder": "MLP([500, 500])",
    }
    vae = train_vae(rest, c, told, model, validation=0.1)
    trained = time.perf_counter()
    some = {"x": rest_test[: told.test], "condition": c_test[: told.test]}
    ours = pv.log_evidence(vae, some, num_samples=told.draws, num_simulated=0, seed=0)
    gain = ours.log_evidence - each[: told.test]
    return [
        ["baseline network, log p(three quarters given one), nats", said(each)],
        [f"the same, of the {told.test:,} that follow", said(each[: told.test])],
        [f"conditional VAE, a lower bound by {told.draws} draws of z", said(ours.log_evidence)],
        ["its gain, image by image", said(gain)],
        ["seconds: baseline, conditional VAE", f"{between - start:.0f}, {trained - between:.0f}"],
    ]


def by_label(data: pv.Data, x: Tensor, test: Tensor, told: argparse.Namespace) -> list[list]:
    """Rows of the table: which label a classifier sees in digits that were drawn given one."""
    labels, test_labels = data.train_labels, data.test_labels
    assert labels is not None and test_labels is not None
    labels = labels[: len(x)]
    torch.manual_seed(told.seed)
    grey, test_grey = (torch.as_tensor(part[:]).flatten(1) for part in (data.train, data.test))
    seen = {"bits": (x.flatten(1), test.flatten(1)), "grey": (grey[: len(x)], test_grey)}
    judges, rows = {}, []
    for name, (real, real_test) in seen.items():
        loss, epochs = functional.cross_entropy, told.judge_epochs
        judges[name] = train(classifier(), real, labels.long(), loss, epochs)
        with torch.no_grad():
            right = judges[name](real_test).argmax(1) == test_labels
        rows.append([f"real test digits, {name}, classified right", share(right)])
    start = time.perf_counter()
    c = functional.one_hot(labels.long(), 10).float()
    model = {
        "latent_dim": 5,
        "prior": "Normal(loc=amortized, scale=amortized)",
        "encoder": "MLP([500])",
        "decoder": "MLP([500])",
    }
    vae = train_vae(x.flatten(1), c, told, model)
    seconds = time.perf_counter() - start
    asked = torch.arange(10)
    given = {"x": torch.zeros(10, 784), "condition": torch.eye(10)}
    for name, mean in (("bits", False), ("grey", True)):
        drawn = vae.sample(500, given=given, mean=mean, seed=0)
        with torch.no_grad():
            right = judges[name](drawn.flatten(0, 1)).argmax(1).view(500, 10) == asked
        worst = right.double().mean(0)
        what = "means of p(x given z), as grey values" if mean else "bits"
        rows.append(
            [
                f"5,000 digits drawn by label, {what}, classified right",
                f"{share(right)} (worst: {int(worst.argmin())}, {worst.min():.1%})",
            ]
        )
    held = {"x": test.flatten(1), "condition": functional.one_hot(test_labels.long(), 10).float()}
    bound = said(pv.elbo(vae, held, seed=0))
    return [*rows, ["ELBO of test digits", bound], ["seconds of training", f"{seconds:.0f}"]]


def said(values: Tensor) -> str:
    """A mean with its standard error."""
    return f"{values.double().mean():.2f} ± {values.double().std() / len(values) ** 0.5:.2f}"


def share(right: Tensor) -> str:
    """A share with its binomial standard error."""
    p = right.double().mean().item()
    return f"{p:.2%} ± {(p * (1 - p) / right.numel()) ** 0.5:.2%}"


def main() -> None:
    """Train all, and publish the table."""
    say = argparse.ArgumentParser()
    say.add_argument("--part", choices=["quarters", "labels"])
    say.add_argument("--epochs", type=int, default=12)
    say.add_argument("--beta", default="linear(10, 1, epochs=6)")
    say.add_argument("--judge-epochs", type=int, default=4)
    say.add_argument("--images", type=int, default=60_000, help="to train on, the first ones")
    say.add_argument("--test", type=int, default=1000)
    say.add_argument("--draws", type=int, default=500)
    say.add_argument("--seed", type=int, default=0)
    told = say.parse_args()
    how = {"epochs": told.epochs, "beta": told.beta}
    data = mnist()
    x, test = (bits(torch.as_tensor(p[:]).view(-1, 28, 28), 0) for p in (data.train, data.test))
    x = x[: told.images]
    if told.part != "labels":
        rows = by_quarter(x, test, told)
        keep("halves", {"part": "quarters", "n": len(x), **how, "rows": rows})
    if told.part != "quarters":
        rows = by_label(data, x, test, told)
        keep("halves", {"part": "labels", "n": len(x), **how, "rows": rows})
    parts = {row["part"]: row for row in finished("halves")}
    text = (
        f"MNIST, bits drawn once; Adam at 1e-3, batch {BATCH}, seed {told.seed}; mean and standard "
        "error over test images."
    )
    for name, about in ABOUT.items():
        if name in parts:
            part = parts[name]
            size = f"{part['n']:,} images, {part['epochs']} epochs, beta {part['beta']}. "
            text += f"\n\n{size}{about}\n\n{table(['figure', 'value'], part['rows'])}"
    publish("halves", "MNIST in parts", text)


if __name__ == "__main__":
    main()
