"""`noiseaudit memorization`: is this data set, with these labels, being learned or memorised?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noiseaudit.cli import options
from noiseaudit.cli.session import session

if TYPE_CHECKING:
    from noiseaudit.memorization.profile import MemorizationProfile

__all__ = ["memorization"]


def memorization(
    source: options.Source,
    *,
    out: options.Out,
    preset: Annotated[
        str, typer.Option(help="quick (minutes on two cores) or full (hours, or a GPU).")
    ] = "quick",
    analyses: Annotated[
        str | None, typer.Option(help="Names joined by commas (default: all eight).")
    ] = None,
    seed: options.Seed = 0,
    num_seeds: Annotated[
        int, typer.Option(min=1, help="Repetitions; intervals and tests are over these.")
    ] = 5,
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
    """Test whether networks learn this data set's labels or can only memorise them.

    Small networks are trained on the data and on controls with random labels, random inputs and
    noise; eight published differences between data and noise are tested over several seeds.
    Writes findings.csv, report.html, figures/ and manifest.json; what is finished is kept.
    """
    with session(quiet=quiet, debug=debug):
        from noiseaudit._io import make_folder
        from noiseaudit.loaders import load
        from noiseaudit.memorization.stage import check_profile_options, memorization_profile

        names = options.names(analyses)
        check_profile_options(preset, num_seeds, names, threads, device)
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
            progress=not quiet,
        )
        profile = memorization_profile(
            dataset,
            out=out,
            preset=preset,
            seed=seed,
            num_seeds=num_seeds,
            analyses=names,
            device=device,
            threads=threads,
            resume=resume,
            progress=not quiet,
        )
        if json:
            _print_json(profile, out)
        elif not quiet:
            _print_summary(profile, out)


def _print_json(profile: MemorizationProfile, out: Path) -> None:
    import json

    files = {name: str(out / name) for name in ("findings.csv", "report.html", "manifest.json")}
    analyses = [
        {key: value for key, value in analysis.items() if key not in ("curves", "matrices")}
        for analysis in profile.to_dict()["analyses"]
    ]
    told = {"command": "memorization", **profile.to_dict(), "analyses": analyses, "files": files}
    print(json.dumps(told, indent=2))


def _print_summary(profile: MemorizationProfile, out: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    from noiseaudit.memorization.presentation import state_verdict

    console = Console()
    for analysis in profile.analyses:
        mark = "holds here" if analysis.reproduced else "does not hold here"
        console.print(Text(f"{analysis.title}: {mark}", style="bold"))
        for finding in analysis.findings:
            p_value = "" if finding.p_value is None else f" (p = {finding.p_value:.2g})"
            console.print(Text(f"    {options.printable(finding.statement)}{p_value}"))
    console.print(state_verdict(profile))
    console.print(Text(f"findings {out / 'findings.csv'}"), soft_wrap=True)
    console.print(Text(f"report   {out / 'report.html'}"), soft_wrap=True)
