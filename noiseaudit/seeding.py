"""Named random streams from one seed; nothing here touches a global generator for good."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["derive_seed", "generator", "isolated_torch_rng", "torch_generator"]


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names`: the same on every platform and version."""
    words = "\x1f".join([str(int(seed)), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the stream called `names`, e.g. `generator(seed, "data-order", 3)`."""
    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(
    seed: int, *names: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator on `device` for the stream called `names`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


@contextmanager
def isolated_torch_rng(seed: int, *names: str | int) -> Iterator[None]:
    """Run a block with torch's global generators at the stream's seed, then put them back.

    Layers that draw from the global generator (weight initialisation, dropout) have no other
    handle. The caller's global state is the same after the block as before it.
    """
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(seed, *names))
        yield
