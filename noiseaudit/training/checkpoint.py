"""One file that holds model, optimiser, epoch and observer states, so they cannot disagree."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import nn

from noiseaudit._io import atomic_file
from noiseaudit.errors import OutputError
from noiseaudit.manifest import require_same
from noiseaudit.watching import Observer

__all__ = ["load_checkpoint", "save_checkpoint"]

_FORMAT = 1


def save_checkpoint(
    path: Path,
    *,
    config: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    observers: Mapping[str, Observer],
    history: list[dict[str, float]],
) -> None:
    """Write the state at an epoch's end, atomically.

    Raises:
        OutputError: if the disk is full or not writable; the last checkpoint then stays.
    """
    state = {
        "format": _FORMAT,
        "config": json.dumps(config),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "observers": {name: observer.state_dict() for name, observer in observers.items()},
        "history": history,
    }
    with atomic_file(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's zip writer wraps the operating system's error
            cause = error.__context__
            if isinstance(cause, OSError):
                raise cause from error
            raise


def load_checkpoint(
    path: Path,
    *,
    config: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    observers: Mapping[str, Observer],
) -> list[dict[str, float]]:
    """Put everything back as it was and return the history, one entry per finished epoch.

    Raises:
        ManifestMismatchError: if it was made with another configuration; nothing is changed.
        OutputError: if the file cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        stored = json.loads(state["config"])
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError, BadZipFile) as error:
        raise OutputError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); "
            "use --no-resume to start over"
        ) from error
    require_same(stored, config, path)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise OutputError(
            f"checkpoint {path} is of another network than this model builds; "
            "use --no-resume to start over"
        ) from error
    optimizer.load_state_dict(state["optimizer"])
    for name, observer in observers.items():
        observer.load_state_dict(state["observers"][name])
    return list(state["history"])
