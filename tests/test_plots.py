"""Pictures: each takes axes or makes its own, draws what it says, returns the axes, and saves."""

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from torch import nn

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.evaluate import Calibration, Evidence, LatentSummary
from pyro_vae.plots.pictures import _as_images

pytestmark = pytest.mark.usefixtures("close_figures")


@pytest.fixture(scope="module")
def vae():
    return pv.VAE((1, 8, 8), latent_dim=3, encoder=pv.MLP([16]), decoder=pv.MLP([16]), seed=0)


@pytest.fixture(scope="module")
def x():
    return pv.load_data("digits").test.round()


def history(epochs: int, validation: bool = True) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    table = pd.DataFrame({"elbo_train": -100.0 / epoch, "elbo_validation": np.nan}, index=epoch)
    table["kl"] = 3 - 2.0 / epoch
    table.index.name = "epoch"
    if validation:
        table["elbo_validation"] = table.elbo_train - 1
    return table


@cache
def estimators(vae, x):
    return pv.compare_estimators(vae, x, ["Trace_ELBO"], num_draws=10)


@cache
def imputations(vae, x):
    return pv.imputation_check(vae, x[:60], num_samples=10, draws=19)


DRAWINGS = {
    "learning_curves": lambda vae, x, ax: plots.learning_curves(history(40), ax=ax),
    "images": lambda vae, x, ax: plots.images(x[:10], ax=ax),
    "reconstructions": lambda vae, x, ax: plots.reconstructions(vae, x[:5], ax=ax),
    "samples": lambda vae, x, ax: plots.samples(vae, 6, ax=ax),
    "samples_by": lambda vae, x, ax: plots.samples_by({"one": vae, "two": vae}, 4, ax=ax),
    "latent_space": lambda vae, x, ax: plots.latent_space(vae, x, ax=ax),
    "gradient_variance": lambda vae, x, ax: plots.gradient_variance(estimators(vae, x), ax=ax),
    "kl_curve": lambda vae, x, ax: plots.kl_curve(history(40), ax),
    "traversals": lambda vae, x, ax: plots.traversals(vae, x[0], ax=ax),
    "interpolations": lambda vae, x, ax: plots.interpolations(vae, x[:3], x[3:6], ax=ax),
    "attribute_arithmetic": lambda vae, x, ax: plots.attribute_arithmetic(
        vae, x, torch.arange(len(x)) % 2, source=0, target=1, ax=ax
    ),
    "latent_kl": lambda vae, x, ax: plots.latent_kl(pv.latent_summary(vae, x, seed=0), ax),
    "khat": lambda vae, x, ax: plots.khat(pv.log_evidence(vae, x, num_samples=50, seed=0), ax),
    "gaps": lambda vae, x, ax: plots.gaps(pv.gaps(vae, x[:5], steps=3, num_samples=20, seed=0), ax),
    "calibration": lambda vae, x, ax: plots.calibration(
        pv.calibration(vae, 100, num_samples=19, seed=0), ax
    ),
    "predictive_check": lambda vae, x, ax: plots.predictive_check(vae, x, ax=ax),
    "posterior": lambda vae, x, ax: plots.posterior(
        pv.posterior(vae, x[:1], method="metropolis", num_samples=20, warmup=5), ax=ax
    ),
    "margin": lambda vae, x, ax: plots.margin(
        {"observed": pd.Series([1.0, 2.5, 4.0], name="kilos")}, ax
    ),
    "associations": lambda vae, x, ax: plots.associations(
        pd.DataFrame({"a": range(20), "b": ["u", "v"] * 10}), ax=ax
    ),
    "imputation_check": lambda vae, x, ax: plots.imputation_check(imputations(vae, x), ax),
    "training_curves": lambda vae, x, ax: plots.training_curves(
        pv.train_estimators(vae, x, ["Trace_ELBO"], epochs=2), ax=ax
    ),
}
# Of other kinds of x, each with a model of its own.
TOKENS = [torch.tensor([0, 1, 2]), torch.tensor([1])]


@cache
def of_tokens():
    nets = {"encoder": "GRU(4)", "decoder": "GRU(4)", "seed": 0}
    return pv.VAE((None,), 2, likelihood="Categorical(categories=3)", **nets)


@cache
def of_documents():
    nets = {"encoder": "MLP([4])", "decoder": "Topics", "seed": 0}
    return pv.VAE(6, 7, likelihood="Multinomial", **nets)


DRAWINGS |= {
    "piano_roll": lambda vae, x, ax: plots.piano_roll(TOKENS, columns=2, ax=ax),
    "reconstructed_rolls": lambda vae, x, ax: plots.reconstructed_rolls(of_tokens(), TOKENS, ax),
}


def test_every_function_has_a_drawing_here():
    """Topics have a panel each, and so no axes that are given: their test is the next one."""
    assert set(DRAWINGS) | {"save", "topics"} == set(plots.__all__)


@pytest.mark.slow
def test_topics_have_a_panel_each_and_save_a_png(tmp_path):
    vae, documents = of_documents(), torch.arange(1.0, 25.0).reshape(4, 6)
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    ax = plots.topics(vae, [*"abcdef"], documents, top=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    panels = ax.figure.axes
    assert panels[0] is ax and len(panels) == 7
    assert all(len(panel.patches) == 3 and "NPMI" in panel.get_title() for panel in panels)
    path = plots.save(ax, tmp_path / "topics.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert pyplot.imread(path)[..., :3].std() > 0.01
    assert pyplot.get_fignums() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWINGS)
def test_draws_on_the_axes_that_are_given(name, vae, x):
    figure, (left, right) = pyplot.subplots(1, 2)
    assert DRAWINGS[name](vae, x, right) is right
    assert right.has_data() and not left.has_data()
    assert pyplot.get_fignums() == [figure.number]  # no figure besides


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.slow
def test_makes_axes_saves_a_png_and_leaves_the_model_and_the_generator(name, vae, x, tmp_path):
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    ax = DRAWINGS[name](vae, x, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters())
    assert ax.has_data()
    path = plots.save(ax, tmp_path / "new" / "folder" / f"{name}.png")
    assert path == tmp_path / "new" / "folder" / f"{name}.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = pyplot.imread(path)
    assert pixels[..., :3].std() > 0.01  # something is on it
    assert pyplot.get_fignums() == []


class Noisy(nn.Sequential):
    """A network that training mode changes: with noise, and by the other rows."""

    def __init__(self, ends):
        super().__init__(nn.Flatten(), nn.Linear(ends, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))


OF_IMAGES = (
    "reconstructions", "samples", "samples_by", "latent_space", "traversals", "interpolations",
    "attribute_arithmetic",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_IMAGES)
def test_training_mode_changes_no_picture_and_drawing_no_model(name, x):
    torch.manual_seed(0)
    vae = pv.VAE((1, 8, 8), 3, encoder=Noisy(64), decoder=Noisy(3), seed=0)
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    pages = []
    for training in (False, True):
        ax = DRAWINGS[name](vae.train(training), x[:40], None)
        assert all(module.training is training for module in vae.modules())
        pages += [ax.collections[0].get_offsets() if ax.collections else ax.images[0].get_array()]
    assert np.array_equal(*pages)
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())


# Learning curves.


@pytest.mark.parametrize("validation", [True, False])
def test_learning_curves_are_the_history(validation):
    table = history(40, validation)
    ax = plots.learning_curves(table)
    columns = {"training data": "elbo_train"}
    columns |= {"validation data": "elbo_validation"} if validation else {}
    assert [line.get_label() for line in ax.lines] == list(columns)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(columns)
    for line, column in zip(ax.lines, columns.values(), strict=True):
        assert np.array_equal(line.get_xdata(), table.index)
        assert np.array_equal(line.get_ydata(), table[column])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "ELBO (nats per observation)")


@pytest.mark.parametrize("plot", [plots.learning_curves, plots.kl_curve])
def test_one_epoch_is_seen_and_ticks_are_at_whole_epochs(plot):
    for epochs, marker in ((1, "o"), (3, "None")):
        ax = plot(history(epochs))
        assert ax.lines[0].get_marker() == marker
        assert all(tick == round(tick) for tick in ax.get_xticks())


@pytest.mark.parametrize("epochs", [1, 2, 100])
def test_learning_curves_show_the_end_whole_and_not_the_plunge_of_the_start(epochs):
    table = history(epochs)
    low, high = plots.learning_curves(table).get_ylim()
    later = table.iloc[epochs // 20 :]
    assert low < later.elbo_validation.min() and later.elbo_train.max() < high
    if epochs == 100:
        assert low > table.elbo_train.iloc[0]


def test_curves_stand_over_steps_or_seconds_alone(vae, x):
    found = pv.train_estimators(vae, x[:20], ["Trace_ELBO"], epochs=1)
    with pytest.raises(ValueError, match="against is 'steps' or 'seconds', got 'step'"):
        plots.training_curves(found, against="step")


def test_the_kl_curve_is_the_history_and_shows_zero():
    ax = plots.kl_curve(history(40))
    (line,) = ax.lines
    assert np.array_equal(line.get_ydata(), history(40).kl)
    assert ax.get_ylim()[0] == 0


# Images.

SHAPES = {  # the shape of x, and of the picture with 4 columns: a frame of 1 around each image
    "grey": ((6, 1, 5, 7), (2 * 7, 4 * 9)),
    "colour": ((6, 3, 5, 7), (2 * 7, 4 * 9, 3)),
    "no channels": ((6, 5, 7), (2 * 7, 4 * 9)),
    "vectors": ((6, 25), (2 * 7, 4 * 7)),
    "one": ((1, 1, 5, 7), (7, 4 * 9)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_images_stand_in_rows_in_their_order(case):
    shape, picture = SHAPES[case]
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    ax = plots.images(x, columns=4, title="six")
    drawn = torch.as_tensor(np.array(ax.images[0].get_array()))
    assert tuple(drawn.shape) == picture
    assert ax.get_title() == "six" and not ax.axison
    pictures = _as_images(x)
    h, w = pictures.shape[1:3]
    for i, image in enumerate(pictures):
        top, left = (i // 4) * (h + 2) + 1, (i % 4) * (w + 2) + 1
        found = drawn[top : top + h, left : left + w]
        assert torch.equal(found.reshape(image.shape), image)


def test_a_large_value_is_dark_on_light():
    ax = plots.images(torch.tensor([[0.0, 1.0, 0.0, 1.0]]), columns=1)
    shown = ax.images[0]
    dark, light = (np.mean(shown.cmap(shown.norm(v))[:3]) for v in (1.0, 0.0))
    assert dark < 0.1 and light > 0.9


NO_IMAGES = {
    "not square": ((4, 10), "10 numbers are no square image: reshape x to"),
    "two channels": ((4, 2, 5, 5), r"C 1 or 3, got \(4, 2, 5, 5\)"),
    "channels last": ((4, 5, 5, 3), r"C 1 or 3, got \(4, 5, 5, 3\)"),
    "five dimensions": ((1, 4, 1, 5, 5), r"expected images of shape \(N, C, H, W\)"),
    "one dimension": ((25,), r"expected images .* got \(25,\)"),
}


@pytest.mark.parametrize("case", NO_IMAGES)
def test_what_is_no_image_is_refused(case):
    shape, message = NO_IMAGES[case]
    with pytest.raises(ValueError, match=message):
        plots.images(torch.zeros(shape))
    assert pyplot.get_fignums() == []


def test_samples_of_vectors_that_are_no_images_are_refused():
    vae = pv.VAE(10, latent_dim=2, encoder=pv.MLP([4]), decoder=pv.MLP([4]), seed=0)
    for draw in (plots.samples, lambda v: plots.reconstructions(v, torch.ones(4, 10))):
        with pytest.raises(ValueError, match="10 numbers are no square image"):
            draw(vae)


def cells(ax, columns: int) -> torch.Tensor:
    """The 8x8 images of a picture, row by row, without their frames."""
    drawn = torch.as_tensor(np.array(ax.images[0].get_array()))
    rows = drawn.shape[0] // 10
    grid = drawn.reshape(rows, 10, columns, 10).transpose(1, 2)
    return grid.reshape(-1, 10, 10)[:, 1:-1, 1:-1]


@pytest.mark.parametrize("n", [1, 5, 12, 15])
def test_each_reconstruction_stands_beneath_its_observation(n, vae, x):
    columns = min(n, 12)
    drawn = cells(plots.reconstructions(vae, x[:n]), columns)
    means = vae.reconstruct(x[:n])
    first = drawn[: 2 * columns]
    assert torch.equal(first[:columns], x[:columns, 0])
    assert torch.equal(first[columns:], means[:columns, 0])
    if n == 15:  # a row that is not full: 3 data, and beneath each its own reconstruction
        second = drawn[2 * columns :]
        assert torch.equal(second[:3], x[12:15, 0])
        assert torch.equal(second[columns : columns + 3], means[12:15, 0])


def test_samples_are_means_of_draws_from_the_prior_by_seed(vae):
    drawn = cells(plots.samples(vae, 64, seed=5), 11)[:64]
    assert torch.equal(drawn, vae.sample(64, mean=True, seed=5)[:, 0])
    other = cells(plots.samples(vae, 64, seed=6), 11)[:64]
    assert not torch.equal(drawn, other)


# The latent space.

LATENT = {  # dimensions of z: the names of the axes
    1: ("z[0]", ""),
    2: ("z[0]", "z[1]"),
    5: ("component 1 (", "component 2 ("),
}


@pytest.mark.parametrize("dim", LATENT)
def test_latent_space_has_a_point_an_observation(dim, x):
    vae = pv.VAE((1, 8, 8), dim, encoder=pv.MLP([16]), decoder=pv.MLP([16]), seed=0)
    ax = plots.latent_space(vae, x)
    (points,) = ax.collections
    offsets = np.asarray(points.get_offsets())
    assert offsets.shape == (len(x), 2)
    names = ax.get_xlabel(), ax.get_ylabel()
    assert all(name.startswith(start) for name, start in zip(names, LATENT[dim], strict=True))
    assert ax.get_title() == "Means of q(z|x)" and ax.get_legend() is None
    means = vae.encode(x).mean.detach().numpy()
    if dim == 2:
        assert np.allclose(offsets, means)
    elif dim == 5:  # the largest two variances that a plane can show
        values = np.linalg.eigvalsh(np.cov(means.T.astype(float)))[::-1]
        assert np.allclose(offsets.var(axis=0, ddof=1), values[:2])
        assert names[0] == f"component 1 ({values[0] / values.sum():.0%})"


def test_one_observation_is_drawn_as_it_is(vae, x):
    ax = plots.latent_space(vae, x[:1])  # as of a run whose test data it is
    z = vae.encode(x[:1]).mean.detach().numpy()
    assert np.allclose(ax.collections[0].get_offsets(), z[:, :2])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z[0]", "z[1]")


def test_few_labels_have_a_colour_and_a_name_each(vae, x):
    labels = torch.arange(len(x)) % 4
    ax = plots.latent_space(vae, x, labels)
    (points,) = ax.collections
    assert np.array_equal(points.get_array(), labels)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [re.sub(r"\D", "", name) for name in names] == ["0", "1", "2", "3"]


def test_many_labels_have_a_scale_and_no_legend(vae, x):
    ax = plots.latent_space(vae, x, torch.linspace(0, 1, len(x)))
    assert ax.get_legend() is None and ax.collections[0].get_cmap().name == "viridis"
    _, scale = ax.figure.axes
    assert scale.get_ylim() == (0, 1) and scale.get_ylabel() == "label"


def test_few_labels_that_lie_far_apart_have_colours_of_their_own(vae, x):
    values = torch.tensor([0, 1, 2, 200])
    ax = plots.latent_space(vae, x, values[torch.arange(len(x)) % 4])
    assert len(np.unique(ax.collections[0].to_rgba([0, 1, 2, 3]), axis=0)) == 4
    assert ax.collections[0].get_array().tolist()[:4] == [0, 1, 2, 3]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1", "2", "200"]


# Walks through the latent space.


def test_a_traversal_moves_one_coordinate_through_the_priors_quantiles(vae, x):
    drawn = cells(plots.traversals(vae, x[0], dims=[2, 0], steps=5), 5).reshape(2, 5, 8, 8)
    z = vae.encode(x[:1]).mean.detach()
    for row, dim in zip(drawn, [2, 0], strict=True):
        for image, share in zip(row, torch.linspace(0.01, 0.99, 5), strict=True):
            moved = z.clone()
            moved[:, dim] = torch.distributions.Normal(0.0, 1.0).icdf(share)
            expected = vae.decode(moved).mean.detach()[0, 0]
            assert (image - expected).abs().max() < 0.05  # 2001 draws give the quantiles
    apart = drawn[0, 0] - drawn[0, -1]
    assert apart.abs().max() > 0.01  # it does move
    names = [text.get_text() for text in plots.traversals(vae, x[0], dims=[2, 0]).texts]
    assert names == ["z[2]", "z[0]"]


@pytest.mark.parametrize(
    ("prior", "guide"),
    [("Dirichlet(0.5)", "Dirichlet"), ("OneHotCategorical", "OneHotCategorical")],
)
def test_coordinates_that_do_not_move_alone_are_refused(prior, guide, x):
    small = {"encoder": pv.MLP([4]), "decoder": pv.MLP([4]), "seed": 0}
    vae = pv.VAE((1, 8, 8), 3, prior=prior, guide=guide, **small)
    with pytest.raises(ValueError, match="coordinates of z do not move alone"):
        plots.traversals(vae, x[0])
    assert pyplot.get_fignums() == []


def test_interpolations_stand_between_their_data(vae, x):
    drawn = cells(plots.interpolations(vae, x[:2], x[2:4], steps=3), 5).reshape(2, 5, 8, 8)
    assert torch.equal(drawn[:, 0], x[:2, 0]) and torch.equal(drawn[:, -1], x[2:4, 0])
    for i, row in enumerate(drawn):
        assert torch.equal(row[1:4], vae.interpolate(x[i], x[i + 2], 3)[:, 0])


def test_attribute_arithmetic_adds_the_difference_of_the_means(vae, x):
    labels = (torch.arange(len(x)) % 3).numpy()
    ax = plots.attribute_arithmetic(vae, x, labels, source=2, target=1, steps=3, rows=2)
    drawn = cells(ax, 4).reshape(2, 4, 8, 8)
    z = vae.encode(x).mean.detach()
    step = z[1::3].mean(0) - z[2::3].mean(0)
    for row, i in zip(drawn, (2, 5), strict=True):
        assert torch.equal(row[0], x[i, 0])
        for image, t in zip(row[1:], (0.0, 0.5, 1.0), strict=True):
            assert torch.allclose(image, vae.decode(z[i] + t * step).mean.detach()[0], atol=1e-6)
    with pytest.raises(ValueError, match=r"no observation has the label 7; there are \[0, 1, 2\]"):
        plots.attribute_arithmetic(vae, x, labels, source=7, target=1)


# Whether to believe the model.


def test_latent_kl_stands_by_size_and_greys_what_has_collapsed():
    dimensions = pd.DataFrame({
        "kl": [0.0, 2.0, 1.0], "kl_error": 0.1, "activity": [0.0, 1.0, 0.5],
        "active": [False, True, True], "aggregate_kl": 0.0,
    })  # fmt: skip
    ax = plots.latent_kl(LatentSummary(pd.DataFrame(), dimensions, 10, 2.3))
    heights = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in ax.patches}
    assert [heights[i] for i in sorted(heights)] == [2.0, 1.0, 0.0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "0"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["active", "collapsed"]
    with pytest.raises(ValueError, match="no density by dimension"):
        unknown = dimensions.assign(kl=np.nan)
        plots.latent_kl(LatentSummary(pd.DataFrame(), unknown, 10, 2.3))


def test_khat_marks_those_above_the_threshold():
    khat = torch.tensor([0.2, 0.71, float("-inf"), 0.69])
    found = Evidence(-torch.arange(4.0), torch.zeros(4), khat, 100)
    ax = plots.khat(found)
    trusted, doubtful = (np.asarray(c.get_offsets()) for c in ax.collections)
    assert doubtful.tolist() == pytest.approx(np.array([[-1.0, 0.71]]))
    assert trusted[:, 1].tolist() == pytest.approx([0.2, 0.0, 0.69])  # no tail: at the foot
    assert ax.get_title() == "k-hat: 25.0% above 0.7"
    with pytest.raises(ValueError, match="3 draws are too few"):
        plots.khat(Evidence(found.log_evidence, khat, khat * np.nan, 3))


def test_gaps_are_means_and_dots():
    table = pd.DataFrame({
        "log_evidence": [0.0, 1.0], "elbo": [-2.0, -2.0], "elbo_local": [-1.0, 0.0],
        "elbo_full": [-0.5, 0.5], "approximation": [1.0, 1.0], "amortization": [1.0, 2.0],
    })  # fmt: skip
    ax = plots.gaps(table)
    assert [bar.get_width() for bar in ax.patches] == [2.5, 1.5, 1.0, 0.5]
    dots = [
        np.asarray(c.get_offsets())[:, 0].tolist()
        for c in ax.collections
        if len(c.get_offsets()) == 2
    ]
    assert dots[:1] == [[2.0, 3.0]]


@pytest.mark.slow
def test_calibration_colours_only_what_leaves_the_band():
    draw = np.random.default_rng(0)
    u = draw.integers(0, 100, (1000, 5))
    names = ["z[0]", "z[1]", "z[2]", "z[3]", "log_likelihood"]
    even = Calibration(pd.DataFrame(u, columns=names), 99)
    assert plots.calibration(even).get_legend() is None
    u[:, 1] = 99 * draw.beta(0.5, 0.5, 1000)  # too narrow a guide
    uneven = Calibration(pd.DataFrame(u, columns=names), 99)
    ax = plots.calibration(uneven)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["z[1]"]
    (line,) = [line for line in ax.lines if line.get_label() == "z[1]"]
    heights = line.get_ydata()
    assert heights[20] > 0 > heights[80]  # up first, then down


def test_lines_of_many_columns_are_told_apart():
    ranks = pd.DataFrame(np.zeros((50, 15), int), columns=[f"z[{i}]" for i in range(15)])
    ax = plots.calibration(Calibration(ranks, 19))
    looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert len(looks) == len(ax.lines) == 15 and not any(colour == "C7" for colour, _ in looks)
    ax.figure.canvas.draw()  # its names hide no line
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


@pytest.mark.slow
def test_the_band_holds_all_lines_together_as_often_as_it_says():
    draw, columns, outside = np.random.default_rng(1), 8, 0
    for _ in range(60):
        ranks = pd.DataFrame(draw.integers(0, 20, (200, columns)))
        ax = plots.calibration(Calibration(ranks, 19))
        outside += ax.get_legend() is not None
        pyplot.close("all")
    assert outside <= 4  # 0.6 are expected of 60; five or more have a probability of 0.0004


def test_a_predictive_check_shows_the_data_and_its_replicates(vae, x):
    ax = plots.predictive_check(vae, x, lambda some: some.amax((1, 2, 3)), 3, seed=1)
    assert len(ax.lines) == 4
    observed = ax.lines[-1]
    assert observed.get_label() == "data" and observed.get_linewidth() == 2
    assert set(observed.get_xdata()[1:]) <= {0.0, 1.0}


def test_a_statistic_is_a_number_of_each_observation(vae, x):
    for statistic in (lambda some: some.mean(), lambda some: some.flatten(1)):
        with pytest.raises(ValueError, match=r"a number of each observation, \(5,\), got a shape"):
            plots.predictive_check(vae, x[:5], statistic, 2, seed=1)
    plots.predictive_check(vae, x[:5], lambda some: some.flatten(1).numpy().max(1), 2, seed=1)


def test_models_in_rows_have_names(vae):
    for given in ([vae], {}):
        with pytest.raises(ValueError, match="models are given by name"):
            plots.samples_by(given)


def test_coordinates_that_are_not_there_are_refused(vae, x):
    for dims in ([3], [0, 0.5], -4):
        with pytest.raises(ValueError, match="a coordinate of z is a whole number from -3 to 2"):
            plots.traversals(vae, x[0], dims=dims)
    draws = pv.posterior(vae, x[:2], method="metropolis", num_samples=20, warmup=5)
    with pytest.raises(ValueError, match="observation is a whole number from 0 to 1, got 2"):
        plots.posterior(draws, 2)
    with pytest.raises(ValueError, match="dims is a whole number from 0 to 2, got 3"):
        plots.posterior(draws, dims=(0, 3))
    with pytest.raises(ValueError, match=r"dims are two latent dimensions, such as \(0, 1\)"):
        plots.posterior(draws, dims=(0,))


def test_the_posterior_stands_beside_the_guide(vae, x):
    draws = pv.posterior(vae, x[:1], method="metropolis", num_samples=20, warmup=5)
    ax = plots.posterior(draws, dims=(2, 0))
    offsets = [np.asarray(c.get_offsets()) for c in ax.collections]
    for found, group in zip(offsets, ("posterior", "guide"), strict=True):
        z = np.asarray(draws[group]["z"])[:, :, 0].reshape(-1, 3)
        assert np.allclose(found, z[:, [2, 0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z[2]", "z[0]")
