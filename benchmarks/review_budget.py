"""When a review is said to be done, is it? A reviewer who knows the true labels, on digits.

    python benchmarks/review_budget.py --preset smoke
    python benchmarks/review_budget.py

`p_error` is `estimate_noise_of_scores` on leave-one-out ridge scores, as in `noise_rate.py`. The
reviewer looks at what `ReviewProgress.plan` asks for, at most 50 of either kind at a time
("checks"), or at the most probable alone, 25 at a time ("top"), until `is_done`. One row a cell,
share and way: what share had been found then, how many were reviewed, and how many an oracle needs
that knows where in the same order to stop. On instance noise `p_error` misses nearly all errors; in
"mixed" half of the errors are of that kind. "counts": how many labels are wrong, estimated after
so many decisions, half on the most probable ones, half at random.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _results import RESULTS, save, table
from noise_rate import ridge_run

import noiseaudit as na
from noiseaudit.label_noise import estimate_class_probabilities

CONFIDENCE = 0.9
BATCH, TOP_BATCH, COUNT_BATCH = 50, 25, 10
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "noises": ("uniform",), "rates": (0.2,), "shares": (0.8,), "seeds": 1, "limit": 200,
        "decisions": (0, 20),
    },
    "cpu": {
        "noises": ("uniform", "pair", "instance", "mixed"), "rates": (0.05, 0.1, 0.2),
        "shares": (0.9, 0.95), "seeds": 3, "limit": None, "decisions": (0, 50, 100, 200),
    },
}  # fmt: skip


def judged(data: na.LabeledDataset, noise: str, rate: float, seed: int) -> tuple[Any, Any]:
    """p_error and which labels are wrong, most suspicious first."""
    probs = estimate_class_probabilities(data.inputs, data.labels, data.num_classes, seed=0)
    if noise == "mixed":
        noisy = na.inject_noise(data, "uniform", rate=rate / 2, seed=seed).dataset
        noisy = na.inject_noise(
            noisy, "instance", rate=rate / 2, seed=seed, pred_probs=probs
        ).dataset
    else:
        more = {"pred_probs": probs} if noise == "instance" else {}
        noisy = na.inject_noise(data, noise, rate=rate, seed=seed, **more).dataset
    scores, _, _ = ridge_run(noisy)
    channel = na.fit_label_channel(scores, noisy.labels)
    planted = na.plant_flips(noisy.labels, channel.joint, seed=seed, rounds=4, share=0.02)
    again = np.stack([ridge_run(noisy.with_labels(row))[0] for row in planted])
    p_error = na.estimate_noise_of_scores(noisy.labels, scores, planted, again).p_error
    odds, _ = channel.log_odds(scores, noisy.labels)
    order = np.argsort(-odds, kind="stable")
    return p_error[order], (noisy.labels != data.labels)[order]


def review(
    p_error: np.ndarray, is_wrong: np.ndarray, share: float, seed: int, *, checks: bool
) -> dict[str, Any]:
    rows, checked = np.zeros(0, np.int64), 0
    while True:
        progress = na.review_progress(p_error, rows, is_wrong[rows], seed=seed)
        if progress.is_done(share, CONFIDENCE):
            break
        if checks:
            plan = progress.plan(share, CONFIDENCE)
            more = progress.next_rows(min(plan.probable, BATCH))
            drawn = progress.sample_rows(min(plan.checks, BATCH), seed=seed)
            checked += len(drawn)
            more = np.union1d(more, drawn)
        else:
            more = progress.next_rows(TOP_BATCH)
        rows = np.concatenate([rows, more])
    order = na.review_progress(p_error, [], np.zeros(0, bool)).next_rows(len(p_error))
    total = int(is_wrong.sum())
    enough = np.ceil(share * total - 1e-9)
    return {
        "share": share, "way": "checks" if checks else "top", "reviewed": len(rows),
        "checks": checked, "wrong": total, "found": progress.found / total,
        "is_true": bool(progress.found >= enough),
        "oracle": int(np.searchsorted(np.cumsum(is_wrong[order]), enough)) + 1,
        "left": int(total - progress.found), "expected_left": progress.expected_left.value,
        "low": progress.expected_left.low, "high": progress.expected_left.high,
    }  # fmt: skip


def counts(p_error: np.ndarray, is_wrong: np.ndarray, decisions: tuple[int, ...]) -> list[Any]:
    """Shares of wrong labels, estimated after so many decisions."""
    found, rows, n = [], np.zeros(0, np.int64), len(p_error)
    while True:
        progress = na.review_progress(p_error, rows, is_wrong[rows])
        if len(rows) in decisions:
            at, low, high = ((progress.found + left) / n for left in progress.expected_left)
            found.append({"decisions": len(rows), "true": float(is_wrong.mean()),
                          "rate": at, "low": low, "high": high})  # fmt: skip
        if len(rows) >= max(decisions):
            return found
        drawn = progress.sample_rows(COUNT_BATCH // 2, seed=len(rows))
        rest = [row for row in progress.next_rows(COUNT_BATCH).tolist() if row not in drawn]
        rows = np.concatenate([rows, drawn, rest[: COUNT_BATCH - len(drawn)]]).astype(np.int64)


def summary(rows: list[dict[str, Any]]) -> str:
    keys = ("noise", "share", "way")
    lines = []
    for key in dict.fromkeys(tuple(row[name] for name in keys) for row in rows):
        some = [row for row in rows if tuple(row[name] for name in keys) == key]
        means = [np.mean([row[name] for row in some]) for name in ("reviewed", "oracle")]
        lines.append([
            *map(str, key), f"{sum(row['is_true'] for row in some)}/{len(some)}",
            f"{min(row['found'] for row in some):.3f}", *(f"{mean:.0f}" for mean in means),
        ])  # fmt: skip
    return table([*keys, "true", "least found", "reviewed", "oracle"], lines)


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    data = na.load("digits", limit=preset["limit"])
    rows: list[dict[str, Any]] = []
    estimates: list[dict[str, Any]] = []
    for noise, rate, seed in itertools.product(
        preset["noises"], preset["rates"], range(preset["seeds"])
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", na.NoiseAuditWarning)
            p_error, is_wrong = judged(data, noise, rate, seed)
        cell = {"noise": noise, "rate": rate, "seed": seed}
        told = counts(p_error, is_wrong, preset["decisions"])
        estimates += [{**cell, "wanted": rate, **row} for row in told]
        for share, checks in itertools.product(preset["shares"], (True, False)):
            found = review(p_error, is_wrong, share, seed, checks=checks)
            rows.append({**cell, **found})
        print(
            noise, rate, seed, [(row["is_true"], row["reviewed"]) for row in rows[-4:]], flush=True
        )
    print(summary(rows))
    suffix = "" if options.preset == "cpu" else f"_{options.preset}"
    kept = {"examples": len(data), "confidence": CONFIDENCE, "rows": rows, "counts": estimates}
    return save(f"review_budget{suffix}", kept, results)


if __name__ == "__main__":
    main()
