"""Score a data set again with flips planted among its labels: how does a known mistake score?"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import Detector, needs_of
from noiseaudit.errors import UsageError
from noiseaudit.planted_flips import plant_flips, weigh_plants
from noiseaudit.scoring import Scores, score_examples
from noiseaudit.training.plan import TrainingPlan

__all__ = ["PlantedRounds", "judged_by_plants", "run_planted_rounds", "why_no_rounds"]

logger = logging.getLogger(__name__)

_SERVED = {"training", "embeddings"}  # what a round runs: no further trainings, no observers
_FEWEST = 20  # plants, below which there is no point
_WANTED = 400  # plants in all rounds together
_SHARES = (0.02, 0.03)  # of the labels, planted in one round
_SMALL = 5_000  # examples from which on one round must do
_MOST_ROUNDS = 4
_BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True, eq=False)
class PlantedRounds:
    """What r rounds with plants gave, beside a run without: row 0 of all that has r + 1.

    Attributes:
        given: (n,) int64, given labels.
        labels: (r + 1, n) int64 that each run was given; a plant is where they differ from `given`.
        suspicions: by detector name, (r + 1, n) float64, higher = more suspicious.
        suggested: (r + 1, n) int64, the likeliest class that is not the label.
        sureness: (r + 1, n) float32 in [0, 1], its probability if the label is wrong.
        weights: (r + 1, n) float64, how much each plant counts; 0 where there is none.
        seconds: of all rounds.
    """

    given: NDArray[np.int64]
    labels: NDArray[np.int64]
    suspicions: Mapping[str, NDArray[np.float64]]
    suggested: NDArray[np.int64]
    sureness: NDArray[np.float32]
    weights: NDArray[np.float64]
    seconds: float

    @property
    def is_planted(self) -> NDArray[np.bool_]:
        """(r + 1, n) where a label was flipped."""
        return np.asarray(self.labels != self.given)


def judged_by_plants(detectors: Sequence[Detector], dataset: LabeledDataset) -> list[Detector]:
    """Those detectors that a round scores: what one training run or embeddings serve."""
    has_embeddings = dataset.kind == "vectors"
    needs = {d.name: set(needs_of(d, has_embeddings=has_embeddings)) for d in detectors}
    return [d for d in detectors if needs[d.name] and needs[d.name] <= _SERVED]


def why_no_rounds(detectors: Sequence[Detector], dataset: LabeledDataset) -> str:
    """What there is too little of for plants to say anything; "" if there is enough."""
    if not judged_by_plants(detectors, dataset):
        return "none of the detectors asked for is served by one training run"
    if np.count_nonzero(np.bincount(dataset.labels)) < 2:
        return "a flip takes two classes with examples"
    rounds, share = _rounds(len(dataset))
    if rounds * round(share * len(dataset)) < _FEWEST:
        return f"{len(dataset):,} examples are too few to plant flips among"
    return ""


def _rounds(n: int) -> tuple[int, float]:
    """How many rounds for n examples, and the share of labels to plant in each."""
    rounds = min(_MOST_ROUNDS, math.ceil(_SMALL / max(1, n)))
    return rounds, float(np.clip(_WANTED / max(1, n * rounds), *_SHARES))


def run_planted_rounds(
    dataset: LabeledDataset,
    plan: TrainingPlan,
    detectors: Sequence[Detector],
    scores: Scores,
    folder: Path,
    *,
    resume: bool = True,
    progress: bool = False,
) -> PlantedRounds:
    """Plant, train and score, or reuse what `folder` holds of that.

    Pairs of classes are drawn as `scores` finds them confused, so that plants are as hard as the
    mistakes that are there. From 5,000 examples on there is one round, below that up to four.

    Cost: each round is a training run and the ranking.

    Args:
        dataset: with the labels as given.
        plan: of the run without plants.
        detectors: `judged_by_plants`.
        scores: of the run without plants, with these detectors among others.
        folder: for the rounds.
        resume: False starts over.
        progress: show a bar on stderr when it is a terminal.

    Raises:
        UsageError: for what `why_no_rounds` says.
        ManifestMismatchError: if a round in `folder` was made from other data or settings.
    """
    given, n, k = dataset.labels, len(dataset), dataset.num_classes
    if why := why_no_rounds(detectors, dataset):
        raise UsageError(f"no planted rounds: {why}")
    predicted = _argmax(scores.pred_probs)
    joint = np.bincount(predicted * k + given, minlength=k * k).reshape(k, k)
    rounds, share = _rounds(n)
    planted = plant_flips(given, joint, share=share, rounds=rounds, seed=plan.seed)
    runs = [scores]
    for number, labels in enumerate(planted, start=1):
        flipped = int((labels != given).sum())
        logger.info("round %d of %d, with %d labels flipped", number, rounds, flipped)
        runs.append(
            score_examples(
                dataset.with_labels(labels), plan, detectors, folder / f"round_{number}",
                resume=resume, progress=progress,
            )
        )  # fmt: skip
    every = np.vstack([given, planted])
    told = [_preferred(run.pred_probs, labels) for run, labels in zip(runs, every, strict=True)]
    weights = weigh_plants(given, planted, predicted, num_classes=k)
    return PlantedRounds(
        given=given,
        labels=every,
        suspicions={
            d.name: np.stack([run.rankings[d.name].scores for run in runs]) for d in detectors
        },
        suggested=np.stack([suggested for suggested, _ in told]),
        sureness=np.stack([sureness for _, sureness in told]),
        weights=np.vstack([np.zeros(n), weights]),
        seconds=sum(run.run.training_seconds for run in runs[1:]),
    )


def _blocks(probs: NDArray[np.float32]) -> list[slice]:
    block = max(1, _BLOCK_ELEMENTS // max(1, probs.shape[1]))
    return [slice(start, start + block) for start in range(0, len(probs), block)]


def _argmax(probs: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.concatenate([probs[part].argmax(axis=1) for part in _blocks(probs)])


def _preferred(
    probs: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The likeliest class that is not the label, and its share of all that are not."""
    suggested, sureness = np.empty(len(labels), np.int64), np.empty(len(labels), np.float32)
    for part in _blocks(probs):
        others = np.array(probs[part], np.float32)
        rows = np.arange(len(others))
        others[rows, labels[part]] = -1.0
        suggested[part] = others.argmax(axis=1)
        others[rows, labels[part]] = 0.0
        best, rest = others[rows, suggested[part]], others.sum(axis=1)
        sureness[part] = best / np.maximum(rest, 1e-30)
    return suggested, sureness
