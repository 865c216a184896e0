"""The application: its commands, and what holds for all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from noiseaudit import __version__
from noiseaudit.cli.audit import audit
from noiseaudit.cli.clean import clean
from noiseaudit.cli.cscores import cscores
from noiseaudit.cli.detectors import detectors
from noiseaudit.cli.duplicates import duplicates
from noiseaudit.cli.experiment import experiment
from noiseaudit.cli.memorization import memorization
from noiseaudit.cli.report import report

__all__ = ["app"]

app = typer.Typer(
    help="Find the labels not to trust in a labelled data set, from one training run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(audit)
app.command()(experiment)
app.command()(cscores)
app.command()(duplicates)
app.command()(memorization)
app.command()(clean)
app.command()(report)
app.command()(detectors)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"noiseaudit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
