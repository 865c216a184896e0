"""`noiseaudit memorization` on real data, and on the same data with their labels shuffled.

    python benchmarks/memorization_profile.py --preset smoke
    python benchmarks/memorization_profile.py --preset cpu --data-root DIR --out DIR

Eight published differences between data and noise (Arpit et al., ICML 2017): effects, intervals and
one-sided p-values over five seeds. On shuffled labels those that need true labels must vanish.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from _results import RESULTS, save

import noiseaudit as na

ROWS = 10_000  # to draw each seed's 1,000 to 3,000 examples from
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {"sources": ("digits",), "preset": "smoke", "num_seeds": 1},
    "cpu": {"sources": ("mnist",), "preset": "quick", "num_seeds": 5},
    "gpu": {"sources": ("mnist", "cifar10"), "preset": "full", "num_seeds": 5},
}


def profile(
    source: str, preset: dict[str, Any], options: argparse.Namespace, *, shuffled: bool
) -> dict[str, Any]:
    data = na.load(source, data_root=options.data_root, limit=ROWS)
    if shuffled:
        data = data.with_labels(np.random.default_rng(0).permutation(data.labels))
    found = na.memorization_profile(
        data, out=options.out / f"{source}{'_shuffled' * shuffled}_{options.preset}",
        preset=preset["preset"], num_seeds=preset["num_seeds"], progress=True,
    )  # fmt: skip
    analyses = [
        {key: value for key, value in analysis.items() if key not in ("curves", "matrices")}
        for analysis in found.to_dict()["analyses"]
    ]
    return {"source": source, "shuffled": shuffled, "rows": len(data), "analyses": analyses}


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/memorization"))
    parser.add_argument("--results", type=Path, default=results, help="for the JSON file")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    name = "" if options.preset == "cpu" else f"_{options.preset}"
    rows = []
    for source in preset["sources"]:
        for shuffled in (False, True):
            rows.append(profile(source, preset, options, shuffled=shuffled))
            path = save(f"memorization_profile{name}", {**preset, "rows": rows}, options.results)
    return path


if __name__ == "__main__":
    main()
