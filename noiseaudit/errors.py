"""Every error and warning that noiseaudit raises on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DataError",
    "ManifestMismatchError",
    "NoiseAuditError",
    "NoiseAuditWarning",
    "OutputError",
    "UnknownNameError",
    "UsageError",
    "check_name",
]


class NoiseAuditError(Exception):
    """Base of all errors raised on purpose; its message is meant for the person at the keyboard."""


class DataError(NoiseAuditError, ValueError):
    """The data handed in cannot be used; the message says where and what to do."""


class UsageError(NoiseAuditError, ValueError):
    """An option has a value it cannot have."""


class UnknownNameError(UsageError):
    """A name (of a detector, model, data set, ...) does not exist; the nearest one is suggested."""


class OutputError(NoiseAuditError):
    """The output folder cannot be written, or belongs to something else."""


class ManifestMismatchError(OutputError):
    """Stored results were made from other data or settings; the message lists each difference."""


class NoiseAuditWarning(UserWarning):
    """Something the caller can act on, while the work goes on."""


def check_name(name: str, valid: Iterable[str], what: str) -> str:
    """Return `name` if it is one of `valid`.

    Raises:
        UnknownNameError: with the nearest valid name, if one is near, and all of them.
    """
    names = list(valid)
    if name in names:
        return name
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UnknownNameError(f"unknown {what} {name!r}; {hint}valid: {', '.join(sorted(names))}")
