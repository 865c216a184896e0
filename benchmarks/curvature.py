"""Curvature as a detector of wrong labels: which step h, how many probes, at what cost.

    python benchmarks/curvature.py --preset smoke
    python benchmarks/curvature.py --preset cpu --data-root DIR [--parts sweep,table,cost]

`sweep` measures every setting in one training run per data set and seed, with 10% of the labels
flipped, and 2% of *those* labels flipped once more by `choose_curvature`, which knows of its own
flips alone: what it chooses is compared with the best step of the sweep. `table` repeats the
curvature paper's Table 2. `cost` times training with and without it, and the published procedure
(10 probes, each with two gradients of its own), paired in one process; `procedure` says what those
find. `estimators` sets it beside the exact score and bfloat16 (`_estimators.py`), `memorization`
beside the published memorization scores of CIFAR-100 (`_memorization.py`). Finished runs of `sweep`
and `table` are kept in --out, an interrupted one goes on, as one of `memorization` does. Seeds can
run side by side as in `detection.py`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does: see its session.py

import numpy as np
import torch
from _estimators import estimators
from _memorization import memorization
from _results import BFLOAT16, RESULTS, ratio_summary, save
from torch import nn
from torch.nn import functional as F

import noiseaudit as na
from noiseaudit.detector import training_statistics
from noiseaudit.evaluation import auroc, average_precision
from noiseaudit.label_noise import flip_uniform
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import TrainingPlan, make_plan
from noiseaudit.training.run import run_training
from noiseaudit.watching import CleanView, GradientBatch

STEPS = (0.001, 0.003, 0.01, 0.03, 0.1)
SWEEP = [
    *(na.Curvature(h=h) for h in STEPS),
    *(na.Curvature(h=h, squared=True) for h in (0.001, 0.01, 0.1)),
    *(na.Curvature(h=0.01, every=every) for every in (2, 4)),
    na.Curvature(h=0.01, probes=4),
]
SWEEP_RATE = 0.1


@dataclass(frozen=True)
class Setup:
    """Data, how to train on them, and what to measure with; `training` as in `na.audit`."""

    source: str
    training: dict[str, Any]
    limit: int | None = None
    setting: na.Curvature = field(default_factory=na.Curvature)

    @property
    def name(self) -> str:
        size = "" if self.limit is None else f"_{self.limit}"
        model = self.training["model"]
        return f"{self.source}{size}_{getattr(model, '__name__', model)}"

    def load(self, root: Path | None) -> na.LabeledDataset:
        split = None if self.source == "digits" else "train"
        return na.load(self.source, data_root=root, split=split, limit=self.limit)


def strided(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Three convolutions of stride 2: `cnn`, whose stem takes patches, found fewer on MNIST."""
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((channels, 32, 64, 128)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * height * width, num_classes))


MLP = {"model": "mlp", "epochs": 10, "augmentation": "none"}
CNN = {"model": "cnn", "recipe": {"bfloat16": BFLOAT16}}
RESNET = {
    "model": "resnet18",
    "epochs": 200,
    "recipe": {"schedule": "stagewise", "weight_decay": 1e-4, "bfloat16": True},
}
DIGITS = Setup("digits", {"model": "mlp", "epochs": 4}, 300)
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "sweep": [DIGITS],
        "table": [DIGITS],
        "rates": (0.1,),
        "seeds": (0,),
        "cost": (DIGITS, 2),
        "procedure": [DIGITS],
        "estimators": [DIGITS],
        "memorization": [DIGITS],
    },
    "cpu": {
        "sweep": [
            Setup("mnist", MLP), Setup("fashion_mnist", MLP),
            Setup("cifar10", {**CNN, "epochs": 12}, 5_000),
        ],
        "table": [
            Setup(
                "mnist", {**CNN, "model": strided, "epochs": 5, "augmentation": "none"},
                setting=na.Curvature(bfloat16=BFLOAT16),
            ),
        ],
        "rates": (0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
        "seeds": (0, 1, 2),
        "cost": (Setup("cifar10", {"model": "cnn"}, 2_000), 15),
        "procedure": [Setup("cifar10", {**CNN, "epochs": 12}, 5_000)],
        "estimators": [
            Setup("mnist", MLP, 5_000),
            Setup("mnist", {**CNN, "epochs": 10, "augmentation": "none"}, 3_000),
            Setup("cifar10", {**CNN, "epochs": 10, "augmentation": "none"}, 3_000),
        ],
        "memorization": [
            Setup("cifar100", {**CNN, "epochs": 24, "augmentation": "none"}),
            Setup(
                "cifar100",
                {
                    "model": "cnn", "epochs": 24, "augmentation": "none",
                    "recipe": {"weight_decay": 1e-4, "bfloat16": BFLOAT16},
                },
            ),
        ],
    },
    "gpu": {
        "sweep": [],
        "table": [Setup("cifar10", RESNET), Setup("cifar100", RESNET)],
        "rates": (0.1, 0.01, 0.02, 0.04, 0.06, 0.08),
        "seeds": (0, 1, 2),
        "cost": (Setup("cifar10", {"model": "resnet18"}, 10_000), 15),
        "procedure": [Setup("cifar10", {"model": "resnet18", "epochs": 30}, 10_000)],
        "estimators": [Setup("cifar10", {"model": "resnet18", "epochs": 10}, 5_000)],
        "memorization": [
            Setup("cifar100", {**RESNET, "recipe": {**RESNET["recipe"], "weight_decay": decay}})
            for decay in (0.0, 1e-4)
        ],
    },
}  # fmt: skip


def figures(scores: np.ndarray, key: np.ndarray) -> dict[str, float]:
    return {"auroc": auroc(scores, key), "average_precision": average_precision(scores, key)}


def noisy_and_key(
    setup: Setup, rate: float, seed: int, root: Path | None
) -> tuple[na.LabeledDataset, np.ndarray]:
    clean = setup.load(root)
    labels = flip_uniform(clean.labels, clean.num_classes, rate, seed=seed)
    return clean.with_labels(labels), labels != clean.labels


def sweep(setup: Setup, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What each setting finds of the true noise, and what was chosen without knowing it."""
    noisy, key = noisy_and_key(setup, SWEEP_RATE, seed, options.data_root)
    choice = na.choose_curvature(
        noisy, SWEEP, seed=seed, threads=options.threads, progress=True,
        out=options.out / f"sweep_{setup.name}_{seed}", **setup.training,
    )  # fmt: skip
    rest = ~choice.is_planted
    settings = {
        setting.statistic: {**figures(scores[rest], key[rest]), "planted_auroc": planted}
        for setting, scores, planted in zip(SWEEP, choice.scores, choice.auroc, strict=True)
    }
    steps = [setting.statistic for setting in SWEEP[: len(STEPS)]]  # the rule is about h alone
    chosen = max(steps, key=lambda name: settings[name]["planted_auroc"])
    best = max(steps, key=lambda name: settings[name]["auroc"])
    return {
        "setup": setup.name, "examples": len(noisy), "seed": seed, "settings": settings,
        "chosen": chosen, "best": best,
        "regret": settings[best]["auroc"] - settings[chosen]["auroc"],
        "training_seconds": choice.training_seconds, "watching_seconds": choice.watching_seconds,
    }  # fmt: skip


def table(setup: Setup, rate: float, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    noisy, key = noisy_and_key(setup, rate, seed, options.data_root)
    plan = make_plan(noisy, seed=seed, threads=options.threads, **setup.training)
    setting = setup.setting
    run = run_training(
        noisy, plan, training_statistics(), options.out / f"table_{setup.name}_{rate}_{seed}",
        watchers={setting.statistic: setting.observer}, progress=True,
    )  # fmt: skip
    return {
        "setup": setup.name, "setting": setting.statistic, "epochs": plan.recipe.epochs,
        "examples": len(noisy), "rate": rate, "seed": seed,
        "curvature": figures(run.statistics[setting.statistic], key),
        "loss": figures(run.statistics["loss"], key),
        "training_seconds": run.training_seconds, "watching_seconds": run.watching_seconds,
    }  # fmt: skip


class Published:
    """The published procedure done plainly: for every probe two gradients, n = 10, h = 0.001.

    h is of pixels in [0, 1], as the paper has it; the loss is a sum, since the released code's mean
    scales up a short last batch. (Its batches come from the pass that has computed one gradient
    more, a twentieth of its work.)
    """

    def __init__(self, ids: np.ndarray, h: float = 0.001, probes: int = 10) -> None:
        self.values, self.h, self.probes = np.zeros(len(ids)), h, probes
        self.random = torch.Generator().manual_seed(0)

    def on_batch(self, *_: Any) -> None: ...

    def on_epoch_end(self, clean: CleanView) -> None:
        clean.visit_gradients(self.visit, lambda: None)

    def visit(self, batch: GradientBatch) -> None:
        total = torch.zeros(len(batch.inputs), device=batch.inputs.device)
        for _ in range(self.probes):
            signs = torch.randint(2, batch.inputs.shape, generator=self.random) * 2 - 1
            step = self.h * batch.pixel * signs.to(batch.inputs.device)
            here, there = (
                self.gradient(batch, batch.inputs + offset) for offset in (0 * step, step)
            )
            total += (there - here).flatten(1).norm(dim=1)
        self.values[batch.rows] += (total / self.probes).cpu().numpy()

    @staticmethod
    def gradient(batch: GradientBatch, inputs: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            inputs = inputs.detach().requires_grad_()
            loss = F.cross_entropy(batch.model(inputs), batch.labels, reduction="sum")
            return torch.autograd.grad(loss, inputs)[0]

    def compute(self) -> dict[str, np.ndarray]:
        return {"published": self.values}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def timed(data: na.LabeledDataset, plan: TrainingPlan, observers: dict[str, Any]) -> float:
    began = time.perf_counter()
    train(
        lambda: build_model(plan.model, data.input_shape, data.num_classes),
        Inputs(data, plan.device), plan.recipe, observers, seed=plan.seed,
    )  # fmt: skip
    return time.perf_counter() - began


def procedures(ids: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """An observer for each way of measuring."""
    return {
        "one probe": na.Curvature().observer(ids, seed),
        "every second epoch": na.Curvature(every=2).observer(ids, seed),
        "published": Published(ids),
    }


def procedure(setup: Setup, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What each way of measuring finds, all in the same training run."""
    data, key = noisy_and_key(setup, SWEEP_RATE, seed, options.data_root)
    plan = make_plan(data, seed=seed, threads=options.threads, **setup.training)
    watching = procedures(data.ids, seed)
    timed(data, plan, watching)
    return {
        "setup": setup.name, "examples": len(data), "epochs": plan.recipe.epochs, "seed": seed,
        "found": {
            kind: figures(next(iter(observer.compute().values())), key)
            for kind, observer in watching.items()
        },
    }  # fmt: skip


def cost(setup: Setup, pairs: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of two epochs: bare, with one probe, with one every second epoch, as published."""
    data = setup.load(options.data_root)
    watched: dict[str, Callable[[], dict[str, Any]]] = {
        "bare": dict,
        **{
            kind: lambda kind=kind: {kind: procedures(data.ids)[kind]}
            for kind in procedures(data.ids)
        },
    }
    plan = make_plan(data, threads=options.threads, **{**setup.training, "epochs": 2})
    seconds: dict[str, list[float]] = {kind: [] for kind in watched}
    kinds = list(watched)
    for turn in range(-1, pairs):  # the first is a warm-up; then each kind leads in turn
        for kind in (*kinds[turn % len(kinds) :], *kinds[: turn % len(kinds)]):
            took = timed(data, plan, watched[kind]())
            if turn >= 0:
                seconds[kind].append(took)
    bare = seconds["bare"]
    return {
        "setup": setup.name, "examples": len(data), "epochs": 2, "seconds": seconds,
        "over_bare": {
            kind: ratio_summary([mine / other for mine, other in zip(own, bare, strict=True)])
            for kind, own in seconds.items() if kind != "bare"
        },
    }  # fmt: skip


def shrunk(setup: Setup) -> Setup:
    """The same kind of run in seconds."""
    training = {**setup.training, "epochs": 2}
    return replace(setup, source="digits", limit=60, training=training)


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--parts", default="sweep,table,cost,procedure,estimators,memorization")
    parser.add_argument("--seeds", help="only these, joined by commas: to share a part out")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/curvature"), help="for the runs")
    parser.add_argument("--results", type=Path, default=results, help="for the JSON files")
    parser.add_argument("--smoke", action="store_true", help="the runs shrunk to seconds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    preset, parts = dict(PRESETS[options.preset]), options.parts.split(",")
    if options.smoke:
        for part in ("sweep", "table", "procedure", "estimators", "memorization"):
            preset[part] = [shrunk(setup) for setup in preset[part]]
        preset |= {"rates": (0.1,), "seeds": (0,), "cost": (shrunk(preset["cost"][0]), 1)}
    seeds = preset["seeds"]
    if options.seeds:
        seeds = tuple(int(seed) for seed in options.seeds.split(","))
    grids: dict[str, tuple[Callable[..., dict[str, Any]], list[tuple[Any, ...]]]] = {
        "sweep": (sweep, list(itertools.product(preset["sweep"], seeds))),
        "table": (
            table,
            [(setup, rate, seed) for setup, seed, rate in
             itertools.product(preset["table"], seeds, preset["rates"])],
        ),
        "cost": (cost, [preset["cost"]]),
        "procedure": (procedure, list(itertools.product(preset["procedure"], seeds))),
        "estimators": (estimators, [(setup,) for setup in preset["estimators"]]),
        "memorization": (memorization, [(setup,) for setup in preset["memorization"]]),
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
            name = f"curvature_{part}{'_gpu' if options.preset == 'gpu' else ''}"
            path = save(name, told, options.results)
    return path


if __name__ == "__main__":
    main()
