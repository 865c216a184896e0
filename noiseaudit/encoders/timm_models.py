"""timm's networks as encoders, where timm is installed: their pooled features."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noiseaudit.encoders.encoder import (
    Encoder,
    Run,
    encoder_key,
    network_run,
    one_line,
    read_weights,
)
from noiseaudit.encoders.torchvision_models import load_features, try_size
from noiseaudit.errors import DataError, UsageError, check_name

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["timm_encoder"]


def timm_encoder(
    name: str, image_size: int | None = None, weights: Path | None = None, *, download: bool = False
) -> Encoder:
    """The encoder of a network of timm, with the preprocessing that timm configures for it.

    Args:
        name: as timm calls it.
        image_size: another side than the configured one.
        weights: a state-dict file (PyTorch or safetensors), with or without a classifier. None: the
            pretrained weights, which timm downloads.
        download: whether it may.

    Raises:
        UnknownNameError: if there is no such network.
        UsageError: if timm is not installed, or weights are missing.
        DataError: if they cannot be downloaded or read.
    """
    try:
        import timm
    except ImportError as error:
        raise UsageError(f"timm:{name} needs timm, which is not installed: pip install timm") from (
            error
        )
    check_name(name.split(".")[0], timm.list_models(), "timm model")
    if weights is None and not download:
        raise UsageError(
            f"the weights of timm:{name} are not here: allow the download (--download, "
            "download=True), or give their file (weights=PATH)"
        )
    model = _build(name, pretrained=weights is None)
    config = timm.data.resolve_model_data_config(model)
    if weights is not None:
        heads = model.default_cfg.get("classifier") or ()
        names = (heads,) if isinstance(heads, str) else tuple(heads)
        parts = tuple(f"{head}." for head in names)
        load_features(model, read_weights(weights, name), parts, weights, name)
    if image_size is not None:
        try_size(model, image_size, name)
    side = int(config["input_size"][-1]) if image_size is None else image_size
    config["input_size"] = (3, side, side)
    transform = timm.data.create_transform(**config, is_training=False)
    key = encoder_key("timm", name, _digest(model), sorted(config.items()))

    def prepare(picture: Image.Image) -> NDArray[np.float32]:
        pixels: NDArray[np.float32] = transform(picture).numpy()
        return pixels

    def open_(device: torch.device, batch_size: int) -> Run:
        return network_run(model, device, batch_size)

    decode_side = round(side / float(config.get("crop_pct") or 1))
    dimension = int(getattr(model, "head_hidden_size", None) or model.num_features)
    return Encoder(f"timm:{name}", dimension, side, key, prepare, open_, decode_side)


def _build(name: str, *, pretrained: bool) -> Any:
    """The network without its classifier."""
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        what = "be downloaded" if pretrained else "be built"
        raise DataError(f"timm:{name} could not {what}: {one_line(error)}") from error


def _digest(model: nn.Module) -> str:
    """Hex digest of the weights, in order of their names."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
