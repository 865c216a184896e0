"""Hand cases for each detector, and a contract that every registered one must meet."""

import dataclasses
import itertools

import numpy as np
import pytest

from noiseaudit.detector import Detector, create_detectors, detector_types, training_statistics
from noiseaudit.detectors.curvature import Curvature
from noiseaudit.detectors.forgetting import FirstLearnedEpoch, ForgettingEvents
from noiseaudit.detectors.loss_sensitivity import LossSensitivity
from noiseaudit.errors import DataError, UnknownNameError, UsageError
from noiseaudit.evidence import Evidence
from tests._oracles import first_learned, forgetting

ALL = sorted(detector_types())
ISSUE_NAMES = {
    "cumulative_accuracy", "cumulative_confidence", "cumulative_max_confidence",
    "cumulative_entropy", "cumulative_loss", "forgetting_events", "first_learned_epoch",
    "area_under_margin", "el2n", "random",
}  # fmt: skip

CSCORES = ["soft_scores", "scores", "margins", "in_sample_scores", "in_sample_soft_scores"]


def evidence(n=20, epochs=6, seed=0, **changes):
    random = np.random.default_rng(seed)
    values = {
        "ids": np.arange(n) * 3 + 1,
        "labels": random.integers(0, 4, n),
        "num_classes": 4,
        "statistics": {
            name: random.random(n)
            for name in [
                "correct",
                Curvature().statistic,
                LossSensitivity().statistic,
                *(item.name for item in training_statistics()),
            ]
        },
        "correct_history": random.integers(0, 2, (epochs, n)).astype(np.int8),
        "pred_probs": random.dirichlet(np.ones(4), n).astype(np.float32),
        "cscores": {name: random.random(n) for name in CSCORES},
        "inputs": random.random((n, 5)).astype(np.float32),
        "embeddings": random.normal(size=(n, 6)).astype(np.float32),
        "snapshots": {
            ("features", None): random.normal(size=(n, 6)).astype(np.float32),
            ("logits", None): random.normal(size=(n, 4)).astype(np.float32),
        },
    }
    return Evidence(**{**values, **changes})


def one(name, **options):
    return detector_types()[name](**options)


def test_the_contracts_names_are_registered():
    assert set(ALL) >= ISSUE_NAMES


@pytest.mark.parametrize(
    ("name", "statistic", "values", "suspicion"),
    [
        ("cumulative_accuracy", "correct", [1.0, 0.25, 0.0], [0.0, 0.75, 1.0]),
        ("cumulative_confidence", "confidence", [0.9, 0.5, 0.1], [0.1, 0.5, 0.9]),
        ("cumulative_max_confidence", "max_confidence", [1.0, 0.5, 0.25], [0.0, 0.5, 0.75]),
        ("cumulative_entropy", "entropy", [0.0, 0.7, 1.4], [0.0, 0.7, 1.4]),
        ("cumulative_loss", "loss", [0.1, 2.3, 7.0], [0.1, 2.3, 7.0]),
        ("area_under_margin", "logit_margin", [4.0, 0.0, -2.5], [-4.0, 0.0, 2.5]),
        ("el2n", "error_norm", [0.0, 1.0, 1.4], [0.0, 1.0, 1.4]),
    ],
)
def test_suspicion_by_hand(name, statistic, values, suspicion):
    given = Evidence(np.arange(3), np.zeros(3, int), 2, statistics={statistic: np.array(values)})
    ranking = one(name).rank(given)
    np.testing.assert_allclose(ranking.scores, suspicion)
    assert ranking.top(3).tolist() == [2, 1, 0]


def test_inconfidence_by_hand():
    statistics = {
        "last_confidence": np.array([0.9, 0.2]), "last_max_confidence": np.array([0.9, 0.7])
    }  # fmt: skip
    given = Evidence(np.arange(2), np.zeros(2, int), 3, statistics=statistics)
    np.testing.assert_allclose(one("inconfidence").rank(given).scores, [0.1, 0.8])
    np.testing.assert_allclose(one("inconfidence", label_free=True).rank(given).scores, [0.1, 0.3])


PROBS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]], np.float32)


def test_cleanlabs_scores_by_hand():
    given = Evidence(np.arange(3), np.array([0, 0, 2]), 3, pred_probs=PROBS)
    np.testing.assert_allclose(
        one("self_confidence").rank(given).scores, [0.3, 0.9, 0.6], rtol=1e-6
    )
    # margins p_y - max other: 0.5, -0.5, 0.1 -> 1 - (margin + 1) / 2
    np.testing.assert_allclose(
        one("normalized_margin").rank(given).scores, [0.25, 0.75, 0.45], rtol=1e-6
    )


def noisy_probs(n=300, seed=0):
    random = np.random.default_rng(seed)
    clean = np.arange(n) % 3
    labels = np.where(random.random(n) < 0.2, (clean + 1) % 3, clean)
    sure = 4 * np.eye(3)[clean] + random.normal(0, 1, (n, 3))
    probs = np.exp(sure) / np.exp(sure).sum(axis=1, keepdims=True)
    return Evidence(np.arange(n), labels, 3, pred_probs=probs.astype(np.float32))


def test_confident_learning_puts_what_cleanlab_flags_first_and_ranks_the_rest():
    from cleanlab.filter import find_label_issues

    given = noisy_probs()
    flagged = find_label_issues(given.labels, given.pred_probs)
    ranking = one("confident_learning").rank(given)
    assert 0 < flagged.sum() < 300
    assert flagged[ranking.order][: flagged.sum()].all()
    rest = ~flagged
    np.testing.assert_allclose(
        ranking.scores[rest], one("self_confidence").rank(given).scores[rest]
    )
    truncated = one("confident_learning", truncated=True).rank(given)
    assert (truncated.scores[rest] == 0).all()
    np.testing.assert_allclose(truncated.scores[flagged], ranking.scores[flagged])


def history(*rows):
    correct = np.array(rows, dtype=np.int8).T
    n = correct.shape[1]
    return Evidence(np.arange(n), np.zeros(n, int), 2, correct_history=correct)


def test_forgetting_by_hand():
    given = history([1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1], [1, -1, 0, 1])
    # never forgotten; twice; never learned -> 4 epochs; learned at last; once, over a gap
    assert ForgettingEvents().rank(given).scores.tolist() == [0, 2, 4, 0, 1]


def test_first_learned_by_hand():
    given = history([1, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, -1, 1, 0])
    assert FirstLearnedEpoch().rank(given).scores.tolist() == [1, 3, 5, 3]
    assert FirstLearnedEpoch(consecutive=2).rank(given).scores.tolist() == [3, 3, 5, 5]
    with pytest.raises(UsageError, match="at least 1; got 0"):
        FirstLearnedEpoch(consecutive=0)


def test_histories_equal_the_slow_loop_on_every_history_of_five_epochs():
    rows = list(itertools.product([0, 1], repeat=5))
    given = history(*rows)
    assert ForgettingEvents().rank(given).scores.tolist() == [forgetting(row) for row in rows]
    for consecutive in (1, 2, 3):
        ranking = FirstLearnedEpoch(consecutive=consecutive).rank(given)
        assert ranking.scores.tolist() == [first_learned(row, consecutive) for row in rows]


def test_never_learned_ranks_above_the_most_forgotten():
    most = [1, 0] * 5
    ranking = ForgettingEvents().rank(history(most, [0] * 10))
    assert ranking.top(1).tolist() == [1]


def test_random_depends_on_the_seed_alone():
    first = one("random").rank(evidence(seed=0)).scores
    assert np.array_equal(first, one("random").rank(evidence(seed=1)).scores)
    assert not np.array_equal(first, one("random").rank(evidence()).scores[::-1])
    other = Evidence(np.arange(20), np.zeros(20, int), 2, seed=1)
    assert not np.array_equal(first, one("random").rank(other).scores)


# --- the contract of every registered detector ---


@pytest.mark.parametrize("name", ALL)
def test_describes_itself(name):
    kind = detector_types()[name]
    assert kind.name == name
    for text in (kind.summary, kind.cost, kind.source):
        assert text
        assert text == text.strip()
    assert "higher = more" in " ".join((kind.__doc__ or "").split())
    assert "Source:" in kind.__doc__
    assert "Cost:" in kind.__doc__
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert isinstance(kind(), Detector)


@pytest.mark.parametrize("name", ALL)
def test_gives_one_finite_score_per_id_and_changes_nothing(name):
    given = evidence()
    everything = {**given.statistics, **given.snapshots, "inputs": given.inputs}
    everything["embeddings"] = given.embeddings
    copies = {key: values.copy() for key, values in everything.items()}
    ranking = one(name).rank(given)
    assert ranking.detector == name
    assert ranking.ids.tolist() == given.ids.tolist()
    assert ranking.scores.dtype == np.float64
    assert np.isfinite(ranking.scores).all()
    for key, values in copies.items():
        assert np.array_equal(values, everything[key])


@pytest.mark.parametrize("name", ALL)
def test_is_pure(name):
    first, second = (one(name).rank(evidence()).scores for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("name", ALL)
def test_order_of_rows_does_not_matter(name):
    given = evidence()
    shuffled = np.random.default_rng(1).permutation(len(given.ids))
    moved = evidence(
        ids=given.ids[shuffled],
        labels=given.labels[shuffled],
        statistics={key: values[shuffled] for key, values in given.statistics.items()},
        correct_history=given.correct_history[:, shuffled],
        pred_probs=given.pred_probs[shuffled],
        cscores={key: values[shuffled] for key, values in given.cscores.items()},
        inputs=given.inputs[shuffled],
        embeddings=given.embeddings[shuffled],
        snapshots={key: values[shuffled] for key, values in given.snapshots.items()},
    )
    assert one(name).rank(moved).top(20).tolist() == one(name).rank(given).top(20).tolist()


@pytest.mark.parametrize("name", ALL)
def test_takes_read_only_arrays(name):
    given = evidence()
    arrays = [*given.statistics.values(), *given.cscores.values(), given.pred_probs]
    arrays += [*given.snapshots.values(), given.inputs, given.embeddings]
    for values in (*arrays, given.correct_history, given.labels, given.ids):
        values.flags.writeable = False
    assert len(one(name).rank(given)) == 20


@pytest.mark.parametrize("name", [name for name in ALL if detector_types()[name].needs])
def test_missing_evidence_is_an_error(name):
    bare = Evidence(np.arange(3), np.zeros(3, int), 2)
    with pytest.raises(DataError, match="recorded"):
        one(name).rank(bare)


@pytest.mark.parametrize("name", [n for n in ALL if "training" in detector_types()[n].needs])
def test_unobserved_examples_are_an_error(name):
    given = evidence()
    unseen = evidence(
        statistics={key: np.where(np.arange(20) == 4, np.nan, v) for key, v in
                    given.statistics.items()},
        correct_history=np.where(np.arange(20) == 4, -1, given.correct_history).astype(np.int8),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"1 examples were never observed.*first sample_id 13"):
        one(name).rank(unseen)


@pytest.mark.parametrize("name", ALL)
def test_ranks_one_and_two_examples(name):
    # cleanlab wants two classes, and so does an audit: one example is for the others.
    for n in (2,) if "pred_probs" in detector_types()[name].needs else (1, 2):
        assert len(one(name).rank(evidence(n=n, labels=np.arange(n)))) == n


def test_unknown_names_suggest_the_nearest_and_doubles_count_once():
    with pytest.raises(UnknownNameError, match="did you mean 'forgetting_events'"):
        create_detectors(["forgeting_events"])
    assert [item.name for item in create_detectors(["el2n", "random", "el2n"])] == [
        "el2n", "random",
    ]  # fmt: skip
