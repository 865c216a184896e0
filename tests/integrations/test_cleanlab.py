import numpy as np
import pytest
import torch
from cleanlab import Datalab

import noiseaudit as na
from noiseaudit.cscore.result import CScores
from noiseaudit.errors import DataError, OutputError, UnknownNameError, UsageError
from noiseaudit.integrations.cleanlab import held_out_pred_probs

N = 90
SNIPPET = """
from cleanlab import Datalab
import noiseaudit.integrations.cleanlab as bridge  # registers the issue type

lab = Datalab(data, label_name="label")
lab.find_issues(
    issue_types={"training_dynamics": {"report": report}, "label": {}},
    pred_probs=bridge.held_out_pred_probs(lab, "audit"),
)
lab.get_issues("training_dynamics")  # lab.report() shows it too
"""


def data_and_labels(wrong=9):
    """Classes 2, 9 and 10: in another order as texts, which is how the Datalab holds them."""
    random = np.random.default_rng(0)
    clean = np.arange(N) % 3
    inputs = random.normal(0, 0.4, (N, 4)) + 3 * np.eye(4)[clean]
    given = clean.copy()
    given[:wrong] = (clean[:wrong] + 1) % 3
    return inputs, np.array([2, 9, 10])[given], np.array([2, 9, 10])[clean]


def make_lab(labels, rows=None):
    texts = [str(label) for label in labels]
    picked = texts if rows is None else [texts[row] for row in rows]
    return Datalab({"label": picked}, label_name="label", verbosity=0)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    inputs, labels, clean = data_and_labels()
    folder = tmp_path_factory.mktemp("audit")
    report = na.audit(
        (inputs, labels),
        out=folder / "audit",
        detectors=["cumulative_loss", "self_confidence"],
        folds=2,
        epochs=6,
    )
    return folder, report, labels, clean


@pytest.fixture(scope="module")
def lab_of_snippet(audited):
    folder, report, labels, _ = audited
    names = {"report": report, "data": {"label": [str(label) for label in labels]}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(SNIPPET, names)
    return names["lab"]


def make_recorder(labels, class_sums):
    """Two epochs in which example 0 is taken for the next class, all others for their own."""
    codes = np.unique(labels, return_inverse=True)[1]
    recorder = na.Recorder(codes, 3, class_sums=class_sums)
    logits = 3 * torch.eye(3)[torch.from_numpy(codes)]
    logits[0] = logits[0].roll(1)
    for _ in range(2):
        recorder.update(logits, torch.from_numpy(codes), torch.arange(len(codes)))
        recorder.end_epoch()
    return recorder


def test_a_report_becomes_issues_in_datalabs_direction(audited, lab_of_snippet):
    _, report, _, clean = audited
    found = lab_of_snippet.get_issues("training_dynamics")
    assert list(found.columns) == [
        "is_training_dynamics_issue", "training_dynamics_score", "training_dynamics_suggestion",
    ]  # fmt: skip
    order = np.argsort(found["training_dynamics_score"].to_numpy())
    assert order.tolist() == report.ranking.top(N).tolist()  # low = bad
    assert found["training_dynamics_score"].between(0, 1).all()
    issues = found["is_training_dynamics_issue"].to_numpy()
    assert np.array_equal(issues, report.findings.is_label_issue)
    # Measured: 9 of the 9 wrong labels, no other, and the clean label suggested for each.
    assert issues[:9].sum() >= 8
    assert (found["training_dynamics_suggestion"] == clean.astype(str)).mean() > 0.95
    summary = lab_of_snippet.get_issue_summary("training_dynamics")
    assert summary["num_issues"].item() == issues.sum()
    assert summary["score"].item() == pytest.approx(1 - issues.mean())


def test_datalabs_own_label_check_ran_beside_it(lab_of_snippet):
    own = lab_of_snippet.get_issues("label")
    assert not [name for name in own.columns if "training_dynamics" in name]
    assert own["is_label_issue"][:9].sum() >= 7  # measured: 9
    assert lab_of_snippet.get_info("training_dynamics")["detector"] == "cumulative_loss"


def test_report_and_save_work_with_the_issue_type(lab_of_snippet, tmp_path, capsys):
    lab_of_snippet.report(verbosity=1)
    assert "training_dynamics issues" in capsys.readouterr().out
    lab_of_snippet.save(str(tmp_path / "lab"), force=True)
    loaded = Datalab.load(str(tmp_path / "lab"))
    assert loaded.get_issues("training_dynamics").equals(
        lab_of_snippet.get_issues("training_dynamics")
    )


def test_held_out_pred_probs_of_an_audit_in_the_labs_class_order(audited):
    folder, report, labels, _ = audited
    lab = make_lab(labels)
    assert lab.class_names == ["10", "2", "9"]  # ours: 2, 9, 10
    probs = held_out_pred_probs(lab, folder / "audit")
    given = probs[np.arange(N), lab.labels]
    np.testing.assert_allclose(given, 1 - report.rankings["self_confidence"].scores, rtol=1e-5)


def test_held_out_pred_probs_of_cscores_in_the_labs_row_order():
    probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], np.float32)
    scores = CScores(np.array([5, 6, 7]), np.arange(3), np.ones(3), pred_probs=probs)
    lab = make_lab([10, 2, 9])  # ids 7, 5 and 6
    found = held_out_pred_probs(lab, scores, sample_ids=[7, 5, 6])
    np.testing.assert_array_equal(found, probs[[2, 0, 1]][:, [2, 0, 1]])
    with pytest.raises(DataError, match="labels are not those of the Datalab"):
        held_out_pred_probs(make_lab([10, 2, 2]), scores, sample_ids=[7, 5, 6])
    with pytest.raises(DataError, match="pass sample_ids"):
        held_out_pred_probs(lab, scores)
    with pytest.raises(DataError, match="has no labels"):
        held_out_pred_probs(Datalab({"x": [1, 2, 3]}), scores, sample_ids=[7, 5, 6])


def test_probabilities_that_are_not_out_of_sample_are_refused(audited, tmp_path):
    _, report, labels, _ = audited
    lab = make_lab(labels)
    with pytest.raises(UsageError, match="not from AuditReport: those are in-sample"):
        held_out_pred_probs(lab, report)
    with pytest.raises(DataError, match="no cross-validation"):
        held_out_pred_probs(lab, tmp_path)
    codes = np.unique(labels, return_inverse=True)[1]
    probs = np.full((N, 3), 1 / 3, np.float32)

    def scores(values):
        return CScores(np.arange(N), codes, np.ones(N), pred_probs=values)

    with pytest.raises(DataError, match="have no pred_probs"):
        held_out_pred_probs(lab, scores(None))
    never = probs.copy()
    never[4] = np.nan
    with pytest.raises(DataError, match="1 row, first 4; these examples were never held out"):
        held_out_pred_probs(lab, scores(never))
    with pytest.raises(DataError, match="each row with sum 1"):
        held_out_pred_probs(lab, scores(probs * 2))
    with pytest.raises(DataError, match="have 4 classes, the Datalab 3"):
        held_out_pred_probs(lab, scores(np.full((N, 4), 0.25, np.float32)))


def test_folds_of_other_labels_are_refused(audited, tmp_path):
    inputs, labels, _ = data_and_labels()
    na.audit((inputs, labels), out=tmp_path, detectors=["self_confidence"], folds=2, epochs=1)
    stored = dict(np.load(tmp_path / "training" / "statistics.npz"))
    stored["labels"] = stored["labels"][::-1].copy()
    np.savez(tmp_path / "training" / "statistics.npz", **stored)
    with pytest.raises(DataError, match="of different labels"):
        held_out_pred_probs(make_lab(labels), tmp_path)
    (tmp_path / "training" / "statistics.npz").unlink()
    with pytest.raises(OutputError, match="cannot be read"):
        held_out_pred_probs(make_lab(labels), tmp_path)


def run(lab, **options):
    lab.find_issues(issue_types={"training_dynamics": options})
    return lab.get_issues("training_dynamics")


def test_a_recorder_with_class_sums_says_what_is_wrong_and_what_is_right():
    labels = data_and_labels()[1]
    found = run(make_lab(labels), recorder=make_recorder(labels, class_sums=True))
    assert np.flatnonzero(found["is_training_dynamics_issue"]).tolist() == [0]
    assert labels[0] == 9
    assert found["training_dynamics_suggestion"][0] == "10"
    assert found["training_dynamics_score"][0] == 0


def test_a_recorder_without_class_sums_or_a_ranking_takes_a_number_of_issues():
    labels = data_and_labels()[1]
    recorder = make_recorder(labels, class_sums=False)
    by_count = run(make_lab(labels), recorder=recorder, detector="el2n", count=1)
    assert "training_dynamics_suggestion" not in by_count.columns
    ranking = recorder.rank("el2n")
    rows = np.random.default_rng(0).permutation(N)
    shuffled = run(make_lab(labels, rows), ranking=ranking, share=1 / N, sample_ids=rows)
    for found, where in ((by_count, 0), (shuffled, rows.tolist().index(0))):
        assert np.flatnonzero(found["is_training_dynamics_issue"]).tolist() == [where]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, UsageError, "exactly one of report, recorder and ranking"),
        ({"recorder": 1, "ranking": 1}, UsageError, "exactly one of report, recorder and ranking"),
        ({"ranking": 0}, UsageError, "exactly one of count, share and above"),
        ({"ranking": 0, "share": 1.5}, UsageError, r"share must be in \[0, 1\]"),
        ({"ranking": 0, "count": 1, "detector": "el2n"}, UsageError, "leave detector out"),
        ({"recorder": 0, "detector": "el2m"}, UnknownNameError, "did you mean 'el2n'"),
        ({"recorder": 0, "count": 1, "sample_ids": [1, 2]}, DataError, "it has 90 rows"),
        ({"recorder": 0, "count": 1, "sample_ids": range(1, 91)}, DataError, "pass sample_ids"),
        ({"recorder": 0, "count": 1, "sample_ids": range(89, -1, -1)}, DataError, "another order"),
    ],
)
def test_mistakes_are_raised_not_printed(options, error, words):
    labels = data_and_labels()[1]
    recorder = make_recorder(labels, class_sums=False)
    made = {"recorder": recorder, "ranking": recorder.rank("el2n")}
    options = {name: made.get(name, value) for name, value in options.items()}
    with pytest.raises(error, match=words):
        make_lab(labels).find_issues(issue_types={"training_dynamics": options})
