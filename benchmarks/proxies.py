"""Densities, neighbours, gradients, loss sensitivity: as C-score proxies, as detectors; their cost.

    python benchmarks/proxies.py --preset smoke
    python benchmarks/proxies.py --preset cpu --data-root DIR --out DIR [--parts cost,detection]

Parts, each with a JSON of its own: `cost`, blocked densities beside scikit-learn's whole matrices,
paired, and the memory of 60,000 examples; `agreement`, Spearman with the published C-scores after
several epochs of one training run (the papers' Figures 6 and 8, Table 2), `whole` of all of MNIST
with one seed; `detection`, AUROC on uniform and pair noise; `removal`, clean test accuracy after
removing the examples that loss sensitivity suspects most, before training anew.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _agreement import published
from _results import RESULTS, interval, ratio_summary, save
from scipy.stats import kendalltau, spearmanr

import noiseaudit as na
from noiseaudit.detector import training_statistics
from noiseaudit.detectors.density import (
    DensityHidden,
    DensityHiddenClass,
    DensityHiddenRelative,
    DensityInput,
)
from noiseaudit.detectors.gradient_similarity import GradientSimilarity
from noiseaudit.detectors.loss_sensitivity import LossSensitivity
from noiseaudit.detectors.neighbours import KnnDisagreement, LofHidden
from noiseaudit.evidence import Evidence
from noiseaudit.kernel_density import kernel_densities
from noiseaudit.training.plan import make_plan
from noiseaudit.training.run import run_training

RATES = {"uniform": 0.1, "pair": 0.2}
NEIGHBOURS = (1, 3, 10, 30, 100)  # of the LOF sweep, the paper's Figure 8
REFERENCES = ("cumulative_loss", "cumulative_confidence", "area_under_margin")
KINDS = ("density", "lof", "knn", "gradients")
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "cost": (400, 2, 300, ("density",)), "seeds": (0,),
        "setups": [("digits", 200, (1, 2), {"model": "mlp", "epochs": 2})],
        "whole": ("digits", None, (1,), {"model": "mlp", "epochs": 1}),
        "removal": [("digits", 400, {"model": "mlp", "epochs": 2})], "rates": (0.0, 0.1),
    },
    "cpu": {
        "cost": (20_000, 15, 60_000, KINDS), "seeds": (0, 1, 2),
        "setups": [
            ("mnist", 20_000, (1, 3, 10, 20), {"model": "mlp", "epochs": 20}),
            ("cifar10", 10_000, (2, 6, 12, 24), {"model": "cnn", "epochs": 24}),
        ],
        "whole": ("mnist", None, (1, 20), {"model": "mlp", "epochs": 20}),
        "removal": [
            (name, 20_000, {"model": "mlp", "epochs": 12, "augmentation": "none"})
            for name in ("mnist", "fashion_mnist")
        ],
        "rates": (0.0, 0.1, 0.4),
    },
    "gpu": {
        "cost": (20_000, 15, 60_000, KINDS), "seeds": (0, 1, 2),
        "setups": [
            ("cifar10", None, (5, 20, 40, 80), {"model": "inception", "epochs": 80}),
            ("cifar100", None, (5, 20, 40, 80), {"model": "inception", "epochs": 80}),
        ],
        "whole": ("mnist", None, (1, 20), {"model": "mlp", "epochs": 20}),
        "removal": [("cifar10", None, {"model": "resnet18", "epochs": 30})],
        "rates": (0.0, 0.1, 0.4),
    },
}  # fmt: skip


def detectors_by_epoch(epochs: tuple[int, ...]) -> Iterator[tuple[str, int | None, Any]]:
    """What it is called, the epoch it looks at (None: all or none), and the detector."""
    yield "density_input", None, DensityInput()
    for norm in ("l1", "squared_l2"):
        yield f"loss_sensitivity {norm}", None, LossSensitivity(norm)
    for epoch in epochs:
        yield "density_hidden", epoch, DensityHidden(epoch)
        yield "density_hidden_class", epoch, DensityHiddenClass(epoch)
        yield "density_hidden_relative", epoch, DensityHiddenRelative(epoch)
        yield "knn_disagreement", epoch, KnnDisagreement(epoch=epoch)
        yield "gradient_similarity", epoch, GradientSimilarity(epoch=epoch)
        yield "gradient_similarity all", epoch, GradientSimilarity("all", epoch)
        for k in NEIGHBOURS if epoch == epochs[-1] else (3,):
            yield f"lof_hidden k={k}", epoch, LofHidden(k, epoch)


def rankings(
    data: na.LabeledDataset, setup: Any, seed: int, folder: Path, options: argparse.Namespace
) -> Iterator[tuple[str, int | None, na.Ranking, float]]:
    """Every detector's ranking after one training run, and the seconds it took by itself."""
    _, _, epochs, training = setup
    plan = make_plan(data, seed=seed, threads=options.threads, **training)
    chosen = list(detectors_by_epoch(epochs))
    watching = [detector for _, _, detector in chosen if isinstance(detector, LossSensitivity)]
    run = run_training(
        data, plan, training_statistics(), folder, progress=True,
        watchers={detector.statistic: detector.observer for detector in watching},
        snapshots={item for _, _, own in chosen for item in getattr(own, "snapshots", ())},
    )  # fmt: skip
    evidence = Evidence(
        data.ids, data.labels, data.num_classes, seed, run.statistics, run.correct_history,
        inputs=data.inputs, snapshots=run.snapshots, device=plan.device.type,
    )  # fmt: skip
    for detector in na.create_detectors(REFERENCES):
        yield detector.name, None, detector.rank(evidence), 0.0
    for name, epoch, detector in chosen:
        evidence.reused_seconds.clear()
        began = time.perf_counter()
        ranking = detector.rank(evidence)
        took = time.perf_counter() - began + sum(evidence.reused_seconds)
        yield name, epoch, ranking, took


def agreement(setup: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    source, limit, _, _ = setup
    data = na.load(source, data_root=options.data_root, limit=limit)
    truth = published(data, options)
    truth = np.random.default_rng(0).random(len(data)) if truth is None else truth
    folder = options.out / f"agreement_{source}_{'all_' if limit is None else ''}{seed}"
    figures = [
        {
            "proxy": name, "epoch": epoch, "seconds": seconds,
            "spearman": float(spearmanr(-ranking.scores, truth).statistic),
            "kendall": float(kendalltau(-ranking.scores, truth).statistic),
        }
        for name, epoch, ranking, seconds in rankings(data, setup, seed, folder, options)
    ]  # fmt: skip
    return {"source": source, "examples": len(data), "seed": seed, "figures": figures}


def detection(setup: Any, noise: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    source, limit, _, _ = setup
    data = na.load(source, data_root=options.data_root, limit=limit)
    noisy = na.inject_noise(data, noise, rate=RATES[noise], seed=seed)
    folder = options.out / f"detection_{source}_{noise}_{seed}"
    figures = []
    for name, epoch, ranking, seconds in rankings(noisy.dataset, setup, seed, folder, options):
        found = na.evaluate(ranking, noisy.is_corrupted)
        figures.append({
            "detector": name, "epoch": epoch, "seconds": seconds, "auroc": found.auroc,
            "average_precision": found.average_precision, "removal_rate": found.removal_rate,
        })  # fmt: skip
    return {
        "source": source, "examples": len(data), "noise": noise, "rate": RATES[noise],
        "seed": seed, "figures": figures,
    }  # fmt: skip


def whole_matrices(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The direct route: scikit-learn's distances, then the kernel, n x n of each."""
    from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

    n = len(points)
    h = euclidean_distances(points).sum(dtype=np.float64) / (n * (n - 1)) / 2
    kernel = rbf_kernel(points, gamma=1 / h**2)
    every = kernel.mean(axis=1)
    kernel[labels[:, None] != labels] = 0
    return 2 * kernel.mean(axis=1) - every


def cost(n: int, pairs: int, larger: int, kinds: tuple[str, ...]) -> dict[str, Any]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, n)
    points = random.normal(size=(n, 256)).astype(np.float32)
    ours = kernel_densities([points], labels).relative
    theirs = whole_matrices(points, labels)
    ratios = []
    for turn in range(pairs):
        seconds = {}
        for which in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            whole_matrices(points, labels) if which else kernel_densities([points], labels)
            seconds[which] = time.perf_counter() - began
        ratios.append(seconds[1] / seconds[0])
    result = {
        "examples": n, "scikit_learn_over_ours": ratio_summary(ratios),
        "largest_difference_over_spread": float(np.abs(ours - theirs).max() / theirs.std()),
    }  # fmt: skip
    for kind in kinds:
        command = [sys.executable, __file__, "--alone", kind, "--examples", str(larger)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, megabytes = map(float, done.stdout.split())
        result[kind] = {"examples": larger, "seconds": seconds, "peak_megabytes": megabytes}
    return result


def alone(kind: str, n: int) -> None:
    """One detector in a process of its own: seconds, and the process's greatest size."""
    random = np.random.default_rng(0)
    evidence = Evidence(
        np.arange(n), random.integers(0, 10, n), 10,
        snapshots={
            ("features", None): random.standard_normal((n, 256), dtype=np.float32),
            ("logits", None): random.standard_normal((n, 10), dtype=np.float32),
        },
    )  # fmt: skip
    detector = {
        "density": DensityHiddenRelative(), "lof": LofHidden(), "knn": KnnDisagreement(),
        "gradients": GradientSimilarity(),
    }[kind]  # fmt: skip
    began = time.perf_counter()
    detector.rank(evidence)
    seconds = time.perf_counter() - began
    # Not ru_maxrss: a child starts with its parent's.
    status = Path("/proc/self/status").read_text()
    print(seconds, int(status.split("VmHWM:")[1].split()[0]) / 1024)


def removal(setup: Any, rates: Any, seeds: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Test accuracy by share removed: by loss sensitivity, by cumulative loss, and at random."""
    from noiseaudit.training.clean_pass import CleanPass
    from noiseaudit.training.inputs import Inputs
    from noiseaudit.training.loop import train
    from noiseaudit.training.models import build_model

    source, limit, training = setup
    data = na.load(source, data_root=options.data_root, limit=limit)
    if source == "digits":
        test, data = data.subset(np.arange(100)), data.subset(np.arange(100, len(data)))
    else:
        test = na.load(source, data_root=options.data_root, split="test")

    def accuracy(part: na.LabeledDataset, seed: int) -> float:
        plan = make_plan(part, seed=seed + 100, threads=options.threads, **training)
        trained = train(
            lambda: build_model(plan.model, data.input_shape, data.num_classes),
            Inputs(part, plan.device), plan.recipe, {}, seed=seed + 100,
        )  # fmt: skip
        held_out = Inputs(test, plan.device, scaled_like=trained.inputs)
        predicted = CleanPass(trained.model, held_out).logits.argmax(dim=1).numpy()
        return float((predicted == test.labels).mean())

    cells = []
    for rate in rates:
        for seed in seeds:
            noisy = na.inject_noise(data, "uniform", rate=rate, seed=seed)
            report = na.audit(
                noisy.dataset, detectors=["loss_sensitivity", "cumulative_loss", "random"],
                seed=seed, threads=options.threads, duplicates=False, **training,
            )  # fmt: skip
            own: dict[str, Any] = {"rate": rate, "seed": seed, "all": accuracy(noisy.dataset, seed)}
            own["removed"] = []
            for share in sorted({0.05, 0.1, rate} - {0.0}):
                k = round(share * len(data))
                for name, ranking in report.rankings.items():
                    kept = np.sort(ranking.order[k:])
                    own["removed"].append({
                        "share": share, "by": name,
                        "wrong": float(noisy.is_corrupted[ranking.order[:k]].mean()),
                        "accuracy": accuracy(noisy.dataset.subset(kept), seed),
                    })  # fmt: skip
            cells.append(own)
    summary = []
    for rate in rates:
        mine = [cell for cell in cells if cell["rate"] == rate]
        for number, first in enumerate(mine[0]["removed"]):
            gains = [cell["removed"][number]["accuracy"] - cell["all"] for cell in mine]
            summary.append({
                "rate": rate, "share": first["share"], "by": first["by"],
                "wrong": interval([cell["removed"][number]["wrong"] for cell in mine]),
                "all": interval([cell["all"] for cell in mine]), "gain": interval(gains),
            })  # fmt: skip
    return {"source": source, "examples": len(data), "cells": cells, "summary": summary}


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--parts", default="cost,agreement,whole,detection,removal")
    parser.add_argument("--smoke", action="store_true", help="the preset's parts, on digits")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/proxies"), help="runs go on there")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--results", type=Path, default=results, help="for the JSON files")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--examples", type=int, default=60_000, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone:
        alone(options.alone, options.examples)
        return results
    preset = PRESETS["smoke" if options.smoke else options.preset]
    cells = {
        "cost": [lambda: cost(*preset["cost"])],
        "agreement": [
            lambda s=setup, seed=seed: agreement(s, seed, options)
            for setup, seed in itertools.product(preset["setups"], preset["seeds"])
        ],
        "whole": [lambda: agreement(preset["whole"], 0, options)],
        "detection": [
            lambda s=setup, n=noise, seed=seed: detection(s, n, seed, options)
            for setup, noise, seed in itertools.product(preset["setups"], RATES, preset["seeds"])
        ],
        "removal": [
            lambda s=setup: removal(s, preset["rates"], preset["seeds"], options)
            for setup in preset["removal"]
        ],
    }
    parts = options.parts.split(",")
    if unknown := set(parts) - set(cells):
        parser.error(f"no part {', '.join(sorted(unknown))}: {', '.join(cells)}")
    name = "" if options.preset == "cpu" else f"_{options.preset}"
    for part in parts:
        rows: list[dict[str, Any]] = []
        for cell in cells[part]:
            rows.append(cell())
            told = {"preset": options.preset, "rows": rows}
            path = save(f"proxies_{part}{name}", told, options.results)
    return path


if __name__ == "__main__":
    main()
