"""Leave-one-out by ridge regression in closed form: exactness, cost, and detection beside others.

    python benchmarks/leave_one_out.py --preset smoke
    python benchmarks/leave_one_out.py [--parts brute,cost,detection] [--embeddings DIR]

Parts, each with a JSON of its own: `brute`, the largest difference from n fits; `cost`, seconds and
memory of 50,000 x 1,280 in a process of its own, memory-mapped; `detection`, AUROC and average
precision on uniform and pair noise, of digits' pixels, of MNIST's with --data-root, and of every
.npz with x and y in the folder --embeddings.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _results import RESULTS, interval, save
from scipy.special import logsumexp

import noiseaudit as na
from noiseaudit.detectors.loo_consistency import LooConsistency
from noiseaudit.detectors.neighbours import KnnDisagreement
from noiseaudit.evidence import Evidence
from noiseaudit.ridge import KERNELS, LeaveOneOut, leave_one_out, probs_of_scores

RATES = {"uniform": 0.1, "pair": 0.2}
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"brute": 30, "cost": (300, 20, ("rbf",)), "seeds": (0,), "limit": 200},
    "cpu": {"brute": 300, "cost": (50_000, 1280, KERNELS), "seeds": (0, 1, 2), "limit": 5000},
}


def brute(n: int) -> list[dict[str, Any]]:
    """Linear, with and without weights, more and fewer columns than rows."""
    random = np.random.default_rng(0)
    rows = []
    for d, rounds, value in itertools.product((n // 5, 2 * n), (0, 1), (1e-4, 1e-2, 1.0)):
        x = random.standard_normal((n, d)).astype(np.float32)
        labels = random.integers(0, 10, n)
        found = leave_one_out(
            x, labels, 10, kernel="linear", regularisation=value, rounds=rounds
        )  # fmt: skip
        points = (x - x.mean(axis=0, dtype=np.float64)) / x.std(axis=0, dtype=np.float64)
        slow = refits(points, labels, value, found.weights)
        difference = np.abs(found.scores - slow).max() / np.abs(slow).max()
        rows.append({
            "examples": n, "features": d, "rounds": rounds, "regularisation": value,
            "largest_relative_difference": float(difference),
        })  # fmt: skip
    return rows


def refits(points: Any, labels: Any, value: float, weights: Any) -> Any:
    n, d = points.shape
    targets, design = np.eye(10)[labels], np.hstack([np.ones((n, 1)), points])
    centred = points - weights @ points / weights.sum()
    penalty = value * (weights @ np.square(centred).sum(axis=1)) / weights.sum()
    penalties = np.diag(np.r_[0.0, np.full(d, penalty)])
    scores = np.empty((n, 10))
    for row in range(n):
        w = np.where(np.arange(n) == row, 0, weights)[:, None]
        scores[row] = design[row] @ np.linalg.solve(
            design.T @ (w * design) + penalties, design.T @ (w * targets)
        )
    return scores


def cost(n: int, d: int, kernels: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        random = np.random.default_rng(0)
        x = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
        for start in range(0, n, 4096):
            x[start : start + 4096] = random.standard_normal(x[start : start + 4096].shape)
        x.flush()
        for kernel in kernels:
            command = [sys.executable, __file__, "--alone", kernel, "--embeddings", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, megabytes = map(float, done.stdout.split())
            rows.append({
                "kernel": kernel, "examples": n, "features": d,
                "seconds": seconds, "peak_megabytes": megabytes,
            })  # fmt: skip
    return rows


def alone(kernel: str, path: Path) -> None:
    """The detector in a process of its own: seconds, and the process's greatest size."""
    x = np.load(path, mmap_mode="r")
    labels = np.random.default_rng(0).integers(0, 10, len(x))
    began = time.perf_counter()
    LooConsistency(kernel=kernel).rank(Evidence(np.arange(len(x)), labels, 10, embeddings=x))
    seconds = time.perf_counter() - began
    # Not ru_maxrss: a child starts with its parent's.
    status = Path("/proc/self/status").read_text()
    print(seconds, int(status.split("VmHWM:")[1].split()[0]) / 1024)


def data_sets(limit: int, options: argparse.Namespace) -> dict[str, na.LabeledDataset]:
    found = {"digits": na.load("digits", limit=limit if limit < 1797 else None)}
    if options.data_root:
        found["mnist"] = na.load("mnist", data_root=options.data_root, limit=limit)
    for path in sorted(options.embeddings.glob("*.npz")) if options.embeddings else []:
        found[path.stem] = na.load(path)
    return {
        name: na.LabeledDataset(
            data.inputs.reshape(len(data), -1).astype(np.float32), data.labels, data.class_names
        )
        for name, data in found.items()
    }


def suspicions(found: LeaveOneOut, labels: Any) -> dict[str, Any]:
    """What was compared: of the given label, against the best other, calibrated, softmax."""
    rows, scores = np.arange(len(labels)), found.scores
    given, others = scores[rows, labels], scores.copy()
    others[rows, labels] = -np.inf
    told = {"given": -given, "margin": others.max(axis=1) - given}
    told["calibrated"] = -np.log(probs_of_scores(scores, labels)[rows, labels].astype(np.float64))
    for sharpness in (2, 5, 10):
        told[f"softmax_{sharpness}"] = logsumexp(sharpness * scores, axis=1) - sharpness * given
    return told


def detection(name: str, data: na.LabeledDataset, seeds: Any) -> list[dict[str, Any]]:
    figures: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for (noise, rate), seed in itertools.product(RATES.items(), seeds):
        noisy = na.inject_noise(data, noise, rate=rate, seed=seed)
        given = noisy.dataset

        def note(*key: str, scores: Any, noisy: Any = noisy) -> None:
            ranking = na.Ranking("scores", noisy.dataset.ids, scores)
            told = na.evaluate(ranking, noisy.is_corrupted)
            figures.setdefault(key, []).append((told.auroc, told.average_precision))

        for kernel, rounds in itertools.product(KERNELS, (0, 1)):
            found = leave_one_out(
                given.inputs, given.labels, data.num_classes, kernel=kernel, rounds=rounds
            )
            for score, values in suspicions(found, given.labels).items():
                note(noise, kernel, f"rounds {rounds}", score, scores=values)
        evidence = Evidence(given.ids, given.labels, data.num_classes, embeddings=given.inputs)
        for metric in ("auto", "cosine", "euclidean"):
            near = KnnDisagreement(metric=metric).rank(evidence)
            note(noise, "knn_disagreement", "", metric, scores=near.scores)
    return [
        {
            "data": name, "examples": len(data), "noise": noise, "method": method, "rounds": rounds,
            "score": score, "auroc": _summary([a for a, _ in values]),
            "average_precision": _summary([p for _, p in values]),
        }
        for (noise, method, rounds, score), values in figures.items()
    ]  # fmt: skip


def _summary(values: list[float]) -> dict[str, float]:
    return interval(values) if len(values) > 1 else {"mean": values[0]}


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--parts", default="brute,cost,detection")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--embeddings", type=Path, help="a folder of .npz files with x and y")
    parser.add_argument("--results", type=Path, default=results, help="for the JSON files")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone:
        alone(options.alone, options.embeddings)
        return results
    preset = PRESETS[options.preset]
    parts = {
        "brute": lambda: brute(preset["brute"]),
        "cost": lambda: cost(*preset["cost"]),
        "detection": lambda: [
            row
            for name, data in data_sets(preset["limit"], options).items()
            for row in detection(name, data, preset["seeds"])
        ],
    }
    asked = options.parts.split(",")
    if unknown := set(asked) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}: {', '.join(parts)}")
    suffix = "" if options.preset == "cpu" else f"_{options.preset}"
    for part in asked:
        told = {"preset": options.preset, "rows": parts[part]()}
        path = save(f"leave_one_out_{part}{suffix}", told, options.results)
    return path


if __name__ == "__main__":
    main()
