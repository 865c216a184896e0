"""Which device to compute on, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from noiseaudit.errors import UsageError, check_name

__all__ = ["cpu_threads", "full_float32", "select_device"]


def select_device(name: str = "auto") -> torch.device:
    """The torch device for `name`: "auto" (CUDA where there is one), "cpu" or "cuda".

    Raises:
        UsageError: for another name, or for "cuda" on a machine without it.
    """
    check_name(name, ("auto", "cpu", "cuda"), "device")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available here; use --device cpu or auto")
    return torch.device(name)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[int]:
    """Run a block with torch's CPU thread count at `count` (None: as it is), then put it back.

    The count is part of every manifest: sums over a different number of threads differ in the
    last bits.
    """
    before = torch.get_num_threads()
    if count is not None:
        if count < 1:
            raise UsageError(f"threads must be at least 1; got {count}")
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Run a block without TF32, whose 10 bits of mantissa are too few for small differences."""
    if device.type != "cuda":
        yield
        return
    flags = torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled,
        benchmark=torch.backends.cudnn.benchmark,
        deterministic=torch.backends.cudnn.deterministic,
        allow_tf32=False,
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with flags:
            yield
    finally:
        torch.set_float32_matmul_precision(before)
