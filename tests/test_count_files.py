"""Counts in files, and the command line on them."""

import re

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import io, sparse
from typer.testing import CliRunner

import pyro_vae as pv
from helpers.counts import GENES, matrix, obs
from pyro_vae.cli import app

pytestmark = pytest.mark.usefixtures("short_pilot")

LINE = "NegativeBinomial(total_count=learned(shared=False))"


def write_h5ad(path, x=None):
    """As anndata writes it: sparse X, a category and a number in obs, names in var."""
    x = matrix() if x is None else x
    with h5py.File(path, "w") as file:
        node = file.create_group("X")
        node.attrs["encoding-type"], node.attrs["shape"] = "csr_matrix", x.shape
        for name in ("data", "indices", "indptr"):
            node[name] = getattr(x, name)
        layer = file.create_group("layers/twice")
        layer.attrs["encoding-type"], layer.attrs["shape"] = "csr_matrix", x.shape
        for name in ("data", "indices", "indptr"):
            layer[name] = getattr(2 * x, name)
        codes = pd.Categorical(obs().batch)
        batch = file.create_group("obs/batch")
        batch["codes"], batch["categories"] = codes.codes, np.array(["a", "b"], dtype="S1")
        file["obs/size"] = np.arange(40) + 1.0
        file["obs/_index"] = np.array([f"cell{i}" for i in range(40)], dtype="S8")
        file["var/_index"] = np.array(GENES, dtype="S8")
        file["obs"].attrs["_index"] = file["var"].attrs["_index"] = "_index"
    return path


def write(folder, kind):
    path = folder / f"x{kind}"
    if kind == ".h5ad":
        return write_h5ad(path)
    if kind == ".mtx":
        io.mmwrite(path, matrix())
    elif kind == ".csv":
        frame = pd.DataFrame(matrix().toarray(), columns=GENES).assign(batch=obs().batch)
        frame.to_csv(path, index=False)
    else:
        form = {"csr": matrix().tocsr(), "csc": matrix().tocsc(), "coo": matrix().tocoo()}
        path = folder / "x.npz"
        sparse.save_npz(path, form[kind])
    return path


@pytest.mark.parametrize("kind", [".h5ad", ".mtx", ".csv", "csr", "csc", "coo"])
def test_counts_are_read(kind, tmp_path):
    counts = pv.read_counts(write(tmp_path, kind))
    assert np.array_equal(counts.rows()[:].numpy(), matrix().toarray())
    if kind in (".h5ad", ".csv"):
        assert counts.names == tuple(GENES)
        assert counts.obs.batch.tolist() == obs().batch.tolist()


def test_a_layer_is_read_in_place_of_x(tmp_path):
    path = write_h5ad(tmp_path / "x.h5ad")
    assert (
        pv.read_counts(path, layer="twice").rows()[:] == torch.tensor(2 * matrix().toarray())
    ).all()
    with pytest.raises(ValueError, match=r"no layer 'raw' in .*; there is twice"):
        pv.read_counts(path, layer="raw")


def test_damaged_files_are_refused(tmp_path):
    x = matrix()
    x.indices[3] = 99
    with pytest.raises(ValueError, match=r"x.h5ad|indices"):
        pv.read_counts(write_h5ad(tmp_path / "x.h5ad", x))
    (tmp_path / "y.h5ad").write_text("nothing")
    with pytest.raises(ValueError, match=r"y.h5ad cannot be read as h5ad"):
        pv.read_counts(tmp_path / "y.h5ad")
    (tmp_path / "z.mtx").write_text("nothing")
    with pytest.raises(ValueError, match=r"z.mtx cannot be read as mtx"):
        pv.read_counts(tmp_path / "z.mtx")
    with pytest.raises(ValueError, match=r"counts are in files .h5ad, .npz, .mtx"):
        pv.read_counts(write(tmp_path, ".csv").rename(tmp_path / "x.txt"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".h5ad", ".csv", "csr"])
def test_the_command_line_fits_counts(kind, tmp_path):
    path, run = write(tmp_path, kind), tmp_path / "run"
    condition = [] if kind == "csr" else ["--condition", "~ C(batch)"]
    options = ["--offset", "library", "--likelihood", LINE, "--epochs", "1", "--latent-dim", "2"]
    done = CliRunner().invoke(app, ["fit", str(path), *condition, *options, "--out", str(run)])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(
        app, ["encode", str(run), str(path), "--out", str(tmp_path / "z.npy")]
    )
    assert done.exit_code == 0, done.output
    vae = pv.load(run)
    z = vae.encode(pv.read_counts(path)).mean
    assert np.allclose(np.load(tmp_path / "z.npy"), z, atol=1e-6)
    done = CliRunner().invoke(app, ["evaluate", str(run), "--num-samples", "50", "--steps", "5"])
    assert done.exit_code == 0, done.output
    asked = ["sample", str(run), "--num-samples", "3"]
    with pytest.raises(ValueError, match="--given library=VALUE") as refused:
        CliRunner().invoke(app, asked, catch_exceptions=False)
    values = {"batch": "a", "library": "50"}
    names = re.findall(r"--given (\w+)=VALUE", str(refused.value))
    advised = [word for name in names for word in ("--given", f"{name}={values[name]}")]
    done = CliRunner().invoke(app, [*asked, *advised])
    assert done.exit_code == 0, done.output
    assert np.load(run / "samples.npy").shape == (3, 12)
