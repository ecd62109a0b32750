"""Image data sets by name: through torchvision, from files, and made by a rule."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .dataset import Data, split
from .pictures import as_pixels, read_pictures
from .shapes import SHAPES, coloured_shapes

__all__ = ["IMAGES", "folder_of_pictures"]

UNLOADED = {"CelebA"}  # which torchvision asks another site for, that mostly refuses
# What a folder of torchvision's holds, where it is no folder of the data set's name.
FOLDERS = {
    "CIFAR10": "cifar-10-batches-py/",
    "SVHN": "train_32x32.mat and test_32x32.mat",
    "CelebA": "celeba/",
}
FACE = 64  # pixels of a side, of CelebA
SPRITES = "dsprites*.npz"
FACTORS = ("colour", "shape", "scale", "orientation", "x", "y")


def folder_of_pictures(path: Path, size: int | None, seed: int, held_out: float) -> Data:
    """The pictures in a folder; those in folders of their own are labelled by these."""
    x, labels = read_pictures(path, size)
    kind = "grey" if x.shape[1] == 1 else "colour"
    what = f"the pictures of {path.name}/, {x.shape[3]}x{x.shape[2]} 8-bit {kind}"
    return split(path.name, what, x, labels, seed, held_out, levels=256)


def _coloured(attribute: str, name: str, description: str) -> Callable[[Path | None, int], Data]:
    """A data set that torchvision holds in memory, as 8-bit numbers."""

    def load(root: Path | None, seed: int) -> Data:
        parts = [_fetch(attribute, root, train) for train in (True, False)]
        x = [torch.from_numpy(np.asarray(part.data)) for part in parts]
        x = [v.movedim(-1, 1) if v.shape[-1] == 3 else v for v in x]
        y = [getattr(part, "targets", getattr(part, "labels", None)) for part in parts]
        labels = [torch.from_numpy(np.asarray(v).astype(np.int64)) for v in y]
        return Data(name, description, x[0], x[1], labels[0], labels[1], levels=256)

    return load


def _celeba(root: Path | None, seed: int) -> Data:
    import pandas as pd

    parts = [_fetch("CelebA", root, train, target_type="attr") for train in (True, False)]
    x, about = [], []
    for part in parts:
        rows = [part[i] for i in range(len(part))]
        x.append(torch.cat([as_pixels([picture], FACE) for picture, _ in rows]))
        names = [name for name in part.attr_names if name]
        about.append(pd.DataFrame(np.stack([np.asarray(y) for _, y in rows]), columns=names) == 1)
    what = f"faces of the famous, {FACE}x{FACE} 8-bit colour, with 40 attributes"
    known = {"train_attributes": about[0], "test_attributes": about[1]}
    return Data("celeba", what, x[0], x[1], levels=256, **known)


def _dsprites(root: Path | None, seed: int) -> Data:
    import pandas as pd

    where = root or Path.home() / ".cache" / "pyro_vae"
    files = sorted(where.glob(SPRITES)) if where.exists() else []
    if not files:
        raise ValueError(
            f"dSprites is not in {where}: give root= (--data-root), a folder that holds its file "
            "dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz, of DeepMind's dsprites-dataset"
        )
    with np.load(files[0]) as arrays:  # what else it holds is a pickle, and left alone
        x = torch.from_numpy(arrays["imgs"]).unsqueeze(1)
        classes = pd.DataFrame(arrays["latents_classes"], columns=[*FACTORS])
    what = "sprites of six factors, 64x64 bits"
    return split("dsprites", what, x, None, seed, levels=2, attributes=classes)


def _shapes(root: Path | None, seed: int) -> Data:
    x, attributes = coloured_shapes(6000, seed=seed)
    labels = torch.tensor([SHAPES.index(shape) for shape in attributes["shape"]])
    what = "coloured shapes, some of them with glasses, 32x32 8-bit colour"
    return split("shapes", what, x, labels, seed, 1 / 6, levels=256, attributes=attributes)


def torchvision_grey(
    attribute: str, name: str, description: str, **options: str
) -> Callable[[Path | None, int], Data]:
    def load(root: Path | None, seed: int) -> Data:
        x, labels = [], []
        for train in (True, False):
            data = _fetch(attribute, root, train, **options)
            if attribute == "Omniglot":
                pairs = [data[i] for i in range(len(data))]
                images = torch.stack([_shrink(image) for image, _ in pairs])
                target = torch.tensor([label for _, label in pairs])
            else:
                images, target = data.data.unsqueeze(1) / 255.0, data.targets
            if attribute == "EMNIST":
                images = images.transpose(2, 3)
            x.append(images)
            labels.append(target)
        return Data(name, description, x[0], x[1], labels[0], labels[1], grey=True)

    return load


def _fetch(attribute: str, root: Path | None, train: bool, **options: str):  # noqa: ANN202
    """A data set of torchvision's, imported late: it may not match the torch that is installed."""
    try:
        from torchvision import datasets
    except RuntimeError as problem:
        raise ValueError(
            f"torchvision does not go with this torch {torch.__version__}: install both from one "
            f"release, pip install --force-reinstall torch torchvision ({problem})"
        ) from problem
    where = root or Path.home() / ".cache" / "pyro_vae"
    part = "train" if train else "test"
    flag = {"Omniglot": {"background": train}, "SVHN": {"split": part}, "CelebA": {"split": part}}
    told = flag.get(attribute, {"train": train})
    download = root is None and attribute not in UNLOADED
    try:
        return getattr(datasets, attribute)(str(where), download=download, **told, **options)
    except (RuntimeError, OSError) as problem:
        files = FOLDERS.get(attribute, f"{attribute}/")
        raise ValueError(
            f"{attribute} is not in {where} and cannot be downloaded: {problem}\n"
            f"give root= (--data-root), a folder that holds {files} as torchvision lays it out"
        ) from problem


def _shrink(image) -> Tensor:  # noqa: ANN001
    """Omniglot's 105x105 black on white as 28x28 white on black, the field's usual form."""
    ink = 1 - torch.from_numpy(np.asarray(image, dtype=np.float32)) / 255
    return torch.nn.functional.interpolate(ink[None, None], (28, 28), mode="area")[0].clamp(0, 1)


IMAGES: dict[str, Callable[[Path | None, int], Data]] = {
    "shapes": _shapes,
    "mnist": torchvision_grey("MNIST", "mnist", "handwritten digits, 28x28 grey"),
    "fashion-mnist": torchvision_grey("FashionMNIST", "fashion-mnist", "clothes, 28x28 grey"),
    "kmnist": torchvision_grey("KMNIST", "kmnist", "cursive Japanese characters, 28x28 grey"),
    "emnist": torchvision_grey(
        "EMNIST", "emnist", "handwritten letters and digits, 28x28 grey", split="balanced"
    ),
    "omniglot": torchvision_grey("Omniglot", "omniglot", "characters of 50 alphabets, 28x28 grey"),
    "cifar10": _coloured("CIFAR10", "cifar10", "photographs of ten kinds, 32x32 8-bit colour"),
    "svhn": _coloured("SVHN", "svhn", "house numbers, 32x32 8-bit colour"),
    "celeba": _celeba,
    "dsprites": _dsprites,
}
