"""Counts: sparse matrices that stay so, AnnData, totals as offsets."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from scipy import sparse

import pyro_vae as pv
from helpers.counts import GENES, matrix, obs
from pyro_vae.data.sparse import SparseRows
from pyro_vae.distributions import Multinomial

NETS = {"encoder": "MLP([8])", "decoder": "MLP([])", "seed": 0}
ZINB = "ZeroInflatedNegativeBinomial(total_count=learned(shared=False))"


def counts():
    return pv.Counts(matrix(), obs(), GENES)


def model(x=None, **options):
    options = {"likelihood": ZINB, "condition": "~ C(batch)", "offset": "library", **options}
    return pv.VAE(counts() if x is None else x, latent_dim=2, **NETS, **options)


class Undensifiable(sparse.csr_matrix):
    """A matrix that refuses to be dense."""

    def toarray(self, *args, **kwargs):
        raise AssertionError("a dense copy of the whole")

    todense = __array__ = toarray


FORMS = {
    "csr": lambda x: x,
    "csc": lambda x: x.tocsc(),
    "coo": lambda x: x.tocoo(),
    "twice": lambda x: sparse.coo_matrix(
        (np.tile(x.tocoo().data, 2) / 2, (np.tile(x.tocoo().row, 2), np.tile(x.tocoo().col, 2))),
        x.shape,
    ),
    "torch": lambda x: torch.tensor(x.toarray()).to_sparse(),
    "torch csr": lambda x: torch.tensor(x.toarray()).to_sparse_csr(),
    "refusing": Undensifiable,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("form", FORMS)
def test_rows_are_those_of_the_dense_matrix(form):
    x = matrix()
    rows, dense = SparseRows(FORMS[form](x)), torch.tensor(x.toarray()).float()
    at = torch.tensor([5, 0, 39, 5])
    assert torch.equal(rows[at].float(), dense[at])
    assert torch.equal(rows[3].float(), dense[3])
    assert torch.equal(rows[2:30:7].float(), dense[2:30:7])
    assert torch.equal(rows.subset(at)[1:].float(), dense[at][1:])
    assert torch.equal(torch.cat([*rows.blocks(7)]).float(), dense)


def test_empty_rows_and_numbers_beside():
    x = sparse.csr_matrix((4, 3))
    rows = SparseRows(x, beside=torch.arange(8.0).view(4, 2))
    assert rows[torch.tensor([2, 1])].tolist() == [[0, 0, 0, 4, 5], [0, 0, 0, 2, 3]]
    assert rows[torch.tensor([], dtype=torch.long)].shape == (0, 5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"compile": True}])
def test_a_sparse_matrix_is_never_dense_and_trains_as_the_dense_one(options, interpreted):
    refusing = pv.Counts(Undensifiable(matrix()), obs(), GENES)
    vae = model()
    fitted = pv.fit(
        vae, refusing, epochs=2, batch_size=16, progress=False, validation=0.2, **options
    )
    bounds = pv.elbo(vae, refusing, seed=0)
    evidence = pv.log_evidence(vae, refusing, num_samples=8, seed=0).log_evidence
    z = vae.encode(refusing).mean
    assert len(fitted.history) == 2
    dense = vae.as_data({"x": matrix().toarray(), "condition": obs()})
    assert torch.allclose(bounds, pv.elbo(vae, dense, seed=0), atol=1e-4)
    assert torch.allclose(
        evidence, pv.log_evidence(vae, dense, num_samples=8, seed=0).log_evidence, atol=1e-4
    )
    assert torch.allclose(z, vae.encode(dense).mean, atol=1e-5)
    assert vae.sample(3, given=refusing[:4], seed=0).shape == (3, 4, 12)
    assert vae.reconstruct(refusing[:4]).shape == (4, 12)


def test_plain_sparse_bits_need_no_counts():
    vae, x = pv.VAE(12, latent_dim=2, **NETS), (matrix() > 0).astype(np.float32)
    pv.fit(vae, x, epochs=1, progress=False)
    dense = torch.tensor(x.toarray())
    assert torch.allclose(pv.elbo(vae, x, seed=0), pv.elbo(vae, dense, seed=0))


def test_a_whole_dense_copy_is_refused_where_it_is_large():
    x = sparse.csr_matrix((2**18, 2**11))
    with pytest.raises(ValueError, match=r"262,144 dense rows of 2,048 take .* GiB. Give some"):
        pv.VAE(2**11, latent_dim=2, **NETS).reconstruct(x)


def test_annotated_data_of_any_library_with_x_obs_and_names():
    adata = SimpleNamespace(
        X=np.log1p(matrix().toarray()), layers={"counts": matrix()}, obs=obs(), var_names=GENES
    )
    read = pv.Counts.of(adata, layer="counts")
    vae = pv.VAE(
        read, latent_dim=2, likelihood=ZINB, condition="~ C(batch)", offset="library", **NETS
    )
    assert torch.equal(vae.as_data(read), vae.as_data(counts()))
    assert vae.record.columns == tuple(GENES)
    with pytest.raises(ValueError, match="no layer 'raw'; there is counts"):
        pv.Counts.of(adata, layer="raw")
    plain = SimpleNamespace(X=matrix(), layers={}, obs=obs(), var_names=GENES)
    assert torch.equal(vae.as_data(plain), vae.as_data(counts()))


def test_a_frame_of_counts_has_its_condition_among_its_columns():
    frame = pd.DataFrame(matrix().toarray(), columns=GENES).assign(batch=obs().batch)
    vae = pv.VAE(
        frame, latent_dim=2, likelihood=ZINB, condition="~ C(batch)", offset="library", **NETS
    )
    assert torch.equal(vae.as_data(frame), vae.as_data(counts()))
    assert vae.record.columns == tuple(GENES)


def test_columns_are_put_in_the_order_of_the_model():
    vae, other = model(), pv.Counts(matrix()[:, ::-1], obs(), GENES[::-1])
    assert torch.equal(vae.as_data(other), vae.as_data(counts()))
    with pytest.raises(ValueError, match="x lacks the column 'gene0'"):
        vae.as_data(pv.Counts(matrix()[:, 1:], obs(), GENES[1:]))


def test_the_offset_is_the_total_and_the_encoder_reads_what_does_not_depend_on_it():
    vae, x = model(condition=None, likelihood="Poisson"), matrix()
    data = vae.as_data(x)
    assert torch.allclose(data[:, -1].exp(), torch.tensor(x.sum(1)).squeeze().float())
    z = torch.zeros(40, 2)
    twice = vae.as_data(x * 2)
    mean, double = vae.decode(z, data).mean, vae.decode(z, twice).mean
    assert torch.allclose(2 * mean, double, rtol=1e-5)
    vae.start_from(data)
    read, doubled = vae.inputs(data), vae.inputs(twice)
    assert torch.allclose(read[:, :12], doubled[:, :12], atol=1e-5)
    assert not torch.allclose(read[:, 12], doubled[:, 12])


def test_counts_start_at_the_shares_of_the_columns():
    vae, x = model(condition=None, likelihood="NegativeBinomial(total_count=learned)"), matrix()
    data = vae.as_data(x)
    with torch.no_grad():
        vae.likelihood.sources["logits"].head.bias.zero_()
    vae.start_from(data)
    shares = torch.tensor((x.multiply(1 / x.sum(1))).mean(0)).flatten().float()
    rates = vae.decode(torch.zeros(1, 2), data[:1]).mean / data[0, -1].exp()
    assert torch.allclose(rates[0], shares, rtol=0.01)


def test_multinomial_rows_have_totals_of_their_own():
    x = matrix()
    vae = pv.VAE(12, latent_dim=2, likelihood="Multinomial", **NETS)
    data, z = vae.as_data(x), torch.zeros(40, 2)
    p = vae.decode(z, data)
    for i in (0, 7, 31):
        alone = dist.Multinomial(int(x[i].sum()), logits=vae.decode(z, data).logits[i])
        assert torch.allclose(p.log_prob(data[:, :12])[i], alone.log_prob(data[i, :12]), atol=1e-5)
    drawn = vae.sample(5, given=x, seed=0)
    assert torch.equal(drawn.sum(-1)[0], torch.tensor(x.sum(1)).flatten().float())
    pv.fit(vae, x, epochs=1, progress=False)
    assert pv.elbo(vae, x.toarray(), seed=0).isfinite().all()


def test_draws_of_multinomials_with_different_totals_have_their_moments():
    torch.manual_seed(0)
    n, logits = torch.tensor([3, 7, 1]), torch.randn(3, 5)
    p = Multinomial(n, logits=logits)
    x = p.sample((20_000,))
    assert torch.equal(x.sum(-1), n.float().expand(20_000, 3))
    z = (x.mean(0) - p.mean) / (p.variance / len(x)).sqrt()
    assert z.abs().max() < 5
    covariance = x[:, 1].T.cov()[0, 1]
    exact = -7 * p.probs[1, 0] * p.probs[1, 1]
    assert abs(covariance - exact) < 5 * (p.variance[1, :2].prod() / len(x)).sqrt()


@pytest.mark.slow
def test_saved_counts_are_read_again(tmp_path):
    vae = model()
    pv.fit(vae, counts(), epochs=1, progress=False)
    again = pv.load(vae.save(tmp_path))
    assert torch.equal(again.encode(counts()).mean, vae.encode(counts()).mean)
    assert again.record.describe() == vae.record.describe()


REFUSED = {
    "negative": (lambda x: x - sparse.eye_array(*x.shape) * 9, "holds -.*row ., column 'gene"),
    "fractional": (
        lambda x: x + sparse.eye_array(*x.shape) * 0.5,
        r"raw counts.*row ., column 'gene",
    ),
    "empty row": (lambda x: x.multiply(np.arange(40)[:, None] != 3), "row 3 has no counts"),
    "width": (lambda x: x[:, 1:], "model is of 12 columns of counts, got 11"),
}


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", [ZINB, "Multinomial", "Poisson"])
@pytest.mark.parametrize("case", REFUSED)
def test_wrong_counts_are_named(case, likelihood):
    change, message = REFUSED[case]
    vae, x = model(likelihood=likelihood), sparse.csr_matrix(change(matrix()))
    names = GENES if x.shape[1] == 12 else None
    with pytest.raises(ValueError, match=message):
        pv.fit(vae, pv.Counts(x, obs(), names), epochs=1, progress=False)


FORMS_OF_X = {
    "sparse": lambda x: x,
    "dense": lambda x: torch.tensor(x.toarray()),
    "counts": lambda x: pv.Counts(x, obs()),
}


@pytest.mark.parametrize("form", FORMS_OF_X)
def test_rows_without_counts_are_left_out_as_it_is_advised(form):
    x = FORMS_OF_X[form](matrix().multiply(np.arange(40)[:, None] > 1).tocsr())
    vae = model(pv.Counts(matrix(), obs()), condition=None)
    with pytest.raises(ValueError, match=r"row 0 has no counts .*, one of 2 such rows") as refused:
        vae.check(x)
    advised = str(refused.value).split("leave it out, ")[1]
    rows = eval(advised, {"x": x, "Counts": pv.Counts})
    assert len(vae.check(rows)) == 38


@pytest.mark.parametrize("value", ["x", None, float("inf"), -1, 0])
def test_an_exposure_that_is_none_is_said_with_column_and_row(value):
    vae = model(pv.Counts(matrix(), obs().assign(depth=1.0)), condition=None, offset="depth")
    rows = obs().assign(depth=[1.0] * 7 + [value] + [1.0] * 32)
    with pytest.raises(ValueError, match="column 'depth', row 7: expected a number greater than 0"):
        vae.check(pv.Counts(matrix(), rows))


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.inf, "x holds inf"), (np.nan, "x holds NaN, and the total of the row is its offset")],
)
def test_a_total_that_is_no_number_is_laid_to_its_cell(value, words):
    x = matrix().astype(float)
    x[3, 2] = value
    with pytest.raises(ValueError, match=f"{words}.*first in row 3, column"):
        model(condition=None).check(pv.Counts(x.tocsr(), obs(), GENES))


def test_what_is_beside_counts_is_checked():
    with pytest.raises(ValueError, match="40 rows, and obs of 39"):
        pv.Counts(matrix(), obs(39))
    with pytest.raises(ValueError, match="12 columns, and 2 names"):
        pv.Counts(matrix(), names=["a", "b"])
    with pytest.raises(ValueError, match=r"Counts\(x, obs=frame\)"):
        model().as_data(matrix())
    with pytest.raises(ValueError, match=r"is a formula.*VAE\(Counts\(x, obs=frame\), ..., condit"):
        pv.VAE(12, latent_dim=2, condition=2, likelihood="Multinomial")
    with pytest.raises(ValueError, match=r"Counts\(x, obs=frame\)"):
        pv.VAE(matrix(), latent_dim=2, condition="~ C(batch)", likelihood="Poisson")
    with pytest.raises(ValueError, match="'size', row 2: expected a number greater than 0"):
        data = pv.Counts(matrix(), obs().assign(size=np.arange(40) - 2.0 + (np.arange(40) < 2) * 9))
        pv.VAE(data, latent_dim=2, likelihood="Poisson", offset="size", **NETS).as_data(data)


BESIDE = {
    "a misspelt exposure": (
        lambda: pv.VAE(pv.Counts(matrix(), obs()), 2, offset="libary", **NETS),
        "no column 'libary'; did you mean library",
    ),
    "no frame": (
        lambda: pv.VAE(matrix(), 2, weight="w", **NETS),
        r"reads 'w' beside x.*Counts\(x, obs=frame\)",
    ),
    "a width": (
        lambda: pv.VAE(pv.Counts(matrix(), obs()), 2, condition=3, **NETS),
        "a condition is a formula, .* or columns, got 3",
    ),
    "words": (lambda: pv.Counts(np.array([["a"]])), "whole numbers, got an array of <U1"),
    "no frame but a list": (lambda: pv.Counts(matrix(), [1] * 40), "expected a frame of pandas"),
    "a name twice": (lambda: pv.Counts(matrix(), names=["a"] * 12), "two columns .* named 'a'"),
    "a total of a table": (
        lambda: pv.VAE(pv.Table.from_frame(obs()), 2, offset="library"),
        "'library' is the total of rows of counts alone",
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_is_beside_counts_is_told_before_training(case):
    act, message = BESIDE[case]
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.parametrize("form", ["polars", "dict"])
def test_the_frame_beside_counts_is_of_any_library(form):
    frame = obs()
    if form == "polars":
        beside = pytest.importorskip("polars").from_pandas(frame)
    else:
        beside = frame.to_dict("list")
    data, own = (pv.Counts(matrix(), one, GENES) for one in (beside, frame))
    vae = model(own)
    assert torch.equal(vae.as_data(data[3:9]), vae.as_data(own[3:9]))


def test_codes_that_a_condition_reads_as_a_quantity_are_warned_of():
    frame = obs().assign(site=np.arange(40) % 4, depth=np.random.default_rng(0).normal(size=40))
    data = pv.Counts(matrix(), frame)
    with pytest.warns(UserWarning, match=r"column 'site' as a quantity.*say C\(site\)"):
        assert model(data, condition="~ site + depth").record.design.names == ("site", "depth")
    vae = model(data, condition="~ C(site) + depth")
    assert len(vae.record.design.names) == 4
    with pytest.raises(ValueError, match="column 'site', row 0: 7 is not among the levels"):
        vae.as_data(pv.Counts(matrix(), frame.assign(site=7)))


@pytest.mark.slow
def test_a_counterfactual_sets_the_condition_of_counts():
    frame = obs().assign(age=np.random.default_rng(0).normal(size=40))
    data = pv.Counts(matrix(), frame)
    vae = model(data, likelihood="Poisson", condition="~ C(batch) + age")
    same = vae.record.intervene(vae.as_data(data), {"batch": frame.batch, "age": frame.age})
    assert torch.allclose(same, vae.as_data(data))
    other = vae.record.intervene(vae.as_data(data), {"batch": "b", "age": frame.age})
    assert torch.allclose(other, vae.as_data(pv.Counts(matrix(), frame.assign(batch="b"))))
    assert vae.counterfactual(data, {"batch": "b", "age": 0.5}, seed=0).shape == (40, 12)
    alone = vae.counterfactual(data, {"batch": "b"}, seed=0)
    whole = vae.counterfactual(data, {"batch": "b", "age": frame.age}, seed=0)
    assert torch.equal(alone, whole)
    with pytest.raises(ValueError, match=r"say 'age' too, or give counts with their frame"):
        vae.counterfactual(vae.as_data(data), {"batch": "b"})


@pytest.mark.slow
def test_counts_are_drawn_given_what_stands_beside_them_by_name():
    frame = obs().assign(age=np.arange(40.0), w=1.0)
    vae = model(pv.Counts(matrix(), frame, GENES), condition="~ C(batch) + age", weight="w")
    one = {"batch": "b", "age": 3.0, "library": 50}
    drawn = vae.sample(5, given=one, seed=0)
    by_block = {"condition": torch.tensor([[1.0, 3.0]]), "library": torch.tensor([50.0]).log()}
    by_block |= {"w": torch.ones(1)}
    assert drawn.shape == (5, 1, 12)
    assert torch.equal(drawn, vae.sample(5, given=by_block, seed=0))
    rows = pd.DataFrame([one, one | {"age": 9.0}])
    for several in (rows, rows.assign(other=1), rows.to_dict("list")):
        assert torch.equal(vae.sample(5, given=several, seed=0), vae.sample(5, given=rows, seed=0))
    for wrong, words in (
        (None, r"given batch, age, library: say it, sample\(10, given=\{'batch': \.\.\., 'age'"),
        ({"batch": "b", "age": 3.0}, "conditional on 'library': say its value too"),
        (one | {"batch": "z"}, "'z' is not among its levels"),
        (one | {"library": 0}, "'library', row 0: expected a number greater than 0"),
        (one | {"gene0": 1}, "given says 'gene0', and this model draws counts given batch, age"),
        (
            {"condition": rows},
            r"say all by name, given=\{'batch': \.\.\., 'age': \.\.\., 'library'",
        ),
        (one | {"age": [1.0, 2.0], "library": [1, 2, 3]}, "columns of several lengths"),
    ):
        with pytest.raises(ValueError, match=words):
            vae.sample(2, given=wrong)


def test_a_loop_over_the_rows_of_counts_ends():
    assert len(list(counts())) == len(counts())
    assert len(pv.Counts(matrix().toarray())[np.int64(3)]) == 1
    with pytest.raises(IndexError, match="there is no row 10000 among"):
        counts()[10_000]
    with pytest.raises(ValueError, match=r"got Counts: give a pandas\.DataFrame"):
        pv.plots.associations(counts(), counts())
