import json

import numpy as np
import pytest
import torch

import noiseaudit as na
from noiseaudit import retraining
from noiseaudit.errors import DataError
from noiseaudit.findings import Findings
from noiseaudit.ranking import Ranking
from noiseaudit.retraining import (
    Arm,
    arm_names,
    make_arms,
    retrain_arm,
    split_off_test,
    summarise_arms,
)
from noiseaudit.scoring import make_plan

NOISY = [0, 0, 1, 1, 2, 2]
SUGGESTED = [0, 1, 1, 0, 2, 2]


def vectors(n=90, seed=0, split=None):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    inputs = random.normal(0, 1, (n, 5)) + 3 * np.eye(5)[labels]
    return na.LabeledDataset(
        inputs.astype(np.float32), labels, ("a", "b", "c"), ids=np.arange(n) + 100, split=split
    )


def six():
    """Six examples of which the audit flags rows 1 and 3; `loss` finds 5 and 1 the worst."""
    data = na.LabeledDataset(np.eye(6, dtype=np.float32), np.array(NOISY), ("a", "b", "c"))
    nothing = np.zeros(6)
    suggested = np.array(SUGGESTED)
    findings = Findings(suggested, suggested != NOISY, nothing, nothing, nothing.astype(int), 1)
    ranking = Ranking("loss", data.ids, np.array([0.0, 0.8, 0.1, 0.2, 0.3, 0.9]))
    return data, findings, {"loss": ranking}


def arms_by_name(**options):
    data, findings, rankings = six()
    clean = data.with_labels([0, 1, 1, 0, 2, 1])
    made = make_arms(data, clean, findings, rankings, seed=0, **options)
    assert [(arm.name, arm.selected_by) for arm in made] == arm_names(options.get("selectors", ()))
    return {arm.file_name: arm for arm in made}


def test_the_verdict_is_removed_or_relabelled():
    arms = arms_by_name()
    assert arms["noisy"].dataset.labels.tolist() == NOISY
    assert arms["clean"].dataset.labels.tolist() == [0, 1, 1, 0, 2, 1]
    assert arms["remove_is_label_issue"].dataset.ids.tolist() == [0, 2, 4, 5]
    assert arms["relabel_is_label_issue"].dataset.labels.tolist() == SUGGESTED
    assert arms["random_removal"].n_selected == arms["remove_is_label_issue"].n_selected == 2
    assert len(arms["random_removal"].dataset) == 4


def test_a_detector_selects_as_many_as_the_verdict_flags():
    arms = arms_by_name(selectors=["loss"])
    assert arms["remove_loss"].dataset.ids.tolist() == [0, 2, 3, 4]
    # Row 5 is selected too, but the audit agrees with its label.
    assert arms["relabel_loss"].dataset.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert arms["relabel_loss"].n_selected == 2


def test_random_removal_depends_on_the_seed_alone():
    data, findings, rankings = six()
    removed = {
        seed: tuple(
            next(
                arm.dataset.ids
                for arm in make_arms(data, data, findings, rankings, seed=seed)
                if arm.name == "random_removal"
            )
        )
        for seed in (0, 0, 1, 2, 3)
    }
    assert len(set(removed.values())) > 1


def test_a_test_split_is_the_test_set():
    split = np.array(["train", "val", "test"] * 30)
    train, test = split_off_test(vectors(split=split))
    assert set(train.split) == {"train", "val"}
    assert test.ids.tolist() == (np.arange(2, 90, 3) + 100).tolist()


@pytest.mark.parametrize("split", [None, np.full(90, "train"), np.full(90, "test")])
def test_without_one_a_fifth_of_every_class_is_held_out(split):
    train, test = split_off_test(vectors(split=split))
    assert np.bincount(test.labels).tolist() == [6, 6, 6]
    assert sorted([*train.ids, *test.ids]) == (np.arange(90) + 100).tolist()
    assert split_off_test(vectors(split=split))[1].ids.tolist() == test.ids.tolist()


def retrained(arm, tmp_path, test=None, epochs=3, **options):
    data = arm.dataset
    plan = make_plan(vectors(), model="mlp", epochs=epochs, threads=1, seed=1)
    return retrain_arm(
        arm, vectors(30, seed=5) if test is None else test, plan, tmp_path, **options
    ), data


def test_accuracies_are_those_of_the_trained_model(tmp_path, monkeypatch):
    caught = []
    real = retraining.train
    monkeypatch.setattr(
        retraining, "train", lambda *a, **k: caught.append(real(*a, **k)) or caught[-1]
    )
    test = vectors(30, seed=5)
    result, data = retrained(Arm("noisy", "", 0, vectors()), tmp_path, test)
    model, inputs = caught[0].model.eval(), caught[0].inputs
    with torch.no_grad():
        for name, part in (("train_accuracy", data), ("test_accuracy", test)):
            scaled = (torch.from_numpy(part.inputs) - inputs.mean) / inputs.std
            right = model(scaled).argmax(dim=1).numpy() == part.labels
            assert result[name] == pytest.approx(right.mean())
    assert result["epochs"] == 3
    assert result["test_accuracy"] > 0.5


def test_finished_arms_are_reused_unless_something_differs(tmp_path, monkeypatch):
    calls = []
    real = retraining.train
    monkeypatch.setattr(retraining, "train", lambda *a, **k: calls.append(1) or real(*a, **k))
    arm = Arm("remove", "is_label_issue", 4, vectors(60))
    first, _ = retrained(arm, tmp_path)
    again, _ = retrained(arm, tmp_path)
    assert again == first
    assert len(calls) == 1
    retrained(arm, tmp_path, resume=False)
    assert len(calls) == 2
    retrained(arm, tmp_path, epochs=2)  # another recipe
    assert len(calls) == 3
    retrained(arm, tmp_path, test=vectors(30, seed=6), epochs=2)  # another test set
    assert len(calls) == 4
    retrained(Arm("remove", "is_label_issue", 4, vectors(66)), tmp_path, epochs=2)  # other data
    assert len(calls) == 5
    assert not list(tmp_path.glob("*.pt"))


def test_an_interrupted_arm_goes_on_but_never_from_other_settings(tmp_path, monkeypatch):
    arm = Arm("noisy", "", 0, vectors())
    whole, _ = retrained(arm, tmp_path / "whole", epochs=4)
    real = retraining.train

    class Stopped(Exception):
        pass

    def stop_late(*arguments, **options):
        """Trains to the end but is killed before the result is written."""
        real(*arguments, **options)
        raise Stopped

    monkeypatch.setattr(retraining, "train", stop_late)
    with pytest.raises(Stopped):
        retrained(arm, tmp_path / "cut", epochs=4)
    monkeypatch.setattr(retraining, "train", real)
    assert (tmp_path / "cut" / "noisy.pt").exists()
    assert json.loads((tmp_path / "cut" / "noisy.json").read_text())["result"] is None
    resumed, _ = retrained(arm, tmp_path / "cut", epochs=4)
    assert resumed["test_accuracy"] == whole["test_accuracy"]
    monkeypatch.setattr(retraining, "train", stop_late)
    with pytest.raises(Stopped):
        retrained(arm, tmp_path / "cut", epochs=2)
    monkeypatch.setattr(retraining, "train", real)
    assert retrained(arm, tmp_path / "cut", epochs=3)[0]["epochs"] == 3


def test_a_noisy_arm_that_fits_little_says_so(tmp_path, caplog):
    noisy = na.inject_noise(vectors(), "uniform", rate=0.5, seed=0).dataset
    with caplog.at_level("WARNING", logger="noiseaudit"):
        retrained(Arm("noisy", "", 0, noisy), tmp_path, epochs=1)
    assert "of the noisy labels in 1 epochs" in caplog.text


@pytest.mark.parametrize(
    ("arm", "test", "words"),
    [
        (Arm("remove", "loss", 89, vectors(1)), None, "remove_loss leaves 1 examples"),
        (Arm("noisy", "", 0, vectors()), six()[0], "inputs of shape"),
        (
            Arm("noisy", "", 0, vectors()),
            na.LabeledDataset(np.ones((4, 5), np.float32), np.array([0, 1, 1, 0]), ("a", "z")),
            "class names",
        ),
    ],
)
def test_what_cannot_be_retrained(arm, test, words, tmp_path):
    with pytest.raises(DataError, match=words):
        retrained(arm, tmp_path, test)


def row(arm, seed, accuracy, selected_by="", status="ok"):
    figures = {"n_selected": 1, "n_train": 9, "n_wrong": 2, "train_accuracy": 0.5}
    told = {"arm": arm, "selected_by": selected_by, "seed": seed, "status": status}
    return {**figures, **told, "test_accuracy": accuracy}


def test_summary_pairs_seeds_and_gives_the_share_of_the_gap():
    rows = [
        row("noisy", 0, 0.60), row("clean", 0, 0.80), row("remove", 0, 0.76, "x"),
        row("noisy", 1, 0.64), row("clean", 1, 0.84), row("remove", 1, 0.82, "x"),
        row("noisy", 2, None, status="failed"), row("remove", 2, 0.99, "x"),
    ]  # fmt: skip
    lines = {line["arm"]: line for line in summarise_arms(rows)}
    assert lines["remove"]["seeds"] == 3
    assert lines["remove"]["test_accuracy_mean"] == pytest.approx((0.76 + 0.82 + 0.99) / 3)
    # Gains over the noisy arm of the same seed: 0.16 and 0.18; seed 2 has no noisy arm.
    assert lines["remove"]["gain_mean"] == pytest.approx(0.17)
    assert lines["remove"]["gap_closed"] == pytest.approx(0.17 / 0.20)
    assert lines["clean"]["gap_closed"] is None
    assert lines["noisy"]["gain_mean"] == 0


def test_no_share_of_a_gap_below_one_point():
    rows = [row("noisy", 0, 0.60), row("clean", 0, 0.609), row("remove", 0, 0.605, "x")]
    assert {line["gap_closed"] for line in summarise_arms(rows)} == {None}
