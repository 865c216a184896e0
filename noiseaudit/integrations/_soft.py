"""One message for every library that a bridge needs and does not find."""

from __future__ import annotations

from noiseaudit.errors import NoiseAuditError

__all__ = ["MissingLibraryError"]


class MissingLibraryError(NoiseAuditError, ImportError):
    """A bridge's library is not installed; the message names the extra that installs it."""

    def __init__(self, bridge: str, extra: str, error: ImportError) -> None:
        super().__init__(
            f"noiseaudit.integrations.{bridge} cannot be imported ({error}): "
            f"pip install 'noiseaudit[{extra}]'"
        )
