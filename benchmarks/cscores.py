"""C-scores: agreement with published ones, models needed, training many at a time, what they find.

    python benchmarks/cscores.py --preset smoke
    python benchmarks/cscores.py --preset cpu --data-root DIR [--parts agreement,...] [--seeds 0,1]

`agreement` estimates them for MNIST and sets growing numbers of models beside the published scores
and beside each other, with balanced and with independent subsets; `batching` pairs many models at a
time with one after another; `integral` goes over nine ratios (histograms, mean by bin, which ratio
agrees best, classes, galleries); `detection` finds planted flips with as many trainings as
cleanlab; `dynamics` sets every statistic of one training run beside published scores, by epoch;
`learning` follows groups of published scores through training under several recipes; `memory` adds
up 2,000 models of 1.3 million examples. Models and runs are kept in --out; an interrupted part goes
on. Figures are drawn there too.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does: see its session.py

import torch
from _agreement import agreement, detection, memory
from _batching import batching, tiny
from _dynamics import dynamics, learning
from _integral import integral
from _results import BFLOAT16, RESULTS, save


@dataclass(frozen=True)
class Setup:
    """Data and how to train on them.

    Attributes:
        source: named data set.
        training: options of `make_plan` or `estimate_cscores`.
        limit: number of examples.
        ratio: subset ratio, where there is one.
        runs: models.
    """

    source: str
    training: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    ratio: float | None = None
    runs: int = 100

    @property
    def name(self) -> str:
        model = self.training["model"]
        words = (self.source, self.limit, model if isinstance(model, str) else model.__name__)
        return "_".join(str(word) for word in words if word)


# What the authors' released MNIST demo trains with, whose scores are the published ones.
DEMO = {"model": "mlp", "epochs": 10, "recipe": {"batch_size": 128}}
MLP, CNN = {"model": "mlp"}, {"model": "cnn", "recipe": {"bfloat16": BFLOAT16}}
RESNET = {
    "model": "resnet18",
    "recipe": {"schedule": "stagewise", "weight_decay": 5e-4, "bfloat16": True},
}
INCEPTION = {"model": "inception", "recipe": {"bfloat16": True}}
DIGITS = Setup("digits", {"model": "mlp", "epochs": 3}, 200, 0.5, 10)
# The rates of the paper's Table 3, under its stagewise schedule and constant, and Adam.
RECIPES: dict[str, dict[str, Any]] = {
    "triangular": {},
    "stagewise": {"schedule": "stagewise", "learning_rate": 0.1},
    **{
        f"constant {rate:g}": {"schedule": "constant", "learning_rate": rate}
        for rate in (0.1, 0.02, 0.004, 0.0008)
    },
    "Adam 0.001": {"optimizer": "adam", "schedule": "constant", "learning_rate": 0.001},
}
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "agreement": [DIGITS], "integral": [DIGITS], "detection": [DIGITS], "dynamics": [DIGITS],
        "learning": [DIGITS], "seeds": (0,), "batching": (200, 4, 1), "memory": (3, 2_000),
    },
    "cpu": {
        "agreement": [Setup("mnist", MLP, None, 0.1, 100)],
        "integral": [Setup("mnist", DEMO, None, None, 10)],
        "detection": [Setup("mnist", MLP, None, 0.5, 4)],
        "dynamics": [
            Setup("cifar10", {**CNN, "epochs": 30}),
            Setup("mnist", {**MLP, "augmentation": "none"}),
            Setup("cifar100", {**CNN, "epochs": 30}),
        ],
        "learning": [Setup("cifar10", {**CNN, "epochs": 12}, 15_000)],
        "seeds": (0, 1, 2),
        "batching": (20_000, 64, 15),
        "memory": (2_000, 1_300_000),
    },
    "gpu": {
        "agreement": [
            Setup("mnist", DEMO, None, 0.1, 2_000),
            Setup("cifar10", {**INCEPTION, "epochs": 80}, None, 0.3, 40),
        ],
        "integral": [Setup("mnist", DEMO, None, None, 200)],
        "detection": [],
        "dynamics": [Setup("cifar10", {**RESNET, "epochs": 60})],
        "learning": [Setup("cifar10", {**RESNET, "epochs": 60})],
        "seeds": (0,),
        "batching": (60_000, 256, 15),
        "memory": (20, 1_300_000),
    },
}  # fmt: skip


def shrunk(setup: Setup) -> Setup:
    """The same kind of run in seconds."""
    training = {**setup.training, "epochs": 2, "model": "mlp"}
    return dataclasses.replace(setup, source="digits", limit=200, runs=10, training=training)


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument(
        "--parts", default="agreement,batching,integral,detection,dynamics,learning,memory"
    )
    parser.add_argument("--seeds", help="only these, joined by commas: to share a part out")
    parser.add_argument("--only", help="only set-ups whose name begins with this")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/cscores"), help="for the runs")
    parser.add_argument("--results", type=Path, default=results, help="for the JSON files")
    parser.add_argument("--smoke", action="store_true", help="the runs shrunk to seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, help="processes that train subsets")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    preset, parts = dict(PRESETS[options.preset]), options.parts.split(",")
    if options.smoke:
        for part in ("agreement", "integral", "detection", "dynamics", "learning"):
            preset[part] = [shrunk(setup) for setup in preset[part]]
        preset |= {"seeds": (0,), "batching": (200, 4, 1), "memory": (3, 2_000)}
    recipes = list(RECIPES.items())
    if options.smoke or options.preset == "smoke":
        recipes = recipes[-2:]
    seeds = preset["seeds"]
    if options.seeds:
        seeds = tuple(int(seed) for seed in options.seeds.split(","))

    def setups(part: str) -> list[Setup]:
        return [item for item in preset[part] if item.name.startswith(options.only or "")]

    examples, models, pairs = preset["batching"]
    grids: dict[str, tuple[Callable[..., dict[str, Any]], list[tuple[Any, ...]]]] = {
        "agreement": (
            agreement,
            list(itertools.product(setups("agreement"), ("balanced", "iid"), seeds)),
        ),
        "batching": (
            batching,
            [(model, batch, examples, max(models // share, 2), pairs) for model, batch, share in
             ((tiny, 32, 1), ("mlp", 64, 8), ("mlp", 128, 8))],
        ),
        "integral": (integral, [(setup,) for setup in setups("integral")]),
        "detection": (
            detection, list(itertools.product(setups("detection"), ("uniform", "pair"), seeds))
        ),
        "dynamics": (dynamics, list(itertools.product(setups("dynamics"), seeds))),
        "learning": (
            learning,
            [(setup, *recipe) for setup in setups("learning") for recipe in recipes],
        ),
        "memory": (memory, [preset["memory"]]),
    }  # fmt: skip
    if unknown := set(parts) - set(grids):
        parser.error(f"no part {', '.join(sorted(unknown))}: {', '.join(grids)}")
    path = options.results
    for part in parts:
        measure, cells = grids[part]
        rows: list[dict[str, Any]] = []
        for cell in cells:
            rows.append(measure(*cell, options))
            told = {"preset": options.preset, "threads": options.threads, "rows": rows}
            name = f"cscores_{part}{'_gpu' if options.preset == 'gpu' else ''}"
            path = save(name, told, options.results)
    return path


if __name__ == "__main__":
    main()
