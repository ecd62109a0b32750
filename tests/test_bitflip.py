"""Gradients from one bit turned at random, against enumeration and beside DisARM."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from helpers.gradients import bit_model, draws, exact_bits, right, z_scores
from pyro_vae import make_estimator
from pyro_vae.infer.estimators.soundness import check, check_and_nest

COPIES = 4000


@pytest.mark.slow
@pytest.mark.parametrize("n, beta", [(1, 1.0), (4, 1.0), (4, 0.25)])
@pytest.mark.parametrize(
    "line", ["BitFlip", "BitFlip(num_particles=3)", "UGC", "UGC(num_particles=2)"]
)
def test_unbiased_for_bits(line, n, beta):
    vae, x = bit_model(n)
    right(*draws(line, vae, x, beta, copies=640), exact_bits(vae, x, beta), vae)


def gradients(line, logits):
    """Of many copies of so many bits at these logits, ``(COPIES, *shape)``."""
    n, weights = logits.ndim, torch.linspace(-1, 1, logits.numel())

    def model(x):
        with pyro.plate("copies", COPIES):
            b = pyro.sample("b", dist.Bernoulli(torch.full_like(logits, 0.5)).to_event(n))
            mean = (b.flatten(-n) * weights).sum(-1).square()
            pyro.sample("x", dist.Normal(mean, 0.5), obs=torch.ones(COPIES))

    def guide(x):
        at = pyro.param("logits", logits.expand(COPIES, *logits.shape).clone())
        with pyro.plate("copies", COPIES):
            pyro.sample("b", dist.Bernoulli(logits=at).to_event(n))

    estimator, x = make_estimator(line), torch.zeros(COPIES, 1)
    check_and_nest(estimator, model, guide, x)
    with pyro.get_param_store().scope():
        estimator.elbo.loss_and_grads(model, estimator.wrap(guide, x), x)
        return -pyro.param("logits").grad.double()


def test_one_bit_alone_is_turned_and_nearly_sure_bits_have_less_variance():
    pyro.set_rng_seed(0)
    sure = torch.tensor([5.0, 4.0, -5.0])
    one, other = gradients("BitFlip", sure), gradients("DisARM", sure)
    assert ((one != 0).sum(1) == 1).all()
    wanted = gradients("TraceEnum_ELBO", sure)[0]
    for found in (one, other):
        assert z_scores(found, wanted).abs().max() < 5
    assert (one.var(0) < other.var(0) / 5).all()


@pytest.mark.parametrize("line", ["BitFlip", "UGC"])
@pytest.mark.parametrize("shape", [(2, 2), (4,)])
def test_one_bit_of_all_is_turned_whatever_their_shape(line, shape):
    pyro.set_rng_seed(0)
    logits = torch.tensor([3.0, -0.5, 0.3, -4.0]).reshape(shape)
    found, wanted = gradients(line, logits), gradients("TraceEnum_ELBO", logits)[0]
    assert z_scores(found, wanted).abs().max() < 5
    sure = (-logits.abs()).sigmoid() <= 1 / 8
    turned = found if line == "BitFlip" else found * sure
    assert ((turned != 0).flatten(1).sum(1) == 1).all()


def test_clipped_where_bits_are_nearly_sure_it_is_disarm_elsewhere():
    """No bit's variance is above DisARM's, and that of sure ones is far below."""
    pyro.set_rng_seed(0)
    logits = torch.tensor([6.0, -5.0, 0.3, -0.8, 4.0])
    ugc, disarm = gradients("UGC", logits).var(0), gradients("DisARM", logits).var(0)
    sure = torch.tensor([True, True, False, False, True])
    assert (ugc[sure] < disarm[sure] / 5).all()
    error = 3 * (2 / COPIES) ** 0.5  # of a variance with some tail
    assert ((ugc / disarm - 1).abs()[~sure] < 5 * error).all()
    near = [gradients(line, logits / 20).var(0) for line in ("UGC", "DisARM")]
    assert ((near[0] / near[1] - 1).abs() < 5 * error).all()


def test_more_than_one_bit_is_never_turned():
    def model(x, joined=True):
        with pyro.plate("members", 2):
            b = pyro.sample("b", dist.Bernoulli(torch.full((2,), 0.5)))
        pyro.sample("x", dist.Normal(b.sum(), 1.0), obs=torch.tensor(0.3))

    def guide(x):
        with pyro.plate("members", 2):
            pyro.sample("b", dist.Bernoulli(logits=pyro.param("l", torch.zeros(2))))

    def two(x):
        pyro.sample("b", dist.Bernoulli(0.5))
        pyro.sample("c", dist.Bernoulli(0.4))

    estimator = make_estimator("BitFlip")
    with pytest.raises(ValueError, match="in each member of the plate 'members', and 'x', outside"):
        check(estimator, model, guide, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="turns one bit, and the guide has the sites 'b', 'c'"):
        check(estimator, two, two, torch.zeros(2, 1))
