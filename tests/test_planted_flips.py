"""Flips planted on purpose, and the channel that says which."""

import numpy as np
import pytest
from scipy.special import log_softmax

import noiseaudit as na
from noiseaudit.errors import DataError, UsageError
from noiseaudit.label_channel import count_label_channel, log_of_probs
from noiseaudit.planted_flips import pair_weights, plant_rivals

K = 5


def pair_joint():
    joint = np.eye(K) * 50
    joint[np.arange(K), (np.arange(K) + 1) % K] = 10
    return joint


def test_plants_follow_the_confusion_and_none_is_planted_twice():
    labels = np.repeat(np.arange(K), 200)
    planted = na.plant_flips(labels, pair_joint(), share=0.05, rounds=4, seed=1)
    is_planted = planted != labels
    assert planted.shape == (4, 1000)
    assert is_planted.sum(axis=0).max() == 1
    assert is_planted.sum(axis=1).tolist() == [50] * 4
    to = planted[is_planted]
    origin = np.broadcast_to(labels, planted.shape)[is_planted]
    paired = (to == (origin + 1) % K).mean()
    # Three quarters, and a fourth part of the even quarter: 0.81 of 200.
    assert 0.7 < paired < 0.92
    assert len(set(zip(origin.tolist(), to.tolist(), strict=True))) > 10
    assert np.array_equal(
        planted, na.plant_flips(labels, pair_joint(), share=0.05, rounds=4, seed=1)
    )
    assert not np.array_equal(planted, na.plant_flips(labels, pair_joint(), share=0.05, seed=2))


def test_at_most_half_of_a_class_is_planted_and_absent_classes_are_not():
    labels = np.array([0] * 300 + [1] * 6)  # classes 2 to 4 have no example
    planted = na.plant_flips(labels, np.ones((K, K)), share=0.3, rounds=3)
    is_planted = planted != labels
    assert is_planted[:, :300].sum() <= 150
    assert 1 <= is_planted[:, 300:].sum() <= 3
    assert is_planted.any(axis=0)[:300].sum() > 100


def test_a_diagonal_joint_plants_evenly():
    labels = np.repeat(np.arange(K), 400)
    planted = na.plant_flips(labels, np.eye(K), share=0.1, rounds=2)
    pairs = np.zeros((K, K))
    for row in planted:
        np.add.at(pairs, (labels[row != labels], row[row != labels]), 1)
    assert pairs[~np.eye(K, dtype=bool)].min() >= 8  # of 20 each, two deviations and more


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"labels": [0, 9]}, DataError, r"labels must be in \[0, 5\)"),
        ({"joint": np.ones(3)}, DataError, r"joint must have shape \(k, k\).*got \(3,\)"),
        ({"joint": np.ones((1, 1))}, DataError, "k at least 2"),
        ({"joint": -np.ones((K, K))}, DataError, "joint must not be negative"),
        ({"joint": np.full((K, K), np.nan)}, DataError, "joint must be finite"),
        ({"share": 0}, UsageError, r"share must be in \(0, 1\); got 0"),
        ({"share": 1.0}, UsageError, r"share must be in \(0, 1\); got 1"),
        ({"rounds": 0}, UsageError, "rounds must be at least 1; got 0"),
        ({"labels": [0, 1, 2]}, UsageError, "plants nothing among 3 labels"),
        ({"labels": np.zeros(0, int)}, UsageError, "plants nothing among 0 labels"),
    ],
)
def test_bad_arguments(change, error, words):
    call = {"labels": np.arange(100) % K, "joint": pair_joint(), **change}
    with pytest.raises(error, match=words):
        na.plant_flips(**call)


def channel_data(n=4000, seed=0):
    """True classes, scores that are twice the log posterior, given labels of a known channel."""
    random = np.random.default_rng(seed)
    true = random.integers(0, K, n)
    evidence = random.standard_normal((n, K))
    evidence[np.arange(n), true] += 3.0
    # Of unit Gaussians with one mean raised by 3 the log posterior is 3 x, up to a constant.
    transition = 0.9 * np.eye(K)
    transition[np.arange(K), (np.arange(K) + 1) % K] = 0.1
    transition[0] = [0.7, 0.3, 0, 0, 0]
    given = (random.random(n)[:, None] > np.cumsum(transition, axis=1)[true]).sum(axis=1)
    return true, 6.0 * evidence, given, transition


def test_a_known_channel_and_scale_are_found():
    true, scores, given, transition = channel_data()
    channel = na.fit_label_channel(scores, given)
    assert np.abs(channel.transition - transition).max() < 0.05  # measured 0.02
    assert channel.scale == pytest.approx(0.5, rel=0.15)
    assert np.allclose(channel.transition.sum(axis=1), 1)
    assert channel.joint.sum() == pytest.approx(1)
    p = channel.prob_wrong(scores, given)
    is_wrong = given != true
    assert p.mean() == pytest.approx(is_wrong.mean(), rel=0.1)
    for low, high in ((0.0, 0.2), (0.8, 1.0)):
        near = (p >= low) & (p <= high)
        assert p[near].mean() == pytest.approx(is_wrong[near].mean(), abs=0.05)


def test_what_a_model_confuses_is_not_taken_for_noise():
    """Two classes look alike and the model states it is surer than it is; every label is right."""
    random = np.random.default_rng(0)
    true = random.integers(0, K, 6000)
    evidence = random.standard_normal((6000, K)) + 4 * np.eye(K)[true]
    alike = true < 2
    evidence[alike, :2] = random.standard_normal((alike.sum(), 2)) + np.eye(K)[true[alike], :2]
    evidence[alike, :2] += 3
    channel = na.fit_label_channel(6 * evidence**3 / (1 + evidence**2), true)
    assert channel.rate < 0.01  # a free channel finds 0.07
    assert channel.deviation < 0.01


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (np.zeros((1, 2)), [0]),
        (np.zeros((2, 2)), [0, 1]),
        (np.eye(3)[[0, 1, 0, 1]], [0, 1, 0, 1]),  # a class that never is
        (np.eye(3)[[0, 1, 2, 1]], [0, 0, 0, 0]),
        (1e6 * np.eye(3)[[0, 1, 2, 1]], [0, 1, 2, 1]),
    ],
)
def test_channels_of_next_to_nothing_are_finite(scores, labels):
    channel = na.fit_label_channel(scores, labels)
    assert np.allclose(channel.transition.sum(axis=1), 1)
    assert 0 <= channel.rate <= 1
    assert np.isfinite(channel.deviation)
    assert np.isfinite(channel.log_odds(scores, labels)[0]).all()


def test_pairs_are_alike_unless_labels_say_otherwise():
    random = np.random.default_rng(0)
    true, scores, *_ = channel_data()
    anyhow = np.where(random.random(4000) < 0.1, (true + random.integers(1, K, 4000)) % K, true)
    others = ~np.eye(K, dtype=bool)
    even = na.fit_label_channel(scores, anyhow).transition[others]
    assert even.max() < 2.5 * even.min()
    next_one = np.where(random.random(4000) < 0.1, (true + 1) % K, true)
    pairs = na.fit_label_channel(scores, next_one).transition
    expected = pairs[np.arange(K), (np.arange(K) + 1) % K]
    assert expected.min() > 0.07
    assert pairs[others].sum() < 1.3 * expected.sum()


def test_calibration_keeps_the_likeliest_class():
    scores = np.log([[0.34, 0.33, 0.33], [0.5, 0.3, 0.2], [0.9, 0.06, 0.04]])
    sure = na.LabelChannel(1.0, np.eye(3), np.eye(3) / 3, slopes=0.5, offsets=-3.0)
    probs = sure.probs(scores)
    assert probs.sum(axis=1) == pytest.approx(np.ones(3))
    assert (probs.max(axis=1) == probs[:, 0]).all()
    assert probs[:, 1] / probs[:, 2] == pytest.approx([1, 1.5, 1.5])
    plain = na.LabelChannel(1.0, np.eye(3), np.eye(3) / 3)
    assert plain.probs(scores) == pytest.approx(np.exp(scores))


def test_log_odds_by_hand():
    transition = np.array([[0.9, 0.1], [0.2, 0.8]])
    channel = na.LabelChannel(1.0, transition, transition / 2)
    scores = np.log([[0.5, 0.5], [0.25, 0.75]])
    odds, other = channel.log_odds(scores, [0, 1])
    # True 1 given as 0 against true 0 given as 0; true 0 given as 1 against true 1.
    expected = np.log([0.5 * 0.2 / (0.5 * 0.9), 0.25 * 0.1 / (0.75 * 0.8)])
    assert odds == pytest.approx(expected)
    assert other.tolist() == [1, 0]
    assert channel.prob_wrong(scores, [0, 1])[0] == pytest.approx(0.2 / 1.1)


def test_log_odds_do_not_change_with_an_offset_of_the_scores():
    _, scores, given, _ = channel_data(300)
    channel = na.fit_label_channel(scores, given)
    moved = channel.log_odds(log_softmax(scores, axis=1), given)[0]
    assert moved == pytest.approx(channel.log_odds(scores, given)[0], abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        (np.zeros((3, 1)), [0, 0, 0], r"\(n, k\), k at least 2; got \(3, 1\)"),
        (np.zeros(3), [0, 0, 0], r"got \(3,\)"),
        (np.zeros((3, 2)), [0, 1], "lengths differ"),
        (np.zeros((3, 2)), [0, 1, 2], r"labels must be in \[0, 2\)"),
        (np.full((3, 2), -np.inf), [0, 1, 1], "class_scores must be finite.*clip"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one example"),
    ],
)
def test_bad_class_scores(scores, labels, words):
    with pytest.raises(DataError, match=words):
        na.fit_label_channel(scores, labels)


def test_scores_of_other_classes_are_refused():
    _, scores, given, _ = channel_data(300)
    channel = na.fit_label_channel(scores, given)
    with pytest.raises(DataError, match=r"must have shape \(n, 5\); got \(300, 4\)"):
        channel.log_odds(scores[:, :4], given)


def test_plants_weigh_as_their_pairs_are_confused_and_their_labels_were_right():
    given = np.array([0, 0, 0, 1])
    planted = np.array([[1, 2, 0, 2]])
    joint = np.array([[9.0, 3.0, 0.0], [0.0, 9.0, 1.0], [0.0, 0.0, 9.0]])
    was_right = np.array([1.0, 1.0, 1.0, 0.5])
    weights = pair_weights(given, planted, joint, was_right)
    # Tried 0.4, 0.4, 0.2; wanted 0.75, 0, 0.25, a tenth of each as tried.
    expected = [0.715 / 0.4, 0.04 / 0.4, 0, 0.5 * 0.245 / 0.2]
    assert weights[0] == pytest.approx(expected)


def test_plants_are_weighed_by_predictions():
    given = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 1, 2])  # one confusion: true 1, given 0
    planted = np.array([[2, 0, 2, 0, 1, 2], [0, 1, 0, 1, 0, 2]])
    weights = na.weigh_plants(given, planted, predicted, num_classes=3)
    # Tried where right: 0 as 2, 0 as 1, 1 as 0 twice. Wanted 1 as 0, and a tenth as tried.
    assert weights[0] == pytest.approx([0.1, 0, 0, 0.95 / 0.5, 0, 0])
    assert weights[1] == pytest.approx([0, 0.1, 0, 0, 0.95 / 0.5, 0])
    alike = na.weigh_plants(given, planted, given, num_classes=3)
    assert np.array_equal(alike, planted != given)
    for change, error, words in (
        ({"planted": planted[0]}, DataError, r"\(r, 6\), r at least 1; got \(6,\)"),
        ({"predicted": predicted[1:]}, DataError, "6 labels were given, and predictions for 5"),
        ({"predicted": predicted + 1}, DataError, r"labels must be in \[0, 3\)"),
        ({"planted": planted + 1}, DataError, r"labels must be in \[0, 3\)"),
        ({"num_classes": 1}, UsageError, "at least 2; got 1"),
    ):
        call = {"labels": given, "planted": planted, "predicted": predicted, "num_classes": 3}
        with pytest.raises(error, match=words):
            na.weigh_plants(**{**call, **change})


def ambiguous(n=1000):
    """Probabilities whose margin of the given label falls from 0.9 to -0.1, and rivals."""
    labels = np.arange(n) % K
    own = np.linspace(0.95, 0.45, n)
    probs = np.zeros((n, K))
    probs[np.arange(n), labels] = own
    probs[np.arange(n), (labels + 2) % K] = 1 - own
    return labels, probs


def test_rivals_get_their_label_where_two_classes_meet():
    labels, probs = ambiguous()
    before = na.plant_flips(labels, pair_joint(), share=0.05, rounds=3, seed=1)
    planted, weights = plant_rivals(labels, before, probs, share=0.1, seed=1)
    kept = before != labels
    assert np.array_equal(planted[kept], before[kept])
    added = (planted != before) & ~kept
    assert added.sum(axis=1).tolist() == [100] * 3
    assert (planted != labels).sum(axis=0).max() == 1
    assert np.array_equal(planted[added], np.broadcast_to((labels + 2) % K, added.shape)[added])
    assert np.array_equal(weights > 0, added)
    rows = np.nonzero(added)[1]
    margin = (2 * np.linspace(0.95, 0.45, 1000) - 1)[rows]
    assert margin.min() > 0  # never where another class is likelier
    assert weights[added] == pytest.approx(1 - margin**2)
    assert (margin < 0.45).mean() > 0.53  # half of the range; measured 0.58
    again, _ = plant_rivals(labels, before, probs, share=0.1, seed=1)
    assert np.array_equal(planted, again)
    assert not np.array_equal(planted, plant_rivals(labels, before, probs, share=0.1, seed=2)[0])


def test_rivals_are_not_planted_where_labels_are_doubted():
    labels, probs = ambiguous(100)
    given = (labels + 2) % K
    given[:6] = labels[:6]  # believed, as are the last ten
    planted, weights = plant_rivals(given, np.tile(given, (3, 1)), probs, share=0.5)
    assert (planted != given).sum(axis=1).tolist() == [2] * 3  # half of 16 in three rounds
    rows = np.nonzero(weights)[1]
    assert ((rows < 6) | (rows >= 90)).all()
    nobody = np.full((100, K), 1 / K)
    planted, weights = plant_rivals(given, np.tile(given, (3, 1)), nobody)
    assert np.array_equal(planted, np.tile(given, (3, 1)))
    assert not weights.any()
    certain = np.eye(K)[labels]
    planted, weights = plant_rivals(labels, labels[None], certain, share=0.1)
    assert 0 < weights[weights > 0].max() < 0.001


def test_a_channel_is_counted_from_what_is_predicted():
    true = np.repeat(np.arange(3), 100)
    given = true.copy()
    given[:20] = 1
    probs = np.full((300, 3), 0.2)
    probs[np.arange(300), true] = 0.6
    channel = count_label_channel(probs, given)
    assert channel.transition[0] == pytest.approx([80.5 / 101.5, 20.5 / 101.5, 0.5 / 101.5])
    assert channel.joint.sum() == pytest.approx(1)
    assert channel.joint[0, 1] == pytest.approx(20 / 300)
    odds, other = channel.log_odds(log_of_probs(probs), given)
    # True 0 given as 1, against 1 and 2 given as 1.
    wrong = 0.6 * 20.5 / 101.5 + 0.2 * 0.5 / 101.5
    assert odds[0] == pytest.approx(np.log(wrong / (0.2 * 100.5 / 101.5)))
    assert other[0] == 0
    assert odds[150] < -2
    assert log_of_probs([0.0, 1.0]).tolist() == pytest.approx([np.log(1e-4), 0])
    assert channel.probs(log_of_probs(probs)) == pytest.approx(probs)
    for change, words in (
        ({"pred_probs": 2 * probs}, r"pred_probs must be in \[0, 1\]; got 0.4 to 1.2"),
        ({"labels": given + 1}, r"labels must be in \[0, 3\)"),
        ({"pred_probs": probs[:0], "labels": given[:0]}, "at least one example"),
    ):
        with pytest.raises(DataError, match=words):
            count_label_channel(**{"pred_probs": probs, "labels": given, **change})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"labels": np.arange(100) % K + 1}, DataError, r"labels must be in \[0, 5\)"),
        ({"planted": np.zeros(100, int)}, DataError, r"planted must have shape \(r, 100\)"),
        ({"planted": np.zeros((0, 100), int)}, DataError, r"r at least 1; got \(0, 100\)"),
        ({"pred_probs": np.zeros(100)}, DataError, r"pred_probs must have shape \(n, k\)"),
        ({"pred_probs": np.zeros((9, K))}, DataError, "100 labels .* pred_probs for 9"),
        ({"pred_probs": np.full((100, K), np.nan)}, DataError, "pred_probs must be finite"),
        ({"share": 1.0}, UsageError, r"share must be in \(0, 1\); got 1"),
    ],
)
def test_bad_arguments_of_rivals(change, error, words):
    labels, probs = ambiguous(100)
    call = {"labels": labels, "planted": labels[None], "pred_probs": probs, **change}
    with pytest.raises(error, match=words):
        plant_rivals(**call)
