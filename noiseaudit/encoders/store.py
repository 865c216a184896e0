"""Embeddings on disk: one append-only store for each encoder, shared by all data sets.

`vectors` holds rows of float32, `records` for each row the digest of its picture and a checksum of
both, written after the vectors: what a killed process leaves has no record and is written over. A
row whose checksum is wrong counts as missing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from noiseaudit._io import make_folder, read_json, write_json
from noiseaudit.errors import DataError, OutputError

__all__ = ["EmbeddingStore"]

_RECORD = np.dtype([("digest", np.uint8, 16), ("checksum", "<u4")])
_PATIENCE = 60.0  # seconds to wait for the lock, which is held for one write
_WAY_OUT = "free some space, or set NOISEAUDIT_CACHE to a folder that can be written"


class EmbeddingStore:
    """The stored vectors of one encoder; any number of processes may read and append at once.

    Args:
        folder: of this encoder alone; made if need be.
        name: of the encoder, for messages.

    Raises:
        OutputError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = make_folder(folder)
        self._name = name
        self._vectors, self._records = folder / "vectors", folder / "records"
        self._rows: dict[bytes, tuple[int, int]] = {}  # digest -> row and checksum
        self._seen = 0  # records read
        self._identity = -1  # of the file that they were read from
        self._dimension = 0
        self._refresh()

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those of `digests` of which there is no sound vector, each once, in order.

        Cost: the vectors are read and their checksums computed, 0.3 s for 50,000 x 1,280.
        """
        self._refresh()
        wanted = list(dict.fromkeys(digests))
        stored = self._mapped()
        sound = {
            digest
            for digest in wanted
            if digest in self._rows and self._is_sound(digest, stored)
        }  # fmt: skip
        return [digest for digest in wanted if digest not in sound]

    def append(self, digests: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Add a vector for each digest, but for those that another process has added meanwhile.

        Raises:
            DataError: if the vectors have another dimension than those stored.
            OutputError: if the disk is full or the folder cannot be written.
        """
        try:
            with FileLock(self._folder / ".lock", timeout=_PATIENCE):
                self._refresh()
                self._check_dimension(vectors.shape[1])
                stored = self._mapped()
                new = [
                    i
                    for i, digest in enumerate(digests)
                    if digest not in self._rows or not self._is_sound(digest, stored)
                ]
                if new:
                    self._write([digests[i] for i in new], vectors[new])
                    self._refresh()
        except Timeout as error:
            raise OutputError(
                f"{self._folder} has been locked by another process for {_PATIENCE:.0f} s: wait "
                "for it, or set NOISEAUDIT_CACHE to another folder"
            ) from error
        except OSError as error:
            raise OutputError(
                f"embeddings cannot be kept in {self._folder} ({error.strerror}): {_WAY_OUT}"
            ) from error

    def gather(self, digests: Sequence[bytes]) -> NDArray[np.float32]:
        """(n, d) vectors in order of `digests`, read-only: a memory map where they lie so.

        Raises:
            OutputError: if one is missing.
        """
        stored = self._mapped()
        try:
            rows = np.array([self._rows[digest][0] for digest in digests], dtype=np.int64)
            if stored is None or int(rows.max(initial=0)) >= len(stored):
                raise KeyError  # noqa: TRY301  # the same message
        except KeyError as error:
            raise OutputError(
                f"{self._folder} was changed while it was in use: run the same command again"
            ) from error
        if (np.diff(rows) == 1).all():
            return stored[rows[0] : rows[-1] + 1]
        vectors = np.array(stored[rows])
        vectors.flags.writeable = False
        return vectors

    def _refresh(self) -> None:
        """Read what has been appended since the last time, or all of another file."""
        try:
            identity, size = self._records.stat().st_ino, self._records.stat().st_size
        except OSError:
            identity, size = -1, 0
        if identity != self._identity or size < self._seen * _RECORD.itemsize:
            self._rows, self._seen, self._identity, self._dimension = {}, 0, identity, 0
        if not size:
            return
        if not self._dimension:
            self._dimension = self._stored_dimension()
        start = self._seen
        with self._records.open("rb") as file:
            file.seek(start * _RECORD.itemsize)
            data = file.read()
        records = np.frombuffer(data, _RECORD, len(data) // _RECORD.itemsize)
        digests = np.ascontiguousarray(records["digest"]).tobytes()
        for i, checksum in enumerate(records["checksum"].tolist()):
            self._rows[digests[16 * i : 16 * i + 16]] = (start + i, checksum)
        self._seen += len(records)

    def _stored_dimension(self) -> int:
        try:
            value = read_json(self._folder / "store.json")["dimension"]
        except (OutputError, KeyError, TypeError):
            return 0
        return value if isinstance(value, int) and value > 0 else 0

    def _check_dimension(self, dimension: int) -> None:
        """Note the dimension of a new store; one that does not tell its own is begun anew."""
        if self._dimension == dimension:
            return
        if self._dimension:
            raise DataError(
                f"encoder {self._name} gives vectors of {dimension} numbers, but {self._dimension} "
                "under the same key before: give it another key"
            )
        for path in (self._records, self._vectors):
            path.unlink(missing_ok=True)
        self._refresh()
        write_json(self._folder / "store.json", {"encoder": self._name, "dimension": dimension})
        self._dimension = dimension

    def _write(self, digests: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Vectors first, then their records, after the last whole record; the lock is held."""
        records = np.empty(len(digests), _RECORD)
        records["digest"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
        pairs = zip(digests, vectors, strict=True)
        records["checksum"] = [_checksum(digest, vector) for digest, vector in pairs]
        row_bytes = 4 * vectors.shape[1]
        for path, width, data in (
            (self._vectors, row_bytes, np.ascontiguousarray(vectors, "<f4").tobytes()),
            (self._records, _RECORD.itemsize, records.tobytes()),
        ):
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.seek(self._seen * width)
                file.write(data)
                file.truncate()
        if self._identity < 0:
            self._identity = self._records.stat().st_ino

    def _mapped(self) -> NDArray[np.float32] | None:
        """All whole rows of the file of vectors, as a read-only memory map."""
        if not self._dimension:
            return None
        try:
            rows = self._vectors.stat().st_size // (4 * self._dimension)
            if not rows:
                return None
            return np.memmap(self._vectors, "<f4", "r", shape=(rows, self._dimension))
        except OSError:
            return None

    def _is_sound(self, digest: bytes, stored: NDArray[np.float32] | None) -> bool:
        row, checksum = self._rows[digest]
        if stored is None or row >= len(stored):
            return False
        return _checksum(digest, stored[row]) == checksum


def _checksum(digest: bytes, vector: NDArray[np.float32]) -> int:
    return zlib.crc32(np.ascontiguousarray(vector, "<f4").data, zlib.crc32(digest))
