"""No public function that takes a seed, and nothing that only reads, moves a global generator."""

import inspect
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv

pytestmark = pytest.mark.usefixtures("short_pilot")

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
BITS = X.gt(0).float()
HOLES = torch.where(X > 1, float("nan"), X)
LABELS = torch.arange(60) % 2
FRAME = pd.DataFrame(X.numpy(), columns=[*"abcd"])
NETS = {"encoder": "MLP([4])", "decoder": "MLP([4])", "seed": 0}
FEW = {"seed": 0, "num_samples": 60}


COUNTS = torch.poisson(torch.full((60, 4), 3.0), torch.Generator().manual_seed(1))
VISITS = pd.DataFrame({"who": np.arange(60) // 4, "time": np.arange(60.0) % 4, "y": X[:, 0]})


@cache
def model(kind="normal"):
    if kind == "counts":
        return pv.VAE(4, 2, likelihood="Multinomial", offset="library", **NETS)
    if kind == "visits":
        table = pv.Table.from_frame(VISITS, likelihood={"y": "Normal(scale=learned)"})
        return pv.VAE(table, 1, prior="LinearMixed('time + (1 | who)')", **NETS)
    if kind == "M2":
        return pv.M2(4, 2, 2, likelihood="Normal", merge="MLP([3])", **NETS)
    if kind == "bits":
        return pv.VAE(4, 2, **NETS)
    return pv.VAE(4, 2, likelihood="Normal", missing=True, **NETS)


def trained(folder):
    np.save(folder / "x.npy", X.numpy())
    vae = pv.VAE(4, 2, likelihood="Normal", **NETS)
    pv.fit(vae, X, epochs=1, out=folder / "run", progress=False)
    return folder / "run"


def report(folder):
    run, x = trained(folder), X
    return lambda: pv.write_report(run, data=x, num_samples=10, steps=2)


def two_runs(folder):
    for name in "ab":
        (folder / name).mkdir()
    runs = [trained(folder / name) for name in "ab"]
    return lambda: pv.compare_runs(runs, data=X, **FEW)


# From a temporary folder to the call, whose preparations may draw.
SEEDED = {
    "VAE.__init__": lambda f: lambda: pv.VAE(4, 2, **NETS),
    "M2.__init__": lambda f: lambda: pv.M2(4, 2, 2, **NETS),
    "VAE.sample": lambda f: lambda: model().sample(3, seed=0),
    "VAE.impute": lambda f: lambda: model().impute(HOLES[:5], sweeps=1, **FEW),
    "VAE.imputations": lambda f: lambda: model().imputations(HOLES[:5], sweeps=1, **FEW),
    "VAE.refine": lambda f: lambda: model().refine(X[:3], steps=1, seed=0),
    "sumo": lambda f: lambda: pv.sumo(model(), X[:3], seed=0),
    "Table.split": lambda f: lambda: pv.Table.from_frame(FRAME).split(0.5, seed=0),
    "ais": lambda f: lambda: pv.ais(model(), X[:3], temperatures=2, chains=2, leapfrog=1, seed=0),
    "ampute": lambda f: lambda: pv.ampute(FRAME, "MAR", seed=0),
    "assess": lambda f: lambda: pv.assess(model(), X, steps=2, **FEW),
    "bdmc": lambda f: lambda: pv.bdmc(model(), num_data=2, temperatures=2, chains=2, seed=0),
    "calibration": lambda f: lambda: pv.calibration(model(), num_data=40, num_samples=9, seed=0),
    "compare_estimators": lambda f: (
        lambda: pv.compare_estimators(model(), X, ["Trace_ELBO"], num_draws=34, burn_in=1, seed=0)
    ),
    "compare_runs": two_runs,
    "compress": lambda f: lambda: pv.compress(model("bits"), BITS[:9], seed=0),
    "elbo": lambda f: lambda: pv.elbo(model(), X, seed=0),
    "elbo_draws": lambda f: lambda: pv.elbo_draws(model(), X, num_draws=4, seed=0),
    "factor_scores": lambda f: lambda: pv.factor_scores(model(), X, LABELS[:, None], seed=0),
    "fidelity": lambda f: lambda: pv.fidelity(FRAME[:20], FRAME[20:40], FRAME[40:], seed=0),
    "fit": lambda f: lambda: pv.fit(model(), X, epochs=1, progress=False, validation=0.2),
    "gaps": lambda f: lambda: pv.gaps(model(), X[:2], steps=1, num_samples=4, seed=0),
    "label_scores": lambda f: (
        lambda: pv.label_scores(model(), X, LABELS, neighbors=2, folds=2, seed=0)
    ),
    "latent_summary": lambda f: lambda: pv.latent_summary(model(), X, seed=0),
    "load_data": lambda f: lambda: pv.load_data("digits"),
    "log_evidence": lambda f: lambda: pv.log_evidence(model(), X, num_simulated=5, wide=0.2, **FEW),
    "outlier_scores": lambda f: lambda: pv.outlier_scores(model(), X, X, **FEW),
    "posterior": lambda f: (
        lambda: pv.posterior(model(), X[:1], method="metropolis", num_samples=8, warmup=4, seed=0)
    ),
    "predictive_check": lambda f: lambda: pv.predictive_check(model(), X, num_samples=20, seed=0),
    "rate_distortion": lambda f: lambda: pv.rate_distortion(model(), X, **FEW),
    "to_arviz": lambda f: lambda: pv.to_arviz(model(), X, num_samples=4, seed=0),
    "train_estimators": lambda f: (
        lambda: pv.train_estimators(model(), X, ["Trace_ELBO"], epochs=1, seed=0)
    ),
    "write_report": report,
    "compare": lambda f: lambda: pv.compare([model(), model()], X, **FEW),
    "fit_prior": lambda f: lambda: pv.fit_prior(model(), X, "Normal(loc=learned)", epochs=1),
    "imputation_check": lambda f: lambda: pv.imputation_check(model(), X, draws=19, **FEW),
    "recommend_estimator": lambda f: (
        lambda: pv.recommend_estimator(
            model(), X, ["Trace_ELBO", "DReG"], seconds=1e-3, batch_size=30
        )
    ),
    "VAE.counterfactual": lambda f: lambda: None,  # of a table with causes, tested there
}
SEEDED |= {
    "VAE.forecast": lambda f: lambda: model("visits").forecast(VISITS, [5.0], **FEW),
    "Counts.split": lambda f: lambda: pv.Counts(COUNTS).split(0.5, seed=0),
    "coloured_shapes": lambda f: lambda: pv.coloured_shapes(3, seed=0),
    "rates": lambda f: lambda: pv.rates(model("counts"), COUNTS, **FEW),
    "perplexity": lambda f: lambda: pv.perplexity(model("counts"), COUNTS, **FEW),
    "differential_expression": lambda f: (
        lambda: pv.differential_expression(
            model("counts"), COUNTS, range(30), range(30, 60), draws=9, seed=0
        )
    ),
}
# Those that a subclass has from VAE, what is no random act, and what trains whole runs.
OTHERS = {"Compressed.__init__", "paired_differences"}


def reading(folder):
    run = trained(folder)
    vae = model()
    steps = pv.VAE(4, 2, likelihood="Normal", guide="SemiAmortized(Normal, steps=1)", **NETS)
    return {
        "encode by steps": lambda: steps.encode(X),
        "interpolate by steps": lambda: steps.interpolate(X[:1], X[1:2], steps=3),
        "load": lambda: pv.load(run),
        "describe": lambda: pv.describe("StudentT"),
        "families": pv.families,
        "citation": lambda: pv.citation(vae, "DReG"),
        "encode": lambda: vae.encode(X),
        "reconstruct": lambda: vae.reconstruct(X),
        "check": lambda: vae.check(X),
        "save": lambda: vae.save(folder / "saved"),
        "latent_space": lambda: pv.plots.latent_space(vae, X),
        "samples": lambda: pv.plots.predictive_check(vae, X, num_replicates=3),
        "Table": lambda: pv.Table.from_frame(FRAME),
        "VAE of a table": lambda: pv.VAE(pv.Table.from_frame(FRAME), 2, **NETS),
    }


def states():
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), (kind, keys.tolist(), *rest)


def with_a_seed():
    """The public names whose signature has a seed, a class's methods where it defines them."""
    names = set()
    for name in pv.__all__:
        value = getattr(pv, name)
        if inspect.isclass(value):
            ours = [cls for cls in value.__mro__ if cls.__module__.startswith("pyro_vae")]
            members = [(f"{name}.{m}", f) for cls in ours for m, f in vars(cls).items()]
            members = [(m, f) for m, f in members if "__init__" in m or "._" not in m]
        else:
            members = [(name, value)]
        for place, function in members:
            if inspect.isfunction(function) and "seed" in inspect.signature(function).parameters:
                names.add(place)
    own = {f"M2.{name}" for name in vars(pv.M2)}  # the others are VAE's
    return {name for name in names if not name.startswith("M2.") or name in own}


def test_every_public_function_with_a_seed_is_walked():
    assert with_a_seed() - OTHERS == SEEDED.keys()


SLOW = {
    "write_report",
    "bdmc",
    "compare_estimators",
    "recommend_estimator",
    "assess",
    "compare_runs",
    "fidelity",
    "ais",
    "factor_scores",
    "VAE.forecast",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in SEEDED]
)
def test_a_seed_leaves_the_global_generators(name, tmp_path):
    act = SEEDED[name](tmp_path)
    before = states()
    act()
    assert states() == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_reads_leaves_the_global_generators(tmp_path):
    moved = []
    for name, act in reading(tmp_path).items():
        before = states()
        act()
        if states() != before:
            moved.append(name)
    assert not moved
    pv.plots.samples(model())


def test_without_a_seed_the_global_generator_moves():
    """So that the walk sees something."""
    before = states()
    pv.elbo(model(), X)
    assert states() != before


def test_a_guide_of_steps_gives_the_same_whatever_was_drawn_before():
    vae = pv.VAE(4, 2, likelihood="Normal", guide="SemiAmortized(Normal, steps=1)", **NETS)
    first = vae.encode(X).mean
    torch.rand(3)
    assert torch.equal(vae.encode(X).mean, first)


def test_a_flow_is_shown_without_draws():
    vae = pv.VAE(4, 2, prior="Flow(NSF, transforms=1)", likelihood="Normal", seed=0)
    before = torch.get_rng_state()
    assert "Flow" in repr(vae) and torch.equal(torch.get_rng_state(), before)
