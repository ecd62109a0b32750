"""Any Pyro model and guide, evaluated as a VAE is: against exact answers, and against the VAE."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import nn
from torch.distributions import constraints, kl_divergence
from torch.utils.data import DataLoader

import pyro_vae as pv
from helpers.programs import PROGRAMS
from pyro_vae.infer.engine.capture import capture


def local(scale=1.0):
    """One latent variable for each observation, and a guide that is too wide."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(scale), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, width))

    return model, guide


@pytest.fixture(autouse=True)
def _store():
    with pyro.get_param_store().scope():
        yield


X = torch.tensor([0.3, -1.2, 2.0, 0.0, 0.7])
EXACT = dist.Normal(0.0, math.sqrt(2)).log_prob(X).double()


def z_scores(found, exact):
    return (found.log_evidence - exact) / found.standard_error.clamp_min(1e-5)


def test_log_evidence_of_a_conjugate_normal_is_exact():
    found = pv.log_evidence(pv.Program(*local(), X), num_samples=5000, seed=0)
    assert z_scores(found, EXACT).abs().max() < 4
    assert found.simulated.gap < 0.01
    assert (found.khat < 0.7).all()


def test_the_elbo_is_log_evidence_minus_a_known_kl():
    kl = kl_divergence(dist.Normal(0.0, 1.0), dist.Normal(0.0, math.sqrt(0.5)))
    found = pv.elbo(pv.Program(*local(), X), num_samples=20_000, seed=0)
    # log w = -(z - x / 2)^2 / 2 + constants: its variance is 1 / 2
    assert ((found - (EXACT - kl)).abs() / math.sqrt(0.5 / 20_000)).max() < 4


def test_draws_of_the_elbo_and_of_a_tighter_bound():
    program = pv.Program(*local(), X)
    one = pv.elbo_draws(program, num_draws=400, seed=0).posterior["elbo"]
    many = pv.elbo_draws(program, "RenyiELBO(alpha=0, num_particles=20)", num_draws=400)
    assert one.shape == (4, 100, 5)
    bound = torch.tensor(many.posterior["elbo"].mean(("chain", "draw")).to_numpy())
    assert (bound > torch.tensor(one.mean(("chain", "draw")).to_numpy())).all()
    assert (EXACT - bound).abs().max() < 0.1


@pytest.mark.parametrize("name", ["Bayesian regression", "hierarchical, subsampled", "AutoNormal"])
def test_log_evidence_of_global_and_subsampled_programs(name):
    program, exact = PROGRAMS[name]()
    found = pv.log_evidence(program, num_samples=4000, seed=0)
    assert found.log_evidence.shape == exact.shape
    assert z_scores(found, exact.double()).abs().max() < 4
    assert found.standard_error.max() < 0.1


@pytest.mark.parametrize("name", ["Gaussian mixture", "hidden Markov"])
def test_sites_that_the_model_enumerates_are_summed_out(name):
    program, exact = PROGRAMS[name]()
    found = pv.log_evidence(program, num_samples=4000, seed=0)
    assert z_scores(found, exact.double()).abs().max() < 4
    assert found.standard_error.max() < 0.1


@pytest.fixture(scope="module")
def factor_analysis():
    vae = pv.VAE(
        4, latent_dim=2, likelihood="Normal(scale=learned)", encoder="MLP([8])", decoder="MLP([])",
        seed=0,
    )  # fmt: skip
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    return vae.eval(), x, pv.Program(vae.model, vae.guide, x)


@pytest.mark.slow
def test_a_vae_as_a_program_has_the_figures_of_the_vae(factor_analysis):
    vae, x, program = factor_analysis
    assert {n.split(".")[0] for n in program.trainable} == {n.split(".")[0] for n in vae.trainable}
    ours, theirs = (pv.log_evidence(*of, num_samples=500, seed=0) for of in ((program,), (vae, x)))
    error = (ours.standard_error**2 + theirs.standard_error**2).sqrt()
    assert ((ours.log_evidence - theirs.log_evidence) / error).abs().max() < 4
    torch.testing.assert_close(pv.elbo(program, seed=0), pv.elbo(vae, x, seed=0))
    draws = [pv.elbo_draws(*of, num_draws=20).posterior["elbo"] for of in ((program,), (vae, x))]
    torch.testing.assert_close(*(torch.tensor(d.to_numpy()) for d in draws))


@pytest.mark.slow
def test_estimators_cost_a_program_what_they_cost_the_vae(factor_analysis):
    vae, x, program = factor_analysis
    lines, options = ["Trace_ELBO", "RLOO(num_particles=2)"], {"num_draws": 20, "burn_in": 1}
    ours = pv.compare_estimators(program, lines, **options).sel(parameter="all")
    theirs = pv.compare_estimators(vae, x, lines, **options).sel(parameter="all")
    for name in ("value_mean", "value_sd", "grad_variance", "snr", "evaluations"):
        torch.testing.assert_close(
            torch.tensor(ours[name].to_numpy()),
            torch.tensor(theirs[name].to_numpy()),
            rtol=1e-3,
            atol=1e-5,
        )
    assert (ours.bias_z < 4).all()


@pytest.mark.slow
def test_a_neural_baseline_reads_the_arguments(factor_analysis):
    line = ["TraceGraph_ELBO(gradient=score, baseline=neural)"]
    *_, program = factor_analysis
    table = pv.compare_estimators(program, line, num_draws=34, burn_in=5)
    assert table.parameter.to_numpy().tolist()[:3] == ["model", "guide", "all"]


def test_figures_are_the_same_again_and_leave_all_as_it_was():
    program = pv.Program(*local(), X)
    state = torch.get_rng_state()
    one, other = (pv.elbo(program, num_samples=3, seed=0) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(pyro.get_param_store()) == ["width"]


@pytest.mark.slow
def test_parameters_are_those_that_svi_trains():
    model, guide = local(0.2)
    program = pv.Program(model, guide, X)
    before = pv.elbo(program, num_samples=500, seed=0).mean()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(num_particles=10))
    for _ in range(30):
        svi.step(X)
    assert pv.elbo(program, num_samples=500, seed=0).mean() > before


# Batches of rows.


def test_rows_share_what_is_global():
    """The mean over all batches of one row is the whole loss, in value and gradient."""
    x = torch.randn(6)

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.5))
        pyro.sample("mu", dist.Normal(loc, 1.0))

    program = pv.Program(model, guide, x)
    assert not program.layout.whole
    assert program.layout.shared == ("mu",)
    elbo = pyro.infer.TraceMeanField_ELBO()
    losses = []
    for rows in (program.observations, *program.observations.split(1)):
        torch.manual_seed(0)
        losses.append(elbo.differentiable_loss(program.model, program.guide, rows))
    torch.testing.assert_close(losses[0], sum(losses[1:]))
    with pytest.raises(ValueError, match="they share 'mu' outside it: Program"):
        pv.log_evidence(program)


def test_rows_share_a_factor_of_the_parameters():
    """A factor outside the plate counts once in all batches together, with no z beside it."""

    def model(x):
        w = pyro.param("w", torch.tensor(2.0))
        pyro.factor("penalty", -w.square())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    program = pv.Program(model, local()[1], torch.randn(6))
    counted = []
    for rows in program.observations.split(2):
        trace = poutine.trace(program.model).get_trace(rows)
        counted.append(trace.log_prob_sum(lambda name, site: name == "penalty"))
    torch.testing.assert_close(torch.stack(counted), torch.full((3,), -4.0 / 3))


def test_a_fixed_plate_is_not_cut():
    x = torch.randn(6)

    def model(x):
        with pyro.plate("data", 6):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    program = pv.Program(model, AutoNormal(model), x)
    assert program.layout.whole
    fitted = pv.fit(program, epochs=3, lr=0.1)
    exact = dist.Normal(0.0, math.sqrt(2)).log_prob(x).mean()
    assert fitted.history.elbo_train.iloc[-1] < exact
    assert fitted.history.elbo_train.iloc[-1] > exact - 3
    assert len(pv.elbo(program, seed=0)) == 6


def test_an_argument_of_whole_numbers_keeps_its_digits():
    codes = torch.tensor([2**30 + 1, 5, 2**24 + 1])

    def model(codes):
        assert codes.dtype == torch.int64
        with pyro.plate("data", len(codes)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(codes.double(), 1.0), obs=codes.double() - 1)

    def guide(codes):
        with pyro.plate("data", len(codes)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    found = pv.log_evidence(pv.Program(model, guide, codes), num_samples=2, seed=0).log_evidence
    torch.testing.assert_close(found, dist.Normal(0.0, 1.0).log_prob(torch.ones(3)).double())


# What cannot be, with its reason.


@pytest.mark.slow
def test_dynamic_structure_falls_to_a_loop_and_says_so_once():
    def model(x):
        n = pyro.sample("n", dist.Poisson(1.0))
        total = torch.zeros(())
        for i in range(int(n)):
            total = total + pyro.sample(f"e{i}", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(total, 1.0), obs=x)

    def guide(x):
        n = pyro.sample("n", dist.Poisson(1.0))
        for i in range(int(n)):
            pyro.sample(f"e{i}", dist.Normal(0.0, 1.0))

    with pytest.warns(UserWarning, match="one by one"):
        program = pv.Program(model, guide, torch.tensor(0.5), data=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pv.log_evidence(program, num_samples=1000, seed=0)
    k = torch.arange(30.0)
    weights = dist.Poisson(1.0).log_prob(k)
    exact = (weights + dist.Normal(0.0, (1 + k).sqrt()).log_prob(torch.tensor(0.5))).logsumexp(0)
    assert z_scores(found, exact.double()).abs().max() < 4
    assert found.standard_error.max() < 0.1


def test_scales_are_of_the_objective():
    model, guide = local()
    scaled = [poutine.scale(f, scale=0.1) for f in (model, guide)]
    found = pv.log_evidence(pv.Program(*scaled, X), num_samples=5000, seed=0)
    assert z_scores(found, EXACT).abs().max() < 4


def refused(model=None, guide=None, x=X, **options):
    own = local()
    return lambda: pv.Program(model or own[0], guide or own[1], x, **options)


def guide_with(name, **infer):
    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample(name, dist.Normal(0.0, 1.0), infer=infer)
            pyro.sample("z", dist.Normal(u, 1.0))

    return guide


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (refused(data="rows"), "no plate 'rows' of observations; its plates are 'data'"),
        (refused(guide=guide_with("u", is_auxiliary=True)), "auxiliary sites 'u', so its density"),
        (refused(guide=guide_with("u")), "the guide draws 'u', which the model does not"),
        (refused(guide=lambda x: None), "does not draw 'z' of the model"),
        (refused(guide=3), "the guide is a function, got int"),
    ],
)
def test_programs_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_only_a_vae_has_is_refused_with_the_reason():
    program = pv.Program(*local(), X)
    for function in (pv.latent_summary, pv.sumo):
        with pytest.raises(ValueError, match=r"needs a pyro_vae\.VAE, which has a prior"):
            function(program)
    with pytest.raises(ValueError, match=r"pyro_vae\.Program"):
        pv.elbo(local()[0])


def test_data_of_another_kind_than_its_rows_are_refused():
    program = pv.Program(*local(), X)
    for x in (X.numpy(), X.tolist(), DataLoader(program.observations), None):
        with pytest.raises(ValueError, match="a Program carries its observations"):
            pv.elbo(program, x)


def test_a_point_has_no_evidence():
    model, _ = local()
    program = pv.Program(model, AutoDelta(model), X)
    with pytest.raises(ValueError, match="sets 'z' to a point"):
        pv.log_evidence(program)


def test_a_part_of_a_plate_has_no_evidence_of_the_whole():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 100, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(pyro.param("w_loc", torch.tensor(0.0)), 1.0))

    program = pv.Program(model, guide, X, data=None)
    with pytest.raises(ValueError, match="whose part is given"):
        pv.log_evidence(program)


# Training.


def test_an_observation_outside_of_plates_is_trained_on_without_a_warning():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(-3.0)), 0.1))

    program = pv.Program(model, guide, torch.tensor(1.0), data=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pv.fit(program, epochs=3, lr=0.1, progress=False)
    assert -3 < pyro.param("loc").item() < 0.5  # on its way to the posterior's mean


def amortized():
    torch.manual_seed(0)
    decoder, encoder = nn.Linear(1, 3), nn.Linear(3, 2)
    x = torch.randn(12, 3)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return pv.Program(model, guide, x)


def weights(program):
    return {name: value.detach().clone() for name, value in program.state_dict().items()}


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(tmp_path):
    options = {"batch_size": 5, "lr": "cosine(1e-2)", "validation": 0.25, "seed": 3}
    whole = amortized()
    pv.fit(whole, epochs=4, **options)

    class Stop(pv.callbacks.Callback):
        def after_epoch(self, row):
            return row["epoch"] == 2

    program = amortized()
    pv.fit(program, epochs=4, out=tmp_path, callbacks=[Stop()], **options)
    program.load_state_dict({k: torch.zeros_like(v) for k, v in weights(program).items()})
    fitted = pv.fit(program, epochs=4, resume=tmp_path, **options)
    assert len(fitted.history) == 4
    for name, value in weights(whole).items():
        assert torch.equal(value, program.state_dict()[name]), name
    other = amortized().load(tmp_path)
    assert all(torch.equal(v, program.state_dict()[k]) for k, v in weights(other).items())


@pytest.mark.slow
def test_the_graph_of_a_step_gives_the_eager_gradient_at_other_rows():
    program = amortized()
    first, rows = program.observations.split(6)
    elbo = Trace_ELBO(max_plate_nesting=1)
    graph = capture(elbo, program.model, program.guide, first)
    torch.manual_seed(1)
    loss, *gradients = graph.module(rows, *graph.live)
    torch.manual_seed(1)
    torch.testing.assert_close(elbo.loss_and_grads(program.model, program.guide, rows), loss.item())
    for p, gradient in zip(graph.parameters.values(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient)


@pytest.mark.slow
def test_steps_are_compiled(interpreted):
    program = amortized()
    fitted = pv.fit(program, epochs=2, batch_size=6, lr=1e-2, compile=True, seed=0)
    assert fitted.history.elbo_train.iloc[1] > fitted.history.elbo_train.iloc[0]


def test_estimators_train_from_the_same_start_and_leave_it():
    program = amortized()
    before = weights(program)
    lines = ["Trace_ELBO", "Trace_ELBO"]
    curves = pv.train_estimators(program, lines, epochs=2, batch_size=6, lr=0.1)
    assert (curves.elbo_train[0] == curves.elbo_train[1]).all()
    assert curves.elbo_train[0, 1] > curves.elbo_train[0, 0]
    assert all(torch.equal(v, program.state_dict()[k]) for k, v in before.items())


def test_arrays_of_numpy_are_taken_as_tensors():
    model, guide = local()
    x = torch.tensor([0.5, -1.0, 2.0])
    expected = pv.log_evidence(pv.Program(model, guide, x), num_samples=20, seed=0).log_evidence
    for array in (x.numpy(), x.double().numpy(), x.numpy()[::-1][::-1]):
        found = pv.log_evidence(pv.Program(model, guide, array), num_samples=20, seed=0)
        torch.testing.assert_close(found.log_evidence, expected, rtol=0, atol=0)


def test_equal_arguments_are_told_apart_when_data_are_drawn():
    """Covariates that equal the outcome stay; the outcome alone is drawn anew."""

    def model(c, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(c, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((c + x) / 2, 0.5**0.5))

    x = torch.tensor([0.5, -1.0, 2.0])
    program = pv.Program(model, guide, x, x.clone())
    assert program.why_not_simulated == "" and program.simulation.sources == {"x": [1]}
    torch.manual_seed(0)
    ((_, rows),) = program.simulate(3, None, 3)
    (covariates, drawn), _ = program.packing.unpack(rows)
    assert torch.equal(covariates, x) and not torch.equal(drawn, x)
    same = torch.ones(3)  # no row tells which of the two it is of
    assert "hold the same values" in pv.Program(model, guide, same, same).why_not_simulated


@pytest.mark.slow
def test_a_parameter_for_each_member_is_of_no_other_rows():
    """Cut into batches, the guide below would give each row another's parameter."""
    x = torch.tensor([0.3, -1.2, 2.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[: len(x)], 1.0))

    program = pv.Program(model, guide, x)
    assert program.layout.whole
    pv.fit(program, epochs=60, lr=0.1, seed=0, compile=False)
    assert (program.state_dict()["loc"] - x / 2).abs().max() < 0.3  # steps of .1, with noise
