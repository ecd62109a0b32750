"""Levels of 8-bit images: probabilities sum to one and are those of the definition."""

import itertools
from typing import Any

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from pyro_vae.distributions import CoupledLogisticLevels, LogisticLevels
from pyro_vae.families.part import Ends
from pyro_vae.families.registry import make_part

pytestmark = pytest.mark.usefixtures("short_pilot")

SMALL = {"encoder": "MLP([8])", "decoder": "MLP([8])", "seed": 0}
LINES = [
    "DiscretizedLogistic", "DiscretizedLogistic(components=5)",
    "DiscretizedLogistic(components=5, coupled=True)", "DiscretizedLogistic(scale=learned(4.0))",
    "DiscretizedLogistic(components=2, coupled=True, scale=9)", "Categorical(categories=256)",
    "Mixture(DiscretizedLogistic, components=2)",
]  # fmt: skip


def parameters(n, components, dtype=torch.float32):
    """Locations within and beyond the levels, scales from 1e-4 to 1e4, ends among them."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(n, components, generator=draw, dtype=dtype) * 3
    loc = torch.rand(n, components, generator=draw, dtype=dtype) * 355 - 50
    loc[:6, 0] = torch.tensor([0.0, 255.0, -50.0, 305.0, -0.5, 127.5], dtype=dtype)
    scale = 10 ** (torch.rand(n, components, generator=draw, dtype=dtype) * 8 - 4)
    scale[:4, 0] = torch.tensor([1e-4, 1e-4, 1e4, 1e4], dtype=dtype)
    return logits, loc, scale


def images(n=24, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 4, 4), generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("components", [1, 5])
def test_probabilities_sum_to_one(components):
    p = LogisticLevels(*parameters(1000, components), levels=256)
    total = p.log_prob(torch.arange(256.0)[:, None]).double().exp().sum(0)
    assert (total - 1).abs().max() < 1e-5


def by_definition(x, logits, loc, scale, levels):
    """The log probability of one cell in 400 digits: differences of distribution functions."""
    with mpmath.workdps(400):
        numbers = [[mpmath.mpf(float(v)) for v in part] for part in (logits, loc, scale)]
        weights = [mpmath.exp(v) for v in numbers[0]]
        total = mpmath.mpf(0)
        for w, m, s in zip(weights, *numbers[1:], strict=True):
            above = 1 if x == levels - 1 else 1 / (1 + mpmath.exp(-(x + 0.5 - m) / s))
            below = 0 if x == 0 else 1 / (1 + mpmath.exp(-(x - 0.5 - m) / s))
            total += w / sum(weights) * (above - below)
        return float(mpmath.log(total)) if total > 0 else -np.inf


@pytest.mark.slow
def test_log_probabilities_are_those_of_the_definition():
    logits, loc, scale = parameters(200, 3, torch.float64)
    scale = scale.clamp(min=0.5)  # a narrower one needs more digits, 255 levels away
    p = LogisticLevels(logits, loc, scale, levels=256)
    for x in (0, 1, 100, 254, 255):
        found = p.log_prob(torch.full((200,), float(x), dtype=torch.float64))
        rows = zip(logits.tolist(), loc.tolist(), scale.tolist(), strict=True)
        exact = torch.tensor([by_definition(x, *row, 256) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


def test_far_tails_fall_as_the_logistic_does():
    """log P falls by 1 / s a level: no floor, as clamped probabilities would have."""
    one = torch.ones(1)
    p = LogisticLevels(one, 10 * one, 0.01 * one, levels=256)
    log = p.log_prob(torch.tensor([50.0, 51.0]))
    torch.testing.assert_close(log[0] - log[1], torch.tensor(100.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("x", [0.0, 1.0, 128.0, 255.0])
def test_gradients_are_finite_at_any_scale(x):
    logits, loc, scale = (v.requires_grad_() for v in parameters(1000, 2))
    LogisticLevels(logits, loc, scale, levels=256).log_prob(torch.full((1000,), x)).sum().backward()
    for v in (logits, loc, scale):
        gradient: Any = v.grad
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def frequencies_z(draws, probabilities):
    """The largest distance of frequencies from probabilities, in standard errors."""
    share = torch.bincount(draws.long().flatten(), minlength=len(probabilities)) / draws.numel()
    error = (probabilities * (1 - probabilities) / draws.numel()).sqrt()
    return ((share - probabilities) / error)[probabilities > 1e-4].abs().max()


def test_draws_and_moments_follow_the_probabilities():
    logits, loc = torch.tensor([0.0, 1.0]), torch.tensor([-0.4, 9.0])
    p = LogisticLevels(logits, loc, torch.tensor([1.5, 2.0]), levels=12)
    levels = torch.arange(12.0)
    probabilities = p.log_prob(levels).exp()
    torch.manual_seed(0)
    assert frequencies_z(p.sample(torch.Size([40_000])), probabilities) < 4.5
    mean = (levels * probabilities).sum()
    torch.testing.assert_close(p.mean, mean)
    torch.testing.assert_close(p.variance, (levels**2 * probabilities).sum() - mean**2)
    high = LogisticLevels(torch.zeros(1), torch.tensor([300.0]), torch.tensor([5.0]), 256)
    share = high.log_prob(torch.arange(256.0)).double().exp()  # single: -.004 in the place of .006
    below = 255 - torch.arange(256.0).double()
    exact = (share * below**2).sum() - (share * below).sum() ** 2
    assert high.variance.item() == pytest.approx(exact.item(), rel=1e-5)


def coupled(components, levels=3, dtype=torch.float64):
    """Three channels at two places."""
    draw = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=dtype)

    loc = levels / 2 + normal(3, 2, components)
    return CoupledLogisticLevels(
        normal(2, components), loc, normal(3, 2, components).exp() / 2,
        normal(3, 2, components).tanh(), levels,
    )  # fmt: skip


@pytest.mark.parametrize("components", [1, 3])
def test_coupled_channels_sum_to_one_and_are_those_of_the_paper(components):
    p, levels = coupled(components), 3
    every = torch.tensor(list(itertools.product(range(levels), repeat=6)), dtype=torch.float64)
    log = p.log_prob(every.reshape(-1, 3, 2))
    torch.testing.assert_close(log.exp().sum(), torch.ones((), dtype=torch.float64))
    for index in (0, 17, 301, 728):
        total, x = 0.0, every[index].reshape(3, 2).tolist()
        for place in (0, 1):
            here = 0.0
            red, green, _ = (x[c][place] - 1.0 for c in range(3))
            for k in range(components):
                a = p.coefficients[:, place, k].tolist()
                shifts = [0.0, a[0] * red, a[1] * red + a[2] * green]
                term = p.logits[place, k].item()
                for c in range(3):
                    m = p.loc[c, place, k].item() + shifts[c]
                    s = p.scale[c, place, k].item()
                    term += by_definition(int(x[c][place]), [0.0], [m], [s], levels)
                here += np.exp(term)
            total += np.log(here)
        assert log[index].item() == pytest.approx(total, abs=1e-10)


def test_coupled_draws_follow_the_probabilities():
    p = coupled(2)
    every = torch.tensor(list(itertools.product(range(3), repeat=6)), dtype=torch.float64)
    probabilities = p.log_prob(every.reshape(-1, 3, 2)).exp().float()
    torch.manual_seed(0)
    draws = p.sample(torch.Size([50_000])).flatten(1) @ (3.0 ** torch.arange(5, -1, -1)).double()
    assert frequencies_z(draws, probabilities) < 4.5


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("decoder", ["MLP([8])", "ConvDecoder([4, 4])"])
def test_models_of_images_train_save_and_load(line, decoder, tmp_path):
    x = images()
    vae = pv.VAE((3, 4, 4), 2, likelihood=line, **(SMALL | {"decoder": decoder}))
    before = {k: v.clone() for k, v in vae.named_parameters()}
    pv.fit(vae, x, epochs=2, batch_size=8, progress=False)
    assert all(not torch.equal(v, before[k]) for k, v in vae.named_parameters())
    draws = vae.sample(5, seed=0)
    assert torch.equal(draws, vae.check(draws))
    again = pv.load(vae.save(tmp_path / "model"))
    assert torch.equal(pv.elbo(vae, x, seed=0), pv.elbo(again, x, seed=0))


def test_numbers_of_a_line_count_in_levels():
    ends = Ends((2,), "likelihood", (4,))
    p = make_part("DiscretizedLogistic(loc=200, scale=amortized)", ends)(torch.zeros(1, 4))
    assert (p.base_dist.loc == 200).all()
    ends = Ends((2,), "likelihood", (400,))  # whose heads start near 0
    p = make_part("DiscretizedLogistic(components=4)", ends)(torch.zeros(1, 400))
    loc = p.base_dist.loc[0, 0]
    torch.testing.assert_close(loc, 127.5 * torch.tensor([0.25, 0.75, 1.25, 1.75]), atol=8, rtol=0)
    assert (loc.diff() > 0).all()  # components start apart


@pytest.mark.parametrize("line", LINES[:3])
@pytest.mark.parametrize(
    "value, said", [(0.5, "holds 0.5"), (256.0, "holds 256"), (-1.0, "holds -1")]
)
def test_other_numbers_are_refused(line, value, said):
    x = images().float()
    x[3, 1, 2, 0] = value
    with pytest.raises(ValueError, match=rf"{said}.*DiscretizedLogistic needs a whole number from "
                       r"0 to 255.*\(x \* 255\).round\(\).*row 3, cell \(1, 2, 0\)"):  # fmt: skip
        pv.VAE((3, 4, 4), 2, likelihood=line, **SMALL).check(x)


def test_wrong_lines_say_what_to_do():
    with pytest.raises(ValueError, match=r"coupled channels need x of shape \(C, ...\)"):
        pv.VAE(16, 2, likelihood="DiscretizedLogistic(coupled=True)", **SMALL)
    with pytest.raises(ValueError, match="levels is a whole number of at least 2"):
        pv.VAE(16, 2, likelihood="DiscretizedLogistic(levels=1)", **SMALL)
    with pytest.raises(ValueError, match="no part of a mixture"):
        line = "Mixture(DiscretizedLogistic(coupled=True), components=2)"
        pv.VAE((3, 2, 2), 2, likelihood=line, **SMALL)
    with pytest.raises(ValueError, match="missing cells need a likelihood of independent cells"):
        line = "DiscretizedLogistic(coupled=True)"
        pv.VAE((3, 2, 2), 2, likelihood=line, missing=True, **SMALL)


def test_missing_cells_drop_out_and_other_levels_are_said():
    x = images().float() // 16
    x[0, 0] = torch.nan
    line = "DiscretizedLogistic(levels=16, components=2)"
    vae = pv.VAE((3, 4, 4), 2, likelihood=line, missing=True, **SMALL)
    imputed = vae.impute(x)
    assert imputed.isfinite().all()
    assert pv.elbo(vae, x, seed=0).isfinite().all()


def test_eight_bits_are_no_data_of_a_strange_scale(recwarn):
    vae = pv.VAE((3, 4, 4), 2, likelihood="DiscretizedLogistic", **SMALL)
    pv.fit(vae, images(), epochs=1, progress=False)
    assert not [w for w in recwarn if "far from unit scale" in str(w.message)]
    read = vae.inputs(vae.as_data(images()))
    assert 0.5 < read.std() < 2


# Figures.


@pytest.mark.slow
def test_bits_per_dimension_stand_beside_nats():
    x = images()
    vae = pv.VAE((3, 4, 4), 2, likelihood="DiscretizedLogistic", **SMALL)
    nats = pv.elbo(vae, x, seed=0)
    bits = pv.bits_per_dimension(vae, nats)
    torch.testing.assert_close(bits, -nats / 48 / np.log(2))
    table = pv.assess(vae, x, num_samples=20, steps=2).table
    expected = -table["value"] / 48 / np.log(2)
    for row in ("ELBO", "log p(x)"):
        assert table["bits_per_dimension"][row] == pytest.approx(expected[row])
    assert np.isnan(table["bits_per_dimension"]["log p(x) - ELBO"])


@pytest.mark.parametrize("line", ["Normal", "Bernoulli", "Poisson"])
def test_bits_per_dimension_are_of_levels(line):
    with pytest.raises(ValueError, match="bits per dimension are of levels"):
        pv.bits_per_dimension(pv.VAE(4, 2, likelihood=line, **SMALL), 1.0)


def test_bits_per_dimension_are_of_images_beside_a_frame_too():
    frame = pd.DataFrame({"g": ["a", "b"] * 5})
    vae = pv.VAE(
        (3, 4, 4),
        2,
        likelihood="DiscretizedLogistic",
        condition=pv.Design.of("~ g", frame),
        **SMALL,
    )
    assert pv.bits_per_dimension(vae, -48 * np.log(2)) == pytest.approx(1.0)


def test_bits_per_dimension_are_of_one_number_of_dimensions():
    told = {"likelihood": "Categorical(categories=5)", "seed": 0}
    ragged = pv.VAE((None,), 2, encoder="GRU(4)", decoder="GRU(4)", **told)
    holes = pv.VAE(4, 2, missing=True, **told)
    for vae in (ragged, holes):
        with pytest.raises(ValueError, match="without missing cells"):
            pv.bits_per_dimension(vae, 1.0)


@pytest.mark.slow
def test_levels_compare_with_levels_and_not_with_densities():
    x = images().float()
    lines = ["DiscretizedLogistic", "Categorical(categories=256)", "Dequantized(Normal)"]
    models = {line: pv.VAE((3, 4, 4), 2, likelihood=line, **SMALL) for line in lines}
    assert len(pv.compare(models, x, num_samples=5, seed=0).table) == 3
    models["Normal"] = pv.VAE((3, 4, 4), 2, likelihood="Normal", **SMALL)
    with pytest.raises(ValueError, match="gives probabilities of cell 0, Normal densities"):
        pv.compare(models, x, num_samples=5, seed=0)


# Pictures.


@pytest.mark.slow
def test_pictures_of_levels_have_colours_between_0_and_1():
    x = images()
    vae = pv.VAE((3, 4, 4), 2, likelihood="DiscretizedLogistic", **SMALL)
    labels = np.arange(24) % 2
    drawn = [
        pv.plots.images(x), pv.plots.reconstructions(vae, x[:4]), pv.plots.samples(vae, 4),
        pv.plots.traversals(vae, x[0]), pv.plots.interpolations(vae, x[:2], x[2:4]),
        pv.plots.attribute_arithmetic(vae, x, labels, source=0, target=1),
    ]  # fmt: skip
    shown = pv.plots.images(x)
    for ax in [*drawn, shown]:
        picture: Any = ax.get_images()[0].get_array()
        assert picture.shape[-1] == 3
        inner = picture[picture < 1]
        assert 0.1 < inner.mean() < 0.9
    first = torch.tensor(np.asarray(shown.get_images()[0].get_array())[1:5, 1:5])
    torch.testing.assert_close(first, x[0].permute(1, 2, 0) / 255)
