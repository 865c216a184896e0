"""Manifests: what a stored result was made from, and how two of them differ."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from noiseaudit._io import read_json, write_json
from noiseaudit.errors import ManifestMismatchError, OutputError

__all__ = ["differences", "package_versions", "read_manifest", "require_same", "write_manifest"]

_PACKAGES = (
    "noiseaudit", "torch", "torchvision", "numpy", "pandas", "pillow", "scikit-learn", "cleanlab",
    "imagehash",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result, without importing them."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest as JSON, atomically."""
    write_json(path, dict(manifest))


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The stored manifest, or None where there is none.

    Raises:
        OutputError: if the file is there but is no JSON object.
    """
    if not path.exists():
        return None
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise OutputError(f"{path} is not a manifest of noiseaudit's; choose another folder")
    return manifest


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """One line per key whose value differs: "seed: stored 0, now 1"; nested keys are dotted."""
    lines: list[str] = []
    for key in sorted(stored.keys() | wanted.keys()):
        name = f"{prefix}{key}"
        old, new = stored.get(key), wanted.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{name}.")
        elif _plain(old) != _plain(new):
            lines.append(f"{name}: stored {_show(old)}, now {_show(new)}")
    return lines


def require_same(stored: Mapping[str, Any], wanted: Mapping[str, Any], where: Path) -> None:
    """Check that what is stored was made from the same data and settings.

    Raises:
        ManifestMismatchError: listing each difference and the ways out.
    """
    lines = differences(stored, wanted)
    if lines:
        raise ManifestMismatchError(
            f"{where} holds results made from other data or settings:\n  "
            + "\n  ".join(lines)
            + "\nuse another output folder, the same settings, or --no-resume to start over"
        )


def _plain(value: Any) -> Any:
    """Tuples and lists are one thing, as they are after a trip through JSON."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _show(value: Any) -> str:
    return "nothing" if value is None else str(value)
