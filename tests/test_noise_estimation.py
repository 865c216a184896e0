"""The estimate of wrong labels from planted flips: mixtures whose answer is known, and digits."""

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
from noiseaudit.evaluation import auroc
from noiseaudit.label_channel import count_label_channel
from noiseaudit.label_noise import estimate_class_probabilities
from noiseaudit.noise_estimate import NoiseEstimate
from noiseaudit.noise_estimation import estimate_noise_of_probs
from noiseaudit.planted_flips import plant_rivals
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
    assert found.rate.value == pytest.approx(rate, rel=0.12)  # measured 6%, 8%, 3% less
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
        at = found.threshold(asked, each=False)
        flagged = found.p_error >= at.p_error
        assert flagged.sum() == at.count > 0
        assert at.precision.low <= at.precision.value <= at.precision.high
        assert at.precision.value >= asked
        assert found.p_error[flagged].mean() == pytest.approx(at.precision.value)
        more = np.sort(found.p_error)[::-1][: at.count + 1]
        assert more.mean() < asked
        assert is_wrong[flagged].mean() > asked - 0.1  # measured 0.71, 0.90
    assert found.threshold(0.9, each=False).count < found.threshold(0.7, each=False).count


def test_each_flagged_label_is_as_probable_as_asked():
    found, is_wrong = estimate(0.1, distance=2.0)
    at, loose = found.threshold(0.8), found.threshold(0.8, each=False)
    flagged = found.p_error >= at.p_error
    assert flagged.sum() == at.count == (found.p_error >= 0.8).sum()
    assert 0 < at.count < loose.count
    assert at.precision.value == pytest.approx(found.p_error[flagged].mean())
    assert is_wrong[flagged].mean() > 0.8  # measured 0.89


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
    at = whole.threshold(0.82, each=False)
    assert (at.count, at.p_error) == (4, 0.8)
    assert at.precision.value == pytest.approx(0.825)
    assert whole.threshold(0.8).count == 4
    assert whole.threshold(0.82).count == 1
    assert whole.threshold(0.95).count == 0
    assert (
        whole.threshold(0.86, each=False).count == 1
    )  # 0.9 and one 0.8 would do: all or none of them


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


def test_a_fit_takes_the_rounds_with_plants_alone():
    labels, planted, odds, suggested, is_wrong = mixture(0.1)
    odds[0] -= 5  # what an untouched run says is on another scale
    found = na.estimate_noise(labels, planted, odds, suggested, num_classes=K, in_nats=True)
    assert found.rate.value == pytest.approx(0.1, rel=0.12)  # measured 0.092, as without it
    assert auroc(found.p_error, is_wrong) > 0.95  # measured 0.988


def test_plants_between_classes_raise_the_most_and_nothing_else():
    labels, planted, odds, suggested, _ = mixture(0.05)
    plain = na.estimate_noise(labels, planted, odds, suggested, num_classes=K, in_nats=True)
    random = np.random.default_rng(3)
    rivals = planted.copy()
    weights = np.zeros(planted.shape)
    free = random.permutation(np.flatnonzero((planted == labels).all(axis=0)))[:200]
    rivals[1, free] = (labels[free] + 1) % K
    weights[1, free] = 1.0
    odds[1, free] = random.uniform(-9, 1, 200)  # a fifth lies below -7
    found = na.estimate_noise(
        labels, rivals, odds, suggested, num_classes=K, in_nats=True,
        weights=np.where(weights > 0, 0.0, rivals != labels), most_weights=weights,
    )  # fmt: skip
    assert found.rate.value == pytest.approx(plain.rate.value, rel=0.1)
    assert plain.most < 0.07
    # Of N(-8, 16) 0.40 lie above -7: with those wrong 0.43, by 0.8.
    assert found.most == pytest.approx(0.54, abs=0.1)  # measured 0.60


def averaged(labels, true, random):
    """Probabilities of a network that half believes the labels, on average over training."""
    scores = random.normal(0, 0.5, (len(labels), K))
    rows = np.arange(len(labels))
    scores[rows, true] += 3.0
    scores[rows, labels] += 1.0
    exponentials = np.exp(scores)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_wrong_labels_are_counted_from_a_networks_probabilities():
    random = np.random.default_rng(0)
    true = random.integers(0, K, 3000)
    is_wrong = random.random(3000) < 0.2
    labels = np.where(is_wrong, (true + 1) % K, true)
    probs = averaged(labels, true, random)
    planted = na.plant_flips(labels, count_label_channel(probs, labels).joint, rounds=1)
    planted, most = plant_rivals(labels, planted, probs)
    found = estimate_noise_of_probs(
        labels, probs, planted, np.stack([averaged(row, true, random) for row in planted]),
        most_weights=most, bootstraps=20,
    )  # fmt: skip
    assert found.rate.value == pytest.approx(is_wrong.mean(), rel=0.1)  # measured 3% less
    assert found.most >= is_wrong.mean()
    assert auroc(found.p_error, is_wrong) > 0.99
    flagged = found.p_error >= found.threshold(0.9).p_error
    assert is_wrong[flagged].mean() > 0.95
    assert flagged[is_wrong].mean() > 0.8


@pytest.mark.parametrize(("noise", "rate"), [("pair", 0.2), ("uniform", 0.0), ("instance", 0.2)])
def test_wrong_labels_of_digits_are_counted(noise, rate):
    clean = na.load("digits", limit=1000)
    flat = clean.inputs.reshape(len(clean), -1)
    more = {}
    if noise == "instance":
        more["pred_probs"] = estimate_class_probabilities(clean.inputs, clean.labels, 10, seed=0)
    noisy = na.inject_noise(clean, noise, rate=rate, seed=7, **more)
    labels = noisy.dataset.labels

    def predict(given):
        return leave_one_out(flat, given, 10, landmarks=200).scores

    scores = predict(labels)
    channel = na.fit_label_channel(scores, labels)
    planted = na.plant_flips(labels, channel.joint, rounds=2, share=0.04)
    planted, most = plant_rivals(labels, planted, channel.probs(scores))
    found = na.estimate_noise_of_scores(
        labels, scores, planted, np.stack([predict(row) for row in planted]), most_weights=most,
        bootstraps=20,
    )  # fmt: skip
    truth = noisy.is_corrupted.mean()
    if noise == "instance":  # cannot be told from hard examples: no number, but no less than most
        assert found.threshold(0.9).count == 0
        assert truth <= found.most < 1.5 * truth  # measured 0.23
        return
    assert found.rate.value == pytest.approx(truth, rel=0.15, abs=0.005)  # see the benchmark
    if rate:
        assert auroc(found.p_error, noisy.is_corrupted) > 0.97
        right = found.suggested[noisy.is_corrupted] == noisy.clean_labels[noisy.is_corrupted]
        assert right.mean() > 0.9
        flagged = found.p_error >= found.threshold(0.9).p_error
        assert noisy.is_corrupted[flagged].mean() > 0.85
    else:
        assert found.threshold(0.9).count <= 0.005 * len(labels)
        assert found.most < 0.08


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
        ({"most_weights": -np.ones((4, 300))}, DataError, "most_weights must be .*not negative"),
        ({"most_weights": np.ones((2, 300))}, DataError, r"shape \(4, 300\); got shape \(2, 300\)"),
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
    probs = np.full((300, K), 1 / K)
    with pytest.raises(DataError, match=r"pred_probs must be in \[0, 1\]; got -3 to -3"):
        estimate_noise_of_probs(labels, probs, planted, np.full((4, 300, K), -3.0))
    for call in (na.estimate_noise_of_scores, estimate_noise_of_probs):
        with pytest.raises(
            DataError, match=r"predicted of them \(r, 300, k\); got .*\(2, 300, 4\)"
        ):
            call(labels, probs, planted, np.zeros((2, 300, K)))
        with pytest.raises(DataError, match=r"most_weights must have shape \(4, 300\).*\(4,\)"):
            call(labels, probs, planted, np.zeros((4, 300, K)), most_weights=np.zeros(4))
