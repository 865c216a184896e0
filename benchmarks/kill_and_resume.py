"""Kill an audit with SIGKILL at random moments, resume it, compare with an undisturbed one.

    python benchmarks/kill_and_resume.py [--kills 20] [--seed 0]

Every kill hits the process of the same command at a moment drawn uniformly from the time that the
undisturbed audit took (start of the interpreter included); then the command is run to its end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _results import RESULTS, save

COMMAND = ["audit", "digits", "--epochs", "60", "--batch-size", "16", "--threads", "1", "--quiet"]


def start(out: Path) -> subprocess.Popen[bytes]:
    code = "import sys; from noiseaudit.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen([sys.executable, "-c", code, *COMMAND, "--out", str(out)])


def finish(out: Path) -> float:
    began = time.perf_counter()
    code = start(out).wait()
    if code:
        raise SystemExit(f"the audit ended with exit code {code}")
    return time.perf_counter() - began


def stored(out: Path) -> dict[str, bytes]:
    """Everything of the result that must be the same, bit for bit."""
    found = {"ranking.csv": (out / "ranking.csv").read_bytes()}
    with np.load(out / "training" / "statistics.npz", allow_pickle=False) as arrays:
        found |= {name: arrays[name].tobytes() for name in arrays.files}
    found["pred_probs"] = np.load(out / "training" / "pred_probs.npy").tobytes()
    return found


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    random = np.random.default_rng(options.seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        seconds = finish(whole)
        expected = stored(whole)
        for kill in range(options.kills):
            out = Path(folder, f"killed{kill}")
            moment = float(random.uniform(0, seconds))
            process = start(out)
            time.sleep(moment)
            process.kill()
            code = process.wait()
            epochs = len(list(out.glob("training/trajectories/*.npz")))
            finish(out)
            same = stored(out) == expected
            rows.append(
                {"after_seconds": moment, "exit": code, "epochs_done": epochs, "same": same}
            )
            print(rows[-1], flush=True)
            shutil.rmtree(out)
    result = {
        "command": COMMAND,
        "undisturbed_seconds": seconds,
        "kills": rows,
        "all_identical": all(row["same"] for row in rows),
    }
    path = save("kill_and_resume", result, results)
    if not result["all_identical"]:
        raise SystemExit("a resumed audit differs from the undisturbed one")
    return path


if __name__ == "__main__":
    main()
