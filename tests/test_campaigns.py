"""A fixed sample of each campaign: what the scripts in ``campaigns`` try by the thousand."""

import pytest

from campaigns import attacks, damaged, inputs, kills, strings
from helpers.composition import draw_case

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_lines_that_are_nearly_right_make_a_model_or_a_sentence():
    assert not [f"{role}={line!r}: {error}" for role, line, error in strings.failures(500)]


def test_inputs_that_are_none_are_refused_by_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = [f"{what}: {answer}" for what, answer in inputs.failures()]
    assert not wrong, "\n".join(wrong)


def test_damaged_files_are_refused_or_read_as_before():
    wrong = [f"{what}: {answer}" for what, answer in damaged.failures(60)]
    assert not wrong, "\n".join(wrong)


def test_a_sample_of_attacks_is_refused_in_time():
    wrong = [f"{what}: {answer}" for what, answer in attacks.failures(slice(3, None, 12)) if answer]
    assert not wrong, "\n".join(wrong)


@pytest.mark.process
@pytest.mark.parametrize("name", kills.CONFIGURATIONS)
def test_killed_runs_go_on_bit_for_bit(name):
    wrong = [f"{how}: {answer}" for _, how, answer in kills.failures(2, names=[name]) if answer]
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
