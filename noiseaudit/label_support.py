"""How far predictions that have not seen a label side with it, where a network contradicts it.

A label may be contradicted because it is wrong, or because the example is hard to tell. A model
that has not seen the label takes a wrong one for as unlikely as any other class; a right one of a
hard example it takes for likelier, the more so the nearer the example is to where the network
changes its mind. How much likelier, the examples say on which two runs of the network differ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from noiseaudit.left_out import LeftOut
from noiseaudit.noise_estimate import Estimate

__all__ = ["LabelSupport", "measure_support"]

# What right labels that a network contradicts have, in support of those that it is unsure of: of
# clean MNIST and Fashion-MNIST, also on few pixels, by either network, 0.47 to 0.62; of groups of
# like classes and of pictures in noise 0.51 to 0.83.
_RIGHT, _RIGHT_ERROR, _LEAST_RIGHT = 0.55, 0.055, 0.5
_INTERVAL = 1.96
_LEAST_PROB = 1e-12  # so that two classes that are both ruled out are even
_FEWEST = 10  # contradicted labels, below which their mean says nothing
_PRIOR, _PRIOR_DEVIATION, _PRIOR_COUNT = 0.5, 0.25, 10  # of the support of unsteady labels


class LabelSupport(NamedTuple):
    """Mean support of labels of three kinds; each in [0, 1], with standard errors of two.

    The support of a label against another class is the share of the label in the probability that
    left-out predictions give to both.

    Attributes:
        contradicted: of labels that the network contradicts, against what it predicts.
        unsteady: of those that one run of it contradicts and another does not, likewise: the
            network is unsure of these, and most are right unless runs believe many wrong labels.
            Ten more of 0.5 are added, for they may be few.
        wrong: of wrong labels, of which left-out predictions know nothing: another class in the
            label's place, as often as pairs are confused.
        contradicted_error, unsteady_error: standard errors.
    """

    contradicted: float
    unsteady: float
    wrong: float
    contradicted_error: float = 0.0
    unsteady_error: float = 0.0

    @property
    def is_low(self) -> bool:
        """Whether contradicted labels have less than half of what unsteady ones have.

        On clean data that was so of MNIST with one seed of three alone (0.47), where a network errs
        on no more than what its runs differ on.
        """
        return self.contradicted < _LEAST_RIGHT * self.unsteady

    def rate(self, differs: float, recall: Estimate) -> Estimate | None:
        """The share of wrong labels, and its 95% interval; None where nothing tells them apart.

        Right labels that a network contradicts have about 0.55 times the support of unsteady ones,
        wrong ones have none but by chance: so many of the contradicted ones are right. The interval
        is of what the means of contradicted and unsteady labels vary, of a tenth of that ratio, and
        of the recall. Two kinds of mistakes are counted short: those on examples between two
        classes, which have more support than others, and those that one run believes and another
        does not, which are unsteady and have little.

        Source: our own; a mixture of two known means.

        Args:
            differs: share of labels that the network contradicts, in [0, 1].
            recall: share of the wrong ones that it contradicts, in [0, 1].
        """
        right = _RIGHT * self.unsteady
        if right - self.wrong < _INTERVAL * self._error_of_right or recall.low <= 0:
            return None
        share = float(np.clip((self.contradicted - self.wrong) / (right - self.wrong), 0, 1))
        error = np.hypot(self.contradicted_error, share * self._error_of_right)
        half = _INTERVAL * float(error) / (right - self.wrong)
        shares = np.clip([share, share + half, share - half], 0, 1)
        recalls = [recall.value, recall.high, recall.low]
        return Estimate(*np.minimum(differs * (1 - shares) / recalls, 1).tolist())

    @property
    def _error_of_right(self) -> float:
        unsteady, error = self.unsteady, self.unsteady_error
        return float(np.hypot(_RIGHT * error, _RIGHT_ERROR * unsteady))


def measure_support(
    left_out: LeftOut, labels: NDArray[np.int64], predicted: NDArray[np.int64]
) -> LabelSupport | None:
    """Of the first run's labels; None if it contradicts too few.

    Cost: a pass over the probabilities, which are of at most 10,000 examples; a few times 8 bytes
    for each.

    Args:
        left_out: what predictions that have not seen the label say.
        labels: (r + 1, n) int64, given labels, and those of r runs with plants.
        predicted: (r + 1, n) int64, the likeliest class by those runs, on average over training.
    """
    labels, predicted = labels[:, left_out.rows], predicted[:, left_out.rows]
    given, first = labels[0], predicted[0]
    probs = np.maximum(left_out.probs, _LEAST_PROB, dtype=np.float64)
    own = probs[np.arange(len(given)), given]

    def support(kind: NDArray[np.bool_], other: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(own[kind] / (own[kind] + probs[kind, other[kind]]), np.float64)

    contradicted = support(first != given, first)
    unsteady = np.concatenate([
        support(
            (again == given) & ((first == given) != (second == given)),
            np.where(first == given, second, first),
        )
        for again, second in zip(labels[1:], predicted[1:], strict=True)
    ])  # fmt: skip
    kept = first == given
    if len(contradicted) < _FEWEST or not kept.any():
        return None
    others = left_out.channel.transition * (1 - np.eye(probs.shape[1]))
    others /= others.sum(axis=1, keepdims=True)
    right = own[kept, None]
    wrong = (others[given[kept]] * (probs[kept] / (probs[kept] + right))).sum(axis=1)
    n = len(unsteady) + _PRIOR_COUNT
    mean = (unsteady.sum() + _PRIOR_COUNT * _PRIOR) / n
    squares = np.square(unsteady - mean).sum() + _PRIOR_COUNT * _PRIOR_DEVIATION**2
    return LabelSupport(
        float(contradicted.mean()), float(mean), float(wrong.mean()),
        float(contradicted.std() / len(contradicted) ** 0.5), float(squares**0.5 / n),
    )  # fmt: skip
