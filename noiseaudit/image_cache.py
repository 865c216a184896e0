"""Picture files decoded once, in parallel, into a memory-mapped array on disk.

Two levels. An *index* per folder remembers digest, size and greyness of each file by its path,
size and times, so that unchanged files are not read again. The *pixels* lie under a key made of
the files' digests in order, the working size, the mode and the decoder's version: the same
pictures in another place, or under other names, are found after one hashing pass.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from noiseaudit import images
from noiseaudit._io import NPZ_ERRORS, make_folder, read_json, write_json, write_npz
from noiseaudit.errors import DataError, OutputError
from noiseaudit.images import UNREADABLE, Header, unreadable_reason
from noiseaudit.user_cache import cache_folder

__all__ = ["Pictures", "in_parallel", "load_pictures", "picture_headers"]

logger = logging.getLogger(__name__)

_DECODER_VERSION = 1  # raise it whenever the same file would give other pixels
_BLOCK = 4096  # pictures in the pool's queue at a time
_STALE_SECONDS = 24 * 3600

_Stat = tuple[int, int, int]  # size, mtime_ns, ctime_ns
_Index = dict[str, tuple[_Stat, Header]]


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures.

    Attributes:
        pixels: (m, h, w) or (m, h, w, 3) uint8, memory-mapped, read-only.
        kept: (m,) positions in the list of files asked for, in order.
        reasons: for each position that could not be read, why.
        key: digest of what was decoded, how.
        headers: of the kept files, in order.
    """

    pixels: NDArray[np.uint8]
    kept: NDArray[np.int64]
    reasons: dict[int, str]
    key: str
    headers: tuple[Header, ...]


def load_pictures(
    root: Path,
    files: Sequence[str],
    *,
    cap: Callable[[], int],
    image_size: int | None = None,
    progress: bool = False,
) -> Pictures:
    """The pixels of `files` (paths relative to `root`, or absolute), from the cache where possible.

    Args:
        root: the folder that the index belongs to.
        files: at least one path.
        cap: gives the largest working size chosen automatically; asked only when needed.
        image_size: a working size that overrides the automatic one.
        progress: whether to show bars on a terminal.

    Raises:
        DataError: if none of the files can be read, or one changes while it is read.
        OutputError: if the disk is full.
    """
    folder = cache_folder()
    headers, stats, reasons = _survey(root, files, folder, progress)
    readable = [i for i in range(len(files)) if i not in reasons]
    if not readable:
        raise DataError(_none_readable(files, reasons))
    sizes = np.array([(headers[i].width, headers[i].height) for i in readable], dtype=np.int64)
    limit = cap() if image_size is None else 0
    size = images.working_size(sizes, cap=limit, image_size=image_size)
    grey = all(headers[i].is_grey for i in readable)
    key = _key([headers[i].digest for i in readable], size, grey)
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)

    store = make_folder(folder / "pixels")
    failed = _read_failures(store, key)
    pixels = _open_pixels(store, key, (len(readable) - len(failed), *shape))
    if pixels is None:
        jobs = [(root / files[i], stats[i]) for i in readable]
        failed = _decode(jobs, store, key, shape, size, progress)
        pixels = _open_pixels(store, key, (len(readable) - len(failed), *shape))
    else:
        logger.info("%d pictures found in the cache", len(pixels))
    reasons |= {readable[row]: reason for row, reason in failed.items()}
    if pixels is None or not len(pixels):
        raise DataError(_none_readable(files, reasons))
    kept = np.array([i for i in readable if i not in reasons], dtype=np.int64)
    return Pictures(pixels, kept, reasons, key, tuple(headers[i] for i in kept.tolist()))


def picture_headers(
    root: Path, files: Sequence[str], *, progress: bool = False
) -> tuple[dict[int, Header], dict[int, str]]:
    """Header of each file by its position, and the reasons of those that cannot be read."""
    headers, _, reasons = _survey(root, files, cache_folder(), progress)
    return headers, reasons


def _none_readable(files: Sequence[str], reasons: dict[int, str]) -> str:
    first = min(reasons)
    return (
        f"none of the {len(files)} pictures can be read; first {files[first]!r}: {reasons[first]}"
    )


def in_parallel(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    what: str,
    progress: bool,
    unit: str = "picture",
) -> list[Any]:
    """`function` of each job, in order, on as many threads as cores (Pillow releases the GIL)."""
    from tqdm.auto import tqdm

    results: list[Any] = []
    if not jobs:
        return results
    bar = tqdm(total=len(jobs), desc=what, unit=unit, disable=None if progress else True)
    images.picture_extensions()  # loads Pillow's plugins before the threads need them
    with images.pillow_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool, bar:
        for start in range(0, len(jobs), _BLOCK):
            for result in pool.map(function, jobs[start : start + _BLOCK]):
                results.append(result)
                bar.update()
    return results


def _survey(
    root: Path, files: Sequence[str], folder: Path, progress: bool
) -> tuple[dict[int, Header], dict[int, _Stat], dict[int, str]]:
    """Header and stat of each file, by position, and the reasons of those without."""
    name = hashlib.blake2b(os.fsencode(root.resolve()), digest_size=16).hexdigest()
    index_file = make_folder(folder / "index") / f"{name}-v{_DECODER_VERSION}.npz"
    index = _read_index(index_file)
    headers: dict[int, Header] = {}
    stats: dict[int, _Stat] = {}
    reasons: dict[int, str] = {}
    for i, file in enumerate(files):
        try:
            stats[i] = _stat(root / file)
        except (OSError, ValueError) as error:  # ValueError: a NUL in a path from a table
            reasons[i] = unreadable_reason(error)
            continue
        if stats[i][0] == 0:
            reasons[i] = "file is empty"
        known = index.get(file)
        if known is not None and known[0] == stats[i]:
            headers[i] = known[1]
    todo = [i for i in stats if i not in headers and i not in reasons]
    found = in_parallel(
        _header_or_reason, [root / files[i] for i in todo], "reading pictures", progress
    )
    for i, result in zip(todo, found, strict=True):
        if isinstance(result, Header):
            headers[i] = result
            index[files[i]] = (stats[i], result)
        else:
            reasons[i] = result
    if todo:
        _write_index(index_file, index)
    return headers, stats, reasons


def _stat(path: Path) -> _Stat:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, "not a file")
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _header_or_reason(path: Path) -> Header | str:
    try:
        return images.read_header(path)
    except UNREADABLE as error:
        return unreadable_reason(error)


def _read_index(path: Path) -> _Index:
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = bytes(stored["names"]).split(b"\0")
            stats, sizes, digests = stored["stats"], stored["sizes"], stored["digests"]
    except NPZ_ERRORS:
        return {}  # absent or damaged: the files are read again
    return {
        os.fsdecode(name): (
            (int(s[0]), int(s[1]), int(s[2])),
            Header(digest.tobytes(), int(z[0]), int(z[1]), bool(z[2])),
        )
        for name, s, z, digest in zip(names, stats, sizes, digests, strict=False)
    }


def _write_index(path: Path, index: _Index) -> None:
    if not index:
        return
    headers = [header for _, header in index.values()]
    names = b"\0".join(os.fsencode(name) for name in index)
    write_npz(
        path,
        {
            "names": np.frombuffer(names, dtype=np.uint8),
            "stats": np.array([status for status, _ in index.values()], dtype=np.int64),
            "sizes": np.array([(h.width, h.height, h.is_grey) for h in headers], dtype=np.int64),
            "digests": np.frombuffer(b"".join(h.digest for h in headers), np.uint8).reshape(-1, 16),
        },
    )


def _key(digests: Iterable[bytes], size: tuple[int, int], grey: bool) -> str:
    how = f"{_DECODER_VERSION}|{PIL.__version__}|{size[0]}x{size[1]}|{'L' if grey else 'RGB'}|"
    return hashlib.blake2b(how.encode() + b"".join(digests), digest_size=16).hexdigest()


def _read_failures(store: Path, key: str) -> dict[int, str]:
    try:
        return {int(row): str(reason) for row, reason in read_json(store / f"{key}.json").items()}
    except (OutputError, AttributeError, ValueError):
        return {}


def _open_pixels(store: Path, key: str, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    path = store / f"{key}.npy"
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _decode(
    jobs: Sequence[tuple[Path, _Stat]],
    store: Path,
    key: str,
    shape: tuple[int, ...],
    size: tuple[int, int],
    progress: bool,
) -> dict[int, str]:
    """Decode all jobs into `store`; the reasons of the rows that failed, which are left out."""
    _remove_stale(store)
    part = store / f"{key}.{os.getpid()}.part"
    compact = store / f"{key}.{os.getpid()}.compact.part"
    try:
        pixels = _allocate(part, (len(jobs), *shape))

        def decode(row: int) -> str:
            path, expected = jobs[row]
            try:
                pixels[row] = images.decode_picture(path, size, grey=len(shape) == 2)
                unchanged = _stat(path) == expected
            except UNREADABLE as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the system's trouble, not the picture's: nothing to remember
                return unreadable_reason(error)
            if not unchanged:
                raise DataError(f"{path} changed while it was being read: run again")
            return ""

        told = in_parallel(decode, range(len(jobs)), "decoding pictures", progress)
        failed = {row: reason for row, reason in enumerate(told) if reason}
        if len(failed) == len(jobs):
            return failed
        if failed:
            good = np.setdiff1d(np.arange(len(jobs)), list(failed))
            smaller = _allocate(compact, (len(good), *shape))
            for start in range(0, len(good), _BLOCK):
                rows = good[start : start + _BLOCK]
                smaller[start : start + len(rows)] = pixels[rows]
            pixels = smaller
        pixels.flush()
        write_json(store / f"{key}.json", failed)  # before the pixels: they mean "finished"
        (compact if failed else part).replace(store / f"{key}.npy")
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} vanished while it was being read: run again") from error
    finally:
        part.unlink(missing_ok=True)
        compact.unlink(missing_ok=True)
    logger.info("%d pictures decoded, %d skipped", len(jobs) - len(failed), len(failed))
    return failed


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new .npy with its space reserved: a full disk under a sparse map would kill the process."""
    try:
        pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        needed = int(np.prod(shape)) / 2**30
        raise OutputError(
            f"{path.parent} has no room for {needed:.1f} GiB of decoded pictures "
            f"({error.strerror}): free some space, or set NOISEAUDIT_CACHE to another folder"
        ) from error
    return pixels


def _remove_stale(store: Path) -> None:
    """Delete what processes killed more than a day ago have left."""
    for path in store.glob("*.part"):
        try:
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
        except OSError:
            continue  # another process was first
