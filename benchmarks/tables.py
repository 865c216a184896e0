"""Write the README's tables from benchmarks/results: `python benchmarks/tables.py [--check]`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _encoder_tables import (
    duplicates_embedded,
    encoders_cifar10,
    encoders_head,
    encoders_photos,
    encoders_sizes,
    round_trip,
)
from _proxy_tables import (
    memorization_profile,
    proxies_agreement,
    proxies_detection,
    proxies_removal,
)
from _results import interval, load, table
from _verdict_tables import review_counts, verdict, verdict_limits

import noiseaudit as na

README = Path(__file__).parent.parent / "README.md"
ONE_RUN = ("cumulative_loss", "area_under_margin", "cumulative_accuracy", "inconfidence")
HELD_OUT = ("self_confidence", "normalized_margin", "confident_learning")
# Curvature paper, Table 2: AUROC %, uniform noise, at 1, 2, 4, 6, 8, 10%.
PUBLISHED_MNIST = {
    "curvature": ("100", "100", "99.9", "99.9", "99.9", "99.9"),
    "confident learning": ("99.7", "99.3", "99.1", "98.9", "98.9", "98.9"),
    "inconfidence": ("99.4", "99.0", "98.4", "97.7", "97.1", "96.1"),
}
PUBLISHED_CIFAR10 = "AUROC: curvature 92.9, confident learning 93.4, inconfidence 81.5"
PUBLISHED_REMOVAL = "removal: over 95"  # C-score paper, Figure 7c
SETTINGS = (  # what the README calls it, task, noise, published %
    ("digits, uniform 10%", "digits", "uniform", ""),
    ("digits, pair 10%", "digits", "pair", ""),
    ("MNIST, pair 20%, no augmentation", "mnist_pair", "pair", ""),
    ("MNIST, pair 20%", "mnist_pair_augmented", "pair", ""),
    ("CIFAR-10, uniform 10%", "cifar10_uniform", "uniform", PUBLISHED_CIFAR10),
    ("CIFAR-10, uniform 25%", "cifar10_uniform_25", "uniform", PUBLISHED_REMOVAL),
    ("CIFAR-10N aggregate (9%)", "cifar10n", "CIFAR-10N aggregate", ""),
    ("CIFAR-10N worst (40%)", "cifar10n", "CIFAR-10N worst", ""),
)
STEPS = (0.001, 0.003, 0.01, 0.03, 0.1)
AGREEMENT_RUNS = (20, 50, 100)
DYNAMICS = {
    "cscores_dynamics_cifar10": "CIFAR-10, 50,000, `cnn`",
    "cscores_dynamics_mnist": "MNIST, 60,000, `mlp`",
}
CSCORE_DETECTORS = {
    "cscore at 0.5": "`cscore`, on halves",
    "cscore margin at 0.5": "`cscore` (normalized_margin), on halves",
    "self_confidence": "`self_confidence`, on 3/4",
    "normalized_margin": "`normalized_margin`, on 3/4",
    "memorization at 0.5": "`memorization`, on halves",
    "cumulative_loss": "`cumulative_loss`, one training",
}
STATISTICS = (
    "cumulative_confidence", "area_under_margin", "cumulative_loss", "cumulative_accuracy",
    "cumulative_max_confidence", "forgetting_events",
)  # fmt: skip
ARMS = ("noisy", "clean", "random_removal", "remove", "relabel")


def percent(values: list[float], digits: int = 2) -> str:
    """Mean in percent with the half width of its interval, where there are several seeds."""
    found = interval(values)
    text = f"{100 * found['mean']:.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {100 * found['half_width_95']:.{digits}f}"


def mnist() -> str:
    found = load("detection_mnist_uniform")
    rates = found["task"]["rates"]
    rows = []
    for detector in (*ONE_RUN, *HELD_OUT):
        own = {item["rate"]: item for item in found["detectors"] if item["detector"] == detector}
        seconds = [value for item in own.values() for value in item["seconds"]]
        cells = [percent(own[rate]["auroc"]) for rate in rates]
        rows.append([f"`{detector}`", *cells, f"{sum(seconds) / len(seconds):.0f}"])
    rows += curvature_on_mnist(rates)
    for name, cells in PUBLISHED_MNIST.items():
        rows.append([f"{name}, published", *cells, ""])
    return table(["AUROC %", *(f"{rate:.0%}" for rate in rates), "seconds"], rows)


def curvature_on_mnist(rates: list[float]) -> list[list[str]]:
    """Rows of curvature and of the loss in the same runs."""
    found = load("curvature_table")["rows"]
    rows = []
    for name, what, costs in (
        ("`curvature`, strided", "curvature", ("training_seconds", "watching_seconds")),
        ("`cumulative_loss`, strided", "loss", ("training_seconds",)),
    ):
        by_rate = [[row for row in found if row["rate"] == rate] for rate in rates]
        cells = [percent([row[what]["auroc"] for row in members]) for members in by_rate]
        seconds = [sum(row[cost] for cost in costs) for row in found]
        rows.append([name, *cells, f"{sum(seconds) / len(seconds):.0f}"])
    return rows


def curvature_step() -> str:
    """AUROC by step, and what the choice by planted flips loses against the best of them."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in load("curvature_sweep")["rows"]:
        groups.setdefault(row["setup"], []).append(row)
    names = [na.Curvature(h=h).statistic for h in STEPS]
    rows = []
    for setup, members in groups.items():
        cells = [percent([row["settings"][name]["auroc"] for row in members]) for name in names]
        chosen = ", ".join(f"{STEPS[names.index(row['chosen'])]:g}" for row in members)
        regret = max(row["regret"] for row in members)
        examples, (data, model) = members[0]["examples"], setup.rsplit("_", 1)
        data = data.removesuffix(f"_{examples}").replace("_", " ")
        told = f"{data}, {examples:,}, `{model}`"
        rows.append([told, *cells, chosen, f"{100 * regret:.2f}"])
    header = [
        "AUROC %", *(f"h = {h:g}" for h in STEPS), "chosen", "most lost by choosing, points"
    ]  # fmt: skip
    return table(header, rows)


def curvature_cost() -> str:
    """Training with it over bare training, and what it finds."""
    (cost,) = load("curvature_cost")["rows"]
    found = load("curvature_procedure")["rows"]
    rows = []
    for kind, ratio in cost["over_bare"].items():
        told = f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"
        rows.append([kind, told, percent([row["found"][kind]["auroc"] for row in found])])
    return table(["measured", "training with it over bare training", "AUROC %"], rows)


def memorization() -> str:
    """Agreement of curvature with the published memorization scores of CIFAR-100."""
    published = {0.0: (0.73, 0.82), 1e-4: (0.82, 0.90)}
    rows = []
    for row in load("curvature_memorization")["rows"]:
        for (name, key), paper in zip(
            (("all 50,000", "all"), ("5,000 most memorized", "most_memorized")),
            published[row["weight_decay"]],
            strict=True,
        ):
            found = row[key]
            cells = [f"{found[what]:.2f}" for what in ("spearman", "pearson", "cosine")]
            constant = f"{found['cosine_of_a_constant']:.2f}"
            decay = f"{row['weight_decay']:g}"
            rows.append([name, decay, *cells, constant, f"{paper:.2f}"])
    header = [
        "CIFAR-100", "weight decay", "Spearman", "Pearson", "cosine", "cosine of a constant",
        "cosine, published",
    ]  # fmt: skip
    return table(header, rows)


def cscores_agreement() -> str:
    """Growing numbers of models: how well they agree with each other and with the published."""
    found = load("cscores_agreement")["rows"]
    rows = []
    for scheme in ("balanced", "iid"):
        members = [row["curve"] for row in found if row["scheme"] == scheme]
        for runs in AGREEMENT_RUNS:
            own = [point for curve in members for point in curve if point["runs"] == runs]
            if not own:
                continue
            names = (
                "split_half_hard", "split_half_soft", "split_half_margin", "top_overlap",
                "published_scores", "lowest_scores",
            )  # fmt: skip
            cells = [plain([point[name] for point in own]) for name in names]
            rows.append([scheme, str(runs), *cells])
    header = [
        "subsets", "models", "hard", "soft", "margin", "1% lowest in common",
        "hard and published", "1% lowest in common with it",
    ]  # fmt: skip
    return table(header, rows)


def cscores_detection() -> str:
    """C-scores as detectors, with as many trainings as cleanlab."""
    found = load("cscores_detection")["rows"]
    rows = []
    for name, told in CSCORE_DETECTORS.items():
        cells = []
        for noise in ("uniform", "pair"):
            own = [row["found"][name] for row in found if row["noise"] == noise]
            cells += [
                percent([figures[what] for figures in own], digits)
                for what, digits in (("auroc", 2), ("average_precision", 1), ("removal_rate", 1))
            ]
        rows.append([told, *cells])
    figures = ("AUROC %", "AP %", "removal %")
    header = [f"{noise}: {name}" for noise in ("uniform 10%", "pair 20%") for name in figures]
    return table(["four trainings", *header], rows)


def cscores_batching() -> str:
    """Small networks trained at a time, over one after another."""
    rows = []
    for row in load("cscores_batching")["rows"]:
        told = f"{row['model']}, batches of {row['batch_size']}"
        for models, ratio in row["throughput_over_alone"].items():
            if models != "1":
                cell = f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"
                rows.append([told, models, cell, "yes" if row["chosen"] == int(models) else ""])
    return table(["network", "models at a time", "over one after another", "chosen"], rows)


def cscores_dynamics() -> str:
    """One run's statistics beside published C-scores, after the last epoch."""
    rows = []
    for name, told in DYNAMICS.items():
        members = load(name)["rows"]
        cells = [
            plain([row["spearman"][statistic][-1] for row in members]) for statistic in STATISTICS
        ]
        seconds = sum(row["seconds"] for row in members) / len(members)
        epochs = str(members[0]["epochs"])
        rows.append([told, epochs, f"{seconds:.0f}", *cells])
    return table(["Spearman", "epochs", "seconds", *(f"`{name}`" for name in STATISTICS)], rows)


def duplicates_scans() -> str:
    """The duplicates pass on data as it is."""
    names = ("examples", "seconds", "groups", "exact_groups", "conflicts", "near_conflicts")
    rows = [
        [row["source"], *(f"{row[name]:,.0f}" for name in names)]
        for row in load("duplicates_scans")["rows"]
    ]
    told = ("pictures", "seconds", "groups", "exact", "conflicts", "of them near")
    return table(["train split of", *told], rows)


def duplicates_planted() -> str:
    """Which changed copies are found, and how many of the conflicts they are in are true."""
    found = load("duplicates_planted")["rows"]
    rows = []
    for name in found[0]["recall"]:
        recall = percent([row["recall"][name] for row in found], 1)
        precision = [row["precision_of_each"][name] for row in found]
        told = "" if None in precision else percent(precision, 1)
        rows.append([name, recall, told])
    return table(["copy of a 32 x 32 picture", "recall %", "precision of its conflicts %"], rows)


def duplicates_harness() -> str:
    """The duplicates pass beside detectors, on planted conflicts."""
    found = load("duplicates_harness")["rows"]
    rows = []
    for name in found[0]["detectors"]:
        own = [row["detectors"][name] for row in found]
        cells = [
            percent([figures[what] for figures in own], 1)
            for what in ("auroc", "average_precision", "removal_rate")
        ]
        rows.append([f"`{name}`", *cells])
    confirmed = percent([row["conflicts_found"] for row in found], 1)
    rows.append(["duplicates", "", "", f"{confirmed} confirmed"])
    return table(["", "AUROC %", "AP %", "removal %"], rows)


def plain(values: list[float]) -> str:
    """Mean with the half width of its interval, as a number."""
    found = interval(values)
    text = f"{found['mean']:.3f}"
    return text if len(values) < 2 else f"{text} ± {found['half_width_95']:.3f}"


def detection() -> str:
    rows = []
    for title, task, noise, published in SETTINGS:
        found = [item for item in load(f"detection_{task}")["detectors"] if item["noise"] == noise]
        own = {item["detector"]: item for item in found}
        cells, seconds = [], []
        for name in (*ONE_RUN, *HELD_OUT[:2]):
            item = own.get(name)  # cleanlab's were not run there
            precision = 0.0 if item is None else interval(item["average_precision"])["mean"]
            cells.append(
                "" if item is None else f"{percent(item['auroc'])} / {100 * precision:.1f}"
            )
        for name in (ONE_RUN[0], HELD_OUT[0]):
            item = own.get(name)
            seconds.append("" if item is None else f"{interval(item['seconds'])['mean']:,.0f}")
        removal = percent(own[ONE_RUN[1]]["removal_rate"], 1)
        rows.append([title, *cells, removal, *seconds, published])
    names = [f"`{name}`" for name in (*ONE_RUN, *HELD_OUT[:2])]
    more = [f"removal % of {names[1]}", "one run, s", "4 folds, s", "published %"]
    return table(["", *names, *more], rows)


def retraining() -> str:
    rows = []
    for title, task in (("Fashion-MNIST", "fashion_mnist"), ("CIFAR-10, 25,000 of it", "cifar10")):
        found = load(f"detection_retrain_{task}")["retrained"]
        for rate in sorted({line["rate"] for line in found}):
            own = {line["arm"]: line for line in found if line["rate"] == rate}
            accuracies = []
            for arm in ARMS:
                mean, high = (own[arm][f"test_accuracy_{part}"] for part in ("mean", "high"))
                half = "" if high is None else f" ± {100 * (high - mean):.1f}"
                accuracies.append(f"{100 * mean:.1f}{half}")
            closed = [f"{100 * own[arm]['gap_closed']:.0f}" for arm in ("remove", "relabel")]
            fits = f"{100 * own['noisy']['train_accuracy_mean']:.0f}"
            seeds = str(own["noisy"]["seeds"])
            rows.append([f"{title}, uniform {rate:.0%}", seeds, *accuracies, *closed, fits])
    header = [
        "test accuracy %", "seeds", "noisy", "clean", "random removal", "flagged removed",
        "flagged relabelled", "gap closed by removal %", "by relabelling %", "noisy fits %",
    ]  # fmt: skip
    return table(header, rows)


def recorder_overhead() -> str:
    found = load("recorder_overhead")
    aum = found["recorder"]["aum_over_recorder"]["default"]
    training = found["training"]["watched_over_bare"]
    rows = [
        [
            "aum's `AUMCalculator` (one statistic) over `Recorder` (all of them), "
            f"one epoch of {found['recorder']['examples']:,} x 10 logits, batches of 128",
            f"{aum['median']:.0f} ({aum['lowest']:.0f} to {aum['highest']:.0f})",
        ],
        [
            "training `cnn` with the audit's observer over the bare loop",
            f"{training['median']:.3f} ({training['lowest']:.3f} to {training['highest']:.3f})",
        ],
    ]
    return table(["", "ratio"], rows)


COSTS = {  # what the README calls it
    "digits": "`audit`, digits, 1,797 of 8 x 8",
    "vectors_50000": "`audit`, 50,000 vectors of 128 numbers",
    "photos_500": "`audit`, 500 photographs, through the encoder",
    "fashion_mnist_10000": "`audit`, 10,000 grey pictures of 28 x 28",
    "fashion_mnist_60000": "`audit`, 60,000 of them",
    "cifar10_10000": "`audit`, 10,000 colour pictures of 32 x 32",
    "clean_photos": "`clean`, 500 photographs",
    "duplicates_50000": "`duplicates`, 50,000 of 32 x 32",
}


def costs() -> str:
    """Seconds and memory of whole commands, and how many times that with the verdict."""
    parts, rows = load("costs")["parts"], []
    for name, told in COSTS.items():
        if (part := parts.get(name)) is None:
            continue
        seconds = [part["seconds"], part["processor_seconds"]]
        both = part.get("with_verdict", {})
        times = [
            f"{both[what] / part[what]:.2f} times" if both else ""
            for what in ("seconds", "processor_seconds")
        ]
        most = max(part["megabytes"], both.get("megabytes", 0))
        rows.append([told, *(f"{value:,.0f}" for value in seconds), *times, f"{most:,.0f}"])
    head = ["command", "seconds", "processor seconds", "with verdict", "processor", "MB"]
    return table(head, rows)


TABLES: tuple[Callable[[], str], ...] = (
    mnist, detection, curvature_step, curvature_cost, memorization,
    cscores_agreement, cscores_batching, cscores_detection, cscores_dynamics,
    proxies_agreement, proxies_detection, proxies_removal, memorization_profile,
    retraining, duplicates_scans, duplicates_planted, duplicates_harness,
    encoders_photos, encoders_cifar10, encoders_sizes, encoders_head, duplicates_embedded,
    round_trip, verdict, verdict_limits, review_counts,
    recorder_overhead, costs,
)  # fmt: skip


def filled(text: str) -> str:
    """The README with every table made anew."""
    for make in TABLES:
        made = f"<!-- table: {make.__name__} -->\n{make()}\n<!-- /table -->"
        pattern = rf"<!-- table: {make.__name__} -->\n.*?<!-- /table -->"
        text, count = re.subn(pattern, lambda _, made=made: made, text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"the README has {count} places for the table {make.__name__}")
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    text = README.read_text(encoding="utf-8")
    wanted = filled(text)
    if parser.parse_args(arguments).check:
        return int(text != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
