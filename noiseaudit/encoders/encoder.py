"""What an encoder is, and how a network runs as one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noiseaudit._io import digest_stream
from noiseaudit._validation import check_finite
from noiseaudit.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "Encoder",
    "Run",
    "check_vectors",
    "encoder_key",
    "file_digest",
    "from_callable",
    "network_run",
    "one_line",
    "read_weights",
]

_VERSION = 1  # raise it whenever the same encoder would give other vectors

Run = Callable[[list[Any]], Any]
"""From a list of prepared pictures to their (b, d) vectors."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen encoder; its network is built only when there is something to compute.

    Attributes:
        name: what to call it.
        dimension: d of its vectors; None of a callable, which shows it when called.
        image_size: side in pixels of what the network is given; None of a callable.
        key: digest of weights, preprocessing, size and format version; None if embeddings
            cannot be kept.
        prepare: from an RGB picture to what `open` takes; called in threads.
        open: from a device and the largest batch to the function that encodes a batch.
        decode_side: shorter side that `prepare` needs; a JPEG may be decoded at no less than twice
            that. None: in full.
        is_thread_safe: whether what `open` gives may be called in several threads at once.
    """

    name: str
    dimension: int | None
    image_size: int | None
    key: str | None
    prepare: Callable[[Image.Image], Any]
    open: Callable[[torch.device, int], Run]
    decode_side: int | None = None
    is_thread_safe: bool = True


def encoder_key(*parts: object) -> str:
    """Hex digest of what an encoder's vectors depend on, with the version of this format."""
    text = "\x1f".join(str(part) for part in (_VERSION, *parts))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Hex digest of a file of weights.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return digest_stream(file).hex()
    except OSError as error:
        raise DataError(f"the weights {path} cannot be read: {error.strerror}") from error


def from_callable(function: Callable[[list[Image.Image]], Any]) -> Encoder:
    """An encoder of a function from a list of RGB pictures, in full size, to (b, d) vectors.

    Its attribute `key`, a text, says what its vectors depend on, so that they can be kept; without
    one they are computed at each call.

    Raises:
        UsageError: if `key` is no text, or an empty one.
    """
    name = str(getattr(function, "__name__", type(function).__name__))
    own = getattr(function, "key", None)
    if own is not None and not (isinstance(own, str) and own):
        raise UsageError(f"the key of encoder {name} must be a text that is not empty; got {own!r}")
    key = None if own is None else encoder_key("callable", own)
    return Encoder(
        name,
        None,
        None,
        key,
        lambda picture: picture,
        lambda *_: function,
        is_thread_safe=False,
    )


def check_vectors(values: Any, count: int, name: str) -> NDArray[np.float32]:
    """What an encoder gave for `count` pictures, as (count, d) float32.

    Raises:
        DataError: if it has another shape, or holds NaN or infinity.
    """
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    array = np.asarray(values)
    if (
        array.ndim != 2
        or len(array) != count
        or not array.shape[1]
        or array.dtype.kind not in "iuf"
    ):
        raise DataError(
            f"encoder {name} must give numbers of shape ({count}, d) for {count} pictures; got "
            f"{array.dtype} of shape {array.shape}"
        )
    vectors = np.ascontiguousarray(array, dtype=np.float32)
    check_finite(vectors, f"vectors of encoder {name}", "check its weights and its preprocessing")
    return vectors


def one_line(error: BaseException) -> str:
    """The beginning of what an error of another library says, in one line."""
    return " ".join(str(error).split())[:200]


def read_weights(path: Path, name: str) -> dict[str, torch.Tensor]:
    """A state dict from a file of PyTorch, or of safetensors.

    Raises:
        DataError: if the file cannot be read or holds something else.
    """
    import pickle

    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise DataError(f"the weights {path} cannot be read: {one_line(error)}") from error
    except Exception as error:  # safetensors' own errors derive from Exception alone
        if type(error).__module__.partition(".")[0] not in ("safetensors", "safetensors_rust"):
            raise
        raise DataError(f"the weights {path} cannot be read: {error}") from error
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path} holds no state dict of tensors, which {name} needs")
    weights: dict[str, torch.Tensor] = state
    return weights


def network_run(model: nn.Module, device: torch.device, batch_size: int) -> Run:
    """Runs a network in eval mode, without gradients, in float32.

    Every batch is filled up to `batch_size`, so that the vector of a picture does not depend on
    how many others are computed with it. Uint8 (h, w, 3) pictures become (3, h, w) tensors; float32
    ones are (3, h, w) already.
    """
    import torch

    from noiseaudit.device import full_float32

    layout = torch.channels_last  # 1.4 to 1.6 times as fast on a CPU as the default
    network = model.eval().to(device).to(memory_format=layout)

    def run(pictures: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        batch = np.zeros((batch_size, *pictures[0].shape), pictures[0].dtype)
        batch[: len(pictures)] = pictures
        with torch.inference_mode(), full_float32(device):
            inputs = torch.from_numpy(batch).to(device)
            if inputs.dtype == torch.uint8:
                inputs = inputs.permute(0, 3, 1, 2).float()
            outputs = network(inputs.contiguous(memory_format=layout))
            vectors: NDArray[np.float32] = outputs[: len(pictures)].float().cpu().numpy()
        return vectors

    return run
