"""A reason per flag, from arrays written by hand."""

import numpy as np
import pytest

from noiseaudit.errors import DataError, UnknownNameError
from noiseaudit.flag_reasons import KINDS, explain_flags

NAMES = ("cat", "dog", "owl")
USUAL = 30  # of each class, none flagged


def ordinary():
    """Three classes in three directions, predicted as they are labelled with 0.70 to 0.99."""
    labels = np.repeat(np.arange(3), USUAL)
    sure = np.tile(np.linspace(0.7, 0.99, USUAL), 3)
    probs = np.repeat((1 - sure)[:, None] / 2, 3, axis=1)
    probs[np.arange(90), labels] = sure
    turn = np.tile(np.linspace(-0.1, 0.1, USUAL), 3)
    vectors = np.zeros((90, 4))
    vectors[np.arange(90), labels] = np.cos(turn)
    vectors[:, 3] = np.sin(turn)
    return labels, probs, vectors


def explained(label, prob, vector=(1, 0, 0, 0), *, more=(), history=None, arrays=True, **options):
    """The kind of one flagged example, the last but `more` other flagged ones just like it."""
    labels, probs, vectors = ordinary()
    added = [(label, prob, vector), *more]
    labels = np.append(labels, [item[0] for item in added])
    probs = np.vstack([probs, [item[1] for item in added]]).astype(np.float32)
    vectors = np.vstack([vectors, [item[2] for item in added]]).astype(np.float32)
    flagged = np.arange(len(labels)) >= 90
    if history is not None:
        options["correct_history"] = np.ones((len(history), len(labels)), np.int8)
        options["correct_history"][:, 90:] = np.array(history)[:, None]
    if arrays:
        options["vectors"] = vectors
    return explain_flags(labels, probs, flagged, **options)


FAR = (1, 1, 1, 0)  # as far from every class
RARE = (1.0, 0.0, 0.0, -2.0)


def test_another_class_preferred_as_ordinary_examples_of_it_are_is_mislabelled():
    found = explained(0, (0.05, 0.9, 0.05), (0, 1, 0, 0), history=[0, 0, 0, 1])
    assert found.kind[90] == "mislabelled"
    told = found.sentence(90, NAMES, 0)
    assert told == (
        "mislabelled: dog (90%) rather than cat (5%); predicted as cat in 1 of 4 epochs"
    )


def test_a_class_not_five_times_as_likely_or_less_than_usual_leaves_it_ambiguous():
    for prob in [
        (0.16, 0.74, 0.1), (0.1, 0.6, 0.3), (0.45, 0.45, 0.1), (0.6, 0.1, 0.1), (0.74, 0.16, 0.1),
    ]:  # fmt: skip
        found = explained(0, prob)
        assert found.kind[90] == "ambiguous", prob
    assert found.sentence(90, NAMES, 0) == "ambiguous: neither cat (74%) nor dog (16%) is clear"


def test_a_flag_whose_own_class_is_clear_and_that_lies_among_it_has_no_kind():
    found = explained(0, (0.9, 0.05, 0.05))
    assert found.kind[90] == ""
    assert found.sentence(90, NAMES, 0) == ""
    assert found.counts() == {}


def test_what_is_far_with_other_labels_around_it_is_out_of_distribution():
    prob = (0.3, 0.4, 0.3)
    found = explained(0, prob, FAR, history=[0, 1, 0, 0])
    assert found.kind[90] == "out_of_distribution"
    assert found.distance[90] > 10
    assert found.sentence(90, NAMES, 0).startswith("unlike every class: ")
    assert explained(0, prob, FAR, arrays=False).kind[90] == "ambiguous"
    assert explained(0, (0.9, 0.05, 0.05), FAR, history=[0, 0, 0, 0]).kind[90] == ""


def test_several_strangers_beside_each_other_are_still_out_of_distribution():
    prob, labels = (0.3, 0.4, 0.3), [1, 2, 1, 2, 0, 1, 2, 1, 2, 1, 2]
    found = explained(0, prob, FAR, more=[(label, prob, FAR) for label in labels])
    assert found.kind[90] == "out_of_distribution"


def rare_mode(history, **options):
    prob = (0.4, 0.3, 0.3)
    others = [(0, prob, (1.0, 0.0, 0.0, -2.0 - step / 10)) for step in range(1, 5)]
    return explained(0, prob, RARE, more=others, history=history, **options)


def test_what_is_far_but_among_its_own_label_in_the_end_is_atypical():
    found = rare_mode([0, 0, 0, 0, 0, 0, 1, 1])
    assert set(found.kind[90:]) == {"atypical"}
    told = found.sentence(90, NAMES, 0)
    assert told.startswith("rare or atypical: ")
    assert told.endswith("of its neighbours are cat too; predicted as cat in 2 of 8 epochs")
    assert rare_mode([0, 0, 1, 1, 1, 1, 0, 0]).kind[90] == "out_of_distribution"


def test_features_of_the_last_epoch_say_which_label_it_has_in_the_end():
    history = [0, 0, 0, 1]
    places = np.eye(8, dtype=np.float32)
    own = np.repeat([0, 1, 2, 0], [USUAL, USUAL, USUAL, 5])
    assert rare_mode(history, features=places[own]).kind[90] == "atypical"
    among_owls = np.repeat([0, 1, 2, 2], [USUAL, USUAL, USUAL, 5])
    features = places[among_owls]
    features[90:] += places[3:] / 2  # nearer to owls than to each other
    found = rare_mode(history, features=features)
    assert found.alike[90] == 0
    assert found.kind[90] == "out_of_distribution"


def test_what_only_features_call_its_own_is_ambiguous():
    history = [0, 0, 0, 1]
    features = np.eye(3, dtype=np.float32)[np.append(np.repeat(np.arange(3), USUAL), 0)]
    found = explained(0, (0.3, 0.4, 0.3), (1, 1.2, 1, 0), history=history, features=features)
    assert found.alike[90] == 1
    assert found.kind[90] == "ambiguous"


def test_a_confirmed_copy_is_that_flagged_or_not_and_whatever_else_is_said():
    confirmed = np.zeros(91, bool)
    confirmed[[3, 90]] = True
    found = explained(0, (0.05, 0.9, 0.05), confirmed=confirmed)
    assert np.flatnonzero(found.kind == "conflicting_duplicate").tolist() == [3, 90]
    assert found.counts() == {"conflicting_duplicate": 2}
    assert found.sentence(3, NAMES, 0) == "a copy of it has another label"


def test_copies_set_no_limits():
    labels, probs, _ = ordinary()
    labels, probs = np.append(labels, 0), np.vstack([probs, [0.05, 0.6, 0.35]])
    copies = np.isin(np.arange(91), range(30, 35))
    probs[copies] = (0.5, 0.2, 0.3)
    flagged = np.arange(91) >= 90
    for confirmed, kind in [(copies, "ambiguous"), (None, "mislabelled")]:
        assert explain_flags(labels, probs, flagged, confirmed=confirmed).kind[90] == kind


def test_a_label_more_likely_right_than_wrong_is_not_called_mislabelled():
    p_error = np.zeros(91)
    for p, kind in [(0.5, "mislabelled"), (0.4, "ambiguous")]:
        p_error[90] = p
        assert explained(0, (0.05, 0.9, 0.05), p_error=p_error).kind[90] == kind


def test_limits_are_those_of_the_class_preferred():
    """Dogs are predicted with 0.35 to 0.495, owls with 0.7 and more: 0.5 is enough for a dog."""
    labels, probs, _ = ordinary()
    dogs = labels == 1
    probs[dogs] = np.stack(
        [probs[dogs, 1] / 20, probs[dogs, 1] / 2, 1 - probs[dogs, 1] * 0.55], axis=1
    )
    labels = np.append(labels, [0, 0])
    probs = np.vstack([probs, [0.05, 0.5, 0.45], [0.05, 0.45, 0.5]])
    found = explain_flags(labels, probs, np.arange(92) >= 90)
    assert found.kind[90:].tolist() == ["mislabelled", "ambiguous"]


def test_a_class_of_few_is_held_to_the_limits_of_all_and_of_too_few_nothing_is_said():
    labels, probs, vectors = ordinary()
    labels, probs = np.append(labels, 0), np.vstack([probs, [0.05, 0.9, 0.05]])
    flagged = np.arange(91) >= 90
    few = np.flatnonzero((labels != 1) | (np.arange(91) % 10 == 0))
    probs[labels == 1] = (0.005, 0.99, 0.005)
    for best, kind in [(0.8, "mislabelled"), (0.6, "ambiguous")]:
        probs[90] = (0.05, best, 0.95 - best)
        assert explain_flags(labels[few], probs[few], flagged[few]).kind[-1] == kind
    fewer = np.r_[0:19, 90]
    assert explain_flags(labels[fewer], probs[fewer], flagged[fewer]).counts() == {}
    every = np.ones(91, bool)
    vectors = np.vstack([vectors, vectors[:1]]).astype(np.float32)
    assert explain_flags(labels, probs, every, vectors=vectors).counts() == {}


def test_nothing_flagged_and_no_example_are_no_error():
    labels, probs, vectors = ordinary()
    found = explain_flags(labels, probs, np.zeros(90, bool), vectors=vectors.astype(np.float32))
    assert set(found.kind) == {""}
    none = np.zeros(0, bool)
    found = explain_flags(labels[:0], probs[:0], none, vectors=vectors[:0].astype(np.float32))
    assert found.kind.shape == (0,)


def test_identical_vectors_leave_nothing_far():
    labels, probs, _ = ordinary()
    labels, probs = np.append(labels, 0), np.vstack([probs, [0.3, 0.4, 0.3]])
    for metric in ("cosine", "euclidean"):
        same = np.zeros((91, 4), np.float32)
        found = explain_flags(labels, probs, np.arange(91) >= 90, vectors=same, metric=metric)
        assert found.kind[90] == "ambiguous"


def test_how_far_is_far_depends_on_the_class_it_is_most_likely():
    labels, probs, vectors = ordinary()
    vectors[labels == 1, 3] *= 10  # dogs differ more
    vector = (0, 1, 0, 0.5)
    labels, vectors = np.append(labels, 2), np.vstack([vectors, vector]).astype(np.float32)
    for prob, kind in [((0.5, 0.3, 0.2), "out_of_distribution"), ((0.2, 0.5, 0.3), "ambiguous")]:
        found = explain_flags(
            labels, np.vstack([probs, prob]), np.arange(91) >= 90, vectors=vectors
        )
        assert found.kind[90] == kind


def test_euclidean_distance_is_of_standardised_columns():
    """A column a million times larger than the one that tells the example apart."""
    random = np.random.default_rng(0)
    labels, probs, _ = ordinary()
    labels, probs = np.append(labels, 0), np.vstack([probs, [0.3, 0.4, 0.3]])
    vectors = random.standard_normal((91, 2)).astype(np.float32) + 100
    vectors[90] = (100, 120)
    vectors[:, 0] *= 1e6
    flagged = np.arange(91) >= 90
    kinds = [
        explain_flags(labels, probs, flagged, vectors=vectors, metric=metric).kind[90]
        for metric in ("euclidean", "cosine")
    ]
    assert kinds == ["out_of_distribution", "ambiguous"]


def test_kinds_do_not_depend_on_the_order_of_examples():
    random = np.random.default_rng(0)
    labels, probs, vectors = ordinary()
    labels = random.integers(0, 3, 90)
    history = random.integers(0, 2, (4, 90)).astype(np.int8)
    vectors = random.standard_normal((90, 4)).astype(np.float32)
    probs = random.dirichlet(np.ones(3), 90)
    flagged = random.random(90) < 0.5
    order = random.permutation(90)
    kinds = explain_flags(
        labels, probs, flagged, correct_history=history, vectors=vectors, features=vectors
    ).kind
    again = explain_flags(
        labels[order], probs[order], flagged[order], correct_history=history[:, order],
        vectors=vectors[order], features=vectors[order],
    ).kind  # fmt: skip
    assert again.tolist() == kinds[order].tolist()
    assert len(set(kinds)) > 3
    assert set(kinds) <= set(KINDS)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"labels": np.full(90, 3)}, r"labels must be in \[0, 3\)"),
        ({"pred_probs": np.ones(90)}, "two classes"),
        ({"pred_probs": np.ones((90, 1))}, "two classes"),
        ({"pred_probs": np.full((90, 3), np.nan)}, "pred_probs must be finite"),
        ({"flagged": np.zeros(90, np.int64)}, "flagged must be a mask"),
        ({"flagged": np.zeros(89, bool)}, "flagged has 89"),
        ({"confirmed": np.zeros(89, bool)}, "confirmed has 89"),
        ({"confirmed": np.zeros(90)}, "confirmed must be a mask"),
        ({"correct_history": np.zeros((90, 4), np.int8)}, r"\(e, 90\)"),
        ({"vectors": np.zeros((89, 4), np.float32)}, "vectors has 89"),
        ({"vectors": np.full((90, 4), np.inf, np.float32)}, "vectors must be finite"),
        ({"vectors": np.zeros(90, np.float32)}, r"vectors must have shape \(n, d\)"),
        ({"features": np.zeros((90, 0), np.float32)}, r"features must have shape \(n, d\)"),
        ({"features": np.zeros((89, 4), np.float32)}, "features has 89"),
        ({"features": np.full((90, 4), np.nan, np.float32)}, "features must be finite"),
        ({"p_error": np.full(90, 1.5)}, r"p_error must be in \[0, 1\].*90 rows"),
        ({"p_error": np.full(89, 0.5)}, "p_error has 89"),
    ],
)
def test_bad_input_is_refused(changed, told):
    labels, probs, vectors = ordinary()
    flagged = np.arange(90) < 3
    probs[:3] = 1 / 3
    given = {"labels": labels, "pred_probs": probs, "flagged": flagged, "vectors": vectors}
    with pytest.raises(DataError, match=told):
        explain_flags(**{**given, **changed})
    with pytest.raises(UnknownNameError, match="did you mean 'cosine'"):
        explain_flags(labels, probs, flagged, metric="cosin")
