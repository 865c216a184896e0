"""Curvature beside the published memorization scores of CIFAR-100, and by epoch.

The scores are Feldman & Zhang's (NeurIPS 2020): `fz_cifar100.npz` in --data-root, with `mem`, how
much likelier each of the 50,000 labels is for being trained on, and `labels`, to check the order.

The curvature paper's Table 1 (with what a constant vector gets), Figures 3/9/10 (lowest and highest
of each class), 4 (pictures with another label on a near copy), 6 and 8 (by epoch, of the training
set, the test set and the most memorized), 14 (agreement by epoch) and 18.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _results import BFLOAT16
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import noiseaudit as na
from noiseaudit.retraining import split_off_test
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import make_plan

MOST_MEMORIZED = 5_000
NEAR = 8.0  # root mean squared difference of two pictures at half size, of 255
_BLOCK = 2_000


class ByEpoch:
    """Mean curvature of the test set, and that of every training example, after each epoch."""

    def __init__(
        self, model: list[torch.nn.Module], data: na.LabeledDataset, test: na.LabeledDataset
    ) -> None:
        self.model, self.data, self.test = model, data, test
        self.of_data: list[torch.Tensor] = []
        self.of_test: list[float] = []

    def on_batch(self, *_: Any) -> None: ...

    def on_epoch_end(self, _: Any) -> None:
        how: dict[str, Any] = {"seed": len(self.of_data), "bfloat16": BFLOAT16}
        mine = na.curvature(self.model[0], self.data, **how)
        theirs = na.curvature(self.model[0], self.test, scaled_like=self.data, **how)
        self.of_data.append(torch.from_numpy(mine).float())
        self.of_test.append(float(theirs.mean()))

    def state_dict(self) -> dict[str, Any]:
        return {"of_data": self.of_data, "of_test": self.of_test}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.of_data, self.of_test = state["of_data"], state["of_test"]


def agreement(scores: np.ndarray, memorized: np.ndarray) -> dict[str, float]:
    """Cosine, as the paper has it, and what does not reward a constant."""
    return {
        "cosine": cosine(scores, memorized),
        "pearson": float(np.corrcoef(scores, memorized)[0, 1]),
        "spearman": float(spearmanr(scores, memorized).statistic),
        "cosine_of_a_constant": cosine(np.ones_like(memorized), memorized),
    }


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def conflicting_pairs(data: na.LabeledDataset) -> np.ndarray:
    """(p, 2) rows of nearly equal pictures with different labels, by comparing all with all."""
    pictures = torch.as_tensor(np.array(data.inputs)).float()
    pictures = pictures.reshape(len(data), pictures.shape[1], pictures.shape[2], -1)
    small = torch.nn.functional.avg_pool2d(pictures.permute(0, 3, 1, 2), 2).flatten(1)
    squares, labels = small.square().sum(dim=1), torch.from_numpy(data.labels)
    limit, found = NEAR**2 * small.shape[1], []
    for start in range(0, len(small), _BLOCK):
        block = slice(start, start + _BLOCK)
        distance = squares[block, None] + squares - 2 * small[block] @ small.T
        near = (distance < limit) & (labels[block, None] != labels)
        pairs = near.nonzero() + torch.tensor([start, 0])
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return torch.cat(found).numpy()


def memorization(setup: Any, options: argparse.Namespace) -> dict[str, Any]:
    whole = na.load(setup.source, data_root=options.data_root, split="all")
    data, test = split_off_test(whole)
    data = data if setup.limit is None else data.subset(np.arange(setup.limit))
    plan = make_plan(data, threads=options.threads, **setup.training)
    decay = plan.recipe.weight_decay
    folder = options.out / f"memorization_{setup.name}_{decay}"
    folder.mkdir(parents=True, exist_ok=True)
    model: list[torch.nn.Module] = []

    def build() -> torch.nn.Module:
        model[:] = [build_model(plan.model, data.input_shape, data.num_classes)]
        return model[0]

    watching = ByEpoch(model, data, test)
    run = train(
        build, Inputs(data, plan.device), plan.recipe, {"curvature": watching}, seed=plan.seed,
        checkpoint=folder / "checkpoint.pt", config=plan.config(data), progress=True,
    )  # fmt: skip
    by_epoch = torch.stack(watching.of_data).numpy().astype(np.float64)
    scores = by_epoch.mean(axis=0)
    row = {
        "setup": setup.name, "weight_decay": decay, "epochs": plan.recipe.epochs,
        "examples": len(data), "accuracy": [epoch["accuracy"] for epoch in run.history],
        "curvature": by_epoch.mean(axis=1).tolist(), "curvature_test": watching.of_test,
        "seconds": sum(epoch["seconds"] for epoch in run.history),
        "watching_seconds": sum(epoch["watching"] for epoch in run.history),
        "conflicting": among_the_highest(scores, conflicting_pairs(data)),
    }  # fmt: skip
    if setup.source == "cifar100":
        row |= beside_published(by_epoch, options.data_root, data)
    gallery(data, scores).savefig(folder / "gallery.png", dpi=120)
    curves(row).savefig(folder / "by_epoch.png", dpi=120)
    return row


def among_the_highest(scores: np.ndarray, pairs: np.ndarray) -> dict[str, int]:
    """How many of the pictures in conflict are among the 60 and the 100 of highest curvature."""
    order, members = np.argsort(-scores, kind="stable"), np.unique(pairs)
    return {
        "pairs": len(pairs),
        "pictures": len(members),
        **{f"in_top_{k}": int(np.isin(order[:k], members).sum()) for k in (60, 100)},
    }


def beside_published(by_epoch: np.ndarray, root: Path, data: na.LabeledDataset) -> dict[str, Any]:
    stored = np.load(root / "fz_cifar100.npz")
    if not np.array_equal(stored["labels"][: len(data)], data.labels):
        raise SystemExit("the published scores are of other examples")
    memorized = stored["mem"][: len(data)].astype(np.float64)
    scores = by_epoch.mean(axis=0)
    most = np.argsort(-memorized, kind="stable")[:MOST_MEMORIZED]
    running = np.cumsum(by_epoch, axis=0)
    return {
        "all": agreement(scores, memorized),
        "most_memorized": agreement(scores[most], memorized[most]),
        "overlap_at_100": len(np.intersect1d(np.argsort(-scores, kind="stable")[:100], most[:100])),
        "curvature_most_memorized": by_epoch[:, most].mean(axis=1).tolist(),
        "cosine_by_epoch": [cosine(values, memorized) for values in by_epoch],
        "cosine_cumulative": [cosine(values, memorized) for values in running],
    }


def gallery(data: na.LabeledDataset, scores: np.ndarray, each: int = 6) -> Figure:
    """Up to ten classes: the pictures of lowest curvature on the left, of highest on the right."""
    classes = range(min(10, data.num_classes))
    figure = Figure(figsize=(2 * each * 0.8, len(classes) * 0.8), layout="constrained")
    panels = figure.subplots(len(classes), 2 * each, squeeze=False)
    for line, own in zip(panels, classes, strict=True):
        rows = np.flatnonzero(data.labels == own)
        rows = rows[np.argsort(scores[rows], kind="stable")]
        line[0].set_title(data.class_names[own], fontsize="x-small", loc="left")
        for panel in line:
            panel.set_axis_off()
        shown = (*rows[:each], *rows[-each:])
        for panel, row in zip(line, shown, strict=False):
            panel.imshow(np.squeeze(data.inputs[row]), cmap="gray")
    figure.suptitle("lowest curvature | highest curvature", fontsize="small")
    return figure


def curves(row: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, row["epochs"] + 1)
    for name, label in (
        ("curvature", "training set"),
        ("curvature_test", "test set"),
        ("curvature_most_memorized", f"{MOST_MEMORIZED:,} most memorized"),
    ):
        if name in row:
            left.plot(epochs, row[name], label=label)
    left.set_ylabel("mean curvature")
    right.plot(epochs, row["accuracy"], label="training accuracy")
    for name, label in (
        ("cosine_by_epoch", "cosine with memorization, of the epoch"),
        ("cosine_cumulative", "cosine, of the mean so far"),
    ):
        if name in row:
            right.plot(epochs, row[name], label=label)
    for panel in (left, right):
        panel.set_xlabel("epoch")
        panel.legend(fontsize="x-small")
        panel.grid(alpha=0.3)
    return figure
