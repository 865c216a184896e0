"""What an audit saw, example by example, and whether its source is still the same."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import digest_stream, read_npz, write_npz
from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import DataError, OutputError
from noiseaudit.sources.examples import Examples, listed

__all__ = ["Record", "digest_examples", "digest_file", "record_source"]

_SIZE = 16


@dataclass(frozen=True, eq=False)
class Record:
    """What was audited: n examples.

    Attributes:
        class_names: k names.
        ids: (n,) int64 sample ids.
        labels: (n,) int64 given labels.
        digests: (n, 16) uint8: of the file's bytes where the example is a file, else of its input.
        sources: (n,) paths, or None.
        skipped: (s,) int64 sample ids of examples that could not be read.
        skipped_digests: (s, 16) uint8.
        skipped_sources: (s,) paths.
    """

    class_names: tuple[str, ...]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    digests: NDArray[np.uint8]
    sources: NDArray[np.str_] | None
    skipped: NDArray[np.int64]
    skipped_digests: NDArray[np.uint8]
    skipped_sources: NDArray[np.str_]

    def save(self, path: Path) -> None:
        """Write it as an .npz."""
        arrays: dict[str, NDArray[Any]] = {
            "class_names": np.array(self.class_names, dtype=str), "ids": self.ids,
            "labels": self.labels, "digests": self.digests, "skipped": self.skipped,
            "skipped_digests": self.skipped_digests,
            "skipped_sources": np.asarray(self.skipped_sources, dtype=str),
        }  # fmt: skip
        if self.sources is not None:
            arrays["sources"] = np.asarray(self.sources, dtype=str)
        write_npz(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what `save` wrote.

        Raises:
            OutputError: if it is missing or damaged.
        """
        names = (
            "class_names", "ids", "labels", "digests", "skipped", "skipped_digests",
            "skipped_sources",
        )  # fmt: skip
        found = read_npz(path)
        if lacking := [name for name in names if name not in found]:
            raise OutputError(f"{path} lacks {lacking[0]}: run the audit again")
        return cls(
            tuple(found["class_names"].tolist()), found["ids"], found["labels"], found["digests"],
            found.get("sources"), found["skipped"], found["skipped_digests"],
            found["skipped_sources"],
        )  # fmt: skip

    def check(self, examples: Examples, wanted: int) -> None:
        """Check that a source holds what was audited, as it was.

        Args:
            examples: the whole source, as it is now.
            wanted: how many examples it had.

        Raises:
            DataError: naming what differs.
        """
        self._check_listing(examples, wanted)
        given = np.array(self.class_names, dtype=object)[self.labels]
        now = np.array(examples.class_names, dtype=object)[examples.labels[self.ids]]
        self._refuse(given != now, "have another label")
        digests = _digests_of(examples, self.ids)
        self._refuse((digests != self.digests).any(axis=1), "have changed")
        if len(self.skipped) and examples.sources is not None and examples.root is not None:
            now = examples.sources[self.skipped]
            same = _digest_files([examples.root / source for source in now.tolist()])
            other = (now != self.skipped_sources) | (same != self.skipped_digests).any(axis=1)
            if other.any():
                raise DataError(
                    f"the source has changed: {listed(now[other].tolist())} could not be read when "
                    "it was audited; audit it again"
                )

    def _check_listing(self, examples: Examples, wanted: int) -> None:
        n = len(examples.labels)
        if int(self.ids.max(initial=-1)) >= wanted:
            raise DataError("the audit was of more examples than its source has: of planted ones?")
        if self.sources is None or examples.sources is None:
            if n != wanted:
                raise DataError(f"the source now has {n:,} examples; it had {wanted:,}")
            return
        before, now = set(self.sources.tolist()), set(examples.sources.tolist())
        if gone := sorted(before - now):
            raise DataError(f"the source has changed: {len(gone):,} files are gone: {listed(gone)}")
        if n != wanted:
            new = sorted(now - before) if len(self.ids) + len(self.skipped) == wanted else []
            what = f": new are {listed(new)}" if new else ""
            raise DataError(
                f"the source has changed: it has {n:,} examples and had {wanted:,}{what}"
            )
        self._refuse(examples.sources[self.ids] != self.sources, "have another place")

    def _refuse(self, differs: NDArray[np.bool_], what: str) -> None:
        if differs.any():
            rows = np.flatnonzero(differs)
            which = self.ids[rows] if self.sources is None else self.sources[rows]
            raise DataError(
                f"the source has changed since the audit: {len(rows):,} examples {what}: "
                f"{listed(which.tolist())}; audit it again"
            )


def record_source(dataset: LabeledDataset) -> Record:
    """What is audited; cost: a hash of every file or input."""
    return Record(
        dataset.class_names,
        dataset.ids,
        dataset.labels,
        digest_examples(dataset.inputs, dataset.sources, dataset.root),
        dataset.sources,
        np.array([item.sample_id for item in dataset.skipped], dtype=np.int64),
        _digest_files([(dataset.root or Path()) / item.source for item in dataset.skipped]),
        np.array([item.source for item in dataset.skipped], dtype=str),
    )


def digest_examples(
    inputs: NDArray[Any], sources: NDArray[np.str_] | None, root: Path | None
) -> NDArray[np.uint8]:
    """(n, 16) digests: of the files' bytes where there are files, else of the inputs."""
    if sources is not None and root is not None:
        return _digest_files([root / source for source in sources.tolist()])
    found = np.empty((len(inputs), _SIZE), np.uint8)
    for row, value in enumerate(inputs):
        digest = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=_SIZE)
        found[row] = np.frombuffer(digest.digest(), np.uint8)
    return found


def _digests_of(examples: Examples, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    if examples.sources is not None and examples.root is not None:
        root = examples.root
        return _digest_files([root / source for source in examples.sources[ids].tolist()])
    return digest_examples(examples.read(ids).array, None, None)


def _digest_files(paths: list[Path]) -> NDArray[np.uint8]:
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(digest_file, paths))
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(paths), _SIZE).copy()


def digest_file(path: Path) -> bytes:
    """16 bytes: BLAKE2b of the file's content; zeros where it cannot be read."""
    try:
        with path.open("rb") as file:
            return digest_stream(file)
    except OSError:
        return bytes(_SIZE)
