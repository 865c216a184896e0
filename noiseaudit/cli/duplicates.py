"""`noiseaudit duplicates`: copies of one picture, conflicting labels, leaks between splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noiseaudit.cli import options
from noiseaudit.cli.session import session

if TYPE_CHECKING:
    from noiseaudit.duplicate_groups import DuplicateGroups

__all__ = ["duplicates"]

_SHOWN = 10


def duplicates(
    source: options.Source,
    *,
    out: options.Out,
    hash_name: Annotated[
        str, typer.Option("--hash", help="phash, dhash, whash or ahash.")
    ] = "phash",
    hash_size: Annotated[int, typer.Option(help="Bits along a side of the hash.")] = 8,
    radius: Annotated[
        int | None,
        typer.Option(help="Most bits that copies differ by (default: an eighth; 8 of 64)."),
    ] = None,
    transforms: Annotated[
        bool, typer.Option("--transforms", help="Look for mirrored and turned copies too.")
    ] = False,
    pred_probs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Predicted probabilities, to say which of conflicting labels is believed: the "
            "cscores.npz of this source, or another .npz#KEY, .npy or .csv.",
        ),
    ] = None,
    encoder: options.Encoder = "none",
    encoder_weights: options.EncoderWeights = None,
    encoder_size: options.EncoderSize = None,
    seed: options.Seed = 0,
    split: options.Split = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    download: options.Download = False,
    label_column: options.LabelColumn = "label",
    path_column: options.PathColumn = "path",
    image_size: options.ImageSize = None,
    resume: options.Resume = True,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    json: options.Json = False,
) -> None:
    """Find copies of one picture: under conflicting labels, across splits, or merely spare.

    With an encoder, re-crops and changes of colour too, which takes longer.

    Writes groups.csv, links.csv, report.html and manifest.json into the output folder. Hashes of
    files are kept in the user's cache: a scan of the same pictures, or of more, goes on from there.
    """
    with session(quiet=quiet, debug=debug):
        from noiseaudit._io import make_folder
        from noiseaudit.copy_scan import CopyOptions
        from noiseaudit.duplicates import find_duplicates
        from noiseaudit.encoders.stage import encode_source
        from noiseaudit.loaders import load

        CopyOptions(hash_name, hash_size, radius, transforms)  # told of before decoding
        chosen = options.encoder(encoder, encoder_weights, encoder_size, download=download)
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
            image_size=image_size,
            progress=not quiet,
        )
        encoded = encode_source(dataset, chosen, progress=not quiet)
        found = find_duplicates(
            dataset,
            out=out,
            hash_name=hash_name,
            hash_size=hash_size,
            radius=radius,
            transforms=transforms,
            pred_probs=pred_probs,
            embeddings=encoded.vectors,
            resume=resume,
            progress=not quiet,
        )
        if json:
            _print_json(found, out)
        elif not quiet:
            _print_summary(found, out)


def _print_json(found: DuplicateGroups, out: Path) -> None:
    import json

    names = ("groups.csv", "links.csv", "report.html", "manifest.json", "skipped.csv")
    files = {name: str(out / name) for name in names if (out / name).exists()}
    print(json.dumps({"command": "duplicates", **found.summary(), "files": files}, indent=2))


def _print_summary(found: DuplicateGroups, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, data, counts = Console(), found.dataset, found.summary()
    if counts["conflicts"]:
        table = Table(title="Copies with conflicting labels", title_justify="left")
        for name in ("group", "kind", "sample ids", "labels"):
            table.add_column(name, justify="right" if name == "group" else "left")
        for number in range(min(_SHOWN, counts["conflicts"])):
            rows = found.members[number][:4]
            names = [data.class_names[label] for label in data.labels[rows]]
            table.add_row(
                str(number),
                "exact" if found.is_exact[number] else "near",
                ", ".join(str(data.ids[row]) for row in rows),
                Text(options.printable(", ".join(names))),
            )
        console.print(table)
        if counts["conflicts"] > _SHOWN:
            console.print(f"... and {counts['conflicts'] - _SHOWN:,} more, in groups.csv")
    console.print(
        f"{counts['examples']:,} examples; pictures with copies: {counts['groups']:,} "
        f"({counts['exact_groups']:,} exact), under conflicting labels: {counts['conflicts']:,}, "
        f"across splits: {counts['leaks']:,}; copies to spare: {counts['spare_copies']:,}"
    )
    if counts["skipped"]:
        console.print(f"not readable: {counts['skipped']:,}, see skipped.csv")
    for name in ("groups.csv", "report.html"):
        console.print(Text(f"{name.split('.')[0]:<9}{out / name}"), soft_wrap=True)
