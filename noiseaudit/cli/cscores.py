"""`noiseaudit cscores`: held-out consistency from many subset-trained models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noiseaudit.cli import options
from noiseaudit.cli.session import session

if TYPE_CHECKING:
    from noiseaudit.cscore.cost import CScoreCost
    from noiseaudit.cscore.result import CScores
    from noiseaudit.dataset import LabeledDataset

__all__ = ["cscores"]

_SHOWN = 10
_WHERE = "Where it runs"
_STABLE = 0.95
_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))


def cscores(
    source: options.Source,
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results.")] = None,
    subset_ratio: Annotated[
        str | None,
        typer.Option(
            help="Share of the data each model trains on, a whole percentage; several joined by "
            "commas, or 'integral': 0.1 to 0.9 (default: the papers' where there is one, else 0.5)."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Models at each ratio.")] = 100,
    scheme: Annotated[
        str, typer.Option(help="balanced (all held out equally often) or iid (as published).")
    ] = "balanced",
    until_stable: Annotated[
        bool,
        typer.Option(
            "--until-stable",
            help=f"Stop once halves of the runs agree: Spearman {_STABLE}, or nine in ten of the "
            "1% lowest (of 2,000 examples or more).",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would take.")
    ] = False,
    executor: Annotated[
        str | None,
        typer.Option(
            help="serial, processes or ray (default: processes; serial on CUDA).",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes (default: by cores).", rich_help_panel=_WHERE),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Of your Ray cluster (default: on this one).", rich_help_panel=_WHERE),
    ] = None,
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
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of one model's training (default: 1).")
    ] = None,
    augmentation: options.Augmentation = "auto",
    resume: options.Resume = True,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    json: options.Json = False,
) -> None:
    """Train many models on subsets; score each label by how often it is predicted unseen.

    Writes cscores.npz (scores, their errors and counts, held-out probabilities), agreement.csv and
    manifest.json into the output folder. Every model is kept there: stopped at any moment, the
    same command goes on where it was; with more --runs or other ratios it trains only what is
    missing.
    """
    with session(quiet=quiet, debug=debug):
        from noiseaudit.cscore.estimate import (
            check_cscore_options,
            estimate_cscores,
            predict_cscore_cost,
        )
        from noiseaudit.encoders.stage import encode_source, encoder_beside
        from noiseaudit.errors import UsageError
        from noiseaudit.loaders import load

        if out is None and not dry_run:
            raise UsageError("--out is needed: the folder for the results; or use --dry-run")
        ratios = _ratios(subset_ratio)
        check_cscore_options(
            subset_ratio=ratios,
            scheme=scheme,
            executor=executor,
            workers=workers,
            ray_address=ray_address,
            model=model,
            device=device,
            augmentation=augmentation,
        )
        chosen = options.encoder(encoder, encoder_weights, encoder_size, download=download)
        how = encoder_beside(chosen, model, augmentation)
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
        dataset = encode_source(
            dataset, how, device=device, threads=threads, progress=not quiet
        ).dataset
        plan: dict[str, Any] = {
            "subset_ratio": ratios,
            "runs": runs,
            "scheme": scheme,
            "model": model,
            "epochs": epochs,
            "augmentation": augmentation,
            "seed": seed,
            "device": device,
            "threads": threads,
        }
        if dry_run or out is None:
            _print_costs(predict_cscore_cost(dataset, **plan), as_json=json)
            return
        found = estimate_cscores(
            dataset,
            out=out,
            executor=executor,
            workers=workers,
            ray_address=ray_address,
            until_stable=_STABLE if until_stable else None,
            resume=resume,
            progress=not quiet,
            **plan,
        )
        if json:
            _print_json(found, out)
        elif not quiet:
            _print_summary(found, dataset, out)


def _ratios(text: str | None) -> list[float] | str | None:
    if text is None or text == "integral":
        return text
    return options.numbers(text, float, "--subset-ratio")


def _print_costs(costs: list[CScoreCost], *, as_json: bool) -> None:
    import dataclasses

    if as_json:
        import json

        print(json.dumps({"command": "cscores", "cost": [*map(dataclasses.asdict, costs)]}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "ratio", "models", "examples each", "at a time", "never held out", "one after another",
        "disk",
    )  # fmt: skip
    for cost in costs:
        table.add_row(
            f"{cost.ratio:g}", f"{cost.runs:,}", f"{cost.subset:,}", f"{cost.models_at_once}",
            f"{cost.never_held_out:,.0f}", _duration(cost.seconds), f"{cost.disk / 1e6:,.0f} MB",
        )  # fmt: skip
    console = Console()
    console.print(table)
    total = sum(cost.seconds for cost in costs)
    console.print(
        f"in all about {_duration(total)} of one worker, {total / 3600:.3g} hours; divide by how "
        "many work at a time. Nothing was written."
    )


def _duration(seconds: float) -> str:
    unit, name = next((item for item in _UNITS if seconds >= item[0]), _UNITS[-1])
    return f"{seconds / unit:.3g} {name}"


def _print_json(found: CScores, out: Path) -> None:
    import json
    import math

    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    summary = {
        "command": "cscores",
        "examples": len(found),
        "agreement": [
            {name: plain(value) for name, value in row.items()} for row in found.agreement
        ],
        "files": {name: str(out / name) for name in ("cscores.npz", "manifest.json")},
    }
    print(json.dumps(summary, indent=2))


def _print_summary(found: CScores, dataset: LabeledDataset, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(title="Lowest C-scores", title_justify="left")
    for name in ("sample id", "label", "C-score", "soft", "held out"):
        table.add_column(name, justify="left" if name == "label" else "right")
    columns = ["sample_id", "label", "scores", "soft_scores", "holdout_counts"]
    lowest = found.to_frame()[columns].nsmallest(_SHOWN, "soft_scores")
    for sample_id, label, hard, soft, count in lowest.itertuples(index=False):
        shown = Text(options.printable(dataset.class_names[label]))
        table.add_row(str(sample_id), shown, f"{hard:.3f}", f"{soft:.3f}", str(count))
    console.print(table)
    last = found.agreement[-1]
    missing = found.to_frame()["scores"].isna().sum()
    if missing:
        console.print(f"{missing:,} examples were never held out and have no score")
    if not last["split_half_soft"] >= -1:  # NaN
        console.print(f"{last['runs']:.0f} models at each ratio: too few to compare halves of them")
        console.print(Text(f"scores   {out / 'cscores.npz'}"), soft_wrap=True)
        return
    console.print(
        f"{last['runs']:.0f} models at each ratio; soft scores of one half of them agree with the "
        f"other half's by {last['split_half_soft']:.3f} (Spearman), and share "
        f"{last['top_overlap']:.0%} of the 1% lowest"
    )
    console.print(Text(f"scores   {out / 'cscores.npz'}"), soft_wrap=True)
