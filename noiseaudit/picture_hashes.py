"""What tells pictures apart and alike: a digest of the pixels, and perceptual hashes by imagehash.

Pictures that are files are decoded in full size, in parallel, and what is found is kept in the
user's cache under the digest of the file: a scan of the same pictures, or of more, reads the rest.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noiseaudit._io import make_folder, read_npz, write_npz
from noiseaudit.dataset import LabeledDataset, digest_array
from noiseaudit.errors import NoiseAuditWarning, OutputError, UsageError, check_name
from noiseaudit.image_cache import in_parallel, picture_headers
from noiseaudit.images import UNREADABLE, open_picture, unreadable_reason
from noiseaudit.user_cache import cache_folder

__all__ = ["HASHES", "TRANSFORMS", "PictureHashes", "check_hash", "hash_pictures"]

HASHES = ("phash", "dhash", "whash", "ahash")
"""Names of the perceptual hashes: of the cosine transform, of gradients, of wavelets (of pictures
brought to 64 pixels), of means."""

TRANSFORMS = ("", *(item.name.lower() for item in Image.Transpose))
"""As is, then the seven ways to mirror and turn a picture, as Pillow names them."""

_VERSION = 1  # raise it whenever the same file would give other values
_REDUCED = 128  # pixels a side from which mirrored and turned pictures are hashed
_BLOCK = 20_000  # pictures between two writes of the cache


@dataclass(frozen=True, eq=False)
class PictureHashes:
    """Of n examples.

    Attributes:
        digests: (n, 2) uint64, equal where pixels are; a grey picture stored as RGB is grey.
        codes: (n, v, w) uint64 perceptual hash in words of 64 bits, as is and in the v - 1
            `TRANSFORMS`; v is 0 for vectors.
        complete: whether all files could be read; `inputs` stand in for those that could not.
    """

    digests: NDArray[np.uint64]
    codes: NDArray[np.uint64]
    complete: bool


def check_hash(kind: str, hash_size: int) -> None:
    """Check the choice of a perceptual hash.

    Raises:
        UnknownNameError: if there is no such hash.
        UsageError: if the size is not in 2..32, or for "whash" no power of two.
    """
    check_name(kind, HASHES, "hash")
    if not 2 <= hash_size <= 32:
        raise UsageError(f"hash_size must be in 2..32; got {hash_size}")
    if kind == "whash" and hash_size & (hash_size - 1):
        raise UsageError(f"hash_size must be a power of two for whash; got {hash_size}")


def hash_pictures(
    dataset: LabeledDataset,
    *,
    kind: str = "phash",
    hash_size: int = 8,
    transforms: bool = False,
    progress: bool = False,
) -> PictureHashes:
    """Digests and perceptual hashes of all examples; vectors have only digests.

    Files are read in full size where every example has one; otherwise, and in place of files that
    cannot be read any more, `inputs` are hashed.

    Cost: 0.15 ms a picture of 32 x 32 on one core, with `transforms` eight pictures for each, and
    the decoding of files. Source: `imagehash`, whose functions are called, `whash` at one scale.

    Args:
        dataset: whose pictures.
        kind: one of `HASHES`.
        hash_size: bits along a side.
        transforms: whether to hash mirrored and turned pictures too.
        progress: show a bar on stderr when it is a terminal.

    Raises:
        UsageError: see `check_hash`.
    """
    check_hash(kind, hash_size)
    n = len(dataset)
    if dataset.kind == "vectors":
        digests = np.array([_digest(row) for row in dataset.inputs], np.uint64).reshape(n, 2)
        return PictureHashes(digests, np.zeros((n, 0, 1), np.uint64), complete=True)
    one = partial(_record, kind=kind, hash_size=hash_size, transforms=transforms)
    records: dict[int, NDArray[np.uint64]] = {}
    reasons: dict[int, str] = {}
    if dataset.root is not None and dataset.sources is not None and (dataset.sources != "").all():
        name = f"{kind}-{hash_size}{'-transforms' if transforms else ''}"
        records, reasons = _hash_files(dataset.root, dataset.sources.tolist(), name, one, progress)
        if reasons:
            first = min(reasons)
            warnings.warn(
                f"{len(reasons)} pictures cannot be read again in full size, first "
                f"{dataset.sources[first]!r} ({reasons[first]}); what was loaded of them is "
                "compared instead",
                NoiseAuditWarning,
                stacklevel=2,
            )
    rest = [row for row in range(n) if row not in records]

    def of_inputs(row: int) -> NDArray[np.uint64]:
        picture = Image.fromarray(dataset.inputs[row])
        return one(picture, np.asarray(picture))

    found = in_parallel(of_inputs, rest, "hashing pictures", progress)
    records |= zip(rest, found, strict=True)
    views = len(TRANSFORMS) if transforms else 1
    words = _words(hash_size)
    table = np.zeros((n, 2 + views * words), np.uint64)
    for row, values in records.items():
        table[row] = values
    codes = table[:, 2:].reshape(n, views, words)
    return PictureHashes(table[:, :2].copy(), codes, complete=not reasons)


def _words(hash_size: int) -> int:
    return -(-hash_size * hash_size // 64)


def _record(
    picture: Image.Image, pixels: NDArray[Any], *, kind: str, hash_size: int, transforms: bool
) -> NDArray[np.uint64]:
    """Digest of `pixels` and hashes of the picture, in one row of words."""
    import imagehash

    functions: dict[str, Callable[..., imagehash.ImageHash]] = {
        "phash": imagehash.phash,
        "dhash": imagehash.dhash,
        # The scale that imagehash would choose grows with the picture, and its time with it.
        "whash": partial(imagehash.whash, image_scale=max(64, hash_size)),
        "ahash": imagehash.average_hash,
    }
    hashes = [functions[kind](picture, hash_size).hash]
    if transforms:
        grey = picture.convert("L")
        side = (min(grey.width, _REDUCED), min(grey.height, _REDUCED))
        reduced = grey.resize(side, Image.Resampling.LANCZOS, reducing_gap=2.0)
        hashes += [
            functions[kind](reduced.transpose(item), hash_size).hash for item in Image.Transpose
        ]
    bits = np.zeros((len(hashes), _words(hash_size) * 64), dtype=bool)
    bits[:, : hash_size * hash_size] = np.stack(hashes).reshape(len(hashes), -1)
    if pixels.ndim == 3 and pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return np.concatenate([_digest(pixels), np.packbits(bits, axis=1).view(np.uint64).ravel()])


def _digest(values: NDArray[Any]) -> NDArray[np.uint64]:
    return np.frombuffer(bytes.fromhex(digest_array(values)), np.uint64)


def _hash_files(
    root: Path,
    files: Sequence[str],
    name: str,
    one: Callable[[Image.Image, NDArray[Any]], NDArray[np.uint64]],
    progress: bool,
) -> tuple[dict[int, NDArray[np.uint64]], dict[int, str]]:
    """The record of each file by position, from the cache where it is, and what cannot be read."""
    headers, reasons = picture_headers(root, files, progress=progress)
    cache = make_folder(cache_folder() / "hashes")
    path = cache / f"{name}-v{_VERSION}-{version('imagehash')}-{version('pillow')}.npz"
    known = _read_cache(path)
    missing = list(dict.fromkeys(h.digest for h in headers.values() if h.digest not in known))
    place = {headers[i].digest: i for i in reversed(headers)}

    def record_or_reason(digest: bytes) -> NDArray[np.uint64] | str:
        try:
            data = (root / files[place[digest]]).read_bytes()
            if hashlib.blake2b(data, digest_size=16).digest() != digest:
                return "it changed while it was being read"
            picture, pixels = open_picture(data)
            own = np.frombuffer(digest, np.uint8) if pixels is None else pixels
            return one(picture, own)
        except UNREADABLE as error:
            return unreadable_reason(error)

    failed: dict[bytes, str] = {}
    for start in range(0, len(missing), _BLOCK):
        part = missing[start : start + _BLOCK]
        for digest, result in zip(
            part, in_parallel(record_or_reason, part, "hashing pictures", progress), strict=True
        ):
            if isinstance(result, str):
                failed[digest] = result
            else:
                known[digest] = result
        _write_cache(path, known)
    reasons |= {i: failed[h.digest] for i, h in headers.items() if h.digest in failed}
    return {i: known[h.digest] for i, h in headers.items() if i not in reasons}, reasons


def _read_cache(path: Path) -> dict[bytes, NDArray[np.uint64]]:
    try:
        stored = read_npz(path, ("keys", "records"))
    except OutputError:
        return {}  # absent or damaged: pictures are hashed again
    keys, records = stored["keys"], stored["records"]
    if keys.shape != (len(records), 16) or records.ndim != 2:
        return {}
    return {key.tobytes(): record for key, record in zip(keys, records, strict=True)}


def _write_cache(path: Path, known: dict[bytes, NDArray[np.uint64]]) -> None:
    """Keep what is known, with what another process has added meanwhile."""
    merged = _read_cache(path) | known
    if not merged:
        return
    keys = np.frombuffer(b"".join(merged), np.uint8).reshape(-1, 16)
    try:
        write_npz(path, {"keys": keys, "records": np.stack(list(merged.values()))})
    except OutputError as error:
        warnings.warn(
            f"hashes of pictures cannot be kept: {error}", NoiseAuditWarning, stacklevel=2
        )
