"""The receipt of a cleaned data set: what was done, to which files; whether it still holds."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiseaudit._io import read_json, write_csv, write_json
from noiseaudit.cleaning import CleaningPlan
from noiseaudit.errors import DataError, OutputError
from noiseaudit.provenance import digest_file
from noiseaudit.sources.examples import listed

__all__ = ["Receipt", "check_receipt", "write_receipt"]

_FORMAT = 1
_RECEIPT = "receipt.json"
_CHANGES = ["sample_id", "source", "given_label", "action", "new_label", "reason"]


@dataclass(frozen=True)
class Receipt:
    """What a cleaned data set was made of: `receipt.json`, beside `changes.csv` and `files.csv`.

    Attributes:
        source: where it came from.
        examples: of the source.
        written: examples that were written.
        counts: by action, and `unreadable`.
        output_format: of `FORMATS`.
        link: of `LINKS`, "" where no files were placed.
        policy: that was applied; None where the actions of `plan.csv` were taken.
        decisions: whether a person's decisions were applied.
        inputs: digests of `plan.csv` and, with them, of the decisions.
        audit: fingerprint of what was audited.
        versions: of noiseaudit and what it is made of.
    """

    source: dict[str, Any]
    examples: int
    written: int
    counts: dict[str, int]
    output_format: str
    link: str
    policy: dict[str, Any] | None
    decisions: bool
    inputs: dict[str, str]
    audit: dict[str, Any]
    versions: dict[str, str]


def write_receipt(
    receipt: Receipt, plan: CleaningPlan, written: dict[str, int], folder: Path
) -> None:
    """Write `changes.csv`, `files.csv` and `receipt.json` beside the written files.

    Args:
        receipt: to be written.
        plan: that was applied.
        written: path of each file and the sample id of its example, -1 for many.
        folder: of the files.
    """
    names = plan.class_names
    changes = (
        [
            int(plan.ids[row]), "" if plan.sources is None else str(plan.sources[row]),
            names[plan.labels[row]], str(plan.actions[row]),
            names[plan.new_labels[row]] if plan.new_labels[row] >= 0 else "",
            str(plan.reasons[row]),
        ]
        for row in plan.order
        if plan.actions[row] != "keep"
    )  # fmt: skip
    write_csv(folder / "changes.csv", _CHANGES, changes)
    # The dot keeps a spreadsheet from taking a name for a formula.
    files = (
        [f"./{path}", sample, _digest(folder / path)] for path, sample in sorted(written.items())
    )
    write_csv(folder / "files.csv", ["file", "sample_id", "digest"], files)
    own = {name: _digest(folder / name) for name in ("changes.csv", "files.csv")}
    told = {"format": _FORMAT, "kind": "noiseaudit receipt", **vars(receipt), "digests": own}
    write_json(folder / _RECEIPT, told)


def _digest(path: Path) -> str:
    """Of the content; of where it points to, for a symbolic link."""
    if path.is_symlink():
        return f"link to {path.readlink()}"  # never what a spreadsheet takes for a formula
    if not path.is_file():
        raise OutputError(f"{path} is gone")
    return digest_file(path).hex()


def check_receipt(out: Path) -> Receipt:
    """Check the files of a cleaned data set, and its figures, against its receipt.

    Raises:
        OutputError: if there is no receipt.
        DataError: naming what differs.
    """
    told = read_json(out / _RECEIPT) if (out / _RECEIPT).exists() else None
    if not isinstance(told, dict) or told.get("kind") != "noiseaudit receipt":
        raise OutputError(f"{out} holds no data set cleaned by noiseaudit: it has no {_RECEIPT}")
    if told["format"] != _FORMAT:
        raise OutputError(f"{out / _RECEIPT} has format {told['format']}; this version reads 1")
    try:
        receipt = Receipt(**{name: told[name] for name in Receipt.__dataclass_fields__})
        digests = {name: told["digests"][name] for name in ("changes.csv", "files.csv")}
    except KeyError as error:
        raise DataError(f"{out / _RECEIPT} is damaged: it lacks {error}") from error
    for name, digest in digests.items():
        if not (out / name).exists() or _digest(out / name) != digest:
            raise DataError(f"{out / name} has changed since the data set was cleaned")
    files = {row["file"].removeprefix("./"): row for row in _rows(out / "files.csv")}
    lacking = [name for name in files if not os.path.lexists(out / name)]
    _refuse(lacking, "files are gone")
    _refuse([n for n, row in files.items() if _digest(out / n) != row["digest"]], "files changed")
    known = {*files, _RECEIPT, "changes.csv", "files.csv"}
    there = {str(p.relative_to(out)) for p in out.rglob("*") if not p.is_dir() or p.is_symlink()}
    _refuse(sorted(there - known), "files have come")
    done = Counter(row["action"] for row in _rows(out / "changes.csv"))
    if any(receipt.counts.get(name) != done[name] for name in ("remove", "relabel", "review")):
        raise DataError(f"{out / _RECEIPT} and changes.csv do not agree on what was done")
    left_out = done["remove"] + receipt.counts["unreadable"]
    if receipt.output_format == "folder" and len(files) != receipt.written:
        raise DataError(f"files.csv has {len(files)} files, {receipt.written} were written")
    if receipt.written + left_out != receipt.examples:
        raise DataError(
            f"{receipt.written} examples written and {left_out} left out do not make the "
            f"{receipt.examples} of the source"
        )
    return receipt


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _refuse(names: Sequence[str], what: str) -> None:
    if names:
        raise DataError(f"{len(names):,} {what}: {listed(names)}")
