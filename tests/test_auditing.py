import csv
import json
import resource
import signal

import numpy as np
import pandas as pd
import pytest
from torch import nn

import noiseaudit as na
from noiseaudit.cli import main
from noiseaudit.errors import ManifestMismatchError, OutputError, UnknownNameError, UsageError
from noiseaudit.findings import find_issues

FEW = ["area_under_margin", "cumulative_loss"]
FREE = [name for name, kind in na.detector_types().items() if set(kind.needs) <= {"training"}]


@pytest.fixture(scope="module")
def finished(noisy_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit") / "out"
    report = na.audit(noisy_digits[0], out=out, epochs=8, threads=1)
    return report, out


def small(n=60, names=("a", "b", "c"), seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % len(names)
    inputs = random.normal(0, 1, (n, 5)) + 3 * np.eye(5)[labels]
    return na.LabeledDataset(inputs.astype(np.float32), labels, tuple(names))


def test_findings_by_hand():
    probs = np.array([[0.6, 0.4], [0.3, 0.7], [0.5, 0.5], [0.5, 0.5]], np.float32)
    history = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], np.int8)
    found = find_issues(np.array([0, 0, 0, 1]), probs, history)
    assert found.is_label_issue.tolist() == [False, True, False, False]  # a tie is no issue
    assert found.suggested.tolist() == [0, 1, 0, 1]
    assert found.epochs_right.tolist() == [2, 0, 1, 0]
    names = ("cat", "dog")
    assert found.reason(1, names, 0) == (
        "looks like dog (70%) rather than cat (30%); never predicted as cat in 2 epochs"
    )
    assert found.reason(2, names, 0) == "learned late: predicted as cat in 1 of 2 epochs"
    assert found.reason(0, names, 0) == "agrees with cat (60%)"


def test_an_audit_finds_what_was_flipped(finished, noisy_digits):
    report, _ = finished
    noisy, clean = noisy_digits
    wrong = noisy.labels != clean
    top = np.isin(noisy.ids, report.ranking.top(int(wrong.sum())))
    assert wrong[top].mean() > 0.88  # measured: 0.983
    flagged = report.findings.is_label_issue
    assert wrong[flagged].mean() > 0.5  # measured: 0.856
    assert flagged[wrong].mean() > 0.95  # measured: 1.0
    right = report.findings.suggested[wrong & flagged] == clean[wrong & flagged]
    assert right.mean() > 0.9  # measured: 1.0


def test_ranking_csv_is_the_contracts(finished):
    report, out = finished
    frame = pd.read_csv(out / "ranking.csv", keep_default_na=False)
    assert list(frame.columns[:8]) == [
        "rank", "sample_id", "source", "given_label", "suggested_label", "suspicion",
        "is_label_issue", "reason",
    ]  # fmt: skip
    assert list(frame.columns[8:]) == [*FREE, "label_odds", "p_error", "p_suggested", "kind"]
    assert frame["rank"].tolist() == list(range(1, 1798))
    assert sorted(frame["sample_id"]) == list(range(1797))
    assert (frame["suspicion"].diff().dropna() <= 0).all()
    assert (frame["p_error"].diff().dropna() <= 1e-12).all()
    other = frame["suggested_label"] != frame["given_label"]
    assert (frame["p_suggested"] <= frame["p_error"])[other].all()
    np.testing.assert_allclose((frame["p_suggested"] + frame["p_error"])[~other], 1)
    row = frame.iloc[0]
    assert str(row["given_label"]) == str(report.dataset.labels[row["sample_id"]])
    own = report.to_frame()
    assert own["sample_id"].tolist() == frame["sample_id"].tolist()
    assert np.allclose(own["el2n"], frame["el2n"])


def test_manifest_says_what_it_was_made_from(finished):
    _, out = finished
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["command"] == "audit"
    assert manifest["status"] == "done"
    assert manifest["config"]["dataset"]["examples"] == 1797
    assert manifest["config"]["recipe"]["epochs"] == 8
    assert manifest["config"]["seed"] == 0
    assert manifest["versions"]["torch"]


def test_stored_statistics_load_without_pickle(finished):
    report, out = finished
    with np.load(out / "training" / "statistics.npz", allow_pickle=False) as stored:
        loss = stored["loss"]
        assert stored["correct_history"].shape == (8, 1797)
    assert np.array_equal(loss, report.rankings["cumulative_loss"].scores)
    probs = np.load(out / "training" / "pred_probs.npy", allow_pickle=False)
    assert np.array_equal(probs, report.pred_probs)


def test_a_finished_audit_is_reused_and_more_detectors_only_rerank(tmp_path, monkeypatch):
    calls = []
    from noiseaudit.training import loop

    real = loop._train_epoch
    monkeypatch.setattr(loop, "_train_epoch", lambda *a: calls.append(1) or real(*a))
    first = na.audit(small(), out=tmp_path / "o", epochs=2, detectors=FEW, threads=1)
    assert len(calls) == 2
    more = na.audit(small(), out=tmp_path / "o", epochs=2, threads=1)
    assert len(calls) == 2
    assert set(more.rankings) > set(first.rankings)
    assert more.ranking.scores.tobytes() == first.ranking.scores.tobytes()
    header = (tmp_path / "o" / "ranking.csv").read_text().splitlines()[0].split(",")
    assert header[8:] == [
        *sorted([*FREE, "knn_disagreement", "label_odds", "loo_consistency"]), "kind",
    ]  # fmt: skip


def test_headline_is_the_first_detector_when_cumulative_loss_is_not_asked_for():
    report = na.audit(small(), epochs=1, detectors=["el2n", "random"])
    assert report.ranking.detector == "el2n"
    assert report.document.detector == "el2n"
    assert report.document.histograms[0].detector == "el2n"


def test_folder_of_another_audit_is_refused_and_unharmed(tmp_path):
    na.audit(small(), out=tmp_path / "o", epochs=1, threads=1)
    before = (tmp_path / "o" / "ranking.csv").read_bytes()
    with pytest.raises(ManifestMismatchError, match=r"dataset\.inputs(.|\n)*seed: stored 0, now 5"):
        na.audit(small(seed=1), out=tmp_path / "o", epochs=1, seed=5, threads=1)
    assert (tmp_path / "o" / "ranking.csv").read_bytes() == before
    na.audit(small(seed=1), out=tmp_path / "o", epochs=1, seed=5, threads=1, resume=False)
    assert (tmp_path / "o" / "ranking.csv").read_bytes() != before


def test_folder_with_other_files_or_another_commands_results_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    for resume in (True, False):
        with pytest.raises(OutputError, match=r"not empty \(thesis.tex, 1 in all\)"):
            na.audit(small(), out=tmp_path, epochs=1, resume=resume)
    other = tmp_path / "cscores"
    other.mkdir()
    (other / "manifest.json").write_text('{"command": "cscores"}')
    for resume in (True, False):
        with pytest.raises(OutputError, match="results of 'noiseaudit cscores'"):
            na.audit(small(), out=other, epochs=1, resume=resume)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cscores", "thesis.tex"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"detectors": []}, UsageError, "detectors is empty"),
        ({"detectors": ["cumulativ_loss"]}, UnknownNameError, "did you mean 'cumulative_loss'"),
        ({"model": "mpl"}, UnknownNameError, "did you mean 'mlp'"),
        ({"device": "gpu"}, UnknownNameError, "valid: auto, cpu, cuda"),
        ({"epochs": 0}, UsageError, "epochs must be at least 1"),
        ({"augmentation": "flip"}, UsageError, "for pictures, not for vectors"),
        ({"recipe": {"learning_rate": -1}}, UsageError, "learning_rate must be positive"),
        ({"recipe": {"lr": 1}}, UnknownNameError, "unknown field of Recipe 'lr'"),
        ({"recipe": na.Recipe(1), "epochs": 2}, UsageError, "inside the recipe"),
        ({"threads": 0}, UsageError, "threads must be at least 1"),
        ({"model": "cnn"}, UsageError, "cnn"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        na.audit(small(), **arguments)


def test_any_module_factory_is_a_model():
    def linear(input_shape, num_classes):
        return nn.Linear(input_shape[0], num_classes)

    report = na.audit(small(), model=linear, epochs=2)
    assert report.manifest["config"]["model"].endswith("linear")


def test_another_network_under_the_same_name_is_refused(tmp_path):
    def factory(hidden):
        return lambda shape, classes: nn.Sequential(
            nn.Linear(shape[0], hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    na.audit(small(), model=factory(4), epochs=1, out=tmp_path / "o")
    with pytest.raises(ManifestMismatchError, match="structure: stored"):
        na.audit(small(), model=factory(8), epochs=1, out=tmp_path / "o")


def test_one_class_or_no_example_is_refused():
    with pytest.raises(na.DataError, match="class"):
        na.audit(small().subset(np.arange(0, 60, 3)), epochs=1)
    with pytest.raises(na.DataError):
        na.audit(small().subset([]), epochs=1)


def test_starting_over_leaves_no_results_of_the_old_run(tmp_path, monkeypatch):
    from noiseaudit.training import loop

    na.audit(small(), out=tmp_path / "o", epochs=1)
    (tmp_path / "o" / "training" / ".checkpoint.pt.1.part").write_bytes(b"left by a kill")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_train_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        na.audit(small(seed=1), out=tmp_path / "o", epochs=1, resume=False)
    assert not (tmp_path / "o" / "ranking.csv").exists()
    assert not list((tmp_path / "o").rglob("*.part"))
    with pytest.raises(OutputError, match="not finished"):
        na.rebuild_report(tmp_path / "o")


def test_two_audits_at_once_in_one_folder_are_refused(tmp_path):
    from filelock import FileLock

    (tmp_path / "o").mkdir()
    lock = FileLock(tmp_path / "o" / ".noiseaudit.lock")
    with lock, pytest.raises(OutputError, match="another noiseaudit is at work"):
        na.audit(small(), out=tmp_path / "o", epochs=1)
    na.audit(small(), out=tmp_path / "o", epochs=1)


@pytest.mark.parametrize("text", ["[1, 2]", '{"name": "web app"}'])
def test_a_foreign_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(OutputError, match="choose another"):
        na.audit(small(), out=tmp_path, epochs=1)


def test_recipe_overrides_and_whole_recipes():
    report = na.audit(small(), recipe={"optimizer": "adam", "learning_rate": 1e-3}, epochs=2)
    assert report.manifest["config"]["recipe"]["optimizer"] == "adam"
    report = na.audit(small(), recipe=na.Recipe(3, schedule="constant"))
    assert len(report.history) == 3


def test_difficult_class_names_survive_everywhere(tmp_path):
    names = (
        "<script>window.pwned=1</script>",
        'comma, "quote"',
        "😀/..\\x",
        "=1+1",
        "two\nlines\rmore",
    )
    report = na.audit(small(50, names), out=tmp_path / "o", epochs=1)
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "<script>window.pwned" not in page
    with (tmp_path / "o" / "ranking.csv").open(newline="", encoding="utf-8") as file:
        given = {row["given_label"] for row in csv.DictReader(file)}
    assert given == {*names} - {"=1+1"} | {"'=1+1"}
    assert set(report.to_frame()["given_label"]) == set(names)
    na.rebuild_report(tmp_path / "o")
    assert (tmp_path / "o" / "report.html").read_text(encoding="utf-8") == page


def test_report_is_rebuilt_from_what_is_stored(finished):
    _, out = finished
    page = (out / "report.html").read_text(encoding="utf-8")
    (out / "report.html").unlink()
    assert na.rebuild_report(out) == out / "report.html"
    assert (out / "report.html").read_text(encoding="utf-8") == page


def test_rebuilding_what_is_not_there_says_so(tmp_path):
    with pytest.raises(OutputError, match="holds no audit"):
        na.rebuild_report(tmp_path)
    (tmp_path / "manifest.json").write_text('{"command": "audit", "status": "running"}')
    with pytest.raises(OutputError, match="not finished"):
        na.rebuild_report(tmp_path)


def test_report_shows_itself_in_a_notebook(finished):
    report, _ = finished
    assert report._repr_html_().startswith("<iframe srcdoc=")
    assert 'src="http' not in report.to_html()


def test_without_out_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    na.audit(small(), epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_suspects_show_the_examples_most_alike(finished):
    report, out = finished
    first = report.document.suspects[0]
    features = np.load(out / "training" / "snapshots" / "features_0008.npy")
    row = int(np.flatnonzero(report.dataset.ids == first.sample_id)[0])
    distance = np.square(features - features[row]).sum(axis=1)
    distance[row] = np.inf
    nearest = np.argsort(distance, kind="stable")[:5]
    assert [near.sample_id for near in first.neighbours] == report.dataset.ids[nearest].tolist()
    assert first.neighbours[0].thumbnail.startswith("data:image/png")
    agree = [
        near.label == suspect.suggested_label
        for suspect in report.document.suspects[:100]
        for near in suspect.neighbours
    ]
    assert np.mean(agree) > 0.8  # the suspects of digits are flips: their like are labelled right


def test_neighbours_of_identical_examples_are_the_others():
    data = small()
    data.inputs[:20] = 1.0
    report = na.audit(data, epochs=1)
    for suspect in report.document.suspects:
        near = [item.sample_id for item in suspect.neighbours]
        assert len(set(near)) == 5
        assert suspect.sample_id not in near


def test_a_model_without_features_is_audited_all_the_same():
    def model(input_shape, num_classes):
        return nn.Sequential(
            nn.Unflatten(1, (input_shape[0], 1)), nn.Conv1d(5, num_classes, 1), nn.Flatten()
        )

    assert not na.audit(small(), model=model, epochs=1).document.suspects[0].neighbours


def test_vectors_show_their_most_unusual_features():
    data = small()
    data.inputs[7, 3] = 40
    report = na.audit(data, epochs=1)
    suspect = next(item for item in report.document.suspects if item.sample_id == 7)
    assert suspect.features[0][0] == "feature 3"
    assert suspect.features[0][1] > 5
    assert suspect.thumbnail == ""


def test_full_disk_in_the_middle_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    from noiseaudit.training import loop

    real, saved = loop.save_checkpoint, []

    def fill(path, **state):
        if len(saved) == 2:
            raise OutputError(f"no space left while writing {path}")
        saved.append(1)
        real(path, **state)

    expected = na.audit(small(), epochs=4, threads=1)
    monkeypatch.setattr(loop, "save_checkpoint", fill)
    with pytest.raises(OutputError, match="no space left"):
        na.audit(small(), out=tmp_path / "o", epochs=4, threads=1)
    monkeypatch.setattr(loop, "save_checkpoint", real)
    resumed = na.audit(small(), out=tmp_path / "o", epochs=4, threads=1)
    assert resumed.ranking.scores.tobytes() == expected.ranking.scores.tobytes()


def test_a_really_full_disk_is_one_message(tmp_path, capsys):
    # RLIMIT_FSIZE makes every write past 20 kB fail as a full disk or quota would.
    arguments = ["audit", "--limit", "300", "--out", str(tmp_path / "o"), "--epochs", "1", "-q"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        code = main(arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert code == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert "cannot be written: File too large" in errors


def test_detectors_on_held_out_probabilities_run_the_cross_validation_once(tmp_path, monkeypatch):
    from noiseaudit import crossval

    calls = []
    real = crossval._run_fold
    monkeypatch.setattr(crossval, "_run_fold", lambda *a, **k: calls.append(1) or real(*a, **k))
    first = na.audit(small(), out=tmp_path / "o", epochs=2, threads=1)
    assert calls == []
    names = [*FEW, "self_confidence"]
    report = na.audit(small(), out=tmp_path / "o", epochs=2, detectors=names, folds=3, threads=1)
    assert len(calls) == 3
    assert report.ranking.scores.tobytes() == first.ranking.scores.tobytes()
    assert report.manifest["results"]["cross_validation_seconds"] > 0
    names += ["confident_learning"]
    na.audit(small(), out=tmp_path / "o", epochs=2, detectors=names, folds=3, threads=1)
    assert len(calls) == 3
    with pytest.raises(ManifestMismatchError, match="folds: stored 3, now 4"):
        na.audit(small(), out=tmp_path / "o", epochs=2, detectors=names, folds=4, threads=1)
