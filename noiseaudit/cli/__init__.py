"""The command line: one small file a command, each parses, calls one library function, shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 (input or run), 2 (usage) or 130."""
    _wait_politely()
    from noiseaudit.cli.app import app

    try:
        app(args=None if arguments is None else list(arguments), prog_name="noiseaudit")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _wait_politely() -> None:
    """Let torch's threads sleep soon when they wait for each other, unless the user says how.

    By default they spin for milliseconds. On a machine whose cores are also busy with something
    else, training on two threads was then seen at 240 images/s where short spins give 3,000. It
    must be in the environment before torch is imported.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "1000"
