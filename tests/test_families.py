"""Tables: every family trains, in every role, and is the one that was said."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from scipy import stats
from torch import nn

from helpers.families import (
    GUIDES,
    LIKELIHOODS,
    PRIORS,
    normal,
    sphere,
)
from pyro_vae import MLP, VAE, SpecError, load
from pyro_vae.families.part import Ends
from pyro_vae.families.registry import make_part
from pyro_vae.infer import make_estimator
from pyro_vae.infer.estimators.soundness import check_and_nest

B, D, L = 8, 4, 3


# The line, what its data look like, and the class that Pyro must see.
# The guide, a prior with its support, and the class that Pyro must see.
CASES = (
    [("likelihood", line, dict(likelihood=line)) for line in LIKELIHOODS]
    + [("guide", line, dict(guide=line, prior=p)) for line, (p, _) in GUIDES.items()]
    + [("prior", line, dict(prior=line, guide=g)) for line, (g, _) in PRIORS.items()]
)
TABLES = {"likelihood": LIKELIHOODS, "guide": GUIDES, "prior": PRIORS}


def test_the_tables_are_as_long_as_they_should_be():
    assert len(LIKELIHOODS) >= 25
    assert len(GUIDES) >= 15
    assert len(PRIORS) >= 12


def unwrapped(fn):
    while type(fn).__name__ in ("Independent", "ExpandedDistribution"):
        fn = fn.base_dist
    return type(fn).__name__


@pytest.mark.parametrize("role, line, said", CASES, ids=[f"{r}-{n}" for r, n, _ in CASES])
@pytest.mark.slow
def test_a_family_trains_and_survives_saving(role, line, said, tmp_path):
    options = {"likelihood": "Normal", "encoder": MLP([8]), "decoder": MLP([8]), **said}
    draw = LIKELIHOODS[line][0] if role == "likelihood" else normal
    vae = VAE(D, L, **options, seed=1)
    x = vae.check(draw(B, D))
    before = {k: v.clone() for k, v in vae.named_parameters()}
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    reached = dict.fromkeys(before, 0.0)
    for step in range(3):
        loss = Trace_ELBO().loss_and_grads(vae.model, vae.guide, x)
        assert torch.isfinite(torch.tensor(loss))
        for name, p in vae.named_parameters():
            reached[name] += 0.0 if p.grad is None else p.grad.abs().sum().item()
        vae.zero_grad()
        if step < 2:
            svi.step(x)
    silent = [name for name, size in reached.items() if not size > 0]
    assert not silent, f"no gradient reaches {silent}"
    assert all(not torch.equal(p, before[n]) for n, p in vae.named_parameters())

    guide = poutine.trace(vae.guide).get_trace(x)
    model = poutine.trace(poutine.replay(vae.model, guide)).get_trace(x)
    site = {"likelihood": model.nodes["x"], "guide": guide.nodes["z"], "prior": model.nodes["z"]}
    assert unwrapped(site[role]["fn"]) == TABLES[role][line][1]
    assert model.nodes["x"]["fn"].batch_shape == (B,)
    assert guide.nodes["z"]["fn"].event_shape == (L,)

    again = load(vae.eval().save(tmp_path))
    assert again.describe() == vae.describe()
    saved, loaded = vae.state_dict(), again.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[k], loaded[k]) for k in saved)
    assert torch.equal(vae.sample(3, seed=5), again.sample(3, seed=5))


@pytest.mark.slow
@pytest.mark.parametrize("line", LIKELIHOODS)
def test_a_likelihood_has_particle_dimensions_and_double_precision(line):
    draw = LIKELIHOODS[line][0]
    vae = VAE(D, L, likelihood=line, encoder=MLP([8]), decoder=MLP([8]), seed=1).double()
    x = draw(B, D).double()
    x = nn.functional.normalize(x, dim=-1) if draw is sphere else x
    with pyro.plate("particles", 5, dim=-2):
        guide = poutine.trace(vae.guide).get_trace(x)
        model = poutine.trace(poutine.replay(vae.model, guide)).get_trace(x)
    model.compute_log_prob()
    assert model.nodes["x"]["log_prob"].shape == (5, B)
    assert model.nodes["x"]["log_prob"].dtype == torch.float64
    each = vae.decode(guide.nodes["z"]["value"][2]).log_prob(x)
    assert torch.allclose(model.nodes["x"]["log_prob"][2], each)


@pytest.mark.parametrize("prior, shape", [("OneHotCategorical", (5, 3)), ("Bernoulli", (2, 3))])
def test_z_may_be_an_array(prior, shape):
    vae = VAE(D, shape, prior=prior, guide=prior, likelihood="Normal")
    assert vae.encode(normal(B, D)).event_shape == shape
    assert vae.sample(7).shape == (7, D)


def test_categories_are_enumerated_and_reach_the_decoder_one_hot():
    line = "Categorical(categories=3)"
    vae = VAE(D, 2, prior=line, guide=line, likelihood="Normal", seed=0)
    assert vae.decoder.layers[1].in_features == 2 * 3
    estimator = make_estimator("TraceEnum_ELBO")
    x = normal(B, D)
    check_and_nest(estimator, vae.model, vae.guide, x)
    loss = estimator.elbo.loss_and_grads(vae.model, estimator.wrap(vae.guide, x), x)
    assert loss > 0
    assert all(p.grad.abs().sum() > 0 for p in vae.parameters())


MATRICES = {  # a line, and scipy's distribution of the same scale matrix where features are 0
    "Wishart(df=5)": lambda scale: stats.wishart(5, scale),
    "Wishart(df=4, covariance_matrix=amortized)": lambda scale: stats.wishart(4, scale),
}


@pytest.mark.parametrize("line", MATRICES)
def test_matrices_are_said_by_a_line(line):
    torch.manual_seed(0)
    part = make_part(line, Ends((3, 3), "likelihood", (5,))).double()
    p = part(torch.randn(1, 5).double())
    x = p.sample()
    expected = MATRICES[line](p.covariance_matrix[0].detach().numpy()).logpdf(x[0].numpy())
    assert p.log_prob(x).item() == pytest.approx(expected, rel=1e-9)
    draws = p.sample((2000,))[:, 0]
    z = (draws.mean(0) - p.mean[0]) / (draws.std(0) / 2000**0.5)
    assert (z.abs() < 4).all()
    assert make_part("LKJCholesky", Ends((3, 3), "prior"))().event_shape == (3, 3)
    with pytest.raises(SpecError, match=r"Wishart needs df=: for example df=3"):
        make_part("Wishart", Ends((3, 3), "prior"))


def test_softplus_not_exp_for_positive_parameters():
    family = make_part("Normal", Ends((2,), "guide", (5,)))
    raw = family.sources["scale"].head(torch.ones(1, 5))
    scale = family(torch.ones(1, 5)).base_dist.scale
    assert torch.allclose(scale, nn.functional.softplus(raw))


LEARNED = {  # role, line, shape of the trained tensor
    ("likelihood", "Normal(scale=learned)"): (),
    ("likelihood", "Normal(scale=learned(shared=False))"): (3,),
    ("prior", "Normal(loc=learned)"): (3,),
    ("prior", "Normal(loc=learned(shared=True))"): (),
}


@pytest.mark.parametrize("role, line", LEARNED)
def test_learned_is_shared_over_x_and_per_dimension_of_z(role, line):
    family = make_part(line, Ends((3,), role, (5,) if role == "likelihood" else None))
    (trained,) = (s for s in family.sources.values() if type(s).__name__ == "GlobalParameter")
    assert trained.unconstrained.shape == LEARNED[role, line]


def test_a_learned_parameter_starts_where_it_is_told():
    family = make_part("Normal(scale=learned(0.25))", Ends((3,), "prior"))
    assert torch.allclose(family().base_dist.scale, torch.tensor(0.25))
    family = make_part("Normal(loc=[0, 1, 2], scale=2)", Ends((3,), "prior"))
    assert torch.equal(family().base_dist.loc, torch.tensor([0.0, 1.0, 2.0]))


def test_features_of_an_image_are_read_by_a_convolution():
    family = make_part("Normal", Ends((1, 6, 6), "likelihood", (7, 6, 6)))
    assert isinstance(family.sources["loc"].head, nn.Conv2d)
    assert family(torch.zeros(2, 7, 6, 6)).event_shape == (1, 6, 6)


class MyPrior(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(L))

    def forward(self):
        return dist.Normal(self.loc, 1.0).to_event(1)


def test_any_module_that_returns_a_distribution_is_a_prior(tmp_path):
    vae = VAE(D, L, prior=MyPrior(), likelihood="Normal", seed=0)
    Trace_ELBO().loss_and_grads(vae.model, vae.guide, normal(B, D))
    assert vae.prior.loc.grad.abs().sum() > 0
    vae.save(tmp_path)
    with pytest.raises(ValueError, match=r"the prior of this model is a class of your own .*MyPri"):
        load(tmp_path)
    assert torch.equal(load(tmp_path, prior=MyPrior()).prior.loc, vae.prior.loc)


BAD = {
    ("likelihood", "Norml"): "unknown family 'Norml'; did you mean Normal",
    ("likelihood", "Qqqq"): r"unknown family 'Qqqq'; pyro_vae.families\(\) lists them",
    ("likelihood", "Normal(scal=1)"): r"no parameter 'scal'; did you mean scale\?(.|\n)*column 8",
    ("likelihood", "Normal(scale=-1)"): "scale of Normal must be a number greater than 0, got -1",
    ("likelihood", "Normal(scale='x')"): "takes a number, a list of numbers, learned",
    ("likelihood", "Normal(scale=[1, 2])"): r"has shape \(3,\) here, got \(2,\)",
    ("likelihood", "Normal(loc=0, scale=learned)"): "does not depend on z",
    ("guide", "Normal(loc=learned, scale=1)"): "does not depend on x",
    ("prior", "Normal(loc=amortized)"): "a prior has no network to amortize loc",
    ("prior", "StudentT"): "StudentT needs df=",
    ("likelihood", "Binomial(total_count=learned)"): "total_count of Binomial is discrete",
    ("likelihood", "Categorical"): "Categorical needs categories=",
    ("likelihood", "RelaxedBernoulli"): "needs temperature=",
    ("likelihood", "Independent"): "made of distributions",
    ("likelihood", "LKJCholesky(dim=3)"): "draws arrays of 2 dimension",
    ("likelihood", "LogisticNormal"): r"give 'Transformed\(Normal, StickBreakingTransform\)'",
    ("likelihood", "LKJ"): "no line: give a torch.nn.Module whose forward returns the distribution",
    ("likelihood", "Uniform(high=learned)"): r"give both ends, Uniform\(low=0, high=1\)",
    ("likelihood", "GroupedNormalNormals"): "unknown family 'GroupedNormalNormals'; did you mean ",
    (
        "prior",
        "Mixture(Normal(loc=learned), components=0)",
    ): "components is a whole number of at least 1",
    ("prior", "Mixture(components=3)"): "Mixture needs family=",
    ("prior", "Mixture(Norml)"): "unknown family 'Norml'; did you mean Normal",
    ("guide", "Mixture(Normal(loc=learned, scale=1), logits=0)"): "does not depend on x",
    ("guide", "Mixture(Normal(loc=0), components=2)"): "leave loc to the encoder",
    ("prior", "VampPrior(start=zeros)"): "start is data or random, got zeros",
    ("prior", "VampPriors"): "unknown family 'VampPriors'; did you mean VampPrior",
    ("prior", "Flow(GF)"): "Zuko draws from GF within -10 and 10 only",
    ("prior", "Flow(NSF, bins=2.5)"): "bins is a whole number of at least 1, got 2.5",
    ("prior", "Normal(scale=inf)"): "scale of Normal must be finite, got inf",
    ("prior", "Normal(loc=-1e400)"): "loc of Normal must be finite, got -inf",
    ("prior", "Flow(NFS)"): "unknown flow 'NFS'; did you mean NSF",
    ("prior", "Flow(NSF, bin=3)"): r"NSF has no option 'bin'; did you mean bins(.|\n)*column 11",
    ("prior", "Resampled(truncation=1)"): "truncation is a whole number of at least 2, got 1",
    ("prior", "Transformed(Normal, Sigmoid)"): "did you mean SigmoidTransform",
    ("prior", "Transformed(Normal, AbsTransform)"): "AbsTransform is not one to one",
}


@pytest.mark.parametrize("role, line", BAD)
def test_bad_lines_say_what_is_wrong(role, line):
    with pytest.raises(SpecError, match=BAD[role, line]):
        make_part(line, Ends((3,), role, None if role == "prior" else (5,)))
