"""Half of a table's cells are gone: how well a VAE that was trained on the rest fills them.

python benchmarks/imputation.py [SEEDS]

The breast cancer data of scikit-learn, standardized, cells removed completely at random; the
setting of Mattei & Frellsen (2019), arXiv:1812.02633.
"""

import sys

import torch
from common import publish, table
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

import pyro_vae as pv

ESTIMATOR, EPOCHS, DRAWS = "RenyiELBO(alpha=0, num_particles=20)", 1001, (10, 100, 1000)


def errors(seed: int, whole: torch.Tensor) -> list[float]:
    """Mean squared error of the removed cells: by the column's mean, and by ``impute``."""
    gone = torch.rand(whole.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    x = whole.masked_fill(gone, float("nan"))
    networks = [pv.MLP([128, 128]) for _ in range(2)]
    vae = pv.VAE(
        30, 10, likelihood="StudentT(df=4)", missing=True, encoder=networks[0],
        decoder=networks[1], seed=seed,
    )  # fmt: skip
    pv.fit(vae, x, estimator=ESTIMATOR, epochs=EPOCHS, batch_size=64, seed=seed)
    filled = [x.nanmean(0), *(vae.impute(x, num_samples=k, seed=0) for k in DRAWS)]
    return [(guess - whole)[gone].square().mean().item() for guess in filled]


def main() -> None:
    """Train on each seed's table, and publish."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    whole = torch.tensor(StandardScaler().fit_transform(load_breast_cancer().data)).float()
    found = torch.tensor([errors(seed, whole) for seed in seeds])
    names = ["mean of the column", *(f"`vae.impute(x, num_samples={k})`" for k in DRAWS)]
    rows = [
        [name, f"{one.mean():.3f}", ", ".join(f"{e:.3f}" for e in one)]
        for name, one in zip(names, found.T, strict=True)
    ]
    rows.append(["published: MIWAE, its paper and its notebook", "0.280, 0.287", ""])
    rows.append(["published: missForest", "0.291", ""])
    text = (
        "Mean squared error of the cells that were removed (half of them, completely at random), "
        "569 data of 30 standardized columns, a table for each seed. 30-128-128-10 (ReLU), "
        f"`StudentT(df=4)`, `{ESTIMATOR}`, {EPOCHS:,} epochs at batch 64, Adam at 1e-3. "
        "Published: Mattei & Frellsen (2019), arXiv:1812.02633.\n\n"
    )
    publish("imputation", "Missing cells", text + table(["", "mean", "by seed"], rows))


if __name__ == "__main__":
    main()
