"""The harness: noise x rates x seeds x detectors -> tables and figures, resumable cell by cell.

A cell is one corrupted data set: one training run serves all its training-time detectors, and
every detector sees identical noise, data order and initial weights.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from noiseaudit._io import make_folder, read_npz
from noiseaudit.corruption import is_measured, parse_noise
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import Detector, create_detectors
from noiseaudit.errors import OutputError, UsageError
from noiseaudit.experiment_cell import FAILURES, Cell, Job, failed_cell, run_cell
from noiseaudit.experiment_report import ExperimentReport, write_tables
from noiseaudit.loaders import load
from noiseaudit.manifest import package_versions, write_manifest
from noiseaudit.report.plots import plot_auroc, plot_removal_by_epoch, plot_scores
from noiseaudit.retraining import arm_names, split_off_test
from noiseaudit.stages import HeldOutOptions, check_options, choose_detectors
from noiseaudit.training.plan import TrainingPlan, make_plan
from noiseaudit.workspace import output_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["run_experiment"]

logger = logging.getLogger(__name__)

_RESULTS = ("results.csv", "summary.csv", "summary.md", "retrain.csv", "retrain_summary.csv")
_FORMAT = 2


def run_experiment(
    source: Any,
    *,
    noise: Sequence[str] = ("uniform",),
    rates: Sequence[float] = (0.1,),
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
    detectors: Sequence[str | Detector] | None = None,
    folds: int = 4,
    runs: int = 10,
    subset_ratio: float = 0.5,
    retrain: bool | Mapping[str, Any] = False,
    retrain_by: Sequence[str] = (),
    test: Any = None,
    resume: bool = True,
    progress: bool = False,
    **training: Any,
) -> ExperimentReport:
    """Corrupt a data set whose labels are taken as clean, score every detector, tabulate.

    With `retrain`, also train on the noisy labels, on the clean ones, on what is left when as many
    random examples are removed, and on what is left when suspects are removed or relabelled, and
    measure accuracy on clean test examples: what cleaning is worth.

    Cost: per noise, rate and seed one training run, `folds` more if a detector needs
    out-of-sample probabilities, `runs` on a share of the data if one needs C-scores, and with
    `retrain` four more and two for each of `retrain_by`; per seed another one on the clean labels.
    Disk: per cell about `n * (4 * s * epochs + 8 * (s + d + k))` bytes for s statistics, d
    detectors and k classes: 80 MB for 60,000 examples and 30 epochs.

    Args:
        source: a `LabeledDataset`, or anything that `load` accepts.
        noise: words that `parse_noise` takes, such as "uniform" or "human:FILE#KEY".
        rates: in [0, 1]; not used by noise whose rate is measured.
        seeds: of the noise and of training alike.
        out: folder for results; a finished cell in it is reused.
        detectors: names, or instances where options are wanted; default: all, also those that cost
            more than the training run; of pictures not those that need embeddings.
        folds: of the cross-validation.
        runs: models of the C-scores, where a detector needs them.
        subset_ratio: share of the data that each of those trains on.
        retrain: whether to retrain, or how: options as in `training` that differ from it, such as
            `{"epochs": 60, "augmentation": "none"}`. What noise costs shows only where the
            network has time to fit it.
        retrain_by: detectors whose most suspicious examples, as many as `is_label_issue` flags,
            are removed or relabelled, beside those that it flags.
        test: clean examples to measure accuracy on, anything that `load` accepts. Default: the
            source's test split, else a fifth of every class. That part of the source is left out of
            noise and training whenever something is retrained; it is then another data set, and
            needs another `out`, where the source has no test split.
        resume: False starts over.
        progress: show progress on stderr when it is a terminal.
        training: `model`, `epochs`, `augmentation`, `recipe`, `device`, `threads` as in `audit`.

    Raises:
        UsageError: for an option that does not exist or does not fit.
        DataError: if the source cannot be used.
        OutputError: if `out` cannot be written or belongs to something else.
    """
    held_out = HeldOutOptions(folds, runs, subset_ratio)
    retraining = _retraining_options(training, retrain)
    for options in (training, retraining or {}):
        check_options(
            detectors,
            options.get("model", "auto"),
            options.get("device", "auto"),
            options.get("augmentation", "auto"),
            options.get("recipe"),
        )
    if retraining is None and (len(retrain_by) or test is not None):
        raise UsageError("retrain_by and test are for retrain; set it too")
    selectors = [detector.name for detector in create_detectors(retrain_by)]
    cells = _grid(noise, rates, seeds)
    device = training.get("device", "auto")
    dataset = load(source, device=device, progress=progress)
    asked = choose_detectors(detectors, dataset, costly=True)
    reported = [detector.name for detector in asked]
    further = [name for name in selectors if name not in reported]
    chosen = choose_detectors([*asked, *further], dataset)
    if retraining is not None:
        given = None if test is None else load(test, device=device, progress=progress)
        dataset, test = split_off_test(dataset, given)
    # What does not fit the data must not be found cell by cell.
    plans = [make_plan(dataset, **how) for how in (training, retraining) if how is not None]
    asked_for = {"noise": list(noise), "rates": list(rates), "seeds": list(seeds)}
    manifest = _manifest(dataset, {**asked_for, "detectors": reported}, plans, selectors, test)
    steps = len(cells) * (1 if retraining is None else 1 + len(arm_names(selectors)))
    with (
        output_folder(out, manifest, _RESULTS, resume=resume) as folder,
        tqdm(
            total=steps, unit="step", disable=None if progress else True, dynamic_ncols=True
        ) as bar,
    ):
        if not resume:
            for name in ("cells", "clean", "figures"):
                shutil.rmtree(folder / name, ignore_errors=True)
        job = Job(dataset, test, chosen, selectors, held_out, training, retraining, bar.update)
        report, scored = _run_cells(job, cells, reported, folder, bar)
        if out is not None:
            write_tables(report, folder)
            _draw(report, scored, folder)
            status = "failed" if report.failed else "done"
            write_manifest(folder / "manifest.json", {**manifest, "status": status})
    return report


def _manifest(
    dataset: LabeledDataset,
    asked_for: Mapping[str, Any],
    plans: Sequence[TrainingPlan],
    selectors: Sequence[str],
    test: LabeledDataset | None,
) -> dict[str, Any]:
    """`plans` are of the audit and, if the cells retrain, of that."""
    retrain = None
    if test is not None:
        recipe = plans[1].recipe.to_dict()
        retrain = {"recipe": recipe, "selectors": list(selectors), "test": test.fingerprint}
    return {
        "format": _FORMAT,
        "command": "experiment",
        "source": dataset.name,
        "config": {"dataset": dataset.fingerprint},
        **asked_for,
        "recipe": plans[0].recipe.to_dict(),
        "retrain": retrain,
        "versions": package_versions(),
        "status": "running",
    }


def _run_cells(
    job: Job, cells: Sequence[Cell], reported: Sequence[str], folder: Path, bar: Any
) -> tuple[ExperimentReport, list[tuple[Cell, Path]]]:
    """All cells, whichever of them fail, and the folders of those that were scored."""
    rows: list[dict[str, Any]] = []
    retrain_rows: list[dict[str, Any]] = []
    scored: list[tuple[Cell, Path]] = []
    failed = 0
    for done, cell in enumerate(cells, start=1):
        bar.set_description(f"{cell.noise} {cell.rate} seed {cell.seed}")
        place = folder / "cells" / cell.folder_name
        try:
            results = run_cell(job, cell, place)
        except FAILURES as error:
            logger.error("%s failed: %s", cell.folder_name, error)  # noqa: TRY400 - told plainly
            results = failed_cell(job, cell, error)
            failed += 1
        else:
            scored.append((cell, place))
            failed += sum(row["status"] != "ok" for row in results.retrain_rows)
        rows += [row for row in results.rows if row["detector"] in reported]
        retrain_rows += results.retrain_rows
        bar.update(done * bar.total // len(cells) - bar.n)
    return ExperimentReport(rows, failed, retrain_rows), scored


def _retraining_options(
    training: Mapping[str, Any], retrain: bool | Mapping[str, Any]
) -> dict[str, Any] | None:
    if retrain is False:
        return None
    changes: dict[str, Any] = {} if retrain is True else dict(retrain)
    known = ("augmentation", "device", "epochs", "model", "recipe", "threads")
    if unknown := sorted(changes.keys() - set(known)):
        raise UsageError(f"retrain does not take {', '.join(unknown)}; only {', '.join(known)}")
    options = {**training, **changes}
    if "recipe" not in changes and isinstance(options.get("recipe"), Mapping):
        # What the audit's recipe says of a thing gives way to what is said of retraining.
        kept = {key: item for key, item in options["recipe"].items() if key not in changes}
        options["recipe"] = kept
    return options


def _grid(noise: Sequence[str], rates: Sequence[float], seeds: Sequence[int]) -> list[Cell]:
    for name, values in (("noise", noise), ("rates", rates), ("seeds", seeds)):
        if not values:
            raise UsageError(f"{name} is empty; name at least one")
    outside = [rate for rate in rates if not 0 <= rate <= 1]
    if outside:
        raise UsageError(f"rates must be in [0, 1]; got {outside[0]}")
    cells = []
    for word in noise:
        parse_noise(word)  # a wrong word is told of before anything is run
        for rate in (None,) if is_measured(word) else rates:
            cells += [Cell(word, rate, seed) for seed in seeds]
    return list(dict.fromkeys(cells))


def _draw(report: ExperimentReport, scored: Sequence[tuple[Cell, Path]], folder: Path) -> None:
    """AUROC by rate; per noise and rate the scores of the first seed, and removal by epoch."""
    figures = make_folder(folder / "figures")
    for path in figures.glob("*.png"):  # an earlier call's, perhaps of other cells
        path.unlink()

    def save(figure: Figure, name: str) -> None:
        figure.savefig(figures / f"{name}.png", dpi=150)

    summary = report.summary()
    reported = {line["detector"] for line in summary}
    by_noise = {cell.noise: cell.noise_name for cell, _ in scored}
    for noise, name in by_noise.items():
        save(plot_auroc([line for line in summary if line["noise"] == noise]), f"auroc_{name}")
    by_setting: dict[str, list[tuple[Cell, Path]]] = {}
    for cell, place in scored:
        by_setting.setdefault(cell.setting, []).append((cell, place))
    for setting, group in by_setting.items():
        cell, place = group[0]
        rate = "" if cell.rate is None else f" {cell.rate:.1%}"
        title = f"{report.rows[0]['dataset']}, {cell.noise}{rate}"
        try:
            arrays = read_npz(place / "scores.npz")
            rates = [read_npz(place / "removal_by_epoch.npz") for _, place in group]
        except OutputError as error:
            logger.warning("no figures of %s: %s", setting, error)
            continue
        scores = {name: arrays[name] for name in sorted(reported & arrays.keys())}
        figure = plot_scores(scores, arrays["is_corrupted"], f"{title}, seed {cell.seed}")
        save(figure, f"scores_{setting}")
        if not arrays["is_corrupted"].any():
            continue  # nothing to remove
        by_epoch = {
            name: np.stack([item[name] for item in rates])
            for name in sorted(reported.intersection(*rates))
        }
        if by_epoch:
            save(plot_removal_by_epoch(by_epoch, title), f"removal_by_epoch_{setting}")
