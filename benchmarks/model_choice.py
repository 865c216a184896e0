"""How the default models, recipes and augmentations were chosen; every number can be run again.

    python benchmarks/model_choice.py --preset smoke
    python benchmarks/model_choice.py --preset cpu --data-root DIR [--parts shape,augment]

Each cell trains one network on a subset with 10% of the labels flipped to another class, and
records test accuracy and how well two statistics of the training forward pass (mean over epochs
of the loss and of the logit margin) find the flips. Finished cells are kept in --out and
skipped. Shapes are written as words: `p64` a patch stem (side/16 pixels; `p64/4` says the
patch), `o64` an overlapping one, `s64` a 3x3 convolution of stride 2, `64` a 3x3 convolution,
`M` max-pool 2, `max`/`avg` the global pool, `nobn` no batch norm. Part `shape` is at equal
wall-clock: epochs are seconds times SPEED, so that a busy machine changes nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn
from torch.nn import functional as F

from noiseaudit.seeding import generator, isolated_torch_rng, torch_generator
from noiseaudit.training.augment import Augmentation, augment, parse_augmentation
from noiseaudit.training.models import MODELS, build_model

RESULTS = Path(__file__).parent / "results" / "model_choice.json"
# Images/s of a training step, 2 idle cores, batch 128: (28 px grey, 32 px RGB, 64 px RGB). The last
# two were timed on a busy machine, beside "p32 32 M 64 64 max", and are scaled by it.
SPEED = {
    "s32 s64 s128 avg": (11776, 9898, 939),
    "p64 64 M 128 128 max": (2812, 2095, 2147),
    "p64 64 M 128 128 max nobn": (3221, 2537, 2478),
    "p64 M 128 128 max": (4473, 3447, 3352),
    "p32 64 M 128 128 max": (3435, 2407, 2592),
    "p32 32 M 64 64 max": (8745, 6720, 6487),
    "p32 32 M 64 M 128 max": (9500, 7400, 6700),
    "p32 48 M 96 M 128 max": (6000, 5300, 4600),
}
NEARLY = "p32 32 M 64 M 128 max"  # best of the shapes; one convolution more became `cnn`


@dataclass(frozen=True)
class Cell:
    """One training run of the comparison."""

    part: str
    data: str
    n: int
    model: str
    epochs: int
    lr: float = 0.1
    batch: int = 128
    weight_decay: float = 5e-4
    augmentation: str = "none"
    seed: int = 0

    @property
    def key(self) -> str:
        return " | ".join(str(value) for value in asdict(self).values())


def build_shape(words: str, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network that `words` describe; see the module's docstring."""
    if words in MODELS:
        return build_model(words, input_shape, num_classes)
    tokens = words.split()
    norm = "nobn" not in tokens
    width = input_shape[0]
    layers: list[nn.Module] = []

    def conv(outputs: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
        convolution = nn.Conv2d(width, outputs, kernel, stride, padding, bias=not norm)
        middle = [nn.BatchNorm2d(outputs)] if norm else []
        return nn.Sequential(convolution, *middle, nn.ReLU(inplace=True))

    for token in (token for token in tokens if token != "nobn"):
        if token == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        if token in ("max", "avg"):
            layers.append(nn.AdaptiveMaxPool2d(1) if token == "max" else nn.AdaptiveAvgPool2d(1))
            continue
        kind, rest = (token[0], token[1:]) if token[0].isalpha() else ("", token)
        outputs, _, given = rest.partition("/")
        patch = int(given or max(1, round(min(input_shape[1:]) / 16)))
        size = int(outputs)
        if kind == "p":
            layers.append(conv(size, patch, patch, 0))
        elif kind == "o":
            layers.append(conv(size, 2 * patch, patch, patch // 2))
        else:
            layers.append(conv(size, 3, 2 if kind == "s" else 1, 1))
        width = size
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, num_classes))


@lru_cache(maxsize=2)
def load(name: str, root: Path) -> tuple[np.ndarray, ...]:
    """(x_train, y_train, x_test, y_test), uint8 pictures."""
    if name == "digits":
        digits = load_digits()
        x, y = (digits.images * 255 / 16).astype(np.uint8), digits.target
        order = generator(0, "split").permutation(len(x))
        return x[order[:1500]], y[order[:1500]], x[order[1500:]], y[order[1500:]]
    if name.startswith("photos"):
        side = int(name.removeprefix("photos"))
        arrays: list[np.ndarray] = []
        classes = sorted(path.name for path in (root / "photos" / "train").iterdir())
        for split in ("train", "val"):
            files = sorted((root / "photos" / split).glob("*/*.JPEG"))
            pictures = [Image.open(file).convert("RGB").resize((side, side)) for file in files]
            arrays.append(np.stack([np.asarray(picture) for picture in pictures]))
            arrays.append(np.array([classes.index(file.parent.name) for file in files]))
        return tuple(arrays)
    with np.load(root / f"{name}.npz") as file:
        return tuple(file[key] for key in ("x_train", "y_train", "x_test", "y_test"))


def tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, c, h, w), channels last in memory."""
    stored = torch.from_numpy(np.ascontiguousarray(pictures))
    return (stored if stored.ndim == 4 else stored[..., None]).permute(0, 3, 1, 2)


def augmentation_of(text: str, side: int) -> Augmentation:
    """`parse_augmentation`, with the crop's padding at an eighth of the side."""
    chosen = asdict(parse_augmentation(text))
    return Augmentation(**chosen | {"crop": max(1, round(side / 8)) if chosen["crop"] else 0})


def run(cell: Cell, root: Path) -> dict[str, float]:
    """Train one cell and score it."""
    x_train, y_train, x_test, y_test = load(cell.data, root)
    k = int(y_train.max()) + 1
    rows = generator(0, "rows").permutation(len(x_train))[: cell.n]
    images, clean = tensor(x_train[rows]), y_train[rows].astype(np.int64)
    n = len(rows)
    rng = generator(cell.seed, "flips")
    flipped = np.zeros(n, bool)
    flipped[rng.permutation(n)[: round(0.1 * n)]] = True
    noisy = np.where(flipped, (clean + rng.integers(1, k, n)) % k, clean)
    with isolated_torch_rng(cell.seed, "weights"):
        model = build_shape(cell.model, tuple(images.shape[1:]), k)
    model.to(memory_format=torch.channels_last)
    sample = images[:5000].float() / 255
    units = sample.mean((0, 2, 3), keepdim=True), sample.std((0, 2, 3), keepdim=True)
    began = time.perf_counter()
    sums = train(cell, model, images, torch.from_numpy(noisy), units)
    result = {"seconds": time.perf_counter() - began}
    model.eval()
    with torch.no_grad():
        test = (tensor(x_test[:5000]).float() / 255 - units[0]) / units[1]
        guesses = torch.cat([model(part).argmax(1) for part in test.split(500)])
    result["accuracy"] = float((guesses.numpy() == y_test[:5000]).mean())
    for name, suspicion in zip(("loss", "margin"), sums, strict=True):
        if not np.isfinite(suspicion).all():
            suspicion = np.zeros(n)  # diverged: no better than chance
        worst = np.argsort(-suspicion, kind="stable")[: flipped.sum()]
        result[f"{name}_auroc"] = float(roc_auc_score(flipped, suspicion))
        result[f"{name}_ap"] = float(average_precision_score(flipped, suspicion))
        result[f"{name}_removal"] = float(flipped[worst].mean())
    return result


def train(
    cell: Cell,
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    units: tuple[torch.Tensor, torch.Tensor],
) -> np.ndarray:
    """(2, n): sums over epochs of the loss and of minus the margin, from the training pass."""
    n = len(labels)
    optimizer = torch.optim.SGD(
        model.parameters(), cell.lr, 0.9, nesterov=True, weight_decay=cell.weight_decay
    )
    change = augmentation_of(cell.augmentation, images.shape[2])
    steps = -(-n // cell.batch)
    sums = torch.zeros(2, n, dtype=torch.float64)
    model.train()
    for epoch in range(cell.epochs):
        order = torch.from_numpy(generator(cell.seed, "data-order", epoch).permutation(n))
        randomness = torch_generator(cell.seed, "augmentation", epoch)
        for step, batch in enumerate(order.tensor_split(steps)):
            done = (epoch + step / steps) / cell.epochs
            optimizer.param_groups[0]["lr"] = cell.lr * min(done / 0.15, (1 - done) / 0.85)
            pixels = augment(images[batch].float().div_(255), change, randomness)
            logits = model((pixels - units[0]) / units[1])
            losses = F.cross_entropy(logits, labels[batch], reduction="none")
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            detached, given = logits.detach(), labels[batch][:, None]
            others = detached.scatter(1, given, -torch.inf).amax(1)
            sums[0, batch] += losses.detach().double()
            sums[1, batch] -= (detached.gather(1, given)[:, 0] - others).double()
    return sums.numpy()


def measure_speed(shapes: list[str], rounds: int) -> dict[str, list[int]]:
    """Images/s of a training step, median over rounds that alternate between the shapes."""
    sizes = ((1, 28, 28), (3, 32, 32), (3, 64, 64))
    pictures = [torch.rand(128, *size).to(memory_format=torch.channels_last) for size in sizes]
    labels = torch.arange(128) % 10
    models = {s: [build_shape(s, size, 10) for size in sizes] for s in shapes}
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for shape, built in models.items():
            for index, (model, batch) in enumerate(zip(built, pictures, strict=True)):
                model.to(memory_format=torch.channels_last)
                optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, nesterov=True)
                began = time.perf_counter()
                for _ in range(3):
                    F.cross_entropy(model(batch), labels).backward()
                    optimizer.step()
                times.setdefault((shape, index), []).append(time.perf_counter() - began)
    return {s: [round(384 / float(np.median(times[s, i]))) for i in range(3)] for s in models}


def plan(preset: str) -> list[Cell]:
    """All cells, in the order in which the choices were made."""
    if preset == "smoke":
        return [Cell("smoke", "digits", 300, m, 2, augmentation="affine") for m in MODELS[:2]]
    parts = (shape_cells, recipe_cells, augment_cells, mlp_cells, full_cells, small_cells)
    return [cell for part in parts for cell in part()]


def shape_cells() -> Iterator[Cell]:
    """At equal wall-clock; then the narrow ones with less time and as they would be used."""
    for shape in list(SPEED)[:6]:
        for lr in (0.02, 0.05) if "nobn" in shape else (0.1,):
            yield from budget_cells(shape, (30, 60, 10), "none", lr)
    for shape in list(SPEED)[4:]:
        yield from budget_cells(shape, (15, 40, 5), "affine", 0.1)


def budget_cells(
    shape: str, seconds: tuple[int, int, int], grey_change: str, lr: float
) -> Iterator[Cell]:
    """Cells whose epochs fill `seconds` at the measured speed of their shape."""
    data = (("fashion_mnist", 10_000), ("cifar10", 10_000), ("photos64", 400))
    changes = (grey_change, "crop,flip", "crop,flip")
    for (name, n), budget, speed, change in zip(data, seconds, SPEED[shape], changes, strict=True):
        epochs = max(3, round(budget * speed / n))
        yield Cell("shape", name, n, shape, epochs, lr, augmentation=change)


def recipe_cells() -> Iterator[Cell]:
    base = Cell("recipe", "cifar10", 10_000, NEARLY, 20, augmentation="crop,flip")
    shapes = ("o32 32 M 64 M 128 max", "p32 32 M 64 M 128 avg", "p32 32 M 64 M 128 128 max")
    rates = ({}, {"lr": 0.05}, {"lr": 0.2}, {"batch": 64})
    decays = ({"weight_decay": 0.0}, {"weight_decay": 2e-3})
    for options in (*rates, *decays, *({"model": shape} for shape in shapes)):
        cell = replace(base, **options)
        yield cell
        yield replace(cell, data="fashion_mnist", epochs=10, augmentation="affine")


def augment_cells() -> Iterator[Cell]:
    grey = (("digits", 1500, 20), ("mnist", 6000, 8), ("fashion_mnist", 8000, 12))
    colour = (("cifar10", 8000, 16), ("cifar100", 8000, 16), ("photos64", 400, 60))
    for change in ("none", "crop", "crop,flip", "affine", "affine,flip"):
        for data, n, epochs in grey + colour:
            yield Cell("augment", data, n, "cnn", epochs, 0.2, augmentation=change)
        yield Cell("augment", "digits", 1500, "mlp", 20, augmentation=change)


def mlp_cells() -> Iterator[Cell]:
    base = Cell("mlp", "mnist", 60_000, "mlp", 10, batch=256, weight_decay=0.0)
    moved = replace(base, augmentation="affine")
    for options in ({}, {"lr": 0.05}, {"lr": 0.2}, {"weight_decay": 5e-4}, {"batch": 128}):
        yield replace(base, **options)
    yield from (replace(base, epochs=20), moved, replace(moved, epochs=20))
    yield replace(moved, epochs=20, weight_decay=5e-4)
    for batch, epochs, change, decay in itertools.product(
        (32, 128, 256), (10, 20, 40), ("none", "affine"), (0.0, 5e-4)
    ):
        yield Cell("mlp", "digits", 1500, "mlp", epochs, 0.1, batch, decay, change)


def full_cells() -> Iterator[Cell]:
    for epochs in (28, 16):
        yield Cell("full", "cifar10", 50_000, "cnn", epochs, 0.2, augmentation="crop,flip")
    yield Cell("full", "fashion_mnist", 60_000, "cnn", 12, 0.2, augmentation="affine")


def small_cells() -> Iterator[Cell]:
    photos = Cell("small", "photos64", 400, "cnn", 60, 0.2, augmentation="crop,flip")
    yield replace(photos, lr=0.1, batch=32)
    for epochs, batch in itertools.product((30, 60, 120), (16, 32, 128)):
        yield replace(photos, epochs=epochs, batch=batch)
    for epochs, batch in itertools.product((15, 30, 60), (32, 128)):
        cell = Cell("small", "cifar10", 2000, "cnn", epochs, 0.2, batch, augmentation="crop,flip")
        yield cell
        yield replace(cell, data="fashion_mnist", augmentation="affine")


def one_thread_run(work: tuple[Cell, Path]) -> tuple[Cell, dict[str, float]]:
    torch.set_num_threads(1)
    return work[0], run(*work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=("smoke", "cpu"), default="smoke")
    parser.add_argument("--parts", default="", help="comma-separated; default all")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("NOISEAUDIT_DATA", "."))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--speed", action="store_true", help="only time the shapes of SPEED")
    options = parser.parse_args()
    if options.speed:
        torch.set_num_threads(2)
        print(json.dumps(measure_speed([*SPEED, "cnn"], rounds=9), indent=1))
        return
    stored = json.loads(options.out.read_text()) if options.out.exists() else {}
    parts = [part for part in options.parts.split(",") if part]
    todo = [
        (cell, options.data_root)
        for cell in plan(options.preset)
        if cell.key not in stored and (not parts or cell.part in parts)
    ]
    print(f"{len(todo)} cells to do, {len(stored)} stored")
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers) as pool:
        for cell, result in pool.imap_unordered(one_thread_run, todo):
            stored[cell.key] = asdict(cell) | result
            temporary = options.out.with_suffix(".tmp")
            temporary.write_text(json.dumps(stored, indent=1) + "\n")
            temporary.replace(options.out)
            numbers = " ".join(f"{name}={value:.4f}" for name, value in result.items())
            print(f"{cell.key}: {numbers}", flush=True)


if __name__ == "__main__":
    main()
