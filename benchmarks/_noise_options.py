"""Options of the benchmarks that put several kinds of noise into several data sets."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NOISES = ("uniform", "pair", "asymmetric", "instance")
RATES = (0.02, 0.05, 0.1, 0.2, 0.4)
LISTS: dict[str, Callable[[str], Any]] = {"sets": str, "noises": str, "rates": float, "seeds": int}


def noise_options(
    description: str | None,
    presets: Mapping[str, Mapping[str, Any]],
    arguments: list[str] | None,
    *,
    embeddings: bool = False,
) -> argparse.Namespace:
    """What is asked for, all else as the preset has it."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=presets, default="cpu")
    for name in LISTS:
        parser.add_argument(f"--{name}", help="by commas; default: of the preset")
    parser.add_argument("--data-root", type=Path)
    if embeddings:
        parser.add_argument("--embeddings", type=Path, default=Path(), help="a folder of .npz")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args(arguments)
    for name, kind in LISTS.items():
        if asked := getattr(options, name):
            setattr(options, name, [kind(word) for word in asked.split(",")])
    for name, value in presets[options.preset].items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    return options
