"""Names that people type lead to ours, mistaken arguments to those meant, and tables list all."""

import inspect
import subprocess
import sys

import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.optim import Adam as PyroAdam

import pyro_vae as pv
from helpers.advice import suggestions
from helpers.evaluations import EVALUATIONS
from pyro_vae.language import words
from pyro_vae.language.arguments import suggests

X = torch.ones(8, 4)
NETS = {"encoder": "MLP([3])", "decoder": "MLP([3])", "seed": 0}
QUICK = {"epochs": 1, "progress": False}


def vae(**said):
    return pv.VAE(4, 2, **NETS | said)


BITS = "score", "Enum", "concrete", "VIMCO", "reinmax", "gumbel_rao", "gapped"
STEPS = "GRU", "Transformer", "DeepSet"  # networks of sequences
MADE = {  # what makes a line of a table
    "FAMILIES": lambda line: vae(likelihood=line if "Flow" not in line else "Normal",
                                 prior=line if "Flow" in line else "Normal"),
    "ESTIMATORS": lambda line: pv.fit(
        vae(prior="Bernoulli", guide="Bernoulli")
        if any(word in line for word in BITS) else vae(),
        X, estimator=line, **QUICK),
    "NETWORKS": lambda line: pv.VAE((4, 4) if line in STEPS else (1, 4, 4), 2,
                                    encoder=line if line != "ConvDecoder" else None,
                                    decoder=line if line == "ConvDecoder" else None),
    "SCHEDULES": lambda line: pv.fit(vae(), X, lr=f"{line}(1e-3, 1e-4)", **QUICK),
    "OPTIMIZERS": lambda line: pv.fit(vae(), X, optimizer=line, **QUICK),
}  # fmt: skip
NEEDS = {"Categorical": "Categorical(categories=2)", "VonMisesFisher": "Normal",
         "OrderedLogistic": "OrderedLogistic(categories=2, cutpoints=learned)",
         "NegativeBinomial": "NegativeBinomial(total_count=learned)", "VampPrior": "Normal",
         "LowRankMultivariateNormal": "LowRankMultivariateNormal(rank=1)",
         "ZeroInflatedNegativeBinomial": "ZeroInflatedNegativeBinomial(total_count=1)"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("table", MADE)
@pytest.mark.filterwarnings("ignore")
def test_every_line_that_a_word_leads_to_is_made(table):
    for line in getattr(words, table):
        MADE[table](NEEDS.get(line, line))


@pytest.mark.parametrize(
    "role, word, meant",
    [
        ("likelihood", "Gaussian", "Normal"), ("likelihood", "BCE", "Bernoulli"),
        ("likelihood", "MSE", "Normal"), ("likelihood", "NB", "NegativeBinomial"),
        ("prior", "GMM", "Mixture(Normal, components=10)"), ("prior", "RealNVP", "Flow(RealNVP)"),
        ("guide", "Diagonal_Gaussian", "Normal"), ("encoder", "Linear", "MLP"),
        ("encoder", "CNN", "ConvEncoder"), ("likelihood", "dist.Normal", "Normal"),
        ("encoder", "nn.MLP([3])", "MLP"),
    ],
)  # fmt: skip
def test_words_for_parts(role, word, meant):
    with pytest.raises(pv.SpecError) as error:
        vae(**{role: word})
    assert meant in suggestions(str(error.value))[1]


@pytest.mark.parametrize(
    "argument, word, meant",
    [
        ("estimator", "IWAE", "RenyiELBO"), ("estimator", "ELBO", "Trace_ELBO"),
        ("estimator", "REINFORCE", "Trace_ELBO(gradient=score)"), ("optimizer", "adam", "Adam"),
        ("optimizer", "torch.optim.AdamW", "AdamW"), ("lr", "CosineAnnealingLR(1e-3)", "cosine"),
    ],
)  # fmt: skip
def test_words_for_training(argument, word, meant):
    with pytest.raises(pv.SpecError) as error:
        pv.fit(vae(), X, **QUICK, **{argument: word})
    assert meant in suggestions(str(error.value))[1]


@pytest.mark.slow
def test_classes_are_taken_for_their_names():
    by_name = pv.fit(vae(), X, optimizer="AdamW", estimator="Trace_ELBO", **QUICK)
    by_class = pv.fit(vae(), X, optimizer=torch.optim.AdamW, estimator=Trace_ELBO, **QUICK)
    assert by_class.history.loss.tolist() == by_name.history.loss.tolist()
    for made in (torch.optim.SGD([torch.zeros(1)], lr=1), PyroAdam({"lr": 1.0})):
        with pytest.raises(ValueError, match=r"fit makes its own: give optimizer='(SGD|Adam)'"):
            pv.fit(vae(), X, optimizer=made, **QUICK)
    with pytest.raises(ValueError, match=r"optimizer is a line such as 'Adam\(clip.*, got None"):
        pv.fit(vae(), X, optimizer=None, **QUICK)
    with pytest.raises(ValueError, match=r"estimator is a line such as .*, got 3"):
        pv.fit(vae(), X, estimator=3, **QUICK)


@pytest.mark.parametrize(
    "name, meant",
    [
        ("IWAE", "estimator='RenyiELBO'"), ("Gaussian", "likelihood='Normal'"),
        ("BCE", "likelihood='Bernoulli'"), ("AdamW", "optimizer='AdamW'"), ("train", "fit"),
        ("Bernoulli", "likelihood='Bernoulli'"), ("Trace_ELBO", "estimator='Trace_ELBO'"),
        ("VampPrio", "VampPrior"), ("log_likelihood", "log_evidence"), ("BetaVAE", "VAE"),
    ],
)  # fmt: skip
def test_a_name_that_the_package_lacks_says_what_is_meant(name, meant):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; did you mean .*{meant}"):
        getattr(pv, name)


def test_mistaken_arguments_are_told_the_right_ones():
    cases = [
        (lambda: vae(priors="Normal"), "VAE.. has no argument 'priors'; did you mean prior"),
        (lambda: pv.VAE(4, z_dim=2), "did you mean latent_dim"),
        (lambda: pv.fit(vae(), X, epoch=3), "fit.. has no argument 'epoch'; did you mean epochs"),
        (lambda: pv.fit(vae(), X, learning_rate=3), "did you mean lr"),
        (lambda: pv.fit(vae(), X, early_stopping=3), "did you mean patience"),
        (lambda: pv.elbo(vae(), X, n_samples=3), "did you mean num_samples"),
        (lambda: pv.M2(4, 2, 3, likelihod="Normal"), "did you mean likelihood"),
    ]
    for call, message in cases:
        with pytest.raises(TypeError, match=message):
            call()


def test_what_arguments_are_called_elsewhere_are_arguments_here():
    known = {n for name in ("fit", "VAE", "elbo", "log_evidence", "compare_estimators")
             for n in inspect.signature(getattr(pv, name)).parameters}  # fmt: skip
    assert words.ARGUMENTS.keys() - known <= {"num_particles"}
    assert set(words.FUNCTIONS) <= set(dir(pv))
    assert inspect.signature(suggests(pv.elbo)) == inspect.signature(pv.elbo)


FIRST = [name for name in EVALUATIONS if hasattr(pv, name)]


@pytest.mark.parametrize("name", [*FIRST, "calibration", "bdmc", "assess", "compress", "posterior"])
def test_another_first_argument_than_a_model_is_refused(name):
    with pytest.raises(
        ValueError, match=rf"^{name} evaluates a pyro_vae.VAE( or a .*)?, got Tensor"
    ):
        getattr(pv, name)(X)
    with pytest.raises(ValueError, match=rf"^{name} takes the model first, .*: swap its"):
        getattr(pv, name)(X, vae())


def test_tables_list_what_a_line_can_name():
    assert set(pv.estimators().index) == set(pv.ESTIMATORS)
    table = pv.families()
    assert {"Normal", "Mixture", "VampPrior", "StudentT"} <= set(table.index)
    assert set(table.kind) == {"family", "structure"} and table.about.str.len().gt(10).all()
    assert pv.describe().equals(table)
    with pytest.raises(pv.SpecError, match=r"unknown name 'Gaussian'; did you mean Normal\? "):
        pv.describe("Gaussian")
    with pytest.raises(pv.SpecError, match=r"pv.families\(\) lists all"):
        pv.describe("Qwertz")


@pytest.mark.slow
def test_the_directory_has_public_names_only():
    code = "import pyro_vae as pv; pv.VAE; print(*dir(pv))"
    names = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert [name for name in names if name.startswith("_")] == ["__version__"]
    assert all(getattr(pv, name) is not None for name in names)
