"""Ordered levels: many of them, far from the predictor, and cutpoints that training moves."""

import mpmath as mp
import pytest
import torch
from pyro.distributions import constraints
from pyro.distributions.transforms import OrderedTransform

import pyro_vae as pv
from pyro_vae.distributions import Ordered, OrderedLogistic


@pytest.mark.parametrize("level", [0, 1, 150, 298, 299])
@pytest.mark.parametrize("predictor", [-60.0, -20.0, 0.3, 20.0, 60.0])
def test_levels_far_from_the_predictor_keep_their_digits_and_a_gradient(level, predictor):
    """As differences of sigmoids in float32 they had probability 1.2e-7, and none."""
    eta = torch.tensor(predictor, requires_grad=True)
    cutpoints = torch.linspace(-8, 8, 299)
    log = OrderedLogistic(eta, cutpoints).log_prob(torch.tensor(float(level)))
    (slope,) = torch.autograd.grad(log, eta)
    ends = [-mp.inf, *cutpoints.tolist(), mp.inf]

    def exact(m):
        low, high = (1 / (1 + mp.exp(m - end)) for end in ends[level : level + 2])
        return mp.log(high - low)

    with mp.workdps(60):
        assert log.item() == pytest.approx(float(exact(predictor)), rel=1e-4, abs=1e-6)
        assert slope.item() == pytest.approx(float(mp.diff(exact, predictor)), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 299, 9999])
def test_cutpoints_increase_whatever_training_makes_of_them(n, dtype):
    """Steps that are a sum's last digit, or far larger; and what starts somewhere comes back."""
    raw = torch.randn(40, n, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for scale in (1, 10, 100):
        y = Ordered()(scale * raw)
        assert constraints.ordered_vector.check(y).all() and y.isfinite().all()
    start = torch.logit(torch.arange(1, n + 1, dtype=dtype) / (n + 1))
    back = Ordered()(Ordered().inv(start))
    assert (back - start).abs().max() <= 16 * torch.finfo(dtype).eps  # of the largest, 9


def test_cutpoints_of_folders_from_before_are_as_they_were():
    """Weights that were saved with Pyro's map have the same meaning, to its last digits."""
    raw = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    before = OrderedTransform()(raw)
    assert (Ordered()(raw) - before).abs().max() <= 32 * torch.finfo().eps * before.abs().max()


@pytest.mark.parametrize("cutpoints", ["amortized", "learned", "learned(shared=False)"])
@pytest.mark.parametrize("levels", [300, 10_000])
def test_many_ordered_levels_of_trained_weights_are_drawn(levels, cutpoints):
    """Weights as wide as training makes them, of two cells, one of whose levels mostly lack."""
    line = f"OrderedLogistic(categories={levels}, cutpoints={cutpoints})"
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(levels, (50, 2), generator=generator).double()
    x[:, 1] = x[:, 1] % 3
    vae = pv.VAE((2,), latent_dim=2, likelihood=line, encoder="MLP([4])", decoder="MLP([4])")
    vae.start_from(x.float())
    with torch.no_grad():
        for parameter in vae.likelihood.parameters():
            parameter += 4 * torch.randn(parameter.shape, generator=generator)
    p = vae.decode(torch.randn(20, 2, generator=generator))
    assert p.sample().shape == (20, 2)
    log = p.log_prob(x[:20].float())
    log.sum().backward()
    assert log.isfinite().all()
    assert all(q.grad.isfinite().all() for q in vae.likelihood.parameters())


def test_cutpoints_that_do_not_increase_are_refused():
    line = "OrderedLogistic(categories=3, cutpoints=[1, 1])"
    with pytest.raises(pv.SpecError, match="cutpoints of OrderedLogistic must be increasing"):
        pv.VAE((2,), latent_dim=2, likelihood=line)
