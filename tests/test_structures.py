"""Structures within structures, in every role: they build, train, and have the right density."""

from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import pyro_vae as pv
from pyro_vae import SpecError
from pyro_vae.families.part import Ends, Part
from pyro_vae.families.registry import REGISTRY, make_part

SMALL = {"encoder": "MLP([8])", "decoder": "MLP([8])", "seed": 0}
# What holds another structure, and serves every role.
NESTED = [
    "Mixture(Normal, components=3)",
    "Mixture(Normal(scale=learned), components=3, logits=learned)",
    "Mixture(Mixture(StudentT(df=4), components=2), components=3)",
    "Transformed(Mixture(Normal, components=3), SigmoidTransform)",
    "Mixture(Transformed(Normal, SigmoidTransform), components=3)",
    "Flow(NSF, base=Mixture(Normal, components=4))",
    "Mixture(Flow(MAF), components=2)",
    "Transformed(Flow(MAF), SigmoidTransform)",
]
PRIORS = [
    "Mixture(GaussianProcess(RBF, lengthscale=learned), components=2)",
    "Mixture(VampPrior(components=3), components=2)",
    "Mixture(Resampled(Normal), components=2)",
    "Resampled(Mixture(Normal(loc=learned), components=3))",
    "Flow(NSF, base=Resampled(Normal))",
]


def model(role, line):
    parts = {"likelihood": "Normal"} | {role: line}
    if "Sigmoid" in line and role == "prior":
        parts["guide"] = "Transformed(Normal, SigmoidTransform)"
    if "Sigmoid" in line and role == "guide":
        parts["prior"] = "Beta"
    return pv.VAE(6, 3, **parts, **SMALL)


@pytest.mark.parametrize(
    "role, line",
    [(role, line) for role in ("prior", "likelihood", "guide") for line in NESTED]
    + [("prior", line) for line in PRIORS],
)
@pytest.mark.slow
def test_nested_structures_train_every_parameter(role, line):
    vae = model(role, line)
    assert str(vae.describe()[role]) == str(pv.parse(line))
    x = torch.rand(16, 6, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    vae.start_from(x)
    pyro.set_rng_seed(0)
    with pyro.get_param_store().scope():
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        losses = [svi.step(x) for _ in range(3)]
        Trace_ELBO().differentiable_loss(vae.model, vae.guide, x).backward()
    assert all(torch.tensor(losses).isfinite())
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), f"{name} has no gradient"


H = torch.linspace(-1, 1, 10).reshape(2, 5).double()


def part(line, role="likelihood", shape=(4,)):
    torch.manual_seed(0)
    return make_part(line, Ends(shape, role, None if role == "prior" else (5,))).double()


def test_a_mixture_likelihood_is_a_mixture_of_each_cell():
    p = part("Mixture(Normal, components=3)")
    weights = dist.Categorical(logits=p.weights(H).logits)
    assert weights.logits.shape == (2, 4, 3)
    cells = torch.distributions.MixtureSameFamily(
        weights, torch.distributions.Normal(p.family(H).mean, p.family(H).stddev)
    )
    x = torch.randn(2, 4).double()
    assert torch.allclose(p(H).log_prob(x), cells.log_prob(x).sum(-1), atol=1e-12)
    assert torch.allclose(p(H).mean, cells.mean)
    draws = p(H).sample((20_000,))
    z = (draws.mean(0) - cells.mean) / (cells.variance / 20_000).sqrt()
    assert z.abs().max() < 5


def test_a_mixture_prior_is_of_whole_events():
    p = part("Mixture(Laplace(loc=learned), components=3)", "prior")
    loc = p.family.sources["loc"](None)
    z = torch.randn(7, 4).double()
    each = dist.Laplace(loc, torch.ones(3, 4).double()).log_prob(z[:, None]).sum(-1)
    expected = each.logsumexp(-1) - torch.tensor(3.0).double().log()
    assert torch.allclose(p().log_prob(z), expected)


def test_nested_mixtures_are_the_flat_mixture():
    p = part("Mixture(Mixture(Normal, components=2), components=3)")
    inner, base = p.family, p.family.family(H)
    logits = p.weights(H).logits.log_softmax(-1)[..., None] + inner.weights(H).logits.log_softmax(
        -1
    )
    x = torch.randn(2, 4).double()
    each = dist.Normal(base.mean, base.stddev).log_prob(x[..., None, None]) + logits
    assert torch.allclose(p(H).log_prob(x), each.logsumexp((-1, -2)).sum(-1))


def test_what_is_learned_in_a_mixture_likelihood_is_shared_by_cells_not_components():
    p = part("Mixture(Normal(scale=learned), components=3, logits=learned)", shape=(2, 4))
    assert p.family.sources["scale"].unconstrained.shape == (3,)
    assert len(set(p.family.sources["scale"].unconstrained.tolist())) == 3
    assert p.weights.sources["logits"].unconstrained.shape == (3,)
    assert p(H).event_shape == (2, 4)


@pytest.mark.parametrize("line", [
    "Mixture(LogNormal(loc=learned, scale=learned), components=3)",
    "Mixture(LogNormal, components=3, logits=learned)",
])  # fmt: skip
def test_either_weights_or_components_may_be_the_same_for_all_observations(line):
    p = part(line)
    weights, family = p.weights(H).logits.softmax(-1), p.family(H).base_dist
    x = torch.rand(2, 4).double() + 0.5
    density = weights * dist.LogNormal(family.loc, family.scale).log_prob(x[..., None]).exp()
    assert torch.allclose(p(H).log_prob(x), density.sum(-1).log().sum(-1))
    draws = p(H).sample((20_000,)).log()
    mean = (weights * family.loc).sum(-1)
    variance = (weights * (family.scale**2 + family.loc**2)).sum(-1) - mean**2
    z = (draws.mean(0) - mean) / (variance / 20_000).sqrt()
    assert draws.shape == (20_000, 2, 4)
    assert z.abs().max() < 5


def test_vectors_of_a_family_are_mixed_whole():
    p = part("Mixture(MultivariateNormal, components=3)", shape=(2, 4))
    assert p.weights(H).batch_shape == (2, 2)
    assert p(H).event_shape == (2, 4)


@pytest.mark.parametrize("line", [
    "Mixture(Normal, components=3)",
    "Transformed(Mixture(Normal, components=3), SigmoidTransform)",
    "Mixture(Transformed(Normal, SigmoidTransform), components=3)",
])  # fmt: skip
def test_cells_of_a_mixture_likelihood_may_be_missing(line):
    torch.manual_seed(0)
    vae = pv.VAE(6, 3, likelihood=line, missing=True, **SMALL)
    x = torch.rand(5, 6) * 0.9 + 0.05
    holes = x.clone()
    holes[:, 2] = float("nan")
    z = torch.randn(5, 3)
    p = vae.decode(z).base_dist.log_prob(x)
    keep = torch.arange(6) != 2
    with pyro.get_param_store().scope(), pyro.poutine.block():
        trace = pyro.poutine.trace(pyro.poutine.condition(vae.model, {"z": z})).get_trace(holes)
    trace.compute_log_prob()
    assert torch.allclose(trace.nodes["x"]["log_prob"], p[:, keep].sum(-1), atol=1e-5)
    assert vae.impute(holes, draws=3, num_samples=200, seed=0).isfinite().all()
    if "Transformed" in line:
        with pytest.raises(ValueError, match="have no mean: ask for point='median', or draws"):
            vae.impute(holes, seed=0)


@pytest.mark.slow
def test_every_structure_is_refused_by_name_in_a_role_that_it_cannot_play():
    for name, cls in REGISTRY.structures.items():
        for role in {"prior", "likelihood", "guide"} - cls.roles:
            with pytest.raises(
                SpecError, match=f"{name} can be a .*, not a {role}: for example No"
            ):
                pv.VAE(6, 3, **{role: name}, **SMALL)
            pv.VAE(6, 3, **{role: "Normal"}, **SMALL)


class Shifted(Part):
    """A part of a user's own: it asks for its shape, and holds a part."""

    def build(self, ends):
        self.loc = nn.Parameter(torch.zeros(ends.shape))
        self.inner = ends.make("Mixture(Normal(loc=learned), components=2)")

    def forward(self, features=None):
        shift = dist.transforms.AffineTransform(self.loc, 1.0)
        p = self.inner()
        return dist.TransformedDistribution(p, dist.transforms.IndependentTransform(shift, 1))


def test_a_part_of_ones_own_needs_build_alone():
    vae = pv.VAE(6, 3, prior=Shifted(), likelihood="Normal", **SMALL)
    assert vae.prior.loc.shape == (3,)
    assert vae.sample(4, seed=0).shape == (4, 6)


def test_steps_through_a_mixture_are_refused_with_what_builds():
    with pytest.raises(SpecError, match="say through=False"):
        pv.VAE(6, 3, guide="SemiAmortized(Mixture(Normal, components=2))", **SMALL)
    pv.VAE(6, 3, guide="SemiAmortized(Mixture(Normal, components=2), through=False)", **SMALL)


# Features with more than one dimension.


class Steps(nn.Module):
    """A network over steps: ``(B, T, 3)`` or ``(B, D)`` to ``(B, T, 7)``."""

    def __init__(self, width, steps=None):
        super().__init__()
        self.steps, self.net = steps, nn.GRU(width, 7, batch_first=True)

    def forward(self, x):
        x = x if self.steps is None else x[:, None].expand(-1, self.steps, -1)
        return self.net(x)[0]


def convolution(n, channels, shape):
    layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[n - 1](2, channels, 1)
    size = (2, *shape)
    width = torch.Size(size).numel()
    return nn.Sequential(nn.Linear(3, width), nn.Unflatten(1, size), layer)


@pytest.mark.slow
@pytest.mark.parametrize("shape, decoder, head", [
    ((9, 3), Steps(3, 9), nn.Linear),
    ((9,), Steps(3, 9), nn.Linear),
    ((2, 9), convolution(1, 4, (9,)), nn.Conv1d),
    ((2, 5, 4), convolution(2, 6, (5, 4)), nn.Conv2d),
    ((1, 2, 3, 4), convolution(3, 4, (2, 3, 4)), nn.Conv3d),
    ((6,), Steps(3, 9), nn.Linear),
])  # fmt: skip
def test_features_with_the_places_of_the_data_have_a_head_at_each(shape, decoder, head):
    for line in ("Normal", "Mixture(Normal, components=3)", "Categorical(categories=4)"):
        vae = pv.VAE(shape, 3, likelihood=line, encoder="MLP([8])", decoder=decoder, seed=0)
        heads = [m.head for m in vae.likelihood.modules() if hasattr(m, "head")]
        assert all(type(h) is head for h in heads)
        features = decoder(torch.randn(1, 3)).shape[1:]
        whole = shape == (6,)
        expected = features.numel() if whole else features[-1 if head is nn.Linear else 0]
        assert all(h.weight.shape[1] == expected for h in heads)
        assert vae.sample(2, seed=0).shape == (2, *shape)
        assert pv.elbo(vae, vae.sample(5, seed=0)).isfinite().all()


@pytest.mark.parametrize("line", ["Normal", "Mixture(Normal, components=3)"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_head_at_each_place_reads_the_features_there(n, line):
    shape = (2, 5, 4, 3)[: n + 1]
    p = make_part(line, Ends(shape, "likelihood", (6, *shape[1:])))
    h = torch.randn(4, 6, *shape[1:])
    place = tuple(s - 1 for s in shape[1:])
    moved = h.clone()
    moved[(..., *place)] += 1
    differ = (p(h).mean != p(moved).mean).any(0).any(0)
    assert differ[place] and differ.sum() == 1


def test_a_sequence_read_by_a_guide_is_read_whole():
    vae = pv.VAE((9, 3), 9, encoder=Steps(3), decoder="MLP([8])", likelihood="Normal", seed=0)
    assert vae.approximation.sources["loc"].head.weight.shape == (9, 63)


# What people mean.


def test_a_list_of_widths_is_an_mlp_and_a_distribution_a_fixed_prior(tmp_path):
    vae = pv.VAE(6, 3, prior=dist.Normal(0, 2), encoder=[8, 4], decoder=(8,), likelihood="Normal")
    assert str(vae.encoder.spec) == "MLP([8, 4], activation='ReLU')"
    assert vae.prior().base_dist.scale.tolist() == [2, 2, 2]
    vae.save(tmp_path)
    assert str(pv.load(tmp_path).prior.spec) == "Normal(loc=0.0, scale=2.0)"
    tril = torch.eye(3) + torch.ones(3, 3).tril(-1) / 3
    for p in (
        torch.distributions.MultivariateNormal(torch.arange(3.0), tril @ tril.T),
        dist.Normal(torch.arange(3.0), 1.0).to_event(1),
        torch.distributions.Laplace(0.5, 0.1),
    ):
        z = torch.randn(4, 3)
        ours = pv.VAE(6, 3, prior=p, likelihood="Normal").prior().log_prob(z)
        other = p.log_prob(z)
        assert torch.allclose(ours, other if other.ndim == 1 else other.sum(-1), atol=1e-5)


class Widened(nn.Module):
    def __init__(self, width):
        super().__init__()


class Twice(nn.Module):
    def forward(self, x):
        return x, x


def test_a_class_is_taken_where_it_says_enough():
    vae = pv.VAE(6, 3, prior=torch.distributions.Laplace, likelihood=dist.Normal, encoder=pv.MLP)
    assert str(vae.likelihood.spec), str(vae.prior.spec) == ("Normal", "Laplace")
    assert str(vae.encoder.spec) == str(pv.MLP().spec)


MEANT = {
    "class": (dict(prior=Widened), r"the prior is the class Widened: give an instance, Widened\("),
    "another class": (dict(likelihood=Path), "the likelihood is the class Path"),
    "a number": (dict(likelihood=3), r"the likelihood is a line such as 'Normal\(.*, got 3"),
    "nothing": (dict(prior=None), "the prior is a line such as 'Normal', got None"),
    "a width": (dict(encoder=5), r"the encoder is a list of widths, as \[5\], or a line, got 5"),
    "modules": (dict(encoder=[nn.Linear(6, 3), nn.ReLU()]), r"give nn.Sequential\(\*encoder\)"),
    "a list of modules": (dict(encoder=nn.ModuleList([nn.Linear(6, 3)])), r"Sequential\(\*encoder"),
    "two features": (dict(encoder=Twice()), "got tuple for B = 1: return its first entry alone"),
    "float64": (dict(encoder=nn.Linear(6, 3).double()), r"give encoder.to\(torch.float32\)"),
    "function": (dict(guide=lambda h: h), "the guide is a function: .* torch.nn.Module whose for"),
    "layer": (dict(decoder=torch.relu), "the decoder is a function"),
    "widths": (dict(encoder=[20, "x"]), r"MLP takes a list of widths such as \[200, 200\]"),
    "guide": (dict(guide=dist.Normal(0.0, 1.0)), "a guide without an amortized parameter"),
    "parts": (dict(prior=dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0)
    )), "MixtureSameFamily is made of more than numbers"),
    "true": (dict(prior="Flow(MAF, inverse=false)"), "false is not a value here; .* mean False"),
    "null": (dict(prior="Flow(MAF, inverse=null)"), "did you mean None"),
    "boolean": (dict(guide="SemiAmortized(Normal, through=0)"), "through is True or False, got 0"),
    "inverse": (dict(prior="Flow(MAF, inverse=1)"), "inverse is True or False, got 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", MEANT)
def test_what_is_no_line_gets_one_sentence(name):
    parts, message = MEANT[name]
    with pytest.raises(ValueError, match=message) as caught:
        pv.VAE(6, 3, **parts)
    assert len(str(caught.value).split("\n")[0]) < 200


VALUES = ["0", "-1", "1.5", "[]", "[1, 2]", "'x'", "None", "True", "inf", "1e300", "x", "learned",
          "amortized", "Normal", "learned(0)", "99999"]  # fmt: skip


@pytest.mark.slow
def test_nearly_right_lines_give_a_model_or_a_sentence():
    generator = torch.Generator().manual_seed(0)

    def pick(values):
        return values[int(torch.randint(len(values), (), generator=generator))]

    families = [n for n, kind in pv.describe().kind.items() if kind == "family"]
    structures = [n for n in REGISTRY.structures if n not in ("Flow", "VampPrior")]
    for _ in range(400):
        name = pick(families if torch.rand((), generator=generator) < 0.7 else structures)
        names = [str(n).strip("*") for n in pv.describe(name).index] or ["x"]
        line = f"{name}({', '.join(f'{n}={pick(VALUES)}' for n in {pick(names), pick(names)})})"
        role = pick(["prior", "likelihood", "guide"])
        if "99999" in line and name not in families:
            continue
        try:
            make_part(line, Ends((3,), role, None if role == "prior" else (5,)))
        except SpecError as problem:
            assert "^ column" in str(problem), line
        except Exception as problem:
            raise AssertionError(f"{line} as a {role}: {problem!r}") from problem


def test_describe_says_constraints_and_defaults_by_role():
    table = pv.describe("StudentT")
    assert list(table.index) == ["df", "loc", "scale"]
    assert table.loc["df", "prior"] == "must be given"
    assert table.loc["scale"].tolist() == ["a number greater than 0", "1.0", *["amortized"] * 2]
    assert pv.describe("Categorical").loc["categories", "guide"] == "must be given"
    assert pv.describe("Mixture").loc["components", "default"] == "10"
    assert pv.describe("VampPrior").attrs["roles"] == ("prior",)
    everything = pv.describe()
    assert {*REGISTRY.structures, "StudentT", "VonMisesFisher"} <= set(everything.index)
    assert (everything.about.str.len() > 0).mean() > 0.9
    with pytest.raises(SpecError, match="unknown name 'StudntT'; did you mean StudentT"):
        pv.describe("StudntT")


def test_what_describe_says_of_a_role_is_what_a_family_does():
    for name in ("StudentT(df=3)", "Gamma", "Bernoulli", "NegativeBinomial(total_count=3)"):
        for role in ("prior", "likelihood", "guide"):
            sources = part(name, role).sources
            said = pv.describe(name.split("(")[0])[role]
            for parameter in set(sources) - {"df", "total_count"}:
                kind = type(sources[parameter]).__name__
                assert (said[parameter] == "amortized") == (kind == "Amortized")
