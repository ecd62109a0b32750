"""The sigma-VAE: the best scale of each batch in training, a fixed one in evaluation."""

import math

import pyro
import pytest
import torch

import pyro_vae as pv
from pyro_vae import make_estimator
from pyro_vae.distributions import FittedNormal
from pyro_vae.infer.estimators.soundness import check

SMALL = {"encoder": "MLP([8])", "decoder": "MLP([8])", "seed": 0}
TOLD = {"batch_size": 50, "lr": 1e-2, "progress": False}


def profile(x, loc):
    """The log likelihood at its best scale, as the paper has it."""
    return -x.numel() / 2 * (torch.log(2 * math.pi * (x - loc).square().mean()) + 1)


def test_a_batch_is_scored_at_its_best_scale():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=draw, dtype=torch.float64)
    loc = torch.randn(6, 4, generator=draw, dtype=torch.float64).requires_grad_()
    square = torch.ones(1, dtype=torch.float64)
    log = FittedNormal(loc, square, learn=True).to_event(1).log_prob(x)
    assert log.shape == (6,)
    torch.testing.assert_close(log.sum(), profile(x, loc))
    (ours,) = torch.autograd.grad(log.sum(), loc)
    (exact,) = torch.autograd.grad(profile(x, loc), loc)
    torch.testing.assert_close(ours, exact)
    best = (x - loc).square().mean().item()
    assert square.item() == pytest.approx(0.9 + 0.1 * best)
    for scale in (0.9 * best**0.5, 1.1 * best**0.5):
        other = torch.distributions.Normal(loc, scale).log_prob(x).sum()
        assert other < log.sum()


def test_evaluation_is_of_a_fixed_scale():
    square, x = torch.tensor([4.0]), torch.tensor([[1.0, -3.0]])
    p = FittedNormal(torch.zeros(1, 2), square).to_event(1)
    torch.testing.assert_close(
        p.log_prob(x), torch.distributions.Normal(0.0, 2.0).log_prob(x).sum(1)
    )
    assert square.item() == 4.0
    torch.testing.assert_close(p.variance, torch.full((1, 2), 4.0))


def test_missing_cells_have_no_part_in_the_scale():
    square = torch.ones(1)
    x, mask = torch.tensor([[3.0, 100.0], [1.0, 1.0]]), torch.tensor([[True, False], [True, True]])
    p = FittedNormal(torch.zeros(2, 2), square, learn=True).mask(mask).to_event(1)
    log = p.log_prob(x)
    best = (9 + 1 + 1) / 3
    assert square.item() == pytest.approx(0.9 + 0.1 * best)
    exact = torch.distributions.Normal(0.0, best**0.5).log_prob(x)
    torch.testing.assert_close(log, torch.stack([exact[0, 0], exact[1].sum()]))
    before = square.clone()
    p = FittedNormal(torch.zeros(2, 2), square, learn=True).mask(torch.tensor(False)).to_event(1)
    assert p.log_prob(x).tolist() == [0.0, 0.0] and torch.equal(square, before)  # nothing was seen


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("line", ["OptimalNormal", "Normal"])
def test_rows_by_weight_and_repeated_rows_have_one_scale(missing, line):
    """Alone, and beside a block of another family."""
    first = pv.Block("a", 2, likelihood="OptimalNormal", missing=missing)
    others = pv.Block("b", 2, likelihood=line), pv.Block("w", (), "weight")
    record = pv.Record([first, *others])
    x, found = torch.tensor([[9.0, 1.0, 2.0, 2.0], [0.0, -1.0, 0.5, 3.0]]), []
    x[0, 1] = torch.nan if missing else 1.0
    for rows, w in (([0, 1], [0.5, 1.5]), ([0, 1, 1, 1], [1.0] * 4), ([0, 1], [1.0] * 2)):
        vae = pv.VAE(record, 1, **SMALL)
        packed = vae.as_data({"a": x[rows, :2], "b": x[rows, 2:], "w": torch.tensor(w)})
        with pyro.get_param_store().scope():
            at = pyro.condition(vae.model, {"z": torch.zeros(len(rows), 1)})
            trace = pyro.poutine.trace(at).get_trace(packed)
            trace.compute_log_prob()
        found.append(next(m.square.item() for m in vae.modules() if hasattr(m, "square")))
    assert found[0] == pytest.approx(found[1]) and abs(found[0] - found[2]) > 0.1


@pytest.mark.parametrize("decoder", ["GRU(4)", "GRU(4, autoregressive=0)"])
def test_sequences_by_weight_and_repeated_sequences_have_one_scale(decoder):
    record, found = pv.Record([pv.Block("x", (3, 2)), pv.Block("w", (), "weight")]), []
    x = torch.tensor([9.0, -1.0])[:, None, None] * torch.ones(2, 3, 2)
    for rows, w in (([0, 1], [0.5, 1.5]), ([0, 1, 1, 1], [1.0] * 4), ([0, 1], [1.0] * 2)):
        parts = {"encoder": "MLP([4])", "decoder": decoder, "seed": 0}
        vae = pv.VAE(record, 1, likelihood="OptimalNormal", **parts)
        with pyro.get_param_store().scope():
            at = pyro.condition(vae.model, {"z": torch.zeros(len(rows), 1)})
            packed = vae.as_data({"x": x[rows], "w": torch.tensor(w)})
            pyro.poutine.trace(at).get_trace(packed).compute_log_prob()
        found.append(vae.likelihood.step.square.item())
    assert found[0] == pytest.approx(found[1]) and abs(found[0] - found[2]) > 0.1


def test_padding_has_no_part_in_the_scale():
    parts = {"encoder": "GRU(4)", "decoder": "GRU(4)", "seed": 0}
    vae = pv.VAE((None, 2), 1, likelihood="OptimalNormal", **parts)
    x = vae.as_data([torch.full((1, 2), 9.0), torch.zeros(4, 2)])
    p, square = vae.decode(torch.zeros(2, 1), x), vae.likelihood.step.square
    best = (x - p.base_dist.mean)[~x.isnan()].square().mean().item()
    before = square.item()
    p.log_prob(x)
    assert square.item() == pytest.approx(0.9 * before + 0.1 * best)


def line_of_one_z(size, missing):
    """x is a line of one z, with noise of .2."""
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(1000, 1, generator=draw)
    x = size * (z @ torch.ones(1, 8) + 0.2 * torch.randn(1000, 8, generator=draw))
    x[torch.rand(x.shape, generator=draw) < 0.1 * missing] = torch.nan
    return x


@pytest.mark.slow
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("units, size", [("none", 1.0), ("data", 1000.0)])
def test_the_scale_is_that_of_the_residuals(missing, units, size):
    x = line_of_one_z(size, missing)
    vae = pv.VAE(8, 1, likelihood="OptimalNormal", missing=missing, units=units, **SMALL)
    pv.fit(vae, x, epochs=8, **(TOLD | {"lr": "cosine(2e-2)"}))
    scale = vae.likelihood.square.sqrt().item()
    with torch.no_grad():
        z = vae.encode(x).sample(torch.Size([20]))
        residuals = (x - vae.decode(z).mean)[:, ~x.isnan()]
    assert scale == pytest.approx(residuals.square().mean().sqrt().item(), rel=0.05)
    if not missing:
        assert scale / size == pytest.approx(0.2, abs=0.04)
    assert torch.equal(pv.elbo(vae, x, seed=0), pv.elbo(vae, x, seed=0))
    assert vae.likelihood.square.sqrt().item() == scale  # evaluation leaves it


def test_a_model_is_saved_with_its_scale(tmp_path):
    vae = pv.VAE(4, 2, likelihood="OptimalNormal", **SMALL)
    assert vae.likelihood.square == 1  # what was scored to see whether it can be is no data
    x = torch.randn(60, 4)
    pv.fit(vae, x, epochs=2, **TOLD)
    again = pv.load(vae.save(tmp_path))
    assert torch.equal(pv.elbo(vae, x, seed=0), pv.elbo(again, x, seed=0))
    assert again.likelihood.square == vae.likelihood.square != 1
    with pytest.raises(ValueError, match="no part of a mixture"):
        pv.VAE(4, 2, likelihood="Mixture(OptimalNormal, components=2)", **SMALL)
    for guide in ("SemiAmortized(Normal)", "Hamiltonian(Normal)"):
        with pytest.raises(ValueError, match=r"along its steps: use Normal\(scale=learned\)"):
            pv.VAE(4, 2, likelihood="OptimalNormal", guide=guide, **SMALL)


@pytest.mark.parametrize("line", ["TraceEnum_ELBO", "UGC", "REBAR", "MuProp", "MeasureValued"])
def test_values_that_are_no_draws_have_no_part_in_the_scale(line):
    """All states of bits, or moved coordinates, would count as draws."""
    family = "Normal" if line == "MeasureValued" else "Bernoulli"
    record = pv.Record([pv.Block("a", 2), pv.Block("b", 2, likelihood="OptimalNormal")])
    vae = pv.VAE(record, 2, prior=family, guide=family, likelihood="Normal", **SMALL)
    x = torch.randn(6, 4)
    with pytest.raises(ValueError, match=f"{line} cannot .* no draws, .* use RLOO"):
        check(make_estimator(line), vae.model, vae.guide, x)
    served = "DisARM" if family == "Bernoulli" else "Trace_ELBO"
    check(make_estimator(served), vae.model, vae.guide, x)
