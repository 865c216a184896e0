"""C-scores beside the published ones, as detectors, and added up at scale."""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import noiseaudit as na
from noiseaudit._io import read_npz, write_npz
from noiseaudit.cscore.estimate import prepare
from noiseaudit.cscore.plan import SubsetPlan
from noiseaudit.cscore.reduce import Reducer
from noiseaudit.cscore.runs import looks
from noiseaudit.cscore.worker import Shard
from noiseaudit.detectors.cscore import CScore
from noiseaudit.label_noise import flip_pair, flip_uniform

RATES = {"uniform": 0.1, "pair": 0.2}
DETECTORS = ("cscore", "memorization", "cumulative_loss", "self_confidence", "normalized_margin")
MARGIN = CScore("normalized_margin")
LOWEST = 0.01
LOOKS = (4, 8, 10, 20, 50, 100)


def published(data: na.LabeledDataset, options: argparse.Namespace) -> np.ndarray | None:
    """The scores of `cscores_<name>.npz` in the data folder, of these rows, where there are any."""
    path = options.data_root and options.data_root / f"cscores_{data.name}.npz"
    if path is None or not path.exists():
        return None
    found = na.load_cscores(path)
    if not np.array_equal(found.labels[data.ids], data.labels):
        raise SystemExit(f"{path} is of other labels")
    return found.scores[data.ids]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the 1% lowest that both have in common."""
    k = max(1, round(LOWEST * len(one)))
    lowest = [set(np.argsort(values, kind="stable")[:k].tolist()) for values in (one, other)]
    return len(lowest[0] & lowest[1]) / k


def agreement(setup: Any, scheme: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    data = na.load(setup.source, data_root=options.data_root, limit=setup.limit)
    how = {
        "subset_ratio": setup.ratio, "scheme": scheme, "seed": seed, "threads": options.threads,
        "workers": options.workers, "out": options.out / f"{setup.name}_{scheme}_{seed}",
        **setup.training,
    }  # fmt: skip
    na.estimate_cscores(data, runs=setup.runs, progress=True, **how)
    seconds = json.loads((how["out"] / "manifest.json").read_text())["results"]["training_seconds"]
    truth, curve = published(data, options), []
    sweep = SubsetPlan(data.labels, setup.ratio, scheme).sweep
    for runs in sorted({*looks(setup.runs, sweep), *LOOKS} & set(range(setup.runs + 1))):
        found = na.estimate_cscores(data, runs=runs, **how)
        row = dict(found.agreement[-1])
        scored = found.holdout_counts > 0
        row["never_held_out"] = int((~scored).sum())
        if truth is not None:
            for name in ("scores", "soft_scores", "margins"):
                mine = getattr(found, name)[scored]
                row[f"published_{name}"] = float(spearmanr(mine, truth[scored]).statistic)
                row[f"lowest_{name}"] = overlap(mine, truth[scored])
        curve.append(row)
    return {
        "setup": setup.name, "ratio": setup.ratio, "scheme": scheme, "seed": seed,
        "runs": setup.runs, "core_seconds": seconds, "curve": curve,
    }  # fmt: skip


def detection(setup: Any, noise: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """With as many trainings for the C-scores as cleanlab has folds, at its ratio and at 0.5."""
    clean = na.load(setup.source, data_root=options.data_root, limit=setup.limit)
    flip = {"uniform": flip_uniform, "pair": flip_pair}[noise]
    labels = flip(clean.labels, clean.num_classes, RATES[noise], seed=seed)
    data, key = clean.with_labels(labels), labels != clean.labels
    found: dict[str, Any] = {}
    for ratio, detectors in itertools.product((0.5, 0.75), (DETECTORS, (MARGIN,))):
        report = na.audit(
            data, detectors=detectors, folds=setup.runs, runs=setup.runs, subset_ratio=ratio,
            seed=seed, threads=options.threads, resume=True, duplicates=False,
            out=options.out / f"detection_{setup.name}_{noise}_{seed}", **setup.training,
        )  # fmt: skip
        for name, ranking in report.rankings.items():
            kind = " margin" if detectors == (MARGIN,) else ""
            told = f"{name}{kind} at {ratio:g}" if name in ("cscore", "memorization") else name
            figures = na.evaluate(ranking, key)
            found[told] = {
                what: getattr(figures, what)
                for what in ("auroc", "average_precision", "removal_rate")
            }
        seconds = report.manifest["results"]
        if detectors == DETECTORS:
            found[f"seconds at {ratio:g}"] = seconds["cscore_seconds"]
            found["seconds of cross-validation"] = seconds["cross_validation_seconds"]
    return {"setup": setup.name, "noise": noise, "seed": seed, "runs": setup.runs, "found": found}


def memory(runs: int, examples: int, options: argparse.Namespace) -> dict[str, Any]:
    """Adding up as many shards: their content is made up, the sums are the real ones."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 1_000, examples)
    data = na.LabeledDataset(
        np.zeros((examples, 1), np.float32), labels, tuple(str(label) for label in range(1_000))
    )
    job = replace(prepare(data, subset_ratio=0.7, model="mlp", epochs=1), keep_probs=False)
    losses = random.random(examples).astype(np.float16)
    shard = Shard(0.7, 0, losses < 0.5, losses, -losses, np.empty((0, 1_000), np.float16), 1.0)
    path = options.out / "shard.npz"
    options.out.mkdir(parents=True, exist_ok=True)
    write_npz(path, shard.to_arrays())  # one file, read as often: 2,000 of them are 11 GB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    reducer = Reducer(job)
    for index in range(runs):
        reducer.add(Shard.from_arrays(0.7, index, read_npz(path)))
    found = reducer.result()
    return {
        "runs": runs, "examples": examples, "seconds": time.perf_counter() - began,
        "megabytes_before": before / 1024,
        "megabytes_at_most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "megabytes_of_all_losses": runs * losses.nbytes / 2**20,
        "held_out": [int(found.holdout_counts.min()), int(found.holdout_counts.max())],
    }  # fmt: skip
