"""From a data set to a small dense problem, and to its controls of the same size.

Every control keeps everything but the one thing that it randomises: random labels keep the count of
every class, random inputs keep the mean and variance of every feature, and validation examples
always stay as they are in the data set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._validation import check_finite
from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import DataError, UsageError
from noiseaudit.label_noise import check_rate
from noiseaudit.seeding import generator

__all__ = [
    "AS_GIVEN",
    "MIN_EXAMPLES",
    "RANDOM_INPUTS",
    "RANDOM_LABELS",
    "Problem",
    "check_dataset",
    "give_each_its_class",
    "make_controls",
    "make_problem",
    "name_share",
    "randomize_inputs",
    "randomize_labels",
    "take_first",
]

AS_GIVEN = "as given"
RANDOM_LABELS = "random labels"
RANDOM_INPUTS = "random inputs"

MIN_EXAMPLES = 50
"""Fewest examples of which anything can be said."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Training and validation examples as small dense networks take them.

    Attributes:
        inputs: (n, d) float32 training inputs; pictures with mean 0 and deviation 1 over all pixels
            together, vectors with mean 0 and deviation 1 in every feature (constant ones are 0).
        labels: (n,) int64 in [0, num_classes).
        validation_inputs: (v, d) float32, normalised by the mean and deviation of `inputs`.
        validation_labels: (v,) int64.
        num_classes: k.
        deviation: what 1 in `inputs` is in the units of the data: of pixels in [0, 1] for pictures;
            1 for vectors, whose unit is each feature's own deviation.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    validation_inputs: NDArray[np.float32]
    validation_labels: NDArray[np.int64]
    num_classes: int
    deviation: float = 1.0


def make_problem(
    dataset: LabeledDataset,
    *,
    size: int,
    validation_size: int,
    seed: int,
    side: int | None = None,
) -> Problem:
    """Draw disjoint training and validation examples, each in the classes' proportions.

    Of fewer than `size + validation_size` examples, all are used, divided in the same proportion.

    Args:
        dataset: at least 50 examples of two classes.
        size: n, training examples.
        validation_size: v.
        seed: of which examples are drawn.
        side: average blocks of pixels so that the longer side of a picture has about this many
            (28 to 14 by blocks of 2 x 2, as Arpit et al. shrink MNIST for loss sensitivity); None
            leaves pictures as they are. No effect on vectors.

    Raises:
        DataError: if the data set is too small, has one class, or inputs that are all the same.
        UsageError: if a size or side is not positive.
    """
    for name, number in (("size", size), ("validation_size", validation_size), ("side", side)):
        if number is not None and number < 1:
            raise UsageError(f"{name} must be at least 1; got {number}")
    check_dataset(dataset)
    held_out = min(
        validation_size, round(len(dataset) * validation_size / (size + validation_size))
    )
    held_out = max(held_out, 1)
    order = _draw_in_proportion(dataset.labels, generator(seed, "problem-rows"))
    validation, training = order[:held_out], order[held_out : held_out + size]
    inputs, deviation = _normalised(dataset, training, training, side)
    if not inputs.any():
        raise DataError(f"all {len(inputs)} inputs are the same: there is nothing to learn from")
    return Problem(
        inputs=inputs,
        labels=dataset.labels[training],
        validation_inputs=_normalised(dataset, validation, training, side)[0],
        validation_labels=dataset.labels[validation],
        num_classes=dataset.num_classes,
        deviation=deviation,
    )


def check_dataset(dataset: LabeledDataset) -> None:
    """Check that a data set has at least 50 examples of two classes.

    Raises:
        DataError: if it has not.
    """
    if len(dataset) < MIN_EXAMPLES:
        raise DataError(
            f"{MIN_EXAMPLES} examples are needed to tell learning from memorisation; "
            f"got {len(dataset)}"
        )
    present = len(np.unique(dataset.labels))
    if present < 2:
        raise DataError(f"labels of at least 2 classes are needed; all {len(dataset)} have one")


def randomize_labels(problem: Problem, share: float, *, seed: int) -> Problem:
    """Permute the labels of a share of the training examples among each other.

    The count of every class stays as it is, so that random labels differ from the given ones in
    nothing but what they say of the inputs; with k even classes about 1 in k is right by chance.

    Raises:
        UsageError: if the share is outside [0, 1].
    """
    random = generator(seed, "random-labels")
    order = _draw_in_proportion(problem.labels, random)
    chosen = order[: round(check_rate(share) * len(order))]
    labels = problem.labels.copy()
    labels[chosen] = labels[random.permutation(chosen)]
    return replace(problem, labels=labels)


def randomize_inputs(problem: Problem, share: float, *, seed: int) -> Problem:
    """Replace a share of the training inputs by Gaussian noise of each feature's mean and variance.

    Source: Arpit et al. 2017, section 2 (randX).

    Raises:
        UsageError: if the share is outside [0, 1].
    """
    random = generator(seed, "random-inputs")
    order = _draw_in_proportion(problem.labels, random)
    chosen = order[: round(check_rate(share) * len(order))]
    mean = problem.inputs.mean(axis=0, dtype=np.float64)
    deviation = problem.inputs.std(axis=0, dtype=np.float64)
    drawn = random.standard_normal((len(chosen), problem.inputs.shape[1]))
    inputs = problem.inputs.copy()
    inputs[chosen] = mean + deviation * drawn
    return replace(problem, inputs=inputs)


def make_controls(problem: Problem, *, seed: int) -> dict[str, Problem]:
    """The problem as given, and with random labels and with random inputs throughout."""
    return {
        AS_GIVEN: problem,
        RANDOM_LABELS: randomize_labels(problem, 1.0, seed=seed),
        RANDOM_INPUTS: randomize_inputs(problem, 1.0, seed=seed),
    }


def name_share(share: float) -> str:
    """What a problem with a share of random labels is called in figures."""
    if share in (0.0, 1.0):
        return RANDOM_LABELS if share else AS_GIVEN
    return f"{share:.0%} random labels"


def take_first(problem: Problem, size: int) -> Problem:
    """The first `size` training examples, in about the classes' proportions, and all validation."""
    return replace(problem, inputs=problem.inputs[:size], labels=problem.labels[:size])


def give_each_its_class(problem: Problem) -> Problem:
    """Make every training example a class of its own: nothing is left to share but the inputs."""
    n = len(problem.labels)
    return replace(problem, labels=np.arange(n), num_classes=n)


def _draw_in_proportion(
    labels: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """All rows in a random order of which every beginning has about the classes' proportions."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        position[rows] = (np.arange(len(rows)) + random.random()) / len(rows)
    return np.argsort(position, kind="stable")


def _normalised(
    dataset: LabeledDataset,
    rows: NDArray[np.int64],
    training: NDArray[np.int64],
    side: int | None,
) -> tuple[NDArray[np.float32], float]:
    inputs = _flat(dataset.inputs[rows], side)
    known = inputs if rows is training else _flat(dataset.inputs[training], side)
    check_finite(inputs, "features", "drop or fill these rows")
    axis = None if dataset.kind == "images" else 0
    mean = known.mean(axis=axis, dtype=np.float64)
    deviation = np.asarray(known.std(axis=axis, dtype=np.float64))
    # Rounding leaves a deviation of about 1e-8 of the values in a feature that is constant.
    varies = deviation > 1e-7 * np.abs(known).max(axis=axis)
    scaled = np.where(varies, (inputs - mean) / np.where(varies, deviation, 1), 0)
    unit = float(deviation) if dataset.kind == "images" and bool(varies) else 1.0
    return scaled.astype(np.float32), unit


def _flat(inputs: NDArray[Any], side: int | None) -> NDArray[np.float64]:
    """(n, d) float64: vectors as they are; pictures in [0, 1], blocks of pixels averaged."""
    if inputs.ndim == 2:
        return inputs.astype(np.float64)
    n, height, width = inputs.shape[:3]
    block = 1 if side is None else max(1, round(max(height, width) / side))
    rows, columns = min(block, height), min(block, width)
    tall, wide = height // rows, width // columns
    kept = inputs[:, : tall * rows, : wide * columns]
    blocks = kept.reshape(n, tall, rows, wide, columns, -1)
    means: NDArray[np.float64] = blocks.mean(axis=(2, 4), dtype=np.float64) / 255
    return means.reshape(n, -1)
