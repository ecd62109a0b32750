"""Programs of Pyro's own kinds in a captured graph, held against Pyro's eager answers."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    JitTraceEnum_ELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from torch.distributions import constraints

from pyro_vae.infer import CaptureError, CompiledELBO
from pyro_vae.infer.engine.capture import capture_function

X = torch.tensor([-0.4, 1.9, 0.3, 2.5])


pytestmark = pytest.mark.usefixtures("interpreted")


def evaluate(elbo, model, guide, *args, seed=0):
    """Loss and gradients by name."""
    pyro.set_rng_seed(seed)
    loss = elbo.loss_and_grads(model, guide, *args)
    named = dict(pyro.get_param_store().named_parameters())
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    for p in named.values():
        p.grad = None
    return loss, gradients


def empty_guide(x):
    pass


@config_enumerate
def hidden_markov(x):
    start = pyro.param("start", torch.tensor([0.3, 0.7]), constraint=constraints.simplex)
    rows = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    transition = pyro.param("transition", rows, constraint=constraints.simplex)
    loc = pyro.param("loc", torch.tensor([-1.0, 2.0]))
    z = None
    for i in pyro.markov(range(len(x))):
        probs = start if z is None else transition[z]
        z = pyro.sample(f"z{i}", dist.Categorical(probs))
        pyro.sample(f"x{i}", dist.Normal(loc[z], 1.0), obs=x[i])


def clusters(x):
    with pyro.plate("data", len(x), subsample_size=2) as rows:
        probs = pyro.param("probs", torch.tensor([0.3, 0.7]), constraint=constraints.simplex)
        loc = pyro.param("loc", torch.tensor([-1.0, 2.0]))
        z = pyro.sample("z", dist.Categorical(probs))
        pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x[rows])


def assignments(how):
    def guide(x):
        """One assignment is sure: its other outcome has probability zero."""
        start = torch.tensor([[0.3, 0.7], [0.0, 1.0], [0.5, 0.5], [0.1, 0.9]])
        with pyro.plate("data", len(x), subsample_size=2):
            probs = pyro.param("q", start, constraint=constraints.simplex, event_dim=1)
            pyro.sample("z", dist.Categorical(probs), infer={"enumerate": how})

    return guide


def sequential(x):
    loc = pyro.param("loc", torch.tensor(0.5))
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"x{i}", dist.Normal(loc, 1.0), obs=x[i])


def permuted(x):
    """The order is made in the program, of constants."""
    loc = pyro.param("loc", torch.tensor([0.5, 1.0, 2.0, 4.0]))
    for i in pyro.plate("data", len(x), subsample=torch.tensor([2, 0, 3, 1])):
        pyro.sample(f"x{i}", dist.Normal(loc[i], 1.0), obs=x[i])


PROGRAMS = {
    "model enumerated": (TraceEnum_ELBO(max_plate_nesting=0), hidden_markov, empty_guide),
    "guide enumerated": (TraceEnum_ELBO(max_plate_nesting=1), clusters, assignments("parallel")),
    "one by one": (TraceEnum_ELBO(max_plate_nesting=1), clusters, assignments("sequential")),
    "sequential plate": (Trace_ELBO(), sequential, empty_guide),
    "indices of one's own": (Trace_ELBO(), permuted, empty_guide),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.slow
def test_static_programs_have_pyros_numbers(name):
    elbo, model, guide = PROGRAMS[name]
    compiled = CompiledELBO(elbo)
    for seed in range(3):
        loss, gradients = evaluate(elbo, model, guide, X, seed=seed)
        other, others = evaluate(compiled, model, guide, X, seed=seed)
        assert other == pytest.approx(loss, rel=1e-6)
        assert gradients.keys() == others.keys() and gradients
        for parameter, gradient in gradients.items():
            assert gradient.any()
            assert torch.allclose(others[parameter], gradient, rtol=1e-5, atol=1e-6), parameter
    assert len(compiled._steps) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_enumeration_has_the_numbers_of_pyros_jit():
    elbo, model, guide = PROGRAMS["model enumerated"]
    jit = JitTraceEnum_ELBO(max_plate_nesting=0, ignore_jit_warnings=True)
    pyro.set_rng_seed(0)
    expected = jit.loss_and_grads(model, guide, X)
    pyro.clear_param_store()
    assert evaluate(CompiledELBO(elbo), model, guide, X)[0] == pytest.approx(expected, rel=1e-6)


def write_on_a_constant(x):
    place = torch.arange(3)
    place[0] = x[0].long()
    pyro.sample(f"x{place[0].item()}", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1), obs=x)


def draw_indices(x):
    loc = pyro.param("loc", torch.tensor(0.5))
    for i in pyro.plate("data", len(x), subsample_size=2):
        pyro.sample(f"x{i}", dist.Normal(loc, 1.0), obs=x[i])


@pytest.mark.parametrize("model", [write_on_a_constant, draw_indices])
def test_whole_numbers_that_data_or_noise_reach_are_refused(model):
    refused = pytest.raises(CaptureError, match="depends on the values of tensors")
    with pyro.validation_enabled(False), refused:
        evaluate(CompiledELBO(Trace_ELBO()), model, empty_guide, X)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def misnamed(x):
    with pyro.plate("data", len(x)):
        loc = pyro.param("loc", torch.zeros(len(x)))
        pyro.sample("y", dist.Normal(loc, 1.0))


def outside_its_plate(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(len(x))), 1.0))


def bits(x):
    pyro.sample("z", dist.Bernoulli(0.3))


def guessed_bits(x):
    pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.tensor(0.5))))


FAULTS = {
    "a misnamed site": (Trace_ELBO(), model, misnamed),
    "an observation outside its plate": (Trace_ELBO(), outside_its_plate, guide),
    "an analytic KL that is not served": (TraceMeanField_ELBO(), bits, guessed_bits),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.filterwarnings("ignore:Found vars in:UserWarning")
def test_the_first_step_is_validated_as_pyro_validates_it(name):
    elbo, *program = FAULTS[name]
    with pytest.raises(Exception) as stock:
        evaluate(elbo, *program, X)
    pyro.clear_param_store()
    with pytest.raises(stock.type) as ours:
        evaluate(CompiledELBO(elbo), *program, X)
    assert str(ours.value).splitlines()[0] == str(stock.value).splitlines()[0]


@pytest.mark.slow
def test_validation_that_is_off_stays_off():
    elbo, *program = FAULTS["a misnamed site"]
    with pyro.validation_enabled(False):
        evaluate(CompiledELBO(elbo), *program, X)
        assert not pyro.infer.util.is_validation_enabled()


def test_a_differentiable_loss_is_the_elbos_own():
    losses = []
    for elbo in (Trace_ELBO(), CompiledELBO(Trace_ELBO())):
        pyro.set_rng_seed(0)
        loss = elbo.differentiable_loss(model, guide, X)
        loss.backward()
        losses.append((loss.item(), pyro.param("loc").grad.clone()))
        pyro.param("loc").grad = None
    assert losses[0][0] == losses[1][0]
    assert torch.equal(losses[0][1], losses[1][1])


def test_an_error_without_words_is_a_capture_error_too():
    def fail(x):
        raise AssertionError

    with pytest.raises(CaptureError, match=r"\(AssertionError: \): use compile=False"):
        capture_function(fail, X)
