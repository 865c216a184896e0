"""How well every detector finds known noise, beside cleanlab with the same model, and its cost.

    python benchmarks/detection.py --preset smoke
    python benchmarks/detection.py --preset cpu --data-root DIR [--tasks mnist_uniform,...]

Presets: `smoke` (digits, seconds), `cpu` (minutes a task on two cores), `cpu-full` (hours) and
`gpu` (ResNet-18; a cell fits one ten-minute call); --smoke shrinks any of them to seconds. Finished
cells are kept in --out and reused, and the results of a task are written after each of its cells,
so that it can be stopped at any time: the same command goes on. Different tasks can run side by
side, each with fewer --threads, and so can the seeds of one, each in an --out of its own: put all
cells into one folder afterwards, and the command without --seeds writes the whole result.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does: see its session.py

import torch
from _results import BFLOAT16, RESULTS, save

import noiseaudit as na

ONE_RUN = [name for name, kind in na.detector_types().items() if set(kind.needs) <= {"training"}]
FIGURES = ("auroc", "average_precision", "removal_rate", "fpr_at_95_recall", "seconds")


@dataclass(frozen=True)
class Task:
    """A table of cells: noise x rates x seeds on one data set.

    Attributes:
        source: named data set.
        noise: shown name -> word of `parse_noise`, with {root} for the data folder.
        rates: not used by human labels.
        seeds: of noise and training.
        training: options of `na.run_experiment`.
        held_out_seeds: those for which cleanlab's detectors train their four folds too.
        retrain: options of retraining, or None.
        limit: number of training examples.
    """

    source: str
    noise: dict[str, str]
    rates: tuple[float, ...] = (0.1,)
    seeds: tuple[int, ...] = (0, 1, 2)
    training: dict[str, Any] = field(default_factory=dict)
    held_out_seeds: tuple[int, ...] = (0, 1, 2)
    retrain: dict[str, Any] | None = None
    limit: int | None = None


UNIFORM, PAIR = {"uniform": "uniform"}, {"pair": "pair"}
HUMAN = {
    "CIFAR-10N aggregate": "human:{root}/cifar10n.npz#aggre_label",
    "CIFAR-10N worst": "human:{root}/cifar10n.npz#worse_label",
}
FIVE = (0, 1, 2, 3, 4)
MLP = {"model": "mlp"}
CNN = {"model": "cnn", "recipe": {"bfloat16": BFLOAT16}}
CNN_50000 = {"model": "cnn", "epochs": 28, "recipe": {"weight_decay": 5e-4, "bfloat16": BFLOAT16}}
RESNET = {
    "model": "resnet18",
    "epochs": 24,
    "recipe": {
        "batch_size": 512, "learning_rate": 0.4, "weight_decay": 5e-4, "bfloat16": True,
    },
}  # fmt: skip
RESNET_LONG = {
    "model": "resnet18",
    "epochs": 200,
    "recipe": {
        "learning_rate": 0.1, "schedule": "stagewise", "weight_decay": 5e-4, "bfloat16": True,
    },
}  # fmt: skip
PAPER_RATES = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1)

PRESETS: dict[str, dict[str, Task]] = {
    "smoke": {
        "smoke": Task(
            "digits", UNIFORM, (0.2,), (0, 1), {"model": "mlp", "epochs": 3}, (0,),
            {"epochs": 3}, 300,
        ),
    },
    "cpu": {
        "digits": Task("digits", {**UNIFORM, **PAIR}, (0.1,), training=MLP),
        "mnist_uniform": Task(
            "mnist", UNIFORM, PAPER_RATES, training=MLP, held_out_seeds=(0,)
        ),
        "mnist_pair": Task("mnist", PAIR, (0.2,), training={**MLP, "augmentation": "none"}),
        "mnist_pair_augmented": Task("mnist", PAIR, (0.2,), training=MLP),
        "fashion_mnist": Task("fashion_mnist", {**UNIFORM, **PAIR}, (0.2,), training=MLP),
        "fashion_mnist_cnn": Task(
            "fashion_mnist", UNIFORM, training=CNN, held_out_seeds=(0,)
        ),
        "cifar10_10000": Task("cifar10", UNIFORM, training=CNN, limit=10_000),
        "retrain_fashion_mnist": Task(
            "fashion_mnist", UNIFORM, (0.2, 0.4), FIVE, CNN, (),
            {**MLP, "epochs": 55, "augmentation": "none"},
        ),
        "retrain_cifar10": Task(
            "cifar10", UNIFORM, (0.2, 0.4), FIVE, CNN, (),
            {"epochs": 15, "augmentation": "none"}, 25_000,
        ),
    },
    "cpu-full": {
        "cifar10_uniform": Task("cifar10", UNIFORM, training=CNN_50000, held_out_seeds=(0,)),
        "cifar10n": Task("cifar10", HUMAN, training=CNN_50000, held_out_seeds=(0,)),
        "cifar10_uniform_25": Task(
            "cifar10", UNIFORM, (0.25,), training=CNN_50000, held_out_seeds=()
        ),
    },
    "gpu": {
        "gpu_cifar10": Task("cifar10", UNIFORM, training=RESNET, held_out_seeds=()),
        "gpu_cifar100": Task("cifar100", UNIFORM, training=RESNET, held_out_seeds=()),
        "gpu_cifar10_200": Task(
            "cifar10", UNIFORM, seeds=(0,), training=RESNET_LONG, held_out_seeds=()
        ),
        "gpu_cifar100_200": Task(
            "cifar100", UNIFORM, seeds=(0,), training=RESNET_LONG, held_out_seeds=()
        ),
        "gpu_cifar10n": Task("cifar10", HUMAN, training=RESNET, held_out_seeds=()),
        "gpu_cifar10_grid": Task(
            "cifar10", UNIFORM, (*PAPER_RATES, 0.15, 0.2, 0.25), training=RESNET, held_out_seeds=()
        ),
        "gpu_cifar100_grid": Task(
            "cifar100", UNIFORM, (*PAPER_RATES, 0.15, 0.2, 0.25), training=RESNET,
            held_out_seeds=(),
        ),
    },
}  # fmt: skip


def shrunk(task: Task) -> Task:
    """The same kind of task in seconds: a hundred digits, one epoch, the first cell."""
    noise = {
        name: "uniform" if word.startswith("human:") else word for name, word in task.noise.items()
    }
    return replace(
        task,
        source="digits",
        noise=noise,
        rates=task.rates[:1],
        seeds=task.seeds[:1],
        training={**task.training, "epochs": 1},
        retrain=None if task.retrain is None else {**task.retrain, "epochs": 1},
        limit=100,
    )


def cells(task: Task) -> Iterator[tuple[str, float, int]]:
    """Seed by seed, so that what is there early covers every setting."""
    for seed, (shown, word) in itertools.product(task.seeds, task.noise.items()):
        for rate in task.rates[:1] if word.startswith("human:") else task.rates:
            yield shown, rate, seed


def run(task: Task, root: Path | None, out: Path, threads: int) -> Iterator[na.ExperimentReport]:
    """The report after each cell, of all cells so far."""
    split = None if task.source == "digits" else "train"
    data = na.load(task.source, data_root=root, split=split, limit=task.limit)
    test = None
    if task.retrain is not None and split is not None:
        test = na.load(task.source, data_root=root, split="test")
    rows: list[dict[str, Any]] = []
    retrain_rows: list[dict[str, Any]] = []
    failed = 0
    for shown, rate, seed in cells(task):
        report = na.run_experiment(
            data,
            noise=[task.noise[shown].format(root=root)],
            rates=[rate],
            seeds=[seed],
            out=out,
            detectors=None if seed in task.held_out_seeds else ONE_RUN,
            retrain=task.retrain or False,
            test=test,
            threads=threads,
            progress=True,
            **task.training,
        )
        rows += [{**row, "noise": shown} for row in report.rows]
        retrain_rows += [{**row, "noise": shown} for row in report.retrain_rows]
        failed += report.failed
        yield na.ExperimentReport(rows, failed, retrain_rows)


def by_detector(report: na.ExperimentReport) -> list[dict[str, Any]]:
    """A line per noise, rate and detector with its figures seed by seed."""
    groups: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for row in report.rows:
        groups.setdefault((row["noise"], row["rate"], row["detector"]), []).append(row)
    return [
        {
            "noise": noise,
            "rate": rate,
            "detector": detector,
            "seeds": [row["seed"] for row in rows],
            "n_corrupted": [row["n_corrupted"] for row in rows],
            **{name: [row[name] for row in rows] for name in FIGURES},
            "errors": [row["error"] for row in rows if row["error"]],
        }
        for (noise, rate, detector), rows in groups.items()
    ]


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--tasks", help="only these of the preset, joined by commas")
    parser.add_argument("--seeds", help="only these, joined by commas: to share a task out")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/detection"), help="for the cells")
    parser.add_argument("--results", type=Path, default=results, help="for the JSON files")
    parser.add_argument("--smoke", action="store_true", help="the tasks shrunk to seconds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    names = options.tasks.split(",") if options.tasks else list(preset)
    if unknown := set(names) - set(preset):
        parser.error(f"{options.preset} has no task {', '.join(sorted(unknown))}: {list(preset)}")
    for name in names:
        task = shrunk(preset[name]) if options.smoke else preset[name]
        if options.seeds:
            task = replace(task, seeds=tuple(int(seed) for seed in options.seeds.split(",")))
        for report in run(task, options.data_root, options.out / name, options.threads):
            path = save(
                f"detection_{name}",
                {
                    "preset": options.preset,
                    "task": asdict(task),
                    "threads": options.threads,
                    "failed": report.failed,
                    "detectors": by_detector(report),
                    "retrained": report.retrain_summary(),
                    "retrain_rows": report.retrain_rows,
                },
                options.results,
            )
        print(report.to_markdown())
    return path


if __name__ == "__main__":
    main()
