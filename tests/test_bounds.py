"""Bounds beyond the ELBO and IWAE against exact ones: quadrature, or all states."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, ReweightedWakeSleep

import pyro_vae as pv
from helpers.bounds import exact, grid, part
from helpers.gradients import MANY, bit_model, copied, draws, gradient_of, right, z_scores
from pyro_vae import MLP, VAE, make_estimator
from pyro_vae.core import slight
from pyro_vae.infer import CUBO, RWS, TVO, VIMCO, DReG, Estimator, GDReG
from pyro_vae.infer.estimators.bounds import Bound, Chi, Convex, Renyi, Thermodynamic
from pyro_vae.infer.estimators.soundness import check_and_nest

BOUNDS = [
    Convex(5, 0.0), Convex(5, 0.3),
    Bound(), Renyi(5, 0.0), Renyi(5, 0.5), Renyi(5, 2.0), Chi(5, -1.0), Chi(5, -2.0),
    Thermodynamic(5, (0.0,)), Thermodynamic(5, (0.0, 0.01, 0.1)), Thermodynamic(5, (0.0, 0.5)),
]  # fmt: skip


# A bound is a function of the log weights.


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
def test_slopes_are_the_derivatives_of_the_estimate(bound):
    log_w = 3 * torch.randn(5, generator=torch.Generator().manual_seed(0)).double()
    model, path = bound.slopes(log_w[:, None])
    first = torch.autograd.functional.jacobian(bound, log_w)
    second = torch.autograd.functional.hessian(bound, log_w).diagonal()
    assert torch.allclose(model[:, 0], first)
    assert torch.allclose(path[:, 0], first - second)


@pytest.mark.parametrize("betas", [(0.0,), (0.0, 0.01, 0.1), (0.0, 0.2, 0.4, 0.9), (0.0, 1e-6)])
def test_bounds_are_ordered_in_every_draw(betas):
    """ELBO <= TVO <= IWAE <= CUBO, and one more point raises the TVO."""
    log_w = 4 * torch.randn(7, 1000, generator=torch.Generator().manual_seed(1)).double()
    finer = tuple(sorted({*betas, 0.15}))
    chain = [
        Bound(), Thermodynamic(7, betas), Thermodynamic(7, finer), Renyi(7, 0.0), Chi(7, -0.5),
        Chi(7, -1.0),
    ]  # fmt: skip
    values = torch.stack([bound(log_w) for bound in chain])
    assert (values.diff(dim=0) > -1e-12).all()
    assert values.diff(dim=0)[1:].mean() > 0.1


WEIGHTED = [
    "RenyiELBO(num_particles=30)", "RenyiELBO(alpha=-0.5, num_particles=30)",
    "DReG(num_particles=30)", "GDReG(num_particles=30)", "RWS(num_particles=30)",
    "CUBO(num_particles=30)", "VIMCO(num_particles=30)",
]  # fmt: skip


@pytest.mark.parametrize("line", WEIGHTED)
def test_no_slope_is_too_slight_to_count(line, monkeypatch):
    """Subnormal numbers take processors many times as long; without them nothing else moves."""
    slopes = []

    class Watched(torch.nn.Linear):
        def forward(self, z):
            out = super().forward(z)
            if out.requires_grad:
                out.register_hook(slopes.append)
            return out

    vae = VAE(4, 2, likelihood="Normal(scale=0.05)", decoder=Watched(2, 5), encoder=[], seed=0)
    x, found = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), []
    for least in (slight.SLIGHT, 0.0):
        monkeypatch.setattr(slight, "SLIGHT", least)
        slopes.clear()
        torch.manual_seed(0)
        loss = make_estimator(line).elbo.loss_and_grads
        vae.zero_grad()
        loss(vae.model, vae.guide, x)
        found.append(torch.cat([p.grad.flatten() for p in vae.parameters()]))
        sizes = torch.cat([slope.abs().flatten() for slope in slopes])
        assert (sizes[sizes > 0].min() > 1e-30) == (least > 0)
    assert torch.equal(*found)


# Exact expectations: pairs of particles on a grid for one normal z, or of all states of bits.


@pytest.fixture
def bits():
    """Four bits."""
    return bit_model(4)


def agrees(gradients, vae, value, which):
    wanted, mask = part(vae, value, which)
    assert z_scores(gradients[:, mask], wanted).abs().max() < 5
    assert (wanted != 0).sum() > 0.8 * len(wanted)


@pytest.mark.parametrize("n", [1, 4, 10])
@pytest.mark.slow
def test_vimco_is_unbiased_for_bits_at_many_draws(n):
    vae, x = bit_model(n)
    found = draws("VIMCO(num_particles=2)", vae, x, copies=MANY)
    right(*found, exact(vae, x, Renyi(2, 0.0)), vae)


# The thermodynamic bound.


@pytest.mark.slow
@pytest.mark.parametrize("model, rule", [("bits", "score"), ("small", "score"), ("small", None)])
def test_one_partition_is_the_elbo(model, rule, request):
    vae, x = request.getfixturevalue(model)
    estimator = Estimator(TVO(3, partitions=1), rule)
    assert estimator.bound == Bound()
    right(*draws(estimator, vae, x), exact(vae, x, Bound()), vae)
    if rule is None:
        found = []
        for line in (estimator, "Trace_ELBO(gradient=stl, num_particles=3)"):
            pyro.set_rng_seed(3)
            found.append(draws(line, vae, x, batches=3, copies=2)[0])
        assert torch.allclose(*found, rtol=1e-9, atol=1e-12)


def limit(vae, x, betas):
    """The TVO with exact expectations."""
    (_, log_w, _, mass), total = grid(vae, x), 0.0
    for beta, after in itertools.pairwise([*betas, 1.0]):
        log_pi = mass.log() + beta * log_w
        total = total + (after - beta) * (log_pi.softmax(0) * log_w).sum()
    return total


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bits", "small"])
def test_the_covariance_gradient_is_right_in_the_limit(model, request):
    vae, x = request.getfixturevalue(model)
    line = "TVO(num_particles={}, partitions=[0.1, 0.5], gradient=score)"
    wanted = limit(vae, x, (0.0, 0.1, 0.5))
    found, values = draws(line.format(1000), vae, x, copies=10, batches=40)
    assert z_scores(found, gradient_of(wanted, vae)).abs().max() < 5
    assert z_scores(values[:, None], wanted.detach()).abs().max() < 5
    few, _ = draws(line.format(2), vae, x, copies=640)
    two = gradient_of(exact(vae, x, make_estimator(line.format(2)).bound), vae)
    assert z_scores(few, two).abs().max() > 10  # with two particles it is seen to be biased


# Reweighted wake-sleep.


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bits", "small"])
def test_wake_is_of_iwae_in_the_model_and_of_the_inclusive_kl_in_the_guide(model, request):
    vae, x = request.getfixturevalue(model)
    found, values = draws("RWS(num_particles=2)", vae, x)
    bound = exact(vae, x, Renyi(2, 0.0))
    agrees(found, vae, bound, "model")
    assert z_scores(values[:, None], bound.detach()).abs().max() < 5
    with torch.no_grad():
        z, log_w, _, mass = grid(vae, x)
        posterior = (mass.log() + log_w).softmax(0)
    inclusive = (posterior * vae.approximate_posterior(x).log_prob(z)).sum()
    many, _ = draws("RWS(num_particles=1000)", vae, x, copies=10, batches=40)
    agrees(many, vae, inclusive, "guide")
    wanted, mask = part(vae, inclusive, "guide")
    assert z_scores(found[:, mask], wanted).abs().max() > 10  # with two it is seen to be biased


@pytest.mark.slow
def test_sleep_is_of_the_inclusive_kl_at_data_of_the_model(bits):
    vae, x = bits
    found, values = draws("RWS(num_particles=2, sleep=1.0)", vae, x)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
    dreams = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6))).double()
    log_p = vae.prior().log_prob(states) + vae.decode(states).log_prob(dreams[:, None])
    log_q = vae.approximate_posterior(dreams).log_prob(states[:, None])
    agrees(found, vae, len(x) * (log_p.exp().detach() * log_q.T).sum(), "guide")
    agrees(found, vae, exact(vae, x, Renyi(2, 0.0)), "model")
    assert z_scores(values[:, None], exact(vae, x, Renyi(2, 0.0)).detach()).abs().max() < 5


def test_the_shares_of_wake_and_sleep_add_up(bits):
    vae, x = bits
    found = {}
    for share in (0.0, 0.25, 1.0):
        pyro.set_rng_seed(5)
        vae.zero_grad()
        RWS(5, sleep=share, max_plate_nesting=2).loss_and_grads(vae.model, vae.guide, x)
        found[share] = torch.cat([p.grad.flatten() for p in vae.parameters()])
    assert torch.allclose(found[0.25], 0.75 * found[0.0] + 0.25 * found[1.0])


def test_sleep_needs_the_data_as_an_argument():
    data = torch.tensor([0.5, 1.5])

    def model():
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=data)

    def guide():
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))

    RWS(2).loss_and_grads(model, guide)
    with pytest.raises(ValueError, match="no argument is: hand the data over unchanged, or sleep"):
        RWS(2, sleep=0.5).loss_and_grads(model, guide)


# The chi upper bound.


@pytest.mark.slow
@pytest.mark.parametrize("n", [2.0, 1.5])
@pytest.mark.parametrize("model, rule", [("bits", "score"), ("small", "score"), ("small", None)])
def test_the_guide_descends_the_chi_bound(model, rule, n, request):
    vae, x = request.getfixturevalue(model)
    _, log_w, _, mass = grid(vae, x)
    most = log_w.amax(0).detach()
    power = -(mass * (n * (log_w - most)).exp()).sum() / n

    class Constant(CUBO):
        """Divided by one weight for all draws, not by the largest of each, it is unbiased."""

        def _reference(self, log_w):
            return most.repeat(log_w.shape[-1] // len(most))

    found, values = draws(Estimator(Constant(2, n=n), rule), vae, x)
    agrees(found, vae, power, "guide")
    agrees(found, vae, exact(vae, x, Renyi(2, 0.0)), "model")
    bound = exact(vae, x, Chi(2, 1 - n))
    assert z_scores(values[:, None], bound.detach()).abs().max() < 5


def test_the_guide_descends_in_units_of_the_largest_weight():
    log_w = torch.tensor([[0.5], [-1.0], [2.0]]).double()
    _, path, score = CUBO(3, n=2)._weights(log_w)
    v = (2 * (log_w - 2)).exp() / 3
    assert torch.allclose(path, v)
    assert torch.allclose(score, v / 2)
    assert all(w.isfinite().all() for w in CUBO(3)._weights(1000 * log_w))


# Order, on a model whose evidence is known.


@pytest.fixture
def linear():
    """A linear Gaussian model, its data, and log p(x) summed over them."""
    vae = VAE(
        3, 2, likelihood="Normal(scale=learned(0.8))", guide="Normal(scale=learned(0.6))",
        encoder=MLP([]), decoder=MLP([]), seed=4,
    ).double()  # fmt: skip
    head, x = vae.likelihood.sources["loc"].head, torch.randn(3, 3).double()
    w = head.weight.detach()
    cov = w @ w.T + 0.8**2 * torch.eye(3).double()
    return vae, x, dist.MultivariateNormal(head.bias.detach(), cov).log_prob(x).sum()


@pytest.mark.slow
def test_bounds_enclose_the_evidence(linear):
    vae, x, evidence = linear
    lines = ["Trace_ELBO(num_particles=20)", "TVO(num_particles=20)", "DReG(num_particles=20)"]
    means = []
    for line in lines:
        _, values = draws(line, vae, x)
        means.append(values.mean())
    assert means == sorted(means)
    assert means[-1] < evidence + 5 * values.std() / len(values) ** 0.5
    _, values = draws("CUBO(num_particles=2000, n=1.5)", vae, x, batches=40, copies=2)
    assert values.mean() > evidence + 5 * values.std() / 40**0.5
    _, few = draws("CUBO(num_particles=2, n=1.5)", vae, x)
    assert few.mean() < evidence  # the logarithm of a mean of few is biased low


# The prior's parameters, doubly reparameterized.


PRIORS = {
    "Normal(loc=learned(0.2), scale=learned(1.2))": True,
    "Laplace(loc=learned(0.2), scale=learned)": True,
    "MultivariateNormal(loc=learned, scale_tril=learned)": True,
    "LogNormal(loc=learned, scale=learned)": True,
    "StudentT(df=5, scale=learned)": True,
    "Gamma(concentration=learned(1.5))": False,
}


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_is_reparameterized_where_its_draws_can_be_inverted(prior):
    family = prior.split("(")[0]
    guide = family if family in ("LogNormal", "Gamma") else "Normal"
    vae = VAE(
        3, 2, prior=prior, guide=guide, likelihood="Normal", encoder=MLP([8]), decoder=MLP([8]),
        seed=1,
    ).double()  # fmt: skip
    x = torch.randn(2, 3).double()
    if not PRIORS[prior]:
        with pytest.raises(ValueError, match=r"which Gamma at site .z. of the model has not: use"):
            draws("GDReG(num_particles=2)", vae, x, batches=1, copies=1)
        return
    pyro.set_rng_seed(0)
    ours, _ = draws("GDReG(num_particles=3)", vae, x)
    theirs, _ = draws("DReG(num_particles=3)", vae, x)
    error = ((ours.var(0) + theirs.var(0)) / len(ours)).sqrt()
    z = (ours.mean(0) - theirs.mean(0)) / error.clamp(min=1e-12)
    assert z.abs().max() < 5
    learned = torch.cat([
        torch.full((p.numel(),), n.startswith("prior")) for n, p in vae.named_parameters()
    ])  # fmt: skip
    assert ((ours != 0) == (theirs != 0))[:, learned].all()
    assert not torch.allclose(ours[:, learned].var(0), theirs[:, learned].var(0), rtol=0.01)
    # the rest is DReG's
    pyro.set_rng_seed(1)
    a = draws("GDReG(num_particles=3)", vae, x, batches=2, copies=1)[0]
    pyro.set_rng_seed(1)
    b = draws("DReG(num_particles=3)", vae, x, batches=2, copies=1)[0]
    assert torch.allclose(a[:, ~learned], b[:, ~learned])


@pytest.mark.slow
def test_a_hierarchical_prior_is_reparameterized_too():
    """p(z1) p(z2 | z1) p(x | z2), all learned: the means are DReG's, per copy of the parameters."""
    n, x = 50_000, torch.tensor(0.7).double()
    start = torch.tensor([0.2, 0.1, 0.8, -0.3, 0.2]).double()

    def model():
        t = pyro.param("t", lambda: start.repeat(n, 1))
        with pyro.plate("copies", n):
            first = pyro.sample("z1", dist.Normal(t[:, 0], t[:, 1].exp()))
            second = pyro.sample("z2", dist.Normal(t[:, 2] * first, (t[:, 3] + 0.1 * first).exp()))
            pyro.sample("x", dist.Normal(second + t[:, 4], 1.0), obs=x.expand(n))

    def guide():
        p = pyro.param("p", lambda: torch.tensor([0.3, -0.2, 0.4]).double().repeat(n, 1))
        with pyro.plate("copies", n):
            first = pyro.sample("z1", dist.Normal(p[:, 0], p[:, 1].exp()))
            pyro.sample("z2", dist.Normal(p[:, 2] * first + 0.2, 0.9))

    for name in ("t", "p"):
        single = copied(DReG(3, max_plate_nesting=1), model, guide, name)
        double = copied(GDReG(3, max_plate_nesting=1), model, guide, name)
        error = ((single.var(0) + double.var(0)) / n).sqrt()
        assert ((single.mean(0) - double.mean(0)) / error).abs().max() < 5
        assert (double.mean(0).abs() / (double.var(0) / n).sqrt() > 20).any()


@pytest.mark.slow
@pytest.mark.parametrize("scale, lower", [(3.0, True), (0.3, False)])
def test_when_the_prior_pays_for_its_second_reparameterization(scale, lower):
    """Where the likelihood tells little of z it lowers the variance; where much, it raises it."""
    vae = VAE(
        3, 1, prior="Normal(loc=learned(0.2), scale=learned(1.0))",
        likelihood=f"Normal(scale={scale})", guide="Normal(scale=0.7)",
        encoder=MLP([]), decoder=MLP([]), seed=6,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in (*vae.encoder.parameters(), *vae.approximation.parameters()):
            p.mul_(0.1)
    x, spread = torch.randn(50, 3).double(), {}
    for name in ("DReG", "GDReG"):
        found, _ = draws(f"{name}(num_particles=10)", vae, x, copies=1, batches=40)
        mine = [n.startswith("prior") for n, _ in vae.named_parameters() if n]
        sizes = [p.numel() for p in vae.parameters()]
        spread[name] = sum(
            v.var(0).sum() for v, m in zip(found.split(sizes, 1), mine, strict=True) if m
        )
    ratio = spread["GDReG"] / spread["DReG"]
    assert ratio < 0.6 if lower else ratio > 2


# Minibatches.


class Subsampled:
    """Bits or normals for 6 data, ``n`` copies of the parameters; ``rows`` of the data are seen."""

    x = torch.tensor([0.5, -0.3, 1.4, 0.9, -1.2, 0.1]).double()

    def __init__(self, n, discrete):
        self.n, self.discrete, self.rows = n, discrete, None

    def plates(self):
        size = {} if self.rows is None else {"subsample": self.rows}
        return pyro.plate("copies", self.n, dim=-2), pyro.plate("data", 6, dim=-1, **size)

    def q(self, loc):
        return dist.Bernoulli(logits=loc) if self.discrete else dist.Normal(loc, 0.8)

    def model(self, x):
        t = pyro.param("t", lambda: torch.tensor([[0.3, 0.8]]).double().repeat(self.n, 1))
        copies, data = self.plates()
        with copies, data as rows:
            z = pyro.sample("z", self.q(t[:, :1].expand(self.n, len(rows))))
            seen = x.expand(self.n, -1)[:, rows]
            pyro.sample("x", dist.Normal(t[:, 1:] * z, 1.0), obs=seen)

    def guide(self, x):
        p = pyro.param("p", lambda: torch.tensor([[0.4, 0.1]]).double().repeat(self.n, 1))
        copies, data = self.plates()
        with copies, data as rows:
            pyro.sample("z", self.q(p[:, :1] * x[rows] + p[:, 1:]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "elbo, discrete",
    [*itertools.product([TVO, RWS, CUBO, VIMCO], [False, True]), (DReG, False), (GDReG, False)],
)
def test_minibatches_have_the_gradient_of_all_data_in_the_mean(elbo, discrete):
    case, bound = Subsampled(4000, discrete), elbo(3, max_plate_nesting=2)
    for name in ("t", "p"):
        found = []
        for rows in (None, [0, 1], [2, 3], [4, 5]):
            case.rows = None if rows is None else torch.tensor(rows)
            with pyro.get_param_store().scope():
                bound.loss_and_grads(case.model, case.guide, case.x)
                found.append(-pyro.param(name).grad)
        parts = torch.stack(found[1:])
        error = ((found[0].var(0) + parts.var(1).sum(0) / 9) / case.n).sqrt()
        assert ((found[0].mean(0) - parts.mean((0, 1))) / error).abs().max() < 5
        assert (parts.mean((0, 1)).abs() / error).max() > 5


@pytest.mark.slow
def test_pyros_wake_sleep_does_not_subsample():
    """It weighs all data together, and a minibatch's scale is a power of the weights."""
    case, found = Subsampled(1, True), {}
    for elbo in (ReweightedWakeSleep(500, max_plate_nesting=2), RWS(500, max_plate_nesting=2)):
        losses = []
        for rows in (None, [0, 1], [2, 3], [4, 5]):
            case.rows = None if rows is None else torch.tensor(rows)
            with pyro.get_param_store().scope():
                drawn = [elbo.loss(case.model, case.guide, case.x) for _ in range(50)]
            losses.append(torch.tensor([d if isinstance(d, float) else d[0] for d in drawn]))
        whole, parts = losses[0].double(), torch.stack(losses[1:]).mean(0).double()
        error = ((whole.var() + parts.var()) / 50).sqrt()
        found[type(elbo)] = abs((whole.mean() - parts.mean()) / error)
    assert found[RWS] < 5 < 20 < found[ReweightedWakeSleep]


@pytest.mark.slow
@pytest.mark.parametrize(
    "elbo",
    [TVO(10), RWS(10), RWS(10, sleep=0.3), CUBO(10), GDReG(10)],
    ids=lambda e: type(e).__name__,
)
def test_a_posterior_by_plain_svi(elbo):
    """On a model that is no VAE: one normal latent for all data, whose posterior is normal."""
    data = torch.tensor([0.5, 1.5, 1.0])

    def model(data):
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=data)

    def guide(data):
        weight = pyro.param("weight", torch.tensor(0.3))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("mu", dist.Normal(weight * data.sum(), scale))

    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.985}), elbo)
    for _ in range(200):
        svi.step(data)
    assert pyro.param("weight").item() == pytest.approx(1 / 3.25, abs=0.03)
    assert pyro.param("scale").item() == pytest.approx(3.25**-0.5, abs=0.05)


# In the table.


LINES = ["TVO", "TVO(gradient=score)", "RWS", "RWS(sleep=0.5)", "CUBO", "CUBO(gradient=score)"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, family", [*itertools.product(LINES, ["Normal", "Bernoulli"]), ("GDReG", "Normal")]
)
def test_it_trains(line, family):
    prior = {"Normal": "Normal(loc=learned)", "Bernoulli": "Bernoulli(logits=learned)"}[family]
    vae = VAE(6, 3, prior=prior, guide=family, encoder=MLP([8]), decoder=MLP([8]), seed=0)
    x = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).repeat(100, 1)
    fit = pv.fit(vae, x, estimator=line, epochs=12, batch_size=50, lr=5e-2, progress=False)
    assert fit.history.loss.iloc[-1] < fit.history.loss.iloc[0] - 2
    assert fit.history.loss.iloc[-1] > math.log(2) or "CUBO" in line  # a bound on its infimum


@pytest.mark.parametrize("line", ["TVO", "CUBO", "RWS", "GDReG"])
def test_a_kl_weight_is_refused(line, small):
    with pytest.raises(ValueError, match=f"beta scales inside {line}'s logsumexp"):
        pv.fit(*small, estimator=line, beta=0.5, epochs=1)


def test_gdreg_refuses_a_prior_whose_draws_cannot_be_inverted(small):
    vae, x = VAE(3, 1, prior="Mixture(Normal(loc=learned), components=2)"), torch.ones(2, 3)
    with pytest.raises(ValueError, match="cannot serve this guide: it inverts draws of location"):
        check_and_nest(make_estimator("GDReG"), vae.model, vae.guide, x)


@pytest.mark.parametrize("prior", ["Normal", "Normal(loc=learned)"])
def test_gdreg_takes_a_guide_without_density(prior):
    vae, x = VAE(3, 1, prior=prior, guide="Delta", seed=0), torch.ones(2, 3)
    for line in ("GDReG", "DReG"):
        vae.zero_grad()
        make_estimator(line).elbo.loss_and_grads(vae.model, vae.guide, x)
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vae.parameters())


def test_sites_of_both_kinds_are_refused_unless_all_are_scored():
    def model():
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Bernoulli(0.5))

    def guide():
        p = pyro.param("p", torch.tensor(0.3))
        pyro.sample("a", dist.Normal(p, 1.0))
        pyro.sample("b", dist.Bernoulli(p))

    with pytest.raises(ValueError, match="only some of this guide's are reparameterized: say grad"):
        check_and_nest(make_estimator("TVO"), model, guide)
    with pytest.raises(ValueError, match=r"which site 'b' has not: use CUBO\(gradient=score"):
        CUBO(2).loss(model, guide)
    for line in ("TVO(gradient=score)", "RWS", "CUBO(gradient=score)"):
        estimator = make_estimator(line)
        check_and_nest(estimator, model, guide)
        estimator.elbo.loss_and_grads(model, estimator.wrap(guide, torch.zeros(1, 1)))
        assert pyro.param("p").grad != 0


@pytest.mark.slow
def test_comparisons_know_whose_gradient_is_the_bounds(bits):
    vae, x = bits
    lines = ["RWS(num_particles=3)", "VIMCO(num_particles=3)", "CUBO(num_particles=3)"]
    table = pv.compare_estimators(vae, x, lines, num_draws=60)
    rws, vimco, cubo = (table.sel(estimator=line) for line in lines)
    assert rws.bound == vimco.bound == "IWAE(3)"
    assert cubo.bound == "CUBO(2, 3)"
    assert cubo.reference == "none"
    assert "VIMCO(num_particles=3)" in str(rws.reference.item())
    assert abs(rws.bias_z.sel(parameter="decoder")) < 5
    assert rws.bias_z.sel(parameter=["guide", "encoder", "all"]).isnull().all()
    assert not vimco.bias_z.sel(parameter=["guide", "decoder", "all"]).isnull().any()
    assert cubo.bias_z.isnull().all()
    with pytest.raises(ValueError, match="not of its bound in all parameters: give another"):
        pv.compare_estimators(vae, x, lines, num_draws=10, reference="RWS(num_particles=3)")


@pytest.mark.slow
@pytest.mark.parametrize("line", ["TVO(num_particles=2)", "CUBO(num_particles=2)", "RWS"])
def test_draws_are_of_its_bound(line, small):
    vae, x = small
    found = pv.elbo_draws(vae, x, line, num_draws=4000).posterior["total"].to_numpy().ravel()
    _, values = draws(line, vae, x)
    error = math.hypot(found.std() / 4000**0.5, values.std() / len(values) ** 0.5)
    assert abs(found.mean() - values.mean()) < 5 * error


def test_constant_draws_have_a_summary(bits):
    import arviz

    found = pv.elbo_draws(*bits, "TraceEnum_ELBO", num_draws=40)
    assert (arviz.summary(found, kind="stats")["sd"] == 0).all()


# Guides that cannot be served.


def test_a_flow_without_inverse_is_refused_where_log_q_is_asked_of_a_copy():
    flow = dist.transforms.planar(2)

    def model():
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    def guide():
        pyro.module("flow", flow)
        with pyro.plate("data", 4):
            base = dist.Normal(torch.zeros(4, 2), 1.0).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    fixed = "Trace_ELBO(gradient=score)", "RLOO(num_particles=2)", "RWS", "TVO(gradient=score)"
    for line in ("Trace_ELBO(gradient=stl)", "DReG", "TVO", "CUBO", "RWS(sleep=0.5)", *fixed):
        with pytest.raises(ValueError, match="TransformedDistribution at site 'z' has a transform"):
            check_and_nest(make_estimator(line), model, guide)
    for line in ("Trace_ELBO(gradient=pathwise)", "RenyiELBO"):
        estimator = make_estimator(line)
        check_and_nest(estimator, model, guide)
        loss = estimator.elbo.loss_and_grads(model, estimator.wrap(guide, torch.zeros(4, 2)))
        assert math.isfinite(loss)
        assert all(p.grad.abs().sum() > 0 for p in flow.parameters())


@pytest.mark.parametrize("line", ["ARM", "DisARM"])
def test_bits_that_depend_on_each_other_are_refused_at_once(line):
    def model():
        first = pyro.sample("first", dist.Bernoulli(0.5))
        pyro.sample("second", dist.Bernoulli(0.2 + 0.5 * first))

    def guide(chained):
        p = pyro.param("p", torch.tensor(0.3))
        first = pyro.sample("first", dist.Bernoulli(p))
        noise = torch.nn.functional.dropout(torch.ones(2), 0.5)
        pyro.sample("second", dist.Bernoulli((p + 0.1 * noise + 0.5 * first * chained).mean()))

    for _ in range(5):
        with pyro.validation_enabled(False), pytest.raises(ValueError, match="'second' depend on"):
            check_and_nest(make_estimator(line), lambda _: model(), guide, True)
        check_and_nest(make_estimator(line), lambda _: model(), guide, False)
