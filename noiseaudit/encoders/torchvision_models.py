"""torchvision's classification networks as encoders: what their last linear layer is given."""

from __future__ import annotations

from functools import cache
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
from noiseaudit.errors import DataError, UsageError, check_name

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["load_features", "names", "torchvision_encoder", "try_size"]

_OWN_SCALE = ("googlenet", "inception_v3")  # their weights expect the scale of another library


@cache
def names() -> tuple[str, ...]:
    """The networks that there are."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def torchvision_encoder(
    name: str, image_size: int | None = None, weights: Path | None = None, *, download: bool = False
) -> Encoder:
    """The encoder of a network of torchvision, with the preprocessing of its default weights.

    Args:
        name: as torchvision calls it.
        image_size: another side than that of the weights.
        weights: a state-dict file; its classifier may have any number of classes. None: the default
            weights, from torch's cache.
        download: whether torchvision may download them there.

    Raises:
        UnknownNameError: if there is no such network.
        UsageError: if it has no linear layer, or its weights are not there.
        DataError: if they cannot be downloaded or read.
    """
    from torchvision import models

    check_name(name, names(), "torchvision model")
    default = models.get_model_weights(name).DEFAULT
    path = weights or _default_weights(name, default, download=download)
    model, layer, dimension = _build(name)
    usual = default.transforms()
    side = usual.crop_size[0] if image_size is None else image_size
    resize = round(usual.resize_size[0] * side / usual.crop_size[0])
    transform = default.transforms(crop_size=side, resize_size=resize)
    key = encoder_key("torchvision", name, file_digest(path), layer, repr(transform))

    def prepare(picture: Image.Image) -> NDArray[np.float32]:
        pixels: NDArray[np.float32] = transform(picture).numpy()
        return pixels

    def open_(device: torch.device, batch_size: int) -> Run:
        load_features(model, read_weights(path, name), (f"{layer}.",), path, name)
        if image_size is not None:
            try_size(model, side, name)
        return network_run(model, device, batch_size)

    return Encoder(f"torchvision:{name}", dimension, side, key, prepare, open_, resize)


def _build(name: str) -> tuple[nn.Module, str, int]:
    """The network without its last linear layer, the name of that, and the size of its input."""
    from torch import nn
    from torchvision import models

    options: dict[str, Any] = {"transform_input": True} if name in _OWN_SCALE else {}
    if name in _OWN_SCALE:
        options["init_weights"] = False  # they are read from a file
    model: nn.Module = models.get_model(name, weights=None, **options)
    linear = [(path, item) for path, item in model.named_modules() if isinstance(item, nn.Linear)]
    if not linear:
        raise UsageError(f"torchvision:{name} has no linear layer whose input could be taken")
    path, last = linear[-1]
    model.set_submodule(path, nn.Identity())
    return model, path, last.in_features


def _default_weights(name: str, default: Any, *, download: bool) -> Path:
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(default.url).name
    if path.is_file():
        return path
    if not download:
        raise UsageError(
            f"the weights of torchvision:{name} are not on this machine: allow the download "
            "(--download, download=True), or give their file (weights=PATH)"
        )
    try:
        default.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"the weights of torchvision:{name} could not be downloaded from {default.url}: {error}"
        ) from error
    return path


def load_features(
    model: nn.Module, state: dict[str, torch.Tensor], heads: tuple[str, ...], path: Path, name: str
) -> None:
    """Load a state dict into a network without its classifier, whose names begin with `heads`.

    The names are deleted from `state`: a copy would lose the versions that it carries.

    Raises:
        DataError: if the file is of another network.
    """
    for key in [key for key in state if key.startswith(heads)]:
        del state[key]
    try:
        model.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} holds no weights of {name}: {one_line(error)}") from error


def try_size(model: Any, side: int, name: str) -> None:
    """Bring a loaded network to another input size, where it must be told, and run it once.

    Raises:
        UsageError: if it does not run at that size.
    """
    import torch

    try:
        if hasattr(model, "set_input_size"):  # timm's transformers
            model.set_input_size(img_size=(side, side))
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, side, side))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"{name} cannot be used at {side} x {side} pixels: {one_line(error)}"
        ) from error
