import itertools
import math
from dataclasses import asdict

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from noiseaudit.errors import DataError, UnknownNameError, UsageError
from noiseaudit.evaluation import (
    FIGURES,
    Interval,
    auroc,
    average_precision,
    evaluate,
    fpr_at_recall,
    mean_interval,
    paired_difference,
    removal_rate,
)
from noiseaudit.ranking import Ranking

FUNCTIONS = {
    "auroc": auroc,
    "average_precision": average_precision,
    "removal_rate": removal_rate,
    "fpr_at_95_recall": fpr_at_recall,
}
each_figure = pytest.mark.parametrize("name", FUNCTIONS)

scored = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(bad for _, bad in rows) < len(rows)
)


def rank(scores, ids=None):
    scores = np.asarray(scores, dtype=float)
    return Ranking("test", np.arange(len(scores)) if ids is None else np.asarray(ids), scores)


def columns(rows):
    return np.array([score for score, _ in rows], float), np.array([bad for _, bad in rows])


# --- hand cases ---


def test_figures_of_a_ranking_worked_out_by_hand():
    # In order: bad, good, bad, good, good. Pairs (bad, good) in the right order: 3 + 2 of 6.
    # Precision at the two bad ones: 1/1 and 2/3. Two most suspicious: one bad.
    # 95% of two bad ones takes both: one of three good ones stands before the second.
    result = evaluate(rank([0.9, 0.7, 0.5, 0.3, 0.1]), [True, False, True, False, False])
    assert result.auroc == pytest.approx(5 / 6)
    assert result.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert result.removal_rate == result.precision_at_k == result.recall_at_k == 0.5
    assert result.fpr_at_95_recall == pytest.approx(1 / 3)
    assert (result.n_corrupted, result.n, result.k) == (2, 5, 2)


def test_another_k_changes_only_the_figures_at_k():
    ranking, key = rank([0.9, 0.7, 0.5, 0.3, 0.1]), [True, False, True, False, False]
    usual, wide = asdict(evaluate(ranking, key)), asdict(evaluate(ranking, key, k=3))
    assert {name for name in usual if usual[name] != wide[name]} == {
        "precision_at_k",
        "recall_at_k",
        "k",
    }
    assert wide["precision_at_k"] == pytest.approx(2 / 3)
    assert wide["recall_at_k"] == 1


def test_a_perfect_and_a_reversed_ranking():
    key = np.array([False, False, True, True])
    best, worst = evaluate(rank([0, 1, 2, 3]), key), evaluate(rank([3, 2, 1, 0]), key)
    assert (best.auroc, best.average_precision, best.removal_rate) == (1, 1, 1)
    assert best.fpr_at_95_recall == 0
    assert (worst.auroc, worst.removal_rate, worst.fpr_at_95_recall) == (0, 0, 1)
    assert worst.average_precision == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_a_constant_score_says_nothing():
    key = np.arange(200) < 20
    result = evaluate(rank(np.zeros(200)), key, k=50)
    assert result.auroc == 0.5
    assert result.average_precision == pytest.approx(0.1)  # the rate
    assert result.removal_rate == pytest.approx(0.1)
    assert result.precision_at_k == pytest.approx(0.1)
    assert result.recall_at_k == pytest.approx(50 / 200)
    assert result.fpr_at_95_recall == pytest.approx(19 / 21)  # before the 19th of 20


def test_ties_at_the_cut_count_by_their_share():
    # First a bad one, then three tied of which one is bad: k = 2 takes one of the three.
    assert removal_rate([2, 1, 1, 1, 0], [True, True, False, False, False]) == pytest.approx(
        (1 + 1 / 3) / 2
    )


# --- nothing to find, nothing to mistake ---


@pytest.mark.parametrize("n", [0, 1, 2])
def test_nothing_corrupted_has_no_figures_and_no_warning(n):
    result = evaluate(rank(np.arange(n)), np.zeros(n, bool))
    assert (result.n_corrupted, result.n, result.k) == (0, n, 0)
    assert all(math.isnan(value) for name, value in asdict(result).items() if name[0] not in "nk")


def test_nothing_corrupted_with_a_k_has_precision_0():
    result = evaluate(rank([1, 2]), [False, False], k=1)
    assert result.precision_at_k == 0
    assert math.isnan(result.recall_at_k)


def test_everything_corrupted_leaves_nothing_to_tell_apart():
    result = evaluate(rank([1, 2, 2]), [True] * 3)
    assert math.isnan(result.auroc)
    assert math.isnan(result.fpr_at_95_recall)
    assert result.average_precision == result.removal_rate == result.recall_at_k == 1


# --- against scikit-learn and brute force ---


@given(scored)
def test_auroc_and_average_precision_are_those_of_scikit_learn(rows):
    scores, key = columns(rows)
    assert auroc(scores, key) == pytest.approx(roc_auc_score(key, scores), abs=1e-12)
    assert average_precision(scores, key) == pytest.approx(
        average_precision_score(key, scores), abs=1e-12
    )


@pytest.mark.parametrize("decimals", [16, 1, 0])
def test_thousands_of_scores_agree_with_scikit_learn(decimals):
    random = np.random.default_rng(0)
    key = random.random(5000) < 0.1
    scores = np.round(random.normal(size=5000) + key, decimals)
    assert auroc(scores, key) == pytest.approx(roc_auc_score(key, scores), abs=1e-12)
    assert average_precision(scores, key) == pytest.approx(
        average_precision_score(key, scores), abs=1e-12
    )


@given(st.permutations(range(12)), st.integers(1, 11), st.sampled_from([0.3, 0.5, 0.95, 1.0]))
def test_fpr_without_ties_is_the_point_of_the_roc_curve(scores, corrupted, recall):
    key = np.arange(12) < corrupted
    fpr, tpr, _ = roc_curve(key, scores, drop_intermediate=False)
    first = int(np.argmax(tpr >= recall - 1e-12))
    assert fpr_at_recall(scores, key, recall) == pytest.approx(fpr[first])


def over_all_orders(scores, key, figure):
    """Mean of a figure of the key in order, over every order of examples with equal scores."""
    values = [
        figure([key[row] for row in order])
        for order in itertools.permutations(range(len(key)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return sum(values) / len(values)


def fpr_of(ordered, recall=0.95):
    needed = math.ceil(recall * sum(ordered) - 1e-9)
    reached = [sum(ordered[: row + 1]) >= needed for row in range(len(ordered))].index(True)
    return (reached + 1 - needed) / (len(ordered) - sum(ordered))


def pairs_of(ordered):
    right = [b < g for b, bad in enumerate(ordered) if bad for g, x in enumerate(ordered) if not x]
    return sum(right) / len(right)


@pytest.mark.parametrize(
    "scores", [[0] * 6, [1, 1, 1, 0, 0, 0], [2, 1, 1, 1, 1, 0], [3, 3, 2, 2, 2, 1]]
)
def test_ties_are_the_mean_over_all_orders(scores):
    for bits in range(1, 63):
        key = [bool(bits >> row & 1) for row in range(6)]
        count = sum(key)
        for k in (1, count, 5):
            result = evaluate(rank(scores), key, k=k)
            hits = over_all_orders(scores, key, lambda ordered, k=k: sum(ordered[:k]))
            assert result.precision_at_k == pytest.approx(hits / k)
            assert result.recall_at_k == pytest.approx(hits / count)
        assert result.removal_rate == pytest.approx(
            over_all_orders(scores, key, lambda ordered: sum(ordered[: sum(ordered)])) / count
        )
        assert result.auroc == pytest.approx(over_all_orders(scores, key, pairs_of))
        assert result.fpr_at_95_recall == pytest.approx(over_all_orders(scores, key, fpr_of))


# --- invariants ---


@given(scored, st.randoms())
def test_neither_row_order_nor_a_rising_transform_matters(rows, random):
    scores, key = columns(rows)
    wanted = evaluate(rank(scores), key)
    mixed = random.sample(range(len(rows)), len(rows))
    for other in (
        evaluate(rank(scores[mixed]), key[mixed]),
        evaluate(rank(np.exp(scores) * 7 - 3), key),
        evaluate(rank(scores[mixed], ids=mixed), key, ids=np.arange(len(rows))),
    ):
        assert asdict(other) == pytest.approx(asdict(wanted), nan_ok=True)


@given(scored)
def test_the_reversed_score_has_the_complement_for_auroc(rows):
    scores, key = columns(rows)
    assert auroc(-scores, key) == pytest.approx(1 - auroc(scores, key))
    assert auroc(scores, ~key) == pytest.approx(1 - auroc(scores, key))


@each_figure
def test_layout_and_type_of_the_arrays_do_not_matter(name):
    scores, key = np.array([3, 1, 2, 2, 5]), np.array([True, False, True, False, False])
    wanted = FUNCTIONS[name](scores.tolist(), key.tolist())
    frozen = scores.astype(np.float32)
    frozen.flags.writeable = False
    assert FUNCTIONS[name](np.repeat(scores, 3)[::3], key.astype(np.int32)) == wanted
    assert FUNCTIONS[name](frozen, np.repeat(key, 2)[::2]) == wanted


def test_the_functions_are_the_fields():
    scores, key = np.array([3, 1, 2, 2, 5]), np.array([True, False, True, False, False])
    fields = asdict(evaluate(rank(scores), key))
    assert {name: FUNCTIONS[name](scores, key) for name in FIGURES} == {
        name: fields[name] for name in FIGURES
    }


# --- bad input ---


@pytest.mark.parametrize(
    ("scores", "key", "words"),
    [
        ([1, 2, 3], [True, False], "lengths differ: scores has 3, is_corrupted has 2"),
        ([1, np.nan], [True, False], "scores must be finite; NaN or infinity in 1 row, first 1"),
        ([[1], [2]], [True, False], r"scores must be \(n,\) numbers; got int64 of shape \(2, 1\)"),
        (["a", "b"], [True, False], "scores must be"),
        ([1, 2], [0.5, 1.0], r"is_corrupted must be \(n,\) bool; got float64"),
        ([1, 2], [[True, False]], r"is_corrupted must be \(n,\) bool"),
        ([1, 2], [0, 2], "bool, or 0 and 1; other numbers in 1 row, first 1"),
    ],
)
@each_figure
def test_bad_scores_and_keys_are_errors(name, scores, key, words):
    with pytest.raises(DataError, match=words):
        FUNCTIONS[name](scores, key)


@pytest.mark.parametrize(
    ("key", "ids", "words"),
    [
        ([True, False, True], None, "ranking has 2, is_corrupted has 3"),
        ([True], None, "ranking has 2, is_corrupted has 1"),
        ([True, False], [5, 6, 7], "is_corrupted has 2, ids has 3"),
        ([True, False], [5, 5], "ids must be unique"),
        ([True, False], [5, 7], "differ in 2 sample ids, first 6"),
        ([True, False, True], [5, 6, 7], "differ in 1 sample ids, first 7"),
    ],
)
def test_evaluate_refuses_a_key_of_other_examples(key, ids, words):
    with pytest.raises(DataError, match=words):
        evaluate(rank([1, 2], ids=[5, 6]), key, ids=ids)


def test_evaluate_follows_ids():
    key = [False, True, False]
    assert evaluate(rank([1, 9, 2], ids=[30, 10, 20]), key, ids=[20, 10, 30]).auroc == 1


@pytest.mark.parametrize("k", [-1, 3])
def test_k_is_no_more_than_there_are_examples(k):
    with pytest.raises(UsageError, match=rf"k must be in \[0, 2\], .*; got {k}"):
        evaluate(rank([1, 2]), [True, False], k=k)


@pytest.mark.parametrize("recall", [0, -1, 1.1, np.nan])
def test_recall_is_a_share(recall):
    with pytest.raises(UsageError, match=r"recall must be in \(0, 1\]"):
        fpr_at_recall([1, 2], [True, False], recall)


# --- intervals ---


def test_mean_interval_is_students():
    values = [0.98, 0.97, 0.995]
    interval = mean_interval(values)
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert interval == Interval(
        pytest.approx(np.mean(values)), pytest.approx(low), pytest.approx(high), 3
    )
    # 1 and 3: mean 2, standard error 1, t(0.9; 1 degree) = 6.314
    hand = mean_interval([1, 3], confidence=0.9)
    assert (hand.low, hand.high) == (
        pytest.approx(-4.3138, abs=1e-4),
        pytest.approx(8.3138, abs=1e-4),
    )
    assert mean_interval([0.5, 0.5]) == Interval(0.5, 0.5, 0.5, 2)


@pytest.mark.parametrize(
    ("values", "mean"),
    [([], math.nan), ([0.5], 0.5), ([0.5, math.nan], math.nan), ([0.5, math.inf], math.nan)],
)
def test_mean_interval_without_an_interval(values, mean):
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert interval.n == len(values)


def compared(n=2000, decimals=16):
    random = np.random.default_rng(0)
    key = random.random(n) < 0.1
    common = random.normal(size=n)
    better = common + 0.5 * random.normal(size=n) + 2 * key
    worse = common + 0.5 * random.normal(size=n) + 1.5 * key
    return np.round(better, decimals), np.round(worse, decimals), key


@each_figure
@pytest.mark.parametrize("decimals", [16, 1])
def test_paired_difference_matches_a_plain_bootstrap(name, decimals):
    better, worse, key = compared(400, decimals)
    interval = paired_difference(better, worse, key, figure=name, resamples=300)
    figure = FUNCTIONS[name]
    assert interval.mean == pytest.approx(figure(better, key) - figure(worse, key))
    random = np.random.default_rng(1)
    drawn = []
    for _ in range(300):
        rows = np.concatenate(
            [random.choice(np.flatnonzero(part), part.sum()) for part in (key, ~key)]
        )
        drawn.append(figure(better[rows], key[rows]) - figure(worse[rows], key[rows]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    spread = high - low  # the ends of 300 draws are good to about a tenth of it
    assert interval.low == pytest.approx(low, abs=0.25 * spread)
    assert interval.high == pytest.approx(high, abs=0.25 * spread)
    assert interval.n == 400


def test_pairing_makes_the_interval_narrow():
    better, worse, key = compared()
    paired = paired_difference(better, worse, key, resamples=200)
    assert 0 < paired.low < paired.mean < paired.high
    alone = paired_difference(better, np.zeros(len(key)), key, resamples=200)
    assert paired.high - paired.low < 0.9 * (alone.high - alone.low)  # measured: 0.77


def test_a_detector_does_not_differ_from_itself_nor_from_its_transform():
    better, _, key = compared(200)
    assert paired_difference(better, better, key, resamples=20) == Interval(0, 0, 0, 200)
    assert paired_difference(better, 3 * better - 1, key, resamples=20) == Interval(0, 0, 0, 200)


def test_paired_difference_is_antisymmetric_seeded_and_widens_with_confidence():
    better, worse, key = compared(300)
    there = paired_difference(better, worse, key, resamples=50)
    back = paired_difference(worse, better, key, resamples=50)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low))
    assert there == paired_difference(better, worse, key, resamples=50)
    assert there != paired_difference(better, worse, key, resamples=50, seed=1)
    narrow = paired_difference(better, worse, key, resamples=50, confidence=0.5)
    assert there.low < narrow.low < narrow.high < there.high


@pytest.mark.parametrize("key", [[], [False, False], [True, True]])
def test_paired_difference_of_an_undefined_figure_is_nan(key):
    interval = paired_difference(np.arange(len(key)), np.arange(len(key)), key)
    assert all(math.isnan(value) for value in (interval.mean, interval.low, interval.high))
    assert interval.n == len(key)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"figure": "aurocc"}, UnknownNameError, "unknown figure 'aurocc'; did you mean 'auroc'"),
        ({"resamples": 0}, UsageError, "resamples must be at least 1; got 0"),
        ({"confidence": 1}, UsageError, r"confidence must be in \(0, 1\); got 1"),
        ({"second": [1, 2, 3]}, DataError, "scores has 3, is_corrupted has 2"),
        ({"first": [1, np.inf]}, DataError, "scores must be finite"),
    ],
)
def test_paired_difference_refuses_bad_values(options, error, words):
    given = {"first": [1, 2], "second": [2, 1], "is_corrupted": [True, False], **options}
    with pytest.raises(error, match=words):
        paired_difference(**given)


def test_mean_interval_refuses_a_bad_confidence():
    with pytest.raises(UsageError, match="confidence"):
        mean_interval([1.0, 2.0], confidence=0)
