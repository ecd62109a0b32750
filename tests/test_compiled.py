"""The compiled step against the eager one: the same numbers for the same noise."""

import shutil

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from zuko.transforms import MonotonicRQSTransform

import pyro_vae as pv
from pyro_vae import MLP, VAE
from pyro_vae.infer import (
    ESTIMATORS,
    CaptureError,
    CompiledELBO,
    FusedOptim,
    KLWeight,
    fit,
    make_estimator,
)
from pyro_vae.infer.engine.capture import capture, capture_function
from pyro_vae.infer.engine.compiled import compile_module
from pyro_vae.infer.estimators.soundness import check_and_nest

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(
    not shutil.which("g++") and not shutil.which("clang++"), reason="needs a C++ compiler"
)
LINES = {  # every bound of the table, and every gradient rule and baseline once
    **{name: name for name in ESTIMATORS},
    "score": "Trace_ELBO(gradient=score)",
    "stl": "Trace_ELBO(gradient=stl)",
    "particles": "Trace_ELBO(num_particles=3)",
    "decaying": "TraceGraph_ELBO(gradient=score, baseline=decaying)",
    "neural": "TraceGraph_ELBO(gradient=score, baseline=neural, num_particles=2)",
    "alpha": "RenyiELBO(alpha=0.5, num_particles=4)",
}
X = torch.linspace(0, 1, 48).reshape(8, 6).mul(7).sin().gt(0).float()


def served(line):
    """A model that this estimator serves, in double precision."""
    for family in ("Normal", "Bernoulli"):
        pyro.clear_param_store()
        vae = VAE(
            6, 3, prior=f"{family}({'logits' if family == 'Bernoulli' else 'loc'}=learned)",
            guide=family, encoder=MLP([5], activation="Tanh"), decoder=MLP([5]), seed=0,
        ).double()  # fmt: skip
        estimator = make_estimator(line)
        try:
            check_and_nest(estimator, vae.model, vae.guide, X.double())
        except ValueError:
            continue
        return vae, estimator
    raise AssertionError(f"no family for {line}")


def eager_gradients(estimator, vae, guide, x, seed):
    """Loss and gradients by name; buffers as before."""
    buffers = [(b, b.clone()) for b in (estimator.network or torch.nn.Identity()).buffers()]
    pyro.set_rng_seed(seed)
    loss = estimator.elbo.loss_and_grads(vae.model, guide, x)
    named = dict(pyro.get_param_store().named_parameters())
    found = {name: p.grad for name, p in named.items() if p.grad is not None}
    for p in named.values():
        p.grad = None
    for buffer, was in buffers:
        buffer.copy_(was)
    return loss, found


def graph_gradients(graph, x, seed):
    pyro.set_rng_seed(seed)
    with torch.no_grad():
        loss, *found = graph.module(x, *graph.live)
    return loss.item(), dict(zip(graph.parameters, found, strict=True))


def same(one, other, rtol):
    assert one[0] == pytest.approx(other[0], rel=rtol, abs=0.0)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        largest = gradient.abs().max()
        assert torch.allclose(other[1][name], gradient, rtol=rtol, atol=rtol * largest), name


@pytest.mark.parametrize("name", LINES)
def test_a_graph_has_the_numbers_of_the_program(name):
    vae, estimator = served(LINES[name])
    x = X.double()
    guide = estimator.wrap(vae.guide, x)
    with pyro.validation_enabled(False):
        graph = capture(estimator.elbo, vae.model, guide, x)
        assert all(p.grad is None for p in vae.parameters())
        for seed in (1, 2):  # the graph's noise is fresh, and has the seed's numbers
            with torch.no_grad():  # parameters and data are inputs
                for p in vae.parameters():
                    p.add_(0.1)
            y = x if seed == 1 else 1 - x
            eager = eager_gradients(estimator, vae, guide, y, seed)
            state = [b.clone() for b in graph.live]
            same(eager, graph_gradients(graph, y, seed), 0.0)
            for tensor, was in zip(graph.live, state, strict=True):
                tensor.detach().copy_(was)
        assert sum((g != 0).any() for g in eager[1].values()) >= len(list(vae.parameters()))


def trained_alike(name, steps, sizes):
    """Holds the losses and the state after eager steps and after compiled ones to be the same."""
    paths = {}
    for compiled in (False, True):
        with pyro.get_param_store().scope():
            vae, estimator = served(LINES[name])
            x = X.double()
            weighted = estimator.weighted
            weight = KLWeight(torch.ones(()).double() if weighted else 1.0)
            guide = weight(estimator.wrap(vae.guide, x))
            elbo = CompiledELBO(estimator.elbo) if compiled else estimator.elbo
            svi = SVI(weight(vae.model), guide, FusedOptim(torch.optim.Adam, {"lr": 0.01}), elbo)
            pyro.set_rng_seed(3)
            losses = []
            for step in range(steps):
                if weighted:
                    weight.set(0.1 * step)
                losses.append(svi.step(x[: sizes[step % len(sizes)]]))
            state = {**vae.state_dict()}
            if estimator.network is not None:
                state |= estimator.network.state_dict()
            paths[compiled] = losses, {k: v.clone() for k, v in state.items()}
            if compiled:
                assert len(elbo._steps) == len(set(sizes))
    same(paths[False], paths[True], 1e-8)
    assert len(set(paths[True][0])) == steps


@pytest.mark.parametrize("name", ["TraceMeanField_ELBO", "decaying"])
def test_compiled_training_is_eager_training(name, interpreted):
    """Two batch sizes, a KL weight that changes, buffers that a step writes to."""
    trained_alike(name, 12, [8, 8, 5])


@needs_compiler
def test_code_by_inductor_writes_to_buffers():
    trained_alike("decaying", 4, [8])


def test_a_compiled_elbo_serves_any_pyro_program(interpreted):
    """A constrained parameter, a global latent, a subsampled plate, Pyro's own optimizer."""
    data = torch.arange(20.0)

    def model(x, *, spread):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            pyro.sample("x", dist.Normal(mu, spread), obs=x[rows])

    def guide(x, *, spread):
        loc = pyro.param("loc", torch.tensor(1.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("mu", dist.Normal(loc, scale))
        with pyro.plate("data", len(x), subsample_size=5):
            pass

    paths, store = {}, pyro.get_param_store()
    for elbo in (Trace_ELBO(), CompiledELBO(Trace_ELBO())):
        with store.scope():
            svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), elbo)
            pyro.set_rng_seed(0)
            losses = [svi.step(data, spread=6.0) for _ in range(30)]
            paths[type(elbo)] = losses, {k: v.detach().clone() for k, v in store.items()}
    same(paths[Trace_ELBO], paths[CompiledELBO], 1e-4)
    assert paths[CompiledELBO][1]["loc"] > 2


def test_gradients_are_added_and_a_cleared_store_is_seen(interpreted):
    """As ``loss_and_grads`` does in Pyro."""

    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(2.0)), 1e-3))

    elbo = CompiledELBO(TraceMeanField_ELBO())
    elbo.loss_and_grads(model, guide)
    elbo.loss_and_grads(model, guide)
    loc = pyro.param("loc")
    assert loc.grad.item() == pytest.approx(4.0, abs=1e-5)
    pyro.clear_param_store()
    elbo.loss_and_grads(model, guide)
    assert pyro.param("loc") is not loc
    assert pyro.param("loc").grad.item() == pytest.approx(2.0, abs=1e-5)
    pyro.param("loc").requires_grad_(False)  # frozen: it has no gradient any more
    pyro.param("loc").grad = None
    elbo.loss_and_grads(model, guide)
    assert pyro.param("loc").grad is None


def test_capturing_leaves_everything_as_it_was():
    vae, estimator = served("TraceGraph_ELBO(gradient=score, baseline=decaying)")
    x = X.double()
    guide = estimator.wrap(vae.guide, x)
    for p in vae.parameters():
        p.grad = torch.full_like(p, 3.0)
    state = torch.get_rng_state()
    capture(estimator.elbo, vae.model, guide, x)
    assert all((p.grad == 3).all() for p in vae.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert estimator.network.average == 0


@pytest.mark.parametrize("flow", ["RealNVP", "NICE", "MAF", "NSF", "NAF", "UNAF"])
def test_flows_are_made_graphs(flow, interpreted):
    """A coupling flow reads its structure off a mask, NAF looks at one layout in two ways."""
    vae = VAE(6, 3, prior=f"Flow({flow})", encoder=MLP([5]), decoder=MLP([5]), seed=0)
    eager, compiled = (
        eager_gradients(make_estimator(elbo), vae, vae.guide, X, 2)
        for elbo in (Trace_ELBO(), CompiledELBO(Trace_ELBO()))
    )
    assert len(eager[1]) == len(list(vae.parameters()))
    same(eager, compiled, 1e-4)


@needs_compiler
def test_a_search_among_the_knots_of_a_flow_compiles():
    """It is the spline of NSF; of the other flows Inductor sees no more."""
    knots = [torch.randn(3, k).requires_grad_() for k in (2, 2, 1)]  # widths, heights, slopes

    def function(x):
        y, volume = MonotonicRQSTransform(*knots).call_and_ladj(x)
        return y, volume, *torch.autograd.grad(y.sum() + volume.sum(), knots)

    x = torch.tensor([-9.0, 0.1, 2.0])  # beyond the knots, and between them
    module, live = capture_function(function, x)
    with torch.no_grad():
        found = compile_module(module, [x, *live])(x, *live)
    for value, exact in zip(found, function(x), strict=True):
        assert torch.allclose(value, exact, rtol=1e-4, atol=1e-5)
    assert all(value.ne(0).any() for value in found)


def test_a_structure_read_off_the_data_is_refused():
    def model(x):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
        pyro.sample("ones", dist.Normal(0.0, 1.0), obs=x.flatten()[x.flatten().nonzero()].sum())

    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    with pytest.raises(CaptureError, match="where a tensor of the data is not zero decides"):
        capture(Trace_ELBO(), model, guide, X)


def test_dynamic_structure_is_refused():
    def guide(x):
        z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
        if z > 0:
            pyro.sample("more", dist.Normal(0.0, 1.0))

    with pytest.raises(CaptureError, match="depends on the values of tensors"):
        CompiledELBO(Trace_ELBO()).loss_and_grads(guide, guide, X)


@pytest.fixture
def no_compiler(monkeypatch):
    def broken(*args):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", broken)


def small():
    return VAE(6, 2, encoder=MLP([4]), decoder=MLP([4]), seed=0)


def test_without_a_compiler_it_says_what_to_do(no_compiler):
    with pytest.raises(CaptureError, match=r"C\+\+ compiler that is missing, .* CXX"):
        fit(small(), X, epochs=2, batch_size=4, compile=True)


def test_auto_goes_on_without_a_compiler_and_says_why(no_compiler):
    with pytest.warns(UserWarning, match="the steps are not compiled: Inductor could not"):
        found = fit(small(), X, epochs=5000, batch_size=4, compile="auto", patience=1, validation=X)
    eager = fit(small(), X, epochs=5000, batch_size=4, compile=False, patience=1, validation=X)
    assert found.history.elbo_train.iloc[-1] == eager.history.elbo_train.iloc[-1]


def test_auto_does_not_compile_a_short_run(no_compiler):
    assert len(fit(small(), X, epochs=3, batch_size=4).history) == 3


RAGGED = dict(batch_size=5, lr=1e-2, beta="linear(0, 1, epochs=3)", seed=2)


@needs_compiler
def test_fit_compiles_whole_and_ragged_batches():
    compiled, eager = (VAE(6, 2, encoder=MLP([]), decoder=MLP([]), seed=0) for _ in range(2))
    for vae in (compiled, eager):
        pv.fit(vae, X, epochs=4, compile=vae is compiled, **RAGGED)
    for name, value in compiled.state_dict().items():
        assert torch.allclose(value, eager.state_dict()[name], atol=1e-5)


@pytest.mark.parametrize("line", ["VIMCO(num_particles=2)", "RWS(num_particles=2)"])
def test_bounds_of_several_particles_are_compiled_with_weights_of_rows(line, interpreted):
    record = pv.Record([pv.Block("x", 6), pv.Block("w", role="weight")])
    data, found = {"x": X, "w": torch.linspace(0.5, 2, 8)}, []
    for compiled in (True, False):
        vae = VAE(record, 3, prior="Bernoulli", guide="Bernoulli", encoder=MLP([5]), seed=0)
        pv.fit(vae, data, estimator=line, epochs=3, compile=compiled, **RAGGED | {"beta": 1.0})
        found.append(torch.cat([p.detach().flatten() for p in vae.parameters()]))
    assert torch.allclose(*found, atol=1e-5)


def test_a_compiled_fit_resumes_bit_for_bit(tmp_path, interpreted):
    whole, parts = small(), small()
    pv.fit(whole, X, epochs=4, compile=True, **RAGGED)
    pv.fit(parts, X, epochs=2, compile=True, out=tmp_path, **RAGGED)
    resumed = pv.fit(parts, X, epochs=4, compile=True, resume=tmp_path, **RAGGED)
    assert len(resumed.history) == 4
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name])


def test_compile_takes_its_words():
    with pytest.raises(ValueError, match=r"compile is True, False, 'auto', .* got 'yes'"):
        fit(small(), X, compile="yes")


def test_handlers_still_apply_when_a_graph_is_made():
    vae = small()
    elbo = TraceMeanField_ELBO()
    model, guide = poutine.scale(vae.model, 2.0), poutine.scale(vae.guide, 2.0)
    graph = capture(elbo, model, guide, X)
    pyro.set_rng_seed(0)
    expected = 2 * elbo.loss(vae.model, vae.guide, X)
    pyro.set_rng_seed(0)
    assert graph.module(X, *graph.live)[0].item() == pytest.approx(expected, rel=1e-5)


TIMES = torch.linspace(0.3, 3.0, 30).reshape(10, 3)
FAMILIES = {
    "Censored(Weibull)": TIMES * torch.tensor([1.0, -1.0, 1.0]),
    "Censored(Mixture(Weibull, components=2))": TIMES * torch.tensor([1.0, -1.0, 1.0]),
    "Censored(Mixture(Gamma, components=3))": TIMES * torch.tensor([-1.0, 1.0, 1.0]),
    "Weibull": TIMES, "LogNormal": TIMES, "InverseGamma": TIMES, "Pareto(scale=0.1)": TIMES,
    "Mixture(Weibull, components=2)": TIMES, "Kumaraswamy": TIMES / 4,
    "Transformed(Normal, ExpTransform)": TIMES,
    "Censored(Transformed(Gamma, PowerTransform(exponent=-1)))": TIMES * torch.tensor([-1., 1., 1.])
}  # fmt: skip


@pytest.mark.parametrize("line", FAMILIES)
def test_the_graph_of_a_family_of_positive_numbers_is_the_eager_step(line):
    """Times that were censored too, under mixtures: log survival has its own gradients."""
    x = FAMILIES[line].double()
    vae = VAE(3, 2, likelihood=line, encoder=MLP([5]), decoder=MLP([5]), seed=0).double()
    vae.start_from(x)
    estimator = make_estimator("Trace_ELBO")
    check_and_nest(estimator, vae.model, vae.guide, x)
    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        graph = capture(estimator.elbo, vae.model, vae.guide, x)
        eager = eager_gradients(estimator, vae, vae.guide, x + 0.01, 1)
        same(eager, graph_gradients(graph, x + 0.01, 1), 0.0)


@pytest.fixture
def sooner(monkeypatch):
    """Twenty planned steps are enough to be captured."""
    monkeypatch.setattr("pyro_vae.infer.training.run.CAPTURE_FROM", 20)


@pytest.mark.parametrize("compile", ["capture", "auto"])
def test_captured_training_has_the_bits_of_eager_training(compile, sooner):
    """And a run of enough steps is captured by itself."""
    captured, eager = small(), small()
    histories = [
        pv.fit(vae, X, epochs=21, compile=vae is captured and compile, **RAGGED).history
        for vae in (captured, eager)
    ]
    for name, value in captured.state_dict().items():
        assert torch.equal(value, eager.state_dict()[name])
    assert len(histories[0]) == 21
    assert histories[0].loss.equals(histories[1].loss)


class Counting(pv.callbacks.Callback):
    """Scales the model's densities by a number of Python's, which rises at every step."""

    def __init__(self, by):
        self.scale, self.by = 1.0, by

    def wrap(self, model, guide):
        def scaled(x):
            with poutine.scale(scale=self.scale):
                return model(x)

        return scaled, guide

    def before_step(self, now):
        self.scale += self.by


def test_a_program_that_changes_by_what_is_no_tensor_is_found(sooner):
    told = dict(epochs=41, batch_size=8, lr=1e-2, progress=False)
    with pytest.raises(CaptureError, match=r"changed by what is no tensor, .* keep it in a tensor"):
        pv.fit(small(), X, compile="capture", callbacks=[Counting(0.1)], **told)
    changing, eager, constant = small(), small(), small()
    with pytest.warns(UserWarning, match="are not compiled: the loss of step 3 is"):
        pv.fit(changing, X, callbacks=[Counting(0.1)], **told)
    pv.fit(eager, X, compile=False, callbacks=[Counting(0.1)], **told)
    pv.fit(constant, X, compile="capture", callbacks=[Counting(0.0)], **told)  # and no error

    def apart(one, other):
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        return max((p - q).abs().max() for p, q in pairs)

    # one step was taken with the densities of the one before
    assert apart(changing, eager) < apart(changing, constant) / 5


def test_masks_of_the_program_may_decide_shapes_and_masks_of_data_may_not():
    rows, kept = torch.arange(12.0).reshape(4, 3), torch.tensor([True, False, True])

    def by_program(x):
        return ((x[:, kept] * rows[:, kept]).sum(), x[:, kept.nonzero().flatten()].sum())

    module, live = capture_function(by_program, rows)
    assert [part.item() for part in module(rows + 1, *live)] == [
        part.item() for part in by_program(rows + 1)
    ]
    for by_data in (lambda x: x[x > 1].mean(), lambda x: x.masked_select(x > 1).sum()):
        with pytest.raises(CaptureError, match="where a tensor of the data"):
            capture_function(by_data, rows)


def test_one_tensor_given_twice_is_two_inputs():
    x, y = torch.tensor(2.0), torch.tensor(5.0)
    module, live = capture_function(lambda a, b: a * a + b, x, x)
    assert module(x, y, *live).item() == 9
