"""Seconds of training with all CPU threads over those with one, by network and data.

    python benchmarks/threads.py --preset smoke
    python benchmarks/threads.py --preset cpu --data-root DIR

Paired in one process, each leading in turn. It is what `choose_threads` goes by.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does: see its session.py

import torch
from _results import RESULTS, ratio_summary, save

import noiseaudit as na
from noiseaudit.device import cpu_threads
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model, forward_operations
from noiseaudit.training.plan import make_plan

PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"sources": [("digits", 100, ("mlp",))], "pairs": 2},
    "cpu": {
        "sources": [
            ("digits", None, ("mlp", "cnn")), ("mnist", 6_000, ("mlp", "cnn")),
            ("cifar10", 4_000, ("mlp", "cnn")),
        ],
        "pairs": 5,
    },
}  # fmt: skip


def measure(data: na.LabeledDataset, model: str, pairs: int) -> dict[str, Any]:
    plan = make_plan(data, model=model, epochs=1)
    network = build_model(model, data.input_shape, data.num_classes)
    most = torch.get_num_threads()
    seconds: dict[int, list[float]] = {1: [], most: []}
    for turn in range(-1, pairs):  # the first is a warm-up
        for threads in (1, most) if turn % 2 else (most, 1):
            began = time.perf_counter()
            with cpu_threads(threads):
                train(
                    lambda: build_model(model, data.input_shape, data.num_classes),
                    Inputs(data, plan.device), plan.recipe, {}, seed=0,
                )  # fmt: skip
            if turn >= 0:
                seconds[threads].append(time.perf_counter() - began)
    batch = plan.recipe.batch_size
    return {
        "source": data.name, "examples": len(data), "model": model, "batch_size": batch,
        "operations_of_a_batch": batch * forward_operations(network, data.input_shape),
        "threads": most, "seconds": {str(count): own for count, own in seconds.items()},
        "all_over_one": ratio_summary(
            [mine / one for mine, one in zip(seconds[most], seconds[1], strict=True)]
        ),
    }  # fmt: skip


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--results", type=Path, default=results, help="for the JSON files")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    rows = []
    for source, limit, models in preset["sources"]:
        split = None if source == "digits" else "train"
        data = na.load(source, data_root=options.data_root, split=split, limit=limit)
        rows += [measure(data, model, preset["pairs"]) for model in models]
    return save("threads", {"preset": options.preset, "rows": rows}, options.results)


if __name__ == "__main__":
    main()
