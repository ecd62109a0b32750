"""Control variates for discrete latents, and DisARM of several pairs, against exact answers."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI

import pyro_vae as pv
from helpers.gradients import (
    MANY,
    N,
    bernoulli_toy,
    bit_model,
    copied,
    covering,
    draws,
    exact_bits,
    gradient_of,
    iwae_by_enumeration,
    right,
    right_in_plates,
    spread,
    toy_variances,
    z_scores,
)
from pyro_vae import MLP, VAE, distributions, make_estimator
from pyro_vae.families.part import Ends
from pyro_vae.families.registry import make_part
from pyro_vae.infer import REBAR, RELAX, DisARM, DisARMIWAE, DoubleCV, MuProp
from pyro_vae.infer.estimators.relaxed import Relaxed, StraightThrough
from pyro_vae.infer.estimators.soundness import check_and_nest

LINES = ["MuProp", "DoubleCV(num_particles=3)", "REBAR", "RELAX(hidden=10)"]
BASELINED = "MuProp(baseline=neural)"


# Without bias, whatever was learned.


@pytest.mark.parametrize(
    "line, shape",
    [
        ("AutoregressiveBernoulli", (2,)),
        ("Mixture(OneHotCategorical(logits=learned), components=2)", (1, 2)),
    ],
)
def test_log_masses_of_priors_go_on_between_codes(line, shape):
    """Where they jumped, what follows a relaxed draw's path would leave the jump out."""
    torch.manual_seed(1)
    with torch.no_grad(), pyro.validation_enabled(False):
        part = make_part(line, Ends(shape, "prior"))
        for parameter in part.parameters():
            parameter.copy_(torch.randn_like(parameter))
        below, above = (torch.tensor([t, 1 - t]).reshape(shape) for t in (0.4999, 0.5001))
        near, far = part().log_prob(below), part().log_prob(above)
    assert near.item() == pytest.approx(far.item(), abs=1e-2)


CORNERS = torch.tensor([[2.0, -1.0, 0.0], [-1.0, 1.0, 3.0]]).double()


def mixed_codes(family, read, copies=100):
    """One-hot codes in copies, under a mixture of a family, and what reads them: a program."""
    start, rates = torch.tensor([0.5, -0.2, 0.1]).double(), torch.tensor([0.2, 0.5, 0.9]).double()

    def model():
        prior = dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.6, 0.4]).double()), family(logits=CORNERS)
        )
        with pyro.plate("copies", copies):
            pyro.factor("x", read(pyro.sample("z", prior), rates).log())

    def guide():
        phi = pyro.param("p", lambda: start.repeat(copies, 1))
        with pyro.plate("copies", copies):
            pyro.sample("z", dist.OneHotCategorical(logits=phi))

    return model, guide, start, rates


def mean_of(z, rates):
    return (z * rates).sum(-1)


def place_of(z, rates):
    return rates[z.argmax(-1)]


def entries_of(z, rates):
    return torch.stack([1.1 - rates, rates])[z.long(), torch.arange(3)].prod(-1)


@pytest.mark.parametrize("line", ["REBAR", "RELAX(hidden=10)"])
@pytest.mark.parametrize(
    "family, read, site",
    [
        (dist.OneHotCategorical, mean_of, "z"),
        (distributions.OneHotCategorical, place_of, "x"),
        (distributions.OneHotCategorical, entries_of, "x"),
    ],
)
def test_a_log_density_that_jumps_between_codes_is_refused(line, family, read, site):
    """Pyro's log mass of the largest entry, and an index: these were 100 standard errors off."""
    model, guide, _, _ = mixed_codes(family, read)
    with pyro.get_param_store().scope(), pytest.raises(ValueError, match=f"'{site}' jumps"):
        check_and_nest(make_estimator(line), model, guide)


def detached(z, rates):
    return (z.detach() * rates).sum(-1)


def weighted_by_a_detached(z, rates):
    return (z * rates).sum(-1) * (2 - z.detach()[..., 0])


def without_gradient(z, rates):
    with torch.no_grad():
        return (z * rates).sum(-1) + 0.1


@pytest.mark.parametrize("read", [detached, weighted_by_a_detached, without_gradient])
def test_a_log_density_with_a_part_that_autograd_does_not_see_is_refused(read):
    """With z.detach(), z.item() or within torch.no_grad(): these were 37 standard errors off."""
    model, guide, _, _ = mixed_codes(distributions.OneHotCategorical, read)
    why = r"does not tell .* compute with z itself, not with z.detach\(\), z.item\(\) or within"
    with pyro.get_param_store().scope(), pytest.raises(ValueError, match=why):
        check_and_nest(make_estimator("REBAR"), model, guide)


def test_a_mixture_whose_log_mass_goes_on_is_unbiased_in_a_program():
    model, guide, start, rates = mixed_codes(distributions.OneHotCategorical, mean_of, N)
    elbo, phi = make_estimator("REBAR").elbo, start.clone().requires_grad_()
    log_q = phi.log_softmax(-1)
    log_p = (torch.tensor([[0.6], [0.4]]).double() * CORNERS.softmax(-1)).sum(0).log()
    exact = (log_q.exp() * (log_p + rates.log() - log_q)).sum()
    with pyro.validation_enabled(False):
        found = copied(elbo, model, guide)
    assert z_scores(found, torch.autograd.grad(exact, phi)[0]).abs().max() < 5


@pytest.mark.slow
@pytest.mark.parametrize("line, n, beta", covering([*LINES, BASELINED]))
def test_unbiased_for_bits(line, n, beta, wandered):
    vae, x = bit_model(n)
    right(*draws(line, vae, x, beta, copies=MANY), exact_bits(vae, x, beta), vae)


@pytest.mark.parametrize(
    "line", ["MuProp(num_particles=2)", "DoubleCV", "REBAR(num_particles=2, temperature=0.2)",
             "REBAR(eta=0.5)", "RELAX(num_particles=2, temperature=2)"],
)  # fmt: skip
@pytest.mark.slow
def test_unbiased_with_other_arguments(line, wandered):
    vae, x = bit_model(4)
    right(*draws(line, vae, x), exact_bits(vae, x), vae)


@pytest.mark.slow
@pytest.mark.parametrize("line", [*LINES, BASELINED])
def test_unbiased_for_one_hot_vectors(line, wandered):
    vae = VAE(
        5, (2, 3), prior="OneHotCategorical(logits=learned)", guide="OneHotCategorical",
        encoder=MLP([4], activation="Tanh"),
        decoder=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 4), torch.nn.Tanh()),
        seed=3,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(torch.randn_like(p) * 0.7)
    x, corners = torch.rand(3, 5).lt(0.5).double(), torch.eye(3).double()
    states = torch.stack([torch.stack(pair) for pair in itertools.product(corners, repeat=2)])
    log_q = vae.approximate_posterior(x).log_prob(states[:, None])
    log_x = vae.decode(states[:, None].expand(-1, len(x), -1, -1)).log_prob(x)
    exact = (log_q.exp() * (log_x + vae.prior().log_prob(states)[:, None] - log_q)).sum()
    gradients, values = draws(line, vae, x, copies=640)
    wanted = gradient_of(exact, vae)
    assert z_scores(gradients, wanted).abs().max() < 5
    assert z_scores(values[:, None], exact.detach()).abs().max() < 5
    assert (wanted.abs() > 1e-6).sum() > 0.8 * len(wanted)
    assert (gradients != 0).any(0)[wanted.abs() > 1e-6].all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "elbo", [MuProp(), DoubleCV(2), REBAR(), RELAX(), DisARMIWAE(2)], ids=lambda e: type(e).__name__
)
def test_unbiased_with_sites_in_different_plates(elbo, plates, wandered):
    right_in_plates(elbo, plates, 2 if isinstance(elbo, DisARMIWAE) else 1)


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3])
def test_disarm_is_unbiased_for_the_importance_weighted_bound(k):
    vae, x = bit_model(4)
    line = f"DisARMIWAE(num_particles={k})"
    right(*draws(line, vae, x), iwae_by_enumeration(vae, x, k), vae)


def test_one_particle_of_the_importance_weighted_bound_is_disarm():
    vae, x = bit_model(4)
    found = []
    for line in ("DisARMIWAE(num_particles=1)", "DisARM"):
        pyro.set_rng_seed(3)
        found.append(torch.cat([part.flatten() for part in draws(line, vae, x, batches=2)]))
    assert torch.allclose(*found, rtol=1e-9, atol=1e-10)


# Variances in closed form, of the Bernoulli toy E[(b - t)^2].

TOY = [(0.5, 0.45), (0.3, 0.45), (0.9, 0.1)]


@pytest.mark.parametrize("p, t", TOY)
@pytest.mark.parametrize("pairs", [2, 5])
def test_the_variance_of_pairs_falls_as_their_number(pairs, p, t):
    variance, error = spread(copied(DisARM(pairs), *bernoulli_toy(p, t)))
    assert abs(variance - toy_variances(p, t)["DisARM"] / pairs) < 5 * error + 1e-15


def taken(elbo, p, t):
    """The draws, their mean and variance asserted to be those of the exact values and weights."""
    sample = copied(elbo, *bernoulli_toy(p, t))
    variance, error = spread(sample)
    assert abs(sample.mean() - (1 - 2 * t) * p * (1 - p)) < 5 * (variance / N).sqrt() + 1e-12
    return variance, error


@pytest.mark.parametrize("p, t", TOY)
def test_variance_of_muprop(p, t):
    """What is left of the quadratic is (b - p)^2, so the estimate is (b - p)^3 and a constant."""
    q = 1 - p
    wanted = p * q * (p**5 + q**5) - (p * q * (q - p)) ** 2
    variance, error = taken(MuProp(), p, t)
    assert abs(variance - wanted) < 5 * error + 1e-15


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("p, t", TOY)
def test_variance_of_double_control_variates(p, t, alpha):
    """By the four states of two bits; without the second one (alpha = 0), that of RLOO."""
    b = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).double()
    mass = (p * b + (1 - p) * (1 - b)).prod(1)
    f, slope, step = (b - t) ** 2, 2 * (b - t), b - p
    h = f - alpha * slope.flip(1) * step
    g = ((h - h.flip(1)) * step).mean(1) + alpha * slope.mean(1) * p * (1 - p)
    mean = (mass * g).sum()
    assert mean == pytest.approx((1 - 2 * t) * p * (1 - p), abs=1e-12)
    wanted = (mass * (g - mean) ** 2).sum()
    variance, error = taken(DoubleCV(2, alpha=alpha), p, t)
    assert abs(variance - wanted) < 5 * error + 1e-15
    if alpha == 0:
        assert wanted == pytest.approx(toy_variances(p, t)["RLOO(num_particles=2)"])


def rebar_by_quadrature(p, t):
    """REBAR on the toy as a function of (eta, log T), at 100,000 values of the one uniform.

    Written as in the paper: z from u, and z given b from v, whose path autograd takes at fixed v.
    """
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    phi = torch.full_like(u, p).logit()
    b = (u > 1 - p).double()
    v = torch.where(b == 1, (u - (1 - p)) / p, u / (1 - p))

    def given_b(phi):
        theta = phi.sigmoid()
        return phi + torch.where(b == 1, v * theta + 1 - theta, v * (1 - theta)).logit()

    assert torch.allclose(given_b(phi), phi + u.logit())  # the noise is tied

    def draw(eta, log_temperature):
        def c(z):
            return ((z / log_temperature.exp()).sigmoid() - t) ** 2

        at = phi.clone().requires_grad_()
        value = c(given_b(at))
        (free,) = torch.autograd.grad(c(at + u.logit()).sum(), at, create_graph=True)
        (held,) = torch.autograd.grad(value.sum(), at, create_graph=True)
        return ((b - t) ** 2 - eta * value) * (b - p) + eta * (free - held)

    return draw


@pytest.mark.slow
@pytest.mark.parametrize("eta, temperature", [(1.0, 0.5), (0.6, 2.0)])
@pytest.mark.parametrize("p, t", TOY)
def test_variance_of_rebar_and_its_slope(p, t, eta, temperature):
    at = [torch.full((100_000,), v).double() for v in (eta, math.log(temperature))]
    exact = rebar_by_quadrature(p, t)(*[one.requires_grad_() for one in at])
    exact_mean = exact.mean().item()
    assert exact_mean == pytest.approx((1 - 2 * t) * p * (1 - p), abs=1e-4)
    variance, error = taken(REBAR(1, temperature, eta), p, t)
    assert abs(variance - exact.var()) < 5 * error + 1e-4 * variance  # of the quadrature

    elbo = REBAR()
    model, guide = bernoulli_toy(p, t)
    with pyro.get_param_store().scope():
        control = elbo.learner.renew(guide)
        with torch.no_grad():
            control.eta.copy_(at[0][0])
            control.log_temperature.copy_(at[1][0])
        elbo.loss_and_grads(model, guide)
    slopes = torch.autograd.grad(exact.square().sum(), at)
    for one, learned in zip(slopes, (control.eta, control.log_temperature), strict=True):
        error = one.std() / N**0.5
        assert abs(learned.grad - one.mean()) < 5 * error + 1e-4 * one.abs().mean()
    assert any(abs(one.mean()) > 5 * one.std() / N**0.5 for one in slopes)


@pytest.mark.parametrize("p, t", TOY)
def test_why_the_noise_is_tied(p, t):
    """With noise of its own z given b costs a third evaluation, which is not worth it."""
    u, v = torch.rand(2, N, generator=torch.Generator().manual_seed(0)).double()
    phi = torch.full_like(u, p).logit().requires_grad_()
    z, theta = phi + u.logit(), phi.sigmoid()
    b = (z > 0).double()
    given = phi + torch.where(b == 1, v * theta + 1 - theta, v * (1 - theta)).logit()
    c, c_given = (((value / 0.5).sigmoid() - t) ** 2 for value in (z, given))
    (path,) = torch.autograd.grad((c - c_given).sum(), phi)
    apart = ((b - t) ** 2 - c_given.detach()) * (b - p) + path
    assert abs(apart.mean() - (1 - 2 * t) * p * (1 - p)) < 5 * apart.std() / N**0.5
    tied = rebar_by_quadrature(p, t)(*torch.tensor([1.0, math.log(0.5)]).double())
    assert 2 * tied.var() < 0.8 * 3 * apart.var()


# Variances on the model of 4 bits.


@pytest.mark.slow
def test_the_order_of_variances():
    """After learning; REINFORCE > MuProp as in Gu et al., and all below RLOO with two draws."""
    vae, x = bit_model(4)
    score, rloo = "Trace_ELBO(gradient=score)", "RLOO(num_particles=2)"
    lines = [score, rloo, "MuProp", "DoubleCV", "REBAR", "RELAX"]
    table = pv.compare_estimators(vae, x, lines, num_draws=120, burn_in=80)
    variance = dict(zip(lines, table.grad_variance.sel(parameter="encoder").values, strict=True))
    assert variance["MuProp"] < 0.1 * variance[score]
    for line in lines[2:]:
        assert variance[line] < 0.7 * variance[rloo]
    assert (table.evaluations.values == [1, 2, 2, 2, 2, 2]).all()
    assert (table.bias_z.sel(parameter="all") < 5).all()


# One face for all.


def two_bits():
    data = torch.tensor([0.2, 1.4])

    def model():
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(z, 0.5), obs=data)

    def guide():
        logits = pyro.param("logits", torch.zeros(2))
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Bernoulli(logits=logits))

    return model, guide, torch.tensor(0.4).logit() + (data - 0.5) / 0.25  # the posterior's logits


@pytest.mark.slow
@pytest.mark.parametrize("elbo", [MuProp(4), DoubleCV(4), REBAR(4), RELAX(4), DisARMIWAE(1)])
def test_plain_svi_trains_any_model(elbo):
    model, guide, exact = two_bits()

    def kl():
        pair = (dist.Bernoulli(logits=a) for a in (pyro.param("logits").detach(), exact))
        return dist.kl.kl_divergence(*pair).sum()

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), elbo)
    svi.step()
    learned = dict(elbo.learner.control.named_parameters()) if elbo.learner else {}
    start, far = {name: p.detach().clone() for name, p in learned.items()}, kl()
    for _ in range(80):
        svi.step()
    assert kl() < 0.05 * far
    for name, p in learned.items():
        assert pyro.get_param_store()[f"{type(elbo).__name__}.{name}"] is p
        assert not torch.equal(p, start[name])


def test_what_is_given_is_not_learned():
    model, guide, _ = two_bits()
    elbo = RELAX(temperature=0.25, eta=0.5)
    SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), elbo).step()
    assert elbo.control.eta == 0.5 and not elbo.control.eta.requires_grad
    assert elbo.control.log_temperature.exp().item() == pytest.approx(0.25)
    names = {name for name in pyro.get_param_store() if name.startswith("RELAX")}
    assert names == {f"RELAX.networks.0.{part}" for part in
                     ("0.weight", "0.bias", "2.weight", "2.bias")}  # fmt: skip


def test_a_masked_distribution_stays_masked():
    """Its log mass is its own, at bits; and half of it halfway."""
    bits = dist.Bernoulli(logits=torch.randn(2, 3)).mask(torch.tensor([True, False, True]))
    own = bits.to_event(1)
    relaxed = Relaxed(own, StraightThrough().draw)
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    for value in (zero, one, own.sample()):
        assert torch.allclose(relaxed.log_prob(value), own.log_prob(value))
    middle = (own.log_prob(zero) + own.log_prob(one)) / 2
    assert torch.allclose(relaxed.log_prob(one / 2), middle)


def test_two_of_a_kind_do_not_share_what_they_learn():
    model, guide, _ = two_bits()
    first, second = REBAR(), REBAR()
    first.loss(model, guide)
    second.loss(model, guide)  # made anew, it takes the first one's place
    second.loss(model, guide)
    with pytest.raises(ValueError, match="holds another estimator's 'REBAR"):
        first.loss(model, guide)


@pytest.mark.slow
def test_a_baseline_takes_from_muprop_what_its_expansion_leaves():
    """Far from the start the cost is not linear, and what is left has a mean that depends on x."""
    vae, x = bit_model(10)
    lines = ["MuProp", BASELINED]
    found = pv.compare_estimators(vae, x.repeat(10, 1), lines, num_draws=300, burn_in=200)
    plain, with_baseline = found.grad_variance.sel(parameter="guide").to_numpy()
    assert with_baseline < 0.9 * plain
    assert (found.bias_z.sel(parameter="guide") < 5).all()


def test_a_baseline_needs_a_plate_of_the_data():
    def model(x):
        pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))

    def guide(x):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.tensor(0.5))))

    with pytest.raises(ValueError, match="'z' does not lie in a plate of that size"):
        MuProp(baseline="neural").loss_and_grads(model, guide, torch.ones(4, 2))


@pytest.mark.parametrize("line", ["DoubleCV", "REBAR", "RELAX", BASELINED])
@pytest.mark.slow
def test_fit_trains_it_and_goes_on_bit_for_bit(line, tmp_path):
    def fresh(seed):
        return VAE(
            6, 3, prior="Bernoulli", guide="Bernoulli", encoder=MLP([8]), decoder=MLP([8]),
            seed=seed,
        )  # fmt: skip

    x = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).repeat(100, 1)
    told = {"estimator": make_estimator(line), "batch_size": 50, "lr": 5e-2, "progress": False}
    whole, parts = fresh(0), fresh(0)
    fitted = pv.fit(whole, x, epochs=12, **told)
    assert fitted.history.elbo_train.iloc[-1] > fitted.history.elbo_train.iloc[0] + 1
    pv.fit(parts, x, epochs=3, out=tmp_path / "run", **told)
    again = fresh(9)
    pv.fit(again, x, epochs=12, resume=tmp_path / "run", **told)
    for p, q in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
