"""Leave-one-out by ridge regression: closed form against n fits; the detectors on embeddings."""

import numpy as np
import pytest

import noiseaudit as na
from noiseaudit.detector import needs_of
from noiseaudit.detectors.loo_consistency import LabelOdds, LooConsistency
from noiseaudit.detectors.neighbours import KnnDisagreement, LofHidden
from noiseaudit.errors import DataError, UsageError
from noiseaudit.evidence import Evidence
from noiseaudit.label_channel import fit_label_channel
from noiseaudit.label_noise import flip_uniform
from noiseaudit.ridge import GRID, leave_one_out, probs_of_scores
from noiseaudit.stages import choose_detectors
from tests._oracles import gaussian_features, refit_without_each, standardised


def problem(n, d, k=3, seed=0):
    """With a copied, a constant and an all but constant column, and a class of one example."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)).astype(np.float32)
    x[:, 1], x[:, 2], x[:, 3] = x[:, 0], 3.3, 0
    x[7, 3] = 1  # alone in this direction: a leverage near 1
    labels = random.integers(0, k, n)
    labels[5] = k
    return x, labels, k + 1


def clusters(n=90, d=6, k=3, seed=0):
    random = np.random.default_rng(seed)
    clean = np.arange(n) % k
    x = random.normal(size=(n, d)) + 4 * np.eye(k, d)[clean]
    return x.astype(np.float32), clean


@pytest.mark.parametrize("rounds", [0, 1])
@pytest.mark.parametrize("regularisation", [1e-4, 0.1, 10.0])
@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50), (50, 50), (51, 50)])
def test_linear_equals_refitting_without_each_example(n, d, regularisation, rounds):
    x, labels, k = problem(n, d)
    found = leave_one_out(
        x, labels, k, kernel="linear", regularisation=regularisation, rounds=rounds
    )
    slow = refit_without_each(standardised(x), labels, k, regularisation, found.weights)
    assert np.abs(found.scores - slow).max() / np.abs(slow).max() < 1e-9  # bar: 1e-6
    assert (found.weights == 1).all() == (rounds == 0)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("landmarks", [40, 12])
def test_gaussian_kernel_equals_refitting_on_its_features(landmarks):
    x, labels, k = problem(40, 6)
    found = leave_one_out(x, labels, k, regularisation=0.1, landmarks=landmarks)
    features = gaussian_features(standardised(x), landmarks)
    slow = refit_without_each(features, labels, k, 0.1, found.weights)
    # Beyond the landmarks kernel values are float32, whitened by up to 1e3.
    np.testing.assert_allclose(found.scores, slow, atol=1e-7 if landmarks == 40 else 1e-4)


def test_ten_numbers_by_hand():
    # x = -2 ... 2, already centred, sum of squares 10, mean square 2: penalty 5 x 2 = 10, so that
    # h_i = 1/5 + x_i^2 / 20 = .4, .25, .2, .25, .4. y = 0 0 1 1 1: slope 3 / 20, fit .6 + .15 x.
    x = np.array([[-2], [-1], [0], [1], [2]], np.float32)
    found = leave_one_out(
        x, np.array([0, 0, 1, 1, 1]), 2, kernel="linear", regularisation=5.0, rounds=0
    )
    np.testing.assert_allclose(found.leverage, [0.4, 0.25, 0.2, 0.25, 0.4])
    left_out = [0.3 / 0.6, 0.45 / 0.75, (0.6 - 0.2) / 0.8, (0.75 - 0.25) / 0.75, (0.9 - 0.4) / 0.6]
    np.testing.assert_allclose(found.scores[:, 1], left_out)
    np.testing.assert_allclose(found.scores[:, 0], 1 - np.array(left_out))


def test_one_row_more_than_columns_changes_the_form_and_not_the_answer():
    x, labels, k = problem(30, 29)
    wide = np.hstack([x, x[:, :1], x[:, :1]])  # 31 columns: the dual form
    twice = np.hstack([x, x[:, :1]])[:, :30]  # 30 columns of 30 rows: the dual form
    primal = leave_one_out(x, labels, k, kernel="linear", rounds=0, regularisation=0.1)
    for other, columns in ((wide, 31), (twice, 30)):
        # Copies of a column change the problem: compare each with n fits of its own.
        dual = leave_one_out(other, labels, k, kernel="linear", rounds=0, regularisation=0.1)
        slow = refit_without_each(standardised(other), labels, k, 0.1, np.ones(30))
        assert other.shape[1] == columns
        np.testing.assert_allclose(dual.scores, slow, atol=1e-9)
    slow = refit_without_each(standardised(x), labels, k, 0.1, np.ones(30))
    np.testing.assert_allclose(primal.scores, slow, atol=1e-9)


def test_regularisation_is_that_of_the_least_error_and_errors_are_of_refits():
    x, labels = clusters()
    labels = flip_uniform(labels, 3, 0.1, seed=0)
    found = leave_one_out(x, labels, 3, kernel="linear", rounds=0)
    assert tuple(found.errors) == GRID
    slow = {
        value: np.square(
            refit_without_each(standardised(x), labels, 3, value, np.ones(90)) - np.eye(3)[labels]
        ).mean()
        for value in GRID
    }
    np.testing.assert_allclose(list(found.errors.values()), list(slow.values()), rtol=1e-8)
    assert found.regularisation == min(slow, key=slow.get)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize(
    ("x", "k"),
    [
        (np.zeros((6, 3), np.float32), 2),
        (np.full((6, 3), 1e30, np.float32), 2),
        (np.repeat(np.eye(2, dtype=np.float32), 3, axis=0), 2),
        (np.eye(6, dtype=np.float32), 100),
        (np.eye(2, dtype=np.float32), 2),
        (np.linspace(-1e-30, 1e-30, 6, dtype=np.float32)[:, None], 2),
    ],
)
def test_degenerate_features_give_finite_scores(x, k, kernel):
    labels = np.arange(len(x)) % 2
    found = leave_one_out(x, labels, k, kernel=kernel)
    assert np.isfinite(found.scores).all()
    assert ((found.leverage >= 0) & (found.leverage < 1)).all()
    if not np.ptp(x, axis=0).any():  # nothing to tell them apart by: the share of the others
        share = leave_one_out(x, labels, k, kernel=kernel, rounds=0).scores[0]
        np.testing.assert_allclose(share, [2 / 5, 3 / 5])


def test_bad_input_is_refused():
    x, labels = clusters()
    for changes, error, told in [
        ({"features": x[:1], "labels": labels[:1]}, DataError, "at least 2 examples; got 1"),
        ({"features": x[:5]}, DataError, "lengths differ"),
        ({"features": x[:, 0]}, DataError, r"shape \(n, d\); got \(90,\)"),
        ({"features": np.where(x == x[3, 2], np.nan, x)}, DataError, "1 row, first 3"),
        ({"num_classes": 2}, DataError, r"labels must be in \[0, 2\)"),
        ({"kernel": "rfb"}, UsageError, "did you mean 'rbf'"),
        ({"regularisation": 0.0}, UsageError, "at least 1e-06 and finite.*got 0.0"),
        ({"regularisation": float("nan")}, UsageError, "got nan"),
        ({"rounds": -1}, UsageError, "rounds must be at least 0; got -1"),
        ({"landmarks": 0}, UsageError, "landmarks must be at least 1; got 0"),
    ]:
        with pytest.raises(error, match=told):
            leave_one_out(**{"features": x, "labels": labels, "num_classes": 3, **changes})
    huge = np.broadcast_to(np.zeros((), np.float32), (20_001, 20_001))
    with pytest.raises(UsageError, match="use the rbf kernel, or fewer features"):
        leave_one_out(huge[:, :], np.zeros(20_001, int), 2, kernel="linear")


def test_probabilities_are_those_under_which_given_labels_are_likeliest():
    x, labels = clusters(300)
    noisy = flip_uniform(labels, 3, 0.2, seed=0)
    scores = leave_one_out(x, noisy, 3, rounds=0).scores
    probs = probs_of_scores(scores, noisy)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    in_order = np.take_along_axis(probs, scores.argsort(axis=1), axis=1)
    assert (np.diff(in_order, axis=1) >= 0).all()
    rows = np.arange(300)
    for scale in np.geomspace(0.1, 100, 40):
        for floor in np.linspace(0.01, 0.5, 40):
            other = np.exp(scale * scores)
            other = (1 - floor) * other / other.sum(axis=1, keepdims=True) + floor / 3
            worse = np.log(other[rows, noisy]).mean()
            assert np.log(probs[rows, noisy]).mean() > worse - 1e-4


def test_probabilities_serve_cleanlab():
    from cleanlab.filter import find_label_issues

    x, labels = clusters(300)
    noisy = flip_uniform(labels, 3, 0.2, seed=0)
    probs = probs_of_scores(leave_one_out(x, noisy, 3).scores, noisy)
    flagged = find_label_issues(noisy, probs, n_jobs=1)
    wrong = noisy != labels
    assert wrong[flagged].mean() > 0.9  # measured: 1.0
    assert flagged[wrong].mean() > 0.9  # measured: 1.0


def test_suspicion_is_the_loss_of_held_out_scores():
    x, labels = clusters()
    given = Evidence(np.arange(90), labels, 3, embeddings=x)
    scores = leave_one_out(x, labels, 3).scores
    probs = np.exp(5 * scores) / np.exp(5 * scores).sum(axis=1, keepdims=True)
    slow = -np.log(probs[np.arange(90), labels])
    np.testing.assert_allclose(LooConsistency().rank(given).scores, slow)
    key = ("leave_one_out", "rbf", None, 1)
    assert given.shared(key, dict).scores.shape == (90, 3)


@pytest.mark.parametrize("detector", [LooConsistency(), KnnDisagreement()])
def test_flipped_labels_of_digits_come_first(detector):
    clean = na.load("digits", limit=600)
    noisy = flip_uniform(clean.labels, 10, 0.1, seed=0)
    pixels = clean.inputs.reshape(len(clean), -1).astype(np.float32)
    given = Evidence(clean.ids, noisy, 10, embeddings=pixels)
    auroc = na.evaluate(detector.rank(given), noisy != clean.labels).auroc
    assert auroc > 0.98  # measured: 0.9989, 0.9974


def test_knn_metric_is_chosen_by_agreement():
    # The first column's size says nothing and hides the second by Euclidean distance unless
    # standardised; directions of the other set say the class and lengths nothing.
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    table = np.column_stack([random.normal(0, 1e3, 200), labels + random.normal(0, 0.01, 200)])
    angle = labels * 1.0 + random.normal(0, 0.1, 200)
    length = np.exp(random.normal(0, 3, 200))
    beams = np.column_stack([np.cos(angle), np.sin(angle)]) * length[:, None]
    for points, metric in ((table, "euclidean"), (beams, "cosine")):
        given = Evidence(np.arange(200), labels, 2, embeddings=points.astype(np.float32))
        chosen = KnnDisagreement().rank(given).scores
        assert np.array_equal(chosen, KnnDisagreement(metric=metric).rank(given).scores)
        other = {"euclidean": "cosine", "cosine": "euclidean"}[metric]
        assert chosen.mean() < KnnDisagreement(metric=other).rank(given).scores.mean()
    with pytest.raises(UsageError, match="did you mean 'cosine'"):
        KnnDisagreement(metric="cosin")


def test_knn_looks_at_hidden_features_where_an_epoch_is_asked_for():
    random = np.random.default_rng(0)
    labels = np.arange(40) % 2
    hidden = (labels[:, None] * 9 + random.normal(size=(40, 2))).astype(np.float32)
    given = Evidence(
        np.arange(40), labels, 2, embeddings=random.normal(size=(40, 2)).astype(np.float32),
        snapshots={("features", 3): hidden},
    )  # fmt: skip
    assert KnnDisagreement(epoch=3).rank(given).scores.max() == 0
    assert KnnDisagreement().rank(given).scores.mean() > 0.2
    assert needs_of(KnnDisagreement(epoch=3), has_embeddings=True) == ("snapshots",)
    assert needs_of(KnnDisagreement(), has_embeddings=True) == ("embeddings",)
    assert needs_of(KnnDisagreement(), has_embeddings=False) == ("snapshots",)
    assert needs_of(LofHidden(), has_embeddings=True) == ("snapshots",)


def vectors():
    x, labels = clusters()
    return na.LabeledDataset(x, labels, ("a", "b", "c"), name="vectors")


def pictures():
    inputs = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)
    return na.LabeledDataset(inputs, np.arange(12) % 2, ("a", "b"), name="pictures")


def test_defaults_follow_the_data():
    on_embeddings = {"knn_disagreement", "label_odds", "loo_consistency"}
    free, of_pictures = (
        {item.name for item in choose_detectors(None, data)} for data in (vectors(), pictures())
    )
    assert free - of_pictures == on_embeddings
    assert of_pictures < free
    every = {item.name for item in choose_detectors(None, pictures(), costly=True)}
    assert set(na.detector_types()) - every == {"label_odds", "loo_consistency"}
    assert len(choose_detectors(None, vectors(), costly=True)) == len(na.detector_types())


def test_pictures_without_an_encoder_are_refused_before_training(tmp_path):
    told = "loo_consistency looks at embeddings.*--encoder efficientnet_lite0"
    with pytest.raises(UsageError, match=told):
        na.audit(pictures(), detectors=["loo_consistency"], out=tmp_path / "audit", epochs=1)
    with pytest.raises(UsageError, match=told):
        na.run_experiment(pictures(), detectors=["loo_consistency"], out=tmp_path / "experiment")
    assert not list(tmp_path.glob("*/*"))


def test_an_audit_of_vectors_ranks_by_both(tmp_path):
    report = na.audit(vectors(), epochs=2, threads=1, out=tmp_path)
    assert {"knn_disagreement", "loo_consistency"} <= report.rankings.keys()
    assert report.ranking.detector == "cumulative_loss"
    given = Evidence(np.arange(90), vectors().labels, 3, embeddings=vectors().inputs)
    for detector in (KnnDisagreement(), LooConsistency()):
        own = report.rankings[detector.name].scores
        assert np.array_equal(own, detector.rank(given).scores)
    # What the network made of them serves the report's neighbours alone.
    assert [path.name for path in tmp_path.rglob("features_*")] == ["features_0002.npy"]


def test_label_odds_know_which_mistakes_are_common():
    x, labels = clusters()
    given = labels.copy()
    given[:6] = (labels[:6] + 1) % 3  # 6 of 30 of one class are given the next
    evidence = Evidence(np.arange(90), given, 3, embeddings=x)
    scores = leave_one_out(x, given, 3).scores
    odds = LabelOdds().rank(evidence).scores
    channel = fit_label_channel(scores, given)
    np.testing.assert_allclose(odds, channel.log_odds(scores, given)[0])
    assert odds[:6].min() > 0 > odds[6:].max()
    wrong = given != labels
    np.testing.assert_allclose((1 / (1 + np.exp(-odds)))[wrong].round(), 1)
    alone = Evidence(np.arange(1), np.zeros(1, np.int64), 3, embeddings=x[:1])
    assert LabelOdds().rank(alone).scores.tolist() == [0]
    assert LabelOdds().channel(alone) is None
    assert LabelOdds().channel(evidence).rate == channel.rate
