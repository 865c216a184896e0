"""`noiseaudit report`: rebuild the page of a finished audit from what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from noiseaudit.cli import options
from noiseaudit.cli.session import session

__all__ = ["report"]

_PANEL = "With --decisions"


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished audit.")],
    *,
    decisions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Decisions that the report saved, or a review.csv with decisions written in: say "
            "how many wrong labels are left and what to review next (DIR/review.csv).",
        ),
    ] = None,
    share: Annotated[
        float, typer.Option(help="Of the wrong labels, to be found.", rich_help_panel=_PANEL)
    ] = 0.95,
    confidence: Annotated[
        float, typer.Option(help="Of having found them.", rich_help_panel=_PANEL)
    ] = 0.9,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    json: options.Json = False,
) -> None:
    """Rebuild DIR/report.html from stored results; with decisions, say how far the review is."""
    with session(quiet=quiet, debug=debug):
        from noiseaudit.auditing import rebuild_report
        from noiseaudit.reviewing import review_audit

        found = None
        if decisions is not None:
            found = review_audit(folder, decisions, share=share, confidence=confidence)
        files = {"report": str(rebuild_report(folder))}
        if found is not None:
            files["review"] = str(found.path)
        if json:
            from json import dumps

            told = {} if found is None else found.summary()
            print(dumps({"command": "report", **told, "files": files}, indent=2))
        elif not quiet:
            if found is not None:
                print(found.sentence())
            for path in files.values():
                print(path)
