"""Loaders: batches by name or side by side, streams, and loaders in every evaluation."""

import weakref
from collections import namedtuple
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pyro_vae as pv
from helpers.evaluations import EVALUATIONS
from pyro_vae.data.loaders import stream
from pyro_vae.evaluate.evidence import importance
from pyro_vae.infer.training.batches import Batches

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
NETS = {"encoder": "MLP([5])", "decoder": "MLP([5])", "seed": 0}
QUIET = {"progress": False, "batch_size": 20, "epochs": 2}
CONTEXT = pv.Record([pv.Block("x", 4), pv.Block("age", role="context")])
Pair = namedtuple("Pair", ["x", "age"])


class Rows(Dataset):
    """Rows as ``make`` gives them."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return self.make(i)


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield from X


class Short(DataLoader):
    """Says more batches than it has."""

    def __len__(self):
        return 9


def plain():
    return pv.VAE(4, 2, likelihood="Normal", **NETS)


def with_context():
    return pv.VAE(CONTEXT, 2, likelihood="Normal", **NETS)


def labelled():
    return pv.M2(4, 2, 3, likelihood="Normal", merge="MLP([5])", **NETS)


def weights(vae, x, **told):
    pv.fit(vae, x, **QUIET, **told)
    return torch.cat([p.detach().flatten() for p in vae.parameters()])


def packed(vae):
    return vae.record.pack({"x": X, "age": Y}) if vae.record.has("context") else X


FORMS = {
    "a tensor": (plain, lambda i: X[i]),
    "arrays": (plain, lambda i: X[i].numpy()),
    "one in a tuple": (plain, lambda i: (X[i],)),
    "by name": (plain, lambda i: {"x": X[i]}),
    "context by name": (with_context, lambda i: {"age": Y[i], "x": X[i]}),
    "context beside x": (with_context, lambda i: (X[i], Y[i])),
    "a named tuple": (with_context, lambda i: Pair(X[i], Y[i])),
    "numbers of Python": (with_context, lambda i: (X[i], int(Y[i]))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_what_rows_give_is_trained_on_as_the_packed_tensor(name):
    make, row = FORMS[name]
    x = packed(make())
    assert torch.equal(weights(make(), Rows(row)), weights(make(), TensorDataset(x)))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(Rows(row), batch_size=20, sampler=order.tolist())
    plainly = DataLoader(x, batch_size=20, sampler=order.tolist())
    assert torch.equal(weights(make(), loader), weights(make(), plainly))
    assert torch.equal(make().as_data(loader), make().as_data(x[order]))


def test_any_iterable_with_a_length_is_a_loader():
    class Split:
        def __iter__(self):
            return iter(X.split(20))

        def __len__(self):
            return 3

    assert torch.equal(plain().as_data(Split()), X)
    assert [*Batches(Split(), 20)][2].equal(X[40:])
    assert weights(plain(), Split()).isfinite().all()


@pytest.mark.slow
def test_labels_beside_x_are_the_labels_of_m2():
    data = labelled().labelled(X, Y)
    assert torch.equal(labelled().as_data(TensorDataset(X, Y)), data)
    pairs, one = TensorDataset(X, Y), TensorDataset(data)
    assert torch.equal(weights(labelled(), pairs), weights(labelled(), one))
    assert torch.equal(labelled().as_data(TensorDataset(X)), labelled().as_data(X))


def test_what_comes_beside_x_is_never_dropped():
    data = TensorDataset(X, Y)
    for use in (lambda: pv.fit(plain(), data, **QUIET), lambda: pv.elbo(plain(), data)):
        with pytest.raises(ValueError, match="a batch has 2 entries, and this model reads x: say"):
            use()
    # its advice
    vae = pv.VAE(
        pv.Record([pv.Block("x", 4), pv.Block("y", role="context")]), 2, likelihood="Normal", **NETS
    )
    pv.fit(vae, data, **QUIET)
    loader = DataLoader(data, 20, collate_fn=lambda rows: torch.stack([row[0] for row in rows]))
    assert torch.equal(plain().as_data(loader), X)
    with pytest.raises(ValueError, match=r"unknown block label; there are x: leave the others out"):
        pv.fit(plain(), Rows(lambda i: {"x": X[i], "label": Y[i]}), **QUIET)


SLOW = {"compare_estimators", "elbo_draws", "ais"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in EVALUATIONS]
)
@pytest.mark.filterwarnings("ignore")
def test_every_evaluation_reads_loaders(name):
    bits = X.gt(0).float()
    vae = pv.VAE(4, 2, prior="Normal", **NETS)
    torch.manual_seed(5)
    expected = EVALUATIONS[name](vae, bits)
    for loader in (TensorDataset(bits), DataLoader(bits, batch_size=25)):
        torch.manual_seed(5)
        assert EVALUATIONS[name](vae, loader) == expected


STREAMED = {
    "elbo": lambda vae, x: pv.elbo(vae, x, num_samples=100, seed=0),  # 10 rows at a time
    "log_evidence": lambda vae, x: pv.log_evidence(vae, x, num_samples=40, seed=0).log_evidence,
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_loader_is_never_held_whole(name, monkeypatch):
    monkeypatch.setattr(importance, "CELLS", 1600)  # 10 rows of 40 draws
    batches = []

    class Watched:
        def __len__(self):
            return 20

        def __iter__(self):
            for batch in X.split(3):
                assert sum(one() is not None for one in batches) <= 5
                own = batch.clone()
                batches.append(weakref.ref(own))
                yield own

    vae, state, sizes, check = plain(), torch.get_rng_state(), [], pv.VAE.check

    def watched(vae, x):
        sizes.append(len(checked := check(vae, x)))
        return checked

    expected = STREAMED[name](vae, X)
    monkeypatch.setattr(pv.VAE, "check", watched)
    assert torch.equal(STREAMED[name](vae, Watched()), expected)
    assert max(sizes) == 10
    assert len(batches) == 20
    assert torch.equal(torch.get_rng_state(), state)


def test_a_cell_that_is_refused_is_found_in_its_piece():
    positive = pv.VAE(4, 2, likelihood="Gamma", **NETS)
    x = X.abs() + 0.1
    x[47, 1] = -1
    with pytest.raises(ValueError, match=r"first in row 7, .* counted from row 40 of the loader"):
        pv.elbo(positive, DataLoader(x, batch_size=25), num_samples=100)


@pytest.mark.slow
def test_validation_is_read_from_a_loader():
    rows = [pv.fit(plain(), X, validation=v, **QUIET).history for v in
            (X[:30], TensorDataset(X[:30]), DataLoader(X[:30], batch_size=7))]  # fmt: skip
    for other in rows[1:]:
        assert other.elbo_validation.tolist() == rows[0].elbo_validation.tolist()


def test_reading_a_loader_leaves_the_global_generator():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    plain().as_data(DataLoader(X, batch_size=7, shuffle=True))
    assert torch.equal(torch.get_rng_state(), state)


STREAMS = {
    "a generator": lambda: iter(list(X.split(20)) * 2),
    "a DataLoader of a stream": lambda: DataLoader(Endless(), batch_size=20),
    "an IterableDataset": Endless,
    "a loader": lambda: DataLoader(X, batch_size=20),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_trained_on_by_steps(name):
    """Three steps are one pass over X."""
    batches = Batches(stream(STREAMS[name](), 20, 3), 20)
    assert len(batches) == 3
    assert torch.equal(torch.cat([*batches, *batches]), torch.cat([X, X]))
    assert weights(plain(), STREAMS[name](), steps_per_epoch=3).isfinite().all()


def test_a_stream_goes_on_where_an_epoch_stopped():
    seen = []

    class Seen(pv.callbacks.Callback):
        def after_step(self, loss, n):
            seen.append(n)

    sizes = [1, 2, 3, 4, 5]
    pv.fit(plain(), iter([X[:n] for n in sizes * 2]), epochs=3, steps_per_epoch=3, progress=False,
           callbacks=[Seen()])  # fmt: skip
    assert seen == [1, 2, 3, 4, 5, 1, 2, 3, 4]


@pytest.mark.slow
def test_streams_say_what_they_lack():
    message = r"a stream of data has no length: fit\(..., steps_per_epoch=100\)"
    for source in (iter([X]), Endless(), DataLoader(Endless())):
        with pytest.raises(ValueError, match=message):
            pv.fit(plain(), source, **QUIET)
    with pytest.raises(ValueError, match=r"so it may have no end: read some of it first"):
        pv.elbo(plain(), DataLoader(Endless(), batch_size=5))
    assert pv.elbo(plain(), torch.cat([*islice(DataLoader(Endless(), 5), 2)])).shape == (10,)
    with pytest.raises(ValueError, match="ended after 3 batches and cannot be read again"):
        pv.fit(plain(), iter(X.split(20)), steps_per_epoch=2, **QUIET)
    with pytest.raises(ValueError, match="these are 60 rows: an epoch takes each once"):
        pv.fit(plain(), X, steps_per_epoch=2, **QUIET)
    with pytest.raises(ValueError, match="steps_per_epoch is a whole number of at least 1, got 0"):
        pv.fit(plain(), iter([X]), steps_per_epoch=0, **QUIET)


def test_a_stream_is_not_resumed(tmp_path):
    pv.fit(plain(), iter([X] * 9), steps_per_epoch=2, out=tmp_path / "run", **QUIET)
    with pytest.raises(ValueError, match="is not resumed"):
        pv.fit(plain(), iter([X] * 9), steps_per_epoch=2, resume=tmp_path / "run", **QUIET)


def test_a_loader_that_counts_wrongly_is_told_so():
    loader = Short(X, batch_size=20)
    with pytest.raises(ValueError, match=r"has 9 batches and gave 3: .*steps_per_epoch=3"):
        pv.fit(plain(), loader, **QUIET)
    pv.fit(plain(), loader, steps_per_epoch=3, **QUIET)


def test_rows_that_make_no_batch_are_told_what_to_do():
    for row in (lambda i: object(), lambda i: X[i, : 1 + i % 2]):
        for use in (lambda r=row: pv.fit(plain(), Rows(r), **QUIET),
                    lambda r=row: pv.elbo(plain(), Rows(r))):  # fmt: skip
            with pytest.raises(ValueError, match=r"make no batch .*: give each as a tensor"):
                use()
    with pytest.raises(ValueError, match="the loader gives no batch"):
        pv.elbo(plain(), DataLoader(TensorDataset(X[:0])))


def test_a_function_is_answered_with_what_reads_it_anew():
    with pytest.raises(ValueError, match="x is a function: give an IterableDataset"):
        pv.fit(plain(), lambda: iter(X.split(4)), epochs=1, steps_per_epoch=2, progress=False)
