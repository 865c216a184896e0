"""Options that several commands share: name, type and help in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from noiseaudit.errors import UsageError

if TYPE_CHECKING:
    from noiseaudit.encoders.encoder import Encoder as EncoderObject

_Number = TypeVar("_Number", int, float)

Source = Annotated[
    str,
    typer.Argument(
        help="digits, mnist, fashion_mnist, cifar10, cifar100, a folder with one sub-folder of "
        "images per class, or a .csv, .parquet or .npz file.",
        show_default=True,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all randomness.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads (default: by network and cores).")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder with the named data sets.")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision download them.")]
Split = Annotated[
    str | None,
    typer.Option(help="train, val, test or all (default: all; train for the named data sets)."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only N examples, stratified by class.")]
LabelColumn = Annotated[str, typer.Option(help="Column of labels in a table.")]
PathColumn = Annotated[str, typer.Option(help="Column of image paths in a table.")]
FeatureColumns = Annotated[
    str | None,
    typer.Option(
        help="Columns of a table that are its features, by commas (default: all that can be)."
    ),
]
DropColumns = Annotated[
    str | None, typer.Option(help="Columns of a table that are no features, joined by commas.")
]
ImageSize = Annotated[
    int | None,
    typer.Option(help="Side in pixels that picture files are brought to (default: automatic)."),
]
Model = Annotated[
    str, typer.Option(help="auto, mlp, head, cnn, resnet18, inception or torchvision:<name>.")
]
_ENCODER = "Encoder of pictures"
Encoder = Annotated[
    str,
    typer.Option(
        help="auto (efficientnet_lite0 for photographs, without a GPU), none, efficientnet_lite0, "
        "a network of torchvision, or timm:NAME.",
        rich_help_panel=_ENCODER,
    ),
]
EncoderWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Its weights, instead of published ones.", rich_help_panel=_ENCODER
    ),
]
EncoderSize = Annotated[
    int | None,
    typer.Option(
        help="Side in pixels that it is given (default: its own).", rich_help_panel=_ENCODER
    ),
]
Folds = Annotated[
    int, typer.Option(min=2, help="Folds of the cross-validation, where a detector needs one.")
]
CScoreRuns = Annotated[
    int, typer.Option(min=1, help="Models of the C-scores, where a detector needs them.")
]
SubsetRatio = Annotated[
    float, typer.Option(help="Share of the data that each of those models trains on.")
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the data.")]
Augmentation = Annotated[
    str, typer.Option(help="auto, none, or crop, flip and affine joined by commas.")
]
Resume = Annotated[
    bool,
    typer.Option("--resume/--no-resume", help="Go on with what the folder holds, or start over."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show log messages and tracebacks.")]
Json = Annotated[bool, typer.Option("--json", help="Print a summary as JSON on stdout only.")]


def encoder(
    name: str, weights: Path | None, size: int | None, *, download: bool
) -> str | EncoderObject:
    """The encoder that options ask for, opened before data is read; "auto" and "none" as they are.

    Raises:
        UsageError: if there is none of that name, it is not installed, or its weights are not here.
        DataError: if its weights cannot be read.
    """
    if name in ("auto", "none"):
        if weights is not None or size is not None:
            raise UsageError("--encoder-weights and --encoder-size need --encoder NAME; add it")
        return name
    from noiseaudit.encoders.choice import create_encoder

    return create_encoder(name, weights=weights, image_size=size, download=download)


def names(text: str | None) -> list[str] | None:
    """Words joined by commas; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def numbers(text: str, kind: Callable[[str], _Number], option: str) -> list[_Number]:
    """Numbers joined by commas.

    Raises:
        UsageError: if one is no number.
    """
    try:
        return [kind(word) for word in names(text) or []]
    except ValueError as error:
        raise UsageError(f"{option} takes numbers joined by commas; got {text!r}") from error


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor or not encode."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return shown.encode("utf-8", "replace").decode("utf-8")
