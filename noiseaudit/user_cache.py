"""The user's cache folder: decoded pictures, hashes, embeddings; safe to delete."""

from __future__ import annotations

import functools
import os
import tempfile
import warnings
from pathlib import Path

from noiseaudit._io import make_folder
from noiseaudit.errors import NoiseAuditWarning, OutputError

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The user's cache folder, made if need be; NOISEAUDIT_CACHE names another one."""
    import platformdirs

    chosen = os.environ.get("NOISEAUDIT_CACHE") or platformdirs.user_cache_dir("noiseaudit")
    try:
        return make_folder(Path(chosen))
    except OutputError as error:
        temporary = Path(_temporary_cache().name)
        warnings.warn(
            f"the cache cannot be kept ({error}); using {temporary}, which is "
            "deleted at the end: set NOISEAUDIT_CACHE to a folder that can be written",
            NoiseAuditWarning,
            stacklevel=2,
        )
        return temporary


@functools.cache
def _temporary_cache() -> tempfile.TemporaryDirectory[str]:
    """One for the process; it removes itself when the interpreter ends."""
    return tempfile.TemporaryDirectory(prefix="noiseaudit-")
