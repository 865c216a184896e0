"""Curvature as a detector of wrong labels: which step h, how many probes, at what cost.

    python benchmarks/curvature.py --preset smoke
    python benchmarks/curvature.py --preset cpu --data-root DIR [--parts sweep,cost]

`sweep` measures every setting in one training run per seed (all share the clean gradient), twice:
with 10% of the labels flipped, and with 2% of *those* labels flipped once more, which needs no
answer key. The rule "take the h that best finds the flips it planted itself" is then compared with
the best h of the sweep. `table` repeats the curvature paper's Table 2. `cost` times an epoch of
training with and without it, and the published procedure (10 probes, each with two gradients of its
own), paired in one process. Finished runs are kept in --out.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does: see its session.py

import numpy as np
import torch
from _results import RESULTS, ratio_summary, save
from torch.nn import functional as F

import noiseaudit as na
from noiseaudit.detector import training_statistics
from noiseaudit.detectors.curvature import Curvature
from noiseaudit.evaluation import auroc, average_precision
from noiseaudit.label_noise import flip_uniform
from noiseaudit.scoring import make_plan
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.run import TrainingPlan, run_training
from noiseaudit.watching import CleanView, GradientBatch

STEPS = (0.001, 0.003, 0.01, 0.03, 0.1)
SETTINGS = [
    *(Curvature(h=h, squared=squared) for h in STEPS for squared in (False, True)),
    *(Curvature(h=0.01, every=every) for every in (2, 4)),
    *(Curvature(h=h, probes=4) for h in (0.001, 0.01)),
]
PLANTED = 0.02
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "sweep": [("digits", "mlp", 600)],
        "table": [("digits", "mlp", 600)],
        "rates": (0.1,),
        "seeds": (0,),
        "epochs": 4,
        "cost": ("digits", "mlp", 200, 2),
    },
    "cpu": {
        "sweep": [
            ("mnist", "mlp", None), ("mnist", "cnn", 20_000), ("fashion_mnist", "mlp", None),
            ("cifar10", "cnn", 10_000),
        ],
        "table": [("mnist", "cnn", None)],
        "rates": (0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
        "seeds": (0, 1, 2),
        "epochs": None,
        "cost": ("cifar10", "cnn", 10_000, 15),
    },
}  # fmt: skip


def measure(
    data: na.LabeledDataset, plan: TrainingPlan, settings: list[Curvature], folder: Path
) -> dict[str, Any]:
    """Statistics of one watched run, by name, and what it took."""
    run = run_training(
        data, plan, training_statistics(), folder,
        watchers={setting.statistic: setting.observer for setting in settings}, progress=True,
    )  # fmt: skip
    return {
        "statistics": run.statistics,
        "training_seconds": sum(epoch["seconds"] for epoch in run.history),
        "watching_seconds": sum(epoch["watching"] for epoch in run.history),
    }


def figures(scores: np.ndarray, key: np.ndarray) -> dict[str, float]:
    return {"auroc": auroc(scores, key), "average_precision": average_precision(scores, key)}


def sweep(
    source: tuple[str, str, int | None], seed: int, options: dict[str, Any], out: Path
) -> dict[str, Any]:
    name, model, limit = source
    clean = na.load(name, data_root=options["root"], limit=limit)
    noisy = clean.with_labels(flip_uniform(clean.labels, clean.num_classes, 0.1, seed=seed))
    again = flip_uniform(noisy.labels, clean.num_classes, PLANTED, seed=seed + 1000)
    found = {}
    for what, data, key in (
        ("true", noisy, noisy.labels != clean.labels),
        ("planted", noisy.with_labels(again), again != noisy.labels),
    ):
        plan = make_plan(
            data, model=model, seed=seed, epochs=options["epochs"], threads=options["threads"]
        )
        folder = out / f"sweep_{name}_{model}_{limit}_{seed}_{what}"
        run = measure(data, plan, SETTINGS, folder)
        found[what] = {
            setting.statistic: figures(run["statistics"][setting.statistic], key)
            for setting in SETTINGS
        }
        found[f"{what}_loss"] = figures(run["statistics"]["loss"], key)
    plain = [Curvature(h=h).statistic for h in STEPS]
    chosen = max(plain, key=lambda statistic: found["planted"][statistic]["auroc"])
    best = max(plain, key=lambda statistic: found["true"][statistic]["auroc"])
    return {
        "source": name, "model": model, "examples": len(clean), "seed": seed, **found,
        "chosen": chosen, "best": best,
        "regret": found["true"][best]["auroc"] - found["true"][chosen]["auroc"],
    }  # fmt: skip


def table(
    source: tuple[str, str, int | None], rate: float, seed: int, options: dict[str, Any], out: Path
) -> dict[str, Any]:
    name, model, limit = source
    clean = na.load(name, data_root=options["root"], limit=limit)
    noisy = clean.with_labels(flip_uniform(clean.labels, clean.num_classes, rate, seed=seed))
    plan = make_plan(
        noisy, model=model, seed=seed, epochs=options["epochs"], threads=options["threads"]
    )
    settings = [Curvature()]
    run = measure(noisy, plan, settings, out / f"table_{name}_{model}_{limit}_{rate}_{seed}")
    key = noisy.labels != clean.labels
    return {
        "source": name, "model": model, "examples": len(clean), "rate": rate, "seed": seed,
        "curvature": figures(run["statistics"][settings[0].statistic], key),
        "loss": figures(run["statistics"]["loss"], key),
        "training_seconds": run["training_seconds"], "watching_seconds": run["watching_seconds"],
    }  # fmt: skip


class Published:
    """The released procedure: for every probe two gradients of the batch-mean loss, n = 10.

    (It gets its batches from the pass that has computed one more, a twentieth of its work.)
    """

    def __init__(self, ids: np.ndarray, h: float = 0.001, probes: int = 10) -> None:
        self.values, self.h, self.probes = np.zeros(len(ids)), h, probes

    def on_batch(self, *_: Any) -> None: ...

    def on_epoch_end(self, clean: CleanView) -> None:
        clean.visit_gradients(self.visit, lambda: None)

    def visit(self, batch: GradientBatch) -> None:
        total = torch.zeros(len(batch.inputs), device=batch.inputs.device)
        for _ in range(self.probes):
            step = self.h * (torch.randint_like(batch.inputs, 2) * 2 - 1)
            here, there = (
                self.gradient(batch, batch.inputs + offset) for offset in (0 * step, step)
            )
            total += (there - here).flatten(1).norm(dim=1)
        self.values[batch.rows] = (total / self.probes).cpu().numpy()

    @staticmethod
    def gradient(batch: GradientBatch, inputs: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            inputs = inputs.detach().requires_grad_()
            loss = F.cross_entropy(batch.model(inputs), batch.labels)
            return torch.autograd.grad(loss, inputs)[0]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def timed(
    data: na.LabeledDataset, plan: TrainingPlan, observers: Callable[[], dict[str, Any]]
) -> float:
    began = time.perf_counter()
    train(
        lambda: build_model(plan.model, data.input_shape, data.num_classes), data, plan.recipe,
        observers(), seed=0, device=plan.device,
    )  # fmt: skip
    return time.perf_counter() - began


def cost(source: tuple[str, str, int | None, int], options: dict[str, Any]) -> dict[str, Any]:
    """Seconds of an epoch: bare, with one probe, with one every second epoch, as published."""
    name, model, limit, pairs = source
    data = na.load(name, data_root=options["root"], limit=limit)
    plan = make_plan(data, model=model, epochs=2, threads=options["threads"])
    watched: dict[str, Callable[[], dict[str, Any]]] = {
        "bare": dict,
        "one probe": lambda: {"c": Curvature().observer(data.ids, 0)},
        "every second epoch": lambda: {"c": Curvature(every=2).observer(data.ids, 0)},
        "published": lambda: {"c": Published(data.ids)},
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in watched}
    kinds = list(watched)
    for turn in range(-1, pairs):  # the first is a warm-up; then each kind leads in turn
        for kind in (*kinds[turn % len(kinds) :], *kinds[: turn % len(kinds)]):
            took = timed(data, plan, watched[kind])
            if turn >= 0:
                seconds[kind].append(took)
    bare = seconds["bare"]
    return {
        "source": name, "model": model, "examples": len(data), "epochs": 2, "seconds": seconds,
        "over_bare": {
            kind: ratio_summary([mine / other for mine, other in zip(own, bare, strict=True)])
            for kind, own in seconds.items() if kind != "bare"
        },
    }  # fmt: skip


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--parts", default="sweep,table,cost")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/curvature"), help="for the runs")
    parser.add_argument("--results", type=Path, default=results, help="for the JSON files")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    preset = PRESETS[given.preset]
    options = {"root": given.data_root, "epochs": preset["epochs"], "threads": given.threads}
    shared = {"preset": given.preset, "threads": given.threads}
    path = given.results
    parts = given.parts.split(",")
    if "sweep" in parts:
        rows: list[dict[str, Any]] = []
        for source, seed in itertools.product(preset["sweep"], preset["seeds"]):
            rows.append(sweep(source, seed, options, given.out))
            path = save("curvature_sweep", {**shared, "rows": rows}, given.results)
    if "table" in parts:
        rows = []
        for source, seed, rate in itertools.product(
            preset["table"], preset["seeds"], preset["rates"]
        ):
            rows.append(table(source, rate, seed, options, given.out))
            path = save("curvature_table", {**shared, "rows": rows}, given.results)
    if "cost" in parts:
        path = save("curvature_cost", {**shared, **cost(preset["cost"], options)}, given.results)
    return path


if __name__ == "__main__":
    main()
