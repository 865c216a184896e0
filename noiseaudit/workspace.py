"""The output folder of a command: claimed by one run at a time, never taken from anything else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from noiseaudit._io import make_folder, write_csv
from noiseaudit.dataset import Skipped
from noiseaudit.errors import OutputError
from noiseaudit.manifest import read_manifest, require_same, write_manifest

__all__ = ["output_folder", "write_skipped"]

_LOCK = ".noiseaudit.lock"


@contextmanager
def output_folder(
    out: str | Path | None, manifest: Mapping[str, Any], results: Sequence[str], *, resume: bool
) -> Iterator[Path]:
    """The folder to work in, held by a lock during the block and marked as this job's.

    Without `out` it is a temporary one. A folder that holds this job finished stays marked so;
    otherwise `manifest` is written and the named results of whatever run was before are removed,
    so that they cannot pass for this one's.

    Args:
        out: where to.
        manifest: with `command` and `config`, of the job about to run.
        results: names of the files that the command ends with.
        resume: go on with the same job; False also overwrites another job of the same command.

    Raises:
        OutputError: if the folder cannot be written, holds something else, or is in use.
        ManifestMismatchError: if it holds this command's results from other data or settings.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="noiseaudit-") as temporary:
            yield Path(temporary)
        return
    folder = make_folder(Path(out))
    _check_owner(folder, manifest)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"another noiseaudit is at work in {folder}; wait for it or choose another folder"
        ) from error
    try:
        stored = _check_owner(folder, manifest)
        if stored is not None and resume:
            require_same(stored.get("config", {}), manifest["config"], folder)
        if stored is None or not resume or stored.get("status") != "done":
            write_manifest(folder / "manifest.json", manifest)
            for name in results:
                (folder / name).unlink(missing_ok=True)
            for part in folder.rglob(".*.part"):  # of writes that were killed
                part.unlink()
        yield folder
    finally:
        lock.release()


def _check_owner(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The stored manifest of this command, or None in a folder that is free to take."""
    stored = read_manifest(folder / "manifest.json")
    if stored is None:
        foreign = sorted(
            item.name
            for item in folder.iterdir()
            if item.name != _LOCK and not item.name.endswith(".part")
        )
        if foreign:
            raise OutputError(
                f"{folder} is not empty ({foreign[0]}, {len(foreign)} in all) and holds no "
                "noiseaudit results; choose another output folder"
            )
    elif "command" not in stored:
        raise OutputError(
            f"{folder}/manifest.json is not noiseaudit's; choose another output folder"
        )
    elif stored["command"] != manifest["command"]:
        raise OutputError(
            f"{folder} holds results of 'noiseaudit {stored['command']}'; "
            "choose another output folder"
        )
    return stored


def write_skipped(skipped: Sequence[Skipped], folder: Path) -> None:
    """Write `skipped.csv`; where nothing was skipped there is none."""
    path = folder / "skipped.csv"
    if skipped:
        rows = [(item.sample_id, item.source, item.reason) for item in skipped]
        write_csv(path, ["sample_id", "source", "reason"], rows)
    else:
        path.unlink(missing_ok=True)
