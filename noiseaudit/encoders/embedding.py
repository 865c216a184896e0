"""Pictures -> embeddings, computed where they are missing, kept, and put in a data set's place."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit import images
from noiseaudit.dataset import LabeledDataset, digest_array
from noiseaudit.encoders.choice import EncoderLike, create_encoder
from noiseaudit.encoders.encoder import Encoder, check_vectors
from noiseaudit.encoders.pictures import Pictures, find_pictures
from noiseaudit.encoders.store import EmbeddingStore
from noiseaudit.errors import DataError, UsageError
from noiseaudit.user_cache import cache_folder

if TYPE_CHECKING:
    import torch

__all__ = ["Embeddings", "embed", "encoded"]

logger = logging.getLogger(__name__)

_BATCHES = {"cpu": 8, "cuda": 128}


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The vectors of a data set's pictures.

    Attributes:
        ids: (n,) int64 sample ids of the data set.
        vectors: (n, d) float32, finite, read-only; memory-mapped where they lie in order on disk.
        encoder: its name.
        key: digest of weights, preprocessing and size; None if the vectors are not kept.
        content: digest of `key` and the pictures, or of the vectors where there is no key.
        seconds: that it took.
        computed: pictures that were encoded.
        reused: the rest: those stored before, and copies.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    encoder: str
    key: str | None
    content: str
    seconds: float
    computed: int
    reused: int


def embed(
    dataset: LabeledDataset,
    encoder: EncoderLike = "efficientnet_lite0",
    *,
    device: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Embeddings:
    """The embeddings of all pictures of a data set; only those that are not stored are computed.

    Files are decoded again in full size, and so are items of a map-style data set; other pictures
    are taken from `dataset.inputs`. Every batch is stored as soon as it is done, below the folder
    that NOISEAUDIT_CACHE names (else the user's cache folder), 4 d bytes a picture.

    Args:
        dataset: of pictures.
        encoder: a name (see `create_encoder`), an Encoder, or a function from a list of RGB
            pictures to (b, d) vectors, which are kept if it has an attribute `key`.
        device: "auto", "cpu" or "cuda".
        threads: that decode and compute on a CPU; None: as many as torch uses.
        batch_size: pictures at a time. None: 8 on a CPU, where more are no faster, 128 on CUDA.
        progress: whether to show a bar on stderr when it is a terminal.

    Raises:
        DataError: if the data set holds vectors, a picture has changed or cannot be read, or the
            encoder gives something else than vectors.
        UsageError: if the encoder is not installed, or an option cannot be.
        OutputError: if the disk is full.
    """
    from noiseaudit.device import cpu_threads, select_device

    if dataset.kind != "images":
        raise DataError(f"{dataset.name} holds vectors already; only pictures can be encoded")
    if not len(dataset):
        raise DataError(f"{dataset.name} has no examples")
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
        raise UsageError(f"batch_size must be at least 1; got {batch_size}")
    started = time.perf_counter()
    place = select_device(device)
    chosen = create_encoder(encoder)
    size = batch_size or _BATCHES[place.type]
    pictures = find_pictures(dataset, progress=progress)
    first = {digest: row for row, digest in reversed(list(enumerate(pictures.digests)))}
    store: EmbeddingStore | _Memory = _Memory()
    if chosen.key is not None:
        store = EmbeddingStore(cache_folder() / "embeddings" / chosen.key, chosen.name)
    missing = store.missing(pictures.digests)
    if missing:
        with cpu_threads(threads) as count:
            workers = count if place.type == "cpu" else os.cpu_count() or 1
            inner = 1 if chosen.is_thread_safe else count
            with cpu_threads(inner):
                encode = _batch_encoder(pictures, chosen, place, size)
                rows = [first[digest] for digest in missing]
                _compute(rows, pictures, encode, workers, size, store.append, progress)
    vectors = store.gather(pictures.digests)
    seconds = time.perf_counter() - started
    reused = len(dataset) - len(missing)
    logger.info("%d pictures encoded, %d reused, %.1f s", len(missing), reused, seconds)
    content = digest_array(vectors)
    if chosen.key is not None:
        whole = chosen.key.encode() + b"".join(pictures.digests)
        content = hashlib.blake2b(whole, digest_size=16).hexdigest()
    return Embeddings(
        dataset.ids, vectors, chosen.name, chosen.key, content, seconds, len(missing), reused
    )


def encoded(dataset: LabeledDataset, embeddings: Embeddings) -> LabeledDataset:
    """The data set with its embeddings in place of its pictures: of kind "vectors".

    Labels, ids, class names, sources, split and all else stay.

    Raises:
        DataError: if they are of other examples, or in another order.
    """
    if not np.array_equal(dataset.ids, embeddings.ids):
        raise DataError(
            f"these embeddings are not of the examples of {dataset.name} in their order"
        )
    return replace(
        dataset,
        inputs=embeddings.vectors,
        content=embeddings.content,
        encoder=embeddings.encoder,
        feature_names=None,
    )


class _Memory:
    """What stands for the store where an encoder has no key: nothing is kept."""

    def __init__(self) -> None:
        self._vectors: dict[bytes, NDArray[np.float32]] = {}

    def missing(self, digests: Sequence[bytes]) -> list[bytes]:
        return list(dict.fromkeys(digests))

    def append(self, digests: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        self._vectors |= zip(digests, vectors, strict=True)

    def gather(self, digests: Sequence[bytes]) -> NDArray[np.float32]:
        try:
            vectors = np.stack([self._vectors[digest] for digest in digests])
        except ValueError as error:
            raise DataError("the encoder gives vectors of different dimensions") from error
        vectors.flags.writeable = False
        return vectors


def _compute(
    rows: Sequence[int],
    pictures: Pictures,
    encode: Callable[[Sequence[int]], NDArray[np.float32]],
    workers: int,
    batch_size: int,
    keep: Callable[[Sequence[bytes], NDArray[np.float32]], None],
    progress: bool,
) -> None:
    """Encode the pictures at `rows`, a batch in each of `workers` threads, and keep them in order.

    On a CPU a thread decodes and computes its own batch: none waits for another inside a layer, and
    vectors do not depend on the number of threads.
    """
    from tqdm.auto import tqdm

    def finish(part: Sequence[int], vectors: Future[NDArray[np.float32]]) -> None:
        keep([pictures.digests[row] for row in part], vectors.result())
        bar.update(len(part))

    images.picture_extensions()  # loads Pillow's plugins before the threads need them
    hidden = None if progress else True
    bar = tqdm(total=len(rows), desc="encoding pictures", unit="picture", disable=hidden)
    pool = ThreadPoolExecutor(workers)
    ahead: deque[tuple[Sequence[int], Future[NDArray[np.float32]]]] = deque()
    with images.pillow_warnings(), bar:
        try:
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                ahead.append((part, pool.submit(encode, part)))
                if len(ahead) > workers + 1:
                    finish(*ahead.popleft())
            while ahead:
                finish(*ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _batch_encoder(
    pictures: Pictures, encoder: Encoder, device: torch.device, batch_size: int
) -> Callable[[Sequence[int]], NDArray[np.float32]]:
    """From rows to their vectors; several threads at once compute only on a CPU."""
    run = encoder.open(device, batch_size)
    is_shared = encoder.is_thread_safe and device.type == "cpu"
    turn: AbstractContextManager[Any] = nullcontext() if is_shared else threading.Lock()

    def encode(part: Sequence[int]) -> NDArray[np.float32]:
        side = encoder.decode_side
        prepared = [encoder.prepare(pictures.read(row, side)) for row in part]
        with turn:
            return check_vectors(run(prepared), len(part), encoder.name)

    return encode
