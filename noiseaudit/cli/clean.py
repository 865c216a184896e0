"""`noiseaudit clean`: apply an audit's cleaning plan; the source is never written to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noiseaudit.cli import options
from noiseaudit.cli.session import session

if TYPE_CHECKING:
    from noiseaudit.clean_stage import Receipt
    from noiseaudit.cleaning import CleaningPlan
    from noiseaudit.cleaning_policy import CleaningPolicy

__all__ = ["clean"]

_SHOWN = 20
_NEW = "With --policy"


def clean(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished audit.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the cleaned data set goes: a new folder."),
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Decisions that the report saved.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="review, issues, confirmed, precision:0.9, share:0.05, count:200 or "
            "threshold:2.5, instead of what plan.csv says."
        ),
    ] = None,
    relabel_above: Annotated[
        float | None,
        typer.Option(
            help="Relabel, not remove, from this probability of the suggested label.",
            rich_help_panel=_NEW,
        ),
    ] = None,
    min_per_class: Annotated[
        int | None,
        typer.Option(min=0, help="Examples that a class keeps (default 10).", rich_help_panel=_NEW),
    ] = None,
    include_test: Annotated[
        bool,
        typer.Option("--include-test", help="Act on a test split too.", rich_help_panel=_NEW),
    ] = False,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format", help="folder, csv, parquet, npz or index (default: the source's)."
        ),
    ] = None,
    link: Annotated[
        str, typer.Option(help="Pictures in class folders: copy, hard or symlink.")
    ] = "copy",
    diff: Annotated[
        bool, typer.Option("--diff", help="Only show what would change; nothing is written.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Only check a cleaned data set against receipt and source."),
    ] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    json: options.Json = False,
) -> None:
    """Write the cleaned data set that an audit's plan.csv describes, with a receipt.

    Edit plan.csv in a spreadsheet, decide in report.html and pass what it saved as --decisions, or
    name a --policy. A source that has changed since the audit is refused.
    """
    with session(quiet=quiet, debug=debug):
        from noiseaudit.clean_stage import clean_dataset, read_audit_plan, verify_cleaned
        from noiseaudit.errors import UsageError

        if diff and verify:
            raise UsageError("--diff and --verify are two things: ask for one")
        chosen = _policy(policy, relabel_above, min_per_class, include_test=include_test)
        if diff:
            plan = read_audit_plan(folder, policy=chosen, decisions=decisions)
            _print_diff(plan, as_json=json)
            return
        if out is None:
            raise UsageError("--out is needed: where the cleaned data set goes, or lies")
        if verify:
            receipt = verify_cleaned(out, folder)
        else:
            receipt = clean_dataset(
                folder, out, policy=chosen, decisions=decisions, format=format_name, link=link
            )
        if json:
            _print_json(receipt, out)
        elif not quiet:
            _print_summary(receipt, out, verified=verify)


def _policy(
    text: str | None, relabel_above: float | None, min_per_class: int | None, *, include_test: bool
) -> CleaningPolicy | None:
    from noiseaudit.cleaning_policy import CleaningPolicy
    from noiseaudit.errors import UsageError

    if text is None:
        if relabel_above is not None or min_per_class is not None or include_test:
            raise UsageError(
                "--relabel-above, --min-per-class and --include-test go with --policy; without it "
                "plan.csv is taken as it is"
            )
        return None
    floor = {} if min_per_class is None else {"min_per_class": min_per_class}
    return CleaningPolicy.parse(
        text, relabel_above=relabel_above, include_test=include_test, **floor
    )


def _print_json(receipt: Receipt, out: Path) -> None:
    import json

    files = {name: str(out / name) for name in ("receipt.json", "changes.csv", "files.csv")}
    print(json.dumps({"command": "clean", **vars(receipt), "files": files}, indent=2))


def _print_summary(receipt: Receipt, out: Path, *, verified: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    counts = receipt.counts
    if verified:
        console.print("verified: every file is as it was written, and the source as it was audited")
    console.print(
        f"{receipt.written:,} of {receipt.examples:,} examples written: {counts['remove']:,} "
        f"removed, {counts['relabel']:,} relabelled, {counts['review']:,} left for review, "
        f"{counts['unreadable']:,} unreadable"
    )
    if counts["review"] and not verified:
        console.print(
            "what is for review stays: decide in report.html or plan.csv, or use --policy issues"
        )
    for name in ("receipt.json", "changes.csv"):
        console.print(Text(f"{name.split('.')[0]:<9}{out / name}"), soft_wrap=True)


def _print_diff(plan: CleaningPlan, *, as_json: bool) -> None:
    import json

    import numpy as np

    names = plan.class_names
    rows = [int(row) for row in plan.order if plan.actions[row] != "keep"]
    changes = [
        {
            "sample_id": int(plan.ids[row]),
            "source": "" if plan.sources is None else str(plan.sources[row]),
            "given_label": names[plan.labels[row]],
            "action": str(plan.actions[row]),
            "new_label": names[plan.new_labels[row]] if plan.new_labels[row] >= 0 else "",
            "reason": str(plan.reasons[row]),
        }
        for row in rows
    ]
    k = len(names)
    before = np.bincount(plan.labels, minlength=k)
    after = np.bincount(plan.cleaned_labels[plan.is_kept], minlength=k)
    classes = [
        {"class": name, "before": int(old), "after": int(new)}
        for name, old, new in zip(names, before, after, strict=True)
    ]
    if as_json:
        told = {"command": "clean", "counts": plan.counts(), "classes": classes, "changes": changes}
        print(json.dumps(told, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(title="What would change", title_justify="left")
    for name in ("sample id", "given", "action", "new label", "reason"):
        table.add_column(name, justify="right" if name == "sample id" else "left")
    for item in changes[:_SHOWN]:
        keys = ("sample_id", "given_label", "action", "new_label", "reason")
        table.add_row(*(Text(options.printable(str(item[key]))) for key in keys))
    sizes = Table(title="Examples by class", title_justify="left")
    for name in ("class", "before", "after"):
        sizes.add_column(name, justify="left" if name == "class" else "right")
    moved = [item for item in classes if item["before"] != item["after"]]
    for item in moved[:_SHOWN]:
        sizes.add_row(
            Text(options.printable(str(item["class"]))), f"{item['before']:,}", f"{item['after']:,}"
        )
    console.print(table)
    if len(changes) > _SHOWN:
        console.print(f"... and {len(changes) - _SHOWN:,} more; --json lists all")
    console.print(sizes)
    counted = ", ".join(f"{count:,} {action}" for action, count in plan.counts().items())
    console.print(f"{len(plan):,} examples audited: {counted}")
