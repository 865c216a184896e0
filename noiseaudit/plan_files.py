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

from noiseaudit._io import (
    csv_delimiter,
    read_json,
    read_npz,
    spreadsheet_safe,
    write_csv,
    write_npz,
)
from noiseaudit.cleaning import ACTIONS, CleaningPlan
from noiseaudit.errors import DataError, OutputError

__all__ = ["load_evidence", "read_decisions", "read_plan", "save_evidence", "write_plan"]

logger = logging.getLogger(__name__)

_COLUMNS = ("sample_id", "source", "given_label", "action", "new_label", "reason", "suspicion")
_EVIDENCE = ("suggested_label", "suggested_prob", "is_label_issue", "copy_action", "split")
_ARRAYS = (
    "ids", "labels", "suspicion", "suggested", "suggested_prob", "is_label_issue", "copy_action",
)  # fmt: skip
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


def save_evidence(plan: CleaningPlan, path: Path) -> None:
    """Write all of a plan but its actions, for `read_plan`: nothing of it is edited."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(plan, name) for name in _ARRAYS}
    arrays["class_names"] = np.array(plan.class_names, dtype=str)
    arrays["reasons"] = np.array(plan.reasons.tolist(), dtype=str)
    if plan.p_error is not None:
        arrays["p_error"] = plan.p_error
    for name in ("sources", "split"):
        if getattr(plan, name) is not None:
            arrays[name] = np.asarray(getattr(plan, name), dtype=str)
    write_npz(path, arrays)


def load_evidence(path: Path) -> CleaningPlan:
    """What `save_evidence` wrote, everything kept.

    Raises:
        OutputError: if it is missing or damaged.
    """
    found = read_npz(path)
    if lacking := [name for name in (*_ARRAYS, "class_names", "reasons") if name not in found]:
        raise OutputError(f"{path} lacks {lacking[0]}: run the audit again")
    n = len(found["ids"])
    return CleaningPlan(
        class_names=tuple(found["class_names"].tolist()),
        reasons=found["reasons"].astype(object),
        actions=np.full(n, "keep", dtype="<U7"),
        new_labels=np.full(n, -1),
        sources=found.get("sources"),
        split=found.get("split"),
        p_error=found.get("p_error"),
        **{name: found[name] for name in _ARRAYS},
    )


def read_plan(path: Path, audited: CleaningPlan) -> CleaningPlan:
    """Read the actions of `plan.csv`; rows may stand in any order.

    Only `action`, `new_label` and `reason` are taken from the file; the other cells must be what
    they were, or are not looked at. An example whose row was deleted is kept, and told of.

    Args:
        path: of the file.
        audited: the examples, and the evidence for other policies: `load_evidence`.

    Raises:
        DataError: with the line, if a cell is not what it must be.
    """
    names, n = audited.class_names, len(audited)
    code_of = {str(spreadsheet_safe(name)): code for code, name in enumerate(names)}
    code_of |= {name: code for code, name in enumerate(names)}
    row_of = {int(sample_id): row for row, sample_id in enumerate(audited.ids)}
    actions, new_labels = np.full(n, "keep", dtype="<U7"), np.full(n, -1)
    reasons, seen = audited.reasons.copy(), np.zeros(n, dtype=bool)
    for line, cells in _lines(path):
        row = row_of.get(_whole(cells["sample_id"]), -1)
        if row < 0 or seen[row]:
            what = "is no example of this audit" if row < 0 else "comes twice"
            raise DataError(f"{path}, line {line}: sample_id {cells['sample_id']!r} {what}")
        seen[row] = True
        try:
            _check_identity(audited, row, cells)
            actions[row], new_labels[row] = _read_action(audited, row, cells, code_of)
        except DataError as error:
            raise DataError(f"{path}, line {line}: {error}") from error
        reasons[row] = cells["reason"]
    if not seen.all():
        logger.warning(
            "%s lacks %d of %d examples, first sample_id %d: they are kept",
            path, int((~seen).sum()), n, int(audited.ids[np.flatnonzero(~seen)[0]]),
        )  # fmt: skip
    return replace(audited, actions=actions, new_labels=new_labels, reasons=reasons)


def _check_identity(audited: CleaningPlan, row: int, cells: Mapping[str, str]) -> None:
    """That the row is still of the same file under the same label."""
    source = "" if audited.sources is None else str(audited.sources[row])
    if cells["source"] not in (source, spreadsheet_safe(source)):
        raise DataError(
            f"source is {cells['source']!r}, and was {source!r} of sample "
            f"{int(audited.ids[row])}: was a part of the sheet sorted by itself?"
        )
    given = audited.class_names[audited.labels[row]]
    if cells["given_label"] not in (given, spreadsheet_safe(given)):
        raise DataError(
            f"given_label is {cells['given_label']!r}, and was {given!r} when it was audited "
            "(new labels go into new_label)"
        )


def _read_action(
    audited: CleaningPlan, row: int, cells: Mapping[str, str], code_of: Mapping[str, int]
) -> tuple[str, int]:
    action, given = cells["action"].strip().lower(), int(audited.labels[row])
    if action not in ACTIONS:
        raise DataError(f"action must be of {', '.join(ACTIONS)}; got {cells['action']!r}")
    text = cells["new_label"]
    if (text or action == "relabel") and text not in code_of:
        raise DataError(f"new_label names no class: {text!r}")
    if action == "relabel":
        new = code_of[text]
        return ("keep", -1) if new == given else (action, new)
    if text and code_of[text] != given:
        raise DataError(
            f"new_label {text!r} is given and action is {action!r}; only 'relabel' takes one"
        )
    return action, -1


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    csv.field_size_limit(_MOST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read(2**16)
            file.seek(0)
            delimiter = csv_delimiter(text.partition("\n")[0])
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
