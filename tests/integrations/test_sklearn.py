import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from noiseaudit.errors import DataError, UnknownNameError, UsageError
from noiseaudit.integrations.sklearn import LabelNoiseDetector

SNIPPET = """
from noiseaudit.integrations.sklearn import LabelNoiseDetector

audit = make_pipeline(StandardScaler(), LabelNoiseDetector()).fit(X, y)[-1]
audit.is_label_issue_  # (n,) bool
audit.suggested_labels_  # (n,), in the values of y
audit.ranking_.top(100)  # rows of X, most suspicious first
"""


def blobs(n=240, wrong=24, seed=0):
    random = np.random.default_rng(seed)
    names = np.array(["ant", "bee", "cat"])
    clean = random.integers(0, 3, n)
    X = random.normal(0, 0.3, (n, 4)) + 3 * np.eye(4)[clean]
    given = clean.copy()
    given[:wrong] = (clean[:wrong] + 1) % 3
    return X, names[given], names[clean]


def test_scikit_learns_own_checks():
    results = check_estimator(LabelNoiseDetector(epochs=1), on_skip=None)
    assert len(results) > 35
    left_out = [item["check_name"] for item in results if item["status"] != "passed"]
    assert left_out in ([], ["check_array_api_input"])  # that one only where SCIPY_ARRAY_API is set


def test_the_snippet_finds_planted_labels_given_as_texts():
    X, y, clean = blobs()
    names = {"X": X, "y": y, "make_pipeline": make_pipeline, "StandardScaler": StandardScaler}
    exec(SNIPPET, names)
    audit = names["audit"]
    wrong, issues = set(range(24)), set(np.flatnonzero(audit.is_label_issue_))
    assert len(wrong & set(audit.ranking_.top(24))) >= 22  # measured: 24 of 24, and no false alarm
    assert len(wrong & issues) >= 22
    assert len(issues - wrong) <= 2
    assert (audit.suggested_labels_ == clean).mean() > 0.97
    assert audit.classes_.tolist() == ["ant", "bee", "cat"]
    assert np.array_equal(audit.suspicion_, audit.ranking_.scores)


def test_clone_with_another_detector_ranks_by_it():
    X, y, _ = blobs(60, 6)
    detector = clone(LabelNoiseDetector(epochs=4)).set_params(detector="knn_disagreement")
    assert detector.fit(X, y).ranking_.detector == "knn_disagreement"
    assert detector.get_params()["epochs"] == 4


def test_pictures():
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (20, 8, 8), dtype=np.uint8)
    fitted = LabelNoiseDetector(epochs=1).fit(pictures, np.arange(20) % 2)
    assert fitted.suspicion_.shape == (20,)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"detector": "cumulative_los"}, UnknownNameError, "did you mean 'cumulative_loss'"),
        ({"model": "cnn"}, UsageError, "needs pictures"),
        ({"epochs": 0}, UsageError, "epochs"),
        ({"recipe": {"batchsize": 4}}, UnknownNameError, "batch_size"),
        ({"detector": "self_confidence", "folds": 1}, UsageError, "folds must be in"),
        ({"detector": "cscore", "runs": 1}, UsageError, "1 runs at subset ratio"),
        ({"subset_ratio": 2.0}, UsageError, "ratio"),
        ({"device": "tpu"}, UnknownNameError, "device"),
        ({"threads": 0}, UsageError, "threads must be at least 1"),
        ({"seed": "x"}, UsageError, "seed must be a whole number"),
    ],
)
def test_bad_options(options, error, words):
    X, y, _ = blobs(30, 3)
    with pytest.raises(error, match=words):
        LabelNoiseDetector(**{"epochs": 1, **options}).fit(X, y)


def test_one_class_is_refused():
    with pytest.raises(DataError, match="one class only"):
        LabelNoiseDetector().fit(np.zeros((4, 2)), np.zeros(4, dtype=int))
