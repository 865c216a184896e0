"""The harness: noise x rates x seeds x detectors -> one table, resumable cell by cell.

A cell is one corrupted data set: one training run serves all its training-time detectors, and
every detector sees identical noise, data order and initial weights. Only this module and
`evaluation` ever hold the answer key; scoring gets the noisy data set alone.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from noiseaudit._io import make_folder, read_json, write_csv, write_json, write_text
from noiseaudit.corruption import Corruption, inject_noise, parse_noise
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import Detector, create_detectors
from noiseaudit.errors import NoiseAuditError, UsageError
from noiseaudit.evaluation import evaluate, mean_interval
from noiseaudit.loaders import load
from noiseaudit.manifest import differences, package_versions, write_manifest
from noiseaudit.report.plots import plot_auroc
from noiseaudit.scoring import check_options, make_plan, score_examples
from noiseaudit.workspace import output_folder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "FIGURES", "ExperimentReport", "run_experiment"]

logger = logging.getLogger(__name__)

COLUMNS = (
    "dataset", "noise", "rate", "seed", "detector", "auroc", "average_precision", "removal_rate",
    "n_corrupted", "seconds", "precision_at_k", "recall_at_k", "fpr_at_95_recall", "status",
    "error",
)  # fmt: skip
"""Columns of results.csv."""

FIGURES = (
    "auroc", "average_precision", "removal_rate", "precision_at_k", "recall_at_k",
    "fpr_at_95_recall", "seconds",
)  # fmt: skip
"""What summary.csv averages over seeds."""

_RESULTS = ("results.csv", "summary.csv", "summary.md")
_MEASURED = ("human",)  # noise models whose rate is measured, not set
_FORMAT = 1
_FAILURES = (NoiseAuditError, RuntimeError, ValueError, ArithmeticError, MemoryError)


def _file_name(noise: str) -> str:
    """The noise's name, and for one with a file, whose path has no place there, its digest."""
    model, _, option = noise.partition(":")
    digest = hashlib.blake2b(option.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return f"{model}-{digest}" if option else model


@dataclass(frozen=True)
class _Cell:
    noise: str
    rate: float | None
    seed: int

    @property
    def name(self) -> str:
        """A folder name that any file system takes, different for different cells."""
        rate = "measured" if self.rate is None else self.rate
        return f"{_file_name(self.noise)}_{rate}_{self.seed}"


@dataclass(frozen=True, eq=False)
class ExperimentReport:
    """What an experiment found.

    Attributes:
        rows: one dict per noise x rate x seed x detector, keys as `COLUMNS`; figures are
            fractions, None where undefined or failed.
        failed: how many cells failed.
    """

    rows: list[dict[str, Any]]
    failed: int

    def to_frame(self) -> pd.DataFrame:
        """The table of results.csv."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def summary(self) -> list[dict[str, Any]]:
        """Mean and 95% t interval over seeds, per noise, rate and detector; best AUROC first."""
        finished = [row for row in self.rows if row["status"] == "ok"]

        def group_of(row: Mapping[str, Any]) -> tuple[str, float, str]:
            # A measured rate may differ between seeds; human labels are one cell all the same.
            measured = row["noise"].partition(":")[0] in _MEASURED
            return row["noise"], -1.0 if measured else row["rate"], row["detector"]

        lines = []
        for (*_, detector), group in itertools.groupby(
            sorted(finished, key=group_of), key=group_of
        ):
            rows = list(group)
            line = {
                "dataset": rows[0]["dataset"],
                "noise": rows[0]["noise"],
                "rate": float(np.mean([row["rate"] for row in rows])),
                "detector": detector,
                "seeds": len(rows),
            }
            for figure in FIGURES:
                values = [row[figure] for row in rows if row[figure] is not None]
                found = mean_interval(values) if values else None
                for name in ("mean", "low", "high"):
                    value = None if found is None else getattr(found, name)
                    line[f"{figure}_{name}"] = None if value is None or np.isnan(value) else value
            lines.append(line)
        lines.sort(key=lambda line: (line["noise"], line["rate"], -(line["auroc_mean"] or 0)))
        return lines

    def to_markdown(self) -> str:
        """A table per noise and rate, in percent, means with the half width of the interval."""
        parts = []
        for (noise, rate), group in itertools.groupby(
            self.summary(), key=lambda line: (line["noise"], line["rate"])
        ):
            lines = list(group)
            parts.append(
                f"## {lines[0]['dataset']}, {noise}, {rate:.1%}, seeds: {lines[0]['seeds']}\n\n"
                "| detector | AUROC % | average precision % | removal rate % | seconds |\n"
                "|---|---|---|---|---|"
            )
            parts += [
                f"| `{line['detector']}` | "
                + " | ".join(
                    _with_half_width(line, figure)
                    for figure in ("auroc", "average_precision", "removal_rate")
                )
                + f" | {line['seconds_mean']:,.1f} |"
                for line in lines
            ]
            parts.append("")
        return "\n".join(parts)


def _with_half_width(line: Mapping[str, Any], figure: str) -> str:
    mean, high = line[f"{figure}_mean"], line[f"{figure}_high"]
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + ("" if high is None else f" ± {100 * (high - mean):.2f}")


def run_experiment(
    source: Any,
    *,
    noise: Sequence[str] = ("uniform",),
    rates: Sequence[float] = (0.1,),
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
    detectors: Sequence[str] | None = None,
    folds: int = 4,
    resume: bool = True,
    progress: bool = False,
    **training: Any,
) -> ExperimentReport:
    """Corrupt a data set whose labels are taken as clean, score every detector, tabulate.

    Cost: per noise, rate and seed one training run, and `folds` more if a detector needs
    out-of-sample probabilities.

    Args:
        source: a `LabeledDataset`, or anything that `load` accepts.
        noise: words that `parse_noise` takes, such as "uniform" or "human:FILE#KEY".
        rates: in [0, 1]; not used by noise whose rate is measured.
        seeds: of the noise and of training alike.
        out: folder for results; a finished cell in it is reused.
        detectors: names; default: all.
        folds: of the cross-validation.
        resume: False starts over.
        progress: show progress on stderr when it is a terminal.
        training: `model`, `epochs`, `augmentation`, `recipe`, `device`, `threads` as in `audit`.

    Raises:
        UsageError: for an option that does not exist or does not fit.
        DataError: if the source cannot be used.
        OutputError: if `out` cannot be written or belongs to something else.
    """
    check_options(
        detectors,
        training.get("model", "auto"),
        training.get("device", "auto"),
        training.get("augmentation", "auto"),
        training.get("recipe"),
    )
    chosen = create_detectors(detectors)
    cells = _grid(noise, rates, seeds)
    dataset = load(source, device=training.get("device", "auto"), progress=progress)
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "command": "experiment",
        "source": dataset.name,
        "config": {"dataset": dataset.fingerprint},
        "noise": list(noise),
        "rates": list(rates),
        "seeds": list(seeds),
        "detectors": [detector.name for detector in chosen],
        "versions": package_versions(),
        "status": "running",
    }
    with output_folder(out, manifest, _RESULTS, resume=resume) as folder:
        rows: list[dict[str, Any]] = []
        failed = 0
        with tqdm(
            cells, unit="cell", disable=None if progress else True, dynamic_ncols=True
        ) as bar:
            for cell in bar:
                bar.set_description(f"{cell.noise} {cell.rate} seed {cell.seed}")
                try:
                    rows += _run_cell(dataset, cell, chosen, folder, folds, resume, training)
                except _FAILURES as error:
                    logger.error("%s failed: %s", cell.name, error)  # noqa: TRY400 - told plainly
                    failed += 1
                    rows += [_failed_row(dataset, cell, detector, error) for detector in chosen]
        report = ExperimentReport(rows, failed)
        if out is not None:
            _save(report, folder, {**manifest, "status": "done" if not failed else "failed"})
    return report


def _grid(noise: Sequence[str], rates: Sequence[float], seeds: Sequence[int]) -> list[_Cell]:
    for name, values in (("noise", noise), ("rates", rates), ("seeds", seeds)):
        if not values:
            raise UsageError(f"{name} is empty; name at least one")
    outside = [rate for rate in rates if not 0 <= rate <= 1]
    if outside:
        raise UsageError(f"rates must be in [0, 1]; got {outside[0]}")
    cells = []
    for word in noise:
        model, _ = parse_noise(word)
        for rate in (None,) if model in _MEASURED else rates:
            cells += [_Cell(word, rate, seed) for seed in seeds]
    return list(dict.fromkeys(cells))


def _inject(dataset: LabeledDataset, cell: _Cell) -> Corruption:
    model, options = parse_noise(cell.noise)
    given: dict[str, object] = dict(options)
    if "donor" in given:
        given["donor"] = load(given["donor"])
    return inject_noise(dataset, model, rate=cell.rate, seed=cell.seed, **given)


def _run_cell(
    dataset: LabeledDataset,
    cell: _Cell,
    detectors: Sequence[Detector],
    out: Path,
    folds: int,
    resume: bool,
    training: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Rows of one cell: read if it was finished with the same data and settings, else run."""
    corruption = _inject(dataset, cell)
    noisy = corruption.dataset
    plan = make_plan(noisy, seed=cell.seed, **training)
    config = {**plan.config(noisy), "folds": folds}
    path = make_folder(out / "cells" / cell.name) / "rows.json"
    stored = read_json(path) if resume and path.exists() else {"config": {}, "rows": []}
    names = [detector.name for detector in detectors]
    is_same = not differences(stored["config"], config)
    if is_same and set(names) <= {row["detector"] for row in stored["rows"]}:
        logger.info("%s: reused", cell.name)
        return [row for row in stored["rows"] if row["detector"] in names]
    # A cell of other settings is run anew; one that was interrupted goes on, its stages check.
    goes_on = resume and (is_same or not path.exists())
    scores = score_examples(noisy, plan, detectors, path.parent, folds=folds, resume=goes_on)
    rows = []
    for name, ranking in scores.rankings.items():
        figures = asdict(evaluate(ranking, corruption.is_corrupted, ids=noisy.ids))
        row = {
            **dict.fromkeys(COLUMNS),
            **{key: figures[key] for key in figures if key in COLUMNS},
            "dataset": dataset.name,
            "noise": cell.noise,
            "rate": corruption.rate,
            "seed": cell.seed,
            "detector": name,
            "seconds": scores.seconds[name],
            "status": "ok",
            "error": "",
        }
        rows.append({key: _plain(value) for key, value in row.items()})
    write_json(path, {"config": config, "rows": rows})
    return rows


def _plain(value: Any) -> Any:
    """JSON has no NaN: an undefined figure is None."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _failed_row(
    dataset: LabeledDataset, cell: _Cell, detector: Detector, error: Exception
) -> dict[str, Any]:
    return {
        **dict.fromkeys(COLUMNS),
        "dataset": dataset.name,
        "noise": cell.noise,
        "rate": cell.rate,
        "seed": cell.seed,
        "detector": detector.name,
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
    }


def _save(report: ExperimentReport, folder: Path, manifest: Mapping[str, Any]) -> None:
    write_csv(
        folder / "results.csv", COLUMNS, [[row[name] for name in COLUMNS] for row in report.rows]
    )
    summary = report.summary()
    header = list(summary[0]) if summary else ["dataset", "noise", "rate", "detector", "seeds"]
    write_csv(folder / "summary.csv", header, [list(line.values()) for line in summary])
    write_text(folder / "summary.md", report.to_markdown())
    figures = make_folder(folder / "figures")
    for noise in dict.fromkeys(line["noise"] for line in summary):
        lines = [line for line in summary if line["noise"] == noise]
        path = figures / f"auroc_{_file_name(noise)}.png"
        plot_auroc(lines).savefig(path, dpi=150, bbox_inches="tight")
    write_manifest(folder / "manifest.json", manifest)
