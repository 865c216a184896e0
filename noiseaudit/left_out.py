"""A second look at what a network is trained on: predictions that have not seen the label.

A network has seen every label and believes some of the wrong ones. A ridge regression on the same
inputs is a weaker model, but left out exactly and cheaply: what its sure predictions contradict
counts the wrong labels anew, and says which classes are taken for which. Copies of an example,
though, have its label.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from noiseaudit._rows import row_blocks, spread_rows
from noiseaudit.dataset import LabeledDataset
from noiseaudit.label_channel import LabelChannel, fit_label_channel
from noiseaudit.picture_vectors import shrink_pictures
from noiseaudit.ridge import leave_one_out, probs_of_scores

__all__ = ["LeftOut", "predict_left_out"]

_SAMPLE = 10_000  # examples
_SAMPLE_ELEMENTS = 2**25  # of long vectors; as many as 10,000 pictures have, shrunk
_MOST_ERRORS = 0.25  # of all predictions, beside wrong labels: beyond, a ridge says too little
_BLIND = 0.9  # of the labels that the commonest class alone contradicts: a ridge must do better


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What predictions that have not seen the label say of m of the examples.

    Attributes:
        rows: (m,) int64, which.
        probs: (m, k) float32 in [0, 1], of the right class.
        channel: from true to given labels.
    """

    rows: NDArray[np.int64]
    probs: NDArray[np.float32]
    channel: LabelChannel

    def believed(self, labels: NDArray[np.int64]) -> LabelChannel:
        """The channel, pairs of classes counting as far as wrong labels explain them.

        A ridge takes classes for each other itself, and some of that is counted as mistakes. If it
        predicts c for d of the labels j, and the channel counts w labels j as wrong ones of c, the
        pair keeps w / d of its rate, at most all; a pair that is never taken for each other keeps
        what it has. What is lost, and one label more, is spread over all pairs evenly. The
        `deviation` stays that of the channel.

        Source: our own.

        Args:
            labels: (n,) int64, given labels, of all examples.
        """
        k, prior = self.probs.shape[1], self.channel.joint.sum(axis=1, keepdims=True)
        kept = np.where(np.eye(k) > 0, 1, self._explained(labels))
        lost = (prior * (1 - kept) * self.channel.transition).sum() + 1 / len(self.rows)
        transition = kept * self.channel.transition + lost / (k - 1) * (1 - np.eye(k))
        transition /= transition.sum(axis=1, keepdims=True)
        return replace(self.channel, transition=transition, joint=prior * transition)

    def sure_rate(self, labels: NDArray[np.int64]) -> float:
        """Share of labels, (n,) int64, that are wrong at least: as far as they explain pairs."""
        wrong = self.channel.joint * (1 - np.eye(self.probs.shape[1]))
        return float((self._explained(labels) * wrong).sum())

    def _explained(self, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """(k, k) in [0, 1], of labels j predicted as c the share that is wrong; 1 if none is."""
        k = self.probs.shape[1]
        pairs = self.probs.argmax(axis=1) * k + labels[self.rows]
        taken = np.bincount(pairs, minlength=k * k).reshape(k, k) / len(self.rows)
        explained = np.divide(self.channel.joint, taken, out=np.ones((k, k)), where=taken > 0)
        return np.minimum(1, explained)


def predict_left_out(dataset: LabeledDataset) -> LeftOut | None:
    """By a kernel ridge on the inputs, of at most 10,000 examples; None if it is weak.

    Pictures are shrunk to at most 32 pixels a side. Weak is a ridge whose predictions contradict a
    quarter of all labels beyond those it counts as wrong, as on colour photographs, or that hardly
    does better than the commonest class.

    Cost: `leave_one_out` and `fit_label_channel` of at most 10,000 examples: 4 s for as many
    pictures of 28 x 28 of 10 classes, and 230 MB of memory. Of vectors so long that there are more
    than 2^25 numbers, fewer are taken.
    """
    some = spread_rows(len(dataset), _sample_size(dataset))
    given = dataset.labels[some]
    scores = leave_one_out(_vectors(dataset, some), given, dataset.num_classes).scores
    differs = float((scores.argmax(axis=1) != given).mean())
    if differs >= _BLIND * (1 - np.bincount(given).max() / len(given)):
        return None
    channel = fit_label_channel(scores, given)
    if differs - channel.rate > _MOST_ERRORS:
        return None
    return LeftOut(some, probs_of_scores(scores, given, of="right"), channel)


def _sample_size(dataset: LabeledDataset) -> int:
    if dataset.kind == "images":
        return _SAMPLE
    return min(_SAMPLE, max(2, _SAMPLE_ELEMENTS // dataset.input_shape[0]))


def _vectors(dataset: LabeledDataset, some: NDArray[np.int64]) -> NDArray[np.float32]:
    if dataset.kind == "vectors":
        return np.asarray(dataset.inputs[some], np.float32)
    size = int(np.prod(dataset.inputs.shape[1:]))
    return np.concatenate([
        shrink_pictures(dataset.inputs[some[part]]) for part in row_blocks(len(some), size)
    ])  # fmt: skip
