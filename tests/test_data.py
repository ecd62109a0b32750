"""Data sources: splits, files, torchvision's folders, and an answer to each bad input."""

import gzip
import sys
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.data import SOURCES


def rows(x: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x}


# The embedded set.


def test_digits_are_grey_images_with_labels():
    data = pv.load_data("digits")
    assert (data.name, data.grey) == ("digits", True)
    assert data.train.shape == (1618, 1, 8, 8) and data.test.shape == (179, 1, 8, 8)
    assert data.train.dtype == torch.float32
    x = torch.cat([data.train, data.test])
    assert x.min() == 0 and x.max() == 1
    assert torch.equal((x * 16).round(), x * 16)  # scikit-learn's are whole numbers up to 16
    labels = torch.cat([data.train_labels, data.test_labels])
    assert sorted(labels.unique().tolist()) == list(range(10))


def test_digits_keep_each_label_with_its_image():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    truth = {np.float32(x / 16).tobytes(): y for x, y in zip(bunch.data, bunch.target, strict=True)}
    data = pv.load_data("digits", seed=3)
    for x, labels in ((data.train, data.train_labels), (data.test, data.test_labels)):
        found = [truth[row.numpy().tobytes()] for row in x]
        assert found == labels.tolist()


def test_the_split_is_disjoint_complete_and_of_its_seed():
    first, again, other = (pv.load_data("digits", seed=s) for s in (0, 0, 1))
    assert torch.equal(first.train, again.train) and torch.equal(first.test, again.test)
    assert torch.equal(first.train_labels, again.train_labels)
    assert not torch.equal(first.test, other.test)
    assert rows(first.train).isdisjoint(rows(first.test))
    assert rows(first.train) | rows(first.test) == rows(other.train) | rows(other.test)


def test_the_split_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    pv.load_data("digits", seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_penguins_are_a_table_with_holes():
    data = pv.load_data("penguins", seed=2)
    train, test = data.train, data.test
    assert (len(train), len(test)) == (275, 69) and train.schema is test.schema
    assert train.missing.sum() + test.missing.sum() == 19 and data.missing
    rows = set(train.to_frame().index) | set(test.to_frame().index)
    assert rows == set(range(344))


# Files.


def test_a_table_holds_a_tenth_out(tmp_path):
    text = "pet,kilos\n" + "".join(f"{'cat' if i % 3 else 'dog'},{i}.5\n" for i in range(50))
    (tmp_path / "pets.csv").write_text(text)
    data = pv.load_data(str(tmp_path / "pets.csv"))
    assert data.name == "pets" and data.train.values.shape == (45, 2) and len(data.test) == 5
    assert data.train.schema.names == ("pet", "kilos")
    all_of_it = pv.load_data(str(tmp_path / "pets.csv"), held_out=1)
    assert all_of_it.test.values[:, 1].tolist() == [i + 0.5 for i in range(50)]


def test_npy_holds_a_tenth_out(tmp_path):
    x = np.arange(150).reshape(50, 3)  # whole numbers become the models' type
    np.save(tmp_path / "table.npy", x)
    data = pv.load_data(str(tmp_path / "table.npy"), seed=4)
    assert (data.name, data.grey, data.train_labels) == ("table", False, None)
    assert data.train.shape == (45, 3) and data.test.shape == (5, 3)
    assert data.train.dtype == torch.float32
    assert rows(data.train) | rows(data.test) == rows(torch.tensor(x, dtype=torch.float32))
    assert torch.equal(data.train, pv.load_data(str(tmp_path / "table.npy"), seed=4).train)


def test_npz_with_its_own_split_is_taken_as_it_is(tmp_path):
    train, test = np.random.default_rng(0).random((2, 12, 4), dtype=np.float32)
    np.savez(
        tmp_path / "split.npz", test=test, train=train,
        train_labels=np.arange(12), test_labels=np.arange(12)[::-1],
    )  # fmt: skip
    data = pv.load_data(str(tmp_path / "split.npz"))
    assert np.array_equal(data.train, train) and np.array_equal(data.test, test)
    assert data.train_labels.tolist() == list(range(12))
    assert data.test_labels.tolist() == list(range(12))[::-1]


def test_npz_without_labels_has_none(tmp_path):
    np.savez(tmp_path / "split.npz", train=np.zeros((3, 2)), test=np.ones((2, 2)))
    data = pv.load_data(str(tmp_path / "split.npz"))
    assert (data.train_labels, data.test_labels) == (None, None)
    assert data.train.shape == (3, 2) and data.test.shape == (2, 2)


def test_npz_first_array_and_its_labels_are_split_alike(tmp_path):
    x = np.arange(40.0).reshape(20, 2)
    np.savez(tmp_path / "one.npz", counts=x, labels=x[:, 0].astype(int), other=np.zeros(3))
    data = pv.load_data(str(tmp_path / "one.npz"))
    assert "'counts'" in data.description
    assert data.train.shape == (18, 2) and data.test.shape == (2, 2)
    assert torch.equal(data.train[:, 0].long(), data.train_labels)
    assert torch.equal(data.test[:, 0].long(), data.test_labels)


def test_missing_cells_pass_through(tmp_path):
    x = np.ones((20, 2))
    x[::2, 1] = np.nan
    np.save(tmp_path / "holes.npy", x)
    data = pv.load_data(str(tmp_path / "holes.npy"))
    assert torch.cat([data.train, data.test]).isnan().sum() == 10


# torchvision's folders.


def idx(folder: Path, name: str, array: np.ndarray) -> None:
    """Write whole numbers up to 255 as the IDX format of MNIST: a magic number, sizes, bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [0x0800 + array.ndim, *array.shape]
    head = b"".join(n.to_bytes(4, "big") for n in sizes)
    (folder / name).write_bytes(head + array.astype(np.uint8).tobytes())


IDX = {  # data: its folder, the beginnings of the files of the two parts, and whether it is turned
    "mnist": ("MNIST", "train-", "t10k-", False),
    "fashion-mnist": ("FashionMNIST", "train-", "t10k-", False),
    "kmnist": ("KMNIST", "train-", "t10k-", False),
    "emnist": ("EMNIST", "emnist-balanced-train-", "emnist-balanced-test-", True),
}


@pytest.mark.slow  # it imports torchvision
@pytest.mark.parametrize("name", IDX)
def test_torchvision_files_load_offline(name, tmp_path):
    folder, train, test, turned = IDX[name]
    generator = np.random.default_rng(0)
    parts = {}
    for part, start, n in (("train", train, 7), ("test", test, 3)):
        images, labels = generator.integers(0, 256, (n, 28, 28)), generator.integers(0, 10, n)
        images[0, 0, :2] = 0, 255
        idx(tmp_path / folder / "raw", f"{start}images-idx3-ubyte", images)
        idx(tmp_path / folder / "raw", f"{start}labels-idx1-ubyte", labels)
        parts[part] = images.transpose(0, 2, 1) if turned else images, labels
    data = pv.load_data(name, tmp_path)
    assert (data.name, data.grey) == (name, True)
    for part in ("train", "test"):
        images, labels = parts[part]
        x, targets = getattr(data, part), getattr(data, f"{part}_labels")
        assert x.shape == (len(labels), 1, 28, 28) and x.min() == 0 and x.max() == 1
        assert np.array_equal((x[:, 0] * 255).round().numpy(), images)
        assert targets.tolist() == labels.tolist()


@pytest.mark.slow
def test_mnist(data_root):
    data = pv.load_data("mnist", data_root)
    assert data.train.shape == (60000, 1, 28, 28) and data.test.shape == (10000, 1, 28, 28)
    assert data.train.min() == 0 and data.train.max() == 1
    # the mean grey value of MNIST's training images, which its users subtract: 0.1307
    assert data.train.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert data.train_labels.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]


TORCHVISION = {
    "mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "emnist": "EMNIST",
    "omniglot": "Omniglot",
}  # fmt: skip


def test_every_source_has_a_test_here():
    coloured = {"shapes", "cifar10", "svhn", "celeba", "dsprites"}  # of test_images.py
    assert (
        set(SOURCES) == {"digits", "digit-counts", "penguins", "melodies", *TORCHVISION} | coloured
    )
    grey, counts = (pv.load_data(name) for name in ("digits", "digit-counts"))
    assert torch.equal(16 * grey.train, counts.train) and grey.grey and not counts.grey


@pytest.mark.parametrize("name", ["cifar10", "svhn", "celeba"])
def test_a_root_without_files_of_colour_is_an_error_that_names_them(name, tmp_path):
    files = {"cifar10": "cifar-10-batches-py/", "svhn": "train_32x32.mat", "celeba": "celeba/"}
    with pytest.raises(ValueError, match=f"holds {files[name]}"):
        pv.load_data(name, tmp_path)


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_root_without_the_files_is_an_error_that_names_the_folder(name, tmp_path):
    with pytest.raises(ValueError) as problem:
        pv.load_data(name, tmp_path)
    folder = TORCHVISION[name]
    assert f"{folder} is not in {tmp_path}" in str(problem.value)
    assert f"give root= (--data-root), a folder that holds {folder}/" in str(problem.value)


@pytest.mark.parametrize("name", TORCHVISION)
def test_no_network_is_an_error_that_tells_what_to_do(name, tmp_path, monkeypatch):
    asked = []

    def no_network(*args, **kwargs):
        asked.append(args)
        raise URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(ValueError, match="cannot be downloaded") as problem:
        pv.load_data(name)
    assert asked
    assert str(tmp_path / ".cache" / "pyro_vae") in str(problem.value)
    assert "--data-root" in str(problem.value)


def test_a_torchvision_of_another_torch_is_an_error_that_tells_the_fix(tmp_path, monkeypatch):
    # what a CUDA torchvision does beside a CPU torch
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    for name in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError) as problem:
        pv.load_data("mnist", tmp_path)
    message = str(problem.value)
    assert f"torchvision does not go with this torch {torch.__version__}" in message
    assert "pip install --force-reinstall torch torchvision" in message
    assert "operator torchvision::nms does not exist" in message


# Bad input.


def object_npy(path: Path) -> None:
    np.save(path, np.array([{"a": 1}] * 20), allow_pickle=True)


def object_npz(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}] * 20, dtype=object), allow_pickle=True)


BAD_FILES = {  # the file's name, what writes it, and what the message says
    "missing": ("none.npy", lambda p: None, "there is no file .*none.npy"),
    "text": ("text.npy", lambda p: p.write_text("1,2,3\n"), "text.npy is not a NumPy file"),
    "empty": ("empty.npy", lambda p: p.touch(), "empty.npy is not a NumPy file"),
    "not a zip": ("text.npz", lambda p: p.write_bytes(b"PK\x03\x04no"), "text.npz is not a NumPy"),
    "folder": ("folder.npy", lambda p: p.mkdir(), "folder.npy is a folder: name a file in it"),
    "gzip": ("x.npy", lambda p: p.write_bytes(gzip.compress(b"0")), "x.npy is not a NumPy file"),
    "pickle": ("objects.npy", object_npy, "objects.npy is not a NumPy file.*holds object"),
    "no arrays": ("none.npz", lambda p: np.savez(p), "none.npz holds no arrays"),
    "1-D": ("flat.npy", lambda p: np.save(p, np.zeros(50)),
            r"flat.npy holds an array of float64 and shape \(50,\): expected .* \(N, ...\)"),
    "scalar": ("one.npy", lambda p: np.save(p, np.float32(3)), r"shape \(\): expected numbers"),
    "text cells": ("words.npy", lambda p: np.save(p, np.array([["a", "b"]] * 20)),
                   r"words.npy holds an array of <U1 and shape \(20, 2\): expected numbers"),
    "complex": ("complex.npy", lambda p: np.save(p, np.zeros((20, 2), complex)),
                "array of complex128 .* expected numbers"),
    "too few": ("few.npy", lambda p: np.save(p, np.zeros((9, 2))),
                "has 9 observations: at least 10 make a train and test part"),
    "no rows": ("none.npy", lambda p: np.save(p, np.zeros((0, 2))), "has 0 observations: at"),
    "1-D part": ("part.npz", lambda p: np.savez(p, train=np.zeros((20, 2)), test=np.zeros(20)),
                 r"part.npz holds an array of float64 and shape \(20,\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(case, tmp_path):
    name, write, message = BAD_FILES[case]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        pv.load_data(str(tmp_path / name))


def test_a_pickle_in_an_npz_is_refused_by_name(tmp_path):
    object_npz(tmp_path / "objects.npz")
    with pytest.raises(ValueError, match=r"objects.npz is not a NumPy file of numbers"):
        pv.load_data(str(tmp_path / "objects.npz"))


def test_a_pickle_is_never_run(tmp_path):
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return Path.touch, (ran,)

    np.save(tmp_path / "trap.npy", np.array([Trap()] * 20), allow_pickle=True)
    with pytest.raises(ValueError, match=r"trap.npy is not a NumPy file"):
        pv.load_data(str(tmp_path / "trap.npy"))
    assert not ran.exists()


UNKNOWN = {
    "digit": "unknown data 'digit'; did you mean digits?",
    "fashion_mnist": "unknown data 'fashion_mnist'; did you mean fashion-mnist",
    "MNIST": "unknown data 'MNIST'; did you mean mnist",
    "iris": "unknown data 'iris'",
    "table.xlsx": "unknown data 'table.xlsx'",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_names_are_answered_with_the_nearest(name):
    with pytest.raises(ValueError) as problem:
        pv.load_data(name)
    assert str(problem.value).startswith(UNKNOWN[name])
    for known in SOURCES:
        assert known in str(problem.value)
    assert "or a .npy or .npz file" in str(problem.value)


def test_a_file_of_another_kind_is_told_what_to_do(tmp_path):
    (tmp_path / "mine.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"mine.xlsx is a file of a kind .*: save a spreadsheet"):
        pv.load_data(str(tmp_path / "mine.xlsx"))
