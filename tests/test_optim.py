"""The one optimizer over all parameters: options of each, clipping, and its state."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import pyro_vae as pv
from pyro_vae.infer import FusedOptim, make_optimizer

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))


def small():
    return pv.VAE(4, 2, likelihood="Normal", encoder=pv.MLP([8]), decoder=pv.MLP([8]), seed=0)


def moves(vae, optim, steps=1):
    """How far each parameter goes."""
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    svi = SVI(vae.model, vae.guide, optim, Trace_ELBO())
    torch.manual_seed(0)
    for _ in range(steps):
        svi.step(X)
    return {
        name: (p.detach() - before[name]).abs().max().item() for name, p in vae.named_parameters()
    }


def by_name(name):
    return {"lr": 0.1 if name.startswith("encoder") else 0.001}


@pytest.mark.parametrize("constructor", ["Adam", "SGD"])
def test_each_parameter_may_have_options_of_its_own_as_in_pyro(constructor):
    ours = FusedOptim(getattr(torch.optim, constructor), by_name)
    with pyro.get_param_store().scope():
        found = moves(small(), ours, steps=3)
    with pyro.get_param_store().scope():
        expected = moves(small(), getattr(pyro.optim, constructor)(by_name), steps=3)
    assert len(ours.optimizer.param_groups) == 2
    assert found == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}
    with pytest.raises(ValueError, match="each parameter has options of its own"):
        _ = ours.lr


def test_a_gradients_numbers_are_clipped():
    with pyro.get_param_store().scope():
        found = moves(small(), FusedOptim(torch.optim.SGD, {"lr": 1.0}, clip_value=0.125))
    assert max(found.values()) == pytest.approx(0.125)
    with pyro.get_param_store().scope():
        found = moves(small(), make_optimizer("SGD(clip_value=0.25)", 1.0))
    assert max(found.values()) == pytest.approx(0.25)
    for line, column in (("SGD(clip_value=-1)", 5), ("SGD(momentum=0.5, clip_norm='x')", 19)):
        with pytest.raises(ValueError, match=rf"is a number greater than 0(?s:.)*column {column}"):
            make_optimizer(line, 1.0)


def test_what_waits_for_its_parameter_is_part_of_the_state():
    optim = make_optimizer("Adam", 0.1)
    p = pyro.param("p", torch.zeros(2)).unconstrained()
    p.grad = torch.ones(2)
    optim([p])
    other = make_optimizer("Adam", 0.1)
    other.set_state(optim.get_state())
    again = other.get_state()
    assert again.keys() == {"p"}
    assert all(torch.equal(v, again["p"][k]) for k, v in optim.get_state()["p"].items())


BAD = {
    "a word": (("Adam", {"lr": 0.1}), "a class of torch.optim, such as torch.optim.Adam, got str"),
    "Pyro's": ((pyro.optim.Adam, {"lr": 0.1}), "a class of torch.optim"),
    "several evaluations": ((torch.optim.LBFGS, {"lr": 0.1}), "several times a step"),
    "no options": ((torch.optim.Adam, None), r"options are a dict such as .*, got NoneType"),
    "misspelt": ((torch.optim.Adam, {"lrr": 0.1}), "Adam has no option 'lrr'; did you mean lr"),
    "a clip": ((torch.optim.SGD, {"clip_norm": 1}), r"FusedOptim\(..., clip_norm=\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_arguments_that_it_cannot_have_are_told(name):
    given, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        FusedOptim(*given)


@pytest.mark.parametrize(
    "answer, message", [(None, "a dict such as"), ({"foo": 1}, "Adam has no option 'foo'")]
)
def test_options_by_parameter_are_checked_at_its_first_step(answer, message):
    p = torch.zeros(1, requires_grad=True)
    with pyro.get_param_store().scope():
        p = pyro.param("p", p).unconstrained()
        p.grad = torch.ones(1)
        with pytest.raises(ValueError, match=message):
            FusedOptim(torch.optim.Adam, lambda name: answer)([p])
