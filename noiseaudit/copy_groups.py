"""Confirmed copies joined to groups, but no chain from one picture to another."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.copies import Links, Thumbnails

__all__ = ["group_links", "join_groups", "split_by"]

logger = logging.getLogger(__name__)

_CHAIN = 2.0  # times the distance of a copy that members of one group may be apart
_LARGE = 2_000  # members above which a group is not looked through for chains


def group_links(links: Links, n: int, thumbnails: Thumbnails) -> NDArray[np.int64]:
    """The group of each of n rows, or -1: connected, but no chain from one picture to another.

    A component stays whole if all its members are within twice the distance of a copy of each
    other. Otherwise the member with most copies and these form a group, and so on with the rest; a
    member left over joins a copy of it.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = links.rows.T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    groups = np.full(n, -1, dtype=np.int64)
    linked = np.unique(links.rows)
    members = split_by(component[linked], linked)
    pairs = split_by(component[first], np.arange(len(first)))
    total = 0
    for rows, own in zip(members, pairs, strict=True):
        for part in _without_chains(rows, links.rows[own], links.transforms[own], thumbnails):
            groups[part] = total
            total += 1
    return groups


def join_groups(groups: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """`groups` of n rows, joined where further `pairs` of rows, (p, 2), connect them.

    A group, or a row without one, is a node; of a component of them the one with most neighbours
    and these become one group, and so on with the rest. No group is taken apart.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(groups)
    total = int(groups.max(initial=-1)) + 1
    node = np.where(groups >= 0, groups, total + np.arange(n))
    edges = np.unique(np.sort(node[pairs], axis=1), axis=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    graph = coo_array((np.ones(len(edges), np.int8), edges.T), shape=(total + n, total + n))
    _, component = connected_components(graph, directed=False)
    linked = np.unique(edges)
    own = split_by(component[edges[:, 0]], np.arange(len(edges)))
    number = np.arange(total + n)  # of the first node of the group that each node is in
    for members, numbers in zip(split_by(component[linked], linked), own, strict=True):
        places = np.searchsorted(members, edges[numbers])
        table = np.zeros((len(members), len(members)), dtype=bool)
        table[places[:, 0], places[:, 1]] = table[places[:, 1], places[:, 0]] = True
        for part in _stars(members, table):
            number[part] = part[0]
    used = np.zeros(n, dtype=bool)
    used[groups >= 0] = True
    used[pairs] = True
    result = np.full(n, -1, dtype=np.int64)
    result[used] = np.unique(number[node[used]], return_inverse=True)[1]
    return result


def split_by(keys: NDArray[Any], values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """`values` in one array for each key, in order of keys; within one as they stood."""
    if not len(keys):
        return []
    order = np.argsort(keys, kind="stable")
    return np.split(values[order], np.flatnonzero(np.diff(keys[order])) + 1)


def _without_chains(
    members: NDArray[np.int64],
    pairs: NDArray[np.int64],
    transforms: NDArray[np.int64],
    thumbnails: Thumbnails,
) -> list[NDArray[np.int64]]:
    m = len(members)
    if m == 2:
        return [members]
    if m > _LARGE:
        logger.warning("a group of %d copies is not looked through for chains", m)
        return [members]
    place = {int(row): i for i, row in enumerate(members)}
    linked = np.zeros((m, m), dtype=bool)
    for a, b in pairs:
        linked[place[int(a)], place[int(b)]] = linked[place[int(b)], place[int(a)]] = True
    first, second = np.nonzero(np.triu(~linked, 1))
    if len(first):
        limits = _CHAIN**2 * thumbnails.limits(members)
        apart = np.min(
            [
                thumbnails.squared_distances(members[first], members[second], int(transform))
                for transform in np.unique([0, *transforms])
            ],
            axis=0,
        )
        if (apart > np.minimum(limits[first], limits[second])).any():
            return _stars(members, linked)
    return [members]


def _stars(members: NDArray[np.int64], linked: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The member with most links among those left (the first of several) and these, repeatedly.

    A member whose copies are all taken joins the group of the first of them: that it is a copy is
    confirmed, whatever the rest of the chain.
    """
    number = np.full(len(members), -1)
    while True:
        left = number < 0
        degrees = (linked & left[None, :] & left[:, None]).sum(axis=1)
        centre = int(degrees.argmax())
        if degrees[centre] == 0:
            break
        chosen = linked[centre] & left
        chosen[centre] = True
        number[chosen] = number.max() + 1
    centres = number.copy()
    for place in np.flatnonzero(number < 0):
        number[place] = centres[np.flatnonzero(linked[place] & (centres >= 0))[0]]
    return split_by(number, members)
