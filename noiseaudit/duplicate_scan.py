"""From a loaded data set to its groups of copies: hash, propose, confirm, group, recommend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import check_finite
from noiseaudit.copies import Links, Thumbnails, confirm, group_links
from noiseaudit.dataset import LabeledDataset, Skipped
from noiseaudit.duplicate_groups import NONE, UNKNOWN, DuplicateGroups, differ
from noiseaudit.errors import DataError, UsageError
from noiseaudit.hamming import Pairs, hamming_pairs
from noiseaudit.picture_hashes import hash_pictures

__all__ = ["default_radius", "scan_duplicates"]

_BELIEF = 0.5  # mean probability that the believed label has at least,
_LEAD = 2.0  # and how many times that of the group's next one
_HELD_OUT = ("val", "test")  # splits that nothing is removed from


def default_radius(hash_size: int) -> int:
    """An eighth of the hash's bits, made even: 8 of 64."""
    return hash_size * hash_size // 16 * 2


def scan_duplicates(
    dataset: LabeledDataset,
    *,
    hash_name: str = "phash",
    hash_size: int = 8,
    radius: int | None = None,
    transforms: bool = False,
    pred_probs: ArrayLike | None = None,
    seed: int = 0,
    progress: bool = False,
) -> DuplicateGroups:
    """Find copies among the examples of a loaded data set; see `find_duplicates`.

    Raises:
        DataError: if `pred_probs` are not (n, k) and finite.
        UsageError: for an option that does not exist or does not fit.
    """
    radius = default_radius(hash_size) if radius is None else radius
    if not 0 <= radius < hash_size * hash_size:
        raise UsageError(f"radius must be in 0..{hash_size * hash_size - 1}; got {radius}")
    probs = None if pred_probs is None else np.asarray(pred_probs)
    if probs is not None:
        if probs.shape != (len(dataset), dataset.num_classes):
            wanted = (len(dataset), dataset.num_classes)
            raise DataError(f"pred_probs must have shape {wanted}; got {probs.shape}")
        check_finite(probs, "pred_probs")
    hashes = hash_pictures(
        dataset, kind=hash_name, hash_size=hash_size, transforms=transforms, progress=progress
    )
    readable = np.flatnonzero(hashes.readable)
    _, first, copy_of = np.unique(
        hashes.digests[readable], axis=0, return_index=True, return_inverse=True
    )
    firsts, original = readable[first], np.full(len(dataset), -1, np.int64)
    original[readable] = firsts[copy_of.ravel()]  # of each example, the first one with its pixels
    group = np.full(len(dataset), -1, np.int64)
    if dataset.kind == "images" and len(firsts):
        links, near = _near(dataset.inputs, np.sort(firsts), hashes.codes, radius, seed)
        group[readable] = near[original[readable]]
    else:
        none = np.empty(0, np.int64)
        links = Links(none.reshape(0, 2), none, np.empty(0), none)
    return _assemble(dataset, group, original, links, probs, hashes.skipped)


def _near(
    inputs: NDArray[np.uint8],
    rows: NDArray[np.int64],
    codes: NDArray[np.uint64],
    radius: int,
    seed: int,
) -> tuple[Links, NDArray[np.int64]]:
    """Confirmed pairs among `rows`, and the group of every example of the data set."""
    thumbnails = Thumbnails(inputs[rows], seed=seed)
    varied = np.flatnonzero(~thumbnails.is_flat)
    own = codes[rows[varied]]

    def candidates() -> Iterator[tuple[int, Pairs]]:
        for transform in range(own.shape[1]):
            other = None if transform == 0 else own[:, transform]
            for first, second, distances in hamming_pairs(own[:, 0], other, radius=radius):
                yield transform, (varied[first], varied[second], distances)

    links = confirm(candidates(), thumbnails)
    group = np.full(len(inputs), -1, np.int64)
    group[rows] = group_links(links, len(rows), thumbnails)
    return Links(rows[links.rows], links.distances, links.errors, links.transforms), group


def _assemble(
    dataset: LabeledDataset,
    group: NDArray[np.int64],
    original: NDArray[np.int64],
    links: Links,
    probs: NDArray[Any] | None,
    skipped: tuple[Skipped, ...],
) -> DuplicateGroups:
    """Join exact copies to the groups of near ones, and put the groups in order."""
    counts = np.bincount(original[original >= 0], minlength=len(dataset))
    has_exact = (original >= 0) & (counts[original] > 1)
    alone = has_exact & (group < 0)
    group = np.where(alone, original + group.max(initial=-1) + 1, group)
    numbers, group = np.unique(group, return_inverse=True)
    group = group.astype(np.int64) - int(bool(len(numbers)) and numbers[0] < 0)

    copies = np.flatnonzero(has_exact & (original != np.arange(len(dataset))))
    exact = np.sort(np.stack([original[copies], copies], axis=1), axis=1)
    zeros = np.zeros(len(copies), np.int64)
    links = Links(
        np.concatenate([exact, links.rows]),
        np.concatenate([zeros, links.distances]),
        np.concatenate([zeros, links.errors]),
        np.concatenate([zeros, links.transforms]),
    )
    distance = np.full(len(dataset), np.iinfo(np.int64).max)
    inside = group[links.rows[:, 0]] == group[links.rows[:, 1]]
    for side in links.rows[inside].T:
        np.minimum.at(distance, side, links.distances[inside])
    distance[group < 0] = -1

    found = DuplicateGroups(
        dataset,
        group,
        np.empty(group.max(initial=-1) + 1, bool),
        np.empty(0, np.int64),
        distance,
        np.empty(0, str),
        links,
        (*dataset.skipped, *skipped),
    )
    order = np.lexsort((
        [dataset.ids[rows[0]] for rows in found.members], ~found.is_leak, ~found.is_conflict,
    ))  # fmt: skip
    rank = np.empty(len(order) + 1, np.int64)
    rank[order], rank[-1] = np.arange(len(order)), -1
    members = [found.members[number] for number in order]
    believed = np.array([_believed(dataset.labels[rows], rows, probs) for rows in members], int)
    action = np.full(len(dataset), "", dtype="<U6")
    for rows, label in zip(members, believed, strict=True):
        action[rows] = _actions(dataset, rows, int(label))
    return DuplicateGroups(
        dataset,
        rank[group],
        ~differ(members, original),
        believed,
        distance,
        action,
        links,
        found.skipped,
    )


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
    actions = []
    for is_fixed, is_right in zip(fixed, right, strict=True):
        if is_fixed:
            actions.append("keep" if is_right else "review")
        elif believed == UNKNOWN:
            actions.append("review")
        elif is_right and not kept:
            actions.append("keep")
            kept = True
        else:
            actions.append("remove")
    return actions
