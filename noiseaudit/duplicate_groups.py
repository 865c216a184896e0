"""Groups of copies among the examples of a data set, and what to do about each.

A conflict - one picture, several given labels - is evidence where a score is only suspicion: at
most one of its labels is right. Copies with one label are wasteful; copies across splits leak.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._html import show_table
from noiseaudit.copies import EMBEDDING, FOUND_BY, Links
from noiseaudit.copy_groups import split_by
from noiseaudit.dataset import LabeledDataset
from noiseaudit.picture_hashes import TRANSFORMS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NONE", "UNKNOWN", "DuplicateGroups", "differ"]

UNKNOWN, NONE = -2, -1
"""Of the label that a group's picture is believed to have: not asked; asked, and none is."""

_NAMED = 3  # of a group's other members in a sentence


@dataclass(frozen=True, eq=False)
class DuplicateGroups:
    """The copies among n examples, in g groups: conflicts first, then leaks, then the rest.

    Attributes:
        dataset: what was scanned.
        group: (n,) int64 number of each example's group, or -1.
        is_exact: (g,) bool, whether all pixels of a group are identical.
        believed: (g,) int64, the one label that its picture is believed to have; -1 if none is,
            -2 if there was nothing to judge by.
        distance: (n,) int64, Hamming distance to the nearest copy in the group, -1 without one.
        action: (n,) texts: "keep", "remove" or "review", "" outside groups.
        is_window: (g,) bool, whether an embedding found a link of it: one picture shows a window
            of another, which need not deserve its label.
        links: confirmed pairs, exact ones (error 0, distance 0) as the first copy with each other.
    """

    dataset: LabeledDataset
    group: NDArray[np.int64]
    is_exact: NDArray[np.bool_]
    believed: NDArray[np.int64]
    distance: NDArray[np.int64]
    action: NDArray[np.str_]
    is_window: NDArray[np.bool_]
    links: Links

    def __len__(self) -> int:
        return len(self.is_exact)

    @cached_property
    def members(self) -> list[NDArray[np.int64]]:
        """Rows of each group, in order of their ids."""
        rows = np.flatnonzero(self.group >= 0)
        rows = rows[np.argsort(self.dataset.ids[rows])]
        return split_by(self.group[rows], rows)

    @cached_property
    def is_conflict(self) -> NDArray[np.bool_]:
        """(g,) bool, whether its copies are given different labels."""
        return differ(self.members, self.dataset.labels)

    @cached_property
    def is_leak(self) -> NDArray[np.bool_]:
        """(g,) bool, whether it has copies in several splits."""
        split = self.dataset.split
        return np.zeros(len(self), bool) if split is None else differ(self.members, split)

    def believed_of_each(self) -> NDArray[np.int64]:
        """(n,) the label that its picture is believed to have, `NONE`, or `UNKNOWN` alone."""
        each: NDArray[np.int64] = np.append(self.believed, UNKNOWN)[self.group]
        return each

    def in_conflict(self) -> NDArray[np.bool_]:
        """(n,) bool, the examples of conflicts."""
        # The number -1, of no group, takes what is appended.
        inside: NDArray[np.bool_] = np.append(self.is_conflict, False)[self.group]
        return inside

    def summary(self) -> dict[str, int]:
        """Counts: groups, examples in them, conflicts, leaks, and copies that one could spare."""
        sizes = np.array([len(rows) for rows in self.members], dtype=np.int64)
        same = ~self.is_conflict
        return {
            "examples": len(self.dataset),
            "groups": len(self),
            "exact_groups": int(self.is_exact.sum()),
            "in_groups": int(sizes.sum()),
            "conflicts": int(self.is_conflict.sum()),
            "in_conflicts": int(sizes[~same].sum()),
            "leaks": int(self.is_leak.sum()),
            "spare_copies": int((sizes[same] - 1).sum()),
            "skipped": len(self.dataset.skipped),
        }

    def reason(self, row: int) -> str:
        """A plain sentence on one example of a group."""
        number = int(self.group[row])
        rows, labels, ids = self.members[number], self.dataset.labels, self.dataset.ids
        names = self.dataset.class_names
        others = rows[rows != row]
        same = "identical to" if self.is_exact[number] else "the same picture as"
        if self.is_window[number]:
            same = "shows a part of, or all of, what is in"
        if not self.is_conflict[number]:
            return f"{same} sample {_listed(str(ids[other]) for other in others)}, same label"
        odd = (f"{ids[o]}, labelled {names[labels[o]]}" for o in others if labels[o] != labels[row])
        text = f"{same} sample {_listed(odd)}"
        believed = int(self.believed[number])
        if believed >= 0:
            return f"{text}; the model believes {names[believed]}"
        return f"{text}; the model believes none of the labels" if believed == NONE else text

    def to_frame(self) -> pd.DataFrame:
        """The table of `groups.csv`: one row per example of a group."""
        import pandas as pd

        header, rows = self.group_rows()
        return pd.DataFrame(list(rows), columns=header)

    def _repr_html_(self) -> str:
        counts = self.summary()
        told = (
            f"{counts['groups']:,} pictures with copies, {counts['conflicts']:,} of them under "
            f"conflicting labels, {counts['leaks']:,} across splits"
        )
        return show_table(told, self.to_frame())

    def links_frame(self) -> pd.DataFrame:
        """The table of `links.csv`: one row per confirmed pair."""
        import pandas as pd

        header, rows = self.link_rows()
        return pd.DataFrame(list(rows), columns=header)

    def group_rows(self) -> tuple[list[str], Iterator[list[Any]]]:
        """Header and rows of `groups.csv`."""
        header = [
            "group", "sample_id", "source", "label", "kind", "distance", "conflict", "split",
            "action", "leakage",
        ]  # fmt: skip
        data = self.dataset

        def rows() -> Iterator[list[Any]]:
            for number, members in enumerate(self.members):
                for row in members:
                    yield [
                        number,
                        int(data.ids[row]),
                        "" if data.sources is None else str(data.sources[row]),
                        data.class_names[data.labels[row]],
                        "exact" if self.is_exact[number] else "near",
                        int(self.distance[row]),
                        bool(self.is_conflict[number]),
                        "" if data.split is None else str(data.split[row]),
                        str(self.action[row]),
                        bool(self.is_leak[number]),
                    ]

        return header, rows()

    def link_rows(self) -> tuple[list[str], Iterator[list[Any]]]:
        """Header and rows of `links.csv`; `group` is empty where a chain was cut.

        `similarity` and `window` (left, top, right, bottom in shares of the first picture's sides:
        what the second shows of it) are of the pairs that embeddings found.
        """
        header = [
            "group", "sample_id", "other_id", "distance", "error", "transform", "found_by",
            "similarity", "window",
        ]  # fmt: skip
        links, ids = self.links, self.dataset.ids

        def rows() -> Iterator[list[Any]]:
            for place, (first, second) in enumerate(links.rows):
                both = self.group[first] == self.group[second] >= 0
                embedded = links.found_by[place] == EMBEDDING
                yield [
                    int(self.group[first]) if both else "",
                    int(ids[first]),
                    int(ids[second]),
                    int(links.distances[place]),
                    round(float(links.errors[place]), 6),
                    TRANSFORMS[links.transforms[place]],
                    FOUND_BY[links.found_by[place]],
                    round(float(links.similarities[place]), 4) if embedded else "",
                    " ".join(f"{x:.3f}" for x in links.windows[place]) if embedded else "",
                ]

        return header, rows()


def differ(groups: list[NDArray[np.int64]], values: NDArray[Any]) -> NDArray[np.bool_]:
    """(g,) bool, whether the `values` at each group's rows are not all the same."""
    return np.array([(values[rows] != values[rows[0]]).any() for rows in groups], dtype=bool)


def _listed(words: Iterator[str]) -> str:
    shown = list(islice(words, _NAMED + 1))
    return f"{'; '.join(shown[:_NAMED])}{' and others' if len(shown) > _NAMED else ''}"
