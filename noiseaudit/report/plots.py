"""Figures of experiments, drawn with matplotlib from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_auroc", "plot_lines", "plot_matrix", "plot_removal_by_epoch", "plot_scores"]

_COLUMNS = 4
_BINS = 50


def plot_auroc(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """AUROC against the share corrupted, a line per detector with its interval over seeds.

    Args:
        lines: of one noise model: `dataset`, `noise`, `rate`, `detector`, and `auroc_mean` and
            `auroc_high`, fractions or None where undefined.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
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
    figure.legend(fontsize="x-small", loc="outside right center")
    axes.grid(alpha=0.3)
    return figure


def plot_removal_by_epoch(rates: Mapping[str, NDArray[np.float64]], title: str) -> Figure:
    """Removal rate against epoch, a line per detector: the C-score paper's Figures 7c and 18.

    Args:
        rates: by detector, (seeds, epochs) in [0, 1]: of the ranking as it stood after each
            epoch. The line is the mean over seeds, the band from the lowest to the highest.
        title: of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for detector, values in sorted(rates.items(), key=lambda item: -item[1][:, -1].mean()):
        epochs = np.arange(1, values.shape[1] + 1)
        axes.plot(epochs, values.mean(axis=0), marker=".", label=detector)
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), alpha=0.15)
    axes.set_xlabel("epoch")
    axes.set_ylabel("removal rate")
    axes.set_title(title)
    figure.legend(fontsize="x-small", loc="outside right center")
    axes.grid(alpha=0.3)
    return figure


def plot_scores(
    scores: Mapping[str, NDArray[np.float64]], is_corrupted: NDArray[np.bool_], title: str
) -> Figure:
    """Histogram of each detector's scores with the corrupted marked: curvature paper, Figure 5.

    Args:
        scores: by detector, (n,) suspicion.
        is_corrupted: (n,) the answer key.
        title: of the figure.
    """
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (detector, values) in zip(panels, scores.items(), strict=False):
        low, high = float(values.min()), float(values.max())
        if high - low <= 1e-9 * max(abs(low), abs(high)):  # too close to be cut into bins
            low, high = low - 0.5, high + 0.5
        bins = np.linspace(low, high, _BINS + 1)
        outline = {"bins": bins, "histtype": "stepfilled"}  # one patch, not one a bin
        panel.hist(values[~is_corrupted], color="0.6", label="clean", **outline)
        panel.hist(values[is_corrupted], color="tab:red", alpha=0.6, label="corrupted", **outline)
        panel.set_yscale("log")
        panel.minorticks_off()
        panel.set_title(detector, fontsize="small")
        panel.tick_params(labelsize="x-small")
    for panel in panels[len(scores) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize="x-small")
    figure.suptitle(title)
    figure.supxlabel("suspicion", fontsize="small")
    figure.supylabel("examples", fontsize="small")
    return figure


def plot_lines(curve: Mapping[str, Any]) -> Figure:
    """Lines over numbers, each with the band of its interval.

    Args:
        curve: `title`, `x_label`, `y_label`, `is_log_x`, and `series`: `label`, `x`, `mean`, `low`,
            `high`, numbers or None.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for line in curve["series"]:
        mean, low, high = (np.array(line[key], dtype=float) for key in ("mean", "low", "high"))
        axes.plot(line["x"], mean, marker="." if len(mean) < 40 else None, label=line["label"])
        axes.fill_between(line["x"], low, high, alpha=0.15)
    if curve["is_log_x"]:
        axes.set_xscale("log")
    axes.set_xlabel(curve["x_label"])
    axes.set_ylabel(curve["y_label"])
    axes.grid(alpha=0.3)
    if curve["series"]:
        axes.legend(fontsize="x-small")
    return figure


def plot_matrix(matrix: Mapping[str, Any]) -> Figure:
    """A matrix of non-negative numbers as colours.

    Args:
        matrix: `row_label`, `column_label` and `values`, row by row.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.array(matrix["values"], dtype=float), cmap="viridis")
    axes.set_xlabel(matrix["column_label"])
    axes.set_ylabel(matrix["row_label"])
    figure.colorbar(image, ax=axes)
    return figure
