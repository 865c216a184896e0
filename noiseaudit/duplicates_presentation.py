"""From groups of copies to what the report shows."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from noiseaudit.dataset import LabeledDataset
from noiseaudit.duplicate_groups import NONE, DuplicateGroups
from noiseaudit.images import data_uri, thumbnail
from noiseaudit.report import Copy, CopyGroup, ReportDocument

__all__ = ["build_duplicates_document", "copy_counts", "copy_groups", "picture_uri"]

_SHOWN = 100  # groups of a kind on the page; all are in groups.csv
_COPIES = 6  # of a group
_THUMBNAIL_SIDE = 160  # pixels: a label can be judged, and 300 pictures take about 2 MB
_SMALL_SIDE = 40  # of a picture beside another one
_TINY = 16  # up to here a PNG is the smaller file


def picture_uri(dataset: LabeledDataset, row: int, *, small: bool = False) -> str:
    """A data URI: of the original file where there is one, else of the array."""
    side = _SMALL_SIDE if small else _THUMBNAIL_SIDE
    if dataset.root is not None and dataset.sources is not None and dataset.sources[row]:
        try:
            return _uri(thumbnail(dataset.root / str(dataset.sources[row]), side), small)
        except (OSError, ValueError):
            pass  # moved or changed since it was decoded: show what was audited
    return _uri(thumbnail(dataset.inputs[row], side), small)


def _uri(image: Image.Image, small: bool) -> str:
    return data_uri(image, png_side=_TINY) if small else data_uri(image)


def copy_counts(found: DuplicateGroups) -> tuple[tuple[str, int], ...]:
    """Numbers of groups for the page."""
    same = ~found.is_conflict
    return (
        ("groups", len(found)),
        ("conflicts", int(found.is_conflict.sum())),
        ("leaks", int(found.is_leak.sum())),
        ("leaks_alone", int((same & found.is_leak).sum())),
        ("spare", int((same & ~found.is_leak).sum())),
    )


def copy_groups(found: DuplicateGroups) -> tuple[CopyGroup, ...]:
    """The first groups of each kind, with pictures."""
    kinds = (
        found.is_conflict,
        ~found.is_conflict & found.is_leak,
        ~found.is_conflict & ~found.is_leak,
    )
    numbers = np.concatenate([np.flatnonzero(kind)[:_SHOWN] for kind in kinds])
    data = found.dataset
    shown = [found.members[number][:_COPIES] for number in numbers]
    rows = np.concatenate([*shown, np.empty(0, np.int64)]).astype(int)
    pictures = dict.fromkeys(rows.tolist(), "")
    if data.kind == "images":
        with ThreadPoolExecutor() as pool:
            uris = pool.map(lambda row: picture_uri(data, row), pictures)
            pictures = dict(zip(pictures, uris, strict=True))
    return tuple(
        CopyGroup(
            number=int(number),
            kind="exact" if found.is_exact[number] else "near",
            is_conflict=bool(found.is_conflict[number]),
            is_leak=bool(found.is_leak[number]),
            note=_note(found, int(number)),
            copies=tuple(
                Copy(
                    sample_id=int(data.ids[row]),
                    source="" if data.sources is None else str(data.sources[row]),
                    label=data.class_names[data.labels[row]],
                    split="" if data.split is None else str(data.split[row]),
                    action=str(found.action[row]),
                    thumbnail=pictures[int(row)],
                )
                for row in members
            ),
            more=len(found.members[number]) - len(members),
        )
        for number, members in zip(numbers, shown, strict=True)
    )


def _note(found: DuplicateGroups, number: int) -> str:
    believed = int(found.believed[number])
    if found.is_window[number]:
        return "One shows a part of another, or has other colours; a part may have its own label."
    if not found.is_conflict[number]:
        return ""
    if believed >= 0:
        return f"The model believes {found.dataset.class_names[believed]}."
    if believed == NONE:
        return "The model believes none of these labels: better to drop all copies."
    return ""


def build_duplicates_document(
    found: DuplicateGroups, manifest: Mapping[str, Any]
) -> ReportDocument:
    """The page of `noiseaudit duplicates`."""
    data, counts = found.dataset, found.summary()
    notes = []
    if data.skipped:
        notes.append(f"{len(data.skipped):,} files could not be read; see skipped.csv.")
    splits = "" if data.split is None else ", ".join(np.unique(data.split).tolist())
    return ReportDocument(
        title=data.name,
        headline=(
            f"Pictures with copies: {counts['groups']:,}; under conflicting labels: "
            f"{counts['conflicts']:,}; across splits: {counts['leaks']:,}. Copies to spare: "
            f"{counts['spare_copies']:,}."
        ),
        detector="",
        examples=len(data),
        issues=0,
        facts=(
            ("examples", f"{len(data):,}"),
            ("classes", f"{data.num_classes:,}"),
            ("inputs", data.kind),
            *((("splits", splits),) if splits else ()),
            *((("folder", str(data.root)),) if data.root is not None else ()),
            ("fingerprint", data.content_digest),
        ),
        notes=tuple(notes),
        settings=(
            *((name.replace("_", " "), str(value)) for name, value in manifest["config"].items()),
            ("versions", ", ".join(f"{name} {v}" for name, v in manifest["versions"].items())),
        ),
        version=manifest["versions"]["noiseaudit"],
        groups=copy_groups(found),
        copies=copy_counts(found),
    )  # fmt: skip
