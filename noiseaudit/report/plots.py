"""Figures of experiments, drawn with matplotlib from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_auroc"]


def plot_auroc(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """AUROC against the share corrupted, a line per detector with its interval over seeds.

    Args:
        lines: of one noise model: `dataset`, `noise`, `rate`, `detector`, and `auroc_mean` and
            `auroc_high`, fractions or None where undefined.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for detector in sorted({line["detector"] for line in lines}):
        own = [line for line in lines if line["detector"] == detector and line["auroc_mean"]]
        means = [line["auroc_mean"] for line in own]
        half = [(line["auroc_high"] or line["auroc_mean"]) - line["auroc_mean"] for line in own]
        rates = [line["rate"] for line in own]
        axes.errorbar(rates, means, yerr=half, marker="o", capsize=3, label=detector)
    axes.set_xlabel("share of labels corrupted")
    axes.set_ylabel("AUROC")
    axes.set_title(f"{lines[0]['dataset']}, {lines[0]['noise']}")
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.02, 0.5))
    axes.grid(alpha=0.3)
    return figure
