"""Makers of tiny synthetic pictures, folders and files, and of rounds with planted flips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from noiseaudit.planted_rounds import PlantedRounds


def make_picture(seed=0, size=(10, 8), mode="RGB"):
    """A picture of random blocks, (width, height) `size`, in a mode that takes random bytes."""
    width, height = size
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def quadrants(width=32, height=16):
    """An RGB picture that no rotation or mirror maps to itself: red, green, blue, white corners."""
    pixels = np.empty((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    pixels[:top, :left] = (255, 0, 0)
    pixels[:top, left:] = (0, 255, 0)
    pixels[top:, :left] = (0, 0, 255)
    pixels[top:, left:] = (255, 255, 255)
    return Image.fromarray(pixels)


def corners(pixels):
    """The colours in the middles of the four quadrants, row by row, as lists."""
    height, width = pixels.shape[:2]
    rows, columns = (height // 4, height * 3 // 4), (width // 4, width * 3 // 4)
    return [pixels[row, column].tolist() for row in rows for column in columns]


def make_folder(root: Path, counts: Mapping[str, int], *, size=(10, 8), mode="RGB", suffix="png"):
    """A class folder: `counts` pictures below each path such as "cat" or "train/cat"."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture = make_picture(seed * 1000 + i, size, mode)
            picture.save(root / name / f"{i}.{suffix}")
    return root


def make_npz(path: Path, *, n=12, k=3, shape=(4, 4), splits=("train", "test"), **more):
    """An .npz of random uint8 inputs with x_<split>, y_<split>; labels count 0..k-1 round."""
    random = np.random.default_rng(0)
    arrays = {}
    for split in splits:
        arrays[f"x_{split}"] = random.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(n) % k
    np.savez(path, **arrays, **more)
    return path


def write_idx(path: Path, array):
    """A uint8 array in the IDX format of MNIST."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def make_rounds(rate=0.1, n=3000, k=4, seed=0, **scores):
    """One round: `good` tells wrong labels from right ones, `weak` a little, `blind` not."""
    random = np.random.default_rng(seed)
    true = random.integers(0, k, n)
    given = np.where(random.random(n) < rate, (true + 1) % k, true)
    labels = np.stack([given, given])
    plants = random.permutation(np.flatnonzero(given == true))[:150]
    labels[1, plants] = (given[plants] + 2) % k
    wrong = labels != true
    noise = random.standard_normal((3, *labels.shape))
    suspicions = {
        "blind": noise[0],
        "weak": noise[1] + wrong,
        "good": noise[2] + 5 * wrong,
        **{name: function(wrong, noise) for name, function in scores.items()},
    }
    suggested = np.where(wrong, true, (labels + 1) % k)
    weights = np.zeros(labels.shape)
    weights[1, plants] = 1
    found = PlantedRounds(
        given=given, labels=labels, suspicions=suspicions,
        predicted=np.stack([true, true]), suggested=suggested,
        sureness=np.full(labels.shape, 0.9, np.float32),
        was_right=(given == true).astype(np.float64), weights=weights,
        most_weights=np.zeros(labels.shape), is_left_out=False, left_out=None, odds_channel=None,
        seconds=1.0,
    )  # fmt: skip
    return found, wrong[0], true
