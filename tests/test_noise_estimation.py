"""The estimate of wrong labels from planted flips: mixtures whose answer is known, and digits."""

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
from noiseaudit.evaluation import auroc
from noiseaudit.noise_estimate import NoiseEstimate
from noiseaudit.ridge import leave_one_out
from noiseaudit.score_mixture import fit_mixture, make_bins

K = 4


def mixture(rate, n=4000, rounds=3, plants=100, distance=4.0, seed=0):
    """Labels and log odds: right ones N(-d^2/2, d^2), wrong ones N(d^2/2, d^2)."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, K, n)
    is_wrong = np.zeros(n, bool)
    is_wrong[random.permutation(n)[: round(rate * n)]] = True
    planted = np.tile(labels, (rounds + 1, 1))
    rows = random.permutation(n)[: rounds * plants].reshape(rounds, plants)
    for number, chosen in enumerate(rows, start=1):
        planted[number, chosen] = (labels[chosen] + 2) % K
    wrong = is_wrong | (planted != labels)
    # What an example is like is the same in all rounds, with a little noise of each.
    own = random.standard_normal(n) + 0.3 * random.standard_normal(planted.shape)
    own /= np.sqrt(1.09)
    odds = distance * own + np.where(wrong, 1, -1) * distance**2 / 2
    suggested = np.where(wrong, (labels + 1) % K, (labels + 3) % K)
    return labels, planted, odds, suggested, is_wrong


def estimate(rate, **options):
    labels, planted, odds, suggested, is_wrong = mixture(rate, **options)
    found = na.estimate_noise(
        labels, planted, odds, suggested, num_classes=K, in_nats=True, bootstraps=40
    )
    return found, is_wrong


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.4])
def test_the_rate_of_a_known_mixture_is_found(rate):
    found, is_wrong = estimate(rate)
    assert found.rate.value == pytest.approx(rate, rel=0.1)  # measured 0.5%, 1.7%, 2.3%
    assert found.rate.low <= rate <= found.rate.high
    assert found.rate.high - found.rate.low < 0.8 * rate  # measured 0.67 at 0.02, 0.2 at 0.1
    assert found.most >= 0.95 * rate
    for expected in ([0.95, 1.0], [0.0, 0.1]):
        near = (found.p_error >= expected[0]) & (found.p_error <= expected[1])
        assert abs(found.p_error[near].mean() - is_wrong[near].mean()) < 0.03
    assert found.p_error.mean() == pytest.approx(found.rate.value, rel=0.05)


def test_the_asked_precision_is_reached_with_the_most_that_can_be_flagged():
    found, is_wrong = estimate(0.1, distance=2.0)
    for asked in (0.7, 0.9):
        at = found.threshold(asked)
        flagged = found.p_error >= at.p_error
        assert flagged.sum() == at.count > 0
        assert at.precision.low <= at.precision.value <= at.precision.high
        assert at.precision.value >= asked
        assert found.p_error[flagged].mean() == pytest.approx(at.precision.value)
        more = np.sort(found.p_error)[::-1][: at.count + 1]
        assert more.mean() < asked
        assert is_wrong[flagged].mean() > asked - 0.1  # measured 0.71, 0.90
    assert found.threshold(0.9).count < found.threshold(0.7).count


def test_errors_are_told_by_class_and_by_pair():
    labels, planted, odds, suggested, is_wrong = mixture(0.1)
    only = is_wrong & (labels != 0)  # class 0 is clean
    odds[:, is_wrong & ~only] = -8
    found = na.estimate_noise(labels, planted, odds, suggested, num_classes=K, in_nats=True)
    value, low, high = found.per_class
    truth = np.bincount(labels[only], minlength=K)
    assert value[0] < 10
    assert np.all(np.abs(value - truth)[1:] < 15)  # of about 100
    assert np.all(low <= value)
    assert np.all(value <= high)
    assert np.all(high[1:] > truth[1:] * 0.9)
    pairs = found.per_pair[0]
    assert np.allclose(pairs.sum(axis=0), value)
    assert pairs[2, 1] == pytest.approx(truth[1], abs=25)  # suggested 2, given 1: 94 of 112
    assert pairs[3, 1] < 1
    assert pairs.sum() == pytest.approx(found.p_error.sum(), rel=0.01)


def test_without_noise_nothing_is_flagged():
    found, _ = estimate(0.0)
    assert found.rate.value < 0.001
    assert found.rate.high >= 3.68 / 3800  # -log 0.025: none seen, of 95% of 4,000
    assert found.threshold(0.9).count == 0
    assert np.isnan(found.threshold(0.9).precision.value)
    assert found.p_error.max() < 0.5


def test_complete_separation_counts_what_stands_with_the_plants():
    found, is_wrong = estimate(0.05, distance=40.0)
    # 5% of wrong labels lie below the least of the plants that count.
    assert found.rate.value == pytest.approx(0.05, rel=0.1)
    flagged = found.p_error > 0.5
    assert is_wrong[flagged].all()
    assert flagged[is_wrong].mean() > 0.85
    assert found.auroc > 0.97


def test_scores_that_say_nothing_are_not_trusted():
    labels, planted, odds, suggested, _ = mixture(0.1)
    for scores in (np.zeros_like(odds), np.random.default_rng(1).standard_normal(odds.shape)):
        with pytest.warns(NoiseAuditWarning, match=r"hardly tell .* \(AUROC 0\.\d+\)"):
            found = na.estimate_noise(
                labels, planted, scores, suggested, num_classes=K, bootstraps=20
            )
        assert not found.is_supported
        assert np.isfinite(found.p_error).all()


def test_any_increasing_linear_scale_gives_the_same_estimate():
    labels, planted, odds, suggested, _ = mixture(0.1, n=1500)
    found = [
        na.estimate_noise(labels, planted, scores, suggested, num_classes=K, bootstraps=20)
        for scores in (odds, 1000 + 0.01 * odds)
    ]
    assert found[1].rate.value == pytest.approx(found[0].rate.value, rel=0.02)
    assert found[0].rate.value == pytest.approx(0.1, rel=0.15)  # measured 0.100


def test_tied_examples_are_flagged_together():
    p = np.array([0.9, 0.8, 0.8, 0.8, 0.1])
    pairs = (np.zeros((2, 2)),) * 3
    whole = NoiseEstimate(
        p, np.zeros(5, int), na.noise_estimate.Estimate(0.5, 0.4, 0.6), 1.0, pairs, pairs, 20,
        1.0, 0.95, np.array([[2, 1, 1, 1, 0]], np.int16), np.array([[0.1, 0.8, 0.9]] * 30),
    )  # fmt: skip
    at = whole.threshold(0.82)
    assert (at.count, at.p_error) == (4, 0.8)
    assert at.precision.value == pytest.approx(0.825)
    assert whole.threshold(0.86).count == 1  # 0.9 and one 0.8 would do: all or none of them


def test_a_planted_example_is_judged_where_it_was_not():
    labels, planted, odds, suggested, is_wrong = mixture(0.1)
    found = na.estimate_noise(labels, planted, odds, suggested, num_classes=K, in_nats=True)
    was_planted = (planted != labels).any(axis=0)
    right = was_planted & ~is_wrong
    assert found.p_error[right].mean() < 0.02  # its plants have 0.95 and more
    assert np.array_equal(found.suggested, suggested[0])


def test_ten_plants_among_few_examples_give_a_wide_interval():
    found, _ = estimate(0.2, n=40, rounds=1, plants=10)
    assert found.rate.high - found.rate.low > 0.1
    assert found.plants == 10


def test_the_model_of_the_ratio_is_recovered_from_its_own_histogram():
    centres = np.linspace(0.05, 9.95, 100)
    plants = np.append(5.0, 0.95 * np.full(100, 1.0))
    others = 5000 * (0.1 + 3.0 * np.exp(-1.2 * centres)) * plants[1:] / plants.sum()
    found = fit_mixture(plants, np.append(5000 - others.sum(), others), centres, 0.5)
    assert found.rate == pytest.approx(0.1, rel=0.01)
    assert found.height == pytest.approx(3.0, rel=0.01)
    assert found.slope == pytest.approx(1.2, rel=0.01)


def test_bins_begin_where_a_twentieth_of_the_weight_lies_below():
    plants = np.arange(100.0)
    bins = make_bins(plants, np.ones(100), np.array([-5.0, 50.5]))
    assert bins.edges[0] == 4.0
    assert bins.of(np.array([-5.0, 3.9])).tolist() == [0, 0]
    assert bins.of(np.array([4.0]))[0] == 1
    heavy = np.where(plants < 50, 9.0, 1.0)
    assert make_bins(plants, heavy, plants).edges[0] == 2.0  # 27 of 500


@pytest.mark.parametrize(("noise", "rate"), [("pair", 0.2), ("uniform", 0.0)])
def test_wrong_labels_of_digits_are_counted(noise, rate):
    clean = na.load("digits", limit=1000)
    noisy = na.inject_noise(clean, noise, rate=rate, seed=7)
    labels = noisy.dataset.labels
    flat = clean.inputs.reshape(len(clean), -1)

    def predict(given):
        return leave_one_out(flat, given, 10, landmarks=200).scores

    scores = predict(labels)
    channel = na.fit_label_channel(scores, labels)
    planted = na.plant_flips(labels, channel.joint, rounds=2, share=0.04)
    found = na.estimate_noise_of_scores(
        labels, scores, planted, np.stack([predict(row) for row in planted]), bootstraps=20
    )
    truth = noisy.is_corrupted.mean()
    assert found.rate.value == pytest.approx(truth, rel=0.15, abs=0.005)  # see the benchmark
    if rate:
        assert auroc(found.p_error, noisy.is_corrupted) > 0.97
        right = found.suggested[noisy.is_corrupted] == noisy.clean_labels[noisy.is_corrupted]
        assert right.mean() > 0.9
        flagged = found.p_error >= found.threshold(0.9).p_error
        assert noisy.is_corrupted[flagged].mean() > 0.85
    else:
        assert found.threshold(0.9).count <= 0.005 * len(labels)


GOOD = mixture(0.1, n=300, plants=20)[:4]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"planted": GOOD[1][:, :-1]}, DataError, r"planted must have shape \(r, 300\)"),
        ({"suspicions": GOOD[2][:2]}, DataError, r"suspicions must have shape .*got \(2, 300\)"),
        ({"suspicions": GOOD[2] * np.nan}, DataError, "suspicions must be finite"),
        ({"suggested": GOOD[3] + 9}, DataError, r"labels must be in \[0, 4\)"),
        ({"labels": GOOD[0] + 9}, DataError, r"labels must be in \[0, 4\)"),
        ({"planted": GOOD[1][:1]}, DataError, "planted must|suspicions must"),
        ({"planted": np.tile(GOOD[0], (4, 1))}, DataError, "0 flips were planted; .*at least 10"),
        ({"planted": (GOOD[1] + 1) % K}, DataError, "planted in every round: .*add a round"),
        ({"weights": np.zeros((4, 300))}, DataError, "with a weight"),
        ({"weights": -np.ones((4, 300))}, DataError, "weights must not be negative"),
        ({"weights": np.ones(4)}, DataError, "weights must have shape"),
        ({"num_classes": 1}, UsageError, "num_classes must be at least 2; got 1"),
        ({"confidence": 1.0}, UsageError, r"confidence must be in \(0, 1\); got 1"),
        ({"bootstraps": 3}, UsageError, "bootstraps must be at least 20; got 3"),
    ],
)
def test_bad_arguments(change, error, words):
    names = ("labels", "planted", "suspicions", "suggested")
    call = {**dict(zip(names, GOOD, strict=True)), "num_classes": K, **change}
    with pytest.raises(error, match=words):
        na.estimate_noise(**call)


def test_bad_precision_and_scores():
    found, _ = estimate(0.1, n=300, plants=20)
    with pytest.raises(UsageError, match=r"precision must be in \(0, 1\]; got 0"):
        found.threshold(0)
    labels, planted = GOOD[:2]
    with pytest.raises(DataError, match=r"planted_scores \(r, 300, k\)"):
        na.estimate_noise_of_scores(labels, np.zeros((300, K)), planted, np.zeros((2, 300, K)))
