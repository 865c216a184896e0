"""The first stage of a command: what detectors look at, pictures or their embeddings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.encoders.choice import EncoderLike, choose_encoder
from noiseaudit.encoders.embedding import Embeddings, embed, encoded
from noiseaudit.encoders.encoder import Encoder
from noiseaudit.errors import UsageError

__all__ = ["EncodedSource", "encode_source", "encoder_beside"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EncodedSource:
    """A data set as it was loaded, and as detectors look at it.

    Attributes:
        source: as it was loaded.
        dataset: the same examples as vectors if there are embeddings, else `source` itself.
        embeddings: of the pictures; None if they are looked at as they are.
        encoder: that made them, or None.
        reason: why, in a sentence.
    """

    source: LabeledDataset
    dataset: LabeledDataset
    embeddings: Embeddings | None
    encoder: Encoder | None
    reason: str

    @property
    def vectors(self) -> NDArray[np.float32] | None:
        """(n, d) embeddings, or None."""
        return None if self.embeddings is None else self.embeddings.vectors

    @property
    def key(self) -> str | None:
        """Digest that tells the encoder from another, or None."""
        return None if self.embeddings is None else self.embeddings.key or self.embeddings.content

    def told(self) -> dict[str, Any]:
        """For a manifest."""
        told: dict[str, Any] = {"name": None, "reason": self.reason}
        if self.embeddings is not None:
            found = self.embeddings
            told |= {
                "name": found.encoder, "dimension": found.vectors.shape[1],
                "seconds": found.seconds, "computed": found.computed, "reused": found.reused,
            }  # fmt: skip
        return told


def encoder_beside(encoder: EncoderLike, model: object, augmentation: object) -> EncoderLike:
    """The encoder asked for; "auto" is "none" where training on pictures is what is asked for.

    Args:
        encoder: as for `choose_encoder`.
        model: to be trained, "auto" if nobody asked for one.
        augmentation: of pictures, likewise.

    Raises:
        UsageError: if both are asked for.
    """
    is_asked_for = model not in ("auto", "head") or augmentation != "auto"
    if encoder == "auto":
        return "none" if is_asked_for else encoder
    needs_pictures = isinstance(model, str) and model not in ("auto", "head", "mlp")
    if encoder != "none" and (needs_pictures or augmentation not in ("auto", "none")):
        asked = f"model {model!r}" if needs_pictures else f"augmentation {augmentation!r}"
        raise UsageError(
            f"{asked} is for pictures, and an encoder turns them into vectors; leave one of the "
            "two out"
        )
    return encoder


def encode_source(
    dataset: LabeledDataset,
    encoder: EncoderLike = "auto",
    *,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = False,
) -> EncodedSource:
    """Encode a data set if asked for, or, with "auto", if that suits; say so.

    Args:
        dataset: of pictures or vectors.
        encoder: as for `choose_encoder`.
        device: "auto", "cpu" or "cuda".
        threads: that encode on a CPU.
        progress: whether to show a bar on stderr when it is a terminal.

    Raises:
        DataError, OutputError, UsageError: see `choose_encoder` and `embed`.
    """
    chosen, reason = choose_encoder(encoder, dataset, device)
    if chosen is None:
        if encoder == "auto" and "pip install" in reason:
            logger.info(reason)
        return EncodedSource(dataset, dataset, None, None, reason)
    way_out = "; --encoder none trains on the pictures instead" if encoder == "auto" else ""
    logger.info("%s%s", reason, way_out)
    found = embed(dataset, chosen, device=device, threads=threads, progress=progress)
    return EncodedSource(dataset, encoded(dataset, found), found, chosen, reason)
