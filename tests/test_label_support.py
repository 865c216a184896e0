"""How far left-out predictions side with labels that a network contradicts: how many are wrong."""

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.label_support import LabelSupport, measure_support
from noiseaudit.left_out import LeftOut
from noiseaudit.noise_estimate import Estimate

N, K = 6000, 4


def left_out(probs, transition=None, rows=None):
    k = probs.shape[1]
    transition = np.full((k, k), 1 / k) if transition is None else transition
    rows = np.arange(len(probs)) if rows is None else rows
    return LeftOut(rows, probs.astype(np.float32), na.LabelChannel(1.0, transition, transition / k))


def test_each_kind_by_hand():
    # True class 0 throughout; the network contradicts the first ten, unsure of five of those and of
    # two more.
    n = 30
    labels, predicted = np.zeros((2, 2, n), np.int64)
    predicted[0, :10] = 1
    predicted[1, :5] = 2  # contradicted by both runs
    predicted[1, 10:12] = 3
    labels[1, 12:15] = predicted[1, 12:15] = 1  # plants that are believed are not unsteady
    probs = np.tile([0.5, 0.2, 0.2, 0.1], (n, 1))
    probs[:10] = [0.2, 0.6, 0.1, 0.1]
    transition = np.array([[0.7, 0.3, 0, 0], [0.1, 0.9, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]])
    found = measure_support(left_out(probs, transition), labels, predicted)
    assert found.contradicted == pytest.approx(0.2 / 0.8)
    # Of the first run, 5 to 9, against class 1; of the second, 10 and 11, against class 3; and ten
    # of 0.5.
    values = np.array([0.25] * 5 + [0.5 / 0.6] * 2 + [0.5] * 10)
    assert found.unsteady == pytest.approx(values.mean())
    spread = np.square(values - values.mean()).sum() - 10 * (0.5 - values.mean()) ** 2 + 10 / 16
    assert found.unsteady_error == pytest.approx(spread**0.5 / 17)
    assert found.contradicted_error == pytest.approx(0, abs=1e-6)
    assert found.wrong == pytest.approx(0.2 / 0.7)  # a 0 is always taken for a 1
    order = np.random.default_rng(0).permutation(n)
    rows = np.argsort(order)
    shuffled = left_out(probs, transition, rows)
    again = measure_support(shuffled, labels[:, order], predicted[:, order])
    np.testing.assert_allclose(again, found)
    few = predicted.copy()
    few[0, 9] = 0
    assert measure_support(left_out(probs, transition), labels, few) is None


def network_and_ridge(rate, hard=0.15, seed=0):
    """Labels of two runs, predictions, left-out probabilities, and what is wrong.

    Of a share `hard` of the examples there is a second class that a model may take for the true
    one: the network errs on half of them, a seventh of those unsteadily; left-out predictions lean
    to the network's class there, and less so where it is unsure.
    """
    random = np.random.default_rng(seed)
    true = random.integers(0, K, N)
    rival = (true + 1) % K
    given = np.where(random.random(N) < rate, (true + random.integers(1, K, N)) % K, true)
    is_hard, lean = random.random(N) < hard, random.random(N)
    predicted = np.stack([np.where(is_hard & (lean < 0.5), rival, true)] * 2)
    unsure = is_hard & (np.abs(lean - 0.5) < 0.07)
    drawn = random.random((2, unsure.sum())) < 0.5
    predicted[:, unsure] = np.where(drawn, rival[unsure], true[unsure])
    log_odds = np.where(is_hard, 6 * (lean - 0.5) + random.standard_normal(N), 4.0)
    share = 1 / (1 + np.exp(-log_odds))
    probs = np.full((N, K), 0.01)
    probs[np.arange(N), true], probs[np.arange(N), rival] = share, 1 - share
    probs /= probs.sum(axis=1, keepdims=True)
    return np.stack([given, given]), predicted, left_out(probs), given != true


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_wrong_labels_are_told_from_those_that_are_hard_to_tell(rate):
    labels, predicted, held, wrong = network_and_ridge(rate)
    differs = predicted[0] != labels[0]
    assert differs[~wrong].mean() > 0.06
    recall = differs[wrong].mean() if rate else 1.0
    given = Estimate(recall, recall, recall)
    found = measure_support(held, labels, predicted).rate(differs.mean(), given)
    assert found.low <= wrong.mean() <= found.high
    assert found.value == pytest.approx(wrong.mean(), abs=0.015)


NINE_TENTHS = Estimate(0.9, 0.9, 0.9)


def test_the_rate_by_hand():
    # Right ones have 0.55 * 0.4 = 0.22, so (0.17 - 0.02) / 0.2 of those contradicted are right.
    found = LabelSupport(0.17, 0.4, 0.02, 0.01, 0.02).rate(0.2, Estimate(0.9, 0.8, 0.95))
    error = np.hypot(0.01, 0.75 * np.hypot(0.55 * 0.02, 0.055 * 0.4))
    half = 1.96 * error / 0.2
    want = [0.2 * 0.25 / 0.9, max(0, 0.2 * (0.25 - half) / 0.95), 0.2 * (0.25 + half) / 0.8]
    np.testing.assert_allclose(found, want)


def test_where_two_classes_are_both_ruled_out_the_support_is_even():
    labels, predicted = np.zeros((2, 2, 40), np.int64)
    predicted[:, :20] = 1
    probs = np.tile([0.0, 0.0, 1.0], (40, 1))
    found = measure_support(left_out(probs), labels, predicted)
    assert found.contradicted == pytest.approx(0.5)


def test_of_nothing_but_contradicted_labels_nothing_is_said():
    labels = np.zeros((2, 40), np.int64)
    assert measure_support(left_out(np.full((40, 2), 0.5)), labels, labels + 1) is None


def test_wrong_labels_are_those_that_a_class_is_taken_for():
    labels, predicted = np.zeros((2, 2, 50), np.int64)
    labels[:, 20:] = predicted[:, 20:] = 1
    predicted[:, :20] = 1  # all that is kept is of class 1
    transition = np.array([[0.5, 0.0, 0.5], [0.3, 0.7, 0.0], [0.5, 0.5, 0.0]])
    probs = np.tile([0.1, 0.6, 0.3], (50, 1))
    found = measure_support(left_out(probs, transition), labels, predicted)
    assert found.wrong == pytest.approx(0.1 / 0.7)  # a 1 is taken for a 0 alone


def test_what_contradicts_too_little_or_too_much_is_clipped():
    nothing = LabelSupport(0.6, 0.5, 0.03, 0.01, 0.01).rate(0.2, NINE_TENTHS)
    assert nothing.value == nothing.low == 0
    every = LabelSupport(0.02, 0.5, 0.03, 0.01, 0.01).rate(0.2, NINE_TENTHS)
    assert every.value == every.high == pytest.approx(0.2 / 0.9)
    assert every.low < every.value  # the labels' own mean varies
    assert LabelSupport(0.03, 0.5, 0.03).rate(0.95, NINE_TENTHS).value == 1.0


def test_the_interval_widens_with_what_it_rests_on():
    def width(contradicted_error, unsteady_error):
        found = LabelSupport(0.2, 0.5, 0.03, contradicted_error, unsteady_error).rate(
            0.2, NINE_TENTHS
        )
        return found.high - found.low

    assert 0.02 < width(0, 0) < width(0.01, 0) < width(0.02, 0)
    assert width(0, 0) < width(0, 0.03)


def test_where_right_labels_have_no_more_support_than_wrong_ones_nothing_is_said():
    assert LabelSupport(0.2, 0.5, 0.25, 0.01, 0.01).rate(0.2, NINE_TENTHS) is None
    assert LabelSupport(0.2, 0.5, 0.05, 0.01, 0.5).rate(0.2, NINE_TENTHS) is None
    assert LabelSupport(0.2, 0.5, 0.05, 0.01, 0.01).rate(0.2, Estimate(0.0, 0.0, 0.5)) is None


def test_little_support_is_less_than_that_of_right_labels():
    assert LabelSupport(0.249, 0.5, 0.03).is_low
    assert not LabelSupport(0.251, 0.5, 0.03).is_low
