"""Tables of what a frozen encoder gives, and of copies found with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from _results import interval, load, table

SCRATCH = ("cumulative_loss", "area_under_margin")
SCRATCH_50000 = ("detection_cifar10_uniform", "detection_cifar10n")


def cell(rows: list[dict[str, Any]]) -> str:
    """AUROC with its interval and average precision, both in percent."""
    if not rows:
        return ""
    auroc = interval([row["auroc"] for row in rows])
    precision = sum(row["average_precision"] for row in rows) / len(rows)
    around = f" ± {100 * auroc['half_width_95']:.2f}" if len(rows) > 1 else ""
    return f"{100 * auroc['mean']:.2f}{around} / {100 * precision:.0f}"


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def where(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def encoders_photos() -> str:
    """Both routes and cleanlab on 500 photographs."""
    found = load("encoders_photos")["rows"]
    noises = list(dict.fromkeys(row["noise"] for row in found))
    rows = []
    for route, detector in dict.fromkeys((row["route"], row["detector"]) for row in found):
        own = where(found, route=route, detector=detector)
        cells = [cell(where(own, noise=noise)) for noise in noises]
        name = detector if " " in detector else f"`{detector}`"
        told = "embeddings" if route == "encoder" else "from scratch"
        rows.append([told, name, *cells, f"{mean(row['seconds'] for row in own):.0f}"])
    rows.sort(key=lambda row: row[0])
    return table(["500 photographs", "AUROC % / AP %", *noises, "seconds"], rows)


def encoders_cifar10() -> str:
    """Both routes on small pictures, and what they take in all."""
    found = load("encoders_cifar10")["rows"] + scratch_10000() + scratch_50000()
    noises = list(dict.fromkeys(row["noise"] for row in found))
    rows = []
    groups = dict.fromkeys(
        (row["examples"], row["route"], row.get("size"), row["detector"]) for row in found
    )
    for group in sorted(groups, key=lambda group: (group[0], group[1], group[2] or 0)):
        examples, route, size, detector = group
        own = where(found, examples=examples, route=route, size=size, detector=detector)
        cells = [cell(where(own, noise=noise)) for noise in noises]
        total = mean(row["seconds"] + row.get("embedding_seconds", 0.0) for row in own)
        name = detector if " " in detector else f"`{detector}`"
        told = f"{size} px" if route == "encoder" else "from scratch"
        rows.append([f"{examples:,}", told, name, *cells, f"{total:,.0f}"])
    return table(["CIFAR-10", "", "AUROC % / AP %", *noises, "seconds"], rows)


def scratch_10000() -> list[dict[str, Any]]:
    """Rows of training from scratch, as `proxies.py` measured them and `costs.py` timed them."""
    seconds = load("costs")["parts"]["cifar10_10000"]["seconds"]
    rows = []
    for item in where(load("proxies_detection")["rows"], source="cifar10", examples=10_000):
        told = {"uniform": "uniform 10%", "pair": "pair 20%"}[item["noise"]]
        rows += [
            {
                **figures, "examples": 10_000, "route": "scratch", "noise": told,
                "seconds": seconds,
            }
            for figures in item["figures"]
            if figures["detector"] in SCRATCH
        ]  # fmt: skip
    return rows


def scratch_50000() -> list[dict[str, Any]]:
    """Rows of training from scratch on all of CIFAR-10, as `detection.py` measured them."""
    rows = []
    for name in SCRATCH_50000:
        for item in load(name)["detectors"]:
            if item["detector"] not in SCRATCH:
                continue
            told = "uniform 10%" if item["noise"] == "uniform" else item["noise"]
            for auroc, precision, seconds in zip(
                item["auroc"], item["average_precision"], item["seconds"], strict=True
            ):
                rows.append(
                    {
                        "examples": 50_000, "route": "scratch", "noise": told,
                        "detector": item["detector"], "auroc": auroc,
                        "average_precision": precision, "seconds": seconds,
                    }
                )  # fmt: skip
    return rows


def encoders_sizes() -> str:
    """What a larger input gives and costs."""
    rows = load("encoders_sizes")["rows"]
    return table(
        ["side, px", *(str(row["size"]) for row in rows)],
        [
            ["accuracy %", *(f"{100 * row['accuracy']:.1f}" for row in rows)],
            ["ms a picture", *(f"{1000 * row['seconds_a_picture']:.0f}" for row in rows)],
        ],
    )


def encoders_head() -> str:
    """AUROC of the mean loss by head and recipe, mean over seeds."""
    found = load("encoders_head")["rows"]
    columns = dict.fromkeys((row["data"], row["noise"]) for row in found)
    rows = []
    for head in dict.fromkeys(row["head"] for row in found):
        cells = []
        for data, noise in columns:
            own = where(found, data=data, noise=noise, head=head, detector="cumulative_loss")
            cells.append(f"{100 * mean(row['auroc'] for row in own):.2f}")
        rows.append([head, *cells])
    header = [f"{data}, {noise}".replace("_", " ") for data, noise in columns]
    return table(["AUROC % of `cumulative_loss`", *header], rows)


def round_trip() -> str:
    """What became of planted errors, and of a classifier trained before and after."""
    found = load("round_trip")["rows"]
    columns = ("accuracy_as_it_was", "accuracy_cleaned", "accuracy_of_right_labels")
    rows = [
        [
            f"{row['planted']} of {row['examples']}", str(row["looked_at"]),
            str(row["relabelled"]), *(f"{100 * row[name]:.0f}" for name in columns),
        ]
        for row in found
    ]  # fmt: skip
    header = [
        "planted", "suspects looked at", "planted ones relabelled",
        "accuracy % as it was", "cleaned", "with right labels",
    ]  # fmt: skip
    return table(header, rows)


def duplicates_embedded() -> str:
    """Copies found by hash alone and with embeddings."""
    found = load("duplicates_embedded")["rows"]
    rows = []
    for change in found[0]["hash"]["recall"]:
        cells = [
            f"{100 * mean(row[how]['recall'][change] for row in found):.0f}"
            for how in ("hash", "hash_and_embeddings")
        ]
        rows.append([change, *cells])
    return table(["copy of a photograph: recall %", "hash", "with embeddings"], rows)
