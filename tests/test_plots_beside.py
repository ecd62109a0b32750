"""Pictures of observations with something beside them, and of arrays of other libraries."""

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae as pv
from pyro_vae import plots

pytestmark = pytest.mark.usefixtures("close_figures")

RECORD = pv.Record([pv.Block("x", (1, 4, 4)), pv.Block("c", 2, "context")])
X = {
    "x": torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round(),
    "c": torch.randn(5, 2, generator=torch.Generator().manual_seed(1)),
}


@pytest.fixture(scope="module")
def vae():
    return pv.VAE(RECORD, 2, encoder="MLP([3])", decoder="MLP([3])", seed=0)


def some(rows):
    return {name: part[rows] for name, part in X.items()}


def pixels(ax):
    return np.asarray(ax.images[0].get_array())


PICTURES = {
    "reconstructions": lambda vae, x: plots.reconstructions(vae, x(slice(None))),
    "traversals": lambda vae, x: plots.traversals(vae, x(slice(1))),
    "interpolations": lambda vae, x: plots.interpolations(vae, x(slice(2)), x(slice(2, 4))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_blocks_by_name_draw_what_packed_rows_do(vae, name):
    by_name = PICTURES[name](vae, some)
    packed = PICTURES[name](vae, lambda rows: vae.as_data(X)[rows])
    assert np.array_equal(pixels(by_name), pixels(packed))


def test_reconstructions_hold_each_observation(vae):
    assert pixels(plots.reconstructions(vae, X)).shape == (2 * 6, 5 * 6)


def test_several_observations_are_no_start_of_a_traversal(vae):
    with pytest.raises(ValueError, match=r"expected one observation, got 5: x\[0\] of an array"):
        plots.traversals(vae, X)
    with pytest.raises(ValueError, match="start has 2 observations, and end 1: pair them"):
        plots.interpolations(vae, some(slice(2)), some(slice(1)))


def test_images_of_other_libraries_are_drawn():
    images = X["x"]
    for other in (images.numpy(), images.tolist()):
        assert np.array_equal(pixels(plots.images(other)), pixels(plots.images(images)))
    levels = (255 * images).to(torch.uint8)
    assert np.allclose(pixels(plots.images(levels.numpy())), pixels(plots.images(levels)))


def test_labels_of_a_picture_are_numbers(vae):
    for labels in ([0, 1, 0, 1, 0], np.arange(5) % 2 == 0, torch.arange(5.0)):
        assert len(plots.latent_space(vae, X, labels).collections[0].get_offsets()) == 5
    for labels in ([*"abaab"], [0, 1]):
        with pytest.raises(ValueError, match=r"labels as 5 numbers.*pandas.factorize"):
            plots.latent_space(vae, X, labels)


def test_a_label_does_not_move_alone():
    vae = pv.M2((1, 4, 4), 2, 3, encoder="MLP([3])", decoder="MLP([3])", merge="MLP([3])", seed=0)
    x = vae.labelled(X["x"], [0, 1, 2, -1, -1])
    with pytest.raises(ValueError, match="do not move alone: one coordinate is a label's"):
        plots.traversals(vae, x[0])
    assert plots.interpolations(vae, x[:1], x[1:2]).images


def test_tables_of_other_columns_are_not_compared():
    table = pd.DataFrame({"a": [0.5, 1.0, 2.0], "b": [1.5, 0.0, 2.0]})
    with pytest.raises(ValueError, match="the other table has no column 'b'"):
        plots.associations(table, table.rename(columns={"b": "c"}))


def test_draws_of_a_predictive_check_have_the_holes_and_the_weights_of_the_data():
    blocks = [pv.Block("x", 2, missing=True), pv.Block("w", (), "weight")]
    parts = {"likelihood": "Normal(scale=0.1)", "encoder": "MLP([])", "decoder": "MLP([])"}
    vae = pv.VAE(pv.Record(blocks), 1, **parts, seed=0)
    with torch.no_grad():
        vae.likelihood.sources["loc"].head.weight.zero_()
        vae.likelihood.sources["loc"].head.bias.copy_(torch.tensor([9.0, 1.0]))
    x = torch.tensor([[9.0, 1.0], [9.0, torch.nan], [torch.nan, 1.0], [40.0, 40.0]])
    x = x.repeat(50, 1)
    weights = (x.nansum(1) < 50).float() + 1e-6
    ax = plots.predictive_check(vae, {"x": x, "w": weights}, num_replicates=3)
    drawn, *_, data = (np.sort(line.get_xdata()[1:]) for line in ax.lines)
    assert np.abs(drawn - data).max() < 1 and set(data.round()) == {1, 5, 9}
