"""scvi-tools' SCVI of simulated cells, in an environment of its own: python scvi_peer.py FOLDER.

Reads ``train`` and ``test`` of FOLDER, each a sparse ``.npz`` of counts and a ``.csv`` of batches,
and writes ``figures.json``: seconds of each epoch, on the clock and of this process on the
processor, and of each cell of ``test`` the ELBO and the bound of many draws, nats.
``benchmarks/cells_peer.py`` calls it by the interpreter that its option ``--peer`` names.
"""

import argparse
import json
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from scipy import sparse


class Clock(Callback):
    """Seconds at the end of each epoch."""

    def __init__(self) -> None:
        self.ends = [(time.perf_counter(), time.process_time())]

    def on_train_epoch_end(self, *_: object) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))


def cells(folder: Path, part: str) -> anndata.AnnData:
    """Counts and their batches."""
    obs = pd.read_csv(folder / f"{part}.csv")
    obs.index = obs.index.astype(str)
    return anndata.AnnData(sparse.load_npz(folder / f"{part}.npz").astype(np.float32), obs)


def main() -> None:
    """Train, and measure."""
    say = argparse.ArgumentParser()
    say.add_argument("folder", type=Path)
    say.add_argument("--epochs", type=int, required=True)
    say.add_argument("--batch", type=int, required=True)
    say.add_argument("--hidden", type=int, required=True)
    say.add_argument("--latent", type=int, required=True)
    say.add_argument("--warmup", type=int, required=True)
    say.add_argument("--lr", type=float, required=True)
    say.add_argument("--threads", type=int, required=True)
    say.add_argument("--seed", type=int, required=True)
    told = say.parse_args()
    torch.set_num_threads(told.threads)
    scvi.settings.seed = told.seed
    train, test = (cells(told.folder, part) for part in ("train", "test"))
    scvi.model.SCVI.setup_anndata(train, batch_key="batch")
    model = scvi.model.SCVI(
        train, n_hidden=told.hidden, n_latent=told.latent, n_layers=1, gene_likelihood="nb"
    )
    clock = Clock()
    model.train(
        told.epochs,
        accelerator="cpu",
        train_size=1.0,
        batch_size=told.batch,
        plan_kwargs={"lr": told.lr, "n_epochs_kl_warmup": told.warmup},
        callbacks=[clock],
        enable_progress_bar=False,
        logger=False,
    )
    elbo = [model.get_elbo(test, return_mean=False) for _ in range(16)]
    bound = model.get_marginal_ll(test, n_mc_samples=500, return_mean=False)
    figures = {
        "version": scvi.__version__,
        "seconds": np.diff(clock.ends, axis=0).tolist(),
        "elbo": np.mean([np.asarray(one) for one in elbo], 0).tolist(),
        "bound": np.asarray(bound).tolist(),
    }
    (told.folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
