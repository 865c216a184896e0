"""Which encoder a name means, and whether to use one at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from noiseaudit.dataset import LabeledDataset
from noiseaudit.encoders import efficientnet_lite
from noiseaudit.encoders.encoder import Encoder, from_callable
from noiseaudit.encoders.pictures import median_shorter_side
from noiseaudit.errors import UsageError, check_name
from noiseaudit.images import check_image_size

__all__ = ["EncoderLike", "choose_encoder", "create_encoder", "list_encoders"]

EncoderLike = str | Encoder | Callable[[list[Image.Image]], Any]
"""What stands for an encoder: its name, itself, or a function from RGB pictures to vectors."""

_SIDES = (32, 1024)  # pixels that an encoder may be given
_SMALL = 64  # pixels of the shorter side up to which training from scratch is better


def list_encoders() -> list[str]:
    """The names that need no prefix: the offline encoder, then torchvision's networks."""
    from noiseaudit.encoders.torchvision_models import names

    return [efficientnet_lite.NAME, *names()]


def create_encoder(
    encoder: EncoderLike,
    *,
    image_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Encoder:
    """The encoder that a name or a function means.

    Args:
        encoder: "efficientnet_lite0" (extra `encoders`, works offline); a network of torchvision,
            such as "resnet50" or "torchvision:resnet50"; "timm:NAME" where timm is installed; or a
            function from a list of RGB pictures to (b, d) vectors, with an attribute `key` if they
            shall be kept.
        image_size: side in pixels, 32..1024, of what the network is given; None: its own.
        weights: a file of weights in place of the published ones.
        download: whether published weights that are not on this machine may be downloaded.

    Raises:
        UnknownNameError: for a name that does not exist, with the nearest that does.
        UsageError: if it is not installed, its weights are not there, or an option cannot be.
        DataError: if its weights cannot be read.
    """
    check_image_size(image_size, sides=_SIDES, what="an encoder's image_size")
    if isinstance(encoder, Encoder) or callable(encoder):
        if image_size is not None or weights is not None:
            raise UsageError("image_size and weights are for encoders given by name")
        return encoder if isinstance(encoder, Encoder) else from_callable(encoder)
    path = None if weights is None else Path(weights)
    library, _, name = encoder.rpartition(":")
    if library:
        check_name(library, ("torchvision", "timm"), "library of encoders")
    if library == "timm":
        from noiseaudit.encoders.timm_models import timm_encoder

        return timm_encoder(name, image_size, path, download=download)
    if encoder == efficientnet_lite.NAME:
        return efficientnet_lite.efficientnet_lite0(image_size, path)
    from noiseaudit.encoders.torchvision_models import torchvision_encoder

    if not library:
        check_name(name, list_encoders(), "encoder")
    return torchvision_encoder(name, image_size, path, download=download)


def choose_encoder(
    encoder: EncoderLike, dataset: LabeledDataset, device: str = "auto"
) -> tuple[Encoder | None, str]:
    """The encoder to use for a data set, or None to train on its pictures, and why.

    "auto" takes `efficientnet_lite0` where it is installed, the pictures are photographs (median
    shorter side above 64 pixels before any reduction) and there is no CUDA device to train on.

    Args:
        encoder: "auto", "none", or as for `create_encoder`.
        dataset: to be encoded.
        device: "auto", "cpu" or "cuda".

    Returns:
        The encoder or None, and a sentence that gives the reason.

    Raises:
        UsageError: if an encoder is named for a data set of vectors; and as `create_encoder`.
    """
    from noiseaudit.device import select_device

    if encoder == "none":
        return None, "no encoder, as asked for"
    if dataset.kind == "vectors":
        if encoder == "auto":
            return None, "no encoder: the inputs are vectors already"
        raise UsageError(f"{dataset.name} holds vectors already: use --encoder none")
    if encoder != "auto":
        chosen = create_encoder(encoder)
        return chosen, f"encoder {chosen.name}, as asked for"
    side = median_shorter_side(dataset)
    if side <= _SMALL:
        return None, f"no encoder: the pictures are small (median shorter side {side:.0f} px)"
    photographs = f"photographs (median shorter side {side:.0f} px)"
    if select_device(device).type == "cuda":
        return None, f"no encoder: {photographs}, but there is a GPU to train on"
    name = efficientnet_lite.NAME
    if not efficientnet_lite.is_installed():
        return None, (
            f"no encoder: {photographs} would be judged better and faster with {name}: "
            "pip install 'noiseaudit[encoders]'"
        )
    return create_encoder(name), f"encoder {name}: {photographs} and no GPU"
