"""The rate of planted flips and that of a label channel become one."""

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.channel_rate import channel_rate, sharpen_by_channel
from noiseaudit.label_channel import LabelChannel
from noiseaudit.noise_estimate import Estimate, NoiseEstimate

N, K = 1000, 3


def channel(rate, deviation):
    joint = np.eye(K) * (1 - rate) / K + (1 - np.eye(K)) * rate / (K * (K - 1))
    return LabelChannel(1.0, joint * K, joint, deviation=deviation)


def estimate(rate, low, high, auroc=0.95):
    nothing = np.zeros(K), np.zeros(K), np.zeros(K)
    pairs = np.zeros((K, K)), np.zeros((K, K)), np.zeros((K, K))
    return NoiseEstimate(
        p_error=np.full(N, rate), suggested=np.arange(N) % K, rate=Estimate(rate, low, high),
        most=high, per_class=nothing, per_pair=pairs, plants=100, auroc=auroc, confidence=0.95,
        _bins=np.zeros((1, N), np.int16), _curves=np.zeros((1, 1)),
    )  # fmt: skip


LABELS = (np.arange(N) + 1) % K
ODDS = np.random.default_rng(0).normal(-3, 3, N)


def test_rates_are_weighted_by_their_errors_and_the_interval_holds_both():
    # 0.1 +- 0.02 and 0.2 +- 0.02 (a tenth of it, more than 0.001) meet half way.
    found = sharpen_by_channel(estimate(0.1, 0.0608, 0.1392), channel(0.2, 0.001), ODDS, LABELS)
    assert found.rate.value == pytest.approx(0.15, rel=0.01)
    assert found.rate.low == pytest.approx(0.0608)
    assert found.rate.high == pytest.approx(0.2 + 1.96 * 0.02, rel=0.01)
    assert found.most >= found.rate.high
    assert found.p_error.mean() == pytest.approx(found.rate.value)
    assert (np.diff(found.p_error[np.argsort(ODDS)]) >= 0).all()
    assert found.per_pair[0].sum() == pytest.approx(N * found.rate.value)
    assert found.per_pair[0][0, 1] > 0 == found.per_pair[0][0, 2]
    unsure = sharpen_by_channel(estimate(0.1, 0.0608, 0.1392), channel(0.2, 0.1), ODDS, LABELS)
    assert unsure.rate.value == pytest.approx((0.1 * 26 + 0.2) / 27, rel=0.01)


def test_a_standard_error_is_at_least_a_tenth_of_the_rate():
    assert channel_rate(channel(0.2, 0.0), 2) == pytest.approx((0.2, 0.16, 0.24))
    assert channel_rate(channel(0.2, 0.15), 2).low == 0
    assert channel_rate(channel(0.9, 0.0), 2).high == 1


def test_no_wrong_labels_leave_no_probability_and_what_may_go_unseen():
    found = sharpen_by_channel(estimate(0.0, 0.0, 0.004), channel(0.0, 0.0), ODDS, LABELS)
    assert found.rate.value == 0 == found.p_error.max()
    assert found.rate.high == pytest.approx(0.004)
    assert found.per_class[0].max() == 0 == found.per_pair[1].max()
    assert found.per_class[2].min() > 0
    assert found.per_class[2].sum() == pytest.approx(N * 0.004)


def test_no_class_has_more_wrong_labels_than_examples():
    odds = np.where(LABELS == 0, 3.0, -9.0) + 0.1 * ODDS
    for high in (0.9, 1.0):
        found = estimate(0.1, 0.0, 1.0).at_rate(Estimate(0.3, 0.0, high), odds, LABELS, ())
        value, low, most = found.per_class
        assert value[0] > 0.6 * np.count_nonzero(LABELS == 0)
        assert (low <= value).all()
        assert (value <= most).all()
        assert (most <= np.bincount(LABELS)).all()
        assert most.sum() == pytest.approx(N * high)


def test_log_odds_without_bounds_make_probabilities():
    far = np.where(np.arange(N) < 100, 1e100, -1e100)
    found = estimate(0.1, 0.0, 0.2).at_rate(Estimate(0.1, 0.05, 0.2), far, LABELS, ())
    assert found.p_error.mean() == pytest.approx(0.1)
    assert found.p_error[:100].min() > 0.99


def test_an_estimate_from_held_out_scores_is_sharper():
    random = np.random.default_rng(1)
    true = random.integers(0, K, 4000)
    scores = 2.0 * random.standard_normal((4000, K)) + 6 * np.eye(K)[true]
    given = np.where(random.random(4000) < 0.1, (true + random.integers(1, K, 4000)) % K, true)
    planted = na.plant_flips(given, np.ones((K, K)), share=0.02, rounds=1)
    found = na.estimate_noise_of_scores(given, scores, planted, scores[None])
    wrong = (given != true).mean()
    assert found.rate.value == pytest.approx(wrong, rel=0.1)
    assert found.rate.low <= wrong <= found.rate.high
    assert found.p_error[given != true].mean() > 0.8
    assert found.threshold(0.9).precision.value > 0.9
    assert [item.name for item in found.witnesses] == ["planted flips", "left-out predictions"]
