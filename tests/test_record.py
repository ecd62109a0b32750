"""Observations as named blocks: what each role is to the encoder, the decoder and the score."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyro_vae as pv
from pyro_vae.distributions import Layout
from pyro_vae.model.joint import Joint

NETS = {"encoder": "MLP([5])", "decoder": "MLP([5])", "seed": 0}
NAN = math.nan


def conditional(*more, **options):
    """Three cells with two numbers of context, and the blocks of other roles."""
    blocks = [pv.Block("x", 3), pv.Block("age", role="context"), pv.Block("sex", role="context")]
    return pv.VAE(pv.Record([*blocks, *more]), 2, **{"likelihood": "Normal", **NETS, **options})


def observations(n=6, **more):
    torch.manual_seed(1)
    return {"x": torch.randn(n, 3), "age": torch.randn(n), "sex": torch.ones(n), **more}


def test_blocks_are_packed_side_by_side_and_unpacked_as_views():
    record = pv.Record([pv.Block("age", role="context"), pv.Block("x", (2, 3)), pv.Block("n")])
    arrays = {"x": torch.rand(4, 2, 3), "age": torch.rand(4), "n": torch.rand(4)}
    x = record.pack(arrays)
    assert x.shape == (4, 8) and record.x_shape == (7,)
    parts = record.unpack(x)
    assert all(torch.equal(parts[name], arrays[name]) for name in arrays)
    parts["age"][0] = 7.0
    assert (x == 7).sum() == 1
    assert torch.equal(record.with_cells(x, torch.zeros(4, 7))[:, 7], x[:, 7])


def test_a_plain_array_is_a_record_of_one_block_and_nothing_is_copied():
    vae, x = pv.VAE((1, 4, 4), 2, **NETS), torch.rand(3, 1, 4, 4)
    record = vae.record
    cells = record.observe(None, x)[1]
    assert all(t is x for t in (vae.inputs(x), record.cells(x), cells))
    assert record.take(x, x).data_ptr() == x.data_ptr()


def test_context_is_seen_by_encoder_and_decoder_and_never_scored():
    vae = conditional()
    x = vae.as_data(observations())
    other = vae.as_data(observations(age=torch.zeros(6)))
    z = torch.zeros(4, 6, 2)
    assert not torch.equal(vae.encode(x).mean, vae.encode(other).mean)
    assert not torch.equal(vae.decode(z, x).mean, vae.decode(z, other).mean)
    p, q = Joint(vae, x), vae.decode(z, x)
    assert q.batch_shape == (4, 6) and q.event_shape == (3,)
    assert torch.equal(p.log_likelihood(z), q.log_prob(x[:, :3]))
    trace = poutine.trace(vae.model).get_trace(x)
    assert trace.nodes["x"]["value"].shape == (6, 3) and set(vae.latents.sites) == {"z"}
    assert pv.fit(vae, x, epochs=2).history.elbo_train.notna().all()
    assert vae.reconstruct(x).shape == (6, 3)
    assert vae.sample(5, given=x, seed=0).shape == (5, 6, 3)
    with pytest.raises(ValueError, match=r"reads age, sex \(context\) beside z: give x"):
        vae.sample(3)


def test_context_of_images_and_sequences_is_a_channel():
    for shape, seen in {(1, 4, 4): (3, 2, 4, 4), (5, 2): (3, 5, 3)}.items():
        record = pv.Record([pv.Block("x", shape), pv.Block("t", role="context")])
        x = record.pack({"x": torch.zeros(3, *shape), "t": torch.arange(3)})
        read = pv.VAE(record, 2, encoder=torch.nn.Flatten(), seed=0).inputs(x)
        assert read.shape == seen
        plane = read[2, 1] if len(shape) == 3 else read[2, :, 2]
        assert (plane == 2).all() and (read[0] == 0).all()


def test_a_linear_model_with_context_has_its_known_likelihood():
    vae = conditional(likelihood="Normal(scale=0.5)", encoder="MLP([])", decoder="MLP([])")
    x = vae.as_data(observations())
    head = vae.likelihood.sources["loc"].head
    z = torch.randn(6, 2)
    mean = torch.cat([z, x[:, 3:]], 1) @ head.weight.T + head.bias
    exact = dist.Normal(mean, 0.5).log_prob(x[:, :3]).sum(1)
    assert torch.allclose(Joint(vae, x).log_likelihood(z), exact, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["Poisson", "NegativeBinomial", "GammaPoisson", "Exponential", "LogNormal"]
)
def test_an_offset_multiplies_the_mean(line):
    blocks = [pv.Block("x", 3), pv.Block("exposure", role="offset")]
    vae = pv.VAE(pv.Record(blocks), 2, likelihood=line, **NETS)
    plain = pv.VAE(3, 2, likelihood=line, **NETS)
    for part in ("decoder", "likelihood"):
        plain.get_submodule(part).load_state_dict(vae.get_submodule(part).state_dict())
    exposure = torch.tensor([0.0, 1.0, -0.5])
    x = vae.check({"x": torch.ones(3, 3), "exposure": exposure})
    z = torch.randn(4, 3, 2)
    ratio = vae.decode(z, x).mean / plain.decode(z).mean
    assert torch.allclose(ratio, exposure.exp()[:, None].expand(4, 3, 3), rtol=1e-4)
    assert not torch.equal(*vae.encode(x).mean[:2]), "a guide of rates reads the exposure"
    assert pv.fit(vae, x, epochs=1).history.elbo_train.notna().all()


def test_a_family_without_a_logarithm_takes_no_offset():
    blocks = [pv.Block("x", 3), pv.Block("exposure", role="offset")]
    with pytest.raises(ValueError, match="Normal takes no offset"):
        pv.VAE(pv.Record(blocks), 2, likelihood="Normal", **NETS)


def test_what_a_record_cannot_be_is_refused():
    """Each of these was taken once, and gave a wrong figure or a late error."""
    label, context = pv.Block("y", 3, role="label"), pv.Block("c", role="context")
    weight, x = pv.Block("w", role="weight"), pv.Block("x", 5)
    with pytest.raises(ValueError, match="a label block is of M2"):
        pv.VAE(pv.Record([x, label]), 2, **NETS)
    with pytest.raises(ValueError, match="M2 takes a Record of plain blocks, and adds the label"):
        pv.M2(pv.Record([x, label]), 2, 3)
    with pytest.raises(ValueError, match="an offset is one number or has the shape of x, 5 here"):
        pv.Record([x, pv.Block("o", 3, role="offset")])
    with pytest.raises(ValueError, match="a VampPrior is made of"):
        pv.VAE(pv.Record([x, context]), 2, prior="VampPrior(components=3)", **NETS)
    with pytest.raises(ValueError, match="binarize would draw bits of c too"):
        vae = pv.VAE(pv.Record([x, context]), 2, **NETS)
        pv.fit(vae, torch.rand(20, 6), binarize="dynamic", epochs=1)
    vae, ones = pv.VAE(pv.Record([x, weight]), 2, **NETS), torch.ones(20, 5)
    data = vae.record.pack({"x": ones, "w": 2 * ones[:, 0]})
    with pytest.raises(ValueError, match="it weighs within its logarithm"):
        pv.fit(vae, data, estimator="RenyiELBO(num_particles=2)", epochs=1)
    with pytest.raises(ValueError, match="only x itself is coded"):
        pv.compress(vae, data)


def test_reported_bounds_are_not_weighted():
    record = pv.Record([pv.Block("x", 3), pv.Block("w", role="weight")])
    vae, x = pv.VAE(record, 2, likelihood="Normal", **NETS), torch.zeros(6, 3)
    one, three = (record.pack({"x": x, "w": torch.full((6,), w)}) for w in (1.0, 3.0))
    assert torch.allclose(pv.elbo(vae, one, seed=0), pv.elbo(vae, three, seed=0), atol=1e-6)


def test_categorical_z_may_have_several_dimensions():
    line = "Categorical(categories=4)"
    assert pv.VAE(5, (2, 3), prior=line, guide=line, **NETS).sample(7, seed=0).shape == (7, 5)


def test_complete_data_are_imputed_as_they_are():
    x = torch.ones(3, 5)
    for missing in (True, False):
        assert torch.equal(pv.VAE(5, 2, missing=missing, **NETS).impute(x), x)


def test_a_weight_of_two_is_an_observation_twice():
    vae = pv.VAE(pv.Record([pv.Block("x", 3), pv.Block("w", role="weight")]), 2, **NETS)
    bits = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)).round()
    loss = Trace_ELBO().loss

    def objective(weights):
        torch.manual_seed(0)
        with pyro.get_param_store().scope():
            return loss(vae.model, vae.guide, vae.as_data({"x": bits, "w": weights}))

    once, twice = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([2.0, 1.0, 1.0])
    first = objective(twice) - objective(once)
    assert objective(torch.tensor([5.0, 1.0, 1.0])) == pytest.approx(objective(once) + 4 * first)
    assert first > 0.5
    with pytest.raises(ValueError, match=r"'w' \(weight\) needs a number greater than 0, got -1"):
        vae.as_data({"x": bits, "w": torch.tensor([1.0, -1.0, 0.0])})


def test_an_index_is_kept_and_read_by_no_network():
    vae = pv.VAE(pv.Record([pv.Block("x", 3), pv.Block("time", role="index")]), 2, **NETS)
    x = vae.as_data({"x": torch.ones(2, 3), "time": [3.0, 5.0]})
    assert vae.record.unpack(x)["time"].tolist() == [3, 5]
    assert vae.inputs(x).shape == (2, 3) and vae.check(x).shape == (2, 4)


def test_records_are_saved_and_loaded(tmp_path):
    vae = conditional(pv.Block("w", role="weight"), likelihood="StudentT(df=4)")
    again = pv.load(vae.save(tmp_path))
    assert again.describe() == vae.describe() and again.record.blocks == vae.record.blocks
    x = vae.as_data(observations(w=torch.ones(6)))
    assert torch.equal(again.reconstruct(x), vae.reconstruct(x))


BAD_RECORDS = {
    "none is observed": ([pv.Block("x", 3, role="context")], "has an observed block"),
    "one name": ([pv.Block("x", 3), pv.Block("x", role="context")], "two blocks have one name"),
    "two weights": (
        [pv.Block("x"), pv.Block("v", role="weight"), pv.Block("w", role="weight")],
        "two blocks have the role weight",
    ),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_records_are_refused(name):
    blocks, message = BAD_RECORDS[name]
    with pytest.raises(ValueError, match=message):
        pv.Record(blocks)


def test_bad_blocks_are_refused():
    with pytest.raises(ValueError, match="the role of block 'x' is one of observed, context"):
        pv.Block("x", 3, role="seen")
    with pytest.raises(ValueError, match="the shape of block 'x' must be a positive whole number"):
        pv.Block("x", 0)
    with pytest.raises(ValueError, match="missing and likelihood are of observed blocks"):
        pv.Block("x", 3, role="context", missing=True)
    with pytest.raises(ValueError, match=r"the shape of a weight is one number"):
        pv.Block("w", 3, role="weight")
    vae = conditional()
    with pytest.raises(ValueError, match="block 'sex' is absent"):
        vae.as_data({"x": torch.zeros(2, 3), "age": torch.zeros(2)})
    with pytest.raises(ValueError, match="unknown block size"):
        vae.as_data(observations(size=torch.zeros(6)))
    with pytest.raises(
        ValueError, match=r"'age' \(context\) needs a finite number, got nan in row 2"
    ):
        vae.as_data(observations(age=torch.tensor([0.0, 0, NAN, 0, 0, 0])))
    with pytest.raises(ValueError, match="block 'age' has 5 observations, and 'x' 6: give"):
        vae.as_data(observations(age=torch.zeros(5)))
    with pytest.raises(ValueError, match="the whole number 16777217, which float32 cannot hold"):
        vae.as_data(observations(age=torch.full((6,), 2**24 + 1)))
    with pytest.raises(ValueError, match="give x by blocks, a dict of x, age, sex"):
        vae.as_data(torch.zeros(2, 3))


def test_draws_need_no_more_than_what_they_are_given():
    vae, rows = conditional(), observations()
    beside = {name: rows[name] for name in ("age", "sex")}
    for mean in (True, False):
        drawn = vae.sample(3, given=beside, mean=mean, seed=0)
        assert torch.equal(drawn, vae.sample(3, given=rows, mean=mean, seed=0))
    assert drawn.shape == (3, 6, 3)
    for wrong, said in (
        ({"age": rows["age"]}, "block 'sex' is absent"),
        ({"age": rows["age"], "sex": 1.0}, "block 'sex' has 1 observations, and 'x' 6"),
        ({"size": 2.0}, "unknown block size"),
        ({}, "block 'age' is absent"),
    ):
        with pytest.raises(ValueError, match=said):
            vae.sample(3, given=wrong)


# Missing cells, whatever the shape.


class Steps(torch.nn.Module):
    """Reads a sequence step by step, its channels last."""

    def __init__(self):
        super().__init__()
        self.cell = torch.nn.GRU(6, 4, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0][:, -1]


@pytest.mark.parametrize("encoder", ["MLP([5])", "steps"])
def test_the_mask_of_a_sequence_lies_beside_its_channels(encoder):
    encoder = Steps() if encoder == "steps" else encoder
    vae = pv.VAE((5, 3), 2, likelihood="Normal", encoder=encoder, missing=True, seed=0)
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    x[0, 1, 2] = NAN
    read = vae.inputs(x)
    assert read.shape == (4, 5, 6) and read[0, 1].tolist() == [*x[0, 1, :2], 0, 1, 1, 0]
    assert pv.fit(vae, x, epochs=1).history.elbo_train.notna().all()
    assert vae.impute(x, num_samples=10, seed=0).isfinite().all()


def test_complete_rows_are_not_imputed():
    vae, x = pv.VAE(3, 2, missing=True, **NETS), torch.ones(3, 3)
    x[1, 1] = NAN
    alone = vae.impute(x[1:2], num_samples=20, seed=0)
    assert torch.equal(vae.impute(x, num_samples=20, seed=0)[1:2], alone)


# What comes in.


def small():
    return pv.VAE(3, 2, likelihood="Normal", **NETS)


TABLE = np.arange(12.0).reshape(4, 3)
FRAME = pd.DataFrame(TABLE, columns=["a", "b", "c"])
ARRAYS = {
    "flipped": TABLE[::-1][::-1],
    "big-endian": TABLE.astype(">f8"),
    "half": TABLE.astype(np.float16),
    "long": TABLE.astype(np.longdouble),
    "unsigned": TABLE.astype(np.uint16),
    "64 bits": TABLE.astype(np.uint64),
    "Fortran's order": np.asfortranarray(TABLE),
    "objects": TABLE.astype(object),
    "a list": TABLE.tolist(),
    "records": np.rec.fromarrays(TABLE.T, names="a,b,c"),
    "a frame": FRAME,
    "nullable": FRAME.astype("Int64"),
    "mixed": FRAME.astype({"a": "Int32", "b": "float32"}),
    "masked": np.ma.masked_array(TABLE, mask=False),
    "PyTorch's sparse": torch.tensor(TABLE).to_sparse(),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_numbers_come_in(name):
    assert torch.equal(small().as_data(ARRAYS[name]), torch.tensor(TABLE).float())


def test_bools_sparse_arrays_and_xarray_come_in():
    import scipy.sparse
    import xarray

    bits = TABLE > 4
    frame = FRAME.assign(b=bits[:, 1])
    assert torch.equal(small().as_data(frame)[:, 1], torch.tensor(bits[:, 1]).float())
    for x in (scipy.sparse.csr_array(bits), xarray.DataArray(bits), bits[:, ::-1][:, ::-1]):
        assert torch.equal(small().as_data(x), torch.tensor(bits).float())


def test_what_is_missing_there_is_missing_here():
    vae = pv.VAE(3, 2, likelihood="Normal", missing=True, **NETS)
    gone = TABLE == 4
    for x in (
        np.ma.masked_array(TABLE.astype(int), mask=gone),
        FRAME.astype("Int64").mask(gone),
        FRAME.astype(object).mask(gone, None),
        FRAME.mask(gone),
    ):
        found = vae.as_data(x)
        assert torch.equal(found.isnan(), torch.tensor(gone))
        assert torch.equal(found.nan_to_num(4.0), torch.tensor(TABLE).float())


BAD_ARRAYS = {
    "text in a column": (FRAME.assign(b=list("wxyz")), r"got 'w' in column 'b'"),
    "dates": (FRAME.assign(b=pd.Timestamp("2020-01-01")), "datetime64.*in column 'b'"),
    "complex": (TABLE + 1j, "got complex128, first"),
    "another shape": (TABLE[:, :2], r"expected x of shape \(N, 3\), got \(4, 2\): reshape x"),
    "one observation": (TABLE[0], r"got \(3,\): one observation is numpy.asarray\(x\)\[None\]"),
    "large ids": (TABLE + 2**24 + 1, "the whole number 16777217, which float32 cannot hold"),
    "large whole numbers": (TABLE.astype(int) + 2**24 + 1, "use vae.double"),
    "NaN": (FRAME.mask(TABLE == 4), r"x holds NaN: .* \(first in row 1, column 'b'\)"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_what_is_not_numbers_is_refused_by_its_place(name):
    x, message = BAD_ARRAYS[name]
    with pytest.raises(ValueError, match=message):
        small().check(x)


def test_large_numbers_that_the_type_holds_come_in():
    large = TABLE + 2**24 + 1
    assert small().double().as_data(large).tolist() == large.tolist()
    assert small().as_data(TABLE + 2.0**25 - TABLE).eq(2**25).all()
    assert small().as_data(TABLE * 1e9 + 0.5).shape == (4, 3)


def test_channels_last_are_told_how_to_come_first():
    images = np.zeros((2, 8, 6, 1))
    vae = pv.VAE((1, 8, 6), 2, **NETS)
    with pytest.raises(ValueError, match=r"x\.transpose\(0, 3, 1, 2\)"):
        vae.as_data(images)
    assert vae.as_data(images.transpose(0, 3, 1, 2)).shape == (2, 1, 8, 6)


def test_columns_are_put_in_the_order_of_the_frame_that_was_fitted(tmp_path):
    vae = small()
    x = vae.as_data(FRAME)
    assert torch.equal(vae.as_data(FRAME[["c", "a", "b"]]), x[:, [2, 0, 1]])  # not fitted yet
    pv.fit(vae, FRAME, validation=FRAME[["b", "c", "a"]], epochs=1, progress=False)
    assert vae.record.columns == ("a", "b", "c")
    assert torch.equal(vae.as_data(FRAME[["c", "a", "b"]]), x)
    again = pv.load(vae.save(tmp_path))
    assert torch.equal(again.as_data(FRAME[["c", "a", "b"]]), x)
    with pytest.raises(ValueError, match="x lacks the column 'b'; it has a, c, d"):
        again.as_data(FRAME.rename(columns={"b": "d"})[["a", "c", "d"]])
    with pytest.raises(ValueError, match=r"x holds inf; Normal .*row 0, column 'a'"):
        again.check(FRAME.replace(0.0, math.inf))


# The support.


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Pareto", "AffineBeta"])
def test_a_model_whose_support_depends_on_z_takes_its_own_samples(line):
    vae = pv.VAE(3, 2, likelihood=line, **NETS)
    for seed in range(20):
        vae.check(vae.sample(5, seed=seed))
    with pytest.raises(ValueError, match=f"x holds inf; {line} needs a finite number"):
        vae.check(torch.full((2, 3), math.inf))


def test_a_multinomial_of_other_totals_is_told_what_to_do():
    vae = pv.VAE(3, 2, likelihood="Multinomial(total_count=5)", **NETS)
    vae.check(torch.tensor([[5.0, 0, 0], [1, 2, 2]]))
    with pytest.raises(ValueError, match=r"that sum to 5, and these sum to 6: .*row 1"):
        vae.check(torch.tensor([[5.0, 0, 0], [1, 2, 3]]))


def test_the_first_offending_row_is_named():
    x = torch.zeros(9000, 3)
    x[8500, 1] = 0.3
    with pytest.raises(ValueError, match=r"x holds 0.3; Bernoulli needs 0 or 1.*row 8500, cell 1"):
        pv.VAE(3, 2, **NETS).check(x)


# What users ask is without a graph, and checked.


def test_answers_have_no_graph_and_the_guide_has():
    vae, x = small(), torch.zeros(2, 3)
    answers = [vae.encode(x).mean, vae.sample(2), vae.refine(x, steps=1).mean, vae.reconstruct(x)]
    assert all(answer.numpy() is not None for answer in answers)
    assert vae.approximate_posterior(x).mean.requires_grad and vae.guide(x).requires_grad


def test_numbers_of_draws_and_steps_are_checked():
    vae, x = small(), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="steps is a whole number of at least 1, got -3"):
        vae.refine(x, steps=-3)
    with pytest.raises(ValueError, match="num_samples is a whole number of at least 1, got -1"):
        vae.sample(-1)
    with pytest.raises(ValueError, match="lr is a number greater than 0, got 0"):
        vae.refine(x, lr=0)


def test_blocks_side_by_side_take_no_memory_however_wide_they_are():
    layout = Layout([10**12, 5])
    assert layout.plain and layout.widths == [10**12, 5] and len(layout.order) == 10**12 + 5
    assert layout.order[-1] == layout.places[1][-1] == 10**12 + 4
    mixed = Layout([[0, 2], [1]])
    assert not mixed.plain and list(mixed.order) == [0, 2, 1]
    assert torch.equal(mixed.join(mixed.split(torch.arange(3))), torch.arange(3))
