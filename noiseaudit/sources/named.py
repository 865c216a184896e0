"""The data sets known by name: digits, and four of torchvision's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import DataError, UsageError
from noiseaudit.sources.arrays import examples_from_npz, refuse_image_size
from noiseaudit.sources.examples import Examples, Inputs, PictureOptions

__all__ = ["NAMED", "examples_by_name"]

_TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
NAMED = ("digits", *_TORCHVISION)

_TEN = tuple(str(digit) for digit in range(10))
_CLASS_NAMES = {
    "mnist": _TEN,
    "fashion_mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "cifar10": (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
}  # fmt: skip


def examples_by_name(
    name: str, options: PictureOptions, *, data_root: Path | None, download: bool
) -> Examples:
    """Examples of a named data set: `data_root/<name>.npz`, else torchvision's folders.

    Raises:
        DataError: if it is in neither place, or cannot be downloaded.
        UsageError: if `data_root` is needed and missing.
    """
    if name == "digits":
        return _digits(options)
    if data_root is None:
        raise UsageError(
            f"{name} needs --data-root DIR: the folder with {name}.npz or torchvision's files "
            "(or where --download shall put them)"
        )
    path = data_root / f"{name}.npz"
    if path.is_file():
        try:
            return examples_from_npz(
                path, options, class_names=_CLASS_NAMES.get(name), default_split="train"
            )
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    return _from_torchvision(name, options, data_root, download)


def _digits(options: PictureOptions) -> Examples:
    """The 1,797 grey 8x8 digits that scikit-learn ships; their 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits

    refuse_image_size(options)
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    return Examples(labels, _TEN, lambda rows: Inputs(images[rows]), name="digits")


def _from_torchvision(
    name: str, options: PictureOptions, data_root: Path, download: bool
) -> Examples:
    from torchvision import datasets

    refuse_image_size(options)
    kind = getattr(datasets, _TORCHVISION[name])
    try:
        parts = [kind(str(data_root), train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        if download:
            raise DataError(f"{name} could not be downloaded to {data_root}: {error}") from error
        raise DataError(
            f"{name} was found neither as {data_root / name}.npz nor in torchvision's folders "
            f"below {data_root} ({error}); put it there, or use --download"
        ) from error
    labels = [np.asarray(part.targets, dtype=np.int64) for part in parts]
    images: list[NDArray[Any]] = [np.asarray(part.data) for part in parts]
    border = len(labels[0])

    def read(rows: NDArray[np.int64]) -> Inputs:
        train, test = rows[rows < border], rows[rows >= border] - border
        picked = [images[0][train], images[1][test]]
        return Inputs(np.concatenate([part for part in picked if len(part)]))

    return Examples(
        np.concatenate(labels),
        _CLASS_NAMES.get(name) or tuple(parts[0].classes),
        read,
        name=name,
        default_split="train",
        split=np.repeat(["train", "test"], [border, len(labels[1])]),
    )
