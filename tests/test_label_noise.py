import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from noiseaudit.errors import DataError, UsageError
from noiseaudit.label_noise import (
    apportion,
    assign_random,
    check_rate,
    estimate_class_probabilities,
    flip_by_instance,
    flip_by_map,
    flip_by_matrix,
    flip_pair,
    flip_uniform,
)
from noiseaudit.seeding import generator

LABELS = np.repeat(np.arange(4), [100, 40, 10, 3])


def even_probs(labels, k):
    """Every example equally near every class."""
    return np.full((len(labels), k), 1 / k)


FLIPS = {
    "uniform": flip_uniform,
    "any": assign_random,
    "pair": flip_pair,
    "map": lambda labels, k, rate, *, seed: flip_by_map(
        labels, k, rate, class_map={0: k - 1}, seed=seed
    ),
    "instance": lambda labels, k, rate, *, seed: flip_by_instance(
        labels, even_probs(labels, k), rate, seed=seed
    ),
}
each_flip = pytest.mark.parametrize("flip", FLIPS.values(), ids=FLIPS)


def transitions(before, after, k=4):
    """(k, k) counts of clean and given labels."""
    counts = np.zeros((k, k), dtype=int)
    np.add.at(counts, (before, after), 1)
    return counts


def moved(before, after, k=4):
    return [int((after != before)[before == label].sum()) for label in range(k)]


# --- what all of them promise ---


@each_flip
def test_a_seed_decides_everything_and_the_input_stays(flip):
    before = LABELS.copy()
    first = flip(LABELS, 4, 0.5, seed=0)
    assert first.dtype == np.int64
    assert np.array_equal(first, flip(LABELS, 4, 0.5, seed=0))
    assert not np.array_equal(first, flip(LABELS, 4, 0.5, seed=1))
    assert np.array_equal(LABELS, before)


@each_flip
def test_rate_zero_changes_nothing(flip):
    assert np.array_equal(flip(LABELS, 4, 0, seed=3), LABELS)


@each_flip
@pytest.mark.parametrize("labels", [[], [1], [0, 1], [1, 1, 1]])
def test_small_and_one_sided_label_sets(flip, labels):
    flipped = flip(np.array(labels, dtype=np.int64), 2, 1.0, seed=0)
    assert len(flipped) == len(labels)
    assert set(flipped.tolist()) <= {0, 1}


@each_flip
def test_other_layouts_of_the_same_labels_give_the_same_flips(flip):
    usual = flip(LABELS, 4, 0.3, seed=5)
    strided = np.repeat(LABELS, 2)[::2]
    frozen = LABELS.astype(np.int32)
    frozen.flags.writeable = False
    assert np.array_equal(flip(strided, 4, 0.3, seed=5), usual)
    assert np.array_equal(flip(frozen, 4, 0.3, seed=5), usual)


@each_flip
@pytest.mark.parametrize("rate", [-0.1, 1.01, np.nan, "0.1", None, True])
def test_a_rate_is_a_number_from_0_to_1(flip, rate):
    with pytest.raises(UsageError, match=r"rate must be a number in \[0, 1\]; got"):
        flip(LABELS, 4, rate, seed=0)


@each_flip
def test_one_class_cannot_be_flipped(flip):
    with pytest.raises(UsageError, match="num_classes must be at least 2; got 1"):
        flip(np.zeros(3, int), 1, 0.1, seed=0)


@each_flip
def test_labels_out_of_range_are_errors(flip):
    with pytest.raises(DataError, match=r"labels must be in \[0, 3\); got 3 outside"):
        flip(LABELS, 3, 0.1, seed=0)


@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=5),
    rate=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_the_share_of_every_class_is_exact(counts, rate, seed):
    k = len(counts)
    labels = generator(seed, "mix").permutation(np.repeat(np.arange(k), counts))
    wanted = [round(rate * count) for count in counts]
    for flip in (flip_uniform, flip_pair, FLIPS["instance"]):
        assert moved(labels, flip(labels, k, rate, seed=seed), k) == wanted
    mapped = flip_by_map(labels, k, rate, class_map={1: 0}, seed=seed)
    assert moved(labels, mapped, k) == [0, wanted[1], *[0] * (k - 2)]
    assert all(
        kept <= most
        for kept, most in zip(
            moved(labels, assign_random(labels, k, rate, seed=seed), k), wanted, strict=True
        )
    )


# --- one by one ---


def test_uniform_reaches_every_other_class_evenly():
    targets = flip_uniform(np.zeros(3000, int), 4, 1.0, seed=0)
    assert np.bincount(targets, minlength=4)[0] == 0
    assert np.bincount(targets)[1:].min() > 900  # expected 1000 each, sd 26


def test_uniform_keeps_its_stream():
    # Stored from the first release: saved experiments must find the same flips again.
    assert flip_uniform(np.arange(12) % 3, 3, 0.5, seed=0).tolist() == [
        0,
        2,
        1,
        1,
        1,
        2,
        1,
        1,
        0,
        0,
        0,
        2,
    ]


def test_random_assignment_keeps_one_label_in_k():
    assigned = assign_random(np.zeros(4000, int), 4, 1.0, seed=0)
    assert np.bincount(assigned, minlength=4).min() > 900  # expected 1000 each, sd 27
    kept = (assign_random(np.zeros(4000, int), 4, 0.5, seed=0) == 0).sum()
    assert 2400 < kept < 2600  # 2000 not chosen + 500 of 2000 that drew their own, sd 19


def test_pair_goes_to_the_next_class_and_round():
    flipped = flip_pair(LABELS, 4, 0.1, seed=0)
    assert transitions(LABELS, flipped).tolist() == [
        [90, 10, 0, 0],
        [0, 36, 4, 0],
        [0, 0, 9, 1],
        [0, 0, 0, 3],  # round(0.3) = 0
    ]
    assert flip_pair(np.array([3, 3]), 4, 1.0, seed=0).tolist() == [0, 0]


def test_a_map_moves_only_its_classes():
    flipped = flip_by_map(LABELS, 4, 0.5, class_map={0: 3, 2: 1}, seed=0)
    assert transitions(LABELS, flipped).tolist() == [
        [50, 0, 0, 50],
        [0, 40, 0, 0],
        [0, 5, 5, 0],
        [0, 0, 0, 3],
    ]


def test_a_map_does_not_depend_on_its_order():
    there = flip_by_map(LABELS, 4, 0.5, class_map={0: 3, 2: 1}, seed=0)
    back = flip_by_map(LABELS, 4, 0.5, class_map={2: 1, 0: 3}, seed=0)
    assert np.array_equal(there, back)


@pytest.mark.parametrize(
    ("class_map", "words"),
    [
        ({}, "class_map is empty"),
        ({0: 4}, r"must stay in \[0, 4\); got 0: 4"),
        ({-1: 2}, "got -1: 2"),
        ({2: 2}, "must change the class; got 2: 2"),
    ],
)
def test_bad_maps_are_errors(class_map, words):
    with pytest.raises(UsageError, match=words):
        flip_by_map(LABELS, 4, 0.1, class_map=class_map, seed=0)


MATRIX = np.array([[0.7, 0.1, 0.1, 0.1], [0, 1, 0, 0], [0.25, 0.25, 0.5, 0], [0, 0, 1, 0]])


def test_a_matrix_is_met_to_the_example():
    flipped = flip_by_matrix(LABELS, MATRIX, seed=0)
    counts = transitions(LABELS, flipped)
    assert counts[[0, 1, 3]].tolist() == [[70, 10, 10, 10], [0, 40, 0, 0], [0, 0, 3, 0]]
    assert counts[2, 2:].tolist() == [5, 0]  # 2.5 and 2.5: one of them is rounded up
    assert sorted(counts[2, :2].tolist()) == [2, 3]


def test_equal_remainders_favour_no_class():
    share = np.full(4, 0.25)
    totals = sum(apportion(share, 2, generator(seed, "x")) for seed in range(400))
    assert totals.sum() == 800
    assert totals.min() > 160  # expected 200 each, sd 10


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda shares: sum(shares) > 0.01),
    st.integers(0, 200),
)
def test_apportioned_counts_add_up_and_are_within_one(shares, total):
    counts = apportion(np.array(shares), total, generator(0, "x"))
    exact = np.array(shares) / sum(shares) * total
    assert counts.sum() == total
    assert (np.abs(counts - exact) < 1 + 1e-6).all()


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.ones((2, 3)), r"shape \(k, k\); got \(2, 3\)"),
        (np.ones(4), r"got \(4,\)"),
        (np.eye(4) * 0.9, "4 rows are not, first row 0 with minimum 0 and sum 0.9"),
        (np.array([[1, 0], [1.5, -0.5]]), "1 rows are not, first row 1 with minimum -0.5"),
        (np.array([[1, 0], [np.nan, 1]]), "must be finite; NaN or infinity in 1 row, first 1"),
    ],
)
def test_bad_matrices_are_errors(matrix, words):
    with pytest.raises(DataError, match=words):
        flip_by_matrix(np.zeros(3, int), matrix, seed=0)


def test_check_rate_takes_numpy_numbers():
    assert check_rate(np.float32(0.5)) == 0.5
    assert check_rate(1) == 1.0


# --- where classes meet ---


def test_instance_flips_where_classes_meet_and_to_the_rival():
    # Two examples between classes 0 and 2 (one on the wrong side), eight that the model is sure of.
    probs = np.array([[0.5, 0.05, 0.45], [0.3, 0.1, 0.6]] + [[1.0, 0.0, 0.0]] * 8)
    for seed in range(20):
        flipped = flip_by_instance(np.zeros(10, int), probs, 0.2, seed=seed)
        assert flipped.tolist() == [2, 2] + [0] * 8


def test_instance_draws_by_the_margins_weight():
    # Margins 0 and 0.8: weights (1 - 0) / 2 and (1 - 0.64) / 2, so one draw of two takes the
    # first with probability 0.5 / 0.68 = 0.735.
    probs = np.array([[0.5, 0.5], [0.9, 0.1]])
    firsts = sum(
        flip_by_instance(np.zeros(2, int), probs, 0.5, seed=seed)[0] for seed in range(2000)
    )
    assert 1410 < firsts < 1530  # expected 1470.6, sd 20


def test_instance_takes_the_rest_evenly_when_no_example_is_torn():
    probs = np.tile([1.0, 0.0], (1000, 1))
    both = [flip_by_instance(np.zeros(1000, int), probs, 0.5, seed=seed) for seed in range(2)]
    assert [flipped.sum() for flipped in both] == [500, 500]
    assert not np.array_equal(*both)


@pytest.mark.parametrize(
    ("probs", "words"),
    [
        (np.ones(4), r"shape \(n, k\); got \(4,\)"),
        (np.full((3, 4), 0.25), "labels has 153, pred_probs has 3"),
        (np.ones((153, 4)), "153 rows are not"),
        (np.full((153, 4), np.nan), "pred_probs must be finite"),
    ],
)
def test_bad_probabilities_are_errors(probs, words):
    with pytest.raises(DataError, match=words):
        flip_by_instance(LABELS, probs, 0.1, seed=0)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return (data.images * 15.9375).astype(np.uint8), data.target


def test_estimated_probabilities_know_digits_and_flip_their_confusions(digits):
    images, labels = digits
    probs = estimate_class_probabilities(images, labels, 10, seed=0)
    assert (probs.argmax(axis=1) == labels).mean() > 0.93  # measured: 0.963
    assert np.allclose(probs.sum(axis=1), 1)
    flipped = flip_by_instance(labels, probs, 0.1, seed=0)
    bad = flipped != labels
    assert moved(labels, flipped, 10) == [round(0.1 * c) for c in np.bincount(labels)]
    certain = probs[np.arange(len(labels)), labels]
    assert certain[bad].mean() < 0.75  # measured: 0.649
    assert certain[~bad].mean() > 0.93  # measured: 0.956


def test_estimated_probabilities_depend_on_the_seed_alone(digits):
    images, labels = digits[0][:200], digits[1][:200]
    first = estimate_class_probabilities(images, labels, 10, seed=0)
    assert np.array_equal(first, estimate_class_probabilities(images, labels, 10, seed=0))
    assert not np.array_equal(first, estimate_class_probabilities(images, labels, 10, seed=1))


def test_no_example_helps_to_predict_itself():
    # Pure noise: in-sample a 50-dimensional fit of 60 examples would be perfect.
    random = generator(0, "test")
    inputs = random.normal(size=(60, 50)).astype(np.float32)
    labels = np.arange(60) % 2
    probs = estimate_class_probabilities(inputs, labels, 2, seed=0)
    assert (probs.argmax(axis=1) == labels).mean() < 0.75  # measured: 0.53; chance 0.5, sd 0.065


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((6, 40, 70, 3), np.uint8),  # shrunk by 2 and 3
        np.arange(6 * 9, dtype=np.uint8).reshape(6, 3, 3),
        np.ones((6, 1), np.float32),  # a constant feature
    ],
)
@pytest.mark.parametrize("n", [0, 1, 2, 6])
def test_estimates_exist_for_every_shape_and_size(inputs, n):
    labels = np.array([0, 0, 0, 2, 0, 2])[:n]
    probs = estimate_class_probabilities(inputs[:n], labels, 3, seed=0)
    assert probs.shape == (n, 3)
    assert np.allclose(probs.sum(axis=1), 1)


def test_estimate_refuses_labels_of_another_length():
    with pytest.raises(DataError, match="inputs has 3, labels has 2"):
        estimate_class_probabilities(np.ones((3, 1), np.float32), np.array([0, 1]), 2, seed=0)


def test_large_pictures_are_averaged_down_to_small_ones(digits):
    images = digits[0][:100].repeat(4, axis=1).repeat(4, axis=2)  # 32 pixels a side: kept
    twice = images.repeat(2, axis=1).repeat(3, axis=2)
    small, large = (
        estimate_class_probabilities(pictures, digits[1][:100], 10, seed=0)
        for pictures in (images, twice)
    )
    assert np.allclose(small, large, atol=1e-5)
