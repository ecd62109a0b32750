"""Melodies: entropies in closed form and by enumeration, against sums over all melodies."""

import itertools
import math

import pytest
import torch

from pyro_vae.data.melodies import Melodies


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 2.0])
def test_probabilities_of_all_melodies_sum_to_one_and_give_the_entropy(sharpness):
    melodies = Melodies(sharpness)
    rows = [torch.tensor(notes) for notes in itertools.product(range(12), repeat=3)]
    by_key = torch.stack([melodies.log_prob_by_key(row) for row in rows])
    assert torch.allclose(by_key.exp().sum(0), torch.ones(12, dtype=torch.float64))
    p = melodies.log_prob(rows).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert melodies.entropy(3) == pytest.approx(-torch.xlogy(p, p).sum().item(), abs=1e-10)
    given = -torch.xlogy(by_key.exp(), by_key.exp()).sum().item() / 12
    assert melodies.information(3) == pytest.approx(melodies.entropy(3) - given, abs=1e-10)


def test_all_other_notes_alike_have_the_entropy_rate_log_4():
    assert Melodies(0.0).entropy_rate == pytest.approx(math.log(4))
    assert Melodies(1.0).entropy_rate < math.log(4)


def test_a_note_more_costs_the_rate_and_what_it_says_of_the_key():
    melodies = Melodies()
    told = [melodies.information(n) for n in range(1, 8)]
    assert told == sorted(told)
    assert told[-1] < math.log(12)
    more = melodies.entropy(7) - melodies.entropy(6)
    assert more == pytest.approx(melodies.entropy_rate + told[6] - told[5])
    with pytest.raises(ValueError, match="at most 9 notes are enumerated, got 10"):
        melodies.information(10)


@pytest.mark.slow
def test_draws_have_the_entropy():
    melodies = Melodies()
    rows, keys = melodies.sample(4000, (6, 6), seed=0)
    surprise = -melodies.log_prob(rows)
    error = surprise.std() / len(rows) ** 0.5
    assert abs(surprise.mean() - melodies.entropy(6)) < 4.5 * error
    share = torch.bincount(keys, minlength=12) / len(keys)
    assert ((share - 1 / 12).abs() < 5 * (1 / 12 / len(keys)) ** 0.5).all()
    for row, key in zip(rows[:20], keys, strict=False):
        assert melodies.log_prob_by_key(row)[key].isfinite()
