"""What an experiment found: rows, their summary over seeds, and its files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noiseaudit._html import show_table
from noiseaudit._io import write_csv, write_text
from noiseaudit.corruption import is_measured
from noiseaudit.evaluation import mean_interval
from noiseaudit.retraining import RETRAIN_COLUMNS, summarise_arms

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "FIGURES", "ExperimentReport", "write_tables"]

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

_DETECTOR_COLUMNS = (
    "detector", "seeds", "AUROC %", "average precision %", "removal rate %", "seconds",
)  # fmt: skip
_ARM_COLUMNS = (
    "trained on", "selected by", "seeds", "examples", "wrong labels", "fits its labels %",
    "test accuracy %", "gain over noisy, points", "gap closed %",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ExperimentReport:
    """What an experiment found.

    Attributes:
        rows: one dict per noise x rate x seed x detector, keys as `COLUMNS`; figures are
            fractions, None where undefined or failed.
        failed: how many cells failed, and how many trainings of those that scored well.
        retrain_rows: one dict per noise x rate x seed x arm, keys as `RETRAIN_COLUMNS`; none
            unless asked for.
    """

    rows: list[dict[str, Any]]
    failed: int
    retrain_rows: list[dict[str, Any]] = field(default_factory=list)

    def to_frame(self) -> pd.DataFrame:
        """The table of results.csv."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def summary(self) -> list[dict[str, Any]]:
        """Mean and 95% t interval over seeds, per noise, rate and detector; best AUROC first."""
        finished = [row for row in self.rows if row["status"] == "ok"]
        lines = []
        for (*_, detector), group in itertools.groupby(
            sorted(finished, key=lambda row: (*_setting(row), row["detector"])),
            key=lambda row: (*_setting(row), row["detector"]),
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

    def retrain_summary(self) -> list[dict[str, Any]]:
        """A line per noise, rate and arm: `summarise_arms`."""
        lines = []
        for _, group in itertools.groupby(sorted(self.retrain_rows, key=_setting), key=_setting):
            rows = list(group)
            finished = [row for row in rows if row["status"] == "ok"]
            if finished:
                shared = {name: finished[0][name] for name in ("dataset", "noise", "rate")}
                lines += [{**shared, **line} for line in summarise_arms(rows)]
        return lines

    def _repr_html_(self) -> str:
        import pandas as pd

        names = ["noise", "rate", "detector", "seeds", "auroc_mean", "auroc_low", "auroc_high",
                 "average_precision_mean", "removal_rate_mean", "seconds_mean"]  # fmt: skip
        frame = pd.DataFrame(self.summary())
        frame = frame[[name for name in names if name in frame]]
        caption = f"{len(self.rows):,} rows, {self.failed:,} cells failed"
        return show_table(caption, frame, rows=len(frame))

    def to_markdown(self) -> str:
        """A table per noise and rate, in percent, means with the half width of the interval."""
        return _tables("", _DETECTOR_COLUMNS, self.summary(), _detector_cells) + _tables(
            "Retrained: ", _ARM_COLUMNS, self.retrain_summary(), _arm_cells
        )


def _setting(row: Mapping[str, Any]) -> tuple[str, float]:
    """Noise and rate; a measured rate may differ between seeds, yet human labels are one cell."""
    if row["rate"] is None or is_measured(row["noise"]):
        return row["noise"], -1.0
    return row["noise"], row["rate"]


def _tables(
    title: str,
    columns: Sequence[str],
    lines: Iterable[Mapping[str, Any]],
    cells: Callable[[Mapping[str, Any]], Sequence[str]],
) -> str:
    """A table in Markdown for each noise and rate."""
    text = ""
    for (noise, rate), group in itertools.groupby(
        lines, key=lambda line: (line["noise"], line["rate"])
    ):
        members = list(group)
        rows = [columns, ["---"] * len(columns), *map(cells, members)]
        text += f"## {title}{members[0]['dataset']}, {noise}, {rate:.1%}\n\n"
        text += "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"
    return text


def _detector_cells(line: Mapping[str, Any]) -> Sequence[str]:
    figures = ("auroc", "average_precision", "removal_rate")
    return (
        f"`{line['detector']}`",
        str(line["seeds"]),
        *(_with_half_width(line, figure) for figure in figures),
        f"{line['seconds_mean']:,.1f}",
    )


def _arm_cells(line: Mapping[str, Any]) -> Sequence[str]:
    closed = line["gap_closed"]
    counts = (line["n_train_mean"], line["n_wrong_mean"])
    return (
        line["arm"].replace("_", " "),
        f"`{line['selected_by']}`" if line["selected_by"] else "",
        str(line["seeds"]),
        *("-" if count is None else f"{count:,.0f}" for count in counts),
        "-" if line["seeds"] == 0 else f"{100 * line['train_accuracy_mean']:.1f}",
        _with_half_width(line, "test_accuracy"),
        _with_half_width(line, "gain") if line["arm"] != "noisy" else "",
        "" if closed is None else f"{100 * closed:.0f}",
    )


def _with_half_width(line: Mapping[str, Any], figure: str) -> str:
    mean, high = line[f"{figure}_mean"], line[f"{figure}_high"]
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + ("" if high is None else f" ± {100 * (high - mean):.2f}")


def write_tables(report: ExperimentReport, folder: Path) -> None:
    """results.csv, summary.csv, summary.md, and two more where something was retrained."""
    rows = [[row[key] for key in COLUMNS] for row in report.rows]
    write_csv(folder / "results.csv", COLUMNS, rows)
    if report.retrain_rows:
        rows = [[row[key] for key in RETRAIN_COLUMNS] for row in report.retrain_rows]
        write_csv(folder / "retrain.csv", RETRAIN_COLUMNS, rows)
    else:  # an earlier call's
        (folder / "retrain.csv").unlink(missing_ok=True)
    if lines := report.retrain_summary():
        values = [list(line.values()) for line in lines]
        write_csv(folder / "retrain_summary.csv", list(lines[0]), values)
    else:
        (folder / "retrain_summary.csv").unlink(missing_ok=True)
    summary = report.summary()
    header = list(summary[0]) if summary else ["dataset", "noise", "rate", "detector", "seeds"]
    write_csv(folder / "summary.csv", header, [list(line.values()) for line in summary])
    write_text(folder / "summary.md", report.to_markdown())
