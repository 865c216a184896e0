"""`noiseaudit experiment`: inject known noise, score every detector, tabulate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from noiseaudit.cli import options
from noiseaudit.cli.session import session

if TYPE_CHECKING:
    from noiseaudit.experiment_report import ExperimentReport

__all__ = ["experiment"]

_OF_PICTURES = ("duplicates", "out_of_distribution")  # noise that is made of pictures


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
    runs: options.CScoreRuns = 10,
    subset_ratio: options.SubsetRatio = 0.5,
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain",
            help="Also train on noisy, clean, filtered and relabelled data; compare test accuracy.",
        ),
    ] = False,
    retrain_by: Annotated[
        str | None,
        typer.Option(help="Filter by these detectors too, beside is_label_issue; commas."),
    ] = None,
    retrain_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of retraining (default: as --epochs).")
    ] = None,
    retrain_augmentation: Annotated[
        str | None, typer.Option(help="Of retraining (default: as --augmentation).")
    ] = None,
    encoder: options.Encoder = "auto",
    encoder_weights: options.EncoderWeights = None,
    encoder_size: options.EncoderSize = None,
    model: options.Model = "auto",
    epochs: options.Epochs = None,
    augmentation: options.Augmentation = "auto",
    split: options.Split = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    download: options.Download = False,
    label_column: options.LabelColumn = "label",
    path_column: options.PathColumn = "path",
    feature_columns: options.FeatureColumns = None,
    drop_columns: options.DropColumns = None,
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
    the output folder, and retrain.csv with --retrain, which tests on the source's test split or
    else on a held-out fifth. Finished cells are reused; a failed one is recorded and the exit
    code is 1.
    """
    with session(quiet=quiet, debug=debug):
        from noiseaudit._io import make_folder
        from noiseaudit.encoders.stage import encode_source, encoder_beside
        from noiseaudit.errors import UsageError
        from noiseaudit.experiment import run_experiment
        from noiseaudit.loaders import load
        from noiseaudit.retraining import split_off_test
        from noiseaudit.stages import check_options

        words = options.names(noise) or []
        shares = options.numbers(rates, float, "--rates")
        numbers = options.numbers(seeds, int, "--seeds")
        changes = {"epochs": retrain_epochs, "augmentation": retrain_augmentation}
        changes = {name: value for name, value in changes.items() if value is not None}
        selectors = options.names(retrain_by) or []
        if (changes or selectors) and not retrain:
            raise UsageError(
                "--retrain-by, --retrain-epochs and --retrain-augmentation need --retrain; add it"
            )
        # As in audit: what can be wrong without reading the data must come first.
        for asked, augmented in (
            (options.names(detectors), augmentation),
            (selectors or None, retrain_augmentation or "auto"),
        ):
            check_options(asked, model, device, augmented, None)
        chosen = options.encoder(encoder, encoder_weights, encoder_size, download=download)
        of_pictures = [word for word in words if word.split(":")[0] in _OF_PICTURES]
        if of_pictures and chosen not in ("auto", "none"):
            raise UsageError(f"noise {of_pictures[0]} is made of pictures: use --encoder none")
        how = "none" if of_pictures else encoder_beside(chosen, model, augmentation)
        make_folder(out)
        # Retraining needs the test split too; split and limit are then of what is left.
        dataset = load(
            source,
            data_root=data_root,
            download=download,
            split="all" if retrain else split,
            limit=None if retrain else limit,
            label_column=label_column,
            path_column=path_column,
            feature_columns=options.names(feature_columns),
            drop_columns=options.names(drop_columns),
            image_size=image_size,
            device=device,
            progress=not quiet,
        )
        test = None
        if retrain:
            dataset, test = split_off_test(dataset)
            dataset = load(dataset, split=split, limit=limit)
        where: dict[str, Any] = {"device": device, "threads": threads, "progress": not quiet}
        encoded = encode_source(dataset, how, **where)
        dataset = encoded.dataset
        if test is not None:  # as the training part, whatever its own size
            test = encode_source(test, encoded.encoder or "none", **where).dataset
        report = run_experiment(
            dataset,
            noise=words,
            rates=shares,
            seeds=numbers,
            out=out,
            detectors=options.names(detectors),
            folds=folds,
            runs=runs,
            subset_ratio=subset_ratio,
            retrain=changes or retrain,
            retrain_by=selectors,
            test=test,
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

            tables = ("results", "summary", *(("retrain",) if retrain else ()))
            summary = {
                "command": "experiment",
                "failed": report.failed,
                "files": {name: str(out / f"{name}.csv") for name in tables},
                "summary": report.summary(),
                "retrain_summary": report.retrain_summary(),
            }
            print(json_format.dumps(summary, indent=2))
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
        cells = map(_percent, figures)
        table.add_row(line["noise"], f"{line['rate']:.3g}", line["detector"], *cells)
    Console().print(table)
    if lines := report.retrain_summary():
        table = Table("noise", "rate", "trained on", "by", "test accuracy %", "gap closed %")
        for line in lines:
            closed = "" if line["gap_closed"] is None else f"{100 * line['gap_closed']:.0f}"
            accuracy = _percent(line["test_accuracy_mean"])
            shown = (line["arm"].replace("_", " "), line["selected_by"], accuracy, closed)
            table.add_row(line["noise"], f"{line['rate']:.3g}", *shown)
        Console().print(table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
