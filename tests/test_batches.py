"""Batches: exact bits, one order whatever the source, and data that memory cannot hold."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch
from pyro.infer import SVI
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import pyro_vae as pv
from pyro_vae.data import dataset, numpy_files
from pyro_vae.data.rows import Rows
from pyro_vae.infer.engine.distributed import Processes
from pyro_vae.infer.training import batches
from pyro_vae.infer.training.batches import Batches
from pyro_vae.infer.training.binarize import binarize, bits, compiled_bits, random_keys

X = torch.randn(250, 4, generator=torch.Generator().manual_seed(1))


def on_disk(folder, x=X):
    np.save(folder / "x.npy", np.asarray(x))
    return np.load(folder / "x.npy", mmap_mode="r")


SOURCES = {
    "tensor": lambda folder: X,
    "mapped": lambda folder: Rows(on_disk(folder)),
    "big-endian": lambda folder: Rows(on_disk(folder, X.numpy().astype(">f4"))),
    "dataset": lambda folder: TensorDataset(X),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_order_is_the_generators_whatever_the_source(name, tmp_path):
    data = Batches(SOURCES[name](tmp_path), 60)
    assert len(data) == 5
    torch.manual_seed(3)
    found = list(data)
    torch.manual_seed(3)
    order = torch.randperm(250)
    assert [len(x) for x in found] == [60, 60, 60, 60, 10]
    assert torch.equal(torch.cat(found), X[order])
    torch.manual_seed(3)
    rest = data.epoch(skip=2)
    torch.manual_seed(4)  # drawn already
    assert torch.equal(torch.cat(list(rest)), X[order[120:]])


BITS = {
    "float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BITS)
def test_bits_have_the_grey_values_as_probabilities(name):
    x = (torch.arange(256) / 255).to(BITS[name])
    grey = x.expand(20_000, 256)
    torch.manual_seed(0)
    bits = binarize(grey)
    assert bits.dtype == BITS[name]
    assert bits.shape == grey.shape
    assert ((bits == 0) | (bits == 1)).all()
    assert (bits[:, 0] == 0).all()
    assert (bits[:, -1] == 1).all()
    p = x.double()[1:-1]
    z = (bits.double().mean(0)[1:-1] - p) / (p * (1 - p) / 20_000).sqrt()
    assert z.abs().max() < 5
    pairs = (bits.double()[:, 100] * bits.double()[:, 101]).mean()  # neighbours are independent
    both = (x[100] * x[101]).double()
    assert abs(pairs - both) / (both * (1 - both) / 20_000).sqrt() < 5


@pytest.mark.parametrize("shape", [(0,), (), (1,), (3, 5), (2, 0, 4)])
def test_bits_of_any_shape(shape):
    assert binarize(torch.ones(shape)).equal(torch.ones(shape))
    assert binarize(torch.ones(*shape, 6)[..., ::2]).equal(torch.ones(*shape, 3))


def test_bits_have_24_digits():
    torch.manual_seed(0)
    keys = random_keys(50)
    half = torch.full((50, 300), 0.5)
    rows = torch.arange(50)
    low, high = torch.zeros_like(half), torch.ones_like(half)  # u is in [low, high)
    for _ in range(24):
        middle = (low + high) / 2
        below = bits(middle, rows, keys) > 0
        low, high = torch.where(below, low, middle), torch.where(below, middle, high)
    assert torch.equal(high - low, torch.full_like(half, 2.0**-24))
    assert bits(low, rows, keys).sum() == 0  # u < x is strict
    assert bits(high, rows, keys).all()
    u, n = low.double(), low.numel()
    assert abs(u.mean() - 0.5) * (12 * n) ** 0.5 < 5
    for part in (u, u * 2**12 % 1):  # the first digits, and the last
        counts = torch.histc(part, 64, 0, 1)
        assert abs(((counts - n / 64) ** 2).sum() * 64 / n - 63) / (2 * 63) ** 0.5 < 5


def test_bits_are_independent_over_data_and_places():
    torch.manual_seed(0)
    n, d = 20_000, 300
    for p in (0.5, 0.05):
        drawn = binarize(torch.full((n, d), p)) - p
        pairs = (drawn.T @ drawn / (p * (1 - p) * n**0.5)).triu(1)
        assert pairs.abs().max() < 6.5  # of 45,000
        square = pairs.square().sum() / (d * (d - 1) / 2)
        assert abs(square - 1) / (2 / (d * (d - 1) / 2)) ** 0.5 < 5
        for lag in range(1, d):  # a counter with a stride: places that are as far from each other
            z = pairs.diagonal(lag).sum() / (d - lag) ** 0.5
            assert abs(z) < 5
        data = (drawn[:1000] @ drawn[:1000].T / (p * (1 - p) * d**0.5)).triu(1)
        assert abs(data.square().sum() / (1000 * 999 / 2) - 1) < 0.02


@pytest.mark.parametrize("word", [0, 1])
def test_either_key_of_an_observation_makes_bits_of_its_own(word):
    torch.manual_seed(0)
    keys, other = random_keys(300), random_keys(300)
    other[:, word] = keys[:, word]
    half, rows = torch.full((300, 400), 0.5), torch.arange(300)
    agree = (bits(half, rows, keys) == bits(half, rows, other)).double().mean()
    assert abs(agree - 0.5) * 2 * half.numel() ** 0.5 < 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "d, dtype", [(1, torch.float64), (16, torch.float32), (31, torch.float64), (784, torch.float32)]
)
def test_bits_are_those_of_their_keys_however_they_are_computed(d, dtype, monkeypatch):
    torch.manual_seed(0)
    grey = torch.rand(200, d, dtype=dtype)
    rows, keys = torch.randint(200, (90,)), random_keys(90)
    whole = bits(grey, rows, keys)
    for at_once in (1, 1000):
        monkeypatch.setattr("pyro_vae.infer.training.binarize.IN_CACHE", at_once)
        assert torch.equal(bits(grey, rows, keys), whole)
    compiled = compiled_bits(grey, 90)
    assert torch.equal(compiled(grey, rows, keys), whole)
    assert torch.equal(compiled(grey, rows[:7], keys[:7]), whole[:7])
    again = torch.randperm(90)
    assert torch.equal(compiled(grey, rows[again], keys[again]), whole[again])
    assert not torch.equal(bits(grey, rows, random_keys(90)), whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_bits_are_the_same_on_a_gpu():
    grey, rows, keys = torch.rand(200, 31), torch.arange(200), random_keys(200)
    assert torch.equal(bits(grey.cuda(), rows, keys).cpu(), bits(grey, rows, keys))


@pytest.mark.parametrize("count", [2, 3])
def test_processes_draw_the_bits_of_one(count):
    grey = torch.rand(250, 30, generator=torch.Generator().manual_seed(0))

    class Agreed(Processes):
        def first(self, tensor):
            return tensor  # their generators agree here

    def epoch(rank, count):
        torch.manual_seed(3)
        return list(Batches(grey, 60, Agreed(rank, count), fresh=True))

    parts = zip(*(epoch(rank, count) for rank in range(count)), strict=True)
    for whole, part in zip(epoch(0, 1), parts, strict=True):
        assert torch.equal(torch.cat(part), whole)


@pytest.mark.slow
@pytest.mark.parametrize("size, compiled", [(7, False), (7, True), (60, False), (1000, True)])
def test_an_epoch_of_bits_is_resumed_with_the_same(size, compiled, monkeypatch):
    monkeypatch.setattr(batches, "AT_ONCE", 3000)  # of 7, 14 batches at a time
    grey = torch.rand(250, 30, generator=torch.Generator().manual_seed(0))
    grey[:, 0] = torch.arange(250) % 2
    data = Batches(grey, size, fresh=True)
    if compiled:
        data.compile()
    torch.manual_seed(3)
    whole, after = list(data), torch.rand(())
    assert [len(batch) for batch in whole] == [len(part) for part in torch.arange(250).split(size)]
    for skip in range(len(whole) + 1):
        torch.manual_seed(3)
        rest = data.epoch(skip)
        assert torch.rand(()) == after  # all that it draws is drawn at the call
        assert [b.tolist() for b in rest] == [b.tolist() for b in whole[skip:]]
    again = torch.cat(list(data))
    assert again[:, 0].sum() == 125
    assert not torch.equal(again, torch.cat(whole))
    p = grey[:, 1:].double()
    surplus = torch.cat([again, *whole])[:, 1:].double().sum() - 2 * p.sum()
    assert abs(surplus) / (2 * p * (1 - p)).sum().sqrt() < 5


@pytest.mark.slow
@pytest.mark.parametrize("validation", [None, 0.1])
def test_a_fit_on_an_array_on_disk_is_the_one_in_memory(validation, tmp_path):
    fits, vaes = [], []
    for x in (X, on_disk(tmp_path)):
        vaes.append(pv.VAE(4, 2, likelihood="Normal", encoder="MLP([8])", seed=0))
        fits.append(pv.fit(vaes[-1], x, epochs=3, batch_size=60, validation=validation, seed=2))
    one, other = (f.history.drop(columns="seconds") for f in fits)
    assert one.equals(other)
    for a, b in zip(*(v.parameters() for v in vaes), strict=True):
        assert torch.equal(a, b)


def anonymous():
    """Megabytes of this process's own memory; pages of mapped files are not among them."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's /proc")
def test_memory_is_bounded_where_the_data_are_not(tmp_path, monkeypatch):
    path, megabytes = tmp_path / "big.npy", 200
    shape = (megabytes * 2**18 // 784, 784)
    np.lib.format.open_memmap(path, "w+", np.float32, shape).flush()  # a sparse file of zeros
    monkeypatch.setattr(numpy_files, "MAPPED", 2**20)
    monkeypatch.setattr(dataset, "HELD_OUT", 500)
    monkeypatch.setattr(sys.modules["pyro_vae.infer.training.preparation"], "HELD_OUT", 500)
    vae = pv.VAE(784, 2, encoder="MLP([8])", decoder="MLP([8])", seed=0)
    pv.fit(vae, torch.zeros(1000, 784), epochs=1, batch_size=1000)  # what training itself takes
    before, most, done = anonymous(), [0.0], threading.Event()

    def watch():
        while not done.is_set():
            most[0] = max(most[0], anonymous())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        data = pv.load_data(str(path))
        assert isinstance(data.train, Rows)
        assert not data.missing
        assert len(data.test) == 500
        assert len(data.train) == shape[0] - 500
        assert "on disk" in data.description
        pv.fit(vae, data.train, epochs=1, batch_size=1000, validation=0.1)
    finally:
        done.set()
        watcher.join()
    assert most[0] - before < megabytes / 4


def test_reading_ahead_ends_with_the_epoch_and_tells_its_errors(tmp_path):
    before = threading.active_count()
    batches = iter(Batches(Rows(on_disk(tmp_path)), 10))
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before

    class Broken(Rows):
        def __getitem__(self, rows):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Batches(Broken(on_disk(tmp_path)), 10))


def test_a_bad_value_on_disk_is_found_when_it_is_read(tmp_path):
    x = X.clone()
    x[77] = np.nan
    with pytest.raises(ValueError, match="x holds NaN"):
        pv.fit(pv.VAE(4, 2, likelihood="Normal"), on_disk(tmp_path, x), epochs=1)
    with pytest.raises(ValueError, match=r"expected x of shape \(N, 5\), got \(250, 4\)"):
        pv.fit(pv.VAE(5, 2, likelihood="Normal"), on_disk(tmp_path), epochs=1)
    with pytest.raises(ValueError, match="expected numbers of shape"):
        pv.fit(pv.VAE(4, 2), on_disk(tmp_path, X[:, 0]), epochs=1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.slow
def test_a_loaders_run_resumes_whoever_reads(workers, tmp_path, monkeypatch):
    def loader():
        return DataLoader(TensorDataset(X), 60, shuffle=True, num_workers=workers)

    def model():
        return pv.VAE(4, 2, likelihood="Normal", encoder="MLP([8])", seed=0)

    whole, parts = model(), model()
    pv.fit(whole, loader(), epochs=3)
    stops, step = iter(range(1, 100)), SVI.step

    def interrupted_step(self, *args):
        if next(stops) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(SVI, "step", interrupted_step)
    assert pv.fit(parts, loader(), epochs=3, out=tmp_path).interrupted
    pv.fit(parts, loader(), epochs=3, resume=tmp_path)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


class Stream(IterableDataset):
    def __iter__(self):
        yield from X


BAD = {
    "no data": (lambda: Batches(X[:0], 10), "the data are empty"),
    "a loader for two": (
        lambda: Batches(DataLoader(X, 10), 10, Processes(0, 2)), "give its Dataset",
    ),
    "less than one each": (
        lambda: Batches(X, 1, Processes(0, 2)), "2 processes share batches of 1 of 250 data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_data_that_make_no_batches_are_refused(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()
