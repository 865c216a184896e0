"""Filter before training: what removing or relabelling suspects does to accuracy on a test set.

In flow the noisy and the clean data, which examples are selected, and a test set; out flows one
row per arm. An arm is one training set; all arms of a cell share recipe, initial weights and seed.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import make_folder, write_json
from noiseaudit.crossval import assign_folds
from noiseaudit.dataset import LabeledDataset
from noiseaudit.device import cpu_threads
from noiseaudit.errors import DataError
from noiseaudit.evaluation import Interval, mean_interval
from noiseaudit.findings import Findings
from noiseaudit.manifest import differences, read_manifest
from noiseaudit.ranking import Ranking
from noiseaudit.seeding import generator
from noiseaudit.training.clean_pass import CleanPass
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import TrainingPlan

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
    "epochs", "train_accuracy", "wrong_fitted", "test_accuracy", "seconds", "status", "error",
)  # fmt: skip
"""Columns of retrain.csv."""

VERDICT = "is_label_issue"
"""The selection that is always made: the audit's own verdict."""

_TEST_SHARE = 5  # one fifth, where the source has no test split
_FITTED = 0.5
_FORMAT = 1
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


def split_off_test(
    dataset: LabeledDataset, test: LabeledDataset | None = None
) -> tuple[LabeledDataset, LabeledDataset]:
    """What to train on and what to test on.

    The data set's test split is never trained on. The test set is `test`, else that split, else a
    fifth of every class, the same whatever the seed of a run.

    Raises:
        DataError: if a model of one cannot be tested on the other.
    """
    is_test = np.zeros(len(dataset), dtype=bool)
    if dataset.split is not None and (dataset.split != "test").any():
        is_test = dataset.split == "test"
    if test is None and not is_test.any():
        is_test = assign_folds(dataset.labels, min(_TEST_SHARE, len(dataset)), seed=0) == 0
    train = dataset.subset(~is_test) if is_test.any() else dataset
    test = dataset.subset(is_test) if test is None else test
    for what, mine, other in (
        ("class names", test.class_names, train.class_names),
        ("inputs of shape", test.input_shape, train.input_shape),
    ):
        if mine != other:
            raise DataError(f"the test set has {what} {mine}, the training set {other}")
    return train, test


def make_arms(
    noisy: LabeledDataset,
    clean: LabeledDataset,
    findings: Findings,
    rankings: Mapping[str, Ranking],
    *,
    seed: int,
    selectors: Iterable[str] = (),
) -> Iterator[Arm]:
    """The arms, one at a time, as `arm_names` lists them.

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
    yield Arm("noisy", "", 0, noisy)
    yield Arm("clean", "", 0, clean)
    yield Arm("random_removal", "", count, noisy.subset(at_random))
    for name, mask in masks.items():
        yield Arm("remove", name, count, noisy.subset(~mask))
    for name, mask in masks.items():
        labels = np.where(mask, findings.suggested, noisy.labels)
        yield Arm("relabel", name, count, noisy.with_labels(labels))


def retrain_arm(
    arm: Arm,
    test: LabeledDataset,
    plan: TrainingPlan,
    folder: Path,
    *,
    is_wrong: NDArray[np.bool_],
) -> dict[str, Any]:
    """Train on the arm, test, and keep the result in `folder`; a kept one is reused.

    Args:
        arm: what to train on.
        test: clean examples.
        plan: how to train.
        folder: of this cell's arms.
        is_wrong: (n,) which of the arm's labels are wrong, to say how many of them were fitted.

    Returns:
        `epochs`; `train_accuracy` and `wrong_fitted`, the share of the arm's labels, and of its
        wrong ones (None if there are none), that the final model predicts in eval mode without
        augmentation; `test_accuracy`; `seconds` of training.

    Raises:
        DataError: if fewer than two examples are left.
    """
    if len(arm.dataset) < 2:
        raise DataError(f"{arm.file_name} leaves {len(arm.dataset)} examples; nothing to train on")
    config = {**plan.config(arm.dataset), "arm_format": _FORMAT, "test": test.fingerprint}
    path = make_folder(folder) / f"{arm.file_name}.json"
    checkpoint = path.with_suffix(".pt")
    stored = read_manifest(path) or {}
    if not differences(stored.get("config", {}), config):
        if stored["result"] is not None:
            logger.info("%s: reused", path)
            return dict(stored["result"])
    else:
        checkpoint.unlink(missing_ok=True)
        write_json(path, {"config": config, "result": None})
    with cpu_threads(plan.threads):
        trained = train(
            lambda: build_model(plan.model, test.input_shape, test.num_classes),
            Inputs(arm.dataset, plan.device),
            plan.recipe,
            {},
            seed=plan.seed,
            checkpoint=checkpoint,
            config=config,
        )
        is_fitted = _is_right(CleanPass(trained.model, trained.inputs), arm.dataset.labels)
        inputs = Inputs(test, plan.device, scaled_like=trained.inputs)
        is_right = _is_right(CleanPass(trained.model, inputs), test.labels)
    fitted = float(is_fitted[is_wrong].mean()) if is_wrong.any() else None
    result = {
        "epochs": len(trained.history),
        "train_accuracy": float(is_fitted.mean()),
        "wrong_fitted": fitted,
        "test_accuracy": float(is_right.mean()),
        "seconds": sum(epoch["seconds"] for epoch in trained.history),
    }
    if arm.name == "noisy" and fitted is not None and fitted < _FITTED:
        logger.warning(
            "the network fits only %.0f%% of the wrong labels in %d epochs: noise costs less than "
            "it can; retrain for more epochs, or without augmentation",
            100 * fitted, len(trained.history),
        )  # fmt: skip
    write_json(path, {"config": config, "result": result})
    checkpoint.unlink(missing_ok=True)
    return result


def _is_right(view: CleanPass, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    is_right: NDArray[np.bool_] = view.logits.argmax(dim=1).numpy() == labels
    return is_right


def summarise_arms(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one noise and rate -> a line per arm: means and 95% t intervals over seeds.

    `gain` is test accuracy less that of the noisy arm, seed by seed. `gap_closed` is its mean as a
    share of the clean arm's, over the seeds that have all three; None where noise costs less than
    one point of accuracy, since there is nothing to divide by. An arm that failed for every seed
    has 0 seeds and no figures.
    """
    arms: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        finished = arms.setdefault((row["arm"], row["selected_by"]), {})
        if row["status"] == "ok":
            finished[row["seed"]] = row
    accuracies = {
        arm: {seed: row["test_accuracy"] for seed, row in finished.items()}
        for arm, finished in arms.items()
    }
    noisy, clean = accuracies.get(("noisy", ""), {}), accuracies.get(("clean", ""), {})
    lines = []
    for arm, own in accuracies.items():
        line: dict[str, Any] = {"arm": arm[0], "selected_by": arm[1], "seeds": len(own)}
        for figure in ("n_selected", "n_train", "n_wrong", "train_accuracy", "wrong_fitted"):
            line[f"{figure}_mean"] = _interval([row[figure] for row in arms[arm].values()]).mean
        gains = {seed: own[seed] - noisy[seed] for seed in own if seed in noisy}
        for figure, values in (("test_accuracy", own), ("gain", gains)):
            found = _interval(list(values.values()))
            line |= {f"{figure}_{part}": getattr(found, part) for part in ("mean", "low", "high")}
        shared = [seed for seed in gains if seed in clean]
        gap = _interval([clean[seed] - noisy[seed] for seed in shared]).mean
        line["gap_closed"] = None
        if arm[0] not in ("noisy", "clean") and gap >= _LEAST_GAP:
            line["gap_closed"] = _interval([gains[seed] for seed in shared]).mean / gap
        lines.append({key: None if value != value else value for key, value in line.items()})
    return lines


def _interval(values: Sequence[float | None]) -> Interval:
    """NaN where there is no value."""
    return mean_interval([value for value in values if value is not None])
