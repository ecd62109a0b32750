"""A fixed sample of each campaign: what the scripts in ``campaigns`` try by the thousand."""

import math

import numpy as np
import pytest
import torch

from campaigns import attacks, crossing, damaged, frames, inputs, kills, strings
from helpers.composition import draw_case

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("short_pilot"),
]


def test_lines_that_are_nearly_right_make_a_model_or_a_sentence():
    assert not [f"{role}={line!r}: {error}" for role, line, error in strings.failures(250)]


def test_a_sample_of_inputs_that_are_none_is_refused_by_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = [f"{what}: {answer}" for what, answer in inputs.failures(slice(0, None, 3))]
    assert not wrong, "\n".join(wrong)


def test_damaged_files_are_refused_or_read_as_before():
    wrong = [f"{what}: {answer}" for what, answer in damaged.failures(40)]
    assert not wrong, "\n".join(wrong)


def test_a_sample_of_attacks_is_refused_in_time():
    wrong = [f"{what}: {answer}" for what, answer in attacks.failures(slice(3, None, 25)) if answer]
    assert not wrong, "\n".join(wrong)


def test_odd_frames_are_kept_by_every_face_of_tables_or_refused_by_column():
    wrong = [f"{what}: {answer}" for what, answer in frames.failures(["a shop", "decimals"])]
    assert not wrong, "\n".join(wrong)


def test_a_sample_of_functions_and_kinds_of_models_answers_or_refuses():
    kinds = ["table, condition", "counts", "LinearMixed", "M2, condition", "sequences, condition"]
    functions = {"encode", "elbo", "log_evidence", "impute", "sample, given", "interpolate"}
    functions |= {"to_arviz", "forecast", "counterfactual", "differential_expression", "save, load"}
    some = [pair for pair in crossing.pairs(kinds) if pair[1] in functions]
    assert len(some) == 55
    wrong = [" x ".join(failure) for failure in crossing.failures(some)]
    assert not wrong, "\n".join(wrong)


# What the crossing of all functions and all kinds has found.
FOUND = [
    ("flow", "repr"),
    ("GaussianProcess", "gaps"),
    ("GaussianProcess", "refine"),
    ("GaussianProcess", "interpolate"),
    ("LinearMixed, condition", "elbo"),
    ("bytes, coupled", "differential_expression"),
    ("counts", "plots.images"),
    ("counts", "plots.associations"),
    ("sequences", "plots.associations"),
    ("sequences, condition", "stack, given"),
    ("sequences, condition", "plots.reconstructed_rolls"),
    ("table, weight", "sample"),
    ("categories", "plots.predictive_check"),
    ("tokens, autoregressive", "stack"),
    ("counts, AnnData", "counterfactual"),
    ("stack", "sample, mean"),
    ("documents, LDA", "compare_estimators"),
    ("program", "encode"),
    ("program", "bits_per_dimension"),
    ("semi-amortized", "plots.latent_space"),
    ("categories", "calibration"),
    ("z on a sphere", "encode"),
]


@pytest.mark.parametrize("kind, function", FOUND)
def test_what_the_crossing_has_found_stays_mended(kind, function):
    assert not list(crossing.failures([(kind, function)]))


def spoil(case):
    with torch.no_grad():
        next(case.vae.parameters()).add_(1)


# What a call may do wrong, with the words in which it is said.
CAUGHT = {
    "TypeError at": lambda case: len(3),
    "ValueError at": lambda case: np.zeros(2).reshape(3),
    "has a graph": lambda case: next(case.vae.parameters()).sum(),
    "NaN or inf": lambda case: torch.tensor([math.nan]),
    "weights or buffers": spoil,
    "the mode": lambda case: case.vae.eval() and None,
    "a global generator": lambda case: torch.rand(1),
}


@pytest.mark.parametrize("words", CAUGHT)
def test_the_crossing_sees_what_a_call_leaves_behind(words, monkeypatch):
    monkeypatch.setitem(crossing.FUNCTIONS, "wrong", CAUGHT[words])
    ((_, _, what),) = crossing.failures([("bits", "wrong")])
    crossing.case_of.cache_clear()
    assert words in what


@pytest.mark.process
@pytest.mark.parametrize("name", kills.CONFIGURATIONS)
def test_killed_runs_go_on_bit_for_bit(name):
    wrong = [f"{how}: {answer}" for _, how, answer in kills.failures(1, names=[name]) if answer]
    assert not wrong, "\n".join(wrong)


def test_the_campaigns_are_as_large_as_they_say():
    assert len(list(inputs.cases())) >= 400
    assert len(strings.LINES) >= 100
    assert len(kills.CONFIGURATIONS) == 6
    assert sum(1 for attack in attacks.ATTACKS for _ in attack()) >= 250
    assert draw_case(lambda options: options[-1])["likelihood"]


@pytest.mark.parametrize("campaign", [strings, damaged])
def test_a_campaign_sees_what_goes_wrong(campaign, monkeypatch):
    def fail(*_):
        raise TypeError("unsupported operand")

    monkeypatch.setattr(campaign, "attempt" if campaign is strings else "use", fail)
    assert len(list(campaign.failures(10))) >= 9
