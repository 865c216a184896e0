"""From copies to groups: conflicts, leaks, and what to do about each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import check_finite
from noiseaudit.copies import EMBEDDING, PIXELS, Links
from noiseaudit.copy_groups import split_by
from noiseaudit.copy_scan import CopyOptions, CopyScan, scan_copies
from noiseaudit.dataset import LabeledDataset
from noiseaudit.duplicate_groups import NONE, UNKNOWN, DuplicateGroups, differ
from noiseaudit.errors import DataError

__all__ = ["check_belief", "scan_duplicates"]

_BELIEF = 0.5  # mean probability that the believed label has at least,
_LEAD = 2.0  # and how many times that of the group's next one
_HELD_OUT = ("val", "test")  # splits that nothing is removed from


def scan_duplicates(
    dataset: LabeledDataset,
    options: CopyOptions | None = None,
    *,
    pred_probs: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    folder: Path | None = None,
    resume: bool = True,
    progress: bool = False,
) -> DuplicateGroups:
    """Find copies among the examples of a loaded data set; see `find_duplicates`.

    Args:
        dataset: where to look.
        options: how; default `CopyOptions()`.
        pred_probs: (n, k) probabilities to judge conflicts by.
        embeddings: (n, d) numbers, to find re-crops and changes of colour too.
        folder: where what was found is kept, and read from by the next call.
        resume: whether to read it.
        progress: show bars on stderr when it is a terminal.

    Raises:
        DataError: see `check_belief`; for embeddings that are not as above.
        UsageError: for embeddings of examples that are no pictures.
    """
    probs = None if pred_probs is None else check_belief(pred_probs, dataset)
    chosen = CopyOptions() if options is None else options
    copies = scan_copies(
        dataset, chosen, folder, embeddings=embeddings, resume=resume, progress=progress
    )
    return _assemble(dataset, copies, probs)


def check_belief(pred_probs: ArrayLike, dataset: LabeledDataset) -> NDArray[Any]:
    """The probabilities that conflicts are judged by, checked.

    Raises:
        DataError: if they are not (n, k) and in [0, 1].
    """
    probs = np.asarray(pred_probs)
    wanted = (len(dataset), dataset.num_classes)
    if probs.shape != wanted:
        raise DataError(f"pred_probs must have shape {wanted}; got {probs.shape}")
    check_finite(probs, "pred_probs")
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1 + 1e-6):
        raise DataError("pred_probs must lie in [0, 1]: logits and log-probabilities do not")
    return probs


def _assemble(
    dataset: LabeledDataset, copies: CopyScan, probs: NDArray[Any] | None
) -> DuplicateGroups:
    """Join exact copies to the groups of near ones, and put the groups in order."""
    original, group, links = copies.original, copies.group, copies.links
    has_exact = np.bincount(original, minlength=len(dataset))[original] > 1
    alone = has_exact & (group < 0)
    group = np.where(alone, original + group.max(initial=-1) + 1, group)
    numbers, group = np.unique(group, return_inverse=True)
    group = group.astype(np.int64) - int(bool(len(numbers)) and numbers[0] < 0)

    others = np.flatnonzero(has_exact & (original != np.arange(len(dataset))))
    exact = np.sort(np.stack([original[others], others], axis=1), axis=1)
    zeros = np.zeros(len(others), np.int64)
    links = Links.joined([Links.whole(exact, zeros, zeros.astype(float), zeros, PIXELS), links])
    distance = np.full(len(dataset), np.iinfo(np.int64).max)
    inside = group[links.rows[:, 0]] == group[links.rows[:, 1]]
    for side in links.rows[inside].T:
        np.minimum.at(distance, side, links.distances[inside])
    distance[group < 0] = -1

    rows = np.flatnonzero(group >= 0)
    members = split_by(group[rows], rows)
    split = np.zeros(len(dataset)) if dataset.split is None else dataset.split
    first_ids = [dataset.ids[own].min() for own in members]
    order = np.lexsort((first_ids, ~differ(members, split), ~differ(members, dataset.labels)))
    rank = np.full(len(order) + 1, -1)  # its last, of no group, stays -1
    rank[order] = np.arange(len(order))
    members = [members[number][np.argsort(dataset.ids[members[number]])] for number in order]
    believed = np.array([_believed(dataset.labels[own], own, probs) for own in members], np.int64)
    action = np.full(len(dataset), "", dtype="<U6")
    group = rank[group]
    windows = group[links.rows[links.found_by == EMBEDDING]].ravel()
    is_window = np.isin(np.arange(len(members)), windows)
    for number, (own, label) in enumerate(zip(members, believed, strict=True)):
        # A part of a picture may rightly have another label.
        action[own] = "review" if is_window[number] else _actions(dataset, own, int(label))
    is_exact = ~differ(members, original)
    return DuplicateGroups(dataset, group, is_exact, believed, distance, action, is_window, links)


def _believed(
    labels: NDArray[np.int64], rows: NDArray[np.int64], probs: NDArray[Any] | None
) -> int:
    """The label that a group's copies agree on, or that their predictions clearly prefer."""
    given = np.unique(labels)
    if len(given) == 1:
        return int(given[0])
    if probs is None:
        return UNKNOWN
    mean = probs[rows][:, given].mean(axis=0)
    next_best, best = np.sort(mean)[-2:]
    return int(given[mean.argmax()]) if best >= _BELIEF and best >= _LEAD * next_best else NONE


def _actions(dataset: LabeledDataset, rows: NDArray[np.int64], believed: int) -> list[str]:
    """Keep one copy with the believed label, which a held-out one is by itself; drop the rest."""
    labels = dataset.labels[rows]
    fixed = (
        np.zeros(len(rows), bool) if dataset.split is None
        else np.isin(dataset.split[rows], _HELD_OUT)
    )  # fmt: skip
    right = labels == believed
    kept = bool((fixed & right).any())
    sources = [""] * len(rows) if dataset.sources is None else dataset.sources[rows].tolist()
    seen: set[str] = set()
    actions = []
    for is_fixed, is_right, source in zip(fixed, right, sources, strict=True):
        if is_right and source and source in seen:  # one file, listed twice: it must stay
            actions.append("keep")
            continue
        if is_fixed:
            actions.append("keep" if is_right else "review")
        elif believed == UNKNOWN:
            actions.append("review")
        elif is_right and not kept:
            actions.append("keep")
            kept = True
            seen.add(source)
        else:
            actions.append("remove")
    return actions
