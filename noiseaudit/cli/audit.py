"""`noiseaudit audit`: train once, score, rank, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noiseaudit.cli import options
from noiseaudit.cli.session import session

if TYPE_CHECKING:
    from noiseaudit.audit_report import AuditReport

__all__ = ["audit"]

_TRAINING = "Training"
_SHOWN = 10
_WIDE = 120  # columns of a terminal from which the reasons fit beside the rest
_NUMBERS = ("rank", "sample id", "suspicion")


def audit(
    source: options.Source = "digits",
    *,
    out: options.Out,
    detectors: Annotated[
        str | None,
        typer.Option(help="Names joined by commas (default: all that one training run serves)."),
    ] = None,
    folds: options.Folds = 4,
    runs: options.CScoreRuns = 10,
    subset_ratio: options.SubsetRatio = 0.5,
    duplicates: Annotated[
        bool, typer.Option("--duplicates/--no-duplicates", help="Look for copies of one picture.")
    ] = True,
    verdict: Annotated[
        bool,
        typer.Option(
            "--verdict/--no-verdict",
            help="Plant flips and train again: how many labels are wrong, and how sure is that?",
        ),
    ] = True,
    precision: Annotated[
        float, typer.Option(help="Wanted of the labels that the verdict flags, in (0, 1].")
    ] = 0.9,
    recommend: Annotated[
        bool, typer.Option("--recommend", help="Say what the number came of, and whom to trust.")
    ] = False,
    encoder: options.Encoder = "auto",
    encoder_weights: options.EncoderWeights = None,
    encoder_size: options.EncoderSize = None,
    model: options.Model = "auto",
    epochs: options.Epochs = None,
    seed: options.Seed = 0,
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
    augmentation: options.Augmentation = "auto",
    batch_size: Annotated[int | None, typer.Option(rich_help_panel=_TRAINING)] = None,
    learning_rate: Annotated[float | None, typer.Option(rich_help_panel=_TRAINING)] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd or adam.", rich_help_panel=_TRAINING)
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="triangular, stagewise or constant.", rich_help_panel=_TRAINING),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(rich_help_panel=_TRAINING)] = None,
    label_smoothing: Annotated[float | None, typer.Option(rich_help_panel=_TRAINING)] = None,
    bfloat16: Annotated[
        bool | None, typer.Option(help="Autocast (CUDA).", rich_help_panel=_TRAINING)
    ] = None,
    keep_trajectories: Annotated[
        bool,
        typer.Option(
            "--keep-trajectories", help="Keep every epoch's values.", rich_help_panel=_TRAINING
        ),
    ] = False,
    resume: options.Resume = True,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    json: options.Json = False,
) -> None:
    """Train on the labels as they are, rank the ones not to trust, and say how many are wrong.

    Photographs are looked at through a frozen encoder where there is no GPU; see --encoder.

    Writes ranking.csv, report.html and manifest.json into the output folder. Stopped at any
    moment, the same command goes on where it was.
    """
    with session(quiet=quiet, debug=debug):
        from noiseaudit._io import make_folder
        from noiseaudit.auditing import audit as run_audit
        from noiseaudit.encoders.stage import encoder_beside
        from noiseaudit.errors import UsageError
        from noiseaudit.loaders import load
        from noiseaudit.precision import check_precision
        from noiseaudit.stages import check_options

        recipe = {
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "optimizer": optimizer,
            "schedule": schedule,
            "weight_decay": weight_decay,
            "label_smoothing": label_smoothing,
            "bfloat16": bfloat16,
        }
        overrides = {name: value for name, value in recipe.items() if value is not None}
        # Decoding a large folder takes long: what can be wrong without it must come first.
        check_options(options.names(detectors), model, device, augmentation, overrides)
        check_precision(precision)
        if recommend and not verdict:
            raise UsageError("--recommend explains the verdict, and --no-verdict leaves it out")
        chosen = options.encoder(encoder, encoder_weights, encoder_size, download=download)
        encoder_beside(chosen, model, augmentation)
        make_folder(out)
        dataset = load(
            source,
            data_root=data_root,
            download=download,
            split=split,
            limit=limit,
            seed=seed,
            label_column=label_column,
            path_column=path_column,
            feature_columns=options.names(feature_columns),
            drop_columns=options.names(drop_columns),
            image_size=image_size,
            device=device,
            progress=not quiet,
        )
        report = run_audit(
            dataset,
            out=out,
            detectors=options.names(detectors),
            folds=folds,
            runs=runs,
            subset_ratio=subset_ratio,
            duplicates=duplicates,
            verdict=verdict,
            precision=precision,
            encoder=chosen,
            model=model,
            epochs=epochs,
            augmentation=augmentation,
            recipe=overrides,
            seed=seed,
            device=device,
            threads=threads,
            resume=resume,
            keep_trajectories=keep_trajectories,
            progress=not quiet,
        )
        if json:
            _print_json(report, out)
        elif not quiet:
            _print_summary(report, out, recommend=recommend)


def _files(report: AuditReport, out: Path) -> dict[str, str]:
    files = {"report": "report.html", "ranking": "ranking.csv", "manifest": "manifest.json"}
    if report.duplicates is not None and len(report.duplicates):
        files["copies"] = "groups.csv"
    if report.dataset.skipped:
        files["skipped"] = "skipped.csv"
    return {name: str(out / file) for name, file in files.items()}


def _print_json(report: AuditReport, out: Path) -> None:
    import json

    document = report.document
    summary: dict[str, Any] = {
        "command": "audit",
        **report.manifest["results"],
        "basis": document.verdict.basis if document.verdict else None,
        "recommendation": document.verdict.recommendation if document.verdict else None,
        "encoder": report.manifest["encoder"],
        "classes": [vars(item) for item in report.document.classes],
        "top": [
            {
                "rank": item.rank,
                "sample_id": item.sample_id,
                "source": item.source,
                "given_label": item.given_label,
                "suggested_label": item.suggested_label,
                "suspicion": item.suspicion,
                "is_label_issue": item.is_label_issue,
                "reason": item.reason,
                "p_error": item.p_error,
                "kind": item.kind,
            }
            for item in report.document.suspects[:_SHOWN]
        ],
        "files": _files(report, out),
    }
    print(json.dumps(summary, indent=2))


def _print_summary(report: AuditReport, out: Path, *, recommend: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    document = report.document
    suspects = Table(title="Most suspicious labels", title_justify="left")
    has_room = console.width >= _WIDE
    for name in ("rank", "sample id", "given", "suggested", "suspicion", "why")[: 5 + has_room]:
        suspects.add_column(name, justify="right" if name in _NUMBERS else "left")
    for item in document.suspects[:_SHOWN]:
        cells = (
            str(item.rank), str(item.sample_id), item.given_label, item.suggested_label,
            f"{item.suspicion:.3f}", item.reason,
        )[: 5 + has_room]  # fmt: skip
        suspects.add_row(*(Text(options.printable(cell)) for cell in cells))
    classes = Table(title="Labels that look wrong, by class", title_justify="left")
    for name in ("class", "examples", "look wrong", "share"):
        classes.add_column(name, justify="left" if name == "class" else "right")
    by_issues = sorted(document.classes, key=lambda entry: -entry.issues)
    for entry in by_issues[:_SHOWN]:
        share = f"{entry.issues / entry.examples:.1%}"
        classes.add_row(
            Text(options.printable(entry.name)), f"{entry.examples:,}", f"{entry.issues:,}", share
        )
    console.print(suspects, classes, sep="\n")
    if len(by_issues) > _SHOWN:
        console.print(f"... and {len(by_issues) - _SHOWN:,} more classes, in the report")
    console.print(Text(f"\n{document.headline}"))
    verdict = report.manifest["results"]["verdict"]
    if document.verdict is None:
        console.print(Text(f"How many labels are wrong was not estimated: {verdict['why']}."))
    else:
        why = [document.verdict.basis, document.verdict.recommendation] if recommend else []
        for line in filter(None, (*document.verdict.cautions, *why)):
            console.print(Text(line))
    for name, path in _files(report, out).items():
        console.print(Text(f"{name:<9}{path}"), soft_wrap=True)
