"""How well one training run finds labels flipped on purpose: 10% uniform, three seeds.

    python benchmarks/planted_flips.py [--preset smoke|cpu] [--data-root DIR]

`smoke` is digits with few epochs; `cpu` digits and MNIST (60,000) with `mlp` at default settings.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from _results import RESULTS, interval, save

import noiseaudit as na
from noiseaudit.label_noise import flip_uniform

RATE = 0.1
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"datasets": ["digits"], "seeds": [0, 1], "epochs": 4},
    "cpu": {"datasets": ["digits", "mnist"], "seeds": [0, 1, 2], "epochs": None},
}


def cell(clean: na.LabeledDataset, seed: int, epochs: int | None) -> dict[str, Any]:
    noisy = clean.with_labels(flip_uniform(clean.labels, clean.num_classes, RATE, seed=seed))
    report = na.audit(noisy, model="mlp", seed=seed, epochs=epochs, progress=True)
    wrong = noisy.labels != clean.labels
    flagged = report.findings.is_label_issue
    return {
        "seed": seed,
        "flipped": int(wrong.sum()),
        "epochs": len(report.history),
        "training_seconds": report.manifest["results"]["training_seconds"],
        "flagged": int(flagged.sum()),
        "flagged_precision": float(wrong[flagged].mean()) if flagged.any() else None,
        "flagged_recall": float(flagged[wrong].mean()),
        "detectors": {
            name: figures(na.evaluate(ranking, wrong)) for name, ranking in report.rankings.items()
        },
    }


def figures(found: na.Evaluation) -> dict[str, float]:
    return {name: getattr(found, name) for name in ("auroc", "average_precision", "removal_rate")}


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and interval over seeds, by detector and figure."""
    return {
        name: {
            figure: interval([item["detectors"][name][figure] for item in cells])
            for figure in figures
        }
        for name, figures in cells[0]["detectors"].items()
    }


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    found: dict[str, Any] = {}
    for name in preset["datasets"]:
        clean = na.load(name, data_root=options.data_root)
        cells = [cell(clean, seed, preset["epochs"]) for seed in preset["seeds"]]
        found[name] = {"examples": len(clean), "seeds": cells, "summary": summary(cells)}
        auroc = found[name]["summary"]["cumulative_loss"]["auroc"]
        print(f"{name}: cumulative_loss AUROC {auroc['mean']:.5f} +- {auroc['half_width_95']:.5f}")
    return save(
        "planted_flips",
        {"preset": options.preset, "rate": RATE, "noise": "uniform", "datasets": found},
        results,
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
