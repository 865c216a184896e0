"""Tables of verdicts and reviews: `benchmarks/verdict.py` and `benchmarks/review_budget.py`."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from _results import RESULTS, load, table

SETS = {
    "digits": "digits, 1,797",
    "digits_vectors": "digits, 1,797, as vectors",
    "photos": "photographs, 500, encoded",
    "mnist": "MNIST, 10,000, `mlp`",
    "fashion_mnist": "Fashion-MNIST, 5,000, `cnn`",
    "cifar10": "CIFAR-10, 5,000, encoded",
    "cifar10n": "CIFAR-10N, 10,000, encoded",
}
OTHERS = ("cleanlab", "log_margin_mixture", "prediction_differs")


def bar_of(row: dict[str, Any]) -> float:
    """The relative error that an estimated rate may have."""
    if row["noise"] in ("uniform", "pair"):
        return 0.15 if row["wanted"] <= 0.02 else 0.1
    return 0.25 if row["noise"] == "human" else 0.2


def error(rate: float, row: dict[str, Any]) -> float:
    return abs(rate / row["true"] - 1)


def line(name: str, noise: str, rows: list[dict[str, Any]]) -> list[str]:
    title, wanted = SETS.get(name, name), sum(row["true"] > 0 for row in rows)
    rows = [row for row in rows if "rate" in row]  # one without a verdict counts as a miss
    noisy = [row for row in rows if row["true"]]
    if not noisy:
        flagged = max(row["flagged"] for row in rows)
        rate = max(row["rate"] for row in rows)
        return [title, "none", f"rate {rate:.2%} at most", *[""] * 6, f"{flagged:.2%} flagged",
                "", "", "", "", cost(rows)]  # fmt: skip
    beside = [row for row in noisy if "others" in row]
    near = sum(error(row["rate"], row) <= bar_of(row) for row in noisy)
    covered = sum(row["low"] <= row["true"] <= row["high"] for row in noisy)
    bounded = sum(row["true"] <= row["most"] for row in noisy)
    reached = [row["precision"] for row in noisy if row["flagged"]]
    return [
        title, noise, f"{mean(error(row['rate'], row) for row in noisy):.0%}",
        *(
            f"{mean(error(row['others'][other], row) for row in beside):.0%}" if beside else "-"
            for other in OTHERS
        ),
        f"{near}/{wanted}", f"{covered}/{wanted}", f"{bounded}/{wanted}",
        f"{sum(value >= 0.85 for value in reached)}/{len(reached)}",
        f"{mean(row['recall'] for row in noisy):.0%}",
        f"{mean(row['calibration_error'] for row in noisy):.3f}",
        *(
            f"{100 * mean(row[best] - row[own] for row in noisy):z.2f}"
            for best, own in (("auroc_best", "auroc"), ("best_f1", "f1"))
        ),
        cost(rows),
    ]  # fmt: skip


def cost(rows: list[dict[str, Any]]) -> str:
    return f"{median(row['times_one_audit'] for row in rows):.1f}"


def summary(rows: list[dict[str, Any]]) -> str:
    """A line for each data set and kind of noise."""
    lines = [
        line(*key, [row for row in rows if (row["set"], row["noise"]) == key])
        for key in dict.fromkeys((row["set"], row["noise"]) for row in rows)
    ]
    header = [
        "data", "noise", "error", "cleanlab", "mixture", "differs", "within the bar",
        "interval covers", "upper bound covers", "precise", "recall", "calibration error",
        "AUROC below best", "F1 below best", "times one audit",
    ]  # fmt: skip
    return table(header, lines)


def _stored() -> list[dict[str, Any]]:
    names = [name for name in SETS if (RESULTS / f"verdict_{name}.json").exists()]
    return [row for name in names for row in load(f"verdict_{name}")["rows"]]


def verdict() -> str:
    return summary(_stored())


def verdict_limits() -> str:
    """How many wrong labels of instance noise are the likeliest of their example."""
    rows = [row for row in _stored() if "likeliest" in row]
    shares: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        shares.setdefault(row["set"], {}).setdefault(row["wanted"], []).append(row["likeliest"])
    rates = sorted({row["wanted"] for row in rows})
    lines = [
        [SETS[name], *(f"{mean(found[rate]):.0%}" if rate in found else "" for rate in rates)]
        for name, found in shares.items()
    ]
    return table(["data", *(f"{rate:.0%}" for rate in rates)], lines)


def review_counts() -> str:
    """How far off the number of wrong labels is, by decisions of a person and kind of noise."""
    rows = load("review_budget")["counts"]
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    lines = []
    for decisions in dict.fromkeys(row["decisions"] for row in rows):
        cells = [str(decisions)]
        for noise in noises:
            some = [row for row in rows if (row["noise"], row["decisions"]) == (noise, decisions)]
            covered = sum(row["low"] <= row["true"] <= row["high"] for row in some)
            off = mean(error(row["rate"], row) for row in some)
            cells.append(f"{off:.0%} ({covered}/{len(some)})")
        lines.append(cells)
    return table(["decisions", *noises], lines)
