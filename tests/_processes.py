"""Processes that can be killed: a server imports torch once, and forks each in milliseconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests._preloaded"])


def start(function, *arguments):
    """Run a function of a module, with what can be pickled, in a process of its own."""
    process = _CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def start_command(arguments, errors: Path):
    """`noiseaudit` with these arguments in a process of its own; its stderr goes to a file."""
    return start(_command, list(arguments), str(errors))


def wait_until(condition, process, seconds=60):
    """Return as soon as it holds, at most some milliseconds later; the process must be alive."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive(), "the process ended before"
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def _command(arguments, errors):
    from noiseaudit.cli import main

    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    raise SystemExit(main(arguments))
