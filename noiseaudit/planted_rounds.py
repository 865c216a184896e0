"""Score a data set again with flips planted among its labels: how does a known mistake score?"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import Detector, needs_of
from noiseaudit.errors import UsageError
from noiseaudit.label_channel import fit_label_channel
from noiseaudit.planted_flips import pair_weights, plant_flips
from noiseaudit.ridge_features import spread_rows
from noiseaudit.scoring import Scores, rank_embeddings, score_examples
from noiseaudit.training.plan import TrainingPlan

__all__ = ["PlantedRounds", "judged_by_plants", "run_planted_rounds", "why_no_rounds"]

logger = logging.getLogger(__name__)

_SERVED = {"training", "embeddings"}  # what a round runs: no further trainings, no observers
_FEWEST = 20  # plants, below which there is no point
_WANTED = 400  # plants in all rounds together
_SHARES = (0.02, 0.05)  # of the labels, planted in one round
_ROUNDS_OF_ENCODED = 4  # at most: they take no training
_SAMPLE = 20_000  # examples that a label channel is fitted to
_LEAST_PROB = 1e-12
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
        seconds: of all rounds, next to nothing where they were reused.
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
    """Those detectors that a round scores: what one training run or embeddings serve.

    Of encoded pictures only what looks at embeddings: a head trained on those does no better, and
    rounds without training are cheap.
    """
    has_embeddings = dataset.kind == "vectors"
    served = {"embeddings"} if dataset.encoder else _SERVED
    needs = {d.name: set(needs_of(d, has_embeddings=has_embeddings)) for d in detectors}
    return [d for d in detectors if needs[d.name] and needs[d.name] <= served]


def why_no_rounds(detectors: Sequence[Detector], dataset: LabeledDataset) -> str:
    """What there is too little of for plants to say anything; "" if there is enough."""
    if not judged_by_plants(detectors, dataset):
        return "no detector asked for is served by one training run, or by embeddings alone"
    if np.count_nonzero(np.bincount(dataset.labels)) < 2:
        return "a flip takes two classes with examples"
    rounds, share = _rounds(dataset)
    if rounds * round(share * len(dataset)) < _FEWEST:
        return f"{len(dataset):,} examples are too few to plant flips among"
    return ""


def _rounds(dataset: LabeledDataset) -> tuple[int, float]:
    """How many rounds, and the share of labels to plant in each."""
    n, least = max(1, len(dataset)), _SHARES[0]
    rounds = 1
    if dataset.encoder:
        rounds = int(np.clip(math.ceil(_WANTED / (least * n)), 1, _ROUNDS_OF_ENCODED))
    return rounds, float(np.clip(_WANTED / (n * rounds), *_SHARES))


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
    mistakes that are there. There is one round, which is a training run and the ranking; of encoded
    pictures up to four, each a ridge on the embeddings.

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
    given, n = dataset.labels, len(dataset)
    if why := why_no_rounds(detectors, dataset):
        raise UsageError(f"no planted rounds: {why}")
    joint, was_right = _confusion(scores, given)
    rounds, share = _rounds(dataset)
    planted = plant_flips(given, joint, share=share, rounds=rounds, seed=plan.seed)
    runs, seconds = [(scores.rankings, scores.pred_probs)], time.perf_counter()
    for number, labels in enumerate(planted, start=1):
        flipped = int((labels != given).sum())
        logger.info("round %d of %d, with %d labels flipped", number, rounds, flipped)
        if dataset.encoder:
            runs.append(rank_embeddings(dataset.with_labels(labels), plan, detectors))
            continue
        again = score_examples(
            dataset.with_labels(labels), plan, detectors, folder / f"round_{number}",
            resume=resume, progress=progress,
        )  # fmt: skip
        runs.append((again.rankings, again.pred_probs))
    every = np.vstack([given, planted])
    told = [_preferred(probs, labels) for (_, probs), labels in zip(runs, every, strict=True)]
    weights = pair_weights(given, planted, joint, was_right)
    return PlantedRounds(
        given=given,
        labels=every,
        suspicions={
            d.name: np.stack([rankings[d.name].scores for rankings, _ in runs]) for d in detectors
        },
        suggested=np.stack([suggested for suggested, _ in told]),
        sureness=np.stack([sureness for _, sureness in told]),
        weights=np.vstack([np.zeros(n), weights]),
        seconds=time.perf_counter() - seconds,
    )


def _blocks(probs: NDArray[np.float32]) -> list[slice]:
    block = max(1, _BLOCK_ELEMENTS // max(1, probs.shape[1]))
    return [slice(start, start + block) for start in range(0, len(probs), block)]


def _confusion(
    scores: Scores, given: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(k, k) how often true c is given as j, and (n,) probabilities that the given is right.

    Left-out predictions are probabilities of a label channel; a model that has seen the labels is
    taken at its word, its likeliest class for the true one.
    """
    probs, k = scores.pred_probs, scores.pred_probs.shape[1]
    if scores.left_out_probs is None:
        likely = np.concatenate([probs[part].argmax(axis=1) for part in _blocks(probs)])
        joint = np.bincount(likely * k + given, minlength=k * k).reshape(k, k)
        return joint.astype(np.float64), np.where(likely == given, 1.0, 0.0)
    some = spread_rows(len(given), _SAMPLE)
    channel = fit_label_channel(_logs(probs[some]), given[some])
    was_right = [1 - channel.prob_wrong(_logs(probs[p]), given[p]) for p in _blocks(probs)]
    return channel.joint, np.concatenate(was_right)


def _logs(probs: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.log(np.maximum(probs, _LEAST_PROB).astype(np.float64))


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
