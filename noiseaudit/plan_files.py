"""plan.csv, which a person may edit, and decisions saved by the report; checked when read."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import read_json, spreadsheet_safe, write_csv
from noiseaudit.cleaning import ACTIONS, CleaningPlan
from noiseaudit.errors import DataError

__all__ = ["read_decisions", "read_plan", "write_plan"]

logger = logging.getLogger(__name__)

_COLUMNS = ("sample_id", "source", "given_label", "action", "new_label", "reason", "suspicion")
_EVIDENCE = ("suggested_label", "suggested_prob", "is_label_issue", "copy_action", "split")
_KIND = "noiseaudit decisions"
_MOST = 2**20  # characters of a cell


def write_plan(plan: CleaningPlan, path: Path) -> None:
    """Write `plan.csv`, most suspicious first: seven columns to read and edit, then evidence.

    Raises:
        OutputError: if it cannot be written.
    """
    names = plan.class_names
    rows = (
        [
            int(plan.ids[row]),
            "" if plan.sources is None else str(plan.sources[row]),
            names[plan.labels[row]],
            str(plan.actions[row]),
            names[plan.new_labels[row]] if plan.new_labels[row] >= 0 else "",
            str(plan.reasons[row]),
            float(plan.suspicion[row]),
            names[plan.suggested[row]],
            float(plan.suggested_prob[row]),
            bool(plan.is_label_issue[row]),
            str(plan.copy_action[row]),
            "" if plan.split is None else str(plan.split[row]),
        ]
        for row in plan.order
    )
    write_csv(path, [*_COLUMNS, *_EVIDENCE], rows)


def read_plan(
    path: Path,
    class_names: tuple[str, ...],
    ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    sources: NDArray[np.str_] | None = None,
) -> CleaningPlan:
    """Read `plan.csv` for the examples that were audited; rows may stand in any order.

    An example whose row was deleted is kept, and told of.

    Args:
        path: of the file.
        class_names: k names.
        ids: (n,) sample ids that were audited.
        labels: (n,) their given labels.
        sources: (n,) their paths.

    Raises:
        DataError: with the line, if a cell is not what it must be.
    """
    n = len(ids)
    code_of = {str(spreadsheet_safe(name)): code for code, name in enumerate(class_names)}
    code_of |= {name: code for code, name in enumerate(class_names)}
    row_of = {int(sample_id): row for row, sample_id in enumerate(ids)}
    plan = _untouched(class_names, ids, labels, sources)
    seen = np.zeros(n, dtype=bool)
    split = np.full(n, "", dtype="<U5")
    for line, cells in _lines(path):

        def code(column: str, cells: Mapping[str, str] = cells, line: int = line) -> int:
            if cells[column] not in code_of:
                raise DataError(f"{path}, line {line}: {column} names no class: {cells[column]!r}")
            return code_of[cells[column]]

        row = row_of.get(_whole(cells["sample_id"]), -1)
        if row < 0 or seen[row]:
            what = "is no example of this audit" if row < 0 else "comes twice"
            raise DataError(f"{path}, line {line}: sample_id {cells['sample_id']!r} {what}")
        seen[row] = True
        if code("given_label") != labels[row]:
            raise DataError(
                f"{path}, line {line}: given_label is {cells['given_label']!r}, and was "
                f"{class_names[labels[row]]!r} when it was audited (new labels go into new_label)"
            )
        action = cells["action"].strip().lower()
        if action not in ACTIONS:
            raise DataError(
                f"{path}, line {line}: action must be of {', '.join(ACTIONS)}; "
                f"got {cells['action']!r}"
            )
        new = -1
        if action == "relabel":
            new = code("new_label")
        elif cells["new_label"] and code("new_label") != labels[row]:
            raise DataError(
                f"{path}, line {line}: new_label {cells['new_label']!r} is given and action is "
                f"{action!r}; only 'relabel' takes one"
            )
        plan.actions[row], plan.new_labels[row] = action, new
        plan.reasons[row] = cells["reason"]
        _read_evidence(plan, split, row, cells, code_of)
    if not seen.all():
        logger.warning(
            "%s lacks %d of %d examples, first sample_id %d: they are kept",
            path, int((~seen).sum()), n, int(ids[np.flatnonzero(~seen)[0]]),
        )  # fmt: skip
    return replace(plan, split=split if (split != "").any() else None)


def _untouched(
    class_names: tuple[str, ...],
    ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    sources: NDArray[np.str_] | None,
) -> CleaningPlan:
    """Keep everything."""
    n = len(ids)
    return CleaningPlan(
        class_names=class_names, ids=ids, labels=labels, suspicion=np.zeros(n),
        suggested=labels.copy(), suggested_prob=np.zeros(n), is_label_issue=np.zeros(n, bool),
        copy_action=np.full(n, "", dtype="<U7"), reasons=np.full(n, "", dtype=object),
        actions=np.full(n, "keep", dtype="<U7"), new_labels=np.full(n, -1), sources=sources,
    )  # fmt: skip


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    csv.field_size_limit(_MOST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read(2**16)
            file.seek(0)
            # A spreadsheet of a country with decimal commas writes semicolons.
            first = text.partition("\n")[0]
            delimiter = ";" if first.count(";") > first.count(",") else ","
            reader = csv.DictReader(file, delimiter=delimiter, restval="")
            lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(f"{path} has no column {lacking[0]!r}; is it a plan.csv?")
            return [(reader.line_num, dict(row)) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}") from error


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return -1


def _read_evidence(
    plan: CleaningPlan,
    split: NDArray[np.str_],
    row: int,
    cells: Mapping[str, str],
    code_of: Mapping[str, int],
) -> None:
    """What another policy needs; absent or spoilt cells leave nothing to act on."""
    for name, values in (("suspicion", plan.suspicion), ("suggested_prob", plan.suggested_prob)):
        try:
            values[row] = float(cells.get(name, "").replace(",", "."))
        except ValueError:
            values[row] = 0.0
    plan.suggested[row] = code_of.get(cells.get("suggested_label", ""), plan.labels[row])
    plan.is_label_issue[row] = cells.get("is_label_issue", "").strip().lower() == "true"
    action = cells.get("copy_action", "")
    plan.copy_action[row] = action if action in ACTIONS else ""
    split[row] = cells.get("split", "")


def read_decisions(path: Path, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The decisions that the report saved, of the audit with this fingerprint.

    Raises:
        OutputError: if the file is not JSON.
        DataError: if it is something else, or of another audit.
    """
    stored = read_json(path)
    if not isinstance(stored, dict) or stored.get("kind") != _KIND:
        raise DataError(f"{path} holds no decisions of a noiseaudit report")
    if stored.get("format") != 1:
        raise DataError(f"{path} has format {stored.get('format')!r}; this version reads 1")
    if stored.get("data") != data["inputs"] or stored.get("labels") not in ("", data["labels"]):
        raise DataError(f"{path} was saved by the report of another audit: data or labels differ")
    decisions = stored.get("decisions")
    wanted = {"sample_id", "given_label", "action"}
    if not isinstance(decisions, list) or not all(
        isinstance(item, dict) and wanted <= item.keys() and isinstance(item["sample_id"], int)
        for item in decisions
    ):
        raise DataError(f"{path} is damaged: a decision lacks its sample_id, label or action")
    return decisions
