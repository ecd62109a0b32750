"""Images as people have them: 8-bit, channels last, of PIL, in folders; networks of any size."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

import pyro_vae as pv
from helpers.commands import run
from pyro_vae.data.pictures import channels_first, warn_of_layout
from pyro_vae.families.networks import make_network
from pyro_vae.families.residual import group_norm

pytestmark = pytest.mark.usefixtures("short_pilot")

SMALL = {"encoder": "MLP([8])", "decoder": "MLP([8])", "seed": 0}
BITS = "DiscretizedLogistic"
TOLD = {"epochs": 1, "batch_size": 10, "progress": False}


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def same(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(p, q) for p, q in pairs)


# Layouts.


def trained(x, **told):
    vae = pv.VAE((3, 6, 5), 2, likelihood=BITS, **SMALL)
    pv.fit(vae, x, **TOLD, **told)
    return vae


@pytest.mark.slow
def test_channels_may_come_last():
    last = pixels(30, 6, 5, 3)
    first = trained(np.ascontiguousarray(np.moveaxis(last, -1, 1)))
    assert same(first, trained(last, layout="HWC"))
    assert same(first, trained(torch.from_numpy(last), layout="HWC"))
    held = trained(last, layout="HWC", validation=last[:4])
    assert same(held, trained(np.moveaxis(last, -1, 1), validation=np.moveaxis(last[:4], -1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 6, 1), (5, 7, 4), (6, 5, 5, 3)], ids=str)
def test_shapes_of_channels_last_are_said_and_the_advice_works(shape):
    *places, last = shape
    x, first = torch.rand(4, *shape), (last, *places)
    told = {"likelihood": "Normal", "encoder": "MLP([4])", "decoder": "MLP([4])"}
    once = {"epochs": 1, "progress": False, "compile": False}
    with pytest.warns(UserWarning, match=r"channels come last.*--layout HWC") as said:
        pv.fit(pv.VAE(shape, 2, **told), x, **once)
    assert len(said) == 1 and f"VAE({first}, ...)" in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pv.fit(pv.VAE(first, 2, **told), x, layout="HWC", **once)


@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (64, 4, 4), (20, 3), (12,), (3, 8, 3), (2, 2, 3)], ids=str
)
def test_other_shapes_are_not_taken_for_channels_last(shape):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_layout(shape)


def test_a_misplaced_axis_is_put_right_by_what_the_message_says():
    told = {"encoder": "MLP([4])", "decoder": "MLP([4])", "likelihood": "Normal", "seed": 0}
    for shape in ((3, 6, 5), (3, 4, 6, 5)):
        vae = pv.VAE(shape, 2, **told)
        last = np.random.default_rng(0).random((7, *shape[1:], 3), dtype=np.float32)
        for x in (last, last[0]):  # several, and one alone
            with pytest.raises(ValueError, match=r"channels come first: x\.transpose") as wrong:
                vae.encode(x)
            right = eval(re.search(r"x\.transpose\([\d, ]+\)(\[None\])?", str(wrong.value))[0])
            rows = np.moveaxis(last, -1, 1)[: len(right)]
            assert np.array_equal(right, rows) and vae.encode(right).batch_shape == (len(rows),)


@pytest.mark.slow
def test_channels_last_on_disk_stay_there(tmp_path):
    last = pixels(30, 6, 5, 3)
    np.save(tmp_path / "x.npy", last)
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(channels_first(rows, "HWC"), np.memmap)
    assert same(trained(rows, layout="HWC"), trained(np.load(tmp_path / "x.npy"), layout="HWC"))


def test_layouts_that_are_none_are_refused():
    vae = pv.VAE((3, 6, 5), 2, likelihood=BITS, **SMALL)
    with pytest.raises(ValueError, match="layout is 'CHW' or 'HWC', got 'NHWC'"):
        pv.fit(vae, pixels(30, 6, 5, 3), layout="NHWC")
    with pytest.raises(ValueError, match=r"channels come first.*layout='HWC'"):
        pv.fit(vae, pixels(30, 6, 5, 3))
    with pytest.raises(ValueError, match=r"images \(N, H, W, C\), got an array of shape \(30, 6\)"):
        pv.fit(vae, pixels(30, 6), layout="HWC")
    with pytest.raises(ValueError, match=r"channels first, x.transpose\(0, 3, 1, 2\), or permute"):
        pv.fit(vae, {"x": pixels(30, 6, 5, 3)}, layout="HWC")
    with pytest.raises(ValueError, match="layout='HWC' is of arrays, got Pictures"):
        pv.fit(vae, Pictures(), layout="HWC")


# PIL, and torchvision's transforms.


@pytest.mark.slow
def test_pictures_of_pil_are_taken_as_they_are():
    x = pixels(30, 6, 5, 3)
    colour = [Image.fromarray(v) for v in x]
    vae = pv.VAE((3, 6, 5), 2, likelihood=BITS, **SMALL)
    assert torch.equal(vae.as_data(colour), torch.from_numpy(x).movedim(-1, 1).float())
    grey = pv.VAE((1, 6, 5), 2, likelihood=BITS, **SMALL)
    taken = grey.as_data([Image.fromarray(v[..., 0]) for v in x])
    assert torch.equal(taken[:, 0], torch.from_numpy(x[..., 0]).float())
    assert same(trained(colour), trained(x, layout="HWC"))
    with pytest.raises(ValueError, match="the first one has 5x6 pixels, number 1 4x6: size=64"):
        vae.as_data([colour[0], Image.fromarray(x[1][:, :4])])


class Pictures(Dataset):
    """Pictures of PIL, as torchvision's folders and data sets give them."""

    def __init__(self, transform=lambda picture: picture):
        self.x, self.transform = pixels(30, 6, 5, 3), transform

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.x[i]))


def test_datasets_of_pictures_are_read():
    vae = pv.VAE((3, 6, 5), 2, likelihood=BITS, **SMALL)
    whole = torch.from_numpy(Pictures().x).movedim(-1, 1).float()
    assert torch.equal(vae.as_data(Pictures()), whole)
    pv.fit(vae, Pictures(), **TOLD)


@pytest.mark.slow
def test_augmentation_is_a_transform_of_torchvision():
    from torchvision.transforms import v2

    flip = Pictures(v2.Compose([v2.RandomHorizontalFlip(1.0), v2.PILToTensor()]))
    vae = pv.VAE((3, 6, 5), 2, likelihood=BITS, **SMALL)
    whole = torch.from_numpy(Pictures().x).movedim(-1, 1).float()
    assert torch.equal(vae.as_data(flip), whole.flip(-1))
    pv.fit(vae, flip, **TOLD)


# Folders.


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "pets"
    for name in ("cats", "dogs"):
        (where / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(pixels(12, 16 + i, 3, seed=i)).save(where / name / f"{i}.png")
    (where / "notes.txt").write_text("no picture")
    return where


def test_a_folder_of_pictures_is_a_data_set(folder):
    data = pv.load_data(str(folder), size=8)
    assert data.train.shape == (18, 3, 8, 8) and data.train.dtype == torch.uint8
    assert (data.levels, data.name) == (256, "pets")
    whole = pv.load_data(str(folder), size=8, held_out=1.0)
    first = Image.open(folder / "cats" / "0.png").resize((8, 8), 4, box=(2, 0, 14, 12))
    assert torch.equal(whole.test[0], torch.from_numpy(np.array(first)).movedim(-1, 0))
    assert whole.test_labels.tolist() == [0] * 10 + [1] * 10


@pytest.mark.slow
def test_folders_that_are_none_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"pictures of different sizes.*size=64 \(--size 64\)"):
        pv.load_data(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no picture: files of \.png"):
        pv.load_data(str(tmp_path / "empty"))
    (folder / "cats" / "0.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(ValueError, match=r"0.png is no picture that can be read"):
        pv.load_data(str(folder), size=8)
    with pytest.raises(ValueError, match="size is of a folder of pictures, and 'digits' is none"):
        pv.load_data("digits", size=8)


@pytest.mark.slow
def test_the_command_line_takes_a_folder(folder, tmp_path):
    from typer.testing import CliRunner

    from pyro_vae.cli import app

    told = ["fit", str(folder), "--size", "8", "--epochs", "1", "--out", str(tmp_path / "run")]
    told += ["--encoder", "ResNet([4])", "--decoder", "ResNet([4])", "--no-progress"]
    shown = CliRunner().invoke(app, told)
    assert shown.exit_code == 0, shown.output
    assert "bits per dimension" in shown.output
    vae = pv.load(tmp_path / "run")
    assert "DiscretizedLogistic(components=5, levels=256)" in str(vae.describe()["likelihood"])
    assert (tmp_path / "run" / "pictures" / "samples.png").exists()
    for command in ("encode", "compress"):  # the pictures of a folder, as they were trained on
        done = CliRunner().invoke(app, [command, str(tmp_path / "run"), str(folder)])
        assert done.exit_code == 0, done.output
    assert len(np.load(folder.with_name(f"{folder.name}-z.npy"))) == len(
        list(folder.rglob("*.png"))
    )


# Coloured shapes.


@pytest.mark.slow
def test_coloured_shapes_are_what_their_attributes_say():
    x, about = pv.coloured_shapes(300, seed=1)
    assert x.shape == (300, 3, 32, 32)
    again, same_rows = pv.coloured_shapes(300, seed=1)
    assert torch.equal(x, again)
    pd.testing.assert_frame_equal(about, same_rows)
    ink = (x.float().mean(1) < 190).float()  # neither the ground nor the lenses
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    middle = (ink * columns).sum((1, 2)) / ink.sum((1, 2))
    assert np.abs(middle.numpy() - about["x"]).max() < 0.6
    round_ones = (about["shape"] != "triangle").to_numpy()
    height = (ink * rows).sum((1, 2)) / ink.sum((1, 2))
    assert np.abs(height.numpy() - about["y"])[round_ones].max() < 0.6
    for colour, (r, g, b) in {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}.items():
        at = [(int(y) + 6, int(c)) for y, c in zip(about["y"], about["x"], strict=True)]
        seen = torch.stack([v[:, i, j] for v, (i, j) in zip(x, at, strict=True)])
        strongest = seen[torch.tensor((about["colour"] == colour).to_numpy())].argmax(1)
        assert (strongest == [r, g, b].index(1)).all()
    dark = (x.float().amax(1) < 45).sum((1, 2)) > 5
    assert (dark.numpy() == about["glasses"]).all()


@pytest.mark.slow
def test_attributes_are_independent_and_even():
    _, about = pv.coloured_shapes(2000, seed=0)
    for name, share in (("shape", 1 / 3), ("colour", 1 / 4), ("glasses", 1 / 2)):
        z = (about[name].value_counts() / 2000 - share) / (share * (1 - share) / 2000) ** 0.5
        assert z.abs().max() < 4
    both = pd.crosstab(about["shape"], about["glasses"]) / 2000
    assert (both - 1 / 6).abs().to_numpy().max() < 4 * (5 / 36 / 2000) ** 0.5


@pytest.mark.slow
def test_coloured_shapes_are_a_source():
    data = pv.load_data("shapes", seed=2)
    assert data.train.shape == (5000, 3, 32, 32) and data.test.shape == (1000, 3, 32, 32)
    assert data.train_attributes is not None and len(data.train_attributes) == 5000
    names = np.array(["disc", "square", "triangle"])
    assert (names[data.test_labels] == data.test_attributes["shape"]).all()


# Sources of colour.


class Held:
    """What torchvision's data sets of colour hold."""

    def __init__(self, root, train=True, split="", download=False, **options):
        n = 6 if train and split != "test" else 3
        self.data, self.targets = pixels(n, 32, 32, 3), list(range(n))
        if split:
            self.data, self.labels = np.moveaxis(self.data, -1, 1), np.arange(n, dtype=np.int64)
            del self.targets
        self.attr_names = ["hat", "glasses", ""]
        self.rows = [(Image.fromarray(v), torch.tensor([i % 2, 1])) for i, v in enumerate(
            pixels(n, 218, 178, 3))] if "target_type" in options else []  # fmt: skip

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


@pytest.mark.parametrize("name, attribute", [("cifar10", "CIFAR10"), ("svhn", "SVHN")])
def test_sources_of_colour_give_channels_first(name, attribute, tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets, attribute, Held)
    data = pv.load_data(name, tmp_path)
    assert data.train.shape == (6, 3, 32, 32) and data.test.shape == (3, 3, 32, 32)
    assert torch.equal(data.train, torch.from_numpy(pixels(6, 32, 32, 3)).movedim(-1, 1))
    assert data.test_labels.tolist() == [0, 1, 2] and data.levels == 256


def test_faces_come_with_their_attributes(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets, "CelebA", Held)
    data = pv.load_data("celeba", tmp_path)
    assert data.train.shape == (6, 3, 64, 64)
    assert data.test_attributes.to_dict("list") == {
        "hat": [False, True, False], "glasses": [True, True, True],
    }  # fmt: skip


def test_sprites_are_read_from_their_file(tmp_path):
    with pytest.raises(ValueError, match=r"dSprites is not in .*give root="):
        pv.load_data("dsprites", tmp_path)
    imgs = pixels(40, 64, 64) % 2
    classes = np.arange(240).reshape(40, 6)
    name = "dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz"
    metadata = np.array({"a": 1}, dtype=object)
    np.savez_compressed(tmp_path / name, imgs=imgs, latents_classes=classes, metadata=metadata)
    data = pv.load_data("dsprites", tmp_path)
    assert data.train.shape == (36, 1, 64, 64) and set(data.train.unique().tolist()) == {0, 1}
    row = data.test_attributes.iloc[0]
    assert torch.equal(data.test[0, 0], torch.from_numpy(imgs[row["colour"] // 6]))


# Residual networks.

SHAPES = [(1, 8, 8), (3, 32, 32), (2, 7, 5), (3, 1, 9), (9, 3), (16, 1), (2, 5, 6, 7), (1, 4, 4, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_residual_networks_are_of_any_size(shape):
    lines = {"encoder": "ResNet([8, 4])", "decoder": "ResNet([4, 8])"}
    vae = pv.VAE(shape, 3, likelihood="Normal", **lines, seed=0)
    x = torch.randn(6, *shape)
    before = {k: v.clone() for k, v in vae.named_parameters()}
    pv.fit(vae, x, **TOLD)
    assert vae.reconstruct(x).shape == x.shape
    moved = [k for k, v in vae.named_parameters() if not torch.equal(v, before[k])]
    assert moved == list(before)
    heads = [m for m in vae.likelihood.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if len(shape) == 3:  # a head at each place, the same everywhere
        assert all(isinstance(head, nn.Conv2d) for head in heads) and heads


@pytest.mark.parametrize("missing, z", [(True, 3), (False, (2, 4, 4)), (False, (3, 8, 8))])
def test_residual_networks_read_masks_and_any_z(missing, z):
    lines = {"encoder": "ResNet([4])", "decoder": "ResNet([4, 4])"}
    vae = pv.VAE((3, 9, 8), z, likelihood="Normal", missing=missing, **lines, seed=0)
    x = torch.randn(4, 3, 9, 8)
    assert pv.elbo(vae, x, seed=0).isfinite().all()


@pytest.mark.slow
def test_residual_networks_say_themselves_again(tmp_path):
    line = "ResNet([8, 4], blocks=2, activation='Tanh')"
    assert str(make_network(line).spec) == line
    x = pixels(8, 3, 8, 8)
    vae = pv.VAE((3, 8, 8), 2, likelihood=BITS, encoder=line, decoder="ResNet([4])", seed=0)
    again = pv.load(vae.save(tmp_path))
    assert torch.equal(pv.elbo(vae, x, seed=0), pv.elbo(again, x, seed=0))


def test_what_residual_networks_cannot_serve_is_refused():
    with pytest.raises(ValueError, match=r"ResNet is of images .* got \(16,\): reshape the data"):
        pv.VAE(16, 2, encoder="ResNet([4])")
    with pytest.raises(ValueError, match="GLU halves the channels"):
        pv.VAE((1, 4, 4), 2, encoder="ResNet([4], activation=GLU)")
    with pytest.raises(ValueError, match=r"ResNet takes a list of widths"):
        pv.VAE((1, 4, 4), 2, encoder="ResNet([])")


def test_doubled_images_have_no_chequerboard():
    """An even image stays even, whatever the weights: transposed convolutions make squares."""
    torch.manual_seed(0)
    even = torch.ones(1, 4, 8, 8)
    ours = nn.Sequential(nn.Upsample((16, 16)), nn.Conv2d(4, 4, 3, padding=1))(even)
    theirs = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1)(even)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    assert ours[inner].std((2, 3)).max() < 1e-5
    assert theirs[inner].std((2, 3)).max() > 1e-2


@pytest.mark.parametrize("channels", [1, 3, 4, 8, 12, 30, 64, 100])
def test_groups_keep_what_an_image_of_one_pixel_says(channels):
    torch.manual_seed(0)
    layer = group_norm(channels)
    x = torch.randn(50, channels, 1, 1)
    assert (layer(x).std(0) > 0.3).all() or channels == 1
    if isinstance(layer, nn.GroupNorm):
        assert layer.num_groups <= 8 and channels % layer.num_groups == 0


# Own modules of every output shape.


class Features(nn.Module):
    """Features of a shape, from anything."""

    def __init__(self, width, shape):
        super().__init__()
        self.layer, self.shape = nn.Linear(width, int(np.prod(shape))), shape

    def forward(self, z):
        return self.layer(z.flatten(1)).reshape(len(z), *self.shape)


X = (3, 4, 5)
OUT = {
    "flat": (7,), "one": (1,), "of x": X, "maps": (6, 4, 5), "one map": (1, 4, 5),
    "other maps": (6, 2, 2), "channels last": (4, 5, 6), "steps": (3, 6), "a cell each": (60,),
    "volume": (2, 3, 4, 5), "square": (4, 4), "five": (2, 1, 3, 1, 2),
}  # fmt: skip


def test_there_are_twelve_kinds():
    assert len(OUT) == 12


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Normal", "DiscretizedLogistic(components=2)",
                                  "DiscretizedLogistic(components=2, coupled=True)"])  # fmt: skip
@pytest.mark.parametrize("name", OUT)
def test_own_modules_of_every_output_shape_train(name, line):
    x = pixels(20, *X).astype(np.float32)
    x = x / 255 if line == "Normal" else x
    own = {"encoder": Features(60, OUT[name]), "decoder": Features(2, OUT[name])}
    vae = pv.VAE(X, 2, likelihood=line, **own, seed=0)
    before = {k: v.clone() for k, v in vae.named_parameters()}
    pv.fit(vae, x, **TOLD)
    still = [k for k, v in vae.named_parameters() if torch.equal(v, before[k])]
    assert not still
    assert vae.reconstruct(x).shape == (20, *X) and vae.sample(2, seed=0).shape == (2, *X)


# Attribute arithmetic.


def linear_model():
    return pv.VAE(4, 3, likelihood="Normal", encoder="MLP([])", decoder="MLP([])", seed=0)


def test_an_attribute_is_a_step_between_means():
    """Of a linear encoder the step is that of the means of x, and a linear decoder maps it."""
    vae, x = linear_model(), torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    labels = np.arange(40) % 4
    step = pv.attribute_step(vae, x, labels, source=1, target=3)
    ends = torch.stack([x[labels == 3].mean(0), x[labels == 1].mean(0)])
    exact = vae.encode(ends).mean
    torch.testing.assert_close(step, exact[0] - exact[1])
    moved = pv.move(vae, x, step, 2.0) - vae.reconstruct(x)
    once = pv.move(vae, x[:1], step) - vae.reconstruct(x[:1])
    torch.testing.assert_close(moved, 2 * once.expand(40, 4), atol=1e-5, rtol=1e-4)
    assert once.abs().max() > 1e-3
    held = labels == 1
    held.flags.writeable = False  # as those of a data frame are
    named = pv.attribute_step(vae, x, held)
    torch.testing.assert_close(named, pv.attribute_step(vae, x, (labels == 1).astype(int)))


def test_steps_that_are_none_are_refused():
    vae, x = linear_model(), torch.randn(8, 4)
    with pytest.raises(ValueError, match=r"no observation has the label 1; there are \[0\]"):
        pv.attribute_step(vae, x, [0] * 8)
    with pytest.raises(ValueError, match=r"expected labels of shape \(8,\), got \(7,\)"):
        pv.attribute_step(vae, x, [0] * 7)
    with pytest.raises(ValueError, match=r"expected a step of shape \(3,\), got \(4,\)"):
        pv.move(vae, x, torch.zeros(4))
    bits = pv.VAE(4, 3, prior="Categorical(categories=3)", guide="Categorical(categories=3)")
    with pytest.raises(ValueError, match="z is categorical"):
        pv.attribute_step(bits, x.lt(0).float(), [0, 1] * 4)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_file_may_hold_channels_last(kind, tmp_path):
    last = pixels(30, 6, 5, 3)
    path = tmp_path / f"x.{kind}"
    np.save(path, last) if kind == "npy" else np.savez(path, train=last[:20], test=last[20:])
    data = pv.load_data(str(path), layout="HWC")
    assert data.x_shape == (3, 6, 5)
    rows = torch.cat([data.train, data.test])
    assert sorted(rows.sum((1, 2, 3)).tolist()) == sorted(last.sum((1, 2, 3)).tolist())
    assert (rows[0].permute(1, 2, 0).numpy() == last).all((1, 2, 3)).sum() == 1
    with pytest.raises(ValueError, match=r"layout is of an \.npy or \.npz file, and 'digits' "):
        pv.load_data("digits", layout="HWC")


@pytest.mark.slow
def test_the_command_line_reads_channels_last(tmp_path):
    last, folder = pixels(12, 4, 3, 3), tmp_path / "run"
    np.save(tmp_path / "x.npy", last)
    told = ["--likelihood", BITS, "--epochs", "1", "--out", folder, "--latent-dim", "2"]
    networks = ["--encoder", "MLP([4])", "--decoder", "MLP([4])"]
    for command in (
        ["fit", tmp_path / "x.npy", "--layout", "HWC", *told, *networks],
        ["encode", folder, tmp_path / "x.npy"],
        ["compress", folder, tmp_path / "x.npy"],
        ["evaluate", folder, tmp_path / "x.npy", "--num-samples", "40", "--steps", "2"],
        ["report", folder, "--num-samples", "40", "--steps", "2"],
    ):
        done = run(*command)
        assert done.code == 0, done.err
    z = pv.load(folder).encode(np.moveaxis(last, -1, 1)).mean
    assert np.allclose(np.load(tmp_path / "x-z.npy"), z, atol=1e-5)


def test_pictures_of_any_mode_are_read_as_they_look(tmp_path):
    """A turned photograph, a palette, transparency and 16 bits."""
    grid = np.zeros((6, 8), np.uint8)
    grid[0, 0], grid[5, 7] = 200, 90
    grey = Image.fromarray(grid)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held on its side: turn by 90 degrees clockwise
    for name, picture, options in [
        ("exif", Image.fromarray(np.rot90(grid, 1).copy()), {"exif": turned}),
        ("deep", Image.fromarray(grid.astype(np.uint16) * 256), {}), ("plain", grey, {}),
    ]:  # fmt: skip
        (tmp_path / name).mkdir()
        for i in range(10):
            picture.save(tmp_path / name / f"{i}.png", **options)
        x = pv.load_data(str(tmp_path / name), held_out=1.0).test
        assert torch.equal(x[0, 0], torch.from_numpy(grid)), name
    (tmp_path / "palette").mkdir()
    red = Image.new("RGB", (6, 6), (250, 10, 10))
    for i, mode in enumerate(["P", "RGBA", "RGB"] * 4):
        red.convert(mode).save(tmp_path / "palette" / f"{i}.png")
    x = pv.load_data(str(tmp_path / "palette"), size=4, held_out=1.0).test
    assert x.shape == (12, 3, 4, 4)
    assert (x[:, 0] > 200).all() and (x[:, 1:] < 60).all()
