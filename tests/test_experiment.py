import csv
import json

import numpy as np
import pandas as pd
import pytest

import noiseaudit as na
from noiseaudit.cli import main
from noiseaudit.errors import DataError, ManifestMismatchError, UnknownNameError, UsageError
from noiseaudit.experiment import run_experiment
from noiseaudit.experiment_report import COLUMNS, ExperimentReport
from noiseaudit.retraining import RETRAIN_COLUMNS, arm_names

FAST = {"epochs": 2, "threads": 1, "detectors": ["cumulative_loss", "random"]}


def vectors(n=90, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    inputs = random.normal(0, 1, (n, 5)) + 3 * np.eye(5)[labels]
    return na.LabeledDataset(inputs.astype(np.float32), labels, ("a", "b", "c"))


def count_trainings(monkeypatch):
    from noiseaudit import scoring

    calls = []
    real = scoring.run_training
    monkeypatch.setattr(scoring, "run_training", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


def test_files_are_the_contracts(tmp_path):
    run_experiment(
        vectors(), noise=["uniform", "pair"], rates=[0.1, 0.2], seeds=[0, 1], out=tmp_path / "o",
        **FAST,
    )  # fmt: skip
    with (tmp_path / "o" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 * 2 * 2 * 2
    assert {row["status"] for row in rows} == {"ok"}
    # 10% and 20% of each of three classes of 30, exactly.
    assert {(row["rate"], row["n_corrupted"]) for row in rows} == {("0.1", "9"), ("0.2", "18")}
    summary = pd.read_csv(tmp_path / "o" / "summary.csv")
    assert len(summary) == 2 * 2 * 2
    assert (summary["seeds"] == 2).all()
    first = summary.iloc[0]
    cell = (first["noise"], first["rate"], first["detector"])
    own = [
        float(row["auroc"])
        for row in rows
        if (row["noise"], float(row["rate"]), row["detector"]) == cell
    ]
    assert first["auroc_mean"] == pytest.approx(np.mean(own))
    assert "| `cumulative_loss` |" in (tmp_path / "o" / "summary.md").read_text()
    assert (tmp_path / "o" / "figures" / "auroc_uniform.png").read_bytes()[:4] == b"\x89PNG"


def test_finished_cells_are_reused_and_more_seeds_only_add(tmp_path, monkeypatch):
    calls = count_trainings(monkeypatch)
    first = run_experiment(vectors(), seeds=[0], out=tmp_path / "o", **FAST)
    assert len(calls) == 1
    both = run_experiment(vectors(), seeds=[0, 1], out=tmp_path / "o", **FAST)
    assert len(calls) == 2
    assert both.rows[: len(first.rows)] == first.rows
    other = {**FAST, "epochs": 3}
    run_experiment(vectors(), seeds=[0], out=tmp_path / "o", **other)
    assert len(calls) == 3
    with pytest.raises(ManifestMismatchError, match=r"dataset\.inputs"):
        run_experiment(vectors(seed=1), seeds=[0], out=tmp_path / "o", **FAST)


def test_a_failed_cell_is_recorded_and_the_others_go_on(tmp_path, monkeypatch):
    from noiseaudit import experiment_cell

    real = experiment_cell.score_examples

    def fail_for_seed_0(dataset, plan, *arguments, **options):
        if plan.seed == 0:
            raise DataError("the first one, of all")
        return real(dataset, plan, *arguments, **options)

    monkeypatch.setattr(experiment_cell, "score_examples", fail_for_seed_0)
    report = run_experiment(vectors(), seeds=[0, 1], out=tmp_path / "o", **FAST)
    assert report.failed == 1
    status = report.to_frame().set_index(["seed", "detector"])["status"]
    assert status[0].tolist() == ["failed", "failed"]
    assert status[1].tolist() == ["ok", "ok"]
    assert "DataError: the first one, of all" in (tmp_path / "o" / "results.csv").read_text()
    monkeypatch.setattr(experiment_cell, "score_examples", real)
    assert run_experiment(vectors(), seeds=[0, 1], out=tmp_path / "o", **FAST).failed == 0


def test_the_answer_key_reaches_no_score(monkeypatch):
    """Another key for the same noisy labels leaves every score and selection as it is."""
    from dataclasses import replace

    from noiseaudit import experiment_cell

    seen = []
    real = experiment_cell.score_examples

    def watch(*arguments, **options):
        scores = real(*arguments, **options)
        seen.append({name: item.scores.tobytes() for name, item in scores.rankings.items()})
        return scores

    monkeypatch.setattr(experiment_cell, "score_examples", watch)
    selected = []
    retrain_arm = experiment_cell.retrain_arm

    def watch_arm(arm, *arguments, **options):
        if arm.name != "clean":
            selected.append((arm.dataset.ids.tolist(), arm.dataset.labels.tolist()))
        return retrain_arm(arm, *arguments, **options)

    monkeypatch.setattr(experiment_cell, "retrain_arm", watch_arm)
    settings = {"epochs": 2, "threads": 1, "seeds": [0], "folds": 2, "retrain": True}
    settings["retrain_by"] = ["cumulative_loss"]
    first = run_experiment(vectors(), **settings)
    inject = experiment_cell.inject_noise

    def permuted(*arguments, **options):
        made = inject(*arguments, **options)
        order = np.random.default_rng(0).permutation(len(made.is_corrupted))
        return replace(
            made, is_corrupted=made.is_corrupted[order], clean_labels=made.clean_labels[order]
        )

    monkeypatch.setattr(experiment_cell, "inject_noise", permuted)
    second = run_experiment(vectors(), **settings)
    assert set(seen[0]) == set(na.detector_types())
    assert seen[0] == seen[1]
    assert len(selected) == 2 * 6  # all arms but the clean one, twice
    assert selected[:6] == selected[6:]
    assert [row["auroc"] for row in first.rows] != [row["auroc"] for row in second.rows]


def test_human_labels_are_one_cell_with_a_measured_rate(tmp_path):
    data = vectors()
    human = data.labels.copy()
    human[:9] = (human[:9] + 1) % 3
    np.savez(tmp_path / "h.npz", worse=human)
    report = run_experiment(
        data, noise=[f"human:{tmp_path / 'h.npz'}#worse"], rates=[0.1, 0.2], seeds=[0], **FAST
    )
    assert len(report.rows) == 2
    assert {row["rate"] for row in report.rows} == {0.1}
    assert len(report.summary()) == 2


def test_no_noise_gives_undefined_figures_not_an_error(tmp_path):
    report = run_experiment(vectors(), rates=[0.0], seeds=[0, 1], out=tmp_path / "o", **FAST)
    assert {row["auroc"] for row in report.rows} == {None}
    assert "-" in report.to_markdown()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"noise": ["unifrom"]}, UnknownNameError, "did you mean 'uniform'"),
        ({"noise": []}, UsageError, "noise is empty"),
        ({"rates": [1.5]}, UsageError, r"rates must be in \[0, 1\]; got 1.5"),
        ({"seeds": []}, UsageError, "seeds is empty"),
        ({"detectors": ["nope"]}, UnknownNameError, "unknown detector"),
        ({"model": "nope"}, UnknownNameError, "unknown model"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        run_experiment(vectors(), **{**FAST, **arguments})


def test_command_line(tmp_path, capsys):
    out = tmp_path / "o"
    arguments = [
        "experiment", "digits", "--limit", "200", "--noise", "uniform,pair", "--rates", "0.1",
        "--seeds", "0,1", "--epochs", "2", "--detectors", "cumulative_loss,self_confidence",
        "--folds", "2", "--threads", "1", "--out", str(out),
    ]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["failed"] == 0
    assert len(summary["summary"]) == 4
    assert main(arguments) == 0
    assert "self_confidence" in capsys.readouterr().out
    assert main(["experiment", "digits", "--rates", "x", "--out", str(out)]) == 2
    assert "--rates takes numbers" in capsys.readouterr().err


def test_failed_cells_are_exit_code_1(tmp_path, capsys):
    arguments = [
        "experiment", "digits", "--limit", "100", "--noise", "asymmetric,uniform", "--seeds", "0",
        "--epochs", "1", "--detectors", "random", "--out", str(tmp_path / "o"), "-q",
    ]  # fmt: skip
    assert main(arguments) == 1  # digits have no trucks
    table = pd.read_csv(tmp_path / "o" / "results.csv")
    assert table["status"].tolist() == ["failed", "ok"]
    assert "no class 'truck'" in table["error"][0]


def test_retraining_reports_every_arm(tmp_path):
    settings = {**FAST, "epochs": 6, "seeds": [0, 1], "rates": [0.3], "out": tmp_path / "o"}
    report = run_experiment(
        vectors(180), retrain={"epochs": 20}, retrain_by=["area_under_margin"], **settings
    )
    with (tmp_path / "o" / "retrain.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == RETRAIN_COLUMNS
    arms = [(row["arm"], row["selected_by"]) for row in rows if row["seed"] == "0"]
    assert arms == arm_names(["area_under_margin"])
    assert {row["epochs"] for row in rows} == {"20"}
    first = {
        row["arm"]: row
        for row in rows
        if row["seed"] == "0" and row["selected_by"] != "area_under_margin"
    }
    # 180 vectors of three classes: 36 to test on, 144 to train on, 14.4 = 14 of each 48 flipped.
    assert (first["noisy"]["n_train"], first["noisy"]["n_wrong"]) == ("144", "42")
    assert (first["clean"]["n_train"], first["clean"]["n_wrong"]) == ("144", "0")
    assert int(first["remove"]["n_train"]) == 144 - int(first["remove"]["n_selected"])
    assert int(first["remove"]["n_wrong"]) < 42
    assert int(first["relabel"]["n_wrong"]) < 42
    # The detector that only selects is not reported on.
    assert {row["detector"] for row in report.rows} == {"cumulative_loss", "random"}
    assert "## Retrained: " in (tmp_path / "o" / "summary.md").read_text()


def test_retraining_adds_to_finished_cells_and_is_reused(tmp_path, monkeypatch):
    from noiseaudit import retraining

    calls = count_trainings(monkeypatch)
    trained = []
    real = retraining.train
    monkeypatch.setattr(retraining, "train", lambda *a, **k: trained.append(1) or real(*a, **k))
    data, test = vectors(), vectors(30, seed=3)
    settings = {**FAST, "seeds": [0], "out": tmp_path / "o"}
    run_experiment(data, **settings)
    first = run_experiment(data, retrain=True, test=test, **settings)
    assert len(trained) == len(arm_names())
    assert (
        run_experiment(data, retrain=True, test=test, **settings).retrain_rows == first.retrain_rows
    )
    assert len(trained) == len(arm_names())
    assert len(calls) == 3  # each time the stored training run was read
    run_experiment(data, **settings)
    assert not (tmp_path / "o" / "retrain.csv").exists()  # not of this call


@pytest.fixture
def removal_fails(monkeypatch):
    from noiseaudit import experiment_cell

    real = experiment_cell.retrain_arm

    def fail_on_removal(arm, *arguments, **options):
        if arm.name == "remove":
            raise DataError("nothing left")
        return real(arm, *arguments, **options)

    monkeypatch.setattr(experiment_cell, "retrain_arm", fail_on_removal)


def test_an_arm_that_fails_is_shown_with_a_dash(tmp_path, capsys, removal_fails):
    arguments = [
        "experiment", "digits", "--limit", "100", "--seeds", "0", "--epochs", "1", "--retrain",
        "--detectors", "random", "--threads", "1", "--out", str(tmp_path / "o"),
    ]  # fmt: skip
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if "remove" in line]
    cells = [cell.strip() for cell in line.split("│")]
    assert (cells[3], cells[5]) == ("remove", "-")
    assert str(tmp_path / "o" / "summary.md") in shown.replace("\n", "")


def test_when_every_arm_fails_the_scores_are_still_told(tmp_path, monkeypatch):
    from noiseaudit import experiment_cell

    def fail(*_, **__):
        raise DataError("no memory")

    monkeypatch.setattr(experiment_cell, "retrain_arm", fail)
    report = run_experiment(vectors(), retrain=True, seeds=[0], out=tmp_path / "o", **FAST)
    assert report.failed == len(arm_names())
    assert "cumulative_loss" in (tmp_path / "o" / "summary.md").read_text()
    assert "no memory" in (tmp_path / "o" / "retrain.csv").read_text()
    assert not (tmp_path / "o" / "retrain_summary.csv").exists()


def test_names_given_to_noise_afterwards_can_be_summarised():
    rows = [
        {**dict.fromkeys(COLUMNS), "dataset": "d", "noise": "human noise", "rate": 0.4,
         "detector": "random", "seed": seed, "status": "ok", "seconds": 1.0}
        for seed in (0, 1)
    ]  # fmt: skip
    (line,) = ExperimentReport(rows, failed=0).summary()
    assert (line["noise"], line["rate"], line["seeds"]) == ("human noise", 0.4, 2)


def test_an_arm_that_fails_is_recorded(tmp_path, removal_fails):
    report = run_experiment(vectors(), retrain=True, seeds=[0], out=tmp_path / "o", **FAST)
    assert report.failed == 1
    status = {row["arm"]: row["status"] for row in report.retrain_rows}
    assert status == {**dict.fromkeys(status, "ok"), "remove": "failed"}
    assert {row["status"] for row in report.rows} == {"ok"}
    assert "DataError: nothing left" in (tmp_path / "o" / "retrain.csv").read_text()


def test_an_interrupted_cell_of_other_settings_starts_over(tmp_path, monkeypatch):
    from noiseaudit import experiment_cell

    names = ["cumulative_loss", "self_confidence"]
    settings = {**FAST, "detectors": names, "folds": 2, "seeds": [0], "out": tmp_path / "o"}
    run_experiment(vectors(), **settings)

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    for stage in ("score_examples", "_evaluate"):
        monkeypatch.setattr(experiment_cell, stage, stop)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(vectors(), **{**settings, "epochs": 3})
        monkeypatch.undo()
    report = run_experiment(vectors(), **{**settings, "epochs": 4})
    assert report.failed == 0
    fresh = run_experiment(vectors(), **{**settings, "epochs": 4, "out": None})
    assert [row["auroc"] for row in report.rows] == [row["auroc"] for row in fresh.rows]


def test_a_cell_of_another_format_or_damaged_is_run_again(tmp_path, monkeypatch):
    from noiseaudit import experiment_cell

    calls = count_trainings(monkeypatch)
    settings = {**FAST, "seeds": [0], "out": tmp_path / "o"}
    first = run_experiment(vectors(), **settings)
    monkeypatch.setattr(experiment_cell, "_FORMAT", 99)
    run_experiment(vectors(), **settings)
    assert len(calls) == 2
    (cell,) = (tmp_path / "o" / "cells").iterdir()
    (cell / "cell.json").write_text("{}")
    again = run_experiment(vectors(), **settings)
    assert len(calls) == 3
    assert [row["auroc"] for row in again.rows] == [row["auroc"] for row in first.rows]
    (cell / "scores.npz").write_bytes(b"PK")
    assert run_experiment(vectors(), **settings).rows == again.rows  # only figures need it
    run_experiment(vectors(), resume=False, **settings)
    assert len(calls) == 4


def test_arms_of_a_cell_share_a_seed_and_cells_do_not(tmp_path, monkeypatch):
    from noiseaudit import retraining

    seeds = []
    real = retraining.train

    def watch(*arguments, seed, **options):
        seeds.append(seed)
        return real(*arguments, seed=seed, **options)

    monkeypatch.setattr(retraining, "train", watch)
    settings = {**FAST, "epochs": 1, "seeds": [3, 4], "rates": [0.1, 0.2], "out": tmp_path / "o"}
    report = run_experiment(vectors(), retrain=True, **settings)
    # Five arms; the clean labels are trained on once for both rates.
    assert sorted(seeds) == [3] * 9 + [4] * 9
    clean = [row["test_accuracy"] for row in report.retrain_rows if row["arm"] == "clean"]
    assert len(clean) == 4
    assert clean[:2] == clean[2:]


def test_human_labels_with_a_failed_seed_are_still_summarised(tmp_path, monkeypatch):
    from noiseaudit import experiment_cell

    data = vectors()
    np.savez(tmp_path / "h.npz", worse=np.roll(data.labels, 1))
    real = experiment_cell.score_examples

    def fail_for_seed_0(dataset, plan, *arguments, **options):
        if plan.seed == 0:
            raise DataError("the first one")
        return real(dataset, plan, *arguments, **options)

    monkeypatch.setattr(experiment_cell, "score_examples", fail_for_seed_0)
    human = f"human:{tmp_path / 'h.npz'}#worse"
    report = run_experiment(
        data, noise=[human], seeds=[0, 1], retrain=True, test=vectors(30, 2), out=tmp_path / "o",
        **FAST,
    )  # fmt: skip
    assert report.failed == 1
    assert {line["rate"] for line in report.retrain_summary()} == {1.0}
    assert "## Retrained: " in (tmp_path / "o" / "summary.md").read_text()


def test_arrays_of_a_cell_are_kept_and_give_its_figures(tmp_path):
    data = vectors()
    report = run_experiment(
        data, noise=["pair"], rates=[0.2], seeds=[0], out=tmp_path / "o", **FAST
    )
    folder = tmp_path / "o" / "cells" / "pair_0.2_0"
    with np.load(folder / "scores.npz", allow_pickle=False) as stored:
        kept = dict(stored)
    assert kept["is_corrupted"].sum() == 18
    by_epoch = np.load(folder / "removal_by_epoch.npz", allow_pickle=False)
    for row in report.rows:
        assert na.evaluation.auroc(kept[row["detector"]], kept["is_corrupted"]) == row["auroc"]
        if row["detector"] != "random":
            rates = by_epoch[row["detector"]]
            assert len(rates) == FAST["epochs"]
            assert rates[-1] == row["removal_rate"]
    figures = {path.name for path in (tmp_path / "o" / "figures").iterdir()}
    assert figures == {"auroc_pair.png", "scores_pair_0.2.png", "removal_by_epoch_pair_0.2.png"}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"retrain": {"epoch": 3}}, UsageError, "retrain does not take epoch; only augm"),
        ({"retrain_by": ["cumulative_loss"]}, UsageError, "are for retrain"),
        ({"retrain": True, "retrain_by": ["lossy"]}, UnknownNameError, "unknown detector 'lossy'"),
        ({"retrain": {"model": "nope"}}, UnknownNameError, "unknown model"),
        ({"retrain": {"augmentation": "crop"}}, UsageError, "is for pictures"),
        ({"retrain": {"epochs": 5}, "recipe": na.Recipe(2), "epochs": None}, UsageError, "inside"),
    ],
)
def test_bad_retraining_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        run_experiment(vectors(), **{**FAST, **arguments})


def test_what_retraining_changes_wins_over_the_audits_recipe():
    report = run_experiment(
        vectors(), seeds=[0], retrain={"epochs": 3}, recipe={"epochs": 2}, threads=1,
        detectors=["random"],
    )  # fmt: skip
    assert {row["epochs"] for row in report.retrain_rows} == {3}


def test_retraining_from_the_command_line(tmp_path, capsys):
    random = np.random.default_rng(0)
    x = random.integers(0, 60, (120, 8, 8), dtype=np.uint8) + 120 * (np.arange(120) % 2)[
        :, None, None
    ].astype(np.uint8)
    y = np.arange(120) % 2
    np.savez(tmp_path / "d.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    arguments = [
        "experiment", str(tmp_path / "d.npz"), "--seeds", "0", "--rates", "0.2", "--epochs", "2",
        "--detectors", "random", "--model", "mlp", "--threads", "1", "--limit", "60",
        "--retrain", "--retrain-epochs", "3", "--retrain-augmentation", "none",
        "--out", str(tmp_path / "o"),
    ]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["files"]["retrain"] == str(tmp_path / "o" / "retrain.csv")
    noisy = summary["retrain_summary"][0]
    assert (noisy["arm"], noisy["n_train_mean"], noisy["n_wrong_mean"]) == ("noisy", 60, 12)
    test = json.loads((tmp_path / "o" / "manifest.json").read_text())["retrain"]["test"]
    assert test == na.load(tmp_path / "d.npz", split="test").fingerprint
    assert main([*arguments, "--retrain-by", "random", "--split", "train"]) == 0
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["retrain"]["test"] == test
    assert "relabel" in capsys.readouterr().out
    without = ["experiment", "digits", "--retrain-epochs", "3", "--out", str(tmp_path / "p")]
    assert main(without) == 2
    assert "need --retrain; add it" in capsys.readouterr().err
