"""Score a data set again with flips planted among its labels: how does a known mistake score?"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noiseaudit._rows import row_blocks, spread_rows
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import Detector, needs_of
from noiseaudit.errors import ManifestMismatchError, UsageError
from noiseaudit.label_channel import (
    LabelChannel,
    count_label_channel,
    fit_label_channel,
    log_of_probs,
)
from noiseaudit.left_out import LeftOut, predict_left_out
from noiseaudit.planted_flips import pair_weights, plant_flips, plant_rivals
from noiseaudit.ranking import Ranking
from noiseaudit.scoring import Scores, rank_embeddings, score_examples
from noiseaudit.seeding import derive_seed
from noiseaudit.training.plan import TrainingPlan

__all__ = ["ODDS", "PlantedRounds", "judged_by_plants", "run_planted_rounds", "why_no_rounds"]

logger = logging.getLogger(__name__)

ODDS = "label_odds"
"""The log odds of a label channel: a detector on embeddings, here of trained networks too."""

_SERVED = {"training", "embeddings"}  # what a round runs: no further trainings, no observers
_FEWEST = 20  # plants, below which there is no point
_WANTED = 400  # plants in all rounds together
_SHARES = (0.02, 0.05)  # of the labels, planted in one round
_FEW, _MOST_ROUNDS = 100, 4  # plants that encoded pictures get further rounds for; rounds
_RIVALS, _MOST_RIVALS = 0.02, 0.25  # of the labels, in all rounds; of the sample, in one
_SAMPLE = 50_000  # examples that a label channel is made from, and rivals drawn
_SAMPLE_ELEMENTS = 2**24  # probabilities of those

_Run = tuple[Mapping[str, Ranking], NDArray[np.float32]]
"""By detector how suspicious each label is, and (n, k) probabilities."""


@dataclass(frozen=True, eq=False)
class PlantedRounds:
    """What r rounds with plants gave, beside a run without: row 0 of all that has r + 1.

    Attributes:
        given: (n,) int64, given labels.
        labels: (r + 1, n) int64 that each run was given; a plant is where they differ from `given`.
        suspicions: by detector name, (r + 1, n) float64, higher = more suspicious.
        predicted: (r + 1, n) int64, the likeliest class.
        suggested: (r + 1, n) int64, the likeliest class that is not the label.
        sureness: (r + 1, n) float32 in [0, 1], its probability if the label is wrong.
        was_right: (n,) float64 in [0, 1], probability that the given label is right, as far as the
            run without plants tells: of a network 1 where its likeliest class is the label, else 0.
        weights: (r + 1, n) float64, how much each plant counts; 0 where there is none.
        most_weights: (r + 1, n) float64, likewise of plants between classes: `plant_rivals`.
        is_left_out: whether predictions are left-out ones, and not of a run that saw the labels.
        left_out: of such a run without an `odds_channel`, other predictions that have not seen the
            label, `predict_left_out`; None where those say too little.
        odds_channel: from true to given labels, that `label_odds` of the run without plants are of,
            if of left-out predictions: of encoded pictures, and of vectors that a network is
            trained on, which have a ridge of their own; else None.
        seconds: of training in all rounds, or of the ridges.
    """

    given: NDArray[np.int64]
    labels: NDArray[np.int64]
    suspicions: Mapping[str, NDArray[np.float64]]
    predicted: NDArray[np.int64]
    suggested: NDArray[np.int64]
    sureness: NDArray[np.float32]
    was_right: NDArray[np.float64]
    weights: NDArray[np.float64]
    most_weights: NDArray[np.float64]
    is_left_out: bool
    left_out: LeftOut | None
    odds_channel: LabelChannel | None
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
    n, rounds = max(1, len(dataset)), 1
    if dataset.encoder:
        rounds = min(_MOST_ROUNDS, math.ceil(_FEW / (_SHARES[1] * n)))
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

    Pairs of classes are drawn as they are confused in the labels, so that plants are as hard as the
    mistakes that are there. There is one round, which is a training run and the ranking, with a
    seed of its own, so that what the runs differ on says how sure the network is; of encoded
    pictures up to four, each a ridge on the embeddings.

    Cost: of those; and of `predict_left_out` where a network has no left-out predictions beside it,
    in a run that goes on, too.

    Args:
        dataset: with the labels as given.
        plan: of the run without plants.
        detectors: chosen for the audit; a round scores those of them that `judged_by_plants` names.
        scores: of the run without plants, with all of these.
        folder: for the rounds.
        resume: False starts over.
        progress: show a bar on stderr when it is a terminal.

    Raises:
        UsageError: for what `why_no_rounds` says.
    """
    given, n = dataset.labels, len(dataset)
    if why := why_no_rounds(detectors, dataset):
        raise UsageError(f"no planted rounds: {why}")
    judged = judged_by_plants(detectors, dataset)
    is_left_out = scores.left_out_probs is not None
    has_other = is_left_out or scores.odds_channel is not None
    left_out = None if has_other else predict_left_out(dataset)
    channel, was_right = _channel(scores, given, left_out)
    rounds, share = _rounds(dataset)
    plain = plant_flips(given, channel.joint, share=share, rounds=rounds, seed=plan.seed)
    planted, most = _with_rivals(given, plain, channel, scores, plan.seed)
    again, seconds = _run_rounds(
        dataset, planted, plan, judged, folder, resume=resume, progress=progress
    )
    runs = [(scores.rankings, scores.pred_probs), *again]
    every = np.vstack([given, planted])
    told = [_preferred(probs, labels) for (_, probs), labels in zip(runs, every, strict=True)]
    weights = pair_weights(given, plain, channel.joint, was_right)
    return PlantedRounds(
        given=given,
        labels=every,
        suspicions=_suspicions(judged, runs, every, scores, channel),
        predicted=np.stack([predicted for predicted, _, _ in told]),
        suggested=np.stack([suggested for _, suggested, _ in told]),
        sureness=np.stack([sureness for _, _, sureness in told]),
        was_right=was_right,
        weights=np.vstack([np.zeros(n), weights]),
        most_weights=np.vstack([np.zeros(n), most]),
        is_left_out=is_left_out,
        left_out=left_out,
        odds_channel=channel if is_left_out else scores.odds_channel,
        seconds=seconds,
    )


def _run_rounds(
    dataset: LabeledDataset,
    planted: NDArray[np.int64],
    plan: TrainingPlan,
    detectors: Sequence[Detector],
    folder: Path,
    *,
    resume: bool,
    progress: bool,
) -> tuple[list[_Run], float]:
    """What each of (r, n) labels gives, and seconds of training, or of the ridges."""
    runs: list[_Run] = []
    began, trained = time.perf_counter(), 0.0
    for number, labels in enumerate(planted, start=1):
        flipped = int((labels != dataset.labels).sum())
        logger.info("round %d of %d, with %d labels flipped", number, len(planted), flipped)
        if dataset.encoder:
            runs.append(rank_embeddings(dataset.with_labels(labels), plan, detectors))
            continue
        own = replace(plan, seed=derive_seed(plan.seed, "planted-round", number))
        again = _train_round(
            dataset.with_labels(labels), own, detectors, folder / f"round_{number}",
            resume=resume, progress=progress,
        )  # fmt: skip
        trained += again.run.training_seconds
        runs.append((again.rankings, again.pred_probs))
    return runs, time.perf_counter() - began if dataset.encoder else trained


def _suspicions(
    detectors: Sequence[Detector],
    runs: Sequence[_Run],
    labels: NDArray[np.int64],
    scores: Scores,
    channel: LabelChannel,
) -> dict[str, NDArray[np.float64]]:
    """By detector, (r + 1, n); of a network its label odds too, unless they were asked for."""
    found = {d.name: np.stack([rankings[d.name].scores for rankings, _ in runs]) for d in detectors}
    if ODDS not in found and scores.left_out_probs is None:
        found[ODDS] = np.stack([
            np.concatenate([
                channel.log_odds(log_of_probs(probs[part]), own[part])[0]
                for part in row_blocks(*probs.shape)
            ])
            for (_, probs), own in zip(runs, labels, strict=True)
        ])  # fmt: skip
    return found


def _sample(probs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rows that a channel is made from and rivals are drawn from: all, but of large data."""
    return spread_rows(len(probs), min(_SAMPLE, _SAMPLE_ELEMENTS // probs.shape[1]))


def _train_round(
    dataset: LabeledDataset,
    plan: TrainingPlan,
    detectors: Sequence[Detector],
    folder: Path,
    *,
    resume: bool,
    progress: bool,
) -> Scores:
    """A round; what `folder` holds of other plants is of no use to anybody."""
    try:
        return score_examples(dataset, plan, detectors, folder, resume=resume, progress=progress)
    except ManifestMismatchError:
        shutil.rmtree(folder)
        return score_examples(dataset, plan, detectors, folder, progress=progress)


def _channel(
    scores: Scores, given: NDArray[np.int64], left_out: LeftOut | None
) -> tuple[LabelChannel, NDArray[np.float64]]:
    """From true to given labels; and (n,) probabilities that the given label is right.

    Left-out predictions are probabilities; a model that has seen the labels is taken at its word,
    its likeliest class for the true one. Which pairs are confused other predictions tell better
    (`LeftOut.believed`): counted, what the model confuses is taken for what was written down wrong.
    """
    probs = scores.pred_probs
    some = _sample(probs)
    if scores.left_out_probs is None:
        likely = [probs[part].argmax(axis=1) == given[part] for part in row_blocks(*probs.shape)]
        channel = count_label_channel(probs[some], given[some])
        if left_out is not None:
            other = left_out.believed(given)
            channel = replace(channel, transition=other.transition, joint=other.joint)
        return channel, np.concatenate(likely).astype(np.float64)
    channel = fit_label_channel(log_of_probs(probs[some]), given[some])
    was_right = [
        1 - channel.prob_wrong(log_of_probs(probs[part]), given[part])
        for part in row_blocks(*probs.shape)
    ]
    return channel, np.concatenate(was_right)


def _with_rivals(
    given: NDArray[np.int64],
    planted: NDArray[np.int64],
    channel: LabelChannel,
    scores: Scores,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rounds with plants between classes too, and (r, n) weights of those."""
    some = _sample(scores.pred_probs)
    share = _RIVALS / len(planted) * len(given) / len(some)
    likely = channel.probs(log_of_probs(scores.pred_probs[some]))
    both, weights = planted.copy(), np.zeros(planted.shape)
    both[:, some], weights[:, some] = plant_rivals(
        given[some], planted[:, some], likely, share=min(share, _MOST_RIVALS), seed=seed
    )
    return both, weights


def _preferred(
    probs: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The likeliest class, the likeliest that is not the label, and its share of all but that."""
    predicted, suggested = np.empty((2, len(labels)), np.int64)
    sureness = np.empty(len(labels), np.float32)
    for part in row_blocks(*probs.shape):
        others = np.array(probs[part], np.float32)
        predicted[part] = others.argmax(axis=1)
        rows = np.arange(len(others))
        others[rows, labels[part]] = -1.0
        suggested[part] = others.argmax(axis=1)
        others[rows, labels[part]] = 0.0
        best, rest = others[rows, suggested[part]], others.sum(axis=1)
        sureness[part] = best / np.maximum(rest, 1e-30)
    return predicted, suggested, sureness
