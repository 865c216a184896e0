"""What a command costs, by size: seconds and memory of a process of its own, from its start.

    python benchmarks/costs.py --preset smoke
    python benchmarks/costs.py --preset cpu --data-root DIR [--parts audit_10000,clean]

Each part is one command as a user types it, with an empty cache and default options; an audit runs
with `--no-verdict`, and once more as it is (`with_verdict`). Every part is written as soon as it is
done; those named by `--parts` replace what was measured before. Beside the seconds stand those of
processor time: on a machine that does other work they tell the truth.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _results import RESULTS, save

# Peak memory from the process itself: what a parent is told begins with its own.
_CODE = """
import json, os, sys, time
began = time.perf_counter()
from noiseaudit.cli import main
code = main(sys.argv[2:])
peak = open("/proc/self/status").read().split("VmHWM:")[1].split()[0]
told = {
    "exit_code": code, "seconds": time.perf_counter() - began,
    "processor_seconds": sum(os.times()[:4]), "megabytes": int(peak) / 1024,
}
open(sys.argv[1], "w").write(json.dumps(told))
"""
PARTS: dict[str, tuple[str, ...]] = {
    "digits": ("audit", "digits"),
    "fashion_mnist_10000": ("audit", "fashion_mnist", "--limit", "10000"),
    "fashion_mnist_60000": ("audit", "fashion_mnist"),
    "cifar10_10000": ("audit", "cifar10", "--limit", "10000"),
    "vectors_50000": ("audit", "VECTORS"),
    "photos_500": ("audit", "PHOTOS"),
    "clean_photos": ("clean", "photos_500", "--policy", "share:0.05"),
    "duplicates_50000": ("duplicates", "cifar10"),
}
SMOKE = {
    "digits": ("audit", "digits", "--limit", "100", "--epochs", "1"),
    "clean_digits": ("clean", "digits", "--policy", "share:0.05"),
}


def measure(command: tuple[str, ...], out: Path, cache: Path) -> dict[str, Any]:
    told = out.with_suffix(".json")
    environment = {**os.environ, "NOISEAUDIT_CACHE": str(cache)}
    arguments = [sys.executable, "-c", _CODE, str(told), *command, "--out", str(out), "--quiet"]
    subprocess.run(arguments, env=environment, check=True)
    found = json.loads(told.read_text())
    if found["exit_code"]:
        raise SystemExit(f"{' '.join(command)} ended with {found['exit_code']}")
    return found


def settled(command: tuple[str, ...], work: Path, data_root: Path | None) -> tuple[str, ...]:
    """The command with its places filled in."""
    name, source, *rest = command
    if name == "clean":
        return (name, str(work / source), *rest)
    if source == "PHOTOS":
        return (name, str(Path(data_root or ".", "photos")), *rest)
    if source == "VECTORS":
        path = work / "vectors.npz"
        random = np.random.default_rng(0)
        labels = np.arange(50_000) % 10
        x = random.normal(size=(50_000, 128)) + 2 * np.eye(10, 128)[labels]
        np.savez(path, x=x.astype(np.float32), y=labels)
        return (name, str(path), *rest)
    root = () if data_root is None else ("--data-root", str(data_root))
    return (*command, *root)


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=("smoke", "cpu"), default="smoke")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--parts", default="", help="joined by commas; default: all")
    options = parser.parse_args(arguments)
    parts = SMOKE if options.preset == "smoke" else PARTS
    chosen = [name for name in options.parts.split(",") if name] or list(parts)
    name = "costs" if options.preset == "cpu" else "costs_smoke"
    path = results / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text())["parts"] if path.exists() else {}
    for part in chosen:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            command = settled(parts[part], work, options.data_root)
            if command[0] == "clean":  # what an audit left
                audit = settled(parts[parts[part][1]], work, options.data_root)
                measure(audit, Path(command[1]), work / "cache")
            is_audit = command[0] == "audit"
            plain = (*command, "--no-verdict") if is_audit else command
            told = measure(plain, work / "out", work / "cache")
            if is_audit:
                told["with_verdict"] = measure(command, work / "again", work / "cache_again")
        told["command"] = " ".join((*parts[part], *plain[len(command) :]))
        found[part] = {"load": os.getloadavg()[0], **told}
        path = save(name, {"preset": options.preset, "parts": found}, results)
    return path


if __name__ == "__main__":
    main()
