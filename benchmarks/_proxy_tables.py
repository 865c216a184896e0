"""The README's tables of C-score proxies and of the memorization profile."""

from __future__ import annotations

from typing import Any

from _results import interval, load, table

NAMES = {
    "density_input": "`density_input`",
    "density_hidden": "`density_hidden` (C)",
    "density_hidden_class": "`density_hidden_class` (C^L)",
    "density_hidden_relative": "`density_hidden_relative` (C^±L)",
    "lof_hidden k=3": "`lof_hidden`, k = 3",
    "lof_hidden k=100": "`lof_hidden`, k = 100",
    "knn_disagreement": "`knn_disagreement`",
    "gradient_similarity": "`gradient_similarity`, last layer",
    "gradient_similarity all": "`gradient_similarity`, all layers",
    "loss_sensitivity l1": "`loss_sensitivity`",
    "cumulative_confidence": "`cumulative_confidence`",
    "cumulative_loss": "`cumulative_loss`",
}
SOURCES = {"mnist": "MNIST, 20,000", "cifar10": "CIFAR-10, 10,000"}
ANALYSES = {
    "easy_examples": "1 easy examples",
    "sensitivity_gini": "2 Gini of loss sensitivity",
    "class_sensitivity": "3 between classes",
    "capacity": "4 units needed, by noise",
    "time_to_fit": "5 epochs to fit, by size",
    "critical_samples": "6 critical samples",
    "early_peak": "7 early peak",
    "regularizers": "8 dropout and weight decay",
}


def _by_seed(rows: list[dict[str, Any]], name: str, epoch: int | None, figure: str) -> list[float]:
    return [
        item[figure]
        for row in rows
        for item in row["figures"]
        if item.get("proxy", item.get("detector")) == name and item["epoch"] == epoch
    ]


def _mean(values: list[float], digits: int, scale: float = 1.0) -> str:
    found = interval([scale * value for value in values])
    half = found["half_width_95"]
    return f"{found['mean']:.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")


def proxies_agreement() -> str:
    """Spearman with the published C-scores: early and at the last epoch."""
    rows = load("proxies_agreement")["rows"]
    header, columns = ["Spearman"], []
    for source, title in SOURCES.items():
        own = [row for row in rows if row["source"] == source]
        epochs = sorted({item["epoch"] for item in own[0]["figures"] if item["epoch"]})
        for epoch in (epochs[0], epochs[1], epochs[-1]):
            header.append(f"{title}: epoch {epoch}")
            columns.append((own, epoch))
    last_epochs = {columns[2][1], columns[-1][1]}
    header.append("MNIST, 60,000, one seed: epoch 20")
    columns.append((load("proxies_whole")["rows"], 20))
    lines = []
    for name, title in NAMES.items():
        cells = [title]
        for own, epoch in columns:
            values = _by_seed(own, name, epoch, "spearman")
            if not values and epoch in last_epochs:  # of the whole run
                values = _by_seed(own, name, None, "spearman")
            cells.append(_mean(values, 2) if values else "")
        lines.append(cells)
    return table(header, lines)


def proxies_detection() -> str:
    """AUROC and average precision with planted flips, at the last epoch."""
    rows = load("proxies_detection")["rows"]
    header, columns = ["AUROC % / AP %"], []
    for source, title in SOURCES.items():
        for noise, rate in (("uniform", "10%"), ("pair", "20%")):
            own = [row for row in rows if row["source"] == source and row["noise"] == noise]
            last = max(item["epoch"] or 0 for item in own[0]["figures"])
            header.append(f"{title}: {noise} {rate}")
            columns.append((own, last))
    lines = []
    for name, title in NAMES.items():
        cells = [title]
        for own, last in columns:
            epoch = last if _by_seed(own, name, last, "auroc") else None
            auroc = _mean(_by_seed(own, name, epoch, "auroc"), 1, 100)
            precision = _mean(_by_seed(own, name, epoch, "average_precision"), 0, 100)
            cells.append(f"{auroc} / {precision.split(' ')[0]}")
        lines.append(cells)
    return table(header, lines)


def proxies_removal() -> str:
    """Change of clean test accuracy when the most suspicious are removed before training."""
    rows = load("proxies_removal")["rows"]
    detectors = ("loss_sensitivity", "cumulative_loss", "random")
    header = ["20,000 of", "noise", "removed", "accuracy with all %"]
    header += [f"gain by `{by}`" for by in detectors] + ["wrong among removed by the first %"]
    lines = []
    for row in rows:
        summary = {(x["rate"], x["share"], x["by"]): x for x in row["summary"]}
        for rate, share in sorted({key[:2] for key in summary}):
            own = [summary[rate, share, by] for by in detectors]
            lines.append([
                row["source"], f"{rate:.0%}", f"{share:.0%}", f"{100 * own[0]['all']['mean']:.1f}",
                *(
                    f"{100 * x['gain']['mean']:+.1f} ± {100 * x['gain']['half_width_95']:.1f}"
                    for x in own
                ),
                f"{100 * own[0]['wrong']['mean']:.0f}",
            ])  # fmt: skip
    return table(header, lines)


def memorization_profile() -> str:
    """The parts that each verdict depends on, on true and on shuffled labels."""
    given, shuffled = load("memorization_profile")["rows"]
    lines = []
    for own, control in zip(given["analyses"], shuffled["analyses"], strict=True):
        for mine, other in zip(own["findings"], control["findings"], strict=True):
            if mine["counts"]:
                lines.append([
                    ANALYSES[own["name"]], mine["name"], _effect(mine), _effect(other),
                ])  # fmt: skip
    return table(["analysis", "effect", "MNIST", "MNIST, labels shuffled"], lines)


def _effect(finding: dict[str, Any]) -> str:
    if finding["effect"] is None:
        return "not measurable"
    low, high = finding["interval"]
    p_value = finding["p_value"]
    told = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    mark = "**holds**" if finding["reproduced"] else "does not hold"
    return f"{finding['effect']:.3g} ({low:.3g} to {high:.3g}), {told}: {mark}"
