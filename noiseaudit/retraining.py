"""Filter before training: what removing or relabelling suspects does to accuracy on a test set.

In flow the noisy and the clean data, which examples are selected, and a test set; out flows one
row per arm. An arm is one training set; all arms of a cell share recipe, initial weights and seed.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import make_folder, read_json, write_json
from noiseaudit.crossval import assign_folds
from noiseaudit.dataset import LabeledDataset
from noiseaudit.device import cpu_threads
from noiseaudit.errors import DataError
from noiseaudit.evaluation import mean_interval
from noiseaudit.findings import Findings
from noiseaudit.manifest import differences
from noiseaudit.ranking import Ranking
from noiseaudit.seeding import generator
from noiseaudit.training.clean_pass import CleanPass
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.run import TrainingPlan

__all__ = [
    "RETRAIN_COLUMNS",
    "VERDICT",
    "Arm",
    "arm_names",
    "make_arms",
    "retrain_arm",
    "split_off_test",
    "summarise_arms",
]

logger = logging.getLogger(__name__)

RETRAIN_COLUMNS = (
    "dataset", "noise", "rate", "seed", "arm", "selected_by", "n_selected", "n_train", "n_wrong",
    "epochs", "train_accuracy", "test_accuracy", "seconds", "status", "error",
)  # fmt: skip
"""Columns of retrain.csv."""

VERDICT = "is_label_issue"
"""The selection that is always made: the audit's own verdict."""

_TEST_SHARE = 5  # one fifth, where the source has no test split
_FITTED = 0.9
_LEAST_GAP = 0.01


@dataclass(frozen=True, eq=False)
class Arm:
    """One training set.

    Attributes:
        name: "noisy", "clean", "random_removal", "remove" or "relabel".
        selected_by: `VERDICT`, a detector's name, or "" where nothing is selected.
        n_selected: how many were removed or relabelled.
        dataset: to train on.
    """

    name: str
    selected_by: str
    n_selected: int
    dataset: LabeledDataset

    @property
    def file_name(self) -> str:
        """Different for different arms."""
        return f"{self.name}_{self.selected_by}" if self.selected_by else self.name


def arm_names(selectors: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Name and selection of every arm; `selectors` are detectors beside the verdict."""
    chosen = itertools.product(("remove", "relabel"), (VERDICT, *selectors))
    return [("noisy", ""), ("clean", ""), ("random_removal", ""), *chosen]


def split_off_test(dataset: LabeledDataset) -> tuple[LabeledDataset, LabeledDataset]:
    """What to train on and what to test on.

    The test split is the test set; without one, a fifth of every class is held out, the same
    whatever the seed of a run.
    """
    if dataset.split is not None:
        is_test = dataset.split == "test"
        if 0 < is_test.sum() < len(dataset):
            return dataset.subset(~is_test), dataset.subset(is_test)
    is_test = assign_folds(dataset.labels, min(_TEST_SHARE, len(dataset)), seed=0) == 0
    return dataset.subset(~is_test), dataset.subset(is_test)


def make_arms(
    noisy: LabeledDataset,
    clean: LabeledDataset,
    findings: Findings,
    rankings: Mapping[str, Ranking],
    *,
    seed: int,
    selectors: Iterable[str] = (),
) -> list[Arm]:
    """The arms, as `arm_names` lists them.

    The verdict selects what it flags; a detector its most suspicious, as many as the verdict
    flags: how many are truly wrong is never used. Random removal takes as many. Relabelling gives
    the class that the audit suggests, which for a detector's choice may be the given one.

    Args:
        noisy: with the labels as given.
        clean: the same data with its own labels, the best that filtering could hope for.
        findings: of the audit of `noisy`.
        rankings: of `noisy`, by detector.
        seed: of the random removal.
        selectors: detectors in `rankings`.
    """
    count = int(findings.is_label_issue.sum())
    masks = {VERDICT: findings.is_label_issue}
    masks |= {name: rankings[name].flag(count=count) for name in selectors}
    at_random = np.ones(len(noisy), dtype=bool)
    drawn = generator(seed, "random-removal").permutation(len(noisy))[:count]
    at_random[drawn] = False
    arms = [
        Arm("noisy", "", 0, noisy),
        Arm("clean", "", 0, clean),
        Arm("random_removal", "", count, noisy.subset(at_random)),
    ]
    arms += [Arm("remove", name, count, noisy.subset(~mask)) for name, mask in masks.items()]
    for name, mask in masks.items():
        labels = np.where(mask, findings.suggested, noisy.labels)
        arms.append(Arm("relabel", name, count, noisy.with_labels(labels)))
    return arms


def retrain_arm(
    arm: Arm,
    test: LabeledDataset,
    plan: TrainingPlan,
    folder: Path,
    *,
    resume: bool = True,
) -> dict[str, Any]:
    """Train on the arm, test, and keep the result in `folder`; a kept one is reused.

    Returns:
        `epochs`, `train_accuracy` (share of the arm's labels that the final model predicts, eval
        mode, no augmentation), `test_accuracy`, `seconds` of training.

    Raises:
        DataError: if fewer than two examples are left, or the test set is of another kind.
    """
    if len(arm.dataset) < 2:
        raise DataError(f"{arm.file_name} leaves {len(arm.dataset)} examples; nothing to train on")
    _check_test(test, arm.dataset)
    config = {**plan.config(arm.dataset), "test": test.fingerprint}
    path = make_folder(folder) / f"{arm.file_name}.json"
    checkpoint = path.with_suffix(".pt")
    stored = read_json(path) if resume and path.exists() else None
    if stored is not None and not differences(stored["config"], config):
        if stored["result"] is not None:
            logger.info("%s: reused", path)
            return dict(stored["result"])
    else:
        checkpoint.unlink(missing_ok=True)
        write_json(path, {"config": config, "result": None})
    with cpu_threads(plan.threads):
        trained = train(
            lambda: build_model(plan.model, test.input_shape, test.num_classes),
            arm.dataset,
            plan.recipe,
            {},
            seed=plan.seed,
            device=plan.device,
            checkpoint=checkpoint,
            config=config,
        )
        fitted = _accuracy(CleanPass(trained.model, trained.inputs), arm.dataset.labels)
        inputs = Inputs(test, plan.device, scaled_like=trained.inputs)
        tested = _accuracy(CleanPass(trained.model, inputs), test.labels)
    result = {
        "epochs": len(trained.history),
        "train_accuracy": fitted,
        "test_accuracy": tested,
        "seconds": sum(epoch["seconds"] for epoch in trained.history),
    }
    if arm.name == "noisy" and fitted < _FITTED:
        logger.warning(
            "the network fits only %.0f%% of the noisy labels in %d epochs: noise costs less than "
            "it can; retrain for more epochs, or without augmentation",
            100 * fitted, len(trained.history),
        )  # fmt: skip
    write_json(path, {"config": config, "result": result})
    checkpoint.unlink(missing_ok=True)
    return result


def _accuracy(view: CleanPass, labels: NDArray[np.int64]) -> float:
    return float((view.logits.argmax(dim=1).numpy() == labels).mean())


def _check_test(test: LabeledDataset, dataset: LabeledDataset) -> None:
    for what, mine, other in (
        ("class names", test.class_names, dataset.class_names),
        ("inputs of shape", test.input_shape, dataset.input_shape),
    ):
        if mine != other:
            raise DataError(f"the test set has {what} {mine}, the training set {other}")


def summarise_arms(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one noise and rate -> a line per arm: means and 95% t intervals over seeds.

    `gain` is test accuracy less that of the noisy arm, seed by seed. `gap_closed` is the mean
    gain as a share of the clean arm's; None where noise costs less than one point of accuracy,
    since there is nothing to divide by.
    """
    finished = [row for row in rows if row["status"] == "ok"]
    noisy = {row["seed"]: row["test_accuracy"] for row in finished if row["arm"] == "noisy"}

    def gains(own: Iterable[Mapping[str, Any]]) -> list[float]:
        return [row["test_accuracy"] - noisy[row["seed"]] for row in own if row["seed"] in noisy]

    gap = mean_interval(gains(row for row in finished if row["arm"] == "clean")).mean
    lines = []
    for name, selected_by in dict.fromkeys((row["arm"], row["selected_by"]) for row in finished):
        own = [row for row in finished if (row["arm"], row["selected_by"]) == (name, selected_by)]
        line: dict[str, Any] = {"arm": name, "selected_by": selected_by, "seeds": len(own)}
        for figure in ("n_selected", "n_train", "n_wrong", "train_accuracy"):
            line[f"{figure}_mean"] = float(np.mean([row[figure] for row in own]))
        for figure, values in (
            ("test_accuracy", [row["test_accuracy"] for row in own]),
            ("gain", gains(own)),
        ):
            found = mean_interval(values)
            for part in ("mean", "low", "high"):
                value = getattr(found, part)
                line[f"{figure}_{part}"] = None if np.isnan(value) else value
        is_filtered = name not in ("noisy", "clean") and line["gain_mean"] is not None
        line["gap_closed"] = line["gain_mean"] / gap if is_filtered and gap >= _LEAST_GAP else None
        lines.append(line)
    return lines
