"""Numbers that are none are refused in the wording of ``core.checks``, wherever they are given."""

import functools
import inspect
import math
import re
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

import pyro_vae as pv
from pyro_vae import infer
from pyro_vae.core import checks
from pyro_vae.families.guides import DeltaNormal, SemiAmortized

SAVED = Path(__file__).parent / "fixtures" / "saved" / "run"
X = torch.rand(12, 4, generator=torch.Generator().manual_seed(0)).round()
LABELS = torch.arange(12) % 2


@functools.cache
def bits():
    return pv.VAE(4, 2, encoder="MLP([3])", decoder="MLP([3])", seed=0)


@functools.cache
def digits():
    return pv.VAE((1, 8, 8), 2, encoder="MLP([3])", decoder="MLP([3])", seed=0)


IMAGES = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))

# What is called, and the rest of its arguments, cheap in case that a bad one goes through.
CALLS = {
    "VAE": lambda **k: pv.VAE(4, 2, encoder="MLP([3])", decoder="MLP([3])", **k),
    "M2": lambda **k: pv.M2(**{"x_shape": 4, "latent_dim": 2, "classes": 2, **k}),
    "VAE.refine": lambda **k: bits().refine(X, **{"steps": 1, "num_particles": 1, **k}),
    "VAE.impute": lambda **k: bits().impute(X, **{"num_samples": 2, "sweeps": 1, **k}),
    "VAE.sample": lambda **k: bits().sample(**k),
    "VAE.interpolate": lambda **k: bits().interpolate(X[0], X[1], **k),
    "Mixture": lambda **k: pv.Mixture("Normal", **k),
    "Resampled": lambda **k: pv.Resampled("Normal", hidden=[3], **k),
    "VampPrior": lambda **k: pv.VampPrior(**k),
    "GaussianProcess": lambda **k: pv.GaussianProcess(**k),
    "DeltaNormal": lambda **k: DeltaNormal(**k),
    "SemiAmortized": lambda **k: SemiAmortized("Normal", **k),
    "Corrupted": lambda **k: pv.Corrupted("MLP([3])", **k),
    "ais": lambda **k: pv.ais(bits(), X, **{"temperatures": 2, "chains": 2, "leapfrog": 1, **k}),
    "bdmc": lambda **k: pv.bdmc(
        bits(), **{"num_data": 2, "temperatures": 2, "chains": 2, "leapfrog": 1, **k}
    ),
    "assess": lambda **k: pv.assess(bits(), X, **{"num_samples": 2, "steps": 2, **k}),
    "calibration": lambda **k: pv.calibration(bits(), **{"num_data": 20, "num_samples": 4, **k}),
    "compare": lambda **k: pv.compare([bits(), bits()], X, **{"num_samples": 2, **k}),
    "fit_prior": lambda **k: pv.fit_prior(
        bits(), X.repeat(4, 1), "Normal(loc=learned)", **{"epochs": 1, **k}
    ),
    "recommend_estimator": lambda **k: pv.recommend_estimator(
        bits(), X.repeat(4, 1), ["Trace_ELBO"], **{"seconds": 0.1, **k}
    ),
    "compare_estimators": lambda **k: pv.compare_estimators(
        bits(), X, ["Trace_ELBO"], **{"num_draws": 4, "burn_in": 1, **k}
    ),
    "compare_runs": lambda **k: pv.compare_runs([SAVED, f"{SAVED}/."], **{"num_samples": 2, **k}),
    "compress": lambda **k: pv.compress(bits(), X, **k),
    "elbo": lambda **k: pv.elbo(bits(), X, **k),
    "elbo_draws": lambda **k: pv.elbo_draws(bits(), X, **{"num_draws": 4, **k}),
    "factor_scores": lambda **k: pv.factor_scores(bits(), X, {"a": LABELS}, **k),
    "fit": lambda **k: pv.fit(bits(), X, **{"epochs": 1, "progress": False, **k}),
    "fit with validation": lambda **k: pv.fit(
        bits(), X, **{"epochs": 1, "validation": 0.5, "progress": False, **k}
    ),
    "gaps": lambda **k: pv.gaps(bits(), X, **{"steps": 1, "num_samples": 2, **k}),
    "label_scores": lambda **k: pv.label_scores(
        bits(), X, LABELS, **{"neighbors": 2, "folds": 2, **k}
    ),
    "latent_summary": lambda **k: pv.latent_summary(bits(), X, **k),
    "load_data": lambda **k: pv.load_data("digits", **k),
    "log_evidence": lambda **k: pv.log_evidence(bits(), X, **{"num_samples": 2, **k}),
    "sumo": lambda **k: pv.sumo(bits(), X, **{"num_repeats": 2, **k}),
    "outlier_scores": lambda **k: pv.outlier_scores(bits(), X, X, **{"num_samples": 2, **k}),
    "predictive_check": lambda **k: pv.predictive_check(
        bits(), X.repeat(2, 1), **{"num_samples": 20, **k}
    ),
    "posterior": lambda **k: pv.posterior(
        bits(), X[:1], **{"num_samples": 4, "warmup": 2, "chains": 1, **k}
    ),
    "rate_distortion": lambda **k: pv.rate_distortion(bits(), X, **{"num_samples": 2, **k}),
    "paired_differences": lambda **k: pv.paired_differences(
        pd.DataFrame({"folder": [str(SAVED)] * 2, "seed": [0, 0], "lr": [1, 2]}), "lr", **k
    ),
    "sweep": lambda **k: pv.sweep([{"epoch": 1}], "nowhere", **k),
    "to_arviz": lambda **k: pv.to_arviz(bits(), X, **{"num_samples": 4, **k}),
    "train_estimators": lambda **k: pv.train_estimators(
        bits(), X, ["Trace_ELBO"], **{"epochs": 1, **k}
    ),
    "write_report": lambda **k: pv.write_report(SAVED, **{"num_samples": 2, "steps": 2, **k}),
    "plots.images": lambda **k: pv.plots.images(IMAGES, **k),
    "plots.interpolations": lambda **k: pv.plots.interpolations(
        digits(), IMAGES[0], IMAGES[1], **k
    ),
    "plots.samples": lambda **k: pv.plots.samples(digits(), **{"num_samples": 2, **k}),
    "plots.samples_by": lambda **k: pv.plots.samples_by({"a": digits()}, **{"num_samples": 2, **k}),
    "plots.traversals": lambda **k: pv.plots.traversals(digits(), IMAGES[0], **{"steps": 2, **k}),
    "plots.predictive_check": lambda **k: pv.plots.predictive_check(
        bits(), X, torch.mean, **{"num_replicates": 2, **k}
    ),
    "RunningMean": lambda **k: infer.RunningMean(**k),
    "KLWeight": lambda **k: infer.KLWeight(**k),
    "Contractive": lambda **k: infer.Contractive(**{"weight": 1.0, **k}),
    "MMD": lambda **k: infer.MMD(**{"weight": 1.0, **k}),
    "TotalCorrelation": lambda **k: infer.TotalCorrelation(**{"weight": 1.0, **k}),
    "make_optimizer": lambda **k: infer.make_optimizer("Adam", **k),
    "with_free_bits": lambda **k: infer.with_free_bits(bits().model, bits().guide, **k),
    "schedule": lambda **k: infer.schedule(**{"value": 0.1, **k}),
    **{
        name: profile.build
        for name, profile in pv.ESTIMATORS.items()
        if inspect.isclass(profile.build)
    },
}
# Whose arguments they are; of what stands in other names, the callable itself.
TARGETS = {
    "VAE": pv.VAE, "M2": pv.M2, "DeltaNormal": DeltaNormal, "SemiAmortized": SemiAmortized,
    "fit with validation": pv.fit,
    **{f"VAE.{n}": getattr(pv.VAE, n) for n in ("refine", "impute", "sample", "interpolate")},
    **{name: getattr(pv.plots, name[6:]) for name in CALLS if name.startswith("plots.")},
    **{n: p.build for n, p in pv.ESTIMATORS.items() if inspect.isclass(p.build)},
}  # fmt: skip
WHOLE, REAL, TRUTH = (1.5, True, "a", -3), ("1", True, math.nan), (1, "yes")
KINDS = {"int": WHOLE, "float": REAL, "bool": TRUTH}
ELSEWHERE = {  # neither whole, nor a plain number, by their annotation
    "fit": {"epochs": WHOLE, "validation": (1, 0.0, 1.0, True, "a"), "free_bits": (*REAL, -1.0)},
    "M2": {"latent_dim": WHOLE, "classes": (*WHOLE, 1), "alpha": (*REAL, -1.0)},
    "compare_estimators": {"compile": ("yes",)},
    "TVO": {"partitions": (1.5, True, "a", 0)},
    "train_estimators": {"validation": (1, 0.0, "a")},
}
PYRO = {"max_plate_nesting", "vectorize_particles"}  # an ELBO's own, as Pyro has them


def annotated(name):
    """The arguments of a callable that are numbers or flags, with bad values for each."""
    target = TARGETS.get(name) or getattr(pv, name, None) or getattr(infer, name)
    bad = {}
    for parameter in inspect.signature(target).parameters.values():
        words = str(getattr(parameter.annotation, "__name__", parameter.annotation))
        kind = words.removesuffix(" | None")
        if kind in KINDS and parameter.name not in PYRO:
            bad[parameter.name] = KINDS[kind]
    return bad | ELSEWHERE.get(name, {})


CASES = [(name, argument, values) for name in CALLS for argument, values in annotated(name).items()]


def wording(argument, value):
    kinds = "a whole number|a number|a fraction|True or False"
    return rf"\b{argument} is (data or )?({kinds})[^,]*, got {re.escape(repr(value))}"


def test_the_wording_is_that_of_the_checks():
    for check in checks.__all__:
        with pytest.raises(ValueError, match=wording("name", "a")):
            getattr(checks, check)("name", "a")


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path, monkeypatch):
    """What a bad number leaves behind, where it goes through, is left in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"{__name__}.SAVED", Path(shutil.copytree(SAVED, tmp_path / "run")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name, argument, values",
    [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in CASES],
)
def test_bad_numbers_are_refused_in_one_wording(name, argument, values):
    answers = []
    for value in values:
        try:
            with warnings.catch_warnings():
                CALLS[name](**{argument: value})
            answers.append(f"{value!r} is taken")
            break  # what is taken takes its time
        except ValueError as error:
            if not re.search(wording(argument, value), str(error)):
                answers.append(f"{value!r}: {str(error).splitlines()[0]}")
        except Exception as error:
            answers.append(f"{value!r}: {type(error).__name__}: {str(error).splitlines()[:1]}")
    assert not answers, "\n".join(answers)
