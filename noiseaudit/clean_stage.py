"""Clean: apply an audit's plan to its source, whole or not at all, with a receipt."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import make_folder, read_json, write_csv, write_json
from noiseaudit.cleaning import CleaningPlan, CleaningPolicy
from noiseaudit.dataset import Origin
from noiseaudit.errors import DataError, OutputError, UsageError
from noiseaudit.export import Cleaned, choose_format, write_cleaned
from noiseaudit.loaders import reopen
from noiseaudit.manifest import package_versions, read_manifest
from noiseaudit.plan_files import read_decisions, read_plan
from noiseaudit.provenance import Record, digest_file
from noiseaudit.sources.examples import Examples, listed

__all__ = ["Receipt", "clean_dataset", "read_audit_plan", "verify_cleaned"]

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
        policy: as text; "plan.csv" where the file's own actions were taken.
        audit: fingerprint of what was audited.
        versions: of noiseaudit and what it is made of.
    """

    source: dict[str, Any]
    examples: int
    written: int
    counts: dict[str, int]
    output_format: str
    link: str
    policy: str
    audit: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Audit:
    origin: Origin
    record: Record
    fingerprint: dict[str, Any]


def _open_audit(folder: Path) -> _Audit:
    manifest = read_manifest(folder / "manifest.json")
    if manifest is None or manifest.get("command") != "audit":
        raise OutputError(
            f"{folder} holds no audit; 'noiseaudit audit ... --out {folder}' makes one"
        )
    if manifest.get("status") != "done":
        raise OutputError(f"the audit in {folder} is not finished; run it again")
    if not manifest.get("origin"):
        raise DataError(
            f"the audit in {folder} was of arrays in memory, or made by an earlier version: clean "
            "in Python, by report.plan.apply(dataset), or audit a file or folder"
        )
    if not (folder / "audited.npz").exists():
        raise OutputError(f"{folder} lacks audited.npz: run the audit again")
    record = Record.load(folder / "audited.npz")
    return _Audit(Origin(**manifest["origin"]), record, manifest["config"]["dataset"])


def read_audit_plan(
    folder: str | Path,
    *,
    policy: CleaningPolicy | None = None,
    decisions: str | Path | None = None,
) -> CleaningPlan:
    """The plan of a finished audit, as its `plan.csv` stands now.

    Args:
        folder: of the audit.
        policy: gives every example its action anew; edits of the file are then lost.
        decisions: file that the report saved; they come last.

    Raises:
        OutputError: if there is no finished audit.
        DataError: if plan or decisions do not fit it.
    """
    found = _open_audit(Path(folder))
    record = found.record
    plan = read_plan(
        Path(folder) / "plan.csv", record.class_names, record.ids, record.labels, record.sources
    )
    if policy is not None:
        plan = plan.with_policy(policy)
    if decisions is not None:
        plan = plan.with_decisions(read_decisions(Path(decisions), found.fingerprint))
    return plan


def clean_dataset(
    folder: str | Path,
    out: str | Path,
    *,
    policy: CleaningPolicy | None = None,
    decisions: str | Path | None = None,
    format: str | None = None,
    link: str = "copy",
) -> Receipt:
    """Write the cleaned data set of a finished audit into a new folder.

    Examples that were not audited (another split, beyond a limit) stay as they are; files that
    could not be read are left out. The source is only read. Everything is written beside `out`
    under another name, which is changed last: a run that is killed leaves nothing that looks
    finished.

    Args:
        folder: of the audit, with its `plan.csv`.
        out: a folder that does not exist yet, or is empty.
        policy: see `read_audit_plan`; default what `plan.csv` says.
        decisions: see `read_audit_plan`.
        format: of `FORMATS`; default that of the source.
        link: how pictures get into class folders: "copy", "hard" or "symlink".

    Raises:
        OutputError: if there is no finished audit, or `out` is in use or cannot be written.
        DataError: if the source has changed since the audit, plan or decisions do not fit it, or
            nothing would be left of a class.
        UsageError: for a format or link that does not exist or does not fit.
    """
    out = Path(out).absolute()
    found = _open_audit(Path(folder))
    _check_out(out, found.origin)
    plan = read_audit_plan(folder, policy=policy, decisions=decisions)
    examples = reopen(found.origin)
    kind = choose_format(format, found.origin.source, examples)
    found.record.check(examples, found.origin.examples)
    rows, labels = _whole_source(examples, plan, found.record.skipped)
    options = found.origin.options
    cleaned = Cleaned(
        examples, rows, labels, found.origin.source, options["label_column"], options["path_column"]
    )
    receipt = Receipt(
        source={
            "source": found.origin.source, "options": dict(options),
            "examples": found.origin.examples,
        },
        examples=len(examples.labels),
        written=len(rows),
        counts={**plan.counts(), "unreadable": len(found.record.skipped)},
        output_format=kind,
        link=link if kind == "folder" else "",
        policy="plan.csv" if policy is None else policy.text,
        audit=found.fingerprint,
        versions=package_versions(),
    )  # fmt: skip
    part = out.with_name(f".{out.name}.noiseaudit-part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        written = write_cleaned(cleaned, kind, make_folder(part), link)
        _write_receipt(receipt, plan, written, part)
        _sync(part)
        if out.exists():
            out.rmdir()  # it was empty
        part.rename(out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return receipt


def _check_out(out: Path, origin: Origin) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there already; choose another folder, or remove it")
    source = Path(origin.source).resolve()
    if source.exists() and (out.resolve() == source or source in out.resolve().parents):
        raise UsageError(f"{out} lies inside the source, which is never written to")


def _whole_source(
    examples: Examples, plan: CleaningPlan, skipped: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Positions in the whole source that stay, and their class names."""
    stays = np.ones(len(examples.labels), dtype=bool)
    stays[plan.ids[~plan.is_kept]] = False
    stays[skipped] = False
    labels = np.array(examples.class_names, dtype=object)[examples.labels]
    changed = plan.new_labels >= 0
    labels[plan.ids[changed]] = np.array(plan.class_names, dtype=object)[plan.new_labels[changed]]
    rows = np.flatnonzero(stays)
    before = set(np.array(plan.class_names, dtype=object)[plan.labels].tolist())
    if lost := sorted(before - set(labels[rows].tolist())):
        raise DataError(f"nothing would be left of {listed(lost)}: keep some in plan.csv")
    return rows, labels[rows]


def _write_receipt(
    receipt: Receipt, plan: CleaningPlan, written: dict[str, int], folder: Path
) -> None:
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
    return digest_file(path).hex()


def _sync(folder: Path) -> None:
    """To the disk before the name changes, so that not even a power cut leaves half of it."""
    for place, _, names in os.walk(folder):
        for name in [*names, "."]:
            path = os.path.join(place, name)  # noqa: PTH118  # speed
            if not os.path.islink(path):  # noqa: PTH114
                number = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(number)
                finally:
                    os.close(number)


def verify_cleaned(out: str | Path, folder: str | Path) -> Receipt:
    """Check a cleaned data set against its receipt, and that it can be undone.

    Every file must be there and unchanged, no other may have come, and the source must still be
    what was audited: it holds all that was written and all that was left out.

    Args:
        out: of `clean_dataset`.
        folder: of the audit.

    Raises:
        OutputError: if there is no receipt, or no finished audit.
        DataError: naming what differs.
    """
    out, found = Path(out), _open_audit(Path(folder))
    told = read_json(out / _RECEIPT) if (out / _RECEIPT).exists() else None
    if not isinstance(told, dict) or told.get("kind") != "noiseaudit receipt":
        raise OutputError(f"{out} holds no data set cleaned by noiseaudit: it has no {_RECEIPT}")
    if told["format"] != _FORMAT:
        raise OutputError(f"{out / _RECEIPT} has format {told['format']}; this version reads 1")
    if told["audit"] != found.fingerprint:
        raise DataError(f"{out} was cleaned by another audit than the one in {folder}")
    for name, digest in told["digests"].items():
        if _digest(out / name) != digest:
            raise DataError(f"{out / name} has changed since the data set was cleaned")
    files = {row["file"].removeprefix("./"): row for row in _rows(out / "files.csv")}
    lacking = [name for name in files if not os.path.lexists(out / name)]
    _refuse(lacking, "files are gone")
    _refuse([n for n, row in files.items() if _digest(out / n) != row["digest"]], "files changed")
    known = {*files, _RECEIPT, "changes.csv", "files.csv"}
    there = {str(p.relative_to(out)) for p in out.rglob("*") if not p.is_dir() or p.is_symlink()}
    _refuse(sorted(there - known), "files have come")
    receipt = Receipt(**{name: told[name] for name in Receipt.__dataclass_fields__})
    removed = sum(row["action"] == "remove" for row in _rows(out / "changes.csv"))
    left_out = removed + receipt.counts["unreadable"]
    if receipt.written + left_out != receipt.examples:
        raise DataError(
            f"{receipt.written} examples written and {left_out} left out do not make the "
            f"{receipt.examples} of the source"
        )
    found.record.check(reopen(found.origin), found.origin.examples)
    return receipt


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _refuse(names: Sequence[str], what: str) -> None:
    if names:
        raise DataError(f"{len(names):,} {what}: {listed(names)}")
