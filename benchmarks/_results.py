"""Where benchmark results go: one JSON file each, with what they were made on."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noiseaudit.evaluation import mean_interval
from noiseaudit.manifest import package_versions

RESULTS = Path(__file__).parent / "results"
# bfloat16 pays on CUDA and on CPUs with tiles for it: 1.7 times as fast for `cnn` on one thread.
BFLOAT16 = torch.cuda.is_available() or getattr(torch.cpu, "get_capabilities", dict)().get(
    "amx_bf16", False
)


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "versions": package_versions(),
    }


def save(name: str, results: dict[str, Any], folder: Path = RESULTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    told = _plain({"machine": machine(), **results})
    text = json.dumps(told, indent=2, allow_nan=False)
    # A list of plain values on one line: these files are read by people too.
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda m: "[" + re.sub(r"\n\s*", " ", m[1]) + "]", text)
    path.write_text(text + "\n")
    print(f"wrote {path}")
    return path


def _plain(value: Any) -> Any:
    """NaN becomes null: what could not be measured."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def load(name: str) -> dict[str, Any]:
    """What `save` wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(header: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def interval(values: list[float]) -> dict[str, float]:
    """Mean over seeds and half the width of its 95% t interval."""
    found = mean_interval(values)
    return {"mean": found.mean, "half_width_95": found.high - found.mean}


def ratio_summary(ratios: list[float]) -> dict[str, float]:
    return {
        "median": float(np.median(ratios)),
        "lowest": float(min(ratios)),
        "highest": float(max(ratios)),
        "pairs": len(ratios),
    }
