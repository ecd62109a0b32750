"""Pyro's own tests of gradients and inference, with the estimators of the table in its place."""

from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

from helpers.pyro_cases import CASES, LINES, outcome
from pyro_vae import ESTIMATORS, make_estimator
from pyro_vae.infer.estimators.soundness import check

QUICK = ("test_particle_gradient", "SafetyTests")
REASONS = ("cannot serve this guide: ", "scores further values beside each draw")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "pyro_cases.md"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if case.of in QUICK else pytest.mark.slow)
        for name, case in CASES.items()
    ],
)
def test_each_estimator_passes_or_is_refused_for_a_reason(name):
    found = {line: outcome(line, CASES[name]) for line in LINES}
    assert sum(not why for why in found.values()) >= 8
    strange = {k: v for k, v in found.items() if v and not any(r in v for r in REASONS)}
    assert not strange


def test_the_list_that_is_committed_is_of_these_cases():
    text = RESULTS.read_text()
    assert [name for name in CASES if f" {name}\n" not in text] == []
    rows = text.split("```")[1].strip().splitlines()
    assert {row.split()[0] for row in rows} <= set(LINES)
    assert all(len("".join(row.split()[1:])) == len(CASES) for row in rows)


# What these cases brought to light.


@pytest.mark.parametrize("name", ["RLOO", "VIMCO", "DReG", "TVO", "CIWAE", "RWS"])
def test_particles_one_by_one_are_of_the_same_part_of_the_data(name):
    seen = []

    def model():
        with pyro.plate("data", 1000, 2) as rows:
            seen.append(rows.tolist())
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=rows / 1000)

    def guide():
        scale = pyro.param("scale", torch.tensor(1.0))
        with pyro.plate("data", 1000, 2):
            pyro.sample("z", dist.Normal(torch.zeros(2), scale))

    least = ESTIMATORS[name].least
    elbo = ESTIMATORS[name].build(num_particles=max(3, least), vectorize_particles=False)
    for _ in range(2):
        elbo.loss_and_grads(model, guide)
    half = len(seen) // 2
    first, second = seen[:half], seen[half:]
    assert all(rows == first[0] for rows in first)
    assert all(rows == second[0] for rows in second)
    assert first[0] != second[0]


def test_members_of_a_plate_that_meet_are_not_moved_at_once():
    def model(reads):
        with pyro.plate("members", 2):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0))
        pyro.sample("x", dist.Normal(z.sum() if reads else 0.0, 1.0), obs=torch.tensor(0.3))

    def guide(reads):
        with pyro.plate("members", 2):
            pyro.sample("z", dist.Normal(torch.zeros(2), pyro.param("s", torch.tensor(0.5))))

    estimator = make_estimator("MeasureValued")
    check(estimator, model, guide, False)
    with pytest.raises(ValueError, match="'members' at once, and 'x', outside it, reads them"):
        check(estimator, model, guide, True)
