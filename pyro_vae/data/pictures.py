"""Pictures: files of a folder and objects of PIL as 8-bit arrays, channels first."""

import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard, get_args

import numpy as np
import torch
from torch import Tensor

from ..core.checks import whole
from ..core.system import check_file

__all__ = [
    "ImageLayout",
    "are_pictures",
    "as_pixels",
    "channels_first",
    "read_pictures",
    "warn_of_layout",
]

ImageLayout: TypeAlias = Literal["CHW", "HWC"]
FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
COLOURS = (1, 3, 4)  # how many channels pictures have
BOX = 4  # of PIL's ways to resize
GREY = ("1", "L", "LA", "I;16", "I", "F")  # modes of PIL without colours


def channels_first(x: Any, layout: ImageLayout) -> Any:  # noqa: ANN401
    """Images ``(N, *places, C)`` as ``(N, C, *places)``, where ``layout`` is ``"HWC"``.

    Args:
        x: an array, on disk or in memory; a number or ``None`` stays as it is.
        layout: what comes last: ``"CHW"`` leaves x as it is.

    Raises:
        ValueError: an unknown layout, or no array of images.

    >>> channels_first(torch.zeros(5, 32, 32, 3), "HWC").shape
    torch.Size([5, 3, 32, 32])
    """
    if layout not in get_args(ImageLayout):
        known = " or ".join(map(repr, get_args(ImageLayout)))
        raise ValueError(f"layout is {known}, got {layout!r}")
    if layout == "CHW" or x is None or isinstance(x, Real):
        return x
    if isinstance(x, Mapping):
        raise ValueError(
            "layout='HWC' is of arrays, and of blocks by name it does not tell which are images: "
            "give those channels first, x.transpose(0, 3, 1, 2), or permute of a tensor"
        )
    if not isinstance(x, Tensor | np.ndarray | list | tuple):
        raise ValueError(
            f"layout='HWC' is of arrays, got {type(x).__name__}: let the rows of a Dataset be "
            "(C, H, W), by transform=torchvision.transforms.PILToTensor()"
        )
    x = x if isinstance(x, Tensor) else np.asanyarray(x)
    if x.ndim < 3:
        raise ValueError(
            f"layout='HWC' is of images (N, H, W, C), got an array of shape {tuple(x.shape)}"
        )
    return x.movedim(-1, 1) if isinstance(x, Tensor) else np.moveaxis(x, -1, 1)


def warn_of_layout(shape: tuple[int | None, ...]) -> None:
    """Say so where observations have the shape of images whose channels come last.

    Args:
        shape: of one observation: ``(H, W, C)`` or ``(D, H, W, C)`` where C is 1, 3 or 4, and the
            others are larger.
    """
    *places, last = (size or 0 for size in shape) if shape else (0,)
    if len(places) in (2, 3) and last in COLOURS and min(places) > max(COLOURS):
        first = ", ".join(map(str, (last, *places)))
        rest = " x ".join(map(str, (*places[1:], last)))
        warnings.warn(
            f"observations of shape {tuple(shape)} are read as {places[0]} channels of {rest}: if "
            f"they are images whose channels come last, say layout='HWC' (--layout HWC) where the "
            f"file is read, or to fit, of VAE(({first}), ...)",
            stacklevel=4,
        )


def are_pictures(rows: object) -> TypeGuard[Sequence[Any]]:
    """Whether these are pictures of PIL, at least one."""
    return isinstance(rows, list | tuple) and bool(rows) and hasattr(rows[0], "getbands")


def as_pixels(pictures: Sequence[Any], size: int | None = None) -> Tensor:
    """Pictures of PIL as 8-bit numbers ``(N, C, H, W)``: C is 1 where all are grey, else 3.

    Args:
        pictures: of one size, where ``size`` is not given.
        size: pixels of a side: the middle square of each is cut out, and brought to it.

    Raises:
        ValueError: pictures of different sizes.
    """
    mode = "L" if all(p.mode in GREY for p in pictures) else "RGB"
    parts = [_pixels(p if size is None else _square(p, size), mode) for p in pictures]
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            (h, w), (first_h, first_w) = part.shape[:2], parts[0].shape[:2]
            raise ValueError(
                f"pictures of different sizes: the first one has {first_w}x{first_h} pixels, number"
                f" {i} {w}x{h}: size=64 (--size 64) brings all to one"
            )
    return torch.from_numpy(np.stack(parts)).movedim(-1, 1).contiguous()


def _square(picture: Any, size: int) -> Any:  # noqa: ANN401
    """The middle square of a picture, brought to a size by means over areas."""
    if picture.mode in ("1", "P"):  # whose numbers are no brightness
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    elif picture.mode == "I;16":  # which cannot be resized as it is
        picture = picture.convert("I")
    w, h = picture.size
    side = min(w, h)
    left, top = (w - side) // 2, (h - side) // 2
    return picture.resize((size, size), resample=BOX, box=(left, top, left + side, top + side))


def _pixels(picture: Any, mode: str) -> np.ndarray:  # noqa: ANN401
    """One picture, ``(H, W, C)``."""
    if mode == "L" and picture.mode in ("I;16", "I"):  # 16 bits
        values = np.asarray(picture) >> 8
    else:
        values = np.asarray(picture.convert(mode))
    return np.array(values, np.uint8).reshape(*values.shape[:2], -1)


def read_pictures(folder: Path, size: int | None = None) -> tuple[Tensor, Tensor | None]:
    """The pictures in a folder and its folders, as 8-bit numbers, and their labels.

    Args:
        folder: of files such as ``.png`` and ``.jpg``; others are left out.
        size: as in :func:`as_pixels`.

    Returns:
        ``(N, C, H, W)``, in the order of the paths; ``(N,)``, the number of the folder in which
        each lies, or ``None`` where all lie in one.

    Raises:
        ValueError: no picture, a damaged one, or several sizes.
    """
    from PIL import Image, ImageOps

    size = None if size is None else whole("size", size)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FILES)
    if not files:
        raise ValueError(f"{folder} holds no picture: files of {', '.join(FILES)} are read")
    pictures = []
    for path in files:
        check_file(path)
        try:
            with Image.open(path) as file:
                upright = ImageOps.exif_transpose(file)  # as a camera says that it was held
                pictures.append(upright if size is None else _square(upright, size))
        except (OSError, ValueError, SyntaxError) as problem:
            raise ValueError(f"{path} is no picture that can be read: {problem}") from None
    homes = [str(path.relative_to(folder).parent) for path in files]
    names = sorted(set(homes))
    labels = torch.tensor([names.index(home) for home in homes]) if len(names) > 1 else None
    try:
        return as_pixels(pictures), labels
    except ValueError as problem:
        raise ValueError(f"{folder} holds {problem}") from None
