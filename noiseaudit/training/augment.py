"""Augmentation of whole batches on their device, a function of a generator's state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from noiseaudit._rows import spread_rows
from noiseaudit.errors import UsageError, check_name

__all__ = ["Augmentation", "augment", "choose_augmentation", "parse_augmentation"]

_SAMPLE = 500  # pictures that choose_augmentation looks at
# Median share of a picture's most common colour from which pictures count as drawings. Measured:
# photographs 0.005 to 0.03 (CIFAR, ImageNet, in grey too), drawings and cut-outs 0.48 to 0.81
# (digits, Fashion-MNIST, MNIST; 0.64 after JPEG at quality 50 and resizing).
_FLAT = 0.15
_CROP_SHARE = 1 / 8  # of the side: the papers' 4 of 32 pixels


@dataclass(frozen=True)
class Augmentation:
    """What to do to each picture of a batch, at random; all zero is nothing.

    Attributes:
        crop: pixels of black padding on each side, before cutting a window of the old size.
        flip: mirror left and right, with probability one half.
        rotation: degrees, uniform in plus or minus this.
        scale: fraction, the size is multiplied by a uniform factor in 1 plus or minus this.
        shift: fraction of the side, uniform in plus or minus this, down and across separately.
    """

    crop: int = 0
    flip: bool = False
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if min(self.crop, self.rotation, self.scale, self.shift) < 0 or self.scale >= 1:
            raise UsageError(
                f"crop, rotation and shift must be at least 0 and scale in [0, 1); got {self}"
            )

    def __str__(self) -> str:
        active = {name: value for name, value in vars(self).items() if value}
        words = (name if value is True else f"{name} {value:g}" for name, value in active.items())
        return ", ".join(words) or "none"

    @property
    def is_affine(self) -> bool:
        """Whether pictures are resampled (rotated, scaled or shifted)."""
        return bool(self.rotation or self.scale or self.shift)


_PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "crop": {"crop": 4},
    "flip": {"flip": True},
    "affine": {"rotation": 10.0, "scale": 0.1, "shift": 0.08},
}


def parse_augmentation(text: str) -> Augmentation:
    """The augmentation called `text`: "none", "crop", "flip", "affine", or several: "crop,flip".

    "crop" pads 4 pixels (C-score paper, Table 1); "affine" turns by up to 10 degrees, scales by
    up to 10% and shifts by up to 8% of the side, about two of MNIST's 28 pixels.

    Raises:
        UnknownNameError: for any other name.
        UsageError: for "none" together with another.
    """
    names = [check_name(part.strip(), _PRESETS, "augmentation") for part in text.split(",")]
    if "none" in names and len(names) > 1:
        raise UsageError(f"augmentation 'none' cannot be combined; got {text!r}")
    options: dict[str, Any] = {}
    for name in names:
        options |= _PRESETS[name]
    return Augmentation(**options)


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """A randomly changed copy of each picture; `images` itself when there is nothing to do.

    Call it on pixels in [0, 1], before normalisation: what moves in from outside is 0, black
    (repeating the border instead changed nothing, on white backgrounds either: MNIST inverted,
    mean-loss AUROC 0.9995 and 0.9993). Order: affine, flip, crop.
    The memory format is kept. Two calls with generators in the same state give the same result.

    Args:
        images: (b, channels, h, w) float32.
        augmentation: what to do.
        generator: the only source of randomness; advanced.
    """
    if augmentation.is_affine:
        images = _affine(images, augmentation, generator)
    if augmentation.flip:
        mirrored = _draw(generator, images, 1)[:, 0] < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if augmentation.crop:
        images = _crop(images, augmentation.crop, generator)
    return images


def choose_augmentation(inputs: NDArray[np.uint8]) -> Augmentation:
    """The augmentation that suits these pictures: what they are is read from their pixels.

    Pictures on a flat background (half of a sample of at most 500 have one exact colour on 15%
    of their area) are drawings, scans or cut-outs: a small affine map, never a flip. All others
    are photographs: crop (padding an eighth of the side) and flip. With 10% flipped labels, the
    AUROC of the mean margin was (`cnn`, one seed, equal epochs; benchmarks/model_choice.py):

    ==============  ======  ======  =========  ======  ===========
    data            none    crop    crop+flip  affine  affine+flip
    ==============  ======  ======  =========  ======  ===========
    digits          0.9988  1.0000  0.9997     1.0000  0.9997
    mnist           0.9993  0.9996  0.9974     0.9996  0.9984
    fashion_mnist   0.9909  0.9931  0.9926     0.9937  0.9928
    cifar10         0.9036  0.9430  0.9447     0.9434  0.9425
    cifar100        0.8905  0.9142  0.9197     0.9071  0.9221
    photographs     0.6728  0.7926  0.8418     0.7580  0.7884
    ==============  ======  ======  =========  ======  ===========

    Photographs that must not be mirrored (house numbers, traffic signs) look like any other:
    name the augmentation for those.

    Args:
        inputs: (n, h, w) or (n, h, w, 3) uint8; anything else is not augmented.
    """
    if inputs.ndim < 3 or not len(inputs):
        return Augmentation()
    if np.median([_flat_share(inputs[row]) for row in spread_rows(len(inputs), _SAMPLE)]) >= _FLAT:
        return parse_augmentation("affine")
    return Augmentation(crop=max(1, round(min(inputs.shape[1:3]) * _CROP_SHARE)), flip=True)


def _flat_share(image: NDArray[np.uint8]) -> float:
    """Share of the pixels that have the picture's most common colour."""
    values = image.reshape(image.shape[0] * image.shape[1], -1).astype(np.int64)
    codes = values @ (256 ** np.arange(values.shape[1]))
    return float(np.unique(codes, return_counts=True)[1].max() / len(codes))


def _draw(generator: torch.Generator, images: Tensor, columns: int) -> Tensor:
    """(b, columns) uniform in [0, 1), on the device of `images`."""
    shape = (len(images), columns)
    return torch.rand(shape, generator=generator, device=generator.device).to(images.device)


def _crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    corner = (_draw(generator, images, 2) * (2 * padding + 1)).long()
    padded = functional.pad(images, (padding,) * 4)
    # A view of every window (b, c, 2p+1, 2p+1, h, w); only the chosen ones are copied.
    windows = padded.unfold(2, images.shape[2], 1).unfold(3, images.shape[3], 1)
    which = torch.arange(len(images), device=images.device)
    chosen = windows[which, :, corner[:, 0], corner[:, 1]]
    return chosen.contiguous(memory_format=_format(images))


def _affine(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Rotate about the centre, scale, shift: the sampling grid is the inverse map."""
    turn, size, down, across = (_draw(generator, images, 4) * 2 - 1).unbind(1)
    angle = turn * math.radians(augmentation.rotation)
    factor = 1 / (1 + size * augmentation.scale)
    height, width = images.shape[2:]
    sine, cosine = torch.sin(angle) * factor, torch.cos(angle) * factor
    # grid_sample's coordinates run from -1 to 1 along each side, whatever its length.
    theta = torch.stack(
        [
            torch.stack([cosine, -sine * height / width, across * augmentation.shift * 2], 1),
            torch.stack([sine * width / height, cosine, down * augmentation.shift * 2], 1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)
    return moved.contiguous(memory_format=_format(images))


def _format(images: Tensor) -> torch.memory_format:
    if images.is_contiguous():
        return torch.contiguous_format
    return torch.channels_last
