"""C-scores over nine ratios: the ICML paper's Figures 2, 3, 4b, 5 and 9.

Histograms by ratio and of the integral, mean score of each bin of the integral against the ratio,
rank correlation of each ratio with the integral, mean and deviation by class, galleries.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from _agreement import published
from matplotlib.figure import Figure
from scipy.stats import kendalltau, spearmanr

import noiseaudit as na

BINS = 30
KENDALL = 10_000  # examples: more take minutes and change nothing


def integral(setup: Any, options: argparse.Namespace) -> dict[str, Any]:
    data = na.load(setup.source, data_root=options.data_root, limit=setup.limit)
    folder = options.out / f"integral_{setup.name}"
    found = na.estimate_cscores(
        data, subset_ratio="integral", runs=setup.runs, out=folder, progress=True,
        threads=options.threads, workers=options.workers, **setup.training,
    )  # fmt: skip
    seconds = json.loads((folder / "manifest.json").read_text())["results"]["training_seconds"]
    ratios = [f"{ratio:g}" for ratio in found.ratios]
    some = np.random.default_rng(0).permutation(len(found))[:KENDALL]
    truth = published(data, options)
    edges = np.linspace(0, 1, BINS + 1)
    which = np.clip(np.digitize(found.scores, edges) - 1, 0, BINS - 1)
    present = np.unique(which)
    by_bin = np.array([found.scores_by_ratio[:, which == bin_].mean(axis=1) for bin_ in present])
    own = [found.scores[data.labels == label] for label in range(data.num_classes)]
    row = {
        "setup": setup.name, "runs": setup.runs, "core_seconds": seconds,
        "agreement": found.agreement[-1],
        "spearman_with_integral": {
            ratio: float(spearmanr(scores, found.scores).statistic)
            for ratio, scores in zip(ratios, found.scores_by_ratio, strict=True)
        },
        "kendall_with_integral": {
            ratio: float(kendalltau(scores[some], found.scores[some]).statistic)
            for ratio, scores in zip(ratios, found.scores_by_ratio, strict=True)
        },
        "histogram": np.histogram(found.scores, edges)[0].tolist(),
        "histogram_by_ratio": {
            ratio: np.histogram(scores, edges)[0].tolist()
            for ratio, scores in zip(ratios, found.scores_by_ratio, strict=True)
        },
        "bins": [round(float(edges[bin_]), 3) for bin_ in present],
        "mean_by_bin": by_bin.tolist(),
        "order_of_bins": [float(spearmanr(present, column).statistic) for column in by_bin.T],
        "lowest_bin_at_largest_ratio": float(by_bin[0, -1]),
        "class_means": [float(scores.mean()) for scores in own],
        "class_deviations": [float(scores.std()) for scores in own],
    }  # fmt: skip
    if truth is not None:
        row["published_spearman"] = float(spearmanr(found.scores, truth).statistic)
        row["published_spearman_soft"] = float(spearmanr(found.soft_scores, truth).statistic)
    draw(found, by_bin, present, edges, folder)
    gallery(data, found.soft_scores, folder / "gallery.png")
    return row


def draw(found: Any, by_bin: np.ndarray, present: Any, edges: np.ndarray, folder: Path) -> None:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for ratio, scores in zip(found.ratios, found.scores_by_ratio, strict=True):
        left.hist(scores, edges, histtype="step", label=f"{ratio:g}")
    left.set(yscale="log", xlabel="C-score", title="by ratio")
    left.legend(fontsize="xx-small")
    middle.hist(found.scores, edges)
    middle.set(yscale="log", xlabel="integral C-score", title="mean over ratios")
    for bin_, means in zip(present, by_bin, strict=True):
        right.plot(found.ratios, means, color=str(0.85 * edges[bin_]))
    right.set(xlabel="subset ratio", ylabel="mean C-score", title="by bin of the integral")
    figure.savefig(folder / "integral.png", dpi=120)


def gallery(data: na.LabeledDataset, scores: np.ndarray, path: Path, each: int = 5) -> None:
    """For each of ten classes the lowest, middle and highest scores."""
    classes = range(min(10, data.num_classes))
    figure = Figure(figsize=(3 * each * 0.7, len(classes) * 0.75), layout="constrained")
    panels = figure.subplots(len(classes), 3 * each, squeeze=False)
    for line, own in zip(panels, classes, strict=True):
        rows = np.flatnonzero(data.labels == own)
        rows = rows[np.argsort(scores[rows], kind="stable")]
        middle = max(0, len(rows) // 2 - each // 2)
        shown = (*rows[:each], *rows[middle : middle + each], *rows[-each:])
        for panel in line:
            panel.set_axis_off()
        for panel, row in zip(line, shown, strict=False):
            panel.imshow(np.squeeze(data.inputs[row]), cmap="gray")
    figure.suptitle("lowest | middle | highest C-score", fontsize="small")
    figure.savefig(path, dpi=120)
