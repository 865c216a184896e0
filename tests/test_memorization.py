"""Memorisation: problems and controls, training, loss sensitivity, findings, the profile."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F

from noiseaudit import LabeledDataset
from noiseaudit.errors import DataError, NoiseAuditError, UsageError
from noiseaudit.memorization.capacity import capacity_needed
from noiseaudit.memorization.complexity import CriticalSettings, calibrate_radius
from noiseaudit.memorization.critical import PUBLISHED_RADIUS
from noiseaudit.memorization.easy_examples import spread_over_binomial
from noiseaudit.memorization.findings import Analysis, judge_effect, measure_series
from noiseaudit.memorization.networks import (
    apply_network,
    compute_logits,
    initialize,
    predict,
)
from noiseaudit.memorization.presets import PRESETS, choose_preset
from noiseaudit.memorization.problems import (
    Problem,
    give_each_its_class,
    make_controls,
    make_problem,
    randomize_inputs,
    randomize_labels,
    take_first,
)
from noiseaudit.memorization.profile import (
    ANALYSES,
    MemorizationProfile,
    analyze,
    profile_memorization,
)
from noiseaudit.memorization.regularizers import RegularizersSettings, lowest_fit
from noiseaudit.memorization.sensitivity import (
    UnrolledSettings,
    class_sensitivity,
    gini,
    loss_sensitivity,
    off_diagonal_share,
)
from noiseaudit.memorization.training import Regularization, TrainingSettings, train_networks
from noiseaudit.seeding import generator


def make_vectors(n=120, k=3, d=6, seed=0):
    """Classes at different means, the last feature constant."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % k
    inputs = random.normal(size=(n, d)) + 2 * random.normal(size=(k, d))[labels]
    inputs[:, -1] = 0.1
    return LabeledDataset(inputs.astype(np.float32), labels, tuple(map(str, range(k))))


def make_pictures(n=120, k=3, shape=(8, 6)):
    random = np.random.default_rng(1)
    inputs = random.integers(0, 256, (n, *shape), dtype=np.uint8)
    return LabeledDataset(inputs, np.arange(n) % k, tuple(map(str, range(k))))


def small_problem(n=30, v=20, seed=0):
    return make_problem(make_vectors(), size=n, validation_size=v, seed=seed)


# Problems and controls


def test_rows_are_disjoint_proportional_and_drawn_by_seed():
    dataset = make_vectors(n=300)
    dataset = replace(
        dataset, inputs=np.arange(600, dtype=np.float32).reshape(300, 2), feature_names=None
    )
    problem = make_problem(dataset, size=90, validation_size=60, seed=1)
    values = np.concatenate([problem.inputs[:, 0], problem.validation_inputs[:, 0]])
    assert len(np.unique(values)) == 150
    assert np.abs(np.bincount(problem.labels) - 30).max() <= 1
    assert np.abs(np.bincount(problem.validation_labels) - 20).max() <= 1
    again = make_problem(dataset, size=90, validation_size=60, seed=1)
    other = make_problem(dataset, size=90, validation_size=60, seed=2)
    np.testing.assert_array_equal(problem.inputs, again.inputs)
    assert not np.array_equal(problem.inputs, other.inputs)


def test_small_data_set_is_divided_in_the_wanted_proportion():
    problem = make_problem(make_vectors(n=60), size=1000, validation_size=500, seed=0)
    assert (len(problem.labels), len(problem.validation_labels)) == (40, 20)


def test_vectors_are_normalised_by_feature_and_constant_ones_are_zero():
    problem = make_problem(make_vectors(), size=80, validation_size=40, seed=0)
    np.testing.assert_allclose(problem.inputs.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(problem.inputs.std(axis=0), [1] * 5 + [0], atol=1e-5)
    assert not problem.validation_inputs[:, -1].any()
    assert problem.deviation == 1.0


def test_pictures_are_normalised_as_a_whole_and_shrunk_by_blocks():
    dataset = make_pictures()
    problem = make_problem(dataset, size=80, validation_size=40, seed=0, side=4)
    assert problem.inputs.shape == (80, 12)
    assert problem.inputs.mean() == pytest.approx(0, abs=1e-5)
    assert problem.inputs.std() == pytest.approx(1, abs=1e-5)
    pixels = problem.inputs[:, 0] * problem.deviation
    blocks = dataset.inputs[:, :2, :2].mean(axis=(1, 2)) / 255
    spread = np.sort(pixels) - pixels.min()  # the same blocks, whatever the mean and the rows
    assert np.isin(np.round(spread + blocks.min(), 3), np.round(blocks, 3)).mean() > 0.5
    colour = make_problem(make_pictures(shape=(8, 8, 3)), size=80, validation_size=40, seed=0)
    assert colour.inputs.shape == (80, 192)


def test_random_labels_keep_every_class_count_and_the_rest():
    problem = small_problem()
    mixed = randomize_labels(problem, 1.0, seed=0)
    np.testing.assert_array_equal(np.bincount(mixed.labels), np.bincount(problem.labels))
    assert (mixed.labels != problem.labels).mean() > 0.4  # by chance 2 in 3
    assert mixed.inputs is problem.inputs
    half = randomize_labels(problem, 0.5, seed=0)
    assert 0 < (half.labels != problem.labels).sum() <= 15
    np.testing.assert_array_equal(randomize_labels(problem, 0.0, seed=0).labels, problem.labels)


def test_random_inputs_keep_mean_and_variance_by_feature():
    problem = make_problem(make_vectors(n=3000), size=2000, validation_size=9, seed=0)
    drawn = randomize_inputs(problem, 1.0, seed=0)
    np.testing.assert_allclose(drawn.inputs.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(drawn.inputs.std(axis=0), [1] * 5 + [0], atol=0.1)
    half = randomize_inputs(problem, 0.5, seed=0)
    assert (half.inputs != problem.inputs).any(axis=1).sum() == 1000


def test_one_class_each_and_first_examples():
    problem = small_problem()
    alone = give_each_its_class(problem)
    assert alone.num_classes == len(set(alone.labels.tolist())) == 30
    first = take_first(problem, 9)
    assert np.bincount(first.labels).tolist() == [3, 3, 3]
    assert list(make_controls(problem, seed=0)) == ["as given", "random labels", "random inputs"]


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (make_vectors(n=49), "50 examples are needed.*got 49"),
        (make_vectors().with_labels(np.ones(120, np.int64)), "at least 2 classes"),
        (replace(make_vectors(), inputs=np.ones((120, 2), np.float32)), "are the same"),
    ],
)
def test_unsuitable_data_are_an_error(dataset, words):
    with pytest.raises(DataError, match=words):
        make_problem(dataset, size=50, validation_size=50, seed=0)


def test_options_of_problems_out_of_range_are_errors():
    for option in ("size", "validation_size", "side"):
        with pytest.raises(UsageError, match=f"{option} must be at least 1"):
            make_problem(make_vectors(), **{"size": 5, "validation_size": 5, "seed": 0, option: 0})
    for randomize in (randomize_inputs, randomize_labels):
        with pytest.raises(UsageError, match="rate must be"):
            randomize(small_problem(), 1.5, seed=0)


# Stacked training

BRIEF = TrainingSettings(hidden=(7, 5), epochs=4, batch_size=8, learning_rate=0.1)
HELD_BACK = Regularization(dropout=0.2, input_dropout=0.1, input_noise=0.3, weight_decay=0.01)


@pytest.mark.parametrize("regularization", [Regularization(), HELD_BACK])
@pytest.mark.parametrize("stop_at", [None, 0.9])
def test_network_is_the_same_alone_and_beside_others(regularization, stop_at):
    problems = [small_problem(seed=seed) for seed in range(5)]
    problems[2] = randomize_labels(problems[2], 1.0, seed=0)
    training = replace(BRIEF, epochs=12, regularization=regularization, stop_at=stop_at)
    together = train_networks(problems, range(5), training)
    for i in (0, 2, 4):
        alone = train_networks(problems[i : i + 1], [i], training)
        np.testing.assert_array_equal(together.train_accuracy[i], alone.train_accuracy[0])
        np.testing.assert_array_equal(together.epochs_to_fit[i], alone.epochs_to_fit[0])
        for own, other in zip(together.networks, alone.networks, strict=True):
            assert torch.equal(own[i], other[0])


def train_slowly(problem, seed, training):
    """The obvious loop, one network, torch's own SGD."""
    layers = (problem.inputs.shape[1], *training.hidden, problem.num_classes)
    parts = [part[0].clone().requires_grad_() for part in initialize(layers, [seed])]
    decay = training.regularization.weight_decay
    groups = [
        {"params": parts[0::2], "weight_decay": decay},
        {"params": parts[1::2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
    inputs, labels = torch.from_numpy(problem.inputs), torch.from_numpy(problem.labels)
    for epoch in range(training.epochs):
        order = generator(seed, "data-order", epoch).permutation(len(labels))
        for rows in np.array_split(order, -(-len(labels) // training.batch_size)):
            values = inputs[rows]
            for depth in range(0, len(parts), 2):
                values = values @ parts[depth] + parts[depth + 1]
                values = values.relu() if depth < len(parts) - 2 else values
            optimizer.zero_grad()
            F.cross_entropy(values, labels[rows]).backward()
            optimizer.step()
    return parts


def test_training_is_sgd_with_momentum_and_weight_decay():
    problem = small_problem()
    training = replace(BRIEF, regularization=Regularization(weight_decay=0.05))
    record = train_networks([problem, problem], [3, 4], training)
    for stacked, alone in zip(record.networks, train_slowly(problem, 4, training), strict=True):
        torch.testing.assert_close(stacked[1], alone.detach(), rtol=1e-4, atol=1e-5)


def test_accuracies_are_those_of_the_networks_returned():
    problem = small_problem()
    record = train_networks([problem] * 3, range(3), BRIEF)
    own = (predict(record.networks, problem.inputs) == problem.labels).mean(axis=1)
    np.testing.assert_allclose(record.train_accuracy[:, -1], own)
    held_out = predict(record.networks, problem.validation_inputs) == problem.validation_labels
    np.testing.assert_allclose(record.validation_accuracy[:, -1], held_out.mean(axis=1))
    inputs = torch.from_numpy(problem.inputs)
    assert apply_network(record.networks, 1)(inputs).argmax(1).tolist() == list(
        predict(record.networks, problem.inputs)[1]
    )


def test_fitted_networks_stay_as_they_were():
    problem = small_problem()
    training = replace(BRIEF, epochs=60, stop_at=1.0)
    record = train_networks([problem, randomize_labels(problem, 1.0, seed=0)], [0, 0], training)
    fitted = int(record.epochs_to_fit[0])
    assert fitted < 60
    assert record.train_accuracy[0, fitted - 2] < 1
    assert (record.train_accuracy[0, fitted - 1 :] == 1).all()
    assert (np.diff(record.validation_accuracy[0, fitted - 1 :]) == 0).all()
    assert not record.epochs_to_fit[1] < fitted


def test_watch_sees_every_epoch_and_changes_nothing():
    problem, seen = small_problem(), []

    def watch(epoch, networks):
        seen.append((epoch, networks[0].clone()))
        networks[0].zero_()

    watched = train_networks([problem], [0], BRIEF, watch=watch)
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[0][1], initialize((6, 7, 5, 3), [0])[0])
    assert torch.equal(watched.networks[0], train_networks([problem], [0], BRIEF).networks[0])


def test_diverging_training_is_an_error():
    with pytest.raises(NoiseAuditError, match=r"diverged.*lower the learning rate"):
        train_networks(
            [small_problem()],
            [0],
            replace(BRIEF, learning_rate=1e4, regularization=Regularization(weight_decay=1.0)),
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("stop_at", 0.0),
        ("hidden", (0,)),
    ],
)
def test_training_settings_out_of_range_are_errors(name, value):
    with pytest.raises(UsageError, match=name.split("_")[0]):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize("name", ["dropout", "input_dropout", "input_noise", "weight_decay"])
def test_regularization_out_of_range_is_an_error(name):
    with pytest.raises(UsageError, match=name):
        Regularization(**{name: -0.1})


# Loss sensitivity

TINY = UnrolledSettings(hidden=(4,), batch_size=4, learning_rate=0.2, moments=(0, 3, 7))


def loss_after(problem, seed, unrolled, updates, members=slice(None)):
    """Training loss of `members` after so many updates, in float64, by a full retraining."""
    layers = (problem.inputs.shape[1], *unrolled.hidden, problem.num_classes)
    parts = initialize(layers, [seed], dtype=torch.float64)
    inputs = torch.from_numpy(problem.inputs.astype(np.float64))
    labels = torch.from_numpy(problem.labels)
    done, epoch = 0, 0
    while done < updates:
        order = generator(seed, "data-order", epoch).permutation(len(labels))
        for rows in np.array_split(order, -(-len(labels) // unrolled.batch_size)):
            if done == updates:
                break
            parts = [part.detach().requires_grad_() for part in parts]
            loss = F.cross_entropy(compute_logits(parts, inputs[None, rows])[0], labels[rows])
            steps = torch.autograd.grad(loss, parts)
            parts = [
                part - unrolled.learning_rate * step
                for part, step in zip(parts, steps, strict=True)
            ]
            done += 1
        epoch += 1
    with torch.no_grad():
        logits = compute_logits(parts, inputs[None, members])[0]
        return float(F.cross_entropy(logits, labels[members]))


def tiny_problem(seed=0):
    """Inputs in float64, so that a finite difference of 1e-6 survives."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(10, 3))
    labels = np.arange(10) % 2
    return Problem(inputs, labels, inputs[:1], labels[:1], 2)


def differences(problem, seed, updates, members=slice(None), step=1e-6):
    """(n, d) finite differences of the loss by every number of every input."""
    gradient = np.empty(problem.inputs.shape)
    for place in np.ndindex(*gradient.shape):
        ends = []
        for sign in (1, -1):
            moved = problem.inputs.copy()
            moved[place] += sign * step
            ends.append(loss_after(replace(problem, inputs=moved), seed, TINY, updates, members))
        gradient[place] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def test_unrolled_gradient_equals_finite_differences_of_a_full_retraining():
    problem = tiny_problem()
    found = loss_sensitivity([tiny_problem(9), problem], [1, 2], TINY, dtype=torch.float64)
    assert found.by_moment.shape == (2, 3, 10)
    for i, moment in enumerate(TINY.moments):
        expected = np.abs(differences(problem, 2, moment)).sum(axis=1)
        np.testing.assert_allclose(found.by_moment[1, i], expected, rtol=1e-5, atol=1e-8)
        assert found.losses[1, i] == pytest.approx(loss_after(problem, 2, TINY, moment))
    np.testing.assert_allclose(found.mean[1], found.by_moment[1].mean(axis=0))
    # Before any update the example acts on the loss alone; afterwards on the weights too.
    np.testing.assert_allclose(found.direct[1, 0], found.by_moment[1, 0])
    assert not np.allclose(found.direct[1, 2], found.by_moment[1, 2], rtol=0.01)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", np.inf)])
def test_other_norms(norm, order):
    problem = tiny_problem()
    unrolled = replace(TINY, moments=(5,), norm=norm)
    found = loss_sensitivity([problem], [2], unrolled, dtype=torch.float64)
    expected = np.linalg.norm(differences(problem, 2, 5), order, axis=1)
    np.testing.assert_allclose(found.by_moment[0, 0], expected, rtol=1e-5, atol=1e-8)


def test_class_sensitivity_equals_finite_differences():
    problem = tiny_problem()
    unrolled = replace(TINY, moments=(3, 7))
    found = class_sensitivity([problem], [2], unrolled, dtype=torch.float64)[0]
    expected = np.zeros((2, 2))
    for i in range(2):
        for moment in unrolled.moments:
            rows = np.flatnonzero(problem.labels == i)
            norms = np.abs(differences(problem, 2, moment, rows)).sum(axis=1)
            expected[i] += [norms[problem.labels == j].mean() / 2 for j in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    part = class_sensitivity([problem], [2], unrolled, classes=[1], dtype=torch.float64)[0]
    np.testing.assert_allclose(part, expected[1:, 1:], rtol=1e-5)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30).filter(any))
@settings(max_examples=50, deadline=None)
def test_gini_equals_the_double_sum(values):
    array = np.array(values) / max(values)  # differences of subnormal numbers would be lost
    expected = np.abs(array[:, None] - array).sum() / (2 * len(array) ** 2 * array.mean())
    assert gini(values) == pytest.approx(expected, abs=1e-9)


def test_gini_and_off_diagonal_share_by_hand():
    assert gini([2.0, 2.0, 2.0]) == 0
    assert gini([0.0, 0.0, 0.0, 1.0]) == pytest.approx(0.75)
    assert off_diagonal_share([[3, 1], [2, 4]]) == pytest.approx(0.3)
    for bad in ([], [[1.0]], [0.0], [-1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(DataError, match="values must be"):
            gini(bad)
    for bad in ([[1.0, 2.0]], [[0.0]], [[1.0, -1.0], [0.0, 1.0]]):
        with pytest.raises(DataError, match="matrix must"):
            off_diagonal_share(bad)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm", "l3"),
        ("batch_size", 0),
        ("learning_rate", -1.0),
        ("moments", ()),
        ("moments", (3, 3)),
        ("moments", (-1, 2)),
    ],
)
def test_unrolled_settings_out_of_range_are_errors(name, value):
    with pytest.raises(UsageError, match=name):
        UnrolledSettings(**{name: value})


# Measures and findings


def test_spread_of_equal_examples_is_binomial_and_of_fixed_ones_the_number_of_runs():
    random = np.random.default_rng(0)
    drawn = random.binomial(100, 0.3, 20_000) / 100
    assert spread_over_binomial(drawn, 100) == pytest.approx(1, abs=0.05)  # 0.01 here
    assert spread_over_binomial(np.array([0.0, 1.0] * 50), 100) == pytest.approx(100)
    assert np.isnan(spread_over_binomial(np.zeros(5), 100))


def test_capacity_is_read_between_widths():
    # 99% of 0.9 is 0.891, halfway from 0.882 at 8 to 0.9 at 16: 2 to the power 3.5.
    needed = capacity_needed((4, 8, 16, 32), np.array([0.5, 0.882, 0.9, 0.89]))
    assert needed == pytest.approx(2**3.5)
    assert capacity_needed((4, 8), np.array([0.9, 0.9])) == 4


def test_lowest_fit_is_read_along_the_line():
    fits, accuracies = np.array([1.0, 0.6, 0.2]), np.array([0.9, 0.9, 0.7])
    assert lowest_fit(fits, accuracies, 0.8) == pytest.approx(0.4)
    assert lowest_fit(fits, accuracies, 0.9) == pytest.approx(0.6)
    assert lowest_fit(fits, accuracies, 0.5) == pytest.approx(0.2)


def test_effect_interval_and_p_value_are_those_of_a_t_test():
    values = [0.1, 0.3, 0.25, 0.2, 0.05]
    finding = judge_effect("x", "by {effect} ({interval})", values, null=0.01)
    expected = stats.ttest_1samp(values, 0.01, alternative="greater")
    low, high = expected.confidence_interval(0.9)[0], None
    assert finding.effect == pytest.approx(0.18)
    assert finding.p_value == pytest.approx(expected.pvalue)
    # A one-sided 90% bound is not the two-sided 95% end: compare with the two-sided test.
    both = stats.ttest_1samp(values, 0.01).confidence_interval(0.95)
    assert finding.interval == pytest.approx((both.low, both.high))
    assert low > both.low
    assert high is None
    assert finding.reproduced
    assert finding.statement.startswith("by 0.18 (95% interval 0.0")
    below = judge_effect("x", "", values, direction="below")
    assert below.p_value > 0.99
    assert not below.reproduced


def test_ratios_are_tested_on_a_logarithmic_scale():
    finding = judge_effect("x", "", [2.0, 8.0, 4.0], null=1.0, is_ratio=True)
    assert finding.effect == pytest.approx(4)
    assert finding.interval[0] * finding.interval[1] == pytest.approx(16)
    expected = stats.ttest_1samp(np.log([2, 8, 4]), 0, alternative="greater").pvalue
    assert finding.p_value == pytest.approx(expected)


def test_one_seed_equal_seeds_and_missing_seeds():
    one = judge_effect("x", "{interval}", [0.5])
    assert (one.effect, one.interval, one.p_value, one.reproduced) == (0.5, None, None, False)
    assert one.statement == "one seed"
    equal = judge_effect("x", "", [0.5] * 5)
    assert equal.p_value == 0.5**5
    assert judge_effect("x", "", [0.0] * 5).p_value == 1
    some = judge_effect("x", "", [1.0, float("nan"), 2.0])
    assert some.per_seed == (1.0, None, 2.0)
    assert some.effect == 1.5
    none = judge_effect("x", "{effect}", [float("nan")])
    assert (none.effect, none.statement) == (None, "not measurable")


def test_series_have_means_and_intervals():
    line = measure_series("a", (1, 2), [[1.0, np.nan], [3.0, np.nan]])
    assert line.mean == (2.0, None)
    assert line.low[0] < 2 < line.high[0]
    assert measure_series("a", (1,), [[1.0]]).low == (None,)


def test_radius_is_the_first_doubling_that_is_wanted():
    problem = small_problem()
    record = train_networks([problem], [0], replace(BRIEF, epochs=20))
    common = {"max_iterations": 5, "seed": 0}
    small, large = (
        calibrate_radius(record.networks, problem, wanted=wanted, **common)
        for wanted in (0.05, 0.5)
    )
    assert small < large
    for radius in (small, large):
        assert np.log2(radius / PUBLISHED_RADIUS) == pytest.approx(
            round(np.log2(radius / PUBLISHED_RADIUS))
        )


# The profile


@pytest.mark.parametrize("make", [make_vectors, make_pictures])
def test_smoke_profile_is_complete_and_survives_json(make):
    seen = []
    profile = profile_memorization(make(), preset="smoke", seeds=(0, 1), on_result=seen.append)
    assert tuple(analysis.name for analysis in profile.analyses) == ANALYSES
    assert tuple(seen) == profile.analyses
    text = json.dumps(profile.to_dict(), allow_nan=False)
    assert MemorizationProfile.from_dict(json.loads(text)) == profile
    for analysis in profile.analyses:
        assert analysis.title
        names = [finding.name for finding in analysis.findings]
        assert len(set(names)) == len(names)
        for finding in analysis.findings:
            assert finding.statement
            assert "{" not in finding.statement
            assert len(finding.per_seed) == 2
        assert analysis.curves or analysis.matrices
        for curve in analysis.curves:
            for line in curve.series:
                assert len(line.x) == len(line.mean) == len(line.low) == len(line.high) > 0


@pytest.mark.parametrize("name", ANALYSES)
def test_analysis_is_a_function_of_its_arguments(name):
    dataset, smoke = make_vectors(), choose_preset("smoke")
    first, again = (replace(analyze(name, dataset, smoke, (3,)), seconds=0) for _ in range(2))
    assert first == again
    both = analyze(name, dataset, smoke, (2, 3))
    for alone, beside in zip(first.findings, both.findings, strict=True):
        assert alone.per_seed[0] == beside.per_seed[1]


def test_few_examples_and_absent_classes_are_enough():
    dataset = make_vectors(n=50)
    dataset = replace(dataset, class_names=(*dataset.class_names, "absent"))
    assert len(profile_memorization(dataset, preset="smoke", seeds=(0,)).analyses) == 8


def test_digits_are_learned_and_random_labels_are_not():
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    names = tuple(map(str, range(10)))
    dataset = LabeledDataset(inputs.astype(np.float32), labels.astype(np.int64), names)
    problem = make_problem(dataset, size=300, validation_size=1, seed=0)
    problems = list(make_controls(problem, seed=0).values())
    found = loss_sensitivity(problems, [0, 0, 0], UnrolledSettings(moments=(40, 80)))
    real, labels_at_random, inputs_at_random = (gini(values) for values in found.mean)
    assert real > max(labels_at_random, inputs_at_random) + 0.2  # 0.53 against 0.22 and 0.19


def test_presets_are_json_and_differ():
    texts = {json.dumps(choose_preset(name).to_dict()) for name in PRESETS}
    assert len(texts) == 3


def test_settings_of_analyses_out_of_range_are_errors():
    with pytest.raises(UsageError, match="shares must have 0 and 1"):
        CriticalSettings(shares=(0.0, 0.5))
    with pytest.raises(UsageError, match="epochs must end with at least 1"):
        CriticalSettings(epochs=(0,))
    with pytest.raises(UsageError, match="need dropout and weight_decay"):
        RegularizersSettings(strengths=(("dropout", (0.5,)),))


def test_bad_arguments_are_errors():
    dataset = make_vectors()
    with pytest.raises(UsageError, match=r"unknown analysis 'capacities'.*'capacity'"):
        profile_memorization(dataset, preset="smoke", analyses=["capacities"])
    with pytest.raises(UsageError, match="unknown preset"):
        profile_memorization(dataset, preset="slow")
    with pytest.raises(UsageError, match="seeds must be different"):
        profile_memorization(dataset, preset="smoke", seeds=(1, 1))
    with pytest.raises(UsageError, match="unknown device"):
        profile_memorization(dataset, preset="smoke", device="abacus")
    with pytest.raises(DataError, match="50 examples"):
        profile_memorization(make_vectors(n=30), preset="smoke")
    for stored in (Analysis, MemorizationProfile):
        with pytest.raises(DataError, match="no stored memorisation"):
            stored.from_dict({"name": "x"})
