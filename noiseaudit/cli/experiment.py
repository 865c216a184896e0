"""`noiseaudit experiment`: inject known noise, score every detector, tabulate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from noiseaudit.cli import options
from noiseaudit.cli.session import session

if TYPE_CHECKING:
    from noiseaudit.experiment import ExperimentReport

__all__ = ["experiment"]


def experiment(
    source: options.Source,
    *,
    out: options.Out,
    noise: Annotated[
        str,
        typer.Option(
            help="uniform, uniform_any, pair, asymmetric[:FILE], confusion:FILE, "
            "instance[:FILE], human:FILE#KEY, duplicates, out_of_distribution:SOURCE; commas."
        ),
    ] = "uniform",
    rates: Annotated[str, typer.Option(help="Shares of labels to corrupt, commas.")] = "0.1",
    seeds: Annotated[str, typer.Option(help="Seeds of noise and training, commas.")] = "0,1,2",
    detectors: Annotated[
        str | None, typer.Option(help="Names joined by commas (default: all).")
    ] = None,
    folds: options.Folds = 4,
    model: options.Model = "auto",
    epochs: options.Epochs = None,
    augmentation: options.Augmentation = "auto",
    split: options.Split = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    download: options.Download = False,
    label_column: options.LabelColumn = "label",
    path_column: options.PathColumn = "path",
    image_size: options.ImageSize = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    resume: options.Resume = True,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    json: options.Json = False,
) -> None:
    """Corruption harness: noise x detectors x seeds -> table.

    The labels are taken as clean. Writes results.csv, summary.csv, summary.md and figures/ into
    the output folder; finished cells are reused. A failed cell is recorded and the exit code is 1.
    """
    with session(quiet=quiet, debug=debug):
        from noiseaudit._io import make_folder
        from noiseaudit.experiment import run_experiment
        from noiseaudit.loaders import load
        from noiseaudit.scoring import check_options

        words = options.names(noise) or []
        shares = options.numbers(rates, float, "--rates")
        numbers = options.numbers(seeds, int, "--seeds")
        # As in audit: what can be wrong without reading the data must come first.
        check_options(options.names(detectors), model, device, augmentation, None)
        make_folder(out)
        dataset = load(
            source,
            data_root=data_root,
            download=download,
            split=split,
            limit=limit,
            label_column=label_column,
            path_column=path_column,
            image_size=image_size,
            device=device,
            progress=not quiet,
        )
        report = run_experiment(
            dataset,
            noise=words,
            rates=shares,
            seeds=numbers,
            out=out,
            detectors=options.names(detectors),
            folds=folds,
            model=model,
            epochs=epochs,
            augmentation=augmentation,
            device=device,
            threads=threads,
            resume=resume,
            progress=not quiet,
        )
        if json:
            import json as json_format

            files = {name: str(out / f"{name}.csv") for name in ("results", "summary")}
            summary = {"command": "experiment", "failed": report.failed, "files": files}
            print(json_format.dumps({**summary, "summary": report.summary()}, indent=2))
        elif not quiet:
            _print_summary(report)
            print(out / "summary.md")
        if report.failed:
            raise typer.Exit(1)


def _print_summary(report: ExperimentReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("noise", "rate", "detector", "AUROC %", "AP %", "removal %")
    for line in report.summary():
        figures = (line[f"{name}_mean"] for name in ("auroc", "average_precision", "removal_rate"))
        cells = ("-" if value is None else f"{100 * value:.2f}" for value in figures)
        table.add_row(line["noise"], f"{line['rate']:.3g}", line["detector"], *cells)
    Console().print(table)
