"""What Pyro adds to errors reaches no user: tables of shapes, pages of numbers."""

import pytest
import torch
from torch import nn

import pyro_vae as pv
from helpers.advice import is_clear

X = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
NETS = {"encoder": "MLP([4])", "decoder": "MLP([4])", "likelihood": "Normal", "seed": 0}


class Mine(RuntimeError):
    """An error of the user's."""


class Fails(nn.Module):
    """A decoder that fails, once it is built, as a user's code may."""

    error = None

    def forward(self, z):
        if self.error is not None:
            raise self.error
        return z


def broken():
    vae = pv.VAE(3, 2, **NETS)
    with torch.no_grad():
        next(p for n, p in vae.named_parameters() if n.startswith("encoder")).fill_(torch.nan)
    return vae


CALLS = {
    "elbo": lambda vae: pv.elbo(vae, X),
    "log_evidence": lambda vae: pv.log_evidence(vae, X, num_samples=5),
    "elbo_draws": lambda vae: pv.elbo_draws(vae, X, "Trace_ELBO", num_draws=2),
    "reconstruct": lambda vae: vae.reconstruct(X),
    "latent_summary": lambda vae: pv.latent_summary(vae, X),
    "fit": lambda vae: pv.fit(vae, X, epochs=1, progress=False),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [ValueError("my own words"), Mine("my own words")], ids=repr)
def test_an_error_of_the_users_stays_as_it_is(call, error):
    decoder = Fails()
    vae = pv.VAE(3, 2, **NETS | {"decoder": decoder})
    decoder.error = error
    with pytest.raises(type(error)) as caught:
        CALLS[call](vae)
    assert str(caught.value) == "my own words"


@pytest.mark.parametrize("call", CALLS)
def test_weights_that_are_not_finite_are_told_in_a_sentence(call):
    with pytest.raises(Exception, match="not finite") as caught:
        CALLS[call](broken())
    assert is_clear(caught.value) or isinstance(caught.value, pv.NonFiniteLossError)
