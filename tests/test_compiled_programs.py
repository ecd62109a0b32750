"""Programs of Pyro's own kinds in a captured graph, held against Pyro's eager answers."""

import itertools
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import (
    JitTraceEnum_ELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from torch import nn
from torch.distributions import constraints

import pyro_vae as pv
from pyro_vae.infer import CaptureError, CompiledELBO
from pyro_vae.infer.engine.capture import capture, capture_function
from pyro_vae.infer.engine.undo import left_alone

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


class Centred(nn.Module):
    """Takes a running mean away, which it keeps by one of several ways."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.how = nn.Linear(6, 4), how
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        y = self.layer(x)
        now = 0.9 * self.mean + 0.1 * y.detach().mean(0)
        if not self.training:
            return y - self.mean
        if self.how == "out":
            torch.mul(now, 1.0, out=self.mean)
        elif self.how == "list":
            torch._foreach_add_([self.mean], [now - self.mean])
        elif self.how == "data":
            self.mean.data = now
        else:
            self.mean = now
        return y


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(x.reshape(-1, 3, 2))[0][:, -1]


class Frozen(nn.Module):
    """Keeps its batch norm in evaluation mode, as fine-tuned networks do."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        self.norm.eval()
        return self.norm(self.layer(x))


ROWS = torch.linspace(0, 1, 48).reshape(8, 6).mul(7).sin()
ENCODERS = {
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)),
    "frozen batch norm": Frozen,
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)),
    "written by out=": lambda: Centred("out"),
    "written in a list": lambda: Centred("list"),
    "an LSTM": Last,
}


def trained(encoder, compile, **told):
    """The state after six steps."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    vae = pv.VAE(6, 2, encoder=encoder(), decoder=pv.MLP([3]), likelihood="Normal", seed=0)
    pv.fit(vae, ROWS, epochs=6, batch_size=8, lr=0.1, compile=compile, progress=False, **told)
    return vae.state_dict()


def same_state(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", ENCODERS)
def test_what_a_module_writes_is_written_once_a_step(name):
    encoder = ENCODERS[name]
    assert same_state(trained(encoder, "capture"), trained(encoder, False))


class Thawing(pv.callbacks.Callback):
    """Lets the encoder learn in steps 3 and 4."""

    def before_step(self, time):
        for name, p in self.run.vae.named_parameters():
            if name.startswith("encoder"):
                p.requires_grad_(2 <= time < 4)


def test_parameters_may_be_frozen_and_set_free_between_steps():
    states = [
        trained(lambda: nn.Linear(6, 4), c, callbacks=[Thawing()]) for c in ("capture", False)
    ]
    assert same_state(*states)


class Reversing(nn.Module):
    """Changes the size of a gradient alone, by a number of Python's."""

    def __init__(self):
        super().__init__()
        self.layer, self.sizes = nn.Linear(6, 4), [0.0]

    def forward(self, x):
        self.sizes.append(self.sizes[-1] + 0.1)
        y = self.layer(x)
        return y.detach() + self.sizes[-1] * (y - y.detach())


def test_a_gradient_that_changes_by_what_is_no_tensor_is_found():
    with pytest.raises(CaptureError, match="the gradient of step 2 has norm"):
        trained(Reversing, "capture")


class Drawing(nn.Module):
    """Adds random numbers that are none of PyTorch's own."""

    def __init__(self, draw):
        super().__init__()
        self.layer, self.draw = nn.Linear(6, 4), draw
        self.generator = torch.Generator().manual_seed(0)
        random.seed(0)
        np.random.seed(0)

    def __deepcopy__(self, memo):  # a generator has none
        return self

    def forward(self, x):
        return self.layer(x) + self.draw(self.generator)


class Counting(nn.Module):
    """Counts its runs in a number of Python's."""

    def __init__(self):
        super().__init__()
        self.layer, self.count = nn.Linear(6, 4), 0

    def forward(self, x):
        self.count += self.training
        return self.layer(x) * (1 + 0.1 * self.count)


REPLACED = "a module puts a new tensor in the place of a buffer"
REFUSED = {
    "a buffer's data replaced": (lambda: Centred("data"), REPLACED),
    "a buffer replaced": (lambda: Centred("attribute"), REPLACED),
    "NumPy": (
        lambda: Drawing(lambda g: float(np.random.randn())),
        "which a graph would not draw anew: draw them by PyTorch, or use compile=False",
    ),
    "Python": (
        lambda: Drawing(lambda g: random.random()),
        "draws random numbers of NumPy's or Python's",
    ),
    "a generator": (
        lambda: Drawing(lambda g: torch.randn((), generator=g)),
        "a torch.Generator of its own, .*: draw without one, or use compile=False",
    ),
    "a count": (
        Counting,
        "the number 'count' of a module changes from 0 to 1, .*: keep it in a tensor, as by "
        "register_buffer, or use compile=False",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_graph_repeats_is_refused_before_a_step_is_taken_by_one(name, monkeypatch):
    encoder, why = REFUSED[name]
    with pytest.raises(CaptureError, match=why):
        trained(encoder, "capture")
    monkeypatch.setattr("pyro_vae.infer.training.run.CAPTURE_FROM", 1)
    with pytest.warns(UserWarning, match=f"the steps are not compiled: .*{why}"):
        found = trained(encoder, "auto")
    assert same_state(found, trained(encoder, False))


class Cooling(pv.callbacks.Callback):
    """Sets a number of the encoder after the third epoch, as a schedule of the user's may."""

    def after_epoch(self, row):
        self.run.vae.encoder[1].negative_slope = 0.5 if row["epoch"] < 3 else 0.1


def test_a_number_that_a_callback_sets_is_seen_at_once(monkeypatch):
    def encoder():
        return nn.Sequential(nn.Linear(6, 4), nn.LeakyReLU(0.5))

    monkeypatch.setattr("pyro_vae.infer.training.run.CAPTURE_FROM", 1)
    with pytest.warns(UserWarning, match="'negative_slope' of a module changes from 0.5 to 0.1"):
        found = trained(encoder, "auto", callbacks=[Cooling()])
    assert same_state(found, trained(encoder, False, callbacks=[Cooling()]))


def test_a_long_run_is_held_against_its_program_again_and_again(monkeypatch):
    """Not at steps 1, 2, 4, 8, ... alone, between which half of a run may lie."""
    scales = [1.0]

    def scaled(x):
        loc = pyro.param("loc", torch.tensor(0.5))
        with poutine.scale(scale=scales[0]):
            pyro.sample("x", dist.Normal(loc, 1.0).expand([4]).to_event(1), obs=x)

    monkeypatch.setattr("pyro_vae.infer.engine.compiled.OFTEN", 10)
    pyro.clear_param_store()
    elbo = CompiledELBO(Trace_ELBO(), "capture")
    for _ in range(17):
        evaluate(elbo, scaled, empty_guide, X)
    scales[0] = 1.1
    for _ in range(3):
        evaluate(elbo, scaled, empty_guide, X)
    with pytest.raises(CaptureError, match="loss of step 21 is"):
        evaluate(elbo, scaled, empty_guide, X)


def test_all_parts_of_a_tensor_that_are_written_to_are_put_back():
    x, y = torch.arange(6.0), torch.arange(4.0)
    with left_alone():
        x[:3] = 7.0
        x[2:5] += 1.0  # the parts overlap
        y.view(2, 2)[:, 1].zero_()
        y.add_(1.0)
    assert torch.equal(x, torch.arange(6.0))
    assert torch.equal(y, torch.arange(4.0))


@pytest.mark.parametrize("sizes", [(3,), (2, 3, 4, 5, 6, 7, 8, 9)])
def test_batches_of_a_loader_get_a_graph_where_enough_have_their_shape(sizes, monkeypatch):
    """Whatever batch_size is, which a loader does not use."""
    made = []

    def counted(*args):
        made.append(len(args[-1]))
        return capture(*args)

    monkeypatch.setattr("pyro_vae.infer.engine.compiled.capture", counted)
    monkeypatch.setattr("pyro_vae.infer.training.run.CAPTURE_FROM", 20)
    vae = pv.VAE(6, 2, likelihood="Normal", encoder="MLP([3])", decoder="MLP([3])", seed=0)
    loader = (torch.randn(n, 6) for n in itertools.cycle(sizes))
    pv.fit(vae, loader, steps_per_epoch=25, epochs=1, progress=False)
    assert made == [n for n in sizes if len(sizes) == 1]


@pytest.mark.parametrize("read", [lambda x: x.tolist(), lambda x: x.numpy().tolist()])
def test_reading_all_numbers_of_the_data_is_refused_as_reading_one_is(read):
    def reading(x):
        loc = pyro.param("loc", torch.tensor(0.5))
        pyro.sample("x", dist.Normal(loc * max(read(x)), 1.0).expand([4]).to_event(1), obs=x)

    with pytest.raises(CaptureError, match="the value of a tensor is read"):
        evaluate(CompiledELBO(Trace_ELBO()), reading, empty_guide, X)


def test_what_went_wrong_within_a_site_is_said():
    class Read(dist.Normal):
        def log_prob(self, value):
            if value.sum() > 0:
                raise AssertionError
            return super().log_prob(value)

    def reading(x):
        loc = pyro.param("loc", torch.tensor(0.5))
        pyro.sample("x", Read(loc, 1.0).expand([4]).to_event(1), obs=-x)

    with pytest.raises(CaptureError, match="the value of a tensor is read, by"):
        evaluate(CompiledELBO(Trace_ELBO()), reading, empty_guide, X)


def test_a_graph_that_does_not_run_is_a_capture_error(monkeypatch):
    def fail(*tensors):
        raise TypeError("no such kernel")

    monkeypatch.setattr("pyro_vae.infer.engine.compiled.compile_module", lambda *args: fail)
    with pytest.raises(CaptureError, match=r"does not run \(TypeError: no such kernel\)"):
        evaluate(CompiledELBO(Trace_ELBO()), model, guide, X)
