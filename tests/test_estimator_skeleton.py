"""The skeleton of a new estimator keeps the contract by its entry in the table alone."""

import inspect

import pytest

import test_estimator_contract as contract
from pyro_vae import ESTIMATORS, make_estimator
from skeletons import estimator
from skeletons.estimator import CyclicBaseline

KEPT = [
    contract.test_it_is_unbiased_for_its_bound_or_says_that_it_is_biased,
    contract.test_the_differentiable_loss_has_the_loss_and_its_gradient,
    contract.test_a_minibatch_scales_the_bound,
    contract.test_plain_svi_trains_model_and_guide,
    contract.test_dependent_sites_are_served_or_refused,
]


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(ESTIMATORS, "CyclicBaseline", CyclicBaseline.profile)


@pytest.mark.parametrize("test", KEPT, ids=lambda test: test.__name__)
def test_a_new_estimator_keeps_the_contract(test):
    test("CyclicBaseline(gradient=score, num_particles=2)")


def test_a_new_estimator_is_in_the_language():
    contract.test_its_entry_agrees_with_its_class("CyclicBaseline")
    contract.test_a_gradient_that_it_lacks_is_refused_with_advice("CyclicBaseline")
    assert make_estimator("CyclicBaseline(share=0.5)").elbo.share == 0.5
    assert len(inspect.getsource(estimator).splitlines()) <= 40
