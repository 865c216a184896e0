"""Two runs of one network as a second witness to the number of wrong labels."""

from dataclasses import replace

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.label_support import LabelSupport
from noiseaudit.noise_estimate import Estimate
from noiseaudit.noise_estimation import estimate_noise
from noiseaudit.run_agreement import HARDER, SUPPORT, sharpen_estimate

N, K = 4000, 5


def runs(rate=0.1, error=0.01, disagree=0.01, seed=0):
    """Labels of two runs, what those predict, log odds, and an estimate that rules out little."""
    random = np.random.default_rng(seed)
    true = random.integers(0, K, N)
    given = np.where(random.random(N) < rate, (true + 1) % K, true)
    labels = np.stack([given, given])
    plants = random.permutation(np.flatnonzero(given == true))[:200]
    labels[1, plants] = (given[plants] + 2) % K
    first = np.where(random.random(N) < error, (true + 3) % K, true)
    predicted = np.stack([first, np.where(random.random(N) < disagree, (first + 1) % K, first)])
    odds = 2 * random.standard_normal(labels.shape) - 5 + 10 * (labels != true)
    suggested = np.where(labels == true, (labels + 1) % K, true)
    found = estimate_noise(given, labels, odds, suggested, num_classes=K, in_nats=True)
    wide = replace(found, rate=Estimate(found.rate.value, 0.0, 0.5))
    return wide, odds[0], labels, predicted, given != true


def sharpened(estimate, odds, labels, predicted, **options):
    weights = np.where(labels != labels[0], 1.0, 0.0)
    return sharpen_estimate(estimate, odds, labels, predicted, weights, **options)


def left_out(rate, deviation=0.01):
    """What predictions that have not seen the label say: so many wrong, 10% of that uncertain."""
    joint = np.eye(K) * (1 - rate) / K + (1 - np.eye(K)) * rate / (K * (K - 1))
    return na.LabelChannel(1.0, joint * K, joint, deviation=deviation)


def support(right, error=0.01):
    """As of contradicted labels of which such a share is right."""
    return LabelSupport(0.02 + right * (0.55 * 0.5 - 0.02), 0.5, 0.02, error, 0.01)


def counting(estimate):
    return [item.counts for item in estimate.witnesses]


def is_as_before(found, estimate):
    """Whether nothing changed but what is told of others that were asked."""
    only_first = counting(found)[0] and not any(counting(found)[1:])
    return only_first and found.rate == estimate.rate and found.p_error is estimate.p_error


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
def test_the_rate_is_what_is_not_predicted_less_what_the_runs_differ_on(rate):
    wide, odds, labels, predicted, wrong = runs(rate)
    found = sharpened(wide, odds, labels, predicted)
    assert found.rate.value == pytest.approx(wrong.mean(), rel=0.02, abs=0.002)
    assert [item.name for item in wide.witnesses] == ["planted flips"]
    assert counting(found) == [True, True]
    assert found.rate.low <= wrong.mean() <= found.rate.high <= found.most
    assert found.rate.high - found.rate.low < 0.05
    assert found.p_error.mean() == pytest.approx(found.rate.value)
    assert (np.diff(found.p_error[np.argsort(odds)]) >= 0).all()
    assert found.per_class[0].sum() == pytest.approx(N * found.rate.value)
    np.testing.assert_allclose(found.per_pair[0].sum(axis=0), found.per_class[0])
    assert (found.per_class[1] <= found.per_class[0]).all()
    assert (found.per_class[0] <= found.per_class[2]).all()
    threshold = found.threshold(0.9)
    flagged = found.p_error >= threshold.p_error
    assert threshold.count == flagged.sum() > 0.5 * wrong.sum()
    assert threshold.precision.low <= threshold.precision.value <= threshold.precision.high
    assert wrong[flagged].mean() >= 0.9


def test_weak_networks_that_differ_a_lot_say_nothing():
    wide, odds, labels, predicted, _ = runs(disagree=0.04)
    found = sharpened(wide, odds, labels, predicted)
    assert is_as_before(found, wide)
    assert len(found.witnesses) == 2


def test_where_wrong_labels_are_believed_the_plants_say_how_many():
    wide, odds, labels, predicted, wrong = runs(rate=0.3, error=0, disagree=0)
    random = np.random.default_rng(1)
    for row, label in zip(predicted, labels, strict=True):  # each run believes others
        believed = (row != label) & (random.random(N) < 0.3)
        row[believed] = label[believed]
    assert (predicted[1] != predicted[0]).mean() > 0.1
    low = replace(wide, rate=Estimate(0.15, 0.0, 0.5))
    found = sharpened(low, odds, labels, predicted)
    assert (predicted[0] != labels[0]).mean() < 0.75 * wrong.mean()
    assert found.rate.value == pytest.approx(wrong.mean(), rel=0.2)  # e / 2 is too much here
    assert found.rate.low <= wrong.mean() <= found.rate.high
    assert found.rate.high - found.rate.low < 0.3


def test_few_plants_that_are_found_do_not_make_a_weak_network_a_believing_one():
    wide, odds, labels, predicted, _ = runs(disagree=0.04)
    weights = np.where(labels != labels[0], 1e-9, 0.0)
    weights[1, np.flatnonzero(labels[1] != labels[0])[:5]] = 1.0
    assert is_as_before(sharpen_estimate(wide, odds, labels, predicted, weights), wide)


def test_where_every_run_errs_on_the_same_examples_the_interval_says_that_they_may_be_right():
    # Nothing tells those from wrong labels.
    wide, odds, labels, predicted, _ = runs(rate=0.02, error=0.15)
    narrow = replace(wide, rate=Estimate(0.02, 0.01, 0.03))
    found = sharpened(narrow, odds, labels, predicted, support=support(0.5))
    assert found.rate.low == 0.01
    assert found.rate.value > 0.1
    assert found.threshold(0.9).precision.low < 0.2
    assert sharpened(wide, odds, labels, predicted).rate.value > 0.1


def test_left_out_predictions_can_overrule_the_plants():
    # Wrong labels that the network believes: the fit to the plants misses them, others do not.
    wide, odds, labels, predicted, wrong = runs(rate=0.3)
    narrow = replace(wide, rate=Estimate(0.02, 0.0, 0.1))
    found = sharpened(narrow, odds, labels, predicted, left_out=left_out(0.26))
    assert found.rate.value == pytest.approx(wrong.mean(), rel=0.05)
    assert found.rate.low <= wrong.mean() <= found.rate.high
    assert found.p_error.mean() == pytest.approx(found.rate.value)
    assert found.rate.low > 0.25
    assert is_as_before(sharpened(narrow, odds, labels, predicted, left_out=None), narrow)
    assert counting(found) == [False, True, True]
    assert found.witnesses[-1].rate == pytest.approx(0.26)


def test_steady_networks_are_confirmed_at_three_standard_errors():
    steady, *more, _ = runs(rate=0.3)
    narrow = replace(steady, rate=Estimate(0.02, 0.0, 0.1))
    assert counting(sharpened(narrow, *more, left_out=left_out(0.24))) == [False, True, True]
    told = sharpened(narrow, *more, left_out=left_out(0.2), support=support(0.1))
    assert counting(told) == [False, True, False]
    assert [round(item.rate, 1) for item in told.witnesses] == [0.3, 0.3, 0.2]


def test_of_a_weak_network_the_support_of_contradicted_labels_says_how_many():
    # A third of what it contradicts is right, on the same examples in both runs.
    wide, odds, labels, predicted, wrong = runs(rate=0.2, error=0.12, disagree=0.04)
    differs = predicted[0] != labels[0]
    given = support(differs[~wrong].sum() / differs.sum())
    found = sharpened(wide, odds, labels, predicted, left_out=left_out(0.2), support=given)
    assert found.rate.value == pytest.approx(wrong.mean(), rel=0.02)
    want = given.rate(differs.mean(), Estimate(0.995, 0.973, 1.0))
    np.testing.assert_allclose(found.rate, want, rtol=0.02)
    assert found.rate.low <= wrong.mean() <= found.rate.high
    assert found.p_error.mean() == pytest.approx(found.rate.value)
    assert counting(found) == [False, False, True]
    assert found.witnesses[-1] == (SUPPORT, found.rate.value, True)
    without = sharpened(wide, odds, labels, predicted, left_out=left_out(0.2))
    assert is_as_before(without, wide)


def test_a_network_whose_runs_differ_little_is_not_asked_for_support():
    wide, odds, labels, predicted, _ = runs(rate=0.1)
    found = sharpened(wide, odds, labels, predicted, left_out=left_out(0.1), support=support(0.9))
    assert found.rate == sharpened(wide, odds, labels, predicted).rate


@pytest.mark.parametrize(("believed", "is_weak"), [(0, True), (15, True), (25, False)])
def test_a_network_that_believes_a_tenth_of_the_plants_is_not_weak(believed, is_weak):
    wide, odds, labels, predicted, _ = runs(rate=0.2, error=0.12, disagree=0.04)
    plants = np.flatnonzero(labels[1] != labels[0])
    predicted[1, plants[:believed]] = labels[1, plants[:believed]]
    narrow = replace(wide, rate=Estimate(0.25, 0.245, 0.255))  # nor does it hold the count
    options = {"left_out": left_out(0.2, 0.001), "support": support(0.3)}
    found = sharpened(narrow, odds, labels, predicted, **options)
    assert (found.witnesses[-1].name == SUPPORT) == is_weak


def test_what_support_explains_is_not_counted_by_harder_plants():
    wide, odds, labels, predicted, wrong = runs(rate=0.2, error=0.12, disagree=0.04)
    differs = predicted[0] != labels[0]
    given = support(differs[~wrong].sum() / differs.sum())
    low = replace(wide, rate=Estimate(0.1, 0.08, 0.12))
    found = sharpened(low, odds, labels, predicted, left_out=left_out(0.11), support=given)
    assert found.witnesses[-1].name == SUPPORT
    assert found.rate.value == pytest.approx(wrong.mean(), rel=0.02)


def test_a_weak_network_whose_fit_misses_what_is_believed_is_not_asked_for_support():
    wide, odds, labels, predicted, _ = runs(rate=0.3, disagree=0.04)
    low = replace(wide, rate=Estimate(0.05, 0.04, 0.3))
    sure = left_out(0.15, 0.001)  # far above the fit, and the count is far above it
    found = sharpened(low, odds, labels, predicted, left_out=sure, support=support(1.0))
    assert is_as_before(found, low)


def test_where_support_does_not_tell_whether_any_label_is_wrong_a_fit_that_it_allows_stays():
    wide, odds, labels, predicted, _ = runs(rate=0.02, error=0.1, disagree=0.04)
    given = support(0.93)
    rate = given.rate((predicted[0] != labels[0]).mean(), Estimate(0.995, 0.973, 1.0))
    assert rate.low == 0 < rate.value < 0.03 < rate.high < 0.05
    for value, stays in ((0.03, True), (0.05, False)):
        fit = replace(wide, rate=Estimate(value, value - 0.01, value + 0.01))
        found = sharpened(fit, odds, labels, predicted, left_out=left_out(0.01), support=given)
        assert is_as_before(found, fit) == stays
    assert found.rate.value == pytest.approx(rate.value, rel=0.02)
    near = replace(wide, rate=Estimate(0.04, 0.03, 0.05))  # within, but 0.02 is over one error
    found = sharpened(near, odds, labels, predicted, left_out=left_out(0.01), support=support(0.84))
    assert found.rate.low == 0 < found.rate.value < 0.03 < near.rate.value < found.rate.high
    nothing = LabelSupport(0.2, 0.3, 0.2, 0.01, 0.01)  # no more support for right than for wrong
    for fit in (wide, replace(wide, rate=Estimate(0.05, 0.04, 0.06))):
        found = sharpened(fit, odds, labels, predicted, left_out=left_out(0.01), support=nothing)
        assert is_as_before(found, fit)


def test_the_fit_to_the_plants_of_a_weak_network_keeps_its_order_where_it_is_near():
    wide, odds, labels, predicted, _ = runs(rate=0.3, disagree=0.04)
    options = {"left_out": left_out(0.27), "support": support(0.1)}
    near = replace(wide, rate=Estimate(0.28, 0.26, 0.3), p_error=wide.p_error[::-1].copy())
    found = sharpened(near, odds, labels, predicted, **options)
    assert counting(found) == [False, False, True]
    assert (np.diff(found.p_error[np.argsort(near.p_error, kind="stable")]) >= -1e-12).all()
    far = replace(near, rate=Estimate(0.345, 0.33, 0.36))  # beyond the interval
    found = sharpened(far, odds, labels, predicted, **options)
    assert (np.diff(found.p_error[np.argsort(odds)]) >= 0).all()


def test_a_fit_far_below_left_out_predictions_shows_that_labels_are_believed():
    wide, odds, labels, predicted, wrong = runs(rate=0.3, disagree=0.04)
    for value, is_weak in ((0.225, True), (0.2, False)):  # two standard errors are 0.056
        low = replace(wide, rate=Estimate(value, value - 0.01, value + 0.01))
        options = {"left_out": left_out(0.27), "support": support(0.1)}
        found = sharpened(low, odds, labels, predicted, **options)
        assert counting(found) == ([False, False, True] if is_weak else [True, True, True])
    assert 0.2 < found.rate.value < wrong.mean()


def test_left_out_predictions_can_say_that_fewer_are_wrong():
    wide, odds, labels, predicted, wrong = runs(rate=0.1)
    high = replace(wide, rate=Estimate(0.3, 0.25, 0.35))
    found = sharpened(high, odds, labels, predicted, left_out=left_out(0.09))
    assert found.rate.value == pytest.approx(wrong.mean(), rel=0.05)
    assert found.rate.low <= 0.09  # the interval holds theirs
    assert is_as_before(sharpened(high, odds, labels, predicted, left_out=left_out(0.2)), high)


def test_a_fit_that_left_out_predictions_allow_is_not_overruled_but_joined():
    wide, odds, labels, predicted, wrong = runs(rate=0.1)
    low = replace(wide, rate=Estimate(0.085, 0.08, 0.09))
    found = sharpened(low, odds, labels, predicted, left_out=left_out(0.1))
    assert 0.086 < found.rate.value < 0.089 < wrong.mean()  # as three times the errors weigh it
    assert found.rate.low <= 0.085
    assert counting(found) == [True, True, True]
    high = replace(wide, rate=Estimate(0.3, 0.25, 0.35))
    assert sharpened(high, odds, labels, predicted, left_out=left_out(0.1)).rate.high < 0.2


@pytest.mark.parametrize(("sure", "is_weak"), [(0.28, False), (0.22, True)])
def test_but_not_where_those_take_the_classes_for_each_other_themselves(sure, is_weak):
    wide, odds, labels, predicted, _ = runs(rate=0.3, disagree=0.04)
    fit = replace(wide, rate=Estimate(0.2, 0.19, 0.21))
    told = {"left_out": left_out(0.28), "support": support(0.3)}
    found = sharpened(fit, odds, labels, predicted, sure_rate=sure, **told)
    assert counting(found) == ([False, False, True] if is_weak else [True, True, True])


def test_where_plants_are_believed_as_often_as_runs_differ_nothing_else_counts():
    wide, odds, labels, predicted, _ = runs()
    predicted = np.where(labels != labels[0], labels, predicted)  # every plant
    assert sharpened(wide, odds, labels, predicted, left_out=left_out(0.2)) is wide


def test_left_out_predictions_do_not_count_where_two_witnesses_agree():
    wide, odds, labels, predicted, _ = runs()
    found = sharpened(wide, odds, labels, predicted, left_out=left_out(0.2))
    assert found.rate == sharpened(wide, odds, labels, predicted).rate != wide.rate
    assert counting(found) == [True, True]


def test_what_plants_a_network_misses_raises_the_rate_and_widens_the_interval():
    wide, odds, labels, predicted, wrong = runs(rate=0.1)
    sure = sharpened(wide, odds, labels, predicted)
    plants = np.flatnonzero(labels[1] != labels[0])
    predicted[1, plants[:40]] = labels[1, plants[:40]]  # a fifth is believed
    found = sharpened(wide, odds, labels, predicted)
    assert found.rate.value > 1.1 * sure.rate.value
    assert found.rate.high - found.rate.low > 1.2 * (sure.rate.high - sure.rate.low)
    assert found.rate.low <= wrong.mean() / 0.8
    assert sure.rate.high < 0.12 < wrong.mean() / 0.8 < found.rate.high < 0.17


def test_where_nothing_is_wrong_no_label_is_flagged():
    wide, odds, labels, _, wrong = runs(rate=0.0)
    right = np.stack([labels[0], labels[0]])
    found = sharpened(wide, odds, labels, right)
    assert not wrong.any()
    assert found.rate.value == found.p_error.max() == 0
    assert found.rate.high == 0
    assert found.threshold(0.9).count == 0


def test_on_digits_it_is_within_the_interval_of_the_plants_and_narrower(
    noisy_digits, monkeypatch, tmp_path
):
    dataset, clean = noisy_digits
    options = {"out": tmp_path / "o", "threads": 1, "duplicates": False, "encoder": "none"}
    sharp = na.audit(dataset, **options).verdict.estimate
    monkeypatch.setattr("noiseaudit.verdict.sharpen_estimate", lambda estimate, *_, **__: estimate)
    plain = na.audit(dataset, **options).verdict.estimate
    wrong = dataset.labels != clean
    assert sharp.rate.value == pytest.approx(wrong.mean(), rel=0.05)
    assert plain.rate.low <= sharp.rate.low <= sharp.rate.high <= plain.rate.high


def harder(rate=0.1, disagree=0.005, found=0.7, found_easy=1.0):
    """200 plants between classes, of which so many are found; a fit that hardly counts any."""
    wide, odds, labels, predicted, wrong = runs(rate, 0.005, disagree)
    plants = np.flatnonzero(labels[1] != labels[0])
    easy = np.setdiff1d(np.flatnonzero(labels[0] == predicted[0]), plants)[:200]
    labels[1, easy] = predicted[1, easy] = (labels[0, easy] + 2) % K
    predicted[1, easy[: round(200 * found_easy)]] = labels[0, easy[: round(200 * found_easy)]]
    believed = plants[: round(200 * (1 - found))]
    predicted[1, believed] = labels[1, believed]
    weights, most = np.zeros((2, *labels.shape))
    weights[1, easy], most[1, plants] = 1, 1
    low = replace(wide, rate=Estimate(0.01, 0.005, 0.02))
    return (low, odds, labels, predicted, weights), most, wrong


def counted(*case, **options):
    """Where contradicted labels have little support."""
    return sharpen_estimate(*case, support=support(0.4), **options)


def test_what_nothing_else_explains_is_counted_by_plants_between_classes():
    case, most, wrong = harder()
    found = counted(*case, most_weights=most)
    differs = (case[3][0] != case[2][0]).mean()  # all wrong labels, and few others
    assert found.rate.value == pytest.approx((differs - 0.005) / (0.7 - 0.005), rel=0.02)
    assert found.rate.low == 0.005  # of the fit: such labels may be right
    assert found.rate.high == pytest.approx(differs / 0.63, rel=0.01)  # 95% of 200 plants
    assert found.p_error.mean() == pytest.approx(found.rate.value)
    assert counting(found) == [False, True]
    assert found.witnesses[1].name == HARDER
    assert found.witnesses[1].rate == found.rate.value
    # Left-out predictions take such labels for right, too, and do not count.
    told = counted(*case, most_weights=most, left_out=left_out(0.001))
    assert told.rate == found.rate
    assert counting(told) == [False, True, False]
    # Without plants between classes all plants say how many are found.
    for nothing in (None, np.zeros_like(most)):
        plain = counted(*case, most_weights=nothing)
        assert plain.rate.value == pytest.approx(wrong.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("options", "high"),
    [
        ({}, 0.09),  # the fit's interval allows what four times the errors leave
        ({"found": 0.12}, 0.02),  # plants between classes are believed as often as all else
        ({"rate": 0.3, "disagree": 0.24, "found_easy": 0.9}, 0.02),  # errors may be on all
    ],
)
def test_what_errors_of_the_network_may_explain_is_not_counted(options, high):
    case, most, _ = harder(**options)
    narrow = replace(case[0], rate=Estimate(0.0, 0.0, high))
    found = counted(narrow, *case[1:], most_weights=most)
    assert is_as_before(found, narrow)
    assert HARDER not in [item.name for item in found.witnesses]


@pytest.mark.parametrize("given", [None, support(1.0)])
def test_contradicted_labels_with_as_much_support_as_right_ones_are_not_counted(given):
    case, most, _ = harder()
    found = sharpen_estimate(*case, most_weights=most, support=given)
    assert is_as_before(found, case[0])


def test_of_a_weak_network_harder_mistakes_are_counted_likewise():
    case, most, wrong = harder(rate=0.3, disagree=0.03)
    little = support(0.9)  # low, but it explains a tenth alone
    found = sharpen_estimate(*case, most_weights=most, left_out=left_out(0.001), support=little)
    assert counting(found) == [False, True, False]
    assert found.rate.low <= wrong.mean() <= found.rate.high


def test_a_network_may_err_on_four_times_as_many_as_runs_differ_on_and_some_unseen():
    for disagree, far, near in ((0.015, 0.04, 0.06), (0.0, 0.1068, 0.1074)):
        case, most, _ = harder(disagree=disagree)
        assert (case[3][0] != case[2][0]).mean() == 0.1075
        for high, counts in ((far, [False, True]), (near, [True, False])):
            narrow = replace(case[0], rate=Estimate(0.0, 0.0, high))
            found = counted(narrow, *case[1:], most_weights=most)
            assert counting(found) == counts


def test_plants_between_classes_that_are_found_more_often_than_others_count_as_those():
    case, most, _ = harder(found=1.0, found_easy=0.8)
    found = counted(*case, most_weights=most)
    assert found.rate == counted(*case).rate
    assert found.rate.low < found.rate.value < found.rate.high
