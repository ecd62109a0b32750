"""Simulated cells: log p(x) beside the true model's, types, batches, fold changes.

``python benchmarks/cells.py`` draws negative binomial counts of three
types of cells in two batches, trains on nine tenths of them, and writes
``benchmarks/results/cells.md``. The log likelihood of the true model is found by Laplace's normal
at each type's mode and importance weights. Both models are given the true depth of each cell.

Training starts with a KL term that counts threefold: while z says little, the decoder learns what
the batch says; else z tells the batches apart first, and the KL term takes long to undo that
(tenfold, z stays empty: the bound of validation cells tells).
Whether the batch can be told from z is a question of draws of z from q(z|x, c); of its means,
which hold more digits than q has, a classifier is asked beside it.
"""

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from common import publish, table
from scipy import sparse
from torch import Tensor

import pyro_vae as pv

DIM, TYPES = 3, 3
DISPERSION = 2.0


@dataclass(frozen=True)
class Truth:
    """The model that the cells are drawn from.

    ``z ~ N(centre[type], spread^2)``, ``x ~ NB(r, logits = b + W z + batch * e + log depth)``.
    """

    centre: Tensor
    spread: float
    bias: Tensor
    weight: Tensor
    effect: Tensor
    total_count: Tensor

    @classmethod
    def draw(cls, genes: int, seed: int) -> "Truth":
        """Parameters, of which three tenths of the genes tell the types apart."""
        g = torch.Generator().manual_seed(seed)
        normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
        marked = (torch.rand(genes, generator=g) < 0.3).float()
        bias = normal(genes)
        return cls(
            centre=2 * torch.eye(TYPES, DIM),
            spread=0.3,
            bias=bias - bias.exp().sum().log(),
            weight=0.5 * normal(genes, DIM) * marked[:, None],
            effect=0.3 * normal(genes),
            total_count=torch.full((genes,), DISPERSION),
        )

    def logits(self, z: Tensor, batch: Tensor, depth: Tensor) -> Tensor:
        """Of the negative binomial, ``(..., N, G)``."""
        rate = self.bias + z @ self.weight.T + batch[:, None] * self.effect
        return rate - self.total_count.log() + depth.log()[:, None]

    def rate(self, z: Tensor, batch: Tensor) -> Tensor:
        """Expected counts at a depth of 1."""
        return (self.bias + z @ self.weight.T + batch[:, None] * self.effect).exp()

    def sample(self, n: int, seed: int) -> dict[str, Tensor]:
        """Cells."""
        torch.manual_seed(seed)
        kind, batch = torch.randint(TYPES, (n,)), (torch.rand(n) < 0.5).float()
        z = self.centre[kind] + self.spread * torch.randn(n, DIM)
        depth = torch.distributions.LogNormal(math.log(3000.0), 0.4).sample((n,))
        p = torch.distributions.NegativeBinomial(
            self.total_count, logits=self.logits(z, batch, depth)
        )
        return {"x": p.sample(), "z": z, "type": kind, "batch": batch, "depth": depth}

    def log_evidence(self, cells: dict[str, Tensor], draws: int = 200) -> Tensor:
        """log p(x | batch, depth) of each cell."""
        x, batch, depth = (cells[name].double() for name in ("x", "batch", "depth"))
        weight, r = self.weight.double(), self.total_count.double()

        def log_joint(z: Tensor, kind: int) -> Tensor:
            logits = self.logits(z.float(), batch.float(), depth.float()).double()
            p = torch.distributions.NegativeBinomial(r, logits=logits, validate_args=False)
            prior = torch.distributions.Normal(self.centre[kind].double(), self.spread)
            return p.log_prob(x).sum(-1) + prior.log_prob(z).sum(-1) - math.log(TYPES)

        terms = []
        for kind in range(TYPES):
            z = self.centre[kind].double().expand(len(x), DIM).clone()
            for _ in range(15):  # Newton's steps, which the concave density lets converge
                share = torch.sigmoid(self.logits(z.float(), batch.float(), depth.float()).double())
                slope = (x - (x + r) * share) @ weight - (z - self.centre[kind]) / self.spread**2
                bend = torch.einsum("ng,gi,gj->nij", (x + r) * share * (1 - share), weight, weight)
                bend = bend + torch.eye(DIM) / self.spread**2
                z = z + torch.linalg.solve(bend, slope)
            q = torch.distributions.MultivariateNormal(z, precision_matrix=bend)
            for _ in range(draws):
                some = q.sample()
                terms.append(log_joint(some, kind) - q.log_prob(some))
        return torch.stack(terms).logsumexp(0) - math.log(draws)


def auc(z: np.ndarray, batch: np.ndarray) -> float:
    """How well classifiers tell the batch from z, cross-validated: the better one's AUC."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    models = LogisticRegression(), HistGradientBoostingClassifier(max_iter=50)
    return max(cross_val_score(m, z, batch, scoring="roc_auc", cv=5).mean() for m in models)


def main() -> None:
    """Simulate, train, measure."""
    say = argparse.ArgumentParser()
    say.add_argument("--cells", type=int, default=5000)
    say.add_argument("--genes", type=int, default=2000)
    say.add_argument("--epochs", type=int, default=60)
    say.add_argument("--batch", type=int, default=128)
    say.add_argument("--beta", default="linear(3, 1, epochs=20)")
    say.add_argument("--test", type=int, default=300)
    say.add_argument("--seed", type=int, default=0)
    told = say.parse_args()
    truth = Truth.draw(told.genes, told.seed)
    cells = truth.sample(told.cells, told.seed + 1)
    obs = pd.DataFrame(
        {
            "batch": np.where(cells["batch"].numpy() > 0, "one", "two"),
            "depth": cells["depth"].numpy(),
        }
    )
    data = pv.Counts(sparse.csr_matrix(cells["x"].numpy()), obs)
    n = told.cells * 9 // 10
    train, test = data[:n], data[n : n + told.test]
    vae = pv.VAE(
        data,
        latent_dim=10,
        condition="~ C(batch)",
        offset="depth",
        seed=told.seed,
        likelihood="NegativeBinomial(total_count=learned(shared=False))",
        encoder="MLP([128])",
        decoder="MLP([])",
    )
    start = time.perf_counter()
    fitted = pv.fit(
        vae,
        train,
        epochs=told.epochs,
        batch_size=told.batch,
        lr="cosine(1e-2)",
        beta=told.beta,
        seed=told.seed,
        validation=0.1,
        progress=False,
    )
    seconds = time.perf_counter() - start
    ours = pv.log_evidence(vae, test, num_samples=500, seed=0).log_evidence.double()
    part = {name: value[n : n + told.test] for name, value in cells.items()}
    exact = truth.log_evidence(part)
    gap = exact - ours

    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    q, batch = vae.encode(data), cells["batch"].numpy()
    torch.manual_seed(told.seed)
    z, drawn = q.mean.numpy(), q.sample().numpy()
    used = int((q.mean.std(0) > 0.1).sum())
    found = KMeans(TYPES, n_init=10, random_state=0).fit_predict(z)
    kind = cells["type"].numpy()
    some = np.arange(min(told.cells, 3000))
    a, b = some[kind[some] == 0], some[kind[some] == 1]
    changes = pv.differential_expression(vae, data, a, b, draws=100, seed=0).sort_index()
    pooled = cells["batch"][np.concatenate([a, b])].mean()
    mean = [
        sum(
            w * truth.rate(cells["z"][g], torch.full((len(g),), float(c))).mean(0)
            for c, w in ((0, 1 - pooled), (1, pooled))
        )
        for g in (a, b)
    ]
    right = (mean[0] / mean[1]).log2().numpy()
    covered = ((changes.low < right) & (right < changes.high)).to_numpy()
    error = covered.std() / math.sqrt(len(covered))
    rows = [
        ["held-out log p(x) of the true model, nats", f"{exact.mean():.1f}"],
        ["ours", f"{ours.mean():.1f}"],
        [
            "difference, of the true one",
            f"{gap.mean() / -exact.mean():.2%} "
            f"({gap.mean():.1f} ± {gap.std() / len(gap) ** 0.5:.1f} nats)",
        ],
        ["adjusted Rand index of types, k-means of z", f"{adjusted_rand_score(kind, found):.3f}"],
        ["AUC of the batch from draws of z", f"{auc(drawn, batch):.3f}"],
        ["from the means of q", f"{auc(z, batch):.3f}"],
        ["from the true z", f"{auc(cells['z'].numpy(), batch):.3f}"],
        ["dimensions of z in use, of 10", str(used)],
        ["95 % intervals of log fold changes that cover", f"{covered.mean():.1%} ± {error:.1%}"],
        ["their median width, log2", f"{np.median(changes.high - changes.low):.2f}"],
        ["seconds of training, an epoch", f"{seconds:.0f}, {seconds / told.epochs:.2f}"],
        ["ELBO, validation", f"{fitted.history.elbo_validation.iloc[-1]:.1f}"],
    ]
    text = (
        f"{told.cells:,} cells of {told.genes:,} genes, {told.epochs} epochs of batches of "
        f"{told.batch}, linear decoder, Adam at cosine(1e-2), beta {told.beta}, seed {told.seed}; "
        f"{len(test)} held out.\n\n{table(['figure', 'value'], rows)}"
    )
    publish("cells", "Simulated cells", text)


if __name__ == "__main__":
    main()
