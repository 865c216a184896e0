"""What every command does alike: messages on stderr, errors to exit codes, nothing else shown."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from noiseaudit.errors import NoiseAuditError, NoiseAuditWarning, UsageError

__all__ = ["session"]


@contextmanager
def session(*, quiet: bool = False, debug: bool = False) -> Iterator[None]:
    """Run a command's work: errors become one message and an exit code, Ctrl-C 130.

    What the library logs goes to stderr (with `quiet` only errors); stdout is the command's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a class name must not stop what is finished
            stream.reconfigure(errors="replace")
    logger = logging.getLogger("noiseaudit")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.ERROR if quiet else logging.INFO)
    try:
        with warnings.catch_warnings():
            _show_warnings_plainly(quiet=quiet)
            yield
    except KeyboardInterrupt:
        _fail("stopped; what is finished is kept: run the same command again to go on", 130)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): not an error, but stdout is unusable.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except NoiseAuditError as error:
        if debug:
            raise
        _fail(f"error: {error}", 2 if isinstance(error, UsageError) else 1)
    except (MemoryError, RuntimeError) as error:
        # torch raises its own RuntimeError when an allocation fails, on CUDA and on the CPU.
        words = ("out of memory", "DefaultCPUAllocator")
        is_memory = isinstance(error, MemoryError) or any(word in str(error) for word in words)
        if debug or not is_memory:
            raise
        _fail("error: out of memory; use --limit N, a smaller --model or --batch-size", 1)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _show_warnings_plainly(*, quiet: bool) -> None:
    def show(message: Warning | str, *_: object, **__: object) -> None:
        if not quiet:
            print(f"warning: {message}", file=sys.stderr)

    warnings.simplefilter("ignore")
    warnings.simplefilter("always", NoiseAuditWarning)
    warnings.showwarning = show


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code) from None
