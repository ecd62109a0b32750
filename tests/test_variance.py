"""The variance of gradient estimators as measured, against closed forms and enumeration."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO

import pyro_vae as pv
from helpers.commands import run as command
from pyro_vae import plots
from pyro_vae.evaluate import as_table, compare_estimators, elbo_draws
from pyro_vae.evaluate.gradients.moments import Moments, View
from pyro_vae.evaluate.gradients.repeated import factor
from pyro_vae.infer import make_estimator
from pyro_vae.infer.engine.capture import capture
from pyro_vae.infer.estimators.soundness import check_and_nest

SCORE = "Trace_ELBO(gradient=score)"
DECAYING = "TraceGraph_ELBO(gradient=score, baseline=decaying)"
NEURAL = "TraceGraph_ELBO(gradient=score, baseline=neural)"
GROUPS = ["prior", "likelihood", "guide", "encoder", "decoder"]
TIMES = ["ms_per_draw", "work"]


def make_bits():
    """A model of 4 Bernoulli latents away from symmetry, and its data."""
    generator = torch.Generator().manual_seed(5)
    vae = pv.VAE(
        6, 4, prior="Bernoulli(logits=learned)", guide="Bernoulli",
        encoder=pv.MLP([5], activation="Tanh"), decoder=pv.MLP([5], activation="Tanh"), seed=3,
    )  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.7)
    return vae, torch.rand(5, 6, generator=generator).lt(0.5).float()


@pytest.fixture
def bits():
    return make_bits()


@pytest.fixture
def one_graph(monkeypatch):
    """The graph of an estimator's draws is made once: a seed changes nothing in it."""
    kept = []

    def once(*args):
        kept.append(kept[0] if kept else capture(*args))
        return kept[0]

    monkeypatch.setattr("pyro_vae.evaluate.gradients.sample.capture", once)
    monkeypatch.setattr("pyro_vae.evaluate.gradients.sample.TIMED", 4)  # draws that are timed


@pytest.fixture
def gauss():
    """One-dimensional linear Gaussian: the guide's loc is learned, its scale is not."""
    vae = pv.VAE(
        1, 1, prior="Normal", likelihood="Normal(scale=0.9)", guide="Normal(scale=0.6)",
        encoder=pv.MLP([]), decoder=pv.MLP([]), seed=4,
    ).double()  # fmt: skip
    return vae, torch.tensor([[-0.4], [1.3], [0.2]]).double()


class Scaled(Trace_ELBO):
    """A biased estimator: the gradient is 0.8 of what it should be."""

    def loss_and_grads(self, model, guide, *args, **kwargs):
        loss = super().loss_and_grads(model, guide, *args, **kwargs)
        for p in pyro.get_param_store()._params.values():
            if p.grad is not None:
                p.grad.mul_(0.8)
        return loss


class Unknown(ELBO):
    """A bound that nobody knows; it happens to be Trace_ELBO's."""

    def _get_trace(self, model, guide, args, kwargs):
        raise NotImplementedError

    def loss_and_grads(self, *args):
        return Trace_ELBO().loss_and_grads(*args)


# Against closed forms.


def gaussian_variance(vae, x):
    """Variance of one gradient draw of the guide's weight and bias, pathwise and score function.

    With z = loc + s e the log weight is quadratic, f = alpha e^2 + beta e + c. The gradient of an
    observation in loc is linear in e by the path, -a z + c', and f e / s by the score function.
    """
    head = vae.likelihood.sources["loc"].head
    w, b, loc = head.weight.item(), head.bias.item(), vae.encode(x).mean.flatten().detach()
    s, noise, x = 0.6, 0.9, x.flatten()
    a = 1 + w**2 / noise**2
    slope = -loc + w * (x - b - w * loc) / noise**2
    at_loc = (
        -0.5 * loc**2 - 0.5 * ((x - b - w * loc) / noise) ** 2
        - 0.5 * math.log(2 * math.pi) - math.log(noise) + math.log(s)
    )  # fmt: skip
    alpha, beta, gamma = 0.5 - 0.5 * a * s**2, s * slope, at_loc
    path = (a * s) ** 2 * torch.ones_like(x)
    score = (15 * alpha**2 + 2 * beta**2 + gamma**2 + 6 * alpha * gamma) / s**2
    total = {}
    for name, variance in {"Trace_ELBO": path, SCORE: score}.items():
        total[name] = {"bias": variance.sum().item() / len(x) ** 2}
        total[name]["weight"] = (variance * x**2).sum().item() / len(x) ** 2
    return total


@pytest.mark.slow
def test_the_variance_is_the_closed_form(gauss):
    vae, x = gauss
    expected, (exact, norm) = gaussian_variance(vae, x), exact_gradient(vae, x)
    found = compare_estimators(vae, x, list(expected), num_draws=2000, reference=exact)
    for line, by_name in expected.items():
        row = found.sel(estimator=line)
        for name, variance in by_name.items():
            here = row.sel(parameter=f"approximation.sources.loc.head.{name}")
            error = here.grad_variance_se.item()
            assert abs(here.grad_variance.item() - variance) < 5 * error
            assert error < 0.15 * variance
        guide = row.sel(parameter="guide").grad_variance.item()
        assert guide == pytest.approx(sum(by_name.values()), rel=0.25)
        assert row.snr.sel(parameter="guide").item() == pytest.approx(
            norm / sum(by_name.values()) ** 0.5, abs=5 / 2000**0.5
        )
    assert (found.bias_z < 5).all()
    assert (found.reference == "given").all()


def exact_gradient(vae, x):
    """By parameter, and the norm in the guide: the ELBO per observation by the moments of q."""
    head = vae.likelihood.sources["loc"].head
    loc = vae.approximate_posterior(x).mean
    fit = -((x - head(loc)) ** 2 + 0.6**2 * head.weight**2) / (2 * 0.9**2)
    value = (fit - 0.5 * loc**2).sum() / len(x)
    names = [n for n, p in vae.named_parameters() if p.requires_grad]
    grads = torch.autograd.grad(value, [vae.get_parameter(n) for n in names])
    given = dict(zip(names, grads, strict=True))
    norm = sum(g.square().sum() for n, g in given.items() if n.startswith("approximation")) ** 0.5
    return given, norm.item()


@pytest.mark.slow
def test_the_variance_of_a_mean_of_particles_falls_as_their_number(gauss):
    vae, x = gauss
    lines, (exact, _) = ["Trace_ELBO", "Trace_ELBO(num_particles=8)"], exact_gradient(vae, x)
    found = compare_estimators(vae, x, lines, num_draws=500, reference=exact)
    one, eight = found.grad_variance.sel(parameter="all").to_numpy()
    assert eight == pytest.approx(one / 8, rel=0.4)  # each within 8 % or so
    assert list(found.evaluations) == [1, 8]


# Against enumeration.


@pytest.mark.slow
def test_bias_is_seen_and_only_where_it_is(bits):
    vae, x = bits
    biased = Scaled()
    lines = ["TraceEnum_ELBO", "Trace_ELBO", "TraceGraph_ELBO", DECAYING, NEURAL]
    guard = compare_estimators(vae, x, lines, num_draws=60, burn_in=50)
    assert (guard.reference == "TraceEnum_ELBO, exact").all()
    assert (guard.bound == "ELBO").all()
    assert (guard.bias_z.sel(parameter=[*GROUPS, "all"]) < 5).all()
    assert guard.bias_z.notnull().all()
    exact = guard.sel(estimator="TraceEnum_ELBO")
    assert (exact.grad_variance < 1e-12).all() and exact.value_sd < 1e-5
    assert np.allclose(exact.cosine, 1) and (exact.bias_z == 0).all()
    assert exact.evaluations == 16

    # score function: Trace_ELBO by Pyro's rule; a baseline lowers its variance, in the guide alone
    variance = guard.grad_variance
    plain = variance.sel(estimator="Trace_ELBO")
    for line in (DECAYING, NEURAL):
        less = variance.sel(estimator=line)
        assert (less / plain).sel(parameter=["guide", "encoder"]).max() < 0.5
        assert less.sel(parameter="decoder").item() == pytest.approx(
            plain.sel(parameter="decoder").item(), rel=1e-4
        )
    cosine = guard.cosine.sel(parameter="all")
    assert cosine.sel(estimator=NEURAL) > cosine.sel(estimator="Trace_ELBO") > 0

    seen = compare_estimators(vae, x, [biased], num_draws=2000).sel(estimator="Scaled")
    assert seen.bias_z.sel(parameter="all") > 5
    assert seen.bias_z.sel(parameter="decoder") > 5
    assert seen.bias.sel(parameter="decoder").item() == pytest.approx(0.2, abs=0.07)


@pytest.mark.slow
def test_bias_z_is_standard_normal_without_bias(bits, one_graph):
    """One-sided z-scores over seeds: mean about 0, sd about 1, and none far out."""
    vae, x = bits
    runs = [compare_estimators(vae, x, ["Trace_ELBO"], num_draws=60, seed=s) for s in range(30)]
    z = np.array([run.bias_z.sel(parameter="all").item() for run in runs])
    assert abs(z.mean()) < 5 / 30**0.5  # 5 standard errors
    assert 0.5 < z.std() < 1.6 and abs(z).max() < 5


@pytest.mark.parametrize("num_draws, made", [(32, 0), (34, 1)])
def test_few_draws_make_no_graph(num_draws, made, gauss, monkeypatch):
    graphs = []
    name = "pyro_vae.evaluate.gradients.sample.capture"
    monkeypatch.setattr(name, lambda *args: graphs.append(capture(*args)) or graphs[-1])
    vae, x = gauss
    reference = {n: torch.zeros_like(p) for n, p in vae.trainable.items()}
    compare_estimators(vae, x, ["Trace_ELBO"], num_draws=num_draws, reference=reference)
    assert len(graphs) == made


@pytest.mark.slow
def test_the_exact_reference_is_the_enumerated_gradient(bits):
    vae, x = bits
    found = compare_estimators(vae, x, ["TraceEnum_ELBO"], num_draws=4)
    given = TraceEnum_ELBO(max_plate_nesting=1)
    guide = pv.make_estimator("TraceEnum_ELBO").wrap(vae.guide, x)
    given.loss_and_grads(vae.model, guide, x)
    exact = {n: -p.grad / len(x) for n, p in vae.named_parameters() if p.requires_grad}
    again = compare_estimators(vae, x, ["TraceEnum_ELBO"], num_draws=4, reference=exact)
    for run in (found, again):
        assert (run.bias_z == 0).all() and np.allclose(run.cosine, 1)
    wrong = {n: 1.01 * g for n, g in exact.items()}
    told = compare_estimators(vae, x, ["TraceEnum_ELBO"], num_draws=4, reference=wrong)
    assert (told.bias_z > 30).all() and np.allclose(told.bias, 0.01 / 1.01, rtol=1e-3)


# References.


@pytest.mark.slow
def test_each_bound_has_a_reference_of_its_own(gauss):
    vae, x = gauss
    lines = ["Trace_ELBO", "TraceMeanField_ELBO", "RenyiELBO(alpha=0, num_particles=8)",
             "RenyiELBO(alpha=0.5, num_particles=3)"]  # fmt: skip
    found = compare_estimators(vae, x, lines, num_draws=200)
    assert list(found.bound.to_numpy()) == ["ELBO", "ELBO", "IWAE(8)", "Renyi(0.5, 3)"]
    kinds = [str(r).split(", 800 draws")[0] for r in found.reference.to_numpy()]
    assert kinds == [lines[1], *lines[1:]]
    assert (found.bias_z.sel(parameter="all") < 5).all()
    assert (np.diff(found.value_mean[[0, 3, 2]]) > 0).all()  # ELBO, Rényi, importance-weighted


@pytest.mark.slow
def test_without_a_reference_there_is_no_bias(bits):
    vae, x = bits
    found = compare_estimators(
        vae, x, [Unknown(), "CUBO(num_particles=3)", "Trace_ELBO"], num_draws=10
    )
    assert list(found.bound.to_numpy()) == ["unknown", "CUBO(2, 3)", "ELBO"]
    assert list(found.reference.to_numpy()) == ["none", "none", "TraceEnum_ELBO, exact"]
    for name in ("cosine", "bias", "bias_z"):
        assert found[name][:2].isnull().all() and found[name][2].notnull().all()
    assert found.grad_variance.notnull().all()
    with pytest.raises(ValueError, match="is of an unknown bound, or not of its bound"):
        compare_estimators(vae, x, ["Trace_ELBO"], num_draws=10, reference=Unknown())
    with pytest.raises(ValueError, match="of a bound that is not known here"):
        elbo_draws(vae, x, Unknown())


@pytest.mark.slow
def test_many_states_are_compared_with_a_score_function():
    vae = pv.VAE(6, 20, prior="Bernoulli", guide="Bernoulli", encoder=pv.MLP([5]), seed=0)
    x = torch.ones(3, 6)
    found = compare_estimators(vae, x, ["Trace_ELBO"], num_draws=50)
    assert found.reference.item() == "RLOO(num_particles=10), 200 draws"
    assert found.bias_z.sel(parameter="all") < 5


@pytest.mark.slow
def test_a_reference_may_be_said(gauss):
    vae, x = gauss
    told = compare_estimators(vae, x, ["Trace_ELBO"], num_draws=50, reference=SCORE)
    assert told.reference.item() == f"{SCORE}, 200 draws"


# What it leaves, and what repeats it.


@pytest.mark.slow
def test_everything_is_as_it_was(bits):
    vae, x = bits
    vae.train()
    pyro.param("mine", torch.ones(2))
    first = next(vae.parameters())
    first.grad = torch.full_like(first, 7.0)
    grad, weights = first.grad, {k: v.clone() for k, v in vae.state_dict().items()}
    torch.manual_seed(11)
    state, store = torch.get_rng_state(), set(pyro.get_param_store().keys())
    estimator = pv.make_estimator(NEURAL)
    pyro.enable_validation(True)
    compare_estimators(vae, x, [estimator, DECAYING], num_draws=10, burn_in=5)
    elbo_draws(vae, x, num_draws=10)
    assert first.grad is grad and (grad == 7).all()
    assert all(p.grad is None for p in list(vae.parameters())[1:])
    assert all(torch.equal(v, weights[k]) for k, v in vae.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert set(pyro.get_param_store().keys()) == store == {"mine"}
    assert vae.training and all(m.training for m in vae.modules())
    assert estimator.network is None
    with pytest.raises(ValueError, match="probs"):  # validation is on
        dist.Bernoulli(probs=torch.tensor(2.0))


def test_after_an_error_too(bits):
    vae, x = bits
    vae.train()
    state = torch.get_rng_state()

    class Fails(Trace_ELBO):
        def loss_and_grads(self, *args, **kwargs):
            super().loss_and_grads(*args, **kwargs)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        compare_estimators(vae, x, [Fails()], num_draws=10)
    assert vae.training and all(p.grad is None for p in vae.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not list(pyro.get_param_store().keys())


@pytest.mark.slow
def test_batch_statistics_stay():
    encoder = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    vae = pv.VAE(4, 2, likelihood="Normal", encoder=encoder, decoder=pv.MLP([3]), seed=0).train()
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    compare_estimators(vae, torch.randn(8, 4), ["Trace_ELBO"], num_draws=10)
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    assert encoder[1].training


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(bits):
    vae, x = bits
    lines = ["Trace_ELBO", NEURAL]
    first, second, other = (
        compare_estimators(vae, x, lines, num_draws=10, burn_in=5, seed=s).drop_vars(TIMES)
        for s in (1, 1, 2)
    )
    assert first.identical(second)
    assert not np.allclose(first.grad_variance, other.grad_variance)
    alone = compare_estimators(vae, x, lines[1:], num_draws=10, burn_in=5, seed=1)
    assert alone.drop_vars(TIMES).equals(first.sel(estimator=lines[1:]))  # whatever is beside it


@pytest.mark.slow
def test_estimators_draw_the_same_z(gauss):
    vae, x = gauss
    found = compare_estimators(vae, x, ["Trace_ELBO", SCORE], num_draws=50)
    assert found.value_mean[0].item() == pytest.approx(found.value_mean[1].item(), rel=1e-12)


# The table.


@pytest.fixture(scope="module")
def compared():
    """A model, and a comparison of five estimators, three of one name."""
    vae, x = make_bits()
    lines = ["Trace_ELBO", NEURAL, "TraceEnum_ELBO", Trace_ELBO(), Trace_ELBO()]
    return vae, compare_estimators(vae, x, lines, num_draws=20, burn_in=5)


@pytest.mark.slow
def test_groups_and_tensors_add_up(compared):
    vae, every = compared
    found = every.sel(estimator=["Trace_ELBO"])
    sizes = {n: p.numel() for n, p in vae.named_parameters() if p.requires_grad}
    names = list(found.parameter.to_numpy())
    assert names == [*GROUPS, "all", *sizes]
    assert all(found["size"].sel(parameter=n) == k for n, k in sizes.items())
    whole = found.sel(parameter="all")
    for parts in (GROUPS, list(sizes)):
        chosen = found.sel(parameter=parts)
        assert chosen["size"].sum() == whole["size"] == sum(sizes.values())
        assert chosen.grad_variance.sum().item() == pytest.approx(whole.grad_variance.item())
    work = (found.grad_variance * found.ms_per_draw).transpose(*found.work.dims)
    assert np.allclose(found.work, work) and (found.ms_per_draw > 0).all()
    assert found.attrs == {"num_draws": 20, "seed": 0, "batch_size": 5}
    assert all(v.attrs.get("long_name") for v in found.values())


@pytest.mark.slow
def test_a_part_that_trains_nothing_is_left_out(gauss):
    vae, x = gauss  # a fixed prior, and networks without a layer
    found = compare_estimators(vae, x, ["Trace_ELBO"], num_draws=10)
    assert list(found.parameter[:3]) == ["likelihood", "guide", "all"]
    assert all(values.notnull().all() for values in found.data_vars.values())
    total = found.grad_variance.sel(parameter=["likelihood", "guide"]).sum()
    assert total.item() == pytest.approx(found.grad_variance.sel(parameter="all").item())
    with pytest.raises(ValueError, match="no parameters are in 'encoder': it is one of likelihood"):
        as_table(found, "encoder")


@pytest.mark.slow
def test_no_gradient_at_all_is_no_signal_and_no_bias():
    vae = pv.VAE(4, 2, encoder=pv.MLP([3]), seed=0)  # zeros reach no weight of the first layer
    found = compare_estimators(vae, torch.zeros(5, 4), ["Trace_ELBO"], num_draws=10)
    silent = found.sel(parameter="encoder.layers.1.weight")
    assert all((silent[name] == 0).all() for name in ("grad_variance", "snr", "bias", "bias_z"))


@pytest.mark.slow
def test_as_table_is_the_whole(compared):
    _, found = compared
    table = as_table(found)
    numbered = ["Trace_ELBO", NEURAL, "TraceEnum_ELBO", "Trace_ELBO (2)", "Trace_ELBO (3)"]
    assert list(table.index) == numbered
    assert np.array_equal(table.grad_variance, found.grad_variance.sel(parameter="all"))
    part = as_table(found, "decoder")
    assert np.array_equal(part.snr, found.snr.sel(parameter="decoder"))
    assert len(str(found)) < 5000 and "grad_variance" in str(found)


@pytest.mark.slow
def test_the_picture_shows_every_estimator(compared):
    from matplotlib import pyplot

    found = compared[1].sel(estimator=["Trace_ELBO", NEURAL, "TraceEnum_ELBO"])
    ax = plots.gradient_variance(found)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(found.estimator.to_numpy())
    widths = [bar.get_width() for bar in ax.patches]
    assert np.allclose(widths, found.grad_variance.sel(parameter="all")[:2])
    assert ax.get_xscale() == "log" and "(nats per observation)²" in ax.get_xlabel()
    assert "0: exact" in [t.get_text() for t in ax.texts]
    pyplot.close("all")


@pytest.mark.parametrize("size", [2, 4, 64])  # of a chunk; 16 chunks have one centre
@pytest.mark.parametrize("n", [4, 5, 63, 64, 65, 201])
def test_running_moments_are_the_moments(n, size):
    generator = torch.Generator().manual_seed(n)
    scale = torch.tensor([1.0, 0.3, 2.0, 5.0, 0.1]).double()
    draws = torch.randn(n, 5, generator=generator).double() * scale + 7
    towards = torch.arange(5.0).double()
    center = torch.full((5,), 6.0).double()
    moments = Moments(center.split([2, 3]), 9, towards.split([2, 3]))
    for rows in draws.split(size):
        chunk = torch.cat([rows, torch.full((size - len(rows), 5), 1e3).double()])
        keep = torch.arange(size).lt(len(rows)).double()
        moments.add(*moments.measure(chunk.split([2, 3], 1), keep), len(rows))
    moments.close()
    draws = draws.numpy()
    assert moments.count == n
    assert np.allclose(moments.mean, draws.mean(0))
    assert np.allclose(moments.trace, [v.sum() for v in np.split(draws.var(0, ddof=1), [2])])
    assert np.allclose(moments.by_draw("norms").sum(1), (draws**2).sum(1))
    assert np.allclose(moments.by_draw("dots").sum(1), draws @ towards.numpy())
    e = (draws[0 : n // 2 * 2 : 2] - draws[1 : n // 2 * 2 : 2]) / 2**0.5
    assert np.allclose(moments.by_draw("pairs").sum(1), (e[1:] * e[:-1]).sum(1))
    expected, start, weight = [], 0, 9
    while start < n:  # the centre is the mean of all draws before its block
        block = draws[start : start + 16 * size]
        d = np.square(block - center.numpy()) * weight / (weight + 1)
        expected.append(np.stack([d[:, :2].sum(1), d[:, 2:].sum(1)], 1))
        start = weight = start + len(block)
        center = torch.tensor(draws[:start].mean(0))
    assert np.allclose(moments.by_draw("increments"), np.concatenate(expected))


@pytest.mark.parametrize("rank", [4, 2])
def test_moments_of_a_factor_are_those_of_the_gradient(rank):
    """Of delta^T a with the same a in all draws, whether or not its rows are independent."""
    torch.manual_seed(rank)
    a = (torch.randn(4, rank) @ torch.randn(rank, 6)).double()
    delta, other = torch.randn(70, 4, 3).double() + 2, torch.randn(70, 5).double()
    gradients = delta.mT @ a
    center, towards = [torch.randn(4, 3).double().T @ a, torch.ones(5).double()], torch.randn(23)
    center[0] = gradients[:8].mean(0)
    made = [Moments(center, 8, towards.split([18, 5])), None]
    made[1] = Moments(center, 8, towards.split([18, 5]), views=[View(a), View()])
    for moments, draws in zip(made, (gradients, delta), strict=True):
        for some, rest in zip(draws.split(2), other.split(2), strict=True):
            moments.add(*moments.measure([some, rest], torch.ones(2).double()), 2)
        moments.close()
    whole, factor = made
    assert np.allclose(whole.mean, factor.mean)
    assert np.allclose(whole.trace, factor.trace)
    for name in ("norms", "dots", "pairs", "increments"):
        assert np.allclose(whole.by_draw(name), factor.by_draw(name))
    assert [c.numel() for c in factor.center] == [12, 5]


@pytest.mark.parametrize("line", ["Trace_ELBO", "TraceMeanField_ELBO", "DReG(num_particles=3)"])
@pytest.mark.slow
def test_gradients_by_factors_are_the_gradients(line):
    """The encoder's, with fewer data than inputs; those of the decoder are as they were."""
    vae = pv.VAE(9, 2, encoder=pv.MLP([7]), decoder=pv.MLP([8]), seed=0).double()
    x, elbo = torch.rand(5, 9).round().double(), make_estimator(line).elbo
    with pyro.get_param_store().scope():
        check_and_nest(make_estimator(line), vae.model, vae.guide, x)
        whole = capture(elbo, vae.model, vae.guide, x)
    reduced, inputs = factor(whole)
    names = [name for name, p in whole.parameters.items() if p in inputs]
    assert names == [f"{n}.weight" for n in ("encoder.layers.1", *(
        f"approximation.sources.{k}.head" for k in ("loc", "scale")))]  # fmt: skip
    found = []
    for graph in (whole, reduced):
        torch.manual_seed(3)
        found.append(graph.module(*graph.inputs, *graph.live))
    assert torch.equal(found[0][0], found[1][0])
    for p, gradient, delta in zip(
        whole.parameters.values(), found[0][1:], found[1][1:], strict=True
    ):
        assert torch.allclose(gradient, delta.T @ inputs[p] if p in inputs else delta, atol=1e-12)


def test_single_precision_keeps_a_small_variance():
    """The mean is 10,000 standard deviations away: differences from a centre lose nothing."""
    draws = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) * 1e-2 + 100
    moments = Moments([draws[:8].mean(0)], 8)
    for rows in draws.split(20):
        moments.add(*moments.measure([rows], torch.ones(20)), 20)
    moments.close()
    assert np.allclose(moments.trace, draws.double().var(0).sum(), rtol=1e-3)


@pytest.mark.slow
def test_the_standard_error_of_the_variance_is_its_scatter(gauss, one_graph):
    vae, x = gauss
    how = {"num_draws": 200, "reference": exact_gradient(vae, x)[0]}
    runs = [compare_estimators(vae, x, ["Trace_ELBO"], seed=s, **how) for s in range(20)]
    here = [run.sel(parameter="all") for run in runs]
    scatter = np.std([run.grad_variance.item() for run in here], ddof=1)
    said = np.mean([run.grad_variance_se.item() for run in here])
    assert 0.5 < said / scatter < 2  # 20 repetitions know a scatter within 16 %


WRONG = {
    "no list": ({"estimators": "Trace_ELBO"}, "estimators is a list of at least one"),
    "empty": ({"estimators": []}, "estimators is a list of at least one"),
    "unknown": ({"estimators": ["Trace_ELB"]}, "did you mean Trace_ELBO"),
    "unserved": ({"estimators": ["Trace_ELBO", "TraceMeanField_ELBO"]}, "cannot serve this guide"),
    "draws": ({"num_draws": 3}, "num_draws is a whole number of at least 4, got 3"),
    "seed": ({"seed": -1}, "seed is a whole number of at least 0, got -1"),
    "burn in": ({"burn_in": 0}, "burn_in is a whole number of at least 1, got 0"),
    "reference": ({"reference": "TraceMeanField_ELBO"}, "cannot serve this guide"),
    "a gradient": ({"reference": {"encoder": torch.ones(1)}}, "unknown: encoder"),
    "x": ({"x": torch.ones(3, 5)}, r"expected x of shape \(N, 6\)"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_answered(mistake, bits):
    vae, x = bits
    given, message = WRONG[mistake]
    how = {"x": x, "estimators": ["Trace_ELBO"], "num_draws": 4, **given}
    with pytest.raises(ValueError, match=message):
        compare_estimators(vae, how.pop("x"), how.pop("estimators"), **how)


# Draws for ArviZ.


@pytest.mark.slow
def test_arviz_summarizes_the_draws(gauss):
    import arviz

    vae, x = gauss
    draws = elbo_draws(vae, x, "Trace_ELBO", num_draws=4000, seed=1)
    elbo, total = draws.posterior["elbo"], draws.posterior["total"]
    assert elbo.dims == ("chain", "draw", "observation") and elbo.shape == (4, 1000, 3)
    assert total.dims == ("chain", "draw") and np.allclose(total, elbo.sum("observation"))
    summary = arviz.summary(draws, round_to="none")
    assert list(summary.index) == ["elbo[0]", "elbo[1]", "elbo[2]", "total"]
    assert (summary.r_hat < 1.02).all()
    # the moments of the quadratic in test_the_variance_is_the_closed_form
    head, loc = vae.likelihood.sources["loc"].head, vae.encode(x).mean.flatten().detach()
    w, b = head.weight.item(), head.bias.item()
    a, residual = 1 + w**2 / 0.81, x.flatten() - b - w * loc
    alpha, beta = 0.5 - 0.5 * a * 0.36, 0.6 * (-loc + w * residual / 0.81)
    at_loc = -0.5 * loc**2 - 0.5 * residual**2 / 0.81 + math.log(0.6 / 0.9)
    at_loc -= 0.5 * math.log(2 * math.pi)
    mean, sd = (at_loc + alpha).numpy(), (2 * alpha**2 + beta**2).sqrt().numpy()
    rows = summary.iloc[:3]
    assert (abs(rows["mean"] - mean) < 5 * sd / 4000**0.5).all()
    assert np.allclose(rows["sd"], sd, rtol=0.1)
    assert np.allclose(rows["mcse_mean"], sd / 4000**0.5, rtol=0.2)  # the draws are independent
    assert arviz.plot_forest(draws, var_names=["elbo"]) is not None
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    ["Trace_ELBO", "TraceMeanField_ELBO", "Trace_ELBO(num_particles=4)",
     "RenyiELBO(alpha=0, num_particles=4)", "RenyiELBO(alpha=2, num_particles=4)"],
)  # fmt: skip
def test_draws_are_those_of_the_estimators_bound(line, gauss):
    vae, x = gauss
    value = compare_estimators(vae, x, [line], num_draws=500, reference=exact_gradient(vae, x)[0])
    total = elbo_draws(vae, x, line, num_draws=2000).posterior["total"] / len(x)
    error = math.hypot(value.value_mcse.item(), total.std().item() / 2000**0.5)
    assert abs(total.mean().item() - value.value_mean.item()) < 5 * error
    assert total.std().item() == pytest.approx(value.value_sd.item(), rel=0.15)


def test_draws_of_an_exact_value_are_equal(bits):
    vae, x = bits
    draws = elbo_draws(vae, x, "TraceEnum_ELBO", num_draws=10).posterior["elbo"]
    assert draws.shape == (1, 10, 5) and (draws == draws[0, 0]).all()
    sampled = elbo_draws(vae, x, num_draws=2000).posterior["elbo"].stack(s=("chain", "draw"))
    error = sampled.std("s") / 2000**0.5
    assert (abs(sampled.mean("s") - draws[0, 0]) < 5 * error).all()


def test_draws_repeat_by_seed_whatever_the_chunks(gauss, monkeypatch):
    vae, x = gauss
    first, same, other = (elbo_draws(vae, x, num_draws=16, seed=s).posterior for s in (1, 1, 2))
    assert first.equals(same) and not first.equals(other)
    monkeypatch.setattr("pyro_vae.evaluate.gradients.draws.CHUNK", 9)
    parts = elbo_draws(vae, x, num_draws=16, seed=1).posterior
    assert parts["elbo"].shape == (4, 4, 3) and np.isfinite(parts["elbo"]).all()


def test_draws_refuse_what_they_do_not_know(bits):
    vae, x = bits
    with pytest.raises(ValueError, match="num_draws is a whole number of at least 1"):
        elbo_draws(vae, x, num_draws=0)
    with pytest.raises(ValueError, match="cannot serve this guide"):
        elbo_draws(vae, x, "TraceMeanField_ELBO")


# The command line.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    small = ("--encoder", "MLP([8])", "--decoder", "MLP([8])", "--latent-dim", "2")
    code, _, err = command("fit", "digits", *small, "--epochs", 1, "--out", folder)
    assert (code, err) == (0, "")
    return folder


@pytest.mark.slow
def test_the_command_prints_and_writes(trained):
    lines = ["Trace_ELBO", "TraceMeanField_ELBO", SCORE]
    given = [part for line in lines for part in ("--estimator", line)]
    args = (*given, "--num-draws", 20, "--batch-size", 10)
    code, out, err = command("compare", "estimators", trained, *args)
    assert (code, err) == (0, "")
    assert "10 test observations, 20 draws" in out
    assert all(line in out for line in lines) and "grad_variance" in out
    assert "reference for the ELBO: TraceMeanField_ELBO, 80 draws" in out
    table = pd.read_csv(trained / "compare" / "estimators.csv", index_col="estimator")
    assert list(table.index) == lines
    assert (trained / "compare" / "estimators.png").read_bytes()[:4] == b"\x89PNG"
    # it is what Python gives, on bits, as the run was trained
    assert table.grad_variance[SCORE] > table.grad_variance["Trace_ELBO"]
    assert command("compare", "estimators", trained, *args[4:], "--seed", 0)[0] == 0
    again = pd.read_csv(trained / "compare" / "estimators.csv", index_col="estimator")
    assert list(again.index) == [SCORE]  # the same, whatever is beside it
    pd.testing.assert_frame_equal(table[2:].drop(columns=TIMES), again.drop(columns=TIMES))


MISTAKES = {
    "no estimator": ([], "(?i)missing option.*--estimator"),
    "unknown": (["--estimator", "Trace_ELB"], "did you mean Trace_ELBO"),
    "unserved": (["--estimator", "TraceEnum_ELBO"], "Normal has no finite support"),
    "draws": (["--estimator", "Trace_ELBO", "--num-draws", "1"], "(?s)--num-draws.*4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_command_answers_mistakes(mistake, trained):
    import re

    args, message = MISTAKES[mistake]
    code, _, err = command("compare", "estimators", trained, *args)
    assert code == 2 and re.search(message, err), err
    assert "Traceback" not in err
