"""One training run beside published C-scores: every statistic by epoch, and how groups are learned.

The C-score papers' Figure 7 (learning speed of groups, statistics by epoch), Appendix F (groups of
equal size) and Table 3 (other optimisers and constant rates, with test accuracies).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _agreement import published
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import noiseaudit as na
from noiseaudit.retraining import split_off_test
from noiseaudit.scoring import rank_by_epoch, score_examples
from noiseaudit.training.clean_pass import CleanPass
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import make_plan

WIDTH = 0.05  # of a group of scores: the papers' Figure 7a
EQUAL = 400  # examples of each group in Appendix F


def truth_of(options: argparse.Namespace, data: na.LabeledDataset) -> np.ndarray:
    """Published scores of the rows of `data`; on a source without any, random ones."""
    scores = published(data, options)
    return np.random.default_rng(0).random(len(data)) if scores is None else scores


def dynamics(setup: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    data = na.load(setup.source, data_root=options.data_root, limit=setup.limit)
    truth = truth_of(options, data)
    kinds = na.detector_types().values()
    detectors = na.create_detectors(k.name for k in kinds if set(k.needs) == {"training"})
    plan = make_plan(data, seed=seed, threads=options.threads, **setup.training)
    folder = options.out / f"dynamics_{setup.name}_{seed}"
    scores = score_examples(data, plan, detectors, folder, keep_trajectories=True, progress=True)
    by_epoch: dict[str, list[float]] = {detector.name: [] for detector in detectors}
    for rankings in rank_by_epoch(data, plan, detectors, scores.run, folder):
        for name, ranking in rankings.items():
            varied = np.ptp(ranking.scores) > 0
            rho = spearmanr(-ranking.scores, truth).statistic if varied else 0.0
            by_epoch[name].append(float(rho))
    lines(by_epoch, "Spearman with published C-scores", folder / "by_epoch.png")
    return {
        "setup": setup.name, "seed": seed, "examples": len(data), "epochs": plan.recipe.epochs,
        "seconds": scores.run.training_seconds, "spearman": by_epoch,
        "accuracy": scores.run.history[-1]["accuracy"],
    }  # fmt: skip


class Correctness:
    """Which examples were predicted right in each epoch."""

    def __init__(self, n: int) -> None:
        self.epochs: list[torch.Tensor] = []
        self._now = torch.zeros(n)

    def on_batch(self, rows: Any, logits: Any, labels: Any, _: Any) -> None:
        self._now[rows] = (logits.argmax(dim=1) == labels).float().cpu()

    def on_epoch_end(self, _: Any) -> None:
        self.epochs.append(self._now.clone())

    def compute(self) -> dict[str, Any]:
        return {"correct": torch.stack(self.epochs).numpy()}

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


def learning(
    setup: Any, name: str, recipe: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Accuracy of each group of scores by epoch, of all examples and of groups of equal size."""
    whole = na.load(setup.source, data_root=options.data_root, split="all")
    whole, test = split_off_test(whole)
    data = na.load(whole, limit=setup.limit)
    truth = truth_of(options, data)
    groups = np.minimum((truth / WIDTH).astype(int), round(1 / WIDTH) - 1)
    random = np.random.default_rng(0)
    equal = np.concatenate([
        random.permutation(np.flatnonzero(groups == group))[:EQUAL] for group in np.unique(groups)
    ])  # fmt: skip
    result: dict[str, Any] = {"setup": setup.name, "recipe": name, "examples": len(data)}
    folder = options.out / f"learning_{setup.name}"
    folder.mkdir(parents=True, exist_ok=True)
    for what, rows in (("all", np.arange(len(data))), ("equal", np.sort(equal))):
        part, own = data.subset(rows), groups[rows]
        training = {**setup.training, "recipe": {**setup.training.get("recipe", {}), **recipe}}
        plan = make_plan(part, threads=options.threads, **training)
        watching = Correctness(len(part))
        trained = train(
            lambda plan=plan: build_model(plan.model, data.input_shape, data.num_classes),
            Inputs(part, plan.device), plan.recipe, {"correct": watching}, seed=0, progress=True,
            checkpoint=folder / f"{name.replace(' ', '_')}_{what}.pt", config=plan.config(part),
        )  # fmt: skip
        correct = watching.compute()["correct"]
        by_group = {
            f"{group * WIDTH:.2f}": correct[:, own == group].mean(axis=1).tolist()
            for group in np.unique(own)
        }
        logits = CleanPass(trained.model, Inputs(test, plan.device, scaled_like=trained.inputs))
        right = logits.logits.argmax(dim=1).numpy() == test.labels
        order = [spearmanr(own, values).statistic for values in correct if np.ptp(values) > 0]
        result[what] = {
            "examples": len(part), "test_accuracy": float(right.mean()), "by_group": by_group,
            "spearman_of_group_and_correctness": [float(rho) for rho in order],
        }  # fmt: skip
        lines(by_group, f"accuracy, {name}", folder / f"{name.replace(' ', '_')}_{what}.png")
    return result


def lines(values: dict[str, list[float]], label: str, path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    for name, own in values.items():
        panel.plot(range(1, len(own) + 1), own, label=name)
    panel.set_xlabel("epoch")
    panel.set_ylabel(label)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="xx-small", ncols=2)
    figure.savefig(path, dpi=120)
