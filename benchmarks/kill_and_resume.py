"""Kill a command with SIGKILL at random moments, resume it, compare with an undisturbed one.

    python benchmarks/kill_and_resume.py [--command audit|cscores] [--kills 20] [--seed 0]

Every kill hits the process of the same command, or for `cscores` by turns one of its workers, at a
moment drawn uniformly from the time that the undisturbed command took (start of the interpreter
included); then the command is run to its end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _results import RESULTS, save

COMMANDS = {
    "audit": ["audit", "digits", "--epochs", "60", "--batch-size", "16", "--threads", "1"],
    "cscores": ["cscores", "digits", "--subset-ratio", "0.3,0.6", "--runs", "60", "--workers", "2"],
}


def start(command: str, out: Path) -> subprocess.Popen[bytes]:
    code = "import sys; from noiseaudit.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [*COMMANDS[command], "--quiet", "--out", str(out)]
    return subprocess.Popen([sys.executable, "-c", code, *words])


def finish(command: str, out: Path) -> float:
    began = time.perf_counter()
    code = start(command, out).wait()
    if code:
        raise SystemExit(f"the command ended with exit code {code}")
    return time.perf_counter() - began


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Its child processes that train; joblib's resource tracker is none of them."""
    told = subprocess.run(
        ["pgrep", "-f", "-P", str(process.pid), "loky.backend.popen"],
        capture_output=True, text=True,
    )  # fmt: skip
    return [int(word) for word in told.stdout.split()]


def stored(command: str, out: Path) -> dict[str, bytes]:
    """Everything of the result that must be the same, bit for bit."""
    if command == "cscores":
        with np.load(out / "cscores.npz", allow_pickle=False) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    found = {"ranking.csv": (out / "ranking.csv").read_bytes()}
    with np.load(out / "training" / "statistics.npz", allow_pickle=False) as arrays:
        found |= {name: arrays[name].tobytes() for name in arrays.files}
    found["pred_probs"] = np.load(out / "training" / "pred_probs.npy").tobytes()
    return found


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--command", choices=COMMANDS, default="audit")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    command = options.command
    random = np.random.default_rng(options.seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        seconds = finish(command, whole)
        expected = stored(command, whole)
        for kill in range(options.kills):
            out = Path(folder, f"killed{kill}")
            moment = float(random.uniform(0, seconds))
            process = start(command, out)
            time.sleep(moment)
            workers = workers_of(process) if command == "cscores" and kill % 2 else []
            if workers:
                os.kill(workers[kill // 2 % len(workers)], signal.SIGKILL)
            else:
                process.kill()
            steps = len([*out.glob("training/trajectories/*.npz"), *out.glob("runs/*/run_*.npz")])
            code = process.wait()
            finish(command, out)
            same = stored(command, out) == expected
            whom = "worker" if workers else "driver"
            rows.append(
                {"after_seconds": moment, "killed": whom, "exit": code, "steps_done": steps,
                 "same": same}
            )  # fmt: skip
            print(rows[-1], flush=True)
            shutil.rmtree(out)
    result = {
        "command": COMMANDS[command],
        "undisturbed_seconds": seconds,
        "kills": rows,
        "all_identical": all(row["same"] for row in rows),
    }
    path = save(f"kill_and_resume{'_cscores' * (command == 'cscores')}", result, results)
    if not result["all_identical"]:
        raise SystemExit("a resumed command differs from the undisturbed one")
    return path


if __name__ == "__main__":
    main()
