"""Clean: apply an audit's plan to its source, whole or not at all, with a receipt."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from noiseaudit._io import make_folder
from noiseaudit.cleaned import Cleaned
from noiseaudit.cleaning import CleaningPlan
from noiseaudit.cleaning_policy import CleaningPolicy
from noiseaudit.dataset import Origin
from noiseaudit.errors import DataError, OutputError, UsageError
from noiseaudit.export import choose_format, write_cleaned
from noiseaudit.loaders import reopen
from noiseaudit.manifest import package_versions, read_manifest
from noiseaudit.plan_files import load_evidence, read_decisions, read_plan
from noiseaudit.provenance import Record, digest_file
from noiseaudit.receipts import Receipt, check_receipt, write_receipt
from noiseaudit.sources.examples import Examples, listed

__all__ = ["Receipt", "clean_dataset", "read_audit_plan", "verify_cleaned"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Audit:
    origin: Origin
    record: Record
    fingerprint: dict[str, Any]
    plan_digest: str


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
    for name in ("audited.npz", "plan_evidence.npz", "plan.csv"):
        if not (folder / name).exists():
            raise OutputError(f"{folder} lacks {name}: run the audit again")
    return _Audit(
        Origin(**manifest["origin"]),
        Record.load(folder / "audited.npz"),
        manifest["config"]["dataset"],
        str(manifest.get("results", {}).get("plan", "")),
    )


def _reopen(origin: Origin) -> Examples:
    try:
        return reopen(origin)
    except DataError as error:
        raise DataError(
            f"{error} (where the source has moved, audit it again at its new place into the same "
            "folder: nothing is trained again)"
        ) from error


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
    return _read_plan(Path(folder), _open_audit(Path(folder)), policy, decisions)


def _read_plan(
    folder: Path, found: _Audit, policy: CleaningPolicy | None, decisions: str | Path | None
) -> CleaningPlan:
    plan = read_plan(folder / "plan.csv", load_evidence(folder / "plan_evidence.npz"))
    if policy is not None:
        if digest_file(folder / "plan.csv").hex() != found.plan_digest:
            logger.warning("policy %s takes the place of what was edited in plan.csv", policy.text)
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
        DataError: if the source has changed since the audit, plan or decisions do not fit it, or a
            policy would leave nothing of a class.
        UsageError: for a format or link that does not exist or does not fit.
    """
    out = Path(out).absolute()
    found = _open_audit(Path(folder))
    _check_out(out, found.origin)
    plan = _read_plan(Path(folder), found, policy, decisions)
    examples = _reopen(found.origin)
    _check_apart(out, found.origin, examples)
    kind = choose_format(format, found.origin.source, examples)
    found.record.check(examples, found.origin.examples)
    rows, labels = _whole_source(examples, plan, found.record.skipped)
    if policy is not None:
        _check_classes(plan, labels)
    options = found.origin.options
    cleaned = Cleaned(
        examples,
        rows,
        labels,
        found.origin.source,
        options["label_column"],
        options["path_column"],
        options.get("data_root"),
    )
    receipt = Receipt(
        source=asdict(found.origin),
        examples=len(examples.labels),
        written=len(rows),
        counts={**plan.counts(), "unreadable": len(found.record.skipped)},
        output_format=kind,
        link=link if kind == "folder" else "",
        policy=None if policy is None else asdict(policy),
        decisions=decisions is not None,
        inputs={
            Path(name).name: digest_file(Path(name)).hex()
            for name in (Path(folder) / "plan.csv", decisions)
            if name is not None
        },
        audit=found.fingerprint,
        versions=package_versions(),
    )  # fmt: skip
    with _place_beside(out) as part:
        written = write_cleaned(cleaned, kind, part, link)
        if kind == "folder" and len(written) != len(rows):
            raise RuntimeError(f"{len(written)} files written for {len(rows)} examples")
        write_receipt(receipt, plan, written, part)
        _sync(part)
    return receipt


@contextmanager
def _place_beside(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, which takes its name when the block ends well.

    One process at a time; what a killed one left there is removed.
    """
    make_folder(out.parent)
    part = out.with_name(f".{out.name}.noiseaudit-part")
    lock = FileLock(out.with_name(f".{out.name}.noiseaudit-lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(f"another noiseaudit is writing {out}; wait for it") from error
    try:
        shutil.rmtree(part, ignore_errors=True)
        yield make_folder(part)
        if out.exists():
            out.rmdir()  # it was empty
        part.rename(out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _check_out(out: Path, origin: Origin) -> None:
    if out.is_symlink() or out.is_mount():
        raise OutputError(f"{out} is a link or a mount; name a folder in it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there already; choose another folder, or remove it")
    source = Path(origin.source).resolve()
    if source.exists() and (out.resolve() == source or source in out.resolve().parents):
        raise UsageError(f"{out} lies inside the source, which is never written to")


def _check_apart(out: Path, origin: Origin, examples: Examples) -> None:
    """That `out` lies in no class folder, however it is linked: it would become part of it."""
    if not Path(origin.source).is_dir() or examples.sources is None or examples.root is None:
        return
    folders = {examples.root / Path(source).parent for source in examples.sources.tolist()}
    above = {out.resolve(), *out.resolve().parents}
    if above & {folder.resolve() for folder in folders}:
        raise UsageError(f"{out} lies inside the source, which is never written to")


def _check_classes(plan: CleaningPlan, labels: NDArray[np.object_]) -> None:
    """That a policy leaves something of every class: only a person may drop or merge classes."""
    before = set(np.array(plan.class_names, dtype=object)[plan.labels].tolist())
    if lost := sorted(before - set(labels.tolist())):
        raise DataError(f"nothing would be left of {listed(lost)}: keep some by --min-per-class")


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
    return rows, labels[rows]


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
    receipt = check_receipt(out)
    if receipt.audit != found.fingerprint:
        raise DataError(f"{out} was cleaned by another audit than the one in {folder}")
    found.record.check(_reopen(found.origin), found.origin.examples)
    return receipt
