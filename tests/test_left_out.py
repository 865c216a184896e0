"""A ridge on the inputs that a network is trained on: what its sure predictions contradict."""

from dataclasses import replace

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit import left_out
from noiseaudit.label_channel import LabelChannel
from noiseaudit.left_out import LeftOut, predict_left_out
from noiseaudit.ridge import leave_one_out


@pytest.mark.parametrize("noise", ["uniform", "pair"])
def test_wrong_labels_of_pictures_are_counted(noise):
    noisy = na.inject_noise(na.load("digits"), noise, rate=0.1, seed=3)
    found = predict_left_out(noisy.dataset)
    rate = noisy.is_corrupted.mean()
    assert found.channel.rate == pytest.approx(rate, rel=0.15)  # measured 4%
    assert found.channel.deviation < 0.02
    np.testing.assert_array_equal(found.rows, np.arange(len(noisy.dataset)))
    right = found.probs[found.rows, noisy.clean_labels]
    assert right.mean() > 0.85
    np.testing.assert_allclose(found.probs.sum(axis=1), 1, atol=1e-5)


def test_at_40_percent_noise_between_two_classes_it_counts_most():
    noisy = na.inject_noise(na.load("digits"), "pair", rate=0.4, seed=3)
    assert 0.25 < predict_left_out(noisy.dataset).channel.rate < 0.4  # measured 0.33


def test_of_few_wrong_labels_not_the_first_fit_that_is_found_but_the_likeliest_is_taken(real_data):
    data = na.load("fashion_mnist", data_root=real_data, limit=5000)
    channel = predict_left_out(na.inject_noise(data, "pair", rate=0.02, seed=0).dataset).channel
    assert 0.01 < channel.rate < 0.035  # 0.040 from two starts


def predictions(true, given, predicted, transition):
    """Left-out predictions of all examples, and a channel that has counted the wrong labels."""
    k, n = len(transition), len(true)
    joint = np.bincount(true * k + given, minlength=k * k).reshape(k, k) / n
    probs = np.full((n, k), 0.01, np.float32)
    probs[np.arange(n), predicted] = 0.9
    return LeftOut(np.arange(n), probs, LabelChannel(1.0, np.asarray(transition), joint))


def test_a_pair_is_believed_as_far_as_wrong_labels_explain_that_it_is_contradicted():
    true = np.repeat(np.arange(3), 100)
    given, predicted = true.copy(), true.copy()
    given[:20] = 1  # 20 of 0 are called 1, which the predictions know
    transition = [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 1]]
    sure = predictions(true, given, predicted, transition)
    np.testing.assert_allclose(sure.believed(given).transition, transition, atol=0.004)
    assert (sure.believed(given).transition > 0).all()  # one label more is spread
    assert sure.sure_rate(given) == pytest.approx(20 / 300)
    predicted[100:160] = 0  # and take 60 of 1 for 0 themselves
    half = predictions(true, given, predicted, transition)
    even = (0.75 * 20 + 1) / 300 / 2  # 15 of the 20, and one more
    told = [[0.8, 0.05 + even, even], [even, 1, even], [even, even, 1]]
    want = np.array(told) / np.sum(told, axis=1, keepdims=True)
    np.testing.assert_allclose(half.believed(given).transition, want)
    assert half.sure_rate(given) == pytest.approx(5 / 300)
    for found in (sure, half):
        channel = found.believed(given)
        np.testing.assert_allclose(channel.transition.sum(axis=1), 1)
        np.testing.assert_allclose(channel.joint.sum(axis=1), 1 / 3)


def test_more_wrong_labels_than_are_contradicted_explain_a_pair_and_no_more():
    true = np.repeat(np.arange(3), 100)
    given = true.copy()
    given[:20] = 1
    predicted = true.copy()
    predicted[:15] = 1  # of the 20 that are counted only 5 are contradicted
    transition = [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 1]]
    found = predictions(true, given, predicted, transition)
    np.testing.assert_allclose(found.believed(given).transition, transition, atol=0.004)
    assert found.sure_rate(given) == pytest.approx(20 / 300)


def test_of_many_classes_pairs_that_were_never_seen_stay_as_common_as_those_that_were():
    k, n = 60, 1800
    random = np.random.default_rng(0)
    true = np.arange(n) % k
    given = np.where(random.random(n) < 0.1, (true + random.integers(1, k, n)) % k, true)
    even = np.full((k, k), 0.1 / (k - 1)) + (0.9 - 0.1 / (k - 1)) * np.eye(k)
    found = predictions(true, given, true, even).believed(given)
    assert found.rate == pytest.approx(0.1, abs=0.005)
    np.testing.assert_allclose(found.transition, even, rtol=0.02)


def test_a_class_without_examples_is_taken_for_no_other():
    true = np.repeat([0, 2], 100)
    given = true.copy()
    given[:20] = 2
    found = predictions(true, given, true, [[0.8, 0, 0.2], [0, 1, 0], [0, 0, 1]])
    channel = found.believed(given)
    np.testing.assert_allclose(channel.transition.sum(axis=1), 1)
    assert channel.joint[1].sum() == 0
    assert np.isfinite(np.log(channel.transition)).all()


def test_without_a_wrong_label_no_pair_is_commoner_than_another():
    true = np.repeat(np.arange(3), 100)
    found = predictions(true, true, np.roll(true, 5), np.eye(3)).believed(true)
    assert len(set(found.transition[~np.eye(3, dtype=bool)].round(12))) == 1
    assert 0 < found.rate < 0.004


def test_a_sample_of_examples_tells_of_their_labels():
    true = np.repeat(np.arange(3), 100)
    given = true.copy()
    given[:20] = 1
    whole = predictions(true, given, true, [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 1]])
    rows = np.arange(0, 300, 2)
    joint = np.bincount(true[rows] * 3 + given[rows], minlength=9).reshape(3, 3) / 150
    part = LeftOut(rows, whole.probs[rows], replace(whole.channel, joint=joint))
    np.testing.assert_allclose(
        part.believed(given).transition, whole.believed(given).transition, atol=0.004
    )


def test_blocks_and_a_sample_change_little(monkeypatch):
    noisy = na.inject_noise(na.load("digits"), "uniform", rate=0.2, seed=3).dataset
    whole = predict_left_out(noisy).channel
    monkeypatch.setattr(
        left_out, "row_blocks", lambda n, _: [slice(s, s + 100) for s in range(0, n, 100)]
    )
    assert predict_left_out(noisy).channel.rate == whole.rate
    monkeypatch.setattr(left_out, "_SAMPLE", 900)
    assert predict_left_out(noisy).channel.rate == pytest.approx(whole.rate, rel=0.25)


def test_vectors_are_taken_as_they_are_and_a_weak_ridge_says_nothing(monkeypatch):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 600)
    told = (2.0 * random.standard_normal((600, 5)) + 6 * np.eye(3, 5)[labels]).astype(np.float32)
    given = np.where(random.random(600) < 0.1, (labels + 1) % 3, labels)
    channel = predict_left_out(na.load((told, given))).channel
    assert channel.rate == pytest.approx((given != labels).mean(), abs=0.04)
    monkeypatch.setattr(left_out, "_SAMPLE_ELEMENTS", 5 * 400)
    fewer = predict_left_out(na.load((told, given))).channel
    assert fewer.rate == pytest.approx(channel.rate, abs=0.03)
    assert fewer.rate != channel.rate
    nothing = random.standard_normal((600, 5)).astype(np.float32)
    assert predict_left_out(na.load((nothing, labels))) is None


def test_a_ridge_that_errs_often_says_nothing():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 900)
    near = random.standard_normal((900, 5)) + 1.3 * np.eye(3, 5)[labels]
    errors = leave_one_out(near, labels, 3).scores.argmax(axis=1) != labels
    assert 0.2 < errors.mean() < 0.4  # far better than the commonest class
    assert predict_left_out(na.load((near.astype(np.float32), labels))) is None


def test_one_class_says_nothing():
    inputs = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    labels = np.arange(50) % 2
    assert predict_left_out(na.load((inputs, labels)).with_labels(np.zeros(50, np.int64))) is None


def test_a_ridge_that_says_the_commonest_class_says_nothing():
    random = np.random.default_rng(0)
    nothing = random.standard_normal((1500, 6)).astype(np.float32)
    labels = (random.random(1500) < 0.1).astype(np.int64)
    assert predict_left_out(na.load((nothing, labels))) is None
