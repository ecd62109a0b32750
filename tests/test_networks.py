"""Networks that people have: whatever PyTorch trains is trained, saved and loaded."""

import pyro
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import pyro_vae as pv

BITS = torch.rand(40, 4, generator=torch.Generator().manual_seed(0)).round()
IMAGES = torch.rand(40, 2, 8, 8, generator=torch.Generator().manual_seed(0)).round()
SHARED = nn.Parameter(torch.randn(4, 2) * 0.1)


class Tied(nn.Module):
    def __init__(self, transposed):
        super().__init__()
        self.weight, self.transposed = SHARED, transposed

    def forward(self, x):
        return x @ (self.weight.T if self.transposed else self.weight)


def transposed():
    layer = nn.Linear(4, 3)
    layer.weight = nn.Parameter(torch.randn(4, 3).t())
    return layer


def frozen(module):
    return module.requires_grad_(False)


NETWORKS = {
    "batch normalization before": (BITS, lambda: {"encoder": nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())}),
    "batch normalization after": (BITS, lambda: {"decoder": nn.Sequential(
        nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.ReLU())}),
    "lazy": (BITS, lambda: {
        "encoder": nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d()),
        "decoder": nn.Sequential(nn.LazyLinear(5), nn.ReLU())}),
    "lazy convolutions": (IMAGES, lambda: {"encoder": nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(4))}),
    "dropout": (BITS, lambda: {"encoder": "MLP([5], dropout=0.2)"}),
    "shared": (BITS, lambda: {"encoder": Tied(False), "decoder": Tied(True)}),
    "frozen": (BITS, lambda: {"encoder": frozen(nn.Linear(4, 5))}),
    "not contiguous": (BITS, lambda: {"encoder": transposed()}),
    "channels last": (IMAGES, lambda: {"encoder": nn.Conv2d(2, 3, 3, padding=1).to(
        memory_format=torch.channels_last)}),
    "spectral": (BITS, lambda: {"encoder": parametrizations.spectral_norm(nn.Linear(4, 5))}),
    "without weights": (BITS, lambda: {"encoder": nn.Flatten(), "decoder": nn.Identity()}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        {"aggressive": 2},
        {"free_bits": 0.1},
        {"estimator": "DReG(num_particles=3)"},
        {"validation": 0.2},
        {"callbacks": [pv.callbacks.Contractive(0.1)]},
    ],
    ids=lambda told: next(iter(told)),
)
@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_batch_statistics_go_with_every_setting(told, role):
    """One row at a time is seen in evaluation mode alone, and leaves the statistics."""
    ends = 4 if role == "encoder" else 2
    layers = nn.Sequential(nn.Linear(ends, 5), nn.BatchNorm1d(5, momentum=None), nn.ReLU())
    lines = {"encoder": "MLP([3])", "decoder": "MLP([3])"} | {role: layers}
    vae = pv.VAE(4, 2, **lines, seed=0)
    rows = len(BITS) - round(len(BITS) * told.get("validation", 0))
    pv.fit(vae, BITS, epochs=3, batch_size=20, progress=False, **told)
    assert layers[1].num_batches_tracked == 3 * -(-rows // 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_train_save_and_load(name, tmp_path):
    x, make = NETWORKS[name]
    lines = {"encoder": "MLP([3])", "decoder": "MLP([3])"}
    vae = pv.VAE(tuple(x.shape[1:]), 2, **lines | make(), seed=0)
    before = {k: p.clone() for k, p in vae.named_parameters()}
    pv.fit(vae, x, epochs=2, batch_size=20, lr=0.01, progress=False)
    moved = {k for k, p in vae.named_parameters() if not torch.equal(p, before[k])}
    assert moved == {k for k, p in vae.named_parameters() if p.requires_grad}
    again = pv.load(vae.save(tmp_path), **make())
    assert torch.equal(pv.elbo(again, x, seed=0), pv.elbo(vae, x, seed=0))


def test_layers_of_a_perceptron_are_left_out_while_it_trains():
    vae = pv.VAE(4, 2, encoder="MLP([2000], dropout=0.3)", decoder=[3], seed=0)
    assert "dropout=0.3" in str(vae.encoder.spec)
    assert "dropout" not in str(vae.decoder.spec)
    torch.manual_seed(0)
    whole, parts = vae.eval().encoder(BITS), vae.train().encoder(BITS)
    read = whole > 0
    kept = parts[read] != 0
    assert abs(kept.double().mean() - 0.7) < 5 * (0.21 / len(kept)) ** 0.5
    assert torch.allclose(parts[read][kept], whole[read][kept] / 0.7)
    with pytest.raises(ValueError, match="dropout is a fraction of at least 0 and below 1, got 1"):
        pv.MLP([3], dropout=1)


@pytest.mark.slow
def test_a_batch_of_one_is_refused_where_it_cannot_be_normalized():
    def normalized():
        encoder = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        return pv.VAE(4, 2, encoder=encoder, decoder="MLP([3])", seed=0)

    def train(**told):
        pv.fit(normalized(), epochs=1, progress=False, **told)

    loader = torch.utils.data.DataLoader(BITS, 13)
    message = "batch normalization needs two observations a step, and one batch of an epoch has one"
    for told in ({"x": BITS, "batch_size": 13}, {"x": loader}):
        with pytest.raises(ValueError, match=message):
            train(**told)
    train(x=BITS, batch_size=14)
    train(x=torch.utils.data.DataLoader(BITS, 13, drop_last=True))


def test_the_mode_of_each_layer_stays():
    layer = nn.BatchNorm1d(4).eval()
    vae = pv.VAE(4, 2, encoder=nn.Sequential(layer, nn.Linear(4, 3)))
    assert vae.training and not layer.training


def test_z_of_another_width_is_refused():
    vae = pv.VAE(4, 2, seed=0)
    for z, got in ((torch.zeros(3, 5), r"\(3, 5\)"), (torch.zeros(()), r"\(\)"), ([1.0], "list")):
        with pytest.raises(
            ValueError, match=rf"expected z, a tensor of shape \(..., 2\), got {got}"
        ):
            vae.decode(z)
    with pytest.raises(ValueError, match=r"cls is a subclass of pyro_vae.VAE, got int"):
        pv.load("nowhere", cls=int)


def test_mistyped_hooks_of_a_callback_are_told():
    for name, meant in (("after_epochs", "after_epoch"), ("on_epoch_end", "after_epoch"),
                        ("on_train_batch_end", "after_step")):  # fmt: skip
        callback = type("Mine", (pv.callbacks.Callback,), {name: lambda self, row: None})()
        with pytest.raises(ValueError, match=f"method '{name}', which nothing calls; .* {meant}"):
            pv.fit(pv.VAE(4, 2), BITS, epochs=1, callbacks=[callback], progress=False)
    helper = type("Mine", (pv.callbacks.Callback,), {"norm": lambda self: 1.0})()
    pv.fit(pv.VAE(4, 2), BITS, epochs=1, callbacks=[helper], progress=False)
    with pytest.raises(ValueError, match="a callback Mine is given twice"):
        pv.fit(pv.VAE(4, 2), BITS, epochs=1, callbacks=[helper, helper], progress=False)


@pytest.mark.parametrize("flow", ["RealNVP", "NICE", "MAF"])
def test_one_x_is_scored_under_many_draws_of_a_flow(flow):
    """Each draw's density is that of x alone under it."""
    line = f"Flow({flow}, transforms=1, hidden_features=[4])"
    vae = pv.VAE(4, 2, likelihood=line, encoder="MLP([3])", decoder="MLP([3])", seed=0)
    z, x = torch.randn(2, 5, 2), torch.randn(5, 4)
    with torch.no_grad():
        found = vae.decode(z).log_prob(x)
        alone = torch.stack([vae.decode(one).log_prob(x) for one in z])
    assert torch.allclose(found, alone, atol=1e-5)
    assert pv.elbo(vae, x, num_samples=2, seed=0).isfinite().all()


REFUSED = {
    "a flow over counts": ({"prior": "Flow(NSF, base=Poisson)"}, "density over the real numbers"),
    "a flow over points": ({"prior": "Flow(NSF, base=SpikeAndSlab)"}, "density over the real"),
    "sticks of positive numbers": ({"prior": "Transformed(Gamma, Sticks)", "latent_dim": 3},
        r"Sticks maps a number from 0 to 1, and it is given .*: use Transformed\(Beta"),
    "a logarithm of real numbers": (
        {"prior": "Transformed(Normal, [SigmoidTransform, TanhTransform, Sticks])"},
        "Sticks maps a number from 0 to 1, and it is given a number from -1 to 1"),
    "a word for a boolean of Zuko's": ({"prior": "Flow(MAF, randperm=no)"},
        "randperm is True or False, got no"),
    "a discrete family transformed": (
        {"prior": "Transformed(Poisson, ExpTransform)", "guide": "Gamma"}, "is discrete, and"),
    "second derivatives": (
        {"prior": "Gamma", "guide": "SemiAmortized(Gamma, steps=1)"}, "say through=False"),
    "no density": (
        {"latent_dim": 1, "prior": "ProjectedNormal", "guide": "ProjectedNormal"},
        "the prior ProjectedNormal cannot be drawn from, or has no density"),
    "points": ({"prior": "VampPrior(components=2, start=random)", "guide": "Delta"},
               "has density 0 at the points of the guide Delta: choose guide='Normal'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_part_cannot_do_is_said_when_the_model_is_made(name):
    said, message = REFUSED[name]
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        pv.VAE(**{"x_shape": 4, "latent_dim": 3, "seed": 0, **said})
    assert torch.equal(torch.get_rng_state(), state)


class Returns(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.forward = forward


@pytest.mark.parametrize(
    "forward, message",
    [
        (torch.fft.fft, r"features of float32, got complex64: return torch.view_as_real\("),
        (torch.Tensor.long, r"features of float32, got int64: return them \.to\(x\.dtype\)"),
        (torch.Tensor.bfloat16, r"features of float32, got bfloat16: return them \.to\(x\.dtype"),
        (lambda x: x[:1], r"features of shape \(B, ...\), got \(1, 4\) for B = 2"),
        (lambda x: x.add_(1), r"changes what it reads in place: let it read x\.clone\(\)"),
        (lambda x: pyro.param("w", torch.ones(4)) * x, "has the Pyro site 'w': a network is"),
        (lambda x, y: x, "called with one array: give a module whose forward takes that"),
        (lambda x: {"h": x}, "got dict for B = 1: return one of its entries"),
    ],
)
def test_what_is_no_array_of_features_is_refused_with_how_to_make_it_one(forward, message):
    with pytest.raises(ValueError, match=message):
        pv.VAE(4, 2, encoder=Returns(forward))


class Stateful(nn.Module):
    def get_extra_state(self):
        return {"k": 1.0}

    def set_extra_state(self, state):
        pass

    def forward(self, x):
        return x


def test_what_cannot_be_saved_or_trained_is_refused_before_training():
    with pytest.raises(ValueError, match=r"keeps 0\._extra_state, which is no tensor and cannot"):
        pv.VAE(4, 2, encoder=nn.Sequential(Stateful()))
    with pytest.raises(ValueError, match="has complex weights: make their parts two parameters"):
        pv.VAE(4, 2, encoder=nn.Linear(4, 3, dtype=torch.complex64))


class LooksUp(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.table, self.read = nn.Embedding(5, 3), read

    def forward(self, x):
        return self.table(self.read(x)).flatten(1)


def test_an_embedding_of_codes_is_answered_with_how_to_read_them():
    codes = torch.arange(60).reshape(20, 3) % 5
    said = {"likelihood": "Categorical(categories=5)", "decoder": "MLP([3])", "inputs": "raw"}
    with pytest.raises(
        ValueError, match=r"look up x\.long\(\), and leave codes be by inputs='raw'"
    ):
        pv.VAE(3, 2, encoder=LooksUp(lambda x: x), **said)
    vae = pv.VAE(3, 2, encoder=LooksUp(torch.Tensor.long), **said)
    pv.fit(vae, codes, epochs=1, progress=False)
    assert pv.elbo(vae, codes).isfinite().all()


def test_a_width_is_answered_with_a_list_of_widths():
    with pytest.raises(ValueError, match=r"the encoder is a list of widths, as \[8\]"):
        pv.VAE(4, 2, encoder=8)
