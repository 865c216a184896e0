"""The Detector protocol, and the registry that finds every detector by walking the package."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import ClassVar, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import UsageError, check_name
from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking
from noiseaudit.watching import Observer, Snapshot

__all__ = [
    "Detector",
    "EmbeddingDetector",
    "SnapshotDetector",
    "WatchingDetector",
    "create_detectors",
    "detector_types",
    "needs_of",
    "training_statistics",
]

_FAMILIES = "noiseaudit.detectors"


@runtime_checkable
class Detector(Protocol):
    """Turns evidence into a ranking: pure, no model, no hidden randomness.

    A detector is a frozen dataclass in a module of `noiseaudit.detectors`; being there registers
    it. Its fields are its options, each with a default.
    """

    name: ClassVar[str]
    """Name on the command line and in files."""
    summary: ClassVar[str]
    """What a high score means, in one line."""
    needs: ClassVar[tuple[str, ...]]
    """What must have run: "training", "watching" (that with its own observer), "snapshots" (that
    with what `SnapshotDetector` asks for), "pred_probs", "cscores", or nothing but "inputs" or
    "embeddings". See `needs_of`."""
    cost: ClassVar[str]
    """Cost beyond what the stages it needs cost anyway."""
    source: ClassVar[str]
    """Paper, year, section."""
    statistics: ClassVar[tuple[Statistic, ...]]
    """What the training run must record for it."""

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion of every example; higher = more suspicious."""


@runtime_checkable
class WatchingDetector(Detector, Protocol):
    """A detector that needs "watching": an observer of its own in the training run."""

    @property
    def statistic(self) -> str:
        """The name of what the observer records; it says all that this depends on."""

    def observer(self, ids: NDArray[np.int64], seed: int) -> Observer:
        """A fresh observer; what it computes is called `statistic`."""


@runtime_checkable
class SnapshotDetector(Detector, Protocol):
    """A detector that needs "snapshots": what the model is at the end of an epoch."""

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """All that it looks at."""


@runtime_checkable
class EmbeddingDetector(Detector, Protocol):
    """A detector that may look at embeddings instead, where examples have any."""

    @property
    def needs_with_embeddings(self) -> tuple[str, ...]:
        """What it needs then."""


def needs_of(detector: Detector, *, has_embeddings: bool) -> tuple[str, ...]:
    """What must have run for a detector, on data whose examples have embeddings or have none."""
    if has_embeddings and isinstance(detector, EmbeddingDetector):
        return detector.needs_with_embeddings
    return detector.needs


@cache
def detector_types() -> dict[str, type[Detector]]:
    """Every detector class by name, in order of the names."""
    found: dict[str, type[Detector]] = {}
    package = importlib.import_module(_FAMILIES)
    for module_info in pkgutil.iter_modules(package.__path__, f"{_FAMILIES}."):
        module = importlib.import_module(module_info.name)
        for _, item in inspect.getmembers(module, inspect.isclass):
            if item.__module__ == module.__name__ and _is_detector(item):
                if item.name in found:
                    raise RuntimeError(f"two detectors are called {item.name}")
                found[item.name] = item
    return dict(sorted(found.items()))


def _is_detector(item: type) -> TypeGuard[type[Detector]]:
    return hasattr(item, "rank") and isinstance(getattr(item, "name", None), str)


def create_detectors(names: Iterable[str | Detector] | None = None) -> list[Detector]:
    """Detectors, each once: a name stands for default options; None means all.

    Raises:
        UnknownNameError: for a name that does not exist, with the nearest that does.
        UsageError: if two of one name have different options.
    """
    types = detector_types()
    names = [names] if isinstance(names, str) else names
    chosen: dict[str, Detector] = {}
    for item in types if names is None else names:
        made = types[check_name(item, types, "detector")]() if isinstance(item, str) else item
        if chosen.setdefault(made.name, made) != made:
            raise UsageError(f"two detectors are called {made.name}; ask for one at a time")
    return list(chosen.values())


def training_statistics() -> tuple[Statistic, ...]:
    """What every registered detector wants recorded, each once.

    All of it comes from the training forward pass, so a run records it whole: asking for more
    detectors later then only re-ranks.
    """
    wanted: dict[str, Statistic] = {}
    for kind in detector_types().values():
        for statistic in kind.statistics:
            wanted.setdefault(statistic.name, statistic)
    return tuple(wanted[name] for name in sorted(wanted) if name != "correct")
