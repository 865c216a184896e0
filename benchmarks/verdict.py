"""The verdict of `noiseaudit audit`, on labels whose truth is known.

    python benchmarks/verdict.py --preset smoke
    python benchmarks/verdict.py --sets mnist --data-root DIR [--seeds 0,1,2]
    python benchmarks/verdict.py --sets cifar10,photos,cifar10n --data-root DIR

Every set gets uniform, pair, asymmetric and instance noise at five rates, and none; each is audited
as the command does it (`mnist` by the quicker `mlp`), once without the verdict and once more with
it, which tells what it costs. Digits, MNIST and Fashion-MNIST are trained on, `digits_vectors` as
64 numbers, which have left-out predictions beside the network; of the others embeddings, 224 pixels
a side, are judged left-out (of CIFAR-10, the first pictures). One row a cell: the estimated rate
beside the true one and beside cleanlab's `num_label_issues`, a two-Gaussian mixture of log margins
and "prediction differs" (of left-out probabilities, or those of four folds, for seed 0, where a
network is trained); what is reached at a precision of 0.9; the calibration of `p_error` and of
`p_suggested`; F1 at p_error >= 0.5 and at the best threshold; AUROC of the headline, of the
detector that is trusted most, and of every one; of instance noise, how many wrong labels are the
likeliest of their example. Settings were chosen on digits, on Fashion-MNIST with seed 0 and on
5,000 of MNIST; whom to trust (two tolerances of AUROC, among which labels, and that label odds of
left-out predictions are trusted alone) on cells of all sets but `cifar10n`; that those of networks
lead, and by which channel, on digits and MNIST with seed 0 and Fashion-MNIST with seeds 0 and 1;
how far that believes a pair, and three standard errors, on digits and Fashion-MNIST with seed 0 and
MNIST with seeds 0 and 1; that one detector joins those of networks whatever the plants say of them,
and how ranks are combined (of seven ways), on all cells of these three; when left-out predictions
are asked (`run_agreement`) with the 40% and low-noise cells of MNIST in view; that the support of
contradicted labels counts for weak networks, and which those are, on Fashion-MNIST with seed 0, how
much of it right labels have on clean data and on those cells; how often a network may err on clean
data alone, but that harder mistakes are counted, and by what, with instance noise in digits and
MNIST in view; the priors of the error curve of held-out predictions on all cells of embedded
photographs and CIFAR-10, and on pixels of digits and of Fashion-MNIST, seeds 0 and 1 (with 5,000 of
MNIST in view when the last two were told apart). `cifar10n` takes human labels instead
(`cifar10n.npz#aggre_label` and `#worse_label`).
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _noise_estimators import MAPS, calibration_error, likeliest_wrong, other_estimators
from _noise_options import NOISES, RATES, noise_options
from _results import RESULTS, save
from _verdict_tables import summary
from encoders import NAME as ENCODER
from encoders import opened as pictures_of
from sklearn.metrics import roc_auc_score

import noiseaudit as na
from noiseaudit.label_noise import estimate_class_probabilities

TRAINED = ("digits", "mnist", "fashion_mnist")
VECTORS = "_vectors"  # what the name of a set ends with whose pictures are but numbers
MODELS = {"mnist": "mlp"}  # of the others what the command takes
HUMAN = ("aggre_label", "worse_label")
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "sets": ["digits"], "noises": ["pair", "instance"], "rates": [0.2], "seeds": [0],
        "epochs": 3,
    },
    "cpu": {
        "sets": ["digits"], "noises": NOISES, "rates": RATES, "seeds": [0, 1, 2], "epochs": None,
    },
}  # fmt: skip
LIMITS = {"mnist": 10_000, "fashion_mnist": 5_000, "cifar10": 5_000, "cifar10n": 10_000}


def opened(name: str, options: argparse.Namespace) -> na.LabeledDataset:
    limit = options.limit or LIMITS.get(name)
    if (pictures := name.removesuffix(VECTORS)) in TRAINED:
        data = na.load(pictures, data_root=options.data_root, limit=limit)
        if pictures == name:
            return data
        flat = data.inputs.reshape(len(data), -1).astype(np.float32) / 255
        return na.LabeledDataset(flat, data.labels, data.class_names, name=name)
    data = pictures_of(name.removesuffix("n"), None, options.data_root)
    data = data.subset(np.arange(min(len(data), limit or len(data))))
    return na.encoded(data, na.embed(data, na.create_encoder(ENCODER)))


def audited(
    data: na.LabeledDataset, model: str, seed: int, epochs: int | None
) -> tuple[Any, float, float]:
    """The report with a verdict, and seconds without it and with it."""
    options: dict[str, Any] = {
        "model": model, "seed": seed, "epochs": epochs, "threads": 1, "duplicates": False,
        "encoder": "none",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        na.audit(data, out=folder, verdict=False, **options)
        first = time.perf_counter() - began
        report = na.audit(data, out=folder, **options)
        return report, first, time.perf_counter() - began


def cell(
    data: na.LabeledDataset, clean: np.ndarray, model: str, seed: int, epochs: int | None
) -> Any:
    is_wrong = data.labels != clean
    report, first, both = audited(data, model, seed, epochs)
    verdict = report.verdict
    if verdict is None:
        why = report.manifest["results"]["verdict"]["why"]
        return {"true": float(is_wrong.mean()), "why_none": why}
    estimate, at = verdict.estimate, verdict.threshold
    p, flagged = estimate.p_error, verdict.is_flagged
    row = {
        "true": float(is_wrong.mean()), "rate": estimate.rate.value, "low": estimate.rate.low,
        "high": estimate.rate.high, "most": estimate.most, "plants": estimate.plants,
        "is_supported": estimate.is_supported, "trusted": list(verdict.trusted),
        "calibration_error": calibration_error(p, is_wrong),
        "suggestion_calibration_error": calibration_error(
            verdict.suggested_prob, is_wrong & (verdict.suggested == clean)
        ),
        "flagged": float(flagged.mean()), "expected_precision": at.precision.value,
        "precision": share(is_wrong, flagged), "recall": share(flagged, is_wrong),
        "seconds_without": first, "seconds": both, "times_one_audit": both / first,
    }  # fmt: skip
    if seed == 0 or data.encoder:
        row["others"] = other_estimators(data, report, model, seed, epochs)
    sure = verdict.suggested_prob >= 0.9
    row |= {"relabelled": float(sure.mean()), "relabelled_right": share(
        verdict.suggested == clean, sure)}  # fmt: skip
    if is_wrong.any():
        auroc = {
            name: float(roc_auc_score(is_wrong, item.scores))
            for name, item in report.rankings.items()
        }
        row |= {
            "f1": f1(is_wrong, p >= 0.5), "best_f1": best_f1(is_wrong, report.ranking.scores),
            "auroc": float(roc_auc_score(is_wrong, report.ranking.scores)),
            "auroc_chosen": auroc[verdict.trusted[0]],
            "auroc_best": max(auroc.values()), "auroc_of": auroc,
        }  # fmt: skip
    return row


def share(of: np.ndarray, among: np.ndarray) -> float:
    return float(of[among].mean()) if among.any() else float("nan")


def f1(is_wrong: np.ndarray, flagged: np.ndarray) -> float:
    return float(2 * (is_wrong & flagged).sum() / max(1, is_wrong.sum() + flagged.sum()))


def best_f1(is_wrong: np.ndarray, scores: np.ndarray) -> float:
    found = np.cumsum(is_wrong[np.argsort(-scores, kind="stable")])
    return float((2 * found / (np.arange(1, len(found) + 1) + is_wrong.sum())).max())


def measure(name: str, options: argparse.Namespace, results: Path) -> Path:
    """All cells of a set, saved after each: hours of work are not to be lost."""
    data, rows, path = opened(name, options), [], results
    suffix = "" if options.preset == "cpu" else f"_{options.preset}"
    if name == "cifar10n":
        cells = [("human", key, seed) for key, seed in itertools.product(HUMAN, options.seeds)]
    else:
        kinds = [*itertools.product(options.noises, options.rates), ("uniform", 0.0)]
        cells = [(noise, rate, seed) for seed in options.seeds for noise, rate in kinds]
    probs = None
    if "instance" in options.noises and name != "cifar10n":
        probs = estimate_class_probabilities(data.inputs, data.labels, data.num_classes, seed=0)
    for noise, rate, seed in cells:
        if noise == "human":
            file = options.data_root / f"cifar10n.npz#{rate}"
            noisy = na.inject_noise(data, noise, labels=file, seed=seed)
        else:
            more = {
                "instance": {"pred_probs": probs},
                "asymmetric": {"class_map": MAPS[name.removesuffix(VECTORS)]},
            }
            noisy = na.inject_noise(data, noise, rate=rate, seed=seed, **more.get(noise, {}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", na.NoiseAuditWarning)
            found = cell(
                noisy.dataset, noisy.clean_labels, MODELS.get(name, "auto"), seed, options.epochs
            )
        if noise == "instance" and rate:
            is_wrong = noisy.dataset.labels != noisy.clean_labels
            found["likeliest"] = likeliest_wrong(data.labels, probs, rate, is_wrong)
        kind = noise if rate else "none"
        rows.append({"set": name, "noise": kind, "wanted": rate, "seed": seed, **found})
        told = f"{found['rate']:.4f}, {found['seconds']:.0f} s" if "rate" in found else "none"
        print(f"{name} {kind} {rate} {seed}: {found['true']:.4f}, {told}", flush=True)
        path = save(f"verdict_{name}{suffix}", {"rows": rows}, results)
    print(summary(rows))
    return path


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    options = noise_options(__doc__, PRESETS, arguments)
    path = results
    for name in options.sets:
        path = measure(name, options, results)
    return path


if __name__ == "__main__":
    main()
