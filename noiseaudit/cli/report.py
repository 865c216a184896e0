"""`noiseaudit report`: rebuild the page of a finished audit from what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noiseaudit.cli import options
from noiseaudit.cli.session import session

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished audit.")],
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Rebuild DIR/report.html from stored results."""
    with session(quiet=quiet, debug=debug):
        from noiseaudit.auditing import rebuild_report

        path = rebuild_report(folder)
        if not quiet:
            print(path)
