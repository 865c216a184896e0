"""Duplicates: scan a data set for copies of one picture, and write what was found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from noiseaudit._io import write_csv, write_json
from noiseaudit.array_files import array_or_file
from noiseaudit.copy_scan import CopyOptions
from noiseaudit.duplicate_groups import DuplicateGroups
from noiseaudit.duplicate_scan import check_belief, scan_duplicates
from noiseaudit.duplicates_presentation import build_duplicates_document
from noiseaudit.embedded_copies import check_embeddings
from noiseaudit.loaders import load
from noiseaudit.manifest import package_versions, write_manifest
from noiseaudit.report import document_to_dict, write_report
from noiseaudit.workspace import output_folder, write_skipped

__all__ = ["find_duplicates", "save_groups"]

_FORMAT = 1
_RESULTS = ("groups.csv", "links.csv", "skipped.csv", "report.html", "report.json")


def find_duplicates(
    source: Any,
    *,
    out: str | Path | None = None,
    hash_name: str = "phash",
    hash_size: int = 8,
    radius: int | None = None,
    transforms: bool = False,
    pred_probs: ArrayLike | Path | None = None,
    embeddings: ArrayLike | None = None,
    resume: bool = True,
    progress: bool = False,
) -> DuplicateGroups:
    """Find copies of one picture, conflicts between their labels, and copies across splits.

    Exact copies have identical decoded pixels, whatever the format. Near copies are proposed by a
    perceptual hash, every pair within `radius` being found, and confirmed on pixels: thumbnails of
    16 x 16 without brightness and contrast must correlate by 0.9, and lie 2.5 times closer than
    unrelated pictures of the same data set begin to lie. Of vectors only identical ones are copies.

    With `embeddings`, re-crops to half the side and changes of colour are found too: neighbours
    among them are proposed, and confirmed where the structure of one picture agrees with that of
    a window of the other, everywhere in it; see `embedded_copies`.

    Cost: 50,000 pictures of 32 x 32 take 10 to 20 s on two cores, with embeddings minutes; hashes
    of files are kept in the user's cache, so that a second scan, with pictures added, hashes only
    these.

    Args:
        source: a `LabeledDataset`, or anything that `load` accepts.
        out: folder for `groups.csv`, `links.csv`, `report.html`, `manifest.json`.
        hash_name: "phash", "dhash", "whash" or "ahash", as `imagehash` has them.
        hash_size: bits along a side of the hash.
        radius: greatest Hamming distance of candidates; default an eighth of the bits. Distances of
            64-bit pHashes are practically always even: choose an even one.
        transforms: whether to look for mirrored and turned copies too, hashing eight pictures for
            each.
        pred_probs: (n, k) probabilities of the classes, out-of-sample or averaged over training,
            to say which of conflicting labels is believed; or a file of them: .npy, .npz#KEY or
            .csv, the `cscores.npz` of the same source among them.
        embeddings: (n, d) numbers of the examples, in their order, by any encoder of pictures.
        resume: use what an earlier scan of the same data left in `out`; False starts over, and
            overwrites one with other options.
        progress: show bars on stderr when it is a terminal.

    Raises:
        DataError: if the source cannot be used.
        UsageError: for an option that does not exist or does not fit.
        OutputError: if `out` cannot be written or belongs to something else.
        ManifestMismatchError: if `out` holds a scan with other options.
    """
    options = CopyOptions(hash_name, hash_size, radius, transforms)
    dataset = load(source, progress=progress)
    if pred_probs is not None:
        pred_probs = check_belief(array_or_file(pred_probs, "pred_probs"), dataset)
    vectors = None if embeddings is None else check_embeddings(embeddings, dataset)
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "command": "duplicates",
        "source": dataset.name,
        "data": dataset.fingerprint,  # not in config: pictures may be added
        "config": asdict(options) | ({} if vectors is None else {"embeddings": True}),
        "versions": package_versions(),
        "status": "running",
    }
    with output_folder(out, manifest, _RESULTS, resume=resume) as folder:
        found = scan_duplicates(
            dataset,
            options,
            pred_probs=pred_probs,
            embeddings=vectors,
            folder=None if out is None else folder / "scan",
            resume=resume,
            progress=progress,
        )
        if out is not None:
            manifest |= {"status": "done", "results": found.summary()}
            save_groups(found, folder)
            write_skipped(dataset.skipped, folder)
            document = build_duplicates_document(found, manifest)
            write_json(folder / "report.json", document_to_dict(document))
            write_report(document, folder / "report.html")
            write_manifest(folder / "manifest.json", manifest)
    return found


def save_groups(found: DuplicateGroups, folder: Path) -> None:
    """Write `groups.csv` and `links.csv`."""
    write_csv(folder / "groups.csv", *found.group_rows())
    write_csv(folder / "links.csv", *found.link_rows())
