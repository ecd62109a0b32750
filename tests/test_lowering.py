"""The rewrites for CPUs: the same numbers as the graph that they rewrite, to float32's rounding."""

import time

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.utils import _pytree as pytree

import pyro_vae as pv
from pyro_vae import MLP, VAE
from pyro_vae.infer.engine import lowering, products
from pyro_vae.infer.engine.capture import capture, capture_function
from pyro_vae.infer.engine.compiled import compile_module
from pyro_vae.infer.training import checkpoint

aten = torch.ops.aten
ENTROPY = aten.binary_cross_entropy_with_logits.default
LINEAR = torch.ops.pyro_vae.linear.default


def targets(module):
    return [node.target for node in module.graph.nodes]


def largest_to(way):
    """A choice by size alone: large products go to oneDNN, by a way where a copy is due."""

    def choose(left, right, choices):
        if left.shape[0] * left.shape[1] * right.shape[1] < products.LEAST:
            return "torch"
        return "oneDNN" if left.stride(1) == 1 else way

    return choose


@pytest.fixture
def onednn(monkeypatch):
    """As on a processor where oneDNN is the faster one for large products."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("needs a PyTorch with oneDNN")
    monkeypatch.setattr(products, "choose", largest_to("oneDNN"))


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Products are measured, by a list of answers, and kept in a folder of their own."""
    monkeypatch.delenv(products.SWITCH, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    answers = ["oneDNN"]
    monkeypatch.setattr(products, "_measure", lambda left, right: answers.pop())
    return answers


def rewritten(module):
    return lowering.for_cpu(module, {})


def cross_entropy(logits, x):
    return nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")


def test_the_cross_entropy_keeps_the_precision_of_float32():
    logits = torch.cat([torch.linspace(-110, 110, 200_001), torch.randn(50_000) / 100])
    for x in (torch.zeros_like(logits), torch.ones_like(logits), torch.rand(len(logits))):
        module = rewritten(capture_function(cross_entropy, logits, x)[0])
        assert ENTROPY not in targets(module)
        exact = cross_entropy(logits.double(), x.double())
        largest = torch.maximum(logits.double().abs(), exact)  # of the terms that are summed
        error = (module(logits, x) - exact).abs() / largest
        assert error.max() < 4 * torch.finfo(torch.float32).eps


def test_log1p_is_relatively_exact_however_small_its_argument():
    logits = torch.linspace(-60, 0, 100_001)  # log(1 + e^l) itself, where x is 0
    module = rewritten(capture_function(cross_entropy, logits, torch.zeros_like(logits))[0])
    exact = logits.double().exp().log1p()
    error = (module(logits, torch.zeros_like(logits)) - exact).abs() / exact
    assert error.max() < 8 * torch.finfo(torch.float32).eps  # exp(l) alone has half of it


def test_softplus_is_relatively_exact():
    x = torch.cat([torch.linspace(-80, 110, 200_001), torch.randn(50_000) / 100])
    module = rewritten(capture_function(nn.functional.softplus, x)[0])
    assert aten.softplus.default not in targets(module)
    exact = nn.functional.softplus(x.double(), threshold=200)
    error = (module(x) - exact).abs() / exact
    assert error.max() < 8 * torch.finfo(torch.float32).eps
    other = capture_function(lambda x: nn.functional.softplus(x, beta=2), x)[0]
    assert targets(rewritten(other)) == targets(other)


def test_the_gradient_shares_the_exponential_and_keeps_its_precision():
    def function(logits, x):
        return cross_entropy(logits, x).sum(), torch.sigmoid(logits) - x, torch.sigmoid(x)

    logits = torch.cat([torch.linspace(-110, 110, 200_001), torch.randn(50_000) / 100])
    x = torch.zeros_like(logits)  # so that the sigmoid itself is seen, however small
    module = rewritten(capture_function(function, logits, x)[0])
    assert targets(module).count(aten.exp.default) == 1
    assert targets(module).count(aten.sigmoid.default) == 1  # the one of something else
    for found, exact in zip(module(logits, x), function(logits.double(), x.double()), strict=True):
        floor = torch.finfo(torch.float32).tiny
        error = (found - exact).abs() / exact.clamp(min=floor)
        assert error.max() < 8 * torch.finfo(torch.float32).eps


def test_a_sum_of_sums_is_one_sum_if_nobody_else_wants_them():
    def function(x):
        rows, columns = (x**2).sum(1), x.sum(0)
        return rows.sum(), columns, columns.sum()

    x = torch.randn(50, 20)
    module = rewritten(capture_function(function, x)[0])
    assert targets(module).count(aten.sum.dim_IntList) == 1
    for found, exact in zip(module(x), function(x.double()), strict=True):
        assert torch.allclose(found.double(), exact, rtol=1e-6, atol=1e-5)


@pytest.mark.slow
def test_the_gamma_function_of_a_shared_parameter_is_taken_once():
    def function(r, x):
        wide = r.expand(3, 5).expand(4, 3, 5)
        return torch.lgamma(wide), torch.digamma(wide) * x, torch.lgamma(wide + x), torch.lgamma(r)

    inputs = torch.rand(5).double() + 0.5, torch.rand(4, 3, 5).double()
    module = capture_function(function, *inputs)[0]
    lowered = rewritten(module)
    sizes = {aten.lgamma.default: [5, 60, 5], aten.digamma.default: [5]}
    for target, expected in sizes.items():
        nodes = lowered.graph.find_nodes(op="call_function", target=target)
        ShapeProp(lowered).propagate(*inputs)
        assert [n.meta["tensor_meta"].shape.numel() for n in nodes] == expected
    for found, exact in zip(lowered(*inputs), function(*inputs), strict=True):
        assert torch.equal(found, exact)
    single = [x.float() for x in inputs]
    lowered = rewritten(capture_function(function, *single)[0])
    for found, exact in zip(lowered(*single), function(*inputs), strict=True):
        assert torch.allclose(found.double(), exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("function", [torch.lgamma, torch.digamma])
def test_gamma_functions_of_single_precision_are_series(function):
    x = torch.cat([torch.logspace(-30, 30, 20_001), torch.linspace(1e-3, 30, 20_001)])
    module = capture_function(function, x)[0]
    lowered, exact = rewritten(module), function(x.double())
    assert not set(targets(lowered)) & lowering.GAMMAS
    error = (lowered(x) - exact).abs() / exact.abs().clamp(min=1)
    assert error.max() < 16 * torch.finfo(torch.float32).eps  # of terms that are up to 8
    for value in (0.0, torch.inf):
        at = torch.tensor([value])
        assert torch.equal(rewritten(capture_function(function, at)[0])(at), function(at))
    below = torch.tensor([-0.5])
    assert rewritten(capture_function(function, below)[0])(below).isnan()


def test_the_rounding_of_gamma_functions_does_not_add_up():
    """Of a row of thousands of counts: errors are of either sign, at small arguments as well."""
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 4
    for function in (torch.lgamma, torch.digamma):
        exact = function(x.double())
        found = rewritten(capture_function(function, x)[0])(x)
        error = (found - exact) / exact.abs().clamp(min=1)
        assert error.mean().abs() < torch.finfo(torch.float32).eps / 2


@pytest.mark.slow
def test_columns_in_another_order_are_written_once():
    """In each use of its own Inductor would look every cell up anew, behind two indices."""

    def function(x, order):
        taken = x.index_select(1, order)
        return taken.exp(), taken.index_select(1, order).log1p()

    inputs = torch.rand(4, 3), torch.tensor([2, 0, 1])
    lowered = rewritten(capture_function(function, *inputs)[0])
    kept = lowered.graph.find_nodes(op="call_function", target=torch.ops.pyro_vae.keep.default)
    assert [node.args[0].target for node in kept] == 2 * [aten.index_select.default]
    for found, exact in zip(lowered(*inputs), function(*inputs), strict=True):
        assert torch.equal(found, exact)


@pytest.mark.slow
def test_inductor_compiles_what_is_rewritten():
    """Series of a parameter that counts share, the cross entropy, columns in another order."""

    def function(r, logits, counts, order):
        x, wide = counts.index_select(1, order), r.expand(20, 6)
        density = torch.lgamma(x + wide) - torch.lgamma(wide) - cross_entropy(logits, x.gt(4).to(x))
        slopes = torch.digamma(x + wide) - torch.digamma(wide), torch.sigmoid(logits) - x
        return density.sum(1).sum(), *slopes, nn.functional.softplus(logits)

    counts, order = torch.poisson(torch.rand(20, 6) * 9), torch.arange(6).flip(0)
    inputs = torch.rand(6) + 0.5, torch.randn(20, 6), counts, order
    module = capture_function(function, *inputs)[0]
    keep = torch.ops.pyro_vae.keep.default
    assert len(rewritten(module).graph.find_nodes(op="call_function", target=keep)) == 3
    exact = function(*(x.double() if x.is_floating_point() else x for x in inputs))
    for found, right in zip(compile_module(module, inputs)(*inputs), exact, strict=True):
        assert torch.allclose(found.double(), right, rtol=1e-5, atol=1e-6 * right.abs().max())


@pytest.mark.parametrize("how", [
    {"reduction": "sum"}, {"weight": torch.ones(3)}, {"pos_weight": torch.ones(3)},
])  # fmt: skip
def test_other_cross_entropies_stay(how):
    def function(logits, x):
        return nn.functional.binary_cross_entropy_with_logits(
            logits, x, **{"reduction": "none", **how}
        )

    inputs = torch.randn(2, 3), torch.rand(2, 3)
    module = capture_function(function, *inputs)[0]
    assert targets(rewritten(module)) == targets(module)


@pytest.mark.slow
def test_a_graph_in_double_precision_stays(onednn):
    vae = VAE(500, 2, encoder=MLP([500]), decoder=MLP([500]), seed=0).double()
    x = torch.rand(400, 500).lt(0.5).double()
    module = capture(Trace_ELBO(), vae.model, vae.guide, x).module
    found = targets(rewritten(module))
    assert ENTROPY in found and aten.sigmoid.default in found and LINEAR not in found


@pytest.mark.slow
@pytest.mark.parametrize("way", products.WAYS)
def test_large_products_go_to_onednn_and_give_the_same_step(onednn, way, monkeypatch):
    monkeypatch.setattr(products, "choose", largest_to(way))
    vae = VAE(784, 5, encoder=MLP([200]), decoder=MLP([200]), seed=0)
    x = torch.rand(100, 784).lt(0.3).float()
    graph = capture(Trace_ELBO(), vae.model, vae.guide, x)
    module = rewritten(graph.module)
    # x to 200, 200 to x, the gradients of both in their weights, of the latter in its input
    assert targets(module).count(LINEAR) == 5
    assert targets(graph.module).count(LINEAR) == 0
    steps = []
    for each in (graph.module, module):
        torch.manual_seed(0)
        with torch.no_grad():
            steps.append(each(x, *graph.live))
    for one, other in zip(*steps, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * one.abs().max())
        assert other.stride() == one.stride()


def test_a_shape_is_measured_once_a_machine(measured, monkeypatch):
    left, right, choices = torch.empty(100, 784), torch.empty(784, 200), {}
    assert products.choose(left, right, choices) == "oneDNN"
    assert choices == {"100 x 784 x 200 NN": "oneDNN"}
    assert products.choose(left, right, {}) == "oneDNN"  # of the file
    few = left[:5], right
    assert products.choose(*few, {}) == "torch"  # too small to be measured
    with pytest.raises(IndexError):  # another layout is another shape
        products.choose(left, torch.empty(200, 784).t(), {})
    monkeypatch.setattr(torch, "__version__", "0.0")
    measured.append("torch")
    assert products.choose(left, right, {}) == "torch"
    assert products.choose(left, right, choices) == "oneDNN"  # of the run


@pytest.mark.parametrize("text", ["", "[1]", '{"machine": 3}', "{"])
def test_a_damaged_file_of_choices_is_measured_anew(measured, tmp_path, text):
    file = tmp_path / "pyro_vae" / "products.json"
    file.parent.mkdir()
    file.write_text(text)
    given = torch.empty(100, 784), torch.empty(784, 200)
    assert products.choose(*given, {}) == "oneDNN"
    assert products.choose(*given, {}) == "oneDNN"  # of the file, which is whole again


def test_the_measurement_is_left_out_where_it_is_switched_off(measured, monkeypatch, tmp_path):
    monkeypatch.setenv(products.SWITCH, "0")
    assert products.choose(torch.empty(100, 784), torch.empty(784, 200), {}) == "torch"
    assert measured == ["oneDNN"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fast", ["torch", *products.WAYS])
def test_the_measurement_finds_the_fastest_way(fast, monkeypatch):
    def slowly(*given):
        time.sleep(1e-3)

    ways = {name: (lambda *given: None) if name == fast else slowly for name in products.WAYS}
    monkeypatch.setattr(products, "WAYS", ways)
    size = 50 if fast == "torch" else 500
    state = torch.get_rng_state()
    assert products._measure(torch.empty(size, 400).t(), torch.empty(size, 400)) == fast
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_a_run_is_resumed_with_its_choices(measured, monkeypatch, tmp_path):
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", lambda module, given: module)
    measured[:] = ["oneDNN"] * 9
    x = torch.rand(200, 784).lt(0.3).float()
    told = {"batch_size": 100, "compile": True, "progress": False}

    def fit(epochs, **where):
        vae = VAE(784, 2, encoder=MLP([200]), decoder=MLP([200]), seed=0)
        pv.fit(vae, x, epochs=epochs, **told, **where)
        return {k: v.clone() for k, v in vae.state_dict().items()}

    whole = fit(3)
    fit(2, out=tmp_path / "run")
    kept = checkpoint.read(tmp_path / "run")["products"]["ways"]
    assert kept and set(kept.values()) == {"oneDNN"}
    (tmp_path / "pyro_vae" / "products.json").unlink()  # ... and measures otherwise today
    measured[:] = ["torch"] * 9
    assert all(torch.equal(v, whole[k]) for k, v in fit(3, resume=tmp_path / "run").items())
    assert measured == ["torch"] * 9


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.slow
def test_layers_of_every_kind_of_input(onednn, bias):
    layer = nn.Linear(784, 200, bias=bias)
    for shape in ((300, 784), (3, 100, 784)):
        x = torch.randn(shape)
        module, live = capture_function(layer, x)
        lowered = rewritten(module)
        assert targets(lowered).count(LINEAR) == 1
        assert torch.allclose(lowered(x, *live), layer(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", products.WAYS)
def test_products_however_they_are_written(onednn, way, monkeypatch):
    """Between other things as well, with a bias and an activation, and compiled by Inductor."""
    monkeypatch.setattr(products, "choose", largest_to(way))

    def function(a, w, right, bias):
        plain = a.abs() @ w.T, a @ w.t(), a @ w.mT, w @ a.T, a @ right, w.T @ w, a.mT @ a
        return *plain, nn.functional.linear(a, w, bias).relu()

    inputs = torch.randn(300, 784), torch.randn(250, 784), torch.randn(784, 250), torch.randn(250)
    module = capture_function(function, *inputs)[0]
    lowered = rewritten(module)
    assert targets(lowered).count(LINEAR) == 8
    exact = function(*(x.double() for x in inputs))
    for each in (lowered, compile_module(module, inputs)):
        for found, right in zip(each(*inputs), exact, strict=True):
            assert torch.allclose(found.double(), right, rtol=1e-5, atol=1e-4)
            assert found.stride() == right.stride()


@pytest.mark.slow
@pytest.mark.parametrize("activation", [torch.tanh, torch.relu, torch.sigmoid])
def test_an_activation_goes_with_its_product_if_nobody_else_wants_that(onednn, activation):
    inputs = torch.randn(300, 784), torch.randn(200, 784) / 28, torch.randn(200)

    def layer(*inputs):
        return activation(nn.functional.linear(*inputs))

    def both(*inputs):
        product = nn.functional.linear(*inputs)
        return activation(product), product.abs()

    for function, calls in ((layer, 0), (both, 1)):
        module = capture_function(function, *inputs)[0]
        (call,) = [node for node in module.graph.nodes if node.name == activation.__name__]
        found = targets(rewritten(module))
        assert (found.count(LINEAR), found.count(call.target)) == (1, calls)
        exact = pytree.tree_leaves(function(*(x.double() for x in inputs)))
        values = pytree.tree_leaves(rewritten(module)(*inputs))
        for value, right in zip(values, exact, strict=True):
            assert torch.allclose(value.double(), right, rtol=3e-6, atol=3e-6)


def test_what_is_added_may_be_no_bias(onednn):
    inputs = torch.randn(300, 200), torch.randn(300, 784), torch.randn(200, 784)

    def function(added, a, weight):
        return (torch.addmm(added, a, weight.t()),)

    lowered = rewritten(capture_function(function, *inputs)[0])
    assert LINEAR not in targets(lowered)
    assert torch.allclose(*lowered(*inputs), *function(*inputs), atol=1e-4)


def test_a_bias_stays_with_a_product_of_half_precision():
    inputs = [x.bfloat16() for x in (torch.randn(30, 8), torch.randn(20, 8), torch.randn(20))]
    module = capture_function(lambda *layer: (nn.functional.linear(*layer),), *inputs)[0]
    assert targets(rewritten(module)) == targets(module)


@pytest.mark.slow
def test_a_bias_is_added_in_the_pass_that_comes_next(monkeypatch):
    """PyTorch would copy it over the result of the product first, and so a sum of two products."""
    monkeypatch.setattr(products, "choose", lambda left, right, choices: "torch")

    def function(a, w, bias, b):
        return torch.tanh(nn.functional.linear(a, w, bias)), torch.tanh(a @ w.t() + b @ w.t())

    inputs = torch.randn(30, 8), torch.randn(20, 8), torch.randn(20), torch.randn(30, 8)
    compiled = compile_module(capture_function(function, *inputs)[0], inputs)
    exact = function(*(x.double() for x in inputs))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        found = compiled(*inputs)
    assert {event.name for event in seen.events()} >= {"aten::mm"}
    assert not {event.name for event in seen.events()} & {"aten::addmm", "aten::copy_"}
    for value, right in zip(found, exact, strict=True):
        assert torch.allclose(value.double(), right, atol=1e-5)
