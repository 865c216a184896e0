"""What recording costs, as paired ratios in one process.

1. One epoch of 50,000 x 10 logits in batches of 128: `Recorder` with every statistic against the
   aum package's `AUMCalculator` with its single one.
2. One training epoch of `cnn` with the audit's observer (class sums and the kept trajectory
   included) against the bare loop.

    python benchmarks/recorder_overhead.py [--preset smoke|cpu]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _results import RESULTS, ratio_summary, save
from aum import AUMCalculator

from noiseaudit.class_sums import ClassSums
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import training_statistics
from noiseaudit.observers import StatisticsObserver
from noiseaudit.recorder import Recorder
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.recipes import Recipe

PRESETS = {
    "smoke": {"n": 2000, "pairs": 3, "images": 256},
    "cpu": {"n": 50_000, "pairs": 15, "images": 6000},
}
BATCH = 128


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def pairs(first: Callable[[], object], second: Callable[[], object], count: int) -> list[float]:
    """Ratios first / second in alternating order, after one warm-up of each."""
    first(), second()
    ratios = []
    for pair in range(count):
        if pair % 2:
            a, b = timed(first), timed(second)
        else:
            b, a = timed(second), timed(first)
        ratios.append(a / b)
    return ratios


def against_aum(n: int, count: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, 10, generator=generator)
    targets = torch.randint(0, 10, (n,), generator=generator)
    order = torch.randperm(n, generator=generator)
    batches = [(logits[i], targets[i], i) for i in order.split(BATCH)]
    recorders = {
        name: Recorder(labels=targets.numpy(), num_classes=10, class_sums=sums)
        for name, sums in (("default", False), ("with_class_sums", True))
    }

    def ours(recorder: Recorder) -> None:
        for batch in batches:
            recorder.update(*batch)
        recorder.end_epoch()

    with tempfile.TemporaryDirectory() as folder:
        calculator = AUMCalculator(folder, compressed=True)
        listed = [(batch, labels, ids.tolist()) for batch, labels, ids in batches]

        def theirs() -> None:
            for batch in listed:
                calculator.update(*batch)

        found = {
            name: ratio_summary(pairs(theirs, partial(ours, recorder), count))
            for name, recorder in recorders.items()
        }
        seconds = {"aum": timed(theirs), "recorder": timed(partial(ours, recorders["default"]))}
    return {"examples": n, "aum_over_recorder": found, "seconds_once": seconds}


def against_bare_training(images: int, count: int) -> dict[str, object]:
    random = np.random.default_rng(0)
    data = LabeledDataset(
        random.integers(0, 256, (images, 28, 28), dtype=np.uint8),
        random.integers(0, 10, images),
        tuple("0123456789"),
    )
    recipe = Recipe(epochs=1)

    def run(*, watched: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            observer = StatisticsObserver(
                data.labels,
                10,
                training_statistics(),
                class_sums=ClassSums(images, 10),
                trajectories=Path(folder),
                trajectory_names=["confidence"],
            )
            train(
                lambda: build_model("cnn", data.input_shape, 10),
                Inputs(data, torch.device("cpu")),
                recipe,
                {"statistics": observer} if watched else {},
                seed=0,
            )

    ratios = pairs(lambda: run(watched=True), lambda: run(watched=False), count)
    return {"model": "cnn", "images": images, "watched_over_bare": ratio_summary(ratios)}


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    preset = parser.parse_args(arguments).preset
    size = PRESETS[preset]
    return save(
        "recorder_overhead",
        {
            "preset": preset,
            "recorder": against_aum(size["n"], size["pairs"]),
            "training": against_bare_training(size["images"], size["pairs"]),
        },
        results,
    )


if __name__ == "__main__":
    main()
